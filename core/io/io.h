/* io.h -- the containers: safetensors, GGUF, token shards, JSON lines.
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
bool cm_gguf_out_write(cm_gguf_out *g, const char *path, cm_fill_fn fill, void *ctx,
                       cm_err *err);

/* ---- token shards ---------------------------------------------------------------------- */

typedef enum { CM_SHARD_LM, CM_SHARD_SFT, CM_SHARD_DPO, CM_SHARD_EVAL } cm_shard_kind;
typedef enum { CM_SPLIT_TRAIN, CM_SPLIT_VAL } cm_split;

/* A data set: manifest.json and the shards it names.  Opening checks the headers, counts
 * and sizes of all shards; frame checksums are checked as frames are read. */
typedef struct cm_dataset {
    char dir[4096];
    char id[65];        /* SHA-256 of manifest.json */
    char tokenizer[65]; /* SHA-256 of the tokenizer model file */
    char tokenizer_path[4096];
    cm_shard_kind kind;
    int vocab, bos, eos, pad; /* -1 = none */
    int64_t n_tokens[2], n_docs[2], n_bytes[2]; /* by cm_split; bytes of source text */
    struct cm_shard *shard[2];
    int n_shard[2];
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
/* Document i of a split: its token range and bytes of source text. */
bool cm_dataset_doc(const cm_dataset *d, cm_split split, int64_t i, int64_t *start,
                    int64_t *n, int64_t *bytes, cm_err *err);
/* Read every frame and check every checksum and hash, in parallel. */
bool cm_dataset_verify(const cm_dataset *d, cm_err *err);

#endif
