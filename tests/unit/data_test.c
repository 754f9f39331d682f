/* data_test.c -- the order of rows and what is in them. */
#include "tests/train_fixture.h"

#include <stdlib.h>
#include <string.h>

enum { T = 32 };

static char *dir_of(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

TEST(order_is_a_permutation_of_every_length) {
    cm_rng r = cm_rng_make(3, CM_RNG_SHUFFLE, 0);
    static unsigned char seen[70000];
    for (uint64_t n = 1; n < 70000; n = n < 300 ? n + 1 : n * 3 + 1) {
        memset(seen, 0, sizeof seen);
        uint64_t doubles = 0;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t j = cm_permute(r, i, n);
            if (j >= n || seen[j]++) doubles++;
        }
        CHECKF(!doubles, "n = %llu: %llu values wrong or twice", (unsigned long long)n,
               (unsigned long long)doubles);
    }
}

TEST(order_looks_random_and_changes_with_seed_and_epoch) {
    enum { N = 1000 };
    int fixed = 0, neighbours = 0, same[2] = { 0 };
    cm_rng a = cm_rng_make(3, CM_RNG_SHUFFLE, 0);
    cm_rng other[2] = { cm_rng_make(3, CM_RNG_SHUFFLE, 1), cm_rng_make(4, CM_RNG_SHUFFLE, 0) };
    for (uint64_t i = 0; i < N; i++) {
        uint64_t j = cm_permute(a, i, N);
        fixed += i == j;
        neighbours += i && j == cm_permute(a, i - 1, N) + 1;
        for (int k = 0; k < 2; k++) same[k] += j == cm_permute(other[k], i, N);
    }
    /* Each count is Poisson with mean 1 for random permutations. */
    CHECKF(fixed < 10 && neighbours < 10, "%d fixed, %d neighbours", fixed, neighbours);
    CHECKF(same[0] < 10 && same[1] < 10, "%d, %d in common", same[0], same[1]);
}

/* ---- rows -------------------------------------------------------------------------- */

typedef struct {
    int32_t token[8 * T], target[8 * T], doc[8 * T], pos[8 * T];
    cm_rows rows;
} room;

static void open_room(room *m) {
    m->rows = (cm_rows){ T, m->token, m->target, m->doc, m->pos };
}

/* Where this row's tokens lie in the stream: the block whose tokens they are. */
static int64_t find_block(const cm_dataset *d, const int32_t *token, int64_t rows) {
    int32_t have[T];
    cm_err err;
    for (int64_t b = 0; b < rows; b++) {
        CHECK(cm_dataset_read(d, CM_SPLIT_TRAIN, b * T, T, have, NULL, &err));
        if (!memcmp(have, token, sizeof have)) return b;
    }
    return -1;
}

TEST(an_epoch_reads_every_block_once_with_the_next_token_as_target) {
    char *dir = dir_of("d1");
    fx_corpus(dir, 40, CM_SHARD_BOS | CM_SHARD_EOS);
    fx_job f;
    fx_open(&f, dir, NULL, NULL);
    cm_source *s = &f.train_rows;
    int64_t n = f.data.n_tokens[CM_SPLIT_TRAIN], boundaries = 0;
    CHECK(s->rows == (n - 1) / T);
    int *times = calloc((size_t)s->rows, sizeof *times);
    room m;
    open_room(&m);
    cm_err err;
    for (int64_t r = 0; r < s->rows; r++) {
        CHECKF(s->read(s->self, r, 1, &m.rows, &err), "%s", err.msg);
        int64_t b = find_block(&f.data, m.token, s->rows);
        CHECK(b >= 0);
        if (b >= 0) times[b]++;
        int32_t next[T];
        int64_t doc[T + 1];
        CHECK(cm_dataset_read(&f.data, CM_SPLIT_TRAIN, b * T, T, next, doc, &err));
        CHECK(cm_dataset_read(&f.data, CM_SPLIT_TRAIN, b * T + 1, T, next, doc + 1, &err));
        for (int t = 0; t < T; t++) {
            bool crosses = doc[t + 1] != doc[t];
            boundaries += crosses;
            CHECK(m.target[t] == (crosses ? -1 : next[t]));
            CHECK(!crosses || next[t] == FX_BOS);
            bool begins = t == 0 || m.token[t] == FX_BOS;
            CHECK(m.pos[t] == (begins ? 0 : m.pos[t - 1] + 1));
            CHECK(m.doc[t] == (t == 0 ? 0 : m.doc[t - 1] + begins));
        }
    }
    for (int64_t b = 0; b < s->rows; b++) CHECK(times[b] == 1);
    CHECK(boundaries > 20);
    free(times);
    fx_close(&f);
    free(dir);
}

TEST(rows_do_not_depend_on_how_many_are_read_together) {
    char *dir = dir_of("d2");
    fx_corpus(dir, 40, CM_SHARD_BOS | CM_SHARD_EOS);
    fx_job f;
    fx_open(&f, dir, NULL, NULL);
    static room all, one;
    open_room(&all);
    open_room(&one);
    cm_err err;
    /* Across the end of the first epoch. */
    int64_t from = f.train_rows.rows - 4;
    CHECK(f.train_rows.read(f.train_rows.self, from, 8, &all.rows, &err));
    for (int i = 0; i < 8; i++) {
        CHECK(f.train_rows.read(f.train_rows.self, from + i, 1, &one.rows, &err));
        CHECK(!memcmp(one.token, all.token + i * T, T * sizeof *one.token));
        CHECK(!memcmp(one.target, all.target + i * T, T * sizeof *one.target));
    }
    fx_close(&f);
    free(dir);
}

TEST(without_eos_or_reset_every_token_is_a_target) {
    for (int k = 0; k < 2; k++) {
        char *dir = dir_of(k ? "d3" : "d4");
        fx_corpus(dir, 40, k ? CM_SHARD_BOS : CM_SHARD_BOS | CM_SHARD_EOS);
        const char *words[] = { k ? "data.reset=true" : "data.reset=false", NULL };
        fx_job f;
        fx_open(&f, dir, NULL, words);
        static room m;
        open_room(&m);
        cm_err err;
        CHECK(f.train_rows.packed == (k == 1));
        CHECK(f.train_rows.read(f.train_rows.self, 0, 8, &m.rows, &err));
        for (int t = 0; t < 8 * T; t++) CHECK(m.target[t] >= 0);
        fx_close(&f);
        free(dir);
    }
}

TEST(unshuffled_rows_come_in_order) {
    char *dir = dir_of("d5");
    fx_corpus(dir, 40, CM_SHARD_BOS | CM_SHARD_EOS);
    fx_job f;
    fx_open(&f, dir, NULL, (const char *[]){ "data.shuffle=false", NULL });
    static room m;
    open_room(&m);
    cm_err err;
    for (int64_t r = 0; r < 5; r++) {
        CHECK(f.train_rows.read(f.train_rows.self, r, 1, &m.rows, &err));
        CHECK(find_block(&f.data, m.token, f.train_rows.rows) == r);
    }
    fx_close(&f);
    free(dir);
}

TEST(validation_takes_whole_documents_and_pads_the_last_row) {
    char *dir = dir_of("d6");
    fx_corpus(dir, 80, CM_SHARD_BOS | CM_SHARD_EOS);
    fx_job f;
    fx_open(&f, dir, NULL, (const char *[]){ "val.tokens=100", NULL });
    cm_err err;
    int64_t end = 0, bytes = 0, docs = 0, start, n, b;
    for (; end < 100; docs++) {
        CHECK(cm_dataset_doc(&f.data, CM_SPLIT_VAL, docs, &start, &n, &b, &err));
        end = start + n;
        bytes += b;
    }
    CHECK(f.val_rows.bytes == bytes && f.val_rows.rows == (end - 1 + T - 1) / T);
    static room m;
    open_room(&m);
    int64_t scored = 0;
    for (int64_t r = 0; r < f.val_rows.rows; r++) {
        CHECK(f.val_rows.read(f.val_rows.self, r, 1, &m.rows, &err));
        for (int t = 0; t < T; t++) {
            CHECK(m.token[t] >= 0 && m.token[t] < FX_VOCAB);
            scored += m.target[t] >= 0;
        }
    }
    /* All tokens but each document's first. */
    CHECKF(scored == end - docs, "%lld scored of %lld", (long long)scored, (long long)end);
    fx_close(&f);
    fx_open(&f, dir, NULL, (const char *[]){ "val.tokens=0", NULL });
    CHECK(f.val_rows.bytes == f.data.n_bytes[CM_SPLIT_VAL]);
    fx_close(&f);
    free(dir);
}

TEST(a_corpus_below_one_batch_is_refused) {
    char *dir = dir_of("d7");
    fx_corpus(dir, 2, CM_SHARD_BOS | CM_SHARD_EOS);
    cm_conf c;
    fx_conf(&c, (const char *[]){ "data.batch_tokens=25600", NULL });
    cm_dataset d;
    cm_lm l;
    cm_source s;
    cm_err err;
    CHECKF(cm_dataset_open(&d, dir, &err), "%s", err.msg);
    CHECK(!cm_lm_open(&l, &d, &c, &s, &err) && err.code == CM_EXIT_USAGE);
    CHECKF(strstr(err.msg, "batch"), "%s", err.msg);
    cm_dataset_close(&d);
    cm_conf_close(&c);
    free(dir);
}
