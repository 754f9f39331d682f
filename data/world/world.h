/* world.h -- the default corpus: a small world whose stories are told and checked from
 * the same tables.
 *
 * words.c     what there is: typed words with their grammatical columns
 * events.def  what can happen: what an event needs, what it makes true, how it is told
 * plots.def   what a story is: draws and a script of events
 * grammar.c   patterns with typed slots, read in two directions: telling and matching
 * facts.c     the state of the world: needs are tested, makes are written
 * story.c     plan and tell;  check.c  parse and replay;  tasks.c  questions with truth
 *
 * Telling and checking run the same clauses on the same state, so a story that is told
 * is true, and a text that replays without complaint is true as well.  Every story is a
 * pure function of (seed, split, index): no libm, no locale, no clock. */
#ifndef CM_WORLD_H
#define CM_WORLD_H

#include "base/base.h"

enum { CM_WORLD_VERSION = 1 }; /* part of every story's random stream */

/* ---- words -------------------------------------------------------------------------- */

typedef enum {
    CM_PERSON, CM_THING, CM_KIND, CM_ANIMAL, CM_PLACE, CM_SPOT, CM_DISH, CM_WEATHER,
    CM_MOOD, CM_TIME, CM_RIDE, CM_CHORE, CM_GAME, CM_NUMBER, CM_N_TYPES
} cm_word_type;

enum { CM_COLS = 6, CM_NUMBER_WORDS = 21, CM_NUMBER_MAX = 999 };

typedef struct cm_word {
    const char *tags;         /* space-separated classes: what it can do in a story */
    const char *col[CM_COLS]; /* forms, named by the type's column list */
} cm_word;

typedef struct cm_lexicon {
    const char *letters;      /* variables of this type in patterns and clauses */
    const char *cols[CM_COLS];
    const cm_word *word;
    int n;
} cm_lexicon;

/* Things are a noun and a colour: value = noun * n_colours + colour. */
extern const char *const cm_colours[];
extern const int cm_n_colours;
extern const char *const cm_numbers[CM_NUMBER_WORDS];
const cm_lexicon *cm_lex(cm_word_type t);
cm_word_type cm_type_of(char var);
int cm_n_values(cm_word_type t);
bool cm_has_tag(cm_word_type t, int value, const char *tag, size_t n);

/* ---- random choices ----------------------------------------------------------------- */

typedef struct cm_dice {
    cm_rng rng;
    uint64_t i;
} cm_dice;
int cm_roll(cm_dice *d, int n); /* uniform in [0,n) */

/* ---- bindings and the state of the world --------------------------------------------- */

/* Values of the variables A..Z, a..z.  Pronouns stand for "the one just spoken of". */
enum { CM_UNBOUND = -1, CM_HE = -2, CM_SHE = -3, CM_THEY = -4, CM_MANY = -5 };
typedef struct cm_bind {
    int16_t v[64];
} cm_bind;
static inline int cm_var_index(char c) { return c == '$' ? 0 : c & 63; }
static inline int16_t *cm_var(cm_bind *b, char c) { return &b->v[cm_var_index(c)]; }
static inline int cm_val(const cm_bind *b, char c) { return b->v[cm_var_index(c)]; }
void cm_bind_clear(cm_bind *b);

/* A fact is a function with at most two arguments and one value: holder(ball) = Tom. */
typedef struct cm_fact {
    int16_t fn, a, b, val;
} cm_fact;
enum { CM_MAX_FACTS = 96 };
typedef struct cm_facts {
    cm_fact fact[CM_MAX_FACTS];
    int n;
    int topic, topic2;  /* subject of the last sentence; second of a pair, or UNBOUND */
    int said[4], n_said; /* persons in the last sentence */
} cm_facts;
void cm_facts_clear(cm_facts *s);

/* Training, validation and test: a story's key facts and a sum's operands each belong to
 * exactly one.  CM_ANY is the checker's: no restriction. */
typedef enum { CM_TRAIN, CM_VAL, CM_TEST, CM_ANY } cm_side;
/* Side of the fact family a + b (also c - b, c - a) or a * b; op is '+' or '*'. */
cm_side cm_pair_side(char op, int a, int b);
cm_side cm_key_side(uint64_t key);
uint64_t cm_mix(uint64_t h, uint64_t x);

/* Test the clauses against the state, binding what is unbound.  NULL, or the clause that
 * does not hold.  With side other than CM_ANY, sums of other sides do not hold. */
const char *cm_needs(const char *clauses, const cm_facts *s, cm_bind *b, cm_side side);
void cm_makes(const char *clauses, cm_facts *s, const cm_bind *b);
/* Every way the clauses hold, most recent fact first; stops when fn returns true. */
typedef bool (*cm_hold_fn)(void *ctx, const cm_bind *b);
bool cm_holds(const char *clauses, const cm_facts *s, const cm_bind *b, cm_hold_fn fn,
              void *ctx);

/* ---- events and plots ------------------------------------------------------------------ */

enum { CM_FIRST = 1, CM_LAST = 2 }; /* an event that only opens, or only ends, a story */
typedef struct cm_event {
    const char *name;
    int edge;          /* 0, CM_FIRST or CM_LAST */
    const char *vars;  /* parameters, the subject first */
    const char *needs, *makes;
    const char *const *told; /* patterns, NULL-terminated */
} cm_event;
extern const cm_event cm_events[];
extern const int cm_n_events;
int cm_event_find(const char *name, size_t n); /* -1 when absent */

typedef struct cm_plot {
    const char *name;
    const char *draws;  /* "A:child X:toy n:3-9": variables and where they come from */
    const char *script; /* "own(AX) go(AP)? sad|cry": events, options, alternatives */
} cm_plot;
extern const cm_plot cm_plots[];
extern const int cm_n_plots;

/* ---- patterns: one notation, two directions --------------------------------------------- */

/* Text with (a|b) choices and {slots}.  A slot is {V}, {column:V}, {a:V} (with its
 * article), {#n} (digits), {n:K} (K in the number of n), {is:n} or {was:n}, {both:AB},
 * {they:AB}; a bare {A} is the subject: the name, or he/she when that can only mean A. */
typedef struct cm_text {
    char s[8192];
    size_t n;
    bool full; /* something did not fit: the text is unusable */
} cm_text;
void cm_text_add(cm_text *t, const char *s, size_t n);
void cm_tell(const char *pattern, const cm_bind *b, const cm_facts *s, cm_dice *d,
             cm_text *out);
/* Match at text+pos; calls visit with the end of each way to match, until it returns
 * true.  Returns whether some way to match ran out of text: what is there could be the
 * start of a longer sentence. */
typedef bool (*cm_visit_fn)(void *ctx, const cm_bind *b, size_t end);
bool cm_match(const char *pattern, const char *text, size_t n, size_t pos,
              cm_visit_fn visit, void *ctx);

/* Pronouns of b replaced by whom they mean; false when they can mean nobody, or two. */
bool cm_resolve(const cm_facts *s, cm_bind *b);
/* After an event: who was spoken of. */
void cm_mention(cm_facts *s, const cm_event *e, const cm_bind *b);

/* ---- stories ------------------------------------------------------------------------- */

enum { CM_MAX_SENTENCES = 48 };
typedef struct cm_story {
    cm_text text;
    size_t start[CM_MAX_SENTENCES]; /* where each event's text begins */
    int n_starts;
    cm_facts end;  /* the world after the last sentence */
    int plot;
    uint64_t key;  /* who, what, where: decides the side */
    cm_bind plan;
} cm_story;
/* Story `index` of a side.  Always succeeds. */
void cm_story_make(cm_story *st, uint64_t seed, cm_side side, uint64_t index);

/* Draw what `draws` asks for: words until the key of who, what and where is of the side,
 * then numbers until their sums are.  False after many tries. */
bool cm_plan(const char *draws, uint64_t kind, cm_bind *b, uint64_t *key, cm_dice *d,
             cm_side side);

/* What the checker found. */
typedef struct cm_verdict {
    bool parses;     /* every sentence is in the grammar, opening first, ending last */
    bool consistent; /* and every sentence is true when it is said */
    bool cut;        /* the text stops inside a sentence that the grammar could go on */
    size_t at;       /* byte where the first trouble starts */
    char why[200];
    int sentences;
} cm_verdict;
/* complete: the text must end with an ending event; otherwise the last, unfinished
 * sentence is left out and an ending is not required. */
void cm_story_check(const char *text, size_t n, bool complete, cm_verdict *v);

/* ---- tasks: questions whose truth is known ------------------------------------------- */

enum { CM_WRONGS = 3 };
typedef struct cm_task {
    const char *skill;
    uint64_t doc;             /* items with one value belong together (one story) */
    bool pair;                /* answer is the right sentence, wrong[0] the other */
    char sum[24];             /* "34 + 17", "12 * 3": operands of what is asked, or empty */
    cm_text prompt, think;    /* think: worked reasoning, or empty */
    cm_text says, answer;     /* the answer as a sentence; as briefly as it can be */
    cm_text wrong[CM_WRONGS]; /* brief answers that are not true, all different */
    cm_text wrong_says;       /* wrong[0] as a sentence, and as reasoning gone wrong */
    cm_text wrong_think;
} cm_task;
/* Task `index` of a side: three in a row ask about one story; also sentence pairs. */
void cm_task_make(cm_task *t, uint64_t seed, cm_side side, uint64_t index);

/* A conversation: questions about one story, which stands in the first turn's prompt, or one
 * question of its own.  All skills are equally frequent as first turns. */
enum { CM_TURNS = 3 };
typedef struct cm_talk {
    int n;
    cm_task turn[CM_TURNS];
} cm_talk;
/* Conversation `index` of a side, at most `most` (1 to CM_TURNS) turns. */
void cm_talk_make(cm_talk *c, uint64_t seed, cm_side side, uint64_t index, int most);

/* ---- the little JSON that the corpus needs ------------------------------------------- */

void cm_world_json(cm_buf *b, const char *s, size_t n);
/* Appends the value of the first string member with this key; false when there is none.
 * Reads what cm_world_json writes (\u escapes are kept as letters). */
bool cm_world_json_field(const char *s, size_t n, const char *key, cm_buf *out);

#endif
