/* op.h -- the tape and the differentiable ops on it.
 *
 * A step is a few hundred nodes of about twenty coarse ops.  cm_tape_apply runs an op
 * at once and records it; cm_tape_backward walks the record in reverse.  Each op is one
 * descriptor (struct cm_op) in one file op_<name>.c: shape rule, sizes, forward,
 * backward, gradient-check cases.  op_list.h has one line per op.
 *
 * Memory: every buffer comes from the tape's arena through the tape.  Ops never
 * allocate; what they save for backward and their scratch are declared sizes.  A dry
 * tape (counting arena) does all allocations and no arithmetic, so its peak is exact.
 *
 * Gradients: bwd ADDS into in[i]->g, and skips inputs whose g is NULL.  The tape hands
 * over zeroed gradients, except for inputs in the op's `sets` mask when they are fresh:
 * then bwd must overwrite (see cm_node.fresh).  An out[j]->g that is NULL means that no
 * gradient arrives there (ops with several outputs must allow it). */
#ifndef CM_OP_H
#define CM_OP_H

#include "conf/conf.h"
#include "kern/kern.h"

#define CM_MAX_IN 8
#define CM_MAX_OUT 3

/* Columns [from,to) of a matrix. */
typedef struct cm_cols {
    int64_t from, to;
} cm_cols;

enum { CM_MAX_PARTS = 4 };

/* A value with, where wanted, its gradient.  Either may be stored as BF16 where products that
 * round to BF16 are all that reads it: they round while packing, so rounding earlier changes no
 * bit of a result.  Of values the model says so (cm_readers), of gradients the tape finds out
 * (`products`, `part`). */
typedef struct cm_var {
    cm_tensor v;      /* value, dtype cm_real or (see cm_op.takes) BF16 */
    cm_real *g;       /* gradient, same count; NULL = not wanted or not yet allocated */
    bool wants_grad;
    bool is_param;    /* persistent: g belongs to the caller and is always accumulated */
    bool g_live;      /* the tape's: g is allocated and holds something */
    bool gone;        /* the tape's: another value was written over this one */
    bool g_narrow;    /* the tape's: g points to BF16, see cm_grad_of */
    bool products;    /* the tape's: the op that made it reads g in products alone, and does
                         not read v again */
    int n_part;       /* the tape's: readers so far, -1 where one cannot write BF16 or two */
    cm_cols part[CM_MAX_PARTS]; /* write the same columns of g; and the columns of each */
} cm_var;

struct cm_op;
typedef struct cm_node {
    const struct cm_op *op;
    cm_var *in[CM_MAX_IN];   /* optional inputs may be NULL */
    cm_var *out[CM_MAX_OUT];
    int n_in, n_out;
    const void *attr;        /* the op's own struct, copied when applied */
    void *saved;             /* op->saved() bytes, written by fwd, read by bwd */
    bool grad;               /* this node will have a backward: fwd must fill saved */
    bool narrow;             /* set by infer: out[0] is read by products alone, so that a tape
                                of BF16 products stores it as BF16 */
    bool fresh[CM_MAX_IN];   /* bwd: in[i]->g is uninitialised and must be overwritten
                                (only for i in op->sets) */
    struct cm_tape *tape;
} cm_node;

/* Context of one gradient-check case; see gradcheck in tests/grad. */
struct cm_sample;

/* What a pass over a node cannot do without: floating point operations of its products, and
 * bytes read or written once. */
typedef struct cm_work {
    double flops, bytes;
    cm_compute how; /* what the products multiply */
} cm_work;

typedef struct cm_op {
    const char *name;
    const char *shapes;   /* "x[R,I] w[O,I] -> y[R,O]": in docs and in shape errors */
    int n_in, n_out;
    size_t attr_bytes;
    uint32_t sets;        /* bit i: bwd can overwrite in[i]->g instead of adding */
    uint32_t unread;      /* bit i: bwd does not need the value of in[i] */
    bool mixed;           /* its products are as the tape's compute says, else fp32 */
    bool early;           /* fwd forms the gradients, bwd only hands them on */
    uint32_t takes;       /* bit i: in[i] may be stored as BF16 */
    uint32_t takes_g;     /* bit j: so may the gradient of out[j], as products are all that
                             reads it */
    uint32_t gives_g;     /* bit i: bwd can write in[i]->g as BF16 */
    uint32_t over;        /* bit i: out[0] may be written over in[i], which is read for the
                             last time */
    /* Fill out[i]->v.nd/dim from the inputs and attr; false with a reason when the shapes
     * do not fit. */
    bool (*infer)(cm_node *n, const char **why); /* may lower n->n_out: absent outputs */
    /* Bytes kept from forward to backward (called after infer; 0 when NULL). */
    size_t (*saved)(const cm_node *n);
    /* Bytes of temporary memory during fwd / bwd, all threads together (0 when NULL). */
    size_t (*scratch)(const cm_node *n, bool backward);
    void (*fwd)(cm_node *n, void *scratch);
    void (*bwd)(cm_node *n, void *scratch); /* NULL: not differentiable */
    /* Matmul-class floating point operations of the forward (for MFU and profile). */
    double (*flops)(const cm_node *n);
    /* Columns of in[i]->g that bwd adds to, where gives_g and not all of them (NULL: all). */
    cm_cols (*cols)(const cm_node *n, int i);
    /* Elements of in[i] that the op uses, where these are not all of it (NULL: all). */
    int64_t (*touched)(const cm_node *n, int i);
    /* Build the i-th gradient-check case: apply the op (through its public builder) to
     * inputs made by cm_sample_* and return true; false when i is past the last. */
    bool (*sample)(struct cm_sample *s, int i);
} cm_op;

/* Lays out one block of memory piece by piece.  With base NULL it only measures, so an
 * op's size function and the carving itself are the same few lines. */
typedef struct cm_cut {
    void *base;
    size_t used; /* bytes so far, a multiple of CM_ALIGN */
} cm_cut;
static inline void *cm_cut_take(cm_cut *c, size_t bytes) {
    void *p = c->base ? (unsigned char *)c->base + c->used : NULL;
    c->used += cm_align_up(bytes);
    return p;
}
static inline cm_real *cm_cut_reals(cm_cut *c, int64_t n) {
    return cm_cut_take(c, (size_t)n * sizeof(cm_real));
}

/* ---- tape ------------------------------------------------------------------------- */

typedef struct cm_tape {
    cm_arena *arena;    /* activations, saved data, gradients, scratch */
    cm_arena *meta;     /* nodes, vars, attrs: never counted as activations */
    bool dry;           /* sizes only */
    bool recording;     /* false: inference, nothing kept for backward */
    bool replay;        /* a recomputed block runs again: count no statistics twice */
    bool wide;          /* tests: nothing is stored as BF16 */
    cm_compute compute; /* of the large products, both ways: linear, experts, head, attention
                           (not over a cache), scan (not token by token); set it after
                           cm_tape_begin, which chooses fp32 */
    struct cm_node **node;
    int n_node, cap_node;
    struct cm_free *freed; /* recycled gradient buffers by size */
    struct cm_prof *prof;  /* optional per-op times, see cm_prof */
} cm_tape;

/* Whoever wants to see what the matrices meet: fn is told, before each product of a forward,
 * the parameter, the expert (0), and x[rows,cols].  NULL: nobody.  One thread at a time. */
typedef struct cm_watch {
    void (*fn)(void *ctx, const cm_var *w, int64_t expert, const cm_real *x, int64_t rows,
               int64_t cols);
    void *ctx;
} cm_watch;
extern const cm_watch *cm_watching;

/* Start a step.  Marks of both arenas are the caller's business (reset afterwards). */
void cm_tape_begin(cm_tape *t, cm_arena *arena, cm_arena *meta, bool recording, bool dry);

/* Run and record an op.  Wrong shapes are a bug of the caller (configurations are checked
 * before): panics with the op's shape rule and the actual shapes.  attr is copied.
 * Outputs are new vars in out[0..n_out). */
void cm_tape_apply(cm_tape *t, const cm_op *op, cm_var *const *in, int n_in,
                   const void *attr, cm_var **out);

/* Gradients of `loss` (one element), seeded with `seed`, added into every parameter that
 * wants one.  Uses the record once. */
void cm_tape_backward(cm_tape *t, cm_var *loss, cm_real seed);

/* Who reads a value: whoever likes, or only ops that take it as BF16 (cm_op.takes). */
typedef enum { CM_ANYBODY, CM_PRODUCTS } cm_readers;

/* A var on the meta arena around existing memory (no gradient). */
cm_var *cm_var_const(cm_tape *t, cm_dtype dt, const int64_t *dim, int nd, void *data);
/* A var with fresh, unset memory from the tape's arena. */
cm_var *cm_var_new(cm_tape *t, const int64_t *dim, int nd, bool wants_grad);

/* Activation recomputation.  Runs fn(ctx, tape, in, out) without recording, keeps only
 * its outputs (whose shapes are those of like[0..n_out)), and replays it with recording
 * during backward.  fn must be a pure function of its inputs, parameters and ctx, must not
 * return an input as an output, and ctx must outlive the backward.  Parameters used inside
 * need not be listed. */
typedef void (*cm_block_fn)(void *ctx, cm_tape *t, cm_var *const *in, cm_var **out);
void cm_recompute(cm_tape *t, cm_block_fn fn, void *ctx, cm_var *const *in, int n_in,
                  const cm_tensor *like, cm_var **out, int n_out);

/* What forward or backward of a node takes at the least, from its descriptor: forward
 * reads its inputs, writes its outputs and what it saves; backward reads the inputs (but
 * for op->unread), what was saved and the outputs' gradients, and writes its inputs' (reads
 * and writes those of parameters).  Products of a backward: twice the forward's, once where
 * no weight wants a gradient. */
cm_work cm_op_work(const cm_node *n, bool backward);

/* Per-op accounting, filled when tape->prof is set.  A recomputed block counts again in
 * `pass`, for that is what happens, but not in `flops`. */
typedef struct cm_prof_pass {
    double seconds, floor; /* floor: as long as the passes take at the machine's rates */
    cm_work work;
} cm_prof_pass;
typedef struct cm_prof_row {
    const cm_op *op;
    cm_prof_pass pass[2]; /* forward, backward */
    double flops;         /* of the forward, recomputation not counted */
    int64_t calls;
} cm_prof_row;
typedef struct cm_prof {
    cm_prof_row row[64];
    int n;
    /* What the machine reaches, a second, products by cm_compute; 0: no floors. */
    double flop_rate[2], byte_rate;
} cm_prof;
/* One pass over n took so long; replay: a recomputed block. */
void cm_prof_add(cm_prof *p, const cm_node *n, bool backward, bool replay, double seconds);
/* Bytes a second that the machine reads from memory, in a short probe: the larger of the
 * rates of one thread and of all. */
double cm_read_probe(double seconds);

/* ---- rows of packed documents ------------------------------------------------------ */

/* Dropout of `share` of the elements of R = B*T rows of tokens. */
typedef struct cm_drop {
    double share;  /* 0: none */
    uint64_t seed;
    int64_t row;   /* number in the data of the first row of T tokens */
    int T;
} cm_drop;

/* What the sequence ops need to know about the R = B*T rows of a batch. */
typedef struct cm_seq {
    int B, T;
    const int32_t *doc; /* [B*T] document number of each token; a change between t-1 and t
                           within a row resets attention, conv and SSM state.  NULL: one
                           document per row. */
    const int32_t *pos; /* [B*T] position of each token in its document, for RoPE.  NULL:
                           position in the row plus pos0. */
    int pos0;
    cm_drop drop; /* of adapters' inputs; share 0: none */
    bool steps;   /* with decoding state: T tokens with the bits of T calls of one token (as
                     far as products keep a row's bits, as strict ones do) */
    int last;     /* cm_model_hidden: so many last rows are wanted; 0: all */
} cm_seq;

/* ---- paths of a prefix tree --------------------------------------------------------- */

/* For inference over many texts that share beginnings.  Rows are the tree's tokens, each
 * once: all that works token by token runs on them.  What looks back along a text runs on
 * paths: the tokens of one text from a point where its state is known (its past; none at
 * the beginning of texts) to a leaf.  Past points lie at multiples of the scan's Q. */

/* State at a point of the tree, of all layers: of the layer's kind, else NULL.  Keys and
 * values are kept where they arise: these rows, then those of `up`. */
typedef struct cm_past {
    struct cm_past *up;
    int tokens, rows;           /* before this point; of these, since `up` */
    cm_real **conv, **ssm;      /* [layers] of [K-1,C] and [H,N,P] */
    cm_real **k, **v;           /* [layers] of [rows,G*P]; k rotated */
} cm_past;

typedef struct cm_path {
    const cm_past *past;        /* NULL: the text begins here */
    cm_past *next;              /* gets the state at the path's end; NULL: not wanted */
    int at;                     /* its first packed token */
    int len;                    /* tokens; where next is set a multiple of Q */
    int shared;                 /* of these, computed by an earlier path */
} cm_path;

/* Rows kept from one call to the next, of all layers, [layers] of [Q,...]: the tokens of
 * the last path that later ones share. */
typedef struct cm_carry {
    cm_real **raw, **xbc;       /* Mamba-2: [C+H] raw x B C dt; [C] convolved x B C */
    cm_real **k, **v;           /* attention: [G*P] */
} cm_carry;

typedef struct cm_paths {
    int rows;                   /* tokens computed */
    int packed;                 /* tokens of all paths */
    int n, longest;             /* paths; tokens of the longest text so far */
    const cm_path *path;        /* in the order of their own rows */
    const int32_t *row;         /* [packed] row of a path's token; -1-i: carried row i */
    const int32_t *pos;         /* [rows] */
    cm_carry *carry;            /* read, then written; NULL: nothing carried */
    int keep;                   /* tokens of the last path to carry from here */
} cm_paths;

static inline int cm_path_begin(const cm_path *p) { return p->past ? p->past->tokens : 0; }
static inline const cm_real *cm_path_row(const cm_real *rows, const cm_real *carried,
                                         int64_t width, int32_t i) {
    return i >= 0 ? rows + i * width : carried + (-1 - i) * width;
}

/* ---- weights in less memory ----------------------------------------------------------- */

/* Matrices that are not trained (embedding, linear, experts, head) may be held as halves or
 * blocks (cm_qmat_holds).  Does this forward multiply by w as it is held (cm_qmat_mul)?  Where
 * the tape records, w is cm_real or BF16, and is widened, or taken as it is by a BF16 product. */
bool cm_as_held(const cm_node *n, const cm_tensor *w);
/* Scratch that the product of M rows with w wants, one way or the other. */
size_t cm_weight_bytes(const cm_node *n, const cm_tensor *w, int64_t M);
/* The elements as cm_real: in place, or widened into `room` of cm_wide_bytes (0: in place). */
size_t cm_wide_bytes(const cm_tensor *w);
const cm_real *cm_wide(const cm_tensor *w, void *room);
/* W, with rows of ld elements, as an operand of products: BF16 products take a stored one as
 * it is and leave `room` (of cm_operand_bytes) alone. */
size_t cm_operand_bytes(cm_compute how, const cm_tensor *w);
cm_mat cm_operand(cm_compute how, const cm_tensor *w, int64_t ld, bool t, void *room);
/* Elements [at, at+n) of a BF16 weight, on the calling thread. */
void cm_wide_part(const cm_tensor *w, int64_t at, int64_t n, cm_real *to);

/* ---- ops: one builder each ---------------------------------------------------------- */

/* y[r] = scale * W[token[r]]     W[V,D] -> y[R,D].   token[R] in [0,V). */
cm_var *cm_embed(cm_tape *t, cm_var *w, const int32_t *token, int64_t R, cm_real scale);

/* y = x + u alpha / sqrt(L D): NEFTune's noise, u uniform in [-1,1), L the length of the
 * document that a row of x belongs to.     x[R,D] -> y[R,D], R = B*T of seq.
 * row: number in the data of the batch's first row, whose noise follows from (seed, row). */
typedef struct cm_noise {
    double alpha; /* 0: none */
    uint64_t seed;
    int64_t row;
} cm_noise;
cm_var *cm_add_noise(cm_tape *t, cm_var *x, const cm_noise *n, const cm_seq *seq);

/* y = x W^T     x[R,I] W[O,I] -> y[R,O] */
cm_var *cm_linear(cm_tape *t, cm_var *x, cm_var *w);

/* Dropout: y = x / (1 - share) where an element stays, else 0.     x[R,I] -> y[R,I]
 * What stays follows from (seed, module, number of the row in the data, place in it). */
cm_var *cm_dropout(cm_tape *t, cm_var *x, const cm_drop *d, uint64_t module);

/* y = x / sqrt(mean(x^2) + eps) * w     x[R,D] w[D] -> y[R,D] */
cm_var *cm_rmsnorm(cm_tape *t, cm_var *x, cm_var *w, cm_real eps, cm_readers readers);

/* y = x + scale * b     x[R,D] b[R,D] -> y[R,D]
 * On a tape that records, y is written over a b that a product made and nobody has read: b has
 * no value afterwards. */
cm_var *cm_residual(cm_tape *t, cm_var *x, cm_var *b, cm_real scale);

/* y = silu(a) * b     ab[R,2F], a = first F columns -> y[R,F] */
cm_var *cm_swiglu(cm_tape *t, cm_var *ab, cm_readers readers);

/* y = sum of n <= CM_MAX_IN one-element vars: joins the parts of a loss. */
cm_var *cm_sum(cm_tape *t, cm_var *const *x, int n);

/* Rotary position embedding, half-split pairs (i, i+P/2), applied to q and k in place of
 * nothing: attention takes it as an attribute.  Frequencies inv[P/2] come from
 * cm_rope_freqs. */
typedef struct cm_rope_conf {
    int kind;           /* CM_ROPE_NONE, _PLAIN, _LINEAR or _YARN of conf.h */
    int P;              /* head width; all of it rotates */
    double base;        /* theta */
    double factor;      /* linear and YaRN: context extension s >= 1 */
    double orig_ctx;    /* YaRN: original context length */
    double beta_fast, beta_slow; /* YaRN: 32, 1 */
    double attn_factor; /* YaRN: 0 = default 0.1 ln s + 1 */
} cm_rope_conf;
/* inv[P/2] inverse frequencies and the factor *mscale that cos and sin are multiplied by
 * (1 unless YaRN).  Source of the formulas: YaRN, arXiv 2309.00071. */
void cm_rope_freqs(const cm_rope_conf *c, double *inv, double *mscale);

/* Causal attention with grouped KV heads, tiled, memory linear in T.
 *   q[R,H*P] k[R,G*P] v[R,G*P] -> y[R,H*P]     H a multiple of G, head h reads h/(H/G)
 * Rows attend to earlier rows of the same document.  inv: RoPE frequencies [P/2] or NULL
 * (NoPE); rotates q and k by (position * inv[i]), times mscale.
 * Saves the rotated q, k and the row log-sum-exp. */
cm_var *cm_attention(cm_tape *t, cm_var *q, cm_var *k, cm_var *v, const cm_seq *seq,
                     int H, int G, cm_real scale, const double *inv, double mscale);

/* Keys and values of B sequences, for inference.  The op appends the new rows at held[b];
 * the caller then adds the number of rows to held[b] (after the last layer). */
typedef struct cm_kv {
    void *k, *v;         /* [B,cap,G*P] of `type`; k rotated */
    int64_t cap;         /* rows of room */
    const int32_t *held; /* [B] rows held before the call */
    bool exact;          /* the bits of cm_attention however few rows come at a time;
                            else up to 3 rows take a faster path, equal to ~1e-6 */
    bool steps;          /* any number of rows has the bits of one at a time */
    cm_dtype type;       /* CM_F32_T: cm_real as they are; CM_F16_T, or CM_Q8_0_T in blocks
                            along the row: rounded when appended, so that the numbers do not
                            depend on how rows are fed; magnitudes beyond the type's saturate */
} cm_kv;
/* Bytes of n elements of a KV cache; n is a multiple of the type's block. */
size_t cm_kv_bytes(cm_dtype type, int64_t n);

/* Attention of T new rows in each of B sequences to the cache and themselves; R = B*T.
 *   q[R,H*P] k[R,G*P] v[R,G*P] -> y[R,H*P]       rows at positions held[b] + 0..T-1
 * Not differentiable.  Fed in any portions, gives what cm_attention gives at once. */
cm_var *cm_attention_cached(cm_tape *t, cm_var *q, cm_var *k, cm_var *v, const cm_kv *kv,
                            int B, int H, int G, cm_real scale, const double *inv,
                            double mscale);

/* Attention along the paths of a prefix tree: the bits of cm_attention on each text alone.
 *   q[R,H*P] k[R,G*P] v[R,G*P] -> y[R,H*P], rot[R,G*P] = k rotated     R = paths->rows
 * Not differentiable.  `layer` selects the past's and the carry's arrays. */
void cm_attention_paths(cm_tape *t, cm_var *q, cm_var *k, cm_var *v, const cm_paths *paths,
                        int layer, int H, int G, cm_real scale, const double *inv,
                        double mscale, cm_var **y, cm_var **rot);

/* Causal depthwise convolution and SiLU over columns [col, col+C) of x:
 *   y[r,c] = silu(b[c] + sum_m w[c,m] x[r-(K-1)+m, col+c])     x[R,W] w[C,K] b[C] -> y[R,C]
 * Taps never reach into another document.
 * For inference in pieces: w0[B,K-1,C], the K-1 raw rows before each first token (NULL:
 * none), and w1, which gets the last K-1 rows in the end (zeros where another document
 * or nothing was; NULL: not wanted; may be w0).  Neither is differentiable. */
cm_var *cm_conv_silu(cm_tape *t, cm_var *x, cm_var *w, cm_var *b, const cm_seq *seq,
                     int64_t col, const cm_real *w0, cm_real *w1);

/* Chunked state-space dual scan of Mamba-2 (arXiv 2405.21060; formulas in docs/math/ssd.md)
 *   xbc[R, H*P + 2*G*N]: columns x | B | C       dtx[R,W]: raw dt in columns [dcol,dcol+H)
 *   A_log[H] D[H] dt_bias[H]   s0[B,H,N,P] or NULL  ->  y[R,H*P]  and, when want_state,
 *   s1[B,H,N,P] (else NULL).
 * dt = softplus(raw + dt_bias); state_t = exp(-exp(A_log) dt) state + dt B_t x_t^T;
 * y_t = C_t^T state_t + D x_t.  States are stored transposed, [N,P].  Document changes reset
 * the state; s0 belongs to the first token's document of each row.  Chunks start where
 * documents do, so a document's results do not depend on its place in the row, and one
 * cut at multiples of Q tokens and continued from s1 gives the same bits as uncut.
 * A = -exp(A_log) is computed in double and rounded once, at every kernel level: a file that
 * holds A gives the same model back, to the last bit.
 * A single token without gradients (decoding) takes the plain recurrence; with seq->steps
 * and a state before and after, each of T tokens does. */
typedef struct cm_ssd_conf {
    int H, P, N, G, Q; /* heads, head width, state, groups, chunk */
    int64_t dcol;
    /* Inference, where the state lives outside the tape: read from `from` instead of s0,
     * written to `to` at the end; [B,H,N,P], NULL: not used; may be the same memory. */
    const cm_real *from;
    cm_real *to;
    /* The same for every document of a packed row (B = 1), in the order of the documents:
     * the state before each (entry NULL: zero) and where the one after it goes (entry
     * NULL: nowhere), [H,N,P] each.  NULL: not used; else no other state may be given. */
    const cm_real *const *doc_from;
    cm_real *const *doc_to;
    const int32_t *doc_skip; /* first tokens of each whose outputs are not wanted; or NULL */
} cm_ssd_conf;
void cm_ssd(cm_tape *t, cm_var *xbc, cm_var *dtx, cm_var *A_log, cm_var *D,
            cm_var *dt_bias, cm_var *s0, const cm_seq *seq, const cm_ssd_conf *c,
            cm_var **y, cm_var **s1);

/* u = y * silu(z), z = columns [zcol, zcol+DI) of zx;  out = RMSNorm of u over each of G
 * groups of DI/G, times w.     y[R,DI] zx[R,W] w[DI] -> out[R,DI] */
cm_var *cm_gated_norm(cm_tape *t, cm_var *y, cm_var *zx, cm_var *w, int64_t zcol, int G,
                      cm_real eps, cm_readers readers);

/* Dropless top-k mixture of SwiGLU experts.
 *   x[R,D] router[E,D] w_in[E,2F,D] w_out[E,D,F] -> y[R,D], aux[1]
 * p = softmax(router x) over all E; the K largest, renormalised to sum 1, weigh the experts
 * (ties: the lower expert index).  aux = lb_coef * E sum_i f_i P_i + z_coef * mean lse^2
 * with f_i = share of the R*K assignments, P_i = mean p_i (Switch; ST-MoE).
 * load: optional [E] counters that get the assignments of this call added (metrics).
 * stats: optional, see cm_moe_stats. */
typedef struct cm_moe_stats {
    double router_entropy; /* sum over rows of H(p) in nats */
    double top1;           /* sum over rows of the largest p */
    double lb, z;          /* last call's unweighted losses */
    int64_t rows;
    int32_t *chosen;       /* NULL, or room for [R,K]: the last call's experts by row */
} cm_moe_stats;
/* Low-rank adapters of the experts' matrices, one pair an expert: w_in[e] acts as
 * w_in[e] + s_in b_in[e] a_in[e], w_out[e] likewise.  A pair may be NULL.
 *   a_in[E,r,D] b_in[E,2F,r]   a_out[E,r,F] b_out[E,D,r] */
typedef struct cm_moe_lora {
    cm_var *a_in, *b_in, *a_out, *b_out;
    cm_real s_in, s_out;
} cm_moe_lora;
void cm_moe(cm_tape *t, cm_var *x, cm_var *router, cm_var *w_in, cm_var *w_out,
            const cm_moe_lora *lora, int K, cm_real lb_coef, cm_real z_coef, int64_t *load,
            cm_moe_stats *stats, cm_var **y, cm_var **aux); /* lora NULL: none */

/* Fused linear and cross-entropy in row chunks, never holding [R,V].
 *   x[R,D] W[V,D] target[R] (-1 = ignored) -> loss[1]
 * logits = x W^T * logit_scale; loss = norm * sum over rows (nll + z_coef * lse^2).
 * Gradients are formed in the forward pass (upstream gradient must be 1: a root of the
 * graph or a term of cm_sum).  nll: optional [R] row losses (0 where ignored).  hit: optional
 * [R], of rows with a target: 1 where no logit is larger than the target's. */
cm_var *cm_xent(cm_tape *t, cm_var *x, cm_var *w, const int32_t *target, cm_real logit_scale,
                cm_real norm, cm_real z_coef, cm_real *nll, uint8_t *hit);

/* Log-probability of each row's target, in row chunks, never holding [R,V].
 *   x[R,D] W[V,D] target[R] (-1 = ignored) -> logp[R], 0 where ignored
 * logits = x W^T * logit_scale. */
cm_var *cm_target_logp(cm_tape *t, cm_var *x, cm_var *w, const int32_t *target,
                       cm_real logit_scale);

/* A chosen ([0]) and a rejected ([1]) answer to one prompt. */
typedef struct cm_pair {
    int32_t from[2], to[2]; /* the rows of each: [from,to) */
    int32_t n[2];           /* trained tokens of each, at least 1 */
    double ref[2];          /* log-probability of each under the reference */
    /* Written by the forward: log-probability of each, reward of each (beta times what the
     * loss compares), the pair's loss, and its derivatives by the log-probabilities. */
    double logp[2], reward[2], loss, slope[2];
} cm_pair;
typedef struct cm_prefer_conf {
    int loss;               /* CM_PREFER_SIGMOID or CM_PREFER_IPO of conf.h */
    double beta;
    double label_smoothing; /* sigmoid: share of pairs taken for turned around (cDPO) */
    double margin;          /* sigmoid: SimPO's gamma, in rewards */
    double nll;             /* weight of the chosen answer's mean token nll (RPO) */
    double dpop;            /* weight of its fall below the reference (DPOP's lambda) */
    bool length_norm;       /* log-probabilities by token; IPO always does */
    bool reference_free;    /* the reference counts as 0 */
} cm_prefer_conf;
/* Preference loss of n pairs: norm times the sum of their losses (formulas: op_prefer.c).
 *   logp[R] -> loss[1]
 * Rows in [from,to) that are ignored hold 0.  The pairs must live until the backward. */
cm_var *cm_prefer(cm_tape *t, cm_var *logp, cm_pair *pair, int n, const cm_prefer_conf *c,
                  cm_real norm);

/* Every op, one line each in op_list.h. */
extern const cm_op *const cm_ops[];
extern const int cm_n_ops;

/* ---- gradient-check cases ------------------------------------------------------------ */

/* Tools for cm_op.sample: inputs by name, filled with seeded values in [-1,1] (or a given
 * range), whose gradients are checked.  The outputs registered with cm_sample_out are
 * dotted with fixed random weights to give the scalar that is differentiated; a loss-like
 * op registers its scalar with cm_sample_loss instead (upstream gradient 1). */
typedef struct cm_sample cm_sample;
cm_tape *cm_sample_tape(cm_sample *s);
cm_var *cm_sample_in(cm_sample *s, const char *name, int nd, const int64_t *dim, double lo,
                     double hi);
cm_var *cm_sample_param(cm_sample *s, const char *name, int nd, const int64_t *dim,
                        double lo, double hi); /* as _in, but accumulating like a weight */
void cm_sample_out(cm_sample *s, cm_var *v);
void cm_sample_loss(cm_sample *s, cm_var *v);
/* Case-owned memory for integer inputs, alive for the whole case, zeroed. */
void *cm_sample_mem(cm_sample *s, size_t bytes);
/* A random document layout for B rows of T tokens with about `docs` documents a row;
 * docs = 1 gives one per row.  Fills doc and pos. */
void cm_sample_seq(cm_sample *s, cm_seq *seq, int B, int T, int docs);
/* Seeded integer in [0,n) for the case; i counts draws. */
int cm_sample_int(cm_sample *s, uint64_t i, int n);

/* Run case i of a function with the signature of cm_op.sample and compare its gradients
 * with central differences (meaningful in the double build).  Calls report for every
 * input: err = ||g - fd|| / ||fd|| (or ||g|| when fd vanishes, ||fd|| < 1e-9 sqrt(n)).
 * Returns false when there is no case i.  The gradient of the input named `scaled`
 * (NULL = none) is multiplied by scale before the comparison: a planted error. */
typedef bool (*cm_sample_fn)(cm_sample *s, int i);
typedef void (*cm_sample_report)(void *ctx, const char *input, int64_t n, double err,
                                 double fd_norm);
bool cm_sample_check(cm_sample_fn fn, int i, const char *scaled, double scale,
                     cm_sample_report report, void *ctx);

#endif
