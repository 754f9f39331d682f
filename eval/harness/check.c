/* check.c -- is a generated answer the reference?  Filters and checkers. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "harness/task_int.h"

static void trim(cm_buf *b) {
    size_t a = 0;
    while (b->n && isspace((unsigned char)b->s[b->n - 1])) b->n--;
    while (a < b->n && isspace((unsigned char)b->s[a])) a++;
    if (a) memmove(b->s, b->s + a, b->n - a);
    b->n -= a;
    if (b->s) b->s[b->n] = 0;
}

bool cm_filter_answer(const cm_regex *filter, bool last, const char *text, size_t n, cm_buf *out,
                      bool *found, cm_err *err) {
    const char *s = text;
    size_t len = n;
    out->n = 0;
    *found = true;
    if (filter && !cm_regex_find(filter, text, n, last, &s, &len, found, err)) return false;
    cm_buf_add(out, *found ? s : "", *found ? len : 0);
    trim(out);
    if (!filter) *found = out->n > 0;
    return true;
}

/* As lm-evaluation-harness's exact_match: what is to be ignored is deleted, in order. */
static bool normalise(const cm_eval_task *t, const char *text, size_t bytes, cm_buf *out,
                      cm_err *err) {
    const cm_task_conf *conf = t->c;
    out->n = 0;
    cm_buf_add(out, text, bytes);
    for (int i = 0; i < t->in->n_ignore; i++)
        if (!cm_regex_replace(t->in->ignore[i], "", out, err)) return false;
    size_t n = 0;
    for (size_t i = 0; i < out->n; i++) {
        unsigned char c = (unsigned char)out->s[i];
        if (conf->ignore_punctuation && c < 0x80 && ispunct(c)) continue;
        out->s[n++] = (char)(conf->ignore_case && c < 0x80 ? tolower(c) : c);
    }
    out->n = n;
    trim(out);
    return true;
}

/* "$1,234.50" and "12 %" as numbers. */
static bool number_of(const char *s, double *out) {
    char digits[64];
    size_t n = 0;
    for (; *s; s++) {
        if (strchr("$,%_ ", *s)) continue;
        if (n + 1 == sizeof digits) return false;
        digits[n++] = *s;
    }
    while (n && digits[n - 1] == '.') n--;
    digits[n] = 0;
    return cm_parse_f64(digits, out);
}

/* ---- the default world's answers ----------------------------------------------------- */

/* The next word at *p: letters, digits and apostrophes, lower case; articles are none. */
static bool next_word(const char **p, const char *end, char word[64]) {
    static const char *const empty[] = { "a", "an", "the", "some" };
    for (;;) {
        const char *s = *p;
        while (s < end && !isalnum((unsigned char)*s) && !((unsigned char)*s & 0x80)) s++;
        size_t n = 0;
        while (s < end && (isalnum((unsigned char)*s) || *s == '\'' || (unsigned char)*s & 0x80)) {
            if (n < 63) word[n++] = (char)tolower((unsigned char)*s);
            s++;
        }
        word[n] = 0;
        *p = s;
        if (!n) return false;
        bool skip = false;
        for (size_t i = 0; i < sizeof empty / sizeof *empty; i++)
            skip = skip || !strcmp(word, empty[i]);
        if (!skip) return true;
    }
}

bool cm_answer_stands(const char *got, const char *want, bool anywhere) {
    while (isspace((unsigned char)*got)) got++;
    const char *end = got + (anywhere ? strlen(got) : strcspn(got, ".!?\n"));
    const char *want_end = want + strlen(want);
    char a[64], b[64];
    for (const char *from = got; next_word(&from, end, a);) {
        const char *p = want, *q = from;
        int n = 0;
        bool same = true, more;
        strncpy(b, a, sizeof b);
        while (same && next_word(&p, want_end, a)) {
            more = n++ == 0 || next_word(&q, end, b);
            same = more && !strcmp(a, b);
        }
        if (same && n) return true;
    }
    return false;
}

bool cm_check_reference(const cm_eval_task *t, const char *want, cm_err *err) {
    cm_buf b = { 0 };
    double x;
    char word[64];
    bool ok = normalise(t, want, strlen(want), &b, err);
    const char *p = b.s;
    if (ok && t->c->checker == CM_CHECKER_NUMERIC && !number_of(b.s, &x))
        ok = cm_fail(err, CM_EXIT_DATA, "the reference '%.100s' is no number, so no answer could "
                     "be right (task.checker numeric)", b.s);
    bool words = t->c->checker == CM_CHECKER_WORLD || t->c->checker == CM_CHECKER_WORDS;
    if (ok && words && !next_word(&p, b.s + b.n, word))
        ok = cm_fail(err, CM_EXIT_DATA, "the reference '%.100s' has no word, so no answer could "
                     "be right (task.checker %s)", b.s,
                     t->c->checker == CM_CHECKER_WORLD ? "world" : "words");
    cm_buf_free(&b);
    return ok;
}

/* Zero bytes, which end no answer, part words as any other sign does. */
static bool words_stand(cm_buf *got, const char *want, bool anywhere) {
    for (size_t i = 0; i < got->n; i++)
        if (!got->s[i]) got->s[i] = ' ';
    return cm_answer_stands(got->s, want, anywhere);
}

bool cm_check_answer(const cm_eval_task *t, const cm_buf *got, const char *want, bool *same,
                     cm_err *err) {
    cm_buf a = { 0 }, b = { 0 };
    bool ok = normalise(t, got->s, got->n, &a, err) &&
              normalise(t, want, strlen(want), &b, err);
    double x, y;
    if (ok) {
        if (t->c->checker == CM_CHECKER_NUMERIC)
            *same = strlen(a.s) == a.n && number_of(a.s, &x) && number_of(b.s, &y) && x == y;
        else if (t->c->checker == CM_CHECKER_WORLD || t->c->checker == CM_CHECKER_WORDS)
            *same = words_stand(&a, b.s, t->c->checker == CM_CHECKER_WORDS);
        else
            *same = a.n == b.n && !memcmp(a.s, b.s, a.n);
    }
    cm_buf_free(&a);
    cm_buf_free(&b);
    return ok;
}
