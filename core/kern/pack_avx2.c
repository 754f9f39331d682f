/* pack_avx2.c -- packing for the strict gemm: panels of W rows or columns, K outermost.
 *
 * Both operands end up as dst[p*W + i]; `cm_pack_rows` reads a strip whose K is contiguous
 * (a transpose, done in 8x8 blocks in registers), `cm_pack_cols` strips that lie W wide
 * beside each other in memory (copies).  Lanes past `rows` are unspecified.  Stores may
 * run up to 7 elements past the panel: buffers carry CM_PACK_SLACK.  Used by every vector
 * level.  Without AVX512_BF16 a panel of BF16 operands holds them as floats: it is packed,
 * then rounded in place. */
#include "kern/gemm.h"

#include <string.h>

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/transpose_avx2.h"

void cm_pack_rows(float *dst, int w, const void *src, bool stored, int64_t ld,
                  int64_t rows, int64_t k) {
    const float *r[32];
    CM_ASSERT(!stored, "floats wanted");
    for (int i = 0; i < 32; i++) r[i] = (const float *)src + (i < rows ? i : rows - 1) * ld;
    int64_t p = 0;
    /* Groups from the right: what one spills past the panel its successor overwrites. */
    for (; p + 8 <= k; p += 8)
        for (int i = (w - 1) / 8 * 8; i >= 0; i -= 8) {
            __m256 b[8];
            transpose8(r + i, p, b);
            for (int j = 0; j < 8; j++) _mm256_storeu_ps(dst + (p + j) * w + i, b[j]);
        }
    for (; p < k; p++)
        for (int i = 0; i < w; i++) dst[p * w + i] = r[i][p];
}

/* Rows of the source run past all panels before the next row: one strip at a time would
 * fetch each of its lines, rows apart and often in one cache set, for every strip. */
void cm_pack_cols(float *dst, int w, const void *from, bool stored, int64_t ld,
                  int64_t cols, int64_t k) {
    const float *src = from;
    int64_t whole = cols / w * w, rest = cols - whole;
    CM_ASSERT(!stored, "floats wanted");
    for (int64_t p = 0; p < k; p++, src += ld) {
        float *d = dst + p * w;
        /* Groups of 8 may read into the next row and spill into the next step's place,
         * which is written later; the last step has neither. */
        if (p + 1 < k)
            for (int64_t j = 0; j < whole; j += w, d += w * k)
                for (int i = 0; i < w; i += 8)
                    _mm256_storeu_ps(d + i, _mm256_loadu_ps(src + j + i));
        else
            for (int64_t j = 0; j < whole; j += w, d += w * k)
                memcpy(d, src + j, (size_t)w * sizeof *d);
        if (rest) memcpy(d, src + whole, (size_t)rest * sizeof *d);
    }
}

/* cm_as_bf16 of 8 elements. */
static __m256i rounded8(__m256i u) {
    const __m256i one = _mm256_set1_epi32(1), exponent = _mm256_set1_epi32(0x7f800000);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), one);
    __m256i up = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd);
    __m256i r = _mm256_add_epi32(u, up), e = _mm256_and_si256(u, exponent);
    /* Infinity and NaN keep their upper bits, NaN gets a set one. */
    __m256i m = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffff));
    __m256i nan = _mm256_andnot_si256(_mm256_cmpeq_epi32(m, _mm256_setzero_si256()),
                                      _mm256_set1_epi32(0x400000));
    __m256i huge = _mm256_cmpeq_epi32(e, exponent);
    r = _mm256_blendv_epi8(r, _mm256_or_si256(u, nan), huge);
    __m256i tiny = _mm256_cmpeq_epi32(e, _mm256_setzero_si256());
    __m256i keep = _mm256_blendv_epi8(_mm256_set1_epi32((int)0xffff0000u),
                                      _mm256_set1_epi32((int)0x80000000u), tiny);
    return _mm256_and_si256(r, keep);
}

/* cm_as_bf16 of n elements; writes up to 7 more. */
static void round_panels(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        __m256i *at = (__m256i *)(void *)(x + i);
        _mm256_storeu_si256(at, rounded8(_mm256_loadu_si256(at)));
    }
}

void cm_round_avx2(int64_t n, float *x) {
    int64_t whole = n / 8 * 8;
    round_panels(x, whole);
    for (int64_t i = whole; i < n; i++) x[i] = cm_as_bf16(x[i]);
}

/* n values from BF16. */
static void widen(float *dst, const uint16_t *src, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(src + i));
        __m256i u = _mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
        _mm256_storeu_ps(dst + i, _mm256_castsi256_ps(u));
    }
    for (; i < n; i++) dst[i] = cm_bf16_to_f32(src[i]);
}

/* Rows are widened a part at a time, then transposed as floats are. */
static void wide_rows(float *dst, int w, const uint16_t *src, int64_t ld, int64_t rows,
                      int64_t k) {
    enum { PART = 64 };
    float part[32 * PART];
    for (int64_t p = 0; p < k; p += PART) {
        int64_t n = k - p < PART ? k - p : PART;
        for (int64_t i = 0; i < rows; i++) widen(part + i * PART, src + i * ld + p, n);
        cm_pack_rows(dst + p * w, w, part, false, PART, rows, n);
    }
}

static void rounded_rows(float *dst, int w, const void *src, bool stored, int64_t ld,
                         int64_t rows, int64_t k) {
    if (stored) wide_rows(dst, w, src, ld, rows, k);
    else cm_pack_rows(dst, w, src, false, ld, rows, k);
    round_panels(dst, w * k);
}

static void rounded_cols(float *dst, int w, const void *src, bool stored, int64_t ld,
                         int64_t cols, int64_t k) {
    const uint16_t *h = src;
    for (int64_t p = 0; stored && p < k; p++, h += ld)
        for (int64_t j = 0; j < cols; j += w)
            widen(dst + j * k + p * w, h + j, cols - j < w ? cols - j : w);
    if (!stored) cm_pack_cols(dst, w, src, false, ld, cols, k);
    round_panels(dst, (cols + w - 1) / w * w * k);
}

cm_micro cm_micro_rounded(const cm_micro *m) {
    cm_micro r = *m;
    r.rows = rounded_rows;
    r.cols = rounded_cols;
    return r;
}

#else /* no vector level here: nobody packs */
void cm_round_avx2(int64_t n, cm_real *x) {
    for (int64_t i = 0; i < n; i++) x[i] = cm_as_bf16(x[i]);
}
cm_micro cm_micro_rounded(const cm_micro *m) { return *m; }
#endif
