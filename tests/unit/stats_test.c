/* stats_test.c -- eval/stats against published values and other people's code.
 *
 * tests/golden/stats/published.txt has the values of papers, R, SciPy and statsmodels;
 * oracle.txt what gen_oracle.py computes by other means.  A case is a name with groups of
 * numbers; the table below says which function it means. */
#include "stats/stats.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ARGS = 4, MAX_LEN = 512 };

typedef struct {
    double v[MAX_LEN];
    int n;
} vec;

typedef struct {
    char name[64];
    vec arg[MAX_ARGS], want;
    int args;
    double tol; /* 0: the case's own */
} golden;

#define A(i) (g->arg[0].v[i])
#define I(i) ((int64_t)A(i))
#define V(k) g->arg[k].v
#define N(k) g->arg[k].n
typedef const golden *G;

/* ---- one function per name; they fill r and return how many numbers there are ------------ */

#define SCALAR(name, expr)                                                              \
    static int f_##name(G g, double *r) {                                               \
        r[0] = (expr);                                                                  \
        return 1;                                                                       \
    }
SCALAR(norm_cdf, cm_norm_cdf(A(0)))
SCALAR(norm_quantile, cm_norm_quantile(A(0)))
SCALAR(t_cdf, cm_t_cdf(A(0), A(1)))
SCALAR(t_quantile, cm_t_quantile(A(0), A(1)))
SCALAR(nct_cdf, cm_nct_cdf(A(0), A(1), A(2)))
SCALAR(beta_cdf, cm_beta_cdf(A(0), A(1), A(2)))
SCALAR(beta_quantile, cm_beta_quantile(A(0), A(1), A(2)))
SCALAR(binom_quantile, (double)cm_binom_quantile(A(0), I(1), A(2)))
SCALAR(tango_p, cm_tango_p(I(0), I(1), I(2), A(3)))
SCALAR(power_t, cm_power_t(I(0), A(1), A(2), (int)A(3)))
SCALAR(n_t, (double)cm_n_t(A(0), A(1), A(2), A(3), 1))
SCALAR(power_mcnemar, cm_power_mcnemar(I(0), A(1), A(2), A(3)))
SCALAR(n_mcnemar, (double)cm_n_mcnemar(A(0), A(1), 0.05, 0.8, 2))
SCALAR(mde, cm_mde(sqrt(A(1) / A(0)), 0.05, 0.8, 2))
SCALAR(e_one, cm_e_one(I(0), I(1)))
SCALAR(e_bet, cm_e_bet(I(0), I(1), I(2), A(3)))
SCALAR(e_mean, cm_e_mean(A(0), A(1), A(2)))
SCALAR(quantile, cm_quantile(V(0), N(0), V(1)[0]))
SCALAR(accel_one, cm_boot_accel(V(0), N(0)))
SCALAR(ndcg_only, cm_ndcg(V(0), N(0), (int64_t)V(1)[0], false))
SCALAR(paired_t_p, cm_paired_t(V(0), N(0)).p_two)
SCALAR(wilcoxon_cc, cm_wilcoxon_test(V(0), N(0), CM_ZERO_WILCOX, false, true).p_two)

static int put(double *r, int n, ...) {
    va_list ap;
    va_start(ap, n);
    for (int i = 0; i < n; i++) r[i] = va_arg(ap, double);
    va_end(ap);
    return n;
}

static int f_binom(G g, double *r) {
    return put(r, 2, cm_binom_pmf(I(0), I(1), A(2)), cm_binom_cdf(I(0), I(1), A(2)));
}

static int f_mcnemar(G g, double *r) {
    cm_mcnemar m = cm_mcnemar_test(I(0), I(1));
    CHECK(fabs(m.one - m.one_mid - cm_binom_pmf(I(0), I(0) + I(1), 0.5) / 2) < 1e-15);
    return put(r, 7, m.two, m.mid, m.one, m.chi2, m.p_chi2, m.chi2_cc, m.p_chi2_cc);
}

static int f_paired_t(G g, double *r) {
    cm_ttest t = cm_paired_t(V(0), N(0));
    return put(r, 4, t.mean, t.sd, t.se, t.t);
}

static int f_signflip(G g, double *r) {
    cm_signflip f = cm_signflip_test(V(0), N(0), 0, 1);
    CHECK(f.exact);
    return put(r, 5, (double)f.hits_greater, (double)f.hits_two, (double)f.patterns,
               f.p_greater, f.p_two);
}

static int f_signflip_p(G g, double *r) {
    cm_signflip f = cm_signflip_test(V(0), N(0), 0, 1);
    return put(r, 3, f.p_less, f.p_greater, f.p_two);
}

static int f_wilcoxon_exact(G g, double *r) {
    cm_wilcoxon w = cm_wilcoxon_test(V(0), N(0), CM_ZERO_WILCOX, true, false);
    CHECK(w.exact);
    return put(r, 3, w.plus, w.minus, w.p_two);
}

static int f_wilcoxon_side(G g, double *r) {
    cm_wilcoxon w = cm_wilcoxon_test(V(0), N(0), CM_ZERO_WILCOX, true, false);
    return put(r, 1, V(1)[0] ? w.p_greater : w.p_less);
}

static int f_wilcoxon_xy(G g, double *r) {
    double d[MAX_LEN];
    for (int i = 0; i < N(0); i++) d[i] = V(0)[i] - V(1)[i];
    cm_wilcoxon w = cm_wilcoxon_test(d, N(0), CM_ZERO_WILCOX, false, false);
    cm_wilcoxon c = cm_wilcoxon_test(d, N(0), CM_ZERO_WILCOX, false, true);
    return put(r, 3, fmin(w.plus, w.minus), w.p_two, c.p_two);
}

static int f_wilcoxon_zeros(G g, double *r) {
    cm_wilcoxon w = cm_wilcoxon_test(V(0), N(0), (cm_zeros)V(1)[0], false, false);
    return put(r, 2, fmin(w.plus, w.minus), w.p_two);
}

static int f_mann_whitney(G g, double *r) {
    cm_mann_whitney m = cm_mann_whitney_test(V(0), N(0), V(1), N(1), 0.95);
    return put(r, 5, m.u, m.p_less, m.p_greater, m.p_two, (double)m.exact);
}

static int f_hodges_lehmann(G g, double *r) {
    cm_mann_whitney m = cm_mann_whitney_test(V(0), N(0), V(1), N(1), 0.95);
    return put(r, 3, m.shift, m.ci.lo, m.ci.hi);
}

#define ADJUST(name)                                                                    \
    static int f_##name(G g, double *r) {                                               \
        cm_##name(V(0), N(0), r);                                                       \
        return N(0);                                                                    \
    }
ADJUST(holm)
ADJUST(bh)
ADJUST(by)

static int f_rejections(G g, double *r) {
    double adj[MAX_LEN];
    r[0] = r[1] = 0;
    cm_bh(V(0), N(0), adj);
    for (int i = 0; i < N(0); i++) r[0] += adj[i] <= V(1)[0];
    cm_holm(V(0), N(0), adj);
    for (int i = 0; i < N(0); i++) r[1] += adj[i] <= V(1)[0];
    return 2;
}

/* Jackknife of mean(x) - mean(y), sample after sample. */
static int f_accel_two(G g, double *r) {
    double v[MAX_LEN], sx = 0, sy = 0;
    for (int i = 0; i < N(0); i++) sx += V(0)[i];
    for (int i = 0; i < N(1); i++) sy += V(1)[i];
    for (int i = 0; i < N(0); i++) v[i] = (sx - V(0)[i]) / (N(0) - 1) - sy / N(1);
    for (int i = 0; i < N(1); i++) v[N(0) + i] = sx / N(0) - (sy - V(1)[i]) / (N(1) - 1);
    return put(r, 1, cm_boot_accel_multi(v, (int64_t[]){N(0), N(1)}, 2));
}

static double mean_of(const int32_t *w, int64_t n, void *ctx) {
    const double *x = ctx;
    double sum = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += w[i] * x[i];
        all += w[i];
    }
    return sum / all;
}

static int f_boot_mean(G g, double *r) {
    double x[MAX_LEN];
    memcpy(x, V(0), sizeof x);
    cm_boot b = cm_bootstrap(mean_of, x, N(0), 400000, 7, 0.95, NAN);
    return put(r, 6, b.basic.lo, b.basic.hi, b.percentile.lo, b.percentile.hi, b.bca.lo,
               b.bca.hi);
}

/* All 5^5 resamples in place of drawn ones. */
static int f_boot_exact(G g, double *r) {
    enum { ALL = 3125 };
    static double rep[ALL];
    for (int i = 0; i < ALL; i++) {
        double sum = 0;
        for (int k = 0, q = i; k < 5; k++, q /= 5) sum += V(0)[q % 5];
        rep[i] = sum / 5;
    }
    cm_boot b = cm_boot_intervals(rep, ALL, 6, cm_boot_accel(V(0), 5), 0.95);
    double lo = b.z0 - 1.9599639845400545, hi = b.z0 + 1.9599639845400545;
    return put(r, 9, b.se * sqrt((ALL - 1.0) / ALL), b.z0, b.a,
               cm_norm_cdf(b.z0 + lo / (1 - b.a * lo)), cm_norm_cdf(b.z0 + hi / (1 - b.a * hi)),
               b.percentile.lo, b.percentile.hi, b.bca.lo, b.bca.hi);
}

static int f_paired_01(G g, double *r) {
    double d[MAX_LEN];
    int64_t b = 0, c = 0;
    for (int i = 0; i < N(0); i++) {
        d[i] = V(0)[i] - V(1)[i];
        b += d[i] > 0;
        c += d[i] < 0;
    }
    double sa = cm_paired_t(V(0), N(0)).se, sb = cm_paired_t(V(1), N(1)).se;
    cm_ttest t = cm_paired_t(d, N(0));
    return put(r, 8, t.mean, sa, sb, sqrt(sa * sa + sb * sb), t.se, (double)b, (double)c,
               (double)(b + c) / N(0));
}

static int f_cluster(G g, double *r) {
    double mean;
    cm_clustered c = cm_cluster_ratio(V(0), V(1), N(0), &mean);
    return put(r, 3, mean, c.se0, c.se1);
}

static int f_cluster_cr2(G g, double *r) {
    double mean;
    cm_clustered c = cm_cluster_ratio(V(0), V(1), N(0), &mean);
    return put(r, 4, mean, c.se1, c.se2, c.df);
}

static int f_wilson(G g, double *r) {
    cm_interval i = cm_wilson(I(0), I(1), 0.95);
    return put(r, 2, i.lo, i.hi);
}

static int f_clopper(G g, double *r) {
    cm_interval i = cm_clopper_pearson(I(0), I(1), 0.95);
    return put(r, 2, i.lo, i.hi);
}

static int f_newcombe10(G g, double *r) {
    cm_interval i = cm_newcombe10(I(0), I(1), I(2), I(3), 0.95);
    return put(r, 3, (A(1) - A(2)) / (A(0) + A(1) + A(2) + A(3)), i.lo, i.hi);
}

static int f_tango_z(G g, double *r) {
    return put(r, 2, cm_tango_z(I(0), I(1), I(2), A(3)),
               cm_tango_gain_rate(A(0), A(1), A(2), A(3)));
}

static int f_tango(G g, double *r) {
    cm_interval i = cm_tango(I(0), I(1), I(2), A(3));
    return put(r, 2, i.lo, i.hi);
}

static int f_z_sums(G g, double *r) {
    (void)g;
    return put(r, 5, cm_norm_quantile(0.975), cm_norm_quantile(0.95), cm_norm_quantile(0.8),
               cm_mde(1, 0.05, 0.8, 2), cm_mde(1, 0.05, 0.8, 1));
}

static int f_sprt(G g, double *r) {
    cm_sprt up = cm_sprt_test(1, 0, A(0), A(1), A(2)), down = cm_sprt_test(0, 1, A(0), A(1), A(2));
    CHECK(cm_sprt_test(16, 0, A(0), A(1), A(2)).decision == 1);
    CHECK(cm_sprt_test(0, 7, A(0), A(1), A(2)).decision == -1);
    CHECK(up.decision == 0);
    return put(r, 4, up.upper, up.lower, up.llr, down.llr);
}

static int f_ndcg(G g, double *r) {
    int64_t k = (int64_t)V(1)[0];
    double dcg = cm_dcg(V(0), N(0), k, false), ndcg = cm_ndcg(V(0), N(0), k, false);
    return put(r, 4, dcg, dcg / ndcg, ndcg, cm_dcg(V(0), N(0), k, true));
}

static int f_ndcg_ideal(G g, double *r) {
    int64_t k = (int64_t)V(2)[0];
    double ideal = cm_dcg(V(1), N(1), k, false);
    return put(r, 2, ideal, cm_dcg(V(0), N(0), k, false) / ideal);
}

static int f_mrr(G g, double *r) {
    r[0] = 0;
    for (int i = 0; i < N(0); i++) {
        double rel[8] = {0};
        rel[I(i) - 1] = 1;
        r[0] += cm_reciprocal_rank(rel, 8) / N(0);
    }
    return 1;
}

static int f_retrieval(G g, double *r) {
    int64_t all = (int64_t)V(1)[0], k = (int64_t)V(2)[0];
    return put(r, 4, cm_recall_at(V(0), N(0), all, k), cm_precision_at(V(0), N(0), k),
               cm_reciprocal_rank(V(0), N(0)), cm_average_precision(V(0), N(0), all));
}

static int grams(G g, double *r, double (*f)(const int32_t *, int64_t, int)) {
    int32_t t[MAX_LEN];
    for (int i = 0; i < N(0); i++) t[i] = (int32_t)A(i);
    for (int k = 1; k <= 4; k++) r[k - 1] = f(t, N(0), k);
    return 4;
}
static int f_distinct(G g, double *r) { return grams(g, r, cm_distinct); }
static int f_seqrep(G g, double *r) { return grams(g, r, cm_seq_rep); }

static int f_ece(G g, double *r) {
    r[0] = cm_ece_value(V(0), V(1), NULL, N(0), (int)V(2)[0], &r[1]);
    r[2] = cm_brier(V(0), V(1), N(0));
    return 3;
}

static int f_brier_multi(G g, double *r) {
    int k = N(0) / N(1);
    r[0] = 0;
    for (int i = 0; i < N(1); i++) r[0] += cm_brier_multi(V(0) + i * k, k, (int)V(1)[i]) / N(1);
    return 1;
}

static int f_kl(G g, double *r) {
    double mid[MAX_LEN];
    for (int i = 0; i < N(0); i++) mid[i] = (V(0)[i] + V(1)[i]) / 2;
    return put(r, 3, cm_kl(V(0), V(1), N(0)), cm_kl(V(1), V(0), N(0)),
               (cm_kl(V(0), mid, N(0)) + cm_kl(V(1), mid, N(0))) / 2);
}

static int f_tost(G g, double *r) {
    cm_tost t = cm_tost_test(A(0), A(1), INFINITY, A(2), 0.05);
    return put(r, 5, t.p_low, t.p_high, t.p, t.ci.lo, t.ci.hi);
}

/* The rows of the two arrays are pairs. */
static int f_tost_paired(G g, double *r) {
    double d[MAX_LEN];
    for (int i = 0; i < N(0); i++) d[i] = V(0)[i] - V(1)[i];
    cm_ttest s = cm_paired_t(d, N(0));
    cm_tost t = cm_tost_test(s.mean, s.se, s.df, V(2)[0], 0.05);
    return put(r, 5, s.mean, s.se, t.p_low, t.p_high, t.p);
}

static int f_e_two(G g, double *r) {
    double e = cm_e_two(I(0), I(1));
    return put(r, 2, e, fmin(1, 1 / e));
}

static int f_stderr_01(G g, double *r) {
    double *x = calloc((size_t)I(1), sizeof *x);
    CM_ASSERT(x, "out of memory");
    for (int64_t i = 0; i < I(0); i++) x[i] = 1;
    r[0] = cm_paired_t(x, I(1)).se;
    free(x);
    return 1;
}

static const struct {
    const char *name;
    int (*fn)(G g, double *r);
    double tol;
} table[] = {
#define F(name, tol) { #name, f_##name, tol }
    F(norm_cdf, 1e-13), F(norm_quantile, 1e-13), F(t_cdf, 1e-12), F(t_quantile, 1e-12),
    F(nct_cdf, 1e-8), F(beta_cdf, 1e-12), F(beta_quantile, 1e-12), F(binom, 1e-12),
    F(binom_quantile, 0), F(mcnemar, 1e-12), F(paired_t, 1e-12), F(paired_t_p, 1e-12),
    F(signflip, 0), F(signflip_p, 1e-14), F(wilcoxon_exact, 1e-13), F(wilcoxon_side, 1e-12),
    F(wilcoxon_xy, 1e-12), F(wilcoxon_zeros, 1e-12), F(wilcoxon_cc, 1e-12),
    F(mann_whitney, 1e-12), F(hodges_lehmann, 1e-12), F(holm, 1e-12), F(bh, 1e-12),
    F(by, 1e-12), F(rejections, 0), F(accel_one, 1e-12), F(accel_two, 1e-12),
    F(boot_mean, 0.005), F(boot_exact, 1e-11), F(paired_01, 1e-12), F(cluster, 1e-12),
    F(cluster_cr2, 1e-12), F(wilson, 1e-12), F(clopper, 1e-10), F(newcombe10, 1e-10),
    F(tango_z, 1e-10), F(tango, 1e-10), F(tango_p, 1e-8), F(mde, 1e-12), F(n_mcnemar, 0),
    F(n_t, 0), F(power_t, 1e-9), F(power_mcnemar, 1e-6), F(z_sums, 1e-13), F(sprt, 1e-12),
    F(e_one, 1e-10), F(e_two, 1e-10), F(e_bet, 1e-8), F(e_mean, 1e-8), F(quantile, 1e-14),
    F(ndcg, 1e-12), F(ndcg_ideal, 1e-12), F(ndcg_only, 1e-12), F(mrr, 1e-12),
    F(retrieval, 1e-14), F(distinct, 1e-14), F(seqrep, 1e-14), F(ece, 1e-12),
    F(brier_multi, 1e-12), F(kl, 1e-12), F(tost, 1e-10), F(tost_paired, 1e-10),
    F(stderr_01, 1e-13),
#undef F
};

/* ---- reading and comparing ------------------------------------------------------------------ */

static void read_vec(const char *s, const char *end, vec *v) {
    v->n = 0;
    for (char *next; s < end; s = next) {
        double x = strtod(s, &next);
        if (next == s) break;
        CM_ASSERT(v->n < MAX_LEN, "golden line too long");
        v->v[v->n++] = x;
    }
}

static bool read_case(char *line, golden *g) {
    char *colon = strchr(line, ':'), *eq = strchr(line, '='), *tilde = strchr(line, '~');
    if (line[0] == '#' || !colon || !eq) return false;
    CM_ASSERT(sscanf(line, "%63s", g->name) == 1, "golden line without a name");
    g->args = 0;
    for (char *s = colon + 1, *semi; s < eq; s = semi + 1) {
        semi = memchr(s, ';', (size_t)(eq - s));
        if (!semi) semi = eq;
        CM_ASSERT(g->args < MAX_ARGS, "too many arguments");
        read_vec(s, semi, &g->arg[g->args++]);
    }
    read_vec(eq + 1, tilde ? tilde : eq + strlen(eq), &g->want);
    g->tol = tilde ? strtod(tilde + 1, NULL) : 0;
    return true;
}

static void check_case(const golden *g, int line) {
    for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
        if (strcmp(table[k].name, g->name)) continue;
        double r[MAX_LEN], tol = g->tol > 0 ? g->tol : table[k].tol;
        int n = table[k].fn(g, r);
        CHECKF(n == g->want.n, "line %d %s: %d results, wanted %d", line, g->name, n, g->want.n);
        for (int i = 0; i < n && i < g->want.n; i++) {
            double w = g->want.v[i];
            CHECKF(fabs(r[i] - w) <= tol * fmax(fabs(w), 1e-300) + (w == 0 ? 1e-12 : 0),
                   "line %d %s[%d]: %.17g, wanted %.17g", line, g->name, i, r[i], w);
        }
        return;
    }
    CHECKF(false, "line %d: no function for '%s'", line, g->name);
}

static void check_file(const char *path, int least) {
    static golden g;
    char *text, *rest;
    size_t n;
    cm_err err;
    CM_ASSERT(cm_read_file(path, 1 << 20, &text, &n, &err), "%s", err.msg);
    rest = text;
    int cases = 0, number = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        number++;
        if (!read_case(line, &g)) continue;
        check_case(&g, number);
        cases++;
    }
    CHECKF(cases >= least, "%s has %d cases, expected %d", path, cases, least);
    free(text);
}

TEST(published_values) { check_file("tests/golden/stats/published.txt", 80); }
TEST(other_peoples_code) { check_file("tests/golden/stats/oracle.txt", 90); }
