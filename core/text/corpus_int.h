/* corpus_int.h -- the parts of the tokenization pipeline, for each other.
 *
 * docs.c    inputs -> documents, checked, hashed, deduplicated, given a split
 * sample.c  documents -> a bounded, seeded sample of lines for the vocabulary
 * encode.c  documents -> tokens in parallel -> shards
 * corpus.c  the order of it all, resuming, the manifest */
#ifndef CM_CORPUS_INT_H
#define CM_CORPUS_INT_H

#include "text/corpus.h"

/* What happened to the documents of one source. */
typedef struct cm_tally {
    uint64_t docs[2], bytes[2]; /* kept, by split */
    uint64_t empty, small, duplicate, rejected;
    uint64_t spaced; /* kept, with U+2581 in the text: it decodes as a space */
} cm_tally;

typedef struct cm_doc {
    const char *s; /* lives until the next call */
    size_t n;
    cm_doc_origin from;
    cm_split split;
} cm_doc;

/* All documents of all inputs, in order.  The first n_val paths are val_inputs.
 * name[i] is what reports call path[i]. */
typedef struct cm_docs {
    const cm_tokenize_conf *c;
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

/* Lines of the training documents, at most max bytes of them, one a line into a file:
 * those with the smallest random numbers, so the choice depends on seed and order only. */
bool cm_sample_lines(cm_docs *d, uint64_t seed, uint64_t max, const char *path,
                     cm_err *err);

/* The pipeline's account, for progress and the manifest. */
typedef struct cm_corpus_job {
    const struct cm_corpus_conf *conf;
    cm_docs docs;
    const cm_spm *spm;
    cm_shard_conf shard;
    cm_shard_info *info[2];
    int n_info[2], n_done[2]; /* all shards; those found finished */
} cm_corpus_job;
/* total: bytes of all inputs, for progress. */
bool cm_corpus_encode(cm_corpus_job *j, uint64_t total, cm_err *err);

#endif
