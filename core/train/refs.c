/* refs.c -- the reference's log-probabilities: computed once, kept in a file.
 *
 * The reference reads the very rows that training will read, through the same ops, and the
 * sums are taken in the same order: so a policy that starts as the reference has exactly its
 * numbers, and the first loss is exactly what the formula says. */
#include "train/train.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the file ----------------------------------------------------------------------- */

/* The reference is held as the policy's frozen weights are, or the two would differ. */
static bool narrow(const cm_conf *c) {
    return c->lora.rank > 0 && c->lora.base == CM_BASE_BF16;
}

/* All that the numbers depend on, a line each. */
static char *describe(const cm_loaded *reference, const cm_pack *p, const cm_conf *c) {
    return cm_strf("model %s\nheld %s\ndata %s\nsplit %s\ntokenizer %s\nrow %d\n"
                   "numerics %s\nkernels %s\ncompute %s\n",
                   reference->id, narrow(c) ? "bf16" : "f32",
                   p->data->id, cm_split_name(p->split), p->data->tokenizer, p->T,
                   cm_conf_word_of(c, "numerics"), cm_level_name(cm_kern_level()),
                   cm_conf_word_of(c, "train.compute"));
}

static char *file_name(const char *dir, const char *what) {
    char hex[65];
    cm_sha_bytes(what, strlen(what), hex);
    return cm_strf("%s/%.32s.safetensors", dir, hex);
}

static void hash_numbers(const double *const logp[2], int64_t n, char hex[65]) {
    cm_sha *h = cm_sha_open();
    for (int k = 0; k < 2; k++) cm_sha_add(h, logp[k], (size_t)n * sizeof(double));
    cm_sha_close(h, hex);
}

/* The first line of `what` that `found` does not have. */
static void difference(const char *what, const char *found, char *out, size_t size) {
    for (size_t n; *what; what += n + 1) {
        n = strcspn(what, "\n");
        char *line = cm_strf("%.*s", (int)n, what);
        bool has = strstr(found, line) != NULL;
        if (!has) snprintf(out, size, "it is not of %.100s", line);
        free(line);
        if (!has) return;
    }
    snprintf(out, size, "it says other things about itself");
}

/* Why the open file cannot be used ("" when it can); then its numbers are in r. */
static void take(const cm_st *st, const char *what, cm_refs *r, char *why, size_t size) {
    static const char *const name[2] = { "chosen", "rejected" };
    const char *found = cm_st_get_meta(st, "of"), *sum = cm_st_get_meta(st, "sha256");
    const double *logp[2];
    char hex[65];
    if (!found || !sum) {
        snprintf(why, size, "it is no file of reference log-probabilities");
        return;
    }
    if (strcmp(found, what)) {
        difference(what, found, why, size);
        return;
    }
    for (int k = 0; k < 2; k++) {
        const cm_tensor *t = cm_st_find(st, name[k]);
        if (!t || t->dtype != CM_F64_T || t->nd != 1 || t->dim[0] != r->n) {
            snprintf(why, size, "it has no %lld numbers '%s'", (long long)r->n, name[k]);
            return;
        }
        logp[k] = t->data;
    }
    hash_numbers(logp, r->n, hex);
    if (strcmp(hex, sum)) {
        snprintf(why, size, "it is damaged");
        return;
    }
    *why = 0;
    for (int k = 0; k < 2; k++) memcpy(r->logp[k], logp[k], sizeof(double) * (size_t)r->n);
}

/* Have the pairs of n rows from `row` on their numbers?  An interrupted pass left a part. */
static bool known(const cm_refs *r, const cm_pack *p, int64_t row, int64_t n) {
    const int64_t *unit;
    for (int64_t end = row + n; row < end; row++)
        for (int64_t i = 0, m = cm_pack_units(p, row, &unit); i < m; i++)
            if (!isfinite(r->logp[0][unit[i]]) || !isfinite(r->logp[1][unit[i]])) return false;
    return true;
}

/* What the file has, if it is there; false: it is of no use, and why. */
static bool read_numbers(cm_refs *r, const char *what, const char *path, cm_err *err) {
    cm_st st;
    char why[256];
    if (!cm_exists(path)) return true;
    if (!cm_st_open(&st, path, err)) return false;
    take(&st, what, r, why, sizeof why);
    cm_st_close(&st);
    return !*why || cm_fail(err, CM_EXIT_DATA, "%s: %s", path, why);
}

/* From the file; false: absent, in part, or (said) of no use. */
static bool load(cm_refs *r, const cm_pack *p, const char *what, const char *path) {
    cm_err err;
    if (!read_numbers(r, what, path, &err)) cm_log(CM_LOG_WARN, "%s: computed anew", err.msg);
    if (!known(r, p, 0, p->rows)) return false;
    cm_log(CM_LOG_INFO, "reference log-probabilities of %lld %s pairs: from %s",
           (long long)p->units, cm_split_name(p->split), path);
    return true;
}

/* Remove what killed processes left half-written: FILE.PID.tmp (file.c). */
static void sweep(const char *dir) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        const char *at = strstr(e->d_name, ".safetensors.");
        int pid = 0, n = 0;
        if (!at || sscanf(at, ".safetensors.%d.tmp%n", &pid, &n) < 1 || !n || at[n]) continue;
        if (pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH) continue;
        char *path = cm_strf("%s/%s", dir, e->d_name);
        unlink(path);
        free(path);
    }
    if (d) closedir(d);
}

/* What was computed is used in any case; a file that cannot be written is a warning. */
static void save(const cm_refs *r, const char *what, const char *dir, const char *path) {
    char hex[65];
    cm_err err;
    sweep(dir);
    hash_numbers((const double *const *)r->logp, r->n, hex);
    cm_st_entry item[2] = { { .name = "chosen" }, { .name = "rejected" } };
    for (int k = 0; k < 2; k++)
        item[k].t = (cm_tensor){ .dtype = CM_F64_T, .nd = 1, .dim = { r->n },
                                 .data = r->logp[k] };
    const cm_st_meta meta[2] = { { "of", what }, { "sha256", hex } };
    if (!cm_mkdirs(dir, &err) || !cm_st_write(path, item, 2, meta, 2, NULL, NULL, &err))
        cm_log(CM_LOG_WARN, "the reference's log-probabilities are not kept: %s", err.msg);
}

/* ---- computing ---------------------------------------------------------------------- */

typedef struct {
    const cm_model *m;
    cm_arena step, meta;
    cm_rows rows;
    int micro;
    cm_compute compute; /* the policy's */
    cm_pair *pair;
    int64_t *unit;
} scorer;

static cm_var *forward(scorer *s, const cm_batch *b, cm_arena *step, bool dry) {
    cm_tape t;
    cm_tape_begin(&t, step, &s->meta, false, dry);
    t.compute = s->compute;
    return cm_model_logp(s->m, &t, b, 0, true, NULL, NULL);
}

/* Bytes of s->micro rows' forward pass, tape aside. */
static bool measure(scorer *s, size_t *bytes, cm_err *err) {
    cm_arena count;
    if (!cm_arena_open(&s->meta, "reference's tape", (size_t)1 << 30, err) ||
        !cm_arena_open_counting(&count, "plan of the reference", err))
        return false;
    forward(s, &(cm_batch){ .B = s->micro, .T = s->rows.T }, &count, true);
    cm_arena_reset(&s->meta, 0);
    *bytes = count.peak;
    cm_arena_close(&count);
    return true;
}

static scorer scorer_of(const cm_model *m, const cm_pack *p, const cm_conf *c,
                        int64_t micro) {
    return (scorer){ .m = m, .rows.T = p->T, .micro = (int)(micro < p->rows ? micro : p->rows),
                     .compute = (cm_compute)c->train.compute };
}

/* The rows of a micro-batch: token, target, doc, pos. */
static size_t row_bytes(const scorer *s) {
    return 4 * (size_t)s->micro * (size_t)s->rows.T * sizeof(int32_t);
}

static bool open_scorer(scorer *s, const cm_model *m, const cm_pack *p, const cm_conf *c,
                        int64_t micro, cm_err *err) {
    *s = scorer_of(m, p, c, micro);
    size_t n = (size_t)s->micro * (size_t)p->T, most = (size_t)cm_pack_most(p, s->micro), step;
    bool ok = measure(s, &step, err) && cm_arena_open(&s->step, "reference", step, err);
    int32_t *rows = malloc(row_bytes(s));
    s->pair = malloc((most + 1) * sizeof *s->pair);
    s->unit = malloc((most + 1) * sizeof *s->unit);
    CM_ASSERT(rows && s->pair && s->unit, "out of memory for the reference's rows");
    s->rows.token = rows;
    s->rows.target = rows + n;
    s->rows.doc = rows + 2 * n;
    s->rows.pos = rows + 3 * n;
    return ok;
}

static void close_scorer(scorer *s) {
    cm_arena_close(&s->step);
    cm_arena_close(&s->meta);
    free(s->rows.token);
    free(s->pair);
    free(s->unit);
}

static void sum_pairs(const scorer *s, const cm_pack *p, const cm_batch *b, int64_t row,
                      const cm_real *logp, cm_refs *r) {
    int n = cm_pack_pairs(p, b, row, s->pair, s->unit);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) {
            double sum = 0;
            for (int32_t t = s->pair[i].from[k]; t < s->pair[i].to[k]; t++)
                sum += (double)logp[t];
            r->logp[k][s->unit[i]] = sum;
        }
}

/* All rows of the pack once; *stopped: a signal came. */
static bool score(const cm_model *m, const cm_pack *p, const cm_source *src,
                  const cm_conf *c, int64_t micro, cm_progress_mode mode, cm_refs *r,
                  bool *stopped, cm_err *err) {
    scorer s;
    cm_progress bar;
    bool ok = open_scorer(&s, m, p, c, micro, err);
    cm_progress_open(&bar, "reference", "tok", (double)(p->rows * p->T), 1,
                     mode, NULL);
    for (int64_t row = 0; ok && row < p->rows; row += s.micro) {
        if ((*stopped = cm_signal_stop())) break;
        int n = (int)(p->rows - row < s.micro ? p->rows - row : s.micro);
        if (known(r, p, row, n)) continue;
        ok = src->read(src->self, row, n, &s.rows, err);
        if (!ok) break;
        cm_batch b = { .B = n, .T = p->T, .token = s.rows.token, .target = s.rows.target,
                       .doc = s.rows.doc, .pos = s.rows.pos };
        sum_pairs(&s, p, &b, row, cm_rdata(&forward(&s, &b, &s.step, false)->v), r);
        cm_arena_reset(&s.step, 0);
        cm_arena_reset(&s.meta, 0);
        cm_progress_show(&bar, (double)(row + n) * p->T, "%s", cm_split_name(p->split));
    }
    cm_progress_close(&bar);
    close_scorer(&s);
    return ok;
}

/* ---- both splits -------------------------------------------------------------------- */

static void make_room(cm_refs *r, const cm_pack *p) {
    r->n = p->data->n_docs[p->split] / 2;
    for (int k = 0; k < 2; k++) {
        r->logp[k] = malloc((size_t)(r->n + 1) * sizeof(double));
        CM_ASSERT(r->logp[k], "out of memory for %lld reference log-probabilities",
                  (long long)r->n);
        for (int64_t i = 0; i < r->n; i++) r->logp[k][i] = NAN;
    }
}

bool cm_refs_open(cm_refs *r, const cm_loaded *reference, const cm_pack *const *pack,
                  const cm_source *const *rows, const cm_conf *c, const char *dir,
                  int64_t micro, cm_progress_mode mode, cm_err *err) {
    cm_loaded l = { 0 };
    bool ok = true, loaded = false, stopped = false;
    for (int s = 0; ok && !stopped && s < 2; s++) {
        r[s] = (cm_refs){ 0 };
        if (!pack[s]->rows) continue;
        char *what = describe(reference, pack[s], c), *path = file_name(dir, what);
        make_room(&r[s], pack[s]);
        if (!load(&r[s], pack[s], what, path)) {
            ok = loaded || (loaded = cm_load(&l, reference->path, narrow(c) ? CM_LOAD_BF16 : 0,
                                                err));
            if (ok && strcmp(l.id, reference->id))
                ok = cm_fail(err, CM_EXIT_DATA, "%s: the weights changed while they were in "
                             "use: SHA-256 %.12s..., was %.12s...", reference->path, l.id,
                             reference->id);
            ok = ok && score(&l.model, pack[s], rows[s], c, micro, mode, &r[s], &stopped,
                             err);
            if (ok) save(&r[s], what, dir, path);
        }
        free(what);
        free(path);
    }
    if (loaded) cm_loaded_close(&l);
    return ok;
}

/* Rows of the pack that no file has the numbers of. */
static int64_t missing(const cm_loaded *reference, const cm_pack *p, const cm_conf *c,
                       const char *dir) {
    char *what = describe(reference, p, c), *path = file_name(dir, what);
    cm_refs r = { 0 };
    cm_err ignored; /* what is wrong with a file is said when it is wanted */
    int64_t n = 0;
    make_room(&r, p);
    read_numbers(&r, what, path, &ignored);
    for (int64_t row = 0; row < p->rows; row++) n += !known(&r, p, row, 1);
    cm_refs_close(&r);
    free(path);
    free(what);
    return n;
}

/* The reference on counting memory: its weights and the pass over one split. */
static bool count_pass(const cm_loaded *reference, const cm_pack *p, const cm_conf *c,
                       int64_t micro, size_t *bytes, cm_err *err) {
    static const cm_lora_conf bf16 = { .base = CM_BASE_BF16 };
    cm_arena weights;
    cm_model m;
    size_t step = 0;
    if (!cm_arena_open_counting(&weights, "size of the reference", err)) return false;
    cm_model_build_lora(&m, &reference->model.conf, narrow(c) ? &bf16 : NULL, &weights, false);
    scorer s = scorer_of(&m, p, c, micro);
    bool ok = measure(&s, &step, err);
    size_t all = weights.peak + step + s.meta.peak + row_bytes(&s);
    if (all > *bytes) *bytes = all;
    cm_arena_close(&s.meta);
    cm_model_end(&m);
    cm_arena_close(&weights);
    return ok;
}

bool cm_refs_plan(const cm_loaded *reference, const cm_pack *const *pack, const cm_conf *c,
                  const char *dir, int64_t micro, size_t *bytes, double *flops, cm_err *err) {
    *bytes = 0;
    *flops = 0;
    for (int s = 0; s < 2; s++) {
        int64_t n = pack[s]->rows ? missing(reference, pack[s], c, dir) : 0;
        if (!n) continue;
        if (!count_pass(reference, pack[s], c, micro, bytes, err)) return false;
        double tokens = (double)n * pack[s]->T;
        *flops += tokens * cm_model_flops(&reference->model.conf, pack[s]->T) / 3; /* forward */
    }
    return true;
}

void cm_refs_close(cm_refs *r) {
    free(r->logp[0]);
    free(r->logp[1]);
    *r = (cm_refs){ 0 };
}
