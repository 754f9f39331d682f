/* items.c -- a task's questions: rows and examples read, ids told apart, hashes. */
#include <stdlib.h>
#include <string.h>

#include "harness/task_int.h"

cm_question *cm_task_add(cm_eval_task *t, const char *id, const char *group) {
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 256;
        t->q = realloc(t->q, (size_t)t->cap * sizeof *t->q);
        CM_ASSERT(t->q, "out of memory: items of task %s", t->name);
    }
    cm_question *q = &t->q[t->n++];
    *q = (cm_question){ .id = cm_pool_text(&t->pool, id, strlen(id)), .prompt = "" };
    if (group) q->group = cm_pool_text(&t->pool, group, strlen(group));
    return q;
}

void cm_item_put(const cm_eval_task *t, cm_item *it, const char *metric, double num,
                 double den) {
    for (int i = 0; i < t->in->n_metrics; i++)
        if (!strcmp(t->in->metric[i]->name, metric)) {
            CM_ASSERT(it->n_scores < CM_MAX_SCORES, "task %s: too many scores", t->name);
            it->score[it->n_scores++] = (cm_item_score){ t->in->metric[i], { num, den } };
        }
}

/* What was asked, in a form that two different questions cannot share. */
static void hash_question(cm_question *q) {
    int n = 3 + 3 * q->n_choices, k = 0;
    const char **part = calloc((size_t)n, sizeof *part);
    CM_ASSERT(part, "out of memory: hash of an item");
    part[k++] = q->prompt;
    part[k++] = q->answer ? q->answer : "";
    part[k++] = q->context ? "contexts" : "choices";
    for (int i = 0; i < q->n_choices; i++) {
        part[k++] = q->choice[i];
        part[k++] = q->context ? q->context[i] : "";
        part[k++] = q->right && q->right[i] ? "1" : "0";
    }
    cm_item_hash(part, k, q->hash);
    free(part);
}

/* ---- from rows ----------------------------------------------------------------------- */

static bool name_question(cm_eval_task *t, const cm_row *r, cm_buf *id, cm_buf *group,
                          cm_err *err) {
    const cJSON *v = NULL;
    id->n = group->n = 0;
    if (*t->c->id) {
        if (!cm_render(t, t->c->id, r, false, id, err)) return false;
    } else if (!(v = cm_row_get(r, "id")) || !cm_value_text(v, id)) {
        cm_buf_addf(id, "%lld", (long long)t->in->at);
    }
    return !*t->c->group || cm_render(t, t->c->group, r, false, group, err);
}

/* eval.limit takes items spread evenly over all there are, so that data sorted by paradigm or
 * subject gives some of each; the choice depends on nothing but the two numbers. */
static int64_t limited(const cm_eval_task *t, int64_t n) {
    return t->eval->limit && t->eval->limit < n ? t->eval->limit : n;
}

static int64_t spread(int64_t k, int64_t n, int64_t all) {
    return k * all / n; /* rows in memory: no overflow */
}

static bool add_rows(cm_eval_task *t, cm_err *err) {
    struct cm_task_int *in = t->in;
    cm_buf id = { 0 }, group = { 0 };
    bool ok = true;
    int64_t n = limited(t, in->n_rows);
    for (int64_t k = 0; ok && k < n; k++) {
        in->at = spread(k, n, in->n_rows);
        const cm_row *r = &in->row[in->at];
        cm_err why;
        ok = name_question(t, r, &id, &group, &why);
        if (ok) {
            cm_question *q = cm_task_add(t, id.s, group.n ? group.s : NULL);
            ok = t->kind->row(t, r, q, &why);
        }
        if (ok) continue;
        if (why.code == CM_EXIT_USAGE) *err = why; /* it is the task file that is wrong */
        else cm_fail(err, why.code, "%s:%lld: %s (task %s)", r->path, (long long)r->line, why.msg,
                     t->path);
    }
    cm_buf_free(&id);
    cm_buf_free(&group);
    return ok;
}

static bool read_rows(cm_eval_task *t, cm_err *err) {
    const cm_task_conf *c = t->c;
    struct cm_task_int *in = t->in;
    if (!c->data.n)
        return cm_conf_bad(&t->file, err, "task.data", "kind %s wants files of items",
                           t->kind->name);
    in->own_shots = t->shots && !c->shot_data.n;
    cm_json_open(&t->data_json, NULL, '[');
    bool ok = cm_rows_read(t, &c->data, &in->row, &in->n_rows, &t->data_json, err) &&
              (!t->shots || in->own_shots ||
               cm_rows_read(t, &c->shot_data, &in->shot, &in->n_shots, &t->data_json, err));
    cm_json_close(&t->data_json, '[');
    if (in->own_shots) {
        in->shot = in->row;
        in->n_shots = in->n_rows;
    }
    return ok;
}

/* ---- all of it ----------------------------------------------------------------------- */

static int by_id(const void *a, const void *b) {
    const cm_question *x = *(const cm_question *const *)a, *y = *(const cm_question *const *)b;
    int c = strcmp(x->id, y->id);
    return c ? c : (x > y) - (x < y);
}

static bool check_ids(const cm_eval_task *t, cm_err *err) {
    const cm_question **q = malloc((size_t)t->n * sizeof *q);
    CM_ASSERT(q, "out of memory: ids of task %s", t->name);
    for (int64_t i = 0; i < t->n; i++) q[i] = &t->q[i];
    qsort(q, (size_t)t->n, sizeof *q, by_id);
    bool ok = true;
    for (int64_t i = 1; ok && i < t->n; i++) {
        if (strcmp(q[i]->id, q[i - 1]->id)) continue;
        int64_t a = q[i - 1] - t->q, b = q[i] - t->q;
        if (t->in->n_rows) {
            a = spread(a, t->n, t->in->n_rows);
            b = spread(b, t->n, t->in->n_rows);
        }
        const cm_row *r = t->kind->row ? t->in->row : NULL;
        ok = r ? cm_fail(err, CM_EXIT_DATA, "%s:%lld: id '%s' was used before (%s:%lld)",
                         r[b].path, (long long)r[b].line, q[i]->id, r[a].path,
                         (long long)r[a].line)
               : cm_fail(err, CM_EXIT_DATA, "task %s: two items with the id '%s'", t->name,
                         q[i]->id);
    }
    free(q);
    return ok;
}

static bool check_items(cm_eval_task *t, cm_err *err) {
    if (!t->n)
        return cm_fail(err, CM_EXIT_DATA, "task %s: no items%s%s", t->name,
                       t->c->data.n ? " in " : "", t->c->data.n ? t->c->data.v[0] : "");
    return check_ids(t, err);
}

bool cm_task_build(cm_eval_task *t, const cm_loaded *model, cm_err *err) {
    struct cm_task_int *in = t->in;
    t->model = model;
    int64_t context = t->eval->context ? t->eval->context : model->model.conf.context;
    t->context = context < INT32_MAX / 4 ? (int)context : INT32_MAX / 4;
    if (t->eval->shots >= 0) t->shots = t->eval->shots;
    bool ok = t->kind->row ? read_rows(t, err) && add_rows(t, err) : t->kind->build(t, err);
    if (ok && !t->kind->row) {
        int64_t n = limited(t, t->n);
        for (int64_t k = 0; k < n; k++) t->q[k] = t->q[spread(k, n, t->n)];
        t->n = n;
    }
    ok = ok && check_items(t, err);
    if (!ok) cm_task_name_file(t, err);
    for (int64_t i = 0; ok && i < t->n; i++)
        if (!*t->q[i].hash) hash_question(&t->q[i]);
    if (!in->own_shots) cm_rows_free(in->shot, in->n_shots);
    cm_rows_free(in->row, in->n_rows);
    in->row = in->shot = NULL;
    in->n_rows = in->n_shots = 0;
    return ok;
}
