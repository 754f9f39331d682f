/* spin.c -- how long a thread that waits for its team keeps its processor.
 *
 * By default OpenMP's threads spin for milliseconds: what they wait for is then often a thread
 * that has no processor, because threads of another program spin there.  Two runs at once on
 * two processors were 40 times slower together than one after the other.  libgomp reads the
 * environment before main, and knows no other way of being told; hence a second start. */
#include "base/base.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

/* Rounds of waiting, about 15 us: longer than most waits of a team that has its processors
 * (training and decoding alone are as fast as with the default), shorter than a time slice. */
#define ROUNDS "1000"

void cm_spin_briefly(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0 || setenv("GOMP_SPINCOUNT", ROUNDS, 1)) return;
    self[n] = 0;
    execv(self, argv); /* returns where it failed: then threads spin for long */
}
