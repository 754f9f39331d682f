/* optim_test.c -- AdamW and Muon against formulas written out by hand, clipping's norm,
 * and equal bits for any thread count. */
#include "tests/t.h"
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    cm_arena arena, scratch;
    cm_params ps;
    cm_optim opt;
} bench;

static cm_optim_conf conf_of(int kind) {
    return (cm_optim_conf){ .kind = kind, .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95,
                            .eps = 1e-8, .weight_decay = 0.1, .clip = 1, .muon_lr = 0,
                            .muon_momentum = 0.95, .muon_steps = 5 };
}

static void fill(cm_real *x, int64_t n, uint64_t step) {
    cm_rng r = cm_rng_make(7, CM_RNG_TEST, step);
    for (int64_t i = 0; i < n; i++) x[i] = (cm_real)cm_rng_normal(r, (uint64_t)i);
}

static cm_param *add(bench *b, cm_group g, int nd, int64_t d0, int64_t d1, int64_t d2,
                     const char *name) {
    cm_param *p = cm_param_add(&b->ps, g, CM_INIT_ZERO, 0, nd,
                               (int64_t[]){ d0, d1, d2 }, "%s", name);
    int64_t n = cm_tensor_count(&p->var.v);
    fill(cm_rdata(&p->var.v), n, (uint64_t)b->ps.n);
    fill(p->var.g, n, (uint64_t)b->ps.n + 100);
    return p;
}

static void open_bench(bench *b, int threads) {
    cm_err err;
    CHECK(cm_kern_init(CM_NUMERICS_STRICT, threads, &err));
    CHECK(cm_arena_open(&b->arena, "perm", 64 << 20, &err));
    CHECK(cm_arena_open(&b->scratch, "step", 64 << 20, &err));
    cm_params_begin(&b->ps, &b->arena, true);
}

static void close_bench(bench *b) {
    cm_optim_close(&b->opt);
    cm_params_end(&b->ps);
    cm_arena_close(&b->arena);
    cm_arena_close(&b->scratch);
}

/* One parameter's AdamW in double, as written in arXiv 1711.05101. */
static double adamw_by_hand(double w, double g, int steps, double wd) {
    double m = 0, v = 0;
    for (int t = 1; t <= steps; t++) {
        m = 0.9 * m + 0.1 * g;
        v = 0.95 * v + 0.05 * g * g;
        double mh = m / (1 - pow(0.9, t)), vh = v / (1 - pow(0.95, t));
        w -= 0.5e-2 * (mh / (sqrt(vh) + 1e-8) + wd * w);
    }
    return w;
}

TEST(adamw_equals_the_formula_and_decays_only_matrices) {
    bench b;
    open_bench(&b, 2);
    cm_group groups[] = { CM_GROUP_MATRIX, CM_GROUP_EMBED, CM_GROUP_ROUTER,
                          CM_GROUP_VECTOR };
    cm_param *p[4];
    double w0[4], g0[4];
    for (int i = 0; i < 4; i++) {
        char name[2] = { (char)('a' + i), 0 };
        p[i] = add(&b, groups[i], 2, 3, 5, 0, name);
        w0[i] = cm_rdata(&p[i]->var.v)[7];
        g0[i] = p[i]->var.g[7] * 0.25;
    }
    cm_optim_conf c = conf_of(CM_OPTIM_ADAMW);
    cm_optim_open(&b.opt, &c, &b.ps, &b.arena);
    for (int t = 1; t <= 3; t++) cm_optim_step(&b.opt, t, 0.5, 0.25, &b.scratch, false);
    for (int i = 0; i < 4; i++) {
        double want = adamw_by_hand(w0[i], g0[i], 3, i == 3 ? 0 : 0.1);
        double got = cm_rdata(&p[i]->var.v)[7];
        CHECKF(fabs(got - want) < 3e-7, "group %d: %.9g, want %.9g", i, got, want);
    }
    CHECK(b.scratch.peak == 0);
    close_bench(&b);
}

TEST(embeddings_and_vectors_have_rates_of_their_own) {
    bench b;
    open_bench(&b, 1);
    cm_param *p[4];
    double w0[4], g0[4];
    for (int i = 0; i < 4; i++) {
        char name[2] = { (char)('a' + i), 0 };
        p[i] = add(&b, (cm_group[]){ CM_GROUP_MATRIX, CM_GROUP_EMBED, CM_GROUP_ROUTER,
                                     CM_GROUP_VECTOR }[i], 2, 3, 5, 0, name);
        w0[i] = cm_rdata(&p[i]->var.v)[7];
        g0[i] = p[i]->var.g[7];
    }
    cm_optim_conf c = conf_of(CM_OPTIM_ADAMW);
    c.weight_decay = 0;
    c.embed_lr = 3e-2;
    c.vector_lr = 2e-3;
    cm_optim_open(&b.opt, &c, &b.ps, &b.arena);
    cm_optim_step(&b.opt, 1, 0.5, 1, &b.scratch, false);
    for (int i = 0; i < 4; i++) {
        /* The rate by hand is 0.5e-2, that is lr 1e-2 at half its peak. */
        double times[] = { 1, 3, 1, 0.2 };
        double want = w0[i] + times[i] * (adamw_by_hand(w0[i], g0[i], 1, 0) - w0[i]);
        double got = cm_rdata(&p[i]->var.v)[7];
        CHECKF(fabs(got - want) < 3e-7, "group %d: %.9g, want %.9g", i, got, want);
    }
    close_bench(&b);
}

TEST(gradient_norm_is_the_norm_of_all_gradients) {
    bench b;
    open_bench(&b, 2);
    add(&b, CM_GROUP_MATRIX, 2, 300, 500, 0, "a");
    add(&b, CM_GROUP_VECTOR, 1, 77, 0, 0, "b");
    cm_optim_conf c = conf_of(CM_OPTIM_ADAMW);
    cm_optim_open(&b.opt, &c, &b.ps, &b.arena);
    double sum = 0;
    for (int i = 0; i < 2; i++)
        for (int64_t k = 0; k < cm_tensor_count(&b.ps.p[i]->var.v); k++)
            sum += (double)b.ps.p[i]->var.g[k] * b.ps.p[i]->var.g[k];
    double got = cm_optim_grad_norm(&b.opt);
    CHECKF(fabs(got - sqrt(sum)) < 1e-9 * got, "%.12g, want %.12g", got, sqrt(sum));
    close_bench(&b);
}

/* ---- Muon -------------------------------------------------------------------------- */

/* out[n,n] = x x^T or x^T x, whichever is smaller, for the orthogonality test. */
static double worst_singular_value_error(const cm_real *x, int64_t r, int64_t c) {
    int64_t k = r < c ? r : c, worst_i = 0;
    double worst = 0;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) {
            double s = 0;
            for (int64_t t = 0; t < (r < c ? c : r); t++)
                s += r < c ? (double)x[i * c + t] * x[j * c + t]
                           : (double)x[t * c + i] * x[t * c + j];
            double e = fabs(s - (i == j));
            if (e > worst) worst = e, worst_i = i;
        }
    (void)worst_i;
    return worst;
}

static void newton_schulz_of(int64_t r, int64_t c, int steps, cm_real *x) {
    size_t n = (size_t)(r * c);
    cm_real *mem = malloc((n + cm_newton_room(r, c)) * sizeof *mem);
    cm_newton_schulz(r, c, steps, x, mem, mem + n);
    memcpy(x, mem, n * sizeof *x);
    free(mem);
}

/* The iteration straight from its definition, in double, without any gemm. */
static void reference(int64_t r, int64_t c, int steps, double *x) {
    double norm = 0;
    for (int64_t i = 0; i < r * c; i++) norm += x[i] * x[i];
    for (int64_t i = 0; i < r * c; i++) x[i] /= sqrt(norm) + 1e-7;
    double *a = calloc((size_t)(2 * r * r + r * c), sizeof *a), *b = a + r * r;
    double *y = b + r * r;
    for (int s = 0; s < steps; s++) {
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < r; j++) {
                a[i * r + j] = 0;
                for (int64_t t = 0; t < c; t++) a[i * r + j] += x[i * c + t] * x[j * c + t];
            }
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < r; j++) {
                b[i * r + j] = -4.7750 * a[i * r + j];
                for (int64_t t = 0; t < r; t++)
                    b[i * r + j] += 2.0315 * a[i * r + t] * a[t * r + j];
            }
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < c; j++) {
                y[i * c + j] = 3.4445 * x[i * c + j];
                for (int64_t t = 0; t < r; t++) y[i * c + j] += b[i * r + t] * x[t * c + j];
            }
        memcpy(x, y, (size_t)(r * c) * sizeof *x);
    }
    free(a);
}

TEST(newton_schulz_equals_its_definition_wide_and_tall) {
    bench b;
    open_bench(&b, 2);
    enum { R = 12, C = 31 };
    cm_real wide[R * C], tall[R * C];
    double want[R * C];
    fill(wide, R * C, 5);
    for (int i = 0; i < R; i++)
        for (int j = 0; j < C; j++) {
            want[i * C + j] = wide[i * C + j];
            tall[j * R + i] = wide[i * C + j];
        }
    reference(R, C, 5, want);
    newton_schulz_of(R, C, 5, wide);
    newton_schulz_of(C, R, 5, tall);
    for (int i = 0; i < R; i++)
        for (int j = 0; j < C; j++) {
            CHECKF(fabs(wide[i * C + j] - want[i * C + j]) < 2e-5, "wide %d %d", i, j);
            CHECKF(fabs(tall[j * R + i] - want[i * C + j]) < 2e-5, "tall %d %d", i, j);
        }
    cm_params_end(&b.ps);
    cm_arena_close(&b.arena);
    cm_arena_close(&b.scratch);
}

/* x[r,c] = H D H': singular values from 1 down to `low`, evenly spaced on a log axis, between
 * two reflections. */
static void badly_conditioned(int64_t r, int64_t c, double low, cm_real *x) {
    int64_t k = r < c ? r : c;
    double *a = calloc((size_t)(r * c + r + c), sizeof *a), *u = a + r * c, *v = u + r;
    cm_rng rng = cm_rng_make(7, CM_RNG_TEST, 77);
    for (int64_t i = 0; i < r + c; i++) u[i] = cm_rng_normal(rng, (uint64_t)i);
    for (int64_t i = 0; i < k; i++) a[i * c + i] = pow(low, (double)i / (double)(k - 1));
    double uu = 0, vv = 0;
    for (int64_t i = 0; i < r; i++) uu += u[i] * u[i];
    for (int64_t j = 0; j < c; j++) vv += v[j] * v[j];
    for (int64_t j = 0; j < c; j++) {
        double ua = 0;
        for (int64_t i = 0; i < r; i++) ua += u[i] * a[i * c + j];
        for (int64_t i = 0; i < r; i++) a[i * c + j] -= 2 * u[i] * ua / uu;
    }
    for (int64_t i = 0; i < r; i++) {
        double av = 0;
        for (int64_t j = 0; j < c; j++) av += a[i * c + j] * v[j];
        for (int64_t j = 0; j < c; j++) x[i * c + j] = (cm_real)(a[i * c + j] - 2 * av * v[j] / vv);
    }
    free(a);
}

/* Gram matrices square the condition number: where a step from one has no digit left of the
 * small singular values, the result must still be the definition's. */
TEST(newton_schulz_bears_badly_conditioned_matrices) {
    bench b;
    open_bench(&b, 1);
    static const int64_t shape[][2] = { { 24, 40 }, { 40, 40 }, { 90, 170 }, { 170, 180 },
                                       { 40, 600 } };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int steps = 1; steps <= 6; steps++) {
            int64_t r = shape[i][0], c = shape[i][1];
            size_t n = (size_t)(r * c);
            cm_real *x = malloc(n * sizeof *x);
            double *want = malloc(n * sizeof *want), worst = 0;
            badly_conditioned(r, c, 1e-5, x);
            for (size_t j = 0; j < n; j++) want[j] = x[j];
            reference(r, c, steps, want);
            newton_schulz_of(r, c, steps, x);
            for (size_t j = 0; j < n; j++) worst = fmax(worst, fabs(x[j] - want[j]));
            CHECKF(worst < 2e-5, "%lld x %lld, %d steps: off by %g", (long long)r,
                   (long long)c, steps, worst);
            free(x);
            free(want);
        }
    cm_params_end(&b.ps);
    cm_arena_close(&b.arena);
    cm_arena_close(&b.scratch);
}

TEST(newton_schulz_orthogonalises) {
    bench b;
    open_bench(&b, 2);
    static cm_real x[64 * 96];
    fill(x, 64 * 96, 9);
    newton_schulz_of(64, 96, 5, x);
    double e = worst_singular_value_error(x, 64, 96);
    CHECKF(e < 0.6, "x x^T is off the identity by %g", e);
    cm_params_end(&b.ps);
    cm_arena_close(&b.arena);
    cm_arena_close(&b.scratch);
}

/* What Muon should do to one matrix in its first step from zero momentum, with v = (1-b2) g^2. */
static void muon_by_hand(const double *w, const double *g, int64_t r, int64_t c, double b2,
                         double *out) {
    bool tall = r > c;
    int64_t R = tall ? c : r, C = tall ? r : c;
    double *u = malloc((size_t)(r * c) * sizeof *u);
    for (int64_t i = 0; i < r; i++)
        for (int64_t j = 0; j < c; j++) {
            double m = 0.05 * g[i * c + j];
            double over = b2 > 0 ? sqrt(1 - b2) * fabs(g[i * c + j]) + 1e-8 : 1;
            u[tall ? j * C + i : i * C + j] = (0.95 * m + 0.05 * g[i * c + j]) / over;
        }
    reference(R, C, 5, u);
    double s = 0.2 * sqrt((double)C);
    for (int64_t i = 0; i < r; i++)
        for (int64_t j = 0; j < c; j++)
            out[i * c + j] = w[i * c + j] * (1 - 1e-2 * 0.1)
                             - 1e-2 * s * u[tall ? j * C + i : i * C + j];
    free(u);
}

static void check_muon(const cm_param *p, const cm_real *before, double b2, int64_t at,
                       int64_t r, int64_t c) {
    size_t n = (size_t)(r * c);
    double *mem = malloc(3 * n * sizeof *mem), *g = mem + n, *want = g + n;
    for (size_t i = 0; i < n; i++) {
        mem[i] = before[at + (int64_t)i];
        g[i] = p->var.g[at + (int64_t)i];
    }
    muon_by_hand(mem, g, r, c, b2, want);
    double worst = 0;
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs(cm_rdata(&p->var.v)[at + (int64_t)i] - want[i]));
    CHECKF(worst < 2e-6, "%s rows from %lld: off by %g", p->name, (long long)(at / c),
           worst);
    free(mem);
}

static void muon_steps_blocks(double b2) {
    bench b;
    open_bench(&b, 2);
    cm_param *split = add(&b, CM_GROUP_MATRIX, 2, 30, 12, 0, "in_proj");
    split->n_split = 2;
    split->split[0] = 20;
    split->split[1] = 10;
    cm_param *experts = add(&b, CM_GROUP_MATRIX, 3, 3, 8, 12, "experts");
    cm_param *embed = add(&b, CM_GROUP_EMBED, 2, 9, 12, 0, "embed");
    cm_real ws[30 * 12], we[3 * 8 * 12], wm[9 * 12];
    memcpy(ws, split->var.v.data, sizeof ws);
    memcpy(we, experts->var.v.data, sizeof we);
    memcpy(wm, embed->var.v.data, sizeof wm);
    cm_optim_conf c = conf_of(CM_OPTIM_MUON);
    c.muon_beta2 = b2;
    cm_optim_open(&b.opt, &c, &b.ps, &b.arena);
    bool second = b2 > 0;
    CHECK(!b.opt.v[0].data == !second && !b.opt.v[1].data == !second && b.opt.v[2].data);
    cm_optim_step(&b.opt, 1, 1, 1, &b.scratch, false);
    check_muon(split, ws, b2, 0, 20, 12);
    check_muon(split, ws, b2, 20 * 12, 10, 12);
    for (int e = 0; e < 3; e++) check_muon(experts, we, b2, e * 8 * 12, 8, 12);
    double first = fabs(cm_rdata(&embed->var.v)[0] - wm[0] * (1 - 1e-3));
    CHECKF(fabs(first - 1e-2) < 1e-5, "the embedding's first AdamW step is %g", first);
    close_bench(&b);
}

TEST(muon_steps_each_block_and_each_expert_alone) {
    muon_steps_blocks(0);
}

TEST(muon_divides_by_a_second_moment_before_it_orthogonalises) {
    muon_steps_blocks(0.9);
}

TEST(muon_scratch_is_what_a_dry_step_counts) {
    bench b;
    open_bench(&b, 2);
    add(&b, CM_GROUP_MATRIX, 2, 70, 33, 0, "a");
    add(&b, CM_GROUP_MATRIX, 3, 2, 40, 90, "b");
    cm_optim_conf c = conf_of(CM_OPTIM_MUON);
    cm_optim_open(&b.opt, &c, &b.ps, &b.arena);
    cm_arena dry;
    cm_err err;
    CHECK(cm_arena_open_counting(&dry, "dry", &err));
    cm_optim_step(&b.opt, 1, 1, 1, &dry, true);
    cm_optim_step(&b.opt, 1, 1, 1, &b.scratch, false);
    CHECKF(dry.peak == b.scratch.peak && dry.peak > 0, "counted %zu, used %zu", dry.peak,
           b.scratch.peak);
    CHECK(b.scratch.used == 0);
    cm_arena_close(&dry);
    close_bench(&b);
}

static void hash_after_steps(int kind, double muon_beta2, int threads, char hex[65]) {
    bench b;
    open_bench(&b, threads);
    add(&b, CM_GROUP_MATRIX, 2, 300, 200, 0, "a");
    add(&b, CM_GROUP_EMBED, 2, 500, 200, 0, "b");
    add(&b, CM_GROUP_VECTOR, 1, 200, 0, 0, "c");
    cm_optim_conf c = conf_of(kind);
    c.muon_beta2 = muon_beta2;
    cm_optim_open(&b.opt, &c, &b.ps, &b.arena);
    for (int t = 1; t <= 3; t++) {
        double norm = cm_optim_grad_norm(&b.opt);
        cm_optim_step(&b.opt, t, 1, 1 / norm, &b.scratch, false);
    }
    cm_sha_bytes(b.arena.base, b.arena.used, hex);
    close_bench(&b);
}

TEST(same_bits_for_any_thread_count) {
    static const struct {
        int kind;
        double muon_beta2;
    } run[] = { { CM_OPTIM_ADAMW, 0 }, { CM_OPTIM_MUON, 0 }, { CM_OPTIM_MUON, 0.9 } };
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        char one[65], more[65];
        hash_after_steps(run[i].kind, run[i].muon_beta2, 1, one);
        for (int threads = 2; threads <= 3; threads++) {
            hash_after_steps(run[i].kind, run[i].muon_beta2, threads, more);
            CHECKF(!strcmp(one, more), "run %zu: 1 and %d threads differ", i, threads);
        }
    }
}
