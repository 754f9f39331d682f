/* stats.c -- what a tokenizer made of a corpus: compression, fertility, lengths, use, masks. */
#include "text/corpus.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { READ = 1 << 16 };

/* What one token does to the count of words. */
typedef struct kind {
    bool special, byte, unknown; /* special: no text */
    bool opens, closes;          /* first, last byte are not white space */
    int inner;                   /* words that begin inside */
} kind;

static kind *kinds_of(const cm_spm *s) {
    int n = cm_spm_vocab(s);
    kind *k = calloc((size_t)n, sizeof *k);
    CM_ASSERT(k, "out of memory");
    cm_buf b = { 0 };
    for (int i = 0; i < n; i++) {
        cm_piece_type type;
        cm_spm_piece(s, i, NULL, &type);
        b.n = 0;
        cm_spm_token_bytes(s, i, &b);
        k[i].special = b.n == 0;
        k[i].byte = type == CM_PIECE_BYTE;
        k[i].unknown = type == CM_PIECE_UNKNOWN;
        if (!b.n) continue;
        k[i].opens = !isspace((unsigned char)b.s[0]);
        k[i].closes = !isspace((unsigned char)b.s[b.n - 1]);
        for (size_t c = 1; c < b.n; c++)
            k[i].inner += isspace((unsigned char)b.s[c - 1]) &&
                          !isspace((unsigned char)b.s[c]);
    }
    cm_buf_free(&b);
    return k;
}

static int by_length(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void quantiles(int64_t *len, int64_t n, int64_t out[CM_DOC_QUANTILES]) {
    static const int percent[CM_DOC_QUANTILES] = { 0, 5, 25, 50, 75, 95, 100 };
    qsort(len, (size_t)n, sizeof *len, by_length);
    for (int q = 0; n && q < CM_DOC_QUANTILES; q++) out[q] = len[(n - 1) * percent[q] / 100];
}

static bool doc_lengths(const cm_dataset *d, cm_split split, cm_corpus_stats *out,
                        cm_err *err) {
    int64_t n = d->n_docs[split], start, bytes, a, r;
    int64_t *len = malloc((size_t)(n + 1) * sizeof *len);
    int64_t *trained = malloc((size_t)(n + 1) * sizeof *trained);
    CM_ASSERT(len && trained, "out of memory");
    bool ok = true;
    for (int64_t i = 0; ok && i < n; i++) {
        ok = cm_dataset_doc(d, split, i, &start, &len[i], &bytes, err) &&
             cm_dataset_trained(d, split, i, &a, &r, err);
        trained[i] = ok ? a + r : 0;
    }
    quantiles(len, n, out->doc_tokens);
    quantiles(trained, n, out->doc_trained);
    free(len);
    free(trained);
    return ok;
}

/* Tokens of document i, to be freed. */
static bool doc_ids(const cm_dataset *d, cm_split split, int64_t i, int32_t **id, int64_t *n,
                    cm_err *err) {
    int64_t start, bytes;
    *id = NULL;
    if (!cm_dataset_doc(d, split, i, &start, n, &bytes, err)) return false;
    *id = malloc((size_t)*n * sizeof **id);
    CM_ASSERT(*id, "out of memory: a document of %lld tokens", (long long)*n);
    return cm_dataset_read(d, split, start, *n, *id, NULL, err);
}

static bool measure_pairs(const cm_dataset *d, cm_split split, cm_corpus_stats *out,
                          cm_err *err) {
    bool ok = true;
    out->pairs = d->n_docs[split] / 2;
    for (int64_t i = 0; ok && i < d->n_docs[split]; i += 2) {
        int64_t a[2], r[2], n[2];
        int32_t *id[2] = { NULL, NULL };
        for (int k = 0; ok && k < 2; k++)
            ok = cm_dataset_trained(d, split, i + k, &a[k], &r[k], err) &&
                 doc_ids(d, split, i + k, &id[k], &n[k], err);
        if (ok) {
            int64_t won = a[0] + r[0], lost = a[1] + r[1];
            out->chosen_tokens += won;
            out->rejected_tokens += lost;
            out->chosen_longer += won > lost;
            out->equal_length += won == lost;
            out->identical += n[0] == n[1] &&
                              !memcmp(id[0], id[1], (size_t)n[0] * sizeof *id[0]);
        }
        free(id[0]);
        free(id[1]);
    }
    return ok;
}

bool cm_corpus_measure(const cm_dataset *d, const cm_spm *spm, cm_split split,
                       cm_corpus_stats *out, cm_err *err) {
    *out = (cm_corpus_stats){ .tokens = d->n_tokens[split], .docs = d->n_docs[split],
                              .bytes = d->n_bytes[split], .stored = d->n_stored[split],
                              .vocab = d->vocab, .answer = d->n_answer[split],
                              .reasoning = d->n_reasoning[split] };
    kind *kinds = kinds_of(spm);
    bool *used = calloc((size_t)d->vocab, sizeof *used);
    int32_t *id = malloc(READ * sizeof *id);
    CM_ASSERT(used && id, "out of memory");
    bool inside = false, ok = true; /* inside a word */
    for (int64_t at = 0, n; ok && at < out->tokens; at += n) {
        n = out->tokens - at < READ ? out->tokens - at : READ;
        ok = cm_dataset_read(d, split, at, n, id, NULL, err);
        for (int64_t i = 0; ok && i < n; i++) {
            const kind *k = &kinds[id[i]];
            used[id[i]] = true;
            out->byte_tokens += k->byte;
            out->unk_tokens += k->unknown;
            out->word_tokens += !k->special;
            out->words += k->inner + (k->opens && !inside);
            inside = k->closes;
        }
    }
    for (int i = 0; i < d->vocab; i++) out->vocab_used += used[i];
    free(id);
    free(used);
    free(kinds);
    return ok && doc_lengths(d, split, out, err) &&
           (d->kind != CM_SHARD_DPO || measure_pairs(d, split, out, err));
}

void cm_token_show(const cm_spm *spm, int id, cm_buf *out) {
    cm_piece_type type;
    const char *piece = cm_spm_piece(spm, id, NULL, &type);
    cm_buf b = { 0 };
    cm_spm_token_bytes(spm, id, &b);
    if (type == CM_PIECE_BYTE && b.s[0] == '\n') {
        cm_buf_addf(out, "\xE2\x8F\x8E\n");
    } else if (type == CM_PIECE_NORMAL || type == CM_PIECE_USER || type == CM_PIECE_UNUSED) {
        cm_buf_add(out, b.s, b.n);
    } else if (type == CM_PIECE_BYTE && isprint((unsigned char)b.s[0])) {
        cm_buf_add(out, b.s, 1);
    } else {
        cm_buf_addf(out, "%s", piece);
    }
    cm_buf_free(&b);
}
