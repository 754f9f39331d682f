/* decide.c -- PASS, FAIL or INCONCLUSIVE, and what size it would take (ADR 9).
 *
 * PASS: the bound excludes a loss as large as the margin.  FAIL: a loss is significant after
 * Holm and the bound does not exclude it.  So a PASS needs evidence, and so does a FAIL.
 * With regress.exact neither: nothing may change. */
#include "compare/compare_int.h"

#include <math.h>
#include <string.h>

const char *cm_verdict_text(cm_verdict v) {
    static const char *const text[] = {"PASS", "FAIL", "INCONCLUSIVE", "SKIPPED"};
    return text[v];
}

cm_exit cm_verdict_exit(cm_verdict v) {
    CM_ASSERT(v != CM_VERDICT_SKIPPED, "an overall verdict is never SKIPPED");
    return v == CM_VERDICT_PASS   ? CM_EXIT_OK
           : v == CM_VERDICT_FAIL ? CM_EXIT_CHECK
                                  : CM_EXIT_UNSURE;
}

/* ---- detectable loss -------------------------------------------------------------- */

enum { PLAN_SEQ = 500 }; /* as in test.c */

/* Critical value, in standard errors, at one-sided level a. */
static double critical(const cm_metric_cmp *m, const cm_metric_stat *st, const cm_regress_conf *c,
                       double a, double scale) {
    if (c->sequential)
        return cm_e_mean_z(1 / a, (double)m->groups * scale, cm_e_rho2(PLAN_SEQ, c->alpha));
    return cm_t_quantile(1 - a, st->df * scale);
}

/* Share of items that change by chance: all changes but what stands out as a loss or gain.
 * One change more, since none seen does not mean that there are none. */
static double chance_changes(int64_t b, int64_t c, int64_t n) {
    double all = (double)(b + c), net = fabs((double)(b - c));
    return fmin(1, (all + 1 - fmax(0, net - 2 * sqrt(all))) / (double)n);
}

/* Loss that leaves the bound below -margin with probability `power`: margin less the bound's
 * distance, plus what chance takes. */
static double mde_of_bound(double margin, double se, double crit, double power, double df) {
    return margin + cm_plan_distance(-crit, power, df, 1) * se;
}

static double mde_counts(const cm_metric_cmp *m, const cm_metric_stat *st, const cm_regress_conf *c,
                         double a) {
    double n = (double)m->n, psi = chance_changes(m->losses, m->gains, m->n);
    double loss = c->sequential
                      ? (critical(m, st, c, a, 1) + cm_norm_quantile(c->power)) * sqrt(psi / n)
                      : cm_mde_mcnemar(m->n, psi, a, c->power);
    double crit = c->sequential ? critical(m, st, c, c->alpha, 1) : cm_norm_quantile(1 - c->alpha);
    double most = fmax(loss, m->margin);
    double other = mde_of_bound(m->margin, sqrt((psi + most) / n), crit, c->power, INFINITY);
    return fmax(loss, other);
}

/* Solves loss = k se where a loss of 0/1 scores adds changed items, and so variance. */
static double loss_at(const cm_metric_cmp *m, double k, double se) {
    double loss = k * se, psi = chance_changes(m->losses, m->gains, m->n);
    if (isnan(m->flips)) return loss;
    for (int i = 0; i < 40; i++) loss = k * se * sqrt(1 + fmax(0, loss) / psi);
    return fmin(loss, 1);
}

static double mde_means(const cm_metric_cmp *m, const cm_metric_stat *st, const cm_regress_conf *c,
                        double a) {
    double loss;
    if (st->sparse)
        loss = st->scale *
               cm_mde_mcnemar(m->groups, chance_changes(st->lost, st->gained, m->groups), a,
                              c->power);
    else if (!c->sequential && st->route == CM_BY_T && st->nonzero <= 20 &&
             exp2(-(double)st->nonzero) > a)
        return INFINITY; /* all clusters together cannot be significant */
    else
        loss = loss_at(m, cm_plan_distance(critical(m, st, c, a, 1), c->power, st->df, 1), st->se);
    double crit = critical(m, st, c, c->alpha, 1);
    return fmax(loss, mde_of_bound(m->margin, st->se, crit, c->power, st->df));
}

/* ---- needed size ------------------------------------------------------------------ */

/* Where nothing changed: so many must show no change for a rate of 1 in 1/d to be excluded. */
static double need_unchanged(double d, double alpha) { return log(alpha) / log1p(-d); }

/* The mean at which a Poisson count is at most `seen` with probability 1 - level. */
static double poisson_upper(double seen, double level) {
    double lo = seen, hi = 2 * seen + 40;
    for (int i = 0; i < 60; i++) {
        double mid = (lo + hi) / 2, term = exp(-mid), tail = term;
        for (int k = 1; k <= (int)seen; k++) tail += term *= mid / k;
        if (tail > 1 - level) lo = mid;
        else hi = mid;
    }
    return hi;
}

/* Tango's statistic has another variance under the margin (rate d) than without a loss. */
static double size_at(double psi, double d, double z0, double z1) {
    double q = cm_tango_gain_rate(psi / 2, psi / 2, 1, d);
    double s = z0 * sqrt(2 * q + d * (1 - d)) + z1 * sqrt(psi);
    return s * s / (d * d);
}

/* Items for PASS with probability `power` where nothing was lost; 0/1 scores.  The rate of
 * changes is itself estimated: from many by the distribution of their number's error, which
 * has no use below some dozens; there its upper bound stands in where that is less. */
static double need_counts(const cm_metric_cmp *m, const cm_regress_conf *c, double power) {
    enum { FEW = 30 };
    double d = fmin(m->margin, 0.999), n = (double)m->n, none = need_unchanged(d, c->alpha);
    double changed = (double)(m->losses + m->gains), seen = changed + 1, psi = fmin(1, seen / n);
    if (!changed && !c->sequential) return ceil(none);
    double most = changed < FEW ? fmin(1, poisson_upper(changed, power) / n) : 1;
    double z0 = cm_norm_quantile(1 - c->alpha), z1 = cm_norm_quantile(power), need = n;
    for (int i = 0; i < 30; i++) {
        if (c->sequential) z0 = cm_e_mean_z(1 / c->alpha, need, cm_e_rho2(PLAN_SEQ, c->alpha));
        double wide = cm_plan_distance(z0, power, 2 * seen, 1e9) / (z0 + z1);
        need = wide * wide * size_at(psi, d, z0, z1);
        if (changed < FEW) need = fmin(need, size_at(most, d, z0, z1));
    }
    return ceil(fmax(need, none));
}

static double need_means(const cm_metric_cmp *m, const cm_metric_stat *st, const cm_regress_conf *c,
                         double power) {
    double scale = 1, margin = m->margin;
    for (int i = 0; i < 60; i++) {
        double df = fmax(1 / scale, st->df), crit = critical(m, st, c, c->alpha, scale);
        double k = cm_plan_distance(crit, power, df, scale);
        double next = k * st->se / margin;
        if (!isfinite(next)) return INFINITY;
        /* Damped: more items make the critical value smaller. */
        scale = fmin(fmax(sqrt(scale * next * next), 2 / (double)m->groups), 1e9);
    }
    double groups = (double)m->groups * scale;
    if (st->sparse)
        groups = fmax(groups, need_unchanged(fmin(margin / st->scale, 0.999), c->alpha));
    return ceil(groups * (double)m->n / (double)m->groups);
}

/* Seeds and items add up: either alone may not suffice. */
static void need_seeds(cm_metric_cmp *m, const cm_metric_stat *st, const cm_regress_conf *c,
                       double power) {
    double k = cm_plan_distance(cm_t_quantile(1 - c->alpha, st->df), power, st->df, 1);
    double room = m->margin / k;
    room *= room;
    m->n_needed = room > st->var_seeds
                      ? ceil((double)m->n * st->var_items / (room - st->var_seeds))
                      : INFINITY;
    int seeds = m->seeds_base > m->seeds_cand ? m->seeds_base : m->seeds_cand;
    m->seeds_needed = room > st->var_items ? ceil(seeds * st->var_seeds / (room - st->var_items))
                                           : INFINITY;
}

static void sizes(cm_metric_cmp *m, const cm_metric_stat *st, const cm_regress_conf *c,
                  int family) {
    double a = c->alpha / family, power = 1 - (1 - c->power) / family;
    if (st->route == CM_BY_SAME) return;
    m->mde = st->route == CM_BY_COUNTS ? mde_counts(m, st, c, a) : mde_means(m, st, c, a);
    if (m->margin <= 0) m->n_needed = INFINITY;
    else if (st->route == CM_BY_COUNTS) m->n_needed = need_counts(m, c, power);
    else if (st->route == CM_BY_SEEDS) need_seeds(m, st, c, power);
    else m->n_needed = need_means(m, st, c, power);
}

/* ---- verdict ---------------------------------------------------------------------- */

const char *cm_p_text(double p, char buf[40]) {
    char t[32];
    cm_show_p(p, t);
    snprintf(buf, 40, *t == '<' ? "p < %.30s" : "p = %.30s", t + (*t == '<'));
    return buf;
}

/* A loss with its unit: "2.00 pp", "0.0123 bits". */
static const char *amount(const cm_metric *m, double v, char buf[80]) {
    char t[40];
    bool own = !strcmp(m->unit, "share") || !*m->unit; /* "pp" is said already */
    snprintf(buf, 80, "%s%s%.30s", cm_show_size(m, v, t), own ? "" : " ", own ? "" : m->unit);
    return buf;
}

/* The margin; a relative one with what it is of this baseline. */
static const char *margin_of(const cm_metric_cmp *m, char buf[128]) {
    char t[80];
    size_t n = strlen(m->margin_text);
    bool relative = n && m->margin_text[n - 1] == '%';
    amount(m->metric, m->margin, t);
    if (relative) snprintf(buf, 128, "%s (%s)", m->margin_text, t);
    else snprintf(buf, 128, "%s", t);
    return buf;
}

/* What would turn INCONCLUSIVE into PASS. */
static void remedy(const cm_metric_cmp *m, const cm_metric_stat *st, char text[96]) {
    char t[32];
    if (m->margin <= 0)
        snprintf(text, 96, "with a margin of 0 only a significant gain passes");
    else if (!isfinite(m->n_needed) && isfinite(m->seeds_needed))
        snprintf(text, 96, "%s seeds a side would do", cm_show_count(m->seeds_needed, t));
    else if (!isfinite(m->n_needed) && st->route == CM_BY_SEEDS)
        snprintf(text, 96, "it takes more seeds and more items");
    else
        snprintf(text, 96, !isfinite(m->n_needed) ? "%s of items would do"
                           : st->nonzero || m->losses + m->gains
                               ? "%s items would do if nothing was lost"
                               : "%s items would do if none of them changed",
                 cm_show_count(m->n_needed, t));
}

static void explain(cm_metric_cmp *m, const cm_metric_stat *st, const cm_regress_conf *c,
                    bool lost) {
    char at_most[80], loss[80], margin[128], p[40], text[96];
    amount(m->metric, m->bound, at_most);
    amount(m->metric, st->gain, loss);
    margin_of(m, margin);
    cm_p_text(m->p_holm, p);
    double sure = 100 * (1 - c->alpha);
    size_t cap = sizeof m->reason;
    if (st->route == CM_BY_SAME)
        snprintf(m->reason, cap, "the same model with the same scores on all items");
    else if (m->verdict == CM_VERDICT_PASS && lost)
        snprintf(m->reason, cap, "a real loss of %s (%s), but tolerable: below the margin of %s "
                 "with %g%% confidence", loss, p, margin, sure);
    else if (m->verdict == CM_VERDICT_PASS)
        snprintf(m->reason, cap, "%s with %g%% confidence; the margin is %s",
                 m->bound > 0 ? "a gain" : "any loss is below the margin", sure, margin);
    else if (m->verdict == CM_VERDICT_FAIL)
        snprintf(m->reason, cap, "a loss of %s (%s after Holm), perhaps up to %s; the margin is %s",
                 loss, p, at_most, margin);
    else {
        remedy(m, st, text);
        snprintf(m->reason, cap, "no significant loss, but up to %s is not excluded; the margin "
                 "is %s; %s", isinf(m->bound) ? "any" : at_most, margin, text);
    }
}

/* regress.exact: scores are promised to be the same bits. */
static void decide_exact(cm_metric_cmp *m) {
    int64_t changed = m->losses + m->gains;
    m->verdict = changed ? CM_VERDICT_FAIL : CM_VERDICT_PASS;
    snprintf(m->reason, sizeof m->reason, "%lld of %lld items changed; none may (regress.exact)",
             (long long)changed, (long long)m->n);
}

void cm_metric_decide(cm_metric_cmp *m, const cm_metric_stat *st, const cm_regress_conf *c,
                      int family) {
    if (c->exact) {
        decide_exact(m);
        return;
    }
    bool lost = m->p_holm < c->alpha, safe = m->bound > -m->margin;
    if (st->route == CM_BY_SAME) safe = true;
    m->verdict = safe ? CM_VERDICT_PASS : lost ? CM_VERDICT_FAIL : CM_VERDICT_INCONCLUSIVE;
    sizes(m, st, c, family);
    explain(m, st, c, lost);
}
