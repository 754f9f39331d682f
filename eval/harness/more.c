/* more.c -- what results.json says of a task besides its metrics: slices, calibration bins,
 * human reference, the quantization card, clean against contaminated items.  All of it
 * comes from the items' records, so it is the same after an interruption. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/harness.h"
#include "stats/stats.h"

/* ---- tables of sums by name ------------------------------------------------------ */

typedef struct {
    char *name;
    int64_t n; /* items that contribute */
    int n_metrics;
    const cm_metric *metric[CM_MAX_SCORES];
    cm_score_val sum[CM_MAX_SCORES];
} slice;
typedef struct {
    slice *v;
    int n, cap;
} slices;

/* The slice of that name, made where it is new: in order of first appearance. */
static slice *slice_of(slices *s, const char *name) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->v[i].name, name)) return &s->v[i];
    if (s->n == s->cap) {
        s->cap = 2 * s->cap + 16;
        s->v = realloc(s->v, (size_t)s->cap * sizeof *s->v);
        CM_ASSERT(s->v, "out of memory: slices");
    }
    s->v[s->n] = (slice){ .name = cm_strf("%s", name) };
    return &s->v[s->n++];
}

static void add(slice *s, const cm_metric *m, double num, double den) {
    int k = 0;
    while (k < s->n_metrics && s->metric[k] != m) k++;
    if (k == CM_MAX_SCORES || !m) return;
    if (k == s->n_metrics) s->metric[s->n_metrics++] = m;
    s->sum[k].num += num;
    s->sum[k].den += den;
}

/* {"acc":[3,8], "loop":1, ...} into a slice. */
static void add_object(slice *s, const cJSON *o) {
    const cJSON *v;
    s->n++;
    cJSON_ArrayForEach(v, o) {
        const cJSON *num = cJSON_GetArrayItem(v, 0), *den = cJSON_GetArrayItem(v, 1);
        const cm_metric *m = cm_metric_find(v->string);
        if (cJSON_IsNumber(v)) add(s, m, v->valuedouble, 1);
        else if (cJSON_IsNumber(num) && cJSON_IsNumber(den))
            add(s, m, num->valuedouble, den->valuedouble);
    }
}

static void add_item(slice *s, const cm_task_result *t, int64_t i) {
    s->n++;
    for (int c = 0; c < t->n_columns; c++) {
        const cm_column *col = &t->column[c];
        if (col->metric->kind != CM_METRIC_ECE && col->v[i].den > 0)
            add(s, col->metric, col->v[i].num, col->v[i].den);
    }
}

static void slice_json(cm_buf *b, const char *key, const slice *s) {
    cm_json_open(b, key, '{');
    for (int k = 0; k < s->n_metrics; k++) {
        double v = cm_metric_value(s->metric[k], &s->sum[k], NULL, NULL, 1);
        if (isfinite(v)) cm_json_f64(b, s->metric[k]->name, v);
    }
    cm_json_i64(b, "n", s->n);
    /* What a mean within items is over, where that is not the items. */
    if (s->n_metrics && s->sum[0].den != (double)s->n) cm_json_f64(b, "of", s->sum[0].den);
    cm_json_close(b, '{');
}

/* "gap=8-15": by what comes before "=", then by the number behind it. */
static int by_name(const void *a, const void *b) {
    const char *x = ((const slice *)a)->name, *y = ((const slice *)b)->name;
    size_t n = strcspn(x, "="), m = strcspn(y, "=");
    int c = n == m ? strncmp(x, y, n) : strcmp(x, y);
    if (c || !x[n] || !y[m]) return c ? c : strcmp(x, y);
    double u = strtod(x + n + 1, NULL), v = strtod(y + m + 1, NULL);
    return u != v ? (u > v) - (u < v) : strcmp(x, y);
}

/* Slices of whole items in the items' order, then those of their parts in their own. */
static void slices_json(cm_buf *b, const slices *whole, slices *parts) {
    if (!whole->n && !parts->n) return;
    if (parts->n) qsort(parts->v, (size_t)parts->n, sizeof *parts->v, by_name);
    cm_json_open(b, "slices", '{');
    for (int i = 0; i < whole->n; i++) slice_json(b, whole->v[i].name, &whole->v[i]);
    for (int i = 0; i < parts->n; i++) slice_json(b, parts->v[i].name, &parts->v[i]);
    cm_json_close(b, '{');
}

static void slices_free(slices *s) {
    for (int i = 0; i < s->n; i++) free(s->v[i].name);
    free(s->v);
}

/* ---- calibration ----------------------------------------------------------------- */

enum { DRAWS = 500 };

static void bins_json(cm_buf *b, const double *conf, const double *acc, int64_t n) {
    double c[CM_ECE_BINS] = { 0 }, a[CM_ECE_BINS] = { 0 };
    int64_t in[CM_ECE_BINS] = { 0 };
    for (int64_t i = 0; i < n; i++) {
        int k = (int)ceil(conf[i] * CM_ECE_BINS) - 1; /* (k, k+1] / bins, as the ECE's */
        k = k < 0 ? 0 : k >= CM_ECE_BINS ? CM_ECE_BINS - 1 : k;
        in[k]++;
        c[k] += conf[i];
        a[k] += acc[i];
    }
    cm_json_open(b, "bins", '[');
    for (int k = 0; k < CM_ECE_BINS; k++) {
        cm_json_open(b, NULL, '{');
        cm_json_f64(b, "lo", (double)k / CM_ECE_BINS);
        cm_json_f64(b, "hi", (double)(k + 1) / CM_ECE_BINS);
        cm_json_i64(b, "n", in[k]);
        if (in[k]) {
            cm_json_f64(b, "conf", c[k] / (double)in[k]);
            cm_json_f64(b, "acc", a[k] / (double)in[k]);
        }
        cm_json_close(b, '{');
    }
    cm_json_close(b, '[');
}

/* ECE is biased upwards: its interval, and what perfect calibration would show. */
static void calibration_json(cm_buf *b, const cm_task_result *t) {
    const cm_column *conf = cm_task_column(t, "conf"), *acc = cm_task_column(t, "acc");
    if (!conf || !acc || !cm_task_column(t, "ece")) return;
    double *c = cm_room(t->n, sizeof *c), *a = cm_room(t->n, sizeof *a);
    int64_t n = 0;
    for (int64_t i = 0; i < t->n; i++)
        if (conf->v[i].den > 0 && acc->v[i].den > 0) {
            c[n] = conf->v[i].num;
            a[n++] = acc->v[i].num;
        }
    bins_json(b, c, a, n);
    cm_ece e = cm_ece_test(c, a, n, CM_ECE_BINS, DRAWS, 0, 0.95);
    cm_json_open(b, "calibration", '{');
    cm_json_f64(b, "ece", e.ece);
    cm_json_f64(b, "ece_lo", e.ci.lo);
    cm_json_f64(b, "ece_hi", e.ci.hi);
    cm_json_f64(b, "ece_if_calibrated", e.null);
    cm_json_f64(b, "mce", e.mce);
    cm_json_close(b, '{');
    free(c);
    free(a);
}

/* ---- the quantization card ------------------------------------------------------- */

typedef struct {
    cm_kl_pos *pos;
    int64_t *row, n, cap, rows;
} positions;


static void add_card(positions *p, const cJSON *card) {
    const cJSON *kl = cJSON_GetObjectItemCaseSensitive(card, "kl");
    const cJSON *list[3] = { cJSON_GetObjectItemCaseSensitive(card, "nll"),
                             cJSON_GetObjectItemCaseSensitive(card, "ref"),
                             cJSON_GetObjectItemCaseSensitive(card, "same") };
    int n = cJSON_GetArraySize(kl);
    if (p->n + n > p->cap) {
        p->cap = 2 * (p->n + n);
        p->pos = realloc(p->pos, (size_t)p->cap * sizeof *p->pos);
        p->row = realloc(p->row, (size_t)p->cap * sizeof *p->row);
        CM_ASSERT(p->pos && p->row, "out of memory: %lld positions", (long long)p->cap);
    }
    /* Lists are chains: walk them together. */
    const cJSON *at[3] = { list[0] ? list[0]->child : NULL, list[1] ? list[1]->child : NULL,
                           list[2] ? list[2]->child : NULL }, *k;
    cJSON_ArrayForEach(k, kl) {
        if (!at[0] || !at[1] || !at[2]) break;
        double nll = at[0]->valuedouble, ref = at[1]->valuedouble;
        p->pos[p->n] = (cm_kl_pos){ k->valuedouble, nll, ref, exp(-nll) - exp(-ref),
                                    at[2]->valuedouble };
        p->row[p->n++] = p->rows;
        for (int i = 0; i < 3; i++) at[i] = at[i]->next;
    }
    p->rows++;
}

static void value_json(cm_buf *b, const char *key, cm_kl_value v) {
    cm_json_open(b, key, '{');
    cm_json_f64(b, "value", v.value);
    if (isfinite(v.se)) cm_json_f64(b, "stderr_iid", v.se);
    if (isfinite(v.se_clustered)) cm_json_f64(b, "stderr", v.se_clustered);
    cm_json_close(b, '{');
}

static void quantiles_json(cm_buf *b, const char *key, const double *q) {
    char name[32];
    cm_json_open(b, key, '{');
    for (int i = 0; i < CM_KL_QUANTILES; i++)
        cm_json_f64(b, cm_f64_text(cm_kl_quantile[i], name), q[i]);
    cm_json_close(b, '{');
}

/* Counts by size of the divergence, four bins a decade from 1e-10 nats on; the first and
 * the last hold what lies beyond. */
static void histogram_json(cm_buf *b, const positions *p) {
    enum { BINS = 44, PER = 4, LOW = -10 };
    int64_t count[BINS] = { 0 };
    for (int64_t i = 0; i < p->n; i++) {
        double at = p->pos[i].kl > 0 ? floor((log10(p->pos[i].kl) - LOW) * PER) : 0;
        count[at < 0 ? 0 : at >= BINS ? BINS - 1 : (int)at]++;
    }
    cm_json_open(b, "kl_histogram", '[');
    for (int k = 0; k < BINS; k++) {
        cm_json_open(b, NULL, '{');
        cm_json_f64(b, "lo", k ? pow(10, LOW + (double)k / PER) : 0);
        cm_json_f64(b, "hi", pow(10, LOW + (double)(k + 1) / PER));
        cm_json_i64(b, "n", count[k]);
        cm_json_close(b, '{');
    }
    cm_json_close(b, '[');
}

static void card_json(cm_buf *b, const positions *p) {
    if (!p->n) return;
    cm_kl_card c;
    cm_kl_card_of(p->pos, p->row, p->n, &c);
    cm_json_open(b, "card", '{');
    cm_json_i64(b, "positions", c.n);
    cm_json_i64(b, "rows", c.rows);
    value_json(b, "ppl", c.ppl);
    value_json(b, "ppl_reference", c.ppl_ref);
    value_json(b, "ln_ppl_ratio", c.ln_ratio);
    value_json(b, "ppl_ratio", c.ratio);
    value_json(b, "ppl_difference", c.diff);
    if (isfinite(c.cor)) cm_json_f64(b, "correlation", c.cor);
    value_json(b, "kl", c.kl);
    quantiles_json(b, "kl_quantiles", c.kl_q);
    histogram_json(b, p);
    value_json(b, "delta_p", c.dp);
    value_json(b, "delta_p_rms", c.dp_rms);
    quantiles_json(b, "delta_p_quantiles", c.dp_q);
    value_json(b, "same_top1", c.same);
    cm_json_close(b, '{');
}

/* ---- contamination --------------------------------------------------------------- */

/* Items: -1 too short to tell, else whether they count as contaminated. */
static void side_json(cm_buf *b, const char *key, const cm_task_result *t,
                      const cm_column *col, const int *dirty, int want, double *value,
                      double *se) {
    cm_score_val *v = cm_room(t->n, sizeof *v);
    int64_t n = 0;
    for (int64_t i = 0; i < t->n; i++)
        if (dirty[i] == want) {
            v[i] = col->v[i];
            n++;
        }
    *value = cm_metric_value(col->metric, v, NULL, NULL, t->n);
    *se = cm_metric_stderr(col->metric, v, t->cluster, t->n);
    free(v);
    cm_json_open(b, key, '{');
    cm_json_i64(b, "n", n);
    if (isfinite(*value)) cm_json_f64(b, col->metric->name, *value);
    if (isfinite(*se)) cm_json_f64(b, "stderr", *se);
    cm_json_close(b, '{');
}

/* The primary metric on clean and on contaminated items; they are different items, so the
 * difference is unpaired. */
static void contamination_json(cm_buf *b, const cm_task_result *t, const int *dirty,
                               double coverage, double worst) {
    const cm_column *col = cm_task_column(t, t->primary);
    double clean, dirt, se_clean, se_dirt;
    if (!col || col->metric->kind == CM_METRIC_ECE) return;
    cm_json_open(b, "contamination", '{');
    side_json(b, "clean", t, col, dirty, 0, &clean, &se_clean);
    side_json(b, "contaminated", t, col, dirty, 1, &dirt, &se_dirt);
    double d = dirt - clean, se = sqrt(se_clean * se_clean + se_dirt * se_dirt);
    if (isfinite(d)) cm_json_f64(b, "difference", d);
    if (isfinite(d) && isfinite(se)) {
        double z = cm_norm_quantile(0.975);
        cm_json_f64(b, "difference_lo", d - z * se);
        cm_json_f64(b, "difference_hi", d + z * se);
    }
    cm_json_f64(b, "mean_coverage", coverage);
    cm_json_f64(b, "largest_coverage", worst);
    cm_json_close(b, '{');
}

/* ---- all of it ------------------------------------------------------------------- */

typedef struct {
    slices whole, parts;
    slice human;
    positions card;
    int *dirty;
    int64_t told; /* items with a word on contamination */
    double coverage, worst;
} gathered;

/* Groups are slices too where there are few, each of several items: paradigms, subjects. */
enum { MOST_GROUPS = 200 };
static bool groups_are_slices(const cm_task_result *t) {
    bool all = t->n_clusters > 1 && t->n_clusters <= MOST_GROUPS && t->n >= 2 * t->n_clusters;
    for (int64_t i = 0; all && i < t->n; i++) all = t->group[i] != NULL;
    return all;
}

static void gather(gathered *g, const cm_task_result *t, int64_t i, const cJSON *d) {
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(d, "slice");
    const cJSON *in = cJSON_GetObjectItemCaseSensitive(d, "slices"), *v;
    if (cJSON_IsString(name)) add_item(slice_of(&g->whole, name->valuestring), t, i);
    cJSON_ArrayForEach(v, in) add_object(slice_of(&g->parts, v->string), v);
    const cJSON *human = cJSON_GetObjectItemCaseSensitive(d, "human");
    if (human) add_object(&g->human, human);
    const cJSON *card = cJSON_GetObjectItemCaseSensitive(d, "card");
    if (card) add_card(&g->card, card);
    const cJSON *c = cJSON_GetObjectItemCaseSensitive(d, "contamination");
    const cJSON *share = cJSON_GetObjectItemCaseSensitive(c, "coverage");
    g->dirty[i] = -1;
    if (!cJSON_IsNumber(share)) return;
    g->dirty[i] = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(c, "contaminated"));
    g->told++;
    g->coverage += share->valuedouble;
    if (share->valuedouble > g->worst) g->worst = share->valuedouble;
}

void cm_results_derived(void *ctx, const cm_task_result *t, cm_buf *members) {
    (void)ctx;
    gathered g = { .dirty = cm_room(t->n, sizeof *g.dirty) };
    for (int64_t i = 0; i < t->n; i++) {
        cJSON *d = t->detail && t->detail[i] ? cJSON_Parse(t->detail[i]) : NULL;
        gather(&g, t, i, d);
        cJSON_Delete(d);
    }
    if (!g.whole.n && !g.parts.n && groups_are_slices(t))
        for (int64_t i = 0; i < t->n; i++) add_item(slice_of(&g.whole, t->group[i]), t, i);
    slices_json(members, &g.whole, &g.parts);
    calibration_json(members, t);
    if (g.human.n) slice_json(members, "human", &g.human);
    card_json(members, &g.card);
    if (g.told)
        contamination_json(members, t, g.dirty, g.coverage / (double)g.told, g.worst);
    slices_free(&g.whole);
    slices_free(&g.parts);
    free(g.card.pos);
    free(g.card.row);
    free(g.dirty);
}
