/* ssd.h -- what the forward (op_ssd.c) and backward (ssd_back.c) of the scan share.
 *
 * Private to op/.  A row of T tokens is cut into chunks of at most Q tokens that start at
 * document starts and every Q tokens after them: no chunk holds two documents, so nothing
 * is masked, and only chunks in the middle of a document take over a state.  There are at
 * most (T-1)/Q of these in a row, whatever the documents: one state slot for each. */
#ifndef CM_OP_SSD_H
#define CM_OP_SSD_H

#include "op/op.h"

#include <string.h>

enum { CM_SSD_NONE = -1, CM_SSD_S0 = -2, CM_SSD_DOC = -3 };

/* Rows of a triangular product taken at a time: even, for pairs of steps (kern.h). */
enum { CM_SSD_TRI = 14 };

/* Heads of a forward task, which share one C B^T: of a chunk, and of a whole row. */
enum { CM_SSD_HEADS = 8, CM_SSD_ROW_HEADS = 16 };

typedef struct cm_ssd_chunk {
    int32_t b, t0, q; /* row, first token, tokens */
    int32_t in, out;  /* slot of the state before and after; NONE: zero, or not passed on;
                         in = S0: the row's initial state; DOC: the document's own */
    int32_t doc;      /* number of its document in the row */
    int32_t skip;     /* first tokens whose outputs are not wanted */
} cm_ssd_chunk;

typedef struct cm_ssd_attr {
    cm_ssd_conf c;
    cm_seq seq;
    bool want_state;
} cm_ssd_attr;

/* One call's shapes, inputs and scratch.  Arrays [B,H,T] are indexed by cm_ssd_at. */
typedef struct cm_ssd_run {
    int B, T, H, P, N, G, Q;
    int HG;                 /* heads of a group */
    int64_t W, wd, dcol;    /* columns of xbc and of dtx; first dt column */
    int64_t ld;             /* row length of [q,q] matrices */
    cm_compute how;         /* of the products; states, decays and sums are fp32 */
    const int32_t *doc;
    const cm_real *xbc, *dtx, *D, *bias, *s0;
    const cm_real *const *doc_from; /* by document, or NULL; so doc_to */
    cm_real *const *doc_to;
    const int32_t *doc_skip;
    bool want_state;
    bool steps;             /* token by token, from the state before to the one after */
    int heads;              /* that a task takes through a whole row */
    bool whole;             /* a task walks through a whole row, whose states stay with
                               it; else states first, then every chunk on its own */
    int rows;               /* batch rows that hold state slots at a time */
    int slots;              /* of a row; the last is for the state after it, and in the
                               backward the one before for the initial state, if any */
    cm_ssd_chunk *chunk;
    int32_t *first;         /* [B+1] first chunk of each row */
    cm_real *A;             /* [H] -exp(A_log) */
    cm_real *dt, *cs, *ec;  /* [B,H,T] step, running sum of dt A in the chunk, its exp */
    cm_real *r, *rd;        /* [B,H,T] exp(cs_last - cs), and that times dt */
    cm_real *sig;           /* [B,H,T] derivative of softplus; backward only */
    cm_real *S, *dS;        /* [rows,slots,H,N*P]; backward: [P,N] inside, with dS */
    cm_real *zero;          /* [P] stands in for an absent gradient of y */
    double *part;           /* [chunks,H,3] parts of dA_log, dD, ddt_bias */
    cm_real *thread;        /* per-thread buffers of thread_reals each, the last */
    int64_t thread_reals, own_states; /* of them for states, [heads of a task,N*P] */
} cm_ssd_run;

/* Enough work for more than one thread? */
static inline bool cm_ssd_many(const cm_ssd_run *r) {
    return (int64_t)r->rows * r->T * r->H * r->P * r->N > 1 << 15;
}
static inline int64_t cm_ssd_at(const cm_ssd_run *r, int b, int h, int t) {
    return ((int64_t)b * r->H + h) * r->T + t;
}
static inline cm_real *cm_ssd_slot(const cm_ssd_run *r, cm_real *S, int b, int slot,
                                   int h) {
    int64_t row = (int64_t)(b % r->rows) * r->slots + slot;
    return S + (row * r->H + h) * r->N * r->P;
}
/* Columns of x of head h, and of B and C of group g, at the first token of a chunk. */
static inline int64_t cm_ssd_x(const cm_ssd_run *r, const cm_ssd_chunk *k, int h) {
    return ((int64_t)k->b * r->T + k->t0) * r->W + (int64_t)h * r->P;
}
static inline int64_t cm_ssd_b(const cm_ssd_run *r, const cm_ssd_chunk *k, int g) {
    return cm_ssd_x(r, k, r->H) + (int64_t)g * r->N;
}
static inline int64_t cm_ssd_c(const cm_ssd_run *r, const cm_ssd_chunk *k, int g) {
    return cm_ssd_b(r, k, g) + (int64_t)r->G * r->N;
}

/* y[q,n] = q rows of n columns of x.  Rows of the batch are a large power of two apart
 * in typical models, where they evict each other from the cache: products read copies. */
static inline void cm_ssd_copy(int q, int n, const cm_real *x, int64_t ldx, cm_real *y) {
    for (int i = 0; i < q; i++) memcpy(y + i * n, x + i * ldx, (size_t)n * sizeof *y);
}

/* y = words down of q rows of x, each times s[i] (NULL: 1). */
static inline cm_word_mat cm_ssd_down(const cm_ssd_run *r, int q, int n, const cm_real *s,
                                      const cm_real *x, int64_t ldx, cm_real *y) {
    cm_words_down(r->how, q, n, s, x, ldx, y, n);
    return (cm_word_mat){ y, 1, n };
}

/* y_i = beta y_i + sum over j <= i of m_ji x_j for i0 <= i < q, and y_j = .. sum over i >= j
 * of m_ji x_i; m is of words down and along, x of words down, n columns. */
void cm_ssd_lower(const cm_ssd_run *r, int i0, int q, int n, cm_word_mat m, cm_word_mat x,
                  cm_real beta, cm_real *y, int64_t ldy);
void cm_ssd_upper(const cm_ssd_run *r, int q, int n, cm_word_mat m, cm_word_mat x,
                  cm_real beta, cm_real *y, int64_t ldy);
/* e_ji = <a_j, b_i> for i >= j, i >= i0, over K; what is left of the triangle is set or not. */
void cm_ssd_pairs(const cm_ssd_run *r, int i0, int q, int K, cm_word_mat a, cm_word_mat b,
                  cm_real *e);

/* Rows of a head that is next, called for a few at a time between products: they lie pages
 * apart, where the hardware does not look ahead. */
typedef struct cm_ssd_ahead {
    cm_mat x[2]; /* at NULL: nothing */
    int P, q, row;
} cm_ssd_ahead;

static inline void cm_ssd_call(cm_ssd_ahead *a) {
    enum { ROWS = 12 };
    int to = a->row + ROWS < a->q ? a->row + ROWS : a->q;
    for (; a->row < to; a->row++)
        for (int k = 0; k < 2; k++) {
            cm_mat x = a->x[k];
            int line = CM_ALIGN / (x.stored ? 2 : (int)sizeof(cm_real));
            for (int i = 0; x.at && i < a->P; i += line)
                __builtin_prefetch(cm_mat_from(x, a->row * x.ld + i).at, 0, 2);
        }
}

/* The calling thread's buffer, and the running states in it (whole rows only). */
static inline cm_real *cm_ssd_buffer(const cm_ssd_run *r, int thread) {
    return r->thread + r->thread_reals * thread;
}
static inline cm_real *cm_ssd_running(const cm_ssd_run *r, int thread) {
    return cm_ssd_buffer(r, thread + 1) - r->own_states;
}

/* Fill a run from a node; with scratch NULL only sizes: returns the bytes needed. */
size_t cm_ssd_setup(cm_ssd_run *r, const cm_node *n, bool backward, void *scratch);
/* Cut the rows into chunks. */
void cm_ssd_plan(cm_ssd_run *r);
/* dt, cs, ec, r, rd (and sig where wanted) of one head of one row. */
void cm_ssd_steps(const cm_ssd_run *r, int b, int h);
void cm_ssd_bwd(cm_node *n, void *scratch);

#endif
