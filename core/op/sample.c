/* sample.c -- gradient-check cases: build a case, run it, compare with differences.
 *
 * A case is a function that builds inputs, applies ops and registers outputs.  It is run
 * again from scratch for every perturbed element, so it needs no knowledge of the check.
 * The differentiated scalar is sum_k <out_k, w_k> with fixed random w, plus losses. */
#include "op/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SAMPLE_IN = 64, MAX_SAMPLE_OUT = 8 };

struct cm_sample {
    cm_tape tape;
    cm_arena arena, meta, mem;
    uint64_t seed;
    int index;
    struct { const char *name; cm_var *var; } in[MAX_SAMPLE_IN];
    int n_in;
    cm_var *out[MAX_SAMPLE_OUT];
    int n_out;
    cm_var *loss;
    int bump_in;      /* input whose element bump_at is moved by bump; -1 none */
    int64_t bump_at;
    double bump;
};

cm_tape *cm_sample_tape(cm_sample *s) { return &s->tape; }

static cm_var *add_input(cm_sample *s, const char *name, int nd, const int64_t *dim,
                         double lo, double hi, bool param) {
    CM_ASSERT(s->n_in < MAX_SAMPLE_IN, "more than %d inputs in a case", MAX_SAMPLE_IN);
    int k = s->n_in++;
    cm_var *x = cm_var_new(&s->tape, dim, nd, true);
    int64_t n = cm_tensor_count(&x->v);
    cm_rng r = cm_rng_make(s->seed, CM_RNG_TEST, (uint64_t)k);
    for (int64_t i = 0; i < n; i++)
        cm_rdata(&x->v)[i] = (cm_real)(lo + (hi - lo) * cm_rng_uniform(r, (uint64_t)i));
    if (k == s->bump_in) cm_rdata(&x->v)[s->bump_at] += (cm_real)s->bump;
    if (param) {
        x->is_param = true;
        x->g = cm_arena_zalloc(&s->arena, (size_t)n * sizeof(cm_real));
    }
    s->in[k].name = name;
    s->in[k].var = x;
    return x;
}

cm_var *cm_sample_in(cm_sample *s, const char *name, int nd, const int64_t *dim, double lo,
                     double hi) {
    return add_input(s, name, nd, dim, lo, hi, false);
}

cm_var *cm_sample_param(cm_sample *s, const char *name, int nd, const int64_t *dim,
                        double lo, double hi) {
    return add_input(s, name, nd, dim, lo, hi, true);
}

void cm_sample_out(cm_sample *s, cm_var *v) {
    CM_ASSERT(s->n_out < MAX_SAMPLE_OUT, "more than %d outputs in a case", MAX_SAMPLE_OUT);
    s->out[s->n_out++] = v;
}

void cm_sample_loss(cm_sample *s, cm_var *v) { s->loss = v; }

void *cm_sample_mem(cm_sample *s, size_t bytes) { return cm_arena_zalloc(&s->mem, bytes); }

int cm_sample_int(cm_sample *s, uint64_t i, int n) {
    cm_rng r = cm_rng_make(s->seed, CM_RNG_TEST, 1000);
    return (int)cm_rng_below(r, i, (uint64_t)n);
}

void cm_sample_seq(cm_sample *s, cm_seq *seq, int B, int T, int docs) {
    int32_t *doc = cm_sample_mem(s, (size_t)(B * T) * sizeof *doc);
    int32_t *pos = cm_sample_mem(s, (size_t)(B * T) * sizeof *pos);
    for (int b = 0, d = 0; b < B; b++, d++) {
        for (int t = 0; t < T; t++) {
            uint64_t draw = (uint64_t)(b * T + t + 7);
            bool starts = t == 0 || cm_sample_int(s, draw, T) < docs - 1;
            if (t && starts) d++;
            doc[b * T + t] = d;
            pos[b * T + t] = starts ? 0 : pos[b * T + t - 1] + 1;
        }
    }
    *seq = (cm_seq){ .B = B, .T = T, .doc = doc, .pos = pos };
}

static double out_weight(const cm_sample *s, int k, int64_t i) {
    cm_rng r = cm_rng_make(s->seed, CM_RNG_TEST, 2000 + (uint64_t)k);
    return 2 * cm_rng_uniform(r, (uint64_t)i) - 1;
}

/* One joint root for all outputs: y = sum_k <x_k, w_k>, with the weights saved. */
typedef struct {
    const cm_sample *s;
} dot_attr;

static bool dot_infer(cm_node *n, const char **why) {
    (void)why;
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}

static void dot_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    const dot_attr *a = n->attr;
    double sum = 0;
    for (int k = 0; k < n->n_in; k++)
        for (int64_t i = 0; i < cm_tensor_count(&n->in[k]->v); i++)
            sum += (double)cm_rdata(&n->in[k]->v)[i] * out_weight(a->s, k, i);
    *cm_rdata(&n->out[0]->v) = (cm_real)sum;
}

static void dot_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    const dot_attr *a = n->attr;
    for (int k = 0; k < n->n_in; k++) {
        if (!n->in[k]->g) continue;
        for (int64_t i = 0; i < cm_tensor_count(&n->in[k]->v); i++)
            n->in[k]->g[i] += *n->out[0]->g * (cm_real)out_weight(a->s, k, i);
    }
}

static const cm_op op_dot = {
    .name = "sample_dot", .shapes = "x.. -> y[1]", .n_in = 1, .n_out = 1,
    .attr_bytes = sizeof(dot_attr), .infer = dot_infer, .fwd = dot_fwd, .bwd = dot_bwd,
};

/* Build and run the case once; the root scalar, or NULL when there is no such case. */
static cm_var *run_case(cm_sample *s, cm_sample_fn fn) {
    cm_arena_reset(&s->arena, 0);
    cm_arena_reset(&s->meta, 0);
    cm_arena_reset(&s->mem, 0);
    s->n_in = s->n_out = 0;
    s->loss = NULL;
    cm_tape_begin(&s->tape, &s->arena, &s->meta, true, false);
    if (!fn(s, s->index)) return NULL;
    CM_ASSERT(s->n_out || s->loss, "a gradient-check case without outputs");
    cm_var *root[2];
    int n = 0;
    if (s->loss) root[n++] = s->loss;
    if (s->n_out)
        cm_tape_apply(&s->tape, &op_dot, s->out, s->n_out, &(dot_attr){ s }, &root[n++]);
    return n == 1 ? root[0] : cm_sum(&s->tape, root, n);
}

static double value_at(cm_sample *s, cm_sample_fn fn, int k, int64_t i, double bump) {
    s->bump_in = k;
    s->bump_at = i;
    s->bump = bump;
    cm_var *y = run_case(s, fn);
    s->bump_in = -1;
    return (double)*cm_rdata(&y->v);
}

/* Inputs are leaves, so their gradients are still there after the backward. */
static double *analytic(cm_sample *s, cm_sample_fn fn, int k, int64_t *count) {
    cm_var *root = run_case(s, fn);
    cm_var *x = s->in[k].var;
    cm_tape_backward(&s->tape, root, 1);
    *count = cm_tensor_count(&x->v);
    double *g = calloc((size_t)*count, sizeof *g);
    CM_ASSERT(g, "out of memory");
    for (int64_t i = 0; i < *count && x->g; i++) g[i] = (double)x->g[i];
    return g;
}

/* Fourth-order central difference: truncation O(h^4) and rounding eps/h both stay far
 * below 1e-7 at this step. */
static double difference(cm_sample *s, cm_sample_fn fn, int k, int64_t i) {
    const double h = 5e-4;
    double near = value_at(s, fn, k, i, h) - value_at(s, fn, k, i, -h);
    double far = value_at(s, fn, k, i, 2 * h) - value_at(s, fn, k, i, -2 * h);
    return (8 * near - far) / (12 * h);
}

static void check_input(cm_sample *s, cm_sample_fn fn, int k, double scale,
                        cm_sample_report report, void *ctx) {
    int64_t n;
    const char *name = s->in[k].name;
    double *g = analytic(s, fn, k, &n), diff2 = 0, fd2 = 0, g2 = 0;
    for (int64_t i = 0; i < n; i++) {
        double fd = difference(s, fn, k, i), d = scale * g[i] - fd;
        diff2 += d * d;
        fd2 += fd * fd;
        g2 += scale * g[i] * scale * g[i];
    }
    free(g);
    bool vanishes = sqrt(fd2) < 1e-9 * sqrt((double)n);
    report(ctx, name, n, vanishes ? sqrt(g2) : sqrt(diff2 / fd2), sqrt(fd2));
}

bool cm_sample_check(cm_sample_fn fn, int i, const char *scaled, double scale,
                     cm_sample_report report, void *ctx) {
    cm_sample s = { .index = i, .seed = 1234 + (uint64_t)i, .bump_in = -1 };
    cm_err err;
    size_t cap = (size_t)1 << 32;
    bool ok = cm_arena_open(&s.arena, "sample", cap, &err) &&
              cm_arena_open(&s.meta, "sample meta", cap, &err) &&
              cm_arena_open(&s.mem, "sample mem", cap, &err);
    CM_ASSERT(ok, "%s", err.msg);
    bool exists = run_case(&s, fn);
    int n_in = s.n_in;
    for (int k = 0; exists && k < n_in; k++) {
        bool hit = scaled && strcmp(s.in[k].name, scaled) == 0;
        check_input(&s, fn, k, hit ? scale : 1, report, ctx);
    }
    cm_arena_close(&s.arena);
    cm_arena_close(&s.meta);
    cm_arena_close(&s.mem);
    return exists;
}
