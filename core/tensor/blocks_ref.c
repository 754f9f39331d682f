/* blocks_ref.c -- blocks.inc without special instructions. */
#define WIDEN(name) name##_ref
#include "tensor/blocks.inc"
