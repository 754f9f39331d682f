/* results_test.c -- metrics over items, writing and resuming a result, refusing bad ones. */
#include "results/results.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static cm_score_val mean_of(double x) { return (cm_score_val){ x, 1 }; }

static bool near(double a, double b) { return fabs(a - b) <= 1e-12 * fmax(1, fabs(b)); }

static char *slurp(const char *path) {
    char *s = NULL;
    size_t n;
    cm_err e = { 0 };
    CHECKF(cm_read_file(path, (size_t)1 << 30, &s, &n, &e), "%s", e.msg);
    return s ? s : calloc(1, 1);
}

/* ---- metrics -------------------------------------------------------------------------------- */

TEST(registry) {
    int n;
    const cm_metric *m = cm_metrics(&n);
    CHECK(n > 20 && !cm_metric_find("no_such"));
    for (int i = 0; i < n; i++) {
        CHECK(cm_metric_find(m[i].name) == &m[i]);
        CHECKF(*m[i].help && m[i].judged == (*m[i].margin != 0), "%s", m[i].name);
    }
    CHECK(!cm_metric_find("conf")->judged && cm_metric_find("acc")->judged);
    CHECK(cm_metric_find("acc")->higher && !cm_metric_find("brier")->higher);
    CHECK(cm_metric_find("ppl_word")->kind == CM_METRIC_EXP);
}

TEST(numbers_for_people) {
    const cm_metric *acc = cm_metric_find("acc"), *bpb = cm_metric_find("bits_per_byte");
    char b[96];
    CHECK(!strcmp(cm_show_value(acc, 0.5, b), "50.00%"));
    CHECK(!strcmp(cm_show_diff(acc, 0.0125, b), "+1.25 pp"));
    CHECK(!strcmp(cm_show_size(acc, -0.02, b), "2.00 pp"));
    CHECK(!strcmp(cm_show_diff(bpb, -0.01234, b), "-0.0123"));
    CHECK(!strcmp(cm_show_interval(acc, -0.01, 0.02, b), "[-1.00, +2.00]"));
    CHECK(!strcmp(cm_show_p(0, b), "<1e-16") && !strcmp(cm_show_p(0.25, b), "0.2500"));
    CHECK(!strcmp(cm_show_count(12345, b), "12,345") && !strcmp(cm_show_value(acc, NAN, b), "-"));
}

TEST(ties_are_fractions_of_acc) {
    cm_score_val v[] = { mean_of(1), mean_of(0.5), mean_of(0), mean_of(0.25), { 0, 0 } };
    CHECK(cm_column_ties(&(cm_column){ .metric = cm_metric_find("acc"), .v = v }, 5) == 2);
    CHECK(cm_column_ties(&(cm_column){ .metric = cm_metric_find("acc_char"), .v = v }, 5) == 2);
    CHECK(cm_column_ties(&(cm_column){ .metric = cm_metric_find("brier"), .v = v }, 5) == 0);
}

TEST(values_of_each_kind) {
    cm_score_val v[] = { mean_of(1), mean_of(0), mean_of(0.5), { 0, 0 } };
    CHECK(near(cm_metric_value(cm_metric_find("acc"), v, NULL, NULL, 4), 0.5));
    int32_t w[] = { 2, 0, 2, 7 }; /* the absent item counts nothing, however often drawn */
    CHECK(near(cm_metric_value(cm_metric_find("acc"), v, NULL, w, 4), 0.75));
    cm_score_val q[] = { { 10, 4 }, { 2, 4 } };
    CHECK(near(cm_metric_value(cm_metric_find("bits_per_byte"), q, NULL, NULL, 2), 1.5));
    CHECK(near(cm_metric_value(cm_metric_find("ppl_byte"), q, NULL, NULL, 2), exp(1.5)));
    CHECK(isnan(cm_metric_value(cm_metric_find("acc"), v + 3, NULL, NULL, 1)));
}

/* Mean with and without clusters: x = 1 0 1 1, clusters {0,1} {2,3}.  Without: sd/sqrt(4) =
 * 0.25.  With: residual sums -0.5 and 0.5, sqrt((0.25 + 0.25) 2/1) / 4 = 0.25. */
TEST(standard_error_of_a_mean) {
    cm_score_val v[] = { mean_of(1), mean_of(0), mean_of(1), mean_of(1) };
    int32_t two[] = { 0, 0, 1, 1 }, one[] = { 0, 0, 0, 0 }, odd[] = { 0, 1, 0, 0 };
    const cm_metric *acc = cm_metric_find("acc");
    CHECK(near(cm_metric_stderr(acc, v, NULL, 4), 0.25));
    CHECK(near(cm_metric_stderr(acc, v, two, 4), 0.25));
    CHECK(near(cm_metric_stderr(acc, v, odd, 4), sqrt(2 * 0.75 * 0.75 * 2) / 4));
    CHECK(isnan(cm_metric_stderr(acc, v, one, 4)) && isnan(cm_metric_stderr(acc, v, NULL, 1)));
}

/* num 1 5 3, den 1 2 3: R = 1.5, e = -0.5 2 -1.5, se = sqrt(6.5 3/2) / 6. */
TEST(standard_error_of_a_ratio) {
    cm_score_val v[] = { { 1, 1 }, { 5, 2 }, { 0, 0 }, { 3, 3 } };
    double se = sqrt(6.5 * 1.5) / 6;
    CHECK(near(cm_metric_stderr(cm_metric_find("bits_per_byte"), v, NULL, 4), se));
    CHECK(near(cm_metric_stderr(cm_metric_find("ppl_token"), v, NULL, 4), exp(1.5) * se));
}

TEST(calibration_of_items_with_both_scores) {
    double conf[] = { 0.95, NAN, 0.65, 0.9 };
    cm_score_val v[] = { mean_of(1), mean_of(0), mean_of(0), { 0, 0 } };
    const cm_metric *ece = cm_metric_find("ece");
    CHECK(near(cm_metric_value(ece, v, conf, NULL, 4), (0.05 + 0.65) / 2));
    int32_t w[] = { 3, 9, 1, 9 };
    CHECK(near(cm_metric_value(ece, v, conf, w, 4), (3 * 0.05 + 0.65) / 4));
    CHECK(isnan(cm_metric_value(ece, v, conf, NULL, 0)));
}

TEST(item_hash_separates_parts) {
    char a[17], b[17], c[17];
    cm_item_hash((const char *[]){ "ab", "c" }, 2, a);
    cm_item_hash((const char *[]){ "a", "bc" }, 2, b);
    cm_item_hash((const char *[]){ "ab", "c" }, 2, c);
    CHECK(strlen(a) == 16 && strcmp(a, b) && !strcmp(a, c));
}

/* ---- a small evaluation ---------------------------------------------------------------------- */

enum { N_A = 6, N_B = 3 };

typedef struct {
    cm_item_key a[N_A], b[N_B];
    char id[N_A + N_B][24];
} fixture;

static void keys(fixture *f) {
    for (int i = 0; i < N_A + N_B; i++) {
        snprintf(f->id[i], sizeof f->id[i], "%c/%d", i < N_A ? 'x' : 'y', 9 - i);
        cm_item_key *k = i < N_A ? &f->a[i] : &f->b[i - N_A];
        k->id = f->id[i];
        cm_item_hash((const char *[]){ f->id[i] }, 1, k->hash);
    }
}

static cm_item item_of(const fixture *f, int task, int i) {
    const cm_item_key *k = task ? &f->b[i] : &f->a[i];
    cm_item it = { .task = task ? "text" : "choice", .id = k->id };
    memcpy(it.hash, k->hash, 17);
    if (task) {
        it.n_scores = 1;
        it.score[0] = (cm_item_score){ cm_metric_find("bits_per_byte"), { 10.5 + i, 4 + i } };
        return it;
    }
    it.group = i < 4 ? "p" : NULL;
    it.n_scores = 2;
    it.score[0] = (cm_item_score){ cm_metric_find("acc"), mean_of(i % 2) };
    it.score[1] = (cm_item_score){ cm_metric_find("conf"), mean_of(0.3 + 0.1 * i) };
    it.detail = "{\"asked\":\"why\\n?\",\"gold\":1}";
    return it;
}

static cm_results_out *start(const fixture *f, const char *dir, const char *settings,
                             int64_t version, bool redo, int64_t *done, cm_err *e) {
    cm_results_out *o = cm_results_open(dir, settings, redo, e);
    cm_task_info a = { .name = "choice", .primary = "acc", .version = version,
                       .definition = "0123456789abcdef", .data_json = "[]" };
    cm_task_info b = { .name = "text", .primary = "bits_per_byte", .version = 1,
                       .definition = "0123456789abcdef" };
    if (o && cm_results_task(o, &a, f->a, N_A, e) && cm_results_task(o, &b, f->b, N_B, e) &&
        cm_results_begin(o, done, e))
        return o;
    cm_results_close(o);
    return NULL;
}

/* Items first..last of all nine, in a scattered order, those not there yet. */
static void add_some(cm_results_out *o, const fixture *f, int first, int last) {
    for (int k = first; k <= last; k++) {
        int i = 4 * k % (N_A + N_B), task = i >= N_A, j = task ? i - N_A : i;
        if (cm_results_has(o, task, j)) continue;
        cm_item it = item_of(f, task, j);
        cm_err e = { 0 };
        CHECKF(cm_results_add(o, task, j, &it, &e), "%s", e.msg);
    }
}

static bool finish(cm_results_out *o, cm_err *e) {
    cm_results_about about = { .model = "{\"name\":\"m\"}", .config = "{\"eval.batch\":8}" };
    bool ok = cm_results_finish(o, &about, "\"seconds\":1.5", e);
    cm_results_close(o);
    return ok;
}

/* A finished result at TMP/name; free(). */
static char *made(const fixture *f, const char *name) {
    char *dir = cm_strf("%s/%s", t_tmpdir(), name);
    int64_t done;
    cm_err e = { 0 };
    cm_results_out *o = start(f, dir, "{\"model\":\"m1\"}", 1, true, &done, &e);
    CHECKF(o && done == 0, "%s", e.msg);
    add_some(o, f, 0, N_A + N_B - 1);
    CHECKF(finish(o, &e), "%s", e.msg);
    return dir;
}

TEST(written_and_read_back) {
    fixture f;
    keys(&f);
    char *dir = made(&f, "whole");
    cm_result r;
    cm_err e = { 0 };
    CHECKF(cm_result_read(&r, dir, true, &e), "%s", e.msg);
    CHECK(r.n_tasks == 2 && !strcmp(r.path, dir));
    const cm_task_result *t = cm_result_task(&r, "choice");
    CHECK(t && t->n == N_A && !strcmp(t->primary, "acc") && t->n_clusters == 3);
    CHECK(!strcmp(t->id[0], "x/9") && !strcmp(t->id[5], "x/4") && !strcmp(t->group[3], "p"));
    CHECK(!t->group[4] && t->cluster[3] == 0 && t->cluster[5] == 2);
    CHECK(t->detail[2] && strstr(t->detail[2], "why\\n?"));
    const cm_column *acc = cm_task_column(t, "acc"), *ece = cm_task_column(t, "ece");
    CHECK(acc && acc->value == 0.5 && acc->v[1].num == 1 && acc->stderr_ > 0);
    CHECK(ece && ece->conf && near(ece->conf[2], 0.5) && isnan(ece->stderr_));
    t = cm_result_task(&r, "text");
    const cm_column *bpb = cm_task_column(t, "bits_per_byte");
    CHECK(bpb && near(bpb->value, 34.5 / 15) && !cm_task_column(t, "acc"));
    cm_result_free(&r);
    char *json = cm_strf("%s/results.json", dir);
    CHECKF(cm_result_read(&r, json, false, &e), "%s", e.msg);
    CHECK(!strcmp(r.path, dir) && !r.task[0].detail[2]);
    cm_result_free(&r);
    free(json), free(dir);
}

/* All but the part that may differ. */
static char *essence(const char *dir) {
    char *p = cm_strf("%s/results.json", dir), *s = slurp(p), *perf = strstr(s, ",\"perf\":");
    CHECK(perf != NULL);
    if (perf) *perf = 0;
    free(p);
    return s;
}

static void same_result(const char *a, const char *b) {
    char *x = essence(a), *y = essence(b), hx[65], hy[65];
    CHECKF(!strcmp(x, y), "%s\n%s", x, y);
    char *p = cm_strf("%s/items.jsonl.zst", a), *q = cm_strf("%s/items.jsonl.zst", b);
    cm_err e = { 0 };
    CHECK(cm_sha_file(p, hx, &e) && cm_sha_file(q, hy, &e) && !strcmp(hx, hy));
    free(x), free(y), free(p), free(q);
}

TEST(interrupted_and_resumed_is_the_same) {
    fixture f;
    keys(&f);
    char *whole = made(&f, "ref"), *dir = cm_strf("%s/resumed", t_tmpdir());
    char *partial = cm_strf("%s/items.partial.jsonl", dir);
    int64_t done;
    cm_err e = { 0 };
    cm_results_out *o = start(&f, dir, "{\"model\":\"m1\"}", 1, false, &done, &e);
    CHECKF(o && done == 0, "%s", e.msg);
    add_some(o, &f, 0, 3);
    CHECK(!cm_results_finish(o, &(cm_results_about){ 0 }, NULL, &e) && e.code == CM_EXIT_FAIL);
    cm_results_close(o);
    char *text = slurp(partial); /* tear the last line */
    CHECK(cm_write_file(partial, text, strlen(text) - 7, &e));
    free(text);
    o = start(&f, dir, "{\"model\":\"m1\"}", 1, false, &done, &e);
    CHECKF(o && done == 3, "%lld: %s", (long long)done, e.msg);
    add_some(o, &f, 3, N_A + N_B - 1);
    CHECKF(finish(o, &e), "%s", e.msg);
    CHECK(!cm_exists(partial));
    same_result(whole, dir);
    free(whole), free(dir), free(partial);
}

TEST(a_resume_with_other_numbers_is_refused) {
    fixture f;
    keys(&f);
    char *dir = cm_strf("%s/other", t_tmpdir());
    int64_t done;
    cm_err e = { 0 };
    cm_results_out *o = start(&f, dir, "{\"model\":\"m1\"}", 1, false, &done, &e);
    CHECK(o != NULL);
    CHECK(!start(&f, dir, "{\"model\":\"m1\"}", 1, false, &done, &e));
    CHECKF(e.code == CM_EXIT_USAGE && strstr(e.msg, "another evaluation is writing"), "%s",
           e.msg);
    add_some(o, &f, 0, 3);
    cm_results_close(o);
    CHECK(!start(&f, dir, "{\"model\":\"m2\"}", 1, false, &done, &e));
    CHECKF(e.code == CM_EXIT_USAGE && strstr(e.msg, "another model"), "%s", e.msg);
    CHECK(!start(&f, dir, "{\"model\":\"m1\"}", 2, false, &done, &e));
    CHECKF(e.code == CM_EXIT_USAGE && strstr(e.msg, "other tasks, items or data"), "%s", e.msg);
    o = start(&f, dir, "{\"model\":\"m2\"}", 1, true, &done, &e); /* redo empties it */
    CHECKF(o && done == 0, "%s", e.msg);
    cm_results_close(o);
    free(dir);
    dir = made(&f, "finished");
    CHECK(!start(&f, dir, "{\"model\":\"m1\"}", 1, false, &done, &e));
    CHECKF(e.code == CM_EXIT_USAGE && strstr(e.msg, "finished evaluation"), "%s", e.msg);
    free(dir);
}

TEST(a_writer_refuses) {
    fixture f;
    keys(&f);
    char *dir = cm_strf("%s/writer", t_tmpdir());
    int64_t done;
    cm_err e = { 0 };
    cm_results_out *o = start(&f, dir, "{}", 1, false, &done, &e);
    cm_task_info info = { .name = "z", .primary = "acc", .definition = "0123456789abcdef" };
    cm_item_key twice[2] = { f.a[0], f.a[0] };
    CHECK(!cm_results_task(o, &info, f.a, 0, &e) && e.code == CM_EXIT_DATA);
    info.primary = "beauty";
    CHECK(!cm_results_task(o, &info, f.a, 1, &e) && strstr(e.msg, "beauty"));
    cm_item it = item_of(&f, 0, 0);
    it.score[0].val.num = NAN;
    CHECK(!cm_results_add(o, 0, 0, &it, &e) && e.code == CM_EXIT_DATA && strstr(e.msg, "nan"));
    it = item_of(&f, 0, 0);
    CHECK(!cm_results_add(o, 0, 1, &it, &e) && e.code == CM_EXIT_DATA);
    CHECK(cm_results_add(o, 0, 0, &it, &e) && !cm_results_add(o, 0, 0, &it, &e));
    CHECK(strstr(e.msg, "already"));
    info.primary = "acc";
    CHECK(!cm_results_task(o, &info, twice, 2, &e) && strstr(e.msg, "'x/9' occurs twice"));
    cm_results_close(o);
    free(dir);
}

static void killed_writer(const fixture *f, const char *dir) {
    int64_t done;
    cm_err e = { 0 };
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        cm_results_out *o = start(f, dir, "{\"model\":\"m1\"}", 1, false, &done, &e);
        if (!o) _exit(1);
        add_some(o, f, 0, 4);
        _exit(0); /* as if killed: nothing closed */
    }
    int st;
    waitpid(pid, &st, 0);
    CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0);
}

/* In place of libc's: counts, and does it. */
static int synced;
int fsync(int fd) {
    synced++;
    return (int)syscall(SYS_fsync, fd);
}

TEST(unfinished_work_is_on_the_disk) {
    fixture f;
    keys(&f);
    char *dir = cm_strf("%s/synced", t_tmpdir());
    int64_t done;
    cm_err e = { 0 };
    cm_results_out *o = start(&f, dir, "{\"model\":\"m1\"}", 1, false, &done, &e);
    CHECKF(o && !done, "%s", e.msg);
    int before = synced;
    add_some(o, &f, 0, 3);
    CHECK(synced == before); /* not with every line */
    cm_results_close(o);
    CHECK(synced == before + 1);
    free(dir);
}

TEST(a_dead_writer_frees_its_folder) {
    fixture f;
    keys(&f);
    char *dir = cm_strf("%s/dead", t_tmpdir());
    killed_writer(&f, dir);
    cm_err e = { 0 };
    cm_result r;
    CHECK(!cm_result_read(&r, dir, false, &e) && e.code == CM_EXIT_DATA);
    CHECKF(strstr(e.msg, "unfinished"), "%s", e.msg);
    int64_t done;
    cm_results_out *o = start(&f, dir, "{\"model\":\"m1\"}", 1, false, &done, &e);
    CHECKF(o && done == 5, "%s", e.msg);
    cm_results_close(o);
    free(dir);
}

/* ---- refusals of the reader ---------------------------------------------------------------- */

static const char head_fmt[] =
    "{\"schema\":%s,\"kind\":\"eval\",\"complete\":%s,\"tasks\":[{\"name\":\"t\",\"version\":1,"
    "\"definition\":\"0123456789abcdef\",\"items_hash\":\"%s\",\"n\":2,\"primary\":\"acc\","
    "\"metrics\":{\"acc\":{\"value\":%s,\"stderr\":0.5}}}]}";
static const char good_hash[] = "GOOD";
#define LINE(id, scores)                                                                       \
    "{\"task\":\"t\",\"id\":\"" id "\",\"hash\":\"0123456789abcdef\",\"scores\":" scores "}\n"
#define GOOD_LINES LINE("a", "{\"acc\":1}") LINE("b", "{\"acc\":0}")

/* What items_hash must be for items a and b: asked of the writer. */
static void true_hash(char hash[17]) {
    cm_item_key k[2] = { { "a", "0123456789abcdef" }, { "b", "0123456789abcdef" } };
    cm_task_info info = { .name = "t", .primary = "acc", .definition = "0123456789abcdef" };
    char *dir = cm_strf("%s/hash", t_tmpdir());
    int64_t done;
    cm_err e = { 0 };
    cm_results_out *o = cm_results_open(dir, NULL, true, &e);
    CHECK(o && cm_results_task(o, &info, k, 2, &e) && cm_results_begin(o, &done, &e));
    cm_results_close(o);
    char *p = cm_strf("%s/items.partial.jsonl", dir), *s = slurp(p);
    const char *at = strstr(s, "\"items_hash\":\"");
    snprintf(hash, 17, "%.16s", at ? at + 14 : "");
    free(p), free(s), free(dir);
}

/* Read a result made of these parts; the message where it is refused, NULL where not. */
static const char *refusal(const char *schema, const char *complete, const char *hash,
                           const char *value, const char *lines, cm_err *e) {
    char good[17];
    true_hash(good);
    char *json = cm_strf(head_fmt, schema, complete, hash == good_hash ? good : hash, value);
    cm_result r;
    *e = (cm_err){ 0 };
    bool ok = cm_result_parse(&r, "dir", json, strlen(json), e) &&
              cm_result_items(&r, "dir", lines, strlen(lines), true, e);
    free(json);
    if (ok) cm_result_free(&r);
    CHECKF(ok || (e->code == CM_EXIT_DATA && !r.task && !r.root), "%d %s", e->code, e->msg);
    return ok ? NULL : e->msg;
}

static void refused(const char *lines, const char *want) {
    cm_err e;
    const char *msg = refusal("1", "true", good_hash, "0.5", lines, &e);
    CHECKF(msg && strstr(msg, want), "%s, wanted: %s", msg ? msg : "accepted", want);
}

TEST(a_reader_refuses_bad_items) {
    cm_err e;
    const char *msg = refusal("1", "true", good_hash, "0.5", GOOD_LINES, &e);
    CHECKF(!msg, "%s", msg);
    refused("", "dir/items.jsonl.zst: empty");
    refused(LINE("a", "{\"acc\":1}"), "1 items, but results.json has 2");
    refused(LINE("a", "{\"acc\":1}") "{\"task\":\"t\",\"id\":\"b\"", ":2: cut in the middle");
    refused(LINE("a", "{\"acc\":1}") "{\"task\":\"t\",\"id\":\"b\"\n", ":2: cut in the middle");
    refused(LINE("a", "{\"acc\":1}") LINE("a", "{\"acc\":0}"), "item 'a' occurs twice");
    refused(GOOD_LINES LINE("c", "{\"acc\":0}"), "more than its 2 items");
    refused(LINE("a", "{\"acc\":\"nan\"}") LINE("b", "{}"), ":1: item 'a': score acc is nan");
    refused(LINE("a", "{\"acc\":1e999}") LINE("b", "{}"), "score acc is infinite");
    refused(LINE("a", "{\"acc\":null}") LINE("b", "{}"), "not a number");
    refused(LINE("a", "{\"conf\":7e99}") LINE("b", "{}"), "between 0 and 1");
    refused(LINE("a", "{\"zeal\":1}") LINE("b", "{}"), "unknown metric 'zeal'");
    refused(LINE("a", "{\"ece\":[1,1]}") LINE("b", "{}"), "never stored");
    refused(LINE("a", "{\"kl\":1}") LINE("b", "{}"), "[numerator, denominator]");
    refused(LINE("a", "{\"kl\":[1,-1]}") LINE("b", "{}"), "negative");
    refused(LINE("a", "{\"acc\":1,\"acc\":0}") LINE("b", "{\"acc\":0}"), "twice");
    refused(LINE("a", "{\"acc\":1}") LINE("c", "{\"acc\":0}"), "the items hash to");
    refused(LINE("a", "{\"brier\":1}") LINE("b", "{\"brier\":0}"), "no item has a score");
    refused(LINE("a", "{\"acc\":1}") LINE("b", "{\"acc\":0}") "x", "cut");
    refused(LINE("\xff", "{\"acc\":1}") LINE("b", "{\"acc\":0}"), "UTF-8");
    refused("{\"task\":\"u\",\"id\":\"a\"}\n\n", "'u' is not in results.json");
    refused(LINE("a", "{\"acc\":1}") "[]\n", "no task");
}

TEST(a_reader_refuses_bad_heads) {
    cm_err e;
    const char *msg = refusal("2", "true", good_hash, "0.5", GOOD_LINES, &e);
    CHECKF(msg && strstr(msg, "schema 2"), "%s", msg);
    msg = refusal("1", "false", good_hash, "0.5", GOOD_LINES, &e);
    CHECKF(msg && strstr(msg, "incomplete"), "%s", msg);
    msg = refusal("1", "true", "fedcba9876543210", "0.5", GOOD_LINES, &e);
    CHECKF(msg && strstr(msg, "results.json says fedcba9876543210"), "%s", msg);
    msg = refusal("1", "true", good_hash, "0.75", GOOD_LINES, &e);
    CHECKF(msg && strstr(msg, "says acc = 0.75"), "%s", msg);
    msg = refusal("1", "true", good_hash, "\"nan\"", GOOD_LINES, &e);
    CHECKF(msg && strstr(msg, "acc = nan"), "%s", msg);
    cm_result r;
    static const char *const bad[][2] = {
        { "", "stops" }, { "{\"schema\":1", "stops at" }, { "{} x", "more text" },
        { "{}", "not the result of an evaluation" }, { "[1]", "not the result" },
        { "{\"kind\":\"eval\",\"schema\":1,\"complete\":true,\"tasks\":[]}", "no tasks" },
        { "{\"kind\":\"eval\",\"schema\":1,\"complete\":true,\"tasks\":[{}]}", "without a name" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bool ok = cm_result_parse(&r, "d", bad[i][0], strlen(bad[i][0]), &e);
        CHECKF(!ok && e.code == CM_EXIT_DATA && strstr(e.msg, bad[i][1]), "%s: %s", bad[i][0],
               e.msg);
    }
}

/* What derives from the items is believed nowhere, wherever it stands in results.json. */
TEST(a_reader_refuses_edited_numbers) {
    static const struct {
        const char *was, *is, *words;
    } edit[] = {
        { "\"eval/choice/acc\":0.5,", "\"eval/choice/acc\":0.99,", "/acc' = 0.99 in its" },
        { "\"eval/choice/acc\":0.5,", "\"eval/choice/zeal\":0.5,", "'eval/choice/zeal'" },
        { "\"groups\":3,\"primary\"", "\"groups\":4,\"primary\"", "groups = 4, but" },
        { "\"metrics\":{\"acc\":{", "\"metrics\":{\"brier\":{", "brier, but no item" },
        { "\"metrics\":{\"acc\":{", "\"metrics\":{\"x\":{", "unknown metric 'x'" },
        { "\"n\":6,\"groups\":3,\"ties\"", "\"n\":5,\"groups\":3,\"ties\"", "n = 5, but" },
    };
    fixture f;
    keys(&f);
    char *dir = made(&f, "edited"), *p = cm_strf("%s/results.json", dir), *text = slurp(p);
    for (size_t i = 0; i < sizeof edit / sizeof *edit; i++) {
        const char *at = strstr(text, edit[i].was);
        CHECKF(at, "%s lacks %s", text, edit[i].was);
        if (!at) continue;
        char *new = cm_strf("%.*s%s%s", (int)(at - text), text, edit[i].is,
                            at + strlen(edit[i].was));
        cm_result r;
        cm_err e = { 0 };
        CHECK(cm_write_file(p, new, strlen(new), &e));
        bool ok = cm_result_read(&r, dir, false, &e);
        CHECKF(!ok && e.code == CM_EXIT_DATA && strstr(e.msg, edit[i].words), "%s: %s",
               edit[i].is, ok ? "accepted" : e.msg);
        if (ok) cm_result_free(&r);
        free(new);
    }
    free(text), free(dir), free(p);
}

/* A metric that the items have and results.json has lost. */
TEST(a_reader_names_a_lost_metric) {
    cm_err e;
    const char *msg = refusal("1", "true", good_hash, "0.5",
                              LINE("a", "{\"acc\":1,\"brier\":1}") LINE("b", "{\"acc\":0}"), &e);
    CHECKF(msg && strstr(msg, "the items have scores for brier, but results.json does not"), "%s",
           msg ? msg : "accepted");
}

TEST(files_cut_anywhere_are_refused) {
    fixture f;
    keys(&f);
    char *dir = made(&f, "cut"), *p = cm_strf("%s/items.jsonl.zst", dir);
    char *whole = NULL;
    size_t n;
    cm_err e = { 0 };
    CHECK(cm_read_file(p, 1 << 20, &whole, &n, &e));
    cm_result r;
    for (size_t keep = 0; keep < n; keep++) {
        CHECK(cm_write_file(p, whole, keep, &e));
        bool ok = cm_result_read(&r, dir, false, &e);
        CHECKF(!ok && e.code == CM_EXIT_DATA, "%zu of %zu bytes: %s", keep, n, e.msg);
        if (ok) cm_result_free(&r);
    }
    whole[n / 2] ^= 16;
    CHECK(cm_write_file(p, whole, n, &e) && !cm_result_read(&r, dir, false, &e));
    CHECK(!unlink(p) && !cm_result_read(&r, dir, false, &e) && e.code == CM_EXIT_DATA);
    free(whole), free(dir), free(p);
    CHECK(!cm_result_read(&r, t_tmpdir(), false, &e) && e.code == CM_EXIT_USAGE);
}
