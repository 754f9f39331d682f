/* apart.c -- what a tool writes replaces neither what it reads nor what else it writes. */
#include "app/app.h"
#include "model/model.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Pipes and devices can be written any number of times; what is not there yet may matter. */
static bool replaced(const cm_app_file *f) {
    struct stat st;
    if (!f->path || !*f->path) return false;
    return stat(f->path, &st) || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode);
}

/* What a model folder is made of. */
static bool of_model(const char *name) {
    static const char *const part[] = {"*.safetensors", "*.json", "*.model", "*.jinja",
                                       "SHA256SUMS"};
    if (!fnmatch("*.card.json", name, 0)) return false;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (!fnmatch(part[i], name, 0)) return true;
    return false;
}

/* Whether it is one of the files of the model that `input` stands for, or its folder. */
static bool in_model(const char *input, const char *path) {
    char *dir = cm_model_folder(input), *file = realpath(path, NULL);
    char *slash = file ? strrchr(file, '/') : NULL;
    bool hit = dir && file && cm_same_file(dir, path);
    if (dir && slash && !hit && of_model(slash + 1)) {
        *slash = 0;
        hit = cm_same_file(dir, file);
    }
    free(dir);
    free(file);
    return hit;
}

static bool against_inputs(const cm_app_file *in, const cm_app_file *out, cm_err *err) {
    for (; in->what; in++)
        if (in->path && *in->path &&
            (cm_same_file(in->path, out->path) || in_model(in->path, out->path)))
            return cm_fail(err, CM_EXIT_USAGE, "%s: %s would replace the %s", out->path, out->what,
                           in->what);
    return true;
}

bool cm_app_apart(const cm_app_file *in, const cm_app_file *out, cm_err *err) {
    for (; out->what; out++) {
        if (!replaced(out)) continue;
        if (!against_inputs(in, out, err)) return false;
        for (const cm_app_file *next = out + 1; next->what; next++)
            if (replaced(next) && cm_same_file(out->path, next->path))
                return cm_fail(err, CM_EXIT_USAGE, "%s: %s would replace %s", next->path,
                               next->what, out->what);
    }
    return true;
}

/* Neither runs nor results are read from pictures and pages, which may lie among them. */
static bool drawn(const char *path) {
    static const char *const page[] = {"*.svg", "*.html"};
    for (size_t i = 0; i < sizeof page / sizeof *page; i++)
        if (!fnmatch(page[i], path, 0)) return true;
    return false;
}

/* Whether it is a folder or file that lies below the folder, and is read with it. */
static bool below(const char *folder, const char *path) {
    char *dir = realpath(folder, NULL), *file = realpath(path, NULL);
    size_t n = dir ? strlen(dir) : 0;
    bool hit = n && file && !strncmp(dir, file, n) && file[n] == '/' && !drawn(file);
    free(dir);
    free(file);
    return hit;
}

bool cm_app_apart_from_folder(const cm_app_file *in, const cm_app_file *out, cm_err *err) {
    for (; out->what; out++)
        if (replaced(out) && (cm_same_file(in->path, out->path) || below(in->path, out->path)))
            return cm_fail(err, CM_EXIT_USAGE, "%s: %s would replace the %s or a file of it",
                           out->path, out->what, in->what);
    return true;
}
