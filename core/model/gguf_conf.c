/* gguf_conf.c -- a model's configuration as GGUF keys, and back.
 *
 * Models with Mamba-2 layers are `granitehybrid`; all-attention ones are `granite` or,
 * with experts, `granitemoe` (llama.cpp aborts on a hybrid without SSM layers).  Reading
 * refuses every key that would change the function in a way we do not compute. */
#include "model/files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---------------------------------------------------------------------- */

const char *cm_gguf_arch(const cm_model_conf *c) {
    if (cm_model_has_mamba(c)) return "granitehybrid";
    return cm_model_has_experts(c) ? "granitemoe" : "granite";
}

typedef struct writer {
    cm_gguf_out *g;
    const char *arch;
    char key[96];
} writer;

static const char *key_of(writer *w, const char *name) {
    snprintf(w->key, sizeof w->key, "%s.%s", w->arch, name);
    return w->key;
}

static void put_u32(writer *w, const char *name, int64_t v) {
    cm_gguf_put_u32(w->g, key_of(w, name), (uint32_t)v);
}

static void put_f32(writer *w, const char *name, double v) {
    cm_gguf_put_f32(w->g, key_of(w, name), (float)v);
}

static void put_attention(writer *w, const cm_model_conf *c) {
    put_u32(w, "attention.head_count", c->n_heads);
    if (cm_model_has_mamba(c)) {
        uint32_t *kv = calloc((size_t)c->n_layers, sizeof *kv);
        CM_ASSERT(kv, "out of memory: layer list");
        for (int64_t i = 0; i < c->n_layers; i++)
            if (cm_layer_is_attention(c, i)) kv[i] = (uint32_t)c->n_kv_heads;
        cm_gguf_put_arr(w->g, key_of(w, "attention.head_count_kv"), CM_GGUF_U32, kv,
                        (uint64_t)c->n_layers);
        free(kv);
    } else {
        put_u32(w, "attention.head_count_kv", c->n_kv_heads);
    }
    put_u32(w, "attention.key_length", c->head_dim);
    put_u32(w, "attention.value_length", c->head_dim);
    put_f32(w, "attention.layer_norm_rms_epsilon", c->norm_eps);
    put_f32(w, "attention.scale", c->attention_scale > 0 ? c->attention_scale
                                                        : 1 / sqrt((double)c->head_dim));
}

static void put_rope(writer *w, const cm_model_conf *c) {
    /* Granite's RoPE switch is this key, whatever its name says. */
    cm_gguf_put_bool(w->g, key_of(w, "rope.scaling.finetuned"), c->rope != CM_ROPE_NONE);
    put_u32(w, "rope.dimension_count", c->head_dim);
    put_f32(w, "rope.freq_base", c->rope_theta);
    if (c->rope != CM_ROPE_LINEAR && c->rope != CM_ROPE_YARN) return;
    cm_gguf_put_str(w->g, key_of(w, "rope.scaling.type"),
                    c->rope == CM_ROPE_YARN ? "yarn" : "linear");
    put_f32(w, "rope.scaling.factor", c->rope_factor);
    put_u32(w, "rope.scaling.original_context_length", c->rope_orig_ctx);
}

static void put_mamba(writer *w, const cm_model_conf *c) {
    int64_t inner = c->ssm_expand * c->d_model;
    put_u32(w, "ssm.conv_kernel", c->ssm_conv);
    put_u32(w, "ssm.inner_size", inner);
    put_u32(w, "ssm.state_size", c->ssm_state);
    put_u32(w, "ssm.time_step_rank", inner / c->ssm_head_dim);
    put_u32(w, "ssm.group_count", c->ssm_groups);
    /* Not a key of llama.cpp's: the scan's sums keep their order, and so their bits. */
    cm_gguf_put_u32(w->g, "chimera.ssm_chunk", (uint32_t)c->ssm_chunk);
}

void cm_gguf_put_conf(cm_gguf_out *g, const cm_model_conf *c) {
    writer w = {.g = g, .arch = cm_gguf_arch(c)};
    bool experts = cm_model_has_experts(c);
    cm_gguf_put_str(g, "general.architecture", w.arch);
    put_u32(&w, "context_length", c->context);
    put_u32(&w, "embedding_length", c->d_model);
    put_u32(&w, "block_count", c->n_layers);
    put_u32(&w, "vocab_size", c->vocab_size);
    put_u32(&w, "feed_forward_length", experts ? c->d_expert : c->d_ff);
    if (experts) {
        put_u32(&w, "expert_count", c->n_experts);
        put_u32(&w, "expert_used_count", c->top_k);
        if (c->d_shared) put_u32(&w, "expert_shared_feed_forward_length", c->d_shared);
    }
    put_attention(&w, c);
    put_rope(&w, c);
    if (cm_model_has_mamba(c)) put_mamba(&w, c);
    put_f32(&w, "embedding_scale", c->embedding_scale);
    put_f32(&w, "residual_scale", c->residual_scale);
    put_f32(&w, "logit_scale", c->logit_scale);
}

/* ---- reading ---------------------------------------------------------------------- */

typedef struct reader {
    const cm_gguf *g;
    char arch[32];
    cm_err *err;
    bool ok;
} reader;

static void wrong(reader *r, const char *name, const char *want) {
    if (r->ok)
        r->ok = cm_fail(r->err, CM_EXIT_DATA, "%s: %s.%s: %s was wanted", r->g->path,
                        r->arch, name, want);
}

static const cm_gguf_kv *get(const reader *r, const char *name) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", r->arch, name);
    return cm_gguf_find(r->g, key);
}

/* A whole number, or a list that says the same for every layer.  none < 0: required. */
static int64_t get_int(reader *r, const char *name, int64_t none) {
    const cm_gguf_kv *kv = get(r, name);
    int64_t v = none, other;
    if (!kv && none < 0) wrong(r, name, "this key");
    if (!kv) return none;
    if (!cm_gguf_i64(kv, 0, &v)) wrong(r, name, "a whole number");
    for (uint64_t i = 1; kv->type == CM_GGUF_ARR && i < kv->n; i++)
        if (!cm_gguf_i64(kv, i, &other) || other != v)
            wrong(r, name, "the same number for every layer");
    return v;
}

static double get_real(reader *r, const char *name, double none) {
    const cm_gguf_kv *kv = get(r, name);
    double v = none;
    if (kv && (kv->type == CM_GGUF_ARR || !cm_gguf_f64(kv, 0, &v) || !isfinite(v)))
        wrong(r, name, "a number");
    return v;
}

/* A multiplier: absent or 0 is off. */
static double get_scale(reader *r, const char *name, double off) {
    double v = get_real(r, name, 0);
    return v != 0 ? v : off;
}

static void read_layers(reader *r, cm_file_conf *f) {
    cm_model_conf *c = &f->c;
    const cm_gguf_kv *kv = get(r, "attention.head_count_kv");
    bool hybrid = !strcmp(r->arch, "granitehybrid");
    int64_t L = c->n_layers, n;
    if (L < 1 || L >= (int64_t)sizeof f->pattern) {
        wrong(r, "block_count", "1 to 1024");
        return;
    }
    c->n_kv_heads = c->n_heads;
    memset(f->pattern, 'A', (size_t)L);
    if (!kv && !hybrid) return;
    if (!kv || (kv->type == CM_GGUF_ARR && kv->n != (uint64_t)L) ||
        (hybrid && kv->type != CM_GGUF_ARR)) {
        wrong(r, "attention.head_count_kv", "a list with a number for every layer");
        return;
    }
    int64_t heads = 0;
    for (int64_t i = 0; i < L; i++) {
        if (!cm_gguf_i64(kv, kv->type == CM_GGUF_ARR ? (uint64_t)i : 0, &n) || n < 0)
            wrong(r, "attention.head_count_kv", "whole numbers");
        else if (n && heads && n != heads)
            wrong(r, "attention.head_count_kv",
                  "the same number for every attention layer");
        else if (n) heads = n;
        else f->pattern[i] = 'M';
    }
    if (heads) c->n_kv_heads = heads;
}

static void read_rope(reader *r, cm_model_conf *c) {
    const cm_gguf_kv *on = get(r, "rope.scaling.finetuned");
    const cm_gguf_kv *type = get(r, "rope.scaling.type");
    int64_t P = c->head_dim ? c->head_dim : c->d_model / (c->n_heads ? c->n_heads : 1);
    c->rope = CM_ROPE_PLAIN;
    if (on && on->type != CM_GGUF_BOOL) wrong(r, "rope.scaling.finetuned", "a bool");
    /* granitemoe rotates whatever the switch says. */
    if (on && !on->v.b && strcmp(r->arch, "granitemoe")) c->rope = CM_ROPE_NONE;
    c->rope_theta = get_real(r, "rope.freq_base", 10000);
    if (c->rope == CM_ROPE_NONE) return;
    if (get_int(r, "rope.dimension_count", P) != P)
        wrong(r, "rope.dimension_count",
              "the head width (partial rotation is not supported)");
    c->rope_factor = get_scale(r, "rope.scaling.factor", 1);
    int64_t ctx = get_int(r, "rope.scaling.original_context_length", 0);
    c->rope_orig_ctx = ctx ? ctx : c->context;
    bool yarn = type && type->type == CM_GGUF_STR && type->v.s.n == 4 &&
                !memcmp(type->v.s.s, "yarn", 4);
    bool linear = !type || (type->type == CM_GGUF_STR && type->v.s.n == 6 &&
                            !memcmp(type->v.s.s, "linear", 6));
    bool none = type && type->type == CM_GGUF_STR && type->v.s.n == 4 &&
                !memcmp(type->v.s.s, "none", 4);
    if (!yarn && !linear && !none)
        wrong(r, "rope.scaling.type", "none, linear or yarn");
    if (yarn) c->rope = CM_ROPE_YARN;
    else if (linear && c->rope_factor != 1) c->rope = CM_ROPE_LINEAR;
    static const struct { const char *key; double only; } fixed[] = {
        {"rope.scaling.attn_factor", 1}, {"rope.scaling.yarn_ext_factor", 1},
        {"rope.scaling.yarn_attn_factor", 1}, {"rope.scaling.yarn_beta_fast", 32},
        {"rope.scaling.yarn_beta_slow", 1}, {"rope.scaling.yarn_log_multiplier", 0}};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (get_real(r, fixed[i].key, fixed[i].only) != fixed[i].only)
            wrong(r, fixed[i].key, "its default value (others are not supported)");
}

static void read_ffn(reader *r, cm_file_conf *f) {
    cm_model_conf *c = &f->c;
    int64_t F = get_int(r, "feed_forward_length", -1);
    int64_t experts = get_int(r, "expert_count", 0);
    f->ffn[0] = experts ? 'E' : 'D';
    if (get_int(r, "expert_group_count", 0) > 1)
        wrong(r, "expert_group_count", "no groups (limited routing is not supported)");
    if (!experts) {
        c->d_ff = F;
        return;
    }
    c->n_experts = experts;
    c->d_expert = F;
    c->top_k = get_int(r, "expert_used_count", -1);
    c->d_shared = get_int(r, "expert_shared_feed_forward_length", 0);
}

static void read_mamba(reader *r, cm_model_conf *c) {
    int64_t inner = get_int(r, "ssm.inner_size", -1);
    int64_t heads = get_int(r, "ssm.time_step_rank", -1);
    c->ssm_conv = get_int(r, "ssm.conv_kernel", -1);
    c->ssm_state = get_int(r, "ssm.state_size", -1);
    c->ssm_groups = get_int(r, "ssm.group_count", -1);
    if (inner < 1 || c->d_model < 1 || inner % c->d_model)
        wrong(r, "ssm.inner_size", "a multiple of the embedding length");
    else if (heads < 1 || inner % heads)
        wrong(r, "ssm.time_step_rank", "a number of heads that divides the inner size");
    if (!r->ok) return;
    c->ssm_expand = inner / c->d_model;
    c->ssm_head_dim = inner / heads;
    const cm_gguf_kv *kv = cm_gguf_find(r->g, "chimera.ssm_chunk");
    int64_t chunk;
    if (kv && cm_gguf_i64(kv, 0, &chunk) && chunk >= 1 && chunk <= 1024) c->ssm_chunk = chunk;
}

static void read_shape(reader *r, cm_file_conf *f) {
    cm_model_conf *c = &f->c;
    const cm_tensor *embed = cm_gguf_tensor(r->g, "token_embd.weight");
    if (!embed || embed->nd != 2) {
        r->ok = cm_fail(r->err, CM_EXIT_DATA,
                        "%s: tensor 'token_embd.weight' is missing or "
                        "no matrix", r->g->path);
        return;
    }
    c->vocab_size = embed->dim[0];
    c->tied = !cm_gguf_tensor(r->g, "output.weight");
    c->context = get_int(r, "context_length", -1);
    c->d_model = get_int(r, "embedding_length", -1);
    c->n_layers = get_int(r, "block_count", -1);
    c->n_heads = get_int(r, "attention.head_count", -1);
    c->head_dim = get_int(r, "attention.key_length", 0);
    if (get_int(r, "attention.value_length", c->head_dim) != c->head_dim)
        wrong(r, "attention.value_length", "the key length");
    c->norm_eps = get_real(r, "attention.layer_norm_rms_epsilon", 0);
    c->embedding_scale = get_scale(r, "embedding_scale", 1);
    c->residual_scale = get_scale(r, "residual_scale", 1);
    c->logit_scale = get_scale(r, "logit_scale", 1);
    c->attention_scale = get_scale(r, "attention.scale", 0);
    read_layers(r, f);
    read_ffn(r, f);
    read_rope(r, c);
    if (r->ok && memchr(f->pattern, 'M', strlen(f->pattern))) read_mamba(r, c);
}

bool cm_gguf_conf(cm_file_conf *f, const cm_gguf *g, cm_err *err) {
    static const char *const known[] = {"granitehybrid", "granite", "granitemoe"};
    const cm_gguf_kv *kv = cm_gguf_find(g, "general.type");
    if (kv && kv->type == CM_GGUF_STR && kv->v.s.n == 7 && !memcmp(kv->v.s.s, "adapter", 7))
        return cm_fail(err, CM_EXIT_DATA, "%s: is an adapter alone, no model; llama.cpp applies "
                       "it to its base (--lora), here name the run that it was made from",
                       g->path);
    kv = cm_gguf_find(g, "general.architecture");
    reader r = {.g = g, .err = err, .ok = true};
    cm_file_conf_init(f);
    if (kv && kv->type == CM_GGUF_STR && kv->v.s.n < sizeof r.arch)
        memcpy(r.arch, kv->v.s.s, kv->v.s.n);
    bool ours = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        ours = ours || !strcmp(r.arch, known[i]);
    if (!ours)
        return cm_fail(err, CM_EXIT_DATA, "%s: general.architecture is '%s'; "
                                          "granitehybrid, "
                       "granite and granitemoe can be run", g->path, r.arch);
    read_shape(&r, f);
    return r.ok && cm_file_conf_finish(f, g->path, err);
}
