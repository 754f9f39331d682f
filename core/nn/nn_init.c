/* nn_init.c -- how weight matrices start; see nn_init.h. */
#include "nn/nn_init.h"

#include <math.h>

#pragma GCC diagnostic ignored "-Wformat-nonliteral"

double cm__matrix_std(const cm_model_conf *c, int64_t fan_in, bool to_residual) {
    double std = c->init_std > 0 ? c->init_std : 1 / sqrt((double)fan_in);
    return to_residual ? std / sqrt(2.0 * (double)c->n_layers) : std;
}

cm_param *cm__matrix(cm_params *ps, const cm_model_conf *c, int64_t O, int64_t I,
                     bool to_residual, const char *fmt, int layer) {
    double std = cm__matrix_std(c, I, to_residual);
    return cm_param_add(ps, CM_GROUP_MATRIX, CM_INIT_NORMAL, std, 2, (int64_t[]){ O, I }, fmt,
                        layer);
}

cm_param *cm__vector(cm_params *ps, cm_init init, int64_t n, const char *fmt, int layer) {
    return cm_param_add(ps, CM_GROUP_VECTOR, init, 0, 1, &n, fmt, layer);
}
