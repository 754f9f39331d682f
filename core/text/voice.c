/* voice.c -- a model's answer, token by token, as text: stop strings, the end, reasoning. */
#include "text/text.h"

void cm_voice_open(cm_voice *v, const cm_spm *spm, const cm_chat *chat,
                   const char *const *stop, int n_stop) {
    *v = (cm_voice){ .spm = spm, .chat = chat, .eos = cm_spm_eos(spm),
                     .end = cm_spm_id(spm, "<|end|>") };
    cm_stream_open(&v->stream, stop, n_stop);
    cm_buf_add(&v->text, "", 0);
}

void cm_voice_close(cm_voice *v) {
    cm_stream_close(&v->stream);
    cm_buf_free(&v->text);
    *v = (cm_voice){ 0 };
}

static void add_ready(cm_voice *v) {
    if (v->stream.ready.n) cm_buf_add(&v->text, v->stream.ready.s, v->stream.ready.n);
}

/* What a text spells and what the model did stay apart: no stop string reaches over a
 * control token. */
static bool control(cm_voice *v, int32_t id) {
    cm_piece_type type = CM_PIECE_NORMAL;
    const char *name = cm_spm_piece(v->spm, id, NULL, &type);
    if (!v->chat || type != CM_PIECE_CONTROL) return false;
    cm_stream_finish(&v->stream);
    add_ready(v);
    cm_buf_addf(&v->text, "%s", name);
    if (id == v->chat->think) v->thinking = true;
    if (id == v->chat->unthink) {
        v->thinking = false;
        v->thought = true;
        v->reply = v->text.n;
    }
    return true;
}

bool cm_voice_token(cm_voice *v, int32_t id) {
    v->ended = id == v->eos || id == v->end;
    if (v->ended) cm_voice_finish(v);
    if (v->ended || control(v, id)) return v->ended;
    cm_buf bytes = { 0 };
    cm_spm_token_bytes(v->spm, id, &bytes);
    v->ended = v->stopped = cm_stream_push(&v->stream, bytes.s ? bytes.s : "", bytes.n);
    add_ready(v);
    cm_buf_free(&bytes);
    return v->ended;
}

void cm_voice_finish(cm_voice *v) {
    cm_stream_finish(&v->stream);
    add_ready(v);
    v->stream.ready.n = 0;
}

const char *cm_voice_reply(const cm_voice *v) {
    return v->text.s + (v->thinking ? v->text.n : v->reply);
}
