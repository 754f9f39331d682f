/* guard.c -- tells a good step from a spike and from a broken one.
 *
 * A value is a spike when it lies more than sigma deviations above the mean of the last
 * `cap` values, once half of the window is filled (OLMo-core's rule).  Values enter the
 * window cut at that limit: one spike moves it little, yet a lasting change of level is
 * accepted after a few steps, so a guard that skips can never skip for ever.
 * Invariant: only finite values are in a window. */
#include "train/train.h"

#include <math.h>
#include <string.h>

static double sd_of(const cm_ring *w, double mean) {
    double s = 0;
    for (int i = 0; i < w->n; i++) s += (w->x[i] - mean) * (w->x[i] - mean);
    /* A flat history must not make a spike of rounding noise. */
    return fmax(sqrt(s / w->n), 1e-3 * fabs(mean) + 1e-12);
}

static double mean_of(const cm_ring *w) {
    double s = 0;
    for (int i = 0; i < w->n; i++) s += w->x[i];
    return s / w->n;
}

/* Deviations above the mean; pushes the value, cut at sigma deviations. */
static double judge(cm_ring *w, double x, double sigma) {
    double z = 0;
    if (w->n >= (w->cap + 1) / 2) {
        double mean = mean_of(w), sd = sd_of(w, mean);
        z = (x - mean) / sd;
        x = fmin(x, mean + sigma * sd);
    }
    w->x[w->at] = x;
    w->at = (w->at + 1) % w->cap;
    if (w->n < w->cap) w->n++;
    return z;
}

void cm_guard_init(cm_guard *g, const cm_train_conf *c, double *mem) {
    int cap = (int)c->spike_window;
    *g = (cm_guard){ .sigma = c->spike_sigma };
    g->loss = (cm_ring){ .x = mem, .cap = cap };
    g->gnorm = (cm_ring){ .x = mem + cap, .cap = cap };
}

cm_step_verdict cm_guard_judge(cm_guard *g, double loss, double gnorm) {
    g->loss_z = g->gnorm_z = 0;
    if (!isfinite(loss) || !isfinite(gnorm)) return CM_STEP_BAD;
    g->loss_z = judge(&g->loss, loss, g->sigma);
    g->gnorm_z = judge(&g->gnorm, gnorm, g->sigma);
    bool spike = g->loss_z > g->sigma || g->gnorm_z > g->sigma;
    return spike ? CM_STEP_SPIKE : CM_STEP_GOOD;
}
