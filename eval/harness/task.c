/* task.c -- task files: found, read, checked; the memory of what they make. */
#include "harness/task_int.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- pool ---------------------------------------------------------------------------- */

enum { BLOCK = 1 << 20 };
struct cm_pool_block {
    struct cm_pool_block *next;
    size_t used, cap;
    _Alignas(16) unsigned char bytes[];
};

void *cm_pool_get(cm_pool *p, size_t bytes) {
    bytes = (bytes + 15) & ~(size_t)15;
    if (!p->block || p->block->cap - p->block->used < bytes) {
        size_t cap = bytes > BLOCK ? bytes : BLOCK;
        struct cm_pool_block *b = calloc(1, sizeof *b + cap);
        CM_ASSERT(b, "out of memory: %zu bytes for a task's items", cap);
        b->cap = cap;
        /* A block of its own for something large goes behind the one being filled. */
        bool large = bytes == cap && p->block;
        b->next = large ? p->block->next : p->block;
        if (large) {
            p->block->next = b;
            b->used = bytes;
            return b->bytes;
        }
        p->block = b;
    }
    void *at = p->block->bytes + p->block->used;
    p->block->used += bytes;
    return at;
}

char *cm_pool_text(cm_pool *p, const char *s, size_t n) {
    char *copy = cm_pool_get(p, n + 1);
    if (n) memcpy(copy, s, n);
    return copy;
}

void cm_pool_free(cm_pool *p) {
    while (p->block) {
        struct cm_pool_block *b = p->block;
        p->block = b->next;
        free(b);
    }
}

/* ---- kinds --------------------------------------------------------------------------- */

#define KIND(name) extern const cm_kind cm_kind_##name;
#include "harness/kinds.def"

const cm_kind *const *cm_kinds(int *n) {
    static const cm_kind *const all[] = {
#define KIND(name) &cm_kind_##name,
#include "harness/kinds.def"
    };
    *n = (int)(sizeof all / sizeof *all);
    return all;
}

const cm_kind *cm_kind_find(const char *name) {
    int n;
    const cm_kind *const *k = cm_kinds(&n);
    for (int i = 0; i < n; i++)
        if (!strcmp(k[i]->name, name)) return k[i];
    return NULL;
}

/* ---- where task files are ------------------------------------------------------------ */

enum { N_FOLDERS = 4 };

/* The checkout one works in, the checkout or the prefix the program was built in. */
static int folders(char *dir[N_FOLDERS]) {
    static const char *const beside[] = { "../../eval/tasks", "../../../eval/tasks",
                                          "../share/chimera/tasks" };
    int n = 0;
    dir[n++] = cm_strf("eval/tasks");
    char exe[4096];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash = len > 0 ? memrchr(exe, '/', (size_t)len) : NULL;
    for (int i = 0; slash && i < 3; i++)
        dir[n++] = cm_strf("%.*s/%s", (int)(slash - exe), exe, beside[i]);
    return n;
}

static bool names_file(const char *s) {
    size_t n = strlen(s);
    return strchr(s, '/') || (n > 5 && !strcmp(s + n - 5, ".yaml"));
}

/* Task names below the folders, the first of each name; free with free_names. */
static int all_names(char ***names, char ***paths) {
    char *dir[N_FOLDERS];
    int n_dirs = folders(dir), n = 0;
    *names = *paths = NULL;
    for (int d = 0; d < n_dirs; d++) {
        struct dirent **entry;
        int k = scandir(dir[d], &entry, NULL, alphasort);
        for (int i = 0; i < k; i++) {
            const char *f = entry[i]->d_name, *dot = strrchr(f, '.');
            bool known = !dot || strcmp(dot, ".yaml") || dot == f;
            char *name = known ? NULL : cm_strf("%.*s", (int)(dot - f), f);
            for (int j = 0; !known && j < n; j++) known = !strcmp((*names)[j], name);
            if (!known) {
                *names = realloc(*names, (size_t)(n + 1) * sizeof **names);
                *paths = realloc(*paths, (size_t)(n + 1) * sizeof **paths);
                CM_ASSERT(*names && *paths, "out of memory: names of tasks");
                (*names)[n] = cm_strf("%s", name);
                (*paths)[n++] = cm_strf("%s/%s", dir[d], f);
            }
            free(name);
            free(entry[i]);
        }
        if (k >= 0) free(entry);
        free(dir[d]);
    }
    return n;
}

static void free_names(char **names, char **paths, int n) {
    for (int i = 0; i < n; i++) {
        free(names[i]);
        free(paths[i]);
    }
    free(names);
    free(paths);
}

static char *find_file(const char *name, cm_err *err) {
    if (names_file(name)) return cm_strf("%s", name);
    char **names, **paths, *found = NULL;
    int n = all_names(&names, &paths);
    for (int i = 0; i < n && !found; i++)
        if (!strcmp(names[i], name)) found = cm_strf("%s", paths[i]);
    if (!found) {
        const char *near = cm_nearest(name, (const char *const *)names, n);
        cm_fail(err, CM_EXIT_USAGE,
                "no task '%s'%s%s%s; eval --list-tasks has the names, and FILE.yaml is a "
                "task of your own", name, near ? "; did you mean '" : "", near ? near : "",
                near ? "'?" : "");
    }
    free_names(names, paths, n);
    return found;
}

/* ---- reading one --------------------------------------------------------------------- */

static bool pick_kind(cm_eval_task *t, cm_err *err) {
    int n;
    const cm_kind *const *all = cm_kinds(&n);
    t->kind = cm_kind_find(t->c->kind);
    if (t->kind) return true;
    const char *name[64];
    cm_buf list = { 0 };
    for (int i = 0; i < n && i < 64; i++) {
        name[i] = all[i]->name;
        cm_buf_addf(&list, "%s%s", i ? ", " : "", name[i]);
    }
    const char *near = cm_nearest(t->c->kind, name, n);
    cm_conf_bad(&t->file, err, "task.kind", "'%s' is none of %s%s%s%s", t->c->kind, list.s,
                near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    cm_buf_free(&list);
    return false;
}

static bool listed(const char *words, const char *word) {
    size_t n = strlen(word);
    for (const char *p = words; p && (p = strstr(p, word)); p += n)
        if ((p == words || p[-1] == ' ') && (!p[n] || p[n] == ' ')) return true;
    return false;
}

/* Only section task, and of it what the kind looks at: anything else would be meant and
 * not done. */
static bool check_keys(const cm_eval_task *t, cm_err *err) {
    int n;
    const cm_key *k = cm_conf_keys(&n);
    char name[96];
    for (int i = 0; i < n; i++) {
        const char *full = cm_key_name(&k[i], name);
        if (!cm_conf_given(&t->file, full)) continue;
        if (strcmp(k[i].section, "task") != 0)
            return cm_conf_bad(&t->file, err, full, "a task file has section task alone; this "
                               "belongs on the command line or into --config FILE");
        if (!listed(t->kind->keys, k[i].name))
            return cm_conf_bad(&t->file, err, full, "means nothing to kind %s, which has: %s",
                               t->kind->name, t->kind->keys);
    }
    return true;
}

static bool add_metric(cm_eval_task *t, const char *name, cm_err *err) {
    const cm_metric *m = cm_metric_find(name);
    if (!m || !(listed(t->kind->metrics, name) || listed(t->kind->extra, name)))
        return cm_conf_bad(&t->file, err, "task.metrics",
                           "'%s' is no metric of kind %s, which has: %s%s%s", name,
                           t->kind->name, t->kind->metrics, t->kind->extra ? " " : "",
                           t->kind->extra ? t->kind->extra : "");
    CM_ASSERT(t->in->n_metrics < MAX_METRICS, "kind %s has too many metrics", t->kind->name);
    if (!cm_task_reports(t, name)) t->in->metric[t->in->n_metrics++] = m;
    return true;
}

static bool pick_metrics(cm_eval_task *t, cm_err *err) {
    bool ok = true;
    const cm_list *l = &t->c->metrics;
    for (int i = 0; ok && i < l->n; i++) ok = add_metric(t, l->v[i], err);
    const char *in_chat = t->chat && t->kind->in_chat ? t->kind->in_chat : "";
    char *copy = l->n ? cm_strf("%s", "") : cm_strf("%s %s", t->kind->metrics, in_chat);
    char *rest = copy;
    for (char *w; ok && rest && (w = strsep(&rest, " "));)
        if (*w) ok = add_metric(t, w, err);
    free(copy);
    t->primary = *t->c->primary ? t->c->primary : t->kind->primary;
    const cm_metric *m = cm_metric_find(t->primary);
    if (ok && m && !m->judged)
        ok = cm_conf_bad(&t->file, err, "task.primary", "'%s' is no goal: nothing can be judged "
                         "by it", t->primary);
    if (ok && !cm_task_reports(t, t->primary))
        ok = cm_conf_bad(&t->file, err, *t->c->primary ? "task.primary" : "task.metrics",
                         "the primary metric '%s' is not among those reported", t->primary);
    return ok;
}

bool cm_task_reports(const cm_eval_task *t, const char *metric) {
    for (int i = 0; i < t->in->n_metrics; i++)
        if (!strcmp(t->in->metric[i]->name, metric)) return true;
    return false;
}

static cm_regex *compile(const cm_eval_task *t, const char *key, const char *pattern,
                         cm_err *err) {
    cm_err why;
    cm_regex *r = cm_regex_open(pattern, &why);
    if (!r) cm_conf_bad(&t->file, err, key, "'%s': %s", pattern, why.msg);
    return r;
}

static bool compile_list(const cm_eval_task *t, const char *key, const cm_list *l, int step,
                         cm_regex ***out, int *n, cm_err *err) {
    if (l->n % step)
        return cm_conf_bad(&t->file, err, key, "%d texts, but they come in pairs", l->n);
    *out = l->n ? calloc((size_t)l->n, sizeof **out) : NULL;
    CM_ASSERT(!l->n || *out, "out of memory: regular expressions");
    for (int i = 0; i < l->n; i += step) {
        cm_regex *r = compile(t, key, l->v[i], err);
        if (!r) return false;
        (*out)[(*n)++] = r;
    }
    return true;
}

static bool compile_all(cm_eval_task *t, cm_err *err) {
    const cm_task_conf *c = t->c;
    struct cm_task_int *in = t->in;
    return (!*c->filter || (in->filter = compile(t, "task.filter", c->filter, err))) &&
           (!*c->flexible_filter ||
            (in->flexible = compile(t, "task.flexible_filter", c->flexible_filter, err))) &&
           compile_list(t, "task.ignore", &c->ignore, 1, &in->ignore, &in->n_ignore, err) &&
           compile_list(t, "task.replace", &c->replace, 2, &in->replace, &in->n_replace,
                        err);
}

static bool check_template(const cm_eval_task *t, const char *key, const char *s, cm_err *err) {
    cm_err why;
    return cm_template_check(s, &why) || cm_conf_bad(&t->file, err, key, "%s", why.msg);
}

static bool check_texts(const cm_eval_task *t, cm_err *err) {
    const cm_task_conf *c = t->c;
    const struct { const char *key, *s; } template[] = {
        { "task.id", c->id }, { "task.group", c->group }, { "task.prompt", c->prompt },
        { "task.target", c->target }, { "task.last_word", c->last_word },
        { "task.text", c->text }, { "task.shot_target", c->shot_target },
        { "task.answer", c->answer }
    };
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof template / sizeof *template; i++)
        ok = check_template(t, template[i].key, template[i].s, err);
    for (int i = 0; ok && i < c->choices.n; i++)
        ok = check_template(t, "task.choices", c->choices.v[i], err);
    for (int i = 0; ok && i < c->stop.n; i++)
        ok = *c->stop.v[i] || cm_conf_bad(&t->file, err, "task.stop", "an empty text");
    if (ok && *c->where && (!strchr(c->where, '=') || *c->where == '='))
        ok = cm_conf_bad(&t->file, err, "task.where", "want field=value, found '%s'", c->where);
    return ok;
}

/* How prompts are put and answers drawn: the task's word, and eval's. */
static bool pick_manner(cm_eval_task *t, cm_err *err) {
    const cm_task_conf *c = t->c;
    double heat = t->eval->temperature >= 0 ? t->eval->temperature : c->temperature;
    t->how = (cm_sampling){ .temperature = heat, .top_p = 1, .repeat_penalty = 1 };
    t->chat = cm_conf_given(&t->file, "task.chat") ? c->chat : t->eval->chat;
    const char *key = *c->system ? "task.system" : c->think == CM_THINK_NONE ? "task.think" : NULL;
    return t->chat || !key ||
           cm_conf_bad(&t->file, err, key, "means nothing outside of chat: set chat: true, or "
                       "eval.chat=true");
}

/* Lines of `dump` from section task on that `plain`, a dump of defaults, does not have.
 * What a task is about is no part of what it is. */
static void own_lines(const char *dump, const char *plain, cm_buf *out) {
    const char *line = strstr(dump, "\ntask:\n");
    CM_ASSERT(line, "a dump without section task");
    for (line += 7; *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] != 0)) {
        char *text = cm_strf("\n%.*s\n", (int)strcspn(line, "\n"), line);
        if (!strstr(plain, text) && strncmp(text, "\n  about:", 9)) cm_buf_addf(out, "%s", text);
        free(text);
    }
}

/* Identity of the definition: the keys that differ from their defaults, whatever the file
 * looks like, so that a new key of a later version changes no task that does not use it. */
static void define(cm_eval_task *t) {
    cm_conf plain;
    cm_buf all = { 0 }, defaults = { 0 }, own = { 0 };
    cm_conf_open(&plain, "task");
    cm_conf_dump(&plain, false, &defaults);
    cm_conf_dump(&t->file, false, &all);
    own_lines(all.s, defaults.s, &own);
    char hex[65];
    cm_sha_bytes(own.s ? own.s : "", own.n, hex);
    memcpy(t->definition, hex, 16);
    t->definition[16] = 0;
    cm_conf_close(&plain);
    cm_buf_free(&all);
    cm_buf_free(&defaults);
    cm_buf_free(&own);
}

static const char *stem(cm_pool *p, const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    return cm_pool_text(p, base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
}

/* Every line that is wrong, not only the first. */
static void all_mistakes(const cm_conf *c, cm_err *err) {
    const char *all = cm_conf_errors(c);
    cm_fail(err, CM_EXIT_USAGE, "%.*s", (int)strlen(all) - 1, all);
}

void cm_task_name_file(const cm_eval_task *t, cm_err *err) {
    char text[sizeof err->msg];
    if (err->code != CM_EXIT_USAGE || strncmp(err->msg, "task.", 5)) return;
    memcpy(text, err->msg, sizeof text);
    cm_fail(err, CM_EXIT_USAGE, "%s: error: %s", t->path, text);
}

/* text NULL: the file at `path`. */
static bool open_task(cm_eval_task *t, const char *path, const char *text,
                      const cm_eval_conf *eval, cm_err *err) {
    *t = (cm_eval_task){ .eval = eval };
    t->path = cm_pool_text(&t->pool, path, strlen(path));
    t->in = cm_pool_get(&t->pool, sizeof *t->in);
    cm_conf_open(&t->file, "task");
    if (text) cm_conf_text(&t->file, t->path, text, strlen(text));
    else cm_conf_file(&t->file, t->path);
    t->c = &t->file.task;
    bool ok = cm_conf_check(&t->file, err);
    if (!ok) all_mistakes(&t->file, err);
    t->name = *t->c->name ? t->c->name : stem(&t->pool, t->path);
    ok = ok && pick_kind(t, err) && check_keys(t, err) && pick_manner(t, err) &&
         pick_metrics(t, err) &&
         check_texts(t, err) && compile_all(t, err);
    if (ok) define(t);
    else cm_task_name_file(t, err);
    t->shots = t->c->shots;
    if (!ok) cm_task_close(t);
    return ok;
}

bool cm_task_open(cm_eval_task *t, const char *name, const cm_eval_conf *eval,
                  cm_err *err) {
    *t = (cm_eval_task){ .eval = eval };
    char *path = find_file(name, err);
    bool ok = path && open_task(t, path, NULL, eval, err);
    free(path);
    return ok;
}

bool cm_task_open_text(cm_eval_task *t, const char *name, const char *yaml,
                       const cm_eval_conf *eval, cm_err *err) {
    return open_task(t, name, yaml, eval, err);
}

void cm_task_close(cm_eval_task *t) {
    struct cm_task_int *in = t->in;
    if (!in) return;
    if (t->own && t->kind->close) t->kind->close(t);
    free(t->overlap);
    cm_regex_close(in->filter);
    cm_regex_close(in->flexible);
    for (int i = 0; i < in->n_ignore; i++) cm_regex_close(in->ignore[i]);
    for (int i = 0; i < in->n_replace; i++) cm_regex_close(in->replace[i]);
    free(in->ignore);
    free(in->replace);
    free(in->id);
    free(t->q);
    cm_buf_free(&t->data_json);
    cm_conf_close(&t->file);
    cm_pool_free(&t->pool);
    *t = (cm_eval_task){ 0 };
}

static void list_kinds(cm_buf *out) {
    int n;
    const cm_kind *const *k = cm_kinds(&n);
    cm_buf_addf(out, "\nkinds of tasks\n");
    for (int i = 0; i < n; i++)
        cm_buf_addf(out, "%-10s %s\n           %s%s%s\n", k[i]->name, k[i]->help, k[i]->metrics,
                    k[i]->extra ? "; on request: " : "", k[i]->extra ? k[i]->extra : "");
}

void cm_task_list(cm_buf *out) {
    char **names, **paths;
    int n = all_names(&names, &paths);
    static const cm_eval_conf none;
    for (int i = 0; i < n; i++) {
        cm_eval_task t;
        cm_err err;
        if (cm_task_open(&t, paths[i], &none, &err)) {
            cm_buf_addf(out, "%-24s %-9s %-14s %s\n", names[i], t.kind->name, t.primary,
                        t.c->about);
            cm_task_close(&t);
        } else {
            cm_buf_addf(out, "%-24s does not load: %s\n", names[i], err.msg);
        }
    }
    free_names(names, paths, n);
    list_kinds(out);
}
