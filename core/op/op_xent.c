/* op_xent.c -- fused linear and cross-entropy, a chunk of rows at a time.
 *
 * Only rows with a target are worked on (head.h), so masked prompts cost nothing.  For a
 * chunk: logits by one gemm; per row lse, loss, and in place the gradient of the logits
 *   norm * s * ((1 + 2 z lse) softmax - onehot),    s = logit_scale, z = z_coef;
 * then dW += g^T x into W's gradient and dx = g W into saved memory, which the backward
 * hands on.  The loss is a double sum in row order. */
#include "op/head.h"

#include <string.h>

typedef struct xent_attr {
    const int32_t *target; /* [R] */
    cm_real logit_scale, norm, z_coef;
    cm_real *nll;          /* [R] or NULL */
    uint8_t *hit;          /* [R] or NULL */
} xent_attr;

static bool xent_infer(cm_node *n, const char **why) {
    if (!cm_head_fits(n, why)) return false;
    if (n->in[1]->wants_grad && !n->in[1]->is_param) {
        *why = "W must be a parameter: its gradient is added during the forward";
        return false;
    }
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}

static size_t xent_saved(const cm_node *n) {
    const cm_var *x = n->in[0];
    return x->wants_grad ? (size_t)cm_tensor_count(&x->v) * sizeof(cm_real) : 0;
}

static size_t xent_scratch(const cm_node *n, bool backward) {
    cm_head h;
    return backward ? 0 : cm_head_map(&h, n, NULL, NULL);
}

/* Loss of row i of the chunk, and its logit gradients in place when wanted. */
static void row_loss(const xent_attr *a, const cm_head *h, int64_t i, bool grad) {
    int64_t V = h->V, r = h->row[i], hit = a->target[r];
    cm_real *z = h->z + i * V, zt = z[hit], max = z[0], fade, sum, ln;
    sum = cm_k.softmax_part(V, z, &max, &fade);
    cm_k.vlog(1, &sum, &ln);
    cm_real lse = max + ln, nll = (max - zt) + ln;
    h->value[i] = (double)nll + (double)a->z_coef * (double)lse * (double)lse;
    if (a->nll) a->nll[r] = nll;
    if (a->hit) a->hit[r] = zt == max;
    if (!grad) return;
    cm_real by = a->norm * a->logit_scale;
    cm_k.scale(V, by * (1 + 2 * a->z_coef * lse) / sum, z);
    z[hit] -= by;
}

static void xent_fwd(cm_node *n, void *scratch) {
    const xent_attr *a = n->attr;
    double loss = 0;
    cm_head h;
    cm_head_map(&h, n, a->target, scratch);
    if (n->grad && n->saved) memset(n->saved, 0, xent_saved(n));
    while (cm_head_next(&h, a->logit_scale, a->nll)) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < h.n; i++) {
            row_loss(a, &h, i, n->grad);
            if (n->grad) cm_head_row(&h, i);
        }
        for (int64_t i = 0; i < h.n; i++) loss += h.value[i];
        if (n->grad) cm_head_back(&h, n->saved);
    }
    *cm_rdata(&n->out[0]->v) = (cm_real)(a->norm * loss);
}

static void xent_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    int64_t N = cm_tensor_count(&n->in[0]->v);
    CM_ASSERT(*n->out[0]->g == 1, "xent: its gradients are formed for an upstream of 1");
    if (!n->in[0]->g) return;
    if (n->fresh[0]) memcpy(n->in[0]->g, n->saved, sizeof(cm_real) * (size_t)N);
    else cm_k.add_scaled(N, 1, n->saved, n->in[0]->g);
}

static bool xent_sample(cm_sample *s, int i) {
    static const struct { int R, D, V, masked; double scale, z; } cases[] = {
        { 6, 3, 5, 0, 1.0, 0.0 }, { 9, 4, 7, 2, 0.5, 0.1 }, { 517, 1, 3, 3, 1.0, 0.0 },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    int R = cases[i].R, D = cases[i].D, V = cases[i].V;
    int32_t *target = cm_sample_mem(s, sizeof *target * (size_t)R);
    for (int r = 0; r < R; r++) {
        target[r] = cm_sample_int(s, (uint64_t)r, V);
        if (cases[i].masked && r % 5 < cases[i].masked) target[r] = -1;
    }
    cm_var *x = cm_sample_in(s, "x", 2, (int64_t[]){ R, D }, -1, 1);
    cm_var *w = cm_sample_param(s, "w", 2, (int64_t[]){ V, D }, -1, 1);
    cm_sample_loss(s, cm_xent(cm_sample_tape(s), x, w, target, (cm_real)cases[i].scale,
                              (cm_real)0.3, (cm_real)cases[i].z, NULL, NULL));
    return true;
}

const cm_op cm_op_xent = {
    .name = "xent", .shapes = "x[R,D] W[V,D] -> loss[1]", .n_in = 2, .n_out = 1,
    .attr_bytes = sizeof(xent_attr), .sets = 1, .early = true,
    .takes = 3, .infer = xent_infer,
    .saved = xent_saved, .scratch = xent_scratch, .fwd = xent_fwd, .bwd = xent_bwd,
    .mixed = true, .flops = cm_head_flops, .sample = xent_sample,
};

cm_var *cm_xent(cm_tape *t, cm_var *x, cm_var *w, const int32_t *target,
                cm_real logit_scale, cm_real norm, cm_real z_coef, cm_real *nll,
                uint8_t *hit) {
    xent_attr a = { target, logit_scale, norm, z_coef, nll, hit };
    cm_var *y;
    cm_tape_apply(t, &cm_op_xent, (cm_var *[]){ x, w }, 2, &a, &y);
    return y;
}
