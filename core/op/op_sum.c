/* op_sum.c -- sum of one-element vars: joins the parts of a loss. */
#include "op/op.h"

static bool sum_infer(cm_node *n, const char **why) {
    for (int i = 0; i < n->n_in; i++) {
        if (cm_tensor_count(&n->in[i]->v) != 1) {
            *why = "every term must have one element";
            return false;
        }
    }
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}

static void sum_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    cm_real s = 0;
    for (int i = 0; i < n->n_in; i++) s += *cm_rdata(&n->in[i]->v);
    *cm_rdata(&n->out[0]->v) = s;
}

static void sum_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i]->g) *n->in[i]->g += *n->out[0]->g;
}

static bool sum_sample(cm_sample *s, int i) {
    if (i > 0) return false;
    cm_var *x[3];
    static const char *const name[] = { "x0", "x1", "x2" };
    for (int k = 0; k < 3; k++)
        x[k] = cm_sample_in(s, name[k], 1, (int64_t[]){ 1 }, -1, 1);
    cm_sample_out(s, cm_sum(cm_sample_tape(s), x, 3));
    return true;
}

const cm_op cm_op_sum = {
    .name = "sum", .shapes = "x0[1] ... -> y[1]", .n_in = CM_MAX_IN, .n_out = 1,
    .infer = sum_infer, .fwd = sum_fwd, .bwd = sum_bwd, .sample = sum_sample,
};

cm_var *cm_sum(cm_tape *t, cm_var *const *x, int n) {
    cm_var *y;
    cm_tape_apply(t, &cm_op_sum, x, n, NULL, &y);
    return y;
}
