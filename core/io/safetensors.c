/* safetensors.c -- reader and writer of safetensors files.
 *
 * A file is a u64 length, a JSON header of that length, then the bytes of all tensors:
 * no gap, no overlap.  The reader trusts nothing: the entries, sorted by offset, must
 * tile the data exactly, as the reference implementation demands.  Because gaps are
 * forbidden, the writer aligns by order: tensors whose size is a multiple of 64 bytes
 * come first, so that every large tensor starts on a cache line. */
#include "io/io.h"
#include "io/read.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100 << 20 }; /* bytes; the reference implementation's limit */

typedef struct st_mem {
    char *path;
    cJSON *root; /* names and metadata strings live in it */
    cm_copies copies;
} st_mem;

/* ---- reading ---------------------------------------------------------------------- */

static bool parse_dtype(const cm_st *s, const cJSON *e, cm_dtype *out, cm_err *err) {
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "dtype"));
    for (int i = 0; name && i < CM_N_DTYPES; i++) {
        const char *st = cm_dtypes[i].safetensors;
        if (st && !strcmp(st, name)) {
            *out = (cm_dtype)i;
            return true;
        }
    }
    return cm_fail(err, CM_EXIT_DATA,
                   "%s: tensor '%.200s': dtype '%.40s' is not supported", s->path,
                   e->string, name ? name : "(none)");
}

/* A whole number that a double holds exactly. */
static bool whole(const cJSON *v, int64_t *out) {
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0 && v->valuedouble <= 0x1p53))
        return false;
    *out = (int64_t)v->valuedouble;
    return (double)*out == v->valuedouble;
}

static bool parse_shape(const cm_st *s, const cJSON *e, cm_tensor *t, uint64_t *bytes,
                        cm_err *err) {
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(e, "shape"), *d;
    if (!cJSON_IsArray(shape) || cJSON_GetArraySize(shape) > CM_MAX_DIMS)
        return cm_fail(err, CM_EXIT_DATA,
                       "%s: tensor '%.200s': shape is not a list of at most %d sizes",
                       s->path, e->string, CM_MAX_DIMS);
    cJSON_ArrayForEach(d, shape) {
        if (!whole(d, &t->dim[t->nd++]))
            return cm_fail(err, CM_EXIT_DATA,
                           "%s: tensor '%.200s': a size is not a whole number", s->path,
                           e->string);
    }
    if (!cm_read_bytes(t, bytes))
        return cm_fail(err, CM_EXIT_DATA, "%s: tensor '%.200s': shape is too large",
                       s->path, e->string);
    return true;
}

/* One tensor of the header; `data` bytes follow the header. */
static bool parse_entry(cm_st *s, const cJSON *e, uint64_t header, uint64_t data,
                        cm_err *err) {
    cm_st_entry *out = &s->entry[s->n];
    int64_t from, to;
    uint64_t bytes;
    const cJSON *off = cJSON_GetObjectItemCaseSensitive(e, "data_offsets");
    if (!parse_dtype(s, e, &out->t.dtype, err) ||
        !parse_shape(s, e, &out->t, &bytes, err))
        return false;
    if (!cJSON_IsArray(off) || cJSON_GetArraySize(off) != 2 ||
        !whole(off->child, &from) || !whole(off->child->next, &to) || from > to ||
        (uint64_t)to > data)
        return cm_fail(err, CM_EXIT_DATA,
                       "%s: tensor '%.200s': data_offsets do not lie in the file's %llu "
                       "bytes of data", s->path, e->string, (unsigned long long)data);
    if ((uint64_t)(to - from) != bytes)
        return cm_fail(err, CM_EXIT_DATA,
                       "%s: tensor '%.200s': %lld bytes of data, its shape needs %llu",
                       s->path, e->string, (long long)(to - from),
                       (unsigned long long)bytes);
    out->name = e->string;
    out->t.data = (void *)(uintptr_t)(s->map.data + header + (uint64_t)from);
    s->n++;
    return true;
}

static bool parse_meta(cm_st *s, const cJSON *m, cm_err *err) {
    int n = cJSON_GetArraySize(m), i = 0;
    s->meta = calloc((size_t)n + 1, sizeof *s->meta);
    CM_ASSERT(s->meta, "out of memory: %d metadata entries", n);
    const cJSON *v;
    cJSON_ArrayForEach(v, m) {
        if (!cJSON_IsString(v) || !v->string)
            return cm_fail(err, CM_EXIT_DATA,
                           "%s: __metadata__ holds something that is not a string",
                           s->path);
        s->meta[i++] = (cm_st_meta){v->string, v->valuestring};
    }
    s->n_meta = n;
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const cm_st_entry *const *)a)->name,
                  (*(const cm_st_entry *const *)b)->name);
}

/* By place in the file; empty tensors before the tensor that starts where they do. */
static int by_place(const void *a, const void *b) {
    const cm_tensor *x = &(*(const cm_st_entry *const *)a)->t;
    const cm_tensor *y = &(*(const cm_st_entry *const *)b)->t;
    if (x->data != y->data) return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    size_t p = cm_tensor_bytes(x), q = cm_tensor_bytes(y);
    return (p > q) - (p < q);
}

/* Names are unique, and the tensors tile the data. */
static bool check_whole(const cm_st *s, uint64_t header, cm_err *err) {
    const cm_st_entry **p = malloc(((size_t)s->n + 1) * sizeof *p);
    CM_ASSERT(p, "out of memory: %d entries", s->n);
    for (int i = 0; i < s->n; i++) p[i] = &s->entry[i];
    qsort(p, (size_t)s->n, sizeof *p, by_name);
    bool ok = true;
    for (int i = 1; ok && i < s->n; i++)
        if (!strcmp(p[i - 1]->name, p[i]->name))
            ok = cm_fail(err, CM_EXIT_DATA, "%s: tensor '%.200s' appears twice", s->path,
                         p[i]->name);
    qsort(p, (size_t)s->n, sizeof *p, by_place);
    const unsigned char *at = s->map.data + header;
    for (int i = 0; ok && i < s->n; i++) {
        if (p[i]->t.data != at)
            ok = cm_fail(err, CM_EXIT_DATA,
                         "%s: tensor '%.200s' does not start where the one before it "
                         "ends", s->path, p[i]->name);
        at += cm_tensor_bytes(&p[i]->t);
    }
    if (ok && at != s->map.data + s->map.size)
        ok = cm_fail(err, CM_EXIT_DATA,
                     "%s: %zu bytes after the last tensor belong to nothing", s->path,
                     (size_t)(s->map.data + s->map.size - at));
    free(p);
    return ok;
}

static bool parse_header(cm_st *s, const char *json, uint64_t n, cm_err *err) {
    st_mem *mem = s->mem;
    const char *end = NULL;
    mem->root = cJSON_ParseWithLengthOpts(json, (size_t)n, &end, false);
    if (!cJSON_IsObject(mem->root))
        return cm_fail(err, CM_EXIT_DATA,
                       "%s: header is not a JSON object (near byte %lld)", s->path,
                       end ? (long long)(8 + (end - json)) : 8LL);
    for (; end < json + n; end++)
        if (*end != ' ' && *end != 0)
            return cm_fail(err, CM_EXIT_DATA,
                           "%s: text after the JSON header at byte %lld", s->path,
                           (long long)(8 + (end - json)));
    s->entry = calloc((size_t)cJSON_GetArraySize(mem->root) + 1, sizeof *s->entry);
    CM_ASSERT(s->entry, "out of memory: safetensors header");
    const cJSON *e;
    cJSON_ArrayForEach(e, mem->root) {
        bool meta = !strcmp(e->string, "__metadata__");
        if (meta && s->meta)
            return cm_fail(err, CM_EXIT_DATA, "%s: __metadata__ appears twice", s->path);
        if (!cJSON_IsObject(e))
            return cm_fail(err, CM_EXIT_DATA, "%s: entry '%.200s' is not a JSON object",
                           s->path, e->string);
        if (meta ? !parse_meta(s, e, err)
                 : !parse_entry(s, e, 8 + n, s->map.size - 8 - n, err))
            return false;
    }
    return check_whole(s, 8 + n, err);
}

bool cm_st_open(cm_st *s, const char *path, cm_err *err) {
    *s = (cm_st){0};
    if (!cm_map_open(&s->map, path, err)) return false;
    st_mem *mem = s->mem = calloc(1, sizeof *mem);
    CM_ASSERT(mem, "out of memory: safetensors reader");
    s->path = mem->path = cm_strf("%s", path);
    uint64_t n = 0;
    if (s->map.size >= 8) memcpy(&n, s->map.data, 8);
    bool ok;
    if (s->map.size < 8 || n > s->map.size - 8)
        ok = cm_fail(err, CM_EXIT_DATA,
                     "%s: %zu bytes are too few for a safetensors header of %llu", path,
                     s->map.size, (unsigned long long)n);
    else if (n > MAX_HEADER)
        ok = cm_fail(err, CM_EXIT_DATA,
                     "%s: a header of %llu bytes; at most %d are allowed", path,
                     (unsigned long long)n, MAX_HEADER);
    else
        ok = parse_header(s, (const char *)s->map.data + 8, n, err);
    for (int i = 0; ok && i < s->n; i++) cm_copies_align(&mem->copies, &s->entry[i].t);
    if (!ok) cm_st_close(s);
    return ok;
}

void cm_st_close(cm_st *s) {
    st_mem *mem = s->mem;
    if (mem) {
        cm_copies_free(&mem->copies);
        cJSON_Delete(mem->root);
        free(mem->path);
    }
    free(mem);
    free(s->entry);
    free(s->meta);
    cm_map_close(&s->map);
    *s = (cm_st){0};
}

const cm_tensor *cm_st_find(const cm_st *s, const char *name) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->entry[i].name, name)) return &s->entry[i].t;
    return NULL;
}

const char *cm_st_get_meta(const cm_st *s, const char *key) {
    for (int i = 0; i < s->n_meta; i++)
        if (!strcmp(s->meta[i].key, key)) return s->meta[i].value;
    return NULL;
}

/* ---- writing ---------------------------------------------------------------------- */

static void add_json_string(cm_buf *b, const char *s) {
    cm_buf_add(b, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') cm_buf_addf(b, "\\%c", c);
        else if (c < 0x20) cm_buf_addf(b, "\\u%04x", c);
        else cm_buf_add(b, s, 1);
    }
    cm_buf_add(b, "\"", 1);
}

/* Order of the data: whole cache lines first, then by element size, so that every
 * tensor is at least as aligned as its elements need. */
static int place_class(const cm_tensor *t) {
    return cm_tensor_bytes(t) % CM_ALIGN == 0 ? 0 : 16 - cm_dtypes[t->dtype].bytes;
}

static int *data_order(const cm_st_entry *item, int n) {
    int *order = malloc(((size_t)n + 1) * sizeof *order), k = 0;
    CM_ASSERT(order, "out of memory: %d entries", n);
    for (int c = 0; c <= 16; c++)
        for (int i = 0; i < n; i++)
            if (place_class(&item[i].t) == c) order[k++] = i;
    CM_ASSERT(k == n, "a tensor without a place");
    return order;
}

static void build_header(cm_buf *b, const cm_st_entry *item, const int *order, int n,
                         const cm_st_meta *meta, int n_meta) {
    uint64_t *from = malloc(((size_t)n + 1) * sizeof *from), at = 0;
    CM_ASSERT(from, "out of memory: %d entries", n);
    for (int k = 0; k < n; k++) {
        from[order[k]] = at;
        at += cm_tensor_bytes(&item[order[k]].t);
    }
    cm_buf_add(b, "{", 1);
    for (int i = 0; i < n_meta; i++) {
        cm_buf_addf(b, "%s", i ? "," : "\"__metadata__\":{");
        add_json_string(b, meta[i].key);
        cm_buf_add(b, ":", 1);
        add_json_string(b, meta[i].value);
    }
    if (n_meta) cm_buf_addf(b, "}%s", n ? "," : "");
    for (int i = 0; i < n; i++) {
        const cm_tensor *t = &item[i].t;
        const char *dtype = cm_dtypes[t->dtype].safetensors;
        CM_ASSERT(dtype, "safetensors cannot hold %s", cm_dtypes[t->dtype].name);
        char shape[128];
        if (i) cm_buf_add(b, ",", 1);
        add_json_string(b, item[i].name);
        cm_buf_addf(b, ":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}",
                    dtype, cm_tensor_shape_str(t, shape, sizeof shape),
                    (unsigned long long)from[i],
                    (unsigned long long)(from[i] + cm_tensor_bytes(t)));
    }
    cm_buf_add(b, "}", 1);
    while ((8 + b->n) % CM_ALIGN) cm_buf_add(b, " ", 1);
    free(from);
}

uint64_t cm_st_bytes(const cm_st_entry *item, int n, const cm_st_meta *meta, int n_meta) {
    int *order = data_order(item, n);
    cm_buf head = {0};
    build_header(&head, item, order, n, meta, n_meta);
    uint64_t bytes = 8 + head.n;
    for (int i = 0; i < n; i++) bytes += cm_tensor_bytes(&item[i].t);
    cm_buf_free(&head);
    free(order);
    return bytes;
}

bool cm_st_write(const char *path, const cm_st_entry *item, int n, const cm_st_meta *meta,
                 int n_meta, cm_fill_fn fill, void *ctx, cm_err *err) {
    cm_out o;
    if (!cm_out_open(&o, path, err)) return false;
    int *order = data_order(item, n);
    cm_buf head = {0};
    build_header(&head, item, order, n, meta, n_meta);
    uint64_t len = head.n;
    cm_stream st = {&o, fill, ctx, NULL, 0};
    bool ok = cm_out_write(&o, &len, 8, err) && cm_out_write(&o, head.s, head.n, err);
    for (int k = 0; ok && k < n; k++)
        ok = cm_stream_tensor(&st, order[k], &item[order[k]].t, err);
    ok = ok && cm_out_commit(&o, err);
    if (!ok) cm_out_abort(&o);
    cm_stream_free(&st);
    cm_buf_free(&head);
    free(order);
    return ok;
}
