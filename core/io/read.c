/* read.c -- what the safetensors and GGUF files share.
 *
 * Sizes from a file are multiplied with overflow checks, misaligned data is copied, and
 * tensors are written one at a time through one buffer, so that a file larger than
 * memory can be made. */
#include "io/read.h"

#include <stdlib.h>
#include <string.h>

bool cm_read_bytes(const cm_tensor *t, uint64_t *bytes) {
    const cm_dtype_info *d = &cm_dtypes[t->dtype];
    int64_t n = 1, last = t->nd ? t->dim[t->nd - 1] : 1;
    bool empty = false;
    for (int i = 0; i < t->nd; i++) {
        empty = empty || t->dim[i] == 0;
        if (t->dim[i] && __builtin_mul_overflow(n, t->dim[i], &n)) return false;
    }
    if (last % d->block || n > INT64_MAX / 64) return false;
    *bytes = empty ? 0 : (uint64_t)(n / d->block) * (uint64_t)d->bytes;
    return true;
}

/* What the elements of a type need: block types hold a 2-byte scale, read by memcpy. */
static size_t alignment(cm_dtype dt) {
    return cm_dtypes[dt].block > 1 ? 1 : (size_t)cm_dtypes[dt].bytes;
}

void cm_copies_align(cm_copies *c, cm_tensor *t) {
    if ((uintptr_t)t->data % alignment(t->dtype) == 0) return;
    size_t bytes = cm_tensor_bytes(t);
    void *copy = malloc(bytes + 1);
    c->p = realloc(c->p, ((size_t)c->n + 1) * sizeof *c->p);
    CM_ASSERT(copy && c->p, "out of memory: copy of a misaligned tensor");
    memcpy(copy, t->data, bytes);
    c->p[c->n++] = t->data = copy;
}

void cm_copies_free(cm_copies *c) {
    for (int i = 0; i < c->n; i++) free(c->p[i]);
    free(c->p);
    *c = (cm_copies){0};
}

bool cm_stream_tensor(cm_stream *s, int i, const cm_tensor *t, cm_err *err) {
    size_t bytes = cm_tensor_bytes(t);
    if (t->data || !bytes) return cm_out_write(s->out, t->data, bytes, err);
    CM_ASSERT(s->fill, "tensor %d has neither data nor a fill function", i);
    if (bytes > s->cap) {
        free(s->buf);
        s->buf = malloc(bytes);
        s->cap = s->buf ? bytes : 0;
        if (!s->buf)
            return cm_fail_errno(err, CM_EXIT_RESOURCE, "%zu bytes to write a tensor",
                                 bytes);
    }
    return s->fill(s->ctx, i, s->buf, err) && cm_out_write(s->out, s->buf, bytes, err);
}

void cm_stream_free(cm_stream *s) {
    free(s->buf);
    s->buf = NULL;
    s->cap = 0;
}
