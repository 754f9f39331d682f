/* app_guess.c -- decoding in programs: what the section `generate` asks for, the draft model and
 * what came of its guesses, prompts that were read before, the plan. */
#include "app/app.h"
#include "model/model.h"

#include <string.h>

static double per_round(const cm_guess_count *c, int64_t n) {
    return c->rounds ? (double)n / (double)c->rounds : 0;
}

void cm_app_guesses_json(cm_buf *b, const cm_guess_count *c) {
    if (!c->rounds) return;
    cm_json_open(b, "guesses", '{');
    cm_json_i64(b, "rounds", c->rounds);
    cm_json_i64(b, "guessed", c->guessed);
    cm_json_i64(b, "tested", c->tested);
    cm_json_i64(b, "accepted", c->accepted);
    cm_json_f64(b, "acceptance", cm_guess_rate(c));
    cm_json_f64(b, "accepted_per_round", per_round(c, c->accepted));
    cm_json_f64(b, "tokens_per_round", per_round(c, c->written));
    cm_json_f64(b, "expected_speedup", cm_guess_speedup(c));
    cm_json_close(b, '{');
}

void cm_app_log_guesses(const cm_guess_count *c) {
    if (!c->rounds) return;
    double rounds = (double)c->rounds, g = per_round(c, c->guessed);
    double step = c->steps ? c->step_s / (double)c->steps : 0;
    cm_log(CM_LOG_INFO, "guesses: %.1f %% accepted, %.2f of %.2f in a round",
           100 * cm_guess_rate(c), per_round(c, c->accepted), g);
    cm_log(CM_LOG_INFO, "expected speed-up (1 - a^(g+1)) / ((1 - a) (g c + v)) = %.2f with a = "
           "%.3f, g = %.2f, a guess c = %.3f and a check v = %.2f of a single step's time",
           cm_guess_speedup(c), cm_guess_rate(c), g,
           step > 0 && c->guessed ? c->draft_s / (double)c->guessed / step : 0,
           step > 0 ? c->check_s / rounds / step : 0);
}

bool cm_app_load_draft(const cm_app_ctx *ctx, cm_loaded *draft, const cm_loaded *of, cm_err *err) {
    const char *path = ctx->conf.generate.draft;
    unsigned how = ctx->conf.generate.weights == CM_WEIGHTS_BLOCKS ? CM_LOAD_BLOCKS : 0;
    if (!cm_draft_load(draft, path, of, how, err)) return false;
    int64_t n = cm_model_count(&draft->model.conf, true);
    int64_t most = cm_model_count(&of->model.conf, true);
    if (n >= most)
        cm_log(CM_LOG_WARN, "%s: a token uses %lld parameters of the draft model and %lld of the "
               "model; its guesses will cost more than they save", path, (long long)n,
               (long long)most);
    return true;
}

bool cm_app_read_cached(const cm_app_ctx *ctx, cm_decoder *d, const int32_t *id, int64_t n,
                        const char *model_id, cm_err *unkept, cm_err *err) {
    const char *cache = cm_app_text(ctx, "prompt-cache");
    int64_t reused;
    cm_err why = { 0 };
    if (!cm_decoder_read_cached(d, id, n, cache, model_id, &reused, &why, err)) return false;
    if (why.code && !unkept->code) *unkept = why;
    cm_log(CM_LOG_INFO, "%s: %lld of the prompt's %lld tokens were read before", cache,
           (long long)reused, (long long)n);
    return true;
}

bool cm_app_read_named(const char *path, char **s, size_t *n, cm_err *err) {
    bool in = !strcmp(path, "-");
    return (in || cm_need_input_file(path, err)) &&
           cm_read_file(in ? "/dev/stdin" : path, (size_t)1 << 28, s, n, err);
}

cm_sampling cm_app_sampling(const cm_app_ctx *ctx, int sample) {
    const cm_generate_conf *g = &ctx->conf.generate;
    uint64_t seed = (uint64_t)ctx->conf.top.seed + (uint64_t)sample * 0x9E3779B97F4A7C15u;
    return (cm_sampling){ g->temperature, g->top_k, g->top_p, g->min_p, g->repeat_penalty,
                          g->repeat_last, seed };
}

cm_guessing cm_app_guessing(const cm_app_ctx *ctx, const cm_model *draft) {
    const cm_generate_conf *g = &ctx->conf.generate;
    return (cm_guessing){ *g->draft ? draft : NULL, (int)g->ngram, (int)g->draft_tokens };
}

void cm_app_decoding_plan(const cm_app_ctx *ctx, const cm_model *model, int64_t prompt, int cap) {
    const cm_model_conf *m = &model->conf;
    cm_dtype kv = cm_kv_choice(ctx->conf.generate.kv, model);
    int64_t state = (int64_t)cm_state_bytes(m, 1, cap, kv);
    int64_t per_text = (int64_t)cm_snapshot_bytes(m);
    int64_t per_token = (int64_t)cm_state_token_bytes(m, kv);
    if (ctx->json) {
        cm_buf b = { 0 };
        cm_json_open(&b, NULL, '{');
        cm_json_i64(&b, "params", cm_model_count(m, false));
        cm_json_i64(&b, "params_active", cm_model_count(m, true));
        cm_json_i64(&b, "vocab", m->vocab_size);
        cm_json_i64(&b, "context", m->context);
        cm_json_i64(&b, "prompt_tokens", prompt);
        cm_json_i64(&b, "room_tokens", cap);
        cm_json_i64(&b, "state_bytes", state);
        cm_json_i64(&b, "snapshot_bytes", per_text);
        cm_json_str(&b, "kv", cm_kv_name(kv));
        cm_json_i64(&b, "kv_bytes_per_token", per_token);
        cm_json_print(&b);
        return;
    }
    printf("parameters  %lld, %lld used by a token\nvocabulary  %lld\ncontext     %lld\n"
           "state       %lld bytes for %d tokens, %lld of them whatever the length\n"
           "keys/values %s, %lld bytes a token\nprompt      %lld tokens\n",
           (long long)cm_model_count(m, false), (long long)cm_model_count(m, true),
           (long long)m->vocab_size, (long long)m->context, (long long)state, cap,
           (long long)per_text, cm_kv_name(kv), (long long)per_token, (long long)prompt);
}
