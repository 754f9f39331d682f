/* gemm_bench.c -- our strict gemm beside OpenBLAS, same process, same threads.
 *
 * GFLOP/s (best of alternating runs) for the shapes that training runs: ours and OpenBLAS's
 * in fp32; ours in BF16, of fp32 operands rounded on the way and of stored BF16 ones.
 * OPENBLAS_* variables distort it: unset them.
 * Usage: gemm_bench [seconds=1] [threads=N] [json=1] [busy=1] */
#include "bench/bench.h"

#include <cblas.h>
#include <stdlib.h>

typedef struct shape {
    const char *what;
    bool ta, tb, alone; /* alone: cm_gemm1 against one-threaded OpenBLAS */
    int M, N, K;
} shape;

static const shape shapes[] = {
    { "square", false, false, false, 2048, 2048, 2048 },
    { "square", false, false, true, 1024, 1024, 1024 },
    { "linear", false, true, false, 4096, 1024, 256 },
    { "linear", false, true, false, 2048, 512, 2048 },
    { "dX", false, false, false, 4096, 256, 1024 },
    { "dW", true, false, false, 1024, 256, 4096 },
    { "head", false, true, false, 512, 8192, 256 },
    { "decode", false, true, false, 1, 2048, 1024 },
    { "decode", false, true, false, 4, 2048, 1024 },
    { "scan", false, false, true, 64, 64, 64 },
    { "scan", true, false, true, 64, 64, 64 },
    { "scan", false, true, true, 64, 64, 64 },
    { "attn", false, true, true, 64, 128, 32 },
};

static cm_real *fill(size_t n, uint64_t seed) {
    cm_real *x = aligned_alloc(64, cm_align_up(n * sizeof *x));
    CM_ASSERT(x, "out of memory");
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, 0);
    for (size_t i = 0; i < n; i++) x[i] = (cm_real)(cm_rng_uniform(r, i) - 0.5);
    return x;
}

static void theirs(const shape *s, const cm_real *a, const cm_real *b, cm_real *c) {
    cblas_sgemm(CblasRowMajor, s->ta ? CblasTrans : CblasNoTrans,
                s->tb ? CblasTrans : CblasNoTrans, s->M, s->N, s->K, 1, a,
                s->ta ? s->M : s->K, b, s->tb ? s->K : s->N, 0, c, s->N);
}

static void product(cm_compute how, bool stored, const shape *s, const void *a,
                    const void *b, cm_real *c) {
    cm_mat A = { a, s->ta ? s->M : s->K, s->ta, stored };
    cm_mat B = { b, s->tb ? s->K : s->N, s->tb, stored };
    (s->alone ? cm_product1 : cm_product)(how, s->M, s->N, s->K, 1, A, B, 0, c, s->N);
}

static void ours(const shape *s, const cm_real *a, const cm_real *b, cm_real *c) {
    product(CM_COMPUTE_FP32, false, s, a, b, c);
}
static void rounded(const shape *s, const cm_real *a, const cm_real *b, cm_real *c) {
    product(CM_COMPUTE_BF16, false, s, a, b, c);
}
/* The same memory read as BF16 numbers, whatever they then are: half of it. */
static void stored(const shape *s, const cm_real *a, const cm_real *b, cm_real *c) {
    product(CM_COMPUTE_BF16, true, s, a, b, c);
}

static const struct rival {
    const char *precision, *name;
    void (*run)(const shape *, const cm_real *, const cm_real *, cm_real *);
} rivals[] = {
    { "fp32", "ours", ours }, { "fp32", "openblas", theirs },
    { "bf16", "ours", rounded }, { "bf16", "ours-stored", stored },
};
enum {
    RIVALS = sizeof rivals / sizeof *rivals,
    LEAST = 5 /* turns: the first finds buffers that were never touched */
};

/* Seconds of one call over `reps` calls. */
static double sample(const struct rival *r, const shape *s, const cm_real *a,
                     const cm_real *b, cm_real *c, int reps) {
    double t = bench_now();
    for (int i = 0; i < reps; i++) r->run(s, a, b, c);
    return (bench_now() - t) / reps;
}

static void report(const shape *s, const double *best) {
    char ta = s->ta ? 'T' : 'N', tb = s->tb ? 'T' : 'N', name[64];
    double gflop = 2e-9 * s->M * s->N * s->K;
    snprintf(name, sizeof name, "%s%s-%c%c-%dx%dx%d", s->what, s->alone ? "-1-thread" : "",
             ta, tb, s->M, s->N, s->K);
    bench_say("%-30s  fp32 %7.1f  OpenBLAS %7.1f  bf16 %7.1f  stored %7.1f GFLOP/s\n", name,
              gflop / best[0], gflop / best[1], gflop / best[2], gflop / best[3]);
    for (int k = 0; k < RIVALS; k++)
        bench_put(gflop / best[k], "gemm/%s/%s/%s/gflops", rivals[k].precision, name,
                  rivals[k].name);
}

static void run(const shape *s, double seconds, int threads) {
    size_t na = (size_t)s->M * (size_t)s->K, nb = (size_t)s->K * (size_t)s->N;
    cm_real *a = fill(na, 1), *b = fill(nb, 2), *c = fill((size_t)s->M * (size_t)s->N, 3);
    double flop = 2.0 * s->M * s->N * s->K, best[RIVALS], start = cm_now();
    int reps = flop < 1e7 ? (int)(1e7 / flop) : 1, turns = 0;
    for (int k = 0; k < RIVALS; k++) best[k] = 1e9;
    openblas_set_num_threads(s->alone ? 1 : threads);
    do {
        for (int k = 0; k < RIVALS; k++) {
            double t = sample(&rivals[k], s, a, b, c, reps);
            if (t < best[k]) best[k] = t;
        }
    } while (++turns < LEAST || cm_now() - start < seconds);
    report(s, best);
    free(a);
    free(b);
    free(c);
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    double seconds = 1;
    for (int i = 1; i < argc; i++)
        if (!bench_option(argv[i]) && !bench_real(argv[i], "seconds", &seconds))
            bench_unknown(argv[i], "seconds=X");
    bench_start(CM_NUMERICS_STRICT);
    bench_say("%s\n", cm_kern_describe());
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        run(&shapes[i], seconds, cm_kern_threads());
    return 0;
}
