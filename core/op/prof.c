/* prof.c -- what a node takes at the least, and the account of a step by op. */
#include "op/narrow.h"

#include <stdlib.h>
#include <string.h>

/* ---- work --------------------------------------------------------------------------- */

/* The part of in[i] that the op uses, in elements. */
static double used(const cm_node *n, int i) {
    int64_t all = cm_tensor_count(&n->in[i]->v);
    int64_t some = n->op->touched ? n->op->touched(n, i) : all;
    return (double)(some < all ? some : all);
}

static double in_bytes(const cm_node *n, int i) {
    double all = (double)cm_tensor_count(&n->in[i]->v);
    return all > 0 ? (double)cm_tensor_bytes(&n->in[i]->v) * (used(n, i) / all) : 0;
}

static double saved_bytes(const cm_node *n) {
    return n->grad && n->op->saved ? (double)n->op->saved(n) : 0;
}

static double out_bytes(const cm_node *n) {
    double sum = 0;
    for (int j = 0; j < n->n_out; j++) sum += (double)cm_tensor_bytes(&n->out[j]->v);
    return sum;
}

/* Of out[]'s gradients. */
static double out_grad_bytes(const cm_node *n) {
    double sum = 0;
    for (int j = 0; j < n->n_out; j++) {
        cm_tensor g = cm_grad_of(n->out[j]);
        sum += (double)cm_tensor_bytes(&g);
    }
    return sum;
}

static cm_work forward_work(const cm_node *n) {
    cm_work w = { n->op->flops ? n->op->flops(n) : 0, out_bytes(n) + saved_bytes(n), 0 };
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i]) w.bytes += in_bytes(n, i);
    return w;
}

/* Products of a backward: one for the activations' gradients, one for the weights'. */
static double back_products(const cm_node *n) {
    bool weights = false, wanted = false;
    for (int i = 0; i < n->n_in; i++) {
        if (!n->in[i] || !n->in[i]->is_param) continue;
        weights = true;
        wanted |= n->in[i]->wants_grad;
    }
    return weights && !wanted ? 1 : 2;
}

static cm_work backward_work(const cm_node *n) {
    cm_work w = { n->op->flops ? back_products(n) * n->op->flops(n) : 0,
                  out_grad_bytes(n) + saved_bytes(n), 0 };
    for (int i = 0; i < n->n_in; i++) {
        const cm_var *x = n->in[i];
        if (!x) continue;
        if (!(n->op->unread >> i & 1)) w.bytes += in_bytes(n, i);
        double size = cm_dtypes[cm_grad_of(x).dtype].bytes;
        if (x->wants_grad) w.bytes += (x->is_param ? 2 : 1) * used(n, i) * size;
    }
    return w;
}

/* The forward forms the gradients and keeps those of the activations. */
static cm_work early_work(const cm_node *n, bool backward) {
    if (backward) return (cm_work){ .bytes = 2 * saved_bytes(n) };
    cm_work w = forward_work(n);
    if (!n->grad) return w;
    cm_work b = backward_work(n);
    return (cm_work){ w.flops + b.flops, w.bytes + b.bytes - 2 * saved_bytes(n), w.how };
}

cm_work cm_op_work(const cm_node *n, bool backward) {
    cm_work w = n->op->early ? early_work(n, backward)
                             : backward ? backward_work(n) : forward_work(n);
    if (n->op->mixed && n->tape) w.how = n->tape->compute;
    return w;
}

/* ---- account ------------------------------------------------------------------------ */

static cm_prof_row *row_of(cm_prof *p, const cm_op *op) {
    for (int i = 0; i < p->n; i++)
        if (p->row[i].op == op) return &p->row[i];
    CM_ASSERT(p->n < (int)(sizeof p->row / sizeof *p->row), "profile table full");
    p->row[p->n] = (cm_prof_row){ .op = op };
    return &p->row[p->n++];
}

static double floor_of(const cm_prof *p, cm_work w) {
    double rate = p->flop_rate[w.how];
    if (rate <= 0 || p->byte_rate <= 0) return 0;
    double f = w.flops / rate, b = w.bytes / p->byte_rate;
    return f > b ? f : b;
}

void cm_prof_add(cm_prof *p, const cm_node *n, bool backward, bool replay, double seconds) {
    cm_prof_row *row = row_of(p, n->op);
    cm_prof_pass *pass = &row->pass[backward];
    cm_work w = cm_op_work(n, backward);
    pass->seconds += seconds;
    pass->floor += floor_of(p, w);
    pass->work.flops += w.flops;
    pass->work.bytes += w.bytes;
    if (backward) return;
    row->calls++;
    row->flops += n->op->flops && !replay ? n->op->flops(n) : 0;
}

/* ---- memory ------------------------------------------------------------------------- */

/* Sum of n words, n a multiple of 8: eight chains, so that reading is all that costs. */
static uint64_t read_words(const uint64_t *x, size_t n) {
    uint64_t s[8] = { 0 };
    for (size_t i = 0; i < n; i += 8)
        for (int k = 0; k < 8; k++) s[k] += x[i + (size_t)k];
    uint64_t sum = 0;
    for (int k = 0; k < 8; k++) sum += s[k];
    return sum;
}

/* Parts are read in turn, so that none is in a cache when its time comes; the best part
 * counts, since others may use the machine. */
double cm_read_probe(double seconds) {
    enum { PARTS = 16, BYTES = 16 << 20, PIECE = 1 << 18, PIECES = BYTES / PIECE };
    uint64_t *x = aligned_alloc(CM_ALIGN, (size_t)PARTS * BYTES);
    if (!x) return 0;
    int threads = cm_kern_threads();
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int i = 0; i < PARTS * PIECES; i++) memset((char *)x + (size_t)i * PIECE, i, PIECE);
    double best = 0, start = cm_now();
    volatile uint64_t sink = 0;
    for (int k = 0; k < 2 * PARTS || cm_now() - start < seconds; k++) {
        const uint64_t *part = x + (size_t)(k / 2 % PARTS) * (BYTES / sizeof *x);
        int n = k & 1 ? 1 : threads;
        uint64_t sum = 0;
        double t = cm_now();
#pragma omp parallel for schedule(static) num_threads(n) reduction(+ : sum)
        for (int i = 0; i < PIECES; i++)
            sum += read_words(part + (size_t)i * (PIECE / sizeof *x), PIECE / sizeof *x);
        t = cm_now() - t;
        sink = sink + sum;
        if (t > 0 && BYTES / t > best) best = BYTES / t;
    }
    free(x);
    return best;
}
