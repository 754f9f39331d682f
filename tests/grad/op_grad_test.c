/* op_grad_test.c -- every op's gradients against central differences, in double.
 *
 * An op without cases fails.  A second test plants a 1% error in each gradient of each
 * op, one at a time, and demands that the check sees it. */
#include "op/op.h"
#include "tests/t.h"

static const double TOLERANCE = 1e-7;

typedef struct {
    const char *op;
    int index, n_input;
    double worst, planted; /* errors over all inputs / of the planted input */
    int planted_input;
    bool verbose;
} tally;

static void on_input(void *ctx, const char *input, int64_t n, double err, double fd_norm) {
    tally *a = ctx;
    if (a->n_input++ == a->planted_input) {
        /* An input that no output of this case depends on cannot show a scale error. */
        a->planted = fd_norm > 0 ? err : -1;
        return;
    }
    if (!(err <= a->worst)) a->worst = err;
    if (a->verbose)
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

TEST(op_gradients_equal_differences) {
    if (!in_double()) return;
    ready();
    for (int k = 0; k < cm_n_ops; k++) {
        const cm_op *op = cm_ops[k];
        CHECKF(op->sample, "op %s has no gradient-check cases", op->name);
        if (!op->sample) continue;
        tally a = { .op = op->name, .planted_input = -1, .verbose = true };
        int i = 0;
        for (;; i++) {
            a.index = i;
            if (!cm_sample_check(op->sample, i, -1, 1, on_input, &a)) break;
        }
        CHECKF(i > 0, "op %s has no gradient-check cases", op->name);
        printf("  %-12s %2d cases, worst error %.1e\n", op->name, i, a.worst);
    }
}

/* Is a 1% error in input k of this op seen in some case?  Sets *exists when any case has
 * such an input. */
static bool planted_error_seen(const cm_op *op, int k, bool *exists) {
    *exists = false;
    for (int i = 0;; i++) {
        tally a = { .op = op->name, .index = i, .planted_input = k };
        if (!cm_sample_check(op->sample, i, k, 1.01, on_input, &a)) return false;
        if (a.n_input > k) *exists = true;
        if (a.planted > TOLERANCE) return true;
    }
}

TEST(planted_errors_are_caught) {
    if (!in_double()) return;
    ready();
    for (int j = 0; j < cm_n_ops; j++) {
        if (!cm_ops[j]->sample) continue;
        int k = 0;
        for (bool exists = true;; k++) {
            bool seen = planted_error_seen(cm_ops[j], k, &exists);
            if (!exists) break;
            CHECKF(seen, "op %s: 1%% error in input %d goes unseen", cm_ops[j]->name, k);
        }
        CHECKF(k > 0, "op %s has no checked inputs", cm_ops[j]->name);
    }
}
