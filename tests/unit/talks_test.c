/* talks_test.c -- conversations and preferences to shards: masks, pairs, limits, resuming. */
#include "tests/t.h"
#include "text/corpus_int.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL "tests/golden/chat/tokenizer.model"

static char *at(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

static void put(const char *name, const cm_buf *b) {
    char *path = at(name);
    cm_err err;
    CHECKF(cm_write_file(path, b->s, b->n, &err), "%s", err.msg);
    free(path);
}

/* Words of line i, turn t; some lines are long. */
static void words(cm_buf *b, uint64_t i, uint64_t t) {
    static const char *const word[] = { "the", "cat", "ran", "\u092a\u093e\u0928\u0940", "12",
                                        "<|end|>", "ball", "\u6c34" };
    cm_rng r = cm_rng_make(9, CM_RNG_TEST, 100 * i + t);
    int n = 1 + (int)cm_rng_below(r, 0, i % 17 ? 12 : 80);
    for (int k = 0; k < n; k++)
        cm_buf_addf(b, "%s%s", k ? " " : "", word[cm_rng_below(r, (uint64_t)k + 1, 8)]);
    cm_buf_addf(b, " %d", (int)i);
}

/* Line i of chat data: a system text every third time, one to three exchanges, a reasoning
 * block in every other answer; every 29th line is unusable. */
static int exchanges(uint64_t i) { return 1 + (int)(i % 3); }
static void put_chat(cm_buf *b, uint64_t i) {
    cm_buf_addf(b, "{\"messages\":[");
    if (i % 3 == 0) cm_buf_addf(b, "{\"role\":\"system\",\"content\":\"the ball\"},");
    for (int k = 0; k < exchanges(i); k++) {
        cm_buf_addf(b, "%s{\"role\":\"user\",\"content\":\"", k ? "," : "");
        words(b, i, (uint64_t)(2 * k));
        cm_buf_addf(b, "\"},{\"role\":\"%s\",\"content\":\"", i % 29 == 28 ? "tool" : "assistant");
        if (i % 2) cm_buf_addf(b, "<think>why %d</think>", k);
        words(b, i, (uint64_t)(2 * k + 1));
        cm_buf_addf(b, "\"}");
    }
    cm_buf_addf(b, "]}");
}

static void put_pair(cm_buf *b, uint64_t i) {
    cm_buf_addf(b, "{\"prompt\":[");
    if (i % 3 == 0) cm_buf_addf(b, "{\"role\":\"system\",\"content\":\"the ball\"},");
    for (int k = 0; k + 1 < exchanges(i); k++) {
        cm_buf_addf(b, "{\"role\":\"user\",\"content\":\"");
        words(b, i, (uint64_t)(10 + 2 * k));
        cm_buf_addf(b, "\"},{\"role\":\"assistant\",\"content\":\"yes\"},");
    }
    cm_buf_addf(b, "{\"role\":\"user\",\"content\":\"");
    words(b, i, 0);
    cm_buf_addf(b, "\"}],\"chosen\":\"");
    words(b, i, 1);
    cm_buf_addf(b, "\",\"rejected\":\"%s", i % 2 ? "<think>no</think>" : "");
    words(b, i, i % 29 == 28 && !(i % 2) ? 1 : 2);
    cm_buf_addf(b, "\"}");
}

/* N lines, or one array laid out over lines. */
static void make_input(const char *name, int n, bool pair, bool array) {
    cm_buf b = { 0 };
    if (array) cm_buf_addf(&b, " [");
    for (int i = 0; i < n; i++) {
        cm_buf line = { 0 };
        (pair ? put_pair : put_chat)(&line, (uint64_t)i);
        if (array) cm_buf_addf(&b, "%s\n", i ? "," : "");
        for (size_t k = 0; k < line.n; k++) {
            cm_buf_add(&b, line.s + k, 1);
            if (array && line.s[k] == ',' && line.s[k - 1] == '}') cm_buf_addf(&b, "\r\n  ");
        }
        if (!array) cm_buf_addf(&b, "\n");
        cm_buf_free(&line);
    }
    if (array) cm_buf_addf(&b, "\n]\n");
    put(name, &b);
    cm_buf_free(&b);
}

static bool build_with(int threads, const char *out, bool (*progress)(void *,
                       const cm_corpus_progress *), cm_err *err, int n,
                       const char *const *word) {
    cm_conf conf;
    cm_conf_open(&conf, "tokenize");
    char *dir = at(out), *set = cm_strf("tokenize.out=%s", dir);
    cm_conf_set(&conf, set);
    free(set);
    cm_conf_set(&conf, "tokenize.tokenizer=" MODEL);
    for (int i = 0; i < n; i++) {
        cm_buf b = { 0 };
        for (const char *p = word[i]; *p; p++)
            if (*p == '@') cm_buf_addf(&b, "%s/", t_tmpdir());
            else cm_buf_add(&b, p, 1);
        cm_conf_set(&conf, b.s);
        cm_buf_free(&b);
    }
    bool ok = cm_conf_check(&conf, err);
    cm_corpus_conf c = { &conf.tokenize, 42, threads, progress, dir, NULL };
    ok = ok && cm_corpus_build(&c, err);
    cm_conf_close(&conf);
    free(dir);
    return ok;
}
#define WORDS(...)                                                                      \
    (int)(sizeof (const char *[]){ __VA_ARGS__ } / sizeof(char *)),                     \
        (const char *const[]){ __VA_ARGS__ }
#define BUILD(threads, out, ...)                                                        \
    do {                                                                                \
        cm_err e_;                                                                      \
        CHECKF(build_with(threads, out, NULL, &e_, WORDS(__VA_ARGS__)), "%s", e_.msg);  \
    } while (0)

static bool open_set(cm_dataset *d, const char *name) {
    char *path = at(name);
    cm_err err;
    bool ok = cm_dataset_open(d, path, &err) && cm_dataset_verify(d, &err);
    CHECKF(ok, "%s", err.msg);
    free(path);
    return ok;
}

static void same_file(const char *a, const char *b, const char *file) {
    char *p = cm_strf("%s/%s/%s", t_tmpdir(), a, file), hp[65] = "a";
    char *q = cm_strf("%s/%s/%s", t_tmpdir(), b, file), hq[65] = "b";
    cm_err err;
    CHECKF(cm_sha_file(p, hp, &err) && cm_sha_file(q, hq, &err) && !strcmp(hp, hq),
           "%s differs in %s and %s", file, a, b);
    free(p);
    free(q);
}

typedef struct doc {
    int64_t n, answer, reasoning;
    int32_t id[4096];
    uint8_t mask[4096];
} doc;

static void read_doc(const cm_dataset *d, cm_split sp, int64_t i, doc *x) {
    int64_t start, bytes;
    cm_err err;
    CHECK(cm_dataset_doc(d, sp, i, &start, &x->n, &bytes, &err) && x->n <= 4096 &&
          cm_dataset_read(d, sp, start, x->n, x->id, NULL, &err) &&
          cm_dataset_masks(d, sp, start, x->n, x->mask, &err) &&
          cm_dataset_trained(d, sp, i, &x->answer, &x->reasoning, &err));
    int64_t n[3] = { 0 };
    for (int64_t k = 0; k < x->n; k++) n[x->mask[k]]++;
    CHECK(n[1] == x->answer && n[2] == x->reasoning);
}

/* The document is what the template makes of these turns; masked only from `trained` on. */
static bool is_render(const doc *x, const cm_spm *spm, const cm_turn *t, int n, int trained) {
    cm_chat c;
    cm_chat_ids all = { 0 }, before = { 0 };
    cm_err err;
    bool ok = cm_chat_open(&c, spm, &err) && cm_chat_render(&c, spm, t, n, false, &all, &err) &&
              cm_chat_render(&c, spm, t, trained, false, &before, &err);
    if (ok) memset(all.mask, 0, (size_t)before.n);
    ok = ok && x->n == all.n && !memcmp(x->id, all.id, (size_t)all.n * 4) &&
         !memcmp(x->mask, all.mask, (size_t)all.n);
    cm_chat_ids_free(&all);
    cm_chat_ids_free(&before);
    return ok;
}

TEST(conversations_come_back_with_their_masks) {
    make_input("c.jsonl", 300, false, false);
    BUILD(2, "chat", "tokenize.inputs=[\"@c.jsonl\"]", "tokenize.val_frac=0.2",
          "tokenize.shard_tokens=4k");
    cm_dataset d;
    cm_err err;
    if (!open_set(&d, "chat")) return;
    CHECK(d.kind == CM_SHARD_SFT && d.flags == CM_SHARD_BOS && d.n_shard[0] > 2);
    cm_spm *spm = cm_spm_open(MODEL, &err);
    cm_talk t = { 0 };
    static doc x;
    int64_t next[2] = { 0, 0 }, answer[2] = { 0, 0 };
    for (uint64_t i = 0; i < 300; i++) {
        cm_buf line = { 0 };
        put_chat(&line, i);
        bool ok = cm_talk_read(&t, line.s, line.n, false);
        CHECK(ok == (i % 29 != 28));
        if (ok) {
            char whole[65], opening[65];
            cm_talk_hash(&t, whole, opening);
            int sp = strtoul((char[]){ opening[0], opening[1], opening[2], opening[3], 0 }, NULL,
                             16) < 0.2 * 65536;
            read_doc(&d, (cm_split)sp, next[sp]++, &x);
            CHECKF(is_render(&x, spm, t.turn, t.n, 0), "line %d", (int)i);
            answer[sp] += x.answer;
        }
        cm_buf_free(&line);
    }
    for (int sp = 0; sp < 2; sp++)
        CHECK(next[sp] == d.n_docs[sp] && answer[sp] == d.n_answer[sp] && answer[sp] > 0);
    cm_corpus_stats s;
    CHECK(cm_corpus_measure(&d, spm, CM_SPLIT_TRAIN, &s, &err));
    CHECK(s.answer == d.n_answer[0] && s.reasoning == d.n_reasoning[0] && s.reasoning > 0);
    CHECK(s.doc_trained[0] > 0 && s.doc_trained[6] >= s.doc_trained[3] && !s.pairs);
    cm_talk_free(&t);
    cm_spm_close(spm);
    cm_dataset_close(&d);
}

TEST(pairs_share_their_prompt_tokens) {
    make_input("p.jsonl", 200, true, false);
    BUILD(2, "pair", "tokenize.inputs=[\"@p.jsonl\"]", "tokenize.val_frac=0",
          "tokenize.shard_tokens=4k");
    cm_dataset d;
    cm_err err;
    if (!open_set(&d, "pair")) return;
    CHECK(d.kind == CM_SHARD_DPO && d.n_shard[0] > 2);
    cm_spm *spm = cm_spm_open(MODEL, &err);
    cm_talk t = { 0 };
    static doc x, y;
    int64_t at_doc = 0, longer = 0;
    for (uint64_t i = 0; i < 200; i++) {
        cm_buf line = { 0 };
        put_pair(&line, i);
        if (cm_talk_read(&t, line.s, line.n, true)) {
            read_doc(&d, CM_SPLIT_TRAIN, at_doc++, &x);
            read_doc(&d, CM_SPLIT_TRAIN, at_doc++, &y);
            CHECKF(is_render(&x, spm, t.turn, t.n - 1, t.n - 2), "line %d chosen", (int)i);
            t.turn[t.n - 2] = t.turn[t.n - 1];
            CHECKF(is_render(&y, spm, t.turn, t.n - 1, t.n - 2), "line %d rejected", (int)i);
            longer += x.answer + x.reasoning > y.answer + y.reasoning;
        } else {
            CHECK(i % 29 == 28 && t.reject == CM_REJECT_EQUAL);
        }
        cm_buf_free(&line);
    }
    CHECK(at_doc == d.n_docs[0] && at_doc > 380);
    cm_corpus_stats s;
    CHECK(cm_corpus_measure(&d, spm, CM_SPLIT_TRAIN, &s, &err));
    CHECK(s.pairs == at_doc / 2 && s.identical == 0 && s.chosen_longer == longer);
    cm_talk_free(&t);
    cm_spm_close(spm);
    cm_dataset_close(&d);
}

TEST(threads_arrays_and_interruptions_change_no_byte) {
    static const char *const files[] = { "manifest.json", "rejected.jsonl", "train-00000.tok.zst",
                                         "train-00002.tok.zst", "val-00000.tok.zst" };
    make_input("t.jsonl", 400, false, false);
    make_input("t.json", 400, false, true);
#define ALL "tokenize.val_frac=0.1", "tokenize.shard_tokens=5k", "tokenize.max_tokens=150"
    BUILD(1, "t1", "tokenize.inputs=[\"@t.jsonl\"]", ALL);
    BUILD(2, "t2", "tokenize.inputs=[\"@t.jsonl\"]", ALL);
    BUILD(3, "t3", "tokenize.inputs=[\"@t.jsonl\"]", ALL);
    BUILD(2, "ta", "tokenize.inputs=[\"@t.json\"]", ALL);
    for (int i = 0; i < 5; i++) {
        same_file("t1", "t2", files[i]);
        same_file("t1", "t3", files[i]);
    }
    cm_dataset a, b;
    if (open_set(&a, "t1") && open_set(&b, "ta")) {
        static int32_t x[1 << 16], y[1 << 16];
        cm_err err;
        CHECK(a.n_tokens[0] == b.n_tokens[0] && a.n_docs[0] == b.n_docs[0] &&
              a.n_answer[1] == b.n_answer[1]);
        CHECK(cm_dataset_read(&a, CM_SPLIT_TRAIN, 0, a.n_tokens[0], x, NULL, &err));
        CHECK(cm_dataset_read(&b, CM_SPLIT_TRAIN, 0, b.n_tokens[0], y, NULL, &err));
        CHECK(!memcmp(x, y, (size_t)a.n_tokens[0] * 4));
        cm_dataset_close(&a);
        cm_dataset_close(&b);
    }
}

/* Stops like a power cut once the second training shard is there. */
static bool kill_at(void *ctx, const cm_corpus_progress *p) {
    char *path = cm_strf("%s/train-00001.tok.zst", (const char *)ctx);
    if (!strcmp(p->stage, "encode") && cm_exists(path)) kill(getpid(), SIGKILL);
    free(path);
    return true;
}

static void resumes(const char *input, const char *whole, const char *cut, bool pair) {
    make_input(input, 60000, pair, false);
    char *set = cm_strf("tokenize.inputs=[\"@%s\"]", input);
#define CUT set, "tokenize.shard_tokens=700k", "tokenize.max_tokens=120",                 \
            "tokenize.overlong=truncate", "tokenize.val_frac=0.05"
    BUILD(2, whole, CUT);
    fflush(NULL);
    pid_t pid = fork();
    int status = 0;
    if (pid == 0) {
        cm_err err;
        _exit(build_with(1, cut, kill_at, &err, WORDS(CUT)) ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    char *manifest = cm_strf("%s/%s/manifest.json", t_tmpdir(), cut);
    CHECKF(WIFSIGNALED(status) && !cm_exists(manifest), "not killed: %d", status);
    BUILD(2, cut, CUT);
    same_file(whole, cut, "manifest.json");
    same_file(whole, cut, "rejected.jsonl");
    same_file(whole, cut, "train-00000.tok.zst");
    same_file(whole, cut, "train-00002.tok.zst");
    free(manifest);
    free(set);
}

TEST(a_killed_chat_run_is_completed) { resumes("k.jsonl", "kw", "kc", false); }
TEST(a_killed_preference_run_is_completed) { resumes("q.jsonl", "qw", "qc", true); }

/* ---- limits ---- */

static int64_t lines_with(const char *out, const char *what) {
    char *path = cm_strf("%s/%s/rejected.jsonl", t_tmpdir(), out), *text;
    size_t n;
    cm_err err;
    int64_t k = 0;
    CHECK(cm_read_file(path, 1 << 24, &text, &n, &err));
    for (const char *p = text; (p = strstr(p, what)); p++) k++;
    free(text);
    free(path);
    return k;
}

TEST(what_is_too_long_goes_whole_or_by_exchanges) {
    make_input("l.jsonl", 300, false, false);
    make_input("lp.jsonl", 300, true, false);
    static const char *const in[] = { "tokenize.inputs=[\"@l.jsonl\"]",
                                      "tokenize.inputs=[\"@lp.jsonl\"]" };
    static const char *const out[2][3] = { { "la", "ld", "lt" }, { "pa", "pd", "pt" } };
    for (int pair = 0; pair < 2; pair++) {
        cm_dataset d[3];
        BUILD(2, out[pair][0], in[pair], "tokenize.val_frac=0");
        BUILD(2, out[pair][1], in[pair], "tokenize.val_frac=0", "tokenize.max_tokens=110");
        BUILD(2, out[pair][2], in[pair], "tokenize.val_frac=0", "tokenize.max_tokens=110",
              "tokenize.overlong=truncate");
        static doc x, y;
        bool ok = true;
        for (int k = 0; k < 3; k++) ok = ok && open_set(&d[k], out[pair][k]);
        if (!ok) return;
        int per = 1 + pair;
        CHECK(lines_with(out[pair][1], "too-long") == (d[0].n_docs[0] - d[1].n_docs[0]) / per);
        int64_t cut = lines_with(out[pair][2], "truncated"),
                gone = lines_with(out[pair][2], "too-long");
        CHECK(cut > 10 && gone > 5 && d[2].n_docs[0] == d[0].n_docs[0] - per * gone);
        CHECK(d[2].n_docs[0] - d[1].n_docs[0] == per * cut);
        int64_t shorter = 0; /* every kept document is the whole one, or a part by turns */
        for (int64_t i = 0, j = 0; i < d[2].n_docs[0]; i++, j++) {
            uint32_t source;
            uint64_t a, b;
            cm_err err;
            read_doc(&d[2], CM_SPLIT_TRAIN, i, &x);
            CHECK(cm_dataset_origin(&d[2], CM_SPLIT_TRAIN, i, &source, &a, &err));
            while (cm_dataset_origin(&d[0], CM_SPLIT_TRAIN, j, &source, &b, &err) && a != b) j++;
            read_doc(&d[0], CM_SPLIT_TRAIN, j, &y);
            CHECK(x.n <= 110 && x.id[x.n - 1] == 6 && x.mask[x.n - 1] == 1);
            if (x.n < y.n) {
                shorter++;
                if (pair) CHECK(!memcmp(x.id + x.n - 8, y.id + y.n - 8, 32)); /* the end stays */
                else CHECK(!memcmp(x.id, y.id, (size_t)x.n * 4)); /* the beginning does */
            } else {
                CHECK(x.n == y.n && !memcmp(x.id, y.id, (size_t)x.n * 4));
            }
        }
        CHECKF(shorter == per * cut, "%d shorter, %d reported", (int)shorter, (int)cut);
        for (int k = 0; k < 3; k++) cm_dataset_close(&d[k]);
    }
}

TEST(what_cannot_be_read_as_an_array) {
    static const struct { const char *text, *want; } cases[] = {
        { "[\n{\"messages\":[]},\n5, \"a,]\", [1,[2]]]\n", NULL },
        { "[{\"question\":\"a\",\"answer\":\"b\"}\n", "ends inside its JSON array" },
        { "[{\"question\":\"a\",\"answer\":\"b\"}, {\"quest\n", "ends inside its JSON array" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[16], set[64];
        cm_buf b = { 0 }, good = { 0 };
        cm_err err;
        snprintf(name, sizeof name, "a%zu", i);
        cm_buf_addf(&b, "%s", cases[i].text);
        put("array.json", &b);
        cm_buf_addf(&good, "{\"question\":\"x\",\"answer\":\"y\"}\n");
        put("good.jsonl", &good);
        snprintf(set, sizeof set, "tokenize.inputs=[\"@good.jsonl\",\"@array.json\"]");
        CHECKF(build_with(1, name, NULL, &err, WORDS(set, "tokenize.val_frac=0")), "%s", err.msg);
        if (cases[i].want) CHECK(lines_with(name, cases[i].want) == 1);
        else CHECK(lines_with(name, "\"line\": 3, \"reason\": \"not a JSON object") == 3 &&
                   lines_with(name, "\"line\": 2, \"reason\": \"no assistant") == 1);
        cm_buf_free(&b);
        cm_buf_free(&good);
    }
    cm_buf b = { 0 };
    cm_err err;
    static const char zero[] = "[\n \0 5,\n\0, {\"question\":\"a\",\"answer\":\"b\"}]\n";
    cm_buf_add(&b, zero, sizeof zero - 1); /* a zero byte is no end of the file */
    put("zero.json", &b);
    BUILD(1, "zero", "tokenize.inputs=[\"@good.jsonl\",\"@zero.json\"]", "tokenize.val_frac=0");
    CHECK(lines_with("zero", "zero.json\", \"line\": 2, \"reason\": \"column 1") == 1 &&
          lines_with("zero", "zero.json\", \"line\": 3, \"reason\": \"column 1") == 1 &&
          lines_with("zero", "zero.json") == 2);
    b.n = 0;
    cm_buf_addf(&b, "[{\"question\":\"a\",\"answer\":\"b\"}]\n{}\n");
    put("behind.json", &b);
    CHECK(!build_with(1, "behind", NULL, &err, WORDS("tokenize.inputs=[\"@behind.json\"]")));
    CHECKF(err.code == CM_EXIT_DATA && strstr(err.msg, "behind.json:2: text behind"), "%s",
           err.msg);
    cm_buf_free(&b);
}
