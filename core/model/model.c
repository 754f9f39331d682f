/* model.c -- the stack of blocks: build, run, count. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

/* ---- build ---------------------------------------------------------------------------- */

static cm_param *norm_param(cm_params *ps, int64_t D, const char *which, int layer) {
    return cm_param_add(ps, CM_GROUP_VECTOR, CM_INIT_ONE, 0, 1, &D,
                        "model.layers.%d.%s_layernorm.weight", layer, which);
}

static void build_layer(cm_model *m, int i) {
    const cm_model_conf *c = &m->conf;
    cm_params *ps = &m->params;
    cm_layer *l = &m->layer[i];
    l->attention = cm_layer_is_attention(c, i);
    l->experts = cm_layer_has_experts(c, i);
    l->norm1 = norm_param(ps, c->d_model, "input", i);
    if (l->attention) {
        cm_attn_build(&l->attn, ps, c, i);
        l->attn.inv = c->rope == CM_ROPE_NONE ? NULL : m->rope_inv;
        l->attn.mscale = m->rope_mscale;
    } else {
        cm_mamba2_build(&l->mamba, ps, c, i);
    }
    l->norm2 = norm_param(ps, c->d_model, "post_attention", i);
    if (l->experts) cm_moe_build(&l->moe, ps, c, i);
    int64_t F = l->experts ? c->d_shared : c->d_ff;
    if (F) cm_mlp_build(&l->mlp, ps, c, i, F);
}

void cm_model_build(cm_model *m, const cm_model_conf *c, cm_arena *arena, bool trained) {
    cm_model_build_lora(m, c, NULL, arena, trained);
}

/* Everything but adapters; the parameters' registry has begun. */
static void build_stack(cm_model *m) {
    const cm_model_conf *c = &m->conf;
    cm_params *ps = &m->params;
    CM_ASSERT(c->vocab_size > 0, "a model without a vocabulary size");
    m->rope_mscale = 1;
    if (cm_model_has_attention(c) && c->rope != CM_ROPE_NONE) {
        cm_rope_conf r = { .kind = c->rope, .P = (int)c->head_dim, .base = c->rope_theta,
                           .factor = c->rope_factor, .orig_ctx = (double)c->rope_orig_ctx,
                           .beta_fast = 32, .beta_slow = 1 };
        cm_rope_freqs(&r, m->rope_inv, &m->rope_mscale);
    }
    m->layer = calloc((size_t)c->n_layers, sizeof *m->layer);
    CM_ASSERT(m->layer, "out of memory for the layer table");
    int64_t VD[2] = { c->vocab_size, c->d_model };
    double std = c->init_std > 0 ? c->init_std : 0.02;
    m->embed = cm_param_add(ps, CM_GROUP_EMBED, CM_INIT_NORMAL, std, 2, VD,
                            "model.embed_tokens.weight");
    for (int i = 0; i < c->n_layers; i++) build_layer(m, i);
    m->norm = cm_param_add(ps, CM_GROUP_VECTOR, CM_INIT_ONE, 0, 1, &c->d_model,
                           "model.norm.weight");
    m->head = c->tied ? m->embed
                      : cm_param_add(ps, CM_GROUP_EMBED, CM_INIT_NORMAL, std, 2, VD,
                                     "lm_head.weight");
}

void cm_model_build_lora(cm_model *m, const cm_model_conf *c, const cm_lora_conf *lora,
                         cm_arena *arena, bool trained) {
    *m = (cm_model){ .conf = *c };
    cm_params_begin(&m->params, arena, trained && !lora);
    m->params.narrow = lora && lora->base == CM_BASE_BF16;
    build_stack(m);
    if (!lora || !lora->rank) return;
    m->lora = *lora;
    cm_params_begin(&m->adapter, arena, trained);
    m->adapter.first = m->params.n;
    cm_lora_attach(&m->params, &m->adapter, lora);
}

void cm_model_build_held(cm_model *m, const cm_model_conf *c, const cm_dtype *held,
                         cm_arena *arena) {
    *m = (cm_model){ .conf = *c };
    cm_params_begin(&m->params, arena, false);
    m->params.held = held;
    build_stack(m);
    m->params.held = NULL;
}

cm_params *cm_model_trained(cm_model *m) { return m->adapter.n ? &m->adapter : &m->params; }

bool cm_model_lora_fits(const cm_model_conf *c, const cm_lora_conf *lora, cm_err *err) {
    cm_arena count;
    cm_model m;
    if (!cm_arena_open_counting(&count, "names of layers", err)) return false;
    cm_model_build(&m, c, &count, false);
    bool ok = cm_lora_check(&m.params, lora, err);
    cm_model_end(&m);
    cm_arena_close(&count);
    return ok;
}

char *cm_model_lora_idle_rank(const cm_model_conf *c, const cm_lora_conf *lora) {
    cm_arena count;
    cm_model m;
    cm_err none;
    if (!cm_arena_open_counting(&count, "sizes of layers", &none)) return NULL;
    cm_model_build(&m, c, &count, false);
    char *said = cm_lora_idle_rank(&m.params, lora);
    cm_model_end(&m);
    cm_arena_close(&count);
    return said;
}

void cm_model_end(cm_model *m) {
    cm_params_end(&m->params);
    cm_params_end(&m->adapter);
    free(m->layer);
    *m = (cm_model){ 0 };
}

/* ---- run ------------------------------------------------------------------------------ */

/* Everything one layer's block function needs besides x; lives on the meta arena. */
typedef struct {
    const cm_model *m;
    int i;
    cm_seq seq;
    cm_layer_state *st;
    const cm_paths *paths; /* instead of seq and st, or NULL */
    cm_real aux_scale;
    const cm_stats *stats;
} layer_ctx;

static cm_var *feed_forward(const layer_ctx *k, cm_tape *t, cm_var *x, cm_var **aux) {
    const cm_layer *l = &k->m->layer[k->i];
    const cm_model_conf *c = &k->m->conf;
    if (!l->experts) return cm_mlp_fwd(&l->mlp, t, x, &k->seq.drop);
    const cm_stats *s = k->stats;
    int64_t *load = s && s->load ? s->load + k->i * c->n_experts : NULL;
    cm_moe_stats *ms = s && s->moe ? s->moe + k->i : NULL;
    cm_var *y = cm_moe_fwd(&l->moe, t, x, (cm_real)c->lb_coef * k->aux_scale,
                           (cm_real)c->z_coef * k->aux_scale, load, ms, aux);
    if (l->mlp.in) y = cm_residual(t, y, cm_mlp_fwd(&l->mlp, t, x, &k->seq.drop), 1);
    return y;
}

static cm_var *mixer(const layer_ctx *k, cm_tape *t, cm_var *x) {
    const cm_layer *l = &k->m->layer[k->i];
    if (k->paths)
        return l->attention ? cm_attn_paths(&l->attn, t, x, k->paths, k->i)
                            : cm_mamba2_paths(&l->mamba, t, x, k->paths, k->i);
    return l->attention ? cm_attn_fwd(&l->attn, t, x, &k->seq, k->st)
                        : cm_mamba2_fwd(&l->mamba, t, x, &k->seq, k->st);
}

/* The two halves of a layer: x with what the mixer, or the feed-forward part, adds. */
static cm_var *mixer_half(const layer_ctx *k, cm_tape *t, cm_var *x) {
    const cm_model_conf *c = &k->m->conf;
    cm_var *h = cm_rmsnorm(t, x, &k->m->layer[k->i].norm1->var, (cm_real)c->norm_eps,
                           cm_project_reads(&k->seq.drop));
    return cm_residual(t, x, mixer(k, t, h), (cm_real)c->residual_scale);
}

static cm_var *forward_half(const layer_ctx *k, cm_tape *t, cm_var *x, cm_var **aux) {
    const cm_model_conf *c = &k->m->conf;
    const cm_layer *l = &k->m->layer[k->i];
    /* A router's product is fp32. */
    cm_readers readers = l->experts ? CM_ANYBODY : cm_project_reads(&k->seq.drop);
    cm_var *h = cm_rmsnorm(t, x, &l->norm2->var, (cm_real)c->norm_eps, readers);
    return cm_residual(t, x, feed_forward(k, t, h, aux), (cm_real)c->residual_scale);
}

/* A cm_block_fn: in[0] = x -> out[0] = x after the layer, out[1] = aux of an expert layer. */
static void layer_fwd(void *ctx, cm_tape *t, cm_var *const *in, cm_var **out) {
    out[0] = forward_half(ctx, t, mixer_half(ctx, t, in[0]), &out[1]);
}

/* Run a layer, keeping only its outputs when `compact`. */
static cm_var *run_layer(cm_tape *t, layer_ctx *k, cm_var *x, bool compact, cm_var **aux) {
    cm_var *out[2] = { 0 };
    if (compact) {
        cm_tensor like[2] = { x->v, { .nd = 1, .dim = { 1 } } };
        cm_recompute(t, layer_fwd, k, &x, 1, like, out, k->m->layer[k->i].experts ? 2 : 1);
    } else {
        layer_fwd(k, t, &x, out);
    }
    *aux = out[1];
    return out[0];
}

static layer_ctx *new_ctx(const cm_model *m, cm_tape *t, int i, const cm_seq *seq) {
    layer_ctx *k = cm_arena_zalloc(t->meta, sizeof *k);
    k->m = m;
    k->i = i;
    k->seq = *seq;
    return k;
}

static cm_var *embed_tokens(const cm_model *m, cm_tape *t, const int32_t *token, int64_t R) {
    return cm_embed(t, &m->embed->var, token, R, (cm_real)m->conf.embedding_scale);
}

/* The sum of n one-element vars in a fixed order, any n >= 1. */
static cm_var *sum_all(cm_tape *t, cm_var **x, int n) {
    cm_var *total = x[0];
    for (int i = 1; i < n;) {
        cm_var *part[CM_MAX_IN] = { total };
        int k = 1;
        while (k < CM_MAX_IN && i < n) part[k++] = x[i++];
        total = cm_sum(t, part, k);
    }
    return total;
}

static cm_var *final_norm(const cm_model *m, cm_tape *t, cm_var *x, cm_readers readers) {
    return cm_rmsnorm(t, x, &m->norm->var, (cm_real)m->conf.norm_eps, readers);
}

/* The stack up to the final norm; part[n_layers] gets the experts' auxiliary losses, times
 * aux_scale. */
static cm_var *run_stack(const cm_model *m, cm_tape *t, const cm_batch *b, cm_real aux_scale,
                         bool recompute, const cm_stats *st, cm_var **part, int *n_part) {
    cm_seq seq = { .B = b->B, .T = b->T, .doc = b->doc, .pos = b->pos, .drop = b->drop };
    seq.drop.T = b->T;
    cm_var *x = embed_tokens(m, t, b->token, (int64_t)b->B * b->T);
    if (b->noise.alpha > 0) x = cm_add_noise(t, x, &b->noise, &seq);
    *n_part = 0;
    for (int i = 0; i < m->conf.n_layers; i++) {
        layer_ctx *k = new_ctx(m, t, i, &seq);
        k->aux_scale = aux_scale;
        k->stats = st;
        cm_var *aux;
        x = run_layer(t, k, x, recompute || (m->again && m->again[i]), &aux);
        if (aux) part[(*n_part)++] = aux;
    }
    return final_norm(m, t, x, CM_PRODUCTS);
}

cm_var *cm_model_loss(const cm_model *m, cm_tape *t, const cm_batch *b, cm_real norm,
                      bool recompute, const cm_stats *st) {
    const cm_model_conf *c = &m->conf;
    int64_t scored = 0;
    for (int64_t r = 0; r < (int64_t)b->B * b->T && !t->dry; r++) scored += b->target[r] >= 0;
    cm_var **part = cm_arena_alloc(t->meta, ((size_t)c->n_layers + 1) * sizeof *part);
    int n_part;
    cm_var *x = run_stack(m, t, b, norm * (cm_real)scored, recompute, st, part, &n_part);
    part[n_part++] = cm_xent(t, x, &m->head->var, b->target, 1 / (cm_real)c->logit_scale,
                             norm, (cm_real)c->xent_z_coef, st ? st->nll : NULL,
                             st ? st->hit : NULL);
    return sum_all(t, part, n_part);
}

cm_var *cm_model_logp(const cm_model *m, cm_tape *t, const cm_batch *b, cm_real aux_scale,
                      bool recompute, const cm_stats *st, cm_var **aux) {
    cm_var **part = cm_arena_alloc(t->meta, (size_t)m->conf.n_layers * sizeof *part);
    int n_part;
    cm_var *x = run_stack(m, t, b, aux_scale, recompute, st, part, &n_part);
    if (aux) *aux = n_part ? sum_all(t, part, n_part) : NULL;
    return cm_target_logp(t, x, &m->head->var, b->target, 1 / (cm_real)m->conf.logit_scale);
}

/* y moves to x, and what was made since `mark` goes. */
static void settle(cm_tape *t, size_t mark, cm_var *x, const cm_var *y) {
    if (!t->dry) memcpy(x->v.data, y->v.data, cm_tensor_bytes(&x->v));
    cm_arena_reset(t->arena, mark);
}

static cm_var *last_rows(cm_tape *t, const cm_var *x, int64_t n) {
    cm_var *y = cm_arena_zalloc(t->meta, sizeof *y);
    y->v = x->v;
    y->v.dim[0] = n;
    y->v.data = cm_rdata(&x->v) + (x->v.dim[0] - n) * x->v.dim[1];
    return y;
}

/* x becomes what the layer makes of it; nothing else of either half stays.  Of the last layer's
 * second half only wanted rows are made, since no token looks back on the others; returns them. */
static cm_var *in_place(cm_tape *t, const layer_ctx *k, cm_var *x) {
    size_t mark = cm_arena_mark(t->arena);
    cm_var *aux;
    settle(t, mark, x, mixer_half(k, t, x));
    if (k->seq.last && k->i + 1 == k->m->conf.n_layers) x = last_rows(t, x, k->seq.last);
    settle(t, mark, x, forward_half(k, t, x, &aux));
    return x;
}

/* Whether the weights of a part are there. */
static bool brought(const cm_model *m, const cm_tape *t, int part) {
    cm_bringer *b = m->bringer;
    return t->dry || !b || b->bring(b->ctx, part, &b->err);
}

cm_var *cm_model_hidden(const cm_model *m, cm_tape *t, const int32_t *token,
                        const cm_seq *seq, cm_state *st) {
    CM_ASSERT(!t->recording, "cm_model_hidden is for inference");
    if (!brought(m, t, -1)) return NULL;
    cm_var *x = embed_tokens(m, t, token, (int64_t)seq->B * seq->T);
    for (int i = 0; i < m->conf.n_layers; i++) {
        if (!brought(m, t, i)) return NULL;
        layer_ctx *k = new_ctx(m, t, i, seq);
        k->st = st ? &st->layer[i] : NULL;
        x = in_place(t, k, x);
    }
    for (int b = 0; st && b < seq->B; b++) st->held[b] += seq->T;
    return brought(m, t, (int)m->conf.n_layers) ? final_norm(m, t, x, CM_ANYBODY) : NULL;
}

cm_var *cm_model_paths(const cm_model *m, cm_tape *t, const int32_t *token,
                       const cm_paths *paths) {
    CM_ASSERT(!t->recording, "cm_model_paths is for inference");
    cm_var *x = embed_tokens(m, t, token, paths->rows);
    for (int i = 0; i < m->conf.n_layers; i++) {
        layer_ctx *k = new_ctx(m, t, i, &(cm_seq){ .B = 1, .T = paths->rows });
        k->paths = paths;
        in_place(t, k, x);
    }
    return final_norm(m, t, x, CM_ANYBODY);
}

/* Logits of n consecutive rows; room: for a head that is not cm_real. */
static void logits_of(const cm_model *m, const cm_real *x, int64_t n, cm_real *out, void *room) {
    const cm_tensor *w = &m->head->var.v;
    int64_t D = m->conf.d_model, V = m->conf.vocab_size;
    cm_real scale = 1 / (cm_real)m->conf.logit_scale;
    if (w->dtype != CM_REAL_DTYPE) cm_qmat_mul(w, NULL, n, x, scale, out, room);
    else cm_gemm(false, true, n, V, D, scale, x, D, cm_rdata(w), D, 0, out, V);
}

void cm_model_logits(const cm_model *m, const cm_real *hidden, const int64_t *row, int64_t n,
                     cm_real *out) {
    int64_t D = m->conf.d_model, V = m->conf.vocab_size;
    const cm_tensor *w = &m->head->var.v;
    void *room = NULL;
    if (w->dtype != CM_REAL_DTYPE) {
        room = aligned_alloc(CM_ALIGN, cm_align_up(cm_qmat_scratch(w, n)));
        CM_ASSERT(room, "out of memory: logits of %lld rows", (long long)n);
    }
    for (int64_t i = 0; i < n;) {
        /* Runs of consecutive rows are one product. */
        int64_t k = 1;
        while (i + k < n && row[i + k] == row[i] + k) k++;
        logits_of(m, hidden + row[i] * D, k, out + i * V, room);
        i += k;
    }
    free(room);
}

/* ---- count ---------------------------------------------------------------------------- */

/* Weights of a layer's matrices that a token multiplies (active) or that exist. */
static int64_t matmul_weights(const cm_model_conf *c, int64_t i, bool active) {
    int64_t D = c->d_model, n = 0;
    if (cm_layer_is_attention(c, i)) {
        n += 2 * D * c->head_dim * (c->n_heads + c->n_kv_heads);
    } else {
        int64_t DI = c->ssm_expand * D, H = DI / c->ssm_head_dim;
        n += D * (2 * DI + 2 * c->ssm_groups * c->ssm_state + H) + DI * D;
    }
    if (!cm_layer_has_experts(c, i)) return n + 3 * D * c->d_ff;
    int64_t experts = active ? c->top_k : c->n_experts;
    return n + c->n_experts * D + 3 * D * (experts * c->d_expert + c->d_shared);
}

static int64_t vector_weights(const cm_model_conf *c, int64_t i) {
    int64_t n = 2 * c->d_model;
    if (cm_layer_is_attention(c, i)) return n;
    int64_t DI = c->ssm_expand * c->d_model, H = DI / c->ssm_head_dim;
    return n + (DI + 2 * c->ssm_groups * c->ssm_state) * (c->ssm_conv + 1) + 3 * H + DI;
}

bool cm_model_has_blocks(const cm_model *m) {
    for (int i = 0; i < m->params.n; i++)
        if (cm_dtypes[m->params.p[i]->var.v.dtype].block > 1) return true;
    return false;
}

int64_t cm_model_count(const cm_model_conf *c, bool active) {
    int64_t n = c->vocab_size * c->d_model * (c->tied ? 1 : 2) + c->d_model;
    for (int64_t i = 0; i < c->n_layers; i++)
        n += matmul_weights(c, i, active) + vector_weights(c, i);
    return n;
}

int64_t cm_model_largest_part(const cm_model_conf *c) {
    int64_t most = (c->vocab_size + 1) * c->d_model;
    for (int64_t i = 0; i < c->n_layers; i++) {
        int64_t n = matmul_weights(c, i, false) + vector_weights(c, i);
        if (n > most) most = n;
    }
    return most;
}

bool cm_model_in_part(const cm_model *m, const cm_param *p, int part) {
    int layer = -1;
    sscanf(p->name, "model.layers.%d.", &layer);
    if (layer >= 0) return part == layer;
    return p == m->embed && part == -1 ? true
           : part == m->conf.n_layers  ? p == m->head || p == m->norm
                                       : false;
}

/* Forward flops per token of the parts that are not weights: scores and their use over
 * the causal half of T; SSD's four products at chunk 64 (algorithm: docs/math/ssd.md). */
static double mixer_flops(const cm_model_conf *c, int64_t i, int64_t T) {
    if (cm_layer_is_attention(c, i))
        return 4.0 * (double)(c->n_heads * c->head_dim) * (double)T / 2;
    const double Q = 64;
    double DI = (double)(c->ssm_expand * c->d_model), N = (double)c->ssm_state;
    return Q * N * (double)c->ssm_groups + Q * DI + 4 * N * DI;
}

double cm_model_flops(const cm_model_conf *c, int64_t T) {
    double f = 6.0 * (double)(c->vocab_size * c->d_model);
    for (int64_t i = 0; i < c->n_layers; i++)
        f += 6.0 * (double)matmul_weights(c, i, true) + 3 * mixer_flops(c, i, T);
    return f;
}
