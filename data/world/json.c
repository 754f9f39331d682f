/* json.c -- the little JSON that the corpus needs: write a string, find a string field. */
#include "data/world/world.h"

#include <string.h>

void cm_world_json(cm_buf *b, const char *s, size_t n) {
    cm_buf_add(b, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t plain = i;
        while (plain < n && s[plain] != '"' && s[plain] != '\\' &&
               (unsigned char)s[plain] >= 32)
            plain++;
        cm_buf_add(b, s + i, plain - i);
        if (plain == n) break;
        if (s[plain] == '\n') cm_buf_add(b, "\\n", 2);
        else if (s[plain] == '"' || s[plain] == '\\') cm_buf_addf(b, "\\%c", s[plain]);
        else cm_buf_addf(b, "\\u%04x", (unsigned char)s[plain]);
        i = plain + 1;
    }
    cm_buf_add(b, "\"", 1);
}

/* Skips spaces. */
static size_t blank(const char *s, size_t n, size_t i) {
    while (i < n && (s[i] == ' ' || s[i] == '\t')) i++;
    return i;
}

/* The string that starts (with its quote) at s[i], appended to out when not NULL. */
static size_t string_at(const char *s, size_t n, size_t i, cm_buf *out) {
    static const char from[] = "nrtbf", to[] = "\n\r\t\b\f";
    for (i++; i < n && s[i] != '"'; i++) {
        char c = s[i];
        if (c == '\\' && i + 1 < n) {
            c = s[++i];
            const char *e = strchr(from, c);
            if (c && e) c = to[e - from];
        }
        if (out) cm_buf_add(out, &c, 1);
    }
    return i + 1;
}

bool cm_world_json_field(const char *s, size_t n, const char *key, cm_buf *out) {
    size_t len = strlen(key);
    for (size_t i = 0; i < n;) {
        if (s[i] != '"') {
            i++;
            continue;
        }
        size_t end = string_at(s, n, i, NULL), at = blank(s, n, end);
        bool is_key = at < n && s[at] == ':' && end - i == len + 2 &&
                      memcmp(s + i + 1, key, len) == 0;
        i = end;
        if (!is_key) continue;
        at = blank(s, n, at + 1);
        if (at >= n || s[at] != '"') return false;
        string_at(s, n, at, out);
        return true;
    }
    return false;
}
