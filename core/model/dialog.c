/* dialog.c -- a conversation with a model: turns in, answers out, nothing read twice. */
#include "model/model.h"

#include <stdlib.h>

static void *room(size_t n, size_t size) {
    void *p = malloc((n ? n : 1) * size);
    CM_ASSERT(p, "out of memory: %zu bytes for a conversation", n * size);
    return p;
}

bool cm_dialog_open(cm_dialog *d, const cm_model *m, const cm_spm *spm, int cap, cm_err *err) {
    *d = (cm_dialog){ .spm = spm };
    if (!cm_chat_open(&d->chat, spm, err) || !cm_session_open(&d->s, m, cap, err)) return false;
    d->id = room((size_t)cap + 1, sizeof *d->id);
    d->logits = room((size_t)m->conf.vocab_size, sizeof *d->logits);
    d->work = room(cm_sample_work_bytes((int)m->conf.vocab_size), 1);
    return true;
}

void cm_dialog_close(cm_dialog *d) {
    if (d->s.m) cm_session_close(&d->s);
    free(d->id);
    free(d->logits);
    free(d->work);
    *d = (cm_dialog){ 0 };
}

void cm_dialog_reset(cm_dialog *d) {
    cm_session_reset(&d->s);
    d->n = d->fed = d->draws = 0;
    d->answered = false;
}

/* However the last answer ended, the next turn follows the template: tokens to be added. */
static int to_close(const cm_dialog *d) {
    if (!d->answered) return 0;
    int32_t last = d->id[d->n - 1];
    return last != d->chat.end && last != cm_spm_eos(d->spm);
}

static void close_answer(cm_dialog *d) {
    if (!d->answered) return;
    d->n += to_close(d);
    d->id[d->n - 1] = d->chat.end; /* not read yet: the last one never is */
    d->answered = false;
}

bool cm_dialog_say(cm_dialog *d, const cm_turn *turn, int n, cm_err *err) {
    cm_chat_ids x = { 0 };
    bool ok = cm_chat_render(&d->chat, d->spm, turn, n, true, &x, err);
    int64_t skip = ok && d->n && d->chat.bos >= 0; /* one conversation, one BOS */
    int64_t need = d->n + to_close(d) + x.n - skip;
    if (ok && need >= d->s.cap)
        ok = cm_fail(err, CM_EXIT_USAGE, "the conversation needs %lld tokens and more to be "
                     "answered, but there is room for %d", (long long)need, d->s.cap);
    if (ok) close_answer(d);
    for (int64_t i = skip; ok && i < x.n; i++) d->id[d->n++] = x.id[i];
    cm_chat_ids_free(&x);
    return ok;
}

static bool next_token(cm_dialog *d, const cm_sampling *how, int32_t *id, cm_err *err) {
    int V = (int)d->s.m->conf.vocab_size;
    if (!cm_session_feed(&d->s, d->id + d->fed, d->n - d->fed, NULL, d->logits, err))
        return false;
    d->fed = d->n;
    if (!cm_logits_finite(d->logits, V))
        return cm_fail(err, CM_EXIT_DATA, "a logit that is no finite number; the model's weights "
                       "are broken");
    *id = cm_sample_token(how, d->logits, V, d->id, (int)d->n, (uint64_t)d->draws++, d->work);
    return true;
}

bool cm_dialog_answer(cm_dialog *d, const cm_sampling *how, int64_t most, cm_voice *v,
                      bool (*each)(void *ctx, const cm_voice *v), void *ctx, cm_err *err) {
    bool go = true;
    for (int64_t i = 0; go && i < most && d->n < d->s.cap && !v->ended; i++) {
        int32_t id = 0;
        if (!next_token(d, how, &id, err)) return false;
        d->id[d->n++] = id;
        cm_voice_token(v, id);
        go = each(ctx, v);
    }
    if (!v->ended) cm_voice_finish(v);
    d->answered = true;
    return true;
}
