/* text.c -- a comparison on a terminal, and as Markdown for a pull request. */
#include "report/report_int.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- terminal -------------------------------------------------------------------- */

static void pad(cm_buf *b, const char *s, int width, bool right) {
    int n = (int)strlen(s), fill = width > n ? width - n : 0;
    if (right) cm_buf_addf(b, "%*s%s", fill, "", s);
    else cm_buf_addf(b, "%s%*s", s, fill, "");
}

static void text_table(const cm_pairing *p, cm_buf *b) {
    int width[CM_N_CELLS];
    char cell[160];
    for (int c = 0; c < CM_N_CELLS; c++) {
        width[c] = (int)strlen(cm_cell_title[c]);
        for (int i = 0; i < p->n_metrics; i++) {
            cm_cell(&p->metric[i], c, cell);
            width[c] = (int)strlen(cell) > width[c] ? (int)strlen(cell) : width[c];
        }
    }
    for (int i = -1; i < p->n_metrics; i++) {
        for (int c = 0; c < CM_N_CELLS; c++) {
            if (i >= 0) cm_cell(&p->metric[i], c, cell);
            cm_buf_addf(b, c ? "  " : "");
            pad(b, i < 0 ? cm_cell_title[c] : cell, c == CM_CELL_VERDICT ? 0 : width[c],
                c > 0 && c < CM_CELL_VERDICT);
        }
        cm_buf_addf(b, "\n");
    }
}

static void text_perf(const cm_pairing *p, cm_buf *b) {
    for (int i = 0; i < p->n_perf; i++) {
        const cm_perf_cmp *m = &p->perf[i];
        char t[32];
        cm_buf_addf(b, "%s  A %.5g  B %.5g  B/A %.4f [%.4f, %.4f]  p %s  %s: %s\n", m->name,
                    m->base, m->cand, m->ratio, m->lo, m->hi, cm_show_p(m->p, t),
                    cm_verdict_text(m->verdict), m->reason);
    }
}

static void text_pair(const cm_report *r, int i, cm_buf *b) {
    const cm_pairing *p = &r->cmp->pair[i];
    cm_buf_addf(b, "\nA = %s\nB = %s\n", p->base, p->cand);
    if (r->cmp->n > 1) cm_buf_addf(b, "%s: %s\n", cm_verdict_text(p->verdict), p->reason);
    if (p->n_metrics) text_table(p, b);
    text_perf(p, b);
    for (int k = 0; k < p->n_flips; k++) {
        const cm_flips *f = &p->flips[k];
        char win[120];
        cm_buf_addf(b, "%s items: %lld worse, %lld better, %lld the same%s\n", f->task,
                    (long long)f->n_lost, (long long)f->n_gained, (long long)f->n_same,
                    cm_win_text(p, f, win));
    }
    for (int k = 0; k < p->n_metrics; k++)
        if (p->metric[k].gates && p->metric[k].verdict != CM_VERDICT_PASS)
            cm_buf_addf(b, "%s %s: %s\n", p->metric[k].task, p->metric[k].metric->name,
                        p->metric[k].reason);
    for (int k = 0; k < p->n_notes; k++) cm_buf_addf(b, "note: %s\n", p->note[k]);
}

void cm_report_text(const cm_report *r, cm_buf *b) {
    char *line = cm_verdict_line(r);
    cm_buf_addf(b, "%s\n", line);
    free(line);
    for (int i = 0; r->cmp && i < r->cmp->n; i++) text_pair(r, i, b);
}

/* ---- Markdown ---------------------------------------------------------------------- */

/* One line of Markdown and HTML at once: what would be markup is written as entities. */
static void md_text(cm_buf *b, const char *s) {
    for (unsigned char last = 0; *s; last = (unsigned char)*s++) {
        unsigned char c = (unsigned char)*s;
        bool inside_word = isalnum(last) && isalnum((unsigned char)s[1]);
        if (c == '\n' || c == '\r') cm_buf_add(b, " ", 1);
        else if (c < ' ' || c == 0x7f) continue;
        else if (c == '_' && inside_word) cm_buf_add(b, s, 1); /* is no emphasis */
        else if (strchr("&<>|`*_[]\\~#@!", c)) cm_buf_addf(b, "&#%d;", c);
        else cm_buf_add(b, s, 1);
    }
}

static const char *mark(cm_verdict v) {
    static const char *const m[] = { "\xE2\x9C\x85", "\xE2\x9D\x8C", "\xE2\x9D\x94",
                                     "\xE2\x9E\x96" };
    return m[v];
}

static void md_row(const cm_metric_cmp *m, cm_buf *b) {
    char cell[160];
    for (int c = 0; c < CM_N_CELLS; c++) {
        cm_cell(m, c, cell);
        cm_buf_addf(b, "| ");
        if (c == CM_CELL_VERDICT) cm_buf_addf(b, "%s ", mark(m->verdict));
        if (c == CM_CELL_METRIC) md_text(b, cell); /* the others are numbers and our words */
        else cm_buf_addf(b, "%s", cell);
        cm_buf_addf(b, " ");
    }
    cm_buf_addf(b, "|\n");
}

/* The metrics that gate, or the others. */
static void md_table(const cm_pairing *p, bool gates, cm_buf *b) {
    int rows = 0;
    for (int i = 0; i < p->n_metrics; i++) {
        if (p->metric[i].gates != gates) continue;
        if (!rows++) {
            cm_buf_addf(b, gates ? "\n|" : "\n<details><summary>Metrics that do not gate"
                                           "</summary>\n\n|");
            for (int c = 0; c < CM_N_CELLS; c++) cm_buf_addf(b, " %s |", cm_cell_title[c]);
            cm_buf_addf(b, "\n|");
            for (int c = 0; c < CM_N_CELLS; c++)
                cm_buf_addf(b, c && c != CM_CELL_VERDICT ? "--:|" : "---|");
            cm_buf_addf(b, "\n");
        }
        md_row(&p->metric[i], b);
    }
    if (rows && !gates) cm_buf_addf(b, "\n</details>\n");
}

static void md_answer(cm_buf *b, const char *name, const char *text) {
    enum { LONGEST = 400 };
    if (!*text) return;
    size_t n = strlen(text) < LONGEST ? strlen(text) : LONGEST;
    while (n && n < strlen(text) && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
    char *cut = cm_strf("%.*s%s", (int)n, text, n < strlen(text) ? " ..." : "");
    cm_buf_addf(b, "  %s: ", name);
    md_text(b, cut);
    cm_buf_addf(b, "<br>\n");
    free(cut);
}

static void md_flips_of(const cm_flip *f, int64_t n, const cm_metric *m, const char *what,
                        cm_buf *b) {
    char x[40], y[40];
    if (!n) return;
    cm_buf_addf(b, "\n**%s: %lld**\n\n", what, (long long)n);
    for (int64_t i = 0; i < n && i < CM_FLIPS_SHOWN; i++) {
        cm_answer t = cm_answer_of(&f[i]);
        cm_buf_addf(b, "- ");
        md_text(b, f[i].id);
        if (m->kind != CM_METRIC_MEAN || f[i].base + f[i].cand != 1)
            cm_buf_addf(b, ": %s to %s", cm_show_value(m, f[i].base, x),
                        cm_show_value(m, f[i].cand, y));
        cm_buf_addf(b, "<br>\n");
        md_answer(b, "asked", t.asked);
        md_answer(b, "right", t.gold);
        md_answer(b, "A", t.base);
        md_answer(b, "B", t.cand);
        cm_answer_free(&t);
    }
}

static void md_flips(const cm_pairing *p, cm_buf *b) {
    for (int i = 0; i < p->n_flips; i++) {
        const cm_flips *f = &p->flips[i];
        if (!f->n_lost && !f->n_gained) continue;
        cm_buf_addf(b, "\n<details><summary>");
        md_text(b, f->task);
        char win[120];
        cm_buf_addf(b, ": %lld items worse, %lld better%s</summary>\n", (long long)f->n_lost,
                    (long long)f->n_gained, cm_win_text(p, f, win));
        md_flips_of(f->lost, f->n_lost, f->metric, "Worse in B", b);
        md_flips_of(f->gained, f->n_gained, f->metric, "Better in B", b);
        cm_buf_addf(b, "\n</details>\n");
    }
}

static void md_changes(const cm_pairing *p, cm_buf *b) {
    if (!p->n_changes) return;
    cm_buf_addf(b, "\n<details><summary>%d difference%s in configuration, lineage, build"
                   "</summary>\n\n| | A | B |\n|---|---|---|\n", p->n_changes,
                p->n_changes == 1 ? "" : "s");
    for (int i = 0; i < p->n_changes; i++) {
        const cm_change *c = &p->change[i];
        cm_buf_addf(b, "| %s.", c->section);
        md_text(b, c->key);
        cm_buf_addf(b, " | ");
        md_text(b, c->base ? c->base : "");
        cm_buf_addf(b, " | ");
        md_text(b, c->cand ? c->cand : "");
        cm_buf_addf(b, " |\n");
    }
    cm_buf_addf(b, "\n</details>\n");
}

static void md_perf(const cm_pairing *p, cm_buf *b) {
    if (!p->n_perf) return;
    cm_buf_addf(b, "\n| measurement | A | B | B / A | interval | margin | p | verdict |\n"
                   "|---|--:|--:|--:|--:|--:|--:|---|\n");
    for (int i = 0; i < p->n_perf; i++) {
        const cm_perf_cmp *m = &p->perf[i];
        char t[32];
        cm_buf_addf(b, "| ");
        md_text(b, m->name);
        cm_buf_addf(b, " | %.5g | %.5g | %.4f | %.4f to %.4f | %g%% | %s | %s %s |\n", m->base,
                    m->cand, m->ratio, m->lo, m->hi, 100 * m->margin, cm_show_p(m->p, t),
                    mark(m->verdict), cm_verdict_text(m->verdict));
    }
}

static void md_pair(const cm_pairing *p, cm_buf *b) {
    cm_buf_addf(b, "\nA: ");
    md_text(b, p->base);
    cm_buf_addf(b, ", B: ");
    md_text(b, p->cand);
    cm_buf_addf(b, "\n");
    md_table(p, true, b);
    for (int i = 0; i < p->n_metrics; i++) {
        const cm_metric_cmp *m = &p->metric[i];
        if (!m->gates || m->verdict == CM_VERDICT_PASS) continue;
        cm_buf_addf(b, "\n%s ", mark(m->verdict));
        md_text(b, m->task);
        cm_buf_addf(b, " ");
        md_text(b, m->metric->name);
        cm_buf_addf(b, ": ");
        md_text(b, m->reason);
        cm_buf_addf(b, "\n");
    }
    for (int i = 0; i < p->n_notes; i++) {
        cm_buf_addf(b, "\nnote: ");
        md_text(b, p->note[i]);
        cm_buf_addf(b, "\n");
    }
    md_perf(p, b);
    md_table(p, false, b);
    md_flips(p, b);
    md_changes(p, b);
}

void cm_report_md(const cm_report *r, cm_buf *b) {
    char *line = cm_verdict_line(r);
    cm_buf_addf(b, "### %s ", mark(r->cmp ? r->cmp->verdict : CM_VERDICT_FAIL));
    md_text(b, line);
    cm_buf_addf(b, "\n");
    free(line);
    for (int i = 0; r->cmp && i < r->cmp->n; i++) md_pair(&r->cmp->pair[i], b);
    if (!r->command) return;
    cm_buf_addf(b, "\n<details><summary>Command</summary>\n\n<pre>");
    md_text(b, r->command);
    cm_buf_addf(b, "</pre>\n</details>\n");
}
