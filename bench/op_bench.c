/* op_bench.c -- time of the ops, forward and backward, at training shapes, as a share of
 * their floors: flops at the rate of our gemm, or bytes at the rate of memory, whichever
 * takes longer, both measured in the same process; work as the op's descriptor says
 * (cm_op_work).  More than 100% of a memory floor: the data was in a cache.
 * Ops whose large products may be of BF16 are measured so, too.  Last the optimizers' step, the
 * gradients' norm included: AdamW by the type of its moments, and Muon, which has no floor here.
 * Usage: op_bench [repetitions=5] [threads=N] [json=1] [busy=1] */
#include "bench/bench.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

enum {
    B = 8, T = 512, D = 256, H = 4, P = 64, V = 8192, E = 8, K = 2, F = 256, R = B * T,
    DI = 2 * D, SH = DI / P, N = 64, C = DI + 2 * N, W = DI + C + SH /* of Mamba-2 */
};

typedef struct job {
    cm_arena arena, meta;
    cm_tape t;
    double gemm[2], read; /* flops by precision, and bytes, a second */
    cm_compute how;
} job;

static cm_var *var(job *b, int nd, const int64_t *dim) {
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

/* Backward starts from an output whose gradient is set to its value. */
static void seed_gradients(job *b, cm_node *n) {
    cm_var *y = n->out[0];
    y->g = cm_arena_alloc(&b->arena, cm_tensor_bytes(&y->v));
    if (cm_tensor_count(&y->v) == 1) *y->g = 1;
    else memcpy(y->g, y->v.data, cm_tensor_bytes(&y->v));
    for (int i = 0; i < n->n_in; i++) n->fresh[i] = false;
}

/* Seconds of a pass over the node; the forward runs for the second time here. */
static double pass(job *b, cm_node *n, bool backward) {
    size_t mark = cm_arena_mark(&b->arena);
    size_t bytes = n->op->scratch ? n->op->scratch(n, backward) : 0;
    void *scratch = bytes ? cm_arena_alloc(&b->arena, bytes) : NULL;
    double t = bench_now();
    (backward ? n->op->bwd : n->op->fwd)(n, scratch);
    t = bench_now() - t;
    cm_arena_reset(&b->arena, mark);
    return t;
}

static void line(const job *b, const char *name, bool back, const cm_prof_pass *p) {
    const char *way = back ? "bwd" : "fwd", *how = b->how == CM_COMPUTE_BF16 ? "bf16" : "fp32";
    bool products = p->work.flops > 0;
    bench_say("  %-16s %s %s %9.3f ms  %7.1f GFLOP/s  %6.1f GB/s  %4.0f%% of its floor\n", name,
              how, way, p->seconds * 1e3, p->work.flops / p->seconds * 1e-9,
              p->work.bytes / p->seconds * 1e-9, 100 * p->floor / p->seconds);
    bench_put(p->seconds * 1e3, "op/%s/%s/%s/ms", name, how, way);
    double rate = (products ? p->work.flops : p->work.bytes) / p->seconds * 1e-9;
    if (p->floor == 0) return; /* Muon */
    bench_put(rate, "op/%s/%s/%s/%s", name, how, way, products ? "gflops" : "gb_per_s");
    bench_put(p->floor / p->seconds, "op/%s/%s/%s/share_of_floor", name, how, way);
}

static void keep_least(cm_prof_pass *best, const cm_prof_pass *now) {
    if (best->seconds == 0 || now->seconds < best->seconds) *best = *now;
}

typedef cm_var *(*apply_fn)(job *b);

/* Nothing where the op has no such precision. */
static void run(job *b, const char *name, apply_fn apply, int reps) {
    cm_prof_pass best[2] = { { 0 } };
    size_t mark = cm_arena_mark(&b->arena), meta = cm_arena_mark(&b->meta);
    bool mixed = true;
    for (int i = 0; i < reps && mixed; i++) {
        cm_tape_begin(&b->t, &b->arena, &b->meta, true, false);
        b->t.compute = b->how;
        apply(b);
        cm_node *n = b->t.node[b->t.n_node - 1];
        mixed = n->op->mixed || b->how == CM_COMPUTE_FP32;
        cm_prof prof = { .flop_rate = { b->gemm[0], b->gemm[1] }, .byte_rate = b->read };
        cm_prof_add(&prof, n, false, false, pass(b, n, false));
        seed_gradients(b, n);
        cm_prof_add(&prof, n, true, false, pass(b, n, true));
        for (int k = 0; k < 2; k++) keep_least(&best[k], &prof.row[0].pass[k]);
        cm_arena_reset(&b->arena, mark);
        cm_arena_reset(&b->meta, meta);
    }
    if (!mixed) return;
    line(b, name, false, &best[0]);
    if (!b->t.node[0]->op->early) line(b, name, true, &best[1]);
}

static int32_t token[R];
static double inv[P / 2];

static cm_var *do_linear(job *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *w = var(b, 2, (int64_t[]){ 2 * F, D });
    return cm_linear(&b->t, x, w);
}
static cm_var *do_attention(job *b) {
    static const int64_t dim[] = { R, H * P };
    cm_var *q = var(b, 2, dim), *k = var(b, 2, dim), *v = var(b, 2, dim);
    cm_seq seq = { .B = B, .T = T };
    return cm_attention(&b->t, q, k, v, &seq, H, H, (cm_real)0.125, inv, 1);
}
static cm_var *do_long(job *b) {
    cm_var *q = var(b, 2, (int64_t[]){ R, H * P }), *k = var(b, 2, (int64_t[]){ R, P });
    cm_var *v = var(b, 2, (int64_t[]){ R, P });
    cm_seq seq = { .B = 1, .T = R };
    return cm_attention(&b->t, q, k, v, &seq, H, 1, (cm_real)0.125, inv, 1);
}
static cm_var *do_moe(job *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *r = var(b, 2, (int64_t[]){ E, D });
    cm_var *wi = var(b, 3, (int64_t[]){ E, 2 * F, D });
    cm_var *wo = var(b, 3, (int64_t[]){ E, D, F }), *y, *aux;
    cm_moe(&b->t, x, r, wi, wo, NULL, K, (cm_real)0.01, (cm_real)1e-3, NULL, NULL, &y, &aux);
    return y;
}
static cm_var *do_xent(job *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *w = var(b, 2, (int64_t[]){ V, D });
    return cm_xent(&b->t, x, w, token, 1, 1, 0, NULL, NULL);
}
static cm_var *do_rmsnorm(job *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *w = var(b, 1, (int64_t[]){ D });
    return cm_rmsnorm(&b->t, x, w, (cm_real)1e-5, CM_ANYBODY);
}
static cm_var *do_swiglu(job *b) {
    return cm_swiglu(&b->t, var(b, 2, (int64_t[]){ R, 2 * F }), CM_ANYBODY);
}
static cm_var *do_residual(job *b) {
    cm_var *x = var(b, 2, (int64_t[]){ R, D }), *y = var(b, 2, (int64_t[]){ R, D });
    return cm_residual(&b->t, x, y, 1);
}
static cm_var *do_embed(job *b) {
    return cm_embed(&b->t, var(b, 2, (int64_t[]){ V, D }), token, R, 1);
}

static const cm_seq rows = { .B = B, .T = T };
static cm_var *do_conv(job *b) {
    cm_var *zx = var(b, 2, (int64_t[]){ R, W }), *w = var(b, 2, (int64_t[]){ C, 4 });
    return cm_conv_silu(&b->t, zx, w, var(b, 1, (int64_t[]){ C }), &rows, DI, NULL, NULL);
}
static cm_var *do_ssd(job *b) {
    static const int64_t heads[] = { SH };
    cm_var *xbc = var(b, 2, (int64_t[]){ R, C }), *zx = var(b, 2, (int64_t[]){ R, W }), *y;
    cm_var *a = var(b, 1, heads), *skip = var(b, 1, heads), *bias = var(b, 1, heads);
    cm_ssd_conf c = { SH, P, N, 1, 64, .dcol = DI + C };
    cm_ssd(&b->t, xbc, zx, a, skip, bias, NULL, &rows, &c, &y, NULL);
    return y;
}
static cm_var *do_gated(job *b) {
    cm_var *y = var(b, 2, (int64_t[]){ R, DI }), *zx = var(b, 2, (int64_t[]){ R, W });
    return cm_gated_norm(&b->t, y, zx, var(b, 1, (int64_t[]){ DI }), 0, 1, (cm_real)1e-5,
                         CM_ANYBODY);
}

static const struct {
    const char *name;
    apply_fn apply;
} ops[] = {
    { "linear", do_linear }, { "attention", do_attention }, { "attention-T4096", do_long },
    { "moe", do_moe }, { "xent", do_xent }, { "ssd", do_ssd }, { "conv_silu", do_conv },
    { "gated_norm", do_gated }, { "rmsnorm", do_rmsnorm }, { "swiglu", do_swiglu },
    { "residual", do_residual }, { "embed", do_embed },
};

/* ---- optimizers ----------------------------------------------------------------------- */

static const struct {
    const char *name;
    int kind, state;
    double bytes; /* a weight: itself and its moments read and written, its gradient read twice */
} optimizers[] = {
    { "adamw", CM_OPTIM_ADAMW, CM_STATE_FP32, 8 + 16 + 8 },
    { "adamw-bf16", CM_OPTIM_ADAMW, CM_STATE_BF16, 8 + 8 + 8 },
    { "adamw-int8", CM_OPTIM_ADAMW, CM_STATE_INT8, 8 + 4 + 8 },
    { "muon", CM_OPTIM_MUON, CM_STATE_FP32, 0 },
};

/* The matrices of eight layers, gradients like weights. */
static void add_layers(job *b, cm_params *ps) {
    static const int64_t shape[][2] = { { W, D }, { D, DI }, { 2 * F, D }, { D, F } };
    cm_params_begin(ps, &b->arena, true);
    for (int i = 0; i < 32; i++)
        cm_param_add(ps, CM_GROUP_MATRIX, CM_INIT_NORMAL, 0.02, 2, shape[i % 4], "w%d", i);
    cm_params_init(ps, 1);
    for (int i = 0; i < ps->n; i++)
        memcpy(ps->p[i]->var.g, ps->p[i]->var.v.data, cm_tensor_bytes(&ps->p[i]->var.v));
}

static void optimize(job *b, int which, int reps) {
    cm_optim_conf c = { .kind = optimizers[which].kind, .state = optimizers[which].state,
                        .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8,
                        .weight_decay = 0.1, .muon_momentum = 0.95, .muon_steps = 5 };
    size_t mark = cm_arena_mark(&b->arena);
    cm_prof_pass best = { 0 };
    cm_params ps;
    cm_optim o;
    add_layers(b, &ps);
    cm_optim_open(&o, &c, &ps, &b->arena);
    double bytes = optimizers[which].bytes * (double)cm_params_count(&ps);
    for (int i = 0; i <= reps; i++) { /* the first touches the moments */
        double t = bench_now();
        cm_optim_grad_norm(&o);
        cm_optim_step(&o, i + 1, 1, 1, &b->arena, false);
        cm_prof_pass now = { .seconds = bench_now() - t, .floor = bytes / b->read,
                             .work.bytes = bytes };
        if (i) keep_least(&best, &now);
    }
    b->how = CM_COMPUTE_FP32;
    line(b, optimizers[which].name, false, &best);
    cm_optim_close(&o);
    cm_params_end(&ps);
    cm_arena_reset(&b->arena, mark);
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    cm_err err;
    job b = { 0 };
    int reps = 5;
    double mscale;
    for (int i = 1; i < argc; i++)
        if (!bench_option(argv[i]) && !bench_int(argv[i], "repetitions", &reps, 1, BENCH_MOST))
            bench_unknown(argv[i], "repetitions=N");
    bench_start(CM_NUMERICS_STRICT);
    bench_must(cm_arena_open(&b.arena, "bench", (size_t)8 << 30, &err) &&
               cm_arena_open(&b.meta, "bench meta", (size_t)64 << 20, &err), &err);
    for (int r = 0; r < R; r++) token[r] = (int32_t)(((int64_t)r * 7919) % V);
    cm_rope_conf rc = { .kind = CM_ROPE_PLAIN, .P = P, .base = 10000 };
    cm_rope_freqs(&rc, inv, &mscale);
    for (int how = 0; how < 2; how++) b.gemm[how] = 1e9 * cm_gemm_probe((cm_compute)how, 0.3);
    b.read = cm_read_probe(0.3);
    bench_say("%s; gemm 512^3: %.1f GFLOP/s, bf16 %.1f, memory %.1f GB/s\n",
              cm_kern_describe(), b.gemm[0] * 1e-9, b.gemm[1] * 1e-9, b.read * 1e-9);
    for (size_t i = 0; i < 2 * sizeof ops / sizeof *ops; i++) {
        b.how = i & 1 ? CM_COMPUTE_BF16 : CM_COMPUTE_FP32;
        run(&b, ops[i / 2].name, ops[i / 2].apply, reps);
    }
    for (size_t i = 0; i < sizeof optimizers / sizeof *optimizers; i++)
        optimize(&b, (int)i, reps);
    return 0;
}
