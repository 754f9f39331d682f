/* score.c -- log-likelihoods of token rows, logits a few rows at a time. */
#include "harness/harness.h"

#include <math.h>

enum { LOGIT_ROWS = 128 };

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

bool cm_scorer_open(cm_scorer *s, const cm_model *m, int max_T, cm_err *err) {
    *s = (cm_scorer){ .m = m, .max_T = max_T };
    size_t step, logits = (size_t)(LOGIT_ROWS * m->conf.vocab_size) * sizeof(cm_real);
    if (!cm_arena_open(&s->meta, "scorer meta", (size_t)64 << 20, err)) return false;
    if (!plan(s, &step, err) || !cm_arena_open(&s->arena, "scorer", step, err) ||
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

/* -log softmax(x)[k]: maximum and exponentials in float, sum and logarithm in double. */
static double row_nll(const cm_real *x, int64_t V, int32_t k) {
    float max = (float)x[0];
    for (int64_t v = 1; v < V; v++) max = (float)x[v] > max ? (float)x[v] : max;
    double sum = 0;
    for (int64_t v = 0; v < V; v++) sum += (double)expf((float)x[v] - max);
    return log(sum) - (double)((float)x[k] - max);
}

void cm_score(cm_scorer *s, const int32_t *token, int T, int first, double *nll) {
    CM_ASSERT(T <= s->max_T, "a row of %d tokens in a scorer for %d", T, s->max_T);
    cm_tape t;
    cm_arena_reset(&s->arena, 0);
    cm_arena_reset(&s->meta, 0);
    cm_tape_begin(&t, &s->arena, &s->meta, false, false);
    cm_var *h = cm_model_hidden(s->m, &t, token, &(cm_seq){ .B = 1, .T = T }, NULL);
    int64_t V = s->m->conf.vocab_size;
    for (int r = first; r < T - 1; r += LOGIT_ROWS) {
        int64_t row[LOGIT_ROWS];
        int n = T - 1 - r < LOGIT_ROWS ? T - 1 - r : LOGIT_ROWS;
        for (int i = 0; i < n; i++) row[i] = r + i;
        cm_model_logits(s->m, cm_rdata(&h->v), row, n, s->logits);
#pragma omp parallel for schedule(static)
        for (int i = 0; i < n; i++)
            nll[r + i] = row_nll(s->logits + i * V, V, token[r + i + 1]);
    }
}
