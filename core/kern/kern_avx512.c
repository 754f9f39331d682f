/* kern_avx512.c -- the AVX-512 level of the table. */
#include "kern/gemm.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx512.h"

#define VK(name) cm_avx512_##name
#define OVERLAY cm_overlay_avx512
#include "kern/vec.inc"

#else
void cm_overlay_avx512(cm_kern *k) { (void)k; }
#endif
