/* table.c -- many runs, one row each: configuration against outcome. */
#include "report/report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a run says under a name --------------------------------------------- */

/* One run with everything a column can ask for. */
typedef struct {
    const cm_run_log *log;
    cJSON *eval, *status; /* results.json of the newest evaluation; status.json; or NULL */
} source;

static cJSON *read_json(const char *dir, const char *name) {
    char *path = cm_strf("%s/%s", dir, name), *text = NULL;
    size_t n;
    cm_err ignored;
    cJSON *v = cm_exists(path) && cm_read_file(path, 1 << 26, &text, &n, &ignored)
                   ? cJSON_ParseWithLength(text, n) : NULL;
    free(text), free(path);
    return v;
}

static source source_of(const cm_run_log *log) {
    source s = { .log = log, .status = read_json(log->dir, "status.json") };
    char *eval = cm_run_newest_eval(log->dir);
    if (eval) s.eval = read_json(eval, "results.json");
    free(eval);
    return s;
}

/* The value of "section.key: x" or a top-level "key: x" in a dumped configuration; free(). */
static char *config_value(const char *yaml, const char *name) {
    const char *dot = strchr(name, '.');
    size_t sec = dot ? (size_t)(dot - name) : 0, klen = strlen(dot ? dot + 1 : name);
    const char *key = dot ? dot + 1 : name;
    bool inside = !dot;
    for (const char *s = yaml; s && *s;) {
        const char *nl = strchr(s, '\n'), *end = nl ? nl : s + strlen(s);
        bool nested = *s == ' ';
        if (!nested && dot) inside = (size_t)(end - s) == sec + 1 && !strncmp(s, name, sec);
        const char *at = nested ? s + 2 : s;
        if (inside && nested == (dot != NULL) && (size_t)(end - at) > klen + 1 &&
            !strncmp(at, key, klen) && at[klen] == ':' && at[klen + 1] == ' ')
            return cm_strf("%.*s", (int)(end - at - (ptrdiff_t)klen - 2), at + klen + 2);
        s = nl ? nl + 1 : NULL;
    }
    return NULL;
}

static char *json_value(const cJSON *o, const char *name) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);
    char num[32];
    if (cJSON_IsNumber(v)) return cm_strf("%s", cm_f64_text(v->valuedouble, num));
    if (cJSON_IsString(v)) return cm_strf("%s", v->valuestring);
    if (cJSON_IsBool(v)) return cm_strf("%s", cJSON_IsTrue(v) ? "true" : "false");
    return NULL;
}

/* The last value a run logged, for metrics that summary.json does not keep. */
static char *last_logged(const cm_run_log *log, const char *name) {
    cm_curve c;
    char num[32], *out = NULL;
    cm_run_curve(log, name, NULL, &c);
    if (c.n) out = cm_strf("%s", cm_f64_text(c.y[c.n - 1], num));
    cm_curve_free(&c);
    return out;
}

static char *value_of(const source *s, const char *name) {
    char *v = !strcmp(name, "run") ? cm_strf("%s", s->log->name) : NULL;
    if (!v && !strcmp(name, "state")) v = json_value(s->status, "state");
    if (!v && s->log->config_yaml) v = config_value(s->log->config_yaml, name);
    if (!v) v = json_value(s->log->summary, name);
    if (!v) v = json_value(cJSON_GetObjectItemCaseSensitive(s->eval, "metrics"), name);
    if (!v && strchr(name, '/')) v = last_logged(s->log, name);
    return v;
}

/* ---- columns --------------------------------------------------------------------- */

typedef struct {
    char **name;
    int n;
} names;

static void add_name(names *c, const char *s, size_t n) {
    c->name = realloc(c->name, (size_t)(c->n + 1) * sizeof *c->name);
    CM_ASSERT(c->name, "out of memory: columns");
    c->name[c->n++] = cm_strf("%.*s", (int)n, s);
}

static void free_names(names *c) {
    for (int i = 0; i < c->n; i++) free(c->name[i]);
    free(c->name);
}

/* Keys in which the runs differ, then how well they did. */
static void default_columns(const source *s, int n, names *out) {
    static const char *const score[] = { "val/loss", "val/bpb" };
    int keys;
    const cm_key *k = cm_conf_keys(&keys);
    char buf[96];
    for (int i = 0; i < keys; i++) {
        const char *name = cm_key_name(&k[i], buf);
        if (!strcmp(name, "name")) continue;
        bool differ = false;
        char *first = s[0].log->config_yaml ? config_value(s[0].log->config_yaml, name) : NULL;
        for (int r = 1; r < n && !differ; r++) {
            char *v = s[r].log->config_yaml ? config_value(s[r].log->config_yaml, name) : NULL;
            differ = (v == NULL) != (first == NULL) || (v && strcmp(v, first));
            free(v);
        }
        if (differ) add_name(out, name, strlen(name));
        free(first);
    }
    for (int i = 0; i < 2; i++) add_name(out, score[i], strlen(score[i]));
}

static bool columns_of(const char *cols, const source *s, int n, names *out, cm_err *err) {
    add_name(out, "run", 3);
    if (!cols) {
        default_columns(s, n, out);
        return true;
    }
    for (const char *p = cols; p;) {
        const char *comma = strchr(p, ',');
        size_t len = comma ? (size_t)(comma - p) : strlen(p);
        if (!len) return cm_fail(err, CM_EXIT_USAGE, "--cols %s: an empty name", cols);
        if (len != 3 || strncmp(p, "run", 3)) add_name(out, p, len);
        p = comma ? comma + 1 : NULL;
    }
    return true;
}

/* ---- rows ------------------------------------------------------------------------- */

typedef struct {
    char ***cell; /* [row][column], NULL where absent */
    int n, by;    /* by: column to sort by, or -1 */
    bool down;
} grid;

static int compare_cells(const char *a, const char *b, bool down) {
    double x, y;
    if (!a || !b) return (a == NULL) - (b == NULL); /* absent last, either way */
    bool nx = cm_parse_f64(a, &x), ny = cm_parse_f64(b, &y);
    int c = nx && ny ? (x > y) - (x < y) : nx != ny ? ny - nx : strcmp(a, b);
    return down ? -c : c;
}

static int by_column(const void *a, const void *b, void *ctx) {
    const grid *g = ctx;
    char **x = *(char ***)(uintptr_t)a, **y = *(char ***)(uintptr_t)b;
    int c = compare_cells(x[g->by], y[g->by], g->down);
    return c ? c : strcmp(x[0], y[0]);
}

static bool sort_rows(grid *g, const names *col, const char *sort, cm_err *err) {
    if (!sort) return true;
    g->down = *sort == '-';
    const char *name = sort + g->down;
    g->by = -1;
    for (int c = 0; c < col->n; c++)
        if (!strcmp(col->name[c], name)) g->by = c;
    if (g->by < 0)
        return cm_fail(err, CM_EXIT_USAGE, "--sort %s: not one of the columns", name);
    qsort_r(g->cell, (size_t)g->n, sizeof *g->cell, by_column, g);
    return true;
}

static bool fill(grid *g, const source *s, const names *col, cm_err *err) {
    for (int r = 0; r < g->n; r++) {
        g->cell[r] = calloc((size_t)col->n, sizeof **g->cell);
        CM_ASSERT(g->cell[r], "out of memory: table");
        for (int c = 0; c < col->n; c++) g->cell[r][c] = value_of(&s[r], col->name[c]);
    }
    for (int c = 0; c < col->n; c++) {
        bool any = false;
        for (int r = 0; r < g->n; r++) any |= g->cell[r][c] != NULL;
        if (!any && strcmp(col->name[c], "val/loss") && strcmp(col->name[c], "val/bpb"))
            return cm_fail(err, CM_EXIT_USAGE, "column '%s': no run has it (a configuration key, "
                           "a name in summary.json or metrics.jsonl, eval/TASK/METRIC, or state)",
                           col->name[c]);
    }
    return true;
}

/* ---- printing ----------------------------------------------------------------------- */

/* Five digits are enough for people. */
static const char *shown(const char *cell, char buf[64]) {
    double v;
    if (!cell) return "";
    if (!strchr(cell, '.') || !cm_parse_f64(cell, &v)) return cell;
    snprintf(buf, 64, "%.5g", v);
    return buf;
}

static void add_cell(cm_buf *b, const char *s, cm_table_format f) {
    for (; *s; s++) {
        if (*s == '\t' || *s == '\n' || *s == '\r') cm_buf_add(b, " ", 1);
        else if (f == CM_TABLE_MD && strchr("|<>&*_`", *s)) cm_buf_addf(b, "&#%d;", *s);
        else cm_buf_add(b, s, 1);
    }
}

static void print_lines(const grid *g, const names *col, cm_table_format f, cm_buf *b) {
    const char *open = f == CM_TABLE_MD ? "| " : "", *end = f == CM_TABLE_MD ? " |\n" : "\n";
    const char *between = f == CM_TABLE_MD ? " | " : "\t";
    char buf[64];
    for (int r = -1; r < g->n; r++) {
        cm_buf_addf(b, "%s", open);
        for (int c = 0; c < col->n; c++) {
            cm_buf_addf(b, "%s", c ? between : "");
            const char *cell = r < 0 ? col->name[c] : g->cell[r][c] ? g->cell[r][c] : "";
            add_cell(b, r >= 0 && f == CM_TABLE_MD ? shown(g->cell[r][c], buf) : cell, f);
        }
        cm_buf_addf(b, "%s", end);
        if (r >= 0 || f != CM_TABLE_MD) continue;
        cm_buf_addf(b, "|");
        for (int c = 0; c < col->n; c++) cm_buf_addf(b, c ? "--:|" : "---|");
        cm_buf_addf(b, "\n");
    }
}

static void print_json(const grid *g, const names *col, cm_buf *b) {
    cm_json_open(b, NULL, '[');
    for (int r = 0; r < g->n; r++) {
        cm_json_open(b, NULL, '{');
        for (int c = 0; c < col->n; c++) {
            const char *s = g->cell[r][c];
            double v;
            if (s && cm_parse_f64(s, &v)) cm_json_f64(b, col->name[c], v);
            else if (s) cm_json_str(b, col->name[c], s);
        }
        cm_json_close(b, '{');
    }
    cm_json_close(b, '[');
    cm_buf_add(b, "\n", 1);
}

bool cm_table(const cm_run_log *run, int n, const char *cols, const char *sort,
              cm_table_format format, cm_buf *out, cm_err *err) {
    source *s = calloc((size_t)n + 1, sizeof *s);
    grid g = { .cell = calloc((size_t)n + 1, sizeof *g.cell), .n = n, .by = -1 };
    CM_ASSERT(s && g.cell, "out of memory: %d runs", n);
    names col = { 0 };
    for (int i = 0; i < n; i++) s[i] = source_of(&run[i]);
    bool ok = columns_of(cols, s, n, &col, err) && fill(&g, s, &col, err) &&
              sort_rows(&g, &col, sort, err);
    if (ok && format == CM_TABLE_JSON) print_json(&g, &col, out);
    else if (ok) print_lines(&g, &col, format, out);
    for (int r = 0; r < n; r++) {
        for (int c = 0; g.cell[r] && c < col.n; c++) free(g.cell[r][c]);
        free(g.cell[r]);
        cJSON_Delete(s[r].eval);
        cJSON_Delete(s[r].status);
    }
    free(g.cell), free(s);
    free_names(&col);
    return ok;
}
