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
