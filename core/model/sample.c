/* sample.c -- choose the next token from logits.
 *
 * Order of the filters, as users of llama.cpp know it: repeat penalty, top-k, top-p,
 * min-p, then temperature.  Draw i of a seed is a pure function of (seed, i).
 *
 * The likeliest tokens are put in order, as many as are needed, never the vocabulary:
 * SOME of them, eight times as many where those do not make up the wanted mass. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef cm_candidate cand;
enum { SOME = 64 };

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

/* Relative weight of a logit. */
static double weight(double logit, double top, double temperature) {
    return exp((logit - top) / temperature);
}

/* Probabilities of c[0..n), relative to their own sum. */
static void softmax(cand *c, int n, double temperature) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += c[i].p = weight(c[i].logit, c[0].logit, temperature);
    for (int i = 0; i < n; i++) c[i].p /= sum;
}

static double sum_of_all(const cm_real *logits, int V, double temperature) {
    double sum = 0, top = (double)logits[cm_argmax(logits, V)];
    for (int i = 0; i < V; i++) sum += weight((double)logits[i], top, temperature);
    return sum;
}

/* How many of c[0..n) have a mass of top_p together; 0: all of them have less. */
static int find_top_p(const cand *c, int n, double top_p) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        if ((sum += c[i].p) >= top_p) return i + 1;
    return 0;
}

static int keep_min_p(const cand *c, int n, double min_p) {
    int k = 1;
    while (k < n && c[k].p >= min_p * c[0].p) k++;
    return k;
}

/* What top-p and min-p leave of all tokens; without them, the likeliest of mass `reach`.
 * p: at `temperature` and relative to all tokens. */
static int from_all(const cm_sampling *s, const cm_real *logits, int V, double temperature,
                    double reach, cand *c) {
    double sum = sum_of_all(logits, V, temperature);
    for (int n = SOME;; n = n < V / 8 ? 8 * n : V) {
        if (n > V) n = V;
        select_largest(logits, V, n, c);
        for (int i = 0; i < n; i++) c[i].p = weight(c[i].logit, c[0].logit, temperature) / sum;
        int by_p = reach < 1 ? find_top_p(c, n, reach) : 0, k = by_p ? by_p : n;
        if (s->min_p > 0) k = keep_min_p(c, k, s->min_p);
        if (by_p || k < n || n == V) return k;
    }
}

/* The distribution after all filters, likeliest first; without filters only as many as
 * have a mass above u, with probabilities relative to all. */
static int likeliest(const cm_sampling *s, const cm_real *logits, int V, double u, cand *c) {
    int n = (int)s->top_k;
    if (s->top_k > 0 && s->top_k < V) {
        select_largest(logits, V, n, c);
        softmax(c, n, 1);
        if (s->top_p < 1) {
            int k = find_top_p(c, n, s->top_p);
            n = k ? k : n;
        }
        if (s->min_p > 0) n = keep_min_p(c, n, s->min_p);
    } else if (s->top_p < 1 || s->min_p > 0) {
        n = from_all(s, logits, V, 1, s->top_p, c);
    } else {
        return from_all(s, logits, V, s->temperature, nextafter(u, 1), c);
    }
    softmax(c, n, s->temperature);
    return n;
}

static void penalise_recent(const cm_sampling *s, cm_real *logits, int V, const int32_t *recent,
                            int n_recent) {
    if (s->repeat_penalty == 1) return;
    int n = n_recent < s->repeat_last ? n_recent : (int)s->repeat_last;
    penalise(logits, V, recent + n_recent - n, n, s->repeat_penalty);
}

double cm_sample_uniform(const cm_sampling *s, cm_sample_draw what, uint64_t draw) {
    return cm_rng_uniform(cm_rng_make(s->seed, CM_RNG_SAMPLE, (uint64_t)what), draw);
}

int cm_candidates_pick(const cm_candidate *c, int n, double u) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (u < (sum += c[i].p)) return c[i].id;
    return c[n - 1].id;
}

bool cm_guess_accepted(double p, double q, double u) { return u * q < p; }

int cm_candidates_rest(cm_candidate *c, int n, const double *q, int guess) {
    double sum = 0;
    int m = 0;
    for (int i = 0; i < n; i++) {
        double rest = q ? c[i].p - q[c[i].id] : c[i].id == guess ? 0 : c[i].p;
        if (!(rest > 0)) continue;
        c[m] = c[i];
        sum += c[m++].p = rest;
    }
    for (int i = 0; i < m; i++) c[i].p /= sum;
    return m ? m : n; /* none: p = q but for rounding, any candidate is right */
}

int cm_sample_token(const cm_sampling *s, cm_real *logits, int V, const int32_t *recent,
                    int n_recent, uint64_t draw, void *work) {
    penalise_recent(s, logits, V, recent, n_recent);
    if (s->temperature <= 0) return cm_argmax(logits, V);
    double u = cm_sample_uniform(s, CM_DRAW_TOKEN, draw);
    int n = likeliest(s, logits, V, u, work);
    return cm_candidates_pick(work, n, u);
}

int cm_sample_candidates(const cm_sampling *s, cm_real *logits, int V, const int32_t *recent,
                         int n_recent, cm_candidate *c) {
    penalise_recent(s, logits, V, recent, n_recent);
    if (s->temperature <= 0) {
        c[0] = (cand){ .p = 1, .id = cm_argmax(logits, V) };
        return 1;
    }
    if ((s->top_k > 0 && s->top_k < V) || s->top_p < 1 || s->min_p > 0)
        return likeliest(s, logits, V, 1, c);
    double top = (double)logits[cm_argmax(logits, V)];
    double sum = sum_of_all(logits, V, s->temperature);
    for (int i = 0; i < V; i++)
        c[i] = (cand){ .p = weight((double)logits[i], top, s->temperature) / sum, .id = i };
    return V;
}

size_t cm_sample_work_bytes(int V) { return (size_t)V * sizeof(cand); }

bool cm_logits_finite(const cm_real *logits, int64_t V) {
    for (int64_t i = 0; i < V; i++)
        if (!isfinite(logits[i])) return false;
    return true;
}
