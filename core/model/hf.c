/* hf.c -- Hugging Face's config.json for our models, written and read.
 *
 * Models that transformers computes as we do are GraniteMoeHybridForCausalLM.  What it
 * would compute differently gets a private architecture, so that it refuses: several SSM
 * groups (releases before 5 normalise over all of them at once) and feed-forward kinds
 * that differ between layers.  RoPE is written in the form of transformers 4
 * (rope_theta, rope_scaling), which 5 reads too; both forms are read. */
#include "model/files.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 16 << 20 };

/* ---- writing ---------------------------------------------------------------------- */

static bool is_private(const cm_model_conf *c) {
    return (cm_model_has_mamba(c) && c->ssm_groups > 1) ||
           (cm_model_has_dense(c) && cm_model_has_experts(c));
}

static void add_int(cm_buf *b, const char *key, int64_t v) {
    cm_buf_addf(b, "  \"%s\": %lld,\n", key, (long long)v);
}

/* The shortest text that reads back as the same double, always with a point or exponent,
 * since transformers' typed configurations tell 1 from 1.0. */
static void add_number(cm_buf *b, double v) {
    char s[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, v);
        if (strtod(s, NULL) == v) break;
    }
    if (v == floor(v) && fabs(v) < 1e15) snprintf(s, sizeof s, "%.1f", v);
    cm_buf_addf(b, "%s", s);
}

static void add_real(cm_buf *b, const char *key, double v) {
    cm_buf_addf(b, "  \"%s\": ", key);
    add_number(b, v);
    cm_buf_addf(b, ",\n");
}

static void add_id(cm_buf *b, const char *key, int id) {
    if (id >= 0) add_int(b, key, id);
    else cm_buf_addf(b, "  \"%s\": null,\n", key);
}

static void add_rope(cm_buf *b, const cm_model_conf *c) {
    bool on = cm_model_has_attention(c) && c->rope != CM_ROPE_NONE;
    cm_buf_addf(b, "  \"position_embedding_type\": \"%s\",\n", on ? "rope" : "nope");
    add_real(b, "rope_theta", c->rope_theta);
    if (!on || c->rope == CM_ROPE_PLAIN) return;
    cm_buf_addf(b, "  \"rope_scaling\": {\"rope_type\": \"%s\", \"factor\": ",
                c->rope == CM_ROPE_YARN ? "yarn" : "linear");
    add_number(b, c->rope_factor);
    if (c->rope == CM_ROPE_YARN)
        cm_buf_addf(b, ", \"original_max_position_embeddings\": %lld",
                    (long long)c->rope_orig_ctx);
    cm_buf_addf(b, "},\n");
}

static void add_attention(cm_buf *b, const cm_model_conf *c) {
    int64_t P = c->head_dim ? c->head_dim : c->d_model / c->n_heads;
    double scale = c->attention_scale > 0 ? c->attention_scale
                                          : 1 / sqrt((double)(P ? P : 1));
    add_int(b, "num_attention_heads", c->n_heads);
    add_int(b, "num_key_value_heads", c->n_kv_heads);
    /* transformers before 5 derives the width and would fail on shapes; 5 reads it. */
    if (P * c->n_heads != c->d_model && cm_model_has_attention(c))
        add_int(b, "head_dim", P);
    cm_buf_addf(b, "  \"attention_bias\": false,\n  \"attention_dropout\": 0.0,\n");
    add_real(b, "attention_multiplier", scale);
    add_rope(b, c);
}

static void add_mamba(cm_buf *b, const cm_model_conf *c) {
    int64_t inner = c->ssm_expand * c->d_model, P = c->ssm_head_dim;
    /* Without Mamba-2 layers the widths need not fit; transformers checks them anyway. */
    if (inner % P) P = inner;
    add_int(b, "mamba_expand", c->ssm_expand);
    add_int(b, "mamba_n_heads", inner / P);
    add_int(b, "mamba_d_head", P);
    add_int(b, "mamba_n_groups", c->ssm_groups);
    add_int(b, "mamba_d_state", c->ssm_state);
    add_int(b, "mamba_d_conv", c->ssm_conv);
    add_int(b, "mamba_chunk_size", c->ssm_chunk);
    cm_buf_addf(b, "  \"mamba_conv_bias\": true,\n  \"mamba_proj_bias\": false,\n");
}

static void add_ffn(cm_buf *b, const cm_model_conf *c) {
    bool experts = cm_model_has_experts(c);
    add_int(b, "intermediate_size", experts ? c->d_expert : c->d_ff);
    add_int(b, "shared_intermediate_size", experts ? c->d_shared : c->d_ff);
    add_int(b, "num_local_experts", experts ? c->n_experts : 0);
    add_int(b, "num_experts_per_tok", experts ? c->top_k : 0);
    add_real(b, "router_aux_loss_coef", c->lb_coef);
    if (experts && cm_model_has_dense(c)) {
        cm_buf_addf(b, "  \"chimera_ffn\": \"%s\",\n", c->ffn);
        add_int(b, "chimera_d_ff", c->d_ff);
    }
}

static void add_layers(cm_buf *b, const cm_model_conf *c) {
    add_int(b, "num_hidden_layers", c->n_layers);
    cm_buf_addf(b, "  \"layer_types\": [");
    for (int64_t i = 0; i < c->n_layers; i++)
        cm_buf_addf(b, "%s\"%s\"", i ? ", " : "",
                    cm_layer_is_attention(c, i) ? "attention" : "mamba");
    cm_buf_addf(b, "],\n");
}

bool cm_hf_write_config(const cm_model_conf *c, const cm_spm *spm, const char *path,
                        cm_err *err) {
    cm_buf b = {0};
    bool own = is_private(c);
    cm_buf_addf(&b, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n",
                own ? "ChimeraHybridForCausalLM" : "GraniteMoeHybridForCausalLM",
                own ? "chimera_hybrid" : "granitemoehybrid");
    add_int(&b, "vocab_size", c->vocab_size);
    add_int(&b, "hidden_size", c->d_model);
    add_layers(&b, c);
    add_attention(&b, c);
    add_mamba(&b, c);
    add_ffn(&b, c);
    add_int(&b, "max_position_embeddings", c->context);
    add_real(&b, "rms_norm_eps", c->norm_eps);
    add_real(&b, "embedding_multiplier", c->embedding_scale);
    add_real(&b, "residual_multiplier", c->residual_scale);
    add_real(&b, "logits_scaling", c->logit_scale);
    add_real(&b, "initializer_range", c->init_std);
    add_id(&b, "bos_token_id", spm ? cm_spm_bos(spm) : -1);
    add_id(&b, "eos_token_id", spm ? cm_spm_eos(spm) : -1);
    add_id(&b, "pad_token_id", spm ? cm_spm_pad(spm) : -1);
    cm_buf_addf(&b, "  \"hidden_act\": \"silu\",\n  \"use_cache\": true,\n"
                "  \"tie_word_embeddings\": %s\n}\n", c->tied ? "true" : "false");
    bool ok = cm_write_file(path, b.s, b.n, err);
    cm_buf_free(&b);
    return ok;
}

/* ---- reading ---------------------------------------------------------------------- */

/* One config.json being read; the first mistake sticks. */
typedef struct reader {
    const char *path;
    cJSON *root;
    cm_err *err;
    bool ok;
} reader;

static void wrong(reader *r, const char *key, const char *want) {
    if (r->ok)
        r->ok = cm_fail(r->err, CM_EXIT_DATA, "%s: %s: %s was wanted", r->path, key,
                        want);
}

static const cJSON *get(const reader *r, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(r->root, key);
    return cJSON_IsNull(v) ? NULL : v;
}

static double real_of(reader *r, const cJSON *v, const char *key, double none) {
    if (!v) return none;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble)) {
        wrong(r, key, "a number");
        return none;
    }
    return v->valuedouble;
}

static double get_real(reader *r, const char *key, double none) {
    return real_of(r, get(r, key), key, none);
}

static int64_t get_int(reader *r, const char *key, int64_t none) {
    double x = get_real(r, key, (double)none);
    if (x != floor(x) || fabs(x) > 1e15) {
        wrong(r, key, "a whole number");
        return none;
    }
    return (int64_t)x;
}

static const char *get_word(reader *r, const char *key, const char *none) {
    const cJSON *v = get(r, key);
    if (v && !cJSON_IsString(v)) wrong(r, key, "a string");
    return cJSON_IsString(v) ? v->valuestring : none;
}

static bool get_flag(reader *r, const char *key, bool none) {
    const cJSON *v = get(r, key);
    if (v && !cJSON_IsBool(v)) wrong(r, key, "true or false");
    return v ? cJSON_IsTrue(v) : none;
}

/* Python writes Infinity and NaN bare, which JSON forbids: 1e999 says the same. */
static void plain_json(char *s) {
    bool quoted = false;
    for (; *s; s++) {
        if (*s == '\\' && s[1]) s++;
        else if (*s == '"') quoted = !quoted;
        else if (!quoted && !strncmp(s, "Infinity", 8)) memcpy(s, "1e999   ", 8);
        else if (!quoted && !strncmp(s, "NaN", 3)) memcpy(s, "0  ", 3);
    }
}

static void read_layers(reader *r, cm_file_conf *f, const char *type) {
    const cJSON *list = get(r, "layer_types"), *v;
    if (!list) list = get(r, "layers_block_type");
    int64_t L = f->c.n_layers, i = 0;
    if (L < 1 || L >= (int64_t)sizeof f->pattern) {
        wrong(r, "num_hidden_layers", "1 to 1024");
        return;
    }
    memset(f->pattern, strcmp(type, "granitemoehybrid") ? 'A' : 'M', (size_t)L);
    if (!list) return;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != L) {
        wrong(r, "layer_types", "one word a layer");
        return;
    }
    cJSON_ArrayForEach(v, list) {
        const char *w = cJSON_IsString(v) ? v->valuestring : "";
        bool attn = !strcmp(w, "attention") || !strcmp(w, "full_attention");
        if (!attn && strcmp(w, "mamba") && strcmp(w, "linear_attention"))
            wrong(r, "layer_types", "'mamba' or 'attention'");
        f->pattern[i++] = attn ? 'A' : 'M';
    }
}

/* Keys of RoPE scaling that change its formula in ways we do not compute. */
static void read_rope_extras(reader *r, const cJSON *s) {
    static const struct { const char *key; double only; } fixed[] = {
        {"partial_rotary_factor", 1}, {"beta_fast", 32}, {"beta_slow", 1}};
    static const char *const absent[] = {"attention_factor", "mscale", "mscale_all_dim"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (real_of(r, cJSON_GetObjectItemCaseSensitive(s, fixed[i].key), fixed[i].key,
                    fixed[i].only) != fixed[i].only)
            wrong(r, fixed[i].key, "its default value (others are not supported)");
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(s, absent[i]);
        if (v && !cJSON_IsNull(v)) wrong(r, absent[i], "no value (it is not supported)");
    }
}

static void read_rope(reader *r, cm_model_conf *c, bool always) {
    const char *kind = get_word(r, "position_embedding_type", always ? "rope" : "nope");
    const cJSON *s = get(r, "rope_parameters");
    if (!s) s = get(r, "rope_scaling");
    c->rope_theta = get_real(r, "rope_theta", 10000);
    const cJSON *theta = cJSON_GetObjectItemCaseSensitive(s, "rope_theta");
    c->rope_theta = real_of(r, theta, "rope_theta", c->rope_theta);
    c->rope = CM_ROPE_NONE;
    if (strcmp(kind, "rope")) return;
    c->rope = CM_ROPE_PLAIN;
    if (!s) return;
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(s, "rope_type");
    if (!type) type = cJSON_GetObjectItemCaseSensitive(s, "type");
    const char *w = cJSON_IsString(type) ? type->valuestring : "default";
    if (!strcmp(w, "linear")) c->rope = CM_ROPE_LINEAR;
    else if (!strcmp(w, "yarn")) c->rope = CM_ROPE_YARN;
    else if (strcmp(w, "default"))
        wrong(r, "rope_scaling", "rope_type default, linear or yarn");
    read_rope_extras(r, s);
    const cJSON *factor = cJSON_GetObjectItemCaseSensitive(s, "factor");
    c->rope_factor = real_of(r, factor, "factor", 1);
    const cJSON *ctx =
        cJSON_GetObjectItemCaseSensitive(s, "original_max_position_embeddings");
    double orig = real_of(r, ctx, "original_max_position_embeddings", 0);
    if (orig >= 0 && orig <= 1e8) c->rope_orig_ctx = (int64_t)orig;
    else wrong(r, "original_max_position_embeddings", "up to 1e8");
}

static void read_ffn(reader *r, cm_file_conf *f, const char *type) {
    cm_model_conf *c = &f->c;
    int64_t inner = get_int(r, "intermediate_size", 11008);
    bool shared = strstr(type, "hybrid") || strstr(type, "shared");
    c->d_shared = shared ? get_int(r, "shared_intermediate_size", 1024) : 0;
    bool dense = !strcmp(type, "granite");
    int64_t experts = dense ? 0 : get_int(r, "num_local_experts", 8);
    c->d_ff = dense ? inner : c->d_shared;
    if (experts > 0) {
        c->n_experts = experts;
        c->d_expert = inner;
        c->top_k = get_int(r, "num_experts_per_tok", 2);
        c->d_ff = get_int(r, "chimera_d_ff", 512);
    } else {
        c->d_shared = 0;
    }
    const char *ffn = get_word(r, "chimera_ffn", experts > 0 ? "E" : "D");
    if (strlen(ffn) >= sizeof f->ffn) wrong(r, "chimera_ffn", "at most 1024 letters");
    else memcpy(f->ffn, ffn, strlen(ffn) + 1);
    c->lb_coef = get_real(r, "router_aux_loss_coef", c->lb_coef);
}

static void read_mamba(reader *r, cm_model_conf *c) {
    c->ssm_expand = get_int(r, "mamba_expand", 2);
    int64_t heads = get_int(r, "mamba_n_heads", 128), inner = 0;
    c->ssm_groups = get_int(r, "mamba_n_groups", 1);
    c->ssm_state = get_int(r, "mamba_d_state", 256);
    c->ssm_conv = get_int(r, "mamba_d_conv", 4);
    c->ssm_chunk = get_int(r, "mamba_chunk_size", 256);
    /* Only a matter of speed. */
    if (c->ssm_chunk > 1024 || c->ssm_chunk < 1) c->ssm_chunk = 64;
    if (get_flag(r, "mamba_proj_bias", false))
        wrong(r, "mamba_proj_bias", "false (biases are not supported)");
    if (__builtin_mul_overflow(c->ssm_expand, c->d_model, &inner) || heads < 1 ||
        inner % heads) {
        /* Filler of models without Mamba-2 layers; with them, a mistake. */
        wrong(r, "mamba_n_heads", "a divisor of mamba_expand x hidden_size");
        return;
    }
    c->ssm_head_dim = inner / heads;
    const cJSON *limit = get(r, "time_step_limit");
    const cJSON *lo = cJSON_GetArrayItem(limit, 0), *hi = cJSON_GetArrayItem(limit, 1);
    bool none = !limit || (cJSON_IsNumber(lo) && lo->valuedouble <= 0 && hi &&
                           (!cJSON_IsNumber(hi) || isinf(hi->valuedouble)));
    if (!none) wrong(r, "time_step_limit", "no limit (clamped steps are not supported)");
}

static void read_shape(reader *r, cm_file_conf *f, const char *type) {
    cm_model_conf *c = &f->c;
    c->vocab_size = get_int(r, "vocab_size", 32000);
    c->d_model = get_int(r, "hidden_size", 4096);
    c->n_layers = get_int(r, "num_hidden_layers", 32);
    c->n_heads = get_int(r, "num_attention_heads", 32);
    c->n_kv_heads = get_int(r, "num_key_value_heads", c->n_heads);
    c->head_dim = get_int(r, "head_dim", 0);
    c->context = get_int(r, "max_position_embeddings", 2048);
    c->norm_eps = get_real(r, "rms_norm_eps", 1e-6);
    c->embedding_scale = get_real(r, "embedding_multiplier", 1);
    c->residual_scale = get_real(r, "residual_multiplier", 1);
    c->attention_scale = get_real(r, "attention_multiplier", 1);
    c->logit_scale = get_real(r, "logits_scaling", 1);
    c->init_std = get_real(r, "initializer_range", 0.02);
    c->tied = get_flag(r, "tie_word_embeddings", true);
    if (get_flag(r, "attention_bias", false))
        wrong(r, "attention_bias", "false (biases are not supported)");
    if (strcmp(get_word(r, "hidden_act", "silu"), "silu"))
        wrong(r, "hidden_act", "'silu'");
    if (!r->ok) return;
    read_layers(r, f, strcmp(type, "chimera_hybrid") ? type : "granitemoehybrid");
    if (!r->ok) return;
    read_ffn(r, f, type);
    read_rope(r, c, !strstr(type, "hybrid"));
    if (memchr(f->pattern, 'M', strlen(f->pattern))) read_mamba(r, c);
}

bool cm_hf_conf(cm_file_conf *f, const char *path, cm_err *err) {
    static const char *const types[] = {"granitemoehybrid", "chimera_hybrid", "granite",
                                        "granitemoe", "granitemoeshared"};
    char *text;
    size_t n;
    cm_file_conf_init(f);
    if (!cm_read_file(path, MAX_CONFIG, &text, &n, err)) return false;
    plain_json(text);
    reader r = {path, cJSON_Parse(text), err, true};
    free(text);
    if (!cJSON_IsObject(r.root)) wrong(&r, "config", "a JSON object");
    const char *type = get_word(&r, "model_type", "(none)");
    bool known = false;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        known = known || !strcmp(type, types[i]);
    if (!known && r.ok)
        r.ok = cm_fail(err, CM_EXIT_DATA, "%s: model_type '%.60s'; granitemoehybrid, "
                       "granitemoe, granitemoeshared or granite can be run", path, type);
    if (r.ok) read_shape(&r, f, type);
    cJSON_Delete(r.root);
    return r.ok && cm_file_conf_finish(f, path, err);
}

bool cm_hf_read_config(cm_model_conf *c, cm_arena *strings, const char *path,
                       cm_err *err) {
    cm_file_conf f;
    if (!cm_hf_conf(&f, path, err)) return false;
    *c = f.c;
    char *p = cm_arena_alloc(strings, sizeof f.pattern);
    c->pattern = memcpy(p, f.pattern, sizeof f.pattern);
    p = cm_arena_alloc(strings, sizeof f.ffn);
    c->ffn = memcpy(p, f.ffn, sizeof f.ffn);
    return true;
}
