/* val.c -- validation: mean token loss and bits per byte over fixed rows. */
#include "train/trainer.h"

#include <math.h>

double cm__val_rows(cm__trainer *t, int n, bool dry) {
    cm_tape tape;
    size_t step = cm_arena_mark(&t->step), meta = cm_arena_mark(&t->meta);
    cm_tape_begin(&tape, &t->step, &t->meta, false, dry);
    bool packed = t->job->val->packed;
    cm_batch b = { n, t->rows.T, t->rows.token, t->rows.target,
                   packed ? t->rows.doc : NULL, packed ? t->rows.pos : NULL };
    cm_stats only_nll = { .nll = t->stats.nll };
    /* Without a backward pass only block outputs need to stay. */
    cm_model_loss(&t->model, &tape, &b, 1, true, &only_nll);
    double sum = 0;
    for (int64_t r = 0; !dry && r < (int64_t)n * b.T; r++)
        if (b.target[r] >= 0) sum += (double)t->stats.nll[r];
    cm_arena_reset(&t->step, step);
    cm_arena_reset(&t->meta, meta);
    return sum;
}

bool cm__validate(cm__trainer *t, bool *stopped, cm_err *err) {
    const cm_source *v = t->job->val;
    double sum = 0;
    int64_t scored = 0, micro = t->plan.micro_rows;
    *stopped = false;
    for (int64_t row = 0; row < v->rows; row += micro) {
        if (cm__stop_asked(t)) {
            *stopped = true;
            return true;
        }
        int n = (int)(v->rows - row < micro ? v->rows - row : micro);
        if (!v->read(v->self, row, n, &t->rows, err)) return false;
        sum += cm__val_rows(t, n, false);
        for (int64_t r = 0; r < (int64_t)n * t->rows.T; r++)
            scored += t->rows.target[r] >= 0;
    }
    t->state.val_loss = scored ? sum / (double)scored : NAN;
    t->val_bpb = v->bytes ? sum / M_LN2 / (double)v->bytes : NAN;
    t->state.val_step = t->state.step;
    if (!isfinite(t->state.best) || t->state.val_loss < t->state.best) {
        t->state.best = t->state.val_loss;
        t->state.best_step = t->state.step;
    }
    return true;
}
