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

/* Take json=1, busy=1 (also sets threads=1) or threads=N; false: another word. */
bool bench_option(const char *word);
/* End the program, CM_EXIT_USAGE, because of a word it does not know; known: those it does. */
void bench_unknown(const char *word, const char *known) CM_NORETURN;
/* The same unless a model of known size was described. */
void bench_need_model(int64_t vocab_size);
/* cm_kern_init with the options' threads; ends the program on failure. */
void bench_start(cm_numerics numerics);
/* End the program with the error unless ok. */
void bench_must(bool ok, const cm_err *err);
/* Seconds: of the clock, or of the processor when busy. */
double bench_now(void);
/* The middle of n numbers, of an even n the mean of the middle two; sorts them. */
double bench_median(double *x, int n);
/* "512,2048" to at most `most` numbers; returns how many. */
int bench_list(const char *s, int *x, int most);
/* A JSON line, with json=1. */
void bench_put(double value, const char *key, ...) CM_PRINTF(2, 3);
void bench_put_text(const char *value, const char *key);
/* Text for people, without json=1. */
void bench_say(const char *fmt, ...) CM_PRINTF(1, 2);

#endif
