/* attn.h -- what the attention ops share: cutting, rotation, the tile loop (attn.c).
 * Private to op/. */
#ifndef CM_OP_ATTN_H
#define CM_OP_ATTN_H

#include "op/op.h"

enum {
    CM_ATTN_KEYS = CM_SOFT_KEYS, /* rows of a key tile */
    CM_ATTN_QUERIES = 128, /* rows of a query block: they share the copies of a tile */
    CM_ATTN_STRIP = 32     /* rows that go together where the diagonal crosses a tile */
};

/* Rows [at, at+n) of a block, all with something to see in a tile, and the tile's first
 * `seen` keys, beyond which none of them sees. */
typedef struct cm_strip {
    int64_t at, n, seen;
} cm_strip;

/* The strip after `*s` (start with n = -1) of nq rows over a tile of nk keys; row i sees
 * the tile's first i + ahead + 1 keys.  False at the end. */
bool cm_attn_strip(cm_strip *s, int64_t nq, int64_t nk, int64_t ahead);

/* ---- cutting ----------------------------------------------------------------------- */

/* Rows [from,to) of the document of rows [doc,end); rows count over the batch. */
typedef struct cm_span {
    int32_t doc, end, from, to;
} cm_span;

/* Cut every document into spans of at most `len` rows, from its own start.  Writes at
 * most B*T spans and returns how many. */
int64_t cm_attn_cut(const cm_seq *seq, int64_t len, cm_span *out);

/* ---- rotation ---------------------------------------------------------------------- */

/* Position of row r for RoPE. */
static inline int64_t cm_attn_pos(const cm_seq *s, int64_t r) {
    return s->pos ? s->pos[r] : s->pos0 + r % s->T;
}

/* Rotation at one position at a time; tab[P]: cosines, then sines.  Start with pos -1. */
typedef struct cm_attn_rot {
    const double *inv; /* NULL: no rotation */
    double mscale;
    int64_t P;
    cm_real *tab;
    int64_t pos;
} cm_attn_rot;

void cm_attn_rot_at(cm_attn_rot *rot, int64_t pos);
/* y = or (add) += scale * rotate(x); sign -1 turns back (the transpose). */
void cm_attn_rotate(const cm_attn_rot *rot, const cm_real *x, cm_real scale, int sign,
                    bool add, cm_real *y);

/* ---- one block of queries ---------------------------------------------------------- */

/* nq queries of `heads` heads that share keys.  Query i sits at index q0 + i of its
 * document and sees the keys 0 .. q0 + i.  *_row and *_head are strides in elements. */
typedef struct cm_attn_tile {
    int64_t heads, P, q0, nq;
    cm_compute how;     /* of the products; decode: fp32 */
    const cm_real *q;   /* scaled and rotated; words of `along` (kern.h), in fp32 the same */
    int64_t q_head, q_row;
    const cm_real *k, *v; /* row 0 is the document's first; k rotated */
    int64_t k_row, v_row;
    const cm_real *kx, *vd; /* unless NULL instead of k and v: words of each tile in turn,
                               k across in rows of the tile's length, v down in rows of P */
    cm_dtype type;      /* other than CM_F32_T: k and v are not used, but */
    const unsigned char *k_code, *v_code; /* rows of this type, `row` bytes each, */
    size_t row;
    int64_t from;       /* whose elements [from, from+P) are the heads' */
    cm_real *y;
    int64_t y_head, y_row;
    cm_real *lse;       /* to the base of 2; NULL: not wanted */
    int64_t lse_head;
    bool decode;        /* few queries: dot products instead of gemm tiles */
} cm_attn_tile;

/* Reals of working memory for cm_attn_forward; at least CM_ATTN_STRIP * P. */
int64_t cm_attn_own(int64_t heads, int64_t P);
void cm_attn_forward(const cm_attn_tile *t, cm_real *own);

#endif
