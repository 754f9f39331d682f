/* narrow_avx2.c -- C = A B^T for a few rows of A: decoding's products, one pass over B.
 *
 * Packing B to use it for one row would cost more than the product.  Here 8x8 blocks of B
 * are transposed in registers and used at once, so that lanes are columns of C and every
 * element keeps its chain over K (gemm.h).  Used by every vector level. */
#include "kern/gemm.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/transpose_avx2.h"

#define INLINE static inline __attribute__((always_inline))

/* c = alpha t + beta c for the first n columns. */
INLINE void put(const cm_gemm_args *g, __m256 t, float beta, float *c, int n) {
    float out[8];
    _mm256_storeu_ps(out, t);
    for (int j = 0; j < n; j++)
        c[j] = beta == 0 ? g->alpha * out[j]
                         : __builtin_fmaf(g->alpha, out[j], beta * c[j]);
}

/* K block [k0, k0+k) of R rows and n <= 8 columns from j0.  More columns at a time would
 * hide the latency of the FMAs, but reading so many rows of B at once is slower still. */
INLINE void block(const cm_gemm_args *g, const int R, int64_t j0, int n, int64_t k0,
                  int64_t k) {
    const float *row[8], *a = (const float *)g->A + k0 * g->acs;
    const float *B = g->B;
    __m256 t[CM_GEMM_NARROW], b[8];
    for (int j = 0; j < 8; j++) row[j] = B + (j0 + (j < n ? j : n - 1)) * g->bcs + k0;
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) t[i] = _mm256_setzero_ps();
    int64_t p = 0;
    for (; p + 8 <= k; p += 8) {
        transpose8(row, p, b);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++)
#pragma GCC unroll 8
            for (int s = 0; s < 8; s++)
                t[i] = _mm256_fmadd_ps(
                    _mm256_broadcast_ss(a + i * g->ars + (p + s) * g->acs), b[s], t[i]);
    }
    for (; p < k; p++) {
        float column[8];
        for (int j = 0; j < 8; j++) column[j] = row[j][p];
        b[0] = _mm256_loadu_ps(column);
#pragma GCC unroll 8
        for (int i = 0; i < R; i++)
            t[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(a + i * g->ars + p * g->acs), b[0],
                                   t[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++)
        put(g, t[i], k0 ? 1 : g->beta, g->C + i * g->ldc + j0, n);
}

void cm_gemm_narrow(const cm_gemm_args *g) {
    for (int64_t j = 0; j < g->N; j += 8) {
        int n = g->N - j < 8 ? (int)(g->N - j) : 8;
        for (int64_t k0 = 0; k0 < g->K; k0 += CM_GEMM_KC) {
            int64_t k = g->K - k0 < CM_GEMM_KC ? g->K - k0 : CM_GEMM_KC;
            switch (g->M) {
            case 1: block(g, 1, j, n, k0, k); break;
            case 2: block(g, 2, j, n, k0, k); break;
            case 3: block(g, 3, j, n, k0, k); break;
            default: block(g, 4, j, n, k0, k);
            }
        }
    }
}

#else /* no vector level here */
void cm_gemm_narrow(const cm_gemm_args *g) {
    CM_ASSERT(false, "narrow product %lld x %lld without a vector level",
              (long long)g->M, (long long)g->N);
}
#endif
