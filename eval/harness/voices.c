/* voices.c -- generations with the texts they become, and a task's asks as such. */
#include <stdlib.h>

#include "harness/task_int.h"

typedef struct {
    cm_voice *voice;
    cm_done_fn done;
    void *ctx;
} speakers;

static bool ends_here(void *ctx, int64_t i, const cm_prompt *p) {
    const speakers *s = ctx;
    return cm_voice_token(&s->voice[i], p->out[p->n_out - 1]);
}

static bool finished(void *ctx, int64_t i) {
    const speakers *s = ctx;
    if (!s->voice[i].ended) cm_voice_finish(&s->voice[i]);
    return !s->done || s->done(s->ctx, i);
}

bool cm_generate_voices(const cm_model *m, const cm_sampling *how, int batch, cm_prompt *p,
                        int64_t n, cm_voice *voice, cm_done_fn done, void *ctx,
                        cm_engine_count *count, cm_err *err) {
    speakers s = { voice, done, ctx };
    return cm_generate(m, how, batch, p, n, ends_here, finished, &s, count, err);
}

/* Draws of an item follow from the two seeds and from what it is, not from its place. */
static uint64_t seed_of(const cm_eval_task *t, const cm_question *q) {
    char key[17];
    cm_item_hash((const char *const[]){ q->id, q->hash }, 2, key);
    cm_rng r = cm_rng_make((uint64_t)t->c->seed, CM_RNG_SAMPLE, (uint64_t)t->eval->seed);
    return cm_rng_u64(r, strtoull(key, NULL, 16));
}

cm_prompt cm_ask_prompt(cm_eval_task *t, const cm_question *q, const cm_ask *a) {
    return (cm_prompt){ .token = a->token, .n = a->n, .max_new = a->max_new,
                        .seed = seed_of(t, q),
                        .out = cm_pool_get(&t->pool, (size_t)a->max_new * sizeof(int32_t)) };
}

void cm_ask_voice(const cm_eval_task *t, cm_voice *v) {
    cm_voice_open(v, t->model->spm, t->chat && t->in->chat_open ? &t->in->chat : NULL,
                  t->c->stop.v, t->c->stop.n);
}

void cm_ask_take(cm_ask *a, const cm_prompt *p, const cm_voice *v) {
    a->out = p->out;
    a->n_out = p->n_out;
    a->ended = v->ended;
    int32_t last = a->n_out ? a->out[a->n_out - 1] : -1;
    if (a->n_out && (last == v->eos || last == v->end)) a->n_out--;
    a->text = v->text.s;
    a->bytes = v->text.n;
    a->reply = cm_voice_reply(v);
    a->thought = v->thought;
    a->open = v->thinking;
}

void cm_json_said(cm_buf *b, const char *key, const char *s, size_t n) {
    cm_buf text = { 0 };
    cm_buf_add(&text, s, n);
    for (size_t i = 0; i < n; i++)
        if (!text.s[i]) text.s[i] = '\xFF';
    cm_json_str(b, key, text.s);
    cm_buf_free(&text);
}
