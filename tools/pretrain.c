/* pretrain.c -- train a language model on token shards.
 *
 * Only what is particular to pretraining is here: rows of plain text, the next-token
 * objective, samples from the beginning of a text.  The loop is core/train. */
#include "app/app.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    cm_app_ctx *app;
    const cm_conf *conf;
    cm_model_conf model;
    cm_dataset data;
    cm_spm *spm;
    cm_lm train, val;
    cm_source train_rows, val_rows;
    cm_job job;
} pretrain;

/* ---- callbacks of the loop --------------------------------------------------------- */

/* What makes a checkpoint a model that transformers and our own tools load. */
static bool extra_files(void *ctx, const char *folder, cm_err *err) {
    const pretrain *p = ctx;
    char *path = cm_strf("%s/config.json", folder);
    bool ok = cm_hf_write_config(&p->model, p->spm, path, err) &&
              cm_hf_write_tokenizer(p->spm, NULL, folder, err);
    free(path);
    return ok;
}

/* One text from the beginning-of-text token to the end token or the length limit. */
static bool sample_one(const pretrain *p, cm_session *s, uint64_t seed, void *work,
                       cm_real *logits, int32_t *id, cm_buf *out, cm_err *err) {
    const cm_val_conf *v = &p->conf->val;
    cm_sampling how = { .temperature = v->temperature, .top_p = 1, .repeat_penalty = 1,
                        .seed = seed };
    int32_t next = p->data.bos >= 0 ? p->data.bos : 0;
    int64_t n = 0;
    cm_session_reset(s);
    for (; n < v->sample_tokens && !cm_signal_stop(); n++) {
        if (!cm_session_feed(s, &next, 1, NULL, logits, err)) return false;
        next = cm_sample_token(&how, logits, (int)p->model.vocab_size, NULL, 0, (uint64_t)n,
                               work);
        if (next == p->data.eos || next == p->data.bos) break;
        id[n] = next;
    }
    char *text = cm_spm_decode(p->spm, id, n);
    cm_buf_addf(out, "%s\n\n", text);
    free(text);
    return true;
}

static bool samples(void *ctx, const cm_model *m, int64_t step, cm_buf *out, cm_err *err) {
    const pretrain *p = ctx;
    const cm_val_conf *v = &p->conf->val;
    int V = (int)p->model.vocab_size;
    cm_session s;
    if (!cm_session_open(&s, m, (int)v->sample_tokens + 1, err)) return false;
    void *work = malloc(cm_sample_work_bytes(V));
    cm_real *logits = malloc((size_t)V * sizeof *logits);
    int32_t *id = malloc((size_t)v->sample_tokens * sizeof *id);
    CM_ASSERT(work && logits && id, "out of memory for samples");
    cm_rng r = cm_rng_make((uint64_t)p->conf->top.seed, CM_RNG_SAMPLE, (uint64_t)step);
    bool ok = true;
    for (int64_t i = 0; i < v->samples && ok && !cm_signal_stop(); i++)
        ok = sample_one(p, &s, cm_rng_u64(r, (uint64_t)i), work, logits, id, out, err);
    free(work);
    free(logits);
    free(id);
    cm_session_close(&s);
    return ok;
}

/* ---- inputs ------------------------------------------------------------------------ */

/* The vocabulary the shards were made with decides; a preset may name one to be sure. */
static bool choose_vocab(pretrain *p, cm_err *err) {
    int64_t asked = p->model.vocab_size;
    if (asked && asked != p->data.vocab)
        return cm_conf_bad(p->conf, err, "model.vocab_size",
                           "%lld, but the tokenizer of %s has %d; leave the key out to take "
                           "the tokenizer's", (long long)asked, p->data.dir, p->data.vocab);
    p->model.vocab_size = p->data.vocab;
    return true;
}

/* Shapes that fit each other, and that the export asked for can say. */
static bool resolve(pretrain *p, cm_err *err) {
    bool gguf = p->model.export == CM_EXPORT_GGUF;
    return (cm_model_resolve(&p->model, err) &&
            (!gguf || cm_model_exportable(&p->model, err))) ||
           cm_conf_locate(p->conf, err);
}

static bool open_data(pretrain *p, cm_err *err) {
    const char *path = p->conf->data.shards;
    if (!*path)
        return cm_conf_bad(p->conf, err, "data.shards",
                           "name the folder of token shards (made by tokenize)");
    if (!cm_dataset_open(&p->data, path, err)) return false;
    p->spm = cm_spm_open(p->data.tokenizer_path, err);
    return p->spm && choose_vocab(p, err) && resolve(p, err) &&
           cm_lm_open(&p->train, &p->data, p->conf, &p->train_rows, err) &&
           cm_lm_open_val(&p->val, &p->data, p->conf, &p->val_rows, err);
}

/* A plan needs no data, only the vocabulary's size. */
static bool plan_without_data(pretrain *p, cm_err *err) {
    if (!p->model.vocab_size)
        return cm_conf_bad(p->conf, err, "model.vocab_size",
                           "a dry run without data.shards needs it");
    p->train_rows = (cm_source){ .T = (int)p->conf->data.seq_len, .packed = true };
    p->val_rows = p->train_rows;
    return resolve(p, err);
}

static bool dry_run(pretrain *p, cm_err *err) {
    cm_plan plan;
    if (!cm_plan_make(&p->job, &plan, err)) return false;
    if (!p->app->json) {
        cm_plan_print(&p->job, &plan, p->app->runs, stdout);
        return true;
    }
    cm_buf b = { 0 };
    cm_plan_json(&p->job, &plan, p->app->runs, &b);
    puts(b.s);
    cm_buf_free(&b);
    return true;
}

static bool verify(pretrain *p, int64_t K, cm_err *err) {
    char *scratch = cm_strf("%s/.verify-resume-%s", p->app->runs, p->conf->top.name);
    cm_signals_install();
    bool ok = cm_train_verify_resume(&p->job, K, scratch, err);
    if (ok && !cm_signal_stop() && p->app->json)
        printf("{\"resume_verified\":true,\"steps\":%lld,\"resumed_at\":%lld}\n",
               (long long)(2 * K), (long long)K);
    else if (ok && !cm_signal_stop())
        printf("resume verified: %lld steps and %lld + %lld steps end in the same bits\n",
               (long long)(2 * K), (long long)K, (long long)K);
    free(scratch);
    return ok;
}

/* --json: summary.json of this run, or of the finished one that was kept. */
static bool print_summary(const pretrain *p, cm_err *err) {
    char *path = cm_run_path(&p->app->run, "summary.json"), *text = NULL;
    size_t n;
    bool ok = cm_read_file(path, 1 << 20, &text, &n, err);
    if (ok) fwrite(text, 1, n, stdout);
    free(text);
    free(path);
    return ok;
}

static bool train(pretrain *p, cm_err *err) {
    cm_plan plan; /* refuse before anything is written */
    bool complete;
    if (!cm_plan_make(&p->job, &plan, err) || !cm_app_run_open(p->app, err)) return false;
    if (p->app->run.skip) return !p->app->json || print_summary(p, err);
    p->job.run = &p->app->run;
    if (!cm_run_input(p->job.run, "shards", p->data.dir, p->data.id, err) ||
        !cm_run_input(p->job.run, "tokenizer", p->data.tokenizer_path, p->data.tokenizer,
                      err))
        return false;
    bool ok = cm_train(&p->job, &complete, err);
    p->app->run.unfinished = !complete;
    return ok && (!p->app->json || print_summary(p, err));
}

static bool work(pretrain *p, cm_err *err) {
    int64_t K = 0;
    if (!cm_app_i64(p->app, "verify-resume", 1, 1000000, &K, err)) return false;
    bool no_data = p->app->dry_run && !*p->conf->data.shards;
    if (!(no_data ? plan_without_data(p, err) : open_data(p, err))) return false;
    p->job = (cm_job){ .tool = "pretrain", .conf = p->conf, .model = &p->model,
                       .train = &p->train_rows, .val = &p->val_rows,
                       .objective = cm_lm_objective(p->conf),
                       .tokenizer = p->data.tokenizer, .resume = p->app->resume,
                       .quiet = p->app->quiet,
                       .sample = samples, .extra = extra_files, .ctx = p };
    if (p->app->dry_run) return dry_run(p, err);
    return K ? verify(p, K, err) : train(p, err);
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    pretrain p = { .app = ctx, .conf = &ctx->conf, .model = ctx->conf.model };
    bool ok = work(&p, err);
    cm_lm_close(&p.train);
    cm_lm_close(&p.val);
    if (p.spm) cm_spm_close(p.spm);
    cm_dataset_close(&p.data);
    return ok;
}

int main(int argc, char **argv) {
    static const cm_app_opt options[] = {
        { "verify-resume", "K", "train K steps, save, resume, K more; compare with 2K" },
        { 0 }
    };
    return cm_app_main(argc, argv, &(cm_app){
        .name = "pretrain",
        .summary = "train a language model on token shards",
        .examples = /* shards: as the first example of tokenize makes them */
                    "  pretrain --config configs/demo.yaml data.shards=shards\n"
                    "  pretrain --config configs/demo.yaml data.shards=shards optim.lr=3e-4 "
                    "name=slow\n"
                    "  pretrain --config configs/chimera-700m.yaml --dry-run\n",
        .sections = "top model data optim sched train val log ckpt",
        .options = options,
        .has_run = true,
        .run = run });
}
