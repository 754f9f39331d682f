/* format.c -- verdicts and cells of the table as words, the same in every kind of report. */
#include "report/report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *cm_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

double cm_gain(const cm_metric *m, double diff) { return m->higher ? diff : -diff; }

const char *cm_verdict_class(cm_verdict v) {
    static const char *const name[] = { "pass", "fail", "unsure", "none" };
    return name[v];
}

const char *cm_row_verdict(const cm_metric_cmp *m) {
    static const char *const quiet[] = { "pass", "fail", "inconclusive", "not compared" };
    if (!m->metric->judged) return "not judged";
    return m->gates ? cm_verdict_text(m->verdict) : quiet[m->verdict];
}

char *cm_verdict_line(const cm_report *r) {
    if (!r->cmp) return cm_strf("NOT COMPARABLE: %s", r->error ? r->error : "");
    const cm_comparison *c = r->cmp;
    const char *word = cm_verdict_text(c->verdict);
    if (c->n == 1) return cm_strf("%s: %s", word, c->pair[0].reason);
    int count[4] = { 0 };
    for (int i = 0; i < c->n; i++) count[c->pair[i].verdict]++;
    return cm_strf("%s: of %d candidates %d pass, %d fail, %d inconclusive", word, c->n,
                   count[CM_VERDICT_PASS], count[CM_VERDICT_FAIL],
                   count[CM_VERDICT_INCONCLUSIVE]);
}

const char *cm_result_command(const cm_result *r) {
    const cJSON *perf = cJSON_GetObjectItemCaseSensitive(r->root, "perf");
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(perf, "command"));
}

/* ---- the table of metrics ---------------------------------------------------- */

const char *const cm_cell_title[CM_N_CELLS] = {
    "metric", "A", "B", "B - A", "interval", "p", "Holm p", "margin", "MDE", "verdict",
};

void cm_cell(const cm_metric_cmp *m, int cell, char buf[160]) {
    char t[96];
    size_t n = strlen(m->margin_text);
    const char *s = "";
    switch (cell) {
    case CM_CELL_METRIC: snprintf(buf, 160, "%s %s", m->task, m->metric->name); return;
    case CM_CELL_A: s = cm_show_value(m->metric, m->base, t); break;
    case CM_CELL_B: s = cm_show_value(m->metric, m->cand, t); break;
    case CM_CELL_DIFF: s = cm_show_diff(m->metric, m->diff, t); break;
    case CM_CELL_CI: s = cm_show_interval(m->metric, m->lo, m->hi, t); break;
    case CM_CELL_P: s = cm_show_p(m->p, t); break;
    case CM_CELL_HOLM: s = cm_show_p(m->p_holm, t); break;
    case CM_CELL_MARGIN:
        s = n && m->margin_text[n - 1] == '%' ? m->margin_text
                                              : cm_show_size(m->metric, m->margin, t);
        break;
    case CM_CELL_MDE: s = cm_show_size(m->metric, m->mde, t); break;
    default: s = cm_row_verdict(m);
    }
    snprintf(buf, 160, "%s", s);
}

const char *cm_win_text(const cm_pairing *p, const cm_flips *f, char buf[120]) {
    char range[40] = "";
    *buf = 0;
    for (int i = 0; i < p->n_metrics; i++) {
        const cm_metric_cmp *m = &p->metric[i];
        if (strcmp(m->task, f->task) || m->metric != f->metric || isnan(m->win_rate)) continue;
        if (!isnan(m->win_lo)) snprintf(range, sizeof range, " [%.3f, %.3f]", m->win_lo, m->win_hi);
        snprintf(buf, 120, "; win rate %.3f%s, ties one half", m->win_rate, range);
    }
    return buf;
}
