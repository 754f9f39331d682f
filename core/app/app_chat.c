/* app_chat.c -- generate --chat: questions from the command line, a file or a person; answers. */
#include "app/app.h"
#include "model/model.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    cm_app_ctx *app;
    const cm_loaded *l;
    cm_err *unkept;
    int sample;
    cm_dialog d;
    cm_voice v;
    cm_talk talk;          /* turns of --messages */
    cm_turn turn[2];       /* else the system's and the user's */
    const cm_turn *ask;    /* what is said next */
    int n_ask;
    char *line;            /* the user's text */
    size_t cap;
    bool colour, hide;     /* reasoning is dimmed; is not shown */
    bool dim;              /* right now */
    size_t shown;          /* of the voice's text */
} chat;

/* Colours where a person looks on, unless they said no (no-color.org). */
static bool wants_colour(void) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

static void show_chat(chat *k, const cm_voice *v) {
    if (k->app->json) return;
    if (k->hide && v->thinking) k->shown = v->text.n;
    if (k->hide && k->shown < v->reply) k->shown = v->reply;
    if (k->colour && v->thinking && !k->dim) fputs("\x1b[2m", stdout);
    if (v->thinking) k->dim = k->colour;
    fwrite(v->text.s + k->shown, 1, v->text.n - k->shown, stdout);
    k->shown = v->text.n;
    if (k->dim && !v->thinking) fputs("\x1b[0m", stdout);
    k->dim = k->dim && v->thinking;
    fflush(stdout);
}

static bool each_token(void *ctx, const cm_voice *v) {
    show_chat(ctx, v);
    return !cm_signal_stop();
}

/* The first closed block's text, where the answer begins with one. */
static void put_think(const cm_voice *v, cm_buf *b) {
    cm_turn u;
    if (!v->thought || !cm_turn_answer(&u, v->text.s, v->text.n) || !u.think) return;
    cm_json_bytes(b, "think", u.think, u.n_think);
}

static void answer_json(const chat *k, int64_t from, const char *why, const cm_guess_count *c) {
    cm_buf b = { 0 };
    const cm_turn *user = &k->ask[k->n_ask - 1];
    const char *reply = cm_voice_reply(&k->v), *all = k->v.text.s;
    cm_json_open(&b, NULL, '{');
    cm_json_bytes(&b, "prompt", user->text, user->n);
    cm_json_bytes(&b, "text", all, k->v.text.n);
    put_think(&k->v, &b);
    cm_json_bytes(&b, "answer", reply, k->v.text.n - (size_t)(reply - all));
    cm_json_str(&b, "end", why);
    cm_json_open(&b, "tokens", '[');
    for (int64_t i = from; i < k->d.n; i++) cm_json_i64(&b, NULL, k->d.id[i]);
    cm_json_close(&b, '[');
    cm_app_guesses_json(&b, c);
    cm_json_print(&b);
}

/* Answer what is asked. */
static bool answer(chat *k, cm_err *err) {
    const cm_generate_conf *g = &k->app->conf.generate;
    cm_sampling how = cm_app_sampling(k->app, k->sample);
    cm_err why = { 0 };
    if (!cm_dialog_say(&k->d, k->ask, k->n_ask, err)) return false;
    if (cm_app_text(k->app, "prompt-cache") && !k->d.dec.fed &&
        !cm_app_read_cached(k->app, &k->d.dec, k->d.id, k->d.n, k->l->id, k->unkept, &why) &&
        !cm_signal_ended(&why))
        return cm_fail(err, why.code, "%s", why.msg);
    int64_t from = k->d.n;
    cm_guess_count before = k->d.dec.count;
    double t0 = cm_now();
    cm_voice_open(&k->v, k->l->spm, &k->d.chat, g->stop.v, g->stop.n);
    k->shown = 0;
    bool ok = cm_dialog_answer(&k->d, &how, g->max_tokens, &k->v, each_token, k, &why);
    const char *end = cm_signal_stop() ? "interrupted" : !k->v.ended ? "length"
                      : k->v.stopped ? "stop" : "end";
    if (ok) show_chat(k, &k->v);
    if (k->dim) fputs("\x1b[0m", stdout);
    k->dim = false;
    cm_guess_count mine = cm_guess_since(&k->d.dec.count, &before);
    if (ok && k->app->json) answer_json(k, from, end, &mine);
    if (ok && !k->app->json) puts("");
    cm_log(CM_LOG_INFO, "%lld tokens at %.1f tokens/s%s", (long long)(k->d.n - from),
           (double)(k->d.n - from) / (cm_now() - t0),
           !strcmp(end, "length") ? "; cut off (generate.max_tokens, or the context is full)" : "");
    cm_app_log_guesses(&mine);
    cm_voice_close(&k->v);
    return ok || cm_fail(err, why.code, "%s: %s", cm_app_text(k->app, "model"), why.msg);
}

static bool good_text(const char *what, const char *s, size_t n, cm_err *err) {
    size_t bad;
    if (!cm_utf8_valid(s, n, &bad))
        return cm_fail(err, CM_EXIT_DATA, "%s: invalid UTF-8 at byte %zu", what, bad);
    if (memchr(s, 0, n)) return cm_fail(err, CM_EXIT_DATA, "%s: a zero byte", what);
    return true;
}

/* The system's turn, where there is one, and the user's. */
static void ask_text(chat *k, const char *s, size_t n, bool first) {
    const char *system = cm_app_text(k->app, "system");
    k->n_ask = 0;
    if (first && system)
        k->turn[k->n_ask++] = (cm_turn){ CM_ROLE_SYSTEM, system, NULL, strlen(system), 0 };
    k->turn[k->n_ask++] = (cm_turn){ CM_ROLE_USER, s, NULL, n, 0 };
    k->ask = k->turn;
}

static bool ask_messages(chat *k, const char *path, cm_err *err) {
    char *s = NULL;
    size_t n;
    const char *name = strcmp(path, "-") ? path : "stdin";
    if (cm_app_text(k->app, "system"))
        return cm_fail(err, CM_EXIT_USAGE, "--system: messages have their own system turn");
    bool ok = cm_app_read_named(path, &s, &n, err) && good_text(name, s, n, err);
    if (ok && !cm_talk_read_prompt(&k->talk, s, n))
        ok = cm_fail(err, CM_EXIT_DATA, "%s: %s", name, k->talk.why);
    k->ask = k->talk.turn;
    k->n_ask = k->talk.n;
    free(s);
    return ok;
}

/* One question from the command line, as often as samples are wanted. */
static bool chat_once(chat *k, cm_err *err) {
    cm_signals_install();
    for (k->sample = 0; k->sample < k->app->conf.generate.samples; k->sample++) {
        cm_dialog_reset(&k->d);
        if (!answer(k, err)) return false;
        if (cm_signal_stop()) return true;
    }
    return true;
}

/* A line of the user's without its end; false at the end of input. */
static bool next_line(chat *k, bool person, size_t *n) {
    if (person) fputs("> ", stdout);
    fflush(stdout);
    ssize_t got = getline(&k->line, &k->cap, stdin);
    if (got < 0 && person) puts("");
    if (got < 0) return false;
    while (got && isspace((unsigned char)k->line[got - 1])) got--;
    k->line[got] = 0;
    *n = (size_t)got;
    return true;
}

/* Ctrl-C ends an answer; where nothing is being answered, the program. */
static bool chat_lines(chat *k, bool person, cm_err *err) {
    cm_err why;
    size_t n;
    if (person)
        cm_log(CM_LOG_INFO, "/quit or the end of input ends it, /new begins anew, Ctrl-C stops an "
               "answer");
    for (bool first = true;;) {
        cm_signals_release();
        if (!next_line(k, person, &n) || !strcmp(k->line, "/quit")) return true;
        if (!n) continue;
        if (!strcmp(k->line, "/new")) {
            cm_dialog_reset(&k->d);
            first = true;
            continue;
        }
        cm_signals_install_as("stopping the answer");
        ask_text(k, k->line, n, first);
        bool ok = good_text("the question", k->line, n, &why) && answer(k, &why);
        if (!ok && !first && why.code == CM_EXIT_USAGE) /* answers were given: no wrong usage */
            cm_fail(&why, CM_EXIT_FAIL, "%s; /new begins anew", why.msg);
        if (ok) first = false;
        else if (person && why.code != CM_EXIT_RESOURCE) cm_log(CM_LOG_WARN, "%s", why.msg);
        else return cm_fail(err, why.code, "%s", why.msg);
        if (!person && cm_signal_stop()) return true;
    }
}

/* What is asked, and how large the conversation may get. */
static bool open_chat(chat *k, const cm_model *draft, bool *talks, cm_err *err) {
    cm_app_ctx *app = k->app;
    const char *text = cm_app_text(app, "prompt"), *file = cm_app_text(app, "prompt-file");
    const char *messages = cm_app_text(app, "messages");
    int64_t cap = k->l->model.conf.context, bytes = 0;
    *talks = !text && !file && !messages;
    if ((text != NULL) + (file != NULL) + (messages != NULL) > 1)
        return cm_fail(err, CM_EXIT_USAGE, "--chat takes one of --prompt, --prompt-file and "
                       "--messages; without them it reads lines from stdin");
    if (*talks && app->conf.generate.samples != 1)
        return cm_fail(err, CM_EXIT_USAGE, "generate.samples: a conversation has one");
    const char *system = cm_app_text(app, "system");
    if (system && !good_text("--system", system, strlen(system), err)) return false;
    if (messages && !ask_messages(k, messages, err)) return false;
    if (file) {
        size_t n;
        if (!cm_app_read_named(file, &k->line, &n, err) || !good_text(file, k->line, n, err))
            return false;
        text = k->line;
    }
    if (text) ask_text(k, text, strlen(text), true);
    if (text && (!*text || !good_text("--prompt", text, strlen(text), err)))
        return *text ? false : cm_fail(err, CM_EXIT_USAGE, "the prompt is empty");
    for (int i = 0; i < k->n_ask; i++) bytes += (int64_t)(k->ask[i].n + k->ask[i].n_think) + 8;
    if (bytes + app->conf.generate.max_tokens > cap && !*talks)
        cap = bytes + app->conf.generate.max_tokens; /* a token is a byte at least */
    if (cap > INT32_MAX / 4) cap = INT32_MAX / 4;
    cm_guessing how = cm_app_guessing(app, draft);
    return cm_dialog_open(&k->d, &k->l->model, k->l->spm, &how, (int)cap,
                          cm_kv_choice(app->conf.generate.kv, &k->l->model), err);
}

bool cm_app_chat(cm_app_ctx *app, const cm_loaded *l, const cm_model *draft, cm_err *unkept,
                 cm_err *err) {
    static const char *const foreign[] = { "tokens", "logits", "echo" };
    chat k = { .app = app, .l = l, .unkept = unkept, .hide = cm_app_switch(app, "hide-think"),
               .colour = wants_colour() };
    bool talks, ok = true, person = isatty(STDIN_FILENO) && !app->json;
    for (int i = 0; ok && i < 3; i++)
        if (cm_app_switch(app, foreign[i]))
            ok = cm_fail(err, CM_EXIT_USAGE, "--%s means nothing with --chat", foreign[i]);
    if (ok && app->conf.generate.ignore_eos)
        ok = cm_fail(err, CM_EXIT_USAGE, "generate.ignore_eos: an answer ends where it ends");
    if (ok && !l->spm)
        ok = cm_fail(err, CM_EXIT_DATA, "the model has no tokenizer, so it cannot talk");
    ok = ok && open_chat(&k, draft, &talks, err);
    if (ok && app->dry_run) {
        ok = talks || cm_dialog_say(&k.d, k.ask, k.n_ask, err);
        if (ok) cm_app_decoding_plan(app, &l->model, k.d.n, k.d.dec.s.cap);
    } else if (ok) {
        ok = talks ? chat_lines(&k, person, err) : chat_once(&k, err);
    }
    cm_dialog_close(&k.d);
    cm_talk_free(&k.talk);
    free(k.line);
    return ok;
}
