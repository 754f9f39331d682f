/* app.h -- what every tool shares: the command line, configuration, help, exit codes.
 *
 * A tool's main is
 *     int main(int argc, char **argv) {
 *         return cm_app_main(argc, argv, &(cm_app){.name = "pretrain", ..., .run = run});
 *     }
 * and everything else follows from that one description: --config FILE (repeatable),
 * section.key=value words, --help, --help=config[:section], --help=exit,
 * --print-config, --dry-run, --version, --threads, --quiet, --json, for tools with a
 * run folder --runs, --resume and --if-done, and the tool's own options. */
#ifndef CM_APP_H
#define CM_APP_H

#include "conf/conf.h"
#include "kern/kern.h"
#include "run/run.h"

#define CM_VERSION "0.1.0"

/* A long option of one tool.  value: what stands for its value in help ("FILE"), or
 * NULL for a switch.  A table ends with {0}. */
typedef struct cm_app_opt {
    const char *name, *value, *help;
} cm_app_opt;

typedef struct cm_app_ctx cm_app_ctx;

typedef struct cm_app {
    const char *name, *summary; /* "pretrain", "train a language model on shards" */
    const char *words;          /* positional arguments in the usage line; NULL: none */
    const char *examples;       /* whole lines, indented by two spaces; all can be run */
    const char *sections;       /* configuration sections in use, by name; "": none */
    const cm_app_opt *options;  /* or NULL */
    const char *repeatable;     /* those that may be given more than once, " a b "; or NULL */
    bool has_run;               /* works in a run folder */
    bool has_done;              /* without one, leaves something finished: --if-done */
    bool no_kernels;            /* computes nothing: cm_kern_init is skipped */
    /* False with a sentence in err, or true; then ctx->exit is the exit code. */
    bool (*run)(cm_app_ctx *ctx, cm_err *err);
} cm_app;

/* Words of the command line, in order; strings belong to argv. */
typedef struct cm_words {
    int n;
    const char **v;
} cm_words;

/* What run() works with.  All of it is released by cm_app_main. */
struct cm_app_ctx {
    const cm_app *app;
    int argc;
    char **argv;
    cm_conf conf; /* loaded and checked */
    cm_words words, configs, settings; /* positional; --config; key=value */
    cm_words given, given_values;      /* the tool's own options and their values */
    bool dry_run, quiet, json;
    int threads; /* --threads, else the key `threads`; 0 = all */
    const char *runs;
    cm_resume resume;
    cm_if_done if_done;
    cm_progress_mode progress;
    cm_run run; /* after cm_app_run_open */
    int exit;
    /* read while parsing */
    const char *help; /* --help's value, "" without one, NULL when not asked */
    bool version, print_config;
};

/* Returns the exit status for main; after a stop signal it does not return but dies of
 * that signal, once everything is closed. */
int cm_app_main(int argc, char **argv, const cm_app *app);

/* The tool's own options.  Text: the last value given, or NULL.  Every use of a
 * repeatable one: i from 0 until NULL. */
const char *cm_app_text(const cm_app_ctx *ctx, const char *name);
const char *cm_app_text_at(const cm_app_ctx *ctx, const char *name, int i);
bool cm_app_switch(const cm_app_ctx *ctx, const char *name);
/* Numbers, checked: *out keeps its value where the option was not given. */
bool cm_app_i64(const cm_app_ctx *ctx, const char *name, int64_t lo, int64_t hi,
                int64_t *out, cm_err *err);
bool cm_app_f64(const cm_app_ctx *ctx, const char *name, double lo, double hi,
                double *out, cm_err *err);

/* A file or folder that the command line names; path NULL or "": not given.  A table ends with
 * {0}. */
typedef struct cm_app_file {
    const char *what, *path; /* "model", "--logits" */
} cm_app_file;
/* To be asked before anything is done: CM_EXIT_USAGE where an output would replace an input, a
 * file of the model that an input stands for, or another output. */
bool cm_app_apart(const cm_app_file *in, const cm_app_file *out, cm_err *err);
/* The same where the input is a folder of which every file counts, as of a run: CM_EXIT_USAGE
 * where an output would replace it or anything below it but pictures (.svg) and pages (.html). */
bool cm_app_apart_from_folder(const cm_app_file *in, const cm_app_file *out, cm_err *err);

/* Take RUNS/<name> as --resume and --if-done say, write the run's first files, install
 * signal handlers.  The name is the key `name`, else the first config file's, else the
 * tool's.  Where ctx->run.skip is set afterwards there is nothing to do: return true (a
 * finished run of other settings has been warned of, by key).
 * --resume=auto goes on only with an equal configuration (sections log, ckpt and val
 * and the key `threads` are free); --resume=must accepts, and records, any change.
 * in: the run's inputs (NULL: none told); a run does not go on when its start model or reference
 * has become another. */
struct cm_app_input;
bool cm_app_run_open(cm_app_ctx *ctx, const struct cm_app_input *in, cm_err *err);

/* The command line as a shell would take it again. */
void cm_app_command(const cm_app_ctx *ctx, cm_buf *out);

/* "chimera-pretrain 0.1.0 (gcc 12.2.0, OpenBLAS 0.3.21, zstd 1.5.4, avx2)". */
void cm_app_version(const cm_app *app, cm_buf *out);
/* The short --help, in which the tool goes by the name it was called by. */
void cm_app_help(const cm_app_ctx *ctx, cm_buf *out);

/* ==== programs that train: what pretrain, sft and dpo share above the loop ============
 * (they include train/train.h themselves) */

struct cm_job;
struct cm_loaded;
struct cm_model;
struct cm_dataset;
struct cm_pack;
struct cm_spm;

/* An input of a run, for run.json.  A table ends with {0}. */
typedef struct cm_app_input {
    const char *what, *path, *id; /* "shards", its folder, its SHA-256 */
} cm_app_input;

/* The options behind --verify-resume and --profile, for a tool's table. */
#define CM_APP_TRAIN_OPTIONS                                                            \
    { "verify-resume", "K", "train K steps, save, resume, K more; compare with 2K" },   \
    { "profile", NULL, "account for the time by op: a table, and the run's profile.json" }

/* Do with the job what the command line asks for: print its plan (--dry-run), prove that
 * it resumes (--verify-resume), or train in a run folder, with its summary on stdout under
 * --json.  Fills the job's tool, conf, run, resume and quiet. */
bool cm_app_train(cm_app_ctx *ctx, struct cm_job *job, const cm_app_input *in, cm_err *err);

/* ---- post-training ------------------------------------------------------------------- */

/* The model of post.model without its weights, and *model, its shape with the losses that
 * post asks for; the strings of *model live as long as *start. */
bool cm_app_start_model(const cm_conf *c, struct cm_loaded *start, cm_model_conf *model,
                        cm_err *err);
/* Its weights into m, which is built with that shape: they lie in memory once. */
bool cm_app_start_weights(const struct cm_loaded *start, struct cm_model *m, cm_err *err);
/* Where the configuration asks for LoRA: the job trains adapters of that start model. */
void cm_app_lora(const cm_conf *c, const struct cm_loaded *start, struct cm_job *job);
/* data.shards; refuses those of another tokenizer than the model's. */
bool cm_app_chat_data(const cm_conf *c, const struct cm_loaded *start,
                      struct cm_dataset *d, cm_err *err);
/* Were the shards made with the model's tokenizer?  own: its SHA-256, or "none". */
bool cm_app_same_tokenizer(const struct cm_loaded *l, const struct cm_dataset *d,
                           char own[65]);
/* For cm_job.sample: the model's answers to the first val.samples prompts of the validation
 * split, as `tokenize head` shows text. */
bool cm_app_answers(const cm_conf *c, const struct cm_spm *spm, const struct cm_pack *val,
                    const struct cm_model *m, int64_t step, cm_buf *out, cm_err *err);
/* What makes a checkpoint a model that transformers and our own tools load: config.json (not
 * of an adapter) and the tokenizer's files in folder; chat as cm_export.chat_template. */
bool cm_app_model_files(const cm_model_conf *model, const struct cm_spm *spm,
                        const char *chat, const char *folder, cm_err *err);

/* ---- guesses while decoding (they include model/model.h themselves) ------------------- */

struct cm_loaded;
struct cm_decoder;
struct cm_sampling;
struct cm_guessing;
struct cm_guess_count;
/* generate.draft, which is set, as a draft model of another one; warns where it is no smaller. */
bool cm_app_load_draft(const cm_app_ctx *ctx, struct cm_loaded *draft,
                       const struct cm_loaded *of, cm_err *err);
/* Where guesses were checked: what came of it, as a member of a JSON object, and as a log. */
void cm_app_guesses_json(cm_buf *b, const struct cm_guess_count *c);
void cm_app_log_guesses(const struct cm_guess_count *c);
/* Read a new prompt with the file of --prompt-cache, and say how much of it was there.  A file
 * that cannot be written: *unkept, if that is empty, says why; the prompt is read all the same. */
bool cm_app_read_cached(const cm_app_ctx *ctx, struct cm_decoder *d, const int32_t *id, int64_t n,
                        const char *model_id, cm_err *unkept, cm_err *err);
/* A file that the user named; - is stdin.  *s: free(). */
bool cm_app_read_named(const char *path, char **s, size_t *n, cm_err *err);
/* What the section `generate` says, of the sample of that number. */
struct cm_sampling cm_app_sampling(const cm_app_ctx *ctx, int sample);
struct cm_guessing cm_app_guessing(const cm_app_ctx *ctx, const struct cm_model *draft);
/* What decoding will take, on stdout; cap: tokens that there is room for. */
void cm_app_decoding_plan(const cm_app_ctx *ctx, const struct cm_model *model, int64_t prompt,
                          int cap);
/* generate --chat, with generate's options: answers what they ask.  unkept as above. */
bool cm_app_chat(cm_app_ctx *ctx, const struct cm_loaded *l, const struct cm_model *draft,
                 cm_err *unkept, cm_err *err);

#endif
