/* report_int.h -- what the files of report/ share; private to report/. */
#ifndef CM_REPORT_INT_H
#define CM_REPORT_INT_H

#include "report/report.h"
#include "report/svg.h"

#include <cjson/cJSON.h>

/* ---- rows of JSON lines ---- */

typedef struct cm_jrows {
    const char *s, *end;
} cm_jrows;
/* The next line parsed (cJSON_Delete), NULL where it is not JSON. */
cJSON *cm_jrows_next(cm_jrows *r);

/* Keys in which two runs' configurations differ, as cm_conf_diff's lines; their number. */
int cm_run_config_diff(const cm_run_log *a, const cm_run_log *b, cm_buf *out);

/* ---- words and numbers (format.c) ---- */

const char *cm_base_name(const char *path);
/* Gains, from a difference in the metric's own direction. */
double cm_gain(const cm_metric *m, double diff);
const char *cm_verdict_class(cm_verdict v); /* "pass" "fail" "unsure" "none" */
/* "FAIL: ..." for the whole; free(). */
char *cm_verdict_line(const cm_report *r);
/* "PASS", for a metric that does not gate "pass". */
const char *cm_row_verdict(const cm_metric_cmp *m);
/* Results' newest "perf"."command", or NULL. */
const char *cm_result_command(const cm_result *r);

/* One cell of the table of metrics as text, the same in every format. */
enum { CM_CELL_METRIC, CM_CELL_A, CM_CELL_B, CM_CELL_DIFF, CM_CELL_CI, CM_CELL_P, CM_CELL_HOLM,
       CM_CELL_MARGIN, CM_CELL_MDE, CM_CELL_VERDICT, CM_N_CELLS };
extern const char *const cm_cell_title[CM_N_CELLS];
void cm_cell(const cm_metric_cmp *m, int cell, char buf[160]);
/* "; win rate 0.612 [0.563, 0.660], ties one half", or "" where there is none. */
const char *cm_win_text(const cm_pairing *p, const cm_flips *f, char buf[120]);

/* ---- what was asked and answered (items.c) ---- */

/* One line of a flip: what was asked, the right answer, both answers; members are texts of
 * the details, empty where absent.  The object owns them. */
typedef struct cm_answer {
    char *asked, *gold, *base, *cand;
} cm_answer;
cm_answer cm_answer_of(const cm_flip *f);
void cm_answer_free(cm_answer *a);
enum { CM_FLIPS_SHOWN = 20 };

/* Groups of a task in which the primary metric lost most, over both sides' first seeds. */
typedef struct cm_slice {
    const char *group;
    int64_t n;
    double base, cand;
} cm_slice;
/* [n] sorted by loss, free(); NULL where the task has no groups worth showing. */
cm_slice *cm_slices(const cm_report *r, int pair, const cm_metric_cmp *m, int *n);

/* ---- charts (charts.c, curves.c) ---- */

void cm_chart_forest(const cm_pairing *p, cm_buf *b);
/* Reliability of the answers to a task, by side; false: no side has conf and acc. */
bool cm_chart_reliability(const cm_report *r, const int *side, int n, const char *task,
                          cm_buf *b);
bool cm_chart_kl(const cm_report *r, const int *side, int n, const char *task, cm_buf *b);
/* One chart of a metric over runs; false: no run logged it. */
bool cm_chart_curves(const cm_run_log *const *run, int n, const char *metric, const char *x,
                     cm_buf *b);
bool cm_chart_loads(const cm_run_log *run, cm_buf *b);

/* ---- pages (page.c) ---- */

void cm_page_open(cm_buf *b, const char *title);
void cm_page_close(cm_buf *b);

#endif
