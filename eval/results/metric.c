/* metric.c -- the registry of metrics.def, and what a metric makes of items' scores. */
#include "results/results_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cm_metric registry[] = {
#define higher true
#define lower false
#define METRIC(name, kind, better, margin, unit, help)                                  \
    { #name, margin, unit, help, CM_METRIC_##kind, better },
#include "results/metrics.def"
#undef higher
#undef lower
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

/* ---- calibration ------------------------------------------------------------------------ */

void cm_calibration(const double *conf, const cm_score_val *acc, const int32_t *w, int64_t n,
                    cm_calib_bin *bin, int n_bins) {
    memset(bin, 0, (size_t)n_bins * sizeof *bin);
    for (int64_t i = 0; i < n; i++) {
        double c = acc[i].den != 0 ? conf[i] : NAN, k = w ? w[i] : 1;
        if (isnan(c)) continue; /* an item without the two scores */
        double at = ceil(c * n_bins) - 1;
        int b = at < 0 ? 0 : at >= n_bins ? n_bins - 1 : (int)at;
        bin[b].n += k;
        bin[b].conf += k * c;
        bin[b].acc += k * acc[i].num;
    }
}

double cm_ece(const cm_calib_bin *bin, int n_bins) {
    double gap = 0, n = 0;
    for (int b = 0; b < n_bins; b++) {
        gap += fabs(bin[b].acc - bin[b].conf);
        n += bin[b].n;
    }
    return n > 0 ? gap / n : NAN;
}

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

double cm_metric_value(const cm_metric *m, const cm_score_val *v, const double *conf,
                       const int32_t *w, int64_t n) {
    if (m->kind == CM_METRIC_ECE) {
        cm_calib_bin bin[CM_ECE_BINS];
        cm_calibration(conf, v, w, n, bin, CM_ECE_BINS);
        return cm_ece(bin, CM_ECE_BINS);
    }
    cm_score_val s = sums(v, w, n);
    if (!(s.den > 0)) return NAN;
    double ratio = s.num / s.den;
    return m->kind == CM_METRIC_EXP ? exp(ratio) : ratio;
}

double cm_metric_stderr(const cm_metric *m, const cm_score_val *v, const int32_t *cluster,
                        int64_t n) {
    cm_score_val s = sums(v, NULL, n);
    if (m->kind == CM_METRIC_ECE || !(s.den > 0)) return NAN;
    double ratio = s.num / s.den, square = 0;
    double *e = calloc((size_t)n, sizeof *e);
    bool *has = calloc((size_t)n, sizeof *has);
    CM_ASSERT(e && has, "out of memory: standard error of %lld items", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        if (v[i].den == 0) continue;
        int64_t c = cluster ? cluster[i] : i;
        CM_ASSERT(c >= 0 && c < n, "cluster %lld of %lld items", (long long)c, (long long)n);
        e[c] += v[i].num - ratio * v[i].den;
        has[c] = true;
    }
    double groups = 0;
    for (int64_t c = 0; c < n; c++) {
        square += e[c] * e[c];
        groups += has[c];
    }
    free(e);
    free(has);
    if (groups < 2) return NAN;
    double se = sqrt(square * (groups / (groups - 1))) / s.den;
    return m->kind == CM_METRIC_EXP ? exp(ratio) * se : se;
}
