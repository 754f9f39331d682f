/* ppl_doc.c -- documents of token shards for perplexity: plain text, conversations. */
#include "harness/harness.h"

#include <stdlib.h>
#include <string.h>

static void grow(cm_ppl_doc *p, int64_t n) {
    if (n <= p->cap) return;
    p->cap = 2 * n;
    p->all_id = realloc(p->all_id, (size_t)p->cap * sizeof *p->all_id);
    p->all_mask = realloc(p->all_mask, (size_t)p->cap);
    CM_ASSERT(p->all_id && p->all_mask, "out of memory for a document of %lld tokens",
              (long long)n);
}

static int64_t words_of(const cm_spm *spm, const int32_t *id, int64_t n) {
    char *text = cm_spm_decode(spm, id, n);
    int64_t words = text ? cm_count_words(text, strlen(text)) : 0;
    free(text);
    return words;
}

bool cm_ppl_doc_read(cm_ppl_doc *p, const cm_dataset *d, const cm_spm *spm, int64_t i,
                     cm_err *err) {
    int64_t start, n, bytes;
    bool masked = cm_shard_masked(d->kind);
    if (!cm_dataset_doc(d, CM_SPLIT_VAL, i, &start, &n, &bytes, err)) return false;
    grow(p, n);
    if (!cm_dataset_read(d, CM_SPLIT_VAL, start, n, p->all_id, NULL, err) ||
        (masked && !cm_dataset_masks(d, CM_SPLIT_VAL, start, n, p->all_mask, err)))
        return false;
    int64_t skip = n && p->all_id[0] == d->bos;
    int64_t tail = !masked && n > skip && p->all_id[n - 1] == d->eos;
    p->id = p->all_id + skip;
    p->mask = masked ? p->all_mask + skip : NULL;
    p->n = n - skip - tail;
    p->bytes = masked ? 0 : bytes;
    p->words = masked ? 0 : words_of(spm, p->all_id, n);
    for (int64_t k = 0; masked && k < p->n; k++) p->bytes += p->mask[k] != CM_MASK_NONE;
    return true;
}

void cm_ppl_doc_free(cm_ppl_doc *p) {
    free(p->all_id);
    free(p->all_mask);
    *p = (cm_ppl_doc){ 0 };
}

bool cm_ppl_suits(const cm_dataset *d, const cm_spm *spm, cm_err *err) {
    if (strcmp(d->tokenizer, cm_spm_hash(spm)))
        return cm_fail(err, CM_EXIT_DATA, "%s: made with tokenizer %.12s, but the model's is "
                       "%.12s", d->dir, d->tokenizer, cm_spm_hash(spm));
    return d->kind != CM_SHARD_DPO ||
           cm_fail(err, CM_EXIT_DATA, "%s: these shards hold preferences, of which a loss says "
                   "nothing; dpo's validation has what does (val/rewards/accuracies, "
                   "docs/METRICS.md)", d->dir);
}
