/* pairs.c -- sampled answers to pairs of a better and a worse one, by the world's checker. */
#include "data/judge/judge.h"
#include "data/world/world.h"

#include <string.h>

static void member(cm_buf *b, const char *key, const char *s) {
    cm_buf_addf(b, "%s\"%s\":", b->n ? "," : "{", key);
    cm_world_json(b, s, strlen(s));
}

/* Something is said, and reasoning that begins ends before it: what `tokenize` takes. */
static bool is_whole(const char *out) {
    const char *end = strstr(out, "</think>");
    if (end) out = end + 8;
    return *out && (end || !strstr(out, "<think>"));
}

/* The first of the samples that is right (or wrong) and complete, or NULL. */
static const char *first(const cm_sampled *s, int n, int i, bool right) {
    for (int k = 0; k < n; k++)
        if ((s[k].right[i] > 0) == right && s[k].ended[i] && is_whole(s[k].out[i]))
            return s[k].out[i];
    return NULL;
}

bool cm_pairs_write(const cm_questions *q, const cm_sampled *s, int n_samples, const char *path,
                    cm_pairs_count *c, cm_err *err) {
    cm_out out;
    cm_buf b = {0};
    *c = (cm_pairs_count){0};
    if (!cm_out_open(&out, path, err)) return false;
    bool ok = true;
    for (int i = 0; ok && i < q->n; i++) {
        const char *good = first(s, n_samples, i, true);
        const char *bad = first(s, n_samples, i, false);
        if (!bad) {
            c->all_right++;
            continue;
        }
        if (!good && !*q->row[i].reply)
            continue; /* nothing better is known */
        c->own += good != NULL;
        c->pairs++;
        b.n = 0;
        member(&b, "id", q->row[i].id);
        member(&b, "prompt", q->row[i].prompt);
        member(&b, "chosen", good ? good : q->row[i].reply);
        member(&b, "rejected", bad);
        cm_buf_addf(&b, "}\n");
        ok = cm_out_write(&out, b.s, b.n, err);
    }
    cm_buf_free(&b);
    if (ok && !c->pairs)
        ok = cm_fail(err, CM_EXIT_DATA, "%s: no pairs: every answer is right", path);
    if (ok) return cm_out_commit(&out, err);
    cm_out_abort(&out);
    return false;
}
