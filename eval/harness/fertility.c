/* fertility.c -- how many tokens a tokenizer spends on words of each script. */
#include "harness/harness.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const scripts[CM_N_SCRIPTS] = {
    "latin", "greek", "cyrillic", "hebrew", "arabic", "devanagari", "thai", "kana",
    "han",   "hangul", "other letters", "no letters",
};
static const struct {
    uint32_t lo, hi;
    int script;
} blocks[] = {
    { 'A', 'Z', 0 },          { 'a', 'z', 0 },          { 0xC0, 0x24F, 0 },
    { 0x370, 0x3FF, 1 },      { 0x400, 0x52F, 2 },      { 0x591, 0x5F4, 3 },
    { 0x610, 0x6FF, 4 },      { 0x750, 0x77F, 4 },      { 0x900, 0x963, 5 },
    { 0x970, 0x97F, 5 },      { 0xE01, 0xE4E, 6 },      { 0x1100, 0x11FF, 9 },
    { 0x1E00, 0x1EFF, 0 },    { 0x1F00, 0x1FFF, 1 },    { 0x3041, 0x30FF, 7 },
    { 0x3400, 0x4DBF, 8 },    { 0x4E00, 0x9FFF, 8 },    { 0xAC00, 0xD7A3, 9 },
    { 0x20000, 0x3FFFF, 8 },
    /* Everything else from U+0250 on that lies in a block of letters. */
    { 0x250, 0x36F, 10 },     { 0x530, 0x58F, 10 },     { 0x700, 0x74F, 10 },
    { 0x780, 0x8FF, 10 },     { 0x980, 0xE00, 10 },     { 0xE80, 0x10FF, 10 },
    { 0x1200, 0x1DFF, 10 },   { 0x2C00, 0x2DFF, 10 },   { 0xA000, 0xABFF, 10 },
};

const char *cm_script_name(int script) { return scripts[script]; }

int cm_script_of(uint32_t c) {
    if (c == 0xD7 || c == 0xF7) return -1; /* multiplication and division signs */
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (c >= blocks[i].lo && c <= blocks[i].hi) return blocks[i].script;
    return -1;
}

/* The code point at s (valid UTF-8) and its length. */
static uint32_t decode(const unsigned char *s, size_t *len) {
    *len = *s < 0x80 ? 1 : *s < 0xE0 ? 2 : *s < 0xF0 ? 3 : 4;
    uint32_t c = *len == 1 ? *s : *s & (0xFFu >> (*len + 1));
    for (size_t i = 1; i < *len; i++) c = c << 6 | (s[i] & 0x3F);
    return c;
}

/* Script of the first letter; none: the last one of the table. */
static int script_of_word(const char *s, size_t n) {
    for (size_t at = 0, len; at < n; at += len) {
        int script = cm_script_of(decode((const unsigned char *)s + at, &len));
        if (script >= 0) return script;
    }
    return CM_N_SCRIPTS - 1;
}

static int64_t count_chars(const char *s, size_t n) {
    int64_t chars = 0;
    for (size_t i = 0; i < n; i++) chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    return chars;
}

/* ---- one line ------------------------------------------------------------------------ */

typedef struct {
    const cm_spm *spm;
    const char *s;
    size_t n;
    const int32_t *id;
    int64_t n_id;
    size_t *at; /* [n_id + 1] where each token begins in the line */
} line;

/* Find the tokens in the line.  False where their bytes are not the line's (a tokenizer
 * that normalises, or an unknown piece). */
static bool align(line *l) {
    cm_buf bytes = { 0 };
    size_t skip = 0;
    for (int64_t i = 0; i < l->n_id; i++) {
        l->at[i] = bytes.n;
        cm_spm_token_bytes(l->spm, l->id[i], &bytes);
    }
    l->at[l->n_id] = bytes.n;
    if (cm_spm_add_dummy_prefix(l->spm) && bytes.n == l->n + 1 && bytes.s[0] == ' ') skip = 1;
    bool same = bytes.n == l->n + skip && (!l->n || !memcmp(bytes.s + skip, l->s, l->n));
    for (int64_t i = 0; i <= l->n_id; i++) l->at[i] -= l->at[i] >= skip ? skip : 0;
    cm_buf_free(&bytes);
    return same;
}

static void count_token(const line *l, int64_t i, cm_fertility *f) {
    cm_piece_type type;
    cm_spm_piece(l->spm, l->id[i], NULL, &type);
    f->tokens++;
    f->fallback += type == CM_PIECE_BYTE;
    f->unknown += type == CM_PIECE_UNKNOWN;
}

/* Words [from, to) with the white space before them; tokens that begin in that stretch are
 * the word's, and it is continued where more than one of them holds some of its bytes. */
static void count_words(const line *l, cm_fertility *whole, cm_fertility *script) {
    int64_t k = 0;
    for (size_t at = 0; at < l->n;) {
        size_t begin = at, from, own = 0;
        while (at < l->n && isspace((unsigned char)l->s[at])) at++;
        from = at;
        while (at < l->n && !isspace((unsigned char)l->s[at])) at++;
        /* Blanks at the very end make no word: they go to the line as a whole. */
        cm_fertility *f = from < at ? &script[script_of_word(l->s + from, at - from)] : NULL;
        for (; k < l->n_id && (l->at[k] < at || at == l->n); k++) {
            own += l->at[k + 1] > from;
            if (f) count_token(l, k, f);
        }
        if (!f) break;
        f->bytes += (int64_t)(at - begin);
        f->chars += count_chars(l->s + begin, at - begin);
        f->words++;
        f->continued += own > 1;
        whole->continued += own > 1;
    }
}

static bool round_trip(const line *l) {
    char *back = cm_spm_decode(l->spm, l->id, l->n_id);
    bool same = back && strlen(back) == l->n && !memcmp(back, l->s, l->n);
    free(back);
    return same;
}

static bool add_line(cm_fertility *whole, cm_fertility *script, line *l, int32_t **id,
                     int64_t *cap, cm_err *err) {
    l->n_id = 0;
    if (!cm_spm_encode(l->spm, l->s, l->n, id, &l->n_id, cap, err)) return false;
    l->id = *id;
    l->at = malloc((size_t)(l->n_id + 1) * sizeof *l->at);
    CM_ASSERT(l->at, "out of memory for a line of %zu bytes", l->n);
    whole->lines++;
    whole->bytes += (int64_t)l->n;
    whole->chars += count_chars(l->s, l->n);
    whole->words += cm_count_words(l->s, l->n);
    whole->changed += !round_trip(l);
    for (int64_t i = 0; i < l->n_id; i++) count_token(l, i, whole);
    if (align(l)) count_words(l, whole, script);
    free(l->at);
    return true;
}

bool cm_fertility_add(cm_fertility *whole, cm_fertility *script, const cm_spm *spm,
                      const char *text, size_t n, cm_err *err) {
    int32_t *id = NULL;
    int64_t cap = 0;
    bool ok = true;
    for (size_t at = 0; ok && at < n;) {
        const char *nl = memchr(text + at, '\n', n - at);
        size_t len = nl ? (size_t)(nl - text) - at : n - at;
        line l = { .spm = spm, .s = text + at, .n = len };
        ok = add_line(whole, script, &l, &id, &cap, err);
        at += len + 1;
    }
    free(id);
    return ok;
}

/* ---- report -------------------------------------------------------------------------- */

static double ratio(int64_t a, int64_t b) { return b ? (double)a / (double)b : NAN; }

static void row_json(cm_buf *b, const char *key, const cm_fertility *f, bool lines) {
    cm_json_open(b, key, '{');
    cm_json_i64(b, "words", f->words);
    cm_json_i64(b, "tokens", f->tokens);
    cm_json_i64(b, "bytes", f->bytes);
    cm_json_i64(b, "chars", f->chars);
    cm_json_f64(b, "tokens_per_word", ratio(f->tokens, f->words));
    cm_json_f64(b, "bytes_per_token", ratio(f->bytes, f->tokens));
    cm_json_f64(b, "chars_per_token", ratio(f->chars, f->tokens));
    cm_json_f64(b, "continued_words", ratio(f->continued, f->words));
    cm_json_f64(b, "byte_fallback", ratio(f->fallback, f->tokens));
    cm_json_f64(b, "unknown", ratio(f->unknown, f->tokens));
    if (lines) {
        cm_json_i64(b, "lines", f->lines);
        cm_json_i64(b, "lines_changed", f->changed);
    }
    cm_json_close(b, '{');
}

static void row_text(cm_buf *b, const char *name, const cm_fertility *f) {
    cm_buf_addf(b, "%-28s %10lld %8.3f %8.3f %8.3f %9.1f%% %8.2f%%", name,
                (long long)f->words, ratio(f->tokens, f->words), ratio(f->bytes, f->tokens),
                ratio(f->chars, f->tokens), 100 * ratio(f->continued, f->words),
                100 * ratio(f->fallback, f->tokens));
}

static void file_report(const char *path, const cm_fertility *whole,
                        const cm_fertility *script, bool json, cm_buf *b) {
    if (json) {
        cm_json_open(b, NULL, '{');
        cm_json_str(b, "file", path);
        row_json(b, "all", whole, true);
        cm_json_open(b, "scripts", '{');
        for (int k = 0; k < CM_N_SCRIPTS; k++)
            if (script[k].words) row_json(b, cm_script_name(k), &script[k], false);
        cm_json_close(b, '{');
        cm_json_close(b, '{');
        return;
    }
    row_text(b, path, whole);
    if (whole->changed) cm_buf_addf(b, "  %lld of %lld lines", (long long)whole->changed,
                                    (long long)whole->lines);
    else cm_buf_addf(b, "  none");
    cm_buf_addf(b, "\n");
    for (int k = 0; k < CM_N_SCRIPTS; k++) {
        if (!script[k].words) continue;
        char *name = cm_strf("  %s", cm_script_name(k));
        row_text(b, name, &script[k]);
        cm_buf_addf(b, "\n");
        free(name);
    }
}

static bool measure_file(const cm_spm *spm, const char *path, cm_fertility *whole,
                         cm_fertility *script, cm_err *err) {
    cm_src *src = cm_src_open(path, err);
    if (!src) return false;
    bool ok = true;
    for (bool end = false; ok;) {
        cm_line l;
        size_t bad;
        ok = cm_src_line(src, (size_t)1 << 28, &l, &end, err);
        if (!ok || end) break;
        if (l.too_long || !cm_utf8_valid(l.s, l.n, &bad))
            ok = cm_fail(err, CM_EXIT_DATA, "%s:%llu: %s", path, (unsigned long long)l.number,
                         l.too_long ? "the line is longer than 256 MiB" : "invalid UTF-8");
        else if (l.n) ok = cm_fertility_add(whole, script, spm, l.s, l.n, err);
    }
    cm_src_close(src);
    return ok && (whole->words || cm_fail(err, CM_EXIT_USAGE, "%s: holds no words", path));
}

bool cm_fertility_report(const cm_spm *spm, const char *const *path, int n, bool json,
                         cm_buf *out, cm_err *err) {
    bool ok = true;
    if (json) {
        cm_json_open(out, NULL, '{');
        cm_json_str(out, "tokenizer_sha256", cm_spm_hash(spm));
        cm_json_i64(out, "vocab_size", cm_spm_vocab(spm));
        cm_json_open(out, "files", '[');
    } else {
        cm_buf_addf(out, "%-28s %10s %8s %8s %8s %10s %9s  %s\n", "file and script", "words",
                    "tok/word", "byte/tok", "char/tok", "continued", "fallback", "changed");
    }
    for (int i = 0; ok && i < n; i++) {
        cm_fertility whole = { 0 }, script[CM_N_SCRIPTS] = { { 0 } };
        ok = measure_file(spm, path[i], &whole, script, err);
        if (ok) file_report(path[i], &whole, script, json, out);
    }
    if (json) {
        cm_json_close(out, '[');
        cm_json_close(out, '{');
        cm_buf_addf(out, "\n");
    }
    return ok;
}
