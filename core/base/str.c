/* str.c -- byte buffers, number parsing and printing for people, spelling hints. */
#include "base/base.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void buf_room(cm_buf *b, size_t more) {
    if (b->n + more + 1 <= b->cap)
        return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < b->n + more + 1)
        cap *= 2;
    char *s = realloc(b->s, cap);
    CM_ASSERT(s, "out of memory: buffer of %zu bytes", cap);
    b->s = s;
    b->cap = cap;
}

void cm_buf_add(cm_buf *b, const void *bytes, size_t n) {
    buf_room(b, n);
    if (n)
        memcpy(b->s + b->n, bytes, n);
    b->n += n;
    b->s[b->n] = 0;
}

void cm_buf_addf(cm_buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    CM_ASSERT(n >= 0, "cm_buf_addf: bad format '%s'", fmt);
    buf_room(b, (size_t)n);
    vsnprintf(b->s + b->n, (size_t)n + 1, fmt, again);
    va_end(again);
    b->n += (size_t)n;
}

void cm_buf_free(cm_buf *b) {
    free(b->s);
    *b = (cm_buf){0};
}

char *cm_strf(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *s = NULL;
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    CM_ASSERT(n >= 0, "out of memory: formatting '%s'", fmt);
    return s;
}

void *cm_room(int64_t n, size_t size) {
    CM_ASSERT(n >= 0, "room for %lld things", (long long)n);
    void *p = calloc(n ? (size_t)n : 1, size);
    CM_ASSERT(p, "out of memory: %lld times %zu bytes", (long long)n, size);
    return p;
}

/* ---- spelling -------------------------------------------------------------------- */

enum { WORD_MAX = 96 }; /* longer words are compared by their first 96 bytes */

int cm_edit_distance(const char *a, const char *b) {
    int na = (int)strnlen(a, WORD_MAX), nb = (int)strnlen(b, WORD_MAX);
    int row[WORD_MAX + 1];
    for (int j = 0; j <= nb; j++)
        row[j] = j;
    for (int i = 1; i <= na; i++) {
        int diag = row[0];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int sub = diag + (a[i - 1] != b[j - 1]);
            int gap = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            diag = row[j];
            row[j] = sub < gap ? sub : gap;
        }
    }
    return row[nb];
}

static bool is_break(char c) { return c == '_' || c == '-' || c == '.'; }

/* "lr" for "learning_rate": the first letters of the parts. */
static bool is_initials(const char *abbr, const char *word) {
    for (bool start = true; *word; word++) {
        if (start && *abbr++ != *word)
            return false;
        start = is_break(*word);
    }
    return *abbr == 0;
}

/* `part` occurs in `whole` as one or more complete parts ("warmup" in "warmup_steps"). */
static bool is_part(const char *part, const char *whole) {
    size_t n = strlen(part);
    for (const char *p = whole; n && (p = strstr(p, part)); p++)
        if ((p == whole || is_break(p[-1])) && (!p[n] || is_break(p[n])))
            return true;
    return false;
}

/* "optim" for "optimizer", either way round; three letters at least. */
static bool is_prefix(const char *a, const char *b) {
    size_t na = strlen(a), nb = strlen(b), n = na < nb ? na : nb;
    return n >= 3 && !strncmp(a, b, n);
}

/* Words related by how they are made rather than by how they are spelt. */
static bool related(const char *a, const char *b) {
    return is_part(a, b) || is_part(b, a) || is_prefix(a, b) || is_initials(a, b) ||
           is_initials(b, a);
}

const char *cm_nearest(const char *word, const char *const *cands, int n) {
    const char *best = NULL;
    int best_d = 1 << 20, limit = 1 + (int)strnlen(word, WORD_MAX) / 4;
    for (int i = 0; i < n; i++) {
        int d = cm_edit_distance(word, cands[i]);
        if (d > limit || d >= (int)strlen(cands[i])) /* as good as nothing in common */
            d = related(word, cands[i]) ? limit + 1 : 1 << 20;
        if (d < best_d) {
            best_d = d;
            best = cands[i];
        }
    }
    return best_d <= limit + 1 ? best : NULL;
}

/* ---- numbers --------------------------------------------------------------------- */

bool cm_parse_i64(const char *s, int64_t *out) {
    if (!isdigit((unsigned char)s[s[0] == '-' || s[0] == '+']))
        return false;
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || *end)
        return false;
    *out = v;
    return true;
}

bool cm_parse_f64(const char *s, double *out) {
    /* Decimal only: strtod would also take "inf", "nan", "0x1p3" and leading blanks. */
    if (!*s || s[strspn(s, "0123456789+-.eE")])
        return false;
    char *end;
    double v = strtod(s, &end);
    if (end == s || *end || !isfinite(v))
        return false;
    *out = v;
    return true;
}

const char *cm_f64_text(double v, char buf[32]) {
    if (!isfinite(v)) {
        snprintf(buf, 32, "%s", isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
        return buf;
    }
    if (fabs(v) < 1e15 && v == floor(v) && (v != 0 || !signbit(v))) {
        snprintf(buf, 32, "%.0f", v); /* 10, where %g would write 1e+01 */
        return buf;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buf, 32, "%.*g", digits, v);
        if (strtod(buf, NULL) == v)
            break;
    }
    return buf;
}

typedef struct {
    const char *name;
    double scale;
} unit;

/* digits with single underscores between them, an optional fraction, then a unit. */
static bool parse_scaled(const char *s, const unit *units, int n_units, int64_t *out) {
    char num[64];
    size_t n = 0;
    while (isdigit((unsigned char)*s) || *s == '.' || *s == '_') {
        if (*s == '_' && !(n && isdigit((unsigned char)s[-1]) &&
                           isdigit((unsigned char)s[1])))
            return false;
        if (*s != '_') {
            if (n + 1 >= sizeof num)
                return false;
            num[n++] = *s;
        }
        s++;
    }
    num[n] = 0;
    double scale = 0;
    for (int i = 0; i < n_units; i++)
        if (!strcmp(s, units[i].name))
            scale = units[i].scale;
    if (scale == 1 && !strchr(num, '.'))
        return cm_parse_i64(num, out);
    double v;
    if (scale == 0 || !cm_parse_f64(num, &v))
        return false;
    v *= scale;
    if (!(v < 0x1p63) || v != floor(v)) /* 1.5 of something that has no halves */
        return false;
    *out = (int64_t)v;
    return true;
}

bool cm_parse_count(const char *s, int64_t *out) {
    static const unit units[] = {{"", 1},    {"k", 1e3}, {"K", 1e3}, {"M", 1e6},
                                 {"G", 1e9}, {"B", 1e9}, {"T", 1e12}};
    return parse_scaled(s, units, sizeof units / sizeof *units, out);
}

bool cm_parse_bytes(const char *s, int64_t *out) {
    static const unit units[] = {
        {"", 1},          {"B", 1},         {"kB", 1e3},      {"KB", 1e3},
        {"MB", 1e6},      {"GB", 1e9},      {"TB", 1e12},     {"KiB", 0x1p10},
        {"MiB", 0x1p20},  {"GiB", 0x1p30},  {"TiB", 0x1p40}};
    return parse_scaled(s, units, sizeof units / sizeof *units, out);
}

static const char *human(double n, double step, const char *const *names, int n_names,
                         const char *gap, char *buf, size_t cap) {
    int i = 0;
    /* 999.95 would print as 1000.0: move on a little before the full step. */
    while (i + 1 < n_names && fabs(n) >= step * 0.99995) {
        n /= step;
        i++;
    }
    int digits = i == 0 ? 0 : fabs(n) < 9.995 ? 2 : fabs(n) < 99.95 ? 1 : 0;
    if (i == 0 && n != floor(n))
        digits = 1;
    snprintf(buf, cap, "%.*f%s%s", digits, n, gap, names[i]);
    return buf;
}

const char *cm_human_bytes(double n, char *buf, size_t cap) {
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    return human(n, 1024, names, 6, " ", buf, cap);
}

const char *cm_human_count(double n, char *buf, size_t cap) {
    static const char *const names[] = {"", "k", "M", "G", "T"};
    return human(n, 1000, names, 5, "", buf, cap);
}

/* ---- UTF-8 ----------------------------------------------------------------------- */

/* Length of the sequence at s (n > 0 bytes left), 0 if malformed: Unicode 15, table
 * 3-7, which excludes overlong forms, surrogates and values above U+10FFFF. */
static size_t utf8_len(const unsigned char *s, size_t n) {
    unsigned c = s[0], lo = 0x80, hi = 0xBF;
    size_t len = c < 0x80   ? 1
                 : c < 0xC2 ? 0
                 : c < 0xE0 ? 2
                 : c < 0xF0 ? 3
                 : c < 0xF5 ? 4
                            : 0;
    if (len < 2)
        return len;
    if (len > n)
        return 0;
    if (c == 0xE0)
        lo = 0xA0;
    else if (c == 0xED)
        hi = 0x9F;
    else if (c == 0xF0)
        lo = 0x90;
    else if (c == 0xF4)
        hi = 0x8F;
    if (s[1] < lo || s[1] > hi)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return len;
}

bool cm_utf8_valid(const char *s, size_t n, size_t *bad) {
    const unsigned char *u = (const unsigned char *)s;
    size_t i = 0;
    while (i < n) {
        uint64_t w;
        if (n - i >= 8 && (memcpy(&w, u + i, 8), !(w & 0x8080808080808080u))) {
            i += 8;
            continue;
        }
        size_t len = utf8_len(u + i, n - i);
        if (!len) {
            if (bad)
                *bad = i;
            return false;
        }
        i += len;
    }
    return true;
}
