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

static bool extra_files(void *ctx, const char *folder, cm_err *err) {
    const pretrain *p = ctx;
    return cm_app_model_files(&p->model, p->spm, NULL, folder, err);
}

/* Texts from the beginning-of-text token to the end token or the length limit. */
static bool samples(void *ctx, const cm_model *m, int64_t step, cm_buf *out, cm_err *err) {
    const pretrain *p = ctx;
    const cm_val_conf *v = &p->conf->val;
    int32_t begin = p->data.bos >= 0 ? p->data.bos : 0;
    const int32_t stop[] = { p->data.eos, p->data.bos };
    cm_rng r = cm_rng_make((uint64_t)p->conf->top.seed, CM_RNG_SAMPLE, (uint64_t)step);
    cm_session s;
    if (!cm_session_open(&s, m, (int)v->sample_tokens + 1, err)) return false;
    int32_t *id = malloc((size_t)v->sample_tokens * sizeof *id);
    CM_ASSERT(id, "out of memory for samples");
    bool ok = true;
    for (int64_t i = 0, n; i < v->samples && ok && !cm_signal_stop(); i++) {
        cm_sampling how = { .temperature = v->temperature, .top_p = 1, .repeat_penalty = 1,
                            .seed = cm_rng_u64(r, (uint64_t)i) };
        ok = cm_session_continue(&s, &how, &begin, 1, stop, 2, v->sample_tokens, id, &n,
                                 err);
        if (!ok) break;
        cm_spm_decode_to(p->spm, id, n, out);
        cm_buf_addf(out, "\n\n");
    }
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

static bool work(pretrain *p, cm_err *err) {
    bool no_data = p->app->dry_run && !*p->conf->data.shards;
    if (!(no_data ? plan_without_data(p, err) : open_data(p, err))) return false;
    cm_sched_epochs(&p->app->conf, &p->train_rows);
    p->job = (cm_job){ .model = &p->model, .train = &p->train_rows, .val = &p->val_rows,
                       .objective = cm_lm_objective(p->conf),
                       .tokenizer = p->data.tokenizer, .sample = samples,
                       .extra = extra_files, .ctx = p };
    const cm_app_input in[] = { { "shards", p->data.dir, p->data.id },
                                { "tokenizer", p->data.tokenizer_path, p->data.tokenizer },
                                { 0 } };
    return cm_app_train(p->app, &p->job, in, err);
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
        CM_APP_TRAIN_OPTIONS, { 0 }
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
