/* gemm_bench.c -- our strict gemm beside OpenBLAS, same process, same threads.
 *
 * GFLOP/s of both (best of alternating runs) and their ratio for the shapes that training
 * runs.  OPENBLAS_* variables distort it: unset them.
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

static void ours(const shape *s, const cm_real *a, const cm_real *b, cm_real *c) {
    (s->alone ? cm_gemm1 : cm_gemm)(s->ta, s->tb, s->M, s->N, s->K, 1, a,
                                    s->ta ? s->M : s->K, b, s->tb ? s->K : s->N, 0, c,
                                    s->N);
}

/* Best seconds of one call over `reps` calls per sample. */
static void sample(void (*f)(const shape *, const cm_real *, const cm_real *, cm_real *),
                   const shape *s, const cm_real *a, const cm_real *b, cm_real *c,
                   int reps, double *best) {
    double t = bench_now();
    for (int i = 0; i < reps; i++) f(s, a, b, c);
    t = (bench_now() - t) / reps;
    if (t < *best) *best = t;
}

static void run(const shape *s, double seconds, int threads) {
    size_t na = (size_t)s->M * (size_t)s->K, nb = (size_t)s->K * (size_t)s->N;
    cm_real *a = fill(na, 1), *b = fill(nb, 2), *c = fill((size_t)s->M * (size_t)s->N, 3);
    double flop = 2.0 * s->M * s->N * s->K, us = 1e9, them = 1e9, start = cm_now();
    int reps = flop < 1e7 ? (int)(1e7 / flop) : 1;
    openblas_set_num_threads(s->alone ? 1 : threads);
    while (cm_now() - start < seconds) {
        sample(ours, s, a, b, c, reps, &us);
        sample(theirs, s, a, b, c, reps, &them);
    }
    char ta = s->ta ? 'T' : 'N', tb = s->tb ? 'T' : 'N', name[64];
    bench_say("%-7s %c%c %5d x %5d x %5d  %d thread%s  ours %7.1f  OpenBLAS %7.1f GFLOP/s"
              "  ratio %.2f\n", s->what, ta, tb, s->M, s->N, s->K,
              s->alone ? 1 : threads, s->alone || threads == 1 ? " " : "s",
              flop / us / 1e9, flop / them / 1e9, them / us);
    snprintf(name, sizeof name, "%s%s-%c%c-%dx%dx%d", s->what, s->alone ? "-1-thread" : "",
             ta, tb, s->M, s->N, s->K);
    bench_put(flop / us / 1e9, "gemm/fp32/%s/ours/gflops", name);
    bench_put(flop / them / 1e9, "gemm/fp32/%s/openblas/gflops", name);
    free(a);
    free(b);
    free(c);
}

int main(int argc, char **argv) {
    double seconds = 1;
    for (int i = 1; i < argc; i++)
        if (!bench_option(argv[i])) sscanf(argv[i], "seconds=%lf", &seconds);
    bench_start(CM_NUMERICS_STRICT);
    bench_say("%s\n", cm_kern_describe());
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        run(&shapes[i], seconds, cm_kern_threads());
    return 0;
}
