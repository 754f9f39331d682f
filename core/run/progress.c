/* progress.c -- how far, how fast, how long: a bar on a terminal, plain lines elsewhere.
 *
 * Plain lines never hold control characters and come at most once a second, so a log
 * of a long run stays small.  The clock is a field: tests bring their own. */
#include "run/run.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const double rate_memory_s = 30, bar_gap_s = 0.1;

/* ---- rate -------------------------------------------------------------------------- */

/* A stretch of dt seconds weighs dt / memory.  While the memory is the age itself that
 * makes the plain mean so far; later a first-order filter.  A constant rate is exact. */
void cm_rate_add(cm_rate *r, double now, double done) {
    if (!r->started) {
        *r = (cm_rate){.t0 = now, .t = now, .done = done, .started = true};
        return;
    }
    double dt = now - r->t;
    if (dt <= 0)
        return;
    double age = now - r->t0, memory = age < rate_memory_s ? age : rate_memory_s;
    double w = dt / memory < 1 ? dt / memory : 1;
    r->rate += w * ((done - r->done) / dt - r->rate);
    r->t = now;
    r->done = done;
}

double cm_rate_left(const cm_rate *r, double total) {
    if (total <= r->done)
        return total > 0 ? 0 : -1;
    return r->rate > 0 ? (total - r->done) / r->rate : -1;
}

const char *cm_duration_text(double s, char buf[32]) {
    if (!(s >= 0) || s > 1e9) {
        snprintf(buf, 32, "?");
        return buf;
    }
    long t = (long)(s + 0.5);
    if (t < 60)
        snprintf(buf, 32, "%lds", t);
    else if (t < 3600)
        snprintf(buf, 32, "%ldm%02lds", t / 60, t % 60);
    else if (t < 86400)
        snprintf(buf, 32, "%ldh%02ldm", t / 3600, t / 60 % 60);
    else
        snprintf(buf, 32, "%ldd%02ldh", t / 86400, t / 3600 % 24);
    return buf;
}

/* ---- showing ----------------------------------------------------------------------- */

static bool is_set(const char *name) {
    const char *v = getenv(name);
    return v && *v;
}

cm_progress_mode cm_progress_auto(void) {
    const char *term = getenv("TERM");
    bool able = isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb");
    return able && !is_set("NO_COLOR") && !is_set("CI") ? CM_PROGRESS_BAR
                                                       : CM_PROGRESS_PLAIN;
}

static cm_progress *on_screen; /* the bar a log line has to step over */

static void clear_bar(void) {
    if (on_screen && on_screen->dirty) {
        fputs("\r\033[K", on_screen->out);
        fflush(on_screen->out);
        on_screen->dirty = false;
    }
}

void cm_progress_open(cm_progress *p, const char *label, const char *unit, double total,
                      double gap, cm_progress_mode mode, FILE *log) {
    *p = (cm_progress){.label = label, .unit = unit, .total = total, .mode = mode,
                       .gap = gap < 1 ? 1 : gap, .out = stderr, .log = log,
                       .clock = cm_now, .shown = -1e9, .logged = -1e9};
    if (mode == CM_PROGRESS_BAR) {
        on_screen = p;
        cm_log_before(clear_bar);
    }
}

static int terminal_width(FILE *f) {
    struct winsize w;
    return ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

/* "pretrain 1.20k/20.0k tok  341 tok/s  eta 4h14m  loss=3.41" */
static void describe(const cm_progress *p, const char *more, char *s, size_t cap) {
    char done[32], total[32], rate[32], left[32];
    cm_human_count(p->rate.done, done, sizeof done);
    cm_human_count(p->total, total, sizeof total);
    cm_human_count(p->rate.rate, rate, sizeof rate);
    cm_duration_text(cm_rate_left(&p->rate, p->total), left);
    if (p->rate.rate < 10) /* counts have no fractions; slow rates need them */
        snprintf(rate, sizeof rate, "%.2f", p->rate.rate);
    if (p->total > 0)
        snprintf(s, cap, "%s %s/%s %s  %s %s/s  eta %s%s%s", p->label, done, total, p->unit,
                 rate, p->unit, left, *more ? "  " : "", more);
    else
        snprintf(s, cap, "%s %s %s  %s %s/s%s%s", p->label, done, p->unit, rate, p->unit,
                 *more ? "  " : "", more);
}

static void show_bar(cm_progress *p, const char *text) {
    enum { CELLS = 20 };
    char bar[CELLS + 4] = "";
    if (p->total > 0) {
        double part = p->rate.done / p->total;
        int full = part >= 1 ? CELLS : part > 0 ? (int)(part * CELLS) : 0;
        bar[0] = '[';
        memset(bar + 1, '#', (size_t)full);
        memset(bar + 1 + full, '-', (size_t)(CELLS - full));
        memcpy(bar + 1 + CELLS, "] ", 3);
    }
    int room = terminal_width(p->out) - 1 - (int)strlen(bar);
    fprintf(p->out, "\r\033[K%s%.*s", bar, room > 0 ? room : 0, text);
    fflush(p->out);
    p->dirty = true;
}

void cm_progress_show(cm_progress *p, double done, const char *fmt, ...) {
    double now = p->clock();
    cm_rate_add(&p->rate, now, done);
    double wait = p->mode == CM_PROGRESS_BAR ? bar_gap_s : p->gap;
    bool end = p->total > 0 && done >= p->total && !p->ended; /* always shown */
    bool show = p->mode != CM_PROGRESS_NONE && (end || now - p->shown >= wait);
    bool log = p->log && (end || now - p->logged >= p->gap);
    p->ended |= end;
    if (!show && !log)
        return;
    char more[512], text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(more, sizeof more, fmt, ap);
    va_end(ap);
    describe(p, more, text, sizeof text);
    if (show && p->mode == CM_PROGRESS_BAR)
        show_bar(p, text);
    else if (show)
        fprintf(p->out, "%s\n", text);
    if (log)
        fprintf(p->log, "%s\n", text);
    p->shown = show ? now : p->shown;
    p->logged = log ? now : p->logged;
}

void cm_progress_close(cm_progress *p) {
    if (p->mode != CM_PROGRESS_BAR)
        return;
    if (p->dirty)
        fputc('\n', p->out); /* the last state stays to be read */
    p->dirty = false;
    cm_log_before(NULL);
    on_screen = NULL;
}
