/* ref_attn.c -- reference kernels: rotation and score tiles of attention.
 *
 * Sine and cosine are our own and free of fma, so RoPE has the same bits on every CPU. */
#include "kern/ref.h"

void CM_REF(attn_back)(int64_t n, cm_real lse, cm_real delta, cm_real *s, cm_real *ds) {
    for (int64_t i = 0; i < n; i++) {
        s[i] = cm_rexp(s[i] - lse);
        ds[i] = s[i] * (ds[i] - delta);
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
