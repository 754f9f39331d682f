/* adapter.c -- adapters read from PEFT's files; see adapter.h. */
#include "model/adapter.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 16 << 20 };

/* ---- the description ------------------------------------------------------------------ */

typedef struct reader {
    const char *path;
    const cJSON *root;
    cm_err *err;
    bool ok;
} reader;

static void wrong(reader *r, const char *key, const char *want) {
    if (r->ok)
        r->ok = cm_fail(r->err, CM_EXIT_DATA, "%s: %s: %s was wanted", r->path, key, want);
}

static double number(reader *r, const char *key, double none, double lo, double hi) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(r->root, key);
    if (!v || cJSON_IsNull(v)) return none;
    if (cJSON_IsNumber(v) && v->valuedouble >= lo && v->valuedouble <= hi)
        return v->valuedouble;
    wrong(r, key, "a number in range");
    return none;
}

/* Variants that compute something else must not pass for plain LoRA. */
static void refuse_variants(reader *r) {
    static const char *const off[] = { "use_dora", "fan_in_fan_out", "lora_bias",
                                       "use_qalora", "modules_to_save", "rank_pattern",
                                       "alpha_pattern", "layer_replication",
                                       "trainable_token_indices" };
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(r->root, off[i]);
        bool empty = cJSON_IsObject(v) || cJSON_IsArray(v) ? !v->child : false;
        if (v && !cJSON_IsNull(v) && !cJSON_IsFalse(v) && !empty)
            wrong(r, off[i], "no such thing (plain LoRA)");
    }
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(r->root,
                                                                            "peft_type"));
    const char *bias = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(r->root, "bias"));
    if (!type || strcmp(type, "LORA")) wrong(r, "peft_type", "\"LORA\"");
    if (bias && strcmp(bias, "none")) wrong(r, "bias", "\"none\"");
}

static bool read_config(cm_adapter *a, const char *path, cm_err *err) {
    char *text;
    size_t n;
    if (!cm_read_file(path, MAX_CONFIG, &text, &n, err)) return false;
    cJSON *root = cJSON_Parse(text);
    free(text);
    reader r = { path, root, err, true };
    if (!cJSON_IsObject(root)) wrong(&r, "the file", "a JSON object");
    if (r.ok) refuse_variants(&r);
    double rank = number(&r, "r", 8, 1, 4096);
    a->conf = (cm_lora_conf){ .rank = (int64_t)rank };
    if (rank != floor(rank)) wrong(&r, "r", "a whole number");
    a->conf.alpha = number(&r, "lora_alpha", 8, 0, 1e6);
    a->conf.dropout = number(&r, "lora_dropout", 0, 0, 1);
    a->conf.rslora = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "use_rslora"));
    const cJSON *base = cJSON_GetObjectItemCaseSensitive(root, "base_model_name_or_path");
    if (cJSON_IsString(base) && *base->valuestring) a->base = cm_strf("%s", base->valuestring);
    cJSON_Delete(root);
    return r.ok;
}

bool cm_adapter_open(cm_adapter *a, const char *dir, cm_err *err) {
    char *config = cm_strf("%s/" CM_ADAPTER_CONFIG, dir);
    char *weights = cm_strf("%s/" CM_ADAPTER_WEIGHTS, dir);
    *a = (cm_adapter){ .dir = cm_strf("%s", dir) };
    bool ok = read_config(a, config, err) && cm_st_open(&a->st, weights, err);
    if (ok) {
        a->used = calloc((size_t)a->st.n + 1, 1);
        CM_ASSERT(a->used, "out of memory: %d tensors", a->st.n);
        const char *dtype = cm_st_get_meta(&a->st, "chimera.base_dtype");
        a->conf.base = dtype && !strcmp(dtype, "bf16") ? CM_BASE_BF16 : CM_BASE_F32;
    }
    free(config);
    free(weights);
    if (!ok) cm_adapter_close(a);
    return ok;
}

void cm_adapter_close(cm_adapter *a) {
    if (a->st.mem) cm_st_close(&a->st);
    free(a->used);
    free(a->dir);
    free(a->base);
    *a = (cm_adapter){ 0 };
}

/* ---- the base -------------------------------------------------------------------------- */

char *cm_adapter_base(const cm_adapter *a, cm_err *err) {
    const char *rel = cm_st_get_meta(&a->st, "chimera.base_relative");
    if (a->base && cm_exists(a->base)) return cm_strf("%s", a->base);
    const char *const from_here[] = { rel, a->base && *a->base != '/' ? a->base : NULL };
    for (int i = 0; i < 2; i++) {
        if (!from_here[i]) continue;
        char *path = cm_strf("%s/%s", a->dir, from_here[i]);
        if (cm_exists(path)) return path;
        free(path);
    }
    cm_fail(err, CM_EXIT_DATA, "%s: the base model of this adapter is not there: "
            "base_model_name_or_path is '%s'%s%s", a->dir, a->base ? a->base : "(none)",
            rel ? ", or from this folder " : "", rel ? rel : "");
    return NULL;
}

bool cm_adapter_suits(const cm_adapter *a, const char *base, const char *id, cm_err *err) {
    const char *want = cm_st_get_meta(&a->st, "chimera.base_sha256");
    if (!want) {
        cm_log(CM_LOG_WARN, "%s: does not tell what its base's weights were; %s is taken on "
               "trust", a->dir, base);
        return true;
    }
    return !strcmp(want, id) ||
           cm_fail(err, CM_EXIT_DATA, "%s: an adapter for another base: it was trained on "
                   "weights with SHA-256 %.12s..., %s has %.12s...", a->dir, want, base, id);
}

/* ---- tensors --------------------------------------------------------------------------- */

/* Two tensors of the file, floats. */
typedef struct pair {
    const cm_st_entry *a, *b;
    bool swapped; /* experts before PEFT 0.19: A belongs to W's rows */
} pair;

static const cm_st_entry *entry(const cm_adapter *a, const char *module, char which) {
    char name[256];
    snprintf(name, sizeof name, CM_PEFT_PREFIX "%s.lora_%c.weight", module, which);
    for (int i = 0; i < a->st.n; i++)
        if (!strcmp(a->st.entry[i].name, name)) return &a->st.entry[i];
    return NULL;
}

static bool is_shape(const cm_st_entry *e, int64_t rows, int64_t cols) {
    bool real = e->t.dtype == CM_F32_T || e->t.dtype == CM_F16_T || e->t.dtype == CM_BF16_T;
    return real && e->t.nd == 2 && e->t.dim[0] == rows && e->t.dim[1] == cols;
}

/* Does the module's pair fit W [E,O,I] with rank r? */
static bool fits(const cm_adapter *a, const char *module, const cm_tensor *w, pair *p) {
    int64_t r = a->conf.rank, O = w->dim[w->nd - 2], I = w->dim[w->nd - 1];
    if (w->nd == 3) r *= w->dim[0];
    *p = (pair){ entry(a, module, 'A'), entry(a, module, 'B'), false };
    if (!p->a || !p->b) return false;
    if (is_shape(p->a, r, I) && is_shape(p->b, O, r)) return true;
    p->swapped = w->nd == 3 && is_shape(p->a, r, O) && is_shape(p->b, I, r);
    return p->swapped;
}

static bool find(const cm_adapter *a, const cm_param *p, pair *found) {
    static const char *const places[] = { ".experts.base_layer", ".experts" };
    char module[128];
    snprintf(module, sizeof module, "%.*s",
             (int)(strlen(p->name) - strlen(".weight")), p->name);
    if (fits(a, module, &p->var.v, found)) return true;
    char *dot = strrchr(module, '.');
    if (p->var.v.nd != 3 || !dot) return false;
    for (int i = 0; i < 2; i++) {
        snprintf(dot, sizeof module - (size_t)(dot - module), "%s", places[i]);
        if (fits(a, module, &p->var.v, found)) return true;
    }
    return false;
}

static float *floats(cm_adapter *a, const cm_st_entry *e) {
    int64_t n = cm_tensor_count(&e->t);
    float *f = malloc((size_t)n * sizeof *f);
    CM_ASSERT(f, "out of memory: %s", e->name);
    cm_to_f32(e->t.dtype, e->t.data, f, n);
    a->used[e - a->st.entry] = true;
    return f;
}

/* to[e,k,i] = by_rows[e*r + k, i], n columns. */
static void copy_rows(const float *by_rows, int64_t count, cm_real *to) {
    for (int64_t i = 0; i < count; i++) to[i] = (cm_real)by_rows[i];
}

/* The same of its transpose: to[e,n,k] from rows e*r + k. */
static void turn_rows(const float *by_rows, int64_t E, int64_t r, int64_t n, cm_real *to) {
    for (int64_t e = 0; e < E; e++)
        for (int64_t k = 0; k < r; k++)
            for (int64_t i = 0; i < n; i++)
                to[(e * n + i) * r + k] = (cm_real)by_rows[(e * r + k) * n + i];
}

/* From columns k*E + e of n rows: to[e,n,k], or (turned) to[e,k,n]. */
static void copy_cols(const float *by_cols, int64_t E, int64_t r, int64_t n, bool turned,
                      cm_real *to) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < r; k++)
            for (int64_t e = 0; e < E; e++)
                to[turned ? (e * r + k) * n + i : (e * n + i) * r + k] =
                    (cm_real)by_cols[(i * r + k) * E + e];
}

bool cm_adapter_pair(cm_adapter *a, const cm_param *p, cm_real *A, cm_real *B) {
    pair f;
    if (!find(a, p, &f)) return false;
    if (!A) return true;
    const cm_tensor *w = &p->var.v;
    int64_t r = a->conf.rank, E = w->nd == 3 ? w->dim[0] : 1;
    int64_t O = w->dim[w->nd - 2], I = w->dim[w->nd - 1];
    float *fa = floats(a, f.a), *fb = floats(a, f.b);
    if (f.swapped) {
        copy_cols(fb, E, r, I, true, A);
        turn_rows(fa, E, r, O, B);
    } else {
        copy_rows(fa, E * r * I, A);
        copy_cols(fb, E, r, O, false, B);
    }
    free(fa);
    free(fb);
    return true;
}

/* ---- into a model ---------------------------------------------------------------------- */

/* Nothing may be left over, and no value be broken. */
static bool all_used(const cm_adapter *a, cm_err *err) {
    char shape[128];
    for (int i = 0; i < a->st.n; i++)
        if (!a->used[i])
            return cm_fail(err, CM_EXIT_DATA, "%s: tensor '%.200s' %s has no place in the base "
                           "model at rank %lld", a->st.path, a->st.entry[i].name,
                           cm_tensor_shape_str(&a->st.entry[i].t, shape, sizeof shape),
                           (long long)a->conf.rank);
    return true;
}

static bool all_finite(const cm_adapter *a, const char *name, const cm_real *x, int64_t n,
                   cm_err *err) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return cm_fail(err, CM_EXIT_DATA, "%s: the adapter of '%s' holds a value that is "
                           "not finite", a->st.path, name);
    return true;
}

static int64_t count_b(const cm_tensor *w, int64_t r) {
    return cm_tensor_count(w) / w->dim[w->nd - 1] * r;
}
static int64_t count_a(const cm_tensor *w, int64_t r) {
    return cm_tensor_count(w) / w->dim[w->nd - 2] * r;
}

static bool is_matrix(const cm_param *p) { return p->group == CM_GROUP_MATRIX; }

/* What bf16 makes of a value. */
static void round_matrices(cm_model *m) {
    for (int i = 0; i < m->params.n; i++) {
        cm_param *p = m->params.p[i];
        if (!is_matrix(p) && p->group != CM_GROUP_EMBED) continue;
        if (p->var.v.dtype != CM_REAL_DTYPE) continue;
        cm_real *w = cm_rdata(&p->var.v);
        int64_t n = cm_tensor_count(&p->var.v);
#pragma omp parallel for schedule(static)
        for (int64_t k = 0; k < n; k++) w[k] = cm_bf16_to_f32(cm_f32_to_bf16((float)w[k]));
    }
}

bool cm_adapter_merge(cm_adapter *a, cm_model *m, cm_err *err) {
    int64_t r = a->conf.rank;
    double scale = cm_lora_scale(&a->conf);
    bool ok = true;
    if (a->conf.base == CM_BASE_BF16) round_matrices(m);
    for (int i = 0; ok && i < m->params.n; i++) {
        cm_param *p = m->params.p[i];
        if (!is_matrix(p) || !cm_adapter_pair(a, p, NULL, NULL)) continue;
        int64_t na = count_a(&p->var.v, r), nb = count_b(&p->var.v, r);
        cm_real *A = malloc((size_t)(na + nb) * sizeof *A);
        CM_ASSERT(A, "out of memory: the adapter of %s", p->name);
        cm_adapter_pair(a, p, A, A + na);
        ok = all_finite(a, p->name, A, na + nb, err);
        if (ok) cm_lora_merge(p, r, scale, A, A + na);
        free(A);
    }
    return ok && all_used(a, err);
}

bool cm_adapter_fill(cm_adapter *a, cm_model *m, cm_err *err) {
    int64_t r = a->conf.rank;
    if (r != m->lora.rank)
        return cm_fail(err, CM_EXIT_DATA, "%s: rank %lld, this run has %lld", a->dir,
                       (long long)r, (long long)m->lora.rank);
    for (int copy = 0; copy < 2; copy++)
        for (int i = 0; i < m->params.n; i++) {
            cm_param *p = m->params.p[i];
            if (!p->lora_a) continue;
            cm_real *A = copy ? cm_rdata(&p->lora_a->var.v) : NULL;
            if (!cm_adapter_pair(a, p, A, copy ? cm_rdata(&p->lora_b->var.v) : NULL))
                return cm_fail(err, CM_EXIT_DATA, "%s: no adapter for '%s'", a->st.path,
                               p->name);
            if (copy && !all_finite(a, p->name, A, count_a(&p->var.v, r), err)) return false;
        }
    return all_used(a, err);
}

static const char *module_name(const cm_param *p, cm_arena *arena) {
    size_t n = strlen(p->name) - strlen(".weight");
    char *s = cm_arena_zalloc(arena, n + 1);
    return memcpy(s, p->name, n);
}

/* At most as many numbers as the file has bytes, and a name a parameter. */
size_t cm_adapter_bytes(const cm_adapter *a, const cm_model *m) {
    return 8 * a->st.map.size + (size_t)m->params.n * 256 + ((size_t)1 << 16);
}

bool cm_adapter_attach(cm_adapter *a, cm_model *m, cm_arena *arena, cm_err *err) {
    m->lora = a->conf;
    m->lora.targets.v = cm_arena_zalloc(arena, (size_t)m->params.n * sizeof(char *));
    for (int i = 0; i < m->params.n; i++)
        if (is_matrix(m->params.p[i]) && cm_adapter_pair(a, m->params.p[i], NULL, NULL))
            m->lora.targets.v[m->lora.targets.n++] = module_name(m->params.p[i], arena);
    if (a->conf.base == CM_BASE_BF16) round_matrices(m);
    cm_params_begin(&m->adapter, arena, false);
    cm_lora_attach(&m->params, &m->adapter, &m->lora);
    return cm_adapter_fill(a, m, err);
}
