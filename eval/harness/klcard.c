/* klcard.c -- one model against a reference: divergence, agreement, perplexity ratio. */
#include "harness/harness.h"
#include "stats/stats.h"

#include <math.h>
#include <stdlib.h>

static cm_kl_pos compare(const cm_real *a, const cm_real *b, int64_t V, int32_t k) {
    int64_t top_a, top_b;
    double za = cm_log_sum_exp(a, V, &top_a), zb = cm_log_sum_exp(b, V, &top_b), kl = 0;
    for (int64_t v = 0; v < V; v++) {
        double la = (double)a[v] - za, lb = (double)b[v] - zb;
        kl += exp(la) * (la - lb);
    }
    double ref = za - (double)a[k], nll = zb - (double)b[k];
    /* Identical rows give 0; rounding may leave others a hair below it. */
    return (cm_kl_pos){ .kl = kl > 0 ? kl : 0, .nll = nll, .ref = ref,
                        .dp = exp(-nll) - exp(-ref), .same = top_a == top_b };
}

void cm_kl_score(cm_scorer *ref, cm_scorer *s, const int32_t *token, int T, int first,
                 cm_kl_pos *pos) {
    int64_t V = ref->m->conf.vocab_size;
    CM_ASSERT(T <= ref->max_T && T <= s->max_T, "a row of %d tokens is too long", T);
    CM_ASSERT(s->m->conf.vocab_size == V, "vocabularies differ");
    cm_scorer_read(ref, token, T);
    cm_scorer_read(s, token, T);
    for (int r = first; r < T - 1; r += CM_LOGIT_ROWS) {
        int n = T - 1 - r < CM_LOGIT_ROWS ? T - 1 - r : CM_LOGIT_ROWS;
        const cm_real *a = cm_scorer_logits(ref, r, n), *b = cm_scorer_logits(s, r, n);
#pragma omp parallel for schedule(static)
        for (int i = 0; i < n; i++)
            pos[r + i] = compare(a + i * V, b + i * V, V, token[r + i + 1]);
    }
}

/* ---- statistics ------------------------------------------------------------------- */

const double cm_kl_quantile[CM_KL_QUANTILES] = { 0,    0.001, 0.01, 0.05,  0.1, 0.5,
                                                 0.9,  0.95,  0.99, 0.999, 1 };

/* Mean of a field, and the two errors of it.  Independent: population variance / (n-1), as
 * llama-perplexity.  Clustered: sqrt(G/(G-1) sum_g (sum_i (x_i - mean))^2) / n. */
static cm_kl_value mean_of(const cm_kl_pos *pos, const int64_t *row, int64_t n,
                           double (*get)(const cm_kl_pos *)) {
    double sum = 0, ss = 0, between = 0, part = 0;
    int64_t groups = 0;
    for (int64_t i = 0; i < n; i++) sum += get(&pos[i]);
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double d = get(&pos[i]) - mean;
        ss += d * d;
        part += d;
        if (i + 1 == n || row[i + 1] != row[i]) {
            between += part * part;
            part = 0;
            groups++;
        }
    }
    double N = (double)n, G = (double)groups;
    return (cm_kl_value){ mean, n > 1 ? sqrt(ss / N / (N - 1)) : NAN,
                          groups > 1 ? sqrt(between * G / (G - 1)) / N : NAN };
}

static double get_kl(const cm_kl_pos *p) { return p->kl; }
static double get_nll(const cm_kl_pos *p) { return p->nll; }
static double get_ref(const cm_kl_pos *p) { return p->ref; }
static double get_ratio(const cm_kl_pos *p) { return p->nll - p->ref; }
static double get_dp(const cm_kl_pos *p) { return p->dp; }
static double get_dp2(const cm_kl_pos *p) { return p->dp * p->dp; }
static double get_same(const cm_kl_pos *p) { return p->same; }

static void quantiles(const cm_kl_pos *pos, int64_t n, double (*get)(const cm_kl_pos *),
                      double *out) {
    double *x = malloc((size_t)n * sizeof *x);
    CM_ASSERT(x, "out of memory for %lld positions", (long long)n);
    for (int64_t i = 0; i < n; i++) x[i] = get(&pos[i]);
    cm_sort(x, n);
    for (int q = 0; q < CM_KL_QUANTILES; q++) out[q] = cm_quantile(x, n, cm_kl_quantile[q]);
    free(x);
}

/* f(value) with errors by its slope there (the delta method). */
static cm_kl_value map_value(cm_kl_value v, double f, double slope) {
    return (cm_kl_value){ f, fabs(slope) * v.se, fabs(slope) * v.se_clustered };
}

/* exp(nll) - exp(ref) is, to first order, the mean of ppl * nll_i - ppl_ref * ref_i. */
static cm_kl_value ppl_diff(const cm_kl_pos *pos, const int64_t *row, int64_t n, double a,
                            double b) {
    cm_kl_pos *lin = malloc((size_t)n * sizeof *lin);
    CM_ASSERT(lin, "out of memory for %lld positions", (long long)n);
    for (int64_t i = 0; i < n; i++)
        lin[i] = (cm_kl_pos){ .nll = a * pos[i].nll, .ref = b * pos[i].ref };
    cm_kl_value v = mean_of(lin, row, n, get_ratio);
    free(lin);
    return map_value(v, a - b, 1);
}

static double correlation(const cm_kl_pos *pos, int64_t n, double a, double b) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = pos[i].nll - a, y = pos[i].ref - b;
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : NAN;
}

void cm_kl_card_of(const cm_kl_pos *pos, const int64_t *row, int64_t n, cm_kl_card *c) {
    CM_ASSERT(n > 0, "a card of no positions");
    cm_kl_value nll = mean_of(pos, row, n, get_nll), ref = mean_of(pos, row, n, get_ref);
    cm_kl_value mse = mean_of(pos, row, n, get_dp2);
    double a = exp(nll.value), b = exp(ref.value), rms = sqrt(mse.value);
    *c = (cm_kl_card){ .n = n };
    for (int64_t i = 0; i < n; i++) c->rows += i == 0 || row[i] != row[i - 1];
    c->ppl = map_value(nll, a, a);
    c->ppl_ref = map_value(ref, b, b);
    c->ln_ratio = mean_of(pos, row, n, get_ratio);
    c->ratio = map_value(c->ln_ratio, exp(c->ln_ratio.value), exp(c->ln_ratio.value));
    c->diff = ppl_diff(pos, row, n, a, b);
    c->kl = mean_of(pos, row, n, get_kl);
    c->dp = mean_of(pos, row, n, get_dp);
    c->dp_rms = map_value(mse, rms, rms > 0 ? 0.5 / rms : 0);
    c->same = mean_of(pos, row, n, get_same);
    c->cor = correlation(pos, n, nll.value, ref.value);
    quantiles(pos, n, get_kl, c->kl_q);
    quantiles(pos, n, get_dp, c->dp_q);
}
