/* narrow.h -- values and gradients that are stored as BF16 (op.h: cm_var).  Private to op/.
 *
 * An op computes a row of such an output in a small room of the thread, in cm_real, and puts
 * it where it belongs; so there is one arithmetic, whatever the storage. */
#ifndef CM_OP_NARROW_H
#define CM_OP_NARROW_H

#include "op/op.h"

/* x's gradient, BF16 where it is narrow. */
static inline cm_tensor cm_grad_of(const cm_var *x) {
    cm_tensor g = x->v;
    g.dtype = x->g_narrow ? CM_BF16_T : CM_REAL_DTYPE;
    g.data = x->g;
    return g;
}
/* A value or gradient as an operand of products. */
static inline cm_mat cm_mat_in(const cm_tensor *x, int64_t ld, bool t) {
    return (cm_mat){ x->data, ld, t, x->dtype == CM_BF16_T };
}
/* Where to compute elements [at, at+n) of x: in place, or, of a narrow one, in `room` for n;
 * then cm_put brings them there. */
static inline cm_real *cm_place(const cm_tensor *x, int64_t at, cm_real *room) {
    return x->dtype == CM_BF16_T ? room : cm_rdata(x) + at;
}
static inline void cm_put(const cm_tensor *x, int64_t at, int64_t n, const cm_real *from) {
    if (x->dtype == CM_BF16_T) cm_k.narrow(n, from, (uint16_t *)x->data + at);
}
/* Bytes of that room, one for each thread, when x is narrow. */
static inline size_t cm_rooms(const cm_tensor *x, int64_t n) {
    size_t one = cm_align_up((size_t)n * sizeof(cm_real));
    return x->dtype == CM_BF16_T ? one * (size_t)cm_kern_threads() : 0;
}
static inline cm_real *cm_room_of(void *rooms, int64_t n, int thread) {
    size_t one = cm_align_up((size_t)n * sizeof(cm_real));
    return rooms ? (cm_real *)(void *)((char *)rooms + one * (size_t)thread) : NULL;
}

#endif
