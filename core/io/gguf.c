/* gguf.c -- reader of GGUF v3 (and v2, whose layout is the same) files.
 *
 * Layout: "GGUF", u32 version, u64 tensors, u64 keys; keys with typed values; tensor
 * infos; padding to general.alignment; data.  As in llama.cpp, tensor offsets must be
 * exactly cumulative in table order, each padded to the alignment.  One cursor walks the
 * header; once something is wrong it stays wrong, and the first sentence is kept. */
#include "io/io.h"
#include "io/read.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_KEY = 65535, MAX_NAME = 63, MAX_ALIGNMENT = 1 << 20 };

typedef struct gguf_mem {
    char *path;
    cm_copies copies;
    char **text; /* NUL-terminated copies of keys and names */
    size_t n_text;
    void **array; /* cm_gguf_str arrays */
    size_t n_array;
} gguf_mem;

static const unsigned char elem_size[] = {
    [CM_GGUF_U8] = 1,  [CM_GGUF_I8] = 1,   [CM_GGUF_U16] = 2, [CM_GGUF_I16] = 2,
    [CM_GGUF_U32] = 4, [CM_GGUF_I32] = 4,  [CM_GGUF_F32] = 4, [CM_GGUF_BOOL] = 1,
    [CM_GGUF_STR] = 8, [CM_GGUF_ARR] = 12, [CM_GGUF_U64] = 8, [CM_GGUF_I64] = 8,
    [CM_GGUF_F64] = 8, /* STR, ARR: the least bytes one takes */
};

/* Type names of GGUF, to say what a file holds that we cannot read. */
static const char *const gguf_types[] = {
    "F32", "F16", "Q4_0", "Q4_1", NULL, NULL, "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K",
    "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M",
    "BF16", NULL, NULL, NULL, "TQ1_0", "TQ2_0", NULL, NULL, NULL, "MXFP4", "NVFP4",
};

/* ---- cursor ----------------------------------------------------------------------- */

typedef struct cursor {
    cm_gguf *g;
    gguf_mem *mem;
    uint64_t at;
    cm_err *err;
} cursor;

static uint64_t left(const cursor *c) { return c->g->map.size - c->at; }

static bool take(cursor *c, void *dst, uint64_t n, const char *what) {
    if (n > left(c))
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: %s at byte %llu runs past the end of the file (%zu bytes)",
                       c->g->path, what, (unsigned long long)c->at, c->g->map.size);
    memcpy(dst, c->g->map.data + c->at, n);
    c->at += n;
    return true;
}

static bool take_str(cursor *c, cm_gguf_str *s, const char *what) {
    if (!take(c, &s->n, 8, what)) return false;
    if (s->n > left(c))
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: %s at byte %llu: a length of %llu runs past the end of the "
                       "file", c->g->path, what, (unsigned long long)c->at,
                       (unsigned long long)s->n);
    s->s = (const char *)c->g->map.data + c->at;
    c->at += s->n;
    return true;
}

/* A key or tensor name as a C string: 1..max bytes, none of them NUL. */
static bool take_name(cursor *c, const char **out, uint64_t max, const char *what) {
    cm_gguf_str s;
    if (!take_str(c, &s, what)) return false;
    if (s.n < 1 || s.n > max || memchr(s.s, 0, s.n))
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: %s before byte %llu has %llu bytes or a NUL; 1 to %llu "
                       "without are allowed", c->g->path, what, (unsigned long long)c->at,
                       (unsigned long long)s.n, (unsigned long long)max);
    *out = c->mem->text[c->mem->n_text++] = cm_strf("%.*s", (int)s.n, s.s);
    return true;
}

/* ---- keys ------------------------------------------------------------------------- */

static bool take_array(cursor *c, cm_gguf_kv *kv) {
    uint32_t elem;
    if (!take(c, &elem, 4, "an array") || !take(c, &kv->n, 8, "an array")) return false;
    if (elem > CM_GGUF_F64 || elem == CM_GGUF_ARR)
        return cm_fail(c->err, CM_EXIT_DATA, "%s: key '%.200s': array of type %u",
                       c->g->path, kv->key, elem);
    kv->elem = (cm_gguf_type)elem;
    if (kv->n > left(c) / elem_size[elem])
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: key '%.200s': an array of %llu runs past the end of the file",
                       c->g->path, kv->key, (unsigned long long)kv->n);
    if (elem != CM_GGUF_STR) {
        kv->data = c->g->map.data + c->at;
        c->at += kv->n * elem_size[elem];
        return true;
    }
    cm_gguf_str *s = calloc(kv->n + 1, sizeof *s);
    CM_ASSERT(s, "out of memory: %llu strings", (unsigned long long)kv->n);
    kv->data = c->mem->array[c->mem->n_array++] = s;
    for (uint64_t i = 0; i < kv->n; i++)
        if (!take_str(c, &s[i], "a string of an array")) return false;
    return true;
}

static bool take_value(cursor *c, cm_gguf_kv *kv) {
    if (kv->type == CM_GGUF_STR) return take_str(c, &kv->v.s, "a string");
    if (kv->type == CM_GGUF_ARR) return take_array(c, kv);
    unsigned char raw[8] = {0};
    if (!take(c, raw, elem_size[kv->type], "a value")) return false;
    cm_gguf_kv one = {.type = CM_GGUF_ARR, .elem = kv->type, .n = 1, .data = raw};
    switch (kv->type) {
    case CM_GGUF_BOOL: kv->v.b = raw[0] != 0; break;
    case CM_GGUF_F32:
    case CM_GGUF_F64: cm_gguf_f64(&one, 0, &kv->v.f); break;
    case CM_GGUF_U64: memcpy(&kv->v.u, raw, 8); break;
    default: cm_gguf_i64(&one, 0, &kv->v.i); break;
    }
    return true;
}

static int by_key(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names in text[from..n_text) must differ. */
static bool check_unique(const cursor *c, size_t from, const char *what) {
    size_t n = c->mem->n_text - from;
    char **p = malloc((n + 1) * sizeof *p);
    CM_ASSERT(p, "out of memory: %zu names", n);
    memcpy(p, c->mem->text + from, n * sizeof *p);
    qsort(p, n, sizeof *p, by_key);
    bool ok = true;
    for (size_t i = 1; ok && i < n; i++)
        if (!strcmp(p[i - 1], p[i]))
            ok = cm_fail(c->err, CM_EXIT_DATA, "%s: %s '%.200s' appears twice",
                         c->g->path, what, p[i]);
    free(p);
    return ok;
}

static bool take_keys(cursor *c, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        cm_gguf_kv *kv = &c->g->kv[i];
        uint32_t type;
        if (!take_name(c, &kv->key, MAX_KEY, "a key") || !take(c, &type, 4, "a type"))
            return false;
        if (type > CM_GGUF_F64)
            return cm_fail(c->err, CM_EXIT_DATA, "%s: key '%.200s': unknown type %u",
                           c->g->path, kv->key, type);
        kv->type = (cm_gguf_type)type;
        if (!take_value(c, kv)) return false;
        c->g->n_kv++;
    }
    return check_unique(c, 0, "key");
}

/* ---- tensors ---------------------------------------------------------------------- */

static bool tensor_type(const cursor *c, const char *name, uint32_t type, cm_dtype *out) {
    for (int i = 0; i < CM_N_DTYPES; i++)
        if (cm_dtypes[i].gguf >= 0 && (uint32_t)cm_dtypes[i].gguf == type) {
            *out = (cm_dtype)i;
            return true;
        }
    const char *known =
        type < sizeof gguf_types / sizeof *gguf_types ? gguf_types[type] : NULL;
    return cm_fail(c->err, CM_EXIT_DATA,
                   "%s: tensor '%s' has type %s (%u), which cannot be read here",
                   c->g->path, name, known ? known : "unknown", type);
}

/* One line of the tensor table; *end is where the tensor before it ended, padded. */
static bool take_info(cursor *c, cm_st_entry *e, uint64_t align, uint64_t *end) {
    uint32_t nd, type;
    uint64_t dim[CM_MAX_DIMS], off, bytes;
    if (!take_name(c, &e->name, MAX_NAME, "a tensor name") ||
        !take(c, &nd, 4, "a tensor"))
        return false;
    const char *path = c->g->path;
    if (nd > CM_MAX_DIMS)
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: tensor '%s' has %u dimensions; at most %d", path,
                       e->name, nd, CM_MAX_DIMS);
    if (!take(c, dim, 8ull * nd, "a tensor's shape") || !take(c, &type, 4, "a tensor") ||
        !take(c, &off, 8, "a tensor") || !tensor_type(c, e->name, type, &e->t.dtype))
        return false;
    e->t.nd = (int)nd;
    bool fits = true;
    for (uint32_t i = 0; i < nd; i++) {
        fits = fits && dim[i] <= INT64_MAX;
        e->t.dim[nd - 1 - i] = (int64_t)dim[i];
    }
    char shape[128];
    if (!fits || !cm_read_bytes(&e->t, &bytes))
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: tensor '%s': %s of shape %s is impossible", path,
                       e->name, cm_dtypes[e->t.dtype].name,
                       cm_tensor_shape_str(&e->t, shape, sizeof shape));
    if (off != *end)
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: tensor '%s' starts at offset %llu; after the one before it "
                       "%llu was wanted", path, e->name, (unsigned long long)off,
                       (unsigned long long)*end);
    if (bytes > c->g->map.size || *end > c->g->map.size - bytes)
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: tensor '%s' (%llu bytes at offset %llu) is larger than the "
                       "file; is it cut short?", path, e->name, (unsigned long long)bytes,
                       (unsigned long long)off);
    *end += (bytes + align - 1) / align * align;
    return true;
}

static bool alignment_of(const cursor *c, uint64_t *align) {
    const cm_gguf_kv *kv = cm_gguf_find(c->g, "general.alignment");
    *align = 32;
    if (!kv) return true;
    uint64_t a = kv->type == CM_GGUF_U32 ? (uint64_t)kv->v.i : 0;
    if (a < 1 || a > MAX_ALIGNMENT || (a & (a - 1)))
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: general.alignment is not a u32 power of two up to %d",
                       c->g->path, MAX_ALIGNMENT);
    *align = a;
    return true;
}

static bool take_tensors(cursor *c, uint64_t n) {
    uint64_t align, end = 0;
    size_t names = c->mem->n_text;
    if (!alignment_of(c, &align)) return false;
    uint64_t *off = malloc((n + 1) * sizeof *off);
    CM_ASSERT(off, "out of memory: %llu tensors", (unsigned long long)n);
    bool ok = true;
    for (uint64_t i = 0; ok && i < n; i++) {
        off[i] = end;
        ok = take_info(c, &c->g->tensor[i], align, &end);
        c->g->n_tensor += ok;
    }
    ok = ok && check_unique(c, names, "tensor");
    uint64_t base = (c->at + align - 1) / align * align;
    for (uint64_t i = 0; ok && i < n; i++) {
        cm_tensor *t = &c->g->tensor[i].t;
        uint64_t bytes = cm_tensor_bytes(t);
        if (base + off[i] + bytes > c->g->map.size && bytes)
            ok = cm_fail(c->err, CM_EXIT_DATA,
                         "%s: the file ends inside tensor '%s': %zu bytes, %llu wanted",
                         c->g->path, c->g->tensor[i].name, c->g->map.size,
                         (unsigned long long)(base + off[i] + bytes));
        else
            t->data = (void *)(uintptr_t)(c->g->map.data + (bytes ? base + off[i] : 0));
        if (ok) cm_copies_align(&c->mem->copies, t);
    }
    free(off);
    return ok;
}

/* ---- the file --------------------------------------------------------------------- */

static bool parse(cursor *c) {
    char magic[4];
    uint32_t version;
    uint64_t n_tensor, n_kv;
    const char *path = c->g->path;
    if (c->g->map.size < 24 || memcmp(c->g->map.data, "GGUF", 4))
        return cm_fail(c->err, CM_EXIT_DATA, "%s: not a GGUF file", path);
    take(c, magic, 4, "magic");
    take(c, &version, 4, "version");
    take(c, &n_tensor, 8, "tensor count");
    take(c, &n_kv, 8, "key count");
    if (version != 2 && version != 3)
        return cm_fail(c->err, CM_EXIT_DATA, "%s: GGUF version %u; 2 and 3 can be read",
                       path, version);
    /* The least bytes that a key (13) or a tensor (25) can take bound the counts. */
    if (n_kv > left(c) / 13 || n_tensor > left(c) / 25)
        return cm_fail(c->err, CM_EXIT_DATA,
                       "%s: %llu keys and %llu tensors do not fit in %zu bytes", path,
                       (unsigned long long)n_kv, (unsigned long long)n_tensor,
                       c->g->map.size);
    c->g->kv = calloc(n_kv + 1, sizeof *c->g->kv);
    c->g->tensor = calloc(n_tensor + 1, sizeof *c->g->tensor);
    c->mem->text = calloc(n_kv + n_tensor + 1, sizeof *c->mem->text);
    c->mem->array = calloc(n_kv + 1, sizeof *c->mem->array);
    CM_ASSERT(c->g->kv && c->g->tensor && c->mem->text && c->mem->array,
              "out of memory: GGUF header");
    return take_keys(c, n_kv) && take_tensors(c, n_tensor);
}

bool cm_gguf_open(cm_gguf *g, const char *path, cm_err *err) {
    *g = (cm_gguf){0};
    if (!cm_map_open(&g->map, path, err)) return false;
    gguf_mem *mem = g->mem = calloc(1, sizeof *mem);
    CM_ASSERT(mem, "out of memory: GGUF reader");
    g->path = mem->path = cm_strf("%s", path);
    cursor c = {g, mem, 0, err};
    if (parse(&c)) return true;
    cm_gguf_close(g);
    return false;
}

void cm_gguf_close(cm_gguf *g) {
    gguf_mem *mem = g->mem;
    if (mem) {
        for (size_t i = 0; i < mem->n_text; i++) free(mem->text[i]);
        for (size_t i = 0; i < mem->n_array; i++) free(mem->array[i]);
        cm_copies_free(&mem->copies);
        free(mem->text);
        free(mem->array);
        free(mem->path);
    }
    free(mem);
    free(g->kv);
    free(g->tensor);
    cm_map_close(&g->map);
    *g = (cm_gguf){0};
}

const cm_gguf_kv *cm_gguf_find(const cm_gguf *g, const char *key) {
    for (int i = 0; i < g->n_kv; i++)
        if (!strcmp(g->kv[i].key, key)) return &g->kv[i];
    return NULL;
}

const cm_tensor *cm_gguf_tensor(const cm_gguf *g, const char *name) {
    for (int i = 0; i < g->n_tensor; i++)
        if (!strcmp(g->tensor[i].name, name)) return &g->tensor[i].t;
    return NULL;
}

/* ---- values ----------------------------------------------------------------------- */

#define READ_AS(type)                                                                   \
    {                                                                                   \
        type x;                                                                         \
        memcpy(&x, (const unsigned char *)kv->data + i * sizeof x, sizeof x);           \
        *out = x;                                                                       \
        return true;                                                                    \
    }

bool cm_gguf_i64(const cm_gguf_kv *kv, uint64_t i, int64_t *out) {
    if (kv->type != CM_GGUF_ARR) {
        if (i || kv->type == CM_GGUF_STR || kv->type == CM_GGUF_BOOL ||
            kv->type == CM_GGUF_F32 || kv->type == CM_GGUF_F64 ||
            (kv->type == CM_GGUF_U64 && kv->v.u > INT64_MAX))
            return false;
        *out = kv->v.i;
        return true;
    }
    if (i >= kv->n) return false;
    switch (kv->elem) {
    case CM_GGUF_U8: READ_AS(uint8_t)
    case CM_GGUF_I8: READ_AS(int8_t)
    case CM_GGUF_U16: READ_AS(uint16_t)
    case CM_GGUF_I16: READ_AS(int16_t)
    case CM_GGUF_U32: READ_AS(uint32_t)
    case CM_GGUF_I32: READ_AS(int32_t)
    case CM_GGUF_I64: READ_AS(int64_t)
    default: return false;
    }
}

bool cm_gguf_f64(const cm_gguf_kv *kv, uint64_t i, double *out) {
    if (kv->type == CM_GGUF_F32 || kv->type == CM_GGUF_F64) {
        *out = kv->v.f;
        return i == 0;
    }
    if (kv->type == CM_GGUF_ARR && i < kv->n && kv->elem == CM_GGUF_F32) READ_AS(float)
    if (kv->type == CM_GGUF_ARR && i < kv->n && kv->elem == CM_GGUF_F64) READ_AS(double)
    int64_t whole;
    if (!cm_gguf_i64(kv, i, &whole)) return false;
    *out = (double)whole;
    return true;
}
