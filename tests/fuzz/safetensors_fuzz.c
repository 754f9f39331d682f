/* safetensors_fuzz.c -- any bytes as a safetensors file: a sentence, or tensors that can
 * be read to their last byte; nothing else.  (clang -fsanitize=fuzzer,address,undefined) */
#include "io/io.h"
#include "tests/fuzz/scratch.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static volatile unsigned sum;
    const char *path = scratch("safetensors");
    cm_err err = {0};
    cm_st s;
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    fwrite(data, 1, size, f);
    fclose(f);
    if (!cm_st_open(&s, path, &err)) {
        CM_ASSERT(err.code == CM_EXIT_DATA && *err.msg, "no sentence");
        return 0;
    }
    for (int i = 0; i < s.n; i++) {
        const cm_tensor *t = cm_st_find(&s, s.entry[i].name);
        CM_ASSERT(t == &s.entry[i].t, "tensor %d is not found by its name", i);
        for (size_t k = 0; k < cm_tensor_bytes(t); k++)
            sum += ((const unsigned char *)t->data)[k];
    }
    for (int i = 0; i < s.n_meta; i++) sum += (unsigned)strlen(s.meta[i].value);
    cm_st_close(&s);
    return 0;
}
