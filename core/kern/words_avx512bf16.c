/* words_avx512bf16.c -- pairs of BF16 out of floats, for the small products (kern.h). */
#include "kern/gemm.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx512.h"

static inline vf scaled(const float *x, vm m, const float *s) {
    vf v = vf_load_m(x, m);
    return s ? vf_mul(vf_set1(*s), v) : v;
}

void cm_pairs_along(int64_t rows, int64_t n, const float *s, const float *x, int64_t ldx,
                    float *y, int64_t ldy) {
    for (int64_t i = 0; i < rows; i++, x += ldx, y += ldy) {
        const float *by = s ? s + i : NULL;
        for (int64_t p = 0; p < n; p += 32) {
            vf lo = scaled(x + p, vm_first(n - p), by);
            vf hi = n - p > 16 ? scaled(x + p + 16, vm_first(n - p - 16), by) : vf_zero();
            /* In order, then halves of words exchanged. */
            __m512i v = _mm512_rol_epi32((__m512i)_mm512_cvtne2ps_pbh(hi, lo), 16);
            vf_store_m(y + p / 2, vm_first((n - p + 1) / 2), _mm512_castsi512_ps(v));
        }
    }
}

void cm_pairs_down(int64_t rows, int64_t n, const float *s, const float *x, int64_t ldx,
                   float *y, int64_t ldy) {
    const __m512i order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
        23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int64_t i = 0; i < rows; i += 2, x += 2 * ldx, y += ldy) {
        bool two = i + 1 < rows;
        for (int64_t j = 0; j < n; j += 16) {
            vm m = vm_first(n - j);
            vf hi = scaled(x + j, m, s ? s + i : NULL);
            vf lo = two ? scaled(x + ldx + j, m, s ? s + i + 1 : NULL) : vf_zero();
            __m512i v = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
            vf_store_m(y + j, m, _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, v)));
        }
    }
}

#else /* no pairs here */
void cm_pairs_along(int64_t rows, int64_t n, const cm_real *s, const cm_real *x, int64_t ldx,
                    cm_real *y, int64_t ldy) {
    (void)rows, (void)n, (void)s, (void)x, (void)ldx, (void)y, (void)ldy;
    CM_ASSERT(false, "pairs of BF16 without the instruction");
}
void cm_pairs_down(int64_t rows, int64_t n, const cm_real *s, const cm_real *x, int64_t ldx,
                   cm_real *y, int64_t ldy) {
    cm_pairs_along(rows, n, s, x, ldx, y, ldy);
}
#endif
