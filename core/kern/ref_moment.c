/* ref_moment.c -- reference kernels: AdamW's moments in two bytes or one an element.
 *
 * In float and integers, so that every level writes the same bits. */
#include "kern/moment.h"
#include "kern/ref.h"

/* 32 random bits of place i: a permutation of words with low bias (Wang's and Mueller's
 * kind), keyed by the stream. */
static uint32_t noise(uint32_t key, uint32_t i) {
    uint32_t x = i * CM_NOISE_STEP ^ key;
    x = (x ^ x >> 16) * CM_NOISE_1;
    x = (x ^ x >> 15) * CM_NOISE_2;
    return x ^ x >> 16;
}

void CM_REF(moment_read16)(int64_t n, const uint16_t *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = (cm_real)cm_bf16_to_f32(x[i]);
}

void CM_REF(moment_write16)(int64_t n, const cm_real *x, uint32_t key, uint16_t *y) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = cm_bits_of((float)x[i]);
        y[i] = (uint16_t)((u + (noise(key, (uint32_t)i) & 0xffffu)) >> 16);
    }
}

/* What code c stands for, as a share of the largest; c = 0: nothing. */
static float level(int top, int c) {
    int k = top - c;
    return c < 1 ? 0 : cm_of_bits(cm_eighth[k & 7] - ((uint32_t)(k >> 3) << 23));
}

void CM_REF(moment_read8)(int64_t n, int top, float max, const uint8_t *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) {
        int c = x[i] & top;
        float v = max * level(top, c);
        y[i] = (cm_real)(c == x[i] ? v : -v);
    }
}

/* The largest code whose level is at most x, a share in [0,1]; below the first: under 1. */
static int code_below(int top, float x) {
    uint32_t u = cm_bits_of(x), m = u & 0x7fffffu;
    int over = m >= cm_eighth_from[m >> 20];
    return top + 8 * ((int)(u >> 23) - 127) + (int)(m >> 20) + over;
}

static int code_of(int top, float x, uint32_t random) {
    int c = code_below(top, x);
    if (c >= top) return top;
    if (c < 1) c = 0;
    float lo = level(top, c), hi = level(top, c + 1);
    c += (float)(random >> 8) * 0x1p-24f * (hi - lo) < x - lo;
    return c ? c : top == 255;
}

float CM_REF(moment_write8)(int64_t n, int top, const cm_real *x, uint32_t key, uint8_t *y) {
    float max = 0;
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf((float)x[i]);
        if (a > max) max = a;
    }
    for (int64_t i = 0; i < n; i++) {
        float v = (float)x[i];
        int c = v == 0 ? 0 : code_of(top, fabsf(v) / max, noise(key, (uint32_t)i));
        y[i] = (uint8_t)(c && v < 0 ? c + 128 : c);
    }
    return max;
}
