/* meminfo.c -- a machine with less memory, for LD_PRELOAD: who opens /proc/meminfo gets the file
 * $MEMINFO, from the first time on or after $MEMINFO_AFTER times. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *other(const char *path) {
    static int times;
    const char *mine = getenv("MEMINFO"), *after = getenv("MEMINFO_AFTER");
    if (!mine || strcmp(path, "/proc/meminfo")) return path;
    return after && times++ < atoi(after) ? path : mine;
}

#define OPEN(name)                                                                       \
    int name(const char *path, int flags, ...) {                                         \
        static int (*real)(const char *, int, ...);                                      \
        va_list ap;                                                                      \
        va_start(ap, flags);                                                             \
        int mode = flags & O_CREAT ? va_arg(ap, int) : 0;                                \
        va_end(ap);                                                                      \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                            \
        return real(other(path), flags, mode);                                           \
    }
OPEN(open)
OPEN(open64)
