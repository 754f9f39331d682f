/* charts.c -- forest plot, reliability diagram, histogram of divergences. */
#include "report/report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- forest plot ----------------------------------------------------------------------------
 * Metrics have different units, so every row is drawn in its own margins: 0 is no change,
 * -1 the loss that is tolerated, to the right is better. */

enum { ROW = 26, WIDE = 1120, RIGHT = 250, HEAD = 30 };

static double unit_of(const cm_metric_cmp *m) {
    double wide = fmax(fabs(m->lo), fabs(m->hi));
    return m->margin > 0 ? m->margin : wide > 0 && isfinite(wide) ? wide : 1;
}

/* The scale's reach: all intervals, at least 1.6 margins, at most 6. */
static double reach_of(const cm_pairing *p) {
    double reach = 1.6;
    for (int i = 0; i < p->n_metrics; i++) {
        const cm_metric_cmp *m = &p->metric[i];
        if (m->verdict == CM_VERDICT_SKIPPED || !isfinite(m->lo) || !isfinite(m->hi)) continue;
        reach = fmax(reach, fmax(fabs(m->lo), fabs(m->hi)) / unit_of(m));
    }
    return fmin(reach * 1.05, 6);
}

/* The interval goes on beyond the scale. */
static void arrow(cm_buf *b, double x, double y, double way, const char *class) {
    cm_svg_seg(b, x, y, x - way, y - 4, class);
    cm_svg_seg(b, x, y, x - way, y + 4, class);
}

static void forest_row(const cm_metric_cmp *m, const cm_scale *x, double y, cm_buf *b) {
    char name[160], diff[40], ci[96], tip[960], class[32];
    double u = unit_of(m), at = cm_gain(m->metric, m->diff) / u;
    double lo = cm_gain(m->metric, m->lo) / u, hi = cm_gain(m->metric, m->hi) / u;
    if (lo > hi) {
        double t = lo;
        lo = hi, hi = t;
    }
    cm_cell(m, CM_CELL_METRIC, name);
    cm_svg_text(b, x->from - 12, y + 4, m->gates ? "head" : "soft", "end", name);
    snprintf(tip, sizeof tip, "%s: %s %s, %s. %s", name, cm_show_diff(m->metric, m->diff, diff),
             cm_show_interval(m->metric, m->lo, m->hi, ci), cm_row_verdict(m), m->reason);
    const char *v = cm_verdict_class(m->verdict);
    snprintf(class, sizeof class, "ci %s", v);
    if (isfinite(lo) && isfinite(hi)) {
        cm_svg_seg(b, cm_scale_at(x, lo), y, cm_scale_at(x, hi), y, class);
        if (lo < -x->hi) arrow(b, x->from, y, -5, class);
        if (hi > x->hi) arrow(b, x->to, y, 5, class);
    }
    snprintf(class, sizeof class, "dot %s", v);
    if (isfinite(at) && fabs(at) <= x->hi)
        cm_svg_circle(b, cm_scale_at(x, at), y, m->gates ? 5 : 3.5, class, NULL);
    snprintf(name, sizeof name, "%s  %s", diff, ci);
    cm_svg_text(b, x->to + 12, y + 4, m->gates ? "" : "soft", "start", name);
    cm_svg_rect(b, 0, y - ROW / 2.0, WIDE, ROW, "hit", tip);
}

static bool drawn(const cm_metric_cmp *m) {
    return m->verdict != CM_VERDICT_SKIPPED && isfinite(m->diff);
}

/* Room for the longest name. */
static double left_of(const cm_pairing *p) {
    double left = 120;
    char name[160];
    for (int i = 0; i < p->n_metrics; i++) {
        cm_cell(&p->metric[i], CM_CELL_METRIC, name);
        left = fmax(left, 7.4 * (double)strlen(name) + 20);
    }
    return fmin(left, 440);
}

void cm_chart_forest(const cm_pairing *p, cm_buf *b) {
    int rows = 0;
    for (int i = 0; i < p->n_metrics; i++) rows += drawn(&p->metric[i]);
    if (!rows) return;
    double reach = reach_of(p), bottom = HEAD + ROW * rows, tick[CM_MAX_TICKS];
    cm_scale x = { -reach, reach, left_of(p), WIDE - RIGHT, false };
    cm_svg_open(b, WIDE, bottom + 44, "Differences with intervals");
    cm_svg_rect(b, x.from, HEAD, cm_scale_at(&x, -1) - x.from, bottom - HEAD, "band", NULL);
    int n = cm_scale_ticks(&x, 8, tick);
    for (int i = 0; i < n; i++) {
        double at = cm_scale_at(&x, tick[i]);
        char text[32];
        cm_svg_seg(b, at, HEAD, at, bottom, "grid");
        cm_svg_text(b, at, bottom + 16, "soft small", "middle", cm_tick_text(tick[i], text));
    }
    double zero = cm_scale_at(&x, 0), edge = cm_scale_at(&x, -1);
    cm_svg_seg(b, zero, HEAD - 14, zero, bottom, "zero");
    cm_svg_seg(b, edge, HEAD - 14, edge, bottom, "edge");
    cm_svg_text(b, edge - 4, HEAD - 4, "soft small", "end", "margin");
    cm_svg_text(b, zero + 4, HEAD - 4, "soft small", "start", "no change");
    cm_svg_text(b, x.from, bottom + 36, "soft", "start", "\xE2\x86\x90 worse");
    cm_svg_text(b, (x.from + x.to) / 2, bottom + 36, "soft", "middle",
                "difference in margins of each metric");
    cm_svg_text(b, x.to, bottom + 36, "soft", "end", "better \xE2\x86\x92");
    for (int i = 0, row = 0; i < p->n_metrics; i++)
        if (drawn(&p->metric[i])) forest_row(&p->metric[i], &x, HEAD + ROW * (row++ + 0.5), b);
    cm_svg_close(b);
}

/* ---- reliability ------------------------------------------------------------------ */

typedef struct {
    double n[CM_ECE_BINS], conf[CM_ECE_BINS], acc[CM_ECE_BINS], all;
} bins;

/* Items of all of a side's seeds, in the bins that ECE uses. */
static bool fill_bins(const cm_side *s, const char *task, bins *out) {
    *out = (bins){ 0 };
    for (int k = 0; k < s->n; k++) {
        const cm_task_result *t = cm_result_task(s->seed[k], task);
        const cm_column *c = t ? cm_task_column(t, "ece") : NULL;
        for (int64_t i = 0; c && i < t->n; i++) {
            if (c->v[i].den == 0 || isnan(c->conf[i])) continue;
            int at = (int)ceil(c->conf[i] * CM_ECE_BINS - 1e-9) - 1;
            at = at < 0 ? 0 : at >= CM_ECE_BINS ? CM_ECE_BINS - 1 : at;
            out->n[at]++, out->all++;
            out->conf[at] += c->conf[i];
            out->acc[at] += c->v[i].num;
        }
    }
    return out->all > 0;
}

static void draw_bins(const bins *d, const cm_scale *x, const cm_scale *y, int series,
                      const char *label, cm_buf *b) {
    double px[CM_ECE_BINS], py[CM_ECE_BINS];
    int k = 0;
    char class[24], tip[200];
    for (int i = 0; i < CM_ECE_BINS; i++)
        if (d->n[i] > 0) px[k] = d->conf[i] / d->n[i], py[k++] = d->acc[i] / d->n[i];
    snprintf(class, sizeof class, "s%d", series % CM_N_SERIES);
    cm_svg_line(b, x, y, px, py, k, class);
    snprintf(class, sizeof class, "dot s%d", series % CM_N_SERIES);
    for (int i = 0; i < CM_ECE_BINS; i++) {
        if (!(d->n[i] > 0)) continue;
        double conf = d->conf[i] / d->n[i], acc = d->acc[i] / d->n[i];
        snprintf(tip, sizeof tip, "%.80s: %.0f items said %.1f%% sure, %.1f%% right", label,
                 d->n[i], 100 * conf, 100 * acc);
        cm_svg_circle(b, cm_scale_at(x, conf), cm_scale_at(y, acc),
                      3 + 9 * sqrt(d->n[i] / d->all), class, tip);
    }
}

bool cm_chart_reliability(const cm_report *r, const int *side, int n, const char *task,
                          cm_buf *b) {
    bins d[CM_N_SERIES];
    const char *name[CM_N_SERIES];
    bool any = false;
    n = n < CM_N_SERIES ? n : CM_N_SERIES;
    for (int i = 0; i < n; i++) {
        any |= fill_bins(&r->side[side[i]], task, &d[i]);
        name[i] = cm_base_name(r->side[side[i]].label);
    }
    if (!any) return false;
    cm_scale x = { 0, 1, 52, 352, false }, y = { 0, 1, 350, 50, false };
    cm_svg_open(b, 372, 394, "Reliability: share of right answers by confidence");
    cm_svg_axes(b, &x, &y, "confidence", "right");
    cm_svg_seg(b, x.from, y.from, x.to, y.to, "diag");
    for (int i = 0; i < n; i++)
        if (d[i].all > 0) draw_bins(&d[i], &x, &y, i, name[i], b);
    cm_svg_legend(b, x.from, 16, 300, name, n);
    cm_svg_close(b);
    return true;
}

/* ---- divergence from the reference model --------------------------------------------- */

enum { KL_BINS = 36 };

/* Nats per token of each item, rounding errors as 0; free().  Those without the score are
 * left out. */
static double *divergences(const cm_side *s, const char *task, int64_t *n) {
    *n = 0;
    const cm_task_result *t = cm_result_task(s->seed[0], task);
    const cm_column *c = t ? cm_task_column(t, "kl") : NULL;
    double *v = c ? malloc((size_t)t->n * sizeof *v) : NULL;
    for (int64_t i = 0; v && i < t->n; i++)
        if (c->v[i].den > 0) {
            double kl = c->v[i].num / c->v[i].den;
            v[(*n)++] = kl < 1e-12 ? 0 : kl;
        }
    return v;
}

static void draw_kl(const double *v, int64_t n, const cm_scale *x, const cm_scale *y,
                    int series, const char *label, cm_buf *b) {
    double count[KL_BINS] = { 0 }, wide = (x->to - x->from) / KL_BINS;
    char class[24], tip[200];
    for (int64_t i = 0; i < n; i++) {
        int at = (int)((cm_scale_at(x, v[i]) - x->from) / wide);
        count[at < KL_BINS ? at : KL_BINS - 1]++;
    }
    snprintf(class, sizeof class, "bar s%d", series % CM_N_SERIES);
    for (int k = 0; k < KL_BINS; k++) {
        double from = x->lo * pow(x->hi / x->lo, (double)k / KL_BINS);
        double to = x->lo * pow(x->hi / x->lo, (k + 1.0) / KL_BINS);
        double top = cm_scale_at(y, count[k] / (double)n);
        if (k) snprintf(tip, sizeof tip, "%.80s: %.0f items between %.3g and %.3g nats", label,
                        count[k], from, to);
        else snprintf(tip, sizeof tip, "%.80s: %.0f items of at most %.3g nats", label, count[k],
                      to);
        if (count[k] > 0)
            cm_svg_rect(b, x->from + k * wide + 0.5, top, wide - 1, y->from - top, class, tip);
    }
}

bool cm_chart_kl(const cm_report *r, const int *side, int n, const char *task, cm_buf *b) {
    double *v[CM_N_SERIES], lo = INFINITY, hi = 0, most = 0;
    int64_t count[CM_N_SERIES];
    const char *name[CM_N_SERIES];
    bool none = false;
    n = n < CM_N_SERIES ? n : CM_N_SERIES;
    for (int i = 0; i < n; i++) {
        v[i] = divergences(&r->side[side[i]], task, &count[i]);
        name[i] = cm_base_name(r->side[side[i]].label);
        for (int64_t k = 0; k < count[i]; k++) {
            hi = fmax(hi, v[i][k]);
            if (v[i][k] > 0) lo = fmin(lo, v[i][k]);
            else none = true;
        }
    }
    if (hi > 0) {
        if (none) lo /= 10; /* zeros stand at the edge, apart from the rest */
        cm_scale x = cm_scale_nice(lo, hi, true, 52, 552, 6);
        for (int i = 0; i < n; i++) { /* the fullest bin sets the height */
            double bin[KL_BINS] = { 0 };
            for (int64_t k = 0; k < count[i]; k++) {
                int at = (int)((cm_scale_at(&x, v[i][k]) - x.from) / (x.to - x.from) * KL_BINS);
                double *c = &bin[at < KL_BINS ? at : KL_BINS - 1];
                most = fmax(most, ++*c / (double)count[i]);
            }
        }
        cm_scale y = cm_scale_nice(0, most, false, 280, 50, 5);
        cm_svg_open(b, 572, 324, "Divergence from the reference model, by item");
        cm_svg_axes(b, &x, &y, "nats per token", "share of items");
        for (int i = 0; i < n; i++)
            if (count[i]) draw_kl(v[i], count[i], &x, &y, i, name[i], b);
        cm_svg_legend(b, x.from, 16, 500, name, n);
        cm_svg_close(b);
    }
    for (int i = 0; i < n; i++) free(v[i]);
    return hi > 0;
}
