/* panel_test.c -- the panel's measures on answers written down, and each alarm planted. */
#include "panel/panel.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "stats/stats.h"

static cm_panel_text said(const int32_t *id, int64_t n, bool ended, bool formed) {
    return (cm_panel_text){ id, n, "abc", 3, ended, formed };
}

static void near(const char *what, double got, double want) {
    CHECKF(fabs(got - want) < 1e-12 || (isnan(got) && isnan(want)), "%s: %.15g, wanted %.15g",
           what, got, want);
}

TEST(measures_of_answers) {
    static const int32_t a[] = { 1, 2, 3 }, b[] = { 1, 2, 3 }, c[] = { 4 };
    static const int32_t d[] = { 5, 5, 5, 5, 5, 5 }, e[] = { 1, 2, 3, 4, 5 };
    const cm_panel_text t[] = { said(a, 3, true, true), said(b, 3, true, false),
                                said(c, 1, false, true), said(d, 6, true, true),
                                said(e, 5, true, true) };
    cm_panel_row r = cm_panel_measure(t, 3);
    near("distinct_1", r.v[CM_PANEL_DISTINCT_1], 4.0 / 7);
    near("distinct_2", r.v[CM_PANEL_DISTINCT_2], 2.0 / 4); /* 1 2, 2 3, twice; c has none */
    near("distinct_3", r.v[CM_PANEL_DISTINCT_3], 1.0 / 2);
    near("rep_4", r.v[CM_PANEL_REP_4], 0); /* nobody said four tokens */
    near("loop", r.v[CM_PANEL_LOOP], 0);
    near("length", r.v[CM_PANEL_LENGTH], 7.0 / 3);
    near("unended", r.v[CM_PANEL_UNENDED], 1.0 / 3);
    near("duplicates", r.v[CM_PANEL_DUPLICATES], 2.0 / 3);
    near("format", r.v[CM_PANEL_FORMAT], 2.0 / 3);
    for (int i = CM_PANEL_OF_TEXTS; i < CM_PANEL_N; i++)
        near(cm_panel_names[i], r.v[i], NAN);
    r = cm_panel_measure(t, 5);
    near("rep_4: 2 of 3 and 0 of 2", r.v[CM_PANEL_REP_4], (2.0 / 3 + 0) / 2);
    near("loop: the fives", r.v[CM_PANEL_LOOP], 1.0 / 5);
    near("distinct_1 of five", r.v[CM_PANEL_DISTINCT_1], 5.0 / 18);
    /* 12 23 | 12 23 | | 55 x 5 | 12 23 34 45: 12 23 55 34 45 of 13 */
    near("distinct_2 of five", r.v[CM_PANEL_DISTINCT_2], 5.0 / 13);
    CHECK(isnan(cm_panel_measure(t, 0).v[CM_PANEL_LENGTH]));
    const cm_panel_text none[] = { said(a, 0, true, false), said(b, 0, true, false) };
    r = cm_panel_measure(none, 2);
    near("nothing said: no words", r.v[CM_PANEL_DISTINCT_1], NAN);
    near("nothing said, twice the same", r.v[CM_PANEL_DUPLICATES], 1);
}

TEST(grams_do_not_cross_texts) {
    static const int32_t x[] = { 1, 2 }, y[] = { 3, 1 };
    const int32_t *const both[] = { x, y };
    near("pairs", cm_distinct_of(both, (int64_t[]){ 2, 2 }, 2, 2), 1); /* 12, 31; not 23 */
    near("triples", cm_distinct_of(both, (int64_t[]){ 2, 2 }, 2, 3), NAN);
}

/* The same diversity in answers twice as long, half as long: distinct-1 says otherwise. */
TEST(distinct_compares_at_equal_lengths) {
    enum { N = 20, LONG = 40 };
    static int32_t id[2][N][LONG];
    cm_panel_text a[N], ref[N];
    cm_rng r = cm_rng_make(3, 1, 0);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < LONG; j++)
            for (int k = 0; k < 2; k++)
                id[k][i][j] = (int32_t)(cm_rng_u64(r, (uint64_t)((k * N + i) * LONG + j)) % 200);
        a[i] = said(id[0][i], LONG, true, true);
        ref[i] = said(id[1][i], LONG / 4, true, true);
    }
    double whole = cm_panel_measure(a, N).v[CM_PANEL_DISTINCT_1] /
                   cm_panel_measure(ref, N).v[CM_PANEL_DISTINCT_1];
    CHECKF(whole < 0.5, "%g: four times as long, so fewer of them are new", whole);
    for (int k = 1; k <= 3; k++) {
        double d = cm_panel_distinct_of(a, ref, N, k), e = cm_panel_distinct_of(ref, a, N, k);
        CHECKF(fabs(d - 1) < 0.1 && fabs(d * e - 1) < 1e-12, "distinct-%d: %g, %g", k, d, e);
    }
    for (int i = 1; i < N; i++) a[i] = a[0];
    CHECK(cm_panel_distinct_of(a, ref, N, 1) < 0.15); /* collapse is seen at any length */
    a[0].n = ref[0].n = 1;
    CHECK(isnan(cm_panel_distinct_of(a, ref, 1, 2)));
}

TEST(comparisons_and_distributions) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, 1, &err), "%s", err.msg);
    const double l[] = { 3, 2, 1, 9 }, other[] = { 1, 2, 3, 1 };
    near("longer", cm_panel_longer(l, other, 4), 2.5 / 4);
    const double score[] = { 1, 0, 1, 0.5 }, start[] = { 0, 1, 1, 0.25 };
    near("wins", cm_panel_wins(score, start, 4), 2.5 / 4);
    const cm_real x[] = { (cm_real)log(0.5) + 3, (cm_real)log(0.25) + 3, (cm_real)log(0.25) + 3 };
    float own[3], flat[3] = { -(float)log(3), -(float)log(3), -(float)log(3) };
    double h, kl;
    cm_panel_dist(x, 3, own, NULL, &h, &kl);
    CHECKF(fabs(h - 1.5 * log(2)) < 1e-6 && isnan(kl), "entropy %.9g", h);
    cm_panel_dist(x, 3, own, flat, &h, &kl);
    CHECKF(fabs(kl - (log(3) - 1.5 * log(2))) < 1e-6, "kl %.9g", kl);
    float same[3];
    cm_panel_dist(x, 3, same, own, &h, &kl);
    CHECK(kl == 0); /* exactly: what did not change is 0 away */
}

/* ---- form ---------------------------------------------------------------------------- */

enum { SYS = 3, USER, BOT, END, THINK, UNTHINK, A = UNTHINK + 1 + 256, SPACE, VOCAB };
static cm_spm *handmade(void) {
    static const char *const text[] = { "<unk>", "<s>", "</s>", CM_CHAT_MARKERS };
    static char byte[256][8];
    const char *piece[VOCAB];
    size_t len[VOCAB];
    float score[VOCAB];
    int type[VOCAB];
    for (int i = 0; i < VOCAB; i++) {
        piece[i] = i <= UNTHINK ? text[i] : i == A ? "a" : "\xE2\x96\x81";
        type[i] = !i ? CM_PIECE_UNKNOWN : i <= UNTHINK ? CM_PIECE_CONTROL
                  : i < A ? CM_PIECE_BYTE : CM_PIECE_NORMAL;
        if (i > UNTHINK && i < A) {
            snprintf(byte[i - UNTHINK - 1], 8, "<0x%02X>", (unsigned)(i - UNTHINK - 1) & 255u);
            piece[i] = byte[i - UNTHINK - 1];
        }
        len[i] = strlen(piece[i]);
        score[i] = (float)-i;
    }
    cm_buf proto = { 0 };
    cm_err err;
    bool ok = cm_spm_build(piece, len, score, type, VOCAB, 1, 2, 0, -1, false, &proto, &err);
    cm_spm *s = ok ? cm_spm_open_bytes(proto.s, proto.n, &err) : NULL;
    CM_ASSERT(s, "no vocabulary: %s", err.msg);
    cm_buf_free(&proto);
    return s;
}

TEST(form_of_an_answer) {
    static const struct {
        int32_t id[6];
        int n;
        bool free, must; /* formed; formed where reasoning is wanted */
    } c[] = {
        { { A }, 1, true, false },
        { { THINK, A, UNTHINK, A }, 4, true, true },
        { { THINK, UNTHINK, A }, 3, true, true },
        { { THINK, A, A }, 3, false, false },          /* never closed */
        { { THINK, A, UNTHINK }, 3, false, false },    /* nothing behind it */
        { { THINK, A, UNTHINK, SPACE }, 4, false, false },
        { { A, THINK, A, UNTHINK, A }, 5, false, false }, /* not at the beginning */
        { { THINK, A, UNTHINK, A, UNTHINK }, 5, false, false },
        { { A, USER, A }, 3, false, false },           /* a stray marker */
        { { SPACE, SPACE }, 2, false, false },
        { { 0 }, 0, false, false },
    };
    cm_spm *spm = handmade();
    cm_chat chat;
    cm_err err;
    CHECK(cm_chat_open(&chat, spm, &err));
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        CHECKF(cm_panel_formed(&chat, spm, c[i].id, c[i].n, false) == c[i].free, "case %zu", i);
        CHECKF(cm_panel_formed(&chat, spm, c[i].id, c[i].n, true) == c[i].must, "case %zu", i);
    }
    cm_spm_close(spm);
}

/* ---- alarms -------------------------------------------------------------------------- */

static const struct {
    int measure;
    double planted;  /* where the healthy value does not alarm and this one does */
    const char *key, *says;
    bool dpo_only;
} planted[] = {
    { CM_PANEL_DISTINCT_1_REF, 0.2, "min_distinct_1", "0.2 times as many distinct tokens", false },
    { CM_PANEL_DISTINCT_2_REF, 0.49, "min_distinct_2", "made of the same words", false },
    { CM_PANEL_DISTINCT_3_REF, 0.1, "min_distinct_3", "triples", false },
    { CM_PANEL_DUPLICATES, 0.46, "max_duplicates", "46 % of the answers are the same", false },
    { CM_PANEL_REP_4, 0.31, "max_rep_4", "31 % of their 4-grams", false },
    { CM_PANEL_LOOP, 0.11, "max_loop", "11 % of the answers end in a loop", false },
    { CM_PANEL_UNENDED, 0.21, "max_unended", "21 % of the answers do not end", false },
    { CM_PANEL_FORMAT, 0.7, "min_format", "only 70 % of the answers keep the form", false },
    { CM_PANEL_LENGTH_REF, 0.4, "min_length", "0.4 times as long as the references", false },
    { CM_PANEL_LENGTH_REF, 2.5, "max_length", "2.5 times as long as the references", false },
    { CM_PANEL_LENGTH_START, 3, "max_drift", "3 times as long as the start model's", true },
    { CM_PANEL_LENGTH_START, 0.3, "max_drift", "0.3 times as long", true },
    { CM_PANEL_LONGER, 0.9, "max_longer", "length bias: 90 %", true },
    { CM_PANEL_ENTROPY, 0.004, "min_entropy", "sure of every next token", false },
    { CM_PANEL_NLL, 1.6, "max_overconfidence", "surer than it is right", false },
    { CM_PANEL_KL, 21, "max_kl", "21 nats a token away", false },
    { CM_PANEL_KL, 2.5, "max_kl_dpo", "2.5 nats a token away", true },
    { CM_PANEL_ACCURACY, 0.55, "max_accuracy_drop", "from the start model's 0.7 to 0.55", false },
    { CM_PANEL_WIN_RATE, 0.39, "min_win_rate", "win rate of 0.39", true },
};

static cm_panel_row healthy(void) {
    cm_panel_row r;
    static const double v[CM_PANEL_N] = { 0.5, 0.6, 0.7, 0.1, 0, 10, 0.1, 0.15, 0.9, 1, 1, 1, 1,
                                          1, 0.5, 0.5, 0.6, 0.1, 0.7, 0.5 };
    memcpy(r.v, v, sizeof v);
    return r;
}

enum { MANY = 1000000 }; /* answers: no chance left */
static int judged(const cm_conf *c, bool dpo, const cm_panel_row *now, const cm_panel_row *start,
                  int n, cm_panel_alarm *a) {
    cm_panel_row ref = healthy();
    return cm_panel_judge(&c->panel, &(cm_panel_view){ now, &ref, start, n, n, dpo }, a);
}

TEST(each_alarm_planted) {
    cm_conf c;
    cm_conf_open(&c, "panel");
    cm_panel_alarm a[CM_PANEL_N];
    cm_panel_row ok = healthy();
    CHECK(judged(&c, false, &ok, &ok, MANY, a) == 0);
    CHECK(judged(&c, true, &ok, &ok, MANY, a) == 0);
    for (size_t i = 0; i < sizeof planted / sizeof *planted; i++) {
        cm_panel_row now = ok;
        int m = planted[i].measure;
        now.v[m] = planted[i].planted;
        if (m == CM_PANEL_ENTROPY) now.v[CM_PANEL_NLL] = 0.1;
        int n = judged(&c, planted[i].dpo_only, &now, &ok, MANY, a);
        CHECKF(n == 1 && !a[0].from_start && a[0].measure == m && !strcmp(a[0].key, planted[i].key),
               "%s: %d alarms, %s", planted[i].key, n, n ? a[0].key : "none");
        CHECKF(n == 1 && strstr(a[0].text, planted[i].says) && strstr(a[0].text, planted[i].key),
               "%s: '%s'", planted[i].key, n ? a[0].text : "");
        if (planted[i].dpo_only)
            CHECK(judged(&c, false, &now, &ok, MANY, a) == 0);
        cm_err err;
        char *off = cm_strf("panel.%s=0", planted[i].key);
        cm_conf d;
        cm_conf_open(&d, "panel");
        cm_conf_set(&d, off);
        CHECKF(cm_conf_check(&d, &err), "%s", off);
        n = judged(&d, planted[i].dpo_only, &now, &ok, MANY, a);
        CHECKF(n == 0, "%s: %d alarms, %s", off, n, n ? a[0].text : "");
        cm_conf_close(&d);
        free(off);
        CHECKF(judged(&c, true, &now, &ok, CM_PANEL_FEW - 1, a) == 0, "%s: from %d answers",
               planted[i].key, CM_PANEL_FEW - 1);
        now.v[m] = NAN; /* not measured: nothing is said */
        CHECK(judged(&c, true, &now, &ok, MANY, a) == 0);
    }
    cm_conf_close(&c);
}

TEST(a_start_that_never_ends_has_no_length) {
    cm_conf c;
    cm_conf_open(&c, "panel");
    cm_panel_alarm a[CM_PANEL_N];
    cm_panel_row ok = healthy(), now = ok, start = ok;
    now.v[CM_PANEL_LENGTH_START] = 0.1;
    now.v[CM_PANEL_LONGER] = 0.99;
    start.v[CM_PANEL_UNENDED] = 0.9;
    CHECK(judged(&c, true, &now, &start, MANY, a) == 0);
    cm_conf_close(&c);
}

/* Training is not blamed for what the start model does, but for making it worse. */
TEST(what_the_start_model_does_is_no_alarm) {
    static const struct {
        int measure;
        double start, same, worse;
    } t[] = {
        { CM_PANEL_DISTINCT_2_REF, 0.3, 0.29, 0.1 },
        { CM_PANEL_DUPLICATES, 0.6, 0.65, 0.9 },
        { CM_PANEL_REP_4, 0.5, 0.52, 0.7 },       { CM_PANEL_LOOP, 0.5, 0.55, 0.8 },
        { CM_PANEL_UNENDED, 0.7, 0.75, 0.95 },    { CM_PANEL_FORMAT, 0.38, 0.35, 0.1 },
        { CM_PANEL_LENGTH_REF, 4, 4.1, 5 },       { CM_PANEL_LENGTH_REF, 0.4, 0.38, 0.2 },
        { CM_PANEL_NLL, 8.5, 8.6, 11 },
    };
    cm_conf c;
    cm_conf_open(&c, "panel");
    cm_panel_alarm a[CM_PANEL_N];
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        cm_panel_row start = healthy(), now = start;
        start.v[t[i].measure] = now.v[t[i].measure] = t[i].start;
        CHECK(judged(&c, false, &now, &start, 64, a) == 1 && a[0].from_start);
        CHECKF(strstr(a[0].text, "as it was before training"), "%s", a[0].text);
        now.v[t[i].measure] = t[i].same;
        CHECKF(judged(&c, false, &now, &start, 64, a) == 1 && a[0].from_start, "%s: %g -> %g",
               cm_panel_names[t[i].measure], t[i].start, t[i].same);
        now.v[t[i].measure] = t[i].worse;
        CHECKF(judged(&c, false, &now, &start, 64, a) == 1 && !a[0].from_start, "%s: %g -> %g",
               cm_panel_names[t[i].measure], t[i].start, t[i].worse);
    }
    cm_conf_close(&c);
}

/* The margin is that of a share of so few answers. */
TEST(chance_is_no_alarm) {
    cm_conf c;
    cm_conf_open(&c, "panel");
    cm_panel_alarm a[CM_PANEL_N];
    cm_panel_row start = healthy(), now = start;
    now.v[CM_PANEL_UNENDED] = 0.33; /* 0.2 + 1.645 sqrt(0.16 / 24) = 0.3343 */
    CHECK(judged(&c, false, &now, &start, 24, a) == 0);
    now.v[CM_PANEL_UNENDED] = 0.335;
    CHECK(judged(&c, false, &now, &start, 24, a) == 1);
    CHECKF(strstr(a[0].text, "[24 prompts]"), "%s", a[0].text);
    now = start;
    now.v[CM_PANEL_LONGER] = 1; /* 0.85 + 0.147 */
    CHECK(judged(&c, true, &now, &start, CM_PANEL_FEW, a) == 1);
    now.v[CM_PANEL_LONGER] = 0.96;
    CHECK(judged(&c, true, &now, &start, 24, a) == 0 && judged(&c, true, &now, &start, 64, a) == 1);
    cm_conf_close(&c);
}

/* Told once, again only after three healthy looks, in another process, too. */
TEST(alarms_do_not_flap) {
    const bool bad[] = { false, true, true, false, false, true, false, false, false, true };
    cm_run r = { .dir = (char *)(uintptr_t)t_tmpdir() };
    int out[2] = { 0, 0 }, told = 0, again[3] = { 7, 7, 7 };
    for (int64_t i = 0; i < 10; i++) {
        bool tell = cm_told(&out[1], bad[i], CM_CALM);
        CHECKF(tell == (i == 1 || i == 9), "look %d", (int)i);
        told += tell;
        cm_told_save(&r, "panel", 10 * i, out, 2);
    }
    CHECK(told == 2);
    cm_told_load(&r, "dpo", 100, again, 2);
    CHECK(again[1] == 7); /* another's */
    cm_told_load(&r, "panel", 70, again, 2); /* as after step 60 */
    CHECKF(again[0] == 0 && again[1] == 2, "%d %d", again[0], again[1]);
    again[1] = 7;
    cm_told_load(&r, "panel", 0, again, 2);
    CHECK(again[1] == 7); /* nothing before the first */
    cm_told_load(&r, "panel", 100, again, 3);
    CHECK(again[1] == 7); /* another version's measures */
}
