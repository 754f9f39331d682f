/* session_test.c -- tokens on trial: logits of single steps, exact return; snapshots. */
#include "tests/unit/engine_fixture.h"

#include <math.h>

enum { CAP = 200, MOST = 9 };

static int32_t text[CAP + 1];

static void make_text(void) {
    cm_rng r = cm_rng_make(17, CM_RNG_TEST, 0);
    for (int i = 0; i <= CAP; i++) text[i] = (int32_t)cm_rng_below(r, (uint64_t)i, V);
}

/* Every kind of model with every type of keys and values; q8_0 wants rows of 32 numbers. */
static const cm_dtype types[] = { CM_F32_T, CM_F16_T, CM_Q8_0_T };
enum { WAYS = 3 * KINDS };

static cm_dtype type; /* of sessions opened from now on */

static void open_way(world *w, int way) {
    type = types[way / KINDS];
    open_world(w, way % KINDS, type == CM_F32_T ? NULL : "model.n_kv_heads=2");
}

static void open_session(cm_session *s, const world *w, int most) {
    cm_err err;
    CM_ASSERT(cm_session_open_as(s, &w->m, CAP, type, &err), "%s", err.msg);
    CM_ASSERT(!most || cm_session_allow_trial(s, most, &err), "%s", err.msg);
}

/* A prompt at once, then single steps up to `end`; logits after each step [end-prompt,V]. */
static void plainly(cm_session *s, int prompt, int end, cm_real *logits) {
    cm_err err;
    cm_session_reset(s);
    CM_ASSERT(cm_session_feed(s, text, prompt, NULL, NULL, &err), "%s", err.msg);
    for (int i = prompt; i < end; i++)
        CM_ASSERT(cm_session_feed(s, text + i, 1, NULL,
                                  logits ? logits + (i - prompt) * V : NULL, &err),
                  "%s", err.msg);
}

/* What two sessions hold, bit by bit; NULL: the same. */
static const char *differ(const cm_session *a, const cm_session *b) {
    const cm_model_conf *c = &a->m->conf;
    cm_snapshot x = { 0 }, y = { 0 };
    cm_err err;
    if (a->st.held[0] != b->st.held[0]) return "tokens held";
    CM_ASSERT(cm_snapshot_take(&x, a, &err) && cm_snapshot_take(&y, b, &err), "%s", err.msg);
    const char *what = memcmp(x.data, y.data, x.bytes) ? "conv or SSM state" : NULL;
    size_t kv = (size_t)a->st.held[0] * cm_state_row_bytes(&a->st, c);
    for (int64_t i = 0; i < c->n_layers; i++) {
        if (!cm_layer_is_attention(c, i)) continue;
        if (memcmp(a->st.layer[i].kv.k, b->st.layer[i].kv.k, kv)) what = "keys";
        if (memcmp(a->st.layer[i].kv.v, b->st.layer[i].kv.v, kv)) what = "values";
    }
    free(x.data), free(y.data);
    return what;
}

/* n tokens on trial, in two calls if n > cut > 0. */
static void attempt(cm_session *s, const int32_t *token, int n, int cut, cm_real *all) {
    cm_err err;
    int first = cut > 0 && cut < n ? cut : n;
    CM_ASSERT(cm_session_try(s, token, first, all, &err), "%s", err.msg);
    if (first < n)
        CM_ASSERT(cm_session_try(s, token + first, n - first, all ? all + first * V : NULL,
                                 &err), "%s", err.msg);
}

TEST(tokens_on_trial_have_the_bits_of_single_steps) {
    static cm_real want[MOST * V], got[MOST * V];
    static const int prompts[] = { 1, 2, Q + 3, 64, 126 };
    make_text();
    for (int k = 0; k < WAYS * 2; k++) {
        world w;
        cm_session plain, tried;
        threads(1 + k % 2);
        const char *kind = kinds[k / 2 % KINDS][0];
        open_way(&w, k / 2);
        open_session(&plain, &w, 0);
        open_session(&tried, &w, MOST);
        for (int p = 0; p < 5; p++)
            for (int n = 1; n <= MOST; n++) {
                plainly(&plain, prompts[p], prompts[p] + n, want);
                plainly(&tried, prompts[p], prompts[p], NULL);
                attempt(&tried, text + prompts[p], n, n / 2, got);
                CHECKF(!memcmp(want, got, (size_t)(n * V) * sizeof *want),
                       "%s, %s: other logits, %d tokens after %d", kind, cm_kv_name(type),
                       n, prompts[p]);
                cm_session_keep(&tried, n);
                const char *what = differ(&plain, &tried);
                CHECKF(!what, "%s: other %s after %d of %d tokens", kind, what, n, n);
            }
        cm_session_close(&plain);
        cm_session_close(&tried);
        close_world(&w);
    }
    threads(1);
}

/* Logits of the last token are the same whether or not the others' are wanted, whose last
 * feed-forward nobody needs then. */
TEST(the_last_logits_do_not_need_the_others) {
    static cm_real all[100 * V], last[V];
    make_text();
    for (int k = 0; k < KINDS; k++)
        for (int n = 1; n <= 100; n += 33) {
            world w;
            cm_session s;
            cm_err err;
            threads(1);
            open_way(&w, k);
            open_session(&s, &w, 0);
            CHECK(cm_session_feed(&s, text, n, all, NULL, &err));
            cm_session_reset(&s);
            CHECK(cm_session_feed(&s, text, n, NULL, last, &err));
            CHECKF(!memcmp(all + (n - 1) * V, last, sizeof last), "%s: %d tokens", kinds[k][0], n);
            cm_session_close(&s);
            close_world(&w);
        }
}

/* Wrong tokens on trial leave nothing behind, wherever the first of them stands. */
TEST(what_is_not_kept_was_never_there) {
    static cm_real want[V], got[V];
    make_text();
    for (int k = 0; k < WAYS; k++) {
        world w;
        cm_session plain, tried;
        cm_err err;
        open_way(&w, k);
        open_session(&plain, &w, 0);
        open_session(&tried, &w, MOST);
        for (int keep = 0; keep <= MOST; keep++)
            for (int cut = 0; cut < 4; cut += 3) {
                int32_t draft[MOST];
                int at = Q + 2;
                for (int i = 0; i < MOST; i++)
                    draft[i] = i < keep ? text[at + i] : (text[at + i] + 1) % V;
                plainly(&plain, at, at + keep, NULL);
                plainly(&tried, at, at, NULL);
                attempt(&tried, draft, MOST, cut, NULL);
                cm_session_keep(&tried, keep);
                const char *what = differ(&plain, &tried);
                CHECKF(!what, "%s: other %s, %d kept", kinds[k % KINDS][0], what, keep);
                /* and on from there, by pieces, steps and trials */
                CM_ASSERT(cm_session_feed(&plain, text + 60, 20, NULL, want, &err) &&
                          cm_session_feed(&tried, text + 60, 20, NULL, got, &err), "%s",
                          err.msg);
                CHECK(!memcmp(want, got, sizeof want));
                attempt(&tried, text + 80, 5, 0, NULL);
                cm_session_keep(&tried, 2);
                for (int i = 80; i < 82; i++)
                    CM_ASSERT(cm_session_feed(&plain, text + i, 1, NULL, NULL, &err), "%s",
                              err.msg);
                CHECK(!differ(&plain, &tried));
            }
        cm_session_close(&plain);
        cm_session_close(&tried);
        close_world(&w);
    }
}

TEST(a_snapshot_leads_back) {
    static cm_real want[V], got[V];
    make_text();
    for (int k = 0; k < WAYS; k++) {
        world w;
        cm_session s, fresh;
        cm_snapshot snap = { 0 };
        cm_err err;
        open_way(&w, k);
        open_session(&s, &w, 0);
        open_session(&fresh, &w, 0);
        plainly(&s, 30, 33, NULL);
        plainly(&fresh, 30, 33, NULL);
        CHECK(cm_snapshot_take(&snap, &s, &err));
        CHECK(snap.held == 33 && snap.bytes == cm_snapshot_bytes(&w.m.conf));
        CM_ASSERT(cm_session_feed(&s, text + 90, 40, NULL, got, &err), "%s", err.msg);
        CHECK(differ(&s, &fresh) != NULL);
        cm_session_restore(&s, &snap);
        CHECK(!differ(&s, &fresh));
        CM_ASSERT(cm_session_feed(&s, text + 33, 1, NULL, got, &err) &&
                  cm_session_feed(&fresh, text + 33, 1, NULL, want, &err), "%s", err.msg);
        CHECK(!memcmp(want, got, sizeof want));
        free(snap.data);
        cm_session_close(&s);
        cm_session_close(&fresh);
        close_world(&w);
    }
}

TEST(a_trial_needs_room) {
    world w;
    cm_session s;
    cm_err err;
    make_text();
    open_way(&w, 0);
    open_session(&s, &w, MOST);
    plainly(&s, CAP - 3, CAP - 3, NULL);
    CHECK(!cm_session_try(&s, text, 4, NULL, &err) && err.code == CM_EXIT_USAGE);
    CHECK(cm_session_try(&s, text, 3, NULL, &err));
    cm_session_keep(&s, 0);
    CHECK(s.st.held[0] == CAP - 3);
    CHECK(!cm_session_try(&s, &(int32_t){ V }, 1, NULL, &err) && err.code == CM_EXIT_USAGE);
    cm_session_close(&s);
    close_world(&w);
}

/* Root mean square of a - b over that of a. */
static double apart(const cm_real *a, const cm_real *b, int n) {
    double d = 0, all = 0;
    for (int i = 0; i < n; i++) {
        d += pow((double)(a[i] - b[i]), 2);
        all += pow((double)a[i], 2);
    }
    return sqrt(d / all);
}

/* What a whole text's logits lose.  Rounding noise of a row of keys or values, of its root
 * mean square: for halves 2^-10 / sqrt 12 of a number's power of two, 2.0e-4; for blocks
 * d / sqrt 12 with d = 1/127 of the largest of 32, about 2.2 root mean squares, 5e-3.  It is
 * small, so it passes through a model linearly: the gain is the model's, the same for both
 * types to the scatter of a draw; up to three attention layers add their keys' and values'. */
TEST(narrow_keys_and_values_cost_little) {
    static cm_real want[CAP * V], got[CAP * V];
    static const double noise[] = { 0, 2.0e-4, 5e-3 };
    make_text();
    for (int k = 0; k < KINDS; k++) {
        double gain[3] = { 0 };
        for (int t = 1; t < 3; t++) {
            world w;
            cm_session s;
            cm_err err;
            open_world(&w, k, "model.n_kv_heads=2");
            for (int i = 0; i < 2; i++) {
                type = types[i ? t : 0];
                open_session(&s, &w, 0);
                CM_ASSERT(cm_session_feed(&s, text, CAP, i ? got : want, NULL, &err), "%s",
                          err.msg);
                cm_session_close(&s);
            }
            double d = apart(want, got, CAP * V);
            bool any = false; /* attention */
            for (int64_t i = 0; i < w.m.conf.n_layers; i++)
                any = any || cm_layer_is_attention(&w.m.conf, i);
            gain[t] = d / noise[t];
            CHECKF(any ? d > 0 && gain[t] < 5 : d == 0, "%s, %s: off by %.3g", kinds[k][0],
                   cm_kv_name(types[t]), d);
            close_world(&w);
        }
        CHECKF(fabs(gain[1] - gain[2]) <= 0.4 * gain[1], "%s: gains %.3g and %.3g", kinds[k][0],
               gain[1], gain[2]);
    }
}

TEST(bytes_of_keys_and_values) {
    world w;
    cm_session s;
    cm_err err;
    open_world(&w, 2, "model.n_kv_heads=2"); /* three layers of 2 x 16 */
    const cm_model_conf *c = &w.m.conf;
    size_t f32 = cm_state_bytes(c, 1, 128, CM_F32_T), f16 = cm_state_bytes(c, 1, 128, CM_F16_T);
    size_t q8 = cm_state_bytes(c, 1, 128, CM_Q8_0_T), rows = 3 * 2 * 128;
    CHECK(f32 - f16 == rows * 32 * (sizeof(cm_real) - 2) && f16 - q8 == rows * (64 - 34));
    close_world(&w);
    for (int k = 2; k < 4; k++) { /* rows of 16 numbers; no rows */
        open_world(&w, k, NULL);
        bool ok = cm_session_open_as(&s, &w.m, CAP, CM_Q8_0_T, &err);
        CHECK(ok == (k == 3));
        if (!ok) CHECK(err.code == CM_EXIT_USAGE && strstr(err.msg, "generate.kv: q8_0 stores "
                       "blocks of 32 numbers, but a token's keys in this model are 16"));
        cm_session_close(&s);
        close_world(&w);
    }
}
