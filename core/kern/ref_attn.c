/* ref_attn.c -- reference kernels: rotation and score tiles of attention.
 *
 * Sine and cosine are our own and free of fma, so RoPE has the same bits on every CPU. */
#include "kern/ref.h"

static const double LOG2E = 0x1.71547652b82fep0;

static cm_real weight(cm_real s, cm_real lse) {
    double x = (double)s * LOG2E - (double)lse;
    return (cm_real)exp2(x < -126 ? -126 : x);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* A row has risen: what it has collected fades. */
static void rise(const cm_attn_soft *t, int64_t i, cm_real max) {
    cm_real old = t->top[i], now = t->top[i] = (cm_real)ceil((double)max * LOG2E);
    cm_real fade = old - now > -126 ? (cm_real)exp2((double)(old - now)) : 0;
    for (int64_t l = 0; l < CM_SOFT_LANES; l++) t->sum[i * CM_SOFT_LANES + l] *= fade;
    for (int64_t p = 0; p < t->P; p++) t->mix[i * t->P + p] *= fade;
}

void CM_REF(attn_soft)(const cm_attn_soft *t) {
    for (int64_t i = 0; i < t->rows; i++) {
        cm_real *s = t->s + i * CM_SOFT_KEYS, *sum = t->sum + i * CM_SOFT_LANES, max = s[0];
        int64_t live = least(t->live + i, t->seen);
        for (int64_t j = 1; j < live; j++) max = s[j] > max ? s[j] : max;
        if ((double)max * LOG2E > (double)t->top[i] + 8) rise(t, i, max);
        for (int64_t j = 0; j < live; j++)
            sum[j % CM_SOFT_LANES] += s[j] = weight(s[j], t->top[i]);
        for (int64_t j = live; j < CM_SOFT_KEYS; j++) s[j] = 0;
    }
}

void CM_REF(attn_grad)(const cm_attn_grad *t) {
    for (int64_t i = 0; i < t->rows; i++) {
        cm_real *s = t->s + i * CM_SOFT_KEYS, *ds = t->ds + i * CM_SOFT_KEYS;
        int64_t live = least(t->live + i, t->seen);
        for (int64_t j = 0; j < live; j++) {
            s[j] = weight(s[j], t->lse[i]);
            ds[j] = s[j] * (ds[j] - t->delta[i]);
        }
        for (int64_t j = live; j < CM_SOFT_KEYS; j++) s[j] = ds[j] = 0;
    }
}

/* Taylor polynomials in x^2 for |x| <= pi/4; the first term left out is below 5e-17. */
static double sin_poly(double x) {
    static const double c[] = { -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880,
                                -1.0 / 39916800, 1.0 / 6227020800.0,
                                -1.0 / 1307674368000.0 };
    double z = x * x, y = c[6];
    for (int k = 5; k >= 0; k--) y = y * z + c[k];
    return x + x * z * y;
}

static double cos_poly(double x) {
    static const double c[] = { -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320,
                                -1.0 / 3628800, 1.0 / 479001600.0,
                                -1.0 / 87178291200.0, 1.0 / 20922789888000.0 };
    double z = x * x, y = c[7];
    for (int k = 6; k >= 0; k--) y = y * z + c[k];
    return 1 + z * y;
}

void CM_REF(rope_table)(int64_t n, double pos, const double *inv, double mscale,
                        cm_real *cs, cm_real *sn) {
    for (int64_t i = 0; i < n; i++) {
        /* x = q pi/2 + r.  pi/2 in three parts: q times the first two is exact. */
        double x = pos * inv[i], q = nearbyint(x * 0x1.45f306dc9c883p-1);
        double r = x - q * 0x1.921fb544p+0;
        r = r - q * 0x1.0b4611a6p-34 - q * 0x1.3198a2e037073p-69;
        double s = sin_poly(r), c = cos_poly(r);
        int64_t quarter = (int64_t)q & 3;
        double sine = quarter & 1 ? c : s, cosine = quarter & 1 ? s : c;
        cs[i] = (cm_real)(mscale * (quarter == 1 || quarter == 2 ? -cosine : cosine));
        sn[i] = (cm_real)(mscale * (quarter & 2 ? -sine : sine));
    }
}

void CM_REF(rope)(int64_t n, const cm_real *x, const cm_real *cs, const cm_real *sn,
                  cm_real a, cm_real b, bool add, cm_real *y) {
    for (int64_t i = 0; i < n; i++) {
        cm_real c = a * cs[i], s = b * sn[i];
        cm_real y0 = c * x[i] - s * x[i + n], y1 = c * x[i + n] + s * x[i];
        y[i] = add ? y[i] + y0 : y0;
        y[i + n] = add ? y[i + n] + y1 : y1;
    }
}

void CM_REF(transpose)(int64_t rows, int64_t cols, const cm_real *x, int64_t ldx,
                       cm_real *y, int64_t ldy) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) y[j * ldy + i] = x[i * ldx + j];
}

void CM_REF(matvec)(int64_t n, int64_t P, const cm_real *x, int64_t ldx, const cm_real *q,
                    cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = (cm_real)CM_REF(dot)(P, x + i * ldx, q);
}

void CM_REF(vecmat_add)(int64_t n, int64_t P, const cm_real *a, const cm_real *x,
                        int64_t ldx, cm_real *y) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < P; j++) y[j] += a[i] * x[i * ldx + j];
}
