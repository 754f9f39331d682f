/* t.h -- tests register themselves: write TEST(name) { ... CHECK(x); } and link t.c.
 * A test binary prints one line per test and ends with `N passed, N failed, N skipped`;
 * its exit status is 0 only when nothing failed and something ran. */
#ifndef CM_T_H
#define CM_T_H
#include "base/base.h"

typedef void (*t_fn)(void);
void t_register(const char *name, t_fn fn);
void t_fail(const char *file, int line, const char *fmt, ...) CM_PRINTF(3, 4);
/* Mark the running test as skipped, with the reason; it must return afterwards. */
void t_skip(const char *fmt, ...) CM_PRINTF(1, 2);
/* Scratch folder of the running binary, made on first use, removed at the end. */
const char *t_tmpdir(void);

#define TEST(name)                                                                      \
    static void t_##name(void);                                                         \
    __attribute__((constructor)) static void t_reg_##name(void) {                       \
        t_register(#name, t_##name);                                                    \
    }                                                                                   \
    static void t_##name(void)

#define CHECK(c) ((c) ? (void)0 : t_fail(__FILE__, __LINE__, "%s", #c))
/* As CHECK with a printf-style explanation of the values found. */
#define CHECKF(c, ...) ((c) ? (void)0 : t_fail(__FILE__, __LINE__, __VA_ARGS__))

#endif
