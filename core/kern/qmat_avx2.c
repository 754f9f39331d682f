/* qmat_avx2.c -- block-quantized products of that level. */
#include "kern/qmat.h"

const cm_qkern cm_qkern_avx2;
