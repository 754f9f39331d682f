/* report.c -- what a run says: rows of metrics.jsonl, the log line, events, summary.
 *
 * Names are those of docs (train/loss, val/bpb, moe/load_cv, ...).  A row appears at the
 * first step of a process, at every log.every-th, and at the last. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>

double cm__loss(const cm__trainer *t) {
    return t->job->objective.token_nll ? t->nll_sum / (double)t->scored : t->loss_sum;
}

bool cm__report_event(cm__trainer *t, const char *kind, cm_err *err, const char *fmt, ...) {
    if (!t->job->run) return true;
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return cm_run_event(t->job->run, kind, (uint64_t)t->state.step, err, "%s", text);
}

bool cm__report_open(cm__trainer *t, cm_err *err) {
    if (!t->job->run) return true;
    if (!t->job->val || !t->job->val->rows)
        cm_log(CM_LOG_WARN, "no validation split, or all of it left out: no val/loss, "
                            "no best checkpoint");
    t->probe = cm_gemm_probe((cm_compute)t->c->train.compute, 0.1);
    cm_told_load(t->job->run, "experts", t->first_step + 1, &t->collapse_told, 1);
    cm_progress_open(&t->progress, t->job->tool, "tok", (double)t->plan.tokens, 1,
                     t->job->quiet ? CM_PROGRESS_NONE : cm_progress_auto(),
                     t->job->run->log);
    return cm__report_event(t, t->first_step ? "resume" : "start", err,
                            "step %lld of %lld, %s", (long long)t->first_step,
                            (long long)t->plan.steps, cm_kern_describe());
}

/* ---- experts ----------------------------------------------------------------------- */

/* Health of one layer's routing since the last row (Switch, OLMoE; reference values: cv 0,
 * entropy 1 and max_vio 0 are balanced). */
typedef struct {
    double cv, entropy, max_vio, router_entropy, top1;
    int dead;
} moe_layer;

static moe_layer judge_layer(const cm__trainer *t, int64_t i) {
    int64_t E = t->model.conf.n_experts;
    const int64_t *load = t->stats.load + i * E;
    const cm_moe_stats *s = &t->stats.moe[i];
    double sum = 0, sq = 0, most = 0, h = 0;
    moe_layer m = { 0 };
    for (int64_t e = 0; e < E; e++) sum += (double)load[e];
    double mean = sum / (double)E;
    for (int64_t e = 0; e < E && sum > 0; e++) {
        double x = (double)load[e], p = x / sum;
        sq += (x - mean) * (x - mean);
        most = fmax(most, x);
        if (p > 0) h -= p * log(p);
        m.dead += x < 0.1 * mean;
    }
    if (sum > 0) {
        m.cv = sqrt(sq / (double)E) / mean;
        m.max_vio = most / mean - 1;
        m.entropy = E > 1 ? h / log((double)E) : 1;
    }
    if (s->rows) {
        m.router_entropy = s->router_entropy / (double)s->rows /
                           (E > 1 ? log((double)E) : 1);
        m.top1 = s->top1 / (double)s->rows;
    }
    return m;
}

enum { CALM_ROWS = 20 }; /* balanced rows until a collapse is told again */

static void warn_collapse(cm__trainer *t, int64_t layer, const moe_layer *m) {
    bool bad = m->dead > 0 || m->entropy < 0.5;
    if (bad && !t->collapse_told)
        cm_log(CM_LOG_WARN,
               "layer %lld: experts collapse: %d of %lld get less than a tenth of their "
               "share (load entropy %.2f, max_vio %.1f); raise %s.lb_coef or lower optim.lr",
               (long long)layer, m->dead, (long long)t->model.conf.n_experts, m->entropy,
               m->max_vio, t->job->init ? "post" : "model");
    if (bad) t->collapse_told = CALM_ROWS;
}

/* The run remembers what is out over interruptions, where anything was. */
static void keep_told(const cm__trainer *t, int before) {
    if (t->job->run && t->collapse_told != before)
        cm_told_save(t->job->run, "experts", t->state.step, &t->collapse_told, 1);
}

#define MOE_FIELDS(X) X(cv, "moe/load_cv") X(entropy, "moe/entropy")                     \
    X(max_vio, "moe/max_vio") X(router_entropy, "moe/router_entropy") X(top1, "moe/top1")

/* Each expert's tokens over the mean of its layer, to four digits. */
static void load_row(const cm__trainer *t, cm_buf *b) {
    int64_t L = t->model.conf.n_layers, E = t->model.conf.n_experts;
    cm_json_open(b, "moe/expert_load_layer", '[');
    for (int64_t i = 0; i < L; i++) {
        if (!t->model.layer[i].experts) continue;
        const int64_t *load = t->stats.load + i * E;
        double sum = 0;
        for (int64_t e = 0; e < E; e++) sum += (double)load[e];
        cm_json_open(b, NULL, '[');
        for (int64_t e = 0; e < E; e++)
            cm_json_f64(b, NULL, sum > 0 ? round(1e4 * (double)(load[e] * E) / sum) / 1e4 : 0);
        cm_json_close(b, '[');
    }
    cm_json_close(b, '[');
}

/* Means over the expert layers, then each layer's own values as arrays. */
static void moe_row(cm__trainer *t, cm_buf *b) {
    int64_t L = t->model.conf.n_layers, E = t->model.conf.n_experts;
    int n = 0, dead = 0, told = t->collapse_told;
    moe_layer sum = { 0 };
    for (int64_t i = 0; i < L; i++) {
        if (!t->model.layer[i].experts) continue;
        moe_layer m = judge_layer(t, i);
        n++;
        dead += m.dead;
#define X(f, name) sum.f += m.f;
        MOE_FIELDS(X)
#undef X
        if (t->state.step > 20) warn_collapse(t, i, &m);
    }
    if (!n) return;
#define X(f, name) cm_json_f64(b, name, sum.f / n);
    MOE_FIELDS(X)
#undef X
    cm_json_i64(b, "moe/dead_experts", dead);
    if (!dead && sum.entropy / n > 0.7 && t->collapse_told) t->collapse_told--;
    keep_told(t, told);
#define X(f, name)                                                                      \
    cm_json_open(b, name "_layer", '[');                                                \
    for (int64_t i = 0; i < L; i++)                                                     \
        if (t->model.layer[i].experts) cm_json_f64(b, NULL, judge_layer(t, i).f);       \
    cm_json_close(b, '[');
    MOE_FIELDS(X)
#undef X
    load_row(t, b);
    for (int64_t i = 0; i < L * E; i++) t->stats.load[i] = 0;
    for (int64_t i = 0; i < L; i++) t->stats.moe[i] = (cm_moe_stats){ 0 };
}

/* ---- rows -------------------------------------------------------------------------- */

static double peak_rss(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) ? 0 : (double)u.ru_maxrss * 1024;
}

static void train_row(cm__trainer *t, cm_buf *b, double rate, double mfu) {
    const cm_train_state *s = &t->state;
    const cm_objective *o = &t->job->objective;
    cm_json_i64(b, "train/tokens", s->tokens);
    cm_json_f64(b, "train/loss", cm__loss(t));
    cm_json_f64(b, "train/objective", t->loss_sum);
    cm_json_i64(b, "train/targets", t->scored);
    if (o->token_nll) cm_json_f64(b, "train/acc_tok", (double)t->hits / (double)t->scored);
    cm_json_f64(b, "train/loss_z", s->guard.loss_z);
    cm_json_f64(b, "train/grad_norm", t->gnorm);
    cm_json_f64(b, "train/grad_norm_z", s->guard.gnorm_z);
    cm_json_f64(b, "train/lr", t->lr);
    cm_json_i64(b, "train/skipped", s->skipped);
    cm_json_i64(b, "train/spikes", s->spikes);
    cm_json_f64(b, "train/epoch", (double)s->row / (double)t->job->train->rows);
    cm_json_f64(b, "train/tok_per_s", rate);
    cm_json_f64(b, "train/mfu", mfu);
    cm_json_f64(b, "train/step_ms", 1e3 * t->row_seconds / (double)t->row_steps);
    cm_json_i64(b, "train/batch", t->row_tokens / t->row_steps);
    cm_json_f64(b, "train/cpu_s", t->cpu_seconds);
    cm_json_f64(b, "train/rss_bytes", peak_rss());
}

bool cm__report_step(cm__trainer *t, cm_err *err) {
    int64_t s = t->state.step;
    cm_run *run = t->job->run;
    if (!run) return true;
    if (!cm_run_heartbeat(run, (uint64_t)s, (uint64_t)t->plan.steps, err)) return false;
    if (s % t->c->log.every && s != t->plan.steps && s != t->first_step + 1) return true;
    double rate = (double)t->row_tokens / t->row_seconds;
    double flops = cm_model_flops(&t->model.conf, t->rows.T) * rate;
    double mfu = t->probe > 0 ? flops / (t->probe * 1e9) : 0;
    cm_buf *b = cm_metrics_begin(run, (uint64_t)s);
    train_row(t, b, rate, mfu);
    if (t->job->objective.metrics)
        t->job->objective.metrics(t->job->objective.self, false, b);
    moe_row(t, b);
    if (!cm_metrics_end(run, err)) return false;
    cm_progress_show(&t->progress, (double)t->state.tokens,
                     "step=%lld/%lld loss=%.4f z=%+.1f gnorm=%.3g lr=%.3g tok_s=%.0f "
                     "mfu=%.2f", (long long)s, (long long)t->plan.steps, cm__loss(t),
                     t->state.guard.loss_z, t->gnorm, t->lr, rate, mfu);
    t->row_seconds = 0;
    t->row_tokens = t->row_steps = 0;
    return true;
}

/* ---- validation and the end -------------------------------------------------------- */

static bool write_samples(cm__trainer *t, cm_err *err) {
    const cm_job *j = t->job;
    cm_buf text = { 0 };
    char *dir = cm_run_path(j->run, "samples");
    char *path = cm_strf("%s/step-%08lld.txt", dir, (long long)t->state.step);
    bool ok = j->sample(j->ctx, &t->model, t->state.step, &text, err) &&
              cm_mkdirs(dir, err) && cm_write_file(path, text.s ? text.s : "", text.n, err);
    free(path);
    free(dir);
    cm_buf_free(&text);
    return ok;
}

static void tell_val(const cm__trainer *t) {
    char bpb[48] = "";
    if (isfinite(t->val_bpb)) snprintf(bpb, sizeof bpb, ", %.4f bits per byte", t->val_bpb);
    cm_log(CM_LOG_INFO, "step %lld: val loss %.4f%s%s", (long long)t->state.step,
           t->state.val_loss, bpb,
           t->state.best_step == t->state.step ? ", the best so far" : "");
}

bool cm__report_val(cm__trainer *t, bool *stop, bool *stopped, cm_err *err) {
    const cm_job *j = t->job;
    if (!j->run) return true;
    cm_buf *b = cm_metrics_begin(j->run, (uint64_t)t->state.step);
    cm_json_i64(b, "train/tokens", t->state.tokens);
    cm_json_f64(b, "train/cpu_s", t->cpu_seconds);
    cm_json_f64(b, "val/loss", t->state.val_loss);
    if (isfinite(t->val_bpb)) cm_json_f64(b, "val/bpb", t->val_bpb);
    if (isfinite(t->val_acc)) cm_json_f64(b, "val/acc_tok", t->val_acc);
    if (j->objective.metrics) j->objective.metrics(j->objective.self, true, b);
    bool ok = !j->watch || j->watch(j->ctx, &t->model, t->state.step, b, stop, err);
    if (ok && j->watch && !*stop && cm_signal_stop()) return *stopped = true;
    if (!cm_metrics_end(j->run, ok ? err : NULL) || !ok) return false;
    tell_val(t);
    return *stop || !t->job->sample || !t->c->val.samples || write_samples(t, err);
}

bool cm__report_end(cm__trainer *t, bool complete, const char *alarm, cm_err *err) {
    cm_run *run = t->job->run;
    if (!run) return true;
    cm_progress_close(&t->progress);
    cm_buf b = { 0 };
    const cm_train_state *s = &t->state;
    cm_json_bool(&b, "complete", complete);
    if (alarm) cm_json_str(&b, "alarm", alarm);
    cm_json_i64(&b, "step", s->step);
    cm_json_i64(&b, "train/tokens", s->tokens);
    if (t->scored) cm_json_f64(&b, "train/loss", cm__loss(t));
    if (isfinite(s->best)) {
        cm_json_f64(&b, "val/loss", s->val_loss);
        if (isfinite(t->val_bpb)) cm_json_f64(&b, "val/bpb", t->val_bpb);
        cm_json_f64(&b, "val/best_loss", s->best);
        cm_json_i64(&b, "val/best_step", s->best_step);
    }
    cm_json_i64(&b, "train/spikes", s->spikes);
    cm_json_i64(&b, "train/skipped", s->skipped);
    cm_json_i64(&b, "train/nan", s->bad);
    cm_json_i64(&b, "warnings", cm_log_warnings());
    cm_json_i64(&b, "model/params", t->plan.params);
    cm_json_i64(&b, "model/params_active", t->plan.active);
    cm_json_u64(&b, "memory/perm_bytes", t->perm.peak);
    cm_json_u64(&b, "memory/step_bytes", t->step.peak);
    cm_json_u64(&b, "memory/meta_bytes", t->meta.peak);
    cm_json_u64(&b, "memory/planned_bytes", t->plan.perm + t->plan.step + t->plan.meta);
    cm_json_f64(&b, "train/rss_bytes", peak_rss());
    bool ok = cm_run_summary(run, &b, err);
    cm_buf_free(&b);
    return ok;
}
