/* op_attention_cached.c -- attention of new rows to a cache of keys and values.
 *
 * Appends the new rows (k rotated) to the caches, then attends.  Queries are cut at
 * multiples of CM_ATTN_QUERIES of the absolute position and go through the same tiles as
 * cm_attention, so the numbers do not depend on how a prompt is fed.  With fewer than
 * DECODE rows (or kv.steps) and no demand for the exact bits, dot products replace the
 * tiles. */
#include "op/attn.h"

#include <omp.h>

/* SERIAL: products of one call that one thread does alone. */
enum { DECODE = 4, SERIAL = 1 << 16 };

typedef struct cached_attr {
    cm_kv kv;
    int B, H, G;
    cm_real scale;
    const double *inv;
    double mscale;
} cached_attr;

static bool cached_infer(cm_node *n, const char **why) {
    const cached_attr *a = n->attr;
    const cm_tensor *q = &n->in[0]->v, *k = &n->in[1]->v, *v = &n->in[2]->v;
    *why = "q must be [B*T,H*P], k and v [B*T,G*P], H a multiple of G";
    if (a->B < 1 || a->H < 1 || a->G < 1 || a->H % a->G || q->nd != 2) return false;
    int64_t P = q->dim[1] / a->H;
    if (q->dim[0] % a->B || q->dim[1] != P * a->H) return false;
    if (k->nd != 2 || k->dim[0] != q->dim[0] || k->dim[1] != P * a->G) return false;
    if (!cm_tensor_same_shape(k, v)) return false;
    *why = "RoPE needs an even head width";
    if (a->inv && P % 2) return false;
    *why = "a row of the KV cache must be whole blocks of its type";
    if (k->dim[1] % cm_dtypes[a->kv.type].block) return false;
    n->out[0]->v = *q;
    return true;
}

/* A thread's reals: cm_attn_forward's, or a rotation table and a row of k or v. */
static int64_t own_reals(const cached_attr *a, int64_t P) {
    int64_t tile = cm_attn_own(a->H / a->G, P), row = (a->G + 1) * P;
    return tile > row ? tile : row;
}

static size_t map(const cm_node *n, void *base, cm_real **q, cm_real **own) {
    const cached_attr *a = n->attr;
    const cm_tensor *x = &n->in[0]->v;
    cm_cut c = { base, 0 };
    *q = cm_cut_reals(&c, cm_tensor_count(x));
    *own = cm_cut_reals(&c, own_reals(a, x->dim[1] / a->H) * cm_kern_threads());
    return c.used;
}

static size_t cached_scratch(const cm_node *n, bool backward) {
    cm_real *q, *own;
    return backward ? 0 : map(n, NULL, &q, &own);
}

/* A row of n elements to where it stays. */
static void put_row(cm_dtype type, int64_t n, const cm_real *x, void *to) {
    if (type == CM_F16_T) cm_k.encode_f16(n, x, to);
    else cm_k.encode_q8(n, x, to);
}

/* Rotate the new rows: q into scratch, k and v into the caches. */
static void append(const cm_node *n, int64_t T, int64_t P, cm_real *q, cm_real *own,
                   int64_t stride) {
    const cached_attr *a = n->attr;
    int64_t H = a->H, G = a->G, R = T * a->B;
    const cm_real *xq = cm_rdata(&n->in[0]->v), *xk = cm_rdata(&n->in[1]->v);
    const cm_real *xv = cm_rdata(&n->in[2]->v);
#pragma omp parallel for num_threads(cm_kern_threads()) schedule(static) if (R > 8)
    for (int64_t r = 0; r < R; r++) {
        int64_t b = r / T, at = a->kv.held[b] + r % T, row = b * a->kv.cap + at;
        CM_ASSERT(at < a->kv.cap, "KV cache: row %lld of %lld", (long long)at,
                  (long long)a->kv.cap);
        cm_real *mine = own + omp_get_thread_num() * stride;
        cm_attn_rot rot = { a->inv, a->mscale, P, mine, -1 };
        cm_attn_rot_at(&rot, at);
        for (int64_t h = 0; h < H; h++)
            cm_attn_rotate(&rot, xq + (r * H + h) * P, a->scale, 1, false,
                           q + (r * H + h) * P);
        size_t skip = cm_kv_bytes(a->kv.type, row * G * P);
        void *k = (char *)a->kv.k + skip, *v = (char *)a->kv.v + skip;
        bool coded = a->kv.type != CM_F32_T;
        cm_real *turned = coded ? mine + P : k;
        for (int64_t g = 0; g < G; g++)
            cm_attn_rotate(&rot, xk + (r * G + g) * P, 1, 1, false, turned + g * P);
        if (coded) {
            put_row(a->kv.type, G * P, turned, k);
            put_row(a->kv.type, G * P, xv + r * G * P, v);
        } else {
            cm_k.set_scaled(G * P, 1, xv + r * G * P, v);
        }
    }
}

/* The i-th block of queries of sequence b and KV head g, if it is not void. */
static void attend(const cm_node *n, int64_t b, int64_t i, int64_t g, const cm_real *q,
                   cm_real *own) {
    const cached_attr *a = n->attr;
    int64_t H = a->H, G = a->G, HG = H / G, T = n->in[0]->v.dim[0] / a->B;
    int64_t P = n->in[0]->v.dim[1] / H, n0 = a->kv.held[b];
    int64_t from = (n0 / CM_ATTN_QUERIES + i) * CM_ATTN_QUERIES;
    int64_t to = from + CM_ATTN_QUERIES;
    if (from < n0) from = n0;
    if (to > n0 + T) to = n0 + T;
    if (from >= to) return;
    int64_t at = ((b * T + from - n0) * H + g * HG) * P;
    size_t row = cm_kv_bytes(a->kv.type, G * P), skip = (size_t)(b * a->kv.cap) * row;
    const void *k = (const char *)a->kv.k + skip, *v = (const char *)a->kv.v + skip;
    cm_attn_tile task = {
        .heads = HG, .P = P, .q0 = from, .nq = to - from,
        .q = q + at, .q_head = P, .q_row = H * P,
        .type = a->kv.type, .k_row = G * P, .v_row = G * P,
        .k_code = k, .v_code = v, .row = row, .from = g * P,
        .y = cm_rdata(&n->out[0]->v) + at, .y_head = P, .y_row = H * P,
        .decode = (T < DECODE || a->kv.steps) && !a->kv.exact,
    };
    if (a->kv.type == CM_F32_T)
        task.k = (const cm_real *)k + g * P, task.v = (const cm_real *)v + g * P;
    cm_attn_forward(&task, own);
}

static void cached_fwd(cm_node *n, void *scratch) {
    const cached_attr *a = n->attr;
    int64_t T = n->in[0]->v.dim[0] / a->B, P = n->in[0]->v.dim[1] / a->H;
    int64_t cuts = (T + CM_ATTN_QUERIES - 1) / CM_ATTN_QUERIES + 1; /* one may be void */
    int64_t stride = own_reals(a, P);
    cm_real *q, *own;
    map(n, scratch, &q, &own);
    append(n, T, P, q, own, stride);
    int64_t most = 0; /* rows the longest sequence attends to */
    for (int64_t b = 0; b < a->B; b++)
        if (a->kv.held[b] + T > most) most = a->kv.held[b] + T;
    bool many = a->B * T * most * a->H * P > SERIAL;
#pragma omp parallel for schedule(dynamic) collapse(3) num_threads(cm_kern_threads()) \
    if (many)
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t i = 0; i < cuts; i++)
            for (int64_t g = 0; g < a->G; g++)
                attend(n, b, i, g, q, own + omp_get_thread_num() * stride);
}

const cm_op cm_op_attention_cached = {
    .name = "attention_cached", .shapes = "q[R,H*P] k[R,G*P] v[R,G*P] -> y[R,H*P]",
    .n_in = 3, .n_out = 1, .attr_bytes = sizeof(cached_attr), .infer = cached_infer,
    .scratch = cached_scratch, .fwd = cached_fwd,
};

cm_var *cm_attention_cached(cm_tape *t, cm_var *q, cm_var *k, cm_var *v, const cm_kv *kv,
                            int B, int H, int G, cm_real scale, const double *inv,
                            double mscale) {
    cached_attr a = { *kv, B, H, G, scale, inv, mscale };
    cm_var *y;
    cm_tape_apply(t, &cm_op_attention_cached, (cm_var *[]){ q, k, v }, 3, &a, &y);
    return y;
}
