/* sched_test.c -- learning-rate shares at the points that define each schedule, and the
 * guard's judgement of spikes, level changes and broken numbers. */
#include "tests/t.h"
#include "train/train.h"

#include <math.h>

static double share(int kind, double tokens) {
    cm_sched_conf c = { .kind = kind, .tokens = 1000, .warmup = 100, .decay_frac = 0.2,
                        .min_ratio = 0.1 };
    return cm_sched_share(&c, tokens);
}

static void near(double got, double want, const char *what) {
    CHECKF(fabs(got - want) <= 1e-14, "%s: %.17g, want %.17g", what, got, want);
}

TEST(warm_up_is_linear_in_every_schedule) {
    for (int k = CM_SCHED_WSD; k <= CM_SCHED_CONSTANT; k++) {
        near(share(k, 0), 0, "start");
        near(share(k, 25), 0.25, "a quarter of the warm-up");
        near(share(k, 100), 1, "end of the warm-up");
    }
}

TEST(schedules_pass_through_their_points) {
    near(share(CM_SCHED_CONSTANT, 1000), 1, "constant");
    near(share(CM_SCHED_LINEAR, 550), 0.55, "linear, middle");
    near(share(CM_SCHED_LINEAR, 1000), 0.1, "linear, end");
    near(share(CM_SCHED_COSINE, 550), 0.55, "cosine, middle");
    near(share(CM_SCHED_COSINE, 1000), 0.1, "cosine, end");
    near(share(CM_SCHED_WSD, 800), 1, "wsd, last stable token");
    near(share(CM_SCHED_WSD, 850), 0.1 + 0.9 * 0.5, "wsd, a quarter of the decay");
    near(share(CM_SCHED_WSD, 1000), 0.1, "wsd, end");
    near(share(CM_SCHED_WSD, 2000), 0.1, "wsd, past the end");
}

TEST(cosine_equals_the_library_function) {
    for (int i = 0; i <= 900; i++) {
        double want = 0.1 + 0.45 * (1 + cos(M_PI * i / 900.0));
        near(share(CM_SCHED_COSINE, 100 + i), want, "cosine");
    }
}

TEST(the_batch_doubles_at_equal_distances) {
    cm_data_conf c = { .batch_tokens = 4096, .batch_from = 512, .batch_ramp = 90000 };
    const int64_t at[][2] = { { 0, 512 },      { 29999, 512 },  { 30000, 1024 },
                              { 59999, 1024 }, { 60000, 2048 }, { 89999, 2048 },
                              { 90000, 4096 }, { 1 << 30, 4096 } };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        int64_t got = cm_sched_batch(&c, at[i][0]);
        CHECKF(got == at[i][1], "after %lld tokens: %lld, want %lld", (long long)at[i][0],
               (long long)got, (long long)at[i][1]);
    }
    c.batch_from = 0;
    CHECK(cm_sched_batch(&c, 0) == 4096);
    c.batch_from = 4096;
    CHECK(cm_sched_batch(&c, 0) == 4096);
}

TEST(momentum_rises_to_its_value) {
    cm_optim_conf c = { .muon_momentum = 0.95, .muon_warmup = 1000 };
    near(cm_optim_momentum(&c, 0), 0.85, "start");
    near(cm_optim_momentum(&c, 500), 0.90, "half way");
    near(cm_optim_momentum(&c, 1000), 0.95, "end");
    c.muon_warmup = 0;
    near(cm_optim_momentum(&c, 0), 0.95, "no warm-up");
    c = (cm_optim_conf){ .muon_momentum = 0.8, .muon_warmup = 1000 };
    near(cm_optim_momentum(&c, 0), 0.8, "never above its value");
}

enum { WINDOW = 32 };

static cm_guard guard_with_history(double *mem, int n) {
    cm_train_conf c = { .spike_sigma = 6, .spike_window = WINDOW };
    cm_guard g;
    cm_guard_init(&g, &c, mem);
    for (int i = 0; i < n; i++) {
        double wiggle = i % 2 ? 0.1 : -0.1;
        CHECK(cm_guard_judge(&g, 3 + wiggle, 1 + wiggle) == CM_STEP_GOOD);
    }
    return g;
}

TEST(guard_needs_half_a_window) {
    double mem[2 * WINDOW];
    cm_guard g = guard_with_history(mem, WINDOW / 2 - 1);
    CHECK(cm_guard_judge(&g, 100, 1) == CM_STEP_GOOD);
    g = guard_with_history(mem, WINDOW / 2);
    CHECK(cm_guard_judge(&g, 100, 1) == CM_STEP_SPIKE);
}

TEST(guard_sees_spikes_of_loss_and_of_norm_at_six_sigma) {
    double mem[2 * WINDOW];
    cm_guard g = guard_with_history(mem, WINDOW);
    CHECK(cm_guard_judge(&g, 3 + 0.59, 1) == CM_STEP_GOOD);
    CHECKF(fabs(g.loss_z - 5.9) < 1e-9, "z of 0.59 above at sd 0.1 is %g", g.loss_z);
    g = guard_with_history(mem, WINDOW);
    CHECK(cm_guard_judge(&g, 3 + 0.61, 1) == CM_STEP_SPIKE);
    g = guard_with_history(mem, WINDOW);
    CHECK(cm_guard_judge(&g, 3, 1.61) == CM_STEP_SPIKE);
    g = guard_with_history(mem, WINDOW);
    CHECK(cm_guard_judge(&g, 0.1, 0.1) == CM_STEP_GOOD);
}

TEST(guard_calls_nan_and_infinity_bad_and_forgets_them) {
    double mem[2 * WINDOW];
    cm_guard g = guard_with_history(mem, WINDOW);
    CHECK(cm_guard_judge(&g, NAN, 1) == CM_STEP_BAD);
    CHECK(cm_guard_judge(&g, 3, INFINITY) == CM_STEP_BAD);
    CHECK(cm_guard_judge(&g, 3, NAN) == CM_STEP_BAD);
    for (int i = 0; i < 2 * WINDOW; i++) CHECK(isfinite(mem[i]));
    CHECK(cm_guard_judge(&g, 3, 1) == CM_STEP_GOOD);
}

TEST(guard_accepts_a_lasting_change_of_level) {
    double mem[2 * WINDOW];
    cm_guard g = guard_with_history(mem, WINDOW);
    int spikes = 0;
    while (spikes < 100 && cm_guard_judge(&g, 9, 1) == CM_STEP_SPIKE) spikes++;
    CHECKF(spikes > 0 && spikes < WINDOW, "%d spikes before 9 was accepted", spikes);
}
