/* retrieval.c -- measures of rankings, and of repetition in token sequences. */
#include "stats/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t found(const double *rel, int64_t n, int64_t k) {
    int64_t hits = 0;
    for (int64_t i = 0; i < n && i < k; i++) hits += rel[i] > 0;
    return hits;
}

double cm_recall_at(const double *rel, int64_t n, int64_t all, int64_t k) {
    return all > 0 ? (double)found(rel, n, k) / (double)all : NAN;
}

double cm_precision_at(const double *rel, int64_t n, int64_t k) {
    return k > 0 ? (double)found(rel, n, k) / (double)k : NAN;
}

double cm_reciprocal_rank(const double *rel, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (rel[i] > 0) return 1 / (double)(i + 1);
    return 0;
}

double cm_average_precision(const double *rel, int64_t n, int64_t all) {
    double sum = 0;
    int64_t hits = 0;
    for (int64_t i = 0; i < n; i++)
        if (rel[i] > 0) sum += (double)++hits / (double)(i + 1);
    return all > 0 ? sum / (double)all : NAN;
}

/* Jarvelin and Kekalainen 2002; 2^rel - 1 by Burges et al. 2005. */
double cm_dcg(const double *rel, int64_t n, int64_t k, bool exponential) {
    double sum = 0;
    for (int64_t i = 0; i < n && i < k; i++)
        sum += (exponential ? exp2(rel[i]) - 1 : rel[i]) / log2((double)i + 2);
    return sum;
}

double cm_ndcg(const double *rel, int64_t n, int64_t k, bool exponential) {
    double *best = malloc((size_t)(n + 1) * sizeof *best);
    CM_ASSERT(best, "out of memory: %lld ranks", (long long)n);
    for (int64_t i = 0; i < n; i++) best[i] = -rel[i];
    cm_sort(best, n);
    for (int64_t i = 0; i < n; i++) best[i] = -best[i];
    double ideal = cm_dcg(best, n, k, exponential);
    free(best);
    return ideal > 0 ? cm_dcg(rel, n, k, exponential) / ideal : NAN;
}

/* ---- repetition ------------------------------------------------------------------- */

typedef struct {
    const int32_t *at;
    int k;
} gram;

static int by_tokens(const void *a, const void *b) {
    const gram *x = a, *y = b;
    return memcmp(x->at, y->at, (size_t)x->k * sizeof *x->at);
}

double cm_distinct_of(const int32_t *const *token, const int64_t *n, int64_t texts, int k) {
    int64_t all = 0, at = 0, distinct = 0;
    for (int64_t t = 0; t < texts; t++) all += n[t] >= k ? n[t] - k + 1 : 0;
    if (all < 1 || k < 1) return NAN;
    gram *g = malloc((size_t)all * sizeof *g);
    CM_ASSERT(g, "out of memory: %lld n-grams", (long long)all);
    for (int64_t t = 0; t < texts; t++)
        for (int64_t i = 0; i + k <= n[t]; i++) g[at++] = (gram){token[t] + i, k};
    qsort(g, (size_t)all, sizeof *g, by_tokens);
    for (int64_t i = 0; i < all; i++) distinct += i == 0 || by_tokens(&g[i - 1], &g[i]) != 0;
    free(g);
    return (double)distinct / (double)all;
}

double cm_distinct(const int32_t *token, int64_t n, int k) {
    return cm_distinct_of(&token, &n, 1, k);
}

double cm_seq_rep(const int32_t *token, int64_t n, int k) {
    return 1 - cm_distinct(token, n, k);
}
