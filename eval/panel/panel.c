/* panel.c -- the panel's life in a run: opened, prepared, asked at each validation. */
#include "panel/panel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "panel/panel_int.h"

enum { MORE = 16 };

/* ---- opening ------------------------------------------------------------------------- */

static bool read_item(cm_panel *p, int64_t doc, cm_panel_item *it, cm_err *err) {
    const cm_dataset *d = p->val->data;
    int64_t start, bytes;
    int32_t *prompt = cm_pack_prompt(p->val, doc, 0, &it->n_prompt, err);
    free(prompt);
    if (!prompt || !cm_dataset_doc(d, CM_SPLIT_VAL, doc, &start, &it->n, &bytes, err))
        return false;
    it->doc = doc;
    it->id = cm_room(it->n, sizeof *it->id);
    if (!cm_dataset_read(d, CM_SPLIT_VAL, start, it->n, it->id, NULL, err)) return false;
    while (it->n > it->n_prompt && it->id[it->n - 1] != p->chat.end) it->n--;
    if (it->n_prompt < 1 || it->n <= it->n_prompt)
        return cm_fail(err, CM_EXIT_DATA, "%s: validation document %lld asks nothing or is not "
                       "answered", d->dir, (long long)doc);
    it->think = it->id[it->n_prompt] == p->chat.think;
    return true;
}

static bool read_items(cm_panel *p, int64_t units, cm_err *err) {
    int64_t longest = 0, total = 0;
    p->item = cm_room(p->n, sizeof *p->item);
    for (int i = 0; i < p->n; i++) {
        cm_panel_item *it = &p->item[i];
        if (!read_item(p, i * units / p->n * p->val->docs, it, err)) return false;
        int64_t n = it->n - it->n_prompt;
        longest = n > longest ? n : longest;
        total += n;
    }
    const cm_panel_conf *c = &p->c->panel;
    p->max_new = c->max_tokens ? (int)c->max_tokens : (int)(2 * longest + MORE);
    p->positions = c->kl_tokens < total ? c->kl_tokens : total;
    return true;
}

/* The references as if they had been said. */
static void measure_references(cm_panel *p) {
    cm_panel_text *t = p->said = cm_room(p->n, sizeof *t);
    cm_voice *v = cm_room(p->n, sizeof *v);
    for (int i = 0; i < p->n; i++) {
        const cm_panel_item *it = &p->item[i];
        cm_voice_open(&v[i], p->spm, &p->chat, NULL, 0);
        for (int64_t k = it->n_prompt; k < it->n; k++) cm_voice_token(&v[i], it->id[k]);
        t[i] = (cm_panel_text){ it->id + it->n_prompt, it->n - it->n_prompt - 1, v[i].text.s,
                                v[i].text.n, true,
                                cm_panel_formed(&p->chat, p->spm, it->id + it->n_prompt,
                                                it->n - it->n_prompt - 1, it->think) };
    }
    p->ref = cm_panel_measure(t, p->n);
    for (int i = 0; i < p->n; i++) {
        cm_voice_close(&v[i]);
        t[i].text = NULL;
    }
    free(v);
}

static bool open_task(cm_panel *p, cm_err *err) {
    const cm_panel_conf *c = &p->c->panel;
    if (!*c->task) return true;
    p->eval.eval.data = c->data;
    p->eval.eval.limit = c->items;
    if (!cm_task_open(&p->task, c->task, &p->eval.eval, err)) return false;
    p->has_task = true;
    if (strcmp(p->task.kind->name, "generate") != 0)
        return cm_conf_bad(p->c, err, "panel.task", "%s is of kind %s, wanted generate: only "
                           "there a model says something", c->task, p->task.kind->name);
    if (!cm_task_build(&p->task, p->start, err)) return false;
    p->ask = cm_room(p->task.n, sizeof *p->ask);
    for (int64_t i = 0; i < p->task.n; i++)
        p->ask[i] = cm_ask_prompt(&p->task, &p->task.q[i], p->task.q[i].ask);
    return true;
}

/* Does the trainer hold the start model's matrices in bf16? */
static bool narrow(const cm_conf *c) {
    return c->lora.rank > 0 && c->lora.base == CM_BASE_BF16;
}

/* Whatever the start model's numbers follow from. */
static void name_start(cm_panel *p) {
    const cm_panel_conf *c = &p->c->panel;
    cm_buf b = { 0 };
    cm_buf_addf(&b, "%s %s %d %d %.17g %lld %lld %s %s", p->start->id, p->val->data->id, p->n,
                p->max_new, c->temperature, (long long)p->positions,
                (long long)p->c->top.seed, cm_conf_word_of(p->c, "numerics"),
                cm_level_name(cm_kern_level()));
    if (narrow(p->c)) cm_buf_addf(&b, " bf16");
    for (int i = 0; i < p->n; i++) cm_buf_addf(&b, " %lld", (long long)p->item[i].doc);
    for (int64_t i = 0; p->has_task && i < p->task.n; i++)
        cm_buf_addf(&b, "%s%s %s", i ? " " : p->task.definition, p->task.q[i].id,
                    p->task.q[i].hash);
    cm_sha_bytes(b.s, b.n, p->fingerprint);
    cm_buf_free(&b);
}

/* Thresholds that could only be mistakes. */
static bool check_keys(const cm_conf *c, cm_err *err) {
    const cm_panel_conf *k = &c->panel;
    if (k->max_drift > 0 && k->max_drift < 1)
        return cm_conf_bad(c, err, "panel.max_drift", "%g would always alarm: lengths may be "
                           "so many times the start model's, so at least 1, or 0 for off",
                           k->max_drift);
    if (k->max_length > 0 && k->min_length > k->max_length)
        return cm_conf_bad(c, err, "panel.min_length", "%g is above panel.max_length = %g: every "
                           "length would alarm", k->min_length, k->max_length);
    return true;
}

/* Would the references themselves not end within panel.max_tokens? */
static bool check_room(const cm_panel *p, cm_err *err) {
    const cm_panel_conf *k = &p->c->panel;
    int longer = 0;
    for (int i = 0; i < p->n; i++) longer += p->item[i].n - p->item[i].n_prompt > p->max_new;
    double share = (double)longer / p->n;
    if (!(k->max_unended > 0 && share > k->max_unended)) return true;
    return cm_conf_bad(p->c, err, "panel.max_tokens", "%d is too short for %.0f %% of the "
                       "references, so answers like them would alarm (panel.max_unended = %g); "
                       "0 leaves room for all", p->max_new, 100 * share, k->max_unended);
}

static void tell_no_panel(const cm_panel_conf *k) {
    cm_log(CM_LOG_WARN, "no validation split, or all of it left out: no panel%s%s", *k->task
           ? ", panel.task is not asked" : "", k->stop ? ", panel.stop has no effect" : "");
}

/* Alarms need answers. */
static void tell_few(const cm_panel *p) {
    if (p->n < CM_PANEL_FEW)
        cm_log(CM_LOG_WARN, "the panel has %d prompts, alarms need %d: %s numbers only%s", p->n,
               CM_PANEL_FEW, p->has_task && p->task.n >= CM_PANEL_FEW ? "but for the task," :
               "there will be", p->c->panel.stop ? ", panel.stop is without effect" : "");
    if (p->has_task && p->task.n < CM_PANEL_FEW)
        cm_log(CM_LOG_WARN, "panel.task has %lld items, alarms need %d: no alarm for it",
               (long long)p->task.n, CM_PANEL_FEW);
}

bool cm_panel_open(cm_panel **out, const cm_conf *c, const cm_pack *val,
                   const cm_loaded *start, cm_err *err) {
    int64_t units = val->data->n_docs[CM_SPLIT_VAL] / val->docs;
    *out = NULL;
    if (!check_keys(c, err)) return false;
    if (c->panel.prompts && !val->rows) tell_no_panel(&c->panel);
    if (!c->panel.prompts || !val->rows) return true; /* it looks where val/loss is taken */
    cm_panel *p = *out = cm_room(1, sizeof *p);
    *p = (cm_panel){ .c = c, .val = val, .start = start, .spm = start->spm,
                     .dpo = val->docs == 2 };
    p->n = (int)(c->panel.prompts < units ? c->panel.prompts : units);
    cm_conf_open(&p->eval, NULL);
    bool ok = cm_chat_open(&p->chat, p->spm, err) && read_items(p, units, err) &&
              check_room(p, err) && open_task(p, err);
    if (ok) {
        tell_few(p);
        measure_references(p);
        name_start(p);
        return true;
    }
    cm_panel_close(p);
    *out = NULL;
    return false;
}

void cm_panel_close(cm_panel *p) {
    if (!p) return;
    for (int i = 0; p->item && i < p->n; i++) free(p->item[i].id);
    if (p->has_task) cm_task_close(&p->task);
    if (p->length) cm_st_close(&p->kept);
    cm_conf_close(&p->eval);
    free(p->item);
    free(p->ask);
    free(p->said);
    free(p->length);
    free(p->score);
    free(p);
}

/* ---- the start model ------------------------------------------------------------------- */

/* Its distributions: on the heap until they are written, then mapped. */
static size_t kept_bytes(const cm_panel *p, const cm_model *m) {
    return (size_t)(p->positions * m->conf.vocab_size) * sizeof(float);
}

bool cm_panel_bytes(const cm_panel *p, const cm_model *m, size_t *bytes, cm_err *err) {
    *bytes = 0;
    if (!p) return true;
    bool ok = cm_panel_look_bytes(p, m, bytes, err);
    *bytes += kept_bytes(p, m);
    return ok;
}

/* Measure it, keep the numbers, and work with them as they were kept. */
static bool measure_start(cm_panel *p, const cm_model *m, cm_err *err) {
    char *path = cm_run_path(p->run, "panel/start.safetensors");
    cm_panel_look look;
    cm_buf why = { 0 };
    float *logp = cm_room(p->positions * m->conf.vocab_size, sizeof *logp);
    bool ok = cm_panel_look_at(p, m, logp, &look, err);
    if (ok && look.whole) {
        ok = cm_panel_keep(p, &look, logp, path, err);
        if (ok && !cm_panel_kept(p, path, &why))
            ok = cm_fail(err, CM_EXIT_DATA, "%s: written, but %s", path,
                         why.n ? why.s : "it is gone");
    }
    cm_panel_look_close(p, &look);
    cm_buf_free(&why);
    free(logp);
    free(path);
    return ok;
}

static bool load_and_measure(cm_panel *p, cm_err *err) {
    cm_loaded l;
    unsigned how = CM_LOAD_UNNAMED | (narrow(p->c) ? CM_LOAD_BF16 : 0);
    if (!cm_load(&l, p->start->path, how, err)) return false;
    bool ok = measure_start(p, &l.model, err);
    cm_loaded_close(&l);
    return ok;
}

static void tell_start(const cm_panel *p) {
    const double *s = p->begin.v, *r = p->ref.v;
    cm_log(CM_LOG_INFO, "panel: %d held-out prompts; references: %.1f tokens, distinct-2 %.3f; "
           "the start model: %.1f tokens, distinct-2 %.3f, %.0f %% unended", p->n,
           r[CM_PANEL_LENGTH], r[CM_PANEL_DISTINCT_2], s[CM_PANEL_LENGTH],
           s[CM_PANEL_DISTINCT_2], 100 * s[CM_PANEL_UNENDED]);
}

/* A fresh run's own memory will hold the start model soon; one that goes on holds another. */
bool cm_panel_prepare(cm_panel *p, cm_run *run, cm_err *err) {
    if (!p || !run) return true;
    char *dir = cm_run_path(run, "panel"), *path = cm_strf("%s/start.safetensors", dir);
    cm_buf why = { 0 };
    p->run = run;
    bool ok = cm_mkdirs(dir, err), kept = ok && cm_panel_kept(p, path, &why);
    if (why.n) cm_log(CM_LOG_WARN, "%s: %s; the start model is measured again", path, why.s);
    if (ok && !kept && run->resumed) ok = load_and_measure(p, err);
    if (ok && p->length) tell_start(p);
    cm_buf_free(&why);
    free(path);
    free(dir);
    return ok;
}

bool cm_panel_begin(cm_panel *p, const cm_model *m, cm_err *err) {
    if (!p || !p->run || p->length) return true;
    bool ok = measure_start(p, m, err);
    if (ok && p->length) tell_start(p);
    return ok;
}

/* ---- at a validation --------------------------------------------------------------------- */

static void put_row(const cm_panel_row *r, int alarms, double seconds, cm_buf *row) {
    char key[64];
    for (int i = 0; i < CM_PANEL_N; i++) {
        if (isnan(r->v[i])) continue;
        snprintf(key, sizeof key, "panel/%s", cm_panel_names[i]);
        cm_json_f64(row, key, r->v[i]);
    }
    cm_json_i64(row, "panel/alarms", alarms);
    cm_json_f64(row, "panel/seconds", seconds);
}

static void tell(cm_panel *p, const cm_panel_alarm *a, int n, int64_t step) {
    const cm_panel_alarm *of[CM_PANEL_N] = { NULL };
    cm_err err;
    if (!p->told_known) cm_told_load(p->run, "panel", step, p->told, CM_PANEL_N);
    p->told_known = true;
    for (int i = 0; i < n; i++) {
        int m = a[i].measure;
        if (!a[i].from_start) of[m] = &a[i];
        else if (!p->noted[m])
            cm_log(CM_LOG_INFO, "step %lld: panel: %s", (long long)step, a[i].text);
        p->noted[m] |= a[i].from_start;
    }
    for (int m = 0; m < CM_PANEL_N; m++) {
        if (!cm_told(&p->told[m], of[m], CM_CALM)) continue;
        cm_log(CM_LOG_WARN, "step %lld: %s", (long long)step, of[m]->text);
        if (!cm_run_event(p->run, "panel", (uint64_t)step, &err, "%s: %s",
                          cm_panel_names[m], of[m]->text))
            cm_log(CM_LOG_WARN, "%s", err.msg);
    }
    cm_told_save(p->run, "panel", step, p->told, CM_PANEL_N);
}

static void tell_row(const cm_panel *p, const cm_panel_row *r, int64_t step) {
    char checked[96] = "", kl[48] = "";
    const double *v = r->v;
    if (!isnan(v[CM_PANEL_KL])) snprintf(kl, sizeof kl, ", kl %.3g", v[CM_PANEL_KL]);
    if (!isnan(v[CM_PANEL_ACCURACY]))
        snprintf(checked, sizeof checked, ", %s %.3g, win rate %.3g", p->task.primary,
                 v[CM_PANEL_ACCURACY], v[CM_PANEL_WIN_RATE]);
    cm_log(CM_LOG_INFO, "step %lld: panel: distinct-2 %.3f, %.1f tokens, %.0f %% unended, "
           "form %.0f %%%s%s", (long long)step, v[CM_PANEL_DISTINCT_2],
           v[CM_PANEL_LENGTH], 100 * v[CM_PANEL_UNENDED], 100 * v[CM_PANEL_FORMAT],
           kl, checked);
}

/* Answers are for people: that they cannot be written does not end the training. */
static void write_answers(const cm_panel *p, const cm_panel_look *l, int64_t step) {
    char *dir = cm_run_path(p->run, "panel");
    char *path = cm_strf("%s/step-%08lld.jsonl", dir, (long long)step);
    cm_err err;
    if (!cm_mkdirs(dir, &err) || !cm_panel_write(p, l, path, &err))
        cm_log(CM_LOG_WARN, "%s; the answers of step %lld are not kept", err.msg,
               (long long)step);
    free(path);
    free(dir);
}

/* Alarms of a row, and how many of them are training's. */
static int judge(const cm_panel *p, const cm_panel_row *now, int64_t step,
                 cm_panel_alarm *alarm, int *n) {
    const cm_panel_view v = { now, &p->ref, &p->begin, p->n,
                              p->has_task ? (int)p->task.n : 0, p->dpo };
    int own = 0;
    *n = step < p->c->panel.after ? 0 : cm_panel_judge(&p->c->panel, &v, alarm);
    for (int i = 0; i < *n; i++) own += !alarm[i].from_start;
    return own;
}

static void end_run(const cm_panel_alarm *a, int64_t step, cm_err *err) {
    while (a->from_start) a++;
    cm_fail(err, CM_EXIT_CHECK, "step %lld: %s (panel.stop)", (long long)step, a->text);
}

bool cm_panel_watch(cm_panel *p, const cm_model *m, int64_t step, cm_buf *row, bool *stop,
                    cm_err *err) {
    if (!p || !p->run || !p->length) return true;
    cm_panel_look l;
    cm_panel_alarm alarm[CM_PANEL_N];
    double begin = cm_now();
    bool ok = cm_panel_look_at(p, m, NULL, &l, err);
    if (ok && l.whole) {
        int n, own = judge(p, &l.row, step, alarm, &n);
        put_row(&l.row, own, cm_now() - begin, row);
        write_answers(p, &l, step);
        tell_row(p, &l.row, step);
        tell(p, alarm, n, step);
        *stop = own && p->c->panel.stop;
        if (*stop) end_run(alarm, step, err);
    }
    cm_panel_look_close(p, &l);
    return ok;
}
