/* probe_int.h -- what the generated kinds of tasks share. */
#ifndef CM_PROBE_INT_H
#define CM_PROBE_INT_H

#include "harness/task_int.h"

enum { MAX_GRID = 32 };

/* Numbers of a list key, each in [lo,hi]; their number, or 0 with a sentence. */
int cm_probe_numbers(const cm_eval_task *t, const char *key, const cm_list *l, double lo,
                     double hi, double *out, cm_err *err);
/* As cm_ask_tokens, but never cut: these rows are as long as the task says. */
void cm_probe_ask(cm_eval_task *t, cm_ask *a, const int32_t *token, int n, int first);
/* Ids as text, those to be predicted in brackets; in the task's pool. */
const char *cm_probe_ids_text(cm_eval_task *t, const int32_t *id, int n, const int32_t *at,
                              int n_at);

/* ---- rows of real text ---------------------------------------------------------------- */

/* One row of tokens of a document, BOS first where there is one. */
typedef struct cm_text_row {
    const int32_t *token; /* in the task's pool */
    int n;
    const char *group; /* the document, in the pool; NULL: joined text, or only one */
} cm_text_row;

/* The documents of task.data in rows of at most `length` tokens.  task.join: one text, rows
 * of exactly `length`, BOS in place of the first token of each, the rest dropped (as
 * llama-perplexity); else each document begins with BOS and goes on in further rows, or
 * with `first_only` has one row of exactly `length` and shorter documents none. */
bool cm_text_rows(cm_eval_task *t, int length, bool first_only, cm_text_row **row,
                  int64_t *n, cm_err *err);

#endif
