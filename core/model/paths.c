/* paths.c -- states at points of a prefix tree: what cm_model_paths reads and leaves. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

/* Reals of one layer's state; of a token's keys (or values), raw and convolved inputs. */
typedef struct {
    size_t conv, ssm, kv, raw, xbc;
} sizes;

static sizes layer_sizes(const cm_model_conf *c, int64_t i) {
    if (cm_layer_is_attention(c, i))
        return (sizes){ .kv = (size_t)(c->n_kv_heads * c->head_dim) };
    int64_t DI = c->ssm_expand * c->d_model, C = DI + 2 * c->ssm_groups * c->ssm_state;
    return (sizes){ .conv = (size_t)((c->ssm_conv - 1) * C),
                    .ssm = (size_t)(DI * c->ssm_state),
                    .raw = (size_t)(C + DI / c->ssm_head_dim), .xbc = (size_t)C };
}

size_t cm_past_bytes(const cm_model_conf *c, int rows) {
    size_t n = 0;
    for (int64_t i = 0; i < c->n_layers; i++) {
        sizes z = layer_sizes(c, i);
        n += z.conv + z.ssm + 2 * z.kv * (size_t)rows;
    }
    return n * sizeof(cm_real);
}

/* Memory for n[i] reals a layer behind a table of pointers, in one block; NULL: none. */
static cm_real **block(const cm_model_conf *c, size_t (*reals)(const sizes *), size_t rows) {
    size_t table = cm_align_up((size_t)c->n_layers * sizeof(cm_real *)), bytes = table;
    for (int64_t i = 0; i < c->n_layers; i++) {
        sizes z = layer_sizes(c, i);
        bytes += cm_align_up(reals(&z) * rows * sizeof(cm_real));
    }
    cm_real **t = aligned_alloc(CM_ALIGN, bytes);
    if (!t) return NULL;
    unsigned char *p = (unsigned char *)t + table;
    for (int64_t i = 0; i < c->n_layers; i++) {
        sizes z = layer_sizes(c, i);
        t[i] = (cm_real *)p;
        p += cm_align_up(reals(&z) * rows * sizeof(cm_real));
    }
    return t;
}

static size_t conv_reals(const sizes *z) { return z->conv; }
static size_t ssm_reals(const sizes *z) { return z->ssm; }
static size_t kv_reals(const sizes *z) { return z->kv; }
static size_t raw_reals(const sizes *z) { return z->raw; }
static size_t xbc_reals(const sizes *z) { return z->xbc; }

cm_past *cm_past_new(const cm_model *m, cm_past *up, int rows) {
    cm_past *p = malloc(sizeof *p);
    if (!p) return NULL;
    const cm_model_conf *c = &m->conf;
    *p = (cm_past){ .up = up, .tokens = (up ? up->tokens : 0) + rows, .rows = rows };
    p->conv = block(c, conv_reals, 1);
    p->ssm = block(c, ssm_reals, 1);
    p->k = block(c, kv_reals, (size_t)rows);
    p->v = block(c, kv_reals, (size_t)rows);
    if (p->conv && p->ssm && p->k && p->v) return p;
    cm_past_free(p);
    return NULL;
}

void cm_past_shrink(cm_past *p) {
    free(p->conv);
    free(p->ssm);
    p->conv = p->ssm = NULL;
}

void cm_past_free(cm_past *p) {
    if (!p) return;
    cm_past_shrink(p);
    free(p->k);
    free(p->v);
    free(p);
}

cm_carry *cm_carry_new(const cm_model *m, int rows) {
    cm_carry *c = malloc(sizeof *c);
    if (!c) return NULL;
    c->raw = block(&m->conf, raw_reals, (size_t)rows);
    c->xbc = block(&m->conf, xbc_reals, (size_t)rows);
    c->k = block(&m->conf, kv_reals, (size_t)rows);
    c->v = block(&m->conf, kv_reals, (size_t)rows);
    if (c->raw && c->xbc && c->k && c->v) return c;
    cm_carry_free(c);
    return NULL;
}

void cm_carry_free(cm_carry *c) {
    if (!c) return;
    free(c->raw);
    free(c->xbc);
    free(c->k);
    free(c->v);
    free(c);
}
