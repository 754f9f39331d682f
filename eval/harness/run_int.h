/* run_int.h -- what the files of an evaluation's run share. */
#ifndef CM_RUN_INT_H
#define CM_RUN_INT_H

#include "harness/task_int.h"

/* Questions of all tasks; says how many were cut to the context. */
bool cm_run_build(cm_eval_run *r, cm_err *err);
/* Ask what is not yet in `o`, score and add it.  True also after a stop signal. */
bool cm_run_ask(cm_eval_run *r, cm_results_out *o, cm_engine_count *count, cm_err *err);

#endif
