/* power.c -- non-inferiority and equivalence, power, detectable effects, sizes needed. */
#include "stats/stats.h"

#include <math.h>

/* D. Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15 (1987): two one-sided tests. */
cm_tost cm_tost_test(double mean, double se, double df, double margin, double alpha) {
    double t = cm_t_quantile(1 - alpha, df) * se;
    cm_tost r = {
        .p_low = cm_t_cdf(-(mean + margin) / se, df),
        .p_high = cm_t_cdf((mean - margin) / se, df),
        .ci = {mean - t, mean + t},
    };
    r.p = fmax(r.p_low, r.p_high);
    return r;
}

double cm_power_t(int64_t n, double d, double alpha, int sides) {
    CM_ASSERT(n >= 2 && (sides == 1 || sides == 2), "cm_power_t: n = %lld", (long long)n);
    double df = (double)n - 1, ncp = d * sqrt((double)n);
    double t = cm_t_quantile(1 - alpha / sides, df);
    double upper = cm_nct_cdf(-t, df, -ncp); /* P[T' >= t] by symmetry */
    return sides == 1 ? upper : upper + cm_nct_cdf(-t, df, ncp);
}

double cm_mde(double se, double alpha, double power, int sides) {
    return (cm_norm_quantile(1 - alpha / sides) + cm_norm_quantile(power)) * se;
}

int64_t cm_n_mcnemar(double delta, double psi, double alpha, double power, int sides) {
    double za = cm_norm_quantile(1 - alpha / sides), zb = cm_norm_quantile(power);
    double s = za * sqrt(psi) + zb * sqrt(fmax(0, psi - delta * delta));
    return (int64_t)ceil(s * s / (delta * delta));
}

int64_t cm_n_t(double delta, double sd, double alpha, double power, int sides) {
    int64_t lo = 1, hi = 2; /* power(lo) < power <= power(hi) */
    while (hi < ((int64_t)1 << 40) && cm_power_t(hi, delta / sd, alpha, sides) < power) {
        lo = hi;
        hi *= 2;
    }
    while (hi - lo > 1) {
        int64_t mid = (lo + hi) / 2;
        if (cm_power_t(mid, delta / sd, alpha, sides) < power) lo = mid;
        else hi = mid;
    }
    return hi;
}

double cm_design_effect(double m, double icc) { return 1 + (m - 1) * icc; }

/* ---- McNemar's exact test, without conditioning on the number of changed items ---- */

/* Smallest b that is significant among m changed items; m + 1 if none is. */
static int64_t critical(int64_t m, double alpha) {
    int64_t k = cm_binom_quantile(alpha, m, 0.5); /* P[X >= m - k] = P[X <= k] */
    return m - k + (cm_binom_cdf(k, m, 0.5) <= alpha ? 0 : 1);
}

double cm_power_mcnemar(int64_t n, double pb, double pc, double alpha) {
    double psi = pb + pc, total = 0;
    if (psi <= 0) return 0;
    double mean = psi * (double)n, sd = sqrt(mean * (1 - fmin(psi, 1)));
    int64_t from = (int64_t)fmax(0, floor(mean - 5.5 * sd - 3));
    int64_t to = (int64_t)fmin((double)n, ceil(mean + 5.5 * sd + 3));
    int64_t b = critical(from, alpha);
    for (int64_t m = from; m <= to; m++) {
        if (m > from) { /* one item more moves the critical number by 0 or 1 */
            if (cm_binom_cdf(m - b, m, 0.5) > alpha) b++;
        }
        if (b <= m)
            total += cm_binom_pmf(m, n, fmin(psi, 1)) * cm_binom_cdf(m - b, m, pc / psi);
    }
    return total;
}

double cm_mde_mcnemar(int64_t n, double psi, double alpha, double power) {
    double lo = 0, hi = fmin(1, fmax(0, 1 - psi)), half = psi / 2;
    if (cm_power_mcnemar(n, half + hi, half, alpha) < power) return INFINITY;
    double guess = 3 * cm_mde(sqrt(fmax(psi, 1 / (double)n) / (double)n), alpha, power, 1);
    if (guess < hi && cm_power_mcnemar(n, half + guess, half, alpha) >= power) hi = guess;
    for (int i = 0; i < 60 && hi - lo > 1e-3 * hi; i++) {
        double mid = (lo + hi) / 2;
        if (cm_power_mcnemar(n, half + mid, half, alpha) < power) lo = mid;
        else hi = mid;
    }
    return hi;
}

/* ---- planning from estimated errors ----------------------------------------------- */

/* An estimated error is the true one times about N(1, 1 / 2 df).  The later experiment
 * exceeds crit if Z + k R1 > crit R2, a normal variable of mean k - crit and variance
 * 1 + k^2 / 2 df + crit^2 / 2 df scale; solve for k by iteration. */
double cm_plan_distance(double crit, double power, double df, double scale) {
    double zb = cm_norm_quantile(power), k = crit + zb;
    if (!isfinite(df)) return k;
    for (int i = 0; i < 50; i++) {
        double next = crit + zb * sqrt(1 + k * k / (2 * df) + crit * crit / (2 * df * scale));
        if (!isfinite(next) || next > 1e6) return INFINITY;
        if (fabs(next - k) < 1e-9 * k) return next;
        k = next;
    }
    return k;
}
