/* probe_rows.c -- generated rows of tokens: associative recall and copying. */
#include "harness/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of one generated item, taken in order. */
typedef struct {
    cm_rng r;
    uint64_t i;
} draws;

static draws draws_of(uint64_t seed, uint64_t index) {
    return (draws){ cm_rng_make(seed, CM_RNG_PROBE, index), 0 };
}
static int64_t below(draws *d, int64_t n) {
    return (int64_t)cm_rng_below(d->r, d->i++, (uint64_t)n);
}

static void *get(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    CM_ASSERT(p, "out of memory for a generated row");
    return p;
}

static void row_make(cm_probe_row *r, int n, int n_at) {
    *r = (cm_probe_row){ .n = n, .n_at = n_at,
                         .token = get((size_t)n, sizeof *r->token),
                         .at = get((size_t)n_at, sizeof *r->at),
                         .slice = get((size_t)n_at, sizeof *r->slice) };
}

void cm_probe_row_free(cm_probe_row *r) {
    free(r->token);
    free(r->at);
    free(r->slice);
    *r = (cm_probe_row){ 0 };
}

int32_t *cm_probe_ids(const cm_spm *spm, int vocab, int *n) {
    int32_t *id = get((size_t)vocab, sizeof *id);
    *n = 0;
    for (int i = 0; i < vocab; i++) {
        cm_piece_type type = CM_PIECE_NORMAL;
        if (spm && i < cm_spm_vocab(spm)) cm_spm_piece(spm, i, NULL, &type);
        if (type == CM_PIECE_NORMAL && (!spm || i < cm_spm_vocab(spm))) id[(*n)++] = i;
    }
    return id;
}

/* k different numbers from [0,n), in random order. */
static int32_t *sample(draws *d, int n, int k) {
    int32_t *all = get((size_t)n, sizeof *all);
    for (int i = 0; i < n; i++) all[i] = i;
    for (int i = 0; i < k; i++) {
        int j = i + (int)below(d, n - i);
        int32_t t = all[i];
        all[i] = all[j];
        all[j] = t;
    }
    return all;
}

/* ---- multi-query associative recall ------------------------------------------------- */

typedef struct {
    double key;
    int32_t gap;
} weighted;

static int by_key(const void *a, const void *b) {
    const weighted *x = a, *y = b;
    return x->key != y->key ? (x->key < y->key) - (x->key > y->key) : x->gap - y->gap;
}

/* k of the gaps 1..n without replacement, weight alpha g^(alpha-1) each, in the order of
 * drawing: the largest of log(u)/weight come first (Efraimidis and Spirakis 2006), which is
 * drawing one after the other with the rest's weights renormalised. */
static int32_t *gaps(draws *d, int n, int k, double alpha) {
    weighted *w = get((size_t)n, sizeof *w);
    for (int g = 1; g <= n; g++) {
        double u = cm_rng_uniform(d->r, d->i++);
        w[g - 1] = (weighted){ log(u > 0 ? u : 1e-300) / pow(g, alpha - 1), g };
    }
    qsort(w, (size_t)n, sizeof *w, by_key);
    int32_t *out = get((size_t)k, sizeof *out);
    for (int i = 0; i < k; i++) out[i] = w[i].gap;
    free(w);
    return out;
}

/* Every place that is still -1 gets a random id that is none of the row's keys. */
static void fill(draws *d, int32_t *token, int n, const int32_t *id, int n_id,
                 const bool *is_key) {
    for (int i = 0; i < n; i++) {
        if (token[i] >= 0) continue;
        int64_t j;
        do j = below(d, n_id);
        while (is_key[j]);
        token[i] = id[j];
    }
}

bool cm_probe_mqar(const cm_mqar *c, const int32_t *id, int n_id, int bos, uint64_t seed,
                   uint64_t index, cm_probe_row *out, cm_err *err) {
    int K = c->pairs, L = c->length, half = n_id / 2, front = bos >= 0;
    if (K < 1 || L < 4 * K || L % 2)
        return cm_fail(err, CM_EXIT_USAGE,
                       "mqar of %d pairs in %d tokens: the length must be even and at least "
                       "4 times the pairs", K, L);
    if (half <= K)
        return cm_fail(err, CM_EXIT_USAGE,
                       "mqar of %d pairs: the tokenizer has %d ordinary pieces, and half of "
                       "them must exceed the pairs", K, n_id);
    draws d = draws_of(seed, index);
    int32_t *key = sample(&d, half, K), *value = sample(&d, n_id - half, K);
    int32_t *gap = gaps(&d, (L - 2 * K) / 2, K, c->alpha);
    bool *is_key = get((size_t)n_id, sizeof *is_key);
    row_make(out, front + L, K);
    for (int i = 0; i < out->n; i++) out->token[i] = -1;
    if (front) out->token[0] = bos;
    int32_t *token = out->token + front;
    for (int i = 0; i < K; i++) {
        int at = 2 * K + 2 * (gap[i] - 1);
        is_key[key[i]] = true;
        token[2 * i] = token[at] = id[key[i]];
        token[2 * i + 1] = token[at + 1] = id[half + value[i]];
        out->at[i] = front + at + 1;
        out->slice[i] = at - 2 * i;
    }
    fill(&d, token, L, id, n_id, is_key);
    free(key);
    free(value);
    free(gap);
    free(is_key);
    return true;
}

/* ---- copying ------------------------------------------------------------------------- */

bool cm_probe_copy(int block, int copies, const int32_t *id, int n_id, int bos,
                   uint64_t seed, uint64_t index, cm_probe_row *out, cm_err *err) {
    int front = bos >= 0, per = block - 1;
    if (block < 2 || copies < 1 || n_id < 2)
        return cm_fail(err, CM_EXIT_USAGE,
                       "copying %d times a block of %d tokens from %d pieces: at least once, "
                       "2 and 2", copies, block, n_id);
    draws d = draws_of(seed, index);
    row_make(out, front + block * (1 + copies), per * (1 + copies));
    if (front) out->token[0] = bos;
    for (int i = 0; i < block; i++) out->token[front + i] = id[below(&d, n_id)];
    for (int k = 1; k <= copies; k++)
        memcpy(out->token + front + k * block, out->token + front,
               (size_t)block * sizeof *out->token);
    for (int k = 0; k <= copies; k++)
        for (int i = 0; i < per; i++) {
            out->at[k * per + i] = front + k * block + 1 + i;
            out->slice[k * per + i] = k;
        }
    return true;
}
