/* gguf_out.c -- writer of GGUF v3 files.
 *
 * Keys are serialised as they are put; tensors are remembered and written in the order
 * they were put, each padded to 32 bytes, which is the order llama.cpp demands. */
#include "io/io.h"
#include "io/read.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32, MAX_NAME = 63 };

struct cm_gguf_out {
    cm_buf kv;
    uint64_t n_kv;
    cm_st_entry *tensor; /* names owned here */
    int n, cap;
};

cm_gguf_out *cm_gguf_out_open(void) {
    cm_gguf_out *g = calloc(1, sizeof *g);
    CM_ASSERT(g, "out of memory: GGUF writer");
    return g;
}

void cm_gguf_out_close(cm_gguf_out *g) {
    if (!g) return;
    for (int i = 0; i < g->n; i++) free((void *)(uintptr_t)g->tensor[i].name);
    free(g->tensor);
    cm_buf_free(&g->kv);
    free(g);
}

/* ---- keys ------------------------------------------------------------------------- */

static void add_u32(cm_buf *b, uint32_t v) { cm_buf_add(b, &v, 4); }
static void add_u64(cm_buf *b, uint64_t v) { cm_buf_add(b, &v, 8); }

static void add_str(cm_buf *b, const char *s, size_t n) {
    add_u64(b, n);
    cm_buf_add(b, s, n);
}

static void begin(cm_gguf_out *g, const char *key, cm_gguf_type type) {
    add_str(&g->kv, key, strlen(key));
    add_u32(&g->kv, type);
    g->n_kv++;
}

void cm_gguf_put_u32(cm_gguf_out *g, const char *key, uint32_t v) {
    begin(g, key, CM_GGUF_U32);
    add_u32(&g->kv, v);
}

void cm_gguf_put_f32(cm_gguf_out *g, const char *key, float v) {
    begin(g, key, CM_GGUF_F32);
    cm_buf_add(&g->kv, &v, 4);
}

void cm_gguf_put_bool(cm_gguf_out *g, const char *key, bool v) {
    begin(g, key, CM_GGUF_BOOL);
    cm_buf_add(&g->kv, v ? "\1" : "\0", 1);
}

void cm_gguf_put_str(cm_gguf_out *g, const char *key, const char *s) {
    begin(g, key, CM_GGUF_STR);
    add_str(&g->kv, s, strlen(s));
}

void cm_gguf_put_arr(cm_gguf_out *g, const char *key, cm_gguf_type elem, const void *data,
                     uint64_t n) {
    begin(g, key, CM_GGUF_ARR);
    add_u32(&g->kv, elem);
    add_u64(&g->kv, n);
    if (elem == CM_GGUF_STR) {
        const cm_gguf_str *s = data;
        for (uint64_t i = 0; i < n; i++) add_str(&g->kv, s[i].s, s[i].n);
        return;
    }
    CM_ASSERT(elem == CM_GGUF_U32 || elem == CM_GGUF_I32 || elem == CM_GGUF_F32,
              "key '%s': arrays of type %d are not written", key, (int)elem);
    cm_buf_add(&g->kv, data, n * 4);
}

/* ---- tensors ---------------------------------------------------------------------- */

void cm_gguf_put_tensor(cm_gguf_out *g, const char *name, const cm_tensor *t) {
    CM_ASSERT(strlen(name) <= MAX_NAME, "tensor name '%s' is too long for GGUF", name);
    CM_ASSERT(cm_dtypes[t->dtype].gguf >= 0, "GGUF cannot hold %s",
              cm_dtypes[t->dtype].name);
    if (g->n == g->cap) {
        g->cap = g->cap ? 2 * g->cap : 64;
        g->tensor = realloc(g->tensor, (size_t)g->cap * sizeof *g->tensor);
        CM_ASSERT(g->tensor, "out of memory: %d tensors", g->cap);
    }
    g->tensor[g->n++] = (cm_st_entry){cm_strf("%s", name), *t};
}

static uint64_t padded(uint64_t n) { return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static void build_header(const cm_gguf_out *g, cm_buf *b) {
    cm_buf_add(b, "GGUF", 4);
    add_u32(b, 3);
    add_u64(b, (uint64_t)g->n);
    add_u64(b, g->n_kv);
    cm_buf_add(b, g->kv.s, g->kv.n);
    uint64_t at = 0;
    for (int i = 0; i < g->n; i++) {
        const cm_tensor *t = &g->tensor[i].t;
        add_str(b, g->tensor[i].name, strlen(g->tensor[i].name));
        add_u32(b, (uint32_t)t->nd);
        for (int k = t->nd - 1; k >= 0; k--) add_u64(b, (uint64_t)t->dim[k]);
        add_u32(b, (uint32_t)cm_dtypes[t->dtype].gguf);
        add_u64(b, at);
        at += padded(cm_tensor_bytes(t));
    }
    while (b->n % ALIGNMENT) cm_buf_add(b, "", 1);
}

uint64_t cm_gguf_out_bytes(const cm_gguf_out *g) {
    cm_buf head = {0};
    build_header(g, &head);
    uint64_t bytes = head.n;
    cm_buf_free(&head);
    for (int i = 0; i < g->n; i++) bytes += padded(cm_tensor_bytes(&g->tensor[i].t));
    return bytes;
}

bool cm_gguf_out_write(cm_gguf_out *g, const char *path, cm_fill_fn fill, void *ctx,
                       cm_err *err) {
    static const char zeros[ALIGNMENT];
    cm_out o;
    if (!cm_out_open(&o, path, err)) return false;
    cm_buf head = {0};
    build_header(g, &head);
    cm_stream st = {&o, fill, ctx, NULL, 0};
    bool ok = cm_out_write(&o, head.s, head.n, err);
    for (int i = 0; ok && i < g->n; i++) {
        uint64_t n = cm_tensor_bytes(&g->tensor[i].t);
        ok = cm_stream_tensor(&st, i, &g->tensor[i].t, err) &&
             cm_out_write(&o, zeros, padded(n) - n, err);
    }
    ok = ok && cm_out_commit(&o, err);
    if (!ok) cm_out_abort(&o);
    cm_stream_free(&st);
    cm_buf_free(&head);
    return ok;
}
