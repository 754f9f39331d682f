/* prefer_test.c -- pairs that cannot be learned from are refused; what the alarms and metrics
 * are made of. */
#include "tests/t.h"
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { T = 64, PAIRS = 12 };
typedef enum { FINE, EQUAL, OTHER_PROMPT } trouble;

static void add_answer(cm_shard_out *o, int pair, int side, int end, trouble what) {
    bool bad = pair == 5 || pair == 9;
    int prompt = 3 + pair % 2, answer = 2 + pair % 3 + (what == EQUAL && bad ? 0 : side);
    int n = prompt + answer;
    for (int j = 0; j < n; j++) {
        int id = j == 0 ? 1 : j < prompt ? 260 + j : 270 + pair + (what == EQUAL ? 0 : side);
        if (what == OTHER_PROMPT && bad && side && j == 1) id = 269;
        if (j == n - 1) id = end;
        cm_doc_origin from = { 0, (uint64_t)pair + 1, 10, { (uint8_t)pair, (uint8_t)side } };
        cm_shard_out_add_masked(o, &id, 1, j < prompt ? 0 : 1, j == n - 1 ? &from : NULL);
    }
}

typedef struct {
    cm_conf conf;
    cm_dataset data;
    cm_spm *spm;
    cm_pack pack[2];
    cm_source rows[2];
    cm_dpo dpo;
    cm_err err;
    bool ok;
} bed;

static void make_set(const char *dir, cm_spm *spm, trouble what) {
    char *model = cm_strf("%s/tokenizer.model", dir);
    cm_err err;
    cm_chat chat;
    size_t n;
    const void *proto = cm_spm_proto(spm, &n);
    bool ok = cm_chat_open(&chat, spm, &err) && cm_mkdirs(dir, &err) &&
              cm_write_file(model, proto, n, &err);
    CM_ASSERT(ok, "%s", err.msg);
    cm_shard_conf c = { .kind = CM_SHARD_DPO, .vocab = cm_spm_vocab(spm), .bos = 1, .eos = 2,
                        .pad = -1, .flags = CM_SHARD_BOS, .frame_tokens = 64, .level = 3 };
    cm_sha_bytes(proto, n, c.tokenizer);
    cm_sha_bytes("", 0, c.pipeline);
    cm_shard_out *o = cm_shard_out_open(&c, CM_SPLIT_TRAIN, 0);
    for (int i = 0; i < 2 * PAIRS; i++) add_answer(o, i / 2, i % 2, chat.end, what);
    cm_shard_info info;
    const cm_shard_info *list[2] = { &info, NULL };
    ok = cm_shard_out_commit(o, dir, &info, &err) &&
         cm_manifest_write(dir, &c, "tokenizer.model", list, (int[]){ 1, 0 }, NULL, &err);
    CM_ASSERT(ok, "%s", err.msg);
    free(model);
}

static void bed_open(bed *b, const char *name, trouble what) {
    *b = (bed){ 0 };
    char *dir = cm_strf("%s/%s", t_tmpdir(), name);
    b->spm = cm_spm_open("tests/golden/chat/tokenizer.model", &b->err);
    CM_ASSERT(b->spm, "%s", b->err.msg);
    make_set(dir, b->spm, what);
    cm_conf_open(&b->conf, NULL);
    cm_conf_set(&b->conf, "data.seq_len=64");
    cm_conf_set(&b->conf, "data.batch_tokens=256");
    bool ok = cm_conf_check(&b->conf, &b->err) && cm_dataset_open(&b->data, dir, &b->err);
    for (int s = 0; ok && s < 2; s++)
        ok = cm_pack_open(&b->pack[s], &b->data, (cm_split)s, CM_SHARD_DPO, &b->conf, b->spm,
                          &b->rows[s], &b->err);
    CM_ASSERT(ok, "%s", b->err.msg);
    const cm_pack *const pack[2] = { &b->pack[0], &b->pack[1] };
    b->ok = cm_dpo_open(&b->dpo, &b->conf, pack, NULL, &b->err);
    free(dir);
}

static void bed_close(bed *b) {
    cm_dpo_close(&b->dpo);
    for (int s = 0; s < 2; s++) cm_pack_close(&b->pack[s]);
    cm_dataset_close(&b->data);
    cm_conf_close(&b->conf);
    cm_spm_close(b->spm);
}

static void refused(const char *name, trouble what, const char *says) {
    bed b;
    bed_open(&b, name, what);
    CHECKF(!b.ok && b.err.code == CM_EXIT_DATA && strstr(b.err.msg, says), "%s: %s", name,
           b.ok ? "accepted" : b.err.msg);
    bed_close(&b);
}

TEST(pairs_without_a_preference_are_refused) {
    bed b;
    bed_open(&b, "fine", FINE);
    CHECKF(b.ok, "%s", b.err.msg);
    bed_close(&b);
    refused("equal", EQUAL, "pair 5 of the train split (line:6): its chosen and its "
                            "rejected answer are the same tokens, and so in 2 pairs in all");
    refused("prompts", OTHER_PROMPT, "pair 5 of the train split (line:6): its two "
                                     "answers follow different prompts, and so in 2 pairs");
}

/* Every pair of a row: its places hold its own tokens, its numbers are right. */
TEST(pairs_are_found_in_their_rows) {
    bed b;
    bed_open(&b, "rows", FINE);
    int seen[PAIRS] = { 0 };
    int32_t buf[4][T];
    cm_rows r = { T, buf[0], buf[1], buf[2], buf[3] };
    cm_pair pair[PAIRS];
    int64_t unit[PAIRS];
    CHECK(b.rows[0].rows >= 2);
    for (int64_t row = 0; row < b.rows[0].rows; row++) {
        CHECK(b.rows[0].read(b.rows[0].self, row, 1, &r, &b.err));
        cm_batch batch = { .B = 1, .T = T, .token = r.token, .target = r.target,
                           .doc = r.doc, .pos = r.pos };
        int n = cm_pack_pairs(&b.pack[0], &batch, row, pair, unit);
        CHECK(n <= cm_pack_most(&b.pack[0], 1));
        for (int i = 0; i < n; i++) {
            int u = (int)unit[i];
            seen[u]++;
            for (int k = 0; k < 2; k++) {
                int answer = 2 + u % 3 + k, prompt = 3 + u % 2;
                CHECK(pair[i].n[k] == answer);
                CHECK(pair[i].to[k] - pair[i].from[k] == prompt + answer - 1);
                CHECK(r.target[pair[i].from[k] + prompt - 1] == 270 + u + k);
            }
        }
    }
    for (int u = 0; u < PAIRS; u++) CHECKF(seen[u] == 1, "pair %d came %d times", u, seen[u]);
    bed_close(&b);
}

/* Sums of n made-up pairs, as an alarm sees them. */
static cm_prefer_sums sums(int n, double drift, double by_length) {
    cm_prefer_sums s = { .n = n, .tokens = { 10.0 * n, 10.0 * n },
                         .drift = { drift * 10 * n, drift * 30 * n } };
    for (int i = 0; i < n; i++) {
        double d = i % 7 - 3, m = 1 + by_length * d + 0.3 * ((i * 5) % 11 - 5);
        s.m += m;
        s.mm += m * m;
        s.d += d;
        s.dd += d * d;
        s.md += m * d;
        s.uneven += d != 0;
        s.longer += d * m > 0;
    }
    return s;
}

static bool alarmed(bed *b, cm_prefer_sums s, const char *says) {
    bool stop = false;
    static cm_refs none[2];
    int before = cm_log_warnings();
    b->dpo.refs = none;
    b->dpo.sum = s;
    b->err = (cm_err){ 0 };
    cm_dpo_watch(&b->dpo, 7, &stop, &b->err);
    CHECK(!stop || b->err.code == CM_EXIT_CHECK);
    CHECKF(!stop || (says && strstr(b->err.msg, says)), "%s", b->err.msg);
    return cm_log_warnings() > before;
}

TEST(alarms_name_the_failure_once) {
    bed b;
    bed_open(&b, "alarms", FINE);
    CHECK(!alarmed(&b, sums(70, 0.1, 0), NULL));
    CHECK(!alarmed(&b, sums(70, -0.19, 0), NULL));
    CHECK(alarmed(&b, sums(70, -0.21, 0), NULL));
    CHECK(!alarmed(&b, sums(70, -0.3, 0), NULL)); /* told already */
    for (int i = 0; i < CM_CALM - 1; i++) CHECK(!alarmed(&b, sums(70, -0.1, 0), NULL));
    CHECK(!alarmed(&b, sums(70, -0.3, 0), NULL)); /* not over yet */
    for (int i = 0; i < CM_CALM; i++) CHECK(!alarmed(&b, sums(70, -0.1, 0), NULL));
    CHECK(alarmed(&b, sums(70, -0.3, 0), NULL)); /* it was over, and came back */
    CHECK(alarmed(&b, sums(70, 0, 1), NULL));
    for (int i = 0; i < CM_CALM; i++)
        CHECK(!alarmed(&b, sums(30, 0, -1), NULL)); /* too few to tell */
    CHECK(alarmed(&b, sums(70, 0, -1), NULL));
    b.conf.dpo.stop = true;
    alarmed(&b, sums(70, 0, 1), "step 7: length bias");
    CHECK(b.err.code == CM_EXIT_CHECK && strstr(b.err.msg, "to write more"));
    alarmed(&b, sums(70, 0, -1), "to write less");
    alarmed(&b, sums(70, -0.5, 0), "step 7: likelihood displacement");
    CHECK(b.err.code == CM_EXIT_CHECK);
    b.conf.dpo.displacement = b.conf.dpo.length_bias = 0;
    CHECK(!alarmed(&b, sums(70, -5, 1), NULL) && b.err.code == 0);
    bed_close(&b);
}

/* The first batch of a run that starts at the reference. */
static int warned_of(bed *b, double loss, bool from_reference) {
    static cm_refs none[2];
    cm_objective o = cm_dpo_objective(&b->dpo);
    int before = cm_log_warnings();
    cm_buf row = { 0 };
    o.begin(o.self, false);
    o.count(o.self, NULL, 0, 1);
    b->dpo.refs = none;
    b->dpo.from_reference = from_reference;
    b->dpo.sum = sums(4, 0, 0);
    b->dpo.sum.loss = 4 * loss;
    o.metrics(o.self, false, &row);
    cm_buf_free(&row);
    return cm_log_warnings() - before;
}

TEST(a_wrong_first_loss_is_told) {
    bed b;
    bed_open(&b, "first", FINE);
    CHECK(warned_of(&b, M_LN2, true) == 0);
    CHECK(warned_of(&b, M_LN2 + 0.9e-4, true) == 0);
    CHECK(warned_of(&b, M_LN2 + 1.1e-4, true) == 1);
    CHECK(warned_of(&b, 0.5, true) == 1);
    CHECK(warned_of(&b, NAN, true) == 1);
    CHECK(warned_of(&b, 0.5, false) == 0);
    b.dpo.how.label_smoothing = 0.3; /* still ln 2 */
    CHECK(warned_of(&b, M_LN2, true) == 0);
    b.dpo.how.loss = CM_PREFER_IPO;
    CHECK(warned_of(&b, 25, true) == 0);
    CHECK(warned_of(&b, 25.01, true) == 1);
    bed_close(&b);
}
