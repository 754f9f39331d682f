/* words_avx512bf16.c -- pairs of BF16 out of floats, for the small products (kern.h). */
#include "kern/gemm.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx512.h"

#define INLINE static inline __attribute__((always_inline))

/* `by` times the first `left` of 16 elements at x; none: 0. */
INLINE vf some(const float *x, int64_t left, vf by) {
    if (left >= VF_N) return vf_mul(by, vf_load(x));
    return left > 0 ? vf_mul(by, vf_load_m(x, vm_first(left))) : vf_zero();
}

INLINE void keep(float *y, int64_t left, __m512i v) {
    if (left >= VF_N) vf_store(y, _mm512_castsi512_ps(v));
    else vf_store_m(y, vm_first(left), _mm512_castsi512_ps(v));
}

/* Words of 32 elements, of which `left` are there: in order, then halves exchanged. */
INLINE void words_along(const float *x, int64_t left, vf by, float *y) {
    vf lo = some(x, left, by), hi = some(x + VF_N, left - VF_N, by);
    __m512i v = _mm512_rol_epi32((__m512i)_mm512_cvtne2ps_pbh(hi, lo), 16);
    keep(y, (left + 1) / 2, v);
}

void cm_pairs_along(int64_t rows, int64_t n, const float *s, const float *x, int64_t ldx,
                    float *y, int64_t ldy) {
    for (int64_t i = 0; i < rows; i++, x += ldx, y += ldy) {
        vf by = vf_set1(s ? s[i] : 1);
        int64_t p = 0;
        for (; p + 32 <= n; p += 32) words_along(x + p, 32, by, y + p / 2);
        if (p < n) words_along(x + p, n - p, by, y + p / 2);
    }
}

/* Words of 16 columns of two rows, `left` of them there; both: else the lower is 0. */
INLINE void words_down(const float *x, int64_t ldx, int64_t left, vf by, vf two, bool both,
                       float *y) {
    const __m512i order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
        23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    vf hi = some(x, left, by), lo = both ? some(x + ldx, left, two) : vf_zero();
    __m512i v = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
    keep(y, left, _mm512_permutexvar_epi16(order, v));
}

void cm_pairs_down(int64_t rows, int64_t n, const float *s, const float *x, int64_t ldx,
                   float *y, int64_t ldy) {
    for (int64_t i = 0; i < rows; i += 2, x += 2 * ldx, y += ldy) {
        bool both = i + 1 < rows;
        vf by = vf_set1(s ? s[i] : 1), two = vf_set1(s && both ? s[i + 1] : 1);
        int64_t j = 0;
        if (both)
            for (; j + VF_N <= n; j += VF_N)
                words_down(x + j, ldx, VF_N, by, two, true, y + j);
        for (; j < n; j += VF_N) words_down(x + j, ldx, n - j, by, two, both, y + j);
    }
}
#undef INLINE

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
