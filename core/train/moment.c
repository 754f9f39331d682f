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

#include <math.h>
#include <string.h>

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

/* ---- random numbers ------------------------------------------------------------------- */

/* 32 random bits of place i: a permutation of words with low bias (Wang's and Mueller's
 * kind), keyed by the stream. */
static inline uint32_t noise(uint32_t key, uint32_t i) {
    uint32_t x = i * 0x9e3779b9u ^ key;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* ---- bf16 ----------------------------------------------------------------------------- */

static void read_bf16(const uint16_t *from, int64_t n, cm_real *to) {
    for (int64_t i = 0; i < n; i++) to[i] = (cm_real)cm_bf16_to_f32(from[i]);
}

static void write_bf16(uint16_t *to, int64_t n, const cm_real *from, uint32_t key) {
    for (int64_t i = 0; i < n; i++) {
        float f = (float)from[i];
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        to[i] = (uint16_t)((bits + (noise(key, (uint32_t)i) & 0xffffu)) >> 16);
    }
}

/* ---- int8 ----------------------------------------------------------------------------- */

/* 2^(-k/8) for k eighths below the largest code. */
static float level(int k) {
    static const double eighth[8] = { 1, 0.91700404320467123, 0.84089641525371454,
        0.77110541270397041, 0.70710678118654752, 0.64841977732550483, 0.59460355750136053,
        0.54525386633262882 };
    return (float)ldexp(eighth[k & 7], -(k >> 3));
}

/* Values of all codes over their block's largest. */
typedef struct {
    float value[256];
    int top; /* 127 with a sign, 255 without */
} codes;

static void make_codes(codes *t, bool is_signed) {
    *t = (codes){ .top = is_signed ? 127 : 255 };
    for (int c = 1; c <= t->top; c++) t->value[c] = level(t->top - c);
    for (int c = 129; is_signed && c < 256; c++) t->value[c] = -t->value[c - 128];
}

static void read_block(const codes *t, const float *max, const uint8_t *code, int64_t n,
                       cm_real *to) {
    for (int64_t i = 0; i < n; i++) to[i] = (cm_real)(*max * t->value[code[i]]);
}

/* The code of share x = |value| / M in [0,1], whose logarithm is ln: one of the neighbours. */
static int code_of(const codes *t, float x, float ln, uint32_t random) {
    const float per = 11.541560327111708f; /* 8 / ln 2 */
    int c = t->top + (int)floorf(ln * per);
    if (c >= t->top) return t->top;
    if (c < 1) c = 0;
    float lo = t->value[c], hi = t->value[c + 1], u = (float)(random >> 8) * 0x1p-24f;
    c += u * (hi - lo) < x - lo;
    return c ? c : t->top == 255;
}

static void write_block(const codes *t, float *max, uint8_t *code, int64_t n,
                        const cm_real *from, uint32_t key) {
    cm_real x[BLOCK], ln[BLOCK];
    float m = 0;
    for (int64_t i = 0; i < n; i++) m = fmaxf(m, (float)fabs((double)from[i]));
    *max = m;
    if (m == 0) {
        memset(code, 0, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        double share = fabs((double)from[i]) / (double)m;
        x[i] = (cm_real)(share > 1e-30 ? share : 1e-30);
    }
    cm_k.vlog(n, x, ln);
    for (int64_t i = 0; i < n; i++) {
        int c = from[i] == 0 ? 0
                             : code_of(t, (float)x[i], (float)ln[i], noise(key, (uint32_t)i));
        code[i] = (uint8_t)(c && from[i] < 0 ? c + 128 : c);
    }
}

/* ---- both ----------------------------------------------------------------------------- */

/* The int8 layout: all maxima, then all codes. */
static float *maxima(const cm_tensor *t) { return t->data; }
static uint8_t *codes_at(const cm_tensor *t, int64_t all, int64_t at) {
    return (uint8_t *)t->data + (all + BLOCK - 1) / BLOCK * (int64_t)sizeof(float) + at;
}

void cm__moment_read(const cm_tensor *t, int64_t all, bool second, int64_t at, int64_t n,
                     cm_real *to) {
    if (t->dtype == CM_BF16_T) {
        read_bf16((const uint16_t *)t->data + at, n, to);
        return;
    }
    codes table;
    make_codes(&table, !second);
    for (int64_t i = 0; i < n; i += BLOCK)
        read_block(&table, maxima(t) + (at + i) / BLOCK, codes_at(t, all, at + i),
                   n - i < BLOCK ? n - i : BLOCK, to + i);
}

void cm__moment_write(const cm_tensor *t, int64_t all, bool second, int64_t at, int64_t n,
                      const cm_real *from, uint64_t random) {
    if (t->dtype == CM_BF16_T) {
        write_bf16((uint16_t *)t->data + at, n, from, (uint32_t)random);
        return;
    }
    codes table;
    make_codes(&table, !second);
    for (int64_t i = 0; i < n; i += BLOCK)
        write_block(&table, maxima(t) + (at + i) / BLOCK, codes_at(t, all, at + i),
                    n - i < BLOCK ? n - i : BLOCK, from + i,
                    (uint32_t)random + (uint32_t)i * 7919u);
}
