/* infer_bench.c -- inference from a GGUF file as it lies: start, prefill, decode, memory; beside
 * llama.cpp on the same file, in turns.
 *
 *   build/bench/infer_bench make configs/chimera-700m.yaml q4_k_m FILE.gguf [tokenizer.model]
 *   build/bench/infer_bench run FILE.gguf [prompt=512] [steps=64] [rounds=5] [weights=float]
 *       [kv=f32] [peer='node bench/infer_peer.mjs'] [json=1] [key=NAME] [busy=1] [threads=2]
 * `make` writes random weights; llama.cpp through node wants a file with a tokenizer, any of at
 * most so many pieces.  `run` prints the median of the rounds; ratios to the peer, which is asked
 * by lines on its stdin, and shares of the memory's bandwidth are formed within a round.  The
 * bandwidth is the larger of the rates at which one thread and all read (cm_read_probe); the bytes
 * of a token are the weights that it uses, the states and what keys and values there are. */
#include "bench/bench.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void usage(void) {
    fprintf(stderr, "usage: infer_bench make CONFIG TYPE FILE [TOKENIZER]\n"
                    "       infer_bench run FILE [key=value ...]\n");
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
    bench_must(cm_conf_check(&conf, &err) && cm_model_resolve(&conf.model, &err), &err);
    bench_start(CM_NUMERICS_STRICT);
    size_t n = (size_t)cm_model_count(&conf.model, false);
    bench_must(cm_arena_open(&weights, "weights", n * sizeof(cm_real) + (16 << 20), &err), &err);
    cm_model_build(&m, &conf.model, &weights, false);
    cm_params_init(&m.params, 1);
    cm_spm *spm = tokenizer ? cm_spm_open(tokenizer, &err) : NULL;
    bench_must(spm || !tokenizer, &err);
    cm_export x = { .model = &m, .spm = spm, .name = conf.top.name, .mix = mix_named(type) };
    bench_must(cm_export_gguf(&x, path, &err), &err);
    if (spm) cm_spm_close(spm);
    cm_model_end(&m);
    cm_arena_close(&weights);
}

/* ---- run ---------------------------------------------------------------------------------- */

enum { MOST = 64 }; /* rounds */

/* What is measured in a round: seconds, of the peer too, and bytes a second. */
typedef struct series {
    double prefill[MOST], decode[MOST], peer_prefill[MOST], peer_decode[MOST], read[MOST];
} series;

typedef struct bench_run {
    int prompt, steps, rounds;
    const char *peer, *kv, *key;
    bool floats;
    cm_loaded l;
    cm_session s;
    int32_t *text;
    cm_real *logits;
    FILE *ask, *answer; /* the peer's stdin and stdout */
    series t;
    long most_kb;       /* resident, before memory is measured */
} bench_run;

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

static cm_dtype kv_type(const bench_run *b) {
    static const char *const names[] = {
#define X(id, word) #word,
        CM_KV_CHOICES(X)
#undef X
    };
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (!strcmp(b->kv, names[i])) return cm_kv_choice(i, &b->l.model);
    usage();
    return CM_F32_T;
}

static void open_model(bench_run *b, const char *path) {
    cm_err err;
    bench_start(CM_NUMERICS_STRICT);
    double start = bench_now();
    unsigned how = CM_LOAD_UNNAMED | (b->floats ? 0 : CM_LOAD_BLOCKS);
    bench_must(cm_load(&b->l, path, how, &err), &err);
    start = bench_now() - start;
    bench_say("%-24s %.3f\n", "load, s", start);
    bench_put(start, "infer/%s/load_s", b->key);
    bench_must(cm_session_open_as(&b->s, &b->l.model, b->prompt + b->steps, kv_type(b), &err),
               &err);
    int64_t V = b->l.model.conf.vocab_size;
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    b->text = malloc((size_t)(b->prompt + 1) * sizeof *b->text);
    b->logits = malloc((size_t)V * sizeof *b->logits);
    CM_ASSERT(b->text && b->logits, "out of memory");
    for (int i = 0; i < b->prompt; i++)
        b->text[i] = (int32_t)cm_rng_below(r, (uint64_t)i, (uint64_t)V);
}

/* Bytes that a token reads, at the middle of the steps. */
static double token_bytes(const bench_run *b) {
    const cm_model *m = &b->l.model;
    const cm_model_conf *c = &m->conf;
    double n = (double)cm_snapshot_bytes(c) + (double)cm_state_token_bytes(c, b->s.st.kv) *
                                                  (b->prompt + 0.5 * b->steps);
    for (int i = 0; i < m->params.n; i++) {
        const cm_tensor *w = &m->params.p[i]->var.v;
        double bytes = (double)cm_tensor_bytes(w);
        if (m->params.p[i] == m->embed && m->head != m->embed) bytes = 0; /* a row */
        n += w->nd == 3 ? bytes * (double)c->top_k / (double)c->n_experts : bytes;
    }
    return n;
}

static void own_round(bench_run *b, int round) {
    cm_err err;
    double start = bench_now();
    cm_session_reset(&b->s);
    bench_must(cm_session_feed(&b->s, b->text, b->prompt, NULL, b->logits, &err), &err);
    b->t.prefill[round] = bench_now() - start;
    start = bench_now();
    for (int i = 0; i < b->steps; i++) {
        int32_t id = (int32_t)cm_argmax(b->logits, (int)b->l.model.conf.vocab_size);
        bench_must(cm_session_feed(&b->s, &id, 1, NULL, b->logits, &err), &err);
    }
    b->t.decode[round] = bench_now() - start;
    if (!round) b->most_kb = status_kb("VmHWM:");
    b->t.read[round] = cm_read_probe(0.3);
}

/* The peer's next line; false: an empty one, which ends an answer. */
static bool peer_line(bench_run *b, char *text, int n) {
    if (!fgets(text, n, b->answer)) {
        fprintf(stderr, "infer_bench: the peer ended\n");
        exit(CM_EXIT_FAIL);
    }
    return text[0] != '\n';
}

static void start_peer(bench_run *b, const char *path) {
    int to[2], from[2];
    CM_ASSERT(!pipe(to) && !pipe(from), "no pipes");
    if (!fork()) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[1]);
        close(from[0]);
        unsetenv("GOMP_SPINCOUNT"); /* ours; the peer waits as it would by itself */
        char *cmd = cm_strf("exec %s '%s' %d %d %d", b->peer, path, b->prompt, b->steps,
                            cm_kern_threads());
        execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    b->ask = fdopen(to[1], "w");
    b->answer = fdopen(from[0], "r");
    char text[1024];
    while (peer_line(b, text, sizeof text)) {} /* until it has loaded */
}

static void peer_round(bench_run *b, int round) {
    char text[1024];
    for (int32_t k = 0; k < b->prompt; k++) fprintf(b->ask, "%s%d", k ? "," : "", b->text[k]);
    fprintf(b->ask, "\n");
    fflush(b->ask);
    while (peer_line(b, text, sizeof text)) {
        const char *at = strstr(text, bench.busy ? "\"cpu_s\":" : "\"wall_s\":");
        double s = at ? strtod(strchr(at, ':') + 1, NULL) : 0;
        if (strstr(text, "\"prefill\"")) b->t.peer_prefill[round] = s;
        if (strstr(text, "\"decode\"")) b->t.peer_decode[round] = s;
    }
}

/* The median of the quotients scale a / b, and the least. */
static double quotient(const double *a, const double *b, double scale, int n, double *least) {
    double q[MOST];
    for (int i = 0; i < n; i++) q[i] = scale * (a ? a[i] : 1) / b[i];
    double middle = bench_median(q, n);
    *least = q[0];
    return middle;
}

/* key: of the JSON line, or NULL. */
static void tell(const bench_run *r, const char *label, const char *key, const double *a,
                 const double *b, double scale) {
    double least, middle = quotient(a, b, scale, r->rounds, &least);
    bool peers = b == r->t.peer_prefill || b == r->t.peer_decode;
    bench_say("%-24s %.4g, least %.4g\n", label, middle, least);
    if (key) bench_put(middle, "%sinfer/%s/%s", peers ? "peer/llama.cpp/" : "", r->key, key);
}

static void report(const bench_run *b) {
    const series *t = &b->t;
    double bytes = token_bytes(b), inverse[MOST];
    for (int i = 0; i < b->rounds; i++) inverse[i] = 1 / t->read[i];
    tell(b, "prompt, tokens/s", "prefill_tok_per_s", NULL, t->prefill, b->prompt);
    tell(b, "decoding, tokens/s", "decode_tok_per_s", NULL, t->decode, b->steps);
    tell(b, "decoding, GB/s", "decode_gb_per_s", NULL, t->decode, 1e-9 * bytes * b->steps);
    tell(b, "memory, GB/s", NULL, NULL, inverse, 1e-9);
    tell(b, "share of the bandwidth", bench.busy ? NULL : "decode_share", inverse, t->decode,
         bytes * b->steps);
    if (b->peer) {
        tell(b, "peer's prompt, tokens/s", "prefill_tok_per_s", NULL, t->peer_prefill, b->prompt);
        tell(b, "peer's decoding", "decode_tok_per_s", NULL, t->peer_decode, b->steps);
        tell(b, "prompt, of the peer's", NULL, t->peer_prefill, t->prefill, 1);
        tell(b, "decoding, of the peer's", NULL, t->peer_decode, t->decode, 1);
    }
    bench_say("%-24s %ld; %s\n", "most memory, kB", b->most_kb, cm_kern_describe());
    bench_put((double)b->most_kb * 1024, "infer/%s/rss_bytes", b->key);
}

static void run(bench_run *b, const char *path) {
    open_model(b, path);
    if (b->peer) start_peer(b, path);
    for (int i = 0; i < b->rounds; i++) {
        own_round(b, i);
        if (b->peer) peer_round(b, i);
        bench_say("round %-2d        prompt %.3f s, a token %.2f ms, memory %.1f GB/s", i + 1,
                  b->t.prefill[i], 1e3 * b->t.decode[i] / b->steps, 1e-9 * b->t.read[i]);
        if (b->peer)
            bench_say("; the peer's %.3f s, %.2f ms", b->t.peer_prefill[i],
                      1e3 * b->t.peer_decode[i] / b->steps);
        bench_say("\n");
    }
    report(b);
    if (b->peer) fclose(b->ask);
    cm_session_close(&b->s);
    cm_loaded_close(&b->l);
    free(b->text);
    free(b->logits);
}

static void option(bench_run *b, char *word) {
    if (bench_option(word) || bench_int(word, "prompt", &b->prompt, 1, BENCH_MOST) ||
        bench_int(word, "steps", &b->steps, 1, BENCH_MOST) ||
        bench_int(word, "rounds", &b->rounds, 1, MOST))
        return;
    if (!strncmp(word, "peer=", 5)) b->peer = word + 5;
    else if (!strncmp(word, "kv=", 3)) b->kv = word + 3;
    else if (!strncmp(word, "key=", 4)) b->key = word + 4;
    else if (!strcmp(word, "weights=float")) b->floats = true;
    else usage();
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    if ((argc == 5 || argc == 6) && !strcmp(argv[1], "make")) {
        make(argv[2], argv[3], argv[4], argc == 6 ? argv[5] : NULL);
        return 0;
    }
    if (argc < 3 || strcmp(argv[1], "run") != 0) usage();
    bench_run b = { .prompt = 512, .steps = 64, .rounds = 5, .kv = "auto", .key = "model" };
    for (int i = 3; i < argc; i++) option(&b, argv[i]);
    run(&b, argv[2]);
    return 0;
}
