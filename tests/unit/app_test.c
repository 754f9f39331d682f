/* app_test.c -- the command line every tool shares, run as a tool in a child process. */
#include "app/app.h"
#include "tests/t.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a tool ----------------------------------------------------------------------- */

static bool tool_run(cm_app_ctx *c, cm_err *err) {
    const char *act = cm_app_text(c, "act");
    int64_t n = 5;
    double f = 0.5;
    if (!cm_app_i64(c, "n", 1, 100, &n, err) || !cm_app_f64(c, "f", 0, 1, &f, err))
        return false;
    if (act && !strcmp(act, "fail"))
        return cm_fail(err, CM_EXIT_DATA, "x.bin: bad magic");
    if (act && !strcmp(act, "conf"))
        return cm_conf_bad(&c->conf, err, "optim.lr", "too large");
    if (act && !strcmp(act, "check"))
        c->exit = CM_EXIT_CHECK;
    if (act && !strncmp(act, "run", 3)) {
        if (!cm_app_run_open(c, NULL, err))
            return false;
        if (c->run.skip)
            return true;
        printf("%s%s ", c->run.dir + strlen(c->runs), c->run.resumed ? " resumed" : "");
        if (!strcmp(act, "run-sig"))
            raise(SIGTERM);
        if (!strcmp(act, "run-nan"))
            return cm_fail(err, CM_EXIT_DIVERGED, "loss is NaN");
    }
    printf("lr=%g n=%lld f=%g v=%d words=%d:%s stop=%s,%s threads=%d dry=%d\n",
           c->conf.optim.lr, (long long)n, f, cm_app_switch(c, "verbose"), c->words.n,
           c->words.n ? c->words.v[0] : "", cm_app_text_at(c, "stop", 0)
           ? cm_app_text_at(c, "stop", 0) : "", cm_app_text_at(c, "stop", 1)
           ? cm_app_text_at(c, "stop", 1) : "", c->threads, c->dry_run);
    return true;
}

static const cm_app_opt tool_options[] = {{"act", "WHAT", "what to do"},
                                          {"n", "N", "a number"},
                                          {"f", "X", "a fraction"},
                                          {"stop", "TEXT", "may be repeated"},
                                          {"verbose", NULL, "a switch"},
                                          {0}};
static const cm_app tool = {.name = "tool", .summary = "a tool for tests",
                            .words = "[WORD ...]", .sections = "optim log",
                            .examples = "  tool --act fail\n", .options = tool_options,
                            .repeatable = " stop ",
                            .has_run = true, .no_kernels = true, .run = tool_run};

static char *read_all(const char *path) {
    char *s = NULL;
    size_t n;
    return cm_read_file(path, 1 << 20, &s, &n, NULL) ? s : cm_strf("%s", "");
}

static char *out, *err_text;

/* Run the tool on a command line split at spaces; its exit status (or -signal). */
static int tool_on(const cm_app *app, const char *line) {
    char *o = cm_strf("%s/out", t_tmpdir()), *e = cm_strf("%s/err", t_tmpdir());
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        static char copy[512]; /* static: what argv points to is no leak */
        char *argv[32] = {(char *)(uintptr_t)"tool"}, *rest = copy;
        int argc = 1;
        snprintf(copy, sizeof copy, "%s", line);
        for (char *w; (w = strsep(&rest, " "));)
            if (*w)
                argv[argc++] = w;
        if (chdir(t_tmpdir()) || !freopen(o, "w", stdout) || !freopen(e, "w", stderr))
            _exit(99);
        exit(cm_app_main(argc, argv, app)); /* exit: sanitizers look for leaks */
    }
    int st = 0;
    waitpid(pid, &st, 0);
    free(out), free(err_text);
    out = read_all(o), err_text = read_all(e);
    free(o), free(e);
    return WIFSIGNALED(st) ? -WTERMSIG(st) : WEXITSTATUS(st);
}

static void check_at(int line, const char *args, int code, const char *want_out,
                     const char *want_err) {
    int got = tool_on(&tool, args);
    if (got != code || (want_out && strcmp(out, want_out)) ||
        (want_err && strcmp(err_text, want_err)))
        t_fail(__FILE__, line, "tool %s: exit %d, want %d\n    out  %s\n    want %s\n"
               "    err  %s\n    want %s", args, got, code, out,
               want_out ? want_out : "-", err_text, want_err ? want_err : "-");
}
#define RUNS(args, code, o, e) check_at(__LINE__, args, code, o, e)
#define HINT "see tool --help\n"

/* ---- options ---------------------------------------------------------------------- */

TEST(options_and_words) {
    RUNS("", 0, "lr=0.001 n=5 f=0.5 v=0 words=0: stop=, threads=0 dry=0\n", "");
    RUNS("--n 7 --f=0.25 --verbose optim.lr=2 a b --stop=x --stop y --threads 3 "
         "--dry-run", 0, "lr=2 n=7 f=0.25 v=1 words=2:a stop=x,y threads=3 dry=1\n", "");
    RUNS("threads=2 -- --n x=1", 0,
         "lr=0.001 n=5 f=0.5 v=0 words=2:--n stop=, threads=2 dry=0\n", "");
    RUNS("-", 0, "lr=0.001 n=5 f=0.5 v=0 words=1:- stop=, threads=0 dry=0\n", "");
}

TEST(wrong_options) {
    RUNS("--verbos", 2, "", "tool: error: unknown option '--verbos'; did you mean "
                            "'--verbose'?\n" HINT);
    RUNS("--zzzzzz", 2, "", "tool: error: unknown option '--zzzzzz'\n" HINT);
    RUNS("-x", 2, "", "tool: error: unknown option '-x'\n" HINT);
    RUNS("--n", 2, "", "tool: error: option '--n' wants a value: --n=N\n" HINT);
    RUNS("--verbose=1", 2, "", "tool: error: option '--verbose' takes no value\n" HINT);
    RUNS("--n 101", 2, "", "tool: error: --n=101: wants an integer in 1..100\n");
    RUNS("--f nan", 2, "", "tool: error: --f=nan: wants a number in 0..1\n");
    RUNS("--threads two", 2, "", "tool: error: --threads=two: wants 0..4096\n" HINT);
    RUNS("--resume=perhaps", 2, "",
         "tool: error: --resume=perhaps: wants auto, must or never\n" HINT);
    cm_app plain = tool;
    plain.words = NULL;
    plain.has_run = false;
    CHECK(tool_on(&plain, "word") == 2);
    CHECK(!strcmp(err_text, "tool: error: 'word' is neither an option nor "
                            "section.key=value\n" HINT));
    CHECK(tool_on(&plain, "--resume=auto") == 2);
}

TEST(configuration_errors_are_lines) {
    char *p = cm_strf("%s/bad.yaml", t_tmpdir());
    const char *y = "optim:\n  learning_rate: 1\n  lr: -1\nmodel: {d_model: 8}\n";
    cm_write_file(p, y, strlen(y), NULL);
    RUNS("--config bad.yaml optim.beta1=x model.d_model=3", 2, "",
         "bad.yaml:2:3: error: unknown key 'optim.learning_rate'; did you mean "
         "'optim.lr'?\n"
         "bad.yaml:3:7: error: optim.lr = -1 is outside 0..10\n"
         "command line: error: optim.beta1 = x is not a number\n"
         "command line: error: model.d_model: this tool does not use section 'model'\n");
    RUNS("--config none.yaml", 2, "",
         "none.yaml: error: cannot open: No such file or directory\n");
    free(p);
}

TEST(configs_overlay_in_order) {
    char *a = cm_strf("%s/a.yaml", t_tmpdir()), *b = cm_strf("%s/b.yaml", t_tmpdir());
    cm_write_file(a, "optim: {lr: 1, eps: 0.5}\n", 25, NULL);
    cm_write_file(b, "optim: {lr: 2}\n", 15, NULL);
    CHECK(tool_on(&tool, "log.every=7 --config a.yaml --config=b.yaml "
                         "--print-config") == 0);
    CHECKF(strstr(out, "  lr: 2                             # b.yaml:1\n") &&
               strstr(out, "  eps: 0.5                          # a.yaml:1\n") &&
               strstr(out, "  every: 7                          # command line\n") &&
               strstr(out, "seed: 42                            # default\n") &&
               !strstr(out, "model:"),
           "%s", out);
    char *p = cm_strf("%s/printed.yaml", t_tmpdir()), *first = cm_strf("%s", out);
    cm_write_file(p, out, strlen(out), NULL);
    CHECK(tool_on(&tool, "--config printed.yaml --print-config") == 0);
    CHECK(strstr(out, "  lr: 2  "));
    free(a), free(b), free(p), free(first);
}

/* ---- exit codes and help ---------------------------------------------------------- */

TEST(exit_codes) {
    RUNS("--act fail", 4, "", "tool: error: x.bin: bad magic\n");
    RUNS("--act check", 3, NULL, "");
    RUNS("--act conf optim.lr=3", 2, "",
         "command line: error: optim.lr: too large\n");
}

TEST(help_and_version) {
    CHECK(tool_on(&tool, "--act fail --help") == 0);
    CHECK(!strncmp(out, "tool -- a tool for tests\n\nusage: tool [WORD ...]", 47));
    int lines = 0;
    for (char *p = out; *p; p++)
        lines += *p == '\n';
    CHECKF(lines <= 40, "%d lines of help", lines);
    CHECK(strstr(out, "  --verbose              a switch\n") &&
          strstr(out, "  --help[=TOPIC] ") && strstr(out, "  6     training diverged"));
    CHECK(tool_on(&tool, "--help=config") == 0 && strstr(out, "optim -- ") &&
          !strstr(out, "model -- "));
    CHECK(tool_on(&tool, "--help=config:model") == 0 && strstr(out, "model -- "));
    CHECK(tool_on(&tool, "--help=exit") == 0 && !strncmp(out, "  0     success\n", 16));
    CHECK(tool_on(&tool, "--help=nothing") == 2);
    CHECK(tool_on(&tool, "--help=markdown") == 0 && strstr(out, "| `optim.lr` | number"));
    CHECK(tool_on(&tool, "-V") == 0 && strstr(out, "OpenBLAS 0.") &&
          !strncmp(out, "chimera-tool " CM_VERSION " (", 16));
}

TEST(full_standard_output_is_an_error) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {(char *)(uintptr_t)"tool", (char *)(uintptr_t)"--help"};
        if (!freopen("/dev/full", "w", stdout) || !freopen("/dev/null", "w", stderr))
            _exit(99);
        exit(cm_app_main(2, argv, &tool));
    }
    int st;
    waitpid(pid, &st, 0);
    CHECKF(WIFEXITED(st) && WEXITSTATUS(st) == CM_EXIT_RESOURCE, "%x", (unsigned)st);
}

/* ---- run folders ------------------------------------------------------------------ */

static bool state_is(const char *run, const char *state) {
    char *p = cm_strf("%s/runs/%s/status.json", t_tmpdir(), run), *s = read_all(p);
    char *want = cm_strf("{\"state\":\"%s\"", state);
    bool same = !strncmp(s, want, strlen(want));
    free(p), free(s), free(want);
    return same;
}

TEST(run_folder_life) {
    CHECK(tool_on(&tool, "--act run-sig name=a optim.lr=1") == -SIGTERM);
    CHECK(state_is("a", "interrupted"));
    CHECK(tool_on(&tool, "--act run name=a optim.lr=2") == 2);
    CHECKF(strstr(err_text, "cannot go on with another configuration (optim.lr: 1 -> 2)"),
           "%s", err_text);
    CHECK(state_is("a", "interrupted"));
    CHECK(tool_on(&tool, "--act run-nan name=a optim.lr=1 log.every=3 threads=2") == 6);
    CHECK(!strncmp(out, "/a resumed ", 11) && state_is("a", "diverged"));
    CHECK(tool_on(&tool, "--act run name=a optim.lr=2 --resume=never") == 2);
    CHECK(tool_on(&tool, "--act run name=a optim.lr=2 --resume=must") == 0);
    CHECK(strstr(err_text, "resuming with optim.lr: 1 -> 2") && state_is("a", "done"));
    CHECK(tool_on(&tool, "--act run name=a optim.lr=2") == 2);
    CHECK(tool_on(&tool, "--act run name=a optim.lr=2 --if-done=skip") == 0 && !*out);
    CHECK(tool_on(&tool, "--act run name=a optim.lr=2 --if-done=redo") == 0);
    CHECK(!strncmp(out, "/a lr=2", 7));
}

TEST(run_names) {
    char *p = cm_strf("%s/tiny.v2.yaml", t_tmpdir());
    cm_write_file(p, "seed: 3\ntokenize: {level: 9}\n", 29, NULL);
    CHECK(tool_on(&tool, "--act run --config tiny.v2.yaml") == 0);
    CHECK(!strncmp(out, "/tiny.v2 lr", 11));
    RUNS("--act run name=../x", 2, "",
         "command line: error: name: '../x' is no name for a folder: letters, digits, - "
         "and _\n");
    CHECK(tool_on(&tool, "--act run --runs=other") == 0 && !strncmp(out, "/tool lr", 8));
    char *j = cm_strf("%s/other/tool/run.json", t_tmpdir()), *s = read_all(j);
    CHECKF(strstr(s, "\"argv\":[\"tool\",\"--act\",\"run\",\"--runs=other\"]") &&
               strstr(s, "\"version\":\"chimera-tool"), "%s", s);
    free(p), free(j), free(s);
}
