/* data.c -- a comparison for programs: JUnit XML, JSON; files by their ending. */
#include "report/report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- JUnit ------------------------------------------------------------------------ */

static void attribute(cm_buf *b, const char *name, const char *value) {
    cm_buf_addf(b, " %s=\"", name);
    cm_xml_text(b, value);
    cm_buf_addf(b, "\"");
}

static void testcase(cm_buf *b, const char *suite, const char *name, cm_verdict v,
                     const char *reason) {
    static const char *const element[] = { NULL, "failure", "skipped", "skipped" };
    cm_buf_addf(b, "    <testcase");
    attribute(b, "classname", suite);
    attribute(b, "name", name);
    cm_buf_addf(b, ">");
    if (element[v]) {
        char *message = cm_strf("%s: %s", cm_verdict_text(v), reason);
        cm_buf_addf(b, "<%s", element[v]);
        attribute(b, "message", message);
        cm_buf_addf(b, "/>");
        free(message);
    } else {
        cm_buf_addf(b, "<system-out>");
        cm_xml_text(b, reason);
        cm_buf_addf(b, "</system-out>");
    }
    cm_buf_addf(b, "</testcase>\n");
}

/* Metrics that do not gate are told, never counted as failures. */
static cm_verdict junit_verdict(const cm_metric_cmp *m) {
    return m->gates || m->verdict != CM_VERDICT_FAIL ? m->verdict : CM_VERDICT_SKIPPED;
}

static void suite(const cm_pairing *p, cm_buf *b) {
    int failures = 0, skipped = 0;
    for (int i = 0; i < p->n_metrics; i++) {
        cm_verdict v = junit_verdict(&p->metric[i]);
        failures += v == CM_VERDICT_FAIL;
        skipped += v == CM_VERDICT_INCONCLUSIVE || v == CM_VERDICT_SKIPPED;
    }
    for (int i = 0; i < p->n_perf; i++) {
        failures += p->perf[i].verdict == CM_VERDICT_FAIL;
        skipped += p->perf[i].verdict == CM_VERDICT_INCONCLUSIVE ||
                   p->perf[i].verdict == CM_VERDICT_SKIPPED;
    }
    char *name = cm_strf("%s against %s", p->cand, p->base);
    cm_buf_addf(b, "  <testsuite");
    attribute(b, "name", name);
    cm_buf_addf(b, " tests=\"%d\" failures=\"%d\" errors=\"0\" skipped=\"%d\">\n",
                p->n_metrics + p->n_perf, failures, skipped);
    for (int i = 0; i < p->n_metrics; i++) {
        const cm_metric_cmp *m = &p->metric[i];
        testcase(b, m->task, m->metric->name, junit_verdict(m), m->reason);
    }
    for (int i = 0; i < p->n_perf; i++)
        testcase(b, "performance", p->perf[i].name, p->perf[i].verdict, p->perf[i].reason);
    cm_buf_addf(b, "  </testsuite>\n");
    free(name);
}

void cm_report_junit(const cm_report *r, cm_buf *b) {
    cm_buf_addf(b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"regress\">\n");
    for (int i = 0; r->cmp && i < r->cmp->n; i++) suite(&r->cmp->pair[i], b);
    if (!r->cmp) {
        cm_buf_addf(b, "  <testsuite name=\"regress\" tests=\"1\" failures=\"0\" errors=\"1\" "
                       "skipped=\"0\">\n    <testcase classname=\"regress\" name=\"comparable\">"
                       "<error");
        attribute(b, "message", r->error ? r->error : "");
        cm_buf_addf(b, "/></testcase>\n  </testsuite>\n");
    }
    cm_buf_addf(b, "</testsuites>\n");
}

/* ---- JSON -------------------------------------------------------------------------- */

/* NaN means "does not apply": such members are left out. */
static void put(cm_buf *b, const char *key, double v) {
    if (!isnan(v)) cm_json_f64(b, key, v);
}

static void metric_json(const cm_metric_cmp *m, cm_buf *b) {
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "task", m->task);
    cm_json_str(b, "metric", m->metric->name);
    cm_json_bool(b, "gates", m->gates);
    cm_json_str(b, "verdict", cm_verdict_text(m->verdict));
    cm_json_str(b, "reason", m->reason);
    cm_json_i64(b, "n", m->n);
    cm_json_i64(b, "groups", m->groups);
#define X(f) put(b, #f, m->f);
    X(base) X(cand) X(diff)
    put(b, "stderr", m->stderr_);
    X(lo) X(hi)
    if (m->interval) cm_json_str(b, "interval", m->interval);
    X(boot_lo) X(boot_hi) X(margin)
    cm_json_str(b, "margin_text", m->margin_text);
    X(bound)
    if (m->test) cm_json_str(b, "test", m->test);
    X(p) X(p_holm) X(p_bh) X(p_margin) X(p_two) X(p_mid) X(p_perm) X(p_wilcoxon) X(e_loss)
    X(e_margin) X(mde) X(n_needed)
    cm_json_i64(b, "losses", m->losses);
    cm_json_i64(b, "gains", m->gains);
    X(flips) X(win_rate) X(win_lo) X(win_hi)
    cm_json_i64(b, "seeds_base", m->seeds_base);
    cm_json_i64(b, "seeds_cand", m->seeds_cand);
    X(sd_base) X(sd_cand) X(noise_floor) X(seeds_needed)
#undef X
    cm_json_close(b, '{');
}

static void flip_json(const char *key, const cm_flip *f, int64_t n, cm_buf *b) {
    cm_json_open(b, key, '[');
    for (int64_t i = 0; i < n && i < CM_FLIPS_SHOWN; i++) {
        cm_json_open(b, NULL, '{');
        cm_json_str(b, "id", f[i].id);
        if (f[i].group) cm_json_str(b, "group", f[i].group);
        cm_json_str(b, "hash", f[i].hash);
        put(b, "base", f[i].base);
        put(b, "cand", f[i].cand);
        put(b, "base_margin", f[i].base_margin);
        put(b, "cand_margin", f[i].cand_margin);
        if (f[i].base_detail) cm_json_raw(b, "base_detail", f[i].base_detail);
        if (f[i].cand_detail) cm_json_raw(b, "cand_detail", f[i].cand_detail);
        cm_json_close(b, '{');
    }
    cm_json_close(b, '[');
}

static void perf_json(const cm_perf_cmp *m, cm_buf *b) {
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "name", m->name);
    cm_json_str(b, "better", m->higher ? "higher" : "lower");
    cm_json_str(b, "verdict", cm_verdict_text(m->verdict));
    cm_json_str(b, "reason", m->reason);
    cm_json_i64(b, "n_base", m->n_base);
    cm_json_i64(b, "n_cand", m->n_cand);
#define X(f) put(b, #f, m->f);
    X(base) X(cand) X(ratio) X(lo) X(hi) X(bound) X(margin) X(u) X(p) X(p_holm) X(p_two)
#undef X
    cm_json_close(b, '{');
}

static void flips_json(const cm_pairing *p, cm_buf *b) {
    cm_json_open(b, "items", '[');
    for (int i = 0; i < p->n_flips; i++) {
        const cm_flips *f = &p->flips[i];
        cm_json_open(b, NULL, '{');
        cm_json_str(b, "task", f->task);
        cm_json_str(b, "metric", f->metric->name);
        cm_json_i64(b, "worse", f->n_lost);
        cm_json_i64(b, "better", f->n_gained);
        cm_json_i64(b, "same", f->n_same);
        flip_json("top_worse", f->lost, f->n_lost, b);
        flip_json("top_better", f->gained, f->n_gained, b);
        cm_json_close(b, '{');
    }
    cm_json_close(b, '[');
}

static void pair_json(const cm_pairing *p, cm_buf *b) {
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "base", p->base);
    cm_json_str(b, "cand", p->cand);
    cm_json_str(b, "verdict", cm_verdict_text(p->verdict));
    cm_json_str(b, "reason", p->reason);
    cm_json_bool(b, "same_model", p->same_model);
    cm_json_open(b, "metrics", '[');
    for (int i = 0; i < p->n_metrics; i++) metric_json(&p->metric[i], b);
    cm_json_close(b, '[');
    flips_json(p, b);
    cm_json_open(b, "perf", '[');
    for (int i = 0; i < p->n_perf; i++) perf_json(&p->perf[i], b);
    cm_json_close(b, '[');
    cm_json_open(b, "changes", '[');
    for (int i = 0; i < p->n_changes; i++) {
        const cm_change *c = &p->change[i];
        cm_json_open(b, NULL, '{');
        cm_json_str(b, "section", c->section);
        cm_json_str(b, "key", c->key);
        if (c->base) cm_json_str(b, "base", c->base);
        if (c->cand) cm_json_str(b, "cand", c->cand);
        cm_json_close(b, '{');
    }
    cm_json_close(b, '[');
    cm_json_open(b, "notes", '[');
    for (int i = 0; i < p->n_notes; i++) cm_json_str(b, NULL, p->note[i]);
    cm_json_close(b, '[');
    cm_json_close(b, '{');
}

void cm_report_json(const cm_report *r, cm_buf *b) {
    const cm_comparison *c = r->cmp;
    cm_json_open(b, NULL, '{');
    cm_json_i64(b, "schema", 1);
    cm_json_str(b, "kind", "regress");
    cm_json_str(b, "verdict", c ? cm_verdict_text(c->verdict) : "ERROR");
    cm_json_i64(b, "exit", c ? (int64_t)c->code : (int64_t)CM_EXIT_DATA);
    if (!c) cm_json_str(b, "error", r->error ? r->error : "");
    if (r->command) cm_json_str(b, "command", r->command);
    if (c) {
        cm_json_f64(b, "alpha", c->alpha);
        cm_json_f64(b, "power", c->power);
        cm_json_bool(b, "sequential", c->sequential);
        cm_json_i64(b, "family", c->family);
        cm_json_open(b, "candidates", '[');
        for (int i = 0; i < c->n; i++) pair_json(&c->pair[i], b);
        cm_json_close(b, '[');
    }
    cm_json_close(b, '{');
    cm_buf_add(b, "\n", 1);
}

/* ---- files --------------------------------------------------------------------------- */

bool cm_report_format_of(const char *path, cm_report_format *out, cm_err *err) {
    static const char *const ending[] = { ".html", ".md", ".json", ".xml" };
    size_t n = strlen(path);
    for (int i = 0; i < 4; i++) {
        size_t k = strlen(ending[i]);
        if (n > k && !strcmp(path + n - k, ending[i])) {
            *out = (cm_report_format)i;
            return true;
        }
    }
    return cm_fail(err, CM_EXIT_USAGE, "%s: a report ends in .html, .md, .json or .xml (JUnit)",
                   path);
}

bool cm_report_write(const cm_report *r, const char *path, cm_err *err) {
    static void (*const writer[])(const cm_report *, cm_buf *) = {
        cm_report_html, cm_report_md, cm_report_json, cm_report_junit,
    };
    cm_report_format f;
    if (!cm_report_format_of(path, &f, err)) return false;
    cm_buf b = { 0 };
    writer[f](r, &b);
    bool ok = cm_write_file(path, b.s, b.n, err);
    cm_buf_free(&b);
    return ok;
}
