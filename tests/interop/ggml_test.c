/* ggml_test.c -- block types against ggml's own library, called through dlopen.
 *
 * GGML is the path of libggml-base.so (tests/interop/ggml.sh finds the one of
 * node-llama-cpp); without it every test is skipped.  `ggml_test golden FILE` writes the
 * blocks and floats that tests/golden/blocks_test.c reads where there is no library. */
#include "io/io.h"
#include "quant/quant.h"
#include "tests/t.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef void (*to_float_fn)(const void *src, float *dst, int64_t n);

/* The block types and the names of ggml's functions. */
static const struct {
    cm_dtype dt;
    const char *name;
} types[] = {
    {CM_Q8_0_T, "q8_0"}, {CM_Q4_0_T, "q4_0"}, {CM_Q4_1_T, "q4_1"}, {CM_Q5_0_T, "q5_0"},
    {CM_Q5_1_T, "q5_1"}, {CM_Q2_K_T, "q2_K"}, {CM_Q3_K_T, "q3_K"}, {CM_Q4_K_T, "q4_K"},
    {CM_Q5_K_T, "q5_K"}, {CM_Q6_K_T, "q6_K"}, {CM_IQ4_NL_T, "iq4_nl"},
    {CM_IQ4_XS_T, "iq4_xs"},
};
enum { N_TYPES = sizeof types / sizeof *types };

/* A function of the library; NULL after t_skip. */
static void *ggml(const char *fmt, const char *type) {
    static void *lib;
    const char *path = getenv("GGML");
    char *name = cm_strf(fmt, type);
    if (!lib && path) lib = dlopen(path, RTLD_NOW);
    void *f = lib ? dlsym(lib, name) : NULL;
    if (!path) t_skip("no libggml-base.so (make interop fetches one)");
    else CHECKF(f, "%s: %s", name, dlerror());
    free(name);
    return f;
}

/* Where halves lie in a block: any bits but those of infinities and NaN. */
static void tame(cm_dtype dt, uint8_t *b) {
    static const struct { cm_dtype dt; int at[2]; } halves[] = {
        {CM_Q4_1_T, {0, 2}}, {CM_Q5_1_T, {0, 2}}, {CM_Q4_K_T, {0, 2}}, {CM_Q5_K_T, {0, 2}},
        {CM_Q2_K_T, {80, 82}}, {CM_Q3_K_T, {108, 108}}, {CM_Q6_K_T, {208, 208}}};
    int at[2] = {0, 0};
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++)
        if (halves[i].dt == dt) memcpy(at, halves[i].at, sizeof at);
    for (int k = 0; k < 2; k++)
        if ((b[at[k] + 1] >> 2 & 31) == 31) b[at[k] + 1] ^= 4;
}

/* n blocks of random bits. */
static uint8_t *random_blocks(cm_dtype dt, int64_t n, uint64_t seed) {
    size_t size = (size_t)cm_dtypes[dt].bytes, all = size * (size_t)n;
    uint8_t *b = malloc(all);
    CM_ASSERT(b, "out of memory");
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, (uint64_t)dt);
    for (size_t i = 0; i < all; i++) b[i] = (uint8_t)cm_rng_below(r, i, 256);
    for (int64_t i = 0; i < n; i++) tame(dt, b + (size_t)i * size);
    return b;
}

TEST(decoding_is_ggmls_to_the_bit) {
    enum { BLOCKS = 20000 };
    for (int t = 0; t < N_TYPES; t++) {
        to_float_fn theirs = (to_float_fn)(uintptr_t)ggml("dequantize_row_%s", types[t].name);
        if (!theirs) return;
        int64_t n = (int64_t)BLOCKS * cm_dtypes[types[t].dt].block, bad = 0;
        uint8_t *b = random_blocks(types[t].dt, BLOCKS, 1);
        float *x = malloc((size_t)n * sizeof *x), *y = malloc((size_t)n * sizeof *y);
        CM_ASSERT(x && y, "out of memory");
        cm_to_f32(types[t].dt, b, x, n);
        theirs(b, y, n);
        for (int64_t i = 0; i < n; i++) bad += memcmp(x + i, y + i, sizeof *x) != 0;
        CHECKF(!bad, "%s: %lld of %lld values differ", types[t].name, (long long)bad,
               (long long)n);
        free(b);
        free(x);
        free(y);
    }
}

/* ---- golden vectors ----------------------------------------------------------------- */

static bool write_golden(const char *path) {
    enum { BLOCKS = 3 };
    cm_st_entry e[2 * N_TYPES];
    for (int t = 0; t < N_TYPES; t++) {
        cm_dtype dt = types[t].dt;
        int64_t n = BLOCKS * cm_dtypes[dt].block;
        to_float_fn f = (to_float_fn)(uintptr_t)ggml("dequantize_row_%s", types[t].name);
        float *y = malloc((size_t)n * sizeof *y);
        CM_ASSERT(f && y, "no %s", types[t].name);
        uint8_t *b = random_blocks(dt, BLOCKS, 2);
        f(b, y, n);
        e[2 * t] = (cm_st_entry){cm_strf("%s.blocks", cm_dtypes[dt].name),
                                 {CM_U8_T, 2, {BLOCKS, cm_dtypes[dt].bytes}, b}};
        e[2 * t + 1] = (cm_st_entry){cm_strf("%s.values", cm_dtypes[dt].name),
                                     {CM_F32_T, 1, {n}, y}};
    }
    cm_err err;
    bool ok = cm_st_write(path, e, 2 * N_TYPES, NULL, 0, NULL, NULL, &err);
    if (!ok) fprintf(stderr, "%s\n", err.msg);
    for (int i = 0; i < 2 * N_TYPES; i++) {
        free((void *)(uintptr_t)e[i].name);
        free(e[i].t.data);
    }
    return ok;
}

/* Before main, so that t.c's own runs the tests in every other case. */
__attribute__((constructor)) static void maybe_golden(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "golden")) exit(!write_golden(argv[2]));
}
