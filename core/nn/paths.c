/* paths.c -- the two mixers along the paths of a prefix tree.
 *
 * Projections, gate and norm run on the tree's rows.  Attention has an op that reads rows
 * by path.  The convolution and the scan get every path written out as a document of one
 * packed row, with the raw inputs before its past as lead: the convolution reaches over
 * them, for the scan they are documents of their own that nobody reads. */
#include "nn/nn.h"

#include <string.h>

/* to[i] = the path's token i, columns [col, col+width) of rows that are ld wide. */
static void write_out(const cm_paths *p, const cm_path *path, const cm_real *rows,
                      int64_t ld, int64_t col, const cm_real *carried, int64_t width,
                      int n, cm_real *to) {
    const int32_t *row = p->row + path->at;
    for (int i = 0; i < n; i++) {
        const cm_real *from = row[i] >= 0 ? rows + row[i] * ld + col
                                          : carried + (-1 - row[i]) * width;
        if (from != to + i * width)
            memcpy(to + i * width, from, (size_t)width * sizeof *to);
    }
}

/* Keep rows for later calls.  A carried row stays in its place. */
static void carry(const cm_paths *p, const cm_real *rows, int64_t ld, int64_t col,
                  int64_t width, cm_real *carried) {
    if (p->keep) write_out(p, &p->path[p->n - 1], rows, ld, col, carried, width, p->keep,
                           carried);
}

cm_var *cm_attn_paths(const cm_attn *a, cm_tape *t, cm_var *x, const cm_paths *p,
                      int layer) {
    cm_var *q = cm_linear(t, x, &a->q->var), *k = cm_linear(t, x, &a->k->var);
    cm_var *v = cm_linear(t, x, &a->v->var), *y, *rot;
    cm_attention_paths(t, q, k, v, p, layer, a->H, a->G, a->scale, a->inv, a->mscale, &y,
                       &rot);
    int64_t W = (int64_t)a->G * a->P;
    cm_real *ck = p->carry ? p->carry->k[layer] : NULL;
    cm_real *cv = p->carry ? p->carry->v[layer] : NULL;
    for (int i = 0; i < p->n && !t->dry; i++) {
        const cm_path *path = &p->path[i];
        if (!path->next) continue;
        write_out(p, path, cm_rdata(&rot->v), W, 0, ck, W, path->len, path->next->k[layer]);
        write_out(p, path, cm_rdata(&v->v), W, 0, cv, W, path->len, path->next->v[layer]);
    }
    if (!t->dry) {
        carry(p, cm_rdata(&rot->v), W, 0, W, ck);
        carry(p, cm_rdata(&v->v), W, 0, W, cv);
    }
    return cm_linear(t, y, &a->o->var);
}

/* Documents of a packed row, for the convolution and for the scan. */
typedef struct packed {
    int32_t *whole, *own; /* [packed] with and without the lead */
    const cm_real **from; /* by documents of `own` */
    cm_real **to;
    cm_real *raw;         /* [packed,C+H] */
} packed;

/* Write path i out: lead, then tokens. */
static void pack_path(const cm_mamba2 *m, const cm_paths *p, int i, int layer,
                      const cm_real *zx, int64_t ld, packed *k) {
    const cm_path *path = &p->path[i];
    int64_t W = m->C + m->ssd.H;
    int lead = path->past ? p->lead : 0;
    cm_real *to = k->raw + path->at * W;
    for (int j = 0; j < lead; j++) {
        cm_real *row = to + (j - lead) * W;
        memcpy(row, path->past->conv[layer] + j * m->C, (size_t)m->C * sizeof *row);
        memset(row + m->C, 0, (size_t)m->ssd.H * sizeof *row);
    }
    for (int j = -lead; j < path->len; j++) {
        k->whole[path->at + j] = i;
        k->own[path->at + j] = 2 * i + (j >= 0);
    }
    write_out(p, path, zx, ld, m->DI, p->carry ? p->carry->raw[layer] : NULL, W, path->len,
              to);
    if (!path->next) return;
    for (int j = 0; j < p->lead; j++) { /* the window after it */
        int from = path->len - p->lead + j;
        cm_real *row = path->next->conv[layer] + j * m->C;
        if (from >= -lead) memcpy(row, to + from * W, (size_t)m->C * sizeof *row);
        else memset(row, 0, (size_t)m->C * sizeof *row);
    }
}

static void pack(const cm_mamba2 *m, const cm_paths *p, int layer, const cm_real *zx,
                 int64_t ld, packed *k) {
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (p->packed > 64)
    for (int i = 0; i < p->n; i++) pack_path(m, p, i, layer, zx, ld, k);
    if (p->carry) carry(p, zx, ld, m->DI, m->C + m->ssd.H, p->carry->raw[layer]);
    for (int i = 0, d = 0; i < p->n; i++) {
        const cm_path *path = &p->path[i];
        if (path->past && p->lead) k->from[d] = NULL, k->to[d++] = NULL;
        k->from[d] = path->past ? path->past->ssm[layer] : NULL;
        k->to[d++] = path->next ? path->next->ssm[layer] : NULL;
    }
}

/* The paths' own tokens, which are neighbours among the rows too, back to their rows. */
static void unpack(const cm_paths *p, const cm_real *from, int64_t width, cm_real *to) {
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (p->packed > 64)
    for (int i = 0; i < p->n; i++) {
        const cm_path *path = &p->path[i];
        if (path->shared == path->len) continue;
        int at = path->at + path->shared;
        memcpy(to + p->row[at] * width, from + at * width,
               (size_t)((path->len - path->shared) * width) * sizeof *to);
    }
}

cm_var *cm_mamba2_paths(const cm_mamba2 *m, cm_tape *t, cm_var *x, const cm_paths *p,
                        int layer) {
    const cm_ssd_conf *s = &m->ssd;
    int64_t ld = m->DI + m->C + s->H, W = m->C + s->H;
    cm_var *zxbcdt = cm_linear(t, x, &m->in_proj->var);
    cm_var *raw = cm_var_new(t, (int64_t[]){ p->packed, W }, 2, false);
    size_t n = (size_t)p->packed;
    packed k = { .whole = cm_arena_alloc(t->meta, n * sizeof *k.whole),
                 .own = cm_arena_alloc(t->meta, n * sizeof *k.own),
                 .from = cm_arena_alloc(t->meta, 2 * (size_t)p->n * sizeof *k.from),
                 .to = cm_arena_alloc(t->meta, 2 * (size_t)p->n * sizeof *k.to) };
    if (!t->dry) {
        k.raw = cm_rdata(&raw->v);
        pack(m, p, layer, cm_rdata(&zxbcdt->v), ld, &k);
    }
    cm_seq whole = { .B = 1, .T = p->packed, .doc = k.whole };
    cm_seq own = { .B = 1, .T = p->packed, .doc = k.own };
    cm_var *xbc = cm_conv_silu(t, raw, &m->conv_w->var, &m->conv_b->var, &whole, 0, NULL,
                               NULL);
    cm_ssd_conf conf = *s;
    conf.dcol = m->C;
    conf.doc_from = k.from;
    conf.doc_to = k.to;
    cm_var *packed_y, *y = cm_var_new(t, (int64_t[]){ p->rows, m->DI }, 2, false);
    cm_ssd(t, xbc, raw, &m->A_log->var, &m->D->var, &m->dt_bias->var, NULL, &own, &conf,
           &packed_y, NULL);
    if (!t->dry) unpack(p, cm_rdata(&packed_y->v), m->DI, cm_rdata(&y->v));
    y = cm_gated_norm(t, y, zxbcdt, &m->norm->var, 0, s->G, m->eps);
    return cm_linear(t, y, &m->out_proj->var);
}
