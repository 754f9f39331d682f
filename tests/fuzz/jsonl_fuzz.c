/* jsonl_fuzz.c -- a line of any bytes: refused, or a field of valid length. */
#include "io/io.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cm_buf out = { 0 };
    cm_err err;
    bool ok = cm_jsonl_field((const char *)data, size, "text", &out, &err);
    if (ok ? out.n > size : out.n != 0) abort();
    size_t bad; /* valid UTF-8 in, valid UTF-8 out */
    if (ok && cm_utf8_valid((const char *)data, size, &bad) &&
        !cm_utf8_valid(out.s, out.n, &bad))
        abort();
    cm_buf_free(&out);
    return 0;
}
