/* rank.c -- Wilcoxon's signed ranks, Mann and Whitney's U, Hodges and Lehmann's shift. */
#include "stats/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EXACT_PAIRS = 100, EXACT_SIDE = 50 };

static void *take(int64_t n, size_t each) {
    void *p = calloc((size_t)(n > 0 ? n : 1), each);
    CM_ASSERT(p, "out of memory: %lld ranks", (long long)n);
    return p;
}

typedef struct {
    double x;
    int64_t i;
} keyed;

static int by_x(const void *a, const void *b) {
    double x = ((const keyed *)a)->x, y = ((const keyed *)b)->x;
    return (x > y) - (x < y);
}

double cm_ranks(const double *x, int64_t n, double *rank) {
    keyed *k = take(n, sizeof *k);
    double ties = 0;
    for (int64_t i = 0; i < n; i++) k[i] = (keyed){x[i], i};
    qsort(k, (size_t)n, sizeof *k, by_x);
    for (int64_t i = 0, j; i < n; i = j) {
        for (j = i; j < n && k[j].x == k[i].x; j++) continue;
        double t = (double)(j - i), r = (double)(i + j + 1) / 2;
        ties += t * t * t - t;
        for (int64_t q = i; q < j; q++) rank[k[q].i] = r;
    }
    free(k);
    return ties;
}

/* Sets p of statistic u from a normal approximation with mean and variance. */
static void normal_p(double u, double mean, double var, bool correct, double *less,
                     double *greater, double *two) {
    if (var <= 0) {
        *less = *greater = *two = 1;
        return;
    }
    double se = sqrt(var), cc = correct ? 0.5 : 0, d = u - mean;
    *less = cm_norm_cdf((d + cc) / se);
    *greater = cm_norm_cdf(-(d - cc) / se);
    *two = fmin(1, 2 * cm_norm_cdf(-fmax(0, fabs(d) - cc) / se));
}

/* ---- Wilcoxon: Biometrics Bulletin 1 (1945); zeros by Pratt, JASA 54 (1959) ------- */

/* P[W+ = w] for n untied differences, w = 0..n(n+1)/2; w[r] by adding rank after rank. */
static void signed_rank_exact(cm_wilcoxon *r, int64_t n) {
    int64_t top = n * (n + 1) / 2, seen = (int64_t)llround(r->plus);
    double *p = take(top + 1, sizeof *p), below = 0, above = 0;
    p[0] = 1;
    for (int64_t k = 1, reach = 0; k <= n; k++) {
        reach += k;
        for (int64_t w = reach; w >= 0; w--)
            p[w] = (p[w] + (w >= k ? p[w - k] : 0)) / 2;
    }
    for (int64_t w = 0; w <= top; w++) {
        if (w <= seen) below += p[w];
        if (w >= seen) above += p[w];
    }
    r->p_less = fmin(1, below);
    r->p_greater = fmin(1, above);
    r->p_two = fmin(1, 2 * fmin(below, above));
    r->exact = true;
    free(p);
}

cm_wilcoxon cm_wilcoxon_test(const double *d, int64_t n, cm_zeros zeros, bool exact,
                             bool correct) {
    cm_wilcoxon r = {0, 0, 1, 1, 1, false};
    double *mag = take(2 * n, sizeof *mag), *rank = mag + n, zero_ranks = 0;
    int64_t m = 0, nz = 0;
    for (int64_t i = 0; i < n; i++) {
        nz += d[i] == 0;
        if (d[i] != 0 || zeros != CM_ZERO_WILCOX) mag[m++] = fabs(d[i]);
    }
    double ties = cm_ranks(mag, m, rank), M = (double)m, Z = (double)nz;
    for (int64_t i = 0, j = 0; i < n; i++) {
        if (d[i] == 0 && zeros == CM_ZERO_WILCOX) continue;
        *(d[i] > 0 ? &r.plus : d[i] < 0 ? &r.minus : &zero_ranks) += rank[j++];
    }
    free(mag);
    double mean = M * (M + 1) / 4, var = M * (M + 1) * (2 * M + 1);
    if (zeros == CM_ZERO_SPLIT) {
        r.plus += zero_ranks / 2;
        r.minus += zero_ranks / 2;
    } else if (zeros == CM_ZERO_PRATT) {
        mean -= Z * (Z + 1) / 4;
        var -= Z * (Z + 1) * (2 * Z + 1);
        ties -= Z * Z * Z - Z;
    }
    bool clean = nz == 0 && ties == 0 && m > 0 && m <= EXACT_PAIRS;
    if (exact && clean) signed_rank_exact(&r, m);
    else
        normal_p(r.plus, mean, (var - ties / 2) / 24, correct, &r.p_less, &r.p_greater,
                 &r.p_two);
    return r;
}

/* ---- Mann and Whitney 1947 -------------------------------------------------------- */

/* Distribution function of U without ties, cdf[0..nx*ny]: subsets of nx among the ranks
 * 1..nx+ny by sum, one rank at a time, as a fraction of all subsets. */
static double *u_cdf(int64_t nx, int64_t ny) {
    int64_t top = nx * ny, width = top + 1;
    double *ways = take((nx + 1) * width, sizeof *ways);
    ways[0] = 1;
    /* Rank r as the j-th smallest of x adds r - j to U, 0 <= r - j <= ny. */
    for (int64_t r = 1; r <= nx + ny; r++)
        for (int64_t j = nx < r ? nx : r; j >= 1 && r - j <= ny; j--)
            for (int64_t u = top; u >= r - j; u--)
                ways[j * width + u] += ways[(j - 1) * width + u - (r - j)];
    double *cdf = take(width, sizeof *cdf), all = 0;
    for (int64_t u = 0; u <= top; u++) cdf[u] = all += ways[nx * width + u];
    for (int64_t u = 0; u <= top; u++) cdf[u] /= all;
    free(ways);
    return cdf;
}

/* How many of the sorted differences lie outside a bound of one-sided error tail. */
static int64_t cut(const double *cdf, int64_t pairs, double var, double tail) {
    int64_t k = 0;
    if (cdf)
        while (k < pairs && cdf[k] <= tail) k++;
    else
        k = (int64_t)floor((double)pairs / 2 + cm_norm_quantile(tail) * sqrt(var));
    return k < 0 ? 0 : k;
}

static cm_interval bounds(const double *diff, int64_t pairs, int64_t k) {
    if (k == 0) return (cm_interval){-INFINITY, INFINITY}; /* too few for this confidence */
    return (cm_interval){diff[k - 1], diff[pairs - k]};
}

static void shift_of(cm_mann_whitney *r, const double *x, int64_t nx, const double *y,
                     int64_t ny, const double *cdf, double var, double level) {
    int64_t pairs = nx * ny;
    double *diff = take(pairs, sizeof *diff);
    for (int64_t i = 0; i < pairs; i++) diff[i] = x[i / ny] - y[i % ny];
    cm_sort(diff, pairs);
    r->shift = cm_quantile(diff, pairs, 0.5);
    r->ci = bounds(diff, pairs, cut(cdf, pairs, var, (1 - level) / 2));
    r->one = bounds(diff, pairs, cut(cdf, pairs, var, 1 - level));
    free(diff);
}

cm_mann_whitney cm_mann_whitney_test(const double *x, int64_t nx, const double *y,
                                     int64_t ny, double level) {
    cm_mann_whitney r = {NAN, 1, 1, 1, NAN, {NAN, NAN}, {NAN, NAN}, false};
    if (nx < 1 || ny < 1) return r;
    int64_t n = nx + ny;
    double *all = take(2 * n, sizeof *all), *rank = all + n;
    memcpy(all, x, (size_t)nx * sizeof *x);
    memcpy(all + nx, y, (size_t)ny * sizeof *y);
    double ties = cm_ranks(all, n, rank), N = (double)n, pairs = (double)nx * (double)ny;
    r.u = -(double)nx * (double)(nx + 1) / 2;
    for (int64_t i = 0; i < nx; i++) r.u += rank[i];
    free(all);
    r.exact = ties == 0 && nx <= EXACT_SIDE && ny <= EXACT_SIDE;
    double var = pairs / 12 * (N + 1 - ties / (N * (N - 1)));
    double *cdf = r.exact ? u_cdf(nx, ny) : NULL;
    if (cdf) {
        int64_t u = (int64_t)llround(r.u);
        r.p_less = cdf[u];
        r.p_greater = cdf[nx * ny - u]; /* U is symmetric about nx ny / 2 */
        r.p_two = fmin(1, 2 * fmin(r.p_less, r.p_greater));
    } else {
        normal_p(r.u, pairs / 2, var, true, &r.p_less, &r.p_greater, &r.p_two);
    }
    shift_of(&r, x, nx, y, ny, cdf, var, level);
    free(cdf);
    return r;
}
