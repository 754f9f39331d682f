/* conf.c -- the key table, finding keys in it, and the list of mistakes.
 *
 * Each section of keys.def becomes a function that holds its part of the table; the
 * parts are joined once, with offsets into cm_conf, and defaults go through the same
 * parser and range checks as the user's values. */
#include "conf/conf_priv.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WORD(id, word) #word "\0"
#define SECTION(sec, text)                                                              \
    static const cm_key *part_##sec(int *n) {                                           \
        typedef cm_##sec##_conf S;                                                      \
        static const cm_key k[] = {
#define KEY(t, name, def, lo, hi, unit, help)                                           \
    {NULL, #name, CM_T_##t, offsetof(S, name), def, unit, help, lo, hi, "", NULL},
#define ENUM(name, choices, def, help)                                                  \
    {NULL, #name, CM_T_enum, offsetof(S, name), def, "", help, 0, 0, choices(WORD), NULL},
#define END(sec)                                                                        \
        };                                                                              \
        *n = (int)(sizeof k / sizeof *k);                                               \
        return k;                                                                       \
    }
#include "conf/keys.def"

static const struct part {
    const char *name, *help;
    const cm_key *(*keys)(int *n);
    size_t at;
} parts[] = {
#define SECTION(sec, text) {#sec, text, part_##sec, offsetof(cm_conf, sec)},
#define KEY(t, name, def, lo, hi, unit, help)
#define ENUM(name, choices, def, help)
#define END(sec)
#include "conf/keys.def"
};
#define N_SECTIONS ((int)(sizeof parts / sizeof *parts))
enum { MAX_WORDS = 512 }; /* of all choice lists, with their terminators */

static cm_section sections[N_SECTIONS];
static cm_key keys[CM_MAX_KEYS];
static int n_keys;

/* "a\0b\0" as an array; the literal's own end makes the empty word that stops it. */
static const char *const *split_words(const char *words) {
    static const char *pool[MAX_WORDS];
    static int n;
    const char *const *first = &pool[n];
    for (; *words; words += strlen(words) + 1) {
        CM_ASSERT(n + 2 < MAX_WORDS, "raise MAX_WORDS");
        pool[n++] = words;
    }
    pool[n++] = NULL;
    return first;
}

static void join_parts(void) {
    CM_ASSERT(N_SECTIONS <= CM_MAX_SECTIONS, "raise CM_MAX_SECTIONS");
    for (int i = 0; i < N_SECTIONS; i++) {
        int n = 0;
        const cm_key *k = parts[i].keys(&n);
        CM_ASSERT(n_keys + n <= CM_MAX_KEYS, "raise CM_MAX_KEYS");
        sections[i] = (cm_section){parts[i].name, parts[i].help, n_keys, n};
        for (int j = 0; j < n; j++) {
            cm_key *to = &keys[n_keys++];
            *to = k[j];
            to->section = parts[i].name;
            to->at += parts[i].at;
            if (to->type == CM_T_enum)
                to->choices = split_words(to->words);
        }
    }
}

static void need_table(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, join_parts);
}

const cm_key *cm_conf_keys(int *n) {
    need_table();
    *n = n_keys;
    return keys;
}

const cm_section *cm_conf_sections(int *n) {
    need_table();
    *n = N_SECTIONS;
    return sections;
}

int cm_conf_index(const cm_key *k) { return (int)(k - keys); }

static bool is_top(const char *section) { return !strcmp(section, "top"); }

const char *cm_key_name(const cm_key *k, char buf[96]) {
    if (is_top(k->section))
        return k->name;
    snprintf(buf, 96, "%s.%s", k->section, k->name);
    return buf;
}

const cm_section *cm_conf_section(const char *name) {
    need_table();
    for (int i = 0; i < N_SECTIONS; i++)
        if (!strcmp(sections[i].name, name))
            return &sections[i];
    return NULL;
}

const cm_key *cm_conf_key_in(const cm_section *s, const char *name) {
    for (int i = s->first; i < s->first + s->n; i++)
        if (!strcmp(keys[i].name, name))
            return &keys[i];
    return NULL;
}

const cm_key *cm_conf_find(const char *name) {
    const char *dot = strchr(name, '.');
    if (!dot)
        return cm_conf_key_in(cm_conf_section("top"), name);
    char sec[64];
    if (dot - name >= (ptrdiff_t)sizeof sec)
        return NULL;
    memcpy(sec, name, (size_t)(dot - name));
    sec[dot - name] = 0;
    const cm_section *s = is_top(sec) ? NULL : cm_conf_section(sec);
    return s ? cm_conf_key_in(s, dot + 1) : NULL;
}

/* ---- life -------------------------------------------------------------------------- */

static bool listed(const char *words, const char *word) {
    size_t n = strlen(word);
    for (const char *p = words; (p = strstr(p, word)); p += n)
        if ((p == words || p[-1] == ' ') && (!p[n] || p[n] == ' '))
            return true;
    return false;
}

void cm_conf_open(cm_conf *c, const char *used) {
    need_table();
    memset(c, 0, sizeof *c);
    c->st = calloc(1, sizeof *c->st);
    CM_ASSERT(c->st, "out of memory: configuration");
    for (int i = 0; i < N_SECTIONS; i++)
        c->st->used[i] = !used || i == 0 || listed(used, sections[i].name);
    for (int i = 0; i < n_keys; i++)
        cm_conf_put(c, &keys[i], (cm_place){0}, keys[i].def, strlen(keys[i].def), false);
    CM_ASSERT(!c->st->n_errors, "a default breaks its own rule: %s", c->st->errors.s);
}

void cm_conf_close(cm_conf *c) {
    if (!c->st)
        return;
    for (size_t i = 0; i < c->st->n_pool; i++)
        free(c->st->pool[i]);
    free(c->st->pool);
    cm_buf_free(&c->st->errors);
    free(c->st);
    memset(c, 0, sizeof *c);
}

static void *keep(cm_conf *c, void *p) {
    struct cm_conf_state *st = c->st;
    CM_ASSERT(p, "out of memory: configuration");
    if (st->n_pool == st->cap_pool) {
        st->cap_pool = st->cap_pool ? 2 * st->cap_pool : 64;
        st->pool = realloc(st->pool, st->cap_pool * sizeof *st->pool);
        CM_ASSERT(st->pool, "out of memory: configuration");
    }
    st->pool[st->n_pool++] = p;
    return p;
}

const char *cm_conf_keep(cm_conf *c, const char *s, size_t n) {
    char *copy = keep(c, malloc(n + 1));
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

void cm_conf_put_list(cm_conf *c, const cm_key *k, cm_place at, const char **items,
                      int n) {
    char name[96];
    if (n < k->lo || n > k->hi) {
        cm_conf_complain(c, at, "%s has %d items, not %.0f..%.0f", cm_key_name(k, name),
                         n, k->lo, k->hi);
        return;
    }
    for (int i = 0; i < n; i++)
        if (!cm_utf8_valid(items[i], strlen(items[i]), NULL)) {
            cm_conf_complain(c, at, "%s holds a byte that is no text",
                             cm_key_name(k, name));
            return;
        }
    const char **v = keep(c, malloc((size_t)(n + 1) * sizeof *v));
    for (int i = 0; i < n; i++)
        v[i] = cm_conf_keep(c, items[i], strlen(items[i]));
    v[n] = NULL;
    CM_FIELD(c, k, cm_list) = (cm_list){n, v};
    c->st->origin[cm_conf_index(k)] = at;
}

bool cm_conf_given(const cm_conf *c, const char *key) {
    const cm_key *k = cm_conf_find(key);
    CM_ASSERT(k, "no configuration key '%s'", key);
    return c->st->origin[cm_conf_index(k)].file != NULL;
}

bool cm_conf_uses(const cm_conf *c, const char *section) {
    const cm_section *s = cm_conf_section(section);
    return s && c->st->used[s - sections];
}

const char *cm_conf_word_of(const cm_conf *c, const char *name) {
    const cm_key *k = cm_conf_find(name);
    CM_ASSERT(k && k->type == CM_T_enum, "no choice key '%s'", name);
    return k->choices[CM_CFIELD(c, k, int)];
}

/* ---- mistakes ---------------------------------------------------------------------- */

void cm_place_text(cm_place at, cm_buf *out) {
    if (!at.file)
        cm_buf_addf(out, "default");
    else if (!at.line)
        cm_buf_addf(out, "%s", at.file);
    else
        cm_buf_addf(out, "%s:%d:%d", at.file, at.line, at.col);
}

void cm_conf_complain(cm_conf *c, cm_place at, const char *fmt, ...) {
    struct cm_conf_state *st = c->st;
    if (++st->n_errors > CM_CONF_MAX_ERRORS) {
        if (st->n_errors == CM_CONF_MAX_ERRORS + 1)
            cm_buf_addf(&st->errors, "more than %d errors; the rest is not shown\n",
                        CM_CONF_MAX_ERRORS);
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    char text[1200];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' '; /* one line each, whatever the value was */
    cm_place_text(at, &st->errors);
    cm_buf_addf(&st->errors, ": error: %s\n", text);
}

const char *cm_conf_errors(const cm_conf *c) {
    return c->st->errors.s ? c->st->errors.s : "";
}

bool cm_conf_check(const cm_conf *c, cm_err *err) {
    if (!c->st->n_errors)
        return true;
    const char *all = c->st->errors.s;
    return cm_fail(err, CM_EXIT_USAGE, "%.*s", (int)strcspn(all, "\n"), all);
}

bool cm_conf_bad(const cm_conf *c, cm_err *err, const char *key, const char *fmt, ...) {
    const cm_key *k = cm_conf_find(key);
    CM_ASSERT(k, "no configuration key '%s'", key);
    va_list ap;
    va_start(ap, fmt);
    char text[1024];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cm_place at = c->st->origin[cm_conf_index(k)];
    cm_buf where = {0};
    if (at.file) {
        cm_place_text(at, &where);
        cm_buf_addf(&where, ": error: ");
    }
    cm_fail(err, CM_EXIT_USAGE, "%s%s: %s", where.s ? where.s : "", key, text);
    cm_buf_free(&where);
    return false;
}

bool cm_conf_locate(const cm_conf *c, cm_err *err) {
    char name[96], text[sizeof err->msg];
    size_t n = strcspn(err->msg, ":");
    if (n >= sizeof name || strncmp(err->msg + n, ": ", 2)) return false;
    memcpy(name, err->msg, n);
    name[n] = 0;
    memcpy(text, err->msg, sizeof text);
    return cm_conf_find(name) && cm_conf_bad(c, err, name, "%s", text + n + 2);
}
