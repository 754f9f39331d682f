/* search.h -- scales, minima and integers of block types; private to quant/.
 *
 * The search runs eight sub-blocks at a time, one in each lane of a vector, so that no sum
 * crosses lanes: its result does not depend on the instruction set. */
#ifndef CM_QUANT_SEARCH_H
#define CM_QUANT_SEARCH_H

#include "quant/quant.h"

/* What the integers of a type can say. */
typedef struct cm_grid {
    int run;         /* elements with one scale: 16 or 32 */
    bool min;        /* x = s q - m, q from 0; else x = s q */
    bool table;      /* q stands for cm_iq4_levels[q] */
    int lo, hi;      /* of q */
    bool super;      /* scales (and minima) are integers times those of 256 elements */
    int s_lo, s_hi;  /* those integers; minima: 0 to s_hi */
    double from, to; /* inverse scales to try, relative to the one that just fits */
    int steps;
} cm_grid;

/* 256 elements: one super-block, or eight blocks of 32. */
typedef struct cm_found {
    float d[8], m[8];     /* values of halves: of each block; [0] of a super-block */
    int s[16], mn[16];    /* integers of sub-blocks */
    int16_t q[256];
} cm_found;

/* w: what an error of each element weighs (> 0). */
void cm_search_ref(const cm_grid *g, const float *x, const float *w, cm_found *out);
void cm_search_avx2(const cm_grid *g, const float *x, const float *w, cm_found *out);
/* What a type's integers can say; NULL: it has no search. */
const cm_grid *cm_grid_of(cm_dtype dt);
/* The faster of both on n <= 256 elements, whole blocks; imp as cm_quantize_for's. */
void cm_search(const cm_grid *g, const float *x, const float *imp, int n, cm_found *out);

#endif
