/* bench.c -- what the benchmark programs share. */
#include "bench/bench.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bench_options bench;

bool bench_option(const char *word) {
    if (!strcmp(word, "json=1")) return bench.json = true;
    if (!strcmp(word, "busy=1")) return bench.threads = 1, bench.busy = true;
    return sscanf(word, "threads=%d", &bench.threads) == 1;
}

void bench_unknown(const char *word, const char *known) {
    fprintf(stderr, "error: '%s': wanted %s, json=1, busy=1 or threads=N\n", word, known);
    exit(CM_EXIT_USAGE);
}

void bench_need_model(int64_t vocab_size) {
    if (vocab_size) return;
    fprintf(stderr, "error: which model?  Give a configuration (configs/bench8m.yaml), or "
                    "model.vocab_size=N and what else it needs\n");
    exit(CM_EXIT_USAGE);
}

void bench_must(bool ok, const cm_err *err) {
    if (ok) return;
    fprintf(stderr, "error: %s\n", err->msg);
    exit(err->code);
}

void bench_start(cm_numerics numerics) {
    cm_err err;
    bench_must(cm_kern_init(numerics, bench.threads, &err), &err);
}

double bench_now(void) {
    if (!bench.busy) return cm_now();
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

int bench_list(const char *s, int *x, int most) {
    int n = 0;
    while (*s && n < most) {
        char *end;
        long v = strtol(s, &end, 10);
        if (end == s) break;
        x[n++] = (int)v;
        s = end + (*end == ',');
    }
    return n;
}

void bench_put(double value, const char *key, ...) {
    if (!bench.json || !isfinite(value)) return;
    va_list ap;
    va_start(ap, key);
    printf("{\"");
    vprintf(key, ap);
    printf("\": %.9g}\n", value);
    va_end(ap);
    fflush(stdout);
}

void bench_put_text(const char *value, const char *key) {
    if (!bench.json) return;
    printf("{\"%s\": \"", key);
    for (; *value; value++)
        if (*value != '"' && *value != '\\' && (unsigned char)*value >= ' ') putchar(*value);
    printf("\"}\n");
    fflush(stdout);
}

void bench_say(const char *fmt, ...) {
    if (bench.json) return;
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
}
