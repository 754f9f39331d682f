/* emu512_avx2.c -- the AVX-512 kernels compiled on an emulation, for the kernel tests.
 *
 * SIMDe expresses AVX-512 in AVX2, so the very source of kern_avx512.c runs on CPUs
 * without it.  What SIMDe lacks is defined below in plain C.  The names the file exports
 * are renamed to emu512_*. */
#include "kern/gemm.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && !defined(CM_F64)
#define SIMDE_ENABLE_NATIVE_ALIASES
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wshadow"
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#pragma GCC diagnostic pop
/* Missing in SIMDe: y = f(x) lane by lane over arrays of the vectors' elements. */
#define LANES(ret, name, arg, to, from, n, f)                                           \
    static inline ret name(arg v) {                                                     \
        from x[sizeof v / sizeof(from)];                                                \
        union { to y[n]; ret r; } u;                                                    \
        memcpy(x, &v, sizeof v);                                                        \
        for (int i = 0; i < n; i++) u.y[i] = (to)f(x[i]);                               \
        return u.r;                                                                     \
    }
static inline int32_t to_int(float f) { return _mm_cvtss_si32(_mm_set_ss(f)); }
static inline int32_t sra23(int32_t i) { return i >> 23; }
LANES(__m512i, emu_cvtps_epi32, __m512, int32_t, float, 16, to_int)
LANES(__m512, emu_cvtepi32_ps, __m512i, float, int32_t, 16, (float))
LANES(__m512d, emu_cvtps_pd, __m256, double, float, 8, (double))
LANES(__m512i, emu_srai23, __m512i, int32_t, int32_t, 16, sra23)
#define _mm512_cvtps_epi32 emu_cvtps_epi32
#define _mm512_cvtepi32_ps emu_cvtepi32_ps
#define _mm512_cvtps_pd emu_cvtps_pd
#define _mm512_srai_epi32(v, n) ((void)sizeof(char[(n) == 23 ? 1 : -1]), emu_srai23(v))
static inline __m512 emu_load(__mmask16 m, const float *p) {
    float x[16] = { 0 };
    for (int i = 0; i < 16; i++)
        if (m >> i & 1) x[i] = p[i];
    return _mm512_loadu_ps(x);
}
static inline void emu_store(float *p, __mmask16 m, __m512 v) {
    float x[16];
    memcpy(x, &v, sizeof v);
    for (int i = 0; i < 16; i++)
        if (m >> i & 1) p[i] = x[i];
}
/* SIMDe's multiplies by 2^n, which may overflow before a 2^n does. */
static inline __m512 emu_scalef(__m512 a, __m512 n) {
    float x[16], y[16];
    memcpy(x, &a, sizeof a);
    memcpy(y, &n, sizeof n);
    for (int i = 0; i < 16; i++) x[i] = y[i] == y[i] ? ldexpf(x[i], (int)floorf(y[i])) : y[i];
    return _mm512_loadu_ps(x);
}
#undef _mm512_scalef_ps
#define _mm512_scalef_ps emu_scalef
#define _mm512_maskz_loadu_ps emu_load
#define _mm512_mask_storeu_ps emu_store

#define CM_EMULATE_AVX512
#define cm_overlay_avx512 emu512_overlay
#define cm_micro_avx512 emu512_micro
void emu512_overlay(cm_kern *k);
extern const cm_micro emu512_micro;
#include "core/kern/kern_avx512.c"

#else
void emu512_overlay(cm_kern *k);
extern const cm_micro emu512_micro;
void emu512_overlay(cm_kern *k) { (void)k; }
const cm_micro emu512_micro;
#endif
