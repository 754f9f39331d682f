/* jsonl_test.c -- the field reader of JSON lines, and the streams under it. */
#include "io/io.h"
#include "tests/t.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static void gives(const char *line, const char *want) {
    cm_buf b = { 0 };
    cm_err err = { 0 };
    bool ok = cm_jsonl_field(line, strlen(line), "text", &b, &err);
    CHECKF(ok == (want != NULL), "%s: %s", line, ok ? b.s : err.msg);
    if (ok && want)
        CHECKF(b.n == strlen(want) && !memcmp(b.s, want, b.n), "%s: '%.*s'", line, (int)b.n,
               b.s);
    if (!ok) CHECK(b.n == 0 && err.code == CM_EXIT_DATA);
    cm_buf_free(&b);
}

TEST(fields_are_found_and_decoded) {
    gives("{\"text\":\"abc\"}", "abc");
    gives(" { \"a\" : [1, {\"text\": \"no\"}, []] , \"text\" : \"\" } ", "");
    gives("{\"text\":\"\\u0041\\n\\t\\\"\\\\\\/\\b\\f\\r\"}", "A\n\t\"\\/\b\f\r");
    gives("{\"text\":\"\\u0928\\uD83D\\uDE00\\u00e9\"}", "\u0928\U0001F600\u00e9");
    gives("{\"te\\u0078t\":\"x\",\"n\":-1.5e+3,\"t\":true,\"f\":false,\"z\":null}", "x");
    gives("{\"n\":0,\"m\":0.25,\"o\":{},\"p\":[],\"q\":[[[]]],\"text\":\"y\"}", "y");
}

TEST(what_is_not_json_or_not_there_is_refused) {
    static const char *const bad[] = {
        "", "{", "{}", "[]", "null", "{\"a\":1}", "{\"text\":1}", "{\"text\":null}",
        "{\"text\":\"a\"", "{\"text\":\"a\"}}", "{\"text\":\"a\"} x", "{\"text\":\"a\",}",
        "{\"text\":\"a\" \"b\":1}", "{\"text\":\"a\",\"text\":\"b\"}", "{'text':'a'}",
        "{\"text\":\"\\uD800\"}", "{\"text\":\"\\uDC00\"}", "{\"text\":\"\\uD800\\u0041\"}",
        "{\"text\":\"\\u12\"}", "{\"text\":\"\\x\"}", "{\"text\":\"a\nb\"}", "{\"text\":",
        "{\"n\":01,\"text\":\"a\"}", "{\"n\":1.,\"text\":\"a\"}", "{\"n\":-,\"text\":\"a\"}",
        "{\"n\":tru,\"text\":\"a\"}", "{\"n\":[1,],\"text\":\"a\"}",
        "{\"n\":[1 2],\"text\":\"a\"}", "{\"n\":{\"a\"},\"text\":\"a\"}",
        "{\"n\":[}],\"text\":\"a\"}", "{\"n\":+1,\"text\":\"a\"}", "{1:2,\"text\":\"a\"}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) gives(bad[i], NULL);
}

TEST(nesting_is_bounded) {
    cm_buf b = { 0 }, out = { 0 };
    cm_err err;
    for (int depth = 200; depth <= 100000; depth *= 500) {
        b.n = 0;
        cm_buf_addf(&b, "{\"text\":\"a\",\"x\":");
        for (int i = 0; i < depth; i++) cm_buf_addf(&b, "[");
        for (int i = 0; i < depth; i++) cm_buf_addf(&b, "]");
        cm_buf_addf(&b, "}");
        CHECK(cm_jsonl_field(b.s, b.n, "text", &out, &err) == (depth == 200));
    }
    cm_buf_free(&b);
    cm_buf_free(&out);
}

/* ---- trees ---- */

/* The tree written out again: members in order, strings in quotes. */
static void put_tree(const cm_json_tree *t, int k, cm_buf *b) {
    const cm_json_node *v = &t->node[k];
    bool list = v->type == CM_JSON_ARRAY, object = v->type == CM_JSON_OBJECT;
    if (!list && !object) {
        cm_buf_addf(b, v->type == CM_JSON_STRING ? "'%.*s'" : "%.*s", (int)v->n,
                    t->text.s + v->at);
        return;
    }
    int n = 0;
    cm_buf_addf(b, list ? "[" : "{");
    for (int c = v->first; c >= 0; c = t->node[c].next, n++) {
        if (n) cm_buf_addf(b, ",");
        if (object) cm_buf_addf(b, "%s=", t->text.s + t->node[c].key);
        put_tree(t, c, b);
    }
    CHECK(n == v->count);
    cm_buf_addf(b, list ? "]" : "}");
}

TEST(a_tree_holds_what_the_text_says) {
    static const struct { const char *json, *want; } cases[] = {
        { " 7 ", "7" }, { "[]", "[]" }, { "{}", "{}" }, { "\"\\u0905\"", "'\u0905'" },
        { "[1, [2,[]], {\"a\":{\"b\":[true,null]},\"c\":-1.5e3}, \"x\"]",
          "[1,[2,[]],{a={b=[true,null]},c=-1.5e3},'x']" },
        { "{\"a\":{\"a\":1},\"b\":[{\"a\":2}]}", "{a={a=1},b=[{a=2}]}" },
        { "", NULL }, { "[", NULL }, { "[1", NULL }, { "[1,]", NULL }, { "{\"a\"}", NULL },
        { "{\"a\":1,}", NULL }, { "{\"a\":1,\"a\":2}", NULL }, { "[1]2", NULL }, { "[1}", NULL },
        { "{\"a\":1,\"\\u0061\":2}", NULL }, { "\"\\ud800\"", NULL }, { "nul", NULL },
    };
    cm_json_tree t = { 0 };
    cm_err err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cm_buf b = { 0 };
        bool ok = cm_json_tree_read(&t, cases[i].json, strlen(cases[i].json), &err);
        if (ok) put_tree(&t, 0, &b);
        CHECKF(ok == (cases[i].want != NULL) && (!ok || !strcmp(b.s, cases[i].want)), "%s: %s",
               cases[i].json, ok ? b.s : err.msg);
        cm_buf_free(&b);
    }
    CHECK(cm_json_tree_read(&t, "{\"a\":1,\"bc\":[2]}", 16, &err));
    CHECK(cm_json_tree_get(&t, 0, "bc") == 2 && cm_json_tree_get(&t, 0, "b") == -1 &&
          cm_json_tree_get(&t, 2, "bc") == -1 && cm_json_tree_get(&t, -1, "a") == -1);
    cm_buf b = { 0 };
    for (int n = 1000; n <= 2000; n += 1000) { /* members are bounded */
        b.n = 0;
        for (int i = 0; i < n; i++) cm_buf_addf(&b, "%c\"%d\":0", i ? ',' : '{', i);
        cm_buf_addf(&b, "}");
        CHECK(cm_json_tree_read(&t, b.s, b.n, &err) == (n == 1000));
    }
    b.n = 0;
    for (int i = 0; i < 300; i++) cm_buf_addf(&b, "[");
    CHECK(!cm_json_tree_read(&t, b.s, b.n, &err) && strstr(err.msg, "deeply"));
    cm_buf_free(&b);
    cm_json_tree_free(&t);
}

/* ---- streams ---- */

static char *write_tmp(const char *name, const void *p, size_t n) {
    char *path = cm_strf("%s/%s", t_tmpdir(), name);
    cm_err err;
    CHECK(cm_write_file(path, p, n, &err));
    return path;
}

static size_t gz(const char *s, size_t n, char *out, size_t cap) {
    z_stream z = { 0 };
    deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    z.next_in = (Bytef *)s;
    z.avail_in = (uInt)n;
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)cap;
    deflate(&z, Z_FINISH);
    size_t got = cap - z.avail_out;
    deflateEnd(&z);
    return got;
}

static void same_text(const char *path, const char *want, size_t n) {
    cm_err err = { 0 };
    cm_src *s = cm_src_open(path, &err);
    CHECKF(s, "%s", err.msg);
    char *text = malloc(n + 100);
    size_t at = 0, got = 1;
    while (s && got && cm_src_read(s, text + at, n + 100 - at, &got, &err)) at += got;
    CHECKF(at == n && !memcmp(text, want, n), "%s: %zu of %zu bytes %s", path, at, n,
           err.msg);
    cm_src_close(s);
    free(text);
}

TEST(plain_gzip_and_zstd_give_the_same_bytes) {
    enum { N = 700000 };
    static char text[N], pack[2 * N];
    for (int i = 0; i < N; i++) text[i] = "abcdefg \n"[(i * 7 + i / 1000) % 9];
    char *plain = write_tmp("a.txt", text, N);
    size_t n = gz(text, N / 2, pack, sizeof pack);
    n += gz(text + N / 2, N - N / 2, pack + n, sizeof pack - n); /* two members */
    char *gzip = write_tmp("a.gz", pack, n), *cut = write_tmp("cut.gz", pack, n - 9);
    size_t z = ZSTD_compress(pack, sizeof pack, text, N / 3, 3);
    z += ZSTD_compress(pack + z, sizeof pack - z, text + N / 3, N - N / 3, 3);
    char *zst = write_tmp("a.zst", pack, z), *cutz = write_tmp("cut.zst", pack, z - 9);
    same_text(plain, text, N);
    same_text(gzip, text, N);
    same_text(zst, text, N);
    for (int k = 0; k < 2; k++) { /* truncated */
        cm_err err = { 0 };
        cm_src *s = cm_src_open(k ? cut : cutz, &err);
        size_t got = 1;
        bool ok = true;
        while (ok && got) ok = cm_src_read(s, pack, sizeof pack, &got, &err);
        CHECK(!ok && err.code == CM_EXIT_DATA);
        cm_src_close(s);
    }
    char *const all[] = { plain, gzip, cut, zst, cutz };
    for (int i = 0; i < 5; i++) free(all[i]);
}

TEST(lines_of_any_length) {
    enum { BIG = 3000000 };
    cm_buf b = { 0 };
    cm_buf_addf(&b, "one\n\ntwo\r\n");
    for (int i = 0; i < BIG; i++) cm_buf_add(&b, "x", 1);
    cm_buf_addf(&b, "\nlast");
    char *path = write_tmp("lines.txt", b.s, b.n);
    const size_t len[] = { 3, 0, 4, BIG, 4 };
    for (int pass = 0; pass < 2; pass++) {
        size_t max = pass ? 1000 : BIG;
        cm_err err;
        cm_src *s = cm_src_open(path, &err);
        bool end = false;
        int i = 0;
        for (;; i++) {
            cm_line l;
            CHECK(cm_src_line(s, max, &l, &end, &err));
            if (end || i == 5) break;
            CHECK(l.number == (uint64_t)i + 1 && l.too_long == (len[i] > max));
            if (!l.too_long) CHECKF(l.n == len[i], "line %d: %zu bytes", i, l.n);
            if (i == 4) CHECK(!memcmp(l.s, "last", 4));
        }
        CHECKF(end && i == 5, "%d lines", i);
        cm_src_close(s);
    }
    free(path);
    cm_buf_free(&b);
}

TEST(paths_are_expanded_in_order) {
    cm_err err;
    char *dir = cm_strf("%s/in", t_tmpdir()), *sub = cm_strf("%s/sub", dir);
    CHECK(cm_mkdirs(sub, &err));
    static const char *const name[] = { "in/b.txt", "in/a.jsonl.zst", "in/sub/c.txt.gz",
                                        "in/skip.bin", "in/.hidden.txt" };
    for (int i = 0; i < 5; i++) free(write_tmp(name[i], "x", 1));
    char *glob = cm_strf("%s/*.txt", dir);
    const char *item[] = { dir, "-", glob };
    static const char *const want[] = { "/in/a.jsonl.zst", "/in/b.txt", "/in/sub/c.txt.gz",
                                        "-", "/in/b.txt" };
    char **path;
    int n;
    CHECK(cm_paths_expand(item, 3, &path, &n, &err));
    CHECKF(n == 5, "%d paths", n);
    for (int i = 0; i < n && i < 5; i++)
        CHECKF(strlen(path[i]) >= strlen(want[i]) &&
                   !strcmp(path[i] + strlen(path[i]) - strlen(want[i]), want[i]),
               "%d: %s", i, path[i]);
    cm_paths_free(path, n);
    const char *none = "/nonexistent/*.txt";
    CHECK(!cm_paths_expand(&none, 1, &path, &n, &err) && err.code == CM_EXIT_USAGE);
    free(glob);
    free(sub);
    free(dir);
}
