/* kern_sweep64.c -- the double side of the kernel sweep: reference kernels, compiled again.
 *
 * Every ref_*.c is included here; a new family adds a line.  A reference kernel that is
 * missing fails to link. */
#ifndef CM_F64
#define CM_F64
#endif
#define CM_REF(name) cm_f64_##name
#include "tests/unit/kern_sweep.h"

#include "core/kern/ref_elem.c"
#include "core/kern/ref_math.c"

#include "tests/unit/kern_cases.inc"

#include <string.h>

static const cm_kern table = {
#define KERN(ret, name, args) .name = cm_f64_##name,
#include "kern/kern.def"
};

bool sweep_run64(sweep *s, const char *name) {
    for (int i = 0; i < SWEEP_CASES; i++)
        if (!strcmp(sweep_cases[i].name, name)) {
            sweep_cases[i].run(&table, s);
            return true;
        }
    return false;
}
