/* calib.c -- how well confidences match outcomes: ECE, MCE, Brier; Kullback-Leibler. */
#include "stats/stats.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_BINS = 1000 };

/* Guo et al. 2017: bins (k/B, (k+1)/B], confidence 0 in the first. */
static int bin_of(double conf, int bins) {
    int k = (int)ceil(conf * bins - 1e-9) - 1;
    return k < 0 ? 0 : k >= bins ? bins - 1 : k;
}

double cm_ece_value(const double *conf, const double *right, const int32_t *w, int64_t n,
                    int bins, double *mce) {
    CM_ASSERT(bins >= 1 && bins <= MAX_BINS, "cm_ece_value: %d bins", bins);
    double gap[MAX_BINS] = {0}, count[MAX_BINS] = {0}, all = 0, ece = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double m = w ? w[i] : 1;
        int k = bin_of(conf[i], bins);
        gap[k] += m * (right[i] - conf[i]);
        count[k] += m;
        all += m;
    }
    for (int k = 0; k < bins; k++) {
        ece += fabs(gap[k]);
        if (count[k] > 0) worst = fmax(worst, fabs(gap[k]) / count[k]);
    }
    if (mce) *mce = all > 0 ? worst : NAN;
    return all > 0 ? ece / all : NAN;
}

typedef struct {
    const double *conf, *right;
    int bins;
} ece_ctx;

static double ece_of(const int32_t *w, int64_t n, void *ctx) {
    const ece_ctx *c = ctx;
    return cm_ece_value(c->conf, c->right, w, n, c->bins, NULL);
}

/* Mean ECE of outcomes drawn from the confidences themselves. */
static double null_ece(const double *conf, int64_t n, int bins, int64_t draws,
                       uint64_t seed) {
    double *label = malloc((size_t)(n + 1) * sizeof *label), sum = 0;
    CM_ASSERT(label, "out of memory: %lld items", (long long)n);
    for (int64_t d = 0; d < draws; d++) {
        cm_rng r = cm_rng_make(seed, CM_RNG_NOISE, (uint64_t)d);
        for (int64_t i = 0; i < n; i++)
            label[i] = cm_rng_uniform(r, (uint64_t)i) < conf[i];
        sum += cm_ece_value(conf, label, NULL, n, bins, NULL);
    }
    free(label);
    return sum / (double)draws;
}

cm_ece cm_ece_test(const double *conf, const double *right, int64_t n, int bins,
                   int64_t draws, uint64_t seed, double level) {
    cm_ece r = {NAN, NAN, NAN, {NAN, NAN}};
    r.ece = cm_ece_value(conf, right, NULL, n, bins, &r.mce);
    if (n < 1 || draws < 1) return r;
    ece_ctx c = {conf, right, bins};
    r.ci = cm_bootstrap(ece_of, &c, n, draws, seed, level, 0).percentile;
    r.null = null_ece(conf, n, bins, draws, seed);
    return r;
}

double cm_brier(const double *conf, const double *right, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (conf[i] - right[i]) * (conf[i] - right[i]);
    return n > 0 ? sum / (double)n : NAN;
}

double cm_brier_multi(const double *p, int k, int gold) {
    double sum = 0;
    for (int i = 0; i < k; i++) sum += (p[i] - (i == gold)) * (p[i] - (i == gold));
    return sum;
}

double cm_kl(const double *p, const double *q, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (p[i] > 0) sum += p[i] * log(p[i] / q[i]);
    return sum;
}
