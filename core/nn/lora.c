/* lora.c -- low-rank adapters on linear layers (Hu et al., arXiv 2106.09685).
 *
 * y = W x + s B A x with s = alpha/r (or alpha/sqrt(r), rsLoRA: arXiv 2312.03732).  A starts
 * uniform in +-1/sqrt(fan_in), which is PyTorch's kaiming_uniform(a = sqrt 5), B at zero: a
 * new adapter changes nothing.  Every hidden matrix can have one (parameters of
 * CM_GROUP_MATRIX); those of experts have one an expert. */
#include "nn/nn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Words that stand for a kind of layer, by what its names contain. */
static const char *const kinds[][2] = {
    { "attention", ".self_attn." }, { "mamba", ".mamba." }, { "mlp", ".shared_mlp." },
    { "experts", ".block_sparse_moe." },
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static bool can_adapt(const cm_param *p) { return p->group == CM_GROUP_MATRIX; }

/* Length of the module's name, without ".weight". */
static size_t module_len(const cm_param *p) {
    size_t n = strlen(p->name), k = strlen(".weight");
    return n > k && !strcmp(p->name + n - k, ".weight") ? n - k : n;
}

static bool matches(const char *word, const cm_param *p) {
    if (!strcmp(word, "all")) return true;
    for (int i = 0; i < N_KINDS; i++)
        if (!strcmp(word, kinds[i][0])) return strstr(p->name, kinds[i][1]) != NULL;
    size_t n = module_len(p), k = strlen(word);
    if (!k || k > n || strncmp(p->name + n - k, word, k)) return false;
    return k == n || p->name[n - k - 1] == '.';
}

static bool targeted(const cm_lora_conf *c, const cm_param *p) {
    if (!can_adapt(p)) return false;
    for (int i = 0; i < c->targets.n; i++)
        if (matches(c->targets.v[i], p)) return true;
    return false;
}

/* ---- checks --------------------------------------------------------------------------- */

/* "self_attn.q_proj, ..." of all layers, each once. */
static void list_modules(const cm_params *base, cm_buf *out) {
    for (int i = 0; i < base->n; i++) {
        const cm_param *p = base->p[i];
        int layer, at = 0;
        if (!can_adapt(p) || sscanf(p->name, "model.layers.%d.%n", &layer, &at) < 1) continue;
        char name[96];
        snprintf(name, sizeof name, "%.*s", (int)module_len(p) - at, p->name + at);
        if (out->n && strstr(out->s, name)) continue;
        cm_buf_addf(out, "%s%s", out->n ? ", " : "", name);
    }
}

static bool no_match(const cm_params *base, const char *word, cm_err *err) {
    cm_buf all = { 0 };
    list_modules(base, &all);
    cm_fail(err, CM_EXIT_USAGE, "lora.targets: '%s' matches no linear layer of this model; it "
            "has %s (or say attention, mamba, mlp, experts, all)", word, all.s);
    cm_buf_free(&all);
    return false;
}

bool cm_lora_check(const cm_params *base, const cm_lora_conf *c, cm_err *err) {
    if (!c->targets.n) return no_match(base, "[]", err);
    for (int i = 0; i < c->targets.n; i++) {
        bool some = false;
        for (int k = 0; k < base->n; k++)
            some |= can_adapt(base->p[k]) && matches(c->targets.v[i], base->p[k]);
        if (!some) return no_match(base, c->targets.v[i], err);
    }
    for (int i = 0; i < base->n && c->dropout > 0; i++)
        if (base->p[i]->var.v.nd == 3 && targeted(c, base->p[i]))
            return cm_fail(err, CM_EXIT_USAGE,
                           "lora.dropout: %g, but lora.targets takes in experts (%s), whose "
                           "adapters cannot have dropout; set it to 0 or name other targets",
                           c->dropout, base->p[i]->name);
    return true;
}

char *cm_lora_idle_rank(const cm_params *base, const cm_lora_conf *c) {
    const cm_tensor *w = NULL;
    const char *name = NULL;
    int n = 0, above = 0;
    int64_t least = c->rank;
    for (int i = 0; i < base->n; i++) {
        const cm_tensor *v = &base->p[i]->var.v;
        if (!targeted(c, base->p[i])) continue;
        int64_t O = v->dim[v->nd - 2], I = v->dim[v->nd - 1], side = O < I ? O : I;
        n++;
        above += side < c->rank;
        if (side >= least) continue;
        least = side, w = v, name = base->p[i]->name;
    }
    return !w ? NULL
              : cm_strf("lora.rank: %lld is above the smaller side of %d of the %d matrices with "
                        "adapters (%s is %lld x %lld): no product has a rank above that, the "
                        "rest only takes memory and time", (long long)c->rank, above, n, name,
                        (long long)w->dim[w->nd - 2], (long long)w->dim[w->nd - 1]);
}

/* ---- making them ----------------------------------------------------------------------- */

double cm_lora_scale(const cm_lora_conf *c) {
    double r = (double)c->rank;
    return c->alpha / (c->rslora ? sqrt(r) : r);
}

/* A [.., r, I] and B [.., O, r] for W [.., O, I]. */
static void attach(cm_param *p, cm_params *adapter, const cm_lora_conf *c) {
    const cm_tensor *w = &p->var.v;
    int nd = w->nd, n = (int)module_len(p);
    int64_t I = w->dim[nd - 1], a[3] = { w->dim[0] }, b[3] = { w->dim[0] };
    a[nd - 2] = c->rank, a[nd - 1] = I;
    b[nd - 2] = w->dim[nd - 2], b[nd - 1] = c->rank;
    p->lora_a = cm_param_add(adapter, CM_GROUP_ADAPTER, CM_INIT_UNIFORM, 1 / sqrt((double)I),
                             nd, a, "%.*s.lora_A.weight", n, p->name);
    p->lora_b = cm_param_add(adapter, CM_GROUP_ADAPTER, CM_INIT_ZERO, 0, nd, b,
                             "%.*s.lora_B.weight", n, p->name);
    p->lora_scale = (cm_real)cm_lora_scale(c);
    p->lora_id = (uint64_t)adapter->n;
}

void cm_lora_attach(cm_params *base, cm_params *adapter, const cm_lora_conf *c) {
    for (int i = 0; i < base->n; i++)
        if (targeted(c, base->p[i])) attach(base->p[i], adapter, c);
}

void cm_lora_detach(cm_params *base) {
    for (int i = 0; i < base->n; i++) base->p[i]->lora_a = base->p[i]->lora_b = NULL;
}

/* ---- using them ------------------------------------------------------------------------ */

cm_var *cm_project(cm_tape *t, cm_var *x, cm_param *p, const cm_drop *drop) {
    cm_var *y = cm_linear(t, x, &p->var);
    if (!p->lora_a) return y;
    if (drop && drop->share > 0) x = cm_dropout(t, x, drop, p->lora_id);
    cm_var *z = cm_linear(t, cm_linear(t, x, &p->lora_a->var), &p->lora_b->var);
    return cm_residual(t, y, z, p->lora_scale);
}

cm_readers cm_project_reads(const cm_drop *drop) {
    return drop && drop->share > 0 ? CM_ANYBODY : CM_PRODUCTS;
}

/* rows of W += s B A, through `wide` [rows, I] where W is not cm_real. */
static void merge_rows(cm_tensor *w, int64_t at, int64_t rows, int64_t r, double scale,
                       const cm_real *a, const cm_real *b, cm_real *wide) {
    int64_t I = w->dim[w->nd - 1];
    bool narrow = w->dtype != CM_REAL_DTYPE;
    cm_real *to = narrow ? wide : cm_rdata(w) + at;
    if (narrow) cm_wide_part(w, at, rows * I, wide);
    cm_gemm(false, false, rows, I, r, (cm_real)scale, b, r, a, I, 1, to, I);
    for (int64_t i = 0; narrow && i < rows * I; i++)
        ((uint16_t *)w->data)[at + i] = cm_f32_to_bf16((float)wide[i]);
}

void cm_lora_merge(cm_param *p, int64_t r, double scale, const cm_real *a, const cm_real *b) {
    enum { ROWS = 256 };
    cm_tensor *w = &p->var.v;
    int64_t I = w->dim[w->nd - 1], O = w->dim[w->nd - 2], E = w->nd == 3 ? w->dim[0] : 1;
    cm_real *wide = malloc((size_t)(ROWS * I) * sizeof *wide);
    CM_ASSERT(wide, "out of memory: rows of %s", p->name);
    for (int64_t e = 0; e < E; e++)
        for (int64_t o = 0; o < O; o += ROWS) {
            int64_t rows = O - o < ROWS ? O - o : ROWS;
            merge_rows(w, (e * O + o) * I, rows, r, scale, a + e * r * I, b + (e * O + o) * r,
                       wide);
        }
    free(wide);
}
