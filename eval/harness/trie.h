/* trie.h -- requests as a prefix tree, cut into the paths the model runs; private to
 * harness/.
 *
 * A request reads tokens [0,reads).  Sorted by them, requests that share a beginning are
 * neighbours, so a node of the tree is (a request that reaches it first, a depth), and the
 * requests through it follow that one while they share more than the depth.
 *
 * The tree is run from points (multiples of the scan's Q deep) in windows: the nodes below
 * a point to a depth of `span`.  A window ends where its texts have to be told apart: it is
 * Q deep, or longer and then one path. */
#ifndef CM_HARNESS_TRIE_H
#define CM_HARNESS_TRIE_H

#include "harness/harness.h"

typedef struct cm__text {
    const int32_t *token;
    int reads;
    int64_t request;
} cm__text;

typedef struct cm__trie {
    cm__text *text; /* [n] sorted */
    int *shared;    /* [n] tokens shared with the text before; 0 when each runs alone */
    int64_t n;
} cm__trie;

/* The requests that score something.  False: out of memory. */
bool cm__trie_build(cm__trie *t, const cm_request *r, int64_t n, bool alone, cm_err *err);
void cm__trie_free(cm__trie *t);

/* Texts [lo,hi) continue from a point. */
typedef struct cm__point {
    cm_past *past; /* NULL: the beginning */
    int64_t lo, hi;
} cm__point;

/* The window below a point: at most `cap` tokens deep, cap a multiple of Q. */
int cm__trie_span(const cm__trie *t, const cm__point *p, int Q, int cap);

/* The path of text i in its window, which ends `end` tokens deep. */
typedef struct cm__step {
    int len, shared;      /* tokens of the path; of these, of paths before it */
    int64_t lo, hi, next; /* texts that go on below the window; text of the next path */
} cm__step;
cm__step cm__trie_step(const cm__trie *t, const cm__point *p, int64_t i, int end);

#endif
