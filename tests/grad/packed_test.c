/* packed_test.c -- conversations packed into a row are computed as if each stood alone.
 *
 * The same documents once in one row, told apart by document numbers, and once each in a row
 * of its own: the loss and every gradient agree; and exchanging the tokens of one document
 * leaves the hidden states of the others as they were, to the bit. */
#include "model/model.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DOCS = 5, V = 19 };
static const int length[DOCS] = { 9, 1, 23, 4, 16 }; /* across the scan's chunks of 8 */

typedef struct {
    int B, T;
    int32_t *token, *target, *doc, *pos;
} rows;

static int total(void) {
    int n = 0;
    for (int d = 0; d < DOCS; d++) n += length[d];
    return n;
}

static rows new_rows(int B, int T) {
    size_t n = (size_t)(B * T);
    rows r = { B, T, calloc(n, 4), calloc(n, 4), calloc(n, 4), calloc(n, 4) };
    CM_ASSERT(r.token && r.target && r.doc && r.pos, "out of memory");
    for (size_t i = 0; i < n; i++) r.target[i] = -1;
    return r;
}

static void free_rows(rows *r) {
    free(r->token);
    free(r->target);
    free(r->doc);
    free(r->pos);
}

/* Token j of document d, `salt` another text; the first third is a prompt. */
static void put(rows *r, int at, int d, int number, int salt) {
    cm_rng g = cm_rng_make((uint64_t)salt, CM_RNG_TEST, (uint64_t)d);
    for (int j = 0; j < length[d]; j++, at++) {
        r->token[at] = (int)cm_rng_below(g, (uint64_t)j, V);
        r->target[at] = j < length[d] / 3 ? -1 : (int)cm_rng_below(g, (uint64_t)j + 99, V);
        r->doc[at] = number;
        r->pos[at] = j;
    }
}

/* salt[d] chooses the text of document d. */
static rows packed(const int *salt) {
    rows r = new_rows(1, total() + 3);
    int at = 0;
    for (int d = 0; d < DOCS; at += length[d], d++) put(&r, at, d, d, salt[d]);
    for (; at < r.T; at++) r.doc[at] = DOCS;
    return r;
}

static rows apart(const int *salt) {
    rows r = new_rows(DOCS, 23);
    for (int d = 0; d < DOCS; d++) {
        put(&r, d * r.T, d, 0, salt[d]);
        for (int j = length[d]; j < r.T; j++) r.doc[d * r.T + j] = 1;
    }
    return r;
}

typedef struct {
    cm_model m;
    cm_arena perm, step, meta;
} bed;

static void bed_open(bed *b, const char *ffn, int rope) {
    cm_conf c;
    cm_err err;
    cm_conf_open(&c, NULL);
    cm_model_conf k = c.model;
    cm_conf_close(&c);
    k.pattern = "MAM";
    k.ffn = ffn;
    k.d_model = 24;
    k.n_layers = 3;
    k.vocab_size = V;
    k.n_heads = 2;
    k.n_kv_heads = 1;
    k.d_ff = 20;
    k.n_experts = 4;
    k.top_k = 2;
    k.d_expert = 12;
    k.ssm_state = 8;
    k.ssm_head_dim = 12;
    k.ssm_chunk = 8;
    k.rope = rope;
    k.lb_coef = k.z_coef = 0; /* these are means over a batch's tokens, padding included */
    k.init_std = 0.3;
    size_t cap = (size_t)1 << 28;
    bool ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) && cm_model_resolve(&k, &err) &&
              cm_arena_open(&b->perm, "perm", cap, &err) &&
              cm_arena_open(&b->step, "step", cap, &err) &&
              cm_arena_open(&b->meta, "meta", cap, &err);
    CM_ASSERT(ok, "%s", err.msg);
    cm_model_build(&b->m, &k, &b->perm, true);
    cm_params_init(&b->m.params, 3);
}

static void bed_close(bed *b) {
    cm_model_end(&b->m);
    cm_arena_close(&b->perm);
    cm_arena_close(&b->step);
    cm_arena_close(&b->meta);
}

/* Loss of the rows, and all gradients one after another in *g (free()). */
static double losses(bed *b, const rows *r, cm_real **g, int64_t *n) {
    cm_arena_reset(&b->step, 0);
    cm_arena_reset(&b->meta, 0);
    cm_params_zero_grad(&b->m.params);
    cm_tape t;
    cm_tape_begin(&t, &b->step, &b->meta, true, false);
    cm_batch batch = { .B = r->B, .T = r->T, .token = r->token, .target = r->target,
                       .doc = r->doc, .pos = r->pos };
    cm_var *loss = cm_model_loss(&b->m, &t, &batch, (cm_real)1 / 36, false, NULL);
    double value = (double)*cm_rdata(&loss->v);
    cm_tape_backward(&t, loss, 1);
    *n = cm_params_count(&b->m.params);
    *g = malloc((size_t)*n * sizeof **g);
    CM_ASSERT(*g, "out of memory");
    int64_t at = 0;
    for (int i = 0; i < b->m.params.n; i++) {
        const cm_param *p = b->m.params.p[i];
        memcpy(*g + at, p->var.g, cm_tensor_bytes(&p->var.v));
        at += cm_tensor_count(&p->var.v);
    }
    return value;
}

static void check_equal(const char *what, const char *ffn, int rope) {
    static const int salt[DOCS] = { 1, 1, 1, 1, 1 };
    bed b;
    bed_open(&b, ffn, rope);
    rows one = packed(salt), many = apart(salt);
    cm_real *g1, *g2;
    int64_t n;
    double l1 = losses(&b, &one, &g1, &n), l2 = losses(&b, &many, &g2, &n);
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)g1[i] - (double)g2[i];
        diff += d * d;
        size += (double)g2[i] * (double)g2[i];
    }
    double e = sqrt(diff / size), tolerance = sizeof(cm_real) == 8 ? 1e-13 : 1e-6;
    printf("  %-24s loss %.9g and %.9g, gradients apart by %.1e\n", what, l1, l2, e);
    CHECKF(fabs(l1 - l2) <= tolerance * l2, "%s: %.12g is not %.12g", what, l1, l2);
    CHECKF(e <= tolerance, "%s: gradients apart by %.2e", what, e);
    free(g1);
    free(g2);
    free_rows(&one);
    free_rows(&many);
    bed_close(&b);
}

TEST(packed_rows_equal_rows_of_their_own) {
    check_equal("dense, RoPE", "D", CM_ROPE_PLAIN);
    check_equal("experts, RoPE", "E", CM_ROPE_PLAIN);
    check_equal("experts, no positions", "DEE", CM_ROPE_NONE);
}

static cm_real *hidden(bed *b, const rows *r) {
    cm_arena_reset(&b->step, 0);
    cm_arena_reset(&b->meta, 0);
    cm_tape t;
    cm_tape_begin(&t, &b->step, &b->meta, false, false);
    cm_seq seq = { .B = r->B, .T = r->T, .doc = r->doc, .pos = r->pos };
    cm_var *h = cm_model_hidden(&b->m, &t, r->token, &seq, NULL);
    cm_real *copy = malloc(cm_tensor_bytes(&h->v));
    CM_ASSERT(copy, "out of memory");
    return memcpy(copy, cm_rdata(&h->v), cm_tensor_bytes(&h->v));
}

/* Other tokens in document d: its rows change, all others keep their bits. */
static void check_isolation(bed *b, int d) {
    int salt[DOCS] = { 1, 1, 1, 1, 1 };
    rows one = packed(salt);
    salt[d] = 2;
    rows two = packed(salt);
    cm_real *x = hidden(b, &one), *y = hidden(b, &two);
    int64_t D = b->m.conf.d_model;
    int changed = 0, leaked = 0;
    for (int r = 0; r < one.T; r++) {
        bool same = !memcmp(x + r * D, y + r * D, (size_t)D * sizeof *x);
        changed += !same && one.doc[r] == d;
        leaked += !same && one.doc[r] != d;
    }
    CHECKF(changed > 0, "document %d: nothing changed", d);
    CHECKF(leaked == 0, "document %d: %d rows of others changed", d, leaked);
    free(x);
    free(y);
    free_rows(&one);
    free_rows(&two);
}

TEST(one_conversation_moves_no_other_by_a_bit) {
    bed b;
    bed_open(&b, "DE", CM_ROPE_PLAIN);
    for (int d = 0; d < DOCS; d++) check_isolation(&b, d);
    bed_close(&b);
}
