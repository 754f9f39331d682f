/* imatrix.c -- importances: for each column of a matrix the mean square of what it meets.
 *
 * Error of an output = sum over columns of (error of the weight) x (activation), so the mean
 * square of the activation says what a weight's error costs.  Files are llama.cpp's: GGUF with
 * sums of squares and counts of tokens, or the older .dat with means times a number of calls. */
#include "model/files.h"
#include "quant/quant.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* An expert that met fewer tokens is rounded without importances. */
enum { MIN_TOKENS = 32, MAX_ENTRIES = 1 << 16, MAX_NAME = 512 };

typedef struct entry {
    char *name;          /* of the GGUF tensor */
    int64_t outer, cols; /* experts (1), columns */
    double *sum;         /* [outer, cols] of squares */
    double *count;       /* [outer] tokens */
    float *mean;         /* [outer, cols]; zeros: too few tokens */
    cm_real *cross;      /* [outer, cols, cols] sums of x x^T; NULL: not collected */
} entry;

struct cm_imatrix {
    char *path, *dataset;
    entry *e;
    int n;
    int64_t chunks, chunk; /* number, tokens each */
    const cm_param **of;   /* while watching: whose sums these are */
};

static cm_imatrix *make(const char *path) {
    cm_imatrix *m = calloc(1, sizeof *m);
    CM_ASSERT(m, "out of memory: importances");
    m->path = cm_strf("%s", path);
    m->dataset = cm_strf("%s", "");
    return m;
}

cm_imatrix *cm_imatrix_planned(const char *dataset) {
    cm_imatrix *m = make("(to be collected)");
    free(m->dataset);
    m->dataset = cm_strf("%s", dataset);
    return m;
}

static entry *add(cm_imatrix *m, const char *name, size_t n, int64_t outer, int64_t cols) {
    m->e = realloc(m->e, ((size_t)m->n + 1) * sizeof *m->e);
    CM_ASSERT(m->e, "out of memory: importances");
    entry *e = &m->e[m->n++];
    size_t all = (size_t)(outer * cols);
    *e = (entry){cm_strf("%.*s", (int)n, name), outer, cols, calloc(all + 1, sizeof *e->sum),
                 calloc((size_t)outer + 1, sizeof *e->count), calloc(all + 1, sizeof *e->mean),
                 NULL};
    CM_ASSERT(e->name && e->sum && e->count && e->mean, "out of memory: importances");
    return e;
}

void cm_imatrix_close(cm_imatrix *m) {
    for (int i = 0; m && i < m->n; i++) {
        free(m->e[i].name);
        free(m->e[i].sum);
        free(m->e[i].count);
        free(m->e[i].mean);
        free(m->e[i].cross);
    }
    if (m) {
        free(m->e);
        free(m->of);
        free(m->path);
        free(m->dataset);
    }
    free(m);
}

static void finish(cm_imatrix *m) {
    for (int i = 0; i < m->n; i++)
        for (int64_t o = 0; o < m->e[i].outer; o++)
            for (int64_t k = 0; k < m->e[i].cols; k++) {
                entry *e = &m->e[i];
                int64_t at = o * e->cols + k;
                e->mean[at] = e->count[o] < MIN_TOKENS ? 0 : (float)(e->sum[at] / e->count[o]);
            }
}

static const entry *find(const cm_imatrix *m, const char *name) {
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->e[i].name, name)) return &m->e[i];
    return NULL;
}

/* q, k and v of a model that has them fused are one entry. */
static const entry *find_any(const cm_imatrix *m, const char *name) {
    const entry *e = find(m, name);
    const char *dot = strstr(name, ".attn_");
    if (e || !dot || strstr(name, "attn_output")) return e;
    char *fused = cm_strf("%.*s.attn_qkv.weight", (int)(dot - name), name);
    e = find(m, fused);
    free(fused);
    return e;
}

const float *cm_imatrix_find(const cm_imatrix *m, const char *name) {
    const entry *e = find_any(m, name);
    return e ? e->mean : NULL;
}

int64_t cm_imatrix_silent(const cm_imatrix *m, const char *name, int64_t *of) {
    const entry *e = find_any(m, name);
    int64_t silent = 0;
    *of = e ? e->outer : 0;
    for (int64_t o = 0; o < *of; o++) {
        int64_t k = 0;
        while (k < e->cols && !(e->mean[o * e->cols + k] > 0)) k++;
        silent += k == e->cols;
    }
    return silent;
}

float *cm_imatrix_factor(const cm_imatrix *m, const char *name, int64_t expert) {
    const entry *e = m ? find_any(m, name) : NULL;
    if (!e || !e->cross || e->count[expert] < MIN_TOKENS) return NULL;
    size_t all = (size_t)(e->cols * e->cols);
    float *h = malloc(2 * all * sizeof *h), *u = h + all;
    CM_ASSERT(h, "out of memory: moments of %s", name);
    const cm_real *sum = e->cross + (size_t)expert * all;
    for (size_t k = 0; k < all; k++) h[k] = (float)((double)sum[k] / e->count[expert]);
    bool ok = cm_feedback_factor(h, e->cols, u);
    if (ok) memcpy(h, u, all * sizeof *h);
    else free(h);
    return ok ? h : NULL;
}

const char *cm_imatrix_dataset(const cm_imatrix *m) { return m->dataset; }
int cm_imatrix_entries(const cm_imatrix *m) { return m->n; }
int64_t cm_imatrix_chunks(const cm_imatrix *m) { return m->chunks; }

/* ---- reading ------------------------------------------------------------------------ */

static bool bad(const cm_imatrix *m, cm_err *err, const char *fmt, ...) CM_PRINTF(3, 4);
static bool bad(const cm_imatrix *m, cm_err *err, const char *fmt, ...) {
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return cm_fail(err, CM_EXIT_DATA, "%s: %s", m->path, text);
}

/* Tensor NAME.in_sum2 of a file, with NAME.counts. */
static bool take_tensor(cm_imatrix *m, const cm_gguf *g, const cm_st_entry *s, cm_err *err) {
    static const char end[] = ".in_sum2";
    size_t n = strlen(s->name), k = sizeof end - 1;
    if (n <= k || strcmp(s->name + n - k, end)) return true;
    char *name = cm_strf("%.*s.counts", (int)(n - k), s->name);
    const cm_tensor *t = &s->t, *c = cm_gguf_tensor(g, name);
    free(name);
    int64_t outer = t->nd > 1 ? t->dim[t->nd - 2] : 1;
    if (!c || t->dtype != CM_F32_T || c->dtype != CM_F32_T || t->nd < 1 || t->nd > 2 ||
        cm_tensor_count(c) != outer || cm_tensor_count(t) < 1)
        return bad(m, err, "'%.200s' has no counts that fit it", s->name);
    entry *e = add(m, s->name, n - k, outer, t->dim[t->nd - 1]);
    const float *sum = t->data, *count = c->data;
    for (int64_t i = 0; i < outer * e->cols; i++) {
        if (!(sum[i] >= 0 && sum[i] < INFINITY))
            return bad(m, err, "'%.200s' holds a value that is no sum of squares", s->name);
        e->sum[i] = (double)sum[i];
    }
    for (int64_t i = 0; i < outer; i++) {
        if (!(count[i] >= 0 && count[i] < INFINITY))
            return bad(m, err, "'%.200s' holds a count that is none", s->name);
        e->count[i] = (double)count[i];
    }
    return true;
}

static bool read_gguf(cm_imatrix *m, cm_err *err) {
    cm_gguf g;
    if (!cm_gguf_open(&g, m->path, err)) return false;
    const cm_gguf_kv *type = cm_gguf_find(&g, "general.type");
    bool ok = type && type->type == CM_GGUF_STR && type->v.s.n == 7 &&
              !memcmp(type->v.s.s, "imatrix", 7);
    if (!ok) bad(m, err, "a GGUF file, but not an importance matrix");
    for (int i = 0; ok && i < g.n_tensor; i++) ok = take_tensor(m, &g, &g.tensor[i], err);
    const cm_gguf_kv *kv = cm_gguf_find(&g, "imatrix.chunk_count");
    if (kv) cm_gguf_i64(kv, 0, &m->chunks);
    if ((kv = cm_gguf_find(&g, "imatrix.chunk_size"))) cm_gguf_i64(kv, 0, &m->chunk);
    kv = cm_gguf_find(&g, "imatrix.datasets");
    if (kv && kv->type == CM_GGUF_ARR && kv->elem == CM_GGUF_STR && kv->n) {
        const cm_gguf_str *s = kv->data;
        free(m->dataset);
        m->dataset = cm_strf("%.*s", (int)(s->n > MAX_NAME ? MAX_NAME : s->n), s->s);
    }
    cm_gguf_close(&g);
    return ok;
}

/* The older form, read front to back. */
typedef struct bytes {
    const unsigned char *p;
    size_t left;
} bytes;

static bool take(bytes *b, void *dst, size_t n) {
    if (n > b->left) return false;
    memcpy(dst, b->p, n);
    b->p += n;
    b->left -= n;
    return true;
}

static bool take_entry(cm_imatrix *m, bytes *b, cm_err *err) {
    int32_t len, calls, n;
    char name[MAX_NAME];
    if (!take(b, &len, 4) || len < 1 || len >= MAX_NAME || !take(b, name, (size_t)len) ||
        !take(b, &calls, 4) || calls < 0 || !take(b, &n, 4) || n < 1 ||
        (size_t)n > b->left / 4)
        return bad(m, err, "damaged, or no importance matrix (entry %d)", m->n);
    if (memchr(name, 0, (size_t)len)) return bad(m, err, "a name with a zero in it");
    entry *e = add(m, name, (size_t)len, 1, n);
    /* The counts are lost; what was called at all is taken as having met enough. */
    e->count[0] = calls ? MIN_TOKENS : 0;
    for (int32_t i = 0; i < n; i++) {
        float v;
        take(b, &v, 4);
        if (!(v >= 0 && v < INFINITY))
            return bad(m, err, "'%s' holds a value that is no mean square", e->name);
        e->sum[i] = calls ? (double)v / calls * MIN_TOKENS : 0;
    }
    return true;
}

static bool read_dat(cm_imatrix *m, const cm_map *map, cm_err *err) {
    bytes b = {map->data, map->size};
    int32_t n, chunks, len;
    if (!take(&b, &n, 4) || n < 1 || n > MAX_ENTRIES)
        return bad(m, err, "not an importance matrix (GGUF or .dat of llama-imatrix)");
    for (int32_t i = 0; i < n; i++)
        if (!take_entry(m, &b, err)) return false;
    if (!b.left) return true; /* files before the trailer was added */
    if (!take(&b, &chunks, 4) || !take(&b, &len, 4) || len < 0 || (size_t)len != b.left)
        return bad(m, err, "damaged behind its %d entries", (int)n);
    m->chunks = chunks;
    free(m->dataset);
    m->dataset = cm_strf("%.*s", len, (const char *)b.p);
    return true;
}

cm_imatrix *cm_imatrix_open(const char *path, cm_err *err) {
    cm_map map;
    if (!cm_need_input(path, err) || !cm_map_open(&map, path, err)) return NULL;
    cm_imatrix *m = make(path);
    bool gguf = map.size >= 4 && !memcmp(map.data, "GGUF", 4);
    bool ok = gguf ? read_gguf(m, err) : read_dat(m, &map, err);
    cm_map_close(&map);
    ok = ok && (m->n || bad(m, err, "an importance matrix without entries"));
    if (ok) finish(m);
    else cm_imatrix_close(m), m = NULL;
    return m;
}

/* ---- fitting ------------------------------------------------------------------------ */

/* Columns and experts of an entry as the tensor has them: .dat files have both in one. */
static bool reshape(entry *e, const cm_item *it) {
    if (e->cols == it->cols && e->outer == it->outer) return true;
    if (e->outer != 1 || e->cols != it->outer * it->cols) return false;
    e->count = realloc(e->count, (size_t)(it->outer + 1) * sizeof *e->count);
    CM_ASSERT(e->count, "out of memory: importances");
    for (int64_t o = 1; o < it->outer; o++) e->count[o] = e->count[0];
    e->outer = it->outer;
    e->cols = it->cols;
    return true;
}

bool cm_imatrix_fit(cm_imatrix *m, const cm_model *model, cm_err *err) {
    cm_items items;
    bool ok = true;
    int used = 0;
    cm_gguf_items(model, &items);
    for (int i = 0; ok && i < items.n; i++) {
        const cm_item *it = &items.v[i];
        entry *e = (entry *)(uintptr_t)find_any(m, it->name);
        used += e != NULL;
        if (e && !reshape(e, it))
            ok = bad(m, err, "of another model: '%.100s' is %lld x %lld there, %lld x %lld "
                     "in the model", it->name, (long long)e->outer, (long long)e->cols,
                     (long long)it->outer, (long long)it->cols);
        else if (!e && !it->keep_f32 && !strncmp(it->name, "blk.", 4))
            ok = bad(m, err, "of another model, or not of all of it: it lacks '%.100s'",
                     it->name);
    }
    for (int i = 0; ok && i < m->n; i++) {
        bool known = strstr(m->e[i].name, "attn_qkv") != NULL;
        for (int k = 0; k < items.n && !known; k++)
            known = !strcmp(items.v[k].name, m->e[i].name);
        if (!known) ok = bad(m, err, "of another model: it has '%.100s'", m->e[i].name);
    }
    cm_items_free(&items);
    return ok && (used || bad(m, err, "of another model: no name in common"));
}

/* Products of every two columns of every matrix. */
double cm_imatrix_cross_bytes(const cm_model *m) {
    cm_items items;
    double sum = 0;
    cm_gguf_items(m, &items);
    for (int i = 0; i < items.n; i++) {
        const cm_item *it = &items.v[i];
        if (strncmp(it->name, "blk.", 4) || it->keep_f32) continue;
        sum += (double)it->outer * (double)it->cols * (double)it->cols * sizeof(cm_real);
    }
    cm_items_free(&items);
    return sum;
}

/* ---- collecting --------------------------------------------------------------------- */

static void watched(void *ctx, const cm_var *w, int64_t e, const cm_real *x, int64_t rows,
                    int64_t cols) {
    cm_imatrix *m = ctx;
    for (int i = 0; i < m->n; i++) {
        if (&m->of[i]->var != w) continue;
        double *sum = m->e[i].sum + e * cols;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < cols; k++)
                sum[k] += (double)x[r * cols + k] * (double)x[r * cols + k];
        m->e[i].count[e] += (double)rows;
        if (m->e[i].cross)
            cm_product(CM_COMPUTE_FP32, cols, cols, rows, 1, cm_mat_of(x, cols, true),
                       cm_mat_of(x, cols, false), 1, m->e[i].cross + e * cols * cols, cols);
    }
}

static bool cross_fits(const cm_model *m, const char *dataset, cm_err *err) {
    char *what = cm_strf("%s: how columns move together", dataset);
    bool ok = cm_memory_fits(cm_imatrix_cross_bytes(m), what, "quantize.rounding=search needs none "
                             "of it", err);
    free(what);
    return ok;
}

cm_imatrix *cm_imatrix_collect(const cm_model *model, const int32_t *token, int64_t n,
                               int chunk, int32_t bos, bool all, const char *dataset,
                               cm_err *err) {
    cm_items items;
    cm_session s;
    if (n < chunk) {
        cm_fail(err, CM_EXIT_USAGE, "%s: %lld tokens are less than one chunk of %d", dataset,
                (long long)n, chunk);
        return NULL;
    }
    cm_gguf_items(model, &items);
    if ((all && !cross_fits(model, dataset, err)) || !cm_session_open(&s, model, chunk, err)) {
        cm_items_free(&items);
        return NULL;
    }
    cm_imatrix *m = make("(collected)");
    free(m->dataset);
    m->dataset = cm_strf("%s", dataset);
    m->of = calloc((size_t)items.n + 1, sizeof *m->of);
    CM_ASSERT(m->of, "out of memory: importances");
    for (int i = 0; i < items.n; i++) {
        const cm_item *it = &items.v[i];
        if (strncmp(it->name, "blk.", 4) ||
            (it->keep_f32 && !strstr(it->name, "ffn_gate_inp")))
            continue;
        add(m, it->name, strlen(it->name), it->outer, it->cols);
        m->of[m->n - 1] = it->p;
        if (!all || it->keep_f32) continue;
        size_t size = (size_t)(it->outer * it->cols * it->cols);
        m->e[m->n - 1].cross = calloc(size, sizeof *m->e->cross);
        CM_ASSERT(m->e[m->n - 1].cross, "out of memory: moments of %s", it->name);
    }
    cm_items_free(&items);
    cm_watch watch = {watched, m};
    cm_watching = &watch;
    bool ok = true;
    m->chunk = chunk;
    for (int64_t at = 0; ok && at + chunk <= n; at += chunk, m->chunks++) {
        cm_session_reset(&s);
        ok = bos < 0 ? cm_session_feed(&s, token + at, chunk, NULL, NULL, err)
                     : cm_session_feed(&s, &bos, 1, NULL, NULL, err) &&
                       cm_session_feed(&s, token + at + 1, chunk - 1, NULL, NULL, err);
    }
    cm_watching = NULL;
    cm_session_close(&s);
    if (ok) finish(m);
    else cm_imatrix_close(m), m = NULL;
    return m;
}

/* ---- writing ------------------------------------------------------------------------ */

static bool write_gguf(const cm_imatrix *m, const char *path, cm_err *err) {
    cm_gguf_out *g = cm_gguf_out_open();
    cm_gguf_str set = {m->dataset, strlen(m->dataset)};
    cm_gguf_put_str(g, "general.type", "imatrix");
    cm_gguf_put_arr(g, "imatrix.datasets", CM_GGUF_STR, &set, 1);
    cm_gguf_put_u32(g, "imatrix.chunk_count", (uint32_t)m->chunks);
    cm_gguf_put_u32(g, "imatrix.chunk_size", (uint32_t)m->chunk);
    float **own = calloc(2 * (size_t)m->n + 1, sizeof *own);
    CM_ASSERT(own, "out of memory: importances");
    for (int i = 0; i < m->n; i++) {
        const entry *e = &m->e[i];
        size_t all = (size_t)(e->outer * e->cols);
        float *sum = own[2 * i] = malloc((all + 1) * sizeof *sum);
        float *count = own[2 * i + 1] = malloc(((size_t)e->outer + 1) * sizeof *count);
        CM_ASSERT(sum && count, "out of memory: importances");
        for (size_t k = 0; k < all; k++) sum[k] = (float)fmin(e->sum[k], (double)FLT_MAX);
        for (int64_t k = 0; k < e->outer; k++) count[k] = (float)e->count[k];
        int nd = e->outer > 1 ? 2 : 1;
        cm_tensor t = {CM_F32_T, nd, {e->outer, e->cols}, sum};
        cm_tensor c = {CM_F32_T, nd, {e->outer, 1}, count};
        if (nd == 1) t.dim[0] = e->cols, c.dim[0] = 1;
        char *a = cm_strf("%s.in_sum2", e->name), *b = cm_strf("%s.counts", e->name);
        cm_gguf_put_tensor(g, a, &t);
        cm_gguf_put_tensor(g, b, &c);
        free(a);
        free(b);
    }
    bool ok = cm_gguf_out_write(g, path, NULL, NULL, err);
    for (int i = 0; i < 2 * m->n; i++) free(own[i]);
    free(own);
    cm_gguf_out_close(g);
    return ok;
}

static void add_i32(cm_buf *b, int64_t v) {
    int32_t x = (int32_t)v;
    cm_buf_add(b, &x, 4);
}

static bool write_dat(const cm_imatrix *m, const char *path, cm_err *err) {
    cm_buf b = {0};
    add_i32(&b, m->n);
    for (int i = 0; i < m->n; i++) {
        const entry *e = &m->e[i];
        double most = 0;
        for (int64_t o = 0; o < e->outer; o++) most = fmax(most, e->count[o]);
        double calls = fmin(ceil(most / (double)(m->chunk > 0 ? m->chunk : 1)), INT32_MAX);
        add_i32(&b, (int64_t)strlen(e->name));
        cm_buf_add(&b, e->name, strlen(e->name));
        add_i32(&b, (int64_t)calls);
        add_i32(&b, e->outer * e->cols);
        for (int64_t k = 0; k < e->outer * e->cols; k++) {
            double count = e->count[k / e->cols];
            double mean = count > 0 ? e->sum[k] / count : 1;
            float v = (float)fmin(mean * calls, (double)FLT_MAX);
            cm_buf_add(&b, &v, 4);
        }
    }
    add_i32(&b, m->chunks);
    add_i32(&b, (int64_t)strlen(m->dataset));
    cm_buf_add(&b, m->dataset, strlen(m->dataset));
    bool ok = cm_write_file(path, b.s, b.n, err);
    cm_buf_free(&b);
    return ok;
}

bool cm_imatrix_write(const cm_imatrix *m, const char *path, cm_err *err) {
    size_t n = strlen(path);
    bool dat = n > 4 && !strcmp(path + n - 4, ".dat");
    return dat ? write_dat(m, path, err) : write_gguf(m, path, err);
}
