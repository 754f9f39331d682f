/* moment_test.c -- AdamW's moments in two bytes or one: close, right in the mean, repeatable. */
#include "tests/train_fixture.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 1000, TRIES = 400 };

static void kernels(int threads) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, threads, &err), "%s", err.msg);
}

static cm_tensor narrow(int state, void *room) {
    cm_optim_conf c = { .state = state };
    cm_tensor w = { .dtype = CM_REAL_DTYPE, .nd = 1, .dim = { 5000 } };
    cm_tensor t = cm__moment_like(&c, &w);
    t.data = room;
    return t;
}

/* Magnitudes over three decades, a few zeros; second moments have no sign. */
static cm_real value(int64_t i, bool second) {
    cm_rng r = cm_rng_make(3, CM_RNG_TEST, 0);
    if (i % 97 == 0) return 0;
    double x = pow(10, -3 * cm_rng_uniform(r, (uint64_t)i));
    return (cm_real)(i % 2 && !second ? -x : x);
}

static void check_rounding(int state, bool second, double spacing) {
    static unsigned char room[32 << 10];
    cm_tensor t = narrow(state, room);
    cm_real x[N], y[N];
    double sum[N] = { 0 };
    for (int i = 0; i < N; i++) x[i] = value(i, second);
    for (int k = 0; k < TRIES; k++) {
        uint64_t bits = cm_rng_u64(cm_rng_make(4, CM_RNG_TEST, 1), (uint64_t)k);
        cm__moment_write(&t, 5000, second, 1024, N, x, bits);
        cm__moment_read(&t, 5000, second, 1024, N, y);
        for (int i = 0; i < N; i++) {
            double off = fabs((double)(y[i] - x[i]));
            CHECKF(off <= spacing * fabs((double)x[i]), "%g became %g", (double)x[i],
                   (double)y[i]);
            CHECK((x[i] == 0) == (y[i] == 0) && x[i] * y[i] >= 0);
            sum[i] += (double)y[i];
        }
    }
    /* The mean of all elements' relative errors: N TRIES draws of at most `spacing`. */
    double error = 0;
    for (int i = 0; i < N; i++)
        if (x[i] != 0) error += (sum[i] / TRIES / (double)x[i] - 1) / N;
    CHECKF(fabs(error) < 4 * spacing / sqrt((double)N * TRIES), "mean relative error %g", error);
}

TEST(rounding_is_close_and_right_in_the_mean) {
    kernels(1);
    for (int second = 0; second < 2; second++) {
        check_rounding(CM_STATE_BF16, second, 1.0 / 128);
        check_rounding(CM_STATE_INT8, second, 0.0906);
    }
}

TEST(a_second_moment_is_zero_only_where_it_was) {
    static unsigned char room[32 << 10];
    kernels(1);
    cm_tensor t = narrow(CM_STATE_INT8, room);
    cm_real x[3] = { 1, (cm_real)1e-20, 0 }, y[3];
    for (uint64_t k = 0; k < 100; k++) {
        cm__moment_write(&t, 5000, true, 0, 3, x, k);
        cm__moment_read(&t, 5000, true, 0, 3, y);
        CHECKF(y[0] == 1 && y[1] > 0 && y[1] < 1e-9 && y[2] == 0, "%g %g", (double)y[1],
               (double)y[2]);
    }
    /* A first moment far below the block's largest may vanish. */
    cm__moment_write(&t, 5000, false, 0, 3, x, 1);
    cm__moment_read(&t, 5000, false, 0, 3, y);
    CHECK(y[0] == 1 && y[1] == 0);
}

/* ---- in training ------------------------------------------------------------------------ */

static const char *corpus(void) {
    static char *dir;
    if (!dir) fx_corpus(dir = cm_strf("%s/corpus", t_tmpdir()), 60, CM_SHARD_BOS | CM_SHARD_EOS);
    return dir;
}

static char *train(const char *name, const char *state, int64_t stop_at) {
    const char *words[] = { state, "data.micro_rows=8", NULL };
    char *dir = cm_strf("%s/%s", t_tmpdir(), name), *sums = fx_run(corpus(), dir, stop_at, words);
    free(dir);
    return sums;
}

static cm_plan plan_of(const char *state) {
    const char *words[] = { state, NULL };
    fx_job f;
    cm_err err;
    cm_plan p;
    fx_open(&f, corpus(), "unused", words);
    CHECKF(cm_plan_make(&f.job, &p, &err), "%s", err.msg);
    fx_close(&f);
    return p;
}

/* The validation loss in the last state.json, an exact double. */
static double loss_of(const char *name) {
    char *path = cm_strf("%s/%s/latest/state.json", t_tmpdir(), name), *text = NULL;
    size_t n;
    cm_err err;
    double v = NAN;
    if (cm_read_file(path, 1 << 20, &text, &n, &err)) {
        const char *at = strstr(text, "\"val_loss\": \"");
        if (at) v = strtod(at + strlen("\"val_loss\": \""), NULL);
    }
    free(text);
    free(path);
    return v;
}

TEST(training_learns_the_same_and_resumes_to_the_bit) {
    static const char *const words[] = { "optim.state=fp32", "optim.state=bf16",
                                         "optim.state=int8" };
    double loss[3], moments[3];
    for (int i = 0; i < 3; i++) {
        char name[3][16];
        for (int k = 0; k < 3; k++) snprintf(name[k], sizeof name[k], "s%d%c", i, 'a' + k);
        kernels(1);
        char *straight = train(name[0], words[i], 0);
        kernels(2);
        char *threads = train(name[1], words[i], 0);
        kernels(1);
        free(train(name[2], words[i], 10));
        char *resumed = train(name[2], words[i], 0);
        CHECKF(straight && threads && !strcmp(straight, threads), "%s: threads", words[i]);
        CHECKF(straight && resumed && !strcmp(straight, resumed), "%s: resume", words[i]);
        free(straight);
        free(threads);
        free(resumed);
        loss[i] = loss_of(name[0]);
        moments[i] = (double)plan_of(words[i]).moments;
    }
    CHECKF(fabs(loss[1] - loss[0]) < 0.01 && loss[1] != loss[0], "bf16 %g, fp32 %g", loss[1],
           loss[0]);
    CHECKF(fabs(loss[2] - loss[0]) < 0.02 && loss[2] != loss[0], "int8 %g, fp32 %g", loss[2],
           loss[0]);
    CHECKF(moments[1] < 0.85 * moments[0] && moments[2] < 0.75 * moments[0],
           "bytes: %g, %g, %g", moments[0], moments[1], moments[2]);
}

TEST(a_checkpoint_of_another_state_is_refused) {
    const char *words[] = { "optim.state=int8", NULL };
    cm_err err;
    bool complete;
    fx_job f;
    kernels(1);
    free(train("other", "optim.state=bf16", 10));
    char *dir = cm_strf("%s/other", t_tmpdir());
    fx_open(&f, corpus(), dir, words);
    f.job.resume = CM_RESUME_MUST;
    CHECK(!cm_train(&f.job, &complete, &err));
    CHECKF(strstr(err.msg, "BF16") && strstr(err.msg, "U8"), "%s", err.msg);
    fx_close(&f);
    free(dir);
}
