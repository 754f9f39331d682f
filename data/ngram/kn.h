/* kn.h -- an interpolated modified Kneser-Ney language model over token ids.
 *
 * The baseline that a neural model has to beat.  Formulas: Chen & Goodman 1998 (modified
 * KN, three discounts an order); lower orders count the different tokens to the left;
 * n-grams that begin a document keep their plain counts, since nothing stands before
 * BOS.  The unigram falls back on a uniform choice of all tokens but BOS, so that the
 * probabilities of every context sum to one. */
#ifndef CM_KN_H
#define CM_KN_H

#include "base/base.h"

enum { CM_KN_MAX_ORDER = 12 };

typedef struct cm_kn cm_kn;

/* tok: n tokens, each document beginning with bos (ids 0..vocab-1; bos may be vocab when
 * the tokenizer has none).  The model keeps pointing into tok.  Memory: at most about 90
 * bytes a token at order 5, far less for text that repeats itself. */
cm_kn *cm_kn_open(const int32_t *tok, int64_t n, int vocab, int bos, int order,
                  cm_err *err);
void cm_kn_close(cm_kn *m);
/* P(tok[i] | the tokens before it in its document), at most order - 1 of them.  ctx: how
 * many precede it. */
double cm_kn_prob(const cm_kn *m, const int32_t *at, int ctx);
/* Sum of -log2 P over the n tokens (documents begin with bos, which is not predicted);
 * *predicted gets their number. */
double cm_kn_bits(const cm_kn *m, const int32_t *tok, int64_t n, int64_t *predicted);
/* Discounts of an order (for a report): d[0..2] for counts 1, 2, 3 and more; the number
 * of different n-grams. */
int64_t cm_kn_stats(const cm_kn *m, int order, double d[3]);

#endif
