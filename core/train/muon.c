/* muon.c -- momentum orthogonalised by Newton-Schulz, for hidden matrices.
 *
 *   m <- mu m + (1-mu) g        u = mu m + (1-mu) g          (Nesterov)
 *   O = NewtonSchulz(u)         w <- (1 - lr wd) w - lr s O
 * (Jordan's Muon.)  s = 0.2 sqrt(max(rows, cols)) gives updates the size of AdamW's, so
 * that its rate and decay can be reused (Moonlight, arXiv 2502.16982).  Every expert, and
 * every row block that is a matrix of its own, is orthogonalised alone; they are small and
 * many, so threads take whole matrices and no result depends on how many threads there are. */
#include "train/train.h"

#include <math.h>
#include <omp.h>
#include <string.h>

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

static work take_work(cm_arena *arena, size_t n, size_t k) {
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
        cm_gemm1(tall, !tall, k, k, other, 1, from, cols, from, cols, 0, a, k);
        memcpy(b, a, (size_t)(k * k) * sizeof *b);
        cm_gemm1(false, false, k, k, k, cc, a, k, a, k, cb, b, k);
        memcpy(to, from, (size_t)n * sizeof *to);
        if (tall)
            cm_gemm1(false, false, rows, cols, k, 1, from, cols, b, k, ca, to, cols);
        else
            cm_gemm1(false, false, rows, cols, k, 1, b, k, from, cols, ca, to, cols);
        cm_real *t = from;
        from = to;
        to = t;
    }
    if (from != x) memcpy(x, from, (size_t)n * sizeof *x);
}

/* One matrix's whole update, on the calling thread. */
static void step_block(const cm_optim *o, const block *k, const work *s, double lr,
                       double gscale) {
    const cm_optim_conf *c = &o->conf;
    int64_t n = k->rows * k->cols;
    cm_real mu = (cm_real)o->momentum, in = (cm_real)((1 - o->momentum) * gscale);
    for (int64_t i = 0; i < n; i++) {
        k->m[i] = mu * k->m[i] + in * k->g[i];
        s->x[i] = mu * k->m[i] + in * k->g[i];
    }
    cm_newton_schulz(k->rows, k->cols, (int)c->muon_steps, s->x, s->y, s->a, s->b);
    double scale = 0.2 * sqrt((double)(k->rows > k->cols ? k->rows : k->cols));
    cm_k.scale(n, (cm_real)(1 - lr * c->weight_decay), k->w);
    cm_k.add_scaled(n, (cm_real)(-lr * scale), s->x, k->w);
}

/* The matrices of all parameters that Muon steps; list NULL only counts.  Largest sizes
 * go to *n_max (elements) and *k_max (smaller side). */
static int list_blocks(const cm_optim *o, block *list, size_t *n_max, size_t *k_max) {
    int count = 0;
    for (int i = 0; i < o->ps->n; i++) {
        if (o->v[i].data) continue;
        const cm_param *p = o->ps->p[i];
        const cm_tensor *v = &p->var.v;
        int64_t cols = v->dim[v->nd - 1], rows = v->dim[v->nd - 2], all = cm_tensor_count(v);
        int n_split = p->n_split ? p->n_split : 1;
        for (int64_t at = 0, b = 0; at < all; b = (b + 1) % n_split) {
            int64_t r = p->n_split ? p->split[b] : rows;
            if (list)
                list[count] = (block){ r, cols, cm_rdata(v) + at, cm_rdata(&o->m[i]) + at,
                                       p->var.g + at };
            size_t n = (size_t)(r * cols), k = (size_t)least(r, cols);
            *n_max = n > *n_max ? n : *n_max;
            *k_max = k > *k_max ? k : *k_max;
            at += r * cols;
            count++;
        }
    }
    return count;
}

void cm_muon_all(cm_optim *o, double share, double gscale, cm_arena *arena, bool dry) {
    double lr = (o->conf.muon_lr > 0 ? o->conf.muon_lr : o->conf.lr) * share;
    size_t mark = cm_arena_mark(arena), n_max = 0, k_max = 0;
    int n = list_blocks(o, NULL, &n_max, &k_max), threads = cm_kern_threads();
    block *list = cm_arena_alloc(arena, (size_t)n * sizeof *list);
    work *s = cm_arena_alloc(arena, (size_t)threads * sizeof *s);
    for (int t = 0; t < threads; t++) {
        work one = take_work(arena, n_max, k_max);
        if (!dry) s[t] = one;
    }
    if (!dry) {
        list_blocks(o, list, &n_max, &k_max);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int i = 0; i < n; i++)
            step_block(o, &list[i], &s[omp_get_thread_num()], lr, gscale);
    }
    cm_arena_reset(arena, mark);
}
