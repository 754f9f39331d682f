/* results.h -- what an evaluation leaves behind, written and read back.
 *
 * A result is a folder: results.json (metrics with standard errors, hashes of model,
 * task definitions and items) and items.jsonl.zst (one line per item: what was asked,
 * what came out, the scores).  docs/FORMATS.md has the fields. */
#ifndef CM_RESULTS_H
#define CM_RESULTS_H

#include "io/io.h"
#include "run/run.h"

/* ---- metrics ---------------------------------------------------------------------- */

typedef enum { CM_METRIC_MEAN, CM_METRIC_RATIO, CM_METRIC_EXP, CM_METRIC_ECE } cm_metric_kind;

typedef struct cm_metric {
    const char *name, *margin, *unit, *help;
    cm_metric_kind kind;
    bool higher; /* is better */
} cm_metric;

/* The registry of metrics.def. */
const cm_metric *cm_metrics(int *n);
const cm_metric *cm_metric_find(const char *name); /* NULL: no such metric */

/* One item's score: num alone for a mean (den = 1), both for a ratio. */
typedef struct cm_score_val {
    double num, den;
} cm_score_val;
/* Value of a metric over n items' scores.  w: how often each counts (a bootstrap's
 * multiplicities), or NULL for once each.  conf: for kind ECE the items' confidences, v
 * then being their acc.  NaN where nothing counts. */
double cm_metric_value(const cm_metric *m, const cm_score_val *v, const double *conf,
                       const int32_t *w, int64_t n);

/* ---- one item --------------------------------------------------------------------- */

enum { CM_MAX_SCORES = 16 };

typedef struct cm_item_score {
    const cm_metric *metric;
    cm_score_val val;
} cm_item_score;

typedef struct cm_item {
    const char *task, *id, *group; /* group NULL: the item is its own cluster */
    char hash[17];
    int n_scores;
    cm_item_score score[CM_MAX_SCORES];
    const char *detail; /* a JSON object as text, or NULL */
} cm_item;

/* First 16 hex digits of SHA-256 over the n strings, each preceded by its length. */
void cm_item_hash(const char *const *part, int n, char hash[17]);
void cm_item_json(const cm_item *it, cm_buf *out); /* one line, without its newline */

/* ---- writing ---------------------------------------------------------------------- */

/* What results.json says of one task besides its metrics; strings are the caller's. */
typedef struct cm_task_info {
    const char *name, *primary; /* primary: the metric that regress gates on */
    int64_t version;
    char definition[17];        /* hash of the resolved task definition */
    const char *data_json;      /* [{"path":..,"sha256":..}] or NULL */
} cm_task_info;

/* ---- reading ---------------------------------------------------------------------- */

/* One metric of one task over its items, in item order. */
typedef struct cm_column {
    const cm_metric *metric;
    double value, stderr_;  /* as results.json says; stderr_ NaN when it has none */
    cm_score_val *v;        /* [n]; den = 0 where the item has no such score */
} cm_column;

typedef struct cm_task_result {
    char *name, *primary;
    int64_t version;
    char definition[17], items_hash[17];
    int64_t n;
    char **id, **group, **detail; /* [n]; group and detail may hold NULL */
    char (*hash)[17];             /* [n] */
    int n_columns;
    cm_column *column;
} cm_task_result;

/* A whole result in memory; root is results.json parsed (cJSON *), for what is printed
 * and compared but not computed with: model, build, machine, config. */
typedef struct cm_result {
    char *path;
    void *root;
    int n_tasks;
    cm_task_result *task;
} cm_result;

/* path: the folder, or its results.json.  details: keep items' detail texts.  Refuses,
 * CM_EXIT_DATA with file and line: a file cut in the middle, another schema, an
 * incomplete evaluation, no items, duplicate ids, a metric that is not in the registry,
 * NaN scores, items that do not hash to items_hash. */
bool cm_result_read(cm_result *r, const char *path, bool details, cm_err *err);
void cm_result_free(cm_result *r);
/* Column of a metric, or NULL. */
const cm_column *cm_task_column(const cm_task_result *t, const char *metric);

#endif
