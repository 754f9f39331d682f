/* curves.c -- metrics over training, and the load of experts over training. */
#include "report/report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_POINTS = 700, STRIPS = 60 };

/* Long curves become means over equal numbers of rows. */
static void thin(cm_curve *c) {
    if (c->n <= MAX_POINTS) return;
    for (int64_t k = 0; k < MAX_POINTS; k++) {
        int64_t from = k * c->n / MAX_POINTS, to = (k + 1) * c->n / MAX_POINTS, in = 0;
        double sum = 0;
        for (int64_t i = from; i < to; i++)
            if (isfinite(c->y[i])) sum += c->y[i], in++;
        c->x[k] = c->x[to - 1];
        c->y[k] = in ? sum / (double)in : NAN;
    }
    c->n = MAX_POINTS;
}

/* Ranges over all curves; false where there is nothing to draw. */
static bool ranges(const cm_curve *c, int n, double x[2], double y[2]) {
    x[0] = y[0] = INFINITY, x[1] = y[1] = -INFINITY;
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < c[i].n; k++) {
            if (!isfinite(c[i].y[k])) continue;
            x[0] = fmin(x[0], c[i].x[k]), x[1] = fmax(x[1], c[i].x[k]);
            y[0] = fmin(y[0], c[i].y[k]), y[1] = fmax(y[1], c[i].y[k]);
        }
    return x[0] <= x[1];
}

/* Invisible columns whose hover text lists every curve's value there. */
static void hover_strips(const cm_curve *c, const cm_run_log *const *run, int n,
                         const cm_scale *x, const cm_scale *y, const char *x_name, cm_buf *b) {
    double wide = (x->to - x->from) / STRIPS;
    for (int s = 0; s < STRIPS; s++) {
        double mid = x->lo + (s + 0.5) / STRIPS * (x->hi - x->lo);
        cm_buf tip = { 0 };
        char num[32];
        cm_buf_addf(&tip, "%s %s", x_name, cm_tick_text(round(mid), num));
        for (int i = 0; i < n; i++) {
            int64_t k = 0;
            while (k + 1 < c[i].n && fabs(c[i].x[k + 1] - mid) <= fabs(c[i].x[k] - mid)) k++;
            if (c[i].n) cm_buf_addf(&tip, "\n%s: %.5g", run[i]->name, c[i].y[k]);
        }
        cm_svg_rect(b, x->from + s * wide, y->to, wide, y->from - y->to, "hit", tip.s);
        cm_buf_free(&tip);
    }
}

bool cm_chart_curves(const cm_run_log *const *run, int n, const char *metric, const char *x,
                     cm_buf *b) {
    cm_curve *c = calloc((size_t)n, sizeof *c);
    const char **name = calloc((size_t)n, sizeof *name);
    CM_ASSERT(c && name, "out of memory: %d curves", n);
    for (int i = 0; i < n; i++) {
        cm_run_curve(run[i], metric, x, &c[i]);
        thin(&c[i]);
        name[i] = run[i]->name;
    }
    double rx[2], ry[2];
    bool any = ranges(c, n, rx, ry);
    if (any) {
        cm_buf legend = { 0 };
        double below = cm_svg_legend(&legend, 56, 0, 700, name, n);
        bool log = ry[0] > 0 && ry[1] / ry[0] > 6;
        cm_scale sx = cm_scale_nice(rx[0], rx[1], false, 56, 756, 6);
        if (rx[1] > rx[0]) sx.lo = rx[0], sx.hi = rx[1];
        cm_scale sy = cm_scale_nice(ry[0], ry[1], log, 270, 40, 5);
        cm_svg_open(b, 776, 312 + below, metric);
        char title[200];
        snprintf(title, sizeof title, "%.160s%s", metric, log ? ", log scale" : "");
        cm_svg_text(b, 16, 18, "head", "start", title);
        cm_svg_axes(b, &sx, &sy, x ? x : "step", NULL);
        for (int i = 0; i < n; i++) {
            char class[24];
            cm_series_class(i, class);
            cm_svg_line(b, &sx, &sy, c[i].x, c[i].y, c[i].n, class);
            if (c[i].n == 1)
                cm_svg_circle(b, cm_scale_at(&sx, c[i].x[0]), cm_scale_at(&sy, c[i].y[0]), 4,
                              class, NULL);
        }
        hover_strips(c, run, n, &sx, &sy, x ? x : "step", b);
        cm_buf_addf(b, "<g transform=\"translate(0 324)\">%s</g>\n", legend.s);
        cm_svg_close(b);
        cm_buf_free(&legend);
    }
    for (int i = 0; i < n; i++) cm_curve_free(&c[i]);
    free(c), free(name);
    return any;
}

/* ---- experts ---------------------------------------------------------------------- */

enum { MAX_LAYERS = 12, MAX_CELLS = 6000 };

/* Less than its share in one colour, more in the other, stronger by factors up to four. */
static void load_cell(double load, double x, double y, double w, double h, int layer, int e,
                      double step, cm_buf *b) {
    double t = load > 0 ? log2(load) / 2 : -1;
    t = t < -1 ? -1 : t > 1 ? 1 : t;
    cm_buf_addf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"%s\" "
                   "fill-opacity=\"%.2f\"><title>layer %d, expert %d, step %.0f: %.2f of its "
                   "share</title></rect>\n", x, y, w, h, t < 0 ? "under" : "over", fabs(t),
                layer, e, step, load);
}

static void load_key(double x, double y, cm_buf *b) {
    static const char *const text[] = { "\xC2\xBC or less", "\xC2\xBD", "its share",
                                        "2\xC3\x97", "4\xC3\x97 or more" };
    for (int i = 0; i < 5; i++) {
        cm_svg_rect(b, x, y - 10, 14, 12, "cell0", NULL);
        cm_buf_addf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"12\" class=\"%s\" "
                       "fill-opacity=\"%.2f\"/>\n", x, y - 10, i < 2 ? "under" : "over",
                    fabs(i - 2.0) / 2);
        cm_svg_text(b, x + 19, y, "soft small", "start", text[i]);
        x += 34 + 7 * (double)strlen(text[i]);
    }
}

static void load_panel(const cm_load_map *m, int layer, double y, double cell, cm_buf *b) {
    double x = 76, wide = 680.0 / m->columns;
    char text[40];
    snprintf(text, sizeof text, "layer %d", layer);
    cm_svg_text(b, x - 8, y + cell * m->experts / 2 + 4, "soft small", "end", text);
    cm_svg_rect(b, x, y, 680, cell * m->experts, "cell0", NULL);
    for (int e = 0; e < m->experts; e++)
        for (int k = 0; k < m->columns; k++)
            load_cell(m->load[((int64_t)layer * m->experts + e) * m->columns + k], x + k * wide,
                      y + e * cell, wide, cell, layer, e, m->step[k], b);
}

bool cm_chart_loads(const cm_run_log *run, cm_buf *b) {
    cm_load_map m;
    if (!cm_run_loads(run, 1, &m)) return false;
    int shown = m.layers < MAX_LAYERS ? m.layers : MAX_LAYERS, columns;
    columns = MAX_CELLS / (shown * m.experts);
    columns = columns < 8 ? 8 : columns > 80 ? 80 : columns;
    cm_load_map_free(&m);
    cm_run_loads(run, columns, &m);
    double cell = fmin(14, fmax(2, 120.0 / m.experts)), panel = cell * m.experts + 8;
    double bottom = 48 + shown * panel;
    cm_svg_open(b, 776, bottom + 34, "Load of experts over training");
    char title[300], text[32];
    snprintf(title, sizeof title, "%.200s: tokens of each expert over its share", run->name);
    cm_svg_text(b, 16, 18, "head", "start", title);
    load_key(76, 38, b);
    for (int i = 0; i < shown; i++)
        load_panel(&m, (int)((int64_t)i * m.layers / shown), 48 + i * panel, cell, b);
    for (int i = 0; i <= 5; i++) {
        int k = i * (m.columns - 1) / 5;
        cm_svg_text(b, 76 + 680.0 * (k + 0.5) / m.columns, bottom + 8, "soft small", "middle",
                    cm_tick_text(m.step[k], text));
        if (m.columns < 6) break;
    }
    cm_svg_text(b, 416, bottom + 26, "soft", "middle", "step");
    cm_svg_close(b);
    cm_load_map_free(&m);
    return true;
}
