/* plan.c -- what a run takes, to the byte, before it starts.
 *
 * The plan builds the model and runs one training step, one validation batch and the
 * optimizer on counting arenas with a dry tape: the very code that trains, minus the
 * arithmetic.  So the prediction is the arenas' high-water mark, not an estimate. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

/* Rows computed at once when nobody chose: about this many tokens keep the matrix
 * products large while activations stay small. */
enum { MICRO_TOKENS = 4096 };

static int64_t choose_micro(int64_t rows, int64_t T) {
    int64_t best = 1;
    for (int64_t m = 1; m <= rows && m * T <= MICRO_TOKENS; m++)
        if (rows % m == 0) best = m;
    return best;
}

/* The batch doubles from batch_from to batch_tokens, in whole rows. */
static bool check_ramp(const cm_conf *c, cm_err *err) {
    int64_t from = c->data.batch_from, b = from;
    if (!from) return true;
    while (b < c->data.batch_tokens) b *= 2;
    if (b == c->data.batch_tokens && from % c->data.seq_len == 0) return true;
    return cm_conf_bad(c, err, "data.batch_from",
                       "%lld is not data.batch_tokens = %lld halved some times, in whole rows "
                       "of data.seq_len = %lld", (long long)from,
                       (long long)c->data.batch_tokens, (long long)c->data.seq_len);
}

/* Steps and tokens of the run: those of the ramp one by one, then all alike. */
static void count_steps(const cm_conf *c, cm_plan *p) {
    int64_t batch = c->data.batch_tokens, n;
    while (p->tokens < c->sched.tokens && (n = cm_sched_batch(&c->data, p->tokens)) < batch) {
        p->tokens += n;
        p->steps++;
    }
    if (p->tokens >= c->sched.tokens) return;
    n = (c->sched.tokens - p->tokens + batch - 1) / batch;
    p->steps += n;
    p->tokens += n * batch;
}

static bool cut_batch(const cm_conf *c, cm_plan *p, cm_err *err) {
    int64_t T = c->data.seq_len;
    if (c->data.batch_tokens % T)
        return cm_conf_bad(c, err, "data.batch_tokens",
                           "%lld is not a multiple of data.seq_len = %lld",
                           (long long)c->data.batch_tokens, (long long)T);
    p->batch_rows = c->data.batch_tokens / T;
    p->micro_rows = c->data.micro_rows ? c->data.micro_rows
                                       : choose_micro(p->batch_rows, T);
    if (p->batch_rows % p->micro_rows)
        return cm_conf_bad(c, err, "data.micro_rows",
                           "%lld rows do not divide the batch of %lld rows",
                           (long long)p->micro_rows, (long long)p->batch_rows);
    if (!check_ramp(c, err)) return false;
    if (c->train.recompute == CM_RECOMPUTE_AUTO && c->train.max_gb <= 0)
        return cm_conf_bad(c, err, "train.recompute",
                           "auto chooses within train.max_gb, which is not set");
    count_steps(c, p);
    return true;
}

static size_t bytes_of(const cm_param *p) {
    return cm_align_up(cm_tensor_bytes(&p->var.v));
}

static void count_parts(cm__trainer *t, cm_plan *p) {
    const cm_model *m = &t->model;
    const cm_params *trained = t->optim.ps;
    for (int i = 0; i < trained->n; i++) {
        size_t b = bytes_of(trained->p[i]);
        p->grads += b;
        p->moments += cm_align_up(cm_tensor_bytes(&t->optim.m[i]));
        if (t->optim.v[i].data) p->moments += cm_align_up(cm_tensor_bytes(&t->optim.v[i]));
    }
    for (int i = 0; i < m->params.n; i++) p->weights += bytes_of(m->params.p[i]);
    for (int i = 0; i < m->adapter.n; i++) p->weights += bytes_of(m->adapter.p[i]);
    p->batches = p->perm - p->weights - p->grads - p->moments;
    int64_t adapters = cm_params_count(&m->adapter);
    p->params = cm_params_count(&m->params) + adapters;
    p->active = cm_model_count(&m->conf, true) + adapters;
    p->trained = cm_params_count(trained);
    p->flops = cm_model_flops(&m->conf, t->c->data.seq_len) * (double)p->tokens;
    /* Of the three products a weight takes part in, a frozen one's gradient falls away. */
    if (adapters) p->flops *= 2.0 / 3;
    p->ckpt = cm_ckpt_bytes(&t->optim);
}

static double op_flops(const cm_prof *prof) {
    double f = 0;
    for (int i = 0; i < prof->n; i++) f += prof->row[i].flops;
    return 3 * f;
}

void cm__rehearse(cm__trainer *t, cm_plan *p) {
    cm_prof prof = cm__account();
    t->step.peak = t->meta.peak = 0;
    t->prof = &prof;
    cm__micro_step(t, 0, (int)p->micro_rows, 0, 1, true);
    t->prof = NULL;
    double parts = (double)(p->batch_rows / p->micro_rows);
    p->step_flops = op_flops(&prof) * parts;
    p->cost = cm__seconds(&prof) * parts;
    cm_optim_step(&t->optim, 1, 1, 1, &t->step, true);
    p->step_train = t->step.peak;
    if (t->job->val) cm__val_rows(t, (int)p->micro_rows, 0, true);
    p->perm = t->perm.peak;
    p->step = t->step.peak;
    p->meta = t->meta.peak;
}

size_t cm__run_bytes(const cm_plan *p) { return p->perm + p->step + p->meta + p->beside; }

size_t cm_plan_bytes(const cm_plan *p) {
    size_t run = cm__run_bytes(p);
    return run > p->ahead ? run : p->ahead;
}

/* Without a limit of the user's the machine's holds, which ends a run without a word. */
static void warn_if_scarce(double need) {
    double free = cm_limits_get().memory;
    char a[32], b[32];
    if (need > free)
        cm_log(CM_LOG_WARN, "this run needs %s of memory and %s can be had: the system may end "
               "it; train.recompute=auto with train.max_gb takes less",
               cm_human_bytes(need, a, sizeof a), cm_human_bytes(free, b, sizeof b));
}

/* GB as train.max_gb has them, rounded up: a limit of that is enough. */
static double gb(double bytes) { return ceil(bytes * 1e-5) * 1e-4; }

static bool fits(const cm_job *job, const cm_plan *p, cm_err *err) {
    double max = job->conf->train.max_gb, need = (double)cm_plan_bytes(p);
    if (max <= 0) warn_if_scarce(need);
    if (max <= 0 || need <= max * 1e9) return true;
    const char *rows = p->micro_rows > 1 ? "data.micro_rows, " : "";
    if (need > (double)cm__run_bytes(p))
        return cm_fail(err, CM_EXIT_RESOURCE,
                       "the reference's pass before training needs %.4f GB of memory; "
                       "train.max_gb allows %.12g GB: lower %sor take a smaller reference",
                       gb(need), max, rows);
    return cm_fail(err, CM_EXIT_RESOURCE,
                   "this run needs %.4f GB of memory, of which %.4f GB for one micro-batch of "
                   "%lld row%s; train.max_gb allows %.12g GB: lower %sdata.seq_len or the model%s",
                   gb(need), gb((double)p->step), (long long)p->micro_rows,
                   p->micro_rows == 1 ? "" : "s", max, rows,
                   job->conf->train.recompute == CM_RECOMPUTE_NONE
                       ? ", or set train.recompute = auto" : "");
}

/* Blocks that are computed again by choice. */
static int again(const cm_plan *p) {
    int n = 0;
    for (size_t i = 0; i < sizeof p->again; i++) n += p->again[i];
    return n;
}

/* The plan with p's micro_rows; p: the batch is cut, the rest empty. */
static bool plan_rows(const cm_job *job, cm_plan *p, cm_err *err) {
    cm__trainer t = { .job = job, .c = job->conf, .plan = *p };
    bool ok = cm_arena_open_counting(&t.perm, "plan", err) &&
              cm_arena_open_counting(&t.step, "plan of a step", err) &&
              cm_arena_open(&t.meta, "plan's tape", (size_t)1 << 30, err);
    if (ok) {
        cm__build(&t, &t.perm);
        cm__rehearse(&t, p);
        count_parts(&t, p);
        ok = !job->account || job->account(job->ctx, &t.model, p, err);
        if (ok && job->conf->train.recompute == CM_RECOMPUTE_AUTO) cm__choose_blocks(&t, p);
        memcpy(p->again, t.plan.again, sizeof p->again);
        cm__unbuild(&t);
    }
    cm_arena_close(&t.perm);
    cm_arena_close(&t.step);
    cm_arena_close(&t.meta);
    return ok;
}

/* Of the rows up to `cut`'s, those whose batch costs least within train.max_gb; one where none
 * fits. */
static bool cheapest_rows(const cm_job *job, const cm_plan *cut, int64_t *rows, cm_err *err) {
    double least = INFINITY;
    *rows = 1;
    for (int64_t m = cut->micro_rows; m >= 1; m--) {
        if (cut->batch_rows % m) continue;
        cm_plan p = *cut;
        p.micro_rows = m;
        if (!plan_rows(job, &p, err)) return false;
        if ((double)cm__run_bytes(&p) > job->conf->train.max_gb * 1e9) continue;
        if (p.cost < least) {
            least = p.cost;
            *rows = m;
        }
        if (!again(&p)) break; /* fewer rows only read the weights more often */
    }
    return true;
}

/* How many rows are computed at once moves the last bits of a sum, so the machine must not
 * choose: a plan has scratch for each thread, and these count PLAN_THREADS. */
static bool choose_rows(const cm_job *job, cm_plan *p, cm_err *err) {
    enum { PLAN_THREADS = 16 };
    cm_numerics how = (cm_numerics)job->conf->top.numerics;
    int threads = cm_kern_threads();
    int64_t rows = 1;
    cm_err other;
    bool ok = cm_kern_init(how, PLAN_THREADS, err) && cheapest_rows(job, p, &rows, err);
    if (!cm_kern_init(how, threads, ok ? err : &other)) return false;
    p->micro_rows = rows;
    return ok;
}

bool cm_plan_make(const cm_job *job, cm_plan *p, cm_err *err) {
    const cm_conf *c = job->conf;
    *p = (cm_plan){ 0 };
    if (!cut_batch(c, p, err)) return false;
    if (job->lora && !cm_model_lora_fits(job->model, job->lora, err))
        return cm_conf_locate(c, err);
    bool chooses = !c->data.micro_rows && c->train.max_gb > 0;
    return (!chooses || choose_rows(job, p, err)) && plan_rows(job, p, err) && fits(job, p, err);
}

/* ---- for people -------------------------------------------------------------------- */

double cm_gemm_probe(cm_compute how, double seconds) {
    enum { N = 512 };
    cm_arena a;
    cm_err err;
    if (!cm_arena_open(&a, "gemm probe", 3 * N * N * sizeof(cm_real), &err)) return 0;
    cm_real *x = cm_arena_zalloc(&a, N * N * sizeof *x);
    cm_real *y = cm_arena_zalloc(&a, N * N * sizeof *y);
    cm_real *z = cm_arena_zalloc(&a, N * N * sizeof *z);
    cm_mat X = cm_mat_of(x, N, false), Y = cm_mat_of(y, N, false);
    cm_product(how, N, N, N, 1, X, Y, 0, z, N); /* warm up */
    double start = cm_now(), best = 0, last = start;
    do {
        cm_product(how, N, N, N, 1, X, Y, 0, z, N);
        double now = cm_now(), rate = 2e-9 * N * N * N / (now - last);
        if (rate > best) best = rate;
        last = now;
    } while (last - start < seconds);
    cm_arena_close(&a);
    return best;
}

static double free_disk(const char *dir) {
    char *path = cm_strf("%s", dir);
    struct statvfs v;
    /* The folder may not exist yet: ask for its nearest existing parent. */
    while (statvfs(path, &v)) {
        char *slash = path;
        for (char *s = path; *s; s++)
            if (*s == '/') slash = s;
        if (slash == path) {
            free(path);
            return statvfs(".", &v) ? 0 : (double)v.f_bavail * (double)v.f_frsize;
        }
        *slash = 0;
    }
    free(path);
    return (double)v.f_bavail * (double)v.f_frsize;
}

void cm__warn_disk(const cm_plan *p, const char *dir) {
    double free = free_disk(dir);
    char a[32], b[32];
    if (free < (double)p->ckpt)
        cm_log(CM_LOG_WARN, "%s: a checkpoint takes %s and the file system has %s free: it will "
               "not be saved", dir, cm_human_bytes((double)p->ckpt, a, sizeof a),
               cm_human_bytes(free, b, sizeof b));
}

static void line_bytes(FILE *out, const char *what, size_t n, const char *note) {
    char h[32];
    fprintf(out, "  %-18s %15zu bytes  %10s  %s\n", what, n,
            cm_human_bytes((double)n, h, sizeof h), note);
}

/* Seconds of the whole run, validations and panels aside: whole steps reach about half of
 * what the matrix product alone does. */
static double expected_seconds(const cm_plan *p, double probe) {
    return probe > 0 ? (p->flops + p->ahead_flops) / (0.5 * probe * 1e9) : 0;
}

static void print_time(const cm_conf *c, const cm_plan *p, FILE *out) {
    double rate = cm_gemm_probe((cm_compute)c->train.compute, 0.5), s = expected_seconds(p, rate);
    fprintf(out, "time\n  %-18s %15.1f GFLOP/s (%s)\n", "gemm probe", rate,
            cm_kern_describe());
    fprintf(out, "  %-18s %12.0f s  (%.1f h, at half of the probe's rate)\n", "expected", s,
            s / 3600);
}

/* Bytes of checkpoints that may stand on the disk at once. */
static double all_ckpts(const cm_job *job, const cm_plan *p) {
    const cm_ckpt_conf *k = &job->conf->ckpt;
    return (double)p->ckpt * (double)(k->keep_last + 1 + k->best);
}

static double epochs(const cm_job *job, const cm_plan *p) {
    double rows = (double)p->steps * (double)p->batch_rows;
    return job->train->rows ? rows / (double)job->train->rows : 0;
}

void cm_plan_print(const cm_job *job, const cm_plan *p, const char *ckpt_dir, FILE *out) {
    char a[32], b[32];
    fprintf(out, "model\n  %-18s %15lld  %s\n", "parameters", (long long)p->params,
            cm_human_count((double)p->params, a, sizeof a));
    fprintf(out, "  %-18s %15lld  %s used by a token\n", "active", (long long)p->active,
            cm_human_count((double)p->active, a, sizeof a));
    if (p->trained != p->params)
        fprintf(out, "  %-18s %15lld  %s in adapters, the rest is frozen\n", "trained",
                (long long)p->trained, cm_human_count((double)p->trained, a, sizeof a));
    fprintf(out, "memory\n");
    line_bytes(out, "weights", p->weights, "");
    line_bytes(out, "gradients", p->grads, "");
    line_bytes(out, "optimizer", p->moments, "");
    line_bytes(out, "batches", p->batches, "rows, statistics");
    line_bytes(out, "step", p->step, "activations, gradients, scratch of a micro-batch");
    line_bytes(out, "tape", p->meta, "");
    if (job->conf->train.recompute == CM_RECOMPUTE_AUTO)
        fprintf(out, "  %-18s %15d  of %lld blocks\n", "recomputed", again(p),
                (long long)job->model->n_layers);
    if (p->beside) line_bytes(out, "panel", p->beside, "at validations");
    if (p->ahead) line_bytes(out, "reference", p->ahead, "before all that, and gone by then");
    line_bytes(out, "total", cm_plan_bytes(p), "");
    fprintf(out, "work\n  %-18s %15lld  %lld rows of %lld, %lld at a time\n", "batch tokens",
            (long long)job->conf->data.batch_tokens, (long long)p->batch_rows,
            (long long)job->conf->data.seq_len, (long long)p->micro_rows);
    fprintf(out, "  %-18s %15lld\n  %-18s %15lld  %.2f epochs\n", "steps",
            (long long)p->steps, "tokens", (long long)p->tokens,
            epochs(job, p));
    fprintf(out, "  %-18s %15.4g FLOP  (formula; %.4g summed over the ops)\n", "compute",
            p->flops, p->step_flops * (double)p->steps);
    if (p->ahead_flops > 0)
        fprintf(out, "  %-18s %15.4g FLOP  before training\n", "reference", p->ahead_flops);
    double disk = free_disk(ckpt_dir), all = all_ckpts(job, p);
    fprintf(out, "disk\n  %-18s %15llu bytes  %10s each\n", "checkpoint",
            (unsigned long long)p->ckpt, cm_human_bytes((double)p->ckpt, a, sizeof a));
    fprintf(out, "  %-18s %15s, up to %s of checkpoints%s\n", "free",
            cm_human_bytes(disk, a, sizeof a), cm_human_bytes(all, b, sizeof b),
            disk < all ? "  WARNING: not enough" : "");
    print_time(job->conf, p, out);
}

void cm_plan_json(const cm_job *job, const cm_plan *p, const char *ckpt_dir, cm_buf *out) {
    double probe = cm_gemm_probe((cm_compute)job->conf->train.compute, 0.5);
    cm_json_open(out, NULL, '{');
    cm_json_i64(out, "params", p->params);
    cm_json_i64(out, "params_active", p->active);
    cm_json_i64(out, "params_trained", p->trained);
    cm_json_u64(out, "weights_bytes", p->weights);
    cm_json_u64(out, "grads_bytes", p->grads);
    cm_json_u64(out, "optimizer_bytes", p->moments);
    cm_json_u64(out, "batches_bytes", p->batches);
    cm_json_u64(out, "step_bytes", p->step);
    cm_json_u64(out, "tape_bytes", p->meta);
    cm_json_u64(out, "panel_bytes", p->beside);
    cm_json_u64(out, "reference_bytes", p->ahead);
    cm_json_u64(out, "total_bytes", cm_plan_bytes(p));
    cm_json_i64(out, "batch_rows", p->batch_rows);
    cm_json_i64(out, "micro_rows", p->micro_rows);
    cm_json_i64(out, "recomputed_blocks",
                job->conf->train.recompute == CM_RECOMPUTE_BLOCK ? job->model->n_layers
                                                                 : again(p));
    cm_json_i64(out, "steps", p->steps);
    cm_json_i64(out, "tokens", p->tokens);
    cm_json_f64(out, "epochs", epochs(job, p));
    cm_json_f64(out, "flops", p->flops);
    cm_json_f64(out, "reference_flops", p->ahead_flops);
    cm_json_u64(out, "checkpoint_bytes", p->ckpt);
    cm_json_f64(out, "checkpoints_bytes_most", all_ckpts(job, p));
    cm_json_f64(out, "disk_free_bytes", free_disk(ckpt_dir));
    cm_json_f64(out, "gemm_gflops", probe);
    cm_json_f64(out, "expected_seconds", expected_seconds(p, probe));
    cm_json_close(out, '{');
}
