/* world_test.c -- the default corpus: same bytes, disjoint sides, stories that the checker
 * accepts, and a checker that rejects what is wrong. */
#include "data/world/world.h"
#include "tests/t.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Changes with CM_WORLD_VERSION, never without. */
static const char stories_sha[] =
    "b29e610c95729fd90e8462dd9ad4f1259282c5e7d83b5a1df55c46554dbc9b58";

static void sha_of_stories(uint64_t seed, cm_side side, int n, char hex[65]) {
    static cm_story st;
    cm_sha *h = cm_sha_open();
    for (int i = 0; i < n; i++) {
        cm_story_make(&st, seed, side, (uint64_t)i);
        cm_sha_add(h, st.text.s, st.text.n + 1);
    }
    cm_sha_close(h, hex);
}

TEST(world_same_seed_same_bytes) {
    char a[65], b[65];
    sha_of_stories(1, CM_TRAIN, 2000, a);
    CHECKF(strcmp(a, stories_sha) == 0, "2000 stories of seed 1 hash to %s", a);
    sha_of_stories(2, CM_TRAIN, 100, a);
    sha_of_stories(3, CM_TRAIN, 100, b);
    CHECK(strcmp(a, b) != 0);
    sha_of_stories(2, CM_VAL, 100, b);
    CHECK(strcmp(a, b) != 0);
}

TEST(world_stories_are_true) {
    static cm_story st;
    bool plot[64] = {false};
    for (int side = CM_TRAIN; side <= CM_TEST; side++)
        for (int i = 0; i < (side == CM_TRAIN ? 10000 : 300); i++) {
            cm_verdict v;
            cm_story_make(&st, 7, (cm_side)side, (uint64_t)i);
            cm_story_check(st.text.s, st.text.n, true, &v);
            CHECKF(v.parses && v.consistent, "%s: %s at: %s", cm_plots[st.plot].name, v.why,
                   st.text.s + v.at);
            plot[st.plot] = true;
        }
    for (int i = 0; i < cm_n_plots; i++)
        CHECKF(plot[i], "plot %s is never told", cm_plots[i].name);
}

/* ---- sides ------------------------------------------------------------------------------ */

static int by_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

TEST(world_sides_share_no_story) {
    enum { N = 1500 };
    static cm_story st;
    uint64_t *key = malloc(3 * N * sizeof *key), other[N];
    for (int i = 0; i < N; i++) {
        cm_story_make(&st, 5, CM_TRAIN, (uint64_t)i);
        key[i] = st.key;
    }
    qsort(key, N, sizeof *key, by_u64);
    for (int side = CM_VAL; side <= CM_TEST; side++)
        for (int i = 0; i < N / 5; i++) {
            cm_story_make(&st, 5, (cm_side)side, (uint64_t)i);
            other[i] = st.key;
            CHECK(!bsearch(&other[i], key, N, sizeof *key, by_u64));
            CHECK(cm_key_side(st.key) == (cm_side)side);
        }
    free(key);
}

/* The words of a story as numbers where they are numbers: "seven", "12". */
static int number_of(const char *w, size_t n) {
    if (n && isdigit((unsigned char)*w)) return atoi(w);
    for (int i = 0; i < CM_NUMBER_WORDS; i++) {
        const char *s = cm_numbers[i];
        if (strlen(s) == n && tolower((unsigned char)*w) == *s && !memcmp(w + 1, s + 1, n - 1))
            return i;
    }
    return -1;
}

/* Every "a WORD b" of the text, such as "seven plus two", is a pair of the side. */
static int check_pairs(const char *s, const char *word, char op, cm_side side) {
    int found = 0;
    size_t len = strlen(word);
    for (const char *p = s; (p = strstr(p, word)) != NULL; p += len) {
        const char *l = p;
        while (l > s && isalnum((unsigned char)l[-1])) l--;
        const char *r = p + len;
        int a = number_of(l, (size_t)(p - l)), b = number_of(r, strspn(r, "abcdefghijklmnopq"
                                                            "rstuvwxyz0123456789"));
        if (a < 0 || b < 0) continue;
        int lo = op == '-' ? a - b : a;
        CHECKF(cm_pair_side(op == '-' ? '+' : op, lo, b) == side, "%d%s%d is of another side",
               a, word, b);
        found++;
    }
    return found;
}

TEST(world_sides_share_no_sum) {
    static const struct { const char *word; char op; } forms[] = {
        {" plus ", '+'}, {" minus ", '-'}, {" times ", '*'}, {" + ", '+'}, {" - ", '-'},
        {" x ", '*'}, {" take away ", '-'}};
    static cm_story st;
    int found = 0;
    for (int side = CM_TRAIN; side <= CM_TEST; side++)
        for (int i = 0; i < (side == CM_TRAIN ? 3000 : 300); i++) {
            cm_story_make(&st, 11, (cm_side)side, (uint64_t)i);
            for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
                found += check_pairs(st.text.s, forms[f].word, forms[f].op, (cm_side)side);
        }
    CHECKF(found > 500, "only %d sums in the stories", found);
    for (int op = 0; op < 2; op++) /* every side has sums to tell */
        for (int side = CM_TRAIN; side <= CM_TEST; side++) {
            int n = 0;
            for (int a = 1; a <= 9; a++)
                for (int b = a; b <= 9; b++) n += cm_pair_side("+*"[op], a, b) == (cm_side)side;
            CHECKF(n >= 2, "side %d has %d sums", side, n);
        }
}

/* ---- the checker can fail ------------------------------------------------------------ */

typedef struct words {
    const char *w[400];
    size_t n[400];
    int count;
} words;

static words split(const char *s) {
    words v = {{0}, {0}, 0};
    for (; *s && v.count < 400; s += *s == ' ') {
        v.n[v.count] = strcspn(s, " ");
        v.w[v.count++] = s;
        s += v.n[v.count - 1];
    }
    return v;
}

static void join(const words *v, char *out, size_t cap) {
    size_t n = 0;
    for (int i = 0; i < v->count; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%.*s", i ? " " : "", (int)v->n[i], v->w[i]);
}

/* Put `to` in the place of a random occurrence of `from`; false when there is none. */
static bool replace_word(words *v, const char *from, const char *to, cm_dice *d) {
    int start = cm_roll(d, v->count);
    for (int k = 0; k < v->count; k++) {
        int i = (start + k) % v->count;
        if (v->n[i] != strlen(from) || memcmp(v->w[i], from, v->n[i]) != 0) continue;
        v->w[i] = to;
        v->n[i] = strlen(to);
        return true;
    }
    return false;
}

/* A number word becomes another. */
static bool change_number(words *v, cm_dice *d) {
    int start = cm_roll(d, v->count);
    for (int k = 0; k < v->count; k++) {
        int i = (start + k) % v->count, x = number_of(v->w[i], v->n[i]);
        if (x < 2 || isdigit((unsigned char)*v->w[i])) continue;
        int y = 2 + cm_roll(d, 15);
        v->w[i] = cm_numbers[y == x ? x + 1 : y];
        v->n[i] = strlen(v->w[i]);
        return true;
    }
    return false;
}

/* A name becomes that of a child who is not in the story (of any gender). */
static bool change_name(words *v, cm_dice *d) {
    const cm_lexicon *l = cm_lex(CM_PERSON);
    int start = cm_roll(d, v->count);
    for (int k = 0; k < v->count; k++) {
        int i = (start + k) % v->count;
        for (int p = 0; p < 36; p++) {
            if (v->n[i] != strlen(l->word[p].col[0]) || memcmp(v->w[i], l->word[p].col[0], v->n[i]))
                continue;
            v->w[i] = l->word[(p + 1 + cm_roll(d, 34)) % 36].col[0];
            v->n[i] = strlen(v->w[i]);
            return true;
        }
    }
    return false;
}

typedef enum { SWAP, DROP, DOUBLE, GENDER, WAS, ONE, NUMBER, NAME, N_MUTATIONS } mutation;

static bool mutate(words *v, mutation m, cm_dice *d) {
    int i = cm_roll(d, v->count - 1);
    const char *w = v->w[i];
    size_t n = v->n[i];
    switch (m) {
    case SWAP: /* two neighbours change places */
        if (n == v->n[i + 1] && !memcmp(w, v->w[i + 1], n)) return false;
        v->w[i] = v->w[i + 1], v->n[i] = v->n[i + 1];
        v->w[i + 1] = w, v->n[i + 1] = n;
        return true;
    case DROP:
        v->count--;
        memmove(&v->w[i], &v->w[i + 1], (size_t)(v->count - i) * sizeof *v->w);
        memmove(&v->n[i], &v->n[i + 1], (size_t)(v->count - i) * sizeof *v->n);
        return true;
    case DOUBLE:
        v->w[i + 1] = w, v->n[i + 1] = n;
        return true;
    case GENDER:
        return replace_word(v, "his", "her", d) || replace_word(v, "her", "his", d) ||
               replace_word(v, "He", "She", d) || replace_word(v, "She", "He", d);
    case WAS:
        return replace_word(v, "were", "was", d) || replace_word(v, "was", "were", d);
    case ONE: /* a plural after one, a singular after more */
        return replace_word(v, "five", "one", d) || replace_word(v, "three", "one", d);
    case NUMBER: return change_number(v, d);
    case NAME: return change_name(v, d);
    default: return false;
    }
}

TEST(world_checker_rejects_mutations) {
    /* name, least share of texts that must fail to parse, and to be consistent */
    static const struct { const char *name; double parse, consistent; } want[] = {
        {"two neighbours swapped", 0.95, 0.95}, {"a word dropped", 0.85, 0.9},
        {"a word doubled", 0.97, 0.97}, {"his/her, he/she", 0.3, 0.95},
        {"was/were", 0.95, 0.95}, {"plural after one", 0.6, 0.9},
        {"another number", 0.0, 0.75}, {"another name", 0.0, 0.85}};
    static cm_story st;
    static char text[16384];
    for (int m = 0; m < N_MUTATIONS; m++) {
        cm_dice d = {cm_rng_make(9, CM_RNG_TEST, (uint64_t)m), 0};
        int n = 0, parse = 0, consistent = 0;
        for (uint64_t i = 0; n < 500 && i < 3000; i++) {
            cm_verdict v;
            cm_story_make(&st, 13, CM_TRAIN, i);
            words w = split(st.text.s);
            if (!mutate(&w, (mutation)m, &d)) continue;
            join(&w, text, sizeof text);
            cm_story_check(text, strlen(text), true, &v);
            n++;
            parse += !v.parses;
            consistent += !v.consistent;
        }
        double p = (double)parse / n, c = (double)consistent / n;
        printf("  %-24s %d texts: %5.1f%% do not parse, %5.1f%% are not consistent\n",
               want[m].name, n, 100 * p, 100 * c);
        CHECKF(n >= 200 && p >= want[m].parse && c >= want[m].consistent,
               "%s: %d texts, %.3f do not parse, %.3f not consistent", want[m].name, n, p, c);
    }
}

TEST(world_checker_on_cut_and_foreign_text) {
    static cm_story st;
    cm_verdict v;
    int cut = 0, n = 0;
    for (int i = 0; i < 100; i++) {
        cm_story_make(&st, 17, CM_TRAIN, (uint64_t)i);
        size_t at = st.text.n * 2 / 3;
        cm_story_check(st.text.s, at, true, &v);
        CHECK(!v.parses);
        cm_story_check(st.text.s, at, false, &v);
        CHECKF(v.parses && v.consistent, "cut story: %s: %.*s", v.why, (int)at, st.text.s);
        cut += v.cut;
        n++;
    }
    CHECKF(cut > n * 8 / 10, "%d of %d cut stories are seen as cut", cut, n);
    static const char *const foreign[] = {
        "", " ", "It was the best of times, it was the worst of times.", "Tom", "Tom.",
        "One day, Tom was in the park.", "It was a good day.",
        "One day, Tom was in the park.  It was a good day.",
        "One day, Tom was in the park. It was a good day. It was a good day.",
        "one day, Tom was in the park. It was a good day.",
        "One day, Tom was in the park It was a good day."};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        cm_story_check(foreign[i], strlen(foreign[i]), true, &v);
        CHECKF(!v.parses && !v.consistent, "accepted: '%s'", foreign[i]);
    }
    const char ok[] = "One day, Tom was in the park. It was a good day.";
    cm_story_check(ok, strlen(ok), true, &v);
    CHECK(v.parses && v.consistent && v.sentences == 2);
    const char no[] = "One day, Tom was in the park. He had two apples. \"Two plus two is "
                      "five,\" said Tom. It was a good day.";
    cm_story_check(no, strlen(no), true, &v);
    CHECKF(v.parses && !v.consistent, "%s", v.why);
}

/* ---- tasks --------------------------------------------------------------------------- */

/* "16 + 4 = 20" wherever it stands in the reasoning. */
static int check_equations(const char *s) {
    int found = 0, a, b, c;
    char op;
    for (const char *p = s; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ',')) {
        if (sscanf(p, " %d %c %d = %d", &a, &op, &b, &c) != 4) continue;
        int r = op == '+' ? a + b : op == '-' ? a - b : a * b;
        CHECKF(r == c, "wrong: %s", s);
        found++;
    }
    return found;
}

TEST(world_tasks_are_sound) {
    static cm_task t;
    static cm_verdict v;
    int equations = 0, stories = 0, pairs = 0;
    for (int side = CM_TRAIN; side <= CM_TEST; side++)
        for (uint64_t i = 0; i < 500; i++) {
            cm_task_make(&t, 23, (cm_side)side, i);
            CHECKF(strcmp(t.answer.s, t.wrong[0].s) != 0, "%s: %s", t.skill, t.answer.s);
            if (t.pair) {
                pairs++;
                continue;
            }
            for (int k = 0; k < CM_WRONGS; k++)
                for (int j = -1; j < k; j++)
                    CHECKF(strcmp(t.wrong[k].s, j < 0 ? t.answer.s : t.wrong[j].s) != 0,
                           "%s: '%s' twice", t.skill, t.wrong[k].s);
            CHECKF(strcmp(t.says.s, t.wrong_says.s) != 0, "%s: %s", t.skill, t.says.s);
            equations += check_equations(t.think.s);
            const char *story_end = strchr(t.prompt.s, '\n');
            if (!story_end) continue;
            stories++;
            cm_story_check(t.prompt.s, (size_t)(story_end - t.prompt.s), true, &v);
            CHECKF(v.parses && v.consistent, "%s: %s", v.why, t.prompt.s);
        }
    CHECKF(equations > 200 && stories > 300 && pairs > 50, "%d equations, %d stories, %d pairs",
           equations, stories, pairs);
}

static const struct { const char *word; char op; } sum_forms[] = {
    {" + ", '+'}, {" - ", '-'}, {" x ", '*'}};

/* Sums written in a task's question and reasoning, each of the side. */
static int check_task(const cm_task *t, cm_side side) {
    int found = 0;
    for (size_t f = 0; f < sizeof sum_forms / sizeof *sum_forms; f++) {
        found += check_pairs(t->prompt.s, sum_forms[f].word, sum_forms[f].op, side);
        found += check_pairs(t->think.s, sum_forms[f].word, sum_forms[f].op, side);
    }
    return found;
}

TEST(world_training_tasks_hold_no_test_sum) {
    static cm_task t;
    static cm_talk talk;
    int found = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        cm_task_make(&t, 29, CM_TRAIN, i);
        if (!t.pair) found += check_task(&t, CM_TRAIN);
        cm_talk_make(&talk, 29, CM_TRAIN, i, CM_TURNS);
        for (int k = 0; k < talk.n; k++) found += check_task(&talk.turn[k], CM_TRAIN);
    }
    CHECKF(found > 500, "only %d sums", found);
}

TEST(world_talks_are_sound) {
    static cm_talk c;
    static cm_verdict v;
    char skill[64][24];
    int skills = 0, sums = 0, stories = 0, later = 0, equations = 0;
    for (int side = CM_TRAIN; side <= CM_TEST; side++)
        for (uint64_t i = 0; i < (side == CM_TRAIN ? 600 : 120); i++) {
            cm_talk_make(&c, 31, (cm_side)side, i, CM_TURNS);
            const cm_task *t = &c.turn[0];
            int k = 0, a, b;
            char op;
            while (k < skills && strcmp(skill[k], t->skill) != 0) k++;
            if (k == skills && skills < 64) snprintf(skill[skills++], 24, "%s", t->skill);
            for (int n = 1; n < c.n; n++, later++) {
                CHECK(strcmp(c.turn[n].prompt.s, c.turn[n - 1].prompt.s) != 0);
                CHECKF(!strchr(c.turn[n].prompt.s, '\n'), "told again: %s", c.turn[n].prompt.s);
            }
            equations += check_equations(t->think.s);
            /* what is asked is the side's own, the steps are training's: none is held out */
            if (sscanf(t->sum, "%d %c %d", &a, &op, &b) == 3) {
                sums++;
                CHECKF(cm_pair_side(op, a, b) == (cm_side)side, "%s: %s", t->skill, t->sum);
                for (size_t f = 0; f < 3; f++)
                    check_pairs(t->think.s, sum_forms[f].word, sum_forms[f].op, CM_TRAIN);
            }
            const char *end = strchr(t->prompt.s, '\n');
            if (!end) continue;
            stories++;
            cm_story_check(t->prompt.s, (size_t)(end - t->prompt.s), true, &v);
            CHECKF(v.parses && v.consistent && cm_key_side(t->doc) == (cm_side)side, "%s: %s",
                   v.why, t->prompt.s);
        }
    CHECKF(skills == 27 && sums > 100 && stories > 300 && later > 100 && equations > 200,
           "%d skills, %d sums, %d stories, %d later turns, %d equations", skills, sums, stories,
           later, equations);
}

TEST(world_facts_have_distinct_names) {
    /* facts.c tells functions apart by a hash of their names */
    static char seen[64][24];
    int n = 0;
    for (int e = 0; e < cm_n_events; e++)
        for (int side = 0; side < 2; side++)
            for (const char *p = side ? cm_events[e].makes : cm_events[e].needs; p && *p;) {
                size_t len = strcspn(p, " ,");
                bool known = len == 1;
                for (int i = 0; i < n && !known; i++)
                    known = strlen(seen[i]) == len && !memcmp(seen[i], p, len);
                if (!known) snprintf(seen[n++], sizeof seen[0], "%.*s", (int)len, p);
                p = strstr(p, ", ");
                if (p) p += 2;
            }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            char a[64], b[64];
            cm_facts s;
            cm_bind none;
            cm_facts_clear(&s);
            cm_bind_clear(&none);
            snprintf(a, sizeof a, "%.23s = yes", seen[i]);
            snprintf(b, sizeof b, "%.23s none", seen[j]);
            cm_makes(a, &s, &none);
            CHECKF(!cm_needs(b, &s, &none, CM_ANY), "%s and %s have one hash", seen[i], seen[j]);
        }
    CHECK(n > 20);
}

TEST(world_has_a_fitting_vocabulary) {
    static cm_story st;
    static char seen[2000][20];
    int n = 0, most = 0;
    double total = 0;
    for (int i = 0; i < 6000; i++) {
        cm_story_make(&st, 19, CM_TRAIN, (uint64_t)i);
        words v = split(st.text.s);
        total += v.count;
        if (v.count > most) most = v.count;
        for (int k = 0; k < v.count; k++) {
            char w[20] = "";
            for (size_t c = 0, at = 0; c < v.n[k] && at < 19; c++)
                if (isalpha((unsigned char)v.w[k][c]))
                    w[at++] = (char)tolower((unsigned char)v.w[k][c]), w[at] = 0;
            int j = 0;
            while (j < n && strcmp(seen[j], w)) j++;
            if (j == n && n < 2000) strcpy(seen[n++], w);
        }
    }
    printf("  %d different words, %.0f in a story on average, at most %d\n", n, total / 6000,
           most);
    CHECKF(n >= 600 && n <= 1300, "%d different words", n);
    CHECK(most < 260);
}
