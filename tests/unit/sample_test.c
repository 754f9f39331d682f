/* sample_test.c -- the distribution behind sampling against a plain one that sorts all, and
 * the rules by which guesses are accepted. */
#include "model/model.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 700 };

typedef struct {
    double x, p;
    int id;
} plain;

static int later(const void *a, const void *b) {
    const plain *x = a, *y = b;
    return x->x != y->x ? (x->x < y->x ? 1 : -1) : x->id - y->id;
}

static void normalise(plain *c, int n, double temperature) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += c[i].p = exp((c[i].x - c[0].x) / temperature);
    for (int i = 0; i < n; i++) c[i].p /= sum;
}

/* Repeat penalty, top-k, top-p, min-p, temperature: all tokens in order, then cut. */
static int sort_all(const cm_sampling *s, const cm_real *logits, int V, const int32_t *recent,
                    int n_recent, plain *c) {
    for (int i = 0; i < V; i++) {
        bool seen = false;
        for (int k = n_recent > s->repeat_last ? n_recent - (int)s->repeat_last : 0; k < n_recent;
             k++)
            seen |= recent[k] == i;
        cm_real f = (cm_real)s->repeat_penalty, x = logits[i];
        c[i] = (plain){ (double)(!seen || f == 1 ? x : x > 0 ? x / f : x * f), 0, i };
    }
    qsort(c, (size_t)V, sizeof *c, later);
    int n = s->top_k > 0 && s->top_k < V ? (int)s->top_k : V, k = 0;
    normalise(c, n, 1);
    if (s->top_p < 1) {
        double sum = 0;
        while (k < n && (sum += c[k++].p) < s->top_p);
        n = k;
    }
    for (k = 1; s->min_p > 0 && k < n && c[k].p >= s->min_p * c[0].p;) k++;
    if (s->min_p > 0) n = k;
    if (s->temperature <= 0) n = 1;
    normalise(c, n, s->temperature <= 0 ? 1 : s->temperature);
    return n;
}

static double one_of(cm_rng r, uint64_t i, const double *v, int n) {
    return v[cm_rng_below(r, i, (uint64_t)n)];
}

static cm_sampling some_way(cm_rng r) {
    static const double t[] = { 0, 0.3, 1, 2.5 }, k[] = { 0, 0, 1, 7, 100, 5000 };
    static const double p[] = { 1, 1, 0.3, 0.9, 0.999 }, m[] = { 0, 0, 0.01, 0.2 };
    static const double f[] = { 1, 1, 1.3, 0.8 };
    return (cm_sampling){ one_of(r, 1, t, 4), (int64_t)one_of(r, 2, k, 6), one_of(r, 3, p, 5),
                          one_of(r, 4, m, 4), one_of(r, 5, f, 4), (int64_t)cm_rng_below(r, 6, 9),
                          77 };
}

TEST(sampling_equals_sorting_everything) {
    static cm_real logits[MOST], copy[MOST];
    static plain want[MOST];
    static cm_candidate got[MOST];
    for (int round = 0; round < 3000; round++) {
        cm_rng r = cm_rng_make(41, CM_RNG_TEST, (uint64_t)round);
        int V = 2 + (int)cm_rng_below(r, 7, MOST - 2), n_recent = (int)cm_rng_below(r, 8, 12);
        int32_t recent[12];
        double spread = round % 3 ? 1 + round % 5 : 0.05;
        for (int i = 0; i < n_recent; i++)
            recent[i] = (int32_t)cm_rng_below(r, (uint64_t)(20 + i), (uint64_t)V);
        for (int i = 0; i < V; i++)
            logits[i] = (cm_real)(round % 4 ? spread * cm_rng_normal(r, (uint64_t)(100 + i))
                                            : (double)cm_rng_below(r, (uint64_t)(100 + i), 6));
        cm_sampling s = some_way(r);
        int n = sort_all(&s, logits, V, recent, n_recent, want);
        memcpy(copy, logits, sizeof copy);
        int m = cm_sample_candidates(&s, copy, V, recent, n_recent, got);
        CHECKF(m == n, "round %d: %d candidates, wanted %d", round, m, n);
        double sum = 0, worst = 0;
        for (int i = 0; i < m; i++) {
            int k = i;
            for (k = 0; k < n && want[k].id != got[i].id; k++);
            double d = k < n ? fabs(want[k].p - got[i].p) : 1;
            worst = d > worst ? d : worst;
            sum += got[i].p;
        }
        CHECKF(worst < 1e-12 && fabs(sum - 1) < 1e-12, "round %d: off by %.3g", round, worst);
        for (uint64_t draw = 0; draw < 5; draw++) {
            double u = cm_sample_uniform(&s, CM_DRAW_TOKEN, draw), upto = 0;
            int id = want[n - 1].id;
            for (int i = 0; i < n; i++)
                if (u < (upto += want[i].p)) {
                    id = want[i].id;
                    break;
                }
            memcpy(copy, logits, sizeof copy);
            int a = cm_sample_token(&s, copy, V, recent, n_recent, draw, got);
            CHECKF(a == id, "round %d: token %d, wanted %d", round, a, id);
        }
    }
}

/* What a guess from q ends up as, summed over all guesses: p, whatever q. */
TEST(accepted_guesses_and_the_rest_make_p) {
    enum { N = 7 };
    for (int round = 0; round < 500; round++) {
        cm_rng r = cm_rng_make(43, CM_RNG_TEST, (uint64_t)round);
        double p[N], q[N], out[N] = { 0 }, sp = 0, sq = 0;
        int sure = round % 3 == 0 ? round % N : -1; /* an n-gram's guess */
        for (int i = 0; i < N; i++) {
            p[i] = cm_rng_below(r, (uint64_t)i, 3) ? cm_rng_uniform(r, (uint64_t)(i + 9)) : 0;
            q[i] = cm_rng_below(r, (uint64_t)(i + 20), 3) ? cm_rng_uniform(r, (uint64_t)(i + 30))
                                                          : 0;
            if (i == round % N) p[i] += 0.1;
            if (sure >= 0) q[i] = i == sure;
            sp += p[i], sq += q[i];
        }
        if (sq == 0) q[0] = sq = 1;
        for (int i = 0; i < N; i++) p[i] /= sp, q[i] /= sq;
        for (int y = 0; y < N; y++) {
            if (q[y] == 0) continue;
            double lo = 0, hi = 1; /* the u below which it is accepted */
            for (int k = 0; k < 60; k++) {
                double u = (lo + hi) / 2;
                if (cm_guess_accepted(p[y], q[y], u)) lo = u;
                else hi = u;
            }
            out[y] += q[y] * hi;
            cm_candidate c[N];
            int n = 0;
            for (int i = N - 1; i >= 0; i--)
                if (p[i] > 0) c[n++] = (cm_candidate){ .p = p[i], .id = i };
            if (hi > 1 - 1e-12) continue;
            n = cm_candidates_rest(c, n, sure >= 0 ? NULL : q, y);
            for (int i = 0; i < n; i++) out[c[i].id] += q[y] * (1 - hi) * c[i].p;
        }
        for (int i = 0; i < N; i++)
            CHECKF(fabs(out[i] - p[i]) < 1e-9, "round %d: %.12g, wanted %.12g", round, out[i],
                   p[i]);
    }
}
