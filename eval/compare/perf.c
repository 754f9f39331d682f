/* perf.c -- repeated measurements of speed and memory: read, tested by Mann and Whitney. */
#include "compare/compare_int.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---------------------------------------------------------------------- */

static bool ends(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

/* 1: higher is better, 0: lower, -1: the name does not say. */
static int direction(const char *name, const cJSON *better) {
    static const char *const up[] = {"_per_s", "per_second", "speedup", "flops"};
    static const char *const down[] = {"_s", "_ms", "_us", "_ns", "seconds", "bytes", "_kb",
                                       "_mb", "_gb", "_mib", "_gib", "joule", "rss"};
    if (cJSON_IsString(better))
        return !strcmp(better->valuestring, "higher") ? 1
               : !strcmp(better->valuestring, "lower") ? 0
                                                       : -1;
    for (size_t i = 0; i < sizeof up / sizeof *up; i++)
        if (ends(name, up[i])) return 1;
    for (size_t i = 0; i < sizeof down / sizeof *down; i++)
        if (ends(name, down[i])) return 0;
    return -1;
}

static bool read_values(cm_measure *m, const cJSON *list, const char *path, cm_err *err) {
    int n = cJSON_GetArraySize(list);
    if (!cJSON_IsArray(list) || n < 1)
        return cm_fail(err, CM_EXIT_DATA, "%s: '%s' is not a list of measurements", path, m->name);
    m->v = cm_scratch(n, sizeof *m->v);
    const cJSON *v;
    cJSON_ArrayForEach(v, list) {
        if (!cJSON_IsNumber(v) || !(v->valuedouble > 0) || isinf(v->valuedouble))
            return cm_fail(err, CM_EXIT_DATA, "%s: '%s': measurement %d is no number above 0", path,
                           m->name, m->n + 1);
        m->v[m->n++] = v->valuedouble;
    }
    return true;
}

static bool read_measure(cm_measures *ms, const cJSON *e, cm_err *err) {
    const cJSON *list = cJSON_IsObject(e) ? cJSON_GetObjectItemCaseSensitive(e, "values") : e;
    const cJSON *better = cJSON_IsObject(e) ? cJSON_GetObjectItemCaseSensitive(e, "better") : NULL;
    for (int i = 0; i < ms->n; i++)
        if (!strcmp(ms->m[i].name, e->string))
            return cm_fail(err, CM_EXIT_DATA, "%s: '%s' occurs twice", ms->path, e->string);
    ms->m = realloc(ms->m, (size_t)(ms->n + 1) * sizeof *ms->m);
    CM_ASSERT(ms->m, "out of memory: measurements");
    cm_measure *m = &ms->m[ms->n++];
    *m = (cm_measure){.name = cm_strf("%s", e->string)};
    int up = direction(e->string, better);
    if (up < 0)
        return cm_fail(err, CM_EXIT_DATA, "%s: '%s': say whether higher or lower is better: "
                       "{\"better\": \"lower\", \"values\": [...]}", ms->path, e->string);
    m->higher = up;
    return read_values(m, list, ms->path, err);
}

bool cm_measures_read(cm_measures *m, const char *path, cm_err *err) {
    char *text;
    size_t n;
    *m = (cm_measures){0};
    if (!cm_read_file(path, (size_t)64 << 20, &text, &n, err)) return false;
    m->path = cm_strf("%s", path);
    cJSON *root = cJSON_ParseWithLengthOpts(text, n + 1, NULL, true);
    bool ok = cJSON_IsObject(root) && root->child;
    if (!ok)
        cm_fail(err, CM_EXIT_DATA, "%s: not a JSON object of lists of measurements", path);
    for (const cJSON *e = ok ? root->child : NULL; ok && e; e = e->next)
        ok = read_measure(m, e, err);
    cJSON_Delete(root);
    free(text);
    if (!ok) cm_measures_free(m);
    return ok;
}

void cm_measures_free(cm_measures *m) {
    for (int i = 0; i < m->n; i++) {
        free(m->m[i].name);
        free(m->m[i].v);
    }
    free(m->m);
    free(m->path);
    *m = (cm_measures){0};
}

/* ---- comparing -------------------------------------------------------------------- */

static double median(const double *v, int n) {
    double *x = cm_scratch(n, sizeof *x);
    memcpy(x, v, (size_t)n * sizeof *x);
    cm_sort(x, n);
    double m = cm_quantile(x, n, 0.5);
    free(x);
    return m;
}

static double *logs(const cm_measure *m) {
    double *x = cm_scratch(m->n, sizeof *x);
    for (int i = 0; i < m->n; i++) x[i] = log(m->v[i]);
    return x;
}

void cm_perf_test(cm_perf_cmp *p, const cm_measure *base, const cm_measure *cand,
                  const cm_regress_conf *c) {
    *p = (cm_perf_cmp){.name = base->name, .higher = base->higher, .n_base = base->n,
                       .n_cand = cand->n};
    p->margin = cm_rule_margin(c, "perf", base->name, "5%").value;
    p->base = median(base->v, base->n);
    p->cand = median(cand->v, cand->n);
    double *x = logs(cand), *y = logs(base);
    cm_mann_whitney m = cm_mann_whitney_test(x, cand->n, y, base->n, 1 - c->alpha);
    free(x);
    free(y);
    p->u = m.u;
    p->ratio = exp(m.shift);
    p->lo = exp(m.ci.lo);
    p->hi = exp(m.ci.hi);
    p->p = base->higher ? m.p_less : m.p_greater;
    p->p_two = m.p_two;
    p->bound = base->higher ? m.one.lo : -m.one.hi;
}

void cm_perf_decide(cm_perf_cmp *p, const cm_regress_conf *c) {
    /* A loss of 5%: 0.95 of the speed, or 1.05 of the time. */
    double limit = p->higher ? log1p(-fmin(p->margin, 0.999)) : -log1p(p->margin);
    bool few = p->n_base < CM_PERF_MIN || p->n_cand < CM_PERF_MIN;
    bool safe = p->bound > limit, lost = p->p_holm < c->alpha;
    p->verdict = few    ? CM_VERDICT_INCONCLUSIVE
                 : safe ? CM_VERDICT_PASS
                 : lost ? CM_VERDICT_FAIL
                        : CM_VERDICT_INCONCLUSIVE;
    double change = 100 * (p->ratio - 1), m = 100 * p->margin;
    char sure[40];
    if (few)
        snprintf(p->reason, sizeof p->reason,
                 "%d and %d measurements; at least %d a side are needed", p->n_base, p->n_cand,
                 CM_PERF_MIN);
    else if (safe)
        snprintf(p->reason, sizeof p->reason, "%+.2f%%%s; a loss of %g%% is excluded", change,
                 lost ? ", a real loss but tolerable" : "", m);
    else if (lost)
        snprintf(p->reason, sizeof p->reason, "%+.2f%% (%s after Holm); the margin is %g%%",
                 change, cm_p_text(p->p_holm, sure), m);
    else
        snprintf(p->reason, sizeof p->reason, "%+.2f%%, not significant, but a loss of %g%% is not "
                 "excluded; measure more often", change, m);
}
