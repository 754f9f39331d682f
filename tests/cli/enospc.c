/* enospc.c -- a full disk on demand, for LD_PRELOAD: write(2) to a plain file fails with
 * ENOSPC once the process has written NOSPC_BYTES to plain files, and that is what is free. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static long long left = -1;

static int full(int fd, size_t n) {
    struct stat st;
    if (left < 0) {
        const char *s = getenv("NOSPC_BYTES");
        left = s ? atoll(s) : 1LL << 60;
    }
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return 0;
    if ((long long)n > left) {
        left = 0;
        return 1;
    }
    left -= (long long)n;
    return 0;
}

ssize_t write(int fd, const void *p, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "write");
    if (!full(fd, n)) return real(fd, p, n);
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pwrite");
    if (!full(fd, n)) return real(fd, p, n, at);
    errno = ENOSPC;
    return -1;
}

int statvfs(const char *path, struct statvfs *v) {
    static int (*real)(const char *, struct statvfs *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "statvfs");
    const char *s = getenv("NOSPC_BYTES");
    int bad = real(path, v);
    if (s && !bad) v->f_frsize = 1, v->f_bavail = (fsblkcnt_t)atoll(s);
    return bad;
}
