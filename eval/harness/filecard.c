/* filecard.c -- the quality card that lies beside a quantized file: FILE.card.md and .json. */
#include "harness/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool cm_file_card_score(cm_file_card *c, const cm_loaded *ref, const cm_loaded *q, cm_err *err) {
    int T = c->context;
    int32_t *id;
    int64_t n_id, n = 0;
    if (!cm_text_tokens(ref->spm, c->text, CM_TEXT_FIELD, &id, &n_id, err)) {
        free(id);
        return false;
    }
    int64_t chunks = n_id / T;
    if (c->max_chunks && chunks > c->max_chunks) chunks = c->max_chunks;
    cm_kl_pos *all = calloc((size_t)(chunks * T) + 1, sizeof *all);
    cm_kl_pos *pos = calloc((size_t)T, sizeof *pos);
    int64_t *row = calloc((size_t)(chunks * T) + 1, sizeof *row);
    cm_scorer a = {0}, b = {0};
    CM_ASSERT(all && pos && row, "out of memory: the card's positions");
    bool ok = chunks > 0 || cm_fail(err, CM_EXIT_USAGE, "%s: %lld tokens are less than one row "
                                    "of %d", c->text, (long long)n_id, T);
    ok = ok && cm_scorer_open(&a, &ref->model, T, err) && cm_scorer_open(&b, &q->model, T, err);
    for (int64_t k = 0; ok && k < chunks; k++) {
        int32_t *token = id + k * T;
        if (cm_spm_bos(ref->spm) >= 0) token[0] = cm_spm_bos(ref->spm);
        cm_kl_score(&a, &b, token, T, T / 2, pos);
        for (int i = T / 2; i < T - 1; i++) all[n] = pos[i], row[n++] = k;
    }
    if (ok) cm_kl_card_of(all, row, n, &c->card);
    cm_scorer_close(&a);
    cm_scorer_close(&b);
    free(all);
    free(pos);
    free(row);
    free(id);
    return ok;
}

static double bits(const cm_file_card *c) {
    return 8 * (double)c->tensor_bytes / (double)c->weights;
}

static void put_value(cm_buf *b, const char *key, cm_kl_value v) {
    cm_json_open(b, key, '{');
    cm_json_f64(b, "value", v.value);
    cm_json_f64(b, "stderr", v.se_clustered);
    cm_json_f64(b, "stderr_iid", v.se);
    cm_json_close(b, '{');
}

void cm_file_card_json(const cm_file_card *c, const char *key, cm_buf *b) {
    cm_json_open(b, key, '{');
    cm_json_str(b, "type", c->type);
    cm_json_u64(b, "file_bytes", c->file_bytes);
    cm_json_u64(b, "tensor_bytes", c->tensor_bytes);
    cm_json_i64(b, "weights", c->weights);
    cm_json_f64(b, "bits_per_weight", bits(c));
    cm_json_str(b, "importances", c->importances);
    cm_json_str(b, "text", c->text);
    cm_json_str(b, "computed_with", c->blocks ? "blocks" : "float");
    cm_json_i64(b, "context", c->context);
    cm_json_i64(b, "positions", c->card.n);
    put_value(b, "ppl_reference", c->card.ppl_ref);
    put_value(b, "ppl", c->card.ppl);
    put_value(b, "ppl_ratio", c->card.ratio);
    put_value(b, "kl", c->card.kl);
    cm_json_f64(b, "kl_median", c->card.kl_q[5]);
    cm_json_f64(b, "kl_99", c->card.kl_q[8]);
    cm_json_f64(b, "kl_max", c->card.kl_q[10]);
    put_value(b, "same_top1", c->card.same);
    put_value(b, "delta_p_rms", c->card.dp_rms);
    cm_json_close(b, '{');
}

static void as_markdown(const cm_file_card *c, const char *name, cm_buf *b) {
    char size[32];
    const cm_kl_card *k = &c->card;
    cm_buf_addf(b, "# %s\n\n| | |\n|---|---|\n", name);
    cm_buf_addf(b, "| type | %s |\n", c->type);
    cm_buf_addf(b, "| importances | %s |\n", *c->importances ? c->importances : "none");
    cm_buf_addf(b, "| size of the file | %s |\n",
                cm_human_bytes((double)c->file_bytes, size, sizeof size));
    cm_buf_addf(b, "| bits per weight | %.3f of %lld weights |\n", bits(c), (long long)c->weights);
    cm_buf_addf(b, "| perplexity | %.4f, %.4f unquantized |\n", k->ppl.value, k->ppl_ref.value);
    cm_buf_addf(b, "| perplexity ratio | %.5f +/- %.5f |\n", k->ratio.value,
                k->ratio.se_clustered);
    cm_buf_addf(b, "| KL divergence, mean | %.6f +/- %.6f nats |\n", k->kl.value,
                k->kl.se_clustered);
    cm_buf_addf(b, "| KL divergence, median, 99%%, largest | %.6f, %.6f, %.6f nats |\n",
                k->kl_q[5], k->kl_q[8], k->kl_q[10]);
    cm_buf_addf(b, "| same most likely token | %.3f +/- %.3f %% |\n", 100 * k->same.value,
                100 * k->same.se_clustered);
    cm_buf_addf(b, "| change of p(true token), RMS | %.3f %% |\n", 100 * k->dp_rms.value);
    cm_buf_addf(b, "\nAgainst the model it was made from, on %s: %lld positions, the second "
                "halves of %lld rows of %d tokens. Errors are standard errors, rows as "
                "clusters. %s\n", c->text, (long long)k->n, (long long)k->rows, c->context,
                c->blocks ? "The file's blocks were used as they are, activations rounded to 8 "
                            "bits." : "Weights were expanded to floats.");
}

/* Of a path without the slashes that may end a folder's. */
static int length(const char *path) {
    int n = (int)strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    return n;
}

char *cm_card_path(const char *gguf, const char *kind) {
    return cm_strf("%.*s.card.%s", length(gguf), gguf, kind);
}

bool cm_file_card_write(const cm_file_card *c, const char *gguf, cm_err *err) {
    char *path = cm_strf("%.*s", length(gguf), gguf);
    const char *slash = strrchr(path, '/');
    char *json = cm_card_path(gguf, "json"), *md = cm_card_path(gguf, "md");
    cm_buf a = {0}, b = {0};
    cm_err ignored;
    cm_file_card_json(c, NULL, &a);
    cm_buf_addf(&a, "\n");
    as_markdown(c, slash ? slash + 1 : path, &b);
    cm_outs_hold();
    bool ok = cm_write_file(json, a.s, a.n, err) && cm_write_file(md, b.s, b.n, err);
    ok = cm_outs_release(ok, ok ? err : &ignored) && ok;
    cm_buf_free(&a);
    cm_buf_free(&b);
    free(json);
    free(md);
    free(path);
    return ok;
}

/* Whether it holds what only a card has; not there: false. */
static bool is_card(const char *path, const char *start, const char *within) {
    char *text = NULL;
    size_t n;
    bool yes = cm_exists(path) && cm_read_file(path, 1 << 16, &text, &n, NULL) &&
               !strncmp(text, start, strlen(start)) && strstr(text, within);
    free(text);
    return yes;
}

bool cm_file_card_remove(const char *gguf, cm_err *err) {
    char *json = cm_card_path(gguf, "json"), *md = cm_card_path(gguf, "md");
    bool ok = true;
    if (is_card(json, "{\"type\":", "\"bits_per_weight\":"))
        ok = !unlink(json) || cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot remove the card of what "
                                            "was replaced", json);
    if (ok && is_card(md, "# ", "\n\n| | |\n|---|---|\n| type | "))
        ok = !unlink(md) || cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot remove the card of what "
                                          "was replaced", md);
    free(json);
    free(md);
    return ok;
}
