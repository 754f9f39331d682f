/* ckpt_dir.c -- the folder of checkpoints: names, sums, which ones stay. */
#include "train/ckpt_int.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUMS "SHA256SUMS"

char *cm__ckpt_name(int64_t step) { return cm_strf("step-%08" PRId64, step); }

/* ---- listing ----------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names in a folder but . and .., sorted; NULL-terminated, free each and the list. */
static char **names_in(const char *dir, int *n) {
    DIR *d = opendir(dir);
    char **list = NULL;
    *n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        list = realloc(list, ((size_t)*n + 1) * sizeof *list);
        CM_ASSERT(list, "out of memory listing a folder");
        list[(*n)++] = cm_strf("%s", e->d_name);
    }
    if (d) closedir(d);
    if (*n) qsort(list, (size_t)*n, sizeof *list, by_name);
    return list;
}

static void free_names(char **list, int n) {
    for (int i = 0; i < n; i++) free(list[i]);
    free(list);
}

static int by_step(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int cm__ckpt_list(const char *dir, int64_t **step) {
    int n, k = 0;
    char **name = names_in(dir, &n);
    *step = calloc((size_t)n + 1, sizeof **step);
    CM_ASSERT(*step, "out of memory listing checkpoints");
    for (int i = 0; i < n; i++)
        if (!strncmp(name[i], "step-", 5) && cm_parse_i64(name[i] + 5, &(*step)[k])) k++;
    free_names(name, n);
    qsort(*step, (size_t)k, sizeof **step, by_step);
    return k;
}

/* ---- removing ---------------------------------------------------------------------- */

bool cm__ckpt_drop(const char *dir, const char *name, cm_err *err) {
    char *path = cm_strf("%s/%s", dir, name), *old = cm_strf("%s/.old-%s", dir, name);
    bool ok = cm_remove_tree(old, err);
    if (ok && rename(path, old))
        ok = cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot remove", path);
    ok = ok && cm_remove_tree(old, err);
    free(path);
    free(old);
    return ok;
}

bool cm__ckpt_prune(const cm_ckpt *c, cm_err *err) {
    const cm_ckpt_conf *k = &c->conf->ckpt;
    int64_t *step;
    int n = cm__ckpt_list(c->dir, &step);
    bool ok = true;
    for (int i = 0; i < n && ok; i++) {
        bool stays = i >= n - k->keep_last ||
                     (k->keep_every && step[i] % k->keep_every == 0) ||
                     (k->best && step[i] == c->state->best_step);
        if (stays) continue;
        char *name = cm__ckpt_name(step[i]);
        ok = cm__ckpt_drop(c->dir, name, err);
        free(name);
    }
    free(step);
    return ok;
}

bool cm_ckpt_clean(const char *dir, cm_err *err) {
    int n;
    char **name = names_in(dir, &n);
    bool ok = true;
    for (int i = 0; i < n && ok; i++) {
        if (strncmp(name[i], ".tmp-", 5) && strncmp(name[i], ".old-", 5)) continue;
        char *path = cm_strf("%s/%s", dir, name[i]);
        ok = cm_remove_tree(path, err);
        free(path);
    }
    free_names(name, n);
    return ok;
}

/* ---- sums -------------------------------------------------------------------------- */

bool cm__sums_write(const char *folder, cm_err *err) {
    int n;
    char **name = names_in(folder, &n), *path;
    cm_buf b = { 0 };
    bool ok = true;
    for (int i = 0; i < n && ok; i++) {
        char hex[65];
        path = cm_strf("%s/%s", folder, name[i]);
        ok = cm_sha_file(path, hex, err);
        if (ok) cm_buf_addf(&b, "%s  %s\n", hex, name[i]);
        free(path);
    }
    free_names(name, n);
    path = cm_strf("%s/" SUMS, folder);
    ok = ok && cm_write_file(path, b.s, b.n, err);
    free(path);
    cm_buf_free(&b);
    return ok;
}

/* One line of SHA256SUMS: 64 hex digits, two spaces, a plain file name. */
static bool check_line(const char *folder, const char *line, cm_err *err) {
    size_t n = strlen(line);
    if (n < 67 || line[64] != ' ' || line[65] != ' ' || strchr(line, '/'))
        return cm_fail(err, CM_EXIT_DATA, "%s/" SUMS ": '%.80s' is not a checksum line",
                       folder, line);
    char *path = cm_strf("%s/%s", folder, line + 66), hex[65];
    bool ok = cm_sha_file(path, hex, err);
    if (ok && strncmp(hex, line, 64))
        ok = cm_fail(err, CM_EXIT_DATA,
                     "%s: damaged: its SHA-256 is %.12s..., " SUMS " says %.12s...", path, hex,
                     line);
    free(path);
    return ok;
}

bool cm_ckpt_verify(const char *folder, cm_err *err) {
    /* The first is the end of adapter_model.safetensors too. */
    static const char *const must[] = { "model.safetensors", "optimizer.safetensors",
                                        "state.json", "train.yaml" };
    char *path = cm_strf("%s/" SUMS, folder), *text;
    size_t n;
    bool ok = cm_read_file(path, 1 << 20, &text, &n, err);
    free(path);
    if (!ok) return false;
    for (size_t i = 0; i < sizeof must / sizeof *must && ok; i++)
        if (!strstr(text, must[i]))
            ok = cm_fail(err, CM_EXIT_DATA, "%s/" SUMS ": no line for %s", folder, must[i]);
    char *save = NULL;
    for (char *l = strtok_r(text, "\n", &save); l && ok; l = strtok_r(NULL, "\n", &save))
        ok = check_line(folder, l, err);
    free(text);
    return ok;
}

/* ---- configuration ----------------------------------------------------------------- */

/* Keys that may change between a save and its resumption: none of them moves a number. */
static bool moves_no_number(const char *line) {
    static const char *const free_keys[] = { "name:", "threads:", "log.", "ckpt.",
                                             "data.shards:", "val.", "panel." };
    for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++)
        if (!strncmp(line, free_keys[i], strlen(free_keys[i]))) return true;
    return false;
}

/* Experts are balanced over the rows of a micro-batch, which the limit may choose. */
static bool limit_moves_numbers(const cm_ckpt *c) {
    const cm_model_conf *m = &c->model->conf;
    return !c->conf->data.micro_rows && cm_model_has_experts(m) && m->lb_coef > 0;
}

bool cm__conf_same(const cm_ckpt *c, const char *name, const char *text, size_t n,
                   cm_buf *diff) {
    static const char limit[] = "train.max_gb:";
    cm_conf saved;
    cm_buf all = { 0 };
    cm_err err;
    cm_conf_open(&saved, NULL);
    cm_conf_text(&saved, name, text, n);
    if (!cm_conf_check(&saved, &err)) cm_buf_addf(diff, "%s\n", err.msg);
    else cm_conf_diff(&saved, c->conf, &all);
    char *save = NULL;
    for (char *l = all.s ? strtok_r(all.s, "\n", &save) : NULL; l;
         l = strtok_r(NULL, "\n", &save)) {
        bool limits = !strncmp(l, limit, sizeof limit - 1);
        if (limits ? limit_moves_numbers(c) : !moves_no_number(l))
            cm_buf_addf(diff, "  %s\n", l);
    }
    cm_buf_free(&all);
    cm_conf_close(&saved);
    return diff->n == 0;
}
