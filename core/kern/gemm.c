/* gemm.c -- the matrix-product seam: backends, and how a product is cut for threads.
 *
 * Cuts are by shape and thread count, which is harmless: no cut changes an element. */
#include "kern/gemm.h"

#include <cblas.h>
#include <omp.h>
#include <stdlib.h>

/* Multiplications from which a product is worth waking the other threads. */
static const double TEAM = 1 << 19;

static cm_numerics backend = CM_NUMERICS_STRICT;
static cm_micro micro; /* mr = 0: the reference */
static bool ready;     /* cm_kern_init was called */

const char *cm_gemm_blas_core(void) { return openblas_get_corename(); }

bool cm_gemm_setup(cm_numerics numerics, cm_level_id level, int threads, cm_err *err) {
    if (!cm_gemm_buffers(threads, err)) return false;
    const cm_micro *by_level[] = { NULL, &cm_micro_avx2, &cm_micro_avx512 };
    micro = level == CM_LEVEL_REF ? (cm_micro){ 0 } : *by_level[level];
    openblas_set_num_threads(1); /* our threads each call it for their own tiles */
    backend = numerics;
    ready = true;
    return true;
}

void cm_gemm_use(const cm_micro *m) { micro = *m; }

static void blas(const cm_gemm_args *g) {
    bool na = g->acs == 1 && g->ars >= g->K, nb = g->bcs == 1 && g->brs >= g->N;
    enum CBLAS_TRANSPOSE ta = na ? CblasNoTrans : CblasTrans;
    enum CBLAS_TRANSPOSE tb = nb ? CblasNoTrans : CblasTrans;
    blasint m = (blasint)g->M, n = (blasint)g->N, k = (blasint)g->K;
    blasint lda = (blasint)(na ? g->ars : g->acs), ldb = (blasint)(nb ? g->brs : g->bcs);
    blasint ldc = (blasint)g->ldc;
#ifdef CM_F64
    cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, g->alpha, g->A, lda, g->B, ldb, g->beta,
                g->C, ldc);
#else
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, g->alpha, g->A, lda, g->B, ldb, g->beta,
                g->C, ldc);
#endif
}

static void single(const cm_gemm_args *g) {
    if (backend == CM_NUMERICS_FAST && g->K > 0)
        blas(g);
    else if (micro.mr && g->K > 0)
        cm_gemm_strict(&micro, g, 1);
    else
        cm_gemm_ref(g);
}

static cm_gemm_args tile_of(const cm_gemm_args *g, int64_t i0, int64_t m, int64_t j0,
                            int64_t n) {
    cm_gemm_args t = *g;
    t.M = m, t.N = n;
    t.A += i0 * g->ars;
    t.B += j0 * g->bcs;
    t.C += i0 * g->ldc + j0;
    return t;
}

#define EARLY "a matrix product is asked for before cm_kern_init"

static int64_t blocks(int64_t n, int64_t b) { return (n + b - 1) / b; }

/* Tiles, each a whole product on one thread: as large as leaves two per thread, rows
 * doubled before columns. */
static void tiles(const cm_gemm_args *g, int threads) {
    int64_t mb = 64, nb = 64;
    while (mb < g->M && blocks(g->M, 2 * mb) * blocks(g->N, nb) >= 2 * threads) mb *= 2;
    while (nb < g->N && blocks(g->M, mb) * blocks(g->N, 2 * nb) >= 2 * threads) nb *= 2;
    int64_t cols = blocks(g->N, nb), n_tiles = blocks(g->M, mb) * cols;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t t = 0; t < n_tiles; t++) {
        int64_t i = t / cols * mb, j = t % cols * nb;
        cm_gemm_args part = tile_of(g, i, g->M - i < mb ? g->M - i : mb, j,
                                    g->N - j < nb ? g->N - j : nb);
        single(&part);
    }
}

static cm_gemm_args args_of(bool ta, bool tb, int64_t M, int64_t N, int64_t K,
                            cm_real alpha, const cm_real *A, int64_t lda, const cm_real *B,
                            int64_t ldb, cm_real beta, cm_real *C, int64_t ldc) {
    return (cm_gemm_args){ M, N, K, alpha, beta, A, B, ta ? 1 : lda, ta ? lda : 1,
                           tb ? 1 : ldb, tb ? ldb : 1, C, ldc };
}

void cm_gemm(bool ta, bool tb, int64_t M, int64_t N, int64_t K, cm_real alpha,
             const cm_real *A, int64_t lda, const cm_real *B, int64_t ldb, cm_real beta,
             cm_real *C, int64_t ldc) {
    CM_ASSERT(ready, EARLY);
    if (M <= 0 || N <= 0) return;
    cm_gemm_args g = args_of(ta, tb, M, N, K, alpha, A, lda, B, ldb, beta, C, ldc);
    int threads = omp_in_parallel() ? 1 : cm_kern_threads();
    if (threads == 1 || (double)M * (double)N * (double)K < TEAM)
        single(&g);
    else if (backend == CM_NUMERICS_STRICT && micro.mr && K > 0)
        cm_gemm_strict(&micro, &g, threads);
    else
        tiles(&g, threads);
}

void cm_gemm1(bool ta, bool tb, int64_t M, int64_t N, int64_t K, cm_real alpha,
              const cm_real *A, int64_t lda, const cm_real *B, int64_t ldb, cm_real beta,
              cm_real *C, int64_t ldc) {
    CM_ASSERT(ready, EARLY);
    if (M <= 0 || N <= 0) return;
    cm_gemm_args g = args_of(ta, tb, M, N, K, alpha, A, lda, B, ldb, beta, C, ldc);
    single(&g);
}
