/* search_ref.c -- the search of search.inc, for any processor. */
#define SEARCH cm_search_ref
#include "quant/search.inc"
