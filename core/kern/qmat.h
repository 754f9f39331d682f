/* qmat.h -- inside products with block-quantized weights; private to kern/ and its tests.
 *
 * Panels.  16 rows of W lie together, block by block: of each field of the 16 blocks first
 * all pieces number 0, row by row, then all pieces number 1, ...  A piece is 4 bytes of
 * integers or of packed scales, or a 2-byte half; the fields come in the order of cm_qform.
 * So a vector of 16 (8) 32-bit lanes is one piece of 16 (8) rows, lanes never meet, and the
 * panel takes what its rows take.  The fifth bits of Q5_0 and Q5_1 are reordered: bit j (the
 * one of element j) is kept as bit 8 (j % 4) + j / 4.  Where field 1 has 32 bytes or more
 * (Q3_K, Q5_K, Q6_K: upper bits), each of its pieces stands before those of field 0 that it
 * completes, so that panels are read from front to back; reading ahead, as the CPU then does,
 * halves the time.
 *
 * The number of a row, in every level.  A block of W has integers w (raised by `off`, so
 * that none is negative), for each run of 16 or 32 of them an integer scale s and minimum m,
 * and floats d, dm:  W = d s (w - off) - dm m.  The same of x: integers a, a float da.
 *   S = sum over runs of s sum (w - off) a;   N = sum over runs of m sum a     (exact)
 *   r = d S;  with minima  r = fma(S, d, -(dm N));   y = fma(da, r, y), block after block
 * and y is multiplied by the caller's scale at the end. */
#ifndef CM_KERN_QMAT_H
#define CM_KERN_QMAT_H

#include "kern/kern.h"

enum { CM_Q_LANES = CM_QMAT_PANEL, CM_Q_TILE = 8, CM_Q_FEW = 4 };

/* A field of a block: where it is in the file's block, its bytes, the bytes of a piece. */
typedef struct cm_qfield { int at, bytes, piece; } cm_qfield;

typedef struct cm_qform {
    cm_qfield field[5];
    int n_field;
    int run;     /* elements with a scale of their own */
    int off;     /* CM_Q_OFF8: full bytes */
    int top;     /* largest magnitude of w, or of w - off without minima; 0: full bytes */
    bool minima;
    bool fifth;  /* field 1 is the fifth bits to be reordered */
} cm_qform;
/* Full bytes are raised by 128 where a product takes them unsigned. */
enum { CM_Q_OFF8 = -1 };
const cm_qform *cm_qform_of(cm_dtype t); /* NULL: not a block type */

/* Up to CM_Q_TILE rows of x, rounded.  n blocks of `block` elements. */
typedef struct cm_qtile {
    int rows;
    int8_t *a;     /* [K/4][rows][4] */
    float *d;      /* [n][rows] */
    int32_t *sum;  /* [n][cm_qsums][rows] */
    uint8_t *wide; /* [n]: some product of a run with W's integers may need more than 16 bits */
} cm_qtile;
/* Integers that a block of x carries for W's form.  Without minima, of each run -off sum a
 * (none where off is 0); with them sums of a: of a single run as it is, else pairs of int16
 * of the runs (0,2) (1,3) (4,6) (5,7) ..., the first of a pair in the low half. */
int cm_qsums(const cm_qform *f, int block, int off8);

/* A block of 16 rows decoded: bytes in this order, by the offsets of cm_qopen_at. */
typedef struct cm_qopen_at {
    int d, dm; /* float[16]; dm where there are minima */
    int s;     /* int32_t[runs/2][16]: pairs of int16 of the runs (0,1) (2,3) ..., the first in
                * the low half; none with a single run, whose s and m are 1 */
    int m;     /* int32_t[runs/2][16]: pairs as those of x's sums */
    int w;     /* uint8_t[block/4][16][4], raised by off; a level may leave them where the panel
                * has them and read these */
    int bytes; /* a multiple of 64 */
} cm_qopen_at;
cm_qopen_at cm_qopen_of(const cm_qform *f, int block);

/* What a level brings.  Every function is for one thread. */
typedef struct cm_qkern {
    int off8; /* what full bytes are raised by: 128, or 0 where products take them signed */
    /* Round K elements of t->rows rows of x, ldx apart. */
    void (*round)(const cm_qform *f, int block, int64_t K, const cm_real *x, int64_t ldx,
                  const cm_qtile *t);
    /* Decode n blocks of a panel; then y[rows][16] += their products with those of a tile. */
    void (*open)(cm_dtype t, int64_t n, const uint8_t *panel, uint8_t *opened);
    void (*tile)(cm_dtype t, int64_t n, const uint8_t *panel, const uint8_t *opened,
                 const cm_qtile *x, float *y);
    /* Such rows, scaled, to where y's are, ldy apart. */
    void (*put)(int64_t rows, const float *from, cm_real scale, cm_real *y, int64_t ldy);
    /* y of all n blocks at once for a tile of up to CM_Q_FEW rows; NULL: not at this level. */
    void (*few)(cm_dtype t, int64_t n, const uint8_t *panel, const cm_qtile *x, float *y);
    /* Eight 4-byte pieces of each of 16 rows, piece i of all rows at to + i step. */
    void (*turn)(const uint8_t *const from[CM_Q_LANES], uint8_t *to, int64_t step);
    /* n halves of type t (F16 or BF16), none of them NaN, as reals: exact. */
    void (*widen)(cm_dtype t, const void *from, int64_t n, cm_real *to);
} cm_qkern;
extern const cm_qkern cm_qkern_ref, cm_qkern_avx2, cm_qkern_vnni; /* round NULL: not built */
/* The kernels in use: the level's best, or a test's choice. */
void cm_qmat_setup(cm_level_id level);
void cm_qmat_use(const cm_qkern *k);
bool cm_qmat_vnni(void); /* does this CPU have what cm_qkern_vnni needs */

/* One lane of one block of a panel as the file has it. */
void cm_qmat_take(cm_dtype t, const uint8_t *block, int lane, void *out);

#endif
