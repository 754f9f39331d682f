/* talk.c -- the forms in which conversations and preferences come, each to turns.
 *
 * A form is found by the fields of each line, so one file may mix them.  Whatever is in the
 * data and cannot be kept (tool calls, message weights) makes the line refused: a dropped
 * field would be a silent change of meaning. */
#include "text/talk.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RUN = 1 << 20 }; /* as in docs.c: what BPE can take in one piece */

const char *cm_reject_name(cm_reject r) {
    static const char *const name[] = {
#define X(id, word) word,
        CM_REJECTS(X)
#undef X
    };
    return name[r];
}

/* A question and its answer as two fields; the first whose two are there is taken. */
static const struct { const char *ask, *answer; } pairs[] = {
    { "instruction", "output" }, { "prompt", "response" }, { "prompt", "completion" },
    { "question", "answer" },
};
enum { N_PAIRS = sizeof pairs / sizeof *pairs };

static bool CM_PRINTF(3, 4) refuse(cm_talk *t, cm_reject r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(t->why, sizeof t->why, fmt, ap);
    va_end(ap);
    t->reject = r;
    return false;
}

/* ---- the tree ---- */

static int get(const cm_talk *t, int node, const char *name) {
    return cm_json_tree_get(&t->json, node, name);
}

static cm_json_type type_of(const cm_talk *t, int node) {
    return node < 0 ? CM_JSON_NULL : t->json.node[node].type;
}

static bool is_str(const cm_talk *t, int node) { return type_of(t, node) == CM_JSON_STRING; }

/* The bytes of a string; *n = 0 where the node is none. */
static const char *str(const cm_talk *t, int node, size_t *n) {
    *n = is_str(t, node) ? t->json.node[node].n : 0;
    return is_str(t, node) ? t->json.text.s + t->json.node[node].at : "";
}

static bool says(const cm_talk *t, int node, const char *word) {
    size_t n;
    const char *s = str(t, node, &n);
    return n == strlen(word) && !memcmp(s, word, n);
}

/* There, and neither null nor empty. */
static bool holds(const cm_talk *t, int node) {
    cm_json_type type = type_of(t, node);
    if (type == CM_JSON_STRING) return t->json.node[node].n > 0;
    if (type == CM_JSON_ARRAY || type == CM_JSON_OBJECT) return t->json.node[node].count > 0;
    return type != CM_JSON_NULL;
}

static bool blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", s[i]) || !s[i]) return false;
    return true;
}

/* ---- turns ---- */

static cm_turn *add_turn(cm_talk *t, cm_role role, const char *s, size_t n) {
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 16;
        t->turn = realloc(t->turn, (size_t)t->cap * sizeof *t->turn);
        CM_ASSERT(t->turn, "out of memory: %d turns", t->cap);
    }
    t->turn[t->n] = (cm_turn){ .role = role, .text = s, .n = n };
    return &t->turn[t->n++];
}

static bool starts(const char *s, size_t n, const char *with) {
    return n >= strlen(with) && !memcmp(s, with, strlen(with));
}

/* White space before <think>: reasoning that would be learned as text of the answer. */
static bool late_marker(const char *s, size_t n) {
    size_t white = 0;
    while (white < n && strchr(" \t\r\n", s[white])) white++;
    return white && starts(s + white, n - white, "<think>");
}

static bool add_answer(cm_talk *t, const char *s, size_t n) {
    if (late_marker(s, n))
        return refuse(t, CM_REJECT_THINK, "turn %d: white space before <think>", t->n + 1);
    return cm_turn_answer(add_turn(t, CM_ROLE_ASSISTANT, s, n), s, n) ||
           refuse(t, CM_REJECT_THINK, "turn %d: <think> without </think>", t->n);
}

static bool role_of(cm_talk *t, int node, cm_role *role) {
    static const struct { const char *name; cm_role role; } known[] = {
        { "system", CM_ROLE_SYSTEM }, { "user", CM_ROLE_USER }, { "human", CM_ROLE_USER },
        { "assistant", CM_ROLE_ASSISTANT }, { "gpt", CM_ROLE_ASSISTANT },
    };
    size_t n;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (says(t, node, known[i].name)) {
            *role = known[i].role;
            return true;
        }
    if (!is_str(t, node))
        return refuse(t, CM_REJECT_MISSING, "turn %d has no role", t->n + 1);
    const char *s = str(t, node, &n);
    return refuse(t, CM_REJECT_ROLE, "turn %d: unknown role '%.*s'", t->n + 1,
                  n < 40 ? (int)n : 40, s);
}

/* What a message may hold beside role and content and we cannot keep. */
static bool plain_message(cm_talk *t, int node) {
    static const char *const extra[] = { "tool_calls", "function_call", "tool_call_id" };
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++)
        if (holds(t, get(t, node, extra[i])))
            return refuse(t, CM_REJECT_UNSUPPORTED, "turn %d has '%s'", t->n + 1, extra[i]);
    int w = get(t, node, "weight");
    const cm_json_node *k = &t->json.node[w < 0 ? 0 : w];
    if (w >= 0 && strcmp(t->json.text.s + k->at, "1") && strcmp(t->json.text.s + k->at, "1.0"))
        return refuse(t, CM_REJECT_UNSUPPORTED, "turn %d has a weight other than 1", t->n + 1);
    return true;
}

/* {"role": ..., "content": ...} or {"from": ..., "value": ...}. */
static bool add_message(cm_talk *t, int node) {
    int who = get(t, node, "role"), what = get(t, node, "content");
    if (who < 0) who = get(t, node, "from");
    if (what < 0) what = get(t, node, "value");
    cm_role role = CM_ROLE_USER;
    if (type_of(t, node) != CM_JSON_OBJECT)
        return refuse(t, CM_REJECT_MISSING, "turn %d is not an object", t->n + 1);
    if (!role_of(t, who, &role) || !plain_message(t, node)) return false;
    if (!is_str(t, what))
        return refuse(t, CM_REJECT_MISSING, "turn %d has no content that is a string",
                      t->n + 1);
    size_t n, m;
    const char *s = str(t, what, &n);
    if (role == CM_ROLE_SYSTEM && !n) return true;
    if (role != CM_ROLE_ASSISTANT) return add_turn(t, role, s, n), true;
    int think = get(t, node, "reasoning_content");
    if (think < 0) think = get(t, node, "reasoning");
    if (!holds(t, think)) return add_answer(t, s, n);
    if (!is_str(t, think) || starts(s, n, "<think>"))
        return refuse(t, CM_REJECT_UNSUPPORTED, "turn %d: reasoning that is not a string, "
                      "or twice", t->n + 1);
    cm_turn *u = add_turn(t, role, s, n);
    u->think = str(t, think, &m);
    u->n_think = m;
    return true;
}

static bool add_list(cm_talk *t, int node) {
    for (int c = t->json.node[node].first; c >= 0; c = t->json.node[c].next)
        if (!add_message(t, c)) return false;
    return true;
}

/* ---- Anthropic's transcripts: "\n\nHuman: ...\n\nAssistant: ..." ---- */

static const char human[] = "\n\nHuman:", helper[] = "\n\nAssistant:";

static bool is_transcript(const cm_talk *t, int node) {
    size_t n;
    const char *s = str(t, node, &n);
    return starts(s, n, human);
}

static const char *next_marker(const char *p, const char *end) {
    const char *a = memmem(p, (size_t)(end - p), human, strlen(human));
    const char *b = memmem(p, (size_t)(end - p), helper, strlen(helper));
    if (!a || (b && b < a)) a = b;
    return a ? a : end;
}

static bool add_transcript(cm_talk *t, int node) {
    size_t n;
    const char *p = str(t, node, &n), *end = p + n;
    while (p < end) {
        bool ours = starts(p, (size_t)(end - p), helper);
        p += ours ? strlen(helper) : strlen(human);
        p += p < end && *p == ' ';
        const char *stop = next_marker(p, end);
        if (!ours) add_turn(t, CM_ROLE_USER, p, (size_t)(stop - p));
        else if (!add_answer(t, p, (size_t)(stop - p))) return false;
        p = stop;
    }
    return true;
}

/* ---- questions ---- */

static bool add_system(cm_talk *t) {
    int s = get(t, 0, "system");
    size_t n;
    if (holds(t, get(t, 0, "history")))
        return refuse(t, CM_REJECT_UNSUPPORTED, "has a 'history'; write it as messages");
    if (!holds(t, s)) return true;
    if (!is_str(t, s))
        return refuse(t, CM_REJECT_MISSING, "'system' is not a string");
    const char *text = str(t, s, &n);
    add_turn(t, CM_ROLE_SYSTEM, text, n);
    return true;
}

/* A field's text, with Alpaca's input below it. */
static bool add_question(cm_talk *t, int ask) {
    int input = get(t, 0, "input");
    size_t n, m;
    const char *a = str(t, ask, &n), *b = str(t, input, &m);
    if (!is_str(t, ask))
        return refuse(t, CM_REJECT_MISSING, "the question is not a string");
    if (holds(t, input) && !is_str(t, input))
        return refuse(t, CM_REJECT_MISSING, "'input' is not a string");
    if (!blank(b, m)) {
        t->joined.n = 0;
        cm_buf_add(&t->joined, a, n);
        cm_buf_add(&t->joined, "\n\n", 2);
        cm_buf_add(&t->joined, b, m);
        a = t->joined.s;
        n = t->joined.n;
    }
    add_turn(t, CM_ROLE_USER, a, n);
    return true;
}

static int list_field(const cm_talk *t) {
    int list = get(t, 0, "messages");
    if (type_of(t, list) != CM_JSON_ARRAY) list = get(t, 0, "conversations");
    return type_of(t, list) == CM_JSON_ARRAY ? list : -1;
}

/* Which of the pairs of fields is there, -1 for none. */
static int pair_fields(const cm_talk *t) {
    for (int i = 0; i < N_PAIRS; i++)
        if (get(t, 0, pairs[i].ask) >= 0 && get(t, 0, pairs[i].answer) >= 0) return i;
    return -1;
}

static bool read_chat(cm_talk *t) {
    int list = list_field(t), p = pair_fields(t);
    if (type_of(t, get(t, 0, "label")) == CM_JSON_BOOL &&
        t->json.text.s[t->json.node[get(t, 0, "label")].at] == 'f')
        return refuse(t, CM_REJECT_UNSUPPORTED, "marked as a bad example ('label' is false)");
    if (!add_system(t)) return false;
    if (list >= 0) return add_list(t, list);
    if (p < 0)
        return refuse(t, CM_REJECT_MISSING, "no conversation: wants messages, conversations, "
                      "or instruction and output (prompt and response, question and answer)");
    int answer = get(t, 0, pairs[p].answer);
    size_t n;
    const char *s = str(t, answer, &n);
    if (!is_str(t, answer))
        return refuse(t, CM_REJECT_MISSING, "'%s' is not a string", pairs[p].answer);
    return add_question(t, get(t, 0, pairs[p].ask)) && add_answer(t, s, n);
}

/* ---- preferences ---- */

/* The turns that both answers share, where they stand apart from the answers. */
static bool read_prompt(cm_talk *t) {
    int list = list_field(t), prompt = get(t, 0, "prompt");
    if (!add_system(t)) return false;
    if (type_of(t, prompt) == CM_JSON_ARRAY) list = prompt;
    if (list >= 0) return add_list(t, list);
    if (is_transcript(t, prompt)) {
        if (!add_transcript(t, prompt)) return false;
        cm_turn *last = &t->turn[t->n - 1]; /* "...\n\nAssistant:", to be answered */
        t->n -= last->role == CM_ROLE_ASSISTANT && blank(last->text, last->n);
        return true;
    }
    for (int i = 0; prompt < 0 && i < N_PAIRS; i++) prompt = get(t, 0, pairs[i].ask);
    return prompt < 0 || add_question(t, prompt);
}

/* Chosen or rejected: an answer, a message, a whole conversation. */
static bool read_side(cm_talk *t, const char *field, bool alone) {
    int node = get(t, 0, field);
    size_t n;
    const char *s = str(t, node, &n);
    if (type_of(t, node) == CM_JSON_ARRAY) return add_list(t, node);
    if (type_of(t, node) == CM_JSON_OBJECT) return add_message(t, node);
    if (!is_str(t, node)) return refuse(t, CM_REJECT_MISSING, "'%s' is not a string, nor a "
                                       "message or a list of them", field);
    if (!alone) return add_answer(t, s, n);
    if (is_transcript(t, node)) return add_transcript(t, node);
    return refuse(t, CM_REJECT_MISSING, "no prompt, and '%s' is no transcript", field);
}

static bool same_turn(const cm_turn *a, const cm_turn *b) {
    return a->role == b->role && a->n == b->n && !memcmp(a->text, b->text, a->n) &&
           !a->think == !b->think && a->n_think == b->n_think &&
           (!a->think || !memcmp(a->think, b->think, a->n_think));
}

/* Turns [0,p) are the prompt, [p,c) the chosen side, [c,n) the rejected one: each side is
 * one answer, or the prompt (again) and one answer. */
static bool join_sides(cm_talk *t, int p, int c) {
    int a = c - p, b = t->n - c, common = p ? p : a - 1;
    if (!a || !b) return refuse(t, CM_REJECT_NO_ANSWER, "a side without turns");
    bool ok = (p && a == 1) || a == common + 1;
    ok = ok && ((p && b == 1) || b == common + 1);
    for (int i = 0; ok && a > 1 && i < a - 1; i++)
        ok = same_turn(&t->turn[p ? i : p + i], &t->turn[p + i]);
    for (int i = 0; ok && b > 1 && i < b - 1; i++)
        ok = same_turn(&t->turn[p ? i : p + i], &t->turn[c + i]);
    if (!ok)
        return refuse(t, CM_REJECT_PROMPTS, "chosen and rejected do not answer the same "
                      "conversation (%d and %d turns)", a, b);
    cm_turn won = t->turn[c - 1], lost = t->turn[t->n - 1];
    t->n = common;
    *add_turn(t, won.role, "", 0) = won;
    *add_turn(t, lost.role, "", 0) = lost;
    return true;
}

static bool read_pair(cm_talk *t) {
    if (get(t, 0, "chosen") < 0 || get(t, 0, "rejected") < 0)
        return refuse(t, CM_REJECT_MISSING, "no preference: wants chosen and rejected");
    if (!read_prompt(t)) return false;
    int p = t->n;
    bool alone = !p || (p == 1 && t->turn[0].role == CM_ROLE_SYSTEM);
    if (!read_side(t, "chosen", alone)) return false;
    int c = t->n;
    if (!read_side(t, "rejected", alone)) return false;
    if (!alone || !p) return join_sides(t, p, c);
    return refuse(t, CM_REJECT_MISSING, "a system text, but no prompt");
}

/* ---- judgement ---- */

static bool fit_to_encode(cm_talk *t, int i, const char *s, size_t n) {
    size_t run = 0;
    for (size_t k = 0; k < n; k++) {
        run = s[k] == ' ' || s[k] == '\n' ? 0 : run + 1;
        if (!s[k]) return refuse(t, CM_REJECT_BAD_TEXT, "turn %d: zero byte in the text", i + 1);
        if (run > MAX_RUN)
            return refuse(t, CM_REJECT_BAD_TEXT, "turn %d: more than %d bytes without a "
                          "space or line break", i + 1, MAX_RUN);
    }
    return true;
}

static bool judge_text(cm_talk *t, int i) {
    const cm_turn *u = &t->turn[i];
    if (u->role == CM_ROLE_ASSISTANT && blank(u->text, u->n))
        return refuse(t, CM_REJECT_EMPTY, "turn %d: the assistant's answer is empty", i + 1);
    if (u->role == CM_ROLE_USER && blank(u->text, u->n))
        return refuse(t, CM_REJECT_EMPTY_PROMPT, "turn %d: the user's text is empty", i + 1);
    return fit_to_encode(t, i, u->text, u->n) && fit_to_encode(t, i, u->think, u->n_think);
}

/* system? then user and assistant in turn; *first: index of the first user's. */
static bool in_order(cm_talk *t, int n, int *first) {
    *first = n > 0 && t->turn[0].role == CM_ROLE_SYSTEM;
    for (int i = *first; i < n; i++) {
        cm_role want = (i - *first) % 2 ? CM_ROLE_ASSISTANT : CM_ROLE_USER;
        if (t->turn[i].role != want)
            return refuse(t, CM_REJECT_ORDER, "turn %d is the %s's, wanted the %s's", i + 1,
                          cm_role_names[t->turn[i].role], cm_role_names[want]);
    }
    return true;
}

/* system? (user assistant)+, where the last assistant turn of a pair is two answers. */
static bool judge(cm_talk *t, bool pair) {
    int n = t->n - pair, first, answers = 0;
    for (int i = 0; i < t->n; i++) answers += t->turn[i].role == CM_ROLE_ASSISTANT;
    if (!answers) return refuse(t, CM_REJECT_NO_ANSWER, "no assistant turn");
    if (!in_order(t, n, &first)) return false;
    if ((n - first) % 2)
        return refuse(t, CM_REJECT_ORDER, "ends with a turn of the user's");
    if (pair && t->turn[n].role != CM_ROLE_ASSISTANT)
        return refuse(t, CM_REJECT_ORDER, "the rejected answer is the %s's",
                      cm_role_names[t->turn[n].role]);
    for (int i = 0; i < t->n; i++)
        if (!judge_text(t, i)) return false;
    if (pair && same_turn(&t->turn[n - 1], &t->turn[n]))
        return refuse(t, CM_REJECT_EQUAL, "chosen and rejected are equal");
    return true;
}

bool cm_talk_read(cm_talk *t, const char *s, size_t n, bool pair) {
    cm_err err;
    t->n = 0;
    if (!cm_json_tree_read(&t->json, s, n, &err))
        return refuse(t, CM_REJECT_BAD_JSON, "%.150s", err.msg);
    if (t->json.node[0].type != CM_JSON_OBJECT)
        return refuse(t, CM_REJECT_BAD_JSON, "not a JSON object");
    return (pair ? read_pair(t) : read_chat(t)) && judge(t, pair);
}

bool cm_talk_read_prompt(cm_talk *t, const char *s, size_t n) {
    cm_err err;
    int first;
    t->n = 0;
    if (!cm_json_tree_read(&t->json, s, n, &err))
        return refuse(t, CM_REJECT_BAD_JSON, "%.150s", err.msg);
    cm_json_type type = t->json.node[0].type;
    if (type != CM_JSON_OBJECT && type != CM_JSON_ARRAY)
        return refuse(t, CM_REJECT_BAD_JSON, "not a JSON object or array");
    if (!(type == CM_JSON_ARRAY ? add_list(t, 0) : read_prompt(t)) || !in_order(t, t->n, &first))
        return false;
    if ((t->n - first) % 2 == 0)
        return refuse(t, CM_REJECT_ORDER, t->n ? "ends with the assistant's turn; nothing is to "
                      "be answered" : "no turn of the user's");
    for (int i = 0; i < t->n; i++)
        if (!judge_text(t, i)) return false;
    return true;
}

void cm_talk_free(cm_talk *t) {
    free(t->turn);
    cm_json_tree_free(&t->json);
    cm_buf_free(&t->joined);
    *t = (cm_talk){ 0 };
}

/* ---- about it ---- */

cm_shard_kind cm_talk_kind(const char *s, size_t n, const char *text) {
    cm_talk t = { 0 };
    cm_err err;
    cm_shard_kind kind = CM_SHARD_LM;
    if (cm_json_tree_read(&t.json, s, n, &err) && get(&t, 0, text) < 0) {
        if (get(&t, 0, "chosen") >= 0 && get(&t, 0, "rejected") >= 0) kind = CM_SHARD_DPO;
        else if (list_field(&t) >= 0 || pair_fields(&t) >= 0) kind = CM_SHARD_SFT;
    }
    cm_talk_free(&t);
    return kind;
}

uint64_t cm_talk_bytes(const cm_talk *t) {
    uint64_t n = 0;
    for (int i = 0; i < t->n; i++) n += t->turn[i].n + t->turn[i].n_think;
    return n;
}

/* Lengths go first, so that no two conversations have the same bytes. */
static void hash_turn(cm_sha *sha, const cm_turn *u) {
    uint64_t head[3] = { (uint64_t)u->role + (u->think ? 16 : 0), u->n_think, u->n };
    uint8_t b[24];
    for (int i = 0; i < 24; i++) b[i] = (uint8_t)(head[i / 8] >> 8 * (i % 8));
    cm_sha_add(sha, b, sizeof b);
    if (u->think) cm_sha_add(sha, u->think, u->n_think);
    cm_sha_add(sha, u->text, u->n);
}

void cm_talk_hash(const cm_talk *t, char whole[65], char opening[65]) {
    cm_sha *a = cm_sha_open(), *b = cm_sha_open();
    bool open = true;
    for (int i = 0; i < t->n; i++) {
        open = open && t->turn[i].role != CM_ROLE_ASSISTANT;
        hash_turn(a, &t->turn[i]);
        if (open) hash_turn(b, &t->turn[i]);
    }
    cm_sha_close(a, whole);
    cm_sha_close(b, opening);
}
