/* t.c -- the runner behind t.h. */
#include "tests/t.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TESTS = 512 };
static struct { const char *name; t_fn fn; } tests[MAX_TESTS];
static int n_tests, failures_here, n_pass, n_fail, n_skip;
static bool skipped_here;
static char tmpdir[64];

void t_register(const char *name, t_fn fn) {
    CM_ASSERT(n_tests < MAX_TESTS, "more than %d tests in one binary", MAX_TESTS);
    tests[n_tests].name = name;
    tests[n_tests++].fn = fn;
}

void t_fail(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    if (failures_here++ < 10) {
        printf("  %s:%d: ", file, line);
        vprintf(fmt, ap);
        printf("\n");
    }
    va_end(ap);
}

void t_skip(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    printf("  skipped: ");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    skipped_here = true;
}

const char *t_tmpdir(void) {
    if (!tmpdir[0]) {
        strcpy(tmpdir, "/tmp/chimera-test-XXXXXX");
        CM_ASSERT(mkdtemp(tmpdir), "cannot make %s", tmpdir);
    }
    return tmpdir;
}

/* With arguments, only tests whose name contains one of them run. */
static bool chosen(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i])) return true;
    return argc < 2;
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < n_tests; i++) {
        if (!chosen(tests[i].name, argc, argv)) continue;
        failures_here = 0;
        skipped_here = false;
        tests[i].fn();
        const char *word = failures_here ? "FAIL" : skipped_here ? "skip" : "ok";
        n_fail += failures_here > 0;
        n_skip += !failures_here && skipped_here;
        n_pass += !failures_here && !skipped_here;
        printf("%-4s %s\n", word, tests[i].name);
    }
    cm_err err;
    if (tmpdir[0] && !cm_remove_tree(tmpdir, &err)) printf("  %s\n", err.msg);
    printf("%d passed, %d failed, %d skipped\n", n_pass, n_fail, n_skip);
    return n_fail || n_pass + n_skip == 0;
}
