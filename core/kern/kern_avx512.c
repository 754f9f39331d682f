/* kern_avx512.c -- the AVX-512 level of the table. */
#include "kern/gemm.h"

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/simd_avx512.h"

#define VK(name) cm_avx512_##name
#define OVERLAY cm_overlay_avx512
#include "kern/vec.inc"

/* 28 accumulators, 2 of B; broadcasts are operands of the FMA: 30 of 32 registers. */
#define GEMM_MICRO cm_micro_avx512
#define GEMM_FMA vf_fma
#define GEMM_PAIR 1
#define GEMM_PACK_ROWS cm_pack_rows
#define GEMM_PACK_COLS cm_pack_cols
#define GEMM_MR 14
#define GEMM_ROWS(X)                                                                    \
    X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#include "kern/vec_gemm.inc"

#else
void cm_overlay_avx512(cm_kern *k) { (void)k; }
const cm_micro cm_micro_avx512;
#endif
