/* quant_test.c -- encoders give llama.cpp's bytes, and errors within their bound. */
#include "io/io.h"
#include "quant/quant.h"
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
