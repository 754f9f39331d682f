/* step_bench.c -- whole training steps of a preset on random tokens: tokens/s and profile.
 *
 *   build/bench/step_bench configs/bench8m.yaml [rows=8] [T=512] [steps=6] [json=1]
 *                          [busy=1] [threads=N] [key=value ...]
 * One step = forward, backward and AdamW of rows x T tokens; the first warms up, the median
 * of the others counts.  AdamW keeps fp32 moments and no memory is planned: in a file,
 * sections other than model and train, train.max_gb and train.recompute=auto (taken as none)
 * are ignored; words that would set them are refused. */
#include "bench/bench.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    cm_conf conf;
    cm_model m;
    cm_arena perm, step, meta, moments;
    int rows, T, steps;
    int32_t *token, *target;
    cm_real *m1, *m2;
    cm_prof prof;
} job;

static void forward_backward(job *b, cm_arena *arena, bool dry) {
    cm_tape t;
    cm_arena_reset(arena, 0);
    cm_arena_reset(&b->meta, 0);
    cm_tape_begin(&t, arena, &b->meta, true, dry);
    t.compute = (cm_compute)b->conf.train.compute;
    t.prof = dry ? NULL : &b->prof;
    cm_batch batch = { .B = b->rows, .T = b->T, .token = b->token, .target = b->target };
    cm_real norm = 1 / (cm_real)(b->rows * b->T);
    bool recompute = b->conf.train.recompute == CM_RECOMPUTE_BLOCK;
    cm_var *loss = cm_model_loss(&b->m, &t, &batch, norm, recompute, NULL);
    cm_tape_backward(&t, loss, 1);
}

static void update(job *b, int step) {
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

/* A word for the configuration; one that no step here would heed is refused. */
static void set(cm_conf *c, const char *word) {
    if (!strncmp(word, "train.", 6) && strncmp(word, "train.compute=", 14) != 0 &&
        strcmp(word, "train.recompute=none") != 0 && strcmp(word, "train.recompute=block") != 0)
        bench_refuse("'%s': of train, steps here heed compute and recompute=none|block", word);
    cm_conf_set(c, word);
}

static void setup(job *b, int argc, char **argv) {
    cm_err err;
    b->rows = 8;
    b->T = 512;
    b->steps = 6;
    cm_conf_open(&b->conf, "model train");
    for (int i = 1; i < argc; i++) {
        if (bench_option(argv[i])) continue;
        if (bench_int(argv[i], "rows", &b->rows, 1, 1024)) continue; /* rows T: an int */
        if (bench_int(argv[i], "T", &b->T, 1, BENCH_MOST)) continue;
        if (bench_int(argv[i], "steps", &b->steps, 1, BENCH_MOST)) continue;
        if (strchr(argv[i], '='))
            set(&b->conf, argv[i]);
        else
            cm_conf_file(&b->conf, argv[i]);
    }
    bench_must(cm_conf_check(&b->conf, &err), &err);
    bench_need_model(b->conf.model.vocab_size);
    if (b->conf.top.threads) bench.threads = (int)b->conf.top.threads;
    bench_start(b->conf.top.numerics ? CM_NUMERICS_FAST : CM_NUMERICS_STRICT);
    for (int how = 0; how < 2; how++)
        b->prof.flop_rate[how] = 1e9 * cm_gemm_probe((cm_compute)how, 0.2);
    b->prof.byte_rate = cm_read_probe(0.2);
    bench_must(cm_model_resolve(&b->conf.model, &err), &err);
    size_t n = (size_t)cm_model_count(&b->conf.model, false), meta = (size_t)256 << 20;
    bench_must(cm_arena_open(&b->perm, "weights", 2 * sizeof(cm_real) * n + (16 << 20), &err),
               &err);
    bench_must(cm_arena_open(&b->moments, "moments", 2 * sizeof(cm_real) * n + 4096, &err), &err);
    bench_must(cm_arena_open(&b->meta, "meta", meta, &err), &err);
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
    bench_must(cm_arena_open_counting(&plan, "plan", &err), &err);
    forward_backward(b, &plan, true);
    bench_must(cm_arena_open(&b->step, "step", plan.peak, &err), &err);
    cm_arena_close(&plan);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void table(const job *b) {
    int steps = b->steps > 1 ? b->steps - 1 : 1;
    double s = 0;
    for (int i = 0; i < b->prof.n; i++)
        s += b->prof.row[i].pass[0].seconds + b->prof.row[i].pass[1].seconds;
    bench_say("%-12s %6s %9s %9s %6s %15s\n", "op", "calls", "fwd ms", "bwd ms", "share",
              "of their floors");
    for (int i = 0; i < b->prof.n; i++) {
        const cm_prof_row *r = &b->prof.row[i];
        const cm_prof_pass *f = &r->pass[0], *g = &r->pass[1];
        bench_say("%-12s %6lld %9.2f %9.2f %5.1f%% %6.0f%% %6.0f%%\n", r->op->name,
                  (long long)r->calls / steps, f->seconds / steps * 1e3,
                  g->seconds / steps * 1e3, 100 * (f->seconds + g->seconds) / s,
                  100 * f->floor / f->seconds,
                  g->seconds > 0 ? 100 * g->floor / g->seconds : 0);
    }
}

/* train/NAME or train/NAME-T2048: a length other than 512 is part of the name. */
static void report(const job *b, double seconds) {
    double tokens = (double)b->rows * b->T;
    double flops = cm_model_flops(&b->conf.model, b->T) * tokens;
    char key[128], length[32] = "";
    if (b->T != 512) snprintf(length, sizeof length, "-T%d", b->T);
    snprintf(key, sizeof key, "train/%s%s/%s", b->conf.top.name, length,
             b->conf.train.compute == CM_CONF_BF16 ? "bf16" : "fp32");
    bench_say("%s: %s\n", b->conf.top.name, cm_kern_describe());
    bench_say("parameters %.2fM active %.2fM  step memory %.1f MB\n",
              (double)cm_model_count(&b->conf.model, false) / 1e6,
              (double)cm_model_count(&b->conf.model, true) / 1e6,
              (double)b->step.peak / 1e6);
    bench_say("step %.1f ms  %.0f tokens/s  %.1f GFLOP/s\n", seconds * 1e3,
              tokens / seconds, flops / seconds / 1e9);
    table(b);
    bench_put(tokens / seconds, "%s/tok_per_s", key);
    bench_put(flops / seconds / 1e9, "%s/gflops", key);
    bench_put((double)b->step.peak, "%s/step_bytes", key);
    bench_put((double)(b->step.peak + b->perm.peak + b->moments.peak), "%s/total_bytes", key);
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    job b = { 0 };
    setup(&b, argc, argv);
    double *s = malloc((size_t)b.steps * sizeof *s);
    CM_ASSERT(s && b.steps > 0, "no steps");
    for (int i = 0; i < b.steps; i++) {
        /* The first step also touches its memory for the first time. */
        if (i == 1) b.prof.n = 0;
        double t = bench_now();
        forward_backward(&b, &b.step, false);
        update(&b, i + 1);
        s[i] = bench_now() - t;
    }
    int first = b.steps > 1;
    qsort(s + first, (size_t)(b.steps - first), sizeof *s, ascending);
    report(&b, s[first + (b.steps - first) / 2]);
    free(s);
    return 0;
}
