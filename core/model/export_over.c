/* export_over.c -- what an export may replace, and what else of the replaced model goes. */
#include "model/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what may be replaced ----------------------------------------------------------- */

static bool empty_folder(const char *path) {
    DIR *d = opendir(path);
    int n = 0;
    while (d && n <= 2 && readdir(d)) n++; /* . and .. */
    if (d) closedir(d);
    return d && n <= 2;
}

static bool has(const char *dir, const char *name) {
    char *path = cm_strf("%s/%s", dir, name);
    bool there = cm_exists(path);
    free(path);
    return there;
}

bool cm_export_may_replace(const char *out, bool gguf, cm_err *err) {
    struct stat st;
    if (stat(out, &st)) return true;
    bool folder = S_ISDIR(st.st_mode), plain = S_ISREG(st.st_mode);
    /* What was written is read again by its name, which a pipe or a device cannot give. */
    if (!folder && !plain)
        return cm_fail(err, CM_EXIT_USAGE, "%s: is neither a file nor a folder, and what is "
                       "written there could not be read back; choose another --out", out);
    /* A run's checkpoint has sums of its files, and moments that belong to its weights alone. */
    if (folder && (has(out, "SHA256SUMS") || has(out, "optimizer.safetensors")))
        return cm_fail(err, CM_EXIT_USAGE, "%s: is a checkpoint of a run, which could not be "
                       "resumed with other weights; choose another --out", out);
    bool ours = gguf ? plain && (!st.st_size || cm_is_gguf(out))
                     : folder && (has(out, "config.json") || empty_folder(out));
    return ours || cm_fail(err, CM_EXIT_USAGE, "%s: exists and is not a %s; remove it or "
                           "choose another --out", out, gguf ? "GGUF file" : "model folder");
}

/* ---- what goes with a replaced folder ------------------------------------------------- */

/* Tokenizer files that an export of a model with a tokenizer has written itself. */
static const char *const tokenizer[] = {"tokenizer.model", "tokenizer_config.json"};

/* What else readers take for a part of the model: we, transformers, llama.cpp's converter. */
static const char *const parts[] = {
    "model.safetensors.index.json", "model-*-of-*.safetensors", "pytorch_model.bin",
    "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json", "adapter_config.json",
    "adapter_model.safetensors", "adapter_model.bin", "generation_config.json", "tokenizer.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "chat_template.json", "state.json"};

static bool one_of(const char *name, const char *const *pattern, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!fnmatch(pattern[i], name, 0)) return true;
    return false;
}

bool cm_export_sweep(const char *dir, bool with_tokenizer, cm_err *err) {
    DIR *d = opendir(dir);
    if (!d) return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot open", dir);
    bool ok = true, any = false;
    for (const struct dirent *e; ok && (e = readdir(d));) {
        bool stale = one_of(e->d_name, parts, sizeof parts / sizeof *parts) ||
                     (!with_tokenizer && one_of(e->d_name, tokenizer, 2));
        struct stat st;
        if (!stale || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
            S_ISDIR(st.st_mode))
            continue;
        any = true;
        ok = !unlinkat(dirfd(d), e->d_name, 0) ||
             cm_fail_errno(err, CM_EXIT_FAIL, "%s/%s: belongs to the model that was here before "
                           "and cannot be removed", dir, e->d_name);
    }
    closedir(d);
    return ok && (!any || cm_fsync_dir(dir, err));
}
