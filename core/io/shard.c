/* shard.c -- one token shard: its header, its index, its frames.
 *
 * The reader trusts nothing: a length is compared with the bytes that are there before it
 * is used, and hashes are checked before the decompressor sees the data. */
#include "io/shard_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

static const char magic[8] = { 'C', 'H', 'I', 'M', 'S', 'H', 'R', 'D' };

void cm_hex_to_bytes(const char *hex, uint8_t *out, int n) {
    for (int i = 0; i < n; i++) {
        int v = 0;
        for (int k = 0; k < 2; k++) {
            char c = hex[2 * i + k];
            v = v * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
        }
        out[i] = (uint8_t)v;
    }
}

void cm_bytes_to_hex(const uint8_t *b, int n, char *hex) {
    for (int i = 0; i < n; i++) snprintf(hex + 2 * i, 3, "%02x", b[i]);
}

void cm_frame_hash(const void *p, size_t n, uint8_t out[CM_SH_FRAME_HASH]) {
    char hex[65];
    cm_sha_bytes(p, n, hex);
    cm_hex_to_bytes(hex, out, CM_SH_FRAME_HASH);
}

/* ---- header ---- */

/* One line a field: the layout, read by both directions. */
#define NUMBERS(X)                                                                      \
    X(kind, 16, 1) X(token_bytes, 17, 1) X(split, 18, 1) X(flags, 19, 1)                \
    X(frame_tokens, 20, 4) X(index, 24, 4) X(vocab, 28, 4)                              \
    X(n_tokens, 48, 8) X(n_docs, 56, 8) X(n_bytes, 64, 8) X(n_frames, 72, 8)            \
    X(data_bytes, 80, 8) X(meta_bytes, 88, 8) X(n_answer, 224, 8) X(n_reasoning, 232, 8)
#define IDS(X) X(bos, 32) X(eos, 36) X(pad, 40)
#define HASHES(X) X(tokenizer, 96) X(pipeline, 128) X(docs, 160) X(meta, 192)
enum { VERSION = 1, OWN_HASH = 240 };

void cm_shard_head_put(cm_shard_head *h, uint8_t out[CM_SH_DATA]) {
    memset(out, 0, CM_SH_DATA);
    cm_put_le(out, CM_SH_MAGIC_HEAD, 4);
    cm_put_le(out + 4, CM_SH_HEAD, 4);
    uint8_t *p = out + 8;
    memcpy(p, magic, 8);
    cm_put_le(p + 8, VERSION, 2);
    cm_put_le(p + 12, CM_SH_HEAD, 4);
#define X(name, at, bytes) cm_put_le(p + at, h->name, bytes);
    NUMBERS(X)
#undef X
#define X(name, at) cm_put_le(p + at, (uint32_t)h->name, 4);
    IDS(X)
#undef X
#define X(name, at) cm_hex_to_bytes(h->name, p + at, 32);
    HASHES(X)
#undef X
    char hex[65];
    cm_sha_bytes(p, OWN_HASH, hex);
    memcpy(h->id, hex, 32);
    h->id[32] = 0;
    cm_hex_to_bytes(hex, p + OWN_HASH, 16);
}

static bool head_sane(const cm_shard_head *h, const char *path, cm_err *err) {
    if (h->kind > CM_SHARD_EVAL || h->split > CM_SPLIT_VAL)
        return cm_fail(err, CM_EXIT_DATA, "%s: header: unknown kind %d or split %d", path,
                       h->kind, h->split);
    if (h->token_bytes != 2 && h->token_bytes != 4)
        return cm_fail(err, CM_EXIT_DATA, "%s: header: %d bytes per token, want 2 or 4",
                       path, h->token_bytes);
    if (h->frame_tokens < 1 || h->frame_tokens > CM_SH_MAX_FRAME)
        return cm_fail(err, CM_EXIT_DATA, "%s: header: %u tokens per frame, want 1 to %d",
                       path, h->frame_tokens, CM_SH_MAX_FRAME);
    if (h->vocab < 1 || h->vocab > INT32_MAX || (h->token_bytes == 2 && h->vocab > 65536))
        return cm_fail(err, CM_EXIT_DATA, "%s: header: vocabulary of %u", path, h->vocab);
    uint64_t frames = h->n_tokens / h->frame_tokens + (h->n_tokens % h->frame_tokens > 0);
    if (h->n_tokens < 1 || h->n_tokens > INT64_MAX / 8 || h->n_frames != frames)
        return cm_fail(err, CM_EXIT_DATA, "%s: header: %" PRIu64 " tokens in %" PRIu64
                       " frames of %u", path, h->n_tokens, h->n_frames, h->frame_tokens);
    if (h->n_docs < 1 || h->n_docs > h->n_tokens)
        return cm_fail(err, CM_EXIT_DATA, "%s: header: %" PRIu64 " documents in %" PRIu64
                       " tokens", path, h->n_docs, h->n_tokens);
    if (h->kind == CM_SHARD_DPO && h->n_docs % 2)
        return cm_fail(err, CM_EXIT_DATA, "%s: header: %" PRIu64 " documents are not pairs",
                       path, h->n_docs);
    return true;
}

bool cm_shard_head_get(cm_shard_head *h, const char *path, const uint8_t *f, size_t n,
                       cm_err *err) {
    if (n < CM_SH_DATA || cm_get_le(f, 4) != CM_SH_MAGIC_HEAD || memcmp(f + 8, magic, 8))
        return cm_fail(err, CM_EXIT_DATA, "%s: not a Chimera token shard", path);
    const uint8_t *p = f + 8;
    if (cm_get_le(p + 8, 2) != VERSION)
        return cm_fail(err, CM_EXIT_DATA, "%s: shard format version %d.%d; this program "
                       "reads version %d", path, (int)cm_get_le(p + 8, 2),
                       (int)cm_get_le(p + 10, 2), VERSION);
    char hex[65];
    cm_sha_bytes(p, OWN_HASH, hex);
    cm_bytes_to_hex(p + OWN_HASH, 16, h->id);
    if (memcmp(hex, h->id, 32) || cm_get_le(f + 4, 4) != CM_SH_HEAD ||
        cm_get_le(p + 12, 4) != CM_SH_HEAD)
        return cm_fail(err, CM_EXIT_DATA, "%s: header: checksum does not match; the file "
                       "is damaged", path);
#define X(name, at, bytes) h->name = (__typeof__(h->name))cm_get_le(p + at, bytes);
    NUMBERS(X)
#undef X
#define X(name, at) h->name = (int32_t)cm_get_le(p + at, 4);
    IDS(X)
#undef X
#define X(name, at) cm_bytes_to_hex(p + at, 32, h->name);
    HASHES(X)
#undef X
    return head_sane(h, path, err);
}

/* ---- index and seek table ---- */

typedef struct cursor {
    const uint8_t *p, *end;
    bool bad;
} cursor;

static uint64_t get_varint(cursor *c) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (c->p == c->end) break;
        uint8_t b = *c->p++;
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128) return v;
    }
    c->bad = true;
    return 0;
}

static bool read_docs(cm_shard *s, cursor c, cm_err *err) {
    uint64_t at = 0, bytes = 0, answer = 0, reasoning = 0, n = s->h.n_docs;
    bool masked = cm_shard_masked((cm_shard_kind)s->h.kind);
    s->doc = calloc(n + 1, sizeof *s->doc);
    if (masked) s->trained = calloc(n, sizeof *s->trained);
    if (!s->doc || (masked && !s->trained))
        return cm_fail_errno(err, CM_EXIT_RESOURCE, "%s: index", s->path);
    for (uint64_t i = 0; i < n && !c.bad; i++) {
        uint64_t len = get_varint(&c), size = get_varint(&c), source = get_varint(&c);
        uint64_t line = get_varint(&c);
        c.bad |= len < 1 || len > s->h.n_tokens - at || size > UINT32_MAX ||
                 source > UINT32_MAX;
        s->doc[i] = (cm_shard_doc){ at, line, (uint32_t)size, (uint32_t)source };
        at += len;
        bytes += size;
        if (!masked) continue;
        uint64_t a = get_varint(&c), r = get_varint(&c);
        c.bad |= a > len || r > len || a + r > len || len > UINT32_MAX;
        s->trained[i] = (cm_shard_trained){ (uint32_t)a, (uint32_t)r };
        answer += a;
        reasoning += r;
    }
    s->doc[n].start = at;
    if (c.bad || c.p != c.end || at != s->h.n_tokens || bytes != s->h.n_bytes ||
        answer != s->h.n_answer || reasoning != s->h.n_reasoning)
        return cm_fail(err, CM_EXIT_DATA, "%s: document index does not add up to the "
                       "header's counts", s->path);
    return true;
}

/* The index payload: hashes of the frames, sizes of the mask frames, then per document its
 * varints. */
static bool read_index(cm_shard *s, const uint8_t *p, size_t n, cm_err *err) {
    const cm_shard_head *h = &s->h;
    size_t hashes = h->n_frames * (CM_SH_FRAME_HASH + (s->mask_at ? 4 : 0));
    unsigned long long size = ZSTD_getFrameContentSize(p, n);
    if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN ||
        size < hashes + 4 * h->n_docs || size > hashes + CM_SH_DOC_MAX * h->n_docs)
        return cm_fail(err, CM_EXIT_DATA, "%s: index frame has an impossible size", s->path);
    s->index_mem = malloc(size);
    if (!s->index_mem) return cm_fail_errno(err, CM_EXIT_RESOURCE, "%s: index", s->path);
    size_t got = ZSTD_decompress(s->index_mem, size, p, n);
    if (ZSTD_isError(got) || got != size)
        return cm_fail(err, CM_EXIT_DATA, "%s: index frame does not decompress", s->path);
    s->frame_hash = s->index_mem;
    for (uint64_t i = 0; s->mask_at && i < h->n_frames; i++)
        s->mask_at[i + 1] = s->mask_at[i] + cm_get_le(
            s->index_mem + h->n_frames * CM_SH_FRAME_HASH + 4 * i, 4);
    if (s->mask_at && s->mask_at[h->n_frames] != s->mask_end)
        return cm_fail(err, CM_EXIT_DATA, "%s: the index does not cover the mask frames",
                       s->path);
    return read_docs(s, (cursor){ s->index_mem + hashes, s->index_mem + size, false }, err);
}

static bool read_seek(cm_shard *s, const uint8_t *p, size_t n, cm_err *err) {
    const cm_shard_head *h = &s->h;
    const uint8_t *foot = p + n - 9;
    if (cm_get_le(p, 4) != CM_SH_MAGIC_SEEK || cm_get_le(p + 4, 4) != n - 8 ||
        cm_get_le(foot, 4) != h->n_frames || foot[4] != 0 ||
        cm_get_le(foot + 5, 4) != CM_SH_MAGIC_FOOT)
        return cm_fail(err, CM_EXIT_DATA, "%s: seek table is damaged", s->path);
    s->frame_at = malloc((h->n_frames + 1) * sizeof *s->frame_at);
    if (!s->frame_at) return cm_fail_errno(err, CM_EXIT_RESOURCE, "%s", s->path);
    uint64_t at = CM_SH_DATA;
    for (uint64_t i = 0; i < h->n_frames; i++) {
        s->frame_at[i] = at;
        at += cm_get_le(p + 8 + 8 * i, 4);
        if (cm_get_le(p + 12 + 8 * i, 4) !=
            (uint64_t)cm_shard_frame_len(s, i) * h->token_bytes)
            return cm_fail(err, CM_EXIT_DATA, "%s: seek table: frame %" PRIu64
                           " has a wrong length", s->path, i);
    }
    s->frame_at[h->n_frames] = at;
    if (at != CM_SH_DATA + h->data_bytes)
        return cm_fail(err, CM_EXIT_DATA, "%s: seek table does not cover the data frames",
                       s->path);
    return true;
}

int64_t cm_shard_frame_len(const cm_shard *s, uint64_t f) {
    uint64_t left = s->h.n_tokens - f * s->h.frame_tokens;
    return (int64_t)(left < s->h.frame_tokens ? left : s->h.frame_tokens);
}

static bool open_mapped(cm_shard *s, cm_err *err) {
    cm_shard_head *h = &s->h;
    const uint8_t *f = s->map.data;
    if (!cm_shard_head_get(h, s->path, f, s->map.size, err)) return false;
    uint64_t rest = s->map.size - CM_SH_DATA, seek = 8 + 8 * h->n_frames + 9;
    if (h->data_bytes > rest || h->meta_bytes != rest - h->data_bytes ||
        h->n_frames > rest / 8 || h->meta_bytes < seek + 8)
        return cm_fail(err, CM_EXIT_DATA, "%s: the file has %zu bytes, its header tells of "
                       "%" PRIu64 "; it is truncated or damaged", s->path, s->map.size,
                       CM_SH_DATA + h->data_bytes + h->meta_bytes);
    const uint8_t *meta = f + CM_SH_DATA + h->data_bytes;
    char hex[65];
    cm_sha_bytes(meta, h->meta_bytes, hex);
    if (strcmp(hex, h->meta))
        return cm_fail(err, CM_EXIT_DATA, "%s: index or seek table: checksum does not "
                       "match; the file is damaged", s->path);
    uint64_t index = h->meta_bytes - seek;
    if (cm_shard_masked((cm_shard_kind)h->kind)) {
        uint64_t masks = 8 + cm_get_le(meta + 4, 4);
        if (cm_get_le(meta, 4) != CM_SH_MAGIC_MASK || masks > index || index - masks < 8)
            return cm_fail(err, CM_EXIT_DATA, "%s: mask frames are damaged", s->path);
        s->mask_at = calloc(h->n_frames + 1, sizeof *s->mask_at);
        if (!s->mask_at) return cm_fail_errno(err, CM_EXIT_RESOURCE, "%s", s->path);
        s->mask_at[0] = (uint64_t)(meta - f) + 8;
        s->mask_end = (uint64_t)(meta - f) + masks;
        meta += masks;
        index -= masks;
    }
    if (cm_get_le(meta, 4) != CM_SH_MAGIC_INDEX || cm_get_le(meta + 4, 4) != index - 8)
        return cm_fail(err, CM_EXIT_DATA, "%s: index frame is damaged", s->path);
    return read_seek(s, meta + index, seek, err) &&
           read_index(s, meta + 8, index - 8, err);
}

bool cm_shard_open(cm_shard *s, const char *path, cm_err *err) {
    memset(s, 0, sizeof *s);
    if (!cm_map_open(&s->map, path, err)) {
        err->code = CM_EXIT_DATA;
        return false;
    }
    s->path = cm_strf("%s", path);
    if (open_mapped(s, err)) return true;
    cm_shard_close(s);
    return false;
}

bool cm_shard_open_bytes(cm_shard *s, const char *name, const void *p, size_t n,
                         cm_err *err) {
    memset(s, 0, sizeof *s);
    s->map = (cm_map){ p, n };
    s->path = cm_strf("%s", name);
    s->borrowed = true;
    if (open_mapped(s, err)) return true;
    cm_shard_close(s);
    return false;
}

void cm_shard_close(cm_shard *s) {
    if (!s->borrowed) cm_map_close(&s->map);
    free(s->path);
    free(s->frame_at);
    free(s->doc);
    free(s->trained);
    free(s->mask_at);
    free(s->index_mem);
    memset(s, 0, sizeof *s);
}

/* ---- frames ---- */

bool cm_shard_frame(const cm_shard *s, uint64_t f, void *dctx, void *raw, cm_err *err) {
    const uint8_t *p = s->map.data + s->frame_at[f];
    size_t n = s->frame_at[f + 1] - s->frame_at[f];
    int64_t len = cm_shard_frame_len(s, f);
    uint8_t hash[CM_SH_FRAME_HASH];
    cm_frame_hash(p, n, hash);
    if (memcmp(hash, s->frame_hash + f * CM_SH_FRAME_HASH, sizeof hash))
        return cm_fail(err, CM_EXIT_DATA, "%s: frame %" PRIu64 " of %" PRIu64 ": checksum "
                       "does not match; the file is damaged", s->path, f, s->h.n_frames);
    size_t want = (size_t)len * s->h.token_bytes;
    size_t got = ZSTD_decompressDCtx(dctx, raw, want, p, n);
    if (ZSTD_isError(got) || got != want)
        return cm_fail(err, CM_EXIT_DATA, "%s: frame %" PRIu64 ": %s", s->path, f,
                       ZSTD_isError(got) ? ZSTD_getErrorName(got) : "too few tokens");
    for (int64_t i = 0; i < len; i++)
        if ((uint32_t)cm_shard_token(s, raw, i) >= s->h.vocab)
            return cm_fail(err, CM_EXIT_DATA, "%s: frame %" PRIu64 ": token %u in a "
                           "vocabulary of %u", s->path, f,
                           (unsigned)cm_shard_token(s, raw, i), s->h.vocab);
    return true;
}

bool cm_shard_mask(const cm_shard *s, uint64_t f, void *dctx, uint8_t *packed, cm_err *err) {
    int64_t len = cm_shard_frame_len(s, f);
    size_t want = cm_shard_mask_bytes(len);
    size_t got = ZSTD_decompressDCtx(dctx, packed, want, s->map.data + s->mask_at[f],
                                     s->mask_at[f + 1] - s->mask_at[f]);
    if (ZSTD_isError(got) || got != want)
        return cm_fail(err, CM_EXIT_DATA, "%s: masks of frame %" PRIu64 ": %s", s->path, f,
                       ZSTD_isError(got) ? ZSTD_getErrorName(got) : "too few");
    for (int64_t i = 0; i < len; i++)
        if (cm_shard_mask_at(packed, i) > 2)
            return cm_fail(err, CM_EXIT_DATA, "%s: masks of frame %" PRIu64 ": class 3",
                           s->path, f);
    return true;
}

/* First and last tokens of the documents that lie in the frame now in raw. */
static bool edges_ok(const cm_shard *s, uint64_t f, const uint8_t *raw, uint64_t *doc,
                     cm_err *err) {
    uint64_t lo = f * s->h.frame_tokens, hi = lo + (uint64_t)cm_shard_frame_len(s, f);
    for (; s->doc[*doc].start < hi; (*doc)++) {
        uint64_t at = s->doc[*doc].start;
        bool bad = at >= lo && (s->h.flags & CM_SHARD_BOS) &&
                   cm_shard_token(s, raw, (int64_t)(at - lo)) != s->h.bos;
        bad |= at > lo && (s->h.flags & CM_SHARD_EOS) &&
               cm_shard_token(s, raw, (int64_t)(at - 1 - lo)) != s->h.eos;
        if (bad)
            return cm_fail(err, CM_EXIT_DATA, "%s: frame %" PRIu64 ": document %" PRIu64
                           " does not begin or end as the header says", s->path, f, *doc);
    }
    return true;
}

/* The masks of the documents, counted over the frames. */
typedef struct count {
    uint64_t doc, n[3], prompt, before; /* hash of its tokens before an answer; the last one's */
} count;

/* The document now complete in c. */
static bool counts_ok(const cm_shard *s, count *c, cm_err *err) {
    const cm_shard_trained *t = &s->trained[c->doc];
    if (c->n[1] != t->answer || c->n[2] != t->reasoning)
        return cm_fail(err, CM_EXIT_DATA, "%s: document %" PRIu64 ": %" PRIu64 " answer and %"
                       PRIu64 " reasoning tokens, its index says %u and %u", s->path, c->doc,
                       c->n[1], c->n[2], t->answer, t->reasoning);
    if (!t->answer)
        return cm_fail(err, CM_EXIT_DATA, "%s: document %" PRIu64 " has no answer to learn",
                       s->path, c->doc);
    if (s->h.kind == CM_SHARD_DPO && c->doc % 2 && c->prompt != c->before)
        return cm_fail(err, CM_EXIT_DATA, "%s: documents %" PRIu64 " and %" PRIu64 " are a "
                       "pair with different prompts", s->path, c->doc - 1, c->doc);
    *c = (count){ .doc = c->doc + 1, .before = c->prompt };
    return true;
}

static bool masks_ok(const cm_shard *s, uint64_t f, const uint8_t *raw, const uint8_t *mask,
                     count *c, cm_err *err) {
    uint64_t at = f * s->h.frame_tokens;
    for (int64_t i = 0; i < cm_shard_frame_len(s, f); i++) {
        c->n[cm_shard_mask_at(mask, i)]++;
        if (!c->n[1] && !c->n[2]) /* FNV-1a over tokens */
            c->prompt = (c->prompt ^ (uint64_t)cm_shard_token(s, raw, i)) * 0x100000001B3u + 1;
        if (at + (uint64_t)i + 1 == s->doc[c->doc + 1].start && !counts_ok(s, c, err))
            return false;
    }
    return true;
}

bool cm_shard_scan(const cm_shard *s, cm_err *err) {
    uint8_t *raw = malloc((size_t)s->h.frame_tokens * s->h.token_bytes);
    uint8_t *mask = malloc(cm_shard_mask_bytes(s->h.frame_tokens));
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    uint64_t doc = 0;
    count c = { 0 };
    bool ok = raw && mask && dctx;
    if (!ok) cm_fail_errno(err, CM_EXIT_RESOURCE, "%s", s->path);
    for (uint64_t f = 0; ok && f < s->h.n_frames; f++) {
        ok = cm_shard_frame(s, f, dctx, raw, err) && edges_ok(s, f, raw, &doc, err);
        if (ok && s->mask_at)
            ok = cm_shard_mask(s, f, dctx, mask, err) && masks_ok(s, f, raw, mask, &c, err);
    }
    ZSTD_freeDCtx(dctx);
    free(raw);
    free(mask);
    return ok;
}
