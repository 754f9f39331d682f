/* ssd_bench.c -- times of the Mamba-2 mixer's ops at a training shape.
 *
 * Prints forward and backward milliseconds (best of alternating runs) and, for the scan,
 * GFLOP/s over the products it does (causal half of the Q x Q ones) and their share of
 * our gemm at 1024^3 on the same threads in the same run.
 * Usage: ssd_bench [seconds [threads [B T H P N G Q]]] */
#include "op/op.h"

#include <stdlib.h>

typedef struct {
    int B, T, H, P, N, G, Q;
} shape;

static cm_arena mem, meta;

static cm_var *input(cm_tape *t, uint64_t seed, int64_t a, int64_t b) {
    cm_var *x = cm_var_new(t, (int64_t[]){ a, b }, b ? 2 : 1, true);
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, 0);
    for (int64_t i = 0; i < a * (b ? b : 1); i++)
        cm_rdata(&x->v)[i] = (cm_real)(cm_rng_uniform(r, (uint64_t)i) - 0.5);
    return x;
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

/* One mixer: the three ops in a row.  Adds each op's best times to best. */
static void mixer(const shape *s, cm_prof *prof) {
    cm_tape t;
    cm_arena_reset(&mem, 0);
    cm_arena_reset(&meta, 0);
    cm_tape_begin(&t, &mem, &meta, true, false);
    int64_t R = (int64_t)s->B * s->T, DI = (int64_t)s->H * s->P, C = DI + 2 * s->G * s->N;
    cm_var *zx = input(&t, 1, R, 2 * DI + 2 * s->G * s->N + s->H);
    cm_var *w = input(&t, 2, C, 4), *b = input(&t, 3, C, 0), *gain = input(&t, 4, DI, 0);
    cm_var *A = input(&t, 5, s->H, 0), *D = input(&t, 6, s->H, 0);
    cm_var *bias = input(&t, 7, s->H, 0), *y, *loss;
    cm_seq seq = { .B = s->B, .T = s->T };
    cm_ssd_conf c = { s->H, s->P, s->N, s->G, s->Q, .dcol = DI + C };
    t.prof = prof;
    cm_var *xbc = cm_conv_silu(&t, zx, w, b, &seq, DI, NULL, NULL);
    cm_ssd(&t, xbc, zx, A, D, bias, NULL, &seq, &c, &y, NULL);
    cm_var *out = cm_gated_norm(&t, y, zx, gain, 0, 1, (cm_real)1e-5);
    cm_tape_apply(&t, &op_one, &out, 1, NULL, &loss);
    cm_tape_backward(&t, loss, 1);
}

static double gemm_peak(int n) {
    cm_real *x = cm_arena_alloc(&mem, (size_t)(3 * n * n) * sizeof *x);
    for (int i = 0; i < 3 * n * n; i++) x[i] = (cm_real)0.01 * (cm_real)(i % 7);
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        double t = cm_now();
        cm_gemm(false, false, n, n, n, 1, x, n, x + n * n, n, 0, x + 2 * n * n, n);
        t = cm_now() - t;
        if (t < best) best = t;
    }
    return 2.0 * n * n * n / best;
}

/* Products of one backward: the forward's states again, their gradients, and per chunk
 * three with the states, two causal Q x Q ones with x and dy, three of C B^T. */
static double back_flops(const shape *s) {
    double R = (double)s->B * s->T, DI = (double)s->H * s->P, N = s->N;
    return R * (2 * DI * s->Q + 10 * DI * N + 3.0 * s->Q * s->G * N);
}

int main(int argc, char **argv) {
    shape s = { 8, 512, 8, 64, 64, 1, 64 };
    int *field[] = { &s.B, &s.T, &s.H, &s.P, &s.N, &s.G, &s.Q };
    double seconds = argc > 1 ? atof(argv[1]) : 2;
    for (int i = 3; i < argc && i < 10; i++) *field[i - 3] = atoi(argv[i]);
    cm_err err;
    bool ok = cm_kern_init(CM_NUMERICS_STRICT, argc > 2 ? atoi(argv[2]) : 0, &err) &&
              cm_arena_open(&mem, "bench", (size_t)8 << 30, &err) &&
              cm_arena_open(&meta, "meta", (size_t)1 << 30, &err);
    CM_ASSERT(ok, "%s", err.msg);
    printf("%s\nB=%d T=%d H=%d P=%d N=%d G=%d Q=%d\n", cm_kern_describe(), s.B, s.T, s.H,
           s.P, s.N, s.G, s.Q);
    double peak = gemm_peak(1024), start = cm_now();
    cm_prof best = { .n = 0 };
    do {
        cm_prof now = { .n = 0 };
        mixer(&s, &now);
        if (!best.n) best = now;
        for (int i = 0; i < now.n; i++) {
            if (now.row[i].fwd_s < best.row[i].fwd_s) best.row[i].fwd_s = now.row[i].fwd_s;
            if (now.row[i].bwd_s < best.row[i].bwd_s) best.row[i].bwd_s = now.row[i].bwd_s;
        }
    } while (cm_now() - start < seconds);
    for (int i = 0; i < best.n; i++) {
        const cm_prof_row *r = &best.row[i];
        printf("%-10s forward %7.2f ms  backward %7.2f ms", r->op->name, r->fwd_s * 1e3,
               r->bwd_s * 1e3);
        if (r->flops > 0)
            printf("  %5.1f (%2.0f%%) and %5.1f (%2.0f%%) GFLOP/s", r->flops / r->fwd_s / 1e9,
                   100 * r->flops / r->fwd_s / peak, back_flops(&s) / r->bwd_s / 1e9,
                   100 * back_flops(&s) / r->bwd_s / peak);
        printf("\n");
    }
    printf("gemm 1024^3: %.1f GFLOP/s\n", peak / 1e9);
    return 0;
}
