/* speculate.c -- continue a text token by token, with guesses that the model checks.
 *
 * A round: guesses y_1..y_g of the tokens to come, y_i drawn from q_i; one pass of the model
 * over the last token and the guesses gives p_1..p_(g+1), both after all filters.  y_i is
 * accepted with probability min(1, p_i(y_i) / q_i(y_i)); at the first that is not, the token
 * is drawn from max(0, p_i - q_i), normalised, and the round ends; behind the last accepted
 * one a further token is drawn from p_(g+1).  So each token has distribution p (Leviathan
 * et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318).  An n-gram's guess has q = 1.
 *
 * Tokens of a round are handed out one by one and chosen only then; what the caller did not
 * take was never read.  How many are guessed depends on what was accepted before, never on
 * the clock: the same seed gives the same text. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* TIMED: single steps of each text before the first guess.  BEHIND: unread tokens that a
 * draft model reads on trial with its guesses; more are read before.  FIRST: guesses of the
 * first round. */
enum { TIMED = 2, BEHIND = 4, FIRST = 4 };

typedef struct cm_guesser {
    cm_session draft;      /* of the draft model, if any */
    int64_t fed;           /* tokens of the text in it */
    int32_t *tried;        /* [BEHIND+most] what it has on trial */
    cm_real *logits;       /* [BEHIND,V] */
    int32_t *recent;       /* the text's end, then the guesses */
    int64_t cap_recent;
    int length;            /* tokens to guess next time */
    int steps;             /* single steps of this text */
    /* The round under way; g 0: none. */
    int g, at;             /* guesses; tokens handed out */
    int64_t from;          /* length of the text before it */
    bool over;             /* no more tokens in it */
    int32_t *token;        /* [most+1] the text's last token, the guesses */
    int32_t given;         /* token handed out last */
    double *q;             /* [most,V]; NULL: q is 1 for the guess */
    bool certain;          /* q is 1 for the guesses of this round */
} cm_guesser;

double cm_guess_rate(const cm_guess_count *c) {
    return c->tested ? (double)c->accepted / (double)c->tested : 0;
}

double cm_guess_speedup(const cm_guess_count *c) {
    if (!c->rounds || !c->guessed || !(c->step_s > 0)) return 0;
    double a = cm_guess_rate(c), rounds = (double)c->rounds, g = (double)c->guessed / rounds;
    double tokens = a < 1 ? (1 - pow(a, g + 1)) / (1 - a) : g + 1;
    double round_s = (c->draft_s + c->check_s) / rounds, step_s = c->step_s / (double)c->steps;
    return tokens * step_s / round_s;
}

/* What was counted after `then`. */
cm_guess_count cm_guess_since(const cm_guess_count *now, const cm_guess_count *then) {
    cm_guess_count c = *now;
    c.rounds -= then->rounds, c.guessed -= then->guessed;
    c.tested -= then->tested, c.accepted -= then->accepted;
    c.written -= then->written, c.steps -= then->steps;
    c.draft_s -= then->draft_s, c.check_s -= then->check_s, c.step_s -= then->step_s;
    return c;
}

/* Processor seconds of this thread: shares of time that other programs do not change. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *room(size_t n, size_t size) {
    void *p = malloc((n ? n : 1) * size);
    CM_ASSERT(p, "out of memory: %zu bytes for decoding", n * size);
    return p;
}

static bool open_guesser(cm_decoder *d, int cap, cm_err *err) {
    size_t V = (size_t)d->s.m->conf.vocab_size, most = (size_t)d->how.most;
    cm_guesser *k = d->guess = room(1, sizeof *k);
    *k = (cm_guesser){ .length = d->how.most < FIRST ? d->how.most : FIRST };
    k->token = room(most + 1, sizeof *k->token);
    if (!cm_session_allow_trial(&d->s, d->how.most + 1, err)) return false;
    if (!d->how.draft) return true;
    k->tried = room(BEHIND + most, sizeof *k->tried);
    k->logits = room(BEHIND * V, sizeof *k->logits);
    k->q = room(most * V, sizeof *k->q);
    cm_err why;
    if (!cm_session_open_as(&k->draft, d->how.draft, cap, d->s.st.kv, &why))
        return cm_fail(err, why.code, "the draft model: %s", why.msg);
    return cm_session_allow_trial(&k->draft, BEHIND + d->how.most, err);
}

bool cm_decoder_open(cm_decoder *d, const cm_model *m, const cm_guessing *how, int cap,
                     cm_dtype kv, cm_err *err) {
    size_t V = (size_t)m->conf.vocab_size;
    *d = (cm_decoder){ .how = how ? *how : (cm_guessing){ 0 } };
    if (!d->how.draft && !d->how.ngram) d->how.most = 0;
    CM_ASSERT(!d->how.draft || d->how.draft->conf.vocab_size == m->conf.vocab_size,
              "a draft of another vocabulary");
    d->logits = room(((size_t)d->how.most + 1) * V, sizeof *d->logits);
    d->work = room(V, sizeof *d->work);
    if (!cm_session_open_as(&d->s, m, cap, kv, err)) return false;
    return !d->how.most || open_guesser(d, cap, err);
}

void cm_decoder_close(cm_decoder *d) {
    cm_guesser *k = d->guess;
    if (d->s.m) cm_session_close(&d->s);
    if (k && k->draft.m) cm_session_close(&k->draft);
    if (k) free(k->tried), free(k->logits), free(k->recent), free(k->token), free(k->q);
    free(k);
    free(d->logits);
    free(d->work);
    *d = (cm_decoder){ 0 };
}

void cm_decoder_reset(cm_decoder *d) {
    cm_session_reset(&d->s);
    d->fed = 0;
    d->ready = false;
    if (!d->guess) return;
    d->guess->fed = d->guess->g = d->guess->steps = 0;
    d->guess->length = d->how.most < FIRST ? d->how.most : FIRST;
    if (d->how.draft) cm_session_reset(&d->guess->draft);
}

/* End the round: of the tokens on trial the last one of the text and all that were handed
 * out but the last are read. */
static void settle(cm_decoder *d) {
    cm_guesser *k = d->guess;
    if (!k || !k->g) return;
    cm_session_keep(&d->s, k->at);
    d->fed += k->at;
    if (k->over && k->at == k->g + 1) k->length += 2;
    else if (k->over) k->length -= 1;
    if (k->length > d->how.most) k->length = d->how.most;
    if (k->length < 1) k->length = 1;
    k->g = 0;
}

bool cm_decoder_read(cm_decoder *d, const int32_t *text, int64_t n, cm_err *err) {
    settle(d);
    if (d->fed == n && d->ready) return true;
    CM_ASSERT(d->fed < n, "%lld tokens were read of %lld", (long long)d->fed, (long long)n);
    double t0 = now();
    int64_t unread = n - d->fed;
    d->ready = cm_session_feed(&d->s, text + d->fed, unread, NULL, d->logits, err);
    d->fed = d->s.st.held[0];
    if (!d->ready) return false;
    if (unread > 1) return true;
    if (d->guess) d->guess->steps++;
    d->count.steps++;
    d->count.step_s += now() - t0;
    return true;
}

static bool usable(const cm_real *logits, int64_t V, const char *whose, cm_err *err) {
    return cm_logits_finite(logits, V) ||
           cm_fail(err, CM_EXIT_DATA, "a logit that is no finite number; the %s's weights are "
                   "broken", whose);
}

/* ---- guesses ----------------------------------------------------------------------------- */

/* What followed the last place where the text's last `gram` tokens stood before. */
static int guess_ngram(const int32_t *text, int64_t n, int gram, int most, int32_t *out) {
    const int32_t *end = text + n - gram;
    for (int64_t i = n - gram - 1; i >= 0; i--) {
        if (text[i + gram - 1] != end[gram - 1]) continue;
        if (memcmp(text + i, end, (size_t)gram * sizeof *text)) continue;
        int g = 0;
        for (; g < most && i + gram + g < n; g++) out[g] = text[i + gram + g];
        return g;
    }
    return 0;
}

/* Of what the draft model has on trial, keep what the text says. */
static void settle_draft(cm_guesser *k, const int32_t *text, int64_t n) {
    int m = 0;
    while (m < k->draft.trial.n && k->fed + m < n - 1 && k->tried[m] == text[k->fed + m]) m++;
    cm_session_keep(&k->draft, m);
    k->fed += m;
}

/* Put tokens of the draft model on trial; logits after the last of them. */
static cm_real *try_draft(cm_guesser *k, const int32_t *token, int n, cm_err *err) {
    memcpy(k->tried + k->draft.trial.n, token, (size_t)n * sizeof *token);
    if (!cm_session_try(&k->draft, token, n, k->logits, err)) return NULL;
    cm_real *last = k->logits + (n - 1) * k->draft.m->conf.vocab_size;
    return usable(last, k->draft.m->conf.vocab_size, "draft model", err) ? last : NULL;
}

/* The last tokens of the text that a repeat penalty looks at, with room for guesses. */
static int64_t copy_recent(cm_decoder *d, const cm_sampling *how, const int32_t *text,
                           int64_t n) {
    cm_guesser *k = d->guess;
    int64_t keep = how->repeat_penalty == 1 ? 0 : how->repeat_last < n ? how->repeat_last : n;
    if (keep + d->how.most > k->cap_recent) {
        free(k->recent);
        k->cap_recent = keep + d->how.most;
        k->recent = room((size_t)k->cap_recent, sizeof *k->recent);
    }
    memcpy(k->recent, text + n - keep, (size_t)keep * sizeof *text);
    return keep;
}

static bool guess_draft(cm_decoder *d, const cm_sampling *how, const int32_t *text, int64_t n,
                        int most, uint64_t draw, int32_t *out, cm_err *err) {
    cm_guesser *k = d->guess;
    int V = (int)d->s.m->conf.vocab_size;
    settle_draft(k, text, n);
    if (n - k->fed > BEHIND) {
        bool ok = cm_session_feed(&k->draft, text + k->fed, n - 1 - k->fed, NULL, NULL, err);
        k->fed = k->draft.st.held[0];
        if (!ok) return false;
    }
    int64_t seen = copy_recent(d, how, text, n);
    const int32_t *token = text + k->fed;
    int unread = (int)(n - k->fed);
    for (int i = 0; i < most; i++, token = &out[i - 1], unread = 1) {
        cm_real *logits = try_draft(k, token, unread, err);
        if (!logits) return false;
        int c = cm_sample_candidates(how, logits, V, k->recent, (int)seen, d->work);
        double *q = k->q + (int64_t)i * V;
        memset(q, 0, (size_t)V * sizeof *q);
        for (int j = 0; j < c; j++) q[d->work[j].id] = d->work[j].p;
        out[i] = cm_candidates_pick(d->work, c,
                                    cm_sample_uniform(how, CM_DRAW_GUESS, draw + (uint64_t)i));
        k->recent[seen++] = out[i];
    }
    return true;
}

/* ---- rounds ------------------------------------------------------------------------------ */

/* Guess and check; false with no message: no guesses, a single step will do. */
static bool begin_round(cm_decoder *d, const cm_sampling *how, const int32_t *text, int64_t n,
                        int64_t most, uint64_t draw, cm_err *err) {
    cm_guesser *k = d->guess;
    int64_t room_left = d->s.cap - n, g = k->length;
    if (g > most - 1) g = most - 1;
    if (g > room_left) g = room_left;
    if (g < 1) return false;
    double t0 = now();
    k->token[0] = text[n - 1];
    k->certain = d->how.ngram > 0 && n > d->how.ngram;
    if (k->certain) {
        int found = guess_ngram(text, n, d->how.ngram, (int)g, k->token + 1);
        k->certain = found > 0;
        if (found) g = found;
    }
    if (!k->certain) {
        if (!d->how.draft) return false;
        if (!guess_draft(d, how, text, n, (int)g, draw, k->token + 1, err)) return false;
    }
    double t1 = now();
    if (!cm_session_try(&d->s, k->token, (int)g + 1, d->logits, err)) return false;
    d->count.draft_s += t1 - t0;
    d->count.check_s += now() - t1;
    d->count.rounds++;
    d->count.guessed += g;
    k->g = (int)g;
    k->at = 0;
    k->from = n;
    k->over = false;
    d->ready = false;
    return true;
}

/* The round's next token, drawn with the text up to it. */
static bool hand_out(cm_decoder *d, const cm_sampling *how, const int32_t *text, int64_t n,
                     uint64_t draw, int32_t *id, cm_err *err) {
    cm_guesser *k = d->guess;
    int V = (int)d->s.m->conf.vocab_size, i = k->at;
    cm_real *logits = d->logits + (int64_t)i * V;
    if (!usable(logits, V, "model", err)) return false;
    int c = cm_sample_candidates(how, logits, V, text, (int)n, d->work);
    if (i == k->g) {
        *id = cm_candidates_pick(d->work, c, cm_sample_uniform(how, CM_DRAW_TOKEN, draw));
    } else {
        int32_t y = k->token[i + 1];
        const double *q = k->certain ? NULL : k->q + (int64_t)i * V;
        double p = 0;
        for (int j = 0; j < c; j++)
            if (d->work[j].id == y) p = d->work[j].p;
        bool accepted = cm_guess_accepted(p, q ? q[y] : 1,
                                          cm_sample_uniform(how, CM_DRAW_ACCEPT, draw));
        d->count.tested++;
        d->count.accepted += accepted;
        if (!accepted) c = cm_candidates_rest(d->work, c, q, y);
        *id = accepted ? y : cm_candidates_pick(d->work, c,
                                                cm_sample_uniform(how, CM_DRAW_REST, draw));
        k->over = !accepted;
    }
    k->over = k->over || i == k->g;
    k->at++;
    k->given = *id;
    d->count.written++;
    return true;
}

bool cm_decoder_next(cm_decoder *d, const cm_sampling *how, const int32_t *text, int64_t n,
                     int64_t most, uint64_t draw, int32_t *id, cm_err *err) {
    cm_guesser *k = d->guess;
    int V = (int)d->s.m->conf.vocab_size;
    if (k && k->g && !k->over && n == k->from + k->at && text[n - 1] == k->given)
        return hand_out(d, how, text, n, draw, id, err);
    settle(d);
    err->msg[0] = 0;
    if (k && n - d->fed == 1 && k->steps >= TIMED &&
        begin_round(d, how, text, n, most, draw, err))
        return hand_out(d, how, text, n, draw, id, err);
    if (err->msg[0]) return false;
    if (!cm_decoder_read(d, text, n, err) || !usable(d->logits, V, "model", err)) return false;
    *id = cm_sample_token(how, d->logits, V, text, (int)n, draw, d->work);
    return true;
}
