/* jsonl.c -- one string field out of one line of JSON, or the line as a tree.
 *
 * The line is walked once by a strict JSON grammar (RFC 8259): a document that is not
 * JSON is refused rather than guessed at.  Nesting is a counter of open brackets with a
 * bit for each, so hostile input cannot exhaust the stack. */
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 256, MAX_NODES = 1 << 20, MAX_MEMBERS = 1024 };

typedef struct scan {
    const char *p, *end, *start;
    const char *why; /* NULL = fine so far */
} scan;

static bool bad(scan *s, const char *why) {
    if (!s->why) s->why = why;
    return false;
}

static void space(scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\r' ||
                             *s->p == '\n'))
        s->p++;
}

static bool at(const scan *s, char c) { return s->p < s->end && *s->p == c; }

static bool hex4(scan *s, uint32_t *v) {
    if (s->end - s->p < 4) return bad(s, "cut-off \\u escape");
    *v = 0;
    for (int i = 0; i < 4; i++) {
        unsigned char c = (unsigned char)*s->p++, low = c | 32;
        if (c >= '0' && c <= '9') *v = *v * 16 + (c - '0');
        else if (low >= 'a' && low <= 'f') *v = *v * 16 + (low - 'a' + 10u);
        else return bad(s, "bad \\u escape");
    }
    return true;
}

static void put_utf8(cm_buf *b, uint32_t c) {
    char u[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned lead[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
    for (size_t i = n; i-- > 1; c >>= 6) u[i] = (char)(0x80 | (c & 63));
    u[0] = (char)(n == 1 ? c : lead[n] | c);
    cm_buf_add(b, u, n);
}

static bool unicode(scan *s, cm_buf *out) {
    uint32_t c, low;
    if (!hex4(s, &c)) return false;
    if (c >= 0xDC00 && c <= 0xDFFF) return bad(s, "lone surrogate");
    if (c >= 0xD800 && c <= 0xDBFF) {
        if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
            return bad(s, "lone surrogate");
        s->p += 2;
        if (!hex4(s, &low)) return false;
        if (low < 0xDC00 || low > 0xDFFF) return bad(s, "lone surrogate");
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    if (out) put_utf8(out, c);
    return true;
}

static bool escape(scan *s, cm_buf *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->p == s->end) return bad(s, "unterminated string");
    char c = *s->p++;
    if (c == 'u') return unicode(s, out);
    const char *k = c ? strchr(from, c) : NULL;
    if (!k) return bad(s, "unknown escape");
    if (out) cm_buf_add(out, to + (k - from), 1);
    return true;
}

/* At an opening quote.  out may be NULL. */
static bool string(scan *s, cm_buf *out) {
    if (!at(s, '"')) return bad(s, "want a string");
    const char *run = ++s->p;
    for (; s->p < s->end; s->p++) {
        unsigned char c = (unsigned char)*s->p;
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        if (c < 0x20) return bad(s, "control character in a string");
        if (out) cm_buf_add(out, run, (size_t)(s->p - run));
        s->p++;
        if (c == '"') return true;
        if (!escape(s, out)) return false;
        run = s->p--;
    }
    return bad(s, "unterminated string");
}

static bool digits(scan *s) {
    const char *from = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9') s->p++;
    return s->p > from || bad(s, "bad number");
}

static bool number(scan *s) {
    if (at(s, '-')) s->p++;
    if (at(s, '0')) s->p++;
    else if (!digits(s)) return false;
    if (at(s, '.') && (s->p++, !digits(s))) return false;
    if (at(s, 'e') || at(s, 'E')) {
        s->p++;
        if (at(s, '+') || at(s, '-')) s->p++;
        return digits(s);
    }
    return true;
}

static bool word(scan *s, const char *w) {
    size_t n = strlen(w);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, w, n)) return bad(s, "not JSON");
    s->p += n;
    return true;
}

static bool scalar(scan *s) {
    if (at(s, '"')) return string(s, NULL);
    if (at(s, 't')) return word(s, "true");
    if (at(s, 'f')) return word(s, "false");
    if (at(s, 'n')) return word(s, "null");
    if (s->p == s->end) return bad(s, "cut off");
    return number(s);
}

/* "key" : */
static bool key(scan *s, cm_buf *out) {
    space(s);
    if (!string(s, out)) return false;
    space(s);
    if (!at(s, ':')) return bad(s, "want ':' after a key");
    s->p++;
    space(s);
    return true;
}

/* Any value, passed over. */
static bool value(scan *s) {
    bool object[MAX_DEPTH];
    int depth = 0;
    for (;;) {
        space(s);
        if (at(s, '{') || at(s, '[')) {
            if (depth == MAX_DEPTH) return bad(s, "nested too deeply");
            bool obj = *s->p++ == '{';
            space(s);
            object[depth++] = obj;
            if (!at(s, obj ? '}' : ']')) {
                if (obj && !key(s, NULL)) return false;
                continue;
            }
        } else if (!scalar(s)) {
            return false;
        }
        for (;;) { /* after a value: close what closes here */
            if (!depth) return true;
            space(s);
            if (!at(s, object[depth - 1] ? '}' : ']')) break;
            s->p++;
            depth--;
        }
        if (!at(s, ',')) return bad(s, "want ',' or a closing bracket");
        s->p++;
        if (object[depth - 1] && !key(s, NULL)) return false;
    }
}

/* The members of the top-level object; the wanted one goes to out. */
static bool members(scan *s, const char *field, cm_buf *out, int *found, cm_buf *name) {
    space(s);
    if (!at(s, '{')) return bad(s, "want a JSON object");
    s->p++;
    space(s);
    if (at(s, '}')) return s->p++, true;
    for (;;) {
        name->n = 0;
        if (!key(s, name)) return false;
        bool hit = name->n == strlen(field) && !memcmp(name->s, field, name->n);
        if (hit && ++*found > 1) return bad(s, "the field occurs twice");
        if (hit && !at(s, '"')) return bad(s, "the field is not a string");
        if (!(hit ? string(s, out) : value(s))) return false;
        space(s);
        if (at(s, '}')) return s->p++, true;
        if (!at(s, ',')) return bad(s, "want ',' or '}'");
        s->p++;
    }
}

bool cm_jsonl_field(const char *line, size_t n, const char *field, cm_buf *out,
                    cm_err *err) {
    scan s = { line, line + n, line, NULL };
    cm_buf name = { 0 };
    cm_buf_add(&name, "", 0);
    int found = 0;
    size_t before = out->n;
    bool ok = members(&s, field, out, &found, &name);
    if (ok) {
        space(&s);
        if (s.p != s.end) ok = bad(&s, "text after the object");
    }
    cm_buf_free(&name);
    if (ok && !found) return cm_fail(err, CM_EXIT_DATA, "no field '%s'", field);
    if (ok) return true;
    out->n = before;
    return cm_fail(err, CM_EXIT_DATA, "column %zu: %s (field '%s')",
                   (size_t)(s.p - s.start) + 1, s.why, field);
}

/* ---- the tree ---- */

/* Text decoded so far begins at `from`: note where it lies, and end it with a zero. */
static void note(cm_json_tree *t, size_t from, size_t *at, size_t *n) {
    *at = from;
    *n = t->text.n - from;
    cm_buf_add(&t->text, "", 1);
}

/* A node as the last child of `up` (-1: the whole); *last is that parent's last child. */
static int add_node(cm_json_tree *t, int up, int *last) {
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->node = realloc(t->node, (size_t)t->cap * sizeof *t->node);
        CM_ASSERT(t->node, "out of memory: %d JSON values", t->cap);
    }
    int k = t->n++;
    t->node[k] = (cm_json_node){ .first = -1, .next = -1 };
    if (up >= 0) {
        *(*last < 0 ? &t->node[up].first : &t->node[*last].next) = k;
        t->node[up].count++;
        *last = k;
    }
    return k;
}

/* A member's name, decoded into text; it must be new in its object. */
static bool member(scan *s, cm_json_tree *t, int up, size_t *at, size_t *n) {
    size_t from = t->text.n;
    if (!key(s, &t->text)) return false;
    note(t, from, at, n);
    if (t->node[up].count >= MAX_MEMBERS) return bad(s, "too many members in an object");
    for (int c = t->node[up].first; c >= 0; c = t->node[c].next)
        if (t->node[c].n_key == *n && !memcmp(t->text.s + t->node[c].key, t->text.s + *at, *n))
            return bad(s, "a member occurs twice");
    return true;
}

static bool leaf(scan *s, cm_json_tree *t, int k) {
    const char *from = s->p;
    size_t start = t->text.n;
    char c = s->p < s->end ? *s->p : 0;
    cm_json_type type = c == '"' ? CM_JSON_STRING : c == 't' || c == 'f' ? CM_JSON_BOOL
                        : c == 'n' ? CM_JSON_NULL : CM_JSON_NUMBER;
    if (!(c == '"' ? string(s, &t->text) : scalar(s))) return false;
    if (c != '"') cm_buf_add(&t->text, from, (size_t)(s->p - from));
    t->node[k].type = type;
    note(t, start, &t->node[k].at, &t->node[k].n);
    return true;
}

static bool tree(scan *s, cm_json_tree *t) {
    int up[MAX_DEPTH], last[MAX_DEPTH], depth = 0;
    size_t name = 0, n_name = 0;
    for (;;) {
        space(s);
        if (t->n == MAX_NODES) return bad(s, "more than a million values");
        int k = depth ? add_node(t, up[depth - 1], &last[depth - 1]) : add_node(t, -1, NULL);
        t->node[k].key = name;
        t->node[k].n_key = n_name;
        if (at(s, '{') || at(s, '[')) {
            if (depth == MAX_DEPTH) return bad(s, "nested too deeply");
            bool object = *s->p++ == '{';
            t->node[k].type = object ? CM_JSON_OBJECT : CM_JSON_ARRAY;
            up[depth] = k;
            last[depth++] = -1;
            space(s);
            if (!at(s, object ? '}' : ']')) {
                if (object && !member(s, t, k, &name, &n_name)) return false;
                continue;
            }
        } else if (!leaf(s, t, k)) {
            return false;
        }
        bool object = false;
        for (;; depth--, s->p++) { /* after a value: close what closes here */
            if (!depth) return true;
            object = t->node[up[depth - 1]].type == CM_JSON_OBJECT;
            space(s);
            if (!at(s, object ? '}' : ']')) break;
        }
        if (!at(s, ',')) return bad(s, "want ',' or a closing bracket");
        s->p++;
        if (object && !member(s, t, up[depth - 1], &name, &n_name)) return false;
    }
}

bool cm_json_tree_read(cm_json_tree *t, const char *text, size_t n, cm_err *err) {
    scan s = { text, text + n, text, NULL };
    t->n = 0;
    t->text.n = 0;
    cm_buf_add(&t->text, "", 1); /* names of nothing */
    bool ok = tree(&s, t);
    if (ok) {
        space(&s);
        if (s.p != s.end) ok = bad(&s, "text after the value");
    }
    return ok || cm_fail(err, CM_EXIT_DATA, "column %zu: %s",
                         (size_t)(s.p - s.start) + 1, s.why);
}

void cm_json_tree_free(cm_json_tree *t) {
    free(t->node);
    cm_buf_free(&t->text);
    *t = (cm_json_tree){ 0 };
}

int cm_json_tree_get(const cm_json_tree *t, int node, const char *name) {
    if (node < 0 || t->node[node].type != CM_JSON_OBJECT) return -1;
    size_t n = strlen(name);
    for (int c = t->node[node].first; c >= 0; c = t->node[c].next)
        if (t->node[c].n_key == n && !memcmp(t->text.s + t->node[c].key, name, n)) return c;
    return -1;
}
