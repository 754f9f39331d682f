/* engine_test.c -- the scoring engine against cm_score on each request alone, bit for bit,
 * whatever the batch, order, threads and reuse; and its count of computed tokens against
 * a count of distinct beginnings. */
#include "tests/unit/engine_fixture.h"

enum { MAX_LEN = 6 * Q, MAX_REQ = 80 };

/* ---- requests ----------------------------------------------------------------------- */

typedef struct {
    int n;
    cm_request r[MAX_REQ];
    int32_t token[MAX_REQ][MAX_LEN];
    double logp[MAX_REQ][MAX_LEN], want[MAX_REQ][MAX_LEN];
    bool greedy[MAX_REQ][MAX_LEN], want_greedy[MAX_REQ][MAX_LEN];
    int told[MAX_REQ];
} set;

/* A text of n tokens, the first `same` of them those of text `like`. */
static void add(set *s, int like, int same, int n, int first) {
    CM_ASSERT(s->n < MAX_REQ && n <= MAX_LEN, "too many requests");
    int i = s->n++;
    cm_rng r = cm_rng_make(11, CM_RNG_TEST, (uint64_t)i);
    for (int k = 0; k < n; k++)
        s->token[i][k] = k < same ? s->token[like][k]
                                  : (int32_t)cm_rng_below(r, (uint64_t)k, V);
    s->r[i] = (cm_request){ s->token[i], n, first, s->logp[i], s->greedy[i] };
}

/* Every length to 3Q+5, sharing beginnings that end anywhere; multiples of Q, duplicates,
 * prefixes, nothing scored; and one long text with many endings. */
static void fill(set *s) {
    *s = (set){ 0 };
    cm_rng r = cm_rng_make(3, CM_RNG_TEST, 0);
    for (int n = 1; n <= 3 * Q + 5; n++) {
        int like = s->n ? (int)cm_rng_below(r, (uint64_t)(2 * n), (uint64_t)s->n) : 0;
        int most = s->n ? s->r[like].n : 0;
        if (most > n) most = n;
        int same = (int)cm_rng_below(r, (uint64_t)(2 * n + 1), (uint64_t)most + 1);
        add(s, like, same, n, 1 + (int)cm_rng_below(r, (uint64_t)(900 + n), (uint64_t)n));
    }
    add(s, 3 * Q, Q, 2 * Q, Q);             /* told apart exactly at Q */
    add(s, 3 * Q, Q + 1, 2 * Q, 1);
    add(s, 3 * Q, 2 * Q, 2 * Q, 1);         /* prefixes that end at multiples of Q */
    add(s, 3 * Q, 2 * Q + 1, 2 * Q + 1, 1);
    add(s, 3 * Q, 3 * Q, 3 * Q, Q);         /* the same text with another `first` */
    add(s, 3 * Q, 3 * Q + 1, 3 * Q + 1, 2 * Q);
    add(s, 3 * Q, 3 * Q + 1, 3 * Q + 1, 2 * Q);
    add(s, 3 * Q, 10, 20, 20);              /* nothing scored */
    add(s, 0, 0, 5 * Q + 3, 4 * Q);         /* a long text ... */
    int tall = s->n - 1;
    for (int k = 0; k < 8; k++) add(s, tall, 4 * Q + 3 + k, 5 * Q + k, 4 * Q + 1);
    add(s, tall, 4 * Q, 6 * Q, 4 * Q);
}

static void score_alone(set *s, const cm_model *m) {
    cm_err err;
    cm_scorer sc;
    CM_ASSERT(cm_scorer_open(&sc, m, MAX_LEN, &err), "%s", err.msg);
    for (int i = 0; i < s->n; i++) {
        const cm_request *r = &s->r[i];
        double nll[MAX_LEN];
        cm_score(&sc, r->token, r->n, r->first - 1, nll);
        for (int k = r->first; k < r->n; k++) {
            s->want[i][k - r->first] = -nll[k - 1];
            const cm_real *x = cm_scorer_logits(&sc, k - 1, 1);
            s->want_greedy[i][k - r->first] = cm_argmax(x, V) == r->token[k];
        }
    }
    cm_scorer_close(&sc);
}

/* Distinct beginnings among the tokens that have to be read. */
static int64_t nodes(const set *s, bool alone) {
    int64_t n = 0;
    for (int i = 0; i < s->n; i++) {
        for (int d = 0; s->r[i].first < s->r[i].n && d < s->r[i].n - 1; d++) {
            bool seen = false;
            for (int j = 0; j < i && !alone; j++)
                seen |= s->r[j].first < s->r[j].n && s->r[j].n - 1 > d &&
                        !memcmp(s->r[i].token, s->r[j].token, (size_t)(d + 1) * 4);
            n += !seen;
        }
    }
    return n;
}

typedef struct {
    set *s;
    const int *order;
} told;

static bool tell(void *ctx, int64_t i) {
    told *t = ctx;
    t->s->told[t->order ? t->order[i] : i]++;
    return true;
}

/* Score in the given order (NULL: as they are) and compare every bit. */
static bool same_bits(set *s, const cm_model *m, const cm_engine_conf *c, const int *order) {
    cm_err err;
    cm_request r[MAX_REQ];
    cm_engine_count count = { 0 };
    memset(s->logp, 0xff, sizeof s->logp);
    memset(s->greedy, 0, sizeof s->greedy);
    memset(s->told, 0, sizeof s->told);
    for (int i = 0; i < s->n; i++) r[i] = s->r[order ? order[i] : i];
    told t = { s, order };
    CM_ASSERT(cm_engine_score(m, c, r, s->n, tell, &t, &count, &err), "%s", err.msg);
    bool same = true;
    for (int i = 0; i < s->n; i++) {
        size_t k = (size_t)(s->r[i].n - s->r[i].first);
        bool ok = !memcmp(s->logp[i], s->want[i], k * sizeof(double)) &&
                  !memcmp(s->greedy[i], s->want_greedy[i], k * sizeof(bool));
        if (!ok && same)
            t_fail(__FILE__, __LINE__, "request %d: %d tokens from %d differ", i, s->r[i].n,
                   s->r[i].first);
        same &= ok;
        CHECKF(s->told[i] == 1, "request %d told %d times", i, s->told[i]);
    }
    CHECKF(count.computed == nodes(s, c->alone), "%lld tokens computed, the tree has %lld",
           (long long)count.computed, (long long)nodes(s, c->alone));
    CHECK(count.requested == nodes(s, true));
    return same;
}

static void shuffled(int n, uint64_t seed, int *order) {
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, 0);
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)cm_rng_below(r, (uint64_t)i, (uint64_t)i + 1), t = order[i];
        order[i] = order[j], order[j] = t;
    }
}

/* ---- tests -------------------------------------------------------------------------- */

TEST(the_bits_of_scoring_alone) {
    static set s;
    static const int batch[] = { 1, 4, 16, 0 };
    fill(&s);
    for (int k = 0; k < KINDS; k++) {
        world w;
        threads(1);
        open_world(&w, k, NULL);
        score_alone(&s, &w.m);
        for (int run = 0; run < 16; run++) {
            int order[MAX_REQ];
            shuffled(s.n, (uint64_t)run, order);
            threads(1 + run / 8);
            cm_engine_conf c = { .batch = batch[run % 4], .alone = run / 4 % 2 };
            if (!same_bits(&s, &w.m, &c, run ? order : NULL))
                t_fail(__FILE__, __LINE__, "%s: batch %d, alone %d, %d threads", kinds[k][0],
                       c.batch, c.alone, 1 + run / 8);
        }
        close_world(&w);
    }
    threads(1);
}

/* Batches cut in windows, few states at a time, windows of one chunk at a time. */
TEST(small_memory_changes_nothing) {
    static set s;
    fill(&s);
    for (int k = 0; k < KINDS; k++) {
        world w;
        threads(2);
        open_world(&w, k, NULL);
        score_alone(&s, &w.m);
        for (int rows = Q; rows <= 4 * Q; rows += Q / 2) {
            cm_engine_conf c = { .rows = rows, .state_gb = 1e-9 };
            if (!same_bits(&s, &w.m, &c, NULL))
                t_fail(__FILE__, __LINE__, "%s: %d rows", kinds[k][0], rows);
        }
        close_world(&w);
    }
    threads(1);
}

/* Chunks of other lengths: shorter than the convolution's reach, longer than any text. */
TEST(any_chunk_length) {
    static set s;
    static const char *const chunk[] = { "model.ssm_chunk=1", "model.ssm_chunk=2",
                                         "model.ssm_chunk=7", "model.ssm_chunk=200" };
    fill(&s);
    for (int i = 0; i < 4; i++) {
        world w;
        open_world(&w, 0, chunk[i]);
        score_alone(&s, &w.m);
        for (int b = 0; b < 2; b++)
            if (!same_bits(&s, &w.m, &(cm_engine_conf){ .batch = 3 * b }, NULL))
                t_fail(__FILE__, __LINE__, "%s", chunk[i]);
        close_world(&w);
    }
}

TEST(nothing_to_score) {
    static set s;
    world w;
    cm_err err;
    cm_engine_count count = { 0 };
    open_world(&w, 0, NULL);
    s = (set){ 0 };
    CHECK(cm_engine_score(&w.m, &(cm_engine_conf){ 0 }, NULL, 0, NULL, NULL, &count, &err));
    add(&s, 0, 0, 9, 9);
    told t = { &s, NULL };
    CHECK(cm_engine_score(&w.m, &(cm_engine_conf){ 0 }, s.r, 1, tell, &t, &count, &err));
    CHECK(s.told[0] == 1 && count.computed == 0 && count.requested == 0);
    close_world(&w);
}

typedef struct {
    int n, most;
} limit;

static bool stop_after(void *ctx, int64_t i) {
    limit *l = ctx;
    (void)i;
    return ++l->n < l->most;
}

TEST(stops_when_told) {
    static set s;
    world w;
    cm_err err;
    fill(&s);
    open_world(&w, 0, NULL);
    for (int most = 1; most < s.n; most += 7) {
        limit l = { 0, most };
        CHECK(cm_engine_score(&w.m, &(cm_engine_conf){ .batch = 2 }, s.r, s.n, stop_after,
                              &l, NULL, &err));
        CHECKF(l.n == most, "told %d times after asking to stop at %d", l.n, most);
    }
    close_world(&w);
}
