/* op_prefer.c -- losses over pairs of a chosen and a rejected answer: DPO and relatives.
 *
 * Of a pair: lp_w, lp_l = sums of the row log-probabilities of the chosen and the rejected
 * answer, r_w, r_l those of the reference, |w|, |l| their numbers of trained tokens.
 *   x = lp_w - r_w, y = lp_l - r_l; divided by |w|, |l| under length_norm and for IPO
 *   d = x - y - dpop max(0, -x)
 *   sigmoid: L = -(1-e) log s(h) - e log s(-h),  h = beta d - margin,  e = label_smoothing
 *   ipo:     L = (d - 1/(2 beta))^2
 *   and in both cases + nll (-lp_w / |w|).
 * reference_free: r_w = r_l = 0.  Sources: docs/DPO.md.  All in double, pair by pair in
 * order; what the forward finds stays in the pairs, from where the backward takes it. */
#include "op/op.h"

#include <math.h>

typedef struct prefer_attr {
    cm_pair *pair;
    int n;
    cm_prefer_conf conf;
    cm_real norm;
} prefer_attr;

static bool prefer_infer(cm_node *n, const char **why) {
    if (n->in[0]->v.nd != 1) {
        *why = "logp must be a vector";
        return false;
    }
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}

/* log(1 / (1 + e^-h)) */
static double log_sigmoid(double h) {
    return h >= 0 ? -log1p(exp(-h)) : h - log1p(exp(h));
}

static double sigmoid(double h) {
    double e = exp(-fabs(h));
    return h >= 0 ? 1 / (1 + e) : e / (1 + e);
}

/* Loss of the preference d; *slope = its derivative. */
static double loss_of(const cm_prefer_conf *c, double d, double *slope) {
    if (c->loss == CM_PREFER_IPO) {
        double off = d - 1 / (2 * c->beta);
        *slope = 2 * off;
        return off * off;
    }
    double h = c->beta * d - c->margin, e = c->label_smoothing;
    *slope = c->beta * (e * sigmoid(h) - (1 - e) * sigmoid(-h));
    return -(1 - e) * log_sigmoid(h) - e * log_sigmoid(-h);
}

/* Everything about one pair whose logp is known. */
static void judge(const cm_prefer_conf *c, cm_pair *p) {
    double ratio[2], by[2], slope;
    for (int k = 0; k < 2; k++) {
        CM_ASSERT(p->n[k] > 0, "prefer: an answer without trained tokens");
        by[k] = c->length_norm || c->loss == CM_PREFER_IPO ? 1 / (double)p->n[k] : 1;
        ratio[k] = (p->logp[k] - (c->reference_free ? 0 : p->ref[k])) * by[k];
        p->reward[k] = c->beta * ratio[k];
    }
    bool below = c->dpop > 0 && ratio[0] < 0;
    double d = ratio[0] - ratio[1] + (below ? c->dpop * ratio[0] : 0);
    p->loss = loss_of(c, d, &slope) - c->nll * p->logp[0] / p->n[0];
    p->slope[0] = slope * by[0] * (below ? 1 + c->dpop : 1) - c->nll / p->n[0];
    p->slope[1] = -slope * by[1];
}

static void prefer_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    const prefer_attr *a = n->attr;
    const cm_real *logp = cm_rdata(&n->in[0]->v);
    double sum = 0;
    for (int i = 0; i < a->n; i++) {
        cm_pair *p = &a->pair[i];
        for (int k = 0; k < 2; k++) {
            CM_ASSERT(0 <= p->from[k] && p->from[k] <= p->to[k] &&
                      p->to[k] <= n->in[0]->v.dim[0], "prefer: pair %d lies outside", i);
            p->logp[k] = 0;
            for (int32_t r = p->from[k]; r < p->to[k]; r++) p->logp[k] += (double)logp[r];
        }
        judge(&a->conf, p);
        sum += p->loss;
    }
    *cm_rdata(&n->out[0]->v) = (cm_real)((double)a->norm * sum);
}

static void prefer_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    const prefer_attr *a = n->attr;
    double up = (double)*n->out[0]->g * (double)a->norm;
    if (!n->in[0]->g) return;
    for (int i = 0; i < a->n; i++) {
        const cm_pair *p = &a->pair[i];
        for (int k = 0; k < 2; k++)
            for (int32_t r = p->from[k]; r < p->to[k]; r++)
                n->in[0]->g[r] += (cm_real)(up * p->slope[k]);
    }
}

/* Two pairs in 24 rows, one with its chosen answer above the reference and one below, of
 * all lengths, with rows between that belong to nobody. */
static bool prefer_sample(cm_sample *s, int i) {
    static const cm_prefer_conf cases[] = {
        { .beta = 0.1 },
        { .beta = 0.5, .label_smoothing = 0.2 },
        { .beta = 0.2, .loss = CM_PREFER_IPO },
        { .beta = 2, .length_norm = true },
        { .beta = 2.5, .length_norm = true, .reference_free = true, .margin = 1.4 },
        { .beta = 0.3, .nll = 0.7 },
        { .beta = 0.1, .dpop = 5 },
        { .beta = 0.4, .length_norm = true, .label_smoothing = 0.1, .nll = 0.2, .dpop = 2 },
    };
    static const cm_pair pairs[2] = {
        { .from = { 2, 8 }, .to = { 7, 9 }, .n = { 5, 1 }, .ref = { -7, 0.5 } },
        { .from = { 9, 14 }, .to = { 11, 23 }, .n = { 2, 9 }, .ref = { 3, -2 } },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    cm_pair *p = cm_sample_mem(s, sizeof pairs);
    for (int k = 0; k < 2; k++) p[k] = pairs[k];
    cm_var *logp = cm_sample_in(s, "logp", 1, (int64_t[]){ 24 }, -1, 1);
    cm_sample_out(s, cm_prefer(cm_sample_tape(s), logp, p, 2, &cases[i], (cm_real)0.5));
    return true;
}

const cm_op cm_op_prefer = {
    .name = "prefer", .shapes = "logp[R] -> loss[1]", .n_in = 1, .n_out = 1,
    .attr_bytes = sizeof(prefer_attr), .infer = prefer_infer, .fwd = prefer_fwd,
    .bwd = prefer_bwd, .sample = prefer_sample,
};

cm_var *cm_prefer(cm_tape *t, cm_var *logp, cm_pair *pair, int n, const cm_prefer_conf *c,
                  cm_real norm) {
    cm_var *y;
    cm_tape_apply(t, &cm_op_prefer, &logp, 1, &(prefer_attr){ pair, n, *c, norm }, &y);
    return y;
}
