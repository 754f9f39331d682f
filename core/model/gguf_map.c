/* gguf_map.c -- a model's tensors in GGUF's names, and what GGUF cannot say.
 *
 * Facts about llama.cpp that decide here: gate and up are tensors of their own; ssm_a
 * holds -exp(A_log) and, like ssm_d, has a second dimension of 1; the gated norm is cut
 * into groups; rows of q and k are interleaved pairs where RoPE turns them; norms,
 * biases, convolution, ssm_a and ssm_d must be F32, and its quantizer keeps the router
 * F32. */
#include "model/files.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 512, MAX_EXPERTS = 1024 };

/* ---- limits ----------------------------------------------------------------------- */

static bool cannot(cm_err *err, const char *key, const char *fmt, ...) CM_PRINTF(3, 4);
static bool cannot(cm_err *err, const char *key, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return cm_fail(err, CM_EXIT_USAGE, "model.%s: GGUF cannot say this: %s", key, text);
}

bool cm_model_exportable(const cm_model_conf *c, cm_err *err) {
    bool mamba = cm_model_has_mamba(c), experts = cm_model_has_experts(c);
    if (!cm_model_has_attention(c))
        return cannot(err, "pattern", "'%s' has no attention layer; llama.cpp wants at "
                      "least one", c->pattern);
    if (experts && cm_model_has_dense(c))
        return cannot(err, "ffn", "'%s' mixes dense and expert layers; it must be D or E "
                      "throughout", c->ffn);
    if (mamba && c->ssm_expand != 2)
        return cannot(err, "ssm_expand", "%lld; the inner width must be 2 x d_model",
                      (long long)c->ssm_expand);
    if (!mamba && experts && c->rope == CM_ROPE_NONE)
        return cannot(err, "rope", "none; llama.cpp always rotates in attention-only "
                                   "models "
                      "with experts");
    if (c->n_layers > MAX_LAYERS)
        return cannot(err, "n_layers", "%lld; at most %d", (long long)c->n_layers,
                      MAX_LAYERS);
    if (experts && c->n_experts > MAX_EXPERTS)
        return cannot(err, "n_experts", "%lld; at most %d", (long long)c->n_experts,
                      MAX_EXPERTS);
    return true;
}

/* ---- tensors ---------------------------------------------------------------------- */

/* Add tensor blk.LAYER.NAME. */
static cm_item *blk(cm_items *out, cm_param *p, int layer, const char *name) {
    return cm_items_add(out, p, 0, NULL, "blk.%d.%s", layer, name);
}

static void blk_f32(cm_items *out, cm_param *p, int layer, const char *name) {
    blk(out, p, layer, name)->keep_f32 = true;
}

/* The same numbers as a matrix of `rows`, always F32. */
static cm_item *blk_rows(cm_items *out, cm_param *p, int layer, const char *name,
                         int64_t rows) {
    int64_t n = cm_tensor_count(&p->var.v);
    cm_item *it = cm_items_add(out, p, 2, (int64_t[]){rows, n / rows}, "blk.%d.%s", layer,
                               name);
    it->keep_f32 = true;
    return it;
}

static void add_mamba(cm_items *out, const cm_mamba2 *b, int i) {
    int64_t H = b->A_log->var.v.dim[0];
    blk(out, b->in_proj, i, "ssm_in.weight");
    blk_f32(out, b->conv_w, i, "ssm_conv1d.weight");
    blk_f32(out, b->conv_b, i, "ssm_conv1d.bias");
    blk_f32(out, b->dt_bias, i, "ssm_dt.bias");
    blk_rows(out, b->A_log, i, "ssm_a", H)->how = CM_ITEM_DECAY;
    blk_rows(out, b->D, i, "ssm_d", H);
    blk_rows(out, b->norm, i, "ssm_norm.weight", b->ssd.G);
    blk(out, b->out_proj, i, "ssm_out.weight");
}

static void add_turned(cm_items *out, cm_param *p, const cm_attn *b, int i,
                       const char *name) {
    cm_item *it = blk(out, p, i, name);
    if (!b->inv) return;
    it->how = CM_ITEM_ROPE;
    it->head = b->P;
}

static void add_attention(cm_items *out, const cm_attn *b, int i) {
    add_turned(out, b->q, b, i, "attn_q.weight");
    add_turned(out, b->k, b, i, "attn_k.weight");
    blk(out, b->v, i, "attn_v.weight");
    blk(out, b->o, i, "attn_output.weight");
}

/* A packed gate-and-up projection as two tensors, then the way down. */
static void add_swiglu(cm_items *out, cm_param *in, cm_param *down, int i,
                       const char *kind) {
    char name[64];
    int64_t F = in->var.v.dim[in->var.v.nd - 2] / 2;
    snprintf(name, sizeof name, "ffn_gate%s.weight", kind);
    cm_item_slice(blk(out, in, i, name), 0, F);
    snprintf(name, sizeof name, "ffn_up%s.weight", kind);
    cm_item_slice(blk(out, in, i, name), F, F);
    snprintf(name, sizeof name, "ffn_down%s.weight", kind);
    blk(out, down, i, name);
}

static void add_layer(cm_items *out, const cm_layer *l, int i) {
    blk_f32(out, l->norm1, i, "attn_norm.weight");
    if (l->attention) add_attention(out, &l->attn, i);
    else add_mamba(out, &l->mamba, i);
    blk_f32(out, l->norm2, i, "ffn_norm.weight");
    if (!l->experts) {
        add_swiglu(out, l->mlp.in, l->mlp.out, i, "");
        return;
    }
    blk_f32(out, l->moe.router, i, "ffn_gate_inp.weight");
    add_swiglu(out, l->moe.in, l->moe.out, i, "_exps");
    if (l->mlp.in) add_swiglu(out, l->mlp.in, l->mlp.out, i, "_shexp");
}

void cm_gguf_items(const cm_model *m, cm_items *out) {
    *out = (cm_items){0};
    cm_items_add(out, m->embed, 0, NULL, "token_embd.weight");
    cm_items_add(out, m->norm, 0, NULL, "output_norm.weight")->keep_f32 = true;
    if (m->head != m->embed) cm_items_add(out, m->head, 0, NULL, "output.weight");
    for (int i = 0; i < m->conf.n_layers; i++) add_layer(out, &m->layer[i], i);
}

void cm_gguf_lora_items(const cm_model *m, cm_items *out) {
    cm_items all;
    *out = (cm_items){0};
    cm_gguf_items(m, &all);
    for (int i = 0; i < all.n; i++) {
        const cm_item *w = &all.v[i];
        if (!w->p->lora_a) continue;
        cm_items_add(out, w->p->lora_a, 0, NULL, "%s.lora_a", w->name);
        /* B's rows are W's: cut and turned as they are. */
        cm_item *b = cm_items_add(out, w->p->lora_b, 0, NULL, "%s.lora_b", w->name);
        if (w->rows != w->pitch) cm_item_slice(b, w->row0, w->rows);
        b->how = w->how;
        b->head = w->head;
    }
    cm_items_free(&all);
}

/* ---- reading ---------------------------------------------------------------------- */

/* The name of the tensor that has q, k and v, if the item is one of them. */
static bool fused_name(const cm_attn *a, const cm_item *it, char name[160]) {
    const char *dot = strstr(it->name, ".attn_");
    if (!dot || (it->p != a->q && it->p != a->k && it->p != a->v)) return false;
    snprintf(name, 160, "%.*s.attn_qkv.weight", (int)(dot - it->name), it->name);
    return true;
}

/* q, k or v out of blk.N.attn_qkv, whose rows are theirs in that order. */
static bool read_fused(cm_source *s, const cm_attn *a, const cm_item *it, bool *found,
                       cm_err *err) {
    int64_t q = (int64_t)a->H * a->P, kv = (int64_t)a->G * a->P;
    char name[160];
    if (!fused_name(a, it, name)) return true;
    int64_t skip = it->p == a->q ? 0 : it->p == a->k ? q : q + kv;
    return cm_source_read(s, it, name, skip, q + 2 * kv, found, err);
}

/* The type that an item has in the file; cm_real where it may not stay so. */
static cm_dtype type_of(const cm_gguf *g, const cm_model *m, const cm_item *it) {
    int layer = -1;
    char name[160];
    bool matrix = it->p->group == CM_GROUP_MATRIX || it->p->group == CM_GROUP_EMBED;
    const cm_tensor *t = cm_gguf_tensor(g, it->name);
    sscanf(it->name, "blk.%d.", &layer);
    if (!t && layer >= 0 && m->layer[layer].attention &&
        fused_name(&m->layer[layer].attn, it, name))
        t = cm_gguf_tensor(g, name);
    /* A width that is not whole blocks is an error that reading will name. */
    bool fits = t && matrix && cm_qmat_holds(t->dtype) &&
                it->cols % cm_dtypes[t->dtype].block == 0;
    return fits ? t->dtype : CM_REAL_DTYPE;
}

static void types_of(const cm_gguf *g, const cm_model *m, cm_dtype *type, bool *seen) {
    cm_items items;
    cm_gguf_items(m, &items);
    for (int i = 0; i < m->params.n; i++) type[i] = CM_REAL_DTYPE;
    for (int i = 0; i < items.n; i++) {
        int k = 0;
        while (m->params.p[k] != items.v[i].p) k++;
        cm_dtype t = type_of(g, m, &items.v[i]);
        type[k] = seen[k] && type[k] != t ? CM_REAL_DTYPE : t;
        seen[k] = true;
    }
    cm_items_free(&items);
}

bool cm_gguf_types(const cm_gguf *g, const cm_model_conf *c, cm_dtype **types, cm_err *err) {
    cm_arena count;
    cm_model m;
    if (!cm_arena_open_counting(&count, "names of tensors", err)) return false;
    cm_model_build(&m, c, &count, false);
    bool *seen = calloc((size_t)m.params.n, sizeof *seen);
    *types = malloc((size_t)m.params.n * sizeof **types);
    CM_ASSERT(*types && seen, "out of memory: %d types", m.params.n);
    types_of(g, &m, *types, seen);
    free(seen);
    cm_model_end(&m);
    cm_arena_close(&count);
    return true;
}

bool cm_gguf_read_item(cm_source *s, const cm_model *m, const cm_item *it, cm_err *err) {
    bool found;
    int layer = -1;
    if (!cm_source_read(s, it, it->name, 0, 0, &found, err)) return false;
    sscanf(it->name, "blk.%d.", &layer);
    if (!found && layer >= 0 && m->layer[layer].attention &&
        !read_fused(s, &m->layer[layer].attn, it, &found, err))
        return false;
    if (!found && strstr(it->name, "ssm_conv1d.bias")) {
        memset(it->p->var.v.data, 0, cm_tensor_bytes(&it->p->var.v));
        found = true;
    }
    return found || cm_fail(err, CM_EXIT_DATA, "%s: tensor '%s' is missing", s->path,
                            it->name);
}
