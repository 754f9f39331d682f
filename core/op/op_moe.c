/* op_moe.c -- dropless top-k mixture of SwiGLU experts.
 *
 * Every row goes to K experts, whatever the load: the R*K (row, slot) pairs are sorted by
 * expert, counting, in row order; rows are gathered in that order, each expert is a gemm
 * over its stretch, and results are mixed back slot by slot.  Buffers hold R*K rows,
 * never a number that depends on the routing, so the memory plan is exact.
 * Formulas, the renormalised gate's gradient and both router losses: docs/math/moe.md */
#include "op/op.h"

#include <string.h>

enum {
    BLOCK = 256, /* rows that share one partial sum of the router statistics */
    ROWS = 256,  /* rows of a product that one thread does */
    SERIAL = 1 << 19 /* multiplications of all experts that one thread does */
};

typedef struct moe_attr {
    int K;
    cm_real lb, z;
    int64_t *load;
    cm_moe_stats *stats;
} moe_attr;

typedef struct dims {
    int64_t R, D, E, F, K, RK;
} dims;

/* Kept for the backward. */
typedef struct kept {
    cm_real *p;       /* [R,E] softmax of the router */
    cm_real *lse;     /* [R] */
    cm_real *gate;    /* [R,K] renormalised weights, largest first */
    cm_real *h;       /* [R*K,2F] gate and up projections, sorted; the backward turns
                         them into their gradients in place */
    int32_t *expert;  /* [R,K] */
    int32_t *at;      /* [R,K] place of the pair in sorted order */
    int32_t *first;   /* [E+1] where each expert's stretch begins */
} kept;

typedef struct work {
    cm_real *x;    /* [R*K,D] gathered rows; forward: then the experts' outputs */
    cm_real *y;    /* [R*K,D] backward: gathered gy, then gradients of x */
    cm_real *act;  /* [R*K,F] */
    cm_real *gact; /* [R*K,F] backward */
    cm_real *z;    /* [R,E] router logits, backward their gradients */
    cm_real *ggate; /* [R,K] backward */
    double *part;  /* [blocks,E+3] sums of p, then of lse^2, entropy, top p */
} work;

static dims dims_of(const cm_node *n) {
    dims d = { n->in[0]->v.dim[0], n->in[0]->v.dim[1], n->in[1]->v.dim[0],
               n->in[3]->v.dim[2], ((const moe_attr *)n->attr)->K, 0 };
    d.RK = d.R * d.K;
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
    w->act = cm_cut_reals(&c, d->RK * d->F);
    w->z = cm_cut_reals(&c, d->R * d->E);
    w->y = backward ? cm_cut_reals(&c, d->RK * d->D) : NULL;
    w->gact = backward ? cm_cut_reals(&c, d->RK * d->F) : NULL;
    w->ggate = backward ? cm_cut_reals(&c, d->RK) : NULL;
    w->part = cm_cut_take(&c, sizeof(double) * (size_t)(n_blocks(d) * (d->E + 3)));
    if (n->grad) map_kept(d, n->saved, s);
    else map_kept(d, cm_cut_take(&c, map_kept(d, NULL, &spare)), s);
    return c.used;
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
        }
    }
    return (cm_real)((double)a->lb * balance + (double)a->z * z);
}

/* ---- products over the sorted rows ------------------------------------------------- */

/* Both run one parallel region over (expert, block of rows), each block a product on one
 * thread: experts with few rows leave nobody idle. */

/* c[stretch of e] = a[stretch of e] op(w_e), w_e matrix e of w; N, K are the columns of c
 * and a, and op(w_e) is [K,N]. */
static void rows_by_expert(const dims *d, const kept *s, bool transposed, int64_t N,
                           int64_t K, const cm_real *a, const cm_real *w, cm_real *c) {
    int64_t ldw = transposed ? K : N;
#pragma omp parallel if (d->RK * N * K > SERIAL)
    for (int64_t e = 0; e < d->E; e++) {
#pragma omp for schedule(dynamic) nowait
        for (int64_t i = s->first[e]; i < s->first[e + 1]; i += ROWS) {
            int64_t rows = s->first[e + 1] - i < ROWS ? s->first[e + 1] - i : ROWS;
            cm_gemm1(false, transposed, rows, N, K, 1, a + i * K, K, w + e * N * K, ldw, 0,
                     c + i * N, N);
        }
    }
}

/* gw_e[M,N] += a[stretch of e]^T b[stretch of e]. */
static void weights_by_expert(const dims *d, const kept *s, int64_t M, int64_t N,
                              const cm_real *a, const cm_real *b, cm_real *gw) {
#pragma omp parallel for collapse(2) schedule(dynamic) if (d->RK * M * N > SERIAL)
    for (int64_t e = 0; e < d->E; e++)
        for (int64_t i = 0; i < M; i += ROWS)
            cm_gemm1(true, false, M - i < ROWS ? M - i : ROWS, N, load_of(s, e), 1,
                     a + s->first[e] * M + i, M, b + s->first[e] * N, N, 1,
                     gw + (e * M + i) * N, N);
}

/* ---- forward ----------------------------------------------------------------------- */

/* to[at of (r,k)] = from[r] for every pair. */
static void gather(const dims *d, const kept *s, const cm_real *from, cm_real *to) {
#pragma omp parallel for schedule(static) if (d->RK * d->D > 16384)
    for (int64_t r = 0; r < d->R; r++)
        for (int64_t k = 0; k < d->K; k++)
            memcpy(to + s->at[r * d->K + k] * d->D, from + r * d->D,
                   sizeof *to * (size_t)d->D);
}

static void moe_fwd(cm_node *n, void *scratch) {
    dims d = dims_of(n);
    work w;
    kept s;
    map_work(n, &d, false, scratch, &w, &s);
    const cm_real *x = cm_rdata(&n->in[0]->v), *wi = cm_rdata(&n->in[2]->v);
    const cm_real *wo = cm_rdata(&n->in[3]->v);
    cm_real *y = cm_rdata(&n->out[0]->v);
    int64_t D = d.D, F = d.F;
    cm_gemm(false, true, d.R, d.E, D, 1, x, D, cm_rdata(&n->in[1]->v), D, 0, w.z, d.E);
#pragma omp parallel for schedule(static) if (d.R > BLOCK)
    for (int64_t b = 0; b < n_blocks(&d); b++) route_block(&d, &w, &s, b);
    sort_pairs(&d, &s);
    *cm_rdata(&n->out[1]->v) = router_losses(n, &d, &w, &s);
    gather(&d, &s, x, w.x);
    rows_by_expert(&d, &s, true, 2 * F, D, w.x, wi, s.h);
#pragma omp parallel for schedule(static) if (d.RK * F > 4096)
    for (int64_t i = 0; i < d.RK; i++)
        cm_k.swiglu(F, s.h + 2 * i * F, s.h + (2 * i + 1) * F, w.act + i * F);
    rows_by_expert(&d, &s, true, D, F, w.act, wo, w.x);
#pragma omp parallel for schedule(static) if (d.RK * D > 8192)
    for (int64_t r = 0; r < d.R; r++) {
        for (int64_t k = 0; k < d.K; k++) {
            const cm_real *out = w.x + s.at[r * d.K + k] * D;
            if (k) cm_k.add_scaled(D, s.gate[r * d.K + k], out, y + r * D);
            else cm_k.set_scaled(D, s.gate[r * d.K], out, y + r * D);
        }
    }
}

/* ---- backward ---------------------------------------------------------------------- */

/* Gradients inside the experts.  w->gact = gy W_out, unweighted, gives the gate's
 * gradient <gact, act>; h becomes its own gradient and act the weighted activation. */
static void expert_rows(const dims *d, const work *w, const kept *s) {
    int64_t F = d->F;
#pragma omp parallel for schedule(static) if (d->RK * F > 4096)
    for (int64_t i = 0; i < d->RK; i++) {
        int64_t at = s->at[i];
        cm_real *a = s->h + 2 * at * F, *b = a + F, *act = w->act + at * F;
        cm_real *g = w->gact + at * F;
        cm_k.swiglu(F, a, b, act);
        w->ggate[i] = (cm_real)cm_k.dot(F, g, act);
        cm_k.scale(F, s->gate[i], act);
        cm_k.scale(F, s->gate[i], g);
        cm_k.swiglu_back(F, a, b, g, a, b, false);
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
    const cm_real *wi = cm_rdata(&n->in[2]->v), *wo = cm_rdata(&n->in[3]->v);
    cm_real *gx = n->in[0]->g, *gwi = n->in[2]->g, *gwo = n->in[3]->g;
    int64_t D = d->D, F = d->F;
    gather(d, s, n->out[0]->g, w->y);
    rows_by_expert(d, s, false, F, D, w->y, wo, w->gact);
    expert_rows(d, w, s);
    if (gwo) weights_by_expert(d, s, D, F, w->y, w->act, gwo);
    if (gwi) {
        gather(d, s, cm_rdata(&n->in[0]->v), w->x);
        weights_by_expert(d, s, 2 * F, D, s->h, w->x, gwi);
    }
    if (!gx) return;
    rows_by_expert(d, s, false, D, 2 * F, s->h, wi, w->y);
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
    return 2.0 * (double)d.R * (double)d.D * ((double)d.E + 3.0 * (double)(d.K * d.F));
}

static bool moe_sample(cm_sample *s, int i) {
    static const struct { int R, D, E, F, K; double lb, z, lo; } cases[] = {
        { 5, 4, 4, 3, 2, 0.0, 0.0, -1 }, { 7, 3, 6, 2, 3, 0.5, 0.25, -1 },
        { 4, 5, 3, 4, 1, 0.5, 0.25, -1 }, { 6, 4, 5, 3, 2, 0.3, 0.1, 0.2 },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    int R = cases[i].R, D = cases[i].D, E = cases[i].E, F = cases[i].F;
    cm_var *x = cm_sample_in(s, "x", 2, (int64_t[]){ R, D }, cases[i].lo, 1);
    cm_var *r = cm_sample_in(s, "router", 2, (int64_t[]){ E, D }, -1, 1);
    cm_var *wi = cm_sample_in(s, "w_in", 3, (int64_t[]){ E, 2 * F, D }, -1, 1);
    cm_var *wo = cm_sample_in(s, "w_out", 3, (int64_t[]){ E, D, F }, -1, 1);
    cm_var *y, *aux;
    cm_moe(cm_sample_tape(s), x, r, wi, wo, cases[i].K, (cm_real)cases[i].lb,
           (cm_real)cases[i].z, NULL, NULL, &y, &aux);
    cm_sample_out(s, y);
    if (cases[i].lb > 0) cm_sample_out(s, aux);
    return true;
}

const cm_op cm_op_moe = {
    .name = "moe",
    .shapes = "x[R,D] router[E,D] w_in[E,2F,D] w_out[E,D,F] -> y[R,D] aux[1]",
    .n_in = 4, .n_out = 2, .attr_bytes = sizeof(moe_attr), .sets = 1, .infer = moe_infer,
    .saved = moe_saved, .scratch = moe_scratch, .fwd = moe_fwd, .bwd = moe_bwd,
    .flops = moe_flops, .sample = moe_sample,
};

void cm_moe(cm_tape *t, cm_var *x, cm_var *router, cm_var *w_in, cm_var *w_out, int K,
            cm_real lb_coef, cm_real z_coef, int64_t *load, cm_moe_stats *stats,
            cm_var **y, cm_var **aux) {
    moe_attr a = { K, lb_coef, z_coef, load, stats };
    cm_var *out[2];
    cm_tape_apply(t, &cm_op_moe, (cm_var *[]){ x, router, w_in, w_out }, 4, &a, out);
    *y = out[0];
    *aux = out[1];
}
