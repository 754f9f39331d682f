/* plan_test.c -- train.recompute = auto: as few blocks as the memory takes, the same bits. */
#include "tests/train_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *corpus(void) {
    static char *dir;
    if (!dir) fx_corpus(dir = cm_strf("%s/corpus", t_tmpdir()), 60, CM_SHARD_BOS | CM_SHARD_EOS);
    return dir;
}

static void kernels(void) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, 1, &err), "%s", err.msg);
}

static const char *rows_word = "data.micro_rows=4"; /* for plan() */

/* Eight layers of two kinds: Mamba-2 dense, attention with experts. */
static bool plan(const char *recompute, double max_gb, cm_plan *p, cm_err *err) {
    char gb[64];
    snprintf(gb, sizeof gb, "train.max_gb=%.9f", max_gb);
    const char *words[] = { "model.n_layers=8", "val.tokens=90", rows_word, recompute, gb, NULL };
    fx_job f;
    fx_open(&f, corpus(), "unused", words);
    bool ok = cm_plan_make(&f.job, p, err);
    fx_close(&f);
    return ok;
}

static int blocks(const cm_plan *p) {
    int n = 0;
    for (int i = 0; i < 8; i++) n += p->again[i];
    return n;
}

TEST(as_few_blocks_as_the_memory_takes) {
    cm_err err = { 0 };
    cm_plan none, all, p;
    kernels();
    CHECK(plan("train.recompute=none", 0, &none, &err));
    CHECK(plan("train.recompute=block", 0, &all, &err));
    double most = (double)cm_plan_bytes(&none) * 1e-9, least = (double)cm_plan_bytes(&all) * 1e-9;
    CHECKF(least < 0.8 * most, "%g of %g GB: nothing to choose", least, most);
    /* A byte more: GB are no whole number of bytes. */
    CHECKF(plan("train.recompute=auto", most + 1e-9, &p, &err), "%s", err.msg);
    CHECK(blocks(&p) == 0);
    CHECK(plan("train.recompute=auto", least, &p, &err));
    CHECK((double)cm_plan_bytes(&p) <= least * 1e9 + 1);
    int before = 0;
    for (int i = 9; i > 0; i--) {
        double gb = least + (most - least) * i / 10;
        CHECKF(plan("train.recompute=auto", gb, &p, &err), "%s", err.msg);
        CHECKF((double)cm_plan_bytes(&p) <= gb * 1e9, "%g GB planned, %g allowed",
               (double)cm_plan_bytes(&p) * 1e-9, gb);
        CHECKF(blocks(&p) >= before && blocks(&p) > 0, "%d blocks at %g GB", blocks(&p), gb);
        before = blocks(&p);
    }
    CHECKF(before > 1, "%d blocks where memory is least", before);
    CHECK(!plan("train.recompute=auto", 0.9 * least, &p, &err) && err.code == CM_EXIT_RESOURCE);
    CHECK(!plan("train.recompute=auto", 0, &p, &err) && err.code == CM_EXIT_USAGE &&
          strstr(err.msg, "train.max_gb"));
}

/* Lines of SHA256SUMS about tensors, of which the run's own words are no part. */
static char *tensors_after(const char *name, const char *recompute, double max_gb) {
    char gb[64], *dir = cm_strf("%s/%s", t_tmpdir(), name), *out = cm_strf("%s", "");
    snprintf(gb, sizeof gb, "train.max_gb=%.9f", max_gb);
    const char *words[] = { "model.n_layers=8", "val.tokens=90", recompute, gb, NULL };
    char *sums = fx_run(corpus(), dir, 10, words), *rest = sums;
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (!strstr(line, ".safetensors")) continue;
        char *longer = cm_strf("%s%s\n", out, line);
        free(out);
        out = longer;
    }
    free(sums);
    free(dir);
    return out;
}

TEST(what_is_computed_again_changes_no_bit) {
    cm_err err;
    cm_plan none, all, p;
    kernels();
    CHECK(plan("train.recompute=none", 0, &none, &err));
    CHECK(plan("train.recompute=block", 0, &all, &err));
    double gb = 0.5e-9 * (double)(cm_plan_bytes(&none) + cm_plan_bytes(&all));
    CHECK(plan("train.recompute=auto", gb, &p, &err) && blocks(&p) > 0 && blocks(&p) < 8);
    char *a = tensors_after("none", "train.recompute=none", 0);
    char *b = tensors_after("auto", "train.recompute=auto", gb);
    CHECKF(strlen(a) > 128 && !strcmp(a, b), "%s--\n%s", a, b);
    free(a);
    free(b);
}

/* The plan as this many threads make it. */
static bool plan_by(int threads, const char *recompute, double max_gb, cm_plan *p) {
    cm_err err = { 0 };
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, threads, &err), "%s", err.msg);
    bool ok = plan(recompute, max_gb, p, &err);
    CHECK(cm_kern_threads() == threads);
    kernels();
    return ok;
}

TEST(rows_are_chosen_within_the_memory) {
    cm_err err = { 0 };
    cm_plan of[3], all, p;
    const char *rows[] = { "data.micro_rows=2", "data.micro_rows=4", "data.micro_rows=8" };
    CHECK(cm_kern_init(CM_NUMERICS_STRICT, 16, &err)); /* what the choice counts with */
    for (int i = 0; i < 3; i++) {
        rows_word = rows[i];
        CHECK(plan("train.recompute=none", 0, &of[i], &err));
    }
    CHECK(plan("train.recompute=block", 0, &all, &err)); /* of 8 rows */
    rows_word = "data.micro_rows=0";
    for (int i = 0; i < 3; i++) {
        double gb = 1e-9 * (double)cm_plan_bytes(&of[i]) + 1e-9;
        for (int threads = 1; threads <= 16; threads *= 4) {
            CHECK(plan_by(threads, "train.recompute=none", gb, &p));
            CHECKF(p.micro_rows == 2 << i, "%lld rows, %d threads", (long long)p.micro_rows,
                   threads);
        }
    }
    /* Where eight rows fit with every block computed again, fewer with none cost less. */
    double gb = 1e-9 * (double)cm_plan_bytes(&all) + 1e-9;
    CHECKF(gb < 1e-9 * (double)cm_plan_bytes(&of[2]), "%g GB", gb);
    CHECK(plan_by(2, "train.recompute=auto", gb, &p));
    CHECKF(p.micro_rows < 8 && blocks(&p) < 8, "%lld rows, %d blocks", (long long)p.micro_rows,
           blocks(&p));
    rows_word = "data.micro_rows=8";
    CHECK(plan("train.recompute=auto", gb, &all, &err));
    CHECKF(p.cost < all.cost, "%g, of eight rows %g", p.cost, all.cost);
    rows_word = "data.micro_rows=4";
}

/* Cost of the cheapest of all divisors of the batch that fit. */
static double least_cost(double gb) {
    static const char *const rows[] = { "data.micro_rows=1", "data.micro_rows=2",
                                        "data.micro_rows=4", "data.micro_rows=8" };
    double least = INFINITY;
    cm_err err;
    cm_plan p;
    CHECK(cm_kern_init(CM_NUMERICS_STRICT, 16, &err));
    for (int i = 0; i < 4; i++) {
        rows_word = rows[i];
        if (plan("train.recompute=auto", gb, &p, &err) && p.cost < least) least = p.cost;
    }
    rows_word = "data.micro_rows=0";
    return least;
}

TEST(the_rows_chosen_cost_least) {
    cm_err err = { 0 };
    cm_plan low, high, p;
    CHECK(cm_kern_init(CM_NUMERICS_STRICT, 16, &err));
    rows_word = "data.micro_rows=1";
    CHECK(plan("train.recompute=block", 0, &low, &err));
    rows_word = "data.micro_rows=8";
    CHECK(plan("train.recompute=none", 0, &high, &err));
    double from = 1e-9 * (double)cm_plan_bytes(&low), to = 1e-9 * (double)cm_plan_bytes(&high);
    int64_t seen = 0;
    for (int i = 1; i <= 8; i++) {
        double gb = from + (to - from) * i / 8 + 1e-9, want = least_cost(gb);
        CHECK(plan_by(16, "train.recompute=auto", gb, &p));
        CHECKF(!(p.cost > want) && !(p.cost < want), "%g GB: %lld rows cost %g, the least is %g",
               gb, (long long)p.micro_rows, p.cost, want);
        seen |= p.micro_rows;
    }
    CHECKF(seen & (seen - 1), "always %lld rows", (long long)seen);
    rows_word = "data.micro_rows=4";
}
