/* mixer_test.c -- convolution and gated norm of the Mamba-2 mixer against their
 * definitions, written out in double.  Sizes are such that several threads take part. */
#include "tests/unit/op_fixture.h"

#include <stdlib.h>

enum { B = 2, T = 70, C = 67, K = 4, COL = 3, W = C + COL + 2, R = B * T };
enum { SEED_X = 1, SEED_W, SEED_B, SEED_OUT, SEED_WINDOW };

typedef struct {
    cm_real y[R * C], gx[R * W], gw[C * K], gb[C], window[B * (K - 1) * C];
} conv_result;

static int32_t doc[R];

/* Documents start at random, and once three tokens before a row's end. */
static void make_docs(void) {
    cm_rng r = cm_rng_make(9, CM_RNG_TEST, 0);
    for (int i = 0, d = 0; i < R; i++)
        doc[i] = d += cm_rng_below(r, (uint64_t)i, 12) == 0 || i % T == T - 2;
}

static void get(const cm_real *from, int n, cm_real *to) {
    memcpy(to, from, (size_t)n * sizeof *to);
}

/* x of token t of row b as the convolution sees it; 0 where it must not look. */
static double seen(const int32_t *docs, bool window, int b, int t, int s, int c) {
    for (int i = s + 1; docs && i <= t; i++)
        if (i > 0 && docs[b * T + i] != docs[b * T + i - 1]) return 0;
    if (s >= 0) return (double)(cm_real)fix_value(SEED_X, (b * T + s) * W + COL + c);
    int64_t at = (b * (K - 1) + s + K - 1) * C + c;
    return window ? (double)(cm_real)fix_value(SEED_WINDOW, at) : 0;
}

static void conv_run(const int32_t *docs, bool window, double bump, conv_result *out) {
    op_fix f;
    fix_open(&f, true);
    cm_real *w0 = cm_arena_alloc(&f.arena, sizeof out->window);
    for (int i = 0; i < B * (K - 1) * C; i++) w0[i] = (cm_real)fix_value(SEED_WINDOW, i);
    cm_var *x = fix_var(&f, SEED_X, 2, (int64_t[]){ R, W });
    cm_var *w = fix_var(&f, SEED_W, 2, (int64_t[]){ C, K });
    cm_var *b = fix_var(&f, SEED_B, 1, (int64_t[]){ C });
    for (int i = 0; i < R * W; i++) /* rows of document 1 only */
        if (docs && docs[i / W] == 1) cm_rdata(&x->v)[i] += (cm_real)bump;
    cm_seq seq = { .B = B, .T = T, .doc = docs };
    cm_var *y = cm_conv_silu(&f.t, x, w, b, &seq, COL, window ? w0 : NULL, out->window);
    fix_backward(&f, y, SEED_OUT);
    get(cm_rdata(&y->v), R * C, out->y);
    get(x->g, R * W, out->gx);
    get(w->g, C * K, out->gw);
    get(b->g, C, out->gb);
    fix_close(&f);
}

static double sigmoid(double v) { return 1 / (1 + exp(-v)); }

static double worst(const cm_real *a, const double *b, int n) {
    double e = 0;
    for (int i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]) / (1 + fabs(b[i]));
        if (!(d <= e)) e = d; /* NaN stays */
    }
    return e;
}

TEST(convolution_equals_its_definition) {
    static conv_result got;
    static double y[R * C], gx[R * W], gw[C * K], gb[C];
    make_docs();
    fix_threads(2);
    for (int kind = 0; kind < 4; kind++) {
        const int32_t *docs = kind & 1 ? doc : NULL;
        bool window = kind & 2;
        conv_run(docs, window, 0, &got);
        memset(gx, 0, sizeof gx), memset(gw, 0, sizeof gw), memset(gb, 0, sizeof gb);
        for (int i = 0; i < R * C; i++) {
            int b = i / C / T, t = i / C % T, c = i % C;
            double pre = (double)(cm_real)fix_value(SEED_B, c);
            for (int m = 0; m < K; m++)
                pre += (double)(cm_real)fix_value(SEED_W, c * K + m) *
                       seen(docs, window, b, t, t - (K - 1) + m, c);
            double s = sigmoid(pre), g = fix_value(SEED_OUT, i) * s * (1 + pre * (1 - s));
            y[i] = pre * s;
            gb[c] += g;
            for (int m = 0; m < K; m++) {
                int from = t - (K - 1) + m;
                double v = seen(docs, window, b, t, from, c);
                gw[c * K + m] += g * v;
                if (from >= 0 && v != 0)
                    gx[(b * T + from) * W + COL + c] +=
                        g * (double)(cm_real)fix_value(SEED_W, c * K + m);
            }
        }
        double tol = TOL(1e-13, 2e-6);
        CHECKF(worst(got.y, y, R * C) <= tol, "y, case %d", kind);
        CHECKF(worst(got.gx, gx, R * W) <= tol, "gx, case %d", kind);
        CHECKF(worst(got.gw, gw, C * K) <= 10 * tol, "gw, case %d", kind);
        CHECKF(worst(got.gb, gb, C) <= 10 * tol, "gb, case %d", kind);
        for (int i = 0; i < B * (K - 1) * C; i++) {
            int b = i / C / (K - 1), s = T - (K - 1) + i / C % (K - 1);
            CHECK((double)got.window[i] == seen(docs, window, b, T - 1, s, i % C));
        }
    }
}

TEST(convolution_threads_and_documents) {
    static conv_result one, three, other;
    make_docs();
    fix_threads(1);
    conv_run(doc, true, 0, &one);
    fix_threads(3);
    conv_run(doc, true, 0, &three);
    CHECK(!memcmp(&one, &three, sizeof one));
    conv_run(doc, true, NAN, &other);
    int touched = 0;
    for (int i = 0; i < R; i++) {
        size_t y = C * sizeof(cm_real), gx = W * sizeof(cm_real);
        bool same = !memcmp(one.y + i * C, other.y + i * C, y) &&
                    !memcmp(one.gx + i * W, other.gx + i * W, gx);
        touched += !same;
        CHECKF(same || doc[i] == 1, "row %d of document %d noticed", i, doc[i]);
    }
    CHECK(touched > 0);
    fix_threads(2);
}

/* ---- gated norm --------------------------------------------------------------------- */

enum { GR = 250, DI = 42, ZCOL = 5, ZW = DI + ZCOL + 1 };

typedef struct {
    cm_real out[GR * DI], gy[GR * DI], gz[GR * ZW], gw[DI];
} gated_result;

static const double EPS = 1e-3;

/* Applied twice to the same inputs: gradients come out double only when added. */
static void gated_run(int groups, gated_result *out) {
    op_fix f;
    fix_open(&f, true);
    cm_var *y = fix_var(&f, SEED_X, 2, (int64_t[]){ GR, DI });
    cm_var *z = fix_var(&f, SEED_B, 2, (int64_t[]){ GR, ZW });
    cm_var *w = fix_var(&f, SEED_W, 1, (int64_t[]){ DI });
    cm_var *o = cm_gated_norm(&f.t, y, z, w, ZCOL, groups, (cm_real)EPS, CM_ANYBODY);
    cm_var *o2 = cm_gated_norm(&f.t, y, z, w, ZCOL, groups, (cm_real)EPS, CM_ANYBODY);
    fix_backward(&f, cm_residual(&f.t, o, o2, 1), SEED_OUT);
    get(cm_rdata(&o->v), GR * DI, out->out);
    get(y->g, GR * DI, out->gy);
    get(z->g, GR * ZW, out->gz);
    get(w->g, DI, out->gw);
    fix_close(&f);
}

static double input(uint64_t seed, int i) { return (double)(cm_real)fix_value(seed, i); }

TEST(gated_norm_equals_its_definition) {
    static gated_result got;
    static double out[GR * DI], gy[GR * DI], gz[GR * ZW], gw[DI];
    fix_threads(2);
    for (int groups = 1; groups <= 3; groups += 2) {
        int n = DI / groups;
        gated_run(groups, &got);
        memset(gz, 0, sizeof gz), memset(gw, 0, sizeof gw);
        for (int r = 0; r < GR; r++)
            for (int g = 0; g < groups; g++) {
                double u[DI], t[DI], sum = 0, mean = 0;
                for (int i = 0; i < n; i++) {
                    int c = g * n + i;
                    double z = input(SEED_B, r * ZW + ZCOL + c);
                    u[i] = input(SEED_X, r * DI + c) * z * sigmoid(z);
                    t[i] = input(SEED_W, c) * fix_value(SEED_OUT, r * DI + c);
                    sum += u[i] * u[i];
                }
                double rstd = 1 / sqrt(sum / n + (double)(cm_real)EPS);
                for (int i = 0; i < n; i++) mean += t[i] * u[i] * rstd / n;
                for (int i = 0; i < n; i++) {
                    int c = g * n + i, zi = r * ZW + ZCOL + c;
                    double z = input(SEED_B, zi), s = sigmoid(z), xhat = u[i] * rstd;
                    double du = 2 * rstd * (t[i] - xhat * mean);
                    out[r * DI + c] = xhat * input(SEED_W, c);
                    gy[r * DI + c] = du * z * s;
                    gz[zi] = du * input(SEED_X, r * DI + c) * s * (1 + z * (1 - s));
                    gw[c] += 2 * fix_value(SEED_OUT, r * DI + c) * xhat;
                }
            }
        double tol = TOL(1e-13, 4e-6);
        CHECKF(worst(got.out, out, GR * DI) <= tol, "out, %d groups", groups);
        CHECKF(worst(got.gy, gy, GR * DI) <= tol, "gy, %d groups", groups);
        CHECKF(worst(got.gz, gz, GR * ZW) <= tol, "gz, %d groups", groups);
        CHECKF(worst(got.gw, gw, DI) <= 10 * tol, "gw, %d groups", groups);
    }
}

TEST(gated_norm_threads) {
    static gated_result one, three;
    fix_threads(1);
    gated_run(3, &one);
    fix_threads(3);
    gated_run(3, &three);
    CHECK(!memcmp(&one, &three, sizeof one));
    fix_threads(2);
}
