/* shard_test.c -- token shards: what goes in comes out, whatever is damaged is noticed. */
#include "io/io.h"
#include "io/shard_int.h"
#include "tests/t.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

enum { VOCAB = 1000, FRAME = 64, DOCS = 40, SHARDS = 3 };

/* Document i of shard k: BOS, i-dependent tokens, EOS. */
static int make_doc(int vocab, int k, int i, int32_t *id) {
    cm_rng r = cm_rng_make(7, CM_RNG_TEST, (uint64_t)(k * DOCS + i));
    int n = 3 + (int)cm_rng_below(r, 0, 50);
    id[0] = 1;
    for (int j = 1; j < n - 1; j++)
        id[j] = 3 + (int32_t)cm_rng_below(r, (uint64_t)j, (uint64_t)vocab - 3);
    id[n - 1] = 2;
    return n;
}

static cm_doc_origin origin(int k, int i) {
    cm_doc_origin o = { (uint32_t)k, (uint64_t)(10 * i + 1), (uint64_t)(100 + i), { 0 } };
    o.hash[0] = (uint8_t)i;
    o.hash[1] = (uint8_t)k;
    return o;
}

static cm_shard_conf conf(int vocab) {
    cm_shard_conf c = { .kind = CM_SHARD_LM, .vocab = vocab, .bos = 1, .eos = 2, .pad = -1,
                        .flags = CM_SHARD_BOS | CM_SHARD_EOS, .frame_tokens = FRAME,
                        .level = 3 };
    cm_sha_bytes("model", 5, c.tokenizer);
    cm_sha_bytes("recipe", 6, c.pipeline);
    return c;
}

static bool make_shard(const cm_shard_conf *c, const char *dir, cm_split sp, int index, int k,
                       cm_shard_info *info, cm_err *err) {
    int32_t id[64];
    cm_shard_out *o = cm_shard_out_open(c, sp, index);
    for (int i = 0; i < DOCS; i++) {
        int n = make_doc(c->vocab, k, i, id);
        cm_doc_origin from = origin(k, i);
        cm_shard_out_add(o, id, n / 2, NULL); /* in two parts */
        cm_shard_out_add(o, id + n / 2, n - n / 2, &from);
    }
    return cm_shard_out_commit(o, dir, info, err);
}

/* Two training shards and one validation shard under t_tmpdir()/name. */
static char *make_set(const char *name, int vocab) {
    char *dir = cm_strf("%s/%s", t_tmpdir(), name);
    cm_err err;
    cm_shard_conf c = conf(vocab);
    cm_shard_info train[2], val[1];
    char *model = cm_strf("%s/tokenizer.model", dir);
    bool ok = cm_mkdirs(dir, &err) && cm_write_file(model, "model", 5, &err) &&
              make_shard(&c, dir, CM_SPLIT_TRAIN, 0, 0, &train[0], &err) &&
              make_shard(&c, dir, CM_SPLIT_TRAIN, 1, 1, &train[1], &err) &&
              make_shard(&c, dir, CM_SPLIT_VAL, 0, 2, &val[0], &err);
    const cm_shard_info *info[2] = { train, val };
    ok = ok && cm_manifest_write(dir, &c, "tokenizer.model", info, (int[]){ 2, 1 },
                                 "\"extra\": 1", &err);
    CHECKF(ok, "%s", err.msg);
    free(model);
    return dir;
}

/* All tokens and document numbers that split `sp` should hold. */
static int64_t expect(int vocab, cm_split sp, int32_t *id, int64_t *doc) {
    int64_t n = 0, d = 0;
    for (int k = sp ? 2 : 0; k < (sp ? 3 : 2); k++)
        for (int i = 0; i < DOCS; i++, d++) {
            int len = make_doc(vocab, k, i, id + n);
            for (int j = 0; j < len; j++) doc[n + j] = d;
            n += len;
        }
    return n;
}

static void check_reads(int vocab, const char *name) {
    char *dir = make_set(name, vocab);
    cm_dataset d;
    cm_err err;
    bool ok = cm_dataset_open(&d, dir, &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok) return;
    static int32_t want[16384], got[16384];
    static int64_t wdoc[16384], gdoc[16384];
    for (int sp = 0; sp < 2; sp++) {
        int64_t n = expect(vocab, (cm_split)sp, want, wdoc);
        CHECK(d.n_tokens[sp] == n && d.n_docs[sp] == (sp ? DOCS : 2 * DOCS));
        CHECK(cm_dataset_read(&d, (cm_split)sp, 0, n, got, gdoc, &err));
        CHECK(!memcmp(want, got, (size_t)n * 4) && !memcmp(wdoc, gdoc, (size_t)n * 8));
        int bad = 0;
#pragma omp parallel for num_threads(3) reduction(+ : bad)
        for (int t = 0; t < 3000; t++) { /* windows anywhere, from three threads */
            cm_rng r = cm_rng_make(1, CM_RNG_TEST, (uint64_t)t);
            int64_t at = (int64_t)cm_rng_below(r, 0, (uint64_t)n);
            int64_t len = (int64_t)cm_rng_below(r, 1, 300), doc[300];
            int32_t id[300];
            cm_err e;
            if (len > n - at) len = n - at;
            bad += !cm_dataset_read(&d, (cm_split)sp, at, len, id, doc, &e) ||
                   memcmp(id, want + at, (size_t)len * 4) ||
                   memcmp(doc, wdoc + at, (size_t)len * 8);
        }
        CHECKF(!bad, "%d wrong windows", bad);
    }
    CHECK(cm_dataset_verify(&d, &err));
    cm_dataset_close(&d);
    free(dir);
}

TEST(round_trip_and_random_access_u16) { check_reads(VOCAB, "u16"); }
TEST(round_trip_and_random_access_u32) { check_reads(200000, "u32"); }

TEST(documents_and_origins) {
    char *dir = make_set("docs", VOCAB);
    cm_dataset d;
    cm_err err;
    CHECK(cm_dataset_open(&d, dir, &err));
    int64_t at = 0;
    for (int64_t i = 0; i < 2 * DOCS; i++) {
        int32_t id[64];
        int64_t start, n, bytes;
        uint32_t source;
        uint64_t line;
        int k = (int)(i / DOCS), j = (int)(i % DOCS), len = make_doc(VOCAB, k, j, id);
        CHECK(cm_dataset_doc(&d, CM_SPLIT_TRAIN, i, &start, &n, &bytes, &err));
        CHECK(cm_dataset_origin(&d, CM_SPLIT_TRAIN, i, &source, &line, &err));
        CHECK(start == at && n == len && bytes == 100 + j);
        CHECK(source == (uint32_t)k && line == (uint64_t)(10 * j + 1));
        at += len;
    }
    int64_t x;
    CHECK(!cm_dataset_doc(&d, CM_SPLIT_TRAIN, 2 * DOCS, &x, &x, &x, &err));
    cm_dataset_close(&d);
    free(dir);
}

/* `zstd -t` and `zstd -dc` through the library: skippable frames are passed over. */
TEST(a_shard_is_a_legal_zstd_stream) {
    char *dir = make_set("zstd", VOCAB), *path = cm_strf("%s/train-00000.tok.zst", dir);
    char *file;
    size_t n, got = 0;
    cm_err err;
    CHECK(cm_read_file(path, 1 << 20, &file, &n, &err));
    static uint8_t raw[1 << 16];
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    ZSTD_inBuffer in = { file, n, 0 };
    ZSTD_outBuffer out = { raw, sizeof raw, 0 };
    while (in.pos < in.size) {
        size_t rc = ZSTD_decompressStream(dctx, &out, &in);
        CHECKF(!ZSTD_isError(rc), "%s", ZSTD_getErrorName(rc));
        if (ZSTD_isError(rc)) break;
        got = rc;
    }
    CHECK(got == 0);
    static int32_t want[16384];
    static int64_t doc[16384];
    int64_t all = expect(VOCAB, CM_SPLIT_TRAIN, want, doc), half = (int64_t)out.pos / 2;
    CHECK(half > 0 && half < all);
    for (int64_t i = 0; i < half; i++) CHECK((int32_t)cm_get_le(raw + 2 * i, 2) == want[i]);
    ZSTD_freeDCtx(dctx);
    free(file);
    free(path);
    free(dir);
}

/* True when opening and reading (or verifying) all of `dir` fails with CM_EXIT_DATA and a
 * sentence that names the shard. */
static bool finds(bool verify, const char *dir, const char *shard, cm_err *err) {
    cm_dataset d;
    *err = (cm_err){ 0 };
    bool ok = cm_dataset_open(&d, dir, err);
    if (ok) {
        static int32_t id[16384];
        for (int sp = 0; ok && !verify && sp < 2; sp++)
            ok = cm_dataset_read(&d, (cm_split)sp, 0, d.n_tokens[sp], id, NULL, err);
        ok = ok && (!verify || cm_dataset_verify(&d, err));
        cm_dataset_close(&d);
    }
    return !ok && err->code == CM_EXIT_DATA && strstr(err->msg, shard);
}

static bool notices(const char *dir, const char *shard, cm_err *err) {
    return finds(false, dir, shard, err);
}

static void put_back(const char *path, const char *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    CM_ASSERT(f && fwrite(bytes, 1, n, f) == n && !fclose(f), "cannot write %s", path);
}

TEST(one_flipped_bit_anywhere_is_noticed) {
    char *dir = make_set("flip", VOCAB), *path = cm_strf("%s/val-00000.tok.zst", dir);
    char *file;
    size_t n;
    cm_err err;
    CHECK(cm_read_file(path, 1 << 20, &file, &n, &err));
    CHECK(!notices(dir, "", &err));
    for (size_t i = 0; i < n; i++) {
        bool head = i >= CM_SH_DATA && i < CM_SH_DATA + 8; /* of a frame: every bit */
        for (size_t bit = head ? 0 : i % 8; bit <= (head ? 7 : i % 8); bit++) {
            file[i] ^= (char)(1 << bit);
            put_back(path, file, n);
            CHECKF(notices(dir, "val-00000.tok.zst", &err), "byte %zu of %zu: code %d %s",
                   i, n, err.code, err.msg);
            file[i] ^= (char)(1 << bit);
        }
    }
    put_back(path, file, n);
    CHECK(!notices(dir, "", &err));
    free(file);
    free(path);
    free(dir);
}

TEST(damage_in_a_frame_names_the_frame) {
    char *dir = make_set("frame", VOCAB), *path = cm_strf("%s/train-00001.tok.zst", dir);
    char *file;
    size_t n;
    cm_err err;
    CHECK(cm_read_file(path, 1 << 20, &file, &n, &err));
    file[CM_SH_DATA + 20] ^= 1;
    put_back(path, file, n);
    cm_dataset d;
    CHECK(cm_dataset_open(&d, dir, &err));
    CHECK(!cm_dataset_verify(&d, &err) && err.code == CM_EXIT_DATA);
    CHECKF(strstr(err.msg, "train-00001.tok.zst") && strstr(err.msg, "frame 0"), "%s",
           err.msg);
    cm_dataset_close(&d);
    free(file);
    free(path);
    free(dir);
}

TEST(truncation_at_every_length_is_noticed) {
    char *dir = make_set("cut", VOCAB), *path = cm_strf("%s/val-00000.tok.zst", dir);
    char *file;
    size_t n;
    cm_err err;
    CHECK(cm_read_file(path, 1 << 20, &file, &n, &err));
    for (size_t i = 0; i < n; i += 7) {
        put_back(path, file, i);
        CHECKF(notices(dir, "val-00000.tok.zst", &err), "%zu of %zu bytes: %s", i, n,
               err.msg);
    }
    free(file);
    free(path);
    free(dir);
}

TEST(swapped_and_missing_shards_are_noticed) {
    char *dir = make_set("swap", VOCAB), *a = cm_strf("%s/train-00000.tok.zst", dir);
    char *b = cm_strf("%s/train-00001.tok.zst", dir), *c = cm_strf("%s/c", dir);
    cm_err err;
    CHECK(!rename(a, c) && !rename(b, a) && !rename(c, b));
    CHECKF(notices(dir, "train-0000", &err), "%s", err.msg);
    CHECK(!rename(a, c));
    CHECKF(notices(dir, "train-00000", &err), "%s", err.msg);
    free(a);
    free(b);
    free(c);
    free(dir);
}

/* Replace the first `from` in the manifest by `to`; true when that is noticed. */
static bool edit_noticed(const char *dir, const char *from, const char *to) {
    char *path = cm_strf("%s/manifest.json", dir), *text;
    size_t n;
    cm_err err;
    CM_ASSERT(cm_read_file(path, 1 << 20, &text, &n, &err), "%s", err.msg);
    char *p = strstr(text, from);
    CHECKF(p, "'%s' is not in the manifest", from);
    if (!p) return false;
    char *edited = cm_strf("%.*s%s%s", (int)(p - text), text, to, p + strlen(from));
    put_back(path, edited, strlen(edited));
    bool noticed = finds(true, dir, "", &err);
    CHECKF(noticed, "'%s' -> '%s': %s", from, to, err.msg);
    put_back(path, text, n);
    free(edited);
    free(text);
    free(path);
    return noticed;
}

TEST(an_edited_manifest_is_noticed) {
    char *dir = make_set("edit", VOCAB);
    edit_noticed(dir, "\"docs\": 80", "\"docs\": 81");
    edit_noticed(dir, "\"docs\": 40", "\"docs\": 41");
    edit_noticed(dir, "\"vocab\": 1000", "\"vocab\": 1001");
    edit_noticed(dir, "\"bos\": 1", "\"bos\": 3");
    edit_noticed(dir, "\"eos\": 2", "\"eos\": -1");
    edit_noticed(dir, "\"doc_eos\": true", "\"doc_eos\": false");
    edit_noticed(dir, "\"kind\": \"lm\"", "\"kind\": \"sft\"");
    edit_noticed(dir, "\"version\": 1", "\"version\": 2");
    edit_noticed(dir, "\"version\": 1", "\"version\": 1.5");
    edit_noticed(dir, "train-00000", "../train-00000");
    edit_noticed(dir, "train-00000", "val-00000");
    edit_noticed(dir, "\"id\": \"", "\"id\": \"0");
    edit_noticed(dir, "\"sha256\": \"", "\"sha256\": \"0"); /* the tokenizer's */
    edit_noticed(dir, "\"pipeline_sha256\": \"", "\"pipeline_sha256\": \"\", \"x\": \"");
    edit_noticed(dir, "\"sha256\": \"3", "\"sha256\": \"4"); /* a shard's */
    edit_noticed(dir, "\"splits\"", "\"slits\"");
    edit_noticed(dir, "{", "[");
    free(dir);
}

TEST(another_tokenizer_is_noticed) {
    char *dir = make_set("tok", VOCAB), *path = cm_strf("%s/tokenizer.model", dir);
    cm_err err;
    put_back(path, "other", 5);
    CHECK(notices(dir, "tokenizer.model", &err));
    free(path);
    free(dir);
}

TEST(a_finished_shard_is_recognised_or_refused) {
    char *dir = make_set("check", VOCAB);
    cm_shard_conf c = conf(VOCAB);
    cm_shard_info info;
    cm_err err;
    CHECK(cm_shard_check(&c, CM_SPLIT_TRAIN, 1, dir, &info, &err) && info.n_docs == DOCS);
    cm_sha_bytes("other", 5, c.pipeline);
    CHECK(!cm_shard_check(&c, CM_SPLIT_TRAIN, 1, dir, &info, &err) &&
          err.code == CM_EXIT_DATA);
    free(dir);
}

/* ---- masks ---- */

/* Document i of a masked set: the first third prompt, then reasoning, then answer. */
static int mask_of(int n, int j) { return j < n / 3 || j == 0 ? 0 : j < n / 2 ? 2 : 1; }

/* What a set may be made with that a reader must refuse. */
typedef enum { FINE, OTHER_PROMPT, NO_ANSWER } trouble;

/* One training shard of pairs: documents 2i and 2i+1 share the tokens of mask 0. */
static char *make_masked(const char *name, cm_shard_kind kind, trouble what) {
    char *dir = cm_strf("%s/%s", t_tmpdir(), name), *model = cm_strf("%s/tokenizer.model", dir);
    cm_err err;
    cm_shard_conf c = conf(VOCAB);
    c.kind = kind;
    c.flags = CM_SHARD_BOS;
    cm_shard_info info;
    cm_shard_out *o = cm_shard_out_open(&c, CM_SPLIT_TRAIN, 0);
    for (int i = 0; i < 2 * DOCS; i++) {
        int32_t id[64];
        int n = make_doc(VOCAB, 0, i / 2, id);
        cm_doc_origin from = origin(0, i);
        if (i % 2) id[n - 1] = 9; /* another answer */
        if (what == OTHER_PROMPT && i == 2 * DOCS - 1) id[1] ^= 1;
        for (int j = 0; j < n; j++)
            cm_shard_out_add_masked(o, id + j, 1, what == NO_ANSWER && i == 7 ? 0 : mask_of(n, j),
                                    j == n - 1 ? &from : NULL);
    }
    bool ok = cm_mkdirs(dir, &err) && cm_write_file(model, "model", 5, &err) &&
              cm_shard_out_commit(o, dir, &info, &err);
    const cm_shard_info *list[2] = { &info, NULL };
    ok = ok && cm_manifest_write(dir, &c, "tokenizer.model", list, (int[]){ 1, 0 }, NULL, &err);
    CHECKF(ok, "%s", err.msg);
    free(model);
    return dir;
}

TEST(masks_are_read_from_anywhere) {
    char *dir = make_masked("masks", CM_SHARD_SFT, FINE);
    cm_dataset d;
    cm_err err;
    static uint8_t want[8192], got[8192];
    int64_t n = 0, sum[3] = { 0 };
    for (int i = 0; i < 2 * DOCS; i++) {
        int32_t id[64];
        int len = make_doc(VOCAB, 0, i / 2, id);
        for (int j = 0; j < len; j++) sum[want[n++] = (uint8_t)mask_of(len, j)]++;
    }
    CHECK(cm_dataset_open(&d, dir, &err) && cm_dataset_verify(&d, &err));
    CHECK(d.n_tokens[0] == n && n > 10 * FRAME && d.kind == CM_SHARD_SFT);
    CHECK(d.n_answer[0] == sum[1] && d.n_reasoning[0] == sum[2] && sum[2] > 0);
    int bad = 0;
#pragma omp parallel for num_threads(3) reduction(+ : bad)
    for (int t = 0; t < 2000; t++) {
        cm_rng r = cm_rng_make(2, CM_RNG_TEST, (uint64_t)t);
        int64_t at = (int64_t)cm_rng_below(r, 0, (uint64_t)n), len = 300;
        uint8_t mask[300];
        cm_err e;
        if (len > n - at) len = n - at;
        bad += !cm_dataset_masks(&d, CM_SPLIT_TRAIN, at, len, mask, &e) ||
               memcmp(mask, want + at, (size_t)len);
    }
    CHECKF(!bad, "%d wrong windows", bad);
    cm_dataset_close(&d);
    char *lm = make_set("unmasked", VOCAB);
    CHECK(cm_dataset_open(&d, lm, &err) && d.n_answer[0] == 0);
    memset(got, 7, sizeof got);
    CHECK(cm_dataset_masks(&d, CM_SPLIT_TRAIN, 3, 50, got, &err) && got[0] == 0 && got[49] == 0);
    cm_dataset_close(&d);
    free(lm);
    free(dir);
}

TEST(one_flipped_bit_in_a_masked_shard_is_noticed) {
    char *dir = make_masked("mflip", CM_SHARD_DPO, FINE), *file;
    char *path = cm_strf("%s/train-00000.tok.zst", dir);
    size_t n;
    cm_err err;
    CHECK(cm_read_file(path, 1 << 20, &file, &n, &err));
    CHECK(!notices(dir, "", &err) && !finds(true, dir, "", &err));
    for (size_t i = 0; i < n; i++) {
        file[i] ^= (char)(1 << i % 8);
        put_back(path, file, n);
        CHECKF(notices(dir, "train-00000.tok.zst", &err), "byte %zu of %zu: %s", i, n, err.msg);
        file[i] ^= (char)(1 << i % 8);
    }
    free(file);
    free(path);
    free(dir);
}

TEST(what_no_writer_should_write_is_refused) {
    char *dir = make_masked("prompts", CM_SHARD_DPO, OTHER_PROMPT);
    cm_err err;
    CHECKF(finds(true, dir, "documents 78 and 79 are a pair with different prompts", &err), "%s",
           err.msg);
    free(dir);
    dir = make_masked("sftprompts", CM_SHARD_SFT, OTHER_PROMPT); /* these are no pairs */
    CHECK(!finds(true, dir, "", &err));
    free(dir);
    dir = make_masked("noanswer", CM_SHARD_SFT, NO_ANSWER);
    CHECKF(finds(true, dir, "document 7 has no answer", &err), "%s", err.msg);
    free(dir);
}
