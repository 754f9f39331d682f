/* chat.c -- the chat template: turns to tokens with masks, and the same in Jinja. */
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

const char *const cm_role_names[3] = { "system", "user", "assistant" };

/* A role's marker is never spelled out here: llama.cpp's old C interface guesses a template
 * by searching for such markers and would take this one for Phi-3's, which has line breaks
 * in it.  Unknown, it is refused there; the Jinja engines render it. */
static const char jinja[] =
    "{{- bos_token -}}\n"
    "{%- for message in messages -%}\n"
    "{%- if message.role not in ['system', 'user', 'assistant'] -%}\n"
    "{{- raise_exception('no such role in this chat template: ' + message.role) -}}\n"
    "{%- endif -%}\n"
    "{{- '<|' + message.role + '|>' -}}\n"
    "{%- if message.role == 'assistant' and message.reasoning_content -%}\n"
    "{{- '<think>' + message.reasoning_content + '</think>' -}}\n"
    "{%- endif -%}\n"
    "{{- message.content + '<|end|>' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|' + 'assistant' + '|>' -}}\n"
    "{%- endif -%}\n";

/* Ids of the markers, -1 for a piece that is absent or no control piece. */
static int find_markers(const cm_spm *spm, int32_t id[6], cm_buf *missing) {
    static const char *const marker[] = { CM_CHAT_MARKERS };
    int found = 0;
    for (int i = 0; i < 6; i++) {
        cm_piece_type type = CM_PIECE_UNUSED;
        id[i] = cm_spm_id(spm, marker[i]);
        if (id[i] >= 0) cm_spm_piece(spm, id[i], NULL, &type);
        bool good = type == CM_PIECE_CONTROL; /* others could be spelled by a text */
        found += good;
        if (!good && missing)
            cm_buf_addf(missing, "%s%s", missing->n ? " " : "", marker[i]);
    }
    return found;
}

bool cm_chat_open(cm_chat *c, const cm_spm *spm, cm_err *err) {
    int32_t id[6];
    cm_buf missing = { 0 };
    if (find_markers(spm, id, &missing) < 6) {
        cm_fail(err, CM_EXIT_USAGE, "the tokenizer lacks control pieces of the chat "
                "template: %s; chat needs a model whose vocabulary has them", missing.s);
        cm_buf_free(&missing);
        return false;
    }
    *c = (cm_chat){ { id[0], id[1], id[2] }, id[3], id[4], id[5], cm_spm_bos(spm) };
    return true;
}

bool cm_turn_answer(cm_turn *t, const char *s, size_t n) {
    static const char open[] = "<think>", close[] = "</think>";
    const size_t head = sizeof open - 1, tail = sizeof close - 1;
    *t = (cm_turn){ .role = CM_ROLE_ASSISTANT, .text = s, .n = n };
    if (n < head || memcmp(s, open, head)) return true;
    t->think = s + head;
    t->text = memmem(t->think, n - head, close, tail);
    if (!t->text) return false;
    t->n_think = (size_t)(t->text - t->think);
    t->text += tail;
    t->n = n - head - t->n_think - tail;
    return true;
}

int cm_chat_parts(const cm_chat *c, const cm_turn *t, bool trained, cm_chat_part *out) {
    bool mine = trained && t->role == CM_ROLE_ASSISTANT;
    cm_mask answer = mine ? CM_MASK_ANSWER : CM_MASK_NONE;
    cm_mask reason = mine ? CM_MASK_REASONING : CM_MASK_NONE;
    int n = 0;
    out[n++] = (cm_chat_part){ c->role[t->role], NULL, 0, CM_MASK_NONE };
    if (t->think) {
        out[n++] = (cm_chat_part){ c->think, NULL, 0, reason };
        out[n++] = (cm_chat_part){ -1, t->think, t->n_think, reason };
        out[n++] = (cm_chat_part){ c->unthink, NULL, 0, reason };
    }
    out[n++] = (cm_chat_part){ -1, t->text, t->n, answer };
    out[n++] = (cm_chat_part){ c->end, NULL, 0, answer };
    return n;
}

/* The array for ids grew by itself while encoding; the masks follow it. */
static void mask_from(cm_chat_ids *x, int64_t from, cm_mask mask) {
    uint8_t *m = realloc(x->mask, (size_t)x->cap + 1);
    CM_ASSERT(m, "out of memory: %lld tokens", (long long)x->n);
    x->mask = m;
    memset(x->mask + from, mask, (size_t)(x->n - from));
}

static void add_control(cm_chat_ids *x, int32_t id, cm_mask mask) {
    if (x->n == x->cap) {
        x->cap = 2 * x->cap + 64;
        int32_t *bigger = realloc(x->id, (size_t)x->cap * sizeof *x->id);
        CM_ASSERT(bigger, "out of memory: %lld tokens", (long long)x->n);
        x->id = bigger;
    }
    x->id[x->n++] = id;
    mask_from(x, x->n - 1, mask);
}

bool cm_chat_render(const cm_chat *c, const cm_spm *spm, const cm_turn *turn, int n_turn,
                    bool reply, cm_chat_ids *x, cm_err *err) {
    if (c->bos >= 0) add_control(x, c->bos, CM_MASK_NONE);
    for (int t = 0; t < n_turn; t++) {
        cm_chat_part part[CM_CHAT_PARTS];
        int n = cm_chat_parts(c, &turn[t], true, part);
        for (int i = 0; i < n; i++) {
            int64_t from = x->n;
            if (part[i].control >= 0) {
                add_control(x, part[i].control, part[i].mask);
                continue;
            }
            if (!cm_spm_encode(spm, part[i].s, part[i].n, &x->id, &x->n, &x->cap, err))
                return false;
            mask_from(x, from, part[i].mask);
        }
    }
    if (reply) add_control(x, c->role[CM_ROLE_ASSISTANT], CM_MASK_NONE);
    return true;
}

void cm_chat_ids_free(cm_chat_ids *x) {
    free(x->id);
    free(x->mask);
    *x = (cm_chat_ids){ 0 };
}

const char *cm_chat_jinja(const cm_spm *spm) {
    int32_t id[6];
    return find_markers(spm, id, NULL) == 6 ? jinja : NULL;
}
