/* chat_task_test.c -- tasks in chat: prompts as turns, answers with reasoning, drawn answers. */
#include "tests/unit/task_fixture.h"

#define CHOICE "task:\n  data: [c.jsonl]\n  prompt: \"{q}\"\n  choices: [c]\n  gold: g\n"

TEST(chat_wants_markers) {
    open_model(false, 1000);
    settings.chat = true;
    put("c.jsonl", "{\"q\":\"x\",\"c\":[\"a\",\"b\"],\"g\":0}\n");
    cm_eval_task t;
    cm_err err;
    CHECK(!make(&t, CHOICE, &err) && err.code == CM_EXIT_USAGE);
    CHECKF(strstr(err.msg, "task t asks in chat, but the tokenizer lacks control pieces of the "
                  "chat template: <|system|> <|user|>"), "%s", err.msg);
    settings.chat = false;
    must(&t, CHOICE); /* and only chat does */
    cm_task_close(&t);
    cm_spm_close(model.spm);
}

/* What the model reads of item 0 of a generate task with these keys. */
static void chat_reads(const char *keys, const char *want) {
    cm_eval_task t;
    put("g.jsonl", "{\"q\":\"ab\",\"a\":\"<think>x</think>the\"}\n"
                   "{\"q\":\"<|end|>\",\"a\":\"two\"}\n");
    char *yaml = cm_strf("task:\n  kind: generate\n  data: [g.jsonl]\n  prompt: \"{q}\"\n"
                         "  answer: \"{a}\"\n%s", keys);
    must(&t, yaml);
    char *got = shown(t.q[1].ask);
    CHECKF(!strcmp(got, want), "%s%s, wanted %s", keys, got, want);
    free(got);
    free(yaml);
    cm_task_close(&t);
}

TEST(chat_prompts_are_turns) {
    open_model(true, 1000);
    chat_reads("", "<s><|end|>");
    /* The text that spells a control piece is text: the piece itself would stop here. */
    chat_reads("  chat: true\n", "<s><|user|><|end|><|end|><|assistant|>");
    chat_reads("  chat: true\n  shots: 1\n  primer: \"th \"\n  system: \"b\"\n",
               "<s><|system|>b<|end|><|user|>th ab<|end|><|assistant|><think>x</think>the<|end|>"
               "<|user|><|end|><|end|><|assistant|>");
    chat_reads("  chat: true\n  think: none\n",
               "<s><|user|><|end|><|end|><|assistant|><think></think>");
    settings.chat = true;
    chat_reads("", "<s><|user|><|end|><|end|><|assistant|>");
    chat_reads("  chat: false\n", "<s><|end|>");
    cm_eval_task t;
    must(&t, "task:\n  kind: generate\n  data: [g.jsonl]\n  prompt: \"{q}\"\n"
             "  answer: \"{a}\"\n");
    const cm_ask *a = t.q[1].ask;
    int ends = 0, end = cm_spm_id(model.spm, "<|end|>");
    for (int i = 0; i < a->n; i++) ends += a->token[i] == end;
    CHECKF(ends == 1, "%d end tokens", ends);
    CHECKF(!strcmp(t.q[1].prompt, "<|user|><|end|><|end|><|assistant|>"), "%s", t.q[1].prompt);
    cm_task_close(&t);
    settings.chat = false;
    cm_err err;
    CHECK(!make(&t, "task:\n  kind: generate\n  data: [g.jsonl]\n  answer: x\n  system: x\n",
                &err) && err.code == CM_EXIT_USAGE);
    CHECKF(strstr(err.msg, "task.system: means nothing outside of chat"), "%s", err.msg);
    cm_spm_close(model.spm);
}

/* Scores of an answer made of these texts; a NULL stands for <think>, "/" for </think>. */
static cm_item chat_answer(const char *keys, const char *const *part, int n) {
    cm_eval_task t;
    put("g.jsonl", "{\"q\":\"ab\",\"a\":\"15\"}\n");
    char *yaml = cm_strf("task:\n  kind: generate\n  data: [g.jsonl]\n  prompt: \"{q}\"\n"
                         "  answer: \"{a}\"\n  chat: true\n%s", keys);
    must(&t, yaml);
    free(yaml);
    cm_voice v;
    cm_voice_open(&v, model.spm, &t.in->chat, t.c->stop.v, t.c->stop.n);
    int32_t *id = NULL;
    int64_t n_id = 0, cap = 0;
    cm_err err;
    for (int i = 0; i < n && !v.ended; i++) {
        n_id = 0;
        if (part[i] && *part[i] != '/')
            CHECK(cm_spm_encode(model.spm, part[i], strlen(part[i]), &id, &n_id, &cap, &err));
        else cm_voice_token(&v, part[i] ? t.in->chat.unthink : t.in->chat.think);
        for (int64_t k = 0; k < n_id && !v.ended; k++) cm_voice_token(&v, id[k]);
    }
    if (!v.ended) cm_voice_finish(&v);
    cm_ask *a = t.q->ask;
    a->text = v.text.s;
    a->bytes = v.text.n;
    a->reply = cm_voice_reply(&v);
    a->thought = v.thought;
    a->open = v.thinking;
    a->ended = v.ended;
    cm_item it = score(&t, 0);
    free(id);
    cm_voice_close(&v);
    cm_task_close(&t);
    return it;
}

TEST(reasoning_is_dropped_before_the_checker) {
    open_model(true, 1000);
    static const struct {
        const char *keys, *part[8];
        int n;
        double match, parsed, thought, answered;
    } c[] = {
        { "", { "15" }, 1, 1, 1, 0, 1 },
        { "", { NULL, "28 - 13 = 15", "/", "15" }, 4, 1, 1, 1, 1 },
        { "", { NULL, "28 - 13", "/", "16" }, 4, 0, 1, 1, 1 },
        { "  think: keep\n", { NULL, "15", "/", "15" }, 4, 0, 1, 1, 1 },
        { "", { NULL, "15" }, 2, 0, 0, 0, 0 },                 /* never closed */
        { "", { NULL, "x", "/", "15", NULL, "y" }, 6, 0, 0, 1, 0 }, /* opened again */
        { "", { NULL, "x", "/", "9", NULL, "y", "/", "15" }, 8, 1, 1, 1, 1 },
        { "", { NULL, "x", "/" }, 3, 0, 0, 1, 0 },             /* nothing behind it */
        { "", { "<think>x</think>15" }, 1, 0, 1, 0, 1 },       /* spelled out is text */
        { "  stop: [\"b\"]\n", { NULL, "aab", "15" }, 3, 0, 0, 0, 0 },
        { "  stop: [\"xy\"]\n", { NULL, "x", "/", "y15" }, 4, 0, 1, 1, 1 },
        { "  stop: [\"xy\"]\n", { "15x" }, 1, 0, 1, 0, 1 },
        { "  filter: '#(\\d+)'\n", { NULL, "#15", "/", "#15" }, 4, 1, 1, 1, 1 },
        { "  filter: '#(\\d+)'\n", { NULL, "#15", "/", "15" }, 4, 0, 0, 1, 0 },
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        cm_item it = chat_answer(c[i].keys, c[i].part, c[i].n);
        const char *const name[] = { "exact_match", "parsed", "thought", "answered" };
        const double want[] = { c[i].match, c[i].parsed, c[i].thought, c[i].answered };
        for (int k = 0; k < 4; k++)
            CHECKF(score_of(&it, name[k]) == want[k], "case %zu: %s %g, wanted %g", i, name[k],
                   score_of(&it, name[k]), want[k]);
    }
    cm_spm_close(model.spm);
}

TEST(temperature_of_answers) {
    open_model(true, 1000);
    put("g.jsonl", "{\"q\":\"ab\",\"a\":\"15\"}\n");
    static const char yaml[] = "task:\n  kind: generate\n  data: [g.jsonl]\n  prompt: \"{q}\"\n"
                               "  answer: \"{a}\"\n  temperature: 0.5\n";
    const struct { double said, want; } c[] = { { -1, 0.5 }, { 0, 0 }, { 1, 1 } };
    for (int i = 0; i < 3; i++) {
        cm_eval_task t;
        settings.temperature = c[i].said;
        must(&t, yaml);
        CHECK(t.how.temperature == c[i].want && t.how.top_p == 1 && t.how.repeat_penalty == 1);
        cm_task_close(&t);
    }
    settings.temperature = 0;
    cm_spm_close(model.spm);
}
