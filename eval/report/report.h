/* report.h -- what compare decided and what runs logged, for people and for CI.
 *
 * One cm_report describes a comparison; the same tree is printed as a terminal table, one
 * self-contained HTML file (inline SVG, light and dark, no network), Markdown for a pull
 * request, JUnit XML and JSON.  All foreign text is escaped for its format.  Below that:
 * tables over many runs and curves of their metrics. */
#ifndef CM_REPORT_H
#define CM_REPORT_H

#include "compare/compare.h"

/* ---- what a run logged ---------------------------------------------------- */

/* One metric of metrics.jsonl over steps; rows without it are left out. */
typedef struct cm_curve {
    int64_t n;
    double *x, *y; /* step (or the metric asked for), value; y may be NaN */
} cm_curve;
void cm_curve_free(cm_curve *c);

/* A run's folder, as far as reports need it.  text members are NULL where absent. */
typedef struct cm_run_log {
    char *dir, *name;  /* name: last part of the path */
    char *config_yaml;
    void *summary;     /* cJSON: summary.json, or NULL */
    char *metrics;     /* metrics.jsonl, whole lines */
    size_t n_metrics;
} cm_run_log;
/* CM_EXIT_USAGE where dir is no run (no config.yaml and no metrics.jsonl); CM_EXIT_DATA for a
 * row or a summary that is not JSON.  A torn last row is left out. */
bool cm_run_log_read(cm_run_log *r, const char *dir, cm_err *err);
void cm_run_log_free(cm_run_log *r);
/* Whether a folder looks like a run. */
bool cm_is_run(const char *dir);
/* The newest finished evaluation below dir/eval (free()), or NULL. */
char *cm_run_newest_eval(const char *dir);
/* x: a metric's name, or NULL for the step. */
void cm_run_curve(const cm_run_log *r, const char *metric, const char *x, cm_curve *out);

/* Load of experts over training, from `moe/expert_load_layer`: each expert's tokens over
 * the mean of its layer (1 = balanced), averaged over columns of equal numbers of rows. */
typedef struct cm_load_map {
    int layers, experts, columns;
    double *step; /* [columns]: last step of each */
    double *load; /* [layers][experts][columns] */
} cm_load_map;
bool cm_run_loads(const cm_run_log *r, int max_columns, cm_load_map *out); /* false: none */
void cm_load_map_free(cm_load_map *m);

/* ---- a comparison ------------------------------------------------------------ */

typedef struct cm_report {
    const cm_comparison *cmp; /* NULL: it could not be made; `error` says why */
    const char *error;
    const cm_side *side;      /* [n_sides], the baseline first; for diagrams and hashes */
    int n_sides;
    const cm_run_log *const *run; /* [n_sides], or NULL; NULL where a side is no run */
    const char *command;      /* the command line that made this report, or NULL */
} cm_report;

typedef enum { CM_REPORT_HTML, CM_REPORT_MD, CM_REPORT_JSON, CM_REPORT_XML } cm_report_format;
/* By the name's ending; CM_EXIT_USAGE for another one. */
bool cm_report_format_of(const char *path, cm_report_format *out, cm_err *err);
void cm_report_text(const cm_report *r, cm_buf *out); /* verdict line and table */
void cm_report_html(const cm_report *r, cm_buf *out);
void cm_report_md(const cm_report *r, cm_buf *out);
void cm_report_json(const cm_report *r, cm_buf *out);
void cm_report_junit(const cm_report *r, cm_buf *out);
/* Write atomically in the format of the name. */
bool cm_report_write(const cm_report *r, const char *path, cm_err *err);

/* ---- seeds of one recipe -------------------------------------------------------- */

/* How much a metric varies between results of one recipe: mean, sample deviation, range, and
 * the difference of two single runs that chance exceeds with probability alpha,
 * t(1-alpha/2, n-1) sd sqrt(2).  seed: at least two results over the same tasks. */
bool cm_noise_table(const cm_result *const *seed, int n, double alpha, bool json, cm_buf *out,
                    cm_err *err);

/* ---- tables and curves over runs --------------------------------------------------- */

typedef enum { CM_TABLE_TSV, CM_TABLE_MD, CM_TABLE_JSON } cm_table_format;
/* One row a run.  cols: names separated by commas: configuration keys, names in summary.json,
 * eval/TASK/METRIC of its newest evaluation, `state`; NULL: the keys in which the runs differ, then
 * the validation loss.  sort: a column, numbers ascending (descending with - in front), absent
 * last; or NULL.  CM_EXIT_USAGE for a column that no run has. */
bool cm_table(const cm_run_log *run, int n, const char *cols, const char *sort,
              cm_table_format format, cm_buf *out, cm_err *err);

/* Charts of metrics over runs, one line a run, one chart a metric; `moe/expert_load_layer`
 * becomes a heat map for each run.  html: a whole page; else one SVG of the charts below each
 * other.  x: a logged metric, or NULL for the step.  CM_EXIT_USAGE for a metric or an x that
 * no run logged. */
bool cm_plot(const cm_run_log *run, int n, const char *const *metric, int n_metrics,
             const char *x, bool html, cm_buf *out, cm_err *err);

#endif
