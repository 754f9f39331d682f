/* head.h -- what xent and logp share: rows that have a target meet the vocabulary, a chunk
 * of rows at a time (head.c), so that [R,V] never exists.  Private to op/. */
#ifndef CM_OP_HEAD_H
#define CM_OP_HEAD_H

#include "op/narrow.h"

/* One chunk at work: n of the rows with a target, logits z = scale x W^T. */
typedef struct cm_head {
    const cm_var *x;  /* [R,D] */
    cm_var *w;        /* [V,D] */
    const int32_t *target; /* [R], -1 = ignored */
    int64_t R, V, D, next; /* next: where collecting goes on */
    int64_t n;
    int32_t *row;     /* [n] which */
    cm_real *z;       /* [n,V] logits, then their gradients */
    bool narrow;      /* the gradients are put there by cm_head_row */
    void *in;         /* [n,D] gathered rows, then their gradients */
    double *value;    /* [n] the user's */
    cm_compute how;   /* of its products */
    bool held;        /* W is multiplied by as it is held; there is no backward */
    cm_mat W;         /* else once needed: as an operand, not transposed; at NULL before */
    void *room;       /* for its elements where they are widened, or rounded once */
} cm_head;

/* Are x[R,D] and W[V,D] fit for it? */
bool cm_head_fits(const cm_node *n, const char **why);
/* Lay out the chunk's buffers on base (NULL: only measure) for the node's inputs x and W;
 * returns their bytes. */
size_t cm_head_map(cm_head *h, const cm_node *n, const int32_t *target, void *base);
/* Collect the next rows and compute their logits; false: no more.  zero[R], unless NULL,
 * gets 0 at the rows passed over. */
bool cm_head_next(cm_head *h, cm_real scale, cm_real *zero);
/* The gradients of row i are in z, as the products to come shall take them. */
static inline void cm_head_row(const cm_head *h, int64_t i) {
    cm_real *z = h->z + i * h->V;
    if (h->narrow) cm_k.narrow(h->V, z, z);
}
/* From the gradients in z, after cm_head_row of each: W's gradient (where it has one) += z^T x,
 * dx[R,D] (unless NULL) += z W. */
void cm_head_back(cm_head *h, cm_real *dx);
/* Matmul flops of the forward. */
double cm_head_flops(const cm_node *n);

#endif
