/* compare_fixture.h -- results made in memory, for tests of comparisons. */
#ifndef COMPARE_FIXTURE_H
#define COMPARE_FIXTURE_H

#include "compare/compare.h"
#include "tests/t.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TASKS = 4, MAX_COLS = 4 };
#define TEXT(s) ((char *)(uintptr_t)(s))

typedef struct {
    cm_result r;
    cm_task_result t[MAX_TASKS];
    cm_column col[MAX_TASKS][MAX_COLS];
} made;

static cm_column *add_column(made *m, int task, const char *metric) {
    cm_task_result *t = &m->t[task];
    cm_column *c = &m->col[task][t->n_columns++];
    *c = (cm_column){.metric = cm_metric_find(metric), .v = calloc((size_t)t->n, sizeof *c->v)};
    CM_ASSERT(c->metric && c->v, "column %s", metric);
    for (int64_t i = 0; i < t->n; i++) c->v[i].den = 1;
    return c;
}

/* Adds a task of n items, `per` in a group; its primary metric's column comes back. */
static cm_column *add_task(made *m, const char *name, int64_t n, int per, const char *metric) {
    int k = m->r.n_tasks++;
    cm_task_result *t = &m->t[k];
    *t = (cm_task_result){.name = TEXT(name), .primary = TEXT(metric), .version = 1, .n = n,
                          .n_clusters = (n + per - 1) / per, .column = m->col[k]};
    strcpy(t->definition, "0123456789abcdef");
    t->id = calloc((size_t)n, sizeof *t->id);
    t->group = calloc((size_t)n, sizeof *t->group);
    t->hash = calloc((size_t)n, sizeof *t->hash);
    t->cluster = calloc((size_t)n, sizeof *t->cluster);
    for (int64_t i = 0; i < n; i++) {
        t->id[i] = cm_strf("item/%lld", (long long)i);
        t->group[i] = per > 1 ? cm_strf("g%lld", (long long)(i / per)) : NULL;
        snprintf(t->hash[i], 17, "%016llx", (unsigned long long)i * 77);
        t->cluster[i] = (int32_t)(i / per);
    }
    m->r.task = m->t;
    return add_column(m, k, metric);
}

static void set_text(made *m, const char *object, const char *key, const char *value) {
    if (!m->r.root) m->r.root = cJSON_CreateObject();
    cJSON *o = cJSON_GetObjectItemCaseSensitive(m->r.root, object);
    if (!o) o = cJSON_AddObjectToObject(m->r.root, object);
    cJSON_DeleteItemFromObjectCaseSensitive(o, key);
    cJSON_AddStringToObject(o, key, value);
}

static made *new_result(const char *path) {
    made *m = calloc(1, sizeof *m);
    CM_ASSERT(m, "out of memory");
    m->r.path = TEXT(path);
    set_text(m, "model", "sha256", path);
    set_text(m, "model", "tokenizer_sha256", "same");
    return m;
}

static void free_made(made *m) {
    for (int k = 0; k < m->r.n_tasks; k++) {
        cm_task_result *t = &m->t[k];
        for (int64_t i = 0; i < t->n; i++) free(t->id[i]), free(t->group[i]);
        free(t->id), free(t->group), free(t->hash), free(t->cluster);
        for (int c = 0; c < t->n_columns; c++) free(t->column[c].v), free(t->column[c].conf);
    }
    cJSON_Delete(m->r.root);
    free(m);
}

/* One task: the first `right` of n items right, but `lost` of them wrong in the candidate and
 * `gained` of the wrong ones right. */
static made *counts(const char *path, int64_t n, int64_t right, int64_t lost, int64_t gained) {
    made *m = new_result(path);
    cm_column *c = add_task(m, "quiz", n, 1, "acc");
    for (int64_t i = 0; i < n; i++)
        c->v[i].num = i < right ? i >= lost : i < right + gained;
    return m;
}

static cm_regress_conf defaults(void) {
    return (cm_regress_conf){.alpha = 0.05, .power = 0.8, .resamples = 500, .seed = 1,
                             .cluster = true};
}

#endif
