/* narrow_test.c -- what only BF16 products read is stored as BF16: less memory, the same bits.
 *
 * A whole model's loss and gradients with such storage and without, in ragged shapes; and that
 * nothing is stored so where something else reads it. */
#include "model/model.h"
#include "op/narrow.h"
#include "tests/unit/op_fixture.h"

#include <stdlib.h>

enum { B = 3, T = 37 };

typedef struct result {
    cm_real loss, *g; /* of all that is trained */
    int64_t n;
} result;

typedef struct setting {
    cm_compute how;
    bool wide, recompute, logp, lora;
    double drop;
} setting;

/* The model's words stay c's. */
static void shape(cm_conf *c, bool experts, bool shared) {
    cm_err err;
    cm_conf_open(c, NULL);
    static const char *const words[] = {
        "model.d_model=48", "model.n_layers=2", "model.pattern=MA", "model.n_heads=4",
        "model.n_kv_heads=2", "model.head_dim=14", "model.d_ff=70", "model.ssm_expand=2",
        "model.ssm_head_dim=16", "model.ssm_groups=2", "model.ssm_state=12",
        "model.ssm_chunk=16", "model.vocab_size=101", "model.context=64",
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) cm_conf_set(c, words[i]);
    if (experts) {
        cm_conf_set(c, "model.ffn=E");
        cm_conf_set(c, "model.n_experts=5");
        cm_conf_set(c, "model.d_expert=26");
        if (shared) cm_conf_set(c, "model.d_shared=18");
    }
    CHECKF(cm_conf_check(c, &err) && cm_model_resolve(&c->model, &err), "%s", err.msg);
}

/* Documents change within the rows, and some tokens are not scored. */
static void fill(cm_batch *b, op_fix *f, int V) {
    int32_t *p = cm_arena_alloc(&f->meta, sizeof *p * 4 * B * T);
    for (int i = 0; i < B * T; i++) {
        p[i] = (i * i + 3) % V;
        p[B * T + i] = i % 11 ? (i * 7) % V : -1;
        p[2 * B * T + i] = i / 29;
        p[3 * B * T + i] = i % T && i % 29 ? p[3 * B * T + i - 1] + 1 : 0;
    }
    *b = (cm_batch){ .B = B, .T = T, .token = p, .target = p + B * T, .doc = p + 2 * B * T,
                     .pos = p + 3 * B * T };
}

static cm_var *loss_of(cm_model *m, op_fix *f, const cm_batch *b, const setting *s) {
    if (!s->logp)
        return cm_model_loss(m, &f->t, b, (cm_real)0.01, s->recompute, NULL);
    cm_var *aux, *lp = cm_model_logp(m, &f->t, b, 1, s->recompute, NULL, &aux);
    cm_pair pair = { .from = { 0, T }, .to = { T, B * T }, .n = { T, T } };
    cm_pair *kept = cm_arena_alloc(&f->meta, sizeof *kept);
    *kept = pair;
    cm_prefer_conf c = { .beta = 0.1, .reference_free = true };
    return cm_prefer(&f->t, lp, kept, 1, &c, 1);
}

static result run(const cm_model_conf *c, const setting *s) {
    op_fix f;
    cm_arena perm;
    cm_model m;
    cm_batch b;
    cm_err err;
    static const char *all[] = { "all" };
    cm_lora_conf lora = { .rank = 3, .alpha = 6, .targets = { 1, all } };
    fix_open(&f, true);
    CHECK(cm_arena_open(&perm, "weights", (size_t)1 << 28, &err));
    cm_model_build_lora(&m, c, s->lora ? &lora : NULL, &perm, true);
    cm_params *ps = cm_model_trained(&m);
    cm_params_init(&m.params, 1);
    if (s->lora) cm_params_init(ps, 2);
    for (int i = 0; s->lora && i < ps->n; i++) /* B is not zero */
        for (int64_t k = 0; k < cm_tensor_count(&ps->p[i]->var.v); k++)
            cm_rdata(&ps->p[i]->var.v)[k] += (cm_real)(0.1 * fix_value((uint64_t)i, k));
    f.t.compute = s->how;
    f.t.wide = s->wide;
    fill(&b, &f, (int)c->vocab_size);
    b.drop = (cm_drop){ .share = s->drop, .seed = 5, .T = T };
    cm_var *loss = loss_of(&m, &f, &b, s);
    result r = { .loss = *cm_rdata(&loss->v), .n = cm_params_count(ps) };
    cm_tape_backward(&f.t, loss, 1);
    r.g = malloc((size_t)r.n * sizeof *r.g);
    for (int64_t i = 0, at = 0; i < ps->n; i++) {
        int64_t n = cm_tensor_count(&ps->p[i]->var.v);
        memcpy(r.g + at, ps->p[i]->var.g, (size_t)n * sizeof *r.g);
        at += n;
    }
    cm_model_end(&m);
    cm_arena_close(&perm);
    fix_close(&f);
    return r;
}

static void compare(const char *what, const cm_model_conf *c, setting s) {
    result narrow = run(c, &s);
    s.wide = true;
    result wide = run(c, &s);
    CHECKF(narrow.n == wide.n && narrow.loss == wide.loss, "%s: loss %.9g and %.9g", what,
           (double)narrow.loss, (double)wide.loss);
    CHECKF(fix_same(narrow.n, narrow.g, wide.g), "%s: other gradients", what);
    free(narrow.g);
    free(wide.g);
}

static void all_ways(const char *what, const cm_model_conf *c) {
    const setting s[] = {
        { .how = CM_COMPUTE_BF16 },
        { .how = CM_COMPUTE_BF16, .recompute = true },
        { .how = CM_COMPUTE_BF16, .logp = true },
        { .how = CM_COMPUTE_BF16, .lora = true },
        { .how = CM_COMPUTE_FP32 },
    };
    for (size_t i = 0; i < sizeof s / sizeof *s; i++) compare(what, c, s[i]);
}

TEST(storage_changes_no_bit) {
    cm_conf dense, experts, shared;
    shape(&dense, false, false);
    shape(&experts, true, false);
    shape(&shared, true, true);
    for (int threads = 1; threads <= 2; threads++) {
        fix_threads(threads);
        all_ways("dense", &dense.model);
        all_ways("experts", &experts.model);
        all_ways("experts and a shared one", &shared.model);
        compare("dropout", &dense.model,
                (setting){ .how = CM_COMPUTE_BF16, .lora = true, .drop = 0.2 });
    }
    cm_conf_close(&dense);
    cm_conf_close(&experts);
    cm_conf_close(&shared);
}

TEST(what_products_read_takes_half_the_room) {
    fix_threads(1);
    for (int how = 0; how < 2; how++) {
        op_fix f;
        fix_open(&f, true);
        f.t.compute = (cm_compute)how;
        cm_dtype want = how ? CM_BF16_T : CM_REAL_DTYPE;
        cm_var *x = fix_input(&f, 1, 2, (int64_t[]){ 5, 6 });
        cm_var *w = fix_var(&f, 2, 1, (int64_t[]){ 6 });
        cm_var *in = fix_var(&f, 3, 2, (int64_t[]){ 8, 6 });
        cm_var *out = fix_var(&f, 4, 2, (int64_t[]){ 6, 4 });
        cm_var *n = cm_rmsnorm(&f.t, x, w, (cm_real)1e-5, CM_PRODUCTS);
        cm_var *ab = cm_linear(&f.t, n, in);
        cm_var *h = cm_swiglu(&f.t, ab, CM_PRODUCTS);
        cm_var *u = cm_linear(&f.t, h, out);
        cm_var *y = cm_residual(&f.t, x, u, 1);
        CHECK(n->v.dtype == want && h->v.dtype == want);
        CHECK(u->gone && y->v.data == u->v.data); /* nobody reads u again */
        CHECK(ab->v.dtype == CM_REAL_DTYPE && cm_tensor_bytes(&h->v) ==
              20 * (size_t)cm_dtypes[want].bytes);
        fix_backward(&f, y, 7);
        CHECK(ab->g_narrow == how && u->g_narrow == how);
        CHECK(!x->g_narrow && !n->g_narrow && !h->g_narrow && !y->g_narrow);
        fix_close(&f);
    }
}

/* A gradient that several add to in the same places is a sum, which BF16 would round. */
TEST(sums_are_not_stored_narrow) {
    fix_threads(1);
    op_fix f;
    fix_open(&f, true);
    f.t.compute = CM_COMPUTE_BF16;
    cm_var *x = fix_input(&f, 1, 2, (int64_t[]){ 5, 6 });
    cm_var *w = fix_var(&f, 3, 2, (int64_t[]){ 6, 6 });
    cm_var *twice = cm_linear(&f.t, x, w);
    cm_var *once = cm_linear(&f.t, x, w);
    cm_var *other = cm_linear(&f.t, x, w); /* read by what does not write BF16 */
    cm_var *s = cm_residual(&f.t, twice, once, 1);
    s = cm_residual(&f.t, s, twice, (cm_real)0.5);
    s = cm_residual(&f.t, s, cm_rmsnorm(&f.t, other, fix_var(&f, 2, 1, (int64_t[]){ 6 }),
                                        (cm_real)1e-5, CM_ANYBODY), 1);
    fix_backward(&f, s, 7);
    CHECK(!twice->gone && once->gone && s->v.data != twice->v.data);
    CHECK(!twice->g_narrow && once->g_narrow && !other->g_narrow);
    fix_close(&f);
}

/* Rows of BF16 are made in a room that belongs to the thread: many rows, many times, give what
 * one thread gives. */
TEST(threads_have_rooms_of_their_own) {
    enum { ROWS = 700, COLS = 96, TIMES = 25 };
    static uint16_t want[2][ROWS * COLS];
    for (int k = 0; k < TIMES; k++) {
        op_fix f;
        fix_threads(k ? 2 : 1);
        fix_open(&f, true);
        f.t.compute = CM_COMPUTE_BF16;
        cm_var *ab = fix_input(&f, 1, 2, (int64_t[]){ ROWS, 2 * COLS });
        cm_var *x = fix_input(&f, 2, 2, (int64_t[]){ ROWS, COLS });
        cm_var *y[2] = { cm_swiglu(&f.t, ab, CM_PRODUCTS),
                         cm_rmsnorm(&f.t, x, fix_var(&f, 3, 1, (int64_t[]){ COLS }),
                                    (cm_real)1e-5, CM_PRODUCTS) };
        for (int i = 0; i < 2; i++) {
            if (!k) memcpy(want[i], y[i]->v.data, sizeof want[i]);
            else CHECKF(!memcmp(want[i], y[i]->v.data, sizeof want[i]), "op %d, time %d", i, k);
        }
        fix_close(&f);
    }
}
