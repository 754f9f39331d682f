/* generate.c -- continue a prompt with a checkpoint or GGUF model. */
#include "app/app.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int32_t *id;
    int64_t n, cap;
} tokens;

typedef struct {
    cm_app_ctx *app;
    cm_loaded l;
    cm_session s;
    tokens prompt, text; /* text: prompt and what was added */
    cm_real *logits;
    void *work;
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

static bool read_prompt(job *j, cm_err *err) {
    const char *ids = cm_app_text(j->app, "tokens"), *text = cm_app_text(j->app, "prompt");
    const char *file = cm_app_text(j->app, "prompt-file");
    if ((ids != NULL) + (text != NULL) + (file != NULL) != 1)
        return cm_fail(err, CM_EXIT_USAGE,
                       "give the text to continue with one of --prompt, --prompt-file and "
                       "--tokens");
    if (ids) return parse_ids(ids, &j->prompt, err);
    if (text) {
        j->prompt_text = text;
        return encode_prompt(j, text, strlen(text), err);
    }
    char *bytes;
    size_t n;
    if (!cm_need_input(file, err) || !cm_read_file(file, (size_t)1 << 28, &bytes, &n, err))
        return false;
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
    cm_out out;
    bool ok = cm_session_feed(&j->s, j->prompt.id, n, all, NULL, err) &&
              cm_out_open(&out, path, err);
    if (ok) {
        ok = cm_out_write(&out, all, (size_t)(n * V) * sizeof *all, err);
        if (ok)
            ok = cm_out_commit(&out, err);
        else
            cm_out_abort(&out);
    }
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

/* Decode until the end of text, a stop string or the limit; the reason. */
static const char *decode(job *j, cm_stream *st, cm_buf *whole, cm_err *err, bool *ok) {
    const cm_generate_conf *g = &j->app->conf.generate;
    cm_sampling how = { g->temperature, g->top_k, g->top_p, g->min_p, g->repeat_penalty,
                        g->repeat_last, 0 };
    how.seed = (uint64_t)j->app->conf.top.seed + (uint64_t)j->sample * 0x9E3779B97F4A7C15u;
    int V = (int)j->l.model.conf.vocab_size;
    cm_buf bytes = { 0 };
    const char *why = "length";
    for (int64_t i = 0; i < g->max_tokens && *ok && !cm_signal_stop(); i++) {
        if (!cm_logits_finite(j->logits, V)) {
            *ok = cm_fail(err, CM_EXIT_DATA, "%s: a logit that is no finite number; the model's "
                          "weights are broken", cm_app_text(j->app, "model"));
            break;
        }
        int32_t id = cm_sample_token(&how, j->logits, V, j->text.id, (int)j->text.n,
                                     (uint64_t)i, j->work);
        if (is_end(j, id)) {
            why = "end";
            break;
        }
        push(&j->text, id);
        bytes.n = 0;
        cm_buf_add(&bytes, "", 0);
        if (j->l.spm)
            cm_spm_token_bytes(j->l.spm, id, &bytes);
        else
            cm_buf_addf(&bytes, "%d ", id);
        bool stopped = cm_stream_push(st, bytes.s, bytes.n);
        show(j, st, whole);
        if (stopped) {
            why = "stop";
            break;
        }
        if (i + 1 < g->max_tokens)
            *ok = cm_session_feed(&j->s, &id, 1, NULL, j->logits, err);
    }
    cm_buf_free(&bytes);
    return why;
}

static void print_json(const job *j, const cm_buf *whole, const char *why) {
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    if (j->prompt_text) cm_json_str(&b, "prompt", j->prompt_text);
    cm_json_str(&b, "text", whole->s ? whole->s : "");
    cm_json_str(&b, "end", why);
    cm_json_open(&b, "tokens", '[');
    for (int64_t i = j->prompt.n; i < j->text.n; i++) cm_json_i64(&b, NULL, j->text.id[i]);
    cm_json_close(&b, '[');
    cm_json_close(&b, '{');
    puts(b.s);
    cm_buf_free(&b);
}

static bool one_sample(job *j, cm_err *err) {
    cm_session_reset(&j->s);
    j->text.n = 0;
    for (int64_t i = 0; i < j->prompt.n; i++) push(&j->text, j->prompt.id[i]);
    double t0 = cm_now();
    if (!cm_session_feed(&j->s, j->prompt.id, j->prompt.n, NULL, j->logits, err))
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
    if (ok && j->app->json) print_json(j, &whole, why);
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
    for (int i = 0; i < g->stop.n; i++)
        if (!g->stop.v[i][0])
            return cm_fail(err, CM_EXIT_USAGE, "generate.stop: an empty string");
    if (cm_app_switch(j->app, "echo") && j->prompt_text && !j->app->json)
        fputs(j->prompt_text, stdout);
    for (j->sample = 0; j->sample < g->samples && !cm_signal_stop(); j->sample++)
        if (!one_sample(j, err)) return false;
    cm_log(CM_LOG_INFO, "read %lld tokens at %.0f tokens/s, wrote %lld at %.1f tokens/s",
           (long long)(j->prompt.n * j->sample),
           (double)(j->prompt.n * j->sample) / j->prefill_s, (long long)j->decoded,
           (double)j->decoded / j->decode_s);
    return true;
}

static void print_plan(const job *j) {
    const cm_model_conf *m = &j->l.model.conf;
    if (j->app->json) {
        cm_buf b = { 0 };
        cm_json_open(&b, NULL, '{');
        cm_json_i64(&b, "params", cm_model_count(m, false));
        cm_json_i64(&b, "params_active", cm_model_count(m, true));
        cm_json_i64(&b, "vocab", m->vocab_size);
        cm_json_i64(&b, "context", m->context);
        cm_json_i64(&b, "prompt_tokens", j->prompt.n);
        cm_json_close(&b, '{');
        puts(b.s);
        cm_buf_free(&b);
        return;
    }
    printf("parameters  %lld, %lld used by a token\nvocabulary  %lld\ncontext     %lld\n"
           "prompt      %lld tokens\n", (long long)cm_model_count(m, false),
           (long long)cm_model_count(m, true), (long long)m->vocab_size,
           (long long)m->context, (long long)j->prompt.n);
}

static bool run_job(job *j, cm_err *err) {
    const char *model = cm_app_text(j->app, "model");
    const char *logits = cm_app_text(j->app, "logits");
    if (!model) return cm_fail(err, CM_EXIT_USAGE, "--model PATH is needed");
    if (!cm_load(&j->l, model, CM_LOAD_UNNAMED, err) || !read_prompt(j, err)) return false;
    int64_t need = j->prompt.n + (logits ? 0 : j->app->conf.generate.max_tokens);
    int64_t V = j->l.model.conf.vocab_size;
    if (need > j->l.model.conf.context)
        cm_log(CM_LOG_WARN, "%lld tokens exceed the context of %lld that the model promises",
               (long long)need, (long long)j->l.model.conf.context);
    if (!cm_session_open(&j->s, &j->l.model, (int)need, err)) return false;
    if (j->app->dry_run) {
        print_plan(j);
        return true;
    }
    if (logits) return write_logits(j, logits, err);
    j->logits = malloc((size_t)V * sizeof *j->logits);
    j->work = malloc(cm_sample_work_bytes((int)V));
    if (!j->logits || !j->work)
        return cm_fail(err, CM_EXIT_RESOURCE, "out of memory for %lld logits", (long long)V);
    return all_samples(j, err);
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    job j = { .app = ctx };
    cm_signals_install();
    bool ok = run_job(&j, err);
    if (j.s.m) cm_session_close(&j.s);
    cm_loaded_close(&j.l);
    free(j.prompt.id);
    free(j.text.id);
    free(j.logits);
    free(j.work);
    return ok;
}

int main(int argc, char **argv) {
    static const cm_app_opt options[] = {
        { "model", "PATH", "checkpoint folder or GGUF file" },
        { "prompt", "TEXT", "text to continue" },
        { "prompt-file", "FILE", "the same, from a file" },
        { "tokens", "IDS", "token ids to continue, separated by commas, taken as they are" },
        { "logits", "FILE", "write raw float32 logits [tokens][vocabulary] and stop" },
        { "echo", NULL, "print the prompt before its continuation" },
        { 0 },
    };
    return cm_app_main(argc, argv, &(cm_app){
        .name = "generate",
        .summary = "continue a text with a model",
        .examples =
            "  generate --model runs/demo/ckpt/latest --prompt 'Once upon a time'\n"
            "  generate --model demo.gguf --prompt 'One day' "
            "generate.temperature=0\n"
            "  generate --model runs/demo --tokens 1,267 --logits logits.f32\n",
        .sections = "top generate",
        .options = options,
        .run = run,
    });
}
