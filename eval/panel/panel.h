/* panel.h -- what a model in post-training says to held-out prompts, measured; alarms.
 *
 * sft and dpo look through it at every validation (docs/DIAGNOSTICS.md).  Nothing here
 * touches the training: no random number, no buffer and no bit of it.  The same step gives
 * the same numbers, whatever was interrupted before it. */
#ifndef CM_PANEL_H
#define CM_PANEL_H

#include "harness/harness.h"
#include "train/train.h"

/* ---- measures ------------------------------------------------------------------------- */

/* In the order of a metrics row, where they are called panel/NAME. */
#define CM_PANEL_MEASURES(X)                                                            \
    X(DISTINCT_1, "distinct_1") X(DISTINCT_2, "distinct_2") X(DISTINCT_3, "distinct_3") \
    X(REP_4, "rep_4") X(LOOP, "loop") X(LENGTH, "length") X(UNENDED, "unended")         \
    X(DUPLICATES, "duplicates") X(FORMAT, "format")                                     \
    X(DISTINCT_1_REF, "distinct_1_ref") X(DISTINCT_2_REF, "distinct_2_ref")             \
    X(DISTINCT_3_REF, "distinct_3_ref")                                                 \
    X(LENGTH_REF, "length_ref") X(LENGTH_START, "length_start") X(LONGER, "longer")     \
    X(ENTROPY, "entropy") X(NLL, "nll") X(KL, "kl") X(ACCURACY, "accuracy")             \
    X(WIN_RATE, "win_rate")
enum {
#define X(id, name) CM_PANEL_##id,
    CM_PANEL_MEASURES(X)
#undef X
    CM_PANEL_N,
    CM_PANEL_OF_TEXTS = CM_PANEL_FORMAT + 1 /* those before it need nothing but answers */
};
extern const char *const cm_panel_names[CM_PANEL_N];
typedef struct cm_panel_row {
    double v[CM_PANEL_N]; /* NaN: not measured */
} cm_panel_row;

/* An answer: its tokens without what ended it, and their text. */
typedef struct cm_panel_text {
    const int32_t *id; /* [n] */
    int64_t n;
    const char *text;
    size_t bytes;
    bool ended;  /* by itself */
    bool formed; /* as cm_panel_formed says */
} cm_panel_text;
/* Does an answer keep the template's form: at most one block of reasoning, at its beginning
 * and closed, no other control token, and something behind it?  think: a block must be. */
bool cm_panel_formed(const cm_chat *c, const cm_spm *spm, const int32_t *id, int64_t n,
                     bool think);
/* The measures of texts; the others become NaN. */
cm_panel_row cm_panel_measure(const cm_panel_text *t, int n);
/* Distinct k-grams of n answers over those of what else was said to the same prompts, each
 * pair cut to the shorter one's length: the share of distinct grams falls as texts grow, so
 * only equal numbers of tokens compare.  NaN: either says nothing of k tokens. */
double cm_panel_distinct_of(const cm_panel_text *t, const cm_panel_text *other, int n, int k);
/* Share of answers longer than the other's to the same prompt, ties one half. */
double cm_panel_longer(const double *length, const double *other, int n);
/* Rate of wins of scores over others, ties one half. */
double cm_panel_wins(const double *score, const double *other, int n);
/* A row of logits: entropy of its distribution, and its divergence from another's
 * log-probabilities, KL(this || other), nats.  logp[V] gets its own; other may be NULL. */
void cm_panel_dist(const cm_real *logits, int64_t V, float *logp, const float *other,
                   double *entropy, double *kl);

/* ---- alarms --------------------------------------------------------------------------- */

enum { CM_PANEL_FEW = 16 }; /* fewer answers raise no alarm */
/* What is judged. */
typedef struct cm_panel_view {
    const cm_panel_row *now, *ref, *start; /* measured now; the references; the start model */
    int prompts, items;                    /* behind the numbers */
    bool dpo;                              /* preferences are trained */
} cm_panel_view;
typedef struct cm_panel_alarm {
    int measure;
    const char *key; /* its threshold's, without section */
    bool from_start; /* the start model was no better: a note, no alarm */
    char text[480];  /* one plain sentence */
} cm_panel_alarm;
/* Thresholds that are crossed, in out[CM_PANEL_N]; how many.  A share crosses one only by
 * more than 1.645 sqrt(t (1 - t) / n), which chance does one time in twenty. */
int cm_panel_judge(const cm_panel_conf *c, const cm_panel_view *v, cm_panel_alarm *out);

/* ---- the panel ------------------------------------------------------------------------ */

typedef struct cm_panel cm_panel;
/* Prompts are the beginnings of `val`'s conversations or pairs, spread evenly, references
 * what answers them there; start: the model that training starts from (its description
 * will do).  *out NULL: panel.prompts is 0, or there is no validation split.  All outlives
 * the panel. */
bool cm_panel_open(cm_panel **out, const cm_conf *c, const cm_pack *val,
                   const cm_loaded *start, cm_err *err);
void cm_panel_close(cm_panel *p); /* NULL is fine */
/* What it takes beside the trainer's arenas (cm_plan.beside): answering, reading references,
 * the start model's distributions.  m: on counting memory.  p NULL: nothing. */
bool cm_panel_bytes(const cm_panel *p, const cm_model *m, size_t *bytes, cm_err *err);
/* Before the training takes its memory (cm_job.prepare): the start model's numbers, from the
 * run's panel/start.safetensors; where a run that goes on has none, from the model, loaded
 * and closed again.  p NULL, or no run: nothing. */
bool cm_panel_prepare(cm_panel *p, cm_run *run, cm_err *err);
/* When the trainer's memory holds the start model (cm_job.init): measure it, unless that is
 * known. */
bool cm_panel_begin(cm_panel *p, const cm_model *m, cm_err *err);
/* cm_job.watch: measure, append to the row, leave the answers in the run's panel/, tell
 * alarms: each once, until it has recovered. */
bool cm_panel_watch(cm_panel *p, const cm_model *m, int64_t step, cm_buf *row, bool *stop,
                    cm_err *err);

#endif
