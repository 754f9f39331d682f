/* run_test.c -- the run folder: lock, decisions, rows, signals, progress. */
#include "run/run.h"
#include "tests/t.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *slurp(const char *path) {
    char *s = NULL;
    size_t n;
    if (!cm_read_file(path, 1 << 20, &s, &n, NULL))
        return cm_strf("%s", "");
    return s;
}

static bool file_is(const char *dir, const char *name, const char *want) {
    char *p = cm_strf("%s/%s", dir, name), *s = slurp(p);
    bool same = !strcmp(s, want);
    if (!same)
        printf("    %s holds: %s\n", name, s);
    free(p), free(s);
    return same;
}

static bool file_has(const char *dir, const char *name, const char *part) {
    char *p = cm_strf("%s/%s", dir, name), *s = slurp(p);
    bool has = strstr(s, part) != NULL;
    if (!has)
        printf("    %s holds: %s\n", name, s);
    free(p), free(s);
    return has;
}

/* ---- JSON -------------------------------------------------------------------------- */

TEST(json_numbers_read_back) {
    cm_buf b = {0};
    cm_json_open(&b, NULL, '{');
    cm_json_f64(&b, "a", 0.1 + 0.2);
    cm_json_u64(&b, "b", (uint64_t)1 << 53);
    cm_json_u64(&b, "c", UINT64_MAX);
    cm_json_i64(&b, "d", INT64_MIN);
    cm_json_f64(&b, "e", NAN);
    cm_json_f64(&b, "f", -INFINITY);
    cm_json_f64(&b, "g", 5e-324);
    cm_json_f64(&b, "h", 3);
    cm_json_close(&b, '{');
    CHECKF(!strcmp(b.s, "{\"a\":0.30000000000000004,\"b\":9007199254740992,"
                        "\"c\":18446744073709551615,\"d\":-9223372036854775808,"
                        "\"e\":\"nan\",\"f\":\"-inf\",\"g\":5e-324,\"h\":3}"),
           "%s", b.s);
    cm_buf_free(&b);
}

TEST(json_text_and_nesting) {
    cm_buf b = {0};
    cm_json_open(&b, "list", '[');
    cm_json_str(&b, NULL, "a\"b\\c\n\t\x01");
    cm_json_str(&b, NULL, "\xE0\xA4\xA8\xFF!");
    cm_json_bytes(&b, NULL, "a\0b\0", 4);
    cm_json_bytes(&b, NULL, NULL, 0);
    cm_json_open(&b, NULL, '{');
    cm_json_bool(&b, "x", true);
    cm_json_raw(&b, "y", "[1]");
    cm_json_close(&b, '{');
    cm_json_close(&b, '[');
    cm_json_i64(&b, "n", -1);
    CHECKF(!strcmp(b.s, "\"list\":[\"a\\\"b\\\\c\\n\\u0009\\u0001\","
                        "\"\xE0\xA4\xA8\xEF\xBF\xBD!\","
                        "\"a\\u0000b\\u0000\",\"\",{\"x\":true,\"y\":[1]}],\"n\":-1"),
           "%s", b.s);
    cm_buf_free(&b);
}

/* ---- the folder -------------------------------------------------------------------- */

static bool begin(cm_run *r, const char *dir, cm_resume res, cm_if_done done,
                  cm_err *e) {
    return cm_run_open(r, dir, "test", res, done, e) &&
           (r->skip || cm_run_start(r, "seed: 1\n", NULL, e));
}

TEST(life_of_a_run) {
    char *d = cm_strf("%s/runs/life", t_tmpdir());
    cm_run r;
    cm_err e = {0};
    CHECK(!begin(&r, d, CM_RESUME_MUST, CM_DONE_FAIL, &e) && e.code == CM_EXIT_USAGE);
    CHECK(!cm_exists(d));
    CHECKF(begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e), "%s", e.msg);
    CHECK(!r.resumed && r.segment == 1 && file_is(d, "config.yaml", "seed: 1\n"));
    CHECK(file_has(d, "status.json", "\"state\":\"running\""));
    cm_log(CM_LOG_WARN, "into the log");
    CHECK(cm_run_input(&r, "shards", "m.json", "abcd", &e));
    CHECK(file_is(d, "run.json", "{\"segment\":1,\"inputs\":[{\"role\":\"shards\","
                                 "\"path\":\"m.json\",\"sha256\":\"abcd\"}]}\n"));
    cm_run_close(&r, CM_RUN_INTERRUPTED, 130);
    CHECK(file_has(d, "status.json", "\"state\":\"interrupted\"") &&
          file_has(d, "status.json", "\"exit\":130"));
    CHECK(file_has(d, "train.log", "warning: into the log\n"));

    CHECK(!begin(&r, d, CM_RESUME_NEVER, CM_DONE_FAIL, &e) && e.code == CM_EXIT_USAGE);
    CHECKF(begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e), "%s", e.msg);
    CHECK(r.resumed && r.before == CM_RUN_INTERRUPTED && r.segment == 2);
    cm_run_close(&r, CM_RUN_DONE, 0);

    CHECK(!begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e) && e.code == CM_EXIT_USAGE &&
          strstr(e.msg, "finished run"));
    CHECK(begin(&r, d, CM_RESUME_AUTO, CM_DONE_SKIP, &e) && r.skip && !r.resumed);
    cm_run_close(&r, CM_RUN_DONE, 0);
    CHECK(file_has(d, "status.json", "\"segment\":2"));
    CHECK(begin(&r, d, CM_RESUME_AUTO, CM_DONE_REDO, &e) && r.segment == 1);
    cm_run_close(&r, CM_RUN_FAILED, 1);
    char *ev = cm_strf("%s/events.jsonl", d), *s = slurp(ev);
    CHECKF(strstr(s, "\"t\":\"start\"") && !strstr(s, "\"t\":\"resume\""), "%s", s);
    free(ev), free(s), free(d);
}

TEST(second_opener_learns_the_owner) {
    char *d = cm_strf("%s/locked", t_tmpdir());
    cm_run r, other;
    cm_err e = {0};
    CHECK(begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        char *want = cm_strf("%s: in use by process %ld", d, (long)getppid());
        bool ok = !begin(&other, d, CM_RESUME_AUTO, CM_DONE_REDO, &e) &&
                  e.code == CM_EXIT_USAGE && !strcmp(e.msg, want);
        _exit(ok ? 0 : 1);
    }
    int st;
    waitpid(pid, &st, 0);
    CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0);
    /* the same within one process: locks belong to open files, not to processes */
    CHECK(!begin(&other, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e));
    cm_run_close(&r, CM_RUN_FAILED, 1);
    CHECK(begin(&other, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e) && other.resumed);
    cm_run_close(&other, CM_RUN_DONE, 0);
    /* emptying the folder must not take the lock away from under its owner */
    CHECK(begin(&r, d, CM_RESUME_AUTO, CM_DONE_REDO, &e) && r.segment == 1);
    CHECK(!begin(&other, d, CM_RESUME_AUTO, CM_DONE_REDO, &e));
    cm_run_close(&r, CM_RUN_DONE, 0);
    free(d);
}

TEST(a_killed_run_frees_its_folder) {
    char *d = cm_strf("%s/killed", t_tmpdir());
    cm_run r;
    cm_err e = {0};
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        cm_out o;
        char *half = cm_strf("%s/summary.json", d);
        begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e);
        cm_out_open(&o, half, &e);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
    char *left = cm_strf("%s/summary.json.%ld.tmp", d, (long)pid);
    CHECK(cm_exists(left));
    CHECKF(begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e), "%s", e.msg);
    CHECK(r.resumed && r.before == CM_RUN_RUNNING && r.segment == 2);
    CHECK(!cm_exists(left)); /* what the dead owner was writing is swept away */
    cm_run_close(&r, CM_RUN_DONE, 0);
    free(d), free(left);
}

TEST(events_do_not_disturb_an_open_row) {
    char *d = cm_strf("%s/events", t_tmpdir());
    cm_run r;
    cm_err e = {0};
    CHECK(begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e));
    cm_buf *row = cm_metrics_begin(&r, 7);
    CHECK(cm_run_event(&r, "spike", 7, &e, "loss %d", 9));
    cm_json_f64(row, "train/loss", 9);
    CHECK(cm_metrics_end(&r, &e));
    CHECK(file_has(d, "metrics.jsonl", "{\"t\":\"metrics\",\"seg\":1,\"step\":7,"));
    CHECK(file_has(d, "metrics.jsonl", ",\"train/loss\":9}\n"));
    CHECK(file_has(d, "events.jsonl", "{\"t\":\"spike\",\"seg\":1,\"step\":7,"));
    cm_run_close(&r, CM_RUN_DONE, 0);
    free(d);
}

TEST(run_in_bad_places) {
    cm_run r;
    cm_err e = {0};
    CHECK(!begin(&r, "/proc/chimera/x", CM_RESUME_AUTO, CM_DONE_FAIL, &e));
    CHECKF(e.code == CM_EXIT_FAIL && strstr(e.msg, "cannot make folder"), "%s", e.msg);
    cm_run_close(&r, CM_RUN_FAILED, 1);
}

/* ---- rows -------------------------------------------------------------------------- */

static void put_row(cm_run *r, uint64_t step, double loss) {
    cm_err e = {0};
    cm_json_f64(cm_metrics_begin(r, step), "train/loss", loss);
    CHECKF(cm_metrics_end(r, &e), "%s", e.msg);
}

TEST(torn_rows_are_repaired) {
    char *d = cm_strf("%s/torn", t_tmpdir()), *m = cm_strf("%s/metrics.jsonl", d);
    cm_run r;
    cm_err e = {0};
    CHECK(begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e));
    for (uint64_t s = 1; s <= 5; s++)
        put_row(&r, 10 * s, 1.0 / (double)s);
    cm_run_close(&r, CM_RUN_INTERRUPTED, 137);
    char *whole = slurp(m), *torn = cm_strf("%s{\"t\":\"metr", whole);
    CHECK(strstr(whole, "\"step\":30,") && strstr(whole, "\"train/loss\":0.2}\n"));
    CHECK(cm_write_file(m, torn, strlen(torn), &e));
    CHECK(begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e));
    CHECK(file_is(d, "metrics.jsonl", whole));
    CHECK(cm_run_rewind(&r, 30, &e));
    put_row(&r, 40, 7);
    CHECK(file_has(d, "metrics.jsonl", "\"step\":30,"));
    CHECK(file_has(d, "metrics.jsonl", "\"seg\":2,\"step\":40,"));
    char *now = slurp(m);
    CHECK(!strstr(now, "\"seg\":1,\"step\":40,") && !strstr(now, "\"step\":50,"));
    cm_run_close(&r, CM_RUN_DONE, 0);
    free(d), free(m), free(whole), free(torn), free(now);
}

TEST(a_row_that_will_be_written_again_goes) {
    char *d = cm_strf("%s/again", t_tmpdir());
    cm_run r;
    cm_err e = {0};
    CHECK(begin(&r, d, CM_RESUME_AUTO, CM_DONE_FAIL, &e));
    CHECK(cm_run_drop_row(&r, 10, "train/loss", &e)); /* nothing there */
    put_row(&r, 10, 1);
    put_row(&r, 20, 2);
    CHECK(cm_run_drop_row(&r, 10, "train/loss", &e)); /* not the last one's step */
    CHECK(cm_run_drop_row(&r, 20, "val/loss", &e));   /* not what it reports */
    CHECK(file_has(d, "metrics.jsonl", "\"train/loss\":2}\n"));
    CHECK(cm_run_drop_row(&r, 20, "train/loss", &e));
    CHECK(file_has(d, "metrics.jsonl", "\"train/loss\":1}\n"));
    CHECK(!file_has(d, "metrics.jsonl", "\"step\":20,"));
    put_row(&r, 20, 3);
    CHECK(file_has(d, "metrics.jsonl", "\"train/loss\":3}\n"));
    cm_run_close(&r, CM_RUN_DONE, 0);
    free(d);
}

TEST(rewound_rows_stay_where_they_count) {
    char *p = cm_strf("%s/rows.jsonl", t_tmpdir());
    const char *rows = "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":2}\n"
                       "{\"step\":3}\n{\"step\":4}\n{\"step\":5";
    cm_err e = {0};
    uint64_t upto = 2;
    CHECK(cm_write_file(p, rows, strlen(rows), &e) && cm_rows_repair(p, &upto, &e));
    CHECK(file_is(t_tmpdir(), "rows.jsonl",
                  "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":2}\n"));
    CHECK(cm_write_file(p, "torn", 4, &e) && cm_rows_repair(p, NULL, &e));
    CHECK(file_is(t_tmpdir(), "rows.jsonl", ""));
    free(p);
}

/* ---- signals ----------------------------------------------------------------------- */

/* Run fn in a child with quiet stderr; its wait status. */
static int in_child(void (*fn)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(99);
        fn();
        _exit(0);
    }
    int st = 0;
    waitpid(pid, &st, 0);
    return st;
}

static void stop_then_reraise(void) {
    cm_signals_install();
    if (cm_signal_stop() || cm_signal_save())
        _exit(1);
    raise(SIGUSR1);
    if (cm_signal_stop() || !cm_signal_save() || cm_signal_save())
        _exit(2);
    raise(SIGTERM);
    if (cm_signal_stop() != SIGTERM)
        _exit(3);
    cm_signal_reraise(SIGTERM);
}

static void interrupt_twice(void) {
    cm_signals_install();
    raise(SIGINT);
    raise(SIGINT);
    _exit(4);
}

static char *unfinished;
static void die_while_writing(void) {
    cm_out o;
    cm_err e;
    cm_signals_tidy();
    if (!cm_out_open(&o, unfinished, &e) || !cm_exists(o.tmp)) _exit(1);
    if (!freopen(unfinished, "w", stderr)) _exit(2); /* what is said goes there */
    raise(SIGHUP);
    _exit(3);
}

TEST(unfinished_outputs_go_with_the_process) {
    unfinished = cm_strf("%s/big.bin", t_tmpdir());
    int st = in_child(die_while_writing);
    CHECKF(WIFSIGNALED(st) && WTERMSIG(st) == SIGHUP, "status %x", (unsigned)st);
    char *text, *found = cm_strf("ls %s | grep -c 'big.bin.*tmp'", t_tmpdir());
    size_t n;
    cm_err e;
    CHECK(cm_read_file(unfinished, 1000, &text, &n, &e) &&
          !strncmp(text, "stopped; removed unfinished ", 28) && strstr(text, "big.bin."));
    FILE *f = popen(found, "r");
    CHECK(f && fgetc(f) == '0');
    if (f) pclose(f);
    free(text), free(found), free(unfinished);
}

TEST(signals) {
    int st = in_child(stop_then_reraise);
    CHECKF(WIFSIGNALED(st) && WTERMSIG(st) == SIGTERM, "status %x", (unsigned)st);
    st = in_child(interrupt_twice);
    CHECKF(WIFSIGNALED(st) && WTERMSIG(st) == SIGINT, "status %x", (unsigned)st);
    CHECK(cm_run_state_of_exit(130) == CM_RUN_INTERRUPTED);
    CHECK(cm_run_state_of_exit(6) == CM_RUN_DIVERGED);
    CHECK(cm_run_state_of_exit(7) == CM_RUN_FAILED &&
          cm_run_state_of_exit(0) == CM_RUN_DONE);
}

/* ---- progress ---------------------------------------------------------------------- */

static double fake_time;
static double fake_clock(void) { return fake_time; }

TEST(rate_and_time_left) {
    cm_rate r = {0};
    CHECK(cm_rate_left(&r, 100) == -1);
    cm_rate_add(&r, 1000, 500); /* a resumed run starts at 500 */
    CHECK(cm_rate_left(&r, 100000) == -1);
    for (int i = 1; i <= 100; i++)
        cm_rate_add(&r, 1000 + 2 * i, 500 + 40 * i);
    CHECKF(fabs(r.rate - 20) < 1e-9, "%g", r.rate);
    CHECK(fabs(cm_rate_left(&r, 4500 + 2000) - 100) < 1e-6);
    CHECK(cm_rate_left(&r, 4000) == 0 && cm_rate_left(&r, 0) == -1);
    for (int i = 1; i <= 60; i++) /* twice as slow: two minutes later it knows */
        cm_rate_add(&r, 1200 + 2 * i, 4500 + 20 * i);
    CHECKF(fabs(r.rate - 10) < 0.3, "%g", r.rate);
    double before = r.rate;
    cm_rate_add(&r, r.t, r.done + 5); /* no time has passed: nothing to learn */
    CHECK(r.rate == before);
}

TEST(durations) {
    char b[32];
    CHECK(!strcmp(cm_duration_text(45.2, b), "45s"));
    CHECK(!strcmp(cm_duration_text(59.6, b), "1m00s"));
    CHECK(!strcmp(cm_duration_text(750, b), "12m30s"));
    CHECK(!strcmp(cm_duration_text(4 * 3600 + 14 * 60, b), "4h14m"));
    CHECK(!strcmp(cm_duration_text(3 * 86400 + 7300, b), "3d02h"));
    CHECK(!strcmp(cm_duration_text(-1, b), "?"));
    CHECK(!strcmp(cm_duration_text(NAN, b), "?"));
}

static char *shown(cm_progress_mode mode, double gap, double dt, int n) {
    char *path = cm_strf("%s/progress", t_tmpdir());
    cm_progress p;
    cm_progress_open(&p, "job", "steps", 1000, gap, mode, NULL);
    p.out = fopen(path, "w");
    p.clock = fake_clock;
    for (int i = 0; i <= n; i++) {
        fake_time = 50 + dt * i;
        cm_progress_show(&p, 10 * i, "loss=%d", i);
    }
    cm_progress_close(&p);
    fclose(p.out);
    char *s = slurp(path);
    free(path);
    return s;
}

TEST(plain_progress) {
    char *s = shown(CM_PROGRESS_PLAIN, 1, 2, 2);
    CHECKF(!strcmp(s, "job 0/1.00k steps  0.00 steps/s  eta ?  loss=0\n"
                      "job 10/1.00k steps  5.00 steps/s  eta 3m18s  loss=1\n"
                      "job 20/1.00k steps  5.00 steps/s  eta 3m16s  loss=2\n"), "%s", s);
    free(s);
    s = shown(CM_PROGRESS_PLAIN, 0, 0.01, 350); /* 3.5 s: lines at 0, 1, 2, 3 s */
    int lines = 0;
    for (char *p = s; *p; p++) {
        lines += *p == '\n';
        CHECK(*p != '\r' && *p != '\033');
    }
    CHECKF(lines == 4, "%d lines:\n%s", lines, s);
    free(s);
    s = shown(CM_PROGRESS_PLAIN, 60, 0.01, 100); /* the first and the last, once */
    lines = 0;
    for (char *p = s; *p; p++)
        lines += *p == '\n';
    CHECKF(lines == 2 && strstr(s, "eta 0s  loss=100\n"), "%s", s);
    free(s);
    s = shown(CM_PROGRESS_NONE, 1, 2, 2);
    CHECK(!*s);
    free(s);
}

TEST(bar_progress) {
    char *s = shown(CM_PROGRESS_BAR, 1, 2, 50);
    CHECKF(strstr(s, "\r\033[K[##########----------] job 500/1.00k steps  5.00 steps/s"), "%s",
           s);
    CHECK(s[strlen(s) - 1] == '\n' && strchr(s, '\n') == s + strlen(s) - 1);
    free(s);
}

TEST(no_bar_where_none_can_be_shown) {
    setenv("TERM", "dumb", 1);
    CHECK(cm_progress_auto() == CM_PROGRESS_PLAIN);
    setenv("TERM", "xterm", 1);
    setenv("NO_COLOR", "1", 1);
    CHECK(cm_progress_auto() == CM_PROGRESS_PLAIN);
}

TEST(machine_is_described) {
    cm_buf b = {0};
    cm_machine_json(&b);
    CHECKF(!strncmp(b.s, "\"machine\":{\"cpu\":\"", 18) && strstr(b.s, "\"cores\":"),
           "%s", b.s);
    cm_buf_free(&b);
}
