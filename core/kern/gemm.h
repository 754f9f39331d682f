/* gemm.h -- inside the gemm seam: what kern.c, gemm.c and the micro-kernels share.
 *
 * Private to kern/ and its tests; everyone else calls cm_gemm and cm_gemm1.
 *
 * The strict contract, kept by every path: K is cut into blocks of CM_GEMM_KC; a block of
 * an element is one chain  t = 0; t = fma(a[p], b[p], t) for p ascending;  then
 * c = fma(alpha, t, beta * c), where beta is the caller's for the first block (beta = 0:
 * c = alpha * t, C not read) and 1 for the others.  Tiles, packing and threads choose only
 * where and when an element is computed, so they cannot change it.  AVX2 and AVX-512
 * give the same bits; the reference multiplies and adds without fma.
 *
 * Products of BF16 operands keep the same contract with a and b rounded, at every level:
 * their a b is exact in fp32, so that fma or not makes no difference.  Without AVX512_BF16
 * the panels hold rounded floats and the fp32 micro-kernel runs over them; with it, pairs
 * of BF16, and one vdpbf16ps is two links of the chain (its upper half first, hence the
 * order in a pair).  That instruction takes denormal sums for 0. */
#ifndef CM_KERN_GEMM_H
#define CM_KERN_GEMM_H

#include "kern/kern.h"

enum { CM_GEMM_KC = 512, CM_GEMM_NARROW = 4, CM_MAX_THREADS = 256 };

/* One block of k steps for a tile of mr rows and nr columns, 1 or more each and at most
 * the full tile:  A element (i,p) at a[i*ars + p*acs], B row p at b[p*brs], dense. */
typedef void (*cm_micro_fn)(int64_t k, const cm_real *a, int64_t ars, int64_t acs,
                            const cm_real *b, int64_t brs, cm_real alpha, cm_real beta,
                            cm_real *c, int64_t ldc, int mr, int nr);
/* A rectangle of memory that will be packed next, fetched into L2 some lines at a time while
 * the micro-kernel works: read when packing asks for it, it would arrive too late. */
typedef struct cm_ahead {
    const char *row;
    int64_t ld, width, rows, at; /* bytes, but rows; at: within the row */
    int64_t share;               /* lines at a time */
} cm_ahead;
static inline void cm_fetch_ahead(cm_ahead *f) {
    for (int64_t n = f->share; n > 0 && f->rows > 0; n--) {
        __builtin_prefetch(f->row + f->at, 0, 2);
        if ((f->at += 64) < f->width + 63) continue;
        f->at = 0;
        f->row += f->ld;
        f->rows--;
    }
}
/* The full tile over packed panels of both (ars 1, acs mr, brs nr), which fetches mr shares
 * of `soon` on its way. */
typedef void (*cm_packed_fn)(int64_t k, const cm_real *a, const cm_real *b, cm_real alpha,
                             cm_real beta, cm_real *c, int64_t ldc, cm_ahead *soon);
/* Panels for the strict backend, see pack_avx2.c, for steps p < k:  cm_pack_rows:
 * dst[p*w + i] = src[i*ld + p], i < rows <= w <= 32;  cm_pack_cols:
 * dst[j/w*w*k + p*w + j%w] = src[p*ld + j], j < cols.  Where a step is a pair of BF16, the
 * upper half is element 2p, the lower 2p+1 (0 past the n-th, the last). */
typedef void (*cm_pack_fn)(cm_real *dst, int w, const void *src, bool stored, int64_t ld,
                           int64_t count, int64_t n);
typedef struct cm_micro {
    int mr, nr; /* full tile; no micro-kernel (reference) when 0 */
    cm_micro_fn run;
    cm_packed_fn packed;
    int pair; /* elements of K in a step: 1, or 2 BF16 in the place of a float */
    cm_pack_fn rows, cols;
} cm_micro;

/* For fp32, and for BF16 pairs; mr = 0 where not built. */
extern const cm_micro cm_micro_avx2, cm_micro_avx512, cm_micro_avx512bf16;
/* m for BF16 operands without pairs: its panels are rounded. */
cm_micro cm_micro_rounded(const cm_micro *m);

/* A product with strides in place of transposes: op(A)(i,p) = A[i*ars + p*acs],
 * op(B)(p,j) = B[p*brs + j*bcs]. */
typedef struct cm_gemm_args {
    int64_t M, N, K;
    cm_real alpha, beta;
    const void *A, *B; /* cm_real, or BF16 where stored */
    int64_t ars, acs, brs, bcs;
    cm_real *C;
    int64_t ldc;
    cm_compute how;
    bool a_stored, b_stored;
} cm_gemm_args;

/* Element i of an operand. */
static inline const void *cm_at(const void *x, bool stored, int64_t i) {
    return stored ? (const void *)((const uint16_t *)x + i)
                  : (const void *)((const cm_real *)x + i);
}

/* x as a BF16 product sees it. */
static inline cm_real cm_as_bf16(cm_real x) {
    float f = (float)x;
    return (cm_real)(__builtin_fabsf(f) < 0x1p-126f ? __builtin_copysignf(0, f)
                                                    : cm_bf16_to_f32(cm_f32_to_bf16(f)));
}

/* The reference product, single thread. */
void cm_gemm_ref(const cm_gemm_args *g);

enum { CM_PACK_SLACK = 16 }; /* elements that packing may write past a panel */
void cm_pack_rows(cm_real *dst, int w, const void *src, bool stored, int64_t ld,
                  int64_t rows, int64_t k);
void cm_pack_cols(cm_real *dst, int w, const void *src, bool stored, int64_t ld,
                  int64_t cols, int64_t k);

/* An fp32 product with M <= CM_GEMM_NARROW and brs = 1, see narrow_avx2.c. */
void cm_gemm_narrow(const cm_gemm_args *g);

/* x = cm_as_bf16(x), n of them; where there is a vector level. */
void cm_round_avx2(int64_t n, cm_real *x);
/* Words of pairs (kern.h), where the CPU multiplies them. */
void cm_pairs_along(int64_t rows, int64_t n, const cm_real *s, const cm_real *x, int64_t ldx,
                    cm_real *y, int64_t ldy);
void cm_pairs_down(int64_t rows, int64_t n, const cm_real *s, const cm_real *x, int64_t ldx,
                   cm_real *y, int64_t ldy);
/* Both of x, either of which may be NULL. */
void cm_pairs_of(int64_t rows, int64_t n, cm_mat x, cm_real *along, int64_t lda,
                 cm_real *down, int64_t ldd);

/* The micro-kernel in use; mr = 0: the reference. */
const cm_micro *cm_gemm_micro(cm_compute how);

/* The strict product on a vector level: on one thread with its own buffers, or opening a
 * parallel region of `threads`. */
void cm_gemm_strict(const cm_micro *mk, const cm_gemm_args *g, int threads);
bool cm_gemm_buffers(int threads, cm_err *err);

/* Allocate packing buffers for this many threads and take the level's micro-kernel. */
bool cm_gemm_setup(cm_numerics numerics, cm_level_id level, int threads, cm_err *err);
/* Tests: run the strict backend on another micro-kernel until the next setup. */
void cm_gemm_use(const cm_micro *m); /* one of pairs: for BF16 operands only */
const char *cm_gemm_blas_core(void);

#endif
