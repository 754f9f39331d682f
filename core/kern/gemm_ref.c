/* gemm_ref.c -- the reference matrix product: plain C, one order over K per element.
 *
 * In fp32 a sum runs over all of K; with BF16 operands it keeps the vector levels' blocks
 * of K as well, so that it has their bits (gemm.h). */
#include "kern/gemm.h"

enum { COLS = 64 };

/* n elements of an operand, `by` apart, as the product sees them. */
static void fetch(const cm_gemm_args *g, const void *x, bool stored, int64_t by, int n,
                  cm_real *to) {
    const cm_real *r = x;
    const uint16_t *h = x;
    if (g->how == CM_COMPUTE_FP32)
        for (int i = 0; i < n; i++) to[i] = r[i * by];
    else
        for (int i = 0; i < n; i++)
            to[i] = cm_as_bf16(stored ? (cm_real)cm_bf16_to_f32(h[i * by]) : r[i * by]);
}

static cm_real fma_of(cm_real a, cm_real b, cm_real c) {
#ifdef CM_F64
    return __builtin_fma(a, b, c);
#else
    return __builtin_fmaf(a, b, c);
#endif
}

/* c = alpha s + beta c */
static void put(const cm_gemm_args *g, const cm_real *s, cm_real beta, cm_real *c, int n) {
    bool fused = g->how == CM_COMPUTE_BF16;
    for (int j = 0; j < n; j++)
        c[j] = beta == 0 ? g->alpha * s[j]
               : fused   ? fma_of(g->alpha, s[j], beta * c[j])
                         : g->alpha * s[j] + beta * c[j];
}

/* Steps [k0, k1) of C[i, j0..j0+nc): sums in K order in a small buffer. */
static void row_strip(const cm_gemm_args *g, int64_t i, int64_t j0, int nc, int64_t k0,
                      int64_t k1) {
    cm_real s[COLS] = { 0 }, room[COLS], a;
    for (int64_t p = k0; p < k1; p++) {
        const void *at = cm_at(g->B, g->b_stored, p * g->brs + j0 * g->bcs);
        const cm_real *b = g->how == CM_COMPUTE_FP32 && g->bcs == 1 ? at : room;
        if (b == room) fetch(g, at, g->b_stored, g->bcs, nc, room);
        fetch(g, cm_at(g->A, g->a_stored, i * g->ars + p * g->acs), g->a_stored, 1, 1, &a);
        for (int j = 0; j < nc; j++) s[j] += a * b[j];
    }
    put(g, s, k0 ? 1 : g->beta, g->C + i * g->ldc + j0, nc);
}

void cm_gemm_ref(const cm_gemm_args *g) {
    int64_t block = g->how == CM_COMPUTE_BF16 ? CM_GEMM_KC : g->K > 0 ? g->K : 1;
    for (int64_t j0 = 0; j0 < g->N; j0 += COLS) {
        int nc = (int)(g->N - j0 < COLS ? g->N - j0 : COLS);
        for (int64_t i = 0; i < g->M; i++)
            for (int64_t k = 0; k == 0 || k < g->K; k += block)
                row_strip(g, i, j0, nc, k, k + block < g->K ? k + block : g->K);
    }
}
