/* shard_manifest.h -- a manifest as read, for the data set reader. */
#ifndef CM_SHARD_MANIFEST_H
#define CM_SHARD_MANIFEST_H

#include "io/io.h"

typedef struct cm_manifest {
    char id[65]; /* SHA-256 of the file */
    cm_shard_conf c;
    char tokenizer[256]; /* file name */
    int64_t n_tokens[2], n_docs[2], n_bytes[2], n_answer[2], n_reasoning[2];
    cm_shard_info *shard[2];
    int n_shard[2];
} cm_manifest;
bool cm_manifest_read(cm_manifest *m, const char *path, cm_err *err);
void cm_manifest_free(cm_manifest *m);

#endif
