/* session.c -- one sequence being read and continued: prefill in pieces, decode by steps.
 *
 * Prompts are fed in pieces of a fixed length, so memory does not grow with the prompt
 * and chunk boundaries of the scan sit at multiples of the piece from where it started. */
#include "model/model.h"
#include "run/run.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 256 };

/* The forward pass of T tokens on counting memory: what the session's arena must hold. */
static bool measure(cm_session *s, int T, size_t *bytes, cm_err *err) {
    cm_arena count;
    if (!cm_arena_open_counting(&count, "session plan", err)) return false;
    cm_tape t;
    size_t mark = cm_arena_mark(&s->meta);
    cm_state st = s->st;
    cm_tape_begin(&t, &count, &s->meta, false, true);
    cm_model_hidden(s->m, &t, NULL, &(cm_seq){ .B = 1, .T = T }, &st);
    *bytes = count.peak;
    cm_arena_reset(&s->meta, mark);
    cm_arena_close(&count);
    return true;
}

bool cm_session_open(cm_session *s, const cm_model *m, int cap, cm_err *err) {
    *s = (cm_session){ .m = m, .cap = cap };
    size_t meta = (size_t)64 << 20, step = 0, one = 0;
    if (!cm_arena_open(&s->meta, "session meta", meta, err)) return false;
    if (!cm_arena_open(&s->keep, "decoding state", cm_state_bytes(&m->conf, 1, cap), err))
        return false;
    cm_state_init(&s->st, m, 1, cap, &s->keep);
    int T = cap < PIECE ? cap : PIECE;
    if (!measure(s, T, &step, err) || !measure(s, 1, &one, err)) return false;
    cm_session_reset(s);
    return cm_arena_open(&s->arena, "session", step > one ? step : one, err);
}

void cm_session_close(cm_session *s) {
    cm_arena_close(&s->arena);
    cm_arena_close(&s->keep);
    cm_arena_close(&s->meta);
    *s = (cm_session){ 0 };
}

void cm_session_reset(cm_session *s) { cm_state_clear(&s->st, s->m); }

static void feed_piece(cm_session *s, const int32_t *token, int T, cm_real *all,
                       cm_real *last) {
    cm_tape t;
    cm_arena_reset(&s->arena, 0);
    cm_arena_reset(&s->meta, 0);
    cm_tape_begin(&t, &s->arena, &s->meta, false, false);
    cm_seq seq = { .B = 1, .T = T };
    cm_var *h = cm_model_hidden(s->m, &t, token, &seq, &s->st);
    const cm_real *x = cm_rdata(&h->v);
    int64_t V = s->m->conf.vocab_size;
    for (int64_t r = 0; all && r < T; r++) {
        int64_t row[PIECE];
        int64_t n = 0;
        while (n < PIECE && r + n < T) row[n] = r + n, n++;
        cm_model_logits(s->m, x, row, n, all + r * V);
        r += n - 1;
    }
    if (last) cm_model_logits(s->m, x, &(int64_t){ T - 1 }, 1, last);
}

bool cm_session_feed(cm_session *s, const int32_t *token, int64_t n, cm_real *all,
                     cm_real *last, cm_err *err) {
    if (s->st.held[0] + n > s->cap)
        return cm_fail(err, CM_EXIT_USAGE,
                       "the text needs %lld tokens but the session has room for %d",
                       (long long)(s->st.held[0] + n), s->cap);
    int64_t V = s->m->conf.vocab_size;
    for (int64_t i = 0; i < n; i++)
        if (token[i] < 0 || token[i] >= V)
            return cm_fail(err, CM_EXIT_USAGE, "token id %d is outside the vocabulary 0..%lld",
                           token[i], (long long)V - 1);
    for (int64_t i = 0; i < n; i += PIECE) {
        int T = n - i < PIECE ? (int)(n - i) : PIECE;
        bool end = i + T == n;
        feed_piece(s, token + i, T, all ? all + i * V : NULL, end ? last : NULL);
    }
    return true;
}

static bool among(int32_t id, const int32_t *v, int n) {
    for (int i = 0; i < n; i++)
        if (v[i] == id) return true;
    return false;
}

bool cm_session_continue(cm_session *s, const cm_sampling *how, const int32_t *prompt,
                         int64_t n, const int32_t *stop, int n_stop, int64_t max,
                         int32_t *out, int64_t *n_out, cm_err *err) {
    int V = (int)s->m->conf.vocab_size;
    void *work = malloc(cm_sample_work_bytes(V));
    cm_real *logits = malloc((size_t)V * sizeof *logits);
    CM_ASSERT(work && logits, "out of memory for samples");
    cm_session_reset(s);
    bool ok = cm_session_feed(s, prompt, n, NULL, logits, err);
    for (*n_out = 0; ok && *n_out < max && !cm_signal_stop();) {
        int32_t id = cm_sample_token(how, logits, V, NULL, 0, (uint64_t)*n_out, work);
        if (among(id, stop, n_stop)) break;
        out[(*n_out)++] = id;
        if (*n_out < max) ok = cm_session_feed(s, &id, 1, NULL, logits, err);
    }
    free(work);
    free(logits);
    return ok;
}
