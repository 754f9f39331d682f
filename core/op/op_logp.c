/* op_logp.c -- log-probability of each row's target, a chunk of rows at a time.
 *
 * Like xent (both: head.h), but the gradient that arrives is arbitrary, as the losses over
 * pairs need it: so nothing is formed in the forward, and the backward computes the logits
 * again, a chunk at a time:
 *   dz = g s (onehot - softmax),   s = logit_scale;   dW += dz^T x,  dx += dz W. */
#include "op/head.h"

typedef struct logp_attr {
    const int32_t *target; /* [R] */
    cm_real logit_scale;
} logp_attr;

static bool logp_infer(cm_node *n, const char **why) {
    if (!cm_head_fits(n, why)) return false;
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = n->in[0]->v.dim[0];
    return true;
}

static size_t logp_scratch(const cm_node *n, bool backward) {
    (void)backward;
    cm_head h;
    return cm_head_map(&h, n, NULL, NULL);
}

/* z becomes e^(z - max); returns its sum. */
static cm_real soften(int64_t V, cm_real *z, cm_real *max) {
    cm_real fade;
    *max = z[0];
    return cm_k.softmax_part(V, z, max, &fade);
}

static void logp_fwd(cm_node *n, void *scratch) {
    const logp_attr *a = n->attr;
    cm_real *y = cm_rdata(&n->out[0]->v);
    cm_head h;
    cm_head_map(&h, n, a->target, scratch);
    while (cm_head_next(&h, a->logit_scale, y)) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < h.n; i++) {
            cm_real *z = h.z + i * h.V, hit = z[a->target[h.row[i]]], max, sum, ln;
            sum = soften(h.V, z, &max);
            cm_k.vlog(1, &sum, &ln);
            y[h.row[i]] = (hit - max) - ln;
        }
    }
}

static void logp_bwd(cm_node *n, void *scratch) {
    const logp_attr *a = n->attr;
    const cm_real *g = n->out[0]->g;
    cm_head h;
    cm_head_map(&h, n, a->target, scratch);
    while (cm_head_next(&h, a->logit_scale, NULL)) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < h.n; i++) {
            cm_real *z = h.z + i * h.V, max, by = g[h.row[i]] * a->logit_scale;
            cm_k.scale(h.V, -by / soften(h.V, z, &max), z);
            z[a->target[h.row[i]]] += by;
            cm_head_row(&h, i);
        }
        cm_head_back(&h, n->in[0]->g);
    }
}

static bool logp_sample(cm_sample *s, int i) {
    static const struct { int R, D, V, masked; double scale; } cases[] = {
        { 6, 3, 5, 0, 1.0 }, { 11, 4, 7, 2, 0.5 }, { 5, 2, 3, 5, 1.0 }, { 1040, 1, 3, 1, 2.0 },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    int R = cases[i].R, D = cases[i].D, V = cases[i].V;
    int32_t *target = cm_sample_mem(s, sizeof *target * (size_t)R);
    for (int r = 0; r < R; r++) {
        target[r] = cm_sample_int(s, (uint64_t)r, V);
        if (r % 5 < cases[i].masked) target[r] = -1;
    }
    cm_var *x = cm_sample_in(s, "x", 2, (int64_t[]){ R, D }, -1, 1);
    cm_var *w = cm_sample_param(s, "w", 2, (int64_t[]){ V, D }, -1, 1);
    cm_sample_out(s, cm_target_logp(cm_sample_tape(s), x, w, target,
                                    (cm_real)cases[i].scale));
    return true;
}

const cm_op cm_op_logp = {
    .name = "logp", .shapes = "x[R,D] W[V,D] -> logp[R]", .n_in = 2, .n_out = 1,
    .attr_bytes = sizeof(logp_attr), .infer = logp_infer, .scratch = logp_scratch,
    .mixed = true, .takes = 3, .fwd = logp_fwd, .bwd = logp_bwd, .flops = cm_head_flops,
    .sample = logp_sample,
};

cm_var *cm_target_logp(cm_tape *t, cm_var *x, cm_var *w, const int32_t *target,
                       cm_real logit_scale) {
    cm_var *y;
    cm_tape_apply(t, &cm_op_logp, (cm_var *[]){ x, w }, 2,
                  &(logp_attr){ target, logit_scale }, &y);
    return y;
}
