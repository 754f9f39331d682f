/* svg.c -- scales with round ticks, axes, and marks with hover texts. */
#include "report/svg.h"

#include <math.h>
#include <string.h>

const char cm_chart_css[] =
    ":root{--ink:#1c1e21;--soft:#5f666f;--rule:#d9dcdf;--grid:#eceef0;--page:#fff;"
    "--panel:#f6f7f8;--c0:#3b6fb6;--c1:#d2691e;--c2:#2f8f6b;--c3:#8a5fb0;--c4:#b8860b;"
    "--c5:#c2497b;--c6:#4c7f8c;--c7:#7a6a58;--pass:#1a7f4b;--fail:#c0302b;--unsure:#9a6700}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#9aa3ad;--rule:#3a4048;"
    "--grid:#2a2f35;--page:#15181c;--panel:#1d2126;--c0:#79a8e8;--c1:#f0944d;--c2:#5cc49b;"
    "--c3:#bd97e0;--c4:#e0b84a;--c5:#ee86b0;--c6:#86bcc9;--c7:#b9a894;--pass:#4cc38a;"
    "--fail:#ff7b72;--unsure:#e3b341}}"
    "svg{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;"
    "font-variant-numeric:tabular-nums}"
    "svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}svg .small{font-size:11px}"
    "svg .head{font-weight:600}"
    "svg .grid{stroke:var(--grid)}svg .axis{stroke:var(--rule)}"
    "svg .zero{stroke:var(--soft)}svg .edge{stroke:var(--fail);stroke-dasharray:4 3}"
    "svg .band{fill:var(--fail);fill-opacity:.06}svg .row{fill:var(--panel)}"
    "svg .diag{stroke:var(--soft);stroke-dasharray:3 4}"
    "svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
    "svg .dash{stroke-dasharray:7 4}svg .dot2{stroke-dasharray:2 4}"
    "svg .ci{stroke-width:2.2;stroke-linecap:round}svg .hit{fill:transparent}"
    "svg .hit:hover{fill:var(--ink);fill-opacity:.07}"
    "svg .dot{stroke:var(--page);stroke-width:1}"
    "svg .bar{fill-opacity:.55}svg .bar:hover,svg .dot:hover{fill-opacity:1}"
    "svg .under{fill:var(--c0)}svg .over{fill:var(--c1)}svg .cell0{fill:var(--panel)}"
    "svg line.pass{stroke:var(--pass)}svg line.fail{stroke:var(--fail)}"
    "svg line.unsure{stroke:var(--unsure)}svg line.none{stroke:var(--soft)}"
    "svg circle.pass{fill:var(--pass)}svg circle.fail{fill:var(--fail)}"
    "svg circle.unsure{fill:var(--unsure)}svg circle.none{fill:var(--soft)}"
    "svg path.s0,svg line.s0{stroke:var(--c0)}svg path.s1,svg line.s1{stroke:var(--c1)}"
    "svg path.s2,svg line.s2{stroke:var(--c2)}svg path.s3,svg line.s3{stroke:var(--c3)}"
    "svg path.s4,svg line.s4{stroke:var(--c4)}svg path.s5,svg line.s5{stroke:var(--c5)}"
    "svg path.s6,svg line.s6{stroke:var(--c6)}svg path.s7,svg line.s7{stroke:var(--c7)}"
    "svg circle.s0,svg rect.s0{fill:var(--c0)}svg circle.s1,svg rect.s1{fill:var(--c1)}"
    "svg circle.s2,svg rect.s2{fill:var(--c2)}svg circle.s3,svg rect.s3{fill:var(--c3)}"
    "svg circle.s4,svg rect.s4{fill:var(--c4)}svg circle.s5,svg rect.s5{fill:var(--c5)}"
    "svg circle.s6,svg rect.s6{fill:var(--c6)}svg circle.s7,svg rect.s7{fill:var(--c7)}";

void cm_xml_textn(cm_buf *b, const char *s, size_t n) {
    static const char kept[] = "\t\n\r";
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        const char *as = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;"
                       : c == '"' ? "&quot;" : c == '\'' ? "&#39;" : NULL;
        if (as) cm_buf_add(b, as, strlen(as));
        else if (c >= ' ' ? c != 0x7f : c && strchr(kept, c)) cm_buf_add(b, s + i, 1);
    }
}

void cm_xml_text(cm_buf *b, const char *s) { cm_xml_textn(b, s, strlen(s)); }

/* ---- scales ----------------------------------------------------------------- */

/* 1, 2 or 5 times a power of ten: the step that gives about `want` ticks. */
static double round_step(double range, int want) {
    double raw = range / want, p = pow(10, floor(log10(raw))), m = raw / p;
    return p * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

static const double one_two_five[] = { 1, 2, 5, 10 };

/* The nearest of 1, 2, 5 times a power of ten at or below v, or at or above it. */
static double log_step(double v, bool up) {
    double p = pow(10, floor(log10(v) + 1e-12)), at = p;
    for (int i = 0; i < 4; i++) {
        double x = one_two_five[i] * p;
        if (up && x >= v * (1 - 1e-9)) return x;
        if (!up && x <= v * (1 + 1e-9)) at = x;
    }
    return at;
}

cm_scale cm_scale_nice(double lo, double hi, bool log, double from, double to, int want) {
    cm_scale s = { lo, hi, from, to, log };
    if (!(lo <= hi) || !isfinite(lo) || !isfinite(hi)) s.lo = 0, s.hi = 1, s.log = false;
    if (s.log && s.lo > 0) {
        s.lo = log_step(s.lo, false);
        s.hi = log_step(s.hi, true);
        if (s.lo == s.hi) s.hi *= 10;
        return s;
    }
    s.log = false;
    if (s.hi - s.lo <= 1e-12 * fmax(fabs(s.lo), fabs(s.hi))) {
        double pad = s.lo != 0 ? 0.05 * fabs(s.lo) : 1;
        s.lo -= pad, s.hi += pad;
    }
    for (int i = 0; i < 3; i++) { /* widening can ask for a wider step */
        double step = round_step(s.hi - s.lo, want);
        s.lo = step * floor(s.lo / step + 1e-9) + 0.0;
        s.hi = step * ceil(s.hi / step - 1e-9) + 0.0;
    }
    return s;
}

double cm_scale_at(const cm_scale *s, double v) {
    double t = s->log ? (v > 0 ? log10(v / s->lo) / log10(s->hi / s->lo) : 0)
                      : (v - s->lo) / (s->hi - s->lo);
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    return s->from + t * (s->to - s->from);
}

int cm_scale_ticks(const cm_scale *s, int want, double tick[CM_MAX_TICKS]) {
    int n = 0;
    if (s->log) { /* 1, 2, 5 over few decades, else each decade or every k-th */
        int first = (int)floor(log10(s->lo) + 1e-9), last = (int)floor(log10(s->hi) + 1e-9);
        int each = 1 + (last - first) / (want + 1), within = last - first <= 2 ? 3 : 1;
        for (int k = first; k <= last; k += each)
            for (int i = 0; i < within && n < CM_MAX_TICKS; i++) {
                double v = one_two_five[i] * pow(10, k);
                if (v >= s->lo * (1 - 1e-9) && v <= s->hi * (1 + 1e-9)) tick[n++] = v;
            }
        return n;
    }
    double step = round_step(s->hi - s->lo, want), at = ceil(s->lo / step - 1e-9);
    for (; at * step <= s->hi + 1e-9 * step && n < CM_MAX_TICKS; at++) tick[n++] = at * step + 0.0;
    return n;
}

const char *cm_tick_text(double v, char buf[32]) {
    double a = fabs(v);
    const char *unit = a >= 1e12 ? NULL : a >= 1e9 ? "G" : a >= 1e6 ? "M" : a >= 1e4 ? "k" : "";
    double by = a >= 1e9 ? 1e9 : a >= 1e6 ? 1e6 : a >= 1e4 ? 1e3 : 1;
    if (unit) snprintf(buf, 32, "%.6g%s", v / by, unit);
    else snprintf(buf, 32, "%.4g", v);
    return buf;
}

/* ---- marks ------------------------------------------------------------------- */

void cm_svg_open(cm_buf *b, double w, double h, const char *title) {
    cm_buf_addf(b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" "
                   "width=\"%g\" height=\"%g\" role=\"img\"><title>", w, h, w, h);
    cm_xml_text(b, title);
    cm_buf_addf(b, "</title>\n");
}

void cm_svg_close(cm_buf *b) { cm_buf_addf(b, "</svg>\n"); }

void cm_svg_text(cm_buf *b, double x, double y, const char *class, const char *anchor,
                 const char *s) {
    cm_buf_addf(b, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y, class,
                anchor);
    cm_xml_text(b, s);
    cm_buf_addf(b, "</text>\n");
}

void cm_svg_seg(cm_buf *b, double x1, double y1, double x2, double y2, const char *class) {
    cm_buf_addf(b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1,
                y1, x2, y2, class);
}

/* Ends an element that was opened without its closing bracket. */
static void finish(cm_buf *b, const char *element, const char *tip) {
    if (!tip) {
        cm_buf_addf(b, "/>\n");
        return;
    }
    cm_buf_addf(b, "><title>");
    cm_xml_text(b, tip);
    cm_buf_addf(b, "</title></%s>\n", element);
}

void cm_svg_rect(cm_buf *b, double x, double y, double w, double h, const char *class,
                 const char *tip) {
    cm_buf_addf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"%s\"", x,
                y, fmax(w, 0), fmax(h, 0), class);
    finish(b, "rect", tip);
}

void cm_svg_circle(cm_buf *b, double x, double y, double r, const char *class,
                   const char *tip) {
    cm_buf_addf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" class=\"%s\"", x, y, r, class);
    finish(b, "circle", tip);
}

void cm_svg_line(cm_buf *b, const cm_scale *sx, const cm_scale *sy, const double *x,
                 const double *y, int64_t n, const char *class) {
    bool pen = false;
    cm_buf_addf(b, "<path class=\"line %s\" d=\"", class);
    for (int64_t i = 0; i < n; i++) {
        bool ok = isfinite(y[i]) && isfinite(x[i]);
        if (ok)
            cm_buf_addf(b, "%c%.1f %.1f", pen ? 'L' : 'M', cm_scale_at(sx, x[i]),
                        cm_scale_at(sy, y[i]));
        pen = ok;
    }
    cm_buf_addf(b, "\"/>\n");
}

/* ---- furniture ------------------------------------------------------------------ */

void cm_svg_axes(cm_buf *b, const cm_scale *x, const cm_scale *y, const char *x_label,
                 const char *y_label) {
    double tick[CM_MAX_TICKS];
    char text[32];
    int n = cm_scale_ticks(y, 5, tick);
    for (int i = 0; i < n; i++) {
        double at = cm_scale_at(y, tick[i]);
        cm_svg_seg(b, x->from, at, x->to, at, "grid");
        cm_svg_text(b, x->from - 7, at + 4, "soft small", "end", cm_tick_text(tick[i], text));
    }
    n = cm_scale_ticks(x, 6, tick);
    for (int i = 0; i < n; i++) {
        double at = cm_scale_at(x, tick[i]);
        cm_svg_seg(b, at, y->from, at, y->from + 4, "axis");
        cm_svg_text(b, at, y->from + 17, "soft small", "middle", cm_tick_text(tick[i], text));
    }
    cm_svg_seg(b, x->from, y->from, x->to, y->from, "axis");
    if (x_label) cm_svg_text(b, (x->from + x->to) / 2, y->from + 33, "soft", "middle", x_label);
    if (y_label) cm_svg_text(b, x->from - 40, y->to - 11, "soft", "start", y_label);
}

/* About the width of a text at 12 px; only for placing. */
static double width_of(const char *s) {
    int chars = 0;
    for (; *s; s++) chars += ((unsigned char)*s & 0xC0) != 0x80;
    return 6.7 * chars;
}

const char *cm_series_class(int i, char buf[24]) {
    int round = i / CM_N_SERIES;
    snprintf(buf, 24, "s%d%s", i % CM_N_SERIES, round == 0 ? "" : round % 2 ? " dash" : " dot2");
    return buf;
}

double cm_svg_legend(cm_buf *b, double x, double y, double width, const char *const *name,
                     int n) {
    double at = x, top = y;
    for (int i = 0; i < n; i++) {
        double w = 34 + width_of(name[i]);
        if (at > x && at + w > x + width) at = x, y += 18;
        char class[32], series[24];
        snprintf(class, sizeof class, "ci %s", cm_series_class(i, series));
        cm_svg_seg(b, at, y - 4, at + 14, y - 4, class);
        cm_svg_text(b, at + 20, y, "", "start", name[i]);
        at += w;
    }
    return y - top + 18;
}
