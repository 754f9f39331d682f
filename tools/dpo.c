/* dpo.c -- train a model on preferences.
 *
 * Only what is particular to it is here: the model to start from and the reference, rows of
 * packed pairs, alarms.  The loop, the loss and the reference's numbers are core/train. */
#include "app/app.h"
#include "panel/panel.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    cm_app_ctx *app;
    const cm_conf *conf;
    cm_loaded start;     /* its weights are read into the trainer's own memory */
    cm_loaded reference; /* description alone; unused where it is the start */
    cm_model_conf model;
    cm_dataset data;
    cm_pack pack[2];     /* by split */
    cm_source rows[2];
    cm_refs refs[2];
    cm_dpo dpo;
    cm_panel *panel;
    cm_job job;
} dpo;

/* ---- callbacks of the loop --------------------------------------------------------- */

/* Where the reference's numbers are kept (free()). */
static char *cache_dir(const dpo *d) {
    const char *dir = d->conf->dpo.ref_cache;
    return *dir ? cm_strf("%s", dir) : cm_strf("%s/.ref-cache", d->app->runs);
}

static const cm_loaded *reference_of(const dpo *d) {
    return d->reference.path ? &d->reference : &d->start;
}

static bool account(void *ctx, const cm_model *m, cm_plan *p, cm_err *err) {
    dpo *d = ctx;
    if (!cm_panel_bytes(d->panel, m, &p->beside, err)) return false;
    if (d->conf->dpo.reference_free || d->refs[CM_SPLIT_TRAIN].n) return true;
    const cm_pack *const pack[2] = { &d->pack[0], &d->pack[1] };
    char *dir = cache_dir(d);
    bool ok = cm_refs_plan(reference_of(d), pack, d->conf, dir, p->micro_rows, &p->ahead,
                           &p->ahead_flops, err);
    free(dir);
    return ok;
}

/* The reference's numbers, before the policy's memory is taken. */
static bool prepare(void *ctx, const cm_plan *p, cm_err *err) {
    dpo *d = ctx;
    if (!cm_panel_prepare(d->panel, d->job.run, err)) return false;
    if (d->conf->dpo.reference_free || d->refs[CM_SPLIT_TRAIN].n) return true;
    const cm_pack *const pack[2] = { &d->pack[0], &d->pack[1] };
    const cm_source *const rows[2] = { &d->rows[0], &d->rows[1] };
    char *dir = cache_dir(d);
    bool ok = cm_refs_open(d->refs, reference_of(d), pack, rows, d->conf, dir, p->micro_rows,
                           d->app->progress, err);
    free(dir);
    return ok;
}

static bool init(void *ctx, cm_model *m, cm_err *err) {
    dpo *d = ctx;
    return cm_app_start_weights(&d->start, m, err) && cm_panel_begin(d->panel, m, err);
}

static bool extra_files(void *ctx, const char *folder, cm_err *err) {
    const dpo *d = ctx;
    return cm_app_model_files(&d->model, d->start.spm, NULL, folder, err);
}

static bool samples(void *ctx, const cm_model *m, int64_t step, cm_buf *out, cm_err *err) {
    const dpo *d = ctx;
    return cm_app_answers(d->conf, d->start.spm, &d->pack[CM_SPLIT_VAL], m, step, out, err);
}

static bool watch(void *ctx, const cm_model *m, int64_t step, cm_buf *row, bool *stop,
                  cm_err *err) {
    dpo *d = ctx;
    cm_err own;
    bool ended = false;
    if (!cm_panel_watch(d->panel, m, step, row, stop, err)) return false;
    if (!*stop && cm_signal_stop()) return true; /* all of it is asked again */
    cm_dpo_watch(&d->dpo, step, &ended, &own);
    if (ended) *err = own;
    *stop |= ended;
    return true;
}

/* ---- inputs and the job -------------------------------------------------------------- */

/* Another model as the reference must read the same tokens. */
static bool open_reference(dpo *d, cm_err *err) {
    const char *path = d->conf->dpo.reference;
    char own[65];
    if (!*path) return true;
    if (!cm_load(&d->reference, path, CM_LOAD_SHAPE, err)) return false;
    if (cm_app_same_tokenizer(&d->reference, &d->data, own)) return true;
    return cm_fail(err, CM_EXIT_DATA,
                   "%s: dpo.reference has tokenizer %.12s, the shards and the model to train "
                   "have %.12s: their log-probabilities cannot be compared", path, own,
                   d->data.tokenizer);
}

static bool open_inputs(dpo *d, cm_err *err) {
    const cm_conf *c = d->conf;
    if (!cm_dpo_check(c, err) || !cm_app_start_model(c, &d->start, &d->model, err) ||
        !cm_app_chat_data(c, &d->start, &d->data, err) || !open_reference(d, err))
        return false;
    for (int s = 0; s < 2; s++)
        if (!cm_pack_open(&d->pack[s], &d->data, (cm_split)s, CM_SHARD_DPO, c, d->start.spm,
                          &d->rows[s], err))
            return false;
    const cm_pack *const pack[2] = { &d->pack[0], &d->pack[1] };
    if (!cm_dpo_open(&d->dpo, c, pack, c->dpo.reference_free ? NULL : d->refs, err))
        return false;
    d->dpo.from_reference = !d->reference.path || !strcmp(d->reference.id, d->start.id);
    d->dpo.run = &d->app->run;
    return cm_panel_open(&d->panel, c, &d->pack[CM_SPLIT_VAL], &d->start, err);
}

static bool work(dpo *d, cm_err *err) {
    if (!open_inputs(d, err)) return false;
    cm_sched_epochs(&d->app->conf, &d->rows[CM_SPLIT_TRAIN]);
    d->job = (cm_job){ .model = &d->model, .train = &d->rows[CM_SPLIT_TRAIN],
                       .val = &d->rows[CM_SPLIT_VAL],
                       .objective = cm_dpo_objective(&d->dpo),
                       .tokenizer = d->data.tokenizer, .account = account,
                       .prepare = prepare, .init = init, .sample = samples, .watch = watch,
                       .extra = extra_files, .ctx = d };
    cm_app_lora(d->conf, &d->start, &d->job);
    const cm_loaded *r = reference_of(d);
    const cm_app_input in[] = { { "model", d->start.path, d->start.id },
                                { "shards", d->data.dir, d->data.id },
                                { "tokenizer", d->data.tokenizer_path, d->data.tokenizer },
                                { d->dpo.refs ? "reference" : NULL, r->path, r->id },
                                { 0 } };
    return cm_app_train(d->app, &d->job, in, err);
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    dpo d = { .app = ctx, .conf = &ctx->conf };
    bool ok = work(&d, err);
    cm_panel_close(d.panel);
    cm_dpo_close(&d.dpo);
    for (int s = 0; s < 2; s++) {
        cm_refs_close(&d.refs[s]);
        cm_pack_close(&d.pack[s]);
    }
    cm_dataset_close(&d.data);
    cm_loaded_close(&d.reference);
    cm_loaded_close(&d.start);
    return ok;
}

int main(int argc, char **argv) {
    static const cm_app_opt options[] = { CM_APP_TRAIN_OPTIONS, { 0 } };
    return cm_app_main(argc, argv, &(cm_app){
        .name = "dpo",
        .summary = "train a model on preferences",
        .examples = /* pairs.jsonl: prompt, chosen, rejected a line; docs/CHAT.md */
                    "  tokenize tokenize.inputs=pairs.jsonl tokenize.out=pairs "
                    "tokenize.tokenizer=runs/chat/ckpt/latest\n"
                    "  tokenize stats pairs  # how often the chosen answer is the longer one\n"
                    "  dpo post.model=runs/chat data.shards=pairs name=better optim.lr=1e-4 "
                    "sched.epochs=1\n"
                    "  dpo post.model=runs/chat data.shards=pairs name=lora lora.rank=16 "
                    "optim.lr=1e-3 sched.epochs=1\n"
                    "  dpo post.model=runs/chat data.shards=pairs name=simpo dpo.beta=2.5 "
                    "dpo.reference_free=true dpo.length_norm=true dpo.margin=1.4 "
                    "optim.lr=1e-4 sched.epochs=1\n",
        .sections = "top post dpo lora panel data optim sched train val log ckpt",
        .options = options,
        .has_run = true,
        .run = run });
}
