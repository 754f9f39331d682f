/* kern.h -- the kernel table: every inner loop of the project, chosen at run time.
 *
 * cm_kern_init fills the table with plain C (ref_*.c) and overlays it with each instruction
 * level the CPU has, up to the one CHIMERA_KERNELS allows.  A kernel is defined once, by
 * its line in kern.def (signature and meaning), and called as cm_k.name(...).
 *
 * To add a kernel:
 *   1. kern.def: its line, KERN(...).
 *   2. ref_<family>.c (includes "kern/ref.h"): void CM_REF(name)(...) in cm_real, plain C.
 *   3. tests/unit: a case in kern_cases.inc, the ref file in kern_sweep64.c; kern_test
 *      fails without them.
 *   4. If it is hot: vec_<family>.inc with static void VK(name)(...) in the vocabulary of
 *      simd_avx2.h, the file named in vec.inc, and KERN changed to VKERN.  That one source
 *      becomes both the AVX2 and the AVX-512 version.
 * A missing function fails to link.
 *
 * Rules: kernels are single-threaded and never allocate; callers cut work by shape and
 * run kernels inside OpenMP loops.  Within one level a result depends on the arguments
 * only: not on threads, alignment, or the position of a row in a larger matrix.
 * Kernels called "add" accumulate into their output; all others overwrite it. */
#ifndef CM_KERN_H
#define CM_KERN_H

#include "tensor/tensor.h"

/* Instruction levels, lowest first: id, name as in CHIMERA_KERNELS.  The last one adds
 * AVX512_BF16 and VNNI, which only products of narrow operands use and what makes these:
 * everything else has the bits of avx512. */
#define CM_LEVELS(X)                                                                    \
    X(CM_LEVEL_REF, "ref") X(CM_LEVEL_AVX2, "avx2") X(CM_LEVEL_AVX512, "avx512")        \
    X(CM_LEVEL_AVX512BF16, "avx512bf16")
typedef enum {
#define X(id, name) id,
    CM_LEVELS(X)
#undef X
    CM_N_LEVELS
} cm_level_id;

/* One AdamW step (arXiv 1711.05101) with g' = gscale g:
 *   m = b1 m + (1-b1) g'    v = b2 v + (1-b2) g'^2
 *   w = (1 - lr wd) w - lr (m/bc1) / (sqrt(v/bc2) + eps)       bcN = 1 - bN^step */
typedef struct cm_adamw {
    cm_real lr, b1, b2, eps, wd, bc1, bc2, gscale;
} cm_adamw;

enum { CM_MAX_TAPS = 16 }; /* of a convolution */

/* n channels of rows t < T of a convolution, at the first channel.  With d_t = dy_t silu'(pre_t)
 * and d_t = 0 for t >= T:
 *   gx_t = or (add) += sum_m w[m] d_(t+taps-1-m)    gw[m] += sum d_t x[t+m]    gb += sum d_t
 * over t < own only, own <= T < own + taps. */
typedef struct cm_conv_back {
    int taps, T, own;
    const cm_real *const *x;     /* taps-1 + T rows, the oldest first */
    const cm_real *w, *b;        /* w[taps], rows ldw apart, as gw */
    const cm_real *dy;           /* [T], rows ldy apart */
    cm_real *gx;                 /* [own], rows ldx apart; NULL: not wanted */
    cm_real *gw, *gb;
    int64_t ldw, ldy, ldx;
    bool add;
} cm_conv_back;

/* Rows of scores of one tile of at most CM_SOFT_KEYS keys, rows CM_SOFT_KEYS apart.  Row i has
 * the first min(live + i, seen) of them, at least one.  Weights become words of pairs (below)
 * where those are wanted, which the level must have; else they take the place of the scores.
 * Every row is filled up with zeros to CM_SOFT_KEYS, or (words down) to `seen` at least. */
enum { CM_SOFT_KEYS = 64, CM_SOFT_LANES = 16 };

/* A softmax that goes on: w = 2^(s log2 e - top), each row's `top` a whole number that rises,
 * by 8 or more, when a score is above 2^8 tops; then what it has collected is multiplied by
 * 2^(old - new).  Key j adds its w to lane j mod CM_SOFT_LANES of the row's sums. */
typedef struct cm_attn_soft {
    int64_t rows, seen, live, P;
    cm_real *s;
    cm_real *words;     /* NULL, or along, CM_SOFT_KEYS / 2 a row */
    cm_real *top;       /* [rows] in powers of 2, CM_SOFT_NONE at first */
    cm_real *sum, *mix; /* [rows,CM_SOFT_LANES] and [rows,P] */
} cm_attn_soft;
#define CM_SOFT_NONE ((cm_real)-1e30)

/* Its gradient: p = 2^(s log2 e - lse), then ds = p (ds - delta). */
typedef struct cm_attn_grad {
    int64_t rows, seen, live;
    const cm_real *lse, *delta; /* [rows]; lse to the base of 2 */
    cm_real *s, *ds;
    cm_real *p_down;   /* NULL, or words of p, CM_SOFT_KEYS a pair of rows, */
    cm_real *ds_down;  /* of ds the same */
    cm_real *ds_along; /* and along, CM_SOFT_KEYS / 2 a row */
} cm_attn_grad;

typedef struct cm_kern {
#define KERN(ret, name, args) ret(*name) args;
#include "kern/kern.def"
} cm_kern;

/* The table in use: read-only after cm_kern_init; before it every entry panics with a
 * sentence, and so do the matrix products below. */
extern cm_kern cm_k;

/* Reference kernels: cm_ref_<name>. */
#ifndef CM_REF
#define CM_REF(name) cm_ref_##name
#endif
#define KERN(ret, name, args) ret CM_REF(name) args;
#include "kern/kern.def"

/* Put a level's kernels over those in the table; nothing where the build has no such
 * level (double build, other CPU families).  The caller knows that the CPU can. */
void cm_overlay_avx2(cm_kern *k);
void cm_overlay_avx512(cm_kern *k);
void cm_overlay_avx512bf16(cm_kern *k);

/* cm_gemm, cm_product in fp32: strict = our packed kernels (same bits for any M, N, threads and
 * row position); fast = OpenBLAS, one thread per OpenMP thread.  BF16, words and quantized
 * weights have strict products only. */
typedef enum { CM_NUMERICS_STRICT, CM_NUMERICS_FAST } cm_numerics;

/* Choose the level (the CPU's best, lowered by the environment variable CHIMERA_KERNELS)
 * and allocate the per-thread packing buffers.  threads = 0: all cores the process may
 * use.  Call once, before any other function of this header; a second call with other
 * settings re-selects.  False: unknown level name, or a level this CPU lacks. */
bool cm_kern_init(cm_numerics numerics, int threads, cm_err *err);
/* Does OpenBLAS run kernels below what the CPU can?  It chooses by the CPUs it knows, or by an
 * exported OPENBLAS_CORETYPE.  why: a sentence, where it does. */
enum { CM_BLAS_TEXT = 160 };
bool cm_blas_below_cpu(char why[CM_BLAS_TEXT]);
cm_level_id cm_kern_level(void);
const char *cm_level_name(cm_level_id id);
cm_level_id cm_kern_best_level(void); /* what this CPU supports */
int cm_kern_threads(void);
/* "avx2, strict, 2 threads, OpenBLAS Zen": for logs and run.json.  Static storage. */
const char *cm_kern_describe(void);

/* C[M,N] = alpha * op(A)[M,K] op(B)[K,N] + beta * C.   op(X) = X or its transpose.
 * Row-major with leading dimensions lda, ldb, ldc (elements).  beta = 0 overwrites C
 * (never reads it).  M, N or K may be 0.  Runs on all threads. */
void cm_gemm(bool ta, bool tb, int64_t M, int64_t N, int64_t K, cm_real alpha,
             const cm_real *A, int64_t lda, const cm_real *B, int64_t ldb, cm_real beta,
             cm_real *C, int64_t ldc);
/* The same on the calling thread only: for use inside parallel loops.  Same bits. */
void cm_gemm1(bool ta, bool tb, int64_t M, int64_t N, int64_t K, cm_real alpha,
              const cm_real *A, int64_t lda, const cm_real *B, int64_t ldb, cm_real beta,
              cm_real *C, int64_t ldc);

/* How a product takes its operands: as they are, or each element rounded to BF16 (nearest
 * even; denormals count as 0).  Sums and C are cm_real either way. */
typedef enum { CM_COMPUTE_FP32, CM_COMPUTE_BF16 } cm_compute;

/* A matrix operand: row-major with leading dimension ld, or (t) its transpose.  Elements
 * are cm_real, or (stored) BF16 numbers, which only CM_COMPUTE_BF16 takes. */
typedef struct cm_mat {
    const void *at;
    int64_t ld;
    bool t, stored;
} cm_mat;
static inline cm_mat cm_mat_of(const cm_real *at, int64_t ld, bool t) {
    return (cm_mat){ at, ld, t, false };
}

/* The same matrix from element i on. */
static inline cm_mat cm_mat_from(cm_mat m, int64_t i) {
    m.at = (const char *)m.at + i * (m.stored ? 2 : (int64_t)sizeof(cm_real));
    return m;
}

/* The same products with a choice of precision; cm_product1 on the calling thread only.
 * CM_COMPUTE_FP32: cm_gemm and cm_gemm1.  CM_COMPUTE_BF16: always strict, and the bits are
 * those of one chain of fp32 FMAs (gemm.h) over the rounded operands at every level, save
 * where AVX512_BF16 takes a sum below 2^-126 for 0. */
void cm_product(cm_compute how, int64_t M, int64_t N, int64_t K, cm_real alpha, cm_mat A,
                cm_mat B, cm_real beta, cm_real *C, int64_t ldc);
void cm_product1(cm_compute how, int64_t M, int64_t N, int64_t K, cm_real alpha, cm_mat A,
                 cm_mat B, cm_real beta, cm_real *C, int64_t ldc);

/* ---- small products over operands in words -------------------------------------------- */

/* Attention and the scan multiply small matrices, most of them more than once, and lay their
 * operands out themselves, as words: what one step of K takes of a row of A or a column of
 * B.  In fp32 a word is an element.  In BF16 it is one rounded element, or where the CPU
 * multiplies pairs two of them, the earlier in the upper half, the one past an odd K zero.
 * All of this runs on the calling thread, and sums are those of cm_product1 at every level. */
int cm_word_len(cm_compute how); /* elements in a word: 1 or 2 */
static inline int64_t cm_word_count(cm_compute how, int64_t n) {
    int pair = cm_word_len(how);
    return (n + pair - 1) / pair;
}

/* Words of x[rows,n], row i times s[i] (s = NULL: 1).
 *   along:  pairs in a row         y[i*ldy + p/pair]       rows of A, where K runs along
 *   down:   pairs in a column      y[i/pair*ldy + p]       B as it lies, or A transposed
 *   across: along, transposed      y[p/pair*ldy + i]       B transposed */
void cm_words_along(cm_compute how, int64_t rows, int64_t n, const cm_real *s,
                    const cm_real *x, int64_t ldx, cm_real *y, int64_t ldy);
void cm_words_down(cm_compute how, int64_t rows, int64_t n, const cm_real *s,
                   const cm_real *x, int64_t ldx, cm_real *y, int64_t ldy);
void cm_words_across(cm_compute how, int64_t rows, int64_t n, const cm_real *x, int64_t ldx,
                     cm_real *y, int64_t ldy);

/* Words of which word p of row i (A), or of column j (B), is at at[i*row + p*step]. */
typedef struct cm_word_mat {
    const cm_real *at;
    int64_t row, step;
} cm_word_mat;

/* x[rows,n] along or down without a copy where its elements are words already; else written
 * to room[rows,n], words of `along` in rows of cm_word_count(n). */
static inline cm_word_mat cm_as_along(cm_compute how, int64_t rows, int64_t n,
                                      const cm_real *x, int64_t ldx, cm_real *room) {
    int64_t ld = cm_word_count(how, n);
    if (how == CM_COMPUTE_FP32) return (cm_word_mat){ x, ldx, 1 };
    cm_words_along(how, rows, n, NULL, x, ldx, room, ld);
    return (cm_word_mat){ room, ld, 1 };
}
static inline cm_word_mat cm_as_down(cm_compute how, int64_t rows, int64_t n,
                                     const cm_real *x, int64_t ldx, cm_real *room) {
    if (how == CM_COMPUTE_FP32) return (cm_word_mat){ x, 1, ldx };
    cm_words_down(how, rows, n, NULL, x, ldx, room, n);
    return (cm_word_mat){ room, 1, n };
}

/* Words of x[rows,n], not transposed, in one pass over it: along in rows of cm_word_count(n),
 * down in rows of n, across in rows of `rows`; any may be NULL.  Where words are elements,
 * along and down are the same and only one is to be asked for. */
void cm_words_of(cm_compute how, int64_t rows, int64_t n, cm_mat x, cm_real *along,
                 cm_real *down, cm_real *across);

/* C[M,N] = A B + beta C, beta 0 or 1; K in elements, columns of B beside each other (row 1).
 * Each element one chain over K: keep K within 512, where cm_product cuts it. */
void cm_word_product(cm_compute how, int64_t M, int64_t N, int64_t K, cm_word_mat A,
                     cm_word_mat B, cm_real beta, cm_real *C, int64_t ldc);

/* ---- weights that stay as a file has them -------------------------------------------- */

/* A matrix W[O,K] of a block type, or E of them, is held in panels of 16 rows (the layout:
 * kern/qmat.h), one of halves row by row.  x[M,K] is rounded to 8 bits, in steps of a/127
 * where a is the largest magnitude among 32 elements, or 256 where W's blocks are as long;
 * the products and sums of a block are then exact integers, and blocks are added in one order.
 * So an element of y depends on its row of x and its row of W alone: the same bits for any M,
 * number of threads and instruction level.  Halves are widened, and x is not rounded: cm_gemm1's
 * numbers. */
bool cm_qmat_holds(cm_dtype t); /* a block type, F16 or BF16 */
/* Bytes of E matrices: the file's, but for the last panel of each, which is always whole. */
size_t cm_qmat_bytes(cm_dtype t, int64_t E, int64_t O, int64_t K);
/* Row r of E*O from the file's bytes, different rows by any threads at a time.  False: a scale
 * or a half that is no finite number. */
bool cm_qmat_put(cm_dtype t, int64_t O, int64_t K, void *w, int64_t r, const void *row);
/* The same for CM_QMAT_PANEL rows from r on, which r is a multiple of within its matrix: several
 * times as fast as one by one. */
enum { CM_QMAT_PANEL = 16 };
bool cm_qmat_put_panel(cm_dtype t, int64_t O, int64_t K, void *w, int64_t r,
                       const void *const row[CM_QMAT_PANEL]);
/* The same row decoded. */
void cm_qmat_row(cm_dtype t, int64_t O, int64_t K, const void *w, int64_t r, cm_real *x);
/* y[M,O] = x W^T, scaled.  w: [O,K]; or [E,O,K], then matrix e meets the rows [first[e],
 * first[e+1]) of x and y, M in all.  scratch: cm_qmat_scratch bytes. */
void cm_qmat_mul(const cm_tensor *w, const int32_t *first, int64_t M, const cm_real *x,
                 cm_real scale, cm_real *y, void *scratch);
size_t cm_qmat_scratch(const cm_tensor *w, int64_t M);

#endif
