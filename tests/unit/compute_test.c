/* compute_test.c -- ops whose large products round their operands to BF16.
 *
 * A linear layer does exactly what fp32 does with rounded operands; ops with more inside are
 * near fp32, and not equal to it; weights stored as BF16 enter as they are. */
#include "tests/unit/op_fixture.h"

#include <stdlib.h>

enum { R = 70, I = 45, O = 130, E = 4, F = 24, V = 90 };

static void round_to_bf16(cm_real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = (cm_real)cm_bf16_to_f32(cm_f32_to_bf16((float)x[i]));
}

static void open_at(op_fix *f, cm_compute how) {
    fix_open(f, true);
    f->t.compute = how;
}

/* The backward of y from the gradient fix_value(9, .), rounded first or not. */
static void back(op_fix *f, cm_var *y, bool rounded) {
    int64_t n = cm_tensor_count(&y->v);
    y->g = cm_arena_alloc(&f->arena, (size_t)n * sizeof *y->g);
    y->g_live = true;
    for (int64_t i = 0; i < n; i++) y->g[i] = (cm_real)fix_value(9, i);
    if (rounded) round_to_bf16(y->g, n);
    cm_var *zero = cm_var_new(&f->t, (int64_t[]){ 1 }, 1, true);
    cm_tape_backward(&f->t, zero, 0);
}

static void linear(op_fix *f, cm_compute how, bool rounded, cm_var *v[3]) {
    open_at(f, how);
    v[0] = fix_var(f, 1, 2, (int64_t[]){ R, I });
    v[1] = fix_var(f, 2, 2, (int64_t[]){ O, I });
    for (int i = 0; rounded && i < 2; i++)
        round_to_bf16(cm_rdata(&v[i]->v), cm_tensor_count(&v[i]->v));
    v[2] = cm_linear(&f->t, v[0], v[1]);
    back(f, v[2], rounded);
}

TEST(linear_is_fp32_of_rounded_operands) {
    fix_threads(2);
    op_fix f[3];
    cm_var *v[3][3];
    linear(&f[0], CM_COMPUTE_BF16, false, v[0]);
    linear(&f[1], CM_COMPUTE_FP32, true, v[1]);
    linear(&f[2], CM_COMPUTE_FP32, false, v[2]);
    CHECK(fix_same(R * O, cm_rdata(&v[0][2]->v), cm_rdata(&v[1][2]->v)));
    CHECK(fix_same(R * I, v[0][0]->g, v[1][0]->g));
    CHECK(fix_same(O * I, v[0][1]->g, v[1][1]->g));
    CHECK(!fix_same(R * O, cm_rdata(&v[0][2]->v), cm_rdata(&v[2][2]->v)));
    for (int i = 0; i < 3; i++) fix_close(&f[i]);
}

/* |a - b| / |b| of a gradient or value, checked to be a rounding's. */
static void near(const char *what, int64_t n, const cm_real *a, const cm_real *b,
                 double least) {
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        diff += d * d;
        size += (double)b[i] * (double)b[i];
    }
    double off = sqrt(diff / size);
    CHECKF(off >= least && off < 1e-2, "%s: off by %g", what, off);
}

typedef struct mix {
    op_fix f;
    cm_var *in[4], *y, *aux;
    int64_t load[E];
} mix;

static void moe(mix *m, cm_compute how, bool stored) {
    open_at(&m->f, how);
    memset(m->load, 0, sizeof m->load);
    m->in[0] = fix_var(&m->f, 1, 2, (int64_t[]){ R, I });
    m->in[1] = fix_var(&m->f, 2, 2, (int64_t[]){ E, I });
    m->in[2] = fix_var(&m->f, 3, 3, (int64_t[]){ E, 2 * F, I });
    m->in[3] = fix_var(&m->f, 4, 3, (int64_t[]){ E, I, F });
    for (int i = 2; stored && i < 4; i++) {
        cm_var *w = m->in[i];
        int64_t n = cm_tensor_count(&w->v);
        uint16_t *h = cm_arena_alloc(&m->f.arena, (size_t)n * sizeof *h);
        for (int64_t k = 0; k < n; k++) h[k] = cm_f32_to_bf16((float)cm_rdata(&w->v)[k]);
        w->v.data = h;
        w->v.dtype = CM_BF16_T;
        w->g = NULL;
        w->wants_grad = false;
    }
    cm_moe(&m->f.t, m->in[0], m->in[1], m->in[2], m->in[3], NULL, 2, 0, 0, m->load, NULL,
           &m->y, &m->aux);
    back(&m->f, m->y, false);
}

TEST(experts_are_near_fp32_and_routed_the_same) {
    static const char *const name[] = { "x", "router", "w_in", "w_out" };
    fix_threads(2);
    mix a, b;
    moe(&a, CM_COMPUTE_BF16, false);
    moe(&b, CM_COMPUTE_FP32, false);
    CHECK(!memcmp(a.load, b.load, sizeof a.load));
    near("y", R * I, cm_rdata(&a.y->v), cm_rdata(&b.y->v), 1e-4);
    for (int i = 0; i < 4; i++)
        near(name[i], cm_tensor_count(&a.in[i]->v), a.in[i]->g, b.in[i]->g, 1e-4);
    fix_close(&a.f);
    fix_close(&b.f);
}

TEST(experts_stored_as_bf16_enter_as_they_are) {
    fix_threads(2);
    mix a, b;
    moe(&a, CM_COMPUTE_BF16, true);
    moe(&b, CM_COMPUTE_BF16, false);
    CHECK(fix_same(R * I, cm_rdata(&a.y->v), cm_rdata(&b.y->v)));
    CHECK(fix_same(R * I, a.in[0]->g, b.in[0]->g));
    CHECK(fix_same(E * I, a.in[1]->g, b.in[1]->g));
    CHECK(cm_operand_bytes(CM_COMPUTE_BF16, &a.in[2]->v) == 0);
    CHECK(cm_operand_bytes(CM_COMPUTE_FP32, &a.in[2]->v) >= E * 2 * F * I * sizeof(cm_real));
    fix_close(&a.f);
    fix_close(&b.f);
}

/* Losses over the vocabulary: loss or log-probabilities, and both gradients. */
static void head(op_fix *f, cm_compute how, bool logp, cm_var *v[3]) {
    open_at(f, how);
    v[0] = fix_var(f, 1, 2, (int64_t[]){ R, I });
    v[1] = fix_var(f, 2, 2, (int64_t[]){ V, I });
    int32_t *target = cm_arena_alloc(&f->meta, R * sizeof *target);
    for (int i = 0; i < R; i++) target[i] = i % 7 ? i : -1;
    if (logp) {
        v[2] = cm_target_logp(&f->t, v[0], v[1], target, 1);
        back(f, v[2], false);
    } else {
        v[2] = cm_xent(&f->t, v[0], v[1], target, 1, (cm_real)0.1, (cm_real)1e-3, NULL, NULL);
        cm_tape_backward(&f->t, v[2], 1);
    }
}

TEST(heads_are_near_fp32) {
    fix_threads(2);
    for (int logp = 0; logp < 2; logp++) {
        op_fix f[2];
        cm_var *v[2][3];
        head(&f[0], CM_COMPUTE_BF16, logp, v[0]);
        head(&f[1], CM_COMPUTE_FP32, logp, v[1]);
        near("value", cm_tensor_count(&v[0][2]->v), cm_rdata(&v[0][2]->v),
             cm_rdata(&v[1][2]->v), 1e-6);
        near("x", R * I, v[0][0]->g, v[1][0]->g, 1e-4);
        near("w", V * I, v[0][1]->g, v[1][1]->g, 1e-4);
        for (int i = 0; i < 2; i++) fix_close(&f[i]);
    }
}

/* A recomputed block runs at the tape's precision, both times. */
static void layer(void *w, cm_tape *t, cm_var *const *in, cm_var **out) {
    out[0] = cm_linear(t, in[0], w);
}

TEST(recomputation_keeps_the_precision) {
    fix_threads(2);
    op_fix f[2];
    cm_var *v[2][3];
    linear(&f[0], CM_COMPUTE_BF16, false, v[0]);
    open_at(&f[1], CM_COMPUTE_BF16);
    cm_var *x = fix_var(&f[1], 1, 2, (int64_t[]){ R, I }), *y;
    cm_var *w = fix_var(&f[1], 2, 2, (int64_t[]){ O, I });
    cm_tensor like = v[0][2]->v;
    cm_recompute(&f[1].t, layer, w, &x, 1, &like, &y, 1);
    back(&f[1], y, false);
    CHECK(fix_same(R * O, cm_rdata(&v[0][2]->v), cm_rdata(&y->v)));
    CHECK(fix_same(R * I, v[0][0]->g, x->g) && fix_same(O * I, v[0][1]->g, w->g));
    for (int i = 0; i < 2; i++) fix_close(&f[i]);
}
