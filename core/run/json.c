/* json.c -- JSON text, written so that every number reads back exactly. */
#include "run/run.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

static void quoted(cm_buf *b, const char *s, size_t n) {
    cm_buf_add(b, "\"", 1);
    while (n) {
        size_t good = n;
        cm_utf8_valid(s, n, &good);
        for (size_t i = 0; i < good; i++) {
            unsigned char c = (unsigned char)s[i];
            if (c == '"' || c == '\\')
                cm_buf_add(b, "\\", 1);
            if (c == '\n')
                cm_buf_add(b, "\\n", 2);
            else if (c < ' ')
                cm_buf_addf(b, "\\u%04x", c);
            else
                cm_buf_add(b, s + i, 1);
        }
        s += good, n -= good;
        if (n) {
            cm_buf_add(b, "\xEF\xBF\xBD", 3);
            s++, n--;
        }
    }
    cm_buf_add(b, "\"", 1);
}

static void member(cm_buf *b, const char *key) {
    char last = b->n ? b->s[b->n - 1] : '{';
    if (last != '{' && last != '[')
        cm_buf_add(b, ",", 1);
    if (key) {
        quoted(b, key, strlen(key));
        cm_buf_add(b, ":", 1);
    }
}

void cm_json_open(cm_buf *b, const char *key, char bracket) {
    member(b, key);
    cm_buf_add(b, &bracket, 1);
}

void cm_json_close(cm_buf *b, char bracket) {
    CM_ASSERT(bracket == '{' || bracket == '[', "cm_json_close wants the opening bracket");
    cm_buf_add(b, bracket == '{' ? "}" : "]", 1);
}

void cm_json_print(cm_buf *b) {
    cm_json_close(b, '{');
    puts(b->s);
    fflush(stdout);
    cm_buf_free(b);
}

void cm_json_i64(cm_buf *b, const char *key, int64_t v) {
    member(b, key);
    cm_buf_addf(b, "%" PRId64, v);
}

void cm_json_u64(cm_buf *b, const char *key, uint64_t v) {
    member(b, key);
    cm_buf_addf(b, "%" PRIu64, v);
}

void cm_json_f64(cm_buf *b, const char *key, double v) {
    char num[32];
    member(b, key);
    if (isfinite(v))
        cm_buf_addf(b, "%s", cm_f64_text(v, num));
    else
        cm_buf_addf(b, "\"%s\"", cm_f64_text(v, num));
}

void cm_json_bool(cm_buf *b, const char *key, bool v) {
    member(b, key);
    cm_buf_addf(b, "%s", v ? "true" : "false");
}

void cm_json_str(cm_buf *b, const char *key, const char *s) {
    cm_json_bytes(b, key, s, strlen(s));
}

void cm_json_bytes(cm_buf *b, const char *key, const char *s, size_t n) {
    member(b, key);
    quoted(b, s, n);
}

void cm_json_raw(cm_buf *b, const char *key, const char *json) {
    member(b, key);
    cm_buf_add(b, json, strlen(json));
}

const char *cm_time_text(char buf[32]) {
    time_t now = time(NULL);
    struct tm tm;
    strftime(buf, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    return buf;
}
