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
    X(CM_Q8_0_T, "Q8_0", 32, 34, 8, NULL)

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

/* Element conversions (round to nearest even). */
float cm_f16_to_f32(uint16_t h);
uint16_t cm_f32_to_f16(float f);
static inline float cm_bf16_to_f32(uint16_t h) {
    union { uint32_t u; float f; } x = { (uint32_t)h << 16 };
    return x.f;
}
uint16_t cm_f32_to_bf16(float f);
/* n elements of any float or block dtype to float; n is a multiple of the block. */
void cm_to_f32(cm_dtype dt, const void *src, float *dst, int64_t n);
/* n floats to F32, F64, F16 or BF16 (encoders of block types live in quant/). */
void cm_from_f32(cm_dtype dt, const float *src, void *dst, int64_t n);

#endif
