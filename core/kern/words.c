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

/* The same of x, which may be BF16. */
static void elements_of(cm_compute how, int64_t rows, int64_t n, cm_mat x, cm_real *y,
                        int64_t ldy) {
    if (!x.stored) {
        elements(how, rows, n, NULL, x.at, x.ld, y, ldy);
        return;
    }
    const uint16_t *h = x.at;
    for (int64_t i = 0; i < rows; i++, h += x.ld, y += ldy)
        for (int64_t p = 0; p < n; p++) y[p] = (cm_real)cm_bf16_to_f32(h[p]);
}

/* Words along are made in a small buffer, then moved like floats. */
static void across_by_parts(cm_compute how, int64_t rows, int64_t n, cm_mat x, cm_real *y,
                            int64_t ldy) {
    enum { ROWS = 64, WORDS = 32 };
    cm_real part[ROWS * WORDS];
    int64_t len = cm_word_len(how);
    for (int64_t i = 0; i < rows; i += ROWS)
        for (int64_t p = 0; p < n; p += len * WORDS) {
            int64_t m = rows - i < ROWS ? rows - i : ROWS;
            int64_t k = n - p < len * WORDS ? n - p : len * WORDS;
            cm_mat from = cm_mat_from(x, i * x.ld + p);
            if (len == 2) cm_pairs_of(m, k, from, part, WORDS, NULL, 0);
            else elements_of(how, m, k, from, part, WORDS);
            cm_k.transpose(m, cm_word_count(how, k), part, WORDS, y + p / len * ldy + i, ldy);
        }
}

void cm_words_across(cm_compute how, int64_t rows, int64_t n, const cm_real *x, int64_t ldx,
                     cm_real *y, int64_t ldy) {
    if (how == CM_COMPUTE_FP32) cm_k.transpose(rows, n, x, ldx, y, ldy);
    else across_by_parts(how, rows, n, cm_mat_of(x, ldx, false), y, ldy);
}

void cm_words_of(cm_compute how, int64_t rows, int64_t n, cm_mat x, cm_real *along,
                 cm_real *down, cm_real *across) {
    int64_t words = cm_word_count(how, n);
    if (cm_word_len(how) == 2) {
        if (along || down) cm_pairs_of(rows, n, x, along, words, down, n);
    } else {
        CM_ASSERT(!along || !down, "words of one element twice");
        if (!along) along = down;
        if (along) elements_of(how, rows, n, x, along, n);
    }
    if (across && along) cm_k.transpose(rows, words, along, words, across, rows);
    else if (across) across_by_parts(how, rows, n, x, across, rows);
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
