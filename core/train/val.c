/* val.c -- validation: mean token loss and bits per byte over fixed rows. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>

/* ---- routes ------------------------------------------------------------------------ */

void cm__build_routes(cm__trainer *t, cm_arena *perm) {
    const cm_model_conf *m = &t->model.conf;
    size_t L = (size_t)m->n_layers, K = (size_t)m->top_k;
    size_t rows = (size_t)t->plan.micro_rows * (size_t)t->rows.T;
    if (!t->c->val.routes) return;
    t->routes = cm_arena_zalloc(perm, L * sizeof *t->routes);
    int32_t *chosen = cm_arena_zalloc(perm, L * rows * K * sizeof *chosen);
    if (perm->counting) {
        t->routes = NULL;
        return;
    }
    for (size_t i = 0; i < L; i++) t->routes[i].chosen = chosen + i * rows * K;
}

/* A line for each scored token of the batch: its experts, layer by layer. */
static void add_routes(cm__trainer *t, const cm_batch *b) {
    const cm_model_conf *m = &t->model.conf;
    for (int64_t r = 0; r < (int64_t)b->B * b->T; r++) {
        if (b->target[r] < 0 || t->route_tokens >= t->c->val.routes) continue;
        bool first = true;
        for (int64_t i = 0; i < m->n_layers; i++) {
            if (!t->model.layer[i].experts) continue;
            for (int64_t k = 0; k < m->top_k; k++, first = false)
                cm_buf_addf(&t->route_text, "%s%d", first ? "" : " ",
                            t->routes[i].chosen[r * m->top_k + k]);
        }
        cm_buf_add(&t->route_text, "\n", 1);
        t->route_tokens++;
    }
}

static bool write_routes(cm__trainer *t, cm_err *err) {
    if (!t->route_tokens || !t->job->run) return true;
    char *dir = cm_run_path(t->job->run, "routes");
    char *path = cm_strf("%s/step-%08lld.txt", dir, (long long)t->state.step);
    bool ok = cm_mkdirs(dir, err) &&
              cm_write_file(path, t->route_text.s, t->route_text.n, err);
    free(path);
    free(dir);
    return ok;
}

/* ---- losses ------------------------------------------------------------------------ */

static double token_losses(cm__trainer *t, cm_tape *tape, const cm_batch *b, bool dry) {
    cm_stats only = { .moe = t->routes, .nll = t->stats.nll, .hit = t->stats.hit };
    double sum = 0;
    /* Without a backward pass only block outputs need to stay. */
    cm_model_loss(&t->model, tape, b, 1, true, &only);
    for (int64_t r = 0; !dry && r < (int64_t)b->B * b->T; r++)
        if (b->target[r] >= 0) {
            sum += (double)t->stats.nll[r];
            t->val_hits += t->stats.hit[r];
        }
    if (t->routes && !dry) add_routes(t, b);
    return sum;
}

double cm__val_rows(cm__trainer *t, int n, int64_t row, bool dry) {
    const cm_objective *o = &t->job->objective;
    cm_tape tape;
    size_t step = cm_arena_mark(&t->step), meta = cm_arena_mark(&t->meta);
    cm_tape_begin(&tape, &t->step, &t->meta, false, dry);
    tape.compute = (cm_compute)t->c->train.compute;
    bool packed = t->job->val->packed;
    cm_batch b = { .B = n, .T = t->rows.T, .token = t->rows.token,
                   .target = t->rows.target, .doc = packed ? t->rows.doc : NULL,
                   .pos = packed ? t->rows.pos : NULL };
    double sum = 0;
    if (o->val_loss) {
        cm_var *loss = o->val_loss(o->self, &t->model, &tape, &b, row, &t->stats);
        if (!dry) sum = (double)*cm_rdata(&loss->v);
    } else {
        sum = token_losses(t, &tape, &b, dry);
    }
    cm_arena_reset(&t->step, step);
    cm_arena_reset(&t->meta, meta);
    return sum;
}

bool cm__validate(cm__trainer *t, bool *stopped, cm_err *err) {
    const cm_source *v = t->job->val;
    double sum = 0;
    const cm_objective *o = &t->job->objective;
    int64_t counted = 0, micro = t->plan.micro_rows;
    *stopped = false;
    t->val_hits = 0;
    t->route_text.n = 0;
    t->route_tokens = 0;
    if (o->begin) o->begin(o->self, true);
    for (int64_t row = 0; row < v->rows; row += micro) {
        if (cm__stop_asked(t)) {
            *stopped = true;
            return true;
        }
        int n = (int)(v->rows - row < micro ? v->rows - row : micro);
        if (!v->read(v->self, row, n, &t->rows, err)) return false;
        sum += cm__val_rows(t, n, row, false);
        counted += cm__count(t, row, n);
    }
    t->state.val_loss = counted ? sum / (double)counted : NAN;
    t->val_acc = counted && !o->val_loss ? (double)t->val_hits / (double)counted : NAN;
    t->val_bpb = v->bytes ? sum / M_LN2 / (double)v->bytes : NAN;
    t->state.val_step = t->state.step;
    if (counted && !isfinite(sum))
        return cm_fail(err, CM_EXIT_DIVERGED,
                       "step %lld: the validation loss is %s: these weights are broken; "
                       "checkpoints saved before are untouched in %s",
                       (long long)t->state.step, isnan(sum) ? "NaN" : "infinite", t->ckpt_dir);
    /* The first that is a number, then each that is lower. */
    if (counted && !(t->state.val_loss >= t->state.best)) {
        t->state.best = t->state.val_loss;
        t->state.best_step = t->state.step;
    }
    return write_routes(t, err);
}
