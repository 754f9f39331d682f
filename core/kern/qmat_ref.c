/* qmat_ref.c -- block-quantized products in plain C: what the vector levels must equal. */
#include "kern/qmat.h"

#include <math.h>
#include <string.h>

enum { LANES = CM_Q_LANES };

/* ---- activations -------------------------------------------------------------------- */

static float magnitude(const cm_real *x, int n) {
    uint32_t most = 0, u;
    for (int k = 0; k < n; k++) {
        float f = fabsf((float)x[k]);
        memcpy(&u, &f, sizeof u);
        if (u > most) most = u; /* as integers NaN is above infinity, and that above all */
    }
    float f;
    memcpy(&f, &most, sizeof f);
    return f;
}

/* Integers of one row of one block; returns the step.  Steps below any normal result count
 * as zero; what is not finite makes the step NaN. */
static float integers(const cm_real *x, int n, int *a) {
    float most = magnitude(x, n), up = 0;
    bool good = most < INFINITY;
    if (good && most > 1e-30f) up = 127 / most;
    for (int k = 0; k < n; k++) a[k] = up > 0 ? (int)rintf((float)x[k] * up) : 0;
    return !good ? NAN : up > 0 ? most / 127 : 0;
}

static void sums(const cm_qform *f, int block, const int *a, int off, int32_t *to, int rows) {
    int run[16] = { 0 }, n = block / f->run;
    for (int k = 0; k < block; k++) run[k / f->run] += a[k];
    if (!f->minima)
        for (int i = 0; i < n && off; i++) to[i * rows] = -off * run[i];
    else if (n == 1)
        to[0] = run[0];
    else
        for (int i = 0; i < n / 2; i++) {
            int j = i / 2 * 4 + i % 2;
            to[i * rows] = (int32_t)((uint32_t)run[j + 2] << 16 | ((uint32_t)run[j] & 0xffff));
        }
}

static void ref_round(const cm_qform *f, int block, int64_t K, const cm_real *x, int64_t ldx,
                      const cm_qtile *t) {
    int off = f->off == CM_Q_OFF8 ? 128 : f->off, per = cm_qsums(f, block, 128), a[256];
    for (int i = 0; i < t->rows; i++)
        for (int64_t b = 0; b < K / block; b++) {
            t->d[b * t->rows + i] = integers(x + i * ldx + b * block, block, a);
            sums(f, block, a, off, t->sum + b * per * t->rows + i, t->rows);
            for (int k = 0; k < block; k++)
                t->a[((b * block + k) / 4 * t->rows + i) * 4 + k % 4] = (int8_t)a[k];
        }
}

/* ---- weights ------------------------------------------------------------------------ */

/* A block of one row in integers: W = d s (w - off) - dm m. */
typedef struct ints {
    int w[256], s[16], m[16];
    float d, dm;
} ints;

static int nibble(const uint8_t *q, int j) { return j < 16 ? q[j] & 15 : q[j - 16] >> 4; }
static int bit(const uint8_t *h, int j) { return h[j / 8] >> j % 8 & 1; }

static void of_32(cm_dtype t, const uint8_t *raw, ints *o) {
    union { cm_q8_0 q80; cm_q4_0 q40; cm_q4_1 q41; cm_q5_0 q50; cm_q5_1 q51; } b;
    memcpy(&b, raw, (size_t)cm_dtypes[t].bytes);
    o->d = cm_half_at(raw); /* first in all of them */
    if (t == CM_Q4_1_T || t == CM_Q5_1_T) o->dm = -cm_half_at(raw + 2);
    for (int j = 0; j < 32; j++) switch (t) {
        case CM_Q8_0_T: o->w[j] = b.q80.q[j] + 128; break;
        case CM_Q4_0_T: o->w[j] = nibble(b.q40.q, j); break;
        case CM_IQ4_NL_T: o->w[j] = cm_iq4_levels[nibble(b.q40.q, j)] + 128; break;
        case CM_Q4_1_T: o->w[j] = nibble(b.q41.q, j); break;
        case CM_Q5_0_T: o->w[j] = nibble(b.q50.q, j) | bit(b.q50.h, j) << 4; break;
        default: o->w[j] = nibble(b.q51.q, j) | bit(b.q51.h, j) << 4;
        }
}

static void q2_k(const cm_q2_k *b, ints *o) {
    o->d = cm_half_at(b->d), o->dm = cm_half_at(b->dmin);
    for (int s = 0; s < 16; s++) o->s[s] = b->sc[s] & 15, o->m[s] = b->sc[s] >> 4;
    for (int j = 0; j < 256; j++)
        o->w[j] = b->q[j / 128 * 32 + j % 32] >> 2 * (j % 128 / 32) & 3;
}

static void q3_k(const cm_q3_k *b, ints *o) {
    o->d = cm_half_at(b->d);
    for (int s = 0; s < 16; s++) o->s[s] = cm_q3_k_scale(b->sc, s) - 32;
    for (int j = 0; j < 256; j++)
        o->w[j] = (b->q[j / 128 * 32 + j % 32] >> 2 * (j % 128 / 32) & 3) |
                  (b->h[j % 32] >> j / 32 & 1) << 2;
}

static void q4_k(const cm_q4_k *b, ints *o) {
    o->d = cm_half_at(b->d), o->dm = cm_half_at(b->dmin);
    for (int s = 0; s < 8; s++) cm_k4_scale(b->sc, s, &o->s[s], &o->m[s]);
    for (int j = 0; j < 256; j++)
        o->w[j] = b->q[j / 64 * 32 + j % 32] >> j / 32 % 2 * 4 & 15;
}

static void q5_k(const cm_q5_k *b, ints *o) {
    o->d = cm_half_at(b->d), o->dm = cm_half_at(b->dmin);
    for (int s = 0; s < 8; s++) cm_k4_scale(b->sc, s, &o->s[s], &o->m[s]);
    for (int j = 0; j < 256; j++)
        o->w[j] = (b->q[j / 64 * 32 + j % 32] >> j / 32 % 2 * 4 & 15) |
                  (b->h[j % 32] >> j / 32 & 1) << 4;
}

static void q6_k(const cm_q6_k *b, ints *o) {
    o->d = cm_half_at(b->d);
    for (int s = 0; s < 16; s++) o->s[s] = b->s[s];
    for (int j = 0; j < 256; j++) {
        int r = j % 128;
        o->w[j] = (b->l[j / 128 * 64 + r % 64] >> r / 64 * 4 & 15) |
                  (b->h[j / 128 * 32 + r % 32] >> 2 * (r / 32) & 3) << 4;
    }
}

static void iq4_xs(const cm_iq4_xs *b, ints *o) {
    o->d = cm_half_at(b->d);
    for (int s = 0; s < 8; s++) o->s[s] = cm_iq4_xs_scale(b, s) - 32;
    for (int j = 0; j < 256; j++)
        o->w[j] = cm_iq4_levels[nibble(b->q + j / 32 * 16, j % 32)] + 128;
}

static void of_block(cm_dtype t, const uint8_t *raw, ints *o) {
    union { cm_q2_k q2; cm_q3_k q3; cm_q4_k q4; cm_q5_k q5; cm_q6_k q6; cm_iq4_xs iq; } b;
    *o = (ints){ .s = { 1 }, .m = { 1 } };
    if (cm_dtypes[t].block == 256) memcpy(&b, raw, (size_t)cm_dtypes[t].bytes);
    switch (t) {
    case CM_Q2_K_T: q2_k(&b.q2, o); break;
    case CM_Q3_K_T: q3_k(&b.q3, o); break;
    case CM_Q4_K_T: q4_k(&b.q4, o); break;
    case CM_Q5_K_T: q5_k(&b.q5, o); break;
    case CM_Q6_K_T: q6_k(&b.q6, o); break;
    case CM_IQ4_XS_T: iq4_xs(&b.iq, o); break;
    default: of_32(t, raw, o);
    }
}

static void put_lane(const cm_qform *f, int block, const ints *o, int lane, uint8_t *to) {
    cm_qopen_at at = cm_qopen_of(f, block);
    int runs = block / f->run;
    ((float *)(to + at.d))[lane] = o->d;
    if (f->minima) ((float *)(to + at.dm))[lane] = o->dm;
    for (int k = 0; k < block; k++)
        to[at.w + (k / 4 * LANES + lane) * 4 + k % 4] = (uint8_t)o->w[k];
    if (runs == 1) return;
    int32_t *s = (int32_t *)(to + at.s), *m = (int32_t *)(to + at.m);
    for (int i = 0; i < runs / 2; i++)
        s[i * LANES + lane] = (int32_t)((uint32_t)o->s[2 * i + 1] << 16 |
                                        ((uint32_t)o->s[2 * i] & 0xffff));
    for (int i = 0; f->minima && i < runs / 2; i++) {
        int j = i / 2 * 4 + i % 2;
        m[i * LANES + lane] = o->m[j] | o->m[j + 2] << 16;
    }
}

static void ref_open(cm_dtype t, int64_t n, const uint8_t *panel, uint8_t *opened) {
    const cm_qform *f = cm_qform_of(t);
    int block = cm_dtypes[t].block;
    for (int64_t b = 0; b < n; b++)
        for (int lane = 0; lane < LANES; lane++) {
            uint8_t raw[256];
            ints o;
            cm_qmat_take(t, panel + b * LANES * cm_dtypes[t].bytes, lane, raw);
            of_block(t, raw, &o);
            put_lane(f, block, &o, lane, opened + b * cm_qopen_of(f, block).bytes);
        }
}

/* ---- products ----------------------------------------------------------------------- */

/* What one block of x, row i of its tile, gives with one lane. */
static float one(const cm_qform *f, int block, const uint8_t *open, int lane, const int8_t *a,
                 const int32_t *sum, int rows) {
    cm_qopen_at at = cm_qopen_of(f, block);
    int runs = block / f->run, per = f->run / 4;
    const int32_t *s = (const int32_t *)(open + at.s), *m = (const int32_t *)(open + at.m);
    int32_t S = 0, N = 0;
    for (int i = 0; i < runs; i++) {
        int32_t dot = f->off && !f->minima ? sum[i * rows] : 0;
        for (int p = i * per; p < (i + 1) * per; p++)
            for (int k = 0; k < 4; k++)
                dot += open[at.w + (p * LANES + lane) * 4 + k] * a[p * rows * 4 + k];
        int32_t pair = runs > 1 ? s[i / 2 * LANES + lane] : 1;
        S += dot * (i % 2 ? pair >> 16 : (int16_t)(pair & 0xffff));
    }
    float d = ((const float *)(open + at.d))[lane];
    if (!f->minima) return d * (float)S;
    if (runs == 1) N = sum[0];
    for (int i = 0; runs > 1 && i < runs / 2; i++) {
        int32_t pair = m[i * LANES + lane], x = sum[i * rows];
        N += (pair & 0xffff) * (int16_t)(x & 0xffff) + (pair >> 16) * (x >> 16);
    }
    return fmaf((float)S, d, -(((const float *)(open + at.dm))[lane] * (float)N));
}

static void ref_tile(cm_dtype t, int64_t n, const uint8_t *panel, const uint8_t *opened,
                     const cm_qtile *x, float *y) {
    (void)panel; /* all of it is decoded */
    const cm_qform *f = cm_qform_of(t);
    int block = cm_dtypes[t].block, per = cm_qsums(f, block, 128), R = x->rows;
    size_t step = (size_t)cm_qopen_of(f, block).bytes;
    for (int i = 0; i < R; i++)
        for (int lane = 0; lane < LANES; lane++)
            for (int64_t b = 0; b < n; b++) {
                float v = one(f, block, opened + (size_t)b * step, lane,
                              x->a + (b * block / 4 * R + i) * 4, x->sum + b * per * R + i, R);
                y[i * LANES + lane] = fmaf(x->d[b * R + i], v, y[i * LANES + lane]);
            }
}

static void ref_put(int64_t rows, const float *from, cm_real scale, cm_real *y, int64_t ldy) {
    for (int64_t i = 0; i < rows; i++)
        for (int l = 0; l < LANES; l++) y[i * ldy + l] = scale * (cm_real)from[i * LANES + l];
}

static void ref_turn(const uint8_t *const from[LANES], uint8_t *to, int64_t step) {
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 8; i++) memcpy(to + i * step + 4 * lane, from[lane] + 4 * i, 4);
}

static void ref_widen(cm_dtype t, const void *from, int64_t n, cm_real *to) {
    const uint16_t *h = from;
    for (int64_t i = 0; i < n; i++)
        to[i] = (cm_real)(t == CM_F16_T ? cm_f16_to_f32(h[i]) : cm_bf16_to_f32(h[i]));
}

const cm_qkern cm_qkern_ref = { .off8 = 128, .round = ref_round, .open = ref_open,
                                .tile = ref_tile, .put = ref_put, .turn = ref_turn,
                                .widen = ref_widen };
