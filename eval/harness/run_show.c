/* run_show.c -- for people: prompts as the model reads them, the table of results. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/run_int.h"

/* ---- prompts ------------------------------------------------------------------------- */

/* Text of tokens; control pieces by name. */
static void show_tokens(const cm_spm *spm, const int32_t *id, int n, cm_buf *out) {
    for (int i = 0; i < n; i++) {
        cm_piece_type type;
        float score;
        const char *piece = cm_spm_piece(spm, id[i], &score, &type);
        if (type == CM_PIECE_CONTROL || type == CM_PIECE_UNKNOWN) cm_buf_addf(out, "%s", piece);
        else cm_spm_token_bytes(spm, id[i], out);
    }
}

static void show_ask(const cm_eval_task *t, const cm_question *q, int i, cm_buf *out) {
    const cm_ask *a = &q->ask[i];
    const cm_spm *spm = t->model->spm;
    bool right = i < q->n_choices && q->right && q->right[i];
    cm_buf_addf(out, "-- %d of %d%s%s\n", i + 1, q->n_asks, right ? ", right" : "",
                a->cut ? ", cut from the left" : "");
    show_tokens(spm, a->token, a->first, out);
    cm_buf_addf(out, "[[");
    show_tokens(spm, a->token + a->first, a->n - a->first, out);
    if (a->max_new) cm_buf_addf(out, "up to %d tokens", a->max_new);
    cm_buf_addf(out, "]]\n");
    if (a->max_new && q->answer) cm_buf_addf(out, "-- reference: %s\n", q->answer);
}

bool cm_eval_show(cm_eval_run *r, int64_t n, cm_buf *out, cm_err *err) {
    if (!cm_run_build(r, err)) return false;
    for (int i = 0; i < r->n_tasks; i++) {
        const cm_eval_task *t = &r->task[i];
        for (int64_t k = 0; k < t->n && k < n; k++) {
            const cm_question *q = &t->q[k];
            cm_buf_addf(out, "==== %s, item %s%s%s, hash %s\n", t->name, q->id,
                        q->group ? ", group " : "", q->group ? q->group : "", q->hash);
            for (int a = 0; a < q->n_asks; a++) show_ask(t, q, a, out);
        }
    }
    return true;
}

/* ---- results ------------------------------------------------------------------------- */

static void show_task(const cm_task_result *t, cm_buf *out) {
    for (int i = 0; i < t->n_columns; i++) {
        const cm_column *c = &t->column[i];
        int64_t n = 0, ties = cm_column_ties(c, t->n);
        for (int64_t k = 0; k < t->n; k++) n += c->v[k].den > 0;
        cm_buf_addf(out, "%-24s %-16s %12.6g", i ? "" : t->name, c->metric->name, c->value);
        if (isnan(c->stderr_)) cm_buf_addf(out, " %14s", "");
        else cm_buf_addf(out, " +/- %-10.4g", c->stderr_);
        cm_buf_addf(out, "%8lld", (long long)n);
        if (!strcmp(c->metric->name, t->primary)) cm_buf_addf(out, "  primary");
        if (t->n_clusters < t->n && !isnan(c->stderr_))
            cm_buf_addf(out, "  %lld groups", (long long)t->n_clusters);
        if (isnan(c->stderr_) && c->metric->kind != CM_METRIC_ECE)
            cm_buf_addf(out, "  no stderr: %s",
                        n == 1 ? "one item" : "all items are in one group");
        if (ties) cm_buf_addf(out, "  %lld tied", (long long)ties);
        cm_buf_addf(out, "\n");
    }
}

static double number(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

static const cJSON *member(const cJSON *o, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(o, key);
}

/* The slices in which the primary metric is worst. */
static void show_worst(const cm_task_result *t, const cJSON *slices, cm_buf *out) {
    enum { SHOWN = 3 };
    const cm_metric *m = cm_metric_find(t->primary);
    const cJSON *worst[SHOWN + 1] = { NULL }, *s;
    int n = 0, all = 0;
    cJSON_ArrayForEach(s, slices) {
        double v = number(s, t->primary);
        if (!isfinite(v)) continue;
        all++;
        int k = n < SHOWN ? n++ : SHOWN;
        for (; k > 0; k--) {
            double w = number(worst[k - 1], t->primary);
            if (m->higher ? w <= v : w >= v) break;
            worst[k] = worst[k - 1];
        }
        worst[k] = s;
    }
    if (all < 2) return;
    cm_buf_addf(out, "%-24s worst %s of %d slices (all in results.json):", "", t->primary, all);
    for (int i = 0; i < n; i++)
        cm_buf_addf(out, "%s %s %.4g", i ? "," : "", worst[i]->string,
                    number(worst[i], t->primary));
    cm_buf_addf(out, "\n");
}

static void show_contamination(const cm_task_result *t, const cJSON *c, cm_buf *out) {
    if (!c) return;
    const cJSON *clean = member(c, "clean"), *dirty = member(c, "contaminated");
    double k = number(dirty, "n"), n = number(clean, "n"), d = number(c, "difference");
    cm_buf_addf(out, "%-24s contaminated %.0f items, clean %.0f, too short to tell %.0f", "", k, n,
                (double)t->n - k - n);
    if (isfinite(d))
        cm_buf_addf(out, "; %s %.4g there, %.4g clean, difference %+.4g", t->primary,
                    number(dirty, t->primary), number(clean, t->primary), d);
    if (isfinite(number(c, "difference_lo")))
        cm_buf_addf(out, " [%+.4g, %+.4g]", number(c, "difference_lo"),
                    number(c, "difference_hi"));
    cm_buf_addf(out, "\n");
}

bool cm_eval_table(const char *dir, cm_buf *out, cm_err *err) {
    cm_result r;
    if (!cm_result_read(&r, dir, false, err)) return false;
    cm_buf_addf(out, "%-24s %-16s %12s     %-10s%8s\n", "task", "metric", "value", "stderr", "n");
    for (int i = 0; i < r.n_tasks; i++) {
        const cJSON *task = cJSON_GetArrayItem(member(r.root, "tasks"), i);
        show_task(&r.task[i], out);
        show_worst(&r.task[i], member(task, "slices"), out);
        show_contamination(&r.task[i], member(task, "contamination"), out);
    }
    cm_result_free(&r);
    return true;
}
