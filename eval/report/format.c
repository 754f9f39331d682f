/* format.c -- numbers and verdicts as words, the same in every kind of report. */
#include "report/report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *cm_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static bool is_share(const cm_metric *m) { return !strcmp(m->unit, "share"); }

/* Five significant digits, but never more decimals than a person reads. */
static const char *plain(double v, const char *sign, char buf[40]) {
    double a = fabs(v);
    const char *fmt = a == 0 ? "%s0" : a >= 1e6 || a < 1e-4 ? "%s%.4g" : a >= 1000 ? "%s%.1f"
                    : a >= 100 ? "%s%.2f" : a >= 10 ? "%s%.3f" : "%s%.4f";
    if (isnan(v)) snprintf(buf, 40, "-");
    else if (isinf(v)) snprintf(buf, 40, "%s", v > 0 ? "infinite" : "-infinite");
    else if (a == 0) snprintf(buf, 40, "0");
    else snprintf(buf, 40, fmt, v > 0 ? sign : "", v);
    return buf;
}

const char *cm_show_value(const cm_metric *m, double v, char buf[40]) {
    if (!is_share(m) || !isfinite(v)) return plain(v, "", buf);
    snprintf(buf, 40, "%.2f%%", 100 * v);
    return buf;
}

const char *cm_show_diff(const cm_metric *m, double v, char buf[40]) {
    if (!is_share(m) || !isfinite(v)) return plain(v, "+", buf);
    snprintf(buf, 40, v == 0 ? "0 pp" : "%+.2f pp", 100 * v);
    return buf;
}

const char *cm_show_interval(const cm_metric *m, double lo, double hi, char buf[96]) {
    char a[40], b[40];
    if (isnan(lo) || isnan(hi)) snprintf(buf, 96, "-");
    else if (is_share(m)) snprintf(buf, 96, "[%+.2f, %+.2f]", 100 * lo + 0.0, 100 * hi + 0.0);
    else snprintf(buf, 96, "[%s, %s]", plain(lo, "+", a), plain(hi, "+", b));
    return buf;
}

const char *cm_show_p(double p, char buf[32]) {
    if (isnan(p)) snprintf(buf, 32, "-");
    else if (p < 1e-16) snprintf(buf, 32, "<1e-16");
    else if (p < 1e-4) snprintf(buf, 32, "%.0e", p);
    else snprintf(buf, 32, "%.4f", p);
    return buf;
}

const char *cm_show_count(double n, char buf[32]) {
    if (isnan(n)) return "-";
    if (isinf(n)) return "no number";
    char raw[32];
    int len = snprintf(raw, sizeof raw, "%.0f", n), k = 0;
    for (int i = 0; i < len && k < 30; i++) {
        if (i && (len - i) % 3 == 0 && raw[i - 1] != '-') buf[k++] = ',';
        buf[k++] = raw[i];
    }
    buf[k] = 0;
    return buf;
}

double cm_gain(const cm_metric *m, double diff) { return m->higher ? diff : -diff; }

const char *cm_verdict_class(cm_verdict v) {
    static const char *const name[] = { "pass", "fail", "unsure", "none" };
    return name[v];
}

const char *cm_row_verdict(const cm_metric_cmp *m) {
    static const char *const quiet[] = { "pass", "fail", "inconclusive", "not compared" };
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

/* A size of loss: no sign. */
static const char *size_text(const cm_metric *m, double v, char buf[40]) {
    cm_show_diff(m, fabs(v), buf);
    if (*buf == '+') memmove(buf, buf + 1, strlen(buf));
    return buf;
}

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
                                              : size_text(m->metric, m->margin, t);
        break;
    case CM_CELL_MDE: s = size_text(m->metric, m->mde, t); break;
    default: s = cm_row_verdict(m);
    }
    snprintf(buf, 160, "%s", s);
}
