/* gemm_avx512bf16.c -- products of BF16 operands by vdpbf16ps: pairs, and their packing.
 *
 * One instruction is t = fma(a_lo, b_lo, fma(a_hi, b_hi, t)) in every lane, on halves of 32
 * bits; so panels are those of the fp32 kernels with a pair of steps of K in the place of a
 * float, the earlier step in the upper half, and the micro-kernel is the same text. */
#include "kern/gemm.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx512.h"

#define INLINE static inline __attribute__((always_inline))

/* ---- packing -------------------------------------------------------------------------- */

/* The 32 elements from x (those in the masks) as BF16, element 0 lowest. */
INLINE __m512i halves(const void *x, bool stored, __mmask32 m) {
    if (stored) return _mm512_maskz_loadu_epi16(m, x);
    const float *f = x;
    __m512 lo = _mm512_maskz_loadu_ps((__mmask16)m, f);
    __m512 hi = _mm512_maskz_loadu_ps((__mmask16)(m >> 16), f + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
}

INLINE __mmask32 first32(int64_t n) {
    return n >= 32 ? 0xffffffffu : (__mmask32)((1u << n) - 1);
}

/* A row of n elements as pairs: its BF16 numbers in order, halves of words exchanged.  next:
 * a row that will be asked for soon. */
INLINE void pair_row(float *dst, const void *src, bool stored, int64_t n, const void *next) {
    int64_t p = 0;
    for (; p + 32 <= n; p += 32) {
        const char *soon = cm_at(next, stored, p);
        __builtin_prefetch(soon);
        if (!stored) __builtin_prefetch(soon + 64);
        __m512i v = halves(cm_at(src, stored, p), stored, 0xffffffffu);
        _mm512_storeu_si512(dst + p / 2, _mm512_rol_epi32(v, 16));
    }
    if (p == n) return;
    __m512i v = halves(cm_at(src, stored, p), stored, first32(n - p));
    _mm512_storeu_si512(dst + p / 2, _mm512_rol_epi32(v, 16));
}

/* Rows become pairs in a small buffer, whose words the fp32 packing then transposes. */
static void pack_rows(float *dst, int w, const void *src, bool stored, int64_t ld,
                      int64_t rows, int64_t k) {
    enum { PART = 128 };
    float part[32 * PART / 2];
    for (int64_t p = 0; p < k; p += PART) {
        int64_t n = k - p < PART ? k - p : PART;
        for (int64_t i = 0; i < rows; i++)
            pair_row(part + i * (PART / 2), cm_at(src, stored, i * ld + p), stored, n,
                     cm_at(src, stored, (i + w) * ld + p));
        cm_pack_rows(dst + p / 2 * w, w, part, false, PART / 2, rows, (n + 1) / 2);
    }
}

/* Words of 16 columns from rows x (upper halves) and y (lower; absent: 0). */
INLINE __m512i pair_cols(const void *x, const void *y, bool stored, __mmask16 m) {
    __mmask16 my = y ? m : 0;
    if (stored) {
        const __m512i both = _mm512_set_epi16(
            47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8,
            39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
        __m512i hi = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(m, x));
        __m512i lo = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(my, y));
        return _mm512_permutex2var_epi16(lo, both, hi);
    }
    __m512 hi = _mm512_maskz_loadu_ps(m, x), lo = _mm512_maskz_loadu_ps(my, y);
    const __m512i order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
        23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
}

/* Two rows of the source, one panel of n <= w columns; `spill`: whole vectors may be read
 * and written, past the panel too. */
INLINE void pair_panel(float *d, const void *x, const void *y, bool stored, int64_t n,
                       bool spill) {
    for (int64_t i = 0; i < n; i += 16) {
        const void *yi = y ? cm_at(y, stored, i) : NULL;
        vm m = spill ? 0xffff : vm_first(n - i);
        vf v = _mm512_castsi512_ps(pair_cols(cm_at(x, stored, i), yi, stored, m));
        if (spill) vf_store(d + i, v);
        else vf_store_m(d + i, m, v);
    }
}

/* Rows run past all panels, as in cm_pack_cols; what spills is written over later, save in
 * the last step.  Rows some steps ahead are called for, as they lie far apart. */
INLINE void pairs_by_cols(float *dst, const int w, const void *src, const bool stored,
                          int64_t ld, int64_t cols, int64_t k) {
    enum { AHEAD = 16 };
    int64_t n_steps = (k + 1) / 2, whole = cols / w * w;
    for (int64_t p = 0; p < k; p += 2) {
        const void *x = cm_at(src, stored, p * ld);
        const void *y = p + 1 < k ? cm_at(src, stored, (p + 1) * ld) : NULL;
        const char *soon = cm_at(x, stored, AHEAD * ld), *then = cm_at(soon, stored, ld);
        int64_t bytes = cols * (stored ? 2 : 4);
        for (int64_t i = 0; i < bytes; i += 64) {
            __builtin_prefetch(soon + i);
            __builtin_prefetch(then + i);
        }
        float *d = dst + p / 2 * w;
        bool spill = p + 2 < k;
        int64_t j = 0;
        for (; spill && j < whole; j += w, d += w * n_steps)
            pair_panel(d, cm_at(x, stored, j), cm_at(y, stored, j), stored, w, true);
        for (; j < cols; j += w, d += w * n_steps)
            pair_panel(d, cm_at(x, stored, j), y ? cm_at(y, stored, j) : NULL, stored,
                       cols - j < w ? cols - j : w, false);
    }
}

static void pack_cols(float *dst, int w, const void *src, bool stored, int64_t ld,
                      int64_t cols, int64_t k) {
    CM_ASSERT(w == 32 || w == 14, "panels of %d columns", w);
    if (stored && w == 32) pairs_by_cols(dst, 32, src, true, ld, cols, k);
    else if (stored) pairs_by_cols(dst, 14, src, true, ld, cols, k);
    else if (w == 32) pairs_by_cols(dst, 32, src, false, ld, cols, k);
    else pairs_by_cols(dst, 14, src, false, ld, cols, k);
}
#undef INLINE

/* ---- the micro-kernel ----------------------------------------------------------------- */

#define VK(name) cm_avx512bf16_##name
#define GEMM_MICRO cm_micro_avx512bf16
#define GEMM_FMA(a, b, t) _mm512_dpbf16_ps(t, (__m512bh)(a), (__m512bh)(b))
#define GEMM_PAIR 2
#define GEMM_PACK_ROWS pack_rows
#define GEMM_PACK_COLS pack_cols
/* As in kern_avx512.c. */
#define GEMM_MR 14
#define GEMM_ROWS(X)                                                                    \
    X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#include "kern/vec_gemm.inc"

#else
const cm_micro cm_micro_avx512bf16;
#endif
