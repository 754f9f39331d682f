/* sft.c -- fine-tune a model on conversations.
 *
 * Only what is particular to it is here: the model to start from, rows of packed
 * conversations of which the assistant's tokens are learned, answers to held-out prompts
 * as samples.  The loop is core/train. */
#include "app/app.h"
#include "panel/panel.h"
#include "train/train.h"

typedef struct {
    cm_app_ctx *app;
    const cm_conf *conf;
    cm_loaded start; /* its weights are read into the trainer's own memory */
    cm_model_conf model;
    cm_dataset data;
    cm_pack train, val;
    cm_source train_rows, val_rows;
    cm_panel *panel;
    cm_job job;
} sft;

/* ---- callbacks of the loop --------------------------------------------------------- */

static bool account(void *ctx, const cm_model *m, cm_plan *p, cm_err *err) {
    const sft *s = ctx;
    return cm_panel_bytes(s->panel, m, &p->beside, err);
}

static bool prepare(void *ctx, const cm_plan *p, cm_err *err) {
    sft *s = ctx;
    (void)p;
    return cm_panel_prepare(s->panel, s->job.run, err);
}

static bool watch(void *ctx, const cm_model *m, int64_t step, cm_buf *row, bool *stop,
                  cm_err *err) {
    sft *s = ctx;
    return cm_panel_watch(s->panel, m, step, row, stop, err);
}

static bool init(void *ctx, cm_model *m, cm_err *err) {
    sft *s = ctx;
    return cm_app_start_weights(&s->start, m, err) && cm_panel_begin(s->panel, m, err);
}

static bool extra_files(void *ctx, const char *folder, cm_err *err) {
    const sft *s = ctx;
    return cm_app_model_files(&s->model, s->start.spm, NULL, folder, err);
}

static bool samples(void *ctx, const cm_model *m, int64_t step, cm_buf *out, cm_err *err) {
    const sft *s = ctx;
    return cm_app_answers(s->conf, s->start.spm, &s->val, m, step, out, err);
}

/* ---- inputs and the job -------------------------------------------------------------- */

static bool open_inputs(sft *s, cm_err *err) {
    const cm_conf *c = s->conf;
    return cm_app_start_model(c, &s->start, &s->model, err) &&
           cm_app_chat_data(c, &s->start, &s->data, err) &&
           cm_pack_open(&s->train, &s->data, CM_SPLIT_TRAIN, CM_SHARD_SFT, c, s->start.spm,
                        &s->train_rows, err) &&
           cm_pack_open(&s->val, &s->data, CM_SPLIT_VAL, CM_SHARD_SFT, c, s->start.spm,
                        &s->val_rows, err) &&
           cm_panel_open(&s->panel, c, &s->val, &s->start, err);
}

static bool work(sft *s, cm_err *err) {
    if (!open_inputs(s, err)) return false;
    cm_sched_epochs(&s->app->conf, &s->train_rows);
    s->job = (cm_job){ .model = &s->model, .train = &s->train_rows, .val = &s->val_rows,
                       .objective = cm_lm_objective(s->conf),
                       .tokenizer = s->data.tokenizer, .account = account,
                       .prepare = prepare, .init = init, .sample = samples, .watch = watch,
                       .extra = extra_files, .ctx = s };
    cm_app_lora(s->conf, &s->start, &s->job);
    const cm_app_input in[] = { { "model", s->start.path, s->start.id },
                                { "shards", s->data.dir, s->data.id },
                                { "tokenizer", s->data.tokenizer_path, s->data.tokenizer },
                                { 0 } };
    return cm_app_train(s->app, &s->job, in, err);
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    sft s = { .app = ctx, .conf = &ctx->conf };
    bool ok = work(&s, err);
    cm_panel_close(s.panel);
    cm_pack_close(&s.train);
    cm_pack_close(&s.val);
    cm_dataset_close(&s.data);
    cm_loaded_close(&s.start);
    return ok;
}

int main(int argc, char **argv) {
    static const cm_app_opt options[] = { CM_APP_TRAIN_OPTIONS, { 0 } };
    return cm_app_main(argc, argv, &(cm_app){
        .name = "sft",
        .summary = "fine-tune a model on conversations",
        .examples = /* chat.jsonl: one conversation a line, docs/CHAT.md has the forms */
                    "  tokenize tokenize.inputs=chat.jsonl tokenize.out=chat "
                    "tokenize.tokenizer=runs/demo/ckpt/latest\n"
                    "  tokenize head chat    # what is learned: look before training\n"
                    "  sft post.model=runs/demo data.shards=chat name=chat optim.lr=1e-3 "
                    "sched.epochs=2\n"
                    "  sft post.model=runs/demo data.shards=chat name=lora lora.rank=16 "
                    "optim.lr=3e-3 sched.epochs=2\n"
                    "  sft post.model=runs/demo data.shards=chat name=chat --dry-run\n",
        .sections = "top post sft lora panel data optim sched train val log ckpt",
        .options = options,
        .has_run = true,
        .run = run });
}
