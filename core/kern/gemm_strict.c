/* gemm_strict.c -- packing, cutting and threading around the micro-kernel.
 *
 * A product runs in steps: a range of columns and of K whose B fits the panel buffer.  A
 * step packs B into panels of nr columns (shared by the team), then computes tiles of C,
 * each on one thread: for every KC block pack the tile's A strips, then run the
 * micro-kernel over panels (B panel in L1) and strips (A block in L2).  Small products
 * skip packing and read the operands in place.  None of this changes a bit: gemm.h. */
#include "kern/gemm.h"

#include <omp.h>
#include <stdlib.h>

enum {
    TILE_ROWS = 96,          /* rows of an A block: 96 * KC floats, 192 KiB, stay in L2;
                                twice as many where a float holds a pair */
    LEAST_ROWS = 48,         /* that pay for a thread's reading all of B */
    OWN_COLS = 512,          /* columns of the per-thread B buffer at one KC block */
    FEW_COLS = 64,           /* as many as L2 keeps, for few rows: used once or twice */
    TEAM_FLOATS = 4 << 20,   /* shared B buffer */
    OWN_A = (TILE_ROWS + 32) * CM_GEMM_KC + CM_PACK_SLACK,
    OWN_B = (OWN_COLS + 32) * CM_GEMM_KC + CM_PACK_SLACK,
    OWN = (OWN_A + OWN_B + 15) / 16 * 16
};

static cm_real *own_buf, *team_buf;
static int n_own;

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
/* Steps of the micro-kernel over k elements of K, and their room in a row of a panel. */
static int64_t steps_of(const cm_micro *mk, int64_t k) { return ceil_div(k, mk->pair); }

bool cm_gemm_buffers(int threads, cm_err *err) {
    if (threads <= n_own) return true;
    size_t own = (size_t)threads * OWN * sizeof(cm_real);
    size_t team = (TEAM_FLOATS + CM_PACK_SLACK * 2) * sizeof(cm_real);
    free(own_buf);
    free(team_buf);
    own_buf = aligned_alloc(CM_ALIGN, own);
    team_buf = aligned_alloc(CM_ALIGN, cm_align_up(team));
    n_own = own_buf && team_buf ? threads : 0;
    if (n_own) return true;
    return cm_fail(err, CM_EXIT_RESOURCE, "out of memory: %zu bytes of packing buffers",
                   own + team);
}

/* Columns [j0, j0+nc) and K range [k0, k0+kc) of a product. */
typedef struct step {
    const cm_micro *mk;
    const cm_gemm_args *g;
    int64_t j0, nc, k0, kc;
    int64_t width; /* nc rounded up to panels */
    cm_real *b;    /* panels; NULL: B is read in place */
    int64_t ranges, parts; /* of rows: M in ranges, each in parts */
    int64_t cols, tile_n;  /* of columns */
} step;

static cm_real *own_of_thread(void) {
    int t = omp_get_thread_num();
    CM_ASSERT(t < n_own && omp_get_active_level() <= 1,
              "gemm on thread %d of level %d, buffers for %d", t, omp_get_active_level(),
              n_own);
    return own_buf + (int64_t)t * OWN;
}

/* Pack panel t of the step, counting panels of the first KC block first. */
static void pack_b(const step *s, int64_t t) {
    const cm_gemm_args *g = s->g;
    int nr = s->mk->nr;
    int64_t panels = s->width / nr, kb = t / panels * CM_GEMM_KC, j = t % panels * nr;
    int64_t k = min64(CM_GEMM_KC, s->kc - kb);
    int n = (int)min64(nr, s->nc - j);
    const void *src = cm_at(g->B, g->b_stored,
                            (s->k0 + kb) * g->brs + (s->j0 + j) * g->bcs);
    cm_real *dst = s->b + steps_of(s->mk, kb) * s->width + j * steps_of(s->mk, k);
    if (g->bcs == 1)
        s->mk->cols(dst, nr, src, g->b_stored, g->brs, n, k);
    else
        s->mk->rows(dst, nr, src, g->b_stored, g->bcs, n, k);
}

/* Pack m rows from i0 and k steps from k0 of A into strips of mr rows. */
static void pack_a(const step *s, cm_real *dst, int64_t i0, int64_t m, int64_t k0,
                   int64_t k) {
    const cm_gemm_args *g = s->g;
    int mr = s->mk->mr;
    const void *src = cm_at(g->A, g->a_stored, i0 * g->ars + k0 * g->acs);
    if (g->ars == 1) {
        s->mk->cols(dst, mr, src, g->a_stored, g->acs, m, k);
        return;
    }
    for (int64_t i = 0; i < m; i += mr, dst += mr * steps_of(s->mk, k))
        s->mk->rows(dst, mr, cm_at(src, g->a_stored, i * g->ars), g->a_stored, g->ars,
                    min64(mr, m - i), k);
}

/* Rows [*i, result) of part t of M, counted over all ranges.  Ranges are as long as each
 * other to a row; within one, parts have as many strips to one. */
static int64_t rows_of(const step *s, int64_t t, int64_t *i) {
    int64_t range = t / s->parts, part = t % s->parts, mr = s->mk->mr;
    int64_t from = s->g->M * range / s->ranges, to = s->g->M * (range + 1) / s->ranges;
    int64_t strips = ceil_div(to - from, mr);
    *i = from + strips * part / s->parts * mr;
    return min64(to, from + strips * (part + 1) / s->parts * mr);
}

/* The part of A that is packed after block kb of rows t: their next block, or the first of
 * the next rows of the range. */
static cm_ahead ahead_of(const step *s, int64_t t, int64_t kb, int64_t shares) {
    const cm_gemm_args *g = s->g;
    enum { LINE = 64 };
    cm_ahead f = { 0 };
    int64_t size = g->a_stored ? 2 : (int64_t)sizeof(cm_real), i;
    bool more = kb + CM_GEMM_KC < s->kc;
    if (!more && ++t % s->parts == 0) return f;
    int64_t m = rows_of(s, t, &i) - i, k0 = more ? kb + CM_GEMM_KC : 0;
    int64_t k = min64(CM_GEMM_KC, s->kc - k0);
    bool by_rows = g->ars != 1;
    f.row = cm_at(g->A, g->a_stored, i * g->ars + (s->k0 + k0) * g->acs);
    f.ld = (by_rows ? g->ars : g->acs) * size;
    f.width = (by_rows ? k : m) * size;
    f.rows = by_rows ? m : k;
    f.share = ceil_div(f.rows * ceil_div(f.width + LINE, LINE), shares);
    return f;
}

/* One KC block of one tile: rows t, columns [j, j+n) of the step. */
static void tile_block(const step *s, cm_real *abuf, int64_t t, int64_t j, int64_t n,
                       int64_t kb, int64_t k) {
    const cm_gemm_args *g = s->g;
    int64_t i, m = rows_of(s, t, &i) - i;
    int mr = s->mk->mr, nr = s->mk->nr;
    cm_real beta = s->k0 + kb == 0 ? g->beta : 1;
    int64_t ars = g->ars, acs = g->acs, strip = mr * g->ars, n_steps = steps_of(s->mk, k);
    const cm_real *a = abuf;
    cm_ahead soon = { 0 };
    if (abuf) {
        pack_a(s, abuf, i, m, s->k0 + kb, k);
        soon = ahead_of(s, t, kb, ceil_div(n, nr) * m);
        ars = 1, acs = mr, strip = mr * n_steps;
    } else {
        a = (const cm_real *)g->A + i * ars + (s->k0 + kb) * acs;
    }
    for (int64_t jj = j; jj < j + n; jj += nr) {
        const cm_real *b = s->b ? s->b + steps_of(s->mk, kb) * s->width + jj * n_steps
                                : (const cm_real *)g->B + (s->k0 + kb) * g->brs + s->j0 + jj;
        int cols = (int)min64(nr, j + n - jj);
        cm_real *c = g->C + i * g->ldc + s->j0 + jj;
        for (int64_t ii = 0; ii < m; ii += mr) {
            if (abuf && s->b && cols == nr && m - ii >= mr) {
                s->mk->packed(n_steps, a + ii / mr * strip, b, g->alpha, beta,
                              c + ii * g->ldc, g->ldc, &soon);
                continue;
            }
            s->mk->run(n_steps, a + ii / mr * strip, ars, acs, b, s->b ? nr : g->brs,
                       g->alpha, beta, c + ii * g->ldc, g->ldc, (int)min64(mr, m - ii),
                       cols);
        }
    }
}

/* Tile t of the step, all its KC blocks in order.  Threads that take tiles by turns each walk
 * down a range of their own, so that what is fetched ahead is what is needed next. */
static void tile(const step *s, int64_t t) {
    int64_t range = t % s->ranges, part = t / s->ranges / s->cols;
    int64_t j = t / s->ranges % s->cols * s->tile_n, n = min64(s->tile_n, s->nc - j);
    /* In-place A is read once per panel: worth copying when panels are many. */
    bool pack = s->g->how == CM_COMPUTE_BF16 || (n > 4 * s->mk->nr && s->g->M > 1);
    cm_real *abuf = pack ? own_of_thread() : NULL;
    for (int64_t kb = 0; kb < s->kc; kb += CM_GEMM_KC)
        tile_block(s, abuf, range * s->parts + part, j, n, kb,
                   min64(CM_GEMM_KC, s->kc - kb));
}

/* Cut the step's part of C: a range of rows for each thread, since each tile packs its own
 * rows of A; with few rows, of columns too. */
static void cut(step *s, int threads) {
    int64_t M = s->g->M, most = ceil_div(M, LEAST_ROWS), panels = ceil_div(s->nc, s->mk->nr);
    int64_t cols = min64(ceil_div(threads, most), ceil_div(panels, 4));
    s->tile_n = ceil_div(panels, cols) * s->mk->nr;
    s->cols = ceil_div(s->nc, s->tile_n);
    s->ranges = min64(most, ceil_div(threads, s->cols));
    s->parts = ceil_div(ceil_div(M, s->ranges), TILE_ROWS * s->mk->pair);
}

static int64_t tiles_of(const step *s) { return s->ranges * s->parts * s->cols; }

/* The step's work, by the calling thread alone or shared by its team. */
static void run_alone(const step *s) {
    int64_t panels = s->b ? s->width / s->mk->nr * ceil_div(s->kc, CM_GEMM_KC) : 0;
    for (int64_t t = 0; t < panels; t++) pack_b(s, t);
    for (int64_t t = 0; t < tiles_of(s); t++) tile(s, t);
}

static void run_team(const step *s) {
    int64_t panels = s->b ? s->width / s->mk->nr * ceil_div(s->kc, CM_GEMM_KC) : 0;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < panels; t++) pack_b(s, t);
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < tiles_of(s); t++) tile(s, t);
}

/* All steps; every thread of a team walks them together. */
static void steps(const cm_micro *mk, const cm_gemm_args *g, int threads, cm_real *b,
                  int64_t cap) {
    int nr = mk->nr;
    int64_t nc = b ? min64(round_up(g->N, nr), cap / CM_GEMM_KC / nr * nr) : g->N;
    int64_t kc = b ? cap / nc / CM_GEMM_KC * CM_GEMM_KC : g->K;
    for (int64_t j = 0; j < g->N; j += nc) {
        for (int64_t k = 0; k < g->K; k += kc) {
            step s = { mk, g, j, min64(nc, g->N - j), k, min64(kc, g->K - k), 0, b,
                       0, 0, 0, 0 };
            s.width = round_up(s.nc, nr);
            cut(&s, threads);
            if (threads == 1)
                run_alone(&s);
            else
                run_team(&s);
        }
    }
}

/* Reading B in place saves the copy when few rows use it, or when it stays in cache. */
static bool in_place(const cm_micro *mk, const cm_gemm_args *g) {
    return g->how == CM_COMPUTE_FP32 && g->bcs == 1 &&
           (g->M <= 2 * mk->mr || g->K * g->N <= 128 * 128);
}

static void alone(const cm_micro *mk, const cm_gemm_args *g) {
    if (g->how == CM_COMPUTE_FP32 && g->M <= CM_GEMM_NARROW && g->brs == 1) {
        cm_gemm_narrow(g);
        return;
    }
    cm_real *b = in_place(mk, g) ? NULL : own_of_thread() + OWN_A;
    int64_t cols = g->M <= 2 * mk->mr ? FEW_COLS : OWN_COLS;
    steps(mk, g, 1, b, cols * CM_GEMM_KC);
}

/* With one block of rows threads share nothing but A: each takes columns of its own. */
static void by_columns(const cm_micro *mk, const cm_gemm_args *g, int threads) {
    int64_t width = round_up(ceil_div(g->N, 4 * threads), mk->nr);
    int64_t parts = ceil_div(g->N, width);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t t = 0; t < parts; t++) {
        cm_gemm_args part = *g;
        part.N = min64(width, g->N - t * width);
        part.B = cm_at(g->B, g->b_stored, t * width * g->bcs);
        part.C += t * width;
        alone(mk, &part);
    }
}

void cm_gemm_strict(const cm_micro *mk, const cm_gemm_args *g, int threads) {
    if (threads == 1) {
        alone(mk, g);
    } else if (g->M <= TILE_ROWS) {
        by_columns(mk, g, threads);
    } else {
        cm_real *b = in_place(mk, g) ? NULL : team_buf;
#pragma omp parallel num_threads(threads)
        steps(mk, g, threads, b, TEAM_FLOATS);
    }
}
