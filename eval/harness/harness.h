/* harness.h -- scoring text with a model, and the metrics made from the scores. */
#ifndef CM_HARNESS_H
#define CM_HARNESS_H

#include "model/model.h"

/* Scores rows of tokens: negative log-likelihoods in nats.  The softmax is float, its sum
 * and the logarithm double, as in llama-perplexity, so that numbers can be compared. */
typedef struct cm_scorer {
    const cm_model *m;
    int max_T;
    cm_arena arena, meta, keep;
    cm_real *logits;
} cm_scorer;
/* max_T: longest row that will be scored. */
bool cm_scorer_open(cm_scorer *s, const cm_model *m, int max_T, cm_err *err);
void cm_scorer_close(cm_scorer *s);
/* nll[i] = -log p(token[i+1] | token[0..i]) for i in [first, T-1); state starts at zero. */
void cm_score(cm_scorer *s, const int32_t *token, int T, int first, double *nll);

/* ---- perplexity of documents ------------------------------------------------------------ */

/* How long documents are cut: windows of `context` tokens, each continuing `stride` tokens
 * after the one before (stride = context: disjoint).  Every token is scored once, with at
 * least context - stride tokens before it where the document has them. */
typedef struct cm_window {
    int context, stride;
} cm_window;

typedef struct cm_ppl {
    double nll;                          /* nats, all scored tokens */
    double bits_sum, bits_sum2;          /* per-document bits, for standard errors */
    double bytes_sum2, bits_bytes_sum;
    int64_t tokens, bytes, words, docs;
} cm_ppl;
/* Add one document: its ids (without BOS), its source text's bytes and words. */
bool cm_ppl_add(cm_ppl *p, cm_scorer *s, cm_window w, int bos, const int32_t *id,
                int64_t n, int64_t bytes, int64_t words, cm_err *err);
int64_t cm_count_words(const char *text, size_t n); /* separated by white space */
double cm_ppl_bits_per_byte(const cm_ppl *p);
/* Standard error of bits per byte over documents (a ratio of sums; delta method). */
double cm_ppl_bits_per_byte_se(const cm_ppl *p);
double cm_ppl_word(const cm_ppl *p);
double cm_ppl_token(const cm_ppl *p);

/* ---- llama-perplexity's numbers ------------------------------------------------------ */

/* Text cut into chunks of ctx tokens, first token of each overwritten by BOS when the
 * tokenizer adds one, second half of each scored: llama.cpp's tool, to the digit. */
typedef struct cm_llama_ppl {
    int64_t chunks, count;
    double nll, nll2, ppl, se;
} cm_llama_ppl;
typedef void (*cm_chunk_fn)(void *ctx, int64_t chunk, double running_ppl);
/* id: all tokens of the text, BOS first when add_bos.  Needs at least 2 * ctx of them. */
bool cm_llama_perplexity(cm_scorer *s, const int32_t *id, int64_t n, int ctx, int bos,
                         bool add_bos, cm_chunk_fn each, void *each_ctx,
                         cm_llama_ppl *out, cm_err *err);

#endif
