/* args.c -- from argv to a cm_app_ctx: one table of shared options, one of the tool's.
 *
 * `--name=value` and `--name value` are the same; `key=value` words set configuration
 * keys; other words are handed to the tool; everything after `--` is such a word. */
#include "app/app_priv.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

const cm_shared_opt cm_shared_opts[] = {
    {{"config", "FILE", "read keys from FILE (may be repeated; later files win)"}, 0, 0, 0},
    {{"dry-run", NULL, "check everything, print the plan, write nothing"}, 0, 0, 0},
    {{"runs", "DIR", "folder of runs (default: runs)"}, 1, 0, 0},
    {{"resume", "WHEN", "unfinished runs: auto (go on, default), must, never"}, 1, 0, 0},
    {{"if-done", "WHAT", "what is finished already: fail (default), skip or redo"}, 1, 1, 0},
    {{"threads", "N", "threads to compute with (default: all cores)"}, 0, 0, 0},
    {{"json", NULL, "results as JSON"}, 0, 0, 0},
    {{"quiet", NULL, "no progress and no summary; warnings, errors, what was asked"}, 0, 0, 0},
    {{"print-config", NULL, "print every key, its value and where it was set"}, 0, 0, 0},
    {{"help", "TOPIC", "this text; config, config:SECTION, exit, man"}, 0, 0, 1},
    {{"version", NULL, "version, compiler, libraries"}, 0, 0, 0},
};
const int cm_n_shared_opts = sizeof cm_shared_opts / sizeof *cm_shared_opts;

void cm_words_add(cm_words *w, const char *s) {
    w->v = realloc(w->v, (size_t)(w->n + 1) * sizeof *w->v);
    CM_ASSERT(w->v, "out of memory: command line");
    w->v[w->n++] = s;
}

static bool choose(const char *option, const char *value, const char *const *words,
                   int n, int *out, cm_err *err) {
    for (int i = 0; i < n; i++)
        if (!strcmp(value, words[i])) {
            *out = i;
            return true;
        }
    return cm_fail(err, CM_EXIT_USAGE, "--%s=%s: wants %s, %s or %s", option, value,
                   words[0], words[1], words[2]);
}

static bool set_shared(cm_app_ctx *c, const char *name, const char *value, cm_err *err) {
    static const char *const resume[] = {"auto", "must", "never"};
    static const char *const done[] = {"fail", "skip", "redo"};
    int64_t n;
    int i = 0;
    if (!strcmp(name, "config"))
        cm_words_add(&c->configs, value);
    else if (!strcmp(name, "runs"))
        c->runs = value;
    else if (!strcmp(name, "dry-run"))
        c->dry_run = true;
    else if (!strcmp(name, "json"))
        c->json = true;
    else if (!strcmp(name, "quiet"))
        c->quiet = true;
    else if (!strcmp(name, "print-config"))
        c->print_config = true;
    else if (!strcmp(name, "version"))
        c->version = true;
    else if (!strcmp(name, "help"))
        c->help = value ? value : "";
    else if (!strcmp(name, "resume")) {
        if (!choose(name, value, resume, 3, &i, err))
            return false;
        c->resume = (cm_resume)i;
    } else if (!strcmp(name, "if-done")) {
        if (!choose(name, value, done, 3, &i, err))
            return false;
        c->if_done = (cm_if_done)i;
    } else {
        CM_ASSERT(!strcmp(name, "threads"), "option --%s is in the table only", name);
        if (!cm_parse_i64(value, &n) || n < 0 || n > 4096)
            return cm_fail(err, CM_EXIT_USAGE, "--threads=%s: wants 0..4096", value);
        c->threads = (int)n;
    }
    return true;
}

/* Every option this tool knows, as names for did-you-mean. */
static bool unknown_option(const cm_app *app, const char *name, cm_err *err) {
    cm_words all = {0};
    for (int i = 0; i < cm_n_shared_opts; i++)
        if (cm_shared_opt_of(app, &cm_shared_opts[i]))
            cm_words_add(&all, cm_shared_opts[i].opt.name);
    for (const cm_app_opt *o = app->options; o && o->name; o++)
        cm_words_add(&all, o->name);
    const char *near = cm_nearest(name, all.v, all.n);
    cm_fail(err, CM_EXIT_USAGE, "unknown option '--%s'%s%s%s", name,
            near ? "; did you mean '--" : "", near ? near : "", near ? "'?" : "");
    free(all.v);
    return false;
}

static const cm_shared_opt *find_shared(const cm_app *app, const char *name) {
    for (int i = 0; i < cm_n_shared_opts; i++)
        if (!strcmp(cm_shared_opts[i].opt.name, name) &&
            cm_shared_opt_of(app, &cm_shared_opts[i]))
            return &cm_shared_opts[i];
    return NULL;
}

static const cm_app_opt *find_own(const cm_app *app, const char *name) {
    for (const cm_app_opt *o = app->options; o && o->name; o++)
        if (!strcmp(o->name, name))
            return o;
    return NULL;
}

/* Of two values of an option that is no list one would be passed over in silence. */
static bool take_own(cm_app_ctx *c, const cm_app_opt *own, const char *value, cm_err *err) {
    const char *before = own->value ? cm_app_text(c, own->name) : NULL;
    char *word = cm_strf(" %s ", own->name);
    bool many = c->app->repeatable && strstr(c->app->repeatable, word);
    free(word);
    if (before && !many)
        return cm_fail(err, CM_EXIT_USAGE, "--%s is given twice: '%.40s' and '%.40s'", own->name,
                       before, value);
    cm_words_add(&c->given, own->name);
    cm_words_add(&c->given_values, value);
    return true;
}

/* argv[i] is a long option; *used gets the number of words it took. */
static bool long_option(cm_app_ctx *c, int i, int *used, cm_err *err) {
    char *name = c->argv[i] + 2, *eq = strchr(name, '=');
    const char *value = eq ? eq + 1 : NULL;
    if (eq)
        *eq = 0; /* put back below: argv is recorded in run.json */
    const cm_shared_opt *s = find_shared(c->app, name);
    const cm_app_opt *own = find_own(c->app, name), *o = own ? own : s ? &s->opt : NULL;
    bool ok = true;
    *used = 1;
    if (!o) {
        ok = unknown_option(c->app, name, err);
    } else if (!o->value && value) {
        ok = cm_fail(err, CM_EXIT_USAGE, "option '--%s' takes no value", name);
    } else if (o->value && !value && (own || !s->value_optional)) {
        if (i + 1 < c->argc) {
            value = c->argv[i + 1];
            *used = 2;
        } else {
            ok = cm_fail(err, CM_EXIT_USAGE, "option '--%s' wants a value: --%s=%s", name,
                         name, o->value);
        }
    }
    if (ok && own) {
        ok = take_own(c, own, value, err);
    } else if (ok) {
        ok = set_shared(c, name, value, err);
    }
    if (eq)
        *eq = '=';
    return ok;
}

/* "optim.lr=1": a name as keys have them, then '='. */
static bool is_setting(const char *w) {
    size_t n = 0;
    while (islower((unsigned char)w[n]) || (n && isdigit((unsigned char)w[n])) ||
           (n && (w[n] == '_' || w[n] == '.')))
        n++;
    return n && w[n] == '=';
}

bool cm_app_parse(cm_app_ctx *c, int argc, char **argv, cm_err *err) {
    static const char *const brief[][2] = {
        {"-h", "help"}, {"-V", "version"}, {"-q", "quiet"}};
    bool words_only = false, ok = true;
    c->argc = argc;
    c->argv = argv;
    c->threads = -1;
    for (int i = 1, used = 1; ok && i < argc; i += used, used = 1) {
        const char *a = argv[i], *name = NULL;
        for (size_t j = 0; !words_only && j < sizeof brief / sizeof *brief; j++)
            if (!strcmp(a, brief[j][0]))
                name = brief[j][1];
        if (name)
            ok = set_shared(c, name, NULL, err);
        else if (!words_only && !strcmp(a, "--"))
            words_only = true;
        else if (!words_only && !strncmp(a, "--", 2))
            ok = long_option(c, i, &used, err);
        else if (!words_only && a[0] == '-' && a[1])
            ok = cm_fail(err, CM_EXIT_USAGE, "unknown option '%s'", a);
        else if (!words_only && is_setting(a))
            cm_words_add(&c->settings, a);
        else if (c->app->words)
            cm_words_add(&c->words, a);
        else
            ok = cm_fail(err, CM_EXIT_USAGE,
                         "'%s' is neither an option nor section.key=value", a);
    }
    return ok;
}

void cm_app_command(const cm_app_ctx *c, cm_buf *out) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_./+-=:,@%";
    for (int i = 0; i < c->argc; i++) {
        const char *s = c->argv[i], *quote = *s && !s[strspn(s, plain)] ? "" : "'";
        cm_buf_addf(out, "%s%s", i ? " " : "", quote);
        for (; *s; s++)
            cm_buf_addf(out, *s == '\'' ? "'\\''" : "%c", *s);
        cm_buf_addf(out, "%s", quote);
    }
}

/* ---- what the tool asks ------------------------------------------------------------ */

const char *cm_app_text_at(const cm_app_ctx *c, const char *name, int i) {
    CM_ASSERT(find_own(c->app, name), "tool %s has no option --%s", c->app->name, name);
    for (int j = 0; j < c->given.n; j++)
        if (!strcmp(c->given.v[j], name) && i-- == 0)
            return c->given_values.v[j];
    return NULL;
}

const char *cm_app_text(const cm_app_ctx *c, const char *name) {
    const char *last = NULL, *v;
    for (int i = 0; (v = cm_app_text_at(c, name, i)); i++)
        last = v;
    return last;
}

bool cm_app_switch(const cm_app_ctx *c, const char *name) {
    CM_ASSERT(find_own(c->app, name), "tool %s has no option --%s", c->app->name, name);
    for (int j = 0; j < c->given.n; j++)
        if (!strcmp(c->given.v[j], name))
            return true;
    return false;
}

bool cm_app_i64(const cm_app_ctx *c, const char *name, int64_t lo, int64_t hi,
                int64_t *out, cm_err *err) {
    const char *s = cm_app_text(c, name);
    int64_t v = 0;
    if (!s)
        return true;
    bool number = cm_parse_i64(s, &v) || cm_parse_count(s, &v);
    if (!number || v < lo || v > hi)
        return cm_fail(err, CM_EXIT_USAGE, "--%s=%s: wants an integer in %lld..%lld",
                       name, s, (long long)lo, (long long)hi);
    *out = v;
    return true;
}

bool cm_app_f64(const cm_app_ctx *c, const char *name, double lo, double hi, double *out,
                cm_err *err) {
    const char *s = cm_app_text(c, name);
    double v = 0;
    char a[32], b[32];
    if (!s)
        return true;
    if (!cm_parse_f64(s, &v) || v < lo || v > hi)
        return cm_fail(err, CM_EXIT_USAGE, "--%s=%s: wants a number in %s..%s", name, s,
                       cm_f64_text(lo, a), cm_f64_text(hi, b));
    *out = v;
    return true;
}
