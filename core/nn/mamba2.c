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

/* Keep columns x | B | C | dt of in_proj's rows. */
static void keep_raw(const cm_mamba2 *m, const cm_tensor *zx, cm_real *to) {
    int64_t W = m->C + m->ssd.H, ld = zx->dim[1];
    const cm_real *from = cm_rdata(zx) + m->DI;
    for (int64_t r = 0; r < zx->dim[0]; r++)
        memcpy(to + r * W, from + r * ld, (size_t)W * sizeof *to);
}

/* The scan over convolved xbc, dt in columns dcol.. of dtx; st NULL: from nothing. */
static cm_var *scan(const cm_mamba2 *m, cm_tape *t, cm_var *xbc, cm_var *dtx, int64_t dcol,
                    const cm_seq *seq, cm_layer_state *st) {
    cm_ssd_conf c = m->ssd;
    cm_var *y;
    c.dcol = dcol;
    c.from = st ? st->ssm : NULL;
    c.to = !st ? NULL : st->ssm_to ? st->ssm_to : st->ssm;
    cm_ssd(t, xbc, dtx, &m->A_log->var, &m->D->var, &m->dt_bias->var, NULL, seq, &c, &y, NULL);
    return y;
}

cm_var *cm_mamba2_fwd(const cm_mamba2 *m, cm_tape *t, cm_var *x, const cm_seq *seq,
                      cm_layer_state *st) {
    cm_var *zxbcdt = cm_project(t, x, m->in_proj, &seq->drop);
    cm_real *window = st ? st->conv : NULL;
    cm_var *xbc = cm_conv_silu(t, zxbcdt, &m->conv_w->var, &m->conv_b->var, seq, m->DI,
                               window, st && st->conv_to ? st->conv_to : window);
    if (st && st->raw && !t->dry) keep_raw(m, &zxbcdt->v, st->raw);
    cm_var *y = scan(m, t, xbc, zxbcdt, m->ssd.dcol, seq, st);
    y = cm_gated_norm(t, y, zxbcdt, &m->norm->var, 0, m->ssd.G, m->eps,
                      cm_project_reads(&seq->drop));
    return cm_project(t, y, m->out_proj, &seq->drop);
}

void cm_mamba2_replay(const cm_mamba2 *m, cm_tape *t, int T, cm_layer_state *st) {
    cm_seq seq = { .B = 1, .T = T, .steps = true };
    cm_layer_state in_place = { .conv = st->conv, .ssm = st->ssm };
    cm_var *raw = cm_var_const(t, CM_REAL_DTYPE, (int64_t[]){ T, m->C + m->ssd.H }, 2, st->raw);
    cm_var *xbc = cm_conv_silu(t, raw, &m->conv_w->var, &m->conv_b->var, &seq, 0, st->conv,
                               st->conv);
    scan(m, t, xbc, raw, m->C, &seq, &in_place);
}
