/* files.h -- how parameters lie in files; private to model/.
 *
 * An item says where one tensor of a file lives in one parameter.  The list of a model's
 * items is its name map: export writes from it and import reads by it, so that the two
 * directions cannot disagree. */
#ifndef CM_MODEL_FILES_H
#define CM_MODEL_FILES_H

#include "model/model.h"

#include <pthread.h>

typedef enum {
    CM_ITEM_COPY,
    CM_ITEM_DECAY, /* file: -exp(A_log); parameter: A_log */
    CM_ITEM_ROPE   /* file: interleaved pairs; parameter: half-split (`head` rows) */
} cm_item_how;

/* The parameter as [outer, pitch, cols]; the item is rows [row0, row0+rows) of each outer
 * block, in the file as [outer, rows, cols]. */
typedef struct cm_item {
    char name[128];
    cm_param *p;
    cm_tensor t; /* dtype and shape in the file; data NULL */
    cm_dtype want; /* what t.dtype would be if rows were whole blocks of it */
    const float *imp; /* importance of each column, for each outer block; NULL: none */
    const cm_imatrix *cross; /* of rounding by feedback; NULL: none */
    cm_item_how how;
    bool keep_f32; /* norms, biases, router, ...: never narrowed */
    int64_t outer, pitch, row0, rows, cols, head;
} cm_item;

typedef struct cm_items {
    cm_item *v;
    int n, cap;
} cm_items;

/* Append a whole parameter, shaped in the file as nd and dim say (nd 0: as in memory). */
cm_item *cm_items_add(cm_items *m, cm_param *p, int nd, const int64_t *dim,
                      const char *fmt, ...) CM_PRINTF(5, 6);
/* Narrow the last item to rows [row0, row0+rows) of each outer block. */
void cm_item_slice(cm_item *it, int64_t row0, int64_t rows);
void cm_items_free(cm_items *m);
/* Storage types as x->mix and x->tensors say: kept items stay F32.  idle: gets a sentence for
 * each pattern of x->tensors that changes nothing; NULL: nobody asks. */
bool cm_mix_apply(cm_items *m, const cm_export *x, cm_buf *idle, cm_err *err);
/* The tensors of an export with their types, and the size of the file that holds them. */
bool cm_export_items(const cm_export *x, bool gguf, cm_items *items, cm_buf *idle, cm_err *err);
bool cm_export_size(const cm_export *x, bool gguf, const cm_items *items, uint64_t *bytes,
                    cm_err *err);

/* Whether a file begins as GGUF does; false also where it cannot be read. */
bool cm_is_gguf(const char *path);
/* Remove from dir what another model than the one just written left there; without a tokenizer of
 * its own also tokenizer.model and tokenizer_config.json. */
bool cm_export_sweep(const char *dir, bool with_tokenizer, cm_err *err);

/* Hashes of the rows of `raw`, what cm_item_write gave, as they decode; sum[outer*rows] in the
 * parameter's order of rows.  And of one row. */
void cm_item_sums(const cm_item *it, const void *raw, uint64_t *sum);
uint64_t cm_row_sum(const cm_real *row, int64_t n); /* of the floats they are */
/* Encode parameter -> file bytes, and back.  False (naming the tensor): a value is not
 * finite, or too large for the type. */
bool cm_item_write(const cm_item *it, void *dst, cm_err *err);
bool cm_item_read(const cm_item *it, cm_dtype dt, const void *src, const char *path,
                  cm_err *err);

/* All tensors of a model in GGUF's and in Hugging Face's names, order and shape. */
void cm_gguf_items(const cm_model *m, cm_items *out);
void cm_hf_items(const cm_model *m, cm_items *out);
/* The adapters' tensors in llama.cpp's names: NAME.lora_a and NAME.lora_b for the GGUF
 * tensors NAME that have one. */
void cm_gguf_lora_items(const cm_model *m, cm_items *out);

/* Tensors of one or more files, by name; remembers which were asked for. */
typedef struct cm_source {
    const char *path;
    const cm_st_entry **e; /* sorted by name */
    bool *used;
    int n;
    uint64_t bytes;
    bool look; /* check shapes and types, read nothing */
} cm_source;
void cm_source_add(cm_source *s, const cm_st_entry *e, int n);
void cm_source_sort(cm_source *s);
void cm_source_free(cm_source *s);
const cm_tensor *cm_source_find(cm_source *s, const char *name);
/* Read an item from the tensor called `name`, whose first `skip` rows belong to others
 * and which has `total` rows in all (0: it is the item's own).  *found false: no such
 * tensor. */
bool cm_source_read(cm_source *s, const cm_item *it, const char *name, int64_t skip,
                    int64_t total, bool *found, cm_err *err);
/* Refuse tensors that nothing asked for. */
bool cm_source_all_used(const cm_source *s, cm_err *err);

/* A conf being read from a file: strings live here until the model's arena exists. */
typedef struct cm_file_conf {
    cm_model_conf c;
    char pattern[1025], ffn[1025];
} cm_file_conf;
/* conf defaults, with pattern and ffn pointing into f. */
void cm_file_conf_init(cm_file_conf *f);
/* Shorten a per-layer string to its shortest period; check every key's range; resolve.
 * Failures are data errors that name the file. */
bool cm_file_conf_finish(cm_file_conf *f, const char *path, cm_err *err);

/* cm_load's work: fill l, whose `into` and `chain` may be set. */
bool cm_load_any(cm_loaded *l, const char *path, unsigned flags, cm_err *err);

/* One item under any of the names it may have; a missing convolution bias is zero. */
bool cm_hf_read_item(cm_source *s, const cm_item *it, cm_err *err);

bool cm_hf_conf(cm_file_conf *f, const char *path, cm_err *err);
/* How the parameters of such a model, in their order, are held under CM_LOAD_BLOCKS; free(). */
bool cm_gguf_types(const cm_gguf *g, const cm_model_conf *c, cm_dtype **types, cm_err *err);
/* One item; q, k and v also out of a fused tensor. */
bool cm_gguf_read_item(cm_source *s, const cm_model *m, const cm_item *it, cm_err *err);
bool cm_gguf_conf(cm_file_conf *f, const cm_gguf *g, cm_err *err);
/* Keys of a model and of its tokenizer (NULL: none), and back. */
void cm_gguf_put_conf(cm_gguf_out *g, const cm_model_conf *c);
const char *cm_gguf_arch(const cm_model_conf *c); /* "granitehybrid", ... */
bool cm_gguf_put_tokenizer(cm_gguf_out *g, const cm_spm *spm, int64_t vocab, cm_err *err);
/* *spm NULL when the file has no tokenizer, or one of a kind that is not ours. */
bool cm_gguf_tokenizer(const cm_gguf *g, int64_t vocab, cm_spm **spm, cm_err *err);

/* The same in a thread of its own, beside the reading of weights.  Its end waits for it; so_far:
 * how reading went, whose sentence comes first. */
typedef struct cm_tokenizing {
    const cm_gguf *g;
    int64_t vocab;
    cm_spm **spm;
    pthread_t thread;
    bool apart, ok;
    cm_err err;
} cm_tokenizing;
void cm_tokenizing_begin(cm_tokenizing *t, const cm_gguf *g, int64_t vocab, cm_spm **spm);
bool cm_tokenizing_end(cm_tokenizing *t, bool so_far, cm_err *err);

#endif
