/* mamba2.c -- Mamba-2 block: in_proj, conv + SiLU, SSD scan, gated norm, out_proj.
 *
 * in_proj's rows are [z | x | B | C | dt]; conv, scan and norm read their columns of its
 * output in place, so nothing is split or copied. */
#include "nn/nn.h"
#include "nn/nn_init.h"

#include <math.h>
#include <string.h>

#define NAME "model.layers.%d.mamba."

void cm_mamba2_build(cm_mamba2 *m, cm_params *ps, const cm_model_conf *c, int layer) {
    int64_t D = c->d_model, K = c->ssm_conv, G = c->ssm_groups, N = c->ssm_state;
    int64_t DI = c->ssm_expand * D, H = DI / c->ssm_head_dim, C = DI + 2 * G * N;
    *m = (cm_mamba2){ .DI = DI, .C = C, .eps = (cm_real)c->norm_eps };
    m->ssd = (cm_ssd_conf){ .H = (int)H, .P = (int)c->ssm_head_dim, .N = (int)N,
                            .G = (int)G, .Q = (int)c->ssm_chunk, .dcol = DI + C };
    m->in_proj = cm__matrix(ps, c, DI + C + H, D, false, NAME "in_proj.weight", layer);
    m->in_proj->n_split = 5;
    int64_t split[CM_MAX_SPLIT] = { DI, DI, G * N, G * N, H };
    for (int i = 0; i < CM_MAX_SPLIT; i++) m->in_proj->split[i] = split[i];
    m->conv_w = cm_param_add(ps, CM_GROUP_VECTOR, CM_INIT_UNIFORM, 1 / sqrt((double)K), 2,
                             (int64_t[]){ C, K }, NAME "conv1d.weight", layer);
    m->conv_b = cm_param_add(ps, CM_GROUP_VECTOR, CM_INIT_UNIFORM, 1 / sqrt((double)K), 1,
                             &C, NAME "conv1d.bias", layer);
    m->dt_bias = cm__vector(ps, CM_INIT_DT_BIAS, H, NAME "dt_bias", layer);
    m->A_log = cm__vector(ps, CM_INIT_A_LOG, H, NAME "A_log", layer);
    m->D = cm__vector(ps, CM_INIT_ONE, H, NAME "D", layer);
    m->norm = cm__vector(ps, CM_INIT_ONE, DI, NAME "norm.weight", layer);
    m->out_proj = cm__matrix(ps, c, D, DI, true, NAME "out_proj.weight", layer);
}

cm_var *cm_mamba2_fwd(const cm_mamba2 *m, cm_tape *t, cm_var *x, const cm_seq *seq,
                      cm_layer_state *st) {
    const cm_ssd_conf *s = &m->ssd;
    cm_var *zxbcdt = cm_project(t, x, m->in_proj, &seq->drop);
    cm_var *xbc = cm_conv_silu(t, zxbcdt, &m->conv_w->var, &m->conv_b->var, seq, m->DI,
                               st ? st->conv : NULL, st ? st->conv : NULL);
    cm_var *s0 = NULL, *s1 = NULL, *y;
    if (st) {
        int64_t dim[4] = { seq->B, s->H, s->N, s->P };
        s0 = cm_var_const(t, CM_REAL_DTYPE, dim, 4, st->ssm);
    }
    cm_ssd(t, xbc, zxbcdt, &m->A_log->var, &m->D->var, &m->dt_bias->var, s0, seq, s, &y,
           st ? &s1 : NULL);
    if (st && !t->dry) memcpy(st->ssm, s1->v.data, cm_tensor_bytes(&s1->v));
    y = cm_gated_norm(t, y, zxbcdt, &m->norm->var, 0, s->G, m->eps);
    return cm_project(t, y, m->out_proj, &seq->drop);
}
