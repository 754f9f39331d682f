/* bench.h -- what the benchmark programs share: a clock, options, JSON lines.
 *
 * A program takes words key=value, prints text for people and, with json=1, instead one JSON
 * object a line, {"KEY": number}.  Keys are paths whose last part is the unit:
 * train/bench30m/fp32/tok_per_s.  bench/run.sh runs the programs in rounds, bench/join.c
 * makes build/bench.json of their lines. */
#ifndef CM_BENCH_H
#define CM_BENCH_H

#include "kern/kern.h"

typedef struct bench_options {
    bool json;
    bool busy;   /* processor time of one thread, for a machine that others use */
    int threads; /* 0: all */
} bench_options;
extern bench_options bench;

enum { BENCH_MOST = 1 << 20 }; /* of a count that memory bounds */

/* Take json=1, busy=1 (also sets threads=1) or threads=N; false: another word. */
bool bench_option(const char *word);
/* The value of a word KEY=...; false: another word.  A value that is none ends the program by
 * bench_refuse: an integer from least to most, a number of 0 or more, or "512,2048", n of 1 to
 * `most` integers above 0. */
bool bench_int(const char *word, const char *key, int *x, int least, int most);
bool bench_real(const char *word, const char *key, double *x);
bool bench_list(const char *word, const char *key, int *x, int *n, int most);
/* End the program, CM_EXIT_USAGE, with this sentence. */
void bench_refuse(const char *fmt, ...) CM_PRINTF(1, 2) CM_NORETURN;
/* The same because of a word it does not know; known: those it does. */
void bench_unknown(const char *word, const char *known) CM_NORETURN;
/* The same unless a model of known size was described, or heads are a multiple of groups. */
void bench_need_model(int64_t vocab_size);
void bench_need_groups(int heads, int groups);
/* cm_kern_init with the options' threads; ends the program on failure. */
void bench_start(cm_numerics numerics);
/* End the program with the error unless ok. */
void bench_must(bool ok, const cm_err *err);
/* Seconds: of the clock, or of the processor when busy. */
double bench_now(void);
/* The middle of n numbers, of an even n the mean of the middle two; sorts them. */
double bench_median(double *x, int n);
/* A JSON line, with json=1. */
void bench_put(double value, const char *key, ...) CM_PRINTF(2, 3);
void bench_put_text(const char *value, const char *key);
/* Text for people, without json=1. */
void bench_say(const char *fmt, ...) CM_PRINTF(1, 2);

#endif
