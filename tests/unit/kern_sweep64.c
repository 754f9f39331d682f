/* kern_sweep64.c -- the double side of the kernel sweep: reference kernels, compiled again.
 *
 * Every ref_*.c is included here; a new family adds a line.  Kernels whose family is
 * missing have a null entry, which the test reports: hence weak, and declared so before
 * the definitions, as clang wants. */
#ifndef CM_F64
#define CM_F64
#endif
#define CM_REF(name) cm_f64_##name
#include "tests/unit/kern_sweep.h"

#include <string.h>

#define KERN(ret, name, args) extern ret cm_f64_##name args __attribute__((weak));
#include "kern/kern.def"

#include "core/kern/ref_attn.c"
#include "core/kern/ref_elem.c"
#include "core/kern/ref_kv.c"
#include "core/kern/ref_math.c"
#include "core/kern/ref_moment.c"
#include "core/kern/ref_nn.c"
#include "core/kern/ref_ssd.c"

#include "tests/unit/kern_cases.inc"

static const cm_kern table = {
#define KERN(ret, name, args) .name = cm_f64_##name,
#include "kern/kern.def"
};

static const struct {
    const char *name;
    size_t at;
} entries[] = {
#define KERN(ret, name, args) { #name, offsetof(cm_kern, name) },
#include "kern/kern.def"
};

bool sweep_run64(sweep *s, const char *name) {
    const sweep_case *c = sweep_find(name);
    void (*fn)(void) = NULL;
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        if (!strcmp(entries[i].name, name))
            memcpy(&fn, (const char *)&table + entries[i].at, sizeof fn);
    if (c && fn) c->run(&table, s);
    return c && fn;
}
