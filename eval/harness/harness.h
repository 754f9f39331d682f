/* harness.h -- scoring text with a model, and the metrics made from the scores. */
#ifndef CM_HARNESS_H
#define CM_HARNESS_H

#include "app/app.h"
#include "model/model.h"
#include "results/results.h"

/* Scores rows of tokens: negative log-likelihoods in nats.  The softmax is float, its sum
 * and the logarithm double, as in llama-perplexity, so that numbers can be compared. */
typedef struct cm_scorer {
    const cm_model *m;
    int max_T;
    cm_arena arena, meta, keep;
    cm_real *logits;
    const cm_real *hidden; /* of the row read last */
} cm_scorer;
/* max_T: longest row that will be scored. */
bool cm_scorer_open(cm_scorer *s, const cm_model *m, int max_T, cm_err *err);
void cm_scorer_close(cm_scorer *s);
/* The end of the sentence that refuses a model whose scores are NaN or infinite; before it
 * stands what was scored. */
#define CM_EVAL_BROKEN                                                                   \
    "a log-probability that is no finite number; the model's weights are broken"
/* What an open one takes; a model on counting memory will do. */
bool cm_scorer_bytes(const cm_model *m, int max_T, size_t *bytes, cm_err *err);
/* nll[i] = -log p(token[i+1] | token[0..i]) for i in [first, T-1); state starts at zero. */
void cm_score(cm_scorer *s, const int32_t *token, int T, int first, double *nll);

/* The same in two steps, for those who need whole distributions (two models at a time):
 * read a row, then ask for the logits after tokens [from, from+n), n <= CM_LOGIT_ROWS.
 * They are the scorer's, [n,V], until the next call. */
enum { CM_LOGIT_ROWS = 128 };
void cm_scorer_read(cm_scorer *s, const int32_t *token, int T);
const cm_real *cm_scorer_logits(cm_scorer *s, int from, int n);

/* Softmax of a row of logits: ln p_k = (x_k - max) - log_sum.  Maximum and exponentials are
 * float, sum and logarithm double: the one definition for all log-probabilities here. */
typedef struct cm_lse {
    cm_real max;
    double log_sum;
} cm_lse;
cm_lse cm_row_lse(const cm_real *x, int64_t V);
static inline double cm_logp(cm_lse l, cm_real x) {
    return (double)(x - l.max) - l.log_sum;
}

/* ---- scoring engine: many requests ------------------------------------------------- */

/* Tokens [first,n) of a text given those before them; first >= 1. */
typedef struct cm_request {
    const int32_t *token; /* [n] */
    int n, first;
    double *logp;         /* [n-first], out: ln p(token[i] | token[0..i)) */
    bool *greedy;         /* [n-first], out: is it the likeliest (the lowest id among
                             equals)?  NULL: not wanted */
} cm_request;

/* None of this changes a bit of the results (with strict numerics). */
typedef struct cm_engine_conf {
    int rows;     /* most tokens in one pass of the model; 0 = 1024 */
    int batch;    /* most paths (different texts) in one pass; 0 = no other limit */
    bool alone;   /* score every request by itself: beginnings that requests share are
                     computed for each */
    double state_gb; /* most memory for states in the middle of texts; 0 = 0.5 */
} cm_engine_conf;

typedef struct cm_engine_count {
    int64_t requested; /* tokens to read if every request were scored alone */
    int64_t computed;  /* tokens that went through the model */
    int64_t scored;    /* of these, with a distribution over what comes next */
    int64_t passes;
} cm_engine_count;

/* Told when a request's results are there, in any order; false: stop, leaving the rest. */
typedef bool (*cm_done_fn)(void *ctx, int64_t request);

/* Score n requests with the numbers that cm_score gives on each alone.  The requests are
 * one prefix tree over the tokens that something scored comes after, token [0,n-1) each
 * (none where nothing is scored); every node of it is computed once, whatever the batch.
 * done may be NULL.  Memory is bounded by conf and by the longest request's keys and
 * values, not by n.  count (may be NULL) gets the work added.  False: out of memory. */
bool cm_engine_score(const cm_model *m, const cm_engine_conf *conf, const cm_request *r,
                     int64_t n, cm_done_fn done, void *ctx, cm_engine_count *count,
                     cm_err *err);

/* ---- generation: many prompts ------------------------------------------------------ */

/* A text to continue by at most max_new tokens. */
typedef struct cm_prompt {
    const int32_t *token; /* [n] */
    int n, max_new;       /* n >= 1 */
    uint64_t seed;        /* of its draws: make it from what the prompt is, not its place */
    int32_t *out;         /* [max_new], out */
    int n_out;            /* out */
} cm_prompt;

/* Asked after each token whether the text ends with it (stop strings, end of text). */
typedef bool (*cm_stop_fn)(void *ctx, int64_t prompt, const cm_prompt *p);

/* Continue n prompts, up to `batch` of them (0 = 16) a step together; a finished one makes
 * room for the next.  A text's tokens depend on nothing but its prompt, seed and `how`
 * (whose own seed is not used): not on batch, order, threads.  What all prompts begin with
 * is read once.  stop and done may be NULL; done false: stop, leaving the rest.  Memory is
 * the decoding state of `batch` texts as long as the longest.  False: out of memory, or
 * (CM_EXIT_DATA) logits that are no finite numbers. */
bool cm_generate(const cm_model *m, const cm_sampling *how, int batch, cm_prompt *p,
                 int64_t n, cm_stop_fn stop, cm_done_fn done, void *ctx,
                 cm_engine_count *count, cm_err *err);

/* What cm_generate takes for these; a model on counting memory will do. */
bool cm_generate_bytes(const cm_model *m, int batch, const cm_prompt *p, int64_t n,
                       size_t *bytes, cm_err *err);

/* The same with an open voice for each text, which decides where it ends and is finished
 * when done is told. */
bool cm_generate_voices(const cm_model *m, const cm_sampling *how, int batch, cm_prompt *p,
                        int64_t n, cm_voice *voice, cm_done_fn done, void *ctx,
                        cm_engine_count *count, cm_err *err);

/* ---- perplexity of documents ------------------------------------------------------------ */

/* How long documents are cut: windows of `context` tokens, each continuing `stride` tokens
 * after the one before (stride = context: disjoint).  Every token is scored once, with at
 * least context - stride tokens before it where the document has them. */
typedef struct cm_window {
    int context, stride;
} cm_window;

typedef struct cm_ppl {
    double nll;                          /* nats, all scored tokens */
    double bits_sum, bits_sum2;          /* per-document bits, for standard errors */
    double bytes_sum2, bits_bytes_sum;
    int64_t tokens, bytes, words, docs;
} cm_ppl;
/* Add one document: its ids (without BOS), its source text's bytes and words.  mask [n]: only
 * tokens where it is not 0 are scored, given all that stands before them; NULL: all are.
 * After a signal to stop the rest of the document is missing.  CM_EXIT_DATA: CM_EVAL_BROKEN. */
bool cm_ppl_add(cm_ppl *p, cm_scorer *s, cm_window w, int bos, const int32_t *id,
                const uint8_t *mask, int64_t n, int64_t bytes, int64_t words, cm_err *err);
/* A validation document of a data set as cm_ppl_add wants it.  Of a conversation `bytes` is
 * the number of tokens with a mask, for bytes of trained text nobody counts: errors over
 * documents are then those of a mean over tokens. */
typedef struct cm_ppl_doc {
    const int32_t *id;   /* [n], without BOS and EOS */
    const uint8_t *mask; /* [n], or NULL: plain text */
    int64_t n, bytes, words;
    int32_t *all_id;     /* private */
    uint8_t *all_mask;
    int64_t cap;
} cm_ppl_doc;
/* Zero it, then read any number of documents into it. */
bool cm_ppl_doc_read(cm_ppl_doc *p, const cm_dataset *d, const cm_spm *spm, int64_t i,
                     cm_err *err);
void cm_ppl_doc_free(cm_ppl_doc *p);
/* Another tokenizer's shards, or preferences: CM_EXIT_DATA. */
bool cm_ppl_suits(const cm_dataset *d, const cm_spm *spm, cm_err *err);
int64_t cm_count_words(const char *text, size_t n); /* separated by white space */
double cm_ppl_bits_per_byte(const cm_ppl *p);
/* Standard error of bits per byte over documents (a ratio of sums; delta method). */
double cm_ppl_bits_per_byte_se(const cm_ppl *p);
double cm_ppl_word(const cm_ppl *p);
double cm_ppl_token(const cm_ppl *p);

/* ---- llama-perplexity's numbers ------------------------------------------------------ */

/* Text cut into chunks of ctx tokens, first token of each overwritten by BOS when the
 * tokenizer adds one, second half of each scored: llama.cpp's tool, to the digit. */
typedef struct cm_llama_ppl {
    int64_t chunks, count;
    double nll, nll2, ppl, se;
} cm_llama_ppl;
typedef void (*cm_chunk_fn)(void *ctx, int64_t chunk, double running_ppl);
/* id: all tokens of the text, BOS first when add_bos.  Needs at least 2 * ctx of them.  After
 * a signal to stop the remaining chunks are missing.  CM_EXIT_DATA: CM_EVAL_BROKEN. */
bool cm_llama_perplexity(cm_scorer *s, const int32_t *id, int64_t n, int ctx, int bos,
                         bool add_bos, cm_chunk_fn each, void *each_ctx,
                         cm_llama_ppl *out, cm_err *err);

/* ---- tasks ---------------------------------------------------------------------------------
 *
 * A task is a YAML file (core/conf/task.def has its keys).  Its kind turns rows of data,
 * or a generator, into questions; a question holds asks, each one request to the model;
 * when all asks of a question are answered its kind turns the answers into scores.
 * Everything that belongs to a task lives in its pool. */

typedef struct cm_pool {
    struct cm_pool_block *block;
} cm_pool;
void *cm_pool_get(cm_pool *p, size_t bytes); /* zeroed; aligned to 16 */
char *cm_pool_text(cm_pool *p, const char *s, size_t n); /* a copy with a NUL behind it */
void cm_pool_free(cm_pool *p);

/* One request to the model, then its answer. */
typedef struct cm_ask {
    const int32_t *token; /* [n], BOS included where there is one */
    int n;
    int first;   /* token[first..n) are scored, first >= 1; n where nothing is scored */
    int cut;     /* tokens cut from the left so that the rest fits the context */
    int max_new; /* > 0: continue by at most so many tokens */
    /* the answer */
    double *logp; /* [n - first] natural log-probabilities, in the task's pool */
    bool *greedy; /* [n - first] whether the token was the most likely one */
    int32_t *out; /* [n_out] generated tokens, without end and stop tokens */
    int n_out;
    /* What they say, up to the stop string: bytes of text, zero bytes among them where the model
     * chose such; in chat control tokens by name. */
    const char *text;
    size_t bytes;
    bool ended;       /* by itself or at a stop string */
    /* In chat: the text behind the last </think> token, which is all of it without one and
     * empty while a block is open; whether a block was closed, and whether one is open. */
    const char *reply;
    bool thought, open;
} cm_ask;
double cm_ask_loglik(const cm_ask *a); /* sum of logp, in order */
bool cm_ask_greedy(const cm_ask *a);   /* every scored token was the most likely one */

typedef struct cm_question {
    const char *id, *group; /* group NULL: its own cluster */
    const char *prompt;     /* as rendered: few-shot examples and primer included */
    const char *answer;     /* reference of a generation, or NULL */
    int n_choices;
    const char **choice;  /* texts, without the delimiter */
    const char **context; /* [n_choices] where contexts vary, else NULL */
    const bool *right;    /* [n_choices] */
    char hash[17];        /* of all that: what was asked, whatever the model */
    int n_asks;
    cm_ask *ask;
    void *own; /* of the kind */
} cm_question;

struct cJSON;
/* A row of data: an object; rows of tables hold texts.  Lines count from 1. */
typedef struct cm_row {
    const struct cJSON *o;
    const char *path;
    int64_t line;
} cm_row;

typedef struct cm_eval_task cm_eval_task;

/* A kind of task.  kinds.def lists them: `KIND(copy)` there and a
 * `const cm_kind cm_kind_copy = {...}` anywhere in this folder make one. */
typedef struct cm_kind {
    const char *name, *help;
    const char *metrics; /* reported unless the task says otherwise; names with blanks */
    const char *extra;   /* reported on request only; or NULL */
    const char *in_chat; /* of these, reported without request where prompts are chat; or NULL */
    const char *primary;
    const char *keys; /* of section task that mean something to it, blanks between */
    /* Questions have no beginnings in common: asked in order, so that an interrupted
     * evaluation keeps the first ones.  Else all at once, as the engine likes best. */
    bool in_order;
    /* One of the two.  row: fill q (its id and group are set) from a row of data; false
     * with a sentence without place, which the caller adds.  build: add all questions. */
    bool (*row)(cm_eval_task *t, const cm_row *r, cm_question *q, cm_err *err);
    bool (*build)(cm_eval_task *t, cm_err *err);
    /* All asks are answered: scores (cm_item_put) and members of the detail object. */
    void (*score)(const cm_eval_task *t, const cm_question *q, cm_item *out,
                  cm_buf *detail);
    void (*close)(cm_eval_task *t); /* of what t->own holds; or NULL */
} cm_kind;
const cm_kind *const *cm_kinds(int *n);
const cm_kind *cm_kind_find(const char *name); /* NULL: no such kind */

struct cm_eval_task {
    cm_conf file;          /* section task; c points into it */
    const cm_task_conf *c;
    const char *path, *name; /* of the file; in results */
    const char *primary;
    const cm_kind *kind;
    const cm_eval_conf *eval;
    const cm_loaded *model; /* with a tokenizer */
    int context;            /* most tokens a request may hold */
    int64_t shots;
    bool chat;              /* prompts go through the chat template */
    cm_sampling how;        /* of generations; its seed is not used */
    char definition[17];
    cm_buf data_json; /* [{"path":..,"sha256":..}] */
    cm_pool pool;
    int64_t n, cap;
    cm_question *q;
    struct cm_task_int *in; /* rows, examples, compiled expressions */
    void *own;              /* of the kind */
    struct cm_item_overlap *overlap; /* [n] with the corpora of --contamination; or NULL */
};
/* Read FILE, or NAME.yaml from the folders of cm_task_folders.  The model is not needed
 * for this.  Mistakes: CM_EXIT_USAGE with file:line:col. */
bool cm_task_open(cm_eval_task *t, const char *name, const cm_eval_conf *eval,
                  cm_err *err);
/* The same from YAML in memory; `name` stands for the file. */
bool cm_task_open_text(cm_eval_task *t, const char *name, const char *yaml,
                       const cm_eval_conf *eval, cm_err *err);
/* Read the data and make the questions; t->n > 0 afterwards.  Refuses, CM_EXIT_DATA with
 * file and line: items without answers, duplicate ids, no items at all. */
bool cm_task_build(cm_eval_task *t, const cm_loaded *model, cm_err *err);
void cm_task_close(cm_eval_task *t);
/* A table of the tasks found, one line each, and of the kinds with their metrics. */
void cm_task_list(cm_buf *out);

/* What to do with the tasks: an evaluation, as eval's command line says. */
typedef struct cm_eval_run {
    const cm_app_ctx *app;
    const cm_loaded *model;
    const char *model_path;
    const char *out; /* result folder, or NULL: one named after model and tasks */
    cm_if_done if_done;
    cm_eval_task *task;
    int n_tasks;
    const char *const *corpus; /* [n_corpus] to look for the items in (cm_tasks_contaminate) */
    int n_corpus;
} cm_eval_run;
/* The names in `words` (commas between them) as tasks; *task is malloc'ed. */
bool cm_tasks_open(const char *const *words, int n, const cm_eval_conf *eval,
                   cm_eval_task **task, int *n_tasks, cm_err *err);
void cm_tasks_close(cm_eval_task *task, int n);
/* Build, ask, score, and leave the result folder; prints the table of results.  A stop
 * signal keeps what is done (true; the next call goes on).  Refuses, CM_EXIT_USAGE: a
 * folder that is something else, a finished result unless if_done says otherwise. */
bool cm_eval_tasks(cm_eval_run *r, cm_err *err);
/* The first n questions of each task as the model reads them, what is scored in brackets. */
bool cm_eval_show(cm_eval_run *r, int64_t n, cm_buf *out, cm_err *err);
/* The table of a finished result. */
bool cm_eval_table(const char *dir, cm_buf *out, cm_err *err);

/* For kinds.  A new question; `id` and `group` (may be NULL) are copied. */
cm_question *cm_task_add(cm_eval_task *t, const char *id, const char *group);
/* Room for n asks in q. */
void cm_question_asks(cm_eval_task *t, cm_question *q, int n);
/* A request of given tokens (copied): score token[first..n).  Cut from the left to the
 * context. */
void cm_ask_tokens(cm_eval_task *t, cm_ask *a, const int32_t *token, int n, int first);
/* What stands before the scored or generated part.  Outside of chat it is text; in chat it is
 * turns, and text is what a person reads of them, markers by name. */
typedef struct cm_asked {
    const char *text;
    const cm_turn *turn; /* [n_turns], in the task's pool */
    int n_turns;
} cm_asked;
/* A prompt with nothing before it; in chat a user's turn. */
cm_asked cm_asked_plain(cm_eval_task *t, const char *prompt);
/* Score `what` (delimiter included) after the prompt.  Text: tokenized as one, an empty prompt
 * is BOS alone.  Chat: `what`, leading blanks aside, is what the assistant says. */
bool cm_ask_score(cm_eval_task *t, cm_ask *a, const cm_asked *prompt, const char *what,
                  cm_err *err);
/* Continue the prompt. */
bool cm_ask_generate(cm_eval_task *t, cm_ask *a, const cm_asked *prompt, int max_new,
                     cm_err *err);
/* A generation as a prompt (its room in the task's pool, its draws by the task's seeds), the
 * voice to be opened for it, and the answer taken from both: texts stay the voice's. */
cm_prompt cm_ask_prompt(cm_eval_task *t, const cm_question *q, const cm_ask *a);
void cm_ask_voice(const cm_eval_task *t, cm_voice *v);
void cm_ask_take(cm_ask *a, const cm_prompt *p, const cm_voice *v);
/* What a model wrote as a member of a record, which must read back as a text: zero bytes become
 * U+FFFD, as bytes that are not UTF-8 do. */
void cm_json_said(cm_buf *b, const char *key, const char *s, size_t n);
/* Add a score where the task reports that metric; a mean: den = 1. */
void cm_item_put(const cm_eval_task *t, cm_item *it, const char *metric, double num,
                 double den);

/* ==== probes: generated items, diagnostics (docs/PROBES.md) ============================ */

/* ---- generated rows of tokens --------------------------------------------------------- */

/* A row of token ids and which of them are answers: token[at[i]] is to be predicted from
 * token[0..at[i]).  slice[i] says which kind of question it is (mqar: tokens between the
 * pair and the query; copy: which copy). */
typedef struct cm_probe_row {
    int n, n_at;
    int32_t *token, *at, *slice; /* [n], [n_at], [n_at] */
} cm_probe_row;
void cm_probe_row_free(cm_probe_row *r);

/* Ids that a generated row may use: NORMAL pieces, in order (no control, unknown, byte or
 * unused ones).  spm NULL: ids 0..vocab.  malloc'ed; their number in *n. */
int32_t *cm_probe_ids(const cm_spm *spm, int vocab, int *n);

/* Multi-query associative recall (Arora et al. 2023, "Zoology"): `pairs` distinct keys with
 * their values, then the keys again at random places, gaps drawn without replacement with
 * weight alpha g^(alpha-1).  Keys are from the lower half of the ids, values from the upper;
 * the rest of the row is random ids that are none of its keys.  The value follows its key
 * wherever the key stands. */
typedef struct cm_mqar {
    int pairs, length; /* length: tokens without BOS, even, at least 4 pairs */
    double alpha;      /* Zoology: 0.01 */
} cm_mqar;
/* Row `index` of `seed`; bos -1: none.  False: the ids or the length do not suffice. */
bool cm_probe_mqar(const cm_mqar *c, const int32_t *id, int n_id, int bos, uint64_t seed,
                   uint64_t index, cm_probe_row *out, cm_err *err);
/* A random block of `block` ids, then `copies` copies of it.  Answers: every token of the
 * block but the first (slice 0) and the same tokens of each copy (slice 1, 2, ...). */
bool cm_probe_copy(int block, int copies, const int32_t *id, int n_id, int bos,
                   uint64_t seed, uint64_t index, cm_probe_row *out, cm_err *err);

/* ---- generated questions in text ------------------------------------------------------ */

enum { CM_PROBE_CHOICES = 8 };
/* A context, answers of which choice[gold] is right, and where it is in the grid. */
typedef struct cm_probe_text {
    cm_buf context, choice[CM_PROBE_CHOICES];
    int n_choices, gold;
    int tokens; /* of the context, counted piece by piece */
} cm_probe_text;
void cm_probe_text_free(cm_probe_text *t);

/* Passkeys in a haystack: `keys` sentences "The pass key of NAME is 12345." (one key: no
 * name), the asked one at `depth` (0 = at the start, 1 = just before the question), the
 * others elsewhere; the context is filled with sentences up to `length` tokens.  Wrong
 * choices: the other keys, then random numbers. */
typedef struct cm_needle {
    int length, keys, digits, choices;
    double depth;
} cm_needle;
/* hay: sentences to fill with, or NULL for built-in ones. */
typedef struct cm_hay {
    char **sentence;
    int n;
} cm_hay;
/* Sentences of a text: cut behind . ! ? and white space, and at line ends. */
void cm_hay_split(cm_hay *h, const char *text, size_t n);
void cm_hay_free(cm_hay *h);
bool cm_probe_needle(const cm_needle *c, const cm_hay *hay, const cm_spm *spm, uint64_t seed,
                     uint64_t index, cm_probe_text *out, cm_err *err);
/* A list of `entries` lines "NAME: 123456", then one of its names again.  Wrong choices:
 * numbers of other entries. */
bool cm_probe_phonebook(int entries, int digits, int choices, const cm_spm *spm,
                        uint64_t seed, uint64_t index, cm_probe_text *out, cm_err *err);

/* ---- what results.json says besides metrics ------------------------------------------- */

/* Members of a task's object made from its items' details alone (a cm_results_more_fn):
 *   "slice": NAME                         the item's scores count in slice NAME
 *   "slices": {NAME: {METRIC: [num,den]}} parts of the item, each in its slice
 *   "human": {METRIC: value}              the same measures of a person's text
 *   "card": {"kl": [...], ...}            positions of the quantization card
 *   "contamination": {...}                overlap with a corpus
 * and from conf and acc the reliability diagram's bins. */
void cm_results_derived(void *ctx, const cm_task_result *t, cm_buf *members);

/* ---- degeneration of generated text --------------------------------------------------- */

typedef struct cm_degen {
    double seq_rep_4;     /* 1 - distinct / all 4-grams; NaN below 4 tokens */
    double distinct_2;    /* distinct / all bigrams; NaN below 2 tokens */
    double bytes, packed; /* of the text, plain and by zstd level 19 */
    bool loop;            /* the tail is a piece of 1..64 tokens, three times or more */
    int period;           /* of that piece, 0 without one */
} cm_degen;
cm_degen cm_degen_measure(const int32_t *id, int n, const char *text, size_t bytes);

/* ---- contamination -------------------------------------------------------------------- */

/* Overlap of items with a corpus: the items' n-grams are indexed (64-bit hashes), the
 * corpus streams past them, so memory is a function of the items alone.  Units are words
 * (ASCII lower-cased, punctuation deleted, white space between) or token ids. */
typedef struct cm_contam cm_contam;
/* n: units in a gram; an item of fewer units, but at least `least`, counts as one gram. */
cm_contam *cm_contam_open(int n, int least);
void cm_contam_close(cm_contam *c);
int cm_contam_add_words(cm_contam *c, const char *text, size_t bytes); /* item's number */
int cm_contam_add_ids(cm_contam *c, const int32_t *id, int64_t n);
/* The corpus: a document begins, then its pieces in order, none ending inside a word; grams
 * do not cross documents. */
void cm_contam_document(cm_contam *c);
void cm_contam_scan_words(cm_contam *c, const char *text, size_t bytes);
void cm_contam_scan_ids(cm_contam *c, const int32_t *id, int64_t n);
typedef struct cm_overlap {
    int64_t units, grams, hits; /* grams 0: too short to tell */
    double coverage;            /* share of the units that lie in a gram found */
    int64_t longest;            /* most units in a row that do, by grams that overlap */
} cm_overlap;
cm_overlap cm_contam_item(const cm_contam *c, int item);
int64_t cm_contam_scanned(const cm_contam *c); /* units seen in the corpus */
/* The words of a text as compared, single spaces between. */
void cm_contam_normal(const char *text, size_t n, cm_buf *out);

/* What is known of an item of a task: overlap in words, and in tokens. */
typedef struct cm_item_overlap {
    cm_overlap words, tokens;
} cm_item_overlap;
/* Scan the corpora (data-set folders, whose training documents count; text; JSON lines with
 * eval.field) for the items of all tasks, built without few-shot examples; fills each task's
 * overlap[n], malloc'ed, freed with the task. */
bool cm_tasks_contaminate(cm_eval_task *task, int n_tasks, const cm_loaded *model,
                          const char *const *corpus, int n, cm_err *err);
/* Member "contamination" of an item's detail. */
void cm_overlap_json(cm_buf *b, const cm_item_overlap *o);

/* ---- tokenizer fertility -------------------------------------------------------------- */

enum { CM_N_SCRIPTS = 12 };
const char *cm_script_name(int script); /* "latin", "devanagari", ..., "no letters" */
/* Script of a letter or mark; -1 for digits, punctuation and everything else. */
int cm_script_of(uint32_t code_point);

typedef struct cm_fertility {
    int64_t bytes, chars, words, continued; /* continued: words of two tokens or more */
    int64_t tokens, fallback, unknown;      /* fallback: byte pieces */
    int64_t lines, changed;                 /* changed: decode(encode(line)) != line */
} cm_fertility;
/* Add the lines of a text to whole and to the script of each word (script[CM_N_SCRIPTS];
 * a word belongs to the script of its first letter, white space to the word after it). */
bool cm_fertility_add(cm_fertility *whole, cm_fertility *script, const cm_spm *spm,
                      const char *text, size_t n, cm_err *err);
/* Fertility of the tokenizer on each file, by script: a table, or JSON. */
bool cm_fertility_report(const cm_spm *spm, const char *const *path, int n, bool json,
                         cm_buf *out, cm_err *err);

/* ---- retrieval ------------------------------------------------------------------------- */

/* A retrieval pipeline's questions, passages and answers (JSON lines, docs/PROBES.md) as a
 * result folder; *table gets what a person reads.  CM_EXIT_DATA with file and line.  dir
 * NULL: read and check only. */
bool cm_retrieval_eval(const char *path, const char *dir, const cm_eval_conf *conf,
                       cm_if_done done, cm_buf *table, cm_err *err);

/* ---- the quantization card: one model against another --------------------------------- */

/* One scored position, nats. */
typedef struct cm_kl_pos {
    double kl;         /* KL(reference || model) */
    double nll, ref;   /* -log p of the true token: model, reference */
    double dp;         /* p(true token): model - reference */
    double same;       /* 1: same most likely token */
} cm_kl_pos;
/* pos[i] for the prediction of token[i+1], i in [first, T-1). */
void cm_kl_score(cm_scorer *ref, cm_scorer *s, const int32_t *token, int T, int first,
                 cm_kl_pos *pos);

/* The task of the card on text files, from eval.mode, eval.context and eval.reference: mode
 * llama scores llama-perplexity's positions. */
bool cm_card_task(cm_eval_task *t, const char *const *path, int n, const cm_loaded *model,
                  const cm_eval_conf *eval, cm_err *err);
/* What a person reads of the card of a finished result. */
bool cm_card_table(const char *dir, cm_buf *out, cm_err *err);

/* Value, its standard error with positions independent (as llama-perplexity prints it) and
 * clustered by row of text. */
typedef struct cm_kl_value {
    double value, se, se_clustered;
} cm_kl_value;
enum { CM_KL_QUANTILES = 11 };
extern const double cm_kl_quantile[CM_KL_QUANTILES]; /* 0, 0.001, 0.01, ..., 0.999, 1 */
typedef struct cm_kl_card {
    int64_t n, rows;
    cm_kl_value ppl, ppl_ref, ln_ratio, ratio, diff; /* diff: ppl - ppl_ref */
    cm_kl_value kl, dp, dp_rms, same;
    double cor; /* of the two models' nll */
    double kl_q[CM_KL_QUANTILES], dp_q[CM_KL_QUANTILES];
} cm_kl_card;
/* pos[n], row[n]: the row of text each position came from, not decreasing. */
void cm_kl_card_of(const cm_kl_pos *pos, const int64_t *row, int64_t n, cm_kl_card *out);

/* What lies beside a quantized file: FILE.card.json and FILE.card.md. */
typedef struct cm_file_card {
    const char *type, *text;   /* of the file; what was scored */
    const char *importances;   /* the text they were collected on; "": none */
    uint64_t file_bytes;       /* of a folder: of its model.safetensors */
    uint64_t tensor_bytes;
    int64_t weights;           /* parameters of the model */
    bool blocks;               /* scored with blocks as they are */
    int context;               /* tokens in a row; second halves are scored */
    int64_t max_chunks;        /* rows at most; 0: all */
    cm_kl_card card;           /* by cm_file_card_score */
} cm_file_card;
bool cm_file_card_score(cm_file_card *c, const cm_loaded *ref, const cm_loaded *q, cm_err *err);
/* As a JSON object under `key`; NULL: by itself. */
void cm_file_card_json(const cm_file_card *c, const char *key, cm_buf *b);
/* Where the card of a file or folder lies, beside it (free()); kind: "json", "md". */
char *cm_card_path(const char *gguf, const char *kind);
/* Both, or neither. */
bool cm_file_card_write(const cm_file_card *c, const char *gguf, cm_err *err);
/* Remove the card of a file that has been replaced; what lies there and is no card stays. */
bool cm_file_card_remove(const char *gguf, cm_err *err);

/* Text files are plain text or, by name (.jsonl, .ndjson, also .gz and .zst), JSON lines, one
 * document a line; either may be compressed.  UTF-8, else CM_EXIT_DATA. */
#define CM_TEXT_FIELD "text"        /* of a JSON line, where no key names another */
#define CM_TEXT_MOST ((size_t)1 << 30) /* bytes of a text that is read as a whole */
bool cm_text_is_jsonl(const char *path);
bool cm_text_utf8(const char *s, size_t n, cm_err *err); /* reason without the file's name */
/* Hand over the documents of JSON lines, one after another, until there are no more or `each`
 * clears *more; s lives until it returns.  Its reason in err gets file and line in front. */
typedef bool (*cm_text_fn)(void *ctx, const char *s, size_t n, bool *more, cm_err *err);
bool cm_text_jsonl(cm_src *src, const char *path, const char *field, cm_text_fn each, void *ctx,
                   cm_err *err);
/* All of a text file's tokens: one final line break less, BOS first where the tokenizer has one;
 * documents of JSON lines follow each other, a line break after each.  free(*id) in every case. */
bool cm_text_tokens(const cm_spm *spm, const char *path, const char *field, int32_t **id,
                    int64_t *n, cm_err *err);

/* The words of `want`, articles aside, stand one after another in the first sentence of
 * `got` (anywhere: in all of it): "Under the bed" is found in "It was under the bed."  Nothing
 * can be found for an answer without words.  The checkers world and words. */
bool cm_answer_stands(const char *got, const char *want, bool anywhere);

#endif
