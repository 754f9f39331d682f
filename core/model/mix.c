/* mix.c -- which type each tensor of a GGUF file gets.
 *
 * A mix gives most matrices one type and the ones that matter more a better one.  The rules
 * are llama-quantize's (v0.5.0), so that a file of ours has the types, and the size, of its
 * file of the same name; likewise what becomes of rows that are not whole blocks. */
#include "model/files.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* In the order of CM_TYPE_CHOICES: name, most tensors' type, llama.cpp's general.file_type. */
static const struct {
    const char *name;
    cm_dtype type;
    uint32_t file_type;
} mixes[] = {
    {"F32", CM_F32_T, 0},      {"F16", CM_F16_T, 1},      {"BF16", CM_BF16_T, 32},
    {"Q8_0", CM_Q8_0_T, 7},    {"Q4_0", CM_Q4_0_T, 2},    {"Q4_1", CM_Q4_1_T, 3},
    {"Q5_0", CM_Q5_0_T, 8},    {"Q5_1", CM_Q5_1_T, 9},    {"Q2_K", CM_Q2_K_T, 10},
    {"Q3_K_M", CM_Q3_K_T, 12}, {"Q4_K_S", CM_Q4_K_T, 14}, {"Q4_K_M", CM_Q4_K_T, 15},
    {"Q5_K_M", CM_Q5_K_T, 17}, {"Q6_K", CM_Q6_K_T, 18},   {"IQ4_NL", CM_IQ4_NL_T, 25},
    {"IQ4_XS", CM_IQ4_XS_T, 30},
};

const char *cm_mix_name(int mix) { return mixes[mix].name; }
cm_dtype cm_mix_type(int mix) { return mixes[mix].type; }
uint32_t cm_mix_file_type(int mix) { return mixes[mix].file_type; }

/* ---- rules -------------------------------------------------------------------------- */

/* Where a tensor stands. */
typedef struct place {
    const cm_model_conf *c;
    int layer;            /* -1: none */
    int value, values;    /* attn_v: number in the model, of how many */
    bool tied, importance;
} place;

static bool is(const char *name, const char *part) { return strstr(name, part) != NULL; }

/* The first and last eighth of n, and every third between. */
static bool favoured(int i, int n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* Query heads to KV heads as llama.cpp sees them: of layer 0, where that has attention. */
static int sharing(const cm_model_conf *c) {
    return cm_layer_is_attention(c, 0) ? (int)(c->n_heads / c->n_kv_heads) : 0;
}

/* Its rules for Mixtral, which go by the number of experts alone. */
static bool eight_experts(const cm_model_conf *c) {
    return cm_model_has_experts(c) && c->n_experts == 8;
}

static cm_dtype for_value(int mix, cm_dtype most, const place *p) {
    if (eight_experts(p->c)) return CM_Q8_0_T;
    switch (mix) {
    case CM_TYPE_Q2_K: return sharing(p->c) >= 4 ? CM_Q4_K_T : CM_Q3_K_T;
    case CM_TYPE_Q3_K_M: return p->value < 2 ? CM_Q5_K_T : CM_Q4_K_T;
    case CM_TYPE_Q4_K_S: return p->value < 4 ? CM_Q5_K_T : most;
    case CM_TYPE_Q4_K_M:
    case CM_TYPE_Q5_K_M: return favoured(p->value, p->values) ? CM_Q6_K_T : most;
    case CM_TYPE_IQ4_NL:
    case CM_TYPE_IQ4_XS: return sharing(p->c) >= 4 ? CM_Q5_K_T : most;
    default: return most;
    }
}

static cm_dtype for_down(int mix, cm_dtype most, const place *p) {
    int n = (int)p->c->n_layers, i = p->layer;
    bool early = i < n / 8;
    switch (mix) {
    case CM_TYPE_Q2_K: return CM_Q3_K_T;
    case CM_TYPE_Q3_K_M: return i < n / 16 ? CM_Q5_K_T : CM_Q4_K_T;
    case CM_TYPE_Q4_K_S: return early ? CM_Q5_K_T : most;
    case CM_TYPE_Q4_K_M:
    case CM_TYPE_Q5_K_M: return favoured(i, n) ? CM_Q6_K_T : most;
    case CM_TYPE_IQ4_NL:
    case CM_TYPE_IQ4_XS: return early && !p->importance ? CM_Q5_K_T : most;
    case CM_TYPE_Q4_0: return early && p->importance ? CM_Q4_1_T : most;
    case CM_TYPE_Q5_0: return early && p->importance ? CM_Q5_1_T : most;
    default: return most;
    }
}

static cm_dtype for_output(int mix, cm_dtype most, const place *p) {
    bool coarse = mix == CM_TYPE_Q2_K || mix == CM_TYPE_Q3_K_M || mix == CM_TYPE_Q4_K_S ||
                  mix == CM_TYPE_Q4_K_M || mix == CM_TYPE_IQ4_NL || mix == CM_TYPE_IQ4_XS;
    if (eight_experts(p->c)) return coarse ? CM_Q5_K_T : most;
    return mix == CM_TYPE_Q2_K ? CM_Q3_K_T : mix == CM_TYPE_Q3_K_M ? CM_Q4_K_T : most;
}

static cm_dtype by_rule(int mix, const char *name, int64_t cols, const place *p) {
    cm_dtype most = mixes[mix].type;
    if (cm_dtypes[most].block == 1 || mix == CM_TYPE_Q8_0) return most;
    if (!strcmp(name, p->tied ? "token_embd.weight" : "output.weight"))
        return cols % cm_dtypes[most].block ? CM_Q8_0_T : CM_Q6_K_T;
    if (is(name, "attn_v.weight")) return for_value(mix, most, p);
    if (is(name, "attn_k.weight") && eight_experts(p->c)) return CM_Q8_0_T;
    if (is(name, "ffn_down")) return for_down(mix, most, p);
    if (is(name, "attn_output.weight")) return for_output(mix, most, p);
    return most;
}

/* The type for rows that are not whole blocks of the wanted one. */
static cm_dtype fitting(cm_dtype want, int64_t cols) {
    if (cols % cm_dtypes[want].block == 0) return want;
    cm_dtype next = want == CM_Q4_K_T   ? CM_Q5_0_T
                    : want == CM_Q5_K_T ? CM_Q5_1_T
                    : want == CM_Q6_K_T ? CM_Q8_0_T
                    : want == CM_IQ4_XS_T ? CM_IQ4_NL_T : CM_Q4_0_T;
    return cols % 32 == 0 ? next : CM_F16_T;
}

/* ---- overrides ---------------------------------------------------------------------- */

/* What a tensor of a GGUF file may be. */
static bool offered(int type) {
    return type != CM_F64_T && type != CM_I32_T && type != CM_I64_T && type != CM_U8_T;
}

static bool dtype_of(const char *word, cm_dtype *out) {
    for (int i = 0; i < CM_N_DTYPES; i++)
        if (offered(i) && !strcasecmp(cm_dtypes[i].name, word)) {
            *out = (cm_dtype)i;
            return true;
        }
    return false;
}

/* An exception without a type there is: all there are, and the one that was meant. */
static bool no_type(const char *word, const char *type, cm_err *err) {
    const char *names[CM_N_DTYPES];
    char *upper = cm_strf("%s", type);
    cm_buf all = {0};
    int n = 0;
    for (char *c = upper; *c; c++) *c = (char)toupper((unsigned char)*c);
    for (int i = 0; i < CM_N_DTYPES; i++)
        if (offered(i)) names[n++] = cm_dtypes[i].name;
    for (int i = 0; i < n; i++) cm_buf_addf(&all, "%s%s", i ? ", " : "", names[i]);
    const char *near = cm_nearest(upper, names, n);
    cm_fail(err, CM_EXIT_USAGE, "quantize.tensors: '%s': '%s' is no type of a tensor%s%s%s; there "
            "are %s", word, type, near ? " (did you mean " : "", near ? near : "",
            near ? "?)" : "", all.s);
    cm_buf_free(&all);
    free(upper);
    return false;
}

static bool parse(const char *word, char **pattern, cm_dtype *type, cm_err *err) {
    const char *eq = strrchr(word, '=');
    if (!eq || eq == word)
        return cm_fail(err, CM_EXIT_USAGE, "quantize.tensors: '%s': wanted PATTERN=TYPE, as in "
                       "\"blk.*.ssm_in.weight=q8_0\"", word);
    if (!dtype_of(eq + 1, type)) return no_type(word, eq + 1, err);
    *pattern = cm_strf("%.*s", (int)(eq - word), word);
    return true;
}

/* What a pattern met: tensors by that name, those of them that take a type, those that no
 * earlier pattern took. */
typedef struct hits {
    int named, typed, taken;
} hits;

/* One `pattern=type`, on tensors that no earlier one took. */
static bool override(cm_items *m, const char *word, bool *taken, cm_buf *idle, cm_err *err) {
    char *pattern = NULL;
    cm_dtype type = CM_F32_T;
    hits h = {0};
    bool ok = true;
    if (!parse(word, &pattern, &type, err)) return false;
    for (int i = 0; ok && i < m->n; i++) {
        cm_item *it = &m->v[i];
        if (fnmatch(pattern, it->name, 0)) continue;
        h.named++;
        if (it->keep_f32 && type != CM_F32_T && !strpbrk(pattern, "*?["))
            ok = cm_fail(err, CM_EXIT_USAGE, "quantize.tensors: '%s': llama.cpp wants %s as "
                         "F32", word, it->name);
        h.typed += !it->keep_f32;
        if (!it->keep_f32 && !taken[i]) {
            it->want = type;
            it->t.dtype = fitting(type, it->cols);
            taken[i] = true;
            h.taken++;
        }
    }
    free(pattern);
    if (ok && !h.named)
        return cm_fail(err, CM_EXIT_USAGE, "quantize.tensors: '%s': no tensor has such a name; "
                       "--dry-run lists them", word);
    if (ok && idle && !h.taken)
        cm_buf_addf(idle, "quantize.tensors: '%s' changes nothing: %s\n", word,
                    h.typed ? "earlier patterns have all its tensors, and the first that matches "
                              "counts"
                            : "what it matches stays F32 whatever is asked");
    return ok;
}

bool cm_mix_apply(cm_items *m, const cm_export *x, cm_buf *idle, cm_err *err) {
    place p = {.c = &x->model->conf, .tied = x->model->head == x->model->embed,
               .importance = x->imatrix != NULL};
    for (int i = 0; i < m->n; i++) p.values += is(m->v[i].name, "attn_v.weight");
    for (int i = 0; i < m->n; i++) {
        cm_item *it = &m->v[i];
        p.layer = -1;
        sscanf(it->name, "blk.%d.", &p.layer);
        it->want = it->keep_f32 ? CM_F32_T
                   : x->adapter ? mixes[x->mix].type
                                : by_rule(x->mix, it->name, it->cols, &p);
        it->t.dtype = fitting(it->want, it->cols);
        it->imp = x->imatrix ? cm_imatrix_find(x->imatrix, it->name) : NULL;
        it->cross = x->feedback ? x->imatrix : NULL;
        p.value += is(it->name, "attn_v.weight");
    }
    bool *taken = calloc((size_t)m->n + 1, sizeof *taken), ok = true;
    CM_ASSERT(taken, "out of memory: %d tensors", m->n);
    for (int i = 0; ok && x->tensors && i < x->tensors->n; i++)
        ok = override(m, x->tensors->v[i], taken, idle, err);
    free(taken);
    return ok;
}
