/* man.c -- --help=man: a man(7) page of a tool, from the tables that parse.
 *
 * The page carries no date, so that the same sources make the same bytes. */
#include "app/app_priv.h"

#include <ctype.h>
#include <string.h>

/* Text as roff takes it literally: backslashes, hyphens that are minus signs, and a dot
 * or quote that would begin a request. */
static void roff(cm_buf *out, const char *s, bool line_start) {
    for (; *s; s++) {
        if (line_start && (*s == '.' || *s == '\'')) cm_buf_addf(out, "\\&");
        if (*s == '\\') cm_buf_addf(out, "\\e");
        else if (*s == '-') cm_buf_addf(out, "\\-");
        else cm_buf_add(out, s, 1);
        line_start = *s == '\n';
    }
}

static void term(cm_buf *out, const char *name, const char *value, bool optional) {
    cm_buf_addf(out, ".TP\n\\fB\\-\\-");
    roff(out, name, false);
    cm_buf_addf(out, "\\fR");
    if (value) cm_buf_addf(out, "%s\\fI%s\\fR%s", optional ? "[=" : " ", value,
                           optional ? "]" : "");
    cm_buf_addf(out, "\n");
}

static void options(const cm_app *app, cm_buf *out) {
    cm_buf_addf(out, ".SH OPTIONS\n");
    for (const cm_app_opt *o = app->options; o && o->name; o++) {
        term(out, o->name, o->value, false);
        roff(out, o->help, true);
        cm_buf_addf(out, "\n");
    }
    for (int i = 0; i < cm_n_shared_opts; i++) {
        const cm_shared_opt *s = &cm_shared_opts[i];
        if (!cm_shared_opt_of(app, s)) continue;
        term(out, s->opt.name, s->opt.value, s->value_optional);
        roff(out, s->opt.help, true);
        cm_buf_addf(out, "\n");
    }
}

static void key(const cm_key *k, cm_buf *out) {
    char name[96];
    cm_buf_addf(out, ".TP\n\\fB%s\\fR (default: ", cm_key_name(k, name));
    roff(out, *k->def ? k->def : "empty", false);
    cm_buf_addf(out, ")\n");
    roff(out, k->help, true);
    if (*k->unit) cm_buf_addf(out, " [%s]", k->unit);
    cm_buf_addf(out, "\n");
}

static void keys(const cm_app_ctx *c, cm_buf *out) {
    int n_sec, n_keys;
    const cm_section *s = cm_conf_sections(&n_sec);
    const cm_key *k = cm_conf_keys(&n_keys);
    cm_buf_addf(out, ".SH CONFIGURATION KEYS\n"
                     "Set in a \\fB\\-\\-config\\fR file (YAML) or as words on the command "
                     "line, which win.\n");
    for (int i = 0; i < n_sec; i++) {
        if (!s[i].n || !cm_conf_uses(&c->conf, s[i].name)) continue;
        cm_buf_addf(out, ".SS %s\n", s[i].name);
        roff(out, s[i].help, true);
        cm_buf_addf(out, "\n");
        for (int j = s[i].first; j < s[i].first + s[i].n; j++) key(&k[j], out);
    }
}

static void head(const cm_app *app, bool has_keys, cm_buf *out) {
    cm_buf_addf(out, ".TH CHIMERA\\-");
    for (const char *p = app->name; *p; p++)
        cm_buf_addf(out, "%c", toupper((unsigned char)*p));
    cm_buf_addf(out, " 1 \"\" \"Chimera %s\" \"Chimera\"\n.SH NAME\nchimera\\-%s \\- ",
                CM_VERSION, app->name);
    roff(out, app->summary, false);
    cm_buf_addf(out, "\n.SH SYNOPSIS\n.B chimera\\-%s\n", app->name);
    if (app->words) roff(out, app->words, true);
    cm_buf_addf(out, "%s[\\fIoptions\\fR]", app->words ? " " : "");
    cm_buf_addf(out, "%s\n", has_keys ? " [\\fIsection.key\\fR=\\fIvalue\\fR ...]" : "");
}

void cm_app_man(const cm_app_ctx *c, cm_buf *out) {
    const cm_app *app = c->app;
    bool has_keys = app->sections && *app->sections;
    head(app, has_keys, out);
    options(app, out);
    if (has_keys) keys(c, out);
    if (app->examples) {
        cm_buf_addf(out, ".SH EXAMPLES\n.nf\n");
        roff(out, app->examples, true);
        cm_buf_addf(out, ".fi\n");
    }
    cm_buf_addf(out, ".SH EXIT STATUS\n");
#define X(id, n, text)                                                                   \
    cm_buf_addf(out, ".TP\n%d\n", n);                                                    \
    roff(out, text, true);                                                               \
    cm_buf_addf(out, "\n");
    CM_EXITS(X)
#undef X
    cm_buf_addf(out, ".TP\n128+n\n");
    roff(out, CM_EXIT_SIGNALLED, true);
    cm_buf_addf(out, "\n"
                     ".SH ENVIRONMENT\n"
                     ".TP\n.B CHIMERA_KERNELS\nLowers the level of the kernels: ");
    for (int i = 0; i < CM_N_LEVELS; i++)
        cm_buf_addf(out, "%s%s", !i ? "" : i + 1 < CM_N_LEVELS ? ", " : " or ",
                    cm_level_name((cm_level_id)i));
    cm_buf_addf(out, ".\n"
                     ".TP\n.B NO_COLOR\nNo colours on a terminal.\n");
}
