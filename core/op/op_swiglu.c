/* op_swiglu.c -- y = silu(a) * b on the two halves of each row. */
#include "op/narrow.h"

#include <omp.h>

static bool swiglu_infer(cm_node *n, const char **why) {
    const cm_tensor *x = &n->in[0]->v;
    if (x->nd != 2 || x->dim[1] % 2) {
        *why = "the input must be a matrix with an even number of columns";
        return false;
    }
    n->out[0]->v = *x;
    n->out[0]->v.dim[1] = x->dim[1] / 2;
    n->narrow = *(const cm_readers *)n->attr == CM_PRODUCTS;
    return true;
}

/* A row of the output, or of the input's gradient, in each thread. */
static size_t swiglu_scratch(const cm_node *n, bool backward) {
    const cm_var *x = n->in[0];
    cm_tensor g = cm_grad_of(x);
    return backward ? cm_rooms(&g, x->v.dim[1]) : cm_rooms(&n->out[0]->v, x->v.dim[1] / 2);
}

static void swiglu_fwd(cm_node *n, void *scratch) {
    int64_t R = n->out[0]->v.dim[0], F = n->out[0]->v.dim[1];
    const cm_real *ab = cm_rdata(&n->in[0]->v);
    const cm_tensor *out = &n->out[0]->v;
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (R * F > 4096)
    for (int64_t r = 0; r < R; r++) {
        cm_real *y = cm_place(out, r * F, cm_room_of(scratch, F, omp_get_thread_num()));
        cm_k.swiglu(F, ab + 2 * r * F, ab + (2 * r + 1) * F, y);
        cm_put(out, r * F, F, y);
    }
}

static void swiglu_bwd(cm_node *n, void *scratch) {
    int64_t R = n->out[0]->v.dim[0], F = n->out[0]->v.dim[1];
    const cm_real *ab = cm_rdata(&n->in[0]->v), *gy = n->out[0]->g;
    cm_tensor gx = cm_grad_of(n->in[0]);
    bool add = !n->fresh[0];
    if (!gx.data) return;
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (R * F > 4096)
    for (int64_t r = 0; r < R; r++) {
        int64_t at = 2 * r * F;
        cm_real *g = cm_place(&gx, at, cm_room_of(scratch, 2 * F, omp_get_thread_num()));
        cm_k.swiglu_back(F, ab + at, ab + at + F, gy + r * F, g, g + F, add);
        cm_put(&gx, at, 2 * F, g);
    }
}

static bool swiglu_sample(cm_sample *s, int i) {
    static const int64_t cases[][2] = { { 3, 10 }, { 2, 66 } };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    cm_var *x = cm_sample_in(s, "ab", 2, cases[i], -4, 4);
    cm_sample_out(s, cm_swiglu(cm_sample_tape(s), x, CM_ANYBODY));
    return true;
}

const cm_op cm_op_swiglu = {
    .name = "swiglu", .shapes = "ab[R,2F] -> y[R,F]", .n_in = 1, .n_out = 1, .sets = 1,
    .attr_bytes = sizeof(cm_readers), .gives_g = 1, .infer = swiglu_infer,
    .scratch = swiglu_scratch, .fwd = swiglu_fwd, .bwd = swiglu_bwd,
    .sample = swiglu_sample,
};

cm_var *cm_swiglu(cm_tape *t, cm_var *ab, cm_readers readers) {
    cm_var *y;
    cm_tape_apply(t, &cm_op_swiglu, &ab, 1, &readers, &y);
    return y;
}
