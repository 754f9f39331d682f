/* trainer.h -- inside train/: the loop's own state, shared by trainer.c (the loop),
 * plan.c (the same step, counted), val.c and report.c. */
#ifndef CM_TRAINER_H
#define CM_TRAINER_H

#include "train/train.h"

typedef struct cm__trainer {
    const cm_job *job;
    const cm_conf *c;
    cm_plan plan;
    cm_model model;
    cm_optim optim;
    cm_train_state state;
    cm_ckpt ckpt;
    cm_arena perm, step, meta;
    cm_rows rows;        /* one optimizer batch */
    cm_stats stats;
    cm_moe_stats *routes; /* [L] what validation writes of the routing, or NULL */
    cm_buf route_text;
    int64_t route_tokens; /* in it */
    double *windows;     /* the guard's memory */
    size_t stored;       /* dry: bytes of the step arena in use when backward begins */
    cm_prof *prof;       /* set while the plan rehearses, and under --profile */
    struct cm__profile *profile;
    char *ckpt_dir, *stop_file, *save_file;
    /* of the step being computed */
    double loss_sum;     /* objective over the whole batch */
    double nll_sum;      /* token losses, when the objective fills them */
    int64_t scored;      /* targets of the batch */
    int64_t hits;        /* of them, predicted */
    int64_t counted;     /* what the objective is a mean over */
    double gnorm, lr;
    int64_t val_hits;
    double val_bpb, val_acc; /* bits per byte, share of targets predicted; or NaN */
    /* since the last metrics row */
    double row_seconds;  /* spent in steps */
    int64_t row_tokens, row_steps;
    double cpu_seconds;  /* of all threads in steps, since this process started */
    double probe;        /* GFLOP/s of the gemm probe */
    cm_progress progress;
    int collapse_told;   /* the warning is out: balanced rows until it may come again */
    int64_t saved_step;  /* step of the newest checkpoint, -1 none */
    int64_t saved_val;   /* state.val_step in it: a validation since belongs in it */
    int64_t first_step;  /* where this process started */
    int rewinds;         /* from the newest checkpoint */
} cm__trainer;

/* Put model, moments and buffers on the arena.  With a counting arena nothing is touched:
 * the same calls size it. */
void cm__build(cm__trainer *t, cm_arena *perm);
void cm__unbuild(cm__trainer *t);

/* Forward and backward of micro-batch i, `micro` rows of the loaded rows (rows row.. of the
 * source). */
void cm__micro_step(cm__trainer *t, int i, int micro, int64_t row, cm_real norm, bool dry);
/* The plan's step, counted: arenas' bytes and flops of p. */
void cm__rehearse(cm__trainer *t, cm_plan *p);
/* What the choices of a plan are judged by: an account at a processor's fixed rates, and the
 * seconds in it, forward and backward; the bytes of the arenas and what is beside them. */
cm_prof cm__account(void);
double cm__seconds(const cm_prof *prof);
size_t cm__run_bytes(const cm_plan *p);
/* Warn where the file system of `dir` lacks room for one checkpoint. */
void cm__warn_disk(const cm_plan *p, const char *dir);
/* train.recompute = auto: fill t->plan.again so that p, rehearsed without it, fits into
 * train.max_gb if it can, and rehearse p with it. */
void cm__choose_blocks(cm__trainer *t, cm_plan *p);
/* Losses of the first n loaded rows (rows row.. of the validation source), without
 * gradients: their sum. */
double cm__val_rows(cm__trainer *t, int n, int64_t row, bool dry);

/* Validate; stopped: a signal came and there is no result.  CM_EXIT_DIVERGED: the loss is NaN
 * or infinite. */
bool cm__validate(cm__trainer *t, bool *stopped, cm_err *err);
/* Room for what val.routes asks for; none without experts. */
void cm__build_routes(cm__trainer *t, cm_arena *perm);
/* How many things the loss of the first n loaded rows is a mean over. */
int64_t cm__count(const cm__trainer *t, int64_t row, int64_t n);
/* Did a signal or a STOP file ask to end? */
bool cm__stop_asked(const cm__trainer *t);

/* The loss that is judged and shown. */
double cm__loss(const cm__trainer *t);

/* moment.c: AdamW's moments as optim.state wants them, of a parameter like w: shape and dtype,
 * no data.  `all`: elements of w; read and write take elements [at, at+n), at a multiple of the
 * block; random: bits of the stream that rounds. */
enum { CM_MOMENT_BLOCK = 256 };
cm_tensor cm__moment_like(const cm_optim_conf *c, const cm_tensor *w);
void cm__moment_read(const cm_tensor *t, int64_t all, bool second, int64_t at, int64_t n,
                     cm_real *to);
void cm__moment_write(const cm_tensor *t, int64_t all, bool second, int64_t at, int64_t n,
                      const cm_real *from, uint64_t random);

/* profile.c: all silent without job->profile.  begin and step enclose a step; a part is what
 * it spends outside the tape, from a time that now returned. */
typedef enum { CM__PART_CLEAR, CM__PART_NORM, CM__PART_UPDATE, CM__PARTS } cm__part;
void cm__profile_open(cm__trainer *t);
void cm__profile_close(cm__trainer *t);
double cm__profile_now(const cm__trainer *t);
void cm__profile_begin(cm__trainer *t);
void cm__profile_part(cm__trainer *t, cm__part part, double since);
void cm__profile_step(cm__trainer *t, double seconds, int64_t tokens);
/* Write profile.json and print the table. */
bool cm__profile_end(const cm__trainer *t, cm_err *err);

/* report.c: what the run's files and the terminal get to see; all silent without a run. */
bool cm__report_open(cm__trainer *t, cm_err *err);
bool cm__report_step(cm__trainer *t, cm_err *err);
/* stop: whoever watches the model wants the run to end; the reason is in err.  stopped: a
 * signal came while it was watched, and nothing is reported. */
bool cm__report_val(cm__trainer *t, bool *stop, bool *stopped, cm_err *err);
bool cm__report_event(cm__trainer *t, const char *kind, cm_err *err, const char *fmt, ...)
    CM_PRINTF(4, 5);
/* alarm: the sentence with which an alarm ends the run; or NULL. */
bool cm__report_end(cm__trainer *t, bool complete, const char *alarm, cm_err *err);

#endif
