/* shard_fuzz.c -- a token shard of any bytes: open, read, close, without a crash.
 *
 * Hashes would keep almost every input at the door, so the input is also tried with its
 * hashes made right: that reaches the index, the seek table and the frames. */
#include "io/shard_int.h"

#include <stdlib.h>
#include <string.h>

static void try_bytes(const uint8_t *p, size_t n) {
    cm_shard s;
    cm_err err;
    if (!cm_shard_open_bytes(&s, "fuzz", p, n, &err)) return;
    cm_shard_scan(&s, &err);
    cm_shard_close(&s);
}

/* Header and meta hashes over whatever lies there; frames keep theirs from the index. */
static void make_right(uint8_t *p, size_t n) {
    if (n < CM_SH_DATA) return;
    uint64_t data = cm_get_le(p + 8 + 80, 8);
    char hex[65];
    if (data <= n - CM_SH_DATA) {
        cm_put_le(p + 8 + 88, n - CM_SH_DATA - data, 8);
        cm_sha_bytes(p + CM_SH_DATA + data, n - CM_SH_DATA - data, hex);
        cm_hex_to_bytes(hex, p + 8 + 192, 32);
    }
    cm_sha_bytes(p + 8, 240, hex);
    cm_hex_to_bytes(hex, p + 8 + 240, 16);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try_bytes(data, size);
    uint8_t *copy = malloc(size + 1);
    if (!copy) return 0;
    memcpy(copy, data, size);
    make_right(copy, size);
    try_bytes(copy, size);
    free(copy);
    return 0;
}
