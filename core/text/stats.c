/* stats.c -- what a tokenizer made of a corpus: compression, fertility, lengths, use. */
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

static bool doc_lengths(const cm_dataset *d, cm_split split, cm_corpus_stats *out,
                        cm_err *err) {
    static const int percent[CM_DOC_QUANTILES] = { 0, 5, 25, 50, 75, 95, 100 };
    int64_t n = d->n_docs[split], start, bytes;
    int64_t *len = malloc((size_t)(n + 1) * sizeof *len);
    CM_ASSERT(len, "out of memory");
    bool ok = true;
    for (int64_t i = 0; ok && i < n; i++)
        ok = cm_dataset_doc(d, split, i, &start, &len[i], &bytes, err);
    qsort(len, (size_t)n, sizeof *len, by_length);
    for (int q = 0; ok && n && q < CM_DOC_QUANTILES; q++)
        out->doc_tokens[q] = len[(n - 1) * percent[q] / 100];
    free(len);
    return ok;
}

bool cm_corpus_measure(const cm_dataset *d, const cm_spm *spm, cm_split split,
                       cm_corpus_stats *out, cm_err *err) {
    *out = (cm_corpus_stats){ .tokens = d->n_tokens[split], .docs = d->n_docs[split],
                              .bytes = d->n_bytes[split], .stored = d->n_stored[split],
                              .vocab = d->vocab };
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
    return ok && doc_lengths(d, split, out, err);
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
