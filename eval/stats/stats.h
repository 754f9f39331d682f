/* stats.h -- statistics on plain arrays of doubles.
 *
 * Pure functions: no files, no output, random numbers from cm_rng.  Where a function needs
 * working memory it takes it from the heap and gives it back before it returns.  Broken
 * arguments (n < 0, a quantile outside [0,1]) are bugs; data that leaves a number undefined
 * gives NaN there.  Sources stand at the functions; docs/math/stats.md has the formulas.
 * Signs: differences are candidate - baseline oriented so that positive is better; for 0/1
 * scores b counts losses (1 -> 0) and c gains (0 -> 1). */
#ifndef CM_STATS_H
#define CM_STATS_H

#include "base/base.h"

typedef struct cm_interval {
    double lo, hi;
} cm_interval;

/* ---- distributions (dist.c) ------------------------------------------------------- */

double cm_norm_cdf(double z);
double cm_norm_quantile(double p);            /* -inf, inf at 0, 1 */
double cm_t_cdf(double t, double df);         /* df > 0; INFINITY is the normal */
double cm_t_quantile(double p, double df);
/* Noncentral t: P[(Z + ncp) / sqrt(chi2_df / df) <= t], by quadrature to 1e-10. */
double cm_nct_cdf(double t, double df, double ncp);
double cm_beta_cdf(double x, double a, double b); /* regularised incomplete beta, a, b > 0 */
double cm_beta_quantile(double p, double a, double b);
double cm_log_beta(double a, double b);
double cm_binom_pmf(int64_t k, int64_t n, double p);
double cm_binom_cdf(int64_t k, int64_t n, double p); /* P[X <= k] */
/* Smallest k with P[X <= k] >= q. */
int64_t cm_binom_quantile(double q, int64_t n, double p);

/* ---- 0/1 scores (count.c) --------------------------------------------------------- */

typedef struct cm_mcnemar {
    double one;      /* exact, one-sided: P[Bin(b+c, 1/2) >= b], small where losses prevail */
    double one_mid;  /* its mid-p */
    double two, mid; /* exact two-sided, and mid-p (Fagerland, Lydersen, Laake 2013) */
    double chi2, p_chi2, chi2_cc, p_chi2_cc; /* asymptotic, and with Edwards' correction */
} cm_mcnemar;
cm_mcnemar cm_mcnemar_test(int64_t b, int64_t c);
/* The same as a sign test of n differences; zeros are dropped. */
cm_mcnemar cm_sign_test(const double *d, int64_t n);

cm_interval cm_wilson(int64_t k, int64_t n, double level);
cm_interval cm_clopper_pearson(int64_t k, int64_t n, double level);
/* Newcombe 1998, method 10: difference (f - g) / n of paired proportions from the table
 * e (both right), f (only first), g (only second), h (neither). */
cm_interval cm_newcombe10(int64_t e, int64_t f, int64_t g, int64_t h, double level);

/* Tango 1998: score statistic of H0 "loss rate - gain rate = theta", positive where more
 * was lost than theta.  theta in (-1, 1). */
double cm_tango_z(int64_t b, int64_t c, int64_t n, double theta);
/* Restricted maximum likelihood of the gain rate under that H0. */
double cm_tango_gain_rate(double b, double c, double n, double theta);
/* Two-sided interval of loss - gain rate. */
cm_interval cm_tango(int64_t b, int64_t c, int64_t n, double level);
/* One-sided p of H0 "net loss rate >= theta" (small: the loss is below theta).  Up to 150
 * changed items the exact tail of Tango's statistic at the restricted estimate (Lloyd 2008's
 * E p-value), for the normal tail passes too often there; beyond, the normal tail. */
double cm_tango_p(int64_t b, int64_t c, int64_t n, double theta);
/* The theta where that p is alpha: the net loss is below it with confidence 1 - alpha. */
double cm_tango_upper(int64_t b, int64_t c, int64_t n, double alpha);

/* ---- means (mean.c) --------------------------------------------------------------- */

typedef struct cm_ttest {
    double mean, sd, se, t, df, p_two, p_less, p_greater;
} cm_ttest;
cm_ttest cm_paired_t(const double *d, int64_t n); /* one sample of differences */

/* Cluster-robust error of an estimate that is a sum of cluster contributions.  r: residual
 * contributions [G], summing to 0, in units of the estimate; w: the clusters' shares of the
 * weight, summing to 1.  se0: CR0, sqrt(sum r^2) (Miller 2024); se1: with G/(G-1); se2: CR2,
 * r^2 / (1 - w), unbiased where items are independent; se3: CR3, r^2 / (1 - w)^2, the
 * jackknife's, for clusters that vary as a whole.  df: Bell and McCaffrey's degrees of freedom
 * of se2, G-1 where sizes are equal; seen: degrees of freedom by the residuals' own fourth
 * powers, 3 (sum r^2)^2 / sum r^4 - 1, few where few clusters carry the variance, at least 4
 * and at most G-1.  G < 2: NaN. */
typedef struct cm_clustered {
    double se0, se1, se2, se3, df, seen;
} cm_clustered;
cm_clustered cm_cluster_se(const double *r, const double *w, int64_t G);
/* Estimate sum num / sum den over clusters and its errors; a mean has den = cluster size. */
cm_clustered cm_cluster_ratio(const double *num, const double *den, int64_t G,
                              double *estimate);

/* Sign-flip permutation of G differences (cluster sums): all sign patterns of the nonzero
 * ones up to 20, else `draws` seeded ones, p = (1 + hits) / (1 + draws). */
typedef struct cm_signflip {
    double p_less;  /* of a sum as small: a loss */
    double p_greater, p_two;
    int64_t nonzero, hits_less, hits_greater, hits_two, patterns;
    bool exact;
} cm_signflip;
cm_signflip cm_signflip_test(const double *s, int64_t G, int64_t draws, uint64_t seed);

/* ---- ranks (rank.c) --------------------------------------------------------------- */

typedef enum { CM_ZERO_WILCOX, CM_ZERO_PRATT, CM_ZERO_SPLIT } cm_zeros;
typedef struct cm_wilcoxon {
    double plus, minus; /* rank sums */
    double p_two, p_less, p_greater;
    bool exact;         /* no ties, no zeros, at most 100 differences */
} cm_wilcoxon;
/* exact: where possible; correct: continuity correction of the normal approximation. */
cm_wilcoxon cm_wilcoxon_test(const double *d, int64_t n, cm_zeros zeros, bool exact,
                             bool correct);

typedef struct cm_mann_whitney {
    double u;                /* of x: pairs with x > y, ties one half */
    double p_two, p_less, p_greater; /* less: x tends to be smaller */
    double shift;            /* Hodges-Lehmann: median of x_i - y_j */
    cm_interval ci;          /* of the shift, two-sided at `level` */
    cm_interval one;         /* its ends are one-sided bounds, each of confidence `level` */
    bool exact;              /* no ties, at most 50 a side */
} cm_mann_whitney;
cm_mann_whitney cm_mann_whitney_test(const double *x, int64_t nx, const double *y,
                                     int64_t ny, double level);

/* Ranks 1..n with ties averaged; returns sum of t^3 - t over ties. */
double cm_ranks(const double *x, int64_t n, double *rank);

/* ---- bootstrap (boot.c) ----------------------------------------------------------- */

/* A statistic of weighted units: w[i] says how often unit i counts. */
typedef double (*cm_boot_fn)(const int32_t *w, int64_t n, void *ctx);

typedef struct cm_boot {
    double theta, se, z0, a;
    cm_interval percentile, basic, bca;
    double p_below; /* share of replicates below 0, ties one half */
} cm_boot;
/* Resamples n units (items or clusters) with replacement.  accel: the acceleration, or NaN
 * to have it from the jackknife (n more calls).  Replicates that are NaN are dropped.
 * B >= 1 replicates, level e.g. 0.95. */
cm_boot cm_bootstrap(cm_boot_fn fn, void *ctx, int64_t n, int64_t B, uint64_t seed,
                     double level, double accel);
/* The same from replicates that exist; sorts them. */
cm_boot cm_boot_intervals(double *rep, int64_t B, double theta, double accel,
                          double level);
/* Acceleration of a statistic from influence values (any constant factor). */
double cm_boot_accel(const double *influence, int64_t n);
/* ... of a sum of independent samples' means, from jackknife values of each sample in turn
 * (Efron and Tibshirani 1993, ch. 14, several samples): value[0..n[0]) of the first, ... */
double cm_boot_accel_multi(const double *value, const int64_t *n, int samples);

/* Two levels: seeds of each side, and units common to both. */
typedef double (*cm_boot2_fn)(const int32_t *wa, const int32_t *wb, const int32_t *w,
                              void *ctx);
cm_boot cm_bootstrap2(cm_boot2_fn fn, void *ctx, int64_t na, int64_t nb, int64_t n,
                      int64_t B, uint64_t seed, double level);

/* Quantile q of sorted x, Hyndman and Fan's type 7 (linear, as NumPy). */
double cm_quantile(const double *sorted, int64_t n, double q);
void cm_sort(double *x, int64_t n);

/* ---- many tests (multi.c) --------------------------------------------------------- */

/* Adjusted p-values; in and out may be the same array.  NaN stays NaN and counts not. */
void cm_holm(const double *p, int64_t n, double *adj);
void cm_bh(const double *p, int64_t n, double *adj);
void cm_by(const double *p, int64_t n, double *adj);

/* ---- margins, power, sizes (power.c) ---------------------------------------------- */

typedef struct cm_tost {
    double p_low, p_high, p; /* of "<= -margin", of ">= margin", their maximum */
    cm_interval ci;          /* two-sided 1 - 2 alpha: inside (-margin, margin) if p < alpha */
} cm_tost;
cm_tost cm_tost_test(double mean, double se, double df, double margin, double alpha);

/* One-sample t test of effect d = mean / sd; sides 1 or 2. */
double cm_power_t(int64_t n, double d, double alpha, int sides);
/* Minimum detectable effect of a paired comparison, normal approximation:
 * (z_alpha + z_power) se; se = sqrt(psi / n) for 0/1 scores. */
double cm_mde(double se, double alpha, double power, int sides);
/* Connor 1987: items for a net loss delta among a share psi of changed items. */
int64_t cm_n_mcnemar(double delta, double psi, double alpha, double power, int sides);
int64_t cm_n_t(double delta, double sd, double alpha, double power, int sides);
/* 1 + (m - 1) icc: variance of a mean of clusters of m over that of as many items. */
double cm_design_effect(double m, double icc);
/* Power of the one-sided exact McNemar test at n items, of which each is lost with
 * probability pb and gained with pc. */
double cm_power_mcnemar(int64_t n, double pb, double pc, double alpha);
/* Smallest net loss that it finds with this power, on top of chance changes psi. */
double cm_mde_mcnemar(int64_t n, double psi, double alpha, double power);
/* Distance k, in estimated standard errors with df degrees of freedom, at which a *later*
 * experiment of `scale` times the size exceeds its critical value with probability power:
 * both experiments' errors are estimated.  crit: the critical value (t or z). */
double cm_plan_distance(double crit, double power, double df, double scale);

/* ---- sequential (seq.c) ----------------------------------------------------------- */

typedef struct cm_sprt {
    double llr, upper, lower;
    int decision; /* 1: H1 (losses prevail), -1: H0, 0: go on */
} cm_sprt;
/* Wald's test on changed items, H0 half of them losses, H1 a share theta1. */
cm_sprt cm_sprt_test(int64_t b, int64_t c, double theta1, double alpha, double beta);
/* e-values, valid at any time: reject when >= 1 / alpha.  Beta(1,1) mixture over the share
 * of losses: both sides, or (1/2, 1) alone. */
double cm_e_two(int64_t b, int64_t c);
double cm_e_one(int64_t b, int64_t c);
/* Of H0 "net loss rate >= theta", 0 <= theta < 1, from n items: bets on each item, mixed
 * uniformly over stakes (Waudby-Smith and Ramdas 2024); exact for 0/1 scores. */
double cm_e_bet(int64_t b, int64_t c, int64_t n, double theta);
/* Of H0 "mean <= 0" from t standardised observations with mean z / sqrt(t): one-sided normal
 * mixture with precision rho2 (Robbins 1970), asymptotic in t (Waudby-Smith et al. 2024). */
double cm_e_mean(double z, double t, double rho2);
/* rho2 that is tightest around t0 observations, and the z at which that e-value is e. */
double cm_e_rho2(double t0, double alpha);
double cm_e_mean_z(double e, double t, double rho2);

/* ---- calibration (calib.c) -------------------------------------------------------- */

typedef struct cm_ece {
    double ece, mce;
    double null;     /* expected ECE of a perfectly calibrated model with these confidences */
    cm_interval ci;  /* bootstrap percentile */
} cm_ece;
/* Bins of equal width, ((k, k+1] / bins).  right: 0/1 (or shares).  w: multiplicities or
 * NULL.  Returns ECE; mce may be NULL. */
double cm_ece_value(const double *conf, const double *right, const int32_t *w, int64_t n,
                    int bins, double *mce);
/* With interval and null value from `draws` (0: NaN). */
cm_ece cm_ece_test(const double *conf, const double *right, int64_t n, int bins,
                   int64_t draws, uint64_t seed, double level);
double cm_brier(const double *conf, const double *right, int64_t n); /* mean squared error */
/* Multi-class: sum over k of (p_k - [k = gold])^2, 0 to 2. */
double cm_brier_multi(const double *p, int k, int gold);
double cm_kl(const double *p, const double *q, int64_t n); /* nats */

/* ---- rankings, repetition (retrieval.c) ------------------------------------------- */

/* rel: relevance in rank order [n]; relevant = greater than 0; all: how many relevant there
 * are.  Nothing relevant: NaN. */
double cm_recall_at(const double *rel, int64_t n, int64_t all, int64_t k);
double cm_precision_at(const double *rel, int64_t n, int64_t k); /* over k, also if n < k */
double cm_reciprocal_rank(const double *rel, int64_t n);         /* 0: none found */
double cm_average_precision(const double *rel, int64_t n, int64_t all);
/* Sum gain / log2(rank + 1) of the first k; gain rel, or 2^rel - 1. */
double cm_dcg(const double *rel, int64_t n, int64_t k, bool exponential);
/* DCG over the DCG of the same list in its best order; both cut at k. */
double cm_ndcg(const double *rel, int64_t n, int64_t k, bool exponential);
/* Distinct n-grams of order k over all of them; 1 - that is seq-rep-k.  Fewer than k
 * tokens: NaN. */
double cm_distinct(const int32_t *token, int64_t n, int k);
double cm_seq_rep(const int32_t *token, int64_t n, int k);
/* Of several texts together (Li et al. 2016's distinct-k); none across their borders. */
double cm_distinct_of(const int32_t *const *token, const int64_t *n, int64_t texts, int k);

#endif
