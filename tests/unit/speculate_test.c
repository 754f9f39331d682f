/* speculate_test.c -- guesses change neither the text at temperature 0 nor the distribution
 * above it; a fault planted in either rule of the decoder is found out by the same test. */
#include "model/model.h"

/* The decoder itself, with two faults to be switched on: every guess is accepted; the place
 * of a rejected one is filled from p, not from what is left of it. */
static enum { NONE, ACCEPTS_ALL, FORGETS_REST } fault;
#define cm_guess_accepted(p, q, u) (fault == ACCEPTS_ALL || cm_guess_accepted(p, q, u))
#define cm_candidates_rest(c, n, q, y) \
    (fault == FORGETS_REST ? (n) : cm_candidates_rest(c, n, q, y))
#include "model/speculate.c"
#include "tests/unit/engine_fixture.h"

enum { CAP = 160, GUESSES = 5, LONG = 8 };

/* A model like another one, but for noise of this share in its matrices. */
static void make_draft(world *d, int kind, const char *more, const world *of, double noise) {
    open_world(d, kind, more);
    cm_rng r = cm_rng_make(77, CM_RNG_TEST, 0);
    for (int i = 0, at = 0; i < of->m.params.n; i++) {
        const cm_tensor *from = &of->m.params.p[i]->var.v;
        cm_real *to = cm_rdata(&d->m.params.p[i]->var.v);
        for (int64_t k = 0; k < cm_tensor_count(from); k++, at++)
            to[k] = cm_rdata(from)[k] * (cm_real)(1 + noise * cm_rng_normal(r, (uint64_t)at));
    }
}

static cm_dtype type; /* of keys and values */

static void open_decoder(cm_decoder *d, const world *w, const cm_guessing *how) {
    cm_err err;
    CM_ASSERT(cm_decoder_open(d, &w->m, how, CAP, type, &err), "%s", err.msg);
}

/* Add `more` tokens to text[n]. */
static void write_text(cm_decoder *d, const cm_sampling *how, int32_t *text, int n, int more) {
    cm_err err;
    for (int i = 0; i < more; i++)
        CM_ASSERT(cm_decoder_next(d, how, text, n + i, more - i, (uint64_t)i, &text[n + i], &err),
                  "%s", err.msg);
}

TEST(temperature_0_writes_the_same_text) {
    static const cm_sampling how[] = {
        { .top_p = 1, .repeat_penalty = 1 },
        { .top_p = 1, .repeat_penalty = 1.3, .repeat_last = 12 },
    };
    for (int k = 0; k < KINDS * 2 + 4; k++) { /* at the end: hybrid, experts, narrow caches */
        world w, draft;
        int kind = k / 2 % KINDS;
        const char *more = k / 2 < KINDS ? NULL : "model.n_kv_heads=2";
        type = k / 2 < KINDS ? CM_F32_T : k % 2 ? CM_F16_T : CM_Q8_0_T;
        const cm_sampling *s = &how[k % 2];
        int32_t plain[CAP] = { 1, 5, 9, 5 }, text[CAP] = { 1, 5, 9, 5 };
        int64_t accepted = 0, tested = 0;
        threads(1 + k % 2);
        open_world(&w, kind, more);
        make_draft(&draft, kind, more, &w, 0.5);
        cm_decoder d;
        open_decoder(&d, &w, NULL);
        write_text(&d, s, plain, 4, CAP - 4);
        CHECK(d.count.rounds == 0);
        cm_decoder_close(&d);
        for (int g = 0; g < 12; g++) {
            cm_guessing guess = { g % 3 ? &draft.m : NULL, g % 3 == 1 ? 0 : 1 + g / 6,
                                  1 + g * 2 / 3 };
            open_decoder(&d, &w, &guess);
            write_text(&d, s, text, 4, CAP - 4);
            CHECKF(!memcmp(plain, text, sizeof plain), "%s: other text, way %d",
                   kinds[kind][0], g);
            accepted += d.count.accepted, tested += d.count.tested;
            cm_decoder_reset(&d);
            write_text(&d, s, text, 4, 30);
            CHECK(!memcmp(plain, text, sizeof plain));
            cm_decoder_close(&d);
        }
        CHECKF(accepted > tested / 60 && accepted < tested, "%s: %lld of %lld accepted",
               kinds[kind][0], (long long)accepted, (long long)tested);
        close_world(&w);
        close_world(&draft);
    }
    type = CM_F32_T;
    threads(1);
}

/* A conversation: what was written is cut back, other tokens follow. */
TEST(a_text_may_go_on_otherwise) {
    const cm_sampling how = { .top_p = 1, .repeat_penalty = 1 };
    for (int k = 0; k < KINDS; k++) {
        world w, draft;
        cm_decoder plain, d;
        open_world(&w, k, NULL);
        make_draft(&draft, k, NULL, &w, 0.2);
        cm_guessing guess = { &draft.m, 2, GUESSES };
        open_decoder(&plain, &w, NULL);
        open_decoder(&d, &w, &guess);
        int32_t a[CAP] = { 1, 7, 3 }, b[CAP] = { 1, 7, 3 };
        for (int turn = 0, n = 3; turn < 12; turn++) {
            write_text(&plain, &how, a, n, 5 + turn % 4);
            write_text(&d, &how, b, n, 5 + turn % 4);
            n += 5 + turn % 4;
            CHECKF(!memcmp(a, b, (size_t)n * sizeof *a), "%s: turn %d", kinds[k][0], turn);
            a[n - 1] = b[n - 1] = 2;
            for (int i = 0; i < turn % 3; i++, n++) a[n] = b[n] = 11 + turn;
        }
        cm_decoder_close(&plain);
        cm_decoder_close(&d);
        close_world(&w);
        close_world(&draft);
    }
}

/* ---- distributions ------------------------------------------------------------------- */

typedef struct {
    int n;
    int64_t count[LONG][V];
} table;

/* Token counts by place of n texts, seeds from `seed` on. */
static void sample_texts(cm_decoder *d, cm_sampling how, uint64_t seed, int n, table *t) {
    *t = (table){ .n = n };
    for (int i = 0; i < n; i++) {
        int32_t text[LONG + 3] = { 1, 5, 9 };
        how.seed = seed + (uint64_t)i;
        cm_decoder_reset(d);
        write_text(d, &how, text, 3, LONG);
        for (int k = 0; k < LONG; k++) t->count[k][text[3 + k]]++;
    }
}

/* Chi-square of one place in two samples; cells that both seldom meet go together.  Upper
 * tail by Wilson and Hilferty, as a normal deviate. */
static double deviate(const table *a, const table *b, int place) {
    double x = 0, rare_a = 0, rare_b = 0, f = sqrt((double)b->n / (double)a->n);
    int cells = 0;
    for (int i = 0; i <= V; i++) {
        double p = i < V ? (double)a->count[place][i] : rare_a;
        double q = i < V ? (double)b->count[place][i] : rare_b;
        if (i < V && p + q < 20) rare_a += p, rare_b += q;
        else if (p + q > 0) x += (p * f - q / f) * (p * f - q / f) / (p + q), cells++;
    }
    double k = cells - 1;
    return k < 1 ? 0 : (cbrt(x / k) - (1 - 2 / (9 * k))) / sqrt(2 / (9 * k));
}

/* The largest of the LONG places' deviates. */
static double worst(const table *a, const table *b) {
    double z = -9;
    for (int k = 0; k < LONG; k++) {
        double d = deviate(a, b, k);
        if (d > z) z = d;
    }
    return z;
}

/* Fixed in advance: p = 0.001 over LONG places together (Bonferroni). */
static const double LIMIT = 3.66;
static const char PEAKED[] = "model.logit_scale=0.07";

static void compare_distributions(int kind, const cm_sampling *how, int ngram, int n) {
    static table plain, guessed;
    world w, draft;
    cm_decoder d;
    open_world(&w, kind, PEAKED);
    make_draft(&draft, kind, PEAKED, &w, 0.25);
    cm_guessing guess = { &draft.m, ngram, GUESSES };
    open_decoder(&d, &w, NULL);
    sample_texts(&d, *how, 1, n, &plain);
    cm_decoder_close(&d);
    for (fault = NONE; fault <= FORGETS_REST; fault++) {
        open_decoder(&d, &w, &guess);
        sample_texts(&d, *how, 1000001, fault ? n / 2 : n, &guessed);
        double rate = cm_guess_rate(&d.count), z = worst(&plain, &guessed);
        if (getenv("VERBOSE")) printf("rate %.3f z %.2f\n", rate, z);
        if (fault == NONE) CHECKF(rate > 0.2 && rate < 0.9, "%.3f accepted", rate);
        if (fault == NONE)
            CHECKF(z < LIMIT, "another distribution, deviate %.2f", z);
        else
            CHECKF(z > LIMIT, "fault %d not noticed, deviate %.2f", (int)fault, z);
        cm_decoder_close(&d);
    }
    fault = NONE;
    close_world(&w);
    close_world(&draft);
}

TEST(guesses_do_not_change_the_distribution) {
    const cm_sampling how = { .temperature = 1, .top_p = 1, .repeat_penalty = 1 };
    compare_distributions(0, &how, 0, 100000 / LONG);
}

TEST(nor_do_they_with_filters_and_ngrams) {
    const cm_sampling how = { .temperature = 0.8, .top_k = 24, .top_p = 0.95, .min_p = 0.02,
                              .repeat_penalty = 1.2, .repeat_last = 6 };
    compare_distributions(1, &how, 1, 80000 / LONG);
}
