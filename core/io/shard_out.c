/* shard_out.c -- writing a token shard.
 *
 * Compressed frames collect in memory (a shard is tens of megabytes) because the header,
 * which comes first, holds the counts and the hash of what comes last.  The bytes are a
 * function of the documents alone: no time stamp, no thread count. */
#include "io/shard_int.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

struct cm_shard_out {
    cm_shard_conf c;
    cm_shard_head h;
    ZSTD_CCtx *cctx;
    uint8_t *raw;     /* the frame being filled */
    uint8_t *mask;    /* its masks, packed; NULL: a kind without */
    int64_t fill;     /* tokens in it */
    cm_buf data, seek, hashes, docs; /* frames; table entries; index payload in two parts */
    cm_buf masks, mask_sizes; /* mask frames; their sizes */
    uint64_t doc_tokens; /* of the document being added */
    uint64_t doc_mask[3]; /* of these masks */
    void *tmp;           /* a compressed frame */
    size_t tmp_cap;
    cm_sha *doc_sha;
};

const char *cm_split_name(cm_split split) {
    return split == CM_SPLIT_TRAIN ? "train" : "val";
}

static void shard_name(char *buf, size_t cap, cm_split split, int index) {
    snprintf(buf, cap, "%s-%05d.tok.zst", cm_split_name(split), index);
}

static cm_shard_head head_of(const cm_shard_conf *c, cm_split split, int index) {
    cm_shard_head h = {
        .kind = (uint8_t)c->kind,
        .token_bytes = c->vocab <= 65536 ? 2 : 4,
        .split = (uint8_t)split,
        .flags = (uint8_t)c->flags,
        .frame_tokens = (uint32_t)c->frame_tokens,
        .index = (uint32_t)index,
        .vocab = (uint32_t)c->vocab,
        .bos = c->bos, .eos = c->eos, .pad = c->pad,
    };
    memcpy(h.tokenizer, c->tokenizer, sizeof h.tokenizer);
    memcpy(h.pipeline, c->pipeline, sizeof h.pipeline);
    return h;
}

cm_shard_out *cm_shard_out_open(const cm_shard_conf *c, cm_split split, int index) {
    cm_shard_out *o = calloc(1, sizeof *o);
    CM_ASSERT(o, "out of memory");
    o->c = *c;
    o->h = head_of(c, split, index);
    size_t raw = (size_t)c->frame_tokens * o->h.token_bytes;
    o->tmp_cap = ZSTD_compressBound(raw);
    o->raw = malloc(raw);
    o->tmp = malloc(o->tmp_cap);
    o->cctx = ZSTD_createCCtx();
    o->doc_sha = cm_sha_open();
    CM_ASSERT(o->raw && o->tmp && o->cctx, "out of memory");
    if (cm_shard_masked(c->kind)) {
        o->mask = calloc(1, cm_shard_mask_bytes(c->frame_tokens));
        CM_ASSERT(o->mask, "out of memory");
    }
    ZSTD_CCtx_setParameter(o->cctx, ZSTD_c_compressionLevel, c->level);
    ZSTD_CCtx_setParameter(o->cctx, ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setParameter(o->cctx, ZSTD_c_contentSizeFlag, 1);
    return o;
}

int64_t cm_shard_out_tokens(const cm_shard_out *o) { return (int64_t)o->h.n_tokens; }

static void put_mask_frame(cm_shard_out *o) {
    size_t bytes = cm_shard_mask_bytes(o->fill);
    size_t n = ZSTD_compress2(o->cctx, o->tmp, o->tmp_cap, o->mask, bytes);
    CM_ASSERT(!ZSTD_isError(n), "zstd: %s", ZSTD_getErrorName(n));
    uint8_t size[4];
    cm_put_le(size, n, 4);
    cm_buf_add(&o->masks, o->tmp, n);
    cm_buf_add(&o->mask_sizes, size, sizeof size);
    memset(o->mask, 0, bytes);
}

static void put_frame(cm_shard_out *o) {
    if (o->mask) put_mask_frame(o);
    size_t raw = (size_t)o->fill * o->h.token_bytes;
    size_t n = ZSTD_compress2(o->cctx, o->tmp, o->tmp_cap, o->raw, raw);
    CM_ASSERT(!ZSTD_isError(n), "zstd: %s", ZSTD_getErrorName(n));
    uint8_t hash[CM_SH_FRAME_HASH], entry[8];
    cm_frame_hash(o->tmp, n, hash);
    cm_put_le(entry, n, 4);
    cm_put_le(entry + 4, raw, 4);
    cm_buf_add(&o->data, o->tmp, n);
    cm_buf_add(&o->hashes, hash, sizeof hash);
    cm_buf_add(&o->seek, entry, sizeof entry);
    o->h.n_frames++;
    o->fill = 0;
}

static void put_varint(cm_buf *b, uint64_t v) {
    uint8_t s[10];
    int n = 0;
    for (; v > 127; v >>= 7) s[n++] = (uint8_t)(v | 128);
    s[n++] = (uint8_t)v;
    cm_buf_add(b, s, (size_t)n);
}

void cm_shard_out_add(cm_shard_out *o, const int32_t *id, int64_t n,
                      const cm_doc_origin *last) {
    cm_shard_out_add_masked(o, id, n, 0, last);
}

void cm_shard_out_add_masked(cm_shard_out *o, const int32_t *id, int64_t n, int mask,
                             const cm_doc_origin *last) {
    CM_ASSERT(mask >= 0 && mask < 3 && (!mask || o->mask), "mask %d", mask);
    o->doc_mask[mask] += (uint64_t)n;
    for (int64_t i = 0; i < n; i++) {
        CM_ASSERT((uint32_t)id[i] < o->h.vocab, "token %d of %u", id[i], o->h.vocab);
        if (mask) o->mask[o->fill >> 2] |= (uint8_t)(mask << 2 * (o->fill & 3));
        cm_put_le(o->raw + o->fill++ * o->h.token_bytes, (uint32_t)id[i],
                  o->h.token_bytes);
        if (o->fill == o->c.frame_tokens) put_frame(o);
    }
    o->h.n_tokens += (uint64_t)n;
    o->doc_tokens += (uint64_t)n;
    if (!last) return;
    CM_ASSERT(o->doc_tokens > 0, "a document without tokens");
    put_varint(&o->docs, o->doc_tokens);
    put_varint(&o->docs, last->bytes);
    put_varint(&o->docs, last->source);
    put_varint(&o->docs, last->line);
    if (o->mask) {
        put_varint(&o->docs, o->doc_mask[1]);
        put_varint(&o->docs, o->doc_mask[2]);
        o->h.n_answer += o->doc_mask[1];
        o->h.n_reasoning += o->doc_mask[2];
        memset(o->doc_mask, 0, sizeof o->doc_mask);
    }
    cm_sha_add(o->doc_sha, last->hash, sizeof last->hash);
    o->h.n_docs++;
    o->h.n_bytes += last->bytes;
    o->doc_tokens = 0;
}

static void put_skippable(cm_buf *b, uint32_t magic, const void *p, size_t n) {
    uint8_t head[8];
    cm_put_le(head, magic, 4);
    cm_put_le(head + 4, n, 4);
    cm_buf_add(b, head, sizeof head);
    cm_buf_add(b, p, n);
}

/* Masks, index frame and seek table: everything behind the data. */
static void build_meta(cm_shard_out *o, cm_buf *meta) {
    if (o->mask) {
        CM_ASSERT(o->masks.n < UINT32_MAX, "%zu bytes of masks in a shard", o->masks.n);
        put_skippable(meta, CM_SH_MAGIC_MASK, o->masks.s, o->masks.n);
        cm_buf_add(&o->hashes, o->mask_sizes.s, o->mask_sizes.n);
    }
    cm_buf_add(&o->hashes, o->docs.s, o->docs.n);
    size_t cap = ZSTD_compressBound(o->hashes.n);
    void *packed = malloc(cap);
    CM_ASSERT(packed, "out of memory");
    size_t n = ZSTD_compress2(o->cctx, packed, cap, o->hashes.s, o->hashes.n);
    CM_ASSERT(!ZSTD_isError(n) && n < UINT32_MAX, "zstd: index");
    put_skippable(meta, CM_SH_MAGIC_INDEX, packed, n);
    free(packed);
    uint8_t foot[9] = { 0 };
    cm_put_le(foot, o->h.n_frames, 4);
    cm_put_le(foot + 5, CM_SH_MAGIC_FOOT, 4);
    cm_buf_add(&o->seek, foot, sizeof foot);
    put_skippable(meta, CM_SH_MAGIC_SEEK, o->seek.s, o->seek.n);
}

static bool write_regions(const char *path, const uint8_t *head, const cm_buf *data,
                          const cm_buf *meta, cm_err *err) {
    cm_out out;
    if (!cm_out_open(&out, path, err)) return false;
    if (cm_out_write(&out, head, CM_SH_DATA, err) &&
        cm_out_write(&out, data->s, data->n, err) &&
        cm_out_write(&out, meta->s, meta->n, err))
        return cm_out_commit(&out, err);
    cm_out_abort(&out);
    return false;
}

static void info_of(const cm_shard_head *h, cm_shard_info *info) {
    shard_name(info->file, sizeof info->file, (cm_split)h->split, (int)h->index);
    memcpy(info->id, h->id, sizeof info->id);
    memcpy(info->docs_id, h->docs, sizeof info->docs_id);
    info->size = (int64_t)(CM_SH_DATA + h->data_bytes + h->meta_bytes);
    info->n_tokens = (int64_t)h->n_tokens;
    info->n_docs = (int64_t)h->n_docs;
    info->n_bytes = (int64_t)h->n_bytes;
    info->n_answer = (int64_t)h->n_answer;
    info->n_reasoning = (int64_t)h->n_reasoning;
}

bool cm_shard_out_commit(cm_shard_out *o, const char *dir, cm_shard_info *info,
                         cm_err *err) {
    CM_ASSERT(o->h.n_docs && !o->doc_tokens, "shard ends inside a document");
    if (o->fill) put_frame(o);
    cm_buf meta = { 0 };
    build_meta(o, &meta);
    o->h.data_bytes = o->data.n;
    o->h.meta_bytes = meta.n;
    cm_sha_bytes(meta.s, meta.n, o->h.meta);
    cm_sha_close(o->doc_sha, o->h.docs);
    o->doc_sha = NULL;
    uint8_t head[CM_SH_DATA];
    cm_shard_head_put(&o->h, head);
    info_of(&o->h, info);
    cm_sha *sha = cm_sha_open();
    cm_sha_add(sha, head, sizeof head);
    cm_sha_add(sha, o->data.s, o->data.n);
    cm_sha_add(sha, meta.s, meta.n);
    cm_sha_close(sha, info->sha256);
    char *path = cm_strf("%s/%s", dir, info->file);
    bool ok = write_regions(path, head, &o->data, &meta, err);
    free(path);
    cm_buf_free(&meta);
    cm_shard_out_abort(o);
    return ok;
}

void cm_shard_out_abort(cm_shard_out *o) {
    if (!o) return;
    char hex[65];
    if (o->doc_sha) cm_sha_close(o->doc_sha, hex);
    ZSTD_freeCCtx(o->cctx);
    cm_buf_free(&o->data);
    cm_buf_free(&o->seek);
    cm_buf_free(&o->hashes);
    cm_buf_free(&o->docs);
    cm_buf_free(&o->masks);
    cm_buf_free(&o->mask_sizes);
    free(o->mask);
    free(o->raw);
    free(o->tmp);
    free(o);
}

bool cm_shard_check(const cm_shard_conf *c, cm_split split, int index, const char *dir,
                    cm_shard_info *info, cm_err *err) {
    cm_shard_head want = head_of(c, split, index);
    char name[64];
    shard_name(name, sizeof name, split, index);
    char *path = cm_strf("%s/%s", dir, name);
    cm_shard s;
    bool ok = cm_shard_open(&s, path, err);
    if (ok) {
        const cm_shard_head *h = &s.h;
        if (h->kind != want.kind || h->split != want.split || h->index != want.index ||
            h->flags != want.flags || h->frame_tokens != want.frame_tokens ||
            h->vocab != want.vocab || strcmp(h->tokenizer, want.tokenizer) ||
            strcmp(h->pipeline, want.pipeline))
            ok = cm_fail(err, CM_EXIT_DATA, "%s: made by another recipe or tokenizer",
                         path);
        ok = ok && cm_shard_scan(&s, err);
        info_of(h, info);
        cm_sha_bytes(s.map.data, s.map.size, info->sha256);
        cm_shard_close(&s);
    }
    free(path);
    return ok;
}
