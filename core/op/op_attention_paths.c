/* op_attention_paths.c -- attention along the paths of a prefix tree.
 *
 * Every token's query is computed once, by the path it belongs to.  Keys and values lie
 * apart: pasts, carried rows, rows of this call; one task collects those that a block of a
 * path's own queries sees and gives them to the tile loop of cm_attention, cut at the same
 * positions, so the numbers are those of the text alone. */
#include "op/attn.h"

#include <omp.h>
#include <string.h>

typedef struct paths_attr {
    const cm_paths *paths;
    int layer, H, G;
    cm_real scale;
    const double *inv;
    double mscale;
} paths_attr;

typedef struct work {
    cm_real *q;      /* [R,H*P] rotated, scaled */
    cm_real *own;    /* per thread: tile memory, then keys and values [longest,P] */
    int32_t *task;   /* [R][2] path and first query's position */
    int64_t tile, stride;
} work;

static bool paths_infer(cm_node *n, const char **why) {
    const paths_attr *a = n->attr;
    const cm_tensor *q = &n->in[0]->v, *k = &n->in[1]->v, *v = &n->in[2]->v;
    *why = "q must be [R,H*P], k and v [R,G*P], H a multiple of G, R = paths->rows";
    if (a->H < 1 || a->G < 1 || a->H % a->G || q->nd != 2 || k->nd != 2) return false;
    int64_t P = q->dim[1] / a->H;
    if (q->dim[0] != a->paths->rows || q->dim[1] != P * a->H) return false;
    if (k->dim[0] != q->dim[0] || k->dim[1] != P * a->G) return false;
    if (!cm_tensor_same_shape(k, v)) return false;
    *why = "RoPE needs an even head width";
    if (a->inv && P % 2) return false;
    n->out[0]->v = *q;
    n->out[1]->v = *k;
    return true;
}

static size_t map(const cm_node *n, void *base, work *w) {
    const paths_attr *a = n->attr;
    const cm_tensor *q = &n->in[0]->v;
    int64_t P = q->dim[1] / a->H;
    cm_cut c = { base, 0 };
    w->tile = (cm_attn_own(a->H / a->G, P) + 15) / 16 * 16;
    w->stride = w->tile + (2 * a->paths->longest * P + 15) / 16 * 16;
    w->q = cm_cut_reals(&c, cm_tensor_count(q));
    w->own = cm_cut_reals(&c, w->stride * cm_kern_threads());
    w->task = cm_cut_take(&c, (size_t)q->dim[0] * 2 * sizeof *w->task);
    return c.used;
}

static size_t paths_scratch(const cm_node *n, bool backward) {
    work w;
    return backward ? 0 : map(n, NULL, &w);
}

static void rotate(const cm_node *n, const work *w) {
    const paths_attr *a = n->attr;
    int64_t R = a->paths->rows, H = a->H, G = a->G, P = n->in[0]->v.dim[1] / H;
    const cm_real *q = cm_rdata(&n->in[0]->v), *k = cm_rdata(&n->in[1]->v);
    cm_real *rot_k = cm_rdata(&n->out[1]->v);
#pragma omp parallel for num_threads(cm_kern_threads()) schedule(static) if (R > 8)
    for (int64_t r = 0; r < R; r++) {
        cm_attn_rot rot = { a->inv, a->mscale, P,
                            w->own + omp_get_thread_num() * w->stride, -1 };
        cm_attn_rot_at(&rot, a->paths->pos[r]);
        for (int64_t h = r * H; h < (r + 1) * H; h++)
            cm_attn_rotate(&rot, q + h * P, a->scale, 1, false, w->q + h * P);
        for (int64_t g = r * G; g < (r + 1) * G; g++)
            cm_attn_rotate(&rot, k + g * P, 1, 1, false, rot_k + g * P);
    }
}

/* Cut the paths' own queries at multiples of CM_ATTN_QUERIES; the number of tasks. */
static int64_t cut(const cm_paths *p, int32_t *task) {
    int64_t n = 0;
    for (int i = 0; i < p->n; i++) {
        int begin = cm_path_begin(&p->path[i]), end = begin + p->path[i].len;
        for (int at = begin + p->path[i].shared; at < end;) {
            task[2 * n] = i;
            task[2 * n++ + 1] = at;
            at = (at / CM_ATTN_QUERIES + 1) * CM_ATTN_QUERIES;
        }
    }
    return n;
}

/* Keys and values of one head of a text's tokens [0,end): k, v [end,P]. */
static void collect(const cm_node *n, const cm_path *path, int end, int64_t g, cm_real *k,
                    cm_real *v) {
    const paths_attr *a = n->attr;
    const cm_paths *p = a->paths;
    int64_t P = n->in[0]->v.dim[1] / a->H, GP = a->G * P;
    size_t bytes = (size_t)P * sizeof *k;
    for (const cm_past *s = path->past; s; s = s->up) {
        for (int i = 0; i < s->rows; i++) {
            int64_t to = (int64_t)(s->tokens - s->rows + i) * P;
            memcpy(k + to, s->k[a->layer] + i * GP + g * P, bytes);
            memcpy(v + to, s->v[a->layer] + i * GP + g * P, bytes);
        }
    }
    const cm_real *new_k = cm_rdata(&n->out[1]->v), *new_v = cm_rdata(&n->in[2]->v);
    const cm_real *old_k = p->carry ? p->carry->k[a->layer] : NULL;
    const cm_real *old_v = p->carry ? p->carry->v[a->layer] : NULL;
    int begin = cm_path_begin(path);
    for (int i = begin; i < end; i++) {
        int32_t row = p->row[path->at + i - begin];
        memcpy(k + i * P, cm_path_row(new_k, old_k, GP, row) + g * P, bytes);
        memcpy(v + i * P, cm_path_row(new_v, old_v, GP, row) + g * P, bytes);
    }
}

static void attend(const cm_node *n, const work *w, const int32_t *task, int64_t g,
                   cm_real *own) {
    const paths_attr *a = n->attr;
    const cm_path *path = &a->paths->path[task[0]];
    int64_t H = a->H, HG = H / a->G, P = n->in[0]->v.dim[1] / H;
    int begin = cm_path_begin(path), from = task[1], end = begin + path->len;
    int to = (from / CM_ATTN_QUERIES + 1) * CM_ATTN_QUERIES;
    if (to > end) to = end;
    cm_real *k = own + w->tile, *v = k + a->paths->longest * P;
    collect(n, path, to, g, k, v);
    int64_t at = ((int64_t)a->paths->row[path->at + from - begin] * H + g * HG) * P;
    cm_attn_tile tile = {
        .heads = HG, .P = P, .q0 = from, .nq = to - from,
        .q = w->q + at, .q_head = P, .q_row = H * P, .k = k, .v = v, .k_row = P, .v_row = P,
        .y = cm_rdata(&n->out[0]->v) + at, .y_head = P, .y_row = H * P,
    };
    cm_attn_forward(&tile, own);
}

static void paths_fwd(cm_node *n, void *scratch) {
    const paths_attr *a = n->attr;
    work w;
    map(n, scratch, &w);
    rotate(n, &w);
    int64_t tasks = cut(a->paths, w.task) * a->G;
#pragma omp parallel for schedule(dynamic) num_threads(cm_kern_threads()) if (tasks > 1)
    for (int64_t i = 0; i < tasks; i++)
        attend(n, &w, w.task + i / a->G * 2, i % a->G,
               w.own + omp_get_thread_num() * w.stride);
}

const cm_op cm_op_attention_paths = {
    .name = "attention_paths",
    .shapes = "q[R,H*P] k[R,G*P] v[R,G*P] -> y[R,H*P] rot[R,G*P]", .n_in = 3, .n_out = 2,
    .attr_bytes = sizeof(paths_attr), .infer = paths_infer, .scratch = paths_scratch,
    .fwd = paths_fwd,
};

void cm_attention_paths(cm_tape *t, cm_var *q, cm_var *k, cm_var *v, const cm_paths *paths,
                        int layer, int H, int G, cm_real scale, const double *inv,
                        double mscale, cm_var **y, cm_var **rot) {
    paths_attr a = { paths, layer, H, G, scale, inv, mscale };
    cm_var *out[2];
    cm_tape_apply(t, &cm_op_attention_paths, (cm_var *[]){ q, k, v }, 3, &a, out);
    *y = out[0];
    *rot = out[1];
}
