/* recompute.c -- train.recompute = auto: which blocks are computed again in the backward pass,
 * so that the plan fits into train.max_gb at the least cost.
 *
 * Of each kind of block (mixer, feed-forward) two things are counted by rehearsals: the bytes
 * that storing it takes, and the work of its forward.  Blocks are given up in the order of
 * work per byte until a rehearsal of the whole step fits, then those that it fits without are
 * taken back, dearest first.  Rehearsals decide, not sums: a block that is computed again
 * needs its memory for a moment, and only the largest of these moments counts.  Rates are
 * fixed, so the choice follows from the configuration alone; it changes no bit of a result. */
#include "train/trainer.h"

#include <stdlib.h>

/* A processor's rates; only their ratio matters. */
static const double FLOP_RATE = 100e9, BYTE_RATE = 10e9;

typedef struct block {
    int layer;
    double gain, cost; /* bytes not stored; seconds of computing it again */
} block;

static bool fits(const cm__trainer *t, const cm_plan *p) {
    return (double)cm__run_bytes(p) <= t->c->train.max_gb * 1e9;
}

cm_prof cm__account(void) {
    return (cm_prof){ .flop_rate = { FLOP_RATE, FLOP_RATE }, .byte_rate = BYTE_RATE };
}

double cm__seconds(const cm_prof *prof) {
    double s = 0;
    for (int i = 0; i < prof->n; i++)
        s += prof->row[i].pass[0].floor + prof->row[i].pass[1].floor;
    return s;
}

/* A training step with the blocks chosen now: bytes stored when its backward begins, and the
 * work of all of it. */
static void count(cm__trainer *t, const cm_plan *p, double *stored, double *work) {
    cm_prof prof = cm__account();
    t->prof = &prof;
    cm__micro_step(t, 0, (int)p->micro_rows, 0, 1, true);
    t->prof = NULL;
    *stored = (double)t->stored;
    *work = cm__seconds(&prof);
}

static int kind(const cm_model_conf *c, int64_t layer) {
    return 2 * cm_layer_is_attention(c, layer) + cm_layer_has_experts(c, layer);
}

static void measure(cm__trainer *t, const cm_plan *p, block *b) {
    double stored, work, without, with;
    block of[4] = { { 0 } };
    bool known[4] = { false };
    count(t, p, &stored, &work);
    for (int i = 0; i < t->model.conf.n_layers; i++) {
        int k = kind(&t->model.conf, i);
        if (!known[k]) {
            t->plan.again[i] = 1;
            count(t, p, &without, &with);
            t->plan.again[i] = 0;
            of[k] = (block){ i, stored - without, with - work };
            known[k] = true;
        }
        b[i] = of[k];
        b[i].layer = i;
    }
}

static int by_price(const void *x, const void *y) {
    const block *a = x, *b = y;
    double l = a->cost * b->gain, r = b->cost * a->gain;
    return l < r ? -1 : l > r ? 1 : a->layer - b->layer;
}

static bool fits_now(cm__trainer *t, cm_plan *p) {
    cm__rehearse(t, p);
    return fits(t, p);
}

static int by_cost(const void *x, const void *y) {
    const block *a = x, *b = y;
    return a->cost > b->cost ? -1 : a->cost < b->cost ? 1 : b->layer - a->layer;
}

void cm__choose_blocks(cm__trainer *t, cm_plan *p) {
    int n = (int)t->model.conf.n_layers, k = 0;
    if (fits(t, p)) return;
    block *b = calloc((size_t)n, sizeof *b);
    CM_ASSERT(b, "out of memory for the plan");
    measure(t, p, b);
    qsort(b, (size_t)n, sizeof *b, by_price);
    bool ok = false;
    while (k < n && !ok) {
        t->plan.again[b[k++].layer] = 1;
        ok = fits_now(t, p);
    }
    qsort(b, (size_t)k, sizeof *b, by_cost);
    for (int i = 0; i < k && ok; i++) {
        t->plan.again[b[i].layer] = 0;
        if (!fits_now(t, p)) t->plan.again[b[i].layer] = 1;
    }
    cm__rehearse(t, p);
    free(b);
}
