/* attention_test.c -- tiled attention against the plain O(T^2) loops, and what must not
 * change a bit: threads, packing, the content of other documents, how a cache is fed. */
#include "tests/unit/op_fixture.h"

#include <stdlib.h>

typedef struct shape {
    int B, T, H, G, P, docs; /* docs: a new one about every T/docs rows */
    bool rope;
} shape;

static const shape SHAPES[] = {
    { 1, 1, 1, 1, 2, 1, true },     { 2, 7, 4, 2, 6, 3, true },
    { 1, 64, 2, 1, 8, 1, false },   { 1, 65, 3, 3, 5, 1, false },
    { 2, 130, 6, 2, 16, 4, true },  { 1, 200, 2, 2, 64, 1, true },
    { 3, 33, 8, 1, 10, 33, true },  { 1, 259, 1, 1, 32, 2, true },
    { 1, 645, 2, 1, 12, 1, true },  { 2, 515, 3, 3, 6, 2, false },
};
enum { N_SHAPES = sizeof SHAPES / sizeof *SHAPES };

/* Everything one run leaves behind. */
typedef struct result {
    int64_t nq, nk;
    cm_real *y, *gq, *gk, *gv;
} result;

static void result_free(result *r) { free(r->y), free(r->gq), free(r->gk), free(r->gv); }

static cm_real *keep(const cm_real *x, int64_t n) {
    cm_real *p = malloc((size_t)n * sizeof *p);
    memcpy(p, x, (size_t)n * sizeof *p);
    return p;
}

static void layout(const shape *s, int32_t *doc, int32_t *pos) {
    int every = s->T / s->docs ? s->T / s->docs : 1, d = 0;
    for (int r = 0; r < s->B * s->T; r++) {
        bool starts = r % s->T == 0 || (r % s->T) % every == 0;
        d += starts;
        doc[r] = d;
        pos[r] = starts ? 0 : pos[r - 1] + 1;
    }
}

static void freqs(int P, double *inv, double *mscale) {
    cm_rope_conf c = { .kind = CM_ROPE_YARN, .P = P, .base = 10000, .factor = 4,
                       .orig_ctx = 64, .beta_fast = 32, .beta_slow = 1 };
    cm_rope_freqs(&c, inv, mscale);
}

static cm_compute how; /* precision of the products, until set back */

/* Run forward and backward; bump != 0 changes the inputs of rows [from,to). */
static result run(const shape *s, double bump, int from, int to) {
    op_fix f;
    fix_open(&f, true);
    f.t.compute = how;
    int64_t R = (int64_t)s->B * s->T, HP = s->H * s->P, GP = s->G * s->P;
    int32_t *doc = malloc((size_t)R * 2 * sizeof *doc), *pos = doc + R;
    double inv[64], mscale = 1;
    freqs(s->P, inv, &mscale);
    layout(s, doc, pos);
    cm_var *q = fix_input(&f, 1, 2, (int64_t[]){ R, HP });
    cm_var *k = fix_input(&f, 2, 2, (int64_t[]){ R, GP });
    cm_var *v = fix_input(&f, 3, 2, (int64_t[]){ R, GP });
    for (int64_t i = from * HP; i < to * HP; i++) cm_rdata(&q->v)[i] += (cm_real)bump;
    for (int64_t i = from * GP; i < to * GP; i++) {
        cm_rdata(&k->v)[i] -= (cm_real)bump * (cm_real)(i % 3);
        cm_rdata(&v->v)[i] *= (cm_real)(1 + bump);
    }
    cm_seq seq = { .B = s->B, .T = s->T, .doc = doc, .pos = pos };
    cm_var *y = cm_attention(&f.t, q, k, v, &seq, s->H, s->G, (cm_real)0.4,
                             s->rope ? inv : NULL, mscale);
    fix_backward(&f, y, 4);
    result r = { R * HP, R * GP, keep(cm_rdata(&y->v), R * HP), keep(q->g, R * HP),
                 keep(k->g, R * GP), keep(v->g, R * GP) };
    free(doc);
    fix_close(&f);
    return r;
}

/* ---- the plain loops, in double ---- */

static void turn(double *x, int P, int sign, int32_t pos, const double *inv, double m) {
    for (int i = 0; inv && i < P / 2; i++) {
        double c = m * cos(pos * inv[i]), n = sign * m * sin(pos * inv[i]);
        double a = x[i], b = x[i + P / 2];
        x[i] = c * a - n * b;
        x[i + P / 2] = c * b + n * a;
    }
}

typedef struct plain {
    double *q, *k, *v, *y, *gy, *gq, *gk, *gv; /* q, k rotated; gradients of those */
} plain;

/* One query row r of head h: output and gradients.  Keys are rows first..r. */
static void plain_row(const shape *s, plain *p, int64_t r, int64_t first, int h) {
    int P = s->P, g = h / (s->H / s->G);
    double *w = calloc((size_t)(r - first + 1), sizeof *w);
    double sum = 0, max = -1e300, dot = 0;
    double *q = p->q + (r * s->H + h) * P, *gy = p->gy + (r * s->H + h) * P;
    double *y = p->y + (r * s->H + h) * P, *gq = p->gq + (r * s->H + h) * P;
    for (int64_t j = first; j <= r; j++) {
        for (int i = 0; i < P; i++) w[j - first] += q[i] * p->k[(j * s->G + g) * P + i];
        w[j - first] *= (double)(cm_real)0.4;
        max = fmax(max, w[j - first]);
    }
    for (int64_t j = 0; j <= r - first; j++) sum += w[j] = exp(w[j] - max);
    for (int64_t j = first; j <= r; j++)
        for (int i = 0; i < P; i++)
            y[i] += w[j - first] / sum * p->v[(j * s->G + g) * P + i];
    for (int i = 0; i < P; i++) dot += gy[i] * y[i];
    for (int64_t j = first; j <= r; j++) {
        double *k = p->k + (j * s->G + g) * P, *v = p->v + (j * s->G + g) * P, gp = 0;
        for (int i = 0; i < P; i++) gp += gy[i] * v[i];
        double a = w[j - first] / sum, ds = a * (gp - dot) * (double)(cm_real)0.4;
        for (int i = 0; i < P; i++) {
            p->gv[(j * s->G + g) * P + i] += a * gy[i];
            gq[i] += ds * k[i];
            p->gk[(j * s->G + g) * P + i] += ds * q[i];
        }
    }
    free(w);
}

static plain plain_run(const shape *s) {
    int64_t R = (int64_t)s->B * s->T, HP = s->H * s->P, GP = s->G * s->P;
    int32_t *doc = malloc((size_t)R * 2 * sizeof *doc), *pos = doc + R;
    double inv[64], mscale = 1;
    freqs(s->P, inv, &mscale);
    layout(s, doc, pos);
    plain p;
    double **all[] = { &p.q, &p.y, &p.gy, &p.gq, &p.k, &p.v, &p.gk, &p.gv };
    for (int i = 0; i < 8; i++)
        *all[i] = calloc((size_t)(R * (i < 4 ? HP : GP)), sizeof(double));
    for (int64_t i = 0; i < R * HP; i++) {
        p.q[i] = (double)(cm_real)fix_value(1, i);
        p.gy[i] = (double)(cm_real)fix_value(4, i);
    }
    for (int64_t i = 0; i < R * GP; i++) {
        p.k[i] = (double)(cm_real)fix_value(2, i);
        p.v[i] = (double)(cm_real)fix_value(3, i);
    }
    const double *f = s->rope ? inv : NULL;
    for (int64_t r = 0; r < R; r++) {
        for (int h = 0; h < s->H; h++)
            turn(p.q + (r * s->H + h) * s->P, s->P, 1, pos[r], f, mscale);
        for (int g = 0; g < s->G; g++)
            turn(p.k + (r * s->G + g) * s->P, s->P, 1, pos[r], f, mscale);
    }
    for (int64_t r = 0; r < R; r++)
        for (int h = 0; h < s->H; h++) plain_row(s, &p, r, r - pos[r], h);
    for (int64_t r = 0; r < R; r++) {
        for (int h = 0; h < s->H; h++)
            turn(p.gq + (r * s->H + h) * s->P, s->P, -1, pos[r], f, mscale);
        for (int g = 0; g < s->G; g++)
            turn(p.gk + (r * s->G + g) * s->P, s->P, -1, pos[r], f, mscale);
    }
    free(doc);
    return p;
}

static void plain_free(plain *p) {
    free(p->q), free(p->k), free(p->v), free(p->y);
    free(p->gy), free(p->gq), free(p->gk), free(p->gv);
}

static void compare(double tol_y, double tol_g, double least) {
    double most = 0;
    for (int i = 0; i < N_SHAPES; i++) {
        result a = run(&SHAPES[i], 0, 0, 0);
        plain b = plain_run(&SHAPES[i]);
        double y = fix_diff(a.nq, a.y, b.y), gq = fix_diff(a.nq, a.gq, b.gq);
        double gk = fix_diff(a.nk, a.gk, b.gk), gv = fix_diff(a.nk, a.gv, b.gv);
        CHECKF(y <= tol_y, "shape %d: y is off by %.3g", i, y);
        CHECKF(gq <= tol_g, "shape %d: dq is off by %.3g", i, gq);
        CHECKF(gk <= tol_g, "shape %d: dk is off by %.3g", i, gk);
        CHECKF(gv <= tol_g, "shape %d: dv is off by %.3g", i, gv);
        most = fmax(most, y);
        result_free(&a);
        plain_free(&b);
    }
    CHECKF(most >= least, "nothing was rounded: y is off by %.3g", most);
}

TEST(attention_equals_plain_loops) {
    fix_threads(2);
    compare(TOL(1e-12, 2e-6), TOL(1e-12, 1e-5), 0);
}

/* Rounding to BF16 moves a number by 2^-9 of itself at the most, 0.41 of that on average
 * (mean square).  A score is a sum of P <= 64 products of numbers in [-1,1] times 0.4: off
 * by about 0.4 sqrt(64) / 3 * 1.41 * 0.41 * 2^-9 = 1.2e-3, and its weight by as much of
 * itself.  y, a mean of v in [-1,1], is then off by the mean of such errors and the roundings
 * of v and of the weights: 2^-9 at the worst when one weight is nearly 1, and 6 x 1.2e-3 in
 * the tail of some 10^5 scores: 1e-2.  Gradients are sums of products of numbers as rounded
 * and reach 10 here; 4e-2 is 2^-8 of that. */
TEST(attention_in_bf16_is_near_plain_loops) {
    fix_threads(2);
    how = CM_COMPUTE_BF16;
    compare(1e-2, 4e-2, 1e-4);
    how = CM_COMPUTE_FP32;
}

static bool same(const result *a, const result *b) {
    return fix_same(a->nq, a->y, b->y) && fix_same(a->nq, a->gq, b->gq) &&
           fix_same(a->nk, a->gk, b->gk) && fix_same(a->nk, a->gv, b->gv);
}

TEST(attention_same_bits_for_any_threads) {
    for (int i = 0; i < 2 * N_SHAPES; i++) {
        const shape *s = &SHAPES[i / 2];
        how = i % 2 ? CM_COMPUTE_BF16 : CM_COMPUTE_FP32;
        fix_threads(1);
        result a = run(s, 0, 0, 0);
        for (int threads = 2; threads <= 4; threads++) {
            fix_threads(threads);
            result b = run(s, 0, 0, 0);
            CHECKF(same(&a, &b), "shape %d differs on %d threads", i / 2, threads);
            result_free(&b);
        }
        result_free(&a);
    }
    how = CM_COMPUTE_FP32;
}

/* Change rows [65,130) of a row of documents 0-64, 65-129, 130-194: only they change. */
static void documents_are_alone(void) {
    const shape s = { 1, 195, 4, 2, 6, 3, true };
    const int64_t lo = 65, hi = 130;
    result a = run(&s, 0, 0, 0), b = run(&s, 0.3, (int)lo, (int)hi);
    const cm_real *x[] = { a.y, a.gq, a.gk, a.gv }, *y[] = { b.y, b.gq, b.gk, b.gv };
    static const char *const name[] = { "y", "dq", "dk", "dv" };
    for (int i = 0; i < 4; i++) {
        int64_t w = (i < 2 ? s.H : s.G) * s.P;
        CHECKF(fix_same(lo * w, x[i], y[i]), "%s before the change moved", name[i]);
        CHECKF(fix_same((s.T - hi) * w, x[i] + hi * w, y[i] + hi * w),
               "%s after the change moved", name[i]);
        CHECKF(!fix_same((hi - lo) * w, x[i] + lo * w, y[i] + lo * w),
               "%s of the changed document did not", name[i]);
    }
    result_free(&a), result_free(&b);
}

TEST(attention_documents_are_alone) {
    fix_threads(2);
    documents_are_alone();
    how = CM_COMPUTE_BF16;
    documents_are_alone();
    how = CM_COMPUTE_FP32;
}

static cm_var *rows_of(op_fix *f, cm_var *x, int B, int T, int from, int n) {
    int64_t w = x->v.dim[1];
    cm_var *y = cm_var_new(&f->t, (int64_t[]){ (int64_t)B * n, w }, 2, false);
    for (int b = 0; b < B; b++)
        memcpy(cm_rdata(&y->v) + (int64_t)b * n * w,
               cm_rdata(&x->v) + ((int64_t)b * T + from) * w,
               sizeof(cm_real) * (size_t)(n * w));
    return y;
}

/* A document packed behind others has the bits it has alone. */
static void packing_changes_no_bit(void) {
    enum { LEN = 150, AT = 37, H = 4, G = 2, P = 8, ALL = AT + LEN + 20 };
    static int32_t doc[ALL], pos[ALL];
    op_fix f;
    double inv[P / 2], mscale = 1;
    freqs(P, inv, &mscale);
    fix_threads(2);
    for (int t = 0; t < ALL; t++) {
        doc[t] = (t >= AT) + (t >= AT + LEN);
        pos[t] = t < AT ? t : t < AT + LEN ? t - AT : t - AT - LEN;
    }
    cm_real *alone = NULL;
    for (int packed = 0; packed < 2; packed++) {
        int rows = packed ? ALL : LEN, at = packed ? AT : 0;
        cm_seq seq = { .B = 1, .T = rows, .doc = packed ? doc : NULL,
                       .pos = packed ? pos : NULL };
        cm_var *x[3];
        fix_open(&f, true);
        f.t.compute = how;
        for (int i = 0; i < 3; i++) {
            int64_t w = (i ? G : H) * P;
            x[i] = fix_var(&f, 9, 2, (int64_t[]){ rows, w });
            for (int64_t j = 0; j < LEN * w; j++)
                cm_rdata(&x[i]->v)[at * w + j] = (cm_real)fix_value((uint64_t)i, j);
        }
        cm_var *y = cm_attention(&f.t, x[0], x[1], x[2], &seq, H, G, 1, inv, mscale);
        y = rows_of(&f, y, 1, rows, at, LEN);
        if (packed) CHECK(fix_same(LEN * H * P, cm_rdata(&y->v), alone));
        else alone = keep(cm_rdata(&y->v), LEN * H * P);
        fix_close(&f);
    }
    free(alone);
}

TEST(attention_packing_changes_no_bit) {
    packing_changes_no_bit();
    how = CM_COMPUTE_BF16;
    packing_changes_no_bit();
    how = CM_COMPUTE_FP32;
}

/* ---- cache ---- */

/* Largest difference between all rows at once and rows fed through a cache. */
enum { CACHE_REALS = 2 * 150 * 6 * 16 };
static double cache_diff_as(const int *portion, bool exact, cm_dtype type, cm_real *rows) {
    enum { B = 2, T = 150, H = 6, G = 2, P = 16, CAP = 160 };
    op_fix f;
    fix_open(&f, false);
    double inv[P / 2], mscale = 1, worst = 0;
    freqs(P, inv, &mscale);
    cm_var *q = fix_var(&f, 1, 2, (int64_t[]){ B * T, H * P });
    cm_var *k = fix_var(&f, 2, 2, (int64_t[]){ B * T, G * P });
    cm_var *v = fix_var(&f, 3, 2, (int64_t[]){ B * T, G * P });
    cm_seq seq = { .B = B, .T = T };
    cm_var *all = cm_attention(&f.t, q, k, v, &seq, H, G, (cm_real)0.4, inv, mscale);
    int32_t held[B] = { 0, 0 };
    size_t bytes = sizeof(cm_real) * B * CAP * G * P;
    cm_kv kv = { cm_arena_alloc(&f.arena, bytes), cm_arena_alloc(&f.arena, bytes), CAP,
                 held, exact, false, type };
    for (int at = 0, i = 0; at < T; i++) {
        int n = portion[i] < T - at ? portion[i] : T - at;
        cm_var *y = cm_attention_cached(&f.t, rows_of(&f, q, B, T, at, n),
                                        rows_of(&f, k, B, T, at, n),
                                        rows_of(&f, v, B, T, at, n), &kv, B, H, G,
                                        (cm_real)0.4, inv, mscale);
        cm_var *want = rows_of(&f, all, B, T, at, n);
        const cm_real *got = cm_rdata(&y->v), *full = cm_rdata(&want->v);
        for (int64_t j = 0; j < cm_tensor_count(&y->v); j++)
            worst = fmax(worst, fabs((double)(got[j] - full[j])));
        for (int b = 0; rows && b < B; b++)
            memcpy(rows + (b * T + at) * H * P, got + b * n * H * P,
                   sizeof *rows * (size_t)(n * H * P));
        at += n;
        for (int b = 0; b < B; b++) held[b] = at;
    }
    fix_close(&f);
    return worst;
}

static double cache_diff(const int *portion, bool exact) {
    return cache_diff_as(portion, exact, CM_F32_T, NULL);
}

/* Values are at most 1 in magnitude, and so is each one's error e here; scores are sums of
 * P = 16 products of numbers up to 1 (q times 0.4), off by 0.4 * 16 e at most and softmax's
 * weights by twice that relatively: together e (1 + 2 * 6.4).  Heads of 16 numbers share
 * blocks of 32. */
TEST(attention_over_a_narrow_cache) {
    static const int once[] = { 150 }, bits[] = { 1, 5, 64, 2, 61, 1, 3, 13 };
    static const struct { cm_dtype type; double e; } as[] = {
        { CM_F16_T, 1.0 / 2048 }, { CM_Q8_0_T, 1.5 / 254 },
    };
    static cm_real a[CACHE_REALS], b[CACHE_REALS];
    fix_threads(2);
    for (int i = 0; i < 2; i++) {
        double d = cache_diff_as(once, true, as[i].type, a);
        CHECKF(d > 0.01 * as[i].e && d < 13.8 * as[i].e, "%s is off by %.3g",
               cm_dtypes[as[i].type].name, d);
        CHECK(cache_diff_as(bits, true, as[i].type, b) == d);
        CHECKF(!memcmp(a, b, sizeof a), "%s: portions matter", cm_dtypes[as[i].type].name);
        cache_diff_as(bits, false, as[i].type, b);
        double most = 0;
        for (int k = 0; k < CACHE_REALS; k++) most = fmax(most, fabs((double)(a[k] - b[k])));
        CHECKF(most <= TOL(1e-14, 1e-6), "decode is off by %.3g", most);
    }
}

TEST(attention_cache_equals_full) {
    static const int once[] = { 150 }, bits[] = { 1, 5, 64, 2, 61, 1, 3, 13 };
    fix_threads(2);
    CHECK(cache_diff(once, true) == 0);
    CHECK(cache_diff(bits, true) == 0);
    double d = cache_diff(bits, false);
    CHECKF(d <= TOL(1e-14, 1e-6), "decode is off by %.3g", d);
}
