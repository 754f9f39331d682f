/* op_grad_test.c -- every op's gradients against central differences, in double.
 *
 * An op without cases fails.  A second test plants a 1% error in each gradient of each
 * op, one at a time, and demands that the check sees it. */
#include "op/op.h"
#include "tests/t.h"

#include <string.h>

static const double TOLERANCE = 1e-7;

enum { MAX_NAMES = 32 };

typedef struct {
    const char *op;
    int index;
    double worst;
    const char *planted; /* input with the planted error, NULL for none */
    double planted_err;
    const char *name[MAX_NAMES]; /* every input seen, once */
    int n_name;
} tally;

static void remember(tally *a, const char *input) {
    for (int i = 0; i < a->n_name; i++)
        if (!strcmp(a->name[i], input)) return;
    CM_ASSERT(a->n_name < MAX_NAMES, "op %s: too many input names", a->op);
    a->name[a->n_name++] = input;
}

static void on_input(void *ctx, const char *input, int64_t n, double err, double fd_norm) {
    tally *a = ctx;
    remember(a, input);
    if (a->planted) {
        /* A vanishing gradient cannot show a scale error: another case must. */
        if (!strcmp(input, a->planted) && fd_norm > 1e-6) a->planted_err = err;
        return;
    }
    if (!(err <= a->worst)) a->worst = err;
    CHECKF(err <= TOLERANCE, "op %s case %d input %s[%lld]: error %.3g > %.0e", a->op,
           a->index, input, (long long)n, err, TOLERANCE);
}

static bool in_double(void) {
    if (sizeof(cm_real) == sizeof(double)) return true;
    t_skip("differences are compared in double: make MODE=f64");
    return false;
}

static void ready(void) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, 2, &err), "%s", err.msg);
}

/* Run all cases of an op; returns how many there are. */
static int run_cases(const cm_op *op, tally *a, double scale) {
    int i = 0;
    for (;; i++) {
        a->index = i;
        if (!cm_sample_check(op->sample, i, a->planted, scale, on_input, a)) return i;
        if (a->planted && a->planted_err > TOLERANCE) return i;
    }
}

TEST(op_gradients_equal_differences) {
    if (!in_double()) return;
    ready();
    for (int k = 0; k < cm_n_ops; k++) {
        const cm_op *op = cm_ops[k];
        if (!op->bwd) continue; /* inference only */
        tally a = { .op = op->name };
        int n = op->sample ? run_cases(op, &a, 1) : 0;
        CHECKF(n > 0, "op %s has no gradient-check cases", op->name);
        printf("  %-12s %2d cases, worst error %.1e\n", op->name, n, a.worst);
    }
}

TEST(planted_errors_are_caught) {
    if (!in_double()) return;
    ready();
    for (int k = 0; k < cm_n_ops; k++) {
        const cm_op *op = cm_ops[k];
        if (!op->sample) continue;
        tally all = { .op = op->name };
        run_cases(op, &all, 1);
        for (int i = 0; i < all.n_name; i++) {
            tally a = { .op = op->name, .planted = all.name[i] };
            run_cases(op, &a, 1.01);
            CHECKF(a.planted_err > TOLERANCE, "op %s: a 1%% error in d%s goes unseen",
                   op->name, a.planted);
        }
    }
}
