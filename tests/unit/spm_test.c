/* spm_test.c -- the tokenizer: training, encoding by words, building from pieces. */
#include "tests/t.h"
#include "text/spm_proto.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

static const char *const control[] = { "<|user|>", "<|end|>", "<think>" };

/* A line of mixed scripts, a function of i. */
static void put_line(cm_buf *b, uint64_t i) {
    static const char *const bit[] = {
        "the", "house", "Mary", "said", "running", "don't", "x", ",", ".", "!", " ", "  ",
        "     ", "\t", "1", "2024", "3.14", "007", "\u0928\u092e\u0938\u094d\u0924\u0947",
        "\u0939\u093f\u0928\u094d\u0926\u0940", "\u092d\u093e\u0937\u093e",
        "\u65e5\u672c\u8a9e", "\u6f22\u5b57\u3068\u304b\u306a", "\u4f60\u597d",
        "\U0001F600", "\U0001F468\u200D\U0001F469\u200D\U0001F467", "\u00e9t\u00e9",
        "na\u00efve", "\u00a0", "\u3000", "\u2009", "\ufb01", "\uff21\uff22", "<s>", "</s>",
        "<unk>", "<|user|>", "<|end|>", "<think>", "<0x41>", "\u0663\u0664", "a\u0301",
        "\u0421\u043b\u043e\u0432\u043e", "--", "((", "\\n", "http://a.b/c?d=1&e=%20" };
    cm_rng r = cm_rng_make(11, CM_RNG_TEST, i);
    int n = 1 + (int)cm_rng_below(r, 0, 14);
    for (int k = 0; k < n; k++) {
        uint64_t w = cm_rng_below(r, (uint64_t)(2 * k + 1), sizeof bit / sizeof *bit);
        cm_buf_addf(b, "%s%s", k && cm_rng_below(r, (uint64_t)(2 * k + 2), 4) ? " " : "",
                    bit[w]);
    }
}

/* The one trained tokenizer of this file. */
static cm_spm *trained(void) {
    static cm_spm *s;
    if (s) return s;
    char *path = cm_strf("%s/train.txt", t_tmpdir());
    cm_buf b = { 0 }, proto = { 0 };
    cm_err err = { 0 };
    for (uint64_t i = 0; i < 3000; i++) {
        put_line(&b, i + 1000000);
        cm_buf_addf(&b, "\n");
    }
    cm_spm_train_conf c = { path, 800, control, 3, 1 };
    bool ok = cm_write_file(path, b.s, b.n, &err) && cm_spm_train(&c, &proto, &err);
    CHECKF(ok, "%s", err.msg);
    s = ok ? cm_spm_open_bytes(proto.s, proto.n, &err) : NULL;
    CM_ASSERT(s, "no tokenizer: %s", err.msg);
    cm_buf_free(&b);
    cm_buf_free(&proto);
    free(path);
    return s;
}

typedef struct ids {
    int32_t *v;
    int64_t n, cap;
} ids;

static ids encode(const cm_spm *s, const char *text, size_t n) {
    ids r = { 0 };
    cm_err err;
    bool ok = cm_spm_encode(s, text, n, &r.v, &r.n, &r.cap, &err);
    CHECKF(ok, "%s", err.msg);
    return r;
}

TEST(special_ids_and_pieces) {
    const cm_spm *s = trained();
    float score;
    cm_piece_type type;
    CHECK(cm_spm_vocab(s) == 800 && cm_spm_unk(s) == 0 && cm_spm_bos(s) == 1);
    CHECK(cm_spm_eos(s) == 2 && cm_spm_pad(s) == -1 && !cm_spm_add_dummy_prefix(s));
    CHECK(!strcmp(cm_spm_piece(s, 1, &score, &type), "<s>") && type == CM_PIECE_CONTROL);
    CHECK(!strcmp(cm_spm_piece(s, 3, NULL, &type), "<|user|>") && type == CM_PIECE_CONTROL);
    CHECK(!strcmp(cm_spm_piece(s, 6, NULL, &type), "<0x00>") && type == CM_PIECE_BYTE);
    CHECK(cm_spm_id(s, "<|end|>") == 4 && cm_spm_id(s, "no such piece") == -1);
    CHECK(cm_spm_id(s, "<unk>") == 0);
}

TEST(text_comes_back_byte_for_byte) {
    const cm_spm *s = trained();
    for (uint64_t i = 0; i < 3000; i++) {
        cm_buf b = { 0 }, parts = { 0 };
        for (uint64_t k = 0; k <= i % 3; k++) { /* also several lines */
            if (k) cm_buf_addf(&b, "%s", k > 1 ? "\n\n" : "\n");
            put_line(&b, 3 * i + k);
        }
        ids e = encode(s, b.s, b.n);
        char *back = cm_spm_decode(s, e.v, e.n);
        CHECKF(!strcmp(back, b.s), "'%s' became '%s'", b.s, back);
        for (int64_t k = 0; k < e.n; k++) {
            cm_piece_type type;
            cm_spm_piece(s, e.v[k], NULL, &type);
            CHECKF(type != CM_PIECE_CONTROL && type != CM_PIECE_UNKNOWN,
                   "text made piece %d: %s", e.v[k], b.s);
            cm_spm_token_bytes(s, e.v[k], &parts);
        }
        CHECK(parts.n == b.n && !memcmp(parts.s, b.s, b.n));
        free(back);
        free(e.v);
        cm_buf_free(&b);
        cm_buf_free(&parts);
    }
}

TEST(byte_pieces_spell_zero_bytes) {
    const cm_spm *s = trained();
    const int32_t id[] = { 6 + 'a', 6, 6 + 'b' }; /* <0x00> is piece 6 */
    cm_buf b = { 0 };
    cm_buf_addf(&b, "|");
    cm_spm_decode_to(s, id, 3, &b);
    CHECK(b.n == 4 && !memcmp(b.s, "|a\0b", 4));
    cm_buf_free(&b);
}

/* Against the library's own encoder. */
static void same_as_library(const cm_spm *s, const char *text, size_t n) {
    ids a = encode(s, text, n), b = { 0 };
    cm_err err;
    CHECK(cm_spm_encode_whole(s, text, n, &b.v, &b.n, &b.cap, &err));
    CHECKF(a.n == b.n && (!a.n || !memcmp(a.v, b.v, (size_t)a.n * 4)),
           "%lld and %lld ids of '%.*s'",
           (long long)a.n, (long long)b.n, (int)(n < 200 ? n : 200), text);
    free(a.v);
    free(b.v);
}

/* A model from s's pieces, with or without a dummy prefix. */
static cm_spm *rebuilt(const cm_spm *s, bool prefix, cm_buf *proto) {
    enum { MAX = 4096 };
    static const char *piece[MAX];
    static size_t len[MAX];
    static float score[MAX];
    static int type[MAX];
    int n = cm_spm_vocab(s);
    cm_err err;
    for (int i = 0; i < n; i++) {
        cm_piece_type t;
        piece[i] = cm_spm_piece(s, i, &score[i], &t);
        len[i] = strlen(piece[i]);
        type[i] = t;
    }
    bool ok = cm_spm_build(piece, len, score, type, n, 1, 2, 0, -1, prefix, proto, &err);
    cm_spm *r = ok ? cm_spm_open_bytes(proto->s, proto->n, &err) : NULL;
    CHECKF(r, "%s", err.msg);
    return r;
}

TEST(words_and_cache_change_no_id) {
    cm_buf proto = { 0 };
    cm_spm *prefixed = rebuilt(trained(), true, &proto);
    cm_buf all = { 0 };
    for (uint64_t i = 0; i < 4000; i++) {
        cm_buf b = { 0 };
        put_line(&b, i);
        same_as_library(trained(), b.s, b.n);
        same_as_library(prefixed, b.s, b.n);
        cm_buf_add(&all, b.s, b.n);
        cm_buf_addf(&all, "%s", i % 7 ? " " : "\n");
        cm_buf_free(&b);
    }
    static const char *const odd[] = { "", " ", "  ", "a ", " a", "a  ", "\n", "a\n", "\n a",
                                       " \n ", "\u2581", "a\u2581 b", "a \u2581b",
                                       "\u2581 \u2581", "\xff", "a\xe2\x96 b", "\x80 x" };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        same_as_library(trained(), odd[i], strlen(odd[i]));
        same_as_library(prefixed, odd[i], strlen(odd[i]));
    }
    same_as_library(trained(), all.s, all.n);
    same_as_library(prefixed, all.s, all.n);
    cm_spm_close(prefixed);
    cm_buf_free(&proto);
    cm_buf_free(&all);
}

TEST(cut_parts_give_the_ids_of_the_whole) {
    const cm_spm *s = trained();
    cm_buf b = { 0 };
    for (uint64_t i = 0; i < 300; i++) {
        put_line(&b, i);
        cm_buf_addf(&b, " ");
    }
    ids whole = encode(s, b.s, b.n), parts = { 0 };
    cm_err err;
    int cuts = 0;
    for (size_t at = 0, n; at < b.n; at += n, cuts++) {
        n = cm_spm_cut(s, b.s + at, b.n - at, 50);
        CHECK(n > 0 && n <= b.n - at);
        CHECK(cm_spm_encode(s, b.s + at, n, &parts.v, &parts.n, &parts.cap, &err));
    }
    CHECKF(cuts > 100, "%d cuts", cuts);
    CHECK(parts.n == whole.n && !memcmp(parts.v, whole.v, (size_t)whole.n * 4));
    free(whole.v);
    free(parts.v);
    cm_buf_free(&b);
}

TEST(a_model_built_from_pieces_is_the_same_model) {
    const cm_spm *s = trained();
    cm_buf proto = { 0 };
    cm_spm *r = rebuilt(s, false, &proto);
    size_t n;
    const void *bytes = cm_spm_proto(s, &n);
    CHECK(n == proto.n && !memcmp(bytes, proto.s, n));
    CHECK(!strcmp(cm_spm_hash(s), cm_spm_hash(r)));
    CHECK(cm_spm_bos(r) == 1 && cm_spm_eos(r) == 2 && cm_spm_pad(r) == -1);
    cm_spm_close(r);
    cm_buf_free(&proto);
}

TEST(threads_share_a_tokenizer) {
    const cm_spm *s = trained();
    int bad = 0;
#pragma omp parallel for num_threads(3) reduction(+ : bad)
    for (int i = 0; i < 2000; i++) {
        cm_buf b = { 0 };
        ids a = { 0 }, c = { 0 };
        cm_err err;
        put_line(&b, (uint64_t)i);
        bad += !cm_spm_encode(s, b.s, b.n, &a.v, &a.n, &a.cap, &err) ||
               !cm_spm_encode_whole(s, b.s, b.n, &c.v, &c.n, &c.cap, &err) || a.n != c.n ||
               memcmp(a.v, c.v, (size_t)a.n * 4);
        free(a.v);
        free(c.v);
        cm_buf_free(&b);
    }
    CHECKF(!bad, "%d lines differ", bad);
}

TEST(training_is_deterministic) {
    char *path = cm_strf("%s/train.txt", t_tmpdir());
    cm_err err;
    const cm_spm *s = trained();
    for (int threads = 1; threads <= 3; threads += 2) {
        cm_buf proto = { 0 };
        char hex[65];
        cm_spm_train_conf c = { path, 800, control, 3, threads };
        CHECK(cm_spm_train(&c, &proto, &err));
        cm_sha_bytes(proto.s, proto.n, hex);
        CHECK(!strcmp(hex, cm_spm_hash(s)));
        cm_buf_free(&proto);
    }
    free(path);
}

static int number_in(const char *msg, const char *after) {
    const char *p = strstr(msg, after);
    return p ? atoi(p + strlen(after)) : -1;
}

TEST(a_vocabulary_that_cannot_be_is_explained) {
    char *path = cm_strf("%s/small.txt", t_tmpdir());
    const char *text = "the cat sat on the mat\nthe dog sat on the log\n";
    cm_err err;
    cm_buf proto = { 0 };
    CHECK(cm_write_file(path, text, strlen(text), &err));
    cm_spm_train_conf c = { path, 5000, control, 3, 1 };
    CHECK(!cm_spm_train(&c, &proto, &err) && err.code == CM_EXIT_USAGE);
    int most = number_in(err.msg, "at most ");
    CHECKF(most > 262 && most < 400, "%s", err.msg);
    c.vocab = most;
    CHECKF(cm_spm_train(&c, &proto, &err), "the largest size, %d: %s", most, err.msg);
    proto.n = 0;
    c.vocab = most + 1;
    CHECK(!cm_spm_train(&c, &proto, &err));
    c.vocab = 264;
    CHECK(!cm_spm_train(&c, &proto, &err) && err.code == CM_EXIT_USAGE);
    int least = number_in(err.msg, "at least ");
    CHECKF(least > 264, "%s", err.msg);
    c.vocab = least;
    CHECKF(cm_spm_train(&c, &proto, &err), "the least size, %d: %s", least, err.msg);
    CHECK(cm_write_file(path, "", 0, &err));
    CHECK(!cm_spm_train(&c, &proto, &err) && err.code == CM_EXIT_USAGE);
    cm_buf_free(&proto);
    free(path);
}

TEST(damaged_models_are_refused) {
    cm_err err;
    size_t n;
    const char *bytes = cm_spm_proto(trained(), &n);
    CHECK(!cm_spm_open_bytes("", 0, &err) && err.code == CM_EXIT_DATA);
    CHECK(!cm_spm_open_bytes("hello, this is no model", 23, &err));
    CHECK(!cm_spm_open("/nonexistent.model", &err));
    char *copy = malloc(n);
    for (size_t i = 0; i < n; i += 61) { /* truncated: never a crash */
        memcpy(copy, bytes, n);
        cm_spm *s = cm_spm_open_bytes(copy, i, &err);
        cm_spm_close(s);
        copy[i] ^= 0x55;
        s = cm_spm_open_bytes(copy, n, &err);
        cm_spm_close(s);
    }
    free(copy);
    const char *piece[] = { "<unk>", "<s>", "</s>", "a", "a" };
    const size_t len[] = { 5, 3, 4, 1, 1 };
    const float score[5] = { 0 };
    const int type[] = { 2, 3, 3, 1, 1 };
    cm_buf proto = { 0 };
    CHECK(!cm_spm_build(piece, len, score, type, 5, 1, 2, 0, -1, false, &proto, &err));
    CHECK(strstr(err.msg, "twice"));
    proto.n = 0;
    CHECK(!cm_spm_build(piece, len, score, type, 4, 1, 9, 0, -1, false, &proto, &err));
    cm_buf_free(&proto);
}
