/* report_test.c -- escaping, scales, and reports of one comparison in every format. */
#include "report/report.h"
#include "report/svg.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

/* ---- text and scales ---------------------------------------------------------- */

TEST(markup_is_escaped) {
    cm_buf b = { 0 };
    cm_xml_text(&b, "<a href=\"x\">'&\x01\x7f\t\xC3\xA9");
    CHECKF(!strcmp(b.s, "&lt;a href=&quot;x&quot;&gt;&#39;&amp;\t\xC3\xA9"), "%s", b.s);
    cm_buf_free(&b);
}

static void ticks_are(const cm_scale *s, int want, const char *expected) {
    double tick[CM_MAX_TICKS];
    char text[32];
    cm_buf b = { 0 };
    int n = cm_scale_ticks(s, want, tick);
    for (int i = 0; i < n; i++)
        cm_buf_addf(&b, "%s%s", i ? " " : "", cm_tick_text(tick[i], text));
    CHECKF(b.s && !strcmp(b.s, expected), "%s, wanted %s", b.s ? b.s : "", expected);
    cm_buf_free(&b);
}

TEST(scales_have_round_ticks) {
    cm_scale s = cm_scale_nice(0.13, 0.97, false, 0, 100, 5);
    ticks_are(&s, 5, "0 0.2 0.4 0.6 0.8 1");
    CHECK(cm_scale_at(&s, 0.5) == 50 && cm_scale_at(&s, 7) == 100 && cm_scale_at(&s, -7) == 0);
    s = cm_scale_nice(-3, 12345, false, 100, 0, 4);
    ticks_are(&s, 4, "-5000 0 5000 10k 15k");
    CHECK(cm_scale_at(&s, s.lo) == 100); /* y grows upwards */
    s = cm_scale_nice(0.003, 0.04, true, 0, 100, 5);
    ticks_are(&s, 5, "0.002 0.005 0.01 0.02 0.05");
    s = cm_scale_nice(1e-6, 100, true, 0, 100, 4);
    ticks_are(&s, 4, "1e-06 0.0001 0.01 1 100");
    s = cm_scale_nice(5, 5, false, 0, 100, 5); /* nothing to span */
    CHECK(s.lo < 5 && s.hi > 5 && isfinite(cm_scale_at(&s, 5)));
    s = cm_scale_nice(INFINITY, -INFINITY, true, 0, 100, 5);
    CHECK(isfinite(cm_scale_at(&s, 3)));
}

TEST(lines_have_gaps_where_nothing_is_known) {
    cm_scale x = { 0, 4, 0, 40, false }, y = { 0, 1, 10, 0, false };
    double at[] = { 0, 1, 2, 3, 4 }, v[] = { 0, 1, NAN, 1, 0 };
    cm_buf b = { 0 };
    cm_svg_line(&b, &x, &y, at, v, 5, "s0");
    CHECKF(strstr(b.s, "M0.0 10.0L10.0 0.0M30.0 0.0L40.0 10.0"), "%s", b.s);
    cm_buf_free(&b);
}

/* ---- a comparison made by hand: only how it is shown is looked at here ------------ */

typedef struct {
    cm_metric_cmp metric[3];
    cm_flip lost[1];
    cm_flips flips[1];
    cm_change change[1];
    char *note[1];
    cm_pairing pair;
    cm_comparison cmp;
    cm_report report;
} fixture;

static cm_metric_cmp row(const char *metric, bool gates, cm_verdict v) {
    cm_metric_cmp m = { .task = "quiz <1>", .metric = cm_metric_find(metric), .gates = gates,
                        .verdict = v, .n = 100, .groups = 100, .base = 0.75, .cand = 0.7,
                        .diff = -0.05, .stderr_ = 0.02, .lo = -0.09, .hi = -0.01, .margin = 0.02,
                        .bound = -0.083, .p = 0.004, .p_holm = 0.008, .p_bh = NAN, .p_margin = NAN,
                        .mde = 0.04, .n_needed = INFINITY, .flips = NAN, .sd_base = NAN };
    snprintf(m.margin_text, sizeof m.margin_text, "0.02");
    snprintf(m.reason, sizeof m.reason, "a loss & \"more\"");
    return m;
}

static void make(fixture *f) {
    *f = (fixture){ 0 };
    f->metric[0] = row("acc", true, CM_VERDICT_FAIL);
    f->metric[1] = row("brier", false, CM_VERDICT_FAIL);
    f->metric[2] = row("exact_match", true, CM_VERDICT_INCONCLUSIVE);
    f->lost[0] = (cm_flip){ .id = "i/<b>", .hash = "0123456789abcdef", .base = 1, .cand = 0,
        .base_margin = NAN, .cand_margin = NAN,
        .base_detail = "{\"prompt\":\"2 < 3?\",\"choices\":[\"yes|y\",\"no\"],\"right\":[0],"
                       "\"pred\":0}",
        .cand_detail = "{\"prompt\":\"2 < 3?\",\"choices\":[\"yes|y\",\"no\"],\"right\":[0],"
                       "\"loglik\":[-3,-1]}" };
    f->flips[0] = (cm_flips){ .task = "quiz", .metric = f->metric[0].metric, .n_lost = 1,
                              .lost = f->lost };
    f->change[0] = (cm_change){ "config", "eval.batch", "8", "<16>" };
    f->note[0] = "few & far";
    f->pair = (cm_pairing){ .base = "a", .cand = "b", .verdict = CM_VERDICT_FAIL, .n_metrics = 3,
                            .n_flips = 1, .n_changes = 1, .n_notes = 1, .metric = f->metric,
                            .flips = f->flips, .change = f->change, .note = f->note };
    snprintf(f->pair.reason, sizeof f->pair.reason, "1 of 2 lost");
    f->cmp = (cm_comparison){ .verdict = CM_VERDICT_FAIL, .code = CM_EXIT_CHECK, .alpha = 0.05,
                              .power = 0.8, .family = 2, .n = 1, .pair = &f->pair };
    f->report = (cm_report){ .cmp = &f->cmp, .command = "regress a b" };
}

static void has(const cm_buf *b, const char *part) {
    CHECKF(b->s && strstr(b->s, part), "lacks: %s", part);
}

TEST(text_is_a_table_under_the_verdict) {
    fixture f;
    cm_buf b = { 0 };
    make(&f);
    cm_report_text(&f.report, &b);
    CHECKF(!strncmp(b.s, "FAIL: 1 of 2 lost\n", 18), "%s", b.s);
    has(&b, "75.00%");
    has(&b, "-5.00 pp");
    has(&b, "[-9.00, -1.00]");
    has(&b, "2.00 pp");
    has(&b, "0.0080");
    has(&b, "note: few & far");
    cm_buf_free(&b);
}

TEST(html_keeps_foreign_text_text) {
    fixture f;
    cm_buf b = { 0 };
    make(&f);
    cm_report_html(&f.report, &b);
    has(&b, "quiz &lt;1&gt;");
    has(&b, "i/&lt;b&gt;");
    has(&b, "2 &lt; 3?");
    has(&b, "yes|y</div>");
    has(&b, "no</div>"); /* the candidate's likeliest choice */
    has(&b, "&lt;16&gt;");
    has(&b, "a loss &amp; &quot;more&quot;");
    CHECK(!strstr(b.s, "<1>") && !strstr(b.s, "<b>\"") && !strstr(b.s, "nan"));
    CHECK(!strstr(b.s, "<script") && !strstr(b.s, "href"));
    cm_buf_free(&b);
}

TEST(html_explains_itself) {
    fixture f;
    make(&f);
    cm_buf b = { 0 };
    cm_report_html(&f.report, &b);
    CHECK(strstr(b.s, "A, the baseline: <b>") && strstr(b.s, "How to read this"));
    CHECK(strstr(b.s, "title=\"minimum detectable effect: "));
    CHECK(strstr(b.s, ">metric</th><th title=\"PASS: "));
    CHECK(strstr(b.s, "B is worse than A in something that decides"));
    cm_buf_free(&b);
}

TEST(markdown_keeps_foreign_text_text) {
    fixture f;
    cm_buf b = { 0 };
    make(&f);
    cm_report_md(&f.report, &b);
    has(&b, "FAIL: 1 of 2 lost");
    has(&b, "quiz &#60;1&#62; acc");
    has(&b, "quiz &#60;1&#62; exact_match");
    has(&b, "asked: 2 &#60; 3?");
    has(&b, "right: yes&#124;y");
    cm_buf_free(&b);
}

TEST(junit_counts_by_verdict) {
    fixture f;
    cm_buf b = { 0 };
    make(&f);
    cm_report_junit(&f.report, &b);
    has(&b, "tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"2\"");
    has(&b, "<failure message=\"FAIL: a loss &amp; &quot;more&quot;\"/>");
    has(&b, "<skipped message=\"INCONCLUSIVE: ");
    cm_buf_free(&b);
    f.report.cmp = NULL;
    f.report.error = "other <items>";
    cm_report_junit(&f.report, &b);
    has(&b, "errors=\"1\"");
    has(&b, "<error message=\"other &lt;items&gt;\"/>");
    cm_buf_free(&b);
}

TEST(json_leaves_out_what_does_not_apply) {
    fixture f;
    cm_buf b = { 0 };
    make(&f);
    cm_report_json(&f.report, &b);
    cJSON *root = cJSON_Parse(b.s);
    CHECKF(root, "%s", b.s);
    const cJSON *pair = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "candidates"), 0);
    const cJSON *m = cJSON_GetArrayItem(cJSON_GetObjectItem(pair, "metrics"), 0);
    CHECK(cJSON_GetObjectItem(root, "exit")->valuedouble == 3);
    CHECK(m && cJSON_GetObjectItem(m, "p_holm")->valuedouble == 0.008);
    CHECK(!cJSON_GetObjectItem(m, "p_bh") && !cJSON_GetObjectItem(m, "flips"));
    CHECK(!strcmp(cJSON_GetObjectItem(m, "n_needed")->valuestring, "inf"));
    cJSON_Delete(root);
    cm_buf_free(&b);
}

TEST(a_format_by_its_ending) {
    cm_report_format f;
    cm_err e;
    CHECK(cm_report_format_of("x/y.html", &f, &e) && f == CM_REPORT_HTML);
    CHECK(cm_report_format_of("y.xml", &f, &e) && f == CM_REPORT_XML);
    CHECK(!cm_report_format_of(".html", &f, &e) && e.code == CM_EXIT_USAGE);
    CHECK(!cm_report_format_of("y.htm", &f, &e));
}

/* ---- runs ------------------------------------------------------------------------- */

static void write_run(const char *dir, const char *rows) {
    char *config = cm_strf("%s/config.yaml", dir), *metrics = cm_strf("%s/metrics.jsonl", dir);
    cm_err e = { 0 };
    CHECKF(cm_mkdirs(dir, &e) && cm_write_file(config, "seed: 1\n", 8, &e) &&
           cm_write_file(metrics, rows, strlen(rows), &e), "%s", e.msg);
    free(config), free(metrics);
}

TEST(curves_forget_what_a_run_rewound) {
    char *dir = cm_strf("%s/run", t_tmpdir());
    write_run(dir, "{\"step\":1,\"a\":5}\n{\"step\":2,\"a\":4}\n{\"step\":3,\"a\":9}\n"
                   "{\"step\":2}\n"
                   "{\"step\":2,\"a\":\"nan\"}\n{\"step\":3,\"a\":3,\"b\":1}\n{\"step\":4,\"a\"");
    cm_run_log r;
    cm_curve c;
    cm_err e = { 0 };
    CHECKF(cm_run_log_read(&r, dir, &e), "%s", e.msg);
    cm_run_curve(&r, "a", NULL, &c);
    CHECKF(c.n == 3 && c.x[1] == 2 && isnan(c.y[1]) && c.y[2] == 3, "%lld", (long long)c.n);
    cm_curve_free(&c);
    cm_run_curve(&r, "b", "a", &c);
    CHECK(c.n == 1 && c.x[0] == 3 && c.y[0] == 1);
    cm_curve_free(&c);
    cm_run_log_free(&r);
    CHECK(!cm_run_log_read(&r, t_tmpdir(), &e) && e.code == CM_EXIT_USAGE);
    write_run(dir, "{\"step\":1}\nbroken\n");
    CHECK(!cm_run_log_read(&r, dir, &e) && strstr(e.msg, ":2: not JSON"));
    free(dir);
}

TEST(expert_loads_are_averaged) {
    char *dir = cm_strf("%s/moe", t_tmpdir());
    write_run(dir, "{\"step\":1,\"moe/expert_load_layer\":[[0.5,1.5]]}\n{\"step\":2}\n"
                   "{\"step\":3,\"moe/expert_load_layer\":[[1,1]]}\n"
                   "{\"step\":4,\"moe/expert_load_layer\":[[0,2]]}\n"
                   "{\"step\":5,\"moe/expert_load_layer\":[[2,0]]}\n");
    cm_run_log r;
    cm_load_map m;
    cm_err e = { 0 };
    CHECK(cm_run_log_read(&r, dir, &e) && cm_run_loads(&r, 2, &m));
    CHECK(m.layers == 1 && m.experts == 2 && m.columns == 2);
    CHECK(m.load[0] == 0.75 && m.load[1] == 1 && m.load[2] == 1.25 && m.load[3] == 1);
    CHECK(m.step[0] == 3 && m.step[1] == 5);
    cm_load_map_free(&m);
    cm_run_log_free(&r);
    free(dir);
}
