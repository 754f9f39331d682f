/* look.c -- a model looked at: it answers, it is asked for distributions, it is checked. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "panel/panel_int.h"

static const uint64_t STREAM = (uint64_t)1 << 62; /* of draws: no step has this number */

/* ---- answers ------------------------------------------------------------------------- */

static bool go_on(void *ctx, int64_t i) {
    (void)ctx, (void)i;
    return !cm_signal_stop();
}

/* The same draws at every step: what changes is the model. */
static uint64_t seed_of(const cm_panel *p, int64_t doc) {
    cm_rng r = cm_rng_make((uint64_t)p->c->top.seed, CM_RNG_SAMPLE, STREAM);
    return cm_rng_u64(r, (uint64_t)doc);
}

static cm_prompt prompt_of(const cm_panel *p, const cm_panel_item *it) {
    return (cm_prompt){ .token = it->id, .n = (int)it->n_prompt, .max_new = p->max_new,
                        .seed = seed_of(p, it->doc) };
}

static bool answer_prompts(cm_panel *p, const cm_model *m, cm_panel_look *l, cm_err *err) {
    cm_sampling how = { .temperature = p->c->panel.temperature, .top_p = 1, .repeat_penalty = 1 };
    for (int i = 0; i < p->n; i++) {
        l->prompt[i] = prompt_of(p, &p->item[i]);
        l->prompt[i].out = cm_room(p->max_new, sizeof(int32_t));
        cm_voice_open(&l->voice[i], p->spm, &p->chat, NULL, 0);
    }
    if (!cm_generate_voices(m, &how, 0, l->prompt, p->n, l->voice, go_on, NULL, NULL, err))
        return false;
    for (int i = 0; i < p->n; i++) {
        cm_ask a;
        cm_ask_take(&a, &l->prompt[i], &l->voice[i]);
        l->text[i] = (cm_panel_text){
            a.out, a.n_out, a.text, a.bytes, a.ended,
            cm_panel_formed(&p->chat, p->spm, a.out, a.n_out, p->item[i].think)
        };
        l->length[i] = a.n_out;
    }
    return true;
}

/* ---- distributions at the references' tokens ------------------------------------------- */

typedef struct {
    double h, nll, kl;
} position;

/* One reference, from position `at` of all on; *n: how many were done. */
static void read_reference(cm_panel *p, cm_scorer *s, const cm_panel_item *it, int64_t at,
                           float *keep, float *scratch, position *out, int64_t *n) {
    int64_t V = s->m->conf.vocab_size, want = it->n - it->n_prompt;
    if (want > p->positions - at) want = p->positions - at;
    cm_scorer_read(s, it->id, (int)(it->n_prompt + want - 1));
    for (int64_t i = 0; i < want; i += CM_LOGIT_ROWS) {
        int k = want - i < CM_LOGIT_ROWS ? (int)(want - i) : CM_LOGIT_ROWS;
        const cm_real *x = cm_scorer_logits(s, (int)(it->n_prompt - 1 + i), k);
#pragma omp parallel for schedule(static)
        for (int j = 0; j < k; j++) {
            int64_t pos = at + i + j;
            float *logp = keep ? keep + pos * V : scratch + (int64_t)j * V;
            const float *other = keep ? logp : p->logp ? p->logp + pos * V : NULL;
            position *o = &out[pos];
            cm_panel_dist(x + (int64_t)j * V, V, logp, other, &o->h, &o->kl);
            o->nll = -(double)logp[it->id[it->n_prompt + i + j]];
        }
    }
    *n = want;
}

static int longest_of(const cm_panel *p) {
    int64_t longest = 1;
    for (int i = 0; i < p->n; i++)
        if (p->item[i].n > longest) longest = p->item[i].n;
    return (int)longest;
}

static bool distributions(cm_panel *p, const cm_model *m, float *keep, cm_panel_row *r,
                          cm_err *err) {
    int64_t at = 0, V = m->conf.vocab_size;
    cm_scorer s;
    if (!p->positions) return true;
    if (!cm_scorer_open(&s, m, longest_of(p), err)) return false;
    float *scratch = cm_room(keep ? 1 : CM_LOGIT_ROWS * V, sizeof *scratch);
    position *x = cm_room(p->positions, sizeof *x), sum = { 0 };
    for (int i = 0; i < p->n && at < p->positions && !cm_signal_stop(); i++) {
        int64_t n;
        read_reference(p, &s, &p->item[i], at, keep, scratch, x, &n);
        at += n;
    }
    for (int64_t i = 0; i < at; i++)
        sum.h += x[i].h, sum.nll += x[i].nll, sum.kl += x[i].kl;
    r->v[CM_PANEL_ENTROPY] = sum.h / (double)at;
    r->v[CM_PANEL_NLL] = sum.nll / (double)at;
    r->v[CM_PANEL_KL] = sum.kl / (double)at;
    free(x);
    free(scratch);
    cm_scorer_close(&s);
    return true;
}

/* ---- the task's checker ---------------------------------------------------------------- */

static double score_of(cm_panel *p, const cm_question *q) {
    cm_buf detail = { 0 };
    cm_item it = { .task = p->task.name };
    double score = NAN;
    cm_json_open(&detail, NULL, '{');
    p->task.kind->score(&p->task, q, &it, &detail);
    cm_buf_free(&detail);
    for (int i = 0; i < it.n_scores; i++)
        if (!strcmp(it.score[i].metric->name, p->task.primary))
            score = it.score[i].val.num / it.score[i].val.den;
    return score;
}

static bool answer_task(cm_panel *p, const cm_model *m, cm_panel_look *l, cm_err *err) {
    cm_eval_task *t = &p->task;
    double sum = 0;
    if (!p->has_task) return true;
    for (int64_t i = 0; i < t->n; i++) cm_ask_voice(t, &l->task_voice[i]);
    if (!cm_generate_voices(m, &t->how, 0, p->ask, t->n, l->task_voice, go_on, NULL, NULL, err))
        return false;
    if (cm_signal_stop()) return true;
    for (int64_t i = 0; i < t->n; i++) {
        cm_ask_take(t->q[i].ask, &p->ask[i], &l->task_voice[i]);
        l->score[i] = score_of(p, &t->q[i]);
        sum += l->score[i];
    }
    l->row.v[CM_PANEL_ACCURACY] = sum / (double)t->n;
    return true;
}

/* ---- all of it ------------------------------------------------------------------------- */

/* Beside the references, and beside the start model once that is known. */
static void compare(const cm_panel *p, cm_panel_look *l) {
    double *v = l->row.v;
    for (int k = 1; k <= 3; k++)
        v[CM_PANEL_DISTINCT_1_REF + k - 1] = cm_panel_distinct_of(l->text, p->said, p->n, k);
    v[CM_PANEL_LENGTH_REF] = v[CM_PANEL_LENGTH] / p->ref.v[CM_PANEL_LENGTH];
    if (!p->length) return;
    v[CM_PANEL_LENGTH_START] = v[CM_PANEL_LENGTH] / fmax(1, p->begin.v[CM_PANEL_LENGTH]);
    v[CM_PANEL_LONGER] = cm_panel_longer(l->length, p->length, p->n);
    if (p->has_task) v[CM_PANEL_WIN_RATE] = cm_panel_wins(l->score, p->score, (int)p->task.n);
}

bool cm_panel_look_at(cm_panel *p, const cm_model *m, float *keep, cm_panel_look *l,
                      cm_err *err) {
    int64_t items = p->has_task ? p->task.n : 0;
    *l = (cm_panel_look){ .prompt = cm_room(p->n, sizeof *l->prompt),
                          .voice = cm_room(p->n, sizeof *l->voice),
                          .text = cm_room(p->n, sizeof *l->text),
                          .task_voice = cm_room(items, sizeof *l->task_voice),
                          .length = cm_room(p->n, sizeof *l->length),
                          .score = cm_room(items, sizeof *l->score) };
    if (!answer_prompts(p, m, l, err)) return false;
    if (cm_signal_stop()) return true;
    l->row = cm_panel_measure(l->text, p->n);
    if (!distributions(p, m, keep, &l->row, err) || !answer_task(p, m, l, err)) return false;
    if (cm_signal_stop()) return true;
    compare(p, l);
    l->whole = true;
    return true;
}

/* The dearest of the three: each gives its memory back before the next. */
bool cm_panel_look_bytes(const cm_panel *p, const cm_model *m, size_t *bytes, cm_err *err) {
    cm_prompt *ask = cm_room(p->n, sizeof *ask);
    size_t task = 0, read = 0;
    for (int i = 0; i < p->n; i++) ask[i] = prompt_of(p, &p->item[i]);
    bool ok = cm_generate_bytes(m, 0, ask, p->n, bytes, err) &&
              (!p->has_task || cm_generate_bytes(m, 0, p->ask, p->task.n, &task, err)) &&
              (!p->positions || cm_scorer_bytes(m, longest_of(p), &read, err));
    if (p->positions) read += (size_t)(CM_LOGIT_ROWS * m->conf.vocab_size) * sizeof(float);
    if (task > *bytes) *bytes = task;
    if (read > *bytes) *bytes = read;
    free(ask);
    return ok;
}

void cm_panel_look_close(const cm_panel *p, cm_panel_look *l) {
    for (int i = 0; l->voice && i < p->n; i++) {
        cm_voice_close(&l->voice[i]);
        free(l->prompt[i].out);
    }
    for (int64_t i = 0; l->task_voice && p->has_task && i < p->task.n; i++)
        cm_voice_close(&l->task_voice[i]);
    free(l->prompt);
    free(l->voice);
    free(l->text);
    free(l->task_voice);
    free(l->length);
    free(l->score);
    *l = (cm_panel_look){ 0 };
}

/* ---- for people ------------------------------------------------------------------------ */

/* Tokens as text, markers by name. */
static void put_tokens(const cm_panel *p, const char *key, const int32_t *id, int64_t n,
                       cm_buf *b) {
    cm_buf text = { 0 };
    for (int64_t i = 0; i < n; i++) {
        cm_piece_type type = CM_PIECE_NORMAL;
        const char *name = cm_spm_piece(p->spm, id[i], NULL, &type);
        if (type == CM_PIECE_CONTROL) cm_buf_addf(&text, "%s", name);
        else cm_spm_token_bytes(p->spm, id[i], &text);
    }
    cm_json_said(b, key, text.s, text.n);
    cm_buf_free(&text);
}

static void put_prompt(const cm_panel *p, const cm_panel_look *l, int i, cm_buf *b) {
    const cm_panel_item *it = &p->item[i];
    cm_json_open(b, NULL, '{');
    cm_json_i64(b, "doc", it->doc);
    put_tokens(p, "prompt", it->id, it->n_prompt, b);
    cm_json_said(b, "answer", l->text[i].text, l->text[i].bytes);
    put_tokens(p, "reference", it->id + it->n_prompt, it->n - it->n_prompt - 1, b);
    cm_json_i64(b, "tokens", l->text[i].n);
    cm_json_bool(b, "ended", l->text[i].ended);
    cm_json_bool(b, "formed", l->text[i].formed);
    cm_json_close(b, '{');
    cm_buf_add(b, "\n", 1);
}

static void put_item(const cm_panel *p, const cm_panel_look *l, int64_t i, cm_buf *b) {
    const cm_question *q = &p->task.q[i];
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "task", p->task.name);
    cm_json_str(b, "id", q->id);
    cm_json_str(b, "prompt", q->prompt);
    cm_json_said(b, "answer", q->ask->text, q->ask->bytes);
    cm_json_str(b, "reference", q->answer);
    cm_json_f64(b, "score", l->score[i]);
    if (p->score) cm_json_f64(b, "start_score", p->score[i]);
    cm_json_close(b, '{');
    cm_buf_add(b, "\n", 1);
}

bool cm_panel_write(const cm_panel *p, const cm_panel_look *l, const char *path, cm_err *err) {
    cm_out out;
    cm_buf b = { 0 };
    if (!cm_out_open(&out, path, err)) return false;
    bool ok = true;
    int64_t items = p->has_task ? p->task.n : 0;
    for (int64_t i = 0; ok && i < p->n + items; i++) {
        b.n = 0;
        if (i < p->n) put_prompt(p, l, (int)i, &b);
        else put_item(p, l, i - p->n, &b);
        ok = cm_out_write(&out, b.s, b.n, err);
    }
    cm_buf_free(&b);
    if (ok) return cm_out_commit(&out, err);
    cm_out_abort(&out);
    return false;
}
