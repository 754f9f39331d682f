/* facts.c -- the state of the world, and the little language of needs and makes.
 *
 * Clauses, separated by ", ":
 *   at A = P          the fact holds (an unbound P gets its value)
 *   at A != P         it has another value, or none
 *   at A none         there is no such fact
 *   s = n + m         also - * %; binds an unbound s; a sum belongs to a side
 *   A != B, n < m     values differ; are in order
 *   K : fruit         the word has the tag
 *   K ~ P             the words share a tag: shells lie on the beach
 * Effects are `at A = P` and `at A none`; a value may also be the word yes.
 * A binding that a clause adds stays for the clauses after it. */
#include "data/world/world.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { YES = 1, MAX_TOKENS = 8, MAX_FNS = 64 };

void cm_bind_clear(cm_bind *b) {
    for (int i = 0; i < 64; i++) b->v[i] = CM_UNBOUND;
    *cm_var(b, '$') = (int16_t)(cm_n_values(CM_KIND) - 1);
}

void cm_facts_clear(cm_facts *s) {
    s->n = s->n_said = 0;
    s->topic = s->topic2 = CM_UNBOUND;
}

int cm_roll(cm_dice *d, int n) { return (int)cm_rng_below(d->rng, d->i++, (uint64_t)n); }

uint64_t cm_mix(uint64_t h, uint64_t x) { /* a fixed 64-bit finaliser (splitmix64) */
    uint64_t z = (h ^ x) + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static cm_side side_of(uint64_t h) {
    unsigned r = (unsigned)(h % 100);
    return r < 80 ? CM_TRAIN : r < 90 ? CM_VAL : CM_TEST;
}

cm_side cm_pair_side(char op, int a, int b) {
    int lo = a < b ? a : b, hi = a < b ? b : a;
    return side_of(cm_mix(cm_mix((unsigned char)op, (uint64_t)lo), (uint64_t)hi));
}

cm_side cm_key_side(uint64_t key) { return side_of(cm_mix(key, 0x5eed)); }

/* ---- facts ---------------------------------------------------------------------------- */

/* A function's number is a hash of its name, checked nowhere else: names are few. */
static int16_t fn_id(const char *s, size_t n) {
    unsigned h = 0;
    for (size_t i = 0; i < n; i++) h = h * 31 + (unsigned char)s[i];
    return (int16_t)(h & 0x7fff);
}

static const cm_fact *look(const cm_facts *s, int fn, int a, int b) {
    for (int i = 0; i < s->n; i++) {
        const cm_fact *f = &s->fact[i];
        if (f->fn == fn && f->a == a && f->b == b) return f;
    }
    return NULL;
}

static void forget(cm_facts *s, int fn, int a, int b) {
    const cm_fact *f = look(s, fn, a, b);
    if (!f) return;
    size_t i = (size_t)(f - s->fact);
    memmove(&s->fact[i], &s->fact[i + 1], ((size_t)s->n - i - 1) * sizeof *f);
    s->n--;
}

/* ---- clauses --------------------------------------------------------------------------- */

typedef struct clause {
    const char *tok[MAX_TOKENS];
    size_t len[MAX_TOKENS];
    int n;
    const char *next; /* after the separator, or NULL */
} clause;

static clause clause_read(const char *p) {
    clause c = {{0}, {0}, 0, NULL};
    while (*p && *p != ',') {
        CM_ASSERT(c.n < MAX_TOKENS, "clause too long: %s", p);
        c.tok[c.n] = p;
        c.len[c.n] = strcspn(p, " ,");
        p += c.len[c.n++];
        while (*p == ' ') p++;
    }
    if (*p == ',') c.next = p + 2;
    return c;
}

static bool tok_is(const clause *c, int i, const char *s) {
    return i < c->n && strlen(s) == c->len[i] && memcmp(c->tok[i], s, c->len[i]) == 0;
}

static bool is_var(const clause *c, int i) { return i < c->n && c->len[i] == 1; }

static int value(const clause *c, int i, const cm_bind *b) {
    if (tok_is(c, i, "yes")) return YES;
    if (isdigit((unsigned char)*c->tok[i])) return (int)strtol(c->tok[i], NULL, 10);
    CM_ASSERT(is_var(c, i), "not a variable: %s", c->tok[i]);
    return cm_val(b, *c->tok[i]);
}

/* Do two words share a tag? */
static bool tags_meet(char u, int x, char v, int y) {
    cm_word_type t = cm_type_of(u);
    if (x < 0 || y < 0) return false;
    if (t == CM_THING) x /= cm_n_colours;
    for (const char *p = cm_lex(t)->word[x].tags; *p; p += *p == ' ') {
        size_t n = strcspn(p, " ");
        if (cm_has_tag(cm_type_of(v), y, p, n)) return true;
        p += n;
    }
    return false;
}

/* Does token i have value v?  An unbound variable takes it. */
static bool unify(const clause *c, int i, cm_bind *b, int v) {
    int have = value(c, i, b);
    if (have == CM_UNBOUND) *cm_var(b, *c->tok[i]) = (int16_t)v;
    return have == CM_UNBOUND || have == v;
}

static bool side_ok(cm_side side, char op, int a, int b) {
    return side == CM_ANY || cm_pair_side(op, a, b) == side;
}

/* s = n op m */
static bool sum_holds(const clause *c, cm_bind *b, cm_side side) {
    char op = *c->tok[3];
    int x = value(c, 2, b), y = value(c, 4, b);
    if (x < 0 || y < 0) return false;
    if (op == '%') return y > 0 && unify(c, 0, b, x % y);
    if (op == '-') return x >= y && side_ok(side, '+', x - y, y) && unify(c, 0, b, x - y);
    int r = op == '+' ? x + y : x * y;
    return r <= CM_NUMBER_MAX && side_ok(side, op, x, y) && unify(c, 0, b, r);
}

typedef struct parts { /* of a fact clause: fn a b rel value */
    int fn, a, b, rel;
} parts;

static parts fact_parts(const clause *c, const cm_bind *b) {
    parts p = {fn_id(c->tok[0], c->len[0]), CM_UNBOUND, CM_UNBOUND, 1};
    if (is_var(c, p.rel) && !tok_is(c, p.rel, "=")) p.a = value(c, p.rel++, b);
    if (is_var(c, p.rel) && !tok_is(c, p.rel, "=")) p.b = value(c, p.rel++, b);
    return p;
}

/* The sentence does not name an argument ("he saw nobody"): the newest fact that fits. */
static bool any_holds(const clause *c, const parts *p, const cm_facts *s, cm_bind *b) {
    for (int i = s->n - 1; i >= 0; i--) {
        const cm_fact *f = &s->fact[i];
        cm_bind t = *b;
        if (f->fn != p->fn) continue;
        if (p->rel > 1 && !unify(c, 1, &t, f->a)) continue;
        if (p->rel > 2 && !unify(c, 2, &t, f->b)) continue;
        if (!unify(c, p->rel + 1, &t, f->val)) continue;
        *b = t;
        return true;
    }
    return false;
}

static bool fact_holds(const clause *c, const cm_facts *s, cm_bind *b) {
    parts p = fact_parts(c, b);
    bool open = (p.rel > 1 && p.a == CM_UNBOUND) || (p.rel > 2 && p.b == CM_UNBOUND);
    if (open && tok_is(c, p.rel, "=")) return any_holds(c, &p, s, b);
    const cm_fact *f = look(s, p.fn, p.a, p.b);
    if (tok_is(c, p.rel, "none")) return !f;
    if (tok_is(c, p.rel, "!=")) return !f || f->val != value(c, p.rel + 1, b);
    return f && unify(c, p.rel + 1, b, f->val);
}

static bool holds(const clause *c, const cm_facts *s, cm_bind *b, cm_side side) {
    if (!is_var(c, 0)) return fact_holds(c, s, b);
    if (tok_is(c, 1, ":"))
        return value(c, 0, b) >= 0 && cm_has_tag(cm_type_of(*c->tok[0]), value(c, 0, b),
                                                 c->tok[2], c->len[2]);
    if (tok_is(c, 1, "~"))
        return tags_meet(*c->tok[0], value(c, 0, b), *c->tok[2], value(c, 2, b));
    if (tok_is(c, 1, "!=")) return value(c, 0, b) != value(c, 2, b);
    if (tok_is(c, 1, "<")) return value(c, 0, b) < value(c, 2, b);
    return sum_holds(c, b, side);
}

const char *cm_needs(const char *clauses, const cm_facts *s, cm_bind *b, cm_side side) {
    for (const char *p = clauses; p && *p;) {
        clause c = clause_read(p);
        if (!holds(&c, s, b, side)) return p;
        p = c.next;
    }
    return NULL;
}

void cm_makes(const char *clauses, cm_facts *s, const cm_bind *b) {
    for (const char *p = clauses; p && *p;) {
        clause c = clause_read(p);
        parts f = fact_parts(&c, b);
        forget(s, f.fn, f.a, f.b);
        if (!tok_is(&c, f.rel, "none")) {
            CM_ASSERT(s->n < CM_MAX_FACTS, "more than %d facts", CM_MAX_FACTS);
            s->fact[s->n++] = (cm_fact){(int16_t)f.fn, (int16_t)f.a, (int16_t)f.b,
                                        (int16_t)value(&c, f.rel + 1, b)};
        }
        p = c.next;
    }
}

/* The facts that a clause with unbound arguments can mean, newest first. */
static bool each_fact(const clause *c, const cm_facts *s, const cm_bind *b,
                      cm_hold_fn fn, void *ctx) {
    parts want = fact_parts(c, b);
    for (int i = s->n - 1; i >= 0; i--) {
        const cm_fact *f = &s->fact[i];
        cm_bind t = *b;
        if (f->fn != want.fn) continue;
        if (want.rel > 1 && !unify(c, 1, &t, f->a)) continue;
        if (want.rel > 2 && !unify(c, 2, &t, f->b)) continue;
        if (unify(c, want.rel + 1, &t, f->val) &&
            cm_holds(c->next ? c->next : "", s, &t, fn, ctx))
            return true;
    }
    return false;
}

bool cm_holds(const char *clauses, const cm_facts *s, const cm_bind *b, cm_hold_fn fn,
              void *ctx) {
    if (!*clauses) return fn(ctx, b);
    clause c = clause_read(clauses);
    if (!is_var(&c, 0) && tok_is(&c, fact_parts(&c, b).rel, "="))
        return each_fact(&c, s, b, fn, ctx);
    cm_bind t = *b;
    return holds(&c, s, &t, CM_ANY) && cm_holds(c.next ? c.next : "", s, &t, fn, ctx);
}
