/* ppl.c -- perplexity: documents in windows, and llama-perplexity's way. */
#include "harness/harness.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t cm_count_words(const char *text, size_t n) {
    int64_t words = 0;
    bool inside = false;
    for (size_t i = 0; i < n; i++) {
        bool space = isspace((unsigned char)text[i]);
        words += !space && !inside;
        inside = !space;
    }
    return words;
}

/* Score row[0..n] (row[0] is BOS or the token before the text) in windows; the sum over all
 * tokens, or those with a mask: that of row[r] is mask[r-ahead]. */
static double score_windows(cm_scorer *s, cm_window w, const int32_t *row,
                            const uint8_t *mask, int ahead, int64_t n, double *nll) {
    double sum = 0;
    int64_t done = 0; /* tokens row[1..done] are scored */
    while (done < n && !cm_signal_stop()) {
        int64_t end = done == 0 ? w.context : done + w.stride;
        if (end > n) end = n;
        int64_t begin = end > w.context ? end - w.context : 0;
        int first = (int)(done - begin), T = (int)(end - begin) + 1;
        cm_score(s, row + begin, T, first, nll);
        for (int i = first; i < T - 1; i++)
            if (!mask || mask[begin + i + 1 - ahead]) sum += nll[i];
        done = end;
    }
    return sum;
}

bool cm_ppl_add(cm_ppl *p, cm_scorer *s, cm_window w, int bos, const int32_t *id,
                const uint8_t *mask, int64_t n, int64_t bytes, int64_t words, cm_err *err) {
    if (n < 1) return true;
    int64_t skip = bos < 0; /* without BOS the first token has no context to be scored in */
    int64_t scored = mask ? 0 : n - skip;
    for (int64_t i = skip; mask && i < n; i++) scored += mask[i] != 0;
    int32_t *row = malloc((size_t)(n + 1) * sizeof *row);
    double *nll = malloc((size_t)s->max_T * sizeof *nll);
    if (!row || !nll) {
        free(row);
        free(nll);
        return cm_fail(err, CM_EXIT_RESOURCE, "out of memory for a document of %lld tokens",
                       (long long)n);
    }
    if (!skip) row[0] = bos;
    memcpy(row + !skip, id, (size_t)n * sizeof *row);
    double sum = score_windows(s, w, row, mask, !skip, n - skip, nll), bits = sum / log(2.0);
    free(row);
    free(nll);
    if (!isfinite(sum)) return cm_fail(err, CM_EXIT_DATA, CM_EVAL_BROKEN);
    p->nll += sum;
    p->tokens += scored;
    p->bytes += bytes;
    p->words += words;
    p->docs++;
    p->bits_sum += bits;
    p->bits_sum2 += bits * bits;
    p->bytes_sum2 += (double)bytes * (double)bytes;
    p->bits_bytes_sum += bits * (double)bytes;
    return true;
}

double cm_ppl_bits_per_byte(const cm_ppl *p) {
    return p->bytes ? p->bits_sum / (double)p->bytes : NAN;
}

/* Var of a ratio of sums r = X/Y over n documents: sum (x - r y)^2 n / ((n-1) Y^2). */
double cm_ppl_bits_per_byte_se(const cm_ppl *p) {
    if (p->docs < 2) return NAN;
    double r = cm_ppl_bits_per_byte(p), n = (double)p->docs, Y = (double)p->bytes;
    double ss = p->bits_sum2 - 2 * r * p->bits_bytes_sum + r * r * p->bytes_sum2;
    return sqrt((ss > 0 ? ss : 0) * n / (n - 1)) / Y;
}

double cm_ppl_word(const cm_ppl *p) {
    return p->words ? exp(p->nll / (double)p->words) : NAN;
}

double cm_ppl_token(const cm_ppl *p) {
    return p->tokens ? exp(p->nll / (double)p->tokens) : NAN;
}

bool cm_llama_perplexity(cm_scorer *s, const int32_t *id, int64_t n, int ctx, int bos,
                         bool add_bos, cm_chunk_fn each, void *each_ctx,
                         cm_llama_ppl *out, cm_err *err) {
    if (n < 2 * (int64_t)ctx)
        return cm_fail(err, CM_EXIT_USAGE,
                       "the text has %lld tokens; chunks of %d need at least %lld",
                       (long long)n, ctx, 2LL * ctx);
    int32_t *row = malloc((size_t)ctx * sizeof *row);
    double *nll = malloc((size_t)ctx * sizeof *nll);
    bool ok = row && nll;
    if (!ok) cm_fail(err, CM_EXIT_RESOURCE, "out of memory for a chunk of %d tokens", ctx);
    *out = (cm_llama_ppl){ .chunks = n / ctx };
    int first = ctx / 2;
    for (int64_t k = 0; ok && k < out->chunks && !cm_signal_stop(); k++) {
        memcpy(row, id + k * ctx, (size_t)ctx * sizeof *row);
        if (add_bos) row[0] = bos;
        cm_score(s, row, ctx, first, nll);
        for (int i = first; i < ctx - 1; i++) {
            out->nll += nll[i];
            out->nll2 += nll[i] * nll[i];
        }
        out->count += ctx - 1 - first;
        ok = isfinite(out->nll) || cm_fail(err, CM_EXIT_DATA, "chunk %lld: " CM_EVAL_BROKEN,
                                           (long long)k + 1);
        if (ok && each) each(each_ctx, k, exp(out->nll / (double)out->count));
    }
    free(row);
    free(nll);
    double mean = out->nll / (double)out->count;
    double var = out->nll2 / (double)out->count - mean * mean;
    out->ppl = exp(mean);
    out->se = var > 0 ? sqrt(var / (double)(out->count - 1)) * out->ppl : 0;
    return ok;
}
