/* spm_proto.h -- the parts of SentencePiece's ModelProto that Chimera reads and writes.
 * (Field numbers: sentencepiece_model.proto of SentencePiece 0.1.97.) */
#ifndef CM_SPM_PROTO_H
#define CM_SPM_PROTO_H

#include "text/text.h"

typedef struct cm_spm_entry {
    char *text; /* NUL-terminated, free() */
    size_t n;
    float score;
    cm_piece_type type;
} cm_spm_entry;

typedef struct cm_spm_model {
    cm_spm_entry *piece;
    int n, cap;
    int model_type;     /* 1 unigram, 2 BPE, 3 word, 4 char */
    bool byte_fallback, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    bool suffix_whitespace; /* treat_whitespace_as_suffix */
    bool identity;      /* no normalisation rules */
    size_t n_self_test; /* bytes of self-test data */
} cm_spm_model;

/* Parse and check: at least one piece, valid types, distinct non-empty pieces without NUL
 * bytes, exactly one unknown piece, all 256 bytes when byte_fallback. */
bool cm_spm_proto_read(cm_spm_model *m, const void *proto, size_t n, const char *name,
                       cm_err *err);
void cm_spm_proto_free(cm_spm_model *m);
/* The byte of a piece "<0xE2>", or -1. */
int cm_spm_byte(const cm_spm_entry *e);

/* cm_spm_encode by the library alone, without cuts and cache: what tests compare with. */
bool cm_spm_encode_whole(const cm_spm *s, const char *text, size_t n, int32_t **out,
                         int64_t *n_out, int64_t *cap, cm_err *err);

/* The library's training, in this process: the caller is the child. */
bool cm_spm_train_here(const cm_spm_train_conf *c, FILE *in, cm_buf *proto, cm_err *err);

#endif
