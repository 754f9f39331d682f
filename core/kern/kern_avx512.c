/* kern_avx512.c -- the AVX-512 level of the table. */
#include "kern/kern.h"

void cm_overlay_avx512(cm_kern *k) { (void)k; }
