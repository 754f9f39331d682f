/* run_int.h -- what the files of an evaluation's run share. */
#ifndef CM_RUN_INT_H
#define CM_RUN_INT_H

#include "harness/task_int.h"

/* Questions of all tasks; says how many were cut to the context. */
bool cm_run_build(cm_eval_run *r, cm_err *err);
/* Ask what is not yet in `o`, score and add it.  True also after a stop signal. */
bool cm_run_ask(cm_eval_run *r, cm_results_out *o, cm_engine_count *count, cm_err *err);

/* Whether an evaluation may be left in dir: it is ours, empty or not there.  *finished: a
 * whole one lies there.  CM_EXIT_USAGE for anything else, which stays untouched. */
bool cm_run_folder(const char *dir, bool *finished, cm_err *err);

#endif
