/* generate.c -- continue a prompt with a checkpoint or GGUF model, or talk with it. */
#include "app/app.h"
#include "model/model.h"
#include "text/talk.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    int32_t *id;
    int64_t n, cap;
} tokens;

typedef struct {
    cm_app_ctx *app;
    cm_loaded l, draft;
    cm_decoder d;
    tokens prompt, text; /* text: prompt and what was added */
    const char *prompt_text;
    int sample;
    double prefill_s, decode_s;
    int64_t decoded;
} job;

static void push(tokens *t, int32_t id) {
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 256;
        t->id = realloc(t->id, (size_t)t->cap * sizeof *t->id);
        CM_ASSERT(t->id, "out of memory for %lld tokens", (long long)t->cap);
    }
    t->id[t->n++] = id;
}

/* ---- the prompt ------------------------------------------------------------------------ */

static bool parse_ids(const char *list, tokens *out, cm_err *err) {
    for (const char *p = list; *p;) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || (*end && *end != ',') || v < 0 || v > INT32_MAX)
            return cm_fail(err, CM_EXIT_USAGE,
                           "--tokens: wanted ids separated by commas, found '%.20s'", p);
        push(out, (int32_t)v);
        p = *end ? end + 1 : end;
    }
    return out->n ? true : cm_fail(err, CM_EXIT_USAGE, "--tokens: the list is empty");
}

static bool encode_prompt(job *j, const char *text, size_t n, cm_err *err) {
    if (!j->l.spm)
        return cm_fail(err, CM_EXIT_DATA,
                       "the model has no tokenizer; give token ids with --tokens");
    size_t bad;
    if (!cm_utf8_valid(text, n, &bad))
        return cm_fail(err, CM_EXIT_DATA, "the prompt: invalid UTF-8 at byte %zu", bad);
    int bos = cm_spm_bos(j->l.spm);
    if (bos >= 0) push(&j->prompt, bos);
    if (!cm_spm_encode(j->l.spm, text, n, &j->prompt.id, &j->prompt.n, &j->prompt.cap, err))
        return false;
    return j->prompt.n ? true : cm_fail(err, CM_EXIT_USAGE, "the prompt is empty");
}

/* A file that the user named; - is stdin.  *s: free(). */
static bool read_named(const char *path, char **s, size_t *n, cm_err *err) {
    bool in = !strcmp(path, "-");
    return (in || cm_need_input(path, err)) &&
           cm_read_file(in ? "/dev/stdin" : path, (size_t)1 << 28, s, n, err);
}

static bool read_prompt(job *j, cm_err *err) {
    const char *ids = cm_app_text(j->app, "tokens"), *text = cm_app_text(j->app, "prompt");
    const char *file = cm_app_text(j->app, "prompt-file");
    if ((ids != NULL) + (text != NULL) + (file != NULL) != 1)
        return cm_fail(err, CM_EXIT_USAGE,
                       "give the text to continue with one of --prompt, --prompt-file and "
                       "--tokens");
    if (ids) return parse_ids(ids, &j->prompt, err);
    j->prompt_text = text;
    if (text) return encode_prompt(j, text, strlen(text), err);
    char *bytes;
    size_t n;
    if (!read_named(file, &bytes, &n, err)) return false;
    bool ok = encode_prompt(j, bytes, n, err);
    free(bytes);
    return ok;
}

/* ---- --logits -------------------------------------------------------------------------- */

static bool write_logits(job *j, const char *path, cm_err *err) {
    int64_t V = j->l.model.conf.vocab_size, n = j->prompt.n;
    cm_real *all = malloc((size_t)(n * V) * sizeof *all);
    if (!all)
        return cm_fail(err, CM_EXIT_RESOURCE, "out of memory for %lld x %lld logits",
                       (long long)n, (long long)V);
    bool ok = cm_session_feed(&j->d.s, j->prompt.id, n, all, NULL, err) &&
              cm_write_file(path, all, (size_t)(n * V) * sizeof *all, err);
    free(all);
    return ok;
}

/* ---- generation ------------------------------------------------------------------------ */

static bool is_end(const job *j, int32_t id) {
    return j->l.spm && id == cm_spm_eos(j->l.spm) && !j->app->conf.generate.ignore_eos;
}

static void show(const job *j, cm_stream *st, cm_buf *whole) {
    cm_buf_add(whole, st->ready.s, st->ready.n);
    if (j->app->json || !st->ready.n) return;
    fwrite(st->ready.s, 1, st->ready.n, stdout);
    fflush(stdout);
}

static cm_sampling sampling(const job *j) {
    const cm_generate_conf *g = &j->app->conf.generate;
    uint64_t seed = (uint64_t)j->app->conf.top.seed + (uint64_t)j->sample * 0x9E3779B97F4A7C15u;
    return (cm_sampling){ g->temperature, g->top_k, g->top_p, g->min_p, g->repeat_penalty,
                          g->repeat_last, seed };
}

static cm_guessing guessing(const job *j) {
    const cm_generate_conf *g = &j->app->conf.generate;
    return (cm_guessing){ *g->draft ? &j->draft.model : NULL, (int)g->ngram,
                          (int)g->draft_tokens };
}

/* Decode until the end of text, a stop string or the limit; the reason. */
static const char *decode(job *j, cm_stream *st, cm_buf *whole, cm_err *err, bool *ok) {
    const cm_generate_conf *g = &j->app->conf.generate;
    cm_sampling how = sampling(j);
    cm_buf bytes = { 0 };
    cm_err broken;
    const char *why = "length";
    for (int64_t i = 0; i < g->max_tokens && !cm_signal_stop(); i++) {
        int32_t id;
        if (!cm_decoder_next(&j->d, &how, j->text.id, j->text.n, g->max_tokens - i, (uint64_t)i,
                             &id, &broken)) {
            *ok = cm_fail(err, broken.code, "%s: %s", cm_app_text(j->app, "model"), broken.msg);
            break;
        }
        if (is_end(j, id)) {
            why = "end";
            break;
        }
        push(&j->text, id);
        bytes.n = 0;
        cm_buf_add(&bytes, "", 0);
        if (j->l.spm) cm_spm_token_bytes(j->l.spm, id, &bytes);
        else cm_buf_addf(&bytes, "%d ", id);
        bool stopped = cm_stream_push(st, bytes.s, bytes.n);
        show(j, st, whole);
        if (stopped) {
            why = "stop";
            break;
        }
    }
    cm_buf_free(&bytes);
    return why;
}

static void print_json(const job *j, const cm_buf *whole, const char *why,
                       const cm_guess_count *c) {
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    if (j->prompt_text) cm_json_str(&b, "prompt", j->prompt_text);
    cm_json_str(&b, "text", whole->s ? whole->s : "");
    cm_json_str(&b, "end", why);
    cm_json_open(&b, "tokens", '[');
    for (int64_t i = j->prompt.n; i < j->text.n; i++) cm_json_i64(&b, NULL, j->text.id[i]);
    cm_json_close(&b, '[');
    cm_app_guesses_json(&b, c);
    cm_json_close(&b, '{');
    puts(b.s);
    cm_buf_free(&b);
}

static bool one_sample(job *j, cm_err *err) {
    cm_guess_count before = j->d.count;
    const char *cache = cm_app_text(j->app, "prompt-cache");
    cm_decoder_reset(&j->d);
    j->text.n = 0;
    for (int64_t i = 0; i < j->prompt.n; i++) push(&j->text, j->prompt.id[i]);
    double t0 = cm_now();
    if (cache ? !cm_app_read_cached(j->app, &j->d, j->prompt.id, j->prompt.n, j->l.id, err)
              : !cm_decoder_read(&j->d, j->prompt.id, j->prompt.n, err))
        return false;
    double t1 = cm_now();
    cm_stream st;
    cm_buf whole = { 0 };
    const cm_list *stop = &j->app->conf.generate.stop;
    cm_stream_open(&st, stop->v, stop->n);
    bool ok = true;
    const char *why = decode(j, &st, &whole, err, &ok);
    cm_stream_finish(&st);
    show(j, &st, &whole);
    cm_guess_count mine = cm_guess_since(&j->d.count, &before);
    if (ok && j->app->json) print_json(j, &whole, why, &mine);
    if (ok && !j->app->json) puts("");
    j->prefill_s += t1 - t0;
    j->decode_s += cm_now() - t1;
    j->decoded += j->text.n - j->prompt.n;
    cm_stream_close(&st);
    cm_buf_free(&whole);
    return ok;
}

static bool all_samples(job *j, cm_err *err) {
    const cm_generate_conf *g = &j->app->conf.generate;
    if (cm_app_switch(j->app, "echo") && j->prompt_text && !j->app->json)
        fputs(j->prompt_text, stdout);
    for (j->sample = 0; j->sample < g->samples && !cm_signal_stop(); j->sample++)
        if (!one_sample(j, err)) return false;
    cm_log(CM_LOG_INFO, "read %lld tokens at %.0f tokens/s, wrote %lld at %.1f tokens/s",
           (long long)(j->prompt.n * j->sample),
           (double)(j->prompt.n * j->sample) / j->prefill_s, (long long)j->decoded,
           (double)j->decoded / j->decode_s);
    cm_app_log_guesses(&j->d.count);
    return true;
}

/* cap: tokens that the session has room for. */
static void print_plan(const job *j, int cap) {
    const cm_model_conf *m = &j->l.model.conf;
    cm_dtype kv = cm_kv_choice(j->app->conf.generate.kv, &j->l.model);
    int64_t state = (int64_t)cm_state_bytes(m, 1, cap, kv);
    int64_t per_text = (int64_t)cm_snapshot_bytes(m);
    int64_t per_token = (int64_t)cm_state_token_bytes(m, kv);
    if (j->app->json) {
        cm_buf b = { 0 };
        cm_json_open(&b, NULL, '{');
        cm_json_i64(&b, "params", cm_model_count(m, false));
        cm_json_i64(&b, "params_active", cm_model_count(m, true));
        cm_json_i64(&b, "vocab", m->vocab_size);
        cm_json_i64(&b, "context", m->context);
        cm_json_i64(&b, "prompt_tokens", j->prompt.n);
        cm_json_i64(&b, "room_tokens", cap);
        cm_json_i64(&b, "state_bytes", state);
        cm_json_i64(&b, "snapshot_bytes", per_text);
        cm_json_str(&b, "kv", cm_kv_name(kv));
        cm_json_i64(&b, "kv_bytes_per_token", per_token);
        cm_json_close(&b, '{');
        puts(b.s);
        cm_buf_free(&b);
        return;
    }
    printf("parameters  %lld, %lld used by a token\nvocabulary  %lld\ncontext     %lld\n"
           "state       %lld bytes for %d tokens, %lld of them whatever the length\n"
           "keys/values %s, %lld bytes a token\nprompt      %lld tokens\n",
           (long long)cm_model_count(m, false), (long long)cm_model_count(m, true),
           (long long)m->vocab_size, (long long)m->context, (long long)state, cap,
           (long long)per_text, cm_kv_name(kv), (long long)per_token, (long long)j->prompt.n);
}

/* ---- --chat ------------------------------------------------------------------------------ */

typedef struct {
    job *j;
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
    if (k->j->app->json) return;
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
    char *think = cm_strf("%.*s", (int)u.n_think, u.think);
    cm_json_str(b, "think", think);
    free(think);
}

static void answer_json(const chat *k, int64_t from, const char *why, const cm_guess_count *c) {
    cm_buf b = { 0 };
    char *user = cm_strf("%.*s", (int)k->ask[k->n_ask - 1].n, k->ask[k->n_ask - 1].text);
    cm_json_open(&b, NULL, '{');
    cm_json_str(&b, "prompt", user);
    cm_json_str(&b, "text", k->v.text.s);
    put_think(&k->v, &b);
    cm_json_str(&b, "answer", cm_voice_reply(&k->v));
    cm_json_str(&b, "end", why);
    cm_json_open(&b, "tokens", '[');
    for (int64_t i = from; i < k->d.n; i++) cm_json_i64(&b, NULL, k->d.id[i]);
    cm_json_close(&b, '[');
    cm_app_guesses_json(&b, c);
    cm_json_close(&b, '{');
    puts(b.s);
    fflush(stdout);
    cm_buf_free(&b);
    free(user);
}

/* Answer what is asked. */
static bool answer(chat *k, cm_err *err) {
    const cm_generate_conf *g = &k->j->app->conf.generate;
    cm_sampling how = sampling(k->j);
    cm_err why = { 0 };
    if (!cm_dialog_say(&k->d, k->ask, k->n_ask, err)) return false;
    if (cm_app_text(k->j->app, "prompt-cache") && !k->d.dec.fed &&
        !cm_app_read_cached(k->j->app, &k->d.dec, k->d.id, k->d.n, k->j->l.id, err))
        return false;
    int64_t from = k->d.n;
    cm_guess_count before = k->d.dec.count;
    double t0 = cm_now();
    cm_voice_open(&k->v, k->j->l.spm, &k->d.chat, g->stop.v, g->stop.n);
    k->shown = 0;
    bool ok = cm_dialog_answer(&k->d, &how, g->max_tokens, &k->v, each_token, k, &why);
    const char *end = cm_signal_stop() ? "interrupted" : !k->v.ended ? "length"
                      : k->v.stopped ? "stop" : "end";
    if (ok) show_chat(k, &k->v);
    if (k->dim) fputs("\x1b[0m", stdout);
    k->dim = false;
    cm_guess_count mine = cm_guess_since(&k->d.dec.count, &before);
    if (ok && k->j->app->json) answer_json(k, from, end, &mine);
    if (ok && !k->j->app->json) puts("");
    cm_log(CM_LOG_INFO, "%lld tokens at %.1f tokens/s%s", (long long)(k->d.n - from),
           (double)(k->d.n - from) / (cm_now() - t0),
           !strcmp(end, "length") ? "; cut off (generate.max_tokens, or the context is full)" : "");
    cm_app_log_guesses(&mine);
    cm_voice_close(&k->v);
    return ok || cm_fail(err, why.code, "%s: %s", cm_app_text(k->j->app, "model"), why.msg);
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
    const char *system = cm_app_text(k->j->app, "system");
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
    if (cm_app_text(k->j->app, "system"))
        return cm_fail(err, CM_EXIT_USAGE, "--system: messages have their own system turn");
    bool ok = read_named(path, &s, &n, err) && good_text(name, s, n, err);
    if (ok && !cm_talk_read_prompt(&k->talk, s, n))
        ok = cm_fail(err, CM_EXIT_DATA, "%s: %s", name, k->talk.why);
    k->ask = k->talk.turn;
    k->n_ask = k->talk.n;
    free(s);
    return ok;
}

/* One question from the command line, as often as samples are wanted. */
static bool chat_once(chat *k, cm_err *err) {
    for (k->j->sample = 0; k->j->sample < k->j->app->conf.generate.samples; k->j->sample++) {
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
static bool open_chat(chat *k, bool *talks, cm_err *err) {
    cm_app_ctx *app = k->j->app;
    const char *text = cm_app_text(app, "prompt"), *file = cm_app_text(app, "prompt-file");
    const char *messages = cm_app_text(app, "messages");
    int64_t cap = k->j->l.model.conf.context, bytes = 0;
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
        if (!read_named(file, &k->line, &n, err) || !good_text(file, k->line, n, err))
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
    cm_guessing how = guessing(k->j);
    return cm_dialog_open(&k->d, &k->j->l.model, k->j->l.spm, &how, (int)cap,
                          cm_kv_choice(app->conf.generate.kv, &k->j->l.model), err);
}

static bool run_chat(job *j, cm_err *err) {
    static const char *const foreign[] = { "tokens", "logits", "echo" };
    chat k = { .j = j, .hide = cm_app_switch(j->app, "hide-think"), .colour = wants_colour() };
    bool talks, ok = true, person = isatty(STDIN_FILENO) && !j->app->json;
    for (int i = 0; ok && i < 3; i++)
        if (cm_app_switch(j->app, foreign[i]))
            ok = cm_fail(err, CM_EXIT_USAGE, "--%s means nothing with --chat", foreign[i]);
    if (ok && j->app->conf.generate.ignore_eos)
        ok = cm_fail(err, CM_EXIT_USAGE, "generate.ignore_eos: an answer ends where it ends");
    if (ok && !j->l.spm)
        ok = cm_fail(err, CM_EXIT_DATA, "the model has no tokenizer, so it cannot talk");
    ok = ok && open_chat(&k, &talks, err);
    if (ok && j->app->dry_run) {
        ok = talks || cm_dialog_say(&k.d, k.ask, k.n_ask, err);
        j->prompt.n = k.d.n;
        if (ok) print_plan(j, k.d.dec.s.cap);
    } else if (ok) {
        ok = talks ? chat_lines(&k, person, err) : chat_once(&k, err);
    }
    cm_dialog_close(&k.d);
    cm_talk_free(&k.talk);
    free(k.line);
    return ok;
}

static bool check_stops(const cm_generate_conf *g, cm_err *err) {
    for (int i = 0; i < g->stop.n; i++)
        if (!g->stop.v[i][0])
            return cm_fail(err, CM_EXIT_USAGE, "generate.stop: an empty string");
    return true;
}

/* The model, and the draft where there is one.  named: it will be asked for its id, which is to
 * tell apart what a prompt left in it as blocks and as floats. */
static bool load_models(job *j, const char *model, bool named, cm_err *err) {
    bool blocks = j->app->conf.generate.weights == CM_WEIGHTS_BLOCKS;
    unsigned how = (blocks ? CM_LOAD_BLOCKS : 0) | (named ? 0 : CM_LOAD_UNNAMED);
    if (!cm_load(&j->l, model, how, err)) return false;
    if (named && blocks && !strcmp(j->l.source, "gguf")) {
        char *id = cm_strf("%s blocks", j->l.id);
        cm_sha_bytes(id, strlen(id), j->l.id);
        free(id);
    }
    return !*j->app->conf.generate.draft || cm_app_load_draft(j->app, &j->draft, &j->l, err);
}

/* Nothing that is read may be written over. */
static bool check_apart(const cm_app_ctx *a, cm_err *err) {
    cm_app_file in[] = {{ "model", cm_app_text(a, "model") },
                        { "draft model", a->conf.generate.draft },
                        { "prompt's file", cm_app_text(a, "prompt-file") },
                        { "conversation", cm_app_text(a, "messages") }, { 0 }};
    cm_app_file out[] = {{ "--logits", cm_app_text(a, "logits") },
                         { "--prompt-cache", cm_app_text(a, "prompt-cache") }, { 0 }};
    return cm_app_apart(in, out, err);
}

static bool run_job(job *j, cm_err *err) {
    const char *model = cm_app_text(j->app, "model");
    const char *logits = cm_app_text(j->app, "logits");
    static const char *const of_chat[] = { "messages", "system", "hide-think" };
    bool talk = cm_app_switch(j->app, "chat");
    if (!model) return cm_fail(err, CM_EXIT_USAGE, "--model PATH is needed");
    for (int i = 0; i < 3 && !talk; i++)
        if (cm_app_switch(j->app, of_chat[i]))
            return cm_fail(err, CM_EXIT_USAGE, "--%s wants --chat", of_chat[i]);
    if (!check_stops(&j->app->conf.generate, err)) return false;
    bool named = cm_app_text(j->app, "prompt-cache");
    if (named && logits)
        return cm_fail(err, CM_EXIT_USAGE, "--prompt-cache means nothing with --logits");
    if (!check_apart(j->app, err) || !load_models(j, model, named, err)) return false;
    if (talk) return run_chat(j, err);
    if (!read_prompt(j, err)) return false;
    int64_t need = j->prompt.n + (logits ? 0 : j->app->conf.generate.max_tokens);
    cm_guessing how = guessing(j);
    if (need > j->l.model.conf.context)
        cm_log(CM_LOG_WARN, "%lld tokens exceed the context of %lld that the model promises",
               (long long)need, (long long)j->l.model.conf.context);
    cm_dtype kv = cm_kv_choice(j->app->conf.generate.kv, &j->l.model);
    if (!cm_decoder_open(&j->d, &j->l.model, &how, (int)need, kv, err)) return false;
    if (j->app->dry_run) return print_plan(j, (int)need), true;
    return logits ? write_logits(j, logits, err) : all_samples(j, err);
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    job j = { .app = ctx };
    cm_signals_install();
    bool ok = run_job(&j, err);
    cm_decoder_close(&j.d);
    cm_loaded_close(&j.draft);
    cm_loaded_close(&j.l);
    free(j.prompt.id);
    free(j.text.id);
    return ok;
}

int main(int argc, char **argv) {
    static const cm_app_opt options[] = {
        { "model", "PATH", "run, checkpoint, Hugging Face folder or GGUF file" },
        { "prompt", "TEXT", "text to continue" },
        { "prompt-file", "FILE", "the same, from a file; - is stdin" },
        { "tokens", "IDS", "token ids to continue, separated by commas, taken as they are" },
        { "prompt-cache", "PATH", "file, or folder of files, of prompts that were read before: "
          "the same text, sooner" },
        { "logits", "FILE", "write raw float32 logits [tokens][vocabulary] and stop" },
        { "echo", NULL, "print the prompt before its continuation" },
        { "chat", NULL, "talk: --prompt is the user's turn; without it lines of stdin are" },
        { "messages", "FILE", "with --chat: a JSON conversation to be answered; - is stdin" },
        { "system", "TEXT", "with --chat: the system's turn" },
        { "hide-think", NULL, "with --chat: do not show the reasoning" },
        { 0 },
    };
    return cm_app_main(argc, argv, &(cm_app){
        .name = "generate",
        .summary = "continue a text with a model, or talk with it",
        .examples =
            "  generate --model runs/demo/ckpt/latest --prompt 'Once upon a time'\n"
            "  generate --model demo.gguf --prompt 'One day' generate.temperature=0\n"
            "  generate --model runs/demo --tokens 1,267 --logits logits.f32\n"
            "  generate --model runs/demo --chat --prompt 'What is 28 - 13?'\n",
        .sections = "top generate",
        .options = options,
        .run = run,
    });
}
