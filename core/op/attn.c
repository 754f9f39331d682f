/* attn.c -- the forward tile loop of the attention ops.
 *
 * For each key tile of CM_ATTN_BLK rows, counted from the document's start: scores by one
 * gemm against the transposed tile, a running maximum m and sum l for every query row,
 * probabilities in place, and one gemm that adds their mix of v.  When a row's maximum
 * rises by x, what it has collected is multiplied by exp(-x).  Masked scores are zeros
 * after the exponential, so a row's bits do not depend on who shares its tile. */
#include "op/attn.h"

enum { N = CM_ATTN_BLK };
static const cm_real NOTHING = (cm_real)-1e30; /* maximum of no scores */

int64_t cm_attn_cut(const cm_seq *seq, int64_t len, cm_span *out) {
    int64_t n = 0, R = (int64_t)seq->B * seq->T;
    for (int64_t from = 0, to; from < R; from = to) {
        int64_t row_end = (from / seq->T + 1) * seq->T;
        for (to = from + 1; to < row_end; to++)
            if (seq->doc && seq->doc[to] != seq->doc[to - 1]) break;
        for (int64_t i = from; i < to; i += len)
            out[n++] = (cm_span){ (int32_t)from, (int32_t)i,
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

int64_t cm_attn_own(int64_t heads, int64_t P) {
    return 2 * N * P + N * N + heads * N * (P + 2) + 2 * P;
}

/* Running maximum and sum of one head's rows over the tile s[nq,N] of nk keys, the first
 * of which is `ahead` keys before the first query. */
static void soften(int64_t nq, int64_t nk, int64_t ahead, int64_t P, cm_real *s, cm_real *m,
                   cm_real *l, cm_real *o) {
    for (int64_t i = 0; i < nq; i++) {
        int64_t live = i + ahead + 1 < nk ? i + ahead + 1 : nk;
        if (live < 0) live = 0;
        cm_real *si = s + i * N, fade = 1;
        for (int64_t j = live; j < nk; j++) si[j] = 0;
        if (!live) continue;
        cm_real sum = cm_k.softmax_part(live, si, &m[i], &fade);
        l[i] = l[i] * fade + sum;
        if (fade != 1) cm_k.scale(P, fade, o + i * P);
    }
}

static void tile_by_gemm(const cm_attn_tile *t, int64_t j, int64_t nk, const cm_real *kt,
                         const cm_real *v, cm_real *s, cm_real *m, cm_real *o, int64_t h) {
    cm_real *mh = m + h * 2 * N, *oh = o + h * N * t->P;
    cm_gemm1(false, false, t->nq, nk, t->P, 1, t->q + h * t->q_head, t->q_row, kt, N, 0, s,
             N);
    soften(t->nq, nk, t->q0 - j, t->P, s, mh, mh + N, oh);
    cm_gemm1(false, false, t->nq, t->P, nk, 1, s, N, v, t->P, 1, oh, t->P);
}

static void tile_by_dots(const cm_attn_tile *t, int64_t j, int64_t nk, cm_real *s,
                         cm_real *m, cm_real *o, int64_t h) {
    cm_real *mh = m + h * 2 * N, *oh = o + h * N * t->P;
    const cm_real *k = t->k + j * t->k_row, *v = t->v + j * t->v_row;
    for (int64_t i = 0; i < t->nq; i++)
        cm_k.matvec(nk, t->P, k, t->k_row, t->q + h * t->q_head + i * t->q_row, s + i * N);
    soften(t->nq, nk, t->q0 - j, t->P, s, mh, mh + N, oh);
    for (int64_t i = 0; i < t->nq; i++)
        cm_k.vecmat_add(nk, t->P, s + i * N, v, t->v_row, oh + i * t->P);
}

/* y = o / l, lse = m + ln l. */
static void finish(const cm_attn_tile *t, int64_t h, const cm_real *m, const cm_real *o) {
    const cm_real *l = m + N;
    for (int64_t i = 0; i < t->nq; i++) {
        cm_real *y = t->y + h * t->y_head + i * t->y_row, ln;
        cm_k.set_scaled(t->P, 1 / l[i], o + i * t->P, y);
        if (!t->lse) continue;
        cm_k.vlog(1, &l[i], &ln);
        t->lse[h * t->lse_head + i] = m[i] + ln;
    }
}

void cm_attn_forward(const cm_attn_tile *t, cm_real *own) {
    int64_t P = t->P, end = t->q0 + t->nq;
    cm_real *kt = own, *v = kt + N * P, *s = v + N * P, *m = s + N * N;
    cm_real *o = m + 2 * N * t->heads;
    for (int64_t i = 0; i < t->heads * N * P; i++) o[i] = 0;
    for (int64_t i = 0; i < t->heads * 2 * N; i++) m[i] = i / N % 2 ? 0 : NOTHING;
    for (int64_t j = 0; j < end; j += N) {
        int64_t nk = end - j < N ? end - j : N;
        if (!t->decode) {
            cm_k.transpose(nk, P, t->k + j * t->k_row, t->k_row, kt, N);
            for (int64_t r = 0; r < nk; r++)
                cm_k.set_scaled(P, 1, t->v + (j + r) * t->v_row, v + r * P);
        }
        for (int64_t h = 0; h < t->heads; h++) {
            if (t->decode) tile_by_dots(t, j, nk, s, m, o, h);
            else tile_by_gemm(t, j, nk, kt, v, s, m, o, h);
        }
    }
    for (int64_t h = 0; h < t->heads; h++)
        finish(t, h, m + h * 2 * N, o + h * N * P);
}
