/* err.c -- sentences for wrong input, a loud stop for bugs.
 *
 * A cm_err keeps one sentence and the exit code it leads to.  The errno variant turns
 * "no space" and "no memory" into CM_EXIT_RESOURCE, so that every caller gets that
 * right without thinking about it. */
#include "base/base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *cm_exit_text(int code) {
    switch (code) {
#define X(id, n, text)                                                                  \
    case n:                                                                             \
        return text;
        CM_EXITS(X)
#undef X
    default:
        return NULL;
    }
}

bool cm_fail(cm_err *err, cm_exit code, const char *fmt, ...) {
    if (!err)
        return false;
    va_list ap;
    va_start(ap, fmt);
    char msg[sizeof err->msg]; /* arguments may point into err->msg itself */
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    memcpy(err->msg, msg, sizeof msg);
    err->code = code;
    return false;
}

static bool is_resource(int e) {
    return e == ENOSPC || e == EDQUOT || e == ENOMEM || e == EFBIG;
}

bool cm_fail_errno(cm_err *err, cm_exit code, const char *fmt, ...) {
    int e = errno;
    if (!err)
        return false;
    va_list ap;
    va_start(ap, fmt);
    char msg[sizeof err->msg];
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    cm_fail(err, is_resource(e) ? CM_EXIT_RESOURCE : code, "%.1300s: %s", msg,
            strerror(e));
    errno = e;
    return false;
}

void cm_panic(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    flockfile(stderr);
    fprintf(stderr, "%s:%d: internal error: ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(ap);
    abort();
}
