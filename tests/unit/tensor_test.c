/* tensor_test.c -- shapes, sizes, element conversions (all 65536 halves, and floats
 * around every rounding boundary). */
#include "tensor/widen.h"
#include "tests/t.h"

#include <math.h>
#include <string.h>

TEST(sizes_and_shapes) {
    cm_tensor t = { .dtype = CM_Q8_0_T, .nd = 3, .dim = { 2, 3, 64 } };
    cm_tensor u = t, scalar = { .dtype = CM_F64_T };
    char buf[64], tight[6];
    CHECK(cm_tensor_count(&t) == 384 && cm_tensor_bytes(&t) == 384 / 32 * 34);
    CHECK(cm_tensor_count(&scalar) == 1 && cm_tensor_bytes(&scalar) == 8);
    CHECK(!strcmp(cm_tensor_shape_str(&t, buf, sizeof buf), "[2,3,64]"));
    CHECK(!strcmp(cm_tensor_shape_str(&scalar, buf, sizeof buf), "[]"));
    CHECK(!strcmp(cm_tensor_shape_str(&t, tight, sizeof tight), "[2,3,"));
    u.dtype = CM_F32_T;
    CHECK(cm_tensor_same_shape(&t, &u) && cm_tensor_bytes(&u) == 384 * 4);
    u.dim[1] = 4;
    CHECK(!cm_tensor_same_shape(&t, &u));
    u = t;
    u.nd = 2;
    CHECK(!cm_tensor_same_shape(&t, &u));
}

TEST(dtype_table) {
    CHECK(!strcmp(cm_dtypes[CM_BF16_T].name, "BF16") && cm_dtypes[CM_BF16_T].gguf == 30);
    CHECK(cm_dtypes[CM_Q8_0_T].block == 32 && cm_dtypes[CM_Q8_0_T].bytes == 34);
    CHECK(!cm_dtypes[CM_Q8_0_T].safetensors && cm_dtypes[CM_U8_T].gguf == -1);
}

/* The value of a half by its definition. */
static double half_value(uint16_t h) {
    int e = h >> 10 & 31, m = h & 0x3ff;
    double v = e == 31 ? (m ? NAN : INFINITY)
               : e     ? ldexp(1024 + m, e - 25)
                       : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

TEST(every_half_round_trips) {
    for (int h = 0; h < 65536; h++) {
        float f = cm_f16_to_f32((uint16_t)h);
        double want = half_value((uint16_t)h);
        uint16_t back = cm_f32_to_f16(f);
        if (isnan(want)) {
            CHECKF(isnan(f) && isnan(half_value(back)), "half %04x", (unsigned)h);
        } else {
            CHECKF((double)f == want && !signbit(f) == !(h & 0x8000), "half %04x", (unsigned)h);
            CHECKF(back == h, "half %04x came back as %04x", (unsigned)h, (unsigned)back);
        }
    }
}

/* Between neighbours lo < hi (as numbers): below the middle rounds down, above it up, the
 * middle itself to the even one. */
static void check_rounding(uint16_t lo, uint16_t hi, double mid, uint16_t (*narrow)(float)) {
    float m = (float)mid;
    uint16_t even = lo & 1 ? hi : lo;
    CHECKF((double)m == mid && narrow(m) == even, "middle %g", mid);
    CHECKF(narrow(nextafterf(m, 0)) == lo, "below %g", mid);
    CHECKF(narrow(nextafterf(m, INFINITY)) == hi, "above %g", mid);
    CHECKF(narrow(-m) == (even | 0x8000), "middle %g", -mid);
}

TEST(halves_round_to_even) {
    for (int h = 0; h < 0x7bff; h++) {
        double a = half_value((uint16_t)h), b = half_value((uint16_t)(h + 1));
        check_rounding((uint16_t)h, (uint16_t)(h + 1), (a + b) / 2, cm_f32_to_f16);
    }
    check_rounding(0x7bff, 0x7c00, 65520, cm_f32_to_f16); /* overflow */
    CHECK(cm_f32_to_f16(INFINITY) == 0x7c00 && cm_f32_to_f16(-1e30f) == 0xfc00);
    CHECK(cm_f32_to_f16(1e-30f) == 0 && cm_f32_to_f16(-0.0f) == 0x8000);
}

TEST(bf16_rounds_to_even) {
    for (int h = 0; h < 0x7f7f; h++) {
        double a = (double)cm_bf16_to_f32((uint16_t)h);
        double b = (double)cm_bf16_to_f32((uint16_t)(h + 1));
        check_rounding((uint16_t)h, (uint16_t)(h + 1), (a + b) / 2, cm_f32_to_bf16);
    }
    CHECK(cm_f32_to_bf16(INFINITY) == 0x7f80 && cm_f32_to_bf16(3.4e38f) == 0x7f80);
    CHECK(isnan(cm_bf16_to_f32(cm_f32_to_bf16(NAN))));
    union { uint32_t u; float f; } quiet = { 0x7f800001 }; /* payload in the low bits */
    CHECK(isnan(cm_bf16_to_f32(cm_f32_to_bf16(quiet.f))));
    CHECK(isnan(half_value(cm_f32_to_f16(quiet.f))));
}

TEST(array_conversions) {
    float x[5] = { 0, -1.5f, 65504, 1e-7f, 3 }, y[5];
    static const cm_dtype exact[] = { CM_F32_T, CM_F64_T };
    double store[5];
    for (int i = 0; i < 2; i++) {
        cm_from_f32(exact[i], x, store, 5);
        cm_to_f32(exact[i], store, y, 5);
        CHECK(!memcmp(x, y, sizeof x));
    }
    cm_from_f32(CM_F16_T, x, store, 5);
    cm_to_f32(CM_F16_T, store, y, 5);
    CHECK(y[1] == -1.5f && y[2] == 65504 && fabsf(y[3] - 1e-7f) < 3e-8f);
    cm_from_f32(CM_BF16_T, x, store, 5);
    cm_to_f32(CM_BF16_T, store, y, 5);
    CHECK(y[1] == -1.5f && y[2] == 65536 && y[4] == 3);
}

TEST(q8_0_blocks) {
    unsigned char b[68] = { 0 };
    float y[64];
    b[1] = 0x38; /* scale 0.5 */
    b[34] = 0x00, b[35] = 0xbc; /* scale -1 */
    for (int i = 0; i < 32; i++) b[2 + i] = (unsigned char)(i - 16), b[36 + i] = 200;
    cm_to_f32(CM_Q8_0_T, b, y, 64);
    for (int i = 0; i < 32; i++) CHECK(y[i] == 0.5f * (float)(i - 16) && y[32 + i] == 56);
}

/* Any bytes: with AVX2 instructions what there is without. */
TEST(both_widenings_give_the_same_bits) {
    static unsigned char raw[64 * 1024];
    static float a[1 << 16], b[1 << 16];
    static uint16_t half[1 << 16];
    if (!__builtin_cpu_supports("avx2")) {
        t_skip("no AVX2 here");
        return;
    }
    cm_rng r = cm_rng_make(5, CM_RNG_TEST, 0);
    for (size_t i = 0; i < sizeof raw; i++) raw[i] = (unsigned char)cm_rng_below(r, i, 256);
    for (int t = 0; t < CM_N_DTYPES; t++) {
        const cm_dtype_info *d = &cm_dtypes[t];
        if (d->block == 1) continue;
        int64_t n = (int64_t)sizeof raw / d->bytes * d->block;
        if (n > 1 << 16) n = 1 << 16;
        cm_blocks_to_f32_ref((cm_dtype)t, raw, a, n);
        cm_blocks_to_f32_avx2((cm_dtype)t, raw, b, n);
        for (int64_t i = 0; i < n; i++) {
            bool same = !memcmp(&a[i], &b[i], sizeof *a) || (isnan(a[i]) && isnan(b[i]));
            CHECKF(same, "%s, element %lld: %g and %g", d->name, (long long)i, (double)a[i],
                   (double)b[i]);
            if (!same) break;
        }
    }
    for (int i = 0; i < 1 << 16; i++) half[i] = (uint16_t)i;
    cm_f16s_to_f32_ref(half, a, 1 << 16);
    cm_f16s_to_f32_avx2(half, b, 1 << 16);
    CHECK(!memcmp(a, b, sizeof a));
    for (int i = 0; i < 1 << 16; i++) b[i] = cm_f16_to_f32(half[i]);
    CHECK(!memcmp(a, b, sizeof a));
}
