/* panel_int.h -- what the files of the panel share. */
#ifndef CM_PANEL_INT_H
#define CM_PANEL_INT_H

#include "panel/panel.h"

/* A validation document: what is asked and, up to <|end|>, what was answered. */
typedef struct cm_panel_item {
    int64_t doc, n_prompt, n; /* n tokens in all, <|end|> included */
    int32_t *id;
    bool think;               /* the reference begins with a block of reasoning */
} cm_panel_item;

struct cm_panel {
    const cm_conf *c;
    const cm_pack *val;
    const cm_loaded *start;
    const cm_spm *spm;
    cm_chat chat;
    bool dpo;
    int n;                 /* prompts */
    cm_panel_item *item;
    int max_new;
    int64_t positions;     /* reference tokens whose distributions are looked at */
    cm_conf eval;          /* section eval of the task */
    bool has_task;
    cm_eval_task task;
    cm_prompt *ask;        /* [task.n] */
    cm_panel_row ref;      /* the references, */
    cm_panel_text *said;   /* [n] as if they had been said; without their texts */
    char fingerprint[65];  /* of what the start model's numbers follow from */
    /* the start model, once prepared */
    cm_run *run;
    cm_panel_row begin;
    double *length, *score; /* [n], [task.n] */
    cm_st kept;
    const float *logp;     /* [positions,V], in kept; NULL: none */
    int told[CM_PANEL_N];  /* as cm_told has them */
    bool noted[CM_PANEL_N]; /* said that the start model was no better */
    bool told_known;       /* what an earlier process told is known */
};

/* What a model says and gives: answers of both sorts, distributions. */
typedef struct cm_panel_look {
    cm_prompt *prompt; /* [n] */
    cm_voice *voice;
    cm_panel_text *text;
    cm_voice *task_voice; /* [task.n] */
    double *length, *score;
    cm_panel_row row;
    bool whole; /* false: a stop signal came */
} cm_panel_look;
/* Bytes of a look, whose answers come from prompts of its own. */
bool cm_panel_look_bytes(const cm_panel *p, const cm_model *m, size_t *bytes, cm_err *err);
/* keep: [positions,V] gets log-probabilities, or NULL. */
bool cm_panel_look_at(cm_panel *p, const cm_model *m, float *keep, cm_panel_look *l,
                      cm_err *err);
void cm_panel_look_close(const cm_panel *p, cm_panel_look *l);
/* The answers as lines of JSON. */
bool cm_panel_write(const cm_panel *p, const cm_panel_look *l, const char *path, cm_err *err);

/* The start model's numbers from the run's panel/start.safetensors.  False: not there, of
 * something else, or damaged; why gets a sentence unless it is just not there. */
bool cm_panel_kept(cm_panel *p, const char *path, cm_buf *why);
bool cm_panel_keep(const cm_panel *p, const cm_panel_look *l, const float *logp,
                   const char *path, cm_err *err);

#endif
