/* write.c -- a result in the making: lines as items finish, then everything in order. */
#include "results/results_int.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

typedef struct {
    int64_t at, n; /* bytes of the item's line in the partial file; n = 0: not there */
} span;

typedef struct {
    char *name, *primary, *data;
    int64_t version, n, n_done;
    char definition[17], items_hash[17];
    char **id;
    char (*hash)[17];
    int64_t *sorted; /* items by id */
    span *line;
} out_task;

struct cm_results_out {
    char *dir, *settings, *partial;
    char fingerprint[65];
    int fd;
    int64_t pos;   /* end of the partial file */
    double synced; /* when it was last known to be on the disk */
    bool redo;     /* going on with a redo of a finished result: lines of others may go */
    int n_tasks;
    out_task *task;
    cm_buf row;
    cm_results_more_fn more;
    void *more_ctx;
};

static char *in_dir(const cm_results_out *o, const char *name) {
    return cm_strf("%s/%s", o->dir, name);
}

enum { SYNC_SECONDS = 3 };

/* What was added is on the disk, so that a machine that stops loses seconds of work. */
static bool sync_partial(cm_results_out *o, cm_err *err) {
    o->synced = cm_now();
    return !fsync(o->fd) ||
           cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot write to the disk", o->partial);
}

/* ---- open ---------------------------------------------------------------------------------- */

static bool lock(cm_results_out *o, cm_err *err) {
    o->fd = open(o->partial, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (o->fd < 0) return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot write", o->partial);
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (!fcntl(o->fd, F_OFD_SETLK, &l)) return true;
    if (errno != EAGAIN && errno != EACCES)
        return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot lock", o->partial);
    return cm_fail(err, CM_EXIT_USAGE, "%s: another evaluation is writing here", o->dir);
}

static bool newer(const struct stat *a, const struct stat *b) {
    return a->st_mtim.tv_sec != b->st_mtim.tv_sec ? a->st_mtim.tv_sec > b->st_mtim.tv_sec
                                                  : a->st_mtim.tv_nsec > b->st_mtim.tv_nsec;
}

/* To be done again: items of before are forgotten.  A finished result stays until the new
 * one takes its place; lines written after it are those of a redo that was interrupted. */
static bool forget(cm_results_out *o, cm_err *err) {
    char *head = in_dir(o, "results.json");
    struct stat done, partial;
    bool going_on = !stat(head, &done) && !fstat(o->fd, &partial) && newer(&partial, &done);
    free(head);
    o->redo = going_on;
    return going_on || !ftruncate(o->fd, 0) ||
           cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot empty", o->partial);
}

static bool open_folder(cm_results_out *o, bool redo, cm_err *err) {
    char *head = in_dir(o, "results.json");
    bool done = cm_exists(head);
    free(head);
    if (done && !redo)
        return cm_fail(err, CM_EXIT_USAGE, "%s: holds a finished evaluation; name another "
                       "folder (--out DIR) or say --if-done=redo", o->dir);
    return cm_mkdirs(o->dir, err) && lock(o, err) && (!redo || forget(o, err));
}

cm_results_out *cm_results_open(const char *dir, const char *settings, bool redo,
                                cm_err *err) {
    cm_results_out *o = calloc(1, sizeof *o);
    CM_ASSERT(o, "out of memory");
    o->fd = -1;
    o->dir = cm_strf("%s", dir);
    o->settings = cm_strf("%s", settings ? settings : "{}");
    o->partial = in_dir(o, CM_PARTIAL_FILE);
    if (open_folder(o, redo, err)) return o;
    cm_results_close(o);
    return NULL;
}

void cm_results_close(cm_results_out *o) {
    if (!o) return;
    cm_err ignored;
    if (o->fd >= 0 && o->pos) sync_partial(o, &ignored); /* nobody is left to tell */
    if (o->fd >= 0) close(o->fd);
    for (int i = 0; i < o->n_tasks; i++) {
        out_task *t = &o->task[i];
        for (int64_t k = 0; k < t->n; k++) free(t->id[k]);
        free(t->id), free(t->hash), free(t->sorted), free(t->line);
        free(t->name), free(t->primary), free(t->data);
    }
    free(o->task);
    free(o->dir), free(o->settings), free(o->partial);
    cm_buf_free(&o->row);
    free(o);
}

/* ---- tasks --------------------------------------------------------------------------------- */

static bool check_task(const cm_results_out *o, const cm_task_info *info, int64_t n,
                       cm_err *err) {
    if (n < 1)
        return cm_fail(err, CM_EXIT_DATA, "task '%s' has no items", info->name);
    if (!cm_metric_find(info->primary))
        return cm_fail(err, CM_EXIT_DATA, "task '%s': primary metric '%s' is not a metric",
                       info->name, info->primary);
    for (int i = 0; i < o->n_tasks; i++)
        if (!strcmp(o->task[i].name, info->name))
            return cm_fail(err, CM_EXIT_DATA, "task '%s' is asked for twice", info->name);
    return true;
}

static void *array(int64_t n, size_t size) {
    void *p = calloc((size_t)n, size);
    CM_ASSERT(p, "out of memory: %lld items", (long long)n);
    return p;
}

bool cm_results_task(cm_results_out *o, const cm_task_info *info, const cm_item_key *key,
                     int64_t n, cm_err *err) {
    if (!check_task(o, info, n, err)) return false;
    o->task = realloc(o->task, (size_t)(o->n_tasks + 1) * sizeof *o->task);
    CM_ASSERT(o->task, "out of memory: tasks");
    out_task *t = &o->task[o->n_tasks++];
    *t = (out_task){ .name = cm_strf("%s", info->name), .primary = cm_strf("%s", info->primary),
                     .version = info->version, .n = n };
    memcpy(t->definition, info->definition, 17);
    t->data = info->data_json ? cm_strf("%s", info->data_json) : NULL;
    t->id = array(n, sizeof *t->id);
    t->hash = array(n, sizeof *t->hash);
    t->sorted = array(n, sizeof *t->sorted);
    t->line = array(n, sizeof *t->line);
    for (int64_t i = 0; i < n; i++) {
        t->id[i] = cm_strf("%s", key[i].id);
        memcpy(t->hash[i], key[i].hash, 17);
    }
    int64_t dup;
    return cm_items_hash(t->id, t->hash, n, t->sorted, t->items_hash, &dup) ||
           cm_fail(err, CM_EXIT_DATA, "task '%s': item '%.100s' occurs twice", t->name,
                   t->id[dup]);
}

static int64_t find_item(const out_task *t, const char *id) {
    int64_t lo = 0, hi = t->n;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        int c = strcmp(id, t->id[t->sorted[mid]]);
        if (!c) return t->sorted[mid];
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return -1;
}

/* ---- header: what the partial file belongs to ------------------------------------------------ */

static void header(cm_results_out *o, cm_buf *b) {
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "kind", "eval-partial");
    cm_json_i64(b, "schema", CM_RESULTS_SCHEMA);
    cm_json_raw(b, "settings", o->settings);
    cm_json_open(b, "tasks", '[');
    for (int i = 0; i < o->n_tasks; i++) {
        const out_task *t = &o->task[i];
        cm_json_open(b, NULL, '{');
        cm_json_str(b, "name", t->name);
        cm_json_i64(b, "version", t->version);
        cm_json_str(b, "definition", t->definition);
        cm_json_str(b, "items_hash", t->items_hash);
        if (t->data) cm_json_raw(b, "data", t->data);
        cm_json_close(b, '{');
    }
    cm_json_close(b, '[');
    cm_json_close(b, '{');
    cm_sha_bytes(b->s, b->n, o->fingerprint);
}

/* The first member in which two objects differ, or NULL. */
static const char *differing(const cJSON *a, const cJSON *b) {
    const cJSON *v;
    cJSON_ArrayForEach(v, b)
        if (!cJSON_Compare(v, cJSON_GetObjectItemCaseSensitive(a, v->string), true))
            return v->string;
    cJSON_ArrayForEach(v, a)
        if (!cJSON_GetObjectItemCaseSensitive(b, v->string)) return v->string;
    return NULL;
}

/* Say in what the evaluation that was interrupted here differed. */
static bool refuse_other(const cm_results_out *o, const char *was, size_t n, const char *now,
                         cm_err *err) {
    cm_err ignored;
    cJSON *a = cm_json_parse(was, n, &ignored), *b = cJSON_Parse(now);
    const cJSON *sa = cJSON_GetObjectItemCaseSensitive(a, "settings");
    const cJSON *sb = cJSON_GetObjectItemCaseSensitive(b, "settings");
    const char *key = a ? differing(sa, sb) : NULL;
    if (!a)
        cm_fail(err, CM_EXIT_USAGE, "%s:1: not the head of an evaluation; name another folder "
                "(--out DIR) or begin anew with --if-done=redo", o->partial);
    else if (key)
        cm_fail(err, CM_EXIT_USAGE, "%s: an evaluation with another %s was interrupted here; "
                "finish it, name another folder (--out DIR) or drop it (--if-done=redo)", o->dir,
                key);
    else
        cm_fail(err, CM_EXIT_USAGE, "%s: an evaluation of other tasks, items or data was "
                "interrupted here; finish it, name another folder (--out DIR) or drop it "
                "(--if-done=redo)", o->dir);
    cJSON_Delete(a);
    cJSON_Delete(b);
    return false;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static bool append(cm_results_out *o, cm_err *err) {
    cm_buf_add(&o->row, "\n", 1);
    for (size_t done = 0; done < o->row.n;) {
        ssize_t w = write(o->fd, o->row.s + done, o->row.n - done);
        if (w < 0 && errno != EINTR)
            return cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot write", o->partial);
        done += w > 0 ? (size_t)w : 0;
    }
    o->pos += (int64_t)o->row.n;
    return cm_now() - o->synced < SYNC_SECONDS || sync_partial(o, err);
}

/* What stands behind an item's line, a tab between: 16 hex digits of SHA-256 over what the
 * file belongs to and the line, so that a line changed by hand or by a bad disk is seen. */
enum { SEAL = 17 };
static void seal(const cm_results_out *o, const char *line, size_t n, char out[SEAL + 1]) {
    char hex[65];
    cm_sha *h = cm_sha_open();
    cm_sha_add(h, o->fingerprint, 64);
    cm_sha_add(h, line, n);
    cm_sha_close(h, hex);
    snprintf(out, SEAL + 1, "\t%.16s", hex);
}

/* Recognise a finished item of ours. */
static bool known_line(cm_results_out *o, const cJSON *line, span where, cm_err *err) {
    const char *task = cm_json_text(line, "task"), *id = cm_json_text(line, "id");
    const char *hash = cm_json_text(line, "hash");
    for (int k = 0; task && id && hash && k < o->n_tasks; k++) {
        out_task *t = &o->task[k];
        if (strcmp(t->name, task)) continue;
        int64_t i = find_item(t, id);
        if (i < 0 || strcmp(hash, t->hash[i]) || t->line[i].n) break;
        t->line[i] = where;
        t->n_done++;
        return true;
    }
    return cm_fail(err, CM_EXIT_DATA, "not an item of these tasks, or there twice");
}

static bool scan(cm_results_out *o, const char *s, size_t n, cm_err *err) {
    int64_t number = 1;
    const char *nl = memchr(s, '\n', n);
    for (size_t at = (size_t)(nl - s) + 1; at < n; at = (size_t)(nl - s) + 1) {
        nl = memchr(s + at, '\n', n - at);
        size_t len = (size_t)(nl - s) - at;
        cm_err why = { 0 };
        char want[SEAL + 1];
        size_t n_line = len > SEAL ? len - SEAL : 0;
        seal(o, s + at, n_line, want);
        cJSON *line = NULL;
        bool ok = (n_line && !memcmp(s + at + n_line, want, SEAL)) ||
                  cm_fail(&why, CM_EXIT_DATA, "not as it was written");
        ok = ok && (line = cm_json_parse(s + at, n_line, &why)) &&
             known_line(o, line, (span){ (int64_t)at, (int64_t)n_line }, &why);
        cJSON_Delete(line);
        number++;
        if (!ok)
            return cm_fail(err, CM_EXIT_DATA, "%s:%lld: %s; delete that line and its item is "
                           "asked again, or begin anew with --if-done=redo", o->partial,
                           (long long)number, why.msg);
    }
    return true;
}

/* As if none had been found. */
static void drop_lines(cm_results_out *o) {
    for (int i = 0; i < o->n_tasks; i++) {
        memset(o->task[i].line, 0, (size_t)o->task[i].n * sizeof *o->task[i].line);
        o->task[i].n_done = 0;
    }
}

bool cm_results_begin(cm_results_out *o, int64_t *done, cm_err *err) {
    *done = 0;
    CM_ASSERT(o->n_tasks > 0, "a result without tasks");
    if (!cm_rows_repair(o->partial, NULL, err)) return false;
    o->row.n = 0;
    header(o, &o->row);
    cm_map m;
    if (!cm_map_open(&m, o->partial, err)) return false;
    o->pos = (int64_t)m.size;
    const char *s = (const char *)m.data;
    size_t head = m.size ? (size_t)((const char *)memchr(s, '\n', m.size) - s) : 0;
    bool empty = !m.size, ours = !empty && head == o->row.n && !memcmp(s, o->row.s, head);
    bool ok = empty || (ours ? scan(o, s, m.size, err) : refuse_other(o, s, head, o->row.s, err));
    cm_map_close(&m);
    if (!ok && o->redo) {
        drop_lines(o);
        empty = !ftruncate(o->fd, 0);
        ok = empty || cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot empty", o->partial);
    }
    if (ok && empty) {
        o->pos = 0;
        ok = append(o, err);
    }
    for (int i = 0; i < o->n_tasks; i++) *done += o->task[i].n_done;
    return ok;
}

void cm_results_more(cm_results_out *o, cm_results_more_fn fn, void *ctx) {
    o->more = fn;
    o->more_ctx = ctx;
}

bool cm_results_has(const cm_results_out *o, int task, int64_t i) {
    return o->task[task].line[i].n > 0;
}

static bool check_scores(const cm_item *it, cm_err *err) {
    for (int k = 0; k < it->n_scores; k++) {
        const cm_item_score *s = &it->score[k];
        const char *name = s->metric->name;
        if (!isfinite(s->val.num) || !isfinite(s->val.den) || s->val.den < 0)
            return cm_fail(err, CM_EXIT_DATA, "task '%s', item '%.100s': %s is %g / %g: the "
                           "model gives no usable numbers", it->task, it->id, name, s->val.num,
                           s->val.den);
    }
    return true;
}

bool cm_results_add(cm_results_out *o, int task, int64_t i, const cm_item *it, cm_err *err) {
    CM_ASSERT(task >= 0 && task < o->n_tasks, "task %d", task);
    out_task *t = &o->task[task];
    if (i < 0 || i >= t->n || strcmp(t->name, it->task) || strcmp(t->id[i], it->id) ||
        strcmp(t->hash[i], it->hash))
        return cm_fail(err, CM_EXIT_DATA, "task '%s': item '%.100s' was not declared", it->task,
                       it->id);
    if (t->line[i].n)
        return cm_fail(err, CM_EXIT_DATA, "task '%s': item '%.100s' is there already", t->name,
                       it->id);
    if (!check_scores(it, err)) return false;
    o->row.n = 0;
    cm_item_json(it, &o->row);
    span where = { o->pos, (int64_t)o->row.n };
    char end[SEAL + 1];
    seal(o, o->row.s, o->row.n, end);
    cm_buf_add(&o->row, end, SEAL);
    if (!append(o, err)) return false;
    t->line[i] = where;
    t->n_done++;
    return true;
}

/* ---- the end --------------------------------------------------------------------------- */

static bool complete(const cm_results_out *o, cm_err *err) {
    for (int k = 0; k < o->n_tasks; k++) {
        const out_task *t = &o->task[k];
        if (t->n_done < t->n)
            return cm_fail(err, CM_EXIT_FAIL, "task '%s': %lld of %lld items are scored", t->name,
                           (long long)t->n_done, (long long)t->n);
    }
    return true;
}

/* The lines in item order; and the metrics, computed from exactly these lines. */
static bool gather(const out_task *t, const char *partial, bool details, cm_buf *lines,
                   cm_task_result *r, cm_err *err) {
    *r = (cm_task_result){ .name = cm_strf("%s", t->name), .n = t->n,
                           .primary = cm_strf("%s", t->primary) };
    cm_intake in;
    cm_intake_open(&in, r);
    bool ok = true;
    for (int64_t i = 0; ok && i < t->n; i++) {
        const char *s = partial + t->line[i].at;
        cJSON *line = cm_json_parse(s, (size_t)t->line[i].n, err);
        ok = line && cm_intake_item(&in, line, details, err);
        cJSON_Delete(line);
        cm_buf_add(lines, s, (size_t)t->line[i].n);
        cm_buf_add(lines, "\n", 1);
    }
    char hash[17];
    ok = ok && cm_intake_finish(&in, hash, err);
    cm_intake_free(&in);
    if (ok && !cm_task_column(r, t->primary))
        ok = cm_fail(err, CM_EXIT_DATA, "task '%s': no item has its primary metric %s", t->name,
                     t->primary);
    return ok;
}

/* Metrics that split a point between tied choices. */
static bool splits_ties(const cm_metric *m) {
    return !strncmp(m->name, "acc", 3) && strcmp(m->name, "acc_first") != 0;
}

int64_t cm_column_ties(const cm_column *c, int64_t n) {
    int64_t ties = 0;
    if (!splits_ties(c->metric)) return 0;
    for (int64_t i = 0; i < n; i++)
        ties += c->v[i].den != 0 && c->v[i].num > 0 && c->v[i].num < 1;
    return ties;
}

static void metric_json(cm_buf *b, const cm_task_result *r, const cm_column *c) {
    int64_t n = 0, groups = 0;
    bool *seen = array(r->n, sizeof *seen);
    for (int64_t i = 0; i < r->n; i++) {
        if (c->v[i].den == 0) continue;
        n++;
        groups += !seen[r->cluster[i]];
        seen[r->cluster[i]] = true;
    }
    free(seen);
    cm_json_open(b, c->metric->name, '{');
    cm_json_f64(b, "value", c->value);
    if (isfinite(c->stderr_)) cm_json_f64(b, "stderr", c->stderr_);
    cm_json_i64(b, "n", n);
    cm_json_i64(b, "groups", groups);
    if (splits_ties(c->metric)) cm_json_i64(b, "ties", cm_column_ties(c, r->n));
    cm_json_close(b, '{');
}

static void task_json(const cm_results_out *o, const out_task *t, const cm_task_result *r,
                      cm_buf *b) {
    cm_json_open(b, NULL, '{');
    cm_json_str(b, "name", t->name);
    cm_json_i64(b, "version", t->version);
    cm_json_str(b, "definition", t->definition);
    cm_json_str(b, "items_hash", t->items_hash);
    cm_json_i64(b, "n", t->n);
    cm_json_i64(b, "groups", r->n_clusters);
    cm_json_str(b, "primary", t->primary);
    if (t->data) cm_json_raw(b, "data", t->data);
    cm_json_open(b, "metrics", '{');
    for (int i = 0; i < r->n_columns; i++) metric_json(b, r, &r->column[i]);
    cm_json_close(b, '{');
    if (o->more) o->more(o->more_ctx, r, b);
    cm_json_close(b, '{');
}

/* One flat map of scalars, the names that summaries and tables use. */
static void flat_json(cm_buf *b, const cm_task_result *r) {
    for (int i = 0; i < r->n_columns; i++) {
        const cm_column *c = &r->column[i];
        char *key = cm_strf("eval/%s/%s", r->name, c->metric->name);
        char *se = cm_strf("%s_stderr", key);
        cm_json_f64(b, key, c->value);
        if (isfinite(c->stderr_)) cm_json_f64(b, se, c->stderr_);
        free(key), free(se);
    }
}

static void head_json(const cm_results_out *o, const cm_results_about *about, cm_buf *b) {
    cm_json_i64(b, "schema", CM_RESULTS_SCHEMA);
    cm_json_str(b, "kind", "eval");
    cm_json_bool(b, "complete", true);
    cm_json_str(b, "fingerprint", o->fingerprint);
    if (about->model) cm_json_raw(b, "model", about->model);
    if (about->build) cm_json_raw(b, "build", about->build);
    cm_machine_json(b);
    if (about->config) cm_json_raw(b, "config", about->config);
}

static void results_json(const cm_results_out *o, const cm_results_about *about,
                         const char *perf, const cm_task_result *r, cm_buf *b) {
    char now[32];
    cm_json_open(b, NULL, '{');
    head_json(o, about, b);
    cm_json_open(b, "tasks", '[');
    for (int i = 0; i < o->n_tasks; i++) task_json(o, &o->task[i], &r[i], b);
    cm_json_close(b, '[');
    cm_json_open(b, "metrics", '{');
    for (int i = 0; i < o->n_tasks; i++) flat_json(b, &r[i]);
    cm_json_close(b, '{');
    cm_json_open(b, "perf", '{');
    cm_json_str(b, "written", cm_time_text(now));
    if (perf && *perf) cm_buf_addf(b, ",%s", perf);
    cm_json_close(b, '{');
    cm_json_close(b, '{');
    cm_buf_add(b, "\n", 1);
}

static bool write_items(const char *path, const cm_buf *lines, cm_err *err) {
    size_t cap = ZSTD_compressBound(lines->n);
    void *packed = malloc(cap);
    ZSTD_CCtx *z = ZSTD_createCCtx();
    CM_ASSERT(packed && z, "out of memory: compressing %zu bytes", lines->n);
    ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, 9);
    ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
    size_t n = ZSTD_compress2(z, packed, cap, lines->s, lines->n);
    CM_ASSERT(!ZSTD_isError(n), "zstd: %s", ZSTD_getErrorName(n));
    bool ok = cm_write_file(path, packed, n, err);
    ZSTD_freeCCtx(z);
    free(packed);
    return ok;
}

bool cm_results_finish(cm_results_out *o, const cm_results_about *about, const char *perf,
                       cm_err *err) {
    cm_map m = { 0 };
    if (!complete(o, err) || !cm_map_open(&m, o->partial, err)) return false;
    cm_task_result *r = array(o->n_tasks, sizeof *r);
    cm_buf lines = { 0 }, head = { 0 };
    char *items = in_dir(o, CM_ITEMS_FILE), *json = in_dir(o, "results.json");
    bool ok = true;
    for (int i = 0; ok && i < o->n_tasks; i++)
        ok = gather(&o->task[i], (const char *)m.data, o->more, &lines, &r[i], err);
    if (ok) results_json(o, about, perf, r, &head);
    ok = ok && write_items(items, &lines, err) && cm_write_file(json, head.s, head.n, err);
    if (ok && unlink(o->partial))
        ok = cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot remove", o->partial);
    for (int i = 0; i < o->n_tasks; i++) cm_task_result_free(&r[i]);
    free(r);
    cm_buf_free(&lines);
    cm_buf_free(&head);
    free(items), free(json);
    cm_map_close(&m);
    return ok;
}
