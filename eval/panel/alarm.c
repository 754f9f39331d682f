/* alarm.c -- thresholds of the panel, and what is said when one is crossed. */
#include "panel/panel.h"

#include <math.h>
#include <string.h>

typedef struct {
    const cm_panel_conf *c;
    const cm_panel_row *now, *ref, *start;
    cm_panel_alarm *out;
    int n;
} judge;

static void CM_PRINTF(4, 5)
    sound(judge *j, int measure, const char *key, const char *fmt, ...) {
    cm_panel_alarm *a = &j->out[j->n++];
    va_list ap;
    *a = (cm_panel_alarm){ .measure = measure, .key = key };
    va_start(ap, fmt);
    vsnprintf(a->text, sizeof a->text, fmt, ap);
    va_end(ap);
}

/* Answers that say the same. */
static void diversity(judge *j) {
    static const char *const key[] = { "min_distinct_1", "min_distinct_2", "min_distinct_3" };
    static const char *const what[] = { "tokens", "pairs of tokens", "triples of tokens" };
    const double limit[] = { j->c->min_distinct_1, j->c->min_distinct_2, j->c->min_distinct_3 };
    for (int k = 0; k < 3; k++) {
        double x = j->now->v[CM_PANEL_DISTINCT_1 + k], r = j->ref->v[CM_PANEL_DISTINCT_1 + k];
        if (limit[k] > 0 && x < limit[k] * r)
            sound(j, CM_PANEL_DISTINCT_1 + k, key[k],
                  "answers to different prompts are made of the same words: %.3g of their %s are "
                  "distinct, in the references %.3g (panel.%s = %g); training on noisy or "
                  "uniform answers does that: look at the data, train less, lower optim.lr", x,
                  what[k], r, key[k], limit[k]);
    }
    double d = j->now->v[CM_PANEL_DUPLICATES], r = j->ref->v[CM_PANEL_DUPLICATES];
    if (j->c->max_duplicates > 0 && d > r + j->c->max_duplicates)
        sound(j, CM_PANEL_DUPLICATES, "max_duplicates",
              "the model no longer listens: %.0f %% of the answers are the same as another "
              "prompt's, of the references %.0f %% (panel.max_duplicates = %g); look at the data "
              "for answers that fit no question, train less", 100 * d, 100 * r,
              j->c->max_duplicates);
}

static void repetition(judge *j) {
    double x = j->now->v[CM_PANEL_REP_4], r = j->ref->v[CM_PANEL_REP_4];
    if (j->c->max_rep_4 > 0 && x > r + j->c->max_rep_4)
        sound(j, CM_PANEL_REP_4, "max_rep_4",
              "answers repeat themselves: %.0f %% of their 4-grams were there before, in the "
              "references %.0f %% (panel.max_rep_4 = %g); train less, lower optim.lr", 100 * x,
              100 * r, j->c->max_rep_4);
    x = j->now->v[CM_PANEL_LOOP];
    if (j->c->max_loop > 0 && x > j->c->max_loop)
        sound(j, CM_PANEL_LOOP, "max_loop",
              "%.0f %% of the answers end in a loop (panel.max_loop = %g); train less, lower "
              "optim.lr, or look for repetitive answers in the data", 100 * x, j->c->max_loop);
}

static void ending(judge *j) {
    double x = j->now->v[CM_PANEL_UNENDED];
    if (j->c->max_unended > 0 && x > j->c->max_unended)
        sound(j, CM_PANEL_UNENDED, "max_unended",
              "%.0f %% of the answers do not end (panel.max_unended = %g): <|end|> is not "
              "learned yet, or no longer; `tokenize head` shows whether it is trained", 100 * x,
              j->c->max_unended);
    x = j->now->v[CM_PANEL_FORMAT];
    if (j->c->min_format > 0 && x < j->c->min_format)
        sound(j, CM_PANEL_FORMAT, "min_format",
              "only %.0f %% of the answers keep the form (panel.min_format = %g): reasoning that "
              "is not closed or missing, stray markers, or nothing said", 100 * x,
              j->c->min_format);
}

static void length(judge *j, bool dpo) {
    const cm_panel_conf *c = j->c;
    double x = j->now->v[CM_PANEL_LENGTH_REF];
    if ((c->min_length > 0 && x < c->min_length) || (c->max_length > 0 && x > c->max_length)) {
        bool low = x < c->min_length;
        sound(j, CM_PANEL_LENGTH_REF, low ? "min_length" : "max_length",
              "answers are %.2g times as long as the references (panel.%s = %g): length is what "
              "is learned, not content", x, low ? "min_length" : "max_length",
              low ? c->min_length : c->max_length);
    }
    x = j->now->v[CM_PANEL_LENGTH_START];
    bool speaks = j->start->v[CM_PANEL_UNENDED] <= 0.5; /* else its length is the limit's */
    if (!dpo) return; /* what sft learns from is the references */
    if (speaks && c->max_drift > 0 && (x > c->max_drift || x < 1 / c->max_drift))
        sound(j, CM_PANEL_LENGTH_START, "max_drift",
              "answers are %.2g times as long as the start model's (panel.max_drift = %g): set "
              "dpo.length_norm or balance the pairs' lengths", x, c->max_drift);
    x = j->now->v[CM_PANEL_LONGER];
    if (speaks && c->max_longer > 0 && x > c->max_longer)
        sound(j, CM_PANEL_LONGER, "max_longer",
              "length bias: %.0f %% of the answers are longer than the start model's "
              "(panel.max_longer = %g): set dpo.length_norm or balance the pairs' lengths",
              100 * x, c->max_longer);
}

static void distributions(judge *j, bool dpo) {
    const cm_panel_conf *c = j->c;
    double h = j->now->v[CM_PANEL_ENTROPY], nll = j->now->v[CM_PANEL_NLL];
    if (c->min_entropy > 0 && h < c->min_entropy)
        sound(j, CM_PANEL_ENTROPY, "min_entropy",
              "the model is sure of every next token: entropy %.2g nats (panel.min_entropy = %g); "
              "it has learned the training answers by heart: train less", h, c->min_entropy);
    if (c->max_overconfidence > 0 && nll - h > c->max_overconfidence)
        sound(j, CM_PANEL_NLL, "max_overconfidence",
              "the model is surer than it is right: held-out answers cost it %.3g nats a token, "
              "its own entropy is %.3g (panel.max_overconfidence = %g); it overfits: train less, "
              "or look at the data", nll, h, c->max_overconfidence);
    double limit = c->max_kl > 0 ? c->max_kl : dpo ? 2 : 20, kl = j->now->v[CM_PANEL_KL];
    if (kl > limit)
        sound(j, CM_PANEL_KL, "max_kl",
              "the model is %.3g nats a token away from where it started (panel.max_kl, here %g): "
              "what it knew is at risk; lower optim.lr%s", kl, limit,
              dpo ? " or raise dpo.beta" : "");
}

static void checked(judge *j, bool dpo) {
    const cm_panel_conf *c = j->c;
    double x = j->now->v[CM_PANEL_ACCURACY], s = j->start->v[CM_PANEL_ACCURACY];
    if (c->max_accuracy_drop > 0 && x < s - c->max_accuracy_drop)
        sound(j, CM_PANEL_ACCURACY, "max_accuracy_drop",
              "the checker's score on %s fell from the start model's %.3g to %.3g "
              "(panel.max_accuracy_drop = %g): %s", c->task, s, x, c->max_accuracy_drop,
              dpo ? "the preferences reward something else than being right"
                  : "the data teach something else");
    x = j->now->v[CM_PANEL_WIN_RATE];
    if (dpo && c->min_win_rate > 0 && x < c->min_win_rate)
        sound(j, CM_PANEL_WIN_RATE, "min_win_rate",
              "by the checker of %s the start model's answers are better: a win rate of %.3g "
              "(panel.min_win_rate = %g)", c->task, x, c->min_win_rate);
}

int cm_panel_judge(const cm_panel_conf *c, bool dpo, const cm_panel_row *now,
                   const cm_panel_row *ref, const cm_panel_row *start, cm_panel_alarm *out) {
    judge j = { c, now, ref, start, out, 0 };
    diversity(&j);
    repetition(&j);
    ending(&j);
    length(&j, dpo);
    distributions(&j, dpo);
    checked(&j, dpo);
    return j.n;
}
