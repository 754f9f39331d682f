/* feedback_test.c -- rounding by feedback: the factor, the error it leaves, rows apart. */
#include "quant/quant.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 512, ROWS = 11 };

static const cm_dtype types[] = {CM_Q2_K_T, CM_Q3_K_T, CM_Q4_K_T, CM_Q5_K_T,  CM_Q6_K_T,  CM_Q4_0_T,
                                 CM_Q4_1_T, CM_Q5_0_T, CM_Q5_1_T, CM_IQ4_NL_T, CM_IQ4_XS_T};
enum { TYPES = sizeof types / sizeof *types };

/* Moments of inputs that lie mostly in a few directions, column sizes of their own. */
static float *moments(int n, double apart) {
    enum { TOKENS = 700 };
    float *h = calloc((size_t)(n * n), sizeof *h), *x = malloc((size_t)n * sizeof *x);
    CM_ASSERT(h && x, "out of memory");
    cm_rng r = cm_rng_make(3, CM_RNG_TEST, 0);
    for (int t = 0; t < TOKENS; t++) {
        double all = cm_rng_normal(r, (uint64_t)t);
        for (int j = 0; j < n; j++) {
            double own = cm_rng_normal(r, (uint64_t)((t + 1) * n + j) + 1000);
            double near = cm_rng_normal(r, (uint64_t)((t + 1) * n + j / 16) + (1u << 24));
            x[j] = (float)((apart * own + near + all) * (1 + j % 7));
        }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) h[i * n + j] += x[i] * x[j] / TOKENS;
    }
    free(x);
    return h;
}

/* U (H + lambda I) U^T is the identity. */
TEST(the_factor_inverts_the_moments) {
    enum { K = 40 };
    float *h = moments(K, 0.5), u[K * K];
    CHECK(cm_feedback_factor(h, K, u));
    double mean = 0, worst = 0;
    for (int i = 0; i < K; i++) mean += (double)h[i * K + i] / K;
    for (int a = 0; a < K; a++)
        for (int b = 0; b < K; b++) {
            double s = 0;
            for (int i = 0; i < K; i++)
                for (int j = 0; j < K; j++)
                    s += (double)u[a * K + i] * (double)u[b * K + j] *
                         ((double)h[i * K + j] + (i == j ? 0.01 * mean : 0));
            worst = fmax(worst, fabs(s - (a == b)));
            CHECK(b >= a || u[a * K + b] == 0);
        }
    CHECKF(worst < 1e-5, "%g", worst);
    free(h);
}

TEST(moments_that_are_none) {
    float h[4] = {0}, u[4];
    CHECK(!cm_feedback_factor(h, 2, u));
    h[0] = h[3] = NAN;
    CHECK(!cm_feedback_factor(h, 2, u));
    h[0] = h[3] = 1, h[1] = h[2] = 5; /* no moments: more alike than the same */
    CHECK(!cm_feedback_factor(h, 2, u));
}

/* What rounding does to the output: mean over inputs of ((q - w) x)^2. */
static double harm(cm_dtype dt, const float *w, const unsigned char *raw, const float *h) {
    float q[N];
    double e = 0;
    cm_to_f32(dt, raw, q, N);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            e += ((double)q[i] - w[i]) * ((double)q[j] - w[j]) * (double)h[i * N + j];
    return e;
}

typedef struct setup {
    float *h, imp[N], w[ROWS * N], work[ROWS * N];
    float *u;
    unsigned char plain[ROWS * N * 2], fed[ROWS * N * 2], again[N * 2];
} setup;

static setup *make(double apart) {
    setup *s = malloc(sizeof *s);
    CM_ASSERT(s && (s->u = malloc(N * N * sizeof *s->u)), "out of memory");
    s->h = moments(N, apart);
    CHECK(cm_feedback_factor(s->h, N, s->u));
    cm_rng r = cm_rng_make(4, CM_RNG_TEST, 0);
    for (int i = 0; i < N; i++) s->imp[i] = s->h[i * N + i];
    for (int i = 0; i < ROWS * N; i++) s->w[i] = (float)(0.05 * cm_rng_normal(r, (uint64_t)i));
    return s;
}

static void drop(setup *s) {
    free(s->h);
    free(s->u);
    free(s);
}

static void feed(setup *s, cm_dtype dt, int row, int rows, unsigned char *out) {
    memcpy(s->work, s->w + row * N, (size_t)(rows * N) * sizeof *s->work);
    cm_quantize_feedback(dt, s->work, rows, s->imp, s->u, N, out);
}

TEST(inputs_that_move_together_are_harmed_less) {
    setup *s = make(0.3);
    for (int t = 0; t < TYPES; t++) {
        cm_dtype dt = types[t];
        int step = N / cm_dtypes[dt].block * cm_dtypes[dt].bytes;
        double before = 0, after = 0;
        feed(s, dt, 0, CM_FEEDBACK_ROWS, s->fed);
        for (int r = 0; r < CM_FEEDBACK_ROWS; r++) {
            cm_quantize_for(dt, s->w + r * N, s->imp, s->plain + r * step, N);
            before += harm(dt, s->w + r * N, s->plain + r * step, s->h);
            after += harm(dt, s->w + r * N, s->fed + r * step, s->h);
        }
        CHECKF(after < 0.5 * before, "%s: %g, by search %g", cm_dtypes[dt].name, after, before);
    }
    drop(s);
}

/* Errors of the first super-block are made up for in the second one too. */
TEST(later_blocks_make_up_for_earlier_ones) {
    setup *s = make(0.3);
    double kept = 0, apart = 0;
    for (int part = 0; part < 2; part++) {
        feed(s, CM_Q4_K_T, 0, CM_FEEDBACK_ROWS, s->fed);
        for (int r = 0; r < CM_FEEDBACK_ROWS; r++)
            *(part ? &apart : &kept) += harm(CM_Q4_K_T, s->w + r * N,
                                             s->fed + r * N / 256 * 144, s->h);
        for (int i = 0; i < 256; i++) /* then nothing passes from the first to the second */
            memset(s->u + i * N + 256, 0, 256 * sizeof *s->u);
    }
    CHECKF(kept < 0.9 * apart, "%g, each for itself %g", kept, apart);
    drop(s);
}

/* Inputs that do not move together: nothing to feed back, the search's values. */
TEST(without_common_movement_it_is_the_search) {
    setup *s = make(1);
    memset(s->u, 0, N * N * sizeof *s->u);
    for (int i = 0; i < N; i++) s->u[i * N + i] = 2;
    for (int t = 0; t < TYPES; t++) {
        cm_dtype dt = types[t];
        int step = N / cm_dtypes[dt].block * cm_dtypes[dt].bytes, other = 0;
        float a[N], b[N];
        feed(s, dt, 3, 1, s->fed);
        cm_quantize_for(dt, s->w + 3 * N, s->imp, s->plain, N);
        cm_to_f32(dt, s->fed, a, N);
        cm_to_f32(dt, s->plain, b, N);
        for (int i = 0; i < N; i++) other += a[i] != b[i];
        CHECKF(other <= N / 100, "%s: %d values (%d bytes a row)", cm_dtypes[dt].name, other, step);
    }
    drop(s);
}

TEST(rows_do_not_depend_on_their_neighbours) {
    setup *s = make(0.3);
    for (int t = 0; t < TYPES; t++) {
        cm_dtype dt = types[t];
        size_t step = (size_t)(N / cm_dtypes[dt].block * cm_dtypes[dt].bytes);
        feed(s, dt, 0, CM_FEEDBACK_ROWS, s->fed);
        for (int r = 0; r < CM_FEEDBACK_ROWS; r++) {
            feed(s, dt, r, 1, s->again);
            CHECKF(!memcmp(s->fed + (size_t)r * step, s->again, step), "%s row %d",
                   cm_dtypes[dt].name, r);
        }
    }
    CHECK(!cm_feedback_takes(CM_Q8_0_T) && !cm_feedback_takes(CM_F16_T) &&
          cm_feedback_takes(CM_Q4_K_T));
    drop(s);
}
