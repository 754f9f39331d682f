/* probe_kinds.c -- kinds mqar, copy, needle and phonebook: what is asked and scored. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/probe_int.h"

int cm_probe_numbers(const cm_eval_task *t, const char *key, const cm_list *l, double lo,
                     double hi, double *out, cm_err *err) {
    for (int i = 0; i < l->n; i++)
        if (!cm_parse_f64(l->v[i], &out[i]) || !(out[i] >= lo && out[i] <= hi)) {
            cm_conf_bad(&t->file, err, key, "'%s' is no number from %g to %g", l->v[i], lo, hi);
            return 0;
        }
    CM_ASSERT(l->n >= 1 && l->n <= MAX_GRID, "%s: %d numbers", key, l->n);
    return l->n;
}

void cm_probe_ask(cm_eval_task *t, cm_ask *a, const int32_t *token, int n, int first) {
    int context = t->context;
    if (t->context < n) t->context = n;
    cm_ask_tokens(t, a, token, n, first);
    t->context = context;
}

const char *cm_probe_ids_text(cm_eval_task *t, const int32_t *id, int n, const int32_t *at,
                              int n_at) {
    bool *asked = calloc((size_t)n, sizeof *asked);
    CM_ASSERT(asked, "out of memory: a row of %d tokens", n);
    for (int i = 0; i < n_at; i++) asked[at[i]] = true;
    cm_buf b = { 0 };
    for (int i = 0; i < n; i++)
        cm_buf_addf(&b, asked[i] ? "%s[%d]" : "%s%d", i ? " " : "", id[i]);
    const char *s = cm_pool_text(&t->pool, b.s, b.n);
    cm_buf_free(&b);
    free(asked);
    return s;
}

/* ---- rows of tokens -------------------------------------------------------------- */

/* A question's answers within its one ask. */
typedef struct {
    int n;
    int32_t *at, *slice;
    char label[64];
} row_own;

static void add_row(cm_eval_task *t, cm_probe_row *r, const char *label, int index) {
    char *id = cm_strf("%s/%d", label, index);
    cm_question *q = cm_task_add(t, id, NULL);
    row_own *own = q->own = cm_pool_get(&t->pool, sizeof *own);
    size_t bytes = (size_t)r->n_at * sizeof *own->at;
    *own = (row_own){ .n = r->n_at, .at = cm_pool_get(&t->pool, bytes),
                      .slice = cm_pool_get(&t->pool, bytes) };
    memcpy(own->at, r->at, bytes);
    memcpy(own->slice, r->slice, bytes);
    snprintf(own->label, sizeof own->label, "%s", label);
    int first = r->n;
    for (int i = 0; i < r->n_at; i++) first = r->at[i] < first ? r->at[i] : first;
    q->prompt = cm_probe_ids_text(t, r->token, r->n, r->at, r->n_at);
    cm_question_asks(t, q, 1);
    cm_probe_ask(t, q->ask, r->token, r->n, first);
    free(id);
    cm_probe_row_free(r);
}

static double logp_at(const cm_question *q, int i) {
    const row_own *own = q->own;
    return q->ask->logp[own->at[i] - q->ask->first];
}
static bool right_at(const cm_question *q, int i) {
    const row_own *own = q->own;
    return q->ask->greedy[own->at[i] - q->ask->first];
}

/* Sums over the answers whose slice number lies in [lo,hi]. */
typedef struct {
    int n, right;
    double nll;
} part;

static part sum_slice(const cm_question *q, int lo, int hi) {
    const row_own *own = q->own;
    part p = { 0 };
    for (int i = 0; i < own->n; i++) {
        if (own->slice[i] < lo || own->slice[i] > hi) continue;
        p.n++;
        p.right += right_at(q, i);
        p.nll -= logp_at(q, i);
    }
    return p;
}

static void ratio_json(cm_buf *b, const char *key, double num, double den) {
    cm_json_open(b, key, '[');
    cm_json_f64(b, NULL, num);
    cm_json_f64(b, NULL, den);
    cm_json_close(b, '[');
}

static void slice_json(cm_buf *b, const char *name, part p) {
    if (!p.n) return;
    cm_json_open(b, name, '{');
    ratio_json(b, "acc", p.right, p.n);
    ratio_json(b, "ppl_token", p.nll, p.n);
    cm_json_close(b, '{');
}

static void row_detail(const cm_question *q, cm_buf *detail) {
    const row_own *own = q->own;
    cm_json_str(detail, "prompt", q->prompt);
    cm_json_str(detail, "slice", own->label);
    cm_json_open(detail, "loglik", '[');
    for (int i = 0; i < own->n; i++) cm_json_f64(detail, NULL, logp_at(q, i));
    cm_json_close(detail, '[');
    cm_json_open(detail, "greedy", '[');
    for (int i = 0; i < own->n; i++) cm_json_i64(detail, NULL, right_at(q, i));
    cm_json_close(detail, '[');
}

/* ---- mqar ------------------------------------------------------------------------ */

static bool build_mqar(cm_eval_task *t, cm_err *err) {
    double length[MAX_GRID], pairs[MAX_GRID];
    const cm_task_conf *c = t->c;
    int nl = cm_probe_numbers(t, "task.lengths", &c->lengths, 4, 1e6, length, err);
    int np = nl ? cm_probe_numbers(t, "task.pairs", &c->pairs, 1, 1e5, pairs, err) : 0;
    if (!np) return false;
    int n_id, bos = cm_spm_bos(t->model->spm);
    int32_t *id = cm_probe_ids(t->model->spm, (int)t->model->model.conf.vocab_size, &n_id);
    bool ok = true;
    uint64_t cell = 0;
    for (int l = 0; ok && l < nl; l++)
        for (int p = 0; ok && p < np; p++, cell++) {
            cm_mqar m = { (int)pairs[p], (int)length[l], c->gap_power };
            if (4 * m.pairs > m.length) continue; /* a cell that cannot be */
            char label[64];
            snprintf(label, sizeof label, "pairs=%d,length=%d", m.pairs, m.length);
            for (int i = 0; ok && i < c->items; i++) {
                cm_probe_row r;
                ok = cm_probe_mqar(&m, id, n_id, bos, (uint64_t)c->seed,
                                   cell << 32 | (uint32_t)i, &r, err);
                if (ok) add_row(t, &r, label, i);
            }
        }
    free(id);
    return ok;
}

static void score_mqar(const cm_eval_task *t, const cm_question *q, cm_item *out,
                       cm_buf *detail) {
    part all = sum_slice(q, 0, INT32_MAX);
    cm_item_put(t, out, "acc", (double)all.right / all.n, 1);
    cm_item_put(t, out, "ppl_token", all.nll, all.n);
    row_detail(q, detail);
    cm_json_open(detail, "slices", '{');
    for (int lo = 1; lo < 1 << 24; lo *= 2) { /* by distance from pair to query */
        char name[40];
        snprintf(name, sizeof name, "gap=%d-%d", lo, 2 * lo - 1);
        slice_json(detail, name, sum_slice(q, lo, 2 * lo - 1));
    }
    cm_json_close(detail, '{');
}

const cm_kind cm_kind_mqar = {
    .name = "mqar",
    .help = "associative recall: keys given with values are asked for again (Zoology's MQAR)",
    .metrics = "acc ppl_token",
    .primary = "acc",
    .keys = CM_KEYS_ALL "seed items lengths pairs gap_power",
    .build = build_mqar,
    .score = score_mqar,
};

/* ---- copy ------------------------------------------------------------------------ */

static bool build_copy(cm_eval_task *t, cm_err *err) {
    double block[MAX_GRID];
    const cm_task_conf *c = t->c;
    int nb = cm_probe_numbers(t, "task.blocks", &c->blocks, 2, 1e6, block, err);
    if (!nb) return false;
    int n_id, bos = cm_spm_bos(t->model->spm);
    int32_t *id = cm_probe_ids(t->model->spm, (int)t->model->model.conf.vocab_size, &n_id);
    bool ok = true;
    for (int b = 0; ok && b < nb; b++) {
        char label[64];
        snprintf(label, sizeof label, "block=%d", (int)block[b]);
        for (int i = 0; ok && i < c->items; i++) {
            cm_probe_row r;
            ok = cm_probe_copy((int)block[b], (int)c->copies, id, n_id, bos,
                               (uint64_t)c->seed, (uint64_t)b << 32 | (uint32_t)i, &r, err);
            if (ok) add_row(t, &r, label, i);
        }
    }
    free(id);
    return ok;
}

static void score_copy(const cm_eval_task *t, const cm_question *q, cm_item *out,
                       cm_buf *detail) {
    part first = sum_slice(q, 0, 0), again = sum_slice(q, 1, INT32_MAX);
    cm_item_put(t, out, "acc", (double)again.right / again.n, 1);
    cm_item_put(t, out, "copy_gain", first.nll / first.n - again.nll / again.n, 1);
    cm_item_put(t, out, "ppl_token", again.nll, again.n);
    row_detail(q, detail);
    cm_json_open(detail, "slices", '{');
    for (int k = 0; k <= t->c->copies; k++) {
        char name[40];
        snprintf(name, sizeof name, "copy=%d", k);
        slice_json(detail, name, sum_slice(q, k, k));
    }
    cm_json_close(detail, '{');
}

const cm_kind cm_kind_copy = {
    .name = "copy",
    .help = "a random block of tokens, then the same again: is the second easier?",
    .metrics = "acc copy_gain ppl_token",
    .primary = "acc",
    .keys = CM_KEYS_ALL "seed items blocks copies",
    .build = build_copy,
    .score = score_copy,
};

/* ---- questions in text ----------------------------------------------------------- */

extern const cm_kind cm_kind_choice;

static bool add_text(cm_eval_task *t, cm_probe_text *p, const char *label, int index,
                     const char *group, cm_err *err) {
    char *id = cm_strf("%s/%d", label, index);
    cm_question *q = cm_task_add(t, id, group);
    free(id);
    q->own = cm_pool_text(&t->pool, label, strlen(label));
    cm_asked lead = cm_asked_plain(t, cm_pool_text(&t->pool, p->context.s, p->context.n));
    q->prompt = lead.text;
    bool *right = cm_pool_get(&t->pool, (size_t)p->n_choices * sizeof *right);
    right[p->gold] = true;
    q->right = right;
    q->choice = cm_pool_get(&t->pool, (size_t)p->n_choices * sizeof *q->choice);
    q->n_choices = p->n_choices;
    cm_question_asks(t, q, p->n_choices);
    bool ok = true;
    int context = t->context;
    t->context = INT32_MAX / 4; /* as long as the task says */
    for (int i = 0; ok && i < p->n_choices; i++) {
        q->choice[i] = cm_pool_text(&t->pool, p->choice[i].s, p->choice[i].n);
        char *what = cm_strf("%s%s", t->c->delimiter, q->choice[i]);
        ok = cm_ask_score(t, &q->ask[i], &lead, what, err);
        free(what);
    }
    t->context = context;
    cm_probe_text_free(p);
    return ok;
}

static void score_choices(const cm_eval_task *t, const cm_question *q, cm_item *out,
                          cm_buf *detail) {
    int k = 0;
    while (!q->right[k]) k++;
    cm_kind_choice.score(t, q, out, detail);
    cm_item_put(t, out, "greedy", cm_ask_greedy(&q->ask[k]), 1);
    cm_json_str(detail, "slice", q->own);
}

/* The haystack: sentences of task.data, or none (built-in ones). */
static bool read_hay(cm_eval_task *t, cm_hay *hay, cm_err *err) {
    cm_row *row = NULL;
    int64_t n = 0;
    if (!t->c->data.n) return true;
    cm_buf text = { 0 };
    cm_json_open(&t->data_json, NULL, '[');
    bool ok = cm_rows_read(t, &t->c->data, &row, &n, &t->data_json, err);
    cm_json_close(&t->data_json, '[');
    for (int64_t i = 0; ok && i < n; i++) {
        text.n = 0;
        ok = cm_render(t, t->c->text, &row[i], true, &text, err);
        if (ok && text.n) cm_hay_split(hay, text.s, text.n);
    }
    if (ok && !hay->n)
        ok = cm_fail(err, CM_EXIT_DATA, "task %s: no sentences in %s", t->name,
                     t->c->data.v[0]);
    cm_rows_free(row, n);
    cm_buf_free(&text);
    return ok;
}

static bool build_needles(cm_eval_task *t, const cm_hay *hay, cm_err *err) {
    double length[MAX_GRID], depth[MAX_GRID];
    const cm_task_conf *c = t->c;
    int nl = cm_probe_numbers(t, "task.lengths", &c->lengths, 16, 1e6, length, err);
    int nd = nl ? cm_probe_numbers(t, "task.depths", &c->depths, 0, 1, depth, err) : 0;
    bool ok = nd > 0;
    for (int l = 0; ok && l < nl; l++)
        for (int d = 0; ok && d < nd; d++) {
            char label[64], number[32];
            snprintf(label, sizeof label, "depth=%s,length=%d", cm_f64_text(depth[d], number),
                     (int)length[l]);
            cm_needle n = { (int)length[l], (int)c->keys, (int)c->digits, (int)c->options,
                            depth[d] };
            for (int i = 0; ok && i < c->items; i++) {
                cm_probe_text p;
                /* Item i has the same hay and keys at every depth: a cluster. */
                uint64_t index = (uint64_t)l << 32 | (uint32_t)i;
                char group[48];
                snprintf(group, sizeof group, "length=%d/%d", (int)length[l], i);
                ok = cm_probe_needle(&n, hay, t->model->spm, (uint64_t)c->seed, index, &p, err);
                if (ok) ok = add_text(t, &p, label, i, group, err);
                else cm_probe_text_free(&p);
            }
        }
    return ok;
}

static bool build_needle(cm_eval_task *t, cm_err *err) {
    cm_hay hay = { 0 };
    bool ok = read_hay(t, &hay, err) && build_needles(t, hay.n ? &hay : NULL, err);
    cm_hay_free(&hay);
    return ok;
}

const cm_kind cm_kind_needle = {
    .name = "needle",
    .help = "pass keys in a haystack, by depth and length: right among other keys, and greedily",
    .metrics = "acc margin greedy brier conf ece",
    .primary = "acc",
    .keys = CM_KEYS_ALL CM_KEYS_DATA
            "text delimiter seed items lengths depths keys digits options",
    .build = build_needle,
    .score = score_choices,
};

static bool build_phonebook(cm_eval_task *t, cm_err *err) {
    double entries[MAX_GRID];
    const cm_task_conf *c = t->c;
    int ne = cm_probe_numbers(t, "task.entries", &c->entries, 1, 4096, entries, err);
    bool ok = ne > 0;
    for (int e = 0; ok && e < ne; e++) {
        char label[64];
        snprintf(label, sizeof label, "entries=%d", (int)entries[e]);
        for (int i = 0; ok && i < c->items; i++) {
            cm_probe_text p;
            ok = cm_probe_phonebook((int)entries[e], (int)c->digits, (int)c->options,
                                    t->model->spm, (uint64_t)c->seed,
                                    (uint64_t)e << 32 | (uint32_t)i, &p, err);
            if (ok) ok = add_text(t, &p, label, i, NULL, err);
            else cm_probe_text_free(&p);
        }
    }
    return ok;
}

const cm_kind cm_kind_phonebook = {
    .name = "phonebook",
    .help = "a list of names and numbers, then one of the names: its number among the others",
    .metrics = "acc margin greedy brier conf ece",
    .primary = "acc",
    .keys = CM_KEYS_ALL "delimiter seed items entries digits options",
    .build = build_phonebook,
    .score = score_choices,
};
