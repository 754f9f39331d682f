/* plot.c -- curves of runs as a page or a picture; how much seeds of one recipe vary. */
#include "report/report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The charts of one metric: curves of all runs in one, or a heat map each. */
static bool charts_of(const cm_run_log *const *run, int n, const char *metric, const char *x,
                      cm_buf *chart, int *n_charts) {
    if (strcmp(metric, "moe/expert_load") && strcmp(metric, "moe/expert_load_layer"))
        return cm_chart_curves(run, n, metric, x, &chart[(*n_charts)++]);
    bool any = false;
    for (int i = 0; i < n; i++) any |= cm_chart_loads(run[i], &chart[(*n_charts)++]);
    return any;
}

static double number_after(const char *s, const char *key) {
    const char *at = s ? strstr(s, key) : NULL;
    return at ? strtod(at + strlen(key), NULL) : 0;
}

/* Charts below each other in one SVG that carries its own colours. */
static void stack(const cm_buf *chart, int n, cm_buf *out) {
    double wide = 0, high = 0;
    for (int i = 0; i < n; i++) {
        wide = fmax(wide, number_after(chart[i].s, " width=\""));
        high += number_after(chart[i].s, " height=\"");
    }
    cm_buf_addf(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    cm_svg_open(out, wide, high, "metrics of runs");
    cm_buf_addf(out, "<style>%s</style>\n<rect width=\"%g\" height=\"%g\" "
                     "style=\"fill:var(--page)\"/>\n", cm_chart_css, wide, high);
    for (double y = 0; n > 0; n--, chart++) {
        if (!chart->n) continue;
        cm_buf_addf(out, "<svg y=\"%g\"%s", y, chart->s + strlen("<svg"));
        y += number_after(chart->s, " height=\"");
    }
    cm_svg_close(out);
}

/* Which of the two names no run logged. */
static bool not_drawn(const cm_run_log *run, int n, const char *metric, const char *x,
                      cm_err *err) {
    bool logged = false;
    for (int i = 0; x && i < n; i++) {
        cm_curve c;
        cm_run_curve(&run[i], metric, NULL, &c);
        logged = logged || c.n > 0;
        cm_curve_free(&c);
    }
    if (logged)
        return cm_fail(err, CM_EXIT_USAGE, "--x %s: no run logged it beside %s; it takes a name "
                       "in metrics.jsonl (settings: regress table)", x, metric);
    return cm_fail(err, CM_EXIT_USAGE, "--metric %s: no run logged it", metric);
}

bool cm_plot(const cm_run_log *run, int n, const char *const *metric, int n_metrics,
             const char *x, bool html, cm_buf *out, cm_err *err) {
    const cm_run_log **r = calloc((size_t)n + 1, sizeof *r);
    int room = n_metrics * (n + 1), n_charts = 0;
    cm_buf *chart = calloc((size_t)room + 1, sizeof *chart);
    CM_ASSERT(r && chart, "out of memory: %d charts", room);
    for (int i = 0; i < n; i++) r[i] = &run[i];
    bool ok = true;
    for (int i = 0; ok && i < n_metrics; i++)
        ok = charts_of(r, n, metric[i], x, chart, &n_charts) ||
             not_drawn(run, n, metric[i], x, err);
    if (ok && html) {
        cm_page_open(out, "Metrics of runs");
        for (int i = 0; i < n_charts; i++)
            if (chart[i].n) cm_buf_addf(out, "<div class=\"chart\">\n%s</div>\n", chart[i].s);
        cm_page_close(out);
    } else if (ok) {
        stack(chart, n_charts, out);
    }
    for (int i = 0; i < n_charts; i++) cm_buf_free(&chart[i]);
    free(chart), free(r);
    return ok;
}

/* ---- noise between seeds ---------------------------------------------------------- */

typedef struct {
    double mean, sd, lo, hi, floor;
} spread;

static spread spread_of(const double *v, int n, double alpha) {
    spread s = { .lo = INFINITY, .hi = -INFINITY };
    for (int i = 0; i < n; i++) {
        s.mean += v[i] / n;
        s.lo = fmin(s.lo, v[i]);
        s.hi = fmax(s.hi, v[i]);
    }
    for (int i = 0; i < n; i++) s.sd += (v[i] - s.mean) * (v[i] - s.mean);
    s.sd = sqrt(s.sd / (n - 1));
    s.floor = cm_t_quantile(1 - alpha / 2, n - 1) * s.sd * sqrt(2);
    return s;
}

static void noise_row(const cm_task_result *t, const cm_metric *m, const spread *s, int n,
                      bool json, cm_buf *out) {
    if (!json) {
        char a[40], b[40], c[40], d[40], e[40];
        cm_buf_addf(out, "%s %s\t%s\t%s\t%s\t%s\t%s\n", t->name, m->name,
                    cm_show_value(m, s->mean, a), cm_show_size(m, s->sd, b),
                    cm_show_value(m, s->lo, c), cm_show_value(m, s->hi, d),
                    cm_show_size(m, s->floor, e));
        return;
    }
    cm_json_open(out, NULL, '{');
    cm_json_str(out, "task", t->name);
    cm_json_str(out, "metric", m->name);
    cm_json_i64(out, "seeds", n);
    cm_json_f64(out, "mean", s->mean);
    cm_json_f64(out, "sd", s->sd);
    cm_json_f64(out, "min", s->lo);
    cm_json_f64(out, "max", s->hi);
    cm_json_f64(out, "noise_floor", s->floor);
    cm_json_close(out, '{');
}

/* The metric's value in every seed; false where one lacks it. */
static bool values_of(const cm_result *const *seed, int n, const cm_task_result *t,
                      const cm_metric *m, double *v) {
    for (int i = 0; i < n; i++) {
        const cm_task_result *o = cm_result_task(seed[i], t->name);
        const cm_column *c = o ? cm_task_column(o, m->name) : NULL;
        if (!c || strcmp(o->items_hash, t->items_hash)) return false;
        v[i] = c->value;
    }
    return true;
}

bool cm_noise_table(const cm_result *const *seed, int n, double alpha, bool json, cm_buf *out,
                    cm_err *err) {
    if (n < 2)
        return cm_fail(err, CM_EXIT_USAGE, "noise needs at least two results of one recipe; "
                       "found %d", n);
    double *v = calloc((size_t)n, sizeof *v);
    CM_ASSERT(v, "out of memory: %d seeds", n);
    int rows = 0;
    if (json) cm_json_open(out, NULL, '[');
    else cm_buf_addf(out, "metric\tmean\tsd\tmin\tmax\tnoise floor\n");
    for (int k = 0; k < seed[0]->n_tasks; k++) {
        const cm_task_result *t = &seed[0]->task[k];
        for (int c = 0; c < t->n_columns; c++) {
            if (!values_of(seed, n, t, t->column[c].metric, v)) continue;
            spread s = spread_of(v, n, alpha);
            noise_row(t, t->column[c].metric, &s, n, json, out);
            rows++;
        }
    }
    if (json) cm_json_close(out, '[');
    if (json) cm_buf_add(out, "\n", 1);
    free(v);
    return rows > 0 || cm_fail(err, CM_EXIT_DATA, "%s and %s have no task with the same items in "
                               "common", seed[0]->path, seed[1]->path);
}
