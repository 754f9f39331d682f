/* corpus_int.h -- the parts of the tokenization pipeline, for each other.
 *
 * docs.c    inputs -> documents, checked, hashed, deduplicated, given a split
 * talks.c   the same for conversations and preferences
 * sample.c  documents -> a bounded, seeded sample of lines for the vocabulary
 * encode.c  documents -> tokens in parallel -> shards
 * exchange.c  the turns of a conversation that fit, to a shard
 * folder.c  the data set's folder: what is ours in it, the lock
 * corpus.c  the order of it all, resuming, the manifest */
#ifndef CM_CORPUS_INT_H
#define CM_CORPUS_INT_H

#include "text/corpus.h"
#include "text/talk.h"

/* What happened to the documents of one source. */
typedef struct cm_tally {
    uint64_t docs[2], bytes[2]; /* kept, by split */
    uint64_t empty, small, duplicate, rejected;
    uint64_t reason[CM_N_REJECTS]; /* the rejected ones, by reason */
    uint64_t truncated;            /* kept without some of their exchanges */
    uint64_t spaced; /* kept, with U+2581 in the text: it decodes as a space */
} cm_tally;

typedef struct cm_doc {
    const char *s; /* lives until the next call */
    size_t n;
    cm_doc_origin from;
    cm_split split;
    const cm_talk *talk; /* of a kind with masks, instead of s and n */
} cm_doc;

/* All documents of all inputs, in order.  The first n_val paths are val_inputs.
 * name[i] is what reports call path[i]. */
typedef struct cm_docs {
    const cm_tokenize_conf *c;
    cm_shard_kind kind; /* LM after opening */
    char *const *path, *const *name;
    int n_path, n_val;
    cm_out *rejects; /* NULL: not written */
    cm_tally *tally; /* [n_path] */
    /* private */
    int at;
    cm_src *src;
    bool jsonl, bom_checked;
    bool done_file;
    uint64_t pos_before;
    cm_buf body;
    cm_talk talk;
    struct { /* reading a file that is one JSON array */
        bool asked, on, closed; /* looked for; it is one; its bracket came */
        cm_line line;
        size_t at; /* in the line */
    } array;
    uint8_t (*seen)[16]; /* open addressing; all-zero = free */
    size_t n_seen, cap_seen;
} cm_docs;
void cm_docs_open(cm_docs *d, const cm_tokenize_conf *c, char *const *path,
                  char *const *name, int n_path, int n_val, cm_out *rejects);
void cm_docs_close(cm_docs *d);
/* *end is true after the last document. */
bool cm_docs_next(cm_docs *d, cm_doc *doc, bool *end, cm_err *err);
/* Bytes of the input files taken so far. */
uint64_t cm_docs_pos(const cm_docs *d);
/* Note that a line of a source is not used.  False (CM_EXIT_DATA) under on_reject: fail. */
bool cm_docs_reject(cm_docs *d, int source, uint64_t line, cm_reject reason,
                    const char *why, cm_err *err);
/* Note that a line is used, but not all of it. */
bool cm_docs_truncated(cm_docs *d, int source, uint64_t line, const char *what, cm_err *err);
/* What the first JSON value of the first input says it is; LM where that is plain text. */
bool cm_docs_probe(cm_docs *d, cm_shard_kind *kind, cm_err *err);

/* Between docs.c and talks.c. */
bool cm_docs_file(cm_docs *d, bool *end, cm_err *err);
bool cm_docs_line(cm_docs *d, cm_line *l, bool *end, cm_err *err);
/* The next line that is not blank, unless the file ends (d->done_file). */
bool cm_docs_text_line(cm_docs *d, cm_line *l, cm_err *err);
bool cm_docs_space(char c);
/* Does the current file hold JSON: by tokenize.format, its name, or stdin's first line? */
bool cm_docs_is_json(const cm_docs *d, bool array_too);
bool cm_docs_new(cm_docs *d, const uint8_t hash[16]);
cm_split cm_docs_split(const cm_docs *d, const uint8_t hash[16]);
void cm_docs_hash16(const char hex[65], uint8_t out[16]);
bool cm_docs_talk(cm_docs *d, cm_doc *doc, bool *keep, cm_err *err);

/* Remove what a data set's folder holds of ours; partial: only what a killed run leaves. */
bool cm_folder_sweep(const char *dir, bool partial, cm_err *err);
/* The folder's descriptor, locked, or -1. */
int cm_folder_lock(const char *dir, cm_err *err);
/* Is anything of a data set there? */
bool cm_folder_any(const char *dir);
/* Length of the longest part of a path that exists as a folder; 0 for none of it. */
size_t cm_folder_existing(const char *path);
/* A refusal promises that nothing was written: take back what a fresh start put into dir,
 * and its folders beyond the first `had` characters. */
void cm_folder_take_back(const char *dir, size_t had);

/* Lines of the training documents, at most max bytes of them, one a line into a file:
 * those with the smallest random numbers, so the choice depends on seed and order only. */
bool cm_sample_lines(cm_docs *d, uint64_t seed, uint64_t max, const char *path,
                     cm_err *err);

/* The pipeline's account, for progress and the manifest. */
typedef struct cm_corpus_job {
    const struct cm_corpus_conf *conf;
    cm_docs docs;
    const cm_spm *spm;
    cm_chat chat; /* of kinds with masks */
    cm_shard_conf shard;
    cm_shard_info *info[2];
    int n_info[2], n_done[2]; /* all shards; those found finished */
} cm_corpus_job;

/* A piece of a document on its way: text to encode, or one control token. */
typedef struct cm_span {
    size_t at, n; /* in the batch's text */
    int32_t *id;  /* kept between uses */
    int64_t n_id, cap;
    bool last; /* of its document */
    cm_split split;
    cm_doc_origin from;
    int32_t control; /* the rest is for conversations; -1: text */
    int turn;
    cm_role role;
    cm_mask mask;
} cm_span;

/* The turns of a conversation, or of a pair, that go into the shard. */
typedef struct cm_exchange {
    const cm_span *s; /* [n] of one document, encoded */
    int n;
    int32_t bos; /* -1: none */
    bool fits;
    int turns;    /* in all */
    int from, to; /* kept: turns [from,to), and a system turn before them */
    bool pair;    /* the last two turns are answers, always kept */
} cm_exchange;
/* Choose the turns within tokenize.max_tokens and report what does not fit. */
bool cm_exchange_fit(cm_exchange *x, cm_corpus_job *j, const cm_span *s, int n,
                     cm_err *err);
/* Add it to a shard, of a pair the document with answer k (0 chosen, 1 rejected). */
void cm_exchange_write(const cm_exchange *x, cm_shard_out *out, int k);

/* total: bytes of all inputs, for progress. */
bool cm_corpus_encode(cm_corpus_job *j, uint64_t total, cm_err *err);

#endif
