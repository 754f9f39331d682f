/* tensor.c -- sizes and shapes of tensors. */
#include "tensor/tensor.h"

#include <string.h>

const cm_dtype_info cm_dtypes[CM_N_DTYPES] = {
#define X(id, name, el, by, gg, st) [id] = { name, el, by, gg, st },
    CM_DTYPES(X)
#undef X
};

int64_t cm_tensor_count(const cm_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->nd; i++) n *= t->dim[i];
    return n;
}

size_t cm_tensor_bytes(const cm_tensor *t) {
    const cm_dtype_info *d = &cm_dtypes[t->dtype];
    int64_t last = t->nd ? t->dim[t->nd - 1] : 1;
    CM_ASSERT(last % d->block == 0, "%s tensor with a last dimension of %lld", d->name,
              (long long)last);
    return (size_t)(cm_tensor_count(t) / d->block) * (size_t)d->bytes;
}

bool cm_tensor_same_shape(const cm_tensor *a, const cm_tensor *b) {
    if (a->nd != b->nd) return false;
    for (int i = 0; i < a->nd; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

const char *cm_tensor_shape_str(const cm_tensor *t, char *buf, size_t cap) {
    size_t n = 0;
    for (int i = 0; i < t->nd && n < cap; i++)
        n += (size_t)snprintf(buf + n, cap - n, "%s%lld", i ? "," : "[",
                              (long long)t->dim[i]);
    if (n < cap) snprintf(buf + n, cap - n, t->nd ? "]" : "[]");
    return buf;
}
