/* op_ssd.c -- the chunked state-space scan of Mamba-2: descriptor, forward, decoding.
 *
 * Formulas: docs/math/ssd.md.  With rows enough for all threads a task takes some heads
 * through a row, chunk by chunk.  Else first the states between chunks, one (row, head)
 * after another in time, then every chunk on its own.  All products are small and run on
 * one thread; both orders give the same bits. */
#include "op/ssd.h"

#include <omp.h>
#include <string.h>

static bool has_dims(const cm_var *x, int nd, int64_t d0, int64_t d1) {
    return x->v.nd == nd && x->v.dim[0] == d0 && (nd < 2 || x->v.dim[1] == d1);
}

static bool infer(cm_node *n, const char **why) {
    const cm_ssd_attr *a = n->attr;
    const cm_ssd_conf *c = &a->c;
    int64_t R = (int64_t)a->seq.B * a->seq.T, DI = (int64_t)c->H * c->P;
    bool sane = c->H > 0 && c->P > 0 && c->N > 0 && c->G > 0 && c->Q > 0;
    if (!sane || c->H % c->G)
        return *why = "H, P, N, G, Q must be positive, H a multiple of G", false;
    if (!has_dims(n->in[0], 2, R, DI + 2 * (int64_t)c->G * c->N))
        return *why = "xbc must be [B*T, H*P + 2*G*N]", false;
    const cm_tensor *dtx = &n->in[1]->v;
    if (dtx->nd != 2 || dtx->dim[0] != R || c->dcol < 0 || c->dcol + c->H > dtx->dim[1])
        return *why = "dtx must be [B*T, W] with H columns from dcol", false;
    for (int i = 2; i < 5; i++)
        if (!has_dims(n->in[i], 1, c->H, 0))
            return *why = "A_log, D and dt_bias must be [H]", false;
    cm_tensor state = { .nd = 4, .dim = { a->seq.B, c->H, c->N, c->P } };
    if (n->in[5] && (c->from || !cm_tensor_same_shape(&n->in[5]->v, &state)))
        return *why = "s0 must be [B,H,N,P], and not given twice", false;
    bool by_doc = c->doc_from || c->doc_to;
    if (by_doc && (a->seq.B != 1 || n->in[5] || c->from || c->to || a->want_state || n->grad))
        return *why = "states by document need one row, no others, no gradients", false;
    n->out[0]->v.nd = 2;
    n->out[0]->v.dim[0] = R;
    n->out[0]->v.dim[1] = DI;
    n->n_out = a->want_state ? 2 : 1;
    if (a->want_state) n->out[1]->v = state;
    return true;
}

static size_t scratch_bytes(const cm_node *n, bool backward) {
    cm_ssd_run r;
    return cm_ssd_setup(&r, n, backward, NULL);
}

/* Causal half of the two Q x Q products, and the two with the state. */
static double flops(const cm_node *n) {
    const cm_ssd_conf *c = &((const cm_ssd_attr *)n->attr)->c;
    double R = (double)n->out[0]->v.dim[0], DI = (double)c->H * c->P;
    return R * (c->Q * ((double)c->G * c->N + DI) + 4.0 * c->N * DI);
}

/* ---- forward ---------------------------------------------------------------------- */

/* One chunk of a row and some heads of a group, [h0,h1). */
typedef struct {
    const cm_ssd_run *r;
    const cm_ssd_chunk *k;
    int g, h0, h1;
    cm_real *running; /* states that the task carries along, [h1-h0,N*P]; NULL: in slots */
    cm_real *s1;      /* then: where the states after the rows go */
} part;

static const cm_real *state_in(const part *p, int h) {
    const cm_ssd_run *r = p->r;
    const cm_ssd_chunk *k = p->k;
    int64_t size = (int64_t)r->N * r->P;
    if (k->in == CM_SSD_NONE) return NULL;
    if (k->in == CM_SSD_DOC) return r->doc_from[k->doc] + h * size;
    if (k->in == CM_SSD_S0) return r->s0 + ((int64_t)k->b * r->H + h) * size;
    if (p->running) return p->running + (h - p->h0) * size;
    return cm_ssd_slot(r, r->S, k->b, k->in, h);
}

static cm_real *state_out(const part *p, int h) {
    const cm_ssd_run *r = p->r;
    const cm_ssd_chunk *k = p->k;
    int64_t size = (int64_t)r->N * r->P;
    if (k->out == CM_SSD_DOC) return r->doc_to[k->doc] + h * size;
    if (!p->running) return cm_ssd_slot(r, r->S, k->b, k->out, h);
    if (k->out == r->slots - 1) return p->s1 + ((int64_t)k->b * r->H + h) * size;
    return p->running + (h - p->h0) * size;
}

/* S_out = exp(cs_last) S_in + B^T (r dt X); B: words down, tmp[q,P]. */
static void pass_state(const part *p, int h, cm_word_mat B, cm_real *tmp) {
    const cm_ssd_run *r = p->r;
    const cm_ssd_chunk *k = p->k;
    int64_t size = (int64_t)r->N * r->P, at = cm_ssd_at(r, k->b, h, k->t0);
    const cm_real *in = state_in(p, h), *x = r->xbc + cm_ssd_x(r, k, h);
    cm_real *out = state_out(p, h);
    if (in) cm_k.scale_rows(1, size, &r->ec[at + k->q - 1], in, size, out, size);
    cm_word_mat rdx = cm_ssd_down(r, k->q, r->P, r->rd + at, x, r->W, tmp);
    cm_word_product(r->how, r->N, r->P, k->q, B, rdx, in ? 1 : 0, out, r->P);
}

/* The states after each chunk of a row that passes its own on. */
static void pass_states(const cm_ssd_run *r, int b, int h, cm_real *buf) {
    for (int32_t i = r->first[b]; i < r->first[b + 1]; i++) {
        const cm_ssd_chunk *k = &r->chunk[i];
        if (k->out == CM_SSD_NONE) continue;
        part p = { r, k, h / r->HG, h, h + 1, NULL, NULL };
        const cm_real *x = r->xbc + cm_ssd_b(r, k, p.g);
        cm_word_mat B = cm_ssd_down(r, k->q, r->N, NULL, x, r->W, buf + r->Q * r->P);
        pass_state(&p, h, B, buf);
    }
}

/* Working memory of a part: matrices [q,ld]; C, copied; words of C across, of B along and
 * down, and of a head's C, x and state. */
typedef struct {
    cm_real *cb, *m, *mw, *C, *cx, *ba, *bd, *ca, *x, *tmp, *s;
} bufs;

/* Words of one element are the same along and down. */
static bufs bufs_of(const cm_ssd_run *r) {
    int64_t sq = r->Q * r->ld, qn = (int64_t)r->Q * r->N, qp = (int64_t)r->Q * r->P;
    bufs w;
    w.cb = cm_ssd_buffer(r, omp_get_thread_num());
    w.m = w.cb + sq;
    w.mw = w.m + sq;
    w.C = w.mw + sq;
    w.cx = w.C + qn;
    w.ba = w.cx + qn;
    w.bd = w.ba + (cm_word_len(r->how) == 2 ? qn : 0);
    w.ca = w.ba + 2 * qn;
    w.x = w.ca + qn;
    w.tmp = w.x + qp;
    w.s = w.tmp + qp;
    return w;
}

/* Outputs of one head for the chunk's tokens from `skip` on. */
static void head_out(const part *p, int h, const bufs *w, cm_ssd_ahead *next, cm_real *y) {
    const cm_ssd_run *r = p->r;
    const cm_ssd_chunk *k = p->k;
    int N = r->N, P = r->P, q = k->q, i0 = k->skip, n = q - i0;
    const cm_real *in = state_in(p, h);
    int64_t ldy = (int64_t)r->H * P, at = cm_ssd_at(r, k->b, h, k->t0);
    cm_real *yh = y + ((int64_t)k->b * r->T + k->t0) * ldy + (int64_t)h * P;
    if (in) {
        int64_t ld = cm_word_count(r->how, N);
        cm_words_along(r->how, n, N, r->ec + at + i0, w->C + i0 * N, N, w->ca, ld);
        cm_word_mat C = { w->ca, ld, 1 }, S = cm_as_down(r->how, N, P, in, P, w->s);
        cm_word_product(r->how, n, P, N, C, S, 0, yh + i0 * ldy, ldy);
    }
    cm_ssd_call(next);
    cm_k.ssd_mask(q, r->cs + at, r->dt + at, r->D[h], w->cb, w->m, r->ld);
    cm_word_mat m = cm_as_down(r->how, q, q, w->m, r->ld, w->mw);
    cm_word_mat x = cm_ssd_down(r, q, P, NULL, r->xbc + cm_ssd_x(r, k, h), r->W, w->x);
    cm_ssd_call(next);
    cm_ssd_lower(r, i0, q, P, m, x, in ? 1 : 0, yh, ldy);
    cm_ssd_call(next);
}

/* Outputs, and where the task carries the states those after the chunk. */
static void part_out(const part *p, cm_real *y) {
    const cm_ssd_run *r = p->r;
    const cm_ssd_chunk *k = p->k;
    bufs w = bufs_of(r);
    int N = r->N, q = k->q;
    bool passes = p->running && k->out != CM_SSD_NONE;
    if (q == k->skip && !passes) return;
    const cm_real *B = r->xbc + cm_ssd_b(r, k, p->g), *C = r->xbc + cm_ssd_c(r, k, p->g);
    int64_t ld = cm_word_count(r->how, N);
    cm_ssd_copy(q, N, C, r->W, w.C);
    cm_words_across(r->how, q, N, w.C, N, w.cx, q);
    cm_words_along(r->how, q, N, NULL, B, r->W, w.ba, ld);
    cm_word_mat down = { w.bd, 1, N };
    if (w.bd != w.ba) cm_ssd_down(r, q, N, NULL, B, r->W, w.bd);
    cm_ssd_pairs(r, k->skip, q, N, (cm_word_mat){ w.ba, ld, 1 }, (cm_word_mat){ w.cx, 1, q },
                 w.cb);
    for (int h = p->h0; h < p->h1; h++) {
        cm_ssd_ahead next = { .P = 0 };
        if (h + 1 < p->h1)
            next = (cm_ssd_ahead){
                .x = { cm_mat_of(r->xbc + cm_ssd_x(r, k, h + 1), r->W, false) }, .P = r->P,
                .q = q,
            };
        if (q > k->skip) head_out(p, h, &w, &next, y);
        if (passes) pass_state(p, h, down, w.tmp);
        cm_ssd_call(&next), cm_ssd_call(&next), cm_ssd_call(&next);
    }
}

/* The i-th block of `most` heads of a group, over all groups. */
static part part_of(const cm_ssd_run *r, int64_t i, int most) {
    int blocks = (r->HG + most - 1) / most, g = (int)i / blocks;
    int h0 = (int)i % blocks * most, h1 = h0 + most < r->HG ? h0 + most : r->HG;
    return (part){ .r = r, .g = g, .h0 = g * r->HG + h0, .h1 = g * r->HG + h1 };
}

static int parts_of(const cm_ssd_run *r, int most) {
    return (r->HG + most - 1) / most * r->G;
}

static void whole_rows(const cm_ssd_run *r, cm_real *y, cm_real *s1) {
    int parts = parts_of(r, r->heads);
    int64_t items = (int64_t)r->B * parts;
    bool many = cm_ssd_many(r);
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (many)
    for (int64_t i = 0; i < items; i++) {
        int b = (int)(i / parts);
        part p = part_of(r, i % parts, r->heads);
        p.running = cm_ssd_running(r, omp_get_thread_num());
        p.s1 = s1;
        for (int h = p.h0; h < p.h1; h++) cm_ssd_steps(r, b, h);
        for (int32_t c = r->first[b]; c < r->first[b + 1]; c++) {
            p.k = &r->chunk[c];
            part_out(&p, y);
        }
    }
}

static void chunks_out(const cm_ssd_run *r, int b0, int b1, cm_real *y) {
    int parts = parts_of(r, CM_SSD_HEADS);
    int64_t items = (int64_t)(r->first[b1] - r->first[b0]) * parts;
    bool many = cm_ssd_many(r);
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (many)
    for (int64_t i = 0; i < items; i++) {
        part p = part_of(r, i % parts, CM_SSD_HEADS);
        p.k = &r->chunk[r->first[b0] + i / parts];
        part_out(&p, y);
    }
}

/* One token: the recurrence itself, with the roundings of a chunk of one token. */
static void step(const cm_ssd_run *r, int b, int h, int t, cm_real *buf,
                 const cm_real *state, cm_real *next, cm_real *y) {
    const cm_ssd_chunk *k = &r->chunk[r->first[b] + t];
    int64_t at = cm_ssd_at(r, b, h, t), row = (int64_t)b * r->T + t;
    const cm_real *B = r->xbc + cm_ssd_b(r, k, h / r->HG);
    const cm_real *C = r->xbc + cm_ssd_c(r, k, h / r->HG);
    cm_real cb, m;
    cm_gemm1(false, true, 1, 1, r->N, 1, B, r->W, C, r->W, 0, &cb, 1);
    cm_k.ssd_mask(1, r->cs + at, r->dt + at, r->D[h], &cb, &m, 1);
    cm_k.scale_rows(1, r->N, r->ec + at, C, r->N, buf, r->N);
    cm_k.ssd_step(r->N, r->P, r->ec[at], r->rd[at], m, r->xbc + cm_ssd_x(r, k, h), B, buf,
                  state, next, y + (row * r->H + h) * r->P);
}

/* All tokens of a head: its state is read and written once, however many there are. */
static void step_through(const cm_ssd_run *r, int b, int h, cm_real *buf, cm_real *s1,
                         cm_real *y) {
    int64_t at = ((int64_t)b * r->H + h) * r->N * r->P;
    for (int t = 0; t < r->T; t++)
        step(r, b, h, t, buf, t ? s1 + at : r->s0 + at, s1 + at, y);
}

/* States first, then the chunks; or steps. */
static void rows_apart(const cm_ssd_run *r, cm_real *y, cm_real *s1) {
    int64_t size = (int64_t)r->N * r->P;
    bool many = cm_ssd_many(r);
    for (int b0 = 0; b0 < r->B; b0 += r->rows) {
        int b1 = b0 + r->rows < r->B ? b0 + r->rows : r->B, items = (b1 - b0) * r->H;
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (many)
        for (int i = 0; i < items; i++) {
            int b = b0 + i / r->H, h = i % r->H;
            cm_real *buf = cm_ssd_buffer(r, omp_get_thread_num());
            cm_ssd_steps(r, b, h);
            if (r->steps)
                step_through(r, b, h, buf, s1, y);
            else
                pass_states(r, b, h, buf);
        }
        if (r->steps) continue;
        chunks_out(r, b0, b1, y);
        /* Only now, since the new state may go where the initial one was. */
        for (int b = b0; b < b1 && s1; b++)
            memcpy(s1 + b * r->H * size, cm_ssd_slot(r, r->S, b, r->slots - 1, 0),
                   (size_t)(r->H * size) * sizeof *s1);
    }
}

static void fwd(cm_node *n, void *scratch) {
    const cm_ssd_attr *a = n->attr;
    cm_ssd_run r;
    cm_ssd_setup(&r, n, false, scratch);
    cm_ssd_plan(&r);
    cm_real *y = cm_rdata(&n->out[0]->v);
    cm_real *s1 = a->want_state ? cm_rdata(&n->out[1]->v) : a->c.to;
    if (r.whole) whole_rows(&r, y, s1);
    else rows_apart(&r, y, s1);
    if (a->want_state && a->c.to)
        memcpy(a->c.to, s1, cm_tensor_bytes(&n->out[1]->v));
}

/* ---- gradient-check cases ---------------------------------------------------------- */

typedef struct {
    int B, T, H, P, N, G, Q;
    int start[3];      /* document starts besides token 0; 0 = none */
    bool s0, s1, y;    /* initial state; outputs that are differentiated */
    double bias;       /* centre of dt_bias */
} sample_case;

/* The first two are those of the derivation; a carry over several chunks shows only
 * without resets, resets only with them.  The last has softplus in its linear part. */
static const sample_case cases[] = {
    { 1, 14, 4, 3, 5, 2, 4, { 0 }, false, false, true, 0 },
    { 1, 14, 4, 3, 5, 2, 4, { 3, 8, 9 }, false, false, true, 0 },
    { 2, 11, 2, 2, 3, 1, 3, { 0 }, true, true, true, 0 },
    { 2, 11, 3, 2, 3, 3, 3, { 4, 10 }, true, true, true, 0 },
    { 1, 7, 2, 3, 2, 1, 16, { 0 }, true, true, false, 0 },
    { 1, 6, 2, 2, 3, 1, 1, { 2 }, false, true, true, 0 },
    { 1, 9, 2, 2, 2, 1, 4, { 6 }, true, false, true, 21.5 },
};

static void sample_docs(cm_sample *s, const sample_case *k, cm_seq *seq) {
    *seq = (cm_seq){ .B = k->B, .T = k->T };
    if (!k->start[0]) return;
    int32_t *doc = cm_sample_mem(s, (size_t)(k->B * k->T) * sizeof *doc);
    for (int i = 0; i < k->B * k->T; i++)
        for (int j = 0; j < 3; j++) doc[i] += k->start[j] && i % k->T >= k->start[j];
    seq->doc = doc;
}

static bool sample(cm_sample *s, int i) {
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    const sample_case *k = &cases[i];
    int64_t R = (int64_t)k->B * k->T;
    cm_seq seq;
    sample_docs(s, k, &seq);
    cm_ssd_conf c = { k->H, k->P, k->N, k->G, k->Q, .dcol = 2 };
    cm_var *xbc = cm_sample_in(
        s, "xbc", 2, (int64_t[]){ R, k->H * k->P + 2 * k->G * k->N }, -1, 1);
    cm_var *dtx = cm_sample_in(s, "dtx", 2, (int64_t[]){ R, k->H + 3 }, -1, 1);
    /* A large step needs a slow decay for anything to be left. */
    double slow = k->bias > 0 ? -5 : 0;
    int64_t H[1] = { k->H };
    cm_var *A_log = cm_sample_param(s, "A_log", 1, H, slow - 1, slow + 1);
    cm_var *D = cm_sample_param(s, "D", 1, H, -1, 1);
    cm_var *bias = cm_sample_param(s, "dt_bias", 1, H, k->bias - 0.5, k->bias + 0.5);
    cm_var *s0 = NULL, *y, *s1 = NULL;
    if (k->s0)
        s0 = cm_sample_in(s, "s0", 4, (int64_t[]){ k->B, k->H, k->N, k->P }, -1, 1);
    cm_ssd(cm_sample_tape(s), xbc, dtx, A_log, D, bias, s0, &seq, &c, &y,
           k->s1 ? &s1 : NULL);
    if (k->y) cm_sample_out(s, y);
    if (k->s1) cm_sample_out(s, s1);
    return true;
}

static int64_t touched(const cm_node *n, int i) {
    const cm_ssd_conf *c = &((const cm_ssd_attr *)n->attr)->c;
    return i == 1 ? n->in[1]->v.dim[0] * c->H : cm_tensor_count(&n->in[i]->v);
}

/* Of dtx's gradient. */
static cm_cols cols(const cm_node *n, int i) {
    const cm_ssd_conf *c = &((const cm_ssd_attr *)n->attr)->c;
    (void)i;
    return (cm_cols){ c->dcol, c->dcol + c->H };
}

const cm_op cm_op_ssd = {
    .name = "ssd",
    .shapes = "xbc[R,H*P+2*G*N] dtx[R,W] A_log[H] D[H] dt_bias[H] s0[B,H,N,P]? -> "
              "y[R,H*P] s1[B,H,N,P]?",
    .n_in = 6, .n_out = 2, .attr_bytes = sizeof(cm_ssd_attr), .sets = 1 << 0,
    .gives_g = 1 << 1, .takes_g = 1 << 0, .cols = cols, .mixed = true, .infer = infer,
    .scratch = scratch_bytes, .fwd = fwd, .bwd = cm_ssd_bwd, .flops = flops,
    .touched = touched, .sample = sample,
};

void cm_ssd(cm_tape *t, cm_var *xbc, cm_var *dtx, cm_var *A_log, cm_var *D,
            cm_var *dt_bias, cm_var *s0, const cm_seq *seq, const cm_ssd_conf *c,
            cm_var **y, cm_var **s1) {
    cm_ssd_attr a = { .c = *c, .seq = *seq, .want_state = s1 != NULL };
    cm_var *in[6] = { xbc, dtx, A_log, D, dt_bias, s0 }, *out[2] = { 0 };
    cm_tape_apply(t, &cm_op_ssd, in, 6, &a, out);
    *y = out[0];
    if (s1) *s1 = out[1];
}
