/* ckpt_int.h -- between ckpt.c (a checkpoint's content) and ckpt_dir.c (the folder of
 * checkpoints). */
#ifndef CM_CKPT_INT_H
#define CM_CKPT_INT_H

#include "train/train.h"

char *cm__ckpt_name(int64_t step); /* "step-00000120", free() */
/* Steps of the checkpoint folders in dir, ascending; *step is free()d by the caller. */
int cm__ckpt_list(const char *dir, int64_t **step);
/* Take one checkpoint away: renamed first, so it is never seen half removed. */
bool cm__ckpt_drop(const char *dir, const char *name, cm_err *err);
/* Drop what neither keep_last, keep_every nor best holds. */
bool cm__ckpt_prune(const cm_ckpt *c, cm_err *err);
/* Write folder/SHA256SUMS over its files, in the form `sha256sum -c` reads. */
bool cm__sums_write(const char *folder, cm_err *err);
/* Do saved text and c's configuration agree in every key that moves a number?  diff gets
 * those that do not, one line each. */
bool cm__conf_same(const cm_ckpt *c, const char *name, const char *text, size_t n,
                   cm_buf *diff);

#endif
