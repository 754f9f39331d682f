/* length_bench.c -- time per token by sequence length, beside what the flop formula says.
 *
 * Steps (forward and backward on random tokens, without the optimizer) of the same number
 * of tokens, cut into rows of T.  For each length: the time over that at the first length,
 * the same of cm_model_flops, and their quotient: 1 when long rows run as well as short
 * ones.  The median over rounds, in which the lengths take turns.
 * Usage: length_bench CONFIG [T=512,2048,16384] [tokens=16384] [rounds=3] [forward=1]
 *                     [json=1] [busy=1] [threads=N] [key=value ...] */
#include "bench/bench.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTHS = 16, MAX_ROUNDS = 32 };

typedef struct job {
    cm_conf conf;
    cm_model m;
    cm_arena perm, step, meta;
    int length[MAX_LENGTHS], n, tokens, rounds;
    bool forward;
    int32_t *token, *target;
} job;

static void step(job *b, cm_arena *arena, int i) {
    bool dry = arena->counting;
    int T = b->length[i], rows = b->tokens / T;
    cm_tape t;
    cm_arena_reset(arena, 0);
    cm_arena_reset(&b->meta, 0);
    cm_tape_begin(&t, arena, &b->meta, !b->forward, dry);
    t.compute = (cm_compute)b->conf.train.compute;
    cm_batch batch = { .B = rows, .T = T, .token = b->token, .target = b->target };
    bool recompute = b->conf.train.recompute == CM_RECOMPUTE_BLOCK;
    cm_real norm = 1 / (cm_real)(rows * T);
    cm_var *loss = cm_model_loss(&b->m, &t, &batch, norm, recompute, NULL);
    if (!b->forward) cm_tape_backward(&t, loss, 1);
}

static void options(job *b, int argc, char **argv) {
    b->tokens = 16384;
    b->rounds = 3;
    cm_conf_open(&b->conf, NULL);
    int forward = 0;
    for (int i = 1; i < argc; i++) {
        if (bench_option(argv[i]) ||
            bench_list(argv[i], "T", b->length, &b->n, MAX_LENGTHS) ||
            bench_int(argv[i], "tokens", &b->tokens, 1, BENCH_MOST) ||
            bench_int(argv[i], "rounds", &b->rounds, 1, MAX_ROUNDS) ||
            bench_int(argv[i], "forward", &forward, 0, 1))
            continue;
        if (strchr(argv[i], '=')) cm_conf_set(&b->conf, argv[i]);
        else cm_conf_file(&b->conf, argv[i]);
    }
    if (!b->n) b->n = 3, memcpy(b->length, (int[]){ 512, 2048, 16384 }, 3 * sizeof(int));
    b->forward = forward;
    for (int i = 0; i < b->n; i++)
        if (b->tokens % b->length[i])
            bench_refuse("T=%d does not divide tokens=%d", b->length[i], b->tokens);
}

/* Opens everything; bytes[i]: the peak of a step at length i. */
static void setup(job *b, double *bytes) {
    cm_err err;
    bench_must(cm_conf_check(&b->conf, &err), &err);
    bench_need_model(b->conf.model.vocab_size);
    cm_numerics how = b->conf.top.numerics ? CM_NUMERICS_FAST : CM_NUMERICS_STRICT;
    bench_start(how);
    bench_must(cm_model_resolve(&b->conf.model, &err), &err);
    size_t n = (size_t)cm_model_count(&b->conf.model, false);
    bench_must(cm_arena_open(&b->perm, "weights", 2 * sizeof(cm_real) * n + (16 << 20), &err),
         &err);
    bench_must(cm_arena_open(&b->meta, "meta", (size_t)256 << 20, &err), &err);
    cm_model_build(&b->m, &b->conf.model, &b->perm, !b->forward);
    cm_params_init(&b->m.params, 1);
    b->token = malloc(sizeof *b->token * 2 * (size_t)b->tokens);
    CM_ASSERT(b->token, "out of memory");
    b->target = b->token + b->tokens;
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    for (int i = 0; i < b->tokens; i++) {
        uint64_t at = (uint64_t)i, vocab = (uint64_t)b->conf.model.vocab_size;
        b->token[i] = b->target[i] = (int32_t)cm_rng_below(r, at, vocab);
    }
    size_t most = 0;
    for (int i = 0; i < b->n; i++) {
        cm_arena plan;
        bench_must(cm_arena_open_counting(&plan, "plan", &err), &err);
        step(b, &plan, i);
        bytes[i] = (double)plan.peak;
        most = plan.peak > most ? plan.peak : most;
        cm_arena_close(&plan);
    }
    bench_must(cm_arena_open(&b->step, "step", most, &err), &err);
}

static void report(const job *b, double seconds[][MAX_ROUNDS], const double *bytes) {
    double ratio[MAX_LENGTHS][MAX_ROUNDS];
    for (int i = 0; i < b->n; i++)
        for (int r = 0; r < b->rounds; r++) ratio[i][r] = seconds[i][r] / seconds[0][r];
    const cm_model_conf *c = &b->conf.model;
    const char *what = b->forward ? "forward" : "step";
    const char *how = b->conf.train.compute == CM_COMPUTE_BF16 ? "/bf16" : "";
    for (int i = 0; i < b->n; i++) {
        char key[160];
        snprintf(key, sizeof key, "length/%s%s/%s/T%d", b->conf.top.name, how, what,
                 b->length[i]);
        double x = bench_median(ratio[i], b->rounds), each = bench_median(seconds[i], b->rounds);
        double said = cm_model_flops(c, b->length[i]) / cm_model_flops(c, b->length[0]);
        bench_put(x, "%s/time_ratio", key);
        bench_put(said, "%s/predicted_ratio", key);
        bench_put(x / said, "%s/quotient", key);
        bench_put(b->tokens / each, "%s/tok_per_s", key);
        bench_put(bytes[i], "%s/arena_bytes", key);
        bench_say("%-36s %8.0f tokens/s  time %.3f  predicted %.3f  quotient %.3f  arena "
                  "%.0f MB\n", key, b->tokens / each, x, said, x / said, bytes[i] / 1e6);
    }
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    static job b;
    static double seconds[MAX_LENGTHS][MAX_ROUNDS], bytes[MAX_LENGTHS];
    options(&b, argc, argv);
    setup(&b, bytes);
    step(&b, &b.step, b.n - 1); /* memory touched for the first time */
    for (int r = 0; r < b.rounds; r++)
        for (int i = 0; i < b.n; i++) {
            double t = bench_now();
            step(&b, &b.step, i);
            seconds[i][r] = bench_now() - t;
        }
    report(&b, seconds, bytes);
    return 0;
}
