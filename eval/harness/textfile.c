/* textfile.c -- a text file as one text and as tokens: plain or compressed, or JSON lines. */
#include "harness/harness.h"

#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *s, size_t n, const char *tail) {
    size_t k = strlen(tail);
    return n >= k && !memcmp(s + n - k, tail, k);
}

bool cm_text_is_jsonl(const char *path) {
    size_t n = strlen(path);
    if (ends_with(path, n, ".gz")) n -= 3;
    else if (ends_with(path, n, ".zst")) n -= 4;
    return ends_with(path, n, ".jsonl") || ends_with(path, n, ".ndjson");
}

bool cm_text_utf8(const char *s, size_t n, cm_err *err) {
    size_t bad;
    return cm_utf8_valid(s, n, &bad) ||
           cm_fail(err, CM_EXIT_DATA, "invalid UTF-8 at byte %zu of the document", bad);
}

static bool fits(const cm_buf *text, size_t more, cm_err *err) {
    return text->n + more < CM_TEXT_MOST ||
           cm_fail(err, CM_EXIT_FAIL, "the text is larger than the %zu bytes allowed here",
                   CM_TEXT_MOST);
}

static bool read_plain(cm_src *src, const char *path, cm_buf *out, cm_err *err) {
    char chunk[1 << 16];
    cm_err why;
    bool ok = true;
    for (size_t got = 1; ok && got;) {
        if (!cm_src_read(src, chunk, sizeof chunk, &got, err)) return false;
        ok = fits(out, got, &why);
        if (ok) cm_buf_add(out, chunk, got);
    }
    ok = ok && (!out->n || cm_text_utf8(out->s, out->n, &why));
    return ok || cm_fail(err, why.code, "%s: %s", path, why.msg);
}

bool cm_text_jsonl(cm_src *src, const char *path, const char *field, cm_text_fn each, void *ctx,
                   cm_err *err) {
    cm_buf text = {0};
    bool ok = true, end = false, more = true;
    while (ok && more) {
        cm_line line;
        cm_err why;
        ok = cm_src_line(src, (size_t)1 << 28, &line, &end, err);
        if (!ok || end) break;
        if (!line.n) continue;
        text.n = 0;
        cm_buf_add(&text, "", 0);
        ok = !line.too_long && cm_jsonl_field(line.s, line.n, field, &text, &why) &&
             cm_text_utf8(text.s, text.n, &why) && each(ctx, text.s, text.n, &more, &why);
        if (!ok)
            cm_fail(err, line.too_long ? CM_EXIT_DATA : why.code, "%s:%llu: %s", path,
                    (unsigned long long)line.number,
                    line.too_long ? "the line is longer than 256 MiB" : why.msg);
    }
    cm_buf_free(&text);
    return ok;
}

/* Documents end with a line break, which keeps the last word of one from the next. */
static bool append(void *ctx, const char *s, size_t n, bool *more, cm_err *err) {
    cm_buf *out = ctx;
    if (!fits(out, n, err)) return false;
    cm_buf_add(out, s, n);
    if (n && s[n - 1] != '\n') cm_buf_add(out, "\n", 1);
    *more = true;
    return true;
}

static bool read_text(const char *path, const char *field, cm_buf *out, cm_err *err) {
    cm_src *src = cm_src_open(path, err);
    if (!src) return false;
    bool ok = cm_text_is_jsonl(path) ? cm_text_jsonl(src, path, field, append, out, err)
                                     : read_plain(src, path, out, err);
    cm_src_close(src);
    return ok;
}

bool cm_text_tokens(const cm_spm *spm, const char *path, const char *field, int32_t **id,
                    int64_t *n, cm_err *err) {
    cm_buf text = {0};
    int64_t cap = 1 << 16;
    *n = 0;
    *id = NULL;
    if (!spm)
        return cm_fail(err, CM_EXIT_USAGE, "%s: the model has no tokenizer to read it with", path);
    bool ok = read_text(path, field, &text, err);
    if (ok) {
        if (text.n && text.s[text.n - 1] == '\n') text.n--;
        *id = malloc((size_t)cap * sizeof **id);
        CM_ASSERT(*id, "out of memory: tokens of %s", path);
        if (cm_spm_bos(spm) >= 0) (*id)[(*n)++] = cm_spm_bos(spm);
        ok = cm_spm_encode(spm, text.s ? text.s : "", text.n, id, n, &cap, err);
    }
    cm_buf_free(&text);
    return ok;
}
