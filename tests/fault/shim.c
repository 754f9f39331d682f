/* shim.c -- preloaded under a tool: counts, logs, breaks and kills at its file calls.
 *
 *   CM_SHIM_UNDER=TEXT  only calls on paths that contain TEXT count
 *   CM_SHIM_LOG=FILE    append one line a call: "write PATH", "rename OLD NEW", ...
 *   CM_SHIM_KILL=N      SIGKILL just before the N-th call (from 1); odd N after a write:
 *                       half of its bytes are written first
 *   CM_SHIM_FLIP=N      one bit in the middle of the N-th write's bytes is turned, as bad
 *                       memory would
 *   CM_SHIM_ENOSPC=N    the N-th write and all later ones fail: no space left */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls, writes, seen;

static long setting(const char *name) {
    const char *s = getenv(name);
    return s ? atol(s) : 0;
}

static int counts(const char *path) {
    const char *under = getenv("CM_SHIM_UNDER");
    return under && path && strstr(path, under) != NULL;
}

static void path_of(int fd, char *out, size_t cap) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, cap - 1);
    out[n > 0 ? n : 0] = 0;
}

static void note(const char *what, const char *a, const char *b) {
    const char *log = getenv("CM_SHIM_LOG");
    if (!log) return;
    char line[9000];
    int n = snprintf(line, sizeof line, "%s %s%s%s\n", what, a, b ? " " : "", b ? b : "");
    int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0666);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, (size_t)n);
    syscall(SYS_close, fd);
}

/* Is this the call to die at? */
static int last_call(void) { return ++calls == setting("CM_SHIM_KILL"); }

/* The bit is low in a float's mantissa: a small wrong number, not a NaN. */
static ssize_t write_flipped(int fd, const void *p, size_t n) {
    unsigned char *copy = malloc(n);
    if (!copy) abort();
    memcpy(copy, p, n);
    copy[n / 2 & ~(size_t)3] ^= 16;
    ssize_t done = syscall(SYS_write, fd, copy, n);
    free(copy);
    return done;
}

ssize_t write(int fd, const void *p, size_t n) {
    char path[4096];
    path_of(fd, path, sizeof path);
    if (counts(path)) {
        long full = setting("CM_SHIM_ENOSPC");
        if (full && ++writes >= full) {
            errno = ENOSPC;
            return -1;
        }
        note("write", path, NULL);
        if (++seen == setting("CM_SHIM_FLIP")) return write_flipped(fd, p, n);
        if (last_call()) {
            if (calls % 2) syscall(SYS_write, fd, p, n / 2);
            raise(SIGKILL);
        }
    }
    return syscall(SYS_write, fd, p, n);
}

int fsync(int fd) {
    char path[4096];
    path_of(fd, path, sizeof path);
    if (counts(path)) {
        note("fsync", path, NULL);
        if (last_call()) raise(SIGKILL);
    }
    return (int)syscall(SYS_fsync, fd);
}

int rename(const char *a, const char *b) {
    if (counts(a)) {
        note("rename", a, b);
        if (last_call()) raise(SIGKILL);
    }
    return (int)syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 0);
}

int symlink(const char *to, const char *path) {
    if (counts(path)) {
        note("symlink", path, to);
        if (last_call()) raise(SIGKILL);
    }
    return (int)syscall(SYS_symlinkat, to, AT_FDCWD, path);
}
