/* items.c -- items that flipped, as people read them; groups in which most was lost. */
#include "report/report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A member as text: strings as they are, other values as JSON. */
static char *text_of(const cJSON *v) {
    if (!v || cJSON_IsNull(v)) return NULL;
    if (cJSON_IsString(v)) return cm_strf("%s", v->valuestring);
    char *json = cJSON_PrintUnformatted(v), *out = json ? cm_strf("%s", json) : NULL;
    cJSON_free(json);
    return out;
}

static const cJSON *first_of(const cJSON *o, const char *const *key, int n) {
    for (int i = 0; i < n; i++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key[i]);
        if (v) return v;
    }
    return NULL;
}

/* What could be chosen: the answers, or where the answer is given the contexts. */
static const cJSON *choices_of(const cJSON *detail) {
    static const char *const keys[] = { "choices", "contexts" };
    return first_of(detail, keys, 2);
}

/* An index into the choices becomes that choice's text. */
static char *choice_text(const cJSON *detail, const cJSON *v) {
    const cJSON *choices = choices_of(detail);
    if (cJSON_IsNumber(v) && cJSON_IsArray(choices)) {
        const cJSON *c = cJSON_GetArrayItem(choices, (int)v->valuedouble);
        if (c) return text_of(c);
    }
    return text_of(v);
}

/* The likeliest choice where the prediction is not said. */
static char *likeliest(const cJSON *detail) {
    const cJSON *ll = cJSON_GetObjectItemCaseSensitive(detail, "loglik"), *v;
    int i = 0, best = -1;
    double most = -INFINITY;
    cJSON_ArrayForEach(v, ll) {
        if (cJSON_IsNumber(v) && v->valuedouble > most) most = v->valuedouble, best = i;
        i++;
    }
    const cJSON *c = best >= 0 ? cJSON_GetArrayItem(choices_of(detail), best) : NULL;
    return c ? text_of(c) : NULL;
}

static char *said(const char *detail_json) {
    static const char *const keys[] = { "out", "pred" };
    cJSON *d = detail_json ? cJSON_Parse(detail_json) : NULL;
    const cJSON *v = first_of(d, keys, 2);
    char *s = v ? choice_text(d, v) : likeliest(d);
    cJSON_Delete(d);
    return s ? s : cm_strf("%s", "");
}

/* The right choice, the first of several; else the reference answer. */
static char *gold_of(const cJSON *d) {
    static const char *const keys[] = { "right", "gold", "answer", "target" };
    const cJSON *g = first_of(d, keys, 4);
    if (cJSON_IsArray(g)) g = cJSON_GetArrayItem(g, 0);
    char *s = g ? choice_text(d, g) : NULL;
    return s ? s : cm_strf("%s", "");
}

cm_answer cm_answer_of(const cm_flip *f) {
    static const char *const asked[] = { "prompt", "asked", "begins" };
    const char *json = f->base_detail ? f->base_detail : f->cand_detail;
    cJSON *d = json ? cJSON_Parse(json) : NULL;
    cm_answer a = { text_of(first_of(d, asked, 3)), gold_of(d), said(f->base_detail),
                    said(f->cand_detail) };
    cJSON_Delete(d);
    if (!a.asked) a.asked = cm_strf("%s", "");
    return a;
}

void cm_answer_free(cm_answer *a) {
    free(a->asked), free(a->gold), free(a->base), free(a->cand);
    *a = (cm_answer){ 0 };
}

/* ---- groups ------------------------------------------------------------------- */

enum { MIN_GROUPS = 2, MAX_GROUPS = 2000, MIN_PER_GROUP = 4 };

static int by_id(const void *a, const void *b, void *ctx) {
    char *const *id = ctx;
    return strcmp(id[*(const int64_t *)a], id[*(const int64_t *)b]);
}

static int64_t *sorted(const cm_task_result *t) {
    int64_t *at = malloc((size_t)t->n * sizeof *at);
    CM_ASSERT(at, "out of memory: %lld items", (long long)t->n);
    for (int64_t i = 0; i < t->n; i++) at[i] = i;
    qsort_r(at, (size_t)t->n, sizeof *at, by_id, t->id);
    return at;
}

/* Scores of both sides per cluster of the baseline, items paired by id. */
static void sum_groups(const cm_task_result *a, const cm_task_result *b, const cm_metric *m,
                       cm_slice *s, cm_score_val *va, cm_score_val *vb) {
    const cm_column *ca = cm_task_column(a, m->name), *cb = cm_task_column(b, m->name);
    int64_t *ia = sorted(a), *ib = sorted(b);
    for (int64_t i = 0, k = 0; i < a->n; i++) {
        int64_t x = ia[i];
        int c = 1;
        while (k < b->n && (c = strcmp(b->id[ib[k]], a->id[x])) < 0) k++;
        if (k == b->n || c || ca->v[x].den == 0 || cb->v[ib[k]].den == 0) continue;
        int32_t g = a->cluster[x];
        s[g].group = a->group[x];
        s[g].n++;
        va[g].num += ca->v[x].num, va[g].den += ca->v[x].den;
        vb[g].num += cb->v[ib[k]].num, vb[g].den += cb->v[ib[k]].den;
    }
    free(ia), free(ib);
}

static int by_loss(const void *a, const void *b) {
    const cm_slice *x = a, *y = b;
    double d = (x->cand - x->base) - (y->cand - y->base);
    return d < 0 ? -1 : d > 0 ? 1 : strcmp(x->group, y->group);
}

cm_slice *cm_slices(const cm_report *r, int pair, const cm_metric_cmp *m, int *n) {
    *n = 0;
    if (!r->side || pair + 1 >= r->n_sides || m->metric->kind == CM_METRIC_ECE) return NULL;
    const cm_task_result *a = cm_result_task(r->side[0].seed[0], m->task);
    const cm_task_result *b = cm_result_task(r->side[pair + 1].seed[0], m->task);
    if (!a || !b || a->n_clusters < MIN_GROUPS || a->n_clusters > MAX_GROUPS ||
        a->n < MIN_PER_GROUP * a->n_clusters || !cm_task_column(a, m->metric->name) ||
        !cm_task_column(b, m->metric->name))
        return NULL;
    size_t G = (size_t)a->n_clusters;
    cm_slice *s = calloc(G, sizeof *s);
    cm_score_val *va = calloc(G, sizeof *va), *vb = calloc(G, sizeof *vb);
    CM_ASSERT(s && va && vb, "out of memory: %zu groups", G);
    sum_groups(a, b, m->metric, s, va, vb);
    int kept = 0;
    double sign = m->metric->higher ? 1 : -1; /* sort by gain; put back below */
    for (size_t g = 0; g < G; g++) {
        if (!s[g].group || !(va[g].den > 0) || !(vb[g].den > 0)) continue;
        double x = cm_metric_value(m->metric, &va[g], NULL, NULL, 1);
        double y = cm_metric_value(m->metric, &vb[g], NULL, NULL, 1);
        s[kept++] = (cm_slice){ s[g].group, s[g].n, sign * x, sign * y };
    }
    qsort(s, (size_t)kept, sizeof *s, by_loss);
    for (int i = 0; i < kept; i++) s[i].base *= sign, s[i].cand *= sign;
    free(va), free(vb);
    *n = kept;
    if (kept >= MIN_GROUPS) return s;
    free(s);
    return NULL;
}
