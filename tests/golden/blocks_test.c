/* blocks_test.c -- block types decode to ggml's floats, to the bit.
 *
 * blocks.safetensors holds random blocks of every type and what libggml v0.5.0 makes of them
 * (tests/interop/ggml_test.c wrote it: GGML=.../libggml-base.so ggml_test golden FILE). */
#include "io/io.h"
#include "tests/t.h"

#include <stdlib.h>
#include <string.h>

TEST(every_block_type_decodes_as_ggml_does) {
    cm_st s;
    cm_err err;
    int seen = 0;
    bool ok = cm_st_open(&s, "tests/golden/gguf/blocks.safetensors", &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok) return;
    for (int dt = 0; dt < CM_N_DTYPES; dt++) {
        const cm_dtype_info *info = &cm_dtypes[dt];
        if (info->block == 1) continue;
        char *a = cm_strf("%s.blocks", info->name), *b = cm_strf("%s.values", info->name);
        const cm_tensor *blocks = cm_st_find(&s, a), *values = cm_st_find(&s, b);
        int64_t n = values ? cm_tensor_count(values) : 0;
        CHECKF(blocks && n / info->block * info->bytes == cm_tensor_count(blocks), "%s",
               info->name);
        float *x = malloc((size_t)n * sizeof *x + 1);
        CM_ASSERT(x, "out of memory");
        if (blocks) cm_to_f32((cm_dtype)dt, blocks->data, x, n);
        CHECKF(n && !memcmp(x, values->data, (size_t)n * sizeof *x), "%s", info->name);
        seen++;
        free(x);
        free(a);
        free(b);
    }
    CHECKF(seen == 12, "%d types", seen);
    cm_st_close(&s);
}
