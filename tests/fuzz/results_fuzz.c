/* results_fuzz.c -- results.json, a NUL byte, items: refused, or a result whose numbers are
 * finite. */
#include "results/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *s = (const char *)data, *cut = size ? memchr(s, 0, size) : NULL;
    size_t head = cut ? (size_t)(cut - s) : size, items = cut ? size - head - 1 : 0;
    cm_result r;
    cm_err err;
    if (!cm_result_parse(&r, "fuzz", s, head, &err)) return 0;
    if (!cm_result_items(&r, "fuzz", cut ? cut + 1 : "", items, true, &err)) return 0;
    for (int i = 0; i < r.n_tasks; i++)
        for (int c = 0; c < r.task[i].n_columns; c++)
            if (!isfinite(r.task[i].column[c].value)) abort();
    cm_result_free(&r);
    return 0;
}
