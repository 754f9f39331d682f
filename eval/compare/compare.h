/* compare.h -- is the candidate worse than the baseline, and how sure are we?
 *
 * Takes what cm_result_read returned, baseline first; pairs the items, tests, decides, and
 * leaves one plain tree of structs for the report.  The rule and its calibration:
 * docs/adr/0009-verdict.md; the formulas: docs/math/stats.md.
 *
 * Everything called `gain` or `loss` is oriented: a gain is better whatever the metric's
 * direction.  `diff` is candidate - baseline in the metric's own direction and unit.
 * Numbers that do not apply are NaN; a needed size that cannot be said is INFINITY. */
#ifndef CM_COMPARE_H
#define CM_COMPARE_H

#include "conf/conf.h"
#include "results/results.h"
#include "stats/stats.h"

typedef enum {
    CM_VERDICT_PASS,         /* no loss as large as the margin */
    CM_VERDICT_FAIL,         /* a loss, and it may be as large as the margin */
    CM_VERDICT_INCONCLUSIVE, /* too few items to say either */
    CM_VERDICT_SKIPPED       /* not compared, or no goal; `reason` says why; never gates */
} cm_verdict;
const char *cm_verdict_text(cm_verdict v); /* "PASS", "FAIL", ... */
cm_exit cm_verdict_exit(cm_verdict v);     /* 0, 3, 5 */

/* ---- input ------------------------------------------------------------------------ */

/* One side of a comparison: results of one model, or of several training seeds of one
 * recipe (replicates of each other).  Borrowed; must outlive the comparison.  A result
 * without tasks brings measurements alone (cm_compare's perf). */
typedef struct cm_side {
    const char *label;
    int n;                         /* seeds, >= 1 */
    const cm_result *const *seed;  /* [n] */
} cm_side;

/* ---- one metric of one task ------------------------------------------------------- */

typedef struct cm_metric_cmp {
    const char *task;
    const cm_metric *metric;
    bool gates;             /* its verdict counts for the overall one */
    cm_verdict verdict;
    char reason[480];       /* one sentence, for people */

    int64_t n, groups;      /* items; clusters of them (= n where each is its own) */
    double base, cand;      /* the metric's values; means over seeds where there are several */
    double diff, stderr_;   /* cand - base, and its standard error */
    double lo, hi;          /* two-sided 1-alpha interval of diff */
    const char *interval;   /* how: "Tango score", "cluster t", "BCa bootstrap", ... */
    double boot_lo, boot_hi; /* BCa interval of diff by clustered paired bootstrap, or NaN */

    double margin;          /* loss tolerated, absolute, >= 0 */
    char margin_text[32];   /* as configured: "0.02", "1%" */
    double bound;           /* the gain is above this with confidence 1-alpha, one-sided;
                             * PASS is bound > -margin.  Sequential: at any time */

    const char *test;       /* "McNemar exact", "cluster t", "sign-flip permutation", ... */
    double p;               /* one-sided, of "no loss" */
    double p_holm;          /* adjusted over all gating metrics of the comparison; for
                             * others over all others */
    double p_bh;            /* Benjamini-Hochberg over all metrics: where to look */
    double p_margin;        /* one-sided, of "a loss as large as the margin" */
    double p_two, p_mid;    /* two-sided; McNemar's mid-p (0/1 scores) */
    double p_perm;          /* two-sided sign-flip permutation by cluster */
    double p_wilcoxon;      /* two-sided signed rank (Pratt), graded scores by item */
    double e_loss, e_margin; /* e-values in sequential mode: of "no loss", "a loss >= margin" */

    double mde;             /* smallest loss that FAILs with power `power` at this size */
    double n_needed;        /* items at which a candidate without loss would PASS together
                             * with all other gating metrics with power `power` */
    int64_t losses, gains;  /* items whose score got worse, better */
    double flips;           /* (losses + gains) / n for 0/1 scores */
    /* Means only: rate at which the candidate's score of an item is better than the
     * baseline's, ties one half, and its two-sided 1-alpha interval; NaN otherwise, and for
     * graded scores with several seeds. */
    double win_rate, win_lo, win_hi;

    /* Seeds as replicates; sd NaN with one seed. */
    int seeds_base, seeds_cand;
    double sd_base, sd_cand;   /* of the metric's value between seeds */
    double noise_floor;        /* |diff| of two single runs of one recipe stays below this
                                * with probability 1-alpha; NaN with one seed a side */
    double seeds_needed;       /* a side, for PASS as n_needed */
} cm_metric_cmp;

/* ---- items that changed ----------------------------------------------------------- */

typedef struct cm_flip {
    const char *id, *group, *hash;
    double base, cand;               /* scores (num/den for ratios) */
    double base_margin, cand_margin; /* log-likelihood margins where the task has them */
    const char *base_detail, *cand_detail; /* JSON text, NULL when not read */
} cm_flip;

/* Items of a task whose score of the primary metric changed, the biggest change of
 * log-likelihood margin (else of score) first.  With several seeds: means over seeds. */
typedef struct cm_flips {
    const char *task;
    const cm_metric *metric;
    int64_t n_lost, n_gained, n_same;
    cm_flip *lost, *gained;
} cm_flips;

/* ---- repeated measurements -------------------------------------------------------- */

/* Runs of one measurement (tokens per second, bytes), in the order they were taken. */
typedef struct cm_measure {
    char *name;
    bool higher; /* is better */
    int n;
    double *v;   /* > 0 */
} cm_measure;

typedef struct cm_measures {
    char *path;
    int n;
    cm_measure *m;
} cm_measures;

/* Reads {"tok_per_s": [..], "peak_bytes": {"better": "lower", "values": [..]}, ...}.
 * Without "better": names ending in _per_s or speedup are better higher; in _s, _ms, seconds,
 * bytes, _mb, _gb, joule better lower; others are refused.  CM_EXIT_DATA. */
bool cm_measures_read(cm_measures *m, const char *path, cm_err *err);
void cm_measures_free(cm_measures *m);

typedef struct cm_perf_cmp {
    const char *name;
    bool higher;
    cm_verdict verdict;
    char reason[320];
    int n_base, n_cand;
    double base, cand;            /* medians */
    double ratio, lo, hi;         /* cand / base (Hodges-Lehmann of logs), 1-alpha interval */
    double bound;                 /* one-sided: log-gain above this */
    double margin;                /* relative loss tolerated */
    double u, p, p_holm, p_two;   /* Mann-Whitney; p one-sided, of "no loss" */
} cm_perf_cmp;

enum { CM_PERF_MIN = 9 }; /* measurements a side below which the verdict is INCONCLUSIVE */

/* ---- the whole -------------------------------------------------------------------- */

/* A leaf of results.json (model, build, machine, config) or a task's data that differs. */
typedef struct cm_change {
    const char *section; /* "model" "build" "machine" "config" "data" */
    char *key, *base, *cand;
} cm_change;

/* One candidate against the baseline. */
typedef struct cm_pairing {
    const char *base, *cand; /* labels */
    cm_verdict verdict;
    char reason[320];
    bool same_model;         /* every seed's model and tokenizer hashes agree pairwise */
    int n_metrics, n_flips, n_perf, n_changes, n_notes;
    cm_metric_cmp *metric;   /* task by task in the baseline's order; a task's primary first */
    cm_flips *flips;         /* one per task */
    cm_perf_cmp *perf;
    cm_change *change;
    char **note;             /* sentences: tasks only the candidate has, few clusters, ... */
} cm_pairing;

typedef struct cm_comparison {
    cm_verdict verdict;      /* FAIL if any candidate's is; else INCONCLUSIVE; else PASS */
    cm_exit code;            /* 0, 3, 5 */
    double alpha, power;
    bool sequential;
    int family;              /* hypotheses that share alpha (Holm) */
    int n;                   /* candidates */
    cm_pairing *pair;
    struct cm_compare_mem *mem;
} cm_comparison;

/* side[0] is the baseline, n >= 2.  perf: per side, or NULL (any may be NULL; what the
 * baseline measured is compared, and a side that lacks what gates or means the other direction
 * by better is refused).  Results without any item in common
 * with the baseline, other task versions or definitions, missing, extra or changed items,
 * other settings that change numbers: false, CM_EXIT_DATA, and the sentence says what
 * differs, with examples.  Nothing to compare is an error as well, never a PASS.
 * Mistakes in conf's lists: CM_EXIT_USAGE, beginning with the key. */
bool cm_compare(cm_comparison *out, const cm_side *side, int n,
                const cm_measures *const *perf, const cm_regress_conf *conf,
                cm_err *err);
void cm_comparison_free(cm_comparison *c);

#endif
