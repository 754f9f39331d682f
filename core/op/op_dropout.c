/* op_dropout.c -- zeroes elements at random and scales up the others (for adapters).
 *
 * Whether an element stays follows from the seed, the module, the number of its row in the
 * data and its place in the row: the same after a resume, and however rows are cut into
 * micro-batches.  One 64-bit random word decides two neighbours. */
#include "op/op.h"

typedef struct dropout_attr {
    cm_drop d;
    uint64_t module;
} dropout_attr;

static bool dropout_infer(cm_node *n, const char **why) {
    const dropout_attr *a = n->attr;
    const cm_tensor *x = &n->in[0]->v;
    *why = "x must be a matrix of whole rows of T tokens";
    if (x->nd != 2 || a->d.T < 1 || x->dim[0] % a->d.T) return false;
    *why = "the share dropped must lie in [0,1)";
    n->out[0]->v = *x;
    return a->d.share >= 0 && a->d.share < 1;
}

/* y = or (add) += kept x / (1 - share), row r. */
static void row(const dropout_attr *a, int64_t r, int64_t I, const cm_real *x, bool add,
                cm_real *y) {
    cm_rng g = cm_rng_make(a->d.seed + a->module, CM_RNG_DROPOUT,
                           (uint64_t)(a->d.row + r / a->d.T));
    uint64_t first = (uint64_t)(r % a->d.T) * (uint64_t)((I + 1) / 2);
    double limit = a->d.share * 0x1p32;
    cm_real up = (cm_real)(1 / (1 - a->d.share));
    for (int64_t i = 0; i < I; i += 2) {
        uint64_t w = cm_rng_u64(g, first + (uint64_t)i / 2);
        for (int64_t k = i; k < i + 2 && k < I; k++, w >>= 32) {
            cm_real v = (double)(uint32_t)w < limit ? 0 : up * x[k];
            y[k] = add ? y[k] + v : v;
        }
    }
}

static void all_rows(const cm_node *n, const cm_real *x, bool add, cm_real *y) {
    int64_t R = n->in[0]->v.dim[0], I = n->in[0]->v.dim[1];
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (R * I > 4096)
    for (int64_t r = 0; r < R; r++) row(n->attr, r, I, x + r * I, add, y + r * I);
}

static void dropout_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    all_rows(n, cm_rdata(&n->in[0]->v), false, cm_rdata(&n->out[0]->v));
}

static void dropout_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    if (n->in[0]->g) all_rows(n, n->out[0]->g, !n->fresh[0], n->in[0]->g);
}

static bool dropout_sample(cm_sample *s, int i) {
    static const struct { int B, T, I; double share; } cases[] = {
        { 1, 4, 5, 0.5 }, { 2, 3, 8, 0.1 }, { 3, 2, 1, 0 },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    cm_drop d = { cases[i].share, 7, 11, cases[i].T };
    cm_var *x = cm_sample_in(s, "x", 2, (int64_t[]){ cases[i].B * cases[i].T, cases[i].I },
                             -1, 1);
    cm_sample_out(s, cm_dropout(cm_sample_tape(s), x, &d, 3));
    return true;
}

const cm_op cm_op_dropout = {
    .name = "dropout", .shapes = "x[R,I] -> y[R,I]", .n_in = 1, .n_out = 1,
    .attr_bytes = sizeof(dropout_attr), .sets = 1, .infer = dropout_infer,
    .fwd = dropout_fwd, .bwd = dropout_bwd, .sample = dropout_sample,
};

cm_var *cm_dropout(cm_tape *t, cm_var *x, const cm_drop *d, uint64_t module) {
    dropout_attr a = { *d, module };
    cm_var *y;
    cm_tape_apply(t, &cm_op_dropout, &x, 1, &a, &y);
    return y;
}
