/* lazy.h -- models whose weights are read when they are wanted; private to model/. */
#ifndef CM_MODEL_LAZY_H
#define CM_MODEL_LAZY_H

#include "model/files.h"

/* The safetensors files of a folder, opened. */
typedef struct cm_shards {
    cm_st *st;
    int n;
    char *weights; /* the file whose hash names the model */
} cm_shards;
void cm_shards_close(cm_shards *s);

/* Memory for a parameter's weights. */
typedef struct cm_weight_room {
    cm_arena mem;
    const cm_param *of; /* NULL: nobody's */
} cm_weight_room;

/* Files that stay open, and what of them goes where. */
struct cm_lazy {
    cm_gguf g;    /* a GGUF file, or */
    cm_shards sh; /* a folder's; set by who opened them */
    bool gguf;
    char *path;
    cm_source s;
    cm_items items;
    bool *there; /* of each item: it has been read */
    cm_weight_room *room; /* handed on from one parameter to the next: new memory must be cleared */
    int n_room;
};
/* l->lazy, which takes over what was checked. */
void cm_lazy_open(cm_loaded *l, const cm_source *s, const cm_items *items);
void cm_lazy_close(struct cm_lazy *z); /* NULL is fine */

#endif
