/* op_xent.c -- fused linear and cross-entropy, a chunk of rows at a time.
 *
 * Only rows with a target are worked on: they are collected into chunks whose size
 * depends on V alone, so [R,V] never exists and masked prompts cost nothing.  For a
 * chunk: logits by one gemm; per row lse, loss, and in place the gradient of the logits
 *   norm * s * ((1 + 2 z lse) softmax - onehot),    s = logit_scale, z = z_coef;
 * then dW += g^T x into W's gradient and dx = g W into saved memory, which the backward
 * hands on.  The loss is a double sum in row order. */
#include "op/op.h"

#include <string.h>

typedef struct xent_attr {
    const int32_t *target; /* [R] */
    cm_real logit_scale, norm, z_coef;
    cm_real *nll;          /* [R] or NULL */
} xent_attr;

/* One chunk at work. */
typedef struct chunk {
    int64_t n;       /* rows in it */
    int32_t *row;    /* [n] which */
    cm_real *z;      /* [n,V] logits, then their gradients */
    cm_real *x;      /* [n,D] gathered rows, then dx */
    double *loss;    /* [n] */
} chunk;

/* Enough rows to pay for packing W and adding to its gradient, 16 MiB of logits at most. */
static int64_t chunk_rows(int64_t V) { return V <= 8192 ? 512 : V <= 16384 ? 256 : 128; }

static size_t map(const cm_node *n, void *base, chunk *s) {
    int64_t V = n->in[1]->v.dim[0], D = n->in[1]->v.dim[1], rows = chunk_rows(V);
    if (rows > n->in[0]->v.dim[0]) rows = n->in[0]->v.dim[0];
    cm_cut c = { base, 0 };
    s->z = cm_cut_reals(&c, rows * V);
    s->x = cm_cut_reals(&c, rows * D);
    s->row = cm_cut_take(&c, sizeof *s->row * (size_t)rows);
    s->loss = cm_cut_take(&c, sizeof *s->loss * (size_t)rows);
    return c.used;
}

static bool xent_infer(cm_node *n, const char **why) {
    const cm_tensor *x = &n->in[0]->v, *w = &n->in[1]->v;
    if (x->nd != 2 || w->nd != 2 || x->dim[1] != w->dim[1]) {
        *why = "x and W must be matrices with the same number of columns";
        return false;
    }
    if (n->in[1]->wants_grad && !n->in[1]->is_param) {
        *why = "W must be a parameter: its gradient is added during the forward";
        return false;
    }
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}

static size_t xent_saved(const cm_node *n) {
    return n->in[0]->wants_grad ? cm_tensor_bytes(&n->in[0]->v) : 0;
}

static size_t xent_scratch(const cm_node *n, bool backward) {
    chunk s;
    return backward ? 0 : map(n, NULL, &s);
}

/* Collect the next rows that have a target, from *next on. */
static void collect(const cm_node *n, int64_t *next, chunk *s) {
    const xent_attr *a = n->attr;
    int64_t R = n->in[0]->v.dim[0], V = n->in[1]->v.dim[0], r = *next;
    for (s->n = 0; r < R && s->n < chunk_rows(V); r++) {
        CM_ASSERT(a->target[r] >= -1 && a->target[r] < V,
                  "xent: target %d of row %lld is outside [-1,%lld)", a->target[r],
                  (long long)r, (long long)V);
        if (a->target[r] >= 0) s->row[s->n++] = (int32_t)r;
        else if (a->nll) a->nll[r] = 0;
    }
    *next = r;
}

/* Loss of row i of the chunk, and its logit gradients in place when wanted. */
static void row_loss(const cm_node *n, const chunk *s, int64_t i, bool grad) {
    const xent_attr *a = n->attr;
    int64_t V = n->in[1]->v.dim[0], r = s->row[i], hit = a->target[r];
    cm_real *z = s->z + i * V, zt = z[hit], max = z[0], fade, sum, ln;
    sum = cm_k.softmax_part(V, z, &max, &fade);
    cm_k.vlog(1, &sum, &ln);
    cm_real lse = max + ln, nll = (max - zt) + ln;
    s->loss[i] = (double)nll + (double)a->z_coef * (double)lse * (double)lse;
    if (a->nll) a->nll[r] = nll;
    if (!grad) return;
    cm_real by = a->norm * a->logit_scale;
    cm_k.scale(V, by * (1 + 2 * a->z_coef * lse) / sum, z);
    z[hit] -= by;
}

static void chunk_grads(const cm_node *n, chunk *s, const cm_real *x, bool whole) {
    int64_t V = n->in[1]->v.dim[0], D = n->in[1]->v.dim[1];
    if (n->in[1]->g)
        cm_gemm(true, false, V, D, s->n, 1, s->z, V, x, D, 1, n->in[1]->g, D);
    if (!n->in[0]->wants_grad) return;
    cm_real *dx = whole ? (cm_real *)n->saved + s->row[0] * D : s->x;
    cm_gemm(false, false, s->n, D, V, 1, s->z, V, cm_rdata(&n->in[1]->v), D, 0, dx, D);
    for (int64_t i = 0; !whole && i < s->n; i++)
        memcpy((cm_real *)n->saved + s->row[i] * D, dx + i * D, sizeof *dx * (size_t)D);
}

static void xent_fwd(cm_node *n, void *scratch) {
    const xent_attr *a = n->attr;
    int64_t R = n->in[0]->v.dim[0], V = n->in[1]->v.dim[0], D = n->in[1]->v.dim[1];
    const cm_real *w = cm_rdata(&n->in[1]->v);
    double loss = 0;
    chunk s;
    map(n, scratch, &s);
    if (n->grad && n->saved) memset(n->saved, 0, xent_saved(n));
    for (int64_t next = 0; collect(n, &next, &s), s.n;) {
        const cm_real *x = cm_rdata(&n->in[0]->v);
        bool whole = s.row[s.n - 1] - s.row[0] + 1 == s.n; /* no gaps: work in place */
        for (int64_t i = 0; !whole && i < s.n; i++)
            memcpy(s.x + i * D, x + s.row[i] * D, sizeof *x * (size_t)D);
        x = whole ? x + s.row[0] * D : s.x;
        cm_gemm(false, true, s.n, V, D, a->logit_scale, x, D, w, D, 0, s.z, V);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < s.n; i++) row_loss(n, &s, i, n->grad);
        for (int64_t i = 0; i < s.n; i++) loss += s.loss[i];
        if (n->grad) chunk_grads(n, &s, x, whole);
        if (next >= R) break;
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

static double xent_flops(const cm_node *n) {
    const cm_tensor *x = &n->in[0]->v;
    return 2.0 * (double)x->dim[0] * (double)x->dim[1] * (double)n->in[1]->v.dim[0];
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
                              (cm_real)0.3, (cm_real)cases[i].z, NULL));
    return true;
}

const cm_op cm_op_xent = {
    .name = "xent", .shapes = "x[R,D] W[V,D] -> loss[1]", .n_in = 2, .n_out = 1,
    .attr_bytes = sizeof(xent_attr), .sets = 1, .infer = xent_infer, .saved = xent_saved,
    .scratch = xent_scratch, .fwd = xent_fwd, .bwd = xent_bwd, .flops = xent_flops,
    .sample = xent_sample,
};

cm_var *cm_xent(cm_tape *t, cm_var *x, cm_var *w, const int32_t *target,
                cm_real logit_scale, cm_real norm, cm_real z_coef, cm_real *nll) {
    xent_attr a = { target, logit_scale, norm, z_coef, nll };
    cm_var *y;
    cm_tape_apply(t, &cm_op_xent, (cm_var *[]){ x, w }, 2, &a, &y);
    return y;
}
