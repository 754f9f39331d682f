/* ref_math.c -- reference kernels: functions over arrays. */
#include "kern/ref.h"

void CM_REF(vexp)(int64_t n, const cm_real *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = cm_rexp(x[i]);
}

void CM_REF(vlog)(int64_t n, const cm_real *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = cm_rlog(x[i]);
}

void CM_REF(vsoftplus)(int64_t n, const cm_real *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = cm_rsoftplus(x[i]);
}

void CM_REF(vsigmoid)(int64_t n, const cm_real *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = cm_rsigmoid(x[i]);
}

void CM_REF(vsilu)(int64_t n, const cm_real *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = cm_rsilu(x[i]);
}
