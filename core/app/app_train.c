/* app_train.c -- what the programs that train do alike with their job. */
#include "app/app.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

static bool dry_run(const cm_app_ctx *ctx, const cm_job *job, cm_err *err) {
    cm_plan plan;
    if (!cm_plan_make(job, &plan, err)) return false;
    if (!ctx->json) {
        cm_plan_print(job, &plan, ctx->runs, stdout);
        return true;
    }
    cm_buf b = { 0 };
    cm_plan_json(job, &plan, ctx->runs, &b);
    puts(b.s);
    cm_buf_free(&b);
    return true;
}

static bool verify(const cm_app_ctx *ctx, const cm_job *job, int64_t K, cm_err *err) {
    char *scratch = cm_strf("%s/.verify-resume-%s", ctx->runs, job->conf->top.name);
    cm_signals_install();
    bool ok = cm_train_verify_resume(job, K, scratch, err);
    if (ok && !cm_signal_stop() && ctx->json)
        printf("{\"resume_verified\":true,\"steps\":%lld,\"resumed_at\":%lld}\n",
               (long long)(2 * K), (long long)K);
    else if (ok && !cm_signal_stop())
        printf("resume verified: %lld steps and %lld + %lld steps end in the same bits\n",
               (long long)(2 * K), (long long)K, (long long)K);
    free(scratch);
    return ok;
}

/* --json: summary.json of this run, or of the finished one that was kept. */
static bool print_summary(const cm_app_ctx *ctx, cm_err *err) {
    char *path = cm_run_path(&ctx->run, "summary.json"), *text = NULL;
    size_t n;
    bool ok = cm_read_file(path, 1 << 20, &text, &n, err);
    if (ok) fwrite(text, 1, n, stdout);
    free(text);
    free(path);
    return ok;
}

static bool train(cm_app_ctx *ctx, cm_job *job, const cm_app_input *in, cm_err *err) {
    cm_plan plan; /* refuse before anything is written */
    bool complete;
    if (!cm_plan_make(job, &plan, err) || !cm_app_run_open(ctx, in, err)) return false;
    if (ctx->run.skip) return !ctx->json || print_summary(ctx, err);
    job->run = &ctx->run;
    for (; in->what; in++)
        if (!cm_run_input(job->run, in->what, in->path, in->id, err)) return false;
    bool ok = cm_train(job, &complete, err);
    ctx->run.unfinished = !complete;
    return ok && (!ctx->json || print_summary(ctx, err));
}

/* A file of settings serves both optimizers, so these are no error. */
static void warn_idle_muon(const cm_conf *c) {
    static const char *const keys[] = { "optim.muon_lr", "optim.muon_momentum",
                                        "optim.muon_warmup", "optim.muon_beta2",
                                        "optim.muon_steps" };
    for (size_t i = 0; c->optim.kind != CM_OPTIM_MUON && i < sizeof keys / sizeof *keys; i++)
        if (cm_conf_given(c, keys[i]))
            cm_log(CM_LOG_WARN, "%s changes nothing: optim.kind is not muon", keys[i]);
}

/* Settings that are legal and rarely meant. */
static void warn_odd(const cm_conf *c, const cm_job *job) {
    double rows = (double)c->sched.tokens / (double)c->data.seq_len;
    double epochs = job->train->rows ? rows / (double)job->train->rows : 0;
    if (epochs > 20 && !cm_conf_given(c, "sched.tokens") && !cm_conf_given(c, "sched.epochs"))
        cm_log(CM_LOG_WARN, "sched.tokens, which nobody set, means %.0f passes over the data; "
               "sched.epochs says how many are wanted", epochs);
    if (c->data.seq_len > job->model->context)
        cm_log(CM_LOG_WARN, "rows of %lld tokens (data.seq_len) for a model with a context of "
               "%lld: what it will be asked to read is shorter than what it trains on",
               (long long)c->data.seq_len, (long long)job->model->context);
    warn_idle_muon(c);
    char *rank = job->lora ? cm_model_lora_idle_rank(job->model, job->lora) : NULL;
    if (rank) cm_log(CM_LOG_WARN, "%s", rank);
    free(rank);
}

bool cm_app_train(cm_app_ctx *ctx, cm_job *job, const cm_app_input *in, cm_err *err) {
    int64_t K = 0;
    if (!cm_app_i64(ctx, "verify-resume", 1, 1000000, &K, err)) return false;
    job->tool = ctx->app->name;
    job->conf = &ctx->conf;
    job->resume = ctx->resume;
    job->quiet = ctx->quiet;
    job->profile = !K && cm_app_switch(ctx, "profile");
    job->profile_to = ctx->json ? NULL : stdout;
    warn_odd(&ctx->conf, job);
    if (ctx->dry_run) return dry_run(ctx, job, err);
    return K ? verify(ctx, job, K, err) : train(ctx, job, in, err);
}

/* ---- post-training ------------------------------------------------------------------- */

/* Settings of adapters that nobody switched on would be forgotten without a word. */
static bool lora_meant(const cm_conf *c, cm_err *err) {
    static const char *const keys[] = { "lora.alpha", "lora.rslora", "lora.targets",
                                        "lora.dropout", "lora.base" };
    if (cm_conf_given(c, "lora.rank")) return true;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (cm_conf_given(c, keys[i]))
            return cm_conf_bad(c, err, keys[i], "is set, but lora.rank is not: name a rank, or "
                               "lora.rank=0 to train the model itself");
    return true;
}

bool cm_app_start_model(const cm_conf *c, cm_loaded *start, cm_model_conf *model,
                        cm_err *err) {
    const char *path = c->post.model;
    if (!*path)
        return cm_conf_bad(c, err, "post.model",
                           "name the model to start from: a run, a checkpoint, a Hugging "
                           "Face folder or a GGUF file");
    if (!lora_meant(c, err) || !cm_load(start, path, CM_LOAD_SHAPE, err)) return false;
    *model = start->model.conf;
    model->lb_coef = c->post.lb_coef;
    model->z_coef = c->post.z_coef;
    return start->spm != NULL ||
           cm_fail(err, CM_EXIT_DATA, "%s: the model has no SentencePiece tokenizer, so no "
                                      "conversation can be read for it", path);
}

bool cm_app_start_weights(const cm_loaded *start, cm_model *m, cm_err *err) {
    char id[65];
    if (!cm_load_into(m, start->path, id, err)) return false;
    if (!strcmp(id, start->id)) return true;
    return cm_fail(err, CM_EXIT_DATA, "%s: the weights changed while they were in use: SHA-256 "
                   "%.12s..., was %.12s...", start->path, id, start->id);
}

bool cm_app_same_tokenizer(const cm_loaded *l, const cm_dataset *d, char own[65]) {
    size_t n;
    const void *proto = l->spm ? cm_spm_proto(l->spm, &n) : NULL;
    snprintf(own, 65, "none");
    if (proto) cm_sha_bytes(proto, n, own);
    return !strcmp(own, d->tokenizer);
}

void cm_app_lora(const cm_conf *c, const cm_loaded *start, cm_job *job) {
    if (!c->lora.rank) return;
    job->lora = &c->lora;
    job->base = start->path;
    job->base_id = start->id;
}

bool cm_app_chat_data(const cm_conf *c, const cm_loaded *start, cm_dataset *d, cm_err *err) {
    const char *path = c->data.shards;
    char own[65];
    if (!*path)
        return cm_conf_bad(c, err, "data.shards",
                           "name the folder of token shards (made by tokenize)");
    if (!cm_dataset_open(d, path, err)) return false;
    if (cm_app_same_tokenizer(start, d, own)) return true;
    return cm_fail(err, CM_EXIT_DATA,
                   "%s: these shards were made with tokenizer %.12s, the model of %s has "
                   "%.12s; tokenize with tokenize.tokenizer=%s", d->dir, d->tokenizer,
                   start->path, own, start->path);
}

bool cm_app_model_files(const cm_model_conf *model, const cm_spm *spm, const char *chat,
                        const char *folder, cm_err *err) {
    char *path = cm_strf("%s/config.json", folder);
    char *adapter = cm_strf("%s/adapter_config.json", folder);
    /* Beside an adapter it would make transformers look for whole weights there. */
    bool ok = (cm_exists(adapter) || cm_hf_write_config(model, spm, path, err)) &&
              cm_hf_write_tokenizer(spm, chat, folder, err);
    free(adapter);
    free(path);
    return ok;
}

/* The model's answer to the prompt of validation document `doc`. */
static bool answer_one(const cm_val_conf *v, const cm_spm *spm, const cm_pack *val,
                       const cm_model *m, int64_t doc, uint64_t seed, cm_buf *out,
                       cm_err *err) {
    cm_sampling how = { .temperature = v->temperature, .top_p = 1, .repeat_penalty = 1,
                        .seed = seed };
    int64_t n, n_out;
    int32_t *id = cm_pack_prompt(val, doc, v->sample_tokens, &n, err);
    if (!id) return false;
    cm_session session;
    int stop[] = { val->end };
    bool ok = cm_session_open(&session, m, (int)(n + v->sample_tokens), err);
    if (ok) {
        ok = cm_session_continue(&session, &how, id, n, stop, 1, v->sample_tokens, id + n,
                                 &n_out, err);
        cm_session_close(&session);
    }
    if (ok) {
        uint8_t *mask = calloc((size_t)(n + v->sample_tokens), 1);
        CM_ASSERT(mask, "out of memory for samples");
        memset(mask + n, CM_MASK_ANSWER, (size_t)n_out);
        cm_masked_show(spm, id, mask, n + n_out, false, out);
        cm_buf_addf(out, "\n\n");
        free(mask);
    }
    free(id);
    return ok;
}

bool cm_app_answers(const cm_conf *c, const cm_spm *spm, const cm_pack *val,
                    const cm_model *m, int64_t step, cm_buf *out, cm_err *err) {
    cm_rng r = cm_rng_make((uint64_t)c->top.seed, CM_RNG_SAMPLE, (uint64_t)step);
    int64_t n = c->val.samples, have = val->data->n_docs[CM_SPLIT_VAL] / val->docs;
    if (n > have) n = have;
    for (int64_t i = 0; i < n && !cm_signal_stop(); i++)
        if (!answer_one(&c->val, spm, val, m, i * val->docs, cm_rng_u64(r, (uint64_t)i), out,
                        err))
            return false;
    return true;
}
