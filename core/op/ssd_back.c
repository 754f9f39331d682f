/* ssd_back.c -- backward of the scan: the chain rule of docs/math/ssd.md, chunk by chunk.
 *
 * States are computed again, transposed to [P,N], since that is how the products of the
 * backward read them.  With rows enough for all threads a task then takes a group through
 * its row backwards in time and carries the state gradients along; else these run through
 * each row first, and after that every (chunk, group) stands alone.  Either adds the
 * gradients of B and C over the heads of a group in order: the same bits. */
#include "op/narrow.h"
#include "op/ssd.h"

#include <omp.h>
#include <string.h>

typedef struct {
    cm_ssd_run r;
    cm_mat gy;         /* of y, maybe BF16; zeros in rows of no length where none arrives */
    cm_real *gx;       /* NULL: not wanted */
    cm_tensor gdt;     /* data NULL: not wanted */
    bool fresh;        /* gx is to be overwritten */
    const cm_real *gs1;
    cm_real *gs0;
} back;

/* One chunk's working memory, all from the thread's buffer. */
typedef struct {
    cm_real *cb, *dcb, *e, *m, *mw;  /* [q,ld], row j is the earlier token; mw: words */
    cm_real *dB, *dC;                /* [q,N], sums over the heads so far */
    cm_real *B, *C;                  /* [q,N] copies of the inputs */
    cm_real *bw, *cw;                /* their words, for products of the group */
    cm_real *ba, *cd;                /* words of a head: r dt B along, exp(cs) C down */
    cm_real *xa, *ya, *yd, *yx;      /* x along; dy along, down, across */
    cm_real *xd;                     /* x down */
    cm_real *wide;                   /* [q,max(N,P)] */
    cm_real *s, *ds, *dsx;           /* words of the states down, of their gradients, across */
    cm_real *running;                /* gradients of the states that the task carries */
    cm_real *ddt, *rect, *u, *v, *da, *tmp; /* [q] */
    cm_real *raw;                    /* [q,HG] gradients of the raw steps */
    cm_ssd_ahead *next;
} bufs;

/* Words of one element are the same along and down. */
static bufs bufs_of(const cm_ssd_run *r) {
    int64_t sq = r->Q * r->ld, qn = (int64_t)r->Q * r->N, qp = (int64_t)r->Q * r->P;
    int64_t size = (int64_t)r->N * r->P;
    bufs w;
    cm_real *at = cm_ssd_buffer(r, omp_get_thread_num());
    cm_real **square[] = { &w.cb, &w.dcb, &w.e, &w.m, &w.mw };
    cm_real **by_n[] = { &w.dB, &w.dC, &w.B, &w.C, &w.bw, &w.cw, &w.ba, &w.cd };
    cm_real **by_p[] = { &w.xa, &w.ya, &w.yd, &w.yx, &w.xd };
    cm_real **state[] = { &w.s, &w.ds, &w.dsx };
    cm_real **row[] = { &w.ddt, &w.rect, &w.u, &w.v, &w.da, &w.tmp };
    for (int i = 0; i < 5; i++, at += sq) *square[i] = at;
    for (int i = 0; i < 8; i++, at += qn) *by_n[i] = at;
    for (int i = 0; i < 5; i++, at += qp) *by_p[i] = at;
    w.wide = at, at += qn > qp ? qn : qp;
    for (int i = 0; i < 3; i++, at += size) *state[i] = at;
    for (int i = 0; i < 6; i++, at += r->ld) *row[i] = at;
    w.raw = at;
    w.running = r->whole ? cm_ssd_running(r, omp_get_thread_num()) : NULL;
    if (cm_word_len(r->how) == 1) w.yd = w.ya;
    w.next = NULL;
    return w;
}

static cm_mat grad_y(const back *k, const cm_ssd_chunk *c, int h) {
    if (k->gy.ld == 0) return k->gy;
    return cm_mat_from(k->gy, ((int64_t)c->b * k->r.T + c->t0) * k->gy.ld + (int64_t)h * k->r.P);
}

/* y[j,i] = x[i,j], or += where add; x[n,m].  Only at the ends of a row. */
static void transpose(int n, int m, const cm_real *x, bool add, cm_real *y) {
    for (int64_t j = 0; j < m; j++)
        for (int64_t i = 0; i < n; i++)
            y[j * n + i] = (add ? y[j * n + i] : 0) + x[i * m + j];
}

/* The state entering a chunk, [P,N]; states() puts s0 into its slot. */
static const cm_real *state_in(const cm_ssd_run *r, const cm_ssd_chunk *c, int h) {
    return c->in == CM_SSD_NONE ? NULL : cm_ssd_slot(r, r->S, c->b, c->in, h);
}

/* Where the gradient of state `slot` of a head is, [P,N]. */
static cm_real *grad_slot(const cm_ssd_run *r, int b, int slot, int h, const bufs *w) {
    if (w->running) return w->running + (int64_t)(h % r->HG) * r->N * r->P;
    return cm_ssd_slot(r, r->dS, b, slot, h);
}

/* Gradient of the state leaving a chunk; that of s1 is in slot `slots-1`. */
static const cm_real *grad_out(const back *k, const cm_ssd_chunk *c, int h,
                               const bufs *w) {
    const cm_ssd_run *r = &k->r;
    if (c->out == CM_SSD_NONE || (c->out == r->slots - 1 && !k->gs1)) return NULL;
    return grad_slot(r, c->b, c->out, h, w);
}

static void states(const back *k, int b, int h, const bufs *w) {
    const cm_ssd_run *r = &k->r;
    int64_t size = (int64_t)r->N * r->P, bh = ((int64_t)b * r->H + h) * size;
    if (r->s0) {
        cm_real *start = cm_ssd_slot(r, r->S, b, r->slots - 2, h);
        transpose(r->N, r->P, r->s0 + bh, false, start);
    }
    for (int32_t i = r->first[b]; i < r->first[b + 1]; i++) {
        const cm_ssd_chunk *c = &r->chunk[i];
        if (c->out == CM_SSD_NONE || c->out == r->slots - 1) continue;
        const cm_real *in = state_in(r, c, h);
        cm_real *out = cm_ssd_slot(r, r->S, b, c->out, h);
        int64_t at = cm_ssd_at(r, b, h, c->t0);
        if (in) cm_k.scale_rows(1, size, &r->ec[at + c->q - 1], in, size, out, size);
        cm_word_mat B = cm_ssd_down(r, c->q, r->N, r->rd + at,
                                    r->xbc + cm_ssd_b(r, c, h / r->HG), r->W, w->cd);
        cm_word_mat x = cm_ssd_down(r, c->q, r->P, NULL, r->xbc + cm_ssd_x(r, c, h), r->W,
                                    w->xd);
        cm_word_product(r->how, r->P, r->N, c->q, x, B, in ? 1 : 0, out, r->N);
    }
}

/* dS_in = exp(cs_last) dS_out + dY^T (exp(cs) C); dy: words down. */
static void pass_grad(const back *k, const cm_ssd_chunk *c, int h, const bufs *w,
                      const cm_real *C, int64_t ldc) {
    const cm_ssd_run *r = &k->r;
    int64_t size = (int64_t)r->N * r->P, at = cm_ssd_at(r, c->b, h, c->t0);
    const cm_real *from = grad_out(k, c, h, w);
    cm_real *to = grad_slot(r, c->b, c->in, h, w);
    if (from) cm_k.scale_rows(1, size, &r->ec[at + c->q - 1], from, size, to, size);
    cm_word_mat ec = cm_ssd_down(r, c->q, r->N, r->ec + at, C, ldc, w->cd);
    cm_word_product(r->how, r->P, r->N, c->q, (cm_word_mat){ w->yd, 1, r->P }, ec,
                    from ? 1 : 0, to, r->N);
}

/* Before the latest chunk of a row: from the gradient of s1. */
static void first_grad(const back *k, int b, int h, const bufs *w) {
    const cm_ssd_run *r = &k->r;
    int64_t bh = ((int64_t)b * r->H + h) * r->N * r->P;
    if (k->gs1)
        transpose(r->N, r->P, k->gs1 + bh, false, grad_slot(r, b, r->slots - 1, h, w));
}

/* After the earliest: the gradient of s0. */
static void last_grad(const back *k, int b, int h, const bufs *w) {
    const cm_ssd_run *r = &k->r;
    int64_t bh = ((int64_t)b * r->H + h) * r->N * r->P;
    if (k->gs0)
        transpose(r->P, r->N, grad_slot(r, b, r->slots - 2, h, w), true, k->gs0 + bh);
}

static void state_grads(const back *k, int b, int h, const bufs *w) {
    const cm_ssd_run *r = &k->r;
    first_grad(k, b, h, w);
    for (int32_t i = r->first[b + 1] - 1; i >= r->first[b]; i--) {
        const cm_ssd_chunk *c = &r->chunk[i];
        if (c->in == CM_SSD_NONE) continue;
        cm_words_of(r->how, c->q, r->P, grad_y(k, c, h), NULL, w->yd, NULL);
        pass_grad(k, c, h, w, r->xbc + cm_ssd_c(r, c, h / r->HG), r->W);
    }
    last_grad(k, b, h, w);
}

/* What passes through the states: dx_j += r dt_j dS B_j, dB_j += r dt_j dS^T x_j,
 * dC_i += exp(cs_i) S^T dy_i, and their shares v_j of ddt and u_i of da. */
static void through_states(const back *k, const cm_ssd_chunk *c, int h, const bufs *w,
                           const cm_real *in, const cm_real *out) {
    const cm_ssd_run *r = &k->r;
    int q = c->q, N = r->N, P = r->P;
    int64_t at = cm_ssd_at(r, c->b, h, c->t0), x = cm_ssd_x(r, c, h);
    memset(w->u, 0, (size_t)q * sizeof *w->u);
    memset(w->v, 0, (size_t)q * sizeof *w->v);
    int64_t lp = cm_word_count(r->how, P), ln = cm_word_count(r->how, N);
    if (out) {
        if (k->gx) {
            cm_words_along(r->how, q, N, r->rd + at, w->B, N, w->ba, ln);
            cm_words_across(r->how, P, N, out, N, w->dsx, P);
            cm_word_mat B = { w->ba, ln, 1 }, dS = { w->dsx, 1, P };
            cm_word_product(r->how, q, P, N, B, dS, 1, k->gx + x, r->W);
        }
        cm_ssd_call(w->next);
        cm_word_mat xa = { w->xa, lp, 1 }, dS = cm_as_down(r->how, P, N, out, N, w->ds);
        cm_word_product(r->how, q, N, P, xa, dS, 0, w->wide, N);
        cm_k.fold_rows(q, N, r->rd + at, w->wide, N, w->B, N, w->dB, N, w->v);
        for (int j = 0; j < q; j++) w->v[j] *= r->r[at + j];
    }
    cm_ssd_call(w->next);
    if (in) {
        cm_word_mat ya = { w->ya, lp, 1 }, S = cm_as_down(r->how, P, N, in, N, w->s);
        cm_word_product(r->how, q, N, P, ya, S, 0, w->wide, N);
        cm_k.fold_rows(q, N, r->ec + at, w->wide, N, w->C, N, w->dC, N, w->u);
        for (int i = 0; i < q; i++) w->u[i] *= r->ec[at + i];
    }
}

/* da_k = sum over i >= k of u_i + sum over j < k of dt_j v_j + rect_k + all; from it and
 * the direct part the gradient of the raw step, and the chunk's share of the parameters'
 * gradients. */
static void step_grads(const back *k, const cm_ssd_chunk *c, int h, const bufs *w,
                       cm_real all, double *part) {
    const cm_ssd_run *r = &k->r;
    int64_t at = cm_ssd_at(r, c->b, h, c->t0);
    const cm_real *dt = r->dt + at, *sig = r->sig + at;
    cm_real after = 0, before = 0;
    for (int i = c->q - 1; i >= 0; i--) {
        after += w->u[i];
        w->da[i] = w->rect[i] + after + all;
    }
    part[0] = part[1] = part[2] = 0;
    for (int j = 0; j < c->q; j++) {
        cm_real da = w->da[j] + before;
        before += dt[j] * w->v[j];
        cm_real raw = (w->ddt[j] + w->v[j] + r->A[h] * da) * sig[j];
        w->raw[j * r->HG + h % r->HG] = raw;
        part[0] += (double)dt[j] * (double)da;
        part[1] += (double)w->e[j * r->ld + j];
        part[2] += (double)raw;
    }
}

static void head_back(const back *k, const cm_ssd_chunk *c, int h, const bufs *w,
                      double *part) {
    const cm_ssd_run *r = &k->r;
    int q = c->q, P = r->P;
    int64_t at = cm_ssd_at(r, c->b, h, c->t0), size = (int64_t)r->N * P;
    int64_t x = cm_ssd_x(r, c, h), ld = cm_word_count(r->how, P);
    const cm_real *in = state_in(r, c, h), *out = grad_out(k, c, h, w);
    cm_words_along(r->how, q, P, NULL, r->xbc + x, r->W, w->xa, ld);
    cm_words_of(r->how, q, P, grad_y(k, c, h), w->ya, w->yd != w->ya ? w->yd : NULL, w->yx);
    cm_ssd_pairs(r, 0, q, P, (cm_word_mat){ w->xa, ld, 1 }, (cm_word_mat){ w->yx, 1, q },
                 w->e);
    cm_ssd_call(w->next);
    cm_k.ssd_mask_back(q, r->cs + at, r->dt + at, r->D[h], w->cb, w->e, w->m, w->dcb,
                       r->ld, w->ddt, w->rect, w->tmp);
    if (k->gx) {
        cm_word_mat m = cm_as_along(r->how, q, q, w->m, r->ld, w->mw);
        cm_ssd_upper(r, q, P, m, (cm_word_mat){ w->yd, 1, P }, k->fresh ? 0 : 1, k->gx + x,
                     r->W);
    }
    cm_ssd_call(w->next);
    through_states(k, c, h, w, in, out);
    cm_ssd_call(w->next);
    cm_real all = 0;
    if (in && out) cm_k.matvec(1, size, in, size, out, &all);
    step_grads(k, c, h, w, all * r->ec[at + q - 1], part);
}

static void put_rows(const back *k, int q, const cm_real *from, cm_real *to) {
    const cm_ssd_run *r = &k->r;
    for (int i = 0; i < q; i++, from += r->N, to += r->W) {
        if (k->fresh)
            memcpy(to, from, (size_t)r->N * sizeof *to);
        else
            cm_k.add_scaled(r->N, 1, from, to);
    }
}

/* The raw steps of a group; narrow, nobody else writes them. */
static void put_steps(const back *k, const cm_ssd_chunk *c, int g, const cm_real *raw) {
    const cm_ssd_run *r = &k->r;
    int64_t row = (int64_t)c->b * r->T + c->t0;
    for (int j = 0; k->gdt.data && j < c->q; j++, raw += r->HG) {
        int64_t at = (row + j) * r->wd + r->dcol + (int64_t)g * r->HG;
        cm_put(&k->gdt, at, r->HG, raw);
        if (k->gdt.dtype == CM_REAL_DTYPE) cm_k.add_scaled(r->HG, 1, raw, cm_rdata(&k->gdt) + at);
    }
}

/* x and dy of the head after h; of the last the first of the chunk that comes before. */
static cm_ssd_ahead ahead_of(const back *k, const cm_ssd_chunk *c, int h, int g) {
    const cm_ssd_run *r = &k->r;
    bool last = h + 1 == (g + 1) * r->HG;
    if (last && c == &r->chunk[r->first[c->b]]) return (cm_ssd_ahead){ .P = 0 };
    if (last) c--;
    h = last ? g * r->HG : h + 1;
    return (cm_ssd_ahead){ .x = { cm_mat_of(r->xbc + cm_ssd_x(r, c, h), r->W, false),
                                  grad_y(k, c, h) },
                           .P = r->P, .q = c->q };
}

/* Everything of one group in one chunk; part[H][3] of this chunk. */
static void chunk_back(const back *k, const cm_ssd_chunk *c, int g, double *part) {
    const cm_ssd_run *r = &k->r;
    bufs w = bufs_of(r);
    int q = c->q, N = r->N;
    int64_t b = cm_ssd_b(r, c, g), cc = cm_ssd_c(r, c, g);
    cm_ssd_copy(q, N, r->xbc + b, r->W, w.B);
    cm_ssd_copy(q, N, r->xbc + cc, r->W, w.C);
    int64_t ld = cm_word_count(r->how, N);
    cm_words_along(r->how, q, N, NULL, w.B, N, w.bw, ld);
    cm_words_across(r->how, q, N, w.C, N, w.cw, q);
    cm_ssd_pairs(r, 0, q, N, (cm_word_mat){ w.bw, ld, 1 }, (cm_word_mat){ w.cw, 1, q }, w.cb);
    memset(w.dcb, 0, (size_t)(q * r->ld) * sizeof *w.dcb);
    memset(w.dB, 0, (size_t)(q * N) * sizeof *w.dB);
    memset(w.dC, 0, (size_t)(q * N) * sizeof *w.dC);
    for (int h = g * r->HG; h < (g + 1) * r->HG; h++) {
        cm_ssd_ahead next = ahead_of(k, c, h, g);
        w.next = &next;
        head_back(k, c, h, &w, part + 3 * h);
        if (r->whole && c->in != CM_SSD_NONE) pass_grad(k, c, h, &w, w.C, N);
    }
    put_steps(k, c, g, w.raw);
    if (!k->gx) return;
    cm_word_mat B = cm_ssd_down(r, q, N, NULL, w.B, N, w.bw);
    cm_word_mat C = cm_ssd_down(r, q, N, NULL, w.C, N, w.cw);
    cm_ssd_upper(r, q, N, cm_as_along(r->how, q, q, w.dcb, r->ld, w.mw), C, 1, w.dB, N);
    cm_ssd_lower(r, 0, q, N, cm_as_down(r->how, q, q, w.dcb, r->ld, w.mw), B, 1, w.dC, N);
    put_rows(k, q, w.dB, k->gx + b);
    put_rows(k, q, w.dC, k->gx + cc);
}

/* One group through its row. */
static void row_back(const back *k, int b, int g) {
    const cm_ssd_run *r = &k->r;
    bufs w = bufs_of(r);
    int h0 = g * r->HG, h1 = h0 + r->HG;
    for (int h = h0; h < h1; h++) {
        cm_ssd_steps(r, b, h);
        states(k, b, h, &w);
        first_grad(k, b, h, &w);
    }
    for (int32_t i = r->first[b + 1] - 1; i >= r->first[b]; i--)
        chunk_back(k, &r->chunk[i], g, r->part + (int64_t)i * r->H * 3);
    for (int h = h0; h < h1; h++) last_grad(k, b, h, &w);
}

static void rows_apart(const back *k, int b0, int b1, bool many) {
    const cm_ssd_run *r = &k->r;
    int c0 = r->first[b0], items = (b1 - b0) * r->H, chunks = r->first[b1] - c0;
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (many)
    for (int i = 0; i < items; i++) {
        int b = b0 + i / r->H, h = i % r->H;
        bufs w = bufs_of(r);
        cm_ssd_steps(r, b, h);
        states(k, b, h, &w);
        state_grads(k, b, h, &w);
    }
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (many)
    for (int i = 0; i < chunks * r->G; i++) {
        int c = c0 + i / r->G;
        chunk_back(k, &r->chunk[c], i % r->G, r->part + (int64_t)c * r->H * 3);
    }
}

static void rows_back(const back *k, int b0, int b1) {
    const cm_ssd_run *r = &k->r;
    bool many = cm_ssd_many(r);
    if (!r->whole) {
        rows_apart(k, b0, b1, many);
        return;
    }
    int items = (b1 - b0) * r->G;
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (many)
    for (int i = 0; i < items; i++) row_back(k, b0 + i / r->G, i % r->G);
}

static void param_grads(const back *k, cm_real *gA_log, cm_real *gD, cm_real *gbias) {
    const cm_ssd_run *r = &k->r;
    for (int h = 0; h < r->H; h++) {
        double sum[3] = { 0 };
        for (int64_t c = 0; c < r->first[r->B]; c++)
            for (int i = 0; i < 3; i++) sum[i] += r->part[(c * r->H + h) * 3 + i];
        if (gA_log) gA_log[h] += (cm_real)(sum[0] * (double)r->A[h]);
        if (gD) gD[h] += (cm_real)sum[1];
        if (gbias) gbias[h] += (cm_real)sum[2];
    }
}

void cm_ssd_bwd(cm_node *n, void *scratch) {
    cm_tensor gy = cm_grad_of(n->out[0]);
    back k = { .gx = n->in[0]->g, .gdt = cm_grad_of(n->in[1]),
               .fresh = n->fresh[0], .gs1 = n->n_out > 1 ? n->out[1]->g : NULL,
               .gs0 = n->in[5] ? n->in[5]->g : NULL };
    cm_ssd_setup(&k.r, n, true, scratch);
    cm_ssd_plan(&k.r);
    memset(k.r.zero, 0, (size_t)k.r.P * sizeof *k.r.zero);
    k.gy = gy.data ? cm_mat_in(&gy, gy.dim[1], false) : cm_mat_of(k.r.zero, 0, false);
    for (int b = 0; b < k.r.B; b += k.r.rows)
        rows_back(&k, b, b + k.r.rows < k.r.B ? b + k.r.rows : k.r.B);
    param_grads(&k, n->in[2]->g, n->in[3]->g, n->in[4]->g);
}
