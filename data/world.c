/* world.c -- the program: write the default corpus, or check texts against its grammar. */
#include "app/app.h"
#include "data/world/world.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: world [--kind stories|instructions|preferences|questions|eval]\n"
    "             [--split train|val|test] [--seed N] [--bytes N | --count N]\n"
    "             [--turns N] [--noise SHARE] [--format jsonl|txt] [--out FILE|-]\n"
    "       world check [--allow-cut] [--show] [--least PERCENT] FILE|-\n"
    "       world --version\n"
    "\n"
    "Writes text from a small simulated world, or checks texts (one a line, or jsonl with\n"
    "a field `text`): does each sentence parse, and is it true in the world so far?\n"
    "Fewer than --least PERCENT that parse: exit code 3.\n"
    "Instructions have up to --turns questions about one story (default 1), of which a\n"
    "--noise share (default 0) is answered badly: wrongly, twice over, or not at all.\n"
    "\n"
    "  world --seed 1 --bytes 40M --out stories.jsonl\n"
    "  world --split test --count 500 --format txt --out -\n"
    "  world check samples.jsonl\n";

typedef struct options {
    const char *kind, *split, *format, *out;
    int64_t seed, bytes, count, turns;
    double noise;
    bool sized; /* --bytes or --count was given */
} options;

/* ---- output --------------------------------------------------------------------------- */

typedef struct sink { /* stdout or an atomic file */
    cm_out out;
    bool to_file;
    int64_t bytes, docs;
} sink;

static bool sink_write(sink *s, const cm_buf *b, cm_err *err) {
    s->bytes += (int64_t)b->n;
    s->docs++;
    if (s->to_file) return cm_out_write(&s->out, b->s, b->n, err);
    if (fwrite(b->s, 1, b->n, stdout) == b->n) return true;
    return cm_fail_errno(err, CM_EXIT_FAIL, "standard output");
}

static void member(cm_buf *b, const char *key, const cm_text *t) {
    cm_buf_addf(b, ",\"%s\":", key);
    cm_world_json(b, t->s, t->n);
}

static void add_story(cm_buf *b, const options *o, cm_side side, uint64_t i) {
    static cm_story st;
    cm_story_make(&st, (uint64_t)o->seed, side, i);
    if (strcmp(o->format, "txt") == 0) {
        cm_buf_addf(b, "%s\n", st.text.s);
        return;
    }
    cm_buf_addf(b, "{\"id\":\"%s-%llu\"", cm_plots[st.plot].name, (unsigned long long)i);
    member(b, "text", &st.text);
    cm_buf_addf(b, "}\n");
}

static void begin_task(cm_buf *b, const cm_task *t, uint64_t i) {
    cm_buf_addf(b, "{\"id\":\"%s-%llu\",\"skill\":\"%s\"", t->skill,
                (unsigned long long)i, t->skill);
}

/* Where a question comes from: the story's key, and the operands of a sum. */
static void add_source(cm_buf *b, const cm_task *t) {
    cm_buf_addf(b, ",\"doc\":\"%016llx\"", (unsigned long long)t->doc);
    if (t->sum[0]) cm_buf_addf(b, ",\"sum\":\"%s\"", t->sum);
}

/* What the assistant says: the reasoning, where there is some, then the answer. */
static cm_text reply(const cm_text *think, const cm_text *says) {
    cm_text r = {.n = 0};
    if (think->n) {
        cm_text_add(&r, "<think>", 7);
        cm_text_add(&r, think->s, think->n);
        cm_text_add(&r, "</think>", 8);
    }
    cm_text_add(&r, says->s, says->n);
    return r;
}

/* A bad answer: mostly a wrong one; also one that is given twice more, or none.  how: from
 * 0 to 7. */
static const char *spoil(cm_text *r, const cm_task *t, int how) {
    if (how == 3 || how == 7) {
        *r = reply(&t->think, &t->says);
        for (int k = 0; k < 2; k++) {
            cm_text_add(r, " ", 1);
            cm_text_add(r, t->says.s, t->says.n);
        }
        return "repeats itself";
    }
    if (how == 2) {
        r->n = 0, r->full = false;
        cm_text_add(r, "I do not know.", 14);
        return "no answer";
    }
    *r = reply(&t->wrong_think, &t->wrong_says);
    return "wrong";
}

static void message(cm_buf *b, const char *role, const cm_text *t) {
    cm_buf_addf(b, "%s{\"role\":\"%s\",\"content\":", b->s[b->n - 1] == '[' ? "" : ",", role);
    cm_world_json(b, t->s, t->n);
    cm_buf_addf(b, "}");
}

static void add_instruction(cm_buf *b, const options *o, cm_side side, uint64_t i) {
    static cm_talk talk;
    static cm_text said;
    cm_talk_make(&talk, (uint64_t)o->seed, side, i, (int)o->turns);
    cm_dice d = {cm_rng_make((uint64_t)o->seed, CM_RNG_CORPUS, ~i), 0};
    cm_buf bad = {0};
    begin_task(b, &talk.turn[0], i);
    add_source(b, &talk.turn[0]);
    cm_buf_addf(b, ",\"messages\":[");
    for (int k = 0; k < talk.n; k++) {
        const cm_task *t = &talk.turn[k];
        bool spoiled = cm_rng_uniform(d.rng, d.i++) < o->noise;
        if (spoiled) cm_buf_addf(&bad, ",\"%s\"", spoil(&said, t, cm_roll(&d, 8)));
        else said = reply(&t->think, &t->says), cm_buf_addf(&bad, ",null");
        message(b, "user", &t->prompt);
        message(b, "assistant", &said);
    }
    cm_buf_addf(b, "]");
    member(b, "answer", &talk.turn[0].answer);
    if (o->noise > 0) cm_buf_addf(b, ",\"noise\":[%s]", bad.s + 1);
    cm_buf_addf(b, "}\n");
    cm_buf_free(&bad);
}

static void add_preference(cm_buf *b, const options *o, cm_side side, uint64_t i) {
    static cm_talk talk;
    static cm_text rejected;
    const cm_task *t = &talk.turn[0];
    cm_talk_make(&talk, (uint64_t)o->seed + 1000003, side, i, 1);
    cm_text r = reply(&t->think, &t->says);
    const char *why = spoil(&rejected, t, (int)(i % 8));
    begin_task(b, t, i);
    add_source(b, t);
    member(b, "prompt", &t->prompt);
    member(b, "chosen", &r);
    member(b, "rejected", &rejected);
    member(b, "answer", &t->answer);
    cm_buf_addf(b, ",\"why\":\"%s\"}\n", why);
}

/* A question of a conversation's kind, without its answer in words. */
static void add_question(cm_buf *b, const options *o, cm_side side, uint64_t i) {
    static cm_talk talk;
    cm_talk_make(&talk, (uint64_t)o->seed + 3000017, side, i, 1);
    begin_task(b, &talk.turn[0], i);
    add_source(b, &talk.turn[0]);
    member(b, "prompt", &talk.turn[0].prompt);
    member(b, "answer", &talk.turn[0].answer);
    cm_buf_addf(b, "}\n");
}

static void add_item(cm_buf *b, const options *o, cm_side side, uint64_t i) {
    static cm_task t;
    cm_task_make(&t, (uint64_t)o->seed + 2000003, side, i);
    begin_task(b, &t, i);
    cm_buf_addf(b, ",\"doc\":\"%016llx\",\"type\":\"%s\"", (unsigned long long)t.doc,
                t.pair ? "pair" : "choice");
    if (t.pair) {
        member(b, "good", &t.answer);
        member(b, "bad", &t.wrong[0]);
    } else {
        int gold = (int)(i % (CM_WRONGS + 1));
        member(b, "prompt", &t.prompt);
        member(b, "answer", &t.answer);
        cm_buf_addf(b, ",\"choices\":[");
        for (int k = 0, w = 0; k <= CM_WRONGS; k++) {
            const cm_text *c = k == gold ? &t.answer : &t.wrong[w++];
            if (k) cm_buf_add(b, ",", 1);
            cm_world_json(b, c->s, c->n);
        }
        cm_buf_addf(b, "],\"gold\":%d", gold);
    }
    cm_buf_addf(b, "}\n");
}

typedef void (*add_fn)(cm_buf *, const options *, cm_side, uint64_t);
static const struct { const char *name; add_fn add; } kinds[] = {
    {"stories", add_story}, {"instructions", add_instruction},
    {"preferences", add_preference}, {"questions", add_question}, {"eval", add_item}};

static add_fn kind_find(const char *name, cm_err *err) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0) return kinds[i].add;
    cm_fail(err, CM_EXIT_USAGE,
            "--kind %s: want stories, instructions, preferences, questions or eval", name);
    return NULL;
}

static bool write_all(const options *o, add_fn add, cm_side side, sink *s, cm_err *err) {
    bool ok = true;
    cm_buf b = {0};
    for (uint64_t i = 0; ok && (o->count ? s->docs < o->count : s->bytes < o->bytes); i++) {
        b.n = 0;
        add(&b, o, side, i);
        ok = sink_write(s, &b, err);
    }
    cm_buf_free(&b);
    return ok;
}

static bool generate(const options *o, cm_err *err) {
    static const char *const splits[] = {"train", "val", "test"};
    int side = 0;
    while (side < 3 && strcmp(o->split, splits[side]) != 0) side++;
    if (side == 3)
        return cm_fail(err, CM_EXIT_USAGE, "--split %s: want train, val or test", o->split);
    bool txt = strcmp(o->format, "txt") == 0;
    if (!txt && strcmp(o->format, "jsonl") != 0)
        return cm_fail(err, CM_EXIT_USAGE, "--format %s: want jsonl or txt", o->format);
    add_fn add = kind_find(o->kind, err);
    if (!add) return false;
    if (txt && add != add_story)
        return cm_fail(err, CM_EXIT_USAGE, "--kind %s has no plain text form", o->kind);
    sink s = {.to_file = strcmp(o->out, "-") != 0};
    if (!s.to_file && !o->sized && isatty(STDOUT_FILENO))
        return cm_fail(err, CM_EXIT_USAGE,
                       "this would write %lld bytes to the terminal; say how much with "
                       "--bytes or --count, or where with --out (see --help)",
                       (long long)o->bytes);
    if (s.to_file && !cm_out_open(&s.out, o->out, err)) return false;
    if (!write_all(o, add, (cm_side)side, &s, err)) {
        if (s.to_file) cm_out_abort(&s.out);
        return false;
    }
    if (s.to_file) return cm_out_commit(&s.out, err);
    if (fflush(stdout) != 0) return cm_fail_errno(err, CM_EXIT_FAIL, "standard output");
    return true;
}

/* ---- checking -------------------------------------------------------------------------- */

typedef struct tally {
    long n, parses, consistent, cut;
} tally;

static void check_one(const char *text, size_t n, bool complete, bool show, tally *t) {
    cm_verdict v;
    cm_story_check(text, n, complete, &v);
    t->n++;
    t->parses += v.parses;
    t->consistent += v.consistent;
    t->cut += v.cut;
    if (show && !(v.parses && v.consistent))
        printf("%ld: %s: %s\n    %.*s\n", t->n, v.parses ? "untrue" : "does not parse",
               v.why, (int)(n - v.at < 100 ? n - v.at : 100), text + v.at);
}

static bool check_lines(FILE *f, bool complete, bool show, tally *t) {
    char *line = NULL;
    size_t cap = 0;
    cm_buf text = {0};
    for (ssize_t n; (n = getline(&line, &cap, f)) >= 0;) {
        while (n > 0 && memchr("\r\n ", line[n - 1], 3)) n--;
        if (n == 0) continue;
        text.n = 0;
        if (line[0] != '{') cm_buf_add(&text, line, (size_t)n);
        else cm_world_json_field(line, (size_t)n, "text", &text);
        check_one(text.s ? text.s : "", text.n, complete, show, t);
    }
    cm_buf_free(&text);
    free(line);
    return !ferror(f);
}

static bool check(int argc, char **argv, cm_err *err) {
    bool complete = true, show = false;
    double least = 0;
    const char *path = NULL;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--allow-cut") == 0) complete = false;
        else if (strcmp(argv[i], "--show") == 0) show = true;
        else if (strcmp(argv[i], "--least") == 0) {
            if (++i == argc || !cm_parse_f64(argv[i], &least))
                return cm_fail(err, CM_EXIT_USAGE, "check: --least wants a percentage");
        } else if (argv[i][0] == '-' && argv[i][1])
            return cm_fail(err, CM_EXIT_USAGE, "check: unknown option '%s'", argv[i]);
        else path = argv[i];
    }
    if (!path) return cm_fail(err, CM_EXIT_USAGE, "check: a file, or - , is wanted");
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    if (!f) return cm_fail_errno(err, CM_EXIT_USAGE, "%s: cannot open", path);
    tally t = {0};
    bool ok = check_lines(f, complete, show, &t);
    if (f != stdin) fclose(f);
    if (!ok) return cm_fail_errno(err, CM_EXIT_FAIL, "%s", path);
    if (!t.n) return cm_fail(err, CM_EXIT_DATA, "%s: no texts in it", path);
    printf("texts %ld\nparse %ld (%.1f%%)\nconsistent %ld (%.1f%%)\ncut %ld\n", t.n,
           t.parses, 100.0 * (double)t.parses / (double)t.n, t.consistent,
           100.0 * (double)t.consistent / (double)t.n, t.cut);
    double percent = 100.0 * (double)t.parses / (double)t.n;
    if (percent < least)
        return cm_fail(err, CM_EXIT_CHECK, "%s: %.1f%% of the texts parse, wanted %.1f%%", path,
                       percent, least);
    return true;
}

/* ---- command line ---------------------------------------------------------------------- */

static bool read_options(int argc, char **argv, options *o, cm_err *err) {
    for (int i = 1; i < argc; i += 2) {
        const char *k = argv[i], *v = argv[i + 1];
        if (!v) return cm_fail(err, CM_EXIT_USAGE, "%s: a value is wanted", k);
        bool ok = true;
        if (strcmp(k, "--kind") == 0) o->kind = v;
        else if (strcmp(k, "--split") == 0) o->split = v;
        else if (strcmp(k, "--format") == 0) o->format = v;
        else if (strcmp(k, "--out") == 0) o->out = v;
        else if (strcmp(k, "--seed") == 0) ok = cm_parse_i64(v, &o->seed) && o->seed >= 0;
        else if (strcmp(k, "--bytes") == 0) ok = cm_parse_count(v, &o->bytes) && o->bytes > 0;
        else if (strcmp(k, "--turns") == 0)
            ok = cm_parse_i64(v, &o->turns) && o->turns >= 1 && o->turns <= CM_TURNS;
        else if (strcmp(k, "--noise") == 0)
            ok = cm_parse_f64(v, &o->noise) && o->noise >= 0 && o->noise <= 1;
        else if (strcmp(k, "--count") == 0) ok = cm_parse_count(v, &o->count) && o->count > 0;
        else return cm_fail(err, CM_EXIT_USAGE, "unknown option '%s' (see --help)", k);
        if (!ok) return cm_fail(err, CM_EXIT_USAGE, "%s %s: not a fitting number", k, v);
        o->sized |= !strcmp(k, "--bytes") || !strcmp(k, "--count");
    }
    return true;
}

int main(int argc, char **argv) {
    cm_err err = {0};
    options o = {"stories", "train", "jsonl", "-", 1, 1000000, 0, 1, 0, false};
    cm_log_setup("world", CM_LOG_INFO);
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(usage, stdout);
        return CM_EXIT_OK;
    }
    if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        cm_buf b = {0};
        cm_app_version(&(cm_app){.name = "world"}, &b);
        fputs(b.s, stdout);
        cm_buf_free(&b);
        return CM_EXIT_OK;
    }
    bool ok = argc > 1 && strcmp(argv[1], "check") == 0
                  ? check(argc - 2, argv + 2, &err)
                  : read_options(argc, argv, &o, &err) && generate(&o, &err);
    if (ok) return CM_EXIT_OK;
    cm_log(CM_LOG_ERROR, "%s", err.msg);
    return (int)err.code;
}
