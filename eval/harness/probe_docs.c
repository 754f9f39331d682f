/* probe_docs.c -- kinds on running text: loss by position, and degeneration of what a model
 * writes when it continues a document. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/probe_int.h"

/* ---- rows of documents ----------------------------------------------------------- */

typedef struct {
    cm_eval_task *t;
    int length;
    bool first_only;
    cm_text_row *row;
    int64_t n, cap;
    int32_t *id; /* the document, or all of them: [n_id] */
    int64_t n_id, cap_id;
} cutter;

static void add_row(cutter *c, const int32_t *id, int n, const char *group, bool bos) {
    int front = bos ? 1 : 0;
    int32_t *copy = cm_pool_get(&c->t->pool, (size_t)(n + front) * sizeof *copy);
    if (bos) copy[0] = cm_spm_bos(c->t->model->spm);
    memcpy(copy + front, id, (size_t)n * sizeof *copy);
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 256;
        c->row = realloc(c->row, (size_t)c->cap * sizeof *c->row);
        CM_ASSERT(c->row, "out of memory: rows of task %s", c->t->name);
    }
    c->row[c->n++] = (cm_text_row){ copy, n + front, group };
}

/* One document with BOS in front; later rows begin with BOS as well. */
static void cut_document(cutter *c, int64_t number) {
    bool bos = cm_spm_bos(c->t->model->spm) >= 0;
    int most = c->length - bos;
    if (c->first_only && c->n_id < most) return;
    char *name = cm_strf("%lld", (long long)number);
    const char *group = cm_pool_text(&c->t->pool, name, strlen(name));
    free(name);
    for (int64_t at = 0; at < c->n_id; at += most) {
        int64_t n = c->n_id - at < most ? c->n_id - at : most;
        if (n + bos >= 2) add_row(c, c->id + at, (int)n, group, bos);
        if (c->first_only) return;
    }
}

static void cut_joined(cutter *c) {
    int bos = cm_spm_bos(c->t->model->spm);
    for (int64_t at = 0; at + c->length <= c->n_id; at += c->length) {
        if (bos >= 0) c->id[at] = bos;
        add_row(c, c->id + at, c->length, NULL, false);
    }
}

static bool put_bos(cutter *c) {
    int bos = cm_spm_bos(c->t->model->spm);
    if (bos < 0) return true;
    c->cap_id = 1024;
    c->id = malloc((size_t)c->cap_id * sizeof *c->id);
    CM_ASSERT(c->id, "out of memory: tokens");
    c->id[c->n_id++] = bos;
    return true;
}

static bool cut_rows(cutter *c, const cm_row *row, int64_t n, cm_err *err) {
    const cm_task_conf *conf = c->t->c;
    cm_buf text = { 0 };
    bool ok = !conf->join || put_bos(c);
    for (int64_t i = 0; ok && i < n; i++) {
        text.n = 0;
        if (!conf->join) c->n_id = 0;
        ok = cm_render(c->t, conf->text, &row[i], true, &text, err) &&
             cm_spm_encode(c->t->model->spm, text.s ? text.s : "", text.n, &c->id, &c->n_id,
                           &c->cap_id, err);
        if (ok && !conf->join) cut_document(c, i);
    }
    if (ok && conf->join) cut_joined(c);
    cm_buf_free(&text);
    return ok;
}

/* A single document is no sample of documents: then its rows are the clusters. */
static void part_single(cutter *c) {
    for (int64_t i = 1; i < c->n; i++)
        if (c->row[i].group != c->row[0].group) return;
    for (int64_t i = 0; i < c->n; i++) c->row[i].group = NULL;
}

bool cm_text_rows(cm_eval_task *t, int length, bool first_only, cm_text_row **row,
                  int64_t *n, cm_err *err) {
    if (!t->c->data.n)
        return cm_conf_bad(&t->file, err, "task.data", "kind %s wants files of text",
                           t->kind->name);
    cutter c = { .t = t, .length = length, .first_only = first_only };
    cm_row *doc = NULL;
    int64_t docs = 0;
    cm_json_open(&t->data_json, NULL, '[');
    bool ok = cm_rows_read(t, &t->c->data, &doc, &docs, &t->data_json, err);
    cm_json_close(&t->data_json, '[');
    ok = ok && cut_rows(&c, doc, docs, err);
    if (ok) part_single(&c);
    if (ok && !c.n)
        ok = cm_fail(err, CM_EXIT_DATA, "task %s: no text of %d tokens in %s (%lld documents%s)",
                     t->name, length, t->c->data.v[0], (long long)docs,
                     t->c->join ? "" : "; task.join makes one text of them");
    cm_rows_free(doc, docs);
    free(c.id);
    *row = c.row;
    *n = c.n;
    return ok;
}

/* ---- curve ----------------------------------------------------------------------- */

static bool build_curve(cm_eval_task *t, cm_err *err) {
    double length[MAX_GRID];
    if (!cm_probe_numbers(t, "task.lengths", &t->c->lengths, 2, 1e6, length, err)) return false;
    cm_text_row *row = NULL;
    int64_t n = 0;
    bool ok = cm_text_rows(t, (int)length[0], true, &row, &n, err);
    for (int64_t i = 0; ok && i < n; i++) {
        char *id = row[i].group ? cm_strf("%s", row[i].group) : cm_strf("%lld", (long long)i);
        cm_question *q = cm_task_add(t, id, NULL);
        free(id);
        q->prompt = cm_probe_ids_text(t, row[i].token, row[i].n, NULL, 0);
        cm_question_asks(t, q, 1);
        cm_probe_ask(t, q->ask, row[i].token, row[i].n, 1);
    }
    free(row);
    return ok;
}

typedef struct {
    double nll, bytes;
    int n;
} stretch;

/* Tokens [lo,hi) of the row, as scored. */
static stretch sum_stretch(const cm_eval_task *t, const cm_ask *a, int lo, int hi,
                           cm_buf *text) {
    stretch s = { 0 };
    text->n = 0;
    for (int i = lo; i < hi && i < a->n; i++, s.n++) {
        s.nll -= a->logp[i - a->first];
        cm_spm_token_bytes(t->model->spm, a->token[i], text);
    }
    s.bytes = (double)text->n;
    return s;
}

static void ratio_json(cm_buf *b, const char *key, double num, double den) {
    cm_json_open(b, key, '[');
    cm_json_f64(b, NULL, num);
    cm_json_f64(b, NULL, den);
    cm_json_close(b, '[');
}

static void score_curve(const cm_eval_task *t, const cm_question *q, cm_item *out,
                        cm_buf *detail) {
    const cm_ask *a = q->ask;
    cm_buf text = { 0 };
    stretch all = sum_stretch(t, a, a->first, a->n, &text);
    cm_item_put(t, out, "bits_per_byte", all.nll / log(2.0), all.bytes);
    cm_item_put(t, out, "ppl_token", all.nll, all.n);
    cm_json_open(detail, "slices", '{');
    for (int lo = a->first; lo < a->n; lo *= 2) {
        stretch s = sum_stretch(t, a, lo, 2 * lo, &text);
        char name[48];
        snprintf(name, sizeof name, "position=%d-%d", lo, 2 * lo - 1);
        cm_json_open(detail, name, '{');
        ratio_json(detail, "ppl_token", s.nll, s.n);
        ratio_json(detail, "bits_per_byte", s.nll / log(2.0), s.bytes);
        cm_json_close(detail, '{');
    }
    cm_json_close(detail, '{');
    cm_buf_free(&text);
}

const cm_kind cm_kind_curve = {
    .name = "curve",
    .help = "loss by position in long rows, past the training context where they are longer",
    .metrics = "bits_per_byte ppl_token",
    .primary = "bits_per_byte",
    .keys = CM_KEYS_ALL CM_KEYS_DATA "text lengths join",
    .build = build_curve,
    .score = score_curve,
};

/* ---- degen ----------------------------------------------------------------------- */

typedef struct {
    const int32_t *id; /* the document's own continuation */
    int n;
} human;

static bool build_degen(cm_eval_task *t, cm_err *err) {
    const cm_task_conf *c = t->c;
    int64_t most = c->prompt_tokens + c->max_new_tokens;
    bool bos = cm_spm_bos(t->model->spm) >= 0;
    if (most + bos > t->context)
        return cm_fail(err, CM_EXIT_USAGE, "task %s: a prompt of %lld tokens and %lld new ones "
                       "exceed the context of %d", t->name, (long long)c->prompt_tokens,
                       (long long)c->max_new_tokens, t->context);
    cm_text_row *row = NULL;
    int64_t n = 0;
    bool ok = cm_text_rows(t, (int)most + bos, true, &row, &n, err);
    for (int64_t i = 0; ok && i < n; i++) {
        char *id = row[i].group ? cm_strf("%s", row[i].group) : cm_strf("%lld", (long long)i);
        cm_question *q = cm_task_add(t, id, NULL);
        free(id);
        int first = (int)c->prompt_tokens + bos;
        human *h = q->own = cm_pool_get(&t->pool, sizeof *h);
        *h = (human){ row[i].token + first, row[i].n - first };
        char *text = cm_spm_decode(t->model->spm, row[i].token, first);
        q->prompt = cm_pool_text(&t->pool, text, strlen(text));
        free(text);
        cm_question_asks(t, q, 1);
        cm_ask_tokens(t, q->ask, row[i].token, first, first);
        q->ask->max_new = (int)c->max_new_tokens;
    }
    free(row);
    return ok;
}

static void degen_json(cm_buf *b, const cm_degen *d, int tokens) {
    cm_json_open(b, "human", '{');
    if (!isnan(d->seq_rep_4)) cm_json_f64(b, "seq_rep_4", d->seq_rep_4);
    if (!isnan(d->distinct_2)) cm_json_f64(b, "distinct_2", d->distinct_2);
    if (d->bytes > 0) ratio_json(b, "compression", d->bytes, d->packed);
    cm_json_i64(b, "loop", d->loop);
    cm_json_i64(b, "gen_tokens", tokens);
    cm_json_close(b, '{');
}

static void score_degen(const cm_eval_task *t, const cm_question *q, cm_item *out,
                        cm_buf *detail) {
    const cm_ask *a = q->ask;
    const human *h = q->own;
    cm_degen d = cm_degen_measure(a->out, a->n_out, a->text, a->bytes);
    if (!isnan(d.seq_rep_4)) cm_item_put(t, out, "seq_rep_4", d.seq_rep_4, 1);
    if (!isnan(d.distinct_2)) cm_item_put(t, out, "distinct_2", d.distinct_2, 1);
    if (d.bytes > 0) cm_item_put(t, out, "compression", d.bytes, d.packed);
    cm_item_put(t, out, "loop", d.loop, 1);
    cm_item_put(t, out, "ended", a->ended, 1);
    cm_item_put(t, out, "gen_tokens", a->n_out, 1);
    cm_json_str(detail, "prompt", q->prompt);
    cm_json_said(detail, "out", a->text, a->bytes);
    if (d.loop) cm_json_i64(detail, "period", d.period);
    /* The measures depend on length: as many tokens of the document as were generated. */
    int n = a->n_out < h->n ? a->n_out : h->n;
    char *text = cm_spm_decode(t->model->spm, h->id, n);
    cm_degen own = cm_degen_measure(h->id, n, text, strlen(text));
    degen_json(detail, &own, n);
    free(text);
}

const cm_kind cm_kind_degen = {
    .name = "degen",
    .help = "repetition, loops and compressibility of continued documents, beside their own",
    .metrics = "seq_rep_4 distinct_2 compression loop ended gen_tokens",
    .primary = "seq_rep_4",
    .keys = CM_KEYS_ALL CM_KEYS_DATA "text join prompt_tokens max_new_tokens stop",
    .build = build_degen,
    .score = score_degen,
};
