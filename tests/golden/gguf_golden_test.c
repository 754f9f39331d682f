/* gguf_golden_test.c -- GGUF files of an independent program give its logits.
 *
 * tests/golden/gguf/README.md says what the files are.  The bound is 1e-4 of the logits'
 * RMS at every position; float rounding alone is about 1e-5. */
#include "model/model.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { T = 48, V = 320 };

static int read_tokens(const char *dir, int32_t *out) {
    char *path = cm_strf("%s/tokens.txt", dir), *text;
    size_t n;
    cm_err err;
    int count = 0;
    bool ok = cm_read_file(path, 4096, &text, &n, &err);
    CHECKF(ok, "%s", err.msg);
    for (char *p = ok ? text : NULL; p && *p && count < T; p += *p == ',')
        out[count++] = (int32_t)strtol(p, &p, 10);
    if (ok) free(text);
    free(path);
    return count;
}

/* Largest |difference| / RMS of any position, in pieces of `step` tokens. */
static double worst_of(const cm_model *m, const float *ref, const int32_t *token,
                       int step) {
    cm_session s;
    cm_err err;
    static cm_real logits[T * V];
    bool ok = cm_session_open(&s, m, T, &err);
    for (int i = 0; ok && i < T; i += step)
        ok = cm_session_feed(&s, token + i, step, logits + i * V, NULL, &err);
    CHECKF(ok, "%s", err.msg);
    double worst = 0;
    for (int i = 0; i < T; i++) {
        double square = 0, most = 0;
        for (int v = 0; v < V; v++) {
            double r = (double)ref[i * V + v], d = (double)logits[i * V + v] - r;
            square += r * r;
            most = fmax(most, isnan(d) ? INFINITY : fabs(d));
        }
        worst = fmax(worst, most / sqrt(square / V));
    }
    cm_session_close(&s);
    return worst;
}

static void check_file(const char *dir, const char *name) {
    char *gguf = cm_strf("%s/%s.f32.gguf", dir, name);
    char *refs = cm_strf("%s/%s.ref", dir, name), *ref = NULL;
    int32_t token[T];
    cm_loaded l;
    cm_err err;
    size_t n = 0;
    bool ok = cm_load(&l, gguf, false, &err) &&
              cm_read_file(refs, 1 << 20, &ref, &n, &err);
    CHECKF(ok, "%s", err.msg);
    CHECK(read_tokens(dir, token) == T && (!ok || n == T * V * sizeof(float)));
    if (ok) {
        double all = worst_of(&l.model, (const float *)(void *)ref, token, T);
        double one = worst_of(&l.model, (const float *)(void *)ref, token, 1);
        printf("  %s: %.1e of the RMS whole, %.1e token by token\n", name, all, one);
        CHECKF(all < 1e-4 && one < 1e-4, "%s: %g, %g", name, all, one);
        cm_loaded_close(&l);
    }
    free(ref);
    free(gguf);
    free(refs);
}

TEST(moe) { check_file("tests/golden/gguf", "moe"); }
TEST(dense) { check_file("tests/golden/gguf", "dense"); }
