/* op_swiglu.c -- y = silu(a) * b on the two halves of each row. */
#include "op/op.h"

static bool swiglu_infer(cm_node *n, const char **why) {
    const cm_tensor *x = &n->in[0]->v;
    if (x->nd != 2 || x->dim[1] % 2) {
        *why = "the input must be a matrix with an even number of columns";
        return false;
    }
    n->out[0]->v = *x;
    n->out[0]->v.dim[1] = x->dim[1] / 2;
    return true;
}

static void swiglu_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    int64_t R = n->out[0]->v.dim[0], F = n->out[0]->v.dim[1];
    const cm_real *ab = cm_rdata(&n->in[0]->v);
    cm_real *y = cm_rdata(&n->out[0]->v);
#pragma omp parallel for schedule(static) if (R * F > 4096)
    for (int64_t r = 0; r < R; r++)
        cm_k.swiglu(F, ab + 2 * r * F, ab + (2 * r + 1) * F, y + r * F);
}

static void swiglu_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    int64_t R = n->out[0]->v.dim[0], F = n->out[0]->v.dim[1];
    const cm_real *ab = cm_rdata(&n->in[0]->v), *gy = n->out[0]->g;
    cm_real *g = n->in[0]->g;
    bool add = !n->fresh[0];
    if (!g) return;
#pragma omp parallel for schedule(static) if (R * F > 4096)
    for (int64_t r = 0; r < R; r++)
        cm_k.swiglu_back(F, ab + 2 * r * F, ab + (2 * r + 1) * F, gy + r * F,
                         g + 2 * r * F, g + (2 * r + 1) * F, add);
}

static bool swiglu_sample(cm_sample *s, int i) {
    static const int64_t cases[][2] = { { 3, 10 }, { 2, 66 } };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    cm_var *x = cm_sample_in(s, "ab", 2, cases[i], -4, 4);
    cm_sample_out(s, cm_swiglu(cm_sample_tape(s), x));
    return true;
}

const cm_op cm_op_swiglu = {
    .name = "swiglu", .shapes = "ab[R,2F] -> y[R,F]", .n_in = 1, .n_out = 1, .sets = 1,
    .infer = swiglu_infer, .fwd = swiglu_fwd, .bwd = swiglu_bwd,
    .sample = swiglu_sample,
};

cm_var *cm_swiglu(cm_tape *t, cm_var *ab) {
    cm_var *y;
    cm_tape_apply(t, &cm_op_swiglu, &ab, 1, NULL, &y);
    return y;
}
