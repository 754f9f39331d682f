/* train.h -- THE training loop and its parts: schedule, guard, optimizer, batches,
 * checkpoints, plan.
 *
 * pretrain, sft and dpo run the same cm_train; they differ in a cm_source (which rows, in
 * which order) and a cm_objective (which loss).  What comes from above (samples, extra
 * files of a checkpoint) reaches the loop as callbacks of the cm_job.
 * Promises: the same bits for any thread count and after any interruption; the step
 * arena's peak is what the dry run counted, to the byte; nothing of ours is allocated
 * inside a step. */
#ifndef CM_TRAIN_H
#define CM_TRAIN_H

#include "model/model.h"
#include "run/run.h"

/* ---- schedule ---------------------------------------------------------------------- */

/* Learning rate as a share of its peak when this many tokens have been trained on.  The
 * loop asks for the middle of a step, so neither the first nor the last step is idle. */
double cm_sched_share(const cm_sched_conf *c, double tokens);

/* Tokens of the step that starts when this many have been trained on: data.batch_from,
 * doubled at equal distances over data.batch_ramp until it is data.batch_tokens. */
int64_t cm_sched_batch(const cm_data_conf *c, int64_t tokens);

/* ---- guard: spikes and broken numbers ---------------------------------------------- */

typedef enum { CM_STEP_GOOD, CM_STEP_SPIKE, CM_STEP_BAD } cm_step_verdict;

/* The last `cap` values of a series, a ring. */
typedef struct cm_ring {
    double *x;
    int cap, n, at;
} cm_ring;
typedef struct cm_guard {
    double sigma;
    cm_ring loss, gnorm;
    double loss_z, gnorm_z; /* of the step judged last; 0 while history is short */
} cm_guard;

/* mem: 2 * c->spike_window doubles that outlive the guard. */
void cm_guard_init(cm_guard *g, const cm_train_conf *c, double *mem);
/* BAD: loss or norm is not finite (nothing is remembered).  SPIKE: one of them lies more
 * than sigma deviations above its window. */
cm_step_verdict cm_guard_judge(cm_guard *g, double loss, double gnorm);

/* ---- optimizer --------------------------------------------------------------------- */

typedef struct cm_optim {
    cm_optim_conf conf;
    cm_params *ps;
    cm_tensor *m, *v; /* moments of parameter i, see optim.state; no data in v[i] where Muon
                         steps it without muon_beta2 */
    uint64_t seed;    /* of what is rounded at random */
    struct cm_chunk *chunk;
    double *part; /* [n_chunk] partial sums */
    int n_chunk;
    double momentum; /* Muon's in the next step; starts as conf.muon_momentum */
} cm_optim;

/* Muon's momentum after this many tokens: optim.muon_warmup. */
double cm_optim_momentum(const cm_optim_conf *c, double tokens);

/* Moments come zeroed from the arena (a counting arena measures), tables from the heap. */
void cm_optim_open(cm_optim *o, const cm_optim_conf *c, cm_params *ps, cm_arena *arena);
void cm_optim_close(cm_optim *o);
bool cm_optim_uses_muon(const cm_optim_conf *c, const cm_param *p);
/* Global L2 norm of all gradients, in double, added in a fixed order. */
double cm_optim_grad_norm(const cm_optim *o);
/* One update with gradients times gscale.  step counts updates from 1 (bias correction);
 * share scales the peak rates.  Scratch comes from arena and goes back; dry: only that. */
void cm_optim_step(cm_optim *o, int64_t step, double share, double gscale,
                   cm_arena *arena, bool dry);
/* Muon's part of it. */
void cm_muon_all(cm_optim *o, double share, double gscale, cm_arena *arena, bool dry);
/* Its heart: y[rows,cols] = x orthogonalised; x is scratch afterwards, room
 * cm_newton_room numbers.  Runs on the calling thread. */
void cm_newton_schulz(int64_t rows, int64_t cols, int steps, cm_real *x, cm_real *y,
                      cm_real *room);
size_t cm_newton_room(int64_t rows, int64_t cols);

/* ---- rows -------------------------------------------------------------------------- */

/* Element i < n of a pseudo-random permutation of [0,n) that follows from r alone. */
uint64_t cm_permute(cm_rng r, uint64_t i, uint64_t n);

/* Room for rows of T tokens: a cm_batch that can be written. */
typedef struct cm_rows {
    int T;
    int32_t *token, *target, *doc, *pos; /* [rows*T] */
} cm_rows;

/* Where rows come from: an endless stream, `rows` of them an epoch, each a pure function
 * of its number, so that a cursor is one integer. */
typedef struct cm_source {
    void *self;
    int T;
    int64_t rows;
    bool packed;    /* rows hold several documents: doc and pos are filled */
    int64_t bytes;  /* source text behind one epoch's scored tokens; 0 = not known */
    char id[65];    /* hash of the data; a resumed run must find the same */
    /* Fill out[0..n) with rows row.. of the stream.  Must not allocate. */
    bool (*read)(void *self, int64_t row, int n, const cm_rows *out, cm_err *err);
} cm_source;

/* Language-model rows: the split's token stream in blocks of T, each with the token that
 * follows.  Where documents are kept apart (data.reset), positions restart at each, and
 * its first token is not a target, unless no EOS marks the ends. */
typedef struct cm_lm {
    const cm_dataset *data;
    cm_split split;
    uint64_t seed;
    bool shuffle, reset, mask_first;
    int T;
    int64_t rows, n_tokens;
    int32_t *token; /* [T+1] */
    int64_t *doc;   /* [T+1] */
} cm_lm;
/* All of the training split, in a new order each epoch. */
bool cm_lm_open(cm_lm *l, const cm_dataset *d, const cm_conf *c, cm_source *s, cm_err *err);
/* The first documents of the validation split up to val.tokens, in order, all of their
 * tokens; rows 0 when the split is empty. */
bool cm_lm_open_val(cm_lm *l, const cm_dataset *d, const cm_conf *c, cm_source *s,
                    cm_err *err);
void cm_lm_close(cm_lm *l);

/* Rows of whole conversations (kind CM_SHARD_SFT), or of preference pairs (CM_SHARD_DPO),
 * packed.  A unit is a conversation, or a pair: its documents 2u, chosen, and 2u+1,
 * rejected, always in one row, in this order.  Documents of a row are numbered from 0,
 * padding is one more; positions restart at each.  A target is a token whose mask says that
 * it is learned (sft.train_on); none crosses documents. */
typedef struct cm_pack {
    const cm_dataset *data;
    cm_split split;
    uint64_t seed;
    bool shuffle, drop_long;
    int T, docs;            /* docs: documents a unit */
    int train_on;           /* CM_TRAIN_... */
    int32_t end;            /* <|end|> */
    int64_t rows, units;    /* of an epoch */
    int64_t dropped;        /* units longer than a row */
    int64_t unasked;        /* units with targets, but none that sft.train_on asks for */
    int64_t tokens;         /* places the units take, dropped ones too */
    int64_t *first, *order; /* row r holds units order[first[r]..first[r+1]) */
    int32_t *token;         /* [T+1] */
    uint8_t *mask;          /* [T+1] */
} cm_pack;
/* The training split in a new order each epoch, or the first units of the validation split
 * up to val.tokens, in order (rows 0 where it is empty).  spm is the model's tokenizer.
 * Left out with a warning: conversations that hold nothing sft.train_on asks for.
 * Refused before anything is written, naming the first offender and how many there are:
 * documents without a target or without a trained <|end|> at their end (CM_EXIT_DATA),
 * units longer than a row unless post.overlong drops them (CM_EXIT_USAGE). */
bool cm_pack_open(cm_pack *p, const cm_dataset *d, cm_split split, cm_shard_kind kind,
                  const cm_conf *c, const cm_spm *spm, cm_source *s, cm_err *err);
void cm_pack_close(cm_pack *p);
/* "pair 17 of the train split (source 0, line 18)", for messages (free()). */
char *cm_pack_place(const cm_pack *p, int64_t unit);
/* The units of row `row` of the endless stream, in order: *unit, valid until closing. */
int64_t cm_pack_units(const cm_pack *p, int64_t row, const int64_t **unit);

/* The beginning of document `doc` of the split, up to its last turn's first target: what a
 * model is asked.  *n tokens, malloc'ed with room for `more` after them; NULL: failure. */
int32_t *cm_pack_prompt(const cm_pack *p, int64_t doc, int64_t more, int64_t *n,
                        cm_err *err);

/* sched.tokens from sched.epochs, where that is set: whole batches of the source's rows. */
void cm_sched_epochs(cm_conf *c, const cm_source *s);

/* ---- state and checkpoints --------------------------------------------------------- */

/* Everything of a run that is neither weight nor moment. */
typedef struct cm_train_state {
    int64_t step;    /* batches consumed, updates skipped included */
    int64_t updates; /* optimizer steps taken: AdamW's time */
    int64_t tokens;  /* trained on so far */
    int64_t row;     /* next row of the source */
    int64_t spikes, skipped, bad; /* since the start: spikes seen, updates left out, NaN */
    int64_t bad_run;              /* broken steps in a row */
    int64_t val_step;             /* last step validated, -1 none */
    int64_t best_step;            /* step of the lowest validation loss, -1 none */
    double best, val_loss;        /* NaN before the first validation */
    cm_guard guard;
} cm_train_state;

/* The JSON text of state.json: counters as numbers, doubles as exact %a strings. */
void cm_train_state_write(const cm_train_state *s, const char *data, const char *tokenizer,
                          cm_buf *out);
/* Parse it into s (whose guard is initialised); data and tokenizer, [65] each, get the
 * hashes it names.  path is for messages. */
bool cm_train_state_read(cm_train_state *s, const char *path, const char *text,
                         char *data, char *tokenizer, cm_err *err);

/* Where checkpoints of a run live and what goes in.  A checkpoint is the folder
 * dir/step-XXXXXXXX, which appears complete or not at all; see docs/FORMATS.md. */
typedef struct cm_ckpt {
    const char *dir;
    const cm_conf *conf;
    cm_model *model;
    cm_optim *optim;
    cm_train_state *state;
    const char *data, *tokenizer; /* hashes of what the run is made from */
    const char *base, *base_id;   /* with adapters: their base, see cm_job */
    bool any_config; /* load: another configuration is a warning, not a refusal */
    /* More files (config.json, tokenizer.model) into the folder; NULL for none. */
    bool (*extra)(void *ctx, const char *folder, cm_err *err);
    void *ctx;
} cm_ckpt;
/* Write a checkpoint of the state's step, then move `latest` (and `best`, when this step
 * is the best), then drop those that no keep rule holds.  On failure nothing that was
 * there has changed.  out_path, when not NULL, gets the folder (free()). */
bool cm_ckpt_save(const cm_ckpt *c, char **out_path, cm_err *err);
/* Load the newest undamaged checkpoint, passing damaged ones with a warning; *found is
 * false when there is none.  Checksums, configuration and hashes are compared before
 * anything is touched: other data or tokenizer CM_EXIT_DATA, other config CM_EXIT_USAGE. */
bool cm_ckpt_load(const cm_ckpt *c, bool *found, cm_err *err);
/* Remove what a killed save left behind. */
bool cm_ckpt_clean(const char *dir, cm_err *err);
/* Compare a folder with its SHA256SUMS. */
bool cm_ckpt_verify(const char *folder, cm_err *err);
/* Bytes of weights and moments in one checkpoint. */
uint64_t cm_ckpt_bytes(const cm_optim *o);


/* ---- the job ----------------------------------------------------------------------- */

/* What is minimised.  Puts the loss of one micro-batch on the tape: norm times the sum over
 * its scored tokens, so that micro-batches add up to the mean over the whole batch.
 * row: number of the micro-batch's first row in the source (for data kept beside the
 * tokens).  On a dry tape it must make the same allocations and read no tensor. */
typedef struct cm_objective {
    void *self;
    bool token_nll; /* fills st->nll: train/loss is then the mean of it, else of the loss */
    cm_var *(*loss)(void *self, const cm_model *m, cm_tape *t, const cm_batch *b,
                    int64_t row, cm_real norm, const cm_stats *st);
    /* What the loss is a mean over: how many there are in n loaded rows, of which `row` is
     * the first.  NULL: scored tokens. */
    int64_t (*count)(void *self, const cm_rows *rows, int64_t row, int n);
    /* Loss of validation rows, a sum over what is counted.  NULL: the tokens' nll.  The
     * tape does not record; dry as above. */
    cm_var *(*val_loss)(void *self, const cm_model *m, cm_tape *t, const cm_batch *b,
                        int64_t row, const cm_stats *st);
    /* Numbers of its own for metrics.jsonl.  begin: a training batch or a validation starts,
     * rows are of that source now, gather anew; metrics: append what was gathered since.
     * Both or neither. */
    void (*begin)(void *self, bool val);
    void (*metrics)(void *self, bool val, cm_buf *row);
} cm_objective;
/* Next-token prediction over the scored tokens, with NEFTune's noise where sft.neftune asks
 * for it; conf outlives the objective. */
cm_objective cm_lm_objective(const cm_conf *c);

/* ---- alarms ------------------------------------------------------------------------- */

enum { CM_CALM = 3 }; /* validations without an alarm until it may be told again */
/* Is an alarm to be told now?  *out: 0, or how many more healthy looks it takes until it may
 * be told again; starts at 0.  calm: that number. */
bool cm_told(int *out, bool bad, int calm);
/* The n numbers of `of` as they were before `step`, from the run's alarms.jsonl; unchanged
 * where it has none.  And a row of them, appended; a failure is a warning. */
void cm_told_load(const cm_run *run, const char *of, int64_t step, int *out, int n);
void cm_told_save(const cm_run *run, const char *of, int64_t step, const int *out, int n);

/* ---- preferences -------------------------------------------------------------------- */

/* Log-probabilities of a split's answers under the reference, which stays as it is: they
 * are computed once, before training, and kept in a file. */
typedef struct cm_refs {
    int64_t n;       /* pairs of the split */
    double *logp[2]; /* [n] chosen, rejected; NaN: in no row */
} cm_refs;
/* Of every pair that the packs (two, by split; one without rows needs none) put into rows:
 * from their files in folder `dir`, or, where these are absent, damaged or of something else
 * (which is said), computed with the reference's weights, read for this alone and released,
 * and written.  A file's name is the hash of what it depends on: model and how it is held
 * (lora.base), data, split, tokenizer, row length, numerics, train.compute, the kernels'
 * level; it holds these, too, and a hash of its numbers.  micro: rows at a time, which changes
 * no bit.  A signal to stop leaves them incomplete and is no failure; the next time goes on
 * there. */
bool cm_refs_open(cm_refs *r, const cm_loaded *reference, const cm_pack *const *pack,
                  const cm_source *const *rows, const cm_conf *c, const char *dir,
                  int64_t micro, cm_progress_mode mode, cm_err *err);
/* What cm_refs_open would take now, which is nothing where the files have all: bytes of the
 * reference's weights and of `micro` rows' forward pass; flops of the rows to be read. */
bool cm_refs_plan(const cm_loaded *reference, const cm_pack *const *pack, const cm_conf *c,
                  const char *dir, int64_t micro, size_t *bytes, double *flops, cm_err *err);
void cm_refs_close(cm_refs *r);

/* The pairs of b, rows `row`.. of the pack's stream: their rows in the batch and numbers of
 * trained tokens; unit[i] is pair i's number in the split.  Returns how many. */
int cm_pack_pairs(const cm_pack *p, const cm_batch *b, int64_t row, cm_pair *pair,
                  int64_t *unit);
/* Most pairs that n rows of the pack can hold. */
int64_t cm_pack_most(const cm_pack *p, int64_t n);

/* Sums over pairs, from which the metrics follow. */
typedef struct cm_prefer_sums {
    double n, loss, nll, won;         /* nll: the part of dpo.nll; won: margin above 0 */
    double reward[2], logp[2], drift[2], tokens[2]; /* drift: logp - ref */
    double m, mm, d, dd, md;          /* margin, difference of lengths, products */
    double uneven, longer;            /* lengths differ; and the longer one wins */
} cm_prefer_sums;

/* The objective over pairs: dpo.def's losses, metrics by TRL's names, alarms. */
typedef struct cm_dpo {
    const cm_conf *conf;
    cm_prefer_conf how;
    const cm_pack *pack[2];   /* by split */
    const cm_refs *refs;      /* [2]; NULL: reference-free */
    bool from_reference;      /* the policy starts as the reference: the first loss is known */
    cm_run *run;              /* gets events; or NULL */
    cm_pair *pair;            /* of a micro-batch */
    int64_t *unit;
    cm_split split;           /* whose rows come */
    int64_t row;              /* first row of the batch; -1 before it */
    cm_prefer_sums sum;       /* of the batch or the validation */
    cm_prefer_sums since;     /* of batches, where no validation judges */
    int told[2];              /* as cm_told has them */
    bool told_known;          /* what an earlier process told is known */
} cm_dpo;
/* The keys of dpo.def against each other; CM_EXIT_USAGE. */
bool cm_dpo_check(const cm_conf *c, cm_err *err);
cm_prefer_conf cm_dpo_how(const cm_conf *c); /* the loss they ask for */
/* Checks all pairs of the packs: prompts must be equal, answers must not (CM_EXIT_DATA,
 * naming the first offender).  pack, by split, and conf outlive it; refs may be filled
 * later, before the first batch. */
bool cm_dpo_open(cm_dpo *p, const cm_conf *c, const cm_pack *const *pack,
                 const cm_refs *refs, cm_err *err);
void cm_dpo_close(cm_dpo *p);
cm_objective cm_dpo_objective(cm_dpo *p);
/* After a validation: alarms that its pairs call for are told (as cm_told says);
 * under dpo.stop they set *stop and say in err why.  For cm_job.watch. */
void cm_dpo_watch(cm_dpo *p, int64_t step, bool *stop, cm_err *err);

struct cm_plan;
/* One training run, as a tool describes it.  Everything outlives cm_train. */
typedef struct cm_job {
    const char *tool;
    const cm_conf *conf;
    const cm_model_conf *model; /* resolved, vocab_size set */
    const cm_source *train;
    const cm_source *val;       /* NULL: no validation */
    cm_objective objective;
    const char *tokenizer;      /* its SHA-256 */
    const cm_lora_conf *lora;   /* train adapters on frozen weights, which init fills; NULL:
                                   train the model */
    const char *base, *base_id; /* LoRA: absolute path of those weights, their SHA-256 */
    cm_run *run;                /* started; NULL: silent, and ckpt_dir must be set */
    const char *ckpt_dir;       /* NULL: the run's own */
    cm_resume resume;
    bool quiet;                 /* no progress on stderr */
    bool profile;               /* account for the time by op: profile.json in the run */
    FILE *profile_to;           /* and a table here at the end; or NULL */
    int64_t stop_at;            /* stop (saving) after this step; 0: train to the end */
    /* What prepare and watch take, into p's ahead and beside.  m: the model on counting
     * memory, for dry tapes.  NULL: nothing. */
    bool (*account)(void *ctx, const cm_model *m, struct cm_plan *p, cm_err *err);
    /* What has to be done before the run's memory is taken; may be called again. */
    bool (*prepare)(void *ctx, const struct cm_plan *p, cm_err *err);
    /* Start from these weights instead of the seed's: fill m, all of it. */
    bool (*init)(void *ctx, cm_model *m, cm_err *err);
    /* Text of a few samples after a validation, appended to out. */
    bool (*sample)(void *ctx, const cm_model *m, int64_t step, cm_buf *out, cm_err *err);
    /* Look at the model after a validation and append numbers to its metrics row.  Setting
     * *stop, with a sentence in err, ends the run: the state is saved, cm_train fails with
     * that sentence.  NULL: nobody looks. */
    bool (*watch)(void *ctx, const cm_model *m, int64_t step, cm_buf *row, bool *stop,
                  cm_err *err);
    /* More files of a checkpoint; see cm_ckpt.extra. */
    bool (*extra)(void *ctx, const char *folder, cm_err *err);
    void *ctx;
} cm_job;

/* What a job will take: exact bytes, counted by running its step on counting arenas. */
typedef struct cm_plan {
    int64_t params, active;            /* parameters, and those one token uses */
    int64_t trained;                   /* of them, stepped by the optimizer */
    int64_t batch_rows, micro_rows, steps, tokens;
    size_t weights, grads, moments, batches; /* parts of perm */
    size_t perm, step, meta;           /* the arenas */
    size_t step_train;                 /* what a training step takes of `step` */
    size_t ahead;                      /* taken and given back before the arenas: a reference */
    size_t beside;                     /* on top of them at validations: the panel */
    double ahead_flops;                /* of what is done before training */
    double flops;                      /* of the whole run, by cm_model_flops */
    double step_flops;                 /* of one batch, forward x 3, summed over the ops */
    double cost;                       /* seconds of one batch at fixed rates, for choices */
    uint64_t ckpt;                     /* bytes of one checkpoint */
    uint8_t again[1024];               /* blocks that train.recompute = auto gave up */
} cm_plan;
/* The most it holds at once: the arenas and what comes beside them, or what went ahead. */
size_t cm_plan_bytes(const cm_plan *p);
/* Also checks data.batch_tokens against data.seq_len and data.micro_rows, and the total
 * against train.max_gb (CM_EXIT_RESOURCE).  Where data.micro_rows is 0, chooses it from the
 * configuration alone; with train.max_gb as what costs least within it. */
bool cm_plan_make(const cm_job *job, cm_plan *p, cm_err *err);
/* The plan as lines for people, with free disk and, by a short probe, expected time. */
void cm_plan_print(const cm_job *job, const cm_plan *p, const char *ckpt_dir, FILE *out);
/* The same numbers as one JSON object; sizes in bytes, the probe in GFLOP/s. */
void cm_plan_json(const cm_job *job, const cm_plan *p, const char *ckpt_dir, cm_buf *out);
/* GFLOP/s of our products in this precision in a short probe: what MFU is a share of. */
double cm_gemm_probe(cm_compute how, double seconds);

/* Train until the tokens are used up, a signal or a STOP file asks to stop (the state is
 * saved then and *complete is false), or it diverges (CM_EXIT_DIVERGED).  Rows, events and
 * the summary go to the job's run; closing that and dying of the signal is the caller's. */
bool cm_train(const cm_job *job, bool *complete, cm_err *err);

/* Train 2K steps straight, and K + resume + K, in two scratch folders of the run: the last
 * checkpoints must agree in every byte (else CM_EXIT_CHECK, naming the file). */
bool cm_train_verify_resume(const cm_job *job, int64_t K, const char *scratch, cm_err *err);

#endif
