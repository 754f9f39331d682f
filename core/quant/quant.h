/* quant.h -- encoders of the block types; the decoders are in tensor/ (cm_to_f32).
 *
 * An encoder must give the bytes that llama.cpp's own gives for the same floats, so that
 * a file made here and one made by llama-quantize are the same file. */
#ifndef CM_QUANT_H
#define CM_QUANT_H

#include "tensor/tensor.h"

/* n finite floats to any float or block type; n is a multiple of the type's block. */
void cm_quantize(cm_dtype dt, const float *src, void *dst, int64_t n);
/* Bound of |x - decode(encode(x))| for values of magnitude up to amax within a block (the
 * whole row for plain float types).  Half a unit in the last place for float types. */
double cm_quant_error(cm_dtype dt, double amax);

#endif
