/* chat_test.c -- the chat template token by token, and every form that turns come in. */
#include "tests/t.h"
#include "text/corpus.h"
#include "text/talk.h"

#include <stdlib.h>
#include <string.h>

/* ---- the template ---- */

/* A vocabulary written down: unk, BOS, EOS, the six markers (3 to 8), bytes (9 to 264), and
 * the letters a (265), b (266) and the space (267). */
enum { SYS = 3, USER, BOT, END, THINK, UNTHINK, BYTE0, A = BYTE0 + 256, B, SPACE, VOCAB };
static cm_spm *handmade(cm_piece_type markers, bool bos) {
    const char *const text[] = { "<unk>", bos ? "<s>" : "<b>", "</s>", CM_CHAT_MARKERS };
    const char *piece[VOCAB];
    size_t len[VOCAB];
    float score[VOCAB];
    int type[VOCAB];
    static char byte[256][8];
    for (int i = 0; i < VOCAB; i++) {
        piece[i] = i < BYTE0 ? text[i] : i == A ? "a" : i == B ? "b" : "\xE2\x96\x81";
        type[i] = i == 0 ? CM_PIECE_UNKNOWN : i < SYS ? CM_PIECE_CONTROL
                  : i < BYTE0 ? (int)markers : i < A ? CM_PIECE_BYTE : CM_PIECE_NORMAL;
        if (i >= BYTE0 && i < A) {
            snprintf(byte[i - BYTE0], 8, "<0x%02X>", (unsigned)(i - BYTE0) & 255u);
            piece[i] = byte[i - BYTE0];
        }
        len[i] = strlen(piece[i]);
        score[i] = (float)-i;
    }
    cm_buf proto = { 0 };
    cm_err err;
    bool ok = cm_spm_build(piece, len, score, type, VOCAB, bos ? 1 : -1, 2, 0, -1, false,
                           &proto, &err);
    cm_spm *s = ok ? cm_spm_open_bytes(proto.s, proto.n, &err) : NULL;
    CM_ASSERT(s, "no vocabulary: %s", err.msg);
    cm_buf_free(&proto);
    return s;
}

static cm_turn turn(cm_role role, const char *text, const char *think) {
    return (cm_turn){ role, text, think, strlen(text), think ? strlen(think) : 0 };
}

static void renders(const cm_spm *spm, const cm_turn *t, int n, bool reply, int want_n,
                    const int32_t *id, const char *mask) {
    cm_chat c;
    cm_err err;
    cm_chat_ids x = { 0 };
    CHECK(cm_chat_open(&c, spm, &err) && cm_chat_render(&c, spm, t, n, reply, &x, &err));
    CHECKF(x.n == want_n, "%lld tokens, want %d", (long long)x.n, want_n);
    for (int i = 0; i < want_n && i < x.n; i++)
        CHECKF(x.id[i] == id[i] && x.mask[i] == mask[i] - '0', "token %d: %d mask %d, want %d "
               "mask %c", i, x.id[i], x.mask[i], id[i], mask[i]);
    cm_chat_ids_free(&x);
}
#define RENDERS(turns, reply, mask, ...)                                                \
    renders(spm, turns, sizeof turns / sizeof *turns, reply,                            \
            sizeof((int32_t[]){ __VA_ARGS__ }) / 4, (int32_t[]){ __VA_ARGS__ }, mask)

TEST(turns_become_these_tokens_with_these_masks) {
    cm_spm *spm = handmade(CM_PIECE_CONTROL, true);
    cm_turn one[] = { turn(CM_ROLE_USER, "ab", NULL), turn(CM_ROLE_ASSISTANT, "b", NULL) };
    RENDERS(one, false, "000000" "11", 1, USER, A, B, END, BOT, B, END);
    cm_turn two[] = { turn(CM_ROLE_SYSTEM, "a", NULL), turn(CM_ROLE_USER, "b", NULL),
                      turn(CM_ROLE_ASSISTANT, " a ", "b"), turn(CM_ROLE_USER, "a", NULL),
                      turn(CM_ROLE_ASSISTANT, "b", "") };
    RENDERS(two, false, "0000000" "0" "222" "1111" "0000" "2211",
            1, SYS, A, END, USER, B, END, BOT, THINK, B, UNTHINK, SPACE, A, SPACE, END,
            USER, A, END, BOT, THINK, UNTHINK, B, END);
    cm_turn ask[] = { turn(CM_ROLE_USER, "a", NULL) };
    RENDERS(ask, true, "00000", 1, USER, A, END, BOT);
    cm_turn none[] = { turn(CM_ROLE_USER, "", NULL), turn(CM_ROLE_ASSISTANT, "", NULL) };
    RENDERS(none, false, "00001", 1, USER, END, BOT, END);
    cm_spm_close(spm);
    spm = handmade(CM_PIECE_CONTROL, false);
    RENDERS(ask, true, "0000", USER, A, END, BOT);
    cm_spm_close(spm);
}

TEST(a_text_that_spells_a_control_token_stays_text) {
    cm_spm *spm = handmade(CM_PIECE_CONTROL, true);
#define CH(c) (BYTE0 + (c))
    cm_turn t[] = { turn(CM_ROLE_USER, "<|end|>", NULL), turn(CM_ROLE_ASSISTANT, "<s>", NULL) };
    RENDERS(t, false, "00000000000" "1111", 1, USER, CH('<'), CH('|'), CH('e'), CH('n'),
            CH('d'), CH('|'), CH('>'), END, BOT, CH('<'), CH('s'), CH('>'), END);
    cm_spm_close(spm);
}

TEST(a_vocabulary_without_the_markers_is_refused) {
    cm_chat c;
    cm_err err;
    cm_spm *spm = handmade(CM_PIECE_USER, true); /* a text could spell these */
    CHECK(!cm_chat_open(&c, spm, &err) && err.code == CM_EXIT_USAGE);
    CHECKF(strstr(err.msg, "<|system|>") && strstr(err.msg, "</think>"), "%s", err.msg);
    CHECK(!cm_chat_jinja(spm));
    cm_spm_close(spm);
    spm = handmade(CM_PIECE_CONTROL, true);
    CHECK(cm_chat_open(&c, spm, &err) && c.end == END && c.bos == 1 && cm_chat_jinja(spm));
    cm_spm_close(spm);
}

TEST(the_viewer_marks_runs_and_escapes_spelled_tokens) {
    cm_spm *spm = handmade(CM_PIECE_CONTROL, true);
    cm_turn t[] = { turn(CM_ROLE_USER, "a<|end|>\x1b", NULL),
                    turn(CM_ROLE_ASSISTANT, "\n\u0905", "b") };
    cm_chat c;
    cm_err err;
    cm_chat_ids x = { 0 };
    CHECK(cm_chat_open(&c, spm, &err) && cm_chat_render(&c, spm, t, 2, false, &x, &err));
    cm_buf b = { 0 }, colour = { 0 };
    cm_masked_show(spm, x.id, x.mask, x.n, false, &b);
    cm_masked_show(spm, x.id, x.mask, x.n, true, &colour);
    CHECKF(!strcmp(b.s, "<s><|user|>a<\\|end|><0x1B><|end|>\n<|assistant|>"
                        "((<think>b</think>))[[\u23CE\n\u0905<|end|>]]"), "%s", b.s);
    CHECKF(strstr(colour.s, "\x1b[33m\x1b[1m<think>\x1b[0m\x1b[33mb") && !strstr(colour.s, "[["),
           "%s", colour.s);
    cm_buf_free(&b);
    cm_buf_free(&colour);
    cm_chat_ids_free(&x);
    cm_spm_close(spm);
}

/* ---- forms ---- */

static cm_talk talk;

/* "user: hi|assistant: (why) yes", or how "code: sentence" of a refusal begins. */
static void reads(bool pair, const char *json, const char *want) {
    cm_buf b = { 0 };
    cm_buf_add(&b, "", 0);
    bool ok = cm_talk_read(&talk, json, strlen(json), pair);
    if (!ok)
        cm_buf_addf(&b, "%s: %s", cm_reject_name(talk.reject), talk.why);
    else
        for (int i = 0; i < talk.n; i++) {
            const cm_turn *u = &talk.turn[i];
            cm_buf_addf(&b, "%s%s: ", i ? "|" : "", cm_role_names[u->role]);
            if (u->think) cm_buf_addf(&b, "(%.*s)", (int)u->n_think, u->think);
            cm_buf_add(&b, u->text, u->n);
        }
    CHECKF(ok ? !strcmp(b.s, want) : !strncmp(b.s, want, strlen(want)),
           "%s\n  gave %s\n  want %s", json, b.s, want);
    cm_buf_free(&b);
}
#define CHAT(json, want) reads(false, json, want)
#define PAIR(json, want) reads(true, json, want)
#define U(s) "{\"role\":\"user\",\"content\":\"" s "\"}"
#define S(s) "{\"role\":\"assistant\",\"content\":\"" s "\"}"
#define MESSAGES(m) "{\"messages\":[" m "]}"

TEST(every_form_of_chat) {
    CHAT(MESSAGES(U("hi") "," S("yes")), "user: hi|assistant: yes");
    CHAT(MESSAGES("{\"role\":\"system\",\"content\":\"s\"}," U("\\u0905\\n") "," S(" y ") ","
                  U("more") "," S("no")),
         "system: s|user: \u0905\n|assistant:  y |user: more|assistant: no");
    CHAT(MESSAGES("{\"role\":\"system\",\"content\":\"\"}," U("a") "," S("b")),
         "user: a|assistant: b");
    CHAT("{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\","
         "\"value\":\"r\"}],\"system\":\"be\"}", "system: be|user: q|assistant: r");
    CHAT("{\"instruction\":\"do\",\"input\":\"it\",\"output\":\"done\"}",
         "user: do\n\nit|assistant: done");
    CHAT("{\"instruction\":\"do\",\"input\":\" \",\"output\":\"done\",\"history\":[]}",
         "user: do|assistant: done");
    CHAT("{\"prompt\":\"p\",\"response\":\"r\"}", "user: p|assistant: r");
    CHAT("{\"prompt\":\"p\",\"completion\":\"r\"}", "user: p|assistant: r");
    CHAT("{\"question\":\"p\",\"answer\":\"r\"}", "user: p|assistant: r");
    CHAT("{\"question\":\"p\",\"answer\":\"<think>w</think>\\nr\"}",
         "user: p|assistant: (w)\nr");
    CHAT(MESSAGES(U("a") ",{\"role\":\"assistant\",\"reasoning_content\":\"w\",\"content\":"
                  "\"b\"}"), "user: a|assistant: (w)b");
    CHAT(MESSAGES(U("<think>a</think>") "," S("b <think>")),
         "user: <think>a</think>|assistant: b <think>");
    CHAT(MESSAGES(U("a") "," S("up to </think>")), "user: a|assistant: up to </think>");
    CHAT(MESSAGES(U("a") "," S("<think>w</think>b</think>")),
         "user: a|assistant: (w)b</think>");
    CHAT(MESSAGES(U("a") ",{\"role\":\"assistant\",\"content\":\"b\",\"weight\":1}"),
         "user: a|assistant: b");
}

TEST(what_is_no_conversation_says_why) {
    CHAT("{", "bad-json: column 2");
    CHAT("[1]", "bad-json: not a JSON object");
    CHAT("{\"messages\":1,\"a\":2,\"a\":3}", "bad-json: column");
    CHAT("{\"text\":\"x\"}", "missing-field: no conversation");
    CHAT("{\"instruction\":\"a\",\"output\":null}", "missing-field: 'output' is not a string");
    CHAT("{\"instruction\":3,\"output\":\"b\"}", "missing-field: the question");
    CHAT("{\"instruction\":\"a\",\"input\":[1],\"output\":\"b\"}", "missing-field: 'input'");
    CHAT(MESSAGES("7"), "missing-field: turn 1 is not an object");
    CHAT(MESSAGES("{\"content\":\"x\"}"), "missing-field: turn 1 has no role");
    CHAT(MESSAGES(U("a") ",{\"role\":\"assistant\",\"content\":[]}"),
         "missing-field: turn 2 has no content");
    CHAT(MESSAGES(U("a") ",{\"role\":\"tool\",\"content\":\"x\"}"),
         "unknown-role: turn 2: unknown role 'tool'");
    CHAT(MESSAGES(""), "no-assistant: no assistant turn");
    CHAT(MESSAGES(U("a")), "no-assistant: no assistant turn");
    CHAT(MESSAGES(S("a")), "turn-order: turn 1 is the assistant's");
    CHAT(MESSAGES(U("a") "," U("b") "," S("c")), "turn-order: turn 2 is the user's");
    CHAT(MESSAGES(U("a") "," S("b") "," U("c")), "turn-order: ends with");
    CHAT(MESSAGES(U("a") "," S("b") ",{\"role\":\"system\",\"content\":\"s\"}," S("c")),
         "turn-order: turn 3 is the system's");
    CHAT(MESSAGES(U("a") "," S(" \\n\\t")), "empty-answer: turn 2");
    CHAT(MESSAGES(U("a") "," S("<think>w</think> ")), "empty-answer: turn 2");
    CHAT(MESSAGES(U(" ") "," S("b")), "empty-prompt: turn 1");
    CHAT(MESSAGES(U("a") "," S("<think>w")), "open-think: turn 2");
    CHAT(MESSAGES(U("a") "," S(" <think>w</think>b")), "open-think: turn 2: white space");
    CHAT(MESSAGES(U("a") "," S("b\\u0000c")), "bad-text: turn 2: zero byte");
    CHAT(MESSAGES(U("a") ",{\"role\":\"assistant\",\"content\":\"b\",\"tool_calls\":[1]}"),
         "unsupported: turn 2 has 'tool_calls'");
    CHAT(MESSAGES(U("a") ",{\"role\":\"assistant\",\"content\":\"b\",\"weight\":0}"),
         "unsupported: turn 2 has a weight");
    CHAT(MESSAGES(U("a") ",{\"role\":\"assistant\",\"reasoning\":\"w\",\"content\":"
                  "\"<think>b</think>c\"}"), "unsupported: turn 2");
    CHAT("{\"instruction\":\"a\",\"output\":\"b\",\"history\":[[\"c\",\"d\"]]}",
         "unsupported: has a 'history'");
    CHAT("{\"messages\":[" U("a") "," S("b") "],\"label\":false}", "unsupported: marked");
}

TEST(every_form_of_preference) {
    static const char want[] = "user: p|assistant: yes|assistant: no";
    PAIR("{\"prompt\":\"p\",\"chosen\":\"yes\",\"rejected\":\"no\"}", want);
    PAIR("{\"prompt\":[" U("p") "],\"chosen\":[" S("yes") "],\"rejected\":[" S("no") "]}", want);
    PAIR("{\"chosen\":[" U("p") "," S("yes") "],\"rejected\":[" U("p") "," S("no") "]}", want);
    PAIR("{\"prompt\":\"p\",\"chosen\":[" U("p") "," S("yes") "],\"rejected\":[" U("p") ","
         S("no") "]}", want);
    PAIR("{\"conversations\":[{\"from\":\"human\",\"value\":\"p\"}],\"chosen\":{\"from\":"
         "\"gpt\",\"value\":\"yes\"},\"rejected\":{\"from\":\"gpt\",\"value\":\"no\"}}", want);
    PAIR("{\"chosen\":\"\\n\\nHuman: p\\n\\nAssistant: yes\",\"rejected\":\"\\n\\nHuman: p"
         "\\n\\nAssistant: no\"}", want);
    PAIR("{\"prompt\":\"\\n\\nHuman: p\\n\\nAssistant:\",\"chosen\":\"yes\",\"rejected\":"
         "\"no\"}", want);
    PAIR("{\"instruction\":\"i\",\"input\":\"j\",\"output\":\"o\",\"chosen\":\"y\",\"rejected\":"
         "\"n\"}", "user: i\n\nj|assistant: y|assistant: n");
    PAIR("{\"chosen\":\"\\n\\nHuman: p\\n\\nAssistant: r\\n\\nHuman: q\\n\\nAssistant:  y\","
         "\"rejected\":\"\\n\\nHuman: p\\n\\nAssistant: r\\n\\nHuman: q\\n\\nAssistant:n\"}",
         "user: p|assistant: r|user: q|assistant:  y|assistant: n");
    PAIR("{\"system\":\"s\",\"prompt\":\"p\",\"chosen\":\"<think>a</think>y\",\"rejected\":"
         "\"y\"}", "system: s|user: p|assistant: (a)y|assistant: y");
}

TEST(what_is_no_preference_says_why) {
    PAIR("{\"prompt\":\"p\",\"chosen\":\"y\"}", "missing-field: no preference");
    PAIR("{\"prompt\":\"p\",\"chosen\":3,\"rejected\":\"n\"}", "missing-field: 'chosen' is not a "
         "string, nor a message or a list of them");
    PAIR("{\"chosen\":\"y\",\"rejected\":\"n\"}", "missing-field: no prompt");
    PAIR("{\"system\":\"s\",\"chosen\":[" U("p") "," S("y") "],\"rejected\":[" U("p") ","
         S("n") "]}", "missing-field: a system text");
    PAIR("{\"prompt\":\"p\",\"chosen\":\"y\",\"rejected\":\"y\"}", "equal-answers: chosen");
    PAIR("{\"prompt\":\"p\",\"chosen\":\"y\",\"rejected\":\" \"}", "empty-answer: turn 3");
    PAIR("{\"prompt\":\"p\",\"chosen\":[],\"rejected\":\"n\"}", "no-assistant: a side");
    PAIR("{\"chosen\":[" U("p") "," S("y") "],\"rejected\":[" U("q") "," S("n") "]}",
         "different-prompts: chosen");
    PAIR("{\"chosen\":[" U("p") "," S("y") "],\"rejected\":[" U("p") "," S("a") "," U("b") ","
         S("n") "]}", "different-prompts: chosen");
    PAIR("{\"prompt\":\"p\",\"chosen\":[" U("q") "," S("y") "],\"rejected\":\"n\"}",
         "different-prompts: chosen");
    PAIR("{\"prompt\":\"p\",\"chosen\":[" U("y") "],\"rejected\":[" U("n") "]}",
         "no-assistant: no assistant");
    PAIR("{\"prompt\":\"p\",\"chosen\":\"y\",\"rejected\":[" U("n") "]}",
         "turn-order: the rejected answer");
    PAIR("{\"prompt\":[" U("p") "," S("a") "],\"chosen\":\"y\",\"rejected\":\"n\"}",
         "turn-order: turn 3");
}

TEST(the_kind_of_a_value_is_told_by_its_fields) {
    static const struct { const char *json; cm_shard_kind kind; } cases[] = {
        { "{\"text\":\"x\",\"messages\":[]}", CM_SHARD_LM }, { "{\"messages\":[]}", CM_SHARD_SFT },
        { "{\"prompt\":\"p\",\"chosen\":1,\"rejected\":2}", CM_SHARD_DPO }, { "{", CM_SHARD_LM },
        { "{\"question\":1,\"answer\":2}", CM_SHARD_SFT }, { "{\"prompt\":\"p\"}", CM_SHARD_LM },
        { "[]", CM_SHARD_LM },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECKF(cm_talk_kind(cases[i].json, strlen(cases[i].json), "text") == cases[i].kind,
               "%s", cases[i].json);
}

TEST(hashes_tell_conversations_and_openings_apart) {
    static const char *const json[] = {
        MESSAGES(U("a") "," S("b")), MESSAGES(U("a") "," S("c")), MESSAGES(U("ab") "," S("b")),
        MESSAGES(U("a") "," S("b") "," U("c") "," S("d")),
        MESSAGES(U("a") "," S("<think></think>b")),
    };
    enum { N = sizeof json / sizeof *json };
    char whole[N][65], opening[N][65];
    for (int i = 0; i < N; i++) {
        CHECK(cm_talk_read(&talk, json[i], strlen(json[i]), false));
        cm_talk_hash(&talk, whole[i], opening[i]);
        for (int k = 0; k < i; k++) {
            CHECKF(strcmp(whole[i], whole[k]), "%d and %d", i, k);
            CHECK(!strcmp(opening[i], opening[k]) == (i != 2 && k != 2));
        }
    }
    cm_talk_free(&talk);
}
