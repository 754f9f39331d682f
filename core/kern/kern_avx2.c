/* kern_avx2.c -- the AVX2 + FMA level of the table. */
#include "kern/gemm.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx2.h"

#define VK(name) cm_avx2_##name
#define OVERLAY cm_overlay_avx2
#include "kern/vec.inc"

#else
void cm_overlay_avx2(cm_kern *k) { (void)k; }
#endif
