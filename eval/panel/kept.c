/* kept.c -- the start model's numbers in a run: panel/start.safetensors (docs/FORMATS.md). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "panel/panel_int.h"

static void add_tensor(cm_sha *h, const cm_tensor *t) {
    cm_sha_add(h, t->data, (size_t)cm_tensor_bytes(t));
}

/* SHA-256 over all the tensors' bytes, in the order of the file. */
static void content_hash(const cm_st_entry *e, int n, char hex[65]) {
    cm_sha *h = cm_sha_open();
    for (int i = 0; i < n; i++) add_tensor(h, &e[i].t);
    cm_sha_close(h, hex);
}

bool cm_panel_keep(const cm_panel *p, const cm_panel_look *l, const float *logp,
                   const char *path, cm_err *err) {
    cm_st_entry e[4];
    char hex[65];
    int n = 0;
    int64_t V = p->start->model.conf.vocab_size;
    void *row = (void *)(uintptr_t)l->row.v;
    e[n++] = (cm_st_entry){ "measures", { CM_F64_T, 1, { CM_PANEL_N }, row } };
    e[n++] = (cm_st_entry){ "length", { CM_F64_T, 1, { p->n }, l->length } };
    if (p->has_task) e[n++] = (cm_st_entry){ "score", { CM_F64_T, 1, { p->task.n }, l->score } };
    if (p->positions)
        e[n++] = (cm_st_entry){ "logp", { CM_F32_T, 2, { p->positions, V },
                                          (void *)(uintptr_t)logp } };
    content_hash(e, n, hex);
    const cm_st_meta meta[] = { { "kind", "panel" }, { "fingerprint", p->fingerprint },
                                { "sha256", hex } };
    return cm_st_write(path, e, n, meta, 3, NULL, NULL, err);
}

static bool is_like(const cm_tensor *t, cm_dtype dtype, int nd, int64_t a, int64_t b) {
    return t && t->dtype == dtype && t->nd == nd && t->dim[0] == a && (nd < 2 || t->dim[1] == b);
}

static double *copied(const cm_tensor *t) {
    size_t n = (size_t)cm_tensor_bytes(t);
    double *x = malloc(n ? n : 1);
    CM_ASSERT(x, "out of memory: numbers of the start model");
    memcpy(x, t->data, n);
    return x;
}

/* Is it the file that belongs here, and whole? */
static bool fits(cm_panel *p, cm_buf *why) {
    const cm_st *s = &p->kept;
    const char *print = cm_st_get_meta(s, "fingerprint"), *sum = cm_st_get_meta(s, "sha256");
    char hex[65];
    const cm_tensor *m = cm_st_find(s, "measures"), *len = cm_st_find(s, "length");
    const cm_tensor *score = cm_st_find(s, "score"), *logp = cm_st_find(s, "logp");
    content_hash(s->entry, s->n, hex);
    bool same = print && !strcmp(print, p->fingerprint);
    bool good = sum && !strcmp(sum, hex) && is_like(m, CM_F64_T, 1, CM_PANEL_N, 0) &&
                is_like(len, CM_F64_T, 1, p->n, 0) &&
                (!p->has_task || is_like(score, CM_F64_T, 1, p->task.n, 0)) &&
                (!p->positions ||
                 is_like(logp, CM_F32_T, 2, p->positions, p->start->model.conf.vocab_size));
    if (!same) cm_buf_addf(why, "it was made with another model, data or settings of the panel");
    else if (!good) cm_buf_addf(why, "it is damaged");
    return same && good;
}

bool cm_panel_kept(cm_panel *p, const char *path, cm_buf *why) {
    cm_err err;
    if (!cm_exists(path)) return false;
    if (!cm_st_open(&p->kept, path, &err)) {
        cm_buf_addf(why, "%s", err.msg);
        return false;
    }
    if (!fits(p, why)) {
        cm_st_close(&p->kept);
        return false;
    }
    const cm_tensor *score = cm_st_find(&p->kept, "score"), *logp = cm_st_find(&p->kept, "logp");
    memcpy(p->begin.v, cm_st_find(&p->kept, "measures")->data, sizeof p->begin.v);
    free(p->length);
    free(p->score);
    p->length = copied(cm_st_find(&p->kept, "length"));
    p->score = p->has_task ? copied(score) : NULL;
    p->logp = p->positions ? logp->data : NULL;
    return true;
}
