/* run_ask.c -- a task's requests through the engine; each question scored when its last
 * answer is there. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/run_int.h"

typedef struct asker {
    cm_eval_run *run;
    cm_results_out *out;
    cm_eval_task *t;
    int task;
    int *left;      /* [t->n] answers a question still waits for; -1: it is done */
    int64_t *order; /* [t->n] questions as they are asked */
    int64_t *of;    /* [n requests] question of each */
    cm_ask **ask;   /* [n requests] */
    cm_request *request;
    cm_prompt *prompt;
    cm_voice *voice; /* of generations in the making */
    int64_t first;        /* request that the engine's request 0 is */
    double tokens;        /* answered, all tasks together */
    cm_progress *progress;
    cm_err *err;
    bool failed;
} asker;

static bool fail(asker *a) {
    a->failed = true;
    return false;
}

/* ---- one question -------------------------------------------------------------------- */

static bool finite_answers(asker *a, const cm_question *q) {
    for (int i = 0; i < q->n_asks; i++)
        for (int j = 0; j < q->ask[i].n - q->ask[i].first && !q->ask[i].max_new; j++)
            if (!isfinite(q->ask[i].logp[j]))
                return cm_fail(a->err, CM_EXIT_DATA, "%s: task %s, item '%s': " CM_EVAL_BROKEN,
                               a->run->model_path, a->t->name, q->id);
    return true;
}

/* Member "asks" of an item's detail (eval.tokens): what the model read and answered. */
static void put_asks(cm_buf *d, const cm_question *q) {
    cm_json_open(d, "asks", '[');
    for (int i = 0; i < q->n_asks; i++) {
        const cm_ask *a = &q->ask[i];
        cm_json_open(d, NULL, '{');
        cm_json_open(d, "token", '[');
        for (int j = 0; j < a->n; j++) cm_json_i64(d, NULL, a->token[j]);
        cm_json_close(d, '[');
        if (a->max_new) {
            cm_json_i64(d, "max_new", a->max_new);
            cm_json_open(d, "out", '[');
            for (int j = 0; j < a->n_out; j++) cm_json_i64(d, NULL, a->out[j]);
        } else {
            cm_json_i64(d, "first", a->first);
            cm_json_open(d, "logp", '[');
            for (int j = 0; j < a->n - a->first; j++) cm_json_f64(d, NULL, a->logp[j]);
        }
        cm_json_close(d, '[');
        cm_json_close(d, '{');
    }
    cm_json_close(d, '[');
}

static bool settle(asker *a, int64_t k) {
    const cm_question *q = &a->t->q[k];
    if (!finite_answers(a, q)) return fail(a);
    cm_buf detail = { 0 };
    cm_item it = { .task = a->t->name, .id = q->id, .group = q->group };
    memcpy(it.hash, q->hash, sizeof it.hash);
    cm_json_open(&detail, NULL, '{');
    a->t->kind->score(a->t, q, &it, &detail);
    int cut = 0;
    for (int i = 0; i < q->n_asks; i++) cut = q->ask[i].cut > cut ? q->ask[i].cut : cut;
    if (cut) cm_json_i64(&detail, "cut", cut);
    if (a->run->app->conf.eval.tokens) put_asks(&detail, q);
    if (a->t->overlap) cm_overlap_json(&detail, &a->t->overlap[k]);
    cm_json_close(&detail, '{');
    it.detail = detail.s;
    bool ok = cm_results_add(a->out, a->task, k, &it, a->err);
    cm_buf_free(&detail);
    a->left[k] = -1;
    if (!ok) return fail(a);
    return true;
}

static double tokens_of(const cm_ask *q) { return q->n + q->max_new; }

static bool answered(asker *a, int64_t request) {
    int64_t k = a->of[request];
    a->tokens += tokens_of(a->ask[request]);
    cm_progress_show(a->progress, a->tokens, "task=%s", a->t->name);
    bool ok = --a->left[k] > 0 || settle(a, k);
    return ok && !cm_signal_stop();
}

/* ---- scoring ------------------------------------------------------------------------- */

static bool scored(void *ctx, int64_t i) {
    asker *a = ctx;
    return answered(a, a->first + i);
}

static cm_engine_conf engine_conf(const asker *a) {
    const cm_eval_conf *e = &a->run->app->conf.eval;
    return (cm_engine_conf){ .batch = (int)e->batch, .alone = !e->reuse };
}

enum { SLICE = 64 }; /* requests asked together where they come in order */

static bool score_all(asker *a, int64_t n, cm_engine_count *count) {
    cm_pool *p = &a->t->pool;
    for (int64_t i = 0; i < n; i++) {
        cm_ask *q = a->ask[i];
        size_t k = (size_t)(q->n - q->first);
        q->logp = cm_pool_get(p, k * sizeof *q->logp);
        q->greedy = cm_pool_get(p, k * sizeof *q->greedy);
        a->request[i] = (cm_request){ q->token, q->n, q->first, q->logp, q->greedy };
    }
    cm_engine_conf conf = engine_conf(a);
    bool ok = true;
    for (a->first = 0; ok && a->first < n && !cm_signal_stop();) {
        int64_t part = a->t->kind->in_order && n - a->first > SLICE ? SLICE : n - a->first;
        ok = cm_engine_score(&a->run->model->model, &conf, a->request + a->first, part, scored,
                             a, count, a->err);
        a->first += part;
    }
    return ok || cm_signal_stop();
}

/* ---- generating ---------------------------------------------------------------------- */

static bool generated(void *ctx, int64_t i) {
    asker *a = ctx;
    cm_voice *v = &a->voice[i];
    cm_ask *q = a->ask[i];
    cm_ask_take(q, &a->prompt[i], v);
    size_t skip = (size_t)(q->reply - q->text);
    q->text = cm_pool_text(&a->t->pool, v->text.s, v->text.n);
    q->reply = q->text + skip;
    cm_voice_close(v);
    return answered(a, i);
}

static bool generate_all(asker *a, int64_t n, cm_engine_count *count) {
    const cm_eval_conf *e = &a->run->app->conf.eval;
    for (int64_t i = 0; i < n; i++) {
        a->prompt[i] = cm_ask_prompt(a->t, &a->t->q[a->of[i]], a->ask[i]);
        cm_ask_voice(a->t, &a->voice[i]);
    }
    cm_err why = { 0 };
    bool ok = cm_generate_voices(&a->run->model->model, &a->t->how, (int)e->batch, a->prompt, n,
                                 a->voice, generated, a, count, &why) ||
              cm_signal_stop() ||
              cm_fail(a->err, why.code, "%s: task %s: %s", a->run->model_path, a->t->name, why.msg);
    for (int64_t i = 0; i < n; i++) cm_voice_close(&a->voice[i]);
    return ok;
}

/* ---- a task -------------------------------------------------------------------------- */

/* The order in which questions are asked (eval.order_seed). */
static int64_t *make_order(const asker *a) {
    uint64_t seed = (uint64_t)a->run->app->conf.eval.order_seed;
    cm_rng r = cm_rng_make(seed, CM_RNG_SHUFFLE, (uint64_t)a->task);
    int64_t n = a->t->n, *order = cm_room(n, sizeof *order);
    for (int64_t k = 0; k < n; k++) {
        int64_t at = seed ? (int64_t)cm_rng_below(r, (uint64_t)k, (uint64_t)k + 1) : k;
        order[k] = order[at];
        order[at] = k;
    }
    return order;
}

/* The open questions' asks of one sort, into ask and of. */
static int64_t collect(asker *a, bool generations) {
    int64_t n = 0;
    for (int64_t j = 0; j < a->t->n; j++) {
        int64_t k = a->order[j];
        for (int i = 0; a->left[k] > 0 && i < a->t->q[k].n_asks; i++)
            if ((a->t->q[k].ask[i].max_new > 0) == generations) {
                a->ask[n] = &a->t->q[k].ask[i];
                a->of[n++] = k;
            }
    }
    return n;
}

static bool ask_task(asker *a, cm_engine_count *count) {
    int64_t asks = 0;
    bool ok = true;
    a->left = cm_room(a->t->n, sizeof *a->left);
    a->order = make_order(a);
    for (int64_t j = 0; ok && j < a->t->n && !cm_signal_stop(); j++) {
        int64_t k = a->order[j];
        const cm_question *q = &a->t->q[k];
        a->left[k] = cm_results_has(a->out, a->task, k) ? -1 : q->n_asks;
        if (a->left[k] > 0) asks += q->n_asks;
        if (a->left[k] == 0) ok = settle(a, k); /* nothing to ask: scored from what it is */
    }
    a->ask = cm_room(asks, sizeof(cm_ask *));
    a->of = cm_room(asks, sizeof *a->of);
    a->request = cm_room(asks, sizeof *a->request);
    a->prompt = cm_room(asks, sizeof *a->prompt);
    a->voice = cm_room(asks, sizeof *a->voice);
    int64_t n = ok ? collect(a, false) : 0;
    ok = ok && (!n || score_all(a, n, count)) && !a->failed;
    n = ok && !cm_signal_stop() ? collect(a, true) : 0;
    ok = ok && (!n || generate_all(a, n, count)) && !a->failed;
    free(a->left);
    free(a->order);
    free(a->ask);
    free(a->of);
    free(a->request);
    free(a->prompt);
    free(a->voice);
    return ok;
}

bool cm_run_ask(cm_eval_run *r, cm_results_out *o, cm_engine_count *count, cm_err *err) {
    cm_progress progress;
    double all = 0, left = 0;
    for (int i = 0; i < r->n_tasks; i++)
        for (int64_t k = 0; k < r->task[i].n; k++)
            for (int q = 0; q < r->task[i].q[k].n_asks; q++) {
                double n = tokens_of(&r->task[i].q[k].ask[q]);
                all += n;
                if (!cm_results_has(o, i, k)) left += n;
            }
    cm_progress_open(&progress, "eval", "tok", all, 5, r->app->progress, NULL);
    cm_progress_show(&progress, all - left, "task=%s", r->task[0].name);
    asker a = { .run = r, .out = o, .tokens = all - left, .progress = &progress, .err = err };
    bool ok = true;
    for (int i = 0; ok && i < r->n_tasks && !cm_signal_stop(); i++) {
        a.t = &r->task[i];
        a.task = i;
        ok = ask_task(&a, count);
    }
    cm_progress_close(&progress);
    return ok;
}
