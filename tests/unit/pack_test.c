/* pack_test.c -- rows of packed conversations and pairs: nothing lost, nothing doubled,
 * targets where masks say so, and what is refused. */
#include "tests/t.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

enum { T = 64 };
static const char *const vocabulary = "tests/golden/chat/tokenizer.model";

static cm_spm *open_spm(void) {
    cm_err err;
    cm_spm *spm = cm_spm_open(vocabulary, &err);
    CM_ASSERT(spm, "%s", err.msg);
    return spm;
}

typedef enum { FINE, NO_TARGET, OPEN_END, UNTRAINED_END, LONG } trouble;

/* Tokens of document i; those that ask come first.  Of a pair both ask the same. */
static int length_of(int i, trouble what) {
    if (what == LONG && i == 6) return T + 2;
    return 7 + (int)cm_rng_below(cm_rng_make(3, CM_RNG_TEST, 0), (uint64_t)i, 25);
}
static int asks(int i) {
    return 2 + (int)cm_rng_below(cm_rng_make(4, CM_RNG_TEST, 0), (uint64_t)i, 3);
}

/* Its number, in a token that nothing else is. */
static int name_token(int i) { return 270 + i; }

static void add_doc(cm_shard_out *o, int i, int pair, int n, int end, trouble what) {
    bool bad = i == 4 || i == 7;
    for (int j = 0; j < n; j++) {
        int32_t id = j == 0 ? 1 : j < asks(pair) ? 260 + j : name_token(i);
        uint8_t mask = j < asks(pair) ? 0 : j == asks(pair) ? 2 : 1;
        if (j == n - 1) id = what == OPEN_END && bad ? name_token(i) : end;
        if (j == n - 1 && what == UNTRAINED_END && bad) mask = 0;
        if (what == NO_TARGET && bad) mask = 0;
        cm_doc_origin from = { 0, (uint64_t)i + 1, 10, { (uint8_t)i } };
        cm_shard_out_add_masked(o, &id, 1, mask, j == n - 1 ? &from : NULL);
    }
}

/* A data set of `docs` documents without validation split. */
static char *make_set(const char *name, cm_shard_kind kind, int docs, trouble what) {
    char *dir = cm_strf("%s/%s", t_tmpdir(), name);
    char *model = cm_strf("%s/tokenizer.model", dir);
    cm_err err;
    cm_spm *spm = open_spm();
    cm_chat chat;
    size_t n;
    const void *proto = cm_spm_proto(spm, &n);
    bool ok = cm_chat_open(&chat, spm, &err) && cm_mkdirs(dir, &err) &&
              cm_write_file(model, proto, n, &err);
    CM_ASSERT(ok, "%s", err.msg);
    cm_shard_conf c = { .kind = kind, .vocab = cm_spm_vocab(spm), .bos = 1, .eos = 2,
                        .pad = -1, .flags = CM_SHARD_BOS, .frame_tokens = 64, .level = 3 };
    cm_sha_bytes(proto, n, c.tokenizer);
    cm_sha_bytes("", 0, c.pipeline);
    cm_shard_out *o = cm_shard_out_open(&c, CM_SPLIT_TRAIN, 0);
    for (int i = 0; i < docs; i++)
        add_doc(o, i, kind == CM_SHARD_DPO ? i / 2 : i, length_of(i, what), chat.end, what);
    cm_shard_info info;
    const cm_shard_info *list[2] = { &info, NULL };
    ok = cm_shard_out_commit(o, dir, &info, &err) &&
         cm_manifest_write(dir, &c, "tokenizer.model", list, (int[]){ 1, 0 }, NULL, &err);
    CHECKF(ok, "%s", err.msg);
    cm_spm_close(spm);
    free(model);
    return dir;
}

typedef struct {
    cm_conf conf;
    cm_dataset data;
    cm_spm *spm;
    cm_pack pack;
    cm_source rows;
    cm_err err;
    bool ok;
} bed;

static void bed_open(bed *b, char *dir, cm_shard_kind kind, const char *word) {
    *b = (bed){ .spm = open_spm() };
    cm_conf_open(&b->conf, NULL);
    cm_conf_set(&b->conf, "data.seq_len=64");
    if (word) cm_conf_set(&b->conf, word);
    CM_ASSERT(cm_conf_check(&b->conf, &b->err), "%s", b->err.msg);
    CM_ASSERT(cm_dataset_open(&b->data, dir, &b->err), "%s", b->err.msg);
    b->ok = cm_pack_open(&b->pack, &b->data, CM_SPLIT_TRAIN, kind, &b->conf, b->spm,
                         &b->rows, &b->err);
    free(dir);
}

static void bed_close(bed *b) {
    cm_pack_close(&b->pack);
    cm_dataset_close(&b->data);
    cm_conf_close(&b->conf);
    cm_spm_close(b->spm);
}

static cm_rows buffers(int n) {
    size_t bytes = (size_t)n * T * sizeof(int32_t);
    cm_rows r = { T, malloc(bytes), malloc(bytes), malloc(bytes), malloc(bytes) };
    CM_ASSERT(r.token && r.target && r.doc && r.pos, "out of memory");
    return r;
}

static void free_buffers(cm_rows *r) {
    free(r->token);
    free(r->target);
    free(r->doc);
    free(r->pos);
}

/* One row against the documents it says it holds. */
static void check_row(bed *b, const cm_rows *r, int64_t row, int *seen) {
    const int64_t *unit;
    int64_t n = cm_pack_units(&b->pack, row, &unit);
    int at = 0, number = 0;
    for (int64_t k = 0; k < n; k++)
        for (int d = 0; d < b->pack.docs; d++, number++) {
            int i = (int)unit[k] * b->pack.docs + d, len = length_of(i, FINE);
            int first = asks(b->pack.docs == 2 ? i / 2 : i);
            seen[i]++;
            for (int j = 0; j < len - 1; j++, at++) {
                bool name = j >= first;
                CHECK(r->doc[at] == number && r->pos[at] == j);
                CHECK(!name || r->token[at] == name_token(i));
                int want = j + 1 < first ? -1 : j + 1 == len - 1 ? b->pack.end
                                                                : name_token(i);
                CHECKF(r->target[at] == want, "document %d, token %d: target %d, wanted %d",
                       i, j, r->target[at], want);
            }
        }
    for (; at < T; at++) CHECK(r->target[at] == -1 && r->doc[at] == number);
}

static void check_set(cm_shard_kind kind, int docs) {
    bed b;
    bed_open(&b, make_set(kind == CM_SHARD_DPO ? "dpo" : "sft", kind, docs, FINE), kind, NULL);
    CHECKF(b.ok, "%s", b.err.msg);
    int *seen = calloc((size_t)docs, sizeof *seen), places = 0;
    CM_ASSERT(seen, "out of memory");
    cm_rows r = buffers(1);
    CHECK(b.rows.rows == b.pack.rows && b.pack.units == docs / b.pack.docs);
    for (int epoch = 1; epoch <= 3; epoch++) {
        for (int64_t row = 0; row < b.rows.rows; row++) {
            int64_t at = (epoch - 1) * b.rows.rows + row;
            CHECKF(b.rows.read(b.rows.self, at, 1, &r, &b.err), "%s", b.err.msg);
            check_row(&b, &r, at, seen);
        }
        for (int i = 0; i < docs; i++)
            CHECKF(seen[i] == epoch, "document %d came %d times in %d epochs", i, seen[i],
                   epoch);
    }
    for (int i = 0; i < docs; i++) places += length_of(i, FINE) - 1;
    double full = (double)places / ((double)b.rows.rows * T);
    printf("  %d documents in %d rows, %.1f%% full\n", docs, (int)b.rows.rows, 100 * full);
    CHECKF(full > (kind == CM_SHARD_DPO ? 0.8 : 0.9), /* pairs are large pieces */
           "rows are %.2f full", full);
    free_buffers(&r);
    free(seen);
    bed_close(&b);
}

TEST(every_conversation_once_an_epoch) { check_set(CM_SHARD_SFT, 100); }
TEST(both_answers_of_a_pair_in_one_row) { check_set(CM_SHARD_DPO, 30); }

TEST(rows_are_a_function_of_their_number) {
    bed b;
    bed_open(&b, make_set("fn", CM_SHARD_SFT, 100, FINE), CM_SHARD_SFT, NULL);
    enum { N = 9 };
    cm_rows all = buffers(N), one = buffers(1);
    CHECK(b.rows.read(b.rows.self, 5, N, &all, &b.err));
    for (int i = N - 1; i >= 0; i--) {
        CHECK(b.rows.read(b.rows.self, 5 + i, 1, &one, &b.err));
        CHECK(!memcmp(one.token, all.token + i * T, T * 4) &&
              !memcmp(one.target, all.target + i * T, T * 4) &&
              !memcmp(one.doc, all.doc + i * T, T * 4));
    }
    CHECK(b.rows.read(b.rows.self, 0, 1, &all, &b.err) &&
          b.rows.read(b.rows.self, b.rows.rows, 1, &one, &b.err));
    CHECK(memcmp(one.token, all.token, T * 4) != 0); /* another order each epoch */
    free_buffers(&all);
    free_buffers(&one);
    bed_close(&b);
}

/* Targets of an epoch under sft.train_on. */
static int64_t targets(const char *word) {
    bed b;
    int64_t n = 0;
    bed_open(&b, make_set(word + 13, CM_SHARD_SFT, 40, FINE), CM_SHARD_SFT, word);
    CHECKF(b.ok, "%s: %s", word, b.err.msg);
    cm_rows r = buffers(1);
    for (int64_t row = 0; row < b.rows.rows; row++) {
        CHECK(b.rows.read(b.rows.self, row, 1, &r, &b.err));
        for (int t = 0; t < T; t++) n += r.target[t] >= 0;
    }
    free_buffers(&r);
    bed_close(&b);
    return n;
}

TEST(reasoning_and_answers_can_be_told_apart) {
    int64_t all = targets("sft.train_on=all"), answer = targets("sft.train_on=answer");
    int64_t reasoning = targets("sft.train_on=reasoning");
    CHECK(reasoning == 40 && answer > reasoning && all == answer + reasoning);
}

static void refused(const char *name, trouble what, cm_exit code, const char *says) {
    bed b;
    bed_open(&b, make_set(name, CM_SHARD_SFT, 20, what), CM_SHARD_SFT, NULL);
    CHECKF(!b.ok && b.err.code == code && strstr(b.err.msg, says), "%s: %s", name,
           b.ok ? "accepted" : b.err.msg);
    bed_close(&b);
}

TEST(what_would_train_silently_wrong_is_refused) {
    refused("none", NO_TARGET, CM_EXIT_DATA,
            "conversation 4 of the train split (line:5) has no token to learn; so have 2 in all");
    refused("open", OPEN_END, CM_EXIT_DATA,
            "conversation 4 of the train split (line:5) does not end in a trained "
            "<|end|>, and so 2 in all");
    refused("unend", UNTRAINED_END, CM_EXIT_DATA, "does not end in a trained <|end|>");
    refused("long", LONG, CM_EXIT_USAGE,
            "conversation 6 of the train split (line:7) takes 65 tokens, a row has "
            "64 (data.seq_len)");
    bed b;
    bed_open(&b, make_set("kind", CM_SHARD_DPO, 20, FINE), CM_SHARD_SFT, NULL);
    CHECK(!b.ok && b.err.code == CM_EXIT_DATA &&
          strstr(b.err.msg, "hold preferences, wanted conversations"));
    bed_close(&b);
}

TEST(the_overlong_can_be_left_out) {
    bed b;
    bed_open(&b, make_set("drop", CM_SHARD_SFT, 20, LONG), CM_SHARD_SFT,
             "post.overlong=drop");
    CHECKF(b.ok, "%s", b.err.msg);
    CHECK(b.pack.units == 19 && b.pack.dropped == 1 && cm_log_warnings() > 0);
    bed_close(&b);
}

TEST(epochs_become_tokens) {
    bed b;
    bed_open(&b, make_set("epochs", CM_SHARD_SFT, 100, FINE), CM_SHARD_SFT, NULL);
    b.conf.data.batch_tokens = 4 * T;
    b.conf.sched.epochs = 2;
    cm_sched_epochs(&b.conf, &b.rows);
    int64_t steps = b.conf.sched.tokens / (4 * T);
    CHECK(b.conf.sched.tokens % (4 * T) == 0 && steps * 4 >= 2 * b.rows.rows &&
          (steps - 1) * 4 < 2 * b.rows.rows);
    bed_close(&b);
}
