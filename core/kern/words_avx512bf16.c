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

/* The 32 elements from x, of which `left` are there, as BF16. */
INLINE __m512i halves(const void *x, bool stored, int64_t left) {
    if (stored) {
        __mmask32 m = left >= 32 ? 0xffffffffu : (__mmask32)((1u << left) - 1);
        return _mm512_maskz_loadu_epi16(m, x);
    }
    const float *f = x;
    vf one = vf_set1(1);
    return (__m512i)_mm512_cvtne2ps_pbh(some(f + VF_N, left - VF_N, one), some(f, left, one));
}

/* Words of two rows a and b of 32 columns.  Down: halves of a above those of b. */
INLINE void words_of(__m512i a, __m512i b, bool both, int64_t left, float *along, int64_t lda,
                     float *down) {
    const __m512i first = _mm512_set_epi16(
        15, 47, 14, 46, 13, 45, 12, 44, 11, 43, 10, 42, 9, 41, 8, 40,
        7, 39, 6, 38, 5, 37, 4, 36, 3, 35, 2, 34, 1, 33, 0, 32);
    const __m512i then = _mm512_add_epi16(first, _mm512_set1_epi16(16));
    if (along) keep(along, (left + 1) / 2, _mm512_rol_epi32(a, 16));
    if (along && both) keep(along + lda, (left + 1) / 2, _mm512_rol_epi32(b, 16));
    if (!down) return;
    keep(down, left, _mm512_permutex2var_epi16(a, first, b));
    if (left > VF_N) keep(down + VF_N, left - VF_N, _mm512_permutex2var_epi16(a, then, b));
}

INLINE void pairs_of(int64_t rows, int64_t n, const cm_mat x, const bool stored, float *along,
                     int64_t lda, float *down, int64_t ldd) {
    for (int64_t i = 0; i < rows; i += 2) {
        bool both = i + 1 < rows;
        const void *a = cm_at(x.at, stored, i * x.ld);
        const void *b = both ? cm_at(a, stored, x.ld) : a;
        float *y = along ? along + i * lda : NULL, *z = down ? down + i / 2 * ldd : NULL;
        int64_t p = 0;
        for (; both && p + 32 <= n; p += 32)
            words_of(halves(cm_at(a, stored, p), stored, 32),
                     halves(cm_at(b, stored, p), stored, 32), true, 32, y ? y + p / 2 : NULL,
                     lda, z ? z + p : NULL);
        for (; p < n; p += 32) {
            __m512i one = halves(cm_at(a, stored, p), stored, n - p);
            __m512i two = both ? halves(cm_at(b, stored, p), stored, n - p)
                               : _mm512_setzero_si512();
            words_of(one, two, both, n - p, y ? y + p / 2 : NULL, lda, z ? z + p : NULL);
        }
    }
}

void cm_pairs_of(int64_t rows, int64_t n, cm_mat x, float *along, int64_t lda, float *down,
                 int64_t ldd) {
    if (x.stored) pairs_of(rows, n, x, true, along, lda, down, ldd);
    else pairs_of(rows, n, x, false, along, lda, down, ldd);
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
void cm_pairs_of(int64_t rows, int64_t n, cm_mat x, cm_real *along, int64_t lda,
                 cm_real *down, int64_t ldd) {
    (void)lda, (void)ldd;
    cm_pairs_along(rows, n, NULL, x.at, x.ld, along, 0);
    cm_pairs_down(rows, n, NULL, x.at, x.ld, down, 0);
}
#endif
