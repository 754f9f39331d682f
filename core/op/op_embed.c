/* op_embed.c -- rows of an embedding table.
 *
 * Several rows may name the same token, so the backward scatter-add is cut by columns:
 * each column block walks all rows in order, whatever the number of threads. */
#include "op/op.h"

enum { COLS = 64 }; /* columns of one block of the scatter-add */

typedef struct embed_attr {
    const int32_t *token; /* [R] */
    int64_t R;
    cm_real scale;
} embed_attr;

static bool embed_infer(cm_node *n, const char **why) {
    const embed_attr *a = n->attr;
    const cm_tensor *w = &n->in[0]->v;
    if (w->nd != 2) {
        *why = "W must be a matrix";
        return false;
    }
    n->out[0]->v.nd = 2;
    n->out[0]->v.dim[0] = a->R;
    n->out[0]->v.dim[1] = w->dim[1];
    return true;
}

static void embed_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    const embed_attr *a = n->attr;
    int64_t V = n->in[0]->v.dim[0], D = n->in[0]->v.dim[1];
    const cm_real *w = cm_rdata(&n->in[0]->v);
    cm_dtype dtype = n->in[0]->v.dtype;
    bool narrow = dtype != CM_REAL_DTYPE;
    cm_real *y = cm_rdata(&n->out[0]->v);
#pragma omp parallel for schedule(static) if (a->R * D > 8192)
    for (int64_t r = 0; r < a->R; r++) {
        CM_ASSERT(a->token[r] >= 0 && a->token[r] < V, "embed: token %d of row %lld is "
                  "outside [0,%lld)", a->token[r], (long long)r, (long long)V);
        const cm_real *from = y + r * D;
        if (narrow) cm_qmat_row(dtype, V, D, w, a->token[r], y + r * D);
        else from = w + a->token[r] * D;
        cm_k.set_scaled(D, a->scale, from, y + r * D);
    }
}

static void embed_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    const embed_attr *a = n->attr;
    int64_t D = n->in[0]->v.dim[1];
    const cm_real *gy = n->out[0]->g;
    cm_real *gw = n->in[0]->g;
    if (!gw) return;
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < D; c += COLS) {
        int64_t nc = D - c < COLS ? D - c : COLS;
        for (int64_t r = 0; r < a->R; r++)
            cm_k.add_scaled(nc, a->scale, gy + r * D + c, gw + a->token[r] * D + c);
    }
}

static bool embed_sample(cm_sample *s, int i) {
    static const struct { int V, D, R; double scale; } cases[] = {
        { 5, 3, 8, 1.0 }, { 3, 66, 4, 12.0 },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    int V = cases[i].V, D = cases[i].D, R = cases[i].R;
    int32_t *token = cm_sample_mem(s, sizeof *token * (size_t)R);
    for (int r = 0; r < R; r++) token[r] = cm_sample_int(s, (uint64_t)r, V);
    cm_var *w = cm_sample_in(s, "w", 2, (int64_t[]){ V, D }, -1, 1);
    cm_sample_out(s, cm_embed(cm_sample_tape(s), w, token, R, (cm_real)cases[i].scale));
    return true;
}

static int64_t embed_touched(const cm_node *n, int i) {
    (void)i;
    return cm_tensor_count(&n->out[0]->v);
}

const cm_op cm_op_embed = {
    .name = "embed", .shapes = "W[V,D] -> y[R,D]", .n_in = 1, .takes = 1, .n_out = 1, .unread = 1,
    .attr_bytes = sizeof(embed_attr), .infer = embed_infer, .fwd = embed_fwd,
    .bwd = embed_bwd, .touched = embed_touched, .sample = embed_sample,
};

cm_var *cm_embed(cm_tape *t, cm_var *w, const int32_t *token, int64_t R, cm_real scale) {
    embed_attr a = { token, R, scale };
    cm_var *y;
    cm_tape_apply(t, &cm_op_embed, &w, 1, &a, &y);
    return y;
}
