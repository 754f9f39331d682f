/* judge.c -- the program: baselines, results by skill, win rates, pairs, leaks. */
#include "data/judge/judge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: judge table QUESTIONS --train INSTRUCTIONS [NAME=RESULT[:METRIC] ...]\n"
    "             [--of NAME] [--least PERCENT] [--above POINTS]\n"
    "       judge wins QUESTIONS BETTER WORSE [--least PERCENT] [--drop POINTS]\n"
    "             [--length PERCENT]\n"
    "       judge pairs QUESTIONS RESULT ... --out FILE\n"
    "       judge leaks QUESTIONS --seed N TRAINING ...\n"
    "\n"
    "QUESTIONS are of `world --kind questions` (pairs: of preferences), a RESULT is a folder\n"
    "of `eval` on just these.\n"
    "\n"
    "table   accuracy by skill: the commonest answer, the nearest training question's, and\n"
    "        each result.  --of NAME has at least --least percent in all, and --above points\n"
    "        more than the commonest answer in every skill.\n"
    "wins    how often BETTER is right and WORSE is not, ties one half, with its 95%\n"
    "        interval, which must lie above 50.  At most --drop points of accuracy are lost,\n"
    "        mean lengths differ by at most --length percent.\n"
    "pairs   preferences from answers sampled to training questions.\n"
    "leaks   texts, facts and sums of the test that a training file holds; none may.\n"
    "\n"
    "A promise that is not kept: exit code 3.\n";

enum { MAX_RESULTS = 16 };
typedef struct options {
    const char *file[MAX_RESULTS + 1]; /* arguments without a dash */
    int n_files;
    const char *train, *of, *out;
    double least, above, drop, length;
    int64_t seed;
} options;

/* ---- table ------------------------------------------------------------------------------ */

typedef struct column {
    char name[32];
    double *right;
} column;

/* Mean over the questions of a skill (NULL: over all), in percent. */
static double percent(const cm_questions *q, const double *right, const char *skill, int *n) {
    double sum = 0;
    *n = 0;
    for (int i = 0; i < q->n; i++)
        if (!skill || strcmp(q->row[i].skill, skill) == 0) sum += right[i], ++*n;
    return 100 * sum / *n;
}

static void print_row(const cm_questions *q, const column *c, int n_columns, const char *skill) {
    int n;
    percent(q, c[0].right, skill, &n);
    printf("%-16s %5d", skill ? skill : "all", n);
    for (int k = 0; k < n_columns; k++) printf(" %9.1f", percent(q, c[k].right, skill, &n));
    printf("\n");
}

static bool new_skill(const cm_questions *q, int i) {
    for (int k = 0; k < i; k++)
        if (strcmp(q->row[k].skill, q->row[i].skill) == 0) return false;
    return true;
}

/* The promises about one column; its place, or -1. */
static bool keeps(const options *o, const cm_questions *q, const column *c, int n_columns,
                  cm_err *err) {
    int at = n_columns - 1, n;
    while (at >= 0 && strcmp(c[at].name, o->of) != 0) at--;
    if (at < 0) return cm_fail(err, CM_EXIT_USAGE, "--of %s: no such result", o->of);
    double all = percent(q, c[at].right, NULL, &n), worst = 100;
    const char *where = "";
    for (int i = 0; i < q->n; i++) {
        if (!new_skill(q, i)) continue;
        const char *skill = q->row[i].skill;
        double gain = percent(q, c[at].right, skill, &n) - percent(q, c[0].right, skill, &n);
        if (gain < worst) worst = gain, where = skill;
    }
    printf("%s: %.1f%% in all (wanted %.0f%%), at least %.1f points above the commonest answer "
           "(%s; wanted %.0f)\n", o->of, all, o->least, worst, where, o->above);
    if (all < o->least)
        return cm_fail(err, CM_EXIT_CHECK, "%s: %.1f%% right, wanted %.1f%%", o->of, all, o->least);
    if (worst < o->above)
        return cm_fail(err, CM_EXIT_CHECK, "%s: %s is %.1f points above its commonest answer, "
                       "wanted %.1f", o->of, where, worst, o->above);
    return true;
}

static bool read_column(column *c, const char *arg, const cm_questions *q, cm_err *err) {
    const char *eq = strchr(arg, '='), *colon = eq ? strrchr(eq, ':') : NULL;
    char path[4096], metric[64];
    if (!eq)
        return cm_fail(err, CM_EXIT_USAGE, "'%s': wanted NAME=RESULT", arg);
    snprintf(c->name, sizeof c->name, "%.*s", (int)(eq - arg), arg);
    snprintf(path, sizeof path, "%.*s", (int)(colon ? colon - eq - 1 : 4095), eq + 1);
    snprintf(metric, sizeof metric, "%s", colon ? colon + 1 : "");
    cm_sampled s;
    if (!cm_sampled_read(&s, path, colon ? metric : NULL, q, err)) return false;
    c->right = s.right;
    s.right = NULL;
    cm_sampled_free(&s);
    return true;
}

static bool fill_columns(const options *o, const cm_questions *q, column *c, int *n_columns,
                         cm_err *err) {
    cm_questions train;
    if (!cm_instructions_read(&train, o->train, err)) return false;
    for (int k = 0; k < 2; k++) {
        c[k].right = calloc((size_t)q->n, sizeof(double));
        CM_ASSERT(c[k].right, "out of memory");
    }
    *n_columns = 2;
    snprintf(c[0].name, sizeof c[0].name, "commonest");
    snprintf(c[1].name, sizeof c[1].name, "nearest");
    cm_majority_score(q, c[0].right);
    bool ok = cm_nearest_score(&train, q, c[1].right, err);
    cm_questions_free(&train);
    for (int i = 1; ok && i < o->n_files; i++)
        if ((ok = read_column(&c[*n_columns], o->file[i], q, err))) ++*n_columns;
    return ok;
}

static bool table(const options *o, cm_err *err) {
    cm_questions q;
    column c[MAX_RESULTS + 2] = {0};
    int n = 0;
    if (!o->train) return cm_fail(err, CM_EXIT_USAGE, "table wants --train INSTRUCTIONS");
    if (!cm_questions_read(&q, o->file[0], err)) return false;
    bool ok = fill_columns(o, &q, c, &n, err);
    if (ok) {
        printf("%-16s %5s", "percent right", "n");
        for (int k = 0; k < n; k++) printf(" %9s", c[k].name);
        printf("\n");
        for (int i = 0; i < q.n; i++)
            if (new_skill(&q, i)) print_row(&q, c, n, q.row[i].skill);
        print_row(&q, c, n, NULL);
        if (o->of) ok = keeps(o, &q, c, n, err);
    }
    for (int k = 0; k < n; k++) free(c[k].right);
    cm_questions_free(&q);
    return ok;
}

/* ---- wins -------------------------------------------------------------------------------- */

typedef struct duel {
    int wins, losses, ties;
    double rate, low, high;  /* percent */
    double right[2], length[2];
} duel;

/* Each question is its own experiment: the interval is the mean's normal one. */
static duel fight(const cm_sampled *a, const cm_sampled *b) {
    duel d = {0};
    double sum = 0, squares = 0, n = a->n;
    for (int i = 0; i < a->n; i++) {
        double s = (1 + (a->right[i] > b->right[i]) - (a->right[i] < b->right[i])) / 2.0;
        d.wins += s > 0.5, d.losses += s < 0.5, d.ties += s == 0.5;
        sum += s, squares += s * s;
        d.right[0] += 100 * a->right[i] / n, d.right[1] += 100 * b->right[i] / n;
        d.length[0] += a->length[i] / n, d.length[1] += b->length[i] / n;
    }
    double mean = sum / n, error = sqrt((squares / n - mean * mean) / (n - 1));
    d.rate = 100 * mean;
    d.low = 100 * (mean - 1.959964 * error), d.high = 100 * (mean + 1.959964 * error);
    return d;
}

static bool report(const options *o, const duel *d, cm_err *err) {
    int n = d->wins + d->losses + d->ties;
    double longer = 100 * (d->length[0] / d->length[1] - 1), gain = d->right[0] - d->right[1];
    printf("win rate %.1f%%, 95%% interval %.1f to %.1f (%d questions: %d won, %d lost, %d ties)\n"
           "right    %.1f%% against %.1f%% (%+.1f points)\n"
           "length   %.1f tokens against %.1f (%+.1f%%)\n", d->rate, d->low, d->high, n, d->wins,
           d->losses, d->ties, d->right[0], d->right[1], gain, d->length[0], d->length[1], longer);
    if (o->least > 0 && (d->rate < o->least || d->low <= 50))
        return cm_fail(err, CM_EXIT_CHECK, "a win rate of %.1f%% (from %.1f%%), wanted %.1f%% and "
                       "an interval above 50%%", d->rate, d->low, o->least);
    if (-gain > o->drop)
        return cm_fail(err, CM_EXIT_CHECK, "accuracy fell by %.1f points, at most %.1f are allowed",
                       -gain, o->drop);
    if (fabs(longer) > o->length)
        return cm_fail(err, CM_EXIT_CHECK, "mean lengths differ by %.1f%%, at most %.1f%% are "
                       "allowed", longer, o->length);
    return true;
}

static bool wins(const options *o, cm_err *err) {
    cm_questions q;
    cm_sampled a, b;
    if (o->n_files != 3) return cm_fail(err, CM_EXIT_USAGE, "wins wants questions and two results");
    if (!cm_questions_read(&q, o->file[0], err)) return false;
    bool ok = cm_sampled_read(&a, o->file[1], NULL, &q, err);
    if (ok) {
        ok = cm_sampled_read(&b, o->file[2], NULL, &q, err);
        if (ok) {
            duel d = fight(&a, &b);
            ok = report(o, &d, err);
            cm_sampled_free(&b);
        }
        cm_sampled_free(&a);
    }
    cm_questions_free(&q);
    return ok;
}

/* ---- pairs and leaks -------------------------------------------------------------------- */

static bool pairs(const options *o, cm_err *err) {
    cm_questions q;
    cm_sampled s[MAX_RESULTS];
    cm_pairs_count c;
    int n = 0;
    if (!o->out) return cm_fail(err, CM_EXIT_USAGE, "pairs wants --out FILE");
    if (!cm_questions_read(&q, o->file[0], err)) return false;
    bool ok = o->n_files > 1 || cm_fail(err, CM_EXIT_USAGE, "pairs wants at least one result");
    for (; ok && n + 1 < o->n_files; n += ok)
        ok = cm_sampled_read(&s[n], o->file[n + 1], NULL, &q, err);
    ok = ok && cm_pairs_write(&q, s, n, o->out, &c, err);
    if (ok)
        printf("%d pairs of %d questions: %d chosen answers were sampled, %d are the world's "
               "own; %d questions have no wrong sample\n", c.pairs, q.n, c.own, c.pairs - c.own,
               c.all_right);
    while (n > 0) cm_sampled_free(&s[--n]);
    cm_questions_free(&q);
    return ok;
}

static bool leaks(const options *o, cm_err *err) {
    cm_questions q;
    if (o->n_files < 2) return cm_fail(err, CM_EXIT_USAGE, "leaks wants questions and texts");
    if (!cm_questions_read(&q, o->file[0], err)) return false;
    cm_leaks *l = cm_leaks_open(&q);
    bool ok = true;
    for (int i = 1; ok && i < o->n_files; i++)
        ok = cm_leaks_add(l, o->file[i], (uint64_t)o->seed, err);
    if (ok) {
        cm_leaks_count c = cm_leaks_found(l);
        printf("%lld training texts with %lld different sums; of the test they hold\n"
               "  texts %d of %d, facts (who, what, where) %d of %d, sums %d of %d\n",
               (long long)c.texts, (long long)c.sums, c.prompts, c.test_prompts, c.facts,
               c.test_facts, c.test_sums_found, c.test_sums);
        if (*c.example)
            ok = cm_fail(err, CM_EXIT_CHECK, "%s: %s is in the training texts", o->file[0],
                         c.example);
    }
    cm_leaks_close(l);
    cm_questions_free(&q);
    return ok;
}

/* ---- command line ------------------------------------------------------------------------ */

static bool read_options(int argc, char **argv, options *o, cm_err *err) {
    for (int i = 2; i < argc; i++) {
        const char *k = argv[i];
        if (k[0] != '-') {
            if (o->n_files > MAX_RESULTS)
                return cm_fail(err, CM_EXIT_USAGE, "more than %d files", MAX_RESULTS + 1);
            o->file[o->n_files++] = k;
            continue;
        }
        const char *v = argv[++i];
        if (!v) return cm_fail(err, CM_EXIT_USAGE, "%s: a value is wanted", k);
        bool ok = true;
        if (strcmp(k, "--train") == 0) o->train = v;
        else if (strcmp(k, "--of") == 0) o->of = v;
        else if (strcmp(k, "--out") == 0) o->out = v;
        else if (strcmp(k, "--least") == 0) ok = cm_parse_f64(v, &o->least);
        else if (strcmp(k, "--above") == 0) ok = cm_parse_f64(v, &o->above);
        else if (strcmp(k, "--drop") == 0) ok = cm_parse_f64(v, &o->drop);
        else if (strcmp(k, "--length") == 0) ok = cm_parse_f64(v, &o->length);
        else if (strcmp(k, "--seed") == 0) ok = cm_parse_i64(v, &o->seed) && o->seed >= 0;
        else return cm_fail(err, CM_EXIT_USAGE, "unknown option '%s' (see --help)", k);
        if (!ok) return cm_fail(err, CM_EXIT_USAGE, "%s %s: not a fitting number", k, v);
    }
    return o->n_files > 0 || cm_fail(err, CM_EXIT_USAGE, "a file of questions is wanted");
}

int main(int argc, char **argv) {
    static const struct { const char *name; bool (*fn)(const options *, cm_err *); } verbs[] = {
        {"table", table}, {"wins", wins}, {"pairs", pairs}, {"leaks", leaks}};
    cm_err err = {0};
    options o = {.above = -100, .drop = 100, .length = 1e9, .seed = 1};
    cm_log_setup("judge", CM_LOG_INFO);
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(usage, stdout);
        return CM_EXIT_OK;
    }
    bool ok = false, known = false;
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
        if ((known = strcmp(argv[1], verbs[i].name) == 0)) {
            ok = read_options(argc, argv, &o, &err) && verbs[i].fn(&o, &err);
            break;
        }
    if (!known)
        cm_fail(&err, CM_EXIT_USAGE, "wanted one of table, wins, pairs and leaks (see --help)");
    if (ok) return CM_EXIT_OK;
    cm_log(CM_LOG_ERROR, "%s", err.msg);
    return (int)err.code;
}
