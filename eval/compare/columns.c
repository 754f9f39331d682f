/* columns.c -- the scores of one metric side by side, and the items that changed. */
#include "compare/compare_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cm_score_val absent = {0, 0};

static cm_score_val score(const cm_column *c, const int64_t *at, int64_t i) {
    return c ? c->v[at[i]] : absent;
}

typedef struct {
    const cm_column **a, **b;
} columns;

static bool find_columns(columns *c, const cm_task_pair *p, const cm_metric *m, char *reason) {
    c->a = cm_scratch(p->na, sizeof *c->a);
    c->b = cm_scratch(p->nb, sizeof *c->b);
    bool ok = true;
    for (int s = 0; s < p->na; s++) ok = (c->a[s] = cm_task_column(p->a[s], m->name)) && ok;
    for (int s = 0; s < p->nb; s++) ok = (c->b[s] = cm_task_column(p->b[s], m->name)) && ok;
    if (!ok) snprintf(reason, 320, "not measured in every result");
    return ok;
}

/* Items that all results score; an item that only some do makes the metric incomparable. */
static bool choose_items(cm_scores *s, const cm_task_pair *p, const columns *c, char *reason) {
    const cm_task_result *t = p->first;
    for (int64_t i = 0; i < t->n; i++) {
        int have = 0;
        for (int k = 0; k < p->na; k++) have += score(c->a[k], p->ia[k], i).den != 0;
        for (int k = 0; k < p->nb; k++) have += score(c->b[k], p->ib[k], i).den != 0;
        if (have == p->na + p->nb) s->item[s->n++] = i;
        else if (have) {
            snprintf(reason, 320, "item '%.100s' has a score in some results and none in others",
                     t->id[i]);
            return false;
        }
    }
    if (!s->n) snprintf(reason, 320, "no item has a score");
    return s->n > 0;
}

static void number_clusters(cm_scores *s, const cm_task_result *t, bool cluster) {
    if (!cluster || t->n_clusters >= t->n) {
        for (int64_t i = 0; i < s->n; i++) s->cluster[i] = (int32_t)i;
        s->G = s->n;
        return;
    }
    int32_t *now = cm_scratch(t->n_clusters, sizeof *now); /* number + 1 */
    for (int64_t i = 0; i < s->n; i++) {
        int32_t *c = &now[t->cluster[s->item[i]]];
        if (!*c) *c = (int32_t)++s->G;
        s->cluster[i] = *c - 1;
    }
    free(now);
}

static cm_score_val *copy(const cm_column *c, const int64_t *at, const cm_scores *s,
                          double **conf) {
    cm_score_val *v = cm_scratch(s->n, sizeof *v);
    *conf = c->conf ? cm_scratch(s->n, sizeof **conf) : NULL;
    for (int64_t i = 0; i < s->n; i++) {
        v[i] = c->v[at[s->item[i]]];
        if (c->conf) (*conf)[i] = c->conf[at[s->item[i]]];
    }
    return v;
}

bool cm_scores_make(cm_scores *s, const cm_task_pair *p, const cm_metric *m, bool cluster,
                    char reason[320]) {
    columns c;
    *s = (cm_scores){.na = p->na, .nb = p->nb};
    s->item = cm_scratch(p->first->n, sizeof *s->item);
    s->cluster = cm_scratch(p->first->n, sizeof *s->cluster);
    s->a = cm_scratch(p->na, sizeof *s->a);
    s->b = cm_scratch(p->nb, sizeof *s->b);
    s->conf_a = cm_scratch(p->na, sizeof *s->conf_a);
    s->conf_b = cm_scratch(p->nb, sizeof *s->conf_b);
    bool ok = find_columns(&c, p, m, reason) && choose_items(s, p, &c, reason);
    if (ok) {
        number_clusters(s, p->first, cluster);
        for (int k = 0; k < p->na; k++) s->a[k] = copy(c.a[k], p->ia[k], s, &s->conf_a[k]);
        for (int k = 0; k < p->nb; k++) s->b[k] = copy(c.b[k], p->ib[k], s, &s->conf_b[k]);
    }
    free(c.a);
    free(c.b);
    if (!ok) cm_scores_free(s);
    return ok;
}

void cm_scores_free(cm_scores *s) {
    for (int k = 0; k < s->na; k++) free(s->a[k]), free(s->conf_a[k]);
    for (int k = 0; k < s->nb; k++) free(s->b[k]), free(s->conf_b[k]);
    free(s->a), free(s->b), free(s->conf_a), free(s->conf_b);
    free(s->item), free(s->cluster);
    *s = (cm_scores){0};
}

/* ---- flips ------------------------------------------------------------------------ */

/* Mean over seeds of the item's score num / den; NaN where a result has none. */
static double mean_score(const cm_task_result *const *t, int64_t *const *at, int n,
                         const char *metric, int64_t i) {
    double sum = 0;
    for (int s = 0; s < n; s++) {
        const cm_column *c = cm_task_column(t[s], metric);
        cm_score_val v = score(c, at[s], i);
        sum += v.den != 0 ? v.num / v.den : NAN;
    }
    return sum / n;
}

static double change(const cm_flip *f) {
    double m = fabs(f->cand_margin - f->base_margin);
    return isnan(m) ? fabs(f->cand - f->base) : m;
}

static int by_change(const void *a, const void *b) {
    double x = change(a), y = change(b);
    return x != y ? (x < y) - (x > y) : strcmp(((const cm_flip *)a)->id, ((const cm_flip *)b)->id);
}

static cm_flip flip_of(const cm_task_pair *p, const char *metric, int64_t i) {
    const cm_task_result *t = p->first, *u = p->b[0];
    int64_t j = p->ib[0][i];
    const cm_task_result *const *a = p->a, *const *b = p->b;
    return (cm_flip){
        .id = t->id[i],
        .group = t->group[i],
        .hash = t->hash[i],
        .base = mean_score(a, p->ia, p->na, metric, i),
        .cand = mean_score(b, p->ib, p->nb, metric, i),
        .base_margin = mean_score(a, p->ia, p->na, "margin", i),
        .cand_margin = mean_score(b, p->ib, p->nb, "margin", i),
        .base_detail = t->detail ? t->detail[i] : NULL,
        .cand_detail = u->detail ? u->detail[j] : NULL,
    };
}

void cm_flips_make(cm_flips *f, const cm_task_pair *p, const cm_metric *m, cm_compare_mem *mem) {
    int64_t n = p->first->n, lost = 0, gained = 0;
    *f = (cm_flips){.task = p->first->name, .metric = m};
    cm_flip *all = cm_scratch(n, sizeof *all), *up = cm_scratch(n, sizeof *up);
    for (int64_t i = 0; i < n; i++) {
        cm_flip one = flip_of(p, m->name, i);
        double d = (one.cand - one.base) * (m->higher ? 1 : -1);
        if (d < 0) all[lost++] = one;
        else if (d > 0) up[gained++] = one;
        else f->n_same += d == 0;
    }
    qsort(all, (size_t)lost, sizeof *all, by_change);
    qsort(up, (size_t)gained, sizeof *up, by_change);
    f->n_lost = lost;
    f->n_gained = gained;
    f->lost = cm_keep(mem, (size_t)(lost + 1) * sizeof *all);
    f->gained = cm_keep(mem, (size_t)(gained + 1) * sizeof *up);
    memcpy(f->lost, all, (size_t)lost * sizeof *all);
    memcpy(f->gained, up, (size_t)gained * sizeof *up);
    free(all);
    free(up);
}
