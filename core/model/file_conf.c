/* file_conf.c -- checking a model description that came from a file.
 *
 * The ranges are those of the configuration's own table, so a file can ask for nothing
 * that a user could not. */
#include "model/files.h"

#include <string.h>

void cm_file_conf_init(cm_file_conf *f) {
    cm_conf all;
    cm_conf_open(&all, "model");
    memset(f, 0, sizeof *f);
    f->c = all.model;
    f->c.pattern = f->pattern;
    f->c.ffn = f->ffn;
    cm_conf_close(&all);
}

/* "MMMAMMMA" -> "MMMA" */
static void shorten(char *s) {
    size_t n = strlen(s), p = 1;
    for (; p < n; p++) {
        size_t i = p;
        while (i < n && s[i] == s[i - p]) i++;
        if (i == n) break;
    }
    s[p < n ? p : n] = 0;
}

/* The value of a numeric key of the model section. */
static bool number_of(const cm_model_conf *c, const cm_key *k, double *out) {
    const char *at = (const char *)c + (k->at - offsetof(cm_conf, model));
    switch (k->type) {
    case CM_T_i64:
    case CM_T_count: *out = (double)*(const int64_t *)at; return true;
    case CM_T_f64: *out = *(const double *)at; return true;
    default: return false;
    }
}

bool cm_file_conf_finish(cm_file_conf *f, const char *path, cm_err *err) {
    int n;
    const cm_key *k = cm_conf_keys(&n);
    for (int i = 0; i < n; i++) {
        double x;
        if (strcmp(k[i].section, "model") || !number_of(&f->c, &k[i], &x)) continue;
        if (!(x >= k[i].lo && x <= k[i].hi))
            return cm_fail(err, CM_EXIT_DATA,
                           "%s: model.%s would be %g; %g to %g is what "
                           "can be run", path, k[i].name, x, k[i].lo, k[i].hi);
    }
    shorten(f->pattern);
    shorten(f->ffn);
    cm_err why;
    if (cm_model_resolve(&f->c, &why)) return true;
    return cm_fail(err, CM_EXIT_DATA, "%s: %s", path, why.msg);
}
