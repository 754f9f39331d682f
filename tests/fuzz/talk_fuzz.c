/* talk_fuzz.c -- chat and preference data of any bytes: refused with a reason, or turns that
 * hold together and render. */
#include "text/corpus_int.h"
#include "tests/fuzz/scratch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a reader of turns relies on. */
static void check(const cm_talk *t, bool pair) {
    int answers = 0;
    if (t->n < 2 + pair) abort();
    for (int i = 0; i < t->n; i++) {
        const cm_turn *u = &t->turn[i];
        size_t bad;
        if (!cm_utf8_valid(u->text, u->n, &bad) || memchr(u->text, 0, u->n)) abort();
        if (u->think && !cm_utf8_valid(u->think, u->n_think, &bad)) abort();
        answers += u->role == CM_ROLE_ASSISTANT;
        if (u->role == CM_ROLE_SYSTEM && i) abort();
    }
    if (!answers || t->turn[t->n - 1].role != CM_ROLE_ASSISTANT) abort();
    if (pair && t->turn[t->n - 2].role != CM_ROLE_ASSISTANT) abort();
}

static void read_one(const char *s, size_t n, bool pair) {
    static cm_talk t;
    char whole[65], opening[65];
    if (!cm_talk_read(&t, s, n, pair)) {
        if (!t.why[0] || t.reject >= CM_N_REJECTS) abort();
        return;
    }
    check(&t, pair);
    cm_talk_hash(&t, whole, opening);
    if (cm_talk_bytes(&t) > n) abort();
}

/* A conversation to be answered ends with the user. */
static void read_prompt(const char *s, size_t n) {
    static cm_talk t;
    if (cm_talk_read_prompt(&t, s, n)) {
        if (t.turn[t.n - 1].role != CM_ROLE_USER) abort();
    } else if (!t.why[0] || t.reject >= CM_N_REJECTS) {
        abort();
    }
}

/* The same bytes as a file, for what finds lines and arrays. */
static void read_file(const uint8_t *data, size_t size, cm_shard_kind kind) {
    static char path[160];
    static FILE *f;
    if (!f) {
        snprintf(path, sizeof path, "%s", scratch("talk"));
        f = fopen(path, "wb");
        if (!f) abort();
    }
    rewind(f);
    if (ftruncate(fileno(f), 0) || (size && fwrite(data, 1, size, f) != size) || fflush(f)) abort();
    cm_tokenize_conf conf = { .max_doc = 1 << 16, .marker = "x", .field = "text", .dedup = true,
                              .val_frac = 0.1 };
    char *name[] = { path };
    cm_docs d;
    cm_doc doc;
    cm_err err;
    cm_shard_kind found;
    bool end = false;
    cm_docs_open(&d, &conf, name, name, 1, 0, NULL);
    cm_docs_probe(&d, &found, &err);
    cm_docs_close(&d);
    cm_docs_open(&d, &conf, name, name, 1, 0, NULL);
    d.kind = kind;
    while (cm_docs_next(&d, &doc, &end, &err) && !end) check(doc.talk, kind == CM_SHARD_DPO);
    cm_docs_close(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *s = (const char *)data;
    size_t bad;
    cm_talk_kind(s, size, "text");
    if (cm_utf8_valid(s, size, &bad)) {
        read_one(s, size, false);
        read_one(s, size, true);
        read_prompt(s, size);
    }
    read_file(data, size, size % 2 ? CM_SHARD_SFT : CM_SHARD_DPO);
    return 0;
}
