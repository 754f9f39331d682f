/* sched.c -- learning rate over the run, counted in tokens.
 *
 * Warm-up rises linearly from 0; then
 *   constant  1
 *   linear    falls to min over the rest of the run
 *   cosine    half a period down to min over the rest of the run
 *   wsd       1 until the last decay_frac of the run, then 1 - sqrt(x) down to min, which
 *             beats a linear fall (Hagele et al., arXiv 2405.18392)
 * Only plain arithmetic and square roots: the same bits on every CPU and libm. */
#include "train/train.h"

#include <math.h>

/* cos(pi x) for x in [0,1] by its Taylor series about the nearer zero-slope end; the
 * argument stays below pi/2, where 14 terms are exact to the last bits. */
static double cos_pi(double x) {
    const double pi = 3.14159265358979323846;
    bool flip = x > 0.5;
    double a = pi * (flip ? 1 - x : x), term = 1, sum = 1;
    for (int k = 1; k <= 14; k++) {
        term *= -a * a / ((2 * k - 1) * (2 * k));
        sum += term;
    }
    return flip ? -sum : sum;
}

double cm_sched_share(const cm_sched_conf *c, double tokens) {
    double total = (double)c->tokens, warm = (double)c->warmup;
    if (tokens < warm) return tokens / warm;
    double from = warm;
    if (c->kind == CM_SCHED_WSD) from = fmax(warm, total * (1 - c->decay_frac));
    double x = total > from ? (tokens - from) / (total - from) : 0;
    x = fmin(fmax(x, 0), 1);
    double fall = 0; /* 0 at the peak, 1 at the end */
    switch (c->kind) {
    case CM_SCHED_WSD: fall = sqrt(x); break;
    case CM_SCHED_COSINE: fall = 0.5 * (1 - cos_pi(x)); break;
    case CM_SCHED_LINEAR: fall = x; break;
    case CM_SCHED_CONSTANT: fall = 0; break;
    }
    return 1 - (1 - c->min_ratio) * fall;
}

int64_t cm_sched_batch(const cm_data_conf *c, int64_t tokens) {
    int64_t now = c->batch_tokens, doublings = 0, done;
    if (!c->batch_from || tokens >= c->batch_ramp) return now;
    for (int64_t b = c->batch_from; b < c->batch_tokens; b *= 2) doublings++;
    if (!doublings) return now;
    done = (int64_t)((double)tokens * (double)doublings / (double)c->batch_ramp);
    now = c->batch_from;
    for (int64_t i = 0; i < done && now < c->batch_tokens; i++) now *= 2;
    return now;
}

void cm_sched_epochs(cm_conf *c, const cm_source *s) {
    if (c->sched.epochs <= 0 || !s->rows) return;
    double batch = (double)c->data.batch_tokens;
    double steps = ceil(c->sched.epochs * (double)s->rows * s->T / batch - 1e-9);
    c->sched.tokens = (int64_t)((steps < 1 ? 1 : steps) * batch);
}
