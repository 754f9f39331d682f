/* widen.h -- halves and blocks to floats; private to tensor/. */
#ifndef CM_TENSOR_WIDEN_H
#define CM_TENSOR_WIDEN_H

#include "tensor/tensor.h"

#include <string.h>

/* Of a half's bits the float.  Masks in place of branches, so that loops become vectors. */
static inline float cm_half_value(uint32_t h) {
    uint32_t mag = h & 0x7fff, huge = -(uint32_t)(mag >= 0x7c00), nan = -(uint32_t)(mag > 0x7c00);
    uint32_t tiny = -(uint32_t)(mag < 0x400); /* below 2^-14: a multiple of 2^-24 */
    uint32_t bits = (mag << 13) + 0x38000000u + (huge & 0x38000000u), small;
    float f = (float)(int32_t)mag * 0x1p-24f;
    memcpy(&small, &f, sizeof small);
    bits = (bits & ~tiny) | (small & tiny) | (nan & 0x400000) | (h & 0x8000) << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* n elements, whole blocks.  With AVX2 instructions, and without: the same bits. */
void cm_blocks_to_f32_ref(cm_dtype dt, const void *src, float *dst, int64_t n);
void cm_blocks_to_f32_avx2(cm_dtype dt, const void *src, float *dst, int64_t n);
void cm_f16s_to_f32_ref(const uint16_t *h, float *f, int64_t n);
void cm_f16s_to_f32_avx2(const uint16_t *h, float *f, int64_t n);

#endif
