/* model_bed.h -- the two small hybrids of tests/golden/model_*.safetensors, built and filled,
 * for the tests that compare whole models with PyTorch; the second also with adapters. */
#ifndef CM_MODEL_BED_H
#define CM_MODEL_BED_H

#include "model/model.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    cm_model m;
    cm_st file, lora; /* lora: of the adapters, or not open */
    cm_arena perm, step, meta;
    cm_batch batch;
    int64_t R;
} bed;

static cm_model_conf golden_conf(bool moe) {
    cm_conf c;
    cm_conf_open(&c, NULL);
    cm_model_conf m = c.model;
    cm_conf_close(&c);
    m.pattern = "MMMA";
    m.ffn = moe ? "E" : "D";
    m.d_model = 16;
    m.n_layers = 4;
    m.vocab_size = 40;
    m.n_heads = 4;
    m.n_kv_heads = 2;
    m.d_ff = 20;
    m.n_experts = 4;
    m.top_k = 2;
    m.d_expert = 10;
    m.d_shared = 6;
    m.ssm_state = 6;
    m.ssm_head_dim = 8;
    m.ssm_groups = 2;
    m.ssm_chunk = 8;
    return m;
}

static const cm_tensor *need(const bed *b, const char *name) {
    const cm_tensor *t = b->lora.mem ? cm_st_find(&b->lora, name) : NULL;
    if (!t) t = cm_st_find(&b->file, name);
    CM_ASSERT(t, "golden file lacks %s", name);
    return t;
}

static void fill(const bed *b, const cm_params *ps) {
    for (int i = 0; i < ps->n; i++) {
        const cm_param *p = ps->p[i];
        const double *src = need(b, p->name)->data;
        int64_t n = cm_tensor_count(&p->var.v);
        CM_ASSERT(n == cm_tensor_count(need(b, p->name)), "%s has another size", p->name);
        for (int64_t k = 0; k < n; k++) cm_rdata(&p->var.v)[k] = (cm_real)src[k];
    }
}

static void bed_open(bed *b, bool moe, bool lora) {
    static const char *all[] = { "all" };
    const cm_lora_conf l = { .rank = 3, .alpha = 5, .targets = { 1, all } };
    cm_err err;
    size_t cap = (size_t)1 << 30;
    *b = (bed){ 0 };
    cm_model_conf c = golden_conf(moe);
    const char *path = moe ? "tests/golden/model_moe.safetensors"
                           : "tests/golden/model_dense.safetensors";
    bool ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) && cm_model_resolve(&c, &err) &&
              cm_arena_open(&b->perm, "perm", cap, &err) &&
              cm_arena_open(&b->step, "step", cap, &err) &&
              cm_arena_open(&b->meta, "meta", cap, &err) &&
              cm_st_open(&b->file, path, &err) &&
              (!lora || cm_st_open(&b->lora, "tests/golden/model_lora.safetensors", &err));
    CM_ASSERT(ok, "%s", err.msg);
    cm_model_build_lora(&b->m, &c, lora ? &l : NULL, &b->perm, true);
    fill(b, &b->m.params);
    fill(b, &b->m.adapter);
    const cm_tensor *tok = need(b, "tokens");
    b->batch = (cm_batch){ .B = (int)tok->dim[0], .T = (int)tok->dim[1], .token = tok->data,
                           .target = need(b, "targets")->data, .doc = need(b, "doc")->data,
                           .pos = need(b, "pos")->data };
    b->R = cm_tensor_count(tok);
}

static void bed_close(bed *b) {
    cm_model_end(&b->m);
    cm_st_close(&b->file);
    if (b->lora.mem) cm_st_close(&b->lora);
    cm_arena_close(&b->perm);
    cm_arena_close(&b->step);
    cm_arena_close(&b->meta);
}

/* ||a - b|| / ||b|| */
static double distance(const cm_real *a, const double *b, int64_t n) {
    double d2 = 0, b2 = 0;
    for (int64_t i = 0; i < n; i++) {
        d2 += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        b2 += b[i] * b[i];
    }
    return sqrt(d2 / b2);
}

#endif
