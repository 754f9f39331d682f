/* regress.c -- is a model worse than another, and how sure are we: compare, bless, table, plot. */
#include "app/app.h"
#include "report/report.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char baselines_default[] = "eval/baselines";

static void *more(void *p, int n, size_t each) {
    p = realloc(p, (size_t)n * each);
    CM_ASSERT(p, "out of memory: %d inputs", n);
    return p;
}

/* ---- words to paths ------------------------------------------------------------- */

typedef struct {
    char **v;
    int n;
} paths;

static void add_path(paths *p, const char *s) {
    p->v = more(p->v, p->n + 1, sizeof *p->v);
    p->v[p->n++] = cm_strf("%s", s);
}

static void free_paths(paths *p) {
    for (int i = 0; i < p->n; i++) free(p->v[i]);
    free(p->v);
    *p = (paths){ 0 };
}

/* A folder, or the results.json in one: what a pattern means, among other files that it
 * matches (a plot beside the runs). */
static bool meant(const char *path) {
    struct stat st;
    size_t n = strlen(path), k = strlen("results.json");
    return (!stat(path, &st) && S_ISDIR(st.st_mode)) ||
           (n >= k && !strcmp(path + n - k, "results.json"));
}

/* A word as it stands where that exists, else what it matches as a pattern, sorted. */
static bool expand(const char *word, paths *out, cm_err *err) {
    if (cm_exists(word) || !strpbrk(word, "*?[")) {
        add_path(out, word);
        return true;
    }
    glob_t g = { 0 };
    bool ok = !glob(word, 0, NULL, &g) ||
              cm_fail(err, CM_EXIT_USAGE, "%s: nothing matches", word);
    int before = out->n;
    for (size_t i = 0; ok && i < g.gl_pathc; i++)
        if (meant(g.gl_pathv[i])) add_path(out, g.gl_pathv[i]);
    if (ok && out->n == before)
        ok = cm_fail(err, CM_EXIT_USAGE, "%s: matches files, but no folder of a run or result",
                     word);
    globfree(&g);
    return ok;
}

static bool expand_all(const cm_app_ctx *ctx, int first, paths *out, cm_err *err) {
    for (int i = first; i < ctx->words.n; i++)
        if (!expand(ctx->words.v[i], out, err)) return false;
    return true;
}

static const char *baselines_dir(const cm_app_ctx *ctx) {
    const char *dir = cm_app_text(ctx, "baselines");
    return dir ? dir : baselines_default;
}

/* The folder of the evaluation that a word means: itself, a run's newest, or a blessed name;
 * free().  NULL and a sentence where a run has none. */
static char *eval_of(const cm_app_ctx *ctx, const char *word, cm_err *err) {
    char *head = cm_strf("%s/results.json", word), *out = NULL;
    char *blessed = cm_strf("%s/%s", baselines_dir(ctx), word);
    if (!cm_exists(word) && cm_exists(blessed)) {
        out = cm_strf("%s", blessed);
    } else if (cm_exists(head) || !cm_is_run(word)) {
        out = cm_strf("%s", word);
    } else {
        out = cm_run_newest_eval(word);
        if (!out)
            cm_fail(err, CM_EXIT_USAGE, "%s: a run without a finished evaluation below eval/; "
                    "run eval first", word);
    }
    free(head), free(blessed);
    return out;
}

/* ---- what is compared -------------------------------------------------------------- */

typedef struct {
    cm_app_ctx *app;
    paths word;        /* one a side, for messages and labels */
    cm_side *side;
    int n_sides;
    cm_result **result; /* all that were read */
    int n_results;
    cm_run_log **run;  /* [n_sides], NULL where a side is no run */
    cm_measures *perf; /* [n_sides] */
    const cm_measures **perf_at;
    cm_comparison cmp;
    cm_buf command;
} job;

static const cm_result *read_result(job *j, const char *word, cm_err *err) {
    char *path = eval_of(j->app, word, err);
    if (!path) return NULL;
    cm_result *r = calloc(1, sizeof *r);
    CM_ASSERT(r, "out of memory: result");
    bool ok = cm_result_read(r, path, true, err);
    free(path);
    if (!ok) {
        free(r);
        return NULL;
    }
    j->result = more(j->result, j->n_results + 1, sizeof *j->result);
    return j->result[j->n_results++] = r;
}

/* A side whose results are those of `from`, seeds of one recipe. */
static bool add_side(job *j, const char *label, const paths *from, cm_err *err) {
    const cm_result **seed = calloc((size_t)from->n, sizeof *seed);
    CM_ASSERT(seed, "out of memory: %d seeds", from->n);
    j->side = more(j->side, j->n_sides + 1, sizeof *j->side);
    j->run = more(j->run, j->n_sides + 1, sizeof *j->run);
    j->side[j->n_sides] = (cm_side){ .label = label, .n = from->n, .seed = seed };
    j->run[j->n_sides++] = NULL;
    for (int i = 0; i < from->n; i++)
        if (!(seed[i] = read_result(j, from->v[i], err))) return false;
    if (!cm_is_run(from->v[0])) return true;
    cm_run_log *log = calloc(1, sizeof *log);
    CM_ASSERT(log, "out of memory: run");
    j->run[j->n_sides - 1] = log;
    return cm_run_log_read(log, from->v[0], err);
}

static bool same_path(const char *a, const char *b) {
    char x[PATH_MAX], y[PATH_MAX];
    return realpath(a, x) && realpath(b, y) && !strcmp(x, y);
}

/* With several candidates, as from a shell's pattern, one that is there already is dropped;
 * a baseline against itself alone is a fair question. */
static void drop_repeats(paths *p) {
    for (int i = 1; i < p->n && p->n > 2; i++)
        for (int k = 0; k < i; k++) {
            if (!same_path(p->v[i], p->v[k])) continue;
            cm_log(CM_LOG_WARN, "%s: named twice, compared once", p->v[i]);
            free(p->v[i]);
            memmove(p->v + i, p->v + i + 1, (size_t)(--p->n - i) * sizeof *p->v);
            i--;
            break;
        }
}

static bool read_sides(job *j, cm_err *err) {
    const cm_app_ctx *a = j->app;
    bool ok = true;
    if (cm_app_switch(a, "replicates")) {
        for (int i = 0; ok && i < a->words.n; i++) {
            paths seeds = { 0 };
            add_path(&j->word, a->words.v[i]);
            ok = expand(a->words.v[i], &seeds, err) &&
                 add_side(j, j->word.v[j->word.n - 1], &seeds, err);
            free_paths(&seeds);
        }
        return ok;
    }
    ok = expand_all(a, 0, &j->word, err);
    drop_repeats(&j->word);
    for (int i = 0; ok && i < j->word.n; i++)
        ok = add_side(j, j->word.v[i], &(paths){ &j->word.v[i], 1 }, err);
    return ok;
}

static bool read_measures(cm_measures *m, const char *path, cm_err *err) {
    if (!cm_exists(path)) return cm_fail(err, CM_EXIT_USAGE, "%s: no such file", path);
    return cm_measures_read(m, path, err);
}

/* --perf FILE, once for each side in order. */
static bool read_perf(job *j, cm_err *err) {
    int n = 0;
    const char *path;
    j->perf = calloc((size_t)j->n_sides + 1, sizeof *j->perf);
    j->perf_at = calloc((size_t)j->n_sides + 1, sizeof *j->perf_at);
    CM_ASSERT(j->perf && j->perf_at, "out of memory: measurements");
    for (int i = 0; (path = cm_app_text_at(j->app, "perf", i)); i++) {
        if (i >= j->n_sides)
            return cm_fail(err, CM_EXIT_USAGE, "--perf %s: one file for each result, and there are "
                           "%d results", path, j->n_sides);
        if (!read_measures(&j->perf[i], path, err)) return false;
        j->perf_at[i] = &j->perf[i];
        n++;
    }
    return !n || n == j->n_sides ||
           cm_fail(err, CM_EXIT_USAGE, "--perf: %d files for %d results; give one for each, in "
                   "their order", n, j->n_sides);
}

static void job_close(job *j) {
    cm_comparison_free(&j->cmp);
    for (int i = 0; i < j->n_sides; i++) {
        free((void *)(uintptr_t)j->side[i].seed);
        if (j->run[i]) cm_run_log_free(j->run[i]);
        free(j->run[i]);
        if (j->perf) cm_measures_free(&j->perf[i]);
    }
    for (int i = 0; i < j->n_results; i++) {
        cm_result_free(j->result[i]);
        free(j->result[i]);
    }
    free(j->result), free(j->side), free(j->run), free(j->perf);
    free((void *)(uintptr_t)j->perf_at);
    cm_buf_free(&j->command);
    free_paths(&j->word);
}

/* ---- where it goes ----------------------------------------------------------------- */

/* An output replaces no file of the run or result that a path means: a folder, the results.json
 * in one, or a baseline's name. */
static bool apart_from(const cm_app_ctx *ctx, const char *path, const cm_app_file *out,
                       cm_err *err) {
    char *blessed = cm_strf("%s/%s", baselines_dir(ctx), path);
    char *folder = cm_strf("%s", cm_exists(path) ? path : blessed), *slash = strrchr(folder, '/');
    if (slash && !strcmp(slash, "/results.json")) *slash = 0;
    bool ok = cm_app_apart((cm_app_file[]){{ "result", path }, { 0 }}, out, err) &&
              cm_app_apart_from_folder(&(cm_app_file){ "run or result", folder }, out, err);
    free(blessed);
    free(folder);
    return ok;
}

/* Nor one that words mean, from the first on, each as it stands or as a pattern. */
static bool apart_from_words(const cm_app_ctx *ctx, int first, const cm_app_file *out,
                             cm_err *err) {
    paths p = { 0 };
    bool ok = expand_all(ctx, first, &p, err);
    for (int i = 0; ok && i < p.n; i++) ok = apart_from(ctx, p.v[i], out, err);
    free_paths(&p);
    return ok;
}

/* Report i replaces nothing that is compared, nor a later report. */
static bool report_apart(const cm_app_ctx *ctx, int i, cm_err *err) {
    const char *path = cm_app_text_at(ctx, "report", i), *next;
    cm_app_file out[] = {{ "--report", path }, { "another --report", NULL }, { 0 }};
    if (!apart_from_words(ctx, 0, out, err)) return false;
    for (int k = 0; (next = cm_app_text_at(ctx, "perf", k)); k++)
        if (!cm_app_apart((cm_app_file[]){{ "--perf", next }, { 0 }}, out, err))
            return false;
    for (int k = i + 1; (next = cm_app_text_at(ctx, "report", k)); k++) {
        out[1].path = next;
        if (!cm_app_apart((cm_app_file[]){{ 0 }}, out, err)) return false;
    }
    return true;
}

/* Formats and places that cannot be are said before anything is computed. */
static bool check_outputs(const cm_app_ctx *ctx, cm_err *err) {
    const char *path;
    cm_report_format f;
    for (int i = 0; (path = cm_app_text_at(ctx, "report", i)); i++)
        if (!cm_report_format_of(path, &f, err) || !report_apart(ctx, i, err)) return false;
    if (cm_app_switch(ctx, "github") && !getenv("GITHUB_STEP_SUMMARY"))
        return cm_fail(err, CM_EXIT_USAGE, "--github: the environment has no GITHUB_STEP_SUMMARY");
    return true;
}

/* --dry-run: what would be written is named on stderr. */
static bool only_said(const cm_app_ctx *ctx, const char *path) {
    if (ctx->dry_run) cm_log(CM_LOG_INFO, "%s: would be written", path);
    return ctx->dry_run;
}

static bool append_summary(const cm_report *r, cm_err *err) {
    const char *path = getenv("GITHUB_STEP_SUMMARY");
    cm_buf b = { 0 };
    cm_report_md(r, &b);
    FILE *f = fopen(path, "a");
    bool ok = f && fwrite(b.s, 1, b.n, f) == b.n;
    if (f && fclose(f)) ok = false;
    if (!ok) cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot append", path);
    cm_buf_free(&b);
    return ok;
}

static bool deliver(const job *j, const cm_report *r, cm_err *err) {
    const char *path;
    bool ok = true;
    for (int i = 0; ok && (path = cm_app_text_at(j->app, "report", i)); i++)
        ok = only_said(j->app, path) || cm_report_write(r, path, err);
    if (!ok || !cm_app_switch(j->app, "github")) return ok;
    return only_said(j->app, getenv("GITHUB_STEP_SUMMARY")) || append_summary(r, err);
}

static bool print(const job *j, const cm_report *r) {
    cm_buf b = { 0 };
    if (j->app->json) cm_report_json(r, &b);
    else cm_report_text(r, &b);
    fputs(b.s, stdout);
    cm_buf_free(&b);
    return true;
}

/* What could not be compared is reported as well; the sentence stays the tool's own error. */
static bool refuse(job *j, cm_err *err) {
    cm_err other = { 0 };
    cm_report r = { .error = err->msg, .command = j->command.s };
    if (err->code != CM_EXIT_DATA) return false;
    if (j->app->json) print(j, &r);
    if (!deliver(j, &r, &other)) cm_log(CM_LOG_WARN, "%s", other.msg);
    return false;
}

static bool conclude(job *j, cm_err *err) {
    cm_report r = { .cmp = &j->cmp, .side = j->side, .n_sides = j->n_sides,
                    .run = (const cm_run_log *const *)j->run, .command = j->command.s };
    j->app->exit = j->cmp.code;
    return deliver(j, &r, err) && print(j, &r);
}

static bool single_seeds(const job *j) {
    for (int i = 0; i < j->n_sides; i++)
        if (j->side[i].n > 1) return false;
    return true;
}

static bool compare(job *j, cm_err *err) {
    cm_app_command(j->app, &j->command);
    if (!check_outputs(j->app, err)) return false;
    bool ok = read_sides(j, err) && read_perf(j, err);
    if (ok && j->n_sides == 1 && cm_app_switch(j->app, "replicates")) {
        if (cm_app_text(j->app, "report") || cm_app_switch(j->app, "github"))
            return cm_fail(err, CM_EXIT_USAGE, "one recipe's noise is a table on standard output; "
                           "--report and --github need a candidate");
        cm_buf b = { 0 };
        ok = cm_noise_table(j->side[0].seed, j->side[0].n, j->app->conf.regress.alpha,
                            j->app->json, &b, err);
        if (ok) fputs(b.s, stdout);
        cm_buf_free(&b);
        return ok;
    }
    if (ok && cm_app_switch(j->app, "replicates") && single_seeds(j))
        cm_log(CM_LOG_WARN, "--replicates: one seed a side: the verdict is about these "
                            "checkpoints, not about recipes");
    if (ok && j->n_sides < 2)
        return cm_fail(err, CM_EXIT_USAGE, "name a baseline and at least one candidate");
    ok = ok && cm_compare(&j->cmp, j->side, j->n_sides, j->perf_at, &j->app->conf.regress, err);
    return ok ? conclude(j, err) : refuse(j, err);
}

/* ---- perf: measurements alone ------------------------------------------------------- */

static bool compare_perf(job *j, cm_err *err) {
    const cm_app_ctx *a = j->app;
    static const cm_result nothing = { .path = NULL };
    static const cm_result *const none[1] = { &nothing };
    cm_app_command(a, &j->command);
    if (!check_outputs(a, err)) return false;
    if (a->words.n < 3)
        return cm_fail(err, CM_EXIT_USAGE, "perf wants two files of measurements, the baseline "
                       "first");
    int n = a->words.n - 1;
    j->side = calloc((size_t)n, sizeof *j->side);
    j->run = calloc((size_t)n, sizeof *j->run);
    j->perf = calloc((size_t)n, sizeof *j->perf);
    j->perf_at = calloc((size_t)n, sizeof *j->perf_at);
    CM_ASSERT(j->side && j->run && j->perf && j->perf_at, "out of memory: measurements");
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        const cm_result **seed = calloc(1, sizeof *seed);
        CM_ASSERT(seed, "out of memory: measurements");
        seed[0] = none[0];
        j->side[j->n_sides++] = (cm_side){ .label = a->words.v[i + 1], .n = 1, .seed = seed };
        j->perf_at[i] = &j->perf[i];
        ok = read_measures(&j->perf[i], a->words.v[i + 1], err);
    }
    ok = ok && cm_compare(&j->cmp, j->side, j->n_sides, j->perf_at, &a->conf.regress, err);
    return ok ? conclude(j, err) : refuse(j, err);
}

/* ---- bless ---------------------------------------------------------------------------- */

static bool copy_file(const char *from, const char *to, const char *name, cm_err *err) {
    char *a = cm_strf("%s/%s", from, name), *b = cm_strf("%s/%s", to, name), *text = NULL;
    size_t n;
    bool ok = cm_read_file(a, (size_t)1 << 31, &text, &n, err) && cm_write_file(b, text, n, err);
    free(a), free(b), free(text);
    return ok;
}

/* Copied beside its place and renamed: a baseline is whole or as it was. */
static bool put_baseline(const char *from, const char *to, bool replace, cm_err *err) {
    char *tmp = cm_strf("%s.%ld.tmp", to, (long)getpid());
    char *old = cm_strf("%s.%ld.old.tmp", to, (long)getpid());
    bool ok = cm_mkdirs(tmp, err) && copy_file(from, tmp, "items.jsonl.zst", err) &&
              copy_file(from, tmp, "results.json", err) && cm_fsync_dir(tmp, err);
    if (ok && replace && cm_exists(to) && rename(to, old))
        ok = cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot rename", to);
    if (ok && rename(tmp, to)) ok = cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot rename", tmp);
    cm_err ignored;
    if (!ok) cm_remove_tree(tmp, &ignored);
    if (ok && cm_exists(old)) ok = cm_remove_tree(old, err);
    free(tmp), free(old);
    return ok;
}

/* Only a baseline gives way to another one: what else is there is somebody's work. */
static bool may_replace(const char *to, cm_err *err) {
    char *head = cm_strf("%s/results.json", to), *items = cm_strf("%s/items.jsonl.zst", to);
    bool ok = !cm_exists(to) || (cm_exists(head) && cm_exists(items) && !cm_is_run(to));
    free(head), free(items);
    return ok || cm_fail(err, CM_EXIT_USAGE, "%s: holds something that is no baseline; it stays, "
                         "give another name with --as", to);
}

static bool bless(cm_app_ctx *ctx, cm_err *err) {
    const char *name = cm_app_text(ctx, "as");
    if (ctx->words.n != 2 || !name)
        return cm_fail(err, CM_EXIT_USAGE, "bless wants one result and --as NAME");
    if (!*name || *name == '.' || strchr(name, '/'))
        return cm_fail(err, CM_EXIT_USAGE, "--as '%s': a name is one folder: letters, digits, - "
                       "and _", name);
    bool replace = cm_app_switch(ctx, "replace");
    char *from = eval_of(ctx, ctx->words.v[1], err);
    char *to = cm_strf("%s/%s", baselines_dir(ctx), name);
    cm_result r = { 0 };
    bool ok = from && cm_result_read(&r, from, false, err); /* only what can be compared */
    if (ok && cm_exists(to) && !replace)
        ok = cm_fail(err, CM_EXIT_USAGE, "%s: a baseline of that name exists; --replace takes its "
                     "place", to);
    ok = ok && may_replace(to, err);
    bool dry = ok && only_said(ctx, to);
    ok = dry || (ok && put_baseline(r.path, to, replace, err));
    if (ok && !dry && !ctx->quiet) printf("%s is now the baseline %s\n", ctx->words.v[1], to);
    cm_result_free(&r);
    free(from), free(to);
    return ok;
}

/* ---- table, plot -------------------------------------------------------------------------- */

/* A path that is a word itself, not what a pattern matched. */
static bool named(const cm_app_ctx *ctx, const char *path) {
    for (int i = 1; i < ctx->words.n; i++)
        if (!strcmp(ctx->words.v[i], path)) return true;
    return false;
}

static bool read_runs(cm_app_ctx *ctx, cm_run_log **run, int *n, cm_err *err) {
    paths p = { 0 };
    bool ok = expand_all(ctx, 1, &p, err);
    if (ok && !p.n)
        ok = cm_fail(err, CM_EXIT_USAGE, "%s wants folders of runs", ctx->words.v[0]);
    *run = calloc((size_t)p.n + 1, sizeof **run);
    CM_ASSERT(*run, "out of memory: %d runs", p.n);
    bool some = false;
    for (int i = 0; ok && i < p.n; i++) some |= cm_is_run(p.v[i]);
    *n = 0;
    for (int i = 0; ok && i < p.n; i++) {
        if (some && !cm_is_run(p.v[i]) && !named(ctx, p.v[i])) {
            cm_log(CM_LOG_WARN, "%s: not a run: left out", p.v[i]);
            continue;
        }
        ok = cm_run_log_read(&(*run)[*n], p.v[i], err);
        *n += ok;
    }
    free_paths(&p);
    return ok;
}

static bool to_file_or_stdout(const cm_app_ctx *ctx, const cm_buf *b, cm_err *err) {
    const char *out = cm_app_text(ctx, "out");
    if (out) return only_said(ctx, out) || cm_write_file(out, b->s, b->n, err);
    fwrite(b->s, 1, b->n, stdout);
    return true;
}

static bool table(cm_app_ctx *ctx, const cm_run_log *run, int n, cm_buf *b, cm_err *err) {
    cm_table_format f = ctx->json ? CM_TABLE_JSON
                      : cm_app_switch(ctx, "md") ? CM_TABLE_MD : CM_TABLE_TSV;
    return cm_table(run, n, cm_app_text(ctx, "cols"), cm_app_text(ctx, "sort"), f, b, err) &&
           to_file_or_stdout(ctx, b, err);
}

static bool plot(cm_app_ctx *ctx, const cm_run_log *run, int n, cm_buf *b, cm_err *err) {
    const char *out = cm_app_text(ctx, "out"), *metric[32];
    int k = 0;
    while (k < 32 && (metric[k] = cm_app_text_at(ctx, "metric", k))) k++;
    if (!k) metric[k++] = "train/loss";
    size_t len = out ? strlen(out) : 0;
    bool html = len > 5 && !strcmp(out + len - 5, ".html");
    if (!html && (len <= 4 || strcmp(out + len - 4, ".svg")))
        return cm_fail(err, CM_EXIT_USAGE, "plot wants --out FILE.svg or --out FILE.html");
    return cm_plot(run, n, metric, k, cm_app_text(ctx, "x"), html, b, err) &&
           to_file_or_stdout(ctx, b, err);
}

static bool over_runs(cm_app_ctx *ctx, cm_err *err) {
    cm_run_log *run = NULL;
    int n = 0;
    cm_buf b = { 0 };
    cm_app_file out[] = {{ "--out", cm_app_text(ctx, "out") }, { 0 }};
    bool ok = apart_from_words(ctx, 1, out, err) && read_runs(ctx, &run, &n, err) &&
              (strcmp(ctx->words.v[0], "plot") ? table(ctx, run, n, &b, err)
                                               : plot(ctx, run, n, &b, err));
    for (int i = 0; i < n; i++) cm_run_log_free(&run[i]);
    free(run);
    cm_buf_free(&b);
    return ok;
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    const char *what = ctx->words.n ? ctx->words.v[0] : "";
    if (!strcmp(what, "bless")) return bless(ctx, err);
    if (!strcmp(what, "table") || !strcmp(what, "plot")) return over_runs(ctx, err);
    job j = { .app = ctx };
    bool ok = strcmp(what, "perf") ? compare(&j, err) : compare_perf(&j, err);
    job_close(&j);
    return ok;
}

int main(int argc, char **argv) {
    static const cm_app_opt options[] = {
        { "report", "FILE", "write a report: .html, .md, .json or .xml (JUnit); repeatable" },
        { "github", NULL, "append the Markdown report to $GITHUB_STEP_SUMMARY" },
        { "replicates", NULL, "each word is a pattern of results: seeds of one recipe; one word: "
                              "how much they vary" },
        { "perf", "FILE", "repeated measurements of a side, in the order of sides; repeatable" },
        { "as", "NAME", "bless: name of the baseline" },
        { "replace", NULL, "bless: take the place of a baseline of that name" },
        { "baselines", "DIR", "folder of baselines (default: eval/baselines)" },
        { "cols", "NAMES", "table: keys, metrics, eval/TASK/METRIC, separated by commas" },
        { "sort", "NAME", "table: sort by a column; -NAME: downwards" },
        { "md", NULL, "table: Markdown instead of tab-separated values" },
        { "metric", "NAME", "plot: what to draw (default: train/loss); repeatable" },
        { "x", "NAME", "plot: against this instead of the step" },
        { "out", "FILE", "table, plot: write there; plot: .svg or .html" },
        { 0 },
    };
    return cm_app_main(argc, argv, &(cm_app){
        .name = "regress",
        .summary = "is a model worse than another, and how sure are we",
        .words = "BASELINE CANDIDATE... | perf A.json B.json | bless RESULT | table RUN... | "
                 "plot RUN...",
        .examples =
            "  regress runs/main runs/new --report report.html --report junit.xml\n"
            "  regress --replicates 'runs/base-s*' 'runs/new-s*'\n"
            "  regress bless runs/main --as main\n"
            "  regress main runs/new\n"
            "  regress table 'runs/lr*' --cols optim.lr,seed,val/bpb --sort val/bpb\n"
            "  regress plot 'runs/lr*' --metric train/loss --out loss.svg\n",
        .sections = "regress",
        .options = options,
        .repeatable = " report perf metric ",
        .no_kernels = true,
        .run = run,
    });
}
