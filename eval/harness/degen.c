/* degen.c -- signs of degeneration in generated text: repetition, loops, compressibility. */
#include "harness/harness.h"
#include "stats/stats.h"

#include <stdlib.h>
#include <zstd.h>

enum { LEVEL = 19, MAX_PERIOD = 64, LEAST_TURNS = 3 };

/* The shortest p such that the last LEAST_TURNS * p tokens repeat with period p, or 0. */
static int tail_period(const int32_t *id, int n) {
    for (int p = 1; p <= MAX_PERIOD && LEAST_TURNS * p <= n; p++) {
        bool same = true;
        for (int i = n - (LEAST_TURNS - 1) * p; same && i < n; i++) same = id[i] == id[i - p];
        if (same) return p;
    }
    return 0;
}

static double packed_bytes(const char *text, size_t n) {
    size_t cap = ZSTD_compressBound(n);
    void *to = malloc(cap ? cap : 1);
    CM_ASSERT(to, "out of memory for %zu bytes", cap);
    size_t got = ZSTD_compress(to, cap, text, n, LEVEL);
    CM_ASSERT(!ZSTD_isError(got), "zstd: %s", ZSTD_getErrorName(got));
    free(to);
    return (double)got;
}

cm_degen cm_degen_measure(const int32_t *id, int n, const char *text, size_t bytes) {
    cm_degen d = { .distinct_2 = cm_distinct(id, n, 2), .bytes = (double)bytes };
    d.seq_rep_4 = cm_seq_rep(id, n, 4);
    d.packed = packed_bytes(text, bytes);
    d.period = tail_period(id, n);
    d.loop = d.period > 0;
    return d;
}
