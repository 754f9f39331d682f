/* prompt_fuzz.c -- any bytes as a prompt cache, with a hash that fits: a sentence, or a text
 * that is read to its end. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { V = 29, N = 300, HEX = 64 };
static const char ID[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char MODEL[] = "model: {d_model: 8, n_layers: 2, pattern: MA, n_heads: 1, n_kv_heads: 1, "
                            "d_ff: 8, ssm_state: 4, ssm_head_dim: 8, ssm_chunk: 16, context: 512}";

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64], hex[HEX + 1];
    cm_err err = { 0 };
    cm_decoder d;
    int32_t text[N];
    int64_t reused;
    cm_model *m = small_model();
    for (int i = 0; i < N; i++) text[i] = (i * i + 3) % V;
    snprintf(path, sizeof path, "/dev/shm/chimera-fuzz-%d.prompt", (int)getpid());
    uint8_t *copy = malloc(size + 1);
    CM_ASSERT(copy, "out of memory");
    memcpy(copy, data, size);
    if (size >= HEX) {
        cm_sha_bytes(copy, size - HEX, hex);
        memcpy(copy + size - HEX, hex, HEX);
    }
    if (size == 0) unlink(path); /* writes the one valid file */
    else CM_ASSERT(cm_write_file(path, copy, size, &err), "%s", err.msg);
    free(copy);
    CM_ASSERT(cm_decoder_open(&d, m, NULL, N, &err), "%s", err.msg);
    if (cm_decoder_read_cached(&d, text, N, path, ID, &reused, &err))
        CM_ASSERT(d.ready && d.fed == N && d.s.st.held[0] == N, "%lld of %d tokens were read",
                  (long long)d.fed, N);
    else
        CM_ASSERT(err.code == CM_EXIT_DATA && *err.msg, "no sentence: %s", err.msg);
    cm_decoder_close(&d);
    unlink(path);
    return 0;
}
