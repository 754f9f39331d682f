/* bound.c -- how far a decoded value may lie from the one encoded. */
#include "quant/quant.h"

#include <math.h>

double cm_quant_error(cm_dtype dt, double amax) {
    switch (dt) {
    case CM_F32_T:
    case CM_F64_T: return 0;
    case CM_F16_T: return amax * 0x1p-11 + 0x1p-25;
    case CM_BF16_T: return amax * 0x1p-8 + 0x1p-134;
    case CM_Q8_0_T: {
        /* Half a step, and 127 times the scale's own rounding: 2^-11 of it, or 2^-25
         * where it is subnormal as a half; it can at most vanish. */
        double d = amax / 127, scale = fmin(d, fmax(d * 0x1p-11, 0x1p-25));
        return (d / 2 + 127 * scale) * (1 + 0x1p-20);
    }
    default: CM_ASSERT(false, "no encoder of %s", cm_dtypes[dt].name);
    }
    return 0;
}
