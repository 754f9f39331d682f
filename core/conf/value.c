/* value.c -- one value: from text by the key's type, into its field, within its range;
 * and `key=value` words of the command line. */
#include "conf/conf_priv.h"

#include <stdlib.h>
#include <string.h>

/* What each type wants, for "X = abc is not ...". */
static const char *const wanted[] = {
    [CM_T_i64] = "an integer",
    [CM_T_f64] = "a number",
    [CM_T_bool] = "true or false",
    [CM_T_count] = "a count (like 5000, 64k, 10M)",
    [CM_T_bytes] = "a size (like 4096, 64MiB, 2GB)",
};

static void bad_choice(cm_conf *c, const cm_key *k, cm_place at, const char *text) {
    cm_buf all = {0};
    int n = 0;
    for (; k->choices[n]; n++)
        cm_buf_addf(&all, "%s%s", n ? ", " : "", k->choices[n]);
    const char *near = cm_nearest(text, k->choices, n);
    char name[96];
    cm_conf_complain(c, at, "%s = %.200s is none of %s%s%s%s", cm_key_name(k, name), text,
                     all.s, near ? "; did you mean '" : "", near ? near : "",
                     near ? "'?" : "");
    cm_buf_free(&all);
}

static bool put_number(cm_conf *c, const cm_key *k, const char *text, bool *in_range) {
    int64_t i = 0;
    double d = 0;
    bool ok = k->type == CM_T_f64     ? cm_parse_f64(text, &d)
              : k->type == CM_T_i64   ? cm_parse_i64(text, &i)
              : k->type == CM_T_count ? cm_parse_count(text, &i)
                                      : cm_parse_bytes(text, &i);
    if (!ok)
        return false;
    if (k->type != CM_T_f64)
        d = (double)i;
    *in_range = d >= k->lo && d <= k->hi;
    if (!*in_range)
        return true;
    if (k->type == CM_T_f64)
        CM_FIELD(c, k, double) = d;
    else
        CM_FIELD(c, k, int64_t) = i;
    return true;
}

static void complain_range(cm_conf *c, const cm_key *k, cm_place at, const char *text) {
    char name[96], lo[32], hi[32];
    cm_conf_complain(c, at, "%s = %.200s is outside %s..%s", cm_key_name(k, name), text,
                     cm_f64_text(k->lo, lo), cm_f64_text(k->hi, hi));
}

static bool put_text(cm_conf *c, const cm_key *k, cm_place at, const char *text,
                     size_t n) {
    char name[96];
    size_t bad = 0;
    if (strlen(text) != n || !cm_utf8_valid(text, n, &bad)) {
        cm_conf_complain(c, at, "%s holds a byte that is no text",
                         cm_key_name(k, name));
        return false;
    }
    if ((double)n < k->lo || (double)n > k->hi) {
        cm_conf_complain(c, at, "%s has %zu characters, not %.0f..%.0f",
                         cm_key_name(k, name), n, k->lo, k->hi);
        return false;
    }
    CM_FIELD(c, k, const char *) = cm_conf_keep(c, text, n);
    return true;
}

static bool put_choice(cm_conf *c, const cm_key *k, cm_place at, const char *text) {
    for (int i = 0; k->choices[i]; i++)
        if (!strcmp(k->choices[i], text)) {
            CM_FIELD(c, k, int) = i;
            return true;
        }
    bad_choice(c, k, at, text);
    return false;
}

static bool put_plain(cm_conf *c, const cm_key *k, cm_place at, const char *text) {
    char name[96];
    bool in_range = true, ok;
    if (k->type == CM_T_bool) {
        ok = !strcmp(text, "true") || !strcmp(text, "false");
        if (ok)
            CM_FIELD(c, k, bool) = text[0] == 't';
    } else {
        ok = put_number(c, k, text, &in_range);
    }
    if (!ok)
        cm_conf_complain(c, at, "%s = %.200s is not %s", cm_key_name(k, name), text,
                         wanted[k->type]);
    else if (!in_range)
        complain_range(c, k, at, text);
    return ok && in_range;
}

static void put_list_text(cm_conf *c, const cm_key *k, cm_place at, const char *text) {
    if (text[0] == '[') {
        cm_conf_put_flow(c, k, at, text);
        return;
    }
    char *copy = cm_strf("%s", text);
    const char **items = malloc((strlen(copy) + 2) * sizeof *items);
    CM_ASSERT(items, "out of memory: configuration");
    int n = 0;
    char *rest = copy;
    for (char *item; *copy && (item = strsep(&rest, ","));)
        items[n++] = item;
    cm_conf_put_list(c, k, at, items, n);
    free(items);
    free(copy);
}

void cm_conf_put(cm_conf *c, const cm_key *k, cm_place at, const char *text, size_t n,
                 bool quoted) {
    char name[96];
    bool is_text = k->type == CM_T_str || k->type == CM_T_list || k->type == CM_T_enum;
    if (quoted && !is_text) {
        cm_conf_complain(c, at, "%s = \"%.200s\" is quoted text, not %s",
                         cm_key_name(k, name), text, wanted[k->type]);
        return;
    }
    if (at.line && !quoted && (!n || !strcmp(text, "~") || !strcmp(text, "null"))) {
        cm_conf_complain(c, at, "%s has no value%s", cm_key_name(k, name),
                         is_text ? "; write \"\" for an empty text" : "");
        return;
    }
    bool ok = true;
    if (k->type == CM_T_list && at.line) /* YAML: one item, not a list to take apart */
        cm_conf_put_list(c, k, at, &text, 1);
    else if (k->type == CM_T_list)
        put_list_text(c, k, at, text);
    else
        ok = k->type == CM_T_str    ? put_text(c, k, at, text, n)
             : k->type == CM_T_enum ? put_choice(c, k, at, text)
                                    : put_plain(c, k, at, text);
    if (ok && k->type != CM_T_list)
        c->st->origin[cm_conf_index(k)] = at;
}

void cm_conf_set(cm_conf *c, const char *word) {
    cm_place at = {CM_COMMAND_LINE, 0, 0};
    const char *eq = strchr(word, '=');
    if (!eq) {
        cm_conf_complain(c, at, "'%.200s' is no key=value", word);
        return;
    }
    char *key = cm_strf("%.*s", (int)(eq - word), word);
    const cm_key *k = cm_conf_find(key);
    const char *dot = strchr(key, '.');
    char *sec = dot ? cm_strf("%.*s", (int)(dot - key), key) : cm_strf("top");
    const cm_section *s = strcmp(sec, "top") ? cm_conf_section(sec) : NULL;
    if (!k)
        cm_conf_unknown(c, at, s, s ? dot + 1 : key);
    else if (!cm_conf_uses(c, sec))
        cm_conf_complain(c, at, "%s: this tool does not use section '%s'", key, sec);
    else if (c->st->origin[cm_conf_index(k)].file &&
             !c->st->origin[cm_conf_index(k)].line)
        cm_conf_complain(c, at, "duplicate key '%s'", key);
    else
        cm_conf_put(c, k, at, eq + 1, strlen(eq + 1), false);
    free(sec);
    free(key);
}
