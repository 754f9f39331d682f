/* shard_set.c -- a data set: the shards of a manifest read as one stream per split.
 *
 * Any thread may read anything.  Decoded frames sit in a small table of slots; a frame
 * has one slot it can be in, guarded by that slot's lock, so threads meet only when they
 * want the same slot. */
#include "io/shard_int.h"
#include "io/shard_manifest.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

enum { SLOTS = 32 };

typedef struct slot {
    pthread_mutex_t lock;
    const cm_shard *shard; /* NULL = empty */
    uint64_t frame;
    ZSTD_DCtx *dctx;
    uint8_t *raw; /* of the largest frame there is */
    uint8_t *mask; /* its masks, packed; NULL: a kind without */
} slot;

typedef struct cm_frame_cache {
    slot s[SLOTS];
} cm_frame_cache;

static void cache_close(cm_frame_cache *c) {
    if (!c) return;
    for (int i = 0; i < SLOTS; i++) {
        pthread_mutex_destroy(&c->s[i].lock);
        ZSTD_freeDCtx(c->s[i].dctx);
        free(c->s[i].raw);
        free(c->s[i].mask);
    }
    free(c);
}

/* All memory that reading will ever want, for a training step must not allocate: as many
 * slots as there are frames, SLOTS at most. */
static bool cache_open(cm_dataset *d, cm_err *err) {
    cm_frame_cache *c = d->cache = calloc(1, sizeof *c);
    if (!c) return cm_fail_errno(err, CM_EXIT_RESOURCE, "%s", d->dir);
    size_t need = 0, tokens = 0;
    uint64_t most = 0;
    for (int sp = 0; sp < 2; sp++)
        for (int i = 0; i < d->n_shard[sp]; i++) {
            const cm_shard *s = &d->shard[sp][i];
            size_t bytes = (size_t)s->h.frame_tokens * s->h.token_bytes;
            uint64_t end = (uint64_t)s->first_frame + s->h.n_frames;
            need = bytes > need ? bytes : need;
            tokens = s->h.frame_tokens > tokens ? s->h.frame_tokens : tokens;
            most = end > most ? end : most;
        }
    for (int i = 0; i < SLOTS; i++) pthread_mutex_init(&c->s[i].lock, NULL);
    for (uint64_t i = 0; i < SLOTS && i < most; i++) {
        c->s[i].dctx = ZSTD_createDCtx();
        c->s[i].raw = malloc(need);
        bool masked = cm_shard_masked(d->kind);
        if (masked) c->s[i].mask = malloc(cm_shard_mask_bytes((int64_t)tokens));
        if (!c->s[i].dctx || !c->s[i].raw || (masked && !c->s[i].mask))
            return cm_fail_errno(err, CM_EXIT_RESOURCE, "%s", d->dir);
    }
    return true;
}

/* ---- opening ---- */

static bool matches(const cm_shard *s, const cm_shard_info *want, const cm_manifest *m,
                    cm_split sp, int index, cm_err *err) {
    const cm_shard_head *h = &s->h;
    if ((int64_t)s->map.size != want->size || strcmp(h->id, want->id))
        return cm_fail(err, CM_EXIT_DATA, "%s: not the file that the manifest lists (its "
                       "id is %.8s, the manifest says %.8s)", s->path, h->id, want->id);
    if (h->split != sp || h->index != (uint32_t)index ||
        (int64_t)h->n_tokens != want->n_tokens || (int64_t)h->n_docs != want->n_docs ||
        (int64_t)h->n_bytes != want->n_bytes ||
        (int64_t)h->n_answer != want->n_answer ||
        (int64_t)h->n_reasoning != want->n_reasoning)
        return cm_fail(err, CM_EXIT_DATA, "%s: split, position or counts differ from the "
                       "manifest's", s->path);
    if (strcmp(h->tokenizer, m->c.tokenizer))
        return cm_fail(err, CM_EXIT_DATA, "%s: made with tokenizer %.8s, the manifest says "
                       "%.8s", s->path, h->tokenizer, m->c.tokenizer);
    if (strcmp(h->pipeline, m->c.pipeline) || h->kind != m->c.kind ||
        h->flags != m->c.flags || h->vocab != (uint32_t)m->c.vocab ||
        h->bos != m->c.bos || h->eos != m->c.eos || h->pad != m->c.pad)
        return cm_fail(err, CM_EXIT_DATA, "%s: recipe, kind, vocabulary or special tokens "
                       "differ from the manifest's", s->path);
    return true;
}

static bool open_split(cm_dataset *d, const cm_manifest *m, cm_split sp, cm_err *err) {
    int n = m->n_shard[sp];
    d->shard[sp] = calloc((size_t)n + 1, sizeof *d->shard[sp]);
    if (!d->shard[sp]) return cm_fail_errno(err, CM_EXIT_RESOURCE, "%s", d->dir);
    int64_t token = 0, doc = 0, frame = 0;
    for (int i = 0; i < n; i++) {
        cm_shard *s = &d->shard[sp][i];
        char *path = cm_strf("%s/%s", d->dir, m->shard[sp][i].file);
        bool ok = cm_shard_open(s, path, err);
        free(path);
        if (!ok) return false;
        d->n_shard[sp]++;
        if (!matches(s, &m->shard[sp][i], m, sp, i, err)) return false;
        memcpy(s->sha256, m->shard[sp][i].sha256, sizeof s->sha256);
        s->first_token = token;
        s->first_doc = doc;
        s->first_frame = frame;
        token += (int64_t)s->h.n_tokens;
        doc += (int64_t)s->h.n_docs;
        frame += (int64_t)s->h.n_frames;
        d->n_stored[sp] += (int64_t)s->map.size;
    }
    return true;
}

static bool check_tokenizer(const cm_dataset *d, cm_err *err) {
    char hex[65];
    if (!cm_sha_file(d->tokenizer_path, hex, err)) {
        err->code = CM_EXIT_DATA;
        return false;
    }
    if (strcmp(hex, d->tokenizer))
        return cm_fail(err, CM_EXIT_DATA, "%s: not the tokenizer of this data set (its "
                       "hash is %.8s, the manifest says %.8s)", d->tokenizer_path, hex,
                       d->tokenizer);
    return true;
}

static bool find_manifest(cm_dataset *d, const char *path, char **manifest, cm_err *err) {
    struct stat st;
    if (strlen(path) + 32 > sizeof d->dir)
        return cm_fail(err, CM_EXIT_USAGE, "%.64s...: path too long", path);
    if (!cm_need_input(path, err)) return false;
    snprintf(d->dir, sizeof d->dir, "%s", path);
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
        *manifest = cm_strf("%s/manifest.json", path);
        if (cm_exists(*manifest)) return true;
        free(*manifest);
        return cm_fail(err, CM_EXIT_DATA, "%s: no manifest.json here: not a data set, or "
                       "`tokenize` has not finished it", path);
    }
    char *slash = strrchr(d->dir, '/');
    if (slash) *slash = 0;
    else snprintf(d->dir, sizeof d->dir, ".");
    *manifest = cm_strf("%s", path);
    return true;
}

bool cm_dataset_open(cm_dataset *d, const char *path, cm_err *err) {
    memset(d, 0, sizeof *d);
    char *file = NULL;
    if (!find_manifest(d, path, &file, err)) return false;
    cm_manifest m;
    bool ok = cm_manifest_read(&m, file, err);
    free(file);
    if (!ok) return false;
    memcpy(d->id, m.id, sizeof d->id);
    memcpy(d->tokenizer, m.c.tokenizer, sizeof d->tokenizer);
    memcpy(d->n_tokens, m.n_tokens, sizeof d->n_tokens);
    memcpy(d->n_docs, m.n_docs, sizeof d->n_docs);
    memcpy(d->n_bytes, m.n_bytes, sizeof d->n_bytes);
    memcpy(d->n_answer, m.n_answer, sizeof d->n_answer);
    memcpy(d->n_reasoning, m.n_reasoning, sizeof d->n_reasoning);
    snprintf(d->tokenizer_path, sizeof d->tokenizer_path, "%s/%s", d->dir, m.tokenizer);
    d->kind = m.c.kind;
    d->flags = m.c.flags;
    d->vocab = m.c.vocab;
    d->bos = m.c.bos;
    d->eos = m.c.eos;
    d->pad = m.c.pad;
    ok = open_split(d, &m, CM_SPLIT_TRAIN, err) && open_split(d, &m, CM_SPLIT_VAL, err) &&
         cache_open(d, err) && check_tokenizer(d, err);
    cm_manifest_free(&m);
    if (!ok) cm_dataset_close(d);
    return ok;
}

void cm_dataset_close(cm_dataset *d) {
    for (int sp = 0; sp < 2; sp++) {
        for (int i = 0; i < d->n_shard[sp]; i++) cm_shard_close(&d->shard[sp][i]);
        free(d->shard[sp]);
    }
    cache_close(d->cache);
    memset(d, 0, sizeof *d);
}

/* ---- reading ---- */

/* The shard of a split that holds token (or document) number `at`: the last one that
 * starts at or before it. */
static const cm_shard *shard_at(const cm_dataset *d, cm_split sp, int64_t at, bool doc) {
    int lo = 0, hi = d->n_shard[sp] - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        const cm_shard *s = &d->shard[sp][mid];
        if ((doc ? s->first_doc : s->first_token) <= at) lo = mid;
        else hi = mid - 1;
    }
    return &d->shard[sp][lo];
}

static bool load(slot *t, const cm_shard *s, uint64_t frame, cm_err *err) {
    if (t->shard == s && t->frame == frame) return true;
    t->shard = NULL;
    if (!cm_shard_frame(s, frame, t->dctx, t->raw, err) ||
        (s->mask_at && !cm_shard_mask(s, frame, t->dctx, t->mask, err)))
        return false;
    t->shard = s;
    t->frame = frame;
    return true;
}

/* Tokens [at, at+n) of one shard, or their masks: one of out and mask is NULL. */
static bool read_shard(const cm_dataset *d, const cm_shard *s, int64_t at, int64_t n,
                       int32_t *out, uint8_t *mask, cm_err *err) {
    while (n > 0) {
        uint64_t f = (uint64_t)at / s->h.frame_tokens;
        int64_t skip = at - (int64_t)(f * s->h.frame_tokens);
        int64_t take = cm_shard_frame_len(s, f) - skip;
        if (take > n) take = n;
        slot *t = &d->cache->s[(s->first_frame + (int64_t)f) % SLOTS];
        pthread_mutex_lock(&t->lock);
        bool ok = load(t, s, f, err);
        for (int64_t i = 0; ok && out && i < take; i++)
            out[i] = cm_shard_token(s, t->raw, skip + i);
        for (int64_t i = 0; ok && mask && i < take; i++)
            mask[i] = cm_shard_mask_at(t->mask, skip + i);
        pthread_mutex_unlock(&t->lock);
        if (!ok) return false;
        at += take;
        if (out) out += take;
        if (mask) mask += take;
        n -= take;
    }
    return true;
}

static int64_t doc_at(const cm_shard *s, uint64_t token) {
    uint64_t lo = 0, hi = s->h.n_docs - 1;
    while (lo < hi) {
        uint64_t mid = (lo + hi + 1) / 2;
        if (s->doc[mid].start <= token) lo = mid;
        else hi = mid - 1;
    }
    return (int64_t)lo;
}

static void label_docs(const cm_shard *s, int64_t at, int64_t n, int64_t *doc) {
    int64_t k = doc_at(s, (uint64_t)at);
    for (int64_t i = 0; i < n; i++) {
        while ((uint64_t)(at + i) >= s->doc[k + 1].start) k++;
        doc[i] = s->first_doc + k;
    }
}

bool cm_dataset_read(const cm_dataset *d, cm_split split, int64_t start, int64_t n,
                     int32_t *out, int64_t *doc, cm_err *err) {
    CM_ASSERT(start >= 0 && n >= 0 && n <= d->n_tokens[split] - start,
              "tokens [%" PRId64 ",+%" PRId64 ") of %" PRId64, start, n,
              d->n_tokens[split]);
    while (n > 0) {
        const cm_shard *s = shard_at(d, split, start, false);
        int64_t at = start - s->first_token, take = (int64_t)s->h.n_tokens - at;
        if (take > n) take = n;
        if (!read_shard(d, s, at, take, out, NULL, err)) return false;
        if (doc) {
            label_docs(s, at, take, doc);
            doc += take;
        }
        out += take;
        start += take;
        n -= take;
    }
    return true;
}

bool cm_dataset_masks(const cm_dataset *d, cm_split split, int64_t start, int64_t n,
                      uint8_t *out, cm_err *err) {
    CM_ASSERT(start >= 0 && n >= 0 && n <= d->n_tokens[split] - start,
              "masks [%" PRId64 ",+%" PRId64 ") of %" PRId64, start, n, d->n_tokens[split]);
    if (!cm_shard_masked(d->kind)) memset(out, 0, (size_t)n);
    while (cm_shard_masked(d->kind) && n > 0) {
        const cm_shard *s = shard_at(d, split, start, false);
        int64_t at = start - s->first_token, take = (int64_t)s->h.n_tokens - at;
        if (take > n) take = n;
        if (!read_shard(d, s, at, take, NULL, out, err)) return false;
        out += take;
        start += take;
        n -= take;
    }
    return true;
}

static bool find_doc(const cm_dataset *d, cm_split split, int64_t i, const cm_shard **s,
                     const cm_shard_doc **doc, cm_err *err) {
    if (i < 0 || i >= d->n_docs[split])
        return cm_fail(err, CM_EXIT_USAGE, "%s: document %" PRId64 " of %" PRId64
                       " in split '%s'", d->dir, i, d->n_docs[split],
                       cm_split_name(split));
    *s = shard_at(d, split, i, true);
    *doc = &(*s)->doc[i - (*s)->first_doc];
    return true;
}

bool cm_dataset_doc(const cm_dataset *d, cm_split split, int64_t i, int64_t *start,
                    int64_t *n, int64_t *bytes, cm_err *err) {
    const cm_shard *s;
    const cm_shard_doc *doc;
    if (!find_doc(d, split, i, &s, &doc, err)) return false;
    *start = s->first_token + (int64_t)doc[0].start;
    *n = (int64_t)(doc[1].start - doc[0].start);
    *bytes = doc[0].bytes;
    return true;
}

bool cm_dataset_trained(const cm_dataset *d, cm_split split, int64_t i, int64_t *answer,
                        int64_t *reasoning, cm_err *err) {
    const cm_shard *s;
    const cm_shard_doc *doc;
    if (!find_doc(d, split, i, &s, &doc, err)) return false;
    const cm_shard_trained *t = s->trained ? &s->trained[doc - s->doc] : NULL;
    *answer = t ? t->answer : 0;
    *reasoning = t ? t->reasoning : 0;
    return true;
}

bool cm_dataset_origin(const cm_dataset *d, cm_split split, int64_t i, uint32_t *source,
                       uint64_t *line, cm_err *err) {
    const cm_shard *s;
    const cm_shard_doc *doc;
    if (!find_doc(d, split, i, &s, &doc, err)) return false;
    *source = doc->source;
    *line = doc->line;
    return true;
}

static bool verify_shard(const cm_shard *s, cm_err *err) {
    char hex[65];
    if (!cm_shard_scan(s, err)) return false;
    cm_sha_bytes(s->map.data, s->map.size, hex);
    return !strcmp(hex, s->sha256) ||
           cm_fail(err, CM_EXIT_DATA, "%s: SHA-256 is %.8s..., the manifest says %.8s...",
                   s->path, hex, s->sha256);
}

bool cm_dataset_verify(const cm_dataset *d, cm_err *err) {
    int n = d->n_shard[0] + d->n_shard[1], bad = n;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < n; i++) {
        cm_split sp = i < d->n_shard[0] ? CM_SPLIT_TRAIN : CM_SPLIT_VAL;
        cm_err mine;
        if (verify_shard(&d->shard[sp][sp ? i - d->n_shard[0] : i], &mine)) continue;
#pragma omp critical(cm_dataset_verify)
        if (i < bad) { /* the first in order, whichever thread finds it */
            bad = i;
            *err = mine;
        }
    }
    return bad == n;
}
