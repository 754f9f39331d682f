/* hash.c -- SHA-256 through libcrypto, the project's one hash.
 *
 * By the functions that OpenSSL 3 calls deprecated: its newer interface allocates at every
 * start of a digest, and shards are hashed inside training steps, which must not. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct cm_sha {
    SHA256_CTX ctx;
};

static void start(cm_sha *h) {
    CM_ASSERT(SHA256_Init(&h->ctx) == 1, "libcrypto offers no SHA-256");
}

static void finish(cm_sha *h, char hex[65]) {
    unsigned char d[SHA256_DIGEST_LENGTH];
    CM_ASSERT(SHA256_Final(d, &h->ctx) == 1, "SHA-256 final failed");
    for (unsigned i = 0; i < sizeof d; i++) {
        hex[2 * i] = "0123456789abcdef"[d[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[d[i] & 15];
    }
    hex[64] = 0;
}

cm_sha *cm_sha_open(void) {
    cm_sha *h = malloc(sizeof *h);
    CM_ASSERT(h, "out of memory: hash state");
    start(h);
    return h;
}

void cm_sha_add(cm_sha *h, const void *p, size_t n) {
    CM_ASSERT(SHA256_Update(&h->ctx, p, n) == 1, "SHA-256 update failed");
}

void cm_sha_close(cm_sha *h, char hex[65]) {
    finish(h, hex);
    free(h);
}

void cm_sha_bytes(const void *p, size_t n, char hex[65]) {
    cm_sha h;
    start(&h);
    cm_sha_add(&h, p, n);
    finish(&h, hex);
}

/* Read, not mapped: a file truncated under our feet gives an error, not a SIGBUS. */
bool cm_sha_file(const char *path, char hex[65], cm_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot open", path);
    enum { CHUNK = 1 << 18 };
    unsigned char *buf = malloc(CHUNK);
    CM_ASSERT(buf, "out of memory: read buffer");
    cm_sha *h = cm_sha_open();
    ssize_t n;
    while ((n = read(fd, buf, CHUNK)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0)
            cm_sha_add(h, buf, (size_t)n);
    int e = errno;
    cm_sha_close(h, hex);
    free(buf);
    close(fd);
    errno = e;
    return n == 0 || cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot read", path);
}

/* ---- once ---------------------------------------------------------------------------- */

enum { REMEMBERED = 16, SETTLED_S = 2 };
static struct {
    struct stat st;
    char hex[65]; /* "": free */
} memory[REMEMBERED];
static int oldest;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

static bool same_time(struct timespec a, struct timespec b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           same_time(a->st_mtim, b->st_mtim) && same_time(a->st_ctim, b->st_ctim);
}

static bool recall(const struct stat *st, char hex[65]) {
    bool found = false;
    pthread_mutex_lock(&guard);
    for (int i = 0; i < REMEMBERED && !found; i++) {
        found = *memory[i].hex && same_file(&memory[i].st, st);
        if (found) memcpy(hex, memory[i].hex, sizeof memory[i].hex);
    }
    pthread_mutex_unlock(&guard);
    return found;
}

static void remember(const struct stat *st, const char hex[65]) {
    pthread_mutex_lock(&guard);
    memory[oldest].st = *st;
    memcpy(memory[oldest].hex, hex, sizeof memory[oldest].hex);
    oldest = (oldest + 1) % REMEMBERED;
    pthread_mutex_unlock(&guard);
}

bool cm_sha_file_once(const char *path, char hex[65], cm_err *err) {
    struct stat before, after;
    time_t now = time(NULL);
    bool known = !stat(path, &before);
    if (known && recall(&before, hex)) return true;
    if (!cm_sha_file(path, hex, err)) return false;
    if (known && !stat(path, &after) && same_file(&before, &after) &&
        now - before.st_mtime > SETTLED_S && now - before.st_ctime > SETTLED_S)
        remember(&before, hex);
    return true;
}
