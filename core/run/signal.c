/* signal.c -- stop and save requests as flags that loops poll. */
#include "run/run.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

/* SIGHUP: the terminal went away. */
static const int stops[] = { SIGINT, SIGTERM, SIGHUP };

static volatile sig_atomic_t stop_sig, save_asked;
static const char *announced = "stopping";

static void say(const char *s) {
    if (write(STDERR_FILENO, s, strlen(s)) < 0)
        return; /* nothing left to tell it to */
}

/* Nobody polls: the program ends here, without what it had begun to write. */
static void on_end(int sig) {
    cm_temps_drop(say);
    signal(sig, SIG_DFL);
    raise(sig);
}

static void on_stop(int sig) {
    if (stop_sig) { /* asked twice: the user means now */
        on_end(sig);
        return;
    }
    stop_sig = sig;
    say("\n");
    say(announced);
    say("; once more to quit at once\n");
}

static void on_save(int sig) {
    (void)sig;
    save_asked = 1;
}

/* As SIGHUP under nohup, and SIGINT in a script's background. */
static bool ignored(int sig) {
    struct sigaction now;
    return !sigaction(sig, NULL, &now) && now.sa_handler == SIG_IGN;
}

void cm_signals_tidy(void) {
    struct sigaction sa = {.sa_handler = on_end};
    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
        if (!ignored(stops[i])) sigaction(stops[i], &sa, NULL);
}

void cm_signals_install(void) { cm_signals_install_as("stopping"); }

void cm_signals_install_as(const char *what) {
    announced = what;
    stop_sig = save_asked = 0;
    struct sigaction sa = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
        if (stops[i] != SIGHUP || !ignored(SIGHUP)) sigaction(stops[i], &sa, NULL);
    sa.sa_handler = on_save;
    sigaction(SIGUSR1, &sa, NULL);
}

void cm_signals_release(void) {
    cm_signals_tidy();
    stop_sig = 0;
}

int cm_signal_stop(void) { return stop_sig; }

bool cm_signal_go_on(cm_err *err) {
    int sig = stop_sig;
    return !sig || cm_fail(err, (cm_exit)(128 + sig), "stopped by signal %d", sig);
}

bool cm_signal_ended(const cm_err *err) { return err->code > 128; }

bool cm_signal_save(void) {
    if (!save_asked)
        return false;
    save_asked = 0;
    return true;
}

void cm_signal_reraise(int sig) {
    sigset_t one;
    signal(sig, SIG_DFL);
    sigemptyset(&one);
    sigaddset(&one, sig);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
    raise(sig);
}
