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
    const cm_real *hidden; /* of the row read last */
} cm_scorer;
/* max_T: longest row that will be scored. */
bool cm_scorer_open(cm_scorer *s, const cm_model *m, int max_T, cm_err *err);
void cm_scorer_close(cm_scorer *s);
/* nll[i] = -log p(token[i+1] | token[0..i]) for i in [first, T-1); state starts at zero. */
void cm_score(cm_scorer *s, const int32_t *token, int T, int first, double *nll);

/* The same in two steps, for those who need whole distributions (two models at a time):
 * read a row, then ask for the logits after tokens [from, from+n), n <= CM_LOGIT_ROWS.
 * They are the scorer's, [n,V], until the next call. */
enum { CM_LOGIT_ROWS = 128 };
void cm_scorer_read(cm_scorer *s, const int32_t *token, int T);
const cm_real *cm_scorer_logits(cm_scorer *s, int from, int n);

/* Softmax of a row of logits: ln p_k = (x_k - max) - log_sum.  Maximum and exponentials are
 * float, sum and logarithm double: the one definition for all log-probabilities here. */
typedef struct cm_lse {
    float max;
    double log_sum;
} cm_lse;
cm_lse cm_row_lse(const cm_real *x, int64_t V);
static inline double cm_logp(cm_lse l, cm_real x) {
    return (double)((float)x - l.max) - l.log_sum;
}

/* ---- scoring engine: many requests ------------------------------------------------- */

/* Tokens [first,n) of a text given those before them; first >= 1. */
typedef struct cm_request {
    const int32_t *token; /* [n] */
    int n, first;
    double *logp;         /* [n-first], out: ln p(token[i] | token[0..i)) */
    bool *greedy;         /* [n-first], out: is it the likeliest (the lowest id among
                             equals)?  NULL: not wanted */
} cm_request;

/* None of this changes a bit of the results (with strict numerics). */
typedef struct cm_engine_conf {
    int rows;     /* most tokens in one pass of the model; 0 = 1024 */
    int batch;    /* most paths (different texts) in one pass; 0 = no other limit */
    bool alone;   /* score every request by itself: beginnings that requests share are
                     computed for each */
    double state_gb; /* most memory for states in the middle of texts; 0 = 0.5 */
} cm_engine_conf;

typedef struct cm_engine_count {
    int64_t requested; /* tokens to read if every request were scored alone */
    int64_t computed;  /* tokens that went through the model */
    int64_t passes;
} cm_engine_count;

/* Told when a request's results are there, in any order; false: stop, leaving the rest. */
typedef bool (*cm_done_fn)(void *ctx, int64_t request);

/* Score n requests with the numbers that cm_score gives on each alone.  The requests are
 * one prefix tree over the tokens that something scored comes after, token [0,n-1) each
 * (none where nothing is scored); every node of it is computed once, whatever the batch.
 * done may be NULL.  Memory is bounded by conf and by the longest request's keys and
 * values, not by n.  count (may be NULL) gets the work added.  False: out of memory. */
bool cm_engine_score(const cm_model *m, const cm_engine_conf *conf, const cm_request *r,
                     int64_t n, cm_done_fn done, void *ctx, cm_engine_count *count,
                     cm_err *err);

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
