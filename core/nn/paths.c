/* paths.c -- the two mixers along the paths of a prefix tree.
 *
 * Projections, convolution, gate and norm run on the tree's rows.  Attention has an op that
 * reads rows by path.  The scan gets every path written out as a document of one packed
 * row, and skips the outputs of tokens that earlier paths compute. */
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
    cm_var *q = cm_project(t, x, a->q, NULL), *k = cm_project(t, x, a->k, NULL);
    cm_var *v = cm_project(t, x, a->v, NULL), *y, *rot;
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
    return cm_project(t, y, a->o, NULL);
}

/* One call's rows of a Mamba-2 layer.  Raw rows are x | B | C | dt of in_proj's output. */
typedef struct run {
    const cm_mamba2 *m;
    const cm_paths *p;
    const cm_real *zx;         /* [rows,ld] */
    const cm_real *raw;        /* carried raw rows [.,C+H], or NULL */
    int layer, K;
    int64_t ld, W;             /* W = C+H */
    cm_real *taps;             /* [K,C] */
    cm_real *xbc;              /* [rows,C] convolved */
} run;

/* Raw row of a path's token; before the path, of its past; NULL before the text. */
static const cm_real *raw_row(const run *r, const cm_path *path, int token) {
    if (token < 0)
        return path->past ? path->past->conv[r->layer] + (r->K - 1 + token) * r->m->C : NULL;
    int32_t row = r->p->row[path->at + token];
    return row >= 0 ? r->zx + row * r->ld + r->m->DI : r->raw + (-1 - row) * r->W;
}

/* Convolve the path's own tokens; leave the window after it. */
static void convolve(const run *r, const cm_path *path) {
    int64_t C = r->m->C;
    const cm_real *bias = cm_rdata(&r->m->conv_b->var.v);
    for (int i = path->shared; i < path->len; i++) {
        const cm_real *seen[CM_MAX_TAPS];
        int taps = 0;
        for (int k = i - r->K + 1; k <= i; k++)
            if ((seen[taps] = raw_row(r, path, k))) taps++;
        cm_k.conv_silu(C, taps, seen, r->taps + (r->K - taps) * C, bias,
                       r->xbc + r->p->row[path->at + i] * C);
    }
    for (int k = 0; path->next && k < r->K - 1; k++) {
        const cm_real *from = raw_row(r, path, path->len - r->K + 1 + k);
        cm_real *to = path->next->conv[r->layer] + k * C;
        if (from) memcpy(to, from, (size_t)C * sizeof *to);
        else memset(to, 0, (size_t)C * sizeof *to);
    }
}

static void convolve_all(run *r) {
    int64_t C = r->m->C;
    const cm_real *w = cm_rdata(&r->m->conv_w->var.v);
    for (int64_t c = 0; c < C; c++)
        for (int k = 0; k < r->K; k++) r->taps[k * C + c] = w[c * r->K + k];
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (r->p->n > 1)
    for (int i = 0; i < r->p->n; i++) convolve(r, &r->p->path[i]);
}

/* Every path as a document of a packed row, for the scan. */
typedef struct packed {
    int32_t *doc, *skip;  /* [packed]; [paths] */
    const cm_real **from; /* [paths] */
    cm_real **to;
} packed;

static void pack(const run *r, const packed *k, cm_real *xbc, cm_real *dt) {
    const cm_paths *p = r->p;
    int64_t C = r->m->C, H = r->m->ssd.H;
    const cm_real *old = p->carry ? p->carry->xbc[r->layer] : NULL;
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (p->n > 1)
    for (int i = 0; i < p->n; i++) {
        const cm_path *path = &p->path[i];
        write_out(p, path, r->xbc, C, 0, old, C, path->len, xbc + path->at * C);
        for (int j = 0; j < path->len; j++) {
            memcpy(dt + (path->at + j) * H, raw_row(r, path, j) + C, (size_t)H * sizeof *dt);
            k->doc[path->at + j] = i;
        }
        k->skip[i] = path->shared;
        k->from[i] = path->past ? path->past->ssm[r->layer] : NULL;
        k->to[i] = path->next ? path->next->ssm[r->layer] : NULL;
    }
    if (!p->carry) return;
    carry(p, r->xbc, C, 0, C, p->carry->xbc[r->layer]);
    carry(p, r->zx, r->ld, r->m->DI, r->W, p->carry->raw[r->layer]);
}

/* The paths' own tokens, which are neighbours among the rows too, back to their rows. */
static void unpack(const cm_paths *p, const cm_real *from, int64_t width, cm_real *to) {
#pragma omp parallel for schedule(static) num_threads(cm_kern_threads()) if (p->n > 1)
    for (int i = 0; i < p->n; i++) {
        const cm_path *path = &p->path[i];
        int at = path->at + path->shared;
        memcpy(to + p->row[at] * width, from + at * width,
               (size_t)((path->len - path->shared) * width) * sizeof *to);
    }
}

cm_var *cm_mamba2_paths(const cm_mamba2 *m, cm_tape *t, cm_var *x, const cm_paths *p,
                        int layer) {
    const cm_ssd_conf *s = &m->ssd;
    int64_t K = m->conv_w->var.v.dim[1];
    cm_var *zx = cm_project(t, x, m->in_proj, NULL);
    cm_var *taps = cm_var_new(t, (int64_t[]){ K, m->C }, 2, false);
    cm_var *xbc = cm_var_new(t, (int64_t[]){ p->rows, m->C }, 2, false);
    cm_var *px = cm_var_new(t, (int64_t[]){ p->packed, m->C }, 2, false);
    cm_var *pdt = cm_var_new(t, (int64_t[]){ p->packed, s->H }, 2, false);
    cm_var *py, *y = cm_var_new(t, (int64_t[]){ p->rows, m->DI }, 2, false);
    size_t n = (size_t)p->n;
    packed k = { .doc = cm_arena_alloc(t->meta, (size_t)p->packed * sizeof *k.doc),
                 .skip = cm_arena_alloc(t->meta, n * sizeof *k.skip),
                 .from = cm_arena_alloc(t->meta, n * sizeof *k.from),
                 .to = cm_arena_alloc(t->meta, n * sizeof *k.to) };
    if (!t->dry) {
        run r = { .m = m, .p = p, .zx = cm_rdata(&zx->v),
                  .raw = p->carry ? p->carry->raw[layer] : NULL, .layer = layer,
                  .K = (int)K, .ld = zx->v.dim[1], .W = m->C + s->H,
                  .taps = cm_rdata(&taps->v), .xbc = cm_rdata(&xbc->v) };
        convolve_all(&r);
        pack(&r, &k, cm_rdata(&px->v), cm_rdata(&pdt->v));
    }
    cm_seq seq = { .B = 1, .T = p->packed, .doc = k.doc };
    cm_ssd_conf conf = *s;
    conf.dcol = 0;
    conf.doc_from = k.from;
    conf.doc_to = k.to;
    conf.doc_skip = k.skip;
    cm_ssd(t, px, pdt, &m->A_log->var, &m->D->var, &m->dt_bias->var, NULL, &seq, &conf, &py,
           NULL);
    if (!t->dry) unpack(p, cm_rdata(&py->v), m->DI, cm_rdata(&y->v));
    y = cm_gated_norm(t, y, zx, &m->norm->var, 0, s->G, m->eps, CM_ANYBODY);
    return cm_project(t, y, m->out_proj, NULL);
}
