/* dpo_test.c -- preference losses of whole models against PyTorch: losses, rewards, every
 * gradient, for all variants.
 *
 * The files come from gen_dpo.py (float64), which runs each answer alone; here the pairs lie
 * packed in one row and go through the objective that dpo trains with.  The double build must
 * agree to 1e-9, the product to float accuracy (the ops alone to 1e-6: ops_test.c). */
#include "tests/golden/model_bed.h"
#include "train/train.h"

#ifdef CM_F64
static const double TOL = 1e-9;
#else
static const double TOL = 1e-4;
#endif

enum { PAIRS = 4 };
static const char *const variant[] = { "sigmoid", "ipo", "mixed", "simpo" };

/* The objective over the file's one row, without a data set behind it. */
typedef struct {
    cm_st file;
    cm_conf conf;
    cm_pack pack[2];
    cm_refs refs[2];
    cm_dpo dpo;
    cm_batch batch;
    int64_t first[2], order[PAIRS], unit[PAIRS];
    double ref[2][PAIRS];
    cm_pair pair[PAIRS];
} pairs;

static const void *get(const pairs *p, const char *prefix, const char *name, int64_t n) {
    char key[160];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    const cm_tensor *t = cm_st_find(&p->file, key);
    CM_ASSERT(t && cm_tensor_count(t) == n, "golden file: no %s of %d", key, (int)n);
    return t->data;
}

static void set_words(pairs *p, const char *words) {
    char all[256], *rest = all;
    cm_err err;
    snprintf(all, sizeof all, "%s", words);
    cm_conf_open(&p->conf, NULL);
    for (char *w; (w = strtok_r(rest, " ", &rest));) cm_conf_set(&p->conf, w);
    CM_ASSERT(cm_conf_check(&p->conf, &err) && cm_dpo_check(&p->conf, &err), "%s", err.msg);
}

static void pairs_open(pairs *p, bool moe, const char *name) {
    cm_err err;
    const char *path = moe ? "tests/golden/dpo_moe.safetensors"
                           : "tests/golden/dpo_dense.safetensors";
    *p = (pairs){ 0 };
    CM_ASSERT(cm_st_open(&p->file, path, &err), "%s", err.msg);
    set_words(p, cm_st_get_meta(&p->file, name));
    int T = (int)cm_st_find(&p->file, "tokens")->dim[1];
    const int32_t *order = get(p, "", "order", PAIRS);
    const double *ref = get(p, "", "ref", 2 * PAIRS);
    for (int i = 0; i < PAIRS; i++) {
        p->order[i] = order[i];
        for (int k = 0; k < 2; k++) p->ref[k][i] = ref[2 * i + k];
    }
    p->first[1] = PAIRS;
    p->pack[0] = (cm_pack){ .T = T, .docs = 2, .rows = 1, .units = PAIRS, .first = p->first,
                            .order = p->order };
    p->refs[0] = (cm_refs){ PAIRS, { p->ref[0], p->ref[1] } };
    p->dpo = (cm_dpo){ .conf = &p->conf, .how = cm_dpo_how(&p->conf), .refs = p->refs,
                       .pack = { &p->pack[0], &p->pack[1] }, .pair = p->pair,
                       .unit = p->unit };
    p->batch = (cm_batch){ .B = 1, .T = T, .token = get(p, "", "tokens", T),
                           .target = get(p, "", "targets", T), .doc = get(p, "", "doc", T),
                           .pos = get(p, "", "pos", T) };
}

static void pairs_close(pairs *p) {
    cm_st_close(&p->file);
    cm_conf_close(&p->conf);
}

static void near(const char *what, const char *name, int pair, double got, double want) {
    CHECKF(fabs(got - want) <= TOL * fmax(1, fabs(want)), "%s: %s of pair %d is %.12g, "
           "wanted %.12g", name, what, pair, got, want);
}

/* In the pairs' own numbers; ours stand in the order of the row. */
static void check_pairs(const pairs *p, const char *name) {
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s.", name);
    const double *losses = get(p, prefix, "losses", PAIRS);
    const double *rewards = get(p, prefix, "rewards", 2 * PAIRS);
    const double *logps = get(p, "", "logps", 2 * PAIRS);
    for (int i = 0; i < PAIRS; i++) {
        int u = (int)p->unit[i];
        CHECK(u == p->order[i]);
        near("loss", name, u, p->pair[i].loss, losses[u]);
        for (int k = 0; k < 2; k++) {
            near("logp", name, u, p->pair[i].logp[k], logps[2 * u + k]);
            near("reward", name, u, p->pair[i].reward[k], rewards[2 * u + k]);
        }
    }
}

static int check_grads(const bed *b, const pairs *p, const char *name) {
    int n = 0;
    for (int i = 0; i < b->m.params.n; i++) {
        char key[160];
        const cm_param *q = b->m.params.p[i];
        snprintf(key, sizeof key, "%s.grad.%s", name, q->name);
        const cm_tensor *want = cm_st_find(&p->file, key);
        if (!want) continue;
        double e = distance(q->var.g, want->data, cm_tensor_count(&q->var.v));
        CHECKF(e <= TOL, "%s: gradient of %s differs by %.2e", name, q->name, e);
        n++;
    }
    return n;
}

static int check_variant(bool moe, const char *name) {
    bed b;
    pairs p;
    bed_open(&b, moe, false);
    pairs_open(&p, moe, name);
    b.m.conf.lb_coef = b.m.conf.z_coef = 0;
    cm_objective o = cm_dpo_objective(&p.dpo);
    cm_params_zero_grad(&b.m.params);
    o.begin(o.self, false);
    CHECK(o.count(o.self, NULL, 0, 1) == PAIRS);
    cm_tape t;
    cm_tape_begin(&t, &b.step, &b.meta, true, false);
    cm_var *loss = o.loss(o.self, &b.m, &t, &p.batch, 0, (cm_real)1 / PAIRS, NULL);
    double value = (double)*cm_rdata(&loss->v);
    cm_tape_backward(&t, loss, 1);
    near("mean loss", name, -1, value, p.dpo.sum.loss / p.dpo.sum.n);
    check_pairs(&p, name);
    int n = check_grads(&b, &p, name);
    pairs_close(&p);
    bed_close(&b);
    return n;
}

static void check_model(bool moe) {
    int grads = 0;
    for (size_t i = 0; i < sizeof variant / sizeof *variant; i++)
        grads += check_variant(moe, variant[i]);
    CHECKF(grads > 20, "only %d gradients compared", grads);
}

TEST(preferences_of_the_dense_hybrid_equal_pytorch) { check_model(false); }
TEST(preferences_of_the_moe_hybrid_equal_pytorch) { check_model(true); }
