/* temp.c -- temporary names of outputs: noted while they are open, so that a signal can
 * remove them, and locked, so that a later program can tell which were left behind. */
#include "base/temp.h"
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* More than any program has open at once; one beyond is not noted. */
enum { MOST = 64 };
static _Atomic(char *) open_now[MOST];

void cm_temps_drop(void (*say)(const char *s)) {
    for (int i = 0; i < MOST; i++) {
        const char *name = atomic_exchange(&open_now[i], NULL);
        if (!name || unlink(name)) continue;
        say("stopped; removed unfinished ");
        say(name);
        say("\n");
    }
}

static void note(char *name) {
    for (int i = 0; i < MOST; i++) {
        char *none = NULL;
        if (atomic_compare_exchange_strong(&open_now[i], &none, name)) return;
    }
}

void cm_temp_end(char *name) {
    for (int i = 0; name && i < MOST; i++) {
        char *mine = name;
        if (atomic_compare_exchange_strong(&open_now[i], &mine, NULL)) break;
    }
    free(name);
}

/* The process of "BASE.PID.tmp"; 0: another name. */
static pid_t writer(const char *name, const char *base, size_t n) {
    char *end;
    if (strncmp(name, base, n) || name[n] != '.' || name[n + 1] < '1' || name[n + 1] > '9')
        return 0;
    long pid = strtol(name + n + 1, &end, 10);
    return pid > 0 && pid <= INT32_MAX && !strcmp(end, ".tmp") ? (pid_t)pid : 0;
}

/* Its number means something on its writer's machine only, its lock on all that share the
 * disk: both must say that nobody is there. */
static void remove_stale(int dir, const char *name, pid_t pid) {
    if (pid == getpid() || kill(pid, 0) == 0 || errno != ESRCH) return;
    int fd = openat(dir, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return;
    if (!flock(fd, LOCK_EX | LOCK_NB)) unlinkat(dir, name, 0);
    close(fd);
}

static void clean(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char *folder = slash ? cm_strf("%.*s", (int)(slash - path) + 1, path) : cm_strf(".");
    DIR *d = opendir(folder);
    pid_t pid;
    for (struct dirent *e; d && (e = readdir(d));)
        if ((pid = writer(e->d_name, base, strlen(base))))
            remove_stale(dirfd(d), e->d_name, pid);
    if (d) closedir(d);
    free(folder);
}

int cm_temp_open(const char *path, char **name) {
    clean(path);
    *name = cm_strf("%s.%ld.tmp", path, (long)getpid());
    note(*name);
    int fd = open(*name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), e = errno;
    if (fd < 0) {
        cm_temp_end(*name);
        *name = NULL;
        errno = e;
    } else {
        flock(fd, LOCK_EX | LOCK_NB); /* where the disk has no locks, nobody removes it either */
    }
    return fd;
}
