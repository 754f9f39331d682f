/* io.h -- the containers: safetensors, GGUF, text inputs, token shards.
 *
 * io knows names, shapes and bytes; it never knows what a model is.  Byte layouts are
 * drawn in docs/FORMATS.md.  All readers treat their input as hostile: every length is
 * checked before it is used, and a wrong file gives a sentence with CM_EXIT_DATA. */
#ifndef CM_IO_H
#define CM_IO_H

#include "tensor/tensor.h"

/* ---- safetensors -------------------------------------------------------------------- */

/* A safetensors file, memory-mapped; tensors point into the map.
 * Format: u64 header length, JSON header, data (huggingface/safetensors). */
typedef struct cm_st_entry {
    const char *name;
    cm_tensor t; /* data inside the map; scalars have nd 0 */
} cm_st_entry;
typedef struct cm_st_meta {
    const char *key, *value;
} cm_st_meta;
typedef struct cm_st {
    cm_map map;
    const char *path;
    cm_st_entry *entry;
    int n;
    cm_st_meta *meta; /* the header's __metadata__ strings */
    int n_meta;
    void *mem;
} cm_st;
bool cm_st_open(cm_st *s, const char *path, cm_err *err);
void cm_st_close(cm_st *s);
const cm_tensor *cm_st_find(const cm_st *s, const char *name); /* NULL if absent */
const char *cm_st_get_meta(const cm_st *s, const char *key);   /* NULL if absent */

/* Write tensors in the given order, 64-byte aligned data, atomically.  fill (may be NULL)
 * is called to produce the bytes of tensor i when its data pointer is NULL, so that a
 * file larger than memory can be streamed. */
typedef bool (*cm_fill_fn)(void *ctx, int i, void *dst, cm_err *err);
bool cm_st_write(const char *path, const cm_st_entry *item, int n, const cm_st_meta *meta,
                 int n_meta, cm_fill_fn fill, void *ctx, cm_err *err);
/* The size that such a file will have. */
uint64_t cm_st_bytes(const cm_st_entry *item, int n, const cm_st_meta *meta, int n_meta);

/* ---- GGUF v3 ------------------------------------------------------------------------- */

typedef enum {
    CM_GGUF_U8, CM_GGUF_I8, CM_GGUF_U16, CM_GGUF_I16, CM_GGUF_U32, CM_GGUF_I32,
    CM_GGUF_F32,
    CM_GGUF_BOOL, CM_GGUF_STR, CM_GGUF_ARR, CM_GGUF_U64, CM_GGUF_I64,
    CM_GGUF_F64
} cm_gguf_type;

typedef struct cm_gguf_str {
    const char *s; /* not NUL-terminated */
    uint64_t n;
} cm_gguf_str;

/* One metadata value.  Strings and arrays of the reader point into the map. */
typedef struct cm_gguf_kv {
    const char *key;
    cm_gguf_type type;
    union {
        uint64_t u;
        int64_t i;
        double f;
        bool b;
        cm_gguf_str s;
    } v;
    cm_gguf_type elem; /* ARR: element type */
    uint64_t n;        /* ARR: elements */
    const void *data;  /* ARR of numbers: packed elements; ARR of STR: cm_gguf_str[n] */
} cm_gguf_kv;

typedef struct cm_gguf {
    cm_map map;
    const char *path;
    cm_gguf_kv *kv;
    int n_kv;
    cm_st_entry *tensor; /* dims outermost first (reversed from the file) */
    int n_tensor;
    void *mem;
} cm_gguf;
bool cm_gguf_open(cm_gguf *g, const char *path, cm_err *err);
void cm_gguf_close(cm_gguf *g);
const cm_gguf_kv *cm_gguf_find(const cm_gguf *g, const char *key); /* NULL if absent */
const cm_tensor *cm_gguf_tensor(const cm_gguf *g, const char *name);
/* Element i of a numeric array, or a numeric value itself (i = 0), as a whole number or a
 * real.  False when it is no number of that kind, does not fit, or i lies outside. */
bool cm_gguf_i64(const cm_gguf_kv *kv, uint64_t i, int64_t *out);
bool cm_gguf_f64(const cm_gguf_kv *kv, uint64_t i, double *out);

/* Writer: collect keys and tensors (data as in cm_st_write), then write atomically. */
typedef struct cm_gguf_out cm_gguf_out;
cm_gguf_out *cm_gguf_out_open(void);
void cm_gguf_out_close(cm_gguf_out *g);
void cm_gguf_put_u32(cm_gguf_out *g, const char *key, uint32_t v);
void cm_gguf_put_f32(cm_gguf_out *g, const char *key, float v);
void cm_gguf_put_bool(cm_gguf_out *g, const char *key, bool v);
void cm_gguf_put_str(cm_gguf_out *g, const char *key, const char *s);
/* elem: U32, I32, F32 or STR (then data is const cm_gguf_str *). */
void cm_gguf_put_arr(cm_gguf_out *g, const char *key, cm_gguf_type elem, const void *data,
                     uint64_t n);
void cm_gguf_put_tensor(cm_gguf_out *g, const char *name, const cm_tensor *t);
/* The size that the file will have. */
uint64_t cm_gguf_out_bytes(const cm_gguf_out *g);
bool cm_gguf_out_write(cm_gguf_out *g, const char *path, cm_fill_fn fill, void *ctx,
                       cm_err *err);

/* ---- text inputs ------------------------------------------------------------------------ */

/* One input as a stream of bytes: a plain, gzip or zstd file (told by its first bytes, so
 * the name does not matter; several members or frames follow each other) or "-", stdin.
 * Memory: two fixed buffers, whatever the file's size. */
typedef struct cm_src cm_src;
cm_src *cm_src_open(const char *path, cm_err *err);
void cm_src_close(cm_src *s);
/* Up to cap bytes into dst; *got = 0 only at the end.  Damaged or truncated compressed
 * data: CM_EXIT_DATA. */
bool cm_src_read(cm_src *s, void *dst, size_t cap, size_t *got, cm_err *err);
/* The next line, without its "\n"; s points into the reader and lives until the next
 * call.  A line above max bytes is passed over: too_long, its first bytes in s.
 * *end is true, and *line untouched, after the last one. */
typedef struct cm_line {
    const char *s;
    size_t n;
    uint64_t number; /* from 1 */
    bool too_long;
} cm_line;
bool cm_src_line(cm_src *s, size_t max, cm_line *line, bool *end, cm_err *err);
/* Bytes taken so far from the file itself (for progress). */
uint64_t cm_src_pos(const cm_src *s);

/* File names for a list of paths, globs and folders (all *.txt *.text *.md *.jsonl
 * *.ndjson, also .gz .zst, below them), each expansion sorted by byte value; "-" stays.
 * Nothing found for an item is CM_EXIT_USAGE.  Free with cm_paths_free. */
bool cm_paths_expand(const char *const *item, int n, char ***path, int *n_path,
                     cm_err *err);
void cm_paths_free(char **path, int n);

/* The string value of a top-level field of one JSON object (a line of JSONL), decoded to
 * UTF-8 and appended to *out.  The whole line must be valid JSON; nesting is limited, a
 * repeated field and a lone surrogate are refused.  Reason without place in err. */
bool cm_jsonl_field(const char *line, size_t n, const char *field, cm_buf *out,
                    cm_err *err);

/* A JSON text as a tree, read by the same grammar; node 0 is the whole.  At most a million
 * values and 1,024 members of an object; a repeated member is refused. */
typedef enum {
    CM_JSON_NULL, CM_JSON_BOOL, CM_JSON_NUMBER, CM_JSON_STRING, CM_JSON_ARRAY,
    CM_JSON_OBJECT
} cm_json_type;
typedef struct cm_json_node {
    cm_json_type type;
    int first, next, count; /* first child, next sibling (-1 = none), number of children */
    size_t key, n_key;      /* the member's name, in text */
    size_t at, n;           /* a string, decoded; a scalar as written; in text */
} cm_json_node;
typedef struct cm_json_tree {
    cm_json_node *node;
    int n, cap;
    cm_buf text;
} cm_json_tree;
/* May be called again with the same tree, which keeps its memory.  Reason without place
 * in err. */
bool cm_json_tree_read(cm_json_tree *t, const char *s, size_t n, cm_err *err);
void cm_json_tree_free(cm_json_tree *t);
/* The member of an object, -1 when absent or when `node` is no object (or -1). */
int cm_json_tree_get(const cm_json_tree *t, int node, const char *name);

/* ---- token shards ---------------------------------------------------------------------- */

typedef enum { CM_SHARD_LM, CM_SHARD_SFT, CM_SHARD_DPO, CM_SHARD_EVAL } cm_shard_kind;
/* Kinds whose tokens have masks: 0 not trained, 1 answer, 2 reasoning (text.h's cm_mask).
 * Of DPO the documents 2i and 2i+1 are a pair: the same prompt tokens, then the chosen and
 * the rejected answer. */
static inline bool cm_shard_masked(cm_shard_kind k) {
    return k == CM_SHARD_SFT || k == CM_SHARD_DPO;
}
const char *cm_shard_kind_name(cm_shard_kind k); /* "lm", "sft", "dpo", "eval" */
typedef enum { CM_SPLIT_TRAIN, CM_SPLIT_VAL } cm_split;

enum {
    CM_SHARD_BOS = 1, /* each document begins with BOS */
    CM_SHARD_EOS = 2  /* each document ends with EOS */
};

/* What all shards of a data set share. */
typedef struct cm_shard_conf {
    cm_shard_kind kind;
    int vocab, bos, eos, pad; /* ids; -1 = none */
    unsigned flags;           /* CM_SHARD_BOS | CM_SHARD_EOS */
    int frame_tokens;         /* tokens in a zstd frame; 65536 unless testing */
    int level;                /* zstd level */
    char tokenizer[65];       /* SHA-256, hex, of the tokenizer model file */
    char pipeline[65];        /* SHA-256, hex, of the recipe that made the data */
} cm_shard_conf;

/* One finished shard, as the manifest lists it. */
typedef struct cm_shard_info {
    char file[64];  /* name in the data set's folder */
    char id[33];    /* the header's hash: with it, every byte of the shard is pinned */
    char docs_id[65]; /* SHA-256 over the documents' 16-byte hashes, in order */
    char sha256[65]; /* of the whole file */
    int64_t size, n_tokens, n_docs, n_bytes;
    int64_t n_answer, n_reasoning; /* tokens of these masks */
} cm_shard_info;

/* Where a document came from, and its 128-bit content hash. */
typedef struct cm_doc_origin {
    uint32_t source; /* index in the manifest's list of sources */
    uint64_t line;   /* line of that source where it starts, from 1 */
    uint64_t bytes;  /* of source text */
    uint8_t hash[16];
} cm_doc_origin;

/* Writer: documents go in, compressed frames collect in memory, commit writes the file
 * atomically as DIR/train-00007.tok.zst (or val-...).  commit and abort free it. */
typedef struct cm_shard_out cm_shard_out;
cm_shard_out *cm_shard_out_open(const cm_shard_conf *c, cm_split split, int index);
/* A document's tokens may come in parts: the last call of each document passes its
 * origin, the others NULL. */
void cm_shard_out_add(cm_shard_out *o, const int32_t *id, int64_t n,
                      const cm_doc_origin *last);
/* As above, all n tokens with one mask; kinds SFT and DPO. */
void cm_shard_out_add_masked(cm_shard_out *o, const int32_t *id, int64_t n, int mask,
                             const cm_doc_origin *last);
int64_t cm_shard_out_tokens(const cm_shard_out *o);
bool cm_shard_out_commit(cm_shard_out *o, const char *dir, cm_shard_info *info,
                         cm_err *err);
void cm_shard_out_abort(cm_shard_out *o);
/* Read back a finished shard completely (every frame, every checksum) for a resumed run:
 * false with CM_EXIT_DATA when it is damaged or was made by another recipe. */
bool cm_shard_check(const cm_shard_conf *c, cm_split split, int index, const char *dir,
                    cm_shard_info *info, cm_err *err);
const char *cm_split_name(cm_split split); /* "train", "val" */

/* Write DIR/manifest.json, the one entry point.  extra_json: text of further top-level
 * members ("\"sources\": [...], ..."), or NULL. */
bool cm_manifest_write(const char *dir, const cm_shard_conf *c,
                       const char *tokenizer_file, const cm_shard_info *const shard[2],
                       const int n_shard[2], const char *extra_json, cm_err *err);

/* A data set: manifest.json and the shards it names.  Opening checks the headers, counts
 * and sizes of all shards; frame checksums are checked as frames are read. */
typedef struct cm_dataset {
    char dir[4096];
    char id[65];        /* SHA-256 of manifest.json */
    char tokenizer[65]; /* SHA-256 of the tokenizer model file */
    char tokenizer_path[4096 + 256];
    cm_shard_kind kind;
    unsigned flags;           /* CM_SHARD_BOS | CM_SHARD_EOS */
    int vocab, bos, eos, pad; /* -1 = none */
    int64_t n_tokens[2], n_docs[2], n_bytes[2]; /* by cm_split; bytes of source text */
    int64_t n_answer[2], n_reasoning[2];        /* tokens of these masks */
    int64_t n_stored[2];                        /* bytes of the shard files */
    struct cm_shard *shard[2];
    int n_shard[2];
    struct cm_frame_cache *cache; /* decoded frames, shared by all threads */
} cm_dataset;
/* path: the manifest or its folder. */
bool cm_dataset_open(cm_dataset *d, const char *path, cm_err *err);
void cm_dataset_close(cm_dataset *d);
/* Tokens [start, start+n) of a split, as one stream over its shards in manifest order;
 * each document begins with BOS (and ends with EOS when the recipe says so).  doc, when not
 * NULL, gets the index of the document each token belongs to.  Thread-safe.  Corruption:
 * CM_EXIT_DATA naming shard and frame. */
bool cm_dataset_read(const cm_dataset *d, cm_split split, int64_t start, int64_t n,
                     int32_t *out, int64_t *doc, cm_err *err);
/* The masks of tokens [start, start+n): 0, 1 or 2 each; all 0 where the kind has none. */
bool cm_dataset_masks(const cm_dataset *d, cm_split split, int64_t start, int64_t n,
                      uint8_t *out, cm_err *err);
/* Tokens of document i with mask 1 and 2. */
bool cm_dataset_trained(const cm_dataset *d, cm_split split, int64_t i, int64_t *answer,
                        int64_t *reasoning, cm_err *err);
/* Document i of a split: its token range and bytes of source text. */
bool cm_dataset_doc(const cm_dataset *d, cm_split split, int64_t i, int64_t *start,
                    int64_t *n, int64_t *bytes, cm_err *err);
/* Where document i came from: index in the manifest's sources, and line. */
bool cm_dataset_origin(const cm_dataset *d, cm_split split, int64_t i, uint32_t *source,
                       uint64_t *line, cm_err *err);
/* Path of a source as the manifest lists it (free()), or NULL: it is not there. */
char *cm_dataset_source(const cm_dataset *d, uint32_t source);
/* Read every frame and check every checksum and hash, in parallel. */
bool cm_dataset_verify(const cm_dataset *d, cm_err *err);

#endif
