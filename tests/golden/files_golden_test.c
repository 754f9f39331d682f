/* files_golden_test.c -- models that other programs wrote give those programs' logits.
 *
 * gguf/: an independent GGUF writer and float64 forward pass (gguf/README.md).  hf/:
 * made, saved and run by transformers (hf/gen.py, hf/MANIFEST), one of them in shards.
 * The bound is 1e-4 of the logits' RMS at every position; float rounding is about
 * 1e-5. */
#include "model/model.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_T = 64 };

static int read_tokens(const char *path, int32_t *out) {
    char *text;
    size_t n;
    cm_err err;
    int count = 0;
    bool ok = cm_read_file(path, 4096, &text, &n, &err);
    CHECKF(ok, "%s", err.msg);
    for (char *p = ok ? text : NULL; p && *p >= '0' && count < MAX_T; p += *p == ',')
        out[count++] = (int32_t)strtol(p, &p, 10);
    if (ok) free(text);
    return count;
}

/* Logits of all positions, read in pieces of `step` tokens. */
static bool run(const cm_model *m, const int32_t *token, int T, int step,
                cm_real *logits) {
    cm_session s;
    cm_err err;
    bool ok = cm_session_open(&s, m, T, &err);
    for (int i = 0; ok && i < T; i += step)
        ok = cm_session_feed(&s, token + i, step, logits + i * m->conf.vocab_size, NULL,
                             &err);
    CHECKF(ok, "%s", err.msg);
    cm_session_close(&s);
    return ok;
}

/* Largest |difference| / RMS of any position. */
static double worst_of(const cm_real *ours, const float *ref, int T, int64_t V) {
    double worst = 0;
    for (int i = 0; i < T; i++) {
        double square = 0, most = 0;
        for (int64_t v = i * V; v < (i + 1) * V; v++) {
            double r = (double)ref[v], d = (double)ours[v] - r;
            square += r * r;
            most = fmax(most, isnan(d) ? INFINITY : fabs(d));
        }
        worst = fmax(worst, most / sqrt(square / (double)V));
    }
    return worst;
}

static void check_model(const char *model, const char *logits, const char *tokens,
                        const char *source) {
    int32_t token[MAX_T];
    int T = read_tokens(tokens, token);
    char *ref = NULL;
    cm_loaded l = {0};
    cm_err err;
    size_t n = 0;
    bool ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) &&
              cm_load(&l, model, false, &err) &&
              cm_read_file(logits, 1 << 20, &ref, &n, &err);
    CHECKF(ok, "%s", err.msg);
    int64_t V = ok ? l.model.conf.vocab_size : 0;
    CHECKF(!ok || n == (size_t)(T * V) * sizeof(float), "%s: %zu bytes for %d positions",
           logits, n, T);
    CHECK(!ok || !strcmp(l.source, source));
    cm_real *ours = malloc((size_t)(T * V) * sizeof *ours + 1);
    for (int step = T; ok && step >= 1; step -= T - 1) {
        run(&l.model, token, T, step, ours);
        double worst = worst_of(ours, (const float *)(void *)ref, T, V);
        printf("  %s, %d at a time: %.1e of the RMS\n", model, step, worst);
        CHECKF(worst < 1e-4, "%s: %g", model, worst);
    }
    free(ours);
    free(ref);
    cm_loaded_close(&l);
}

#define GGUF "tests/golden/gguf/"
#define HF "tests/golden/hf/"

TEST(gguf_moe) {
    check_model(GGUF "moe.f32.gguf", GGUF "moe.ref", GGUF "tokens.txt", "gguf");
}
TEST(gguf_dense) {
    check_model(GGUF "dense.f32.gguf", GGUF "dense.ref", GGUF "tokens.txt", "gguf");
}
TEST(transformers_moe_in_shards) {
    check_model(HF "moe", HF "moe/logits.f32", HF "tokens.txt", "huggingface");
}
TEST(transformers_dense) {
    check_model(HF "dense", HF "dense/logits.f32", HF "tokens.txt", "huggingface");
}

TEST(the_id_is_the_files_hash_unless_nobody_asks) {
    static const char path[] = "tests/golden/gguf/dense.f32.gguf";
    cm_loaded l;
    cm_err err;
    char hex[65];
    CHECKF(cm_sha_file(path, hex, &err) && cm_load(&l, path, 0, &err), "%s", err.msg);
    CHECK(!strcmp(l.id, hex));
    cm_loaded_close(&l);
    CHECKF(cm_load(&l, path, CM_LOAD_UNNAMED, &err), "%s", err.msg);
    CHECK(!l.id[0]);
    cm_loaded_close(&l);
}
