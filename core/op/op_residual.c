/* op_residual.c -- y = x + scale * b: the residual stream and its multiplier. */
#include "op/narrow.h"

enum { BLOCK = 4096 }; /* elements of one parallel piece */

static bool residual_infer(cm_node *n, const char **why) {
    if (!cm_tensor_same_shape(&n->in[0]->v, &n->in[1]->v)) {
        *why = "x and b must have the same shape";
        return false;
    }
    n->out[0]->v = n->in[0]->v;
    return true;
}

static int64_t piece(int64_t n, int64_t i) { return n - i < BLOCK ? n - i : BLOCK; }

static void residual_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    int64_t N = cm_tensor_count(&n->in[0]->v);
    const cm_real *x = cm_rdata(&n->in[0]->v), *b = cm_rdata(&n->in[1]->v);
    cm_real scale = *(const cm_real *)n->attr, *y = cm_rdata(&n->out[0]->v);
#pragma omp parallel for schedule(static) if (N > BLOCK)
    for (int64_t i = 0; i < N; i += BLOCK)
        cm_k.sum_scaled(piece(N, i), x + i, scale, b + i, y + i);
}

static void residual_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    int64_t N = cm_tensor_count(&n->in[0]->v);
    const cm_real *gy = n->out[0]->g;
    const cm_real by[2] = { 1, *(const cm_real *)n->attr };
    for (int k = 0; k < 2; k++) {
        cm_tensor g = cm_grad_of(n->in[k]);
        if (!g.data) continue;
#pragma omp parallel for schedule(static) if (N > BLOCK)
        for (int64_t i = 0; i < N; i += BLOCK) {
            cm_real room[BLOCK], *to = cm_place(&g, i, room);
            if (n->fresh[k]) cm_k.set_scaled(piece(N, i), by[k], gy + i, to);
            else cm_k.add_scaled(piece(N, i), by[k], gy + i, to);
            cm_put(&g, i, piece(N, i), to);
        }
    }
}

static bool residual_sample(cm_sample *s, int i) {
    static const int64_t dim[] = { 3, 5 };
    if (i > 0) return false;
    cm_var *x = cm_sample_in(s, "x", 2, dim, -1, 1);
    cm_var *b = cm_sample_in(s, "b", 2, dim, -1, 1);
    cm_sample_out(s, cm_residual(cm_sample_tape(s), x, b, (cm_real)0.22));
    return true;
}

const cm_op cm_op_residual = {
    .name = "residual", .shapes = "x[R,D] b[R,D] -> y[R,D]", .n_in = 2, .n_out = 1,
    .attr_bytes = sizeof(cm_real), .sets = 3, .unread = 3, .gives_g = 3, .over = 2,
    .infer = residual_infer,
    .fwd = residual_fwd, .bwd = residual_bwd, .sample = residual_sample,
};

cm_var *cm_residual(cm_tape *t, cm_var *x, cm_var *b, cm_real scale) {
    cm_var *y;
    cm_tape_apply(t, &cm_op_residual, (cm_var *[]){ x, b }, 2, &scale, &y);
    return y;
}
