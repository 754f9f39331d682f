/* item.c -- one item as a line of JSON, in both directions, and tasks made of them. */
#include "results/results_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- out ----------------------------------------------------------------------------------- */

static void add_part(cm_sha *h, const char *s) {
    uint64_t n = strlen(s);
    uint8_t le[8];
    for (int i = 0; i < 8; i++) le[i] = (uint8_t)(n >> (8 * i));
    cm_sha_add(h, le, sizeof le);
    cm_sha_add(h, s, n);
}

static void close16(cm_sha *h, char out[17]) {
    char hex[65];
    cm_sha_close(h, hex);
    memcpy(out, hex, 16);
    out[16] = 0;
}

void cm_item_hash(const char *const *part, int n, char hash[17]) {
    cm_sha *h = cm_sha_open();
    for (int i = 0; i < n; i++) add_part(h, part[i]);
    close16(h, hash);
}

void cm_item_json(const cm_item *it, cm_buf *out) {
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    cm_json_str(&b, "task", it->task);
    cm_json_str(&b, "id", it->id);
    cm_json_str(&b, "hash", it->hash);
    if (it->group) cm_json_str(&b, "group", it->group);
    cm_json_open(&b, "scores", '{');
    for (int i = 0; i < it->n_scores; i++) {
        const cm_item_score *s = &it->score[i];
        if (s->metric->kind == CM_METRIC_MEAN) {
            cm_json_f64(&b, s->metric->name, s->val.num);
            continue;
        }
        cm_json_open(&b, s->metric->name, '[');
        cm_json_f64(&b, NULL, s->val.num);
        cm_json_f64(&b, NULL, s->val.den);
        cm_json_close(&b, '[');
    }
    cm_json_close(&b, '{');
    if (it->detail) cm_json_raw(&b, "detail", it->detail);
    cm_json_close(&b, '{');
    cm_buf_add(out, b.s, b.n);
    cm_buf_free(&b);
}

/* ---- JSON in ------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b) {
    return strcmp((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

/* A key that an object, or one inside it, has twice; or NULL. */
static const char *key_twice(const cJSON *v) {
    const char *twice = NULL;
    const cJSON *e;
    if (cJSON_IsObject(v) && v->child && v->child->next) {
        int n = cJSON_GetArraySize(v), k = 0;
        const cJSON **all = malloc((size_t)n * sizeof *all);
        CM_ASSERT(all, "out of memory: %d members", n);
        cJSON_ArrayForEach(e, v) all[k++] = e;
        qsort(all, (size_t)n, sizeof *all, by_key);
        for (k = 1; k < n && !twice; k++)
            if (!strcmp(all[k]->string, all[k - 1]->string)) twice = all[k]->string;
        free(all);
    }
    if (cJSON_IsObject(v) || cJSON_IsArray(v))
        for (e = v->child; e && !twice; e = e->next) twice = key_twice(e);
    return twice;
}

bool cm_json_strict(const cJSON *v, const char *s, size_t n, cm_err *err) {
    for (const char *p = s; (p = memchr(p, '\\', n - (size_t)(p - s))); p += 2) {
        if (n - (size_t)(p - s) < 2) break;
        if (n - (size_t)(p - s) >= 6 && !memcmp(p + 1, "u0000", 5))
            return cm_fail(err, CM_EXIT_DATA, "\\u0000 at byte %zu: a character that no text "
                           "holds", (size_t)(p - s));
    }
    const char *twice = key_twice(v);
    return !twice || cm_fail(err, CM_EXIT_DATA, "key '%.100s' twice in one object", twice);
}

cJSON *cm_json_parse(const char *s, size_t n, cm_err *err) {
    size_t bad = 0;
    if (!cm_utf8_valid(s, n, &bad)) {
        cm_fail(err, CM_EXIT_DATA, "invalid UTF-8 at byte %zu", bad);
        return NULL;
    }
    const char *end = NULL;
    cJSON *v = cJSON_ParseWithLengthOpts(s, n, &end, 0);
    size_t at = end ? (size_t)(end - s) : 0;
    if (!v) {
        cm_fail(err, CM_EXIT_DATA, at + 1 >= n ? "cut in the middle: the JSON stops at byte %zu"
                                               : "not JSON at byte %zu", at);
        return NULL;
    }
    while (at < n && strchr(" \t\r\n", s[at]) && s[at]) at++;
    if (at == n && cm_json_strict(v, s, n, err)) return v;
    if (at < n) cm_fail(err, CM_EXIT_DATA, "more text after the JSON, at byte %zu", at);
    cJSON_Delete(v);
    return NULL;
}

const char *cm_json_text(const cJSON *o, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
}

int64_t cm_json_count(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    double x = cJSON_IsNumber(v) ? v->valuedouble : -1;
    return x >= 0 && x <= 9007199254740992.0 && x == floor(x) ? (int64_t)x : -1;
}

bool cm_is_hash16(const char *s) {
    return s && strlen(s) == 16 && strspn(s, "0123456789abcdef") == 16;
}

/* ---- intake --------------------------------------------------------------------------------- */

static void *zeros(int64_t n, size_t size) {
    void *p = calloc((size_t)n, size);
    CM_ASSERT(p, "out of memory: %lld items", (long long)n);
    return p;
}

static char *copy(const char *s) { return s ? cm_strf("%s", s) : NULL; }

void cm_intake_open(cm_intake *in, cm_task_result *t) {
    *in = (cm_intake){ .t = t };
    t->id = zeros(t->n, sizeof *t->id);
    t->group = zeros(t->n, sizeof *t->group);
    t->detail = zeros(t->n, sizeof *t->detail);
    t->hash = zeros(t->n, sizeof *t->hash);
    t->cluster = zeros(t->n, sizeof *t->cluster);
}

void cm_intake_free(cm_intake *in) {
    for (int m = 0; m < CM_N_METRICS; m++) free(in->score[m]);
    *in = (cm_intake){ 0 };
}

/* A number, refused with its text when it is not finite. */
static bool number(const cJSON *v, const char *id, const char *metric, double *out,
                   cm_err *err) {
    const char *text = cJSON_GetStringValue(v);
    if (text || (cJSON_IsNumber(v) && !isfinite(v->valuedouble)))
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': score %s is %.20s, which no "
                       "comparison can use", id, metric, text ? text : "infinite");
    if (!cJSON_IsNumber(v))
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': score %s is not a number", id, metric);
    *out = v->valuedouble;
    return true;
}

static bool take_score(cm_intake *in, const cJSON *v, const char *id, cm_err *err) {
    const cm_metric *m = cm_metric_find(v->string);
    if (!m)
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': unknown metric '%.60s'", id, v->string);
    cm_score_val s = { 0, 1 };
    if (m->kind == CM_METRIC_ECE)
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': %s is computed from conf and acc, "
                       "never stored with items", id, m->name);
    if (m->kind == CM_METRIC_MEAN) {
        if (!number(v, id, m->name, &s.num, err)) return false;
    } else if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) != 2) {
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': score %s wants [numerator, "
                       "denominator]", id, m->name);
    } else if (!number(cJSON_GetArrayItem(v, 0), id, m->name, &s.num, err) ||
               !number(cJSON_GetArrayItem(v, 1), id, m->name, &s.den, err)) {
        return false;
    }
    if (s.den < 0)
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': the denominator of %s is negative", id,
                       m->name);
    if (cm_metric_index(m) == CM_M_conf && !(s.num >= 0 && s.num <= 1 + 1e-9))
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': conf is %g, but a confidence lies "
                       "between 0 and 1", id, s.num);
    cm_score_val **col = &in->score[cm_metric_index(m)];
    if (!*col) *col = zeros(in->t->n, sizeof **col);
    if ((*col)[in->n].den != 0)
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': score %s stands there twice", id,
                       m->name);
    (*col)[in->n] = s;
    return true;
}

bool cm_intake_item(cm_intake *in, const cJSON *line, bool details, cm_err *err) {
    cm_task_result *t = in->t;
    const char *id = cm_json_text(line, "id"), *hash = cm_json_text(line, "hash");
    const cJSON *scores = cJSON_GetObjectItemCaseSensitive(line, "scores"), *v;
    if (!id || !*id) return cm_fail(err, CM_EXIT_DATA, "an item without an id");
    if (!cm_is_hash16(hash))
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': hash is not 16 hex digits", id);
    if (!cJSON_IsObject(scores))
        return cm_fail(err, CM_EXIT_DATA, "item '%.100s': no scores", id);
    if (in->n == t->n)
        return cm_fail(err, CM_EXIT_DATA, "task '%s' has more than its %lld items", t->name,
                       (long long)t->n);
    cJSON_ArrayForEach(v, scores)
        if (!take_score(in, v, id, err)) return false;
    const cJSON *detail = cJSON_GetObjectItemCaseSensitive(line, "detail");
    if (details && detail) {
        char *text = cJSON_PrintUnformatted(detail);
        t->detail[in->n] = copy(text);
        cJSON_free(text);
    }
    t->id[in->n] = copy(id);
    t->group[in->n] = copy(cm_json_text(line, "group"));
    memcpy(t->hash[in->n], hash, 17);
    in->n++;
    return true;
}

/* ---- what the items make together ----------------------------------------------------------- */

static int by_text(const void *a, const void *b, void *ctx) {
    char *const *s = ctx;
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    int c = strcmp(s[i], s[j]);
    return c ? c : (i > j) - (i < j);
}

bool cm_items_hash(char *const *id, char (*const hash)[17], int64_t n, int64_t *order,
                   char out[17], int64_t *dup) {
    for (int64_t i = 0; i < n; i++) order[i] = i;
    qsort_r(order, (size_t)n, sizeof *order, by_text, (void *)(uintptr_t)id);
    cm_sha *h = cm_sha_open();
    bool unique = true;
    for (int64_t i = 0; i < n; i++) {
        if (i && !strcmp(id[order[i]], id[order[i - 1]])) {
            unique = false;
            *dup = order[i];
        }
        add_part(h, id[order[i]]);
        add_part(h, hash[order[i]]);
    }
    close16(h, out);
    return unique;
}

/* Numbers of clusters by first appearance; an item without a group is one by itself. */
static void number_clusters(cm_task_result *t, int64_t *order) {
    int64_t n = 0, next = 0;
    int64_t *first = zeros(t->n, sizeof *first); /* lowest item of each item's cluster */
    for (int64_t i = 0; i < t->n; i++) {
        first[i] = i;
        if (t->group[i]) order[n++] = i;
    }
    qsort_r(order, (size_t)n, sizeof *order, by_text, t->group);
    for (int64_t k = 1; k < n; k++)
        if (!strcmp(t->group[order[k]], t->group[order[k - 1]]))
            first[order[k]] = first[order[k - 1]];
    for (int64_t i = 0; i < t->n; i++)
        t->cluster[i] = first[i] == i ? (int32_t)next++ : t->cluster[first[i]];
    t->n_clusters = next;
    free(first);
}

static void add_column(cm_task_result *t, const cm_metric *m, cm_score_val *v, double *conf) {
    cm_column *c = &t->column[t->n_columns++];
    *c = (cm_column){ .metric = m, .v = v, .conf = conf };
    c->value = cm_metric_value(m, v, conf, NULL, t->n);
    c->stderr_ = cm_metric_stderr(m, v, t->cluster, t->n);
}

/* Confidences of the items that have both scores, NaN elsewhere; NULL when none has. */
static double *confidences(const cm_intake *in) {
    const cm_score_val *conf = in->score[CM_M_conf], *acc = in->score[CM_M_acc];
    if (!conf || !acc) return NULL;
    double *out = zeros(in->t->n, sizeof *out);
    bool any = false;
    for (int64_t i = 0; i < in->t->n; i++) {
        bool both = conf[i].den != 0 && acc[i].den != 0;
        out[i] = both ? conf[i].num : NAN;
        any |= both;
    }
    if (!any) free(out);
    return any ? out : NULL;
}

static void make_columns(cm_intake *in) {
    cm_task_result *t = in->t;
    t->column = zeros(CM_N_METRICS, sizeof *t->column);
    double *conf = confidences(in);
    if (conf) {
        cm_score_val *acc = zeros(t->n, sizeof *acc);
        memcpy(acc, in->score[CM_M_acc], (size_t)t->n * sizeof *acc);
        in->score[CM_M_ece] = acc;
    }
    int n;
    const cm_metric *all = cm_metrics(&n);
    for (int m = 0; m < n; m++) {
        if (!in->score[m]) continue;
        add_column(t, &all[m], in->score[m], m == CM_M_ece ? conf : NULL);
        in->score[m] = NULL;
    }
}

bool cm_intake_finish(cm_intake *in, char hash[17], cm_err *err) {
    cm_task_result *t = in->t;
    CM_ASSERT(in->n == t->n, "task %s: %lld of %lld items", t->name, (long long)in->n,
              (long long)t->n);
    int64_t *order = zeros(t->n, sizeof *order), dup = 0;
    bool ok = cm_items_hash(t->id, t->hash, t->n, order, hash, &dup) ||
              cm_fail(err, CM_EXIT_DATA, "task '%s': item '%.100s' occurs twice", t->name,
                      t->id[dup]);
    if (ok) {
        number_clusters(t, order);
        make_columns(in);
    }
    free(order);
    return ok;
}
