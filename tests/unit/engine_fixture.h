/* engine_fixture.h -- small random models of every kind, for the tests of eval/harness. */
#include "harness/harness.h"
#include "tests/t.h"

#include <stdlib.h>
#include <string.h>

enum { Q = 16, V = 61 };

typedef struct {
    cm_model m;
    cm_arena arena;
    cm_conf conf; /* owns the strings of m.conf */
} world;

#define SMALL "model: {d_model: 32, n_layers: 3, n_heads: 2, n_kv_heads: 1, d_ff: 48, "     \
              "n_experts: 4, top_k: 2, d_expert: 24, ssm_state: 8, ssm_head_dim: 16, "        \
              "ssm_chunk: 16, context: 256, export: any, "
static const char *const kinds[][2] = {
    { "hybrid", SMALL "pattern: MAM}" },
    { "experts", SMALL "pattern: MAM, ffn: DE, d_shared: 24}" },
    { "attention", SMALL "pattern: A, tied: false}" },
    { "mamba", SMALL "pattern: M}" },
    { "groups", SMALL "pattern: MA, ssm_groups: 2, ssm_conv: 3, rope: none}" },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void open_world(world *w, int kind, const char *more) {
    cm_err err;
    cm_conf *c = &w->conf;
    cm_conf_open(c, NULL);
    cm_conf_text(c, kinds[kind][0], kinds[kind][1], strlen(kinds[kind][1]));
    if (more) cm_conf_set(c, more);
    CM_ASSERT(cm_conf_check(c, &err), "%s", err.msg);
    c->model.vocab_size = V;
    CM_ASSERT(cm_model_resolve(&c->model, &err), "%s", err.msg);
    CM_ASSERT(cm_arena_open(&w->arena, "model", (size_t)16 << 20, &err), "%s", err.msg);
    cm_model_build(&w->m, &c->model, &w->arena, false);
    cm_params_init(&w->m.params, 7);
    cm_rng r = cm_rng_make(5, CM_RNG_TEST, 0);
    for (int i = 0; i < w->m.params.n; i++) { /* no vector of ones: a lost one must show */
        cm_tensor *t = &w->m.params.p[i]->var.v;
        for (int64_t k = 0; t->nd == 1 && k < t->dim[0]; k++)
            cm_rdata(t)[k] += (cm_real)(0.3 * cm_rng_uniform(r, (uint64_t)(i * 1000 + k)));
    }
}

static void close_world(world *w) {
    cm_model_end(&w->m);
    cm_arena_close(&w->arena);
    cm_conf_close(&w->conf);
}

static void threads(int n) {
    cm_err err;
    CM_ASSERT(cm_kern_init(CM_NUMERICS_STRICT, n, &err), "%s", err.msg);
}
