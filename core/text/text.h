/* text.h -- the tokenizer (SentencePiece behind a C interface), chat template, conversations. */
#ifndef CM_TEXT_H
#define CM_TEXT_H

#include "io/io.h"

/* A loaded SentencePiece model.  Immutable after opening: all functions are thread-safe. */
typedef struct cm_spm cm_spm;

/* From a .model file, or from its bytes (kept as given: cm_spm_proto returns them). */
cm_spm *cm_spm_open(const char *path, cm_err *err);
/* The file that a path to a tokenizer means: itself, or the tokenizer.model in a folder (a data
 * set, a checkpoint, a run, which stands for its latest checkpoint).  free(). */
char *cm_spm_place(const char *path);
cm_spm *cm_spm_open_bytes(const void *proto, size_t n, cm_err *err);
void cm_spm_close(cm_spm *s);
const void *cm_spm_proto(const cm_spm *s, size_t *n);
/* SHA-256 of the proto bytes: the tokenizer's identity. */
const char *cm_spm_hash(const cm_spm *s);

int cm_spm_vocab(const cm_spm *s);
int cm_spm_bos(const cm_spm *s); /* -1 = none; likewise the next three */
int cm_spm_eos(const cm_spm *s);
int cm_spm_unk(const cm_spm *s);
int cm_spm_pad(const cm_spm *s);
bool cm_spm_add_dummy_prefix(const cm_spm *s);
/* Why llama.cpp would tokenize differently ("normalises its input"), or NULL. */
const char *cm_spm_unlike_llama(const cm_spm *s);

/* Piece types, numbered as in SentencePiece's proto and in GGUF. */
typedef enum {
    CM_PIECE_NORMAL = 1, CM_PIECE_UNKNOWN, CM_PIECE_CONTROL, CM_PIECE_USER, CM_PIECE_UNUSED,
    CM_PIECE_BYTE
} cm_piece_type;
/* Piece i: its bytes (NUL-terminated, owned by s), score and type. */
const char *cm_spm_piece(const cm_spm *s, int i, float *score, cm_piece_type *type);
int cm_spm_id(const cm_spm *s, const char *piece); /* -1 when absent */

/* Encode n bytes of UTF-8.  Appends ids (no BOS/EOS) to *out (realloc'ed, count *n_out,
 * capacity *cap).  False only on a library failure. */
bool cm_spm_encode(const cm_spm *s, const char *text, size_t n, int32_t **out,
                   int64_t *n_out, int64_t *cap, cm_err *err);
/* A place c in (0, n], at most `want` if there is one, where text can be cut so that the
 * ids of [0,c) followed by the ids of [c,n) are the ids of the whole.  n when the tokenizer
 * or the text offers none. */
size_t cm_spm_cut(const cm_spm *s, const char *text, size_t n, size_t want);
/* Decode ids to text (free()), as SentencePiece does: the dummy prefix is removed.  The text is
 * that up to a zero byte, which byte pieces can spell; _to appends all of it. */
char *cm_spm_decode(const cm_spm *s, const int32_t *id, int64_t n);
void cm_spm_decode_to(const cm_spm *s, const int32_t *id, int64_t n, cm_buf *out);
/* Bytes that one token contributes in mid-text (byte pieces give their byte, U+2581 a
 * space, control tokens nothing).  For streaming. */
void cm_spm_token_bytes(const cm_spm *s, int id, cm_buf *out);

/* Generated text on its way to the reader: whole UTF-8 characters only, and nothing of a
 * stop string.  After each call the text to show is ready.s[0..ready.n). */
typedef struct cm_stream {
    const char *const *stop; /* caller's; no empty strings */
    int n_stop;
    cm_buf held, ready;
} cm_stream;
void cm_stream_open(cm_stream *s, const char *const *stop, int n_stop);
void cm_stream_close(cm_stream *s);
/* True when a stop string is complete: the text ends before it. */
bool cm_stream_push(cm_stream *s, const char *bytes, size_t n);
/* No more tokens: release what is held. */
void cm_stream_finish(cm_stream *s);

/* ---- chat ----------------------------------------------------------------------------- */

/* Control pieces of the chat template, which every trained vocabulary reserves in this
 * order from id 3. */
#define CM_CHAT_MARKERS                                                                 \
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>"

/* Name and version of the template, for recipes. */
#define CM_CHAT_TEMPLATE "chimera-1"

/* THE chat template (docs/CHAT.md).  A conversation is BOS (where the tokenizer has one)
 * and turns; a turn is <|role|>, the text as it is, <|end|>; an assistant's turn may begin
 * with <think>, its reasoning, </think>.  Only these places hold control tokens: text is
 * encoded as text, whatever it spells. */
typedef enum { CM_ROLE_SYSTEM, CM_ROLE_USER, CM_ROLE_ASSISTANT } cm_role;
extern const char *const cm_role_names[3]; /* "system", "user", "assistant" */

/* What training does with a token as a target: nothing, learn it as part of the answer
 * (<|end|> included), or as part of the reasoning block (its two markers included). */
typedef enum { CM_MASK_NONE, CM_MASK_ANSWER, CM_MASK_REASONING } cm_mask;

typedef struct cm_turn {
    cm_role role;
    const char *text, *think; /* the caller's, UTF-8; think: NULL = no reasoning block */
    size_t n, n_think;
} cm_turn;

/* An assistant's turn of n bytes of text: one that begins with <think> holds its reasoning up
 * to the first </think>.  False: that never comes; text is then NULL. */
bool cm_turn_answer(cm_turn *t, const char *s, size_t n);

/* Ids of the control tokens of one tokenizer; bos may be -1. */
typedef struct cm_chat {
    int32_t role[3], end, think, unthink, bos;
} cm_chat;
/* CM_EXIT_USAGE, naming the missing pieces, when the tokenizer lacks some. */
bool cm_chat_open(cm_chat *c, const cm_spm *spm, cm_err *err);

/* A turn as a sequence of parts: a control token, or a text to be encoded. */
typedef struct cm_chat_part {
    int32_t control; /* -1: text */
    const char *s;
    size_t n;
    cm_mask mask;
} cm_chat_part;
enum { CM_CHAT_PARTS = 6 };
/* Returns how many; at most CM_CHAT_PARTS.  trained: an assistant's turn is masked in. */
int cm_chat_parts(const cm_chat *c, const cm_turn *t, bool trained, cm_chat_part *out);

/* Ids and masks of a conversation, appended as by cm_spm_encode (both arrays have *n
 * elements, room for *cap).  reply: ends with <|assistant|>, to be answered.  False only on
 * a library failure. */
typedef struct cm_chat_ids {
    int32_t *id;
    uint8_t *mask;
    int64_t n, cap;
} cm_chat_ids;
bool cm_chat_render(const cm_chat *c, const cm_spm *spm, const cm_turn *turn, int n_turn,
                    bool reply, cm_chat_ids *out, cm_err *err);
void cm_chat_ids_free(cm_chat_ids *x);

/* A model's answer, token by token: its text, where it ends, what of it is reasoning. */
typedef struct cm_voice {
    const cm_spm *spm;
    const cm_chat *chat;
    int eos, end; /* tokens that end it, or -1 */
    cm_stream stream;
    cm_buf text;            /* so far: whole characters, nothing of a stop string */
    size_t reply;           /* bytes of it up to behind the last </think> token */
    bool thought, thinking; /* a block was closed; one is open */
    bool ended, stopped;    /* by <|end|>, the end-of-text token or a stop string; by that */
} cm_voice;
/* chat: control tokens stand in the text by name, since text cannot forge them there; NULL:
 * they say nothing.  stop as in cm_stream_open. */
void cm_voice_open(cm_voice *v, const cm_spm *spm, const cm_chat *chat,
                   const char *const *stop, int n_stop);
void cm_voice_close(cm_voice *v);
bool cm_voice_token(cm_voice *v, int32_t id); /* true: the answer ends with it */
/* No more tokens: text gets what may have been the beginning of a stop string. */
void cm_voice_finish(cm_voice *v);
/* The text behind the last block; nothing while one is open. */
const char *cm_voice_reply(const cm_voice *v);

/* Tokens with masks as text for a person: runs of one mask are decoded together; a turn to
 * a line.  Trained runs stand between marks (answer: [[ ]], reasoning: (( ))) or, in colour,
 * are green and yellow.  A text that spells a control token gets a backslash: <\|end|>. */
void cm_masked_show(const cm_spm *spm, const int32_t *id, const uint8_t *mask, int64_t n,
                    bool colour, cm_buf *out);

/* The same template in Jinja, for GGUF's and Hugging Face's files; NULL for a tokenizer
 * without its control pieces. */
const char *cm_chat_jinja(const cm_spm *spm);

/* ---- making tokenizers ---------------------------------------------------------------- */

/* Build the bytes of a BPE model proto from pieces, as read from a GGUF file. */
bool cm_spm_build(const char *const *piece, const size_t *len, const float *score,
                  const int *type, int n, int bos, int eos, int unk, int pad,
                  bool add_dummy_prefix, cm_buf *proto, cm_err *err);

/* Train a vocabulary: BPE, identity normalisation, byte fallback, digits split, runs of
 * spaces as pieces, no whitespace collapsing: what llama.cpp reproduces exactly.
 * No dummy prefix: then decode(encode(x)) is x, the ids of a text do not depend on where
 * it was cut at a space, and the first word of a document is spelled as the first word of
 * any other line.  Ids: unk 0, bos 1, eos 2, no pad, then control pieces, bytes, the rest.
 * The proto is rebuilt by cm_spm_build, so it holds no path, and a tokenizer imported from
 * a GGUF file written from it has the same hash.  Deterministic for any thread count.
 * The library runs in a child process forked before any parallel region, so that an abort
 * inside becomes a sentence.
 * input: a text file, one sentence a line.  control: extra control pieces (chat markers). */
typedef struct cm_spm_train_conf {
    const char *input;
    int vocab;
    const char *const *control;
    int n_control;
    int threads;
} cm_spm_train_conf;
bool cm_spm_train(const cm_spm_train_conf *c, cm_buf *proto, cm_err *err);

/* ---- conversations as JSON ------------------------------------------------------------ */

/* Why a line or document is not used; the words stand in rejected.jsonl and the manifest. */
#define CM_REJECTS(X)                                                                   \
    X(BAD_JSON, "bad-json") X(BAD_TEXT, "bad-text") X(MISSING, "missing-field")         \
    X(ROLE, "unknown-role") X(ORDER, "turn-order") X(NO_ANSWER, "no-assistant")         \
    X(EMPTY, "empty-answer") X(EMPTY_PROMPT, "empty-prompt") X(THINK, "open-think")     \
    X(PROMPTS, "different-prompts") X(EQUAL, "equal-answers")                           \
    X(UNSUPPORTED, "unsupported") X(TOO_LONG, "too-long")
typedef enum {
#define X(id, word) CM_REJECT_##id,
    CM_REJECTS(X)
#undef X
    CM_N_REJECTS
} cm_reject;
const char *cm_reject_name(cm_reject r);

/* A conversation as read.  Of a pair the last two turns are the chosen and the rejected
 * answer to the turns before them. */
typedef struct cm_talk {
    cm_turn *turn; /* texts live in json and joined */
    int n, cap;
    cm_reject reject; /* after a refusal: which, and a sentence without place */
    char why[200];
    cm_json_tree json;
    cm_buf joined;
} cm_talk;
/* Read a conversation that is to be answered: a list of messages, or an object with messages,
 * conversations or a prompt; it ends with the user's turn.  False: refused; docs/CHAT.md lists
 * the forms.  May be called again with the same t. */
bool cm_talk_read_prompt(cm_talk *t, const char *s, size_t n);
void cm_talk_free(cm_talk *t);

#endif
