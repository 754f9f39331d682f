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

/* ---- what no table has -------------------------------------------------------------------- */

TEST(degenerate_data) {
    double same[6] = {2, 2, 2, 2, 2, 2}, zero[4] = {0};
    cm_mcnemar m = cm_mcnemar_test(0, 0);
    CHECK(m.one == 1 && m.two == 1 && m.mid == 1 && m.p_chi2 == 1);
    CHECK(isnan(cm_paired_t(same, 1).se) && isnan(cm_paired_t(same, 0).mean));
    CHECK(cm_paired_t(same, 6).se == 0 && cm_paired_t(same, 6).p_greater == 0);
    CHECK(cm_paired_t(zero, 4).p_two == 1 && cm_sign_test(zero, 4).two == 1);
    CHECK(isnan(cm_cluster_se(zero, same, 1).se2));
    cm_signflip f = cm_signflip_test(zero, 4, 10, 1);
    CHECK(f.p_two == 1 && f.exact && f.nonzero == 0);
    cm_wilcoxon w = cm_wilcoxon_test(zero, 4, CM_ZERO_PRATT, true, false);
    CHECK(w.p_two == 1);
    CHECK(cm_mann_whitney_test(same, 6, same, 6, 0.95).p_two == 1);
    CHECK(isnan(cm_mann_whitney_test(same, 0, same, 3, 0.95).shift));
    CHECK(isnan(cm_distinct((int32_t[]){1}, 1, 2)) && isnan(cm_ndcg(zero, 4, 4, false)));
    CHECK(isnan(cm_quantile(same, 0, 0.5)) && cm_quantile(same, 1, 0.9) == 2);
    double p[3] = {0.01, NAN, 0.04}, adj[3];
    cm_holm(p, 3, adj);
    CHECK(adj[0] == 0.02 && isnan(adj[1]) && adj[2] == 0.04);
}

/* Share of all tables (b, c) in which a loss of exactly theta is declared below theta, where
 * changes have rate psi: the test's level.  Tango's normal tail alone goes to 0.07. */
static double level_of(int64_t n, double theta, double psi) {
    double q = (psi - theta) / 2, r = (q + theta) / (1 - q), level = 0;
    for (int64_t c = 0; c <= cm_binom_quantile(1 - 1e-9, n, q); c++) {
        int64_t b = -1; /* most losses that still pass */
        while (b + 1 + c <= n && cm_tango_p(b + 1, c, n, theta) <= 0.05) b++;
        level += cm_binom_pmf(c, n, q) * cm_binom_cdf(b, n - c, r);
    }
    return level;
}

TEST(margin_test_keeps_its_level) {
    const int64_t sizes[] = {60, 133, 149, 200, 333, 500};
    const double psi[] = {0.02, 0.03, 0.06, 0.15};
    double worst = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int k = 0; k < 4; k++)
            worst = fmax(worst, level_of(sizes[i], 0.02, psi[k]));
    CHECKF(worst <= 0.055, "level %.4f", worst);
    CHECK(cm_norm_cdf(cm_tango_z(0, 0, 133, 0.02)) < 0.05 && pow(0.98, 133) > 0.065);
    CHECK(cm_tango_p(0, 0, 133, 0.02) > 0.05 && cm_tango_p(0, 0, 149, 0.02) < 0.05);
}

TEST(margin_bound_inverts_its_test) {
    for (int64_t b = 0; b <= 40; b += 5)
        for (int64_t c = 0; c <= 40; c += 8) {
            double u = cm_tango_upper(b, c, 400, 0.05);
            CHECK(u > (double)(b - c) / 400);
            if (u > 0.001) {
                CHECK(cm_tango_p(b, c, 400, u * 1.001) <= 0.0501);
                CHECK(cm_tango_p(b, c, 400, u * 0.99) > 0.049);
            }
        }
}

/* E[e] = 1 under the null, which is what makes it valid. */
TEST(e_values_have_expectation_one) {
    double one = 0, two = 0, bet = 0;
    enum { M = 30 };
    for (int b = 0; b <= M; b++) {
        one += cm_binom_pmf(b, M, 0.5) * cm_e_one(b, M - b);
        two += cm_binom_pmf(b, M, 0.5) * cm_e_two(b, M - b);
        /* every item lost or gained, net loss theta = 0.2 */
        bet += cm_binom_pmf(b, M, 0.6) * cm_e_bet(b, M - b, M, 0.2);
    }
    CHECKF(fabs(one - 1) < 1e-10 && fabs(two - 1) < 1e-10 && fabs(bet - 1) < 1e-8, "%g %g %g", one,
           two, bet);
    CHECK(fabs(cm_e_mean(cm_e_mean_z(20, 300, 0.01), 300, 0.01) / 20 - 1) < 1e-9);
}

TEST(drawn_permutations_approach_all) {
    double s[20], few;
    cm_rng r = cm_rng_make(3, CM_RNG_TEST, 0);
    for (int i = 0; i < 20; i++) s[i] = cm_rng_normal(r, (uint64_t)i) - 0.3;
    few = cm_signflip_test(s, 20, 0, 1).p_less;
    double more[21];
    memcpy(more, s, sizeof s);
    more[20] = 1e-9; /* one sign too many to enumerate, of no weight */
    cm_signflip f = cm_signflip_test(more, 21, 40000, 1);
    CHECK(!f.exact && f.patterns == 40000 && fabs(f.p_less - few) < 0.01);
    CHECK(cm_signflip_test(more, 21, 40000, 1).hits_less == f.hits_less);
    CHECK(cm_signflip_test(more, 21, 40000, 2).hits_less != f.hits_less);
}

/* What bootstraps of clusters and of two levels must agree with. */
static double two_level(const int32_t *wa, const int32_t *wb, const int32_t *w, void *ctx) {
    const double *x = ctx; /* [3 + 3][50] */
    double d = 0;
    for (int s = 0; s < 6; s++)
        for (int i = 0; i < 50; i++)
            d += (s < 3 ? -wa[s] : wb[s - 3]) * w[i] * x[50 * s + i] / (3 * 50);
    return d;
}

TEST(bootstraps_know_their_errors) {
    double x[6 * 50];
    cm_rng r = cm_rng_make(4, CM_RNG_TEST, 0);
    for (int s = 0; s < 6; s++)
        for (int i = 0; i < 50; i++)
            x[50 * s + i] = cm_rng_normal(r, (uint64_t)(50 * s + i)) + 2 * (s % 3);
    cm_boot one = cm_bootstrap(mean_of, x, 50, 4000, 1, 0.95, NAN);
    CHECK(fabs(one.se / cm_paired_t(x, 50).se - 1) < 0.05 && one.bca.lo < one.theta);
    cm_boot again = cm_bootstrap(mean_of, x, 50, 4000, 1, 0.95, NAN);
    cm_boot other = cm_bootstrap(mean_of, x, 50, 4000, 2, 0.95, NAN);
    CHECK(again.bca.lo == one.bca.lo && other.bca.lo != one.bca.lo);
    /* Seeds 0, 2, 4 a side: population variance 8/3, over 3 seeds, twice. */
    cm_boot two = cm_bootstrap2(two_level, x, 3, 3, 50, 4000, 1, 0.95);
    CHECKF(fabs(two.se - sqrt(2 * 8.0 / 9)) < 0.1, "%g", two.se);
}

TEST(calibrated_models_are_not_at_zero) {
    double conf[500], right[500];
    cm_rng r = cm_rng_make(5, CM_RNG_TEST, 0);
    for (int i = 0; i < 500; i++) {
        conf[i] = 0.3 + 0.7 * cm_rng_uniform(r, (uint64_t)i);
        right[i] = cm_rng_uniform(r, 1000 + (uint64_t)i) < conf[i];
    }
    cm_ece e = cm_ece_test(conf, right, 500, 15, 400, 1, 0.95);
    CHECKF(e.null > 0.03 && e.null < 0.08 && fabs(e.ece - e.null) < 0.03, "%g %g", e.ece, e.null);
    CHECK(e.ci.lo < e.ece + 0.02 && e.ci.hi > e.ece && e.mce >= e.ece);
    for (int i = 0; i < 500; i++) conf[i] = 0.999;
    CHECK(cm_ece_test(conf, right, 500, 15, 100, 1, 0.95).ece > 0.25);
}

/* Planning twice with an estimated error: simulated. */
TEST(planned_distance_has_its_power) {
    enum { DF = 12, N = 40000 };
    double crit = cm_t_quantile(0.995, DF), k = cm_plan_distance(crit, 0.8, DF, 1);
    CHECK(k > crit + 0.85 && cm_plan_distance(crit, 0.8, INFINITY, 1) < crit + 0.85);
    int hits = 0;
    for (int i = 0; i < N; i++) {
        cm_rng r = cm_rng_make(6, CM_RNG_TEST, (uint64_t)i);
        double s1 = 0, s2 = 0;
        for (int j = 0; j < DF; j++) {
            double u = cm_rng_normal(r, (uint64_t)j), v = cm_rng_normal(r, 100 + (uint64_t)j);
            s1 += u * u / DF;
            s2 += v * v / DF;
        }
        hits += cm_rng_normal(r, 999) + k * sqrt(s1) > crit * sqrt(s2);
    }
    CHECKF(fabs((double)hits / N - 0.8) < 0.015, "power %.4f", (double)hits / N);
}
