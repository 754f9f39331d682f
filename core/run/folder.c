/* folder.c -- owning a run's folder: lock, decide, start, status, close.
 *
 * The lock is an open-file-description lock on the file `lock`: the kernel drops it
 * when the owner dies, however it dies, so there are no stale locks.  The file holds
 * the owner's pid only to name it to others. */
#include "run/run.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const double heartbeat_s = 10;

const char *cm_run_state_text(cm_run_state s) {
    static const char *const text[] = {
#define X(id, t) t,
        CM_RUN_STATES(X)
#undef X
    };
    return text[s];
}

cm_run_state cm_run_state_of_exit(int code) {
    return code == CM_EXIT_OK         ? CM_RUN_DONE
           : code >= 128              ? CM_RUN_INTERRUPTED
           : code == CM_EXIT_DIVERGED ? CM_RUN_DIVERGED
                                      : CM_RUN_FAILED;
}

char *cm_run_path(const cm_run *r, const char *name) {
    return cm_strf("%s/%s", r->dir, name);
}

/* ---- lock -------------------------------------------------------------------------- */

static bool take_lock(cm_run *r, cm_err *err) {
    char *path = cm_run_path(r, "lock"), owner[32] = "";
    r->fd_lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    bool ok = r->fd_lock >= 0 ||
              cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot open", path);
    free(path);
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (ok && fcntl(r->fd_lock, F_OFD_SETLK, &fl)) {
        if (errno != EAGAIN && errno != EACCES)
            return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot lock", r->dir);
        if (pread(r->fd_lock, owner, sizeof owner - 1, 0) < 0)
            owner[0] = 0;
        owner[strspn(owner, "0123456789")] = 0;
        return cm_fail(err, CM_EXIT_USAGE, "%s: in use by process %s", r->dir,
                       owner[0] ? owner : "(unknown)");
    }
    if (ok) {
        int n = snprintf(owner, sizeof owner, "%ld\n", (long)getpid());
        /* Only a courtesy to others: losing it costs them a name, nothing else. */
        if (ftruncate(r->fd_lock, 0) || pwrite(r->fd_lock, owner, (size_t)n, 0) != n)
            cm_log(CM_LOG_WARN, "%s/lock: cannot write the process number", r->dir);
    }
    return ok;
}

/* ---- what is there ----------------------------------------------------------------- */

static cm_run_state state_named(const char *name) {
    for (int s = CM_RUN_RUNNING; name && s < CM_RUN_N_STATES; s++)
        if (!strcmp(name, cm_run_state_text((cm_run_state)s)))
            return (cm_run_state)s;
    return CM_RUN_FAILED; /* a status we cannot read is no finished run */
}

static void read_status(cm_run *r) {
    char *path = cm_run_path(r, "status.json"), *text = NULL;
    size_t n = 0;
    r->before = CM_RUN_NEW;
    if (cm_read_file(path, 1 << 16, &text, &n, NULL)) {
        cJSON *j = cJSON_ParseWithLength(text, n);
        r->before = state_named(cJSON_GetStringValue(cJSON_GetObjectItem(j, "state")));
        const cJSON *seg = cJSON_GetObjectItem(j, "segment");
        const cJSON *step = cJSON_GetObjectItem(j, "step");
        r->segment = cJSON_IsNumber(seg) && seg->valuedouble > 0
                         ? (uint64_t)seg->valuedouble : 0;
        r->step = cJSON_IsNumber(step) && step->valuedouble > 0
                      ? (uint64_t)step->valuedouble : 0;
        cJSON_Delete(j);
    }
    free(text);
    free(path);
}

static bool ends_in(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* Remove everything but the lock, or only what a killed owner was about to rename. */
static bool sweep(cm_run *r, bool all, cm_err *err) {
    DIR *d = opendir(r->dir);
    if (!d)
        return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot list", r->dir);
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
            !strcmp(e->d_name, "lock") || (!all && !ends_in(e->d_name, ".tmp")))
            continue;
        char *path = cm_run_path(r, e->d_name);
        ok = cm_remove_tree(path, err);
        free(path);
    }
    closedir(d);
    return ok;
}

static bool empty_folder(cm_run *r, cm_err *err) {
    r->before = CM_RUN_NEW;
    r->segment = r->step = 0;
    return sweep(r, true, err);
}

static bool decide(cm_run *r, cm_resume resume, cm_if_done done, cm_err *err) {
    const char *dir = r->dir, *was = cm_run_state_text(r->before);
    if (r->before == CM_RUN_NEW)
        return resume != CM_RESUME_MUST ||
               cm_fail(err, CM_EXIT_USAGE, "%s: no run to resume", dir);
    if (r->before == CM_RUN_DONE && done == CM_DONE_SKIP) {
        r->skip = true;
        return true;
    }
    if (done == CM_DONE_REDO && (r->before == CM_RUN_DONE || resume == CM_RESUME_NEVER))
        return empty_folder(r, err);
    if (r->before == CM_RUN_DONE)
        return cm_fail(err, CM_EXIT_USAGE,
                       "%s: holds a finished run; give another name, --if-done=skip to "
                       "keep it or --if-done=redo to do it again", dir);
    if (resume == CM_RESUME_NEVER)
        return cm_fail(err, CM_EXIT_USAGE,
                       "%s: holds an unfinished run (%s); give another name, "
                       "--resume=auto to go on or --if-done=redo to do it again", dir,
                       was);
    r->resumed = true;
    return sweep(r, false, err);
}

bool cm_run_open(cm_run *r, const char *dir, const char *tool, cm_resume resume,
                 cm_if_done done, cm_err *err) {
    *r = (cm_run){.tool = tool, .fd_dir = -1, .fd_lock = -1, .fd_metrics = -1,
                  .fd_events = -1, .began = cm_now()};
    if (resume == CM_RESUME_MUST && !cm_exists(dir))
        return cm_fail(err, CM_EXIT_USAGE, "%s: no run to resume", dir);
    r->dir = cm_strf("%s", dir);
    bool ok = cm_mkdirs(dir, err);
    if (ok) {
        r->fd_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ok = r->fd_dir >= 0 ||
             cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot open folder", dir);
    }
    ok = ok && take_lock(r, err);
    if (ok) {
        read_status(r);
        ok = decide(r, resume, done, err);
    }
    if (!ok)
        cm_run_close(r, r->before, 0);
    return ok;
}

/* ---- files of a running run -------------------------------------------------------- */

/* By hand, on the stack: heartbeats come between training steps, which do not
 * allocate.  Only states are worth an fsync; a lost heartbeat is not. */
static bool write_status(cm_run *r, cm_run_state state, int code, cm_err *err) {
    char text[512], now[32];
    int n = snprintf(text, sizeof text,
                     "{\"state\":\"%s\",\"tool\":\"%s\",\"step\":%" PRIu64
                     ",\"steps\":%" PRIu64 ",\"segment\":%" PRIu64
                     ",\"pid\":%ld,\"exit\":%d,\"heartbeat\":\"%s\"}\n",
                     cm_run_state_text(state), r->tool, r->step, r->steps, r->segment,
                     (long)getpid(), code, cm_time_text(now));
    bool lasting = r->beat == 0 || state != CM_RUN_RUNNING;
    int fd = openat(r->fd_dir, "status.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                    0666);
    bool ok = fd >= 0 && write(fd, text, (size_t)n) == n && (!lasting || !fsync(fd));
    ok = (fd < 0 || close(fd) == 0) && ok;
    ok = ok && renameat(r->fd_dir, "status.tmp", r->fd_dir, "status.json") == 0;
    ok = ok && (!lasting || fsync(r->fd_dir) == 0 || errno == EINVAL);
    r->beat = cm_now();
    if (ok) return true;
    cm_fail_errno(err, CM_EXIT_FAIL, "%s/status.json: cannot write", r->dir);
    unlinkat(r->fd_dir, "status.tmp", 0);
    return false;
}

/* Open files outlive their names, so a removed folder would swallow a whole run. */
bool cm_run_there(const cm_run *r, cm_err *err) {
    struct stat name, dir, rows;
    bool ok = stat(r->dir, &name) == 0 && fstat(r->fd_dir, &dir) == 0 &&
              name.st_ino == dir.st_ino && name.st_dev == dir.st_dev &&
              fstat(r->fd_metrics, &rows) == 0 && rows.st_nlink > 0;
    return ok || cm_fail(err, CM_EXIT_FAIL,
                         "%s: the run's folder, or metrics.jsonl in it, was removed or "
                         "moved while the run went on; nothing more can be saved", r->dir);
}

bool cm_run_heartbeat(cm_run *r, uint64_t step, uint64_t steps, cm_err *err) {
    r->step = step;
    r->steps = steps;
    if (!cm_run_there(r, err))
        return false;
    return cm_now() - r->beat < heartbeat_s ||
           write_status(r, CM_RUN_RUNNING, 0, err);
}

static bool write_object(const cm_run *r, const char *name, const cm_buf *members,
                         const cm_buf *inputs, cm_err *err) {
    cm_buf b = {0};
    cm_json_open(&b, NULL, '{');
    if (members->n)
        cm_buf_add(&b, members->s, members->n);
    if (inputs) {
        cm_json_open(&b, "inputs", '[');
        if (inputs->n)
            cm_buf_add(&b, inputs->s, inputs->n);
        cm_json_close(&b, '[');
    }
    cm_json_close(&b, '{');
    cm_buf_add(&b, "\n", 1);
    char *path = cm_run_path(r, name);
    bool ok = cm_write_file(path, b.s, b.n, err);
    free(path);
    cm_buf_free(&b);
    return ok;
}

bool cm_run_summary(cm_run *r, const cm_buf *members, cm_err *err) {
    return cm_run_there(r, err) && write_object(r, "summary.json", members, NULL, err);
}

bool cm_run_input(cm_run *r, const char *role, const char *path, const char *hash,
                  cm_err *err) {
    cm_json_open(&r->inputs, NULL, '{');
    cm_json_str(&r->inputs, "role", role);
    cm_json_str(&r->inputs, "path", path);
    cm_json_str(&r->inputs, "sha256", hash);
    cm_json_close(&r->inputs, '{');
    return write_object(r, "run.json", &r->info, &r->inputs, err);
}

static bool open_stream(cm_run *r, const char *name, int *fd, cm_err *err) {
    char *path = cm_run_path(r, name);
    bool ok = !cm_exists(path) || cm_rows_repair(path, NULL, err);
    if (ok) {
        *fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        ok = *fd >= 0 || cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot open", path);
    }
    free(path);
    return ok;
}

bool cm_run_start(cm_run *r, const char *config_yaml, const cm_buf *info, cm_err *err) {
    char *config = cm_run_path(r, "config.yaml"), *log = cm_run_path(r, "train.log");
    r->segment++;
    cm_json_u64(&r->info, "segment", r->segment);
    if (info && info->n) {
        cm_buf_add(&r->info, ",", 1);
        cm_buf_add(&r->info, info->s, info->n);
    }
    bool ok = cm_write_file(config, config_yaml, strlen(config_yaml), err) &&
              write_object(r, "run.json", &r->info, &r->inputs, err) &&
              open_stream(r, "metrics.jsonl", &r->fd_metrics, err) &&
              open_stream(r, "events.jsonl", &r->fd_events, err);
    if (ok) {
        r->log = fopen(log, "ae");
        ok = r->log || cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot open", log);
    }
    free(config);
    free(log);
    if (!ok)
        return false;
    setvbuf(r->log, NULL, _IOLBF, 0);
    cm_log_tee(r->log);
    return write_status(r, CM_RUN_RUNNING, 0, err) &&
           cm_run_event(r, r->segment > 1 ? "resume" : "start", r->step, err,
                        "segment %" PRIu64, r->segment);
}

bool cm_run_close(cm_run *r, cm_run_state state, int exit_code) {
    cm_err err = {0};
    bool started = r->fd_metrics >= 0 && r->log;
    bool ok = !started || write_status(r, state, exit_code, &err);
    if (!ok)
        cm_log(CM_LOG_ERROR, "%s", err.msg);
    if (r->log) {
        cm_log_tee(NULL);
        fclose(r->log);
    }
    const int fds[] = {r->fd_metrics, r->fd_events, r->fd_dir, r->fd_lock};
    for (size_t i = 0; r->dir && i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]); /* the lock last: then the folder is free */
    free(r->dir);
    cm_buf_free(&r->row);
    cm_buf_free(&r->event);
    cm_buf_free(&r->info);
    cm_buf_free(&r->inputs);
    *r = (cm_run){.fd_dir = -1, .fd_lock = -1, .fd_metrics = -1, .fd_events = -1};
    return ok;
}
