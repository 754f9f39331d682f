/* exchange.c -- which turns of a conversation fit, and their tokens into a shard.
 *
 * What is too long loses whole exchanges (a user's turn and its answer) or the line is
 * refused: a cut answer would teach a model to stop in mid-sentence.  A conversation loses
 * its last exchanges, since nothing before depends on them; a prompt its first ones, since
 * the answers belong to its end. */
#include "text/corpus_int.h"

#include <inttypes.h>
#include <stdlib.h>

static int64_t span_tokens(const cm_span *s) { return s->control >= 0 ? 1 : s->n_id; }

static bool kept(const cm_exchange *x, const cm_span *s) {
    return s->role == CM_ROLE_SYSTEM || (s->turn >= x->from && s->turn < x->to) ||
           (x->pair && s->turn >= x->turns - 2);
}

/* Tokens of what is kept; of a pair with its longer answer. */
static int64_t tokens(const cm_exchange *x) {
    int64_t n = x->bos >= 0, side[2] = { 0, 0 };
    for (int i = 0; i < x->n; i++) {
        const cm_span *s = &x->s[i];
        if (!kept(x, s)) continue;
        if (x->pair && s->turn >= x->turns - 2) side[s->turn - (x->turns - 2)] += span_tokens(s);
        else n += span_tokens(s);
    }
    return n + (side[0] > side[1] ? side[0] : side[1]);
}

/* Leave one exchange out; false when only one is left. */
static bool shrink(cm_exchange *x) {
    if (x->to - x->from < (x->pair ? 3 : 4)) return false;
    if (x->pair) x->from += 2;
    else x->to -= 2;
    return true;
}

/* Back out of the account, which counted it as kept when it was read. */
static void uncount(cm_tally *t, const cm_span *s) {
    t->docs[s->split]--;
    t->bytes[s->split] -= s->from.bytes;
}

bool cm_exchange_fit(cm_exchange *x, cm_corpus_job *j, const cm_span *s, int n,
                     cm_err *err) {
    int64_t most = j->conf->t->max_tokens;
    bool cut = j->conf->t->overlong == CM_OVERLONG_TRUNCATE, system = s->role == CM_ROLE_SYSTEM;
    *x = (cm_exchange){ .s = s, .n = n, .bos = j->chat.bos, .fits = true,
                        .turns = s[n - 1].turn + 1, .from = system,
                        .pair = j->shard.kind == CM_SHARD_DPO };
    x->to = x->turns - (x->pair ? 2 : 0);
    int64_t all = tokens(x), now = all, had = x->to - x->from;
    int source = (int)s->from.source;
    char why[160];
    if (!most || all <= most) return true;
    while (cut && now > most && shrink(x)) now = tokens(x);
    x->fits = now <= most;
    if (x->fits) {
        snprintf(why, sizeof why, "%" PRId64 " tokens; %" PRId64 " kept, %" PRId64
                 " turn(s) left out (tokenize.max_tokens)", all, now,
                 had - (x->to - x->from));
        return cm_docs_truncated(&j->docs, source, s->from.line, why, err);
    }
    snprintf(why, sizeof why, "%" PRId64 " tokens, more than tokenize.max_tokens%s", all,
             cut ? " even with one exchange" : "");
    uncount(&j->docs.tally[source], s);
    return cm_docs_reject(&j->docs, source, s->from.line, CM_REJECT_TOO_LONG, why, err);
}

void cm_exchange_write(const cm_exchange *x, cm_shard_out *out, int k) {
    if (x->bos >= 0) cm_shard_out_add_masked(out, &x->bos, 1, CM_MASK_NONE, NULL);
    int last = x->n - 1; /* the kept document's last span */
    int skip = x->pair ? x->turns - 1 - k : -1;
    while (!kept(x, &x->s[last]) || x->s[last].turn == skip) last--;
    cm_doc_origin from = x->s[last].from;
    from.bytes = 0; /* was of all turns: a pair's other answer and what was cut, too */
    for (int i = 0; i <= last; i++) {
        const cm_span *s = &x->s[i];
        if (!kept(x, s) || s->turn == skip) continue;
        const int32_t *id = s->control >= 0 ? &s->control : s->id;
        if (s->control < 0) from.bytes += s->n;
        cm_shard_out_add_masked(out, id, span_tokens(s), (int)s->mask,
                                i == last ? &from : NULL);
    }
}
