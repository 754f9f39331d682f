/* questions.c -- questions, instructions and sampled answers as tables in memory. */
#include "data/judge/judge.h"
#include "results/results.h"

#include <stdlib.h>
#include <string.h>

/* ---- rows ---------------------------------------------------------------------------- */

static char *keep(const char *s, size_t n) {
    char *c = malloc(n + 1);
    CM_ASSERT(c, "out of memory for %zu bytes", n);
    memcpy(c, s, n);
    c[n] = 0;
    return c;
}

static cm_question_row *new_row(cm_questions *q) {
    if (q->n == q->cap) {
        q->cap = q->cap ? 2 * q->cap : 1024;
        q->row = realloc(q->row, (size_t)q->cap * sizeof *q->row);
        CM_ASSERT(q->row, "out of memory for %d questions", q->cap);
    }
    memset(&q->row[q->n], 0, sizeof *q->row);
    return &q->row[q->n++];
}

void cm_questions_free(cm_questions *q) {
    for (int i = 0; i < q->n; i++) {
        const cm_question_row *r = &q->row[i];
        const char *text[] = {r->id, r->skill, r->prompt, r->answer, r->doc, r->sum, r->reply};
        for (size_t k = 0; k < sizeof text / sizeof *text; k++) free((char *)text[k]);
    }
    free(q->row);
    *q = (cm_questions){0};
}

int cm_questions_find(const cm_questions *q, const char *id) {
    for (int i = 0; i < q->n; i++)
        if (strcmp(q->row[i].id, id) == 0) return i;
    return -1;
}

/* A string member, copied; "" where it is absent. */
static char *text_of(const cm_json_tree *t, int node, const char *name) {
    int v = cm_json_tree_get(t, node, name);
    if (v < 0 || t->node[v].type != CM_JSON_STRING) return keep("", 0);
    return keep(t->text.s + t->node[v].at, t->node[v].n);
}

/* ---- files ---------------------------------------------------------------------------- */

typedef bool (*row_fn)(cm_questions *q, const cm_json_tree *t);

static bool question_row(cm_questions *q, const cm_json_tree *t) {
    cm_question_row *r = new_row(q);
    r->id = text_of(t, 0, "id");
    r->skill = text_of(t, 0, "skill");
    r->prompt = text_of(t, 0, "prompt");
    r->answer = text_of(t, 0, "answer");
    r->doc = text_of(t, 0, "doc");
    r->sum = text_of(t, 0, "sum");
    r->reply = text_of(t, 0, "chosen");
    return *r->id && *r->skill && *r->prompt && *r->answer;
}

/* What the assistant said, its reasoning left out. */
static char *answer_of(const cm_json_tree *t, int turn) {
    char *all = text_of(t, turn, "content"), *end = strstr(all, "</think>");
    if (!end) return all;
    char *rest = keep(end + 8, strlen(end + 8));
    free(all);
    return rest;
}

static void add_turn(cm_questions *q, const char *said, size_t n, char *answer) {
    cm_question_row *r = new_row(q);
    r->prompt = keep(said, n);
    r->answer = answer;
    r->id = keep("", 0), r->skill = keep("", 0), r->doc = keep("", 0);
    r->sum = keep("", 0), r->reply = keep("", 0);
}

/* A story stands in the first turn and belongs to the later questions, too. */
static bool instruction_row(cm_questions *q, const cm_json_tree *t) {
    int list = cm_json_tree_get(t, 0, "messages");
    if (list < 0 || t->node[list].type != CM_JSON_ARRAY) return false;
    cm_buf said = {0};
    size_t story = 0;
    for (int m = t->node[list].first, user = 1; m >= 0; m = t->node[m].next, user = !user) {
        if (!user) {
            add_turn(q, said.s, said.n, answer_of(t, m));
            continue;
        }
        char *text = text_of(t, m, "content"), *line = strchr(text, '\n');
        said.n = story;
        cm_buf_add(&said, text, strlen(text));
        if (!story && line) story = (size_t)(line + 1 - text);
        free(text);
    }
    cm_buf_free(&said);
    return true;
}

static bool read_rows(cm_questions *q, const char *path, row_fn fn, const char *what,
                      cm_err *err) {
    cm_src *s = cm_src_open(path, err);
    cm_json_tree t = {0};
    bool ok = s != NULL, end = false;
    *q = (cm_questions){0};
    while (ok) {
        cm_line line;
        cm_err why;
        ok = cm_src_line(s, 1 << 20, &line, &end, err);
        if (!ok || end) break;
        if (!line.n) continue;
        if (!cm_json_tree_read(&t, line.s, line.n, &why))
            ok = cm_fail(err, CM_EXIT_DATA, "%s:%llu: %s", path,
                         (unsigned long long)line.number, why.msg);
        else if (!fn(q, &t))
            ok = cm_fail(err, CM_EXIT_DATA, "%s:%llu: %s", path,
                         (unsigned long long)line.number, what);
    }
    if (ok && !q->n) ok = cm_fail(err, CM_EXIT_DATA, "%s: no rows in it", path);
    cm_json_tree_free(&t);
    cm_src_close(s);
    if (!ok) cm_questions_free(q);
    return ok;
}

bool cm_questions_read(cm_questions *q, const char *path, cm_err *err) {
    return read_rows(q, path, question_row, "a question has an id, a skill, a prompt and an "
                     "answer (world --kind questions)", err);
}

bool cm_instructions_read(cm_questions *q, const char *path, cm_err *err) {
    return read_rows(q, path, instruction_row, "no list of messages (world --kind "
                     "instructions)", err);
}

/* ---- sampled answers ------------------------------------------------------------------- */

void cm_sampled_free(cm_sampled *s) {
    for (int i = 0; s->out && i < s->n; i++) free(s->out[i]);
    free(s->out);
    free(s->right);
    free(s->length);
    free(s->ended);
    free(s->path);
    *s = (cm_sampled){0};
}

static void *zeros(int n, size_t size) {
    void *p = calloc((size_t)n, size);
    CM_ASSERT(p, "out of memory for %d answers", n);
    return p;
}

static bool score_at(const cm_column *c, int64_t i, double *out) {
    if (!c || c->v[i].den == 0) return false;
    *out = c->v[i].num / c->v[i].den;
    return true;
}

static bool take_item(cm_sampled *s, const cm_task_result *t, int64_t i, const cm_column *right,
                      int at, cm_err *err) {
    cm_json_tree tree = {0};
    double ended = 1;
    if (s->out[at]) return cm_fail(err, CM_EXIT_DATA, "%s: item %s twice", s->path, t->id[i]);
    if (!t->detail[i] || !cm_json_tree_read(&tree, t->detail[i], strlen(t->detail[i]), err)) {
        cm_json_tree_free(&tree);
        return cm_fail(err, CM_EXIT_DATA, "%s: item %s has no detail", s->path, t->id[i]);
    }
    s->out[at] = text_of(&tree, 0, "out");
    cm_json_tree_free(&tree);
    if (!score_at(right, i, &s->right[at]))
        return cm_fail(err, CM_EXIT_DATA, "%s: item %s has no %s", s->path, t->id[i],
                       right->metric->name);
    score_at(cm_task_column(t, "gen_tokens"), i, &s->length[at]);
    score_at(cm_task_column(t, "ended"), i, &ended);
    s->ended[at] = ended > 0;
    return true;
}

static bool take_task(cm_sampled *s, const cm_task_result *t, const char *metric,
                      const cm_questions *q, cm_err *err) {
    const cm_column *right = cm_task_column(t, metric ? metric : t->primary);
    if (!right)
        return cm_fail(err, CM_EXIT_DATA, "%s: task %s has no metric %s", s->path, t->name,
                       metric ? metric : t->primary);
    if (t->n != q->n)
        return cm_fail(err, CM_EXIT_DATA, "%s: %lld items, but %d questions", s->path,
                       (long long)t->n, q->n);
    for (int64_t i = 0; i < t->n; i++) {
        /* in the questions' order, nearly always */
        bool here = strcmp(q->row[i].id, t->id[i]) == 0;
        int at = here ? (int)i : cm_questions_find(q, t->id[i]);
        if (at < 0)
            return cm_fail(err, CM_EXIT_DATA, "%s: item %s is none of the questions", s->path,
                           t->id[i]);
        if (!take_item(s, t, i, right, at, err)) return false;
    }
    return true;
}

bool cm_sampled_read(cm_sampled *s, const char *path, const char *metric,
                     const cm_questions *q, cm_err *err) {
    cm_result r;
    *s = (cm_sampled){.path = keep(path, strlen(path)), .n = q->n};
    if (!cm_result_read(&r, path, true, err)) {
        cm_sampled_free(s);
        return false;
    }
    s->out = zeros(q->n, sizeof *s->out);
    s->right = zeros(q->n, sizeof *s->right);
    s->length = zeros(q->n, sizeof *s->length);
    s->ended = zeros(q->n, sizeof *s->ended);
    bool ok = r.n_tasks == 1 ? take_task(s, &r.task[0], metric, q, err)
                             : cm_fail(err, CM_EXIT_DATA, "%s: %d tasks, one is wanted", path,
                                       r.n_tasks);
    cm_result_free(&r);
    if (!ok) cm_sampled_free(s);
    return ok;
}
