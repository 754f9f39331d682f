/* tokenize.c -- text, conversations and preferences to token shards, and a look into them. */
#include "app/app.h"
#include "model/model.h"
#include "text/corpus.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- build ------------------------------------------------------------------------- */

typedef struct view {
    cm_progress bar;
    cm_progress_mode mode;
    const char *stage;
} view;

static bool show(void *ctx, const cm_corpus_progress *p) {
    view *v = ctx;
    if (!strcmp(p->stage, "vocabulary")) {
        cm_log(CM_LOG_INFO, "training the vocabulary");
        return true;
    }
    if (!v->stage) {
        v->stage = p->stage;
        cm_progress_open(&v->bar, p->stage, "MB", (double)p->total / 1e6, 10, v->mode, NULL);
    }
    char n[32];
    cm_progress_show(&v->bar, (double)p->done / 1e6, "docs=%" PRId64 " tok=%s", p->docs,
                     cm_human_count((double)p->tokens, n, sizeof n));
    return !cm_signal_stop();
}

static void plan_json(const cm_corpus_conf *c, int files, uint64_t bytes) {
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    cm_json_i64(&b, "files", files);
    cm_json_u64(&b, "bytes", bytes);
    if (c->t->tokenizer[0]) cm_json_str(&b, "tokenizer", c->t->tokenizer);
    else cm_json_i64(&b, "vocab_size", c->t->vocab_size);
    cm_json_i64(&b, "sample_bytes", c->t->sample_bytes);
    cm_json_str(&b, "out", c->t->out);
    cm_json_i64(&b, "shard_tokens", c->t->shard_tokens);
    cm_json_i64(&b, "threads", c->threads);
    cm_json_print(&b);
}

static bool plan(const cm_app_ctx *ctx, const cm_corpus_conf *c, cm_err *err) {
    int files;
    uint64_t bytes;
    char size[32];
    if (!cm_corpus_check(c, &files, &bytes, err)) return false;
    if (!ctx->conf.tokenize.out[0])
        return cm_fail(err, CM_EXIT_USAGE, "tokenize.out: no folder given");
    if (ctx->json) {
        plan_json(c, files, bytes);
        return true;
    }
    printf("inputs     %d file(s), %s\n", files,
           cm_human_bytes((double)bytes, size, sizeof size));
    if (c->t->tokenizer[0]) printf("tokenizer  %s\n", c->t->tokenizer);
    else printf("tokenizer  to be trained: %" PRId64 " pieces on at most %s of text\n",
                c->t->vocab_size,
                cm_human_bytes((double)c->t->sample_bytes, size, sizeof size));
    printf("output     %s, shards of %s tokens\n", c->t->out,
           cm_human_count((double)c->t->shard_tokens, size, sizeof size));
    printf("threads    %d\n", c->threads);
    return true;
}

static double ratio(int64_t a, int64_t b) { return b ? (double)a / (double)b : 0; }

static void print_result(const cm_app_ctx *ctx, const cm_dataset *d, double seconds) {
    cm_buf b = { 0 };
    if (ctx->json) {
        cm_json_open(&b, NULL, '{');
        cm_json_str(&b, "id", d->id);
        cm_json_str(&b, "kind", cm_shard_kind_name(d->kind));
        cm_json_str(&b, "tokenizer", d->tokenizer);
        cm_json_f64(&b, "seconds", seconds);
    }
    bool masked = cm_shard_masked(d->kind);
    for (int sp = 0; sp < 2; sp++) {
        const char *name = cm_split_name((cm_split)sp);
        double per = d->n_tokens[sp] ? (double)d->n_bytes[sp] / (double)d->n_tokens[sp] : 0;
        if (ctx->json) {
            cm_json_open(&b, name, '{');
            cm_json_i64(&b, "docs", d->n_docs[sp]);
            cm_json_i64(&b, "tokens", d->n_tokens[sp]);
            cm_json_i64(&b, "bytes", d->n_bytes[sp]);
            if (masked) cm_json_i64(&b, "answer_tokens", d->n_answer[sp]);
            if (masked) cm_json_i64(&b, "reasoning_tokens", d->n_reasoning[sp]);
            cm_json_close(&b, '{');
        } else {
            cm_buf_addf(&b, "%-5s  %" PRId64 " documents, %" PRId64 " tokens, %" PRId64
                        " bytes of text (%.3f bytes/token), %d shard(s)\n", name,
                        d->n_docs[sp], d->n_tokens[sp], d->n_bytes[sp], per,
                        d->n_shard[sp]);
            if (masked)
                cm_buf_addf(&b, "       %s: %" PRId64 " answer and %" PRId64 " reasoning "
                            "tokens to learn (%.1f%%)\n",
                            d->kind == CM_SHARD_DPO ? "pairs of two documents"
                                                    : "conversations",
                            d->n_answer[sp], d->n_reasoning[sp],
                            100 * ratio(d->n_answer[sp] + d->n_reasoning[sp],
                                        d->n_tokens[sp]));
        }
    }
    if (ctx->json) cm_json_close(&b, '{');
    else cm_buf_addf(&b, "%s/manifest.json", d->dir);
    puts(b.s);
    cm_buf_free(&b);
}

/* What --if-done asks of a finished folder. */
static bool if_done(const cm_app_ctx *ctx, const char *out, bool *skip, cm_err *err) {
    if (ctx->if_done == CM_DONE_FAIL) return true;
    if (ctx->if_done == CM_DONE_REDO) return cm_corpus_clear(out, err);
    char *done = cm_strf("%s/manifest.json", out);
    *skip = cm_exists(done);
    free(done);
    return true;
}

/* A finished data set that is kept although it was asked for with other settings. */
static bool tell_changes(const cm_corpus_conf *c, cm_err *err) {
    cm_buf keys = { 0 };
    bool ok = cm_corpus_changes(c, &keys, err);
    if (ok && keys.n)
        cm_log(CM_LOG_WARN, "%s: kept as it is, but made with other settings (%s); "
               "--if-done=redo makes it again with these", c->t->out, keys.s);
    cm_buf_free(&keys);
    return ok;
}

/* The data set replaces neither the tokenizer nor a text, nor fills what is something else's. */
static bool out_apart(const cm_tokenize_conf *t, cm_err *err) {
    const cm_app_file out[] = {{ "tokenize.out", t->out }, { 0 }};
    char *spm = cm_spm_place(t->tokenizer);
    bool ok = cm_app_apart((cm_app_file[]){{ "tokenizer", t->tokenizer }, { "tokenizer", spm },
                                           { 0 }}, out, err);
    free(spm);
    ok = ok && cm_corpus_may_fill(t->out, err);
    for (int i = 0; ok && i < t->inputs.n; i++)
        ok = cm_app_apart((cm_app_file[]){{ "input", t->inputs.v[i] }, { 0 }}, out, err);
    return ok;
}

static bool build(cm_app_ctx *ctx, cm_err *err) {
    const cm_tokenize_conf *t = &ctx->conf.tokenize;
    if (!out_apart(t, err)) return false;
    view v = { .mode = ctx->progress };
    cm_corpus_conf c = { t, (uint64_t)ctx->conf.top.seed,
                         ctx->threads ? ctx->threads : cm_cpus(), show, &v,
                         cm_load_tokenizer };
    if (ctx->dry_run) return plan(ctx, &c, err);
    bool skip = false;
    if (!if_done(ctx, t->out, &skip, err)) return false;
    cm_signals_install_as("stopping; finished shards stay");
    double t0 = cm_now();
    bool ok = skip || cm_corpus_build(&c, err);
    if (v.stage) cm_progress_close(&v.bar);
    if (ok && skip && !tell_changes(&c, err)) return false;
    if (!ok && cm_signal_stop()) {
        cm_log(CM_LOG_INFO, "stopped; the same command goes on from the last whole shard");
        ctx->exit = 128 + cm_signal_stop();
        return true;
    }
    cm_dataset d;
    if (!ok || !cm_dataset_open(&d, t->out, err)) return false;
    print_result(ctx, &d, cm_now() - t0);
    cm_dataset_close(&d);
    return true;
}

/* ---- verify, stats, head ------------------------------------------------------------- */

static bool verify(cm_app_ctx *ctx, const cm_dataset *d, const cm_spm *spm, cm_err *err) {
    (void)spm;
    if (!cm_dataset_verify(d, err)) return false;
    int shards = d->n_shard[0] + d->n_shard[1];
    int64_t tokens = d->n_tokens[0] + d->n_tokens[1], docs = d->n_docs[0] + d->n_docs[1];
    int64_t answer = d->n_answer[0] + d->n_answer[1];
    int64_t reasoning = d->n_reasoning[0] + d->n_reasoning[1];
    bool masked = cm_shard_masked(d->kind);
    if (!ctx->json) {
        printf("%s: ok: %d shard(s), %" PRId64 " tokens, %" PRId64 " documents, every frame "
               "read", d->dir, shards, tokens, docs);
        if (masked) printf("; %" PRId64 " answer and %" PRId64 " reasoning tokens to learn",
                           answer, reasoning);
        puts("");
        return true;
    }
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    cm_json_bool(&b, "ok", true);
    cm_json_str(&b, "id", d->id);
    cm_json_i64(&b, "shards", shards);
    cm_json_i64(&b, "tokens", tokens);
    cm_json_i64(&b, "docs", docs);
    if (masked) {
        cm_json_i64(&b, "answer_tokens", answer);
        cm_json_i64(&b, "reasoning_tokens", reasoning);
    }
    cm_json_print(&b);
    return true;
}

static void print_quantiles(const char *name, const int64_t q[CM_DOC_QUANTILES]) {
    printf("  %-12s  min %" PRId64 "  5%% %" PRId64 "  25%% %" PRId64 "  50%% %" PRId64
           "  75%% %" PRId64 "  95%% %" PRId64 "  max %" PRId64 "\n", name, q[0], q[1], q[2],
           q[3], q[4], q[5], q[6]);
}

static void print_trained(const cm_corpus_stats *s) {
    printf("  trained       %.1f%% of the tokens: %" PRId64 " answer, %" PRId64
           " reasoning\n", 100 * ratio(s->answer + s->reasoning, s->tokens), s->answer,
           s->reasoning);
    print_quantiles("trained/doc", s->doc_trained);
    if (!s->pairs) return;
    printf("  pairs         %" PRId64 "; the chosen answer is longer in %.1f%%, as long in "
           "%.1f%%\n", s->pairs, 100 * ratio(s->chosen_longer, s->pairs),
           100 * ratio(s->equal_length, s->pairs));
    printf("  tokens/answer %.1f chosen, %.1f rejected; %" PRId64 " identical pair(s)\n",
           ratio(s->chosen_tokens, s->pairs), ratio(s->rejected_tokens, s->pairs),
           s->identical);
}

static void print_stats(const char *split, const cm_corpus_stats *s) {
    printf("%s\n  documents     %" PRId64 "\n  tokens        %" PRId64 "\n"
           "  bytes/token   %.3f\n  tokens/word   %.3f (%" PRId64 " words)\n", split,
           s->docs, s->tokens, ratio(s->bytes, s->tokens), ratio(s->word_tokens, s->words),
           s->words);
    printf("  byte tokens   %.3f%%\n  unknown       %" PRId64 "\n", 100 * ratio(
           s->byte_tokens, s->tokens), s->unk_tokens);
    printf("  vocabulary    %d of %d pieces used (%.1f%%)\n", s->vocab_used, s->vocab,
           100 * ratio(s->vocab_used, s->vocab));
    printf("  stored        %" PRId64 " bytes, %.2f bits/token, %.2f x smaller than text\n",
           s->stored, 8 * ratio(s->stored, s->tokens), ratio(s->bytes, s->stored));
    print_quantiles("tokens/doc", s->doc_tokens);
    if (s->answer) print_trained(s);
}

static void json_quantiles(cm_buf *b, const char *key, const int64_t q[CM_DOC_QUANTILES]) {
    cm_json_open(b, key, '[');
    for (int i = 0; i < CM_DOC_QUANTILES; i++) cm_json_i64(b, NULL, q[i]);
    cm_json_close(b, '[');
}

static void json_trained(cm_buf *b, const cm_corpus_stats *s) {
    cm_json_i64(b, "answer_tokens", s->answer);
    cm_json_i64(b, "reasoning_tokens", s->reasoning);
    cm_json_f64(b, "trained_share", ratio(s->answer + s->reasoning, s->tokens));
    json_quantiles(b, "doc_trained_quantiles", s->doc_trained);
    if (!s->pairs) return;
    cm_json_i64(b, "pairs", s->pairs);
    cm_json_i64(b, "chosen_longer", s->chosen_longer);
    cm_json_i64(b, "equal_length", s->equal_length);
    cm_json_i64(b, "identical", s->identical);
    cm_json_i64(b, "chosen_tokens", s->chosen_tokens);
    cm_json_i64(b, "rejected_tokens", s->rejected_tokens);
}

static void json_stats(cm_buf *b, const char *split, const cm_corpus_stats *s) {
    cm_json_open(b, split, '{');
    cm_json_i64(b, "docs", s->docs);
    cm_json_i64(b, "tokens", s->tokens);
    cm_json_i64(b, "bytes", s->bytes);
    cm_json_i64(b, "words", s->words);
    cm_json_f64(b, "bytes_per_token", ratio(s->bytes, s->tokens));
    cm_json_f64(b, "tokens_per_word", ratio(s->word_tokens, s->words));
    cm_json_i64(b, "byte_tokens", s->byte_tokens);
    cm_json_i64(b, "unknown_tokens", s->unk_tokens);
    cm_json_i64(b, "vocab", s->vocab);
    cm_json_i64(b, "vocab_used", s->vocab_used);
    cm_json_i64(b, "stored_bytes", s->stored);
    json_quantiles(b, "doc_tokens_quantiles", s->doc_tokens);
    if (s->answer) json_trained(b, s);
    cm_json_close(b, '{');
}

static bool stats(cm_app_ctx *ctx, const cm_dataset *d, const cm_spm *spm, cm_err *err) {
    cm_buf b = { 0 };
    bool ok = true;
    if (ctx->json) cm_json_open(&b, NULL, '{');
    for (int sp = 0; ok && sp < 2; sp++) {
        cm_corpus_stats s;
        const char *name = cm_split_name((cm_split)sp);
        ok = !d->n_docs[sp] || cm_corpus_measure(d, spm, (cm_split)sp, &s, err);
        if (!ok || !d->n_docs[sp]) continue;
        if (ctx->json) json_stats(&b, name, &s);
        else print_stats(name, &s);
    }
    if (ctx->json) cm_json_close(&b, '{');
    if (ok && ctx->json) puts(b.s);
    cm_buf_free(&b);
    return ok;
}

/* One document looked at: where it is from and its first tokens. */
typedef struct peek {
    cm_split split;
    int64_t i, n, take, bytes; /* number in its split, tokens, those read, bytes of text */
    uint32_t source;
    uint64_t line;
    int32_t *id; /* [take] */
    uint8_t *mask; /* [take]; NULL: a kind without */
    const char *side; /* "chosen", "rejected", or NULL */
    bool colour;
} peek;

static void show_text(const peek *p, const cm_spm *spm, cm_buf *b) {
    cm_buf_addf(b, "---- %s document %" PRId64 ": %" PRId64 " tokens, %" PRId64
                " bytes, source %u line %" PRIu64 "%s%s\n", cm_split_name(p->split), p->i,
                p->n, p->bytes, p->source, p->line, p->side ? ", " : "",
                p->side ? p->side : "");
    if (p->mask) cm_masked_show(spm, p->id, p->mask, p->take, p->colour, b);
    for (int64_t k = 0; !p->mask && k < p->take; k++) {
        if (k && b->s[b->n - 1] != '\n') cm_buf_addf(b, "\xE2\x94\x82"); /* a thin bar */
        cm_token_show(spm, p->id[k], b);
    }
    if (p->take < p->n) cm_buf_addf(b, " ... %" PRId64 " more", p->n - p->take);
}

static void show_json(const peek *p, const cm_spm *spm, cm_buf *b) {
    char *text = cm_spm_decode(spm, p->id, p->take);
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "split", cm_split_name(p->split));
    cm_json_i64(b, "doc", p->i);
    cm_json_i64(b, "tokens", p->n);
    cm_json_i64(b, "bytes", p->bytes);
    cm_json_i64(b, "source", p->source);
    cm_json_u64(b, "line", p->line);
    cm_json_open(b, "ids", '[');
    for (int64_t k = 0; k < p->take; k++) cm_json_i64(b, NULL, p->id[k]);
    cm_json_close(b, '[');
    if (p->mask) {
        cm_json_open(b, "mask", '[');
        for (int64_t k = 0; k < p->take; k++) cm_json_i64(b, NULL, p->mask[k]);
        cm_json_close(b, '[');
    }
    if (p->side) cm_json_str(b, "side", p->side);
    cm_json_str(b, "text", text);
    cm_json_close(b, '{');
    free(text);
}

/* Colours where a person looks on, unless they said no (no-color.org). */
static bool wants_colour(void) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

static bool head_doc(const cm_app_ctx *ctx, const cm_dataset *d, const cm_spm *spm,
                     cm_split split, int64_t i, int64_t most, cm_err *err) {
    peek p = { .split = split, .i = i, .colour = wants_colour() };
    if (d->kind == CM_SHARD_DPO) p.side = i % 2 ? "rejected" : "chosen";
    int64_t start;
    if (!cm_dataset_doc(d, split, i, &start, &p.n, &p.bytes, err) ||
        !cm_dataset_origin(d, split, i, &p.source, &p.line, err))
        return false;
    p.take = p.n < most ? p.n : most;
    p.id = malloc((size_t)p.take * sizeof *p.id + 1);
    if (cm_shard_masked(d->kind)) p.mask = malloc((size_t)p.take + 1);
    CM_ASSERT(p.id && (p.mask || !cm_shard_masked(d->kind)), "out of memory");
    cm_buf b = { 0 };
    bool ok = cm_dataset_read(d, split, start, p.take, p.id, NULL, err) &&
              (!p.mask || cm_dataset_masks(d, split, start, p.take, p.mask, err));
    if (ok) (ctx->json ? show_json : show_text)(&p, spm, &b);
    if (ok) puts(b.s);
    cm_buf_free(&b);
    free(p.id);
    free(p.mask);
    return ok;
}

static bool head(cm_app_ctx *ctx, const cm_dataset *d, const cm_spm *spm, cm_err *err) {
    int64_t docs = 5, tokens = cm_shard_masked(d->kind) ? 4096 : 200;
    if (!cm_app_i64(ctx, "docs", 1, INT64_MAX, &docs, err) ||
        !cm_app_i64(ctx, "tokens", 1, 1 << 24, &tokens, err))
        return false;
    const char *name = cm_app_text(ctx, "split");
    if (name && strcmp(name, "train") && strcmp(name, "val"))
        return cm_fail(err, CM_EXIT_USAGE, "--split=%s: wants train or val", name);
    cm_split split = name && !strcmp(name, "val") ? CM_SPLIT_VAL : CM_SPLIT_TRAIN;
    for (int64_t i = 0; i < docs && i < d->n_docs[split]; i++)
        if (!head_doc(ctx, d, spm, split, i, tokens, err)) return false;
    return true;
}

/* ---- the command line ---------------------------------------------------------------- */

static const struct {
    const char *name;
    bool (*run)(cm_app_ctx *, const cm_dataset *, const cm_spm *, cm_err *);
} looks[] = { { "verify", verify }, { "stats", stats }, { "head", head } };

static bool look(cm_app_ctx *ctx, int k, cm_err *err) {
    if (ctx->words.n != 2)
        return cm_fail(err, CM_EXIT_USAGE, "tokenize %s wants one data set folder",
                       looks[k].name);
    cm_dataset d;
    if (!cm_dataset_open(&d, ctx->words.v[1], err)) return false;
    cm_spm *spm = cm_spm_open(d.tokenizer_path, err);
    bool ok = spm && (cm_spm_vocab(spm) == d.vocab ||
                      cm_fail(err, CM_EXIT_DATA, "%s: %d pieces, the shards know %d",
                              d.tokenizer_path, cm_spm_vocab(spm), d.vocab));
    ok = ok && looks[k].run(ctx, &d, spm, err);
    cm_spm_close(spm);
    cm_dataset_close(&d);
    return ok;
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    if (!ctx->words.n) return build(ctx, err);
    for (size_t k = 0; k < sizeof looks / sizeof *looks; k++)
        if (!strcmp(ctx->words.v[0], looks[k].name)) return look(ctx, (int)k, err);
    return cm_fail(err, CM_EXIT_USAGE, "unknown command '%s'; wants verify, stats or head",
                   ctx->words.v[0]);
}

int main(int argc, char **argv) {
    static const cm_app_opt options[] = {
        { "docs", "N", "head: documents to show (default 5)" },
        { "tokens", "N", "head: tokens of each document (default 200; with masks 4096)" },
        { "split", "NAME", "head: train (default) or val" },
        { 0 }
    };
    return cm_app_main(argc, argv, &(cm_app){
        .name = "tokenize",
        .summary = "turn text, conversations and preferences into token shards",
        .words = "[verify|stats|head DIR]",
        .examples = "  tokenize --config configs/demo.yaml tokenize.inputs='docs/*.md' "
                    "tokenize.out=shards\n"
                    "  cat docs/*.md | tokenize tokenize.inputs=- tokenize.split=blank "
                    "tokenize.vocab_size=1000 tokenize.out=piped\n"
                    "  tokenize tokenize.inputs=chat.jsonl tokenize.out=chat "
                    "tokenize.tokenizer=shards\n"
                    "  tokenize verify shards\n"
                    "  tokenize head shards --docs 3\n",
        .sections = "tokenize",
        .options = options,
        .no_kernels = true,
        .has_done = true,
        .run = run,
    });
}
