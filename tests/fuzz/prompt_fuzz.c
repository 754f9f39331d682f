/* prompt_fuzz.c -- any bytes, and changes to a good file, as a prompt cache whose hash fits: a
 * sentence, or a text that is read to its end. */
#include "model/model.h"
#include "tests/fuzz/scratch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { V = 29, N = 300, HEX = 64 };
static const char ID[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char MODEL[] =
    "model: {d_model: 8, n_layers: 2, pattern: MA, n_heads: 1, n_kv_heads: 1, d_ff: 8, "
    "ssm_state: 4, ssm_head_dim: 8, ssm_chunk: 16, context: 512}";

static cm_model *small_model(void) {
    static cm_model m;
    static cm_arena arena;
    static cm_conf conf;
    cm_err err;
    if (m.layer) return &m;
    cm_log_setup("fuzz", CM_LOG_ERROR);
    cm_conf_open(&conf, NULL);
    cm_conf_text(&conf, "model", MODEL, strlen(MODEL));
    conf.model.vocab_size = V;
    CM_ASSERT(cm_kern_init(CM_NUMERICS_STRICT, 1, &err) && cm_conf_check(&conf, &err) &&
                  cm_model_resolve(&conf.model, &err) &&
                  cm_arena_open(&arena, "model", (size_t)1 << 20, &err),
              "%s", err.msg);
    cm_model_build(&m, &conf.model, &arena, false);
    cm_params_init(&m.params, 7);
    return &m;
}

/* Read the text with the file at path; what it says is checked. */
static void read_text(const char *path) {
    cm_err err = { 0 }, unkept;
    cm_decoder d;
    int32_t text[N];
    int64_t reused;
    for (int i = 0; i < N; i++) text[i] = (i * i + 3) % V;
    CM_ASSERT(cm_decoder_open(&d, small_model(), NULL, N, CM_F32_T, &err), "%s", err.msg);
    if (cm_decoder_read_cached(&d, text, N, path, ID, &reused, &unkept, &err))
        CM_ASSERT(d.ready && d.fed == N && d.s.st.held[0] == N, "%lld of %d tokens were read",
                  (long long)d.fed, N);
    else
        CM_ASSERT(err.code == CM_EXIT_DATA && *err.msg, "no sentence: %s", err.msg);
    cm_decoder_close(&d);
}

/* The bytes themselves, or (odd beginnings) changes to a good file: two bytes where, one what;
 * 255 cuts it there. */
static uint8_t *file_of(const char *path, const uint8_t *data, size_t size, size_t *n) {
    static char *good;
    static size_t n_good;
    cm_err err;
    if (!good) {
        unlink(path);
        read_text(path);
        CM_ASSERT(cm_read_file(path, 1 << 20, &good, &n_good, &err), "%s", err.msg);
    }
    bool changes = size && data[0] % 2;
    *n = changes ? n_good : size;
    uint8_t *copy = malloc(*n + 1);
    CM_ASSERT(copy, "out of memory");
    memcpy(copy, changes ? (const void *)good : data, *n);
    for (size_t i = 1; changes && i + 3 <= size; i += 3) {
        size_t at = data[i] | (size_t)data[i + 1] << 8;
        if (data[i + 2] == 255 && at < *n) *n = at;
        else if (at < *n) copy[at] ^= data[i + 2];
    }
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = scratch("prompt");
    char hex[HEX + 1];
    cm_err err;
    size_t n;
    uint8_t *file = file_of(path, data, size, &n);
    if (n >= HEX) {
        cm_sha_bytes(file, n - HEX, hex);
        memcpy(file + n - HEX, hex, HEX);
    }
    CM_ASSERT(cm_write_file(path, file, n, &err), "%s", err.msg);
    free(file);
    read_text(path);
    unlink(path);
    return 0;
}
