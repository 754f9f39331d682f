/* ffn.c -- feed-forward blocks: dense SwiGLU, and top-k mixture of SwiGLU experts. */
#include "nn/nn.h"
#include "nn/nn_init.h"

void cm_mlp_build(cm_mlp *m, cm_params *ps, const cm_model_conf *c, int layer, int64_t F) {
    m->in = cm__matrix(ps, c, 2 * F, c->d_model, false,
                       "model.layers.%d.shared_mlp.input_linear.weight", layer);
    m->in->n_split = 2;
    m->in->split[0] = m->in->split[1] = F;
    m->out = cm__matrix(ps, c, c->d_model, F, true,
                        "model.layers.%d.shared_mlp.output_linear.weight", layer);
}

cm_var *cm_mlp_fwd(const cm_mlp *m, cm_tape *t, cm_var *x, const cm_drop *drop) {
    cm_var *h = cm_swiglu(t, cm_project(t, x, m->in, drop), cm_project_reads(drop));
    return cm_project(t, h, m->out, drop);
}

void cm_moe_build(cm_moe_block *m, cm_params *ps, const cm_model_conf *c, int layer) {
    int64_t D = c->d_model, E = c->n_experts, F = c->d_expert;
    m->K = (int)c->top_k;
    m->router = cm_param_add(ps, CM_GROUP_ROUTER, CM_INIT_NORMAL, cm__matrix_std(c, D, false),
                             2, (int64_t[]){ E, D },
                             "model.layers.%d.block_sparse_moe.router.layer.weight", layer);
    m->in = cm_param_add(ps, CM_GROUP_MATRIX, CM_INIT_NORMAL, cm__matrix_std(c, D, false), 3,
                         (int64_t[]){ E, 2 * F, D },
                         "model.layers.%d.block_sparse_moe.input_linear.weight", layer);
    m->in->n_split = 2;
    m->in->split[0] = m->in->split[1] = F;
    m->out = cm_param_add(ps, CM_GROUP_MATRIX, CM_INIT_NORMAL, cm__matrix_std(c, F, true), 3,
                          (int64_t[]){ E, D, F },
                          "model.layers.%d.block_sparse_moe.output_linear.weight", layer);
}

cm_var *cm_moe_fwd(const cm_moe_block *m, cm_tape *t, cm_var *x, cm_real lb, cm_real z,
                   int64_t *load, cm_moe_stats *stats, cm_var **aux) {
    cm_var *y;
    const cm_param *in = m->in, *out = m->out;
    cm_moe_lora l = { .s_in = in->lora_scale, .s_out = out->lora_scale };
    if (in->lora_a) l.a_in = &in->lora_a->var, l.b_in = &in->lora_b->var;
    if (out->lora_a) l.a_out = &out->lora_a->var, l.b_out = &out->lora_b->var;
    cm_moe(t, x, &m->router->var, &m->in->var, &m->out->var, &l, m->K, lb, z, load, stats, &y,
           aux);
    return y;
}
