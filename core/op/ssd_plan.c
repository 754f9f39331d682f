/* ssd_plan.c -- the scan's scratch, its cut into chunks, and its step sizes. */
#include "op/ssd.h"

#include <math.h>

/* Batch rows are taken together until there are this many (row, head) pairs. */
enum { ROW_ITEMS = 32 };

typedef struct {
    unsigned char *base;
    size_t used;
} carve;

/* The next n bytes of the scratch, or only their count when there is none yet. */
static void *take(carve *c, size_t n) {
    void *p = c->base ? c->base + c->used : NULL;
    c->used += cm_align_up(n);
    return p;
}

static cm_real *take_reals(carve *c, int64_t n) {
    return take(c, (size_t)n * sizeof(cm_real));
}

/* Heads that a task takes through a whole row, or 0.  Whole rows read every x once and keep the
 * states in cache, but need enough of them for all threads.  No choice changes a bit.  The length
 * has no say in it, or a short row could need more memory than a long one, for which a session
 * made room. */
static int row_heads(const cm_ssd_run *r, bool backward) {
    int threads = cm_kern_threads(), most = backward ? r->HG : CM_SSD_ROW_HEADS;
    for (int heads = most; heads >= (backward ? most : CM_SSD_HEADS); heads /= 2) {
        int64_t tasks = (int64_t)r->B * r->G * ((r->HG + heads - 1) / heads);
        if (tasks > 0 && (tasks % threads == 0 || tasks >= 4 * threads)) return heads;
    }
    return 0;
}

static void set_shape(cm_ssd_run *r, const cm_node *n, bool backward) {
    const cm_ssd_attr *a = n->attr;
    const cm_ssd_conf *c = &a->c;
    *r = (cm_ssd_run){
        .B = a->seq.B, .T = a->seq.T, .H = c->H, .P = c->P, .N = c->N, .G = c->G,
        .Q = c->Q < a->seq.T ? c->Q : a->seq.T, .HG = c->H / c->G, .dcol = c->dcol,
        .W = n->in[0]->v.dim[1], .wd = n->in[1]->v.dim[1], .doc = a->seq.doc,
        .xbc = cm_rdata(&n->in[0]->v), .dtx = cm_rdata(&n->in[1]->v),
        .D = cm_rdata(&n->in[3]->v), .bias = cm_rdata(&n->in[4]->v),
        .s0 = n->in[5] ? cm_rdata(&n->in[5]->v) : c->from,
        .want_state = a->want_state || c->to,
        .how = n->tape ? n->tape->compute : CM_COMPUTE_FP32,
        .doc_from = c->doc_from, .doc_to = c->doc_to, .doc_skip = c->doc_skip,
    };
    r->steps = (r->T == 1 || a->seq.steps) && r->s0 && r->want_state && !n->grad && !r->doc;
    if (r->Q < 1 || r->steps) r->Q = 1;
    r->ld = (r->Q + 15) / 16 * 16;
    r->slots = (r->T > 0 && !r->steps ? (r->T - 1) / r->Q : 0) + 1 + (backward && r->s0);
    r->heads = r->steps ? 0 : row_heads(r, backward);
    r->whole = r->heads > 0;
    r->rows = (ROW_ITEMS + r->H - 1) / r->H;
    if (r->whole) {
        int threads = cm_kern_threads(), least = (2 * threads + r->G - 1) / r->G;
        if (r->rows < least) r->rows = least;
        int heads = r->HG < r->heads ? r->HG : r->heads;
        r->own_states = (int64_t)heads * r->N * r->P;
    }
    if (r->rows > r->B) r->rows = r->B;
    if (r->rows < 1) r->rows = 1;
}

/* A thread's buffers, as bufs_of in op_ssd.c and ssd_back.c lays them out. */
static int64_t thread_reals(const cm_ssd_run *r, bool backward) {
    int64_t wide = r->N > r->P ? r->N : r->P, size = (int64_t)r->N * r->P;
    int64_t row = backward ? 5 * r->ld + 8 * r->N + 5 * r->P + wide
                           : 3 * r->ld + 5 * r->N + 2 * r->P;
    int64_t rest = backward ? 6 * r->ld + r->Q * r->HG + 3 * size : size;
    return (r->Q * row + rest + 15) / 16 * 16 + (r->own_states + 15) / 16 * 16;
}

size_t cm_ssd_setup(cm_ssd_run *r, const cm_node *n, bool backward, void *scratch) {
    set_shape(r, n, backward);
    carve c = { scratch, 0 };
    int64_t R = (int64_t)r->B * r->T, all = R * r->H;
    int64_t states = (int64_t)r->rows * r->slots * r->H * r->N * r->P;
    if (r->whole && !backward) states = 0;
    r->chunk = take(&c, (size_t)R * sizeof *r->chunk);
    r->first = take(&c, ((size_t)r->B + 1) * sizeof *r->first);
    r->A = take_reals(&c, r->H);
    r->dt = take_reals(&c, all);
    r->cs = take_reals(&c, all);
    r->ec = take_reals(&c, all);
    r->r = take_reals(&c, all);
    r->rd = take_reals(&c, all);
    r->S = take_reals(&c, states);
    if (backward) {
        r->sig = take_reals(&c, all);
        r->dS = take_reals(&c, r->whole ? 0 : states);
        r->zero = take_reals(&c, r->P);
        r->part = take(&c, (size_t)all * 3 * sizeof *r->part);
    }
    r->thread_reals = thread_reals(r, backward);
    r->thread = take_reals(&c, r->thread_reals * cm_kern_threads());
    if (scratch) {
        const cm_real *A_log = cm_rdata(&n->in[2]->v);
        for (int h = 0; h < r->H; h++) r->A[h] = (cm_real)-exp((double)A_log[h]);
    }
    return c.used;
}

static bool starts(const cm_ssd_run *r, int b, int t) {
    const int32_t *doc = r->doc ? r->doc + (int64_t)b * r->T : NULL;
    return t > 0 && doc && doc[t] != doc[t - 1];
}

void cm_ssd_plan(cm_ssd_run *r) {
    int32_t n = 0;
    for (int b = 0; b < r->B; b++) {
        r->first[b] = n;
        int32_t state = !r->s0 ? CM_SSD_NONE : r->dS ? r->slots - 2 : CM_SSD_S0;
        int32_t slot = 0, doc = 0, skip = 0;
        for (int t = 0; t < r->T;) {
            bool first = t == 0 || starts(r, b, t);
            doc += first && t > 0;
            if (first) skip = r->doc_skip ? r->doc_skip[doc] : 0;
            if (first && r->doc_from) state = r->doc_from[doc] ? CM_SSD_DOC : CM_SSD_NONE;
            int end = t + 1;
            while (end < r->T && end - t < r->Q && !starts(r, b, end)) end++;
            bool last = end == r->T, passes = !last && !starts(r, b, end);
            int32_t out = passes                      ? slot++
                          : last && r->want_state     ? r->slots - 1
                          : r->doc_to && r->doc_to[doc] ? CM_SSD_DOC
                                                      : CM_SSD_NONE;
            r->chunk[n++] = (cm_ssd_chunk){ b, t, end - t, state, out, doc,
                                              skip < end - t ? skip : end - t };
            skip -= r->chunk[n - 1].skip;
            state = passes ? out : CM_SSD_NONE;
            t = end;
        }
    }
    r->first[r->B] = n;
}

/* softplus is the identity above 20, where it differs by less than 2.1e-9. */
static void softplus(int64_t n, const cm_real *v, cm_real *dt, cm_real *sig) {
    cm_k.vsoftplus(n, v, dt);
    if (sig) cm_k.vsigmoid(n, v, sig);
    for (int64_t t = 0; t < n; t++) {
        if (!(v[t] > 20)) continue;
        dt[t] = v[t];
        if (sig) sig[t] = 1;
    }
}

void cm_ssd_steps(const cm_ssd_run *r, int b, int h) {
    int64_t at = cm_ssd_at(r, b, h, 0);
    cm_real *dt = r->dt + at, *cs = r->cs + at, *ec = r->ec + at, *re = r->r + at;
    cm_real *rd = r->rd + at;
    const cm_real *raw = r->dtx + (int64_t)b * r->T * r->wd + r->dcol + h;
    for (int64_t t = 0; t < r->T; t++) cs[t] = raw[t * r->wd] + r->bias[h];
    softplus(r->T, cs, dt, r->sig ? r->sig + at : NULL);
    for (int32_t i = r->first[b]; i < r->first[b + 1]; i++) {
        const cm_ssd_chunk *k = &r->chunk[i];
        cm_real sum = 0;
        for (int t = k->t0; t < k->t0 + k->q; t++) cs[t] = sum += dt[t] * r->A[h];
        /* The sum never rises, so no difference is positive and no exp above 1. */
        for (int t = k->t0; t < k->t0 + k->q; t++) re[t] = sum - cs[t];
    }
    cm_k.vexp(r->T, cs, ec);
    cm_k.vexp(r->T, re, re);
    for (int64_t t = 0; t < r->T; t++) rd[t] = re[t] * dt[t];
}

/* ---- triangles ----------------------------------------------------------------------- */

static int tri_rows(int i, int q) { return q - i < CM_SSD_TRI ? q - i : CM_SSD_TRI; }

void cm_ssd_lower(const cm_ssd_run *r, int i0, int q, int n, cm_word_mat m, cm_word_mat x,
                  cm_real beta, cm_real *y, int64_t ldy) {
    for (int i = i0; i < q; i += CM_SSD_TRI) {
        int rows = tri_rows(i, q);
        cm_word_mat a = { m.at + i * m.row, m.row, m.step };
        cm_word_product(r->how, rows, n, i + rows, a, x, beta, y + i * ldy, ldy);
    }
}

void cm_ssd_upper(const cm_ssd_run *r, int q, int n, cm_word_mat m, cm_word_mat x,
                  cm_real beta, cm_real *y, int64_t ldy) {
    for (int j = 0; j < q; j += CM_SSD_TRI) {
        int64_t word = cm_word_count(r->how, j);
        cm_word_mat a = { m.at + j * m.row + word * m.step, m.row, m.step };
        cm_word_mat b = { x.at + word * x.step, 1, x.step };
        cm_word_product(r->how, tri_rows(j, q), n, q - j, a, b, beta, y + j * ldy, ldy);
    }
}

void cm_ssd_pairs(const cm_ssd_run *r, int i0, int q, int K, cm_word_mat a, cm_word_mat b,
                  cm_real *e) {
    for (int j = 0; j < q; j += CM_SSD_TRI) {
        int i = j / 16 * 16 > i0 ? j / 16 * 16 : i0;
        cm_word_mat x = { a.at + j * a.row, a.row, a.step }, y = { b.at + i, 1, b.step };
        cm_word_product(r->how, tri_rows(j, q), q - i, K, x, y, 0, e + j * r->ld + i, r->ld);
    }
}
