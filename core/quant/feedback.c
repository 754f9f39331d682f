/* feedback.c -- rounding that makes up for its own errors (GPTQ: Frantar et al. 2022).
 *
 * A row w of a matrix meets inputs x whose second moments are H = mean of x x^T.  Rounding one
 * column moves the output by (its error) x; with H = A A^T, A upper triangular, and U = A^-1, the
 * columns after j take up most of it when they are changed by -(w_j - q_j) / U[j][j] * U[j][k].
 * So columns are rounded from first to last, each super-block's scales searched on the values
 * as they are when it is reached. */
#include "quant/pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 256 };

/* ---- U from H ----------------------------------------------------------------------- */

static double dot(const double *restrict a, const double *restrict b, int64_t n) {
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t k = 0; k < n; k++) s += a[k] * b[k];
    return s;
}

/* h's upper triangle becomes A; false: not positive definite. */
static bool factor(double *h, int64_t n) {
    for (int64_t j = n - 1; j >= 0; j--) {
        double *row = h + j * n, d = row[j] - dot(row + j + 1, row + j + 1, n - j - 1);
        if (!(d > 0)) return false;
        row[j] = sqrt(d);
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < j; i++) {
            double *a = h + i * n;
            a[j] = (a[j] - dot(a + j + 1, row + j + 1, n - j - 1)) / row[j];
        }
    }
    return true;
}

/* Columns [from, to) of row i of the inverse; those of the rows below are there. */
static void invert_row(const double *a, double *inv, int64_t n, int64_t i, int64_t from,
                       int64_t to) {
    double *out = inv + i * n;
    for (int64_t k = from; k < to; k++) out[k] = k == i;
    for (int64_t k = i + 1; k < to; k++) {
        const double *row = inv + k * n;
        int64_t first = k > from ? k : from;
        double f = a[i * n + k];
#pragma omp simd
        for (int64_t c = first; c < to; c++) out[c] -= f * row[c];
    }
    for (int64_t k = from; k < to; k++) out[k] /= a[i * n + i];
}

bool cm_feedback_factor(const float *h, int64_t n, float *u) {
    size_t all = (size_t)(n * n);
    double *a = malloc(2 * all * sizeof *a), *inv = a + all, mean = 0;
    CM_ASSERT(a, "out of memory: %lld x %lld moments", (long long)n, (long long)n);
    for (size_t i = 0; i < all; i++) a[i] = (double)h[i];
    for (int64_t i = 0; i < n; i++) mean += a[i * n + i] / (double)n;
    /* The usual hundredth of the mean: few tokens say little of some directions. */
    for (int64_t i = 0; i < n; i++) a[i * n + i] += 0.01 * mean;
    bool ok = mean > 0 && mean < INFINITY && factor(a, n);
#pragma omp parallel for schedule(dynamic)
    for (int64_t c = 0; c < (ok ? n : 0); c += 64) {
        int64_t to = c + 64 < n ? c + 64 : n;
        for (int64_t i = to - 1; i >= 0; i--) invert_row(a, inv, n, i, c > i ? c : i, to);
    }
    for (int64_t i = 0; ok && i < n; i++)
        for (int64_t k = 0; k < n; k++) u[i * n + k] = k < i ? 0 : (float)inv[i * n + k];
    free(a);
    return ok;
}

/* ---- rounding ----------------------------------------------------------------------- */

typedef struct scale {
    float s, m; /* x = s q - m */
} scale;

/* Of element j of a chunk. */
static scale scale_of(const cm_grid *g, const cm_found *f, int j) {
    int i = j / g->run;
    if (!g->super) return (scale){f->d[i], g->min ? f->m[i] : 0};
    return (scale){f->d[0] * (float)f->s[i], g->min ? f->m[0] * (float)f->mn[i] : 0};
}

static int nearest(const cm_grid *g, scale c, float x) {
    float v = c.s != 0 ? (x + c.m) / c.s : 0;
    if (!g->table) return (int)rintf(fminf(fmaxf(v, (float)g->lo), (float)g->hi));
    int best = 0;
    for (int k = 1; k < 16; k++)
        if (v > (float)(cm_iq4_levels[k - 1] + cm_iq4_levels[k]) / 2) best = k;
    return cm_iq4_levels[best];
}

/* y -= f x */
static void take(float *restrict y, float f, const float *restrict x, int64_t n) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) y[k] -= f * x[k];
}

/* Columns [at, at + n) of each row, and what their errors do to those within; e: errors over
 * the diagonal. */
static void round_chunk(const cm_grid *g, cm_found *f, float *w, int rows, const float *u,
                        int64_t cols, int64_t at, int n, float (*e)[CHUNK]) {
    for (int j = 0; j < n; j++) {
        const float *row = u + (at + j) * cols + at + j;
        for (int r = 0; r < rows; r++) {
            float *x = w + r * cols + at + j;
            scale c = scale_of(g, &f[r], j);
            int q = nearest(g, c, *x);
            f[r].q[j] = (int16_t)q;
            e[r][j] = (*x - (c.s * (float)q - c.m)) / row[0];
            take(x + 1, e[r][j], row + 1, n - j - 1);
        }
    }
}

bool cm_feedback_takes(cm_dtype dt) { return cm_grid_of(dt) != NULL; }

void cm_quantize_feedback(cm_dtype dt, float *w, int rows, const float *imp, const float *u,
                          int64_t cols, void *dst) {
    const cm_grid *g = cm_grid_of(dt);
    const cm_dtype_info *info = &cm_dtypes[dt];
    cm_found f[CM_FEEDBACK_ROWS];
    float e[CM_FEEDBACK_ROWS][CHUNK];
    CM_ASSERT(g && rows <= CM_FEEDBACK_ROWS && cols % info->block == 0, "%d rows of %s", rows,
              info->name);
    for (int64_t at = 0; at < cols; at += CHUNK) {
        int n = (int)(cols - at < CHUNK ? cols - at : CHUNK);
        for (int r = 0; r < rows; r++) cm_search(g, w + r * cols + at, imp + at, n, &f[r]);
        round_chunk(g, f, w, rows, u, cols, at, n, e);
        for (int r = 0; r < rows; r++) {
            int64_t block = r * (cols / info->block) + at / info->block;
            cm_pack(dt, &f[r], n / info->block, (unsigned char *)dst + block * info->bytes);
        }
        for (int j = 0; j < n; j++)
            for (int r = 0; r < rows; r++)
                take(w + r * cols + at + n, e[r][j], u + (at + j) * cols + at + n, cols - at - n);
    }
}
