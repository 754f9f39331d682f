/* measure.c -- numbers about answers: repetition, length, form, distributions. */
#include "panel/panel.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "stats/stats.h"

const char *const cm_panel_names[CM_PANEL_N] = {
#define X(id, name) name,
    CM_PANEL_MEASURES(X)
#undef X
};

bool cm_panel_formed(const cm_chat *c, const cm_spm *spm, const int32_t *id, int64_t n,
                     bool think) {
    int64_t i = 0;
    bool said = false;
    if (n && id[0] == c->think) {
        while (i < n && id[i] != c->unthink) i++;
        if (i == n) return false;
    } else if (think) {
        return false;
    }
    for (i = n && id[0] == c->think ? i + 1 : 0; i < n; i++) {
        cm_piece_type type = CM_PIECE_NORMAL;
        const char *s = cm_spm_piece(spm, id[i], NULL, &type);
        if (type == CM_PIECE_CONTROL) return false;
        if (!strncmp(s, "\xE2\x96\x81", 3)) s += 3; /* a piece's blank */
        said = said || type == CM_PIECE_BYTE || (*s && !isspace((unsigned char)*s));
    }
    return said;
}

static void distinct(const cm_panel_text *t, int n, cm_panel_row *r) {
    const int32_t **id = cm_room(n, sizeof *id);
    int64_t *len = cm_room(n, sizeof *len);
    for (int i = 0; i < n; i++) id[i] = t[i].id, len[i] = t[i].n;
    for (int k = 1; k <= 3; k++)
        r->v[CM_PANEL_DISTINCT_1 + k - 1] = cm_distinct_of(id, len, n, k);
    free(id);
    free(len);
}

double cm_panel_distinct_of(const cm_panel_text *t, const cm_panel_text *other, int n, int k) {
    const int32_t **id = cm_room(2 * n, sizeof *id);
    int64_t *len = cm_room(n, sizeof *len);
    for (int i = 0; i < n; i++) {
        id[i] = t[i].id, id[n + i] = other[i].id;
        len[i] = t[i].n < other[i].n ? t[i].n : other[i].n;
    }
    double ratio = cm_distinct_of(id, len, n, k) / cm_distinct_of(id + n, len, n, k);
    free(id);
    free(len);
    return ratio;
}

static int by_answer(const void *a, const void *b) {
    const cm_panel_text *x = a, *y = b;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return x->n ? memcmp(x->id, y->id, (size_t)x->n * sizeof *x->id) : 0;
}

/* Share of answers that are the same as another one. */
static double duplicates(const cm_panel_text *t, int n) {
    cm_panel_text *s = cm_room(n, sizeof *s);
    memcpy(s, t, (size_t)n * sizeof *s);
    qsort(s, (size_t)n, sizeof *s, by_answer);
    int same = 0;
    for (int i = 0; i < n; i++)
        same += (i && !by_answer(&s[i], &s[i - 1])) || (i + 1 < n && !by_answer(&s[i], &s[i + 1]));
    free(s);
    return (double)same / n;
}

cm_panel_row cm_panel_measure(const cm_panel_text *t, int n) {
    cm_panel_row r;
    for (int i = 0; i < CM_PANEL_N; i++) r.v[i] = NAN;
    if (n < 1) return r;
    double rep = 0, loop = 0, length = 0, ended = 0, formed = 0;
    int reps = 0;
    for (int i = 0; i < n; i++) {
        cm_degen d = cm_degen_measure(t[i].id, (int)t[i].n, t[i].text, t[i].bytes);
        if (!isnan(d.seq_rep_4)) rep += d.seq_rep_4, reps++;
        loop += d.loop;
        length += (double)t[i].n;
        ended += t[i].ended;
        formed += t[i].formed;
    }
    distinct(t, n, &r);
    r.v[CM_PANEL_REP_4] = reps ? rep / reps : 0;
    r.v[CM_PANEL_LOOP] = loop / n;
    r.v[CM_PANEL_LENGTH] = length / n;
    r.v[CM_PANEL_UNENDED] = 1 - ended / n;
    r.v[CM_PANEL_DUPLICATES] = duplicates(t, n);
    r.v[CM_PANEL_FORMAT] = formed / n;
    return r;
}

double cm_panel_longer(const double *length, const double *other, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += length[i] > other[i] ? 1 : length[i] == other[i] ? 0.5 : 0;
    return n ? sum / n : NAN;
}

double cm_panel_wins(const double *score, const double *other, int n) {
    return cm_panel_longer(score, other, n); /* the same statistic */
}

void cm_panel_dist(const cm_real *logits, int64_t V, float *logp, const float *other,
                   double *entropy, double *kl) {
    cm_lse lse = cm_row_lse(logits, V);
    double h = 0, d = 0;
    for (int64_t k = 0; k < V; k++) {
        logp[k] = (float)cm_logp(lse, logits[k]);
        double p = exp((double)logp[k]);
        h -= p * (double)logp[k];
        if (other) d += p * ((double)logp[k] - (double)other[k]);
    }
    *entropy = h;
    *kl = other ? fmax(0, d) : NAN; /* rounding may leave -1e-9 */
}
