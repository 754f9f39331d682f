/* kern_avx2.c -- the AVX2 + FMA level of the table. */
#include "kern/kern.h"

void cm_overlay_avx2(cm_kern *k) { (void)k; }
