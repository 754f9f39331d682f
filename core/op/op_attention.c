/* op_attention.c -- causal attention with grouped KV heads, tile by tile.
 *
 * Documents are cut into blocks of rows, counted from where the document starts, so a
 * document's arithmetic, and every bit of it, is the same wherever it is packed, and
 * no tile ever mixes two documents.  Forward: one task for a block of queries and a KV
 * head runs over the key tiles with a running maximum and sum.  Backward: one task for a
 * span of keys and a head owns the sums of those keys; the sums of a block of queries
 * pass from span to span in order, and query heads that share keys are added in order
 * afterwards.  Heads are stored apart while the op works, as words that the products take
 * (kern.h), of the tape's precision; q carries the softmax scale.  Scores, softmax, sums and
 * gradients are fp32.  Where there are parts enough, a part being a row of the batch and a
 * KV head, each thread takes whole parts, whose operands stay in its cache; else all threads
 * share everything: the same bits.  Formulas: docs/math/attention.md */
#include "op/attn.h"
#include "op/narrow.h"

#include <omp.h>
#include <sched.h>
#include <string.h>

/* SPAN: keys of a task of the backward. */
enum { KEYS = CM_ATTN_KEYS, QUERIES = CM_ATTN_QUERIES, SPAN = QUERIES };

typedef struct attention_attr {
    cm_seq seq;
    int H, G;
    cm_real scale;
    const double *inv; /* [P/2] or NULL */
    double mscale;
} attention_attr;

/* Some rows of the batch and KV heads with their query heads. */
typedef struct part {
    const cm_node *n;
    cm_seq seq;        /* of its rows */
    int64_t T, R, P;   /* R = seq.B * T */
    int64_t H, G, HG;  /* heads; HG: of a KV head */
    int64_t row, h, g; /* the first, in the batch */
    cm_compute how;
    bool shared;       /* by all threads */
} part;

/* Rotations of the positions lo .. lo+n-1, P reals each: cosines, then sines. */
typedef struct turns {
    int64_t lo, n;
    cm_real *tab;
} turns;

/* Operands of the products: planes of heads in which a document has the rows that it has in
 * the part.  Words along take `words` reals a row and, with words across, those of a tile
 * follow those of the tile before; words down fill the first rows of their document. */
typedef struct planes {
    int64_t words;        /* of P elements along */
    cm_span *tile;        /* [R] */
    cm_real *q, *kx, *vd; /* q along, rotated, scaled; k across; v down */
    cm_real *qd, *ga, *gd, *kd, *vx; /* backward: q down, gy along and down, k down, v across */
    cm_span *span;        /* [R] queries of the forward's tasks, keys of the backward's */
    cm_real *gq, *gk, *gv; /* backward: [B,H,T,P]; gk, gv one for every query head */
    cm_real *delta;       /* [B,H,T]  <gy, y> */
    int *passed;          /* [B,H,T] at a block's first query: how many tasks have added to
                             its gq */
    cm_real *own;         /* per thread */
    int64_t stride;
} planes;

static part whole(const cm_node *n) {
    const attention_attr *a = n->attr;
    part p = { .n = n, .seq = a->seq, .T = a->seq.T, .H = a->H, .G = a->G, .HG = a->H / a->G,
               .how = n->tape ? n->tape->compute : CM_COMPUTE_FP32, .shared = true };
    p.R = (int64_t)a->seq.B * a->seq.T;
    p.P = n->in[0]->v.dim[1] / a->H;
    return p;
}

/* Row b and KV head g. */
static part part_of(const part *all, int64_t b, int64_t g) {
    part p = *all;
    p.R = p.T, p.seq.B = 1, p.row = b * p.T;
    if (p.seq.doc) p.seq.doc += p.row;
    if (p.seq.pos) p.seq.pos += p.row;
    p.H = p.HG, p.G = 1, p.h = g * p.HG, p.g = g;
    p.shared = false;
    return p;
}

/* No choice changes a bit. */
static bool apart(const part *all) {
    int64_t parts = all->seq.B * all->G, threads = cm_kern_threads();
    return parts > 0 && (parts % threads == 0 || parts >= 4 * threads);
}

/* Reals of one thread in the backward: two tiles of scores, and words of them. */
static int64_t back_own(const part *p) {
    int64_t work = (p->how == CM_COMPUTE_BF16 ? 5 : 2) * QUERIES * KEYS, rows = KEYS * p->P;
    return (work > rows ? work : rows) + 2 * p->P;
}

/* Words of one element are the same along and down. */
static size_t map_part(const part *p, bool backward, void *base, planes *s) {
    cm_cut c = { base, 0 };
    int64_t words = cm_word_count(p->how, p->P), H = p->R * p->H, G = p->R * p->G;
    bool pairs = cm_word_len(p->how) == 2;
    *s = (planes){ .words = words };
    s->tile = cm_cut_take(&c, sizeof *s->tile * (size_t)p->R);
    s->span = cm_cut_take(&c, sizeof *s->span * (size_t)p->R);
    s->q = cm_cut_reals(&c, H * words);
    s->kx = cm_cut_reals(&c, G * words);
    s->stride = backward ? back_own(p) : cm_attn_own(p->HG, p->P);
    s->own = cm_cut_reals(&c, s->stride * (p->shared ? cm_kern_threads() : 1));
    if (!backward) {
        s->vd = cm_cut_reals(&c, G * p->P);
        return c.used;
    }
    s->qd = pairs ? cm_cut_reals(&c, H * p->P) : s->q;
    s->ga = cm_cut_reals(&c, H * words);
    s->gd = pairs ? cm_cut_reals(&c, H * p->P) : s->ga;
    s->kd = cm_cut_reals(&c, G * p->P);
    s->vx = cm_cut_reals(&c, G * words);
    s->gq = cm_cut_reals(&c, H * p->P);
    s->gk = cm_cut_reals(&c, H * p->P);
    s->gv = cm_cut_reals(&c, H * p->P);
    s->delta = cm_cut_reals(&c, H);
    s->passed = cm_cut_take(&c, sizeof *s->passed * (size_t)H);
    return c.used;
}

static bool attention_infer(cm_node *n, const char **why) {
    const attention_attr *a = n->attr;
    const cm_tensor *q = &n->in[0]->v, *k = &n->in[1]->v, *v = &n->in[2]->v;
    int64_t P = a->H > 0 ? q->dim[1] / a->H : 0, R = (int64_t)a->seq.B * a->seq.T;
    *why = "q must be [R,H*P], k and v [R,G*P], H a multiple of G, R = B*T";
    if (a->H < 1 || a->G < 1 || a->H % a->G) return false;
    if (q->nd != 2 || k->nd != 2 || q->dim[0] != R || k->dim[0] != R) return false;
    if (q->dim[1] != a->H * P || k->dim[1] != a->G * P || !cm_tensor_same_shape(k, v))
        return false;
    *why = "RoPE needs an even head width";
    if (a->inv && P % 2) return false;
    n->out[0]->v = *q;
    return true;
}

/* Kept: lse[B,H,T], to the base of 2. */
static size_t attention_saved(const cm_node *n) {
    part p = whole(n);
    return (size_t)(p.R * p.H) * sizeof(cm_real);
}

static size_t attention_scratch(const cm_node *n, bool backward) {
    part all = whole(n), one = part_of(&all, 0, 0);
    planes s;
    cm_cut c = { NULL, 0 };
    cm_cut_reals(&c, all.T * all.P);
    if (!apart(&all)) return c.used + map_part(&all, backward, NULL, &s);
    return c.used + (size_t)cm_kern_threads() * map_part(&one, backward, NULL, &s);
}

/* ---- parts ------------------------------------------------------------------------- */

/* Rotations of the positions that occur, once each, as far as the table goes. */
static void set_turns(const part *all, turns *t) {
    const attention_attr *a = all->n->attr;
    if (!a->inv) return;
    int64_t hi = t->lo = all->R ? cm_attn_pos(&a->seq, 0) : 0;
    for (int64_t r = 0; r < all->R; r++) {
        int64_t pos = cm_attn_pos(&a->seq, r);
        if (pos < t->lo) t->lo = pos;
        if (pos > hi) hi = pos;
    }
    t->n = hi - t->lo + 1 < all->T ? hi - t->lo + 1 : all->T;
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads())
    for (int64_t i = 0; i < t->n; i++) {
        cm_real *tab = t->tab + i * all->P;
        cm_k.rope_table(all->P / 2, (double)(t->lo + i), a->inv, a->mscale, tab,
                        tab + all->P / 2);
    }
}

/* Run all parts, or all as one. */
static void each_part(const cm_node *n, bool backward, void *scratch,
                      void (*run)(const part *p, const turns *t, planes *s)) {
    part all = whole(n), one = part_of(&all, 0, 0);
    cm_cut c = { scratch, 0 };
    turns t = { .tab = cm_cut_reals(&c, all.T * all.P) };
    unsigned char *mem = (unsigned char *)scratch + c.used;
    set_turns(&all, &t);
    planes s;
    if (!apart(&all)) {
        map_part(&all, backward, mem, &s);
        run(&all, &t, &s);
        return;
    }
    size_t size = map_part(&one, backward, NULL, &s);
    int64_t parts = all.seq.B * all.G;
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) private(s)
    for (int64_t i = 0; i < parts; i++) {
        part p = part_of(&all, i / all.G, i % all.G);
        map_part(&p, backward, mem + (size_t)omp_get_thread_num() * size, &s);
        run(&p, &t, &s);
    }
}

/* ---- rotation, and heads apart ----------------------------------------------------- */

/* Where the batch's x[R,heads,P] has row r of head h of a part. */
static int64_t q_at(const part *p, int64_t r, int64_t h) {
    const attention_attr *a = p->n->attr;
    return ((p->row + r) * a->H + p->h + h) * p->P;
}
static int64_t k_at(const part *p, int64_t r, int64_t g) {
    const attention_attr *a = p->n->attr;
    return ((p->row + r) * a->G + p->g + g) * p->P;
}

/* Where lse[B,H,T] has it. */
static int64_t lse_at(const part *p, int64_t r, int64_t h) {
    const attention_attr *a = p->n->attr;
    return ((p->row + r) / p->T * a->H + p->h + h) * p->T + r % p->T;
}

/* A rotation for rot_to; own[P]: for positions that are not in the table. */
static cm_attn_rot rot_begin(const part *p, cm_real *own) {
    const attention_attr *a = p->n->attr;
    return (cm_attn_rot){ a->inv, a->mscale, p->P, own, -1 };
}

static void rot_to(cm_attn_rot *rot, const turns *t, int64_t pos, cm_real *own) {
    if (pos - t->lo < t->n) {
        rot->tab = t->tab + (pos - t->lo) * rot->P;
        return;
    }
    if (rot->tab != own) rot->pos = -1;
    rot->tab = own;
    cm_attn_rot_at(rot, pos);
}

/* Ask for one head's row some rows ahead: rows lie pages apart in a wide model. */
static void ahead(const cm_real *x, int64_t ld, int64_t P) {
    enum { ROWS = 6, LINE = 64 / sizeof(cm_real) };
    for (int64_t i = 0; i < P; i += LINE) __builtin_prefetch(x + ROWS * ld + i);
}

/* y[to-from,P] = scale * rotated rows of one head, `ld` apart. */
static void turn_rows(const part *p, const turns *t, const cm_span *w, const cm_real *x,
                      int64_t ld, cm_real scale, cm_real *own, cm_real *y) {
    const int32_t *pos = p->seq.pos;
    int64_t first = cm_attn_pos(&p->seq, w->from);
    cm_attn_rot rot = rot_begin(p, own);
    for (int64_t r = w->from; r < w->to; r++, x += ld, y += p->P) {
        ahead(x, ld, p->P);
        rot_to(&rot, t, pos ? pos[r] : first + r - w->from, own);
        cm_attn_rotate(&rot, x, scale, 1, false, y);
    }
}

/* Where the plane of head h of `heads` has row r's `width` reals. */
static int64_t plane_at(const part *p, int64_t heads, int64_t h, int64_t r, int64_t width) {
    return ((r / p->T * heads + h) * p->T + r % p->T) * width;
}

/* Where it has the words down of the rows from w->from on. */
static int64_t down_at(const part *p, int64_t heads, int64_t h, const cm_span *w) {
    return plane_at(p, heads, h, w->doc, p->P) +
           cm_word_count(p->how, w->from - w->doc) * p->P;
}

/* The operands of one tile of rows.  own: [KEYS,P] and P reals. */
static void split_tile(const part *p, const turns *t, const planes *s, const cm_span *w,
                       cm_real *own) {
    const attention_attr *a = p->n->attr;
    const cm_real *q = cm_rdata(&p->n->in[0]->v), *k = cm_rdata(&p->n->in[1]->v);
    const cm_real *v = cm_rdata(&p->n->in[2]->v);
    int64_t P = p->P, rows = w->to - w->from, ldq = a->H * P, ldk = a->G * P;
    cm_real *x = own, *tab = own + KEYS * P;
    for (int64_t h = 0; h < p->H; h++) {
        turn_rows(p, t, w, q + q_at(p, w->from, h), ldq, a->scale, tab, x);
        cm_words_of(p->how, rows, P, cm_mat_of(x, P, false),
                    s->q + plane_at(p, p->H, h, w->from, s->words),
                    s->qd && s->qd != s->q ? s->qd + down_at(p, p->H, h, w) : NULL, NULL);
    }
    for (int64_t g = 0; g < p->G; g++) {
        int64_t tile = plane_at(p, p->G, g, w->from, s->words), down = down_at(p, p->G, g, w);
        const cm_real *vg = v + k_at(p, w->from, g);
        turn_rows(p, t, w, k + k_at(p, w->from, g), ldk, 1, tab, x);
        cm_words_across(p->how, rows, P, x, P, s->kx + tile, rows);
        if (s->vd) cm_words_down(p->how, rows, P, NULL, vg, ldk, s->vd + down, P);
        if (s->kd) cm_words_down(p->how, rows, P, NULL, x, P, s->kd + down, P);
        if (s->vx) cm_words_across(p->how, rows, P, vg, ldk, s->vx + tile, rows);
    }
}

/* ---- forward ----------------------------------------------------------------------- */

static void forward(const part *p, const turns *t, planes *s) {
    const attention_attr *a = p->n->attr;
    int64_t P = p->P, tiles = cm_attn_cut(&p->seq, KEYS, s->tile);
    int64_t tasks = cm_attn_cut(&p->seq, QUERIES, s->span) * p->G;
    cm_real *y = cm_rdata(&p->n->out[0]->v), *lse = p->n->grad ? p->n->saved : NULL;
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (p->shared)
    for (int64_t i = 0; i < tiles; i++)
        split_tile(p, t, s, &s->tile[i], s->own + omp_get_thread_num() * s->stride);
    /* Last blocks first: they are the longest. */
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (p->shared)
    for (int64_t i = tasks - 1; i >= 0; i--) {
        const cm_span *w = &s->span[i / p->G];
        int64_t g = i % p->G, h = g * p->HG;
        cm_attn_tile task = {
            .heads = p->HG, .P = P, .q0 = w->from - w->doc, .nq = w->to - w->from,
            .how = p->how, .q = s->q + plane_at(p, p->H, h, w->from, s->words),
            .q_head = p->T * s->words, .q_row = s->words,
            .kx = s->kx + plane_at(p, p->G, g, w->doc, s->words),
            .vd = s->vd + plane_at(p, p->G, g, w->doc, P),
            .y = y + q_at(p, w->from, h), .y_head = P, .y_row = a->H * P,
            .lse = lse ? lse + lse_at(p, w->from, h) : NULL, .lse_head = p->T,
        };
        cm_attn_forward(&task, s->own + omp_get_thread_num() * s->stride);
    }
}

static void attention_fwd(cm_node *n, void *scratch) { each_part(n, false, scratch, forward); }

/* ---- backward ---------------------------------------------------------------------- */

/* The words of gy, and delta = <gy, y>. */
static void split_gy(const part *p, const planes *s, const cm_span *w) {
    const attention_attr *a = p->n->attr;
    int64_t P = p->P, ld = a->H * P, rows = w->to - w->from;
    for (int64_t h = 0; h < p->H; h++) {
        const cm_real *gy = p->n->out[0]->g + q_at(p, w->from, h);
        const cm_real *y = cm_rdata(&p->n->out[0]->v) + q_at(p, w->from, h);
        cm_words_of(p->how, rows, P, cm_mat_of(gy, ld, false),
                    s->ga + plane_at(p, p->H, h, w->from, s->words),
                    s->gd != s->ga ? s->gd + down_at(p, p->H, h, w) : NULL, NULL);
        cm_real *delta = s->delta + plane_at(p, p->H, h, w->from, 1);
        for (int64_t i = 0; i < rows; i++) {
            ahead(y + i * ld, ld, P);
            delta[i] = (cm_real)cm_k.dot(P, gy + i * ld, y + i * ld);
        }
    }
}

/* Keys [from,to) of a document and one head, against all queries of the document from
 * there.  Pointers name the document's first row of their planes. */
typedef struct back_task {
    int64_t len, P, from, to, words;
    cm_compute how;
    const cm_real *q, *qd, *ga, *gd, *kx, *kd, *vx, *lse, *delta;
    cm_real *gq, *gk, *gv;
    int *passed;
} back_task;

/* A thread's tiles: scores and their gradients, [QUERIES,KEYS]; in BF16 words of them. */
typedef struct back_tiles {
    cm_real *s, *ds, *pd, *dd, *da;
} back_tiles;

/* Weights and gradients of scores as operands: p and ds down, ds along. */
typedef struct back_weights {
    cm_word_mat p, ds, along;
} back_weights;

static back_weights back_soften(const back_task *t, const cm_strip *w, int64_t i, int64_t j,
                                const back_tiles *b) {
    bool pairs = cm_word_len(t->how) == 2;
    int64_t at = i + w->at;
    cm_attn_grad g = { .rows = w->n, .seen = w->seen, .live = at - j + 1, .lse = t->lse + at,
                       .delta = t->delta + at, .s = b->s, .ds = b->ds };
    if (pairs) g.p_down = b->pd, g.ds_down = b->dd, g.ds_along = b->da;
    cm_k.attn_grad(&g);
    if (pairs)
        return (back_weights){ { b->pd, 1, KEYS }, { b->dd, 1, KEYS }, { b->da, KEYS / 2, 1 } };
    return (back_weights){ cm_as_down(t->how, w->n, w->seen, b->s, KEYS, b->pd),
                           cm_as_down(t->how, w->n, w->seen, b->ds, KEYS, b->dd),
                           cm_as_along(t->how, w->n, w->seen, b->ds, KEYS, b->da) };
}

/* One strip of the queries from row i on against the tile of nk keys at j: five products. */
static void back_strip(const back_task *t, const cm_strip *w, int64_t i, int64_t j,
                       int64_t nk, const back_tiles *b) {
    int64_t P = t->P, n = w->n, seen = w->seen, at = i + w->at;
    cm_compute how = t->how;
    cm_word_mat q = { t->q + at * t->words, t->words, 1 };
    cm_word_mat ga = { t->ga + at * t->words, t->words, 1 };
    cm_word_mat k = { t->kx + j * t->words, 1, nk }, v = { t->vx + j * t->words, 1, nk };
    cm_word_mat qd = { t->qd + cm_word_count(how, at) * P, 1, P };
    cm_word_mat gd = { t->gd + cm_word_count(how, at) * P, 1, P };
    cm_word_mat kd = { t->kd + cm_word_count(how, j) * P, 1, P };
    cm_word_product(how, n, seen, P, q, k, 0, b->s, KEYS);
    cm_word_product(how, n, seen, P, ga, v, 0, b->ds, KEYS);
    back_weights x = back_soften(t, w, i, j, b);
    cm_word_product(how, seen, P, n, x.p, gd, 1, t->gv + j * P, P);
    cm_word_product(how, seen, P, n, x.ds, qd, 1, t->gk + j * P, P);
    cm_word_product(how, n, P, seen, x.along, kd, j > 0, t->gq + at * P, P);
}

/* Wait until the tasks before this one have added to the queries' gq. */
static void await_turn(const int *passed, int64_t turn) {
    enum { SPINS = 64 };
    for (int n = 0; __atomic_load_n(passed, __ATOMIC_ACQUIRE) != turn; n++)
        if (n >= SPINS) sched_yield();
}

/* All strips of the queries from row i on against each tile of the task. */
static void back_block(const back_task *t, int64_t i, const back_tiles *b) {
    int64_t nq = t->len - i < QUERIES ? t->len - i : QUERIES;
    for (int64_t j = t->from; j < t->to; j += KEYS) {
        int64_t nk = t->to - j < KEYS ? t->to - j : KEYS;
        for (cm_strip w = { .n = -1 }; cm_attn_strip(&w, nq, nk, i - j);)
            back_strip(t, &w, i, j, nk, b);
    }
}

/* The last block of queries first: a task then follows the one before it at a distance of
 * one block, and all tasks of a document end together however many threads there are. */
static void back_run(const back_task *t, cm_real *own) {
    int64_t P = t->P, from = t->from, turn = from / SPAN, size = QUERIES * KEYS;
    back_tiles b = { own, own + size, own + 2 * size, own + 3 * size, own + 4 * size };
    memset(t->gk + from * P, 0, sizeof *own * (size_t)((t->to - from) * P));
    memset(t->gv + from * P, 0, sizeof *own * (size_t)((t->to - from) * P));
    for (int64_t i = (t->len - 1) / QUERIES * QUERIES; i + QUERIES > from; i -= QUERIES) {
        await_turn(t->passed + i, turn);
        back_block(t, i, &b);
        __atomic_store_n(t->passed + i, (int)turn + 1, __ATOMIC_RELEASE);
    }
}

/* Turn the gradients of some rows back and put them where they belong, heads of a group in
 * order.  own: 4 P reals.  Narrow ones nobody else writes. */
static void join_rows(const part *p, const turns *t, const planes *s, const cm_span *w,
                      cm_real *own) {
    const cm_node *n = p->n;
    const attention_attr *a = n->attr;
    int64_t P = p->P;
    cm_tensor g[3];
    bool add[3];
    for (int i = 0; i < 3; i++) {
        g[i] = cm_grad_of(n->in[i]);
        add[i] = !n->fresh[i] && g[i].dtype == CM_REAL_DTYPE;
    }
    cm_attn_rot rot = rot_begin(p, own);
    for (int64_t r = w->from; r < w->to; r++) {
        rot_to(&rot, t, cm_attn_pos(&p->seq, r), own);
        for (int64_t h = 0; h < p->H; h++) {
            int64_t from = plane_at(p, p->H, h, r, P), at = q_at(p, r, h);
            int64_t to = k_at(p, r, h / p->HG);
            bool more = h % p->HG > 0, last = h % p->HG == p->HG - 1;
            if (g[0].data) {
                cm_real *gq = cm_place(&g[0], at, own + P);
                cm_attn_rotate(&rot, s->gq + from, a->scale, -1, add[0], gq);
                cm_put(&g[0], at, P, gq);
            }
            if (g[1].data) {
                cm_real *gk = cm_place(&g[1], to, own + 2 * P);
                cm_attn_rotate(&rot, s->gk + from, 1, -1, more || add[1], gk);
                if (last) cm_put(&g[1], to, P, gk);
            }
            if (!g[2].data) continue;
            cm_real *gv = cm_place(&g[2], to, own + 3 * P);
            if (more || add[2]) cm_k.add_scaled(P, 1, s->gv + from, gv);
            else cm_k.set_scaled(P, 1, s->gv + from, gv);
            if (last) cm_put(&g[2], to, P, gv);
        }
    }
}

/* Task i.  Heads of the same keys are neighbours, since they need not wait for each
 * other. */
static back_task back_task_of(const part *p, const planes *s, int64_t i) {
    const cm_span *span = &s->span[i / p->H];
    int64_t h = i % p->H, g = h / p->HG, P = p->P, doc = span->doc;
    int64_t row = plane_at(p, p->H, h, doc, 1), key = plane_at(p, p->G, g, doc, 1);
    return (back_task){
        .len = span->end - doc, .P = P, .from = span->from - doc, .to = span->to - doc,
        .words = s->words, .how = p->how,
        .q = s->q + row * s->words, .qd = s->qd + row * P,
        .ga = s->ga + row * s->words, .gd = s->gd + row * P,
        .kx = s->kx + key * s->words, .kd = s->kd + key * P, .vx = s->vx + key * s->words,
        .lse = (const cm_real *)p->n->saved + lse_at(p, doc, h), .delta = s->delta + row,
        .gq = s->gq + row * P, .gk = s->gk + row * P, .gv = s->gv + row * P,
        .passed = s->passed + row,
    };
}

static void backward(const part *p, const turns *t, planes *s) {
    int64_t tiles = cm_attn_cut(&p->seq, KEYS, s->tile);
    int64_t tasks = cm_attn_cut(&p->seq, SPAN, s->span) * p->H, next = 0;
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (p->shared)
    for (int64_t i = 0; i < tiles; i++) {
        split_tile(p, t, s, &s->tile[i], s->own + omp_get_thread_num() * s->stride);
        split_gy(p, s, &s->tile[i]);
    }
    memset(s->passed, 0, sizeof *s->passed * (size_t)(p->R * p->H));
    /* Tasks are taken strictly in order, so the earliest one running never waits. */
#pragma omp parallel num_threads(cm_kern_threads()) if (p->shared)
    for (int64_t i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < tasks;) {
        back_task task = back_task_of(p, s, i);
        back_run(&task, s->own + omp_get_thread_num() * s->stride);
    }
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (p->shared)
    for (int64_t i = 0; i < tiles; i++)
        join_rows(p, t, s, &s->tile[i], s->own + omp_get_thread_num() * s->stride);
}

static void attention_bwd(cm_node *n, void *scratch) { each_part(n, true, scratch, backward); }

/* Causal half of the two products, documents not counted. */
static double attention_flops(const cm_node *n) {
    part p = whole(n);
    return 2.0 * (double)p.R * (double)(p.T + 1) * (double)(p.H * p.P);
}

static bool attention_sample(cm_sample *s, int i) {
    static const struct { int B, T, H, G, P, docs; int rope; } cases[] = {
        { 1, 5, 1, 1, 3, 1, CM_ROPE_NONE },   { 2, 7, 4, 2, 4, 3, CM_ROPE_PLAIN },
        { 1, 9, 3, 1, 6, 2, CM_ROPE_LINEAR }, { 1, 6, 2, 2, 8, 1, CM_ROPE_YARN },
        { 1, 67, 1, 1, 2, 1, CM_ROPE_PLAIN }, { 1, 1, 1, 1, 2, 1, CM_ROPE_PLAIN },
        { 1, 131, 1, 1, 2, 1, CM_ROPE_NONE },
    };
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    int B = cases[i].B, T = cases[i].T, H = cases[i].H, G = cases[i].G, P = cases[i].P;
    cm_rope_conf rc = { .kind = cases[i].rope, .P = P, .base = 100, .factor = 4,
                        .orig_ctx = 64, .beta_fast = 32, .beta_slow = 1 };
    double *inv = NULL, mscale = 1;
    if (rc.kind != CM_ROPE_NONE) {
        inv = cm_sample_mem(s, sizeof *inv * (size_t)(P / 2 + 1));
        cm_rope_freqs(&rc, inv, &mscale);
    }
    cm_seq seq = { .B = B, .T = T };
    cm_sample_seq(s, &seq, B, T, cases[i].docs);
    cm_var *q = cm_sample_in(s, "q", 2, (int64_t[]){ B * T, H * P }, -1, 1);
    cm_var *k = cm_sample_in(s, "k", 2, (int64_t[]){ B * T, G * P }, -1, 1);
    cm_var *v = cm_sample_in(s, "v", 2, (int64_t[]){ B * T, G * P }, -1, 1);
    cm_sample_out(s, cm_attention(cm_sample_tape(s), q, k, v, &seq, H, G, (cm_real)0.7,
                                  inv, mscale));
    return true;
}

const cm_op cm_op_attention = {
    .name = "attention", .shapes = "q[R,H*P] k[R,G*P] v[R,G*P] -> y[R,H*P]", .n_in = 3,
    .n_out = 1, .attr_bytes = sizeof(attention_attr), .sets = 7, .gives_g = 7, .mixed = true,
    .infer = attention_infer, .saved = attention_saved, .scratch = attention_scratch,
    .fwd = attention_fwd, .bwd = attention_bwd, .flops = attention_flops,
    .sample = attention_sample,
};

cm_var *cm_attention(cm_tape *t, cm_var *q, cm_var *k, cm_var *v, const cm_seq *seq,
                     int H, int G, cm_real scale, const double *inv, double mscale) {
    attention_attr a = { *seq, H, G, scale, inv, mscale };
    cm_var *y;
    cm_tape_apply(t, &cm_op_attention, (cm_var *[]){ q, k, v }, 3, &a, &y);
    return y;
}
