/* results.h -- what an evaluation leaves behind, written and read back.
 *
 * A result is a folder: results.json (metrics with standard errors, hashes of model,
 * task definitions and items) and items.jsonl.zst (one line per item: what was asked,
 * what came out, the scores).  docs/FORMATS.md has the fields. */
#ifndef CM_RESULTS_H
#define CM_RESULTS_H

#include "io/io.h"
#include "run/run.h"
#include "stats/stats.h"

/* ---- metrics ---------------------------------------------------------------------- */

typedef enum { CM_METRIC_MEAN, CM_METRIC_RATIO, CM_METRIC_EXP, CM_METRIC_ECE } cm_metric_kind;

typedef struct cm_metric {
    const char *name, *margin, *unit, *help;
    cm_metric_kind kind;
    bool higher; /* is better; true also where neither is */
    bool judged; /* false: no goal, shown without a verdict; margin "" */
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
enum { CM_ECE_BINS = 15 };
double cm_metric_value(const cm_metric *m, const cm_score_val *v, const double *conf,
                       const int32_t *w, int64_t n);
/* Its standard error over items, or over clusters where cluster (numbers from 0, below n,
 * or NULL) says that items belong together: with e_i = num_i - R den_i, R the ratio of the
 * sums (for a mean the mean), sqrt(sum over clusters of (sum of e)^2 G/(G-1)) / sum of den;
 * for EXP times the value (delta method).  Without clusters that is the sample deviation
 * over sqrt(n).  NaN for ECE and for fewer than two clusters. */
double cm_metric_stderr(const cm_metric *m, const cm_score_val *v, const int32_t *cluster,
                        int64_t n);

/* Numbers as people read them, everywhere the same: shares as percentages, their differences
 * in points ("+1.25 pp"), the rest with five digits.  NaN is "-".  Each returns buf. */
const char *cm_show_value(const cm_metric *m, double v, char buf[40]);
const char *cm_show_diff(const cm_metric *m, double v, char buf[40]);
/* The size of a loss: no sign. */
const char *cm_show_size(const cm_metric *m, double v, char buf[40]);
const char *cm_show_interval(const cm_metric *m, double lo, double hi, char buf[96]);
const char *cm_show_p(double p, char buf[32]);     /* "0.0123", "3e-07", "<1e-16" */
const char *cm_show_count(double n, char buf[32]); /* "3,923"; infinite: "no number" */

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

struct cJSON;
/* What cJSON lets pass and changes: a key twice in an object, the escape \u0000, behind which
 * a text would be cut.  s[n]: the text that v was parsed from. */
bool cm_json_strict(const struct cJSON *v, const char *s, size_t n, cm_err *err);

/* ---- writing ---------------------------------------------------------------------- */

/* What is known of an item before it is scored; strings are the caller's. */
typedef struct cm_item_key {
    const char *id;
    char hash[17];
} cm_item_key;

/* What results.json says of one task besides its metrics; strings are the caller's. */
typedef struct cm_task_info {
    const char *name, *primary; /* primary: the metric that regress gates on */
    int64_t version;
    char definition[17];        /* hash of the resolved task definition */
    const char *data_json;      /* [{"path":..,"sha256":..}] or NULL */
} cm_task_info;

/* The parts of results.json that evaluations fill in: JSON objects as text, or NULL. */
typedef struct cm_results_about {
    const char *model;  /* path, name, sha256, tokenizer_sha256, parameters, ... */
    const char *build;  /* version, kernels, numerics */
    const char *config; /* what else can change a number: {"eval.shots":5,...} */
} cm_results_about;

typedef struct cm_task_result cm_task_result; /* see reading, below */

/* A result being written.  From one thread:
 *   open, task for each task, begin, then has / add for each item, finish; close always.
 * add writes one line to DIR/items.partial.jsonl at once, so a killed evaluation goes on
 * where it was (after a power cut: where it was seconds ago); finish sorts the lines into
 * item order, computes the metrics from them, and writes items.jsonl.zst and then
 * results.json, each whole or not at all. */
typedef struct cm_results_out cm_results_out;
/* Makes the folder.  settings: a flat JSON object of everything outside the tasks that can
 * change a number (model hash, context, ...).  A finished result there: CM_EXIT_USAGE unless
 * redo; then it stays until finish takes its place.  CM_EXIT_USAGE also when another process
 * writes there. */
cm_results_out *cm_results_open(const char *dir, const char *settings, bool redo,
                                cm_err *err);
/* Declare a task and its n items in item order; keys are copied.  CM_EXIT_DATA for no
 * items, duplicate ids, an unknown primary metric, a task declared twice. */
bool cm_results_task(cm_results_out *o, const cm_task_info *info, const cm_item_key *key,
                     int64_t n, cm_err *err);
/* Find what an interrupted evaluation left.  CM_EXIT_USAGE, naming the difference, when
 * settings, tasks or items were others.  *done: items already there. */
bool cm_results_begin(cm_results_out *o, int64_t *done, cm_err *err);
/* Whether item i (in declared order) of the task is already there. */
bool cm_results_has(const cm_results_out *o, int task, int64_t i);
/* Item i of a task.  CM_EXIT_DATA for a score that is not finite, a negative denominator,
 * an item that is there already or was not declared. */
bool cm_results_add(cm_results_out *o, int task, int64_t i, const cm_item *it, cm_err *err);
/* More members for a task's object in results.json, from its items in item order (with
 * their details): slices, bins, whatever derives from the records alone. */
typedef void (*cm_results_more_fn)(void *ctx, const cm_task_result *t, cm_buf *members);
void cm_results_more(cm_results_out *o, cm_results_more_fn fn, void *ctx);
/* perf: members of an object ("\"seconds\":1.5,..."), the part that may differ between two
 * equal evaluations, or NULL.  CM_EXIT_FAIL when items are missing. */
bool cm_results_finish(cm_results_out *o, const cm_results_about *about, const char *perf,
                       cm_err *err);
void cm_results_close(cm_results_out *o); /* NULL is fine; keeps the partial file */

/* ---- reading ---------------------------------------------------------------------- */

/* One metric of one task over its items, in item order.  For kind ECE v is a copy of acc,
 * and conf holds the confidences. */
typedef struct cm_column {
    const cm_metric *metric;
    double value, stderr_; /* as results.json says; stderr_ NaN when it has none */
    cm_score_val *v;       /* [n]; den = 0 where the item has no such score */
    double *conf;          /* [n] for kind ECE, else NULL */
} cm_column;

struct cm_task_result {
    char *name, *primary;
    int64_t version;
    char definition[17], items_hash[17];
    int64_t n, n_clusters;
    char **id, **group, **detail; /* [n]; group and detail may hold NULL */
    char (*hash)[17];             /* [n] */
    int32_t *cluster;             /* [n], numbered from 0 by first appearance */
    int n_columns;
    cm_column *column;            /* in the registry's order */
};

/* A whole result in memory; root is results.json parsed (cJSON *), for what is printed
 * and compared but not computed with: model, build, machine, config. */
typedef struct cm_result {
    char *path; /* of the folder */
    void *root;
    int n_tasks;
    cm_task_result *task;
} cm_result;

/* path: the folder, or its results.json.  details: keep items' detail texts.  Refuses,
 * CM_EXIT_DATA with file and line: a file cut in the middle, another schema, an
 * incomplete evaluation, no items, duplicate ids, a metric that is not in the registry,
 * NaN scores, items that do not hash to items_hash, metrics that the items do not give
 * (beyond 1e-9 of their size).  r is empty afterwards. */
bool cm_result_read(cm_result *r, const char *path, bool details, cm_err *err);
/* The two halves, from memory: `name` stands for the files in messages. */
bool cm_result_parse(cm_result *r, const char *name, const char *json, size_t n, cm_err *err);
bool cm_result_items(cm_result *r, const char *name, const char *lines, size_t n,
                     bool details, cm_err *err);
void cm_result_free(cm_result *r);
/* Items whose right answer shares the best score with others (acc and its kin, which give
 * such an item a fraction); 0 for other metrics.  n: the task's items. */
int64_t cm_column_ties(const cm_column *c, int64_t n);
/* Column of a metric, or NULL; task by name, or NULL. */
const cm_column *cm_task_column(const cm_task_result *t, const char *metric);
const cm_task_result *cm_result_task(const cm_result *r, const char *name);

#endif
