/* mean.c -- means of differences: paired t, cluster-robust errors, sign-flip permutation. */
#include "stats/stats.h"

#include <math.h>
#include <stdlib.h>

cm_ttest cm_paired_t(const double *d, int64_t n) {
    cm_ttest r = {NAN, NAN, NAN, NAN, (double)n - 1, NAN, NAN, NAN};
    if (n < 1) return r;
    double sum = 0, ss = 0;
    for (int64_t i = 0; i < n; i++) sum += d[i];
    r.mean = sum / (double)n;
    if (n < 2) return r;
    for (int64_t i = 0; i < n; i++) ss += (d[i] - r.mean) * (d[i] - r.mean);
    r.sd = sqrt(ss / r.df);
    r.se = r.sd / sqrt((double)n);
    r.t = r.se > 0 ? r.mean / r.se : r.mean == 0 ? 0 : copysign(INFINITY, r.mean);
    r.p_less = cm_t_cdf(r.t, r.df);
    r.p_greater = cm_t_cdf(-r.t, r.df);
    r.p_two = fmin(1, 2 * fmin(r.p_less, r.p_greater));
    return r;
}

/* R. Bell and D. McCaffrey, Survey Methodology 28 (2002), for the model of a mean alone,
 * where their matrices have closed forms: the residual of a cluster of share w has variance
 * proportional to w (1 - w), and
 *   df = 1 / (sum w^2 + (sum v)^2 - sum v^2),  v = w^2 / (1 - w).
 * seen: Satterthwaite's (sum s^2)^2 / sum s^4 with r^4 / 3 for a normal residual's s^4. */
cm_clustered cm_cluster_se(const double *r, const double *w, int64_t G) {
    if (G < 2) return (cm_clustered){NAN, NAN, NAN, NAN, NAN, NAN};
    double s0 = 0, s2 = 0, s3 = 0, r4 = 0, ww = 0, v1 = 0, v2 = 0;
    for (int64_t g = 0; g < G; g++) {
        double rest = fmax(1 - w[g], 1e-12), v = w[g] * w[g] / rest;
        s0 += r[g] * r[g];
        r4 += r[g] * r[g] * r[g] * r[g];
        s2 += r[g] * r[g] / rest;
        s3 += r[g] * r[g] / (rest * rest);
        ww += w[g] * w[g];
        v1 += v;
        v2 += v * v;
    }
    double df = 1 / (ww + v1 * v1 - v2), most = (double)(G - 1);
    double seen = r4 > 0 ? 3 * s0 * s0 / r4 - 1 : most;
    return (cm_clustered){sqrt(s0), sqrt(s0 * (double)G / most), sqrt(s2), sqrt(s3),
                          fmin(fmax(df, 1), most), fmin(fmax(seen, 4), most)};
}

cm_clustered cm_cluster_ratio(const double *num, const double *den, int64_t G,
                              double *estimate) {
    double N = 0, D = 0;
    for (int64_t g = 0; g < G; g++) {
        N += num[g];
        D += den[g];
    }
    *estimate = D > 0 ? N / D : NAN;
    double *r = malloc((size_t)(2 * G + 1) * sizeof *r), *w = r + G;
    CM_ASSERT(r, "out of memory: %lld clusters", (long long)G);
    for (int64_t g = 0; g < G; g++) {
        r[g] = (num[g] - *estimate * den[g]) / D;
        w[g] = den[g] / D;
    }
    cm_clustered out = cm_cluster_se(r, w, G);
    free(r);
    return out;
}

/* ---- sign-flip permutation -------------------------------------------------------- */

enum { MAX_EXACT = 20 };

static void count_hits(cm_signflip *f, double sum, double seen, double slack) {
    f->hits_less += sum <= seen + slack;
    f->hits_greater += sum >= seen - slack;
    f->hits_two += fabs(sum) >= fabs(seen) - slack;
}

/* Every pattern once, in Gray code order: one sign changes from each to the next. */
static void all_patterns(cm_signflip *f, const double *s, int k, double seen, double slack) {
    double sum = seen;
    bool minus[MAX_EXACT] = {false};
    f->patterns = (int64_t)1 << k;
    count_hits(f, sum, seen, slack);
    for (int64_t i = 1; i < f->patterns; i++) {
        int bit = __builtin_ctzll((unsigned long long)i);
        sum += minus[bit] ? 2 * s[bit] : -2 * s[bit];
        minus[bit] = !minus[bit];
        count_hits(f, sum, seen, slack);
    }
}

static void drawn_patterns(cm_signflip *f, const double *s, int64_t k, double seen,
                           double slack, int64_t draws, uint64_t seed) {
    f->patterns = draws;
    for (int64_t i = 0; i < draws; i++) {
        cm_rng r = cm_rng_make(seed, CM_RNG_BOOTSTRAP, (uint64_t)i);
        double sum = 0;
        for (int64_t j = 0; j < k; j += 64) {
            uint64_t bits = cm_rng_u64(r, (uint64_t)j / 64);
            int64_t end = j + 64 < k ? j + 64 : k;
            for (int64_t q = j; q < end; q++, bits >>= 1) sum += bits & 1 ? -s[q] : s[q];
        }
        count_hits(f, sum, seen, slack);
    }
}

cm_signflip cm_signflip_test(const double *s, int64_t G, int64_t draws, uint64_t seed) {
    cm_signflip f = {.p_less = 1, .p_greater = 1, .p_two = 1, .exact = true};
    double *nz = malloc((size_t)(G + 1) * sizeof *nz), seen = 0, size = 0;
    CM_ASSERT(nz, "out of memory: %lld differences", (long long)G);
    for (int64_t g = 0; g < G; g++) {
        if (s[g] == 0) continue;
        nz[f.nonzero++] = s[g];
        seen += s[g];
        size += fabs(s[g]);
    }
    f.exact = f.nonzero <= MAX_EXACT;
    double one = f.exact ? 0 : 1; /* the data themselves are one of the patterns */
    if (f.exact) all_patterns(&f, nz, (int)f.nonzero, seen, 1e-10 * size);
    else drawn_patterns(&f, nz, f.nonzero, seen, 1e-10 * size, draws, seed);
    double all = (double)f.patterns + one;
    f.p_less = ((double)f.hits_less + one) / all;
    f.p_greater = ((double)f.hits_greater + one) / all;
    f.p_two = ((double)f.hits_two + one) / all;
    free(nz);
    return f;
}
