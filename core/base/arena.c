/* arena.c -- bump allocation over one reserved address range.
 *
 * Real arenas map read-write memory without reserving swap; the kernel commits a page
 * on first touch.  A counting arena maps addresses without access, so a dry run that
 * touches what it should only count dies at once instead of lying about the plan.
 * Invariant: used <= touched <= cap, and used is a multiple of CM_ALIGN. */
#include "base/base.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#if defined(__SANITIZE_ADDRESS__)
#define CM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CM_ASAN 1
#endif
#endif

#ifdef CM_ASAN
#include <sanitizer/asan_interface.h>
#define poison(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define unpoison(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define poison(p, n) ((void)(p), (void)(n))
#define unpoison(p, n) ((void)(p), (void)(n))
#endif

enum { HUGE = 8 << 20 }; /* bytes from which an arena asks for huge pages */

static void *reserve(size_t cap, int prot) {
    void *p = mmap(NULL, cap, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static bool refuse(const char *name, const char *what, cm_err *err) {
    int why = errno;
    struct rlimit l;
    char limit[96] = "";
    if (!getrlimit(RLIMIT_AS, &l) && l.rlim_cur != RLIM_INFINITY)
        snprintf(limit, sizeof limit, " within `ulimit -v` = %llu KiB",
                 (unsigned long long)l.rlim_cur / 1024);
    errno = why;
    return cm_fail_errno(err, CM_EXIT_RESOURCE, "arena '%s': cannot reserve %s%s", name, what,
                         limit);
}

bool cm_arena_open(cm_arena *a, const char *name, size_t cap, cm_err *err) {
    *a = (cm_arena){.name = name};
    cap = cm_align_up(cap ? cap : 1);
    a->base = reserve(cap, PROT_READ | PROT_WRITE);
    if (!a->base) {
        char what[48];
        snprintf(what, sizeof what, "%zu bytes", cap);
        return refuse(name, what, err);
    }
    /* Rows of a matrix lie about a page apart: small pages would miss the TLB at each. */
    if (cap >= HUGE) madvise(a->base, cap, MADV_HUGEPAGE);
    a->cap = cap;
    return true;
}

bool cm_arena_open_filled(cm_arena *a, const char *name, size_t cap, const char *instead,
                          cm_err *err) {
    *a = (cm_arena){.name = name};
    return cm_memory_fits((double)cap, name, instead, err) && cm_arena_open(a, name, cap, err);
}

bool cm_arena_open_counting(cm_arena *a, const char *name, cm_err *err) {
    *a = (cm_arena){.name = name, .counting = true};
    /* As large as this machine (or its ulimit -v) lets us: 32 TiB down to 64 GiB. */
    for (size_t cap = (size_t)1 << 45; cap >= (size_t)1 << 36; cap >>= 1) {
        a->base = reserve(cap, PROT_NONE);
        a->cap = a->base ? cap : 0;
        if (a->base)
            return true;
    }
    return refuse(name, "addresses", err);
}

void cm_arena_close(cm_arena *a) {
    if (a->base) {
        if (!a->counting)
            unpoison(a->base, a->touched);
        munmap(a->base, a->cap);
    }
    *a = (cm_arena){.name = a->name};
}

void *cm_arena_alloc(cm_arena *a, size_t bytes) {
    CM_ASSERT(bytes <= a->cap - a->used,
              "arena '%s' is full: %zu bytes asked, %zu of %zu used", a->name, bytes,
              a->used, a->cap);
    unsigned char *p = a->base + a->used;
    a->used += cm_align_up(bytes);
    if (!a->counting) {
        unpoison(p, bytes);
#ifdef CM_DEBUG
        /* Never-used pages read as zero and would hide a missing initialisation. */
        if (a->used > a->touched)
            memset(p, 0xFF, bytes);
#endif
        poison(p + bytes, cm_align_up(bytes) - bytes);
    }
    if (a->used > a->peak)
        a->peak = a->used;
    if (a->peak > a->touched)
        a->touched = a->peak;
    return p;
}

void *cm_arena_zalloc(cm_arena *a, size_t bytes) {
    size_t used = a->touched > a->used ? a->touched - a->used : 0; /* bytes from here on */
    void *p = cm_arena_alloc(a, bytes);
#ifdef CM_DEBUG
    used = bytes;
#endif
    /* What was never used is zero, and stays untouched: whoever writes first takes the pages. */
    if (!a->counting)
        memset(p, 0, used < bytes ? used : bytes);
    return p;
}

void cm_arena_reset(cm_arena *a, size_t mark) {
    CM_ASSERT(mark <= a->used, "arena '%s': mark %zu lies above %zu used", a->name, mark,
              a->used);
    if (!a->counting) {
#ifdef CM_DEBUG
        unpoison(a->base + mark, a->used - mark);
        memset(a->base + mark, 0xFF, a->used - mark);
#endif
        poison(a->base + mark, a->used - mark);
    }
    a->used = mark;
}
