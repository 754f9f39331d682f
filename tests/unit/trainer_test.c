/* trainer_test.c -- the loop on a tiny hybrid with experts: it learns, it repeats itself
 * to the bit, it uses the memory it said, and it survives bad numbers. */
#include "tests/train_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *in_tmp(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

/* The corpus all tests share, written once. */
static const char *corpus(void) {
    static char *dir;
    if (!dir) fx_corpus(dir = in_tmp("corpus"), 60, CM_SHARD_BOS | CM_SHARD_EOS);
    return dir;
}

static void kernels(int threads) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, threads, &err), "%s", err.msg);
}

static char *sums_after(const char *name, int64_t stop_at, const char *const *words) {
    char *dir = in_tmp(name);
    char *sums = fx_run(corpus(), dir, stop_at, words);
    free(dir);
    return sums;
}

static void check_same(char *a, char *b, const char *what) {
    CHECKF(a && b && !strcmp(a, b), "%s:\n%s--\n%s", what, a ? a : "none", b ? b : "none");
    free(b);
}

TEST(same_bits_for_one_two_and_three_threads) {
    kernels(1);
    char *one = sums_after("t1", 0, NULL);
    for (int n = 2; n <= 3; n++) {
        char name[8] = { 't', (char)('0' + n), 0 };
        kernels(n);
        check_same(one, sums_after(name, 0, NULL), "threads");
    }
    free(one);
    kernels(1);
}

TEST(same_bits_for_threads_with_muon_and_recomputation) {
    const char *words[] = { "optim.kind=muon", "train.recompute=block", NULL };
    kernels(1);
    char *one = sums_after("m1", 0, words);
    kernels(2);
    check_same(one, sums_after("m2", 0, words), "threads, muon, recompute");
    free(one);
}

/* With BF16 products too, and on other bits than with fp32. */
TEST(same_bits_in_bf16) {
    const char *words[] = { "train.compute=bf16", "train.recompute=none", NULL };
    kernels(1);
    char *one = sums_after("h1", 0, words), *fp32 = sums_after("h0", 0, NULL);
    CHECK(one && fp32 && strcmp(one, fp32));
    free(fp32);
    kernels(3);
    check_same(one, sums_after("h3", 0, words), "threads, bf16");
    kernels(1);
    free(sums_after("h7", 7, words));
    check_same(one, sums_after("h7", 0, words), "resume at 7, bf16");
    free(one);
}

TEST(ten_and_a_resume_and_ten_are_twenty) {
    kernels(1);
    char *straight = sums_after("straight", 0, NULL);
    free(sums_after("resumed", 10, NULL));
    check_same(straight, sums_after("resumed", 0, NULL), "resume at 10");
    free(sums_after("seventh", 7, NULL));
    check_same(straight, sums_after("seventh", 0, NULL), "resume at 7");
    char *other = sums_after("other", 0, (const char *[]){ "seed=6", NULL });
    CHECK(other && straight && strcmp(other, straight));
    free(other);
    free(straight);
}

/* A signal between a step and its validation saves before it; the validation is then the
 * next process's, and the checkpoint has to get what it finds. */
TEST(a_validation_made_up_for_is_in_the_checkpoint) {
    kernels(1);
    cm_err err;
    bool complete;
    char *whole = sums_after("val-at-once", 10, NULL), *dir = in_tmp("val-later");
    for (int later = 0; later < 2; later++) {
        fx_job f;
        fx_open(&f, corpus(), dir, NULL);
        f.job.stop_at = 10;
        if (!later) f.job.val = NULL;
        CHECKF(cm_train(&f.job, &complete, &err), "%s", err.msg);
        fx_close(&f);
        char *best = cm_strf("%s/best", dir), *sums = fx_sums(dir, 10);
        CHECK(cm_exists(best) == later);
        CHECK(sums && whole && later == !strcmp(sums, whole));
        free(best);
        free(sums);
    }
    char *old = cm_strf("%s/.tmp-step-00000010", dir);
    CHECK(!cm_exists(old));
    free(old);
    free(dir);
    free(whole);
}

/* 512 tokens in steps of 64, 512 in steps of 128, then whole batches of 256: 8 + 4 + 16. */
TEST(a_ramped_batch_resumes_to_the_bit) {
    const char *words[] = { "data.batch_from=64", "data.batch_ramp=1024", "optim.kind=muon",
                            "optim.muon_warmup=2k", "optim.muon_beta2=0.9",
                            "optim.embed_lr=3e-3", "optim.vector_lr=2e-3",
                            "data.micro_rows=4", NULL };
    kernels(1);
    fx_job f;
    cm_err err;
    cm_plan plan;
    fx_open(&f, corpus(), NULL, words);
    CHECKF(cm_plan_make(&f.job, &plan, &err), "%s", err.msg);
    CHECKF(plan.steps == 28 && plan.tokens == 5120, "%lld steps, %lld tokens",
           (long long)plan.steps, (long long)plan.tokens);
    fx_close(&f);
    char *straight = sums_after("ramp", 0, words);
    for (int at = 3; at <= 13; at += 5) {
        char name[16];
        snprintf(name, sizeof name, "ramp%d", at);
        free(sums_after(name, at, words));
        char *whole = sums_after(name, 0, words);
        CHECKF(whole && straight && !strcmp(straight, whole), "resumed at %d", at);
        free(whole);
    }
    char *flat = sums_after("flat", 0, words + 2);
    CHECK(flat && straight && strcmp(flat, straight));
    free(flat);
    free(straight);
}

TEST(a_batch_that_is_not_halved_is_refused) {
    const char *bad[] = { "data.batch_from=96", "data.batch_from=16", "data.batch_from=512" };
    for (int i = 0; i < 3; i++) {
        fx_job f;
        cm_err err;
        cm_plan plan;
        fx_open(&f, corpus(), NULL, (const char *[]){ bad[i], NULL });
        CHECK(!cm_plan_make(&f.job, &plan, &err) && err.code == CM_EXIT_USAGE);
        CHECK(strstr(err.msg, "data.batch_tokens = 256"));
        fx_close(&f);
    }
}

TEST(verify_resume_agrees_and_notices) {
    kernels(1);
    fx_job f;
    cm_err err;
    char *scratch = in_tmp("verify");
    fx_open(&f, corpus(), NULL, NULL);
    CHECKF(cm_train_verify_resume(&f.job, 4, scratch, &err), "%s", err.msg);
    CHECK(!cm_exists(scratch));
    CHECK(!cm_train_verify_resume(&f.job, 11, scratch, &err) && err.code == CM_EXIT_USAGE);
    fx_close(&f);
    free(scratch);
}

/* ---- objectives that misbehave ----------------------------------------------------- */

typedef struct {
    cm_objective lm;
    int64_t row;      /* the batch that starts here is hit; -1: every batch */
    double factor;    /* its loss is multiplied by this */
    double first, last;
    int calls;
} saboteur;

static cm_var *sabotage(void *self, const cm_model *m, cm_tape *t, const cm_batch *b,
                        int64_t row, cm_real norm, const cm_stats *st) {
    saboteur *s = self;
    cm_var *loss = s->lm.loss(s->lm.self, m, t, b, row, norm, st);
    if (t->dry) return loss;
    s->calls++;
    cm_real *x = cm_rdata(&loss->v);
    if (s->row < 0 || row == s->row) *x *= (cm_real)s->factor;
    if (row == 0) s->first = *x;
    s->last = *x;
    return loss;
}

static void open_sabotaged(fx_job *f, saboteur *s, const char *dir, int64_t row,
                           double factor, const char *const *words) {
    fx_open(f, corpus(), dir, words);
    *s = (saboteur){ .lm = f->job.objective, .row = row, .factor = factor };
    f->job.objective = (cm_objective){ .self = s, .loss = sabotage };
}

TEST(loss_falls) {
    kernels(1);
    fx_job f;
    saboteur s;
    cm_err err;
    bool complete;
    char *dir = in_tmp("falls");
    open_sabotaged(&f, &s, dir, -1, 1, NULL);
    CHECKF(cm_train(&f.job, &complete, &err) && complete, "%s", err.msg);
    CHECKF(fabs(2 * s.first - log(64.0)) < 0.3, "first loss %g", 2 * s.first);
    CHECKF(s.last < 0.9 * s.first, "loss %g -> %g", s.first, s.last);
    CHECK(s.calls == 40);
    fx_close(&f);
    free(dir);
}

TEST(nan_steps_are_skipped_and_counted) {
    kernels(1);
    fx_job f;
    saboteur s;
    cm_err err;
    bool complete;
    char *dir = in_tmp("nan1");
    open_sabotaged(&f, &s, dir, 24, NAN, NULL);
    CHECKF(cm_train(&f.job, &complete, &err) && complete, "%s", err.msg);
    char *path = cm_strf("%s/step-00000020/state.json", dir), *text;
    size_t n;
    CHECK(cm_read_file(path, 1 << 20, &text, &n, &err));
    CHECK(strstr(text, "\"bad\": 1,") && strstr(text, "\"updates\": 19,"));
    CHECK(strstr(text, "\"skipped\": 1,") && strstr(text, "\"step\": 20,"));
    free(text);
    free(path);
    fx_close(&f);
    free(dir);
}

TEST(nan_for_ever_stops_and_keeps_the_good_checkpoint) {
    kernels(1);
    char *dir = in_tmp("nan2"), *before = fx_run(corpus(), dir, 10, NULL);
    fx_job f;
    saboteur s;
    cm_err err;
    bool complete;
    open_sabotaged(&f, &s, dir, -1, INFINITY, NULL);
    CHECK(!cm_train(&f.job, &complete, &err));
    CHECKF(err.code == CM_EXIT_DIVERGED, "code %d: %s", err.code, err.msg);
    CHECKF(s.calls == 8, "%d micro-batches: three steps skipped, the fourth stops", s.calls);
    char *after = fx_sums(dir, 10);
    check_same(before, after, "checkpoint before the NaN");
    free(before);
    CHECK(!cm_exists("step-00000014"));
    fx_close(&f);
    free(dir);
}

static const char *const spiky[] = { "train.spike_window=8", "train.spike_sigma=20",
                                     "train.spike=log", "ckpt.every=4", NULL };

static bool train_with_spike(const char *name, const char *policy, char **sums,
                             saboteur *s, cm_err *err) {
    const char *words[6];
    memcpy(words, spiky, sizeof spiky);
    words[2] = policy;
    fx_job f;
    bool complete;
    char *dir = in_tmp(name);
    open_sabotaged(&f, s, dir, 14 * 8, 1000, words);
    bool ok = cm_train(&f.job, &complete, err);
    *sums = fx_sums(dir, 20);
    fx_close(&f);
    free(dir);
    return ok;
}

static int64_t counter_in(const char *name, const char *key) {
    char *path = cm_strf("%s/%s/latest/state.json", t_tmpdir(), name), *text = NULL;
    size_t n;
    cm_err err;
    int64_t v = -1;
    if (cm_read_file(path, 1 << 20, &text, &n, &err)) {
        char *at = strstr(text, key);
        if (at) v = strtoll(at + strlen(key) + 3, NULL, 10);
    }
    free(text);
    free(path);
    return v;
}

TEST(spikes_are_logged_skipped_rewound_or_stop_the_run) {
    kernels(1);
    saboteur s;
    cm_err err = { 0 };
    char *sums;
    CHECKF(train_with_spike("s-log", "train.spike=log", &sums, &s, &err), "%s", err.msg);
    CHECK(counter_in("s-log", "spikes") == 1 && counter_in("s-log", "updates") == 20);
    free(sums);
    CHECKF(train_with_spike("s-skip", "train.spike=skip", &sums, &s, &err), "%s", err.msg);
    CHECK(counter_in("s-skip", "spikes") == 1 && counter_in("s-skip", "updates") == 19);
    free(sums);
    CHECKF(train_with_spike("s-rew", "train.spike=rewind", &sums, &s, &err), "%s", err.msg);
    CHECK(counter_in("s-rew", "spikes") == 1 && counter_in("s-rew", "updates") == 20);
    /* Step 15 was the spike, back to 12: rows of steps 13 to 15 are passed over. */
    CHECKF(counter_in("s-rew", "row") == 23 * 8, "row %lld",
           (long long)counter_in("s-rew", "row"));
    CHECKF(s.calls == 2 * 23, "%d micro-batches", s.calls);
    free(sums);
    CHECK(!train_with_spike("s-stop", "train.spike=stop", &sums, &s, &err));
    CHECKF(err.code == CM_EXIT_DIVERGED && !sums, "%s", err.msg);
    CHECK(counter_in("s-stop", "step") == 12);
    free(sums);
}

/* ---- accumulation ------------------------------------------------------------------ */

static cm_real *weights_after(const char *name, const char *micro, int64_t *n) {
    char *dir = in_tmp(name), *path = cm_strf("%s/step-00000003/model.safetensors", dir);
    const char *words[] = { micro, "model.ffn=D", "data.reset=true", NULL };
    free(fx_run(corpus(), dir, 3, words));
    cm_st st;
    cm_err err;
    cm_real *w = NULL;
    *n = 0;
    CHECKF(cm_st_open(&st, path, &err), "%s", err.msg);
    for (int i = 0; i < st.n; i++) {
        int64_t k = cm_tensor_count(&st.entry[i].t);
        w = realloc(w, (size_t)(*n + k) * sizeof *w);
        memcpy(w + *n, st.entry[i].t.data, (size_t)k * sizeof *w);
        *n += k;
    }
    cm_st_close(&st);
    free(path);
    free(dir);
    return w;
}

TEST(one_batch_of_eight_rows_equals_four_of_two) {
    kernels(1);
    int64_t n, k;
    cm_real *a = weights_after("acc8", "data.micro_rows=8", &n);
    cm_real *b = weights_after("acc2", "data.micro_rows=2", &k);
    double d = 0, s = 0;
    CHECK(n == k && n > 10000);
    for (int64_t i = 0; i < n && i < k; i++) {
        d += pow(a[i] - b[i], 2);
        s += pow(a[i], 2);
    }
    CHECKF(sqrt(d / s) < 2e-6, "relative difference %g after three steps", sqrt(d / s));
    free(a);
    free(b);
}

/* ---- memory ------------------------------------------------------------------------ */

static bool ask_for(void *ctx, const cm_model *m, cm_plan *p, cm_err *err) {
    const size_t *bytes = ctx;
    (void)err;
    CHECK(m->conf.d_model == 32);
    p->beside = bytes[0];
    p->ahead = bytes[1];
    return true;
}

/* What goes ahead and what stands beside the arenas count against train.max_gb. */
TEST(plan_counts_what_the_tool_adds) {
    fx_job f;
    cm_plan p;
    cm_err err;
    size_t bytes[2] = { 0, 0 };
    fx_open(&f, corpus(), NULL, NULL);
    f.job.account = ask_for;
    f.job.ctx = bytes;
    f.conf.train.max_gb = 0.1;
    CHECKF(cm_plan_make(&f.job, &p, &err), "%s", err.msg);
    size_t own = p.perm + p.step + p.meta;
    CHECK(cm_plan_bytes(&p) == own && own < 90000000);
    bytes[1] = 90000000;
    CHECK(cm_plan_make(&f.job, &p, &err) && cm_plan_bytes(&p) == 90000000);
    bytes[0] = 1000;
    bytes[1] = own;
    CHECK(cm_plan_make(&f.job, &p, &err) && cm_plan_bytes(&p) == own + 1000);
    bytes[1] = 100000001;
    CHECK(!cm_plan_make(&f.job, &p, &err) && err.code == CM_EXIT_RESOURCE);
    CHECKF(strstr(err.msg, "reference's pass"), "%s", err.msg);
    bytes[1] = 0;
    bytes[0] = 100000001;
    CHECK(!cm_plan_make(&f.job, &p, &err) && strstr(err.msg, "this run needs"));
    fx_close(&f);
}

TEST(plan_knows_the_parts) {
    kernels(1);
    fx_job f;
    cm_plan p;
    cm_err err;
    char *dir = in_tmp("plan");
    fx_open(&f, corpus(), dir, NULL);
    CHECKF(cm_plan_make(&f.job, &p, &err), "%s", err.msg);
    CHECK(p.steps == 20 && p.batch_rows == 8 && p.micro_rows == 4 && p.tokens == 5120);
    CHECK(p.params == cm_model_count(&f.model, false));
    CHECK(p.weights >= (size_t)p.params * sizeof(cm_real) && p.grads == p.weights);
    CHECK(p.moments == 2 * p.weights && p.ckpt == 3 * (uint64_t)p.params * sizeof(cm_real));
    CHECK(p.step > 0 && p.step >= p.step_train && p.meta > 0);
    CHECK(p.step_flops > 0 && p.flops > 0);
    f.conf.train.max_gb = 1e-6;
    CHECK(!cm_plan_make(&f.job, &p, &err) && err.code == CM_EXIT_RESOURCE);
    f.conf.train.max_gb = 0;
    f.conf.data.micro_rows = 3;
    CHECK(!cm_plan_make(&f.job, &p, &err) && err.code == CM_EXIT_USAGE);
    CHECK(!cm_exists(dir));
    fx_close(&f);
    free(dir);
}

TEST(recomputation_takes_less_and_gives_the_same_bits) {
    kernels(1);
    size_t step[2];
    char *sums[2];
    for (int k = 0; k < 2; k++) {
        const char *words[] = { k ? "train.recompute=block" : "train.recompute=none", NULL };
        fx_job f;
        cm_plan p;
        cm_err err;
        fx_open(&f, corpus(), NULL, words);
        CHECKF(cm_plan_make(&f.job, &p, &err), "%s", err.msg);
        step[k] = p.step_train;
        fx_close(&f);
        sums[k] = sums_after(k ? "rec1" : "rec0", 0, words);
    }
    CHECKF(step[1] < step[0], "%zu, recomputing %zu", step[0], step[1]);
    CHECK(sums[0] && sums[1] && !strncmp(strstr(sums[0], "model.safetensors") - 66,
                                         strstr(sums[1], "model.safetensors") - 66, 64));
    free(sums[0]);
    free(sums[1]);
}
