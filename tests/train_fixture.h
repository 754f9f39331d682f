/* train_fixture.h -- a tiny corpus and a tiny model for tests of the training loop.
 *
 * Documents are walks x -> 3x + 1 + noise over a vocabulary of 64, with BOS and EOS: a
 * model learns them in a few steps, so losses move and spikes can be told. */
#ifndef CM_TRAIN_FIXTURE_H
#define CM_TRAIN_FIXTURE_H

#include "tests/t.h"
#include "train/train.h"

enum { FX_VOCAB = 64, FX_BOS = 1, FX_EOS = 2 };

/* Write a data set of `docs` documents (a tenth of it for validation) into dir. */
void fx_corpus(const char *dir, int docs, unsigned flags);
/* The small hybrid's run file with extra lines of key=value words, NULL-terminated. */
void fx_conf(cm_conf *c, const char *const *words);

/* A job ready for cm_train over the corpus in dir, checkpoints in ckpt_dir. */
typedef struct fx_job {
    cm_conf conf;
    cm_model_conf model;
    cm_dataset data;
    cm_lm train, val;
    cm_source train_rows, val_rows;
    cm_job job;
} fx_job;
void fx_open(fx_job *f, const char *dir, const char *ckpt_dir, const char *const *words);
void fx_close(fx_job *f);
/* Open, train to the end or to stop_at, close; the text of the last SHA256SUMS. */
char *fx_run(const char *dir, const char *ckpt_dir, int64_t stop_at,
             const char *const *words);
/* The SHA256SUMS of one checkpoint (free()), NULL when there is none. */
char *fx_sums(const char *ckpt_dir, int64_t step);

#endif
