/* op_fixture.h -- a tape to try ops on, for the unit tests of core/op.
 *
 * Inputs are parameters or activations; outputs are dotted with fixed random
 * weights to get the scalar that is differentiated. */
#ifndef CM_OP_FIXTURE_H
#define CM_OP_FIXTURE_H

#include "op/op.h"
#include "tests/t.h"

#include <math.h>
#include <string.h>

/* Tolerance in this build: first for double, second for float. */
#define TOL(in_double, in_float) (sizeof(cm_real) == 8 ? (in_double) : (in_float))

enum { DIRT = 16 << 20 };

typedef struct op_fix {
    cm_arena arena, meta;
    cm_tape t;
} op_fix;

static inline void fix_open(op_fix *f, bool recording) {
    cm_err err;
    CHECKF(cm_arena_open(&f->arena, "test", (size_t)4 << 30, &err), "%s", err.msg);
    CHECKF(cm_arena_open(&f->meta, "test meta", (size_t)64 << 20, &err), "%s", err.msg);
    /* Start from memory full of NaN: whoever reads what it did not write shows. */
    memset(cm_arena_alloc(&f->arena, DIRT), 0xff, DIRT);
    cm_arena_reset(&f->arena, 0);
    cm_tape_begin(&f->t, &f->arena, &f->meta, recording, false);
}

static inline void fix_close(op_fix *f) {
    cm_arena_close(&f->arena);
    cm_arena_close(&f->meta);
}

static inline void fix_threads(int threads) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, threads, &err), "%s", err.msg);
}

/* Element i of stream `seed`, uniform in [-1,1]. */
static inline double fix_value(uint64_t seed, int64_t i) {
    return 2 * cm_rng_uniform(cm_rng_make(seed, CM_RNG_TEST, 0), (uint64_t)i) - 1;
}

/* An activation: its gradient appears with the backward. */
static inline cm_var *fix_input(op_fix *f, uint64_t seed, int nd, const int64_t *dim) {
    cm_var *x = cm_var_new(&f->t, dim, nd, true);
    int64_t n = cm_tensor_count(&x->v);
    for (int64_t i = 0; i < n; i++) cm_rdata(&x->v)[i] = (cm_real)fix_value(seed, i);
    return x;
}

/* A parameter: its gradient is there from the start and accumulates. */
static inline cm_var *fix_var(op_fix *f, uint64_t seed, int nd, const int64_t *dim) {
    cm_var *x = fix_input(f, seed, nd, dim);
    int64_t n = cm_tensor_count(&x->v);
    x->is_param = true;
    x->g = cm_arena_zalloc(&f->arena, (size_t)n * sizeof(cm_real));
    return x;
}

static inline bool fix_dot_infer(cm_node *n, const char **why) {
    (void)why;
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}
static inline void fix_dot_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    double s = 0;
    for (int64_t i = 0; i < cm_tensor_count(&n->in[0]->v); i++)
        s += (double)cm_rdata(&n->in[0]->v)[i] * fix_value(*(const uint64_t *)n->attr, i);
    *cm_rdata(&n->out[0]->v) = (cm_real)s;
}
static inline void fix_dot_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    for (int64_t i = 0; i < cm_tensor_count(&n->in[0]->v); i++)
        n->in[0]->g[i] +=
            *n->out[0]->g * (cm_real)fix_value(*(const uint64_t *)n->attr, i);
}

/* Backward of sum_i <x[i], fix_value(seed, .)>. */
static inline void fix_backward(op_fix *f, cm_var *x, uint64_t seed) {
    static const cm_op dot = {
        .name = "dot", .shapes = "x -> y[1]", .n_in = 1, .n_out = 1,
        .attr_bytes = sizeof(uint64_t), .infer = fix_dot_infer, .fwd = fix_dot_fwd,
        .bwd = fix_dot_bwd,
    };
    cm_var *y;
    cm_tape_apply(&f->t, &dot, &x, 1, &seed, &y);
    cm_tape_backward(&f->t, y, 1);
}

/* Largest |a - b|; infinity when anything is not finite. */
static inline double fix_diff(int64_t n, const cm_real *a, const double *b) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = isfinite(d) ? d : (double)INFINITY;
    }
    return worst;
}

static inline bool fix_same(int64_t n, const cm_real *a, const cm_real *b) {
    return !memcmp(a, b, (size_t)n * sizeof *a);
}

#endif
