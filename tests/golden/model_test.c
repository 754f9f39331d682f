/* model_test.c -- whole models against PyTorch: logits, every gradient, ten losses.
 *
 * The files come from gen_model.py (float64, independent formulas).  The double build must
 * agree to 1e-9, the product to float accuracy. */
#include "model/model.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef CM_F64
static const double TOL = 1e-9, LOSS_TOL = 1e-9;
#else
static const double TOL = 2e-4, LOSS_TOL = 2e-4;
#endif

typedef struct {
    cm_model m;
    cm_st file;
    cm_arena perm, step, meta;
    cm_batch batch;
    int64_t R;
} bed;

static cm_model_conf golden_conf(bool moe) {
    cm_conf c;
    cm_conf_open(&c, NULL);
    cm_model_conf m = c.model;
    cm_conf_close(&c);
    m.pattern = "MMMA";
    m.ffn = moe ? "E" : "D";
    m.d_model = 16;
    m.n_layers = 4;
    m.vocab_size = 40;
    m.n_heads = 4;
    m.n_kv_heads = 2;
    m.d_ff = 20;
    m.n_experts = 4;
    m.top_k = 2;
    m.d_expert = 10;
    m.d_shared = 6;
    m.ssm_state = 6;
    m.ssm_head_dim = 8;
    m.ssm_groups = 2;
    m.ssm_chunk = 8;
    return m;
}

static const cm_tensor *need(const bed *b, const char *name) {
    const cm_tensor *t = cm_st_find(&b->file, name);
    CM_ASSERT(t, "golden file lacks %s", name);
    return t;
}

static void bed_open(bed *b, bool moe) {
    cm_err err;
    size_t cap = (size_t)1 << 30;
    *b = (bed){ 0 };
    cm_model_conf c = golden_conf(moe);
    const char *path = moe ? "tests/golden/model_moe.safetensors"
                           : "tests/golden/model_dense.safetensors";
    bool ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) && cm_model_resolve(&c, &err) &&
              cm_arena_open(&b->perm, "perm", cap, &err) &&
              cm_arena_open(&b->step, "step", cap, &err) &&
              cm_arena_open(&b->meta, "meta", cap, &err) &&
              cm_st_open(&b->file, path, &err);
    CM_ASSERT(ok, "%s", err.msg);
    cm_model_build(&b->m, &c, &b->perm, true);
    for (int i = 0; i < b->m.params.n; i++) {
        cm_param *p = b->m.params.p[i];
        const double *src = need(b, p->name)->data;
        int64_t n = cm_tensor_count(&p->var.v);
        CM_ASSERT(n == cm_tensor_count(need(b, p->name)), "%s has another size", p->name);
        for (int64_t k = 0; k < n; k++) cm_rdata(&p->var.v)[k] = (cm_real)src[k];
    }
    const cm_tensor *tok = need(b, "tokens");
    b->batch = (cm_batch){ .B = (int)tok->dim[0], .T = (int)tok->dim[1], .token = tok->data,
                           .target = need(b, "targets")->data, .doc = need(b, "doc")->data,
                           .pos = need(b, "pos")->data };
    b->R = cm_tensor_count(tok);
}

static void bed_close(bed *b) {
    cm_model_end(&b->m);
    cm_st_close(&b->file);
    cm_arena_close(&b->perm);
    cm_arena_close(&b->step);
    cm_arena_close(&b->meta);
}

static double loss_and_grads(bed *b) {
    int64_t scored = 0;
    for (int64_t r = 0; r < b->R; r++) scored += b->batch.target[r] >= 0;
    cm_arena_reset(&b->step, 0);
    cm_arena_reset(&b->meta, 0);
    cm_params_zero_grad(&b->m.params);
    cm_tape t;
    cm_tape_begin(&t, &b->step, &b->meta, true, false);
    cm_var *loss = cm_model_loss(&b->m, &t, &b->batch, 1 / (cm_real)scored, false, NULL);
    double value = (double)*cm_rdata(&loss->v);
    cm_tape_backward(&t, loss, 1);
    return value;
}

/* ||a - b|| / ||b|| */
static double distance(const cm_real *a, const double *b, int64_t n) {
    double d2 = 0, b2 = 0;
    for (int64_t i = 0; i < n; i++) {
        d2 += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        b2 += b[i] * b[i];
    }
    return sqrt(d2 / b2);
}

static void check_logits(bed *b) {
    cm_tape t;
    cm_arena_reset(&b->step, 0);
    cm_tape_begin(&t, &b->step, &b->meta, false, false);
    cm_seq seq = { .B = b->batch.B, .T = b->batch.T, .doc = b->batch.doc,
                   .pos = b->batch.pos };
    cm_var *h = cm_model_hidden(&b->m, &t, b->batch.token, &seq, NULL);
    const cm_tensor *want = need(b, "logits");
    int64_t V = b->m.conf.vocab_size, *row = calloc((size_t)b->R, sizeof *row);
    cm_real *got = calloc((size_t)(b->R * V), sizeof *got);
    CM_ASSERT(row && got, "out of memory");
    for (int64_t r = 0; r < b->R; r++) row[r] = r;
    cm_model_logits(&b->m, cm_rdata(&h->v), row, b->R, got);
    double e = distance(got, want->data, b->R * V);
    CHECKF(e <= TOL, "logits differ by %.2e", e);
    free(row);
    free(got);
}

/* torch.optim.AdamW, written out: what the ten losses were made with. */
static void adamw_by_hand(bed *b, int step, double **m, double **v) {
    const double lr = 3e-3, b1 = 0.9, b2 = 0.95, eps = 1e-8;
    for (int i = 0; i < b->m.params.n; i++) {
        cm_param *p = b->m.params.p[i];
        double wd = p->group == CM_GROUP_VECTOR ? 0 : 0.1;
        cm_real *w = cm_rdata(&p->var.v);
        for (int64_t k = 0; k < cm_tensor_count(&p->var.v); k++) {
            double g = (double)p->var.g[k];
            m[i][k] = b1 * m[i][k] + (1 - b1) * g;
            v[i][k] = b2 * v[i][k] + (1 - b2) * g * g;
            double mh = m[i][k] / (1 - pow(b1, step)), vh = v[i][k] / (1 - pow(b2, step));
            w[k] = (cm_real)((double)w[k] * (1 - lr * wd) - lr * mh / (sqrt(vh) + eps));
        }
    }
}

static void check_losses(bed *b) {
    double **m = calloc((size_t)b->m.params.n, sizeof *m);
    double **v = calloc((size_t)b->m.params.n, sizeof *v);
    CM_ASSERT(m && v, "out of memory");
    for (int i = 0; i < b->m.params.n; i++) {
        size_t n = (size_t)cm_tensor_count(&b->m.params.p[i]->var.v);
        m[i] = calloc(n, sizeof **m);
        v[i] = calloc(n, sizeof **v);
        CM_ASSERT(m[i] && v[i], "out of memory");
    }
    const double *want = need(b, "losses")->data;
    for (int s = 0; s < 10; s++) {
        double loss = loss_and_grads(b);
        CHECKF(fabs(loss - want[s]) <= LOSS_TOL * want[s], "loss %d: %.9f, wanted %.9f", s,
               loss, want[s]);
        adamw_by_hand(b, s + 1, m, v);
    }
    for (int i = 0; i < b->m.params.n; i++) {
        free(m[i]);
        free(v[i]);
    }
    free(m);
    free(v);
}

static void check_model(bool moe) {
    bed b;
    bed_open(&b, moe);
    check_logits(&b);
    loss_and_grads(&b);
    for (int i = 0; i < b.m.params.n; i++) {
        char name[128];
        cm_param *p = b.m.params.p[i];
        snprintf(name, sizeof name, "grad.%s", p->name);
        double e = distance(p->var.g, need(&b, name)->data, cm_tensor_count(&p->var.v));
        CHECKF(e <= TOL, "gradient of %s differs by %.2e", p->name, e);
    }
    check_losses(&b);
    bed_close(&b);
}

TEST(dense_hybrid_equals_pytorch) { check_model(false); }
TEST(moe_hybrid_equals_pytorch) { check_model(true); }
