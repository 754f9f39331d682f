/* gen.c -- continue many prompts in lockstep.
 *
 * Live texts sit in slots [0,live) of one decoding state, which take a step together.  A
 * new text is read alone into the next free slot, in pieces that end at multiples of the
 * scan's Q; a finished one is replaced by the last. */
#include "harness/harness.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH = 16, PIECE = 256 };

typedef struct gen {
    const cm_model *m;
    cm_sampling how;
    cm_prompt *p;
    cm_stop_fn stop;
    cm_done_fn done;
    void *ctx;
    cm_engine_count count;
    bool stopped;
    int64_t broken; /* prompt without usable logits, or -1 */
    int batch, cap, piece, live;
    int shared;             /* tokens all prompts begin with, a multiple of Q */
    cm_arena arena, meta, keep;
    cm_state st, begin;     /* slots; state after the shared tokens (its B is 1) */
    cm_layer_state *view;   /* [layers] of one slot */
    int64_t *prompt;        /* [batch] */
    int32_t *text, *last;   /* [batch,cap] prompt and what was added; [batch] */
    cm_real *logits;        /* [batch,V] */
    void *work;
} gen;

/* ---- slots ----------------------------------------------------------------------------- */

/* Reals of one slot in each part of a layer's state. */
typedef struct {
    size_t row, conv, ssm; /* row: of keys, of one token */
} sizes;

static sizes layer_sizes(const gen *g, int64_t i) {
    const cm_layer *l = &g->m->layer[i];
    if (l->attention) return (sizes){ .row = (size_t)(l->attn.G * l->attn.P) };
    const cm_ssd_conf *s = &l->mamba.ssd;
    return (sizes){ .conv = (size_t)((g->m->conf.ssm_conv - 1) * l->mamba.C),
                    .ssm = (size_t)s->H * (size_t)s->N * (size_t)s->P };
}

/* One slot of a state as a state of its own, that reads with the bits of the whole. */
static cm_state slot(gen *g, const cm_state *st, int s) {
    cm_state one = { .B = 1, .cap = st->cap, .held = st->held + s, .layer = g->view };
    for (int64_t i = 0; i < g->m->conf.n_layers; i++) {
        sizes z = layer_sizes(g, i);
        cm_layer_state *v = &g->view[i];
        *v = st->layer[i];
        if (z.row) {
            size_t at = (size_t)s * (size_t)st->cap * z.row;
            v->kv.k = (cm_real *)v->kv.k + at, v->kv.v = (cm_real *)v->kv.v + at;
            v->kv.held = one.held;
            v->kv.exact = true;
        } else {
            v->conv += (size_t)s * z.conv;
            v->ssm += (size_t)s * z.ssm;
        }
    }
    return one;
}

static void copy_slot(const gen *g, const cm_state *from, int f, cm_state *to, int t) {
    size_t held = (size_t)from->held[f], real = sizeof(cm_real);
    for (int64_t i = 0; i < g->m->conf.n_layers; i++) {
        sizes z = layer_sizes(g, i);
        const cm_layer_state *a = &from->layer[i];
        cm_layer_state *b = &to->layer[i];
        if (z.row) {
            size_t x = (size_t)f * (size_t)from->cap * z.row;
            size_t y = (size_t)t * (size_t)to->cap * z.row;
            size_t n = held * z.row * real;
            memcpy((cm_real *)b->kv.k + y, (const cm_real *)a->kv.k + x, n);
            memcpy((cm_real *)b->kv.v + y, (const cm_real *)a->kv.v + x, n);
        } else {
            memcpy(b->conv + (size_t)t * z.conv, a->conv + (size_t)f * z.conv, z.conv * real);
            memcpy(b->ssm + (size_t)t * z.ssm, a->ssm + (size_t)f * z.ssm, z.ssm * real);
        }
    }
    to->held[t] = from->held[f];
}

static void clear_slot(gen *g, cm_state *st, int s) {
    cm_state one = slot(g, st, s);
    for (int64_t i = 0; i < g->m->conf.n_layers; i++) {
        sizes z = layer_sizes(g, i);
        if (z.conv) memset(one.layer[i].conv, 0, z.conv * sizeof(cm_real));
        if (z.ssm) memset(one.layer[i].ssm, 0, z.ssm * sizeof(cm_real));
    }
    one.held[0] = 0;
}

/* ---- memory ---------------------------------------------------------------------------- */

#define FEWER "fewer texts at a time take less (eval.batch)"

/* How long the texts get, and what they all begin with. */
static void survey(gen *g, int64_t n) {
    const cm_model_conf *c = &g->m->conf;
    int Q = cm_model_has_mamba(c) ? (int)c->ssm_chunk : 64;
    int shared = n > 1 ? g->p[0].n : 0;
    for (int64_t i = 0; i < n; i++) {
        const cm_prompt *p = &g->p[i];
        CM_ASSERT(p->n >= 1, "prompt %lld is empty", (long long)i);
        if (p->n + p->max_new > g->cap) g->cap = p->n + p->max_new;
        if (shared > p->n - 1) shared = p->n - 1; /* the last is read for its logits */
        for (int k = 0; k < shared; k++)
            if (p->token[k] != g->p[0].token[k]) shared = k;
    }
    g->shared = shared / Q * Q;
    g->piece = PIECE > Q ? PIECE / Q * Q : Q;
}

static bool measure(gen *g, int B, int T, size_t *most, cm_err *err) {
    cm_arena count;
    if (!cm_arena_open_counting(&count, "generation plan", err)) return false;
    cm_tape t;
    size_t mark = cm_arena_mark(&g->meta);
    cm_tape_begin(&t, &count, &g->meta, false, true);
    cm_state st = g->st;
    cm_model_hidden(g->m, &t, NULL, &(cm_seq){ .B = B, .T = T }, &st);
    if (count.peak > *most) *most = count.peak;
    cm_arena_reset(&g->meta, mark);
    cm_arena_close(&count);
    return true;
}

static void lay_out(gen *g) {
    size_t B = (size_t)g->batch, V = (size_t)g->m->conf.vocab_size;
    cm_state_init(&g->st, g->m, g->batch, g->cap, CM_F32_T, &g->keep);
    if (g->shared) cm_state_init(&g->begin, g->m, 1, g->shared, CM_F32_T, &g->keep);
    g->view = cm_arena_alloc(&g->keep, (size_t)g->m->conf.n_layers * sizeof *g->view);
    g->prompt = cm_arena_alloc(&g->keep, B * sizeof *g->prompt);
    g->text = cm_arena_alloc(&g->keep, B * (size_t)g->cap * sizeof *g->text);
    g->last = cm_arena_alloc(&g->keep, B * sizeof *g->last);
    g->logits = cm_arena_alloc(&g->keep, B * V * sizeof *g->logits);
    g->work = cm_arena_alloc(&g->keep, cm_sample_work_bytes((int)V));
}

static size_t kept_bytes(const gen *g) {
    const cm_model_conf *c = &g->m->conf;
    size_t B = (size_t)g->batch, V = (size_t)c->vocab_size;
    size_t n = cm_state_bytes(c, g->batch, g->cap, CM_F32_T);
    if (g->shared) n += cm_state_bytes(c, 1, g->shared, CM_F32_T);
    n += cm_align_up((size_t)c->n_layers * sizeof *g->view);
    n += cm_align_up(B * sizeof *g->prompt) + cm_align_up(B * sizeof *g->last);
    n += cm_align_up(B * (size_t)g->cap * sizeof *g->text);
    return n + cm_align_up(B * V * sizeof *g->logits) +
           cm_align_up(cm_sample_work_bytes((int)V));
}

/* What outlives a pass, and the bytes of one. */
static bool open_states(gen *g, size_t *step, cm_err *err) {
    *step = 0;
    if (!cm_arena_open(&g->meta, "generation meta", (size_t)64 << 20, err)) return false;
    if (!cm_arena_open_filled(&g->keep, "what is kept of the texts being written", kept_bytes(g),
                              FEWER, err))
        return false;
    lay_out(g);
    int piece = g->piece < g->cap ? g->piece : g->cap;
    return measure(g, g->batch, 1, step, err) && measure(g, 1, 1, step, err) &&
           measure(g, 1, piece, step, err);
}

static bool open_memory(gen *g, cm_err *err) {
    size_t step;
    return open_states(g, &step, err) &&
           cm_arena_open_filled(&g->arena, "writing texts", step, FEWER, err);
}

static void close_memory(gen *g) {
    cm_arena_close(&g->arena);
    cm_arena_close(&g->meta);
    cm_arena_close(&g->keep);
}

/* ---- texts ----------------------------------------------------------------------------- */

/* Run T tokens of each of B texts; hidden states of the last pass. */
static const cm_real *run(gen *g, cm_state *st, const int32_t *token, int B, int T) {
    cm_tape t;
    cm_arena_reset(&g->arena, 0);
    cm_arena_reset(&g->meta, 0);
    cm_tape_begin(&t, &g->arena, &g->meta, false, false);
    cm_var *h = cm_model_hidden(g->m, &t, token, &(cm_seq){ .B = B, .T = T }, st);
    g->count.computed += (int64_t)B * T;
    g->count.passes++;
    return cm_rdata(&h->v);
}

/* Read tokens up to `end`; hidden state of the last. */
static const cm_real *read_text(gen *g, cm_state *st, const int32_t *token, int end) {
    const cm_real *h = NULL;
    for (int at = st->held[0], T; at < end; at += T) {
        T = end - at < g->piece ? end - at : g->piece;
        h = run(g, st, token + at, 1, T) + (T - 1) * g->m->conf.d_model;
    }
    return h;
}

/* Choose slot s's next token from its logits; true when its text is finished. */
static bool choose(gen *g, int s) {
    int64_t i = g->prompt[s], V = g->m->conf.vocab_size;
    if (!cm_logits_finite(g->logits + s * V, V)) {
        g->broken = i;
        g->stopped = true;
        return true;
    }
    cm_prompt *p = &g->p[i];
    int32_t *text = g->text + (size_t)s * (size_t)g->cap;
    cm_sampling how = g->how;
    how.seed = p->seed;
    int32_t id = cm_sample_token(&how, g->logits + s * V, (int)V, text, p->n + p->n_out,
                                 (uint64_t)p->n_out, g->work);
    g->count.scored++;
    text[p->n + p->n_out] = g->last[s] = p->out[p->n_out] = id;
    p->n_out++;
    bool end = (g->stop && g->stop(g->ctx, i, p)) || p->n_out == p->max_new;
    if (end && g->done) g->stopped |= !g->done(g->ctx, i);
    return end;
}

/* Read prompt i into the next free slot and choose its first token. */
static void start(gen *g, int64_t i) {
    cm_prompt *p = &g->p[i];
    int s = g->live;
    p->n_out = 0;
    g->count.requested += p->n;
    if (!p->max_new) {
        if (g->done) g->stopped |= !g->done(g->ctx, i);
        return;
    }
    if (g->shared) copy_slot(g, &g->begin, 0, &g->st, s);
    else clear_slot(g, &g->st, s);
    cm_state one = slot(g, &g->st, s);
    const cm_real *h = read_text(g, &one, p->token, p->n);
    cm_model_logits(g->m, h, &(int64_t){ 0 }, 1, g->logits + s * g->m->conf.vocab_size);
    memcpy(g->text + (size_t)s * (size_t)g->cap, p->token, (size_t)p->n * sizeof *g->text);
    g->prompt[s] = i;
    g->live += !choose(g, s);
}

/* The last live text moves into slot s. */
static void drop(gen *g, int s) {
    int from = --g->live;
    if (from == s) return;
    size_t V = (size_t)g->m->conf.vocab_size, cap = (size_t)g->cap;
    copy_slot(g, &g->st, from, &g->st, s);
    g->prompt[s] = g->prompt[from];
    g->last[s] = g->last[from];
    memcpy(g->text + (size_t)s * cap, g->text + (size_t)from * cap, cap * sizeof *g->text);
    memcpy(g->logits + (size_t)s * V, g->logits + (size_t)from * V, V * sizeof *g->logits);
}

static void step(gen *g) {
    int64_t row[CM_LOGIT_ROWS], V = g->m->conf.vocab_size;
    cm_state live = g->st;
    live.B = g->live;
    const cm_real *h = run(g, &live, g->last, g->live, 1);
    for (int at = 0; at < g->live; at += CM_LOGIT_ROWS) {
        int n = g->live - at < CM_LOGIT_ROWS ? g->live - at : CM_LOGIT_ROWS;
        for (int k = 0; k < n; k++) row[k] = at + k;
        cm_model_logits(g->m, h, row, n, g->logits + at * V);
    }
    g->count.requested += g->live;
    for (int s = g->live - 1; s >= 0 && !g->stopped; s--)
        if (choose(g, s)) drop(g, s);
}

static void run_all(gen *g, int64_t n) {
    if (g->shared) {
        cm_state one = slot(g, &g->begin, 0);
        read_text(g, &one, g->p[0].token, g->shared);
    }
    for (int64_t next = 0; !g->stopped && (next < n || g->live);) {
        while (!g->stopped && next < n && g->live < g->batch) start(g, next++);
        if (g->live && !g->stopped) step(g);
    }
}

static int batch_of(int batch, int64_t n) {
    if (batch <= 0) batch = BATCH;
    return batch > n ? (int)n : batch;
}

bool cm_generate_bytes(const cm_model *m, int batch, const cm_prompt *p, int64_t n,
                       size_t *bytes, cm_err *err) {
    *bytes = 0;
    if (n < 1) return true;
    gen g = { .m = m, .p = (cm_prompt *)(uintptr_t)p, .batch = batch_of(batch, n) };
    survey(&g, n);
    bool ok = open_states(&g, bytes, err);
    *bytes += g.keep.cap + g.meta.peak;
    close_memory(&g);
    return ok;
}

bool cm_generate(const cm_model *m, const cm_sampling *how, int batch, cm_prompt *p,
                 int64_t n, cm_stop_fn stop, cm_done_fn done, void *ctx,
                 cm_engine_count *count, cm_err *err) {
    if (n < 1) return true;
    gen g = { .m = m, .how = *how, .p = p, .stop = stop, .done = done, .ctx = ctx,
              .broken = -1, .batch = batch_of(batch, n) };
    survey(&g, n);
    bool ok = open_memory(&g, err);
    if (ok) run_all(&g, n);
    if (ok && g.broken >= 0)
        ok = cm_fail(err, CM_EXIT_DATA, "prompt %lld: a logit that is no finite number after %d "
                     "tokens; the model's weights are broken", (long long)g.broken + 1,
                     p[g.broken].n_out);
    if (ok && count) {
        count->requested += g.count.requested;
        count->computed += g.count.computed;
        count->scored += g.count.scored;
        count->passes += g.count.passes;
    }
    close_memory(&g);
    return ok;
}
