/* state.c -- state.json: the run's counters, windows and best value, exact.
 *
 * JSON numbers lose bits through most parsers, so doubles travel as C99 hexadecimal
 * strings ("0x1.8p+1", "nan", "inf"); counters stay below 2^53 and are plain numbers. */
#include "train/train.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "chimera-train-state-1"

/* Every counter and every double, once: the writer and the reader. */
#define COUNTERS(X)                                                                     \
    X(step) X(updates) X(tokens) X(row) X(spikes) X(skipped) X(bad) X(bad_run)          \
    X(val_step) X(best_step)
#define DOUBLES(X) X(best) X(val_loss)

static void window_write(const cm_ring *w, const char *name, cm_buf *out) {
    cm_buf_addf(out, ",\n  \"%s\": {\"at\": %d, \"x\": [", name, w->at);
    for (int i = 0; i < w->n; i++) cm_buf_addf(out, "%s\"%a\"", i ? ", " : "", w->x[i]);
    cm_buf_addf(out, "]}");
}

void cm_train_state_write(const cm_train_state *s, const char *data, const char *tokenizer,
                          cm_buf *out) {
    cm_buf_addf(out, "{\n  \"format\": \"" FORMAT "\",\n  \"data\": \"%s\",\n"
                     "  \"tokenizer\": \"%s\",\n  \"kernels\": \"%s\",\n"
                     "  \"rank\": 0,\n  \"world\": 1",
                data, tokenizer, cm_level_name(cm_kern_level()));
#define X(f) cm_buf_addf(out, ",\n  \"" #f "\": %" PRId64, s->f);
    COUNTERS(X)
#undef X
#define X(f) cm_buf_addf(out, ",\n  \"" #f "\": \"%a\"", s->f);
    DOUBLES(X)
#undef X
    window_write(&s->guard.loss, "loss_window", out);
    window_write(&s->guard.gnorm, "gnorm_window", out);
    cm_buf_addf(out, "\n}\n");
}

/* ---- reading ----------------------------------------------------------------------- */

static const cJSON *field(const cJSON *o, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(o, name);
}

static bool read_counter(const cJSON *o, const char *name, int64_t *out) {
    const cJSON *v = field(o, name);
    if (!cJSON_IsNumber(v) || !(fabs(v->valuedouble) <= 0x1p53)) return false;
    *out = (int64_t)v->valuedouble;
    return (double)*out == v->valuedouble;
}

static bool read_double(const cJSON *v, double *out) {
    const char *s = cJSON_GetStringValue(v);
    char *end = NULL;
    if (!s || !*s) return false;
    *out = strtod(s, &end);
    return *end == 0;
}

static bool read_hash(const cJSON *o, const char *name, char out[65]) {
    const char *s = cJSON_GetStringValue(field(o, name));
    if (!s || strlen(s) > 64) return false;
    memcpy(out, s, strlen(s) + 1);
    return true;
}

static bool read_window(const cJSON *o, const char *name, cm_ring *w) {
    const cJSON *ring = field(o, name), *list = field(ring, "x"), *v;
    int64_t at;
    if (!cJSON_IsArray(list) || !read_counter(ring, "at", &at)) return false;
    int n = cJSON_GetArraySize(list), i = 0;
    if (n > w->cap || at < 0 || at >= w->cap || (n < w->cap && at != n)) return false;
    cJSON_ArrayForEach(v, list) {
        if (!read_double(v, &w->x[i++])) return false;
    }
    w->n = n;
    w->at = (int)at;
    return true;
}

/* NULL, or the name of the first field that is missing or wrong. */
static const char *read_all(cm_train_state *s, const cJSON *o, char *data,
                            char *tokenizer) {
    const char *f = cJSON_GetStringValue(field(o, "format"));
    if (!f || strcmp(f, FORMAT)) return "format";
    int64_t world;
    if (!read_counter(o, "world", &world) || world != 1) return "world";
    if (!read_hash(o, "data", data)) return "data";
    if (!read_hash(o, "tokenizer", tokenizer)) return "tokenizer";
#define X(name)                                                                         \
    if (!read_counter(o, #name, &s->name)) return #name;
    COUNTERS(X)
#undef X
#define X(name)                                                                         \
    if (!read_double(field(o, #name), &s->name)) return #name;
    DOUBLES(X)
#undef X
    if (!read_window(o, "loss_window", &s->guard.loss)) return "loss_window";
    if (!read_window(o, "gnorm_window", &s->guard.gnorm)) return "gnorm_window";
    return NULL;
}

/* Whether CHIMERA_KERNELS can be set to it here. */
static bool is_level(const char *name) {
    for (int i = 0; i <= (int)cm_kern_best_level(); i++)
        if (!strcmp(name, cm_level_name((cm_level_id)i))) return true;
    return false;
}

static void warn_other_kernels(const cJSON *o, const char *path) {
    const char *level = cJSON_GetStringValue(field(o, "kernels"));
    const char *now = cm_level_name(cm_kern_level());
    if (!level || !strcmp(level, now)) return;
    bool here = is_level(level);
    cm_log(CM_LOG_WARN, "%s was written with %s kernels, this run uses %s: it continues, but not "
           "with the bits an uninterrupted run would have (%s%s)", path, level, now,
           here ? "those come with CHIMERA_KERNELS=" : "this CPU or build does not have them",
           here ? level : "");
}

bool cm_train_state_read(cm_train_state *s, const char *path, const char *text,
                         char *data, char *tokenizer, cm_err *err) {
    cJSON *o = cJSON_Parse(text);
    const char *wrong = o ? read_all(s, o, data, tokenizer) : "JSON";
    if (!wrong) warn_other_kernels(o, path);
    cJSON_Delete(o);
    return !wrong || cm_fail(err, CM_EXIT_DATA, "%s: '%s' is missing or wrong", path, wrong);
}
