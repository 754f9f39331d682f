/* sample.c -- a bounded, seeded sample of lines for vocabulary training.
 *
 * Line i gets the random number rng(seed, i); the lines with the smallest numbers that fit
 * are the sample.  That set depends on the input's order and the seed only, needs one
 * pass, and holds at most twice the wanted bytes. */
#include "text/corpus_int.h"

#include <stdlib.h>
#include <string.h>

typedef struct item {
    uint64_t rank;  /* its random number */
    uint64_t index; /* of the line: the order of the output */
    size_t at, n;
} item;

typedef struct sample {
    uint64_t max;
    cm_buf text;
    item *it;
    size_t n, cap;
    uint64_t limit; /* ranks from here on are out */
} sample;

static int by_rank(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int by_index(const void *a, const void *b) {
    const item *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Keep the smallest ranks that fit into max bytes. */
static void shrink(sample *s) {
    uint64_t total = 0;
    size_t keep = 0;
    if (!s->n) return;
    qsort(s->it, s->n, sizeof *s->it, by_rank);
    while (keep < s->n && total + s->it[keep].n + 1 <= s->max)
        total += s->it[keep++].n + 1;
    if (keep < s->n) s->limit = s->it[keep].rank;
    s->n = keep;
    qsort(s->it, s->n, sizeof *s->it, by_index);
    size_t to = 0;
    for (size_t i = 0; i < s->n; i++) { /* offsets grow with the index */
        memmove(s->text.s + to, s->text.s + s->it[i].at, s->it[i].n);
        s->it[i].at = to;
        to += s->it[i].n;
    }
    s->text.n = to;
}

static void add(sample *s, cm_rng rng, uint64_t index, const char *p, size_t n) {
    uint64_t rank = cm_rng_u64(rng, index);
    if (!n || rank >= s->limit || n + 1 > s->max) return;
    if (s->text.n + s->n + n > 2 * s->max) shrink(s);
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 4096;
        s->it = realloc(s->it, s->cap * sizeof *s->it);
        CM_ASSERT(s->it, "out of memory");
    }
    s->it[s->n++] = (item){ rank, index, s->text.n, n };
    cm_buf_add(&s->text, p, n);
}

static bool write_sample(sample *s, const char *path, cm_err *err) {
    cm_out out;
    if (!cm_out_open(&out, path, err)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < s->n; i++)
        ok = cm_out_write(&out, s->text.s + s->it[i].at, s->it[i].n, err) &&
             cm_out_write(&out, "\n", 1, err);
    if (ok) return cm_out_commit(&out, err);
    cm_out_abort(&out);
    return false;
}

bool cm_sample_lines(cm_docs *d, uint64_t seed, uint64_t max, const char *path,
                     cm_err *err) {
    sample s = { .max = max, .limit = UINT64_MAX };
    cm_rng rng = cm_rng_make(seed, CM_RNG_VOCAB, 0);
    uint64_t index = 0;
    bool ok, end;
    cm_doc doc;
    while ((ok = cm_docs_next(d, &doc, &end, err)) && !end) {
        if (doc.split != CM_SPLIT_TRAIN) continue;
        for (const char *p = doc.s, *stop = doc.s + doc.n; p < stop; index++) {
            const char *nl = memchr(p, '\n', (size_t)(stop - p));
            if (!nl) nl = stop;
            add(&s, rng, index, p, (size_t)(nl - p));
            p = nl + 1;
        }
    }
    if (ok) shrink(&s);
    ok = ok && write_sample(&s, path, err);
    cm_buf_free(&s.text);
    free(s.it);
    return ok;
}
