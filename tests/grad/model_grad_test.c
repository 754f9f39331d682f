/* model_grad_test.c -- gradients of whole models, block by block, in double.
 *
 * Every parameter tensor of small models that together use every block, every option of
 * the blocks, packed documents, tied and untied heads, with and without recomputation. */
#include "model/model.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double TOLERANCE = 1e-7;
enum { B = 2, T = 11, MAX_ELEMENTS = 48 };

typedef struct {
    cm_model m;
    cm_arena perm, step, meta;
    int32_t token[B * T], target[B * T], doc[B * T], pos[B * T];
    bool recompute;
} bed;

static cm_model_conf base_conf(void) {
    cm_conf c;
    cm_conf_open(&c, NULL);
    cm_model_conf m = c.model;
    cm_conf_close(&c);
    m.pattern = "MA";
    m.ffn = "D";
    m.d_model = 12;
    m.n_layers = 2;
    m.vocab_size = 17;
    m.n_heads = 2;
    m.n_kv_heads = 1;
    m.d_ff = 10;
    m.n_experts = 4;
    m.top_k = 2;
    m.d_expert = 6;
    m.ssm_state = 5;
    m.ssm_head_dim = 6;
    m.ssm_chunk = 4;
    m.xent_z_coef = 1e-3;
    m.init_std = 0.4;
    return m;
}

static void fill_rows(bed *b, bool packed) {
    cm_rng r = cm_rng_make(5, CM_RNG_TEST, 0);
    for (int i = 0, d = 0; i < B * T; i++) {
        bool starts = i % T == 0 || (packed && (i % T == 3 || i % T == 8));
        d += starts;
        b->doc[i] = d;
        b->pos[i] = starts ? 0 : b->pos[i - 1] + 1;
        b->token[i] = (int)cm_rng_below(r, (uint64_t)i, 17);
        b->target[i] = i % 7 == 6 ? -1 : (int)cm_rng_below(r, (uint64_t)i + 1000, 17);
    }
}

static void bed_open(bed *b, cm_model_conf c, bool packed, bool recompute) {
    cm_err err;
    size_t cap = (size_t)1 << 30;
    *b = (bed){ .recompute = recompute };
    bool ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) && cm_model_resolve(&c, &err) &&
              cm_arena_open(&b->perm, "perm", cap, &err) &&
              cm_arena_open(&b->step, "step", cap, &err) &&
              cm_arena_open(&b->meta, "meta", cap, &err);
    CM_ASSERT(ok, "%s", err.msg);
    cm_model_build(&b->m, &c, &b->perm, true);
    cm_params_init(&b->m.params, 3);
    fill_rows(b, packed);
}

static void bed_close(bed *b) {
    cm_model_end(&b->m);
    cm_arena_close(&b->perm);
    cm_arena_close(&b->step);
    cm_arena_close(&b->meta);
}

static double loss_of(bed *b, bool backward) {
    cm_arena_reset(&b->step, 0);
    cm_arena_reset(&b->meta, 0);
    cm_tape t;
    cm_tape_begin(&t, &b->step, &b->meta, backward, false);
    cm_batch batch = { .B = B, .T = T, .token = b->token, .target = b->target,
                       .doc = b->doc, .pos = b->pos };
    cm_var *loss = cm_model_loss(&b->m, &t, &batch, (cm_real)1 / 19, b->recompute, NULL);
    double value = (double)*cm_rdata(&loss->v);
    if (backward) cm_tape_backward(&t, loss, 1);
    return value;
}

/* Fourth-order central difference: at this step both truncation and rounding stay below
 * the tolerance even where a gradient is a thousandth of its neighbours. */
static double difference(bed *b, cm_real *w) {
    const double h = 5e-4, at[4] = { h, -h, 2 * h, -2 * h };
    double f[4];
    cm_real keep = *w;
    for (int k = 0; k < 4; k++) {
        *w = keep + (cm_real)at[k];
        f[k] = loss_of(b, false);
    }
    *w = keep;
    return (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h);
}

/* ||g - fd|| / ||fd|| over up to MAX_ELEMENTS elements spread over the tensor. */
static double param_error(bed *b, cm_param *p) {
    int64_t n = cm_tensor_count(&p->var.v), step = n > MAX_ELEMENTS ? n / MAX_ELEMENTS : 1;
    double diff2 = 0, fd2 = 0;
    for (int64_t i = 0; i < n; i += step) {
        double fd = difference(b, cm_rdata(&p->var.v) + i), d = (double)p->var.g[i] - fd;
        diff2 += d * d;
        fd2 += fd * fd;
    }
    return fd2 > 0 ? sqrt(diff2 / fd2) : INFINITY;
}

static void check(const char *what, cm_model_conf c, bool packed, bool recompute) {
    if (sizeof(cm_real) != sizeof(double)) {
        t_skip("differences are compared in double: make MODE=f64");
        return;
    }
    bed b;
    bed_open(&b, c, packed, recompute);
    cm_params_zero_grad(&b.m.params);
    loss_of(&b, true);
    double worst = 0;
    for (int i = 0; i < b.m.params.n; i++) {
        cm_param *p = b.m.params.p[i];
        double e = param_error(&b, p);
        worst = e > worst ? e : worst;
        CHECKF(e <= TOLERANCE, "%s: %s: error %.2e > %.0e", what, p->name, e, TOLERANCE);
    }
    printf("  %-28s %3d tensors, worst error %.1e\n", what, b.m.params.n, worst);
    bed_close(&b);
}

TEST(dense_hybrid) { check("dense hybrid", base_conf(), false, false); }

TEST(dense_hybrid_packed) { check("dense hybrid, packed", base_conf(), true, false); }

TEST(moe_hybrid_recomputed) {
    cm_model_conf c = base_conf();
    c.ffn = "E";
    check("MoE hybrid, recomputed", c, true, true);
}

TEST(moe_shared_groups_untied) {
    cm_model_conf c = base_conf();
    c.ffn = "E";
    c.d_shared = 7;
    c.ssm_groups = 2;
    c.tied = false;
    c.rope = CM_ROPE_NONE;
    check("MoE + shared, 2 groups, untied", c, true, false);
}

TEST(mixed_ffn_yarn_multipliers) {
    cm_model_conf c = base_conf();
    c.pattern = "AM";
    c.ffn = "DE";
    c.n_layers = 3;
    c.head_dim = 8;
    c.rope = CM_ROPE_YARN;
    c.rope_factor = 4;
    c.rope_orig_ctx = 8;
    c.embedding_scale = 3;
    c.residual_scale = 0.5;
    c.attention_scale = 0.2;
    c.logit_scale = 2;
    check("mixed FFN, YaRN, multipliers", c, true, true);
}

TEST(recomputation_changes_no_bit) {
    cm_model_conf c = base_conf();
    c.ffn = "E";
    bed a, b;
    bed_open(&a, c, true, false);
    bed_open(&b, c, true, true);
    CHECK(loss_of(&a, true) == loss_of(&b, true));
    for (int i = 0; i < a.m.params.n; i++) {
        cm_var *x = &a.m.params.p[i]->var, *y = &b.m.params.p[i]->var;
        CHECKF(!memcmp(x->g, y->g, cm_tensor_bytes(&x->v)), "gradient of %s differs",
               a.m.params.p[i]->name);
    }
    bed_close(&a);
    bed_close(&b);
}

TEST(dry_tape_predicts_the_peak) {
    for (int recompute = 0; recompute < 2; recompute++) {
        cm_model_conf c = base_conf();
        c.ffn = "DE";
        bed b;
        bed_open(&b, c, true, recompute);
        loss_of(&b, true);
        cm_arena plan;
        cm_err err;
        CM_ASSERT(cm_arena_open_counting(&plan, "plan", &err), "%s", err.msg);
        cm_arena_reset(&b.meta, 0);
        cm_tape t;
        cm_tape_begin(&t, &plan, &b.meta, true, true);
        cm_batch batch = { .B = B, .T = T };
        cm_var *loss = cm_model_loss(&b.m, &t, &batch, 1, recompute, NULL);
        cm_tape_backward(&t, loss, 1);
        CHECKF(plan.peak == b.step.peak, "planned %zu bytes, used %zu", plan.peak,
               b.step.peak);
        cm_arena_close(&plan);
        bed_close(&b);
    }
}
