/* muon.c -- momentum orthogonalised by Newton-Schulz, for hidden matrices.
 *
 *   m <- mu m + (1-mu) g        u = mu m + (1-mu) g          (Nesterov)
 *   O = NewtonSchulz(u)         w <- (1 - lr wd) w - lr s O
 * (Jordan's Muon.)  s = 0.2 sqrt(max(rows, cols)) gives updates the size of AdamW's, so
 * that its rate and decay can be reused (Moonlight, arXiv 2502.16982).  Every expert, and
 * every row block that is a matrix of its own, is orthogonalised alone. */
#include "train/train.h"

#include <math.h>
#include <string.h>

enum { ROW_BLOCK = 64 };

/* One matrix inside a parameter: rows of `cols` numbers, dense. */
typedef struct {
    int64_t rows, cols;
    cm_real *w, *m;
    const cm_real *g;
} block;

typedef struct {
    cm_real *x, *y, *a, *b; /* [rows,cols] twice, [k,k] twice, k = min(rows, cols) */
} work;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static work take_work(cm_arena *arena, int64_t rows, int64_t cols) {
    size_t k = (size_t)least(rows, cols), n = (size_t)(rows * cols);
    work s;
    s.x = cm_arena_alloc(arena, n * sizeof(cm_real));
    s.y = cm_arena_alloc(arena, n * sizeof(cm_real));
    s.a = cm_arena_alloc(arena, k * k * sizeof(cm_real));
    s.b = cm_arena_alloc(arena, k * k * sizeof(cm_real));
    return s;
}

/* x <- nearest semi-orthogonal matrix of x, roughly: singular values end in about
 * [0.7, 1.2].  The smaller Gram matrix is used, so no transpose is ever formed. */
void cm_newton_schulz(int64_t rows, int64_t cols, int steps, cm_real *x, cm_real *y,
                      cm_real *a, cm_real *b) {
    const cm_real ca = 3.4445, cb = -4.7750, cc = 2.0315;
    bool tall = rows > cols;
    int64_t n = rows * cols, k = least(rows, cols), other = tall ? rows : cols;
    double norm = 0;
    for (int64_t r = 0; r < rows; r++) norm += cm_k.sumsq(cols, x + r * cols);
    cm_k.scale(n, (cm_real)(1 / (sqrt(norm) + 1e-7)), x);
    cm_real *from = x, *to = y;
    for (int i = 0; i < steps; i++) {
        cm_gemm(tall, !tall, k, k, other, 1, from, cols, from, cols, 0, a, k);
        memcpy(b, a, (size_t)(k * k) * sizeof *b);
        cm_gemm(false, false, k, k, k, cc, a, k, a, k, cb, b, k);
        memcpy(to, from, (size_t)n * sizeof *to);
        if (tall)
            cm_gemm(false, false, rows, cols, k, 1, from, cols, b, k, ca, to, cols);
        else
            cm_gemm(false, false, rows, cols, k, 1, b, k, from, cols, ca, to, cols);
        cm_real *t = from;
        from = to;
        to = t;
    }
    if (from != x) memcpy(x, from, (size_t)n * sizeof *x);
}

/* Momentum of some rows, and their Nesterov direction in x. */
static void momentum(const block *k, int64_t r0, int64_t r1, double mu, double gscale,
                     cm_real *x) {
    cm_real keep = (cm_real)mu, in = (cm_real)((1 - mu) * gscale);
    for (int64_t i = r0 * k->cols; i < r1 * k->cols; i++) {
        k->m[i] = keep * k->m[i] + in * k->g[i];
        x[i] = keep * k->m[i] + in * k->g[i];
    }
}

static void step_block(const cm_optim_conf *c, const block *k, const work *s, double lr,
                       double gscale) {
    int64_t blocks = (k->rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads())
    for (int64_t i = 0; i < blocks; i++)
        momentum(k, i * ROW_BLOCK, least((i + 1) * ROW_BLOCK, k->rows), c->muon_momentum,
                 gscale, s->x);
    cm_newton_schulz(k->rows, k->cols, (int)c->muon_steps, s->x, s->y, s->a, s->b);
    double scale = 0.2 * sqrt((double)(k->rows > k->cols ? k->rows : k->cols));
    cm_real keep = (cm_real)(1 - lr * c->weight_decay), move = (cm_real)(-lr * scale);
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads())
    for (int64_t i = 0; i < blocks; i++) {
        int64_t at = i * ROW_BLOCK * k->cols;
        int64_t n = least((i + 1) * ROW_BLOCK, k->rows) * k->cols - at;
        cm_k.scale(n, keep, k->w + at);
        cm_k.add_scaled(n, move, s->x + at, k->w + at);
    }
}

/* All matrices of one parameter: [experts] x row blocks. */
static void step_param(cm_optim *o, int i, double lr, double gscale, cm_arena *arena,
                       bool dry) {
    const cm_param *p = o->ps->p[i];
    const cm_tensor *v = &p->var.v;
    int64_t cols = v->dim[v->nd - 1], rows = v->dim[v->nd - 2];
    int64_t mats = cm_tensor_count(v) / (rows * cols);
    int n_split = p->n_split ? p->n_split : 1;
    for (int64_t at = 0, e = 0; e < mats; e++)
        for (int b = 0; b < n_split; b++) {
            int64_t r = p->n_split ? p->split[b] : rows;
            size_t mark = cm_arena_mark(arena);
            work s = take_work(arena, r, cols);
            block k = { r, cols, cm_rdata(v) + at, o->m[i] + at, p->var.g + at };
            if (!dry) step_block(&o->conf, &k, &s, lr, gscale);
            cm_arena_reset(arena, mark);
            at += r * cols;
        }
}

void cm_muon_all(cm_optim *o, double share, double gscale, cm_arena *arena, bool dry) {
    double lr = (o->conf.muon_lr > 0 ? o->conf.muon_lr : o->conf.lr) * share;
    for (int i = 0; i < o->ps->n; i++)
        if (!o->v[i]) step_param(o, i, lr, gscale, arena, dry);
}
