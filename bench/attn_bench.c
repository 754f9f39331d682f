/* attn_bench.c -- causal attention, forward and backward, at head width 64: share of the
 * gemm peak, time and arena bytes by length.  JSON lines, flat keys, unit last.
 *
 * Useful flops of a head over T rows, causal half: forward 2 products, backward 5 (scores
 * again, dP, dV, dK, dQ), each 2 (T^2/2) P; the diagonal's other halves and the softmax
 * are not counted.  Peak: the better of our gemm and OpenBLAS at 2048^3 on the same
 * threads, measured between the lengths of the same run.
 * Usage: attn_bench [rounds [threads [H G]]]
 *        attn_bench ask [threads]    answers lines "T H G" with "forward backward" seconds
 *                                    and arena bytes, so that a rival can take turns */
#include "op/op.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { P = 64, PEAK_N = 2048, MAX_ROUNDS = 64 };

typedef struct bench {
    cm_arena arena, meta;
    cm_tape t;
    int threads;
} bench;

typedef struct times {
    double fwd, bwd, bytes;
} times;

/* Seconds: of the processor with one thread, which stands up under load, else the clock. */
static double now(const bench *b) {
    struct timespec t;
    clock_gettime(b->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static cm_var *input(bench *b, uint64_t seed, int64_t rows, int64_t cols) {
    cm_var *x = cm_var_new(&b->t, (int64_t[]){ rows, cols }, 2, true);
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, 0);
    for (int64_t i = 0; i < rows * cols; i++)
        cm_rdata(&x->v)[i] = (cm_real)(2 * cm_rng_uniform(r, (uint64_t)i) - 1);
    return x;
}

/* A root that sends gradient x/4 to everything. */
static bool root_infer(cm_node *n, const char **why) {
    (void)why;
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}
static void root_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    *cm_rdata(&n->out[0]->v) = 0;
}
static void root_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    const cm_real *x = cm_rdata(&n->in[0]->v);
    for (int64_t i = 0; i < cm_tensor_count(&n->in[0]->v); i++)
        n->in[0]->g[i] = x[i] / 4;
}
static const cm_op op_root = {
    .name = "root", .shapes = "x -> y[1]", .n_in = 1, .n_out = 1, .sets = 1,
    .infer = root_infer, .fwd = root_fwd, .bwd = root_bwd,
};

static times attention(bench *b, int T, int H, int G) {
    static double inv[P / 2];
    double mscale;
    cm_rope_conf rc = { .kind = CM_ROPE_PLAIN, .P = P, .base = 10000 };
    cm_rope_freqs(&rc, inv, &mscale);
    cm_arena_reset(&b->arena, 0);
    cm_arena_reset(&b->meta, 0);
    b->arena.peak = 0;
    cm_tape_begin(&b->t, &b->arena, &b->meta, true, false);
    cm_var *q = input(b, 1, T, H * P), *k = input(b, 2, T, G * P), *loss;
    cm_var *v = input(b, 3, T, G * P);
    cm_seq seq = { .B = 1, .T = T };
    double t0 = now(b);
    cm_var *y = cm_attention(&b->t, q, k, v, &seq, H, G, (cm_real)0.125, inv, mscale);
    double t1 = now(b);
    cm_tape_apply(&b->t, &op_root, &y, 1, NULL, &loss);
    double t2 = now(b);
    cm_tape_backward(&b->t, loss, 1);
    return (times){ t1 - t0, now(b) - t2, (double)b->arena.peak };
}

static double gemm_flops(bench *b, cm_numerics how) {
    static cm_real *x;
    int64_t n = (int64_t)PEAK_N * PEAK_N;
    cm_err err;
    if (!cm_kern_init(how, b->threads, &err)) CM_ASSERT(false, "%s", err.msg);
    if (!x) {
        x = malloc(sizeof *x * (size_t)(3 * n));
        CM_ASSERT(x, "out of memory");
        for (int64_t i = 0; i < 3 * n; i++) x[i] = (cm_real)0.01 * (cm_real)(i % 7);
    }
    double t = now(b);
    cm_gemm(false, false, PEAK_N, PEAK_N, PEAK_N, 1, x, PEAK_N, x + n, PEAK_N, 0,
            x + 2 * n, PEAK_N);
    return 2.0 * PEAK_N * PEAK_N * PEAK_N / (now(b) - t);
}

static double peak(bench *b) {
    double blas = gemm_flops(b, CM_NUMERICS_FAST), own = gemm_flops(b, CM_NUMERICS_STRICT);
    return blas > own ? blas : own;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, ascending);
    return x[n / 2];
}

static void table(bench *b, int rounds, int H, int G) {
    static const int lengths[] = { 1024, 2048, 4096, 8192, 16384, 32768 };
    enum { N = sizeof lengths / sizeof *lengths };
    static double f[N][MAX_ROUNDS], g[N][MAX_ROUNDS], fb[N][MAX_ROUNDS], top[MAX_ROUNDS];
    double bytes[N];
    for (int r = 0; r < rounds; r++) {
        top[r] = peak(b);
        for (int i = 0; i < N; i++) {
            if (lengths[i] > 8192 && r) continue; /* long enough to be measured once */
            times t = attention(b, lengths[i], H, G);
            double T = lengths[i], unit = T * T * H * P; /* flops of a causal product */
            f[i][r] = 2 * unit / t.fwd / top[r];
            g[i][r] = 5 * unit / t.bwd / top[r];
            fb[i][r] = 7 * unit / (t.fwd + t.bwd) / top[r];
            bytes[i] = t.bytes;
        }
    }
    for (int i = 0; i < N; i++) {
        int n = lengths[i] > 8192 ? 1 : rounds;
        printf("{\"attention/T%d/forward_share\": %.3f, \"attention/T%d/backward_share\": "
               "%.3f, \"attention/T%d/share\": %.3f, \"attention/T%d/arena_bytes_per_row\""
               ": %.0f}\n", lengths[i], median(f[i], n), lengths[i], median(g[i], n),
               lengths[i], median(fb[i], n), lengths[i], bytes[i] / lengths[i]);
    }
    printf("{\"attention/peak_gflops\": %.1f, \"attention/threads\": %d}\n",
           median(top, rounds) / 1e9, cm_kern_threads());
}

static void answer(bench *b) {
    int T, H, G;
    while (scanf("%d %d %d", &T, &H, &G) == 3) {
        times t = attention(b, T, H, G);
        printf("%.9f %.9f %.0f\n", t.fwd, t.bwd, t.bytes);
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    cm_err err;
    bench b = { .threads = argc > 2 ? atoi(argv[2]) : 1 };
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    if (rounds > MAX_ROUNDS) rounds = MAX_ROUNDS;
    if (!cm_kern_init(CM_NUMERICS_STRICT, b.threads, &err) ||
        !cm_arena_open(&b.arena, "bench", (size_t)16 << 30, &err) ||
        !cm_arena_open(&b.meta, "bench meta", (size_t)64 << 20, &err)) {
        fprintf(stderr, "attn_bench: %s\n", err.msg);
        return 1;
    }
    if (argc > 1 && !strcmp(argv[1], "ask")) answer(&b);
    else table(&b, rounds < 1 ? 1 : rounds, argc > 3 ? atoi(argv[3]) : 4,
               argc > 4 ? atoi(argv[4]) : 4);
    return 0;
}
