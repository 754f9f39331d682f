/* trainer.c -- THE loop: accumulate, clip, step, judge, validate, save, stop.
 *
 * Between two steps the state is whole and every duty of the finished step (validation,
 * checkpoint) is either done or visible in the state as undone; a signal is obeyed only
 * there, giving up a half-accumulated gradient.  So a resumed run repeats exactly what an
 * uninterrupted one does. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_REWINDS = 3 }; /* from one checkpoint, before a run counts as diverged */

/* ---- memory ------------------------------------------------------------------------ */

static void build_stats(cm__trainer *t, cm_arena *perm) {
    const cm_model_conf *m = &t->model.conf;
    size_t L = (size_t)m->n_layers, E = (size_t)m->n_experts;
    size_t rows = (size_t)t->plan.micro_rows * (size_t)t->rows.T;
    t->stats.nll = cm_arena_zalloc(perm, rows * sizeof *t->stats.nll);
    t->stats.hit = cm_arena_zalloc(perm, rows);
    t->stats.load = cm_arena_zalloc(perm, L * E * sizeof *t->stats.load);
    t->stats.moe = cm_arena_zalloc(perm, L * sizeof *t->stats.moe);
}

void cm__build(cm__trainer *t, cm_arena *perm) {
    cm_model_build_lora(&t->model, t->job->model, t->job->lora, perm, true);
    t->model.again = t->plan.again;
    cm_optim_open(&t->optim, &t->c->optim, cm_model_trained(&t->model), perm);
    t->optim.seed = (uint64_t)t->c->top.seed;
    t->rows.T = (int)t->c->data.seq_len;
    size_t n = (size_t)t->plan.batch_rows * (size_t)t->rows.T * sizeof(int32_t);
    t->rows.token = cm_arena_alloc(perm, n);
    t->rows.target = cm_arena_alloc(perm, n);
    t->rows.doc = cm_arena_alloc(perm, n);
    t->rows.pos = cm_arena_alloc(perm, n);
    build_stats(t, perm);
    cm__build_routes(t, perm);
    size_t window = (size_t)t->c->train.spike_window;
    t->windows = cm_arena_alloc(perm, 2 * window * sizeof *t->windows);
}

void cm__unbuild(cm__trainer *t) {
    cm_optim_close(&t->optim);
    cm_model_end(&t->model);
}

/* ---- a step ------------------------------------------------------------------------ */

static cm_var *lm_loss(void *self, const cm_model *m, cm_tape *t, const cm_batch *b,
                       int64_t row, cm_real norm, const cm_stats *st) {
    const cm_conf *c = self;
    cm_batch noisy = *b;
    noisy.noise = (cm_noise){ c->sft.neftune, (uint64_t)c->top.seed, row };
    return cm_model_loss(m, t, &noisy, norm, c->train.recompute == CM_RECOMPUTE_BLOCK, st);
}

cm_objective cm_lm_objective(const cm_conf *c) {
    return (cm_objective){ .self = (void *)(uintptr_t)c, .token_nll = true,
                           .loss = lm_loss };
}

void cm__micro_step(cm__trainer *t, int i, int micro, int64_t row, cm_real norm, bool dry) {
    const cm_objective *o = &t->job->objective;
    int64_t n = (int64_t)micro * t->rows.T, at = i * n;
    bool packed = t->job->train->packed;
    cm_batch b = { .B = micro, .T = t->rows.T, .token = t->rows.token + at,
                   .target = t->rows.target + at, .doc = packed ? t->rows.doc + at : NULL,
                   .pos = packed ? t->rows.pos + at : NULL };
    if (t->job->lora)
        b.drop = (cm_drop){ .share = t->job->lora->dropout,
                            .seed = (uint64_t)t->c->top.seed, .row = row + i * micro };
    size_t step = cm_arena_mark(&t->step), meta = cm_arena_mark(&t->meta);
    cm_tape tape;
    cm_tape_begin(&tape, &t->step, &t->meta, true, dry);
    tape.compute = (cm_compute)t->c->train.compute;
    tape.prof = t->prof;
    cm_var *loss = o->loss(o->self, &t->model, &tape, &b, row + i * micro, norm, &t->stats);
    if (!dry) t->loss_sum += (double)*cm_rdata(&loss->v);
    for (int64_t r = 0; !dry && o->token_nll && r < n; r++)
        if (b.target[r] >= 0) {
            t->nll_sum += (double)t->stats.nll[r];
            t->hits += t->stats.hit[r];
        }
    if (dry) t->stored = cm_arena_mark(&t->step);
    cm_tape_backward(&tape, loss, 1);
    cm_arena_reset(&t->step, step);
    cm_arena_reset(&t->meta, meta);
}

bool cm__stop_asked(const cm__trainer *t) {
    return cm_signal_stop() || (t->stop_file && access(t->stop_file, F_OK) == 0);
}

/* One process today.  With ranks, losses, counts and gradients are summed here. */
static void reduce(cm__trainer *t) { (void)t; }

int64_t cm__count(const cm__trainer *t, int64_t row, int64_t n) {
    const cm_objective *o = &t->job->objective;
    if (o->count) return o->count(o->self, &t->rows, row, (int)n);
    int64_t scored = 0;
    for (int64_t r = 0; r < n * t->rows.T; r++) scored += t->rows.target[r] >= 0;
    return scored;
}

/* Rows of the batch at the cursor, fewer than the plan's while the batch ramps up. */
static int64_t rows_now(const cm__trainer *t) {
    return cm_sched_batch(&t->c->data, t->state.tokens) / t->rows.T;
}

/* The most rows at once, within the plan's, that cut a batch of n rows evenly. */
static int micro_of(const cm__trainer *t, int64_t n) {
    int64_t a = t->plan.micro_rows, b = n;
    while (b) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return (int)a;
}

/* Gradients of the whole batch at the cursor.  stopped: given up for a signal. */
static bool accumulate(cm__trainer *t, bool *stopped, cm_err *err) {
    const cm_source *src = t->job->train;
    int64_t row = t->state.row, n = rows_now(t);
    int micro = micro_of(t, n);
    if (!src->read(src->self, row, (int)n, &t->rows, err)) return false;
    t->scored = t->hits = 0;
    for (int64_t r = 0; r < n * t->rows.T; r++) t->scored += t->rows.target[r] >= 0;
    if (t->job->objective.begin) t->job->objective.begin(t->job->objective.self, false);
    t->counted = cm__count(t, row, n);
    if (!t->scored || !t->counted)
        return cm_fail(err, CM_EXIT_DATA, "step %lld: no token of the batch is a target",
                       (long long)t->state.step + 1);
    double clear = cm__profile_now(t);
    cm_params_zero_grad(cm_model_trained(&t->model));
    cm__profile_part(t, CM__PART_CLEAR, clear);
    t->loss_sum = t->nll_sum = 0;
    cm_real norm = 1 / (cm_real)t->counted;
    for (int i = 0; i < n / micro; i++) {
        cm__micro_step(t, i, micro, row, norm, false);
        if ((*stopped = cm__stop_asked(t))) return true;
    }
    reduce(t);
    return true;
}

static void update(cm__trainer *t) {
    double batch = (double)(rows_now(t) * t->rows.T);
    double middle = (double)t->state.tokens + batch / 2;
    double share = cm_sched_share(&t->c->sched, middle);
    double clip = t->c->optim.clip;
    double gscale = clip > 0 && t->gnorm > clip ? clip / t->gnorm : 1;
    t->lr = t->c->optim.lr * share;
    t->optim.momentum = cm_optim_momentum(&t->c->optim, middle);
    t->state.updates++;
    double start = cm__profile_now(t);
    cm_optim_step(&t->optim, t->state.updates, share, gscale, &t->step, false);
    cm__profile_part(t, CM__PART_UPDATE, start);
}

/* ---- what to do with a bad or strange step ----------------------------------------- */

static bool diverged(cm__trainer *t, const char *why, cm_err *err) {
    return cm_fail(err, CM_EXIT_DIVERGED,
                   "step %lld: %s (loss %g, gradient norm %g); checkpoints saved before are "
                   "untouched in %s", (long long)t->state.step + 1, why, cm__loss(t),
                   t->gnorm, t->ckpt_dir);
}

/* Back to the newest checkpoint, with the cursor behind the rows that did it. */
static bool rewind_run(cm__trainer *t, cm_err *err) {
    int64_t beyond = t->state.row + rows_now(t), at = t->state.step + 1;
    if (++t->rewinds > MAX_REWINDS)
        return diverged(t, "spikes again after each of three rewinds", err);
    bool found;
    if (!cm_ckpt_load(&t->ckpt, &found, err)) return false;
    CM_ASSERT(found, "a rewind without a checkpoint");
    t->state.row = beyond;
    t->state.spikes++;
    cm_log(CM_LOG_WARN, "step %lld was a spike: back to step %lld, past the rows that did it",
           (long long)at, (long long)t->state.step);
    return cm__report_event(t, "rewind", err, "from step %lld to %lld", (long long)at,
                            (long long)t->state.step);
}

static bool on_bad(cm__trainer *t, cm_err *err) {
    t->state.bad++;
    if (++t->state.bad_run > t->c->train.nan_limit)
        return diverged(t, "NaN or infinity, and train.nan_limit steps in a row were skipped "
                           "before", err);
    cm_log(CM_LOG_WARN, "step %lld: NaN or infinity (loss %g, gradient norm %g); skipped",
           (long long)t->state.step + 1, cm__loss(t), t->gnorm);
    return cm__report_event(t, "nan", err, "loss %g, gradient norm %g", cm__loss(t),
                            t->gnorm);
}

static bool on_spike(cm__trainer *t, cm_err *err) {
    cm_log(CM_LOG_WARN, "step %lld: spike: loss %.4f (%+.1f sd), gradient norm %.3g (%+.1f "
           "sd)", (long long)t->state.step + 1, cm__loss(t), t->state.guard.loss_z, t->gnorm,
           t->state.guard.gnorm_z);
    t->state.spikes++;
    return cm__report_event(t, "spike", err, "loss %.6g z %.2f, gradient norm %.6g z %.2f",
                            cm__loss(t), t->state.guard.loss_z, t->gnorm,
                            t->state.guard.gnorm_z);
}

/* The batch is computed: use it, skip it, go back, or give up.  *advance: it counts as a
 * step of the run. */
static bool settle(cm__trainer *t, bool *advance, cm_err *err) {
    double start = cm__profile_now(t);
    t->gnorm = cm_optim_grad_norm(&t->optim);
    cm__profile_part(t, CM__PART_NORM, start);
    cm_step_verdict v = cm_guard_judge(&t->state.guard, cm__loss(t), t->gnorm);
    int policy = t->c->train.spike;
    bool use = v == CM_STEP_GOOD || (v == CM_STEP_SPIKE && policy == CM_SPIKE_LOG);
    *advance = true;
    if (v == CM_STEP_BAD && !on_bad(t, err)) return false;
    if (v == CM_STEP_SPIKE && policy == CM_SPIKE_REWIND) {
        *advance = false;
        return rewind_run(t, err);
    }
    if (v == CM_STEP_SPIKE && !on_spike(t, err)) return false;
    if (v == CM_STEP_SPIKE && policy == CM_SPIKE_STOP)
        return diverged(t, "spike, and train.spike is stop", err);
    if (v != CM_STEP_BAD) t->state.bad_run = 0;
    if (use) update(t);
    else t->state.skipped++;
    return true;
}

/* The peak of the step arena is what the rehearsal counted, to the byte. */
static void check_peak(const cm__trainer *t, bool whole) {
    CM_ASSERT(whole ? t->step.peak == t->plan.step_train
                    : t->step.peak <= t->plan.step_train,
              "a step took %zu bytes, the plan said %zu", t->step.peak, t->plan.step_train);
}

/* CPU seconds of this process, all threads. */
static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool train_step(cm__trainer *t, bool *stopped, cm_err *err) {
    double start = cm_now(), cpu = cpu_now();
    size_t peak = t->step.peak;
    int64_t updates = t->state.updates;
    bool advance;
    t->step.peak = 0;
    cm__profile_begin(t);
    if (!accumulate(t, stopped, err)) return false;
    if (*stopped) return true;
    if (!settle(t, &advance, err)) return false;
    if (!advance) return true;
    int64_t rows = rows_now(t);
    check_peak(t, t->state.updates > updates && rows == t->plan.batch_rows);
    if (peak > t->step.peak) t->step.peak = peak;
    t->state.step++;
    t->state.row += rows;
    t->state.tokens += rows * t->rows.T;
    double seconds = cm_now() - start;
    cm__profile_step(t, seconds, rows * t->rows.T);
    t->row_seconds += seconds;
    t->cpu_seconds += cpu_now() - cpu;
    t->row_tokens += rows * t->rows.T;
    t->row_steps++;
    return cm__report_step(t, err);
}

/* ---- duties between steps ---------------------------------------------------------- */

static bool due(const cm__trainer *t, int64_t every) {
    int64_t s = t->state.step;
    return s > 0 && (s == t->plan.steps || (every && s % every == 0));
}

static bool save(cm__trainer *t, cm_err *err) {
    if (t->saved_step == t->state.step && t->saved_val == t->state.val_step) return true;
    double start = cm_now();
    char *path;
    if (t->job->run && !cm_run_there(t->job->run, err)) return false;
    if (!cm_ckpt_save(&t->ckpt, &path, err)) return false;
    t->saved_step = t->state.step;
    t->saved_val = t->state.val_step;
    t->rewinds = 0;
    bool ok = cm__report_event(t, "save", err, "%s in %.2f s", path, cm_now() - start);
    free(path);
    return ok;
}

static bool save_asked(const cm__trainer *t) {
    bool file = t->save_file && unlink(t->save_file) == 0;
    return cm_signal_save() || file;
}

/* Report a validation.  One that was interrupted, or whose alarm ends the run (the state is
 * saved first), stays undone in the state: whoever goes on is asked again, so neither
 * passes it over.  before: state.val_step before it. */
static bool told_val(cm__trainer *t, int64_t before, bool *stopped, cm_err *err) {
    bool stop = false;
    if (!cm__report_val(t, &stop, stopped, err)) return false;
    if (!stop && !*stopped) return true;
    t->state.val_step = before;
    if (!stop) return true;
    cm_err other;
    if (!save(t, &other) || !cm__report_end(t, false, err->msg, &other)) *err = other;
    return false;
}

/* Validation and checkpoints that the finished step calls for. */
static bool duties(cm__trainer *t, bool *stopped, cm_err *err) {
    const cm_source *v = t->job->val;
    int64_t step = t->state.step;
    *stopped = cm__stop_asked(t);
    if (!*stopped && v && v->rows && t->state.val_step != step && due(t, t->c->val.every)) {
        int64_t before = t->state.val_step;
        if (!cm__validate(t, stopped, err)) return false;
        if (!*stopped && !told_val(t, before, stopped, err)) return false;
    }
    bool best = t->c->ckpt.best && t->state.best_step == step && step > 0;
    bool first = step == 0 && t->c->train.spike == CM_SPIKE_REWIND;
    bool want = *stopped || best || first || due(t, t->c->ckpt.every) || save_asked(t) ||
                step == t->job->stop_at;
    return !want || (step == 0 && !*stopped && !first) || save(t, err);
}

static bool loop(cm__trainer *t, bool *complete, cm_err *err) {
    for (bool stopped = false;;) {
        if (!duties(t, &stopped, err)) return false;
        *complete = t->state.step >= t->plan.steps;
        if (stopped || *complete) return true;
        if (t->job->stop_at && t->state.step >= t->job->stop_at) return true;
        if (!train_step(t, &stopped, err)) return false;
    }
}

/* ---- start and end ----------------------------------------------------------------- */

static bool check_inputs(const cm_job *job, cm_err *err) {
    const cm_source *s = job->train;
    if (s->T == job->conf->data.seq_len && s->rows >= 1) return true;
    return cm_fail(err, CM_EXIT_USAGE, "the training data has no row of %lld tokens",
                   (long long)job->conf->data.seq_len);
}

static bool open_arenas(cm__trainer *t, cm_err *err) {
    const cm_plan *p = &t->plan;
    if (!cm_arena_open(&t->perm, "perm", p->perm, err) ||
        !cm_arena_open(&t->step, "step", p->step, err) ||
        !cm_arena_open(&t->meta, "meta", p->meta, err))
        return false;
    cm__build(t, &t->perm);
    CM_ASSERT(t->perm.peak == p->perm, "perm arena: built %zu bytes, planned %zu",
              t->perm.peak, p->perm);
    cm_guard_init(&t->state.guard, &t->c->train, t->windows);
    return true;
}

static void name_files(cm__trainer *t) {
    const cm_job *j = t->job;
    if (j->run) {
        t->stop_file = cm_run_path(j->run, "STOP");
        t->save_file = cm_run_path(j->run, "SAVE");
        unlink(t->stop_file); /* of the run that it stopped */
    }
    t->ckpt_dir = j->ckpt_dir ? cm_strf("%s", j->ckpt_dir) : cm_run_path(j->run, "ckpt");
    t->ckpt = (cm_ckpt){ .dir = t->ckpt_dir, .conf = t->c, .model = &t->model,
                         .optim = &t->optim, .state = &t->state, .data = j->train->id,
                         .tokenizer = j->tokenizer, .extra = j->extra, .ctx = j->ctx,
                         .any_config = j->resume == CM_RESUME_MUST, .base = j->base,
                         .base_id = j->base_id };
}

/* The job's own weights, or the seed's; new adapters. */
static bool start_weights(cm__trainer *t, cm_err *err) {
    const cm_job *j = t->job;
    uint64_t seed = (uint64_t)t->c->top.seed;
    cm_params_init(&t->model.adapter, seed); /* first: init may ask the model something */
    if (j->init) return j->init(j->ctx, &t->model, err);
    cm_params_init(&t->model.params, seed);
    return true;
}

/* Weights and state: the newest checkpoint's, the job's own, or the seed's.  A checkpoint of
 * adapters lacks their base, which is never written. */
static bool first_state(cm__trainer *t, cm_err *err) {
    const cm_job *j = t->job;
    bool found = false;
    t->state.val_step = t->state.best_step = t->saved_step = -1;
    t->state.best = t->state.val_loss = t->val_bpb = t->val_acc = NAN;
    if (!cm_mkdirs(t->ckpt_dir, err) || !cm_ckpt_clean(t->ckpt_dir, err)) return false;
    if (j->lora && !start_weights(t, err)) return false;
    if (j->resume != CM_RESUME_NEVER && !cm_ckpt_load(&t->ckpt, &found, err)) return false;
    if (found) {
        t->saved_step = t->state.step;
        t->saved_val = t->state.val_step;
        uint64_t step = (uint64_t)t->state.step;
        if (j->run && (!cm_run_rewind(j->run, step, err) ||
                       (t->state.val_step != t->state.step &&
                        !cm_run_drop_row(j->run, step, "val/loss", err))))
            return false;
        cm_log(CM_LOG_INFO, "resuming at step %lld of %lld", (long long)t->state.step,
               (long long)t->plan.steps);
    } else if (j->resume == CM_RESUME_MUST) {
        return cm_fail(err, CM_EXIT_USAGE, "%s: no checkpoint to resume from", t->ckpt_dir);
    } else if (!j->lora && !start_weights(t, err)) {
        return false;
    }
    t->first_step = t->state.step;
    return true;
}

static void close_trainer(cm__trainer *t) {
    cm__profile_close(t);
    cm__unbuild(t);
    cm_arena_close(&t->perm);
    cm_arena_close(&t->step);
    cm_arena_close(&t->meta);
    cm_buf_free(&t->route_text);
    free(t->ckpt_dir);
    free(t->stop_file);
    free(t->save_file);
}

bool cm_train(const cm_job *job, bool *complete, cm_err *err) {
    cm__trainer t = { .job = job, .c = job->conf };
    *complete = false;
    if (!check_inputs(job, err) || !cm_plan_make(job, &t.plan, err) ||
        (job->prepare && !job->prepare(job->ctx, &t.plan, err)))
        return false;
    name_files(&t);
    cm__warn_disk(&t.plan, t.ckpt_dir);
    cm__profile_open(&t);
    bool ok = open_arenas(&t, err) && first_state(&t, err) && cm__report_open(&t, err) &&
              loop(&t, complete, err) && cm__report_end(&t, *complete, NULL, err) &&
              cm__profile_end(&t, err);
    close_trainer(&t);
    return ok;
}
