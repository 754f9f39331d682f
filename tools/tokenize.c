/* tokenize.c -- raw text to token shards. */
#include "io/io.h"
#include "text/corpus.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool progress(void *ctx, const cm_corpus_progress *p) {
    (void)ctx;
    if (isatty(2))
        fprintf(stderr, "\r%s %.1f%% ", p->stage,
                p->total ? 100.0 * (double)p->done / (double)p->total : 0.0);
    return true;
}

int main(int argc, char **argv) {
    cm_log_setup("tokenize", CM_LOG_INFO);
    cm_conf c;
    cm_err err;
    cm_conf_open(&c, "top tokenize");
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--config") && i + 1 < argc) cm_conf_file(&c, argv[++i]);
        else cm_conf_set(&c, argv[i]);
    }
    if (!cm_conf_check(&c, &err)) {
        fputs(cm_conf_errors(&c), stderr);
        return CM_EXIT_USAGE;
    }
    int threads = c.top.threads ? (int)c.top.threads : omp_get_num_procs();
    cm_corpus_conf k = { &c.tokenize, (uint64_t)c.top.seed, threads, progress, NULL };
    double t0 = cm_now();
    bool ok = cm_corpus_build(&k, &err);
    cm_dataset d;
    ok = ok && cm_dataset_open(&d, c.tokenize.out, &err);
    if (!ok) {
        cm_log(CM_LOG_ERROR, "%s", err.msg);
        return (int)err.code;
    }
    for (int sp = 0; sp < 2; sp++)
        printf("%-5s %lld documents, %lld tokens, %lld bytes, %.3f bytes/token\n",
               cm_split_name((cm_split)sp), (long long)d.n_docs[sp],
               (long long)d.n_tokens[sp], (long long)d.n_bytes[sp],
               d.n_tokens[sp] ? (double)d.n_bytes[sp] / (double)d.n_tokens[sp] : 0.0);
    cm_log(CM_LOG_INFO, "%.1f s", cm_now() - t0);
    cm_dataset_close(&d);
    cm_conf_close(&c);
    return 0;
}
