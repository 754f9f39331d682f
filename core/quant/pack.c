/* pack.c -- the bytes of blocks (layouts: tensor.h), and the two types without a search. */
#include "quant/pack.h"

#include <math.h>
#include <string.h>

static void put_half(uint8_t *b, float f) {
    uint16_t h = cm_f32_to_f16(f);
    b[0] = (uint8_t)h;
    b[1] = (uint8_t)(h >> 8);
}

/* ---- without a search --------------------------------------------------------------- */

/* To the nearest integer, halves away from zero; |v| < 2^31. */
static inline int round_away(float v) {
    int t = (int)v;
    float rest = v - (float)t; /* exact */
    return t + (rest >= 0.5f) - (rest <= -0.5f);
}

/* llama.cpp divides by the scale before it is rounded to half precision, and rounds halves
 * away from zero; both are needed for equal bytes. */
void cm_encode_q8_0(const float *x, void *dst) {
    cm_q8_0 *b = dst;
    float amax = 0;
    for (int j = 0; j < 32; j++) amax = fabsf(x[j]) > amax ? fabsf(x[j]) : amax;
    float d = amax / 127, id = d != 0 ? 1 / d : 0;
    put_half(b->d, d);
    for (int j = 0; j < 32; j++) {
        /* 1/d can be infinite for subnormal d: keep the conversion defined. */
        float v = x[j] * id;
        b->q[j] = (int8_t)round_away(v > 127 ? 127 : v >= -127 ? v : -127);
    }
}

/* d maps the element of largest magnitude (the first of them) to -8; rounding is towards zero
 * after adding 8.5. */
void cm_encode_q4_0(const float *x, void *dst) {
    cm_q4_0 *b = dst;
    float big = 0;
    for (int j = 0; j < 32; j++) big = fabsf(x[j]) > fabsf(big) ? x[j] : big;
    float d = big / -8, id = d != 0 ? 1 / d : 0;
    uint8_t q[32];
    put_half(b->d, d);
    for (int j = 0; j < 32; j++) {
        float v = x[j] * id + 8.5f;
        q[j] = (uint8_t)(v >= 15 ? 15 : v > 0 ? v : 0);
    }
    for (int j = 0; j < 16; j++) b->q[j] = (uint8_t)(q[j] | q[j + 16] << 4);
}

/* ---- 32 elements -------------------------------------------------------------------- */

static void nibbles(const int *q, uint8_t *out) {
    for (int j = 0; j < 16; j++) out[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static void fifth_bits(const int *q, uint8_t *h) {
    memset(h, 0, 4);
    for (int j = 0; j < 32; j++) h[j / 8] |= (uint8_t)((q[j] >> 4 & 1) << j % 8);
}

static int iq4_index(int level) {
    int i = 0;
    while (cm_iq4_levels[i] != level) i++;
    return i;
}

static void pack32(cm_dtype dt, const cm_found *f, int i, uint8_t *dst) {
    int q[32];
    const int16_t *from = f->q + 32 * i;
    int zero = dt == CM_Q4_0_T ? 8 : dt == CM_Q5_0_T ? 16 : 0;
    for (int j = 0; j < 32; j++)
        q[j] = dt == CM_IQ4_NL_T ? iq4_index(from[j]) : from[j] + zero;
    bool min = dt == CM_Q4_1_T || dt == CM_Q5_1_T;
    put_half(dst, f->d[i]);
    if (min) put_half(dst + 2, -f->m[i]);
    dst += min ? 4 : 2;
    if (dt == CM_Q5_0_T || dt == CM_Q5_1_T) {
        fifth_bits(q, dst);
        dst += 4;
    }
    nibbles(q, dst);
}

/* ---- 256 elements ------------------------------------------------------------------- */

/* Bits 0 and 1 of v[j] where Q2_K and Q3_K have them. */
static void put_pairs(const uint8_t *v, uint8_t *q) {
    for (int j = 0; j < 256; j++)
        q[j / 128 * 32 + j % 32] |= (uint8_t)((v[j] & 3) << j % 128 / 32 * 2);
}

static void pack_q2_k(const cm_found *f, cm_q2_k *b) {
    uint8_t v[256];
    for (int j = 0; j < 256; j++) v[j] = (uint8_t)f->q[j];
    for (int i = 0; i < 16; i++) b->sc[i] = (uint8_t)(f->s[i] | f->mn[i] << 4);
    put_pairs(v, b->q);
    put_half(b->d, f->d[0]);
    put_half(b->dmin, f->m[0]);
}

static void pack_q3_k(const cm_found *f, cm_q3_k *b) {
    uint8_t v[256];
    for (int j = 0; j < 256; j++) {
        v[j] = (uint8_t)(f->q[j] + 4);
        b->h[j % 32] |= (uint8_t)(v[j] >> 2 << j / 32);
    }
    put_pairs(v, b->q);
    for (int i = 0; i < 16; i++) {
        int s = f->s[i] + 32;
        b->sc[i % 8] |= (uint8_t)((s & 15) << 4 * (i / 8));
        b->sc[8 + i % 4] |= (uint8_t)(s >> 4 << 2 * (i / 4));
    }
    put_half(b->d, f->d[0]);
}

/* What cm_k4_scale reads. */
static void put_k4_scales(const int *s, const int *m, uint8_t *sc) {
    for (int j = 0; j < 4; j++) {
        sc[j] = (uint8_t)(s[j] | s[j + 4] >> 4 << 6);
        sc[j + 4] = (uint8_t)(m[j] | m[j + 4] >> 4 << 6);
        sc[j + 8] = (uint8_t)((s[j + 4] & 15) | (m[j + 4] & 15) << 4);
    }
}

/* Low nibbles in pairs of runs of 32. */
static void put_nibbles(const int16_t *v, uint8_t *q) {
    for (int i = 0; i < 4; i++, v += 64, q += 32)
        for (int j = 0; j < 32; j++) q[j] = (uint8_t)((v[j] & 15) | (v[j + 32] & 15) << 4);
}

static void pack_q4_k(const cm_found *f, cm_q4_k *b) {
    put_half(b->d, f->d[0]);
    put_half(b->dmin, f->m[0]);
    put_k4_scales(f->s, f->mn, b->sc);
    put_nibbles(f->q, b->q);
}

static void pack_q5_k(const cm_found *f, cm_q5_k *b) {
    put_half(b->d, f->d[0]);
    put_half(b->dmin, f->m[0]);
    put_k4_scales(f->s, f->mn, b->sc);
    put_nibbles(f->q, b->q);
    for (int j = 0; j < 256; j++) b->h[j % 32] |= (uint8_t)((f->q[j] >> 4 & 1) << j / 32);
}

static void pack_q6_k(const cm_found *f, cm_q6_k *b) {
    const int16_t *v = f->q;
    for (int i = 0; i < 2; i++, v += 128) {
        uint8_t *l = b->l + 64 * i, *h = b->h + 32 * i;
        for (int j = 0; j < 64; j++)
            l[j] = (uint8_t)(((v[j] + 32) & 15) | ((v[j + 64] + 32) & 15) << 4);
        for (int j = 0; j < 32; j++)
            h[j] = (uint8_t)((v[j] + 32) >> 4 | (v[j + 32] + 32) >> 4 << 2 |
                             (v[j + 64] + 32) >> 4 << 4 | (v[j + 96] + 32) >> 4 << 6);
    }
    for (int i = 0; i < 16; i++) b->s[i] = (int8_t)f->s[i];
    put_half(b->d, f->d[0]);
}

static void pack_iq4_xs(const cm_found *f, cm_iq4_xs *b) {
    put_half(b->d, f->d[0]);
    for (int i = 0; i < 8; i++) {
        int s = f->s[i] + 32, q[32];
        b->l[i / 2] |= (uint8_t)((s & 15) << 4 * (i % 2));
        b->h[i / 4] |= (uint8_t)(s >> 4 << 2 * (i % 4));
        for (int j = 0; j < 32; j++) q[j] = iq4_index(f->q[32 * i + j]);
        nibbles(q, b->q + 16 * i);
    }
}

void cm_pack(cm_dtype dt, const cm_found *f, int blocks, void *dst) {
    size_t bytes = (size_t)cm_dtypes[dt].bytes;
    memset(dst, 0, (size_t)blocks * bytes);
    switch (dt) {
    case CM_Q2_K_T: pack_q2_k(f, dst); return;
    case CM_Q3_K_T: pack_q3_k(f, dst); return;
    case CM_Q4_K_T: pack_q4_k(f, dst); return;
    case CM_Q5_K_T: pack_q5_k(f, dst); return;
    case CM_Q6_K_T: pack_q6_k(f, dst); return;
    case CM_IQ4_XS_T: pack_iq4_xs(f, dst); return;
    default: break;
    }
    for (int i = 0; i < blocks; i++) pack32(dt, f, i, (uint8_t *)dst + (size_t)i * bytes);
}
