/* moment.c -- AdamW's moments in two bytes or one an element: optim.state.
 *
 * They are widened before a step and narrowed after it, rounded at random to one of the two
 * neighbours so that the mean stays right: rounded to nearest, a moment whose step is
 * smaller than half a spacing would stand still.  The random numbers follow from (seed,
 * update, moment, place), so a run repeats itself to the bit.
 *   bf16  the upper half of a float
 *   int8  blocks of 256 share their largest magnitude M; a code c > 0 is M 2^((c - C)/8), C the
 *         largest code, so neighbours differ by 9%; 0 is 0.  First moments: a sign and
 *         C = 127, down to M 2^-15.75; second moments: C = 255, down to M 2^-31.75, and what is
 *         smaller but not 0 becomes that, since a root of 0 would divide.
 * Compare the blockwise 8-bit states of arXiv 2110.02861. */
#include "train/trainer.h"

enum { BLOCK = CM_MOMENT_BLOCK, SMALL = 4096 };

/* Small tensors are not worth it. */
static int state_of(const cm_optim_conf *c, const cm_tensor *w) {
    return cm_tensor_count(w) < SMALL ? CM_STATE_FP32 : c->state;
}

cm_tensor cm__moment_like(const cm_optim_conf *c, const cm_tensor *w) {
    cm_tensor t = *w;
    int64_t n = cm_tensor_count(w), blocks = (n + BLOCK - 1) / BLOCK;
    t.data = NULL;
    if (state_of(c, w) == CM_STATE_BF16) t.dtype = CM_BF16_T;
    if (state_of(c, w) == CM_STATE_INT8)
        t = (cm_tensor){ .dtype = CM_U8_T, .nd = 1,
                         .dim = { blocks * (int64_t)sizeof(float) + n } };
    return t;
}

/* The largest code. */
static int top_of(bool second) { return second ? 255 : 127; }

/* The int8 layout: all maxima, then all codes. */
static float *maxima(const cm_tensor *t) { return t->data; }
static uint8_t *codes_at(const cm_tensor *t, int64_t all, int64_t at) {
    return (uint8_t *)t->data + (all + BLOCK - 1) / BLOCK * (int64_t)sizeof(float) + at;
}

void cm__moment_read(const cm_tensor *t, int64_t all, bool second, int64_t at, int64_t n,
                     cm_real *to) {
    if (t->dtype == CM_BF16_T) {
        cm_k.moment_read16(n, (const uint16_t *)t->data + at, to);
        return;
    }
    for (int64_t i = 0; i < n; i += BLOCK)
        cm_k.moment_read8(n - i < BLOCK ? n - i : BLOCK, top_of(second),
                          maxima(t)[(at + i) / BLOCK], codes_at(t, all, at + i), to + i);
}

void cm__moment_write(const cm_tensor *t, int64_t all, bool second, int64_t at, int64_t n,
                      const cm_real *from, uint64_t random) {
    if (t->dtype == CM_BF16_T) {
        cm_k.moment_write16(n, from, (uint32_t)random, (uint16_t *)t->data + at);
        return;
    }
    for (int64_t i = 0; i < n; i += BLOCK)
        maxima(t)[(at + i) / BLOCK] =
            cm_k.moment_write8(n - i < BLOCK ? n - i : BLOCK, top_of(second), from + i,
                               (uint32_t)random + (uint32_t)i * 7919u, codes_at(t, all, at + i));
}
