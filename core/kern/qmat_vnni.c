/* qmat_vnni.c -- block-quantized products in AVX-512 with VNNI. */
#include "kern/qmat.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx512.h"

#include <math.h>
#include <string.h>

typedef __m512i vi;
typedef uint32_t vu __attribute__((vector_size(64)));
typedef int32_t vs __attribute__((vector_size(64)));
enum { OFF8 = 128 };

static inline vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void vi_store(void *p, vi a) { _mm512_storeu_si512(p, a); }
static inline vi vi_set1(int32_t a) { return _mm512_set1_epi32(a); }
static inline vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
static inline vi vi_words(const void *p) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf vi_halves(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf vi_float(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi vi_round(vf a) { return _mm512_cvtps_epi32(a); }
static inline vi vi_maxu(vi a, vi b) { return _mm512_max_epu32(a, b); }
static inline vi vi_abs(vi a) { return _mm512_abs_epi32(a); }
static inline vi vi_abs8(vi a) { return _mm512_abs_epi8(a); }
static inline vi vi_mix16(vi low, vi high) {
    return _mm512_mask_blend_epi16(0xaaaaaaaau, low, high);
}
static inline void vi_bytes(int8_t *p, vi a) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
}
/* The intrinsics cost gcc 12 two moves of each sum and a register of each broadcast. */
static inline vi vi_dp8(vi acc, vi w, vi a) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
    return acc;
}
static inline vi vi_dp16(vi acc, vi a, vi b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}
typedef int32_t word __attribute__((may_alias, aligned(1)));
static inline vi vi_dp8_at(bool full, vi acc, vi w, const void *a) {
    (void)full;
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const word *)a));
    return acc;
}
static inline vi vi_dp16_at(vi acc, vi a, const void *b) {
    __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(a), "m"(*(const word *)b));
    return acc;
}
static inline vi vi_full(vi w) { return _mm512_xor_si512(w, _mm512_set1_epi8(-128)); }
static inline vi vi_level(vi q) {
    __m128i t = _mm_xor_si128(_mm_loadu_si128((const __m128i *)cm_iq4_levels),
                              _mm_set1_epi8(-128));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), q);
}

/* 8 rows: enough sums to keep the multipliers busy, and none leaves its register. */
#define TILE_ROWS(id) ROWS_OF(id, 8) ROWS_OF(id, 4) ROWS_OF(id, 2) ROWS_OF(id, 1)
#define QKERN cm_qkern_vnni
#include "kern/vec_qmat.inc"

#else
const cm_qkern cm_qkern_vnni;
#endif
