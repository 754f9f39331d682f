/* qmat_test.c -- products with weights as blocks: against doubles, and bit by bit between
 * levels, batch sizes and threads; models held as blocks against the same ones expanded. */
#include "kern/qmat.h"
#include "model/model.h"
#include "quant/quant.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 2 };

static const cm_dtype types[] = { CM_Q8_0_T, CM_Q4_0_T, CM_Q4_1_T, CM_Q5_0_T,   CM_Q5_1_T,
                                  CM_Q2_K_T, CM_Q3_K_T, CM_Q4_K_T, CM_Q5_K_T,   CM_Q6_K_T,
                                  CM_IQ4_NL_T, CM_IQ4_XS_T, CM_F16_T, CM_BF16_T };
enum { TYPES = sizeof types / sizeof *types, HALVES = TYPES - 2 };

static void begin(int threads) {
    cm_err err;
    CM_ASSERT(cm_kern_init(CM_NUMERICS_STRICT, threads, &err), "%s", err.msg);
}

/* The kernels that can run here, plain C first. */
static int levels(const cm_qkern *out[3]) {
    int n = 0;
    out[n++] = &cm_qkern_ref;
    if (cm_qkern_avx2.round && cm_kern_best_level() >= CM_LEVEL_AVX2) out[n++] = &cm_qkern_avx2;
    if (cm_qkern_vnni.round && cm_qmat_vnni()) out[n++] = &cm_qkern_vnni;
    return n;
}

/* ---- one product -------------------------------------------------------------------- */

typedef struct {
    cm_dtype t;
    int64_t E, O, K, M;
    size_t row; /* bytes of a row in the file */
    uint8_t *file;
    cm_tensor w;
    cm_real *x;
    int32_t first[8];
} prob;

/* Scales of the largest exponents would drown everything else. */
static void tame(cm_dtype t, uint8_t *block) {
    const cm_qform *f = cm_qform_of(t);
    for (int i = f ? f->n_field - (f->minima ? 2 : 1) : 0; f && i < f->n_field; i++) {
        uint8_t *h = block + f->field[i].at;
        h[1] = (uint8_t)(0x20 | (h[1] & 0x87)); /* 2^-7 to 2^-6, either sign */
    }
}

/* Every bit of a block at random: scales and integers that no encoder would write too. */
static void random_rows(prob *p, uint64_t seed) {
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, (uint64_t)p->t);
    size_t n = (size_t)(p->E * p->O) * p->row, step = (size_t)cm_dtypes[p->t].bytes;
    for (size_t i = 0; i < n; i++) p->file[i] = (uint8_t)cm_rng_below(r, i, 256);
    for (size_t i = 0; i < n; i += step) {
        if (cm_qform_of(p->t)) tame(p->t, p->file + i);
        else p->file[i + 1] = (uint8_t)((p->file[i + 1] & 0x83) | 0x38);
    }
}

static void make(prob *p, cm_dtype t, int64_t E, int64_t O, int64_t K, const int32_t *rows) {
    *p = (prob){ .t = t, .E = E, .O = O, .K = K };
    p->row = (size_t)(K / cm_dtypes[t].block) * (size_t)cm_dtypes[t].bytes;
    p->file = malloc((size_t)(E * O) * p->row);
    random_rows(p, (uint64_t)(O * 1000 + K));
    p->w = (cm_tensor){ .dtype = t, .nd = E > 1 ? 3 : 2, .dim = { E, O, K } };
    if (E == 1) p->w.dim[0] = O, p->w.dim[1] = K;
    size_t bytes = cm_qmat_bytes(t, E, O, K);
    p->w.data = aligned_alloc(CM_ALIGN, cm_align_up(bytes));
    memset(p->w.data, 0xa5, bytes); /* rows that pad a panel may hold anything */
    for (int64_t r = 0; r < E * O; r++)
        CHECK(cm_qmat_put(t, O, K, p->w.data, r, p->file + (size_t)r * p->row));
    for (int64_t e = 0; e < E; e++) p->first[e + 1] = p->first[e] + rows[e];
    p->M = p->first[E];
    p->x = malloc((size_t)(p->M * K + 1) * sizeof *p->x);
    cm_rng r = cm_rng_make(3, CM_RNG_TEST, (uint64_t)K);
    for (int64_t i = 0; i < p->M * K; i++) /* blocks of very different sizes, some all zero */
        p->x[i] = (cm_real)(cm_rng_normal(r, (uint64_t)i) * (double)(i / 32 % 5));
}

static void drop(prob *p) {
    free(p->file);
    free(p->w.data);
    free(p->x);
}

static cm_real *product(const prob *p, cm_real scale) {
    cm_real *y = malloc((size_t)(p->M * p->O + 1) * sizeof *y);
    void *room = aligned_alloc(CM_ALIGN, cm_align_up(cm_qmat_scratch(&p->w, p->M) + 1));
    for (int64_t i = 0; i < p->M * p->O; i++) y[i] = (cm_real)NAN;
    cm_qmat_mul(&p->w, p->E > 1 ? p->first : NULL, p->M, p->x, scale, y, room);
    free(room);
    return y;
}

/* x as the contract rounds it, in double. */
static void rounded(const prob *p, double *out) {
    int block = cm_dtypes[p->t].block;
    for (int64_t b = 0; b < p->M * p->K; b += block) {
        float most = 0;
        for (int k = 0; k < block; k++) most = fmaxf(most, fabsf((float)p->x[b + k]));
        float up = most > 0 ? 127 / most : 0, d = most / 127;
        for (int k = 0; k < block; k++)
            out[b + k] = block == 1 ? (double)p->x[b]
                                    : (double)d * (double)rintf((float)p->x[b + k] * up);
    }
}

/* Against double products of the file's weights and of the rounded x.  Floats are added once a
 * block and scaled twice: an error of a few units in the last place of the sum of magnitudes;
 * halves: of K terms. */
static void check_sums(const prob *p, const cm_real *y, double scale, const char *what) {
    double *x = malloc((size_t)(p->M * p->K + 1) * sizeof *x), worst = 0;
    float *w = malloc((size_t)p->K * sizeof *w);
    rounded(p, x);
    for (int64_t e = 0; e < p->E; e++)
        for (int64_t o = 0; o < p->O; o++) {
            cm_to_f32(p->t, p->file + (size_t)(e * p->O + o) * p->row, w, p->K);
            for (int64_t r = p->first[e]; r < p->first[e + 1]; r++) {
                double sum = 0, size = 1e-30;
                for (int64_t k = 0; k < p->K; k++) {
                    sum += (double)w[k] * x[r * p->K + k];
                    size += fabs((double)w[k] * x[r * p->K + k]);
                }
                double off = fabs((double)y[r * p->O + o] - scale * sum) / (scale * size);
                if (!(off <= worst)) worst = off;
            }
        }
    CHECKF(worst < 1e-6, "%s %s: E %lld O %lld K %lld M %lld: off by %g of the magnitudes",
           what, cm_dtypes[p->t].name, (long long)p->E, (long long)p->O, (long long)p->K,
           (long long)p->M, worst);
    free(w);
    free(x);
}

static void check_prob(const prob *p, const char *what) {
    const cm_qkern *level[3];
    int n = levels(level);
    cm_real *want = NULL;
    for (int i = 0; i < n; i++) {
        cm_qmat_use(level[i]);
        cm_real *y = product(p, (cm_real)0.5);
        if (!i) check_sums(p, y, 0.5, what);
        if (want)
            CHECKF(!memcmp(want, y, (size_t)(p->M * p->O) * sizeof *y),
                   "%s %s: O %lld K %lld M %lld: level %d has other bits than plain C", what,
                   cm_dtypes[p->t].name, (long long)p->O, (long long)p->K, (long long)p->M, i);
        if (want) free(y);
        else want = y;
    }
    free(want);
}

TEST(products_are_the_weights_times_the_rounded_rows) {
    static const struct { int64_t O, K; int32_t M; } shapes[] = {
        { 1, 1, 1 }, { 16, 1, 2 }, { 33, 2, 1 }, { 50, 3, 3 }, { 7, 5, 13 }, { 64, 1, 25 },
        { 17, 2, 0 }, { 40, 2, 4 }, { 33, 1, 7 }, { 16, 2, 9 },
    };
    begin(THREADS);
    for (int t = 0; t < TYPES; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            prob p;
            int64_t unit = cm_dtypes[types[t]].block > 1 ? cm_dtypes[types[t]].block : 33;
            make(&p, types[t], 1, shapes[i].O, shapes[i].K * unit, &shapes[i].M);
            check_prob(&p, "matrix");
            drop(&p);
        }
}

/* Sums of a run at both ends of what they can be, and just inside and outside of 16 bits: rows of
 * W with all bits set or clear, against rows of x of one magnitude and of ever smaller shares. */
TEST(the_largest_sums) {
    int32_t M = 13;
    begin(THREADS);
    for (int t = 0; t < HALVES; t++) {
        prob p;
        make(&p, types[t], 1, 37, 768, &M);
        size_t step = (size_t)cm_dtypes[p.t].bytes;
        for (int64_t r = 0; r < p.O; r++) {
            uint8_t *row = p.file + (size_t)r * p.row;
            if (r % 3 < 2) memset(row, r % 3 ? 0xff : 0, p.row);
            for (size_t i = 0; i < p.row; i += step) tame(p.t, row + i);
            CHECK(cm_qmat_put(p.t, p.O, p.K, p.w.data, r, row));
        }
        for (int64_t i = 0; i < p.M * p.K; i++) {
            int64_t r = i / p.K, k = i % p.K, sign = r % 3 == 1 || (r % 3 == 2 && k % 2);
            double size = k % 32 ? 1 - 0.08 * (double)r + 1e-3 * (double)(k / 16) : 1;
            p.x[i] = (cm_real)(sign ? -size : size);
        }
        check_prob(&p, "largest");
        drop(&p);
    }
}

TEST(experts_meet_their_own_rows) {
    static const int32_t rows[] = { 2, 0, 14, 1 };
    begin(THREADS);
    for (int t = 0; t < TYPES; t++) {
        prob p;
        make(&p, types[t], 4, 19, 512, rows);
        check_prob(&p, "experts");
        drop(&p);
    }
}

/* Row r of any batch has the bits of row r alone, on any number of threads. */
TEST(a_row_does_not_know_its_batch) {
    int32_t M = 40;
    for (int t = 0; t < TYPES; t++) {
        prob p, one;
        make(&p, types[t], 1, 100, 768, &M);
        begin(THREADS);
        cm_real *all = product(&p, 1);
        begin(1);
        cm_real *same = product(&p, 1);
        CHECKF(!memcmp(all, same, (size_t)(p.M * p.O) * sizeof *all), "%s: threads",
               cm_dtypes[p.t].name);
        free(same);
        for (int64_t r = 0; r < M; r += 3) {
            one = p;
            one.x = p.x + r * p.K;
            one.M = one.first[1] = r % 2 ? 1 : 2 <= M - r ? 2 : 1;
            cm_real *y = product(&one, 1);
            CHECKF(!memcmp(y, all + r * p.O, (size_t)p.O * sizeof *y), "%s: row %lld",
                   cm_dtypes[p.t].name, (long long)r);
            free(y);
        }
        free(all);
        drop(&p);
    }
}

TEST(rows_come_back_as_they_were) {
    int32_t rows[] = { 0, 0 };
    begin(THREADS);
    for (int t = 0; t < TYPES; t++) {
        prob p;
        make(&p, types[t], 2, 21, 512, rows);
        float *w = malloc((size_t)p.K * sizeof *w);
        cm_real *got = malloc((size_t)p.K * sizeof *got);
        for (int64_t r = 0; r < p.E * p.O; r++) {
            cm_to_f32(p.t, p.file + (size_t)r * p.row, w, p.K);
            cm_qmat_row(p.t, p.O, p.K, p.w.data, r, got);
            int64_t wrong = 0;
            for (int64_t k = 0; k < p.K; k++) wrong += got[k] != (cm_real)w[k];
            CHECKF(!wrong, "%s: row %lld: %lld elements", cm_dtypes[p.t].name, (long long)r,
                   (long long)wrong);
        }
        free(w);
        free(got);
        drop(&p);
    }
}

/* NaN and infinity in x reach y at every level; tiny rows do not become them. */
TEST(what_is_not_finite_shows) {
    static const double bad[] = { NAN, INFINITY, -INFINITY, 1e-38, 0 };
    const cm_qkern *level[3];
    int32_t M = 1;
    begin(1);
    int n = levels(level);
    for (int t = 0; t < HALVES; t++)
        for (int b = 0; b < 5; b++) {
            prob p;
            make(&p, types[t], 1, 16, 512, &M);
            for (int k = 0; k < 512; k++) p.x[k] = (cm_real)(b > 2 ? bad[b] : 0.5);
            p.x[300] = (cm_real)bad[b];
            for (int i = 0; i < n; i++) {
                cm_qmat_use(level[i]);
                cm_real *y = product(&p, 1);
                for (int o = 0; o < 16; o++)
                    CHECKF(isfinite(y[o]) == (b > 2), "%s, level %d: %g gives %g",
                           cm_dtypes[p.t].name, i, bad[b], (double)y[o]);
                free(y);
            }
            drop(&p);
        }
}

/* 16 rows together lie as they do one by one, and one broken scale is noticed. */
TEST(rows_of_a_panel_together) {
    enum { O = 40, AT = O + 16 }; /* the second panel of the second matrix */
    const cm_qkern *level[3];
    int32_t M[2] = { 0 };
    begin(1);
    int n = levels(level);
    for (int t = 0; t < TYPES; t++)
        for (int i = 0; i < n; i++) {
            prob p;
            const void *row[CM_QMAT_PANEL];
            make(&p, types[t], 2, O, 512, M);
            size_t bytes = cm_qmat_bytes(p.t, p.E, O, p.K);
            uint8_t *one = malloc(bytes), *h = p.file + (AT + 9) * p.row;
            memcpy(one, p.w.data, bytes);
            for (int r = 0; r < CM_QMAT_PANEL; r++) row[r] = p.file + (size_t)(AT + r) * p.row;
            for (int r = 0; r < CM_QMAT_PANEL; r++)
                cm_qmat_put(p.t, O, p.K, p.w.data, AT + r, p.file);
            CHECK(memcmp(one, p.w.data, bytes));
            cm_qmat_use(level[i]);
            CHECK(cm_qmat_put_panel(p.t, O, p.K, p.w.data, AT, row));
            CHECKF(!memcmp(one, p.w.data, bytes), "%s, level %d", cm_dtypes[p.t].name, i);
            const cm_qform *f = cm_qform_of(p.t);
            h[f ? f->field[f->n_field - 1].at + 1 : 101] = p.t == CM_BF16_T ? 0x7f : 0x7c;
            h[f ? f->field[f->n_field - 1].at : 100] |= 0x80;
            CHECKF(!cm_qmat_put_panel(p.t, O, p.K, p.w.data, AT, row), "%s, level %d",
                   cm_dtypes[p.t].name, i);
            free(one);
            drop(&p);
        }
}

TEST(broken_scales_are_refused) {
    int32_t M = 0;
    begin(1);
    for (int t = 0; t < TYPES; t++) {
        prob p;
        make(&p, types[t], 1, 3, 512, &M);
        const cm_qform *f = cm_qform_of(p.t);
        for (int i = f ? f->n_field - (f->minima ? 2 : 1) : 0; i < (f ? f->n_field : 1); i++) {
            uint8_t *h = p.file + p.row + (f ? f->field[i].at : 100), keep = h[1];
            h[1] = p.t == CM_BF16_T ? 0x7f : 0x7c;
            h[0] |= 0x80;
            CHECKF(!cm_qmat_put(p.t, p.O, p.K, p.w.data, 1, p.file + p.row), "%s field %d",
                   cm_dtypes[p.t].name, i);
            h[1] = keep;
        }
        CHECK(cm_qmat_put(p.t, p.O, p.K, p.w.data, 1, p.file + p.row));
        drop(&p);
    }
}

/* Every number that a half can be, at every level, whatever the length. */
TEST(halves_are_widened_exactly) {
    enum { N = 65536, ODD = 21 };
    static uint16_t h[N];
    static cm_real got[N];
    const cm_qkern *level[3];
    begin(1);
    int n = levels(level);
    for (int t = HALVES; t < TYPES; t++)
        for (int i = 0; i < n; i++) {
            int count = 0, wrong = 0;
            for (int v = 0; v < N; v++) {
                uint16_t top = types[t] == CM_F16_T ? 0x7c00 : 0x7f80;
                if ((v & top) != top) h[count++] = (uint16_t)v;
            }
            CHECK(count > 60000);
            for (int at = 0; at < count; at += ODD)
                level[i]->widen(types[t], h + at, count - at < ODD ? count - at : ODD, got + at);
            for (int k = 0; k < count; k++) {
                float want = types[t] == CM_F16_T ? cm_f16_to_f32(h[k]) : cm_bf16_to_f32(h[k]);
                cm_real real = (cm_real)want;
                wrong += memcmp(&real, &got[k], sizeof real) != 0;
            }
            CHECKF(!wrong, "%s, level %d: %d wrong", cm_dtypes[types[t]].name, i, wrong);
        }
}

/* ---- models ------------------------------------------------------------------------- */

enum { TEXT = 40, WIDE_V = 96 };

typedef struct {
    cm_conf conf;
    cm_model m;
    cm_arena arena;
} made;

static void make_model(made *x, const char *settings) {
    cm_err err;
    char *text = cm_strf("model: {d_model: 256, n_layers: 3, n_heads: 4, n_kv_heads: 2, d_ff: "
                         "512, n_experts: 3, top_k: 3, d_expert: 256, ssm_state: 16, "
                         "ssm_head_dim: 64, init_std: 0.05, context: 128, %s}", settings);
    cm_conf_open(&x->conf, NULL);
    cm_conf_text(&x->conf, "model", text, strlen(text));
    CM_ASSERT(cm_conf_check(&x->conf, &err), "%s", err.msg);
    x->conf.model.vocab_size = WIDE_V;
    CM_ASSERT(cm_model_resolve(&x->conf.model, &err) &&
                  cm_arena_open(&x->arena, "model", (size_t)64 << 20, &err), "%s", err.msg);
    cm_model_build(&x->m, &x->conf.model, &x->arena, false);
    cm_params_init(&x->m.params, 7);
    free(text);
}

static void drop_model(made *x) {
    cm_model_end(&x->m);
    cm_arena_close(&x->arena);
    cm_conf_close(&x->conf);
}

/* Logits of TEXT tokens: `first` at once, the others one by one. */
static cm_real *logits(const cm_model *m, int first) {
    cm_err err;
    cm_session s;
    int64_t V = m->conf.vocab_size;
    cm_real *all = malloc((size_t)(TEXT * V) * sizeof *all);
    int32_t id[TEXT];
    for (int i = 0; i < TEXT; i++) id[i] = (int32_t)(i * 37 % V);
    CM_ASSERT(cm_session_open(&s, m, TEXT, &err), "%s", err.msg);
    bool ok = !first || cm_session_feed(&s, id, first, all, NULL, &err);
    for (int i = first; ok && i < TEXT; i++)
        ok = cm_session_feed(&s, id + i, 1, NULL, all + i * V, &err);
    CM_ASSERT(ok, "%s", err.msg);
    cm_session_close(&s);
    return all;
}

/* Rounding a row to steps of a/127 leaves (a/127)^2/12 of its power as error: 5e-5 where a is 3
 * rms, as among 256 normal numbers; 2e-4 at 6 rms, as among 256 products of two.  A layer has
 * two products of either kind (in and gate-up; out and down), 5e-4, and three layers and the
 * head add up to 1.6e-3.  Anything misplaced is above 1e-1.  All experts are chosen: where
 * two nearly tie, rounding would choose another one. */
static const double ROUNDING = 1.6e-3;

static void check_near(const cm_real *a, const cm_real *b, int64_t n, double bound,
                       const char *what) {
    double error = 0, power = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        error += d * d;
        power += (double)b[i] * (double)b[i];
    }
    CHECKF(error <= bound * power && (error > 0) == (bound > 0), "%s: %.2e of the power", what,
           error / power);
}

/* One file both ways, read at once and step by step. */
static void check_file(const char *path, double bound, const char *what) {
    cm_loaded whole, blocks;
    cm_err err;
    bool ok = cm_load(&whole, path, 0, &err) && cm_load(&blocks, path, CM_LOAD_BLOCKS, &err);
    CHECKF(ok, "%s: %s", what, err.msg);
    if (!ok) return;
    int64_t n = TEXT * whole.model.conf.vocab_size;
    int held = 0;
    for (int i = 0; i < blocks.model.params.n; i++)
        held += cm_qmat_holds(blocks.model.params.p[i]->var.v.dtype);
    CHECKF(held >= 4 * blocks.model.conf.n_layers, "%s: %d held", what, held);
    CHECKF(blocks.arena.used == blocks.arena.cap &&
               blocks.arena.used < whole.arena.used / 2 + 65536,
           "%s: %zu of %zu bytes, expanded %zu", what, blocks.arena.used, blocks.arena.cap,
           whole.arena.used);
    cm_real *want = logits(&whole.model, TEXT), *a = logits(&blocks.model, TEXT);
    cm_real *b = logits(&blocks.model, 3);
    check_near(a, want, n, bound, what);
    free(want);
    want = logits(&whole.model, 3);
    check_near(b, want, n, bound, what);
    free(want);
    free(a);
    free(b);
    cm_loaded_close(&whole);
    cm_loaded_close(&blocks);
}

TEST(models_held_as_blocks) {
    static const char *const kinds[] = {
        "pattern: MA, rope: plain", "pattern: AM, ffn: E, d_shared: 256, rope: plain, tied: false",
    };
    static const int mixes[] = { CM_TYPE_Q8_0, CM_TYPE_Q4_0, CM_TYPE_Q4_K_M, CM_TYPE_Q3_K_M,
                                 CM_TYPE_IQ4_XS, CM_TYPE_F16, CM_TYPE_BF16 };
    cm_err err;
    begin(THREADS);
    for (size_t k = 0; k < 2; k++) {
        made x;
        make_model(&x, kinds[k]);
        for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) {
            cm_export e = { .model = &x.m, .mix = mixes[i], .name = "x" };
            char *path = cm_strf("%s/x.gguf", t_tmpdir());
            char *what = cm_strf("%s, %s", kinds[k], cm_mix_name(mixes[i]));
            bool ok = cm_export_gguf(&e, path, &err);
            CHECKF(ok, "%s", err.msg);
            bool halves = mixes[i] == CM_TYPE_F16 || mixes[i] == CM_TYPE_BF16;
            if (ok) check_file(path, halves ? 0 : ROUNDING, what);
            free(path);
            free(what);
        }
        drop_model(&x);
    }
}

enum { LONG = 200 };

/* Logits of n tokens, `piece` of them at a time (0: what the session chose). */
static cm_real *long_logits(const cm_model *m, int n, int piece) {
    cm_err err;
    cm_session s;
    int32_t id[LONG];
    cm_real *all = malloc((size_t)(n * WIDE_V) * sizeof *all);
    for (int i = 0; i < n; i++) id[i] = i * 41 % WIDE_V;
    CM_ASSERT(cm_session_open(&s, m, LONG, &err), "%s", err.msg);
    CHECK(s.piece < CM_PIECE);
    if (piece) {
        CM_ASSERT(cm_session_allow_trial(&s, piece, &err), "%s", err.msg); /* makes room */
        s.piece = piece;
    }
    CM_ASSERT(cm_session_feed(&s, id, n, all, NULL, &err), "%s", err.msg);
    cm_session_close(&s);
    return all;
}

/* Blocks are read in parts of a piece; a few tokens alone would be read as in decoding. */
TEST(parts_of_a_piece_change_no_bit) {
    static const int lengths[] = { 2, 64, 65, 66, 67, 68, 129, 130, LONG };
    cm_err err;
    made x;
    cm_loaded l;
    begin(THREADS);
    make_model(&x, "pattern: MA, rope: plain");
    char *path = cm_strf("%s/parts.gguf", t_tmpdir());
    cm_export e = { .model = &x.m, .mix = CM_TYPE_Q4_0, .name = "x" };
    bool ok = cm_export_gguf(&e, path, &err) && cm_load(&l, path, CM_LOAD_BLOCKS, &err);
    CHECKF(ok, "%s", err.msg);
    for (size_t i = 0; ok && i < sizeof lengths / sizeof *lengths; i++) {
        int n = lengths[i];
        cm_real *a = long_logits(&l.model, n, 0), *b = long_logits(&l.model, n, CM_PIECE);
        CHECKF(!memcmp(a, b, (size_t)(n * WIDE_V) * sizeof *a), "%d tokens", n);
        free(a);
        free(b);
    }
    if (ok) cm_loaded_close(&l);
    free(path);
    drop_model(&x);
}

/* Gate in one type and up in another: expanded, and still the same model. */
TEST(parts_of_different_types_are_expanded) {
    cm_err err;
    made x;
    begin(THREADS);
    make_model(&x, "pattern: MA");
    char *path = cm_strf("%s/parts.gguf", t_tmpdir());
    const char *words[] = { "*ffn_up.weight=q8_0" };
    cm_list list = { 1, words };
    cm_export e = { .model = &x.m, .mix = CM_TYPE_Q4_0, .name = "x", .tensors = &list };
    cm_loaded l;
    bool ok = cm_export_gguf(&e, path, &err) && cm_load(&l, path, CM_LOAD_BLOCKS, &err);
    CHECKF(ok, "%s", err.msg);
    if (ok) {
        CHECK(l.model.layer[0].mlp.in->var.v.dtype == CM_REAL_DTYPE);
        CHECK(l.model.layer[0].mlp.out->var.v.dtype == CM_Q4_0_T);
        cm_loaded whole, draft;
        CHECK(cm_draft_load(&draft, path, &l, CM_LOAD_BLOCKS, &err));
        CHECK(draft.model.layer[0].mlp.out->var.v.dtype == CM_Q4_0_T);
        cm_loaded_close(&draft);
        CHECK(cm_draft_load(&draft, path, &l, 0, &err));
        CHECK(draft.model.layer[0].mlp.out->var.v.dtype == CM_REAL_DTYPE);
        cm_loaded_close(&draft);
        CHECK(cm_load(&whole, path, 0, &err));
        cm_real *a = logits(&l.model, TEXT), *b = logits(&whole.model, TEXT);
        check_near(a, b, TEXT * WIDE_V, ROUNDING, "parts");
        free(a);
        free(b);
        cm_loaded_close(&whole);
        cm_loaded_close(&l);
    }
    free(path);
    drop_model(&x);
}
