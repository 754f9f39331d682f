/* run.c -- an evaluation: questions asked, answers scored, a result folder left behind. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/run_int.h"

/* ---- tasks by name ------------------------------------------------------------------- */

bool cm_tasks_open(const char *const *words, int n, const cm_eval_conf *eval,
                   cm_eval_task **task, int *n_tasks, cm_err *err) {
    *n_tasks = 0;
    bool ok = true;
    size_t most = (size_t)n + 1;
    for (int i = 0; i < n; i++)
        for (const char *p = words[i]; *p; p++) most += *p == ',';
    *task = calloc(most, sizeof **task); /* an open task points into itself: no moving */
    CM_ASSERT(*task, "out of memory: tasks");
    for (int i = 0; ok && i < n; i++) {
        char *copy = cm_strf("%s", words[i]), *rest = copy;
        for (char *name; ok && (name = strsep(&rest, ","));) {
            if (!*name) continue;
            cm_eval_task *t = &(*task)[*n_tasks];
            ok = cm_task_open(t, name, eval, err);
            *n_tasks += ok;
            for (int k = 0; ok && k < *n_tasks - 1; k++)
                if (!strcmp((*task)[k].name, t->name))
                    ok = cm_fail(err, CM_EXIT_USAGE, "task '%s' is asked for twice", t->name);
        }
        free(copy);
    }
    if (ok && !*n_tasks) ok = cm_fail(err, CM_EXIT_USAGE, "--tasks names no task");
    if (!ok) {
        cm_tasks_close(*task, *n_tasks);
        *task = NULL;
        *n_tasks = 0;
    }
    return ok;
}

void cm_tasks_close(cm_eval_task *task, int n) {
    for (int i = 0; i < n; i++) cm_task_close(&task[i]);
    free(task);
}

bool cm_run_build(cm_eval_run *r, cm_err *err) {
    for (int i = 0; i < r->n_tasks; i++) {
        cm_eval_task *t = &r->task[i];
        if (!cm_task_build(t, r->model, err)) return false;
        int64_t cut = 0;
        for (int64_t k = 0; k < t->n; k++)
            for (int a = 0; a < t->q[k].n_asks; a++)
                if (t->q[k].ask[a].cut) {
                    cut++;
                    break;
                }
        if (cut)
            cm_log(CM_LOG_WARN, "%s: %lld of %lld items are longer than the context of %d "
                   "tokens and were cut from the left", t->name, (long long)cut,
                   (long long)t->n, t->context);
    }
    return true;
}

/* ---- the folder ---------------------------------------------------------------------- */

/* The run a checkpoint lies in: the nearest folder above with a run.json; free(). */
static char *run_folder(const char *model) {
    char *path = realpath(model, NULL);
    for (char *slash; path; *slash = 0) {
        char *mark = cm_strf("%s/run.json", path);
        bool here = cm_exists(mark);
        free(mark);
        slash = strrchr(path, '/');
        if (here) return path;
        if (!slash || slash == path) break;
    }
    free(path);
    return NULL;
}

/* Task names with + between them; many, or long ones, by the first and a hash. */
static char *suite_name(const cm_eval_run *r) {
    cm_buf b = { 0 };
    for (int i = 0; i < r->n_tasks; i++)
        cm_buf_addf(&b, "%s%s", i ? "+" : "", r->task[i].name);
    if (b.n > 60) {
        char hex[65];
        cm_sha_bytes(b.s, b.n, hex);
        b.n = 0;
        cm_buf_addf(&b, "%.40s+%d-%.8s", r->task[0].name, r->n_tasks - 1, hex);
    }
    for (size_t i = 0; i < b.n; i++)
        if (b.s[i] == '/') b.s[i] = '-';
    return b.s;
}

/* Keys that can change a number: results.json's config.  context: the tasks', or as asked. */
static void config_members(const cm_eval_run *r, const cm_eval_conf *e, int64_t context,
                           cm_buf *b) {
    cm_json_i64(b, "eval.context", context);
    cm_json_i64(b, "eval.stride", e->stride);
    cm_json_i64(b, "eval.limit", e->limit);
    cm_json_i64(b, "eval.shots", e->shots);
    cm_json_bool(b, "eval.chat", e->chat);
    cm_json_f64(b, "eval.temperature", e->temperature);
    cm_json_i64(b, "eval.seed", e->seed);
    cm_json_bool(b, "eval.tokens", e->tokens);
    if (!r->n_corpus) return;
    cm_json_open(b, "contamination", '[');
    for (int i = 0; i < r->n_corpus; i++) cm_json_str(b, NULL, r->corpus[i]);
    cm_json_close(b, '[');
    cm_json_i64(b, "eval.contamination_words", e->contamination_words);
    cm_json_i64(b, "eval.contamination_least", e->contamination_least);
}

/* "" where all of these keys have their defaults, else "-" and digits of their hash, so that
 * evaluations with other settings lie beside each other; free(). */
static char *settings_mark(const cm_eval_run *r) {
    const cm_eval_conf *e = &r->app->conf.eval;
    cm_conf d;
    cm_buf now = { 0 }, usual = { 0 };
    cm_conf_open(&d, NULL);
    config_members(r, e, e->context, &now);
    config_members(&(cm_eval_run){ 0 }, &d.eval, d.eval.context, &usual);
    cm_conf_close(&d);
    char hex[65];
    cm_sha_bytes(now.s, now.n, hex);
    char *mark = strcmp(now.s, usual.s) ? cm_strf("-%.6s", hex) : cm_strf("%s", "");
    cm_buf_free(&now);
    cm_buf_free(&usual);
    return mark;
}

static char *default_folder(const cm_eval_run *r) {
    char *run = run_folder(r->model_path), *suite = suite_name(r), *mark = settings_mark(r);
    char *dir;
    if (run) {
        dir = cm_strf("%s/eval/%s@%.12s%s", run, suite, r->model->id, mark);
    } else {
        char *real = realpath(r->model_path, NULL);
        const char *slash = real ? strrchr(real, '/') : NULL;
        const char *base = slash ? slash + 1 : r->model_path, *dot = strstr(base, ".gguf");
        dir = cm_strf("eval-%.*s/%s@%.12s%s", dot ? (int)(dot - base) : (int)strlen(base), base,
                      suite, r->model->id, mark);
        free(real);
    }
    free(run);
    free(mark);
    free(suite);
    return dir;
}

static bool says_eval(const char *path) {
    char head[512];
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(head, 1, sizeof head - 1, f) : 0;
    head[n] = 0;
    if (f) fclose(f);
    return strstr(head, "\"kind\":\"eval\"") != NULL;
}

bool cm_run_folder(const char *dir, bool *finished, cm_err *err) {
    struct stat st;
    *finished = false;
    if (stat(dir, &st) != 0) return true;
    if (!S_ISDIR(st.st_mode))
        return cm_fail(err, CM_EXIT_USAGE, "%s: is a file; results want a folder", dir);
    char *head = cm_strf("%s/results.json", dir);
    char *partial = cm_strf("%s/items.partial.jsonl", dir);
    bool ok = cm_exists(partial), foreign = cm_exists(head) && !says_eval(head);
    *finished = cm_exists(head) && !foreign;
    ok = (ok || *finished) && !foreign;
    DIR *d = ok ? NULL : opendir(dir);
    if (d && !foreign) {
        struct dirent *e;
        ok = true;
        while ((e = readdir(d))) ok = ok && e->d_name[0] == '.';
    }
    if (d) closedir(d);
    free(head);
    free(partial);
    return ok || cm_fail(err, CM_EXIT_USAGE, "%s: holds something that is no evaluation; name "
                         "another folder with --out", dir);
}

/* ---- what results.json says besides -------------------------------------------------- */

/* Everything outside the tasks that can change a number; in results.json the other parts,
 * which this has by themselves, stand under model and build. */
static void settings_json(const cm_eval_run *r, cm_buf *b) {
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "model", r->model->id);
    cm_json_str(b, "tokenizer", cm_spm_hash(r->model->spm));
    cm_json_str(b, "numerics", cm_conf_word_of(&r->app->conf, "numerics"));
    cm_json_str(b, "kernels", cm_level_name(cm_kern_level()));
    config_members(r, &r->app->conf.eval, r->task[0].context, b);
    cm_json_close(b, '{');
}

static void about_json(const cm_eval_run *r, cm_buf *model, cm_buf *build, cm_buf *config) {
    const cm_model_conf *m = &r->model->model.conf;
    cm_json_open(model, NULL, '{');
    cm_json_str(model, "path", r->model_path);
    cm_json_str(model, "source", r->model->source);
    cm_json_str(model, "sha256", r->model->id);
    cm_json_str(model, "tokenizer_sha256", cm_spm_hash(r->model->spm));
    cm_json_i64(model, "parameters", cm_model_count(m, false));
    cm_json_i64(model, "parameters_active", cm_model_count(m, true));
    cm_json_i64(model, "vocab_size", m->vocab_size);
    cm_json_i64(model, "context", m->context);
    cm_json_close(model, '{');
    cm_json_open(build, NULL, '{');
    cm_json_str(build, "version", CM_VERSION);
    cm_json_str(build, "kernels", cm_level_name(cm_kern_level()));
    cm_json_str(build, "numerics", cm_conf_word_of(&r->app->conf, "numerics"));
    cm_json_close(build, '{');
    cm_json_open(config, NULL, '{');
    config_members(r, &r->app->conf.eval, r->task[0].context, config);
    cm_json_close(config, '{');
}

static bool declare(const cm_eval_run *r, cm_results_out *o, cm_err *err) {
    bool ok = true;
    for (int i = 0; ok && i < r->n_tasks; i++) {
        const cm_eval_task *t = &r->task[i];
        cm_item_key *key = calloc((size_t)t->n, sizeof *key);
        CM_ASSERT(key, "out of memory: %lld items", (long long)t->n);
        for (int64_t k = 0; k < t->n; k++) {
            key[k].id = t->q[k].id;
            memcpy(key[k].hash, t->q[k].hash, sizeof key[k].hash);
        }
        cm_task_info info = { t->name, t->primary, t->c->version, "", t->data_json.s };
        memcpy(info.definition, t->definition, sizeof info.definition);
        ok = cm_results_task(o, &info, key, t->n, err);
        free(key);
    }
    return ok;
}

static bool finish(cm_eval_run *r, cm_results_out *o, const cm_engine_count *count,
                   double seconds, cm_err *err) {
    cm_buf model = { 0 }, build = { 0 }, config = { 0 }, perf = { 0 };
    about_json(r, &model, &build, &config);
    cm_json_open(&perf, NULL, '{');
    cm_json_i64(&perf, "tokens_requested", count->requested);
    cm_json_i64(&perf, "tokens_computed", count->computed);
    cm_json_f64(&perf, "seconds", seconds);
    cm_buf command = { 0 };
    cm_app_command(r->app, &command);
    cm_json_str(&perf, "command", command.s);
    cm_buf_free(&command);
    cm_json_str(&perf, "kernels", cm_kern_describe());
    cm_results_about about = { model.s, build.s, config.s };
    bool ok = cm_results_finish(o, &about, perf.s + 1, err);
    cm_buf_free(&model);
    cm_buf_free(&build);
    cm_buf_free(&config);
    cm_buf_free(&perf);
    return ok;
}

/* ---- the evaluation ------------------------------------------------------------------ */

/* The first member in which two objects differ, or NULL. */
static const char *differing(const cJSON *a, const cJSON *b) {
    const cJSON *v;
    cJSON_ArrayForEach(v, a)
        if (!cJSON_Compare(v, cJSON_GetObjectItemCaseSensitive(b, v->string), true))
            return v->string;
    cJSON_ArrayForEach(v, b)
        if (!cJSON_GetObjectItemCaseSensitive(a, v->string)) return v->string;
    return NULL;
}

/* Copy to `what`, where a setting is another now than when `old` was made, its name. */
static bool other_settings(const cm_eval_run *r, const cm_result *old, char what[64]) {
    static const char *const part[] = { "model", "build", "config" };
    static const char *const key[] = { "sha256", "tokenizer_sha256", "kernels", "numerics" };
    cm_buf b[3] = { { 0 } };
    about_json(r, &b[0], &b[1], &b[2]);
    bool same = true;
    for (int i = 0; i < 3; i++) {
        cJSON *now = cJSON_Parse(b[i].s);
        const cJSON *was = cJSON_GetObjectItemCaseSensitive(old->root, part[i]);
        const char *name = i == 2 ? differing(now, was) : NULL;
        for (int k = 0; same && i < 2 && k < 4; k++) {
            const cJSON *v = cJSON_GetObjectItemCaseSensitive(now, key[k]);
            if (v && !cJSON_Compare(v, cJSON_GetObjectItemCaseSensitive(was, key[k]), true))
                name = k == 0 ? "model" : k == 1 ? "tokenizer" : key[k];
        }
        if (same && name) {
            snprintf(what, 64, "%s", name);
            same = false;
        }
        cJSON_Delete(now);
        cm_buf_free(&b[i]);
    }
    return !same;
}

/* A task's items or their data are others now; `i` is its place in old. */
static bool other_items(const cm_eval_task *t, const cm_result *old, int i) {
    const cm_task_result *was = &old->task[i];
    bool same = was->n == t->n;
    for (int64_t k = 0; same && k < t->n; k++)
        same = !strcmp(was->id[k], t->q[k].id) && !strcmp(was->hash[k], t->q[k].hash);
    const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(old->root, "tasks");
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(tasks, i), "data");
    cJSON *now = t->data_json.s ? cJSON_Parse(t->data_json.s) : NULL;
    same = same && (now ? data && cJSON_Compare(now, data, true) : !data);
    cJSON_Delete(now);
    return !same;
}

/* A finished result is the one asked for: same model, settings, tasks, items and data. */
static bool same_result(const cm_eval_run *r, const char *dir, cm_err *err) {
    cm_result old;
    if (!cm_result_read(&old, dir, false, err)) return false;
    char what[64];
    cm_buf why = { 0 };
    if (other_settings(r, &old, what)) cm_buf_addf(&why, "with another %s", what);
    if (!why.n && old.n_tasks != r->n_tasks) cm_buf_addf(&why, "of other tasks");
    for (int i = 0; !why.n && i < r->n_tasks; i++) {
        const cm_eval_task *t = &r->task[i];
        const cm_task_result *was = cm_result_task(&old, t->name);
        if (!was)
            cm_buf_addf(&why, "of other tasks (no %s)", t->name);
        else if (strcmp(was->definition, t->definition) || was->version != t->c->version)
            cm_buf_addf(&why, "of another definition of task %s", t->name);
        else if (other_items(t, &old, (int)(was - old.task)))
            cm_buf_addf(&why, "of other items or data of task %s", t->name);
    }
    cm_result_free(&old);
    bool ok = !why.n || cm_fail(err, CM_EXIT_USAGE, "%s: holds a finished evaluation %s; name "
                                "another folder with --out, or say --if-done=redo", dir, why.s);
    cm_buf_free(&why);
    return ok;
}

static bool evaluate(cm_eval_run *r, const char *dir, cm_err *err) {
    cm_buf settings = { 0 };
    settings_json(r, &settings);
    cm_results_out *o = cm_results_open(dir, settings.s, r->if_done == CM_DONE_REDO, err);
    cm_buf_free(&settings);
    int64_t done = 0, total = 0;
    if (o) cm_results_more(o, cm_results_derived, NULL);
    bool ok = o && declare(r, o, err) && cm_results_begin(o, &done, err);
    for (int i = 0; i < r->n_tasks; i++) total += r->task[i].n;
    if (ok && done)
        cm_log(CM_LOG_INFO, "%s: %lld of %lld items are there already", dir, (long long)done,
               (long long)total);
    cm_engine_count count = { 0 };
    double begin = cm_now();
    ok = ok && cm_run_ask(r, o, &count, err);
    if (ok && !cm_signal_stop()) ok = finish(r, o, &count, cm_now() - begin, err);
    else if (ok) cm_log(CM_LOG_WARN, "%s: interrupted; the same command goes on from here", dir);
    cm_results_close(o);
    return ok;
}

static bool print_result(const cm_eval_run *r, const char *dir, cm_err *err) {
    cm_buf out = { 0 };
    bool ok;
    if (r->app->json) {
        char *path = cm_strf("%s/results.json", dir), *text = NULL;
        size_t n;
        ok = cm_read_file(path, (size_t)1 << 30, &text, &n, err);
        if (ok) cm_buf_add(&out, text, n);
        free(text);
        free(path);
    } else {
        ok = cm_eval_table(dir, &out, err);
        cm_buf_addf(&out, "%s\n", dir);
    }
    if (ok) fputs(out.s, stdout);
    cm_buf_free(&out);
    return ok;
}

bool cm_eval_tasks(cm_eval_run *r, cm_err *err) {
    char *dir = r->out ? cm_strf("%s", r->out) : NULL;
    if (!dir) dir = default_folder(r);
    bool finished, ok = cm_run_folder(dir, &finished, err) && cm_run_build(r, err);
    if (ok && r->n_corpus && !(finished && r->if_done != CM_DONE_REDO))
        ok = cm_tasks_contaminate(r->task, r->n_tasks, r->model, r->corpus, r->n_corpus, err);
    if (ok && finished && r->if_done == CM_DONE_FAIL)
        ok = cm_fail(err, CM_EXIT_USAGE, "%s: holds a finished evaluation; name another folder "
                     "with --out, or say --if-done=skip or --if-done=redo", dir);
    else if (ok && finished && r->if_done == CM_DONE_SKIP)
        ok = same_result(r, dir, err) && print_result(r, dir, err);
    else if (ok)
        ok = evaluate(r, dir, err) && (cm_signal_stop() || print_result(r, dir, err));
    free(dir);
    return ok;
}
