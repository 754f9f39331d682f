/* model.h -- layer pattern to stack of blocks; losses, logits, decoding; names and files.
 *
 * A model is: token embedding, n_layers of (norm, mixer, residual, norm, FFN, residual),
 * final norm, head.  It is Hugging Face's GraniteMoeHybrid and GGUF's granitehybrid. */
#ifndef CM_MODEL_H
#define CM_MODEL_H

#include "io/io.h"
#include "nn/nn.h"
#include "text/text.h"

typedef struct cm_layer {
    bool attention, experts; /* else Mamba-2, else dense */
    cm_param *norm1, *norm2;
    cm_attn attn;
    cm_mamba2 mamba;
    cm_mlp mlp;              /* dense FFN, or shared expert (mlp.in NULL: none) */
    cm_moe_block moe;
} cm_layer;

/* Who brings weights that are not all there at once, a part at a time: -1 is the embedding,
 * n_layers final norm and head, others a layer.  Until the next part is asked for, this one's
 * weights stay; the others' may go. */
typedef struct cm_bringer {
    bool (*bring)(void *ctx, int part, cm_err *err);
    void *ctx;
    cm_err err; /* after a failure: why */
} cm_bringer;

typedef struct cm_model {
    cm_model_conf conf; /* resolved: no zeros that mean "choose" */
    cm_params params;
    cm_params adapter;  /* LoRA's matrices, which then alone are trained; n 0: none */
    cm_lora_conf lora;  /* how they were made; rank 0: none */
    cm_param *embed, *norm, *head; /* head == embed when tied */
    cm_layer *layer;
    const uint8_t *again; /* [n_layers] blocks that the backward computes again, whoever asks;
                             NULL: none.  The caller's, set after building. */
    cm_bringer *bringer; /* asked by cm_model_hidden; NULL: all weights are there.  The caller's */
    double rope_inv[256], rope_mscale;
} cm_model;

/* Fill defaults (head_dim, ...) and check every cross-field rule (d_model divisible by
 * heads, groups divide heads, pattern letters, ...).  False: a sentence naming the key. */
bool cm_model_resolve(cm_model_conf *c, cm_err *err);
/* What the pattern strings say. */
bool cm_layer_is_attention(const cm_model_conf *c, int64_t layer);
bool cm_layer_has_experts(const cm_model_conf *c, int64_t layer);
bool cm_model_has_attention(const cm_model_conf *c);
bool cm_model_has_mamba(const cm_model_conf *c);
bool cm_model_has_experts(const cm_model_conf *c);
bool cm_model_has_dense(const cm_model_conf *c);
/* Can GGUF's granitehybrid / granite / granitemoe say this model?  False: a sentence that
 * names the offending key (limits: docs/MODELS.md). */
bool cm_model_exportable(const cm_model_conf *c, cm_err *err);

/* Register and allocate all parameters on `arena` (a counting arena measures).  c must be
 * resolved, vocab_size set.  trained: with gradients. */
void cm_model_build(cm_model *m, const cm_model_conf *c, cm_arena *arena, bool trained);
/* The same with LoRA (NULL: without): the parameters are frozen and held as lora->base says,
 * and where lora->rank > 0 there are adapters, with gradients if trained.  Check before. */
void cm_model_build_lora(cm_model *m, const cm_model_conf *c, const cm_lora_conf *lora,
                         cm_arena *arena, bool trained);
/* Without LoRA and gradients, parameter i held as held[i] (cm_qmat_holds), in the order in which
 * they are registered. */
void cm_model_build_held(cm_model *m, const cm_model_conf *c, const cm_dtype *held,
                         cm_arena *arena);
/* cm_lora_check for a model of this shape. */
bool cm_model_lora_fits(const cm_model_conf *c, const cm_lora_conf *lora, cm_err *err);
/* cm_lora_idle_rank for one. */
char *cm_model_lora_idle_rank(const cm_model_conf *c, const cm_lora_conf *lora);
/* What an optimizer steps: the adapters, or without them the parameters. */
cm_params *cm_model_trained(cm_model *m);
void cm_model_end(cm_model *m); /* frees its tables, not the arena */
/* Is one of its matrices held, and computed with, as blocks of a GGUF file? */
bool cm_model_has_blocks(const cm_model *m);
/* Parameters in all, and those a token uses (chosen and shared experts only). */
int64_t cm_model_count(const cm_model_conf *c, bool active);
/* Parameters of the largest part (cm_bringer). */
int64_t cm_model_largest_part(const cm_model_conf *c);
/* Whether p belongs to a part; the embedding, where it is the head too, to two. */
bool cm_model_in_part(const cm_model *m, const cm_param *p, int part);
/* Forward + backward flops per token by the formula of DESIGN 9: 6 x matmul parameters a
 * token uses, causal half of attention, SSD at its chunk (Q = 64). */
double cm_model_flops(const cm_model_conf *c, int64_t T);

/* One micro-batch; all arrays [B*T]. */
typedef struct cm_batch {
    int B, T;
    const int32_t *token;
    const int32_t *target; /* -1 = not scored */
    const int32_t *doc;    /* see cm_seq; NULL = one document a row */
    const int32_t *pos;
    cm_noise noise;        /* on the embeddings; alpha 0: none */
    cm_drop drop;          /* of adapters, T and row as of this batch; share 0: none */
} cm_batch;

/* What one forward pass leaves for metrics; zero it, then let it accumulate. */
typedef struct cm_stats {
    int64_t *load;        /* [L*E] assignments per layer and expert, or NULL */
    cm_moe_stats *moe;    /* [L] or NULL */
    cm_real *nll;         /* [B*T] row losses of the last batch, or NULL */
    uint8_t *hit;         /* [B*T] of targets: 1 where none is likelier; or NULL */
} cm_stats;

/* Loss of a batch: norm * sum of token nll (+ z-loss), plus the experts' auxiliary losses
 * weighted by norm * (rows scored in this batch), so that micro-batches add up.
 * recompute: keep only block inputs, run blocks again in backward. */
cm_var *cm_model_loss(const cm_model *m, cm_tape *t, const cm_batch *b, cm_real norm,
                      bool recompute, const cm_stats *st);

/* Log-probabilities of the targets, [B*T], 0 where none.  *aux, unless NULL, gets the experts'
 * auxiliary losses times aux_scale as one var, or NULL where there are none.  recompute, st
 * (without nll) as above; gradients only on a recording tape. */
cm_var *cm_model_logp(const cm_model *m, cm_tape *t, const cm_batch *b, cm_real aux_scale,
                      bool recompute, const cm_stats *st, cm_var **aux);

/* Decoding state of B sequences with room for cap tokens each. */
typedef struct cm_state {
    int B, cap;
    int32_t *held; /* [B] tokens consumed so far */
    cm_layer_state *layer;
    cm_dtype kv; /* of keys and values; see cm_kv */
} cm_state;
/* Of CM_KV_CHOICES (generate.kv) the type for a model, and of a type the word. */
cm_dtype cm_kv_choice(int64_t choice, const cm_model *m);
const char *cm_kv_name(cm_dtype kv);
/* Whether a token's keys are whole blocks of type kv; CM_EXIT_USAGE. */
bool cm_state_fits(const cm_model_conf *c, cm_dtype kv, cm_err *err);
size_t cm_state_bytes(const cm_model_conf *c, int B, int cap, cm_dtype kv);
/* Bytes of one token's keys in an attention layer, and of its values. */
size_t cm_state_row_bytes(const cm_state *s, const cm_model_conf *c);
/* The same of all layers: what a token adds to cm_state_bytes. */
size_t cm_state_token_bytes(const cm_model_conf *c, cm_dtype kv);
void cm_state_init(cm_state *s, const cm_model *m, int B, int cap, cm_dtype kv,
                   cm_arena *arena);
void cm_state_clear(cm_state *s, const cm_model *m);

/* Hidden states after the final norm, [B*T,D], or [seq->last,D].  st NULL: whole documents from
 * scratch; else the T new tokens continue the sequences in st (chunked scan for T > 1, recurrence
 * for T = 1).  Not recorded.  NULL: m->bringer failed. */
cm_var *cm_model_hidden(const cm_model *m, cm_tape *t, const int32_t *token,
                        const cm_seq *seq, cm_state *st);
/* The same along the paths of a prefix tree: token[paths->rows] -> [paths->rows,D], each
 * row the bits of cm_model_hidden on its text alone (strict numerics). */
cm_var *cm_model_paths(const cm_model *m, cm_tape *t, const int32_t *token,
                       const cm_paths *paths);
/* State at a point `rows` tokens after `up` (NULL: the beginning), for cm_path.next.  NULL:
 * out of memory.  Once no path starts there, _shrink leaves only keys and values. */
cm_past *cm_past_new(const cm_model *m, cm_past *up, int rows);
void cm_past_shrink(cm_past *p);
void cm_past_free(cm_past *p); /* not `up` */
size_t cm_past_bytes(const cm_model_conf *c, int rows);
/* Room to carry a path of `rows` tokens.  NULL: out of memory. */
cm_carry *cm_carry_new(const cm_model *m, int rows);
void cm_carry_free(cm_carry *c);

/* Logits of given rows of hidden states: out[n,V]. */
void cm_model_logits(const cm_model *m, const cm_real *hidden, const int64_t *row,
                     int64_t n, cm_real *out);

/* Tokens that were read on trial (cm_session_try): the state before them stays as it is. */
typedef struct cm_trial {
    int most, n;              /* room; tokens on trial */
    cm_layer_state *layer;    /* [layers] the state after them, in conv and ssm; raw [most] */
    cm_arena mem;
} cm_trial;

/* Sessions read in pieces of this many tokens, counted from where each feed begins, or in
 * parts of such pieces that give the same bits. */
enum { CM_PIECE = 256 };
/* One sequence being read and continued.  cap: most tokens it will hold. */
typedef struct cm_session {
    const cm_model *m;
    int cap;
    int piece, rows; /* tokens of a part; most that the arena takes together */
    cm_state st;
    cm_arena arena, meta, keep;
    cm_trial trial; /* most 0: not asked for */
} cm_session;
/* Keys and values as floats, or (_as) of type kv; one that does not fit: CM_EXIT_USAGE. */
bool cm_session_open(cm_session *s, const cm_model *m, int cap, cm_err *err);
bool cm_session_open_as(cm_session *s, const cm_model *m, int cap, cm_dtype kv, cm_err *err);
void cm_session_close(cm_session *s);
void cm_session_reset(cm_session *s); /* start of a new text */
/* Read n tokens.  all: logits after each of them [n,V], or NULL; last: after the last one
 * [V], or NULL.  False: no room, an id outside the vocabulary, or a signal (cm_signal_go_on),
 * which is asked for before each part: s holds the parts before it, and can go on. */
bool cm_session_feed(cm_session *s, const int32_t *token, int64_t n, cm_real *all,
                     cm_real *last, cm_err *err);
/* Make room for trials of up to `most` tokens; takes another conv and SSM state. */
bool cm_session_allow_trial(cm_session *s, int most, cm_err *err);
/* Read n tokens on trial, after those already on trial.  State and logits (all[n,V], or
 * NULL) have the bits of n feeds of one token each (strict numerics), but the weights are
 * read once.  Before anything else is asked of the session, cm_session_keep. */
bool cm_session_try(cm_session *s, const int32_t *token, int n, cm_real *all, cm_err *err);
/* Of the tokens on trial the first n count as read, the others were never there: what the
 * session holds is bit for bit what it held had only those n been fed, one by one. */
void cm_session_keep(cm_session *s, int n);

/* What a session needs besides its keys and values to go back to a point of its text. */
typedef struct cm_snapshot {
    int held;
    size_t bytes;
    void *data; /* conv and SSM states, layer by layer */
} cm_snapshot;
size_t cm_snapshot_bytes(const cm_model_conf *c);
/* data: NULL at first; freed by the caller.  CM_EXIT_RESOURCE: no memory. */
bool cm_snapshot_take(cm_snapshot *k, const cm_session *s, cm_err *err);
/* Back to that point.  The session must not have been reset since. */
void cm_session_restore(cm_session *s, const cm_snapshot *k);

/* How to choose a token; see sample.c for the order of the filters. */
typedef struct cm_sampling {
    double temperature;          /* 0 = the most likely token */
    int64_t top_k;               /* 0 = off */
    double top_p, min_p;         /* 1 and 0 = off */
    double repeat_penalty;       /* 1 = off; applies to the last repeat_last tokens */
    int64_t repeat_last;
    uint64_t seed;
} cm_sampling;
/* Token id; draw counts draws of this seed.  Changes logits when penalising.  work:
 * cm_sample_work_bytes(V) bytes. */
int cm_sample_token(const cm_sampling *s, cm_real *logits, int V, const int32_t *recent,
                    int n_recent, uint64_t draw, void *work);
size_t cm_sample_work_bytes(int V);
/* The distribution that cm_sample_token draws from, after the filters: c[n] with p > 0 adding
 * up to 1, in no promised order; returns n <= V.  Changes logits when penalising. */
typedef struct cm_candidate {
    double logit, p;
    int id;
} cm_candidate;
int cm_sample_candidates(const cm_sampling *s, cm_real *logits, int V, const int32_t *recent,
                         int n_recent, cm_candidate *c);
int cm_candidates_pick(const cm_candidate *c, int n, double u); /* u in [0,1) */
/* A guess of probability q where the model says p: accepted with probability min(1, p/q). */
bool cm_guess_accepted(double p, double q, double u);
/* Turn c[n] into max(0, c - q), normalised, for a rejected guess.  q[V]; NULL: 1 for the
 * guess.  Returns the new n, at least 1. */
int cm_candidates_rest(cm_candidate *c, int n, const double *q, int guess);
/* Uniform in [0,1) for a draw of this seed; what for: streams of their own. */
typedef enum { CM_DRAW_TOKEN, CM_DRAW_GUESS, CM_DRAW_ACCEPT, CM_DRAW_REST } cm_sample_draw;
double cm_sample_uniform(const cm_sampling *s, cm_sample_draw what, uint64_t draw);
int cm_argmax(const cm_real *x, int n); /* lowest index of the largest */
/* Read a prompt from the start of a text and add up to max tokens, out[max], until one of
 * stop[n_stop] (not kept) or a signal.  Room for n + max tokens is the session's. */
bool cm_session_continue(cm_session *s, const cm_sampling *how, const int32_t *prompt,
                         int64_t n, const int32_t *stop, int n_stop, int64_t max,
                         int32_t *out, int64_t *n_out, cm_err *err);
/* False: NaN or infinite; nothing can be chosen from them, the weights are broken. */
bool cm_logits_finite(const cm_real *logits, int64_t V);

/* ---- decoding, with guesses (speculative decoding) ------------------------------------- */

/* Who guesses the next tokens, so that the model has only to check them, several at a time.
 * First n-grams, then the draft model. */
typedef struct cm_guessing {
    const cm_model *draft; /* of the same vocabulary; NULL: none */
    int ngram;             /* guess what followed the last so many tokens before; 0: do not */
    int most;              /* tokens guessed at a time, at most; 0: no guessing */
} cm_guessing;

/* What guessing did.  Seconds are the calling thread's processor time; reading prompts counts
 * nowhere. */
typedef struct cm_guess_count {
    int64_t rounds, guessed;   /* checks of several tokens; tokens guessed */
    int64_t tested, accepted;  /* of these, up to the first rejected one */
    int64_t written;           /* tokens chosen in the rounds */
    int64_t steps;             /* single steps (a text's first ones are for timing) */
    double draft_s, check_s, step_s; /* time for all guesses, checks, single steps */
} cm_guess_count;
/* Share of tested guesses that were accepted. */
double cm_guess_rate(const cm_guess_count *c);
/* Expected speed-up over single steps: (1 - a^(g+1)) / ((1 - a) (g c + v)) with a the rate,
 * g guesses a round, c a guess's time and v a check's time in steps; 0: nothing measured. */
double cm_guess_speedup(const cm_guess_count *c);
/* What was counted after `then`. */
cm_guess_count cm_guess_since(const cm_guess_count *now, const cm_guess_count *then);

/* A text being continued, token by token.  The tokens' distribution is that of
 * cm_sample_token on the model's logits; at temperature 0 the tokens are the same. */
typedef struct cm_decoder {
    cm_session s;         /* of the model */
    cm_guessing how;
    cm_guess_count count;
    int64_t fed;          /* tokens of the text in s, those on trial not counted */
    cm_real *logits;      /* [most+1,V]; row 0 is the end of what was fed, when ready */
    bool ready;
    cm_candidate *work;   /* [V] */
    struct cm_guesser *guess; /* NULL: no guessing */
} cm_decoder;
/* cap: most tokens of the text.  how NULL: no guessing.  kv: of the keys and values of the
 * model and of the draft. */
bool cm_decoder_open(cm_decoder *d, const cm_model *m, const cm_guessing *how, int cap,
                     cm_dtype kv, cm_err *err);
void cm_decoder_close(cm_decoder *d); /* a zeroed one is fine */
void cm_decoder_reset(cm_decoder *d); /* a new text; count stays */
/* Read what is unread of text[n].  False as in cm_session_feed; fed tells how far it came. */
bool cm_decoder_read(cm_decoder *d, const int32_t *text, int64_t n, cm_err *err);
/* The same for a new text, with a file of texts read before (or a folder of such files): what
 * this text and the one in the file begin with alike is not read again, and where more was
 * read, the file becomes this text's.  The numbers are those without the file.  model_id:
 * SHA-256 of the weights; *reused: tokens that were not read.  CM_EXIT_USAGE: a file that
 * cannot be read; CM_EXIT_DATA: one that is damaged, or of another model or other kernels.  A
 * signal: as in cm_decoder_read, and the file stays as it was.  A file that cannot be written:
 * true, for the text is read, and unkept says why; else its code is 0. */
bool cm_decoder_read_cached(cm_decoder *d, const int32_t *text, int64_t n, const char *path,
                            const char *model_id, int64_t *reused, cm_err *unkept,
                            cm_err *err);
/* Choose the token after text[n], n >= 1, which is the text of the call before with its
 * token, other tokens in that one's place and after it, or both.  most >= 1: tokens that
 * may still be wanted; draw counts the tokens drawn with this seed.  CM_EXIT_DATA: logits
 * that are no numbers. */
bool cm_decoder_next(cm_decoder *d, const cm_sampling *how, const int32_t *text, int64_t n,
                     int64_t most, uint64_t draw, int32_t *id, cm_err *err);

/* A conversation with a model in the chat template, read once and kept in one session. */
typedef struct cm_dialog {
    const cm_spm *spm;
    cm_chat chat;
    cm_decoder dec;
    int32_t *id;     /* [cap + 1] all that was said, as tokens */
    int64_t n;       /* of it */
    int64_t draws;   /* random numbers used */
    bool answered;   /* it ends in an answer as the model left it */
} cm_dialog;
/* cap: most tokens of the whole conversation; how NULL: no guessing.  CM_EXIT_USAGE: a
 * tokenizer without the template's pieces. */
bool cm_dialog_open(cm_dialog *d, const cm_model *m, const cm_spm *spm,
                    const cm_guessing *how, int cap, cm_dtype kv, cm_err *err);
void cm_dialog_close(cm_dialog *d); /* a zeroed one is fine */
void cm_dialog_reset(cm_dialog *d); /* a new conversation */
/* Turns that the assistant is to answer.  CM_EXIT_USAGE: no room; nothing is added. */
bool cm_dialog_say(cm_dialog *d, const cm_turn *turn, int n, cm_err *err);
/* The answer, of at most `most` tokens, into an open voice; after each token `each` is told
 * (false: enough; a signal is enough, too).  id[n before, n) is then what the model chose and
 * nothing else; when the conversation goes on, it does as if the answer had ended in <|end|>. */
bool cm_dialog_answer(cm_dialog *d, const cm_sampling *how, int64_t most, cm_voice *v,
                      bool (*each)(void *ctx, const cm_voice *v), void *ctx, cm_err *err);

/* ---- models as files ------------------------------------------------------------------ */

/* A model ready to run, from a GGUF file or a folder: a checkpoint, a run (its latest
 * checkpoint) or a Hugging Face model; with its tokenizer (NULL when the source has none,
 * or one that is not SentencePiece).  Weights of every float and block type become cm_real. */
typedef struct cm_loaded {
    cm_model model;
    cm_spm *spm;
    cm_arena arena;      /* the parameters, and the strings of model.conf */
    char *chat_template; /* Jinja, or NULL */
    char *path;          /* of the file or folder read, absolute, without links */
    char *base;          /* the same of an adapter's base; NULL: no adapter */
    char source[16];     /* "checkpoint", "huggingface", "gguf" */
    cm_dtype stored;     /* type of most weights of a GGUF file; else CM_F32_T */
    char id[65];         /* SHA-256 of the weights file (of its index, when sharded); ""
                            under CM_LOAD_UNNAMED where no SHA256SUMS asked for it */
    cm_model *into;      /* the loader's own: the model that gets the weights */
    int chain;           /* the loader's own: adapters on the way to the base */
    cm_arena extra;      /* adapters kept apart */
    struct cm_lazy *lazy; /* under CM_LOAD_LAZY: the files, open */
} cm_loaded;
enum {
    CM_LOAD_TRAINED = 1, /* with gradients, zeroed */
    CM_LOAD_UNNAMED = 2, /* nobody will ask for the id: do not read the weights for it */
    CM_LOAD_SHAPE = 4,   /* no weights: of the model only conf; all else as ever */
    CM_LOAD_BF16 = 8,    /* matrices and embeddings are held as BF16, as lora.base has them */
    CM_LOAD_APART = 16,  /* an adapter is not merged: model.adapter has it */
    CM_LOAD_BLOCKS = 64, /* a GGUF file's matrices stay as it has them: halves, or blocks in
                            panels (cm_qmat_put).  For inference; not with LAZY or TRAINED.
                            Parts of one parameter in different types become cm_real, and so
                            does everything that is not in a GGUF file */
    CM_LOAD_LAZY = 32    /* names, shapes and types are checked, weights not read before
                            cm_loaded_fetch (an adapter's: read at once) */
};
/* An adapter's folder (PEFT's files, or a checkpoint of a run with LoRA) is its base with the
 * adapter merged; a base that is not the one it was trained on: CM_EXIT_DATA.
 * flags: of CM_LOAD_*; false and true mean 0 and CM_LOAD_TRAINED.  Every limit and size is
 * checked before memory is touched; wrong files: CM_EXIT_DATA, a path that is not there:
 * CM_EXIT_USAGE.  Weights that a SHA256SUMS lists are always compared with it; a second
 * thread hashes while the first one reads. */
bool cm_load(cm_loaded *l, const char *path, unsigned flags, cm_err *err);
void cm_loaded_close(cm_loaded *l);
/* The folder that has the model's files (free()): the path itself, or a run's latest
 * checkpoint; NULL: neither. */
char *cm_model_folder(const char *path);
/* A tokenizer alone: cm_spm_place's file, or a GGUF file's. */
cm_spm *cm_load_tokenizer(const char *path, cm_err *err);
/* Read one parameter of a lazily loaded model (NULL: all); give its memory back: to parameters
 * fetched later, or where all are forgotten to the system.  Not fetched, its data is NULL.  Where
 * all weights are there anyway both do nothing. */
bool cm_loaded_fetch(cm_loaded *l, const cm_param *p, cm_err *err);
void cm_loaded_forget(cm_loaded *l, const cm_param *p);
/* Fetch a part, forget the others: cm_bringer's function for a cm_loaded. */
bool cm_loaded_bring(void *loaded, int part, cm_err *err);
/* Read weights into a model that stands already, built for the conf that CM_LOAD_SHAPE gave:
 * no second copy is made.  id: as cm_loaded.id, or NULL.  On failure m may be half read. */
bool cm_load_into(cm_model *m, const char *path, char id[65], cm_err *err);

/* A draft model for cm_guessing.  flags: 0 or CM_LOAD_BLOCKS.  Another vocabulary than the
 * model's: CM_EXIT_USAGE. */
bool cm_draft_load(cm_loaded *draft, const char *path, const cm_loaded *of, unsigned flags,
                   cm_err *err);

/* config.json of a model (spm may be NULL: no special tokens), and back; the strings of
 * *c then live on `strings`. */
bool cm_hf_write_config(const cm_model_conf *c, const cm_spm *spm, const char *path,
                        cm_err *err);
bool cm_hf_read_config(cm_model_conf *c, cm_arena *strings, const char *path, cm_err *err);
/* tokenizer.model and tokenizer_config.json in dir; chat_template as in cm_export. */
bool cm_hf_write_tokenizer(const cm_spm *spm, const char *chat_template, const char *dir,
                           cm_err *err);

/* The adapters of m as PEFT's adapter_model.safetensors and adapter_config.json in dir; base:
 * the absolute path of the frozen weights, base_id: their file's SHA-256. */
bool cm_adapter_write(const cm_model *m, const char *dir, const char *base,
                      const char *base_id, cm_err *err);
/* Those files into the adapters of m, which must be all of them and of this base. */
bool cm_adapter_read(cm_model *m, const char *dir, const char *base, const char *base_id,
                     cm_err *err);

/* Importances of a model's matrices: mean squares of the activations that meet each column,
 * from a file of llama.cpp's (GGUF, or the older .dat) or collected on a text. */
typedef struct cm_imatrix cm_imatrix;
/* NULL: wrong file, CM_EXIT_DATA. */
cm_imatrix *cm_imatrix_open(const char *path, cm_err *err);
void cm_imatrix_close(cm_imatrix *m); /* NULL is fine */
/* Chunks of a text's tokens, each from a fresh state, its first token replaced by bos (< 0:
 * not).  Fewer tokens than one chunk: CM_EXIT_USAGE.  The .dat form has no counts.  cross: also
 * the products of every two columns, which no file keeps. */
cm_imatrix *cm_imatrix_collect(const cm_model *model, const int32_t *token, int64_t n,
                               int chunk, int32_t bos, bool cross, const char *dataset,
                               cm_err *err);
/* What `cross` takes of memory. */
double cm_imatrix_cross_bytes(const cm_model *m);
/* Of a tensor's expert (0), for rounding by feedback: [columns, columns], free().  NULL: not
 * collected (cross), or too few tokens. */
float *cm_imatrix_factor(const cm_imatrix *m, const char *name, int64_t expert);
/* A GGUF file, or the older form where the name ends in .dat. */
bool cm_imatrix_write(const cm_imatrix *m, const char *path, cm_err *err);
/* One that is yet to be collected on a text of this name: for cm_export_plan_make alone. */
cm_imatrix *cm_imatrix_planned(const char *dataset);
/* Names and sizes are the model's, and none of its layers' matrices is missing; else
 * CM_EXIT_DATA.  To be asked before cm_imatrix_find. */
bool cm_imatrix_fit(cm_imatrix *m, const cm_model *model, cm_err *err);
/* [outer, columns] of a GGUF tensor, or NULL; zeros for an expert that met too few tokens. */
const float *cm_imatrix_find(const cm_imatrix *m, const char *name);
/* Of how many of a tensor's *of experts (a plain matrix: 1; no entry: 0) it holds zeros alone. */
int64_t cm_imatrix_silent(const cm_imatrix *m, const char *name, int64_t *of);
const char *cm_imatrix_dataset(const cm_imatrix *m);
int cm_imatrix_entries(const cm_imatrix *m);
int64_t cm_imatrix_chunks(const cm_imatrix *m);

/* A hash of each row of what was written, as it decodes; of types whose encoder searches. */
typedef struct cm_sums {
    uint64_t **row; /* [n] tensors: [outer*rows] each, or NULL */
    int n;
} cm_sums;
void cm_sums_free(cm_sums *s);

/* What an export needs; spm may be NULL.  chat_template NULL: ours (cm_chat_jinja), if the
 * tokenizer has its control pieces. */
typedef struct cm_export {
    const cm_model *model;
    const cm_spm *spm;
    const char *chat_template;
    const char *name; /* general.name */
    int mix;          /* CM_TYPE_*: llama-quantize's rules; folders: F32, F16 or BF16 */
    const cm_list *tensors;    /* PATTERN=TYPE of exceptions; NULL: none */
    const cm_imatrix *imatrix; /* NULL: none */
    bool feedback;             /* rounding makes up for its errors, where imatrix has what it
                                  takes; wants sums */
    cm_loaded *source; /* where model's weights are fetched from one at a time; NULL: they
                          are there */
    cm_loaded *back;   /* the same for cm_export_compare's */
    cm_sums *sums;     /* cm_export_gguf fills it; cm_export_compare then need not encode again.
                          NULL: it does */
    bool adapter;     /* of a model loaded with CM_LOAD_APART: its adapters alone */
} cm_export;
/* Its name as users write it ("Q4_K_M"), the type of most matrices. */
const char *cm_mix_name(int mix);
cm_dtype cm_mix_type(int mix);
uint32_t cm_mix_file_type(int mix); /* llama.cpp's general.file_type */
/* A GGUF file for llama.cpp; first asks cm_model_exportable. */
bool cm_export_gguf(const cm_export *x, const char *path, cm_err *err);
/* A GGUF adapter that llama.cpp applies to a GGUF file of the base; x->adapter is set.  Read
 * back and compared: CM_EXIT_CHECK. */
bool cm_export_gguf_adapter(const cm_export *x, const char *path, cm_err *err);
/* Whether a folder's format has the type: CM_EXIT_USAGE. */
bool cm_export_fits_folder(const cm_export *x, cm_err *err);
/* A folder for transformers: config.json, model.safetensors, tokenizer files, put in place once all
 * of them are complete; then what is left there of another model goes (shards, their index, other
 * tokenizer files, ...).  What else is there stays. */
bool cm_export_hf(const cm_export *x, const char *dir, cm_err *err);
/* Whether an export may go to `out`: where there is nothing yet or nothing in it, a GGUF file over
 * a GGUF file, a model's folder over a model's folder that is no checkpoint of a run.  All else
 * there is somebody's work, or cannot be read back: CM_EXIT_USAGE. */
bool cm_export_may_replace(const char *out, bool gguf, cm_err *err);
/* A tensor that an export writes. */
typedef struct cm_export_row {
    char name[128];
    cm_tensor t;   /* type and shape, no data */
    cm_dtype want; /* what the type would be if its rows, of cols elements, were whole blocks */
    int64_t cols;
} cm_export_row;
/* What an export writes, known before it does. */
typedef struct cm_export_plan {
    cm_export_row *row;
    int n;
    uint64_t tensor_bytes;
    uint64_t file_bytes; /* all of the GGUF file, or of the folder's model.safetensors */
    char *idle;          /* patterns of x->tensors that change nothing, a sentence a line; "" */
} cm_export_plan;
/* A model built on a counting arena will do.  CM_EXIT_USAGE: x->tensors is wrong. */
bool cm_export_plan_make(const cm_export *x, bool gguf, cm_export_plan *p, cm_err *err);
void cm_export_plan_free(cm_export_plan *p); /* a zeroed one is fine */
/* As text, a line each; as members of a JSON object (tensors, tensor_bytes, file_bytes, table). */
void cm_export_plan_text(const cm_export_plan *p, cm_buf *out);
void cm_export_plan_json(const cm_export_plan *p, cm_buf *out);
/* Tensors of another type than wanted, and why: a sentence for each pair of types, a line each;
 * nothing where there are none. */
void cm_export_plan_fallbacks(const cm_export_plan *p, cm_buf *out);
/* Whether importances, and rounding by feedback, would act on one of its tensors: Q8_0 and float
 * types round to nearest, and embedding and head have no importances. */
bool cm_export_plan_weighs(const cm_export_plan *p);
/* Tensors that would be rounded by m's importances and have none, or not of all experts: a
 * sentence; nothing where there are none. */
void cm_export_plan_silent(const cm_export_plan *p, const cm_imatrix *m, cm_buf *out);
/* Whether one of its types is of blocks. */
bool cm_export_plan_has_blocks(const cm_export_plan *p);
/* Compare a model with what an export of it reads back as: every tensor within the error
 * that its storage type allows; of types with a search, whose errors have no simple bound,
 * exactly what the encoder made (x->sums) or makes of the model's.  False: CM_EXIT_CHECK,
 * naming the tensor. */
bool cm_export_compare(const cm_export *x, const cm_model *back, bool gguf, cm_err *err);
/* The same of one part's tensors, whose weights (of back) are there. */
bool cm_export_compare_part(const cm_export *x, const cm_model *back, bool gguf, int part,
                            cm_err *err);

/* log of the sum of exp of n logits; *top: the place of the largest, the first of equal ones. */
double cm_log_sum_exp(const cm_real *x, int64_t n, int64_t *top);

/* A model's logits and those of what it was exported to, over fixed random tokens. */
enum { CM_PARITY_TOKENS = 64 };
typedef struct cm_parity {
    double diff, rms;   /* largest |difference| of a logit; RMS of the source's */
    double kl, kl_most; /* mean and largest over positions, nats */
    int same;           /* positions with the same most likely token */
    bool unprobed;      /* not even a part of the model fits in memory as floats: tensors alone were
                           compared, and the above says nothing */
} cm_parity;
/* Compare tensors (as cm_export_compare; CM_EXIT_CHECK) and, in the same pass over the weights,
 * logits, which the caller judges.  x->source and x->back are lazily loaded; afterwards neither
 * has weights. */
bool cm_export_parity(const cm_export *x, bool gguf, cm_parity *p, cm_err *err);
/* Largest difference of a logit, in units of their RMS. */
double cm_parity_relative(const cm_parity *p);

#endif
