/* pack.h -- integers and scales into the bytes of blocks; private to quant/. */
#ifndef CM_QUANT_PACK_H
#define CM_QUANT_PACK_H

#include "quant/search.h"

/* One super-block, or `blocks` (at most 8) blocks of 32. */
void cm_pack(cm_dtype dt, const cm_found *f, int blocks, void *dst);
/* 32 floats each: llama.cpp's own rules, without a search, to the byte. */
void cm_encode_q8_0(const float *x, void *dst);
void cm_encode_q4_0(const float *x, void *dst);

#endif
