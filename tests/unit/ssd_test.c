/* ssd_test.c -- the Mamba-2 ops against the definition: one token after another.
 *
 * The oracle is the plain recurrence and its backward in double (naive_ssd).  In the
 * double build the chunked scan must equal it to 1e-12; in float, tolerances are stated
 * where used and were not fitted to what came out. */
#include "op/op.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define IS_DOUBLE (sizeof(cm_real) == sizeof(double))

enum { N_IN = 6 }; /* xbc dtx A_log D dt_bias s0 */

typedef struct {
    int B, T, H, P, N, G, Q;
    const int32_t *doc;
    bool s0, twice;
} shape;

typedef struct {
    double *v[N_IN], *g[N_IN], *y, *s1; /* inputs, gradients, outputs */
    double *gy, *gs1;                   /* upstream gradients */
} world;

static const int DCOL = 1, EXTRA = 2;

static int64_t in_count(const shape *s, int i) {
    int64_t R = (int64_t)s->B * s->T, state = (int64_t)s->B * s->H * s->N * s->P;
    switch (i) {
    case 0: return R * (s->H * s->P + 2 * s->G * s->N);
    case 1: return R * (s->H + EXTRA);
    case 5: return state;
    default: return s->H;
    }
}

static double *doubles(int64_t n) {
    double *p = calloc((size_t)n + 1, sizeof *p);
    CM_ASSERT(p, "out of memory");
    return p;
}

static double *filled(int64_t n, uint64_t stream, double lo, double hi) {
    double *p = doubles(n);
    cm_rng r = cm_rng_make(42, CM_RNG_TEST, stream);
    /* As float values, so that both builds compute from the same inputs. */
    for (int64_t i = 0; i < n; i++)
        p[i] = (double)(float)(lo + (hi - lo) * cm_rng_uniform(r, (uint64_t)i));
    return p;
}

static world make_world(const shape *s) {
    world w = { 0 };
    int64_t R = (int64_t)s->B * s->T;
    for (int i = 0; i < N_IN; i++) {
        w.v[i] = filled(in_count(s, i), (uint64_t)i, i == 2 ? -2 : -1, 1);
        w.g[i] = doubles(in_count(s, i));
    }
    w.y = doubles(R * s->H * s->P);
    w.s1 = doubles(in_count(s, 5));
    w.gy = filled(R * s->H * s->P, 10, -1, 1);
    w.gs1 = filled(in_count(s, 5), 11, -1, 1);
    return w;
}

static void free_world(world *w) {
    for (int i = 0; i < N_IN; i++) free(w->v[i]), free(w->g[i]);
    free(w->y), free(w->s1), free(w->gy), free(w->gs1);
}

/* ---- the oracle -------------------------------------------------------------------- */

static double softplus(double v) { return v > 20 ? v : log1p(exp(v)); }

/* One head of one row; state[t] is the state before token t, [N,P]. */
static void naive_head(const shape *s, world *w, int b, int h) {
    int W = s->H * s->P + 2 * s->G * s->N, N = s->N, P = s->P, g = h / (s->H / s->G);
    int64_t size = (int64_t)N * P, bh = ((int64_t)b * s->H + h) * size;
    double *state = doubles((s->T + 1) * size), *d = doubles(size);
    double A = -exp(w->v[2][h]), D = w->v[3][h];
    if (s->s0) memcpy(state, w->v[5] + bh, (size_t)size * sizeof *state);
    for (int t = 0; t < s->T; t++) {
        int64_t r = (int64_t)b * s->T + t;
        const double *x = w->v[0] + r * W + h * P;
        const double *B = w->v[0] + r * W + s->H * P + g * N, *C = B + s->G * N;
        double *in = state + t * size, *out = in + size, *y = w->y + (r * s->H + h) * P;
        double dt = softplus(w->v[1][r * (s->H + EXTRA) + DCOL + h] + w->v[4][h]);
        if (t && s->doc && s->doc[r] != s->doc[r - 1]) memset(in, 0, (size_t)size * 8);
        for (int p = 0; p < P; p++) y[p] = D * x[p];
        for (int n = 0; n < N; n++)
            for (int p = 0; p < P; p++) {
                out[n * P + p] = exp(dt * A) * in[n * P + p] + dt * B[n] * x[p];
                y[p] += C[n] * out[n * P + p];
            }
    }
    memcpy(w->s1 + bh, state + s->T * size, (size_t)size * 8);
    memcpy(d, w->gs1 + bh, (size_t)size * 8);
    for (int t = s->T - 1; t >= 0; t--) {
        int64_t r = (int64_t)b * s->T + t, xo = r * W + h * P;
        int64_t bo = r * W + s->H * P + g * N, co = bo + s->G * N;
        int64_t dto = r * (s->H + EXTRA) + DCOL + h;
        double raw = w->v[1][dto] + w->v[4][h], dt = softplus(raw), e = exp(dt * A);
        const double *x = w->v[0] + xo, *B = w->v[0] + bo, *C = w->v[0] + co;
        const double *dy = w->gy + (r * s->H + h) * P, *in = state + t * size;
        bool starts = t && s->doc && s->doc[r] != s->doc[r - 1];
        double da = 0, ddt = 0;
        for (int p = 0; p < P; p++) {
            w->g[0][xo + p] += D * dy[p];
            w->g[3][h] += dy[p] * x[p];
        }
        for (int n = 0; n < N; n++)
            for (int p = 0; p < P; p++) {
                double *ds = &d[n * P + p];
                /* `in` of the next token was cleared when that starts a document. */
                double now = e * in[n * P + p] + dt * B[n] * x[p];
                *ds += C[n] * dy[p];
                w->g[0][co + n] += now * dy[p];
                w->g[0][xo + p] += dt * B[n] * *ds;
                w->g[0][bo + n] += dt * x[p] * *ds;
                ddt += B[n] * x[p] * *ds;
                da += e * in[n * P + p] * *ds;
                *ds = starts ? 0 : e * *ds;
            }
        double draw = (ddt + A * da) * (raw > 20 ? 1 : 1 / (1 + exp(-raw)));
        w->g[1][dto] += draw;
        w->g[2][h] += A * dt * da;
        w->g[4][h] += draw;
    }
    for (int64_t i = 0; s->s0 && i < size; i++) w->g[5][bh + i] += d[i];
    free(state), free(d);
}

static void naive_ssd(const shape *s, world *w) {
    for (int b = 0; b < s->B; b++)
        for (int h = 0; h < s->H; h++) naive_head(s, w, b, h);
}

/* ---- running ops --------------------------------------------------------------------- */

/* loss = sum <x_k, w_k>: sends given gradients into a graph. */
typedef struct {
    const double *w[2];
} dot_attr;

static bool dot_infer(cm_node *n, const char **why) {
    (void)why;
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}
static void dot_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    *cm_rdata(&n->out[0]->v) = 0;
}
static void dot_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    const dot_attr *a = n->attr;
    for (int k = 0; k < n->n_in; k++)
        for (int64_t i = 0; i < cm_tensor_count(&n->in[k]->v); i++)
            n->in[k]->g[i] += (cm_real)a->w[k % 2][i];
}
static const cm_op op_dot = {
    .name = "dot", .shapes = "x.. -> y[1]", .n_in = 1, .n_out = 1,
    .attr_bytes = sizeof(dot_attr), .infer = dot_infer, .fwd = dot_fwd, .bwd = dot_bwd,
};

static cm_arena mem, meta;
static cm_compute how; /* precision of the scan's products, until set back */

static void begin(cm_tape *t, bool recording) {
    cm_err err;
    if (!mem.base) {
        CM_ASSERT(cm_arena_open(&mem, "test", (size_t)1 << 32, &err), "%s", err.msg);
        CM_ASSERT(cm_arena_open(&meta, "meta", (size_t)1 << 30, &err), "%s", err.msg);
    }
    cm_arena_reset(&mem, 0);
    cm_arena_reset(&meta, 0);
    cm_tape_begin(t, &mem, &meta, recording, false);
}

static void threads(int n) {
    cm_err err;
    CM_ASSERT(cm_kern_init(CM_NUMERICS_STRICT, n, &err), "%s", err.msg);
}

static cm_var *var_of(cm_tape *t, const double *v, int nd, const int64_t *dim, bool grad) {
    cm_var *x = cm_var_new(t, dim, nd, grad);
    int64_t n = cm_tensor_count(&x->v);
    for (int64_t i = 0; i < n; i++) cm_rdata(&x->v)[i] = (cm_real)v[i];
    return x;
}

static void get(const cm_real *from, int64_t n, double *to) {
    for (int64_t i = 0; i < n; i++) to[i] = from ? (double)from[i] : 0;
}

/* Outputs and gradients of cm_ssd into w. */
static void run_ssd(const shape *s, world *w) {
    cm_tape t;
    begin(&t, true);
    t.compute = how;
    int64_t R = (int64_t)s->B * s->T, H = s->H;
    const int64_t dims[N_IN][4] = { { R, H * s->P + 2 * s->G * s->N }, { R, H + EXTRA },
                                    { H }, { H }, { H }, { s->B, H, s->N, s->P } };
    const int nd[N_IN] = { 2, 2, 1, 1, 1, 4 };
    cm_var *in[N_IN], *out[4];
    for (int i = 0; i < N_IN; i++) in[i] = var_of(&t, w->v[i], nd[i], dims[i], true);
    if (!s->s0) in[5] = NULL;
    cm_seq seq = { .B = s->B, .T = s->T, .doc = s->doc };
    cm_ssd_conf c = { s->H, s->P, s->N, s->G, s->Q, .dcol = DCOL };
    int n = s->twice ? 2 : 1;
    for (int k = 0; k < n; k++)
        cm_ssd(&t, in[0], in[1], in[2], in[3], in[4], in[5], &seq, &c, &out[2 * k],
               &out[2 * k + 1]);
    get(cm_rdata(&out[0]->v), R * H * s->P, w->y);
    get(cm_rdata(&out[1]->v), in_count(s, 5), w->s1);
    cm_var *loss;
    dot_attr a = { { w->gy, w->gs1 } };
    cm_tape_apply(&t, &op_dot, out, 2 * n, &a, &loss);
    cm_tape_backward(&t, loss, 1);
    for (int i = 0; i < N_IN; i++) get(in[i] ? in[i]->g : NULL, in_count(s, i), w->g[i]);
}

/* Largest difference, relative to the largest value. */
static double apart(const double *a, const double *b, int64_t n) {
    double diff = 0, top = 1e-30;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(a[i] - b[i]);
        if (!(d <= diff)) diff = d;
        if (fabs(b[i]) > top) top = fabs(b[i]);
    }
    return diff / top;
}

static void compare(const shape *s, const world *got, const world *want, double scale,
                    double tol, const char *what) {
    int64_t n = (int64_t)s->B * s->T * s->H * s->P;
    double e = apart(got->y, want->y, n), e1 = apart(got->s1, want->s1, in_count(s, 5));
    CHECKF(e <= tol, "%s Q=%d: y off by %.2e", what, s->Q, e);
    CHECKF(e1 <= tol, "%s Q=%d: s1 off by %.2e", what, s->Q, e1);
    for (int i = 0; i < N_IN; i++) {
        int64_t k = in_count(s, i);
        double *g = doubles(k);
        for (int64_t j = 0; j < k; j++) g[j] = scale * want->g[i][j];
        double eg = apart(got->g[i], g, k);
        double most = how == CM_COMPUTE_BF16 && i >= 2 && i <= 4 ? 4 * tol : tol;
        CHECKF(eg <= most, "%s Q=%d: gradient %d off by %.2e", what, s->Q, i, eg);
        free(g);
    }
}

/* ---- scan ---------------------------------------------------------------------------- */

enum { LAYOUTS = 4 };

/* 0: one document; 1: at multiples of 16, of 3; 2: single tokens in a row; 3: random. */
static const int32_t *layout(int kind, int B, int T, int32_t *doc) {
    if (kind == 0) return NULL;
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 77);
    for (int b = 0, d = 0; b < B; b++, d++)
        for (int t = 0; t < T; t++) {
            uint64_t i = (uint64_t)(b * T + t);
            bool new = kind == 1   ? t == 16 || t == 48 || t == 51 + b || t == 64
                       : kind == 2 ? t == 1 || t == 2 || t == 3 || (t > 30 && t < 37)
                                   : cm_rng_below(r, i, 20) == 0;
            doc[i] = d += t && new;
        }
    return doc;
}

static void chunked_equals_recurrence(double tol) {
    const int Qs[] = { 1, 3, 16, 64, 75 };
    static const shape shapes[] = {
        { 2, 75, 4, 5, 7, 2, 0, NULL, true, false },
        { 1, 75, 2, 16, 8, 1, 0, NULL, false, false },
        { 1, 75, 3, 17, 33, 3, 0, NULL, true, true },
        { 2, 75, 10, 4, 3, 1, 0, NULL, false, false },
    };
    int32_t doc[2 * 75];
    threads(2);
    for (int k = 0; k < 4; k++)
        for (int d = 0; d < LAYOUTS; d++) {
            shape s = shapes[k];
            s.doc = layout(d, s.B, s.T, doc);
            world want = make_world(&s), got = make_world(&s);
            naive_ssd(&s, &want);
            for (int q = 0; q < 5; q++) {
                char what[64];
                snprintf(what, sizeof what, "shape %d layout %d", k, d);
                s.Q = Qs[q];
                run_ssd(&s, &got);
                compare(&s, &got, &want, s.twice ? 2 : 1, tol, what);
            }
            free_world(&want), free_world(&got);
        }
}

TEST(chunked_equals_recurrence) {
    /* In float: sums of up to T products, and decays from exponents of up to about 100. */
    chunked_equals_recurrence(IS_DOUBLE ? 1e-12 : 3e-5);
}

/* A factor rounded to BF16 is off by 2^-9 of itself at the most.  A term of an output has two
 * such factors; of one that went through a state four, as the state is rounded when it is read
 * (not when it is carried on); six in a gradient.  A result is compared with the largest of
 * its kind: 6 roundings, were all at their worst and of one sign in the sum that is that
 * largest, make 1.2e-2.  The gradients of A, D and the steps' bias are sums over 75 or 150
 * tokens of such numbers of both signs, off by as much of what does not cancel and more of what
 * is left: at most 4 times (sqrt(75) in the worst case). */
TEST(bf16_is_near_the_recurrence) {
    how = CM_COMPUTE_BF16;
    chunked_equals_recurrence(1.2e-2);
    shape s = { 1, 75, 2, 16, 8, 1, 16, NULL, true, false };
    world a = make_world(&s), b = make_world(&s);
    run_ssd(&s, &a);
    how = CM_COMPUTE_FP32;
    run_ssd(&s, &b);
    CHECK(apart(a.y, b.y, 75 * 2 * 16) > 1e-4);
    free_world(&a), free_world(&b);
}

/* Bytes of a forward pass over one row that goes on from a state. */
static size_t row_bytes(int T, int H) {
    cm_arena count;
    cm_err err;
    cm_tape t;
    CM_ASSERT(cm_arena_open_counting(&count, "count", &err), "%s", err.msg);
    begin(&t, false); /* the arenas, if this test is the first */
    cm_tape_begin(&t, &count, &meta, false, true);
    const int64_t dims[N_IN][4] = { { T, H * 64 + 2 * 64 }, { T, H }, { H }, { H }, { H },
                                    { 1, H, 64, 64 } };
    const int nd[N_IN] = { 2, 2, 1, 1, 1, 4 };
    cm_var *in[N_IN], *y, *s1;
    for (int i = 0; i < N_IN; i++) in[i] = cm_var_new(&t, dims[i], nd[i], false);
    cm_seq seq = { .B = 1, .T = T };
    cm_ssd_conf c = { H, 64, 64, 1, 64, .dcol = 0 };
    cm_ssd(&t, in[0], in[1], in[2], in[3], in[4], in[5], &seq, &c, &y, &s1);
    size_t bytes = count.peak;
    cm_arena_close(&count);
    return bytes;
}

/* Sessions make room for their longest step. */
TEST(a_shorter_row_never_needs_more_memory) {
    for (int n = 1; n <= 4; n++)
        for (int H = 16; H <= 48; H += 16) {
            threads(n);
            size_t before = row_bytes(2, H);
            for (int T = 3; T < 140; T++) {
                size_t now = row_bytes(T, H);
                CHECKF(now >= before, "%d threads, %d heads: %d tokens take %zu bytes, %d %zu",
                       n, H, T - 1, before, T, now);
                before = now;
            }
        }
    threads(2);
}

TEST(steps_in_the_linear_part_of_softplus) {
    shape s = { 1, 20, 2, 3, 4, 1, 8, NULL, true, false };
    world want = make_world(&s), got = make_world(&s);
    for (int h = 0; h < 2; h++) {
        want.v[2][h] = got.v[2][h] = -6;
        want.v[4][h] = got.v[4][h] = 20;
    }
    naive_ssd(&s, &want);
    run_ssd(&s, &got);
    compare(&s, &got, &want, 1, IS_DOUBLE ? 1e-12 : 3e-5, "large steps");
    free_world(&want), free_world(&got);
}

static bool same_bits(const world *a, const world *b, const shape *s) {
    size_t n = (size_t)(s->B * s->T * s->H * s->P);
    bool same = !memcmp(a->y, b->y, n * 8) &&
                !memcmp(a->s1, b->s1, (size_t)in_count(s, 5) * 8);
    for (int i = 0; i < N_IN; i++)
        same = same && !memcmp(a->g[i], b->g[i], (size_t)in_count(s, i) * 8);
    return same;
}

/* One thread takes whole rows, several do where there are rows enough, else chunks. */
TEST(threads_do_not_change_bits) {
    int32_t doc[3 * 100];
    shape some[] = {
        { 3, 100, 8, 16, 16, 2, 16, layout(3, 3, 100, doc), true, false },
        { 1, 70, 18, 6, 5, 1, 16, NULL, true, false },
        { 2, 33, 3, 4, 7, 3, 8, NULL, false, false },
    };
    for (size_t k = 0; k < 2 * sizeof some / sizeof *some; k++) {
        size_t i = k / 2;
        how = k % 2 ? CM_COMPUTE_BF16 : CM_COMPUTE_FP32;
        world one = make_world(&some[i]);
        threads(1);
        run_ssd(&some[i], &one);
        for (int n = 2; n <= 4; n++) {
            world many = make_world(&some[i]);
            threads(n);
            run_ssd(&some[i], &many);
            CHECKF(same_bits(&one, &many, &some[i]), "shape %zu on %d threads", i, n);
            free_world(&many);
        }
        free_world(&one);
    }
    how = CM_COMPUTE_FP32;
    threads(2);
}

/* Change everything about document 1 of row 0, even to NaN; the rest must not notice. */
TEST(documents_do_not_touch) {
    enum { T = 60, FROM = 13, TO = 41 };
    int32_t doc[T];
    for (int t = 0; t < T; t++) doc[t] = t < FROM ? 0 : t < TO ? 1 : 2;
    const double bad[] = { 3.5, NAN, INFINITY };
    for (int k = 0; k < 6; k++) {
        how = k < 3 ? CM_COMPUTE_FP32 : CM_COMPUTE_BF16;
        shape s = { 1, T, 4, 16, 8, 1, 16, doc, true, false };
        world a = make_world(&s), b = make_world(&s);
        int64_t W = in_count(&s, 0) / T, wd = in_count(&s, 1) / T, DI = s.H * s.P;
        for (int64_t i = FROM * W; i < TO * W; i++) b.v[0][i] *= bad[k % 3];
        for (int64_t i = FROM * wd; i < TO * wd; i++) b.v[1][i] *= bad[k % 3];
        for (int64_t i = FROM * DI; i < TO * DI; i++) b.gy[i] *= bad[k % 3];
        run_ssd(&s, &a);
        run_ssd(&s, &b);
        CHECK(memcmp(a.y + FROM * DI, b.y + FROM * DI, (TO - FROM) * (size_t)DI * 8));
        const struct { const double *a, *b; int64_t w; } rows[] = {
            { a.y, b.y, DI }, { a.g[0], b.g[0], W }, { a.g[1], b.g[1], wd },
        };
        for (int i = 0; i < 3; i++) {
            size_t w = (size_t)rows[i].w * 8;
            CHECK(!memcmp(rows[i].a, rows[i].b, FROM * w));
            CHECK(!memcmp(rows[i].a + TO * rows[i].w, rows[i].b + TO * rows[i].w,
                          (T - TO) * w));
        }
        CHECK(!memcmp(a.s1, b.s1, (size_t)in_count(&s, 5) * 8));
        CHECK(!memcmp(a.g[5], b.g[5], (size_t)in_count(&s, 5) * 8));
        free_world(&a), free_world(&b);
    }
    how = CM_COMPUTE_FP32;
}

/* A document packed behind another has the bits it has alone. */
static void place_in_the_row_does_not_matter(void) {
    enum { T = 70, FROM = 23 };
    int32_t doc[T];
    for (int t = 0; t < T; t++) doc[t] = t >= FROM;
    shape s = { 1, T, 2, 16, 8, 1, 16, doc, false, false }, alone = s;
    alone.T = T - FROM;
    alone.doc = NULL;
    world a = make_world(&s), b = make_world(&alone);
    int64_t W = in_count(&s, 0) / T, wd = in_count(&s, 1) / T, DI = s.H * s.P;
    memcpy(b.v[0], a.v[0] + FROM * W, (size_t)in_count(&alone, 0) * 8);
    memcpy(b.v[1], a.v[1] + FROM * wd, (size_t)in_count(&alone, 1) * 8);
    memcpy(b.gy, a.gy + FROM * DI, (size_t)(alone.T * DI) * 8);
    run_ssd(&s, &a);
    run_ssd(&alone, &b);
    CHECK(!memcmp(b.y, a.y + FROM * DI, (size_t)(alone.T * DI) * 8));
    CHECK(!memcmp(b.g[0], a.g[0] + FROM * W, (size_t)in_count(&alone, 0) * 8));
    CHECK(!memcmp(b.g[1], a.g[1] + FROM * wd, (size_t)in_count(&alone, 1) * 8));
    CHECK(!memcmp(b.s1, a.s1, (size_t)in_count(&s, 5) * 8));
    free_world(&a), free_world(&b);
}

TEST(place_in_the_row_does_not_matter) {
    place_in_the_row_does_not_matter();
    how = CM_COMPUTE_BF16;
    place_in_the_row_does_not_matter();
    how = CM_COMPUTE_FP32;
}

/* ---- pieces: convolution and scan together, as in generation ------------------------- */

enum { PB = 2, PT = 50, PH = 4, PP = 16, PN = 8, PG = 2, PK = 4, PQ = 8 };
enum { PW = PH * PP + 2 * PG * PN, PCOL = 3, PX = PW + PCOL + PH };

typedef struct {
    cm_real window[PB * (PK - 1) * PW], state[PB * PH * PN * PP];
} carried;

/* Tokens [t0,t1) of all rows through conv and scan, carrying on in `c`. */
static void piece(const double *zx, int t0, int t1, carried *c, double *y) {
    int n = t1 - t0;
    double *part = doubles(PB * n * PX), *w = filled(PW * PK, 31, -0.5, 0.5);
    double *b = filled(PW, 32, -0.5, 0.5), *head = filled(3 * PH, 33, -1, 1);
    for (int r = 0; r < PB; r++)
        memcpy(part + r * n * PX, zx + (r * PT + t0) * PX, (size_t)(n * PX) * 8);
    cm_tape t;
    begin(&t, false);
    cm_seq seq = { .B = PB, .T = n };
    cm_ssd_conf conf = { PH, PP, PN, PG, PQ, PCOL + PW, .from = c->state, .to = c->state };
    cm_var *x = var_of(&t, part, 2, (int64_t[]){ PB * n, PX }, false), *out;
    cm_var *cw = var_of(&t, w, 2, (int64_t[]){ PW, PK }, false);
    cm_var *cb = var_of(&t, b, 1, (int64_t[]){ PW }, false), *hv[3];
    for (int i = 0; i < 3; i++)
        hv[i] = var_of(&t, head + i * PH, 1, (int64_t[]){ PH }, false);
    cm_var *xbc = cm_conv_silu(&t, x, cw, cb, &seq, PCOL, c->window, c->window);
    cm_ssd(&t, xbc, x, hv[0], hv[1], hv[2], NULL, &seq, &conf, &out, NULL);
    const int DI = PH * PP;
    for (int r = 0; r < PB; r++)
        get(cm_rdata(&out->v) + r * n * DI, n * DI, y + (r * PT + t0) * DI);
    free(part), free(w), free(b), free(head);
}

TEST(pieces_equal_the_whole) {
    static carried whole, cut, ragged, steps;
    int n = PB * PT * PH * PP;
    double *zx = filled(PB * PT * PX, 30, -1, 1), *y[4];
    for (int i = 0; i < 4; i++) y[i] = doubles(n);
    threads(2);
    piece(zx, 0, PT, &whole, y[0]);
    const int at[] = { 0, 2 * PQ, 3 * PQ, PT }, rag[] = { 0, 1, 3, 20, 33, PT };
    for (int i = 0; i < 3; i++) piece(zx, at[i], at[i + 1], &cut, y[1]);
    for (int i = 0; i < 5; i++) piece(zx, rag[i], rag[i + 1], &ragged, y[2]);
    for (int i = 0; i < PT; i++) piece(zx, i, i + 1, &steps, y[3]);
    CHECK(!memcmp(y[0], y[1], (size_t)n * 8) && !memcmp(&whole, &cut, sizeof whole));
    const double tol = IS_DOUBLE ? 1e-13 : 1e-5;
    double sw[PB * PH * PN * PP], ss[PB * PH * PN * PP];
    get(whole.state, PB * PH * PN * PP, sw);
    get(steps.state, PB * PH * PN * PP, ss);
    double e2 = apart(y[2], y[0], n), e3 = apart(y[3], y[0], n);
    double es = apart(ss, sw, PB * PH * PN * PP);
    CHECKF(e2 <= tol && e3 <= tol && es <= tol, "ragged %.1e steps %.1e state %.1e", e2,
           e3, es);
    CHECK(!memcmp(whole.window, steps.window, sizeof whole.window));
    for (int i = 0; i < 4; i++) free(y[i]);
    free(zx);
}

/* One token by the recurrence has the bits of one token as a chunk. */
TEST(step_equals_chunk_of_one) {
    shape s = { 3, 1, 4, 16, 8, 2, 8, NULL, true, false };
    world w = make_world(&s);
    run_ssd(&s, &w); /* recording, so by chunks */
    cm_tape t;
    begin(&t, false);
    cm_var *in[N_IN], *y, *s1;
    const int64_t dims[N_IN][4] = { { 3, 4 * 16 + 2 * 2 * 8 }, { 3, 4 + EXTRA }, { 4 },
                                    { 4 }, { 4 }, { 3, 4, 8, 16 } };
    const int nd[N_IN] = { 2, 2, 1, 1, 1, 4 };
    for (int i = 0; i < N_IN; i++) in[i] = var_of(&t, w.v[i], nd[i], dims[i], false);
    cm_seq seq = { .B = 3, .T = 1 };
    cm_ssd_conf c = { 4, 16, 8, 2, 8, .dcol = DCOL };
    cm_ssd(&t, in[0], in[1], in[2], in[3], in[4], in[5], &seq, &c, &y, &s1);
    for (int i = 0; i < 3 * 4 * 16; i++) CHECK((double)cm_rdata(&y->v)[i] == w.y[i]);
    for (int i = 0; i < 3 * 4 * 8 * 16; i++)
        CHECK((double)cm_rdata(&s1->v)[i] == w.s1[i]);
    free_world(&w);
}

/* ---- states by document ------------------------------------------------------------- */

enum { DT = 60, DOCS = 3, DSTATE = PH * PN * PP };

/* Scan n packed tokens from token `at` of the texts; y[n,PH*PP]. */
static void scan(const double *xbc, const double *dt, int at, int n, const int32_t *doc,
                 const cm_ssd_conf *c, double *y) {
    double *head = filled(3 * PH, 33, -1, 1);
    cm_tape t;
    begin(&t, false);
    cm_seq seq = { .B = 1, .T = n, .doc = doc };
    cm_var *x = var_of(&t, xbc + at * PW, 2, (int64_t[]){ n, PW }, false), *hv[3], *out;
    cm_var *d = var_of(&t, dt + at * PH, 2, (int64_t[]){ n, PH }, false);
    for (int i = 0; i < 3; i++)
        hv[i] = var_of(&t, head + i * PH, 1, (int64_t[]){ PH }, false);
    cm_ssd(&t, x, d, hv[0], hv[1], hv[2], NULL, &seq, c, &out, NULL);
    get(cm_rdata(&out->v), n * PH * PP, y + at * PH * PP);
    free(head);
}

/* Packed documents, each with a state before and after it and outputs that nobody wants,
 * in the first chunk and beyond: the bits of each scanned by itself. */
TEST(states_by_document) {
    static const int len[DOCS] = { 21, 3, 36 };
    static const int32_t skip[DOCS] = { 19, 0, 2 };
    static cm_real before[DOCS][DSTATE], after[DOCS][DSTATE], want[DOCS][DSTATE];
    const cm_real *from[DOCS] = { before[0], NULL, before[2] };
    cm_real *to[DOCS] = { after[0], after[1], after[2] };
    double *xbc = filled(DT * PW, 41, -1, 1), *dt = filled(DT * PH, 42, -1, 1);
    double *y = doubles(DT * PH * PP), *wanted = doubles(DT * PH * PP);
    int32_t doc[DT];
    threads(2);
    for (int i = 0; i < DSTATE; i++)
        before[0][i] = (cm_real)(i % 7 - 3) / 4, before[2][i] = (cm_real)(i % 5 - 2) / 4;
    for (int k = 0, at = 0; k < DOCS; at += len[k++]) {
        cm_ssd_conf alone = { PH, PP, PN, PG, PQ, .to = want[k], .from = from[k] };
        scan(xbc, dt, at, len[k], NULL, &alone, wanted);
        for (int i = 0; i < len[k]; i++) doc[at + i] = k;
    }
    cm_ssd_conf c = { PH, PP, PN, PG, PQ, .doc_from = from, .doc_to = to, .doc_skip = skip };
    scan(xbc, dt, 0, DT, doc, &c, y);
    CHECK(!memcmp(after, want, sizeof after));
    for (int k = 0, at = 0; k < DOCS; at += len[k++]) {
        int first = (at + skip[k]) * PH * PP, end = (at + len[k]) * PH * PP;
        CHECKF(!memcmp(y + first, wanted + first, (size_t)(end - first) * 8),
               "document %d: other outputs", k);
    }
    free(xbc), free(dt), free(y), free(wanted);
}
