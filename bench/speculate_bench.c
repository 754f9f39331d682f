/* speculate_bench.c -- decoding with and without guesses: tokens/s and their ratio.
 *
 *   build/bench/speculate_bench MODEL [draft=MODEL] [ngram=N] [guesses=8] [temperature=0.8]
 *                               [tokens=300] [rounds=5] [prompt=FILE] [json=1] [busy=1]
 *                               [threads=N]
 * A round writes texts from the beginning-of-text token on, to their ends, until there are
 * `tokens` of them: once plainly, once with guesses, in turns.  After a prompt it is one text,
 * which goes on beyond an end.  The median ratio and the best speeds count.  bench/speculate.sh
 * trains two models for it. */
#include "bench/bench.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum { CAP = 400, ROUNDS = 99, LONGEST = 1 << 20 };

typedef struct {
    const char *model, *draft, *prompt;
    int tokens, rounds;
    int32_t *begin;  /* of each text */
    int64_t n_begin;
    int cap;         /* tokens of a text */
    cm_guessing how;
    cm_sampling s;
    int32_t bos, eos;
} job;

static bool number(job *j, const char *w) {
    return bench_int(w, "ngram", &j->how.ngram, 0, BENCH_MOST) ||
           bench_int(w, "guesses", &j->how.most, 0, BENCH_MOST) ||
           bench_real(w, "temperature", &j->s.temperature) ||
           bench_int(w, "tokens", &j->tokens, 1, BENCH_MOST) ||
           bench_int(w, "rounds", &j->rounds, 1, ROUNDS);
}

static void options(job *j, int argc, char **argv) {
    cm_err err;
    bool ok = true;
    *j = (job){ .tokens = 300, .rounds = 5, .how = { .most = 8 },
                .s = { .temperature = 0.8, .top_p = 1, .repeat_penalty = 1 } };
    for (int i = 1; i < argc && ok; i++) {
        const char *w = argv[i];
        if (bench_option(w) || number(j, w)) continue;
        if (!strncmp(w, "draft=", 6)) j->draft = w + 6;
        else if (!strncmp(w, "prompt=", 7)) j->prompt = w + 7;
        else if (!strchr(w, '=')) j->model = w;
        else ok = cm_fail(&err, CM_EXIT_USAGE, "what is %s?", w);
    }
    ok = ok && (j->model || cm_fail(&err, CM_EXIT_USAGE, "which model?"));
    bench_must(ok, &err);
}

/* Texts of `tokens` tokens in all; seconds without those for beginnings. */
static double write_texts(const job *j, cm_decoder *d, int *written) {
    cm_err err;
    double seconds = 0;
    int32_t *id = malloc((size_t)j->cap * sizeof *id);
    CM_ASSERT(id, "out of memory");
    *written = 0;
    for (uint64_t text = 0; *written < j->tokens; text++) {
        int n = (int)j->n_begin;
        cm_sampling how = j->s;
        how.seed = 1 + text;
        memcpy(id, j->begin, (size_t)n * sizeof *id);
        cm_decoder_reset(d);
        bench_must(cm_decoder_read(d, id, n, &err), &err);
        double t0 = bench_now();
        for (; n < j->cap && (n == j->n_begin || j->prompt || id[n - 1] != j->eos); n++)
            bench_must(cm_decoder_next(d, &how, id, n, j->cap - n, (uint64_t)n, &id[n], &err),
                       &err);
        seconds += bench_now() - t0;
        *written += n - (int)j->n_begin;
    }
    free(id);
    return seconds;
}

/* What texts begin with: the beginning-of-text token, or it and the prompt. */
static void begin(job *j, const cm_spm *spm) {
    cm_err err;
    char *bytes;
    size_t n;
    int64_t cap = 0;
    j->cap = CAP;
    j->n_begin = 1;
    if (!j->prompt) {
        j->begin = malloc(sizeof *j->begin);
        CM_ASSERT(j->begin, "out of memory");
        *j->begin = j->bos;
        return;
    }
    bench_must(spm || cm_fail(&err, CM_EXIT_DATA, "%s: no tokenizer for a prompt", j->model), &err);
    bench_must(cm_read_file(j->prompt, LONGEST, &bytes, &n, &err), &err);
    j->begin = malloc((size_t)(cap = (int64_t)n + 2) * sizeof *j->begin);
    CM_ASSERT(j->begin, "out of memory");
    *j->begin = j->bos;
    bench_must(cm_spm_encode(spm, bytes, n, &j->begin, &j->n_begin, &cap, &err), &err);
    j->cap = (int)j->n_begin + j->tokens;
    free(bytes);
}

static void report(const job *j, const cm_guess_count *c, const double best[2], double *ratio) {
    double r = (double)(c->rounds ? c->rounds : 1), median = bench_median(ratio, j->rounds);
    char key[64];
    snprintf(key, sizeof key, "speculate/%s%s/t%g", j->draft ? "draft" : "ngram",
             j->prompt ? "_prompt" : "", j->s.temperature);
    bench_say("%s: plain %.1f tokens/s, with guesses %.1f, median ratio %.2f (%.2f to %.2f)\n"
              "%.1f %% of guesses accepted, %.2f of %.2f in a round, expected ratio %.2f\n",
              key, best[0], best[1], median, ratio[0], ratio[j->rounds - 1],
              100 * cm_guess_rate(c), (double)c->accepted / r, (double)c->guessed / r,
              cm_guess_speedup(c));
    bench_put(best[0], "%s/plain_tok_per_s", key);
    bench_put(best[1], "%s/guessed_tok_per_s", key);
    bench_put(median, "%s/ratio", key);
    bench_put(cm_guess_speedup(c), "%s/expected_ratio", key);
    bench_put(cm_guess_rate(c), "%s/acceptance_share", key);
    bench_put((double)c->accepted / r, "%s/accepted_per_round", key);
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    cm_err err;
    job j;
    cm_loaded model, draft;
    cm_decoder d[2];
    double best[2] = { 0 }, ratio[ROUNDS];
    options(&j, argc, argv);
    bench_start(CM_NUMERICS_STRICT);
    bench_must(cm_load(&model, j.model, CM_LOAD_UNNAMED, &err), &err);
    if (j.draft) bench_must(cm_draft_load(&draft, j.draft, &model, 0, &err), &err);
    j.how.draft = j.draft ? &draft.model : NULL;
    j.bos = model.spm && cm_spm_bos(model.spm) >= 0 ? cm_spm_bos(model.spm) : 0;
    j.eos = model.spm ? cm_spm_eos(model.spm) : -1;
    begin(&j, model.spm);
    for (int k = 0; k < 2; k++)
        bench_must(cm_decoder_open(&d[k], &model.model, k ? &j.how : NULL, j.cap, CM_F32_T, &err),
                   &err);
    for (int i = -1; i < j.rounds; i++) { /* the first warms up */
        double speed[2];
        for (int k = 0; k < 2; k++) {
            int n;
            double s = write_texts(&j, &d[k], &n);
            speed[k] = n / s;
            if (i >= 0 && speed[k] > best[k]) best[k] = speed[k];
        }
        if (i >= 0) ratio[i] = speed[1] / speed[0];
    }
    report(&j, &d[1].count, best, ratio);
    for (int k = 0; k < 2; k++) cm_decoder_close(&d[k]);
    free(j.begin);
    if (j.draft) cm_loaded_close(&draft);
    cm_loaded_close(&model);
    return 0;
}
