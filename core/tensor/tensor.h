/* tensor.h -- dtype, shape, data; no mathematics.
 *
 * Shape legend of the whole project, used as variable names too:
 *   B batch rows   T tokens in a row   R = B*T rows of a token-major matrix
 *   D model width  V vocabulary        L layers
 *   H heads        G KV heads, or SSM groups     P head width    N SSM state
 *   DI = H*P inner SSM width           K conv taps, or experts per token (top-k)
 *   E experts      F feed-forward width          Q SSD chunk
 * Row-major, outermost dimension first, last dimension dense.  Never ggml's order. */
#ifndef CM_TENSOR_H
#define CM_TENSOR_H

#include "base/base.h"

/* Arithmetic type of ops and reference kernels: float in the product, double in the
 * gradient-check build (-DCM_F64). */
#ifdef CM_F64
typedef double cm_real;
#define CM_REAL_DTYPE CM_F64_T
#else
typedef float cm_real;
#define CM_REAL_DTYPE CM_F32_T
#endif

/* dtype list: enum, name, elements per block, bytes per block, GGUF type id (-1 none),
 * safetensors name (NULL none).  Readers: the enum and the traits table. */
#define CM_DTYPES(X)                                                                    \
    X(CM_F32_T, "F32", 1, 4, 0, "F32")                                                  \
    X(CM_F64_T, "F64", 1, 8, 28, "F64")                                                 \
    X(CM_F16_T, "F16", 1, 2, 1, "F16")                                                  \
    X(CM_BF16_T, "BF16", 1, 2, 30, "BF16")                                              \
    X(CM_I32_T, "I32", 1, 4, 26, "I32")                                                 \
    X(CM_I64_T, "I64", 1, 8, 27, "I64")                                                 \
    X(CM_U8_T, "U8", 1, 1, -1, "U8")                                                    \
    X(CM_Q8_0_T, "Q8_0", 32, 34, 8, NULL)                                               \
    X(CM_Q4_0_T, "Q4_0", 32, 18, 2, NULL)                                               \
    X(CM_Q4_1_T, "Q4_1", 32, 20, 3, NULL)                                               \
    X(CM_Q5_0_T, "Q5_0", 32, 22, 6, NULL)                                               \
    X(CM_Q5_1_T, "Q5_1", 32, 24, 7, NULL)                                               \
    X(CM_Q2_K_T, "Q2_K", 256, 84, 10, NULL)                                             \
    X(CM_Q3_K_T, "Q3_K", 256, 110, 11, NULL)                                            \
    X(CM_Q4_K_T, "Q4_K", 256, 144, 12, NULL)                                            \
    X(CM_Q5_K_T, "Q5_K", 256, 176, 13, NULL)                                            \
    X(CM_Q6_K_T, "Q6_K", 256, 210, 14, NULL)                                            \
    X(CM_IQ4_NL_T, "IQ4_NL", 32, 18, 20, NULL)                                          \
    X(CM_IQ4_XS_T, "IQ4_XS", 256, 136, 23, NULL)

typedef enum {
#define X(id, name, el, by, gg, st) id,
    CM_DTYPES(X)
#undef X
    CM_N_DTYPES
} cm_dtype;

typedef struct cm_dtype_info {
    const char *name;
    int block;  /* elements in a block */
    int bytes;  /* bytes of a block */
    int gguf;   /* GGUF type id, -1 if none */
    const char *safetensors; /* dtype name there, NULL if none */
} cm_dtype_info;
extern const cm_dtype_info cm_dtypes[CM_N_DTYPES];

#define CM_MAX_DIMS 4

typedef struct cm_tensor {
    cm_dtype dtype;
    int nd;
    int64_t dim[CM_MAX_DIMS]; /* outermost first */
    void *data;
} cm_tensor;

int64_t cm_tensor_count(const cm_tensor *t);
/* Bytes of the data; the last dimension must be a multiple of the dtype's block. */
size_t cm_tensor_bytes(const cm_tensor *t);
bool cm_tensor_same_shape(const cm_tensor *a, const cm_tensor *b);
/* "[2,512,256]" into buf; returns buf. */
const char *cm_tensor_shape_str(const cm_tensor *t, char *buf, size_t cap);
static inline cm_real *cm_rdata(const cm_tensor *t) { return (cm_real *)t->data; }

/* The bits of a float, and the float of bits. */
static inline uint32_t cm_bits_of(float f) {
    union { float f; uint32_t u; } x = { f };
    return x.u;
}
static inline float cm_of_bits(uint32_t u) {
    union { uint32_t u; float f; } x = { u };
    return x.f;
}
/* Element conversions (round to nearest even). */
float cm_f16_to_f32(uint16_t h);
uint16_t cm_f32_to_f16(float f);
static inline float cm_bf16_to_f32(uint16_t h) { return cm_of_bits((uint32_t)h << 16); }
uint16_t cm_f32_to_bf16(float f);
/* n elements of any float or block dtype to float; n is a multiple of the block. */
void cm_to_f32(cm_dtype dt, const void *src, float *dst, int64_t n);
/* n floats to F32, F64, F16 or BF16 (encoders of block types live in quant/). */
void cm_from_f32(cm_dtype dt, const float *src, void *dst, int64_t n);

/* ---- block types -------------------------------------------------------------------- */

/* ggml's blocks, byte by byte (so that they may lie at any address); a half is two bytes,
 * low byte first.  x[j] is element j of the block, q[j] its integer; a sub-block is a run of
 * 16 or 32 elements with a scale (and a minimum) of its own.  Of four-bit runs of 32 the low
 * nibbles of 16 bytes are q[0..15], the high ones q[16..31]. */
typedef uint8_t cm_half_bytes[2];
static inline float cm_half_at(const uint8_t *b) {
    return cm_f16_to_f32((uint16_t)(b[0] | b[1] << 8));
}
/* 32 elements.  x = d q; q signed. */
typedef struct cm_q8_0 { cm_half_bytes d; int8_t q[32]; } cm_q8_0;
/* x = d (q - 8); IQ4_NL: x = d cm_iq4_levels[q]. */
typedef struct cm_q4_0 { cm_half_bytes d; uint8_t q[16]; } cm_q4_0;
/* x = d q + m. */
typedef struct cm_q4_1 { cm_half_bytes d, m; uint8_t q[16]; } cm_q4_1;
/* x = d (q - 16), and d q + m; bit j of h (little-endian) is the fifth bit of q[j]. */
typedef struct cm_q5_0 { cm_half_bytes d; uint8_t h[4], q[16]; } cm_q5_0;
typedef struct cm_q5_1 { cm_half_bytes d, m; uint8_t h[4], q[16]; } cm_q5_1;
/* 256 elements.  Low bits in pairs of q: element j is at bits 2 (j%128/32) of byte
 * j/128*32 + j%32.  x = d s q - dmin m; of sc[j/16] s is the low nibble, m the high one. */
typedef struct cm_q2_k { uint8_t sc[16], q[64]; cm_half_bytes d, dmin; } cm_q2_k;
/* x = d (s - 32) (q - 4): bits 0 and 1 of q as in Q2_K, bit 2 is bit j/32 of h[j%32]; the 16
 * six-bit s: low nibbles in sc[0..7] (8 to 15 are the high nibbles), upper two bits of s[i] at
 * bit 2 (i/4) of sc[8 + i%4]. */
typedef struct cm_q3_k { uint8_t h[32], q[64], sc[12]; cm_half_bytes d; } cm_q3_k;
/* x = d s q - dmin m, eight sub-blocks of 32 with six-bit s and m (cm_k4_scale); 32 bytes of
 * q hold two of them, low and high nibbles.  Q5_K: bit j/32 of h[j%32] is the fifth bit. */
typedef struct cm_q4_k { cm_half_bytes d, dmin; uint8_t sc[12], q[128]; } cm_q4_k;
typedef struct cm_q5_k { cm_half_bytes d, dmin; uint8_t sc[12], h[32], q[128]; } cm_q5_k;
/* x = d s[j/16] (q - 32).  Low nibbles of q: with r = j%128, byte j/128*64 + r%64 of l, high
 * nibble for r >= 64; upper two bits at 2 (r/32) of h[j/128*32 + r%32]. */
typedef struct cm_q6_k { uint8_t l[128], h[64]; int8_t s[16]; cm_half_bytes d; } cm_q6_k;
/* x = d (s - 32) cm_iq4_levels[q], eight sub-blocks of 32; s: low nibbles in pairs in l, upper
 * two bits in pairs in the 16-bit h. */
typedef struct cm_iq4_xs { cm_half_bytes d, h; uint8_t l[4], q[128]; } cm_iq4_xs;

extern const int8_t cm_iq4_levels[16];
/* Scale and minimum (0 to 63) of sub-block j of Q4_K and Q5_K. */
static inline void cm_k4_scale(const uint8_t *sc, int j, int *s, int *m) {
    *s = j < 4 ? sc[j] & 63 : (sc[j + 4] & 15) | sc[j - 4] >> 6 << 4;
    *m = j < 4 ? sc[j + 4] & 63 : sc[j + 4] >> 4 | sc[j] >> 6 << 4;
}
/* Six-bit scale (0 to 63, 32 is zero) of sub-block j of Q3_K (16) and IQ4_XS (8). */
static inline int cm_q3_k_scale(const uint8_t *sc, int j) {
    return (sc[j % 8] >> 4 * (j / 8) & 15) | (sc[8 + j % 4] >> 2 * (j / 4) & 3) << 4;
}
static inline int cm_iq4_xs_scale(const cm_iq4_xs *b, int j) {
    return (b->l[j / 2] >> 4 * (j % 2) & 15) | (b->h[j / 4] >> 2 * (j % 4) & 3) << 4;
}
/* n elements of a block type to float: ggml's products and sums in ggml's order. */
void cm_blocks_to_f32(cm_dtype dt, const void *src, float *dst, int64_t n);

#endif
