/* items.c -- moving rows between parameters and files.
 *
 * Work goes row by row, so a block-quantized row is decoded or encoded on its own and no
 * tensor needs a second copy in memory. */
#include "model/files.h"
#include "quant/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- lists ------------------------------------------------------------------------ */

cm_item *cm_items_add(cm_items *m, cm_param *p, int nd, const int64_t *dim,
                      const char *fmt, ...) {
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 64;
        m->v = realloc(m->v, (size_t)m->cap * sizeof *m->v);
        CM_ASSERT(m->v, "out of memory: %d tensors", m->cap);
    }
    cm_item *it = &m->v[m->n++];
    const cm_tensor *v = &p->var.v;
    *it = (cm_item){.p = p, .outer = 1, .rows = 1, .cols = v->dim[v->nd - 1]};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(it->name, sizeof it->name, fmt, ap);
    va_end(ap);
    if (v->nd >= 2) it->rows = v->dim[v->nd - 2];
    if (v->nd == 3) it->outer = v->dim[0];
    it->pitch = it->rows;
    it->t.dtype = CM_F32_T;
    it->t.nd = nd ? nd : v->nd;
    memcpy(it->t.dim, nd ? dim : v->dim, (size_t)it->t.nd * sizeof *dim);
    CM_ASSERT(cm_tensor_count(&it->t) == cm_tensor_count(v), "%s: shape", it->name);
    return it;
}

void cm_item_slice(cm_item *it, int64_t row0, int64_t rows) {
    CM_ASSERT(row0 + rows <= it->pitch, "%s: rows outside the parameter", it->name);
    it->row0 = row0;
    it->rows = it->t.dim[it->t.nd - 2] = rows;
}

void cm_items_free(cm_items *m) {
    free(m->v);
    *m = (cm_items){0};
}

/* ---- rows ------------------------------------------------------------------------- */

/* Row of the parameter that row r (of all outer blocks) of the file is. */
static int64_t param_row(const cm_item *it, int64_t r) {
    int64_t in = r % it->rows;
    if (it->how == CM_ITEM_ROPE) {
        int64_t j = in % it->head;
        in = in - j + j % 2 * (it->head / 2) + j / 2;
    }
    return r / it->rows * it->pitch + it->row0 + in;
}

/* Backwards: the row of the file, in its outer block, that is row0 + in of the parameter's. */
static int64_t file_row(const cm_item *it, int64_t in) {
    if (it->how != CM_ITEM_ROPE) return in;
    int64_t j = in % it->head, half = it->head / 2;
    return in - j + j % half * 2 + j / half;
}

static size_t row_bytes(cm_dtype dt, int64_t cols) {
    return (size_t)(cols / cm_dtypes[dt].block) * (size_t)cm_dtypes[dt].bytes;
}

/* Whether all magnitudes are below; NaN is not. */
static bool all_below(const float *x, int64_t n, float below) {
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t k = 0; k < n; k++) bad |= !(fabsf(x[k]) < below);
    return !bad;
}

/* Elements that rows are cut into: the parameter's, unless the file's are shorter (a
 * vector that a block type would not divide is never narrowed, so any cut will do). */
static bool get_row(const cm_item *it, int64_t r, float *row) {
    const cm_tensor *v = &it->p->var.v;
    int64_t n = it->cols, at = param_row(it, r) * n;
    if (v->dtype == CM_BF16_T) {
        cm_to_f32(CM_BF16_T, (const uint16_t *)v->data + at, row, n);
    } else {
        const cm_real *w = cm_rdata(v) + at;
#pragma omp simd
        for (int64_t k = 0; k < n; k++) row[k] = (float)w[k];
        for (int64_t k = 0; it->how == CM_ITEM_DECAY && k < n; k++)
            row[k] = (float)-exp((double)w[k]);
    }
    bool halves = it->t.dtype == CM_F16_T || cm_dtypes[it->t.dtype].block > 1;
    return all_below(row, n, halves ? 65520 : INFINITY);
}

static const float *importances(const cm_item *it, int64_t r) {
    return it->imp ? it->imp + r / it->rows * it->cols : NULL;
}

static bool write_row(const cm_item *it, int64_t r, float *row, unsigned char *dst) {
    bool ok = get_row(it, r, row);
    if (ok) cm_quantize_for(it->t.dtype, row, importances(it, r), dst, it->cols);
    return ok;
}

/* Floats to decode to: where the numbers go, if these are floats too, else `row`. */
static float *decode_to(cm_real *x, float *row) {
    return sizeof *x == sizeof *row ? (float *)(void *)x : row;
}

static void widen(const float *row, int64_t n, cm_real *x) {
    if ((const void *)row == (void *)x) return;
    for (int64_t k = 0; k < n; k++) x[k] = (cm_real)row[k];
}

static bool read_row(const cm_item *it, int64_t r, cm_dtype dt, const unsigned char *src,
                     float *row) {
    const cm_tensor *v = &it->p->var.v;
    int64_t n = it->cols, at = param_row(it, r) * n;
    if (v->dtype == CM_REAL_DTYPE) row = decode_to(cm_rdata(v) + at, row);
    cm_to_f32(dt, src, row, n);
    bool ok = all_below(row, n, INFINITY);
    if (v->dtype == CM_BF16_T) {
        uint16_t *h = (uint16_t *)v->data + at;
        for (int64_t k = 0; k < n; k++) h[k] = cm_f32_to_bf16(row[k]);
        return ok;
    }
    cm_real *w = cm_rdata(v) + at;
    widen(row, n, w);
    for (int64_t k = 0; it->how == CM_ITEM_DECAY && k < n; k++) {
        w[k] = (cm_real)(w[k] < 0 ? log(-(double)w[k]) : NAN);
        ok = ok && isfinite(w[k]);
    }
    return ok;
}

/* Either direction over rows [from, to); the number of rows that would not go. */
static int64_t do_rows(const cm_item *it, cm_dtype dt, int64_t from, int64_t to,
                       const unsigned char *src, unsigned char *dst) {
    int64_t bad = 0;
    size_t step = row_bytes(dt, it->cols);
#pragma omp parallel reduction(+ : bad)
    {
        float *row = malloc((size_t)it->cols * sizeof *row + 1);
        CM_ASSERT(row, "out of memory: a row of %lld", (long long)it->cols);
#pragma omp for schedule(static)
        for (int64_t r = from; r < to; r++) {
            size_t at = (size_t)r * step;
            bad += dst ? !write_row(it, r, row, dst + at)
                       : !read_row(it, r, dt, src + at, row);
        }
        free(row);
    }
    return bad;
}

/* Rows [from, to) of outer block o, counted as the parameter does, to where they are held as they
 * lie in the file; all of one panel. */
static bool read_held(const cm_item *it, int64_t o, int64_t from, int64_t to,
                      const unsigned char *src) {
    const cm_tensor *v = &it->p->var.v;
    const void *row[CM_QMAT_PANEL];
    int64_t at = o * it->pitch + it->row0 + from;
    bool ok = true;
    for (int64_t r = from; r < to; r++)
        row[r - from] = src + (size_t)(o * it->rows + file_row(it, r)) *
                                  row_bytes(v->dtype, it->cols);
    if (to - from == CM_QMAT_PANEL)
        return cm_qmat_put_panel(v->dtype, it->pitch, it->cols, v->data, at, row);
    for (int64_t r = 0; r < to - from; r++)
        ok &= cm_qmat_put(v->dtype, it->pitch, it->cols, v->data, at + r, row[r]);
    return ok;
}

/* All rows, panel by panel; the number of parts of panels that would not go. */
static int64_t read_panels(const cm_item *it, const unsigned char *src) {
    int64_t bad = 0, skip = it->row0 % CM_QMAT_PANEL; /* rows of the first panel before ours */
    int64_t panels = (skip + it->rows + CM_QMAT_PANEL - 1) / CM_QMAT_PANEL;
#pragma omp parallel for schedule(dynamic, 4) reduction(+ : bad)
    for (int64_t i = 0; i < it->outer * panels; i++) {
        int64_t from = i % panels * CM_QMAT_PANEL - skip, to = from + CM_QMAT_PANEL;
        if (from < 0) from = 0;
        if (to > it->rows) to = it->rows;
        bad += !read_held(it, i / panels, from, to, src);
    }
    return bad;
}

/* Rows [from, to) of one expert by feedback. */
static int64_t fed_back(const cm_item *it, int64_t from, int64_t to, const float *u,
                        unsigned char *dst) {
    int64_t bad = 0, n = it->cols;
    size_t step = row_bytes(it->t.dtype, n);
#pragma omp parallel reduction(+ : bad)
    {
        float *w = malloc(CM_FEEDBACK_ROWS * (size_t)n * sizeof *w);
        CM_ASSERT(w, "out of memory: rows of %lld", (long long)n);
#pragma omp for schedule(dynamic)
        for (int64_t r = from; r < to; r += CM_FEEDBACK_ROWS) {
            int rows = (int)(to - r < CM_FEEDBACK_ROWS ? to - r : CM_FEEDBACK_ROWS);
            int64_t wrong = 0;
            for (int k = 0; k < rows; k++) wrong += !get_row(it, r + k, w + k * n);
            if (!wrong)
                cm_quantize_feedback(it->t.dtype, w, rows, importances(it, r), u, n,
                                     dst + (size_t)r * step);
            bad += wrong;
        }
        free(w);
    }
    return bad;
}

/* Chains of h = (h ^ x) k, turned so that sign bits move too, in vectors. */
enum { CHAINS = 16 };

static void hash_some(uint32_t *restrict h, const float *restrict x) {
    uint32_t bits[CHAINS];
    memcpy(bits, x, sizeof bits);
#pragma omp simd
    for (int j = 0; j < CHAINS; j++) {
        uint32_t v = h[j] ^ bits[j];
        v += (v << 5) + (v << 18); /* k is odd: another x, another h */
        h[j] = v << 13 | v >> 19;
    }
}

uint64_t cm_row_sum(const cm_real *row, int64_t n) {
    uint64_t sum = (uint64_t)n;
    uint32_t h[CHAINS];
    float x[CHAINS];
    for (int j = 0; j < CHAINS; j++) h[j] = 0x811c9dc5u + (uint32_t)j;
    int64_t i = 0;
    for (; i + CHAINS <= n; i += CHAINS) {
        for (int j = 0; j < CHAINS; j++) x[j] = (float)row[i + j];
        hash_some(h, x);
    }
    for (int j = 0; j < CHAINS; j++) x[j] = i + j < n ? (float)row[i + j] : 0;
    hash_some(h, x);
    for (int j = 0; j < CHAINS; j++) sum = (sum ^ h[j]) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 32;
}


void cm_item_sums(const cm_item *it, const void *raw, uint64_t *sum) {
    size_t step = row_bytes(it->t.dtype, it->cols);
#pragma omp parallel
    {
        float *row = malloc((size_t)it->cols * sizeof *row + 1);
        cm_real *x = malloc((size_t)it->cols * sizeof *x + 1);
        CM_ASSERT(row && x, "out of memory: a row of %lld", (long long)it->cols);
        float *to = decode_to(x, row);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < it->outer * it->rows; r++) {
            int64_t o = r / it->rows, in = param_row(it, r) - o * it->pitch - it->row0;
            cm_to_f32(it->t.dtype, (const unsigned char *)raw + (size_t)r * step, to, it->cols);
            widen(to, it->cols, x);
            sum[o * it->rows + in] = cm_row_sum(x, it->cols);
        }
        free(row);
        free(x);
    }
}

bool cm_item_write(const cm_item *it, void *dst, cm_err *err) {
    int64_t bad = 0;
    for (int64_t o = 0; o < it->outer; o++) {
        bool takes = it->cross && it->imp && cm_feedback_takes(it->t.dtype);
        float *u = takes ? cm_imatrix_factor(it->cross, it->name, o) : NULL;
        int64_t from = o * it->rows, to = from + it->rows;
        bad += u ? fed_back(it, from, to, u, dst) : do_rows(it, it->t.dtype, from, to, NULL, dst);
        free(u);
    }
    if (!bad) return true;
    return cm_fail(err, CM_EXIT_DATA, "tensor %s holds a value that %s cannot (NaN, "
                   "infinite or too large)", it->name, cm_dtypes[it->t.dtype].name);
}

bool cm_item_read(const cm_item *it, cm_dtype dt, const void *src, const char *path,
                  cm_err *err) {
    bool held = it->p->var.v.dtype == dt && cm_qmat_holds(dt);
    if (!(held ? read_panels(it, src) : do_rows(it, dt, 0, it->outer * it->rows, src, NULL)))
        return true;
    return cm_fail(err, CM_EXIT_DATA, "%s: tensor '%s' holds a value that is %s", path,
                   it->name, it->how == CM_ITEM_DECAY ? "not finite and negative"
                                                      : "not finite");
}

/* ---- sources ---------------------------------------------------------------------- */

void cm_source_add(cm_source *s, const cm_st_entry *e, int n) {
    size_t all = (size_t)s->n + (size_t)n;
    s->e = realloc(s->e, (all + 1) * sizeof *s->e);
    s->used = realloc(s->used, all + 1);
    CM_ASSERT(s->e && s->used, "out of memory: %zu tensors", all);
    for (int i = 0; i < n; i++) {
        s->bytes += cm_tensor_bytes(&e[i].t);
        s->e[s->n + i] = &e[i];
    }
    memset(s->used + s->n, 0, (size_t)n);
    s->n += n;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const cm_st_entry *const *)a)->name,
                  (*(const cm_st_entry *const *)b)->name);
}

void cm_source_sort(cm_source *s) { qsort(s->e, (size_t)s->n, sizeof *s->e, by_name); }

void cm_source_free(cm_source *s) {
    free(s->e);
    free(s->used);
    *s = (cm_source){0};
}

const cm_tensor *cm_source_find(cm_source *s, const char *name) {
    cm_st_entry key = {.name = name};
    const cm_st_entry *k = &key;
    const cm_st_entry **e = bsearch(&k, s->e, (size_t)s->n, sizeof *s->e, by_name);
    if (!e) return NULL;
    s->used[e - s->e] = true;
    return &(*e)->t;
}

/* Sizes of 1 say nothing: [C,1,K] is [C,K], [H,1] is [H]. */
static bool same_sizes(const cm_tensor *a, const cm_tensor *b) {
    int i = 0, j = 0;
    for (;;) {
        while (i < a->nd && a->dim[i] == 1) i++;
        while (j < b->nd && b->dim[j] == 1) j++;
        if (i == a->nd || j == b->nd) return i == a->nd && j == b->nd;
        if (a->dim[i++] != b->dim[j++]) return false;
    }
}

bool cm_source_read(cm_source *s, const cm_item *it, const char *name, int64_t skip,
                    int64_t total, bool *found, cm_err *err) {
    const cm_tensor *t = cm_source_find(s, name);
    *found = t != NULL;
    if (!t) return true;
    cm_tensor want = it->t;
    if (total) want.dim[want.nd - 2] = total;
    char have_s[128], want_s[128];
    if (!same_sizes(t, &want))
        return cm_fail(err, CM_EXIT_DATA, "%s: tensor '%s' has shape %s; %s was wanted",
                       s->path, name, cm_tensor_shape_str(t, have_s, sizeof have_s),
                       cm_tensor_shape_str(&want, want_s, sizeof want_s));
    if (t->dtype == CM_I32_T || t->dtype == CM_I64_T || t->dtype == CM_U8_T)
        return cm_fail(err, CM_EXIT_DATA, "%s: tensor '%s' is %s, not a weight", s->path,
                       name, cm_dtypes[t->dtype].name);
    if (it->cols % cm_dtypes[t->dtype].block)
        return cm_fail(err, CM_EXIT_DATA, "%s: tensor '%s': %s in rows of %lld", s->path,
                       name, cm_dtypes[t->dtype].name, (long long)it->cols);
    if (s->look) return true;
    const unsigned char *src = t->data;
    src += (size_t)skip * row_bytes(t->dtype, it->cols);
    bool ok = cm_item_read(it, t->dtype, src, s->path, err);
    cm_map_forget(src, (size_t)(it->outer * it->rows) * row_bytes(t->dtype, it->cols));
    return ok;
}

bool cm_source_all_used(const cm_source *s, cm_err *err) {
    for (int i = 0; i < s->n; i++)
        if (!s->used[i])
            return cm_fail(err, CM_EXIT_DATA,
                           "%s: tensor '%.200s' has no place in the model that the file "
                           "describes", s->path, s->e[i]->name);
    return true;
}
