/* score.c -- the scoring engine on many short texts: its rate against plain prefill, and
 * against scoring each text by itself.
 *
 *   build/bench/score configs/demo.yaml [key=value ...]      random weights
 *   build/bench/score model=CHECKPOINT lines=FILE            a text a line
 *   pairs=1500 rows=0 batch=0 rounds=5   json=1 busy=1 threads=N as bench.h says
 *   stem=600 ends=4 end=8            instead of pairs: `ends` texts share each of 40 stems
 * Without `lines` texts are minimal pairs of about 16 tokens, whose halves part at a random
 * place.  Prefill runs as many tokens in long rows of packed texts, with logits and softmax
 * for as many rows.  The three take turns; the best round of each counts. */
#include "bench/bench.h"
#include "harness/harness.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    cm_model *m;
    cm_loaded loaded;
    cm_arena weights;
    const char *path, *lines;
    int pairs, rounds, stem, ends, end;
    cm_engine_conf engine;
    cm_request *r;
    int64_t n, tokens; /* requests, tokens they read */
} job;

static void options(job *j, cm_conf *c, int argc, char **argv) {
    cm_err err;
    cm_conf_open(c, NULL);
    for (int i = 1; i < argc; i++) {
        if (bench_option(argv[i])) continue;
        if (bench_int(argv[i], "pairs", &j->pairs, 1, BENCH_MOST)) continue;
        if (bench_int(argv[i], "stem", &j->stem, 0, BENCH_MOST)) continue;
        if (bench_int(argv[i], "ends", &j->ends, 1, BENCH_MOST)) continue;
        if (bench_int(argv[i], "end", &j->end, 1, BENCH_MOST)) continue;
        if (bench_int(argv[i], "rounds", &j->rounds, 1, BENCH_MOST)) continue;
        if (bench_int(argv[i], "rows", &j->engine.rows, 0, BENCH_MOST)) continue;
        if (bench_int(argv[i], "batch", &j->engine.batch, 0, BENCH_MOST)) continue;
        if (!strncmp(argv[i], "model=", 6)) j->path = argv[i] + 6;
        else if (!strncmp(argv[i], "lines=", 6)) j->lines = argv[i] + 6;
        else if (strchr(argv[i], '=')) cm_conf_set(c, argv[i]);
        else cm_conf_file(c, argv[i]);
    }
    bench_must(cm_conf_check(c, &err), &err);
    if (c->top.threads) bench.threads = (int)c->top.threads;
    bench_start(c->top.numerics ? CM_NUMERICS_FAST : CM_NUMERICS_STRICT);
}

static void open_model(job *j, cm_conf *c) {
    cm_err err;
    if (j->path) {
        bench_must(cm_load(&j->loaded, j->path, false, &err), &err);
        j->m = &j->loaded.model;
        return;
    }
    if (!c->model.vocab_size) c->model.vocab_size = c->tokenize.vocab_size;
    bench_must(cm_model_resolve(&c->model, &err), &err);
    size_t n = (size_t)cm_model_count(&c->model, false);
    bench_must(cm_arena_open(&j->weights, "weights", n * sizeof(cm_real) + (16 << 20), &err), &err);
    j->m = &j->loaded.model;
    cm_model_build(j->m, &c->model, &j->weights, false);
    cm_params_init(&j->m->params, 1);
}

/* ---- requests ----------------------------------------------------------------------- */

static void add(job *j, const int32_t *token, int n, int64_t *cap) {
    if (j->n == *cap) {
        *cap = *cap ? 2 * *cap : 1024;
        j->r = realloc(j->r, (size_t)*cap * sizeof *j->r);
        CM_ASSERT(j->r, "out of memory");
    }
    int32_t *copy = malloc((size_t)n * sizeof *copy);
    double *logp = malloc((size_t)n * sizeof *logp);
    CM_ASSERT(copy && logp, "out of memory");
    memcpy(copy, token, (size_t)n * sizeof *copy);
    j->r[j->n++] = (cm_request){ copy, n, 1, logp, NULL };
    j->tokens += n - 1;
}

/* BOS, then what the members of a pair share, then what they do not. */
static void make_pairs(job *j) {
    int64_t cap = 0;
    uint64_t V = (uint64_t)j->m->conf.vocab_size;
    for (int i = 0; i < j->pairs; i++) {
        cm_rng r = cm_rng_make(1, CM_RNG_TEST, (uint64_t)i);
        int32_t token[32] = { 1 };
        int n = 12 + (int)cm_rng_below(r, 0, 10), same = (int)cm_rng_below(r, 1, (uint64_t)n);
        for (int half = 0; half < 2; half++) {
            for (int k = half ? 1 + same : 1; k < n; k++)
                token[k] = (int32_t)cm_rng_below(r, (uint64_t)(2 + half * 64 + k), V);
            add(j, token, n, &cap);
        }
    }
}

/* Questions with several answers: only the answers are scored. */
static void make_stems(job *j) {
    int64_t cap = 0;
    uint64_t V = (uint64_t)j->m->conf.vocab_size;
    int n = j->stem + j->end;
    int32_t *token = malloc((size_t)n * sizeof *token);
    CM_ASSERT(token, "out of memory");
    for (int i = 0; i < 40 * j->ends; i++) {
        for (int k = 0; k < n; k++) {
            int text = k < j->stem ? i / j->ends : 40 + i;
            cm_rng r = cm_rng_make(2, CM_RNG_TEST, (uint64_t)text);
            token[k] = (int32_t)cm_rng_below(r, (uint64_t)k, V);
        }
        add(j, token, n, &cap);
        j->r[j->n - 1].first = j->stem;
    }
    free(token);
}

static void read_lines(job *j) {
    cm_err err;
    char *text;
    size_t size;
    int64_t cap = 0, room = 0;
    int32_t *id = NULL;
    bench_must(cm_read_file(j->lines, (size_t)1 << 30, &text, &size, &err), &err);
    for (char *p = text, *end; p < text + size; p = end + 1) {
        end = strchr(p, '\n');
        if (!end) end = text + size;
        int64_t n = 0;
        if (!id) id = malloc((size_t)(room = 1024) * sizeof *id);
        CM_ASSERT(id, "out of memory");
        int bos = cm_spm_bos(j->loaded.spm);
        if (bos >= 0) id[n++] = bos;
        bench_must(cm_spm_encode(j->loaded.spm, p, (size_t)(end - p), &id, &n, &room, &err), &err);
        if (n > 1) add(j, id, (int)n, &cap);
    }
    free(text);
    free(id);
}

/* ---- the three ways --------------------------------------------------------------------- */

static double by_engine(job *j, cm_engine_count *count) {
    cm_err err;
    double t0 = bench_now();
    *count = (cm_engine_count){ 0 };
    bench_must(cm_engine_score(j->m, &j->engine, j->r, j->n, NULL, NULL, count, &err), &err);
    return bench_now() - t0;
}

/* Tokens a second of T-token rows in which texts follow each other, with softmax of
 * `share` of the rows. */
static double by_prefill(job *j, double share, int passes) {
    enum { T = 1024 };
    cm_err err;
    cm_arena arena, meta;
    static int32_t token[T], doc[T], pos[T];
    int64_t V = j->m->conf.vocab_size, row[CM_LOGIT_ROWS], n = 0;
    cm_real *logits = malloc((size_t)(CM_LOGIT_ROWS * V) * sizeof *logits);
    CM_ASSERT(logits, "out of memory");
    bench_must(cm_arena_open(&arena, "prefill", (size_t)8 << 30, &err), &err);
    bench_must(cm_arena_open(&meta, "meta", (size_t)64 << 20, &err), &err);
    double t0 = 0, sum = 0;
    for (int pass = -1; pass < passes; pass++) { /* the first touches the memory */
        if (pass == 0) t0 = bench_now();
        for (int t = 0, d = 0, k = 0; t < T; t++, k++) {
            if (k == j->r[n].n - 1) n = (n + 1) % j->n, k = 0, d++;
            token[t] = j->r[n].token[k], doc[t] = d, pos[t] = k;
        }
        cm_arena_reset(&arena, 0);
        cm_arena_reset(&meta, 0);
        cm_tape t;
        cm_tape_begin(&t, &arena, &meta, false, false);
        cm_seq seq = { .B = 1, .T = T, .doc = doc, .pos = pos };
        cm_var *h = cm_model_hidden(j->m, &t, token, &seq, NULL);
        int scored = (int)(share * T);
        for (int at = 0; at < scored; at += CM_LOGIT_ROWS) {
            int k = scored - at < CM_LOGIT_ROWS ? scored - at : CM_LOGIT_ROWS;
            for (int i = 0; i < k; i++) row[i] = at + i;
            cm_model_logits(j->m, cm_rdata(&h->v), row, k, logits);
            double part = 0;
#pragma omp parallel for schedule(static) reduction(+ : part)
            for (int i = 0; i < k; i++) part += cm_row_lse(logits + i * V, V).log_sum;
            sum += part;
        }
    }
    double seconds = bench_now() - t0;
    CM_ASSERT(sum > 0, "no softmax");
    cm_arena_close(&arena);
    cm_arena_close(&meta);
    free(logits);
    return passes * T / seconds;
}

/* Texts a second one by one. */
static double by_loop(job *j, int texts) {
    cm_err err;
    cm_scorer s;
    int longest = 0;
    for (int64_t i = 0; i < j->n; i++) longest = j->r[i].n > longest ? j->r[i].n : longest;
    double *nll = malloc((size_t)longest * sizeof *nll);
    CM_ASSERT(nll, "out of memory");
    bench_must(cm_scorer_open(&s, j->m, longest, &err), &err);
    double t0 = bench_now();
    for (int i = 0; i < texts; i++) {
        const cm_request *r = &j->r[i * j->n / texts];
        cm_score(&s, r->token, r->n, r->first - 1, nll);
    }
    double seconds = bench_now() - t0;
    cm_scorer_close(&s);
    free(nll);
    return texts / seconds;
}

int main(int argc, char **argv) {
    cm_conf conf;
    job j = { .pairs = 1500, .rounds = 5, .ends = 4, .end = 8 };
    cm_engine_count c;
    options(&j, &conf, argc, argv);
    open_model(&j, &conf);
    if (j.lines) read_lines(&j);
    else if (j.stem) make_stems(&j);
    else make_pairs(&j);
    double engine = 1e30, prefill = 0, loop = 0;
    for (int i = 0; i < j.rounds; i++) {
        double s = by_engine(&j, &c), p = by_prefill(&j, (double)c.scored / (double)c.computed, 20);
        double l = by_loop(&j, j.n < 500 ? (int)j.n : 500);
        if (s < engine) engine = s;
        if (p > prefill) prefill = p;
        if (l > loop) loop = l;
    }
    double rate = (double)c.computed / engine, texts = (double)j.n / engine;
    bench_say("%s: %s\n%lld texts, %lld tokens, %lld computed in %lld passes\n",
           j.path ? j.path : conf.top.name, cm_kern_describe(), (long long)j.n,
           (long long)j.tokens, (long long)c.computed, (long long)c.passes);
    bench_say("engine  %8.0f tokens/s  %8.0f texts/s  %.2f s\n", rate, texts, engine);
    bench_say("prefill %8.0f tokens/s  engine %.0f%% of it\n", prefill, 100 * rate / prefill);
    bench_say("loop    %8.0f texts/s   engine %.1f times as many\n", loop, texts / loop);
    const char *name = j.path ? "model" : conf.top.name;
    bench_put(rate, "score/%s/f32/engine_tok_per_s", name);
    bench_put(prefill, "score/%s/f32/prefill_tok_per_s", name);
    bench_put(texts, "score/%s/f32/engine_texts_per_s", name);
    bench_put(loop, "score/%s/f32/loop_texts_per_s", name);
    return 0;
}
