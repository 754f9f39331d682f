/* quant_test.c -- encoders give llama.cpp's bytes, and errors within their bound. */
#include "io/io.h"
#include "quant/quant.h"
#include "quant/search.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

TEST(q8_0_by_hand) {
    float x[64] = {127, -127, 0.5f, 1.5f, -0.5f, -1.5f, 2.49f, -2.51f};
    unsigned char out[68];
    cm_quantize(CM_Q8_0_T, x, out, 64);
    static const signed char want[9] = {127, -127, 1, 2, -1, -2, 2, -3, 0};
    CHECK(out[0] == 0x00 && out[1] == 0x3c); /* d = 1 as a half */
    for (int i = 0; i < 9; i++)
        CHECKF((signed char)out[2 + i] == want[i], "element %d: %d, wanted %d", i,
               (signed char)out[2 + i], want[i]);
    for (int i = 34; i < 68; i++) CHECK(out[i] == 0); /* a block of zeros */
}

/* The matrices of moe.f32.gguf, in the order of llama-quantize's output, encode to the
 * bytes of llama.cpp v0.5.0's Q8_0 file (hash of its quantized tensors' data). */
TEST(q8_0_is_llama_cpps) {
    cm_gguf g;
    cm_err err;
    bool ok = cm_gguf_open(&g, "tests/golden/gguf/moe.f32.gguf", &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok) return;
    static const char *const name[] = {
        "output.weight", "token_embd.weight", "blk.0.ffn_down_exps.weight",
        "blk.1.attn_q.weight", "blk.2.ssm_in.weight", "blk.3.ffn_up_shexp.weight"};
    cm_sha *h = cm_sha_open();
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        const cm_tensor *t = cm_gguf_tensor(&g, name[i]);
        CHECKF(t != NULL, "%s", name[i]);
        if (!t) continue;
        int64_t n = cm_tensor_count(t);
        unsigned char *q = malloc((size_t)(n / 32 * 34));
        cm_quantize(CM_Q8_0_T, t->data, q, n);
        cm_sha_add(h, q, (size_t)(n / 32 * 34));
        free(q);
    }
    char hex[65];
    cm_sha_close(h, hex);
    static const char want[] =
        "7c7f787d41fe1b10b730d475083067c5f38587e26152b18980450c91d7e3e663";
    CHECKF(!strcmp(hex, want), "%s", hex);
    cm_gguf_close(&g);
}

TEST(errors_stay_within_their_bound) {
    static const cm_dtype types[] = {CM_F32_T, CM_F16_T, CM_BF16_T, CM_Q8_0_T};
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    for (int rep = 0; rep < 200; rep++) {
        float x[32], y[32], amax = 0, size = ldexpf(1, rep % 40 - 30);
        for (int i = 0; i < 32; i++) {
            x[i] = size * (float)cm_rng_normal(r, (uint64_t)(rep * 32 + i));
            amax = fmaxf(amax, fabsf(x[i]));
        }
        for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
            unsigned char raw[128];
            double bound = cm_quant_error(types[k], (double)amax), worst = 0;
            cm_quantize(types[k], x, raw, 32);
            cm_to_f32(types[k], raw, y, 32);
            for (int i = 0; i < 32; i++) worst = fmax(worst, fabs((double)x[i] - y[i]));
            CHECKF(worst <= bound, "%s, amax %g: error %g, bound %g",
                   cm_dtypes[types[k]].name, (double)amax, worst, bound);
            bool tight = bound < 1e-9 || worst > bound / 200;
            CHECKF(tight, "%s: bound %g is idle (worst %g)", cm_dtypes[types[k]].name,
                   bound, worst);
        }
    }
}

/* ---- types with a search ------------------------------------------------------------ */

enum { COLS = 1024, ROWS = 48 };

/* Gaussian rows, one value in 200 twenty times as large where `outliers`. */
static void make_rows(bool outliers, float *x) {
    cm_rng r = cm_rng_make(7, CM_RNG_TEST, outliers ? 2 : 0);
    for (int64_t i = 0; i < ROWS * COLS; i++) {
        double v = cm_rng_normal(r, (uint64_t)i);
        x[i] = (float)((outliers && i % 200 == 17 ? 20 * v : v) * 0.02);
    }
}

static double rmse(cm_dtype dt, const float *x, const float *imp) {
    unsigned char *raw = malloc(ROWS * COLS * 4);
    float *y = malloc(ROWS * COLS * sizeof *y);
    CM_ASSERT(raw && y, "out of memory");
    size_t row = (size_t)(COLS / cm_dtypes[dt].block * cm_dtypes[dt].bytes);
    for (int r = 0; r < ROWS; r++)
        cm_quantize_for(dt, x + r * COLS, imp, raw + (size_t)r * row, COLS);
    cm_to_f32(dt, raw, y, ROWS * COLS);
    double e = 0, w = 0;
    for (int64_t i = 0; i < ROWS * COLS; i++) {
        double d = (double)x[i] - y[i], k = imp ? (double)imp[i % COLS] : 1;
        e += k * d * d;
        w += k;
    }
    free(raw);
    free(y);
    return sqrt(e / w);
}

/* Root mean square errors of ggml v0.5.0's own encoders on the same rows, as
 * tests/interop/ggml_test.c prints them (SHOW=1). */
static const struct {
    cm_dtype dt;
    double gauss, outliers;
} ggml[] = {
    {CM_Q4_1_T, 0.001561, 0.003615},  {CM_Q5_0_T, 0.0008516, 0.002844},
    {CM_Q5_1_T, 0.0007531, 0.001704}, {CM_Q2_K_T, 0.005894, 0.008929},
    {CM_Q3_K_T, 0.003008, 0.005179},  {CM_Q4_K_T, 0.001429, 0.003196},
    {CM_Q5_K_T, 0.0007187, 0.001625}, {CM_Q6_K_T, 0.0003537, 0.001049},
    {CM_IQ4_NL_T, 0.001514, 0.003919}, {CM_IQ4_XS_T, 0.001525, 0.004015},
};
enum { N_GGML = sizeof ggml / sizeof *ggml };

TEST(errors_are_below_ggmls) {
    float *x = malloc(ROWS * COLS * sizeof *x);
    CM_ASSERT(x, "out of memory");
    for (int o = 0; o < 2; o++) {
        make_rows(o, x);
        for (int i = 0; i < N_GGML; i++) {
            double ours = rmse(ggml[i].dt, x, NULL), theirs = o ? ggml[i].outliers : ggml[i].gauss;
            CHECKF(ours < theirs && ours > theirs / 2, "%s: error %.4g, ggml's %.4g",
                   cm_dtypes[ggml[i].dt].name, ours, theirs);
        }
    }
    free(x);
}

TEST(importances_move_the_error) {
    float *x = malloc(ROWS * COLS * sizeof *x), imp[COLS];
    CM_ASSERT(x, "out of memory");
    make_rows(false, x);
    for (int i = 0; i < COLS; i++) imp[i] = i % 7 ? 1 : 50;
    for (int i = 0; i < N_GGML; i++) {
        cm_dtype dt = ggml[i].dt;
        unsigned char *plain = malloc(COLS * 4);
        float *y = malloc(COLS * sizeof *y);
        CM_ASSERT(plain && y, "out of memory");
        /* Weighted error with importances below the weighted error without. */
        double with = rmse(dt, x, imp), e = 0, w = 0;
        for (int r = 0; r < ROWS; r++) {
            cm_quantize(dt, x + r * COLS, plain, COLS);
            cm_to_f32(dt, plain, y, COLS);
            for (int j = 0; j < COLS; j++) {
                double d = (double)x[r * COLS + j] - y[j];
                e += (double)imp[j] * d * d;
                w += (double)imp[j];
            }
        }
        double without = sqrt(e / w);
        CHECKF(with < 0.99 * without, "%s: %.4g with importances, %.4g without",
               cm_dtypes[dt].name, with, without);
        free(plain);
        free(y);
    }
    free(x);
}

static const cm_dtype blocks[] = {CM_Q4_0_T, CM_Q4_1_T, CM_Q5_0_T, CM_Q5_1_T,
                                  CM_Q2_K_T, CM_Q3_K_T, CM_Q4_K_T, CM_Q5_K_T,
                                  CM_Q6_K_T, CM_IQ4_NL_T, CM_IQ4_XS_T, CM_Q8_0_T};
enum { N_BLOCKS = sizeof blocks / sizeof *blocks };

/* Zeros stay zeros; extreme sizes give finite values that are never worse than zeros. */
TEST(odd_values_are_safe) {
    static const float sizes[] = {0, 1e-38f, 1e-30f, 1e-12f, 1e-7f, 1e-4f, 1, 1e3f, 65000};
    cm_rng r = cm_rng_make(3, CM_RNG_TEST, 0);
    for (int t = 0; t < N_BLOCKS; t++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int kind = 0; kind < 3; kind++) {
                float x[256], y[256], imp[256];
                unsigned char raw[1024];
                double e = 0, all = 0;
                for (int i = 0; i < 256; i++) {
                    double u = 2 * cm_rng_uniform(r, (uint64_t)i) - 1;
                    x[i] = sizes[s] * (float)(kind == 1 ? 1 : kind == 2 ? i == 77 : u);
                    imp[i] = kind == 2 ? 0 : (float)i;
                }
                cm_quantize_for(blocks[t], x, s % 2 ? imp : NULL, raw, 256);
                cm_to_f32(blocks[t], raw, y, 256);
                for (int i = 0; i < 256; i++) {
                    e += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
                    all += (double)x[i] * x[i];
                }
                bool fine = kind == 1 || s % 2 ? isfinite(e) : e <= all * 1.0001 + 1e-11;
                CHECKF(fine, "%s, size %g, kind %d: %g of %g", cm_dtypes[blocks[t]].name,
                       (double)sizes[s], kind, e, all);
                CHECKF(all > 0 || e == 0, "%s: zeros became others", cm_dtypes[blocks[t]].name);
            }
}

/* What the instruction set has no say in. */
TEST(both_searches_give_the_same_bits) {
    static const cm_grid grids[] = {
        {32, true, false, 0, 15, true, 0, 63, 0.9, 1.3, 14},
        {16, true, false, 0, 3, true, 0, 15, 0.7, 1.7, 24},
        {16, false, false, -4, 3, true, -32, 31, 0.6, 2.2, 40},
        {32, false, true, 0, 15, true, -32, 31, 0.75, 1.3, 16},
        {32, true, false, 0, 31, false, 0, 0, 0.96, 1.15, 12}};
    if (!__builtin_cpu_supports("avx2")) {
        t_skip("no AVX2 here");
        return;
    }
    cm_rng r = cm_rng_make(4, CM_RNG_TEST, 0);
    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++)
        for (uint64_t rep = 0; rep < 40; rep++) {
            float x[256], w[256];
            cm_found a, b;
            memset(&a, 0, sizeof a);
            memset(&b, 0, sizeof b);
            for (uint64_t i = 0; i < 256; i++) {
                x[i] = (float)(cm_rng_normal(r, rep * 256 + i) * (i % 97 ? 1 : 9));
                w[i] = (float)(0.1 + cm_rng_uniform(r, i));
            }
            cm_search_ref(&grids[g], x, w, &a);
            cm_search_avx2(&grids[g], x, w, &b);
            CHECKF(!memcmp(&a, &b, sizeof a), "grid %d, repetition %d", (int)g, (int)rep);
        }
}
