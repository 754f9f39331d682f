/* nn.h -- parameters and the four kinds of block, written as forward mathematics.
 *
 * Parameters carry Hugging Face's names and layouts (GraniteMoeHybrid), so a checkpoint is
 * a dump of them.  A block is a struct of parameters, a _build function that registers
 * them, and a _fwd function that puts ops on a tape. */
#ifndef CM_NN_H
#define CM_NN_H

#include "conf/conf.h"
#include "op/op.h"

/* What the optimizer does with a parameter. */
typedef enum {
    CM_GROUP_MATRIX, /* hidden matrix: Muon may orthogonalise it; decays */
    CM_GROUP_EMBED,  /* embedding and head: AdamW, decays */
    CM_GROUP_ROUTER, /* router: AdamW, decays */
    CM_GROUP_VECTOR, /* norms, biases, conv, A_log, D, dt_bias: AdamW, no decay */
    CM_GROUP_ADAPTER /* LoRA's A and B: AdamW, decays */
} cm_group;

typedef enum {
    CM_INIT_ZERO, CM_INIT_ONE,
    CM_INIT_NORMAL,   /* normal with sd `scale`, cut at 3 sd */
    CM_INIT_UNIFORM,  /* uniform in [-scale, scale] */
    CM_INIT_A_LOG,    /* log of uniform [1,16] (Mamba-2) */
    CM_INIT_DT_BIAS   /* inverse softplus of log-uniform [1e-3,1e-1] (Mamba-2) */
} cm_init;

enum { CM_MAX_SPLIT = 5 };

typedef struct cm_param {
    char name[96];
    cm_var var;       /* value and gradient (g NULL when not trained) */
    cm_group group;
    cm_init init;
    double scale;
    /* Row blocks that are matrices of their own for Muon (in_proj: z x B C dt), adding up
     * to the rows; n_split 0 = one block.  3-D parameters are one matrix per expert. */
    int n_split;
    int64_t split[CM_MAX_SPLIT];
    /* Its adapter: y = W x + lora_scale B (A x); NULL: none. */
    struct cm_param *lora_a, *lora_b;
    cm_real lora_scale;
    uint64_t lora_id; /* tells its dropout from others' */
} cm_param;

typedef struct cm_params {
    cm_param **p;
    int n, cap;
    cm_arena *arena; /* values and gradients live here */
    bool trained;    /* allocate gradients */
    bool narrow;     /* matrices and embeddings are stored as BF16 (then not trained) */
    const cm_dtype *held; /* types of all parameters to come (then not trained), or NULL */
    int first;       /* random stream of the first parameter's start */
} cm_params;

void cm_params_begin(cm_params *ps, cm_arena *arena, bool trained);
void cm_params_end(cm_params *ps); /* frees the registry, not the arena */
/* Register and allocate one parameter; name is printf-style.  Returns it. */
cm_param *cm_param_add(cm_params *ps, cm_group group, cm_init init, double scale, int nd,
                       const int64_t *dim, const char *fmt, ...) CM_PRINTF(7, 8);
cm_param *cm_params_find(const cm_params *ps, const char *name); /* NULL if absent */
int64_t cm_params_count(const cm_params *ps);
/* Fill every parameter from (seed, its index): independent of order and threads. */
void cm_params_init(cm_params *ps, uint64_t seed);
void cm_params_zero_grad(cm_params *ps);

/* ---- adapters (LoRA; formulas and files: docs/LORA.md) ---------------------------------- */

/* Does every word of c->targets name something, and is the rest possible?  False: a sentence
 * that names the key. */
bool cm_lora_check(const cm_params *base, const cm_lora_conf *c, cm_err *err);
/* A sentence, free(), where the rank is above the smaller side of a targeted matrix, which the
 * rank of B A cannot be; else NULL. */
char *cm_lora_idle_rank(const cm_params *base, const cm_lora_conf *c);
double cm_lora_scale(const cm_lora_conf *c);
/* Register an adapter for every targeted parameter of base; and forget them all. */
void cm_lora_attach(cm_params *base, cm_params *adapter, const cm_lora_conf *c);
void cm_lora_detach(cm_params *base);
/* W += scale B A, expert by expert for 3-D parameters.  a[..,r,I] b[..,O,r]. */
void cm_lora_merge(cm_param *p, int64_t r, double scale, const cm_real *a, const cm_real *b);
/* y = x W^T, plus the adapter's part where there is one, which reads x through dropout
 * (drop NULL or of share 0: none).    x[R,I] -> y[R,O] */
cm_var *cm_project(cm_tape *t, cm_var *x, cm_param *p, const cm_drop *drop);
/* How it reads x: dropout does not take BF16. */
cm_readers cm_project_reads(const cm_drop *drop);

/* Decoding state of one layer of B sequences; zeroed = start of a document. */
typedef struct cm_layer_state {
    cm_kv kv;      /* attention */
    cm_real *conv; /* Mamba-2: [B,K-1,C] last raw conv inputs */
    cm_real *ssm;  /* Mamba-2: [B,H,N,P] */
    /* Where the state after the call goes (both or neither; NULL: in place of the old one),
     * and the rows [T,C+H] of raw x | B | C | dt, from which cm_mamba2_replay can make the
     * state after fewer tokens (NULL: not wanted; else B = 1). */
    cm_real *conv_to, *ssm_to, *raw;
} cm_layer_state;

/* ---- blocks: x[R,D] (already normed) -> y[R,D] ---------------------------------------- */

typedef struct cm_attn {
    cm_param *q, *k, *v, *o;
    int H, G, P;
    cm_real scale;
    const double *inv; /* RoPE frequencies [P/2] or NULL */
    double mscale;
} cm_attn;
void cm_attn_build(cm_attn *a, cm_params *ps, const cm_model_conf *c, int layer);
cm_var *cm_attn_fwd(const cm_attn *a, cm_tape *t, cm_var *x, const cm_seq *seq,
                    cm_layer_state *st);

typedef struct cm_mamba2 {
    cm_param *in_proj, *conv_w, *conv_b, *dt_bias, *A_log, *D, *norm, *out_proj;
    cm_ssd_conf ssd;
    int64_t DI, C; /* inner width H*P; conv channels DI + 2 G N */
    cm_real eps;
} cm_mamba2;
void cm_mamba2_build(cm_mamba2 *m, cm_params *ps, const cm_model_conf *c, int layer);
cm_var *cm_mamba2_fwd(const cm_mamba2 *m, cm_tape *t, cm_var *x, const cm_seq *seq,
                      cm_layer_state *st);

/* The state after the first T of the tokens whose rows are in st->raw, one by one: from
 * st->conv and st->ssm, in their place. */
void cm_mamba2_replay(const cm_mamba2 *m, cm_tape *t, int T, cm_layer_state *st);

/* The two mixers along the paths of a prefix tree, x[rows,D]: the bits of the functions
 * above on each text alone.  They read and write the layer's part of pasts and carry. */
cm_var *cm_attn_paths(const cm_attn *a, cm_tape *t, cm_var *x, const cm_paths *p,
                      int layer);
cm_var *cm_mamba2_paths(const cm_mamba2 *m, cm_tape *t, cm_var *x, const cm_paths *p,
                        int layer);

/* SwiGLU feed-forward; also the shared expert. */
typedef struct cm_mlp {
    cm_param *in, *out; /* [2F,D] gate rows then up rows; [D,F] */
} cm_mlp;
void cm_mlp_build(cm_mlp *m, cm_params *ps, const cm_model_conf *c, int layer, int64_t F);
cm_var *cm_mlp_fwd(const cm_mlp *m, cm_tape *t, cm_var *x, const cm_drop *drop);

typedef struct cm_moe_block {
    cm_param *router, *in, *out; /* [E,D], [E,2F,D], [E,D,F] */
    int K;
} cm_moe_block;
void cm_moe_build(cm_moe_block *m, cm_params *ps, const cm_model_conf *c, int layer);
/* aux: the layer's weighted balance losses, one element. */
cm_var *cm_moe_fwd(const cm_moe_block *m, cm_tape *t, cm_var *x, cm_real lb, cm_real z,
                   int64_t *load, cm_moe_stats *stats, cm_var **aux);

#endif
