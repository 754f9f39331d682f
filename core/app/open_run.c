/* open_run.c -- a tool's run folder: its name, whether going on is honest, run.json. */
#include "app/app_priv.h"
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

/* "configs/demo.yaml" -> "demo"; free(). */
static char *stem(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    return cm_strf("%.*s", dot && dot > base ? (int)(dot - base) : (int)strlen(base),
                   base);
}

/* A name is one folder below RUNS: anything else could write over other things. */
static bool check_name(const cm_app_ctx *c, const char *name, cm_err *err) {
    if (*name && *name != '.' && !strchr(name, '/'))
        return true;
    return cm_conf_bad(&c->conf, err, "name",
                       "'%s' is no name for a folder: letters, digits, - and _", name);
}

/* Keys that may change between the segments of one run without making it another. */
static bool is_free(const char *line) {
    static const char *const free_keys[] = {"log.", "ckpt.", "val.", "panel.", "threads:",
                                            "name:"};
    for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++)
        if (!strncmp(line, free_keys[i], strlen(free_keys[i])))
            return true;
    return false;
}

/* Keys that a checkpoint's tensors hang on: nothing can change them. */
static bool is_fixed(const char *line) {
    static const char *const keys[] = {
        "model.d_model:", "model.n_layers:", "model.pattern:", "model.ffn:",
        "model.vocab_size:", "model.n_heads:", "model.n_kv_heads:", "model.head_dim:",
        "model.d_ff:", "model.n_experts:", "model.d_expert:", "model.d_shared:",
        "model.ssm_state:", "model.ssm_head_dim:", "model.ssm_groups:", "model.ssm_conv:",
        "model.ssm_expand:", "model.tied:", "optim.kind:", "optim.state:", "lora.rank:",
        "lora.targets:", "lora.base:" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strncmp(line, keys[i], strlen(keys[i]))) return true;
    return false;
}

/* Differences between the folder's configuration and ours, as cm_conf_diff lines.
 * Both go through text, so that keys the dump leaves out do not count. */
static void changes(const cm_app_ctx *c, const char *old_text, size_t n, const char *ours,
                    cm_buf *out) {
    cm_conf a, b;
    cm_conf_open(&a, NULL);
    cm_conf_open(&b, NULL);
    cm_conf_text(&a, "config.yaml", old_text, n);
    cm_conf_text(&b, "config.yaml", ours, strlen(ours));
    if (!cm_conf_check(&a, NULL))
        cm_log(CM_LOG_WARN, "%s: written by another version; it cannot be compared fully",
               c->run.dir);
    cm_conf_diff(&a, &b, out);
    cm_conf_close(&a);
    cm_conf_close(&b);
}

static bool judge_changes(cm_app_ctx *c, cm_buf *diff, cm_err *err) {
    char *rest = diff->s;
    for (char *line; rest && (line = strsep(&rest, "\n")) && *line;) {
        if (!is_free(line) && c->resume != CM_RESUME_MUST)
            return cm_fail(err, CM_EXIT_USAGE,
                           "%s: cannot go on with another configuration (%s); give "
                           "another name, or --resume=must to change it on purpose",
                           c->run.dir, line);
        if (is_fixed(line))
            return cm_fail(err, CM_EXIT_USAGE, "%s: cannot go on with %s: its checkpoints have "
                           "other tensors; give another name", c->run.dir, line);
        cm_log(CM_LOG_INFO, "resuming with %s", line);
    }
    return true;
}

static bool same_run(cm_app_ctx *c, const char *ours, cm_err *err) {
    char *path = cm_run_path(&c->run, "config.yaml"), *old = NULL;
    size_t n = 0;
    cm_buf diff = {0};
    bool ok = true;
    if (cm_exists(path)) {
        ok = cm_read_file(path, 4 << 20, &old, &n, err);
        if (ok) {
            changes(c, old, n, ours, &diff);
            ok = judge_changes(c, &diff, err);
        }
    }
    cm_buf_free(&diff);
    free(old);
    free(path);
    return ok;
}

/* The SHA-256 that run.json, read into t, has for input `role`; NULL: none. */
static const char *input_then(const cm_json_tree *t, const char *role) {
    int list = cm_json_tree_get(t, 0, "inputs");
    if (list < 0 || t->node[list].type != CM_JSON_ARRAY) return NULL;
    for (int i = t->node[list].first; i >= 0; i = t->node[i].next) {
        int what = cm_json_tree_get(t, i, "role"), sha = cm_json_tree_get(t, i, "sha256");
        if (what >= 0 && sha >= 0 && !strcmp(t->text.s + t->node[what].at, role))
            return t->text.s + t->node[sha].at;
    }
    return NULL;
}

/* What a run is made from lies where others can change it: shards made anew, a start model or
 * dpo's reference that is retrained, a `latest` that moves on.  Refused before anything of the
 * run is rewritten. */
static bool same_inputs(const cm_app_ctx *c, const cm_app_input *in, cm_err *err) {
    char *path = cm_run_path(&c->run, "run.json"), *text = NULL;
    size_t n = 0;
    cm_json_tree t = {0};
    cm_err none;
    bool ok = true;
    if (in && cm_read_file(path, 1 << 20, &text, &n, &none) &&
        cm_json_tree_read(&t, text, n, &none))
        for (; ok && in->what; in++) {
            const char *then = input_then(&t, in->what);
            if (!then || !strcmp(then, in->id)) continue;
            ok = cm_fail(err, CM_EXIT_DATA,
                         "%s: the run did not begin with the %s at %s (SHA-256 %.12s, was %.12s): "
                         "bring back what it began with, or give another name", c->run.dir,
                         in->what, in->path, in->id, then);
        }
    cm_json_tree_free(&t);
    free(text);
    free(path);
    return ok;
}

static void run_info(const cm_app_ctx *c, cm_buf *b) {
    char now[32];
    cm_buf v = {0};
    cm_app_version(c->app, &v);
    v.s[v.n - 1] = 0;
    cm_json_str(b, "tool", c->app->name);
    cm_json_str(b, "version", v.s);
    cm_json_str(b, "started", cm_time_text(now));
    cm_json_open(b, "argv", '[');
    for (int i = 0; i < c->argc; i++)
        cm_json_str(b, NULL, c->argv[i]);
    cm_json_close(b, '[');
    if (!c->app->no_kernels) {
        cm_json_str(b, "kernels", cm_kern_describe());
        cm_json_i64(b, "threads", cm_kern_threads());
    }
    cm_machine_json(b);
    cm_buf_free(&v);
}

/* A finished run that is kept although it was asked for with other settings. */
static void warn_kept(const cm_app_ctx *c, const char *ours) {
    char *path = cm_run_path(&c->run, "config.yaml"), *old = NULL, *rest;
    size_t n = 0;
    cm_buf diff = {0}, keys = {0};
    cm_err err = {0};
    if (!cm_read_file(path, 4 << 20, &old, &n, &err)) {
        cm_log(CM_LOG_WARN, "%s; whether its settings were these cannot be told", err.msg);
    } else {
        changes(c, old, n, ours, &diff);
        rest = diff.s;
        for (char *line; rest && (line = strsep(&rest, "\n")) && *line;)
            cm_buf_addf(&keys, "%s%s", keys.n ? "; " : "", line);
    }
    if (keys.n)
        cm_log(CM_LOG_WARN, "%s: kept as it is, but made with other settings (%s); "
               "--if-done=redo makes it again with these", c->run.dir, keys.s);
    cm_buf_free(&diff);
    cm_buf_free(&keys);
    free(old);
    free(path);
}

bool cm_app_run_open(cm_app_ctx *c, const cm_app_input *in, cm_err *err) {
    char *name = *c->conf.top.name ? cm_strf("%s", c->conf.top.name)
                 : c->configs.n    ? stem(c->configs.v[0])
                                   : cm_strf("%s", c->app->name);
    char *dir = cm_strf("%s/%s", c->runs, name);
    cm_buf yaml = {0}, info = {0};
    bool ok = check_name(c, name, err) &&
              cm_run_open(&c->run, dir, c->app->name, c->resume, c->if_done, err);
    if (ok)
        cm_conf_dump(&c->conf, false, &yaml);
    if (ok && c->run.skip) {
        cm_log(CM_LOG_INFO, "%s: finished already; nothing to do", dir);
        warn_kept(c, yaml.s);
    }
    if (ok && !c->run.skip) {
        run_info(c, &info);
        ok = (!c->run.resumed || (same_run(c, yaml.s, err) && same_inputs(c, in, err))) &&
             cm_run_start(&c->run, yaml.s, &info, err);
        cm_signals_install_as("stopping after saving");
    }
    cm_buf_free(&yaml);
    cm_buf_free(&info);
    free(dir);
    free(name);
    return ok;
}
