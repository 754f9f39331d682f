/* alarm.c -- thresholds of the panel, and what is said when one is crossed. */
#include "panel/panel.h"

#include <math.h>
#include <string.h>

typedef struct {
    const cm_panel_conf *c;
    const cm_panel_view *v;
    const double *now, *ref, *start;
    cm_panel_alarm *out;
    int n;
} judge;

/* A crossed threshold.  The sentence ends in the number of answers behind it; what the start
 * model did as well gets another one. */
static void CM_PRINTF(5, 6) sound(judge *j, int measure, const char *key, double limit,
                                  const char *fmt, ...) {
    cm_panel_alarm *a = &j->out[j->n - 1];
    bool of_task = measure == CM_PANEL_ACCURACY || measure == CM_PANEL_WIN_RATE;
    int n = of_task ? j->v->items : j->v->prompts;
    a->measure = measure;
    a->key = key;
    va_list ap;
    va_start(ap, fmt);
    int used = vsnprintf(a->text, sizeof a->text, fmt, ap);
    va_end(ap);
    if (a->from_start)
        used = snprintf(a->text, sizeof a->text, "%s is past panel.%s = %g, as it was before "
                        "training (the start model's %.3g, now %.3g): no alarm unless it gets "
                        "worse", cm_panel_names[measure], key, limit, j->start[measure],
                        j->now[measure]);
    if (used >= 0 && (size_t)used < sizeof a->text)
        snprintf(a->text + used, sizeof a->text - (size_t)used, " [%d %s]", n,
                 of_task ? "items" : "prompts");
}

/* How far a share of n answers may be beyond a limit by chance: one time in twenty. */
static double chance(double limit, int n) {
    double t = fmin(1, fmax(0, limit));
    return 1.645 * sqrt(t * (1 - t) / n);
}

/* Is a limit crossed, upwards or, `low`, downwards?  n: of how many answers x is a share; 0:
 * it is none.  start: the same of the start model, which is not training's fault unless x
 * has become worse; NaN: nothing to compare with. */
static bool crossed(judge *j, double x, double limit, bool low, int n, double start) {
    double sign = low ? -1 : 1;
    if (!(sign * (x - limit) > (n ? chance(limit, n) : 0))) return false;
    double worse = n ? chance(start, n) : 0.1 * fabs(start);
    j->out[j->n++] = (cm_panel_alarm){
        .from_start = sign * (start - limit) > 0 && !(sign * (x - start) > worse)
    };
    return true;
}

/* Answers that say the same. */
static void diversity(judge *j) {
    static const char *const key[] = { "min_distinct_1", "min_distinct_2", "min_distinct_3" };
    static const char *const what[] = { "tokens", "pairs of tokens", "triples of tokens" };
    const double limit[] = { j->c->min_distinct_1, j->c->min_distinct_2, j->c->min_distinct_3 };
    for (int k = 0; k < 3; k++) {
        int m = CM_PANEL_DISTINCT_1_REF + k;
        double x = j->now[m];
        if (limit[k] > 0 && crossed(j, x, limit[k], true, 0, j->start[m]))
            sound(j, m, key[k], limit[k],
                  "answers to different prompts are made of the same words: they have %.2g times "
                  "as many distinct %s as the references cut to the same lengths (panel.%s = "
                  "%g); training on noisy or uniform answers does that: look at the data, train "
                  "less, lower optim.lr", x, what[k], key[k], limit[k]);
    }
    double d = j->now[CM_PANEL_DUPLICATES], r = j->ref[CM_PANEL_DUPLICATES];
    double most = j->c->max_duplicates;
    if (most > 0 && crossed(j, d, r + most, false, j->v->prompts, j->start[CM_PANEL_DUPLICATES]))
        sound(j, CM_PANEL_DUPLICATES, "max_duplicates", most,
              "the model no longer listens: %.0f %% of the answers are the same as another "
              "prompt's, of the references %.0f %% (panel.max_duplicates = %g); look at the data "
              "for answers that fit no question, train less", 100 * d, 100 * r, most);
}

static void repetition(judge *j) {
    double x = j->now[CM_PANEL_REP_4], r = j->ref[CM_PANEL_REP_4], most = j->c->max_rep_4;
    if (most > 0 && crossed(j, x, r + most, false, 0, j->start[CM_PANEL_REP_4]))
        sound(j, CM_PANEL_REP_4, "max_rep_4", most,
              "answers repeat themselves: %.0f %% of their 4-grams were there before, in the "
              "references %.0f %% (panel.max_rep_4 = %g); train less, lower optim.lr", 100 * x,
              100 * r, most);
    x = j->now[CM_PANEL_LOOP];
    most = j->c->max_loop;
    if (most > 0 && crossed(j, x, most, false, j->v->prompts, j->start[CM_PANEL_LOOP]))
        sound(j, CM_PANEL_LOOP, "max_loop", most,
              "%.0f %% of the answers end in a loop (panel.max_loop = %g); train less, lower "
              "optim.lr, or look for repetitive answers in the data", 100 * x, most);
}

static void ending(judge *j) {
    double x = j->now[CM_PANEL_UNENDED], limit = j->c->max_unended;
    int n = j->v->prompts;
    if (limit > 0 && crossed(j, x, limit, false, n, j->start[CM_PANEL_UNENDED]))
        sound(j, CM_PANEL_UNENDED, "max_unended", limit,
              "%.0f %% of the answers do not end (panel.max_unended = %g), of the start model's "
              "%.0f %%: <|end|> is being unlearned; `tokenize head` shows whether it is trained",
              100 * x, limit, 100 * j->start[CM_PANEL_UNENDED]);
    x = j->now[CM_PANEL_FORMAT];
    limit = j->c->min_format;
    if (limit > 0 && crossed(j, x, limit * j->ref[CM_PANEL_FORMAT], true, n,
                             j->start[CM_PANEL_FORMAT]))
        sound(j, CM_PANEL_FORMAT, "min_format", limit,
              "only %.0f %% of the answers keep the form, of the references %.0f %% "
              "(panel.min_format = %g): reasoning that is not closed or missing, stray markers, "
              "or nothing said", 100 * x, 100 * j->ref[CM_PANEL_FORMAT], limit);
}

static void length(judge *j) {
    const cm_panel_conf *c = j->c;
    double x = j->now[CM_PANEL_LENGTH_REF], s = j->start[CM_PANEL_LENGTH_REF];
    bool low = c->min_length > 0 && x < c->min_length;
    double limit = low ? c->min_length : c->max_length;
    if (limit > 0 && crossed(j, x, limit, low, 0, s))
        sound(j, CM_PANEL_LENGTH_REF, low ? "min_length" : "max_length", limit,
              "answers are %.2g times as long as the references (panel.%s = %g): length is what "
              "is learned, not content", x, low ? "min_length" : "max_length", limit);
    if (!j->v->dpo) return; /* what sft learns from is the references */
    if (!(j->start[CM_PANEL_UNENDED] <= 0.5)) return; /* else its length is the limit's */
    x = j->now[CM_PANEL_LENGTH_START];
    low = x < 1;
    limit = low ? 1 / c->max_drift : c->max_drift;
    if (c->max_drift > 0 && crossed(j, x, limit, low, 0, NAN))
        sound(j, CM_PANEL_LENGTH_START, "max_drift", c->max_drift,
              "answers are %.2g times as long as the start model's (panel.max_drift = %g): set "
              "dpo.length_norm or balance the pairs' lengths", x, c->max_drift);
    x = j->now[CM_PANEL_LONGER];
    if (c->max_longer > 0 && crossed(j, x, c->max_longer, false, j->v->prompts, NAN))
        sound(j, CM_PANEL_LONGER, "max_longer", c->max_longer,
              "length bias: %.0f %% of the answers are longer than the start model's "
              "(panel.max_longer = %g): set dpo.length_norm or balance the pairs' lengths",
              100 * x, c->max_longer);
}

static void distributions(judge *j) {
    const cm_panel_conf *c = j->c;
    double h = j->now[CM_PANEL_ENTROPY], nll = j->now[CM_PANEL_NLL];
    double before = j->start[CM_PANEL_NLL] - j->start[CM_PANEL_ENTROPY];
    if (c->min_entropy > 0 &&
        crossed(j, h, c->min_entropy, true, 0, j->start[CM_PANEL_ENTROPY]))
        sound(j, CM_PANEL_ENTROPY, "min_entropy", c->min_entropy,
              "the model is sure of every next token: entropy %.2g nats (panel.min_entropy = %g); "
              "it has learned the training answers by heart: train less", h, c->min_entropy);
    if (c->max_overconfidence > 0 &&
        crossed(j, nll - h, c->max_overconfidence, false, 0, before))
        sound(j, CM_PANEL_NLL, "max_overconfidence", c->max_overconfidence,
              "the model is surer than it is right: held-out answers cost it %.3g nats a token, "
              "its own entropy is %.3g, a difference of %.3g and before training %.3g "
              "(panel.max_overconfidence = %g); it overfits: train less, or look at the data",
              nll, h, nll - h, before, c->max_overconfidence);
    double limit = j->v->dpo ? c->max_kl_dpo : c->max_kl, kl = j->now[CM_PANEL_KL];
    const char *key = j->v->dpo ? "max_kl_dpo" : "max_kl";
    if (limit > 0 && crossed(j, kl, limit, false, 0, NAN))
        sound(j, CM_PANEL_KL, key, limit,
              "the model is %.3g nats a token away from where it started (panel.%s = %g): "
              "what it knew is at risk; lower optim.lr%s", kl, key, limit,
              j->v->dpo ? " or raise dpo.beta" : "");
}

static void checked(judge *j) {
    const cm_panel_conf *c = j->c;
    double x = j->now[CM_PANEL_ACCURACY], s = j->start[CM_PANEL_ACCURACY];
    int n = j->v->items;
    if (n < CM_PANEL_FEW) return;
    if (c->max_accuracy_drop > 0 && crossed(j, x, s - c->max_accuracy_drop, true, n, NAN))
        sound(j, CM_PANEL_ACCURACY, "max_accuracy_drop", c->max_accuracy_drop,
              "the checker's score on %s fell from the start model's %.3g to %.3g "
              "(panel.max_accuracy_drop = %g): %s", c->task, s, x, c->max_accuracy_drop,
              j->v->dpo ? "the preferences reward something else than being right"
                        : "the data teach something else");
    x = j->now[CM_PANEL_WIN_RATE];
    if (j->v->dpo && c->min_win_rate > 0 && crossed(j, x, c->min_win_rate, true, n, NAN))
        sound(j, CM_PANEL_WIN_RATE, "min_win_rate", c->min_win_rate,
              "by the checker of %s the start model's answers are better: a win rate of %.3g "
              "(panel.min_win_rate = %g)", c->task, x, c->min_win_rate);
}

int cm_panel_judge(const cm_panel_conf *c, const cm_panel_view *v, cm_panel_alarm *out) {
    judge j = { c, v, v->now->v, v->ref->v, v->start->v, out, 0 };
    if (v->prompts >= CM_PANEL_FEW) {
        diversity(&j);
        repetition(&j);
        ending(&j);
        length(&j);
        distributions(&j);
    }
    checked(&j);
    return j.n;
}
