/* quant.h -- encoders of the block types; the decoders are in tensor/ (cm_to_f32).
 *
 * Q8_0 and, without importances, Q4_0 give the bytes that llama.cpp gives for the same
 * floats.  The others choose scales and integers by a search of their own (search.inc); the
 * bytes do not depend on threads or instruction set. */
#ifndef CM_QUANT_H
#define CM_QUANT_H

#include "tensor/tensor.h"

/* n finite floats to any float or block type; n is a multiple of the type's block.  Block
 * types take magnitudes below 65520, the largest half. */
void cm_quantize(cm_dtype dt, const float *src, void *dst, int64_t n);
/* imp[n] >= 0: what an error of each element weighs (the mean square of the activations that
 * meet it); NULL as cm_quantize.  Q8_0 and float types round to nearest whatever it says. */
void cm_quantize_for(cm_dtype dt, const float *src, const float *imp, void *dst, int64_t n);
/* Bound of |x - decode(encode(x))| for values of magnitude up to amax within a block (the
 * whole row for plain float types).  Half a unit in the last place for float types. */
double cm_quant_error(cm_dtype dt, double amax);

#endif
