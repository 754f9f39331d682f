/* op_gated_norm.c -- gate and root-mean-square norm after the scan, over groups.
 *
 *   u = y silu(z)      out = u / sqrt(mean_group(u^2) + eps) w
 * Keeps one number per row and group, 1/sqrt(..); u and silu are computed again. */
#include "op/narrow.h"

#include <omp.h>
#include <string.h>

/* ROWS: rows of a block of the backward.  SERIAL: values one thread does alone. */
enum { ROWS = 64, SERIAL = 1 << 13 };

typedef struct {
    int64_t zcol;
    int G;
    cm_real eps;
    cm_readers readers;
} gated_attr;

static bool infer(cm_node *n, const char **why) {
    const gated_attr *a = n->attr;
    const cm_tensor *y = &n->in[0]->v, *zx = &n->in[1]->v, *w = &n->in[2]->v;
    if (y->nd != 2 || zx->nd != 2 || y->dim[0] != zx->dim[0])
        return *why = "y and zx must have the same rows", false;
    if (w->nd != 1 || w->dim[0] != y->dim[1]) return *why = "w must be [DI]", false;
    if (a->G < 1 || y->dim[1] % a->G) return *why = "G must divide DI", false;
    if (a->zcol < 0 || a->zcol + y->dim[1] > zx->dim[1])
        return *why = "columns [zcol,zcol+DI) must lie in zx", false;
    n->out[0]->v = *y;
    n->narrow = a->readers == CM_PRODUCTS;
    return true;
}

static size_t saved(const cm_node *n) {
    const gated_attr *a = n->attr;
    return (size_t)(n->in[0]->v.dim[0] * a->G) * sizeof(cm_real);
}

static int64_t blocks_of(const cm_node *n) {
    return (n->in[0]->v.dim[0] + ROWS - 1) / ROWS;
}

/* Backward: [blocks][DI] parts of gw, then [threads][4*DI/G]: the kernel's, a gz and a gy. */
static size_t scratch_bytes(const cm_node *n, bool backward) {
    const gated_attr *a = n->attr;
    int64_t DI = n->in[0]->v.dim[1];
    int64_t reals = blocks_of(n) * DI + cm_kern_threads() * 4 * (DI / a->G);
    return backward ? (size_t)reals * sizeof(cm_real) : cm_rooms(&n->out[0]->v, DI);
}

static void fwd(cm_node *n, void *scratch) {
    const gated_attr *a = n->attr;
    int64_t R = n->in[0]->v.dim[0], DI = n->in[0]->v.dim[1], W = n->in[1]->v.dim[1];
    int64_t wide = DI / a->G;
    const cm_real *y = cm_rdata(&n->in[0]->v), *z = cm_rdata(&n->in[1]->v) + a->zcol;
    const cm_real *w = cm_rdata(&n->in[2]->v);
    cm_real *keep = n->grad ? n->saved : NULL;
    const cm_tensor *to = &n->out[0]->v;
#pragma omp parallel for num_threads(cm_kern_threads()) if (R * DI > SERIAL)
    for (int64_t r = 0; r < R; r++) {
        cm_real *out = cm_place(to, r * DI, cm_room_of(scratch, DI, omp_get_thread_num()));
        for (int g = 0; g < a->G; g++) {
            int64_t c = g * wide;
            cm_real rstd = cm_k.gated_norm(wide, y + r * DI + c, DI, z + r * W + c, W,
                                           w + c, a->eps, out + c);
            if (keep) keep[r * a->G + g] = rstd;
        }
        cm_put(to, r * DI, DI, out);
    }
}

/* Columns of a row of a fresh gzx beside those of z: others add to them later. */
static void clear_beside(const cm_tensor *gzx, int64_t r, int64_t zcol, int64_t DI) {
    int64_t W = gzx->dim[1];
    size_t size = (size_t)cm_dtypes[gzx->dtype].bytes;
    char *row = (char *)gzx->data + (size_t)(r * W) * size;
    memset(row, 0, (size_t)zcol * size);
    memset(row + (size_t)(zcol + DI) * size, 0, (size_t)(W - zcol - DI) * size);
}

static void block_back(const cm_node *n, int64_t r0, cm_real *gw, cm_real *tmp) {
    const gated_attr *a = n->attr;
    int64_t R = n->in[0]->v.dim[0], DI = n->in[0]->v.dim[1], W = n->in[1]->v.dim[1];
    int64_t wide = DI / a->G, r1 = r0 + ROWS < R ? r0 + ROWS : R;
    const cm_real *y = cm_rdata(&n->in[0]->v), *z = cm_rdata(&n->in[1]->v) + a->zcol;
    const cm_real *w = cm_rdata(&n->in[2]->v), *dout = n->out[0]->g, *rstd = n->saved;
    cm_tensor gys = cm_grad_of(n->in[0]), gzx = cm_grad_of(n->in[1]);
    bool set_y = n->fresh[0] || n->in[0]->g_narrow, set_z = n->fresh[1] || n->in[1]->g_narrow;
    memset(gw, 0, (size_t)DI * sizeof *gw);
    for (int64_t r = r0; r < r1; r++) {
        if (gzx.data && n->fresh[1]) clear_beside(&gzx, r, a->zcol, DI);
        for (int g = 0; g < a->G; g++) {
            int64_t c = g * wide, at = r * DI + c, zat = r * W + c, gzat = zat + a->zcol;
            cm_real *gz = gzx.data ? cm_place(&gzx, gzat, tmp + 2 * wide) : NULL;
            cm_real *gy = gys.data ? cm_place(&gys, at, tmp + 3 * wide) : NULL;
            cm_k.gated_norm_back(wide, y + at, DI, z + zat, W, w + c, rstd[r * a->G + g],
                                 dout + at, set_y, set_z, gy, gz, gw + c, tmp);
            if (gz) cm_put(&gzx, gzat, wide, gz);
            if (gy) cm_put(&gys, at, wide, gy);
        }
    }
}

static void bwd(cm_node *n, void *scratch) {
    const gated_attr *a = n->attr;
    int64_t DI = n->in[0]->v.dim[1], blocks = blocks_of(n), wide = DI / a->G;
    cm_real *part = scratch, *tmp = part + blocks * DI;
    bool many = blocks * ROWS * DI > SERIAL;
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (many)
    for (int64_t i = 0; i < blocks; i++)
        block_back(n, i * ROWS, part + i * DI, tmp + omp_get_thread_num() * 4 * wide);
    cm_real *gw = n->in[2]->g;
    for (int64_t i = 0; gw && i < blocks; i++) cm_k.add_scaled(DI, 1, part + i * DI, gw);
}

static bool sample(cm_sample *s, int i) {
    static const struct { int R, DI, G; } cases[] = {
        { 5, 6, 1 }, { 3, 12, 3 }, { 66, 2, 1 },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    int64_t R = cases[i].R, DI = cases[i].DI;
    cm_var *y = cm_sample_in(s, "y", 2, (int64_t[]){ R, DI }, -1, 1);
    cm_var *zx = cm_sample_in(s, "zx", 2, (int64_t[]){ R, DI + 3 }, -2, 2);
    cm_var *w = cm_sample_param(s, "w", 1, (int64_t[]){ DI }, -1, 1);
    cm_sample_out(s, cm_gated_norm(cm_sample_tape(s), y, zx, w, 1, cases[i].G,
                                   (cm_real)1e-2, CM_ANYBODY));
    return true;
}

static cm_cols cols(const cm_node *n, int i) {
    const gated_attr *a = n->attr;
    int64_t from = i == 1 ? a->zcol : 0;
    return (cm_cols){ from, from + n->in[0]->v.dim[1] };
}

static int64_t touched(const cm_node *n, int i) {
    return cm_tensor_count(i == 1 ? &n->out[0]->v : &n->in[i]->v);
}

const cm_op cm_op_gated_norm = {
    .name = "gated_norm", .shapes = "y[R,DI] zx[R,W] w[DI] -> out[R,DI]", .n_in = 3,
    .n_out = 1, .attr_bytes = sizeof(gated_attr), .sets = 1 << 0 | 1 << 1,
    .gives_g = 1 << 0 | 1 << 1, .cols = cols, .infer = infer,
    .saved = saved, .scratch = scratch_bytes, .fwd = fwd, .bwd = bwd,
    .touched = touched, .sample = sample,
};

cm_var *cm_gated_norm(cm_tape *t, cm_var *y, cm_var *zx, cm_var *w, int64_t zcol, int G,
                      cm_real eps, cm_readers readers) {
    gated_attr a = { zcol, G, eps, readers };
    cm_var *out;
    cm_tape_apply(t, &cm_op_gated_norm, (cm_var *[]){ y, zx, w }, 3, &a, &out);
    return out;
}
