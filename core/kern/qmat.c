/* qmat.c -- block-quantized weights in memory: panels of rows, and products cut for threads. */
#include "kern/qmat.h"

#include <omp.h>
#include <string.h>

enum { LANES = CM_Q_LANES, TILE = CM_Q_TILE, SOME = 9 };
enum {
    CHUNK = 1 << 15,  /* the least bytes of W that a thread takes for a few rows of x */
    SERIAL = 1 << 17, /* multiplications that one thread does alone */
    SERIAL_X = 1 << 14, /* elements of x that it rounds alone */
    FEW = 16, MANY = 128, /* rows of halves widened at a time, for few and for many rows of x */
    STEP = 256,           /* elements of a panel's rows decoded at a time: a cache has them */
    TILES = 12            /* that meet them; more decode them again */
};

static const cm_qkern *kern = &cm_qkern_ref;

/* ---- forms -------------------------------------------------------------------------- */

#define FULL CM_Q_OFF8
static const cm_qform forms[CM_N_DTYPES] = {
    [CM_Q8_0_T] = { { { 2, 32, 4 }, { 0, 2, 2 } }, 2, 32, FULL, 0, false, false },
    [CM_Q4_0_T] = { { { 2, 16, 4 }, { 0, 2, 2 } }, 2, 32, 8, 8, false, false },
    [CM_Q4_1_T] = { { { 4, 16, 4 }, { 0, 2, 2 }, { 2, 2, 2 } }, 3, 32, 0, 15, true, false },
    [CM_Q5_0_T] = { { { 6, 16, 4 }, { 2, 4, 4 }, { 0, 2, 2 } }, 3, 32, 16, 16, false, true },
    [CM_Q5_1_T] = { { { 8, 16, 4 }, { 4, 4, 4 }, { 0, 2, 2 }, { 2, 2, 2 } }, 4, 32, 0, 31, true,
                    true },
    [CM_Q2_K_T] = { { { 16, 64, 4 }, { 0, 16, 4 }, { 80, 2, 2 }, { 82, 2, 2 } }, 4, 16, 0, 3,
                    true, false },
    [CM_Q3_K_T] = { { { 32, 64, 4 }, { 0, 32, 4 }, { 96, 12, 4 }, { 108, 2, 2 } }, 4, 16, 4, 4,
                    false, false },
    [CM_Q4_K_T] = { { { 16, 128, 4 }, { 4, 12, 4 }, { 0, 2, 2 }, { 2, 2, 2 } }, 4, 32, 0, 15,
                    true, false },
    [CM_Q5_K_T] = { { { 48, 128, 4 }, { 16, 32, 4 }, { 4, 12, 4 }, { 0, 2, 2 }, { 2, 2, 2 } },
                    5, 32, 0, 31, true, false },
    [CM_Q6_K_T] = { { { 0, 128, 4 }, { 128, 64, 4 }, { 192, 16, 4 }, { 208, 2, 2 } }, 4, 16,
                    32, 32, false, false },
    [CM_IQ4_NL_T] = { { { 2, 16, 4 }, { 0, 2, 2 } }, 2, 32, FULL, 0, false, false },
    [CM_IQ4_XS_T] = { { { 8, 128, 4 }, { 4, 4, 4 }, { 2, 2, 2 }, { 0, 2, 2 } }, 4, 32, FULL, 0,
                      false, false },
};

const cm_qform *cm_qform_of(cm_dtype t) { return forms[t].n_field ? &forms[t] : NULL; }
bool cm_qmat_holds(cm_dtype t) {
    return t == CM_F16_T || t == CM_BF16_T || forms[t].n_field;
}

int cm_qsums(const cm_qform *f, int block, int off8) {
    int runs = block / f->run, off = f->off == CM_Q_OFF8 ? off8 : f->off;
    if (f->minima) return runs > 1 ? runs / 2 : 1;
    return off ? runs : 0;
}

cm_qopen_at cm_qopen_of(const cm_qform *f, int block) {
    int runs = block / f->run, vec = 4 * LANES;
    int pairs = runs > 1 ? vec * runs / 2 : 0;
    cm_qopen_at o = { .d = 0, .dm = vec, .s = f->minima ? 2 * vec : vec };
    o.m = o.s + pairs;
    o.w = o.m + (f->minima ? pairs : 0);
    o.bytes = o.w + LANES * block;
    return o;
}

/* ---- panels ------------------------------------------------------------------------- */

static int64_t panels_of(int64_t O) { return (O + LANES - 1) / LANES; }
static size_t row_bytes(cm_dtype t, int64_t K) {
    return (size_t)(K / cm_dtypes[t].block) * (size_t)cm_dtypes[t].bytes;
}
static size_t matrix_bytes(cm_dtype t, int64_t O, int64_t K) {
    return (size_t)(forms[t].n_field ? panels_of(O) * LANES : O) * row_bytes(t, K);
}

size_t cm_qmat_bytes(cm_dtype t, int64_t E, int64_t O, int64_t K) {
    return (size_t)E * matrix_bytes(t, O, K);
}

/* Bit j to bit 8 (j % 4) + j / 4, and back. */
static uint32_t spread(uint32_t h) {
    uint32_t out = 0;
    for (int j = 0; j < 32; j++) out |= (h >> j & 1) << (8 * (j % 4) + j / 4);
    return out;
}
static uint32_t gather(uint32_t h) {
    uint32_t out = 0;
    for (int j = 0; j < 32; j++) out |= (h >> (8 * (j % 4) + j / 4) & 1) << j;
    return out;
}

static void reorder(const cm_qform *f, uint8_t *h, uint32_t (*how)(uint32_t)) {
    uint32_t v;
    if (!f->fifth) return;
    memcpy(&v, h, 4);
    v = how(v);
    memcpy(h, &v, 4);
}

/* Pieces of a size known to the compiler become single moves. */
static inline void put_pieces(int n, int piece, const uint8_t *from, uint8_t *to) {
    for (int i = 0; i < n; i += piece) memcpy(to + i * LANES, from + i, (size_t)piece);
}

/* Pieces of fields 0 and 1 are one sequence: those of 32 bytes of field 1, each before the
 * pieces of field 0 that lie 32 bytes apart. */
static bool woven(const cm_qform *f) { return f->field[1].bytes >= 32; }

/* The place in a block of piece i of field `which`. */
static int place(const cm_qform *f, int which, int i) {
    int halves = f->field[1].bytes / 32, per = f->field[0].bytes / 4 / halves, each = per / 8;
    if (which) return i * (1 + each);
    return (i / per * 8 + i % 8) * (1 + each) + 1 + i % per / 8;
}

/* All of them, in the order of their places. */
static void weave(const cm_qform *f, const uint8_t *from, uint8_t *to, int lane) {
    int halves = f->field[1].bytes / 32, each = f->field[0].bytes / 32 / halves;
    const uint8_t *one = from + f->field[1].at;
    to += 4 * lane;
    for (int h = 0; h < halves; h++)
        for (int u = 0; u < 8; u++, one += 4, to += 4 * LANES) {
            const uint8_t *zero = from + f->field[0].at + 4 * (h * 8 * each + u);
            memcpy(to, one, 4);
            for (int g = 0; g < each; g++, zero += 32) memcpy(to += 4 * LANES, zero, 4);
        }
}

static void put_block(const cm_qform *f, const uint8_t *from, uint8_t *to, int lane) {
    int i = 0;
    if (woven(f)) {
        weave(f, from, to, lane);
        to += (f->field[0].bytes + f->field[1].bytes) * LANES;
        i = 2;
    }
    for (; i < f->n_field; i++) {
        const cm_qfield *d = &f->field[i];
        uint8_t h[4];
        const uint8_t *src = from + d->at;
        if (f->fifth && i == 1) {
            memcpy(h, src, 4);
            reorder(f, h, spread);
            src = h;
        }
        if (d->piece == 4) put_pieces(d->bytes, 4, src, to + 4 * lane);
        else put_pieces(d->bytes, 2, src, to + 2 * lane);
        to += d->bytes * LANES;
    }
}

/* 16 rows at once: 32 bytes of each, pieces `step` apart in the panel. */
static void turn(const uint8_t *const from[LANES], int at, uint8_t *to, int step) {
    const uint8_t *row[LANES];
    for (int l = 0; l < LANES; l++) row[l] = from[l] + at;
    kern->turn(row, to, step * 4 * LANES);
}

static void weave_rows(const cm_qform *f, const uint8_t *const from[LANES], uint8_t *to) {
    int halves = f->field[1].bytes / 32, each = f->field[0].bytes / 32 / halves, n = 1 + each;
    for (int h = 0; h < halves; h++, to += 8 * n * 4 * LANES) {
        turn(from, f->field[1].at + 32 * h, to, n);
        for (int g = 0; g < each; g++)
            turn(from, f->field[0].at + 32 * (h * each + g), to + (1 + g) * 4 * LANES, n);
    }
}

/* Piece at byte k of each. */
static inline void put_piece(const uint8_t *const from[LANES], int k, int piece, uint8_t *to) {
#pragma GCC unroll 16
    for (int l = 0; l < LANES; l++) memcpy(to + piece * l, from[l] + k, (size_t)piece);
}

static void put_field(const cm_qfield *d, const uint8_t *const from[LANES], uint8_t *to) {
    int k = 0;
    for (; d->piece == 4 && k + 32 <= d->bytes; k += 32) turn(from, d->at + k, to + k * LANES, 1);
    for (; d->piece == 4 && k < d->bytes; k += 4) put_piece(from, d->at + k, 4, to + k * LANES);
    for (; k < d->bytes; k += 2) put_piece(from, d->at + k, 2, to + k * LANES);
}

static void put_block_rows(const cm_qform *f, const uint8_t *const from[LANES], uint8_t *to) {
    int i = 0;
    if (woven(f)) {
        weave_rows(f, from, to);
        to += (f->field[0].bytes + f->field[1].bytes) * LANES;
        i = 2;
    }
    for (; i < f->n_field; to += f->field[i++].bytes * LANES) {
        put_field(&f->field[i], from, to);
        for (int l = 0; i == 1 && l < LANES; l++) reorder(f, to + 4 * l, spread);
    }
}

void cm_qmat_take(cm_dtype t, const uint8_t *block, int lane, void *out) {
    const cm_qform *f = &forms[t];
    uint8_t *to = out;
    const uint8_t *at = block;
    for (int i = 0; i < f->n_field; at += f->field[i++].bytes * LANES) {
        const cm_qfield *d = &f->field[i];
        for (int p = 0; p < d->bytes / d->piece; p++) {
            const uint8_t *from = at + (p * LANES + lane) * d->piece;
            if (woven(f) && i < 2) from = block + (place(f, i, p) * LANES + lane) * 4;
            memcpy(to + d->at + p * d->piece, from, (size_t)d->piece);
        }
    }
    if (f->fifth) reorder(f, to + f->field[1].at, gather);
}

/* Block 0 of the panel that holds row r, and its lane. */
static uint8_t *panel_of(cm_dtype t, int64_t O, int64_t K, const void *w, int64_t r,
                         int *lane) {
    *lane = (int)(r % O % LANES);
    return (uint8_t *)(uintptr_t)w + (size_t)(r / O) * matrix_bytes(t, O, K) +
           (size_t)(r % O / LANES) * LANES * row_bytes(t, K);
}

/* Has one of n halves all bits of `top` set, its exponent? */
static bool any_special(const uint8_t *h, int64_t n, uint16_t top) {
    unsigned any = 0;
#pragma omp simd reduction(| : any)
    for (int64_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, h + 2 * i, 2);
        any |= (v & top) == top;
    }
    return any;
}

/* The floats of a block are its last fields. */
static int floats_of(const cm_qform *f) { return f->minima ? 2 : 1; }

static bool block_finite(const cm_qform *f, const uint8_t *block) {
    bool bad = false;
    for (int i = f->n_field - floats_of(f); i < f->n_field; i++)
        bad |= any_special(block + f->field[i].at, 1, 0x7c00);
    return !bad;
}

static bool put_halves(cm_dtype t, int64_t K, void *w, int64_t r, const void *row) {
    memcpy((uint8_t *)w + (size_t)r * row_bytes(t, K), row, row_bytes(t, K));
    return !any_special(row, K, t == CM_F16_T ? 0x7c00 : 0x7f80);
}

bool cm_qmat_put(cm_dtype t, int64_t O, int64_t K, void *w, int64_t r, const void *row) {
    const cm_qform *f = &forms[t];
    size_t step = (size_t)cm_dtypes[t].bytes;
    int lane;
    if (!f->n_field) return put_halves(t, K, w, r, row);
    uint8_t *to = panel_of(t, O, K, w, r, &lane);
    const uint8_t *from = row;
    bool ok = true;
    for (int64_t i = 0; i < K / cm_dtypes[t].block; i++, from += step, to += LANES * step) {
        put_block(f, from, to, lane);
        ok &= block_finite(f, from);
    }
    return ok;
}

bool cm_qmat_put_panel(cm_dtype t, int64_t O, int64_t K, void *w, int64_t r,
                       const void *const row[CM_QMAT_PANEL]) {
    const cm_qform *f = &forms[t];
    int64_t step = cm_dtypes[t].bytes, n = K / cm_dtypes[t].block;
    const uint8_t *from[LANES];
    bool ok = true;
    int lane;
    if (!f->n_field) {
        for (int l = 0; l < LANES; l++) ok &= put_halves(t, K, w, r + l, row[l]);
        return ok;
    }
    uint8_t *to = panel_of(t, O, K, w, r, &lane);
    CM_ASSERT(!lane && r % O + LANES <= O, "rows from %lld on are no panel", (long long)r);
    for (int l = 0; l < LANES; l++) from[l] = row[l];
    for (int64_t i = 0; i < n; i++, to += LANES * step) {
        for (int l = 0; l < LANES; l++)
            for (int64_t k = 0; k < step; k += CM_ALIGN)
                __builtin_prefetch(from[l] + LANES * n * step + k, 0, 2);
        put_block_rows(f, from, to);
        ok &= !any_special(to + LANES * (step - 2 * floats_of(f)), LANES * floats_of(f), 0x7c00);
        for (int l = 0; l < LANES; l++) from[l] += step;
    }
    return ok;
}

void cm_qmat_row(cm_dtype t, int64_t O, int64_t K, const void *w, int64_t r, cm_real *x) {
    int block = cm_dtypes[t].block, lane;
    size_t step = LANES * (size_t)cm_dtypes[t].bytes;
    if (!forms[t].n_field) {
        kern->widen(t, (const uint8_t *)w + (size_t)r * row_bytes(t, K), K, x);
        return;
    }
    const uint8_t *from = panel_of(t, O, K, w, r, &lane);
    for (int64_t i = 0; i < K; i += block, from += step) {
        uint8_t one[256];
        float part[256];
        cm_qmat_take(t, from, lane, one);
        cm_to_f32(t, one, part, block);
        for (int k = 0; k < block; k++) x[i + k] = (cm_real)part[k];
    }
}

/* ---- products ----------------------------------------------------------------------- */

void cm_qmat_use(const cm_qkern *k) { kern = k; }

bool cm_qmat_vnni(void) {
#if defined(__x86_64__) && !defined(CM_F64)
    __builtin_cpu_init();
    return cm_kern_best_level() >= CM_LEVEL_AVX512 && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

void cm_qmat_setup(cm_level_id level) {
    kern = &cm_qkern_ref;
    if (level >= CM_LEVEL_AVX2 && cm_qkern_avx2.round) kern = &cm_qkern_avx2;
    if (level >= CM_LEVEL_AVX512 && cm_qkern_vnni.round && cm_qmat_vnni())
        kern = &cm_qkern_vnni;
}

/* One call. */
typedef struct product {
    cm_dtype t;
    const cm_qform *f;  /* NULL: halves */
    const uint8_t *w;
    int64_t E, O, K, M;
    int block, sums;
    int64_t n;          /* blocks of a row */
    const int32_t *first;
    const cm_real *x;
    cm_real scale, *y;
    cm_qtile all;       /* of M rows: tiles one behind the other */
    bool direct;        /* without decoding */
    int tile;           /* rows of a tile */
    uint8_t *own;       /* per thread: decoded blocks, or widened halves */
    size_t own_bytes;
    int64_t rows;       /* of halves at a time */
} product;

/* The next bytes of a scratch, or only their count where there is none yet. */
typedef struct room {
    uint8_t *base;
    size_t used;
} room;

static void *cut(room *r, size_t bytes) {
    void *at = r->base ? r->base + r->used : NULL;
    r->used += cm_align_up(bytes);
    return at;
}

/* Fills p; with scratch NULL only to measure.  Returns the bytes. */
static size_t lay(product *p, const cm_tensor *w, int64_t M, void *scratch) {
    bool many = w->nd == 3;
    const cm_dtype_info *info = &cm_dtypes[w->dtype];
    room at = { scratch, 0 };
    *p = (product){ .t = w->dtype, .f = cm_qform_of(w->dtype), .w = w->data, .M = M };
    p->E = many ? w->dim[0] : 1;
    p->O = w->dim[w->nd - 2], p->K = w->dim[w->nd - 1];
    p->block = info->block;
    p->n = p->K / p->block;
    p->rows = M < FEW ? FEW : MANY;
    /* SOME rows are cheaper straight from a panel, CM_Q_FEW at a time while a cache has it. */
    p->direct = M <= SOME && kern->few;
    p->tile = p->direct ? CM_Q_FEW : TILE;
    if (p->f) {
        p->sums = cm_qsums(p->f, p->block, kern->off8);
        p->all.a = cut(&at, (size_t)(M * p->K));
        p->all.d = cut(&at, (size_t)(M * p->n) * sizeof(float));
        p->all.sum = cut(&at, (size_t)(M * p->n * p->sums) * sizeof(int32_t));
        p->all.wide = cut(&at, (size_t)(M * p->n));
        p->own_bytes = (size_t)(STEP / p->block * cm_qopen_of(p->f, p->block).bytes);
    } else {
        p->own_bytes = (size_t)(p->rows * p->K) * sizeof(cm_real);
    }
    p->own_bytes = cm_align_up(p->own_bytes);
    p->own = cut(&at, p->own_bytes * (size_t)cm_kern_threads());
    return at.used;
}

size_t cm_qmat_scratch(const cm_tensor *w, int64_t M) {
    product p;
    return lay(&p, w, M, NULL);
}

static int64_t tiles_of(const product *p, int64_t m) { return (m + p->tile - 1) / p->tile; }

/* Tile i of matrix e from block b on. */
static inline cm_qtile tile_at(const product *p, int64_t e, int64_t i, int64_t b) {
    int64_t row = p->first[e] + i * p->tile, left = p->first[e + 1] - row;
    int64_t rows = left < p->tile ? left : p->tile, at = row * p->n + b * rows;
    return (cm_qtile){ .rows = (int)rows,
                       .a = p->all.a + at * p->block,
                       .d = p->all.d + at,
                       .sum = p->all.sum + at * p->sums,
                       .wide = p->all.wide + row * p->n + b };
}

static void round_all(const product *p, bool serial) {
#pragma omp parallel num_threads(cm_kern_threads()) if (!serial)
    for (int64_t e = 0; e < p->E; e++) {
        int64_t m = p->first[e + 1] - p->first[e];
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < tiles_of(p, m); i++) {
            cm_qtile t = tile_at(p, e, i, 0);
            kern->round(p->f, p->block, p->K, p->x + (p->first[e] + i * p->tile) * p->K, p->K, &t);
        }
    }
}

/* rows x 16 products become rows of y from column o on. */
static void store(const product *p, int64_t row, int64_t rows, int64_t o, const float *y) {
    cm_real *restrict to = p->y + row * p->O + o, scale = p->scale;
    int64_t lanes = p->O - o < LANES ? p->O - o : LANES;
    if (lanes == LANES) {
        kern->put(rows, y, scale, to, p->O);
        return;
    }
    for (int64_t i = 0; i < rows; i++, y += LANES, to += p->O)
        for (int l = 0; l < lanes; l++) to[l] = scale * (cm_real)y[l];
}

static const uint8_t *panel_at(const product *p, int64_t e, int64_t i) {
    return p->w + (size_t)e * matrix_bytes(p->t, p->O, p->K) +
           (size_t)i * LANES * row_bytes(p->t, p->K);
}

/* Panel i of matrix e with a few rows at a time. */
static void panel_direct(const product *p, int64_t e, int64_t i) {
    int64_t m = p->first[e + 1] - p->first[e];
    const uint8_t *w = panel_at(p, e, i);
    for (int64_t k = 0; k < tiles_of(p, m); k++) {
        float y[CM_Q_FEW * LANES];
        cm_qtile t = tile_at(p, e, k, 0);
        kern->few(p->t, p->n, w, &t, y);
        store(p, p->first[e] + k * p->tile, t.rows, i * LANES, y);
    }
}

/* Panel i with tiles [k, end).  What will be wanted next is asked for a little with each tile: the
 * caches notice no stream in bytes that are read in bursts with long products between them, or in
 * rows of y, and all at once would have to wait for each other. */
static void panel_tiles(const product *p, int64_t e, int64_t i, int64_t k, int64_t end) {
    int64_t step = STEP / p->block, block = LANES * cm_dtypes[p->t].bytes;
    int64_t share = step * block / (end - k);
    const uint8_t *w = panel_at(p, e, i);
    uint8_t *open = p->own + p->own_bytes * (size_t)omp_get_thread_num();
    _Alignas(CM_ALIGN) float all[TILES * TILE * LANES];
    for (int64_t b = 0; b < p->n; b += step, w += step * block) {
        int64_t n = p->n - b < step ? p->n - b : step, row = p->first[e] + k * TILE;
        const uint8_t *next = w + step * block;
        float *y = all;
        kern->open(p->t, n, w, open);
        for (int64_t j = k; j < end; j++, row += TILE, next += share, y += TILE * LANES) {
            cm_qtile t = tile_at(p, e, j, b);
            for (int64_t at = 0; at < share + CM_ALIGN; at += CM_ALIGN)
                __builtin_prefetch(next + at, 0, 2);
            for (int r = 0; !b && r < t.rows; r++)
                __builtin_prefetch(p->y + (row + r) * p->O + i * LANES, 1, 2);
            if (!b) memset(y, 0, (size_t)(t.rows * LANES) * sizeof *y);
            kern->tile(p->t, n, w, open, &t, y);
            if (b + n == p->n) store(p, row, t.rows, i * LANES, y);
        }
    }
}

static void panel(const product *p, int64_t e, int64_t i) {
    int64_t n = tiles_of(p, p->first[e + 1] - p->first[e]);
    if (p->direct) panel_direct(p, e, i);
    for (int64_t k = 0; k < n && !p->direct; k += TILES)
        panel_tiles(p, e, i, k, k + TILES < n ? k + TILES : n);
}

/* Each thread walks down a long part of W, and the parts grow shorter towards the end: memory reads
 * two long streams 1.4 times as fast as pieces of 64 KiB dealt out by turns. */
static void blocks_mul(const product *p, bool serial) {
    int64_t n = panels_of(p->O);
    int64_t chunk = p->direct ? CHUNK / (int64_t)(LANES * row_bytes(p->t, p->K)) + 1 : 1;
    round_all(p, p->M * p->K < SERIAL_X);
#pragma omp parallel num_threads(cm_kern_threads()) if (!serial)
    for (int64_t e = 0; e < p->E; e++) {
        if (p->first[e] == p->first[e + 1]) continue;
#pragma omp for schedule(guided, chunk) nowait
        for (int64_t i = 0; i < n; i++) panel(p, e, i);
    }
}

static void halves_mul(const product *p, bool serial) {
#pragma omp parallel num_threads(cm_kern_threads()) if (!serial)
    for (int64_t e = 0; e < p->E; e++) {
        int64_t r = p->first[e], m = p->first[e + 1] - r;
        if (!m) continue;
#pragma omp for schedule(dynamic) nowait
        for (int64_t o = 0; o < p->O; o += p->rows) {
            int64_t n = p->O - o < p->rows ? p->O - o : p->rows;
            cm_real *own = (cm_real *)(p->own + p->own_bytes * (size_t)omp_get_thread_num());
            kern->widen(p->t, p->w + row_bytes(p->t, (e * p->O + o) * p->K), n * p->K, own);
            cm_gemm1(false, true, m, n, p->K, p->scale, p->x + r * p->K, p->K, own, p->K, 0,
                     p->y + r * p->O + o, p->O);
        }
    }
}

void cm_qmat_mul(const cm_tensor *w, const int32_t *first, int64_t M, const cm_real *x,
                 cm_real scale, cm_real *y, void *scratch) {
    product p;
    int32_t whole[2] = { 0, (int32_t)M };
    lay(&p, w, M, scratch);
    CM_ASSERT(first || p.E == 1, "%lld matrices without rows of their own", (long long)p.E);
    CM_ASSERT(cm_qmat_holds(p.t) && p.K % p.block == 0, "a product with rows of %lld %s",
              (long long)p.K, cm_dtypes[p.t].name);
    p.first = first ? first : whole;
    p.x = x, p.scale = scale, p.y = y;
    bool serial = M * p.O * p.K < SERIAL || omp_in_parallel();
    if (p.f) blocks_mul(&p, serial);
    else halves_mul(&p, serial);
}
