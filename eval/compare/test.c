/* test.c -- one metric on both sides: difference, interval, p-values, bound.
 *
 * Every estimate is written as a sum of contributions of clusters (docs/math/stats.md), so
 * means, ratios and perplexities share one test; 0/1 scores of independent items and ECE
 * have their own. */
#include "compare/compare_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SPARSE = 20,   /* changed clusters below which the t distribution is not trusted */
    FEWEST_SEQ = 30, /* clusters from which the asymptotic e-value counts */
    PLAN_SEQ = 500,  /* observations around which it is tightest */
    LEAST_BOOT = 1000
};

typedef struct {
    const cm_metric *metric;
    const cm_regress_conf *rule;
    cm_metric_cmp *m;
    cm_metric_stat *st;
    cm_scores s;
    double sign;          /* +1: higher is better */
    double *r, *w, *t;    /* [G] residual contribution, share, contribution; oriented */
    double *size;         /* [G] of the numbers that r is the difference of */
} work;

/* ---- contributions ---------------------------------------------------------------- */

static double outer(const cm_metric *m, double ratio) {
    return m->kind == CM_METRIC_EXP ? exp(ratio) : ratio;
}

/* Adds k times the residual contributions of one result to r and its shares to w. */
static double add_result(work *k, const cm_score_val *v, double factor, double share) {
    double num = 0, den = 0;
    for (int64_t i = 0; i < k->s.n; i++) {
        num += v[i].num;
        den += v[i].den;
    }
    double ratio = num / den, value = outer(k->metric, ratio);
    double slope = (k->metric->kind == CM_METRIC_EXP ? value : 1) * factor / den;
    for (int64_t i = 0; i < k->s.n; i++) {
        int32_t g = k->s.cluster[i];
        k->r[g] += slope * (v[i].num - ratio * v[i].den);
        k->size[g] += fabs(slope * v[i].num) + fabs(slope * ratio * v[i].den);
        k->w[g] += share * v[i].den / den;
    }
    return value;
}

static double sd_of(const double *v, int n) {
    return n > 1 ? cm_paired_t(v, n).sd : NAN;
}

/* Values of both sides and the contributions to their difference. */
static void contributions(work *k) {
    cm_metric_cmp *m = k->m;
    int na = k->s.na, nb = k->s.nb;
    double *va = cm_scratch(na + nb, sizeof *va), *vb = va + na, share = 1.0 / (na + nb);
    k->r = cm_scratch(4 * k->s.G, sizeof *k->r);
    k->w = k->r + k->s.G;
    k->t = k->w + k->s.G;
    k->size = k->t + k->s.G;
    m->base = m->cand = 0;
    for (int s = 0; s < na; s++)
        m->base += (va[s] = add_result(k, k->s.a[s], -k->sign / na, share)) / na;
    for (int s = 0; s < nb; s++)
        m->cand += (vb[s] = add_result(k, k->s.b[s], k->sign / nb, share)) / nb;
    m->sd_base = sd_of(va, na);
    m->sd_cand = sd_of(vb, nb);
    m->diff = m->cand - m->base;
    k->st->gain = k->sign * m->diff;
    free(va);
}

/* Contributions that sum to the gain; what is zero but for rounding becomes zero, so that
 * clusters without a change count as such. */
static void center(work *k) {
    for (int64_t g = 0; g < k->s.G; g++) {
        double t = k->r[g] + k->st->gain * k->w[g];
        k->t[g] = t;
        if (fabs(t) <= 1e-13 * k->size[g]) {
            k->t[g] = 0;
            k->r[g] = -k->st->gain * k->w[g];
        }
        k->st->nonzero += k->t[g] != 0;
        k->st->lost += k->t[g] < 0;
        k->st->gained += k->t[g] > 0;
    }
}

/* Items whose score differs; whether all scores are 0 or 1. */
static bool count_items(work *k) {
    bool binary = k->metric->kind == CM_METRIC_MEAN && k->s.na == 1 && k->s.nb == 1;
    for (int64_t i = 0; i < k->s.n; i++) {
        double x = 0, y = 0;
        for (int s = 0; s < k->s.na; s++) x += k->s.a[s][i].num / k->s.a[s][i].den / k->s.na;
        for (int s = 0; s < k->s.nb; s++) y += k->s.b[s][i].num / k->s.b[s][i].den / k->s.nb;
        double d = k->sign * (y - x);
        k->m->losses += d < 0;
        k->m->gains += d > 0;
        binary = binary && (x == 0 || x == 1) && (y == 0 || y == 1);
    }
    if (binary) k->m->flips = (double)(k->m->losses + k->m->gains) / (double)k->s.n;
    return binary;
}

/* Oriented ends of the gain to ends of the difference. */
static void set_interval(work *k, double lo, double hi, const char *how) {
    k->m->lo = k->sign > 0 ? lo : -hi;
    k->m->hi = k->sign > 0 ? hi : -lo;
    k->m->interval = how;
}

/* ---- 0/1 scores of independent items ---------------------------------------------- */

/* The net loss rate that e-values exclude: where the e-value of "at least so much" is e. */
static double bet_upper(int64_t b, int64_t c, int64_t n, double e) {
    double lo = 0, hi = 1 - 1e-9;
    for (int i = 0; i < 26; i++) {
        double mid = (lo + hi) / 2;
        if (cm_e_bet(b, c, n, mid) < e) lo = mid;
        else hi = mid;
    }
    return hi;
}

static void by_counts(work *k) {
    cm_metric_cmp *m = k->m;
    int64_t b = m->losses, c = m->gains, n = k->s.n;
    double N = (double)n, alpha = k->rule->alpha;
    cm_mcnemar t = cm_mcnemar_test(b, c);
    k->st->route = CM_BY_COUNTS;
    double net = (double)(b - c);
    k->st->se = sqrt(fmax(0, (double)(b + c) - net * net / N) / (N - 1) / N);
    m->test = "McNemar exact";
    m->p = t.one;
    m->p_two = t.two;
    m->p_mid = t.mid;
    cm_interval i = cm_tango(b, c, n, 1 - alpha);
    set_interval(k, -i.hi, -i.lo, "Tango score");
    double most = fmin(m->margin, 0.999);
    if (k->rule->sequential) {
        m->e_loss = cm_e_one(b, c);
        m->e_margin = cm_e_bet(b, c, n, most);
        m->test = "e-value of losses among changes";
        m->p = fmin(1, 1 / m->e_loss);
        m->p_margin = fmin(1, 1 / m->e_margin);
        m->bound = -bet_upper(b, c, n, 1 / alpha);
        set_interval(k, -bet_upper(b, c, n, 2 / alpha), bet_upper(c, b, n, 2 / alpha),
                     "e-values, at any time");
    } else {
        m->p_margin = cm_tango_p(b, c, n, most);
        m->bound = -cm_tango_upper(b, c, n, alpha);
    }
}

/* ---- means, ratios, perplexities: cluster t --------------------------------------- */

/* How much one cluster may move the value, times G: as much as the largest change seen;
 * where nothing changed, as the scores range. */
static double scale_of(const work *k) {
    double most = 0, lo = INFINITY, hi = -INFINITY;
    for (int64_t g = 0; g < k->s.G; g++) most = fmax(most, fabs(k->t[g]));
    if (most > 0) return most * (double)k->s.G;
    for (int64_t i = 0; i < k->s.n; i++) {
        double x = k->s.a[0][i].num / k->s.a[0][i].den;
        lo = fmin(lo, x);
        hi = fmax(hi, x);
    }
    double range = hi > lo ? hi - lo : fmax(1, fabs(hi));
    return k->metric->kind == CM_METRIC_EXP ? range * k->m->base : range;
}

/* The interval reaches as far as each bound alone: an end of it never excludes what the bound
 * that decides does not. */
static void widen(work *k, double lo, double hi) {
    cm_metric_cmp *m = k->m;
    double was_lo = k->sign > 0 ? m->lo : -m->hi, was_hi = k->sign > 0 ? m->hi : -m->lo;
    set_interval(k, fmin(was_lo, lo), fmax(was_hi, hi), m->interval);
}

/* Few changed clusters say little about their variance: the loss is then also bounded
 * through their number, each counting as much as the largest. */
static void sparse_bound(work *k) {
    cm_metric_stat *st = k->st;
    cm_metric_cmp *m = k->m;
    st->sparse = st->nonzero < SPARSE && st->nonzero < (k->s.G + 1) / 2;
    if (!st->sparse) return;
    st->scale = scale_of(k);
    double theta = fmin(m->margin / st->scale, 0.999);
    double upper, p, a = k->rule->alpha, most_lost, most_gained;
    if (k->rule->sequential) {
        double e = cm_e_bet(st->lost, st->gained, k->s.G, theta);
        m->e_margin = fmin(m->e_margin, e);
        p = fmin(1, 1 / e);
        upper = bet_upper(st->lost, st->gained, k->s.G, 1 / a);
        most_lost = bet_upper(st->lost, st->gained, k->s.G, 2 / a);
        most_gained = bet_upper(st->gained, st->lost, k->s.G, 2 / a);
    } else {
        p = cm_tango_p(st->lost, st->gained, k->s.G, theta);
        upper = cm_tango_upper(st->lost, st->gained, k->s.G, a);
        most_lost = cm_tango_upper(st->lost, st->gained, k->s.G, a / 2);
        most_gained = cm_tango_upper(st->gained, st->lost, k->s.G, a / 2);
    }
    widen(k, -st->scale * most_lost, st->scale * most_gained);
    m->bound = fmin(m->bound, -st->scale * upper);
    m->p_margin = fmax(m->p_margin, p);
}

static double t_or(double x, double se, double none) { return se > 0 ? x / se : none; }

static void t_numbers(work *k, const char *test, const char *interval) {
    cm_metric_cmp *m = k->m;
    const cm_metric_stat *st = k->st;
    double a = k->rule->alpha;
    double z = t_or(st->gain, st->se, st->gain < 0 ? -INFINITY : 0);
    m->test = test;
    m->p = cm_t_cdf(z, st->df);
    m->p_two = fmin(1, 2 * cm_t_cdf(-fabs(z), st->df));
    m->p_margin = cm_t_cdf(-t_or(st->gain + m->margin, st->se, INFINITY), st->df);
    m->bound = st->gain - cm_t_quantile(1 - a, st->df) * st->se;
    double half = cm_t_quantile(1 - a / 2, st->df) * st->se;
    set_interval(k, st->gain - half, st->gain + half, interval);
}

static void t_sequential(work *k) {
    cm_metric_cmp *m = k->m;
    const cm_metric_stat *st = k->st;
    double G = (double)k->s.G, a = k->rule->alpha, rho2 = cm_e_rho2(PLAN_SEQ, a);
    bool enough = k->s.G >= FEWEST_SEQ;
    m->test = "e-value of the mean";
    double z = t_or(st->gain, st->se, 0), zm = t_or(st->gain + m->margin, st->se, 0);
    m->e_loss = enough ? cm_e_mean(-z, G, rho2) : 1;
    m->e_margin = enough ? cm_e_mean(zm, G, rho2) : 1;
    m->p = fmin(1, 1 / m->e_loss);
    m->p_margin = fmin(1, 1 / m->e_margin);
    m->bound = enough ? st->gain - cm_e_mean_z(1 / a, G, rho2) * st->se : -INFINITY;
    double half = enough ? cm_e_mean_z(2 / a, G, rho2) * st->se : NAN;
    set_interval(k, st->gain - half, st->gain + half, "e-values, at any time");
}

/* Standard error over clusters and its degrees of freedom.  A mean of independent items has
 * the t test's; else clusters (documents of a ratio too) may vary as a whole, and few long
 * documents may carry all the variance. */
static double item_error(const work *k, double *df) {
    cm_clustered c = cm_cluster_se(k->r, k->w, k->s.G);
    bool plain = k->s.G == k->s.n && k->metric->kind == CM_METRIC_MEAN;
    *df = fmin(c.df, c.seen);
    return plain ? c.se2 : c.se3;
}

static void by_t(work *k) {
    cm_metric_cmp *m = k->m;
    cm_metric_stat *st = k->st;
    st->route = CM_BY_T;
    st->se = item_error(k, &st->df);
    t_numbers(k, "cluster t", k->s.G < k->s.n ? "cluster t" : "t");
    if (k->s.G == k->s.n) m->test = "paired t";
    if (k->rule->sequential) t_sequential(k);
    else if (st->nonzero <= SPARSE) {
        m->p = cm_signflip_test(k->t, k->s.G, 0, 0).p_less;
        m->test = "sign-flip permutation";
    }
    sparse_bound(k);
    if (st->nonzero) return;
    m->lo = m->hi = NAN; /* nothing changed: no error to make an interval of */
    m->interval = "none: nothing changed";
}

/* ---- seeds as replicates ---------------------------------------------------------- */

/* Variance of the mean over n seeds and its degrees of freedom; a lone seed borrows the
 * other side's. */
static double seed_var(double sd, int n, double other_sd, int other_n, double *df) {
    *df = (n > 1 ? n : other_n) - 1;
    double s = n > 1 ? sd : other_sd;
    return s * s / n;
}

static void by_seeds(work *k) {
    cm_metric_cmp *m = k->m;
    cm_metric_stat *st = k->st;
    double da, db;
    double va = seed_var(m->sd_base, k->s.na, m->sd_cand, k->s.nb, &da);
    double vb = seed_var(m->sd_cand, k->s.nb, m->sd_base, k->s.na, &db);
    double di, se = item_error(k, &di), vi = se * se;
    double parts = va * va / da + vb * vb / db + vi * vi / di;
    bool lone = k->s.na == 1 || k->s.nb == 1; /* then va and vb are one estimate */
    if (lone) parts = (va + vb) * (va + vb) / da + vi * vi / di;
    double v = va + vb + vi;
    st->route = CM_BY_SEEDS;
    st->var_seeds = va + vb;
    st->var_items = vi;
    st->se = sqrt(v);
    st->df = parts > 0 ? fmax(1, v * v / parts) : di;
    t_numbers(k, "t over seeds and items", "t over seeds and items");
    double dof = k->s.na + k->s.nb - 2;
    double pooled = ((k->s.na > 1 ? m->sd_base * m->sd_base * (k->s.na - 1) : 0) +
                     (k->s.nb > 1 ? m->sd_cand * m->sd_cand * (k->s.nb - 1) : 0)) / dof;
    m->noise_floor = cm_t_quantile(1 - k->rule->alpha / 2, dof) * sqrt(2 * pooled);
}

/* ---- bootstrap -------------------------------------------------------------------- */

typedef struct {
    const work *k;
    int32_t *items;   /* [n] multiplicities of items, from those of clusters */
    double shift;
    double *sum;      /* [na + nb][G][2] sums of clusters */
} boot_ctx;

static double ece_gain(const int32_t *w, int64_t G, void *ctx) {
    const boot_ctx *c = ctx;
    const cm_scores *s = &c->k->s;
    (void)G;
    for (int64_t i = 0; i < s->n; i++) c->items[i] = w[s->cluster[i]];
    double d = 0;
    for (int q = 0; q < s->nb; q++)
        d += cm_metric_value(c->k->metric, s->b[q], s->conf_b[q], c->items, s->n) / s->nb;
    for (int q = 0; q < s->na; q++)
        d -= cm_metric_value(c->k->metric, s->a[q], s->conf_a[q], c->items, s->n) / s->na;
    return c->k->sign * d + c->shift;
}

/* p of "the value is above 0 at most by chance", by inverting the BCa interval. */
static double boot_p(const cm_boot *b, double B) {
    double edge = 0.5 / B, w = cm_norm_quantile(fmin(fmax(b->p_below, edge), 1 - edge));
    double y = (w - b->z0) / (1 + b->a * (w - b->z0));
    return cm_norm_cdf(y - b->z0);
}

static void by_bootstrap(work *k) {
    cm_metric_cmp *m = k->m;
    int64_t B = k->rule->resamples > LEAST_BOOT ? k->rule->resamples : LEAST_BOOT;
    uint64_t seed = (uint64_t)k->rule->seed;
    double a = k->rule->alpha;
    boot_ctx c = {k, cm_scratch(k->s.n, sizeof *c.items), 0, NULL};
    cm_boot two = cm_bootstrap(ece_gain, &c, k->s.G, B, seed, 1 - a, 0);
    c.shift = m->margin;
    cm_boot one = cm_bootstrap(ece_gain, &c, k->s.G, B, seed, 1 - 2 * a, 0);
    free(c.items);
    k->st->route = CM_BY_BOOT;
    k->st->se = two.se;
    k->st->df = INFINITY;
    m->test = "clustered paired bootstrap";
    double p = boot_p(&two, (double)B);
    bool still = two.se == 0;
    m->p = still ? 1 : 1 - p;
    m->p_two = still ? 1 : fmin(1, 2 * fmin(p, 1 - p));
    m->p_margin = boot_p(&one, (double)B);
    m->bound = one.bca.lo - m->margin;
    set_interval(k, two.bca.lo, two.bca.hi, "bias-corrected bootstrap");
    m->boot_lo = m->lo;
    m->boot_hi = m->hi;
}

/* Difference of means over seeds, from the sums of clusters. */
static double sums_diff(const int32_t *wa, const int32_t *wb, const int32_t *w, void *ctx) {
    const boot_ctx *c = ctx;
    const cm_scores *s = &c->k->s;
    double d = 0;
    for (int q = 0; q < s->na + s->nb; q++) {
        bool cand = q >= s->na;
        int32_t times = cand ? wb ? wb[q - s->na] : 1 : wa ? wa[q] : 1;
        if (!times) continue;
        const double *sum = c->sum + 2 * s->G * q;
        double num = 0, den = 0;
        for (int64_t g = 0; g < s->G; g++) {
            num += w[g] * sum[2 * g];
            den += w[g] * sum[2 * g + 1];
        }
        double v = times * outer(c->k->metric, num / den);
        d += cand ? v / s->nb : -v / s->na;
    }
    return d;
}

static double one_level(const int32_t *w, int64_t n, void *ctx) {
    (void)n;
    return sums_diff(NULL, NULL, w, ctx);
}

static void show_bootstrap(work *k) {
    const cm_scores *s = &k->s;
    boot_ctx c = {k, NULL, 0, cm_scratch(2 * s->G * (s->na + s->nb), sizeof *c.sum)};
    for (int q = 0; q < s->na + s->nb; q++) {
        const cm_score_val *v = q < s->na ? s->a[q] : s->b[q - s->na];
        for (int64_t i = 0; i < s->n; i++) {
            double *sum = c.sum + 2 * (s->G * q + s->cluster[i]);
            sum[0] += v[i].num;
            sum[1] += v[i].den;
        }
    }
    int64_t B = k->rule->resamples;
    uint64_t seed = (uint64_t)k->rule->seed;
    double level = 1 - k->rule->alpha;
    /* The contributions are oriented; the difference is not. */
    double a = k->sign * cm_boot_accel(k->r, s->G);
    cm_boot b = k->st->route == CM_BY_SEEDS
                    ? cm_bootstrap2(sums_diff, &c, s->na, s->nb, s->G, B, seed, level)
                    : cm_bootstrap(one_level, &c, s->G, B, seed, level, a);
    k->m->boot_lo = b.bca.lo;
    k->m->boot_hi = b.bca.hi;
    free(c.sum);
}

/* Tests that are shown beside the one that decides. */
static void show_others(work *k, bool binary) {
    cm_metric_cmp *m = k->m;
    bool graded = k->metric->kind == CM_METRIC_MEAN && !binary && k->s.na == 1 && k->s.nb == 1;
    if (binary && k->st->route != CM_BY_COUNTS) m->p_mid = cm_mcnemar_test(m->losses, m->gains).mid;
    if (k->rule->resamples < 1 || !m->gates || k->st->route == CM_BY_COUNTS) return;
    m->p_perm = cm_signflip_test(k->t, k->s.G, k->rule->resamples, (uint64_t)k->rule->seed).p_two;
    if (graded) {
        double *d = cm_scratch(k->s.n, sizeof *d);
        for (int64_t i = 0; i < k->s.n; i++) d[i] = k->s.b[0][i].num - k->s.a[0][i].num;
        m->p_wilcoxon = cm_wilcoxon_test(d, k->s.n, CM_ZERO_PRATT, true, false).p_two;
        free(d);
    }
    show_bootstrap(k);
}

/* ---- win rate --------------------------------------------------------------------- */

static bool all_binary(const work *k) {
    for (int s = 0; s < k->s.na + k->s.nb; s++) {
        const cm_score_val *v = s < k->s.na ? k->s.a[s] : k->s.b[s - k->s.na];
        for (int64_t i = 0; i < k->s.n; i++)
            if (v[i].num != 0 && v[i].num != v[i].den) return false;
    }
    return true;
}

/* Of 0/1 scores x and y a win less a loss is y - x, so the rate of wins with ties one half is
 * (1 + gain) / 2, and so are the ends of its interval; also over pairs of seeds. */
static void win_from_gain(work *k) {
    cm_metric_cmp *m = k->m;
    double lo = k->sign > 0 ? m->lo : -m->hi, hi = k->sign > 0 ? m->hi : -m->lo;
    m->win_rate = (1 + k->st->gain) / 2;
    m->win_lo = fmax(0, (1 + lo) / 2);
    m->win_hi = fmin(1, (1 + hi) / 2);
    if (isnan(lo)) m->win_lo = m->win_hi = NAN;
}

/* Graded scores: a mean of wins, 1, 1/2 or 0, over items in clusters. */
static void win_from_signs(work *k) {
    cm_metric_cmp *m = k->m;
    double n = (double)k->s.n, rate = (0.5 * (n - (double)(m->gains + m->losses)) +
                                       (double)m->gains) / n;
    double *r = cm_scratch(2 * k->s.G, sizeof *r), *w = r + k->s.G;
    for (int64_t i = 0; i < k->s.n; i++) {
        double x = k->s.a[0][i].num / k->s.a[0][i].den, y = k->s.b[0][i].num / k->s.b[0][i].den;
        double d = k->sign * (y - x), win = d > 0 ? 1 : d < 0 ? 0 : 0.5;
        r[k->s.cluster[i]] += (win - rate) / n;
        w[k->s.cluster[i]] += 1 / n;
    }
    cm_clustered c = cm_cluster_se(r, w, k->s.G);
    double se = k->s.G == k->s.n ? c.se2 : c.se3;
    double half = cm_t_quantile(1 - k->rule->alpha / 2, fmin(c.df, c.seen)) * se;
    m->win_rate = rate;
    if (se > 0 && !k->rule->sequential) {
        m->win_lo = fmax(0, rate - half);
        m->win_hi = fmin(1, rate + half);
    }
    free(r);
}

static void win_rate(work *k) {
    if (k->metric->kind != CM_METRIC_MEAN || !k->metric->judged) return;
    if (all_binary(k)) win_from_gain(k);
    else if (k->s.na == 1 && k->s.nb == 1 && k->s.G > 1) win_from_signs(k);
}

/* ---- all together ----------------------------------------------------------------- */

static void blank(cm_metric_cmp *m) {
    double *const none[] = {&m->stderr_, &m->lo, &m->hi, &m->boot_lo, &m->boot_hi, &m->bound,
                            &m->p, &m->p_holm, &m->p_bh, &m->p_margin, &m->p_two, &m->p_mid,
                            &m->p_perm, &m->p_wilcoxon, &m->e_loss, &m->e_margin, &m->mde,
                            &m->n_needed, &m->flips, &m->win_rate, &m->win_lo,
                            &m->win_hi, &m->sd_base, &m->sd_cand, &m->noise_floor,
                            &m->seeds_needed, &m->base, &m->cand, &m->diff, &m->margin};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) *none[i] = NAN;
    m->interval = m->test = "";
}

/* One model, one set of scores: the difference is 0 whatever items one asks. */
static void by_identity(work *k) {
    cm_metric_cmp *m = k->m;
    k->st->route = CM_BY_SAME;
    k->st->df = INFINITY;
    m->test = "same model, same scores";
    m->p = m->p_two = 1;
    m->p_margin = 0;
    m->bound = 0;
    set_interval(k, 0, 0, "identical");
}

static bool ece_values(work *k) {
    cm_metric_cmp *m = k->m;
    m->base = m->cand = 0;
    for (int q = 0; q < k->s.na; q++)
        m->base += cm_metric_value(k->metric, k->s.a[q], k->s.conf_a[q], NULL, k->s.n) / k->s.na;
    for (int q = 0; q < k->s.nb; q++)
        m->cand += cm_metric_value(k->metric, k->s.b[q], k->s.conf_b[q], NULL, k->s.n) / k->s.nb;
    m->diff = m->cand - m->base;
    k->st->gain = k->sign * m->diff;
    return isfinite(m->diff);
}

/* A metric that is no goal has no margin; 0 stands in for it until not_judged. */
static void set_margin(work *k) {
    cm_metric_cmp *m = k->m;
    m->margin = 0;
    if (!k->metric->judged) return;
    cm_margin margin = cm_rule_margin(k->rule, m->task, k->metric->name, k->metric->margin);
    m->margin = margin.relative ? margin.value * fabs(m->base) : margin.value;
    snprintf(m->margin_text, sizeof m->margin_text, "%s", margin.text);
}

/* Neither direction is a loss: what remains is the difference and its interval. */
static void not_judged(cm_metric_cmp *m) {
    m->margin = m->bound = m->p = m->p_margin = m->e_loss = m->e_margin = NAN;
    m->losses = m->gains = 0;
    snprintf(m->reason, sizeof m->reason, "no goal: shown, not judged");
}

static bool choose_route(work *k, bool same_model) {
    cm_metric_cmp *m = k->m;
    bool ece = k->metric->kind == CM_METRIC_ECE, seeds = k->s.na + k->s.nb > 2;
    if (ece) {
        if (!ece_values(k)) return snprintf(m->reason, sizeof m->reason, "no finite value"), false;
    } else {
        contributions(k);
        center(k);
    }
    if (!isfinite(m->base) || !isfinite(m->cand))
        return snprintf(m->reason, sizeof m->reason, "the metric's value is not finite"), false;
    set_margin(k);
    bool binary = count_items(k);
    if (same_model && m->losses + m->gains == 0 && m->diff == 0) by_identity(k);
    else if (ece && (seeds || k->rule->sequential))
        return snprintf(m->reason, sizeof m->reason, "ECE is compared between two single results, "
                        "not in sequential mode"), false;
    else if (ece) by_bootstrap(k);
    else if (k->s.G < 2)
        return snprintf(m->reason, sizeof m->reason, "%s: no error can be estimated",
                        k->s.n < 2 ? "one item" : "all items are of one group"), false;
    else if (seeds) by_seeds(k);
    else if (binary && k->s.G == k->s.n) by_counts(k);
    else by_t(k);
    m->stderr_ = k->st->se;
    if (!ece && k->st->route != CM_BY_SAME) show_others(k, binary);
    win_rate(k);
    return true;
}

bool cm_metric_test(cm_metric_cmp *m, cm_metric_stat *st, const cm_task_pair *p,
                    bool same_model, const cm_regress_conf *c) {
    work k = {.metric = m->metric, .rule = c, .m = m, .st = st};
    k.sign = m->metric->higher ? 1 : -1;
    blank(m);
    *st = (cm_metric_stat){0};
    m->seeds_base = p->na;
    m->seeds_cand = p->nb;
    if (!cm_scores_make(&k.s, p, m->metric, c->cluster, m->reason)) return false;
    m->n = k.s.n;
    m->groups = k.s.G;
    bool ok = choose_route(&k, same_model);
    if (ok && !m->metric->judged) not_judged(m);
    free(k.r);
    cm_scores_free(&k.s);
    return ok && m->metric->judged;
}
