/* leaks.c -- is anything that a test asks for in a training text?
 *
 * Three things are looked for: the test's texts (a story, a question, word for word), its
 * facts (the key of who, what and where) and its sums (operand pairs, in digits or words,
 * as 3 + 4, 7 - 3, "three and four make", and as the rows name them). */
#include "data/judge/judge.h"
#include "data/world/world.h"
#include "io/io.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- sets of 64-bit hashes: sorted when asked --------------------------------------------- */

typedef struct set {
    uint64_t *x;
    size_t n, cap;
    bool sorted;
} set;

static void set_add(set *s, uint64_t x) {
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 4096;
        s->x = realloc(s->x, s->cap * sizeof *s->x);
        CM_ASSERT(s->x, "out of memory for %zu hashes", s->cap);
    }
    s->x[s->n++] = x;
    s->sorted = false;
}

static int by_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Sorted, each once. */
static void set_settle(set *s) {
    if (s->sorted || !s->n) return;
    qsort(s->x, s->n, sizeof *s->x, by_u64);
    size_t kept = 1;
    for (size_t i = 1; i < s->n; i++)
        if (s->x[i] != s->x[kept - 1]) s->x[kept++] = s->x[i];
    s->n = kept;
    s->sorted = true;
}

static bool set_has(const set *s, uint64_t x) {
    return s->n && bsearch(&x, s->x, s->n, sizeof *s->x, by_u64);
}

struct cm_leaks {
    const cm_questions *test;
    set texts, facts, sums;
    int64_t read;
};

cm_leaks *cm_leaks_open(const cm_questions *test) {
    cm_leaks *l = calloc(1, sizeof *l);
    CM_ASSERT(l, "out of memory");
    l->test = test;
    return l;
}

void cm_leaks_close(cm_leaks *l) {
    if (!l) return;
    free(l->texts.x);
    free(l->facts.x);
    free(l->sums.x);
    free(l);
}

/* ---- sums in a text ------------------------------------------------------------------------ */

static uint64_t sum_hash(char op, int a, int b) {
    return (uint64_t)op << 40 | (uint64_t)(a < b ? a : b) << 20 | (uint64_t)(a < b ? b : a);
}

/* The number that ends before s[at] or begins there; -1 where none does. */
static int number_at(const char *s, size_t n, size_t at, bool before) {
    size_t from = at, to = at;
    while (before && from > 0 && isalnum((unsigned char)s[from - 1])) from--;
    while (!before && to < n && isalnum((unsigned char)s[to])) to++;
    if (from == to || to - from > 9) return -1;
    if (isdigit((unsigned char)s[from])) return (int)strtol(s + from, NULL, 10);
    for (int i = 0; i < CM_NUMBER_WORDS; i++)
        if (strlen(cm_numbers[i]) == to - from &&
            tolower((unsigned char)s[from]) == tolower((unsigned char)*cm_numbers[i]) &&
            !memcmp(s + from + 1, cm_numbers[i] + 1, to - from - 1))
            return i;
    return -1;
}

static void sums_with(set *out, const char *s, size_t n, const char *word, char op) {
    size_t len = strlen(word);
    for (size_t i = 0; i + len <= n; i++) {
        if (s[i] != ' ' || memcmp(s + i, word, len) != 0) continue;
        int a = number_at(s, n, i, true), b = number_at(s, n, i + len, false);
        if (a < 0 || b < 0) continue;
        if (op == '-') set_add(out, sum_hash('+', a > b ? a - b : b - a, b));
        else set_add(out, sum_hash(op, a, b));
    }
}

static void sums_of(set *out, const char *s, size_t n) {
    static const struct { const char *word; char op; } forms[] = {
        {" plus ", '+'}, {" and ", '+'}, {" + ", '+'}, {" minus ", '-'}, {" take away ", '-'},
        {" - ", '-'}, {" times ", '*'}, {" x ", '*'}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        sums_with(out, s, n, forms[i].word, forms[i].op);
}

/* "34 + 17", as rows name what they ask for. */
static bool named_sum(const char *sum, uint64_t *hash) {
    int a, b;
    char op;
    if (sscanf(sum, "%d %c %d", &a, &op, &b) != 3) return false;
    *hash = sum_hash(op, a, b);
    return true;
}

/* ---- reading ------------------------------------------------------------------------------- */

static uint64_t text_hash(const char *s, size_t n) {
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) h = cm_mix(h, (unsigned char)s[i]);
    return h;
}

/* A text counts as a whole and line by line: a story with its question is both. */
static void add_text(set *texts, const char *s, size_t n) {
    set_add(texts, text_hash(s, n));
    const char *line = memchr(s, '\n', n);
    if (line) set_add(texts, text_hash(s, (size_t)(line - s)));
}

static bool add_story(cm_leaks *l, const char *id, const char *text, size_t n, uint64_t seed,
                      cm_err *err) {
    static cm_story st;
    const char *number = strrchr(id, '-');
    if (!number) return cm_fail(err, CM_EXIT_DATA, "the id %s has no number", id);
    cm_story_make(&st, seed, CM_TRAIN, strtoull(number + 1, NULL, 10));
    if (st.text.n != n || memcmp(st.text.s, text, n) != 0)
        return cm_fail(err, CM_EXIT_DATA, "story %s is not the one that seed %llu tells", id,
                       (unsigned long long)seed);
    set_add(&l->facts, st.key);
    return true;
}

/* The strings below a node, except names of things: what a model is trained on. */
static void add_strings(cm_leaks *l, const cm_json_tree *t, int node) {
    const cm_json_node *v = &t->node[node];
    if (v->type == CM_JSON_STRING) {
        add_text(&l->texts, t->text.s + v->at, v->n);
        sums_of(&l->sums, t->text.s + v->at, v->n);
    }
    bool inside = v->type == CM_JSON_ARRAY || v->type == CM_JSON_OBJECT;
    for (int c = inside ? v->first : -1; c >= 0; c = t->node[c].next) add_strings(l, t, c);
}

static const char *string_of(const cm_json_tree *t, const char *name, size_t *n) {
    int v = cm_json_tree_get(t, 0, name);
    if (v < 0 || t->node[v].type != CM_JSON_STRING) return NULL;
    *n = t->node[v].n;
    return t->text.s + t->node[v].at;
}

static bool add_row(cm_leaks *l, const cm_json_tree *t, uint64_t seed, cm_err *err) {
    char name[64] = "";
    size_t n = 0, len = 0;
    uint64_t hash;
    const char *text = string_of(t, "text", &n), *s = string_of(t, "id", &len);
    if (s) snprintf(name, sizeof name, "%.*s", (int)len, s);
    add_strings(l, t, 0);
    l->read++;
    if (text) return add_story(l, name, text, n, seed, err);
    if ((s = string_of(t, "doc", &len))) {
        snprintf(name, sizeof name, "%.*s", (int)len, s);
        set_add(&l->facts, strtoull(name, NULL, 16));
    }
    if ((s = string_of(t, "sum", &len))) {
        snprintf(name, sizeof name, "%.*s", (int)len, s);
        if (named_sum(name, &hash)) set_add(&l->sums, hash);
    }
    return true;
}

bool cm_leaks_add(cm_leaks *l, const char *path, uint64_t seed, cm_err *err) {
    cm_src *s = cm_src_open(path, err);
    cm_json_tree t = {0};
    bool ok = s != NULL, end = false;
    while (ok) {
        cm_line line;
        cm_err why;
        ok = cm_src_line(s, 1 << 20, &line, &end, err);
        if (!ok || end) break;
        if (line.n && (!cm_json_tree_read(&t, line.s, line.n, &why) ||
                       !add_row(l, &t, seed, &why)))
            ok = cm_fail(err, CM_EXIT_DATA, "%s:%llu: %s", path,
                         (unsigned long long)line.number, why.msg);
    }
    cm_json_tree_free(&t);
    cm_src_close(s);
    return ok;
}

/* ---- the verdict ---------------------------------------------------------------------------- */

static void found(cm_leaks_count *c, int *counter, const char *what, const char *id) {
    if (!(*counter)++ && !*c->example)
        snprintf(c->example, sizeof c->example, "%s of %s", what, id);
}

static void look_for(const cm_leaks *l, const cm_question_row *r, cm_leaks_count *c) {
    set mine = {0};
    uint64_t hash;
    bool in = false;
    add_text(&mine, r->prompt, strlen(r->prompt));
    for (size_t i = 0; i < mine.n; i++) in |= set_has(&l->texts, mine.x[i]);
    c->test_prompts++;
    if (in) found(c, &c->prompts, "the text", r->id);
    if (*r->doc) {
        c->test_facts++;
        if (set_has(&l->facts, strtoull(r->doc, NULL, 16)))
            found(c, &c->facts, "who, what and where", r->id);
    }
    mine.n = 0;
    if (named_sum(r->sum, &hash)) set_add(&mine, hash);
    if (!strchr(r->prompt, '\n')) sums_of(&mine, r->prompt, strlen(r->prompt));
    in = false;
    for (size_t i = 0; i < mine.n; i++) in |= set_has(&l->sums, mine.x[i]);
    c->test_sums += mine.n > 0;
    if (in) found(c, &c->test_sums_found, "the sum", r->id);
    free(mine.x);
}

cm_leaks_count cm_leaks_found(cm_leaks *l) {
    cm_leaks_count c = {.texts = l->read};
    set_settle(&l->texts);
    set_settle(&l->facts);
    set_settle(&l->sums);
    c.sums = (int64_t)l->sums.n;
    for (int i = 0; i < l->test->n; i++) look_for(l, &l->test->row[i], &c);
    return c;
}
