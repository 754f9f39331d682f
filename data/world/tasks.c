/* tasks.c -- questions with known truth: about a story's end, sums, words, agreement.
 *
 * A task is a binding and three patterns: what is asked, what is answered, and, with one
 * variable changed, what is answered wrongly.  Truth therefore needs no judge. */
#include "data/world/world.h"

#include <string.h>

typedef struct kind {
    const char *skill;
    char vary;
    const char *from; /* needs of a story question, draws of the others */
    const char *ask, *think, *says, *brief;
} kind;

#define STORY(skill, vary, needs, ask, says, brief) \
    {#skill, vary, needs, ask, "", says, brief},
#define ALONE(skill, vary, draws, ask, think, says, brief) \
    {#skill, vary, draws, ask, think, says, brief},
#define TASK(...)
#define CHAT(...)
#define DRILL(...)
#define BOTH(...)
#define PAIR(...)
static const kind about_story[] = {
#include "data/world/tasks.def"
};
#undef STORY
#define STORY(...)
#undef BOTH
#define BOTH ALONE
#undef TASK
#define TASK ALONE
static const kind alone[] = {
#include "data/world/tasks.def"
};
#undef TASK
#define TASK(...)
#undef CHAT
#define CHAT ALONE
static const kind in_chat[] = {
#include "data/world/tasks.def"
};
#undef CHAT
#define CHAT(...)
#undef DRILL
#define DRILL ALONE
#undef BOTH
#define BOTH(...)
static const kind drills[] = {
#include "data/world/tasks.def"
};
#undef DRILL
#define DRILL(...)
#undef PAIR
#define PAIR(skill, draws, good, bad) {#skill, 0, draws, good, "", good, bad},
static const kind pairs_of[] = {
#include "data/world/tasks.def"
};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static void say(cm_text *out, const char *pattern, const cm_bind *b, cm_dice *d) {
    cm_facts nobody;
    cm_facts_clear(&nobody);
    out->n = 0, out->s[0] = 0, out->full = false;
    cm_tell(pattern, b, &nobody, d, out);
}

/* ---- wrong answers ---------------------------------------------------------------------- */

typedef struct cast { /* who is spoken of: the likely mistakes */
    int who[4], n;
} cast;

static cast cast_of(const cm_bind *b) {
    cast c = {{0}, 0};
    for (const char *p = "ABCD"; *p; p++)
        if (cm_val(b, *p) >= 0) c.who[c.n++] = cm_val(b, *p);
    return c;
}

/* Another value: a person of the story where there is one, a number nearby, else a word
 * of the same class (its first tag), where it has one. */
static int other_value(const cast *people, char var, int v, int try, cm_dice *d) {
    cm_word_type t = cm_type_of(var);
    if (t == CM_NUMBER) {
        int w = v + (cm_roll(d, 2) ? 1 : -1) * (1 + cm_roll(d, 4));
        return w > 0 ? w : v + 4;
    }
    if (t == CM_PERSON && people->n && try < 12)
        return people->who[cm_roll(d, people->n)];
    const char *tag = cm_lex(t)->word[t == CM_THING ? v / cm_n_colours : v].tags;
    size_t len = strcspn(tag, " ");
    for (int tries = 0;; tries++) {
        int w = cm_roll(d, cm_n_values(t) - (t == CM_KIND));
        if (len == 0 || try > 20 || tries > 200 || cm_has_tag(t, w, tag, len)) return w;
    }
}

static bool is_new(const cm_task *t, int n) {
    if (strcmp(t->wrong[n].s, t->answer.s) == 0) return false;
    for (int i = 0; i < n; i++)
        if (strcmp(t->wrong[n].s, t->wrong[i].s) == 0) return false;
    return true;
}

static void wrong_answers(cm_task *t, const kind *k, const cm_bind *b,
                          const cast *people, cm_dice *d) {
    for (int n = 0; n < CM_WRONGS; n++)
        for (int try = 0;; try++) {
            cm_bind w = *b;
            *cm_var(&w, k->vary) =
                (int16_t)other_value(people, k->vary, cm_val(b, k->vary), try, d);
            say(&t->wrong[n], k->brief, &w, d);
            if (!is_new(t, n)) continue;
            if (n == 0) say(&t->wrong_says, k->says, &w, d);
            if (n == 0) say(&t->wrong_think, k->think, &w, d);
            break;
        }
}

static void answer_with(cm_task *t, const kind *k, const cm_bind *b, const cast *people,
                        cm_dice *d) {
    t->skill = k->skill;
    t->pair = false;
    say(&t->think, k->think, b, d);
    say(&t->says, k->says, b, d);
    say(&t->answer, k->brief, b, d);
    wrong_answers(t, k, b, people, d);
}

/* ---- the three sorts ----------------------------------------------------------------- */

typedef struct choice { /* one of the ways in which needs hold, drawn fairly */
    cm_bind b;
    int n;
    cm_dice *d;
} choice;

static bool choose(void *ctx, const cm_bind *b) {
    choice *c = ctx;
    if (cm_roll(c->d, ++c->n) == 0) c->b = *b;
    return false;
}

/* Ask k about a story's end; false where it has no answer there. */
static bool ask_about(cm_task *t, const kind *k, const cm_story *st, cm_dice *d) {
    choice c = {.n = 0, .d = d};
    cm_bind none;
    cm_bind_clear(&none);
    cm_holds(k->from, &st->end, &none, choose, &c);
    if (!c.n) return false;
    const cast people = cast_of(&st->plan);
    t->doc = st->key;
    t->sum[0] = 0;
    answer_with(t, k, &c.b, &people, d);
    say(&t->prompt, k->ask, &c.b, d);
    return true;
}

static void put_story_before(cm_task *t, cm_story *st) {
    cm_text_add(&st->text, "\n", 1);
    cm_text_add(&st->text, t->prompt.s, t->prompt.n);
    t->prompt = st->text;
}

static bool ask_story(cm_task *t, uint64_t seed, cm_side side, uint64_t index, cm_dice *d) {
    static _Thread_local cm_story st;
    cm_story_make(&st, cm_mix(seed, 1), side, index);
    bool asked = false;
    for (int tries = 0; !asked && tries < 40; tries++) {
        const kind *k = &about_story[cm_roll(d, COUNT(about_story))];
        if (k->vary == 'P' && tries < 8) continue; /* everybody is somewhere: seldom */
        asked = ask_about(t, k, &st, d);
    }
    if (asked) put_story_before(t, &st);
    return asked;
}

/* The sum that is asked for, the first "s=n+m" of the draws, with its numbers. */
static void name_sum(cm_task *t, const char *draws, const cm_bind *b) {
    const char *p = draws;
    t->sum[0] = 0;
    while (*p && !(p[1] == '=' && strchr("+*", p[3]) && p[3])) {
        p += strcspn(p, " ");
        p += *p == ' ';
    }
    if (*p)
        snprintf(t->sum, sizeof t->sum, "%d %c %d", cm_val(b, p[2]), p[3], cm_val(b, p[4]));
}

/* id: where the key of k's questions starts from. */
static bool ask_alone(cm_task *t, const kind *k, uint64_t id, cm_side side, cm_dice *d) {
    int tries = 0;
    cm_bind b;
    while (!cm_plan(k->from, id, &b, &t->doc, d, side))
        if (++tries == 8) return false;
    const cast people = cast_of(&b);
    answer_with(t, k, &b, &people, d);
    say(&t->prompt, k->ask, &b, d);
    name_sum(t, k->from, &b);
    return true;
}

static bool ask_pair(cm_task *t, cm_side side, cm_dice *d) {
    int i = cm_roll(d, COUNT(pairs_of));
    const kind *k = &pairs_of[i];
    cm_bind b;
    if (!cm_plan(k->from, 2000 + (uint64_t)i, &b, &t->doc, d, side)) return false;
    t->skill = k->skill;
    t->pair = true;
    t->prompt.n = t->think.n = 0;
    say(&t->answer, k->says, &b, d);
    say(&t->wrong[0], k->brief, &b, d);
    return true;
}

void cm_task_make(cm_task *t, uint64_t seed, cm_side side, uint64_t index) {
    uint64_t world = cm_mix(cm_mix(seed, CM_WORLD_VERSION), 100 + (uint64_t)side);
    cm_dice d = {cm_rng_make(world, CM_RNG_CORPUS, index), 0};
    for (uint64_t tries = 0;; tries++) {
        int sort = cm_roll(&d, 8);
        uint64_t story = index / 3 + (tries > 40 ? tries << 40 : 0);
        bool ok;
        if (sort < 4) ok = ask_story(t, seed, side, story, &d);
        else if (sort == 7) ok = ask_pair(t, side, &d);
        else {
            int i = cm_roll(&d, COUNT(alone));
            ok = ask_alone(t, &alone[i], 1000 + (uint64_t)i, side, &d);
        }
        if (ok) return;
    }
}

/* ---- conversations ---------------------------------------------------------------------- */

/* Most stories end at home: three of four questions that only ask for that are left out. */
static bool too_common(const cm_task *t, cm_dice *d) {
    return strcmp(t->answer.s, "At home") == 0 && cm_roll(d, 4) > 0;
}

/* Turn c->n asks what no turn before it does. */
static bool is_other(const cm_talk *c) {
    for (int i = 0; i < c->n; i++)
        if (strcmp(c->turn[c->n].prompt.s, c->turn[i].prompt.s) == 0) return false;
    return true;
}

/* Questions about one story, the first of them of the given kind; each is another one. */
static void talk_about(cm_talk *c, const kind *k, uint64_t seed, cm_side side, uint64_t index,
                       int most, cm_dice *d) {
    static _Thread_local cm_story st;
    uint64_t story = cm_mix(index, 0x7a1c); /* far apart, so that talks share no story */
    do cm_story_make(&st, cm_mix(seed, 1), side, story++);
    while (!ask_about(&c->turn[0], k, &st, d) || too_common(&c->turn[0], d));
    c->n = 1;
    for (int tries = 0; c->n < most && tries < 12; tries++) {
        cm_task *t = &c->turn[c->n];
        c->n += ask_about(t, &about_story[cm_roll(d, COUNT(about_story))], &st, d) && is_other(c);
    }
    put_story_before(&c->turn[0], &st);
}

/* Steps of sums, one after the other. */
static bool drill(cm_talk *c, cm_side side, int most, cm_dice *d) {
    for (c->n = 0; c->n < most; c->n += is_other(c)) {
        int i = cm_roll(d, COUNT(drills));
        if (!ask_alone(&c->turn[c->n], &drills[i], 4000 + (uint64_t)i, side, d)) return false;
    }
    return true;
}

void cm_talk_make(cm_talk *c, uint64_t seed, cm_side side, uint64_t index, int most) {
    uint64_t world = cm_mix(cm_mix(seed, CM_WORLD_VERSION), 200 + (uint64_t)side);
    cm_dice d = {cm_rng_make(world, CM_RNG_CORPUS, index), 0};
    CM_ASSERT(most >= 1 && most <= CM_TURNS, "%d turns", most);
    const int n_alone = COUNT(in_chat), n_drills = side == CM_TRAIN && most > 1 ? COUNT(drills) : 0;
    for (;;) {
        int i = cm_roll(&d, COUNT(about_story) + n_alone + n_drills) - COUNT(about_story);
        c->n = 1;
        if (i < 0) {
            talk_about(c, &about_story[i + COUNT(about_story)], seed, side, index,
                       1 + cm_roll(&d, most), &d);
            return;
        }
        if (i >= n_alone ? drill(c, side, most, &d)
                         : ask_alone(&c->turn[0], &in_chat[i], 3000 + (uint64_t)i, side, &d))
            return;
    }
}
