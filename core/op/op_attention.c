/* op_attention.c -- causal attention with grouped KV heads, tile by tile.
 *
 * Documents are cut into blocks of rows, counted from where the document starts, so a
 * document's arithmetic, and every bit of it, is the same wherever it is packed, and
 * no tile ever mixes two documents.  Forward: one task for a block of queries and a KV
 * head runs over the key tiles with a running maximum and sum.  Backward: one task for a
 * span of keys and a head owns the sums of those keys; the sums of a block of queries
 * pass from span to span in order, and query heads that share keys are added in order
 * afterwards.  Heads are stored apart, [B,H,T,P], while the op works, and q carries the
 * softmax scale.  Formulas: docs/math/attention.md */
#include "op/attn.h"

#include <omp.h>
#include <sched.h>
#include <string.h>

/* SPAN: keys of a task of the backward. */
enum { KEYS = CM_ATTN_KEYS, QUERIES = CM_ATTN_QUERIES, SPAN = QUERIES };

typedef struct attention_attr {
    cm_seq seq;
    int H, G;
    cm_real scale;
    const double *inv; /* [P/2] or NULL */
    double mscale;
} attention_attr;

typedef struct dims {
    int64_t B, T, R, P;
    int H, G;
} dims;

/* Kept for the backward. */
typedef struct kept {
    cm_real *q;   /* [B,H,T,P] rotated, scaled */
    cm_real *k;   /* [B,G,T,P] rotated */
    cm_real *lse; /* [B,H,T] */
} kept;

typedef struct back {
    cm_real *gy, *gq, *gk, *gv; /* [B,H,T,P] each; gk, gv one for every query head */
    cm_real *delta;             /* [B,H,T]  <gy, y> */
    cm_span *span;              /* [R] keys of the tasks */
    int *passed;                /* [B,H,T] at a block's first query: how many tasks have
                                   added to its gq */
    cm_real *own;               /* per thread */
} back;

static dims dims_of(const cm_node *n) {
    const attention_attr *a = n->attr;
    dims d = { .B = a->seq.B, .T = a->seq.T, .H = a->H, .G = a->G };
    d.R = d.B * d.T;
    d.P = n->in[0]->v.dim[1] / a->H;
    return d;
}

static size_t map_kept(const dims *d, void *base, kept *s) {
    cm_cut c = { base, 0 };
    s->q = cm_cut_reals(&c, d->R * d->H * d->P);
    s->k = cm_cut_reals(&c, d->R * d->G * d->P);
    s->lse = cm_cut_reals(&c, d->R * d->H);
    return c.used;
}

/* Reals of one thread in the backward: tiles of K^T and V^T and two of scores. */
static int64_t back_own(const dims *d) {
    return 2 * SPAN * d->P + 2 * QUERIES * KEYS + 2 * d->P;
}

static size_t map_back(const dims *d, void *base, back *s) {
    cm_cut c = { base, 0 };
    int64_t n = d->R * d->H * d->P;
    s->gy = cm_cut_reals(&c, n);
    s->gq = cm_cut_reals(&c, n);
    s->gk = cm_cut_reals(&c, n);
    s->gv = cm_cut_reals(&c, n);
    s->delta = cm_cut_reals(&c, d->R * d->H);
    s->span = cm_cut_take(&c, sizeof *s->span * (size_t)d->R);
    s->passed = cm_cut_take(&c, sizeof *s->passed * (size_t)(d->R * d->H));
    s->own = cm_cut_reals(&c, back_own(d) * cm_kern_threads());
    return c.used;
}

/* Forward scratch: the kept buffers when nobody keeps them, blocks, thread buffers. */
static size_t map_fwd(const cm_node *n, const dims *d, void *base, kept *s, cm_span **blk,
                      cm_real **own) {
    cm_cut c = { base, 0 };
    kept spare;
    size_t bytes = map_kept(d, NULL, &spare);
    if (n->grad) map_kept(d, n->saved, s);
    else map_kept(d, cm_cut_take(&c, bytes), s);
    *blk = cm_cut_take(&c, sizeof **blk * (size_t)d->R);
    *own = cm_cut_reals(&c, cm_attn_own(d->H / d->G, d->P) * cm_kern_threads());
    return c.used;
}

static bool attention_infer(cm_node *n, const char **why) {
    const attention_attr *a = n->attr;
    const cm_tensor *q = &n->in[0]->v, *k = &n->in[1]->v, *v = &n->in[2]->v;
    int64_t P = a->H > 0 ? q->dim[1] / a->H : 0, R = (int64_t)a->seq.B * a->seq.T;
    *why = "q must be [R,H*P], k and v [R,G*P], H a multiple of G, R = B*T";
    if (a->H < 1 || a->G < 1 || a->H % a->G) return false;
    if (q->nd != 2 || k->nd != 2 || q->dim[0] != R || k->dim[0] != R) return false;
    if (q->dim[1] != a->H * P || k->dim[1] != a->G * P || !cm_tensor_same_shape(k, v))
        return false;
    *why = "RoPE needs an even head width";
    if (a->inv && P % 2) return false;
    n->out[0]->v = *q;
    return true;
}

static size_t attention_saved(const cm_node *n) {
    dims d = dims_of(n);
    kept s;
    return map_kept(&d, NULL, &s);
}

static size_t attention_scratch(const cm_node *n, bool backward) {
    dims d = dims_of(n);
    kept s;
    back b;
    cm_span *blk;
    cm_real *own;
    return backward ? map_back(&d, NULL, &b) : map_fwd(n, &d, NULL, &s, &blk, &own);
}

/* ---- rotation, and heads apart ----------------------------------------------------- */

/* Copy q and k to [B,H,T,P], rotated, q scaled.  tab: 2P reals for each thread. */
static void split_heads(const cm_node *n, const dims *d, const kept *s, cm_real *tab,
                        int64_t stride) {
    const attention_attr *a = n->attr;
    const cm_real *q = cm_rdata(&n->in[0]->v), *k = cm_rdata(&n->in[1]->v);
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads())
    for (int64_t t = 0; t < d->T; t++) {
        cm_attn_rot rot = { a->inv, a->mscale, d->P, tab + omp_get_thread_num() * stride,
                            -1 };
        for (int64_t b = 0; b < d->B; b++) {
            int64_t r = b * d->T + t;
            cm_attn_rot_at(&rot, cm_attn_pos(&a->seq, r));
            for (int64_t h = 0; h < d->H; h++)
                cm_attn_rotate(&rot, q + (r * d->H + h) * d->P, a->scale, 1, false,
                               s->q + ((b * d->H + h) * d->T + t) * d->P);
            for (int64_t g = 0; g < d->G; g++)
                cm_attn_rotate(&rot, k + (r * d->G + g) * d->P, 1, 1, false,
                               s->k + ((b * d->G + g) * d->T + t) * d->P);
        }
    }
}

/* ---- forward ----------------------------------------------------------------------- */

static void attention_fwd(cm_node *n, void *scratch) {
    const attention_attr *a = n->attr;
    dims d = dims_of(n);
    kept s;
    cm_span *blk;
    cm_real *own;
    map_fwd(n, &d, scratch, &s, &blk, &own);
    int64_t HG = d.H / d.G, stride = cm_attn_own(HG, d.P), HP = d.H * d.P;
    split_heads(n, &d, &s, own, stride);
    const cm_real *v = cm_rdata(&n->in[2]->v);
    cm_real *y = cm_rdata(&n->out[0]->v);
    int64_t tasks = cm_attn_cut(&a->seq, QUERIES, blk) * d.G;
    /* Last blocks first: they are the longest. */
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads())
    for (int64_t i = tasks - 1; i >= 0; i--) {
        const cm_span *w = &blk[i / d.G];
        int64_t g = i % d.G, b = w->doc / d.T, t0 = w->doc % d.T, at = w->from % d.T;
        cm_attn_tile task = {
            .heads = HG, .P = d.P, .q0 = w->from - w->doc, .nq = w->to - w->from,
            .q = s.q + ((b * d.H + g * HG) * d.T + at) * d.P, .q_head = d.T * d.P,
            .q_row = d.P,
            .k = s.k + ((b * d.G + g) * d.T + t0) * d.P, .k_row = d.P,
            .v = v + (w->doc * d.G + g) * d.P, .v_row = d.G * d.P,
            .y = y + w->from * HP + g * HG * d.P, .y_head = d.P, .y_row = HP,
            .lse = s.lse + (b * d.H + g * HG) * d.T + at, .lse_head = d.T,
        };
        cm_attn_forward(&task, own + omp_get_thread_num() * stride);
    }
}

/* ---- backward ---------------------------------------------------------------------- */

/* gy to [B,H,T,P] and delta = <gy, y>. */
static void split_gy(const cm_node *n, const dims *d, const back *s) {
    const cm_real *gy = n->out[0]->g, *y = cm_rdata(&n->out[0]->v);
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads())
    for (int64_t r = 0; r < d->R; r++) {
        for (int64_t h = 0; h < d->H; h++) {
            int64_t from = (r * d->H + h) * d->P;
            int64_t to = (r / d->T * d->H + h) * d->T + r % d->T;
            cm_k.set_scaled(d->P, 1, gy + from, s->gy + to * d->P);
            s->delta[to] = (cm_real)cm_k.dot(d->P, gy + from, y + from);
        }
    }
}

/* Scores and their gradients of one strip: s = exp(q k - lse), ds = s (gy v - delta),
 * both zero above the diagonal. */
static void back_scores(const cm_strip *w, int64_t ahead, const cm_real *lse,
                        const cm_real *delta, cm_real *s, cm_real *ds) {
    for (int64_t i = w->at; i < w->at + w->n; i++, s += KEYS, ds += KEYS) {
        int64_t live = i + ahead + 1 < w->seen ? i + ahead + 1 : w->seen;
        cm_k.attn_back(live, lse[i], delta[i], s, ds);
        for (int64_t j = live; j < w->seen; j++) s[j] = ds[j] = 0;
    }
}

/* Keys [from,to) of a document and one head, against all queries of the document from
 * there.  Pointers name the document's first row of [T,P] planes. */
typedef struct back_task {
    int64_t len, P, from, to;
    const cm_real *q, *k, *gy, *lse, *delta, *v;
    int64_t v_row;
    cm_real *gq, *gk, *gv;
    int *passed;
} back_task;

/* One strip of the queries from row i on against the tile at key j: five products.
 * kt, vt: the tile transposed, [P,KEYS]. */
static void back_strip(const back_task *t, const cm_strip *w, int64_t i, int64_t j,
                       const cm_real *kt, const cm_real *vt, cm_real *s, cm_real *ds) {
    int64_t P = t->P, n = w->n, seen = w->seen, at = (i + w->at) * P;
    const cm_real *q = t->q + at, *gy = t->gy + at;
    cm_gemm1(false, false, n, seen, P, 1, q, P, kt, KEYS, 0, s, KEYS);
    cm_gemm1(false, false, n, seen, P, 1, gy, P, vt, KEYS, 0, ds, KEYS);
    back_scores(w, i - j, t->lse + i, t->delta + i, s, ds);
    cm_gemm1(true, false, seen, P, n, 1, s, KEYS, gy, P, 1, t->gv + j * P, P);
    cm_gemm1(true, false, seen, P, n, 1, ds, KEYS, q, P, 1, t->gk + j * P, P);
    cm_gemm1(false, false, n, P, seen, 1, ds, KEYS, t->k + j * P, P, j > 0, t->gq + at, P);
}

/* Wait until the tasks before this one have added to the queries' gq. */
static void await_turn(const int *passed, int64_t turn) {
    enum { SPINS = 64 };
    for (int n = 0; __atomic_load_n(passed, __ATOMIC_ACQUIRE) != turn; n++)
        if (n >= SPINS) sched_yield();
}

/* All strips of the queries from row i on against each tile of the task. */
static void back_block(const back_task *t, int64_t i, const cm_real *tiles, cm_real *s,
                       cm_real *ds) {
    int64_t P = t->P, nq = t->len - i < QUERIES ? t->len - i : QUERIES;
    for (int64_t j = t->from; j < t->to; j += KEYS, tiles += 2 * KEYS * P) {
        int64_t nk = t->to - j < KEYS ? t->to - j : KEYS;
        for (cm_strip w = { .n = -1 }; cm_attn_strip(&w, nq, nk, i - j);)
            back_strip(t, &w, i, j, tiles, tiles + KEYS * P, s, ds);
    }
}

/* The last block of queries first: a task then follows the one before it at a distance of
 * one block, and all tasks of a document end together however many threads there are. */
static void back_run(const back_task *t, cm_real *own) {
    int64_t P = t->P, from = t->from, turn = from / SPAN;
    cm_real *s = own + 2 * SPAN * P, *ds = s + QUERIES * KEYS;
    memset(t->gk + from * P, 0, sizeof *own * (size_t)((t->to - from) * P));
    memset(t->gv + from * P, 0, sizeof *own * (size_t)((t->to - from) * P));
    for (int64_t j = from; j < t->to; j += KEYS) {
        int64_t nk = t->to - j < KEYS ? t->to - j : KEYS;
        cm_real *kt = own + 2 * (j - from) * P;
        cm_k.transpose(nk, P, t->k + j * P, P, kt, KEYS);
        cm_k.transpose(nk, P, t->v + j * t->v_row, t->v_row, kt + KEYS * P, KEYS);
    }
    for (int64_t i = (t->len - 1) / QUERIES * QUERIES; i + QUERIES > from; i -= QUERIES) {
        await_turn(t->passed + i, turn);
        back_block(t, i, own, s, ds);
        __atomic_store_n(t->passed + i, (int)turn + 1, __ATOMIC_RELEASE);
    }
}

/* Turn the gradients back and put them where they belong, heads of a group in order. */
static void join_heads(const cm_node *n, const dims *d, const back *s, int64_t stride) {
    const attention_attr *a = n->attr;
    cm_real *gq = n->in[0]->g, *gk = n->in[1]->g, *gv = n->in[2]->g;
    int64_t HG = d->H / d->G, P = d->P;
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads())
    for (int64_t t = 0; t < d->T; t++) {
        cm_attn_rot rot = { a->inv, a->mscale, P, s->own + omp_get_thread_num() * stride,
                            -1 };
        for (int64_t b = 0; b < d->B; b++) {
            int64_t r = b * d->T + t;
            cm_attn_rot_at(&rot, cm_attn_pos(&a->seq, r));
            for (int64_t h = 0; h < d->H; h++) {
                int64_t from = ((b * d->H + h) * d->T + t) * P;
                int64_t to = (r * d->G + h / HG) * P;
                bool more = h % HG > 0;
                if (gq)
                    cm_attn_rotate(&rot, s->gq + from, a->scale, -1, !n->fresh[0],
                                   gq + (r * d->H + h) * P);
                if (gk)
                    cm_attn_rotate(&rot, s->gk + from, 1, -1, more || !n->fresh[1],
                                   gk + to);
                if (!gv) continue;
                if (more || !n->fresh[2]) cm_k.add_scaled(P, 1, s->gv + from, gv + to);
                else cm_k.set_scaled(P, 1, s->gv + from, gv + to);
            }
        }
    }
}

/* Task i.  Heads of the same keys are neighbours, since they need not wait for each
 * other. */
static back_task back_task_of(const cm_node *n, const dims *d, const kept *s,
                              const back *w, int64_t i) {
    const cm_span *span = &w->span[i / d->H];
    int64_t h = i % d->H, g = h / (d->H / d->G), P = d->P, doc = span->doc;
    int64_t b = doc / d->T, t = doc % d->T, row = (b * d->H + h) * d->T + t;
    int64_t at = row * P;
    return (back_task){
        .len = span->end - doc, .P = P, .from = span->from - doc, .to = span->to - doc,
        .q = s->q + at, .k = s->k + ((b * d->G + g) * d->T + t) * P, .gy = w->gy + at,
        .lse = s->lse + row, .delta = w->delta + row,
        .v = cm_rdata(&n->in[2]->v) + (doc * d->G + g) * P, .v_row = d->G * P,
        .gq = w->gq + at, .gk = w->gk + at, .gv = w->gv + at, .passed = w->passed + row,
    };
}

static void attention_bwd(cm_node *n, void *scratch) {
    const attention_attr *a = n->attr;
    dims d = dims_of(n);
    kept s;
    back w;
    map_kept(&d, n->saved, &s);
    map_back(&d, scratch, &w);
    int64_t stride = back_own(&d);
    split_gy(n, &d, &w);
    memset(w.passed, 0, sizeof *w.passed * (size_t)(d.R * d.H));
    int64_t tasks = cm_attn_cut(&a->seq, SPAN, w.span) * d.H, next = 0;
    /* Tasks are taken strictly in order, so the earliest one running never waits. */
#pragma omp parallel num_threads(cm_kern_threads())
    for (int64_t i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < tasks;) {
        back_task task = back_task_of(n, &d, &s, &w, i);
        back_run(&task, w.own + omp_get_thread_num() * stride);
    }
    join_heads(n, &d, &w, stride);
}

/* Causal half of the two products, documents not counted. */
static double attention_flops(const cm_node *n) {
    dims d = dims_of(n);
    return 2.0 * (double)d.R * (double)(d.T + 1) * (double)(d.H * d.P);
}

static bool attention_sample(cm_sample *s, int i) {
    static const struct { int B, T, H, G, P, docs; int rope; } cases[] = {
        { 1, 5, 1, 1, 3, 1, CM_ROPE_NONE },   { 2, 7, 4, 2, 4, 3, CM_ROPE_PLAIN },
        { 1, 9, 3, 1, 6, 2, CM_ROPE_LINEAR }, { 1, 6, 2, 2, 8, 1, CM_ROPE_YARN },
        { 1, 67, 1, 1, 2, 1, CM_ROPE_PLAIN }, { 1, 1, 1, 1, 2, 1, CM_ROPE_PLAIN },
        { 1, 131, 1, 1, 2, 1, CM_ROPE_NONE },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    int B = cases[i].B, T = cases[i].T, H = cases[i].H, G = cases[i].G, P = cases[i].P;
    cm_rope_conf rc = { .kind = cases[i].rope, .P = P, .base = 100, .factor = 4,
                        .orig_ctx = 64, .beta_fast = 32, .beta_slow = 1 };
    double *inv = NULL, mscale = 1;
    if (rc.kind != CM_ROPE_NONE) {
        inv = cm_sample_mem(s, sizeof *inv * (size_t)(P / 2 + 1));
        cm_rope_freqs(&rc, inv, &mscale);
    }
    cm_seq seq = { .B = B, .T = T };
    cm_sample_seq(s, &seq, B, T, cases[i].docs);
    cm_var *q = cm_sample_in(s, "q", 2, (int64_t[]){ B * T, H * P }, -1, 1);
    cm_var *k = cm_sample_in(s, "k", 2, (int64_t[]){ B * T, G * P }, -1, 1);
    cm_var *v = cm_sample_in(s, "v", 2, (int64_t[]){ B * T, G * P }, -1, 1);
    cm_sample_out(s, cm_attention(cm_sample_tape(s), q, k, v, &seq, H, G, (cm_real)0.7,
                                  inv, mscale));
    return true;
}

const cm_op cm_op_attention = {
    .name = "attention", .shapes = "q[R,H*P] k[R,G*P] v[R,G*P] -> y[R,H*P]", .n_in = 3,
    .n_out = 1, .attr_bytes = sizeof(attention_attr), .sets = 7,
    .infer = attention_infer, .saved = attention_saved, .scratch = attention_scratch,
    .fwd = attention_fwd, .bwd = attention_bwd, .flops = attention_flops,
    .sample = attention_sample,
};

cm_var *cm_attention(cm_tape *t, cm_var *q, cm_var *k, cm_var *v, const cm_seq *seq,
                     int H, int G, cm_real scale, const double *inv, double mscale) {
    attention_attr a = { *seq, H, G, scale, inv, mscale };
    cm_var *y;
    cm_tape_apply(t, &cm_op_attention, (cm_var *[]){ q, k, v }, 3, &a, &y);
    return y;
}
