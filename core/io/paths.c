/* paths.c -- what the user wrote as inputs, as a list of files. */
#include "io/io.h"

#include <dirent.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct list {
    char **s;
    int n;
} list;

static void push(list *l, const char *path) {
    l->s = realloc(l->s, (size_t)(l->n + 1) * sizeof *l->s);
    CM_ASSERT(l->s, "out of memory");
    l->s[l->n++] = cm_strf("%s", path);
}

static bool ends(const char *s, size_t n, const char *end) {
    size_t k = strlen(end);
    return n >= k && !memcmp(s + n - k, end, k);
}

/* A name that a folder's expansion takes. */
static bool is_text(const char *name) {
    static const char *const ext[] = { ".txt", ".text", ".md", ".jsonl", ".ndjson" };
    size_t n = strlen(name);
    if (ends(name, n, ".zst")) n -= 4;
    else if (ends(name, n, ".gz")) n -= 3;
    for (size_t i = 0; i < sizeof ext / sizeof *ext; i++)
        if (ends(name, n, ext[i]) && name[0] != '.') return true;
    return false;
}

static int by_bytes(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool add_folder(list *l, const char *dir, int depth, cm_err *err) {
    struct dirent **e;
    int n = scandir(dir, &e, NULL, by_bytes);
    if (n < 0) return cm_fail_errno(err, CM_EXIT_USAGE, "%s", dir);
    bool ok = true;
    for (int i = 0; i < n; i++) {
        char *path = cm_strf("%s/%s", dir, e[i]->d_name);
        struct stat st;
        bool seen = ok && e[i]->d_name[0] != '.' && !stat(path, &st);
        if (seen && S_ISDIR(st.st_mode) && depth < 32)
            ok = add_folder(l, path, depth + 1, err);
        else if (seen && S_ISREG(st.st_mode) && is_text(e[i]->d_name))
            push(l, path);
        free(path);
        free(e[i]);
    }
    free(e);
    return ok;
}

static bool add_path(list *l, const char *path, cm_err *err) {
    struct stat st;
    if (!strcmp(path, "-")) {
        push(l, path);
        return true;
    }
    if (stat(path, &st)) return cm_fail_errno(err, CM_EXIT_USAGE, "%s", path);
    if (S_ISDIR(st.st_mode)) return add_folder(l, path, 0, err);
    push(l, path);
    return true;
}

/* By bytes, whatever the locale. */
static int by_string(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_item(list *l, const char *item, cm_err *err) {
    int before = l->n;
    bool ok = true;
    if (!strpbrk(item, "*?[") || cm_exists(item)) {
        ok = add_path(l, item, err);
    } else {
        glob_t g;
        int rc = glob(item, GLOB_NOSORT, NULL, &g);
        list sorted = { 0 };
        for (size_t i = 0; rc == 0 && i < g.gl_pathc; i++) push(&sorted, g.gl_pathv[i]);
        if (rc == 0) globfree(&g);
        if (sorted.n) qsort(sorted.s, (size_t)sorted.n, sizeof *sorted.s, by_string);
        for (int i = 0; ok && i < sorted.n; i++) ok = add_path(l, sorted.s[i], err);
        cm_paths_free(sorted.s, sorted.n);
    }
    if (ok && l->n == before)
        return cm_fail(err, CM_EXIT_USAGE, "%s: no input file found", item);
    return ok;
}

bool cm_paths_expand(const char *const *item, int n, char ***path, int *n_path,
                     cm_err *err) {
    list l = { 0 };
    for (int i = 0; i < n; i++)
        if (!add_item(&l, item[i], err)) {
            cm_paths_free(l.s, l.n);
            return false;
        }
    *path = l.s;
    *n_path = l.n;
    return true;
}

void cm_paths_free(char **path, int n) {
    for (int i = 0; i < n; i++) free(path[i]);
    free(path);
}
