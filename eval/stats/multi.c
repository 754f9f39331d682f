/* multi.c -- p-values of many tests at once: Holm 1979, Benjamini and Hochberg 1995,
 * Benjamini and Yekutieli 2001. */
#include "stats/stats.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    double p;
    int64_t i;
} entry;

static int by_p(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return x->p != y->p ? (x->p > y->p) - (x->p < y->p) : (x->i > y->i) - (x->i < y->i);
}

/* The m entries that are numbers, ascending; the others' NaN goes to adj. */
static entry *sorted(const double *p, int64_t n, double *adj, int64_t *m) {
    entry *e = malloc((size_t)(n + 1) * sizeof *e);
    CM_ASSERT(e, "out of memory: %lld p-values", (long long)n);
    *m = 0;
    for (int64_t i = 0; i < n; i++)
        if (isnan(p[i])) adj[i] = NAN;
        else e[(*m)++] = (entry){p[i], i};
    qsort(e, (size_t)*m, sizeof *e, by_p);
    return e;
}

void cm_holm(const double *p, int64_t n, double *adj) {
    int64_t m;
    entry *e = sorted(p, n, adj, &m);
    double most = 0;
    for (int64_t k = 0; k < m; k++) {
        most = fmax(most, fmin(1, (double)(m - k) * e[k].p));
        adj[e[k].i] = most;
    }
    free(e);
}

static void step_up(const double *p, int64_t n, double *adj, bool yekutieli) {
    int64_t m;
    entry *e = sorted(p, n, adj, &m);
    double factor = 1, least = 1;
    if (yekutieli) {
        factor = 0;
        for (int64_t k = 1; k <= m; k++) factor += 1 / (double)k;
    }
    for (int64_t k = m - 1; k >= 0; k--) {
        least = fmin(least, factor * (double)m * e[k].p / (double)(k + 1));
        adj[e[k].i] = least;
    }
    free(e);
}

void cm_bh(const double *p, int64_t n, double *adj) { step_up(p, n, adj, false); }
void cm_by(const double *p, int64_t n, double *adj) { step_up(p, n, adj, true); }
