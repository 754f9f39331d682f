/* ref.h -- what reference kernels (ref_*.c) share.
 *
 * Functions go through libm in double and round once, so in float they are correct to
 * half an ulp whatever libm is installed.  Define a kernel as `ret CM_REF(name)(args)`:
 * the sweep test compiles the same file again with cm_real = double under other names. */
#ifndef CM_KERN_REF_H
#define CM_KERN_REF_H

#include "kern/kern.h"

#include <math.h>

static inline cm_real cm_rexp(cm_real x) { return (cm_real)exp((double)x); }
static inline cm_real cm_rlog(cm_real x) { return (cm_real)log((double)x); }
static inline cm_real cm_rsqrt(cm_real x) { return (cm_real)sqrt((double)x); }
static inline cm_real cm_rsoftplus(cm_real x) {
    double d = (double)x;
    return (cm_real)((d > 0 ? d : 0) + log1p(exp(-fabs(d))));
}
static inline cm_real cm_rsigmoid(cm_real x) {
    return (cm_real)(1 / (1 + exp(-(double)x)));
}
/* The limit at -infinity is 0, where the formula would say infinity / infinity. */
static inline cm_real cm_rsilu(cm_real x) {
    double d = (double)x;
    return (cm_real)(d < -1000 ? 0 : d / (1 + exp(-d)));
}

#endif
