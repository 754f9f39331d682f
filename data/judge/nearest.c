/* nearest.c -- the baselines: a skill's commonest answer; the nearest training question's. */
#include "data/judge/judge.h"
#include "harness/harness.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void cm_majority_score(const cm_questions *q, double *right) {
    for (int i = 0; i < q->n; i++) {
        int best = -1, most = 0;
        for (int k = 0; k < q->n; k++) {
            int n = 0;
            if (strcmp(q->row[k].skill, q->row[i].skill) != 0) continue;
            for (int j = 0; j < q->n; j++)
                n += strcmp(q->row[j].skill, q->row[i].skill) == 0 &&
                     strcmp(q->row[j].answer, q->row[k].answer) == 0;
            if (n > most) most = n, best = k;
        }
        right[i] = strcmp(q->row[i].answer, q->row[best].answer) == 0;
    }
}

/* ---- features: words and pairs of neighbours, hashed ------------------------------------- */

enum { BUCKETS = 1 << 18, MAX_FEATURES = 2048 };

typedef struct features {
    uint32_t f[MAX_FEATURES]; /* different ones, ascending */
    int n;
} features;

static int by_u32(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static features features_of(const char *s) {
    features v = {.n = 0};
    uint64_t last = 0;
    while (*s && v.n + 2 <= MAX_FEATURES) {
        uint64_t h = 1469598103934665603u; /* FNV-1a */
        size_t n = 0;
        for (; isalnum((unsigned char)s[n]); n++)
            h = (h ^ (uint64_t)tolower((unsigned char)s[n])) * 1099511628211u;
        if (n) {
            v.f[v.n++] = (uint32_t)((h ^ h >> 32) % BUCKETS);
            uint64_t both = (last * 31 + h) * 1099511628211u;
            if (last) v.f[v.n++] = (uint32_t)((both ^ both >> 32) % BUCKETS);
            last = h;
        }
        s += n ? n : 1;
    }
    qsort(v.f, (size_t)v.n, sizeof *v.f, by_u32);
    int kept = 0;
    for (int i = 0; i < v.n; i++)
        if (!kept || v.f[kept - 1] != v.f[i]) v.f[kept++] = v.f[i];
    v.n = kept;
    return v;
}

/* ---- the index ----------------------------------------------------------------------------- */

typedef struct index_ {
    int n;          /* prompts */
    int *start;     /* [BUCKETS + 1] of each feature's prompts in list */
    int *list;
    double *idf;    /* [BUCKETS]; 0 where the feature is unknown, or too common */
    double *norm;   /* [n] */
    double *score;  /* [n] of the question at hand */
} index_;

static void *zeros(size_t n, size_t size) {
    void *p = calloc(n, size);
    CM_ASSERT(p, "out of memory for %zu entries", n);
    return p;
}

static void index_close(index_ *x) {
    free(x->start);
    free(x->list);
    free(x->idf);
    free(x->norm);
    free(x->score);
}

static index_ index_open(const cm_questions *train) {
    index_ x = {.n = train->n, .start = zeros(BUCKETS + 2, sizeof(int)),
                .idf = zeros(BUCKETS, sizeof(double)),
                .norm = zeros((size_t)train->n, sizeof(double)),
                .score = zeros((size_t)train->n, sizeof(double))};
    for (int i = 0; i < x.n; i++) {
        features v = features_of(train->row[i].prompt);
        for (int k = 0; k < v.n; k++) x.start[v.f[k] + 2]++;
    }
    for (int f = 0; f < BUCKETS; f++) {
        int with = x.start[f + 2];
        x.idf[f] = with && with * 10 <= x.n * 3 ? log((double)x.n / with) : 0;
        x.start[f + 2] += x.start[f + 1];
    }
    x.list = zeros((size_t)x.start[BUCKETS + 1] + 1, sizeof(int));
    for (int i = 0; i < x.n; i++) {
        features v = features_of(train->row[i].prompt);
        for (int k = 0; k < v.n; k++) {
            x.list[x.start[v.f[k] + 1]++] = i;
            x.norm[i] += x.idf[v.f[k]] * x.idf[v.f[k]];
        }
        x.norm[i] = x.norm[i] > 0 ? sqrt(x.norm[i]) : 1;
    }
    return x;
}

/* The question's own norm is the same for all prompts and left out. */
static int index_nearest(index_ *x, const char *prompt) {
    features v = features_of(prompt);
    int best = 0;
    memset(x->score, 0, (size_t)x->n * sizeof *x->score);
    for (int k = 0; k < v.n; k++) {
        double w = x->idf[v.f[k]] * x->idf[v.f[k]];
        if (w <= 0) continue;
        for (int j = x->start[v.f[k]]; j < x->start[v.f[k] + 1]; j++) x->score[x->list[j]] += w;
    }
    for (int i = 1; i < x->n; i++)
        if (x->score[i] / x->norm[i] > x->score[best] / x->norm[best]) best = i;
    return best;
}

bool cm_nearest_score(const cm_questions *train, const cm_questions *q, double *right,
                      cm_err *err) {
    if (!train->n) return cm_fail(err, CM_EXIT_DATA, "no training questions");
    index_ x = index_open(train);
    for (int i = 0; i < q->n; i++) {
        const char *got = train->row[index_nearest(&x, q->row[i].prompt)].answer;
        right[i] = cm_answer_stands(got, q->row[i].answer, false);
    }
    index_close(&x);
    return true;
}
