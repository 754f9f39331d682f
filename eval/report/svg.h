/* svg.h -- charts as inline SVG: scales, axes, marks, legend; private to report/.
 *
 * Everything is drawn with classes, never with colours: cm_chart_css gives them their
 * colours in light and dark, in a page as in a file of its own.  Coordinates are pixels of
 * the viewBox. */
#ifndef CM_SVG_H
#define CM_SVG_H

#include "base/base.h"

extern const char cm_chart_css[];

enum { CM_N_SERIES = 8 }; /* colours; after that they repeat, dashed, then dotted */
/* The classes of line i: "s3", "s3 dash". */
const char *cm_series_class(int i, char buf[24]);

/* Text inside XML or HTML, quotes included: & < > " ' escaped, control bytes dropped. */
void cm_xml_text(cm_buf *b, const char *s);
void cm_xml_textn(cm_buf *b, const char *s, size_t n);

/* A scale from values [lo, hi] to pixels [from, to]; log: of log10, lo > 0. */
typedef struct cm_scale {
    double lo, hi, from, to;
    bool log;
} cm_scale;
/* Widened to whole ticks, about `want` of them. */
cm_scale cm_scale_nice(double lo, double hi, bool log, double from, double to, int want);
double cm_scale_at(const cm_scale *s, double v); /* clamped to the ends */
enum { CM_MAX_TICKS = 16 };
int cm_scale_ticks(const cm_scale *s, int want, double tick[CM_MAX_TICKS]);
/* "1200", "0.25", "1e-05", "1.5M": short, and different for different ticks. */
const char *cm_tick_text(double v, char buf[32]);

/* <svg> ... </svg>; title is read out and shown by screen readers. */
void cm_svg_open(cm_buf *b, double w, double h, const char *title);
void cm_svg_close(cm_buf *b);
/* Grid lines, ticks and numbers; label may be NULL.  The plot spans x->from..to and
 * y->from (bottom) .. y->to (top). */
void cm_svg_axes(cm_buf *b, const cm_scale *x, const cm_scale *y, const char *x_label,
                 const char *y_label);
/* anchor: "start", "middle", "end".  Escapes s. */
void cm_svg_text(cm_buf *b, double x, double y, const char *class, const char *anchor,
                 const char *s);
void cm_svg_seg(cm_buf *b, double x1, double y1, double x2, double y2, const char *class);
/* tip: shown on hover, or NULL. */
void cm_svg_rect(cm_buf *b, double x, double y, double w, double h, const char *class,
                 const char *tip);
void cm_svg_circle(cm_buf *b, double x, double y, double r, const char *class, const char *tip);
/* A line through n points; gaps where y is NaN. */
void cm_svg_line(cm_buf *b, const cm_scale *sx, const cm_scale *sy, const double *x,
                 const double *y, int64_t n, const char *class);
/* Names with swatches s0, s1, ... at (x, y), wrapped at width; returns the height used. */
double cm_svg_legend(cm_buf *b, double x, double y, double width, const char *const *name,
                     int n);

#endif
