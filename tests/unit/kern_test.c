/* kern_test.c -- the kernel table: the sweep (kern_sweep.h), accuracy of exp and friends,
 * special values, level selection. */
#include "tests/unit/kern_sweep.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/kern_cases.inc"

void emu512_overlay(cm_kern *k);

/* ---- before cm_kern_init (so this comes first) ---- */

static void early_kernel(void) {
    cm_real x = 1;
    cm_k.vexp(1, &x, &x);
}

static void early_product(void) {
    cm_real x = 1;
    cm_gemm1(false, false, 1, 1, 1, 1, &x, 1, &x, 1, 0, &x, 1);
}

/* fn dies with this sentence on stderr. */
static bool dies_saying(void (*fn)(void), const char *sentence) {
    char *path = cm_strf("%s/panic", t_tmpdir()), *text = NULL;
    size_t n;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        if (!freopen(path, "w", stderr)) _exit(99);
        setvbuf(stderr, NULL, _IONBF, 0);
        signal(SIGABRT, SIG_DFL);
        fn();
        _exit(0);
    }
    int st = 0;
    waitpid(pid, &st, 0);
    bool ok = WIFSIGNALED(st) && WTERMSIG(st) == SIGABRT &&
              cm_read_file(path, 1 << 16, &text, &n, NULL) && strstr(text, sentence);
    free(text);
    free(path);
    return ok;
}

TEST(using_kernels_too_early_is_a_bug_with_a_sentence) {
    CHECK(dies_saying(early_kernel, "kernel vexp is used before cm_kern_init"));
    CHECK(dies_saying(early_product, "a matrix product is asked for before cm_kern_init"));
}

/* ---- the sweep ---- */

enum { CANARY = 64, FILL = 0xa5 };

void *sweep_mem(sweep *s, size_t elem, int64_t n) {
    CM_ASSERT(s->n_buf < SWEEP_BUFS, "more than %d buffers in a case", SWEEP_BUFS);
    int i = s->n_buf++;
    s->base[i] = (size_t)s->shift * elem;
    s->size[i] = s->base[i] + (size_t)n * elem;
    s->buf[i] = aligned_alloc(CM_ALIGN, cm_align_up(s->size[i] + CANARY));
    memset(s->buf[i], FILL, s->size[i] + CANARY);
    return s->buf[i] + s->base[i];
}

double sweep_draw(sweep *s, double lo, double hi) {
    return (double)(float)(lo + (hi - lo) * cm_rng_uniform(s->rng, s->drawn++));
}

double *sweep_out(sweep *s, int64_t n, double rel, double abs) {
    CM_ASSERT(s->n_out < SWEEP_OUTS, "more than %d outputs in a case", SWEEP_OUTS);
    int i = s->n_out++;
    s->out[i].v = malloc(((size_t)n + 1) * sizeof(double));
    s->out[i].n = n;
    s->out[i].rel = rel;
    s->out[i].abs = abs;
    return s->out[i].v;
}

static sweep sweep_begin(int n, int shift) {
    return (sweep){ .n = n, .shift = shift,
                    .rng = cm_rng_make(11, CM_RNG_TEST, (uint64_t)n) };
}

/* Bytes around the buffers that were written to. */
static int sweep_end(sweep *s) {
    int bad = 0;
    for (int i = 0; i < s->n_buf; i++) {
        for (size_t j = 0; j < s->base[i]; j++) bad += s->buf[i][j] != FILL;
        for (size_t j = 0; j < CANARY; j++) bad += s->buf[i][s->size[i] + j] != FILL;
        free(s->buf[i]);
    }
    for (int i = 0; i < s->n_out; i++) free(s->out[i].v);
    return bad;
}

static void sweep_compare(const sweep *s, const sweep *d, const char *what,
                          const char *name) {
    CHECKF(s->n_out == d->n_out, "%s %s: outputs differ in number", what, name);
    for (int o = 0; o < s->n_out; o++)
        for (int64_t i = 0; i < s->out[o].n; i++) {
            double x = s->out[o].v[i], y = d->out[o].v[i];
            bool ok = fabs(x - y) <= s->out[o].abs + s->out[o].rel * fabs(y) ||
                      (isnan(x) && isnan(y)) || x == y;
            CHECKF(ok, "%s %s: n %d, output %d[%lld]: %.9g, wanted %.9g", what, name, s->n,
                   o, (long long)i, x, y);
            if (!ok) return;
        }
}

/* Sizes 0 to 133, then two large ones. */
static void sweep_kernel(const cm_kern *k, const char *what, const sweep_case *c) {
    for (int i = 0; i < 136; i++) {
        int n = i < 134 ? i : i == 134 ? 1000 : 4099;
        sweep s = sweep_begin(n, i % 3), d = sweep_begin(n, 0);
        c->run(k, &s);
        bool there = sweep_run64(&d, c->name);
        CHECKF(there, "%s: not in kern_sweep64.c", c->name);
        if (there) sweep_compare(&s, &d, what, c->name);
        CHECKF(!sweep_end(&s), "%s %s: n %d: wrote outside", what, c->name, n);
        sweep_end(&d);
    }
}

static void sweep_table(const cm_kern *k, const char *what) {
    static const char *const names[] = {
#define KERN(ret, name, args) #name,
#include "kern/kern.def"
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const sweep_case *c = sweep_find(names[i]);
        CHECKF(c, "%s: no case in kern_cases.inc", names[i]);
        if (c) sweep_kernel(k, what, c);
    }
}

/* The table of a level. */
static cm_kern level_table(cm_level_id id) {
    cm_kern k = {
#define KERN(ret, name, args) .name = cm_ref_##name,
#include "kern/kern.def"
    };
    if (id >= CM_LEVEL_AVX2) cm_overlay_avx2(&k);
    if (id >= CM_LEVEL_AVX512) cm_overlay_avx512(&k);
    if (id >= CM_LEVEL_AVX512BF16) cm_overlay_avx512bf16(&k);
    return k;
}

static bool have_avx2(void) {
    if (cm_kern_best_level() >= CM_LEVEL_AVX2) return true;
    t_skip("no vector level in this build or CPU");
    return false;
}

TEST(sweep_levels) {
    for (int i = 0; i <= (int)cm_kern_best_level(); i++) {
        cm_kern k = level_table((cm_level_id)i);
        sweep_table(&k, cm_level_name((cm_level_id)i));
    }
}

TEST(sweep_emulated_avx512) {
    if (!have_avx2()) return;
    cm_kern k = level_table(CM_LEVEL_REF);
    emu512_overlay(&k);
    sweep_table(&k, "emulated avx512");
}

/* Sums in double take the same lanes everywhere: the same bits at every level. */
TEST(sums_agree_between_levels) {
    enum { N = 1003 };
    sweep s = sweep_begin(N, 1);
    cm_real *x = in(&s, N, -1, 1), *y = in(&s, N, -1, 1);
    /* Sizes far apart, so that the sum rounds and another order would show. */
    for (int i = 0; i < N; i++) x[i] *= (cm_real)ldexp(1, i * 7 % 61 - 30);
    cm_kern e = level_table(CM_LEVEL_REF);
    double want = e.dot(N, x, y);
    emu512_overlay(&e);
    if (cm_kern_best_level() >= CM_LEVEL_AVX2) CHECK(e.dot(N, x, y) == want);
    for (int i = 0; i <= (int)cm_kern_best_level(); i++) {
        cm_kern k = level_table((cm_level_id)i);
        CHECK(k.dot(N, x, y) == want);
    }
    sweep_end(&s);
}

/* Rows of a KV cache at the edges of what their types hold, and a row with NaN. */
static void cached_rows(const cm_kern *k, const char *what) {
    enum { N = 96 };
    cm_kern ref = level_table(CM_LEVEL_REF);
    cm_real x[N], want[N], got[N];
    uint16_t h[2][N];
    cm_q8_0 b[2][N / 32];
    for (int i = 0; i < N; i++) x[i] = (cm_real)ldexp(1 + i / 97.0, i * 5 % 40 - 23);
    x[3] = (cm_real)INFINITY, x[5] = -(cm_real)INFINITY, x[17] = (cm_real)-3e38, x[40] = 0;
    for (int i = 64; i < N; i++) x[i] = (cm_real)((i - 80.5) * 6.4e-7); /* a subnormal scale */
    ref.encode_f16(N, x, h[0]), k->encode_f16(N, x, h[1]);
    CHECKF(!memcmp(h[0], h[1], sizeof *h), "%s: other halves", what);
    CHECK(h[1][3] == 0x7bff && h[1][5] == 0xfbff && h[1][17] == 0xfbff);
    ref.encode_q8(N, x, b[0]), k->encode_q8(N, x, b[1]);
    CHECKF(!memcmp(b[0], b[1], sizeof *b), "%s: other blocks", what);
    CHECK(b[1][0].q[3] == 127 && b[1][0].q[5] == -127 && b[1][2].q[31] == 127);
    for (int from = 0; from < 64; from += 7) {
        ref.decode_q8(N - from, from, b[0], want), k->decode_q8(N - from, from, b[0], got);
        CHECKF(!memcmp(want, got, (size_t)(N - from) * sizeof *got), "%s: other numbers", what);
    }
    x[2] = x[33] = (cm_real)NAN;
    k->encode_f16(N, x, h[1]), k->decode_f16(N, h[1], got);
    CHECK(isnan(got[2]) && isnan(got[33]) && got[40] == 0);
    k->encode_q8(N, x, b[1]), k->decode_q8(N, 0, b[1], got);
    CHECK(isnan(got[2]) && isnan(got[31]) && isnan(got[33]) && got[64] <= 0);
}

TEST(rows_of_a_cache_have_one_code_at_every_level) {
    cm_kern e = level_table(CM_LEVEL_REF);
    if (cm_kern_best_level() >= CM_LEVEL_AVX2) emu512_overlay(&e);
    cached_rows(&e, "emulated avx512");
    for (int i = 0; i <= (int)cm_kern_best_level(); i++) {
        cm_kern k = level_table((cm_level_id)i);
        cached_rows(&k, cm_level_name((cm_level_id)i));
    }
}

/* Operands of BF16 products: ties, denormals, infinities and NaN, and in place. */
static void narrowed(const cm_kern *k, const char *what) {
    static const struct { uint32_t from; uint16_t to; } edge[] = {
        { 0x3f800000, 0x3f80 }, { 0x3f808000, 0x3f80 }, { 0x3f818000, 0x3f82 },
        { 0x3f808001, 0x3f81 }, { 0x7f7fffff, 0x7f80 }, { 0xff800000, 0xff80 },
        { 0x7f800001, 0x7fc0 }, { 0xffc12345, 0xffc1 }, { 0x007fffff, 0 },
        { 0x807fffff, 0x8000 }, { 0x00800000, 0x0080 }, { 0x80000000, 0x8000 },
    };
    enum { EDGES = sizeof edge / sizeof *edge, N = 5 * EDGES };
    cm_real x[N];
    uint16_t y[N], in_place[N];
    for (int i = 0; i < N; i++) {
        float f;
        memcpy(&f, &edge[i % EDGES].from, sizeof f);
        x[i] = (cm_real)f;
    }
    k->narrow(N, x, y);
    k->narrow(N, x, x);
    memcpy(in_place, x, sizeof in_place);
    for (int i = 0; i < N; i++)
        CHECKF(y[i] == edge[i % EDGES].to && in_place[i] == y[i], "%s: %08x to %04x and %04x",
               what, edge[i % EDGES].from, y[i], in_place[i]);
}

TEST(operands_are_narrowed_alike_at_every_level) {
    cm_kern e = level_table(CM_LEVEL_REF);
    if (cm_kern_best_level() >= CM_LEVEL_AVX2) emu512_overlay(&e);
    narrowed(&e, "emulated avx512");
    for (int i = 0; i <= (int)cm_kern_best_level(); i++) {
        cm_kern k = level_table((cm_level_id)i);
        narrowed(&k, cm_level_name((cm_level_id)i));
    }
}

/* ---- exp and friends ---- */

typedef struct fn_case {
    const char *name;
    size_t at; /* offset of the kernel in the table */
    double (*exact)(double);
    double ulps, least; /* stated bound; results below `least` may be 0 */
} fn_case;

static double softplus64(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }
static double sigmoid64(double x) { return 1 / (1 + exp(-x)); }
static double silu64(double x) { return x < -1000 ? 0 : x / (1 + exp(-x)); }

#define FN(name, exact, ulps, least) { #name, offsetof(cm_kern, name), exact, ulps, least }
static const fn_case fns[] = {
    FN(vexp, exp, 1.1, 1.1755e-38),        FN(vlog, log, 1, 0),
    FN(vsoftplus, softplus64, 2, 1.1755e-38), FN(vsigmoid, sigmoid64, 3, 1.1755e-38),
    FN(vsilu, silu64, 3, 1.03e-36),
};

typedef void (*map_fn)(int64_t n, const cm_real *x, cm_real *y);

/* Distance of y from the true value in units of the float spacing there. */
static double ulp_error(float y, double want, double least) {
    if (isnan(want)) return isnan(y) ? 0 : INFINITY;
    if (fabs(want) <= least && y == 0) return 0;
    float w = (float)want;
    if (isinf(w) || isinf(y)) return w == y || fabs(want) > 3.4028234e38 ? 0 : INFINITY;
    int e;
    frexp(want, &e);
    return fabs((double)y - want) / ldexp(1, (e < -125 ? -125 : e) - 24);
}

/* Every STEP-th float of both signs, NaN and infinities included, through a level. */
#ifndef STEP
#define STEP 1021
#endif
static void ulp_scan(const cm_kern *k, const char *what, uint64_t step) {
    enum { N = 512 };
    for (size_t f = 0; f < sizeof fns / sizeof *fns; f++) {
        map_fn run;
        memcpy(&run, (const char *)k + fns[f].at, sizeof run);
        double worst = 0;
        float worst_x = 0;
        for (uint64_t u = 0; u <= 0xffffffff;) {
            cm_real x[N], y[N];
            int n = 0;
            for (; n < N && u <= 0xffffffff; n++, u += step) {
                uint32_t bits = (uint32_t)u;
                float v;
                memcpy(&v, &bits, sizeof v);
                x[n] = v;
            }
            run(n, x, y);
            for (int i = 0; i < n; i++) {
                double err = ulp_error((float)y[i], fns[f].exact((double)x[i]),
                                       fns[f].least);
                if (err > worst) worst = err, worst_x = (float)x[i];
            }
        }
        CHECKF(worst <= fns[f].ulps, "%s %s: %.3f ulp at %.9g", what, fns[f].name, worst,
               (double)worst_x);
        if (getenv("VERBOSE")) printf("  %s %s: %.3f ulp\n", what, fns[f].name, worst);
    }
}

TEST(function_accuracy) {
    for (int i = 0; i <= (int)cm_kern_best_level(); i++) {
        cm_kern k = level_table((cm_level_id)i);
        ulp_scan(&k, cm_level_name((cm_level_id)i), STEP);
    }
    if (cm_kern_best_level() < CM_LEVEL_AVX2) return;
    cm_kern e = level_table(CM_LEVEL_REF);
    emu512_overlay(&e);
    ulp_scan(&e, "emulated avx512", 64 * STEP + 1);
}

static void specials(const cm_kern *k) {
    const cm_real inf = (cm_real)INFINITY;
    cm_real x[5] = { -inf, inf, (cm_real)NAN, 0, -1 }, y[5];
    k->vexp(5, x, y);
    CHECK(y[0] == 0 && y[1] == inf && isnan(y[2]) && y[3] == 1);
    k->vlog(5, x, y);
    CHECK(isnan(y[0]) && y[1] == inf && isnan(y[2]) && y[3] == -inf && isnan(y[4]));
    k->vsoftplus(5, x, y);
    CHECK(y[0] == 0 && y[1] == inf && isnan(y[2]));
    k->vsigmoid(5, x, y);
    CHECK(y[0] == 0 && y[1] == 1 && isnan(y[2]) && y[3] == (cm_real)0.5);
    k->vsilu(5, x, y);
    CHECK(y[0] == 0 && y[1] == inf && isnan(y[2]) && y[3] == 0);
}

TEST(special_values) {
    for (int i = 0; i <= (int)cm_kern_best_level(); i++) {
        cm_kern k = level_table((cm_level_id)i);
        specials(&k);
    }
    cm_kern e = level_table(CM_LEVEL_REF);
    if (cm_kern_best_level() >= CM_LEVEL_AVX2) emu512_overlay(&e);
    specials(&e);
}

/* ---- level selection ---- */

TEST(environment_lowers_the_level) {
    cm_err err;
    setenv("CHIMERA_KERNELS", "ref", 1);
    CHECK(cm_kern_init(CM_NUMERICS_STRICT, 1, &err));
    CHECK(cm_kern_level() == CM_LEVEL_REF && cm_k.vexp == cm_ref_vexp);
    CHECK(!strncmp(cm_kern_describe(), "ref, strict, 1 thread, OpenBLAS ", 32));
    unsetenv("CHIMERA_KERNELS");
    CHECK(cm_kern_init(CM_NUMERICS_FAST, 2, &err));
    CHECK(cm_kern_level() == cm_kern_best_level() && cm_kern_threads() == 2);
    if (cm_kern_best_level() > CM_LEVEL_REF) CHECK(cm_k.vexp != cm_ref_vexp);
}

TEST(wrong_levels_are_refused) {
    cm_err err;
    setenv("CHIMERA_KERNELS", "avx3", 1);
    CHECK(!cm_kern_init(CM_NUMERICS_STRICT, 1, &err));
    CHECK(err.code == CM_EXIT_USAGE && strstr(err.msg, "avx3") &&
          strstr(err.msg, "ref, avx2, avx512"));
    if (cm_kern_best_level() < CM_LEVEL_AVX512) {
        setenv("CHIMERA_KERNELS", "avx512", 1);
        CHECK(!cm_kern_init(CM_NUMERICS_STRICT, 1, &err));
        CHECK(strstr(err.msg, cm_level_name(cm_kern_best_level())));
    }
    unsetenv("CHIMERA_KERNELS");
    CHECK(!cm_kern_init(CM_NUMERICS_STRICT, -1, &err) && err.code == CM_EXIT_USAGE);
}
