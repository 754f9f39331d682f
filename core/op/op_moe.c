/* op_moe.c -- dropless top-k mixture of SwiGLU experts.
 *
 * Every row goes to K experts, whatever the load: the R*K (row, slot) pairs are sorted by
 * expert, counting, in row order; rows are gathered in that order, each expert is a gemm
 * over its stretch, and results are mixed back slot by slot.  Buffers hold R*K rows,
 * never a number that depends on the routing, so the memory plan is exact.
 * Formulas, the renormalised gate's gradient and both router losses: docs/math/moe.md
 *
 * Adapters of the experts work on the sorted rows too, as two thin products beside each
 * wide one; the sum W + s B A is never formed.
 *
 * Where products round to BF16, what they alone read here is stored so: gathered rows,
 * activations, the gradients of h. */
#include "op/narrow.h"

#include <omp.h>
#include <string.h>

enum {
    BLOCK = 256, /* rows that share one partial sum of the router statistics */
    ROWS = 256,  /* rows of a product that one thread does */
    SERIAL = 1 << 19 /* multiplications of all experts that one thread does */
};

typedef struct moe_attr {
    int K;
    cm_real lb, z, s_in, s_out;
    int64_t *load;
    cm_moe_stats *stats;
} moe_attr;

/* Inputs of the node; the last four may be NULL. */
enum { X, ROUTER, W_IN, W_OUT, A_IN, B_IN, A_OUT, B_OUT, N_IN };

typedef struct dims {
    int64_t R, D, E, F, K, RK;
    int64_t r_in, r_out; /* ranks; 0: no adapter */
    cm_compute how;      /* of the experts' products; the router's are fp32 */
    cm_dtype type;       /* of what only these read */
} dims;

/* Kept for the backward. */
typedef struct kept {
    cm_real *p;       /* [R,E] softmax of the router */
    cm_real *lse;     /* [R] */
    cm_real *gate;    /* [R,K] renormalised weights, largest first */
    cm_real *h;       /* [R*K,2F] gate and up projections, sorted; the backward turns
                         them into their gradients in place, of d.type */
    int32_t *expert;  /* [R,K] */
    int32_t *at;      /* [R,K] place of the pair in sorted order */
    int32_t *first;   /* [E+1] where each expert's stretch begins */
} kept;

typedef struct work {
    cm_real *x;    /* [R*K,D] gathered rows, of d.type; forward: then the experts' outputs */
    cm_real *y;    /* [R*K,D] backward: gathered gy, of d.type, then gradients of x */
    void *act;     /* [R*K,F] of d.type */
    cm_real *row;  /* [threads,F] a row of act to be */
    cm_real *gact; /* [R*K,F] backward */
    cm_real *z;    /* [R,E] router logits, backward their gradients */
    cm_real *ggate; /* [R,K] backward */
    double *part;  /* [blocks,E+3] sums of p, then of lse^2, entropy, top p */
    cm_real *u, *v; /* [R*K,rank] inside adapters; v in the backward */
    void *wide[2]; /* room for products with the experts' matrices */
} work;

static dims dims_of(const cm_node *n) {
    dims d = { n->in[0]->v.dim[0], n->in[0]->v.dim[1], n->in[1]->v.dim[0],
               n->in[3]->v.dim[2], ((const moe_attr *)n->attr)->K, 0, 0, 0,
               n->tape->compute, CM_REAL_DTYPE };
    if (d.how == CM_COMPUTE_BF16 && !n->tape->wide) d.type = CM_BF16_T;
    d.RK = d.R * d.K;
    d.r_in = n->in[A_IN] ? n->in[A_IN]->v.dim[1] : 0;
    d.r_out = n->in[A_OUT] ? n->in[A_OUT]->v.dim[1] : 0;
    return d;
}

static int64_t n_blocks(const dims *d) { return (d->R + BLOCK - 1) / BLOCK; }

static size_t map_kept(const dims *d, void *base, kept *s) {
    cm_cut c = { base, 0 };
    s->p = cm_cut_reals(&c, d->R * d->E);
    s->lse = cm_cut_reals(&c, d->R);
    s->gate = cm_cut_reals(&c, d->RK);
    s->h = cm_cut_reals(&c, d->RK * 2 * d->F);
    s->expert = cm_cut_take(&c, sizeof *s->expert * (size_t)d->RK);
    s->at = cm_cut_take(&c, sizeof *s->at * (size_t)d->RK);
    s->first = cm_cut_take(&c, sizeof *s->first * (size_t)(d->E + 1));
    return c.used;
}

static size_t map_work(const cm_node *n, const dims *d, bool backward, void *base,
                       work *w, kept *s) {
    cm_cut c = { base, 0 };
    kept spare;
    w->x = cm_cut_reals(&c, d->RK * d->D);
    w->act = cm_cut_take(&c, (size_t)(d->RK * d->F * cm_dtypes[d->type].bytes));
    w->row = cm_cut_reals(&c, cm_kern_threads() * d->F);
    w->z = cm_cut_reals(&c, d->R * d->E);
    w->y = backward ? cm_cut_reals(&c, d->RK * d->D) : NULL;
    w->gact = backward ? cm_cut_reals(&c, d->RK * d->F) : NULL;
    w->ggate = backward ? cm_cut_reals(&c, d->RK) : NULL;
    w->part = cm_cut_take(&c, sizeof(double) * (size_t)(n_blocks(d) * (d->E + 3)));
    int64_t rank = d->r_in > d->r_out ? d->r_in : d->r_out;
    w->u = cm_cut_reals(&c, d->RK * rank);
    w->v = backward ? cm_cut_reals(&c, d->RK * rank) : NULL;
    for (int i = 0; i < 2; i++)
        w->wide[i] = cm_cut_take(&c, backward ? cm_operand_bytes(d->how, &n->in[W_IN + i]->v)
                                              : cm_weight_bytes(n, &n->in[W_IN + i]->v, d->RK));
    if (n->grad) map_kept(d, n->saved, s);
    else map_kept(d, cm_cut_take(&c, map_kept(d, NULL, &spare)), s);
    return c.used;
}

static bool has_shape(const cm_var *x, int64_t a, int64_t b, int64_t c) {
    const int64_t *d = x->v.dim;
    return x->v.nd == 3 && d[0] == a && d[1] == b && d[2] == c;
}

/* a[E,r,I] and b[E,O,r], both or neither. */
static bool is_pair(const cm_var *a, const cm_var *b, int64_t E, int64_t O, int64_t I) {
    if (!a || !b) return !a && !b;
    int64_t r = a->v.dim[1];
    return r > 0 && has_shape(a, E, r, I) && has_shape(b, E, O, r);
}

static bool moe_infer(cm_node *n, const char **why) {
    const cm_tensor *x = &n->in[0]->v, *r = &n->in[1]->v, *wi = &n->in[2]->v;
    const cm_tensor *wo = &n->in[3]->v;
    *why = "wanted x[R,D] router[E,D] w_in[E,2F,D] w_out[E,D,F]";
    if (x->nd != 2 || r->nd != 2 || wi->nd != 3 || wo->nd != 3) return false;
    int64_t D = x->dim[1], E = r->dim[0], F = wo->dim[2];
    if (r->dim[1] != D || wi->dim[0] != E || wi->dim[1] != 2 * F || wi->dim[2] != D ||
        wo->dim[0] != E || wo->dim[1] != D)
        return false;
    *why = "wanted adapters a_in[E,r,D] b_in[E,2F,r] a_out[E,r,F] b_out[E,D,r]";
    if (!is_pair(n->in[A_IN], n->in[B_IN], E, 2 * F, D) ||
        !is_pair(n->in[A_OUT], n->in[B_OUT], E, D, F))
        return false;
    *why = "experts per token must be 1 to E";
    int K = ((const moe_attr *)n->attr)->K;
    if (K < 1 || K > E) return false;
    n->out[0]->v = *x;
    n->out[1]->v.nd = 1;
    n->out[1]->v.dim[0] = 1;
    return true;
}

static size_t moe_saved(const cm_node *n) {
    dims d = dims_of(n);
    kept s;
    return map_kept(&d, NULL, &s);
}

static size_t moe_scratch(const cm_node *n, bool backward) {
    dims d = dims_of(n);
    work w;
    kept s;
    return map_work(n, &d, backward, NULL, &w, &s);
}

/* ---- routing ----------------------------------------------------------------------- */

/* The K largest of p[E], largest first, the lower index first among equals, with weights
 * that sum to 1. */
static void top_k(const cm_real *p, int64_t E, int64_t K, int32_t *expert,
                  cm_real *gate) {
    cm_real sum = 0;
    for (int64_t k = 0; k < K; k++) {
        int32_t best = -1;
        for (int32_t e = 0; e < E; e++) {
            bool taken = false;
            for (int64_t j = 0; j < k; j++) taken |= expert[j] == e;
            if (!taken && (best < 0 || p[e] > p[best])) best = e;
        }
        expert[k] = best;
        gate[k] = p[best];
        sum += p[best];
    }
    for (int64_t k = 0; k < K; k++) gate[k] /= sum;
}

/* Softmax, choice and statistics of one block of rows. */
static void route_block(const dims *d, const work *w, const kept *s, int64_t block) {
    int64_t from = block * BLOCK, to = from + BLOCK < d->R ? from + BLOCK : d->R;
    int64_t E = d->E;
    double *part = w->part + block * (E + 3);
    for (int64_t i = 0; i < E + 3; i++) part[i] = 0;
    for (int64_t r = from; r < to; r++) {
        const cm_real *z = w->z + r * E;
        cm_real *p = s->p + r * E, max = z[0], fade, ln;
        memcpy(p, z, sizeof *p * (size_t)E);
        cm_real sum = cm_k.softmax_part(E, p, &max, &fade);
        cm_k.vlog(1, &sum, &ln);
        cm_k.scale(E, 1 / sum, p);
        s->lse[r] = max + ln;
        top_k(p, E, d->K, s->expert + r * d->K, s->gate + r * d->K);
        double mean_z = 0;
        for (int64_t e = 0; e < E; e++) {
            part[e] += (double)p[e];
            mean_z += (double)p[e] * (double)z[e];
        }
        part[E] += (double)s->lse[r] * (double)s->lse[r];
        part[E + 1] += (double)s->lse[r] - mean_z;
        part[E + 2] += (double)p[s->expert[r * d->K]];
    }
}

/* Counting sort of the pairs by expert; within an expert, row order. */
static void sort_pairs(const dims *d, const kept *s) {
    int32_t *first = s->first;
    memset(first, 0, sizeof *first * (size_t)(d->E + 1));
    for (int64_t i = 0; i < d->RK; i++) first[s->expert[i] + 1]++;
    for (int64_t e = 0; e < d->E; e++) first[e + 1] += first[e];
    for (int64_t i = 0; i < d->RK; i++) s->at[i] = first[s->expert[i]]++;
    for (int64_t e = d->E; e > 0; e--) first[e] = first[e - 1];
    first[0] = 0;
}

static int64_t load_of(const kept *s, int64_t e) { return s->first[e + 1] - s->first[e]; }

/* The router losses and, unless this is a replay, the statistics.  All blocks' sums end
 * up in block 0. */
static cm_real router_losses(const cm_node *n, const dims *d, const work *w,
                             const kept *s) {
    const moe_attr *a = n->attr;
    int64_t E = d->E;
    double *sum = w->part, balance = 0, R = (double)(d->R ? d->R : 1);
    for (int64_t b = 1; b < n_blocks(d); b++)
        for (int64_t i = 0; i < E + 3; i++) sum[i] += w->part[b * (E + 3) + i];
    for (int64_t e = 0; e < E; e++) balance += (double)load_of(s, e) * sum[e];
    balance *= (double)E / (R * R * (double)d->K);
    double z = sum[E] / R;
    if (!n->tape->replay) {
        for (int64_t e = 0; a->load && e < E; e++) a->load[e] += load_of(s, e);
        if (a->stats) {
            a->stats->router_entropy += sum[E + 1];
            a->stats->top1 += sum[E + 2];
            a->stats->lb = balance;
            a->stats->z = z;
            a->stats->rows += d->R;
            if (a->stats->chosen)
                memcpy(a->stats->chosen, s->expert, (size_t)d->RK * sizeof *s->expert);
        }
    }
    return (cm_real)((double)a->lb * balance + (double)a->z * z);
}

/* ---- products over the sorted rows ------------------------------------------------- */

/* Both run one parallel region over (expert, block of rows), each block a product on one
 * thread: experts with few rows leave nobody idle. */

/* Sorted rows of n elements of d.type as an operand. */
static cm_mat rows_of(const dims *d, const void *x, int64_t n) {
    return (cm_mat){ x, n, false, d->type == CM_BF16_T };
}

/* c[stretch of e] = alpha a[stretch of e] op(w_e) + beta c, w_e matrix e of w; N, K are the
 * columns of c and a, and op(w_e) is [K,N]. */
static void add_by_expert(const dims *d, const kept *s, int64_t N, int64_t K, cm_real alpha,
                          cm_mat a, cm_mat w, cm_real beta, cm_real *c) {
#pragma omp parallel if (d->RK * N * K > SERIAL)
    for (int64_t e = 0; e < d->E; e++) {
#pragma omp for schedule(dynamic) nowait
        for (int64_t i = s->first[e]; i < s->first[e + 1]; i += ROWS) {
            int64_t rows = s->first[e + 1] - i < ROWS ? s->first[e + 1] - i : ROWS;
            cm_product1(d->how, rows, N, K, alpha, cm_mat_from(a, i * a.ld),
                        cm_mat_from(w, e * N * K), beta, c + i * N, N);
        }
    }
}

static void rows_by_expert(const dims *d, const kept *s, int64_t N, int64_t K, cm_mat a,
                           cm_mat w, cm_real *c) {
    add_by_expert(d, s, N, K, 1, a, w, 0, c);
}

/* c = a W^T with the node's matrices in[which]; room: what it asked for. */
static void experts_by_rows(const cm_node *n, const dims *d, const kept *s, int which,
                            cm_mat a, cm_real *c, void *room) {
    const cm_tensor *w = &n->in[which]->v;
    if (cm_as_held(n, w)) cm_qmat_mul(w, s->first, d->RK, a.at, 1, c, room);
    else
        rows_by_expert(d, s, w->dim[1], w->dim[2], a,
                       cm_operand(d->how, w, w->dim[2], true, room), c);
}

/* gw_e[M,N] += alpha a[stretch of e]^T b[stretch of e]; nothing where gw is NULL. */
static void weights_by_expert(const dims *d, const kept *s, int64_t M, int64_t N,
                              cm_real alpha, cm_mat a, cm_mat b, cm_real *gw) {
    if (!gw) return;
    a.t = true;
#pragma omp parallel for collapse(2) schedule(dynamic) if (d->RK * M * N > SERIAL)
    for (int64_t e = 0; e < d->E; e++)
        for (int64_t i = 0; i < M; i += ROWS)
            cm_product1(d->how, M - i < ROWS ? M - i : ROWS, N, load_of(s, e), alpha,
                        cm_mat_from(a, s->first[e] * a.ld + i),
                        cm_mat_from(b, s->first[e] * b.ld), 1, gw + (e * M + i) * N, N);
}

/* One matrix's adapter in use: y[O] = W x[I] + scale B A x. */
typedef struct pair {
    const cm_real *a, *b;
    cm_real *ga, *gb, scale;
    int64_t r, I, O;
} pair;

static pair pair_of(const cm_node *n, const dims *d, bool out) {
    const moe_attr *m = n->attr;
    const cm_var *a = n->in[out ? A_OUT : A_IN], *b = n->in[out ? B_OUT : B_IN];
    pair p = { .r = out ? d->r_out : d->r_in, .scale = out ? m->s_out : m->s_in,
               .I = out ? d->F : d->D, .O = out ? d->D : 2 * d->F };
    if (!a) return p;
    p.a = cm_rdata(&a->v), p.b = cm_rdata(&b->v);
    p.ga = a->g, p.gb = b->g;
    return p;
}

/* y += scale B A x */
static void pair_fwd(const dims *d, const work *w, const kept *s, const pair *p, cm_mat x,
                     cm_real *y) {
    if (!p->a) return;
    cm_mat u = cm_mat_of(w->u, p->r, false);
    rows_by_expert(d, s, p->r, p->I, x, cm_mat_of(p->a, p->I, true), w->u);
    add_by_expert(d, s, p->O, p->r, p->scale, u, cm_mat_of(p->b, p->r, true), 1, y);
}

/* gx += scale A^T B^T gy, leaving u = B^T gy. */
static void pair_rows_bwd(const dims *d, const work *w, const kept *s, const pair *p,
                          cm_mat gy, cm_real *gx) {
    if (!p->a) return;
    cm_mat u = cm_mat_of(w->u, p->r, false);
    rows_by_expert(d, s, p->r, p->O, gy, cm_mat_of(p->b, p->r, false), w->u);
    if (gx)
        add_by_expert(d, s, p->I, p->r, p->scale, u, cm_mat_of(p->a, p->I, false), 1, gx);
}

/* Gradients of A and B, with that u, from x (times what gy still lacks, the gate). */
static void pair_weights_bwd(const dims *d, const work *w, const kept *s, const pair *p,
                             cm_mat x, cm_mat gy) {
    if (!p->a) return;
    cm_mat u = cm_mat_of(w->u, p->r, false), v = cm_mat_of(w->v, p->r, false);
    weights_by_expert(d, s, p->r, p->I, p->scale, u, x, p->ga);
    rows_by_expert(d, s, p->r, p->I, x, cm_mat_of(p->a, p->I, true), w->v);
    weights_by_expert(d, s, p->O, p->r, p->scale, gy, v, p->gb);
}

/* ---- forward ----------------------------------------------------------------------- */

/* to[at of (r,k)] = from[r] for every pair, as d.type. */
static void gather(const dims *d, const kept *s, const cm_tensor *from, void *to) {
    size_t size = (size_t)cm_dtypes[d->type].bytes, row = (size_t)d->D * size;
#pragma omp parallel for schedule(static) if (d->RK * d->D > 16384)
    for (int64_t r = 0; r < d->R; r++) {
        const int32_t *at = s->at + r * d->K;
        const void *x = (const char *)from->data + (size_t)r * row;
        int64_t k = 0;
        if (from->dtype != d->type) {
            char *first = (char *)to + (size_t)at[k++] * row;
            cm_k.narrow(d->D, cm_rdata(from) + r * d->D, first);
            x = first;
        }
        for (; k < d->K; k++) memcpy((char *)to + (size_t)at[k] * row, x, row);
    }
}

/* [R*K,F] as a tensor, for cm_place and cm_put. */
static cm_tensor act_of(const dims *d, const work *w) {
    return (cm_tensor){ d->type, 2, { d->RK, d->F }, w->act };
}

/* Tell of the rows [RK,cols], in the order of experts, that in[which] meets. */
static void tell(const cm_node *n, const dims *d, const kept *s, int which, const cm_real *x,
                 int64_t cols) {
    CM_ASSERT(!cm_watching || d->type == CM_REAL_DTYPE, "somebody watches narrow rows");
    for (int64_t e = 0; cm_watching && e < d->E; e++)
        cm_watching->fn(cm_watching->ctx, n->in[which], e, x + s->first[e] * cols,
                        s->first[e + 1] - s->first[e], cols);
}

static void moe_fwd(cm_node *n, void *scratch) {
    dims d = dims_of(n);
    work w;
    kept s;
    map_work(n, &d, false, scratch, &w, &s);
    const cm_real *x = cm_rdata(&n->in[X]->v);
    pair in = pair_of(n, &d, false), out = pair_of(n, &d, true);
    cm_real *y = cm_rdata(&n->out[0]->v);
    int64_t D = d.D, F = d.F;
    if (cm_watching) cm_watching->fn(cm_watching->ctx, n->in[1], 0, x, d.R, D);
    cm_gemm(false, true, d.R, d.E, D, 1, x, D, cm_rdata(&n->in[1]->v), D, 0, w.z, d.E);
#pragma omp parallel for schedule(static) if (d.R > BLOCK)
    for (int64_t b = 0; b < n_blocks(&d); b++) route_block(&d, &w, &s, b);
    sort_pairs(&d, &s);
    *cm_rdata(&n->out[1]->v) = router_losses(n, &d, &w, &s);
    cm_mat rows = rows_of(&d, w.x, D), act = rows_of(&d, w.act, F);
    gather(&d, &s, &n->in[X]->v, w.x);
    tell(n, &d, &s, W_IN, w.x, D);
    experts_by_rows(n, &d, &s, W_IN, rows, s.h, w.wide[0]);
    pair_fwd(&d, &w, &s, &in, rows, s.h);
    cm_tensor acts = act_of(&d, &w);
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (d.RK * F > 4096)
    for (int64_t i = 0; i < d.RK; i++) {
        cm_real *row = cm_place(&acts, i * F, w.row + omp_get_thread_num() * F);
        cm_k.swiglu(F, s.h + 2 * i * F, s.h + (2 * i + 1) * F, row);
        cm_put(&acts, i * F, F, row);
    }
    tell(n, &d, &s, W_OUT, w.act, F);
    experts_by_rows(n, &d, &s, W_OUT, act, w.x, w.wide[1]);
    pair_fwd(&d, &w, &s, &out, act, w.x);
#pragma omp parallel for schedule(static) if (d.RK * D > 8192)
    for (int64_t r = 0; r < d.R; r++) {
        for (int64_t k = 0; k < d.K; k++) {
            const cm_real *from = w.x + s.at[r * d.K + k] * D;
            if (k) cm_k.add_scaled(D, s.gate[r * d.K + k], from, y + r * D);
            else cm_k.set_scaled(D, s.gate[r * d.K], from, y + r * D);
        }
    }
}

/* ---- backward ---------------------------------------------------------------------- */

/* Gradients inside the experts.  w->gact = gy W_out, unweighted, gives the gate's
 * gradient <gact, act>; h becomes its own gradient and act the weighted activation. */
static void expert_rows(const dims *d, const work *w, const kept *s) {
    int64_t F = d->F;
    cm_tensor acts = act_of(d, w);
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (d->RK * F > 4096)
    for (int64_t i = 0; i < d->RK; i++) {
        int64_t at = s->at[i];
        cm_real *a = s->h + 2 * at * F, *b = a + F, *g = w->gact + at * F;
        cm_real *act = cm_place(&acts, at * F, w->row + omp_get_thread_num() * F);
        cm_k.swiglu(F, a, b, act);
        w->ggate[i] = (cm_real)cm_k.dot(F, g, act);
        cm_k.scale(F, s->gate[i], act);
        cm_put(&acts, at * F, F, act);
        cm_k.scale(F, s->gate[i], g);
        cm_k.swiglu_back(F, a, b, g, a, b, false);
        if (d->type == CM_BF16_T) cm_k.narrow(2 * F, a, a);
    }
}

/* Gradient of the router's logits of row r: through the gates (softmax over the chosen),
 * the balance loss, the z loss.  ggate: [K] of this row. */
static void router_row(const cm_node *n, const dims *d, const kept *s, int64_t r,
                       const cm_real *ggate, cm_real gaux, cm_real *gz) {
    const moe_attr *a = n->attr;
    const cm_real *p = s->p + r * d->E, *gate = s->gate + r * d->K;
    cm_real per_row = gaux / (cm_real)d->R, mean = 0, dot = 0;
    cm_real share = per_row * a->lb * (cm_real)d->E / (cm_real)d->RK;
    for (int64_t e = 0; e < d->E; e++) mean += p[e] * (cm_real)load_of(s, e);
    for (int64_t e = 0; e < d->E; e++)
        gz[e] = p[e] * (share * ((cm_real)load_of(s, e) - mean) +
                        per_row * 2 * a->z * s->lse[r]);
    if (!ggate) return;
    for (int64_t k = 0; k < d->K; k++) dot += gate[k] * ggate[k];
    for (int64_t k = 0; k < d->K; k++)
        gz[s->expert[r * d->K + k]] += gate[k] * (ggate[k] - dot);
}

/* Everything that comes through y: weight gradients, then gx (set when fresh). */
static void experts_bwd(const cm_node *n, const dims *d, const work *w, const kept *s) {
    cm_mat wi = cm_operand(d->how, &n->in[W_IN]->v, d->D, false, w->wide[0]);
    cm_mat wo = cm_operand(d->how, &n->in[W_OUT]->v, d->F, false, w->wide[1]);
    cm_real *gx = n->in[X]->g;
    pair in = pair_of(n, d, false), out = pair_of(n, d, true);
    int64_t D = d->D, F = d->F;
    cm_tensor given = cm_grad_of(n->out[0]);
    cm_mat gy = rows_of(d, w->y, D), x = rows_of(d, w->x, D), act = rows_of(d, w->act, F);
    cm_mat gh = rows_of(d, s->h, 2 * F);
    gh.ld *= (int64_t)sizeof(cm_real) / cm_dtypes[d->type].bytes; /* they lie in h's rows */
    gather(d, s, &given, w->y);
    rows_by_expert(d, s, F, D, gy, wo, w->gact);
    pair_rows_bwd(d, w, s, &out, gy, w->gact);
    expert_rows(d, w, s);
    weights_by_expert(d, s, D, F, 1, gy, act, n->in[W_OUT]->g);
    pair_weights_bwd(d, w, s, &out, act, gy);
    if (n->in[W_IN]->g || in.a) gather(d, s, &n->in[X]->v, w->x);
    weights_by_expert(d, s, 2 * F, D, 1, gh, x, n->in[W_IN]->g);
    if (gx) rows_by_expert(d, s, D, 2 * F, gh, wi, w->y);
    pair_rows_bwd(d, w, s, &in, gh, gx ? w->y : NULL);
    pair_weights_bwd(d, w, s, &in, x, gh);
    if (!gx) return;
#pragma omp parallel for schedule(static) if (d->RK * D > 8192)
    for (int64_t r = 0; r < d->R; r++) {
        for (int64_t k = 0; k < d->K; k++) {
            const cm_real *g = w->y + s->at[r * d->K + k] * D;
            if (k || !n->fresh[0]) cm_k.add_scaled(D, 1, g, gx + r * D);
            else cm_k.set_scaled(D, 1, g, gx + r * D);
        }
    }
}

static void moe_bwd(cm_node *n, void *scratch) {
    dims d = dims_of(n);
    work w;
    kept s;
    map_work(n, &d, true, scratch, &w, &s);
    bool through_y = n->out[0]->g != NULL;
    cm_real gaux = n->out[1]->g ? *n->out[1]->g : 0;
    cm_real *gx = n->in[0]->g, *gr = n->in[1]->g;
    if (through_y) experts_bwd(n, &d, &w, &s);
#pragma omp parallel for schedule(static) if (d.R > BLOCK)
    for (int64_t r = 0; r < d.R; r++)
        router_row(n, &d, &s, r, through_y ? w.ggate + r * d.K : NULL, gaux,
                   w.z + r * d.E);
    if (gx)
        cm_gemm(false, false, d.R, d.D, d.E, 1, w.z, d.E, cm_rdata(&n->in[1]->v), d.D,
                n->fresh[0] && !through_y ? 0 : 1, gx, d.D);
    if (gr)
        cm_gemm(true, false, d.E, d.D, d.R, 1, w.z, d.E, cm_rdata(&n->in[0]->v), d.D, 1,
                gr, d.D);
}

static double moe_flops(const cm_node *n) {
    dims d = dims_of(n);
    double thin = (double)(d.r_in * (d.D + 2 * d.F) + d.r_out * (d.F + d.D));
    return 2.0 * (double)d.R * (double)d.D * ((double)d.E + 3.0 * (double)(d.K * d.F)) +
           2.0 * (double)d.RK * thin;
}

/* Rank 0: no adapter. */
static cm_moe_lora sample_lora(cm_sample *s, int64_t E, int64_t D, int64_t F, int64_t in,
                               int64_t out) {
    cm_moe_lora l = { .s_in = (cm_real)0.7, .s_out = (cm_real)1.5 };
    if (in) {
        l.a_in = cm_sample_in(s, "a_in", 3, (int64_t[]){ E, in, D }, -1, 1);
        l.b_in = cm_sample_in(s, "b_in", 3, (int64_t[]){ E, 2 * F, in }, -1, 1);
    }
    if (out) {
        l.a_out = cm_sample_in(s, "a_out", 3, (int64_t[]){ E, out, F }, -1, 1);
        l.b_out = cm_sample_in(s, "b_out", 3, (int64_t[]){ E, D, out }, -1, 1);
    }
    return l;
}

static bool moe_sample(cm_sample *s, int i) {
    static const struct { int R, D, E, F, K; double lb, z, lo; int in, out; } cases[] = {
        { 5, 4, 4, 3, 2, 0.0, 0.0, -1, 0, 0 }, { 7, 3, 6, 2, 3, 0.5, 0.25, -1, 0, 0 },
        { 4, 5, 3, 4, 1, 0.5, 0.25, -1, 0, 0 }, { 6, 4, 5, 3, 2, 0.3, 0.1, 0.2, 0, 0 },
        { 6, 4, 4, 3, 2, 0.3, 0.1, -1, 2, 2 }, { 5, 4, 3, 2, 2, 0.0, 0.0, -1, 3, 0 },
        { 5, 3, 4, 3, 1, 0.0, 0.0, -1, 0, 1 },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    int R = cases[i].R, D = cases[i].D, E = cases[i].E, F = cases[i].F;
    cm_var *x = cm_sample_in(s, "x", 2, (int64_t[]){ R, D }, cases[i].lo, 1);
    cm_var *r = cm_sample_in(s, "router", 2, (int64_t[]){ E, D }, -1, 1);
    cm_var *wi = cm_sample_in(s, "w_in", 3, (int64_t[]){ E, 2 * F, D }, -1, 1);
    cm_var *wo = cm_sample_in(s, "w_out", 3, (int64_t[]){ E, D, F }, -1, 1);
    cm_var *y, *aux;
    cm_moe_lora lora = sample_lora(s, E, D, F, cases[i].in, cases[i].out);
    cm_moe(cm_sample_tape(s), x, r, wi, wo, &lora, cases[i].K, (cm_real)cases[i].lb,
           (cm_real)cases[i].z, NULL, NULL, &y, &aux);
    cm_sample_out(s, y);
    if (cases[i].lb > 0) cm_sample_out(s, aux);
    return true;
}

const cm_op cm_op_moe = {
    .name = "moe",
    .shapes = "x[R,D] router[E,D] w_in[E,2F,D] w_out[E,D,F] a_in[E,r,D]? b_in[E,2F,r]? "
              "a_out[E,q,F]? b_out[E,D,q]? -> y[R,D] aux[1]",
    .n_in = N_IN, .n_out = 2, .attr_bytes = sizeof(moe_attr), .sets = 1, .infer = moe_infer,
    .saved = moe_saved, .scratch = moe_scratch, .fwd = moe_fwd, .bwd = moe_bwd,
    .mixed = true,
    .takes = 1 << W_IN | 1 << W_OUT, .takes_g = 1, .flops = moe_flops, .sample = moe_sample,
};

void cm_moe(cm_tape *t, cm_var *x, cm_var *router, cm_var *w_in, cm_var *w_out,
            const cm_moe_lora *lora, int K, cm_real lb_coef, cm_real z_coef, int64_t *load,
            cm_moe_stats *stats, cm_var **y, cm_var **aux) {
    cm_moe_lora l = lora ? *lora : (cm_moe_lora){ 0 };
    moe_attr a = { K, lb_coef, z_coef, l.s_in, l.s_out, load, stats };
    cm_var *in[N_IN] = { x, router, w_in, w_out, l.a_in, l.b_in, l.a_out, l.b_out };
    cm_var *out[2];
    cm_tape_apply(t, &cm_op_moe, in, N_IN, &a, out);
    *y = out[0];
    *aux = out[1];
}
