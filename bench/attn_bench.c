/* attn_bench.c -- causal attention, forward and backward, at head width 64: share of the
 * gemm peak, time and arena bytes by length.  JSON lines, flat keys, unit last.
 *
 * Useful flops of a head over T rows, causal half: forward 2 products, backward 5 (scores
 * again, dP, dV, dK, dQ), each 2 (T^2/2) P; the diagonal's other halves and the softmax
 * are not counted.  Peak: of the precision, our gemm at 2048^3 on the same threads, in fp32
 * the better of it and OpenBLAS's, measured in each round before its lengths: the best of
 * three products after one that warms up.
 * Usage: attn_bench [rounds=5] [H=4] [G=4] [T=1024,2048,...] [compute=fp32|bf16] [threads=N]
 *                   [busy=1] [json=1]
 *        attn_bench ask [compute=..] [threads=N] [busy=1]
 *            answers lines "T H G" with "forward backward" seconds and arena bytes, so that a
 *            rival can take turns */
#include "bench/bench.h"
#include "op/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { P = 64, PEAK_N = 2048, PRODUCTS = 3, MAX_ROUNDS = 64, MAX_LENGTHS = 16 };

typedef struct job {
    cm_arena arena, meta;
    cm_tape t;
    cm_compute how;
    int rounds, H, G, length[MAX_LENGTHS], n;
    bool ask;
} job;

typedef struct times {
    double fwd, bwd, bytes;
} times;

static cm_var *input(job *b, uint64_t seed, int64_t rows, int64_t cols) {
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

static times attention(job *b, int T, int H, int G) {
    static double inv[P / 2];
    double mscale;
    cm_rope_conf rc = { .kind = CM_ROPE_PLAIN, .P = P, .base = 10000 };
    cm_rope_freqs(&rc, inv, &mscale);
    cm_arena_reset(&b->arena, 0);
    cm_arena_reset(&b->meta, 0);
    b->arena.peak = 0;
    cm_tape_begin(&b->t, &b->arena, &b->meta, true, false);
    b->t.compute = b->how;
    cm_var *q = input(b, 1, T, H * P), *k = input(b, 2, T, G * P), *loss;
    cm_var *v = input(b, 3, T, G * P);
    cm_seq seq = { .B = 1, .T = T };
    double t0 = bench_now();
    cm_var *y = cm_attention(&b->t, q, k, v, &seq, H, G, (cm_real)0.125, inv, mscale);
    double t1 = bench_now();
    cm_tape_apply(&b->t, &op_root, &y, 1, NULL, &loss);
    double t2 = bench_now();
    cm_tape_backward(&b->t, loss, 1);
    return (times){ t1 - t0, bench_now() - t2, (double)b->arena.peak };
}

static double gemm_flops(cm_compute how, cm_numerics numerics) {
    static cm_real *x;
    int64_t n = (int64_t)PEAK_N * PEAK_N;
    bench_start(numerics);
    if (!x) {
        x = malloc(sizeof *x * (size_t)(3 * n));
        CM_ASSERT(x, "out of memory");
        for (int64_t i = 0; i < 3 * n; i++) x[i] = (cm_real)0.01 * (cm_real)(i % 7);
    }
    cm_mat a = cm_mat_of(x, PEAK_N, false), b = cm_mat_of(x + n, PEAK_N, false);
    double best = INFINITY;
    for (int i = 0; i <= PRODUCTS; i++) {
        double t = bench_now();
        cm_product(how, PEAK_N, PEAK_N, PEAK_N, 1, a, b, 0, x + 2 * n, PEAK_N);
        t = bench_now() - t;
        if (i && t < best) best = t; /* the first meets memory that nobody touched */
    }
    return 2.0 * PEAK_N * PEAK_N * PEAK_N / best;
}

static double peak(cm_compute how) {
    double blas = how == CM_COMPUTE_FP32 ? gemm_flops(how, CM_NUMERICS_FAST) : 0;
    double own = gemm_flops(how, CM_NUMERICS_STRICT);
    return blas > own ? blas : own;
}

static void table(job *b) {
    static double f[MAX_LENGTHS][MAX_ROUNDS], g[MAX_LENGTHS][MAX_ROUNDS];
    static double fb[MAX_LENGTHS][MAX_ROUNDS], top[MAX_ROUNDS], bytes[MAX_LENGTHS];
    for (int r = 0; r < b->rounds; r++) {
        top[r] = peak(b->how);
        for (int i = 0; i < b->n; i++) {
            if (b->length[i] > 8192 && r) continue; /* long enough to be measured once */
            times t = attention(b, b->length[i], b->H, b->G);
            double T = b->length[i], unit = T * T * b->H * P; /* of a causal product */
            f[i][r] = 2 * unit / t.fwd / top[r];
            g[i][r] = 5 * unit / t.bwd / top[r];
            fb[i][r] = 7 * unit / (t.fwd + t.bwd) / top[r];
            bytes[i] = t.bytes;
        }
    }
    const char *how = b->how == CM_COMPUTE_BF16 ? "/bf16" : "";
    double gflops = bench_median(top, b->rounds) / 1e9;
    for (int i = 0; i < b->n; i++) {
        int T = b->length[i], n = T > 8192 ? 1 : b->rounds;
        double way[] = { bench_median(f[i], n), bench_median(g[i], n), bench_median(fb[i], n) };
        bench_put(way[0], "attention%s/T%d/forward_share", how, T);
        bench_put(way[1], "attention%s/T%d/backward_share", how, T);
        bench_put(way[2], "attention%s/T%d/share", how, T);
        bench_put(bytes[i] / T, "attention%s/T%d/arena_bytes_per_row", how, T);
        bench_say("T %5d  forward %.3f  backward %.3f  both %.3f of the peak  %.0f bytes a row\n",
                  T, way[0], way[1], way[2], bytes[i] / T);
    }
    bench_put(gflops, "attention%s/peak_gflops", how);
    bench_put(cm_kern_threads(), "attention%s/threads", how);
    bench_say("peak %.1f GFLOP/s; %s\n", gflops, cm_kern_describe());
}

static void answer(job *b) {
    int T, H, G;
    while (scanf("%d %d %d", &T, &H, &G) == 3) {
        times t = attention(b, T, H, G);
        printf("%.9f %.9f %.0f\n", t.fwd, t.bwd, t.bytes);
        fflush(stdout);
    }
}

static void options(job *b, int argc, char **argv) {
    static const int lengths[] = { 1024, 2048, 4096, 8192, 16384, 32768 };
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "ask")) b->ask = true;
        else if (!strcmp(argv[i], "compute=bf16")) b->how = CM_COMPUTE_BF16;
        else if (!bench_option(argv[i]) && strcmp(argv[i], "compute=fp32") != 0 &&
                 !bench_list(argv[i], "T", b->length, &b->n, MAX_LENGTHS) &&
                 !bench_int(argv[i], "rounds", &b->rounds, 1, MAX_ROUNDS) &&
                 !bench_int(argv[i], "H", &b->H, 1, BENCH_MOST) &&
                 !bench_int(argv[i], "G", &b->G, 1, BENCH_MOST))
            bench_unknown(argv[i], "ask, compute=fp32|bf16, T=N,N, rounds=N, H=N, G=N");
    }
    if (!b->n) memcpy(b->length, lengths, sizeof lengths), b->n = sizeof lengths / sizeof *lengths;
    bench_need_groups(b->H, b->G);
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    cm_err err;
    job b = { .rounds = 5, .H = 4, .G = 4 };
    options(&b, argc, argv);
    bench_start(CM_NUMERICS_STRICT);
    bench_must(cm_arena_open(&b.arena, "bench", (size_t)16 << 30, &err) &&
               cm_arena_open(&b.meta, "bench meta", (size_t)64 << 20, &err), &err);
    if (b.ask) answer(&b);
    else table(&b);
    return 0;
}
