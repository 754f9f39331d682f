/* ref_ssd.c -- reference kernels of the Mamba-2 mixer: scan, convolution, gated norm. */
#include "kern/ref.h"

/* A decay never exceeds 1; the bound only matters to callers with increasing sums. */
static cm_real decay(cm_real a) { return cm_rexp(a < 0 ? a : 0); }

void CM_REF(ssd_mask)(int64_t q, const cm_real *cs, const cm_real *dt, cm_real D,
                      const cm_real *cb, cm_real *m, int64_t ld) {
    for (int64_t j = 0; j < q; j++, cb += ld, m += ld) {
        for (int64_t i = 0; i < j; i++) m[i] = 0;
        for (int64_t i = j; i < q; i++) m[i] = cb[i] * decay(cs[i] - cs[j]) * dt[j];
        m[j] += D;
    }
}

void CM_REF(ssd_mask_back)(int64_t q, const cm_real *cs, const cm_real *dt, cm_real D,
                           const cm_real *cb, const cm_real *e, cm_real *m, cm_real *dcb,
                           int64_t ld, cm_real *ddt, cm_real *rect, cm_real *tmp) {
    for (int64_t i = 0; i < q; i++) tmp[i] = 0;
    if (q > 0) rect[0] = 0;
    for (int64_t j = 0; j < q; j++, cb += ld, e += ld, m += ld, dcb += ld) {
        cm_real z = 0, r = 0;
        for (int64_t i = 0; i < j; i++) m[i] = 0;
        for (int64_t i = j; i < q; i++) {
            cm_real l = decay(cs[i] - cs[j]);
            m[i] = cb[i] * l * dt[j];
            dcb[i] += l * dt[j] * e[i];
            z += cb[i] * l * e[i];
            /* tmp[i] is the sum of w over the rows so far; row j counts for k > j. */
            tmp[i] += m[i] * e[i];
            if (i > j) r += tmp[i];
        }
        m[j] += D;
        ddt[j] = z;
        if (j + 1 < q) rect[j + 1] = r;
    }
}

void CM_REF(scale_rows)(int64_t q, int64_t n, const cm_real *s, const cm_real *x,
                        int64_t ldx, cm_real *y, int64_t ldy) {
    for (int64_t i = 0; i < q; i++, x += ldx, y += ldy)
        for (int64_t k = 0; k < n; k++) y[k] = s[i] * x[k];
}

void CM_REF(fold_rows)(int64_t q, int64_t n, const cm_real *s, const cm_real *x,
                       int64_t ldx, const cm_real *v, int64_t ldv, cm_real *y,
                       int64_t ldy, cm_real *dots) {
    for (int64_t i = 0; i < q; i++, x += ldx, v += ldv, y += ldy) {
        cm_real sum = 0;
        for (int64_t k = 0; k < n; k++) {
            y[k] += s[i] * x[k];
            sum += x[k] * v[k];
        }
        dots[i] = sum;
    }
}

void CM_REF(ssd_step)(int64_t N, int64_t P, cm_real decay_, cm_real w, cm_real m,
                      const cm_real *x, const cm_real *b, const cm_real *c,
                      const cm_real *in, cm_real *next, cm_real *y) {
    for (int64_t p = 0; p < P; p++) y[p] = 0;
    for (int64_t n = 0; n < N; n++, in += P, next += P)
        for (int64_t p = 0; p < P; p++) {
            y[p] += c[n] * in[p];
            next[p] = decay_ * in[p] + b[n] * (w * x[p]);
        }
    for (int64_t p = 0; p < P; p++) y[p] += m * x[p];
}

static cm_real conv_at(int64_t c, int64_t n, int taps, const cm_real *const *x,
                       const cm_real *w, const cm_real *b) {
    cm_real pre = b[c];
    for (int m = 0; m < taps; m++) pre += w[m * n + c] * x[m][c];
    return pre;
}

void CM_REF(conv_silu)(int64_t n, int taps, const cm_real *const *x, const cm_real *w,
                       const cm_real *b, cm_real *y) {
    for (int64_t c = 0; c < n; c++) y[c] = cm_rsilu(conv_at(c, n, taps, x, w, b));
}

static void conv_back_at(int64_t c, const cm_conv_back *a) {
    cm_real w[CM_MAX_TAPS], d[CM_MAX_TAPS] = { 0 }; /* d: of the last rows, oldest first */
    int K = a->taps;
    for (int m = 0; m < K; m++) w[m] = a->w[m * a->ldw + c];
    for (int t = 0; t < a->own + K - 1; t++) {
        for (int m = 0; m + 1 < K; m++) d[m] = d[m + 1];
        d[K - 1] = 0;
        if (t < a->T) {
            cm_real pre = a->b[c];
            for (int m = 0; m < K; m++) pre += w[m] * a->x[t + m][c];
            cm_real sig = cm_rsigmoid(pre);
            d[K - 1] = a->dy[t * a->ldy + c] * sig * (1 + pre * (1 - sig));
        }
        for (int m = 0; t < a->own && m < K; m++)
            a->gw[m * a->ldw + c] += d[K - 1] * a->x[t + m][c];
        if (t < a->own) a->gb[c] += d[K - 1];
        if (!a->gx || t < K - 1) continue;
        cm_real *g = a->gx + (t - K + 1) * a->ldx + c, sum = a->add ? *g : 0;
        for (int m = 0; m < K; m++) sum += w[K - 1 - m] * d[m];
        *g = sum;
    }
}

void CM_REF(conv_silu_back)(int64_t n, const cm_conv_back *a) {
    for (int64_t c = 0; c < n; c++) conv_back_at(c, a);
}

cm_real CM_REF(gated_norm)(int64_t n, const cm_real *y, int64_t ldy, const cm_real *z,
                           int64_t ldz, const cm_real *w, cm_real eps, cm_real *out) {
    cm_real sum = 0;
    (void)ldy, (void)ldz;
    for (int64_t i = 0; i < n; i++) {
        out[i] = y[i] * cm_rsilu(z[i]);
        sum += out[i] * out[i];
    }
    cm_real rstd = 1 / cm_rsqrt(sum / (cm_real)n + eps);
    for (int64_t i = 0; i < n; i++) out[i] = out[i] * rstd * w[i];
    return rstd;
}

void CM_REF(gated_norm_back)(int64_t n, const cm_real *y, int64_t ldy, const cm_real *z,
                             int64_t ldz, const cm_real *w, cm_real rstd,
                             const cm_real *dout, bool set_y, bool set_z, cm_real *gy,
                             cm_real *gz, cm_real *gw, cm_real *tmp) {
    (void)ldy, (void)ldz;
    cm_real *sig = tmp, *xhat = tmp + n, c = 0;
    for (int64_t i = 0; i < n; i++) {
        sig[i] = cm_rsigmoid(z[i]);
        xhat[i] = y[i] * z[i] * sig[i] * rstd;
        c += w[i] * dout[i] * xhat[i];
    }
    c /= (cm_real)n;
    for (int64_t i = 0; i < n; i++) {
        cm_real du = rstd * (w[i] * dout[i] - xhat[i] * c);
        if (gy) gy[i] = (set_y ? 0 : gy[i]) + du * z[i] * sig[i];
        cm_real dz = du * y[i] * sig[i] * (1 + z[i] * (1 - sig[i]));
        if (gz) gz[i] = (set_z ? 0 : gz[i]) + dz;
        if (gw) gw[i] += dout[i] * xhat[i];
    }
}
