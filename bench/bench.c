/* bench.c -- what the benchmark programs share. */
#include "bench/bench.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bench_options bench;

bool bench_option(const char *word) {
    if (!strcmp(word, "json=1")) return bench.json = true;
    if (!strcmp(word, "busy=1")) return bench.threads = 1, bench.busy = true;
    return bench_int(word, "threads", &bench.threads, 0, BENCH_MOST);
}

static const char *value_of(const char *word, const char *key) {
    size_t n = strlen(key);
    return !strncmp(word, key, n) && word[n] == '=' ? word + n + 1 : NULL;
}

bool bench_int(const char *word, const char *key, int *x, int least, int most) {
    const char *s = value_of(word, key);
    int64_t v;
    if (!s) return false;
    if (!cm_parse_i64(s, &v) || v < least || v > most)
        bench_refuse("'%s': wanted %s=N, N from %d to %d", word, key, least, most);
    *x = (int)v;
    return true;
}

bool bench_real(const char *word, const char *key, double *x) {
    const char *s = value_of(word, key);
    if (s && (!cm_parse_f64(s, x) || *x < 0))
        bench_refuse("'%s': wanted %s=X, a number of 0 or more", word, key);
    return s;
}

bool bench_list(const char *word, const char *key, int *x, int *n, int most) {
    const char *s = value_of(word, key);
    if (!s) return false;
    for (*n = 0; *n < most; s++) {
        char *end;
        long v = isdigit((unsigned char)*s) ? strtol(s, &end, 10) : 0;
        if (v < 1 || v > INT_MAX) break;
        x[(*n)++] = (int)v;
        s = end;
        if (!*s) return true;
        if (*s != ',') break;
    }
    bench_refuse("'%s': wanted %s=N,N,...: up to %d integers above 0", word, key, most);
}

void bench_refuse(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "error: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(CM_EXIT_USAGE);
}

void bench_unknown(const char *word, const char *known) {
    bench_refuse("'%s': wanted %s, json=1, busy=1 or threads=N", word, known);
}

void bench_need_model(int64_t vocab_size) {
    if (!vocab_size)
        bench_refuse("which model?  Give a configuration (configs/bench8m.yaml), or "
                     "model.vocab_size=N and what else it needs");
}

void bench_need_groups(int heads, int groups) {
    if (heads % groups) bench_refuse("H=%d is no multiple of G=%d", heads, groups);
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
