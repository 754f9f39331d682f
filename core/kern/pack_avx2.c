/* pack_avx2.c -- packing for the strict gemm: panels of W rows or columns, K outermost.
 *
 * Both operands end up as dst[p*W + i]; `cm_pack_rows` reads a strip whose K is contiguous
 * (a transpose, done in 8x8 blocks in registers), `cm_pack_cols` strips that lie W wide
 * beside each other in memory (copies).  Lanes past `rows` are unspecified.  Stores may
 * run up to 7 elements past the panel: buffers carry CM_PACK_SLACK.  Used by every vector
 * level. */
#include "kern/gemm.h"

#include <string.h>

#if defined(__x86_64__) && !defined(CM_F64)
#include "kern/transpose_avx2.h"

void cm_pack_rows(float *dst, int w, const float *src, int64_t ld, int rows, int64_t k) {
    const float *r[32];
    for (int i = 0; i < 32; i++) r[i] = src + (i < rows ? i : rows - 1) * ld;
    int64_t p = 0;
    /* Groups from the right: what one spills past the panel its successor overwrites. */
    for (; p + 8 <= k; p += 8)
        for (int i = (w - 1) / 8 * 8; i >= 0; i -= 8) {
            __m256 b[8];
            transpose8(r + i, p, b);
            for (int j = 0; j < 8; j++) _mm256_storeu_ps(dst + (p + j) * w + i, b[j]);
        }
    for (; p < k; p++)
        for (int i = 0; i < w; i++) dst[p * w + i] = r[i][p];
}

/* Rows of the source run past all panels before the next row: one strip at a time would
 * fetch each of its lines, rows apart and often in one cache set, for every strip. */
void cm_pack_cols(float *dst, int w, const float *src, int64_t ld, int64_t cols,
                  int64_t k) {
    int64_t whole = cols / w * w, rest = cols - whole;
    for (int64_t p = 0; p < k; p++, src += ld) {
        float *d = dst + p * w;
        /* Groups of 8 may read into the next row and spill into the next step's place,
         * which is written later; the last step has neither. */
        if (p + 1 < k)
            for (int64_t j = 0; j < whole; j += w, d += w * k)
                for (int i = 0; i < w; i += 8)
                    _mm256_storeu_ps(d + i, _mm256_loadu_ps(src + j + i));
        else
            for (int64_t j = 0; j < whole; j += w, d += w * k)
                memcpy(d, src + j, (size_t)w * sizeof *d);
        if (rest) memcpy(d, src + whole, (size_t)rest * sizeof *d);
    }
}

#else /* no vector level here: nobody packs */
void cm_pack_rows(cm_real *dst, int w, const cm_real *src, int64_t ld, int rows,
                  int64_t k) {
    for (int64_t p = 0; p < k; p++)
        for (int i = 0; i < rows; i++) dst[p * w + i] = src[i * ld + p];
}

void cm_pack_cols(cm_real *dst, int w, const cm_real *src, int64_t ld, int64_t cols,
                  int64_t k) {
    for (int64_t j = 0; j < cols; j += w, dst += w * k)
        for (int64_t p = 0; p < k; p++)
            memcpy(dst + p * w, src + p * ld + j,
                   (size_t)(cols - j < w ? cols - j : w) * sizeof *dst);
}
#endif
