/* show.c -- numbers of metrics as people read them. */
#include "results/results.h"

#include <math.h>
#include <string.h>

static bool is_share(const cm_metric *m) { return !strcmp(m->unit, "share"); }

/* Five significant digits, but never more decimals than a person reads. */
static const char *plain(double v, const char *sign, char buf[40]) {
    double a = fabs(v);
    const char *fmt = a == 0 ? "%s0" : a >= 1e6 || a < 1e-4 ? "%s%.4g" : a >= 1000 ? "%s%.1f"
                    : a >= 100 ? "%s%.2f" : a >= 10 ? "%s%.3f" : "%s%.4f";
    if (isnan(v)) snprintf(buf, 40, "-");
    else if (isinf(v)) snprintf(buf, 40, "%s", v > 0 ? "infinite" : "-infinite");
    else if (a == 0) snprintf(buf, 40, "0");
    else snprintf(buf, 40, fmt, v > 0 ? sign : "", v);
    return buf;
}

const char *cm_show_value(const cm_metric *m, double v, char buf[40]) {
    if (!is_share(m) || !isfinite(v)) return plain(v, "", buf);
    snprintf(buf, 40, "%.2f%%", 100 * v);
    return buf;
}

const char *cm_show_diff(const cm_metric *m, double v, char buf[40]) {
    if (!is_share(m) || !isfinite(v)) return plain(v, "+", buf);
    snprintf(buf, 40, v == 0 ? "0 pp" : "%+.2f pp", 100 * v);
    return buf;
}

const char *cm_show_size(const cm_metric *m, double v, char buf[40]) {
    cm_show_diff(m, fabs(v), buf);
    if (*buf == '+') memmove(buf, buf + 1, strlen(buf));
    return buf;
}

const char *cm_show_interval(const cm_metric *m, double lo, double hi, char buf[96]) {
    char a[40], b[40];
    if (isnan(lo) || isnan(hi)) snprintf(buf, 96, "-");
    else if (is_share(m)) snprintf(buf, 96, "[%+.2f, %+.2f]", 100 * lo + 0.0, 100 * hi + 0.0);
    else snprintf(buf, 96, "[%s, %s]", plain(lo, "+", a), plain(hi, "+", b));
    return buf;
}

const char *cm_show_p(double p, char buf[32]) {
    if (isnan(p)) snprintf(buf, 32, "-");
    else if (p < 1e-16) snprintf(buf, 32, "<1e-16");
    else if (p < 1e-4) snprintf(buf, 32, "%.0e", p);
    else snprintf(buf, 32, "%.4f", p);
    return buf;
}

const char *cm_show_count(double n, char buf[32]) {
    if (isnan(n)) return "-";
    if (isinf(n)) return "no number";
    char raw[32];
    int len = snprintf(raw, sizeof raw, "%.0f", n), k = 0;
    for (int i = 0; i < len && k < 30; i++) {
        if (i && (len - i) % 3 == 0 && raw[i - 1] != '-') buf[k++] = ',';
        buf[k++] = raw[i];
    }
    buf[k] = 0;
    return buf;
}
