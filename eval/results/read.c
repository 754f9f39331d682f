/* read.c -- a result back into memory, believed only where it agrees with itself. */
#include "results/results_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_JSON = 1 << 26 };
static const size_t max_items = (size_t)1 << 31; /* bytes, decompressed */

/* ---- results.json --------------------------------------------------------------------------- */

static bool task_fields(cm_task_result *t, const cJSON *o, cm_err *err) {
    const char *name = cm_json_text(o, "name"), *primary = cm_json_text(o, "primary");
    const char *def = cm_json_text(o, "definition"), *hash = cm_json_text(o, "items_hash");
    if (!name || !*name) return cm_fail(err, CM_EXIT_DATA, "a task without a name");
    t->name = cm_strf("%s", name);
    t->version = cm_json_count(o, "version");
    t->n = cm_json_count(o, "n");
    if (t->version < 0)
        return cm_fail(err, CM_EXIT_DATA, "task '%s': no version", name);
    if (!cm_is_hash16(def) || !cm_is_hash16(hash))
        return cm_fail(err, CM_EXIT_DATA, "task '%s': definition and items_hash must be 16 "
                       "hex digits", name);
    if (t->n < 1)
        return cm_fail(err, CM_EXIT_DATA, "task '%s': no items, so there is nothing to say", name);
    if (!primary || !cm_metric_find(primary))
        return cm_fail(err, CM_EXIT_DATA, "task '%s': primary metric '%.60s' is not a metric",
                       name, primary ? primary : "");
    t->primary = cm_strf("%s", primary);
    memcpy(t->definition, def, 17);
    memcpy(t->items_hash, hash, 17);
    if (!cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(o, "metrics")))
        return cm_fail(err, CM_EXIT_DATA, "task '%s': no metrics", name);
    return true;
}

static bool head_fields(const cJSON *root, cm_err *err) {
    const char *kind = cm_json_text(root, "kind");
    int64_t schema = cm_json_count(root, "schema");
    if (!kind || strcmp(kind, "eval"))
        return cm_fail(err, CM_EXIT_DATA, "not the result of an evaluation (no \"kind\":\"eval\")");
    if (schema != CM_RESULTS_SCHEMA)
        return cm_fail(err, CM_EXIT_DATA, "schema %lld, but this program reads schema %d",
                       (long long)schema, CM_RESULTS_SCHEMA);
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "complete")))
        return cm_fail(err, CM_EXIT_DATA, "the evaluation is incomplete; run it to its end");
    return true;
}

static bool parse_tasks(cm_result *r, cm_err *err) {
    const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(r->root, "tasks"), *o;
    int n = cJSON_IsArray(tasks) ? cJSON_GetArraySize(tasks) : 0;
    if (!n) return cm_fail(err, CM_EXIT_DATA, "no tasks, so there is nothing to compare");
    r->task = calloc((size_t)n, sizeof *r->task);
    CM_ASSERT(r->task, "out of memory: %d tasks", n);
    cJSON_ArrayForEach(o, tasks) {
        cm_task_result *t = &r->task[r->n_tasks++];
        if (!task_fields(t, o, err)) return false;
        for (int i = 0; i + 1 < r->n_tasks; i++)
            if (!strcmp(r->task[i].name, t->name))
                return cm_fail(err, CM_EXIT_DATA, "task '%s' stands there twice", t->name);
    }
    return true;
}

bool cm_result_parse(cm_result *r, const char *name, const char *json, size_t n, cm_err *err) {
    *r = (cm_result){ 0 };
    cm_err why = { 0 };
    r->path = cm_strf("%s", name);
    r->root = cm_json_parse(json, n, &why);
    bool ok = r->root && head_fields(r->root, &why) && parse_tasks(r, &why);
    if (!ok) {
        cm_fail(err, why.code, "%s/results.json: %s", name, why.msg);
        cm_result_free(r);
    }
    return ok;
}

/* ---- items ---------------------------------------------------------------------------------- */

static bool near(double a, double b) {
    return (isnan(a) && isnan(b)) || fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b)) + 1e-300;
}

/* A member that is absent counts as NaN. */
static double stored(const cJSON *metric, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(metric, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

/* Counts that derive from the items: those there must be right. */
static bool check_counted(const cJSON *o, const char *key, int64_t is, const char *task,
                          cm_err *err) {
    if (!cJSON_GetObjectItemCaseSensitive(o, key) || cm_json_count(o, key) == is) return true;
    return cm_fail(err, CM_EXIT_DATA, "task '%s': results.json says %s = %lld, but the items give "
                   "%lld", task, key, (long long)cm_json_count(o, key), (long long)is);
}

/* The reliability diagram is drawn from the items; its numbers in results.json must agree. */
static bool check_bins(const cm_task_result *t, const cJSON *task, cm_err *err) {
    const cJSON *bins = cJSON_GetObjectItemCaseSensitive(task, "bins"), *o;
    const cm_column *conf = cm_task_column(t, "conf"), *acc = cm_task_column(t, "acc");
    double sum[CM_ECE_BINS][3] = { 0 };
    if (!bins) return true;
    for (int64_t i = 0; conf && acc && i < t->n; i++) {
        if (conf->v[i].den == 0 || acc->v[i].den == 0) continue;
        int k = (int)ceil(conf->v[i].num * CM_ECE_BINS) - 1; /* as the ECE's: (k, k+1] / bins */
        double *in = sum[k < 0 ? 0 : k >= CM_ECE_BINS ? CM_ECE_BINS - 1 : k];
        in[0]++, in[1] += conf->v[i].num, in[2] += acc->v[i].num;
    }
    int k = 0;
    cJSON_ArrayForEach(o, bins) {
        const double *in = sum[k < CM_ECE_BINS ? k : 0];
        double n = in[0];
        if (k++ < CM_ECE_BINS && stored(o, "n") == n && near(stored(o, "conf"), in[1] / n) &&
            near(stored(o, "acc"), in[2] / n))
            continue;
        return cm_fail(err, CM_EXIT_DATA, "task '%s': bin %d of results.json is not what the items "
                       "give", t->name, k);
    }
    return k == CM_ECE_BINS || cm_fail(err, CM_EXIT_DATA, "task '%s': %d bins, not %d", t->name, k,
                                       CM_ECE_BINS);
}

/* A metric's own counts, as the writer counts them. */
static bool check_column(const cm_task_result *t, const cm_column *c, const cJSON *m,
                         cm_err *err) {
    double value = stored(m, "value"), se = stored(m, "stderr");
    int64_t n = 0;
    if (!m)
        return cm_fail(err, CM_EXIT_DATA, "task '%s': the items have scores for %s, but "
                       "results.json does not have it", t->name, c->metric->name);
    if (!near(value, c->value) || !near(se, c->stderr_))
        return cm_fail(err, CM_EXIT_DATA, "task '%s': results.json says %s = %.10g +/- %.6g, "
                       "but the items give %.10g +/- %.6g", t->name, c->metric->name, value,
                       se, c->value, c->stderr_);
    if (!isfinite(value))
        return cm_fail(err, CM_EXIT_DATA, "task '%s': %s is not finite", t->name,
                       c->metric->name);
    for (int64_t i = 0; i < t->n; i++) n += c->v[i].den != 0;
    return check_counted(m, "n", n, t->name, err);
}

/* What results.json says of the metrics must be what the items give; then it is kept. */
static bool check_metrics(cm_task_result *t, const cJSON *task, cm_err *err) {
    const cJSON *metrics = cJSON_GetObjectItemCaseSensitive(task, "metrics"), *m;
    cJSON_ArrayForEach(m, metrics) {
        if (!cm_metric_find(m->string))
            return cm_fail(err, CM_EXIT_DATA, "task '%s': unknown metric '%.60s'", t->name,
                           m->string);
        if (!cm_task_column(t, m->string))
            return cm_fail(err, CM_EXIT_DATA, "task '%s': results.json has %s, but no item has "
                           "a score for it", t->name, m->string);
    }
    for (int i = 0; i < t->n_columns; i++) {
        cm_column *c = &t->column[i];
        m = cJSON_GetObjectItemCaseSensitive(metrics, c->metric->name);
        if (!check_column(t, c, m, err)) return false;
        c->value = stored(m, "value");
        c->stderr_ = stored(m, "stderr");
    }
    if (!check_counted(task, "groups", t->n_clusters, t->name, err) || !check_bins(t, task, err))
        return false;
    if (cm_task_column(t, t->primary)) return true;
    return cm_fail(err, CM_EXIT_DATA, "task '%s': no item has its primary metric %s", t->name,
                   t->primary);
}

static bool finish_task(cm_result *r, cm_intake *in, int i, cm_err *err) {
    cm_task_result *t = in->t;
    char hash[17];
    if (in->n != t->n)
        return cm_fail(err, CM_EXIT_DATA, "task '%s': %lld of %lld items are there", t->name,
                       (long long)in->n, (long long)t->n);
    if (!cm_intake_finish(in, hash, err)) return false;
    if (strcmp(hash, t->items_hash))
        return cm_fail(err, CM_EXIT_DATA, "task '%s': the items hash to %s, but results.json "
                       "says %s", t->name, hash, t->items_hash);
    const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(r->root, "tasks");
    return check_metrics(t, cJSON_GetArrayItem(tasks, i), err);
}

/* The value or the standard error that the flat map's key names; false: no such key. */
static bool flat_value(const cm_result *r, const char *key, double *v) {
    for (int i = 0; i < r->n_tasks; i++)
        for (int k = 0; k < r->task[i].n_columns; k++) {
            const cm_column *c = &r->task[i].column[k];
            char *name = cm_strf("eval/%s/%s", r->task[i].name, c->metric->name);
            size_t n = strlen(name);
            bool value = !strcmp(key, name);
            bool se = !strncmp(key, name, n) && !strcmp(key + n, "_stderr");
            free(name);
            if (value || se) *v = value ? c->value : c->stderr_;
            if (value || se) return true;
        }
    return false;
}

/* The flat map that tables read says the same as the tasks, no more and nothing else. */
static bool check_flat(const cm_result *r, cm_err *err) {
    const cJSON *flat = cJSON_GetObjectItemCaseSensitive(r->root, "metrics"), *v;
    double is;
    cJSON_ArrayForEach(v, flat) {
        if (!flat_value(r, v->string, &is))
            return cm_fail(err, CM_EXIT_DATA, "results.json has '%.100s' in its metrics, but "
                           "no task gives it", v->string);
        if (!cJSON_IsNumber(v) || !near(v->valuedouble, is))
            return cm_fail(err, CM_EXIT_DATA, "results.json says '%.100s' = %.10g in its "
                           "metrics, but the items give %.10g", v->string, v->valuedouble, is);
    }
    return true;
}

/* The task of a line; items of one task usually follow each other. */
static cm_intake *intake_of(cm_intake *in, int n, const cJSON *line, int *last, cm_err *err) {
    const char *name = cm_json_text(line, "task");
    for (int k = 0; name && k < n; k++) {
        int i = (*last + k) % n;
        if (strcmp(in[i].t->name, name)) continue;
        *last = i;
        return &in[i];
    }
    cm_fail(err, CM_EXIT_DATA, name ? "task '%.100s' is not in results.json" : "no task%s",
            name ? name : "");
    return NULL;
}

static bool take_line(cm_intake *in, int n, const char *s, size_t len, bool details, int *last,
                      cm_err *err) {
    cJSON *line = cm_json_parse(s, len, err);
    if (!line) return false;
    cm_intake *to = intake_of(in, n, line, last, err);
    bool ok = to && cm_intake_item(to, line, details, err);
    cJSON_Delete(line);
    return ok;
}

static int64_t count_lines(const char *s, size_t n) {
    int64_t lines = 0;
    for (const char *p = s; (p = memchr(p, '\n', n - (size_t)(p - s))) != NULL; p++) lines++;
    return lines;
}

static bool take_lines(cm_intake *in, int n_tasks, const char *name, const char *s, size_t n,
                       bool details, cm_err *err) {
    int last = 0;
    int64_t number = 0;
    for (const char *end = s + n; s < end; number++) {
        const char *nl = memchr(s, '\n', (size_t)(end - s));
        cm_err why = { 0 };
        if (!nl)
            return cm_fail(err, CM_EXIT_DATA, "%s/" CM_ITEMS_FILE ":%lld: cut in the middle of a "
                           "line", name, (long long)number + 1);
        if (!take_line(in, n_tasks, s, (size_t)(nl - s), details, &last, &why))
            return cm_fail(err, why.code, "%s/" CM_ITEMS_FILE ":%lld: %s", name,
                           (long long)number + 1, why.msg);
        s = nl + 1;
    }
    return true;
}

/* How many items results.json promises; the lines must be as many before memory is taken. */
static bool check_count(const cm_result *r, int64_t lines, cm_err *err) {
    int64_t n = 0;
    for (int i = 0; i < r->n_tasks; i++) {
        if (r->task[i].n > INT32_MAX - n)
            return cm_fail(err, CM_EXIT_DATA, "too many items for one result");
        n += r->task[i].n;
    }
    if (lines >= n) return true;
    return cm_fail(err, CM_EXIT_DATA, "cut, or of another evaluation: %lld items, but "
                   "results.json has %lld", (long long)lines, (long long)n);
}

bool cm_result_items(cm_result *r, const char *name, const char *lines, size_t n, bool details,
                     cm_err *err) {
    cm_err why = { 0 };
    if (!n || !check_count(r, count_lines(lines, n) + (lines[n - 1] != '\n'), &why)) {
        cm_fail(err, CM_EXIT_DATA, "%s/" CM_ITEMS_FILE ": %s", name, n ? why.msg : "empty");
        cm_result_free(r);
        return false;
    }
    CM_ASSERT(r->n_tasks > 0, "cm_result_items before cm_result_parse");
    cm_intake *in = calloc((size_t)r->n_tasks, sizeof *in);
    CM_ASSERT(in, "out of memory: %d tasks", r->n_tasks);
    for (int i = 0; i < r->n_tasks; i++) cm_intake_open(&in[i], &r->task[i]);
    bool ok = take_lines(in, r->n_tasks, name, lines, n, details, err);
    for (int i = 0; ok && i < r->n_tasks; i++) {
        ok = finish_task(r, &in[i], i, &why);
        if (ok && i + 1 == r->n_tasks) ok = check_flat(r, &why);
        if (!ok) cm_fail(err, why.code, "%s: %s", name, why.msg);
    }
    for (int i = 0; i < r->n_tasks; i++) cm_intake_free(&in[i]);
    free(in);
    if (!ok) cm_result_free(r);
    return ok;
}

/* ---- files ---------------------------------------------------------------------------------- */

static bool read_items(const char *path, cm_buf *out, cm_err *err) {
    cm_src *src = cm_src_open(path, err);
    if (!src) return false;
    char chunk[1 << 16];
    bool ok = true;
    for (size_t got = 1; ok && got;) {
        ok = cm_src_read(src, chunk, sizeof chunk, &got, err);
        if (ok) cm_buf_add(out, chunk, got);
        if (out->n > max_items)
            ok = cm_fail(err, CM_EXIT_DATA, "%s: more than 2 GiB of items", path);
    }
    cm_src_close(src);
    return ok;
}

/* The folder of a result given by its folder or its results.json. */
static char *folder_of(const char *path) {
    struct stat st;
    if (stat(path, &st) || S_ISDIR(st.st_mode)) {
        size_t n = strlen(path);
        while (n > 1 && path[n - 1] == '/') n--;
        return cm_strf("%.*s", (int)n, path);
    }
    const char *slash = strrchr(path, '/');
    return slash ? cm_strf("%.*s", (int)(slash - path), path) : cm_strf(".");
}

bool cm_result_read(cm_result *r, const char *path, bool details, cm_err *err) {
    *r = (cm_result){ 0 };
    char *dir = folder_of(path), *json = NULL;
    char *head = cm_strf("%s/results.json", dir), *items = cm_strf("%s/" CM_ITEMS_FILE, dir);
    char *partial = cm_strf("%s/" CM_PARTIAL_FILE, dir);
    size_t n;
    cm_buf lines = { 0 };
    bool ok;
    if (!cm_exists(head) && cm_exists(partial))
        ok = cm_fail(err, CM_EXIT_DATA, "%s: an unfinished evaluation; run it to its end", dir);
    else if (!cm_exists(head))
        ok = cm_fail(err, CM_EXIT_USAGE, "%s: no evaluation here (no results.json)", dir);
    else if (!cm_exists(items))
        ok = cm_fail(err, CM_EXIT_DATA, "%s: results.json without " CM_ITEMS_FILE, dir);
    else
        ok = cm_read_file(head, MAX_JSON, &json, &n, err) &&
             cm_result_parse(r, dir, json, n, err) &&
             (read_items(items, &lines, err) || (cm_result_free(r), false)) &&
             cm_result_items(r, dir, lines.s ? lines.s : "", lines.n, details, err);
    cm_buf_free(&lines);
    free(json);
    free(head), free(items), free(partial), free(dir);
    return ok;
}

/* ---- access --------------------------------------------------------------------------------- */

const cm_column *cm_task_column(const cm_task_result *t, const char *metric) {
    for (int i = 0; i < t->n_columns; i++)
        if (!strcmp(t->column[i].metric->name, metric)) return &t->column[i];
    return NULL;
}

const cm_task_result *cm_result_task(const cm_result *r, const char *name) {
    for (int i = 0; i < r->n_tasks; i++)
        if (!strcmp(r->task[i].name, name)) return &r->task[i];
    return NULL;
}

static void free_texts(char **s, int64_t n) {
    for (int64_t i = 0; s && i < n; i++) free(s[i]);
    free(s);
}

void cm_task_result_free(cm_task_result *t) {
    free_texts(t->id, t->n);
    free_texts(t->group, t->n);
    free_texts(t->detail, t->n);
    for (int i = 0; i < t->n_columns; i++) {
        free(t->column[i].v);
        free(t->column[i].conf);
    }
    free(t->column);
    free(t->hash);
    free(t->cluster);
    free(t->name);
    free(t->primary);
    *t = (cm_task_result){ 0 };
}

void cm_result_free(cm_result *r) {
    for (int i = 0; i < r->n_tasks; i++) cm_task_result_free(&r->task[i]);
    free(r->task);
    free(r->path);
    cJSON_Delete(r->root);
    *r = (cm_result){ 0 };
}
