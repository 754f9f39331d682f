/* attn.c -- the forward tile loop of the attention ops.
 *
 * For each tile of CM_ATTN_KEYS keys, counted from the document's start: scores by one
 * gemm against the transposed tile, their softmax so far (cm_attn_soft), and one gemm that
 * adds the weights' mix of v.  Masked scores are zeros after the exponential, so a row's
 * bits do not depend on who shares its tile. */
#include "op/attn.h"

#include <string.h>

enum { N = CM_ATTN_KEYS, M = CM_ATTN_QUERIES, L = CM_SOFT_LANES };

int64_t cm_attn_cut(const cm_seq *seq, int64_t len, cm_span *out) {
    int64_t n = 0, R = (int64_t)seq->B * seq->T;
    for (int64_t from = 0, to; from < R; from = to) {
        int64_t row_end = (from / seq->T + 1) * seq->T;
        for (to = from + 1; to < row_end; to++)
            if (seq->doc && seq->doc[to] != seq->doc[to - 1]) break;
        for (int64_t i = from; i < to; i += len)
            out[n++] = (cm_span){ (int32_t)from, (int32_t)to, (int32_t)i,
                                  (int32_t)(to - i < len ? to : i + len) };
    }
    return n;
}

void cm_attn_rot_at(cm_attn_rot *rot, int64_t pos) {
    if (!rot->inv || pos == rot->pos) return;
    int64_t half = rot->P / 2;
    cm_k.rope_table(half, (double)pos, rot->inv, rot->mscale, rot->tab, rot->tab + half);
    rot->pos = pos;
}

void cm_attn_rotate(const cm_attn_rot *rot, const cm_real *x, cm_real scale, int sign,
                    bool add, cm_real *y) {
    if (rot->inv)
        cm_k.rope(rot->P / 2, x, rot->tab, rot->tab + rot->P / 2, scale,
                  (cm_real)sign * scale, add, y);
    else if (add)
        cm_k.add_scaled(rot->P, scale, x, y);
    else
        cm_k.set_scaled(rot->P, scale, x, y);
}

bool cm_attn_strip(cm_strip *s, int64_t nq, int64_t nk, int64_t ahead) {
    if (s->n < 0) s->at = ahead < 0 ? -ahead : 0;
    else s->at += s->n;
    if (s->at >= nq) return false;
    s->n = nq - s->at;
    if (s->at + ahead + 1 < nk && s->n > CM_ATTN_STRIP) s->n = CM_ATTN_STRIP;
    s->seen = s->at + s->n + ahead < nk ? s->at + s->n + ahead : nk;
    return true;
}

int64_t cm_attn_own(int64_t heads, int64_t P) {
    return 2 * N * P + 2 * M * N + heads * M * (P + 1 + L) + 2 * P;
}

static int64_t seen_by(const cm_strip *w, int64_t keys) {
    return keys < w->seen ? keys : w->seen;
}

/* What rows of one head have collected: tops, sums, mixes of v. */
typedef struct cm_mix {
    cm_real *top, *sum, *o;
} cm_mix;

static cm_mix mix_of(const cm_attn_tile *t, cm_real *all, int64_t h) {
    cm_real *at = all + h * M * (t->P + 1 + L);
    return (cm_mix){ at + M * (L + t->P), at, at + M * L };
}

static void soften(const cm_attn_tile *t, const cm_strip *w, int64_t j, cm_real *s,
                   cm_real *words, cm_mix x) {
    int64_t i = w->at;
    cm_k.attn_soft(&(cm_attn_soft){
        .rows = w->n, .seen = w->seen, .live = i + t->q0 - j + 1, .P = t->P, .s = s,
        .words = words, .top = x.top + i, .sum = x.sum + i * L, .mix = x.o + i * t->P });
}

/* Rows of a tile as they lie in memory. */
typedef struct cm_rows {
    const cm_real *x;
    int64_t row;
} cm_rows;

/* One strip against the tile at key j: scores, softmax, mix.  k: words across, v: down;
 * words[M,N]: room. */
static void strip_by_products(const cm_attn_tile *t, const cm_strip *w, int64_t j, cm_rows k,
                              cm_rows v, cm_real *s, cm_real *words, cm_mix x, int64_t h) {
    bool pairs = cm_word_len(t->how) == 2;
    cm_word_mat q = { t->q + h * t->q_head + w->at * t->q_row, t->q_row, 1 };
    cm_word_product(t->how, w->n, w->seen, t->P, q, (cm_word_mat){ k.x, 1, k.row }, 0, s, N);
    soften(t, w, j, s, pairs ? words : NULL, x);
    cm_word_mat p = pairs ? (cm_word_mat){ words, N / 2, 1 }
                          : cm_as_along(t->how, w->n, w->seen, s, N, words);
    cm_word_product(t->how, w->n, t->P, w->seen, p, (cm_word_mat){ v.x, 1, v.row }, 1,
                    x.o + w->at * t->P, t->P);
}

/* Every row on its own: its bits are those of a strip of one. */
static void strip_by_dots(const cm_attn_tile *t, const cm_strip *w, int64_t j, cm_rows k,
                          cm_rows v, cm_real *s, cm_mix x, int64_t h) {
    const cm_real *q = t->q + h * t->q_head + w->at * t->q_row;
    int64_t first = w->at + t->q0 - j + 1; /* keys that the strip's first row sees */
    for (int64_t i = 0; i < w->n; i++)
        cm_k.matvec(seen_by(w, first + i), t->P, k.x, k.row, q + i * t->q_row, s + i * N);
    soften(t, w, j, s, NULL, x);
    for (int64_t i = 0; i < w->n; i++)
        cm_k.vecmat_add(seen_by(w, first + i), t->P, s + i * N, v.x, v.row,
                        x.o + (w->at + i) * t->P);
}

/* y = o / l, lse = top + log2 l. */
static void finish(const cm_attn_tile *t, int64_t h, cm_mix x) {
    for (int64_t i = 0; i < t->nq; i++) {
        cm_real *y = t->y + h * t->y_head + i * t->y_row, *sum = x.sum + i * L, ln;
        for (int64_t half = L / 2; half; half /= 2)
            for (int64_t l = 0; l < half; l++) sum[l] += sum[l + half];
        cm_k.set_scaled(t->P, 1 / sum[0], x.o + i * t->P, y);
        if (!t->lse) continue;
        cm_k.vlog(1, sum, &ln);
        t->lse[h * t->lse_head + i] = x.top[i] + ln * (cm_real)0x1.71547652b82fep0;
    }
}

size_t cm_kv_bytes(cm_dtype type, int64_t n) {
    if (type == CM_F32_T) return (size_t)n * sizeof(cm_real);
    CM_ASSERT(n % cm_dtypes[type].block == 0, "%lld elements of %s", (long long)n,
              cm_dtypes[type].name);
    return (size_t)(n / cm_dtypes[type].block) * (size_t)cm_dtypes[type].bytes;
}

/* The heads' part of the nk coded rows from j on, as y[nk,P]. */
static cm_rows widen(const cm_attn_tile *t, const unsigned char *code, int64_t j, int64_t nk,
                     cm_real *y) {
    code += (size_t)j * t->row;
    for (int64_t r = 0; r < nk; r++, code += t->row) {
        const void *x = code;
        if (t->type == CM_F16_T)
            cm_k.decode_f16(t->P, (const uint16_t *)x + t->from, y + r * t->P);
        else
            cm_k.decode_q8(t->P, t->from, x, y + r * t->P);
    }
    return (cm_rows){ y, t->P };
}

/* A tile's operands: those prepared, or made here in kt and v[N,P]. */
static void take_tile(const cm_attn_tile *t, int64_t j, int64_t nk, cm_real *kt, cm_real *v,
                      cm_rows *kr, cm_rows *vr) {
    if (t->kx) {
        *kr = (cm_rows){ t->kx + j * cm_word_count(t->how, t->P), nk };
        *vr = (cm_rows){ t->vd + cm_word_count(t->how, j) * t->P, t->P };
        return;
    }
    *kr = (cm_rows){ kt, N }, *vr = (cm_rows){ v, t->P };
    if (t->type != CM_F32_T) {
        widen(t, t->k_code, j, nk, v);
        cm_words_across(t->how, nk, t->P, v, t->P, kt, N);
        widen(t, t->v_code, j, nk, v);
        return;
    }
    cm_words_across(t->how, nk, t->P, t->k + j * t->k_row, t->k_row, kt, N);
    cm_words_down(t->how, nk, t->P, NULL, t->v + j * t->v_row, t->v_row, v, t->P);
}

/* The rows of a tile, for dot products. */
static void take_rows(const cm_attn_tile *t, int64_t j, int64_t nk, cm_real *k, cm_real *v,
                      cm_rows *kr, cm_rows *vr) {
    if (t->type != CM_F32_T) {
        *kr = widen(t, t->k_code, j, nk, k);
        *vr = widen(t, t->v_code, j, nk, v);
    } else {
        *kr = (cm_rows){ t->k + j * t->k_row, t->k_row };
        *vr = (cm_rows){ t->v + j * t->v_row, t->v_row };
    }
}

void cm_attn_forward(const cm_attn_tile *t, cm_real *own) {
    int64_t P = t->P, end = t->q0 + t->nq;
    cm_real *kt = own, *v = kt + N * P, *s = v + N * P, *words = s + M * N;
    cm_real *all = words + M * N;
    CM_ASSERT(t->how == CM_COMPUTE_FP32 || (!t->decode && t->type == CM_F32_T),
              "BF16 products of a cache");
    for (int64_t h = 0; h < t->heads; h++) {
        cm_mix x = mix_of(t, all, h);
        for (int64_t i = 0; i < t->nq; i++) x.top[i] = CM_SOFT_NONE;
        memset(x.sum, 0, sizeof *own * (size_t)(t->nq * L));
        memset(x.o, 0, sizeof *own * (size_t)(t->nq * P));
    }
    for (int64_t j = 0; j < end; j += N) {
        int64_t nk = end - j < N ? end - j : N;
        cm_rows kr, vr;
        (t->decode ? take_rows : take_tile)(t, j, nk, kt, v, &kr, &vr);
        for (int64_t h = 0; h < t->heads; h++) {
            cm_mix x = mix_of(t, all, h);
            for (cm_strip w = { .n = -1 }; cm_attn_strip(&w, t->nq, nk, t->q0 - j);) {
                if (t->decode) strip_by_dots(t, &w, j, kr, vr, s, x, h);
                else strip_by_products(t, &w, j, kr, vr, s, words, x, h);
            }
        }
    }
    for (int64_t h = 0; h < t->heads; h++) finish(t, h, mix_of(t, all, h));
}
