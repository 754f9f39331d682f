/* lazy.c -- weights read when they are wanted, into memory that goes from one parameter to the
 * next. */
#include "model/lazy.h"

#include <stdlib.h>
#include <string.h>

void cm_lazy_open(cm_loaded *l, const cm_source *s, const cm_items *items) {
    struct cm_lazy *z = l->lazy = calloc(1, sizeof *z);
    CM_ASSERT(z, "out of memory: open files");
    z->s = *s;
    z->s.look = false;
    z->s.path = z->path = cm_strf("%s", s->path);
    z->items = *items;
    z->there = cm_room(items->n, sizeof *z->there);
    memset(z->there, 0, (size_t)items->n * sizeof *z->there);
    for (int i = 0; i < l->model.params.n; i++) l->model.params.p[i]->var.v.data = NULL;
}

void cm_shards_close(cm_shards *s) {
    for (int i = 0; i < s->n; i++) cm_st_close(&s->st[i]);
    free(s->st);
    free(s->weights);
}

void cm_lazy_close(struct cm_lazy *z) {
    if (!z) return;
    for (int i = 0; i < z->n_room; i++) cm_arena_close(&z->room[i].mem);
    free(z->room);
    cm_items_free(&z->items);
    cm_source_free(&z->s);
    if (z->gguf) cm_gguf_close(&z->g);
    cm_shards_close(&z->sh);
    free(z->path);
    free(z->there);
    free(z);
}

/* The smallest free one that p fits in, unless most of it would be wasted. */
static cm_weight_room *spare_room(struct cm_lazy *z, size_t bytes) {
    cm_weight_room *best = NULL;
    for (int i = 0; i < z->n_room; i++) {
        cm_weight_room *r = &z->room[i];
        bool fits = !r->of && r->mem.cap >= bytes && r->mem.cap / 4 <= bytes;
        if (fits && (!best || r->mem.cap < best->mem.cap)) best = r;
    }
    return best;
}

static bool make_room(struct cm_lazy *z, cm_param *p, cm_err *err) {
    size_t bytes = cm_tensor_bytes(&p->var.v);
    cm_weight_room *r = spare_room(z, bytes);
    if (!r) {
        z->room = realloc(z->room, ((size_t)z->n_room + 1) * sizeof *z->room);
        CM_ASSERT(z->room, "out of memory: %d rooms", z->n_room);
        r = &z->room[z->n_room];
        if (!cm_arena_open(&r->mem, p->name, bytes, err)) return false;
        z->n_room++;
    }
    r->of = p;
    cm_arena_reset(&r->mem, 0);
    p->var.v.data = cm_arena_alloc(&r->mem, bytes);
    return true;
}

/* p's room becomes free; NULL: all rooms go. */
static void leave_room(struct cm_lazy *z, const cm_param *p) {
    for (int i = 0; i < z->n_room; i++) {
        if (!p) cm_arena_close(&z->room[i].mem);
        else if (z->room[i].of == p) z->room[i].of = NULL;
    }
    if (!p) z->n_room = 0;
}

/* Whether all that is not there yet fits. */
static bool all_fit(const cm_loaded *l, cm_err *err) {
    double need = 0;
    for (int i = 0; i < l->model.params.n; i++) {
        const cm_tensor *t = &l->model.params.p[i]->var.v;
        if (!t->data) need += (double)cm_tensor_bytes(t);
    }
    char *what = cm_strf("%s: the model as floats", l->lazy->path);
    bool ok = cm_memory_fits(need, what, "this wants all of it at once", err);
    free(what);
    return ok;
}

bool cm_loaded_fetch(cm_loaded *l, const cm_param *p, cm_err *err) {
    struct cm_lazy *z = l->lazy;
    bool ok = !z || p || all_fit(l, err);
    for (int i = 0; ok && z && i < z->items.n; i++) {
        const cm_item *it = &z->items.v[i];
        if ((p && it->p != p) || z->there[i]) continue;
        if (!it->p->var.v.data && !make_room(z, it->p, err)) return false;
        ok = z->gguf ? cm_gguf_read_item(&z->s, &l->model, it, err)
                     : cm_hf_read_item(&z->s, it, err);
        z->there[i] = ok;
    }
    return ok;
}

void cm_loaded_forget(cm_loaded *l, const cm_param *p) {
    struct cm_lazy *z = l->lazy;
    if (!z) return;
    for (int i = 0; i < z->items.n; i++)
        if (!p || z->items.v[i].p == p) z->there[i] = false;
    for (int i = 0; i < l->model.params.n; i++)
        if (!p || l->model.params.p[i] == p) l->model.params.p[i]->var.v.data = NULL;
    leave_room(z, p);
}

bool cm_loaded_bring(void *loaded, int part, cm_err *err) {
    cm_loaded *l = loaded;
    cm_params *ps = &l->model.params;
    for (int i = 0; i < ps->n; i++)
        if (!cm_model_in_part(&l->model, ps->p[i], part)) cm_loaded_forget(l, ps->p[i]);
    for (int i = 0; i < ps->n; i++)
        if (cm_model_in_part(&l->model, ps->p[i], part) && !cm_loaded_fetch(l, ps->p[i], err))
            return false;
    return true;
}
