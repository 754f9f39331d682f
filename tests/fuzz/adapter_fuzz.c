/* adapter_fuzz.c -- any bytes as an adapter's two files (adapter_config.json, a NUL, then
 * adapter_model.safetensors): a sentence, or an adapter that fits, in a model or beside it. */
#include "model/adapter.h"
#include "tests/fuzz/scratch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(const char *dir, const char *name, const uint8_t *data, size_t n) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    CM_ASSERT(f && fwrite(data, 1, n, f) == n && !fclose(f), "%s: not written", path);
}

/* The model of run.sh's seeds: every kind of matrix that can have an adapter. */
static void build(cm_model *m, cm_arena *arena) {
    cm_conf c;
    cm_err err;
    static const char text[] = "model: {d_model: 8, n_layers: 2, pattern: MA, ffn: E, n_heads: 1, "
                               "n_kv_heads: 1, n_experts: 4, d_expert: 8, ssm_state: 4, "
                               "ssm_head_dim: 8, ssm_chunk: 16}\n";
    cm_conf_open(&c, NULL);
    cm_conf_text(&c, "fuzz", text, sizeof text - 1);
    CM_ASSERT(cm_conf_check(&c, &err), "%s", err.msg);
    cm_model_conf conf = c.model;
    conf.vocab_size = 16;
    CM_ASSERT(cm_model_resolve(&conf, &err), "%s", err.msg);
    cm_model_build(m, &conf, arena, false);
    cm_params_init(&m->params, 1);
    cm_conf_close(&c);
}

static void refused(bool ok, const cm_err *err) {
    CM_ASSERT(ok || (err->code == CM_EXIT_DATA && *err->msg), "no sentence: %s", err->msg);
}

/* Merged, and (before: that rounds or changes the weights) kept apart. */
static void use(cm_adapter *a, bool apart) {
    cm_arena weights, extra;
    cm_model m;
    cm_err err = {0};
    CM_ASSERT(cm_arena_open(&weights, "model", 1 << 20, &err), "%s", err.msg);
    build(&m, &weights);
    CM_ASSERT(cm_arena_open(&extra, "adapter", cm_adapter_bytes(a, &m), &err), "%s", err.msg);
    refused(apart ? cm_adapter_attach(a, &m, &extra, &err) : cm_adapter_merge(a, &m, &err), &err);
    cm_model_end(&m);
    cm_arena_close(&extra);
    cm_arena_close(&weights);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *dir;
    cm_err err = {0};
    cm_adapter a;
    if (!dir) {
        CM_ASSERT(cm_kern_init(CM_NUMERICS_STRICT, 1, &err), "%s", err.msg);
        cm_log_setup("fuzz", CM_LOG_ERROR);
        dir = scratch("adapter");
        CM_ASSERT(!mkdir(dir, 0700), "%s: not made", dir);
    }
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    put(dir, CM_ADAPTER_CONFIG, data, n);
    put(dir, CM_ADAPTER_WEIGHTS, data + n + (nul != NULL), size - n - (nul != NULL));
    for (int apart = 0; apart < 2; apart++) {
        if (!cm_adapter_open(&a, dir, &err)) {
            refused(false, &err);
            return 0;
        }
        char *base = cm_adapter_base(&a, &err);
        refused(base != NULL, &err);
        free(base);
        refused(cm_adapter_suits(&a, "base", "0", &err), &err);
        use(&a, apart);
        cm_adapter_close(&a);
    }
    return 0;
}
