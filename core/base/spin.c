/* spin.c -- how long a thread that waits for its team keeps its processor, and whose threads
 * there are.
 *
 * By default OpenMP's threads spin for milliseconds: what they wait for is then often a thread
 * that has no processor, because threads of another program spin there.  Two runs at once on
 * two busy processors took 118 s, with short spins 3 (docs/adr/0015-waiting-threads.md).
 *
 * OpenBLAS starts a thread for each processor when it is loaded.  None is ever used: our own
 * threads call it, each for its part.  They cost time at the start, memory (where `ulimit -v`
 * denies it they ask for ever, and the exit waits for them), and stay.
 *
 * Both libraries read the environment before main; hence a second start. */
#include "base/base.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Rounds of waiting, about 15 us: longer than most waits of a team that has its processors
 * (training and decoding alone are as fast as with the default), shorter than a time slice. */
#define ROUNDS "1000"

/* Sets it; false where it is so already, or cannot be. */
static bool set(const char *name, const char *value) {
    const char *now = getenv(name);
    return !(now && !strcmp(now, value)) && !setenv(name, value, 1);
}

void cm_spin_briefly(char **argv) {
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) return;
    self[n] = 0;
    bool chosen = getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY");
    bool spin = !chosen && set("GOMP_SPINCOUNT", ROUNDS), blas = set("OPENBLAS_NUM_THREADS", "1");
    /* It returns where it failed: then threads spin for long, and OpenBLAS has its own. */
    if (spin || blas) execv(self, argv);
}
