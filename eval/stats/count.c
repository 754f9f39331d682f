/* count.c -- 0/1 scores: McNemar and sign tests, intervals of one proportion and of the
 * difference of two paired ones. */
#include "stats/stats.h"

#include <math.h>

static double chi2_tail(double x) { return erfc(sqrt(x / 2)); } /* 1 degree of freedom */

cm_mcnemar cm_mcnemar_test(int64_t b, int64_t c) {
    CM_ASSERT(b >= 0 && c >= 0, "cm_mcnemar_test: %lld, %lld", (long long)b, (long long)c);
    int64_t m = b + c, low = b < c ? b : c;
    if (m == 0) return (cm_mcnemar){1, 1, 1, 1, 0, 1, 0, 1};
    double pb = cm_binom_pmf(b, m, 0.5), one = cm_binom_cdf(m - b, m, 0.5);
    double two = fmin(1, 2 * cm_binom_cdf(low, m, 0.5));
    double d = fabs((double)(b - c)), dc = fmax(0, d - 1);
    return (cm_mcnemar){
        .one = one,
        .one_mid = one - pb / 2,
        .two = two,
        .mid = b == c ? 1 - pb / 2 : two - cm_binom_pmf(low, m, 0.5),
        .chi2 = d * d / (double)m,
        .p_chi2 = chi2_tail(d * d / (double)m),
        .chi2_cc = dc * dc / (double)m,
        .p_chi2_cc = chi2_tail(dc * dc / (double)m),
    };
}

cm_mcnemar cm_sign_test(const double *d, int64_t n) {
    int64_t b = 0, c = 0;
    for (int64_t i = 0; i < n; i++) {
        b += d[i] < 0;
        c += d[i] > 0;
    }
    return cm_mcnemar_test(b, c);
}

/* ---- one proportion --------------------------------------------------------------- */

cm_interval cm_wilson(int64_t k, int64_t n, double level) {
    if (n == 0) return (cm_interval){0, 1};
    double z = cm_norm_quantile((1 + level) / 2), N = (double)n, p = (double)k / N;
    double mid = (p + z * z / (2 * N)) / (1 + z * z / N);
    double half = z * sqrt(p * (1 - p) / N + z * z / (4 * N * N)) / (1 + z * z / N);
    return (cm_interval){k == 0 ? 0 : mid - half, k == n ? 1 : mid + half};
}

cm_interval cm_clopper_pearson(int64_t k, int64_t n, double level) {
    double tail = (1 - level) / 2, K = (double)k, N = (double)n;
    return (cm_interval){k == 0 ? 0 : cm_beta_quantile(tail, K, N - K + 1),
                         k == n ? 1 : cm_beta_quantile(1 - tail, K + 1, N - K)};
}

/* ---- difference of paired proportions --------------------------------------------- */

/* R. Newcombe, Statistics in Medicine 17 (1998) 2635: Wilson intervals of the two margins,
 * joined with the correlation phi of the table, its numerator shrunk by n/2. */
cm_interval cm_newcombe10(int64_t e, int64_t f, int64_t g, int64_t h, double level) {
    double n = (double)(e + f + g + h);
    double p1 = (double)(e + f) / n, p2 = (double)(e + g) / n, d = p1 - p2;
    cm_interval w1 = cm_wilson(e + f, e + f + g + h, level);
    cm_interval w2 = cm_wilson(e + g, e + f + g + h, level);
    double rows = (double)(e + f) * (double)(g + h) * (double)(e + g) * (double)(f + h);
    double num = (double)e * (double)h - (double)f * (double)g;
    if (num > 0) num = fmax(num - n / 2, 0);
    double phi = rows > 0 ? num / sqrt(rows) : 0;
    double l1 = p1 - w1.lo, u1 = w1.hi - p1, l2 = p2 - w2.lo, u2 = w2.hi - p2;
    return (cm_interval){d - sqrt(fmax(0, l1 * l1 - 2 * phi * l1 * u2 + u2 * u2)),
                         d + sqrt(fmax(0, u1 * u1 - 2 * phi * u1 * l2 + l2 * l2))};
}

/* T. Tango, Statistics in Medicine 17 (1998) 891.  With rates q (gain) and q + theta (loss)
 * the likelihood's root solves 2n q^2 + B q + C = 0. */
double cm_tango_gain_rate(double b, double c, double n, double theta) {
    double A = 2 * n, B = -b - c + (2 * n - b + c) * theta, C = -c * theta * (1 - theta);
    double root = sqrt(fmax(0, B * B - 4 * A * C));
    double q = B > 0 ? (B + root > 0 ? -2 * C / (B + root) : 0) : (root - B) / (2 * A);
    double least = theta < 0 ? -theta : 0, most = (1 - theta) / 2;
    return fmin(fmax(q, least), fmax(most, least));
}

static double tango_z(double b, double c, double n, double theta) {
    double q = cm_tango_gain_rate(b, c, n, theta);
    double d = b - c - n * theta, v = n * (2 * q + theta * (1 - theta));
    if (v <= 0) return d == 0 ? 0 : d > 0 ? INFINITY : -INFINITY;
    return d / sqrt(v);
}

double cm_tango_z(int64_t b, int64_t c, int64_t n, double theta) {
    CM_ASSERT(b >= 0 && c >= 0 && b + c <= n, "cm_tango_z: b + c > n");
    return tango_z((double)b, (double)c, (double)n, theta);
}

/* Largest theta whose statistic is at least z; the statistic falls in theta. */
static double tango_root(int64_t b, int64_t c, int64_t n, double z) {
    double lo = -1, hi = 1;
    for (int i = 0; i < 60; i++) {
        double mid = (lo + hi) / 2;
        if (tango_z((double)b, (double)c, (double)n, mid) >= z) lo = mid;
        else hi = mid;
    }
    return (lo + hi) / 2;
}

cm_interval cm_tango(int64_t b, int64_t c, int64_t n, double level) {
    double z = cm_norm_quantile((1 + level) / 2);
    return (cm_interval){tango_root(b, c, n, z), tango_root(b, c, n, -z)};
}

/* P[statistic <= z] where losses have rate q + theta and gains q: sum over the number of
 * gains of a binomial tail in the losses, whose limit grows with the gains. */
static double tango_tail(int64_t n, double theta, double q, double z) {
    double slack = 1e-9 * (1 + fabs(z)), sum = 0, r = (q + theta) / (1 - q);
    int64_t last = cm_binom_quantile(1 - 1e-12, n, q), limit = -1;
    int64_t cap = cm_binom_quantile(1 - 1e-13, n, fmin(1, r)) + 1;
    for (int64_t c = 0; c <= last; c++) {
        while (limit < cap && limit + 1 + c <= n &&
               tango_z((double)(limit + 1), (double)c, (double)n, theta) <= z + slack)
            limit++;
        if (limit >= 0)
            sum += cm_binom_pmf(c, n, q) * cm_binom_cdf(limit, n - c, fmin(1, r));
    }
    return fmin(sum, 1);
}

enum { TANGO_EXACT = 150 };

double cm_tango_p(int64_t b, int64_t c, int64_t n, double theta) {
    double z = cm_tango_z(b, c, n, theta);
    double q = cm_tango_gain_rate((double)b, (double)c, (double)n, theta);
    bool few = b + c <= TANGO_EXACT && (2 * q + theta) * (double)n <= 2 * TANGO_EXACT;
    return few && theta > 0 ? tango_tail(n, theta, q, z) : cm_norm_cdf(z);
}

double cm_tango_upper(int64_t b, int64_t c, int64_t n, double alpha) {
    double near = tango_root(b, c, n, cm_norm_quantile(alpha));
    if (b + c > TANGO_EXACT || near <= 0) return near;
    double lo = near / 2, hi = fmin(1, 2 * near); /* p falls in theta */
    while (lo > 1e-9 && cm_tango_p(b, c, n, lo) < alpha) lo /= 2;
    for (int i = 0; i < 24; i++) {
        double mid = (lo + hi) / 2;
        if (cm_tango_p(b, c, n, mid) > alpha) lo = mid;
        else hi = mid;
    }
    return hi;
}
