/* corpus.h -- text files to a data set: what `tokenize` does. */
#ifndef CM_CORPUS_H
#define CM_CORPUS_H

#include "conf/conf.h"

/* Control pieces that every trained vocabulary reserves, in id order from 3. */
#define CM_CHAT_MARKERS                                                                 \
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>"

typedef struct cm_corpus_progress {
    const char *stage;                  /* "vocabulary", "encode" */
    uint64_t done, total;               /* bytes of the input files; total 0 = unknown */
    int64_t tokens, docs, text_bytes;   /* so far */
} cm_corpus_progress;

typedef struct cm_corpus_conf {
    const cm_tokenize_conf *t;
    uint64_t seed;
    int threads;
    /* Called now and then from the calling thread's team; false stops: finished shards
     * stay and the same call resumes.  May be NULL. */
    bool (*progress)(void *ctx, const cm_corpus_progress *p);
    void *ctx;
} cm_corpus_conf;

/* Build the data set t->out: tokenizer.model, shards, rejected.jsonl, manifest.json (last).
 * The files depend on inputs, configuration and seed, not on threads or interruptions.  A
 * folder that an interrupted call with the same configuration left behind is completed:
 * finished shards are verified, matched with the documents they claim, and kept.
 * A finished data set is CM_EXIT_USAGE. */
bool cm_corpus_build(const cm_corpus_conf *c, cm_err *err);
/* Everything short of writing: inputs found and readable, tokenizer loads, folder usable. */
bool cm_corpus_check(const cm_corpus_conf *c, int *n_files, uint64_t *n_bytes, cm_err *err);

#endif
