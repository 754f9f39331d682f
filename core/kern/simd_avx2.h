/* simd_avx2.h -- the vector vocabulary of vec_*.inc, in AVX2 and FMA: 8 floats.
 *
 * Kernels are written once in these words; simd_avx512.h says the same with 16 floats.
 *   vf VF_N   a vector of floats, its length       vm   a mask: one truth value per lane
 *   vd VD_N   a vector of doubles (VF_N / 2)
 * Loads and stores need no alignment; masked ones never touch memory of lanes that are
 * off, and load 0 there.  vf_min and vf_max return b when either is NaN; comparisons with
 * NaN are false.  vf_hsum and vf_hmax combine lanes i and i + n/2 first, then halve. */
#ifndef CM_KERN_SIMD_H
#define CM_KERN_SIMD_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

typedef __m256 vf;
typedef __m256 vm;
typedef __m256d vd;
enum { VF_N = 8, VD_N = 4 };

static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline vf vf_set1(float a) { return _mm256_set1_ps(a); }
static inline vf vf_zero(void) { return _mm256_setzero_ps(); }

/* The first n lanes, 0 <= n (all of them when n >= VF_N). */
static inline vm vm_first(int64_t n) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i lim = _mm256_set1_epi32((int)(n < VF_N ? n : VF_N));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(lim, lane));
}
static inline vf vf_load_m(const float *p, vm m) {
    return _mm256_maskload_ps(p, _mm256_castps_si256(m));
}
static inline void vf_store_m(float *p, vm m, vf a) {
    _mm256_maskstore_ps(p, _mm256_castps_si256(m), a);
}

static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
/* a b + c and c - a b, rounded once. */
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vf vf_neg(vf a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
static inline vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf vf_round(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vm vf_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vm vf_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vm vf_isnan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
/* m ? a : b, lane by lane. */
static inline vf vf_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
static inline bool vm_any(vm m) { return _mm256_movemask_ps(m) != 0; }

/* a * 2^n for a in [0.5, 2] and whole n, where that is a normal number, or a is NaN. */
static inline vf vf_exp2_scale(vf a, vf n) {
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), e));
}
/* a = m 2^e with m in [sqrt(1/2), sqrt 2), for positive normal a. */
static inline vf vf_split(vf a, vf *e) {
    __m256i base = _mm256_set1_epi32(0x3f3504f3);
    __m256i u = _mm256_sub_epi32(_mm256_castps_si256(a), base);
    *e = _mm256_cvtepi32_ps(_mm256_srai_epi32(u, 23));
    __m256i m = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffff));
    return _mm256_castsi256_ps(_mm256_add_epi32(m, base));
}

static inline float vf_hsum(vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_hmax(vf a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* The lower and upper half as doubles. */
static inline vd vd_lo(vf a) { return _mm256_cvtps_pd(_mm256_castps256_ps128(a)); }
static inline vd vd_hi(vf a) { return _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)); }
static inline vd vd_zero(void) { return _mm256_setzero_pd(); }
static inline vd vd_fma(vd a, vd b, vd c) { return _mm256_fmadd_pd(a, b, c); }
static inline vd vd_add(vd a, vd b) { return _mm256_add_pd(a, b); }
static inline void vd_store(double *p, vd a) { _mm256_storeu_pd(p, a); }

#endif
