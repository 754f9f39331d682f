/* op_rmsnorm.c -- root-mean-square normalisation of rows.
 *
 *   y = x * rstd * w,   rstd = 1 / sqrt(mean(x^2) + eps)   (saved, one a row)
 *   gx = rstd * (w gy - x rstd^2 mean(w gy x)),   gw = sum over rows of gy x rstd
 *
 * The sum over rows is cut into a number of parts that depends on R only, and the parts
 * are added in order. */
#include "op/narrow.h"

#include <omp.h>
#include <string.h>

enum { PARTS = 32 };

typedef struct {
    cm_real eps;
    cm_readers readers;
} rmsnorm_attr;

static int64_t part_rows(int64_t R) { return (R + PARTS - 1) / PARTS; }

static bool rmsnorm_infer(cm_node *n, const char **why) {
    const cm_tensor *x = &n->in[0]->v, *w = &n->in[1]->v;
    if (x->nd != 2 || w->nd != 1 || x->dim[1] != w->dim[0]) {
        *why = "x must be a matrix with as many columns as w has elements";
        return false;
    }
    n->out[0]->v = *x;
    n->narrow = ((const rmsnorm_attr *)n->attr)->readers == CM_PRODUCTS;
    return true;
}

static size_t rmsnorm_saved(const cm_node *n) {
    return sizeof(cm_real) * (size_t)n->in[0]->v.dim[0];
}

static size_t rmsnorm_scratch(const cm_node *n, bool backward) {
    int64_t D = n->in[0]->v.dim[1];
    return backward ? sizeof(cm_real) * PARTS * (size_t)D : cm_rooms(&n->out[0]->v, D);
}

static void rmsnorm_fwd(cm_node *n, void *scratch) {
    int64_t R = n->in[0]->v.dim[0], D = n->in[0]->v.dim[1];
    const cm_real *x = cm_rdata(&n->in[0]->v), *w = cm_rdata(&n->in[1]->v);
    cm_real eps = ((const rmsnorm_attr *)n->attr)->eps;
    const cm_tensor *out = &n->out[0]->v;
    cm_real *rstd = n->grad ? n->saved : NULL;
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (R * D > 8192)
    for (int64_t r = 0; r < R; r++) {
        cm_real *y = cm_place(out, r * D, cm_room_of(scratch, D, omp_get_thread_num()));
        cm_real s = cm_k.rmsnorm(D, x + r * D, w, eps, y);
        cm_put(out, r * D, D, y);
        if (rstd) rstd[r] = s;
    }
}

static void rmsnorm_bwd(cm_node *n, void *scratch) {
    int64_t R = n->in[0]->v.dim[0], D = n->in[0]->v.dim[1], step = part_rows(R);
    const cm_real *x = cm_rdata(&n->in[0]->v), *w = cm_rdata(&n->in[1]->v);
    const cm_real *gy = n->out[0]->g, *rstd = n->saved;
    cm_real *gx = n->in[0]->g, *gw = n->in[1]->g, *part = scratch;
    bool add = !n->fresh[0];
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < PARTS; p++) {
        cm_real *gp = gw ? part + p * D : NULL;
        if (gp) memset(gp, 0, sizeof *gp * (size_t)D);
        int64_t end = (p + 1) * step < R ? (p + 1) * step : R;
        for (int64_t r = p * step; r < end; r++)
            cm_k.rmsnorm_back(D, x + r * D, w, rstd[r], gy + r * D,
                              gx ? gx + r * D : NULL, add, gp);
    }
    for (int64_t p = 0; gw && p < PARTS && p * step < R; p++)
        cm_k.add_scaled(D, 1, part + p * D, gw);
}

static bool rmsnorm_sample(cm_sample *s, int i) {
    static const int64_t cases[][2] = { { 3, 5 }, { 1, 2 }, { 35, 3 } };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    cm_var *x = cm_sample_in(s, "x", 2, cases[i], -1, 1);
    cm_var *w = cm_sample_in(s, "w", 1, &cases[i][1], 0.5, 1.5);
    cm_sample_out(s, cm_rmsnorm(cm_sample_tape(s), x, w, (cm_real)1e-2, CM_ANYBODY));
    return true;
}

const cm_op cm_op_rmsnorm = {
    .name = "rmsnorm", .shapes = "x[R,D] w[D] -> y[R,D]", .n_in = 2, .n_out = 1,
    .attr_bytes = sizeof(rmsnorm_attr), .sets = 1, .infer = rmsnorm_infer,
    .saved = rmsnorm_saved, .scratch = rmsnorm_scratch, .fwd = rmsnorm_fwd,
    .bwd = rmsnorm_bwd, .sample = rmsnorm_sample,
};

cm_var *cm_rmsnorm(cm_tape *t, cm_var *x, cm_var *w, cm_real eps, cm_readers readers) {
    rmsnorm_attr a = { eps, readers };
    cm_var *y;
    cm_tape_apply(t, &cm_op_rmsnorm, (cm_var *[]){ x, w }, 2, &a, &y);
    return y;
}
