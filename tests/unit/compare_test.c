/* compare_test.c -- pairing, refusals, verdicts, margins, flips, measurements. */
#include "tests/unit/compare_fixture.h"

typedef struct {
    cm_comparison c;
    cm_err err;
    bool ok;
} outcome;

static outcome compare2(const made *a, const made *b, const cm_regress_conf *conf) {
    const cm_result *r[2] = {&a->r, &b->r};
    cm_side side[2] = {{"a", 1, &r[0]}, {"b", 1, &r[1]}};
    outcome o = {.err = {0}};
    o.ok = cm_compare(&o.c, side, 2, NULL, conf, &o.err);
    return o;
}

static void expect_refusal(const made *a, const made *b, const cm_regress_conf *conf, cm_exit code,
                           const char *words) {
    outcome o = compare2(a, b, conf);
    CHECKF(!o.ok && o.err.code == code && strstr(o.err.msg, words), "wanted %d '%s', got %d '%s'",
           code, words, o.ok ? -1 : (int)o.err.code, o.ok ? "a verdict" : o.err.msg);
    CHECK(o.c.pair == NULL);
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-12 * fmax(1, fabs(b)); }

/* ---- verdicts ------------------------------------------ */

TEST(same_model_passes_with_few_items) {
    made *a = counts("x", 5, 3, 0, 0), *b = counts("x", 5, 3, 0, 0);
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    CHECK(o.ok && o.c.verdict == CM_VERDICT_PASS && o.c.code == CM_EXIT_OK);
    const cm_flips *f = &o.c.pair[0].flips[0];
    CHECK(o.c.pair[0].same_model && f->n_lost + f->n_gained == 0);
    CHECK(o.c.pair[0].n_notes == 1 && strstr(o.c.pair[0].note[0], "a is the same model"));
    cm_comparison_free(&o.c);
    /* Another model that scores the same on five items has shown nothing. */
    set_text(b, "model", "sha256", "y");
    o = compare2(a, b, &conf);
    CHECK(o.ok && o.c.verdict == CM_VERDICT_INCONCLUSIVE && o.c.code == CM_EXIT_UNSURE);
    /* The same model with another score is a difference. */
    set_text(b, "model", "sha256", "x");
    b->col[0][0].v[0].num = 0;
    cm_comparison_free(&o.c);
    o = compare2(a, b, &conf);
    CHECK(o.ok && o.c.verdict == CM_VERDICT_INCONCLUSIVE);
    cm_comparison_free(&o.c);
    free_made(a), free_made(b);
}

static cm_verdict verdict_of(int64_t n, int64_t lost, int64_t gained) {
    made *a = counts("a", n, n / 2, 0, 0), *b = counts("b", n, n / 2, lost, gained);
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    CHECKF(o.ok, "%s", o.err.msg);
    const cm_metric_cmp *m = &o.c.pair[0].metric[0];
    CHECK(m->losses == lost && m->gains == gained && m->n == n && m->groups == n);
    CHECK(near(m->p, cm_mcnemar_test(lost, gained).one) && near(m->p_holm, m->p));
    CHECK(near(m->diff, (double)(gained - lost) / (double)n));
    CHECK(m->lo <= m->diff && m->diff <= m->hi);
    CHECK(near(m->flips, (double)(gained + lost) / (double)n));
    CHECK((m->bound > -m->margin) == (m->verdict == CM_VERDICT_PASS));
    cm_verdict v = o.c.verdict;
    cm_comparison_free(&o.c);
    free_made(a), free_made(b);
    return v;
}

/* The margin is 0.02. */
TEST(zero_one_verdicts) {
    CHECK(verdict_of(100, 0, 0) == CM_VERDICT_INCONCLUSIVE);
    CHECK(verdict_of(140, 0, 0) == CM_VERDICT_INCONCLUSIVE); /* Tango alone would pass */
    CHECK(verdict_of(200, 0, 0) == CM_VERDICT_PASS);
    CHECK(verdict_of(1000, 40, 40) == CM_VERDICT_PASS);
    CHECK(verdict_of(1000, 50, 40) == CM_VERDICT_INCONCLUSIVE);
    CHECK(verdict_of(1000, 80, 40) == CM_VERDICT_FAIL);
    CHECK(verdict_of(1000, 40, 90) == CM_VERDICT_PASS);
    CHECK(verdict_of(20000, 100, 40) == CM_VERDICT_PASS); /* real but tolerable */
    CHECK(verdict_of(10, 5, 0) == CM_VERDICT_FAIL);
    CHECK(verdict_of(10, 4, 0) == CM_VERDICT_INCONCLUSIVE); /* p = 1/16 */
}

/* Lower is better, clusters, one in two items worse by a margin and a half. */
/* Sentences speak the table's units, say a margin once and know no p = 0. */
TEST(reasons_are_for_people) {
    made *a = counts("x", 4000, 3000, 0, 0), *b = counts("y", 4000, 3000, 900, 0);
    cm_column *c = add_task(a, "text", 200, 1, "bits_per_byte");
    cm_column *d = add_task(b, "text", 200, 1, "bits_per_byte");
    for (int64_t i = 0; i < 200; i++) {
        c->v[i] = (cm_score_val){100 + (double)(i % 7), 100};
        d->v[i] = (cm_score_val){101 + (double)(i % 7) + (double)(i % 3), 100};
    }
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    CHECK(o.ok);
    const char *r = o.ok ? o.c.pair[0].metric[0].reason : "";
    CHECKF(strstr(r, "a loss of 22.50 pp (p < 1e-16 after Holm)") &&
           strstr(r, "the margin is 2.00 pp") && !strstr(r, "0.02"), "%s", r);
    r = o.ok ? o.c.pair[0].metric[1].reason : "";
    CHECKF(strstr(r, "the margin is 1% (0.0103 bits)"), "%s", r);
    cm_comparison_free(&o.c);
    free_made(a), free_made(b);
}

/* A metric that is no goal is shown without a verdict, and nobody can make it one. */
TEST(no_goal_is_not_judged) {
    made *a = counts("x", 500, 300, 0, 0), *b = counts("y", 500, 300, 5, 5);
    cm_column *c = add_column(a, 0, "conf"), *d = add_column(b, 0, "conf");
    for (int64_t i = 0; i < 500; i++) c->v[i].num = 0.5, d->v[i].num = i % 2 ? 0.2 : 0.3;
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    CHECK(o.ok);
    const cm_metric_cmp *m = o.ok ? &o.c.pair[0].metric[1] : NULL;
    CHECK(m && m->verdict == CM_VERDICT_SKIPPED && !m->gates && fabs(m->diff + 0.25) < 1e-9);
    CHECK(m && isnan(m->p) && isnan(m->margin) && isnan(m->mde) && isfinite(m->lo));
    CHECK(o.c.family == 1);
    cm_comparison_free(&o.c);
    const char *word[] = {"conf=0.1"};
    conf.margins = (cm_list){1, word};
    expect_refusal(a, b, &conf, CM_EXIT_USAGE, "no goal");
    free_made(a), free_made(b);
}

TEST(sizes_needed_where_little_changed) {
    static const struct {
        int64_t lost, gained;
        double least, most;
    } want[] = {{0, 0, 149, 149}, {1, 0, 400, 2500}, {1, 1, 400, 3000}, {5, 5, 1000, 6000}};
    static const char *const task[] = {"t", "u", "v"};
    for (int trial = 0; trial < 12; trial++) {
        int family = 1 + trial % 3, i = trial / 3;
        made *a = new_result("a"), *b = new_result("b");
        for (int k = 0; k < family; k++) {
            cm_column *x = add_task(a, task[k], 141, 1, "greedy");
            cm_column *y = add_task(b, task[k], 141, 1, "greedy");
            for (int64_t j = 0; j < 141; j++) {
                x->v[j].num = j < 70;
                y->v[j].num = j < 70 ? j >= want[i].lost : j < 70 + want[i].gained;
            }
        }
        cm_regress_conf conf = defaults();
        outcome o = compare2(a, b, &conf);
        CHECK(o.ok && o.c.verdict == CM_VERDICT_INCONCLUSIVE);
        const cm_metric_cmp *m = &o.c.pair[0].metric[0];
        CHECKF(m->n_needed >= want[i].least && m->n_needed <= want[i].most,
               "%lld and %lld of 141, %d tasks: %g", (long long)want[i].lost,
               (long long)want[i].gained, family, m->n_needed);
        CHECKF((strstr(m->reason, "if none of them changed") != NULL) == (i == 0), "%s",
               m->reason);
        cm_comparison_free(&o.c);
        free_made(a), free_made(b);
    }
    CHECK(verdict_of(149, 0, 0) == CM_VERDICT_PASS); /* as was said */
}

TEST(graded_and_clustered) {
    made *a = new_result("a"), *b = new_result("b");
    cm_column *x = add_task(a, "t", 600, 3, "brier"), *y = add_task(b, "t", 600, 3, "brier");
    cm_rng r = cm_rng_make(5, CM_RNG_TEST, 0);
    for (int i = 0; i < 600; i++) {
        x->v[i].num = 0.5 + 0.1 * cm_rng_normal(r, (uint64_t)i);
        y->v[i].num = x->v[i].num + 0.03 + 0.05 * cm_rng_normal(r, 1000 + (uint64_t)i);
    }
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    CHECK(o.ok && o.c.verdict == CM_VERDICT_FAIL && o.c.code == CM_EXIT_CHECK);
    cm_metric_cmp m = o.c.pair[0].metric[0];
    CHECK(m.diff > 0.02 && m.lo > 0.02 && m.hi > m.lo && m.bound < -0.02 && m.groups == 200);
    CHECK(fabs(m.boot_lo - m.lo) < 0.003 && fabs(m.boot_hi - m.hi) < 0.003);
    CHECK(m.p < 1e-6 && m.p_perm < 0.01 && m.p_wilcoxon < 1e-6 && m.mde > 0 && m.mde < 0.05);
    /* As independent items: the same difference, three times the groups. */
    conf.cluster = false;
    cm_comparison_free(&o.c);
    o = compare2(a, b, &conf);
    CHECK(o.ok && o.c.pair[0].metric[0].groups == 600 && near(o.c.pair[0].metric[0].diff, m.diff));
    cm_comparison_free(&o.c);
    /* Better by as much: a pass, whatever the margin. */
    conf = defaults();
    o = compare2(b, a, &conf);
    CHECK(o.ok && o.c.verdict == CM_VERDICT_PASS && near(o.c.pair[0].metric[0].diff, -m.diff));
    cm_comparison_free(&o.c);
    free_made(a), free_made(b);
}

/* Bits per byte: a ratio of sums, margin 1% of the baseline. */
TEST(ratios) {
    made *a = new_result("a"), *b = new_result("b");
    cm_column *x = add_task(a, "t", 100, 1, "bits_per_byte");
    cm_column *y = add_task(b, "t", 100, 1, "bits_per_byte");
    cm_rng r = cm_rng_make(6, CM_RNG_TEST, 0);
    double num = 0, den = 0;
    for (int i = 0; i < 100; i++) {
        x->v[i].den = y->v[i].den = 100 + 900 * cm_rng_uniform(r, (uint64_t)i);
        x->v[i].num = x->v[i].den * (2 + 0.2 * cm_rng_normal(r, 200 + (uint64_t)i));
        y->v[i].num = x->v[i].num * (1.03 + 0.01 * cm_rng_normal(r, 400 + (uint64_t)i));
        num += x->v[i].num;
        den += x->v[i].den;
    }
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    CHECK(o.ok && o.c.verdict == CM_VERDICT_FAIL);
    const cm_metric_cmp *m = &o.c.pair[0].metric[0];
    CHECK(near(m->base, num / den) && near(m->margin, 0.01 * num / den));
    CHECK(!strcmp(m->margin_text, "1%") && m->diff > 0.05 && m->diff < 0.07);
    CHECK(fabs(m->boot_lo - m->lo) < 0.002 && fabs(m->boot_hi - m->hi) < 0.002);
    cm_comparison_free(&o.c);
    free_made(a), free_made(b);
}

static outcome clustered(int groups, int lost_groups) {
    made *a = new_result("a"), *b = new_result("b");
    cm_column *x = add_task(a, "t", groups * 3, 3, "acc");
    cm_column *y = add_task(b, "t", groups * 3, 3, "acc");
    for (int i = 0; i < groups * 3; i++) {
        bool lost = i < lost_groups * 3;
        x->v[i].num = lost || i % 2;
        y->v[i].num = !lost && i % 2;
    }
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    CHECKF(o.ok, "%s", o.err.msg);
    free_made(a), free_made(b);
    return o;
}

/* Nothing changed in 50 groups of three: a loss of 0.02 that comes by whole groups has 36% to
 * show nothing there, so the t distribution (error 0) must not decide. */
TEST(few_changed_groups) {
    outcome o = clustered(50, 0);
    const cm_metric_cmp *m = &o.c.pair[0].metric[0];
    CHECK(o.c.verdict == CM_VERDICT_INCONCLUSIVE && m->stderr_ == 0 && m->bound < -0.05);
    CHECK(m->n_needed >= 3 * 148 && m->n_needed < 3 * 400);
    cm_comparison_free(&o.c);
    o = clustered(200, 0);
    CHECK(o.c.verdict == CM_VERDICT_PASS);
    cm_comparison_free(&o.c);
    o = clustered(200, 4); /* 4 of 200: p = 1/16 by sign flips */
    m = &o.c.pair[0].metric[0];
    CHECK(o.c.verdict == CM_VERDICT_INCONCLUSIVE && m->p == 0.0625 && m->bound < -0.04);
    CHECKF(m->lo <= m->bound && m->lo < m->diff, "interval from %g, bound %g", m->lo, m->bound);
    cm_comparison_free(&o.c);
    o = clustered(200, 5);
    CHECK(o.c.verdict == CM_VERDICT_FAIL && o.c.pair[0].metric[0].p == 0.03125);
    cm_comparison_free(&o.c);
}

/* The same scores of two models: their contributions cancel but for rounding, and rounding is
 * no error to decide by. */
TEST(no_change_in_groups_is_no_certainty) {
    static const char *const metric[] = {"acc", "margin", "ppl_token", "bits_per_byte"};
    for (int k = 0; k < 4; k++) {
        made *a = new_result("a"), *b = new_result("b");
        cm_column *x = add_task(a, "t", 150, 3, metric[k]);
        cm_column *y = add_task(b, "t", 150, 3, metric[k]);
        for (int i = 0; i < 150; i++) {
            x->v[i].den = k > 1 ? 1 + i % 7 : 1;
            x->v[i].num = k ? 0.1 * (1 + i * 7 % 11) : i * 7 % 11 < 4;
            y->v[i] = x->v[i];
        }
        cm_regress_conf conf = defaults();
        outcome o = compare2(a, b, &conf);
        const cm_metric_cmp *m = &o.c.pair[0].metric[0];
        CHECKF(m->stderr_ == 0 && m->p == 1, "%s: error %g, p %g", metric[k], m->stderr_, m->p);
        CHECKF(m->bound < -1e-4, "%s: bound %g", metric[k], m->bound);
        CHECKF(m->diff == 0 && isnan(m->lo) && isnan(m->hi), "%s: %g [%g, %g]", metric[k], m->diff,
               m->lo, m->hi);
        cm_comparison_free(&o.c);
        free_made(a), free_made(b);
    }
}

TEST(calibration_by_bootstrap) {
    made *a = new_result("a"), *b = new_result("b");
    made *side[2] = {a, b};
    cm_rng r = cm_rng_make(8, CM_RNG_TEST, 0);
    for (int k = 0; k < 2; k++) {
        cm_column *acc = add_task(side[k], "t", 400, 1, "acc");
        cm_column *ece = add_column(side[k], 0, "ece");
        ece->conf = calloc(400, sizeof *ece->conf);
        for (int i = 0; i < 400; i++) { /* right 60% of the time, sure of 62% or 95% */
            acc->v[i].num = ece->v[i].num = cm_rng_uniform(r, (uint64_t)i) < 0.6;
            ece->conf[i] = k ? 0.95 : 0.62;
        }
    }
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    CHECKF(o.ok, "%s", o.err.msg);
    const cm_metric_cmp *m = &o.c.pair[0].metric[1];
    CHECK(!strcmp(m->metric->name, "ece") && !m->gates && m->verdict == CM_VERDICT_FAIL);
    CHECK(m->diff > 0.25 && m->lo < m->diff && m->diff < m->hi && m->p < 0.01);
    CHECK(o.c.verdict == CM_VERDICT_PASS); /* accuracy is the same, and ece does not gate */
    cm_comparison_free(&o.c);
    free_made(a), free_made(b);
}

/* ---- pairing ------------------------------------------ */

TEST(order_of_items_does_not_matter) {
    made *a = counts("a", 300, 200, 0, 0), *b = counts("b", 300, 200, 20, 9);
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    cm_metric_cmp first = o.c.pair[0].metric[0];
    cm_comparison_free(&o.c);
    cm_task_result *t = &b->t[0];
    for (int i = 0; i < 150; i++) { /* backwards */
        int j = 299 - i;
        char *id = t->id[i], hash[17];
        memcpy(hash, t->hash[i], 17);
        memcpy(t->hash[i], t->hash[j], 17);
        memcpy(t->hash[j], hash, 17);
        t->id[i] = t->id[j], t->id[j] = id;
        cm_score_val v = t->column[0].v[i];
        t->column[0].v[i] = t->column[0].v[j], t->column[0].v[j] = v;
    }
    o = compare2(a, b, &conf);
    const cm_metric_cmp *m = &o.c.pair[0].metric[0];
    CHECK(o.ok && m->losses == 20 && m->gains == 9 && m->p == first.p && m->bound == first.bound);
    cm_comparison_free(&o.c);
    free_made(a), free_made(b);
}

TEST(flips_both_ways) {
    made *a = counts("a", 100, 60, 0, 0), *b = counts("b", 100, 60, 5, 3);
    cm_column *x = add_column(a, 0, "margin"), *y = add_column(b, 0, "margin");
    for (int i = 0; i < 100; i++) {
        x->v[i].num = 1;
        y->v[i].num = 1 - 0.1 * i; /* item 4 changed most among 0..4, 62 among 60..62 */
    }
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    const cm_flips *f = &o.c.pair[0].flips[0];
    CHECK(o.ok && o.c.pair[0].n_flips == 1);
    CHECK(f->n_lost == 5 && f->n_gained == 3 && f->n_same == 92);
    CHECK(!strcmp(f->lost[0].id, "item/4") && !strcmp(f->lost[4].id, "item/0"));
    CHECK(!strcmp(f->gained[0].id, "item/62") && f->lost[0].base == 1 && f->lost[0].cand == 0);
    CHECK(near(f->lost[0].cand_margin, 0.6) && f->lost[0].base_margin == 1);
    cm_comparison_free(&o.c);
    free_made(a), free_made(b);
}

TEST(incomparable_inputs) {
    cm_regress_conf conf = defaults();
    made *a = counts("a", 100, 60, 0, 0), *b = counts("b", 100, 60, 0, 0);
    b->t[0].version = 2;
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "task 'quiz' was version 1 and is version 2");
    b->t[0].version = 1;
    b->t[0].definition[3] = 'x';
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "has another definition");
    b->t[0].definition[3] = '3';
    b->t[0].primary = TEXT("greedy");
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "task 'quiz' was judged by acc and is by greedy");
    b->t[0].primary = TEXT("acc");
    b->t[0].hash[7][2] = 'f';
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "1 ask something else under the same id ('item/7')");
    b->t[0].hash[7][2] = '0';
    b->t[0].n = 98;
    expect_refusal(a, b, &conf, CM_EXIT_DATA,
                   "of 100 items 2 items are missing ('item/98', 'item/99')");
    expect_refusal(b, a, &conf, CM_EXIT_DATA, "2 are new ('item/98', 'item/99')");
    b->t[0].n = 100;
    b->t[0].group[5] = cm_strf("other");
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "1 belong to another group ('item/5')");
    free(b->t[0].group[5]);
    b->t[0].group[5] = NULL;
    b->t[0].name = TEXT("riddle");
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "the second has no task 'quiz'");
    b->t[0].name = TEXT("quiz");
    set_text(a, "config", "eval.shots", "0"), set_text(b, "config", "eval.shots", "5");
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "eval.shots was \"0\" and is \"5\"");
    set_text(b, "config", "eval.shots", "0");
    set_text(a, "config", "eval.batch", "1"), set_text(b, "config", "eval.batch", "8");
    outcome o = compare2(a, b, &conf);
    CHECKF(o.ok, "%s", o.err.msg);
    bool listed = false;
    for (int i = 0; i < o.c.pair[0].n_changes; i++)
        listed = listed || !strcmp(o.c.pair[0].change[i].key, "eval.batch");
    CHECK(listed);
    cm_comparison_free(&o.c);
    b->col[0][0].v[3].den = 0;
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "'item/3' has a score in some results and none");
    free_made(a), free_made(b);
}

TEST(nothing_to_compare_is_an_error) {
    cm_regress_conf conf = defaults();
    made *a = new_result("a"), *b = new_result("b");
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "nothing to compare");
    add_task(a, "t", 10, 1, "acc"), add_task(b, "t", 10, 1, "acc");
    a->t[0].primary = b->t[0].primary = TEXT("greedy"); /* not measured */
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "no gating metric");
    free_made(a), free_made(b);
}

/* Perplexity per token means nothing between two tokenizers. */
TEST(other_tokenizer) {
    made *a = counts("a", 400, 200, 0, 0), *b = counts("b", 400, 200, 0, 0);
    made *side[2] = {a, b};
    for (int k = 0; k < 2; k++) {
        cm_column *c = add_column(side[k], 0, "ppl_token");
        for (int i = 0; i < 400; i++) c->v[i] = (cm_score_val){10 + i % 7, 5};
    }
    set_text(b, "model", "tokenizer_sha256", "other");
    cm_regress_conf conf = defaults();
    outcome o = compare2(a, b, &conf);
    CHECKF(o.ok, "%s", o.err.msg);
    const cm_metric_cmp *m = &o.c.pair[0].metric[1];
    CHECK(m->verdict == CM_VERDICT_SKIPPED && strstr(m->reason, "tokenizers differ"));
    CHECK(o.c.verdict == CM_VERDICT_PASS && o.c.family == 1);
    cm_comparison_free(&o.c);
    const char *gate[] = {"ppl_token"};
    conf.gate = (cm_list){1, gate};
    expect_refusal(a, b, &conf, CM_EXIT_DATA, "quiz/ppl_token gates and cannot be compared");
    free_made(a), free_made(b);
}

/* ---- margins and gates ------------------------------------------ */

static double margin_with(const made *a, const made *b, int n, const char **lines, bool *gates) {
    cm_regress_conf conf = defaults();
    conf.margins = (cm_list){n, lines};
    outcome o = compare2(a, b, &conf);
    CHECKF(o.ok, "%s", o.err.msg);
    double m = o.ok ? o.c.pair[0].metric[1].margin : NAN;
    *gates = o.ok && o.c.pair[0].metric[1].gates;
    if (o.ok) cm_comparison_free(&o.c);
    return m;
}

TEST(margins_and_gates) {
    made *a = counts("a", 100, 50, 0, 0), *b = counts("b", 100, 50, 1, 0);
    made *side[2] = {a, b};
    for (int k = 0; k < 2; k++) {
        cm_column *c = add_column(side[k], 0, "acc_char");
        for (int i = 0; i < 80; i++) c->v[i].num = 1;
    }
    bool g;
    CHECK(margin_with(a, b, 0, NULL, &g) == 0.02 && !g);
    CHECK(margin_with(a, b, 1, (const char *[]){"acc_char=0.01"}, &g) == 0.01 && !g);
    CHECK(near(margin_with(a, b, 1, (const char *[]){"acc_char=5%"}, &g), 0.04) && !g);
    const char *both[] = {"quiz/acc_char=0.03", "acc_char=0.01"};
    CHECK(margin_with(a, b, 2, both, &g) == 0.03 && g);
    cm_regress_conf conf = defaults();
    outcome all = compare2(a, b, &conf);
    const cm_metric_cmp *two = all.c.pair[0].metric;
    double p[2] = {two[0].p, two[1].p}, adj[2];
    cm_bh(p, 2, adj);
    CHECK(near(two[0].p_bh, adj[0]) && near(two[1].p_bh, adj[1]));
    CHECK(two[0].p_holm == p[0] && two[1].p_holm == p[1]); /* one gates, one does not */
    cm_comparison_free(&all.c);
    const struct {
        bool margin;
        const char *line, *words;
    } bad[] = {
        {true, "acc", "is not METRIC=VALUE"},
        {true, "acc=", "neither a number"},
        {true, "acc=-1", "neither a number"},
        {true, "acc=x%", "neither a number"},
        {true, "acx=1", "no metric 'acx'; did you mean 'acc'?"},
        {true, "quizz/acc=1", "no task 'quizz'; did you mean 'quiz'?"},
        {true, "perf/x=1%", "no measurement 'x'"},
        {false, "quiz/ece", "no metric 'ece'"},
        {false, "quiz/", "is not METRIC or TASK/METRIC"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *line = bad[i].line;
        conf.margins = (cm_list){bad[i].margin, &line};
        conf.gate = (cm_list){!bad[i].margin, &line};
        expect_refusal(a, b, &conf, CM_EXIT_USAGE, bad[i].words);
    }
    const char *gate[] = {"quiz/acc_char"};
    conf.margins.n = 0;
    conf.gate = (cm_list){1, gate};
    outcome o = compare2(a, b, &conf);
    const cm_metric_cmp *m = o.c.pair[0].metric;
    CHECK(o.ok && !m[0].gates && m[1].gates && o.c.family == 1);
    cm_comparison_free(&o.c);
    free_made(a), free_made(b);
}

/* Two candidates are two hypotheses. */
TEST(candidates_share_alpha) {
    made *a = counts("a", 500, 250, 0, 0), *b = counts("b", 500, 250, 18, 7);
    made *c = counts("c", 500, 250, 5, 5);
    const cm_result *r[3] = {&a->r, &b->r, &c->r};
    cm_side side[3] = {{"a", 1, &r[0]}, {"b", 1, &r[1]}, {"c", 1, &r[2]}};
    cm_regress_conf conf = defaults();
    cm_comparison out;
    cm_err err;
    CHECK(cm_compare(&out, side, 3, NULL, &conf, &err));
    CHECK(out.n == 2 && out.family == 2);
    CHECK(near(out.pair[0].metric[0].p_holm, 2 * cm_mcnemar_test(18, 7).one));
    CHECK(out.pair[0].verdict == CM_VERDICT_FAIL && out.pair[1].verdict != CM_VERDICT_FAIL);
    CHECK(out.verdict == CM_VERDICT_FAIL && !strcmp(out.pair[1].cand, "c"));
    cm_comparison_free(&out);
    free_made(a), free_made(b), free_made(c);
}

/* ---- sequential and seeds ------------------------------------------ */

TEST(sequential_by_e_values) {
    made *a = counts("a", 4000, 2000, 0, 0), *b = counts("b", 4000, 2000, 40, 40);
    cm_regress_conf conf = defaults();
    conf.sequential = true;
    outcome o = compare2(a, b, &conf);
    const cm_metric_cmp *m = &o.c.pair[0].metric[0];
    CHECK(o.ok && o.c.verdict == CM_VERDICT_PASS && near(m->e_loss, cm_e_one(40, 40)));
    CHECK(near(m->e_margin, cm_e_bet(40, 40, 4000, 0.02)) && m->e_margin > 20);
    double plain = -cm_tango_upper(40, 40, 4000, 0.05);
    CHECK(m->bound < plain && m->bound > -0.02); /* the price of looking at any time */
    CHECK(m->lo <= m->bound && m->hi >= -m->lo - 1e-6 && strstr(m->interval, "any time"));
    cm_comparison_free(&o.c);
    const cm_result *r[3] = {&a->r, &b->r, &b->r};
    cm_side side[2] = {{"a", 1, &r[0]}, {"b", 2, &r[1]}};
    CHECK(!cm_compare(&o.c, side, 2, NULL, &conf, &o.err) && o.err.code == CM_EXIT_USAGE);
    free_made(a), free_made(b);
}

TEST(seeds_are_replicates) {
    made *m[5];
    const cm_result *r[5];
    cm_rng g = cm_rng_make(9, CM_RNG_TEST, 0);
    for (int k = 0; k < 5; k++) {
        m[k] = new_result("r");
        cm_column *c = add_task(m[k], "t", 200, 1, "margin");
        for (int i = 0; i < 200; i++)
            c->v[i].num = 0.3 * (k % 3) + 0.01 * cm_rng_normal(g, (uint64_t)(1000 * k + i));
        r[k] = &m[k]->r;
    }
    cm_side side[2] = {{"a", 3, r}, {"b", 2, r + 3}}; /* levels 0 .3 .6 and 0 .3 */
    cm_regress_conf conf = defaults();
    cm_comparison out;
    cm_err err;
    CHECK(cm_compare(&out, side, 2, NULL, &conf, &err));
    const cm_metric_cmp *x = &out.pair[0].metric[0];
    CHECK(x->seeds_base == 3 && x->seeds_cand == 2 && fabs(x->sd_base - 0.3) < 0.01);
    CHECK(fabs(x->diff + 0.15) < 0.01 && out.verdict == CM_VERDICT_INCONCLUSIVE);
    CHECK(x->noise_floor > 1 && x->noise_floor < 1.5); /* t(3) sqrt2 0.27 */
    CHECK(isinf(x->n_needed) && x->seeds_needed > 100 && x->boot_lo < x->boot_hi);
    cm_comparison_free(&out);
    /* The same item scores as single runs are as clear as can be. */
    cm_side single[2] = {{"a", 1, r + 1}, {"b", 1, r + 3}};
    CHECK(cm_compare(&out, single, 2, NULL, &conf, &err) && out.verdict == CM_VERDICT_FAIL);
    cm_comparison_free(&out);
    /* One seed on one side borrows the other's deviation. */
    cm_side lone[2] = {{"a", 3, r}, {"b", 1, r + 3}};
    CHECK(cm_compare(&out, lone, 2, NULL, &conf, &err));
    CHECK(out.verdict == CM_VERDICT_INCONCLUSIVE);
    CHECK(isnan(out.pair[0].metric[0].sd_cand));
    CHECKF(out.pair[0].n_notes && strstr(out.pair[0].note[out.pair[0].n_notes - 1], "b: one seed"),
           "%d notes", out.pair[0].n_notes);
    cm_comparison_free(&out);
    for (int k = 0; k < 5; k++) free_made(m[k]);
}
