/* textsrc.c -- inputs as streams of bytes and lines: plain, gzip, zstd, stdin. */
#include "io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { IN_CAP = 1 << 18 };
typedef enum { PLAIN, GZIP, ZSTD } packing;

struct cm_src {
    char *path;
    int fd;
    packing kind;
    uint8_t in[IN_CAP]; /* bytes of the file not yet decoded: [at, n) */
    size_t at, n;
    bool eof;      /* of the file */
    bool inside;   /* a member or frame has begun and not ended */
    uint64_t pos;
    z_stream z;
    ZSTD_DCtx *dctx;
    char *text; /* line reader: decoded bytes [t_at, t_n) */
    size_t t_at, t_n, t_cap;
    bool t_end;
    uint64_t line;
};

static bool fill(cm_src *s, cm_err *err) {
    if (s->at > 0) memmove(s->in, s->in + s->at, s->n - s->at);
    s->n -= s->at;
    s->at = 0;
    while (s->n < IN_CAP && !s->eof) {
        ssize_t k = read(s->fd, s->in + s->n, IN_CAP - s->n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return cm_fail_errno(err, CM_EXIT_FAIL, "%s", s->path);
        s->eof = k == 0;
        s->n += (size_t)k;
        s->pos += (uint64_t)k;
    }
    return true;
}

static bool start(cm_src *s, cm_err *err) {
    if (!fill(s, err)) return false;
    if (s->n >= 2 && s->in[0] == 0x1f && s->in[1] == 0x8b) s->kind = GZIP;
    if (s->n >= 4 && (!memcmp(s->in, "\x28\xb5\x2f\xfd", 4) ||
                      (s->in[0] >> 4 == 5 && !memcmp(s->in + 1, "\x2a\x4d\x18", 3))))
        s->kind = ZSTD;
    if (s->kind == GZIP && inflateInit2(&s->z, 15 + 16) != Z_OK)
        return cm_fail(err, CM_EXIT_RESOURCE, "%s: zlib: out of memory", s->path);
    if (s->kind == ZSTD && !(s->dctx = ZSTD_createDCtx()))
        return cm_fail(err, CM_EXIT_RESOURCE, "%s: zstd: out of memory", s->path);
    return true;
}

cm_src *cm_src_open(const char *path, cm_err *err) {
    bool in = !strcmp(path, "-");
    int fd = in ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd >= 0 && !in && !fstat(fd, &st) && S_ISDIR(st.st_mode)) {
        cm_fail(err, CM_EXIT_USAGE, "%s: is a folder; a file is wanted", path);
        close(fd);
        return NULL;
    }
    if (fd < 0) {
        cm_fail_errno(err, CM_EXIT_USAGE, "%s", path);
        return NULL;
    }
    cm_src *s = calloc(1, sizeof *s);
    CM_ASSERT(s, "out of memory");
    s->fd = fd;
    s->path = cm_strf("%s", in ? "stdin" : path);
    if (start(s, err)) return s;
    cm_src_close(s);
    return NULL;
}

void cm_src_close(cm_src *s) {
    if (!s) return;
    if (s->kind == GZIP) inflateEnd(&s->z);
    ZSTD_freeDCtx(s->dctx);
    close(s->fd);
    free(s->path);
    free(s->text);
    free(s);
}

uint64_t cm_src_pos(const cm_src *s) { return s->pos - (s->n - s->at); }

static size_t take_plain(cm_src *s, void *dst, size_t cap) {
    size_t n = s->n - s->at < cap ? s->n - s->at : cap;
    memcpy(dst, s->in + s->at, n);
    s->at += n;
    return n;
}

static bool take_gzip(cm_src *s, void *dst, size_t cap, size_t *got, cm_err *err) {
    s->z.next_in = s->in + s->at;
    s->z.avail_in = (uInt)(s->n - s->at);
    s->z.next_out = dst;
    s->z.avail_out = (uInt)(cap < 1u << 30 ? cap : 1u << 30);
    uInt room = s->z.avail_out;
    s->inside = true;
    int rc = inflate(&s->z, Z_NO_FLUSH);
    s->at = s->n - s->z.avail_in;
    *got = room - s->z.avail_out;
    if (rc == Z_STREAM_END) {
        s->inside = false;
        inflateReset(&s->z); /* another member may follow */
    } else if (rc != Z_OK && rc != Z_BUF_ERROR) {
        return cm_fail(err, CM_EXIT_DATA, "%s: gzip: %s", s->path,
                       s->z.msg ? s->z.msg : "damaged data");
    }
    return true;
}

static bool take_zstd(cm_src *s, void *dst, size_t cap, size_t *got, cm_err *err) {
    ZSTD_inBuffer in = { s->in + s->at, s->n - s->at, 0 };
    ZSTD_outBuffer out = { dst, cap, 0 };
    size_t rc = ZSTD_decompressStream(s->dctx, &out, &in);
    if (ZSTD_isError(rc))
        return cm_fail(err, CM_EXIT_DATA, "%s: zstd: %s", s->path, ZSTD_getErrorName(rc));
    s->inside = rc != 0;
    s->at += in.pos;
    *got = out.pos;
    return true;
}

bool cm_src_read(cm_src *s, void *dst, size_t cap, size_t *got, cm_err *err) {
    *got = 0;
    while (!*got && cap) {
        if (s->at == s->n && !s->eof && !fill(s, err)) return false;
        bool dry = s->at == s->n;
        if (dry && (s->kind == PLAIN || !s->inside)) return true;
        size_t before = s->at;
        if (s->kind == PLAIN) *got = take_plain(s, dst, cap);
        if (s->kind == GZIP && !take_gzip(s, dst, cap, got, err)) return false;
        if (s->kind == ZSTD && !take_zstd(s, dst, cap, got, err)) return false;
        if (!*got && dry && s->inside && s->at == before)
            return cm_fail(err, CM_EXIT_DATA, "%s: truncated: the compressed data stops in "
                           "the middle", s->path);
    }
    return true;
}

/* ---- lines ---- */

/* More decoded text behind what is there. */
static bool more(cm_src *s, cm_err *err) {
    if (s->t_at > 0) {
        memmove(s->text, s->text + s->t_at, s->t_n - s->t_at);
        s->t_n -= s->t_at;
        s->t_at = 0;
    }
    if (s->t_cap - s->t_n < IN_CAP) {
        s->t_cap = s->t_cap ? 2 * s->t_cap : 2 * IN_CAP;
        s->text = realloc(s->text, s->t_cap);
        CM_ASSERT(s->text, "out of memory: a line of %zu bytes", s->t_cap);
    }
    size_t got;
    if (!cm_src_read(s, s->text + s->t_n, s->t_cap - s->t_n, &got, err)) return false;
    s->t_n += got;
    s->t_end = got == 0;
    return true;
}

/* Throw away the rest of a line that is too long; keep its first bytes in place. */
static bool skip_rest(cm_src *s, size_t max, cm_err *err) {
    size_t keep = max < 256 ? max : 256;
    for (;;) {
        s->t_n = s->t_at + keep;
        if (!more(s, err)) return false;
        const char *from = s->text + s->t_at + keep;
        char *nl = memchr(from, '\n', s->t_n - s->t_at - keep);
        if (!nl && !s->t_end) continue;
        size_t drop = nl ? (size_t)(nl + 1 - from) : s->t_n - s->t_at - keep;
        size_t rest = s->t_n - s->t_at - keep - drop;
        memmove(s->text + s->t_at + keep, from + drop, rest);
        s->t_n = s->t_at + keep + rest;
        return true;
    }
}

bool cm_src_line(cm_src *s, size_t max, cm_line *line, bool *end, cm_err *err) {
    size_t seen = 0;
    char *nl = NULL;
    *end = false;
    for (;;) {
        size_t have = s->t_n - s->t_at;
        if (have > seen) nl = memchr(s->text + s->t_at + seen, '\n', have - seen);
        if (nl || s->t_end || have > max) break;
        seen = have;
        if (!more(s, err)) return false;
    }
    if (!nl && s->t_at == s->t_n) {
        *end = true;
        return true;
    }
    size_t n = nl ? (size_t)(nl - s->text) - s->t_at : s->t_n - s->t_at;
    *line = (cm_line){ s->text + s->t_at, n, ++s->line, n > max };
    if (!line->too_long || nl) {
        s->t_at += n + (nl != NULL);
        return true;
    }
    if (!skip_rest(s, max, err)) return false;
    line->s = s->text + s->t_at;
    line->n = max < 256 ? max : 256;
    s->t_at += line->n;
    return true;
}
