/* muon.c -- momentum orthogonalised by Newton-Schulz, for hidden matrices.
 *
 *   m <- mu m + (1-mu) g        u = mu m + (1-mu) g          (Nesterov)
 *   O = NewtonSchulz(u)         w <- (1 - lr wd) w - lr s O
 * (Jordan's Muon), and with muon_beta2 = b Adam's quotient in the place of u:
 *   v <- b v + (1-b) g^2        u / (sqrt v + eps)
 * whose scale, and so the correction of v's bias, the orthogonalisation takes away.
 * s = 0.2 sqrt(max(rows, cols)) gives updates the size of AdamW's, so that its rate and decay
 * can be reused (Moonlight, arXiv 2502.16982).  Every expert, and every row block that is a
 * matrix of its own, is orthogonalised alone; they are small and many, so threads take whole
 * matrices and no result depends on how many threads there are. */
#include "train/train.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* One matrix inside a parameter: rows of `cols` numbers, dense. */
typedef struct {
    int64_t rows, cols;
    cm_real *w, *m, *v; /* v: NULL without muon_beta2 */
    const cm_real *g;
} block;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- products ---------------------------------------------------------------------- */

/* Up to SMALL, operands go to the micro-kernel as they lie: packing them would take about as
 * long as the product.  PANEL: columns of a symmetric product that are computed together. */
enum { SMALL = 512, SMALL_DEPTH = 512, PANEL = 16, WIDE_PANEL = 64 };

/* C[M,N] = op(A) B, op the transpose or nothing, B row-major. */
static void product(bool ta, int64_t M, int64_t N, int64_t K, const cm_real *A, int64_t lda,
                    const cm_real *B, int64_t ldb, cm_real *C, int64_t ldc) {
    if (N > SMALL || K > SMALL_DEPTH) {
        cm_gemm1(ta, false, M, N, K, 1, A, lda, B, ldb, 0, C, ldc);
        return;
    }
    cm_word_mat a = { A, ta ? 1 : lda, ta ? lda : 1 }, b = { B, 1, ldb };
    cm_word_product(CM_COMPUTE_FP32, M, N, K, a, b, 0, C, ldc);
}

/* C[k,k] = op(A) B where that is symmetric: from the diagonal down, then mirrored. */
static void symmetric(bool ta, int64_t k, int64_t K, const cm_real *A, int64_t lda,
                      const cm_real *B, int64_t ldb, cm_real *C) {
    int64_t panel = k > SMALL ? WIDE_PANEL : PANEL;
    for (int64_t j = 0; j < k; j += panel) {
        int64_t n = least(panel, k - j), below = j + n;
        product(ta, k - j, n, K, A + j * (ta ? 1 : lda), lda, B + j, ldb, C + j * k + j, k);
        cm_k.transpose(k - below, n, C + below * k + j, k, C + j * k + below, k);
    }
}

/* ---- Newton-Schulz ----------------------------------------------------------------- */

/* Steps from one Gram matrix; the first one's eigenvalues are smaller.  What rounding does to
 * the smallest grows twelvefold a step; so few leave the result as exact as steps on x. */
enum { FROM_FIRST = 3, FROM_OTHERS = 2 };

size_t cm_newton_room(int64_t rows, int64_t cols) {
    int64_t k = least(rows, cols);
    return (size_t)(4 * k * k);
}

static double trace(int64_t k, const cm_real *a) {
    double sum = 0;
    for (int64_t i = 0; i < k; i++) sum += a[i * (k + 1)];
    return sum;
}

/* m: 4 matrices [k,k], the first of them G, symmetric.  `steps` steps from it turn x into
 * Q x; returns Q, one of m, and what it is to be multiplied by.  All matrices here are
 * polynomials of G, so they are symmetric and commute: a step is P = a + b G + c G^2,
 * Q <- Q P, G <- P G P.  G is kept as G/s and P as P/(c s^2), scalars in place of passes. */
static cm_real *polynomial(int64_t k, int steps, cm_real *m, double *scale) {
    const double a = 3.4445, b = -4.7750, c = 2.0315;
    cm_real *g = m, *p = m + k * k, *q = p + k * k, *t = q + k * k;
    double s = 1;
    *scale = 1;
    for (int i = 1;; i++) {
        symmetric(false, k, k, g, k, g, k, p);
        cm_k.sum_scaled(k * k, p, (cm_real)(b / (c * s)), g, p);
        for (int64_t j = 0; j < k; j++) p[j * (k + 1)] += (cm_real)(a / (c * s * s));
        *scale *= c * s * s;
        if (i > 1) symmetric(false, k, k, q, k, p, k, t);
        else memcpy(t, p, (size_t)(k * k) * sizeof *t);
        if (i == steps) return t;
        cm_real *was = q;
        q = t;
        t = was;
        symmetric(false, k, k, g, k, p, k, t);
        symmetric(false, k, k, t, k, p, k, g);
        s *= c * c * s * s * s * s;
    }
}

/* Steps on x would be x <- P x with a Gram matrix for each: the same polynomial of x, in two
 * to three times as many products of x.  The smaller Gram matrix is used. */
void cm_newton_schulz(int64_t rows, int64_t cols, int steps, cm_real *x, cm_real *y,
                      cm_real *room) {
    bool tall = rows > cols;
    int64_t k = least(rows, cols), other = tall ? rows : cols;
    for (int done = 0; done < steps;) {
        if (done) memcpy(x, y, (size_t)(rows * cols) * sizeof *x);
        if (!tall) cm_k.transpose(rows, cols, x, cols, y, rows);
        symmetric(tall, k, other, x, cols, tall ? x : y, k, room);
        double norm = done ? 1 : sqrt(trace(k, room)) + 1e-7, scale;
        cm_k.scale(k * k, (cm_real)(1 / (norm * norm)), room);
        int now = (int)least(steps - done, done ? FROM_OTHERS : FROM_FIRST);
        cm_real *q = polynomial(k, now, room, &scale);
        cm_k.scale(k * k, (cm_real)(scale / norm), q);
        if (tall) product(false, rows, cols, k, x, cols, q, k, y, cols);
        else product(false, rows, cols, k, q, k, x, cols, y, cols);
        done += now;
    }
}

/* ---- the update -------------------------------------------------------------------- */

typedef struct {
    cm_real *x, *y, *room; /* [rows,cols] twice, and cm_newton_schulz's */
} work;

static work take_work(cm_arena *arena, size_t n, size_t room) {
    work s;
    s.x = cm_arena_alloc(arena, n * sizeof(cm_real));
    s.y = cm_arena_alloc(arena, n * sizeof(cm_real));
    s.room = cm_arena_alloc(arena, room * sizeof(cm_real));
    return s;
}

/* One matrix's whole update, on the calling thread. */
static void step_block(const cm_optim *o, const block *k, const work *s, double lr,
                       double gscale) {
    const cm_optim_conf *c = &o->conf;
    int64_t n = k->rows * k->cols;
    cm_adamw h = { .b1 = (cm_real)o->momentum, .b2 = (cm_real)c->muon_beta2,
                   .eps = (cm_real)c->eps, .gscale = (cm_real)gscale };
    cm_k.nesterov(n, k->g, k->m, k->v, s->x, &h);
    cm_newton_schulz(k->rows, k->cols, (int)c->muon_steps, s->x, s->y, s->room);
    double scale = 0.2 * sqrt((double)(k->rows > k->cols ? k->rows : k->cols));
    cm_k.scale(n, (cm_real)(1 - lr * c->weight_decay), k->w);
    cm_k.add_scaled(n, (cm_real)(-lr * scale), s->y, k->w);
}

/* The matrices of all parameters that Muon steps; list NULL only counts.  Largest sizes
 * go to *n_max (elements) and *room (scratch). */
static int list_blocks(const cm_optim *o, block *list, size_t *n_max, size_t *room) {
    int count = 0;
    for (int i = 0; i < o->ps->n; i++) {
        const cm_param *p = o->ps->p[i];
        if (!cm_optim_uses_muon(&o->conf, p)) continue;
        const cm_tensor *w = &p->var.v;
        cm_real *v = o->v[i].data ? cm_rdata(&o->v[i]) : NULL;
        int64_t cols = w->dim[w->nd - 1], rows = w->dim[w->nd - 2], all = cm_tensor_count(w);
        int n_split = p->n_split ? p->n_split : 1;
        for (int64_t at = 0, b = 0; at < all; b = (b + 1) % n_split) {
            int64_t r = p->n_split ? p->split[b] : rows;
            if (list)
                list[count] = (block){ r, cols, cm_rdata(w) + at, cm_rdata(&o->m[i]) + at,
                                       v ? v + at : NULL, p->var.g + at };
            size_t n = (size_t)(r * cols), need = cm_newton_room(r, cols);
            *n_max = n > *n_max ? n : *n_max;
            *room = need > *room ? need : *room;
            at += r * cols;
            count++;
        }
    }
    return count;
}

void cm_muon_all(cm_optim *o, double share, double gscale, cm_arena *arena, bool dry) {
    double lr = (o->conf.muon_lr > 0 ? o->conf.muon_lr : o->conf.lr) * share;
    size_t mark = cm_arena_mark(arena), n_max = 0, room = 0;
    int n = list_blocks(o, NULL, &n_max, &room), threads = cm_kern_threads();
    block *list = cm_arena_alloc(arena, (size_t)n * sizeof *list);
    work *s = cm_arena_alloc(arena, (size_t)threads * sizeof *s);
    for (int t = 0; t < threads; t++) {
        work one = take_work(arena, n_max, room);
        if (!dry) s[t] = one;
    }
    if (!dry) {
        list_blocks(o, list, &n_max, &room);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int i = 0; i < n; i++)
            step_block(o, &list[i], &s[omp_get_thread_num()], lr, gscale);
    }
    cm_arena_reset(arena, mark);
}
