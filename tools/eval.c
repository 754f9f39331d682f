/* eval.c -- score a model on tasks, or on text: documents, or llama-perplexity's way. */
#include "app/app.h"
#include "harness/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    cm_app_ctx *app;
    cm_loaded l;
    cm_scorer s;
    cm_window w;
    cm_ppl p;
    cm_progress progress;
    int32_t *id;
    int64_t n_id, cap_id;
    int64_t read;  /* tokens of conversations, trained or not; > 0: only trained ones score */
    bool full; /* eval.limit reached */
} job;

static bool add_ids(job *j, const int32_t *id, const uint8_t *mask, int64_t n, int64_t bytes,
                    int64_t words, cm_err *err) {
    const cm_eval_conf *e = &j->app->conf.eval;
    int bos = j->l.spm ? cm_spm_bos(j->l.spm) : -1;
    if (!cm_ppl_add(&j->p, &j->s, j->w, bos, id, mask, n, bytes, words, err)) return false;
    cm_progress_show(&j->progress, (double)j->p.docs, mask ? "loss=%.4f" : "bpb=%.4f",
                     mask ? log(cm_ppl_token(&j->p)) : cm_ppl_bits_per_byte(&j->p));
    j->full = (e->limit && j->p.docs >= e->limit) || cm_signal_stop();
    return true;
}

static bool add_text(job *j, const char *text, size_t n, cm_err *err) {
    j->n_id = 0;
    return cm_text_utf8(text, n, err) &&
           cm_spm_encode(j->l.spm, text, n, &j->id, &j->n_id, &j->cap_id, err) &&
           add_ids(j, j->id, NULL, j->n_id, (int64_t)n, cm_count_words(text, n), err);
}

/* ---- sources of documents ---------------------------------------------------------------- */

static bool add_line(void *ctx, const char *s, size_t n, bool *more, cm_err *err) {
    job *j = ctx;
    bool ok = add_text(j, s, n, err);
    *more = !j->full;
    return ok;
}

static bool read_all(cm_src *src, cm_buf *out, cm_err *err) {
    char chunk[1 << 16];
    for (size_t got;;) {
        if (!cm_src_read(src, chunk, sizeof chunk, &got, err)) return false;
        if (!got) return true;
        cm_buf_add(out, chunk, got);
    }
}

static bool add_file(job *j, const char *path, cm_err *err) {
    cm_src *src = cm_src_open(path, err);
    if (!src) return false;
    cm_buf text = { 0 };
    bool ok = cm_text_is_jsonl(path)
                  ? cm_text_jsonl(src, path, j->app->conf.eval.field, add_line, j, err)
                  : read_all(src, &text, err);
    cm_err why = { 0 };
    if (ok && text.n && !add_text(j, text.s, text.n, &why))
        ok = cm_fail(err, why.code, "%s: %s", path, why.msg);
    cm_buf_free(&text);
    cm_src_close(src);
    return ok;
}

/* Conversations are measured by trained token, all else by byte: one number for both would
 * say nothing. */
static bool open_shards(const job *j, cm_dataset *d, const char *path, cm_err *err) {
    if (!cm_dataset_open(d, path, err)) return false;
    bool masked = cm_shard_masked(d->kind);
    bool ok = cm_ppl_suits(d, j->l.spm, err) &&
              (!j->p.docs || masked == (j->read > 0) ||
               cm_fail(err, CM_EXIT_USAGE, "%s: of conversations only trained tokens are "
                       "scored, of other text all: ask for them apart", d->dir));
    if (!ok) cm_dataset_close(d);
    return ok;
}

static bool add_shards(job *j, const char *path, cm_err *err) {
    cm_dataset d;
    cm_ppl_doc doc = { 0 };
    if (!open_shards(j, &d, path, err)) return false;
    bool ok = true;
    for (int64_t i = 0; ok && !j->full && i < d.n_docs[CM_SPLIT_VAL]; i++) {
        ok = cm_ppl_doc_read(&doc, &d, j->l.spm, i, err);
        if (!ok) break;
        if (doc.mask) j->read += doc.n;
        cm_err why;
        if ((!doc.mask || doc.bytes) &&
            !add_ids(j, doc.id, doc.mask, doc.n, doc.bytes, doc.words, &why))
            ok = cm_fail(err, why.code, "%s: validation document %lld: %s", d.dir,
                         (long long)i + 1, why.msg);
    }
    cm_ppl_doc_free(&doc);
    cm_dataset_close(&d);
    return ok;
}

/* ---- results ---------------------------------------------------------------------------- */

static void common_json(const job *j, cm_buf *b) {
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "model", cm_app_text(j->app, "model"));
    cm_json_str(b, "model_sha256", j->l.id);
    cm_json_str(b, "tokenizer_sha256", cm_spm_hash(j->l.spm));
    cm_json_str(b, "kernels", cm_kern_describe());
}

/* What both reports on documents begin with. */
static void documents_json(const job *j, cm_buf *b) {
    common_json(j, b);
    cm_json_i64(b, "context", j->w.context);
    cm_json_i64(b, "stride", j->w.stride);
    cm_json_i64(b, "documents", j->p.docs);
    cm_json_i64(b, "tokens", j->p.tokens);
}

static bool deliver(const job *j, cm_buf *b, cm_err *err) {
    cm_json_close(b, '{');
    const char *out = cm_app_text(j->app, "out");
    if (j->app->json) puts(b->s);
    cm_buf_addf(b, "\n");
    return !out || cm_write_file(out, b->s, b->n, err);
}

/* Four decimals; of what has more than nine digits before them, six digits. */
static void print_value(const char *label, double v) {
    printf(fabs(v) < 1e9 ? "%s%.4f" : "%s%.6g", label, v);
}

/* Of conversations: the mean over trained tokens, which is sft's val/loss. */
static bool report_talks(const job *j, cm_err *err) {
    const cm_ppl *p = &j->p;
    double loss = p->nll / (double)p->tokens, se = cm_ppl_bits_per_byte_se(p) * log(2.0);
    cm_buf b = { 0 };
    documents_json(j, &b);
    cm_json_i64(&b, "tokens_read", j->read);
    cm_json_f64(&b, "loss", loss);
    cm_json_f64(&b, "loss_stderr", se);
    cm_json_f64(&b, "token_perplexity", cm_ppl_token(p));
    if (!j->app->json) {
        printf("conversations %lld   trained tokens %lld of %lld: these alone are scored\n",
               (long long)p->docs, (long long)p->tokens, (long long)j->read);
        print_value("loss              ", loss);
        if (isfinite(se)) printf(" +/- %.4f", se);
        print_value(" nats a token\ntoken perplexity  ", cm_ppl_token(p));
        printf("\n");
    }
    bool ok = deliver(j, &b, err);
    cm_buf_free(&b);
    return ok;
}

static bool report_documents(const job *j, cm_err *err) {
    const cm_ppl *p = &j->p;
    if (!p->tokens)
        return cm_fail(err, CM_EXIT_USAGE, "no text to score: the inputs hold no document");
    if (j->read) return report_talks(j, err);
    double bpb = cm_ppl_bits_per_byte(p), se = cm_ppl_bits_per_byte_se(p);
    cm_buf b = { 0 };
    documents_json(j, &b);
    cm_json_i64(&b, "words", p->words);
    cm_json_i64(&b, "bytes", p->bytes);
    cm_json_f64(&b, "bits_per_byte", bpb);
    cm_json_f64(&b, "bits_per_byte_stderr", se);
    cm_json_f64(&b, "token_perplexity", cm_ppl_token(p));
    cm_json_f64(&b, "word_perplexity", cm_ppl_word(p));
    if (!j->app->json) {
        printf("documents %lld   tokens %lld   words %lld   bytes %lld\n", (long long)p->docs,
               (long long)p->tokens, (long long)p->words, (long long)p->bytes);
        print_value("bits per byte     ", bpb);
        if (isfinite(se)) printf(" +/- %.4f", se);
        else printf("   (no stderr: one document)");
        if (p->words) print_value("\nword perplexity   ", cm_ppl_word(p));
        print_value("\ntoken perplexity  ", cm_ppl_token(p));
        printf("\n");
    }
    bool ok = deliver(j, &b, err);
    cm_buf_free(&b);
    return ok;
}

/* A part of the text would pass for the whole: a signal to stop leaves no result. */
static bool interrupted(void) {
    if (!cm_signal_stop()) return false;
    cm_log(CM_LOG_WARN, "interrupted before the end of the text: there is no result");
    return true;
}

static bool run_documents(job *j, cm_err *err) {
    const cm_eval_conf *e = &j->app->conf.eval;
    int64_t context = e->context ? e->context : j->l.model.conf.context;
    int64_t stride = e->stride ? e->stride : context;
    if (context > INT32_MAX / 2 || stride > context)
        return cm_fail(err, CM_EXIT_USAGE,
                       "eval.stride: %lld exceeds the window eval.context = %lld",
                       (long long)stride, (long long)context);
    j->w = (cm_window){ (int)context, (int)stride };
    if (!cm_scorer_open(&j->s, &j->l.model, (int)context + 1, err)) return false;
    cm_progress_open(&j->progress, "eval", "docs", (double)e->limit, 5, j->app->progress,
                     NULL);
    bool ok = true;
    const char *path;
    for (int i = 0; ok && !j->full && (path = cm_app_text_at(j->app, "text", i)); i++)
        ok = add_file(j, path, err);
    for (int i = 0; ok && !j->full && (path = cm_app_text_at(j->app, "shards", i)); i++)
        ok = add_shards(j, path, err);
    cm_progress_close(&j->progress);
    return ok && (interrupted() || report_documents(j, err));
}

/* ---- mode llama -------------------------------------------------------------------------- */

static void show_chunk(void *ctx, int64_t chunk, double ppl) {
    const job *j = ctx;
    if (j->app->json) return;
    printf("[%lld]%.4f,", (long long)chunk + 1, ppl);
    fflush(stdout);
}

static bool report_llama(const job *j, const cm_llama_ppl *r, int ctx, cm_err *err) {
    cm_buf b = { 0 };
    common_json(j, &b);
    cm_json_i64(&b, "context", ctx);
    cm_json_i64(&b, "chunks", r->chunks);
    cm_json_i64(&b, "scored_tokens", r->count);
    cm_json_f64(&b, "perplexity", r->ppl);
    cm_json_f64(&b, "perplexity_stderr", r->se);
    if (!j->app->json)
        printf("\nFinal estimate: PPL = %.4f +/- %.5f\n", r->ppl, r->se);
    bool ok = deliver(j, &b, err);
    cm_buf_free(&b);
    return ok;
}

static bool run_llama(job *j, cm_err *err) {
    const char *path = cm_app_text(j->app, "text");
    if (!path || cm_app_text_at(j->app, "text", 1))
        return cm_fail(err, CM_EXIT_USAGE, "eval.mode llama wants exactly one --text FILE");
    int ctx = j->app->conf.eval.context ? (int)j->app->conf.eval.context : 512;
    int bos = cm_spm_bos(j->l.spm);
    cm_llama_ppl r;
    cm_err why = { 0 };
    if (!cm_text_tokens(j->l.spm, path, j->app->conf.eval.field, &j->id, &j->n_id, err) ||
        !cm_scorer_open(&j->s, &j->l.model, ctx, err))
        return false;
    if (!cm_llama_perplexity(&j->s, j->id, j->n_id, ctx, bos, bos >= 0, show_chunk, j, &r, &why))
        return cm_fail(err, why.code, "%s: %s", path, why.msg);
    return interrupted() || report_llama(j, &r, ctx, err);
}

static void print_plan(const job *j, const cm_model_conf *m) {
    int64_t all = cm_model_count(m, false), used = cm_model_count(m, true);
    if (!j->app->json) {
        printf("parameters  %lld, %lld used by a token\nvocabulary  %lld\n"
               "context     %lld\n", (long long)all, (long long)used, (long long)m->vocab_size,
               (long long)m->context);
        return;
    }
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    cm_json_i64(&b, "parameters", all);
    cm_json_i64(&b, "parameters_active", used);
    cm_json_i64(&b, "vocab_size", m->vocab_size);
    cm_json_i64(&b, "context", m->context);
    cm_json_print(&b);
}

/* A file of ours may be written again; any other stays. */
static bool usable_file(const char *path, cm_err *err) {
    struct stat st;
    if (!path || stat(path, &st)) return true;
    if (!S_ISREG(st.st_mode))
        return cm_fail(err, CM_EXIT_USAGE, "%s: is no file that results could take the place of",
                       path);
    static const char ours[] = "{\"model\":\"";
    char head[4096] = "";
    FILE *f = st.st_size ? fopen(path, "re") : NULL;
    size_t n = f ? fread(head, 1, sizeof head - 1, f) : 0;
    if (f) fclose(f);
    head[n] = 0;
    return !st.st_size ||
           (!strncmp(head, ours, sizeof ours - 1) && strstr(head, "\"model_sha256\":\"")) ||
           cm_fail(err, CM_EXIT_USAGE, "%s: is not the result of an evaluation; it stays, name "
                   "another file with --out", path);
}

/* What would be read is there. */
static bool dry_run(const job *j, cm_err *err) {
    const cm_model_conf *m = &j->l.model.conf;
    const char *path;
    bool ok = true;
    for (int i = 0; ok && (path = cm_app_text_at(j->app, "text", i)); i++) {
        cm_src *src = cm_src_open(path, err);
        ok = src != NULL;
        cm_src_close(src);
    }
    for (int i = 0; ok && (path = cm_app_text_at(j->app, "shards", i)); i++) {
        cm_dataset d;
        ok = open_shards(j, &d, path, err);
        if (ok) cm_dataset_close(&d);
    }
    if (ok) print_plan(j, m);
    return ok;
}

/* ---- tasks ------------------------------------------------------------------------------- */

static bool load_model(job *j, cm_err *err) {
    const char *model = cm_app_text(j->app, "model");
    if (!model) return cm_fail(err, CM_EXIT_USAGE, "--model PATH is needed");
    unsigned how = j->app->conf.eval.weights == CM_WEIGHTS_BLOCKS ? CM_LOAD_BLOCKS : 0;
    if (!cm_load(&j->l, model, how, err)) return false;
    return j->l.spm || cm_fail(err, CM_EXIT_DATA, "%s: the model has no tokenizer", model);
}

/* What would be asked, without asking it. */
static bool dry_tasks(cm_eval_run *r, cm_err *err) {
    cm_buf none = { 0 }, json = { 0 };
    bool ok = cm_eval_show(r, 0, &none, err);
    cm_buf_free(&none);
    cm_json_open(&json, NULL, '[');
    for (int i = 0; ok && i < r->n_tasks; i++) {
        const cm_eval_task *t = &r->task[i];
        if (!r->app->json)
            printf("%-24s %-9s %8lld items\n", t->name, t->kind->name, (long long)t->n);
        cm_json_open(&json, NULL, '{');
        cm_json_str(&json, "task", t->name);
        cm_json_str(&json, "kind", t->kind->name);
        cm_json_i64(&json, "items", t->n);
        cm_json_close(&json, '{');
    }
    cm_json_close(&json, '[');
    if (ok && r->app->json) puts(json.s);
    cm_buf_free(&json);
    return ok;
}

static bool show_tasks(cm_eval_run *r, int64_t n, cm_err *err) {
    cm_buf out = { 0 };
    bool ok = cm_eval_show(r, n, &out, err);
    if (ok && out.n) fwrite(out.s, 1, out.n, stdout);
    cm_buf_free(&out);
    return ok;
}

/* Every value of a repeatable option; free v. */
static cm_words values(const job *j, const char *option) {
    cm_words w = { 0 };
    const char *s;
    while ((s = cm_app_text_at(j->app, option, w.n))) {
        w.v = realloc(w.v, (size_t)(w.n + 1) * sizeof *w.v);
        CM_ASSERT(w.v, "out of memory: values of --%s", option);
        w.v[w.n++] = s;
    }
    return w;
}

static bool run_tasks(job *j, cm_err *err) {
    cm_words names = values(j, "tasks"), corpus = values(j, "contamination");
    cm_eval_run r = { .app = j->app, .model = &j->l, .out = cm_app_text(j->app, "out"),
                      .model_path = cm_app_text(j->app, "model"), .corpus = corpus.v,
                      .n_corpus = corpus.n, .if_done = j->app->if_done };
    int64_t show = 0;
    bool ok = cm_app_i64(j->app, "show", 1, 1000000, &show, err) &&
              cm_tasks_open(names.v, names.n, &j->app->conf.eval, &r.task, &r.n_tasks, err) &&
              load_model(j, err);
    if (ok) ok = show               ? show_tasks(&r, show, err)
                 : j->app->dry_run ? dry_tasks(&r, err)
                                   : cm_eval_tasks(&r, err);
    cm_tasks_close(r.task, r.n_tasks);
    free(names.v);
    free(corpus.v);
    return ok;
}

/* ---- other questions ---------------------------------------------------------------------- */

/* The quantization card: --reference with --text. */
static bool run_card(job *j, cm_err *err) {
    cm_words text = values(j, "text");
    cm_eval_task t;
    cm_eval_run r = { .app = j->app, .model = &j->l, .out = cm_app_text(j->app, "out"),
                      .model_path = cm_app_text(j->app, "model"), .task = &t, .n_tasks = 1,
                      .if_done = j->app->if_done };
    bool ok = (r.out || cm_fail(err, CM_EXIT_USAGE, "--reference leaves a result folder: --out "
                                "DIR")) &&
              (text.n || cm_fail(err, CM_EXIT_USAGE, "--reference goes with --text or --tasks")) &&
              load_model(j, err) &&
              cm_card_task(&t, text.v, text.n, &j->l, &j->app->conf.eval, err);
    free(text.v);
    if (!ok) return false;
    ok = j->app->dry_run ? dry_tasks(&r, err) : cm_eval_tasks(&r, err);
    cm_task_close(&t);
    cm_buf card = { 0 };
    if (ok && !j->app->json && !j->app->dry_run && !cm_signal_stop())
        ok = cm_card_table(r.out, &card, err);
    if (ok && card.n) fputs(card.s, stdout);
    cm_buf_free(&card);
    return ok;
}

static bool run_fertility(job *j, cm_err *err) {
    cm_spm *own = NULL;
    if (cm_app_text(j->app, "tokenizer")) {
        if (!(own = cm_load_tokenizer(cm_app_text(j->app, "tokenizer"), err))) return false;
    } else if (!load_model(j, err)) {
        return false;
    }
    cm_words files = values(j, "fertility");
    cm_buf out = { 0 };
    bool ok = cm_fertility_report(own ? own : j->l.spm, files.v, files.n, j->app->json, &out,
                                  err);
    if (ok) fputs(out.s, stdout);
    cm_buf_free(&out);
    free(files.v);
    if (own) cm_spm_close(own);
    return ok;
}

static bool print_file(const char *dir, const char *name, cm_err *err) {
    char *path = cm_strf("%s/%s", dir, name), *text = NULL;
    size_t n;
    bool ok = cm_read_file(path, (size_t)1 << 30, &text, &n, err);
    if (ok) fwrite(text, 1, n, stdout);
    free(text);
    free(path);
    return ok;
}

static bool run_retrieval(job *j, cm_err *err) {
    const char *out = cm_app_text(j->app, "out");
    cm_buf table = { 0 };
    if (!out)
        return cm_fail(err, CM_EXIT_USAGE, "--retrieval leaves a result folder: --out DIR");
    bool dry = j->app->dry_run;
    bool ok = cm_retrieval_eval(cm_app_text(j->app, "retrieval"), dry ? NULL : out,
                                &j->app->conf.eval, j->app->if_done, &table, err);
    if (ok && dry) fputs(table.s, stdout);
    else if (ok && j->app->json) ok = print_file(out, "results.json", err);
    else if (ok) printf("%s%s\n", table.s, out);
    cm_buf_free(&table);
    return ok;
}

static bool list_tasks(void) {
    cm_buf out = { 0 };
    cm_task_list(&out);
    if (out.n) fwrite(out.s, 1, out.n, stdout);
    cm_buf_free(&out);
    return true;
}

/* What is scored, and with what, stays. */
static bool out_apart(const job *j, cm_err *err) {
    static const char *const in[] = { "model", "text", "shards", "tokenizer", "retrieval" };
    cm_app_file out[] = {{ "--out", cm_app_text(j->app, "out") }, { 0 }};
    bool ok = cm_app_apart((cm_app_file[]){{ "reference", j->app->conf.eval.reference }, { 0 }},
                           out, err);
    for (int k = 0; ok && k < 5; k++)
        for (int i = 0; ok && cm_app_text_at(j->app, in[k], i); i++)
            ok = cm_app_apart((cm_app_file[]){{ in[k], cm_app_text_at(j->app, in[k], i) }, { 0 }},
                              out, err);
    return ok;
}

static bool run_job(job *j, cm_err *err) {
    const char *tasks = cm_app_text(j->app, "tasks");
    bool text = cm_app_text(j->app, "text") || cm_app_text(j->app, "shards");
    if (cm_app_switch(j->app, "list-tasks") || (tasks && !strcmp(tasks, "list")))
        return list_tasks();
    if (cm_app_text(j->app, "reference"))
        j->app->conf.eval.reference = cm_app_text(j->app, "reference");
    if (!out_apart(j, err)) return false;
    if (cm_app_text(j->app, "fertility")) return run_fertility(j, err);
    if (cm_app_text(j->app, "tokenizer"))
        return cm_fail(err, CM_EXIT_USAGE, "--tokenizer is for --fertility alone: a model is "
                       "scored with its own");
    if (cm_app_text(j->app, "retrieval")) return run_retrieval(j, err);
    if (cm_app_text(j->app, "contamination") && !tasks)
        return cm_fail(err, CM_EXIT_USAGE, "--contamination goes with --tasks");
    if (*j->app->conf.eval.reference && !tasks) return run_card(j, err);
    if (tasks && text)
        return cm_fail(err, CM_EXIT_USAGE, "--tasks goes without --text and --shards");
    if (tasks) return run_tasks(j, err);
    if (!cm_app_text(j->app, "model"))
        return cm_fail(err, CM_EXIT_USAGE, "--model PATH is needed");
    if (!text)
        return cm_fail(err, CM_EXIT_USAGE,
                       "give tasks with --tasks NAME, or text with --text FILE or --shards DIR");
    if (!usable_file(cm_app_text(j->app, "out"), err) || !load_model(j, err)) return false;
    if (j->app->dry_run) return dry_run(j, err);
    return j->app->conf.eval.mode == CM_EVAL_LLAMA ? run_llama(j, err)
                                                   : run_documents(j, err);
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    job j = { .app = ctx };
    cm_signals_install();
    bool ok = run_job(&j, err);
    if (j.s.m) cm_scorer_close(&j.s);
    cm_loaded_close(&j.l);
    free(j.id);
    return ok;
}

int main(int argc, char **argv) {
    static const cm_app_opt options[] = {
        { "model", "PATH", "run, checkpoint, Hugging Face folder or GGUF file" },
        { "text", "FILE", "text, or JSON lines (.jsonl), also .gz and .zst; repeatable" },
        { "shards", "DIR", "score the validation documents of a data set; repeatable" },
        { "tasks", "NAME,...", "tasks by name, or task files; repeatable" },
        { "list-tasks", NULL, "name the tasks there are" },
        { "show", "N", "print the first N prompts of each task and stop" },
        { "out", "PATH", "result folder of --tasks; else a file for the results as JSON" },
        { "reference", "PATH", "compare with this model: divergence, perplexity ratio" },
        { "contamination", "PATH", "look for the tasks' items in a data set or text; "
                                   "repeatable" },
        { "fertility", "FILE", "tokens a word and more, by script; repeatable" },
        { "tokenizer", "PATH", "for --fertility: a model or its tokenizer alone" },
        { "retrieval", "FILE", "score a retrieval pipeline's questions (JSON lines)" },
        { 0 },
    };
    return cm_app_main(argc, argv, &(cm_app){
        .name = "eval",
        .summary = "score a model on tasks and text",
        .examples =
            "  eval --list-tasks\n"
            "  eval --model runs/demo --tasks world_pairs,world_choice eval.data=data\n"
            "  eval --model runs/demo/ckpt/latest --shards runs/demo-data\n"
            "  eval --model demo.gguf --text book.txt eval.context=512\n"
            "  eval --model demo.gguf --text book.txt eval.mode=llama eval.context=256\n"
            "  eval --model demo.gguf --reference runs/demo --text book.txt --out card\n",
        .sections = "top eval",
        .options = options,
        .repeatable = " text shards tasks contamination fertility ",
        .has_done = true,
        .run = run,
    });
}
