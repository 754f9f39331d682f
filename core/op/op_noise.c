/* op_noise.c -- NEFTune's noise on embeddings (Jain et al. 2023, arXiv:2310.05914).
 *
 * y = x + u alpha / sqrt(L D), u uniform in [-1,1), L the length of the row's document.
 * Element (t, d) of row b is number t D + d of the stream (seed, NEFTUNE, first row + b):
 * the same noise for any micro-batch, and again after a resume. */
#include "op/op.h"

#include <math.h>
#include <string.h>

typedef struct noise_attr {
    cm_noise n;
    cm_seq seq;
} noise_attr;

static bool noise_infer(cm_node *n, const char **why) {
    const noise_attr *a = n->attr;
    const cm_tensor *x = &n->in[0]->v;
    if (x->nd != 2 || x->dim[0] != (int64_t)a->seq.B * a->seq.T) {
        *why = "x must have a row for each token of the sequences";
        return false;
    }
    n->out[0]->v = *x;
    n->out[0]->v.data = NULL;
    return true;
}

/* Tokens [t, end) of batch row b are one document. */
static int doc_end(const cm_seq *s, int b, int t) {
    if (!s->doc) return s->T;
    const int32_t *doc = s->doc + (int64_t)b * s->T;
    int end = t + 1;
    while (end < s->T && doc[end] == doc[t]) end++;
    return end;
}

static void noise_row(const noise_attr *a, int b, int64_t D, cm_real *y) {
    cm_rng r = cm_rng_make(a->n.seed, CM_RNG_NEFTUNE, (uint64_t)(a->n.row + b));
    for (int t = 0, end; t < a->seq.T; t = end) {
        end = doc_end(&a->seq, b, t);
        double size = a->n.alpha / sqrt((double)(end - t) * (double)D);
        for (int64_t i = t * D; i < end * D; i++)
            y[i] += (cm_real)(size * (2 * cm_rng_uniform(r, (uint64_t)i) - 1));
    }
}

static void noise_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    const noise_attr *a = n->attr;
    int64_t D = n->in[0]->v.dim[1];
    cm_real *y = cm_rdata(&n->out[0]->v);
    memcpy(y, cm_rdata(&n->in[0]->v), cm_tensor_bytes(&n->in[0]->v));
#pragma omp parallel for schedule(static)
    for (int b = 0; b < a->seq.B; b++) noise_row(a, b, D, y + (int64_t)b * a->seq.T * D);
}

static void noise_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    int64_t N = cm_tensor_count(&n->in[0]->v);
    if (!n->in[0]->g) return;
    if (n->fresh[0]) memcpy(n->in[0]->g, n->out[0]->g, sizeof(cm_real) * (size_t)N);
    else cm_k.add_scaled(N, 1, n->out[0]->g, n->in[0]->g);
}

static bool noise_sample(cm_sample *s, int i) {
    static const struct { int B, T, docs, D; } cases[] = { { 2, 5, 1, 3 }, { 1, 9, 3, 2 } };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    cm_seq seq = { 0 };
    int B = cases[i].B, T = cases[i].T;
    cm_sample_seq(s, &seq, B, T, cases[i].docs);
    cm_var *x = cm_sample_in(s, "x", 2, (int64_t[]){ B * T, cases[i].D }, -1, 1);
    cm_sample_out(s, cm_add_noise(cm_sample_tape(s), x, &(cm_noise){ 5, 7, 11 }, &seq));
    return true;
}

const cm_op cm_op_noise = {
    .name = "noise", .shapes = "x[R,D] -> y[R,D]", .n_in = 1, .n_out = 1,
    .attr_bytes = sizeof(noise_attr), .sets = 1, .infer = noise_infer, .fwd = noise_fwd,
    .bwd = noise_bwd, .sample = noise_sample,
};

cm_var *cm_add_noise(cm_tape *t, cm_var *x, const cm_noise *n, const cm_seq *seq) {
    noise_attr a = { *n, *seq };
    cm_var *y;
    cm_tape_apply(t, &cm_op_noise, &x, 1, &a, &y);
    return y;
}
