/* op_conv_silu.c -- the Mamba-2 mixer's causal depthwise convolution with SiLU.
 *
 * Works on rows: a row of the output is a few rows of the input times rows of taps, all
 * dense over channels.  The backward takes some channels through a block of rows: what rows
 * share stays in registers. */
#include "op/narrow.h"

#include <omp.h>
#include <string.h>

/* ROWS, COLS: tokens and channels of a block of the backward.  SERIAL: values one thread does
 * alone. */
enum { ROWS = 64, COLS = 128, SERIAL = 1 << 13 };

typedef struct {
    cm_seq seq;
    int64_t col;
    const cm_real *w0;
    cm_real *w1;
} conv_attr;

static bool infer(cm_node *n, const char **why) {
    const conv_attr *a = n->attr;
    const cm_tensor *x = &n->in[0]->v, *w = &n->in[1]->v, *b = &n->in[2]->v;
    if (w->nd != 2 || w->dim[1] < 1 || w->dim[1] > CM_MAX_TAPS)
        return *why = "w must be [C,K] with K from 1 to 16", false;
    if (b->nd != 1 || b->dim[0] != w->dim[0]) return *why = "b must be [C]", false;
    if (x->nd != 2 || x->dim[0] != (int64_t)a->seq.B * a->seq.T)
        return *why = "x must have B*T rows", false;
    if (a->col < 0 || a->col + w->dim[0] > x->dim[1])
        return *why = "columns [col,col+C) must lie in x", false;
    n->out[0]->v.nd = 2;
    n->out[0]->v.dim[0] = x->dim[0];
    n->out[0]->v.dim[1] = w->dim[0];
    return true;
}

typedef struct {
    int B, T, K, blocks;  /* blocks of ROWS tokens in a row */
    int strips;           /* of COLS channels */
    int64_t W, C, col;
    const cm_seq *seq;
    const cm_real *x;     /* at column col of row 0 */
    const cm_real *b, *w0;
    cm_real *w;           /* [K,C]: taps transposed */
    cm_real *room;        /* [threads][ROWS,COLS] of a narrow gx */
    cm_real *part;        /* [B*blocks][K+1,C]: parts of gw and, last, gb */
} conv_run;

static size_t reals(int64_t n) { return cm_align_up((size_t)n * sizeof(cm_real)); }

static size_t setup(conv_run *r, const cm_node *n, bool backward, unsigned char *p) {
    const conv_attr *a = n->attr;
    *r = (conv_run){
        .B = a->seq.B, .T = a->seq.T, .K = (int)n->in[1]->v.dim[1],
        .blocks = (a->seq.T + ROWS - 1) / ROWS, .W = n->in[0]->v.dim[1],
        .col = a->col, .C = n->in[1]->v.dim[0], .seq = &a->seq,
        .b = cm_rdata(&n->in[2]->v), .w0 = a->w0,
    };
    r->strips = (int)((r->C + COLS - 1) / COLS);
    cm_tensor gx = cm_grad_of(n->in[0]);
    size_t w = reals(r->K * r->C), room = cm_rooms(&gx, ROWS * COLS);
    size_t part = reals((int64_t)r->B * r->blocks * (r->K + 1) * r->C);
    if (p) {
        r->x = cm_rdata(&n->in[0]->v) + a->col;
        r->w = (cm_real *)p;
        r->room = (cm_real *)(p + w);
        r->part = (cm_real *)(p + w + room);
        const cm_real *taps = cm_rdata(&n->in[1]->v);
        for (int64_t c = 0; c < r->C; c++)
            for (int m = 0; m < r->K; m++) r->w[m * r->C + c] = taps[c * r->K + m];
    }
    return backward ? w + room + part : w;
}

static size_t scratch_bytes(const cm_node *n, bool backward) {
    conv_run r;
    return setup(&r, n, backward, NULL);
}

static bool same_doc(const conv_run *r, int b, int t) { /* of tokens t-1 and t */
    const int32_t *doc = r->seq->doc ? r->seq->doc + (int64_t)b * r->T : NULL;
    return !doc || doc[t - 1] == doc[t];
}

/* The rows that token t sees, oldest first; returns how many of the K there are. */
static int rows_seen(const conv_run *r, int b, int t, const cm_real **row) {
    int taps = 1;
    while (taps < r->K && t - taps >= 0 && same_doc(r, b, t - taps + 1)) taps++;
    if (taps < r->K && t - taps < 0 && r->w0) taps = r->K;
    for (int m = 0; m < taps; m++) {
        int s = t - (taps - 1) + m;
        row[m] = s >= 0 ? r->x + ((int64_t)b * r->T + s) * r->W
                        : r->w0 + ((int64_t)b * (r->K - 1) + s + r->K - 1) * r->C;
    }
    return taps;
}

/* The window after the row, oldest first, so that w1 may be w0. */
static void next_window(const conv_run *r, int b, cm_real *w1) {
    const cm_real *row[CM_MAX_TAPS];
    int keep = r->K - 1, taps = 0;
    if (keep == 0) return;
    if (r->T > 0) taps = rows_seen(r, b, r->T - 1, row);
    size_t bytes = (size_t)r->C * sizeof *w1;
    cm_real *out = w1 + (int64_t)b * keep * r->C;
    for (int m = 0; m < keep; m++, out += r->C) {
        int from = taps - keep + m;
        if (from >= 0)
            memmove(out, row[from], bytes);
        else
            memset(out, 0, bytes);
    }
}

static void fwd(cm_node *n, void *scratch) {
    const conv_attr *a = n->attr;
    conv_run r;
    setup(&r, n, false, scratch);
    cm_real *y = cm_rdata(&n->out[0]->v);
    int64_t R = (int64_t)r.B * r.T;
#pragma omp parallel for num_threads(cm_kern_threads()) if (R * r.C > SERIAL)
    for (int64_t i = 0; i < R; i++) {
        const cm_real *row[CM_MAX_TAPS];
        int taps = rows_seen(&r, (int)(i / r.T), (int)(i % r.T), row);
        cm_k.conv_silu(r.C, taps, row, r.w + (r.K - taps) * r.C, r.b, y + i * r.C);
    }
    for (int b = 0; a->w1 && b < r.B; b++) next_window(&r, b, a->w1);
}

/* Before the first token of its document there are zeros. */
static const cm_real zeros[COLS];

/* Rows at channel c that tokens from t on see, as far as token `end`: K-1 before t, then
 * [t,end). */
static void rows_from(const conv_run *r, int b, int t, int end, int64_t c,
                      const cm_real **row) {
    const cm_real *seen[CM_MAX_TAPS];
    int taps = rows_seen(r, b, t, seen), none = r->K - taps;
    for (int m = 0; m < r->K; m++) row[m] = m < none ? zeros : seen[m - none] + c;
    for (int s = t + 1; s < end; s++)
        row[s - t + r->K - 1] = r->x + ((int64_t)b * r->T + s) * r->W + c;
}

/* Tokens [t,to) of one document, n channels from c.  Up to K-1 tokens after them are computed
 * here and in the next block: they finish our input gradients, and only there count for the
 * taps.  Narrow, nobody else writes gx. */
static void tokens_back(const conv_run *r, int b, int t, int to, int64_t c, int64_t n,
                        const cm_real *gy, const cm_tensor *gx, cm_real *part) {
    const cm_real *row[ROWS + 2 * CM_MAX_TAPS];
    int end = to;
    while (end < r->T && end < to + r->K - 1 && same_doc(r, b, end)) end++;
    rows_from(r, b, t, end, c, row);
    int64_t at = (int64_t)b * r->T + t, gat = at * r->W + r->col + c;
    bool narrow = gx->dtype != CM_REAL_DTYPE;
    cm_conv_back a = {
        .taps = r->K, .T = end - t, .own = to - t, .x = row, .w = r->w + c, .b = r->b + c,
        .dy = gy + at * r->C + c, .gw = part + c, .gb = part + r->K * r->C + c,
        .ldw = r->C, .ldy = r->C, .ldx = narrow ? n : r->W, .add = !narrow,
    };
    if (gx->data)
        a.gx = cm_place(gx, gat, cm_room_of(r->room, ROWS * COLS, omp_get_thread_num()));
    cm_k.conv_silu_back(n, &a);
    for (int s = 0; gx->data && narrow && s < a.own; s++)
        cm_put(gx, gat + s * r->W, n, a.gx + s * n);
}

/* Tokens [t0, t0+ROWS) of a row, n channels from c; part[K+1,C]. */
static void block_back(const conv_run *r, int b, int t0, int64_t c, const cm_real *gy,
                       const cm_tensor *gx, cm_real *part) {
    int t1 = t0 + ROWS < r->T ? t0 + ROWS : r->T;
    int64_t n = r->C - c < COLS ? r->C - c : COLS;
    for (int m = 0; m <= r->K; m++) memset(part + m * r->C + c, 0, (size_t)n * sizeof *part);
    for (int t = t0, to; t < t1; t = to) {
        for (to = t + 1; to < t1 && same_doc(r, b, to);) to++;
        tokens_back(r, b, t, to, c, n, gy, gx, part);
    }
}

static void bwd(cm_node *n, void *scratch) {
    conv_run r;
    setup(&r, n, true, scratch);
    const cm_real *gy = n->out[0]->g;
    cm_tensor gx = cm_grad_of(n->in[0]);
    int parts = r.B * r.blocks, items = parts * r.strips;
    int64_t size = (r.K + 1) * r.C;
    bool many = (int64_t)r.B * r.T * r.C > SERIAL;
    /* A thread that takes neighbours finds in its cache what it called for. */
    int together = parts >= 4 * cm_kern_threads() ? r.strips : 1;
#pragma omp parallel for schedule(dynamic, together) num_threads(cm_kern_threads()) if (many)
    for (int i = 0; i < items; i++) {
        int k = i / r.strips;
        block_back(&r, k / r.blocks, k % r.blocks * ROWS, i % r.strips * COLS, gy, &gx,
                   r.part + k * size);
    }
    for (int i = 1; i < parts; i++) cm_k.add_scaled(size, 1, r.part + i * size, r.part);
    cm_real *gw = n->in[1]->g, *gb = n->in[2]->g;
    for (int64_t c = 0; gw && parts && c < r.C; c++)
        for (int m = 0; m < r.K; m++) gw[c * r.K + m] += r.part[m * r.C + c];
    if (gb && parts) cm_k.add_scaled(r.C, 1, r.part + r.K * r.C, gb);
}

/* Cases: one document, several, a window before the row, fewer tokens than taps, and a
 * row longer than a block of the backward. */
static bool sample(cm_sample *s, int i) {
    static const struct { int B, T, C, K, docs; bool window; } cases[] = {
        { 2, 9, 3, 4, 1, false }, { 2, 12, 3, 4, 4, false }, { 2, 7, 2, 4, 2, true },
        { 1, 2, 3, 4, 1, true },  { 1, 3, 2, 1, 1, false },  { 1, 70, 1, 3, 3, false },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    int B = cases[i].B, T = cases[i].T, C = cases[i].C, K = cases[i].K;
    cm_seq seq;
    cm_sample_seq(s, &seq, B, T, cases[i].docs);
    cm_var *x = cm_sample_in(s, "x", 2, (int64_t[]){ B * T, C + 3 }, -1, 1);
    cm_var *w = cm_sample_param(s, "w", 2, (int64_t[]){ C, K }, -1, 1);
    cm_var *b = cm_sample_param(s, "b", 1, (int64_t[]){ C }, -1, 1);
    cm_real *w0 = NULL;
    if (cases[i].window) {
        w0 = cm_sample_mem(s, (size_t)(B * (K - 1) * C) * sizeof *w0);
        for (int k = 0; k < B * (K - 1) * C; k++)
            w0[k] = (cm_real)(cm_sample_int(s, (uint64_t)(5000 + k), 200) - 100) / 100;
    }
    cm_sample_out(s, cm_conv_silu(cm_sample_tape(s), x, w, b, &seq, 2, w0, NULL));
    return true;
}

static cm_cols cols(const cm_node *n, int i) {
    const conv_attr *a = n->attr;
    (void)i;
    return (cm_cols){ a->col, a->col + n->out[0]->v.dim[1] };
}

static int64_t touched(const cm_node *n, int i) {
    return cm_tensor_count(i ? &n->in[i]->v : &n->out[0]->v);
}

const cm_op cm_op_conv_silu = {
    .name = "conv_silu", .shapes = "x[R,W] w[C,K] b[C] -> y[R,C]", .n_in = 3, .n_out = 1,
    .attr_bytes = sizeof(conv_attr), .gives_g = 1, .cols = cols,
    .infer = infer, .scratch = scratch_bytes, .fwd = fwd,
    .bwd = bwd, .touched = touched, .sample = sample,
};

cm_var *cm_conv_silu(cm_tape *t, cm_var *x, cm_var *w, cm_var *b, const cm_seq *seq,
                     int64_t col, const cm_real *w0, cm_real *w1) {
    conv_attr a = { *seq, col, w0, w1 };
    cm_var *y;
    cm_tape_apply(t, &cm_op_conv_silu, (cm_var *[]){ x, w, b }, 3, &a, &y);
    return y;
}
