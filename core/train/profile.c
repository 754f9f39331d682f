/* profile.c -- where the time of a run's steps goes: ops, optimizer and the rest, beside
 * what their work takes at the machine's rates.
 *
 * The first step of the process, which touches its memory for the first time, is left out
 * where others follow. */
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

static const char *const part_name[CM__PARTS] = { "clear gradients", "gradient norm",
                                                  "optimizer" };

struct cm__profile {
    cm_prof ops;
    double part[CM__PARTS]; /* seconds */
    double seconds;         /* of whole steps */
    int64_t steps, tokens;
    bool warm; /* the first step is behind and forgotten */
};

void cm__profile_open(cm__trainer *t) {
    if (!t->job->profile) return;
    t->profile = calloc(1, sizeof *t->profile);
    CM_ASSERT(t->profile, "out of memory for the profile");
    for (int how = 0; how < 2; how++)
        t->profile->ops.flop_rate[how] = cm_gemm_probe((cm_compute)how, 0.3) * 1e9;
    t->profile->ops.byte_rate = cm_read_probe(0.3);
    t->prof = &t->profile->ops;
}

void cm__profile_close(cm__trainer *t) {
    free(t->profile);
    t->profile = NULL;
    t->prof = NULL;
}

double cm__profile_now(const cm__trainer *t) { return t->profile ? cm_now() : 0; }

void cm__profile_part(cm__trainer *t, cm__part part, double since) {
    if (t->profile) t->profile->part[part] += cm_now() - since;
}

void cm__profile_begin(cm__trainer *t) {
    struct cm__profile *p = t->profile;
    if (!p || p->warm || p->steps != 1) return;
    cm_prof rates = p->ops;
    memset(rates.row, 0, sizeof rates.row);
    rates.n = 0;
    *p = (struct cm__profile){ .ops = rates, .warm = true };
}

void cm__profile_step(cm__trainer *t, double seconds, int64_t tokens) {
    if (!t->profile) return;
    t->profile->seconds += seconds;
    t->profile->tokens += tokens;
    t->profile->steps++;
}

/* ---- the account ---------------------------------------------------------------------- */

/* Bytes that a part moves in one step: gradients written; read; weights, gradients and
 * moments read, weights and moments written. */
static double part_bytes(const cm__trainer *t, cm__part part) {
    double g = (double)t->plan.grads, m = (double)t->plan.moments;
    return part == CM__PART_UPDATE ? 3 * g + 2 * m : g;
}

static double part_floor(const cm__trainer *t, cm__part part) {
    const struct cm__profile *p = t->profile;
    double bytes = part_bytes(t, part) * (double)p->steps;
    return p->ops.byte_rate > 0 ? bytes / p->ops.byte_rate : 0;
}

static double share(double floor, double seconds) { return seconds > 0 ? floor / seconds : 0; }

/* Seconds of the steps that no op and no part accounts for. */
static double rest(const struct cm__profile *p) {
    double s = p->seconds;
    for (int i = 0; i < p->ops.n; i++)
        s -= p->ops.row[i].pass[0].seconds + p->ops.row[i].pass[1].seconds;
    for (int k = 0; k < CM__PARTS; k++) s -= p->part[k];
    return s;
}

static void pass_json(cm_buf *b, const char *key, const cm_prof_pass *p) {
    cm_json_open(b, key, '{');
    cm_json_f64(b, "seconds", p->seconds);
    cm_json_f64(b, "flops", p->work.flops);
    cm_json_f64(b, "bytes", p->work.bytes);
    cm_json_f64(b, "share_of_floor", share(p->floor, p->seconds));
    cm_json_close(b, '{');
}

static void write_json(const cm__trainer *t, cm_buf *b) {
    const struct cm__profile *p = t->profile;
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "kernels", cm_kern_describe());
    cm_json_i64(b, "steps", p->steps);
    cm_json_i64(b, "tokens", p->tokens);
    cm_json_f64(b, "seconds", p->seconds);
    cm_json_f64(b, "gemm_gflops", p->ops.flop_rate[CM_COMPUTE_FP32] * 1e-9);
    cm_json_f64(b, "gemm_bf16_gflops", p->ops.flop_rate[CM_COMPUTE_BF16] * 1e-9);
    cm_json_f64(b, "read_gb_per_s", p->ops.byte_rate * 1e-9);
    cm_json_open(b, "ops", '{');
    for (int i = 0; i < p->ops.n; i++) {
        const cm_prof_row *r = &p->ops.row[i];
        cm_json_open(b, r->op->name, '{');
        cm_json_i64(b, "calls", r->calls);
        pass_json(b, "forward", &r->pass[0]);
        pass_json(b, "backward", &r->pass[1]);
        cm_json_close(b, '{');
    }
    cm_json_close(b, '{');
    cm_json_open(b, "parts", '{');
    for (int k = 0; k < CM__PARTS; k++) {
        cm_prof_pass pass = { p->part[k], part_floor(t, (cm__part)k),
                              { .bytes = part_bytes(t, (cm__part)k) * (double)p->steps } };
        pass_json(b, part_name[k], &pass);
    }
    cm_json_close(b, '{');
    cm_json_f64(b, "rest_seconds", rest(p));
    cm_json_close(b, '{');
}

static bool save(const cm__trainer *t, cm_err *err) {
    cm_buf b = { 0 };
    char *path = cm_run_path(t->job->run, "profile.json");
    write_json(t, &b);
    cm_buf_addf(&b, "\n");
    bool ok = cm_write_file(path, b.s, b.n, err);
    cm_buf_free(&b);
    free(path);
    return ok;
}

/* ---- for people ----------------------------------------------------------------------- */

static void line(FILE *out, const struct cm__profile *p, const char *name, int64_t calls,
                 const cm_prof_pass *f, const cm_prof_pass *b) {
    double n = (double)p->steps, both = f->seconds + b->seconds;
    double flops = f->work.flops + b->work.flops, bytes = f->work.bytes + b->work.bytes;
    fprintf(out, "%-16s %6.0f %9.2f %9.2f %5.1f%% %9.3f %9.3f", name, (double)calls / n,
            1e3 * f->seconds / n, 1e3 * b->seconds / n, 100 * both / p->seconds,
            flops / n * 1e-9, bytes / n * 1e-9);
    fprintf(out, " %5.0f%%", 100 * share(f->floor, f->seconds));
    if (b->seconds > 0) fprintf(out, " %5.0f%%", 100 * share(b->floor, b->seconds));
    fprintf(out, "\n");
}

static void print(const cm__trainer *t, FILE *out) {
    const struct cm__profile *p = t->profile;
    const cm_prof_pass none = { 0 };
    fprintf(out, "profile of %lld steps, a step: %.1f ms, %.0f tokens/s\n"
            "floors: products at %.1f GFLOP/s (bf16 %.1f), memory at %.1f GB/s (%s)\n",
            (long long)p->steps, 1e3 * p->seconds / (double)p->steps,
            (double)p->tokens / p->seconds, p->ops.flop_rate[CM_COMPUTE_FP32] * 1e-9,
            p->ops.flop_rate[CM_COMPUTE_BF16] * 1e-9, p->ops.byte_rate * 1e-9, cm_kern_describe());
    fprintf(out, "%-16s %6s %9s %9s %6s %9s %9s %13s\n", "op", "calls", "fwd ms", "bwd ms",
            "share", "GFLOP", "GB", "of its floor");
    for (int i = 0; i < p->ops.n; i++) {
        const cm_prof_row *r = &p->ops.row[i];
        line(out, p, r->op->name, r->calls, &r->pass[0], &r->pass[1]);
    }
    for (int k = 0; k < CM__PARTS; k++) {
        cm_prof_pass pass = { p->part[k], part_floor(t, (cm__part)k),
                              { .bytes = part_bytes(t, (cm__part)k) * (double)p->steps } };
        line(out, p, part_name[k], p->steps, &pass, &none);
    }
    double s = rest(p);
    fprintf(out, "%-16s %6s %9.2f %9s %5.1f%%\n", "rest", "", 1e3 * s / (double)p->steps, "",
            100 * s / p->seconds);
}

bool cm__profile_end(const cm__trainer *t, cm_err *err) {
    if (!t->profile || !t->profile->steps) return true;
    if (t->job->run && !save(t, err)) return false;
    if (t->job->profile_to) print(t, t->job->profile_to);
    return true;
}
