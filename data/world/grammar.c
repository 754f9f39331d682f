/* grammar.c -- patterns with slots, told and matched.
 *
 * Both directions go through slot_text: telling writes it, matching compares it, so the
 * grammar that is checked is the grammar that is told.  Matching backtracks over choices
 * and over the words a slot can hold; the rest of the pattern is a chain of continuations
 * on the C stack. */
#include "data/world/world.h"

#include <ctype.h>
#include <string.h>

typedef struct slot {
    const char *form; /* the part before ':', n bytes; "#" for digits */
    size_t n;
    char var, var2;   /* var2: second of a pair, or 0 */
    const char *end;  /* after '}' */
} slot;

static bool form_is(const slot *s, const char *form) {
    return strlen(form) == s->n && memcmp(s->form, form, s->n) == 0;
}

static slot slot_read(const char *p) {
    slot s = {p + 1, 0, 0, 0, strchr(p, '}')};
    CM_ASSERT(s.end, "pattern without '}': %s", p);
    const char *v = p + 1, *colon = memchr(v, ':', (size_t)(s.end - v));
    if (colon) s.n = (size_t)(colon - v), v = colon + 1;
    else if (*v == '#') s.n = 1, v++;
    s.var = v[0];
    if (v + 1 < s.end) s.var2 = v[1];
    s.end++;
    return s;
}

void cm_text_add(cm_text *t, const char *s, size_t n) {
    if (t->n + n >= sizeof t->s) {
        t->full = true;
        return;
    }
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = 0;
}

/* Does a sentence, or speech inside one, start at text[pos]? */
static bool starts_sentence(const char *text, size_t pos) {
    if (pos > 0 && text[pos - 1] == '"') return pos == 1 || text[pos - 2] == ' ';
    if (pos > 1 && text[pos - 1] == ' ') {
        char c = text[pos - 2] == '"' && pos > 2 ? text[pos - 3] : text[pos - 2];
        return c == '.' || c == '!' || c == '?';
    }
    return pos == 0;
}

static int column(cm_word_type t, const slot *s) {
    const cm_lexicon *l = cm_lex(t);
    if (s->n == 0) return t == CM_KIND;
    for (int i = 0; i < CM_COLS && l->cols[i]; i++)
        if (form_is(s, l->cols[i])) return i;
    CM_ASSERT(false, "no column '%.*s' for {%c}", (int)s->n, s->form, s->var);
    return 0;
}

static const char *article(const char *word) {
    return strchr("aeiou", word[0]) ? "an " : "a ";
}

static const char *number_text(const slot *s, int value, char *buf, size_t cap) {
    if (form_is(s, "is")) return value == 1 ? "is" : "are";
    if (form_is(s, "was")) return value == 1 ? "was" : "were";
    if (s->n == 0 && value < CM_NUMBER_WORDS) return cm_numbers[value];
    snprintf(buf, cap, "%d", value);
    return buf;
}

/* What the slot says when its variable has this value (never a pronoun for {A}). */
static const char *slot_text(const slot *s, int value, const cm_bind *b, char *buf,
                             size_t cap) {
    cm_word_type t = cm_type_of(s->var);
    if (t == CM_NUMBER) return number_text(s, value, buf, cap);
    const cm_word *w = cm_lex(t)->word;
    if (t == CM_THING) {
        const char *colour = cm_colours[value % cm_n_colours];
        const char *noun = w[value / cm_n_colours].col[0];
        if (form_is(s, "noun")) return noun;
        snprintf(buf, cap, "%s%s %s", form_is(s, "a") ? article(colour) : "", colour, noun);
        return buf;
    }
    if (form_is(s, "a")) {
        snprintf(buf, cap, "%s%s", article(w[value].col[0]), w[value].col[0]);
        return buf;
    }
    if (s->n == 1) return w[value].col[cm_val(b, s->form[0]) == 1 ? 0 : 1];
    return w[value].col[column(t, s)];
}

enum { COL_HE = 2 }; /* of persons: the column that tells the gender */
static int gender(int person) {
    return cm_lex(CM_PERSON)->word[person].col[COL_HE][0] == 'h' ? CM_HE : CM_SHE;
}

/* He or she can only mean the person last spoken of, and nobody else just named. */
static bool means_only(const cm_facts *s, int person) {
    if (s->topic != person || s->topic2 != CM_UNBOUND) return false;
    for (int i = 0; i < s->n_said; i++)
        if (s->said[i] != person && gender(s->said[i]) == gender(person)) return false;
    return true;
}

bool cm_resolve(const cm_facts *s, cm_bind *b) {
    for (int i = 0; i < 64; i++)
        if (b->v[i] == CM_HE || b->v[i] == CM_SHE) {
            if (s->topic < 0 || gender(s->topic) != b->v[i] || !means_only(s, s->topic))
                return false;
            b->v[i] = (int16_t)s->topic;
        }
    if (cm_val(b, 'A') == CM_THEY) {
        if (s->topic2 < 0) return false;
        *cm_var(b, 'A') = (int16_t)s->topic;
        *cm_var(b, 'B') = (int16_t)s->topic2;
    }
    return true;
}

void cm_mention(cm_facts *s, const cm_event *e, const cm_bind *b) {
    bool pair = e->vars[0] && e->vars[1] == '&';
    s->n_said = 0;
    for (const char *v = e->vars; *v; v++)
        if (*v != '&' && cm_type_of(*v) == CM_PERSON && cm_val(b, *v) >= 0)
            s->said[s->n_said++] = cm_val(b, *v);
    if (e->vars[0] && cm_type_of(e->vars[0]) == CM_PERSON) {
        s->topic = cm_val(b, e->vars[0]);
        s->topic2 = pair ? cm_val(b, e->vars[2]) : CM_UNBOUND;
    } else if (s->n_said) {
        s->topic = s->topic2 = CM_UNBOUND;
    }
}

/* ---- telling -------------------------------------------------------------------------- */

static void add_word(cm_text *out, const char *word) {
    bool cap = starts_sentence(out->s, out->n);
    size_t at = out->n;
    cm_text_add(out, word, strlen(word));
    if (cap && out->n > at) out->s[at] = (char)toupper((unsigned char)out->s[at]);
}

static void tell_slot(const slot *s, const cm_bind *b, const cm_facts *st, cm_dice *d,
                      cm_text *out) {
    char buf[64];
    int v = cm_val(b, s->var);
    CM_ASSERT(v >= 0, "{%c} is not bound", s->var);
    CM_ASSERT(s->var != 'A' || s->n || s->var2 || starts_sentence(out->s, out->n),
              "a bare {A} must start its sentence: %s", s->form);
    if (s->var2) {
        const bool they = form_is(s, "they") && st->topic == v &&
                    st->topic2 == cm_val(b, s->var2) && cm_roll(d, 4) > 0;
        slot one = {"name", 4, s->var, 0, NULL}, two = {"name", 4, s->var2, 0, NULL};
        add_word(out, they ? "they" : slot_text(&one, v, b, buf, sizeof buf));
        if (they) return;
        cm_text_add(out, " and ", 5);
        add_word(out, slot_text(&two, cm_val(b, s->var2), b, buf, sizeof buf));
    } else if (s->var == 'A' && s->n == 0 && means_only(st, v) && cm_roll(d, 4) > 0) {
        add_word(out, cm_lex(CM_PERSON)->word[v].col[COL_HE]);
    } else {
        slot noun = {"noun", 4, s->var, 0, NULL};
        bool brief = s->n == 0 && cm_type_of(s->var) == CM_THING && cm_roll(d, 3) > 0;
        add_word(out, slot_text(brief ? &noun : s, v, b, buf, sizeof buf));
    }
}

/* The end of an alternative: its '|', ')' or the final NUL. */
static const char *skip_choice(const char *p) {
    for (int depth = 0; *p && (depth || (*p != '|' && *p != ')')); p++)
        depth += (*p == '(') - (*p == ')');
    return p;
}

static const char *tell(const char *p, const cm_bind *b, const cm_facts *st, cm_dice *d,
                        cm_text *out) {
    while (*p && *p != '|' && *p != ')') {
        if (*p == '{') {
            slot s = slot_read(p);
            tell_slot(&s, b, st, d, out);
            p = s.end;
        } else if (*p == '(') {
            int n = 1;
            const char *q = skip_choice(p + 1);
            for (; *q == '|'; q = skip_choice(q + 1)) n++;
            for (p++, n = cm_roll(d, n); n > 0; n--) p = skip_choice(p) + 1;
            tell(p, b, st, d, out);
            p = q + 1;
        } else {
            size_t n = strcspn(p, "{(|)");
            cm_text_add(out, p, n);
            p += n;
        }
    }
    return p;
}

void cm_tell(const char *pattern, const cm_bind *b, const cm_facts *s, cm_dice *d,
             cm_text *out) {
    tell(pattern, b, s, d, out);
}

/* ---- matching ------------------------------------------------------------------------- */

typedef struct matcher {
    const char *text;
    size_t n;
    cm_bind b;
    cm_visit_fn visit;
    void *ctx;
    bool ran_out; /* the text ended where the pattern could go on */
} matcher;

typedef struct rest { /* what follows the alternative being matched */
    const char *p;
    const struct rest *next;
} rest;

static bool match(matcher *m, const char *p, size_t pos, const rest *k);

/* Length of word at text[pos], capital where a sentence starts, or 0. */
static size_t word_at(matcher *m, size_t pos, const char *word) {
    size_t n = strlen(word), have = m->n - pos < n ? m->n - pos : n;
    if (have && (m->text[pos] ^ *word) & ~0x20) return 0; /* not even but for case */
    if (have > 1 && memcmp(m->text + pos + 1, word + 1, have - 1) != 0) return 0;
    bool cap = starts_sentence(m->text, pos);
    if (have && m->text[pos] != (cap ? toupper((unsigned char)*word) : *word)) return 0;
    if (have < n) m->ran_out = true;
    return have < n ? 0 : n;
}

/* Go on with var = value if word is here. */
static bool try_word(matcher *m, const slot *s, int value, const char *word, size_t pos,
                     const rest *k) {
    size_t n = word_at(m, pos, word);
    if (n == 0) return false;
    int16_t *v = cm_var(&m->b, s->var), old = *v;
    *v = (int16_t)value;
    bool done = match(m, s->end, pos + n, k);
    *v = old;
    return done;
}

static bool try_value(matcher *m, const slot *s, int value, size_t pos, const rest *k) {
    char buf[64];
    return try_word(m, s, value, slot_text(s, value, &m->b, buf, sizeof buf), pos, k);
}

static bool match_person(matcher *m, const slot *s, size_t pos, const rest *k) {
    static const char *const cols[2][3] = {{"he", "him", "his"}, {"she", "her", "her"}};
    int bound = cm_val(&m->b, s->var);
    bool subject = s->n == 0 && s->var == 'A';
    int col = subject || form_is(s, "he") ? 0 : form_is(s, "him") ? 1
              : form_is(s, "his") ? 2 : -1;
    if (col >= 0)
        for (int g = 0; g < 2; g++) {
            int who = g ? CM_SHE : CM_HE;
            bool may = bound == CM_UNBOUND || bound == who ||
                       (bound >= 0 && gender(bound) == who);
            if (may && try_word(m, s, bound >= 0 ? bound : who, cols[g][col], pos, k))
                return true;
        }
    if (col >= 0 && !subject) return false;
    const cm_lexicon *l = cm_lex(CM_PERSON);
    col = column(CM_PERSON, s);
    for (int i = 0; i < l->n; i++) {
        if (pos < m->n && l->word[i].col[col][0] != m->text[pos] && col == 0) continue;
        bool may = bound == CM_UNBOUND || bound == i ||
                   (bound < CM_UNBOUND && gender(i) == bound);
        if (may && try_word(m, s, i, l->word[i].col[col], pos, k)) return true;
    }
    return false;
}

/* A bound number is compared; an unbound one is read. */
static bool match_number(matcher *m, const slot *s, size_t pos, const rest *k) {
    int bound = cm_val(&m->b, s->var);
    if (bound >= 0) return try_value(m, s, bound, pos, k);
    if (form_is(s, "is") || form_is(s, "was"))
        return try_value(m, s, 1, pos, k) ||
               try_word(m, s, CM_MANY, number_text(s, 2, NULL, 0), pos, k);
    int first = 0;
    if (pos < m->n && isdigit((unsigned char)m->text[pos])) {
        for (size_t i = pos; i < m->n && i < pos + 3; i++)
            if (isdigit((unsigned char)m->text[i])) first = first * 10 + m->text[i] - '0';
            else break;
        return !(bound == CM_MANY && first == 1) && try_value(m, s, first, pos, k);
    }
    if (s->n) return false; /* digits are asked for */
    for (int i = 0; i < CM_NUMBER_WORDS; i++)
        if (!(bound == CM_MANY && i == 1) && try_value(m, s, i, pos, k)) return true;
    return false;
}

static bool match_pair(matcher *m, const slot *s, size_t pos, const rest *k) {
    int16_t *a = cm_var(&m->b, s->var), *b = cm_var(&m->b, s->var2);
    int16_t old_a = *a, old_b = *b;
    bool done = false;
    if (form_is(s, "they") && word_at(m, pos, "they") && old_a < 0) {
        *a = *b = CM_THEY;
        done = match(m, s->end, pos + 4, k);
        *a = old_a, *b = old_b;
    }
    slot one = {"name", 4, s->var, 0, NULL}, two = {"name", 4, s->var2, 0, s->end};
    for (int i = 0; !done && i < cm_n_values(CM_PERSON); i++) {
        char buf[64];
        size_t n = word_at(m, pos, slot_text(&one, i, &m->b, buf, sizeof buf));
        if (n == 0 || (old_a >= 0 && old_a != i) || !word_at(m, pos + n, " and ")) continue;
        *a = (int16_t)i;
        for (int j = 0; !done && j < cm_n_values(CM_PERSON); j++)
            if (j != i && (old_b < 0 || old_b == j))
                done = try_value(m, &two, j, pos + n + 5, k);
        *a = old_a;
    }
    return done;
}

/* "red ball" or, where {X} is bare, just "ball": then of any colour, and the state tells
 * which.  Colour and noun are read apart, so that few candidates are written out. */
static bool match_thing(matcher *m, const slot *s, size_t pos, const rest *k) {
    int bound = cm_val(&m->b, s->var), n = cm_n_values(CM_THING);
    for (int v = 0; s->n == 0 && v < n; v++) {
        if (bound >= 0 && v != bound) continue;
        const char *noun = cm_lex(CM_THING)->word[v / cm_n_colours].col[0];
        if (try_word(m, s, v, noun, pos, k)) return true;
    }
    if (bound >= 0) return try_value(m, s, bound, pos, k);
    for (int c = 0; c < cm_n_colours; c++) {
        char buf[64];
        if (pos < m->n && !form_is(s, "a") && m->text[pos] != cm_colours[c][0]) continue;
        snprintf(buf, sizeof buf, "%s%s", form_is(s, "a") ? article(cm_colours[c]) : "",
                 cm_colours[c]);
        if (!word_at(m, pos, buf)) continue;
        for (int v = c; v < n; v += cm_n_colours)
            if (try_value(m, s, v, pos, k)) return true;
    }
    return false;
}

static bool match_slot(matcher *m, const slot *s, size_t pos, const rest *k) {
    if (s->var2) return match_pair(m, s, pos, k);
    cm_word_type t = cm_type_of(s->var);
    int bound = cm_val(&m->b, s->var);
    if (t == CM_PERSON) return match_person(m, s, pos, k);
    if (t == CM_NUMBER) return match_number(m, s, pos, k);
    if (t == CM_THING) return match_thing(m, s, pos, k);
    if (s->var == '$') bound = cm_n_values(CM_KIND) - 1;
    if (bound >= 0) return try_value(m, s, bound, pos, k);
    for (int i = 0; i < cm_n_values(t); i++)
        if (try_value(m, s, i, pos, k)) return true;
    return false;
}

static bool match(matcher *m, const char *p, size_t pos, const rest *k) {
    for (; *p && *p != '|' && *p != ')'; p++, pos++) {
        if (*p == '{') {
            slot s = slot_read(p);
            return match_slot(m, &s, pos, k);
        }
        if (*p == '(') {
            const char *end = skip_choice(p + 1);
            while (*end == '|') end = skip_choice(end + 1);
            const rest then = {end + 1, k};
            for (const char *q = p + 1;; q++) {
                if (match(m, q, pos, &then)) return true;
                q = skip_choice(q);
                if (*q != '|') return false;
            }
        }
        if (pos >= m->n) m->ran_out = true;
        if (pos >= m->n || m->text[pos] != *p) return false;
    }
    if (k) return match(m, k->p, pos, k->next);
    return m->visit(m->ctx, &m->b, pos);
}

bool cm_match(const char *pattern, const char *text, size_t n, size_t pos,
              cm_visit_fn visit, void *ctx) {
    matcher m = {text, n, {{0}}, visit, ctx, false};
    cm_bind_clear(&m.b);
    match(&m, pattern, pos, NULL);
    return m.ran_out;
}
