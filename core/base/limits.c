/* limits.c -- processors and memory this process may have: the machine's, or a container's.
 *
 * A container sees all processors and all memory of its machine; what it may use of them
 * stands in its control group.  Version 2 has one tree (`cpu.max`, `memory.max`), version 1
 * one for each resource; a limit holds for all groups below, so every ancestor is asked.
 * Formats: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. */
#include "base/base.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SMALL_FILE = 1 << 16 };

/* A small file's text, or NULL; the caller frees it. */
static char *text_of(const char *root, const char *dir, const char *name) {
    cm_err err;
    size_t n;
    char *path = cm_strf("%s%s/%s", root, dir, name), *text = NULL;
    bool ok = access(path, R_OK) == 0 && cm_read_file(path, SMALL_FILE, &text, &n, &err);
    free(path);
    return ok ? text : NULL;
}

/* The number after `key` in a file ("" for its first), or -1: no file, no key, "max". */
static double number_in(const char *root, const char *dir, const char *name, const char *key) {
    char *text = text_of(root, dir, name), *end = NULL;
    const char *at = text ? strstr(text, key) : NULL;
    double x = at ? strtod(at + strlen(key), &end) : -1;
    if (!at || end == at + strlen(key)) x = -1;
    free(text);
    return x;
}

static void lower(double *limit, double x) {
    if (x >= 0 && x < *limit) *limit = x;
}

/* Quota over period, in processors. */
static void cpu_limit(const char *root, const char *dir, bool v2, cm_limits *l) {
    if (v2) {
        char *text = text_of(root, dir, "cpu.max");
        double quota, period;
        if (text && sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0)
            lower(&l->cpus, quota / period);
        free(text);
        return;
    }
    double quota = number_in(root, dir, "cpu.cfs_quota_us", "");
    double period = number_in(root, dir, "cpu.cfs_period_us", "");
    if (quota > 0 && period > 0) lower(&l->cpus, quota / period);
}

/* The limit less what the group holds; cached file pages it has not used lately count as
 * free, for they are dropped when memory is wanted. */
static void memory_limit(const char *root, const char *dir, bool v2, cm_limits *l) {
    double max = number_in(root, dir, v2 ? "memory.max" : "memory.limit_in_bytes", "");
    double held = number_in(root, dir, v2 ? "memory.current" : "memory.usage_in_bytes", "");
    double cached = number_in(root, dir, "memory.stat", v2 ? "\ninactive_file "
                                                           : "\ntotal_inactive_file ");
    if (max < 0 || held < 0) return;
    double used = cached > 0 && cached < held ? held - cached : held;
    lower(&l->memory, max > used ? max - used : 0);
}

typedef void limit_fn(const char *root, const char *dir, bool v2, cm_limits *l);

/* From the group up to the root of its tree.  A container may see only its own part of the
 * tree, at the root; then the group's name leads nowhere and the root answers. */
static void climb(limit_fn *ask, const char *root, const char *tree, const char *group,
                  bool v2, cm_limits *l) {
    char *dir = cm_strf("/sys/fs/cgroup%s%s", tree, group);
    size_t top = strlen("/sys/fs/cgroup") + strlen(tree);
    while (ask(root, dir, v2, l), strlen(dir) > top) {
        char *slash = strrchr(dir, '/');
        *slash = 0;
    }
    free(dir);
}

/* One line of /proc/self/cgroup: number, controllers (none in version 2), group. */
static void group_line(const char *root, char *line, cm_limits *l) {
    strsep(&line, ":");
    char *what = strsep(&line, ":"), *group = line;
    if (!what || !group) return;
    if (!strcmp(group, "/")) group = "";
    bool v2 = !*what;
    if (v2) {
        climb(cpu_limit, root, "", group, true, l);
        climb(memory_limit, root, "", group, true, l);
    }
    for (char *w; !v2 && (w = strsep(&what, ","));) {
        if (!strcmp(w, "cpu")) climb(cpu_limit, root, "/cpu", group, false, l);
        if (!strcmp(w, "memory")) climb(memory_limit, root, "/memory", group, false, l);
    }
}

void cm_limits_under(const char *root, cm_limits *l) {
    char *groups = text_of(root, "/proc/self", "cgroup"), *rest = groups;
    for (char *line; rest && (line = strsep(&rest, "\n"));) group_line(root, line, l);
    free(groups);
}

/* Bytes of a line of /proc/meminfo; infinite where it is not told. */
static double meminfo(const char *key) {
    double kib = number_in("", "/proc", "meminfo", key);
    return kib >= 0 ? kib * 1024 : HUGE_VAL;
}

cm_limits cm_limits_get(void) {
    cpu_set_t mine;
    bool told = sched_getaffinity(0, sizeof mine, &mine) == 0;
    cm_limits l = {
        .cpus = told ? CPU_COUNT(&mine) : (double)sysconf(_SC_NPROCESSORS_ONLN),
        .memory = meminfo("MemAvailable:"),
    };
    cm_limits_under("", &l);
    return l;
}

int cm_cpus(void) {
    int n = (int)cm_limits_get().cpus;
    return n < 1 ? 1 : n;
}

bool cm_memory_fits(double need, const char *what, const char *instead, cm_err *err) {
    char a[32], b[32];
    double machine = meminfo("MemAvailable:"), have = cm_limits_get().memory;
    if (have >= machine) have = machine + meminfo("SwapFree:");
    return need <= have ||
           cm_fail(err, CM_EXIT_RESOURCE, "%s takes %s of memory and %s can be had: %s", what,
                   cm_human_bytes(need, a, sizeof a), cm_human_bytes(have, b, sizeof b), instead);
}
