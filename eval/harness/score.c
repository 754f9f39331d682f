/* score.c -- log-likelihoods of token rows, logits a few rows at a time. */
#include "harness/harness.h"

#include <math.h>

static bool plan(cm_scorer *s, size_t *bytes, cm_err *err) {
    cm_arena count;
    if (!cm_arena_open_counting(&count, "scorer plan", err)) return false;
    cm_tape t;
    cm_tape_begin(&t, &count, &s->meta, false, true);
    cm_model_hidden(s->m, &t, NULL, &(cm_seq){ .B = 1, .T = s->max_T }, NULL);
    *bytes = count.peak;
    cm_arena_close(&count);
    return true;
}

static size_t logit_bytes(const cm_model *m) {
    return (size_t)(CM_LOGIT_ROWS * m->conf.vocab_size) * sizeof(cm_real);
}

static bool open_meta(cm_scorer *s, cm_err *err) {
    return cm_arena_open(&s->meta, "scorer meta", (size_t)64 << 20, err);
}

bool cm_scorer_bytes(const cm_model *m, int max_T, size_t *bytes, cm_err *err) {
    cm_scorer s = { .m = m, .max_T = max_T };
    bool ok = open_meta(&s, err) && plan(&s, bytes, err);
    if (ok) *bytes += s.meta.peak + cm_align_up(logit_bytes(m));
    cm_scorer_close(&s);
    return ok;
}

bool cm_scorer_open(cm_scorer *s, const cm_model *m, int max_T, cm_err *err) {
    *s = (cm_scorer){ .m = m, .max_T = max_T };
    size_t step, logits = logit_bytes(m);
    if (!open_meta(s, err)) return false;
    if (!plan(s, &step, err) ||
        !cm_arena_open_filled(&s->arena, "scoring", step, "shorter rows take less (eval.context, "
                              "quantize.context)", err) ||
        !cm_arena_open(&s->keep, "logits", cm_align_up(logits), err)) {
        cm_scorer_close(s);
        return false;
    }
    s->logits = cm_arena_alloc(&s->keep, logits);
    return true;
}

void cm_scorer_close(cm_scorer *s) {
    cm_arena_close(&s->arena);
    cm_arena_close(&s->keep);
    cm_arena_close(&s->meta);
    *s = (cm_scorer){ 0 };
}

cm_lse cm_row_lse(const cm_real *x, int64_t V) {
    cm_lse l;
    l.log_sum = log(cm_k.sum_exp(V, x, &l.max));
    return l;
}

void cm_scorer_read(cm_scorer *s, const int32_t *token, int T) {
    CM_ASSERT(T <= s->max_T, "a row of %d tokens in a scorer for %d", T, s->max_T);
    cm_tape t;
    cm_arena_reset(&s->arena, 0);
    cm_arena_reset(&s->meta, 0);
    cm_tape_begin(&t, &s->arena, &s->meta, false, false);
    cm_var *h = cm_model_hidden(s->m, &t, token, &(cm_seq){ .B = 1, .T = T }, NULL);
    s->hidden = cm_rdata(&h->v);
}

const cm_real *cm_scorer_logits(cm_scorer *s, int from, int n) {
    int64_t row[CM_LOGIT_ROWS];
    CM_ASSERT(n <= CM_LOGIT_ROWS, "logits of %d rows at a time", n);
    for (int i = 0; i < n; i++) row[i] = from + i;
    cm_model_logits(s->m, s->hidden, row, n, s->logits);
    return s->logits;
}

void cm_score(cm_scorer *s, const int32_t *token, int T, int first, double *nll) {
    int64_t V = s->m->conf.vocab_size;
    cm_scorer_read(s, token, T);
    for (int r = first; r < T - 1; r += CM_LOGIT_ROWS) {
        int n = T - 1 - r < CM_LOGIT_ROWS ? T - 1 - r : CM_LOGIT_ROWS;
        const cm_real *x = cm_scorer_logits(s, r, n);
#pragma omp parallel for schedule(static)
        for (int i = 0; i < n; i++)
            nll[r + i] = -cm_logp(cm_row_lse(x + i * V, V), x[i * V + token[r + i + 1]]);
    }
}
