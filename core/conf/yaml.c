/* yaml.c -- run files, read event by event, so that every mistake has its place.
 *
 * Accepted: one document, a mapping of top-level keys and of sections, whose values are
 * single values or lists of them.  Anchors, aliases, tags and further documents are
 * refused: what a line says depends on that line alone.  After a syntax error nothing
 * more can be known about the file; every other mistake lets reading go on. */
#include "conf/conf_priv.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_FILE = 4 << 20, MAX_ITEMS = 1000000 };

typedef struct reader {
    cm_conf *c;
    const char *file;
    bool word; /* a value of the command line, which has no lines */
    yaml_parser_t p;
    yaml_event_t ev;
    bool open, broken;
    int key_line[CM_MAX_KEYS], section_line[CM_MAX_SECTIONS]; /* first seen at */
} reader;

static cm_place place_of(const reader *r, yaml_mark_t m) {
    if (r->word)
        return (cm_place){r->file, 0, 0};
    return (cm_place){r->file, (int)m.line + 1, (int)m.column + 1};
}

static cm_place here(const reader *r) { return place_of(r, r->ev.start_mark); }

static bool next(reader *r) {
    if (r->broken)
        return false;
    if (r->open)
        yaml_event_delete(&r->ev);
    r->open = yaml_parser_parse(&r->p, &r->ev);
    if (!r->open) {
        r->broken = true;
        cm_conf_complain(r->c, place_of(r, r->p.problem_mark), "not valid YAML: %s%s%s",
                         r->p.problem ? r->p.problem : "out of memory",
                         r->p.context ? " " : "", r->p.context ? r->p.context : "");
    }
    return r->open;
}

static void refuse_extras(reader *r) {
    const yaml_event_t *e = &r->ev;
    const void *anchor = NULL, *tag = NULL;
    if (e->type == YAML_SCALAR_EVENT)
        anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
    else if (e->type == YAML_SEQUENCE_START_EVENT)
        anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
    else if (e->type == YAML_MAPPING_START_EVENT)
        anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
    if (anchor || tag || e->type == YAML_ALIAS_EVENT)
        cm_conf_complain(r->c, here(r), "anchors, aliases and tags are not supported");
}

/* Pass over the node whose first event is the current one. */
static void skip(reader *r) {
    int depth = 0;
    do {
        yaml_event_type_t t = r->ev.type;
        depth += t == YAML_MAPPING_START_EVENT || t == YAML_SEQUENCE_START_EVENT;
        depth -= t == YAML_MAPPING_END_EVENT || t == YAML_SEQUENCE_END_EVENT;
    } while (depth > 0 && next(r));
}

static bool is_quoted(const reader *r) {
    return r->ev.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
}

static void add_item(const char ***items, int *n, const char *s) {
    if ((*n & (*n - 1)) == 0) { /* grow at every power of two */
        size_t cap = *n ? 2 * (size_t)*n : 1;
        *items = realloc(*items, cap * sizeof **items);
        CM_ASSERT(*items, "out of memory: configuration");
    }
    (*items)[(*n)++] = s;
}

static void read_list(reader *r, const cm_key *k, cm_place at) {
    const char **items = NULL;
    int n = 0;
    bool ok = true;
    char name[96];
    while (next(r) && r->ev.type != YAML_SEQUENCE_END_EVENT) {
        refuse_extras(r);
        const char *s = (const char *)r->ev.data.scalar.value;
        if (r->ev.type != YAML_SCALAR_EVENT || n == MAX_ITEMS ||
            strlen(s) != r->ev.data.scalar.length) {
            cm_conf_complain(r->c, here(r), "%s: a list holds single texts",
                             cm_key_name(k, name));
            skip(r);
            ok = false;
        } else {
            add_item(&items, &n, cm_conf_keep(r->c, s, strlen(s)));
        }
    }
    if (ok && !r->broken)
        cm_conf_put_list(r->c, k, at, items, n);
    free(items);
}

static void read_value(reader *r, const cm_key *k) {
    char name[96];
    cm_place at = here(r);
    if (r->ev.type == YAML_SCALAR_EVENT) {
        cm_conf_put(r->c, k, at, (const char *)r->ev.data.scalar.value,
                    r->ev.data.scalar.length, is_quoted(r));
    } else if (r->ev.type == YAML_SEQUENCE_START_EVENT && k->type == CM_T_list) {
        read_list(r, k, at);
    } else if (r->ev.type != YAML_ALIAS_EVENT) {
        cm_conf_complain(r->c, at, "%s wants a %s, not %s", cm_key_name(k, name),
                         k->type == CM_T_list ? "list" : "single value",
                         r->ev.type == YAML_MAPPING_START_EVENT ? "a mapping" : "a list");
        skip(r);
    }
}

static bool first_time(reader *r, int *line, cm_place at, const char *what,
                       const char *name) {
    if (*line) {
        cm_conf_complain(r->c, at, "duplicate %s '%s' (first on line %d)", what, name,
                         *line);
        return false;
    }
    *line = at.line;
    return true;
}

/* The current event is a key's name; afterwards it is the first of its value.  NULL:
 * the mapping ended, or the key was no plain word and has been passed over. */
static char *read_name(reader *r, cm_place *at) {
    *at = here(r);
    refuse_extras(r);
    if (r->ev.type != YAML_SCALAR_EVENT ||
        strlen((char *)r->ev.data.scalar.value) != r->ev.data.scalar.length) {
        cm_conf_complain(r->c, *at, "a key must be a plain word");
        skip(r);
        if (next(r))
            skip(r);
        return NULL;
    }
    char *name = cm_strf("%s", (const char *)r->ev.data.scalar.value);
    if (next(r)) {
        refuse_extras(r);
        return name;
    }
    free(name);
    return NULL;
}

static void read_entry(reader *r, const cm_key *k, cm_place at) {
    char full[96];
    int i = cm_conf_index(k);
    if (first_time(r, &r->key_line[i], at, "key", cm_key_name(k, full)))
        read_value(r, k);
    else
        skip(r);
}

static void read_section(reader *r, const cm_section *s) {
    while (next(r) && r->ev.type != YAML_MAPPING_END_EVENT) {
        cm_place at;
        char *name = read_name(r, &at);
        if (!name)
            continue;
        const cm_key *k = cm_conf_key_in(s, name);
        if (k) {
            read_entry(r, k, at);
        } else {
            cm_conf_unknown(r->c, at, s, name);
            skip(r);
        }
        free(name);
    }
}

static void unknown_section(reader *r, cm_place at, const char *name) {
    const char *names[CM_MAX_SECTIONS];
    int n;
    const cm_section *s = cm_conf_sections(&n);
    for (int i = 1; i < n; i++)
        names[i - 1] = s[i].name;
    const char *near = cm_nearest(name, names, n - 1);
    cm_conf_complain(r->c, at, "unknown section '%.200s'%s%s%s", name,
                     near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    skip(r);
}

static void read_top(reader *r, const char *name, cm_place at) {
    int n;
    const cm_section *all = cm_conf_sections(&n), *s = cm_conf_section(name);
    const cm_key *k = cm_conf_key_in(&all[0], name);
    bool mapping = r->ev.type == YAML_MAPPING_START_EVENT;
    bool empty = r->ev.type == YAML_SCALAR_EVENT && !is_quoted(r) &&
                 !r->ev.data.scalar.length;
    if (s == &all[0])
        s = NULL; /* "top" is our word for no section */
    if (k) {
        read_entry(r, k, at);
    } else if (s && (mapping || empty)) {
        first_time(r, &r->section_line[s - all], at, "section", name);
        if (mapping)
            read_section(r, s);
    } else if (s) {
        cm_conf_complain(r->c, at, "'%s' is a section: its keys go below it, indented",
                         name);
        skip(r);
    } else if (mapping) {
        unknown_section(r, at, name);
    } else if (cm_conf_find(name)) {
        const char *dot = strchr(name, '.');
        cm_conf_complain(r->c, at,
                         "'%s' goes into its section: '%.*s:', then '%s:' below", name,
                         (int)(dot - name), name, dot + 1);
        skip(r);
    } else {
        cm_conf_unknown(r->c, at, NULL, name);
        skip(r);
    }
}

static void read_document(reader *r) {
    if (!next(r))
        return;
    refuse_extras(r);
    if (r->ev.type != YAML_MAPPING_START_EVENT) {
        cm_conf_complain(r->c, here(r), "a run file is made of 'key: value' lines");
        skip(r);
    } else {
        while (next(r) && r->ev.type != YAML_MAPPING_END_EVENT) {
            cm_place at;
            char *name = read_name(r, &at);
            if (name)
                read_top(r, name, at);
            free(name);
        }
    }
    if (next(r) && next(r) && r->ev.type != YAML_STREAM_END_EVENT)
        cm_conf_complain(r->c, here(r), "a second document: one file is one "
                                        "configuration");
}

static bool reader_open(reader *r, cm_conf *c, const char *file, bool word,
                        const char *text, size_t n) {
    memset(r, 0, sizeof *r);
    r->c = c;
    r->file = file;
    r->word = word;
    CM_ASSERT(yaml_parser_initialize(&r->p), "out of memory: YAML parser");
    yaml_parser_set_input_string(&r->p, (const unsigned char *)text, n);
    yaml_parser_set_encoding(&r->p, YAML_UTF8_ENCODING);
    return next(r) && next(r); /* past the start of the stream */
}

static void reader_close(reader *r) {
    if (r->open)
        yaml_event_delete(&r->ev);
    yaml_parser_delete(&r->p);
}

/* What libyaml would report in its own words or without a place: bytes that are not
 * UTF-8, control characters, tabs used to indent. */
static bool clean_text(cm_conf *c, const char *file, const char *s, size_t n) {
    size_t bad = n;
    cm_utf8_valid(s, n, &bad);
    int line = 1, col = 1;
    bool indent = true;
    for (size_t i = 0; i < n; i++, col++) {
        unsigned char ch = (unsigned char)s[i];
        cm_place at = {file, line, col};
        if (i == bad || (ch < ' ' && !strchr("\t\n\r", ch)) || ch == 0x7F || !ch) {
            cm_conf_complain(c, at, i == bad ? "not valid UTF-8"
                                             : "a control character");
            return false;
        }
        if (ch == '\t' && indent) {
            cm_conf_complain(c, at, "a tab in the indentation; use spaces");
            return false;
        }
        indent = ch == '\n' || (indent && (ch == ' ' || ch == '\r'));
        if (ch == '\n')
            line++, col = 0;
        else if ((ch & 0xC0) == 0x80)
            col--; /* columns count characters */
    }
    return true;
}

void cm_conf_text(cm_conf *c, const char *name, const char *text, size_t n) {
    const char *file = cm_conf_keep(c, name, strlen(name));
    if (!clean_text(c, file, text, n))
        return;
    reader r;
    bool ok = reader_open(&r, c, file, false, text, n);
    if (ok && r.ev.type == YAML_DOCUMENT_START_EVENT)
        read_document(&r);
    reader_close(&r);
}

void cm_conf_file(cm_conf *c, const char *path) {
    char *text;
    size_t n;
    cm_err err = {0};
    if (!cm_read_file(path, MAX_FILE, &text, &n, &err)) {
        /* The sentence begins with the path already; the place would repeat it. */
        cm_conf_complain(c, (cm_place){path, 0, 0}, "%s", err.msg + strlen(path) + 2);
        return;
    }
    cm_conf_text(c, path, text, n);
    free(text);
}

void cm_conf_put_flow(cm_conf *c, const cm_key *k, cm_place at, const char *text) {
    reader r;
    char name[96];
    if (reader_open(&r, c, at.file, !at.line, text, strlen(text)) && next(&r)) {
        if (r.ev.type == YAML_SEQUENCE_START_EVENT)
            read_list(&r, k, at);
        else
            cm_conf_complain(c, at, "%s = %.200s is not a list", cm_key_name(k, name),
                             text);
    }
    reader_close(&r);
}
