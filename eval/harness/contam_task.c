/* contam_task.c -- the items of tasks against corpora: what --contamination does. */
#include <stdlib.h>
#include <string.h>

#include "harness/harness.h"

/* Tokens: PaLM's 8-grams. */
enum { TOKENS = 8 };

typedef struct {
    cm_contam *words, *tokens;
    const cm_loaded *model;
    const char *field;
    int32_t *id; /* scratch */
    int64_t n_id, cap_id;
    cm_buf text;
    bool found;  /* any text in the corpus */
} search;

static bool encode(search *s, const char *text, size_t n, cm_err *err) {
    s->n_id = 0;
    return cm_spm_encode(s->model->spm, text, n, &s->id, &s->n_id, &s->cap_id, err);
}

/* ---- items ---------------------------------------------------------------------------- */

/* Prompt and right answer, or the document. */
static void item_text(const cm_eval_task *t, const cm_question *q, cm_buf *out) {
    int k = 0;
    out->n = 0;
    while (k < q->n_choices && !(q->right && q->right[k])) k++;
    bool choice = k < q->n_choices;
    cm_buf_addf(out, "%s", choice && q->context ? q->context[k] : q->prompt);
    const char *answer = choice && !q->context ? q->choice[k] : q->answer;
    if (answer) cm_buf_addf(out, "%s%s", t->c->delimiter, answer);
}

/* The task once more, without few-shot examples: those are shared by its items. */
static bool add_task(search *s, const cm_eval_task *t, cm_err *err) {
    cm_eval_conf conf = *t->eval;
    cm_eval_task bare;
    conf.shots = 0;
    if (!cm_task_open(&bare, t->path, &conf, err)) return false;
    bare.chat = false; /* the template's words are the task's, not the item's */
    bool ok = cm_task_build(&bare, s->model, err);
    for (int64_t i = 0; ok && i < bare.n; i++) {
        item_text(&bare, &bare.q[i], &s->text);
        ok = encode(s, s->text.s, s->text.n, err);
        cm_contam_add_words(s->words, s->text.s, s->text.n);
        cm_contam_add_ids(s->tokens, s->id, s->n_id);
    }
    cm_task_close(&bare);
    return ok;
}

/* ---- corpora -------------------------------------------------------------------------- */

static void begin(search *s) {
    cm_contam_document(s->words);
    cm_contam_document(s->tokens);
}

static bool scan_text(search *s, const char *text, size_t n, cm_err *err) {
    s->found = true;
    cm_contam_scan_words(s->words, text, n);
    if (!encode(s, text, n, err)) return false;
    cm_contam_scan_ids(s->tokens, s->id, s->n_id);
    return true;
}

static bool scan_dataset(search *s, const cm_dataset *d, const char *path, cm_err *err) {
    bool same = !strcmp(d->tokenizer, cm_spm_hash(s->model->spm));
    cm_spm *spm = cm_spm_open(d->tokenizer_path, err);
    bool ok = spm != NULL;
    for (int64_t i = 0; ok && i < d->n_docs[CM_SPLIT_TRAIN] && !cm_signal_stop(); i++) {
        int64_t start, n, bytes;
        if (!cm_dataset_doc(d, CM_SPLIT_TRAIN, i, &start, &n, &bytes, err)) ok = false;
        int32_t *id = ok ? malloc((size_t)(n + 1) * sizeof *id) : NULL;
        CM_ASSERT(!ok || id, "out of memory: a document of %lld tokens", (long long)n);
        ok = ok && cm_dataset_read(d, CM_SPLIT_TRAIN, start, n, id, NULL, err);
        if (ok) {
            s->found = true;
            begin(s);
            int64_t skip = n && id[0] == d->bos, tail = n > skip && id[n - 1] == d->eos;
            char *text = cm_spm_decode(spm, id + skip, n - skip - tail);
            CM_ASSERT(text, "%s: document %lld does not decode", path, (long long)i);
            cm_contam_scan_words(s->words, text, strlen(text));
            if (same) cm_contam_scan_ids(s->tokens, id + skip, n - skip - tail);
            else if (encode(s, text, strlen(text), err))
                cm_contam_scan_ids(s->tokens, s->id, s->n_id);
            else ok = false;
            free(text);
        }
        free(id);
    }
    cm_spm_close(spm);
    return ok;
}

static bool scan_document(void *ctx, const char *text, size_t n, bool *more, cm_err *err) {
    search *s = ctx;
    begin(s);
    *more = !cm_signal_stop();
    return !n || scan_text(s, text, n, err);
}

/* A line of plain text is a piece of a document, which a mark may end. */
static bool scan_line(search *s, const cm_line *line, cm_err *err) {
    static const char mark[] = "<|endoftext|>";
    if (line->too_long)
        return cm_fail(err, CM_EXIT_DATA, "the line is longer than 256 MiB");
    if (line->n == sizeof mark - 1 && !memcmp(line->s, mark, line->n)) {
        begin(s);
        return true;
    }
    s->text.n = 0;
    cm_buf_add(&s->text, line->s, line->n);
    cm_buf_add(&s->text, "\n", 1);
    size_t bad;
    return cm_utf8_valid(s->text.s, s->text.n, &bad)
               ? scan_text(s, s->text.s, s->text.n, err)
               : cm_fail(err, CM_EXIT_DATA, "invalid UTF-8 at byte %zu", bad);
}

static bool scan_lines(search *s, cm_src *src, const char *path, cm_err *err) {
    bool ok = true, end = false;
    begin(s);
    while (ok && !cm_signal_stop()) {
        cm_line line;
        cm_err why;
        ok = cm_src_line(src, (size_t)1 << 28, &line, &end, err);
        if (!ok || end) break;
        if (scan_line(s, &line, &why)) continue;
        ok = cm_fail(err, why.code, "%s:%llu: %s", path, (unsigned long long)line.number,
                     why.msg);
    }
    return ok;
}

static bool scan_file(search *s, const char *path, cm_err *err) {
    cm_src *src = cm_src_open(path, err);
    if (!src) return false;
    bool ok = cm_text_is_jsonl(path) ? cm_text_jsonl(src, path, s->field, scan_document, s, err)
                                     : scan_lines(s, src, path, err);
    cm_src_close(src);
    return ok;
}

static bool scan_shards(search *s, const char *path, cm_err *err) {
    cm_dataset d;
    if (!cm_dataset_open(&d, path, err)) return false;
    bool ok = scan_dataset(s, &d, path, err);
    cm_dataset_close(&d);
    return ok;
}

/* A corpus without text would call every item clean. */
static bool scan(search *s, const char *path, cm_err *err) {
    char *manifest = cm_strf("%s/manifest.json", path);
    bool set = cm_exists(manifest);
    free(manifest);
    s->found = false;
    if (!(set ? scan_shards : scan_file)(s, path, err)) return false;
    return s->found || cm_signal_stop() ||
           cm_fail(err, CM_EXIT_DATA, "%s: there is no text in it that items could be in", path);
}

/* ---- both ----------------------------------------------------------------------------- */

static void keep(const search *s, cm_eval_task *task, int n_tasks) {
    int at = 0;
    for (int k = 0; k < n_tasks; k++) {
        cm_eval_task *t = &task[k];
        t->overlap = calloc((size_t)t->n, sizeof *t->overlap);
        CM_ASSERT(t->overlap, "out of memory: %lld items", (long long)t->n);
        for (int64_t i = 0; i < t->n; i++, at++)
            t->overlap[i] = (cm_item_overlap){ cm_contam_item(s->words, at),
                                               cm_contam_item(s->tokens, at) };
    }
}

bool cm_tasks_contaminate(cm_eval_task *task, int n_tasks, const cm_loaded *model,
                          const char *const *corpus, int n, cm_err *err) {
    const cm_eval_conf *e = task[0].eval;
    int words = (int)e->contamination_words, least = (int)e->contamination_least;
    if (least > words) least = words;
    search s = { .words = cm_contam_open(words, least), .model = model, .field = e->field,
                 .tokens = cm_contam_open(TOKENS, TOKENS) };
    bool ok = true;
    for (int k = 0; ok && k < n_tasks; k++) ok = add_task(&s, &task[k], err);
    for (int k = 0; ok && k < n; k++) ok = scan(&s, corpus[k], err);
    if (ok) keep(&s, task, n_tasks);
    cm_contam_close(s.words);
    cm_contam_close(s.tokens);
    cm_buf_free(&s.text);
    free(s.id);
    return ok;
}

void cm_overlap_json(cm_buf *b, const cm_item_overlap *o) {
    const cm_overlap *w = &o->words;
    cm_json_open(b, "contamination", '{');
    cm_json_i64(b, "words", w->units);
    cm_json_i64(b, "grams", w->grams);
    if (w->grams) {
        cm_json_i64(b, "hits", w->hits);
        cm_json_f64(b, "coverage", w->coverage);
        cm_json_i64(b, "longest", w->longest);
        cm_json_bool(b, "contaminated", w->hits > 0);
    }
    if (o->tokens.grams)
        cm_json_f64(b, "token_coverage", (double)o->tokens.hits / (double)o->tokens.grams);
    cm_json_close(b, '{');
}
