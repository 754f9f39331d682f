/* step_bench.c -- whole training steps of a preset on random tokens: tokens/s and profile.
 *
 *   build/bench/step_bench configs/bench8m.yaml [rows=8] [T=512] [steps=6] [key=value ...]
 * One step = forward, backward and AdamW of rows x T tokens; the best step counts. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    cm_conf conf;
    cm_model m;
    cm_arena perm, step, meta, moments;
    int rows, T, steps;
    int32_t *token, *target;
    cm_real *m1, *m2;
    cm_prof prof;
} bench;

static void must(bool ok, const cm_err *err) {
    if (ok) return;
    fprintf(stderr, "step_bench: error: %s\n", err->msg);
    exit(err->code);
}

static void forward_backward(bench *b, cm_arena *arena, bool dry) {
    cm_tape t;
    cm_arena_reset(arena, 0);
    cm_arena_reset(&b->meta, 0);
    cm_tape_begin(&t, arena, &b->meta, true, dry);
    t.prof = dry ? NULL : &b->prof;
    cm_batch batch = { .B = b->rows, .T = b->T, .token = b->token, .target = b->target };
    cm_real norm = 1 / (cm_real)(b->rows * b->T);
    bool recompute = b->conf.train.recompute == CM_RECOMPUTE_BLOCK;
    cm_var *loss = cm_model_loss(&b->m, &t, &batch, norm, recompute, NULL);
    cm_tape_backward(&t, loss, 1);
}

static void update(bench *b, int step) {
    cm_params *ps = &b->m.params;
    cm_real *m = b->m1, *v = b->m2;
    for (int i = 0; i < ps->n; i++) {
        cm_var *p = &ps->p[i]->var;
        int64_t n = cm_tensor_count(&p->v);
        cm_adamw h = { .lr = 1e-3f, .b1 = 0.9f, .b2 = 0.95f, .eps = 1e-8f, .wd = 0.1f,
                       .bc1 = step < 2 ? 0.1f : 0.19f, .bc2 = step < 2 ? 0.05f : 0.0975f,
                       .gscale = 1 };
        const int64_t chunk = 1 << 16;
#pragma omp parallel for schedule(dynamic)
        for (int64_t k = 0; k < n; k += chunk) {
            int64_t len = n - k < chunk ? n - k : chunk;
            cm_k.adamw(len, cm_rdata(&p->v) + k, p->g + k, m + k, v + k, &h);
        }
        m += n;
        v += n;
    }
    cm_params_zero_grad(ps);
}

static void setup(bench *b, int argc, char **argv) {
    cm_err err;
    b->rows = 8;
    b->T = 512;
    b->steps = 6;
    cm_conf_open(&b->conf, NULL);
    for (int i = 1; i < argc; i++) {
        if (sscanf(argv[i], "rows=%d", &b->rows) == 1) continue;
        if (sscanf(argv[i], "T=%d", &b->T) == 1) continue;
        if (sscanf(argv[i], "steps=%d", &b->steps) == 1) continue;
        if (strchr(argv[i], '='))
            cm_conf_set(&b->conf, argv[i]);
        else
            cm_conf_file(&b->conf, argv[i]);
    }
    must(cm_conf_check(&b->conf, &err), &err);
    cm_numerics how = b->conf.top.numerics ? CM_NUMERICS_FAST : CM_NUMERICS_STRICT;
    must(cm_kern_init(how, (int)b->conf.top.threads, &err), &err);
    must(cm_model_resolve(&b->conf.model, &err), &err);
    size_t n = (size_t)cm_model_count(&b->conf.model, false), meta = (size_t)256 << 20;
    must(cm_arena_open(&b->perm, "weights", 2 * sizeof(cm_real) * n + (16 << 20), &err), &err);
    must(cm_arena_open(&b->moments, "moments", 2 * sizeof(cm_real) * n + 4096, &err), &err);
    must(cm_arena_open(&b->meta, "meta", meta, &err), &err);
    cm_model_build(&b->m, &b->conf.model, &b->perm, true);
    cm_params_init(&b->m.params, 1);
    b->m1 = cm_arena_zalloc(&b->moments, n * sizeof(cm_real));
    b->m2 = cm_arena_zalloc(&b->moments, n * sizeof(cm_real));
    int64_t R = (int64_t)b->rows * b->T;
    b->token = malloc((size_t)R * sizeof *b->token);
    b->target = malloc((size_t)R * sizeof *b->target);
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    for (int64_t i = 0; i < R; i++) {
        b->token[i] = (int32_t)cm_rng_below(r, (uint64_t)i, (uint64_t)b->conf.model.vocab_size);
        b->target[i] = b->token[i];
    }
    cm_arena plan;
    must(cm_arena_open_counting(&plan, "plan", &err), &err);
    forward_backward(b, &plan, true);
    must(cm_arena_open(&b->step, "step", plan.peak, &err), &err);
    cm_arena_close(&plan);
}

/* Seconds all threads have worked: on a shared machine steadier than the clock. */
static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void report(const bench *b, double best, double cpu) {
    int steps = b->steps > 1 ? b->steps - 1 : 1;
    double tokens = (double)b->rows * b->T, s = 0;
    double flops = cm_model_flops(&b->conf.model, b->T) * tokens;
    for (int i = 0; i < b->prof.n; i++) s += b->prof.row[i].fwd_s + b->prof.row[i].bwd_s;
    printf("%s: %s\n", b->conf.top.name, cm_kern_describe());
    printf("parameters %.2fM active %.2fM  step memory %.1f MB\n",
           (double)cm_model_count(&b->conf.model, false) / 1e6,
           (double)cm_model_count(&b->conf.model, true) / 1e6, (double)b->step.peak / 1e6);
    printf("best step %.1f ms  %.0f tokens/s  %.1f GFLOP/s  (cpu %.1f ms)\n", best * 1e3,
           tokens / best, flops / best / 1e9, cpu * 1e3);
    printf("%-12s %6s %9s %9s %6s\n", "op", "calls", "fwd ms", "bwd ms", "share");
    for (int i = 0; i < b->prof.n; i++) {
        const cm_prof_row *r = &b->prof.row[i];
        printf("%-12s %6lld %9.2f %9.2f %5.1f%%\n", r->op->name,
               (long long)r->calls / steps, r->fwd_s / steps * 1e3,
               r->bwd_s / steps * 1e3, 100 * (r->fwd_s + r->bwd_s) / s);
    }
}

int main(int argc, char **argv) {
    bench b = { 0 };
    setup(&b, argc, argv);
    double best = 1e30, best_cpu = 1e30;
    for (int i = 0; i < b.steps; i++) {
        /* The first step also touches its memory for the first time. */
        if (i == 1) b.prof.n = 0;
        double t = cm_now(), cpu = cpu_seconds();
        forward_backward(&b, &b.step, false);
        update(&b, i + 1);
        t = cm_now() - t;
        cpu = cpu_seconds() - cpu;
        best = t < best ? t : best;
        best_cpu = cpu < best_cpu ? cpu : best_cpu;
    }
    report(&b, best, best_cpu);
    return 0;
}
