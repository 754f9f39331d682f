/* moe_test.c -- the sorted, gathered mixture against a loop over tokens. */
#include "tests/unit/op_fixture.h"

#include <stdlib.h>

enum { MAX_E = 16 };

typedef struct shape {
    int64_t R, D, E, F;
    int K;
    double lb, z;
} shape;

static const shape SHAPES[] = {
    { 1, 3, 4, 2, 2, 0, 0 },       { 40, 8, 8, 5, 2, 0.5, 0.25 },
    { 300, 16, 4, 12, 3, 0.1, 0 }, { 17, 6, 16, 7, 1, 0.3, 0.1 },
    { 5, 9, 2, 4, 2, 0, 0.2 },
    /* Several blocks of rows and of weights an expert, shared by threads. */
    { 700, 16, 4, 136, 3, 0.1, 0 },
};
enum { N_SHAPES = sizeof SHAPES / sizeof *SHAPES };

typedef struct mix {
    op_fix f;
    cm_var *in[4], *y, *aux; /* in: x, router, w_in, w_out */
    int64_t load[MAX_E];
    cm_moe_stats stats;
    int32_t chosen[700 * 3]; /* of the largest shape */
} mix;

/* Forward and backward of <y, weights> + aux. */
static void mix_run(mix *m, const shape *s) {
    memset(m->load, 0, sizeof m->load);
    m->stats = (cm_moe_stats){ .chosen = m->chosen };
    fix_open(&m->f, true);
    m->in[0] = fix_input(&m->f, 1, 2, (int64_t[]){ s->R, s->D });
    m->in[1] = fix_var(&m->f, 2, 2, (int64_t[]){ s->E, s->D });
    m->in[2] = fix_var(&m->f, 3, 3, (int64_t[]){ s->E, 2 * s->F, s->D });
    m->in[3] = fix_var(&m->f, 4, 3, (int64_t[]){ s->E, s->D, s->F });
    cm_moe(&m->f.t, m->in[0], m->in[1], m->in[2], m->in[3], NULL, s->K, (cm_real)s->lb,
           (cm_real)s->z, m->load, &m->stats, &m->y, &m->aux);
    m->aux->g = cm_arena_zalloc(&m->f.arena, sizeof(cm_real));
    m->aux->g[0] = 1;
    m->aux->g_live = true;
    fix_backward(&m->f, m->y, 5);
}

/* ---- the loop over tokens, in double ---- */

typedef struct loop {
    double *in[4], *g[4], *y, *gy, aux;
    double *p, *lse;       /* [R,E], [R] */
    int32_t *chosen;       /* [R,K] */
    int64_t load[MAX_E];
} loop;

/* One expert on one row; with gy also its gradients, scaled by the gate.  Returns
 * <gy, output>. */
static double expert(const shape *s, loop *o, int64_t r, int64_t e, double gate) {
    int64_t D = s->D, F = s->F;
    const double *x = o->in[0] + r * D, *wi = o->in[2] + e * 2 * F * D;
    const double *wo = o->in[3] + e * D * F, *gy = o->gy + r * D;
    double dot = 0;
    for (int64_t f = 0; f < F; f++) {
        double a = 0, b = 0, gact = 0;
        for (int64_t d = 0; d < D; d++) {
            a += wi[f * D + d] * x[d];
            b += wi[(F + f) * D + d] * x[d];
        }
        double sig = 1 / (1 + exp(-a)), act = a * sig * b;
        for (int64_t d = 0; d < D; d++) {
            o->y[r * D + d] += gate * wo[d * F + f] * act;
            dot += gy[d] * wo[d * F + f] * act;
            gact += gy[d] * wo[d * F + f] * gate;
            o->g[3][e * D * F + d * F + f] += gate * gy[d] * act;
        }
        double ga = gact * b * sig * (1 + a * (1 - sig)), gb = gact * a * sig;
        for (int64_t d = 0; d < D; d++) {
            o->g[2][e * 2 * F * D + f * D + d] += ga * x[d];
            o->g[2][e * 2 * F * D + (F + f) * D + d] += gb * x[d];
            o->g[0][r * D + d] += ga * wi[f * D + d] + gb * wi[(F + f) * D + d];
        }
    }
    return dot;
}

static void route(const shape *s, loop *o, int64_t r) {
    double *p = o->p + r * s->E, sum = 0;
    for (int64_t e = 0; e < s->E; e++) {
        double z = 0;
        for (int64_t d = 0; d < s->D; d++)
            z += o->in[1][e * s->D + d] * o->in[0][r * s->D + d];
        sum += p[e] = exp(z);
    }
    o->lse[r] = log(sum);
    for (int64_t e = 0; e < s->E; e++) p[e] /= sum;
    bool used[MAX_E] = { false };
    for (int k = 0; k < s->K; k++) {
        int best = -1;
        for (int e = 0; e < s->E; e++)
            if (!used[e] && (best < 0 || p[e] > p[best])) best = e;
        used[best] = true;
        o->chosen[r * s->K + k] = best;
        o->load[best]++;
    }
}

/* Output and all gradients of row r; the loads of all rows are known. */
static void token(const shape *s, loop *o, int64_t r) {
    const double *p = o->p + r * s->E;
    double sum = 0, dot = 0, mean = 0, gz[MAX_E], through[MAX_E];
    const int32_t *c = o->chosen + r * s->K;
    for (int k = 0; k < s->K; k++) sum += p[c[k]];
    for (int k = 0; k < s->K; k++) {
        through[k] = expert(s, o, r, c[k], p[c[k]] / sum);
        dot += p[c[k]] / sum * through[k];
    }
    double T = (double)s->R, RK = T * s->K;
    for (int64_t e = 0; e < s->E; e++) mean += p[e] * (double)o->load[e] / RK;
    for (int64_t e = 0; e < s->E; e++)
        gz[e] = s->lb * (double)s->E / T * p[e] * ((double)o->load[e] / RK - mean) +
                2 * s->z * o->lse[r] * p[e] / T;
    for (int k = 0; k < s->K; k++) gz[c[k]] += p[c[k]] / sum * (through[k] - dot);
    for (int64_t e = 0; e < s->E; e++) {
        o->aux += s->lb * (double)s->E * (double)o->load[e] / RK * p[e] / T;
        for (int64_t d = 0; d < s->D; d++) {
            o->g[1][e * s->D + d] += gz[e] * o->in[0][r * s->D + d];
            o->g[0][r * s->D + d] += gz[e] * o->in[1][e * s->D + d];
        }
    }
    o->aux += s->z * o->lse[r] * o->lse[r] / T;
}

static void loop_run(const shape *s, loop *o, const mix *m) {
    *o = (loop){ 0 };
    for (int i = 0; i < 4; i++) {
        int64_t n = cm_tensor_count(&m->in[i]->v);
        o->in[i] = calloc((size_t)n, sizeof(double));
        o->g[i] = calloc((size_t)n, sizeof(double));
        for (int64_t j = 0; j < n; j++) o->in[i][j] = (double)cm_rdata(&m->in[i]->v)[j];
    }
    o->y = calloc((size_t)(s->R * s->D), sizeof(double));
    o->gy = calloc((size_t)(s->R * s->D), sizeof(double));
    o->p = calloc((size_t)(s->R * s->E), sizeof(double));
    o->lse = calloc((size_t)s->R, sizeof(double));
    o->chosen = calloc((size_t)(s->R * s->K), sizeof *o->chosen);
    for (int64_t i = 0; i < s->R * s->D; i++) o->gy[i] = (double)(cm_real)fix_value(5, i);
    for (int64_t r = 0; r < s->R; r++) route(s, o, r);
    for (int64_t r = 0; r < s->R; r++) token(s, o, r);
}

static void loop_free(loop *o) {
    for (int i = 0; i < 4; i++) free(o->in[i]), free(o->g[i]);
    free(o->y), free(o->gy), free(o->p), free(o->lse), free(o->chosen);
}

TEST(moe_equals_loop_over_tokens) {
    static const char *const name[] = { "dx", "drouter", "dw_in", "dw_out" };
    fix_threads(2);
    for (int i = 0; i < N_SHAPES; i++) {
        const shape *s = &SHAPES[i];
        mix m;
        loop o;
        /* Floats round long sums past the tolerance: the double build compares these. */
        if (sizeof(cm_real) == 4 && s->F > 100) continue;
        mix_run(&m, s);
        loop_run(s, &o, &m);
        double d = fix_diff(s->R * s->D, cm_rdata(&m.y->v), o.y);
        CHECKF(d <= TOL(1e-12, 2e-6), "shape %d: y is off by %.3g", i, d);
        d = fabs((double)*cm_rdata(&m.aux->v) - o.aux);
        CHECKF(d <= TOL(1e-13, 1e-6), "shape %d: aux is off by %.3g", i, d);
        for (int k = 0; k < 4; k++) {
            d = fix_diff(cm_tensor_count(&m.in[k]->v), m.in[k]->g, o.g[k]);
            CHECKF(d <= TOL(1e-12, 2e-5), "shape %d: %s is off by %.3g", i, name[k], d);
        }
        CHECK(!memcmp(m.load, o.load, sizeof m.load));
        CHECK(m.stats.rows == s->R);
        CHECK(!memcmp(m.chosen, o.chosen, (size_t)(s->R * s->K) * sizeof *o.chosen));
        loop_free(&o);
        fix_close(&m.f);
    }
}

TEST(moe_same_bits_for_any_threads) {
    for (int i = 0; i < N_SHAPES; i++) {
        mix a, b;
        fix_threads(1);
        mix_run(&a, &SHAPES[i]);
        fix_threads(3);
        mix_run(&b, &SHAPES[i]);
        CHECK(fix_same(SHAPES[i].R * SHAPES[i].D, cm_rdata(&a.y->v), cm_rdata(&b.y->v)));
        CHECK(fix_same(1, cm_rdata(&a.aux->v), cm_rdata(&b.aux->v)));
        for (int k = 0; k < 4; k++)
            CHECKF(fix_same(cm_tensor_count(&a.in[k]->v), a.in[k]->g, b.in[k]->g),
                   "shape %d: gradient %d differs", i, k);
        fix_close(&a.f), fix_close(&b.f);
    }
}

/* A router of zeros makes every probability equal: the first K experts win, the others
 * stay empty and get no gradient. */
TEST(moe_ties_take_the_lowest_index) {
    const shape s = { 6, 4, 5, 3, 2, 0, 0 };
    mix m;
    fix_threads(2);
    memset(&m, 0, sizeof m);
    fix_open(&m.f, true);
    cm_var *x = fix_var(&m.f, 1, 2, (int64_t[]){ s.R, s.D });
    cm_var *router = fix_var(&m.f, 2, 2, (int64_t[]){ s.E, s.D });
    memset(router->v.data, 0, cm_tensor_bytes(&router->v));
    cm_var *wi = fix_var(&m.f, 3, 3, (int64_t[]){ s.E, 2 * s.F, s.D });
    cm_var *wo = fix_var(&m.f, 4, 3, (int64_t[]){ s.E, s.D, s.F });
    cm_moe(&m.f.t, x, router, wi, wo, NULL, s.K, 0, 0, m.load, &m.stats, &m.y, &m.aux);
    fix_backward(&m.f, m.y, 5);
    CHECK(m.load[0] == s.R && m.load[1] == s.R && m.load[2] == 0 && m.load[4] == 0);
    CHECKF(fabs(m.stats.router_entropy / (double)s.R - log(5)) < 1e-6, "entropy %g",
           m.stats.router_entropy);
    CHECKF(fabs(m.stats.top1 / (double)s.R - 0.2) < 1e-6, "top1 %g", m.stats.top1);
    CHECKF(fabs(m.stats.lb - 1) < 1e-6, "balance of a uniform router: %g", m.stats.lb);
    for (int64_t i = 2 * s.D * s.F; i < s.E * s.D * s.F; i++) CHECK(wo->g[i] == 0);
    fix_close(&m.f);
}

static void block(void *ctx, cm_tape *t, cm_var *const *in, cm_var **out) {
    mix *m = ctx;
    cm_moe(t, in[0], in[1], in[2], in[3], NULL, 2, 0, 0, m->load, &m->stats, &out[0], &out[1]);
}

TEST(moe_counts_once_under_recomputation) {
    const shape s = { 10, 4, 5, 3, 2, 0, 0 };
    mix m = { 0 };
    fix_threads(2);
    fix_open(&m.f, true);
    m.in[0] = fix_var(&m.f, 1, 2, (int64_t[]){ s.R, s.D });
    m.in[1] = fix_var(&m.f, 2, 2, (int64_t[]){ s.E, s.D });
    m.in[2] = fix_var(&m.f, 3, 3, (int64_t[]){ s.E, 2 * s.F, s.D });
    m.in[3] = fix_var(&m.f, 4, 3, (int64_t[]){ s.E, s.D, s.F });
    cm_tensor like[2] = { m.in[0]->v, { .dtype = CM_REAL_DTYPE, .nd = 1, .dim = { 1 } } };
    cm_var *out[2];
    cm_recompute(&m.f.t, block, &m, m.in, 4, like, out, 2);
    fix_backward(&m.f, out[0], 5);
    int64_t total = 0;
    for (int e = 0; e < MAX_E; e++) total += m.load[e];
    CHECKF(total == s.R * 2, "%lld assignments counted", (long long)total);
    CHECK(m.stats.rows == s.R);
    fix_close(&m.f);
}
