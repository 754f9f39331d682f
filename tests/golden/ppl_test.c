/* ppl_test.c -- eval's llama mode against llama-perplexity itself, value by value.
 *
 * moe.f32.perplexity.txt is what llama-perplexity printed for moe.f32.gguf on ppl.txt
 * (-c 256 -fa off, F32 KV).  Running values must agree to 4 decimals: none further than
 * one unit of the last, and at most one rounded the other way (value 5, 329.46575, where
 * the double build sides with us). */
#include "harness/harness.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIR "tests/golden/gguf/"
enum { CTX = 256, MAX_CHUNKS = 256 };

typedef struct {
    double value[MAX_CHUNKS];
    int n;
} values;

static void note(void *ctx, int64_t chunk, double ppl) {
    values *v = ctx;
    CM_ASSERT(chunk == v->n && chunk < MAX_CHUNKS, "chunk %d out of order", (int)chunk);
    v->value[v->n++] = ppl;
}

/* "[1]327.3896,[2]330.3978,...\nFinal estimate: PPL = 325.9355 +/- 0.52738" */
static void read_theirs(values *v, double *final, double *se) {
    char *text;
    size_t n;
    cm_err err;
    CM_ASSERT(cm_read_file(DIR "moe.f32.perplexity.txt", 1 << 20, &text, &n, &err), "%s",
              err.msg);
    for (char *p = strchr(text, ']'); p; p = strchr(p + 1, ']'))
        v->value[v->n++] = strtod(p + 1, NULL);
    char *last = strstr(text, "PPL = ");
    CM_ASSERT(last && sscanf(last, "PPL = %lf +/- %lf", final, se) == 2, "no final estimate");
    free(text);
}

static void encode(const cm_loaded *l, int32_t **id, int64_t *n) {
    cm_err err;
    char *text;
    size_t bytes;
    int64_t cap = 1 << 16;
    bool ok = cm_read_file(DIR "ppl.txt", 1 << 20, &text, &bytes, &err);
    *id = malloc((size_t)cap * sizeof **id);
    CM_ASSERT(ok && *id, "%s", err.msg);
    if (bytes && text[bytes - 1] == '\n') bytes--;
    (*id)[0] = cm_spm_bos(l->spm);
    *n = 1;
    CM_ASSERT(cm_spm_encode(l->spm, text, bytes, id, n, &cap, &err), "%s", err.msg);
    free(text);
}

TEST(running_values_are_llama_perplexitys) {
    cm_err err;
    cm_loaded l;
    cm_scorer s;
    values ours = { .n = 0 }, theirs = { .n = 0 };
    double final, se;
    bool ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) &&
              cm_load(&l, DIR "moe.f32.gguf", false, &err) &&
              cm_scorer_open(&s, &l.model, CTX, &err);
    CM_ASSERT(ok, "%s", err.msg);
    read_theirs(&theirs, &final, &se);
    int32_t *id;
    int64_t n;
    encode(&l, &id, &n);
    cm_llama_ppl r;
    CHECKF(cm_llama_perplexity(&s, id, n, CTX, cm_spm_bos(l.spm), true, note, &ours, &r,
                               &err), "%s", err.msg);
    CHECKF(ours.n == theirs.n && ours.n == 84, "%d values, wanted %d", ours.n, theirs.n);
    int other = 0;
    for (int i = 0; i < ours.n && i < theirs.n; i++) {
        double rounded = round(ours.value[i] * 1e4) / 1e4;
        other += fabs(rounded - theirs.value[i]) > 1e-8;
        CHECKF(fabs(rounded - theirs.value[i]) < 1.5e-4, "value %d: %.6f, theirs %.4f", i + 1,
               ours.value[i], theirs.value[i]);
    }
    CHECKF(other <= 1, "%d of %d values round otherwise", other, ours.n);
    CHECKF(fabs(r.ppl - final) < 5.1e-5 && fabs(r.se - se) < 5.1e-6, "%.6f +/- %.6f", r.ppl,
           r.se);
    free(id);
    cm_scorer_close(&s);
    cm_loaded_close(&l);
}

/* Windows that overlap must score every token once, whatever the stride. */
TEST(every_token_is_scored_once_for_any_stride) {
    cm_err err;
    cm_loaded l;
    cm_scorer s;
    bool ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) &&
              cm_load(&l, DIR "moe.f32.gguf", false, &err) &&
              cm_scorer_open(&s, &l.model, 65, &err);
    CM_ASSERT(ok, "%s", err.msg);
    int32_t *id;
    int64_t n;
    encode(&l, &id, &n);
    n = 200;
    double whole[256];
    cm_score(&s, id, 65, 0, whole);
    for (int stride = 1; stride <= 64; stride += 21) {
        cm_ppl p = { 0 };
        cm_window w = { .context = 64, .stride = stride };
        CHECKF(cm_ppl_add(&p, &s, w, id[0], id + 1, NULL, n, n, 1, &err), "%s", err.msg);
        CHECKF(p.tokens == n && p.nll > 0, "stride %d: %lld tokens", stride,
               (long long)p.tokens);
        /* The first window is the same text from its start, whatever the stride. */
        cm_ppl q = { 0 };
        cm_ppl_add(&q, &s, w, id[0], id + 1, NULL, 64, 64, 1, &err);
        double sum = 0;
        for (int i = 0; i < 64; i++) sum += whole[i];
        CHECKF(fabs(q.nll - sum) < 1e-9, "stride %d: first window %.9f, wanted %.9f", stride,
               q.nll, sum);
        /* With masks: these tokens, and the others. */
        uint8_t mask[2][256];
        for (int i = 0; i < n; i++) mask[1][i] = !(mask[0][i] = i % 7 > 2);
        cm_ppl part[2] = { 0 };
        for (int k = 0; k < 2; k++)
            cm_ppl_add(&part[k], &s, w, k ? -1 : id[0], id + 1, mask[k], n, n, 1, &err);
        CHECKF(part[0].tokens == 113 && part[1].tokens == 86, "%lld and %lld tokens",
               (long long)part[0].tokens, (long long)part[1].tokens);
        cm_ppl other = { 0 };
        cm_ppl_add(&other, &s, w, id[0], id + 1, mask[1], n, n, 1, &err);
        CHECKF(fabs(part[0].nll + other.nll - p.nll) < 1e-9, "stride %d: %.9f + %.9f is not %.9f",
               stride, part[0].nll, other.nll, p.nll);
    }
    free(id);
    cm_scorer_close(&s);
    cm_loaded_close(&l);
}
