/* spm_fuzz.c -- the protobuf reader of tokenizer models on any bytes. */
#include "text/spm_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cm_spm_model m;
    cm_err err;
    if (cm_spm_proto_read(&m, data, size, "fuzz", &err)) cm_spm_proto_free(&m);
    return 0;
}
