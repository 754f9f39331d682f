/* shard_int.h -- what the shard writer and readers share: the byte layout.
 *
 * A shard is a legal zstd file of these regions, in this order; docs/FORMATS.md draws it:
 *   header frame (skippable, fixed 264 bytes), data frames, mask frames (in one skippable
 *   frame; kinds SFT and DPO only), index frame (skippable), seek table (skippable, the
 *   standard seekable format).
 * Every byte is pinned: the header hashes itself and all behind the data, the index
 * holds a hash of each data frame, the manifest holds the header's hash. */
#ifndef CM_SHARD_INT_H
#define CM_SHARD_INT_H

#include "io/io.h"

enum {
    CM_SH_HEAD = 256,              /* bytes of the header proper */
    CM_SH_DATA = CM_SH_HEAD + 8,   /* file offset of the first data frame */
    CM_SH_FRAME_HASH = 8,          /* bytes of hash per data frame in the index */
    CM_SH_MAX_FRAME = 1 << 20,     /* most tokens in a frame that a reader accepts */
    CM_SH_DOC_MAX = 60             /* most bytes of one document's index entry */
};
#define CM_SH_MAGIC_HEAD 0x184D2A50u
#define CM_SH_MAGIC_INDEX 0x184D2A51u
#define CM_SH_MAGIC_MASK 0x184D2A52u
#define CM_SH_MAGIC_SEEK 0x184D2A5Eu
#define CM_SH_MAGIC_FOOT 0x8F92EAB1u

typedef struct cm_shard_head {
    uint8_t kind, token_bytes, split, flags;
    uint32_t frame_tokens, index, vocab;
    int32_t bos, eos, pad;
    uint64_t n_tokens, n_docs, n_bytes, n_frames, data_bytes, meta_bytes;
    uint64_t n_answer, n_reasoning; /* tokens of these masks */
    char tokenizer[65], pipeline[65], docs[65], meta[65]; /* SHA-256, hex */
    char id[33]; /* the header's own hash, hex */
} cm_shard_head;

typedef struct cm_shard_doc {
    uint64_t start, line;
    uint32_t bytes, source;
} cm_shard_doc;
typedef struct cm_shard_trained {
    uint32_t answer, reasoning; /* tokens */
} cm_shard_trained;

/* An open shard. */
typedef struct cm_shard {
    char *path;
    cm_map map;
    bool borrowed; /* the bytes are the caller's */
    cm_shard_head h;
    uint64_t *frame_at;        /* [n_frames + 1] file offsets */
    const uint8_t *frame_hash; /* [n_frames][CM_SH_FRAME_HASH], in index_mem */
    cm_shard_doc *doc;         /* [n_docs + 1]; the last one's start is n_tokens */
    cm_shard_trained *trained; /* [n_docs], or NULL: no masks */
    uint64_t *mask_at; /* [n_frames + 1] file offsets of mask frames, or NULL */
    uint64_t mask_end; /* where their region ends */
    uint8_t *index_mem;
    int64_t first_token, first_doc, first_frame; /* where it lies in its split */
    char sha256[65]; /* of the file, as the manifest says */
} cm_shard;

static inline void cm_put_le(uint8_t *p, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(v >> (8 * i));
}
static inline uint64_t cm_get_le(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

void cm_hex_to_bytes(const char *hex, uint8_t *out, int n);
void cm_bytes_to_hex(const uint8_t *b, int n, char *hex);
/* The first CM_SH_FRAME_HASH bytes of SHA-256. */
void cm_frame_hash(const void *p, size_t n, uint8_t out[CM_SH_FRAME_HASH]);

/* The header region, its own hash filled in (also into h->id). */
void cm_shard_head_put(cm_shard_head *h, uint8_t out[CM_SH_DATA]);
bool cm_shard_head_get(cm_shard_head *h, const char *path, const uint8_t *p, size_t n,
                       cm_err *err);

bool cm_shard_open(cm_shard *s, const char *path, cm_err *err);
/* As above over bytes in memory, which must outlive s. */
bool cm_shard_open_bytes(cm_shard *s, const char *name, const void *p, size_t n,
                         cm_err *err);
void cm_shard_close(cm_shard *s);
/* Tokens in frame f. */
int64_t cm_shard_frame_len(const cm_shard *s, uint64_t f);
/* Decode frame f into raw (frame_tokens * token_bytes), checked: hash, checksum, length,
 * every token below the vocabulary.  dctx is a ZSTD_DCtx. */
bool cm_shard_frame(const cm_shard *s, uint64_t f, void *dctx, void *raw, cm_err *err);
static inline int32_t cm_shard_token(const cm_shard *s, const uint8_t *raw, int64_t i) {
    return s->h.token_bytes == 2 ? (int32_t)cm_get_le(raw + 2 * i, 2)
                                 : (int32_t)cm_get_le(raw + 4 * i, 4);
}
/* Decode the masks of frame f into packed: four tokens a byte, low bits first. */
bool cm_shard_mask(const cm_shard *s, uint64_t f, void *dctx, uint8_t *packed, cm_err *err);
static inline uint8_t cm_shard_mask_at(const uint8_t *packed, int64_t i) {
    return packed[i >> 2] >> (2 * (i & 3)) & 3;
}
static inline size_t cm_shard_mask_bytes(int64_t tokens) { return (size_t)(tokens + 3) / 4; }
/* Every frame, every document: frames decode, documents begin and end as the flags say,
 * masks are as many as the index says, both documents of a pair begin with one prompt. */
bool cm_shard_scan(const cm_shard *s, cm_err *err);

#endif
