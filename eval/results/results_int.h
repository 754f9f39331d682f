/* results_int.h -- what the writer and the reader of results share; private to results/. */
#ifndef CM_RESULTS_INT_H
#define CM_RESULTS_INT_H

#include "results/results.h"

#include <cjson/cJSON.h>

enum {
#define METRIC(name, kind, better, margin, unit, help) CM_M_##name,
#include "results/metrics.def"
    CM_N_METRICS
};
int cm_metric_index(const cm_metric *m); /* its place in the registry */

/* A task whose items arrive one by one: t's arrays have room for t->n of them. */
typedef struct cm_intake {
    cm_task_result *t;
    int64_t n;                         /* items taken */
    cm_score_val *score[CM_N_METRICS]; /* [t->n] where any item has it, else NULL */
} cm_intake;
void cm_intake_open(cm_intake *in, cm_task_result *t);
/* Take one parsed line.  The reason, without place, in err where it is refused. */
bool cm_intake_item(cm_intake *in, const cJSON *line, bool details, cm_err *err);
/* After the last item: clusters, items_hash (into hash) and columns with their values and
 * standard errors.  Refuses duplicate ids. */
bool cm_intake_finish(cm_intake *in, char hash[17], cm_err *err);
void cm_intake_free(cm_intake *in);

/* One whole JSON value of n bytes, valid UTF-8 and nothing after it; else NULL and a reason
 * in err. */
cJSON *cm_json_parse(const char *s, size_t n, cm_err *err);
/* Text member, or NULL. */
const char *cm_json_text(const cJSON *o, const char *key);
/* Whole number member of at most 2^53, or -1 where there is none. */
int64_t cm_json_count(const cJSON *o, const char *key);
bool cm_is_hash16(const char *s);

/* First 16 hex digits over (id, hash) pairs sorted by id.  order: their indices in that
 * order.  False: *dup is an index whose id occurs twice. */
bool cm_items_hash(char *const *id, char (*const hash)[17], int64_t n, int64_t *order,
                   char out[17], int64_t *dup);

void cm_task_result_free(cm_task_result *t);

#define CM_RESULTS_SCHEMA 1
#define CM_ITEMS_FILE "items.jsonl.zst"
#define CM_PARTIAL_FILE "items.partial.jsonl"

#endif
