/* app_guess.c -- decoding in programs: the draft model, what came of its guesses, and prompts
 * that were read before. */
#include "app/app.h"
#include "model/model.h"

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
                        const char *model_id, cm_err *err) {
    const char *cache = cm_app_text(ctx, "prompt-cache");
    int64_t reused;
    if (!cm_decoder_read_cached(d, id, n, cache, model_id, &reused, err)) return false;
    cm_log(CM_LOG_INFO, "%s: %lld of the prompt's %lld tokens were read before", cache,
           (long long)reused, (long long)n);
    return true;
}
