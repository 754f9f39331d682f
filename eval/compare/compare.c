/* compare.c -- every candidate against the baseline, and the verdict over all of it. */
#include "compare/compare_int.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ----------------------------------------------------------------------- */

struct cm_compare_mem {
    void **block;
    int n, cap;
};

void *cm_keep(cm_compare_mem *m, size_t bytes) {
    if (m->n == m->cap) {
        m->cap = 2 * m->cap + 64;
        m->block = realloc(m->block, (size_t)m->cap * sizeof *m->block);
        CM_ASSERT(m->block, "out of memory: comparison");
    }
    void *p = calloc(1, bytes ? bytes : 1);
    CM_ASSERT(p, "out of memory: comparison");
    return m->block[m->n++] = p;
}

char *cm_keepf(cm_compare_mem *m, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    CM_ASSERT(n >= 0, "cm_keepf: %s", fmt);
    char *s = cm_keep(m, (size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

void *cm_scratch(int64_t n, size_t each) {
    void *p = calloc((size_t)(n > 0 ? n : 1), each);
    CM_ASSERT(p, "out of memory: %lld of %zu bytes", (long long)n, each);
    return p;
}

void cm_comparison_free(cm_comparison *c) {
    if (c->mem) {
        for (int i = 0; i < c->mem->n; i++) free(c->mem->block[i]);
        free(c->mem->block);
        free(c->mem);
    }
    *c = (cm_comparison){0};
}

/* ---- one candidate ---------------------------------------------------------------- */

typedef struct {
    cm_comparison *out;
    const cm_side *a, *b;
    const cm_measures *perf_a, *perf_b, *const *perf; /* perf: of all sides, or NULL */
    const cm_regress_conf *rule;
    cm_pairing *p;
    cm_metric_stat *st; /* parallel to p->metric */
} job;

/* Metrics whose unit is a token of the model's own tokenizer. */
static bool of_tokens(const char *metric) {
    static const char *const names[] = {"ppl_token", "kl", "same_top1", "gen_tokens", "seq_rep_4",
                                        "distinct_2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(metric, names[i])) return true;
    return false;
}

static void add_note(job *j, const char *fmt, const char *what) {
    char **more = cm_keep(j->out->mem, (size_t)(j->p->n_notes + 1) * sizeof *more);
    if (j->p->n_notes) memcpy(more, j->p->note, (size_t)j->p->n_notes * sizeof *more);
    more[j->p->n_notes++] = cm_keepf(j->out->mem, fmt, what);
    j->p->note = more;
}

static bool compare_metric(job *j, const cm_task_pair *pair, const cm_metric *metric,
                           bool same_tokens, cm_err *err) {
    const cm_task_result *t = pair->first;
    int at = j->p->n_metrics++;
    cm_metric_cmp *m = &j->p->metric[at];
    m->task = t->name;
    m->metric = metric;
    m->gates = cm_rule_gates(j->rule, t->name, metric->name, !strcmp(metric->name, t->primary));
    m->verdict = CM_VERDICT_INCONCLUSIVE;
    bool ok = cm_metric_test(m, &j->st[at], pair, j->p->same_model, j->rule);
    if (ok && !same_tokens && of_tokens(metric->name)) {
        ok = false;
        snprintf(m->reason, sizeof m->reason, "counts tokens, and the tokenizers differ");
    }
    if (ok) return true;
    m->verdict = CM_VERDICT_SKIPPED;
    if (!m->gates) return true;
    return cm_fail(err, CM_EXIT_DATA, "%s and %s: %s/%s gates and cannot be compared: %s",
                   j->a->label, j->b->label, t->name, metric->name, m->reason);
}

static bool compare_task(job *j, int task, bool same_tokens, cm_err *err) {
    cm_task_pair pair;
    if (!cm_pair_task(&pair, j->a, j->b, task, err)) return false;
    const cm_task_result *t = pair.first;
    const cm_column *primary = cm_task_column(t, t->primary);
    bool ok = true;
    if (primary) ok = compare_metric(j, &pair, primary->metric, same_tokens, err);
    for (int i = 0; ok && i < t->n_columns; i++)
        if (&t->column[i] != primary)
            ok = compare_metric(j, &pair, t->column[i].metric, same_tokens, err);
    if (ok && primary)
        cm_flips_make(&j->p->flips[j->p->n_flips++], &pair, primary->metric, j->out->mem);
    cm_pair_free(&pair);
    return ok;
}

static const cm_measure *measured(const cm_measures *m, const char *name) {
    for (int i = 0; m && i < m->n; i++)
        if (!strcmp(m->m[i].name, name)) return &m->m[i];
    return NULL;
}

static bool perf_gates(const cm_regress_conf *c, const char *name) {
    return cm_rule_gates(c, "perf", name, true);
}

/* What gates must have been measured on both sides, and with one idea of better. */
static bool compare_perf(job *j, cm_err *err) {
    if (!j->perf_a || !j->perf_b) return true;
    const char *pa = j->perf_a->path, *pb = j->perf_b->path;
    j->p->perf = cm_keep(j->out->mem, (size_t)j->perf_a->n * sizeof *j->p->perf);
    for (int i = 0; i < j->perf_a->n; i++) {
        const cm_measure *a = &j->perf_a->m[i], *b = measured(j->perf_b, a->name);
        if (!b && perf_gates(j->rule, a->name))
            return cm_fail(err, CM_EXIT_DATA, "%s and %s cannot be compared: the second lacks '%s'",
                           pa, pb, a->name);
        if (!b) continue;
        if (a->higher != b->higher)
            return cm_fail(err, CM_EXIT_DATA, "%s and %s cannot be compared: '%s' is better %s in "
                           "the first and %s in the second", pa, pb, a->name,
                           a->higher ? "higher" : "lower", b->higher ? "higher" : "lower");
        cm_perf_test(&j->p->perf[j->p->n_perf++], a, b, j->rule);
    }
    return true;
}

/* What only the baseline has: said with the first candidate where no candidate has it. */
static void perf_notes(job *j) {
    for (int i = 0; j->perf_a && i < j->perf_a->n; i++) {
        const char *name = j->perf_a->m[i].name;
        bool any = false;
        for (int k = 1; k <= j->out->n; k++) any = any || measured(j->perf[k], name);
        if (any && !measured(j->perf_b, name))
            add_note(j, "'%s' was not measured for this candidate: not compared", name);
        else if (!any && j->p == j->out->pair)
            add_note(j, "'%s' was measured for the baseline only: not compared", name);
    }
}

static const char *model_of(const cm_result *r) {
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(r->root, "model");
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "sha256"));
}

/* Some model of a side stands there twice. */
static bool copied(const cm_side *s) {
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < i; k++) {
            const char *x = model_of(s->seed[i]), *y = model_of(s->seed[k]);
            if (x && y && !strcmp(x, y)) return true;
        }
    return false;
}

/* Replicates say something of a recipe only where they are several trainings. */
static void replicate_notes(job *j) {
    const cm_side *side[2] = {j->a, j->b};
    bool seeds = j->a->n + j->b->n > 2;
    for (int s = 0; s < 2; s++) {
        if (copied(side[s]))
            add_note(j, "%s: the same model more than once: copies are no seeds, and the deviation "
                     "between them says nothing", side[s]->label);
        if (seeds && side[s]->n == 1)
            add_note(j, "%s: one seed: its deviation is taken from the other side", side[s]->label);
    }
}

static void notes(job *j) {
    const cm_result *x = j->a->seed[0], *y = j->b->seed[0];
    for (int i = 0; i < y->n_tasks; i++)
        if (!cm_result_task(x, y->task[i].name))
            add_note(j, "task '%s' is only in the candidate: not compared", y->task[i].name);
    perf_notes(j);
    if (j->p->same_model && x->n_tasks)
        add_note(j, "%s is the same model with the same tokenizer on both sides", j->a->label);
    replicate_notes(j);
    for (int i = 0; i < j->p->n_metrics; i++)
        if (j->p->metric[i].gates && j->p->metric[i].groups < 20 &&
            j->p->metric[i].groups < j->p->metric[i].n)
            add_note(j, "task '%s' has fewer than 20 groups of items: errors are rough",
                     j->p->metric[i].task);
}

static bool compare_side(job *j, cm_err *err) {
    int metrics = 0, n_tasks = j->a->seed[0]->n_tasks;
    if (!cm_pair_sides(j->a, j->b, err)) return false;
    for (int t = 0; t < n_tasks; t++) metrics += j->a->seed[0]->task[t].n_columns;
    j->p->base = j->a->label;
    j->p->cand = j->b->label;
    j->p->same_model = cm_same_models(j->a, j->b);
    j->p->metric = cm_keep(j->out->mem, (size_t)metrics * sizeof *j->p->metric);
    j->p->flips = cm_keep(j->out->mem, (size_t)n_tasks * sizeof *j->p->flips);
    j->st = cm_keep(j->out->mem, (size_t)metrics * sizeof *j->st);
    bool same_tokens = cm_same_tokenizer(j->a, j->b);
    for (int t = 0; t < n_tasks; t++)
        if (!compare_task(j, t, same_tokens, err)) return false;
    if (!compare_perf(j, err)) return false;
    cm_changes_make(j->p, j->a, j->b, j->out->mem);
    notes(j);
    return true;
}

/* ---- the family of hypotheses ----------------------------------------------------- */

/* p-values of some hypotheses, and where their adjusted values go. */
typedef struct {
    double *p, *adj;
    double **to;
    int n;
} family;

static void collect(family *f, double p, double *to) {
    f->p[f->n] = p;
    f->to[f->n++] = to;
}

static void gather(family *f, cm_comparison *out, const cm_regress_conf *c, bool gating) {
    for (int k = 0; k < out->n; k++) {
        cm_pairing *p = &out->pair[k];
        for (int i = 0; i < p->n_metrics; i++)
            if (p->metric[i].verdict != CM_VERDICT_SKIPPED && p->metric[i].gates == gating)
                collect(f, p->metric[i].p, &p->metric[i].p_holm);
        for (int i = 0; i < p->n_perf; i++)
            if (perf_gates(c, p->perf[i].name) == gating)
                collect(f, p->perf[i].p, &p->perf[i].p_holm);
    }
}

static int count_all(const cm_comparison *out) {
    int n = 0;
    for (int k = 0; k < out->n; k++) n += out->pair[k].n_metrics + out->pair[k].n_perf;
    return n;
}

/* Holm within the gating hypotheses and within the others; Benjamini-Hochberg over all. */
static int adjust(cm_comparison *out, const cm_regress_conf *c, int *others) {
    int all = count_all(out), gating = 0;
    family f = {cm_scratch(all, sizeof *f.p), cm_scratch(all, sizeof *f.adj),
                cm_scratch(all, sizeof *f.to), 0};
    for (int side = 1; side >= 0; side--) {
        f.n = 0;
        gather(&f, out, c, side);
        cm_holm(f.p, f.n, f.adj);
        for (int i = 0; i < f.n; i++) *f.to[i] = f.adj[i];
        *(side ? &gating : others) = f.n;
    }
    f.n = 0;
    for (int k = 0; k < out->n; k++)
        for (int i = 0; i < out->pair[k].n_metrics; i++) {
            cm_metric_cmp *m = &out->pair[k].metric[i];
            if (m->verdict != CM_VERDICT_SKIPPED) collect(&f, m->p, &m->p_bh);
        }
    cm_bh(f.p, f.n, f.adj);
    for (int i = 0; i < f.n; i++) *f.to[i] = f.adj[i];
    free(f.p), free(f.adj), free(f.to);
    return gating;
}

/* ---- verdicts --------------------------------------------------------------------- */

typedef struct {
    int n[4];
    cm_buf names[4]; /* of each verdict, the first few */
} tally;

static void count(tally *t, cm_verdict v, const char *task, const char *metric) {
    if (t->n[v]++ < 5)
        cm_buf_addf(&t->names[v], "%s%s/%s", t->n[v] > 1 ? ", " : "", task, metric);
    else if (t->n[v] == 6)
        cm_buf_addf(&t->names[v], ", ...");
}

static cm_verdict worst(const tally *t) {
    return t->n[CM_VERDICT_FAIL]           ? CM_VERDICT_FAIL
           : t->n[CM_VERDICT_INCONCLUSIVE] ? CM_VERDICT_INCONCLUSIVE
                                           : CM_VERDICT_PASS;
}

static void decide_pair(cm_pairing *p, const cm_metric_stat *st, const cm_regress_conf *c,
                        int gating, int others) {
    tally t = {0};
    for (int i = 0; i < p->n_metrics; i++) {
        cm_metric_cmp *m = &p->metric[i];
        if (m->verdict == CM_VERDICT_SKIPPED) continue;
        cm_metric_decide(m, &st[i], c, m->gates ? gating : others);
        if (m->gates) count(&t, m->verdict, m->task, m->metric->name);
    }
    for (int i = 0; i < p->n_perf; i++) {
        cm_perf_decide(&p->perf[i], c);
        if (perf_gates(c, p->perf[i].name)) count(&t, p->perf[i].verdict, "perf", p->perf[i].name);
    }
    p->verdict = worst(&t);
    int all = t.n[0] + t.n[1] + t.n[2], hit = t.n[p->verdict];
    if (p->verdict == CM_VERDICT_PASS)
        snprintf(p->reason, sizeof p->reason,
                 c->exact ? "all %d gating comparisons have the same scores on every item"
                          : "all %d gating comparisons exclude a loss as large as their margin",
                 all);
    else
        snprintf(p->reason, sizeof p->reason, "%d of %d gating comparisons %s: %.200s", hit, all,
                 p->verdict != CM_VERDICT_FAIL ? "cannot tell" : c->exact ? "changed" : "lost",
                 t.names[p->verdict].s);
    for (int v = 0; v < 4; v++) cm_buf_free(&t.names[v]);
}

static bool finish(cm_comparison *out, cm_metric_stat *const *st, const cm_regress_conf *c,
                   cm_err *err) {
    int others = 0;
    out->family = adjust(out, c, &others);
    if (!out->family)
        return cm_fail(err, CM_EXIT_DATA,
                       "nothing to compare: no gating metric was measured on both sides");
    out->verdict = CM_VERDICT_PASS;
    for (int k = 0; k < out->n; k++) {
        cm_pairing *p = &out->pair[k];
        decide_pair(p, st[k], c, out->family, others);
        if (p->verdict == CM_VERDICT_FAIL || out->verdict == CM_VERDICT_PASS)
            out->verdict = p->verdict;
    }
    out->code = cm_verdict_exit(out->verdict);
    return true;
}

static bool check_sides(const cm_side *side, int n, const cm_regress_conf *c, cm_err *err) {
    if (n < 2)
        return cm_fail(err, CM_EXIT_USAGE,
                       "a comparison takes a baseline and at least one candidate");
    for (int i = 0; i < n; i++) {
        CM_ASSERT(side[i].n >= 1, "side %d has no result", i);
        if (c->sequential && side[i].n > 1)
            return cm_fail(err, CM_EXIT_USAGE, "regress.sequential: seeds as replicates have no "
                           "sequential verdict; compare single results or turn it off");
    }
    return true;
}

bool cm_compare(cm_comparison *out, const cm_side *side, int n, const cm_measures *const *perf,
                const cm_regress_conf *conf, cm_err *err) {
    *out = (cm_comparison){.alpha = conf->alpha, .power = conf->power,
                           .sequential = conf->sequential, .n = n - 1};
    if (!check_sides(side, n, conf, err) ||
        !cm_rule_check(conf, &side[0], perf ? perf[0] : NULL, err))
        return false;
    out->mem = cm_scratch(1, sizeof *out->mem);
    out->pair = cm_keep(out->mem, (size_t)(n - 1) * sizeof *out->pair);
    cm_metric_stat **st = cm_keep(out->mem, (size_t)(n - 1) * sizeof *st);
    bool ok = true;
    for (int k = 1; ok && k < n; k++) {
        job j = {.out = out, .a = &side[0], .b = &side[k], .rule = conf,
                 .perf_a = perf ? perf[0] : NULL, .perf_b = perf ? perf[k] : NULL, .perf = perf,
                 .p = &out->pair[k - 1]};
        ok = compare_side(&j, err);
        st[k - 1] = j.st;
    }
    ok = ok && finish(out, st, conf, err);
    if (!ok) cm_comparison_free(out);
    return ok;
}
