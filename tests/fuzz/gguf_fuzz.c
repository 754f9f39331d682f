/* gguf_fuzz.c -- any bytes as a GGUF file, all the way to a model: a sentence, or a file
 * whose every key and tensor can be read.  (clang -fsanitize=fuzzer,address,undefined) */
#include "io/io.h"
#include "tests/fuzz/scratch.h"
#include "model/model.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile double sum;

static void touch(const cm_gguf *g) {
    for (int i = 0; i < g->n_kv; i++) {
        const cm_gguf_kv *kv = &g->kv[i];
        double x;
        for (uint64_t k = 0; cm_gguf_f64(kv, k, &x); k++) sum += x > 0;
        const cm_gguf_str *s = kv->type == CM_GGUF_STR ? &kv->v.s
                               : kv->type == CM_GGUF_ARR && kv->elem == CM_GGUF_STR
                                   ? kv->data : NULL;
        uint64_t n = kv->type == CM_GGUF_STR ? 1 : kv->n;
        for (uint64_t k = 0; s && k < n; k++)
            for (uint64_t b = 0; b < s[k].n; b++) sum += s[k].s[b];
    }
    for (int i = 0; i < g->n_tensor; i++)
        for (size_t k = 0; k < cm_tensor_bytes(&g->tensor[i].t); k++)
            sum += ((const unsigned char *)g->tensor[i].t.data)[k];
}

static void refused(const cm_err *err) {
    CM_ASSERT(err->code == CM_EXIT_DATA && *err->msg, "no sentence: %s", err->msg);
}

static bool fetch_each(cm_loaded *l, cm_err *err) {
    bool ok = true;
    for (int i = 0; ok && i < l->model.params.n; i++) {
        const cm_param *p = l->model.params.p[i];
        ok = cm_loaded_fetch(l, p, err);
        cm_loaded_forget(l, p);
    }
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = scratch("gguf");
    cm_err err = {0};
    cm_gguf g;
    cm_loaded l;
    cm_log_setup("fuzz", CM_LOG_ERROR);
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    fwrite(data, 1, size, f);
    fclose(f);
    if (cm_gguf_open(&g, path, &err)) {
        touch(&g);
        cm_gguf_close(&g);
    } else {
        refused(&err);
    }
    /* As floats, as blocks, and a parameter at a time. */
    static const unsigned how[] = {0, CM_LOAD_BLOCKS | CM_LOAD_UNNAMED,
                                   CM_LOAD_LAZY | CM_LOAD_UNNAMED};
    for (int i = 0; i < 3; i++) {
        if (!cm_load(&l, path, how[i], &err)) {
            refused(&err);
            continue;
        }
        if (how[i] & CM_LOAD_LAZY && !fetch_each(&l, &err)) refused(&err);
        cm_loaded_close(&l);
    }
    return 0;
}
