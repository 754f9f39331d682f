/* join.c -- lines of the benchmark programs to build/bench.json: medians, ratios, intervals.
 *
 * usage: join LINES.jsonl > bench.json
 * Each line is an object of flat keys; {"round": k} begins a round, other text is passed over.
 * A number measured in several rounds becomes its median, with the least and the largest as
 * KEY_min and KEY_max: five rounds enclose the true median with 94%.  Ratios are formed
 * within a round and then treated alike, so that what slows a whole round falls out:
 *   train/NAME/C/mfu          flops by the formula over the best 2048^3 product known in C
 *   ratio/PEER/NAME/C/x       our tokens/s over the peer's; C = best: each at its own best
 *   ratio/PEER/infer/.../x    the same of inference
 *   ratio/moe/...             MoE over the dense model of equal active parameters
 *   ratio/bf16/NAME/x         tokens/s of whole steps in bf16 over those in fp32
 *   ratio/long/NAME-T.../C/x  seconds a token over what the formula makes of those at 512 */
#include "bench/bench.h"
#include "run/run.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 64 };

typedef struct series {
    char *key, *text;   /* text: a string, no numbers */
    double x[ROUNDS];   /* by round, NAN where not measured */
} series;

static struct {
    series *s;
    int n, rounds;
} all;

static series *find(const char *key) {
    for (int i = 0; i < all.n; i++)
        if (!strcmp(all.s[i].key, key)) return &all.s[i];
    return NULL;
}

static series *get(const char *key) {
    series *old = find(key);
    if (old) return old;
    all.s = realloc(all.s, (size_t)(all.n + 1) * sizeof *all.s);
    CM_ASSERT(all.s, "out of memory");
    series *s = &all.s[all.n++];
    *s = (series){ .key = cm_strf("%s", key) };
    for (int r = 0; r < ROUNDS; r++) s->x[r] = NAN;
    return s;
}

/* ---- medians -------------------------------------------------------------------------- */

/* The values there are. */
static int values(const series *s, double *out) {
    int n = 0;
    for (int r = 0; r < ROUNDS; r++)
        if (isfinite(s->x[r])) out[n++] = s->x[r];
    return n;
}

static double median(const series *s) {
    double x[ROUNDS];
    int n = s ? values(s, x) : 0;
    return n ? bench_median(x, n) : NAN;
}

/* ---- keys ----------------------------------------------------------------------------- */

static bool starts(const char *s, const char *with) { return !strncmp(s, with, strlen(with)); }

/* train/NAME/C/UNIT taken apart; false: another key. */
typedef struct train_key {
    char name[64], compute[16], unit[32];
} train_key;
static bool train_of(const char *key, train_key *t) {
    char rest;
    return sscanf(key, "train/%63[^/]/%15[^/]/%31[^/]%c", t->name, t->compute, t->unit,
                  &rest) == 3;
}

static series *join_key(const char *fmt, const char *a, const char *b, const char *c) {
    char *key = cm_strf("%s%s%s%s", fmt, a, b, c);
    series *s = find(key);
    free(key);
    return s;
}

/* ---- ratios --------------------------------------------------------------------------- */

/* KEY = a / b in each round that has both; nothing where one was not measured. */
static void pair(const char *key, const series *a, const series *b) {
    double x[ROUNDS];
    bool any = false;
    for (int r = 0; a && b && r < ROUNDS; r++) {
        x[r] = a->x[r] / b->x[r];
        any |= isfinite(x[r]);
    }
    if (any) memcpy(get(key)->x, x, sizeof x);
}

/* The best product in this precision by rounds; false: none. */
static bool peak(const char *compute, series *out) {
    char part[48];
    snprintf(part, sizeof part, "gemm/%s/square-NN-2048x2048x2048/", compute);
    bool any = false;
    for (int r = 0; r < ROUNDS; r++) out->x[r] = NAN;
    for (int i = 0; i < all.n; i++) {
        if (!strstr(all.s[i].key, part)) continue;
        for (int r = 0; r < ROUNDS; r++)
            if (!(out->x[r] >= all.s[i].x[r])) out->x[r] = all.s[i].x[r];
        any = true;
    }
    return any;
}

static void utilisation(const char *key, const train_key *t) {
    series best;
    if (strcmp(t->unit, "gflops") || !peak(t->compute, &best)) return;
    char *to = cm_strf("train/%s/%s/mfu", t->name, t->compute);
    pair(to, find(key), &best);
    free(to);
}

static const char *base_of(const train_key *t, char *base) {
    const char *cut = strstr(t->name, "-T");
    int n = cut ? (int)(cut - t->name) : (int)strlen(t->name);
    snprintf(base, 64, "%.*s", n, t->name);
    return cut;
}

/* Flop rates compare seconds a token with the formula. */
static void long_rows(const char *key, const train_key *t) {
    char base[64];
    if (strcmp(t->unit, "gflops") || !base_of(t, base)) return;
    char *from = cm_strf("train/%s/%s/gflops", base, t->compute);
    char *to = cm_strf("ratio/long/%s/%s/x", t->name, t->compute);
    pair(to, find(from), find(key));
    free(from);
    free(to);
}

static void experts(const char *key, const train_key *t) {
    const char *cut = strstr(t->name, "-moe");
    if (strcmp(t->unit, "tok_per_s") || !cut) return;
    char *from = cm_strf("train/%.*s%s/%s/tok_per_s", (int)(cut - t->name), t->name, cut + 4,
                         t->compute);
    char *to = cm_strf("ratio/moe/%s/%s/x", t->name, t->compute);
    pair(to, find(key), find(from));
    free(from);
    free(to);
}

static void precisions(const char *key, const train_key *t) {
    if (strcmp(t->unit, "tok_per_s") || strcmp(t->compute, "bf16")) return;
    char *to = cm_strf("ratio/bf16/%s/x", t->name);
    pair(to, find(key), join_key("train/", t->name, "/fp32", "/tok_per_s"));
    free(to);
}

/* Of train/NAME/fp32 and train/NAME/bf16 under a prefix, the one with the better median. */
static series *better(const char *prefix, const char *name) {
    series *a = join_key(prefix, "train/", name, "/fp32/tok_per_s");
    series *b = join_key(prefix, "train/", name, "/bf16/tok_per_s");
    return !a ? b : !b ? a : median(a) > median(b) ? a : b;
}

/* peer/WHO/infer/NAME/TYPE/WHAT_tok_per_s */
static void rival_at_inference(const char *key) {
    const char *at = strstr(key, "/infer/"), *unit = strstr(key, "_tok_per_s");
    if (!at || !unit) return;
    char *to = cm_strf("ratio/%.*s/%.*s/x", (int)(at - key - 5), key + 5, (int)(unit - at - 1),
                       at + 1);
    pair(to, find(at + 1), find(key));
    free(to);
}

/* peer/WHO/train/NAME/C/tok_per_s */
static void rival(const char *key) {
    char who[64], rest;
    train_key t;
    const char *at = strstr(key, "/train/");
    if (sscanf(key, "peer/%63[^/]/trai%c", who, &rest) != 2 || !at || !train_of(at + 1, &t))
        return;
    char *prefix = cm_strf("peer/%s/", who);
    char *to = cm_strf("ratio/%s/%s/%s/x", who, t.name, t.compute);
    char *top = cm_strf("ratio/%s/%s/best/x", who, t.name);
    char *mine = cm_strf("train/%s/%s/tok_per_s", t.name, t.compute);
    pair(to, find(mine), find(key));
    pair(top, better("", t.name), better(prefix, t.name));
    free(prefix);
    free(to);
    free(top);
    free(mine);
}

static void derive(void) {
    int n = all.n; /* of what was measured */
    for (int i = 0; i < n; i++) {
        train_key t;
        const char *key = all.s[i].key;
        if (starts(key, "peer/")) rival(key), rival_at_inference(key);
        if (!train_of(key, &t)) continue;
        utilisation(key, &t);
        long_rows(key, &t);
        experts(key, &t);
        precisions(key, &t);
    }
}

/* ---- in and out ----------------------------------------------------------------------- */

static void take(const cJSON *x) {
    if (cJSON_IsString(x)) {
        series *s = get(x->string);
        free(s->text);
        s->text = cm_strf("%s", x->valuestring);
    } else if (cJSON_IsNumber(x) && !strcmp(x->string, "round")) {
        all.rounds = x->valueint < ROUNDS ? x->valueint : ROUNDS - 1;
    } else if (cJSON_IsNumber(x)) {
        get(x->string)->x[all.rounds] = x->valuedouble;
    }
}

static bool read_lines(const char *path) {
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0;
    if (!f) return false;
    while (getline(&line, &cap, f) > 0) {
        cJSON *o = cJSON_Parse(line);
        for (const cJSON *x = cJSON_IsObject(o) ? o->child : NULL; x; x = x->next) take(x);
        cJSON_Delete(o);
    }
    free(line);
    fclose(f);
    return true;
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const series *)a)->key, ((const series *)b)->key);
}

/* Numbers to six digits, one a line, in the order of their keys. */
static void write_number(const char *key, const char *suffix, double x, bool *first) {
    printf("%s\n  \"%s%s\": %.6g", *first ? "{" : ",", key, suffix, x);
    *first = false;
}

static void write_text(const series *s, bool *first) {
    cJSON *text = cJSON_CreateString(s->text);
    char *quoted = cJSON_PrintUnformatted(text);
    printf("%s\n  \"%s\": %s", *first ? "{" : ",", s->key, quoted);
    *first = false;
    free(quoted);
    cJSON_Delete(text);
}

static void write_all(void) {
    bool first = true;
    if (all.n) qsort(all.s, (size_t)all.n, sizeof *all.s, by_key);
    for (int i = 0; i < all.n; i++) {
        const series *s = &all.s[i];
        double x[ROUNDS];
        int n = values(s, x);
        if (s->text) write_text(s, &first);
        if (n) write_number(s->key, "", bench_median(x, n), &first); /* in order now */
        if (n > 1) write_number(s->key, "_max", x[n - 1], &first);
        if (n > 1) write_number(s->key, "_min", x[0], &first);
    }
    printf("%s\n}\n", first ? "{" : "");
}

int main(int argc, char **argv) {
    if (argc != 2 || !read_lines(argv[1])) {
        fprintf(stderr, "usage: join LINES.jsonl > bench.json\n");
        return CM_EXIT_USAGE;
    }
    derive();
    write_all();
    return 0;
}
