/* imatrix_fuzz.c -- any bytes as an importance matrix, in either form: a sentence, or
 * importances that can be found, written and read again. */
#include "model/model.h"
#include "tests/fuzz/scratch.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool put(const char *path, const uint8_t *data, size_t size) {
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    fwrite(data, 1, size, f);
    fclose(f);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = scratch("imatrix");
    char again[176];
    cm_err err = {0};
    cm_log_setup("fuzz", CM_LOG_ERROR);
    if (!put(path, data, size)) return 0;
    cm_imatrix *m = cm_imatrix_open(path, &err);
    if (!m) {
        CM_ASSERT(err.code == CM_EXIT_DATA && *err.msg, "no sentence: %s", err.msg);
        return 0;
    }
    cm_imatrix_find(m, "blk.0.attn_q.weight");
    snprintf(again, sizeof again, "%s.dat", path);
    if (cm_imatrix_write(m, again, &err)) {
        cm_imatrix *b = cm_imatrix_open(again, &err);
        CM_ASSERT(b, "what was written is not read: %s", err.msg);
        CM_ASSERT(cm_imatrix_entries(b) == cm_imatrix_entries(m), "entries were lost");
        cm_imatrix_close(b);
    }
    cm_imatrix_close(m);
    return 0;
}
