/* win_rate_test.c -- rates of wins, ties one half: counts, grades, groups, seeds. */
#include "tests/unit/compare_fixture.h"

static bool near(double a, double b) { return fabs(a - b) <= 1e-12 * fmax(1, fabs(b)); }

/* The first metric of a comparison of two results. */
static cm_metric_cmp first_metric(const made *a, const made *b) {
    const cm_result *r[2] = {&a->r, &b->r};
    cm_side side[2] = {{"a", 1, &r[0]}, {"b", 1, &r[1]}};
    cm_regress_conf conf = defaults();
    cm_comparison out;
    cm_err err;
    CHECKF(cm_compare(&out, side, 2, NULL, &conf, &err), "%s", err.msg);
    cm_metric_cmp m = out.pair[0].metric[0];
    cm_comparison_free(&out);
    return m;
}

TEST(win_rates_with_ties_one_half) {
    made *a = counts("a", 400, 200, 0, 0), *b = counts("b", 400, 200, 60, 100);
    cm_metric_cmp m = first_metric(a, b);
    CHECK(near(m.win_rate, (100 + 0.5 * 240) / 400));
    cm_interval t = cm_tango(60, 100, 400, 0.95); /* of the losses */
    CHECKF(near(m.win_lo, (1 - t.hi) / 2) && near(m.win_hi, (1 - t.lo) / 2), "[%g, %g]", m.win_lo,
           m.win_hi);
    double se = sqrt(160 - 40.0 * 40 / 400) / 800; /* of a mean of 1, 1/2, 0 */
    CHECK(fabs(m.win_lo - (0.55 - 1.96 * se)) < 0.002);
    CHECK(fabs(m.win_hi - (0.55 + 1.96 * se)) < 0.002);
    m = first_metric(b, a); /* the other way around */
    CHECK(near(m.win_rate, 0.45) && near(m.win_lo, 1 - (1 - t.lo) / 2));
    free_made(a), free_made(b);
    /* Graded: wins of size do not count more. */
    static const double x[] = { 1, 2, 3, 4, 5 }, y[] = { 2, 2, 1, 5, 60 };
    a = new_result("a"), b = new_result("b");
    cm_column *c = add_task(a, "quiz", 5, 1, "margin"), *d = add_task(b, "quiz", 5, 1, "margin");
    for (int i = 0; i < 5; i++) c->v[i].num = x[i], d->v[i].num = y[i];
    m = first_metric(a, b); /* 1 1/2 0 1 1: mean 0.7, variance 0.2, t(4) = 2.776 */
    CHECK(near(m.win_rate, 0.7));
    CHECKF(fabs(m.win_lo - (0.7 - 2.7764451 * 0.2)) < 1e-6 && m.win_hi == 1, "[%.9g, %.9g]",
           m.win_lo, m.win_hi);
    free_made(a), free_made(b);
    /* Less is better, and items of one group are not independent. */
    a = new_result("a"), b = new_result("b");
    c = add_task(a, "quiz", 40, 4, "loop"), d = add_task(b, "quiz", 40, 4, "loop");
    for (int i = 0; i < 40; i++) c->v[i].num = i < 20, d->v[i].num = i < 8 || i >= 36;
    m = first_metric(a, b); /* 12 better, 4 worse, in whole groups */
    CHECK(near(m.win_rate, (12 + 0.5 * 24) / 40) && near(m.win_rate, (1 - m.diff) / 2));
    CHECK(near(m.win_lo, (1 - m.hi) / 2) && near(m.win_hi, fmin(1, (1 - m.lo) / 2)));
    CHECK(m.win_hi - m.win_lo > 2 * 1.96 * sqrt(16 - 64.0 / 40) / 80);
    free_made(a), free_made(b);
}

TEST(win_rates_over_seeds) {
    made *a = counts("a", 60, 30, 0, 0), *b = counts("b", 60, 30, 3, 9);
    made *c = counts("c", 60, 30, 2, 12);
    const cm_result *ra[] = {&a->r}, *rb[] = {&b->r, &c->r};
    cm_side side[2] = {{"a", 1, ra}, {"b", 2, rb}};
    cm_regress_conf conf = defaults();
    cm_comparison out;
    cm_err err;
    CHECKF(cm_compare(&out, side, 2, NULL, &conf, &err), "%s", err.msg);
    const cm_metric_cmp *m = &out.pair[0].metric[0];
    double one = (9 + 0.5 * 48) / 60, two = (12 + 0.5 * 46) / 60; /* each pair of seeds */
    CHECKF(near(m->win_rate, (one + two) / 2), "%.9g", m->win_rate);
    cm_comparison_free(&out);
    free_made(a), free_made(b), free_made(c);
}
