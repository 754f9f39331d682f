/* prompt_test.c -- prompts read from a file: the bits of reading them, and what is refused. */
#include "run/run.h"
#include "tests/unit/engine_fixture.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

enum { CAP = 2200, MORE = 12 };
static const char ID[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static int32_t text[2][CAP]; /* the second parts from the first at token 700 */

static void make_texts(void) {
    cm_rng r = cm_rng_make(23, CM_RNG_TEST, 0);
    for (int i = 0; i < CAP; i++)
        for (int k = 0; k < 2; k++)
            text[k][i] = (int32_t)cm_rng_below(r, (uint64_t)(i < 700 ? i : i + k * CAP), V);
}

/* Read, with the file or (NULL) without, and write a few tokens more. */
static cm_dtype type; /* of keys and values */

static int64_t read_and_write(const world *w, const char *path, const int32_t *from, int n,
                              cm_real *logits, int32_t *more) {
    const cm_sampling how = { .temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 3 };
    cm_err err, unkept;
    cm_decoder d;
    int64_t reused = 0;
    static int32_t id[CAP + MORE];
    memcpy(id, from, (size_t)n * sizeof *id);
    CM_ASSERT(cm_decoder_open(&d, &w->m, NULL, CAP + MORE, type, &err), "%s", err.msg);
    bool ok = path ? cm_decoder_read_cached(&d, id, n, path, ID, &reused, &unkept, &err)
                   : cm_decoder_read(&d, id, n, &err);
    CM_ASSERT(ok, "%s", err.msg);
    memcpy(logits, d.logits, V * sizeof *logits);
    for (int i = 0; i < MORE; i++)
        CM_ASSERT(cm_decoder_next(&d, &how, id, n + i, MORE, (uint64_t)i, &id[n + i], &err), "%s",
                  err.msg);
    memcpy(more, id + n, MORE * sizeof *more);
    cm_decoder_close(&d);
    return reused;
}

static void ask_to_stop(int sig) {
    (void)sig;
    raise(SIGTERM);
}

/* A request to stop comes after some microseconds of reading; whether it cut the reading short. */
static bool stopped_reading(cm_decoder *d, const char *path, suseconds_t after) {
    struct itimerval timer = { .it_value = { after / 1000000, after % 1000000 } };
    int64_t reused;
    cm_err err = { 0 }, unkept;
    cm_decoder_reset(d);
    cm_signals_install();
    signal(SIGALRM, ask_to_stop);
    setitimer(ITIMER_REAL, &timer, NULL);
    bool ok = path ? cm_decoder_read_cached(d, text[0], CAP, path, ID, &reused, &unkept, &err)
                   : cm_decoder_read(d, text[0], CAP, &err);
    setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
    cm_signals_release();
    CHECKF(ok || (cm_signal_ended(&err) && err.code == 128 + SIGTERM), "%s", err.msg);
    CHECK(d->ready == ok && (d->fed == CAP) == ok && d->fed == d->s.st.held[0]);
    return !ok && d->fed;
}

TEST(a_signal_ends_reading_between_parts) {
    world w;
    cm_err err;
    cm_decoder d;
    char *path = cm_strf("%s/stop.prompt", t_tmpdir());
    make_texts();
    threads(1);
    open_world(&w, 0, NULL);
    CM_ASSERT(cm_decoder_open(&d, &w.m, NULL, CAP, CM_F32_T, &err), "%s", err.msg);
    CHECK(cm_decoder_read(&d, text[0], CAP, &err));
    cm_real want[V];
    memcpy(want, d.logits, sizeof want);
    for (int way = 0; way < 2; way++) {
        bool cut = false;
        for (int k = 0; k < 60 && !cut; k++) {
            unlink(path);
            cut = stopped_reading(&d, way ? path : NULL, (suseconds_t)100 << k % 20);
        }
        CHECK(cut);
        CHECK(!cm_exists(path));
        /* What was read is no waste. */
        CHECK(cm_decoder_read(&d, text[0], CAP, &err) && d.fed == CAP);
        CHECK(!memcmp(want, d.logits, sizeof want));
    }
    cm_decoder_close(&d);
    close_world(&w);
    free(path);
}

TEST(a_text_from_a_file_is_the_text_itself) {
    static const struct { int text, n, reused; } step[] = {
        { 0, 1, 0 }, { 0, 1, 1 }, { 0, 255, 0 }, { 0, 256, 0 }, { 0, 300, 256 },
        { 0, 300, 300 }, { 0, 1100, 256 }, { 0, 900, 768 }, { 0, 1100, 1100 },
        { 1, 950, 512 }, { 1, 2050, 768 }, { 1, 2050, 2050 }, { 0, 2100, 512 },
        { 0, 512, 0 }, { 1, 600, 512 },
    };
    make_texts();
    threads(1);
    for (int way = 0; way < KINDS + 2; way++) { /* the hybrid with each type */
        int k = way < KINDS ? way : 0;
        world w;
        cm_err err;
        char *path = cm_strf("%s/%s.prompt", t_tmpdir(), kinds[k][0]);
        open_world(&w, k, way < KINDS ? NULL : "model.n_kv_heads=2");
        type = way < KINDS ? CM_F32_T : way == KINDS ? CM_F16_T : CM_Q8_0_T;
        for (size_t i = 0; i < sizeof step / sizeof *step; i++) {
            cm_real want[V], got[V];
            int32_t a[MORE], b[MORE];
            const int32_t *from = text[step[i].text];
            read_and_write(&w, NULL, from, step[i].n, want, a);
            int64_t reused = read_and_write(&w, path, from, step[i].n, got, b);
            CHECKF(reused == step[i].reused, "%s, step %zu: %lld tokens reused, wanted %d",
                   kinds[k][0], i, (long long)reused, step[i].reused);
            CHECKF(!memcmp(want, got, sizeof want) && !memcmp(a, b, sizeof a),
                   "%s, step %zu: other numbers", kinds[k][0], i);
        }
        CHECK(cm_exists(path) && cm_remove_tree(path, &err));
        free(path);
        close_world(&w);
    }
    type = CM_F32_T;
}

TEST(texts_in_a_folder) {
    world w;
    cm_real x[V];
    int32_t more[MORE];
    open_world(&w, 0, NULL);
    make_texts();
    char *dir = cm_strf("%s/folder", t_tmpdir());
    cm_err err;
    CM_ASSERT(cm_mkdirs(dir, &err), "%s", err.msg);
    CHECK(read_and_write(&w, dir, text[0], 600, x, more) == 0);
    CHECK(read_and_write(&w, dir, text[0] + 1, 600, x, more) == 0);
    CHECK(read_and_write(&w, dir, text[0], 600, x, more) == 600);
    CHECK(read_and_write(&w, dir, text[0] + 1, 800, x, more) == 512);
    CHECK(read_and_write(&w, dir, text[1], 800, x, more) == 512);
    free(dir);
    close_world(&w);
}

static void refused(const world *w, const char *path, const char *id, const char *why) {
    cm_err err, unkept;
    cm_decoder d;
    int64_t reused;
    CM_ASSERT(cm_decoder_open(&d, &w->m, NULL, 400, type, &err), "%s", err.msg);
    err.msg[0] = 0;
    CHECK(!cm_decoder_read_cached(&d, text[0], 300, path, id, &reused, &unkept, &err));
    CHECKF(err.code == CM_EXIT_DATA && strstr(err.msg, why) && strstr(err.msg, path),
           "wanted '%s', found '%s'", why, err.msg);
    cm_decoder_close(&d);
}

TEST(what_is_no_cache_of_this_model_is_refused) {
    world w, other;
    cm_err err;
    cm_real x[V];
    int32_t more[MORE];
    char *path = cm_strf("%s/refused.prompt", t_tmpdir()), *bytes, old;
    char id[65];
    size_t n;
    open_world(&w, 0, NULL);
    open_world(&other, 2, NULL);
    make_texts();
    read_and_write(&w, path, text[0], 300, x, more);
    CM_ASSERT(cm_read_file(path, 1 << 28, &bytes, &n, &err), "%s", err.msg);
    memcpy(id, ID, sizeof id);
    id[5]++;
    refused(&w, path, id, "of another model");
    refused(&other, path, ID, "states of other sizes");
    type = CM_F16_T;
    refused(&w, path, ID, "a prompt cache of f32 keys and values, generate.kv is f16");
    type = CM_F32_T;
    for (size_t cut = 0; cut < n; cut += cut < 700 ? 37 : n / 7) {
        CM_ASSERT(cm_write_file(path, bytes, cut, &err), "%s", err.msg);
        refused(&w, path, ID, "a prompt cache of");
    }
    for (size_t at = 0; at < n; at += at < 700 ? 11 : n / 41) {
        old = bytes[at];
        bytes[at] ^= 4;
        CM_ASSERT(cm_write_file(path, bytes, n, &err), "%s", err.msg);
        refused(&w, path, ID, "prompt cache");
        bytes[at] = old;
    }
    CM_ASSERT(cm_write_file(path, bytes, n, &err), "%s", err.msg);
    CHECK(read_and_write(&w, path, text[0], 300, x, more) == 300);
    free(bytes);
    free(path);
    close_world(&w);
    close_world(&other);
}

TEST(a_text_longer_than_the_session) {
    world w;
    cm_err err, unkept;
    cm_decoder d;
    int64_t reused;
    open_world(&w, 0, NULL);
    CM_ASSERT(cm_decoder_open(&d, &w.m, NULL, 20, CM_F32_T, &err), "%s", err.msg);
    char *path = cm_strf("%s/long.prompt", t_tmpdir());
    CHECK(!cm_decoder_read_cached(&d, text[0], 21, path, ID, &reused, &unkept, &err));
    CHECK(err.code == CM_EXIT_USAGE && !cm_exists(path));
    free(path);
    cm_decoder_close(&d);
    close_world(&w);
}
