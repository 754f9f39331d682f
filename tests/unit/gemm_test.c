/* gemm_test.c -- the strict contract, bit by bit; the fast backend against doubles.
 *
 * The oracle spells the contract of kern/gemm.h out with fma(), one element at a time, so
 * the vector levels must match it exactly, on any shape, stride, cut or thread count; with
 * BF16 operands every level must. */
#include "kern/gemm.h"
#include "tests/t.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

extern const cm_micro emu512_micro;

#ifdef CM_F64
#define CM_FMA __builtin_fma
#else
#define CM_FMA __builtin_fmaf
#endif

typedef struct prob {
    bool ta, tb;
    int M, N, K, pad; /* pad: extra columns in every leading dimension */
    cm_real alpha, beta;
    cm_compute how;
    bool a_stored, b_stored; /* hand the operand over as BF16 */
} prob;

static cm_real *fill(size_t n, uint64_t seed) {
    cm_real *x = malloc((n + 1) * sizeof *x);
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, 7);
    for (size_t i = 0; i < n; i++) x[i] = (cm_real)(cm_rng_uniform(r, i) * 2 - 1);
    return x;
}

static int64_t lda_of(const prob *p) { return (p->ta ? p->M : p->K) + p->pad; }
static int64_t ldb_of(const prob *p) { return (p->tb ? p->K : p->N) + p->pad; }
static cm_real a_at(const prob *p, const cm_real *a, int i, int k) {
    return p->ta ? a[k * lda_of(p) + i] : a[i * lda_of(p) + k];
}
static cm_real b_at(const prob *p, const cm_real *b, int k, int j) {
    return p->tb ? b[j * ldb_of(p) + k] : b[k * ldb_of(p) + j];
}
/* x[n] as a BF16 product should see it, by arithmetic: 8 significant bits, nearest even. */
static void round_all(cm_real *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int e;
        double m = frexp((double)(float)x[i], &e); /* 0.5 <= |m| < 1 */
        x[i] = e <= -126 ? 0 : (cm_real)ldexp(nearbyint(m * 256), e - 8);
    }
}
/* What to hand over for x[n]: itself, or its BF16 numbers. */
static void *handed(const cm_real *x, bool stored, size_t n) {
    if (!stored) return (void *)(uintptr_t)x;
    uint16_t *h = malloc((n + 1) * sizeof *h);
    for (size_t i = 0; i < n; i++) h[i] = cm_f32_to_bf16((float)x[i]);
    return h;
}
static size_t a_size(const prob *p) {
    return (size_t)(lda_of(p) * (p->ta ? p->K : p->M));
}
static size_t b_size(const prob *p) {
    return (size_t)(ldb_of(p) * (p->tb ? p->N : p->K));
}

#if defined(__x86_64__) && !defined(CM_F64)
#define HAS_FMA __attribute__((target("fma"))) /* run after have_avx2() only */
#else
#define HAS_FMA
#endif

/* The contract, literally, for row i: c[0..N) in place. */
HAS_FMA static void chain_row(const prob *p, const cm_real *a, const cm_real *b, cm_real *c,
                              int i) {
    cm_real *t = malloc((size_t)p->N * sizeof *t);
    for (int k0 = 0; k0 == 0 || k0 < p->K; k0 += CM_GEMM_KC) {
        cm_real beta = k0 ? 1 : p->beta;
        memset(t, 0, (size_t)p->N * sizeof *t);
        for (int k = k0; k < p->K && k < k0 + CM_GEMM_KC; k++) {
            cm_real x = a_at(p, a, i, k);
            for (int j = 0; j < p->N; j++)
                t[j] = CM_FMA(x, b_at(p, b, k, j), t[j]);
        }
        for (int j = 0; j < p->N; j++)
            c[j] = beta == 0 ? p->alpha * t[j] : CM_FMA(p->alpha, t[j], beta * c[j]);
    }
    free(t);
}

static double exact(const prob *p, const cm_real *a, const cm_real *b, cm_real c, int i,
                    int j) {
    double t = 0;
    for (int k = 0; k < p->K; k++)
        t += (double)a_at(p, a, i, k) * (double)b_at(p, b, k, j);
    return (double)p->alpha * t + (p->beta == 0 ? 0 : (double)p->beta * (double)c);
}

/* Run p and check every element: bits against `chain` when strict, else within a rounding
 * bound of the sum in double.  Columns past N must stay as they were. */
static void check(const prob *p, bool alone, bool strict) {
    cm_real *a = fill(a_size(p), 1), *b = fill(b_size(p), 2);
    int64_t ldc = p->N + p->pad;
    cm_real *c = fill((size_t)(p->M * ldc), 3), *c0 = fill((size_t)(p->M * ldc), 3);
    if (p->beta == 0) /* C must not be read */
        for (int i = 0; i < p->M; i++)
            for (int j = 0; j < p->N; j++) c[i * ldc + j] = (cm_real)NAN;
    cm_mat A = { handed(a, p->a_stored, a_size(p)), lda_of(p), p->ta, p->a_stored };
    cm_mat B = { handed(b, p->b_stored, b_size(p)), ldb_of(p), p->tb, p->b_stored };
    (alone ? cm_product1 : cm_product)(p->how, p->M, p->N, p->K, p->alpha, A, B, p->beta, c,
                                       ldc);
    if (p->how == CM_COMPUTE_BF16) round_all(a, a_size(p)), round_all(b, b_size(p));
    int bad = 0;
    double tol = (sizeof(cm_real) == 4 ? 1e-7 : 2e-16) * (p->K + 4);
    for (int i = 0; i < p->M; i++) {
        cm_real *was = c0 + i * ldc, *is = c + i * ldc;
        if (strict) chain_row(p, a, b, was, i);
        for (int j = 0; j < ldc; j++)
            bad += strict || j >= p->N
                       ? memcmp(&is[j], &was[j], sizeof *is) != 0
                       : !(fabs((double)is[j] - exact(p, a, b, was[j], i, j)) <= tol);
    }
    CHECKF(!bad, "%d wrong of %s%s M %d N %d K %d pad %d alpha %g beta %g%s %d%d%d", bad,
           p->ta ? "T" : "N", p->tb ? "T" : "N", p->M, p->N, p->K, p->pad,
           (double)p->alpha, (double)p->beta, alone ? " alone" : "", (int)p->how,
           p->a_stored, p->b_stored);
    if (A.at != a) free((void *)(uintptr_t)A.at);
    if (B.at != b) free((void *)(uintptr_t)B.at);
    free(a), free(b), free(c), free(c0);
}

/* Shapes around every boundary, four transposes, strides, alpha and beta. */
static void sweep_in(cm_compute how, bool strict) {
    static const int dims[][3] = {
        { 1, 1, 1 }, { 1, 16, 1 }, { 1, 33, 300 }, { 2, 15, 7 }, { 3, 17, 64 },
        { 4, 40, 1025 }, { 5, 8, 9 }, { 6, 16, 512 }, { 7, 31, 513 }, { 13, 47, 33 },
        { 14, 32, 5 }, { 15, 64, 65 }, { 29, 65, 100 }, { 64, 64, 64 }, { 65, 20, 130 },
        { 97, 100, 131 }, { 64, 700, 33 }, { 200, 90, 700 }, { 3, 5, 0 }, { 130, 1, 19 },
        { 98, 150, 530 }, { 1, 2100, 257 }, { 4, 1000, 600 },
    };
    static const double ab[][2] = { { 1, 0 }, { 1, 1 }, { 0.7, 0 }, { -1.3, 0.5 } };
    int n_dims = sizeof dims / sizeof *dims;
    for (int i = 0; i < n_dims; i++)
        for (int v = 0; v < 16; v++) {
            prob p = { v & 1, v & 2, dims[i][0], dims[i][1], dims[i][2], (i + v) % 3 * 5,
                       (cm_real)ab[v / 4][0], (cm_real)ab[v / 4][1], how, false, false };
            if (how == CM_COMPUTE_BF16) {
                p.a_stored = (i + v / 4) % 3 == 1;
                p.b_stored = (i + v / 4) % 4 == 2;
            }
            check(&p, v % 3 == 0, strict);
        }
}

static void sweep(bool strict) { sweep_in(CM_COMPUTE_FP32, strict); }

static bool begin_at(cm_numerics n, const char *level, int threads) {
    cm_err err;
    setenv("CHIMERA_KERNELS", level, 1);
    bool ok = cm_kern_init(n, threads, &err);
    unsetenv("CHIMERA_KERNELS");
    CHECKF(ok, "%s", err.msg);
    return ok;
}

static bool have_avx2(void) {
    if (cm_kern_best_level() >= CM_LEVEL_AVX2) return true;
    t_skip("no vector level in this build or CPU");
    return false;
}

TEST(reference_is_right) {
    if (begin_at(CM_NUMERICS_STRICT, "ref", 2)) sweep(false);
}

TEST(strict_levels_keep_the_contract) {
    if (!have_avx2()) return;
    for (int level = CM_LEVEL_AVX2; level <= CM_LEVEL_AVX512; level++)
        for (int threads = 1; threads <= 3 && level <= (int)cm_kern_best_level(); threads++)
            if (begin_at(CM_NUMERICS_STRICT, cm_level_name((cm_level_id)level), threads))
                sweep(true);
}

TEST(emulated_avx512_keeps_the_contract) {
    if (!have_avx2()) return;
    if (!begin_at(CM_NUMERICS_STRICT, "avx2", 2)) return;
    cm_gemm_use(&emu512_micro);
    sweep(true);
    begin_at(CM_NUMERICS_STRICT, "avx2", 2);
}

TEST(fast_backend_is_right) {
    if (begin_at(CM_NUMERICS_FAST, cm_level_name(cm_kern_best_level()), 2)) sweep(false);
}

/* A product wider and deeper than the shared panel buffer, on a few threads, and on more than
 * its rows are shared out to. */
TEST(steps_and_threads_do_not_show) {
    enum { RUNS = 4 };
    static const int threads[RUNS] = { 1, 2, 3, 9 };
    if (!have_avx2()) return;
    prob p = { false, true, 100, 9000, 520, 0, 1, 0, CM_COMPUTE_FP32, false, false };
    cm_real *a = fill(a_size(&p), 1), *b = fill(b_size(&p), 2);
    size_t n = (size_t)p.M * (size_t)p.N;
    cm_real *c[RUNS];
    for (int t = 0; t < RUNS; t++) {
        c[t] = fill(n, 4);
        begin_at(CM_NUMERICS_STRICT, "avx2", threads[t]);
        cm_gemm(p.ta, p.tb, p.M, p.N, p.K, 1, a, p.K, b, p.K, 0, c[t], p.N);
        CHECK(!memcmp(c[t], c[0], n * sizeof *a));
    }
    cm_real *want = fill(n, 5);
    chain_row(&p, a, b, want, 99);
    CHECK(!memcmp(want, c[1] + 99 * p.N, (size_t)p.N * sizeof *want));
    free(want);
    for (int t = 0; t < RUNS; t++) free(c[t]);
    free(a), free(b);
}

/* The row of a batch is the row alone: what evaluation at any batch size rests on. */
TEST(rows_do_not_depend_on_company) {
    if (!begin_at(CM_NUMERICS_STRICT, cm_level_name(cm_kern_best_level()), 2)) return;
    prob p = { false, true, 130, 96, 300, 0, 1, 0, CM_COMPUTE_FP32, false, false };
    cm_real *a = fill(a_size(&p), 1), *b = fill(b_size(&p), 2), one[96];
    cm_real *c = fill((size_t)(p.M * p.N), 3);
    cm_gemm(false, true, p.M, p.N, p.K, 1, a, p.K, b, p.K, 0, c, p.N);
    for (int i = 0; i < p.M; i++) {
        cm_gemm(false, true, 1, p.N, p.K, 1, a + i * p.K, p.K, b, p.K, 0, one, p.N);
        CHECK(!memcmp(one, c + i * p.N, sizeof one));
    }
    free(a), free(b), free(c);
}

/* cm_gemm1 and cm_gemm called from a parallel loop, every thread its own product. */
TEST(inside_a_parallel_loop) {
    if (!begin_at(CM_NUMERICS_STRICT, cm_level_name(cm_kern_best_level()), 3)) return;
    enum { JOBS = 24, D = 70 };
    cm_real *a = fill(D * D, 1), *b = fill(D * D, 2), *c = fill(JOBS * D * D, 3);
#pragma omp parallel for schedule(dynamic) num_threads(3)
    for (int t = 0; t < JOBS; t++)
        (t % 2 ? cm_gemm : cm_gemm1)(false, true, D, D, D, 1, a, D, b, D, 0, c + t * D * D,
                                     D);
    for (int t = 1; t < JOBS; t++)
        CHECK(!memcmp(c, c + t * D * D, D * D * sizeof *c));
    free(a), free(b), free(c);
}

/* ---- BF16 operands -------------------------------------------------------------------- */

/* Every level there is, reference included, has the chain's bits on any number of threads,
 * whichever backend fp32 products take. */
TEST(bf16_has_the_same_bits_at_every_level) {
    for (int level = 0; level <= (int)cm_kern_best_level(); level++)
        for (int threads = 1; threads <= (level ? 3 : 1); threads += 2)
            if (begin_at(threads == 1 ? CM_NUMERICS_FAST : CM_NUMERICS_STRICT,
                         cm_level_name((cm_level_id)level), threads))
                sweep_in(CM_COMPUTE_BF16, true);
}

TEST(bf16_is_near_the_sum_in_double) {
    if (begin_at(CM_NUMERICS_STRICT, cm_level_name(cm_kern_best_level()), 2))
        sweep_in(CM_COMPUTE_BF16, false);
}

/* Rounding costs at most 2^-8 (twice half a unit of 8 bits) of each |a b|. */
TEST(bf16_stays_within_the_rounding_of_its_operands) {
    if (!begin_at(CM_NUMERICS_STRICT, cm_level_name(cm_kern_best_level()), 1)) return;
    prob p = { false, true, 40, 70, 900, 0, 1, 0, CM_COMPUTE_FP32, false, false };
    cm_real *a = fill(a_size(&p), 1), *b = fill(b_size(&p), 2), c[40 * 70];
    cm_product(CM_COMPUTE_BF16, p.M, p.N, p.K, 1, cm_mat_of(a, p.K, false),
               cm_mat_of(b, p.K, true), 0, c, p.N);
    double worst = 0;
    for (int i = 0; i < p.M; i++)
        for (int j = 0; j < p.N; j++) {
            double size = 0;
            for (int k = 0; k < p.K; k++)
                size += fabs((double)a[i * p.K + k] * (double)b[j * p.K + k]);
            double off = fabs((double)c[i * p.N + j] - exact(&p, a, b, 0, i, j)) / size;
            worst = off > worst ? off : worst;
        }
    CHECKF(worst < 0x1.02p-8 && worst > 1e-6, "%g", worst);
    free(a), free(b);
}

/* NaN and infinity come through, denormals count as 0, ties go to even. */
TEST(bf16_special_values) {
    static const float in[] = { NAN, INFINITY, -INFINITY, 0x1p-127f, -0x1.fp-130f, 0,
                                0x1.01p0f, 0x1.03p0f, 0x1.fffp127f, 0x1p-126f };
    static const float out[] = { NAN, INFINITY, -INFINITY, 0, 0, 0,
                                 1, 0x1.04p0f, INFINITY, 0x1p-126f };
    enum { N = sizeof in / sizeof *in };
    for (int level = 0; level <= (int)cm_kern_best_level(); level++) {
        if (!begin_at(CM_NUMERICS_STRICT, cm_level_name((cm_level_id)level), 1)) return;
        for (int t = 0; t < 4; t++) { /* as A and as B, by rows and by columns */
            cm_real x[N], one = 1, y[N] = { 0 };
            for (int i = 0; i < N; i++) x[i] = (cm_real)in[i];
            cm_mat m = { x, t & 2 ? N : 1, t & 2, false }, u = cm_mat_of(&one, 1, false);
            if (t & 1) m.t = !m.t, cm_product(CM_COMPUTE_BF16, 1, N, 1, 1, u, m, 0, y, N);
            else cm_product(CM_COMPUTE_BF16, N, 1, 1, 1, m, u, 0, y, 1);
            for (int i = 0; i < N; i++)
                CHECKF(isnan(out[i]) ? isnan((double)y[i]) : (double)y[i] == (double)out[i],
                       "%s, case %d: %g gave %g", cm_level_name((cm_level_id)level), t,
                       (double)in[i], (double)y[i]);
        }
    }
}
