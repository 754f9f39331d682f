/* dir.c -- folders: make, make durable, remove. */
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool cm_fsync_dir(const char *dir, cm_err *err) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot open folder", dir);
    /* Some network and FUSE file systems refuse to fsync a folder; nothing is lost. */
    bool ok = fsync(fd) == 0 || errno == EINVAL;
    if (!ok)
        cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot fsync folder", dir);
    close(fd);
    return ok;
}

static bool make_one(const char *dir) {
    if (mkdir(dir, 0777) == 0)
        return true;
    struct stat st;
    if (errno != EEXIST && errno != EROFS && errno != EACCES)
        return false;
    int e = errno;
    if (stat(dir, &st) == 0) {
        errno = ENOTDIR;
        return S_ISDIR(st.st_mode);
    }
    errno = e;
    return false;
}

bool cm_mkdirs(const char *dir, cm_err *err) {
    char *path = cm_strf("%s", dir);
    bool ok = true;
    for (char *p = path + 1; ok && *path && *p; p++)
        if (*p == '/') {
            *p = 0;
            ok = make_one(path);
            *p = '/';
        }
    ok = ok && make_one(path);
    free(path);
    return ok || cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot make folder", dir);
}

/* Depth first, by directory descriptor, so that a folder swapped for a symbolic link
 * meanwhile is not followed. */
static bool remove_at(int at, const char *name) {
    if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
        return true;
    if (errno != EISDIR && errno != EPERM)
        return false;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return false;
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            ok = remove_at(fd, e->d_name);
    int e = errno;
    closedir(d);
    errno = e;
    return ok && (unlinkat(at, name, AT_REMOVEDIR) == 0 || errno == ENOENT);
}

bool cm_remove_tree(const char *path, cm_err *err) {
    return remove_at(AT_FDCWD, path) ||
           cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot remove", path);
}

bool cm_exists(const char *path) { return access(path, F_OK) == 0; }

/* The folder that a path is in; free(). */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? cm_strf("%.*s", (int)(slash - path) + 1, path) : cm_strf(".");
}

bool cm_same_file(const char *a, const char *b) {
    struct stat sa, sb;
    int no_a = stat(a, &sa), no_b = stat(b, &sb);
    if (!no_a && !no_b) return sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
    if (!no_a || !no_b) return false;
    char *in_a = folder_of(a), *in_b = folder_of(b);
    const char *last_a = strrchr(a, '/'), *last_b = strrchr(b, '/');
    bool same = !strcmp(last_a ? last_a + 1 : a, last_b ? last_b + 1 : b) &&
                (!strcmp(in_a, in_b) || (!stat(in_a, &sa) && !stat(in_b, &sb) &&
                                         sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino));
    free(in_a);
    free(in_b);
    return same;
}

bool cm_need_folder_of(const char *path, bool made, cm_err *err) {
    struct stat st;
    char *dir = folder_of(path), *slash;
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') dir[--n] = 0;
    while (made && !cm_exists(dir) && (slash = strrchr(dir, '/')) && slash != dir) *slash = 0;
    if (made && !cm_exists(dir) && *dir != '/') memcpy(dir, ".", 2);
    bool there = stat(dir, &st) == 0, ok = there && S_ISDIR(st.st_mode);
    if (there && !ok) errno = ENOTDIR;
    ok = ok && access(dir, W_OK | X_OK) == 0;
    if (!ok) cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot write", path);
    free(dir);
    return ok;
}
