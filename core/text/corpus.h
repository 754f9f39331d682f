/* corpus.h -- text files to a data set: what `tokenize` does. */
#ifndef CM_CORPUS_H
#define CM_CORPUS_H

#include "conf/conf.h"
#include "io/io.h"
#include "text/text.h"

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
    /* Opens the file of t->tokenizer, which may be a kind that is above this folder.  NULL:
     * cm_spm_open. */
    cm_spm *(*open)(const char *path, cm_err *err);
} cm_corpus_conf;

/* Build the data set t->out: tokenizer.model, shards, rejected.jsonl, manifest.json (last).
 * The files depend on inputs, configuration and seed, not on threads or interruptions.  A
 * folder that an interrupted call with the same configuration left behind is completed:
 * finished shards are verified, matched with the documents they claim, and kept.
 * A finished data set is CM_EXIT_USAGE.  CM_EXIT_USAGE, and CM_EXIT_DATA before there is a
 * vocabulary (a damaged tokenizer), leave a folder without a begun data set as it was, and
 * none where there was none. */
bool cm_corpus_build(const cm_corpus_conf *c, cm_err *err);
/* CM_EXIT_USAGE where a folder holds a run, a model, an evaluation or the tokenizer of something
 * else, among which shards would be lost.  Fine when there is no such folder. */
bool cm_corpus_may_fill(const char *dir, cm_err *err);
/* Remove from a folder what cm_corpus_build writes, finished or not, and nothing else.
 * CM_EXIT_USAGE when another process works there.  Fine when there is no such folder. */
bool cm_corpus_clear(const char *dir, cm_err *err);
/* The keys in which the finished data set t->out differs from this configuration, separated
 * by commas ("tokenize.min_bytes, inputs"); nothing when it is what a build would make.
 * Inputs from stdin are not compared. */
bool cm_corpus_changes(const cm_corpus_conf *c, cm_buf *keys, cm_err *err);
/* Everything short of writing: inputs found and readable, tokenizer loads, folder usable. */
bool cm_corpus_check(const cm_corpus_conf *c, int *n_files, uint64_t *n_bytes, cm_err *err);

/* ---- what came out --------------------------------------------------------------------- */

enum { CM_DOC_QUANTILES = 7 }; /* 0, 5, 25, 50, 75, 95, 100 % */
typedef struct cm_corpus_stats {
    int64_t tokens, docs, bytes, stored; /* bytes of source text, of shard files */
    int64_t words;                       /* runs of bytes without white space */
    int64_t word_tokens;                 /* tokens, specials left out */
    int64_t byte_tokens, unk_tokens;     /* pieces the vocabulary had nothing better for */
    int64_t doc_tokens[CM_DOC_QUANTILES];
    int vocab, vocab_used; /* pieces that occur at least once */
    /* Of kinds with masks: */
    int64_t answer, reasoning;              /* tokens with these masks */
    int64_t doc_trained[CM_DOC_QUANTILES];  /* both, by document */
    int64_t pairs, chosen_longer, equal_length, identical; /* of preferences; by answer */
    int64_t chosen_tokens, rejected_tokens; /* in answers */
} cm_corpus_stats;
/* Over one split; reads all of it. */
bool cm_corpus_measure(const cm_dataset *d, const cm_spm *spm, cm_split split,
                       cm_corpus_stats *out, cm_err *err);
/* One token as text for a person: control pieces by name, a newline as "\u23CE" and a line
 * break, bytes that are not printable text as <0xE2>. */
void cm_token_show(const cm_spm *spm, int id, cm_buf *out);

#endif
