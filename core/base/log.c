/* log.c -- one line per event on stderr, the same line into the run's log, and time.
 *
 * A line is formatted whole and written by one call, so lines of several threads never
 * mix; a sentence ends at 2 kB. */
#include "base/base.h"

#include <stdatomic.h>
#include <time.h>

static struct {
    const char *tool;
    cm_level least;
    FILE *tee;
    void (*before)(void);
} cfg = {.tool = "chimera", .least = CM_LOG_INFO};
static atomic_int warnings;

void cm_log_setup(const char *tool, cm_level least) {
    cfg.tool = tool;
    cfg.least = least;
}

void cm_log_tee(FILE *f) { cfg.tee = f; }
void cm_log_before(void (*fn)(void)) { cfg.before = fn; }
int cm_log_warnings(void) { return atomic_load(&warnings); }

void cm_log(cm_level lv, const char *fmt, ...) {
    static const char *const level[] = {"debug", "info", "warning", "error"};
    if (lv == CM_LOG_WARN)
        atomic_fetch_add(&warnings, 1);
    if (lv < cfg.least && !cfg.tee)
        return;
    va_list ap;
    va_start(ap, fmt);
    char text[2048]; /* on the stack: training steps do not allocate */
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (lv >= cfg.least) {
        if (cfg.before)
            cfg.before();
        fprintf(stderr, "%s: %s: %s\n", cfg.tool, level[lv], text);
    }
    if (cfg.tee && lv >= CM_LOG_INFO) {
        fprintf(cfg.tee, "%s: %s: %s\n", cfg.tool, level[lv], text);
        fflush(cfg.tee);
    }
}

double cm_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
