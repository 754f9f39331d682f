/* parity.c -- a model beside what it was exported to: every tensor, and the logits of fixed
 * random tokens.  Weights are brought a part at a time, so neither model is ever there whole. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

double cm_log_sum_exp(const cm_real *x, int64_t n, int64_t *top) {
    *top = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[*top]) *top = i;
    double most = (double)x[*top], sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - most);
    return most + log(sum);
}

/* One position's logits: a of the source, b of what was written. */
static void compare_row(cm_parity *p, const cm_real *a, const cm_real *b, int64_t V) {
    int64_t top_a, top_b;
    double za = cm_log_sum_exp(a, V, &top_a), zb = cm_log_sum_exp(b, V, &top_b), kl = 0;
    for (int64_t v = 0; v < V; v++) {
        double la = (double)a[v] - za, lb = (double)b[v] - zb, d = (double)a[v] - b[v];
        kl += exp(la) * (la - lb);
        p->rms += (double)a[v] * a[v];
        if (!(fabs(d) <= p->diff)) p->diff = fabs(d); /* NaN sticks */
    }
    p->same += top_a == top_b;
    p->kl += kl / CM_PARITY_TOKENS;
    if (!(kl <= p->kl_most)) p->kl_most = kl;
}

/* Whether the largest parts of both models as floats leave room for the rest. */
static bool parts_fit(const cm_model *m) {
    double need = (double)cm_model_largest_part(&m->conf) * sizeof(cm_real);
    return 2 * need < 0.8 * cm_limits_get().memory;
}

/* Logits of the fixed tokens, the weights brought a part at a time. */
static bool probe(cm_loaded *l, cm_bringer *bringer, cm_real *out, cm_err *err) {
    cm_model *m = &l->model;
    int32_t token[CM_PARITY_TOKENS];
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    for (int i = 0; i < CM_PARITY_TOKENS; i++)
        token[i] = (int32_t)cm_rng_below(r, (uint64_t)i, (uint64_t)m->conf.vocab_size);
    cm_session s;
    m->bringer = bringer;
    bool ok = cm_session_open(&s, m, CM_PARITY_TOKENS, err) &&
              cm_session_feed(&s, token, CM_PARITY_TOKENS, out, NULL, err);
    m->bringer = NULL;
    cm_session_close(&s);
    cm_loaded_forget(l, NULL);
    return ok;
}

typedef struct written {
    const cm_export *x;
    bool gguf;
} written;

/* A part of what was written, compared while it is there. */
static bool bring_compared(void *ctx, int part, cm_err *err) {
    const written *w = ctx;
    return cm_loaded_bring(w->x->back, part, err) &&
           cm_export_compare_part(w->x, &w->x->back->model, w->gguf, part, err);
}

/* Tensors and logits; the weights are read once. */
static bool compare_logits(const cm_export *x, bool gguf, cm_parity *p, cm_err *err) {
    int64_t V = x->model->conf.vocab_size, n = CM_PARITY_TOKENS * V;
    cm_real *a = malloc((size_t)(2 * n) * sizeof *a), *b = a + n;
    CM_ASSERT(a, "out of memory: logits of the probe");
    written w = {x, gguf};
    cm_bringer source = {.bring = cm_loaded_bring, .ctx = x->source};
    cm_bringer back = {.bring = bring_compared, .ctx = &w};
    bool ok = probe(x->back, &back, b, err) && probe(x->source, &source, a, err);
    for (int64_t i = 0; ok && i < CM_PARITY_TOKENS; i++) compare_row(p, a + i * V, b + i * V, V);
    p->rms = sqrt(p->rms / (double)n);
    free(a);
    return ok;
}

bool cm_export_parity(const cm_export *x, bool gguf, cm_parity *p, cm_err *err) {
    *p = (cm_parity){.unprobed = !parts_fit(x->model)};
    cm_loaded_forget(x->source, NULL);
    return p->unprobed ? cm_export_compare(x, &x->back->model, gguf, err)
                       : compare_logits(x, gguf, p, err);
}

double cm_parity_relative(const cm_parity *p) { return p->rms > 0 ? p->diff / p->rms : p->diff; }
