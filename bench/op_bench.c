/* op_bench.c -- time and GFLOP/s of the heavy ops, forward and backward, at training
 * shapes, as a share of our own gemm at 1024^3 in the same process.
 *
 * Flops are the op's formula (causal half for attention); a backward counts twice its
 * forward.  xent forms its gradients in the forward: 3 x counted there.
 * Usage: op_bench [repetitions [threads]] */
#include "op/op.h"

#include <stdlib.h>
#include <string.h>

enum {
    B = 8, T = 512, D = 256, H = 4, P = 64, V = 8192, E = 8, K = 2, F = 256, R = B * T
};

typedef struct bench {
    cm_arena arena, meta;
    cm_tape t;
    double peak; /* GFLOP/s of gemm */
} bench;

static cm_var *var(bench *b, int nd, const int64_t *dim) {
    static uint64_t seed = 1;
    cm_var *x = cm_var_new(&b->t, dim, nd, true);
    int64_t n = cm_tensor_count(&x->v);
    cm_rng r = cm_rng_make(seed++, CM_RNG_TEST, 0);
    for (int64_t i = 0; i < n; i++)
        cm_rdata(&x->v)[i] = (cm_real)(0.2 * cm_rng_uniform(r, (uint64_t)i) - 0.1);
    x->is_param = true;
    x->g = cm_arena_zalloc(&b->arena, (size_t)n * sizeof(cm_real));
    return x;
}

static double gemm_peak(bench *b) {
    enum { N = 1024 };
    cm_var *x = var(b, 2, (int64_t[]){ N, N }), *y = var(b, 2, (int64_t[]){ N, N });
    double best = 1e9;
    for (int i = 0; i < 8; i++) {
        double t = cm_now();
        cm_gemm(false, false, N, N, N, 1, cm_rdata(&x->v), N, cm_rdata(&y->v), N, 0, x->g,
                N);
        t = cm_now() - t;
        if (t < best) best = t;
    }
    return 2.0 * N * N * N / best * 1e-9;
}

/* Backward starts from an output whose gradient is set to its value. */
static void start_backward(bench *b, cm_var *y, const cm_op *op) {
    cm_node *n = b->t.node[b->t.n_node - 1];
    y->g = cm_arena_alloc(&b->arena, cm_tensor_bytes(&y->v));
    if (cm_tensor_count(&y->v) == 1) *y->g = 1;
    else memcpy(y->g, y->v.data, cm_tensor_bytes(&y->v));
    for (int i = 0; i < n->n_in; i++) n->fresh[i] = false;
    size_t bytes = op->scratch ? op->scratch(n, true) : 0;
    void *scratch = bytes ? cm_arena_alloc(&b->arena, bytes) : NULL;
    op->bwd(n, scratch);
}

static void line(const bench *b, const char *what, double s, double flops) {
    double g = flops / s * 1e-9;
    printf("  %-18s %8.2f ms", what, s * 1e3);
    if (flops > 0) printf("  %7.1f GFLOP/s  %3.0f%% of gemm", g, 100 * g / b->peak);
    printf("\n");
}

typedef cm_var *(*apply_fn)(bench *b);

static void run(bench *b, const char *name, apply_fn apply, int reps, double fwd_by) {
    double fwd = 1e9, bwd = 1e9, flops = 0;
    size_t mark = cm_arena_mark(&b->arena), meta = cm_arena_mark(&b->meta);
    for (int i = 0; i < reps; i++) {
        cm_tape_begin(&b->t, &b->arena, &b->meta, true, false);
        cm_prof prof = { .n = 0 };
        b->t.prof = &prof;
        cm_var *y = apply(b);
        const cm_op *op = b->t.node[b->t.n_node - 1]->op;
        flops = prof.row[0].flops;
        if (prof.row[0].fwd_s < fwd) fwd = prof.row[0].fwd_s;
        double t = cm_now();
        start_backward(b, y, op);
        t = cm_now() - t;
        if (t < bwd) bwd = t;
        cm_arena_reset(&b->arena, mark);
        cm_arena_reset(&b->meta, meta);
    }
    char what[64];
    snprintf(what, sizeof what, "%s fwd", name);
    line(b, what, fwd, flops * fwd_by);
    snprintf(what, sizeof what, "%s bwd", name);
    line(b, what, bwd, fwd_by > 1 ? 0 : 2 * flops);
}

static int32_t token[R];
static double inv[P / 2];

static cm_var *do_linear(bench *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *w = var(b, 2, (int64_t[]){ 2 * F, D });
    return cm_linear(&b->t, x, w);
}
static cm_var *do_attention(bench *b) {
    static const int64_t dim[] = { R, H * P };
    cm_var *q = var(b, 2, dim), *k = var(b, 2, dim), *v = var(b, 2, dim);
    cm_seq seq = { .B = B, .T = T };
    return cm_attention(&b->t, q, k, v, &seq, H, H, (cm_real)0.125, inv, 1);
}
static cm_var *do_long(bench *b) {
    cm_var *q = var(b, 2, (int64_t[]){ R, H * P }), *k = var(b, 2, (int64_t[]){ R, P });
    cm_var *v = var(b, 2, (int64_t[]){ R, P });
    cm_seq seq = { .B = 1, .T = R };
    return cm_attention(&b->t, q, k, v, &seq, H, 1, (cm_real)0.125, inv, 1);
}
static cm_var *do_moe(bench *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *r = var(b, 2, (int64_t[]){ E, D });
    cm_var *wi = var(b, 3, (int64_t[]){ E, 2 * F, D });
    cm_var *wo = var(b, 3, (int64_t[]){ E, D, F }), *y, *aux;
    cm_moe(&b->t, x, r, wi, wo, NULL, K, (cm_real)0.01, (cm_real)1e-3, NULL, NULL, &y, &aux);
    return y;
}
static cm_var *do_xent(bench *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *w = var(b, 2, (int64_t[]){ V, D });
    return cm_xent(&b->t, x, w, token, 1, 1, 0, NULL);
}
static cm_var *do_rmsnorm(bench *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *w = var(b, 1, (int64_t[]){ D });
    return cm_rmsnorm(&b->t, x, w, (cm_real)1e-5);
}
static cm_var *do_swiglu(bench *b) {
    return cm_swiglu(&b->t, var(b, 2, (int64_t[]){ R, 2 * F }));
}
static cm_var *do_residual(bench *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *y = var(b, 2, (int64_t[]){ R, D });
    return cm_residual(&b->t, x, y, 1);
}
static cm_var *do_embed(bench *b) {
    return cm_embed(&b->t, var(b, 2, (int64_t[]){ V, D }), token, R, 1);
}

int main(int argc, char **argv) {
    int reps = argc > 1 ? atoi(argv[1]) : 5, threads = argc > 2 ? atoi(argv[2]) : 0;
    cm_err err;
    bench b = { 0 };
    if (!cm_kern_init(CM_NUMERICS_STRICT, threads, &err) ||
        !cm_arena_open(&b.arena, "bench", (size_t)8 << 30, &err) ||
        !cm_arena_open(&b.meta, "bench meta", (size_t)64 << 20, &err)) {
        fprintf(stderr, "op_bench: %s\n", err.msg);
        return 1;
    }
    for (int r = 0; r < R; r++) token[r] = (int32_t)(((int64_t)r * 7919) % V);
    double mscale;
    cm_rope_conf rc = { .kind = CM_ROPE_PLAIN, .P = P, .base = 10000 };
    cm_rope_freqs(&rc, inv, &mscale);
    cm_tape_begin(&b.t, &b.arena, &b.meta, true, false);
    b.peak = gemm_peak(&b);
    printf("%s; gemm 1024^3: %.1f GFLOP/s\n", cm_kern_describe(), b.peak);
    run(&b, "linear 512x256", do_linear, reps, 1);
    run(&b, "attention", do_attention, reps, 1);
    run(&b, "attn T4096 G1", do_long, reps, 1);
    run(&b, "moe", do_moe, reps, 1);
    run(&b, "xent", do_xent, reps, 3);
    run(&b, "rmsnorm", do_rmsnorm, reps, 1);
    run(&b, "swiglu", do_swiglu, reps, 1);
    run(&b, "residual", do_residual, reps, 1);
    run(&b, "embed", do_embed, reps, 1);
    return 0;
}
