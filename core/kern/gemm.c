/* gemm.c -- the matrix-product seam: backends, and how a product is cut for threads.
 *
 * Cuts are by shape and thread count, which is harmless: no cut changes an element. */
#include "kern/gemm.h"

#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Multiplications from which a product is worth waking the other threads. */
static const double TEAM = 1 << 19;

static cm_numerics backend = CM_NUMERICS_STRICT;
static cm_micro micro, micro16; /* by precision; mr = 0: the reference */
static bool ready;     /* cm_kern_init was called */

const char *cm_gemm_blas_core(void) { return openblas_get_corename(); }

static bool one_of(const char *name, const char *const *list) {
    for (; *list; list++)
        if (!strcmp(name, *list)) return true;
    return false;
}

bool cm_blas_below_cpu(char why[CM_BLAS_TEXT]) {
    static const char *const wide[] = { "SkylakeX", "Cooperlake", "SapphireRapids", NULL };
    static const char *const narrow[] = { "Prescott", "Core2", "Penryn", "Dunnington", "Nehalem",
        "Sandybridge", "Atom", "Opteron", "Opteron_SSE3", "Barcelona", "Bobcat", "Bulldozer",
        "Piledriver", "Steamroller", NULL };
    const char *core = openblas_get_corename();
    cm_level_id can = cm_kern_best_level();
    bool below = can >= CM_LEVEL_AVX512 ? !one_of(core, wide)
                                        : can >= CM_LEVEL_AVX2 && one_of(core, narrow);
    if (below)
        snprintf(why, CM_BLAS_TEXT, "OpenBLAS runs its %s kernels, the CPU can do more (%s)%s",
                 core, cm_level_name(can),
                 getenv("OPENBLAS_CORETYPE") ? ": unset OPENBLAS_CORETYPE" : "");
    return below;
}

bool cm_gemm_setup(cm_numerics numerics, cm_level_id level, int threads, cm_err *err) {
    if (!cm_gemm_buffers(threads, err)) return false;
    const cm_micro none = { 0 };
    const cm_micro *by_level[] = { &none, &cm_micro_avx2, &cm_micro_avx512,
                                   &cm_micro_avx512 };
    cm_gemm_use(by_level[level]);
    if (level == CM_LEVEL_AVX512BF16) cm_gemm_use(&cm_micro_avx512bf16);
    openblas_set_num_threads(1); /* our threads each call it for their own tiles */
    backend = numerics;
    ready = true;
    return true;
}

void cm_gemm_use(const cm_micro *m) {
    if (m->pair == 2) {
        micro16 = *m;
        return;
    }
    micro = *m;
    micro16 = cm_micro_rounded(m);
}

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

const cm_micro *cm_gemm_micro(cm_compute how) {
    return how == CM_COMPUTE_BF16 ? &micro16 : &micro;
}

static const cm_micro *micro_of(const cm_gemm_args *g) { return cm_gemm_micro(g->how); }

static bool by_blas(const cm_gemm_args *g) {
    return backend == CM_NUMERICS_FAST && g->how == CM_COMPUTE_FP32 && g->K > 0;
}

static bool by_micro(const cm_gemm_args *g) {
    return !by_blas(g) && micro_of(g)->mr && g->K > 0;
}

static void single(const cm_gemm_args *g) {
    if (by_blas(g))
        blas(g);
    else if (by_micro(g))
        cm_gemm_strict(micro_of(g), g, 1);
    else
        cm_gemm_ref(g);
}

static cm_gemm_args tile_of(const cm_gemm_args *g, int64_t i0, int64_t m, int64_t j0,
                            int64_t n) {
    cm_gemm_args t = *g;
    t.M = m, t.N = n;
    t.A = cm_at(g->A, g->a_stored, i0 * g->ars);
    t.B = cm_at(g->B, g->b_stored, j0 * g->bcs);
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

static void team(const cm_gemm_args *g) {
    CM_ASSERT(ready, EARLY);
    if (g->M <= 0 || g->N <= 0) return;
    int threads = omp_in_parallel() ? 1 : cm_kern_threads();
    if (threads == 1 || (double)g->M * (double)g->N * (double)g->K < TEAM)
        single(g);
    else if (by_micro(g))
        cm_gemm_strict(micro_of(g), g, threads);
    else
        tiles(g, threads);
}

static void alone(const cm_gemm_args *g) {
    CM_ASSERT(ready, EARLY);
    if (g->M > 0 && g->N > 0) single(g);
}

static cm_gemm_args args_of(cm_compute how, int64_t M, int64_t N, int64_t K, cm_real alpha,
                            cm_mat A, cm_mat B, cm_real beta, cm_real *C, int64_t ldc) {
    CM_ASSERT(how == CM_COMPUTE_BF16 || (!A.stored && !B.stored),
              "an fp32 product of operands stored as BF16");
    return (cm_gemm_args){ M, N, K, alpha, beta, A.at, B.at, A.t ? 1 : A.ld,
                           A.t ? A.ld : 1, B.t ? 1 : B.ld, B.t ? B.ld : 1, C, ldc, how,
                           A.stored, B.stored };
}

void cm_product(cm_compute how, int64_t M, int64_t N, int64_t K, cm_real alpha, cm_mat A,
                cm_mat B, cm_real beta, cm_real *C, int64_t ldc) {
    cm_gemm_args g = args_of(how, M, N, K, alpha, A, B, beta, C, ldc);
    team(&g);
}

void cm_product1(cm_compute how, int64_t M, int64_t N, int64_t K, cm_real alpha, cm_mat A,
                 cm_mat B, cm_real beta, cm_real *C, int64_t ldc) {
    cm_gemm_args g = args_of(how, M, N, K, alpha, A, B, beta, C, ldc);
    alone(&g);
}

void cm_gemm(bool ta, bool tb, int64_t M, int64_t N, int64_t K, cm_real alpha,
             const cm_real *A, int64_t lda, const cm_real *B, int64_t ldb, cm_real beta,
             cm_real *C, int64_t ldc) {
    cm_gemm_args g = args_of(CM_COMPUTE_FP32, M, N, K, alpha, cm_mat_of(A, lda, ta),
                             cm_mat_of(B, ldb, tb), beta, C, ldc);
    team(&g);
}

void cm_gemm1(bool ta, bool tb, int64_t M, int64_t N, int64_t K, cm_real alpha,
              const cm_real *A, int64_t lda, const cm_real *B, int64_t ldb, cm_real beta,
              cm_real *C, int64_t ldc) {
    cm_gemm_args g = args_of(CM_COMPUTE_FP32, M, N, K, alpha, cm_mat_of(A, lda, ta),
                             cm_mat_of(B, ldb, tb), beta, C, ldc);
    alone(&g);
}
