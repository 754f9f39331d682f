/* task_int.h -- what the files that make tasks share: rows, templates, expressions. */
#ifndef CM_TASK_INT_H
#define CM_TASK_INT_H

#include <cjson/cJSON.h>

#include "harness/harness.h"

/* ---- regular expressions (filter.c; PCRE2 with UTF and Unicode classes) -------------- */

typedef struct cm_regex cm_regex;
/* NULL: a sentence about the pattern, with the offset. */
cm_regex *cm_regex_open(const char *pattern, cm_err *err);
void cm_regex_close(cm_regex *r); /* NULL is fine */
/* The first or last match, its first group that is not empty where there are groups;
 * s points into text.  *found says whether there was one.  False: the search gave up
 * (too much backtracking). */
bool cm_regex_find(const cm_regex *r, const char *text, size_t n, bool last, const char **s,
                   size_t *len, bool *found, cm_err *err);
/* Every match replaced; $1 stands for a group. */
bool cm_regex_replace(const cm_regex *r, const char *with, cm_buf *text, cm_err *err);

/* ---- what belongs to an open task ---------------------------------------------------- */

enum { MAX_METRICS = CM_MAX_SCORES };

struct cm_task_int {
    const cm_metric *metric[MAX_METRICS];
    int n_metrics;
    cm_regex *filter, *flexible;
    cm_regex **ignore, **replace; /* replace: of the pairs' first halves */
    int n_ignore, n_replace;
    cm_row *row, *shot;           /* while building */
    int64_t n_rows, n_shots, at;  /* at: the row being turned into a question */
    bool own_shots;               /* shot is row */
    int32_t *id;                  /* scratch for tokens */
    int64_t n_id, cap_id;
    cm_chat chat;                 /* once chat_open */
    bool chat_open;
};
/* The chat template's tokens of the task's model; NULL, CM_EXIT_USAGE, where it has none. */
const cm_chat *cm_task_chat(cm_eval_task *t, cm_err *err);
/* Keys of task.def that every kind has, that kinds with files of data, with items from rows
 * and with prompts have; cm_kind.keys is made of these. */
#define CM_KEYS_ALL "name about version kind metrics primary "
#define CM_KEYS_DATA "data format where split replace "
#define CM_KEYS_ROWS CM_KEYS_DATA "id group "
#define CM_KEYS_PROMPT CM_KEYS_ROWS "prompt delimiter primer shots shot_data shot_pick " \
    "shot_seed shot_delimiter shot_target chat system "
/* Put the task file before a sentence about a key that it does not set. */
void cm_task_name_file(const cm_eval_task *t, cm_err *err);
bool cm_task_reports(const cm_eval_task *t, const char *metric);

/* ---- rows (items_rows.c) ------------------------------------------------------------- */

/* Rows of the files in `list`, appended; hashes of the files go to *data_json unless NULL.
 * Free each row's object with cJSON_Delete. */
bool cm_rows_read(cm_eval_task *t, const cm_list *list, cm_row **row, int64_t *n,
                  cm_buf *data_json, cm_err *err);
void cm_rows_free(cm_row *row, int64_t n);
/* The value of "a.b" in a row, or NULL. */
const cJSON *cm_row_get(const cm_row *r, const char *field);
/* A value as text: strings, numbers, true and false; false for anything else. */
bool cm_value_text(const cJSON *v, cm_buf *out);

/* ---- prompts (prompt.c) -------------------------------------------------------------- */

/* `template` with the row's fields in it, then the task's replacements when `clean`. */
bool cm_render(const cm_eval_task *t, const char *template, const cm_row *r, bool clean,
               cm_buf *out, cm_err *err);
bool cm_clean(const cm_eval_task *t, cm_buf *text, cm_err *err); /* those replacements */
/* As cm_render, kept in the task's pool; NULL with a sentence. */
const char *cm_render_keep(cm_eval_task *t, const char *template, const cm_row *r,
                           bool clean, cm_err *err);
/* False, with a sentence, for a template whose braces do not match. */
bool cm_template_check(const char *template, cm_err *err);
/* Primer, examples and the item's own prompt, in the pool; in chat the system's text and the
 * examples are earlier turns.  solve appends a solved example: its prompt, and delimiter and
 * solution. */
typedef bool (*cm_solve_fn)(cm_eval_task *t, const cm_row *r, cm_buf *prompt, cm_buf *solution,
                            cm_err *err);
bool cm_prompt_make(cm_eval_task *t, const char *own, cm_solve_fn solve, cm_asked *out,
                    cm_err *err);
/* BOS, else EOS, else -1: what stands before a text of its own. */
int cm_task_prefix(const cm_eval_task *t);

/* ---- choices (choice.c) -------------------------------------------------------------- */

/* Texts of a row's choices and which are right. */
bool cm_choices_read(cm_eval_task *t, const cm_row *r, cm_question *q, cm_err *err);

/* ---- answers (check.c) --------------------------------------------------------------- */

/* The part of text[n] that `filter` finds (all of it when NULL), put into *out. */
bool cm_filter_answer(const cm_regex *filter, bool last, const char *text, size_t n, cm_buf *out,
                      bool *found, cm_err *err);
/* False, CM_EXIT_DATA, for a reference that no answer could be the same as: without a number
 * for checker numeric, without words for world. */
bool cm_check_reference(const cm_eval_task *t, const char *want, cm_err *err);
/* Whether two answers are the same for the task's checker. */
bool cm_check_answer(const cm_eval_task *t, const cm_buf *got, const char *want, bool *same,
                     cm_err *err);

#endif
