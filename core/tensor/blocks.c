/* blocks.c -- block types to floats.
 *
 * Every product and sum is rounded as ggml rounds it (scale times sub-scale first, then times
 * the integer, then the minimum), so the floats are the same to the last bit. */
#include "tensor/tensor.h"


const int8_t cm_iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

/* ---- 32 elements -------------------------------------------------------------------- */

static void q8_0(const cm_q8_0 *b, float *y) {
    float d = cm_half_at(b->d);
    for (int j = 0; j < 32; j++) y[j] = d * (float)b->q[j];
}

static void q4_0(const cm_q4_0 *b, float *y) {
    float d = cm_half_at(b->d);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)((b->q[j] & 15) - 8);
        y[j + 16] = d * (float)((b->q[j] >> 4) - 8);
    }
}

static void q4_1(const cm_q4_1 *b, float *y) {
    float d = cm_half_at(b->d), m = cm_half_at(b->m);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)(b->q[j] & 15) + m;
        y[j + 16] = d * (float)(b->q[j] >> 4) + m;
    }
}

/* The 32 five-bit integers. */
static void five_bits(const uint8_t *h, const uint8_t *q, int *out) {
    uint32_t high = h[0] | (uint32_t)h[1] << 8 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 24;
    for (int j = 0; j < 16; j++) {
        out[j] = (q[j] & 15) | (int)(high >> j & 1) << 4;
        out[j + 16] = q[j] >> 4 | (int)(high >> (j + 16) & 1) << 4;
    }
}

static void q5_0(const cm_q5_0 *b, float *y) {
    int q[32];
    float d = cm_half_at(b->d);
    five_bits(b->h, b->q, q);
    for (int j = 0; j < 32; j++) y[j] = d * (float)(q[j] - 16);
}

static void q5_1(const cm_q5_1 *b, float *y) {
    int q[32];
    float d = cm_half_at(b->d), m = cm_half_at(b->m);
    five_bits(b->h, b->q, q);
    for (int j = 0; j < 32; j++) y[j] = d * (float)q[j] + m;
}

static void iq4_nl(const cm_q4_0 *b, float *y) {
    float d = cm_half_at(b->d);
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)cm_iq4_levels[b->q[j] & 15];
        y[j + 16] = d * (float)cm_iq4_levels[b->q[j] >> 4];
    }
}

/* ---- 256 elements ------------------------------------------------------------------- */

static void q2_k(const cm_q2_k *b, float *y) {
    float d = cm_half_at(b->d), dmin = cm_half_at(b->dmin);
    for (int s = 0; s < 16; s++, y += 16) {
        float ds = d * (float)(b->sc[s] & 15), m = dmin * (float)(b->sc[s] >> 4);
        const uint8_t *q = b->q + s / 8 * 32 + s % 2 * 16;
        int shift = s % 8 / 2 * 2;
        for (int j = 0; j < 16; j++) y[j] = ds * (float)(q[j] >> shift & 3) - m;
    }
}

static void q3_k(const cm_q3_k *b, float *y) {
    float d = cm_half_at(b->d);
    for (int s = 0; s < 16; s++, y += 16) {
        float ds = d * (float)(cm_q3_k_scale(b->sc, s) - 32);
        const uint8_t *q = b->q + s / 8 * 32 + s % 2 * 16, *h = b->h + s % 2 * 16;
        int shift = s % 8 / 2 * 2, bit = s / 2;
        for (int j = 0; j < 16; j++)
            y[j] = ds * (float)((q[j] >> shift & 3) + (h[j] >> bit & 1) * 4 - 4);
    }
}

static void q4_k(const cm_q4_k *b, float *y) {
    float d = cm_half_at(b->d), dmin = cm_half_at(b->dmin);
    for (int s = 0; s < 8; s++, y += 32) {
        int sc, mn;
        cm_k4_scale(b->sc, s, &sc, &mn);
        float ds = d * (float)sc, m = dmin * (float)mn;
        const uint8_t *q = b->q + s / 2 * 32;
        int shift = s % 2 * 4;
        for (int j = 0; j < 32; j++) y[j] = ds * (float)(q[j] >> shift & 15) - m;
    }
}

static void q5_k(const cm_q5_k *b, float *y) {
    float d = cm_half_at(b->d), dmin = cm_half_at(b->dmin);
    for (int s = 0; s < 8; s++, y += 32) {
        int sc, mn;
        cm_k4_scale(b->sc, s, &sc, &mn);
        float ds = d * (float)sc, m = dmin * (float)mn;
        const uint8_t *q = b->q + s / 2 * 32;
        int shift = s % 2 * 4;
        for (int j = 0; j < 32; j++)
            y[j] = ds * (float)((q[j] >> shift & 15) + (b->h[j] >> s & 1) * 16) - m;
    }
}

static void q6_k(const cm_q6_k *b, float *y) {
    float d = cm_half_at(b->d);
    for (int s = 0; s < 16; s++, y += 16) {
        float ds = d * (float)b->s[s];
        const uint8_t *l = b->l + s / 8 * 64 + s % 4 * 16, *h = b->h + s / 8 * 32 + s % 2 * 16;
        int low = s % 8 / 4 * 4, high = s % 8 / 2 * 2;
        for (int j = 0; j < 16; j++)
            y[j] = ds * (float)((l[j] >> low & 15) + (h[j] >> high & 3) * 16 - 32);
    }
}

static void iq4_xs(const cm_iq4_xs *b, float *y) {
    float d = cm_half_at(b->d);
    for (int s = 0; s < 8; s++, y += 32) {
        float ds = d * (float)(cm_iq4_xs_scale(b, s) - 32);
        const uint8_t *q = b->q + s * 16;
        for (int j = 0; j < 16; j++) {
            y[j] = ds * (float)cm_iq4_levels[q[j] & 15];
            y[j + 16] = ds * (float)cm_iq4_levels[q[j] >> 4];
        }
    }
}

/* ---- any ---------------------------------------------------------------------------- */

#define EACH(type, one)                                                                 \
    {                                                                                   \
        CM_ASSERT(sizeof(type) == (size_t)info->bytes, "layout of %s", info->name);     \
        const type *b = src;                                                            \
        for (int64_t i = 0; i < n; i += info->block) one(b++, dst + i);                 \
        return;                                                                         \
    }

void cm_blocks_to_f32(cm_dtype dt, const void *src, float *dst, int64_t n) {
    const cm_dtype_info *info = &cm_dtypes[dt];
    CM_ASSERT(n % info->block == 0, "%lld elements of %s", (long long)n, info->name);
    switch (dt) {
    case CM_Q8_0_T: EACH(cm_q8_0, q8_0)
    case CM_Q4_0_T: EACH(cm_q4_0, q4_0)
    case CM_Q4_1_T: EACH(cm_q4_1, q4_1)
    case CM_Q5_0_T: EACH(cm_q5_0, q5_0)
    case CM_Q5_1_T: EACH(cm_q5_1, q5_1)
    case CM_IQ4_NL_T: EACH(cm_q4_0, iq4_nl)
    case CM_Q2_K_T: EACH(cm_q2_k, q2_k)
    case CM_Q3_K_T: EACH(cm_q3_k, q3_k)
    case CM_Q4_K_T: EACH(cm_q4_k, q4_k)
    case CM_Q5_K_T: EACH(cm_q5_k, q5_k)
    case CM_Q6_K_T: EACH(cm_q6_k, q6_k)
    case CM_IQ4_XS_T: EACH(cm_iq4_xs, iq4_xs)
    default: CM_ASSERT(false, "%s is no block type", info->name);
    }
}
