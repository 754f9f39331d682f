/* story.c -- plan a story, then tell it event by event on the state of the world.
 *
 * A plan draws who, what and where; the key facts decide the side, before anything is
 * told.  Telling tests each event's needs with the same code as the checker: an optional
 * event that does not fit is left out, a required one that does not fit throws the story
 * away and the next plan is drawn from the same dice. */
#include "data/world/world.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- the tables ---------------------------------------------------------------------- */

#define EVENT(name, edge, vars, needs, makes, ...)                                      \
    static const char *const told_##name[] = {__VA_ARGS__, NULL};
#include "data/world/events.def"
#undef EVENT

const cm_event cm_events[] = {
#define EVENT(name, edge, vars, needs, makes, ...)                                      \
    {#name, edge, vars, needs, makes, told_##name},
#include "data/world/events.def"
#undef EVENT
};
const int cm_n_events = (int)(sizeof cm_events / sizeof *cm_events);

const cm_plot cm_plots[] = {
#define PLOT(name, draws, script) {#name, draws, script},
#include "data/world/plots.def"
#undef PLOT
};
const int cm_n_plots = (int)(sizeof cm_plots / sizeof *cm_plots);

int cm_event_find(const char *name, size_t n) {
    for (int i = 0; i < cm_n_events; i++)
        if (cm_events[i].name[0] == name[0] && strlen(cm_events[i].name) == n &&
            memcmp(cm_events[i].name, name, n) == 0)
            return i;
    return -1;
}

/* ---- planning ------------------------------------------------------------------------ */

/* Another variable of the same type already has this word (for things: this noun). */
static bool taken(const cm_bind *b, char var, int v) {
    cm_word_type t = cm_type_of(var);
    int div = t == CM_THING ? cm_n_colours : 1;
    for (const char *o = cm_lex(t)->letters; *o; o++)
        if (*o != var && *o != '$' && cm_val(b, *o) >= 0 && cm_val(b, *o) / div == v / div)
            return true;
    return false;
}

/* Draw a word of the variable's type until the clause (about the variable) holds. */
static bool draw_word(char var, const char *clause, cm_bind *b, cm_dice *d) {
    cm_facts nowhere;
    cm_facts_clear(&nowhere);
    int n = cm_n_values(cm_type_of(var)) - (cm_type_of(var) == CM_KIND);
    for (int tries = 0; tries < 100; tries++) {
        int v = cm_roll(d, n);
        if (taken(b, var, v)) continue;
        *cm_var(b, var) = (int16_t)v;
        if (!*clause || !cm_needs(clause, &nowhere, b, CM_ANY)) return true;
    }
    return false;
}

/* "s=n+m" belongs to the side; "s<=n+m" only must not be held out; "s<<n+m" is of training;
 * "s==n+m" is free. */
static bool draw_sum(const char *p, cm_bind *b, cm_side side) {
    cm_facts nowhere;
    cm_facts_clear(&nowhere);
    if (p[2] == '<') side = CM_TRAIN;
    else if (p[1] != '=' && side != CM_TRAIN) side = CM_ANY;
    if (p[1] == '=' && p[2] == '=') side = CM_ANY;
    const char *rhs = p + 2 + (p[2] == '=' || p[2] == '<');
    char clause[32];
    snprintf(clause, sizeof clause, "%c = %c %c %.*s", p[0], rhs[0], rhs[1],
             (int)strcspn(rhs + 2, " "), rhs + 2);
    return !cm_needs(clause, &nowhere, b, side);
}

/* One draw of a word or number: "A:child", "n:3-9", "K~P", "T". */
static bool draw(const char *p, size_t n, cm_bind *b, cm_dice *d) {
    char clause[48] = "", var = p[0];
    if (cm_type_of(var) == CM_NUMBER) {
        char *end;
        int lo = (int)strtol(p + 2, &end, 10), hi = (int)strtol(end + 1, NULL, 10);
        *cm_var(b, var) = (int16_t)(lo + cm_roll(d, hi - lo + 1));
        return true;
    }
    if (n > 1) snprintf(clause, sizeof clause, "%c %c %.*s", var, p[1], (int)n - 2, p + 2);
    return draw_word(var, clause, b, d);
}

typedef enum { DRAW_WORDS, DRAW_NUMBERS, DRAW_SUMS } draw_kind;

/* The draws of one kind, in the order in which the plot lists them. */
static bool draw_all(const char *p, draw_kind kind, cm_bind *b, cm_dice *d, cm_side side) {
    for (; *p; p += *p == ' ') {
        size_t n = strcspn(p, " ");
        draw_kind is = n > 1 && strchr("=<", p[1]) ? DRAW_SUMS
                       : cm_type_of(*p) == CM_NUMBER ? DRAW_NUMBERS : DRAW_WORDS;
        if (is == kind && (is == DRAW_SUMS ? !draw_sum(p, b, side) : !draw(p, n, b, d)))
            return false;
        p += n;
    }
    return true;
}

static void clear_numbers(cm_bind *b) {
    for (char c = 'a'; c <= 'z'; c++) *cm_var(b, c) = CM_UNBOUND;
}

/* Who, what and where. */
static uint64_t key_of(uint64_t kind, const char *vars, const cm_bind *b) {
    uint64_t h = cm_mix(CM_WORLD_VERSION, kind);
    for (const char *v = vars; *v; v++)
        if (cm_val(b, *v) >= 0) h = cm_mix(h, (uint64_t)(cm_val(b, *v) * 128 + *v));
    return h;
}

bool cm_plan(const char *draws, uint64_t kind, cm_bind *b, uint64_t *key, cm_dice *d,
             cm_side side) {
    enum { TRIES = 200 };
    bool ok = false, words = strcspn(draws, "ABCDFGHIJKLNOPWXY") < strlen(draws);
    for (int i = 0; !ok && i < TRIES; i++) {
        cm_bind_clear(b);
        if (!draw_all(draws, DRAW_WORDS, b, d, side)) continue;
        *key = key_of(kind, "AXKNFGWP", b);
        ok = !words || cm_key_side(*key) == side;
    }
    for (int i = 0; ok && i < TRIES; i++) {
        clear_numbers(b);
        draw_all(draws, DRAW_NUMBERS, b, d, side);
        if (!draw_all(draws, DRAW_SUMS, b, d, side)) continue;
        if (!words) *key = key_of(kind, "nmkqrs", b); /* a bare sum is its own key */
        return true;
    }
    return false;
}

/* ---- telling --------------------------------------------------------------------------- */

/* Bind the event's parameters to the arguments: those written in the script, or the
 * plot's variables of the same letters. */
static void bind_args(const cm_event *e, const char *args, const cm_bind *plot_b,
                      cm_bind *b) {
    cm_bind_clear(b);
    for (const char *v = e->vars; *v; v++, args++)
        if (*v != '&') *cm_var(b, *v) = (int16_t)cm_val(plot_b, *args);
}

/* Tell one event; false when it does not fit. */
static bool tell_event(cm_story *st, const cm_event *e, const char *args, cm_dice *d,
                       cm_side side) {
    cm_bind b;
    bind_args(e, args, &st->plan, &b);
    if (cm_needs(e->needs, &st->end, &b, side)) return false;
    int n = 0;
    while (e->told[n]) n++;
    if (st->text.n) cm_text_add(&st->text, " ", 1);
    if (st->n_starts < CM_MAX_SENTENCES) st->start[st->n_starts++] = st->text.n;
    cm_tell(e->told[cm_roll(d, n)], &b, &st->end, d, &st->text);
    cm_makes(e->makes, &st->end, &b);
    cm_mention(&st->end, e, &b);
    return true;
}

/* One step of a script: `name(args)`, alternatives, an option.  Returns its end. */
static const char *tell_step(cm_story *st, const char *p, cm_dice *d, cm_side side,
                             bool *ok) {
    size_t n = strcspn(p, " ");
    bool optional = p[n - 1] == '?';
    int n_alt = 1;
    for (size_t i = 0; i < n; i++) n_alt += p[i] == '|';
    int pick = cm_roll(d, n_alt);
    const char *q = p;
    while (pick > 0) pick -= *q++ == '|';
    if (optional && cm_roll(d, 2)) return p + n;
    size_t len = strcspn(q, "(");
    int e = cm_event_find(q, len);
    CM_ASSERT(e >= 0, "plot %s: no event '%.*s'", cm_plots[st->plot].name, (int)len, q);
    if (!tell_event(st, &cm_events[e], q + len + 1, d, side) && !optional) *ok = false;
    return p + n;
}

static bool tell_story(cm_story *st, cm_dice *d, cm_side side) {
    st->text.n = 0;
    st->n_starts = 0;
    st->text.full = false;
    cm_facts_clear(&st->end);
    bool ok = true;
    for (const char *p = cm_plots[st->plot].script; ok && *p; p += *p == ' ')
        p = tell_step(st, p, d, side, &ok);
    return ok && !st->text.full;
}

void cm_story_make(cm_story *st, uint64_t seed, cm_side side, uint64_t index) {
    uint64_t world = cm_mix(cm_mix(seed, CM_WORLD_VERSION), (uint64_t)side);
    cm_dice d = {cm_rng_make(world, CM_RNG_CORPUS, index), 0};
    enum { PLANS = 200 }; /* for one plot, before another is tried */
    for (;;) {
        st->plot = cm_roll(&d, cm_n_plots);
        const char *draws = cm_plots[st->plot].draws;
        for (int i = 0; i < PLANS; i++)
            if (cm_plan(draws, (uint64_t)st->plot, &st->plan, &st->key, &d, side) &&
                tell_story(st, &d, side))
                return;
    }
}
