/* file.c -- reading whole files, and output files that appear complete or not at all.
 *
 * An output lives under "NAME.PID.tmp" beside its target until commit; there it is
 * flushed, fsynced, renamed, and the folder fsynced, in that order (temp.c sees to what is
 * left where a program ends early).  Devices and pipes
 * (/dev/stdout, /dev/null) cannot be renamed over and are written in place. */
#include "base/base.h"
#include "base/temp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OUT_BUF = 1 << 18 };

bool cm_map_open(cm_map *m, const char *path, cm_err *err) {
    *m = (cm_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused, not awaited */
    if (fd < 0)
        return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot open", path);
    struct stat st;
    bool ok = true;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        ok = cm_fail(err, CM_EXIT_FAIL, "%s: not a plain file", path);
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            ok = cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot map", path);
        else
            *m = (cm_map){p, (size_t)st.st_size};
    }
    close(fd);
    return ok;
}

void cm_map_forget(const void *p, size_t n) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)p, to = from + n;
    from = (from + page - 1) / page * page;
    to = to / page * page;
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

void cm_map_close(cm_map *m) {
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (cm_map){0};
}

bool cm_need_input(const char *path, cm_err *err) {
    return access(path, R_OK) == 0 ||
           cm_fail_errno(err, CM_EXIT_USAGE, "%s: cannot open", path);
}

bool cm_need_input_file(const char *path, cm_err *err) {
    struct stat st;
    if (!cm_need_input(path, err)) return false;
    return stat(path, &st) || !S_ISDIR(st.st_mode) ||
           cm_fail(err, CM_EXIT_USAGE, "%s: is a folder; a file is wanted", path);
}

static ssize_t read_some(int fd, void *p, size_t n) {
    ssize_t r;
    do
        r = read(fd, p, n);
    while (r < 0 && errno == EINTR);
    return r;
}

bool cm_read_file(const char *path, size_t max, char **out, size_t *n, cm_err *err) {
    *out = NULL;
    *n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot open", path);
    cm_buf b = {0};
    cm_buf_add(&b, "", 0);
    char *chunk = malloc(OUT_BUF);
    CM_ASSERT(chunk, "out of memory: read buffer");
    ssize_t r = 0;
    while (b.n <= max && (r = read_some(fd, chunk, OUT_BUF)) > 0)
        cm_buf_add(&b, chunk, (size_t)r);
    bool ok = true;
    if (b.n > max)
        ok = cm_fail(err, CM_EXIT_FAIL, "%s: larger than the %zu bytes allowed here",
                     path, max);
    else if (r < 0)
        ok = cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot read", path);
    free(chunk);
    close(fd);
    if (!ok) {
        cm_buf_free(&b);
        return false;
    }
    *out = b.s;
    *n = b.n;
    return true;
}

/* ---- output files ---------------------------------------------------------------- */

/* The file that a path finally names, so that writing through a symbolic link keeps
 * the link; the path itself where nothing exists yet. */
static char *final_path(const char *path) {
    char *real = realpath(path, NULL);
    return real ? real : cm_strf("%s", path);
}

bool cm_out_open(cm_out *o, const char *path, cm_err *err) {
    *o = (cm_out){.fd = -1, .path = final_path(path)};
    struct stat st;
    bool exists = stat(o->path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode)) {
        cm_out_abort(o);
        return cm_fail(err, CM_EXIT_FAIL, "%s: cannot write: it is a folder", path);
    }
    if (exists && !S_ISREG(st.st_mode)) {
        o->fd = open(o->path, O_WRONLY | O_CLOEXEC);
    } else {
        o->fd = cm_temp_open(o->path, &o->tmp);
    }
    if (o->fd < 0) {
        cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot write", path);
        cm_out_abort(o);
        return false;
    }
    o->buf = malloc(OUT_BUF);
    CM_ASSERT(o->buf, "out of memory: write buffer");
    return true;
}

/* write(2) until all is written: short writes and signals are normal. */
static bool write_all(int fd, const unsigned char *p, size_t n) {
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            errno = w ? errno : EIO;
            return false;
        }
        p += w;
        n -= (size_t)w;
    }
    return true;
}

/* A failed write ends the file: the temporary is removed, later calls fail too. */
static bool out_failed(cm_out *o, const char *what, cm_err *err) {
    cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot %s", o->path, what);
    cm_out_abort(o);
    return false;
}

static bool out_flush(cm_out *o, cm_err *err) {
    bool ok = write_all(o->fd, o->buf, o->nbuf);
    o->nbuf = 0;
    return ok || out_failed(o, "write", err);
}

bool cm_out_write(cm_out *o, const void *p, size_t n, cm_err *err) {
    if (o->fd < 0)
        return cm_fail(err, CM_EXIT_FAIL, "write to an output file that already failed");
    o->pos += n;
    if (n > OUT_BUF - o->nbuf && !out_flush(o, err))
        return false;
    if (n >= OUT_BUF) {
        if (!write_all(o->fd, p, n)) return out_failed(o, "write", err);
        /* On its way to the disk while more is made, so that fsync finds little left; where that
         * is not to be had (pipes), nothing is lost. */
        sync_file_range(o->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        return true;
    }
    if (n)
        memcpy(o->buf + o->nbuf, p, n);
    o->nbuf += n;
    return true;
}

bool cm_out_printf(cm_out *o, cm_err *err, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *s = NULL;
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    CM_ASSERT(n >= 0, "out of memory: formatting '%s'", fmt);
    bool ok = cm_out_write(o, s, (size_t)n, err);
    free(s);
    return ok;
}

static bool fsync_parent(const char *path, cm_err *err) {
    const char *slash = strrchr(path, '/');
    char *dir = slash == path ? cm_strf("/")
                : slash       ? cm_strf("%.*s", (int)(slash - path), path)
                              : cm_strf(".");
    bool ok = cm_fsync_dir(dir, err);
    free(dir);
    return ok;
}

/* Finished temporaries that wait for their fellows, open, so that their locks hold. */
static _Thread_local struct {
    bool on;
    int n;
    cm_out *out;
} held;

static void hold(cm_out *o) {
    held.out = realloc(held.out, ((size_t)held.n + 1) * sizeof *held.out);
    CM_ASSERT(held.out, "out of memory: outputs that are held");
    free(o->buf);
    o->buf = NULL;
    held.out[held.n++] = *o;
    *o = (cm_out){.fd = -1};
}

void cm_outs_hold(void) {
    CM_ASSERT(!held.on, "outputs are held already");
    held.on = true;
}

/* Close what is in its place under its name. */
static bool settle(cm_out *o, cm_err *err) {
    bool ok = fsync_parent(o->path, err);
    cm_temp_end(o->tmp); /* renamed: abort must not unlink it */
    o->tmp = NULL;
    cm_out_abort(o);
    return ok;
}

bool cm_outs_release(bool keep, cm_err *err) {
    bool ok = keep;
    int renamed = 0;
    while (ok && renamed < held.n) {
        cm_out *o = &held.out[renamed];
        ok = !rename(o->tmp, o->path);
        if (ok) renamed++;
        else cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot rename into place", o->path);
    }
    for (int i = 0; i < held.n; i++) {
        if (i < renamed) ok = settle(&held.out[i], err) && ok;
        else cm_out_abort(&held.out[i]);
    }
    free(held.out);
    memset(&held, 0, sizeof held);
    return ok || !keep;
}

bool cm_out_commit(cm_out *o, cm_err *err) {
    if (o->fd < 0)
        return cm_fail(err, CM_EXIT_FAIL, "commit of an output file that already failed");
    if (!out_flush(o, err))
        return false;
    if (o->tmp && fsync(o->fd))
        return out_failed(o, "fsync", err);
    if (held.on && o->tmp) {
        hold(o);
        return true;
    }
    int fd = o->fd;
    o->fd = -1;
    if (close(fd))
        return out_failed(o, "close", err);
    if (o->tmp && rename(o->tmp, o->path))
        return out_failed(o, "rename into place", err);
    if (o->tmp) return settle(o, err);
    cm_out_abort(o);
    return true;
}

void cm_out_abort(cm_out *o) {
    int e = errno;
    if (o->fd >= 0)
        close(o->fd);
    if (o->tmp)
        unlink(o->tmp);
    cm_temp_end(o->tmp);
    free(o->path);
    free(o->buf);
    *o = (cm_out){.fd = -1};
    errno = e;
}

bool cm_write_file(const char *path, const void *p, size_t n, cm_err *err) {
    cm_out o;
    return cm_out_open(&o, path, err) && cm_out_write(&o, p, n, err) &&
           cm_out_commit(&o, err);
}
