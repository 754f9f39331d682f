/* dist.c -- normal, t, beta and binomial distributions and their quantiles. */
#include "stats/stats.h"

#include <float.h>
#include <math.h>

static const double LN_SQRT_2PI = 0.91893853320467274178;

double cm_norm_cdf(double z) { return 0.5 * erfc(-z * 0.70710678118654752440); }

/* Abramowitz and Stegun 26.2.23 (4.5e-4) and Halley steps on the lower tail, where erfc
 * keeps its relative accuracy. */
double cm_norm_quantile(double p) {
    CM_ASSERT(p >= 0 && p <= 1, "cm_norm_quantile: p = %g", p);
    if (p == 0 || p == 1) return p ? INFINITY : -INFINITY;
    double q = p < 0.5 ? p : 1 - p, t = sqrt(-2 * log(q));
    double z = -(t - (2.515517 + t * (0.802853 + t * 0.010328)) /
                         (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))));
    for (int i = 0; i < 3; i++) {
        double e = (cm_norm_cdf(z) - q) * exp(z * z / 2 + LN_SQRT_2PI);
        z -= e / (1 + z * e / 2);
    }
    return p < 0.5 ? z : -z;
}

/* ---- binomial and beta: C. Loader, "Fast and accurate computation of binomial
 * probabilities" (2000): deviances and Stirling errors instead of differences of lgamma. */

/* log n! - log(sqrt(2 pi n) (n/e)^n), n > 0. */
static double stirling_error(double n) {
    if (n < 16) return lgamma(n + 1) - (n + 0.5) * log(n) + n - LN_SQRT_2PI;
    double m = n * n;
    return (1.0 / 12 - (1.0 / 360 - (1.0 / 1260 - (1.0 / 1680 - 1.0 / 1188 / m) / m) / m) / m) / n;
}

/* x log(x / m) + m - x, x, m > 0. */
static double deviance(double x, double m) {
    double v = (x - m) / (x + m);
    if (fabs(v) >= 0.1) return x * log(x / m) + m - x;
    double s = (x - m) * v, term = 2 * x * v;
    for (int j = 1; j < 1000; j++) {
        term *= v * v;
        double next = s + term / (2 * j + 1);
        if (next == s) break;
        s = next;
    }
    return s;
}

/* Gamma(a+b+1) / (Gamma(a+1) Gamma(b+1)) x^a y^b with y = 1 - x; a, b >= 0 real. */
static double binom_raw(double a, double b, double x, double y) {
    double n = a + b;
    if (x == 0) return a == 0;
    if (y == 0) return b == 0;
    if (a == 0) return exp(b * (x < 0.1 ? log1p(-x) : log(y)));
    if (b == 0) return exp(a * (y < 0.1 ? log1p(-y) : log(x)));
    double e = stirling_error(n) - stirling_error(a) - stirling_error(b) -
               deviance(a, n * x) - deviance(b, n * y);
    return exp(e) * sqrt(n / (2 * M_PI * a * b));
}

double cm_binom_pmf(int64_t k, int64_t n, double p) {
    CM_ASSERT(n >= 0 && p >= 0 && p <= 1, "cm_binom_pmf: n = %lld, p = %g", (long long)n, p);
    if (k < 0 || k > n) return 0;
    return binom_raw((double)k, (double)(n - k), p, 1 - p);
}

/* Continued fraction of the incomplete beta function, modified Lentz; x below the mean. */
static double beta_fraction(double x, double a, double b) {
    double tiny = 1e-300, c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double h = d;
    for (int m = 1; m < 100000; m++) {
        double f = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        for (int half = 0; half < 2; half++) {
            d = 1 + f * d;
            c = 1 + f / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            if (fabs(c) < tiny) c = tiny;
            h *= d * c;
            if (half && fabs(d * c - 1) < 4e-16) return h;
            f = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        }
    }
    return h;
}

/* I_x(a, b) with y = 1 - x given apart, so that neither tail is rounded away. */
static double beta_cdf2(double x, double y, double a, double b) {
    if (x <= 0) return 0;
    if (y <= 0) return 1;
    /* x^a y^b / B(a,b) = binom_raw(a, b) a b / (a + b) */
    double front = binom_raw(a, b, x, y) / (a + b);
    if (x * (a + b + 2) < a + 1) return front * b * beta_fraction(x, a, b);
    return 1 - front * a * beta_fraction(y, b, a);
}

double cm_beta_cdf(double x, double a, double b) {
    CM_ASSERT(a > 0 && b > 0, "cm_beta_cdf: a = %g, b = %g", a, b);
    return beta_cdf2(x, 1 - x, a, b);
}

double cm_log_beta(double a, double b) { return lgamma(a) + lgamma(b) - lgamma(a + b); }

double cm_binom_cdf(int64_t k, int64_t n, double p) {
    if (k < 0) return 0;
    if (k >= n) return 1;
    return beta_cdf2(1 - p, p, (double)(n - k), (double)k + 1);
}

int64_t cm_binom_quantile(double q, int64_t n, double p) {
    CM_ASSERT(q >= 0 && q <= 1, "cm_binom_quantile: q = %g", q);
    int64_t lo = -1, hi = n; /* cdf(lo) < q <= cdf(hi) */
    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (cm_binom_cdf(mid, n, p) >= q) hi = mid;
        else lo = mid;
    }
    return hi;
}

double cm_beta_quantile(double p, double a, double b) {
    CM_ASSERT(p >= 0 && p <= 1, "cm_beta_quantile: p = %g", p);
    if (p == 0 || p == 1) return p;
    /* Bisection on the logit: relative accuracy at both ends. */
    double lo = -700, hi = 700;
    for (int i = 0; i < 200 && hi - lo > 1e-15 * fabs(lo); i++) {
        double mid = (lo + hi) / 2, e = exp(-fabs(mid));
        double x = mid > 0 ? 1 / (1 + e) : e / (1 + e);
        double y = mid > 0 ? e / (1 + e) : 1 / (1 + e);
        if (beta_cdf2(x, y, a, b) < p) lo = mid;
        else hi = mid;
    }
    return 1 / (1 + exp(-(lo + hi) / 2));
}

/* ---- t ---------------------------------------------------------------------------- */

double cm_t_cdf(double t, double df) {
    CM_ASSERT(df > 0, "cm_t_cdf: df = %g", df);
    if (isinf(df)) return cm_norm_cdf(t);
    if (isnan(t) || isinf(t)) return isnan(t) ? t : t > 0;
    double s = df + t * t;
    double tail = 0.5 * beta_cdf2(df / s, t * t / s, df / 2, 0.5);
    return t < 0 ? tail : 1 - tail;
}

double cm_t_quantile(double p, double df) {
    CM_ASSERT(p >= 0 && p <= 1 && df > 0, "cm_t_quantile: p = %g, df = %g", p, df);
    if (isinf(df) || p == 0 || p == 1) return cm_norm_quantile(p);
    if (p == 0.5) return 0;
    double q = p < 0.5 ? p : 1 - p, lo = -1, hi = 0; /* lower tail */
    while (cm_t_cdf(lo, df) > q && lo > -1e300) {
        hi = lo;
        lo *= 2;
    }
    for (int i = 0; i < 200 && hi - lo > 4e-16 * -lo; i++) {
        double mid = (lo + hi) / 2;
        if (cm_t_cdf(mid, df) < q) lo = mid;
        else hi = mid;
    }
    return p < 0.5 ? (lo + hi) / 2 : -(lo + hi) / 2;
}

/* Integral over s = sqrt(chi2_df / df) of Phi(t s - ncp), Simpson's rule in s where the
 * density lives. */
double cm_nct_cdf(double t, double df, double ncp) {
    CM_ASSERT(df >= 1, "cm_nct_cdf: df = %g", df);
    if (isinf(df)) return cm_norm_cdf(t - ncp);
    enum { N = 4000 };
    double width = 9 / sqrt(df), lo = fmax(0, 1 - width), hi = 1 + width;
    double c = log(2) + df / 2 * log(df / 2) - lgamma(df / 2), h = (hi - lo) / N, sum = 0;
    for (int i = 0; i <= N; i++) {
        double s = lo + h * i;
        double f = s > 0 ? exp(c + (df - 1) * log(s) - df * s * s / 2) : df == 1 ? exp(c) : 0;
        sum += (i == 0 || i == N ? 1 : i % 2 ? 4 : 2) * f * cm_norm_cdf(t * s - ncp);
    }
    return sum * h / 3;
}
