/* margins.c -- regress.margins and regress.gate: what is tolerated, what decides. */
#include "compare/compare_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* "blimp/acc=1%" -> task "blimp" (empty if none), metric "acc", value text "1%". */
typedef struct {
    char task[160], metric[96], value[32];
} line;

static bool cut(const char *from, size_t n, char *to, size_t cap) {
    if (n >= cap) return false;
    memcpy(to, from, n);
    to[n] = 0;
    return true;
}

static bool split(const char *text, bool with_value, line *l) {
    const char *end = with_value ? strrchr(text, '=') : text + strlen(text);
    if (!end || end == text) return false;
    const char *slash = NULL;
    for (const char *p = text; p < end; p++)
        if (*p == '/') slash = p;
    const char *metric = slash ? slash + 1 : text;
    return cut(text, slash ? (size_t)(slash - text) : 0, l->task, sizeof l->task) &&
           cut(metric, (size_t)(end - metric), l->metric, sizeof l->metric) && *l->metric &&
           cut(with_value ? end + 1 : "", with_value ? strlen(end + 1) : 0, l->value,
               sizeof l->value);
}

/* "0.02" or "1%". */
static bool parse_value(const char *s, cm_margin *m) {
    size_t n = strlen(s);
    char number[32];
    m->relative = n > 0 && s[n - 1] == '%';
    if (!cut(s, n - m->relative, number, sizeof number) || !cm_parse_f64(number, &m->value))
        return false;
    if (m->relative) m->value /= 100;
    snprintf(m->text, sizeof m->text, "%s", s);
    return m->value >= 0;
}

/* ---- are the names known? --------------------------------------------------------- */

typedef struct {
    const char **v;
    int n;
} names;

static void add_name(names *l, const char *s) {
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->v[i], s)) return;
    l->v = realloc(l->v, (size_t)(l->n + 1) * sizeof *l->v);
    CM_ASSERT(l->v, "out of memory: names");
    l->v[l->n++] = s;
}

static bool known(const names *l, const char *key, const char *what, const char *s,
                  const char *entry, cm_err *err) {
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->v[i], s)) return true;
    const char *near = cm_nearest(s, l->v, l->n);
    return cm_fail(err, CM_EXIT_USAGE, "%s: '%s': the baseline has no %s '%s'%s%s%s", key, entry,
                   what, s, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bool check_entry(const char *key, const char *entry, bool with_value,
                        const cm_result *r, const names *task, const names *measure,
                        cm_err *err) {
    line l;
    cm_margin m;
    if (!split(entry, with_value, &l))
        return cm_fail(err, CM_EXIT_USAGE, "%s: '%s' is not %s", key, entry,
                       with_value ? "METRIC=VALUE or TASK/METRIC=VALUE" : "METRIC or TASK/METRIC");
    if (with_value && !parse_value(l.value, &m))
        return cm_fail(err, CM_EXIT_USAGE,
                       "%s: '%s': '%s' is neither a number >= 0 nor one with %%", key, entry,
                       l.value);
    bool perf = !strcmp(l.task, "perf");
    if (perf && with_value && !m.relative)
        return cm_fail(err, CM_EXIT_USAGE, "%s: '%s': margins of measurements are in %%", key,
                       entry);
    if (perf) return known(measure, key, "measurement", l.metric, entry, err);
    if (*l.task && !known(task, key, "task", l.task, entry, err)) return false;
    names metric = {0};
    for (int i = 0; i < r->n_tasks; i++)
        for (int k = 0; k < r->task[i].n_columns; k++)
            if (!*l.task || !strcmp(l.task, r->task[i].name))
                add_name(&metric, r->task[i].column[k].metric->name);
    /* A margin for a metric that these results happen not to have is a rule, not a typo. */
    if (with_value && !*l.task && cm_metric_find(l.metric)) add_name(&metric, l.metric);
    bool ok = known(&metric, key, "metric", l.metric, entry, err);
    free(metric.v);
    const cm_metric *found = cm_metric_find(l.metric);
    if (ok && found && !found->judged)
        ok = cm_fail(err, CM_EXIT_USAGE, "%s: '%s': %s is no goal: it is shown, never judged", key,
                     entry, found->name);
    return ok;
}

bool cm_rule_check(const cm_regress_conf *c, const cm_side *base, const cm_measures *perf,
                   cm_err *err) {
    const cm_result *r = base->seed[0];
    names task = {0}, measure = {0};
    for (int i = 0; i < r->n_tasks; i++) add_name(&task, r->task[i].name);
    for (int i = 0; perf && i < perf->n; i++) add_name(&measure, perf->m[i].name);
    bool ok = true;
    for (int i = 0; ok && i < c->margins.n; i++)
        ok = check_entry("regress.margins", c->margins.v[i], true, r, &task, &measure, err);
    for (int i = 0; ok && i < c->gate.n; i++)
        ok = check_entry("regress.gate", c->gate.v[i], false, r, &task, &measure, err);
    free(task.v);
    free(measure.v);
    return ok;
}

/* ---- looking up ------------------------------------------------------------------- */

cm_margin cm_rule_margin(const cm_regress_conf *c, const char *task, const char *metric,
                         const char *otherwise) {
    cm_margin best, m;
    CM_ASSERT(parse_value(otherwise, &best), "default margin '%s' of %s", otherwise, metric);
    best.named = false;
    for (int i = 0; i < c->margins.n; i++) {
        line l;
        if (!split(c->margins.v[i], true, &l) || strcmp(l.metric, metric)) continue;
        bool named = *l.task != 0;
        if ((named && strcmp(l.task, task)) || (best.named && !named)) continue;
        if (!parse_value(l.value, &m)) continue; /* cm_rule_check has refused it */
        m.named = named;
        best = m;
    }
    return best;
}

bool cm_rule_gates(const cm_regress_conf *c, const char *task, const char *metric, bool primary) {
    for (int i = 0; i < c->gate.n; i++) {
        line l;
        if (split(c->gate.v[i], false, &l) && !strcmp(l.metric, metric) &&
            (*l.task ? !strcmp(l.task, task) : strcmp(task, "perf") != 0))
            return true;
    }
    if (c->gate.n == 0 && primary) return true;
    return cm_rule_margin(c, task, metric, "0").named;
}
