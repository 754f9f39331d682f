/* head.c -- chunks of rows with a target against the whole vocabulary: collect, logits,
 * gradients.  The size of a chunk depends on V alone. */
#include "op/head.h"

#include <string.h>

/* Enough rows to pay for packing W and adding to its gradient, 16 MiB of logits at most. */
static int64_t chunk_rows(int64_t V) { return V <= 8192 ? 512 : V <= 16384 ? 256 : 128; }

bool cm_head_fits(const cm_node *n, const char **why) {
    const cm_tensor *x = &n->in[0]->v, *w = &n->in[1]->v;
    if (x->nd == 2 && w->nd == 2 && x->dim[1] == w->dim[1]) return true;
    *why = "x and W must be matrices with the same number of columns";
    return false;
}

size_t cm_head_map(cm_head *h, const cm_node *n, const int32_t *target, void *base) {
    *h = (cm_head){ .x = n->in[0], .w = n->in[1], .target = target,
                    .how = n->tape->compute };
    h->held = cm_as_held(n, &h->w->v);
    h->narrow = h->how == CM_COMPUTE_BF16 && !n->tape->wide;
    h->R = h->x->v.dim[0];
    h->V = h->w->v.dim[0];
    h->D = h->w->v.dim[1];
    int64_t rows = chunk_rows(h->V) < h->R ? chunk_rows(h->V) : h->R;
    cm_cut c = { base, 0 };
    h->z = cm_cut_reals(&c, rows * h->V);
    h->in = cm_cut_reals(&c, rows * h->D);
    h->row = cm_cut_take(&c, sizeof *h->row * (size_t)rows);
    h->value = cm_cut_take(&c, sizeof *h->value * (size_t)rows);
    bool round = h->narrow && h->w->v.dtype == CM_REAL_DTYPE;
    h->room = cm_cut_take(&c, round ? sizeof(uint16_t) * (size_t)(h->V * h->D)
                                    : cm_weight_bytes(n, &h->w->v, rows));
    return c.used;
}

/* Without gaps between the rows one works in place. */
static bool whole(const cm_head *h) { return h->row[h->n - 1] - h->row[0] + 1 == h->n; }

/* The chunk's rows of x, side by side. */
static cm_mat gathered(cm_head *h) {
    cm_mat x = cm_mat_in(&h->x->v, h->D, false), in = x;
    if (whole(h)) return cm_mat_from(x, h->row[0] * h->D);
    in.at = h->in;
    size_t row = (size_t)h->D * (size_t)cm_dtypes[h->x->v.dtype].bytes;
    for (int64_t i = 0; i < h->n; i++)
        memcpy((char *)h->in + (size_t)i * row, cm_mat_from(x, h->row[i] * h->D).at, row);
    return in;
}

/* W for all chunks.  Many products pack it: where they would round it, it is rounded once. */
static cm_mat operand(const cm_head *h) {
    const cm_tensor *w = &h->w->v;
    if (!h->narrow || w->dtype != CM_REAL_DTYPE)
        return cm_operand(h->how, w, h->D, false, h->room);
    uint16_t *to = h->room;
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads())
    for (int64_t i = 0; i < h->V; i++)
        cm_k.narrow(h->D, cm_rdata(w) + i * h->D, to + i * h->D);
    return (cm_mat){ to, h->D, false, true };
}

bool cm_head_next(cm_head *h, cm_real scale, cm_real *zero) {
    int64_t r = h->next, room = chunk_rows(h->V);
    for (h->n = 0; r < h->R && h->n < room; r++) {
        CM_ASSERT(h->target[r] >= -1 && h->target[r] < h->V,
                  "target %d of row %lld is outside [-1,%lld)", h->target[r], (long long)r,
                  (long long)h->V);
        if (h->target[r] >= 0) h->row[h->n++] = (int32_t)r;
        else if (zero) zero[r] = 0;
    }
    h->next = r;
    if (!h->n) return false;
    if (h->held) {
        cm_qmat_mul(&h->w->v, NULL, h->n, gathered(h).at, scale, h->z, h->room);
        return true;
    }
    if (!h->W.at) h->W = operand(h);
    cm_mat W = h->W;
    W.t = true;
    cm_product(h->how, h->n, h->V, h->D, scale, gathered(h), W, 0, h->z, h->V);
    return true;
}

void cm_head_back(cm_head *h, cm_real *dx) {
    int64_t n = h->n, V = h->V, D = h->D;
    /* Narrow rows of z lie where the wide ones did. */
    cm_mat g = { h->z, h->narrow ? V * (int64_t)(sizeof(cm_real) / sizeof(uint16_t)) : V, false,
                 h->narrow };
    cm_mat gt = g;
    gt.t = true;
    if (h->w->g) cm_product(h->how, V, D, n, 1, gt, gathered(h), 1, h->w->g, D);
    if (!dx) return;
    bool in_place = whole(h);
    cm_real *to = in_place ? dx + h->row[0] * D : h->in;
    cm_product(h->how, n, D, V, 1, g, h->W, in_place, to, D);
    for (int64_t i = 0; !in_place && i < n; i++)
        cm_k.add_scaled(D, 1, to + i * D, dx + h->row[i] * D);
}

double cm_head_flops(const cm_node *n) {
    const cm_tensor *x = &n->in[0]->v;
    return 2.0 * (double)x->dim[0] * (double)x->dim[1] * (double)n->in[1]->v.dim[0];
}
