/* boot.c -- bootstrap of weighted units: percentile, basic and BCa intervals.
 *
 * Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 14;
 * Davison and Hinkley, Bootstrap Methods and their Application (1997), section 5.3. */
#include "stats/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void cm_sort(double *x, int64_t n) { qsort(x, (size_t)n, sizeof *x, by_value); }

double cm_quantile(const double *sorted, int64_t n, double q) {
    if (n < 1 || isnan(q)) return NAN;
    double at = q * (double)(n - 1), f = floor(at);
    int64_t i = (int64_t)f;
    if (i >= n - 1) return sorted[n - 1];
    if (at == f) return sorted[i];
    return sorted[i] + (at - f) * (sorted[i + 1] - sorted[i]);
}

double cm_boot_accel(const double *influence, int64_t n) {
    double mean = 0, s2 = 0, s3 = 0;
    for (int64_t i = 0; i < n; i++) mean += influence[i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double u = influence[i] - mean;
        s2 += u * u;
        s3 += u * u * u;
    }
    return s2 > 0 ? s3 / (6 * pow(s2, 1.5)) : 0;
}

double cm_boot_accel_multi(const double *value, const int64_t *n, int samples) {
    double s2 = 0, s3 = 0;
    for (int j = 0; j < samples; value += n[j++]) {
        double m = (double)n[j], mean = 0;
        for (int64_t i = 0; i < n[j]; i++) mean += value[i] / m;
        for (int64_t i = 0; i < n[j]; i++) {
            double u = (m - 1) * (mean - value[i]);
            s2 += u * u / (m * m);
            s3 += u * u * u / (m * m * m);
        }
    }
    return s2 > 0 ? s3 / (6 * pow(s2, 1.5)) : 0;
}

/* Level of the BCa end whose nominal level is alpha. */
static double bca_level(double z0, double a, double alpha) {
    double z = z0 + cm_norm_quantile(alpha);
    return cm_norm_cdf(z0 + z / (1 - a * z));
}

cm_boot cm_boot_intervals(double *rep, int64_t B, double theta, double accel,
                          double level) {
    cm_boot r = {theta, NAN, NAN, accel, {NAN, NAN}, {NAN, NAN}, {NAN, NAN}, NAN};
    int64_t n = 0;
    for (int64_t i = 0; i < B; i++)
        if (!isnan(rep[i])) rep[n++] = rep[i];
    if (n < 1 || isnan(theta)) return r;
    double less = 0, below = 0, mean = 0, ss = 0;
    for (int64_t i = 0; i < n; i++) {
        less += (rep[i] < theta) + 0.5 * (rep[i] == theta);
        below += (rep[i] < 0) + 0.5 * (rep[i] == 0);
        mean += rep[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) ss += (rep[i] - mean) * (rep[i] - mean);
    r.se = n > 1 ? sqrt(ss / (double)(n - 1)) : NAN;
    r.p_below = below / (double)n;
    cm_sort(rep, n);
    double lo = (1 - level) / 2, hi = 1 - lo;
    r.percentile = (cm_interval){cm_quantile(rep, n, lo), cm_quantile(rep, n, hi)};
    r.basic = (cm_interval){2 * theta - r.percentile.hi, 2 * theta - r.percentile.lo};
    /* All replicates on one side: the bias is at least that of half a replicate. */
    double edge = 0.5 / (double)n, share = fmin(fmax(less / (double)n, edge), 1 - edge);
    r.z0 = cm_norm_quantile(share);
    r.bca = (cm_interval){cm_quantile(rep, n, bca_level(r.z0, accel, lo)),
                          cm_quantile(rep, n, bca_level(r.z0, accel, hi))};
    return r;
}

static double jackknife_accel(cm_boot_fn fn, void *ctx, int64_t n, int32_t *w) {
    double *v = malloc((size_t)n * sizeof *v);
    CM_ASSERT(v, "out of memory: jackknife of %lld", (long long)n);
    for (int64_t i = 0; i < n; i++) w[i] = 1;
    for (int64_t i = 0; i < n; i++) {
        w[i] = 0;
        v[i] = fn(w, n, ctx);
        w[i] = 1;
    }
    double a = cm_boot_accel_multi(v, &n, 1);
    free(v);
    return isnan(a) ? 0 : a;
}

static void draw(int32_t *w, int64_t n, cm_rng r, uint64_t from) {
    memset(w, 0, (size_t)n * sizeof *w);
    for (int64_t i = 0; i < n; i++)
        w[cm_rng_below(r, from + (uint64_t)i, (uint64_t)n)]++;
}

static void ones(int32_t *w, int64_t n) {
    for (int64_t i = 0; i < n; i++) w[i] = 1;
}

cm_boot cm_bootstrap(cm_boot_fn fn, void *ctx, int64_t n, int64_t B, uint64_t seed,
                     double level, double accel) {
    CM_ASSERT(n >= 1 && B >= 1, "cm_bootstrap: n = %lld, B = %lld", (long long)n, (long long)B);
    int32_t *w = malloc((size_t)n * sizeof *w);
    double *rep = malloc((size_t)B * sizeof *rep);
    CM_ASSERT(w && rep, "out of memory: bootstrap");
    ones(w, n);
    double theta = fn(w, n, ctx);
    if (isnan(accel)) accel = jackknife_accel(fn, ctx, n, w);
    for (int64_t b = 0; b < B; b++) {
        draw(w, n, cm_rng_make(seed, CM_RNG_BOOTSTRAP, (uint64_t)b), 0);
        rep[b] = fn(w, n, ctx);
    }
    cm_boot r = cm_boot_intervals(rep, B, theta, accel, level);
    free(w);
    free(rep);
    return r;
}

/* Sellam et al., The MultiBERTs (2022), section 3: seeds of either side and units are
 * resampled independently.  No acceleration: with few seeds there is nothing to take it
 * from, so bca is the bias-corrected interval. */
cm_boot cm_bootstrap2(cm_boot2_fn fn, void *ctx, int64_t na, int64_t nb, int64_t n,
                      int64_t B, uint64_t seed, double level) {
    CM_ASSERT(na >= 1 && nb >= 1 && n >= 1 && B >= 1, "cm_bootstrap2: nothing to resample");
    int32_t *wa = malloc((size_t)(na + nb + n) * sizeof *wa), *wb = wa + na, *w = wb + nb;
    double *rep = malloc((size_t)B * sizeof *rep);
    CM_ASSERT(wa && rep, "out of memory: bootstrap");
    ones(wa, na + nb + n);
    double theta = fn(wa, wb, w, ctx);
    for (int64_t b = 0; b < B; b++) {
        cm_rng r = cm_rng_make(seed, CM_RNG_BOOTSTRAP, (uint64_t)b);
        draw(wa, na, r, 0);
        draw(wb, nb, r, (uint64_t)na);
        draw(w, n, r, (uint64_t)(na + nb));
        rep[b] = fn(wa, wb, w, ctx);
    }
    cm_boot r = cm_boot_intervals(rep, B, theta, 0, level);
    free(wa);
    free(rep);
    return r;
}
