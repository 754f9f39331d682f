/* words.c -- small products over operands in words, and their layout (kern.h).
 *
 * Without the instruction for pairs BF16 words are rounded elements that the fp32
 * micro-kernel multiplies: the same chain (gemm.h), so the same bits. */
#include "kern/gemm.h"

#include <string.h>

int cm_word_len(cm_compute how) { return cm_gemm_micro(how)->pair == 2 ? 2 : 1; }

static void round_row(int64_t n, cm_real *x) {
    if (cm_kern_level() >= CM_LEVEL_AVX2) {
        cm_round_avx2(n, x);
        return;
    }
    for (int64_t i = 0; i < n; i++) x[i] = cm_as_bf16(x[i]);
}

/* Words of one element: along and down are the same. */
static void elements(cm_compute how, int64_t rows, int64_t n, const cm_real *s,
                     const cm_real *x, int64_t ldx, cm_real *y, int64_t ldy) {
    for (int64_t i = 0; i < rows; i++, x += ldx, y += ldy) {
        if (s) cm_k.set_scaled(n, s[i], x, y);
        else memcpy(y, x, (size_t)n * sizeof *y);
        if (how == CM_COMPUTE_BF16) round_row(n, y);
    }
}

void cm_words_along(cm_compute how, int64_t rows, int64_t n, const cm_real *s,
                    const cm_real *x, int64_t ldx, cm_real *y, int64_t ldy) {
    if (cm_word_len(how) == 2) cm_pairs_along(rows, n, s, x, ldx, y, ldy);
    else elements(how, rows, n, s, x, ldx, y, ldy);
}

void cm_words_down(cm_compute how, int64_t rows, int64_t n, const cm_real *s,
                   const cm_real *x, int64_t ldx, cm_real *y, int64_t ldy) {
    if (cm_word_len(how) == 2) cm_pairs_down(rows, n, s, x, ldx, y, ldy);
    else elements(how, rows, n, s, x, ldx, y, ldy);
}

/* Pairs are made in a small buffer, whose words are then moved like floats. */
static void pairs_across(int64_t rows, int64_t n, const cm_real *x, int64_t ldx, cm_real *y,
                         int64_t ldy) {
    enum { ROWS = 64, WORDS = 32 };
    cm_real part[ROWS * WORDS];
    for (int64_t i = 0; i < rows; i += ROWS)
        for (int64_t p = 0; p < n; p += 2 * WORDS) {
            int64_t m = rows - i < ROWS ? rows - i : ROWS;
            int64_t k = n - p < 2 * WORDS ? n - p : 2 * WORDS;
            cm_pairs_along(m, k, NULL, x + i * ldx + p, ldx, part, WORDS);
            cm_k.transpose(m, (k + 1) / 2, part, WORDS, y + p / 2 * ldy + i, ldy);
        }
}

void cm_words_across(cm_compute how, int64_t rows, int64_t n, const cm_real *x, int64_t ldx,
                     cm_real *y, int64_t ldy) {
    if (cm_word_len(how) == 2) {
        pairs_across(rows, n, x, ldx, y, ldy);
        return;
    }
    cm_k.transpose(rows, n, x, ldx, y, ldy);
    for (int64_t p = 0; how == CM_COMPUTE_BF16 && p < n; p++) round_row(rows, y + p * ldy);
}

void cm_word_product(cm_compute how, int64_t M, int64_t N, int64_t K, cm_word_mat A,
                     cm_word_mat B, cm_real beta, cm_real *C, int64_t ldc) {
    const cm_micro *mk = cm_gemm_micro(how);
    if (M <= 0 || N <= 0) return;
    if (!mk->mr) {
        cm_gemm_args g = { M, N, K, 1, beta, A.at, B.at, A.row, A.step, B.step, 1, C, ldc,
                           CM_COMPUTE_FP32, false, false };
        cm_gemm_ref(&g);
        return;
    }
    /* Tiles of nearly as many rows each: few rows would wait for their own sums. */
    int64_t strips = (M + mk->mr - 1) / mk->mr, rows = (M + strips - 1) / strips;
    int64_t steps = (K + mk->pair - 1) / mk->pair;
    for (int64_t j = 0; j < N; j += mk->nr)
        for (int64_t i = 0; i < M; i += rows)
            mk->run(steps, A.at + i * A.row, A.row, A.step, B.at + j, B.step, 1, beta,
                    C + i * ldc + j, ldc, (int)(M - i < rows ? M - i : rows),
                    (int)(N - j < mk->nr ? N - j : mk->nr));
}
