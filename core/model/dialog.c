/* dialog.c -- a conversation with a model: turns in, answers out, nothing read twice. */
#include "model/model.h"
#include "run/run.h"

#include <stdlib.h>

bool cm_dialog_open(cm_dialog *d, const cm_model *m, const cm_spm *spm,
                    const cm_guessing *how, int cap, cm_dtype kv, cm_err *err) {
    *d = (cm_dialog){ .spm = spm };
    if (!cm_chat_open(&d->chat, spm, err) || !cm_decoder_open(&d->dec, m, how, cap, kv, err))
        return false;
    d->id = malloc(((size_t)cap + 1) * sizeof *d->id);
    CM_ASSERT(d->id, "out of memory: a conversation of %d tokens", cap);
    return true;
}

void cm_dialog_close(cm_dialog *d) {
    cm_decoder_close(&d->dec);
    free(d->id);
    *d = (cm_dialog){ 0 };
}

void cm_dialog_reset(cm_dialog *d) {
    cm_decoder_reset(&d->dec);
    d->n = d->draws = 0;
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
    if (ok && need >= d->dec.s.cap)
        ok = cm_fail(err, CM_EXIT_USAGE, "the conversation needs %lld tokens and more to be "
                     "answered, but there is room for %d", (long long)need, d->dec.s.cap);
    if (ok) close_answer(d);
    for (int64_t i = skip; ok && i < x.n; i++) d->id[d->n++] = x.id[i];
    cm_chat_ids_free(&x);
    return ok;
}

bool cm_dialog_answer(cm_dialog *d, const cm_sampling *how, int64_t most, cm_voice *v,
                      bool (*each)(void *ctx, const cm_voice *v), void *ctx, cm_err *err) {
    bool go = true;
    int64_t cap = d->dec.s.cap;
    if (most > cap - d->n) most = cap - d->n;
    for (int64_t i = 0; go && i < most && !v->ended; i++) {
        int32_t id = 0;
        if (!cm_decoder_next(&d->dec, how, d->id, d->n, most - i, (uint64_t)d->draws++, &id, err)) {
            if (!cm_signal_ended(err)) return false;
            break;
        }
        d->id[d->n++] = id;
        cm_voice_token(v, id);
        go = each(ctx, v);
    }
    if (!v->ended) cm_voice_finish(v);
    d->answered = true;
    return true;
}
