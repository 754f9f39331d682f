/* transpose_avx2.h -- 8 rows of 8 floats, transposed in registers. */
#ifndef CM_KERN_TRANSPOSE_AVX2_H
#define CM_KERN_TRANSPOSE_AVX2_H

#include <immintrin.h>
#include <stdint.h>

/* b[p] holds r[i][at + p] of the 8 rows i. */
static inline void transpose8(const float *const r[8], int64_t at, __m256 b[8]) {
    __m256 a[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* halves of rows i and i+4 side by side */
        __m256 lo = _mm256_loadu_ps(r[i] + at), hi = _mm256_loadu_ps(r[i + 4] + at);
        a[i] = _mm256_permute2f128_ps(lo, hi, 0x20);
        a[i + 4] = _mm256_permute2f128_ps(lo, hi, 0x31);
    }
#pragma GCC unroll 2
    for (int h = 0; h < 8; h += 4) { /* 4x4 transposes in each half */
        __m256 t0 = _mm256_unpacklo_ps(a[h], a[h + 1]);
        __m256 t1 = _mm256_unpackhi_ps(a[h], a[h + 1]);
        __m256 t2 = _mm256_unpacklo_ps(a[h + 2], a[h + 3]);
        __m256 t3 = _mm256_unpackhi_ps(a[h + 2], a[h + 3]);
        b[h] = _mm256_shuffle_ps(t0, t2, 0x44);
        b[h + 1] = _mm256_shuffle_ps(t0, t2, 0xee);
        b[h + 2] = _mm256_shuffle_ps(t1, t3, 0x44);
        b[h + 3] = _mm256_shuffle_ps(t1, t3, 0xee);
    }
}

#endif
