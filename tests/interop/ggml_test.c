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

/* ---- encoders ----------------------------------------------------------------------- */

enum { COLS = 1024, ROWS = 48 };

/* size_t ggml_quantize_chunk(type, src, dst, start, rows, columns, importances) */
typedef size_t (*chunk_fn)(int, const float *, void *, int64_t, int64_t, int64_t,
                           const float *);

static double laplace(cm_rng r, uint64_t i) {
    double u = cm_rng_uniform(r, i) - 0.5;
    return (u < 0 ? 1 : -1) * log(1 - 2 * fabs(u) + 1e-12);
}

/* Kinds of rows: Gaussian, Laplace, one outlier in 200, a mean beside a little noise, rows of
 * zeros between others, columns of different size. */
static const char *const kinds[] = {"gauss", "laplace", "outlier", "offset", "zeros", "columns"};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static void make_tensor(int kind, double scale, float *x) {
    cm_rng r = cm_rng_make(7, CM_RNG_TEST, (uint64_t)kind);
    for (int64_t i = 0; i < ROWS * COLS; i++) {
        double v = cm_rng_normal(r, (uint64_t)i);
        if (kind == 1) v = laplace(r, (uint64_t)i);
        if (kind == 2 && i % 200 == 17) v *= 20;
        if (kind == 3) v = 3 + 0.5 * v;
        if (kind == 4 && i / COLS % 3 == 1) v = 0;
        if (kind == 5) v *= exp(2 * cm_rng_normal(r, (uint64_t)(i % COLS)));
        x[i] = (float)(v * scale);
    }
}

/* Weighted root mean square error; imp NULL: of plain differences. */
static double rmse(const float *x, const float *y, const float *imp) {
    double e = 0, sum = 0;
    for (int64_t i = 0; i < ROWS * COLS; i++) {
        double w = imp ? (double)imp[i % COLS] : 1, d = (double)x[i] - y[i];
        e += w * d * d;
        sum += w;
    }
    return sqrt(e / sum);
}

/* The same with |x| + rms of its run of 32 as weight. */
static double rmse_by_size(const float *x, const float *y) {
    double e = 0, sum = 0;
    for (int64_t i = 0; i < ROWS * COLS; i += 32) {
        double rms = 0;
        for (int j = 0; j < 32; j++) rms += (double)x[i + j] * x[i + j] / 32;
        for (int j = 0; j < 32; j++) {
            double w = fabs((double)x[i + j]) + sqrt(rms), d = (double)x[i + j] - y[i + j];
            e += w * d * d;
            sum += w;
        }
    }
    return sqrt(e / (sum + 1e-300));
}

typedef struct bench {
    float x[ROWS * COLS], ours[ROWS * COLS], theirs[ROWS * COLS], imp[COLS];
    unsigned char a[ROWS * COLS * 2], b[ROWS * COLS * 2];
} bench;

/* Encode by both, decode; false: no library. */
static bool both(bench *t, cm_dtype dt, const float *imp) {
    chunk_fn f = (chunk_fn)(uintptr_t)ggml("ggml_quantize_chunk%s", "");
    if (!f) return false;
    size_t row = (size_t)(COLS / cm_dtypes[dt].block * cm_dtypes[dt].bytes);
    for (int r = 0; r < ROWS; r++)
        cm_quantize_for(dt, t->x + r * COLS, imp, t->a + (size_t)r * row, COLS);
    f(cm_dtypes[dt].gguf, t->x, t->b, 0, ROWS, COLS, imp);
    cm_to_f32(dt, t->a, t->ours, ROWS * COLS);
    cm_to_f32(dt, t->b, t->theirs, ROWS * COLS);
    return true;
}

static void compare_one(bench *t, cm_dtype dt, const char *kind, double scale,
                        const float *imp) {
    if (!both(t, dt, imp)) return;
    const char *name = cm_dtypes[dt].name;
    bool exact = dt == CM_Q8_0_T || (dt == CM_Q4_0_T && !imp);
    size_t bytes = (size_t)(ROWS * COLS / cm_dtypes[dt].block * cm_dtypes[dt].bytes);
    if (exact) {
        CHECKF(!memcmp(t->a, t->b, bytes), "%s %s %g: not ggml's bytes", name, kind, scale);
        return;
    }
    double a = rmse(t->x, t->ours, imp), b = rmse(t->x, t->theirs, imp);
    if (getenv("SHOW"))
        printf("%-7s %-8s %-6g %s rmse %.4g / %.4g = %.4f", name, kind, scale,
               imp ? "imp" : "   ", a, b, a / b);
    CHECKF(a <= b, "%s %s %g%s: error %.6g, ggml's %.6g", name, kind, scale,
           imp ? " with importances" : "", a, b);
    if (!imp) {
        a = rmse_by_size(t->x, t->ours), b = rmse_by_size(t->x, t->theirs);
        if (getenv("SHOW")) printf("  by size %.4f", a / b);
        CHECKF(a <= b, "%s %s %g: error by size %.6g, ggml's %.6g", name, kind, scale, a, b);
    }
    if (getenv("SHOW")) puts("");
}

static bench *make_bench(void) {
    bench *t = malloc(sizeof *t);
    CM_ASSERT(t, "out of memory");
    cm_rng r = cm_rng_make(9, CM_RNG_TEST, 0);
    for (int i = 0; i < COLS; i++) t->imp[i] = (float)exp(1.5 * cm_rng_normal(r, (uint64_t)i));
    return t;
}

TEST(errors_are_at_most_ggmls) {
    if (!ggml("ggml_quantize_chunk%s", "")) return;
    bench *t = make_bench();
    for (int k = 0; k < N_KINDS; k++) {
        make_tensor(k, 0.02, t->x);
        for (int i = 0; i < N_TYPES; i++) {
            compare_one(t, types[i].dt, kinds[k], 0.02, NULL);
            compare_one(t, types[i].dt, kinds[k], 0.02, t->imp);
        }
    }
    free(t);
}

TEST(errors_are_at_most_ggmls_at_odd_scales) {
    static const double scales[] = {1e-6, 1e-5, 1.0 / 3, 77, 9000};
    if (!ggml("ggml_quantize_chunk%s", "")) return;
    bench *t = make_bench();
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        make_tensor(0, scales[s], t->x);
        for (int i = 0; i < N_TYPES; i++) compare_one(t, types[i].dt, "gauss", scales[s], NULL);
    }
    free(t);
}

/* The matrices of a trained model (WEIGHTS: its model.safetensors). */
TEST(errors_are_at_most_ggmls_on_trained_weights) {
    const char *path = getenv("WEIGHTS");
    cm_st st;
    cm_err err;
    if (!path) {
        t_skip("no trained model (make demo leaves one in runs/demo)");
        return;
    }
    bool ok = cm_st_open(&st, path, &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok || !ggml("ggml_quantize_chunk%s", "")) return;
    bench *t = make_bench();
    int seen = 0;
    for (int k = 0; k < st.n; k++) {
        const cm_tensor *v = &st.entry[k].t;
        if (cm_tensor_count(v) < ROWS * COLS || v->dtype != CM_F32_T) continue;
        memcpy(t->x, v->data, sizeof t->x);
        for (int i = 0; i < N_TYPES; i++) {
            compare_one(t, types[i].dt, st.entry[k].name, 0, NULL);
            compare_one(t, types[i].dt, st.entry[k].name, 0, t->imp);
        }
        seen++;
    }
    CHECKF(seen > 5, "%d matrices", seen);
    cm_st_close(&st);
    free(t);
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
