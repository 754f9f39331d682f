/* quant.c -- floats to any type: which search a block type takes, and what an error weighs. */
#include "quant/pack.h"
#include "quant/search.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 256 };

const cm_grid *cm_grid_of(cm_dtype dt) {
    /*                    run  min    table  lo   hi  super  scales       inverse scales */
    static const cm_grid q40 = {32, false, false, -8, 7, false, 0, 0, 0.7, 1.25, 12},
                         q50 = {32, false, false, -16, 15, false, 0, 0, 0.9, 1.15, 12},
                         nl = {32, false, true, 0, 15, false, 0, 0, 0.75, 1.3, 10},
                         q41 = {32, true, false, 0, 15, false, 0, 0, 0.9, 1.3, 8},
                         q51 = {32, true, false, 0, 31, false, 0, 0, 0.96, 1.15, 7},
                         q2k = {16, true, false, 0, 3, true, 0, 15, 0.7, 1.7, 12},
                         q3k = {16, false, false, -4, 3, true, -32, 31, 0.6, 2.2, 18},
                         q4k = {32, true, false, 0, 15, true, 0, 63, 0.9, 1.3, 8},
                         q5k = {32, true, false, 0, 31, true, 0, 63, 0.96, 1.15, 6},
                         q6k = {16, false, false, -32, 31, true, -128, 127, 0.96, 1.06, 8},
                         xs = {32, false, true, 0, 15, true, -32, 31, 0.75, 1.3, 9};
    switch (dt) {
    case CM_Q4_0_T: return &q40;
    case CM_Q4_1_T: return &q41;
    case CM_Q5_0_T: return &q50;
    case CM_Q5_1_T: return &q51;
    case CM_Q2_K_T: return &q2k;
    case CM_Q3_K_T: return &q3k;
    case CM_Q4_K_T: return &q4k;
    case CM_Q5_K_T: return &q5k;
    case CM_Q6_K_T: return &q6k;
    case CM_IQ4_NL_T: return &nl;
    case CM_IQ4_XS_T: return &xs;
    default: return NULL;
    }
}

/* Without importances a large weight counts a little more than a small one: |x| beside the
 * root mean square of its run. */
static void plain_weights(int run, const float *restrict x, float *restrict w) {
    typedef float v4 __attribute__((vector_size(16)));
    for (int i = 0; i < CHUNK; i += run) {
        v4 sum = {0};
        for (int j = 0; j < run; j += 4) {
            v4 v;
            memcpy(&v, x + i + j, sizeof v);
            sum += v * v;
        }
        float rms = (float)sqrt((double)(sum[0] + sum[1] + sum[2] + sum[3]) / run);
        float per = rms > 1e-15f ? 1 / rms : 0;
#pragma omp simd
        for (int j = 0; j < run; j++) w[i + j] = 1 + fabsf(x[i + j]) * per;
    }
}

/* Importances, relative to their mean; none weighs less than a thousandth of it.  Nothing but
 * zeros says nothing. */
static void weights(const cm_grid *g, const float *x, const float *imp, int n, float *w) {
    float part[8] = {0}, sum = 0; /* whole blocks: n is a multiple of 32 */
    for (int i = 0; imp && i < n; i += 8)
        for (int j = 0; j < 8; j++) part[j] += imp[i + j];
    for (int j = 0; j < 8; j++) sum += part[j];
    if (!(sum > 0 && sum < INFINITY)) {
        plain_weights(g->run, x, w);
        return;
    }
    float mean = sum / (float)n;
    for (int i = 0; i < n; i++) {
        float f = imp[i] / mean;
        w[i] = f > 1e-3f ? f : 1e-3f;
    }
    for (int i = n; i < CHUNK; i++) w[i] = 1;
}

void cm_search(const cm_grid *g, const float *src, const float *imp, int n, cm_found *f) {
    float x[CHUNK], w[CHUNK];
    memcpy(x, src, (size_t)n * sizeof *x);
    memset(x + n, 0, (size_t)(CHUNK - n) * sizeof *x);
    weights(g, x, imp, n, w);
    if (__builtin_cpu_supports("avx2")) cm_search_avx2(g, x, w, f);
    else cm_search_ref(g, x, w, f);
}

void cm_quantize_for(cm_dtype dt, const float *src, const float *imp, void *dst, int64_t n) {
    const cm_dtype_info *info = &cm_dtypes[dt];
    unsigned char *out = dst;
    CM_ASSERT(n % info->block == 0, "%lld elements of %s", (long long)n, info->name);
    if (info->block == 1) {
        cm_from_f32(dt, src, dst, n);
    } else if (dt == CM_Q8_0_T) {
        for (int64_t i = 0; i < n; i += 32, out += info->bytes) cm_encode_q8_0(src + i, out);
    } else if (dt == CM_Q4_0_T && !imp) {
        for (int64_t i = 0; i < n; i += 32, out += info->bytes) cm_encode_q4_0(src + i, out);
    } else {
        const cm_grid *g = cm_grid_of(dt);
        CM_ASSERT(g, "no encoder of %s", info->name);
        for (int64_t i = 0; i < n; i += CHUNK) {
            int m = (int)(n - i < CHUNK ? n - i : CHUNK);
            cm_found f;
            cm_search(g, src + i, imp ? imp + i : NULL, m, &f);
            cm_pack(dt, &f, m / info->block, out);
            out += m / info->block * info->bytes;
        }
    }
}

void cm_quantize(cm_dtype dt, const float *src, void *dst, int64_t n) {
    cm_quantize_for(dt, src, NULL, dst, n);
}
