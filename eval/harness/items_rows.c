/* items_rows.c -- rows of a task's data: JSON lines, a JSON array, tables, plain text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/task_int.h"

typedef struct reader {
    const char *path;   /* as opened */
    const char *name;   /* kept with the task: for messages */
    cm_row **row;
    int64_t *n, cap;
    const char *where; /* field=value, or NULL */
} reader;

static bool matches(const reader *r, const cJSON *o) {
    char field[256];
    size_t n = strcspn(r->where, "=");
    snprintf(field, sizeof field, "%.*s", (int)n, r->where);
    const cJSON *v = cm_row_get(&(cm_row){ .o = o }, field);
    cm_buf b = { 0 };
    cm_buf_add(&b, "", 0);
    bool same = v && cm_value_text(v, &b) && !strcmp(b.s, r->where + n + (r->where[n] == '='));
    cm_buf_free(&b);
    return same;
}

static bool add_row(reader *r, cJSON *o, int64_t line, cm_err *err) {
    if (!cJSON_IsObject(o)) {
        cJSON_Delete(o);
        return cm_fail(err, CM_EXIT_DATA, "%s:%lld: not a JSON object", r->name,
                       (long long)line);
    }
    if (r->where && !matches(r, o)) {
        cJSON_Delete(o);
        return true;
    }
    if (*r->n == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 256;
        *r->row = realloc(*r->row, (size_t)r->cap * sizeof **r->row);
        CM_ASSERT(*r->row, "out of memory: rows of %s", r->name);
    }
    (*r->row)[(*r->n)++] = (cm_row){ o, r->name, line };
    return true;
}

void cm_rows_free(cm_row *row, int64_t n) {
    for (int64_t i = 0; i < n; i++) cJSON_Delete((cJSON *)row[i].o);
    free(row);
}

/* ---- forms --------------------------------------------------------------------------- */

static bool bad_utf8(const reader *r, int64_t line, const char *s, size_t n, cm_err *err) {
    size_t bad;
    const char *nul = memchr(s, 0, n);
    if (!nul && cm_utf8_valid(s, n, &bad)) return false;
    if (nul) bad = (size_t)(nul - s);
    cm_fail(err, CM_EXIT_DATA, "%s:%lld: no text in UTF-8 (byte %zu of the line)", r->name,
            (long long)line, bad);
    return true;
}

/* False, o being freed, for what JSON readers would change without a word. */
static bool strict(const reader *r, cJSON *o, int64_t line, const char *s, size_t n,
                   cm_err *err) {
    cm_err why;
    if (cm_json_strict(o, s, n, &why)) return true;
    cJSON_Delete(o);
    return cm_fail(err, CM_EXIT_DATA, "%s:%lld: %s", r->name, (long long)line, why.msg);
}

static bool read_jsonl(reader *r, cm_src *src, cm_err *err) {
    for (bool end = false;;) {
        cm_line line;
        if (!cm_src_line(src, (size_t)1 << 28, &line, &end, err)) return false;
        if (end) break;
        int64_t at = (int64_t)line.number;
        size_t blank = 0;
        while (blank < line.n && strchr(" \t\r", line.s[blank]) && line.s[blank]) blank++;
        if (blank == line.n) continue;
        if (line.too_long)
            return cm_fail(err, CM_EXIT_DATA, "%s:%lld: the line is longer than 256 MiB",
                           r->name, (long long)at);
        if (bad_utf8(r, at, line.s, line.n, err)) return false;
        char *copy = cm_strf("%.*s", (int)line.n, line.s);
        const char *stop = copy;
        cJSON *o = cJSON_ParseWithOpts(copy, &stop, true);
        size_t column = 1;
        for (const char *c = copy; c < stop; c++) column += ((unsigned char)*c & 0xC0) != 0x80;
        free(copy);
        if (!o)
            return cm_fail(err, CM_EXIT_DATA, "%s:%lld:%zu: not valid JSON", r->name,
                           (long long)at, column);
        if (!strict(r, o, at, line.s, line.n, err)) return false;
        if (!add_row(r, o, at, err)) return false;
    }
    return true;
}

static int64_t lines_between(const char *a, const char *b) {
    int64_t n = 0;
    for (; a < b; a++) n += *a == '\n';
    return n;
}

static const char *skip_white(const char *p) {
    while (*p && strchr(" \t\r\n", *p)) p++;
    return p;
}

/* One array of objects, taken apart element by element so that each has its line. */
static bool read_json(reader *r, const char *text, cm_err *err) {
    const char *p = skip_white(text), *counted = text;
    int64_t line = 1;
    if (*p++ != '[')
        return cm_fail(err, CM_EXIT_DATA, "%s:1: want one array of objects", r->name);
    for (bool first = true;; first = false) {
        p = skip_white(p);
        if (*p == ']') return true;
        if (!first && *p == ',') p = skip_white(p + 1);
        line += lines_between(counted, p);
        counted = p;
        const char *stop = p;
        cJSON *o = cJSON_ParseWithOpts(p, &stop, false);
        if (!o)
            return cm_fail(err, CM_EXIT_DATA, "%s:%lld: not valid JSON", r->name,
                           (long long)(line + lines_between(p, stop)));
        if (!strict(r, o, line, p, (size_t)(stop - p), err)) return false;
        p = stop;
        if (!add_row(r, o, line, err)) return false;
    }
}

/* The next field of a table, appended to out; *p ends at the separator, the newline or the
 * end.  RFC 4180 for commas; tab-separated fields hold no quotes and no escapes. */
static bool table_field(const char **p, char sep, cm_buf *out, int64_t *line) {
    const char *s = *p;
    if (sep == ',' && *s == '"') {
        for (s++; *s && (*s != '"' || s[1] == '"'); s++) {
            *line += *s == '\n';
            s += *s == '"';
            cm_buf_add(out, s, 1);
        }
        if (*s != '"') return false;
        s++;
        *p = s;
        return *s == sep || *s == '\n' || *s == '\r' || !*s;
    }
    size_t n = strcspn(s, sep == ',' ? ",\r\n" : "\t\r\n");
    cm_buf_add(out, s, n);
    *p = s + n;
    return true;
}

enum { MAX_COLUMNS = 1000 };

/* One line of a table: its fields' texts into `field`, each with a NUL behind. */
static bool table_line(const char **p, char sep, cm_buf *text, size_t *field, int *n,
                       int64_t *line) {
    text->n = 0;
    for (*n = 0; *n < MAX_COLUMNS;) {
        field[(*n)++] = text->n;
        if (!table_field(p, sep, text, line)) return false;
        cm_buf_add(text, "", 1);
        if (**p != sep) break;
        (*p)++;
    }
    if (**p == '\r') (*p)++;
    if (**p == '\n') (*line)++, (*p)++;
    return true;
}

static bool read_table(reader *r, const char *text, char sep, cm_err *err) {
    static const char *const broken = "%s:%lld: a quoted field that does not end, or goes on "
                                      "after its quote";
    size_t *head = calloc(MAX_COLUMNS, sizeof *head), *at = calloc(MAX_COLUMNS, sizeof *at);
    CM_ASSERT(head && at, "out of memory: a table's columns");
    cm_buf names = { 0 }, cells = { 0 };
    int n_head = 0, n = 0;
    int64_t line = 1, begin;
    bool ok = table_line(&text, sep, &names, head, &n_head, &line) ||
              cm_fail(err, CM_EXIT_DATA, broken, r->name, 1LL);
    for (int i = 0; ok && i < n_head; i++)
        for (int k = 0; ok && k < i; k++)
            if (!strcmp(names.s + head[i], names.s + head[k]))
                ok = cm_fail(err, CM_EXIT_DATA, "%s:1: two columns '%.100s' (%d and %d)",
                             r->name, names.s + head[i], k + 1, i + 1);
    while (ok && *text) {
        begin = line;
        ok = table_line(&text, sep, &cells, at, &n, &line) ||
             cm_fail(err, CM_EXIT_DATA, broken, r->name, (long long)begin);
        if (ok && n == 1 && !cells.s[0]) continue; /* an empty line */
        if (ok && n != n_head)
            ok = cm_fail(err, CM_EXIT_DATA, "%s:%lld: found %d fields, wanted %d as in the "
                         "header", r->name, (long long)begin, n, n_head);
        if (!ok) break;
        cJSON *o = cJSON_CreateObject();
        for (int i = 0; i < n; i++)
            cJSON_AddStringToObject(o, names.s + head[i], cells.s + at[i]);
        ok = add_row(r, o, begin, err);
    }
    cm_buf_free(&names);
    cm_buf_free(&cells);
    free(head);
    free(at);
    return ok;
}

static bool add_text(reader *r, cm_buf *doc, int64_t line, cm_err *err) {
    size_t a = 0;
    while (a < doc->n && (doc->s[a] == '\n' || doc->s[a] == '\r')) a++;
    while (doc->n > a && (doc->s[doc->n - 1] == '\n' || doc->s[doc->n - 1] == '\r')) doc->n--;
    if (doc->n == a) return true;
    doc->s[doc->n] = 0;
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "text", doc->s + a);
    doc->n = 0;
    return add_row(r, o, line, err);
}

/* Documents of a plain text: field `text`, without the newlines at its ends. */
static bool read_txt(reader *r, cm_src *src, int split, cm_err *err) {
    cm_buf doc = { 0 };
    int64_t begin = 1;
    bool ok = true, end = false;
    while (ok) {
        cm_line line;
        ok = cm_src_line(src, (size_t)1 << 28, &line, &end, err);
        if (!ok || end) break;
        if (line.too_long || bad_utf8(r, (int64_t)line.number, line.s, line.n, err)) {
            ok = line.too_long ? cm_fail(err, CM_EXIT_DATA, "%s:%llu: the line is longer than "
                                         "256 MiB", r->name, (unsigned long long)line.number)
                               : false;
            break;
        }
        bool marker = split == CM_SPLIT_MARKER && line.n == 13 &&
                      !memcmp(line.s, "<|endoftext|>", 13);
        bool cut = marker || split == CM_SPLIT_LINE || (split == CM_SPLIT_BLANK && !line.n);
        if (!doc.n) begin = (int64_t)line.number;
        if (!marker) {
            cm_buf_add(&doc, line.s, line.n);
            cm_buf_add(&doc, "\n", 1);
        }
        if (cut) {
            ok = add_text(r, &doc, begin, err);
            doc.n = 0;
        }
    }
    if (ok && doc.n) ok = add_text(r, &doc, begin, err);
    cm_buf_free(&doc);
    return ok;
}

/* ---- files --------------------------------------------------------------------------- */

static bool ends_in(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    if (n > 4 && !strcmp(s + n - 4, ".zst")) n -= 4;
    if (n > 3 && !strncmp(s + n - 3, ".gz", 3)) n -= 3;
    return n >= k && !strncmp(s + n - k, tail, k);
}

static int form_of(const cm_eval_task *t, const char *path) {
    const cm_task_conf *c = t->c;
    if (c->format != CM_ROWS_AUTO) return c->format;
    static const struct { const char *tail; int form; } known[] = {
        { ".jsonl", CM_ROWS_JSONL }, { ".ndjson", CM_ROWS_JSONL }, { ".json", CM_ROWS_JSON },
        { ".csv", CM_ROWS_CSV }, { ".tsv", CM_ROWS_TSV }, { ".txt", CM_ROWS_TXT },
        { ".text", CM_ROWS_TXT }, { ".raw", CM_ROWS_TXT }
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (ends_in(path, known[i].tail)) return known[i].form;
    return CM_ROWS_JSONL;
}

static bool read_whole(cm_src *src, const reader *r, cm_buf *out, cm_err *err) {
    char chunk[1 << 16];
    for (size_t got;;) {
        if (!cm_src_read(src, chunk, sizeof chunk, &got, err)) return false;
        if (!got) break;
        cm_buf_add(out, chunk, got);
    }
    cm_buf_add(out, "", 0);
    size_t bad;
    if (out->n && !cm_utf8_valid(out->s, out->n, &bad))
        return cm_fail(err, CM_EXIT_DATA, "%s:%lld: not valid UTF-8", r->name,
                       (long long)(1 + lines_between(out->s, out->s + bad)));
    if (memchr(out->s ? out->s : "", 0, out->n))
        return cm_fail(err, CM_EXIT_DATA, "%s: a NUL byte in it", r->name);
    return true;
}

static bool read_rows(const cm_eval_task *t, reader *r, cm_err *err) {
    cm_src *src = cm_src_open(r->path, err);
    if (!src) return false;
    cm_buf text = { 0 };
    int form = form_of(t, r->path), split = t->c->split;
    bool lines = form == CM_ROWS_JSONL || (form == CM_ROWS_TXT && split != CM_SPLIT_FILE);
    bool ok = lines || read_whole(src, r, &text, err);
    if (ok && form == CM_ROWS_JSONL) ok = read_jsonl(r, src, err);
    if (ok && form == CM_ROWS_JSON) ok = read_json(r, text.s ? text.s : "", err);
    if (ok && (form == CM_ROWS_CSV || form == CM_ROWS_TSV) && text.n)
        ok = read_table(r, text.s, form == CM_ROWS_CSV ? ',' : '\t', err);
    if (ok && form == CM_ROWS_TXT)
        ok = lines ? read_txt(r, src, split, err) : add_text(r, &text, 1, err);
    cm_buf_free(&text);
    cm_src_close(src);
    return ok;
}

/* In eval.data, then beside the task file; NULL: nowhere. */
static char *find_data(const cm_eval_task *t, const char *name) {
    if (*name == '/') return cm_strf("%s", name);
    char *path = cm_strf("%s/%s", *t->eval->data ? t->eval->data : ".", name);
    if (access(path, F_OK) == 0) return path;
    const char *slash = strrchr(t->path, '/');
    char *beside = cm_strf("%.*s%s", slash ? (int)(slash - t->path + 1) : 0, t->path, name);
    if (access(beside, F_OK) == 0) {
        free(path);
        return beside;
    }
    free(beside);
    return path;
}

bool cm_rows_read(cm_eval_task *t, const cm_list *list, cm_row **row, int64_t *n,
                  cm_buf *data_json, cm_err *err) {
    bool ok = true;
    int64_t cap = *n;
    for (int i = 0; ok && i < list->n; i++) {
        char hex[65], *path = find_data(t, list->v[i]);
        reader r = { path, cm_pool_text(&t->pool, path, strlen(path)), row, n, cap,
                     *t->c->where ? t->c->where : NULL };
        if (access(path, R_OK) != 0)
            ok = cm_fail(err, CM_EXIT_USAGE, "%s: task %s wants this file; tell where its "
                         "data is with eval.data=FOLDER (in sft and dpo panel.data)", path,
                         t->name);
        ok = ok && cm_sha_file(path, hex, err) && read_rows(t, &r, err);
        cap = r.cap;
        if (ok && data_json) {
            cm_json_open(data_json, NULL, '{');
            cm_json_str(data_json, "path", list->v[i]);
            cm_json_str(data_json, "sha256", hex);
            cm_json_close(data_json, '{');
        }
        free(path);
    }
    return ok;
}

/* ---- values -------------------------------------------------------------------------- */

const cJSON *cm_row_get(const cm_row *r, const char *field) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(r->o, field);
    if (v) return v;
    v = r->o;
    while (v && *field) {
        char part[256];
        size_t n = strcspn(field, ".");
        if (n >= sizeof part) return NULL;
        memcpy(part, field, n);
        part[n] = 0;
        v = cJSON_GetObjectItemCaseSensitive(v, part);
        field += n + (field[n] == '.');
    }
    return v == r->o ? NULL : v;
}

bool cm_value_text(const cJSON *v, cm_buf *out) {
    char num[32];
    if (cJSON_IsString(v)) {
        cm_buf_add(out, v->valuestring, strlen(v->valuestring));
    } else if (cJSON_IsNumber(v)) {
        double d = v->valuedouble;
        if (floor(d) == d && fabs(d) < 9e15) cm_buf_addf(out, "%.0f", d);
        else cm_buf_addf(out, "%s", cm_f64_text(d, num));
    } else if (cJSON_IsBool(v)) {
        cm_buf_addf(out, "%s", cJSON_IsTrue(v) ? "true" : "false");
    } else {
        return false;
    }
    return true;
}
