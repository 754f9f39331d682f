/* ngram_test.c -- the Kneser-Ney model against a brute-force computation of its formulas. */
#include "data/ngram/kn.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { V = 7, BOS = 0, N = 400 };

/* A toy corpus with some structure, in documents of about 20 tokens. */
static void toy(int32_t *tok, int n, uint64_t seed) {
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, 0);
    for (int i = 0; i < n; i++) {
        bool start = i == 0 || (i > 1 && tok[i - 1] != BOS && cm_rng_below(r, 3u * i, 20) == 0);
        int32_t noise = 1 + (int32_t)cm_rng_below(r, 3u * i + 1, V - 1);
        int32_t next = i ? 1 + (tok[i - 1] * 2 + 1) % (V - 1) : noise;
        tok[i] = start ? BOS : cm_rng_below(r, 3u * i + 2, 3) ? next : noise;
    }
}

/* ---- the same model, slowly: everything recounted from the tokens at each question ------ */

static bool same(const int32_t *a, const int32_t *b, int n) {
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* Is tok[i..i+k) inside one document, its last token predicted? */
static bool inside(const int32_t *tok, int n, int i, int k) {
    if (i < 0 || i + k > n || tok[i + k - 1] == BOS) return false;
    for (int j = i + 1; j < i + k; j++)
        if (tok[j] == BOS) return false;
    return true;
}

/* Adjusted count of a k-gram: plain at the highest order and where it begins with BOS,
 * else the number of different tokens to its left. */
static int adjusted(const int32_t *tok, int n, const int32_t *g, int k, int order) {
    int count = 0;
    bool left[V] = {false};
    for (int i = 0; i < n; i++) {
        if (!inside(tok, n, i, k) || !same(tok + i, g, k)) continue;
        if (k == order || g[0] == BOS) count++;
        else if (!left[tok[i - 1]]) left[tok[i - 1]] = true, count++;
    }
    return count;
}

/* Number of different k-grams with this adjusted count; the gram is counted at its first
 * occurrence. */
static int counts_of(const int32_t *tok, int n, int k, int order, int c) {
    int found = 0;
    for (int i = 0; i < n; i++) {
        if (!inside(tok, n, i, k)) continue;
        bool first = true;
        for (int j = 0; first && j < i; j++)
            first = !(inside(tok, n, j, k) && same(tok + j, tok + i, k));
        if (first) found += adjusted(tok, n, tok + i, k, order) == c;
    }
    return found;
}

typedef struct slow {
    const int32_t *tok;
    int n, order;
    double d[6][4];
} slow;

static void slow_discounts(slow *s) {
    for (int k = 1; k <= s->order; k++) {
        double n[5] = {0};
        for (int c = 1; c <= 4; c++) n[c] = counts_of(s->tok, s->n, k, s->order, c);
        double y = n[1] > 0 ? n[1] / (n[1] + 2 * n[2]) : 0.5;
        for (int c = 1; c <= 3; c++) {
            double d = n[c] > 0 ? c - (c + 1) * y * n[c + 1] / n[c] : y;
            s->d[k][c] = d > 0 && d < c ? d : 0.5;
        }
    }
}

static double slow_prob(const slow *s, const int32_t *at, int k) {
    if (k == 0) return 1.0 / (V - 1);
    double lower = slow_prob(s, at, k - 1), total = 0, held = 0, mine = 0;
    int32_t g[8];
    memcpy(g, at - (k - 1), (size_t)k * sizeof *g);
    for (int w = 1; w < V; w++) {
        g[k - 1] = w;
        int c = adjusted(s->tok, s->n, g, k, s->order);
        double d = c ? s->d[k][c < 3 ? c : 3] : 0;
        total += c;
        held += d;
        if (w == at[0]) mine = c - d;
    }
    return total > 0 ? (mine + held * lower) / total : lower;
}

TEST(kn_equals_brute_force) {
    int32_t tok[N], test[60];
    toy(tok, N, 1);
    toy(test, 60, 2);
    for (int order = 1; order <= 4; order++) {
        cm_err err = {0};
        cm_kn *m = cm_kn_open(tok, N, V, BOS, order, &err);
        CHECKF(m, "%s", err.msg);
        if (!m) return;
        slow s = {tok, N, order, {{0}}};
        slow_discounts(&s);
        for (int i = 1, start = 0; i < 60; i++) {
            if (test[i] == BOS) start = i;
            if (test[i] == BOS) continue;
            int ctx = i - start < order - 1 ? i - start : order - 1;
            double fast = cm_kn_prob(m, test + i, ctx), want = slow_prob(&s, test + i, ctx + 1);
            CHECKF(fabs(fast - want) < 1e-12, "order %d, token %d: %.15g, want %.15g", order,
                   i, fast, want);
        }
        cm_kn_close(m);
    }
}

TEST(kn_sums_to_one) {
    int32_t tok[N], test[40];
    toy(tok, N, 3);
    toy(test, 40, 4);
    cm_err err = {0};
    cm_kn *m = cm_kn_open(tok, N, V, BOS, 5, &err);
    CHECKF(m, "%s", err.msg);
    if (!m) return;
    for (int i = 1; i < 40; i++) {
        double sum = 0;
        int32_t seen[8] = {0};
        int ctx = i < 4 ? i : 4;
        memcpy(seen, test + i - ctx, (size_t)ctx * sizeof *seen);
        for (int w = 0; w < V; w++)
            if (w != BOS) seen[ctx] = w, sum += cm_kn_prob(m, seen + ctx, ctx);
        CHECKF(fabs(sum - 1) < 1e-12, "context at %d: probabilities sum to %.15g", i, sum);
    }
    cm_kn_close(m);
}

TEST(kn_learns_what_repeats) {
    enum { M = 3000 };
    int32_t *tok = malloc(M * sizeof *tok);
    for (int i = 0; i < M; i++) tok[i] = i % 6 == 0 ? BOS : i % 6;
    cm_err err = {0};
    cm_kn *m = cm_kn_open(tok, M, V, BOS, 5, &err);
    int64_t n = 0;
    double bits = m ? cm_kn_bits(m, tok, M, &n) : 1e9;
    CHECKF(n == M / 6 * 5 && bits / (double)n < 0.02, "%lld tokens, %.4f bits each",
           (long long)n, bits / (double)n);
    cm_kn_close(m);
    free(tok);
}
