/* metric.c -- the registry of metrics.def, and what a metric makes of items' scores. */
#include "results/results_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cm_metric registry[] = {
#define higher true, true
#define lower false, true
#define none true, false
#define METRIC(name, kind, better, margin, unit, help)                                  \
    { #name, margin, unit, help, CM_METRIC_##kind, better },
#include "results/metrics.def"
#undef higher
#undef lower
#undef none
};
_Static_assert(sizeof registry / sizeof registry[0] == CM_N_METRICS, "metrics.def");

const cm_metric *cm_metrics(int *n) {
    *n = CM_N_METRICS;
    return registry;
}

const cm_metric *cm_metric_find(const char *name) {
    for (int i = 0; i < CM_N_METRICS; i++)
        if (!strcmp(registry[i].name, name)) return &registry[i];
    return NULL;
}

int cm_metric_index(const cm_metric *m) { return (int)(m - registry); }

/* ---- values ------------------------------------------------------------------------------ */

/* Sums of numerators and denominators, in item order. */
static cm_score_val sums(const cm_score_val *v, const int32_t *w, int64_t n) {
    cm_score_val s = { 0, 0 };
    for (int64_t i = 0; i < n; i++) {
        if (v[i].den == 0) continue;
        double k = w ? w[i] : 1;
        s.num += k * v[i].num;
        s.den += k * v[i].den;
    }
    return s;
}

/* Of the items that have both scores. */
static double ece_of(const cm_score_val *acc, const double *conf, const int32_t *w, int64_t n) {
    double *c = malloc((size_t)(n + 1) * sizeof *c), *right = malloc((size_t)(n + 1) * sizeof *c);
    int32_t *times = malloc((size_t)(n + 1) * sizeof *times);
    CM_ASSERT(c && right && times, "out of memory: %lld items", (long long)n);
    int64_t k = 0;
    for (int64_t i = 0; i < n; i++) {
        if (acc[i].den == 0 || isnan(conf[i])) continue;
        c[k] = conf[i];
        right[k] = acc[i].num;
        times[k++] = w ? w[i] : 1;
    }
    double ece = cm_ece_value(c, right, times, k, CM_ECE_BINS, NULL);
    free(c), free(right), free(times);
    return ece;
}

double cm_metric_value(const cm_metric *m, const cm_score_val *v, const double *conf,
                       const int32_t *w, int64_t n) {
    if (m->kind == CM_METRIC_ECE) return ece_of(v, conf, w, n);
    cm_score_val s = sums(v, w, n);
    if (!(s.den > 0)) return NAN;
    double ratio = s.num / s.den;
    return m->kind == CM_METRIC_EXP ? exp(ratio) : ratio;
}

double cm_metric_stderr(const cm_metric *m, const cm_score_val *v, const int32_t *cluster,
                        int64_t n) {
    if (m->kind == CM_METRIC_ECE || n < 1) return NAN;
    double *num = calloc((size_t)n, sizeof *num), *den = calloc((size_t)n, sizeof *den);
    CM_ASSERT(num && den, "out of memory: standard error of %lld items", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        int64_t c = cluster ? cluster[i] : i;
        CM_ASSERT(c >= 0 && c < n, "cluster %lld of %lld items", (long long)c, (long long)n);
        if (v[i].den == 0) continue;
        num[c] += v[i].num;
        den[c] += v[i].den;
    }
    int64_t G = 0; /* clusters that have the score */
    for (int64_t c = 0; c < n; c++)
        if (den[c] > 0) num[G] = num[c], den[G++] = den[c];
    double ratio, se = G ? cm_cluster_ratio(num, den, G, &ratio).se1 : NAN;
    free(num), free(den);
    return m->kind == CM_METRIC_EXP && G ? exp(ratio) * se : se;
}
