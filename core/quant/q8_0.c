/* q8_0.c -- Q8_0: 32 values share a half-precision scale d = amax/127.
 *
 * llama.cpp divides by the scale before it is rounded to half precision, and rounds
 * halves away from zero; both are needed for equal bytes. */
#include "quant/quant.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32, BYTES = 34 };

static void encode_block(const float *x, unsigned char *out) {
    float amax = 0;
    for (int j = 0; j < BLOCK; j++) amax = fabsf(x[j]) > amax ? fabsf(x[j]) : amax;
    float d = amax / 127, id = d != 0 ? 1 / d : 0;
    uint16_t half = cm_f32_to_f16(d);
    memcpy(out, &half, sizeof half);
    for (int j = 0; j < BLOCK; j++) {
        float q = roundf(x[j] * id);
        /* 1/d can be infinite for subnormal d: keep the conversion defined. */
        out[2 + j] = (unsigned char)(int8_t)(q > 127 ? 127 : q >= -127 ? q : -127);
    }
}

void cm_quantize(cm_dtype dt, const float *src, void *dst, int64_t n) {
    if (dt != CM_Q8_0_T) {
        cm_from_f32(dt, src, dst, n);
        return;
    }
    CM_ASSERT(n % BLOCK == 0, "%lld elements of Q8_0", (long long)n);
    unsigned char *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += BYTES) encode_block(src + i, out);
}

double cm_quant_error(cm_dtype dt, double amax) {
    switch (dt) {
    case CM_F32_T:
    case CM_F64_T: return 0;
    case CM_F16_T: return amax * 0x1p-11 + 0x1p-25;
    case CM_BF16_T: return amax * 0x1p-8 + 0x1p-134;
    case CM_Q8_0_T: {
        /* Half a step, and 127 times the scale's own rounding: 2^-11 of it, or 2^-25
         * where it is subnormal as a half; it can at most vanish. */
        double d = amax / 127, scale = fmin(d, fmax(d * 0x1p-11, 0x1p-25));
        return (d / 2 + 127 * scale) * (1 + 0x1p-20);
    }
    default: CM_ASSERT(false, "no encoder of %s", cm_dtypes[dt].name);
    }
    return 0;
}
