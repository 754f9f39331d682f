/* safetensors_test.c -- what is written reads back; wrong files give sentences. */
#include "io/io.h"
#include "tests/t.h"

#include <stdlib.h>
#include <string.h>

static char *tmp(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

static bool fill_ramp(void *ctx, int i, void *dst, cm_err *err) {
    (void)err;
    float *f = dst;
    for (int k = 0; k < 6; k++) f[k] = (float)(i * 100 + k);
    ++*(int *)ctx;
    return true;
}

static bool fill_fails(void *ctx, int i, void *dst, cm_err *err) {
    (void)ctx, (void)dst;
    return cm_fail(err, CM_EXIT_FAIL, "tensor %d went wrong", i);
}

TEST(round_trip) {
    char *path = tmp("a.safetensors");
    int32_t ints[3] = {1, -2, 3};
    float big[64];
    for (int i = 0; i < 64; i++) big[i] = (float)i / 3;
    uint16_t half[3] = {0x3c00, 0xc000, 0x7bff};
    cm_st_entry item[] = {{"ints", {CM_I32_T, 1, {3}, ints}},
                          {"quote\"\\\n", {CM_F32_T, 2, {2, 3}, NULL}},
                          {"big", {CM_F32_T, 3, {4, 1, 16}, big}},
                          {"half", {CM_F16_T, 1, {3}, half}},
                          {"empty", {CM_F32_T, 2, {0, 5}, NULL}},
                          {"scalar", {CM_F32_T, 0, {0}, big + 5}}};
    cm_st_meta meta[] = {{"format", "pt"}, {"note", "tab\there"}};
    cm_err err;
    int calls = 0;
    bool ok = cm_st_write(path, item, 6, meta, 2, fill_ramp, &calls, &err);
    CHECKF(ok, "%s", err.msg);
    CHECK(calls == 1);
    cm_st s;
    ok = ok && cm_st_open(&s, path, &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok) return;
    CHECK(s.n == 6);
    for (int i = 0; i < s.n; i++) {
        const cm_tensor *t = cm_st_find(&s, item[i].name);
        CHECKF(t && cm_tensor_same_shape(t, &item[i].t), "%s", item[i].name);
        if (t && item[i].t.data)
            CHECK(!memcmp(t->data, item[i].t.data, cm_tensor_bytes(t)));
    }
    const cm_tensor *t = cm_st_find(&s, "quote\"\\\n");
    for (int k = 0; t && k < 6; k++) CHECK(((float *)t->data)[k] == (float)(100 + k));
    t = cm_st_find(&s, "big");
    CHECK(t && (uintptr_t)t->data % 64 == 0);
    CHECK(!cm_st_find(&s, "nothing"));
    const char *note = cm_st_get_meta(&s, "note");
    CHECK(note && !strcmp(note, "tab\there"));
    CHECK(!cm_st_get_meta(&s, "nothing"));
    cm_st_close(&s);
    free(path);
}

TEST(failed_fill_leaves_the_old_file) {
    char *path = tmp("keep.safetensors");
    cm_err err;
    CHECK(cm_write_file(path, "old", 3, &err));
    cm_st_entry item = {"x", {CM_F32_T, 1, {4}, NULL}};
    CHECK(!cm_st_write(path, &item, 1, NULL, 0, fill_fails, NULL, &err));
    CHECK(strstr(err.msg, "went wrong"));
    char *text;
    size_t n;
    CHECK(cm_read_file(path, 100, &text, &n, &err));
    CHECK(n == 3 && !memcmp(text, "old", 3));
    free(text);
    free(path);
}

/* Write header text plus `data` zero bytes, open, expect a data error with `want`. */
static void refuse(const char *header, size_t data, const char *want) {
    char *path = tmp("bad.safetensors");
    cm_buf b = {0};
    uint64_t n = strlen(header);
    cm_buf_add(&b, &n, 8);
    cm_buf_add(&b, header, n);
    for (size_t i = 0; i < data; i++) cm_buf_add(&b, "", 1);
    cm_err err = {0};
    cm_st s;
    CHECK(cm_write_file(path, b.s, b.n, &err));
    bool ok = cm_st_open(&s, path, &err);
    CHECKF(!ok, "accepted: %s", header);
    if (ok) cm_st_close(&s);
    CHECKF(err.code == CM_EXIT_DATA && strstr(err.msg, want), "%s\n    gave: %s", header,
           err.msg);
    cm_buf_free(&b);
    free(path);
}

#define F32(name, shape, from, to)                                                      \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" from "," to \
    "]}"

TEST(wrong_headers) {
    refuse("", 0, "not a JSON object");
    refuse("[1,2]", 0, "not a JSON object");
    refuse("{\"a\":", 0, "not a JSON object");
    refuse("{} {}", 0, "after the JSON header");
    refuse("{\"a\":1}", 0, "not a JSON object");
    refuse("{\"a\":{\"dtype\":\"F8_E5M2\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
           "dtype 'F8_E5M2'");
    refuse("{" F32("a", "[2]", "0", "8") "}", 7, "do not lie");
    refuse("{" F32("a", "[2]", "0", "8") "}", 9, "belong to nothing");
    refuse("{" F32("a", "[3]", "0", "8") "}", 8, "its shape needs 12");
    refuse("{" F32("a", "[2]", "8", "0") "}", 8, "do not lie");
    refuse("{" F32("a", "[-2]", "0", "8") "}", 8, "not a whole number");
    refuse("{" F32("a", "[1.5]", "0", "6") "}", 6, "not a whole number");
    refuse("{" F32("a", "[1,1,1,1,1]", "0", "4") "}", 4, "at most 4");
    refuse("{" F32("a", "[4294967296,4294967296,2]", "0", "4") "}", 4, "too large");
    refuse("{" F32("a", "[9007199254740992,512]", "0", "4") "}", 4, "too large");
    refuse("{" F32("a", "[1]", "0", "4") "," F32("b", "[1]", "8", "12") "}", 12,
           "does not start where");
    refuse("{" F32("a", "[2]", "0", "8") "," F32("b", "[2]", "4", "12") "}", 12,
           "does not start where");
    refuse("{" F32("a", "[1]", "0", "4") "," F32("a", "[1]", "4", "8") "}", 8, "twice");
    refuse("{\"__metadata__\":{\"a\":3}}", 0, "not a string");
}

TEST(short_files) {
    char *path = tmp("short.safetensors");
    cm_err err;
    cm_st s;
    CHECK(!cm_st_open(&s, path, &err)); /* missing */
    unsigned char bytes[9] = {0};
    CHECK(cm_write_file(path, bytes, 0, &err) && !cm_st_open(&s, path, &err));
    CHECK(cm_write_file(path, bytes, 7, &err) && !cm_st_open(&s, path, &err));
    memset(bytes, 0xff, 8);
    CHECK(cm_write_file(path, bytes, 9, &err) && !cm_st_open(&s, path, &err));
    CHECK(err.code == CM_EXIT_DATA);
    free(path);
}

/* A header of odd length puts floats at odd addresses: they must still read. */
TEST(misaligned_data) {
    const char *h = "{" F32("a", "[2]", "0", "8") "}";
    uint64_t n = strlen(h) + (strlen(h) % 2 == 0);
    cm_buf b = {0};
    cm_buf_add(&b, &n, 8);
    cm_buf_addf(&b, "%-*s", (int)n, h);
    float v[2] = {1.5f, -7};
    cm_buf_add(&b, v, 8);
    char *path = tmp("odd.safetensors");
    cm_err err;
    cm_st s;
    CHECK(cm_write_file(path, b.s, b.n, &err));
    bool ok = cm_st_open(&s, path, &err);
    CHECKF(ok, "%s", err.msg);
    if (ok) {
        const cm_tensor *t = cm_st_find(&s, "a");
        CHECK(t && (uintptr_t)t->data % 4 == 0 && !memcmp(t->data, v, 8));
        cm_st_close(&s);
    }
    cm_buf_free(&b);
    free(path);
}
