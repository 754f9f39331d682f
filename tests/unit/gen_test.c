/* gen_test.c -- generation in lockstep: each text's tokens are those of the text alone,
 * whatever the batch, order and threads; and the choice among the largest logits. */
#include "tests/unit/engine_fixture.h"

#include <math.h>

enum { N = 14, LEN = 4 * Q, NEW = 20 };

typedef struct {
    cm_prompt p[N];
    int32_t token[N][LEN], out[N][NEW], want[N][NEW];
    int want_n[N], told[N];
    const int *order;
} set;

/* Prompts that share their first `same` tokens, then 1, 2, ... others of many lengths. */
static void fill(set *s, int same) {
    *s = (set){ 0 };
    for (int i = 0; i < N; i++) {
        cm_rng r = cm_rng_make(21, CM_RNG_TEST, (uint64_t)i);
        int n = same + 1 + i * 2;
        CM_ASSERT(n <= LEN, "a prompt of %d", n);
        for (int k = 0; k < n; k++)
            s->token[i][k] = k < same ? 3 * k % V : (int32_t)cm_rng_below(r, (uint64_t)k, V);
        s->p[i] = (cm_prompt){ s->token[i], n, i % 5 ? NEW - i : i % 2 * NEW,
                               (uint64_t)(100 + i), s->out[i], 0 };
    }
}

/* Texts end with a token below 3. */
static bool stop(void *ctx, int64_t i, const cm_prompt *p) {
    (void)ctx, (void)i;
    return p->out[p->n_out - 1] < 3;
}

static bool tell(void *ctx, int64_t i) {
    set *s = ctx;
    s->told[s->order[i]]++;
    return true;
}

static void alone(set *s, const cm_model *m, const cm_sampling *how) {
    cm_err err;
    for (int i = 0; i < N; i++) {
        CM_ASSERT(cm_generate(m, how, 1, &s->p[i], 1, stop, NULL, NULL, NULL, &err), "%s",
                  err.msg);
        s->want_n[i] = s->p[i].n_out;
        memcpy(s->want[i], s->out[i], sizeof s->out[i]);
    }
}

static void compare(set *s, const cm_model *m, const cm_sampling *how, int batch, int turn) {
    int order[N];
    cm_err err;
    cm_prompt p[N];
    memset(s->out, 0xff, sizeof s->out);
    memset(s->told, 0, sizeof s->told);
    for (int i = 0; i < N; i++) {
        order[i] = (i * 5 + turn) % N;
        p[i] = s->p[order[i]];
        p[i].n_out = -1;
    }
    s->order = order;
    CM_ASSERT(cm_generate(m, how, batch, p, N, stop, tell, s, NULL, &err), "%s", err.msg);
    for (int i = 0; i < N; i++) {
        int at = order[i], n = s->want_n[at];
        bool same = p[i].n_out == n && !memcmp(s->out[at], s->want[at], (size_t)n * 4);
        CHECKF(same, "prompt %d, batch %d, turn %d: other tokens", at, batch, turn);
        CHECKF(s->told[at] == 1, "prompt %d told %d times", at, s->told[at]);
    }
}

/* Greedy tokens are the likeliest by the scorer too, but for rounding. */
static void check_greedy(const set *s, const cm_model *m) {
    cm_err err;
    cm_scorer sc;
    CM_ASSERT(cm_scorer_open(&sc, m, LEN + NEW, &err), "%s", err.msg);
    for (int i = 0; i < N; i++) {
        int32_t text[LEN + NEW];
        int n = s->p[i].n;
        memcpy(text, s->token[i], (size_t)n * 4);
        memcpy(text + n, s->want[i], (size_t)s->want_n[i] * 4);
        cm_scorer_read(&sc, text, n + s->want_n[i]);
        for (int k = 0; k < s->want_n[i]; k++) {
            const cm_real *x = cm_scorer_logits(&sc, n + k - 1, 1);
            double behind = (double)(x[cm_argmax(x, V)] - x[s->want[i][k]]);
            CHECKF(behind < 1e-4, "prompt %d, token %d is %.3g below the likeliest", i, k,
                   behind);
        }
    }
    cm_scorer_close(&sc);
}

TEST(texts_depend_on_their_prompts_only) {
    static set s;
    const cm_sampling how[] = { { .temperature = 0, .top_p = 1, .repeat_penalty = 1 },
                                { .temperature = 1, .top_k = 20, .top_p = 0.95,
                                  .repeat_penalty = 1.2, .repeat_last = 8 } };
    for (int k = 0; k < 4 * KINDS; k++) {
        world w;
        threads(1);
        open_world(&w, k / 4, NULL);
        fill(&s, k % 2 * (Q + 5));
        alone(&s, &w.m, &how[k / 2 % 2]);
        if (k / 2 % 2 == 0) check_greedy(&s, &w.m);
        for (int b = 1; b <= 16; b *= 4) {
            threads(1 + (b == 4));
            compare(&s, &w.m, &how[k / 2 % 2], b, b);
        }
        int ended = 0;
        for (int i = 0; i < N; i++) ended += s.want_n[i] < s.p[i].max_new;
        CHECKF(ended > 0 || k / 2 % 2 == 0, "no text met its stop");
        close_world(&w);
    }
    threads(1);
}

TEST(shared_beginnings_are_read_once) {
    static set s;
    world w;
    cm_err err;
    cm_engine_count c = { 0 };
    cm_sampling how = { .temperature = 0, .top_p = 1, .repeat_penalty = 1 };
    open_world(&w, 0, NULL);
    fill(&s, 2 * Q + 3);
    CHECK(cm_generate(&w.m, &how, 4, s.p, N, NULL, NULL, NULL, &c, &err));
    int64_t asked = 0, read = 2 * Q;
    for (int i = 0; i < N; i++) {
        int steps = s.p[i].max_new ? s.p[i].max_new - 1 : 0;
        asked += s.p[i].n + steps;
        read += s.p[i].max_new ? s.p[i].n - 2 * Q + steps : 0;
    }
    CHECKF(c.requested == asked && c.computed == read,
           "asked for %lld tokens and read %lld, wanted %lld and %lld", (long long)c.requested,
           (long long)c.computed, (long long)asked, (long long)read);
    close_world(&w);
}

/* top_k leaves what putting all others at -infinity leaves, ties included. */
TEST(the_k_largest_logits) {
    enum { M = 300 };
    static cm_real x[M], y[M];
    void *work = malloc(cm_sample_work_bytes(M));
    for (int k = 1; k < M; k += 1 + k / 3) {
        for (int round = 0; round < 40; round++) {
            cm_rng r = cm_rng_make(31, CM_RNG_TEST, (uint64_t)(1000 * k + round));
            for (int i = 0; i < M; i++)
                x[i] = y[i] = (cm_real)cm_rng_below(r, (uint64_t)i, round % 2 ? 12 : 100000) /
                              (cm_real)(round % 2 ? 4 : 20000);
            for (int i = 0; i < M; i++) {
                int before = 0;
                for (int j = 0; j < M; j++) before += x[j] > x[i] || (x[j] == x[i] && j < i);
                if (before >= k) y[i] = (cm_real)-INFINITY;
            }
            cm_sampling how = { .temperature = 1.3, .top_k = k, .top_p = 1,
                                .repeat_penalty = 1, .seed = 4 };
            int a = cm_sample_token(&how, x, M, NULL, 0, (uint64_t)round, work);
            how.top_k = 0;
            int b = cm_sample_token(&how, y, M, NULL, 0, (uint64_t)round, work);
            CHECKF(a == b, "k %d: token %d, wanted %d", k, a, b);
        }
    }
    free(work);
}
