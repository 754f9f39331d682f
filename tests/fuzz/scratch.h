/* scratch.h -- where a fuzz target puts its files: memory, and gone afterwards.
 *
 * run.sh names a folder (FUZZ_SCRATCH) and removes it however the target ends; a target started
 * alone makes one of its own, which stays only where a finding ends the process. */
#ifndef CM_FUZZ_SCRATCH_H
#define CM_FUZZ_SCRATCH_H

#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch_own[64]; /* the folder to remove; "": run.sh's */

static void scratch_remove(void) {
    cm_err err;
    if (!cm_remove_tree(scratch_own, &err)) fprintf(stderr, "%s\n", err.msg);
}

/* NAME in the folder; lives as long as the process. */
static inline const char *scratch(const char *name) {
    static char path[160];
    const char *dir = getenv("FUZZ_SCRATCH");
    if (*path) return path;
    if (!dir) {
        dir = strcpy(scratch_own, "/dev/shm/chimera-fuzz-XXXXXX");
        CM_ASSERT(mkdtemp(scratch_own), "no folder in /dev/shm");
        atexit(scratch_remove);
    }
    snprintf(path, sizeof path, "%s/%d.%s", dir, (int)getpid(), name);
    return path;
}

#endif
