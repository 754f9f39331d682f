/* prompt.c -- prompts that were read before: keys, values and states in a file.
 *
 * The file holds one text: its tokens, their keys and values, the logits after the last one,
 * and the conv and SSM states after some multiples of CM_PIECE tokens and after all.  A text
 * that begins alike goes on from the last of these points within what they share.  Prompts
 * are read in pieces of CM_PIECE from their start, so what follows has the bits it has
 * without the file.  Layout: struct head, tokens int32[n], points uint64[points], states
 * [points][state], logits[vocab], keys then values of each attention layer [n][row], and the
 * SHA-256 of all before as 64 hexadecimal digits. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { POINTS = 6, VERSION = 2, HEX = 64 };
static const char MAGIC[8] = "CMPROMPT";

typedef struct head {
    char magic[8];
    char model[64], kernels[64]; /* SHA-256 of the weights; what else decides about bits */
    char kv[8];                  /* type of keys and values, as in generate.kv */
    uint64_t version, n, points, state, vocab, row, layers;
} head;

typedef struct cache {
    cm_map map;
    head h;
    const unsigned char *token, *point, *state, *logits, *kv;
} cache;

/* ---- sizes --------------------------------------------------------------------------------- */

static uint64_t kv_layers(const cm_model_conf *c) {
    uint64_t n = 0;
    for (int64_t i = 0; i < c->n_layers; i++) n += cm_layer_is_attention(c, i);
    return n;
}

static head head_of(const cm_session *s, const char *model, uint64_t n, uint64_t points) {
    const cm_model_conf *c = &s->m->conf;
    head h = { .version = VERSION, .n = n, .points = points, .state = cm_snapshot_bytes(c),
               .vocab = (uint64_t)c->vocab_size, .row = cm_state_row_bytes(&s->st, c),
               .layers = kv_layers(c) };
    memcpy(h.magic, MAGIC, sizeof h.magic);
    memcpy(h.model, model, strlen(model) < HEX ? strlen(model) : HEX);
    const char *how = cm_kern_describe();
    snprintf(h.kernels, sizeof h.kernels, "%s",
             strstr(how, "strict") ? cm_level_name(cm_kern_level()) : how);
    snprintf(h.kv, sizeof h.kv, "%s", cm_kv_name(s->st.kv));
    return h;
}

/* Bytes of the file; the counts are below 2^31 each. */
static uint64_t file_bytes(const head *h) {
    return sizeof *h + 4 * h->n + (8 + h->state) * h->points + sizeof(cm_real) * h->vocab +
           2 * h->layers * h->row * h->n + HEX;
}

/* ---- reading ------------------------------------------------------------------------------- */

static bool check_head(const cache *k, const head *want, const char *path, cm_err *err) {
    const head *h = &k->h;
    if (memcmp(h->magic, MAGIC, sizeof h->magic) || h->version != VERSION)
        return cm_fail(err, CM_EXIT_DATA, "%s: no prompt cache of this version", path);
    if (memcmp(h->model, want->model, sizeof h->model))
        return cm_fail(err, CM_EXIT_DATA, "%s: the prompt cache of another model (weights "
                       "%.12s), this one's are %.12s", path, h->model, want->model);
    if (memcmp(h->kernels, want->kernels, sizeof h->kernels))
        return cm_fail(err, CM_EXIT_DATA, "%s: a prompt cache made by kernels '%.60s', these are "
                       "'%.60s' and round otherwise", path, h->kernels, want->kernels);
    if (memcmp(h->kv, want->kv, sizeof h->kv))
        return cm_fail(err, CM_EXIT_DATA, "%s: a prompt cache of %.8s keys and values, "
                       "generate.kv is %s", path, h->kv, want->kv);
    if (h->state != want->state || h->vocab != want->vocab || h->row != want->row ||
        h->layers != want->layers)
        return cm_fail(err, CM_EXIT_DATA, "%s: a prompt cache with states of other sizes than "
                       "this model's", path);
    if (!h->n || h->n > INT32_MAX || !h->points || h->points > POINTS)
        return cm_fail(err, CM_EXIT_DATA, "%s: a prompt cache of %llu tokens and %llu points",
                       path, (unsigned long long)h->n, (unsigned long long)h->points);
    if (k->map.size != file_bytes(h))
        return cm_fail(err, CM_EXIT_DATA, "%s: a prompt cache of %zu bytes, wanted %llu: damaged; "
                       "it can be deleted", path, k->map.size, (unsigned long long)file_bytes(h));
    return true;
}

static uint64_t point(const cache *k, uint64_t i) {
    uint64_t p;
    memcpy(&p, k->point + 8 * i, sizeof p);
    return p;
}

static bool open_cache(cache *k, const char *path, const head *want, cm_err *err) {
    char hex[HEX + 1];
    if (!cm_need_input(path, err) || !cm_map_open(&k->map, path, err)) return false;
    if (k->map.size < sizeof k->h + HEX)
        return cm_fail(err, CM_EXIT_DATA, "%s: a prompt cache of %zu bytes", path, k->map.size);
    memcpy(&k->h, k->map.data, sizeof k->h);
    if (!check_head(k, want, path, err)) return false;
    k->token = k->map.data + sizeof k->h;
    k->point = k->token + 4 * k->h.n;
    k->state = k->point + 8 * k->h.points;
    k->logits = k->state + k->h.state * k->h.points;
    k->kv = k->logits + sizeof(cm_real) * k->h.vocab;
    cm_sha_bytes(k->map.data, k->map.size - HEX, hex);
    bool good = !memcmp(hex, k->map.data + k->map.size - HEX, HEX);
    for (uint64_t i = 0; i < k->h.points && good; i++)
        good = point(k, i) <= k->h.n && (i ? point(k, i) > point(k, i - 1) : point(k, i) > 0);
    good = good && point(k, k->h.points - 1) == k->h.n;
    return good ||
           cm_fail(err, CM_EXIT_DATA, "%s: a damaged prompt cache; it can be deleted", path);
}

/* Tokens that the two texts begin with alike. */
static int64_t shared(const cache *k, const int32_t *text, int64_t n) {
    int64_t i = 0;
    for (; i < n && i < (int64_t)k->h.n; i++) {
        int32_t id;
        memcpy(&id, k->token + 4 * i, sizeof id);
        if (id != text[i]) break;
    }
    return i;
}

/* The last point from which the text can be read on; -1: none. */
static int64_t best_point(const cache *k, const int32_t *text, int64_t n) {
    int64_t same = shared(k, text, n), best = -1;
    for (uint64_t i = 0; i < k->h.points; i++) {
        int64_t p = (int64_t)point(k, i);
        bool whole = p == n && p == (int64_t)k->h.n; /* its logits are here */
        if (p <= same && ((p < n && p % CM_PIECE == 0) || whole)) best = (int64_t)i;
    }
    return best;
}

/* Go to point i of a text of n tokens. */
static void restore(cm_decoder *d, const cache *k, int64_t i, int64_t n) {
    size_t held = (size_t)point(k, (uint64_t)i), row = k->h.row;
    cm_snapshot snap = { (int)held, k->h.state, NULL };
    snap.data = malloc(k->h.state ? k->h.state : 1);
    CM_ASSERT(snap.data, "out of memory: %zu bytes of a snapshot", (size_t)k->h.state);
    memcpy(snap.data, k->state + (size_t)i * k->h.state, k->h.state);
    cm_session_restore(&d->s, &snap);
    free(snap.data);
    const unsigned char *from = k->kv;
    for (int64_t l = 0; l < d->s.m->conf.n_layers; l++) {
        cm_kv *kv = &d->s.st.layer[l].kv;
        if (!kv->k) continue;
        memcpy(kv->k, from, held * row);
        memcpy(kv->v, from + k->h.n * row, held * row);
        from += 2 * k->h.n * row;
    }
    d->fed = (int64_t)held;
    d->ready = d->fed == n;
    if (d->ready) memcpy(d->logits, k->logits, k->h.vocab * sizeof *d->logits);
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Snapshots after multiples of `stride` tokens, and the last one after all. */
typedef struct points {
    cm_snapshot at[POINTS];
    int n;
    int64_t stride;
} points;

static void free_points(points *p) {
    for (int i = 0; i < POINTS; i++) free(p->at[i].data);
}

static bool take(points *p, const cm_session *s, cm_err *err) {
    CM_ASSERT(p->n < POINTS, "%d points of a prompt", p->n);
    return cm_snapshot_take(&p->at[p->n], s, err) && ++p->n;
}

/* The points of the file that belong to the new one, too. */
static bool inherit(points *p, const cache *k, int64_t upto, cm_err *err) {
    for (uint64_t i = 0; i < k->h.points; i++) {
        int64_t held = (int64_t)point(k, i);
        if (held > upto || held % p->stride) continue;
        cm_snapshot *to = &p->at[p->n++];
        *to = (cm_snapshot){ (int)held, k->h.state, malloc(k->h.state ? k->h.state : 1) };
        if (!to->data) return cm_fail(err, CM_EXIT_RESOURCE, "out of memory for a snapshot");
        memcpy(to->data, k->state + i * k->h.state, k->h.state);
    }
    return true;
}

/* Read on to the end of the text, leaving points. */
static bool read_on(cm_decoder *d, const int32_t *text, int64_t n, points *p, cm_err *err) {
    while (d->fed < n) {
        int64_t rest = n - d->fed, step = rest < CM_PIECE ? rest : CM_PIECE;
        cm_real *last = step == rest ? d->logits : NULL;
        bool ok = cm_session_feed(&d->s, text + d->fed, step, NULL, last, err);
        d->fed = d->s.st.held[0];
        if (!ok) return false;
        d->ready = step == rest;
        if (d->fed < n && d->fed % p->stride == 0 && !take(p, &d->s, err)) return false;
    }
    return take(p, &d->s, err);
}

typedef struct sink {
    cm_out out;
    cm_sha *sha;
} sink;

static bool put(sink *o, const void *p, size_t n, cm_err *err) {
    cm_sha_add(o->sha, p, n);
    return cm_out_write(&o->out, p, n, err);
}

static bool put_all(sink *o, const cm_decoder *d, const head *h, const int32_t *text,
                    const points *p, cm_err *err) {
    bool ok = put(o, h, sizeof *h, err) && put(o, text, 4 * h->n, err);
    for (int i = 0; ok && i < p->n; i++)
        ok = put(o, &(uint64_t){ (uint64_t)p->at[i].held }, 8, err);
    for (int i = 0; ok && i < p->n; i++) ok = put(o, p->at[i].data, h->state, err);
    ok = ok && put(o, d->logits, h->vocab * sizeof *d->logits, err);
    for (int64_t l = 0; ok && l < d->s.m->conf.n_layers; l++) {
        const cm_kv *kv = &d->s.st.layer[l].kv;
        if (kv->k) ok = put(o, kv->k, h->n * h->row, err) && put(o, kv->v, h->n * h->row, err);
    }
    return ok;
}

static bool write_cache(const cm_decoder *d, const char *path, const head *h,
                        const int32_t *text, const points *p, cm_err *err) {
    sink o;
    char hex[HEX + 1];
    if (!cm_out_open(&o.out, path, err)) return false;
    o.sha = cm_sha_open();
    bool ok = put_all(&o, d, h, text, p, err);
    cm_sha_close(o.sha, hex);
    if (ok && cm_out_write(&o.out, hex, HEX, err)) return cm_out_commit(&o.out, err);
    cm_out_abort(&o.out);
    return false;
}

/* In a folder texts that share their first piece share a file. */
static char *file_in(const char *path, const head *h, const int32_t *text, int64_t n) {
    struct stat st;
    if (stat(path, &st) || !S_ISDIR(st.st_mode)) return cm_strf("%s", path);
    char hex[HEX + 1];
    cm_sha *sha = cm_sha_open();
    cm_sha_add(sha, h->model, sizeof h->model);
    cm_sha_add(sha, h->kernels, sizeof h->kernels);
    cm_sha_add(sha, h->kv, sizeof h->kv);
    cm_sha_add(sha, &h->row, sizeof h->row);
    cm_sha_add(sha, text, 4 * (size_t)(n < CM_PIECE ? n : CM_PIECE));
    cm_sha_close(sha, hex);
    return cm_strf("%s/%.16s.prompt", path, hex);
}

bool cm_decoder_read_cached(cm_decoder *d, const int32_t *text, int64_t n, const char *path,
                            const char *model_id, int64_t *reused, cm_err *unkept, cm_err *err) {
    unkept->code = CM_EXIT_OK;
    CM_ASSERT(!d->fed && n >= 1, "%lld tokens were read of %lld", (long long)d->fed, (long long)n);
    if (n > d->s.cap)
        return cm_fail(err, CM_EXIT_USAGE, "the text needs %lld tokens but the session has room "
                       "for %d", (long long)n, d->s.cap);
    cache k = { 0 };
    points p = { .stride = CM_PIECE };
    while ((n - 1) / p.stride > POINTS - 1) p.stride *= 2;
    head h = head_of(&d->s, model_id, (uint64_t)n, 0);
    char *file = file_in(path, &h, text, n);
    bool ok = true, known = false;
    if (cm_exists(file)) {
        ok = open_cache(&k, file, &h, err);
        int64_t i = ok ? best_point(&k, text, n) : -1;
        known = ok && shared(&k, text, n) == n;
        if (i >= 0) restore(d, &k, i, n);
        ok = ok && inherit(&p, &k, d->ready ? 0 : d->fed, err);
    }
    *reused = d->fed;
    ok = ok && (known || cm_need_folder_of(file, false, err)); /* before the work */
    if (ok && !d->ready) ok = read_on(d, text, n, &p, err);
    h.points = (uint64_t)p.n;
    if (ok && !known) write_cache(d, file, &h, text, &p, unkept);
    free_points(&p);
    cm_map_close(&k.map);
    free(file);
    return ok;
}
