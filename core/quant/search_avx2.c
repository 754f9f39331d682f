/* search_avx2.c -- the search of search.inc with AVX2 instructions: the same bits. */
#define SEARCH cm_search_avx2
#include "quant/search.inc"
