/* adapter_out.c -- adapters written as PEFT has them; see adapter.h. */
#include "model/adapter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ----------------------------------------------------------------------------- */

static int module_len(const cm_param *p) {
    return (int)(strlen(p->name) - strlen(".weight"));
}

static bool is_input(const cm_param *p) { return strstr(p->name, ".input_linear.") != NULL; }

/* The other matrix of the same experts. */
static const cm_param *sibling(const cm_model *m, const cm_param *p) {
    char name[96];
    const char *at = strstr(p->name, is_input(p) ? "input_linear" : "output_linear");
    snprintf(name, sizeof name, "%.*s%s.weight", (int)(at - p->name), p->name,
             is_input(p) ? "output_linear" : "input_linear");
    return cm_params_find(&m->params, name);
}

/* PEFT's name of the module that has p's adapter (free()). */
static char *peft_module(const cm_model *m, const cm_param *p) {
    if (p->var.v.nd == 2) return cm_strf(CM_PEFT_PREFIX "%.*s", module_len(p), p->name);
    const cm_param *other = sibling(m, p);
    bool inner = is_input(p) && other && other->lora_a;
    return cm_strf(CM_PEFT_PREFIX "%.*s.experts%s", (int)(strstr(p->name, "block_sparse_moe") +
                   strlen("block_sparse_moe") - p->name), p->name, inner ? ".base_layer" : "");
}

/* What a target is called without its layer; of experts their parameter. */
static void target_name(const cm_param *p, bool whole, char out[128]) {
    int layer, at = 0;
    if (!whole && sscanf(p->name, "model.layers.%d.%n", &layer, &at) < 1) at = 0;
    if (p->var.v.nd == 2) {
        snprintf(out, 128, "%.*s", module_len(p) - at, p->name + at);
        return;
    }
    const char *dot = strstr(p->name, is_input(p) ? "input_linear" : "output_linear");
    snprintf(out, 128, "%.*sexperts.%s", (int)(dot - p->name) - at, p->name + at,
             is_input(p) ? "gate_up_proj" : "down_proj");
}

/* Does every parameter that `short_name` would match have an adapter? */
static bool everywhere(const cm_model *m, int nd, const char *short_name) {
    for (int i = 0; i < m->params.n; i++) {
        const cm_param *p = m->params.p[i];
        char name[128];
        if (p->group != CM_GROUP_MATRIX || p->var.v.nd != nd) continue;
        target_name(p, false, name);
        if (!strcmp(name, short_name) && !p->lora_a) return false;
    }
    return true;
}

/* "key": ["self_attn.q_proj", ...] of the matrices (nd 2) or experts (3); short where all
 * layers have it, else by full names. */
static void add_targets(cm_buf *b, const cm_model *m, const char *key, int nd) {
    cm_buf list = { 0 };
    for (int i = 0; i < m->params.n; i++) {
        const cm_param *p = m->params.p[i];
        if (!p->lora_a || p->var.v.nd != nd) continue;
        char name[128], quoted[132];
        target_name(p, false, name);
        if (!everywhere(m, nd, name)) target_name(p, true, name);
        snprintf(quoted, sizeof quoted, "\"%s\"", name);
        if (list.n && strstr(list.s, quoted)) continue;
        cm_buf_addf(&list, "%s%s", list.n ? ", " : "", quoted);
    }
    cm_buf_addf(b, "  \"%s\": ", key);
    if (list.n) cm_buf_addf(b, "[%s],\n", list.s);
    else cm_buf_addf(b, "null,\n");
    cm_buf_free(&list);
}

/* ---- the description ------------------------------------------------------------------- */

static void add_quoted(cm_buf *b, const char *s) {
    cm_buf_addf(b, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') cm_buf_addf(b, "\\%c", c);
        else if (c < 0x20) cm_buf_addf(b, "\\u%04x", c);
        else cm_buf_add(b, s, 1);
    }
    cm_buf_addf(b, "\"");
}

static bool write_config(const cm_model *m, const char *base, const char *path, cm_err *err) {
    const cm_lora_conf *c = &m->lora;
    char alpha[32], drop[32];
    cm_buf b = { 0 };
    cm_buf_addf(&b, "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": \"CAUSAL_LM\",\n"
                    "  \"base_model_name_or_path\": ");
    add_quoted(&b, base);
    cm_buf_addf(&b, ",\n  \"r\": %lld,\n  \"lora_alpha\": %s,\n  \"use_rslora\": %s,\n"
                    "  \"lora_dropout\": %s,\n", (long long)c->rank,
                cm_f64_text(c->alpha, alpha), c->rslora ? "true" : "false",
                cm_f64_text(c->dropout, drop));
    add_targets(&b, m, "target_modules", 2);
    add_targets(&b, m, "target_parameters", 3);
    cm_buf_addf(&b, "  \"modules_to_save\": null,\n  \"bias\": \"none\",\n"
                    "  \"fan_in_fan_out\": false,\n  \"use_dora\": false,\n"
                    "  \"init_lora_weights\": true,\n  \"inference_mode\": true\n}\n");
    bool ok = cm_write_file(path, b.s, b.n, err);
    cm_buf_free(&b);
    return ok;
}

/* The way from folder `dir` to `path`, both absolute and without links (free()). */
static char *relative_to(const char *dir, const char *path) {
    size_t same = 0;
    for (size_t i = 0; dir[i] == path[i] || (!dir[i] && path[i] == '/'); i++) {
        if (!dir[i] || dir[i] == '/') same = i;
        if (!dir[i] || !path[i]) break;
    }
    cm_buf b = { 0 };
    for (const char *s = dir + same; *s; s++)
        if (*s == '/' && s[1]) cm_buf_addf(&b, "../");
    cm_buf_addf(&b, "%s", path[same] == '/' ? path + same + 1 : path + same);
    return b.s;
}

/* ---- tensors --------------------------------------------------------------------------- */

typedef struct out {
    cm_st_entry *e;
    const cm_param **of; /* whose matrix entry i is */
    int n;
} out;

static void add(out *o, const cm_model *m, const cm_param *p, char which) {
    const cm_tensor *w = &p->var.v;
    int64_t r = m->lora.rank, E = w->nd == 3 ? w->dim[0] : 1;
    int64_t O = w->dim[w->nd - 2], I = w->dim[w->nd - 1];
    char *module = peft_module(m, p);
    cm_tensor t = { .dtype = CM_F32_T, .nd = 2 };
    t.dim[0] = which == 'A' ? E * r : O;
    t.dim[1] = which == 'A' ? I : r * E;
    o->of[o->n] = which == 'A' ? p->lora_a : p->lora_b;
    o->e[o->n++] = (cm_st_entry){ cm_strf("%s.lora_%c.weight", module, which), t };
    free(module);
}

/* A is stored as it lies; B's experts go innermost. */
static bool fill(void *ctx, int i, void *dst, cm_err *err) {
    (void)err;
    const out *o = ctx;
    const cm_tensor *v = &o->of[i]->var.v, *t = &o->e[i].t;
    int64_t n = cm_tensor_count(v), E = v->nd == 3 ? v->dim[0] : 1, each = n / E;
    bool turn = E > 1 && t->dim[0] == v->dim[1] && t->dim[1] == v->dim[2] * E;
    float *to = dst;
    for (int64_t k = 0; k < n; k++)
        to[turn ? k % each * E + k / each : k] = (float)cm_rdata(v)[k];
    return true;
}

static bool write_weights(const cm_model *m, const char *dir, const char *base,
                          const char *base_id, const char *path, cm_err *err) {
    size_t most = (size_t)m->adapter.n;
    out o = { calloc(most, sizeof *o.e), calloc(most, sizeof(void *)), 0 };
    CM_ASSERT(o.e && o.of, "out of memory: %zu tensors", most);
    for (int i = 0; i < m->params.n; i++) {
        if (!m->params.p[i]->lora_a) continue;
        add(&o, m, m->params.p[i], 'A');
        add(&o, m, m->params.p[i], 'B');
    }
    char *here = realpath(dir, NULL), *rel = relative_to(here ? here : dir, base);
    cm_st_meta meta[] = { { "format", "pt" }, { "chimera.base_sha256", base_id },
                          { "chimera.base_relative", rel },
                          { "chimera.base_dtype", m->params.narrow ? "bf16" : "f32" } };
    bool ok = cm_st_write(path, o.e, o.n, meta, 4, fill, &o, err);
    for (int i = 0; i < o.n; i++) free((void *)(uintptr_t)o.e[i].name);
    free(o.e);
    free(o.of);
    free(here);
    free(rel);
    return ok;
}

bool cm_adapter_write(const cm_model *m, const char *dir, const char *base,
                      const char *base_id, cm_err *err) {
    char *config = cm_strf("%s/" CM_ADAPTER_CONFIG, dir);
    char *weights = cm_strf("%s/" CM_ADAPTER_WEIGHTS, dir);
    bool ok = write_config(m, base, config, err) &&
              write_weights(m, dir, base, base_id, weights, err);
    free(config);
    free(weights);
    return ok;
}
