/* blocks_avx2.c -- blocks.inc with AVX2 instructions: the same bits. */
#define WIDEN(name) name##_avx2
#include "tensor/blocks.inc"
