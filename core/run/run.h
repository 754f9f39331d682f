/* run.h -- a run's folder, its life and its voice: lock, status, metrics, signals,
 * progress.
 *
 *   runs/<name>/  config.yaml   the resolved configuration
 *                 run.json      machine, build, command line, inputs with their hashes
 *                 status.json   running, done, ...; atomically replaced
 *                 metrics.jsonl, events.jsonl, train.log: append-only
 *                 summary.json  at the end
 *                 lock          held while a process owns the folder
 *
 * Every JSON number we write reads back exactly: integers in full, doubles in their
 * shortest round-trip form, NaN and infinities as the strings "nan", "inf", "-inf". */
#ifndef CM_RUN_H
#define CM_RUN_H

#include "base/base.h"

/* ---- JSON out --------------------------------------------------------------------- */

/* Appends "key":value with a comma where one is needed; key NULL inside an array.
 * cm_json_open's bracket is '{' or '['; close with the same. */
void cm_json_open(cm_buf *b, const char *key, char bracket);
void cm_json_close(cm_buf *b, char bracket);
/* Closes the object, prints it as a line on stdout at once, and frees b. */
void cm_json_print(cm_buf *b);
void cm_json_i64(cm_buf *b, const char *key, int64_t v);
void cm_json_u64(cm_buf *b, const char *key, uint64_t v);
void cm_json_f64(cm_buf *b, const char *key, double v);
void cm_json_bool(cm_buf *b, const char *key, bool v);
/* Text; bytes that are not UTF-8 become U+FFFD.  What a model wrote may hold zero bytes:
 * _bytes, of n of them (s may be NULL where n is 0). */
void cm_json_str(cm_buf *b, const char *key, const char *s);
void cm_json_bytes(cm_buf *b, const char *key, const char *s, size_t n);
/* A value that is JSON already. */
void cm_json_raw(cm_buf *b, const char *key, const char *json);
/* "2026-11-21T09:00:00Z" into buf; returns buf. */
const char *cm_time_text(char buf[32]);

/* ---- the folder ------------------------------------------------------------------- */

#define CM_RUN_STATES(X)                                                                \
    X(CM_RUN_NEW, "new")                 /* nothing there yet */                        \
    X(CM_RUN_RUNNING, "running")         /* or died without a word */                   \
    X(CM_RUN_DONE, "done")                                                              \
    X(CM_RUN_INTERRUPTED, "interrupted") /* by a signal, after saving */                \
    X(CM_RUN_DIVERGED, "diverged")                                                      \
    X(CM_RUN_FAILED, "failed")
typedef enum {
#define X(id, text) id,
    CM_RUN_STATES(X)
#undef X
    CM_RUN_N_STATES
} cm_run_state;
const char *cm_run_state_text(cm_run_state s);
/* The state an exit code (128+n for a signal) leaves behind. */
cm_run_state cm_run_state_of_exit(int code);

typedef enum { CM_RESUME_AUTO, CM_RESUME_MUST, CM_RESUME_NEVER } cm_resume;
typedef enum { CM_DONE_FAIL, CM_DONE_SKIP, CM_DONE_REDO } cm_if_done;

typedef struct cm_run {
    char *dir;           /* "runs/demo" */
    const char *tool;    /* caller's string */
    cm_run_state before; /* what cm_run_open found */
    bool resumed;        /* the folder holds an unfinished run to go on with */
    bool skip;           /* it holds a finished one and that is fine: do nothing */
    bool unfinished;     /* set by the tool: it ends well, but there is more to do */
    uint64_t segment;    /* 1, then one more each resume */
    uint64_t step, steps;
    FILE *log; /* train.log */
    cm_buf row, event, info, inputs;
    int fd_dir, fd_lock, fd_metrics, fd_events;
    double began, beat;
} cm_run;

/* Take the folder and decide what happens in it.  CM_EXIT_USAGE when another process
 * has it (named by its pid), when it holds a finished run and `done` is FAIL, or when
 * `resume` forbids or demands what is not so.  REDO empties the folder.  Until
 * cm_run_start nothing but the folder and its lock are written. */
bool cm_run_open(cm_run *r, const char *dir, const char *tool, cm_resume resume,
                 cm_if_done done, cm_err *err);
/* Write config.yaml, run.json (`info`: members of its object, from cm_json_* calls
 * between the brackets) and status.json; open the streams, repairing a torn last line;
 * copy log lines into train.log. */
bool cm_run_start(cm_run *r, const char *config_yaml, const cm_buf *info, cm_err *err);
/* Record an input file and the hash that identifies it in run.json. */
bool cm_run_input(cm_run *r, const char *role, const char *path, const char *hash,
                  cm_err *err);
/* After a checkpoint of `step` is loaded: forget metrics of later steps. */
bool cm_run_rewind(cm_run *r, uint64_t step, cm_err *err);
/* Forget the last metrics row, if it is of `step` and has member `key`: what it reports will
 * be done again. */
bool cm_run_drop_row(cm_run *r, uint64_t step, const char *key, cm_err *err);
/* Note the step; rewrites status.json at most every ten seconds.  Asks cm_run_there. */
bool cm_run_heartbeat(cm_run *r, uint64_t step, uint64_t steps, cm_err *err);
/* Members of summary.json's object, as for `info`. */
bool cm_run_summary(cm_run *r, const cm_buf *members, cm_err *err);
/* The folder is still the one that was opened, and its metrics are still in it: false,
 * with a sentence, where somebody removed or moved it. */
bool cm_run_there(const cm_run *r, cm_err *err);
/* Final status, files closed, lock released.  Fine on a run that never opened.  False,
 * after saying so in the log, when the status could not be written. */
bool cm_run_close(cm_run *r, cm_run_state state, int exit_code);
/* "runs/demo/samples" etc.; free(). */
char *cm_run_path(const cm_run *r, const char *name);

/* ---- rows ------------------------------------------------------------------------- */

/* metrics.jsonl: begin, then cm_json_f64(b, "train/loss", x) ..., then end.  A row is
 * one write.  No heap allocation once the buffer has grown to a row's size. */
cm_buf *cm_metrics_begin(cm_run *r, uint64_t step);
bool cm_metrics_end(cm_run *r, cm_err *err);
/* events.jsonl: saves, spikes, warnings, signals. */
bool cm_run_event(cm_run *r, const char *kind, uint64_t step, cm_err *err,
                  const char *fmt, ...) CM_PRINTF(5, 6);
/* Cut a JSON-lines file after its last whole line; with `upto`, after the last line
 * whose "step" is not above *upto. */
bool cm_rows_repair(const char *path, const uint64_t *upto, cm_err *err);

/* ---- machine ---------------------------------------------------------------------- */

/* Members for run.json: CPU, its flags that matter, cores, memory, system, compiler. */
void cm_machine_json(cm_buf *b);

/* ---- signals ---------------------------------------------------------------------- */

/* SIGINT, SIGTERM and SIGHUP, where they are not ignored, end the process, and output
 * files that are not complete go with it.  Every tool starts so. */
void cm_signals_tidy(void);
/* SIGINT, SIGTERM and SIGHUP (unless it is ignored, as under nohup) ask to stop, SIGUSR1 to
 * save and go on.  A second one that asks to stop ends the process at once.  The first says on
 * stderr what happens next: "stopping", or `what` (a string that stays: "stopping after
 * saving"). */
void cm_signals_install(void);
void cm_signals_install_as(const char *what);
/* Forget a stop request; back to cm_signals_tidy. */
void cm_signals_release(void);
/* The signal that asked to stop, or 0.  To be polled in every loop that can last. */
int cm_signal_stop(void);
/* The same for what returns errors: false, with the code 128 + the signal, if one asked to stop;
 * whether an error is such an end, after which nothing is wrong. */
bool cm_signal_go_on(cm_err *err);
bool cm_signal_ended(const cm_err *err);
/* Whether a save was asked for since the last call. */
bool cm_signal_save(void);
/* After saving: die of the signal as if it had never been caught (status 128+n). */
void cm_signal_reraise(int sig);

/* ---- progress --------------------------------------------------------------------- */

/* Rate and time left, from (time, amount) pairs: exponential average over the last
 * half minute or so, exact for a constant rate, and unmoved by what a resumed run had
 * done before it started. */
typedef struct cm_rate {
    double t0, t, done, rate;
    bool started;
} cm_rate;
void cm_rate_add(cm_rate *r, double now, double done);
/* Seconds, or -1 when it cannot be known yet. */
double cm_rate_left(const cm_rate *r, double total);
/* "45s", "12m30s", "4h14m", "3d02h", "?" when negative. */
const char *cm_duration_text(double seconds, char buf[32]);

typedef enum { CM_PROGRESS_NONE, CM_PROGRESS_PLAIN, CM_PROGRESS_BAR } cm_progress_mode;
/* Bar on a terminal that can show one; plain when stderr is no terminal, TERM is dumb,
 * or NO_COLOR or CI is set. */
cm_progress_mode cm_progress_auto(void);

typedef struct cm_progress {
    const char *label, *unit;
    double total;
    double gap; /* least seconds between plain lines: 1 or more */
    cm_progress_mode mode;
    FILE *out, *log;
    double (*clock)(void);
    cm_rate rate;
    double shown, logged; /* when a bar or line last went to each */
    bool dirty;           /* a bar stands on the terminal's line */
    bool ended;           /* the total was reached and said */
} cm_progress;

/* total 0: unknown.  Plain lines come at most every `gap` seconds; `log` (may be NULL)
 * gets them too, bar or not. */
void cm_progress_open(cm_progress *p, const char *label, const char *unit, double total,
                      double gap, cm_progress_mode mode, FILE *log);
/* `fmt`: what else to show ("loss=3.41 lr=6e-4"). */
void cm_progress_show(cm_progress *p, double done, const char *fmt, ...) CM_PRINTF(3, 4);
void cm_progress_close(cm_progress *p);

#endif
