/* seq.c -- looking while the data grow: Wald's SPRT and always-valid e-values. */
#include "stats/stats.h"

#include <math.h>

cm_sprt cm_sprt_test(int64_t b, int64_t c, double theta1, double alpha, double beta) {
    CM_ASSERT(theta1 > 0 && theta1 < 1, "cm_sprt_test: theta1 = %g", theta1);
    cm_sprt r = {
        .llr = (double)b * log(theta1 / 0.5) + (double)c * log((1 - theta1) / 0.5),
        .upper = log((1 - beta) / alpha),
        .lower = log(beta / (1 - alpha)),
    };
    r.decision = r.llr >= r.upper ? 1 : r.llr <= r.lower ? -1 : 0;
    return r;
}

double cm_e_two(int64_t b, int64_t c) {
    return exp(cm_log_beta((double)b + 1, (double)c + 1) + (double)(b + c) * M_LN2);
}

double cm_e_one(int64_t b, int64_t c) {
    double tail = cm_binom_cdf(b, b + c + 1, 0.5); /* P[share of losses > 1/2 | b, c] */
    return 2 * tail * cm_e_two(b, c);
}

/* ---- bets ------------------------------------------------------------------------- */

typedef struct {
    double b, c, same, theta;
} bets;

/* Log wealth of stake s: an item pays theta, 1 + theta for a gain, theta - 1 for a loss. */
static double log_wealth(const bets *g, double s) {
    double v = g->same * log1p(s * g->theta) + g->c * log1p(s * (1 + g->theta));
    return g->b > 0 ? v + g->b * log1p(-s * (1 - g->theta)) : v;
}

static double best_stake(const bets *g, double top) {
    double lo = 0, hi = top;
    for (int i = 0; i < 100; i++) { /* log wealth is concave */
        double l = lo + (hi - lo) / 3, r = hi - (hi - lo) / 3;
        if (log_wealth(g, l) < log_wealth(g, r)) lo = l;
        else hi = r;
    }
    return (lo + hi) / 2;
}

/* Where, from the peak towards `end`, the wealth has fallen by e^-45. */
static double faded(const bets *g, double peak, double end) {
    double floor_ = log_wealth(g, peak) - 45, in = peak, out = end;
    if (log_wealth(g, end) > floor_) return end;
    for (int i = 0; i < 60; i++) {
        double mid = (in + out) / 2;
        if (log_wealth(g, mid) > floor_) in = mid;
        else out = mid;
    }
    return out;
}

double cm_e_bet(int64_t b, int64_t c, int64_t n, double theta) {
    CM_ASSERT(theta >= 0 && theta < 1 && b + c <= n, "cm_e_bet: theta = %g", theta);
    enum { N = 800 };
    bets g = {(double)b, (double)c, (double)(n - b - c), theta};
    double top = 1 / (1 - theta) * (1 - 1e-15);
    double peak = best_stake(&g, top), most = log_wealth(&g, peak);
    double lo = faded(&g, peak, 0), hi = faded(&g, peak, top), h = (hi - lo) / N, sum = 0;
    for (int i = 0; i <= N; i++) /* Simpson */
        sum += (i == 0 || i == N ? 1 : i % 2 ? 4 : 2) * exp(log_wealth(&g, lo + h * i) - most);
    return exp(most + log(sum * h / 3 * (1 - theta)));
}

/* ---- means ------------------------------------------------------------------------ */

double cm_e_mean(double z, double t, double rho2) {
    double v = t * rho2 + 1, s = z * sqrt(t);
    return 2 / sqrt(v) * exp(rho2 * s * s / (2 * v)) * cm_norm_cdf(s * sqrt(rho2 / v));
}

/* I. Waudby-Smith et al., Annals of Statistics 52 (2024), on choosing rho. */
double cm_e_rho2(double t0, double alpha) {
    double l = -2 * log(alpha);
    return (l + log(l) + 1) / t0;
}

double cm_e_mean_z(double e, double t, double rho2) {
    double lo = -20, hi = 20; /* the e-value grows with z */
    while (cm_e_mean(hi, t, rho2) < e && hi < 1e6) hi *= 2;
    for (int i = 0; i < 100; i++) {
        double mid = (lo + hi) / 2;
        if (cm_e_mean(mid, t, rho2) < e) lo = mid;
        else hi = mid;
    }
    return hi;
}
