/* gguf_tok.c -- a SentencePiece vocabulary as GGUF keys, and back.
 *
 * llama.cpp's "llama" tokenizer is SentencePiece's BPE without a normaliser.  Anything
 * else would tokenize differently there, so it is refused rather than exported. */
#include "model/files.h"

#include <stdlib.h>
#include <string.h>

#define SPACE_MARK "\xe2\x96\x81"

/* Copy of s with every `from` replaced by `to`. */
static char *replace(const char *s, size_t n, const char *from, const char *to,
                     size_t *m) {
    cm_buf b = {0};
    size_t k = strlen(from);
    cm_buf_add(&b, "", 0);
    for (size_t i = 0; i < n;) {
        bool hit = n - i >= k && !memcmp(s + i, from, k);
        cm_buf_add(&b, hit ? to : s + i, hit ? strlen(to) : 1);
        i += hit ? k : 1;
    }
    *m = b.n;
    return b.s ? b.s : cm_strf("%s", "");
}

/* ---- writing ---------------------------------------------------------------------- */

/* llama.cpp merges any two pieces whose sum is a piece, control tokens included. */
static void warn_mergeable(const cm_spm *spm, const char *control) {
    char left[256];
    for (size_t k = 1; k < strlen(control) && k < sizeof left; k++) {
        memcpy(left, control, k);
        left[k] = 0;
        if (cm_spm_id(spm, left) >= 0 && cm_spm_id(spm, control + k) >= 0)
            cm_log(CM_LOG_WARN, "plain text '%s' becomes the control token in llama.cpp: "
                   "'%s' and '%s' are both pieces", control, left, control + k);
    }
}

/* The text of token i; rows of the embedding beyond the tokenizer are unused tokens. */
static cm_gguf_str token_text(const cm_spm *spm, int i, float *score, int32_t *type) {
    size_t n;
    cm_piece_type t = CM_PIECE_UNUSED;
    const char *s = i < cm_spm_vocab(spm) ? cm_spm_piece(spm, i, score, &t) : NULL;
    char *own = s ? cm_strf("%s", s) : cm_strf("<|unused%d|>", i);
    *type = (int32_t)t;
    if (t == CM_PIECE_CONTROL) warn_mergeable(spm, s);
    if (t == CM_PIECE_USER) { /* matched there against raw text */
        free(own);
        own = replace(s, strlen(s), SPACE_MARK, " ", &n);
    }
    return (cm_gguf_str){own, strlen(own)};
}

static void put_pieces(cm_gguf_out *g, const cm_spm *spm, int64_t vocab) {
    size_t V = (size_t)vocab;
    cm_gguf_str *text = calloc(V, sizeof *text);
    float *score = calloc(V, sizeof *score);
    int32_t *type = calloc(V, sizeof *type);
    CM_ASSERT(text && score && type, "out of memory: %zu tokens", V);
    for (int i = 0; i < (int)V; i++) text[i] = token_text(spm, i, &score[i], &type[i]);
    cm_gguf_put_arr(g, "tokenizer.ggml.tokens", CM_GGUF_STR, text, V);
    cm_gguf_put_arr(g, "tokenizer.ggml.scores", CM_GGUF_F32, score, V);
    cm_gguf_put_arr(g, "tokenizer.ggml.token_type", CM_GGUF_I32, type, V);
    for (size_t i = 0; i < V; i++) free((void *)(uintptr_t)text[i].s);
    free(text);
    free(score);
    free(type);
}

static void put_id(cm_gguf_out *g, const char *key, int id) {
    if (id >= 0) cm_gguf_put_u32(g, key, (uint32_t)id);
}

bool cm_gguf_put_tokenizer(cm_gguf_out *g, const cm_spm *spm, int64_t vocab,
                           cm_err *err) {
    if (!spm) {
        cm_gguf_put_str(g, "tokenizer.ggml.model", "none");
        return true;
    }
    if (cm_spm_vocab(spm) > vocab)
        return cm_fail(err, CM_EXIT_DATA, "the tokenizer has %d pieces, the model %lld "
                       "tokens", cm_spm_vocab(spm), (long long)vocab);
    const char *why = cm_spm_unlike_llama(spm);
    if (why)
        return cm_fail(err, CM_EXIT_USAGE, "the tokenizer %s; llama.cpp would tokenize "
                       "differently, so it cannot go into a GGUF file", why);
    cm_gguf_put_str(g, "tokenizer.ggml.model", "llama");
    cm_gguf_put_str(g, "tokenizer.ggml.pre", "default");
    put_pieces(g, spm, vocab);
    put_id(g, "tokenizer.ggml.bos_token_id", cm_spm_bos(spm));
    put_id(g, "tokenizer.ggml.eos_token_id", cm_spm_eos(spm));
    put_id(g, "tokenizer.ggml.unknown_token_id", cm_spm_unk(spm));
    put_id(g, "tokenizer.ggml.padding_token_id", cm_spm_pad(spm));
    cm_chat chat;
    cm_err none;
    if (cm_chat_open(&chat, spm, &none)) /* generation ends with a turn, too */
        put_id(g, "tokenizer.ggml.eot_token_id", chat.end);
    cm_gguf_put_bool(g, "tokenizer.ggml.add_bos_token", cm_spm_bos(spm) >= 0);
    cm_gguf_put_bool(g, "tokenizer.ggml.add_eos_token", false);
    cm_gguf_put_bool(g, "tokenizer.ggml.add_space_prefix", cm_spm_add_dummy_prefix(spm));
    return true;
}

/* ---- reading ---------------------------------------------------------------------- */

typedef struct pieces {
    const char **text;
    size_t *len;
    char **own; /* texts that were changed */
    float *score;
    int *type;
} pieces;

static const cm_gguf_kv *list(const cm_gguf *g, const char *key, int64_t n) {
    const cm_gguf_kv *kv = cm_gguf_find(g, key);
    return kv && kv->type == CM_GGUF_ARR && kv->n >= (uint64_t)n ? kv : NULL;
}

/* An id key: `none` when absent, -1 when it says there is no such token. */
static int id_of(const cm_gguf *g, const char *key, int none, int64_t vocab) {
    const cm_gguf_kv *kv = cm_gguf_find(g, key);
    int64_t v;
    if (!kv) return none < vocab ? none : -1;
    return cm_gguf_i64(kv, 0, &v) && v >= 0 && v < vocab ? (int)v : -1;
}

static bool take_pieces(const cm_gguf *g, int64_t V, pieces *p, cm_err *err) {
    const cm_gguf_kv *text = list(g, "tokenizer.ggml.tokens", V);
    const cm_gguf_kv *score = list(g, "tokenizer.ggml.scores", V);
    const cm_gguf_kv *type = list(g, "tokenizer.ggml.token_type", V);
    if (!text || text->elem != CM_GGUF_STR || text->n != (uint64_t)V || !score || !type)
        return cm_fail(err, CM_EXIT_DATA, "%s: tokenizer.ggml.{tokens,scores,token_type} "
                                          "do "
                       "not describe the model's %lld tokens", g->path, (long long)V);
    const cm_gguf_str *s = text->data;
    for (int64_t i = 0; i < V; i++) {
        double x;
        int64_t t;
        if (!cm_gguf_f64(score, (uint64_t)i, &x) || !cm_gguf_i64(type, (uint64_t)i, &t) ||
            t < 0 || t > CM_PIECE_BYTE)
            return cm_fail(err, CM_EXIT_DATA, "%s: token %lld has no valid score or type",
                           g->path, (long long)i);
        p->score[i] = (float)x;
        p->type[i] = t ? (int)t : CM_PIECE_NORMAL;
        p->text[i] = s[i].s;
        p->len[i] = s[i].n;
        if (t == CM_PIECE_USER)
            p->text[i] = p->own[i] =
                replace(s[i].s, s[i].n, " ", SPACE_MARK, &p->len[i]);
    }
    return true;
}

static bool build(const cm_gguf *g, int64_t V, const pieces *p, cm_spm **spm,
                  cm_err *err) {
    const cm_gguf_kv *space = cm_gguf_find(g, "tokenizer.ggml.add_space_prefix");
    bool prefix = !space || space->type != CM_GGUF_BOOL || space->v.b;
    cm_buf proto = {0};
    cm_err why;
    bool ok = cm_spm_build(p->text, p->len, p->score, p->type, (int)V,
                           id_of(g, "tokenizer.ggml.bos_token_id", 1, V),
                           id_of(g, "tokenizer.ggml.eos_token_id", 2, V),
                           id_of(g, "tokenizer.ggml.unknown_token_id", 0, V),
                           id_of(g, "tokenizer.ggml.padding_token_id", -1, V), prefix,
                           &proto, &why);
    if (ok) *spm = cm_spm_open_bytes(proto.s, proto.n, &why);
    cm_buf_free(&proto);
    return (ok && *spm) ||
           cm_fail(err, CM_EXIT_DATA, "%s: tokenizer: %s", g->path, why.msg);
}

bool cm_gguf_tokenizer(const cm_gguf *g, int64_t vocab, cm_spm **spm, cm_err *err) {
    const cm_gguf_kv *kind = cm_gguf_find(g, "tokenizer.ggml.model");
    *spm = NULL;
    if (!kind || kind->type != CM_GGUF_STR) return true;
    if (kind->v.s.n != 5 || memcmp(kind->v.s.s, "llama", 5)) {
        if (kind->v.s.n != 4 || memcmp(kind->v.s.s, "none", 4))
            cm_log(CM_LOG_WARN, "%s: its tokenizer ('%.*s') is not SentencePiece BPE and "
                                "is "
                   "left out", g->path, (int)(kind->v.s.n < 32 ? kind->v.s.n : 32),
                   kind->v.s.s);
        return true;
    }
    size_t V = (size_t)vocab;
    pieces p = {calloc(V, sizeof *p.text), calloc(V, sizeof *p.len),
                calloc(V, sizeof *p.own), calloc(V, sizeof *p.score),
                calloc(V, sizeof *p.type)};
    CM_ASSERT(p.text && p.len && p.own && p.score && p.type, "out of memory: %zu tokens",
              V);
    bool ok = take_pieces(g, vocab, &p, err) && build(g, vocab, &p, spm, err);
    for (size_t i = 0; i < V; i++) free(p.own[i]);
    free(p.text);
    free(p.len);
    free(p.own);
    free(p.score);
    free(p.type);
    return ok;
}

/* ---- beside other work ------------------------------------------------------------------ */

static void *run_beside(void *arg) {
    cm_tokenizing *t = arg;
    t->ok = cm_gguf_tokenizer(t->g, t->vocab, t->spm, &t->err);
    return NULL;
}

void cm_tokenizing_begin(cm_tokenizing *t, const cm_gguf *g, int64_t vocab, cm_spm **spm) {
    *t = (cm_tokenizing){.g = g, .vocab = vocab, .spm = spm};
    t->apart = !pthread_create(&t->thread, NULL, run_beside, t);
}

bool cm_tokenizing_end(cm_tokenizing *t, bool so_far, cm_err *err) {
    if (t->apart) pthread_join(t->thread, NULL);
    else if (so_far) run_beside(t);
    if (so_far && !t->ok) *err = t->err;
    return so_far && t->ok;
}
