/* words_test.c -- small products over words (kern/kern.h): the bits of cm_product1, whatever
 * the layout, shape and precision. */
#include "kern/kern.h"
#include "tests/t.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 160, ROOM = MOST * MOST, PAD = 3 };

static cm_real x[ROOM], z[ROOM], a[ROOM], b[ROOM], scale[MOST], c[ROOM], d[ROOM];

static void fill(cm_real *to, int64_t n, uint64_t seed) {
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, 3);
    for (int64_t i = 0; i < n; i++) to[i] = (cm_real)(cm_rng_uniform(r, (uint64_t)i) * 2 - 1);
}

/* Rows of what is multiplied, beside each other as they come or each times its scale. */
static void scaled(int64_t rows, int64_t n, const cm_real *from, cm_real *to) {
    for (int64_t i = 0; i < rows; i++)
        cm_k.set_scaled(n, scale[i], from + i * n, to + i * n);
}

/* One shape, A[M,K] taken along its rows or down those of its transpose, B[K,N] down or
 * across; beta 0 and 1.  Rows are PAD longer than what is multiplied. */
static void check(cm_compute how, int64_t M, int64_t N, int64_t K, bool ta, bool tb,
                  bool by_row, cm_real beta) {
    int64_t words = cm_word_count(how, K), lda = (ta ? M : K) + PAD;
    int64_t ldb = (tb ? K : N) + PAD, ldc = N + PAD;
    fill(x, ROOM, 1), fill(z, ROOM, 2), fill(scale, MOST, 3);
    memset(a, 0xff, sizeof a), memset(b, 0xff, sizeof b);
    fill(c, ROOM, 4);
    memcpy(d, c, sizeof c);
    const cm_real *s = by_row ? scale : NULL;
    cm_word_mat A = { a, ta ? 1 : words, ta ? M : 1 }, B = { b, 1, N };
    if (ta) cm_words_down(how, K, M, s, x, lda, a, M);
    else cm_words_along(how, M, K, s, x, lda, a, words);
    if (tb) cm_words_across(how, N, K, z, ldb, b, N);
    else cm_words_down(how, K, N, NULL, z, ldb, b, N);
    cm_word_product(how, M, N, K, A, B, beta, c, ldc);
    if (by_row) scaled(ta ? K : M, lda, x, x);
    cm_product1(how, M, N, K, 1, cm_mat_of(x, lda, ta), cm_mat_of(z, ldb, tb), beta, d, ldc);
    CHECKF(!memcmp(c, d, sizeof c),
           "%s, %lld x %lld x %lld, %d%d%d, beta %g: other bits than cm_product1",
           how == CM_COMPUTE_BF16 ? "bf16" : "fp32", (long long)M, (long long)N, (long long)K,
           ta, tb, by_row, (double)beta);
    if (how == CM_COMPUTE_BF16) return;
    cm_word_mat in_place = ta ? cm_as_down(how, K, M, x, lda, NULL)
                              : cm_as_along(how, M, K, x, lda, NULL);
    cm_word_product(how, M, N, K, in_place, B, 0, c, ldc);
    cm_word_product(how, M, N, K, A, B, 0, d, ldc);
    CHECK(!memcmp(c, d, sizeof c));
}

TEST(words_give_the_bits_of_products) {
    static const int64_t shape[][3] = {
        { 1, 1, 1 },   { 2, 3, 5 },    { 14, 32, 8 },  { 15, 33, 7 },  { 64, 64, 64 },
        { 28, 17, 2 }, { 13, 70, 31 }, { 129, 66, 3 }, { 40, 96, 130 }, { 5, 150, 65 },
    };
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, 1, &err), "%s", err.msg);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int k = 0; k < 32; k++)
            check(k & 16 ? CM_COMPUTE_BF16 : CM_COMPUTE_FP32, shape[i][0], shape[i][1],
                  shape[i][2], k & 1, k & 2, k & 4, k & 8 ? 1 : 0);
}

/* An odd last element has a partner of 0, so that what lies behind it cannot enter. */
TEST(an_odd_end_is_alone) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, 1, &err), "%s", err.msg);
    for (int i = 0; i < ROOM; i++) x[i] = z[i] = (cm_real)__builtin_nan("");
    int64_t words = cm_word_count(CM_COMPUTE_BF16, 3);
    for (int i = 0; i < 2; i++)
        for (int p = 0; p < 3; p++) x[i * 4 + p] = z[p * 4 + i] = 1;
    cm_words_along(CM_COMPUTE_BF16, 2, 3, NULL, x, 4, a, words);
    cm_words_down(CM_COMPUTE_BF16, 3, 2, NULL, z, 4, b, 2);
    cm_word_mat A = { a, words, 1 }, B = { b, 1, 2 };
    cm_word_product(CM_COMPUTE_BF16, 2, 2, 3, A, B, 0, c, 2);
    for (int i = 0; i < 4; i++) CHECKF(c[i] == 3, "%g", (double)c[i]);
    cm_words_across(CM_COMPUTE_BF16, 2, 3, x, 4, b, 2);
    cm_word_product(CM_COMPUTE_BF16, 2, 2, 3, A, B, 0, c, 2);
    for (int i = 0; i < 4; i++) CHECKF(c[i] == 3, "%g", (double)c[i]);
}
