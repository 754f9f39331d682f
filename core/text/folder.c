/* folder.c -- the folder of a data set: whose files are in it, who works in it. */
#include "text/corpus_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* A name that cm_corpus_build gives; `partial`: one that only a killed run leaves. */
static bool is_ours(const char *name, bool partial) {
    static const char *const file[] = { "manifest.json", "recipe.json", "rejected.jsonl",
                                        "tokenizer.model", "sample.tmp", "stdin.tmp" };
    size_t n = strlen(name);
    bool temporary = n > 4 && !strcmp(name + n - 4, ".tmp");
    if (partial && !temporary) return false;
    for (size_t i = 0; i < sizeof file / sizeof *file; i++)
        if (!strncmp(name, file[i], strlen(file[i])) &&
            (temporary || n == strlen(file[i])))
            return true;
    int used = 0;
    if (sscanf(name, "train-%*5[0-9].tok.zst%n", &used) != 0 || !used)
        if (sscanf(name, "val-%*5[0-9].tok.zst%n", &used) != 0) return false;
    return used && (temporary || !name[used]);
}

/* The manifest goes first: without it nothing counts as finished. */
bool cm_folder_sweep(const char *dir, bool partial, cm_err *err) {
    char *manifest = cm_strf("%s/manifest.json", dir);
    if (!partial) unlink(manifest);
    free(manifest);
    DIR *d = opendir(dir);
    if (!d) return cm_fail_errno(err, CM_EXIT_FAIL, "%s", dir);
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));)
        if (is_ours(e->d_name, partial) && unlinkat(dirfd(d), e->d_name, 0) &&
            errno != ENOENT)
            ok = cm_fail_errno(err, CM_EXIT_FAIL, "%s/%s: cannot remove", dir, e->d_name);
    closedir(d);
    return ok;
}

/* The folder's descriptor, locked, or -1. */
int cm_folder_lock(const char *dir, cm_err *err) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        cm_fail_errno(err, CM_EXIT_USAGE, "%s", dir);
        return -1;
    }
    if (!flock(fd, LOCK_EX | LOCK_NB)) return fd;
    if (errno == EWOULDBLOCK)
        cm_fail(err, CM_EXIT_USAGE, "%s: in use by another process", dir);
    else
        cm_fail_errno(err, CM_EXIT_FAIL, "%s: lock", dir);
    close(fd);
    return -1;
}

/* Is anything of a data set there? */
bool cm_folder_any(const char *dir) {
    DIR *d = opendir(dir);
    bool any = false;
    for (struct dirent *e; d && !any && (e = readdir(d));) any = is_ours(e->d_name, false);
    if (d) closedir(d);
    return any;
}

/* Length of the longest part of a path that exists as a folder; 0 for none of it. */
size_t cm_folder_existing(const char *path) {
    size_t n = strlen(path);
    char *p = cm_strf("%s", path);
    while (n && !cm_exists(p)) {
        while (n && p[n - 1] != '/') n--;
        while (n > 1 && p[n - 1] == '/') n--;
        p[n] = 0;
    }
    free(p);
    return n;
}

/* A refusal promises that nothing was written: take back what a fresh start put there. */
void cm_folder_take_back(const char *dir, size_t had) {
    cm_err ignored;
    char *p = cm_strf("%s", dir);
    cm_folder_sweep(p, false, &ignored);
    for (size_t n = strlen(p); n > had;) {
        while (n > had && p[n - 1] == '/') n--;
        p[n] = 0;
        if (n == had || rmdir(p)) break;
        while (n > had && p[n - 1] != '/') n--;
    }
    free(p);
}

bool cm_corpus_clear(const char *dir, cm_err *err) {
    if (!cm_exists(dir)) return true;
    int fd = cm_folder_lock(dir, err);
    if (fd < 0) return false;
    bool ok = cm_folder_sweep(dir, false, err);
    close(fd);
    return ok;
}

bool cm_corpus_may_fill(const char *dir, cm_err *err) {
    static const struct {
        const char *file, *what;
    } sign[] = {{ "run.json", "a run" }, { "config.yaml", "a run" }, { "metrics.jsonl", "a run" },
                { "config.json", "a model" }, { "adapter_config.json", "an adapter" },
                { "model.safetensors", "a model" }, { "results.json", "an evaluation" },
                { "items.partial.jsonl", "an evaluation" },
                { "tokenizer.model", "a tokenizer of something else" }};
    size_t n = sizeof sign / sizeof *sign;
    char *recipe = cm_strf("%s/recipe.json", dir);
    const char *held = NULL, *file = NULL;
    if (cm_exists(recipe)) n--; /* the tokenizer is that of a data set */
    for (size_t i = 0; *dir && !held && i < n; i++) {
        char *path = cm_strf("%s/%s", dir, file = sign[i].file);
        if (cm_exists(path)) held = sign[i].what;
        free(path);
    }
    free(recipe);
    return !held || cm_fail(err, CM_EXIT_USAGE, "%s: holds %s (%s), no data set; name another "
                            "folder with tokenize.out", dir, held, file);
}
