/* attn.c -- grouped-query attention block: q, k, v projections, attention, output. */
#include "nn/nn.h"
#include "nn/nn_init.h"

#include <math.h>

void cm_attn_build(cm_attn *a, cm_params *ps, const cm_model_conf *c, int layer) {
    int64_t D = c->d_model, P = c->head_dim, q = c->n_heads * P, kv = c->n_kv_heads * P;
    *a = (cm_attn){ .H = (int)c->n_heads, .G = (int)c->n_kv_heads, .P = (int)P };
    a->scale = (cm_real)(c->attention_scale > 0 ? c->attention_scale
                                                 : 1 / sqrt((double)P));
    a->q = cm__matrix(ps, c, q, D, false, "model.layers.%d.self_attn.q_proj.weight", layer);
    a->k = cm__matrix(ps, c, kv, D, false, "model.layers.%d.self_attn.k_proj.weight", layer);
    a->v = cm__matrix(ps, c, kv, D, false, "model.layers.%d.self_attn.v_proj.weight", layer);
    a->o = cm__matrix(ps, c, D, q, true, "model.layers.%d.self_attn.o_proj.weight", layer);
}

cm_var *cm_attn_fwd(const cm_attn *a, cm_tape *t, cm_var *x, const cm_seq *seq,
                    cm_layer_state *st) {
    cm_var *q = cm_project(t, x, a->q, &seq->drop);
    cm_var *k = cm_project(t, x, a->k, &seq->drop);
    cm_var *v = cm_project(t, x, a->v, &seq->drop);
    cm_kv kv = st ? st->kv : (cm_kv){ 0 };
    kv.steps = seq->steps;
    cm_var *y = st ? cm_attention_cached(t, q, k, v, &kv, seq->B, a->H, a->G, a->scale,
                                         a->inv, a->mscale)
                   : cm_attention(t, q, k, v, seq, a->H, a->G, a->scale, a->inv, a->mscale);
    return cm_project(t, y, a->o, &seq->drop);
}
