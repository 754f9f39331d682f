/* task_text.c -- kind text: perplexity of whole documents, window by window. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/task_int.h"

/* Sizes of the document as its source has it, before replacements. */
typedef struct doc {
    int64_t bytes, words;
} doc;

/* Windows over row[0..n], row[0] not scored: every token once.  The last one is as long as
 * the context allows, as in lm-evaluation-harness. */
static bool add_windows(cm_eval_task *t, cm_question *q, const int32_t *row, int64_t n,
                        cm_err *err) {
    int64_t context = t->context, stride = t->eval->stride ? t->eval->stride : context;
    if (stride > context)
        return cm_fail(err, CM_EXIT_USAGE, "eval.stride: %lld is longer than the window, "
                       "eval.context = %lld", (long long)stride, (long long)context);
    int windows = 1 + (int)(n > context ? (n - context + stride - 1) / stride : 0);
    cm_question_asks(t, q, windows);
    int64_t done = 0;
    for (int w = 0; w < windows; w++) {
        int64_t end = w == 0 ? context : done + stride;
        if (end > n) end = n;
        int64_t begin = end > context ? end - context : 0;
        cm_ask_tokens(t, &q->ask[w], row + begin, (int)(end - begin) + 1,
                      (int)(done - begin) + 1);
        done = end;
    }
    return true;
}

static bool row_text(cm_eval_task *t, const cm_row *r, cm_question *q, cm_err *err) {
    struct cm_task_int *in = t->in;
    cm_buf raw = { 0 };
    const cm_task_conf *c = t->c;
    doc *d = q->own = cm_pool_get(&t->pool, sizeof *d);
    bool ok = cm_render(t, c->text, r, false, &raw, err) &&
              (raw.n || cm_fail(err, CM_EXIT_DATA, "an empty document"));
    if (ok) {
        d->bytes = (int64_t)raw.n;
        d->words = cm_count_words(raw.s, raw.n);
        if (c->empty_words && d->words)
            d->words += !!strchr(" \t\n\r\f\v", raw.s[0]) +
                        !!strchr(" \t\n\r\f\v", raw.s[raw.n - 1]);
        ok = cm_clean(t, &raw, err);
    }
    int prefix = cm_task_prefix(t);
    in->n_id = 0;
    ok = ok && cm_spm_encode(t->model->spm, raw.s, raw.n, &in->id, &in->n_id, &in->cap_id, err);
    if (ok && in->n_id + (prefix >= 0) < 2)
        ok = cm_fail(err, CM_EXIT_DATA, "a document without a token to score");
    if (ok) {
        q->prompt = cm_pool_text(&t->pool, raw.s, raw.n);
        int32_t *row = malloc((size_t)(in->n_id + 1) * sizeof *row);
        CM_ASSERT(row, "out of memory: a document of %lld tokens", (long long)in->n_id);
        row[0] = prefix;
        memcpy(row + 1, in->id, (size_t)in->n_id * sizeof *row);
        ok = prefix >= 0 ? add_windows(t, q, row, in->n_id, err)
                         : add_windows(t, q, row + 1, in->n_id - 1, err);
        free(row);
    }
    cm_buf_free(&raw);
    return ok;
}

static void score_text(const cm_eval_task *t, const cm_question *q, cm_item *out,
                       cm_buf *detail) {
    const doc *d = q->own;
    double L = 0;
    int64_t tokens = 0;
    for (int i = 0; i < q->n_asks; i++)
        for (int j = 0; j < q->ask[i].n - q->ask[i].first; j++, tokens++)
            L += q->ask[i].logp[j];
    cm_item_put(t, out, "bits_per_byte", -L / log(2.0), (double)d->bytes);
    cm_item_put(t, out, "ppl_byte", -L, (double)d->bytes);
    cm_item_put(t, out, "ppl_word", -L, (double)d->words);
    cm_item_put(t, out, "ppl_token", -L, (double)tokens);
    char begins[81];
    size_t n = strlen(q->prompt) < 80 ? strlen(q->prompt) : 80;
    while (n && ((unsigned char)q->prompt[n] & 0xC0) == 0x80) n--;
    snprintf(begins, sizeof begins, "%.*s", (int)n, q->prompt);
    cm_json_str(detail, "begins", begins);
    cm_json_open(detail, "loglik", '[');
    cm_json_f64(detail, NULL, L);
    cm_json_close(detail, '[');
    cm_json_i64(detail, "tokens", tokens);
    cm_json_i64(detail, "windows", q->n_asks);
}

const cm_kind cm_kind_text = {
    .name = "text",
    .help = "documents: bits per byte, perplexity per token, word and byte",
    .metrics = "bits_per_byte ppl_token ppl_word ppl_byte",
    .primary = "bits_per_byte",
    .keys = CM_KEYS_ALL CM_KEYS_ROWS "text empty_words",
    .in_order = true,
    .row = row_text,
    .score = score_text,
};
