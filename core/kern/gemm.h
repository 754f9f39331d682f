/* gemm.h -- inside the gemm seam: what kern.c, gemm.c and the micro-kernels share.
 *
 * Private to kern/ and its tests; everyone else calls cm_gemm and cm_gemm1.
 *
 * The strict contract, kept by every path: K is cut into blocks of CM_GEMM_KC; a block of
 * an element is one chain  t = 0; t = fma(a[p], b[p], t) for p ascending;  then
 * c = fma(alpha, t, beta * c), where beta is the caller's for the first block (beta = 0:
 * c = alpha * t, C not read) and 1 for the others.  Tiles, packing and threads choose only
 * where and when an element is computed, so they cannot change it.  AVX2 and AVX-512
 * give the same bits; the reference multiplies and adds without fma. */
#ifndef CM_KERN_GEMM_H
#define CM_KERN_GEMM_H

#include "kern/kern.h"

enum { CM_GEMM_KC = 512, CM_GEMM_NARROW = 4, CM_MAX_THREADS = 256 };

/* One block of k <= KC steps for a tile of mr rows and nr columns, 1 or more each and at
 * most the full tile:  A element (i,p) at a[i*ars + p*acs], B row p at b[p*brs], dense. */
typedef void (*cm_micro_fn)(int64_t k, const cm_real *a, int64_t ars, int64_t acs,
                            const cm_real *b, int64_t brs, cm_real alpha, cm_real beta,
                            cm_real *c, int64_t ldc, int mr, int nr);
typedef struct cm_micro {
    int mr, nr; /* full tile; no micro-kernel (reference) when 0 */
    cm_micro_fn run;
} cm_micro;

extern const cm_micro cm_micro_avx2, cm_micro_avx512; /* mr = 0 where not built */

/* A product with strides in place of transposes: op(A)(i,p) = A[i*ars + p*acs],
 * op(B)(p,j) = B[p*brs + j*bcs]. */
typedef struct cm_gemm_args {
    int64_t M, N, K;
    cm_real alpha, beta;
    const cm_real *A, *B;
    int64_t ars, acs, brs, bcs;
    cm_real *C;
    int64_t ldc;
} cm_gemm_args;

/* The reference product, single thread. */
void cm_gemm_ref(const cm_gemm_args *g);

/* Panels for the strict backend, see pack_avx2.c, for p < k:  dst[p*w + i] = src[i*ld + p],
 * i < rows <= w <= 32;  dst[j/w*w*k + p*w + j%w] = src[p*ld + j], j < cols. */
enum { CM_PACK_SLACK = 8 };
void cm_pack_rows(cm_real *dst, int w, const cm_real *src, int64_t ld, int rows,
                  int64_t k);
void cm_pack_cols(cm_real *dst, int w, const cm_real *src, int64_t ld, int64_t cols,
                  int64_t k);

/* A product with M <= CM_GEMM_NARROW and brs = 1, see narrow_avx2.c. */
void cm_gemm_narrow(const cm_gemm_args *g);

/* The strict product on a vector level: on one thread with its own buffers, or opening a
 * parallel region of `threads`. */
void cm_gemm_strict(const cm_micro *mk, const cm_gemm_args *g, int threads);
bool cm_gemm_buffers(int threads, cm_err *err);

/* Allocate packing buffers for this many threads and take the level's micro-kernel. */
bool cm_gemm_setup(cm_numerics numerics, cm_level_id level, int threads, cm_err *err);
/* Tests: run the strict backend on another micro-kernel until the next setup. */
void cm_gemm_use(const cm_micro *m);
const char *cm_gemm_blas_core(void);

#endif
