/* kn.c -- modified Kneser-Ney; see kn.h.
 *
 * An n-gram is stored as a position in the training tokens where it occurs, so tables
 * hold no copies and compare exactly.  Order k has a table of n-grams with their
 * (adjusted) counts and one of contexts with what normalisation needs. */
#include "data/ngram/kn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct gram { /* pos + 1, so that 0 is an empty slot */
    uint32_t pos1, count;
} gram;

typedef struct context {
    uint32_t pos1, total, n[3]; /* continuations seen once, twice, more often */
} context;

typedef struct table { /* open addressing; slots are `size` bytes, pos1 first */
    unsigned char *slot;
    uint64_t mask, used;
    size_t size;
    int len; /* tokens in a key */
} table;

struct cm_kn {
    const int32_t *tok;
    int64_t n;
    int order, bos, vocab, choices; /* choices: tokens that can be predicted */
    table grams[CM_KN_MAX_ORDER + 1], ctxs[CM_KN_MAX_ORDER + 1]; /* by order, from 1 */
    double d[CM_KN_MAX_ORDER + 1][4]; /* discount of a count, 3 and more at [3] */
};

/* ---- tables --------------------------------------------------------------------------- */

static uint64_t hash_tokens(const int32_t *t, int n) {
    uint64_t h = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < n; i++) {
        h = (h ^ (uint32_t)t[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

static uint32_t slot_pos1(const unsigned char *slot) {
    uint32_t p;
    memcpy(&p, slot, sizeof p);
    return p;
}

/* The slot of the key, or the empty one where it belongs. */
static void *probe(const table *t, const int32_t *tok, const int32_t *key) {
    for (uint64_t i = hash_tokens(key, t->len) & t->mask;; i = (i + 1) & t->mask) {
        unsigned char *s = t->slot + i * t->size;
        uint32_t p = slot_pos1(s);
        if (p == 0 || memcmp(tok + p - 1, key, (size_t)t->len * sizeof *key) == 0) return s;
    }
}

static bool table_open(table *t, int len, size_t size, uint64_t slots, cm_err *err) {
    *t = (table){calloc(slots, size), slots - 1, 0, size, len};
    return t->slot || cm_fail(err, CM_EXIT_RESOURCE, "n-gram table: out of memory");
}

static bool grow(table *t, const int32_t *tok, cm_err *err) {
    if (t->used * 3 < (t->mask + 1) * 2) return true;
    table old = *t;
    if (!table_open(t, old.len, old.size, (old.mask + 1) * 2, err)) {
        *t = old;
        return false;
    }
    t->used = old.used;
    for (uint64_t i = 0; i <= old.mask; i++) {
        unsigned char *s = old.slot + i * old.size;
        if (slot_pos1(s)) memcpy(probe(t, tok, tok + slot_pos1(s) - 1), s, old.size);
    }
    free(old.slot);
    return true;
}

/* The slot of the key at position pos, made when new; NULL when memory is out. */
static void *put(table *t, const int32_t *tok, int64_t pos, cm_err *err) {
    if (!grow(t, tok, err)) return NULL;
    unsigned char *s = probe(t, tok, tok + pos);
    if (!slot_pos1(s)) {
        uint32_t p = (uint32_t)pos + 1;
        memcpy(s, &p, sizeof p);
        t->used++;
    }
    return s;
}

static bool add_gram(cm_kn *m, int order, int64_t pos, cm_err *err) {
    gram *g = put(&m->grams[order], m->tok, pos, err);
    if (g) g->count++;
    return g != NULL;
}

/* ---- training --------------------------------------------------------------------------- */

/* Plain counts: all n-grams of the highest order, and at each document's start those of
 * the lower ones.  An n-gram lies within one document; BOS alone is never counted. */
static bool count_plain(cm_kn *m, cm_err *err) {
    int64_t start = 0;
    for (int64_t i = 0; i < m->n; i++) {
        if (m->tok[i] == m->bos) start = i;
        int64_t len = i - start + 1;
        if (len >= m->order) {
            if (m->tok[i] != m->bos && !add_gram(m, m->order, i - m->order + 1, err))
                return false;
        } else if (len > 1 && !add_gram(m, (int)len, start, err)) {
            return false;
        }
    }
    return true;
}

/* Order k counts the different tokens that stand before a k-gram: one for each entry of
 * order k + 1. */
static bool count_left(cm_kn *m, int k, cm_err *err) {
    const table *up = &m->grams[k + 1];
    for (uint64_t i = 0; i <= up->mask; i++) {
        uint32_t p = slot_pos1(up->slot + i * up->size);
        if (p && !add_gram(m, k, p, err)) return false; /* p = pos + 1: the suffix */
    }
    return true;
}

/* D1 D2 D3+ from the counts of counts; where a small corpus lacks them, the next best. */
static void discounts(cm_kn *m, int k) {
    double n[5] = {0};
    const table *t = &m->grams[k];
    for (uint64_t i = 0; i <= t->mask; i++) {
        const gram *g = (const gram *)(const void *)(t->slot + i * t->size);
        if (g->pos1 && g->count <= 4) n[g->count]++;
    }
    double y = n[1] > 0 ? n[1] / (n[1] + 2 * n[2]) : 0.5;
    for (int c = 1; c <= 3; c++) {
        double d = n[c] > 0 ? c - (c + 1) * y * n[c + 1] / n[c] : y;
        m->d[k][c] = d > 0 && d < c ? d : 0.5;
    }
}

static bool sum_contexts(cm_kn *m, int k, cm_err *err) {
    const table *t = &m->grams[k];
    for (uint64_t i = 0; i <= t->mask; i++) {
        const gram *g = (const gram *)(const void *)(t->slot + i * t->size);
        if (!g->pos1) continue;
        context *c = put(&m->ctxs[k], m->tok, (int64_t)g->pos1 - 1, err);
        if (!c) return false;
        c->total += g->count;
        c->n[g->count < 3 ? g->count - 1 : 2]++;
    }
    return true;
}

static bool train(cm_kn *m, cm_err *err) {
    for (int k = 1; k <= m->order; k++)
        if (!table_open(&m->grams[k], k, sizeof(gram), 1024, err) ||
            !table_open(&m->ctxs[k], k - 1, sizeof(context), 1024, err))
            return false;
    if (!count_plain(m, err)) return false;
    for (int k = m->order - 1; k >= 1; k--)
        if (!count_left(m, k, err)) return false;
    for (int k = 1; k <= m->order; k++) {
        discounts(m, k);
        if (!sum_contexts(m, k, err)) return false;
    }
    return true;
}

cm_kn *cm_kn_open(const int32_t *tok, int64_t n, int vocab, int bos, int order,
                  cm_err *err) {
    CM_ASSERT(order >= 1 && order <= CM_KN_MAX_ORDER, "order %d", order);
    if (n < 2 || n >= UINT32_MAX || tok[0] != bos) {
        cm_fail(err, CM_EXIT_DATA, "n-gram: %lld tokens; want 2 to 4 billion, the first "
                "of them BOS", (long long)n);
        return NULL;
    }
    cm_kn *m = calloc(1, sizeof *m);
    if (!m) {
        cm_fail(err, CM_EXIT_RESOURCE, "n-gram: out of memory");
        return NULL;
    }
    m->tok = tok, m->n = n, m->order = order, m->bos = bos, m->vocab = vocab;
    m->choices = bos >= 0 && bos < vocab ? vocab - 1 : vocab;
    if (train(m, err)) return m;
    cm_kn_close(m);
    return NULL;
}

void cm_kn_close(cm_kn *m) {
    if (!m) return;
    for (int k = 1; k <= m->order; k++) {
        free(m->grams[k].slot);
        free(m->ctxs[k].slot);
    }
    free(m);
}

/* ---- asking --------------------------------------------------------------------------- */

/* P_k(w | h) = (c - D(c)) / total + (sum of discounts / total) * P_{k-1}(w | h'), from
 * the shortest context up; an unseen context leaves the shorter one's answer. */
double cm_kn_prob(const cm_kn *m, const int32_t *at, int ctx) {
    double p = 1.0 / m->choices;
    for (int k = 1; k <= m->order && k <= ctx + 1; k++) {
        const int32_t *key = at - (k - 1);
        const context *c = probe(&m->ctxs[k], m->tok, key);
        if (!c->pos1) break;
        const gram *g = probe(&m->grams[k], m->tok, key);
        const double *d = m->d[k];
        uint32_t n = g->pos1 ? g->count : 0;
        double held = d[1] * c->n[0] + d[2] * c->n[1] + d[3] * c->n[2];
        p = ((n ? n - d[n < 3 ? n : 3] : 0) + held * p) / c->total;
    }
    return p;
}

double cm_kn_bits(const cm_kn *m, const int32_t *tok, int64_t n, int64_t *predicted) {
    double bits = 0;
    int64_t start = 0;
    *predicted = 0;
    for (int64_t i = 0; i < n; i++) {
        if (tok[i] == m->bos) {
            start = i;
            continue;
        }
        int64_t before = i - start;
        bits -= log2(cm_kn_prob(m, tok + i, before < m->order ? (int)before : m->order - 1));
        ++*predicted;
    }
    return bits;
}

int64_t cm_kn_stats(const cm_kn *m, int order, double d[3]) {
    for (int i = 0; i < 3; i++) d[i] = m->d[order][i + 1];
    return (int64_t)m->grams[order].used;
}
