/* kern_avx2.c -- the AVX2 + FMA level of the table. */
#include "kern/gemm.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx2.h"

#define VK(name) cm_avx2_##name
#define OVERLAY cm_overlay_avx2
#include "kern/vec.inc"

/* 12 accumulators, 2 of B, 1 broadcast: 15 of 16 registers. */
#define GEMM_MICRO cm_micro_avx2
#define GEMM_FMA vf_fma
#define GEMM_PAIR 1
#define GEMM_PACK_ROWS cm_pack_rows
#define GEMM_PACK_COLS cm_pack_cols
#define GEMM_MR 6
#define GEMM_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#include "kern/vec_gemm.inc"

#else
void cm_overlay_avx2(cm_kern *k) { (void)k; }
const cm_micro cm_micro_avx2;
#endif
