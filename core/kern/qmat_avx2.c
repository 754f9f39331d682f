/* qmat_avx2.c -- block-quantized products in AVX2: pairs of bytes to 16 bits, pairs of these to
 * 32, and nothing saturates: six bits by 127, twice, is 16002; full bytes are multiplied as
 * magnitudes, 128 by 127 twice at most, with their signs moved to the other side. */
#include "kern/qmat.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx2.h"

#include <math.h>
#include <string.h>

typedef __m256i vi;
typedef uint32_t vu __attribute__((vector_size(32)));
typedef int32_t vs __attribute__((vector_size(32)));
enum { OFF8 = 0 };

static inline vi vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void vi_store(void *p, vi a) { _mm256_storeu_si256((__m256i *)p, a); }
static inline vi vi_set1(int32_t a) { return _mm256_set1_epi32(a); }
static inline vi vi_mul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
static inline vi vi_words(const void *p) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline vf vi_halves(const void *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vf vi_float(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vi vi_round(vf a) { return _mm256_cvtps_epi32(a); }
static inline vi vi_maxu(vi a, vi b) { return _mm256_max_epu32(a, b); }
static inline vi vi_abs(vi a) { return _mm256_abs_epi32(a); }
static inline vi vi_abs8(vi a) { return _mm256_abs_epi8(a); }
static inline vi vi_mix16(vi low, vi high) { return _mm256_blend_epi16(low, high, 0xaa); }
static inline void vi_bytes(int8_t *p, vi a) {
    __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(h, h));
}
static inline vi bcast(const void *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}
static inline vi vi_dp16(vi acc, vi a, vi b) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
}
static inline vi vi_dp8(vi acc, vi w, vi a) {
    return vi_dp16(acc, _mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1));
}
static inline vi vi_dp8_at(bool full, vi acc, vi w, const void *p) {
    vi a = bcast(p);
    vi two = full ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w))
                  : _mm256_maddubs_epi16(w, a);
    return vi_dp16(acc, two, _mm256_set1_epi16(1));
}
static inline vi vi_dp16_at(vi acc, vi a, const void *b) {
    return vi_dp16(acc, a, bcast(b));
}
static inline vi vi_full(vi w) { return w; }
static inline vi vi_level(vi q) {
    __m128i t = _mm_loadu_si128((const __m128i *)cm_iq4_levels);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), q);
}

#define TILE_ROWS(id) ROWS_OF(id, 4) ROWS_OF(id, 2) ROWS_OF(id, 1)
#define QKERN cm_qkern_avx2
#include "kern/vec_qmat.inc"

#else
const cm_qkern cm_qkern_avx2;
#endif
