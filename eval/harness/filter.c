/* filter.c -- regular expressions: PCRE2, texts as Unicode (docs/adr has why). */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "harness/task_int.h"

struct cm_regex {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    uint32_t groups;
};

/* Steps of backtracking before a search gives up: a second or so. */
enum { MATCH_LIMIT = 20000000 };

cm_regex *cm_regex_open(const char *pattern, cm_err *err) {
    int code;
    size_t at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!re) {
        char why[256];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        cm_fail(err, CM_EXIT_USAGE, "not a regular expression: %s (at character %zu)", why, at);
        return NULL;
    }
    cm_regex *r = calloc(1, sizeof *r);
    CM_ASSERT(r, "out of memory: regular expression");
    r->code = re;
    r->match = pcre2_match_data_create_from_pattern(re, NULL);
    r->limits = pcre2_match_context_create(NULL);
    CM_ASSERT(r->match && r->limits, "out of memory: regular expression");
    pcre2_set_match_limit(r->limits, MATCH_LIMIT);
    pcre2_pattern_info(re, PCRE2_INFO_CAPTURECOUNT, &r->groups);
    return r;
}

void cm_regex_close(cm_regex *r) {
    if (!r) return;
    pcre2_match_context_free(r->limits);
    pcre2_match_data_free(r->match);
    pcre2_code_free(r->code);
    free(r);
}

static bool gave_up(int rc, cm_err *err) {
    char why[256];
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
    return cm_fail(err, CM_EXIT_DATA, "a regular expression could not be applied: %s", why);
}

bool cm_regex_find(const cm_regex *r, const char *text, size_t n, bool last, const char **s,
                   size_t *len, bool *found, cm_err *err) {
    *found = false;
    for (size_t at = 0; at <= n;) {
        int rc = pcre2_match(r->code, (PCRE2_SPTR)text, n, at, 0, r->match, r->limits);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) return gave_up(rc, err);
        const size_t *v = pcre2_get_ovector_pointer(r->match);
        uint32_t g = 0;
        for (uint32_t i = 1; i <= r->groups && !g; i++)
            if (v[2 * i] != PCRE2_UNSET && v[2 * i + 1] > v[2 * i]) g = i;
        *found = true;
        *s = text + v[2 * g];
        *len = v[2 * g + 1] - v[2 * g];
        if (!last) break;
        at = v[1] > at ? v[1] : at + 1; /* past an empty match, a whole character */
        while (at < n && ((unsigned char)text[at] & 0xC0) == 0x80) at++;
    }
    return true;
}

bool cm_regex_replace(const cm_regex *r, const char *with, cm_buf *text, cm_err *err) {
    size_t cap = 2 * text->n + 256, n = cap;
    for (;;) {
        char *out = malloc(cap + 1);
        CM_ASSERT(out, "out of memory: text of %zu bytes", cap);
        int rc = pcre2_substitute(r->code, (PCRE2_SPTR)(text->s ? text->s : ""), text->n, 0,
                                  PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_EXTENDED |
                                      PCRE2_SUBSTITUTE_UNSET_EMPTY |
                                      PCRE2_SUBSTITUTE_OVERFLOW_LENGTH,
                                  r->match, r->limits, (PCRE2_SPTR)with,
                                  PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)out, &n);
        if (rc >= 0) {
            text->n = 0;
            cm_buf_add(text, out, n);
        }
        free(out);
        if (rc == PCRE2_ERROR_NOMEMORY) {
            cap = n; /* what it asked for, its NUL included */
            continue;
        }
        return rc >= 0 || gave_up(rc, err);
    }
}
