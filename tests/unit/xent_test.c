/* xent_test.c -- the chunked loss against a plain softmax over the whole vocabulary. */
#include "tests/unit/op_fixture.h"

#include <stdlib.h>

typedef struct shape {
    int64_t R, D, V;
    int masked; /* of every ten rows */
    double scale, z;
} shape;

static const shape SHAPES[] = {
    { 1, 1, 2, 0, 1, 0 },       { 300, 8, 37, 0, 1, 0 },    { 300, 8, 37, 9, 0.5, 0.05 },
    { 700, 3, 11, 5, 2, 1e-2 }, { 20, 5, 300, 10, 1, 0.1 },
};
enum { N_SHAPES = sizeof SHAPES / sizeof *SHAPES };
static const double NORM = 0.125;

typedef struct result {
    cm_real loss, *nll, *gx, *gw;
} result;

static int32_t *targets(const shape *s) {
    int32_t *t = malloc((size_t)s->R * sizeof *t);
    cm_rng g = cm_rng_make(9, CM_RNG_TEST, 0);
    for (int64_t r = 0; r < s->R; r++) {
        t[r] = (int32_t)cm_rng_below(g, (uint64_t)r, (uint64_t)s->V);
        if ((r * 7) % 10 < s->masked) t[r] = -1;
    }
    return t;
}

static cm_real *keep(const cm_real *x, int64_t n) {
    cm_real *p = malloc((size_t)n * sizeof *p);
    memcpy(p, x, (size_t)n * sizeof *p);
    return p;
}

static result run(const shape *s, bool recording) {
    op_fix f;
    result r = { 0 };
    fix_open(&f, recording);
    int32_t *t = targets(s);
    cm_var *x = fix_var(&f, 1, 2, (int64_t[]){ s->R, s->D });
    cm_var *w = fix_var(&f, 2, 2, (int64_t[]){ s->V, s->D });
    r.nll = malloc((size_t)s->R * sizeof *r.nll);
    cm_var *y = cm_xent(&f.t, x, w, t, (cm_real)s->scale, (cm_real)NORM, (cm_real)s->z,
                        r.nll, NULL);
    if (recording) cm_tape_backward(&f.t, y, 1);
    r.loss = *cm_rdata(&y->v);
    r.gx = keep(x->g, s->R * s->D);
    r.gw = keep(w->g, s->V * s->D);
    free(t);
    fix_close(&f);
    return r;
}

static void result_free(result *r) { free(r->nll), free(r->gx), free(r->gw); }

/* Row r of the plain version: loss into *loss, row loss into nll[r], gradients added. */
static void plain_row(const shape *s, int64_t r, int64_t hit, double *loss, double *nll,
                      double *gx, double *gw) {
    double *z = malloc((size_t)s->V * sizeof *z), max = -1e300, sum = 0;
    for (int64_t v = 0; v < s->V; v++) {
        z[v] = 0;
        for (int64_t d = 0; d < s->D; d++)
            z[v] += (double)(cm_real)fix_value(1, r * s->D + d) *
                    (double)(cm_real)fix_value(2, v * s->D + d);
        z[v] *= s->scale;
        max = fmax(max, z[v]);
    }
    for (int64_t v = 0; v < s->V; v++) sum += exp(z[v] - max);
    double lse = max + log(sum);
    nll[r] = lse - z[hit];
    *loss += NORM * (nll[r] + s->z * lse * lse);
    for (int64_t v = 0; v < s->V; v++) {
        double g = exp(z[v] - lse) * (1 + 2 * s->z * lse) - (v == hit);
        g *= NORM * s->scale;
        for (int64_t d = 0; d < s->D; d++) {
            gx[r * s->D + d] += g * (double)(cm_real)fix_value(2, v * s->D + d);
            gw[v * s->D + d] += g * (double)(cm_real)fix_value(1, r * s->D + d);
        }
    }
    free(z);
}

TEST(xent_equals_plain_softmax) {
    fix_threads(2);
    for (int i = 0; i < N_SHAPES; i++) {
        const shape *s = &SHAPES[i];
        result a = run(s, true);
        int32_t *t = targets(s);
        double loss = 0, *nll = calloc((size_t)s->R, sizeof *nll);
        double *gx = calloc((size_t)(s->R * s->D), sizeof *gx);
        double *gw = calloc((size_t)(s->V * s->D), sizeof *gw);
        for (int64_t r = 0; r < s->R; r++)
            if (t[r] >= 0) plain_row(s, r, t[r], &loss, nll, gx, gw);
        double d = fabs((double)a.loss - loss) / (1 + fabs(loss));
        CHECKF(d <= TOL(1e-14, 1e-6), "shape %d: loss is off by %.3g", i, d);
        d = fix_diff(s->R, a.nll, nll);
        CHECKF(d <= TOL(1e-13, 2e-6), "shape %d: nll is off by %.3g", i, d);
        d = fix_diff(s->R * s->D, a.gx, gx);
        CHECKF(d <= TOL(1e-13, 1e-6), "shape %d: dx is off by %.3g", i, d);
        d = fix_diff(s->V * s->D, a.gw, gw);
        CHECKF(d <= TOL(1e-13, 1e-5), "shape %d: dw is off by %.3g", i, d);
        free(t), free(nll), free(gx), free(gw);
        result_free(&a);
    }
}

TEST(xent_same_bits_for_any_threads) {
    for (int i = 0; i < N_SHAPES; i++) {
        const shape *s = &SHAPES[i];
        fix_threads(1);
        result a = run(s, true);
        fix_threads(3);
        result b = run(s, true), c = run(s, false);
        CHECK(a.loss == b.loss && a.loss == c.loss);
        CHECK(fix_same(s->R, a.nll, b.nll) && fix_same(s->R, a.nll, c.nll));
        CHECK(fix_same(s->R * s->D, a.gx, b.gx) && fix_same(s->V * s->D, a.gw, b.gw));
        for (int64_t k = 0; k < s->V * s->D; k++)
            CHECKF(c.gw[k] == 0, "inference formed a gradient");
        result_free(&a), result_free(&b), result_free(&c);
    }
}

/* A row's loss may not depend on which rows share its chunk. */
TEST(xent_rows_are_alone) {
    const shape few = { 300, 8, 37, 9, 1, 0 }, many = { 300, 8, 37, 0, 1, 0 };
    fix_threads(2);
    int32_t *t = targets(&few);
    result a = run(&few, false), b = run(&many, false);
    int compared = 0;
    for (int64_t r = 0; r < few.R; r++) {
        if (t[r] < 0) continue;
        CHECK(a.nll[r] == b.nll[r]);
        compared++;
    }
    CHECK(compared == 30);
    free(t);
    result_free(&a), result_free(&b);
}
