/* gguf_test.c -- GGUF files read, written, refused.
 *
 * Hostile files are made by damaging good ones: every truncation of a header must be
 * refused, and every single byte of it set to other values must not crash. */
#include "io/io.h"
#include "tests/t.h"

#include <stdlib.h>
#include <string.h>

#define GOLDEN "tests/golden/gguf/"

static char *tmp(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

TEST(reads_an_independent_file) {
    cm_gguf g;
    cm_err err;
    bool ok = cm_gguf_open(&g, GOLDEN "moe.f32.gguf", &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok) return;
    const cm_gguf_kv *kv = cm_gguf_find(&g, "general.architecture");
    CHECK(kv && kv->type == CM_GGUF_STR && kv->v.s.n == 13 &&
          !memcmp(kv->v.s.s, "granitehybrid", 13));
    kv = cm_gguf_find(&g, "granitehybrid.block_count");
    int64_t blocks = 0, heads = -1;
    CHECK(kv && cm_gguf_i64(kv, 0, &blocks) && blocks == 4);
    kv = cm_gguf_find(&g, "granitehybrid.attention.head_count_kv");
    CHECK(kv && kv->n == 4 && cm_gguf_i64(kv, 0, &heads) && heads == 0);
    CHECK(kv && !cm_gguf_i64(kv, 4, &heads));
    kv = cm_gguf_find(&g, "tokenizer.ggml.tokens");
    CHECK(kv && kv->elem == CM_GGUF_STR && kv->n == 320);
    const cm_tensor *t = cm_gguf_tensor(&g, "token_embd.weight");
    CHECK(t && t->nd == 2 && t->dim[0] == 320 && t->dtype == CM_F32_T);
    t = cm_gguf_tensor(&g, "blk.0.ssm_a");
    CHECK(t && t->nd == 2 && t->dim[1] == 1);
    for (int64_t i = 0; t && i < t->dim[0]; i++) CHECK(((float *)t->data)[i] < 0);
    CHECK(!cm_gguf_tensor(&g, "blk.99.ssm_a") && !cm_gguf_find(&g, "nothing"));
    cm_gguf_close(&g);
}

static bool fill_threes(void *ctx, int i, void *dst, cm_err *err) {
    (void)err;
    *(int *)ctx = i;
    for (int k = 0; k < 5; k++) ((float *)dst)[k] = 3;
    return true;
}

/* A small file with every kind of key that the writer knows. */
static void write_small(const char *path) {
    cm_gguf_out *g = cm_gguf_out_open();
    cm_gguf_str words[2] = {{"\xe2\x96\x81the", 6}, {"", 0}};
    float scores[3] = {0, -1, -2.5f};
    int32_t types[3] = {1, -2, 3};
    uint32_t counts[1] = {4000000000u};
    cm_gguf_put_str(g, "general.architecture", "test");
    cm_gguf_put_u32(g, "a.u32", 4000000000u);
    cm_gguf_put_f32(g, "a.f32", 0.1f);
    cm_gguf_put_bool(g, "a.yes", true);
    cm_gguf_put_bool(g, "a.no", false);
    cm_gguf_put_arr(g, "a.words", CM_GGUF_STR, words, 2);
    cm_gguf_put_arr(g, "a.scores", CM_GGUF_F32, scores, 3);
    cm_gguf_put_arr(g, "a.types", CM_GGUF_I32, types, 3);
    cm_gguf_put_arr(g, "a.counts", CM_GGUF_U32, counts, 1);
    float row[6] = {1, 2, 3, 4, 5, 6};
    uint16_t half[3] = {1, 2, 3};
    unsigned char q8[68] = {0, 0x3c, 5};
    cm_gguf_put_tensor(g, "rows", &(cm_tensor){CM_F32_T, 2, {2, 3}, row});
    cm_gguf_put_tensor(g, "half", &(cm_tensor){CM_BF16_T, 1, {3}, half});
    cm_gguf_put_tensor(g, "filled", &(cm_tensor){CM_F32_T, 1, {5}, NULL});
    cm_gguf_put_tensor(g, "q8", &(cm_tensor){CM_Q8_0_T, 2, {2, 32}, q8});
    cm_err err;
    int which = -1;
    bool ok = cm_gguf_out_write(g, path, fill_threes, &which, &err);
    CHECKF(ok, "%s", err.msg);
    CHECK(which == 2);
    cm_gguf_out_close(g);
}

TEST(round_trip) {
    char *path = tmp("small.gguf");
    write_small(path);
    cm_gguf g;
    cm_err err;
    bool ok = cm_gguf_open(&g, path, &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok) return;
    int64_t i;
    double f;
    CHECK(g.n_kv == 9 && g.n_tensor == 4);
    CHECK(cm_gguf_i64(cm_gguf_find(&g, "a.u32"), 0, &i) && i == 4000000000ll);
    CHECK(cm_gguf_f64(cm_gguf_find(&g, "a.f32"), 0, &f) && f == (double)0.1f);
    CHECK(!cm_gguf_i64(cm_gguf_find(&g, "a.f32"), 0, &i));
    CHECK(cm_gguf_find(&g, "a.yes")->v.b && !cm_gguf_find(&g, "a.no")->v.b);
    const cm_gguf_str *w = cm_gguf_find(&g, "a.words")->data;
    CHECK(w[0].n == 6 && !memcmp(w[0].s, "\xe2\x96\x81the", 6) && w[1].n == 0);
    CHECK(cm_gguf_f64(cm_gguf_find(&g, "a.scores"), 2, &f) && f == -2.5);
    CHECK(cm_gguf_i64(cm_gguf_find(&g, "a.types"), 1, &i) && i == -2);
    CHECK(cm_gguf_i64(cm_gguf_find(&g, "a.counts"), 0, &i) && i == 4000000000ll);
    const cm_tensor *t = cm_gguf_tensor(&g, "rows");
    CHECK(t && t->nd == 2 && t->dim[0] == 2 && t->dim[1] == 3 && cm_rdata(t)[5] == 6);
    t = cm_gguf_tensor(&g, "filled");
    CHECK(t && cm_rdata(t)[4] == 3);
    t = cm_gguf_tensor(&g, "q8");
    CHECK(t && t->dtype == CM_Q8_0_T && ((char *)t->data)[2] == 5);
    cm_gguf_close(&g);
    free(path);
}

TEST(every_truncation_is_refused) {
    char *path = tmp("small.gguf"), *cut = tmp("cut.gguf"), *bytes;
    write_small(path);
    cm_err err;
    size_t n;
    CHECK(cm_read_file(path, 1 << 20, &bytes, &n, &err));
    size_t need = n - (32 - 68 % 32); /* the last tensor's padding may be missing */
    for (size_t k = 0; k < need; k++) {
        cm_gguf g;
        CHECK(cm_write_file(cut, bytes, k, &err));
        bool ok = cm_gguf_open(&g, cut, &err);
        CHECKF(!ok && err.code == CM_EXIT_DATA, "%zu of %zu bytes accepted", k, n);
        if (ok) cm_gguf_close(&g);
    }
    free(bytes);
    free(path);
    free(cut);
}

/* Sum of all that a reader hands out, so that a wild pointer cannot hide. */
static double touch_all(const cm_gguf *g) {
    double sum = 0, f;
    for (int i = 0; i < g->n_kv; i++) {
        const cm_gguf_kv *kv = &g->kv[i];
        const cm_gguf_str *s = kv->type == CM_GGUF_ARR && kv->elem == CM_GGUF_STR
                                   ? kv->data : NULL;
        for (uint64_t k = 0; s && k < kv->n; k++)
            for (uint64_t b = 0; b < s[k].n; b++) sum += s[k].s[b];
        for (uint64_t k = 0; cm_gguf_f64(kv, k, &f) && k < 1000; k++) sum += f > 0;
    }
    for (int i = 0; i < g->n_tensor; i++) {
        const unsigned char *p = g->tensor[i].t.data;
        size_t n = cm_tensor_bytes(&g->tensor[i].t);
        for (size_t k = 0; k < n; k++) sum += p[k];
    }
    return sum;
}

TEST(no_damaged_byte_crashes) {
    char *path = tmp("small.gguf"), *bad = tmp("bad.gguf"), *bytes;
    write_small(path);
    cm_err err;
    size_t n;
    int accepted = 0;
    CHECK(cm_read_file(path, 1 << 20, &bytes, &n, &err));
    static const unsigned char flip[] = {0x01, 0x80, 0xff};
    for (size_t k = 0; k < n; k++)
        for (size_t j = 0; j < sizeof flip; j++) {
            cm_gguf g;
            bytes[k] = (char)(bytes[k] ^ flip[j]);
            CHECK(cm_write_file(bad, bytes, n, &err));
            if (cm_gguf_open(&g, bad, &err)) {
                accepted += touch_all(&g) > -1e30;
                cm_gguf_close(&g);
            } else {
                CHECK(err.code == CM_EXIT_DATA && strstr(err.msg, bad) == err.msg);
            }
            bytes[k] = (char)(bytes[k] ^ flip[j]);
        }
    CHECK(accepted > 0);
    free(bytes);
    free(path);
    free(bad);
}

/* Replace the first `from` in the small file by `to` (same length); expect `want`. */
static void refuse(const char *from, const char *to, size_t len, const char *want) {
    char *path = tmp("small.gguf"), *bytes;
    cm_err err;
    size_t n;
    write_small(path);
    CHECK(cm_read_file(path, 1 << 20, &bytes, &n, &err));
    char *at = memmem(bytes, n, from, len);
    CHECKF(at != NULL, "nothing to replace for '%s'", want);
    if (at) memcpy(at, to, len);
    CHECK(cm_write_file(path, bytes, n, &err));
    cm_gguf g;
    bool ok = cm_gguf_open(&g, path, &err);
    if (ok) cm_gguf_close(&g);
    CHECKF(!ok && err.code == CM_EXIT_DATA && strstr(err.msg, want), "wanted '%s': %s",
           want, ok ? "accepted" : err.msg);
    free(bytes);
    free(path);
}

TEST(wrong_files) {
    refuse("GGUF", "GGML", 4, "not a GGUF file");
    refuse("GGUF\3", "GGUF\1", 5, "version 1");
    refuse("a.yes", "a.u32", 5, "'a.u32' appears twice");
    refuse("half", "rows", 4, "'rows' appears twice");
    refuse("a.f32\6", "a.f32\77", 6, "unknown type 63");
    refuse("rows\2", "rows\5", 5, "5 dimensions");
    /* "q8" {32,2}: the type's place holds IQ2_XXS (16), then a row of 31 */
    refuse("q8\2\0\0\0\x20\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\x08",
           "q8\2\0\0\0\x20\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\x10", 23, "IQ2_XXS (16)");
    refuse("q8\2\0\0\0\x20", "q8\2\0\0\0\x1f", 7, "is impossible");
    refuse("rows\2\0\0\0\3\0\0\0\0\0\0\0", "rows\2\0\0\0\3\0\0\0\0\0\0\x7f", 16,
           "is impossible");
    refuse("filled\1\0\0\0\5\0\0\0\0", "filled\1\0\0\0\5\0\0\0\1", 15, "larger than");
}
