/* session.c -- one sequence being read and continued: prefill in pieces, decode by steps.
 *
 * Prompts are fed in pieces of a fixed length, so memory does not grow with the prompt
 * and chunk boundaries of the scan sit at multiples of the piece from where it started.
 * Weights held as blocks are opened a panel at a time for however many rows there are, so
 * pieces may be shorter there, and activations less; the scan's chunks, and bits, stay.
 *
 * On trial tokens are read like single steps, but together.  The state before them stays;
 * the one after goes elsewhere, with the rows that made it.  Keeping all of them swaps the
 * two, keeping some repeats convolution and scan (and nothing else) for these. */
#include "model/model.h"
#include "run/run.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = CM_PIECE, BLOCK_PIECE = 64, FEW = 3 };

/* Rows that are read together: parts of CM_PIECE, whole chunks. */
static int piece_for(const cm_model *m) {
    return cm_model_has_blocks(m) && BLOCK_PIECE % m->conf.ssm_chunk == 0 ? BLOCK_PIECE : PIECE;
}

/* Tokens of the next step, i of n being read.  A part of CM_PIECE that a FEW tokens would end is
 * longer by them: alone they would be a step, or attend as in decoding, which has other bits. */
static int next_rows(const cm_session *s, int64_t i, int64_t n) {
    int64_t left = n - i < PIECE - i % PIECE ? n - i : PIECE - i % PIECE;
    return (int)(left <= s->piece + FEW ? left : s->piece);
}

/* The forward pass of T tokens on counting memory: what the session's arena must hold. */
static bool measure(cm_session *s, int T, size_t *bytes, cm_err *err) {
    cm_arena count;
    if (!cm_arena_open_counting(&count, "session plan", err)) return false;
    cm_tape t;
    size_t mark = cm_arena_mark(&s->meta);
    cm_state st = s->st;
    int32_t held = st.held[0];
    cm_tape_begin(&t, &count, &s->meta, false, true);
    cm_model_hidden(s->m, &t, NULL, &(cm_seq){ .B = 1, .T = T }, &st);
    s->st.held[0] = held;
    *bytes = count.peak;
    cm_arena_reset(&s->meta, mark);
    cm_arena_close(&count);
    return true;
}

/* An arena for up to T tokens together. */
static bool make_room(cm_session *s, int T, cm_err *err) {
    size_t step, one;
    if (!measure(s, T, &step, err) || !measure(s, 1, &one, err)) return false;
    cm_arena_close(&s->arena);
    s->rows = T;
    return cm_arena_open_filled(&s->arena, "reading a text", step > one ? step : one,
                                "a smaller model takes less", err);
}

bool cm_session_open(cm_session *s, const cm_model *m, int cap, cm_err *err) {
    return cm_session_open_as(s, m, cap, CM_F32_T, err);
}

bool cm_session_open_as(cm_session *s, const cm_model *m, int cap, cm_dtype kv, cm_err *err) {
    *s = (cm_session){ .m = m, .cap = cap };
    /* Small enough to be no huge page, of which little would be used: a layer's nodes take
     * 4 KiB. */
    size_t meta = ((size_t)2 << 20) + (size_t)m->conf.n_layers * ((size_t)32 << 10);
    if (!cm_state_fits(&m->conf, kv, err)) return false;
    if (!cm_arena_open(&s->meta, "session meta", meta, err)) return false;
    if (!cm_arena_open(&s->keep, "decoding state", cm_state_bytes(&m->conf, 1, cap, kv), err))
        return false;
    cm_state_init(&s->st, m, 1, cap, kv, &s->keep);
    s->piece = piece_for(m);
    int longest = s->piece < PIECE ? s->piece + FEW : PIECE;
    return make_room(s, cap < longest ? cap : longest, err);
}

void cm_session_close(cm_session *s) {
    cm_arena_close(&s->trial.mem);
    cm_arena_close(&s->arena);
    cm_arena_close(&s->keep);
    cm_arena_close(&s->meta);
    *s = (cm_session){ 0 };
}

void cm_session_reset(cm_session *s) {
    cm_state_clear(&s->st, s->m);
    s->trial.n = 0;
}

static void begin_tape(cm_session *s, cm_tape *t) {
    cm_arena_reset(&s->arena, 0);
    cm_arena_reset(&s->meta, 0);
    cm_tape_begin(t, &s->arena, &s->meta, false, false);
}

static bool feed_piece(cm_session *s, cm_state *st, const int32_t *token, int T, bool steps,
                       cm_real *all, cm_real *last, cm_err *err) {
    cm_tape t;
    begin_tape(s, &t);
    cm_seq seq = { .B = 1, .T = T, .steps = steps, .last = !all };
    cm_var *h = cm_model_hidden(s->m, &t, token, &seq, st);
    if (!h) {
        *err = s->m->bringer->err;
        return false;
    }
    const cm_real *x = cm_rdata(&h->v);
    int64_t row[PIECE], end = h->v.dim[0] - 1;
    for (int64_t i = 0; i < T; i++) row[i] = i;
    if (all) cm_model_logits(s->m, x, row, T, all);
    if (last) cm_model_logits(s->m, x, &row[end], 1, last);
    return true;
}

static bool can_feed(const cm_session *s, const int32_t *token, int64_t n, cm_err *err) {
    if (s->st.held[0] + n > s->cap)
        return cm_fail(err, CM_EXIT_USAGE,
                       "the text needs %lld tokens but the session has room for %d",
                       (long long)(s->st.held[0] + n), s->cap);
    int64_t V = s->m->conf.vocab_size;
    for (int64_t i = 0; i < n; i++)
        if (token[i] < 0 || token[i] >= V)
            return cm_fail(err, CM_EXIT_USAGE, "token id %d is outside the vocabulary 0..%lld",
                           token[i], (long long)V - 1);
    return true;
}

bool cm_session_feed(cm_session *s, const int32_t *token, int64_t n, cm_real *all,
                     cm_real *last, cm_err *err) {
    int64_t V = s->m->conf.vocab_size;
    CM_ASSERT(!s->trial.n, "%d tokens are on trial", s->trial.n);
    if (!can_feed(s, token, n, err)) return false;
    bool ok = true;
    for (int64_t i = 0, T; ok && i < n; i += T) {
        if (!cm_signal_go_on(err)) return false;
        T = next_rows(s, i, n);
        bool end = i + T == n;
        ok = feed_piece(s, &s->st, token + i, (int)T, false, all ? all + i * V : NULL,
                        end ? last : NULL, err);
    }
    return ok;
}

/* ---- trials ---------------------------------------------------------------------------- */

/* Reals of a Mamba-2 layer: window, state, one row of raw x | B | C | dt; else zeros. */
typedef struct {
    size_t conv, ssm, raw;
} sizes;

static sizes layer_sizes(const cm_model_conf *c, int64_t i) {
    if (cm_layer_is_attention(c, i)) return (sizes){ 0 };
    int64_t DI = c->ssm_expand * c->d_model, C = DI + 2 * c->ssm_groups * c->ssm_state;
    return (sizes){ (size_t)((c->ssm_conv - 1) * C), (size_t)(DI * c->ssm_state),
                    (size_t)(C + DI / c->ssm_head_dim) };
}

static size_t real_bytes(size_t n) { return cm_align_up(n * sizeof(cm_real)); }

bool cm_session_allow_trial(cm_session *s, int most, cm_err *err) {
    const cm_model_conf *c = &s->m->conf;
    size_t L = (size_t)c->n_layers, bytes = cm_align_up(L * sizeof *s->trial.layer);
    CM_ASSERT(most >= 1 && most <= PIECE && !s->trial.most, "a trial of %d tokens", most);
    int together = most < s->cap ? most : s->cap;
    if (together > s->rows && !make_room(s, together, err)) return false;
    for (int64_t i = 0; i < c->n_layers; i++) {
        sizes z = layer_sizes(c, i);
        bytes += real_bytes(z.conv) + real_bytes(z.ssm) + real_bytes((size_t)most * z.raw);
    }
    if (!cm_arena_open(&s->trial.mem, "tokens on trial", bytes, err)) return false;
    s->trial.most = most;
    s->trial.layer = cm_arena_zalloc(&s->trial.mem, L * sizeof *s->trial.layer);
    for (int64_t i = 0; i < c->n_layers; i++) {
        sizes z = layer_sizes(c, i);
        cm_layer_state *l = &s->trial.layer[i];
        if (!z.ssm) continue;
        l->conv = cm_arena_alloc(&s->trial.mem, z.conv * sizeof(cm_real));
        l->ssm = cm_arena_alloc(&s->trial.mem, z.ssm * sizeof(cm_real));
        l->raw = cm_arena_alloc(&s->trial.mem, (size_t)most * z.raw * sizeof(cm_real));
    }
    return true;
}

bool cm_session_try(cm_session *s, const int32_t *token, int n, cm_real *all, cm_err *err) {
    cm_trial *k = &s->trial;
    CM_ASSERT(n >= 1 && k->n + n <= k->most, "%d tokens on trial and %d more, room for %d",
              k->n, n, k->most);
    if (!can_feed(s, token, n, err)) return false;
    cm_layer_state *view = malloc((size_t)s->m->conf.n_layers * sizeof *view);
    CM_ASSERT(view, "out of memory for a table of layers");
    for (int64_t i = 0; i < s->m->conf.n_layers; i++) {
        const cm_layer_state *l = &k->layer[i];
        view[i] = k->n ? *l : s->st.layer[i]; /* the first call reads the state before */
        view[i].kv = s->st.layer[i].kv;
        if (!l->ssm) continue;
        view[i].conv_to = l->conv;
        view[i].ssm_to = l->ssm;
        view[i].raw = l->raw + (size_t)k->n * layer_sizes(&s->m->conf, i).raw;
    }
    cm_state st = s->st;
    st.layer = view;
    bool ok = feed_piece(s, &st, token, n, true, all, NULL, err);
    if (ok) k->n += n;
    free(view);
    return ok;
}

void cm_session_keep(cm_session *s, int n) {
    cm_trial *k = &s->trial;
    CM_ASSERT(n >= 0 && n <= k->n, "to keep %d of %d tokens", n, k->n);
    for (int64_t i = 0; n && i < s->m->conf.n_layers; i++) {
        cm_layer_state *l = &s->st.layer[i], *after = &k->layer[i];
        if (!after->ssm) continue;
        if (n == k->n) {
            cm_real *conv = l->conv, *ssm = l->ssm;
            l->conv = after->conv, l->ssm = after->ssm;
            after->conv = conv, after->ssm = ssm;
        } else {
            cm_tape t;
            begin_tape(s, &t);
            l->raw = after->raw;
            cm_mamba2_replay(&s->m->layer[i].mamba, &t, n, l);
            l->raw = NULL;
        }
    }
    s->st.held[0] -= k->n - n;
    k->n = 0;
}

/* ---- snapshots ------------------------------------------------------------------------- */

size_t cm_snapshot_bytes(const cm_model_conf *c) {
    size_t n = 0;
    for (int64_t i = 0; i < c->n_layers; i++) {
        sizes z = layer_sizes(c, i);
        n += (z.conv + z.ssm) * sizeof(cm_real);
    }
    return n;
}

bool cm_snapshot_take(cm_snapshot *k, const cm_session *s, cm_err *err) {
    CM_ASSERT(!s->trial.n, "%d tokens are on trial", s->trial.n);
    k->bytes = cm_snapshot_bytes(&s->m->conf);
    if (!k->data) k->data = malloc(k->bytes ? k->bytes : 1);
    if (!k->data)
        return cm_fail(err, CM_EXIT_RESOURCE, "out of memory: %zu bytes of a snapshot",
                       k->bytes);
    cm_real *to = k->data;
    for (int64_t i = 0; i < s->m->conf.n_layers; i++) {
        sizes z = layer_sizes(&s->m->conf, i);
        if (!z.ssm) continue;
        memcpy(to, s->st.layer[i].conv, z.conv * sizeof *to);
        memcpy(to + z.conv, s->st.layer[i].ssm, z.ssm * sizeof *to);
        to += z.conv + z.ssm;
    }
    k->held = s->st.held[0];
    return true;
}

void cm_session_restore(cm_session *s, const cm_snapshot *k) {
    const cm_real *from = k->data;
    for (int64_t i = 0; i < s->m->conf.n_layers; i++) {
        sizes z = layer_sizes(&s->m->conf, i);
        if (!z.ssm) continue;
        memcpy(s->st.layer[i].conv, from, z.conv * sizeof *from);
        memcpy(s->st.layer[i].ssm, from + z.conv, z.ssm * sizeof *from);
        from += z.conv + z.ssm;
    }
    s->st.held[0] = k->held;
    s->trial.n = 0;
}

/* ---- sampling -------------------------------------------------------------------------- */

static bool among(int32_t id, const int32_t *v, int n) {
    for (int i = 0; i < n; i++)
        if (v[i] == id) return true;
    return false;
}

bool cm_session_continue(cm_session *s, const cm_sampling *how, const int32_t *prompt,
                         int64_t n, const int32_t *stop, int n_stop, int64_t max,
                         int32_t *out, int64_t *n_out, cm_err *err) {
    int V = (int)s->m->conf.vocab_size;
    void *work = malloc(cm_sample_work_bytes(V));
    cm_real *logits = malloc((size_t)V * sizeof *logits);
    CM_ASSERT(work && logits, "out of memory for samples");
    cm_session_reset(s);
    bool ok = cm_session_feed(s, prompt, n, NULL, logits, err);
    for (*n_out = 0; ok && *n_out < max && !cm_signal_stop();) {
        int32_t id = cm_sample_token(how, logits, V, NULL, 0, (uint64_t)*n_out, work);
        if (among(id, stop, n_stop)) break;
        out[(*n_out)++] = id;
        if (*n_out < max) ok = cm_session_feed(s, &id, 1, NULL, logits, err);
    }
    free(work);
    free(logits);
    return ok || cm_signal_ended(err);
}
