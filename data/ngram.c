/* ngram.c -- the program: a 5-gram's bits per byte on the shards a model trains on. */
#include "data/ngram/kn.h"
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: ngram --shards DIR [--order 5] [--max-tokens N] [--json]\n"
    "       ngram --text TRAIN VAL [--order 5] [--json]\n"
    "\n"
    "Trains an interpolated modified Kneser-Ney model on the train split and prints its\n"
    "bits per byte on the val split: the number that a neural model has to beat.  With\n"
    "--text the tokens are bytes and each line is a document.\n";

typedef struct corpus { /* one split as tokens */
    int32_t *tok;
    int64_t n, bytes;
} corpus;

typedef struct options {
    const char *shards, *text[2];
    int64_t order, max_tokens;
    bool json;
} options;

static bool read_split(const cm_dataset *d, cm_split s, int64_t limit, corpus *c,
                       cm_err *err) {
    c->n = d->n_tokens[s] < limit ? d->n_tokens[s] : limit;
    c->bytes = d->n_bytes[s];
    c->tok = malloc((size_t)c->n * sizeof *c->tok + 1);
    if (!c->tok) return cm_fail(err, CM_EXIT_RESOURCE, "%s: out of memory", d->dir);
    return cm_dataset_read(d, s, 0, c->n, c->tok, NULL, err);
}

/* Bytes as tokens, 256 before each line; the newline is part of its line. */
static bool read_text(const char *path, corpus *c, cm_err *err) {
    char *s;
    size_t n;
    if (!cm_need_input(path, err) || !cm_read_file(path, (size_t)1 << 31, &s, &n, err))
        return false;
    c->tok = malloc((2 * n + 1) * sizeof *c->tok);
    if (!c->tok) {
        free(s);
        return cm_fail(err, CM_EXIT_RESOURCE, "%s: out of memory", path);
    }
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || s[i - 1] == '\n') c->tok[c->n++] = 256;
        c->tok[c->n++] = (unsigned char)s[i];
    }
    c->bytes = (int64_t)n;
    free(s);
    return true;
}

static bool measure(const options *o, const corpus *train, const corpus *val, int vocab,
                    int bos, cm_err *err) {
    cm_kn *m = cm_kn_open(train->tok, train->n, vocab, bos, (int)o->order, err);
    if (!m) return false;
    int64_t n;
    double bits = cm_kn_bits(m, val->tok, val->n, &n);
    if (n == 0 || val->bytes == 0) {
        cm_kn_close(m);
        return cm_fail(err, CM_EXIT_DATA, "the val split is empty");
    }
    double bpb = bits / (double)val->bytes, bpt = bits / (double)n;
    if (o->json) {
        printf("{\"val/bpb\":%.6f,\"val/bits_per_token\":%.6f,\"order\":%d,"
               "\"train_tokens\":%lld,\"val_tokens\":%lld}\n", bpb, bpt, (int)o->order,
               (long long)train->n, (long long)n);
    } else {
        for (int k = 1; k <= o->order; k++) {
            double d[3];
            int64_t grams = cm_kn_stats(m, k, d);
            printf("%d-grams %10lld   discounts %.3f %.3f %.3f\n", k, (long long)grams,
                   d[0], d[1], d[2]);
        }
        printf("val/bpb %.4f   bits per token %.4f   (%lld train, %lld val tokens)\n", bpb,
               bpt, (long long)train->n, (long long)n);
    }
    cm_kn_close(m);
    return true;
}

static bool from_shards(const options *o, cm_err *err) {
    cm_dataset d;
    corpus c[2] = {{0}};
    if (!cm_dataset_open(&d, o->shards, err)) return false;
    bool ok = read_split(&d, CM_SPLIT_TRAIN, o->max_tokens, &c[0], err) &&
              read_split(&d, CM_SPLIT_VAL, INT64_MAX, &c[1], err);
    if (ok && d.bos < 0)
        ok = cm_fail(err, CM_EXIT_DATA, "%s: its documents do not begin with BOS", d.dir);
    ok = ok && measure(o, &c[0], &c[1], d.vocab, d.bos, err);
    free(c[0].tok);
    free(c[1].tok);
    cm_dataset_close(&d);
    return ok;
}

static bool from_text(const options *o, cm_err *err) {
    corpus c[2] = {{0}};
    bool ok = read_text(o->text[0], &c[0], err) && read_text(o->text[1], &c[1], err) &&
              measure(o, &c[0], &c[1], 256, 256, err);
    free(c[0].tok);
    free(c[1].tok);
    return ok;
}

static bool read_options(int argc, char **argv, options *o, cm_err *err) {
    for (int i = 1; i < argc; i++) {
        const char *k = argv[i];
        int left = argc - i - 1;
        bool ok = true;
        if (strcmp(k, "--json") == 0) o->json = true;
        else if (strcmp(k, "--shards") == 0 && left) o->shards = argv[++i];
        else if (strcmp(k, "--text") == 0 && left > 1)
            o->text[0] = argv[i + 1], o->text[1] = argv[i + 2], i += 2;
        else if (strcmp(k, "--order") == 0 && left)
            ok = cm_parse_i64(argv[++i], &o->order) && o->order >= 1 &&
                 o->order <= CM_KN_MAX_ORDER;
        else if (strcmp(k, "--max-tokens") == 0 && left)
            ok = cm_parse_count(argv[++i], &o->max_tokens) && o->max_tokens > 1;
        else return cm_fail(err, CM_EXIT_USAGE, "option '%s' is unknown, or lacks a value "
                            "(see --help)", k);
        if (!ok) return cm_fail(err, CM_EXIT_USAGE, "%s %s: not a fitting number", k, argv[i]);
    }
    if (!o->shards == !o->text[0])
        return cm_fail(err, CM_EXIT_USAGE, "one of --shards and --text is wanted");
    return true;
}

int main(int argc, char **argv) {
    cm_err err = {0};
    options o = {NULL, {NULL, NULL}, 5, INT64_MAX, false};
    cm_log_setup("ngram", CM_LOG_INFO);
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(usage, stdout);
        return CM_EXIT_OK;
    }
    bool ok = read_options(argc, argv, &o, &err) &&
              (o.shards ? from_shards(&o, &err) : from_text(&o, &err));
    if (ok) return CM_EXIT_OK;
    cm_log(CM_LOG_ERROR, "%s", err.msg);
    return (int)err.code;
}
