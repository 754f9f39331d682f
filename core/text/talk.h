/* talk.h -- one conversation, or one pair of answers, out of one JSON value. */
#ifndef CM_TALK_H
#define CM_TALK_H

#include "io/io.h"
#include "text/text.h"

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
/* Read one JSON value of UTF-8.  pair: a preference, else a conversation; docs/CHAT.md
 * lists the forms.  False: refused, see t->reject.  May be called again with the same t. */
bool cm_talk_read(cm_talk *t, const char *s, size_t n, bool pair);
/* The same of a conversation that is to be answered: a list of messages, or an object with
 * messages, conversations or a prompt; it ends with the user's turn. */
bool cm_talk_read_prompt(cm_talk *t, const char *s, size_t n);
void cm_talk_free(cm_talk *t);
/* What kind of data one JSON value is: CM_SHARD_SFT, CM_SHARD_DPO, or CM_SHARD_LM where it
 * has the field `text` or is nothing that cm_talk_read knows. */
cm_shard_kind cm_talk_kind(const char *s, size_t n, const char *text);
/* Bytes of all its texts; the hash of all of it, and of what comes before the first answer:
 * conversations that begin alike belong on the same side of a split. */
uint64_t cm_talk_bytes(const cm_talk *t);
void cm_talk_hash(const cm_talk *t, char whole[65], char opening[65]);

#endif
