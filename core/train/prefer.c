/* prefer.c -- the objective over pairs: DPO and its relatives, their metrics and alarms.
 *
 * A batch is packed rows of whole pairs; the loss is the mean over its pairs.  The policy's
 * log-probabilities come from the op `logp`, the loss from `prefer`, the reference's numbers
 * from refs.c.  What the ops found in each pair is summed here for the metrics. */
#include "train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FEW = 32 }; /* pairs: an alarm needs more */

/* ---- pairs of rows ------------------------------------------------------------------ */

int64_t cm_pack_most(const cm_pack *p, int64_t n) {
    int64_t most = 0;
    for (int64_t r = 0; r < p->rows; r++) {
        int64_t units = p->first[r + 1] - p->first[r];
        if (units > most) most = units;
    }
    return most * n;
}

/* The pairs of one row: places at, at+1, .. of the batch. */
static void row_pairs(const cm_batch *b, int64_t at, int n, cm_pair *pair) {
    for (int i = 0; i < n; i++) pair[i] = (cm_pair){ .from = { -1, -1 } };
    for (int64_t t = at; t < at + b->T && b->doc[t] < 2 * n; t++) {
        cm_pair *p = &pair[b->doc[t] / 2];
        int k = b->doc[t] % 2;
        if (p->from[k] < 0) p->from[k] = (int32_t)t;
        p->to[k] = (int32_t)t + 1;
        p->n[k] += b->target[t] >= 0;
    }
}

int cm_pack_pairs(const cm_pack *p, const cm_batch *b, int64_t row, cm_pair *pair,
                  int64_t *unit) {
    int all = 0;
    for (int i = 0; i < b->B; i++) {
        const int64_t *u;
        int n = (int)cm_pack_units(p, row + i, &u);
        row_pairs(b, (int64_t)i * b->T, n, pair + all);
        memcpy(unit + all, u, (size_t)n * sizeof *u);
        all += n;
    }
    return all;
}

/* ---- the loss ----------------------------------------------------------------------- */

static void add_pair(const cm_dpo *p, cm_prefer_sums *s, const cm_pair *pair) {
    double margin = pair->reward[0] - pair->reward[1], d = pair->n[0] - pair->n[1];
    s->n++;
    s->loss += pair->loss;
    s->nll -= p->how.nll * pair->logp[0] / pair->n[0];
    s->won += margin > 0;
    for (int k = 0; k < 2; k++) {
        s->reward[k] += pair->reward[k];
        s->logp[k] += pair->logp[k];
        s->drift[k] += pair->logp[k] - pair->ref[k];
        s->tokens[k] += pair->n[k];
    }
    s->m += margin;
    s->mm += margin * margin;
    s->d += d;
    s->dd += d * d;
    s->md += margin * d;
    s->uneven += d != 0 && margin != 0;
    s->longer += d * margin > 0;
}

/* Is there no validation that would judge? */
static bool unseen(const cm_dpo *p) { return !p->pack[CM_SPLIT_VAL]->rows; }

static cm_var *pair_loss(cm_dpo *p, const cm_model *m, cm_tape *t, const cm_batch *b,
                         int64_t row, cm_real norm, cm_real aux_scale, const cm_stats *st) {
    bool recompute = !t->recording || p->conf->train.recompute == CM_RECOMPUTE_BLOCK;
    int n = t->dry ? 0 : cm_pack_pairs(p->pack[p->split], b, row, p->pair, p->unit);
    for (int i = 0; i < n && p->refs; i++)
        for (int k = 0; k < 2; k++)
            p->pair[i].ref[k] = p->refs[p->split].logp[k][p->unit[i]];
    cm_var *aux, *logp = cm_model_logp(m, t, b, aux_scale * (cm_real)n, recompute, st, &aux);
    cm_var *loss = cm_prefer(t, logp, p->pair, n, &p->how, norm);
    for (int i = 0; i < n; i++) add_pair(p, &p->sum, &p->pair[i]);
    for (int i = 0; i < n && unseen(p); i++) add_pair(p, &p->since, &p->pair[i]);
    return aux && t->recording ? cm_sum(t, (cm_var *[]){ loss, aux }, 2) : loss;
}

static cm_var *train_loss(void *self, const cm_model *m, cm_tape *t, const cm_batch *b,
                          int64_t row, cm_real norm, const cm_stats *st) {
    return pair_loss(self, m, t, b, row, norm, norm, st);
}

static cm_var *val_loss(void *self, const cm_model *m, cm_tape *t, const cm_batch *b,
                        int64_t row, const cm_stats *st) {
    (void)st; /* the experts' load is training's */
    return pair_loss(self, m, t, b, row, 1, 0, NULL);
}

static int64_t count(void *self, const cm_rows *rows, int64_t row, int n) {
    cm_dpo *p = self;
    int64_t pairs = 0;
    const int64_t *unit;
    (void)rows;
    if (p->row < 0) p->row = row;
    for (int i = 0; i < n; i++) pairs += cm_pack_units(p->pack[p->split], row + i, &unit);
    return pairs;
}

/* ---- metrics ------------------------------------------------------------------------ */

/* Of margin and difference in length; 0 where one of them is the same in all pairs (up to
 * the rounding of their sums). */
static double correlation(const cm_prefer_sums *s) {
    double mm = s->mm - s->m * s->m / s->n, dd = s->dd - s->d * s->d / s->n;
    if (mm <= 1e-9 * s->mm || dd <= 1e-9 * s->dd) return 0;
    return (s->md - s->m * s->d / s->n) / sqrt(mm * dd);
}

static void begin(void *self, bool val) {
    cm_dpo *p = self;
    p->split = val ? CM_SPLIT_VAL : CM_SPLIT_TRAIN;
    p->sum = (cm_prefer_sums){ 0 };
    p->row = -1;
}

static void number(cm_buf *b, bool val, const char *name, double v) {
    char key[64];
    snprintf(key, sizeof key, "%s%s", val ? "val/" : "", name);
    cm_json_f64(b, key, v);
}

/* What the loss is where policy and reference agree. */
static double loss_at_reference(const cm_prefer_conf *c) {
    if (c->loss == CM_PREFER_IPO) return 1 / (4 * c->beta * c->beta);
    double e = c->label_smoothing;
    return (1 - e) * log1p(exp(c->margin)) + e * log1p(exp(-c->margin));
}

/* The first batch of a run that starts at the reference: wrong masks, wrong pairs or a
 * wrong reference show here. */
static void check_first(const cm_dpo *p) {
    double got = (p->sum.loss - p->sum.nll) / p->sum.n, want = loss_at_reference(&p->how);
    bool right = fabs(got - want) <= 1e-4 * fmax(1, want);
    cm_err err;
    cm_log(right ? CM_LOG_INFO : CM_LOG_WARN,
           right ? "the first loss is %.7f; policy and reference agree (%.7f)"
                 : "the first loss is %.7f, where policy and reference agree it is %.7f: is "
                   "dpo.reference the model the policy starts from?", got, want);
    if (p->run && !cm_run_event(p->run, "first-loss", 1, &err, "%.9f, %.9f where policy and "
                                "reference agree%s", got, want, right ? "" : ": WRONG"))
        cm_log(CM_LOG_WARN, "%s", err.msg);
}

/* ---- alarms ------------------------------------------------------------------------- */

/* Tell an alarm that is not out yet; under dpo.stop it ends the run. */
static void sound(cm_dpo *p, int which, const char *kind, bool bad, int64_t step, bool *stop,
                  cm_err *err, const char *text) {
    if (cm_told(&p->told[which], bad, CM_CALM)) {
        cm_err other;
        cm_log(CM_LOG_WARN, "%s", text);
        if (p->run && !cm_run_event(p->run, kind, (uint64_t)step, &other, "%s", text))
            cm_log(CM_LOG_WARN, "%s", other.msg);
    }
    if (!bad || !stop || !p->conf->dpo.stop) return;
    *stop = true;
    cm_fail(err, CM_EXIT_CHECK, "step %lld: %s (dpo.stop)", (long long)step, text);
}

static void judge(cm_dpo *p, const cm_prefer_sums *s, int64_t step, bool *stop, cm_err *err) {
    const cm_dpo_conf *c = &p->conf->dpo;
    char text[400];
    double drift = s->drift[0] / s->tokens[0], margin = s->m / s->n, r = correlation(s);
    if (p->refs) {
        snprintf(text, sizeof text,
                 "likelihood displacement: the chosen answers are %.3g nats per token less "
                 "likely than under the reference (dpo.displacement = %g) while the margin "
                 "is %+.3g: what is learned is to avoid the rejected answers; lower optim.lr, "
                 "or set dpo.nll or dpo.dpop", -drift, c->displacement, margin);
        sound(p, 0, "displacement",
              c->displacement > 0 && margin > 0 && drift < -c->displacement, step, stop, err,
              text);
    }
    snprintf(text, sizeof text,
             "length bias: the margins follow the difference in length (correlation %+.2f, "
             "dpo.length_bias = %g) and the longer answer wins %.0f %% of the pairs: what is "
             "learned is to write %s; set dpo.length_norm or balance the data", r,
             c->length_bias, 100 * s->longer / fmax(1, s->uneven),
             r > 0 ? "more" : "less");
    sound(p, 1, "length-bias",
          c->length_bias > 0 && s->uneven >= FEW && fabs(r) > c->length_bias, step, stop, err,
          text);
}

void cm_dpo_watch(cm_dpo *p, int64_t step, bool *stop, cm_err *err) {
    if (!p->sum.n) return;
    if (p->run && !p->told_known) cm_told_load(p->run, "dpo", step, p->told, 2);
    p->told_known = true;
    judge(p, &p->sum, step, stop, err);
    if (p->run) cm_told_save(p->run, "dpo", step, p->told, 2);
}

/* Without a validation the batches themselves are judged, a few at a time. */
static void judge_batches(cm_dpo *p) {
    cm_err err;
    if (p->since.n < 4 * FEW) return;
    judge(p, &p->since, p->run ? (int64_t)p->run->step : 0, NULL, &err);
    p->since = (cm_prefer_sums){ 0 };
}

static void metrics(void *self, bool val, cm_buf *b) {
    cm_dpo *p = self;
    const cm_prefer_sums *s = &p->sum;
    if (!val && p->row == 0 && p->refs && p->from_reference) check_first(p);
    if (!s->n) return;
    number(b, val, "dpo/loss", s->loss / s->n);
    number(b, val, "rewards/chosen", s->reward[0] / s->n);
    number(b, val, "rewards/rejected", s->reward[1] / s->n);
    number(b, val, "rewards/margins", s->m / s->n);
    number(b, val, "rewards/accuracies", s->won / s->n);
    number(b, val, "logps/chosen", s->logp[0] / s->n);
    number(b, val, "logps/rejected", s->logp[1] / s->n);
    if (p->refs) {
        number(b, val, "dpo/chosen_drift", s->drift[0] / s->tokens[0]);
        number(b, val, "dpo/rejected_drift", s->drift[1] / s->tokens[1]);
    }
    number(b, val, "dpo/length_corr", correlation(s));
    if (s->uneven) number(b, val, "dpo/longer_wins", s->longer / s->uneven);
    if (!val) cm_json_i64(b, "dpo/pairs", (int64_t)s->n);
    if (!val) judge_batches(p);
}

cm_objective cm_dpo_objective(cm_dpo *p) {
    return (cm_objective){ .self = p, .loss = train_loss, .count = count,
                           .val_loss = val_loss, .begin = begin, .metrics = metrics };
}

/* ---- opening ------------------------------------------------------------------------ */

bool cm_dpo_check(const cm_conf *c, cm_err *err) {
    const cm_dpo_conf *d = &c->dpo;
    bool ipo = d->loss == CM_PREFER_IPO;
    const char *key = ipo && d->label_smoothing > 0 ? "dpo.label_smoothing"
                      : ipo && d->margin > 0        ? "dpo.margin"
                      : ipo && d->dpop > 0          ? "dpo.dpop"
                                                    : NULL;
    if (key) return cm_conf_bad(c, err, key, "dpo.loss = ipo has no such term");
    key = *d->reference ? "dpo.reference" : d->dpop > 0 ? "dpo.dpop" : NULL;
    return !d->reference_free || !key ||
           cm_conf_bad(c, err, key, "dpo.reference_free leaves no reference to compare with");
}

cm_prefer_conf cm_dpo_how(const cm_conf *c) {
    const cm_dpo_conf *d = &c->dpo;
    return (cm_prefer_conf){
        .loss = d->loss, .beta = d->beta, .label_smoothing = d->label_smoothing,
        .margin = d->margin, .nll = d->nll, .dpop = d->dpop, .length_norm = d->length_norm,
        .reference_free = d->reference_free };
}

/* What is wrong with pairs, and where first. */
typedef struct {
    int64_t equal, first_equal, apart, first_apart;
} faults;

static int64_t prompt_end(const uint8_t *mask, int64_t n) {
    int64_t i = 0;
    while (i < n && mask[i] == CM_MASK_NONE) i++;
    return i;
}

/* id and mask have room for a pair. */
static bool check_pair(const cm_pack *p, int64_t u, int32_t *id, uint8_t *mask, faults *f,
                       cm_err *err) {
    int64_t at[2], n[2], bytes;
    for (int k = 0; k < 2; k++)
        if (!cm_dataset_doc(p->data, p->split, 2 * u + k, &at[k], &n[k], &bytes, err))
            return false;
    if (!cm_dataset_read(p->data, p->split, at[0], n[0] + n[1], id, NULL, err) ||
        !cm_dataset_masks(p->data, p->split, at[0], n[0] + n[1], mask, err))
        return false;
    const int32_t *other = id + n[0];
    int64_t prompt = prompt_end(mask, n[0]);
    if (n[0] == n[1] && !memcmp(id, other, sizeof *id * (size_t)n[0])) {
        if (!f->equal++) f->first_equal = u;
    } else if (prompt != prompt_end(mask + n[0], n[1]) ||
               memcmp(id, other, sizeof *id * (size_t)prompt)) {
        if (!f->apart++) f->first_apart = u;
    }
    return true;
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static bool report(const cm_pack *p, const faults *f, cm_err *err) {
    if (!f->equal && !f->apart) return true;
    char *at = cm_pack_place(p, f->equal ? f->first_equal : f->first_apart);
    if (f->equal)
        cm_fail(err, CM_EXIT_DATA,
                "%s: %s: its chosen and its rejected answer are the same tokens, and so in "
                "%lld pairs in all: there is nothing to prefer; leave them out", p->data->dir,
                at, (long long)f->equal);
    else
        cm_fail(err, CM_EXIT_DATA,
                "%s: %s: its two answers follow different prompts, and so in %lld pairs in "
                "all", p->data->dir, at, (long long)f->apart);
    free(at);
    return false;
}

static bool check_pairs(const cm_pack *p, cm_err *err) {
    size_t room = (size_t)p->T + 2, n = (size_t)p->units;
    int32_t *id = malloc(room * sizeof *id);
    uint8_t *mask = malloc(room);
    int64_t *unit = malloc((n + 1) * sizeof *unit);
    CM_ASSERT(id && mask && unit, "out of memory for a pair");
    faults f = { 0 };
    bool ok = true;
    memcpy(unit, p->order, n * sizeof *unit);
    qsort(unit, n, sizeof *unit, by_number);
    for (size_t i = 0; ok && i < n; i++) ok = check_pair(p, unit[i], id, mask, &f, err);
    free(id);
    free(mask);
    free(unit);
    return ok && report(p, &f, err);
}

bool cm_dpo_open(cm_dpo *p, const cm_conf *c, const cm_pack *const *pack,
                 const cm_refs *refs, cm_err *err) {
    if (c->dpo.stop && !pack[CM_SPLIT_VAL]->rows)
        cm_log(CM_LOG_WARN, "no validation split, or all of it left out: dpo.stop has no "
                            "effect, alarms are only told");
    *p = (cm_dpo){ .conf = c, .how = cm_dpo_how(c), .pack = { pack[0], pack[1] },
                   .refs = refs, .row = -1 };
    int64_t rows = c->data.batch_tokens / c->data.seq_len, most = 1;
    for (int s = 0; s < 2; s++) {
        if (!check_pairs(pack[s], err)) return false;
        if (cm_pack_most(pack[s], rows) > most) most = cm_pack_most(pack[s], rows);
    }
    p->pair = malloc((size_t)most * sizeof *p->pair);
    p->unit = malloc((size_t)most * sizeof *p->unit);
    CM_ASSERT(p->pair && p->unit, "out of memory for the pairs of a batch");
    return true;
}

void cm_dpo_close(cm_dpo *p) {
    free(p->pair);
    free(p->unit);
    *p = (cm_dpo){ 0 };
}
