/* infer_bench.c -- inference from a GGUF file as it lies: start, prefill, decode, memory; beside
 * llama.cpp on the same file, in turns.
 *
 *   build/bench/infer_bench make configs/chimera-700m.yaml q4_k_m FILE.gguf [tokenizer.model]
 *   build/bench/infer_bench run FILE.gguf [prompt=512] [steps=64] [rounds=5] [threads=2]
 *       [weights=blocks|float] [peer='node bench/infer_peer.mjs']
 * `make` writes random weights; llama.cpp through node wants a file with a tokenizer, any of at
 * most so many pieces.  `run` prints a JSON line a measurement: who, what, tokens, wall and CPU
 * seconds; CPU seconds of one thread compare even on a busy machine.  The peer is asked by lines
 * on its stdin. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void must(bool ok, const cm_err *err) {
    if (ok) return;
    fprintf(stderr, "infer_bench: error: %s\n", err->msg);
    exit(err->code);
}

static void usage(void) {
    fprintf(stderr, "infer_bench: make CONFIG TYPE FILE [TOKENIZER] | run FILE [key=value ...]\n");
    exit(CM_EXIT_USAGE);
}

/* ---- make --------------------------------------------------------------------------------- */

static int mix_named(const char *name) {
    for (int i = CM_TYPE_F32; i <= CM_TYPE_IQ4_XS; i++)
        if (!strcasecmp(cm_mix_name(i), name)) return i;
    usage();
    return 0;
}

static void make(const char *config, const char *type, const char *path, const char *tokenizer) {
    cm_err err;
    cm_conf conf;
    cm_model m;
    cm_arena weights;
    cm_conf_open(&conf, NULL);
    cm_conf_file(&conf, config);
    must(cm_conf_check(&conf, &err) && cm_model_resolve(&conf.model, &err), &err);
    must(cm_kern_init(CM_NUMERICS_STRICT, 0, &err), &err);
    size_t n = (size_t)cm_model_count(&conf.model, false);
    must(cm_arena_open(&weights, "weights", n * sizeof(cm_real) + (16 << 20), &err), &err);
    cm_model_build(&m, &conf.model, &weights, false);
    cm_params_init(&m.params, 1);
    cm_spm *spm = tokenizer ? cm_spm_open(tokenizer, &err) : NULL;
    must(spm || !tokenizer, &err);
    cm_export x = { .model = &m, .spm = spm, .name = conf.top.name, .mix = mix_named(type) };
    must(cm_export_gguf(&x, path, &err), &err);
    if (spm) cm_spm_close(spm);
    cm_model_end(&m);
    cm_arena_close(&weights);
}

/* ---- run ---------------------------------------------------------------------------------- */

typedef struct bench {
    int prompt, steps, rounds, threads;
    const char *peer;
    bool floats;
    cm_loaded l;
    cm_session s;
    int32_t *text;
    cm_real *logits;
    FILE *ask, *answer; /* the peer's stdin and stdout */
} bench;

static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void line(const char *what, int tokens, double wall, double cpu) {
    printf("{\"who\": \"chimera\", \"what\": \"%s\", \"tokens\": %d, \"wall_s\": %.6f, "
           "\"cpu_s\": %.6f}\n", what, tokens, wall, cpu);
    fflush(stdout);
}

static long status_kb(const char *key) {
    FILE *f = fopen("/proc/self/status", "r");
    char text[256];
    long kb = 0;
    size_t n = strlen(key);
    while (f && fgets(text, sizeof text, f))
        if (!strncmp(text, key, n)) kb = atol(text + n);
    if (f) fclose(f);
    return kb;
}

static void open_model(bench *b, const char *path) {
    cm_err err;
    must(cm_kern_init(CM_NUMERICS_STRICT, b->threads, &err), &err);
    double wall = cm_now(), cpu = cpu_now();
    unsigned how = CM_LOAD_UNNAMED | (b->floats ? 0 : CM_LOAD_BLOCKS);
    must(cm_load(&b->l, path, how, &err), &err);
    line("load", 0, cm_now() - wall, cpu_now() - cpu);
    must(cm_session_open(&b->s, &b->l.model, b->prompt + b->steps, &err), &err);
    int64_t V = b->l.model.conf.vocab_size;
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    b->text = malloc((size_t)(b->prompt + 1) * sizeof *b->text);
    b->logits = malloc((size_t)V * sizeof *b->logits);
    CM_ASSERT(b->text && b->logits, "out of memory");
    for (int i = 0; i < b->prompt; i++)
        b->text[i] = (int32_t)cm_rng_below(r, (uint64_t)i, (uint64_t)V);
}

static void own_round(bench *b) {
    cm_err err;
    double wall = cm_now(), cpu = cpu_now();
    cm_session_reset(&b->s);
    must(cm_session_feed(&b->s, b->text, b->prompt, NULL, b->logits, &err), &err);
    line("prefill", b->prompt, cm_now() - wall, cpu_now() - cpu);
    wall = cm_now(), cpu = cpu_now();
    for (int i = 0; i < b->steps; i++) {
        int32_t id = (int32_t)cm_argmax(b->logits, (int)b->l.model.conf.vocab_size);
        must(cm_session_feed(&b->s, &id, 1, NULL, b->logits, &err), &err);
    }
    line("decode", b->steps, cm_now() - wall, cpu_now() - cpu);
}

static void start_peer(bench *b, const char *path) {
    int to[2], from[2];
    CM_ASSERT(!pipe(to) && !pipe(from), "no pipes");
    if (!fork()) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[1]);
        close(from[0]);
        char *cmd = cm_strf("exec %s '%s' %d %d %d", b->peer, path, b->prompt, b->steps,
                            b->threads);
        execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    b->ask = fdopen(to[1], "w");
    b->answer = fdopen(from[0], "r");
}

/* One request, its answer's lines passed on up to an empty one. */
static void peer_round(bench *b, const char *request) {
    char text[1024];
    fprintf(b->ask, "%s\n", request);
    fflush(b->ask);
    for (;;) {
        if (!fgets(text, sizeof text, b->answer)) {
            fprintf(stderr, "infer_bench: the peer ended\n");
            exit(CM_EXIT_FAIL);
        }
        if (text[0] == '\n') break;
        fputs(text, stdout);
    }
    fflush(stdout);
}

static void run(bench *b, const char *path) {
    open_model(b, path);
    if (b->peer) start_peer(b, path);
    for (int i = 0; i < b->rounds; i++) {
        own_round(b);
        if (!b->peer) continue;
        for (int32_t k = 0; k < b->prompt; k++)
            fprintf(b->ask, "%s%d", k ? "," : "", b->text[k]);
        peer_round(b, "");
    }
    printf("{\"who\": \"chimera\", \"what\": \"memory\", \"rss_kb\": %ld, \"peak_kb\": %ld, "
           "\"kernels\": \"%s\"}\n", status_kb("VmRSS:"), status_kb("VmHWM:"),
           cm_kern_describe());
    if (b->peer) fclose(b->ask);
    cm_session_close(&b->s);
    cm_loaded_close(&b->l);
    free(b->text);
    free(b->logits);
}

static void option(bench *b, char *word) {
    if (sscanf(word, "prompt=%d", &b->prompt) == 1 || sscanf(word, "steps=%d", &b->steps) == 1 ||
        sscanf(word, "rounds=%d", &b->rounds) == 1 || sscanf(word, "threads=%d", &b->threads) == 1)
        return;
    if (!strncmp(word, "peer=", 5)) b->peer = word + 5;
    else if (!strcmp(word, "weights=float")) b->floats = true;
    else if (strcmp(word, "weights=blocks") != 0) usage();
}

int main(int argc, char **argv) {
    if ((argc == 5 || argc == 6) && !strcmp(argv[1], "make")) {
        make(argv[2], argv[3], argv[4], argc == 6 ? argv[5] : NULL);
        return 0;
    }
    if (argc < 3 || strcmp(argv[1], "run") != 0) usage();
    bench b = { .prompt = 512, .steps = 64, .rounds = 5, .threads = 2 };
    for (int i = 3; i < argc; i++) option(&b, argv[i]);
    run(&b, argv[2]);
    return 0;
}
