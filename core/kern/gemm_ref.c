/* gemm_ref.c -- the reference matrix product: plain C, one order over K per element. */
#include "kern/gemm.h"

enum { COLS = 64 };

/* C[i, j0..j0+nc) for one row: sums in K order in a small buffer. */
static void row_strip(const cm_gemm_args *g, int64_t i, int64_t j0, int nc) {
    cm_real s[COLS] = { 0 };
    for (int64_t p = 0; p < g->K; p++) {
        cm_real a = g->A[i * g->ars + p * g->acs];
        const cm_real *b = g->B + p * g->brs + j0 * g->bcs;
        if (g->bcs == 1)
            for (int j = 0; j < nc; j++) s[j] += a * b[j];
        else
            for (int j = 0; j < nc; j++) s[j] += a * b[j * g->bcs];
    }
    cm_real *c = g->C + i * g->ldc + j0;
    for (int j = 0; j < nc; j++)
        c[j] = g->beta == 0 ? g->alpha * s[j] : g->alpha * s[j] + g->beta * c[j];
}

void cm_gemm_ref(const cm_gemm_args *g) {
    for (int64_t j0 = 0; j0 < g->N; j0 += COLS) {
        int nc = (int)(g->N - j0 < COLS ? g->N - j0 : COLS);
        for (int64_t i = 0; i < g->M; i++) row_strip(g, i, j0, nc);
    }
}
