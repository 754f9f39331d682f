/* op_rope.c -- frequencies of the rotary position embedding.
 *
 * The rotation itself is part of the attention op; here are the tables it takes: plain,
 * position interpolation (linear), and YaRN (arXiv 2309.00071) with the ramp of its
 * reference code: dimensions that turn more than beta_fast times over the original
 * context keep their frequency, those below beta_slow are slowed by the full factor. */
#include "op/op.h"

#include <math.h>

/* Dimension (index of a pair, a real number) that turns `turns` times over the original
 * context. */
static double corr_dim(const cm_rope_conf *c, double turns) {
    const double pi = 3.14159265358979323846;
    return c->P * log(c->orig_ctx / (turns * 2 * pi)) / (2 * log(c->base));
}

static void yarn_range(const cm_rope_conf *c, double *low, double *high) {
    *low = fmax(floor(corr_dim(c, c->beta_fast)), 0);
    *high = fmin(ceil(corr_dim(c, c->beta_slow)), c->P - 1);
    if (*high - *low < 0.001) *high = *low + 0.001; /* an empty ramp is a step */
}

void cm_rope_freqs(const cm_rope_conf *c, double *inv, double *mscale) {
    double low = 0, high = 1;
    bool yarn = c->kind == CM_ROPE_YARN;
    if (yarn) yarn_range(c, &low, &high);
    *mscale = 1;
    if (yarn) *mscale = c->attn_factor > 0 ? c->attn_factor
                      : c->factor > 1      ? 0.1 * log(c->factor) + 1
                                           : 1;
    for (int i = 0; i < c->P / 2; i++) {
        double f = pow(c->base, -2.0 * i / c->P);
        double slow = c->kind == CM_ROPE_LINEAR ? 1 : 0;
        if (yarn) slow = fmin(fmax((i - low) / (high - low), 0), 1);
        inv[i] = slow > 0 ? f / c->factor * slow + f * (1 - slow) : f;
    }
}
