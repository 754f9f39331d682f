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

/* Weights that leave the softmax as words: those of the weights in place, for every shape of
 * a strip; what lies behind the last key does not enter. */
static void check_softmax(int64_t rows, int64_t seen, int64_t live) {
    enum { N = CM_SOFT_KEYS, L = CM_SOFT_LANES, P = 3 };
    static cm_real s[2][MOST * N], g[2][MOST * N], top[2][MOST], sum[2][MOST * L],
        mix[2][MOST * P], want[3][MOST * N];
    fill(a, MOST * N / 2, 5), fill(b, MOST * N / 2, 6), fill(c, MOST * N / 2, 7);
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < rows * N; i++)
            s[k][i] = i % N < seen ? 9 * x[i] : (cm_real)__builtin_nan(""), g[k][i] = z[i];
        for (int64_t i = 0; i < rows; i++) top[k][i] = CM_SOFT_NONE;
        memset(sum[k], 0, sizeof sum[k]), memset(mix[k], 0, sizeof mix[k]);
    }
    cm_attn_soft t = { rows, seen, live, P, s[0], NULL, top[0], sum[0], mix[0] };
    cm_k.attn_soft(&t);
    cm_words_along(CM_COMPUTE_BF16, rows, N, NULL, s[0], N, want[0], N / 2);
    t = (cm_attn_soft){ rows, seen, live, P, s[1], a, top[1], sum[1], mix[1] };
    cm_k.attn_soft(&t);
    bool ok = !memcmp(a, want[0], sizeof *a * (size_t)(rows * N / 2)) &&
              !memcmp(sum[0], sum[1], sizeof sum[0]) && !memcmp(top[0], top[1], sizeof top[0]);
    CHECKF(ok, "softmax of %lld rows, %lld of %lld keys", (long long)rows, (long long)live,
           (long long)seen);
    for (int64_t i = 0; i < rows * N; i++)
        s[0][i] = s[1][i] = i % N < seen ? 9 * x[i] : (cm_real)__builtin_nan("");
    cm_attn_grad d0 = { rows, seen, live, scale, x, s[0], g[0], NULL, NULL, NULL }, d1 = d0;
    d1.s = s[1], d1.ds = g[1], d1.p_down = a, d1.ds_down = b, d1.ds_along = c;
    cm_k.attn_grad(&d0);
    cm_k.attn_grad(&d1);
    cm_words_down(CM_COMPUTE_BF16, rows, N, NULL, s[0], N, want[0], N);
    cm_words_down(CM_COMPUTE_BF16, rows, N, NULL, g[0], N, want[1], N);
    cm_words_along(CM_COMPUTE_BF16, rows, N, NULL, g[0], N, want[2], N / 2);
    for (int64_t i = 0; i < rows; i++) {
        size_t n = sizeof *a * (size_t)seen, at = (size_t)(i / 2 * N);
        ok = ok && !memcmp(a + at, want[0] + at, n) && !memcmp(b + at, want[1] + at, n) &&
             !memcmp(c + i * N / 2, want[2] + i * N / 2, sizeof *c * (size_t)((seen + 1) / 2));
    }
    CHECKF(ok, "gradient of %lld rows, %lld of %lld keys", (long long)rows, (long long)live,
           (long long)seen);
}

TEST(softmax_of_attention_leaves_as_words) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, 1, &err), "%s", err.msg);
    if (cm_word_len(CM_COMPUTE_BF16) != 2) {
        t_skip("this level has no words of pairs");
        return;
    }
    fill(x, ROOM, 1), fill(z, ROOM, 2), fill(scale, MOST, 3);
    for (int64_t rows = 1; rows < 36; rows += 1 + rows / 4)
        for (int64_t seen = 1; seen <= CM_SOFT_KEYS; seen++)
            for (int64_t live = 1; live <= seen; live += 1 + seen / 5)
                check_softmax(rows, seen, live);
}
