/* simd_avx512.h -- the vocabulary of simd_avx2.h (see there) in AVX-512: 16 floats.
 *
 * Needs F, BW, VL and DQ.  With CM_EMULATE_AVX512 the including file has provided the
 * intrinsics itself (tests on CPUs without them). */
#ifndef CM_KERN_SIMD_H
#define CM_KERN_SIMD_H

#ifndef CM_EMULATE_AVX512
#include <immintrin.h>
#endif
#include <stdbool.h>
#include <stdint.h>

typedef __m512 vf;
typedef __mmask16 vm;
typedef __m512d vd;
enum { VF_N = 16, VD_N = 8 };

static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline vf vf_set1(float a) { return _mm512_set1_ps(a); }
static inline vf vf_zero(void) { return _mm512_setzero_ps(); }

static inline vm vm_first(int64_t n) {
    return (vm)(n < VF_N ? (1u << n) - 1 : 0xffffu);
}
static inline vf vf_load_m(const float *p, vm m) { return _mm512_maskz_loadu_ps(m, p); }
static inline void vf_store_m(float *p, vm m, vf a) { _mm512_mask_storeu_ps(p, m, a); }

static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vf vf_neg(vf a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
static inline vf vf_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
static inline vf vf_round(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT);
}

static inline vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vm vf_isnan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline vf vf_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }

static inline bool vm_any(vm m) { return m != 0; }

static inline vf vf_exp2_scale(vf a, vf n) { return _mm512_scalef_ps(a, n); }
static inline vf vf_split(vf a, vf *e) {
    __m512i base = _mm512_set1_epi32(0x3f3504f3);
    __m512i u = _mm512_sub_epi32(_mm512_castps_si512(a), base);
    *e = _mm512_cvtepi32_ps(_mm512_srai_epi32(u, 23));
    __m512i m = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffff));
    return _mm512_castsi512_ps(_mm512_add_epi32(m, base));
}

/* The upper half of a as 8 floats. */
static inline __m256 vf_upper(vf a) {
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
}
static inline float vf_hsum(vf a) {
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), vf_upper(a));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_hmax(vf a) {
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), vf_upper(a));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

static inline vd vd_lo(vf a) { return _mm512_cvtps_pd(_mm512_castps512_ps256(a)); }
static inline vd vd_hi(vf a) { return _mm512_cvtps_pd(vf_upper(a)); }
static inline vd vd_zero(void) { return _mm512_setzero_pd(); }
static inline vd vd_fma(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
static inline vd vd_add(vd a, vd b) { return _mm512_add_pd(a, b); }
static inline void vd_store(double *p, vd a) { _mm512_storeu_pd(p, a); }

#endif
