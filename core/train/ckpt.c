/* ckpt.c -- checkpoints that appear complete or not at all.
 *
 * A save fills dir/.tmp-step-N (each file fsynced by cm_out), writes SHA256SUMS, fsyncs
 * the folder, renames it to step-N, fsyncs dir, and only then moves `latest`.  A folder
 * on its way out is renamed to .old-step-N first, so a kill at any moment leaves only
 * whole checkpoints and dotted leftovers, which the next start removes.  One that replaces
 * its own step's changes places with it. */
#include "train/train.h"
#include "train/ckpt_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WEIGHTS "model.safetensors"
#define MOMENTS "optimizer.safetensors"

/* ---- tensors ----------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

/* Hugging Face stores the depthwise kernel as [C,1,K]. */
static cm_tensor hf_shape(const cm_param *p) {
    cm_tensor t = p->var.v;
    if (t.nd == 2 && ends_with(p->name, "conv1d.weight")) {
        t.nd = 3;
        t.dim[2] = t.dim[1];
        t.dim[1] = 1;
    }
    return t;
}

static bool save_weights(const cm_ckpt *c, const char *folder, cm_err *err) {
    const cm_params *ps = &c->model->params;
    if (c->model->adapter.n)
        return cm_adapter_write(c->model, folder, c->base, c->base_id, err);
    char *path = cm_strf("%s/" WEIGHTS, folder);
    cm_st_entry *e = calloc((size_t)ps->n, sizeof *e);
    CM_ASSERT(e, "out of memory for a checkpoint's table");
    for (int i = 0; i < ps->n; i++)
        e[i] = (cm_st_entry){ ps->p[i]->name, hf_shape(ps->p[i]) };
    /* transformers asks for this word before it opens a file. */
    cm_st_meta meta = { "format", "pt" };
    bool ok = cm_st_write(path, e, ps->n, &meta, 1, NULL, NULL, err);
    free(e);
    free(path);
    return ok;
}

/* Moments of parameter NAME are NAME.m and, under AdamW, NAME.v, as optim.state has them. */
static bool save_moments(const cm_ckpt *c, const char *path, cm_err *err) {
    const cm_params *ps = c->optim->ps;
    cm_st_entry *e = calloc((size_t)ps->n * 2, sizeof *e);
    CM_ASSERT(e, "out of memory for a checkpoint's table");
    int n = 0;
    for (int i = 0; i < ps->n; i++)
        for (int k = 0; k < 2; k++) {
            const cm_tensor *t = k ? &c->optim->v[i] : &c->optim->m[i];
            if (!t->data) continue;
            e[n++] = (cm_st_entry){ cm_strf("%s.%c", ps->p[i]->name, "mv"[k]), *t };
        }
    bool ok = cm_st_write(path, e, n, NULL, 0, NULL, NULL, err);
    for (int i = 0; i < n; i++) free((void *)(uintptr_t)e[i].name);
    free(e);
    return ok;
}

/* The named tensor with the parameter's element count, or a sentence. */
static const cm_tensor *expect(const cm_st *s, const char *name, const cm_tensor *like,
                               cm_err *err) {
    const cm_tensor *t = cm_st_find(s, name);
    if (!t) {
        cm_fail(err, CM_EXIT_DATA, "%s: tensor '%s' is missing", s->path, name);
        return NULL;
    }
    if (cm_tensor_count(t) == cm_tensor_count(like) && t->dtype == like->dtype) return t;
    char a[64], b[64];
    cm_fail(err, CM_EXIT_DATA, "%s: tensor '%s' is %s %s, this model wants %s %s", s->path,
            name, cm_dtypes[t->dtype].name, cm_tensor_shape_str(t, a, sizeof a),
            cm_dtypes[like->dtype].name, cm_tensor_shape_str(like, b, sizeof b));
    return NULL;
}

/* All tensors are found before the first is copied: a wrong file changes nothing.  w NULL:
 * moments only. */
static bool load_into(const cm_ckpt *c, const cm_st *w, const cm_st *o, bool copy,
                      cm_err *err) {
    const cm_params *ps = c->optim->ps;
    for (int i = 0; i < ps->n; i++) {
        const cm_tensor *like = &ps->p[i]->var.v, *t;
        if (w && !(t = expect(w, ps->p[i]->name, like, err))) return false;
        if (w && copy) memcpy(like->data, t->data, cm_tensor_bytes(like));
        for (int k = 0; k < 2; k++) {
            const cm_tensor *mine = k ? &c->optim->v[i] : &c->optim->m[i];
            if (!mine->data) continue;
            char name[128];
            snprintf(name, sizeof name, "%s.%c", ps->p[i]->name, "mv"[k]);
            if (!(t = expect(o, name, mine, err))) return false;
            if (copy) memcpy(mine->data, t->data, cm_tensor_bytes(mine));
        }
    }
    return true;
}

static bool load_both(const cm_ckpt *c, const char *folder, const cm_st *o, cm_err *err) {
    char *path = cm_strf("%s/" WEIGHTS, folder);
    cm_st w;
    bool ok = cm_st_open(&w, path, err);
    if (ok) {
        ok = load_into(c, &w, o, false, err) && load_into(c, &w, o, true, err);
        cm_st_close(&w);
    }
    free(path);
    return ok;
}

static bool load_tensors(const cm_ckpt *c, const char *folder, cm_err *err) {
    char *path = cm_strf("%s/" MOMENTS, folder);
    cm_st o;
    bool ok = cm_st_open(&o, path, err);
    if (ok) {
        ok = c->model->adapter.n
                 ? load_into(c, NULL, &o, false, err) &&
                       cm_adapter_read(c->model, folder, c->base, c->base_id, err) &&
                       load_into(c, NULL, &o, true, err)
                 : load_both(c, folder, &o, err);
        cm_st_close(&o);
    }
    free(path);
    return ok;
}

uint64_t cm_ckpt_bytes(const cm_optim *o) {
    uint64_t n = 0;
    for (int i = 0; i < o->ps->n; i++)
        n += cm_tensor_bytes(&o->ps->p[i]->var.v) + cm_tensor_bytes(&o->m[i]) +
             (o->v[i].data ? cm_tensor_bytes(&o->v[i]) : 0);
    return n;
}

/* ---- saving ------------------------------------------------------------------------ */

static bool write_text(const char *folder, const char *name, cm_buf *b, cm_err *err) {
    char *path = cm_strf("%s/%s", folder, name);
    bool ok = cm_write_file(path, b->s, b->n, err);
    free(path);
    cm_buf_free(b);
    return ok;
}

static bool fill_folder(const cm_ckpt *c, const char *folder, cm_err *err) {
    char *op = cm_strf("%s/" MOMENTS, folder);
    cm_buf state = { 0 }, yaml = { 0 };
    cm_train_state_write(c->state, c->data, c->tokenizer, &state);
    cm_conf_dump(c->conf, false, &yaml);
    bool ok = save_weights(c, folder, err) && save_moments(c, op, err) &&
              write_text(folder, "state.json", &state, err) &&
              write_text(folder, "train.yaml", &yaml, err) &&
              (!c->extra || c->extra(c->ctx, folder, err)) &&
              cm__sums_write(folder, err) && cm_fsync_dir(folder, err);
    cm_buf_free(&state);
    cm_buf_free(&yaml);
    free(op);
    return ok;
}

/* Point dir/name at `to` in one step: a new link renamed over the old one. */
static bool move_link(const char *dir, const char *name, const char *to, cm_err *err) {
    char *tmp = cm_strf("%s/.tmp-%s", dir, name), *path = cm_strf("%s/%s", dir, name);
    unlink(tmp);
    bool ok = !symlink(to, tmp) && !rename(tmp, path);
    if (!ok) {
        cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot move this link", path);
        unlink(tmp);
    }
    free(tmp);
    free(path);
    return ok && cm_fsync_dir(dir, err);
}

/* Put the finished folder in place.  A checkpoint of that step is one from before its
 * validation, or a damaged one that resuming passed over: they change places in one step, and
 * the old one goes; where the file system cannot, it makes room first. */
static bool publish(const char *dir, const char *tmp, const char *name, cm_err *err) {
    char *path = cm_strf("%s/%s", dir, name);
    bool there = cm_exists(path);
    bool swapped = there && !renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_EXCHANGE);
    bool ok = !there || (swapped ? cm_fsync_dir(dir, err) && cm_remove_tree(tmp, err)
                                 : cm__ckpt_drop(dir, name, err));
    if (ok && !swapped && rename(tmp, path))
        ok = cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot rename into place", path);
    free(path);
    return ok && cm_fsync_dir(dir, err);
}

bool cm_ckpt_save(const cm_ckpt *c, char **out_path, cm_err *err) {
    char *name = cm__ckpt_name(c->state->step);
    char *tmp = cm_strf("%s/.tmp-%s", c->dir, name);
    bool ok = cm_mkdirs(c->dir, err) && cm_remove_tree(tmp, err) && cm_mkdirs(tmp, err) &&
              fill_folder(c, tmp, err) && publish(c->dir, tmp, name, err);
    cm_err ignored;
    if (!ok) cm_remove_tree(tmp, &ignored);
    ok = ok && move_link(c->dir, "latest", name, err);
    if (ok && c->conf->ckpt.best && c->state->best_step == c->state->step)
        ok = move_link(c->dir, "best", name, err);
    ok = ok && cm__ckpt_prune(c, err);
    if (ok && out_path) *out_path = cm_strf("%s/%s", c->dir, name);
    free(name);
    free(tmp);
    return ok;
}

/* ---- loading ----------------------------------------------------------------------- */

/* Refuse a checkpoint of another run: other numbers would come out silently. */
static bool same_config(const cm_ckpt *c, const char *folder, cm_err *err) {
    char *path = cm_strf("%s/train.yaml", folder), *text;
    size_t n;
    bool ok = cm_read_file(path, 1 << 24, &text, &n, err);
    if (ok) {
        cm_buf diff = { 0 };
        if (!cm__conf_same(c, path, text, n, &diff)) {
            ok = c->any_config ||
                 cm_fail(err, CM_EXIT_USAGE,
                         "%s: this checkpoint belongs to another configuration (saved -> "
                         "now):\n%.900s", folder, diff.s);
            if (ok)
                cm_log(CM_LOG_WARN, "%s: the configuration has changed:\n%.*s", folder,
                       (int)diff.n - 1, diff.s);
        }
        cm_buf_free(&diff);
        free(text);
    }
    free(path);
    return ok;
}

static bool same_inputs(const cm_ckpt *c, const char *folder, const char *data,
                        const char *tokenizer, cm_err *err) {
    if (strcmp(tokenizer, c->tokenizer))
        return cm_fail(err, CM_EXIT_DATA,
                       "%s: this model was trained with tokenizer %.12s, the shards were "
                       "made with %.12s", folder, tokenizer, c->tokenizer);
    return !strcmp(data, c->data) ||
           cm_fail(err, CM_EXIT_DATA,
                   "%s: this run was trained on data %.12s, the shards are %.12s", folder,
                   data, c->data);
}

static bool read_state(const char *folder, cm_train_state *s, char *data, char *tokenizer,
                       cm_err *err) {
    char *path = cm_strf("%s/state.json", folder), *text;
    size_t n;
    bool ok = cm_read_file(path, 1 << 26, &text, &n, err);
    if (ok) {
        ok = cm_train_state_read(s, path, text, data, tokenizer, err);
        free(text);
    }
    free(path);
    return ok;
}

/* Window values are written in place by the parser, so they go to a side buffer first. */
static bool load_one(const cm_ckpt *c, const char *folder, bool *damaged, cm_err *err) {
    char data[65], tokenizer[65];
    int cap = c->state->guard.loss.cap;
    double *mem = malloc(2 * (size_t)cap * sizeof *mem);
    CM_ASSERT(mem, "out of memory for a checkpoint's state");
    cm_train_state s = *c->state;
    s.guard.loss.x = mem;
    s.guard.gnorm.x = mem + cap;
    *damaged = true;
    bool ok = cm_ckpt_verify(folder, err);
    if (ok) {
        *damaged = false; /* whole, so what is wrong now is not this file's fault */
        ok = same_config(c, folder, err) &&
             read_state(folder, &s, data, tokenizer, err) &&
             same_inputs(c, folder, data, tokenizer, err) && load_tensors(c, folder, err);
    }
    if (ok) {
        cm_ring *w[2] = { &c->state->guard.loss, &c->state->guard.gnorm };
        double *keep[2] = { w[0]->x, w[1]->x };
        memcpy(keep[0], mem, (size_t)cap * sizeof *mem);
        memcpy(keep[1], mem + cap, (size_t)cap * sizeof *mem);
        *c->state = s;
        w[0]->x = keep[0];
        w[1]->x = keep[1];
    }
    free(mem);
    return ok;
}

bool cm_ckpt_load(const cm_ckpt *c, bool *found, cm_err *err) {
    int64_t *step;
    int n = cm__ckpt_list(c->dir, &step);
    bool ok = true, damaged = true;
    *found = false;
    for (int i = n - 1; i >= 0 && damaged; i--) {
        char *name = cm__ckpt_name(step[i]), *folder = cm_strf("%s/%s", c->dir, name);
        *found = ok = load_one(c, folder, &damaged, err);
        if (ok) damaged = false;
        else if (damaged)
            cm_log(CM_LOG_WARN, "%s; %s", err->msg,
                   i ? "trying the checkpoint before it" : "no older checkpoint is left");
        free(folder);
        free(name);
    }
    free(step);
    return ok;
}
