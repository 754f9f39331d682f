/* talk.h -- one conversation, or one pair of answers, out of one JSON value (cm_talk). */
#ifndef CM_TALK_H
#define CM_TALK_H

#include "io/io.h"
#include "text/text.h"

/* Read one JSON value of UTF-8.  pair: a preference, else a conversation; docs/CHAT.md
 * lists the forms.  False: refused, see t->reject.  May be called again with the same t. */
bool cm_talk_read(cm_talk *t, const char *s, size_t n, bool pair);
/* What kind of data one JSON value is: CM_SHARD_SFT, CM_SHARD_DPO, or CM_SHARD_LM where it
 * has the field `text` or is nothing that cm_talk_read knows. */
cm_shard_kind cm_talk_kind(const char *s, size_t n, const char *text);
/* Bytes of all its texts; the hash of all of it, and of what comes before the first answer:
 * conversations that begin alike belong on the same side of a split. */
uint64_t cm_talk_bytes(const cm_talk *t);
void cm_talk_hash(const cm_talk *t, char whole[65], char opening[65]);

#endif
