/* runs.c -- run folders as reports see them: curves, expert loads, newest evaluation. */
#include "report/report_int.h"

#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_TEXT = 1 << 30 };

static char *optional(const char *dir, const char *name, size_t *n, bool *ok, cm_err *err) {
    char *path = cm_strf("%s/%s", dir, name), *text = NULL;
    *n = 0;
    if (cm_exists(path)) *ok = *ok && cm_read_file(path, MAX_TEXT, &text, n, err);
    free(path);
    return text;
}

bool cm_is_run(const char *dir) {
    char *a = cm_strf("%s/metrics.jsonl", dir), *b = cm_strf("%s/config.yaml", dir);
    bool is = cm_exists(a) || cm_exists(b);
    free(a), free(b);
    return is;
}

/* Every whole line is JSON; a torn last one is forgotten. */
static bool check_rows(cm_run_log *r, cm_err *err) {
    while (r->n_metrics && r->metrics[r->n_metrics - 1] != '\n') r->n_metrics--;
    int64_t number = 0;
    cm_jrows rows = { r->metrics, r->metrics + r->n_metrics };
    for (cJSON *v; rows.s < rows.end; cJSON_Delete(v)) {
        number++;
        v = cm_jrows_next(&rows);
        if (!v)
            return cm_fail(err, CM_EXIT_DATA, "%s/metrics.jsonl:%lld: not JSON", r->dir,
                           (long long)number);
    }
    return true;
}

bool cm_run_log_read(cm_run_log *r, const char *dir, cm_err *err) {
    *r = (cm_run_log){ 0 };
    if (!cm_is_run(dir))
        return cm_fail(err, CM_EXIT_USAGE, "%s: not a run (neither config.yaml nor "
                       "metrics.jsonl)", dir);
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    r->dir = cm_strf("%.*s", (int)n, dir);
    r->name = cm_strf("%s", cm_base_name(r->dir));
    bool ok = true;
    r->config_yaml = optional(dir, "config.yaml", &n, &ok, err);
    r->metrics = optional(dir, "metrics.jsonl", &r->n_metrics, &ok, err);
    char *text = optional(dir, "summary.json", &n, &ok, err);
    if (ok && text && !(r->summary = cJSON_Parse(text)))
        ok = cm_fail(err, CM_EXIT_DATA, "%s/summary.json: not JSON", dir);
    free(text);
    ok = ok && check_rows(r, err);
    if (!ok) cm_run_log_free(r);
    return ok;
}

void cm_run_log_free(cm_run_log *r) {
    free(r->dir), free(r->name), free(r->config_yaml), free(r->metrics);
    cJSON_Delete(r->summary);
    *r = (cm_run_log){ 0 };
}

char *cm_run_newest_eval(const char *dir) {
    char *pattern = cm_strf("%s/eval/*/results.json", dir), *found = NULL;
    glob_t g = { 0 };
    struct timespec newest = { 0, 0 };
    if (!glob(pattern, 0, NULL, &g))
        for (size_t i = 0; i < g.gl_pathc; i++) {
            struct stat st;
            if (stat(g.gl_pathv[i], &st)) continue;
            struct timespec t = st.st_mtim;
            if (found && (t.tv_sec < newest.tv_sec ||
                          (t.tv_sec == newest.tv_sec && t.tv_nsec < newest.tv_nsec)))
                continue;
            newest = t;
            free(found);
            found = cm_strf("%.*s", (int)(strlen(g.gl_pathv[i]) - strlen("/results.json")),
                            g.gl_pathv[i]);
        }
    globfree(&g);
    free(pattern);
    return found;
}

int cm_run_config_diff(const cm_run_log *a, const cm_run_log *b, cm_buf *out) {
    if (!a->config_yaml || !b->config_yaml) return 0;
    cm_conf x, y;
    cm_conf_open(&x, NULL);
    cm_conf_open(&y, NULL);
    cm_conf_text(&x, "config.yaml", a->config_yaml, strlen(a->config_yaml));
    cm_conf_text(&y, "config.yaml", b->config_yaml, strlen(b->config_yaml));
    int n = cm_conf_diff(&x, &y, out);
    cm_conf_close(&x);
    cm_conf_close(&y);
    return n;
}

/* ---- rows ------------------------------------------------------------------- */

cJSON *cm_jrows_next(cm_jrows *r) {
    const char *nl = memchr(r->s, '\n', (size_t)(r->end - r->s));
    const char *stop = nl ? nl : r->end;
    cJSON *v = cJSON_ParseWithLength(r->s, (size_t)(stop - r->s));
    r->s = nl ? nl + 1 : r->end;
    return v;
}

/* A number, or one of our texts for what is none; false where it is neither. */
static bool value_of(const cJSON *row, const char *name, double *out) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, name);
    *out = cJSON_IsNumber(v) ? v->valuedouble : NAN;
    return cJSON_IsNumber(v) || cJSON_IsString(v);
}

void cm_run_curve(const cm_run_log *r, const char *metric, const char *x, cm_curve *out) {
    *out = (cm_curve){ 0 };
    int64_t cap = 0;
    cm_jrows rows = { r->metrics, r->metrics + r->n_metrics };
    while (rows.s < rows.end) {
        cJSON *row = cm_jrows_next(&rows);
        double at, y;
        bool both = value_of(row, x ? x : "step", &at) && value_of(row, metric, &y);
        cJSON_Delete(row);
        if (!both || !isfinite(at)) continue;
        while (out->n && out->x[out->n - 1] >= at) out->n--; /* a rewound run went here twice */
        if (out->n == cap) {
            cap = cap ? 2 * cap : 256;
            out->x = realloc(out->x, (size_t)cap * sizeof *out->x);
            out->y = realloc(out->y, (size_t)cap * sizeof *out->y);
            CM_ASSERT(out->x && out->y, "out of memory: a curve of %lld", (long long)cap);
        }
        out->x[out->n] = at;
        out->y[out->n++] = y;
    }
}

void cm_curve_free(cm_curve *c) {
    free(c->x), free(c->y);
    *c = (cm_curve){ 0 };
}

/* ---- experts ------------------------------------------------------------------- */

static const char load_key[] = "moe/expert_load_layer";

/* Layers and experts of a row's array; false where it is not layers of equal length. */
static bool shape_of(const cJSON *load, int *layers, int *experts) {
    *layers = cJSON_GetArraySize(load);
    *experts = *layers ? cJSON_GetArraySize(cJSON_GetArrayItem(load, 0)) : 0;
    const cJSON *v;
    cJSON_ArrayForEach(v, load)
        if (cJSON_GetArraySize(v) != *experts) return false;
    return *experts > 0 && *layers <= 4096 && *experts <= 4096;
}

static int count_loads(const cm_run_log *r, cm_load_map *m) {
    int n = 0;
    cm_jrows rows = { r->metrics, r->metrics + r->n_metrics };
    while (rows.s < rows.end) {
        cJSON *row = cm_jrows_next(&rows);
        const cJSON *load = cJSON_GetObjectItemCaseSensitive(row, load_key);
        int layers, experts;
        if (load && shape_of(load, &layers, &experts)) {
            if (!n) m->layers = layers, m->experts = experts;
            n += layers == m->layers && experts == m->experts;
        }
        cJSON_Delete(row);
    }
    return n;
}

static void add_load(cm_load_map *m, const cJSON *load, int column) {
    const cJSON *layer, *v;
    double *out = m->load + column;
    cJSON_ArrayForEach(layer, load)
        cJSON_ArrayForEach(v, layer) {
            *out += v->valuedouble;
            out += m->columns;
        }
}

bool cm_run_loads(const cm_run_log *r, int max_columns, cm_load_map *out) {
    *out = (cm_load_map){ 0 };
    int n = count_loads(r, out);
    if (!n) return false;
    out->columns = n < max_columns ? n : max_columns;
    size_t cells = (size_t)out->layers * (size_t)out->experts;
    out->step = calloc((size_t)out->columns, sizeof *out->step);
    out->load = calloc(cells * (size_t)out->columns, sizeof *out->load);
    int *rows_in = calloc((size_t)out->columns, sizeof *rows_in);
    CM_ASSERT(out->step && out->load && rows_in, "out of memory: expert loads");
    cm_jrows rows = { r->metrics, r->metrics + r->n_metrics };
    for (int i = 0; rows.s < rows.end;) {
        cJSON *row = cm_jrows_next(&rows);
        const cJSON *load = cJSON_GetObjectItemCaseSensitive(row, load_key);
        int layers, experts;
        if (load && shape_of(load, &layers, &experts) && layers == out->layers &&
            experts == out->experts) {
            int column = (int)((int64_t)i++ * out->columns / n);
            add_load(out, load, column);
            rows_in[column]++;
            value_of(row, "step", &out->step[column]);
        }
        cJSON_Delete(row);
    }
    for (size_t c = 0; c < cells; c++)
        for (int k = 0; k < out->columns; k++)
            out->load[c * (size_t)out->columns + (size_t)k] /= rows_in[k];
    free(rows_in);
    return true;
}

void cm_load_map_free(cm_load_map *m) {
    free(m->step), free(m->load);
    *m = (cm_load_map){ 0 };
}
