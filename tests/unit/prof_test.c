/* prof_test.c -- what ops have to do at the least, counted by hand, and the account of it. */
#include "tests/unit/op_fixture.h"

enum { R = 6, I = 4, O = 10, V = 50 };

static void check_work(const cm_node *n, bool backward, double flops, double reals) {
    cm_work w = cm_op_work(n, backward);
    CHECKF(w.flops == flops, "%s %s: %g flops, wanted %g", n->op->name,
           backward ? "backward" : "forward", w.flops, flops);
    CHECKF(w.bytes == reals * sizeof(cm_real), "%s %s: %g numbers, wanted %g", n->op->name,
           backward ? "backward" : "forward", w.bytes / sizeof(cm_real), reals);
}

static const cm_node *last(const op_fix *f) { return f->t.node[f->t.n_node - 1]; }

TEST(a_product_reads_and_writes_each_matrix_once) {
    op_fix f;
    fix_threads(1);
    fix_open(&f, true);
    cm_var *x = fix_input(&f, 1, 2, (int64_t[]){ R, I });
    cm_var *w = fix_var(&f, 2, 2, (int64_t[]){ O, I });
    cm_linear(&f.t, x, w);
    check_work(last(&f), false, 2.0 * R * I * O, R * I + O * I + R * O);
    /* x, w, gy; gx written, gw read and written; two products. */
    check_work(last(&f), true, 4.0 * R * I * O, R * I + O * I + R * O + R * I + 2 * O * I);
    w->wants_grad = false; /* frozen: one product, no gw */
    check_work(last(&f), true, 2.0 * R * I * O, R * I + O * I + R * O + R * I);
    fix_close(&f);
}

TEST(a_look_up_touches_its_rows_only) {
    static const int32_t token[R] = { 1, 2, 3, 4, 5, 6 };
    op_fix f;
    fix_threads(1);
    fix_open(&f, true);
    cm_embed(&f.t, fix_var(&f, 1, 2, (int64_t[]){ V, I }), token, R, 1);
    check_work(last(&f), false, 0, 2 * R * I);
    check_work(last(&f), true, 0, R * I + 2 * R * I);
    cm_var *x = fix_input(&f, 2, 2, (int64_t[]){ R, I });
    cm_residual(&f.t, x, fix_input(&f, 3, 2, (int64_t[]){ R, I }), 1);
    check_work(last(&f), true, 0, 3 * R * I); /* gy; gx and gb */
    fix_close(&f);
}

TEST(a_loss_that_forms_its_gradients_early_does_all_in_the_forward) {
    static const int32_t target[R] = { 0 };
    op_fix f;
    fix_threads(1);
    fix_open(&f, true);
    cm_var *x = fix_input(&f, 1, 2, (int64_t[]){ R, I });
    cm_xent(&f.t, x, fix_var(&f, 2, 2, (int64_t[]){ V, I }), target, 1, 1, 0, NULL, NULL);
    cm_work w = cm_op_work(last(&f), false);
    CHECKF(w.flops == 6.0 * R * I * V, "%g flops", w.flops);
    check_work(last(&f), true, 0, 2 * R * I);
    fix_close(&f);
}

TEST(the_account_adds_up) {
    op_fix f;
    fix_threads(1);
    fix_open(&f, true);
    cm_prof p = { .flop_rate = { 100, 200 }, .byte_rate = 1e9 };
    cm_var *x = fix_input(&f, 1, 2, (int64_t[]){ R, I });
    cm_linear(&f.t, x, fix_var(&f, 2, 2, (int64_t[]){ O, I }));
    double flops = 2.0 * R * I * O;
    cm_prof_add(&p, last(&f), false, false, 8);
    cm_prof_add(&p, last(&f), true, false, 16);
    cm_prof_add(&p, last(&f), false, true, 1); /* computed again */
    CHECK(p.n == 1 && p.row[0].calls == 2 && p.row[0].flops == flops);
    CHECK(p.row[0].pass[0].seconds == 9 && p.row[0].pass[1].seconds == 16);
    CHECK(p.row[0].pass[0].work.flops == 2 * flops);
    CHECK(fabs(p.row[0].pass[0].floor - 2 * flops / 100) < 1e-9);
    f.t.compute = CM_COMPUTE_BF16; /* has a rate of its own */
    cm_prof_add(&p, last(&f), false, false, 1);
    CHECK(fabs(p.row[0].pass[0].floor - 2.5 * flops / 100) < 1e-9);
    p = (cm_prof){ .flop_rate = { 1e9, 1e9 }, .byte_rate = 10 }; /* memory is what takes long */
    cm_prof_add(&p, last(&f), false, false, 1);
    double bytes = (R * I + O * I + R * O) * sizeof(cm_real);
    CHECK(fabs(p.row[0].pass[0].floor - bytes / 10) < 1e-9);
    fix_close(&f);
}

TEST(memory_is_read_at_some_rate) {
    fix_threads(1);
    double rate = cm_read_probe(0);
    CHECKF(rate > 1e8 && rate < 1e13, "%g bytes a second", rate);
}
