/* wide.c -- weights held in less than full width.
 *
 * An op that multiplies by such a matrix forward, for inference, does so as it is held
 * (cm_qmat_mul).  On a tape that records, only BF16 is met: a frozen base keeps its matrices
 * in half the memory, and the op has room for one at full width in its scratch.  Widening is
 * exact, so the results are those of a model whose weights had been rounded to BF16 once.
 * Products of BF16 operands take such a weight as it is. */
#include "op/op.h"

static bool as_stored(cm_compute how, const cm_tensor *w) {
    return how == CM_COMPUTE_BF16 && w->dtype == CM_BF16_T;
}

bool cm_as_held(const cm_node *n, const cm_tensor *w) {
    bool held = w->dtype != CM_REAL_DTYPE && !n->tape->recording;
    held = held && !as_stored(n->tape->compute, w);
    CM_ASSERT(!held || n->tape->compute == CM_COMPUTE_FP32, "op %s: BF16 products with %s",
              n->op->name, cm_dtypes[w->dtype].name);
    return held;
}

size_t cm_weight_bytes(const cm_node *n, const cm_tensor *w, int64_t M) {
    return cm_as_held(n, w) ? cm_align_up(cm_qmat_scratch(w, M))
                            : cm_operand_bytes(n->tape->compute, w);
}

size_t cm_wide_bytes(const cm_tensor *w) {
    bool narrow = w->dtype != CM_REAL_DTYPE;
    return narrow ? cm_align_up((size_t)cm_tensor_count(w) * sizeof(cm_real)) : 0;
}

void cm_wide_part(const cm_tensor *w, int64_t at, int64_t n, cm_real *to) {
    const uint16_t *h = (const uint16_t *)w->data + at;
    for (int64_t i = 0; i < n; i++) to[i] = (cm_real)cm_bf16_to_f32(h[i]);
}

const cm_real *cm_wide(const cm_tensor *w, void *room) {
    enum { PART = 1 << 14 };
    if (w->dtype == CM_REAL_DTYPE) return cm_rdata(w);
    CM_ASSERT(w->dtype == CM_BF16_T, "a weight of type %s", cm_dtypes[w->dtype].name);
    int64_t n = cm_tensor_count(w);
    cm_real *to = room;
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (n > PART)
    for (int64_t i = 0; i < n; i += PART)
        cm_wide_part(w, i, n - i < PART ? n - i : PART, to + i);
    return to;
}

size_t cm_operand_bytes(cm_compute how, const cm_tensor *w) {
    return as_stored(how, w) ? 0 : cm_wide_bytes(w);
}

cm_mat cm_operand(cm_compute how, const cm_tensor *w, int64_t ld, bool t, void *room) {
    if (as_stored(how, w)) return (cm_mat){ w->data, ld, t, true };
    return cm_mat_of(cm_wide(w, room), ld, t);
}
