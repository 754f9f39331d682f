/* kern_avx512bf16.c -- what the level avx512bf16 adds to the table: rounding to BF16 by the
 * instruction, which does what the plain version does, by itself and on the way out of the
 * softmax of attention. */
#include "kern/kern.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx512.h"

#include <math.h>

#define VK(name) cm_avx512bf16_##name
#define VF_PAIRS(lo, hi) (__m512i)_mm512_cvtne2ps_pbh(hi, lo)
#include "kern/vec_fn.inc"
#include "kern/vec_soft.inc"

static void narrow(int64_t n, const float *x, void *y) {
    uint16_t *h = y;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m512 lo = _mm512_loadu_ps(x + i), hi = _mm512_loadu_ps(x + i + 16);
        _mm512_storeu_si512(h + i, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
    }
    for (; i < n; i += 16) {
        __mmask16 m = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffffu);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i);
        _mm256_mask_storeu_epi16(h + i, m, (__m256i)_mm512_cvtneps_pbh(v));
    }
}

void cm_overlay_avx512bf16(cm_kern *k) {
    k->narrow = narrow;
    k->attn_soft = cm_avx512bf16_attn_soft;
    k->attn_grad = cm_avx512bf16_attn_grad;
}

#else
void cm_overlay_avx512bf16(cm_kern *k) { (void)k; }
#endif
