/* tokenize_test.c -- the pipeline from files to a data set: same bytes however it ran. */
#include "tests/t.h"
#include "text/corpus_int.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static char *at(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

static void put(const char *name, const void *p, size_t n) {
    char *path = at(name);
    cm_err err;
    CHECK(cm_write_file(path, p, n, &err));
    free(path);
}

static void put_text(const char *name, const char *text) { put(name, text, strlen(text)); }

/* Document i: some lines of words. */
static void put_doc(cm_buf *b, uint64_t i) {
    static const char *const word[] = { "the", "cat", "ran", "to", "a", "tall", "house", "and",
                                        "saw", "seven", "birds", "\u092a\u093e\u0928\u0940",
                                        "\u6c34", "12", "sleeping", "under", "water" };
    cm_rng r = cm_rng_make(5, CM_RNG_TEST, i);
    int n = 5 + (int)cm_rng_below(r, 0, 60);
    for (int k = 0; k < n; k++)
        cm_buf_addf(b, "%s%s", k == 0 ? "" : k % 11 == 0 ? "\n" : " ",
                    word[cm_rng_below(r, (uint64_t)k + 1, sizeof word / sizeof *word)]);
    cm_buf_addf(b, " %llu.", (unsigned long long)i);
}

static void put_docs(cm_buf *b, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) {
        if (b->n) cm_buf_addf(b, "\n<|endoftext|>\n");
        put_doc(b, i);
    }
}

/* The standard corpus: 600 documents in corpus.txt, made once. */
static void make_corpus(void) {
    static bool made;
    if (made) return;
    made = true;
    cm_buf b = { 0 };
    put_docs(&b, 0, 600);
    put("corpus.txt", b.s, b.n);
    cm_buf_free(&b);
}

typedef struct job {
    cm_conf conf;
    cm_corpus_conf c;
} job;

/* Words are settings; "@name" stands for a file of the scratch folder. */
static void job_open(job *j, int threads, const char *out, int n, const char *const *word) {
    cm_conf_open(&j->conf, "tokenize");
    char *path = at(out), *set = cm_strf("tokenize.out=%s", path);
    cm_conf_set(&j->conf, set);
    free(set);
    free(path);
    for (int i = 0; i < n; i++) {
        cm_buf b = { 0 };
        for (const char *p = word[i]; *p; p++)
            if (*p == '@') cm_buf_addf(&b, "%s/", t_tmpdir());
            else cm_buf_add(&b, p, 1);
        cm_conf_set(&j->conf, b.s);
        cm_buf_free(&b);
    }
    cm_err err;
    CHECKF(cm_conf_check(&j->conf, &err), "%s", err.msg);
    j->c = (cm_corpus_conf){ &j->conf.tokenize, 42, threads, NULL, NULL, NULL };
}

static bool build(int threads, const char *out, cm_err *err, int n, const char *const *word) {
    job j;
    *err = (cm_err){ 0 };
    job_open(&j, threads, out, n, word);
    bool ok = cm_corpus_build(&j.c, err);
    cm_conf_close(&j.conf);
    return ok;
}
#define WORDS(...)                                                                      \
    (int)(sizeof (const char *[]){ __VA_ARGS__ } / sizeof(char *)),                     \
        (const char *const[]){ __VA_ARGS__ }
#define BUILD(threads, out, ...)                                                        \
    do {                                                                                \
        cm_err e_;                                                                      \
        CHECKF(build(threads, out, &e_, WORDS(__VA_ARGS__)), "%s", e_.msg);             \
    } while (0)
#define STANDARD "tokenize.vocab_size=400", "tokenize.val_frac=0.1",                    \
                 "tokenize.shard_tokens=3000"

static bool open_set(cm_dataset *d, const char *name) {
    char *path = at(name);
    cm_err err;
    bool ok = cm_dataset_open(d, path, &err);
    CHECKF(ok, "%s", err.msg);
    free(path);
    return ok;
}

/* The same file in two folders. */
static bool same_file(const char *a, const char *b, const char *file) {
    char *p = cm_strf("%s/%s/%s", t_tmpdir(), a, file), hp[65];
    char *q = cm_strf("%s/%s/%s", t_tmpdir(), b, file), hq[65];
    cm_err err;
    bool ok = cm_sha_file(p, hp, &err) && cm_sha_file(q, hq, &err) && !strcmp(hp, hq);
    free(p);
    free(q);
    return ok;
}

static const char *const shard_files[] = { "train-00000.tok.zst", "train-00003.tok.zst",
                                           "val-00000.tok.zst" };

static void same_shards(const char *a, const char *b) {
    for (int i = 0; i < 3; i++)
        CHECKF(same_file(a, b, shard_files[i]), "%s differs in %s and %s", shard_files[i], a,
               b);
}

TEST(any_worker_count_gives_the_same_bytes) {
    make_corpus();
    BUILD(1, "w1", "tokenize.inputs=[\"@corpus.txt\"]", STANDARD);
    cm_dataset d;
    if (!open_set(&d, "w1")) return;
    CHECK(d.n_shard[0] > 3 && d.n_shard[1] >= 1);
    CHECK(d.n_docs[0] + d.n_docs[1] == 600);
    cm_dataset_close(&d);
    static const char *const out[] = { "w2", "w3" };
    for (int i = 0; i < 2; i++) {
        BUILD(2 + i, out[i], "tokenize.inputs=[\"@corpus.txt\"]", STANDARD);
        same_shards("w1", out[i]);
        CHECK(same_file("w1", out[i], "manifest.json"));
        CHECK(same_file("w1", out[i], "tokenizer.model"));
    }
}

/* Every document is in the set once, exactly as it was, on the side its hash says. */
TEST(documents_come_back_as_they_were) {
    make_corpus();
    BUILD(2, "back", "tokenize.inputs=[\"@corpus.txt\"]", STANDARD);
    cm_dataset d;
    if (!open_set(&d, "back")) return;
    cm_err err;
    cm_spm *spm = cm_spm_open(d.tokenizer_path, &err);
    int64_t next[2] = { 0, 0 };
    for (uint64_t i = 0; i < 600; i++) {
        cm_buf want = { 0 };
        put_doc(&want, i);
        char hex[65], *got = NULL;
        cm_sha_bytes(want.s, want.n, hex);
        int sp = strtoul((char[]){ hex[0], hex[1], hex[2], hex[3], 0 }, NULL, 16) <
                 0.1 * 65536;
        int64_t start, n, bytes;
        static int32_t id[4096];
        if (cm_dataset_doc(&d, (cm_split)sp, next[sp]++, &start, &n, &bytes, &err) &&
            cm_dataset_read(&d, (cm_split)sp, start, n, id, NULL, &err)) {
            CHECK(id[0] == 1 && id[n - 1] == 2 && bytes == (int64_t)want.n);
            got = cm_spm_decode(spm, id + 1, n - 2);
        }
        CHECKF(got && !strcmp(got, want.s), "document %llu: '%s'", (unsigned long long)i, got);
        free(got);
        cm_buf_free(&want);
    }
    CHECK(next[0] == d.n_docs[0] && next[1] == d.n_docs[1]);
    cm_spm_close(spm);
    cm_dataset_close(&d);
}

static void pack(const char *from, const char *gzip, const char *zst) {
    char *path = at(from), *text, *gz = at(gzip);
    size_t n;
    cm_err err;
    CHECK(cm_read_file(path, 1 << 24, &text, &n, &err));
    gzFile f = gzopen(gz, "wb");
    CHECK(gzwrite(f, text, (unsigned)n) == (int)n && gzclose(f) == Z_OK);
    size_t cap = ZSTD_compressBound(n);
    char *z = malloc(cap);
    put(zst, z, ZSTD_compress(z, cap, text, n, 3));
    free(z);
    free(text);
    free(path);
    free(gz);
}

TEST(packed_input_and_stdin_are_the_same_text) {
    make_corpus();
    pack("corpus.txt", "corpus.txt.gz", "corpus.txt.zst");
    BUILD(2, "plain", "tokenize.inputs=[\"@corpus.txt\"]", STANDARD);
    BUILD(2, "gz", "tokenize.inputs=[\"@corpus.txt.gz\"]", STANDARD);
    BUILD(2, "zst", "tokenize.inputs=[\"@corpus.txt.zst\"]", STANDARD);
    char *path = at("corpus.txt");
    int keep = dup(0), fd = open(path, O_RDONLY);
    dup2(fd, 0);
    BUILD(2, "stdin", "tokenize.inputs=[\"-\"]", STANDARD);
    dup2(keep, 0);
    close(keep);
    close(fd);
    free(path);
    same_shards("plain", "gz");
    same_shards("plain", "zst");
    same_shards("plain", "stdin");
    char *left = at("stdin/stdin.tmp");
    CHECK(!cm_exists(left));
    free(left);
}

TEST(json_lines_hold_the_same_documents) {
    cm_buf json = { 0 }, text = { 0 };
    for (uint64_t i = 0; i < 300; i++) {
        cm_buf d = { 0 };
        put_doc(&d, i);
        cm_buf_addf(&json, "{\"id\": %d, \"body\": \"", (int)i);
        for (size_t k = 0; k < d.n; k++)
            if (d.s[k] == '\n') cm_buf_addf(&json, "\\n");
            else cm_buf_add(&json, d.s + k, 1);
        cm_buf_addf(&json, "\"}\n");
        cm_buf_free(&d);
    }
    put_docs(&text, 0, 300);
    put("same.jsonl", json.s, json.n);
    put("same.txt", text.s, text.n);
    BUILD(1, "fromtxt", "tokenize.inputs=[\"@same.txt\"]", "tokenize.vocab_size=400");
    BUILD(1, "fromjson", "tokenize.inputs=[\"@same.jsonl\"]", "tokenize.vocab_size=400",
          "tokenize.field=body");
    cm_dataset a, b;
    if (open_set(&a, "fromtxt") && open_set(&b, "fromjson")) {
        static int32_t x[1 << 16], y[1 << 16];
        cm_err err;
        CHECK(a.n_tokens[0] == b.n_tokens[0] && a.n_docs[0] == b.n_docs[0]);
        CHECK(!strcmp(a.tokenizer, b.tokenizer));
        CHECK(cm_dataset_read(&a, CM_SPLIT_TRAIN, 0, a.n_tokens[0], x, NULL, &err));
        CHECK(cm_dataset_read(&b, CM_SPLIT_TRAIN, 0, b.n_tokens[0], y, NULL, &err));
        CHECK(!memcmp(x, y, (size_t)a.n_tokens[0] * 4));
        cm_dataset_close(&a);
        cm_dataset_close(&b);
    }
    cm_buf_free(&json);
    cm_buf_free(&text);
}

/* ---- documents ---- */

/* The documents of one file under some settings, joined by '|'; "v:" marks validation. */
static void docs_are(const char *want, int n, const char *const *word) {
    job j;
    cm_err err = { 0 };
    job_open(&j, 1, "unused", n, word);
    char **path;
    int n_path;
    CHECK(cm_paths_expand(j.conf.tokenize.inputs.v, j.conf.tokenize.inputs.n, &path, &n_path,
                          &err));
    cm_docs d;
    cm_docs_open(&d, &j.conf.tokenize, path, path, n_path, 0, NULL);
    cm_buf b = { 0 };
    cm_doc doc;
    bool end = false, ok;
    while ((ok = cm_docs_next(&d, &doc, &end, &err)) && !end)
        cm_buf_addf(&b, "%s%.*s", b.n ? "|" : "", (int)doc.n, doc.s);
    cm_buf_add(&b, "", 0);
    CHECKF(ok && !strcmp(b.s, want), "got '%s', want '%s' %s", b.s, want, err.msg);
    cm_buf_free(&b);
    cm_docs_close(&d);
    cm_paths_free(path, n_path);
    cm_conf_close(&j.conf);
}

TEST(documents_are_cut_as_told) {
    put_text("d.txt", "\xEF\xBB\xBF\n a b\n\nc \n<|endoftext|>\n<|endoftext|>\r\nd\r\ne\r\n\n");
    docs_are(" a b\n\nc |d\ne", WORDS("tokenize.inputs=[\"@d.txt\"]"));
    docs_are(" a b\n\nc \n<|endoftext|>\n<|endoftext|>\r\nd\r\ne",
             WORDS("tokenize.inputs=[\"@d.txt\"]", "tokenize.split=file"));
    docs_are(" a b|c |<|endoftext|>|d|e",
             WORDS("tokenize.inputs=[\"@d.txt\"]", "tokenize.split=line"));
    docs_are(" a b|c \n<|endoftext|>\n<|endoftext|>\nd\ne",
             WORDS("tokenize.inputs=[\"@d.txt\"]", "tokenize.split=blank"));
    put_text("m.txt", "a\n==\nb\n== \nc");
    docs_are("a|b\n== \nc", WORDS("tokenize.inputs=[\"@m.txt\"]", "tokenize.marker==="));
    put_text("dup.txt", "x\ny\nx\n\nz\ny");
    docs_are("x|y|z", WORDS("tokenize.inputs=[\"@dup.txt\"]", "tokenize.split=line"));
    docs_are("x|y|x|z|y", WORDS("tokenize.inputs=[\"@dup.txt\"]", "tokenize.split=line",
                                "tokenize.dedup=false"));
}

TEST(growing_a_corpus_moves_no_document) {
    cm_tokenize_conf t = { .val_frac = 0.3, .max_doc = 1 << 20, .marker = "<|endoftext|>",
                           .dedup = true };
    cm_buf small = { 0 }, large = { 0 };
    put_docs(&small, 0, 100);
    put_docs(&large, 500, 700); /* others come before */
    put_docs(&large, 0, 100);
    put_docs(&large, 0, 50); /* and repeats behind */
    put("small.txt", small.s, small.n);
    put("large.txt", large.s, large.n);
    char *p[] = { at("small.txt"), at("large.txt") };
    bool val[2][1000] = { 0 };
    int n[2] = { 0 }, held = 0;
    for (int k = 0; k < 2; k++) {
        cm_docs d;
        cm_doc doc;
        cm_err err;
        bool end = false;
        cm_docs_open(&d, &t, &p[k], &p[k], 1, 0, NULL);
        while (cm_docs_next(&d, &doc, &end, &err) && !end) {
            const char *dot = memrchr(doc.s, ' ', doc.n);
            val[k][atoi(dot)] = doc.split == CM_SPLIT_VAL;
            n[k]++;
        }
        CHECK(d.tally[0].duplicate == (k ? 50u : 0u));
        cm_docs_close(&d);
    }
    CHECK(n[0] == 100 && n[1] == 300);
    for (int i = 0; i < 100; i++) {
        CHECK(val[0][i] == val[1][i]);
        held += val[0][i];
    }
    CHECKF(held > 10 && held < 50, "%d of 100 held out at 0.3", held);
    cm_buf_free(&small);
    cm_buf_free(&large);
    free(p[0]);
    free(p[1]);
}

TEST(validation_inputs_take_their_documents) {
    cm_buf train = { 0 }, val = { 0 };
    put_docs(&train, 0, 200);
    put_docs(&val, 150, 220);
    put("t.txt", train.s, train.n);
    put("v.txt", val.s, val.n);
    BUILD(2, "vi", "tokenize.inputs=[\"@t.txt\"]", "tokenize.val_inputs=[\"@v.txt\"]",
          "tokenize.val_frac=0", "tokenize.vocab_size=400");
    cm_dataset d;
    if (open_set(&d, "vi")) {
        CHECK(d.n_docs[CM_SPLIT_VAL] == 70 && d.n_docs[CM_SPLIT_TRAIN] == 150);
        cm_dataset_close(&d);
    }
    cm_buf_free(&train);
    cm_buf_free(&val);
}

/* ---- trouble ---- */

static bool report_has(const char *out, const char *what) {
    char *path = cm_strf("%s/%s/rejected.jsonl", t_tmpdir(), out), *text;
    size_t n;
    cm_err err;
    bool ok = cm_read_file(path, 1 << 20, &text, &n, &err) && strstr(text, what);
    CHECKF(ok, "no %s in %s", what, text);
    free(text);
    free(path);
    return ok;
}

TEST(bad_documents_are_reported_with_their_line) {
    cm_buf b = { 0 };
    put_docs(&b, 0, 100);
    cm_buf_addf(&b, "\n<|endoftext|>\nfine\nnot \xC3( fine\n<|endoftext|>\n");
    size_t line = 0;
    for (size_t i = 0; i < b.n; i++) line += b.s[i] == '\n';
    cm_buf_add(&b, "zero\0byte\n<|endoftext|>\n", 24);
    for (int i = 0; i < 3000; i++) cm_buf_addf(&b, "long ");
    put("bad.txt", b.s, b.n);
    put_text("bad.jsonl", "{\"text\": \"good\"}\n{\"text\": 5}\n{\"text\": \"x\", }\n\n"
                          "{\"text\": \"\\ud800\"}\n{\"no\": \"\"}\n{\"text\": \"\xff\"}\n");
    BUILD(2, "bad", "tokenize.inputs=[\"@bad.txt\", \"@bad.jsonl\"]", "tokenize.max_doc=10kB",
          "tokenize.vocab_size=400");
    char *want = cm_strf("bad.txt\", \"line\": %zu, \"reason\": \"invalid UTF-8", line - 1);
    report_has("bad", want);
    free(want);
    want = cm_strf("bad.txt\", \"line\": %zu, \"reason\": \"zero byte", line + 1);
    report_has("bad", want);
    free(want);
    want = cm_strf("bad.txt\", \"line\": %zu, \"reason\": \"longer than", line + 3);
    report_has("bad", want);
    free(want);
    report_has("bad", "bad.jsonl\", \"line\": 2, \"reason\": \"column 10: the field is not");
    report_has("bad", "bad.jsonl\", \"line\": 3, ");
    report_has("bad", "bad.jsonl\", \"line\": 5, ");
    report_has("bad", "bad.jsonl\", \"line\": 6, \"reason\": \"no field 'text'");
    report_has("bad", "bad.jsonl\", \"line\": 7, \"reason\": \"invalid UTF-8");
    cm_dataset d;
    if (open_set(&d, "bad")) {
        CHECK(d.n_docs[0] + d.n_docs[1] == 101);
        cm_dataset_close(&d);
    }
    cm_buf_free(&b);
}

TEST(a_run_without_spaces_is_rejected) {
    cm_buf b = { 0 };
    put_docs(&b, 0, 100);
    cm_buf_addf(&b, "\n<|endoftext|>\n");
    for (int i = 0; i < 2000000; i++) cm_buf_add(&b, "a", 1);
    put("run.txt", b.s, b.n);
    BUILD(1, "run", "tokenize.inputs=[\"@run.txt\"]", "tokenize.vocab_size=400");
    report_has("run", "2000000 bytes without a space");
    cm_buf_free(&b);
}

TEST(what_cannot_be_done_is_a_sentence) {
    cm_err err;
    make_corpus();
    put_text("empty.txt", "");
    put_text("blank.txt", "\n\n\n<|endoftext|>\n\n");
    CHECK(!build(1, "e1", &err, WORDS("tokenize.inputs=[\"@empty.txt\", \"@blank.txt\"]")));
    CHECKF(err.code == CM_EXIT_USAGE && strstr(err.msg, "corpus is empty"), "%s", err.msg);
    CHECK(!build(1, "e2", &err, WORDS("tokenize.inputs=[\"@none.txt\"]")));
    CHECKF(err.code == CM_EXIT_USAGE && strstr(err.msg, "none.txt"), "%s", err.msg);
    CHECK(!build(1, "e3", &err, WORDS("tokenize.inputs=[]")) && err.code == CM_EXIT_USAGE);
    CHECK(!build(1, "e4", &err, WORDS("tokenize.inputs=[\"@corpus.txt\"]",
                                      "tokenize.vocab_size=50000")));
    CHECKF(err.code == CM_EXIT_USAGE && strstr(err.msg, "at most"), "%s", err.msg);
    /* The failure left nothing that hinders the next try. */
    BUILD(1, "e4", "tokenize.inputs=[\"@corpus.txt\"]", "tokenize.vocab_size=400");
    CHECK(!build(1, "e4", &err, WORDS("tokenize.inputs=[\"@corpus.txt\"]",
                                      "tokenize.vocab_size=400")));
    CHECKF(err.code == CM_EXIT_USAGE && strstr(err.msg, "finished"), "%s", err.msg);
    char *dir = at("e4");
    int fd = open(dir, O_RDONLY | O_DIRECTORY);
    CHECK(!flock(fd, LOCK_EX));
    CHECK(!cm_corpus_clear(dir, &err) && strstr(err.msg, "in use"));
    close(fd);
    CHECK(cm_corpus_clear(dir, &err) && !rmdir(dir)); /* nothing of ours is left */
    free(dir);
}

/* ---- interruption ---- */

typedef struct killer {
    const char *dir;
    int shards;
} killer;

/* Dies like a power cut once so many training shards are there. */
static bool kill_at(void *ctx, const cm_corpus_progress *p) {
    const killer *k = ctx;
    char *path = cm_strf("%s/train-%05d.tok.zst", k->dir, k->shards);
    if (!strcmp(p->stage, "encode") && cm_exists(path)) kill(getpid(), SIGKILL);
    free(path);
    return true;
}

/* Build in a child that is killed; true when it was. */
static bool killed_build(const char *out, int shards, int n, const char *const *word) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        job j;
        cm_err err;
        char *dir = at(out);
        killer k = { dir, shards };
        job_open(&j, 1, out, n, word);
        j.c.progress = kill_at;
        j.c.ctx = &k;
        _exit(cm_corpus_build(&j.c, &err) ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status);
}

/* Enough text for several batches, so that shards appear while there is more to read. */
static void make_large(void) {
    static bool made;
    if (made) return;
    made = true;
    cm_buf b = { 0 };
    put_docs(&b, 0, 90000);
    put("large_corpus.txt", b.s, b.n);
    cm_buf_free(&b);
}
#define LARGE "tokenize.inputs=[\"@large_corpus.txt\"]", "tokenize.vocab_size=400",          \
              "tokenize.sample_bytes=200kB", "tokenize.shard_tokens=900k"

static ino_t inode(const char *out, const char *file) {
    char *path = cm_strf("%s/%s/%s", t_tmpdir(), out, file);
    struct stat st = { 0 };
    CHECK(!stat(path, &st));
    free(path);
    return st.st_ino;
}

TEST(a_killed_run_is_completed_to_the_same_bytes) {
    make_large();
    BUILD(2, "whole", LARGE);
    CHECK(killed_build("cut", 1, WORDS(LARGE)));
    char *manifest = at("cut/manifest.json"), *junk = at("cut/train-00002.tok.zst.77.tmp");
    cm_err err;
    CHECK(!cm_exists(manifest));
    CHECK(cm_write_file(junk, "half a shard", 12, &err));
    ino_t first = inode("cut", "train-00000.tok.zst");
    BUILD(2, "cut", LARGE);
    CHECK(inode("cut", "train-00000.tok.zst") == first); /* kept, not made again */
    CHECK(same_file("whole", "cut", "manifest.json"));
    CHECK(same_file("whole", "cut", "train-00000.tok.zst"));
    CHECK(same_file("whole", "cut", "train-00002.tok.zst"));
    CHECK(same_file("whole", "cut", "val-00000.tok.zst"));
    CHECK(!cm_exists(junk));
    free(junk);
    free(manifest);
}

TEST(a_damaged_finished_shard_is_made_again) {
    make_large();
    BUILD(2, "whole2", LARGE);
    CHECK(killed_build("hurt", 1, WORDS(LARGE)));
    char *path = at("hurt/train-00000.tok.zst");
    FILE *f = fopen(path, "r+b");
    CHECK(f && !fseek(f, 3000, SEEK_SET) && fputc('x', f) != EOF && !fclose(f));
    BUILD(2, "hurt", LARGE);
    CHECK(same_file("whole2", "hurt", "manifest.json"));
    CHECK(same_file("whole2", "hurt", "train-00000.tok.zst"));
    free(path);
}

TEST(changed_inputs_are_not_mixed_into_old_shards) {
    make_large();
    CHECK(killed_build("mixed", 1, WORDS(LARGE)));
    char *path = at("large_corpus.txt"), *text;
    size_t n;
    cm_err err;
    CHECK(cm_read_file(path, 1 << 26, &text, &n, &err));
    text[100] ^= 1; /* same size */
    put("large_corpus.txt", text, n);
    CHECK(!build(2, "mixed", &err, WORDS(LARGE)));
    CHECKF(err.code == CM_EXIT_DATA && strstr(err.msg, "changed"), "%s", err.msg);
    text[100] ^= 1;
    put("large_corpus.txt", text, n);
    CHECK(!build(2, "mixed", &err, WORDS(LARGE, "tokenize.dedup=false")));
    CHECKF(err.code == CM_EXIT_USAGE && strstr(err.msg, "another"), "%s", err.msg);
    free(text);
    free(path);
}

/* ---- the vocabulary's sample ---- */

static void sample_once(uint64_t seed, uint64_t max, char **text, size_t *n) {
    cm_tokenize_conf t = { .max_doc = 1 << 20, .marker = "<|endoftext|>", .dedup = true };
    char *in = at("corpus.txt"), *out = at("sample.out");
    cm_docs d;
    cm_err err;
    cm_docs_open(&d, &t, &in, &in, 1, 0, NULL);
    CHECK(cm_sample_lines(&d, seed, max, out, &err));
    CHECK(cm_read_file(out, 1 << 24, text, n, &err));
    cm_docs_close(&d);
    free(in);
    free(out);
}

TEST(the_sample_is_bounded_seeded_and_even) {
    make_corpus();
    char *all, *a, *b, *c;
    size_t n_all, na, nb, nc;
    sample_once(1, 1 << 24, &all, &n_all);
    sample_once(1, 20000, &a, &na);
    sample_once(1, 20000, &b, &nb);
    sample_once(2, 20000, &c, &nc);
    CHECKF(na <= 20000 && na > 19000 && n_all > 60000, "%zu of %zu", na, n_all);
    CHECK(na == nb && !memcmp(a, b, na));
    CHECK(nc != na || memcmp(a, c, na));
    size_t half[2] = { 0, 0 }; /* lines from the first and second half of the text */
    for (char *line = strtok(a, "\n"); line; line = strtok(NULL, "\n")) {
        char *p = strstr(all, line);
        CHECK(p != NULL);
        half[p && (size_t)(p - all) > n_all / 2]++;
    }
    CHECKF(half[0] > half[1] / 2 && half[1] > half[0] / 2, "%zu and %zu lines", half[0],
           half[1]);
    free(all);
    free(a);
    free(b);
    free(c);
}
