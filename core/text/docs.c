/* docs.c -- inputs to documents: cut, check, hash, drop duplicates, choose the split.
 *
 * One thread reads in input order, so every decision here is independent of how many
 * threads encode.  A document is kept exactly as it is or rejected with file and line. */
#include "text/corpus_int.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RUN = 1 << 20 };

void cm_docs_open(cm_docs *d, const cm_tokenize_conf *c, char *const *path,
                  char *const *name, int n_path, int n_val, cm_out *rejects) {
    *d = (cm_docs){ .c = c, .path = path, .name = name, .n_path = n_path, .n_val = n_val,
                    .rejects = rejects };
    d->tally = calloc((size_t)n_path + 1, sizeof *d->tally);
    d->cap_seen = 1 << 12;
    d->seen = calloc(d->cap_seen, sizeof *d->seen);
    CM_ASSERT(d->tally && d->seen, "out of memory");
}

void cm_docs_close(cm_docs *d) {
    cm_src_close(d->src);
    cm_buf_free(&d->body);
    cm_talk_free(&d->talk);
    free(d->tally);
    free(d->seen);
    memset(d, 0, sizeof *d);
}

uint64_t cm_docs_pos(const cm_docs *d) {
    return d->pos_before + (d->src ? cm_src_pos(d->src) : 0);
}

/* ---- rejection ---- */

static void put_json_string(cm_buf *b, const char *s) {
    cm_buf_addf(b, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') cm_buf_addf(b, "\\%c", c);
        else if (c < 0x20 || c == 0x7f) cm_buf_addf(b, "\\u%04x", c);
        else cm_buf_add(b, s, 1);
    }
    cm_buf_addf(b, "\"");
}

static bool report(cm_docs *d, int source, uint64_t line, const char *code, const char *why,
                   cm_err *err) {
    if (!d->rejects) return true;
    cm_buf b = { 0 };
    cm_buf_addf(&b, "{\"file\": ");
    put_json_string(&b, d->name[source]);
    cm_buf_addf(&b, ", \"line\": %llu, \"reason\": ", (unsigned long long)line);
    put_json_string(&b, why);
    cm_buf_addf(&b, ", \"code\": \"%s\"}\n", code);
    bool ok = cm_out_write(d->rejects, b.s, b.n, err);
    cm_buf_free(&b);
    return ok;
}

bool cm_docs_reject(cm_docs *d, int source, uint64_t line, cm_reject reason,
                    const char *why, cm_err *err) {
    if (d->c->on_reject == CM_ON_REJECT_FAIL)
        return cm_fail(err, CM_EXIT_DATA, "%s:%llu: %s (tokenize.on_reject is fail)",
                       d->name[source], (unsigned long long)line, why);
    d->tally[source].reason[reason]++;
    if (d->tally[source].rejected++ < 3 && d->rejects)
        cm_log(CM_LOG_WARN, "%s:%llu: document rejected: %s", d->name[source],
               (unsigned long long)line, why);
    return report(d, source, line, cm_reject_name(reason), why, err);
}

bool cm_docs_truncated(cm_docs *d, int source, uint64_t line, const char *what,
                       cm_err *err) {
    d->tally[source].truncated++;
    return report(d, source, line, "truncated", what, err);
}

static bool reject(cm_docs *d, uint64_t line, cm_reject reason, const char *why,
                   cm_err *err) {
    return cm_docs_reject(d, d->at, line, reason, why, err);
}

/* ---- duplicates ---- */

static bool insert(uint8_t (*table)[16], size_t cap, const uint8_t h[16]) {
    static const uint8_t none[16];
    uint64_t k;
    memcpy(&k, h + 8, 8);
    for (size_t i = k & (cap - 1);; i = (i + 1) & (cap - 1)) {
        if (!memcmp(table[i], h, 16)) return false;
        if (memcmp(table[i], none, 16)) continue;
        memcpy(table[i], h, 16);
        return true;
    }
}

/* True the first time a hash is seen. */
bool cm_docs_new(cm_docs *d, const uint8_t h[16]) {
    if (2 * d->n_seen >= d->cap_seen) {
        uint8_t (*bigger)[16] = calloc(2 * d->cap_seen, sizeof *bigger);
        CM_ASSERT(bigger, "out of memory: %zu document hashes", d->n_seen);
        static const uint8_t none[16];
        for (size_t i = 0; i < d->cap_seen; i++)
            if (memcmp(d->seen[i], none, 16)) insert(bigger, 2 * d->cap_seen, d->seen[i]);
        free(d->seen);
        d->seen = bigger;
        d->cap_seen *= 2;
    }
    bool fresh = insert(d->seen, d->cap_seen, h);
    d->n_seen += fresh;
    return fresh;
}

/* ---- one document ---- */

void cm_docs_hash16(const char hex[65], uint8_t out[16]) {
    for (int i = 0; i < 16; i++) {
        unsigned v;
        sscanf(hex + 2 * i, "%2x", &v);
        out[i] = (uint8_t)v;
    }
}

/* The content's hash decides: growing the corpus moves no document to the other side. */
cm_split cm_docs_split(const cm_docs *d, const uint8_t hash[16]) {
    if (d->at < d->n_val) return CM_SPLIT_VAL;
    uint64_t u = 0;
    for (int i = 0; i < 8; i++) u = u << 8 | hash[i];
    return (double)u < d->c->val_frac * 18446744073709551616.0 ? CM_SPLIT_VAL
                                                               : CM_SPLIT_TRAIN;
}

/* The longest run of bytes without space or line break.  BPE works on such a run as a
 * whole, at some 200 bytes of memory per byte of text. */
static size_t longest_run(const char *s, size_t n) {
    size_t best = 0, from = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && s[i] != ' ' && s[i] != '\n') continue;
        if (i - from > best) best = i - from;
        from = i + 1;
    }
    return best;
}

/* Judge a cut-out document; *keep says whether doc was filled. */
static bool judge(cm_docs *d, const char *s, size_t n, uint64_t line, cm_doc *doc,
                  bool *keep, cm_err *err) {
    cm_tally *t = &d->tally[d->at];
    size_t bad;
    char why[96];
    *keep = false;
    if (n == 0) {
        t->empty++;
        return true;
    }
    if (!cm_utf8_valid(s, n, &bad)) {
        uint64_t at = line;
        for (size_t i = 0; i < bad && !d->jsonl; i++) at += s[i] == '\n';
        snprintf(why, sizeof why, "invalid UTF-8: byte 0x%02X at offset %zu of the document",
                 (unsigned char)s[bad], bad);
        return reject(d, at, CM_REJECT_BAD_TEXT, why, err);
    }
    if (memchr(s, 0, n)) return reject(d, line, CM_REJECT_BAD_TEXT, "zero byte in the text", err);
    if (n > MAX_RUN && longest_run(s, n) > MAX_RUN) {
        snprintf(why, sizeof why, "%zu bytes without a space or line break; at most %d "
                 "can be tokenized", longest_run(s, n), MAX_RUN);
        return reject(d, line, CM_REJECT_BAD_TEXT, why, err);
    }
    if ((int64_t)n < d->c->min_bytes) {
        t->small++;
        return true;
    }
    *doc = (cm_doc){ s, n, { (uint32_t)d->at, line, n, { 0 } }, CM_SPLIT_TRAIN, NULL };
    char hex[65];
    cm_sha_bytes(s, n, hex);
    cm_docs_hash16(hex, doc->from.hash);
    if (d->c->dedup && !cm_docs_new(d, doc->from.hash)) {
        t->duplicate++;
        return true;
    }
    doc->split = cm_docs_split(d, doc->from.hash);
    t->docs[doc->split]++;
    t->bytes[doc->split] += n;
    t->spaced += memmem(s, n, "\xE2\x96\x81", 3) != NULL;
    *keep = true;
    return true;
}

/* ---- lines to documents ---- */

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && !strcmp(s + n - k, end);
}

/* The file's first line without a byte-order mark, which is not text. */
bool cm_docs_line(cm_docs *d, cm_line *l, bool *end, cm_err *err) {
    if (!cm_src_line(d->src, (size_t)d->c->max_doc, l, end, err)) return false;
    if (*end) return true;
    if (l->number == 1 && l->n >= 3 && !memcmp(l->s, "\xEF\xBB\xBF", 3)) {
        l->s += 3;
        l->n -= 3;
    }
    return true;
}

bool cm_docs_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static bool all_space(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!cm_docs_space(s[i])) return false;
    return true;
}

bool cm_docs_text_line(cm_docs *d, cm_line *l, cm_err *err) {
    do {
        if (!cm_docs_line(d, l, &d->done_file, err)) return false;
    } while (!d->done_file && !l->too_long && all_space(l->s, l->n));
    return true;
}

/* Stdin has no name to go by: its first line that is not blank tells, if it begins as an
 * object with members does, or perhaps an array. */
static bool stdin_is_json(const cm_docs *d, bool array_too) {
    cm_docs in = { .c = d->c };
    cm_line l;
    cm_err err;
    bool yes = false;
    in.src = cm_src_open(d->path[d->at], &err);
    if (in.src && cm_docs_text_line(&in, &l, &err) && !in.done_file) {
        size_t at = 0;
        while (at < l.n && cm_docs_space(l.s[at])) at++;
        yes = array_too && at < l.n && l.s[at] == '[';
        if (at < l.n && l.s[at] == '{') {
            do at++; while (at < l.n && cm_docs_space(l.s[at]));
            yes = at < l.n && l.s[at] == '"';
        }
    }
    cm_src_close(in.src);
    return yes;
}

bool cm_docs_is_json(const cm_docs *d, bool array_too) {
    if (d->c->format != CM_FORMAT_AUTO) return d->c->format == CM_FORMAT_JSONL;
    if (!strcmp(d->name[d->at], "-")) return stdin_is_json(d, array_too);
    char *name = cm_strf("%s", d->name[d->at]);
    if (ends_with(name, ".zst")) name[strlen(name) - 4] = 0;
    else if (ends_with(name, ".gz")) name[strlen(name) - 3] = 0;
    bool yes = ends_with(name, ".jsonl") || ends_with(name, ".ndjson") ||
               (array_too && ends_with(name, ".json"));
    free(name);
    return yes;
}

/* Length without the carriage return that a line of a CRLF file ends with. */
static size_t bare(const cm_line *l) {
    return l->n - (l->n && l->s[l->n - 1] == '\r');
}

static const char too_long[] = "longer than tokenize.max_doc";

static bool line_doc(cm_docs *d, cm_doc *doc, bool *keep, cm_err *err) {
    cm_line l;
    if (!cm_docs_line(d, &l, &d->done_file, err)) return false;
    if (d->done_file) return true;
    if (l.too_long) return reject(d, l.number, CM_REJECT_TOO_LONG, too_long, err);
    if (!d->jsonl) return judge(d, l.s, bare(&l), l.number, doc, keep, err);
    size_t bad;
    if (!bare(&l)) return true;
    if (!cm_utf8_valid(l.s, l.n, &bad))
        return reject(d, l.number, CM_REJECT_BAD_TEXT, "invalid UTF-8", err);
    d->body.n = 0;
    cm_buf_add(&d->body, "", 0);
    cm_err why;
    if (!cm_jsonl_field(l.s, l.n, d->c->field, &d->body, &why))
        return reject(d, l.number, CM_REJECT_BAD_JSON, why.msg, err);
    return judge(d, d->body.s, d->body.n, l.number, doc, keep, err);
}

static bool is_separator(const cm_docs *d, const cm_line *l) {
    if (l->too_long) return false;
    if (d->c->split == CM_SPLIT_BLANK) return bare(l) == 0;
    return d->c->split == CM_SPLIT_MARKER && bare(l) == strlen(d->c->marker) &&
           !memcmp(l->s, d->c->marker, bare(l));
}

/* Lines up to a separator, blank lines around them dropped.  A whole file keeps its
 * carriage returns: nothing in it was split into lines. */
static bool block_doc(cm_docs *d, cm_doc *doc, bool *keep, cm_err *err) {
    cm_buf *b = &d->body;
    uint64_t first = 0, last = 0;
    bool over = false;
    b->n = 0;
    for (;;) {
        cm_line l;
        if (!cm_docs_line(d, &l, &d->done_file, err)) return false;
        if (d->done_file || is_separator(d, &l)) break;
        last = l.number;
        if (!first && !bare(&l)) continue;
        if (!first) first = l.number;
        over = over || l.too_long || b->n + l.n >= (size_t)d->c->max_doc;
        if (over) {
            b->n = 0;
            continue;
        }
        cm_buf_add(b, l.s, d->c->split == CM_SPLIT_FILE ? l.n : bare(&l));
        cm_buf_add(b, "\n", 1);
    }
    if (over) return reject(d, first, CM_REJECT_TOO_LONG, too_long, err);
    while (b->n && (b->s[b->n - 1] == '\n' || b->s[b->n - 1] == '\r')) b->n--;
    if (!last) return true;
    return judge(d, b->s, b->n, first, doc, keep, err);
}

bool cm_docs_file(cm_docs *d, bool *end, cm_err *err) {
    if (d->src) {
        d->pos_before += cm_src_pos(d->src);
        cm_src_close(d->src);
        d->src = NULL;
        d->at++;
    }
    *end = d->at == d->n_path;
    if (*end) return true;
    d->src = cm_src_open(d->path[d->at], err);
    d->jsonl = cm_docs_is_json(d, false);
    d->array.on = d->array.asked = false;
    d->done_file = false;
    return d->src != NULL;
}

bool cm_docs_next(cm_docs *d, cm_doc *doc, bool *end, cm_err *err) {
    *end = false;
    for (bool keep = false; !keep;) {
        if ((!d->src || d->done_file) && !cm_docs_file(d, end, err)) return false;
        if (*end) return true;
        if (cm_shard_masked(d->kind)) {
            if (!cm_docs_talk(d, doc, &keep, err)) return false;
            continue;
        }
        bool lines = d->jsonl || d->c->split == CM_SPLIT_LINE;
        if (!(lines ? line_doc(d, doc, &keep, err) : block_doc(d, doc, &keep, err)))
            return false;
    }
    return true;
}
