/* ref_nn.c -- reference kernels: rows of normalisation, residual, SwiGLU, softmax. */
#include "kern/ref.h"

void CM_REF(set_scaled)(int64_t n, cm_real a, const cm_real *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = a * x[i];
}

void CM_REF(sum_scaled)(int64_t n, const cm_real *x, cm_real a, const cm_real *b,
                        cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = x[i] + a * b[i];
}

cm_real CM_REF(rmsnorm)(int64_t n, const cm_real *x, const cm_real *w, cm_real eps,
                        cm_real *y) {
    double mean = CM_REF(sumsq)(n, x) / (double)n;
    cm_real rstd = (cm_real)(1 / sqrt(mean + (double)eps));
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * rstd * w[i];
    return rstd;
}

void CM_REF(rmsnorm_back)(int64_t n, const cm_real *x, const cm_real *w, cm_real rstd,
                          const cm_real *gy, cm_real *gx, bool add, cm_real *gw) {
    double dot = 0;
    for (int64_t i = 0; i < n; i++) dot += (double)(w[i] * gy[i]) * (double)x[i];
    cm_real c = (cm_real)(dot / (double)n) * rstd * rstd;
    for (int64_t i = 0; gx && i < n; i++) {
        cm_real g = rstd * (w[i] * gy[i] - x[i] * c);
        gx[i] = add ? gx[i] + g : g;
    }
    for (int64_t i = 0; gw && i < n; i++) gw[i] += gy[i] * x[i] * rstd;
}

void CM_REF(swiglu)(int64_t n, const cm_real *a, const cm_real *b, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] = cm_rsilu(a[i]) * b[i];
}

void CM_REF(swiglu_back)(int64_t n, const cm_real *a, const cm_real *b, const cm_real *gy,
                         cm_real *ga, cm_real *gb, bool add) {
    for (int64_t i = 0; i < n; i++) {
        cm_real sig = cm_rsigmoid(a[i]), silu = cm_rsilu(a[i]);
        cm_real da = gy[i] * b[i] * (sig + silu * (1 - sig)), db = gy[i] * silu;
        ga[i] = add ? ga[i] + da : da;
        gb[i] = add ? gb[i] + db : db;
    }
}

cm_real CM_REF(softmax_part)(int64_t n, cm_real *s, cm_real *max, cm_real *fade) {
    cm_real old = *max, now = old;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (s[i] > now) now = s[i];
    for (int64_t i = 0; i < n; i++) {
        s[i] = cm_rexp(s[i] - now);
        sum += (double)s[i];
    }
    *fade = now == old ? 1 : cm_rexp(old - now);
    *max = now;
    return (cm_real)sum;
}

double CM_REF(sum_exp)(int64_t n, const cm_real *x, cm_real *max) {
    double s[16] = { 0 };
    *max = x[0];
    for (int64_t i = 1; i < n; i++)
        if (x[i] > *max) *max = x[i];
    for (int64_t i = 0; i < n; i++) s[i % 16] += (double)cm_rexp(x[i] - *max);
    for (int h = 8; h; h /= 2)
        for (int i = 0; i < h; i++) s[i] += s[i + h];
    return s[0];
}
