/* resolve.c -- turn a written model section into a complete, consistent one. */
#include "model/model.h"

#include <string.h>

static bool bad(cm_err *err, const char *key, const char *fmt, ...) CM_PRINTF(3, 4);
static bool bad(cm_err *err, const char *key, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return cm_fail(err, CM_EXIT_USAGE, "model.%s: %s", key, text);
}

static bool letters(const char *key, const char *s, const char *allowed, cm_err *err) {
    for (const char *p = s; *p; p++)
        if (!strchr(allowed, *p))
            return bad(err, key, "found '%c' in '%s'; wanted only the letters %s", *p, s,
                       allowed);
    return *s ? true : bad(err, key, "empty; wanted letters of %s", allowed);
}

bool cm_layer_is_attention(const cm_model_conf *c, int64_t layer) {
    return c->pattern[(size_t)layer % strlen(c->pattern)] == 'A';
}

bool cm_layer_has_experts(const cm_model_conf *c, int64_t layer) {
    return c->ffn[(size_t)layer % strlen(c->ffn)] == 'E';
}

static bool any_layer(const cm_model_conf *c,
                      bool (*is)(const cm_model_conf *c, int64_t layer), bool want) {
    for (int64_t i = 0; i < c->n_layers; i++)
        if (is(c, i) == want) return true;
    return false;
}

bool cm_model_has_attention(const cm_model_conf *c) {
    return any_layer(c, cm_layer_is_attention, true);
}
bool cm_model_has_mamba(const cm_model_conf *c) {
    return any_layer(c, cm_layer_is_attention, false);
}
bool cm_model_has_experts(const cm_model_conf *c) {
    return any_layer(c, cm_layer_has_experts, true);
}
bool cm_model_has_dense(const cm_model_conf *c) {
    return any_layer(c, cm_layer_has_experts, false);
}

static bool resolve_attention(cm_model_conf *c, cm_err *err) {
    if (c->n_heads % c->n_kv_heads)
        return bad(err, "n_kv_heads", "%lld does not divide n_heads = %lld",
                   (long long)c->n_kv_heads, (long long)c->n_heads);
    if (!c->head_dim) {
        if (c->d_model % c->n_heads)
            return bad(err, "n_heads", "%lld does not divide d_model = %lld; set head_dim",
                       (long long)c->n_heads, (long long)c->d_model);
        c->head_dim = c->d_model / c->n_heads;
    }
    if (c->rope != CM_ROPE_NONE && (c->head_dim % 2 || c->head_dim > 512))
        return bad(err, "head_dim", "%lld; rotary embedding wants an even width up to 512",
                   (long long)c->head_dim);
    if (c->rope == CM_ROPE_NONE || c->rope == CM_ROPE_PLAIN) c->rope_factor = 1;
    if (!c->rope_orig_ctx)
        c->rope_orig_ctx = (int64_t)((double)c->context / c->rope_factor);
    return true;
}

static bool resolve_mamba(const cm_model_conf *c, cm_err *err) {
    int64_t inner = c->ssm_expand * c->d_model;
    if (inner % c->ssm_head_dim)
        return bad(err, "ssm_head_dim", "%lld does not divide the inner width %lld",
                   (long long)c->ssm_head_dim, (long long)inner);
    int64_t heads = inner / c->ssm_head_dim;
    if (heads % c->ssm_groups)
        return bad(err, "ssm_groups", "%lld does not divide the %lld heads",
                   (long long)c->ssm_groups, (long long)heads);
    return true;
}

bool cm_model_resolve(cm_model_conf *c, cm_err *err) {
    if (!letters("pattern", c->pattern, "MA", err)) return false;
    if (!letters("ffn", c->ffn, "DE", err)) return false;
    if (cm_model_has_attention(c) && !resolve_attention(c, err)) return false;
    if (cm_model_has_mamba(c) && !resolve_mamba(c, err)) return false;
    if (cm_model_has_experts(c) && c->top_k > c->n_experts)
        return bad(err, "top_k", "%lld exceeds n_experts = %lld", (long long)c->top_k,
                   (long long)c->n_experts);
    return true;
}
