/* nn_test.c -- the row ops: thread counts, aliases, and RoPE's frequency tables. */
#include "tests/unit/op_fixture.h"

#include <stdlib.h>

enum { R = 512, D = 131, V = 11 };

typedef struct result {
    cm_real y[R * D], gx[R * D], gw[D], ge[V * D];
} result;

/* embed -> rmsnorm -> swiglu of [a|a] pairs -> residual, forward and backward. */
static result *chain(int threads) {
    static int32_t token[R];
    op_fix f;
    result *r = malloc(sizeof *r);
    fix_threads(threads);
    fix_open(&f, true);
    for (int i = 0; i < R; i++) token[i] = (i * i) % V;
    cm_var *e = fix_var(&f, 1, 2, (int64_t[]){ V, D });
    cm_var *w = fix_var(&f, 2, 1, (int64_t[]){ D });
    cm_var *x = fix_var(&f, 3, 2, (int64_t[]){ R, D });
    cm_var *h = cm_residual(&f.t, cm_embed(&f.t, e, token, R, 3), x, (cm_real)0.5);
    h = cm_rmsnorm(&f.t, h, w, (cm_real)1e-5, CM_ANYBODY);
    h = cm_residual(&f.t, h, h, (cm_real)0.25); /* the same input twice */
    fix_backward(&f, h, 4);
    memcpy(r->y, h->v.data, sizeof r->y);
    memcpy(r->gx, x->g, sizeof r->gx);
    memcpy(r->gw, w->g, sizeof r->gw);
    memcpy(r->ge, e->g, sizeof r->ge);
    fix_close(&f);
    return r;
}

TEST(rows_same_bits_for_any_threads) {
    result *a = chain(1), *b = chain(3);
    CHECK(!memcmp(a, b, sizeof *a));
    free(a), free(b);
}

TEST(rows_equal_plain_loops) {
    result *a = chain(2);
    double worst_y = 0, worst_w = 0, gw[D] = { 0 };
    for (int r = 0; r < R; r++) {
        double h[D], ss = 0;
        for (int d = 0; d < D; d++) {
            h[d] = 3 * fix_value(1, (r * r) % V * D + d) + 0.5 * fix_value(3, r * D + d);
            ss += h[d] * h[d];
        }
        double rstd = 1 / sqrt(ss / D + 1e-5);
        for (int d = 0; d < D; d++) {
            double y = 1.25 * h[d] * rstd * fix_value(2, d);
            worst_y = fmax(worst_y, fabs(y - (double)a->y[r * D + d]));
            gw[d] += 1.25 * fix_value(4, r * D + d) * h[d] * rstd;
        }
    }
    for (int d = 0; d < D; d++) worst_w = fmax(worst_w, fabs(gw[d] - (double)a->gw[d]));
    CHECKF(worst_y <= TOL(1e-13, 2e-6), "y is off by %.3g", worst_y);
    CHECKF(worst_w <= TOL(1e-11, 5e-5), "dw is off by %.3g", worst_w);
    free(a);
}

/* A plain rotation table; linear divides by the factor; YaRN keeps fast dimensions, slows
 * the slow ones by the factor, and changes nothing for factor 1. */
TEST(rope_frequencies) {
    enum { P = 64 };
    cm_rope_conf c = { .kind = CM_ROPE_PLAIN, .P = P, .base = 10000, .factor = 8,
                       .orig_ctx = 4096, .beta_fast = 32, .beta_slow = 1 };
    double plain[P / 2], lin[P / 2], yarn[P / 2], m;
    cm_rope_freqs(&c, plain, &m);
    CHECK(m == 1 && plain[0] == 1);
    CHECKF(fabs(plain[16] - 0.01) < 1e-17, "%g", plain[16]);
    c.kind = CM_ROPE_LINEAR;
    cm_rope_freqs(&c, lin, &m);
    for (int i = 0; i < P / 2; i++) CHECK(lin[i] == plain[i] / 8);
    CHECK(m == 1);
    c.kind = CM_ROPE_YARN;
    cm_rope_freqs(&c, yarn, &m);
    CHECKF(fabs(m - (1 + 0.1 * log(8))) < 1e-15, "mscale %g", m);
    CHECK(yarn[0] == plain[0] && yarn[31] == plain[31] / 8);
    for (int i = 0; i < P / 2; i++) CHECK(yarn[i] <= plain[i] && yarn[i] >= plain[i] / 8);
    c.attn_factor = 1.5;
    cm_rope_freqs(&c, yarn, &m);
    CHECK(m == 1.5);
    c.attn_factor = 0;
    c.factor = 1;
    cm_rope_freqs(&c, yarn, &m);
    for (int i = 0; i < P / 2; i++) CHECK(fabs(yarn[i] - plain[i]) <= 4e-16 * plain[i]);
    CHECK(m == 1);
}

TEST(rope_table_is_exact_far_out) {
    double inv[3] = { 1, 0.31622776601683794, 1e-4 };
    static const double pos[] = { 0, 1, 2, 3, 5, 8191, 131071, 1048575 };
    for (int i = 0; i < 8; i++) {
        cm_real c[3], s[3];
        cm_k.rope_table(3, pos[i], inv, 1, c, s);
        for (int k = 0; k < 3; k++) {
            double x = pos[i] * inv[k], d = fabs((double)c[k] - cos(x));
            d = fmax(d, fabs((double)s[k] - sin(x)));
            CHECKF(d <= TOL(1e-15, 6.1e-8), "angle %g is off by %.3g", x, d);
        }
    }
}
