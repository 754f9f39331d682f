/* probe_texts.c -- generated questions in text: passkeys in a haystack, a phone book. */
#include "harness/harness.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    cm_rng r;
    uint64_t i;
} draws;

static int64_t below(draws *d, int64_t n) {
    return (int64_t)cm_rng_below(d->r, d->i++, (uint64_t)n);
}

void cm_probe_text_free(cm_probe_text *t) {
    cm_buf_free(&t->context);
    for (int i = 0; i < t->n_choices; i++) cm_buf_free(&t->choice[i]);
    *t = (cm_probe_text){ 0 };
}

/* ---- names and numbers --------------------------------------------------------------- */

enum { MAX_DIGITS = 12, NAME = 24 };

/* Digits, the first not 0, different from the n in `not` (stride MAX_DIGITS + 1). */
static void number(draws *d, int digits, char not[][MAX_DIGITS + 1], int n, char *out) {
    for (bool again = true; again;) {
        for (int i = 0; i < digits; i++)
            out[i] = (char)('0' + (i ? below(d, 10) : 1 + below(d, 9)));
        out[digits] = 0;
        again = false;
        for (int i = 0; i < n; i++) again = again || !strcmp(out, not[i]);
    }
}

/* Two or three open syllables, "Taremo": 13 x 5 of them, so 270,000 names and more. */
static void name(draws *d, char not[][NAME], int n, char *out) {
    static const char onset[] = "bdfgklmnprstv", vowel[] = "aeiou";
    for (bool again = true; again;) {
        int syllables = 2 + (int)below(d, 2), at = 0;
        for (int i = 0; i < syllables; i++) {
            out[at++] = onset[below(d, (int)sizeof onset - 1)];
            out[at++] = vowel[below(d, (int)sizeof vowel - 1)];
        }
        out[at] = 0;
        out[0] = (char)toupper((unsigned char)out[0]);
        again = false;
        for (int i = 0; i < n; i++) again = again || !strcmp(out, not[i]);
    }
}

/* Put `right` at a random place among the wrong ones, each behind a blank. */
static void choices(draws *d, cm_probe_text *t, int n, const char *right,
                    char wrong[][MAX_DIGITS + 1]) {
    t->n_choices = n;
    t->gold = (int)below(d, n);
    for (int i = 0, w = 0; i < n; i++)
        cm_buf_addf(&t->choice[i], "%s", i == t->gold ? right : wrong[w++]);
}

static bool count_tokens(const cm_spm *spm, const char *s, size_t n, int *tokens,
                         cm_err *err) {
    int32_t *id = NULL;
    int64_t got = 0, cap = 0;
    bool ok = cm_spm_encode(spm, s, n, &id, &got, &cap, err);
    *tokens = (int)got;
    free(id);
    return ok;
}

static bool sane(const char *what, int digits, int n_choices, cm_err *err) {
    if (digits >= 3 && digits <= MAX_DIGITS && n_choices >= 2 &&
        n_choices <= CM_PROBE_CHOICES)
        return true;
    return cm_fail(err, CM_EXIT_USAGE,
                   "%s: %d digits and %d choices; wanted 3 to %d digits, 2 to %d choices",
                   what, digits, n_choices, MAX_DIGITS, CM_PROBE_CHOICES);
}

/* ---- haystacks ----------------------------------------------------------------------- */

static const char *const plain[] = {
    "The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.",
    "There and back again.", "The river runs down to the sea.", "It was a quiet day.",
    "The birds sang in the trees.", "They walked along the road.", "The wind was cold.",
    "He sat by the window.", "She closed the door.", "The children played in the garden.",
    "Bread was on the table.", "The old clock was slow.", "Nobody said a word.",
    "A dog slept by the fire.", "The boat lay on the sand.", "Rain fell in the night.",
    "The bell rang at noon.", "We had tea and cake.", "The horse was tired.",
    "They counted the stars.", "The lamp burned low.",
};
enum { N_PLAIN = sizeof plain / sizeof *plain };

static void hay_add(cm_hay *h, const char *s, size_t n) {
    while (n && isspace((unsigned char)*s)) s++, n--;
    while (n && isspace((unsigned char)s[n - 1])) n--;
    if (!n) return;
    if (!(h->n & (h->n + 1))) { /* 0, 1, 3, 7, ...: full */
        size_t cap = 2 * (size_t)h->n + 1;
        h->sentence = realloc(h->sentence, cap * sizeof *h->sentence);
    }
    CM_ASSERT(h->sentence, "out of memory for a haystack");
    h->sentence[h->n++] = cm_strf("%.*s", (int)n, s);
}

void cm_hay_split(cm_hay *h, const char *text, size_t n) {
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        bool stop = strchr(".!?", text[i]) && text[i] && i + 1 < n &&
                    isspace((unsigned char)text[i + 1]);
        if (!stop && text[i] != '\n') continue;
        hay_add(h, text + from, i + 1 - from);
        from = i + 1;
    }
    hay_add(h, text + from, n - from);
}

void cm_hay_free(cm_hay *h) {
    for (int i = 0; i < h->n; i++) free(h->sentence[i]);
    free(h->sentence);
    *h = (cm_hay){ 0 };
}

/* ---- passkeys ------------------------------------------------------------------------ */

enum { MAX_KEYS = 64, MAX_FILL = 1 << 20 };

typedef struct {
    char owner[MAX_KEYS][NAME], key[MAX_KEYS + CM_PROBE_CHOICES][MAX_DIGITS + 1];
    char *needle[MAX_KEYS]; /* sentences, [0] the asked one */
    cm_buf question;
    int left; /* tokens to fill */
} stack;

static bool make_needles(stack *s, draws *d, const cm_needle *c, const cm_spm *spm,
                         cm_err *err) {
    int tokens;
    s->left = c->length;
    for (int k = 0; k < c->keys; k++) {
        number(d, c->digits, s->key, k, s->key[k]);
        name(d, s->owner, k, s->owner[k]);
        s->needle[k] = c->keys > 1 ? cm_strf("The pass key of %s is %s.", s->owner[k], s->key[k])
                                   : cm_strf("The pass key is %s.", s->key[k]);
        if (!count_tokens(spm, s->needle[k], strlen(s->needle[k]), &tokens, err)) return false;
        s->left -= tokens;
    }
    if (c->keys > 1)
        cm_buf_addf(&s->question, "What is the pass key of %s? The pass key of %s is",
                    s->owner[0], s->owner[0]);
    else cm_buf_addf(&s->question, "What is the pass key? The pass key is");
    if (!count_tokens(spm, s->question.s, s->question.n, &tokens, err)) return false;
    s->left -= tokens;
    return s->left >= 0 ||
           cm_fail(err, CM_EXIT_USAGE, "needle: %d keys and the question take %d tokens more "
                   "than the length %d", c->keys, -s->left, c->length);
}

/* Sentence i of the haystack: a stretch of the text, or random built-in ones. */
static const char *straw(draws *d, const cm_hay *hay, int64_t start, int i) {
    return hay ? hay->sentence[(start + i) % hay->n] : plain[below(d, N_PLAIN)];
}

/* As many sentences as the length has room for. */
static bool fill(stack *s, draws *d, const cm_hay *hay, const cm_spm *spm,
                 const char ***out, int *n, cm_err *err) {
    int64_t start = hay ? below(d, hay->n) : 0;
    int cap = 0, tokens;
    for (*n = 0; *n < MAX_FILL; ++*n) {
        const char *line = straw(d, hay, start, *n);
        if (!count_tokens(spm, line, strlen(line), &tokens, err)) return false;
        if (tokens > s->left) return true;
        s->left -= tokens;
        if (*n == cap) *out = realloc(*out, (size_t)(cap = 2 * cap + 64) * sizeof **out);
        CM_ASSERT(*out, "out of memory for a haystack");
        (*out)[*n] = line;
    }
    return true;
}

/* Where needle k goes: in front of straw number `return value`. */
static int place(draws *d, const cm_needle *c, int k, int n) {
    return k == 0 ? (int)(c->depth * n + 0.5) : (int)below(d, n + 1);
}

static void assemble(const stack *s, draws *d, const cm_needle *c, const char *const *line,
                     int n, cm_buf *out) {
    int at[MAX_KEYS];
    for (int k = 0; k < c->keys; k++) at[k] = place(d, c, k, n);
    for (int i = 0; i <= n; i++) {
        for (int k = 0; k < c->keys; k++)
            if (at[k] == i) cm_buf_addf(out, "%s ", s->needle[k]);
        if (i < n) cm_buf_addf(out, "%s ", line[i]);
    }
    cm_buf_addf(out, "%s", s->question.s);
}

static bool needle(stack *s, draws *d, const cm_needle *c, const cm_hay *hay,
                   const cm_spm *spm, cm_probe_text *out, cm_err *err) {
    const char **line = NULL;
    int n = 0;
    bool ok = make_needles(s, d, c, spm, err) && fill(s, d, hay, spm, &line, &n, err);
    if (ok) {
        assemble(s, d, c, line, n, &out->context);
        for (int k = c->keys; k < c->choices; k++) number(d, c->digits, s->key, k, s->key[k]);
        choices(d, out, c->choices, s->key[0], s->key + 1);
        out->tokens = c->length - s->left;
    }
    free(line);
    return ok;
}

bool cm_probe_needle(const cm_needle *c, const cm_hay *hay, const cm_spm *spm, uint64_t seed,
                     uint64_t index, cm_probe_text *out, cm_err *err) {
    *out = (cm_probe_text){ 0 };
    if (!sane("needle", c->digits, c->choices, err)) return false;
    if (c->keys < 1 || c->keys > MAX_KEYS || !(c->depth >= 0 && c->depth <= 1))
        return cm_fail(err, CM_EXIT_USAGE, "needle: %d keys at depth %g; wanted 1 to %d, 0 to 1",
                       c->keys, c->depth, MAX_KEYS);
    stack *s = calloc(1, sizeof *s);
    CM_ASSERT(s, "out of memory for a needle");
    draws d = { cm_rng_make(seed, CM_RNG_PROBE, index), 0 };
    bool ok = needle(s, &d, c, hay, spm, out, err);
    for (int k = 0; k < c->keys; k++) free(s->needle[k]);
    cm_buf_free(&s->question);
    free(s);
    return ok;
}

/* ---- phone book ---------------------------------------------------------------------- */

enum { MAX_ENTRIES = 4096 };
typedef struct {
    char name[MAX_ENTRIES][NAME], number[MAX_ENTRIES + CM_PROBE_CHOICES][MAX_DIGITS + 1];
    int order[MAX_ENTRIES + CM_PROBE_CHOICES]; /* [0] is asked, then the wrong choices */
    char wrong[CM_PROBE_CHOICES][MAX_DIGITS + 1];
} book;

static void ask_book(book *b, draws *d, int entries, int digits, int n_choices,
                     cm_probe_text *out) {
    int all = entries < n_choices ? n_choices : entries; /* the rest: nobody's numbers */
    for (int i = 0; i < all; i++) {
        number(d, digits, b->number, i, b->number[i]);
        b->order[i] = i;
    }
    for (int i = 0; i < entries; i++) {
        name(d, b->name, i, b->name[i]);
        cm_buf_addf(&out->context, "%s: %s\n", b->name[i], b->number[i]);
    }
    for (int i = 0; i < entries; i++) {
        int j = i + (int)below(d, entries - i), t = b->order[i];
        b->order[i] = b->order[j];
        b->order[j] = t;
    }
    cm_buf_addf(&out->context, "\n%s:", b->name[b->order[0]]);
    for (int i = 0; i + 1 < n_choices; i++)
        memcpy(b->wrong[i], b->number[b->order[i + 1]], sizeof b->wrong[i]);
    choices(d, out, n_choices, b->number[b->order[0]], b->wrong);
}

bool cm_probe_phonebook(int entries, int digits, int n_choices, const cm_spm *spm,
                        uint64_t seed, uint64_t index, cm_probe_text *out, cm_err *err) {
    *out = (cm_probe_text){ 0 };
    if (!sane("phonebook", digits, n_choices, err)) return false;
    int room = 9;
    for (int i = 1; i < digits && room < 1 << 20; i++) room *= 10;
    if (entries < 1 || entries > MAX_ENTRIES || room < 2 * (entries + n_choices))
        return cm_fail(err, CM_EXIT_USAGE,
                       "phonebook: %d entries of %d digits; wanted 1 to %d, and twice as "
                       "many numbers as entries", entries, digits, MAX_ENTRIES);
    book *b = calloc(1, sizeof *b);
    CM_ASSERT(b, "out of memory for a phone book");
    draws d = { cm_rng_make(seed, CM_RNG_PROBE, index), 0 };
    ask_book(b, &d, entries, digits, n_choices, out);
    free(b);
    return count_tokens(spm, out->context.s, out->context.n, &out->tokens, err);
}
