/* read.h -- what the safetensors and GGUF files share; private to io/. */
#ifndef CM_IO_READ_H
#define CM_IO_READ_H

#include "io/io.h"

/* Bytes of a tensor from a hostile header: false when the product overflows 2^62 or the
 * last dimension is not whole blocks. */
bool cm_read_bytes(const cm_tensor *t, uint64_t *bytes);

/* Tensors that start at an address their elements cannot be read from are copied. */
typedef struct cm_copies {
    void **p;
    int n;
} cm_copies;
void cm_copies_align(cm_copies *c, cm_tensor *t);
void cm_copies_free(cm_copies *c);

/* Writing tensors whose bytes come from memory or, where data is NULL, from fill. */
typedef struct cm_stream {
    cm_out *out;
    cm_fill_fn fill;
    void *ctx;
    void *buf;
    size_t cap;
} cm_stream;
bool cm_stream_tensor(cm_stream *s, int i, const cm_tensor *t, cm_err *err);
void cm_stream_free(cm_stream *s);

#endif
