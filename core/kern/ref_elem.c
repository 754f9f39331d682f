/* ref_elem.c -- reference kernels: vector updates, reductions, optimizer steps. */
#include "kern/ref.h"

#include <string.h>

void CM_REF(add_scaled)(int64_t n, cm_real a, const cm_real *x, cm_real *y) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

void CM_REF(scale)(int64_t n, cm_real a, cm_real *x) {
    for (int64_t i = 0; i < n; i++) x[i] *= a;
}

double CM_REF(dot)(int64_t n, const cm_real *x, const cm_real *y) {
    double s[16] = { 0 };
    for (int64_t i = 0; i < n; i++) s[i % 16] += (double)x[i] * (double)y[i];
    for (int h = 8; h; h /= 2)
        for (int i = 0; i < h; i++) s[i] += s[i + h];
    return s[0];
}

double CM_REF(sumsq)(int64_t n, const cm_real *x) { return CM_REF(dot)(n, x, x); }

void CM_REF(adamw)(int64_t n, cm_real *w, const cm_real *g, cm_real *m, cm_real *v,
                   const cm_adamw *h) {
    cm_real rate = h->lr / h->bc1, keep = 1 - h->lr * h->wd;
    for (int64_t i = 0; i < n; i++) {
        cm_real gi = g[i] * h->gscale;
        m[i] = h->b1 * m[i] + (1 - h->b1) * gi;
        v[i] = h->b2 * v[i] + (1 - h->b2) * gi * gi;
        w[i] = keep * w[i] - rate * m[i] / (cm_rsqrt(v[i] / h->bc2) + h->eps);
    }
}

void CM_REF(nesterov)(int64_t n, const cm_real *g, cm_real *m, cm_real *v, cm_real *u,
                      const cm_adamw *h) {
    for (int64_t i = 0; i < n; i++) {
        cm_real gi = g[i] * h->gscale;
        m[i] = h->b1 * m[i] + (1 - h->b1) * gi;
        u[i] = h->b1 * m[i] + (1 - h->b1) * gi;
        if (!v) continue;
        v[i] = h->b2 * v[i] + (1 - h->b2) * gi * gi;
        u[i] /= cm_rsqrt(v[i]) + h->eps;
    }
}

void CM_REF(narrow)(int64_t n, const cm_real *x, void *y) {
    for (int64_t i = 0; i < n; i++) {
        float f = (float)x[i];
        bool tiny = fabsf(f) < 0x1p-126f;
        uint16_t h = tiny ? (uint16_t)(signbit(f) ? 0x8000 : 0) : cm_f32_to_bf16(f);
        memcpy((char *)y + 2 * i, &h, sizeof h); /* y may be x */
    }
}
