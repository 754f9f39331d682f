/* talks.c -- inputs to conversations and preferences: one JSON value after the other.
 *
 * A file is JSON lines, or one array of objects as such data sets are often published; an
 * element's place is the line it starts on. */
#include "text/corpus_int.h"

#include <string.h>

/* One JSON value of the file; s lives until the next one. */
typedef struct value {
    const char *s;
    size_t n;
    uint64_t line;
    bool too_long, cut; /* cut: the file ends inside the array */
} value;

/* ---- an array ---- */

/* Inside an element: open brackets, and whether in a string. */
typedef struct walk {
    int depth;
    bool string, escaped;
} walk;

/* Take one byte of an element; true when it was its last. */
static bool step(walk *w, char c) {
    if (w->string) {
        w->string = w->escaped || c != '"';
        w->escaped = !w->escaped && c == '\\';
        return false;
    }
    w->string = c == '"';
    w->depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    return w->depth == 0 && (c == '}' || c == ']');
}

static bool array_line(cm_docs *d, cm_err *err) {
    if (!cm_docs_text_line(d, &d->array.line, err)) return false;
    d->array.at = 0;
    return d->done_file || !d->array.line.too_long ||
           cm_fail(err, CM_EXIT_DATA, "%s:%llu: a line of a JSON array longer than "
                   "tokenize.max_doc", d->name[d->at],
                   (unsigned long long)d->array.line.number);
}

/* To the next element's first byte, *c, unless the file ends (d->done_file). */
static bool skip_between(cm_docs *d, char *c, cm_err *err) {
    while (!d->done_file) {
        while (d->array.at < d->array.line.n) {
            *c = d->array.line.s[d->array.at];
            if (!cm_docs_space(*c) && *c != ',') return true;
            d->array.at++;
        }
        if (!array_line(d, err)) return false;
    }
    return true;
}

/* The element that starts here.  A scalar ends where a separator stands outside a string. */
static bool take_element(cm_docs *d, value *v, cm_err *err) {
    walk w = { 0 };
    bool whole = false, over = false;
    d->body.n = 0;
    cm_buf_add(&d->body, "", 0);
    v->line = d->array.line.number;
    while (!whole && !d->done_file) {
        const cm_line *l = &d->array.line;
        size_t from = d->array.at;
        while (!whole && d->array.at < l->n) {
            char c = l->s[d->array.at];
            if (!w.string && !w.depth && (c == ',' || c == ']')) {
                whole = true;
                break;
            }
            whole = step(&w, c);
            d->array.at++;
        }
        over = over || d->body.n + (d->array.at - from) > (size_t)d->c->max_doc;
        if (over) d->body.n = 0;
        else cm_buf_add(&d->body, l->s + from, d->array.at - from);
        if (!whole && !over) cm_buf_add(&d->body, "\n", 1);
        if (!whole && !array_line(d, err)) return false;
    }
    v->s = d->body.s;
    v->n = d->body.n;
    v->too_long = over;
    v->cut = !whole;
    return true;
}

/* *got is false at the end of the array, behind which nothing may stand. */
static bool next_element(cm_docs *d, value *v, bool *got, cm_err *err) {
    char c = 0;
    *v = (value){ .line = d->array.line.number };
    *got = false;
    if (!skip_between(d, &c, err)) return false;
    if (d->done_file) {
        if (d->array.closed) return true;
        *got = v->cut = true;
        d->array.closed = true;
        return true;
    }
    if (d->array.closed)
        return cm_fail(err, CM_EXIT_DATA, "%s:%llu: text behind the JSON array",
                       d->name[d->at], (unsigned long long)d->array.line.number);
    *got = true;
    if (c != ']') {
        bool ok = take_element(d, v, err);
        d->array.closed = v->cut;
        return ok;
    }
    d->array.at++;
    d->array.closed = true;
    return next_element(d, v, got, err);
}

/* ---- either ---- */

static bool next_value(cm_docs *d, value *v, bool *got, cm_err *err) {
    if (d->array.on) return next_element(d, v, got, err);
    cm_line l;
    *got = false;
    if (!cm_docs_text_line(d, &l, err)) return false;
    if (d->done_file) return true;
    size_t at = 0;
    while (at < l.n && cm_docs_space(l.s[at])) at++;
    d->array.on = !d->array.asked && at < l.n && l.s[at] == '[';
    d->array.asked = true;
    if (d->array.on && l.too_long)
        return cm_fail(err, CM_EXIT_DATA, "%s: an array in one line longer than "
                       "tokenize.max_doc", d->name[d->at]);
    if (d->array.on) {
        d->array.closed = false;
        d->array.line = l;
        d->array.at = at + 1;
        return next_element(d, v, got, err);
    }
    *v = (value){ l.s, l.n, l.number, l.too_long, false };
    *got = true;
    return true;
}

/* ---- documents ---- */

static bool reject(cm_docs *d, const value *v, cm_reject reason, const char *why,
                   cm_err *err) {
    return cm_docs_reject(d, d->at, v->line, reason, why, err);
}

/* Judge a conversation that could be read; *keep says whether doc was filled. */
static bool keep_talk(cm_docs *d, const value *v, cm_doc *doc, bool *keep) {
    cm_tally *t = &d->tally[d->at];
    char whole[65], opening[65];
    uint8_t begin[16];
    uint64_t bytes = cm_talk_bytes(&d->talk);
    if ((int64_t)bytes < d->c->min_bytes) {
        t->small++;
        return true;
    }
    *doc = (cm_doc){ .from = { (uint32_t)d->at, v->line, bytes, { 0 } }, .talk = &d->talk };
    cm_talk_hash(&d->talk, whole, opening);
    cm_docs_hash16(whole, doc->from.hash);
    cm_docs_hash16(opening, begin);
    if (d->c->dedup && !cm_docs_new(d, doc->from.hash)) {
        t->duplicate++;
        return true;
    }
    doc->split = cm_docs_split(d, begin);
    t->docs[doc->split]++;
    t->bytes[doc->split] += bytes;
    for (int i = 0; i < d->talk.n; i++)
        if (memmem(d->talk.turn[i].text, d->talk.turn[i].n, "\xE2\x96\x81", 3)) {
            t->spaced++;
            break;
        }
    *keep = true;
    return true;
}

bool cm_docs_talk(cm_docs *d, cm_doc *doc, bool *keep, cm_err *err) {
    value v;
    bool got;
    size_t bad;
    *keep = false;
    if (!next_value(d, &v, &got, err)) return false;
    if (!got) return true;
    if (v.too_long)
        return reject(d, &v, CM_REJECT_TOO_LONG, "longer than tokenize.max_doc", err);
    if (v.cut)
        return reject(d, &v, CM_REJECT_BAD_JSON, "the file ends inside its JSON array", err);
    if (!cm_utf8_valid(v.s, v.n, &bad))
        return reject(d, &v, CM_REJECT_BAD_TEXT, "invalid UTF-8", err);
    if (!cm_talk_read(&d->talk, v.s, v.n, d->kind == CM_SHARD_DPO))
        return reject(d, &v, d->talk.reject, d->talk.why, err);
    return keep_talk(d, &v, doc, keep);
}

bool cm_docs_probe(cm_docs *d, cm_shard_kind *kind, cm_err *err) {
    bool end, got = false;
    value v;
    *kind = CM_SHARD_LM;
    for (;;) {
        if (!cm_docs_file(d, &end, err)) return false;
        if (end || !cm_docs_is_json(d, true)) return true;
        if (!next_value(d, &v, &got, err)) return false;
        if (!got) continue; /* an empty file tells nothing */
        if (!v.too_long && !v.cut) *kind = cm_talk_kind(v.s, v.n, d->c->field);
        return true;
    }
}
