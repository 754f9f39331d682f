/* perf_test.c -- repeated measurements: read, refused, compared, told of. */
#include "tests/unit/compare_fixture.h"

/* ---- measurements ------------------------------------------ */

static bool read_text(cm_measures *m, const char *text, cm_err *err) {
    char *path = cm_strf("%s/perf.json", t_tmpdir());
    CHECK(cm_write_file(path, text, strlen(text), err));
    bool ok = cm_measures_read(m, path, err);
    free(path);
    return ok;
}

static cm_perf_cmp perf_with(const char *base, const char *cand, cm_verdict *overall) {
    made *a = counts("x", 9, 5, 0, 0);
    cm_measures ma, mb;
    cm_err err;
    CHECKF(read_text(&ma, base, &err), "%s", err.msg);
    CHECKF(read_text(&mb, cand, &err), "%s", err.msg);
    const cm_measures *perf[2] = {&ma, &mb};
    const cm_result *r[1] = {&a->r};
    cm_side side[2] = {{"a", 1, r}, {"b", 1, r}};
    cm_regress_conf conf = defaults();
    cm_comparison out;
    CHECKF(cm_compare(&out, side, 2, perf, &conf, &err), "%s", err.msg);
    cm_perf_cmp p = out.pair[0].perf[0];
    *overall = out.verdict;
    cm_comparison_free(&out);
    cm_measures_free(&ma), cm_measures_free(&mb);
    free_made(a);
    return p;
}

TEST(measurements) {
    const char *base = "{\"tok_per_s\":[100,101,99.5,100.2,99.8,100.4,99.1,100.9,100.3]}";
    const char *same = "{\"tok_per_s\":[100.1,100.7,99.6,100.25,99.7,100.5,99.2,101.1,99.9]}";
    const char *slow = "{\"tok_per_s\":[90.1,90.7,89.6,90.25,89.7,90.5,89.2,91.1,89.9]}";
    const char *few = "{\"tok_per_s\":[100.1,100.7,99.6,100.25]}";
    cm_verdict v;
    cm_perf_cmp p = perf_with(base, same, &v);
    CHECK(p.verdict == CM_VERDICT_PASS && v == CM_VERDICT_PASS && fabs(p.ratio - 1) < 0.01);
    p = perf_with(base, slow, &v);
    CHECK(p.verdict == CM_VERDICT_FAIL && v == CM_VERDICT_FAIL && p.hi < 0.95 && p.lo < p.ratio);
    CHECK(fabs(p.ratio - 0.9) < 0.01 && p.p < 0.001);
    p = perf_with(base, few, &v);
    CHECK(p.verdict == CM_VERDICT_INCONCLUSIVE && v == CM_VERDICT_INCONCLUSIVE);
    const char *one = "{\"x\":{\"better\":\"lower\",\"values\":"
                      "[1,1.01,1.02,1.03,1.04,1.05,1.06,1.07,1.08]}}";
    const char *two = "{\"x\":{\"better\":\"lower\",\"values\":"
                      "[2,2.01,2.02,2.03,2.04,2.05,2.06,2.07,2.08]}}";
    p = perf_with(one, two, &v);
    CHECK(p.verdict == CM_VERDICT_FAIL && !p.higher && p.ratio > 1.8);
    const struct {
        const char *text, *words;
    } bad[] = {
        {"[1,2]", "not a JSON object"},
        {"{\"tok_per_s\":3}", "is not a list"},
        {"{\"tok_per_s\":[1,-2]}", "measurement 2 is no number above 0"},
        {"{\"x\":[1]}", "say whether higher or lower"},
        {"{\"a_s\":[1],\"a_s\":[2]}", "occurs twice"},
        {"{\"a_s\":[1]", "not a JSON object"},
        {"{}", "not a JSON object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cm_measures m;
        cm_err err = {0};
        bool ok = read_text(&m, bad[i].text, &err);
        CHECKF(!ok && err.code == CM_EXIT_DATA && strstr(err.msg, bad[i].words), "%s: %s",
               bad[i].text, ok ? "accepted" : err.msg);
        if (ok) cm_measures_free(&m);
    }
}

static int mentions(const cm_pairing *p, const char *words) {
    int n = 0;
    for (int i = 0; i < p->n_notes; i++) n += strstr(p->note[i], words) != NULL;
    return n;
}

TEST(what_only_the_baseline_measured_is_said_once) {
    made *a = counts("x", 100, 60, 0, 0);
    const cm_result *r = &a->r;
    cm_side side[3] = {{"a", 1, &r}, {"b", 1, &r}, {"c", 1, &r}};
    cm_err err = {0};
    cm_measures m[2];
    CHECK(read_text(&m[0], "{\"tok_per_s\":[1,2],\"peak_bytes\":[3,4]}", &err));
    CHECK(read_text(&m[1], "{\"tok_per_s\":[1,2]}", &err));
    const cm_measures *perf[3] = {&m[0], NULL, &m[1]};
    cm_regress_conf conf = defaults();
    const char *gate[] = {"acc"}; /* what gates and was not measured is refused */
    conf.gate = (cm_list){1, gate};
    cm_comparison c;
    CHECK(cm_compare(&c, side, 3, perf, &conf, &err));
    CHECK(mentions(&c.pair[0], "'peak_bytes' was measured for the baseline only") == 1);
    CHECK(mentions(&c.pair[1], "'peak_bytes'") == 0);
    CHECK(mentions(&c.pair[0], "'tok_per_s' was not measured for this candidate") == 1);
    CHECK(mentions(&c.pair[1], "'tok_per_s'") == 0);
    cm_comparison_free(&c);
    cm_measures_free(&m[0]), cm_measures_free(&m[1]);
    free_made(a);
}

TEST(measurements_that_do_not_belong_together) {
    made *a = counts("x", 100, 60, 0, 0);
    const cm_result *r = &a->r;
    cm_side side[2] = {{"a", 1, &r}, {"b", 1, &r}};
    static const struct {
        const char *cand, *words;
    } bad[] = {
        {"{\"x\":{\"better\":\"higher\",\"values\":[1,2]},\"tok_per_s\":[1,2]}",
         "'x' is better lower in the first and higher in the second"},
        {"{\"tok_per_s\":[1,2]}", "the second lacks 'x'"},
    };
    for (int i = 0; i < 2; i++) {
        cm_measures m[2];
        cm_err err = {0};
        CHECK(read_text(&m[0], "{\"x\":{\"better\":\"lower\",\"values\":[1,2]}}", &err));
        CHECK(read_text(&m[1], bad[i].cand, &err));
        const cm_measures *perf[2] = {&m[0], &m[1]};
        cm_regress_conf conf = defaults();
        cm_comparison c;
        bool ok = cm_compare(&c, side, 2, perf, &conf, &err);
        CHECKF(!ok && err.code == CM_EXIT_DATA && strstr(err.msg, bad[i].words), "%d: %s", i,
               ok ? "a verdict" : err.msg);
        cm_measures_free(&m[0]), cm_measures_free(&m[1]);
    }
    free_made(a);
}
