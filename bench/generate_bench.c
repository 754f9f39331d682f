/* generate_bench.c -- prefill and decode of a preset with random weights: tokens/s.
 *
 *   build/bench/generate_bench configs/demo.yaml [prompt=512] [steps=256] [json=1]
 *                              [busy=1] [threads=N] [key=value ...]
 * Prefill reads a prompt at once; decode feeds one token after another, each with logits
 * and a greedy choice.  The best of five rounds counts. */
#include "bench/bench.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

static void options(cm_conf *conf, int argc, char **argv, int *prompt, int *steps) {
    cm_err err;
    cm_conf_open(conf, NULL);
    for (int i = 1; i < argc; i++) {
        if (bench_option(argv[i])) continue;
        if (bench_int(argv[i], "prompt", prompt, 1, BENCH_MOST)) continue;
        if (bench_int(argv[i], "steps", steps, 1, BENCH_MOST)) continue;
        if (strchr(argv[i], '='))
            cm_conf_set(conf, argv[i]);
        else
            cm_conf_file(conf, argv[i]);
    }
    bench_must(cm_conf_check(conf, &err), &err);
    if (!conf->model.vocab_size) conf->model.vocab_size = conf->tokenize.vocab_size;
    bench_must(cm_model_resolve(&conf->model, &err), &err);
}

static int32_t largest(const cm_real *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

static void round_trip(cm_session *s, const int32_t *text, int prompt, int steps,
                       cm_real *logits, double *prefill, double *decode) {
    cm_err err;
    int64_t V = s->m->conf.vocab_size;
    cm_session_reset(s);
    double t0 = bench_now();
    bench_must(cm_session_feed(s, text, prompt, NULL, logits, &err), &err);
    double t1 = bench_now();
    for (int i = 0; i < steps; i++) {
        int32_t id = largest(logits, V);
        bench_must(cm_session_feed(s, &id, 1, NULL, logits, &err), &err);
    }
    double t2 = bench_now();
    if (t1 - t0 < *prefill) *prefill = t1 - t0;
    if (t2 - t1 < *decode) *decode = t2 - t1;
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    cm_err err;
    cm_conf conf;
    cm_model m;
    cm_arena weights;
    cm_session s;
    int prompt = 512, steps = 256;
    options(&conf, argc, argv, &prompt, &steps);
    if (conf.top.threads) bench.threads = (int)conf.top.threads;
    bench_start(conf.top.numerics ? CM_NUMERICS_FAST : CM_NUMERICS_STRICT);
    size_t n = (size_t)cm_model_count(&conf.model, false);
    bench_must(cm_arena_open(&weights, "weights", n * sizeof(cm_real) + (16 << 20), &err), &err);
    cm_model_build(&m, &conf.model, &weights, false);
    cm_params_init(&m.params, 1);
    bench_must(cm_session_open(&s, &m, prompt + steps, &err), &err);
    int32_t *text = malloc((size_t)prompt * sizeof *text);
    cm_real *logits = malloc((size_t)conf.model.vocab_size * sizeof *logits);
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    for (int i = 0; i < prompt; i++)
        text[i] = (int32_t)cm_rng_below(r, (uint64_t)i, (uint64_t)conf.model.vocab_size);
    double prefill = 1e30, decode = 1e30;
    for (int i = 0; i < 5; i++)
        round_trip(&s, text, prompt, steps, logits, &prefill, &decode);
    bench_say("%s: %s\nprefill %d: %.0f tokens/s  decode %d: %.0f tokens/s\n",
              conf.top.name, cm_kern_describe(), prompt, prompt / prefill, steps,
              steps / decode);
    bench_put(prompt / prefill, "infer/%s/f32/prefill_tok_per_s", conf.top.name);
    bench_put(steps / decode, "infer/%s/f32/decode_tok_per_s", conf.top.name);
    free(text);
    free(logits);
    cm_session_close(&s);
    cm_model_end(&m);
    cm_arena_close(&weights);
    return 0;
}
