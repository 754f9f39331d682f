/* dtype.c -- conversions between element types, by integer arithmetic on the bits.
 *
 * Narrowing rounds to nearest, ties to even; overflow gives infinity; NaN stays NaN (and
 * becomes quiet).  Subnormal halves are exact in both directions. */
#include "tensor/widen.h"

#include <string.h>

const int8_t cm_iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

float cm_f16_to_f32(uint16_t h) { return cm_half_value(h); }

void cm_blocks_to_f32(cm_dtype dt, const void *src, float *dst, int64_t n) {
    if (__builtin_cpu_supports("avx2")) cm_blocks_to_f32_avx2(dt, src, dst, n);
    else cm_blocks_to_f32_ref(dt, src, dst, n);
}

static void widen_f16(const uint16_t *h, float *f, int64_t n) {
    if (__builtin_cpu_supports("avx2")) cm_f16s_to_f32_avx2(h, f, n);
    else cm_f16s_to_f32_ref(h, f, n);
}

static void widen_bf16(const uint16_t *restrict h, float *restrict f, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) f[i] = cm_bf16_to_f32(h[i]);
}

uint16_t cm_f32_to_f16(float f) {
    uint32_t u = cm_bits_of(f), mag = u & 0x7fffffff;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (mag > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (mag >> 13 & 0x3ff));
    if (mag >= 0x477ff000) return sign | 0x7c00; /* rounds to 2^16 or more */
    if (mag < 0x38800000) { /* below 2^-14: a multiple of 2^-24 */
        /* Adding 0.5 puts the unit of 2^-24 in the last bit, so the sum rounds as asked. */
        return (uint16_t)(sign | (cm_bits_of(cm_of_bits(mag) + 0.5f) - 0x3f000000));
    }
    uint32_t odd = mag >> 13 & 1;
    return (uint16_t)(sign | ((mag - 0x38000000 + 0xfff + odd) >> 13));
}

uint16_t cm_f32_to_bf16(float f) {
    uint32_t u = cm_bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

void cm_to_f32(cm_dtype dt, const void *src, float *dst, int64_t n) {
    CM_ASSERT(n % cm_dtypes[dt].block == 0, "%lld elements of %s", (long long)n,
              cm_dtypes[dt].name);
    const uint16_t *h = src;
    const double *d = src;
    switch (dt) {
    case CM_F32_T: if (n) memcpy(dst, src, (size_t)n * sizeof *dst); return;
    case CM_F64_T: for (int64_t i = 0; i < n; i++) dst[i] = (float)d[i]; return;
    case CM_F16_T: widen_f16(h, dst, n); return;
    case CM_BF16_T: widen_bf16(h, dst, n); return;
    default:
        CM_ASSERT(cm_dtypes[dt].block > 1, "no conversion from %s to F32", cm_dtypes[dt].name);
        cm_blocks_to_f32(dt, src, dst, n);
    }
}

void cm_from_f32(cm_dtype dt, const float *src, void *dst, int64_t n) {
    uint16_t *h = dst;
    double *d = dst;
    switch (dt) {
    case CM_F32_T: if (n) memcpy(dst, src, (size_t)n * sizeof *src); return;
    case CM_F64_T: for (int64_t i = 0; i < n; i++) d[i] = (double)src[i]; return;
    case CM_F16_T: for (int64_t i = 0; i < n; i++) h[i] = cm_f32_to_f16(src[i]); return;
    case CM_BF16_T: for (int64_t i = 0; i < n; i++) h[i] = cm_f32_to_bf16(src[i]); return;
    default: CM_ASSERT(false, "no conversion from F32 to %s", cm_dtypes[dt].name);
    }
}
