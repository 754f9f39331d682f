/* model_test.c -- whole models against PyTorch: logits, every gradient, ten losses.
 *
 * The files come from gen_model.py and gen_lora.py (float64, independent formulas).  The
 * double build must agree to 1e-9, the product to float accuracy. */
#include "tests/golden/model_bed.h"

#ifdef CM_F64
static const double TOL = 1e-9, LOSS_TOL = 1e-9;
#else
static const double TOL = 2e-4, LOSS_TOL = 2e-4;
#endif

/* What is trained: the adapters, where there are some. */
static cm_params *trained(bed *b) { return cm_model_trained(&b->m); }

static double loss_and_grads(bed *b) {
    int64_t scored = 0;
    for (int64_t r = 0; r < b->R; r++) scored += b->batch.target[r] >= 0;
    cm_arena_reset(&b->step, 0);
    cm_arena_reset(&b->meta, 0);
    cm_params_zero_grad(trained(b));
    cm_tape t;
    cm_tape_begin(&t, &b->step, &b->meta, true, false);
    cm_var *loss = cm_model_loss(&b->m, &t, &b->batch, 1 / (cm_real)scored, false, NULL);
    double value = (double)*cm_rdata(&loss->v);
    cm_tape_backward(&t, loss, 1);
    return value;
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
    for (int i = 0; i < trained(b)->n; i++) {
        cm_param *p = trained(b)->p[i];
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
    double **m = calloc((size_t)trained(b)->n, sizeof *m);
    double **v = calloc((size_t)trained(b)->n, sizeof *v);
    CM_ASSERT(m && v, "out of memory");
    for (int i = 0; i < trained(b)->n; i++) {
        size_t n = (size_t)cm_tensor_count(&trained(b)->p[i]->var.v);
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
    for (int i = 0; i < trained(b)->n; i++) {
        free(m[i]);
        free(v[i]);
    }
    free(m);
    free(v);
}

static void check_model(bool moe, bool lora) {
    bed b;
    bed_open(&b, moe, lora);
    check_logits(&b);
    loss_and_grads(&b);
    for (int i = 0; i < trained(&b)->n; i++) {
        char name[128];
        cm_param *p = trained(&b)->p[i];
        snprintf(name, sizeof name, "grad.%s", p->name);
        double e = distance(p->var.g, need(&b, name)->data, cm_tensor_count(&p->var.v));
        CHECKF(e <= TOL, "gradient of %s differs by %.2e", p->name, e);
    }
    check_losses(&b);
    bed_close(&b);
}

TEST(dense_hybrid_equals_pytorch) { check_model(false, false); }
TEST(moe_hybrid_equals_pytorch) { check_model(true, false); }
TEST(adapters_equal_pytorch) { check_model(true, true); }
