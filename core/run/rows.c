/* rows.c -- metrics.jsonl and events.jsonl: one row is one write, so that a kill can
 * tear at most the last line; repair cuts it off. */
#include "run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool write_row(const cm_run *r, int fd, const char *name, cm_buf *row,
                      cm_err *err) {
    cm_buf_add(row, "\n", 1);
    size_t done = 0;
    while (done < row->n) {
        ssize_t w = write(fd, row->s + done, row->n - done);
        if (w < 0 && errno != EINTR)
            return cm_fail_errno(err, CM_EXIT_FAIL, "%s/%s: cannot write", r->dir, name);
        done += w > 0 ? (size_t)w : 0;
    }
    return true;
}

cm_buf *cm_metrics_begin(cm_run *r, uint64_t step) {
    r->row.n = 0;
    cm_json_open(&r->row, NULL, '{');
    cm_json_str(&r->row, "t", "metrics");
    cm_json_u64(&r->row, "seg", r->segment);
    cm_json_u64(&r->row, "step", step);
    cm_json_f64(&r->row, "wall_s", floor((cm_now() - r->began) * 1e3) / 1e3);
    return &r->row;
}

bool cm_metrics_end(cm_run *r, cm_err *err) {
    cm_json_close(&r->row, '{');
    return write_row(r, r->fd_metrics, "metrics.jsonl", &r->row, err);
}

bool cm_run_event(cm_run *r, const char *kind, uint64_t step, cm_err *err,
                  const char *fmt, ...) {
    char text[1024], now[32];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->event.n = 0;
    cm_json_open(&r->event, NULL, '{');
    cm_json_str(&r->event, "t", kind);
    cm_json_u64(&r->event, "seg", r->segment);
    cm_json_u64(&r->event, "step", step);
    cm_json_str(&r->event, "time", cm_time_text(now));
    cm_json_str(&r->event, "text", text);
    cm_json_close(&r->event, '{');
    return write_row(r, r->fd_events, "events.jsonl", &r->event, err);
}

/* The step of a row of ours; 0 when it names none. */
static uint64_t step_of(const char *line, size_t n) {
    static const char key[] = "\"step\":";
    const char *p = memmem(line, n, key, sizeof key - 1);
    uint64_t v = 0;
    if (p)
        for (p += sizeof key - 1; p < line + n && *p >= '0' && *p <= '9'; p++)
            v = 10 * v + (uint64_t)(*p - '0');
    return v;
}

/* Bytes to keep.  The last row at or below the step, not the first above it: a run
 * that rewound itself has gone through some steps twice. */
static size_t keep_bytes(const char *s, size_t n, const uint64_t *upto) {
    size_t keep = 0, start = 0;
    for (const char *nl; start < n && (nl = memchr(s + start, '\n', n - start));) {
        size_t end = (size_t)(nl - s) + 1;
        if (!upto || step_of(s + start, end - start) <= *upto)
            keep = end;
        start = end;
    }
    return keep;
}

static bool cut(const char *path, size_t keep, cm_err *err) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && ftruncate(fd, (off_t)keep) == 0 && fsync(fd) == 0;
    if (!ok)
        cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot cut to its last whole row", path);
    if (fd >= 0)
        close(fd);
    return ok;
}

bool cm_rows_repair(const char *path, const uint64_t *upto, cm_err *err) {
    cm_map m;
    if (!cm_map_open(&m, path, err))
        return false;
    size_t size = m.size, keep = keep_bytes((const char *)m.data, m.size, upto);
    cm_map_close(&m);
    return keep == size || cut(path, keep, err);
}

bool cm_run_drop_row(cm_run *r, uint64_t step, const char *key, cm_err *err) {
    char *path = cm_run_path(r, "metrics.jsonl"), *name = cm_strf("\"%s\":", key);
    cm_map m;
    bool ok = cm_map_open(&m, path, err);
    if (ok) {
        const char *s = (const char *)m.data;
        size_t size = m.size, keep = size ? size - 1 : 0; /* before the last newline */
        while (keep > 0 && s[keep - 1] != '\n')
            keep--;
        bool drop = size && step_of(s + keep, size - keep) == step &&
                    memmem(s + keep, size - keep, name, strlen(name));
        cm_map_close(&m);
        ok = !drop || cut(path, keep, err);
    }
    free(name);
    free(path);
    return ok;
}

bool cm_run_rewind(cm_run *r, uint64_t step, cm_err *err) {
    char *path = cm_run_path(r, "metrics.jsonl");
    bool ok = cm_rows_repair(path, &step, err);
    free(path);
    r->step = step;
    return ok;
}
