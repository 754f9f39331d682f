/* quant_bench.c -- quantization: the encoders, and whole files, beside llama.cpp's where it is.
 *
 *   build/bench/quant_bench [types=q4_K,q6_K] [imp=1] [rounds=5] [peer=FOLDER] [json=1]
 *   build/bench/quant_bench file=FROM.gguf [type=q4_k_m] [threads=2] [rounds=3] [peer=FOLDER]
 *       [out=FILE.gguf] [tool=build/bin/quantize]
 * First form: nanoseconds a weight of one thread's processor time, ours and ggml's in turns (best
 * of the rounds), and the ratio of (weighted) root mean square errors, on Gaussian rows.  Second:
 * `quantize` with all its checks and llama_model_quantize on the same file in turns, wall and
 * processor seconds.
 * peer: the folder with libggml-base.so and libllama.so, as node-llama-cpp 3.22.1 brings
 * (build/interop/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64 after `make interop`). */
#include "bench/bench.h"
#include "model/model.h"
#include "quant/quant.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COLS = 1536, ROWS = 96, MAX_ROUNDS = 99 };

typedef struct options {
    const char *types, *file, *type, *peer, *out, *tool;
    int rounds;
    bool imp;
} options;

static void usage(void) {
    fprintf(stderr, "quant_bench: [types=LIST] [imp=1] [rounds=N] [peer=FOLDER] | file=FILE "
                    "[type=MIX] [threads=N] [out=FILE] [tool=FILE]; any: json=1\n");
    exit(CM_EXIT_USAGE);
}

/* A word key=value, where it is one of ours. */
static bool take(options *o, char *word) {
    const struct { const char *key; const char **to; } texts[] = {
        { "types=", &o->types }, { "file=", &o->file }, { "type=", &o->type },
        { "peer=", &o->peer }, { "out=", &o->out }, { "tool=", &o->tool } };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t n = strlen(texts[i].key);
        if (strncmp(word, texts[i].key, n)) continue;
        *texts[i].to = word + n;
        return true;
    }
    if (!strcmp(word, "imp=1")) return o->imp = true;
    return bench_int(word, "rounds", &o->rounds, 1, MAX_ROUNDS);
}

static void *library(const char *folder, const char *name) {
    char *path = cm_strf("%s/%s", folder, name);
    void *lib = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!lib) {
        fprintf(stderr, "quant_bench: %s\n", dlerror());
        exit(CM_EXIT_USAGE);
    }
    free(path);
    return lib;
}

/* ---- encoders ------------------------------------------------------------------------------ */

typedef size_t (*chunk_fn)(int, const float *, void *, int64_t, int64_t, int64_t, const float *);

static float x[ROWS * COLS], y[ROWS * COLS], imp[COLS];
static unsigned char raw[ROWS * COLS * 2];

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Nanoseconds a weight; NULL: ours. */
static double encode(chunk_fn theirs, cm_dtype dt, const float *w) {
    size_t row = (size_t)(COLS / cm_dtypes[dt].block * cm_dtypes[dt].bytes);
    double t = thread_seconds();
    if (theirs) theirs(cm_dtypes[dt].gguf, x, raw, 0, ROWS, COLS, w);
    for (int r = 0; r < ROWS && !theirs; r++)
        cm_quantize_for(dt, x + r * COLS, w, raw + (size_t)r * row, COLS);
    return (thread_seconds() - t) * 1e9 / (ROWS * COLS);
}

static double error(cm_dtype dt, const float *w) {
    double e = 0;
    cm_to_f32(dt, raw, y, ROWS * COLS);
    for (int i = 0; i < ROWS * COLS; i++) {
        double d = (double)x[i] - y[i];
        e += (w ? (double)w[i % COLS] : 1) * d * d;
    }
    return sqrt(e);
}

static void encoder(const options *o, chunk_fn theirs, cm_dtype dt) {
    const float *w = o->imp ? imp : NULL;
    double best[2] = { INFINITY, INFINITY }, e[2] = { NAN, NAN };
    for (int r = 0; r < o->rounds; r++)
        for (int who = 0; who < 1 + (theirs != NULL); who++) {
            best[who] = fmin(best[who], encode(who ? theirs : NULL, dt, w));
            e[who] = error(dt, w);
        }
    const char *name = cm_dtypes[dt].name;
    bench_put(best[0], "quant/%s/%s/ours/ns", name, w ? "importances" : "plain");
    bench_say("%-7s ours %6.2f ns a weight", name, best[0]);
    if (theirs) {
        bench_put(best[1], "quant/%s/%s/ggml/ns", name, w ? "importances" : "plain");
        bench_say("   ggml %6.2f   as fast %5.2f x   error %.4f x", best[1], best[1] / best[0],
                  e[0] / e[1]);
    }
    bench_say("\n");
}

static bool listed(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; at; at = strchr(at, ','), at += at != NULL)
        if (!strncasecmp(at, name, n) && (!at[n] || at[n] == ',')) return true;
    return !list;
}

static void encoders(const options *o) {
    static const cm_dtype all[] = { CM_Q8_0_T, CM_Q6_K_T, CM_Q5_K_T, CM_Q5_1_T, CM_Q5_0_T,
                                    CM_Q4_K_T, CM_Q4_1_T, CM_Q4_0_T, CM_IQ4_NL_T, CM_IQ4_XS_T,
                                    CM_Q3_K_T, CM_Q2_K_T };
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    chunk_fn theirs = NULL;
    if (o->peer)
        theirs = (chunk_fn)(uintptr_t)dlsym(library(o->peer, "libggml-base.so"),
                                            "ggml_quantize_chunk");
    for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)(0.02 * cm_rng_normal(r, (uint64_t)i));
    for (int i = 0; i < COLS; i++)
        imp[i] = (float)exp(1.5 * cm_rng_normal(r, 1u << 30 | (uint64_t)i));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (listed(o->types, cm_dtypes[all[i]].name)) encoder(o, theirs, all[i]);
}

/* ---- whole files --------------------------------------------------------------------------- */

/* llama_model_quantize_params as far as it is set here, and room for the rest of it. */
typedef struct peer_params {
    int32_t threads, ftype;
    unsigned char rest[504];
} peer_params;

static int peer_file(const options *o, int threads, uint32_t ftype) {
    void *ggml = library(o->peer, "libggml.v0.5.0.so");
    void *llama = library(o->peer, "libllama.v0.5.0.so");
    void (*backends)(const char *) =
        (void (*)(const char *))(uintptr_t)dlsym(ggml, "ggml_backend_load_all_from_path");
    peer_params (*defaults)(void) =
        (peer_params (*)(void))(uintptr_t)dlsym(llama, "llama_model_quantize_default_params");
    uint32_t (*quantize)(const char *, const char *, const void *) =
        (uint32_t (*)(const char *, const char *, const void *))(uintptr_t)dlsym(
            llama, "llama_model_quantize");
    if (!backends || !defaults || !quantize) return CM_EXIT_USAGE;
    backends(o->peer);
    peer_params p = defaults();
    p.threads = threads;
    p.ftype = (int32_t)ftype;
    return quantize(o->file, o->out, &p) ? CM_EXIT_FAIL : 0;
}

static int our_file(const options *o, int threads) {
    char *n = cm_strf("%d", threads);
    execl(o->tool, "quantize", "--quiet", "--threads", n, "--model", o->file, "--type", o->type,
          "--out", o->out, "quantize.max_kl=100", (char *)NULL);
    perror(o->tool);
    return CM_EXIT_FAIL;
}

typedef struct cost {
    double wall, cpu;
} cost;

static double seconds(struct timeval t) { return (double)t.tv_sec + 1e-6 * (double)t.tv_usec; }

/* In a process of its own, its output thrown away. */
static cost one_file(const options *o, bool peer, int threads, uint32_t ftype) {
    struct rusage u;
    int status = -1;
    double start = cm_now();
    pid_t pid = fork();
    if (!pid) {
        if (!freopen("/dev/null", "w", stdout) || (peer && !freopen("/dev/null", "w", stderr)))
            _exit(CM_EXIT_FAIL);
        _exit(peer ? peer_file(o, threads, ftype) : our_file(o, threads));
    }
    if (pid < 0 || wait4(pid, &status, 0, &u) != pid || status) {
        fprintf(stderr, "quant_bench: %s ended with %d\n", peer ? "llama.cpp" : o->tool, status);
        exit(CM_EXIT_FAIL);
    }
    return (cost){ cm_now() - start, seconds(u.ru_utime) + seconds(u.ru_stime) };
}

static uint32_t file_type(const char *name) {
    for (int i = CM_TYPE_F32; i <= CM_TYPE_IQ4_XS; i++)
        if (!strcasecmp(cm_mix_name(i), name)) return cm_mix_file_type(i);
    usage();
    return 0;
}

static void files(const options *o) {
    double wall[2][MAX_ROUNDS], cpu[2][MAX_ROUNDS], faster[MAX_ROUNDS], cheaper[MAX_ROUNDS];
    int threads = bench.threads ? bench.threads : 2;
    uint32_t ftype = file_type(o->type);
    for (int r = 0; r < o->rounds; r++) {
        for (int who = 0; who < 1 + (o->peer != NULL); who++) {
            cost c = one_file(o, who, threads, ftype);
            wall[who][r] = c.wall, cpu[who][r] = c.cpu;
            bench_say("%s, %d threads: %.2f s, processor %.2f s\n", who ? "llama.cpp" : "ours",
                      threads, c.wall, c.cpu);
        }
        if (o->peer) faster[r] = wall[1][r] / wall[0][r], cheaper[r] = cpu[1][r] / cpu[0][r];
    }
    bench_put(bench_median(wall[0], o->rounds), "quant/file/%s/ours/s", o->type);
    bench_put(bench_median(cpu[0], o->rounds), "quant/file/%s/ours/cpu_s", o->type);
    if (!o->peer) return;
    double times = bench_median(faster, o->rounds);
    bench_put(bench_median(wall[1], o->rounds), "quant/file/%s/llama/s", o->type);
    bench_put(bench_median(cpu[1], o->rounds), "quant/file/%s/llama/cpu_s", o->type);
    bench_put(times, "ratio/quant/file/%s/x", o->type);
    bench_say("as fast: %.2f x; by processor time %.2f x (medians of %d rounds)\n", times,
              bench_median(cheaper, o->rounds), o->rounds);
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    options o = { .type = "q4_k_m", .out = "build/quant_bench.gguf",
                  .tool = "build/bin/quantize", .rounds = 5 };
    for (int i = 1; i < argc; i++)
        if (!take(&o, argv[i]) && !bench_option(argv[i])) usage();
    if (!o.file) {
        encoders(&o);
        return 0;
    }
    files(&o);
    remove(o.out);
    return 0;
}
