/* html.c -- a comparison as one self-contained page. */
#include "report/report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* <TAG class>text</TAG> */
static void el(cm_buf *b, const char *tag, const char *class, const char *text) {
    cm_buf_addf(b, class ? "<%s class=\"%s\">" : "<%s>", tag, class);
    cm_xml_text(b, text);
    cm_buf_addf(b, "</%s>\n", tag);
}

static void banner(cm_buf *b, const char *class, const char *word, const char *reason) {
    cm_buf_addf(b, "<div class=\"banner %s\"><b>%s</b>", class, word);
    cm_xml_text(b, reason);
    cm_buf_addf(b, "</div>\n");
}

/* ---- for newcomers ------------------------------------------------------------- */

static const char *in_words(cm_verdict v) {
    static const char *const words[] = {
        "B is not worse than A by more than the margins allow.",
        ("B is worse than A in something that decides: beyond chance, and perhaps by more than "
         "its margin."),
        "Too little evidence: a loss beyond a margin is neither shown nor excluded.", "",
    };
    return words[v];
}

/* What a column means, as its tooltip. */
static const char *const column_help[CM_N_CELLS] = {
    "task and metric; grey ones are shown beside those that decide",
    "the baseline's value", "the candidate's value",
    "candidate less baseline, in the metric's own direction",
    "where the true difference lies, with the stated confidence",
    "chance of a loss at least as large as this one if nothing was lost",
    "the same, made stricter for looking at several metrics (Holm)",
    "the loss that is tolerated",
    ("minimum detectable effect: the smallest loss that a comparison of this size would find with "
     "the stated power"),
    ("PASS: a loss as large as the margin is excluded. FAIL: a loss is shown, and it may be that "
     "large. INCONCLUSIVE: neither"),
};

static void how_to_read(const cm_comparison *c, cm_buf *b) {
    cm_buf_addf(b, "<details><summary>How to read this</summary>\n<ul>\n"
        "<li><b>A</b> is the baseline, what we had; <b>B</b> is the candidate, what we would "
        "take instead. Both answered the same questions.</li>\n"
        "<li>The <b>margin</b> is the loss we would shrug off. <b>PASS</b>: with %g%% confidence "
        "less than the margin was lost. <b>FAIL</b>: something was lost, beyond chance, and it may "
        "be more than the margin. <b>INCONCLUSIVE</b>: too few questions to say either.</li>\n"
        "<li>Verdicts in capitals decide; grey rows never do, whatever they say.</li>\n"
        "<li>In the chart zero is no change and the red line the margin: an interval right of "
        "the line passes, one that reaches beyond it does not.</li>\n"
        "<li><b>MDE</b> (minimum detectable effect) says how good the comparison is, not the "
        "model: a loss of this size would have been found %g times in 100. Where it is far above "
        "the margin, ask more questions.</li>\n"
        "<li>Before arguing about p, read ten of the items that changed.</li>\n</ul></details>\n",
        100 * (1 - c->alpha), 100 * c->power);
}

/* ---- the table of metrics ------------------------------------------------------ */

/* A name; most readers take a plus for good, so what is better lower is marked. */
static void named(const char *tag, const char *class, const char *name, bool lower, cm_buf *b) {
    cm_buf_addf(b, "<%s class=\"%s\">", tag, class);
    cm_xml_text(b, name);
    if (lower)
        cm_buf_addf(b, " <span class=\"soft\" title=\"lower is better\">\xE2\x86\x93</span>");
    cm_buf_addf(b, "</%s>\n", tag);
}

static void metric_name(const cm_metric_cmp *m, const char *tag, const char *class, cm_buf *b) {
    char name[160];
    cm_cell(m, CM_CELL_METRIC, name);
    named(tag, class, name, !m->metric->higher && m->metric->judged, b);
}

/* The verdict stands beside the metric: a narrow screen cuts the rest off. */
static int column_at(int k) {
    return k == 0 ? CM_CELL_METRIC : k == 1 ? CM_CELL_VERDICT : k - 1;
}

/* Text in a verdict's colour. */
static void verdict_cell(const char *class, cm_verdict v, const char *text, cm_buf *b) {
    cm_buf_addf(b, "<td class=\"%s\"><span class=\"v %s\">", class, cm_verdict_class(v));
    cm_xml_text(b, text);
    cm_buf_addf(b, "</span></td>");
}

static void metric_row(const cm_metric_cmp *m, cm_buf *b) {
    char cell[160];
    cm_buf_addf(b, "<tr%s title=\"", m->gates ? "" : " class=\"side\"");
    cm_xml_text(b, m->reason);
    cm_buf_addf(b, "\">");
    for (int k = 0; k < CM_N_CELLS; k++) {
        int c = column_at(k);
        cm_cell(m, c, cell);
        if (c == CM_CELL_METRIC) metric_name(m, "td", "key", b);
        else if (c == CM_CELL_VERDICT) verdict_cell("key", m->verdict, cell, b);
        else el(b, "td", "n", cell);
    }
    cm_buf_addf(b, "</tr>\n");
}

static void metric_table(const cm_comparison *c, const cm_pairing *p, cm_buf *b) {
    cm_buf_addf(b, "<div class=\"wide\"><table><thead><tr>");
    for (int k = 0; k < CM_N_CELLS; k++) {
        int at = column_at(k);
        cm_buf_addf(b, "<th%s title=\"%s\">%s</th>", k > 1 ? " class=\"n\"" : "",
                    column_help[at], cm_cell_title[at]);
    }
    cm_buf_addf(b, "</tr></thead><tbody>\n");
    for (int i = 0; i < p->n_metrics; i++) metric_row(&p->metric[i], b);
    cm_buf_addf(b,
        "</tbody></table></div>\n<p class=\"soft small\">Intervals are two-sided at %g%%; p is "
        "one-sided, of \"no loss\". Holm p is adjusted over the %d deciding comparison%s; in grey "
        "rows, over all grey ones. MDE allows for the same. \xE2\x86\x93: lower is better, a plus "
        "is a loss. Hover over a row for its reason, over a title for what it means.</p>\n",
        100 * (1 - c->alpha), c->family, c->family == 1 ? "" : "s");
}

static void reason(cm_verdict v, const char *name, const char *text, cm_buf *b) {
    cm_buf_addf(b, "<li><span class=\"v %s\">%s</span> ", cm_verdict_class(v), cm_verdict_text(v));
    cm_xml_text(b, name);
    cm_buf_addf(b, ": ");
    cm_xml_text(b, text);
    cm_buf_addf(b, "</li>\n");
}

static void reasons(const cm_pairing *p, cm_buf *b) {
    cm_buf_addf(b, "<ul>\n");
    for (int i = 0; i < p->n_metrics; i++) {
        const cm_metric_cmp *m = &p->metric[i];
        char name[160];
        cm_cell(m, CM_CELL_METRIC, name);
        if (m->gates) reason(m->verdict, name, m->reason, b);
    }
    for (int i = 0; i < p->n_perf; i++)
        reason(p->perf[i].verdict, p->perf[i].name, p->perf[i].reason, b);
    for (int i = 0; i < p->n_notes; i++) el(b, "li", "soft", p->note[i]);
    cm_buf_addf(b, "</ul>\n");
}

/* ---- flips ---------------------------------------------------------------------- */

/* Which columns a list of items fills. */
typedef struct {
    bool group, asked, gold, said, score, margin;
} flip_columns;

static flip_columns columns_of(const cm_flip *f, const cm_answer *a, int64_t n) {
    flip_columns c = { 0 };
    for (int64_t i = 0; i < n; i++) {
        c.group |= f[i].group != NULL;
        c.asked |= *a[i].asked != 0;
        c.gold |= *a[i].gold != 0;
        c.said |= *a[i].base || *a[i].cand;
        c.score |= (f[i].base != 0 && f[i].base != 1) || (f[i].cand != 0 && f[i].cand != 1);
        c.margin |= isfinite(f[i].base_margin) && isfinite(f[i].cand_margin);
    }
    return c;
}

static void cell(cm_buf *b, bool shown, const char *class, const char *text) {
    if (!shown) return;
    cm_buf_addf(b, "<td><div class=\"%s\">", class);
    cm_xml_text(b, text);
    cm_buf_addf(b, "</div></td>");
}

static void flip_row(const cm_flip *f, const cm_answer *a, const cm_metric *m,
                     const flip_columns *c, cm_buf *b) {
    char x[40], y[40], margin[80], score[96];
    snprintf(score, sizeof score, "%s \xE2\x86\x92 %s", cm_show_value(m, f->base, x),
             cm_show_value(m, f->cand, y));
    snprintf(margin, sizeof margin, "%+.3g \xE2\x86\x92 %+.3g", f->base_margin, f->cand_margin);
    cm_buf_addf(b, "<tr>");
    cell(b, true, "mono", f->id);
    cell(b, c->group, "clip", f->group ? f->group : "");
    cell(b, c->asked, "clip", a->asked);
    cell(b, c->gold, "clip", a->gold);
    cell(b, c->said, "clip", a->base);
    cell(b, c->said, "clip", a->cand);
    cell(b, c->score, "num", score);
    cell(b, c->margin, "num", margin);
    cm_buf_addf(b, "</tr>\n");
}

static void flip_head(const flip_columns *c, cm_buf *b) {
    const struct { bool shown; const char *title; } head[] = {
        { true, "item" }, { c->group, "group" }, { c->asked, "asked" }, { c->gold, "right" },
        { c->said, "A said" }, { c->said, "B said" }, { c->score, "score" },
        { c->margin, "log-likelihood margin" },
    };
    cm_buf_addf(b, "<div class=\"wide\"><table><thead><tr>");
    for (size_t i = 0; i < sizeof head / sizeof head[0]; i++)
        if (head[i].shown) el(b, "th", NULL, head[i].title);
    cm_buf_addf(b, "</tr></thead><tbody>\n");
}

static void flip_list(const cm_flip *f, int64_t n, const cm_metric *m, const char *what,
                      cm_buf *b) {
    if (!n) return;
    int64_t shown = n < CM_FLIPS_SHOWN ? n : CM_FLIPS_SHOWN;
    cm_answer a[CM_FLIPS_SHOWN];
    for (int64_t i = 0; i < shown; i++) a[i] = cm_answer_of(&f[i]);
    flip_columns c = columns_of(f, a, shown);
    cm_buf_addf(b, "<details><summary>%s: %lld<span class=\"soft\">%s</span></summary>\n", what,
                (long long)n, shown < n ? "the 20 biggest changes" : "");
    flip_head(&c, b);
    for (int64_t i = 0; i < shown; i++) flip_row(&f[i], &a[i], m, &c, b);
    cm_buf_addf(b, "</tbody></table></div></details>\n");
    for (int64_t i = 0; i < shown; i++) cm_answer_free(&a[i]);
}

static void flips(const cm_pairing *p, cm_buf *b) {
    el(b, "h3", NULL, "Items that changed");
    for (int i = 0; i < p->n_flips; i++) {
        const cm_flips *f = &p->flips[i];
        cm_buf_addf(b, "<p><b>");
        cm_xml_text(b, f->task);
        char win[120];
        cm_buf_addf(b, "</b> <span class=\"soft\">by %s: %lld worse, %lld better, %lld the "
                       "same%s</span></p>\n", f->metric->name, (long long)f->n_lost,
                    (long long)f->n_gained, (long long)f->n_same, cm_win_text(p, f, win));
        flip_list(f->lost, f->n_lost, f->metric, "Worse in B", b);
        flip_list(f->gained, f->n_gained, f->metric, "Better in B", b);
    }
    if (!p->n_flips) el(b, "p", "soft", "None compared.");
}

/* ---- slices --------------------------------------------------------------------- */

static void slice_row(const cm_slice *s, const cm_metric *m, cm_buf *b) {
    char t[40];
    cm_buf_addf(b, "<tr>");
    el(b, "td", "any", s->group);
    cm_buf_addf(b, "<td class=\"n\">%lld</td>", (long long)s->n);
    el(b, "td", "n", cm_show_value(m, s->base, t));
    el(b, "td", "n", cm_show_value(m, s->cand, t));
    el(b, "td", "n", cm_show_diff(m, s->cand - s->base, t));
    cm_buf_addf(b, "</tr>\n");
}

/* The groups of a task at both ends: where most was lost, where most was gained. */
static void slices(const cm_report *r, int pair, cm_buf *b) {
    const cm_pairing *p = &r->cmp->pair[pair];
    for (int i = 0; i < p->n_metrics; i++) {
        const cm_metric_cmp *m = &p->metric[i];
        int n;
        cm_slice *s = m->gates ? cm_slices(r, pair, m, &n) : NULL;
        if (!s) continue;
        int end = n <= 16 ? n : 8;
        cm_buf_addf(b, "<details><summary>");
        cm_xml_text(b, m->task);
        cm_buf_addf(b, " by group<span class=\"soft\">%d groups, sorted by loss; one group is "
                       "few items: look, but do not conclude</span></summary>\n<div "
                       "class=\"wide\"><table><thead><tr><th>group</th><th class=\"n\">items"
                       "</th><th class=\"n\">A</th><th class=\"n\">B</th><th class=\"n\">"
                       "B - A</th></tr></thead><tbody>\n", n);
        for (int k = 0; k < end; k++) slice_row(&s[k], m->metric, b);
        if (n > 16)
            cm_buf_addf(b, "<tr class=\"side\"><td colspan=\"5\">%d more</td></tr>\n", n - 16);
        for (int k = n > 16 ? n - 8 : n; k < n; k++) slice_row(&s[k], m->metric, b);
        cm_buf_addf(b, "</tbody></table></div></details>\n");
        free(s);
    }
}

/* ---- charts ----------------------------------------------------------------------- */

/* A chart under its task's name; empties it. */
static void figure(cm_buf *b, const char *task, cm_buf *svg) {
    cm_buf_addf(b, "<figure><figcaption>");
    cm_xml_text(b, task);
    cm_buf_addf(b, "</figcaption>\n%s</figure>\n", svg->s);
    svg->n = 0;
}

static void charts(const cm_report *r, int pair, cm_buf *b) {
    if (!r->side) return;
    const int side[2] = { 0, pair + 1 };
    cm_buf c = { 0 };
    const cm_result *base = r->side[0].seed[0];
    for (int i = 0; i < base->n_tasks; i++) {
        const char *task = base->task[i].name;
        cm_buf one = { 0 };
        if (cm_chart_reliability(r, side, 2, task, &one)) figure(&c, task, &one);
        if (cm_chart_kl(r, side, 2, task, &one)) figure(&c, task, &one);
        cm_buf_free(&one);
    }
    if (c.n)
        cm_buf_addf(b, "<h3>Calibration and divergence</h3>\n<div class=\"pair\">\n%s</div>\n",
                    c.s);
    cm_buf_free(&c);
}

static void training(const cm_report *r, cm_buf *b) {
    static const char *const metric[] = { "train/loss", "val/loss", "val/bpb" };
    const cm_run_log **run = calloc((size_t)r->n_sides + 1, sizeof *run);
    CM_ASSERT(run, "out of memory: runs");
    int n = 0;
    for (int i = 0; r->run && i < r->n_sides; i++)
        if (r->run[i]) run[n++] = r->run[i];
    cm_buf c = { 0 };
    for (int k = 0; n && k < 3; k++) {
        cm_buf one = { 0 };
        if (cm_chart_curves(run, n, metric[k], NULL, &one))
            cm_buf_addf(&c, "<div class=\"chart\">%s</div>\n", one.s);
        cm_buf_free(&one);
    }
    for (int i = 0; i < n; i++) {
        cm_buf one = { 0 };
        if (cm_chart_loads(run[i], &one))
            cm_buf_addf(&c, "<div class=\"chart\">%s</div>\n", one.s);
        cm_buf_free(&one);
    }
    if (c.n) cm_buf_addf(b, "<h2>Training</h2>\n%s", c.s);
    cm_buf_free(&c);
    free(run);
}

/* ---- differences --------------------------------------------------------------------- */

static void change_table(const cm_pairing *p, const char *title, const char *const *section,
                         int n, cm_buf *b) {
    int rows = 0;
    el(b, "h3", NULL, title);
    for (int i = 0; i < p->n_changes; i++) {
        const cm_change *c = &p->change[i];
        bool in = false;
        for (int k = 0; k < n; k++) in |= !strcmp(c->section, section[k]);
        if (!in) continue;
        if (!rows++)
            cm_buf_addf(b, "<div class=\"wide\"><table><thead><tr><th></th><th>A</th><th>B</th>"
                           "</tr></thead><tbody>\n");
        cm_buf_addf(b, "<tr><td class=\"key mono\">%s.", c->section);
        cm_xml_text(b, c->key);
        cm_buf_addf(b, "</td>");
        el(b, "td", "any mono", c->base ? c->base : "");
        el(b, "td", "any mono", c->cand ? c->cand : "");
        cm_buf_addf(b, "</tr>\n");
    }
    cm_buf_addf(b, rows ? "</tbody></table></div>\n" : "<p class=\"soft\">No difference.</p>\n");
}

static void run_config(const cm_report *r, int pair, cm_buf *b) {
    if (!r->run || !r->run[0] || !r->run[pair + 1]) return;
    cm_buf diff = { 0 };
    if (cm_run_config_diff(r->run[0], r->run[pair + 1], &diff)) {
        cm_buf_addf(b, "<p>Training configuration (A -&gt; B)</p>\n");
        el(b, "pre", NULL, diff.s);
    }
    cm_buf_free(&diff);
}

static void perf(const cm_comparison *c, const cm_pairing *p, cm_buf *b) {
    if (!p->n_perf) return;
    el(b, "h3", NULL, "Performance");
    cm_buf_addf(b, "<div class=\"wide\"><table><thead><tr><th>measurement</th><th class=\"n\">A, "
                   "median</th><th class=\"n\">B, median</th><th class=\"n\">B / A</th><th "
                   "class=\"n\">interval</th><th class=\"n\">margin</th><th "
                   "class=\"n\">p</th><th class=\"n\">Holm p</th><th "
                   "class=\"n\">n</th><th>verdict</th></tr></thead><tbody>\n");
    for (int i = 0; i < p->n_perf; i++) {
        const cm_perf_cmp *m = &p->perf[i];
        char a[32], h[32];
        cm_buf_addf(b, "<tr title=\"");
        cm_xml_text(b, m->reason);
        cm_buf_addf(b, "\">");
        named("td", "key", m->name, !m->higher, b);
        cm_buf_addf(b, "<td class=\"n\">%.5g</td><td class=\"n\">%.5g</td><td class=\"n\">%.4f</td>"
                       "<td class=\"n\">[%.4f, %.4f]</td><td class=\"n\">%g%%</td>"
                       "<td class=\"n\">%s</td><td class=\"n\">%s</td><td class=\"n\">%d, %d</td>",
                    m->base, m->cand, m->ratio, m->lo, m->hi, 100 * m->margin,
                    cm_show_p(m->p, a), cm_show_p(m->p_holm, h), m->n_base, m->n_cand);
        verdict_cell("key", m->verdict, cm_verdict_text(m->verdict), b);
        cm_buf_addf(b, "</tr>\n");
    }
    cm_buf_addf(b, "</tbody></table></div>\n<p class=\"soft small\">B / A is the middle of all "
                   "ratios of two measurements, with its %g%% interval; p (Mann-Whitney) is "
                   "one-sided, of \"no loss\"; n: repetitions of A and of B.</p>\n",
                100 * (1 - c->alpha));
}

static void commands(const cm_report *r, cm_buf *b) {
    cm_buf c = { 0 };
    for (int i = 0; r->side && i < r->n_sides; i++)
        for (int k = 0; k < r->side[i].n; k++) {
            const char *cmd = cm_result_command(r->side[i].seed[k]);
            if (cmd) cm_buf_addf(&c, "%s\n", cmd);
        }
    if (r->command) cm_buf_addf(&c, "%s\n", r->command);
    if (c.n) {
        el(b, "h2", NULL, "Commands");
        el(b, "pre", NULL, c.s);
    }
    cm_buf_free(&c);
}

/* ---- the page ------------------------------------------------------------------------- */

static void section(const cm_report *r, int i, cm_buf *b) {
    static const char *const config[] = { "config" }, *const lineage[] = { "model", "data" };
    static const char *const build[] = { "build", "machine" };
    const cm_pairing *p = &r->cmp->pair[i];
    cm_buf_addf(b, "<section>\n<h2>");
    cm_xml_text(b, p->cand);
    cm_buf_addf(b, " <span class=\"soft\">against</span> ");
    cm_xml_text(b, p->base);
    cm_buf_addf(b, "</h2>\n");
    cm_buf_addf(b, "<p>A, the baseline: <b>");
    cm_xml_text(b, p->base);
    cm_buf_addf(b, "</b>. B, the candidate: <b>");
    cm_xml_text(b, p->cand);
    cm_buf_addf(b, "</b>.</p>\n");
    banner(b, cm_verdict_class(p->verdict), cm_verdict_text(p->verdict), p->reason);
    el(b, "p", NULL, in_words(p->verdict));
    if (!p->n_metrics) { /* measurements alone */
        perf(r->cmp, p, b);
        reasons(p, b);
        cm_buf_addf(b, "</section>\n");
        return;
    }
    how_to_read(r->cmp, b);
    metric_table(r->cmp, p, b);
    perf(r->cmp, p, b);
    cm_buf_addf(b, "<div class=\"chart\">\n");
    cm_chart_forest(p, b);
    cm_buf_addf(b, "</div>\n");
    reasons(p, b);
    flips(p, b);
    slices(r, i, b);
    charts(r, i, b);
    change_table(p, "Configuration", config, 1, b);
    run_config(r, i, b);
    change_table(p, "Lineage: model, tokenizer, data", lineage, 2, b);
    change_table(p, "Build and machine", build, 2, b);
    cm_buf_addf(b, "</section>\n");
}

/* Several candidates side by side: what decides, as differences from the baseline.  All pairs
 * have the baseline's metrics in the same order; of measurements, some may lack one. */
static void overview_head(const cm_pairing *p, cm_buf *b) {
    cm_buf_addf(b, "<div class=\"wide\"><table><thead><tr><th>candidate</th><th>verdict</th>");
    for (int i = 0; i < p->n_metrics; i++)
        if (p->metric[i].gates) metric_name(&p->metric[i], "th", "n", b);
    for (int i = 0; i < p->n_perf; i++)
        named("th", "n", p->perf[i].name, !p->perf[i].higher, b);
    cm_buf_addf(b, "</tr></thead><tbody>\n");
}

static void overview_row(const cm_pairing *p, const cm_pairing *first, cm_buf *b) {
    char t[160];
    cm_buf_addf(b, "<tr>");
    el(b, "td", "key", p->cand);
    verdict_cell("key", p->verdict, cm_verdict_text(p->verdict), b);
    for (int i = 0; i < p->n_metrics; i++) {
        if (!p->metric[i].gates) continue;
        cm_cell(&p->metric[i], CM_CELL_DIFF, t);
        verdict_cell("n", p->metric[i].verdict, t, b);
    }
    for (int i = 0; i < first->n_perf; i++) {
        const cm_perf_cmp *m = NULL;
        for (int k = 0; k < p->n_perf; k++)
            if (!strcmp(p->perf[k].name, first->perf[i].name)) m = &p->perf[k];
        snprintf(t, sizeof t, "%+.2f%%", m ? 100 * (m->ratio - 1) : 0);
        verdict_cell("n", m ? m->verdict : CM_VERDICT_SKIPPED, m ? t : "", b);
    }
    cm_buf_addf(b, "</tr>\n");
}

static void overview(const cm_comparison *c, cm_buf *b) {
    overview_head(&c->pair[0], b);
    for (int k = 0; k < c->n; k++) overview_row(&c->pair[k], &c->pair[0], b);
    cm_buf_addf(b, "</tbody></table></div>\n<p class=\"soft small\">Differences from the "
                   "baseline in what decides, coloured by their verdicts.</p>\n");
}

void cm_report_html(const cm_report *r, cm_buf *b) {
    char *line = cm_verdict_line(r);
    cm_page_open(b, line);
    el(b, "h1", NULL, "Comparison of evaluations");
    if (!r->cmp) banner(b, "fail", "NOT COMPARABLE", r->error ? r->error : "");
    else if (r->cmp->n > 1)
        banner(b, cm_verdict_class(r->cmp->verdict), cm_verdict_text(r->cmp->verdict),
               strchr(line, ':') + 1);
    if (r->cmp && r->cmp->n > 1) overview(r->cmp, b);
    for (int i = 0; r->cmp && i < r->cmp->n; i++) section(r, i, b);
    training(r, b);
    commands(r, b);
    cm_page_close(b);
    free(line);
}
