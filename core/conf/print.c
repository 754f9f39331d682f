/* print.c -- what the table says to people: dump, differences, help, docs/config.md. */
#include "conf/conf_priv.h"

#include <ctype.h>
#include <string.h>

/* The code point at s and its length; the text is known to be valid UTF-8. */
static unsigned decode(const unsigned char *s, size_t *len) {
    *len = *s < 0x80 ? 1 : *s < 0xE0 ? 2 : *s < 0xF0 ? 3 : 4;
    unsigned cp = *len == 1 ? *s : *s & (0xFFu >> (*len + 1));
    for (size_t i = 1; i < *len; i++)
        cp = cp << 6 | (s[i] & 0x3F);
    return cp;
}

static bool needs_escape(unsigned cp) {
    return cp < 0x20 || (cp >= 0x7F && cp <= 0x9F) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0xFEFF || cp == 0xFFFE || cp == 0xFFFF;
}

/* Plain where YAML reads it back as it stands, else in double quotes. */
static void yaml_text(const char *s, cm_buf *out) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_./+-";
    if (*s && *s != '-' && !s[strspn(s, plain)] && strcmp(s, "null")) {
        cm_buf_addf(out, "%s", s);
        return;
    }
    cm_buf_addf(out, "\"");
    size_t len;
    for (const unsigned char *p = (const unsigned char *)s; *p; p += len) {
        unsigned cp = decode(p, &len);
        if (needs_escape(cp))
            cm_buf_addf(out, "\\u%04X", cp);
        else
            cm_buf_addf(out, "%s%.*s", cp == '"' || cp == '\\' ? "\\" : "", (int)len, p);
    }
    cm_buf_addf(out, "\"");
}

void cm_conf_value_text(const cm_conf *c, const cm_key *k, cm_buf *out) {
    char num[32];
    switch (k->type) {
    case CM_T_i64:
    case CM_T_count:
    case CM_T_bytes:
        cm_buf_addf(out, "%lld", (long long)CM_CFIELD(c, k, int64_t));
        break;
    case CM_T_f64:
        cm_buf_addf(out, "%s", cm_f64_text(CM_CFIELD(c, k, double), num));
        break;
    case CM_T_bool:
        cm_buf_addf(out, "%s", CM_CFIELD(c, k, bool) ? "true" : "false");
        break;
    case CM_T_str:
        yaml_text(CM_CFIELD(c, k, cm_key_str), out);
        break;
    case CM_T_enum:
        cm_buf_addf(out, "%s", k->choices[CM_CFIELD(c, k, int)]);
        break;
    case CM_T_list: {
        cm_list l = CM_CFIELD(c, k, cm_list);
        cm_buf_addf(out, "[");
        for (int i = 0; i < l.n; i++) {
            cm_buf_addf(out, "%s", i ? ", " : "");
            yaml_text(l.v[i], out);
        }
        cm_buf_addf(out, "]");
        break;
    }
    }
}

static void dump_line(const cm_conf *c, const cm_key *k, const char *indent, bool places,
                      cm_buf *out) {
    size_t start = out->n;
    cm_buf_addf(out, "%s%s: ", indent, k->name);
    cm_conf_value_text(c, k, out);
    if (places) {
        int pad = 36 - (int)(out->n - start);
        cm_buf_addf(out, "%*s# ", pad > 2 ? pad : 2, "");
        cm_place at = c->st->origin[cm_conf_index(k)];
        if (at.line)
            cm_buf_addf(out, "%s:%d", at.file, at.line);
        else
            cm_place_text(at, out);
    }
    cm_buf_addf(out, "\n");
}

void cm_conf_dump(const cm_conf *c, bool places, cm_buf *out) {
    int n_keys, n_sec;
    const cm_key *k = cm_conf_keys(&n_keys);
    const cm_section *s = cm_conf_sections(&n_sec);
    for (int i = 0; i < n_sec; i++) {
        if (!c->st->used[i] || !s[i].n)
            continue;
        if (i)
            cm_buf_addf(out, "%s:\n", s[i].name);
        for (int j = s[i].first; j < s[i].first + s[i].n; j++)
            dump_line(c, &k[j], i ? "  " : "", places, out);
    }
}

int cm_conf_diff(const cm_conf *a, const cm_conf *b, cm_buf *out) {
    int n, differing = 0;
    const cm_key *k = cm_conf_keys(&n);
    for (int i = 0; i < n; i++) {
        cm_buf va = {0}, vb = {0};
        char name[96];
        if (!cm_conf_uses(a, k[i].section) || !cm_conf_uses(b, k[i].section)) continue;
        cm_conf_value_text(a, &k[i], &va);
        cm_conf_value_text(b, &k[i], &vb);
        if (strcmp(va.s, vb.s)) {
            differing++;
            cm_buf_addf(out, "%s: %s -> %s\n", cm_key_name(&k[i], name), va.s, vb.s);
        }
        cm_buf_free(&va);
        cm_buf_free(&vb);
    }
    return differing;
}

/* ---- help and docs ----------------------------------------------------------------- */

static const char *const type_names[] = {
    [CM_T_i64] = "integer", [CM_T_f64] = "number", [CM_T_bool] = "bool",
    [CM_T_count] = "count", [CM_T_bytes] = "bytes", [CM_T_str] = "text",
    [CM_T_list] = "list",   [CM_T_enum] = "choice"};

/* "0..10", "1..64 long", "adamw|muon", "true|false". */
static void range_text(const cm_key *k, const char *bar, cm_buf *out) {
    char lo[32], hi[32];
    if (k->type == CM_T_bool)
        cm_buf_addf(out, "true%sfalse", bar);
    else if (k->type == CM_T_enum)
        for (int i = 0; k->choices[i]; i++)
            cm_buf_addf(out, "%s%s", i ? bar : "", k->choices[i]);
    else if (k->type != CM_T_str && k->type != CM_T_list)
        cm_buf_addf(out, "%s..%s", cm_f64_text(k->lo, lo), cm_f64_text(k->hi, hi));
    else if (k->lo > 0)
        cm_buf_addf(out, "not empty");
    else
        cm_buf_addf(out, "any");
}

static void help_section(const cm_section *s, cm_buf *out) {
    int n;
    const cm_key *k = cm_conf_keys(&n) + s->first;
    cm_buf_addf(out, "%s -- %s\n", s->name, s->help);
    for (int i = 0; i < s->n; i++) {
        cm_buf range = {0};
        range_text(&k[i], "|", &range);
        const char *def = k[i].def[0] ? k[i].def : "\"\"";
        cm_buf_addf(out, "  %-16s %-8s %-9s %-22s %s%s%s%s\n", k[i].name,
                    type_names[k[i].type], def, range.s, k[i].help,
                    k[i].unit[0] ? " [" : "", k[i].unit, k[i].unit[0] ? "]" : "");
        cm_buf_free(&range);
    }
    cm_buf_addf(out, "\n");
}

bool cm_conf_help(const cm_conf *c, const char *section, cm_buf *out) {
    int n;
    const cm_section *s = cm_conf_sections(&n);
    if (section && !cm_conf_section(section))
        return false;
    cm_buf_addf(out, "Keys, set in a --config file or as section.key=value words: name, "
                     "type, default,\nrange, meaning [unit].  Counts take k M G T, bytes "
                     "kB MB GB KiB MiB GiB.  Relative\npaths start at the current "
                     "folder.\n\n");
    for (int i = 0; i < n; i++)
        if (s[i].n && (section ? !strcmp(section, s[i].name) : c->st->used[i]))
            help_section(&s[i], out);
    return true;
}

/* Text inside a row of a table: bars would end the cell, newlines the row. */
static void cell(const char *s, cm_buf *out) {
    for (; *s; s++) {
        if (*s == '|' && (!out->n || out->s[out->n - 1] != '\\')) cm_buf_addf(out, "\\|");
        else if (*s == '\n') cm_buf_addf(out, "\\n");
        else cm_buf_add(out, s, 1);
    }
}

static void markdown_section(const cm_section *s, cm_buf *out) {
    int n;
    const cm_key *k = cm_conf_keys(&n) + s->first;
    cm_buf_addf(out, "\n## %s\n\n%c%s.\n\n", s->name, toupper((unsigned char)s->help[0]),
                s->help + 1);
    cm_buf_addf(out, "| key | type | default | range | unit | meaning |\n"
                     "|---|---|---|---|---|---|\n");
    for (int i = 0; i < s->n; i++) {
        cm_buf range = {0};
        char name[96];
        range_text(&k[i], " \\| ", &range);
        const char *quote = k[i].def[0] ? "`" : "";
        cm_buf_addf(out, "| `%s` | %s | %s", cm_key_name(&k[i], name), type_names[k[i].type],
                    k[i].def[0] ? quote : "empty");
        cell(k[i].def, out);
        cm_buf_addf(out, "%s | %s | %s | ", quote, range.s, k[i].unit);
        cell(k[i].help, out);
        cm_buf_addf(out, " |\n");
        cm_buf_free(&range);
    }
}

void cm_conf_markdown(cm_buf *out) {
    int n;
    const cm_section *s = cm_conf_sections(&n);
    cm_buf_addf(
        out,
        "# Configuration keys\n\n"
        "Generated by `make docs` from core/conf/*.def; do not edit.\n\n"
        "A run file is YAML: the keys of `top` stand at the top level, the others in "
        "their\nsection. Every key can also be given as a word on the command line, "
        "`optim.lr=3e-4`,\n"
        "which wins over files. Counts take the suffixes k M G T (`64k`, `1_000`), "
        "bytes\nkB MB GB TB KiB MiB GiB TiB. A list on the command line is `a,b` or "
        "`[a, b]`.\n"
        "Relative paths start at the current folder.\n");
    for (int i = 0; i < n; i++)
        if (s[i].n)
            markdown_section(&s[i], out);
}
