/* nn_init.h -- private to nn/: how weight matrices start.
 *
 * model.init_std > 0 is the standard deviation of every hidden matrix; 0 means
 * 1/sqrt(fan_in).  Matrices that write into the residual stream are divided by
 * sqrt(2 L), so that its variance does not grow with depth (GPT-2; Mamba-2). */
#ifndef CM_NN_INIT_H
#define CM_NN_INIT_H

#include "nn/nn.h"

double cm__matrix_std(const cm_model_conf *c, int64_t fan_in, bool to_residual);
/* A hidden [O,I] matrix; fmt has one %d for the layer. */
cm_param *cm__matrix(cm_params *ps, const cm_model_conf *c, int64_t O, int64_t I,
                     bool to_residual, const char *fmt, int layer);
/* A vector parameter [n]; fmt has one %d for the layer. */
cm_param *cm__vector(cm_params *ps, cm_init init, int64_t n, const char *fmt, int layer);

#endif
