/* app.c -- cm_app_main: parse, load, check, run, report, in that order, for all tools.
 *
 * Results go to stdout; what goes wrong goes to stderr as `tool: error: sentence`, or
 * `file:line:col: error: sentence` for configuration, and decides the exit code. */
#include "app/app_priv.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* The key's words stand in the order of the kernels' own enum. */
_Static_assert((int)CM_CONF_STRICT == (int)CM_NUMERICS_STRICT &&
                   (int)CM_CONF_FAST == (int)CM_NUMERICS_FAST,
               "numerics choices");
_Static_assert((int)CM_CONF_FP32 == (int)CM_COMPUTE_FP32 &&
                   (int)CM_CONF_BF16 == (int)CM_COMPUTE_BF16,
               "compute choices");

static void free_ctx(cm_app_ctx *c) {
    free(c->words.v);
    free(c->configs.v);
    free(c->settings.v);
    free(c->given.v);
    free(c->given_values.v);
    cm_conf_close(&c->conf);
}

static void say(const char *msg) {
    if (strstr(msg, ": error: ")) /* has its own place in front */
        fprintf(stderr, "%s\n", msg);
    else
        cm_log(CM_LOG_ERROR, "%s", msg);
}

static int usage_error(cm_app_ctx *c, const cm_err *err) {
    say(err->msg);
    fprintf(stderr, "see %s --help\n", cm_app_called(c));
    free_ctx(c);
    return err->code;
}

/* Print and make sure that it arrived: a full disk behind stdout is an error. */
static int print_out(cm_buf *text) {
    if (text->n)
        fwrite(text->s, 1, text->n, stdout);
    cm_buf_free(text);
    if (fflush(stdout) == 0 && !ferror(stdout))
        return CM_EXIT_OK;
    cm_err err = {0};
    cm_fail_errno(&err, CM_EXIT_FAIL, "cannot write to standard output");
    say(err.msg);
    return err.code;
}

static bool load(cm_app_ctx *c) {
    for (int i = 0; i < c->configs.n; i++)
        cm_conf_file(&c->conf, c->configs.v[i]);
    for (int i = 0; i < c->settings.n; i++)
        cm_conf_set(&c->conf, c->settings.v[i]);
    if (cm_conf_check(&c->conf, NULL))
        return true;
    fputs(cm_conf_errors(&c->conf), stderr);
    return false;
}

/* True: everything there was to do was to print something; *code is the exit code. */
static bool only_prints(cm_app_ctx *c, int *code) {
    cm_buf out = {0};
    if (c->help && !cm_app_topic(c, &out)) {
        cm_log(CM_LOG_ERROR, "no help on '%s'; there is config, config:SECTION, exit, man",
               c->help);
        *code = CM_EXIT_USAGE;
        return true;
    }
    if (!c->help && c->version)
        cm_app_version(c->app, &out);
    if (!c->help && !c->version)
        return false;
    *code = print_out(&out);
    return true;
}

static bool start_kernels(const cm_app_ctx *c, cm_err *err) {
    cm_numerics how = (cm_numerics)c->conf.top.numerics;
    char why[CM_BLAS_TEXT];
    if (!cm_kern_init(how, c->threads, err)) return false;
    if (how == CM_NUMERICS_FAST && cm_blas_below_cpu(why)) cm_log(CM_LOG_WARN, "%s", why);
    return true;
}

static int run_tool(cm_app_ctx *c) {
    cm_err err = {0};
    bool ok = (c->app->no_kernels || start_kernels(c, &err)) && c->app->run(c, &err);
    int code = ok ? c->exit : err.code ? (int)err.code : CM_EXIT_FAIL;
    if (!ok)
        say(err.msg);
    cm_buf none = {0};
    int arrived = print_out(&none);
    return code == CM_EXIT_OK ? arrived : code;
}

int cm_app_main(int argc, char **argv, const cm_app *app) {
    cm_app_ctx c = {.app = app, .runs = "runs",
                    .run = {.fd_dir = -1, .fd_lock = -1, .fd_metrics = -1,
                            .fd_events = -1}};
    cm_err err = {0};
    int code = CM_EXIT_OK;
    if (!app->no_kernels) cm_spin_briefly(argv);
    /* A file that hits a size limit is an error to report, not a death. */
    signal(SIGXFSZ, SIG_IGN);
    cm_signals_tidy();
    cm_log_setup(app->name, CM_LOG_INFO);
    if (!cm_app_parse(&c, argc, argv, &err))
        return usage_error(&c, &err);
    cm_log_setup(app->name, c.quiet ? CM_LOG_WARN : CM_LOG_INFO);
    c.progress = c.quiet ? CM_PROGRESS_NONE : cm_progress_auto();
    cm_conf_open(&c.conf, app->sections ? app->sections : "");
    if (only_prints(&c, &code)) {
        free_ctx(&c);
        return code;
    }
    if (!load(&c)) {
        free_ctx(&c);
        return CM_EXIT_USAGE;
    }
    if (c.threads < 0)
        c.threads = (int)c.conf.top.threads;
    if (c.print_config) {
        cm_buf out = {0};
        cm_conf_dump(&c.conf, true, &out);
        code = print_out(&out);
    } else {
        code = run_tool(&c);
    }
    int sig = code == CM_EXIT_OK || code >= 128 ? cm_signal_stop() : 0;
    if (sig)
        code = 128 + sig;
    cm_run_state state = cm_run_state_of_exit(code);
    if (state == CM_RUN_DONE && c.run.unfinished) state = CM_RUN_INTERRUPTED;
    if (!cm_run_close(&c.run, state, code) && code == CM_EXIT_OK) code = CM_EXIT_FAIL;
    free_ctx(&c);
    if (sig)
        cm_signal_reraise(sig);
    return code;
}
