/* optim.c -- AdamW over all parameters, the gradient norm, and who is stepped by Muon.
 *
 * Parameters are cut into chunks of fixed size; threads take chunks, partial sums are
 * added in chunk order, so no result depends on the number of threads.  Decay is
 * decoupled and leaves vectors (norms, biases, conv, A_log, D, dt_bias) alone. */
#include "train/trainer.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 15 };

struct cm_chunk {
    int param;
    int64_t at, n;
};

bool cm_optim_uses_muon(const cm_optim_conf *c, const cm_param *p) {
    return c->kind == CM_OPTIM_MUON && p->group == CM_GROUP_MATRIX && p->var.v.nd >= 2;
}

static void *table(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    CM_ASSERT(p, "out of memory for the optimizer's tables");
    return p;
}

static void cut_into_chunks(cm_optim *o) {
    for (int i = 0; i < o->ps->n; i++)
        o->n_chunk += (int)((cm_tensor_count(&o->ps->p[i]->var.v) + CHUNK - 1) / CHUNK);
    o->chunk = table((size_t)o->n_chunk, sizeof *o->chunk);
    o->part = table((size_t)o->n_chunk, sizeof *o->part);
    struct cm_chunk *c = o->chunk;
    for (int i = 0; i < o->ps->n; i++) {
        int64_t n = cm_tensor_count(&o->ps->p[i]->var.v);
        for (int64_t at = 0; at < n; at += CHUNK)
            *c++ = (struct cm_chunk){ i, at, n - at < CHUNK ? n - at : CHUNK };
    }
}

void cm_optim_open(cm_optim *o, const cm_optim_conf *c, cm_params *ps, cm_arena *arena) {
    *o = (cm_optim){ .conf = *c, .ps = ps, .momentum = c->muon_momentum };
    o->m = table((size_t)ps->n, sizeof *o->m);
    o->v = table((size_t)ps->n, sizeof *o->v);
    for (int i = 0; i < ps->n; i++) {
        const cm_tensor *w = &ps->p[i]->var.v;
        bool muon = cm_optim_uses_muon(c, ps->p[i]);
        o->m[i] = o->v[i] = muon ? *w : cm__moment_like(c, w);
        o->v[i].data = NULL;
        o->m[i].data = cm_arena_zalloc(arena, cm_tensor_bytes(&o->m[i]));
        if (!muon || c->muon_beta2 > 0)
            o->v[i].data = cm_arena_zalloc(arena, cm_tensor_bytes(&o->v[i]));
    }
    cut_into_chunks(o);
}

void cm_optim_close(cm_optim *o) {
    free(o->m);
    free(o->v);
    free(o->chunk);
    free(o->part);
    *o = (cm_optim){ 0 };
}

double cm_optim_grad_norm(const cm_optim *o) {
#pragma omp parallel for schedule(dynamic, 4) num_threads(cm_kern_threads())
    for (int k = 0; k < o->n_chunk; k++) {
        const struct cm_chunk *c = &o->chunk[k];
        o->part[k] = cm_k.sumsq(c->n, o->ps->p[c->param]->var.g + c->at);
    }
    double sum = 0;
    for (int k = 0; k < o->n_chunk; k++) sum += o->part[k];
    return sqrt(sum);
}

/* x^n by squaring: plain products, the same bits everywhere. */
static double power(double x, int64_t n) {
    double y = 1;
    for (; n; n >>= 1, x *= x)
        if (n & 1) y *= x;
    return y;
}

double cm_optim_momentum(const cm_optim_conf *c, double tokens) {
    const double from = 0.85;
    double warm = (double)c->muon_warmup, to = c->muon_momentum;
    return tokens < warm && from < to ? from + (to - from) * tokens / warm : to;
}

/* The peak rate of a parameter that AdamW steps. */
static double peak_of(const cm_optim_conf *c, cm_group g) {
    double own = g == CM_GROUP_EMBED ? c->embed_lr : g == CM_GROUP_VECTOR ? c->vector_lr : 0;
    return own > 0 ? own : c->lr;
}

/* A chunk's moments widened into two buffers, stepped, and narrowed again. */
static void adamw_narrow(cm_optim *o, int64_t step, int k, const cm_adamw *h, cm_real *room) {
    const struct cm_chunk *ch = &o->chunk[k];
    const cm_param *p = o->ps->p[ch->param];
    const cm_tensor *m = &o->m[ch->param], *v = &o->v[ch->param];
    int64_t all = cm_tensor_count(&p->var.v);
    cm_real *wide[2] = { room, room + CHUNK };
    cm__moment_read(m, all, false, ch->at, ch->n, wide[0]);
    cm__moment_read(v, all, true, ch->at, ch->n, wide[1]);
    cm_k.adamw(ch->n, cm_rdata(&p->var.v) + ch->at, p->var.g + ch->at, wide[0], wide[1], h);
    cm_rng r = cm_rng_make(o->seed, CM_RNG_ROUND, (uint64_t)step);
    uint64_t place = 2 * (uint64_t)k;
    cm__moment_write(m, all, false, ch->at, ch->n, wide[0], cm_rng_u64(r, place));
    cm__moment_write(v, all, true, ch->at, ch->n, wide[1], cm_rng_u64(r, place + 1));
}

/* room: 2 CHUNK numbers a thread, or NULL where all moments are cm_real. */
static void adamw_all(cm_optim *o, int64_t step, double share, double gscale, cm_real *room) {
    const cm_optim_conf *c = &o->conf;
    cm_adamw h = { .b1 = (cm_real)c->beta1, .b2 = (cm_real)c->beta2,
                   .eps = (cm_real)c->eps,
                   .wd = (cm_real)c->weight_decay,
                   .bc1 = (cm_real)(1 - power(c->beta1, step)),
                   .bc2 = (cm_real)(1 - power(c->beta2, step)),
                   .gscale = (cm_real)gscale };
#pragma omp parallel for schedule(dynamic, 4) num_threads(cm_kern_threads())
    for (int k = 0; k < o->n_chunk; k++) {
        const struct cm_chunk *ch = &o->chunk[k];
        const cm_param *p = o->ps->p[ch->param];
        if (cm_optim_uses_muon(c, p)) continue;
        cm_adamw mine = h;
        mine.lr = (cm_real)(peak_of(c, p->group) * share);
        if (p->group == CM_GROUP_VECTOR) mine.wd = 0;
        if (o->m[ch->param].dtype != CM_REAL_DTYPE)
            adamw_narrow(o, step, k, &mine, room + (size_t)omp_get_thread_num() * 2 * CHUNK);
        else
            cm_k.adamw(ch->n, cm_rdata(&p->var.v) + ch->at, p->var.g + ch->at,
                       cm_rdata(&o->m[ch->param]) + ch->at,
                       cm_rdata(&o->v[ch->param]) + ch->at, &mine);
    }
}

void cm_optim_step(cm_optim *o, int64_t step, double share, double gscale,
                   cm_arena *arena, bool dry) {
    size_t mark = cm_arena_mark(arena), each = 2 * CHUNK * sizeof(cm_real);
    bool narrow = o->conf.state != CM_STATE_FP32;
    cm_real *room = narrow ? cm_arena_alloc(arena, (size_t)cm_kern_threads() * each) : NULL;
    if (!dry) adamw_all(o, step, share, gscale, room);
    cm_arena_reset(arena, mark);
    if (o->conf.kind == CM_OPTIM_MUON) cm_muon_all(o, share, gscale, arena, dry);
}
