/* compare_int.h -- what the parts of a comparison share; private to compare/. */
#ifndef CM_COMPARE_INT_H
#define CM_COMPARE_INT_H

#include "compare/compare.h"

/* ---- memory of one comparison ----------------------------------------------------- */

typedef struct cm_compare_mem cm_compare_mem;
/* Zeroed bytes that live until cm_comparison_free. */
void *cm_keep(cm_compare_mem *m, size_t bytes);
char *cm_keepf(cm_compare_mem *m, const char *fmt, ...) CM_PRINTF(2, 3);
void *cm_scratch(int64_t n, size_t each); /* zeroed, free() */

/* A p-value in a sentence: "p = 0.0123", "p < 1e-16". */
const char *cm_p_text(double p, char buf[40]);

/* ---- margins and gates (margins.c) ------------------------------------------------ */

/* The margin of a metric: conf's most specific line, else the registry's. */
typedef struct cm_margin {
    double value;
    bool relative, named; /* named: a line says TASK/METRIC */
    char text[32];
} cm_margin;
/* Checks conf's lists against what there is: unknown tasks and metrics are refused. */
bool cm_rule_check(const cm_regress_conf *c, const cm_side *base, const cm_measures *perf,
                   cm_err *err);
cm_margin cm_rule_margin(const cm_regress_conf *c, const char *task, const char *metric,
                         const char *otherwise);
bool cm_rule_gates(const cm_regress_conf *c, const char *task, const char *metric, bool primary);

/* ---- pairing (pair.c) ------------------------------------------------------------- */

/* A task on both sides: where each item of the baseline's first result is in the others. */
typedef struct cm_task_pair {
    const cm_task_result *first;             /* baseline, first seed */
    int na, nb;
    const cm_task_result **a, **b;           /* [na], [nb] */
    int64_t **ia, **ib;                      /* [na][n], [nb][n]: index in a[s], b[s] */
} cm_task_pair;
/* Refuses what is incomparable.  Pairs hold scratch memory. */
bool cm_pair_sides(const cm_side *a, const cm_side *b, cm_err *err);
bool cm_pair_task(cm_task_pair *p, const cm_side *a, const cm_side *b, int task, cm_err *err);
void cm_pair_free(cm_task_pair *p);
bool cm_same_models(const cm_side *a, const cm_side *b);
bool cm_same_tokenizer(const cm_side *a, const cm_side *b);

/* ---- one metric ------------------------------------------------------------------- */

/* How a metric was tested, for what depends on the family's size and is computed last. */
typedef enum { CM_BY_SAME, CM_BY_COUNTS, CM_BY_T, CM_BY_SEEDS, CM_BY_BOOT } cm_route;
typedef struct cm_metric_stat {
    cm_route route;
    double gain, se, df;         /* oriented */
    int64_t nonzero;             /* clusters (items) that changed */
    bool sparse;                 /* few clusters changed: their numbers bound the loss too */
    int64_t lost, gained;        /* of clusters */
    double scale;                /* a changed cluster counts scale / groups */
    double var_seeds, var_items; /* parts of se^2 with seeds */
} cm_metric_stat;

/* Fills m but for Holm, BH, mde, n_needed, verdict and reason.  False: m->reason says why
 * the metric cannot be compared or is not judged. */
bool cm_metric_test(cm_metric_cmp *m, cm_metric_stat *st, const cm_task_pair *p,
                    bool same_model, const cm_regress_conf *c);
/* The rest, once p_holm is known; family: hypotheses that share alpha. */
void cm_metric_decide(cm_metric_cmp *m, const cm_metric_stat *st, const cm_regress_conf *c,
                      int family);

/* Scores of one metric on both sides, items that have it (columns.c). */
typedef struct cm_scores {
    int64_t n, G;
    int na, nb;
    int64_t *item;       /* [n] index in the task */
    int32_t *cluster;    /* [n] numbered from 0 */
    cm_score_val **a, **b; /* [seed][n] */
    double **conf_a, **conf_b; /* [seed][n] for ECE */
} cm_scores;
bool cm_scores_make(cm_scores *s, const cm_task_pair *p, const cm_metric *m, bool cluster,
                    char reason[320]);
void cm_scores_free(cm_scores *s);

void cm_flips_make(cm_flips *f, const cm_task_pair *p, const cm_metric *m, cm_compare_mem *mem);
void cm_changes_make(cm_pairing *p, const cm_side *a, const cm_side *b, cm_compare_mem *mem);

/* ---- measurements (perf.c) -------------------------------------------------------- */

void cm_perf_test(cm_perf_cmp *p, const cm_measure *base, const cm_measure *cand,
                  const cm_regress_conf *c);
void cm_perf_decide(cm_perf_cmp *p, const cm_regress_conf *c);

#endif
