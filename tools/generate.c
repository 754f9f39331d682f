/* generate.c -- continue a prompt with a checkpoint or GGUF model, or talk with it. */
#include "app/app.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    int32_t *id;
    int64_t n, cap;
} tokens;

typedef struct {
    cm_app_ctx *app;
    cm_loaded l, draft;
    cm_decoder d;
    tokens prompt, text; /* text: prompt and what was added */
    cm_buf said; /* the prompt as text; of --tokens what they spell */
    int sample;
    double prefill_s, decode_s;
    int64_t read, decoded; /* tokens */
    cm_err unkept; /* why the prompt cache could not be written */
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

/* What a token adds to a text; a number where no tokenizer says what it is. */
static void spell(const job *j, int32_t id, cm_buf *out) {
    if (j->l.spm) cm_spm_token_bytes(j->l.spm, id, out);
    else cm_buf_addf(out, "%d ", id);
}

static bool spell_ids(job *j, cm_err *err) {
    int64_t V = j->l.model.conf.vocab_size;
    for (int64_t i = 0; i < j->prompt.n; i++)
        if (j->prompt.id[i] >= V)
            return cm_fail(err, CM_EXIT_USAGE, "--tokens: id %d is outside the vocabulary 0..%lld",
                           j->prompt.id[i], (long long)V - 1);
    for (int64_t i = 0; i < j->prompt.n; i++) spell(j, j->prompt.id[i], &j->said);
    return true;
}

static bool encode_prompt(job *j, cm_err *err) {
    const char *text = j->said.s;
    size_t n = j->said.n;
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

static bool read_prompt(job *j, cm_err *err) {
    const char *ids = cm_app_text(j->app, "tokens"), *text = cm_app_text(j->app, "prompt");
    const char *file = cm_app_text(j->app, "prompt-file");
    if ((ids != NULL) + (text != NULL) + (file != NULL) != 1)
        return cm_fail(err, CM_EXIT_USAGE,
                       "give the text to continue with one of --prompt, --prompt-file and "
                       "--tokens");
    if (ids) return parse_ids(ids, &j->prompt, err) && spell_ids(j, err);
    if (text) cm_buf_addf(&j->said, "%s", text);
    else if (!cm_app_read_named(file, &j->said.s, &j->said.n, err)) return false;
    return encode_prompt(j, err);
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
    return ok || cm_signal_ended(err);
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

/* Decode until the end of text, a stop string, the limit or a signal; the reason. */
static const char *decode(job *j, cm_stream *st, cm_buf *whole, cm_err *err, bool *ok) {
    const cm_generate_conf *g = &j->app->conf.generate;
    cm_sampling how = cm_app_sampling(j->app, j->sample);
    cm_buf bytes = { 0 };
    cm_err broken;
    const char *why = "length";
    for (int64_t i = 0; i < g->max_tokens && !cm_signal_stop(); i++) {
        int32_t id;
        if (!cm_decoder_next(&j->d, &how, j->text.id, j->text.n, g->max_tokens - i, (uint64_t)i,
                             &id, &broken)) {
            if (!cm_signal_ended(&broken))
                *ok = cm_fail(err, broken.code, "%s: %s", cm_app_text(j->app, "model"),
                              broken.msg);
            break;
        }
        if (is_end(j, id)) {
            why = "end";
            break;
        }
        push(&j->text, id);
        bytes.n = 0;
        cm_buf_add(&bytes, "", 0);
        spell(j, id, &bytes);
        bool stopped = cm_stream_push(st, bytes.s, bytes.n);
        show(j, st, whole);
        if (stopped) {
            why = "stop";
            break;
        }
    }
    cm_buf_free(&bytes);
    return cm_signal_stop() ? "interrupted" : why;
}

static void print_json(const job *j, const cm_buf *whole, const char *why,
                       const cm_guess_count *c) {
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    cm_json_bytes(&b, "prompt", j->said.s, j->said.n);
    cm_json_bytes(&b, "text", whole->s, whole->n);
    cm_json_str(&b, "end", why);
    cm_json_open(&b, "tokens", '[');
    for (int64_t i = j->prompt.n; i < j->text.n; i++) cm_json_i64(&b, NULL, j->text.id[i]);
    cm_json_close(&b, '[');
    cm_app_guesses_json(&b, c);
    cm_json_print(&b);
}

static bool one_sample(job *j, cm_err *err) {
    cm_guess_count before = j->d.count;
    const char *cache = cm_app_text(j->app, "prompt-cache");
    cm_decoder_reset(&j->d);
    if (cm_app_switch(j->app, "echo")) fwrite(j->said.s, 1, j->said.n, stdout);
    fflush(stdout);
    j->text.n = 0;
    for (int64_t i = 0; i < j->prompt.n; i++) push(&j->text, j->prompt.id[i]);
    double t0 = cm_now();
    bool ok = cache ? cm_app_read_cached(j->app, &j->d, j->prompt.id, j->prompt.n, j->l.id,
                                         &j->unkept, err)
                    : cm_decoder_read(&j->d, j->prompt.id, j->prompt.n, err);
    if (!ok && !cm_signal_ended(err)) return false;
    double t1 = cm_now();
    cm_stream st;
    cm_buf whole = { 0 };
    const cm_list *stop = &j->app->conf.generate.stop;
    cm_stream_open(&st, stop->v, stop->n);
    ok = true;
    const char *why = decode(j, &st, &whole, err, &ok);
    cm_stream_finish(&st);
    show(j, &st, &whole);
    cm_guess_count mine = cm_guess_since(&j->d.count, &before);
    if (ok && j->app->json) print_json(j, &whole, why, &mine);
    if (ok && !j->app->json) puts("");
    j->read += j->d.fed < j->prompt.n ? j->d.fed : j->prompt.n;
    j->prefill_s += t1 - t0;
    j->decode_s += cm_now() - t1;
    j->decoded += j->text.n - j->prompt.n;
    cm_stream_close(&st);
    cm_buf_free(&whole);
    return ok;
}

static bool all_samples(job *j, cm_err *err) {
    const cm_generate_conf *g = &j->app->conf.generate;
    for (j->sample = 0; j->sample < g->samples && !cm_signal_stop(); j->sample++)
        if (!one_sample(j, err)) return false;
    cm_log(CM_LOG_INFO, "read %lld tokens at %.0f tokens/s, wrote %lld at %.1f tokens/s",
           (long long)j->read, (double)j->read / j->prefill_s, (long long)j->decoded,
           (double)j->decoded / j->decode_s);
    cm_app_log_guesses(&j->d.count);
    return true;
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

/* A cache that is not there yet can be made. */
static bool check_cache(const char *cache, cm_err *err) {
    struct stat st;
    if (!cache) return true;
    if (!*cache)
        return cm_fail(err, CM_EXIT_USAGE, "--prompt-cache: an empty path; name a file or "
                       "a folder");
    if (stat(cache, &st)) return cm_need_folder_of(cache, false, err);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return cm_fail(err, CM_EXIT_USAGE, "%s: --prompt-cache wants a file or a folder, this is "
                       "neither", cache);
    return S_ISDIR(st.st_mode) || cm_need_input(cache, err);
}

/* The whole text's keys and values, which an arena takes as they come. */
static bool check_memory(const job *j, int64_t n, cm_dtype kv, cm_err *err) {
    const cm_model_conf *c = &j->l.model.conf;
    bool logits = cm_app_text(j->app, "logits");
    if (!cm_state_fits(c, kv, err)) return false;
    double need = (double)cm_state_bytes(c, 1, (int)n, kv);
    if (logits) need += (double)n * (double)c->vocab_size * sizeof(cm_real);
    char *what = cm_strf("a text of %lld tokens%s", (long long)n,
                         logits ? " and its logits" : "");
    bool ok = cm_memory_fits(need, what, logits ? "give fewer --tokens" : "lower "
                             "generate.max_tokens, or set generate.kv=q8_0", err);
    free(what);
    return ok;
}

/* Options that say something only with others, or only without them. */
static bool check_options(const cm_app_ctx *a, cm_err *err) {
    static const char *const of_chat[] = { "messages", "system", "hide-think" };
    static const char *const of_text[] = { "prompt-cache", "echo" };
    bool talk = cm_app_switch(a, "chat"), logits = cm_app_text(a, "logits") && !talk;
    for (int i = 0; i < 3 && !talk; i++)
        if (cm_app_switch(a, of_chat[i]))
            return cm_fail(err, CM_EXIT_USAGE, "--%s wants --chat", of_chat[i]);
    for (int i = 0; i < 2 && logits; i++)
        if (cm_app_switch(a, of_text[i]))
            return cm_fail(err, CM_EXIT_USAGE, "--%s means nothing with --logits", of_text[i]);
    if (logits && a->json && !a->dry_run)
        return cm_fail(err, CM_EXIT_USAGE, "--json means nothing with --logits, whose file holds "
                       "raw floats");
    if (!talk && a->json && cm_app_switch(a, "echo"))
        return cm_fail(err, CM_EXIT_USAGE, "--echo means nothing with --json, which has the "
                       "prompt as a member of its own");
    return true;
}

static bool run_job(job *j, cm_err *err) {
    const char *model = cm_app_text(j->app, "model");
    const char *logits = cm_app_text(j->app, "logits");
    const char *named = cm_app_text(j->app, "prompt-cache");
    bool talk = cm_app_switch(j->app, "chat");
    if (!model) return cm_fail(err, CM_EXIT_USAGE, "--model PATH is needed");
    if (!check_options(j->app, err) || !check_stops(&j->app->conf.generate, err)) return false;
    if (!check_cache(named, err) || !check_apart(j->app, err) ||
        !load_models(j, model, named, err))
        return false;
    if (talk) return cm_app_chat(j->app, &j->l, &j->draft.model, &j->unkept, err);
    if (!read_prompt(j, err)) return false;
    int64_t need = j->prompt.n + (logits ? 0 : j->app->conf.generate.max_tokens);
    cm_guessing how = cm_app_guessing(j->app, &j->draft.model);
    if (need > j->l.model.conf.context)
        cm_log(CM_LOG_WARN, "%lld tokens exceed the context of %lld that the model promises",
               (long long)need, (long long)j->l.model.conf.context);
    cm_dtype kv = cm_kv_choice(j->app->conf.generate.kv, &j->l.model);
    if (!check_memory(j, need, kv, err) ||
        !cm_decoder_open(&j->d, &j->l.model, &how, (int)need, kv, err))
        return false;
    if (j->app->dry_run)
        return cm_app_decoding_plan(j->app, &j->l.model, j->prompt.n, (int)need), true;
    cm_signals_install(); /* until here there is nothing to end well */
    return logits ? write_logits(j, logits, err) : all_samples(j, err);
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    job j = { .app = ctx };
    bool ok = run_job(&j, err);
    if (ok && j.unkept.code) /* after the text, which was there before it */
        ok = cm_fail(err, j.unkept.code, "%s; the text is whole, the prompt was not kept",
                     j.unkept.msg);
    cm_decoder_close(&j.d);
    cm_loaded_close(&j.draft);
    cm_loaded_close(&j.l);
    cm_buf_free(&j.said);
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
        { "logits", "FILE", "write raw float32 logits [tokens][vocabulary] and stop; nothing else "
          "is printed" },
        { "echo", NULL, "print the prompt, or what --tokens spell, before each continuation" },
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
