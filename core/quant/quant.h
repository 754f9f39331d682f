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
/* Rounding by feedback: errors of earlier columns are made up for by later ones (feedback.c).
 * h[n,n]: mean of x x^T of the inputs; u[n,n] gets what the rounding needs of it.  False: no
 * input, or moments that are none. */
bool cm_feedback_factor(const float *h, int64_t n, float *u);
/* Whether a type is rounded so: those with a search. */
bool cm_feedback_takes(cm_dtype dt);
enum { CM_FEEDBACK_ROWS = 8 };
/* w[rows,cols], rows <= CM_FEEDBACK_ROWS, whose values are lost; imp[cols] as cm_quantize_for's.
 * Each row's bytes depend on that row alone. */
void cm_quantize_feedback(cm_dtype dt, float *w, int rows, const float *imp, const float *u,
                          int64_t cols, void *dst);
/* Bound of |x - decode(encode(x))| for values of magnitude up to amax within a block (the
 * whole row for plain float types).  Half a unit in the last place for float types. */
double cm_quant_error(cm_dtype dt, double amax);

#endif
