/* data.c -- rows of a language model: blocks of the token stream in a seeded order.
 *
 * Block i holds tokens [iT, iT+T] of the split; its last token is only a target.  Row r of
 * the endless stream is block permute(epoch, r mod rows), so the whole position of a run
 * is the number r, and no state has to be saved beside it. */
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

/* Targets, document numbers and positions of one row from its T+1 tokens. */
static void fill_row(const cm_lm *l, int64_t n, const cm_rows *out, int64_t at) {
    int32_t *token = out->token + at, *target = out->target + at;
    int32_t *doc = out->doc + at, *pos = out->pos + at;
    for (int64_t t = 0; t < l->T; t++) {
        bool inside = t + 1 < n;
        token[t] = t < n ? l->token[t] : 0;
        target[t] = inside ? l->token[t + 1] : -1;
        bool next_begins = inside && l->doc[t + 1] != l->doc[t];
        if (next_begins && l->mask_first) target[t] = -1;
        bool begins = t == 0 || (t < n && l->doc[t] != l->doc[t - 1]) || t == n;
        doc[t] = t == 0 ? 0 : doc[t - 1] + begins;
        pos[t] = begins ? 0 : pos[t - 1] + 1;
    }
}

static bool read_rows(void *self, int64_t row, int n, const cm_rows *out, cm_err *err) {
    const cm_lm *l = self;
    for (int i = 0; i < n; i++, row++) {
        uint64_t epoch = (uint64_t)(row / l->rows), block = (uint64_t)(row % l->rows);
        if (l->shuffle) {
            cm_rng r = cm_rng_make(l->seed, CM_RNG_SHUFFLE, epoch);
            block = cm_permute(r, block, (uint64_t)l->rows);
        }
        int64_t start = (int64_t)block * l->T, have = l->n_tokens - start;
        if (have > l->T + 1) have = l->T + 1;
        if (!cm_dataset_read(l->data, l->split, start, have, l->token, l->doc, err))
            return false;
        fill_row(l, have, out, (int64_t)i * l->T);
    }
    return true;
}

static bool open_split(cm_lm *l, const cm_dataset *d, cm_split split, const cm_conf *c,
                       cm_source *s, cm_err *err) {
    *l = (cm_lm){ .data = d, .split = split, .seed = (uint64_t)c->top.seed,
                  .T = (int)c->data.seq_len, .n_tokens = d->n_tokens[split] };
    if (d->kind != CM_SHARD_LM)
        return cm_fail(err, CM_EXIT_DATA,
                       "%s: these shards are not for language modelling; tokenize plain "
                       "text, or use the tool they were made for", d->dir);
    l->reset = c->data.reset;
    l->mask_first = l->reset && (d->flags & CM_SHARD_EOS);
    size_t room = (size_t)l->T + 1;
    l->token = malloc(room * sizeof *l->token);
    l->doc = malloc(room * sizeof *l->doc);
    CM_ASSERT(l->token && l->doc, "out of memory for a row");
    *s = (cm_source){ .self = l, .T = l->T, .packed = l->reset, .read = read_rows };
    memcpy(s->id, d->id, sizeof s->id);
    return true;
}

bool cm_lm_open(cm_lm *l, const cm_dataset *d, const cm_conf *c, cm_source *s,
                cm_err *err) {
    if (!open_split(l, d, CM_SPLIT_TRAIN, c, s, err)) return false;
    l->shuffle = c->data.shuffle;
    l->rows = l->n_tokens > 0 ? (l->n_tokens - 1) / l->T : 0;
    int64_t want = c->data.batch_tokens / l->T;
    if (l->rows < want || l->rows < 1) {
        cm_fail(err, CM_EXIT_USAGE,
                "%s: the training split has %lld tokens, %lld rows of %d; one batch takes "
                "%lld rows (data.batch_tokens = %lld): use more text or a smaller batch",
                d->dir, (long long)l->n_tokens, (long long)l->rows, l->T,
                (long long)want, (long long)c->data.batch_tokens);
        cm_lm_close(l);
        return false;
    }
    s->rows = l->rows;
    s->bytes = d->n_bytes[CM_SPLIT_TRAIN];
    return true;
}

bool cm_lm_open_val(cm_lm *l, const cm_dataset *d, const cm_conf *c, cm_source *s,
                    cm_err *err) {
    if (!open_split(l, d, CM_SPLIT_VAL, c, s, err)) return false;
    int64_t limit = c->val.tokens ? c->val.tokens : l->n_tokens, end = 0;
    for (int64_t i = 0; i < d->n_docs[CM_SPLIT_VAL] && end < limit; i++) {
        int64_t start, n, bytes;
        if (!cm_dataset_doc(d, CM_SPLIT_VAL, i, &start, &n, &bytes, err)) {
            cm_lm_close(l);
            return false;
        }
        end = start + n;
        s->bytes += bytes;
    }
    l->n_tokens = end;
    l->rows = end > 1 ? (end - 1 + l->T - 1) / l->T : 0;
    s->rows = l->rows;
    return true;
}

void cm_lm_close(cm_lm *l) {
    free(l->token);
    free(l->doc);
    l->token = NULL;
    l->doc = NULL;
}
