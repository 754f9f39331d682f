/* op_linear.c -- y = x W^T, the op most of a step's time goes to.  Three gemms. */
#include "op/narrow.h"

static bool linear_infer(cm_node *n, const char **why) {
    const cm_tensor *x = &n->in[0]->v, *w = &n->in[1]->v;
    if (x->nd != 2 || w->nd != 2 || x->dim[1] != w->dim[1]) {
        *why = "x and W must be matrices with the same number of columns";
        return false;
    }
    n->out[0]->v.nd = 2;
    n->out[0]->v.dim[0] = x->dim[0];
    n->out[0]->v.dim[1] = w->dim[0];
    return true;
}

static size_t linear_scratch(const cm_node *n, bool backward) {
    if (!backward) return cm_weight_bytes(n, &n->in[1]->v, n->in[0]->v.dim[0]);
    return n->in[0]->wants_grad ? cm_operand_bytes(n->tape->compute, &n->in[1]->v) : 0;
}

static void linear_fwd(cm_node *n, void *scratch) {
    const cm_tensor *x = &n->in[0]->v, *w = &n->in[1]->v;
    int64_t R = x->dim[0], I = x->dim[1], O = w->dim[0];
    CM_ASSERT(!cm_watching || x->dtype == CM_REAL_DTYPE, "somebody watches narrow rows");
    if (cm_watching) cm_watching->fn(cm_watching->ctx, n->in[1], 0, cm_rdata(x), R, I);
    cm_compute how = n->tape->compute;
    cm_real *y = cm_rdata(&n->out[0]->v);
    if (cm_as_held(n, w))
        cm_qmat_mul(w, NULL, R, cm_rdata(x), 1, y, scratch);
    else
        cm_product(how, R, O, I, 1, cm_mat_in(x, I, false),
                   cm_operand(how, w, I, true, scratch), 0, y, O);
}

static void linear_bwd(cm_node *n, void *scratch) {
    const cm_tensor *x = &n->in[0]->v, *w = &n->in[1]->v;
    int64_t R = x->dim[0], I = x->dim[1], O = w->dim[0];
    cm_tensor gy = cm_grad_of(n->out[0]);
    cm_compute how = n->tape->compute;
    if (n->in[0]->g)
        cm_product(how, R, I, O, 1, cm_mat_in(&gy, O, false),
                   cm_operand(how, w, I, false, scratch), n->fresh[0] ? 0 : 1,
                   n->in[0]->g, I);
    if (n->in[1]->g)
        cm_product(how, O, I, R, 1, cm_mat_in(&gy, O, true),
                   cm_mat_in(x, I, false), n->fresh[1] ? 0 : 1, n->in[1]->g, I);
}

static double linear_flops(const cm_node *n) {
    const cm_tensor *x = &n->in[0]->v;
    return 2.0 * (double)x->dim[0] * (double)x->dim[1] * (double)n->in[1]->v.dim[0];
}

static bool linear_sample(cm_sample *s, int i) {
    static const int64_t cases[][3] = { { 4, 3, 5 }, { 1, 7, 2 }, { 9, 1, 33 } };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    const int64_t *c = cases[i]; /* R, I, O */
    cm_var *x = cm_sample_in(s, "x", 2, (int64_t[]){ c[0], c[1] }, -1, 1);
    cm_var *w = cm_sample_in(s, "w", 2, (int64_t[]){ c[2], c[1] }, -1, 1);
    cm_sample_out(s, cm_linear(cm_sample_tape(s), x, w));
    return true;
}

const cm_op cm_op_linear = {
    .name = "linear", .shapes = "x[R,I] W[O,I] -> y[R,O]", .n_in = 2, .n_out = 1,
    .sets = 3, .takes = 3, .takes_g = 1, .infer = linear_infer, .scratch = linear_scratch,
    .fwd = linear_fwd, .bwd = linear_bwd, .mixed = true, .flops = linear_flops,
    .sample = linear_sample,
};

cm_var *cm_linear(cm_tape *t, cm_var *x, cm_var *w) {
    cm_var *y;
    cm_tape_apply(t, &cm_op_linear, (cm_var *[]){ x, w }, 2, NULL, &y);
    return y;
}
