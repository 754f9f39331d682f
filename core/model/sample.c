/* sample.c -- choose the next token from logits.
 *
 * Order of the filters, as users of llama.cpp know it: repeat penalty, top-k, top-p,
 * min-p, then temperature.  Draw i of a seed is a pure function of (seed, i). */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double logit, p;
    int id;
} cand;

/* Larger logit first; equal logits in the order of ids, so that ties never depend on the
 * sorting algorithm. */
static int by_logit(const void *a, const void *b) {
    const cand *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id - y->id;
}

/* c[0..n) as a heap with the last in that order at c[0]: put x at node i or below. */
static void sift(cand *c, int n, int i, cand x) {
    for (int k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && by_logit(&c[k + 1], &c[k]) > 0) k++;
        if (by_logit(&x, &c[k]) >= 0) break;
        c[i] = c[k];
    }
    c[i] = x;
}

/* The n largest of V logits, in order. */
static void select_largest(const cm_real *logits, int V, int n, cand *c) {
    for (int i = 0; i < n; i++) c[i] = (cand){ .logit = (double)logits[i], .id = i };
    for (int i = n < V ? n / 2 - 1 : -1; i >= 0; i--) sift(c, n, i, c[i]);
    for (int i = n; i < V; i++) /* an equal one with a higher id comes later in the order */
        if ((double)logits[i] > c[0].logit)
            sift(c, n, 0, (cand){ .logit = (double)logits[i], .id = i });
    qsort(c, (size_t)n, sizeof *c, by_logit);
}

int cm_argmax(const cm_real *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static void penalise(cm_real *logits, int V, const int32_t *recent, int n, double penalty) {
    for (int i = 0; i < n; i++) {
        bool seen = recent[i] < 0 || recent[i] >= V;
        for (int j = 0; j < i && !seen; j++) seen = recent[j] == recent[i];
        if (seen) continue;
        cm_real *x = &logits[recent[i]];
        *x = *x > 0 ? *x / (cm_real)penalty : *x * (cm_real)penalty;
    }
}

/* Probabilities of c[0..n) at temperature 1, relative to their own sum. */
static void softmax(cand *c, int n, double temperature) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += c[i].p = exp((c[i].logit - c[0].logit) / temperature);
    for (int i = 0; i < n; i++) c[i].p /= sum;
}

static int keep_top_p(const cand *c, int n, double top_p) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        if ((sum += c[i].p) >= top_p) return i + 1;
    return n;
}

static int keep_min_p(const cand *c, int n, double min_p) {
    int k = 1;
    while (k < n && c[k].p >= min_p * c[0].p) k++;
    return k;
}

int cm_sample_token(const cm_sampling *s, cm_real *logits, int V, const int32_t *recent,
                    int n_recent, uint64_t draw, void *work) {
    if (s->repeat_penalty != 1) {
        int n = n_recent < s->repeat_last ? n_recent : (int)s->repeat_last;
        penalise(logits, V, recent + n_recent - n, n, s->repeat_penalty);
    }
    if (s->temperature <= 0) return cm_argmax(logits, V);
    cand *c = work;
    int n = s->top_k > 0 && s->top_k < V ? (int)s->top_k : V;
    select_largest(logits, V, n, c);
    softmax(c, n, 1);
    if (s->top_p < 1) n = keep_top_p(c, n, s->top_p);
    if (s->min_p > 0) n = keep_min_p(c, n, s->min_p);
    softmax(c, n, s->temperature);
    double u = cm_rng_uniform(cm_rng_make(s->seed, CM_RNG_SAMPLE, 0), draw), sum = 0;
    for (int i = 0; i < n; i++)
        if (u < (sum += c[i].p)) return c[i].id;
    return c[n - 1].id;
}

size_t cm_sample_work_bytes(int V) { return (size_t)V * sizeof(cand); }

bool cm_logits_finite(const cm_real *logits, int64_t V) {
    for (int64_t i = 0; i < V; i++)
        if (!isfinite(logits[i])) return false;
    return true;
}
