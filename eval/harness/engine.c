/* engine.c -- scores of many requests: paths of their prefix tree in batches.
 *
 * Depth first over points of the tree: the paths below a few points fill a batch; the batch
 * goes through the model, its nodes score what comes after them, its paths that go on leave
 * states, and those are the next points.  When a batch ends inside a window, the tokens its
 * last path shares with the next one are carried over, so nothing is computed twice. */
#include "harness/trie.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = 1024, WRITE_OUT = 8 }; /* packed tokens at most this many times the rows */

/* A token of the batch: the first text through its node.  Its depth is its position. */
typedef struct engine {
    const cm_model *m;
    const cm_request *r;
    cm__trie trie;
    int Q, cap, rows, packed, batch, states;
    cm_arena arena, meta, keep;
    cm_done_fn done;
    void *ctx;
    cm_engine_count count;
    bool stopped;
    cm_err *err;
    /* the batch */
    cm_paths p;
    cm_path *path;
    int32_t *token, *pos, *row;
    int64_t *text;         /* [rows] */
    cm__point *below;      /* [states] points that the batch's paths lead to */
    int n_below;
    /* scoring */
    int32_t *scored;       /* [rows] rows that something scored comes after */
    cm_real *hidden, *logits;
} engine;

static cm_tape begin(engine *e, cm_arena *arena, bool dry) {
    cm_tape t;
    cm_arena_reset(&e->meta, 0);
    cm_tape_begin(&t, arena, &e->meta, false, dry);
    return t;
}

/* ---- memory ---------------------------------------------------------------------------- */

static void set_limits(engine *e, const cm_engine_conf *c) {
    const cm_model_conf *mc = &e->m->conf;
    int longest = 1;
    for (int64_t i = 0; i < e->trie.n; i++)
        if (e->trie.text[i].reads > longest) longest = e->trie.text[i].reads;
    e->Q = cm_model_has_mamba(mc) ? (int)mc->ssm_chunk : 64;
    e->rows = c->rows > e->Q ? c->rows : c->rows > 0 ? e->Q : ROWS > e->Q ? ROWS : e->Q;
    e->cap = e->rows / e->Q * e->Q;
    e->packed = WRITE_OUT * e->rows;
    e->batch = c->batch > 0 && c->batch < e->rows ? c->batch : e->rows;
    double room = (c->state_gb > 0 ? c->state_gb : 0.5) * 1e9, have = cm_limits_get().memory;
    if (room > have / 2) room = have / 2; /* fewer states: slower, the same numbers */
    double states = room / (double)cm_past_bytes(mc, longest);
    e->states = states < 1 ? 1 : states < e->rows ? (int)states : e->rows;
    e->p.longest = longest;
}

static void *take(engine *e, size_t n, size_t size) {
    return cm_arena_alloc(&e->keep, n * size);
}

/* Lay out the buffers; on a counting arena that measures them. */
static void lay_out(engine *e) {
    size_t rows = (size_t)e->rows, D = (size_t)e->m->conf.d_model;
    e->path = take(e, rows, sizeof *e->path);
    e->token = take(e, rows, sizeof *e->token);
    e->pos = take(e, rows, sizeof *e->pos);
    e->row = take(e, (size_t)e->packed, sizeof *e->row);
    e->text = take(e, rows, sizeof *e->text);
    e->scored = take(e, rows, sizeof *e->scored);
    e->below = take(e, (size_t)e->states, sizeof *e->below);
    e->hidden = take(e, CM_LOGIT_ROWS * D, sizeof(cm_real));
    e->logits = take(e, CM_LOGIT_ROWS * (size_t)e->m->conf.vocab_size, sizeof(cm_real));
}

static bool open_memory(engine *e) {
    cm_arena count;
    if (!cm_arena_open(&e->meta, "engine meta", (size_t)256 << 20, e->err)) return false;
    if (!cm_arena_open_counting(&count, "engine plan", e->err)) return false;
    cm_paths most = { .rows = e->rows, .packed = e->packed, .n = e->rows,
                      .longest = e->p.longest };
    cm_tape t = begin(e, &count, true);
    cm_model_paths(e->m, &t, NULL, &most);
    size_t step = count.peak;
    cm_arena_close(&count);
    if (!cm_arena_open_filled(&e->arena, "scoring", step, "a smaller model takes less", e->err))
        return false;
    if (!cm_arena_open_counting(&e->keep, "engine plan", e->err)) return false;
    lay_out(e);
    size_t keep = e->keep.peak;
    cm_arena_close(&e->keep);
    if (!cm_arena_open(&e->keep, "engine batch", keep, e->err)) return false;
    lay_out(e);
    return true;
}

static void close_memory(engine *e) {
    cm__trie_free(&e->trie);
    cm_arena_close(&e->arena);
    cm_arena_close(&e->meta);
    cm_arena_close(&e->keep);
}

/* ---- scoring --------------------------------------------------------------------------- */

/* The texts through row r's node are text[r] and those after it for which this holds. */
static bool through(const engine *e, int r, int64_t i) {
    return i == e->text[r] || (i < e->trie.n && e->trie.shared[i] > e->pos[r]);
}

static bool is_scored(const engine *e, int r) {
    for (int64_t i = e->text[r]; through(e, r, i); i++)
        if (e->r[e->trie.text[i].request].first <= e->pos[r] + 1) return true;
    return false;
}

/* Log-probabilities after row r for all texts through it. */
static void score_row(const engine *e, int r, const cm_real *x) {
    int64_t V = e->m->conf.vocab_size;
    int at = e->pos[r] + 1, best = -1;
    cm_lse lse = cm_row_lse(x, V);
    for (int64_t i = e->text[r]; through(e, r, i); i++) {
        const cm_request *q = &e->r[e->trie.text[i].request];
        if (q->first > at) continue;
        int32_t k = q->token[at];
        q->logp[at - q->first] = cm_logp(lse, x[k]);
        if (!q->greedy) continue;
        if (best < 0) best = cm_argmax(x, (int)V);
        q->greedy[at - q->first] = k == best;
    }
}

static void score_batch(engine *e, const cm_real *hidden) {
    int64_t D = e->m->conf.d_model, V = e->m->conf.vocab_size;
    int64_t all[CM_LOGIT_ROWS];
    int n = 0;
    for (int r = 0; r < e->p.rows; r++)
        if (is_scored(e, r)) e->scored[n++] = r;
    e->count.scored += n;
    for (int i = 0; i < CM_LOGIT_ROWS; i++) all[i] = i;
    for (int at = 0; at < n; at += CM_LOGIT_ROWS) {
        int k = n - at < CM_LOGIT_ROWS ? n - at : CM_LOGIT_ROWS;
        for (int i = 0; i < k; i++)
            memcpy(e->hidden + i * D, hidden + e->scored[at + i] * D,
                   (size_t)D * sizeof *hidden);
        cm_model_logits(e->m, e->hidden, all, k, e->logits);
#pragma omp parallel for schedule(static)
        for (int i = 0; i < k; i++) score_row(e, e->scored[at + i], e->logits + i * V);
    }
}

static void tell_done(engine *e) {
    for (int r = 0; e->done && r < e->p.rows; r++)
        for (int64_t i = e->text[r]; !e->stopped && through(e, r, i); i++)
            if (e->trie.text[i].reads == e->pos[r] + 1)
                e->stopped = !e->done(e->ctx, e->trie.text[i].request);
}

/* ---- batches --------------------------------------------------------------------------- */

/* One level of the descent. */
typedef struct frame {
    cm__point *point;
    int64_t n, open;  /* points before `open` need their states no more */
    cm_carry *carry;  /* made when first needed */
} frame;

static bool no_memory(engine *e) {
    return cm_fail(e->err, CM_EXIT_RESOURCE, "out of memory for states of the model");
}

static bool descend(engine *e, cm__point *point, int64_t n);

/* Run what lies below the batch's paths, then forget their states. */
static bool go_below(engine *e) {
    int n = e->n_below;
    if (!n || e->stopped) return true;
    cm__point *p = malloc((size_t)n * sizeof *p);
    if (!p) return no_memory(e);
    memcpy(p, e->below, (size_t)n * sizeof *p);
    e->n_below = 0;
    bool ok = descend(e, p, n);
    for (int i = 0; i < n; i++) cm_past_free(p[i].past);
    free(p);
    return ok;
}

/* Run the batch.  keep: tokens of its last path that the next path shares; done: points of
 * the frame before this have all their paths in this batch or earlier ones. */
static bool flush(engine *e, frame *f, int keep, int64_t done) {
    if (!e->p.n) return true;
    if (keep && !f->carry && !(f->carry = cm_carry_new(e->m, e->Q))) return no_memory(e);
    e->p.carry = f->carry;
    e->p.keep = keep;
    e->p.path = e->path;
    e->p.row = e->row;
    e->p.pos = e->pos;
    cm_arena_reset(&e->arena, 0);
    cm_tape t = begin(e, &e->arena, false);
    cm_var *h = cm_model_paths(e->m, &t, e->token, &e->p);
    score_batch(e, cm_rdata(&h->v));
    tell_done(e);
    e->count.computed += e->p.rows;
    e->count.passes++;
    for (; f->open < done; f->open++)
        if (f->point[f->open].past) cm_past_shrink(f->point[f->open].past);
    e->p.n = e->p.rows = e->p.packed = 0;
    return go_below(e);
}

static bool is_full(const engine *e, const cm__step *s) {
    return e->p.n >= e->batch || e->p.rows + s->len - s->shared > e->rows ||
           e->p.packed + s->len > e->packed ||
           (s->lo < s->hi && e->n_below >= e->states);
}

/* Add the path of text i below `p`.  first: none of its window is in the batch yet. */
static bool add_path(engine *e, const cm__point *p, int64_t i, const cm__step *s,
                     bool first) {
    const int32_t *last = first ? NULL : e->row + e->path[e->p.n - 1].at;
    cm_path *path = &e->path[e->p.n++];
    *path = (cm_path){ .past = p->past, .at = e->p.packed, .len = s->len,
                       .shared = s->shared };
    e->p.packed += s->len;
    int32_t *row = e->row + path->at;
    int from = cm_path_begin(path);
    for (int k = 0; k < s->shared; k++) row[k] = last ? last[k] : -1 - k;
    for (int k = s->shared; k < s->len; k++) {
        int r = row[k] = e->p.rows++;
        e->token[r] = e->trie.text[i].token[from + k];
        e->pos[r] = from + k;
        e->text[r] = i;
    }
    if (s->lo == s->hi) return true;
    path->next = cm_past_new(e->m, p->past, s->len);
    if (!path->next) return no_memory(e);
    e->below[e->n_below++] = (cm__point){ path->next, s->lo, s->hi };
    return true;
}

static bool run_window(engine *e, frame *f, int64_t which) {
    const cm__point *p = &f->point[which];
    int begin_at = p->past ? p->past->tokens : 0;
    int end = begin_at + cm__trie_span(&e->trie, p, e->Q, e->cap);
    bool first = true;
    for (int64_t i = p->lo; i < p->hi && !e->stopped;) {
        cm__step s = cm__trie_step(&e->trie, p, i, end);
        if (s.shared < s.len) { /* else the path is the one before */
            if (is_full(e, &s)) {
                if (!flush(e, f, s.shared, which)) return false;
                first = true;
            }
            if (!add_path(e, p, i, &s, first)) return false;
            first = false;
        }
        i = s.next;
    }
    return true;
}

static bool descend(engine *e, cm__point *point, int64_t n) {
    frame f = { .point = point, .n = n };
    bool ok = true;
    for (int64_t i = 0; ok && i < n && !e->stopped; i++) ok = run_window(e, &f, i);
    ok = ok && (e->stopped || flush(e, &f, 0, n));
    while (e->n_below) cm_past_free(e->below[--e->n_below].past); /* of an unfinished batch */
    cm_carry_free(f.carry);
    return ok;
}

static bool run_all(engine *e, bool alone) {
    int64_t n = alone ? e->trie.n : e->trie.n > 0;
    cm__point *root = malloc((size_t)(n ? n : 1) * sizeof *root);
    if (!root) return no_memory(e);
    for (int64_t i = 0; i < n; i++)
        root[i] = (cm__point){ NULL, i, alone ? i + 1 : e->trie.n };
    bool ok = descend(e, root, n);
    free(root);
    return ok;
}

bool cm_engine_score(const cm_model *m, const cm_engine_conf *conf, const cm_request *r,
                     int64_t n, cm_done_fn done, void *ctx, cm_engine_count *count,
                     cm_err *err) {
    engine e = { .m = m, .r = r, .done = done, .ctx = ctx, .err = err };
    if (!cm__trie_build(&e.trie, r, n, conf->alone, err)) return false;
    for (int64_t i = 0; i < n && !e.stopped; i++)
        if (r[i].first >= r[i].n && done) e.stopped = !done(ctx, i);
    set_limits(&e, conf);
    bool ok = e.stopped || (open_memory(&e) && run_all(&e, conf->alone));
    for (int64_t i = 0; i < e.trie.n; i++) e.count.requested += e.trie.text[i].reads;
    if (count) {
        count->requested += e.count.requested;
        count->computed += e.count.computed;
        count->scored += e.count.scored;
        count->passes += e.count.passes;
    }
    close_memory(&e);
    return ok;
}
