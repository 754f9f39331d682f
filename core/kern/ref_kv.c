/* ref_kv.c -- reference kernels: rows of a KV cache as halves and as Q8_0 blocks. */
#include "kern/ref.h"

#include <string.h>

static const float MOST = 65504; /* the largest half */

void CM_REF(encode_f16)(int64_t n, const cm_real *x, uint16_t *y) {
    for (int64_t i = 0; i < n; i++) {
        float v = (float)x[i];
        y[i] = cm_f32_to_f16(v > MOST ? MOST : v < -MOST ? -MOST : v);
    }
}

void CM_REF(decode_f16)(int64_t n, const uint16_t *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = (cm_real)cm_f16_to_f32(x[i]);
}

/* The largest magnitude; NaN if there is one: bits of magnitudes order like magnitudes, and
 * NaN above all. */
static float largest(const float *x) {
    uint32_t most = 0, u;
    float f;
    for (int i = 0; i < 32; i++) {
        memcpy(&u, &x[i], sizeof u);
        u &= 0x7fffffff;
        if (u > most) most = u;
    }
    memcpy(&f, &most, sizeof f);
    return f;
}

void CM_REF(encode_q8)(int64_t n, const cm_real *x, cm_q8_0 *y) {
    for (int64_t b = 0; b < n / 32; b++, x += 32, y++) {
        float v[32];
        for (int i = 0; i < 32; i++) v[i] = (float)x[i];
        float d = largest(v) / 127;
        uint16_t h = cm_f32_to_f16(d > MOST ? MOST : d);
        d = cm_f16_to_f32(h);
        y->d[0] = (uint8_t)h, y->d[1] = (uint8_t)(h >> 8);
        memset(y->q, 0, sizeof y->q);
        if (!(d > 0)) continue;
        float id = 1 / d;
        for (int i = 0; i < 32; i++) {
            float q = v[i] * id;
            y->q[i] = (int8_t)nearbyintf(q > 127 ? 127 : q < -127 ? -127 : q);
        }
    }
}

void CM_REF(decode_q8)(int64_t n, int64_t from, const cm_q8_0 *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) {
        const cm_q8_0 *b = &x[(from + i) / 32];
        y[i] = (cm_real)(cm_half_at(b->d) * (float)b->q[(from + i) % 32]);
    }
}
