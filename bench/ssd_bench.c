/* ssd_bench.c -- times of the Mamba-2 mixer's ops at a training shape.
 *
 * Prints forward and backward milliseconds (best of alternating runs) and, for the scan,
 * GFLOP/s over the products it does (causal half of the Q x Q ones) and their share of
 * our gemm of that precision at 512^3 on the same threads in the same run.
 * Usage: ssd_bench [seconds=2] [compute=fp32|bf16] [B=8] [T=512] [H=8] [P=64] [N=64] [G=1]
 *                  [Q=64] [threads=N] [busy=1] [json=1] */
#include "bench/bench.h"
#include "op/op.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int B, T, H, P, N, G, Q;
} shape;

enum { ZX, W, BIAS, GAIN, A_LOG, D, DT_BIAS, N_IN };

static cm_arena mem, meta, kept;
static cm_tape keep;       /* of the inputs, which are made once */
static cm_var *in[N_IN];
static cm_compute how;

static void input(int k, int64_t a, int64_t b) {
    cm_var *x = cm_var_new(&keep, (int64_t[]){ a, b }, b ? 2 : 1, true);
    int64_t n = cm_tensor_count(&x->v);
    cm_rng r = cm_rng_make((uint64_t)k, CM_RNG_TEST, 0);
    for (int64_t i = 0; i < n; i++)
        cm_rdata(&x->v)[i] = (cm_real)(cm_rng_uniform(r, (uint64_t)i) - 0.5);
    x->is_param = true;
    x->g = cm_arena_zalloc(&kept, (size_t)n * sizeof *x->g);
    in[k] = x;
}

static void inputs(const shape *s) {
    int64_t DI = (int64_t)s->H * s->P, C = DI + 2 * s->G * s->N;
    input(ZX, (int64_t)s->B * s->T, DI + C + s->H);
    input(W, C, 4);
    input(BIAS, C, 0);
    input(GAIN, DI, 0);
    for (int k = A_LOG; k <= DT_BIAS; k++) input(k, s->H, 0);
}

/* A root that sends gradient 1 to everything, so that only the op's time counts. */
static bool one_infer(cm_node *n, const char **why) {
    (void)why;
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}
static void one_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    *cm_rdata(&n->out[0]->v) = 0;
}
static void one_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    for (int64_t i = 0; i < cm_tensor_count(&n->in[0]->v); i++) n->in[0]->g[i] = 1;
}
static const cm_op op_one = {
    .name = "one", .shapes = "x -> y[1]", .n_in = 1, .n_out = 1, .sets = 1,
    .infer = one_infer, .fwd = one_fwd, .bwd = one_bwd,
};

/* One mixer: the three ops in a row, timed by the tape. */
static void mixer(const shape *s, cm_prof *prof) {
    cm_tape t;
    cm_arena_reset(&mem, 0);
    cm_arena_reset(&meta, 0);
    cm_tape_begin(&t, &mem, &meta, true, false);
    t.compute = how;
    t.prof = prof;
    int64_t DI = (int64_t)s->H * s->P, C = DI + 2 * s->G * s->N;
    cm_seq seq = { .B = s->B, .T = s->T };
    cm_ssd_conf c = { s->H, s->P, s->N, s->G, s->Q, .dcol = DI + C };
    cm_var *y, *loss;
    cm_var *xbc = cm_conv_silu(&t, in[ZX], in[W], in[BIAS], &seq, DI, NULL, NULL);
    cm_ssd(&t, xbc, in[ZX], in[A_LOG], in[D], in[DT_BIAS], NULL, &seq, &c, &y, NULL);
    cm_var *out = cm_gated_norm(&t, y, in[ZX], in[GAIN], 0, 1, (cm_real)1e-5, CM_ANYBODY);
    cm_tape_apply(&t, &op_one, &out, 1, NULL, &loss);
    cm_tape_backward(&t, loss, 1);
}

/* Seconds of one product of n x n matrices. */
static double gemm_time(int n) {
    static cm_real *x;
    if (!x) {
        x = cm_arena_alloc(&kept, (size_t)(3 * n * n) * sizeof *x);
        for (int i = 0; i < 3 * n * n; i++) x[i] = (cm_real)0.01 * (cm_real)(i % 7);
    }
    cm_mat a = cm_mat_of(x, n, false), b = cm_mat_of(x + n * n, n, false);
    double t = bench_now();
    cm_product(how, n, n, n, 1, a, b, 0, x + 2 * n * n, n);
    return bench_now() - t;
}

static double least(double a, double b) { return a < b ? a : b; }

/* Products really done.  The first chunk of a row has no state to read and the last passes
 * none on, so products with states happen in chunks - 1 of them; cm_op.flops, which feeds
 * the utilisation of whole steps, counts them in all.  Forward: two with the state.
 * Backward: states again, their gradients, three in the chunk; three of C B^T. */
static double done_flops(const shape *s, bool backward) {
    double R = (double)s->B * s->T, DI = (double)s->H * s->P, N = s->N, GN = s->G * N;
    int chunks = (s->T + s->Q - 1) / s->Q;
    double state = 2 * DI * N * (chunks - 1) / chunks;
    if (backward) return R * (2 * DI * s->Q + 5 * state + 3 * s->Q * GN);
    return R * (s->Q * (GN + DI) + 2 * state);
}

static void report(const shape *s, const cm_prof *best, double peak) {
    const char *name = how == CM_COMPUTE_BF16 ? "bf16" : "fp32";
    for (int i = 0; i < best->n; i++) {
        const cm_prof_row *r = &best->row[i];
        if (r->op == &op_one) continue;
        for (int back = 0; back < 2; back++) {
            double seconds = r->pass[back].seconds, rate = done_flops(s, back) / seconds;
            const char *way = back ? "backward" : "forward";
            bench_put(seconds * 1e3, "mixer/%s/%s/%s/ms", r->op->name, name, way);
            bench_say("%-10s %-8s %7.2f ms", r->op->name, way, seconds * 1e3);
            if (r->flops > 0) {
                bench_put(rate / peak, "mixer/%s/%s/%s/share", r->op->name, name, way);
                bench_say("  %5.1f GFLOP/s (%2.0f%%)", rate / 1e9, 100 * rate / peak);
            }
            bench_say("\n");
        }
    }
    bench_say("%s gemm 512^3: %.1f GFLOP/s\n", name, peak / 1e9);
}

static double options(shape *s, int argc, char **argv) {
    const struct { const char *key; int *to; } size[] = {
        { "B", &s->B }, { "T", &s->T }, { "H", &s->H }, { "P", &s->P },
        { "N", &s->N }, { "G", &s->G }, { "Q", &s->Q },
    };
    double seconds = 2;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "compute=bf16")) how = CM_COMPUTE_BF16;
        else if (!bench_option(argv[i]) && !bench_real(argv[i], "seconds", &seconds) &&
                 strcmp(argv[i], "compute=fp32") != 0) {
            bool known = false;
            for (size_t k = 0; !known && k < sizeof size / sizeof *size; k++)
                known = bench_int(argv[i], size[k].key, size[k].to, 1, BENCH_MOST);
            if (!known)
                bench_unknown(argv[i], "compute=fp32|bf16, seconds=X, B=N, T=N, H=N, P=N, N=N, "
                                       "G=N, Q=N");
        }
    }
    bench_need_groups(s->H, s->G);
    return seconds;
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    shape s = { 8, 512, 8, 64, 64, 1, 64 };
    double seconds = options(&s, argc, argv);
    cm_err err;
    bench_start(CM_NUMERICS_STRICT);
    bench_must(cm_arena_open(&mem, "bench", (size_t)8 << 30, &err) &&
               cm_arena_open(&kept, "inputs", (size_t)8 << 30, &err) &&
               cm_arena_open(&meta, "meta", (size_t)1 << 30, &err), &err);
    bench_say("%s\nB=%d T=%d H=%d P=%d N=%d G=%d Q=%d\n", cm_kern_describe(), s.B, s.T, s.H,
              s.P, s.N, s.G, s.Q);
    cm_tape_begin(&keep, &kept, &meta, false, false);
    keep.meta = &kept;
    inputs(&s);
    double gemm = gemm_time(512), start = cm_now();
    cm_prof best = { .n = 0 };
    do {
        cm_prof now = { .n = 0 };
        mixer(&s, &now);
        gemm = least(gemm, gemm_time(512));
        if (!best.n) best = now;
        for (int i = 0; i < now.n; i++) {
            cm_prof_pass *b = best.row[i].pass, *n = now.row[i].pass;
            for (int k = 0; k < 2; k++) b[k].seconds = least(b[k].seconds, n[k].seconds);
        }
    } while (cm_now() - start < seconds);
    report(&s, &best, 2.0 * 512 * 512 * 512 / gemm);
    return 0;
}
