/* check.c -- read a story back: is every sentence in the grammar, and is it true?
 *
 * Each position is matched against every pattern of every event.  Where the text reads in
 * more than one way, a reading that is true in the state so far wins over one that is
 * not, then the longer one.  The first untrue sentence ends the replay of the state; the
 * rest is still parsed. */
#include "data/world/world.h"

#include <string.h>

typedef struct reading {
    const char *text;
    size_t n;
    cm_facts state;        /* before the sentence */
    const cm_event *e;     /* being tried */
    const char *why;       /* of the longest parse that is not true */
    const cm_event *why_e;
    size_t parsed, truly;  /* ends of the longest parse, of the longest true one */
    cm_facts after;        /* the state after the true one */
} reading;

static bool visit(void *ctx, const cm_bind *found, size_t end) {
    reading *r = ctx;
    if (end < r->n && r->text[end] != ' ') return false;
    if ((r->e->edge == CM_LAST) != (end == r->n) && r->e->edge == CM_LAST) return false;
    cm_bind b = *found;
    for (int i = 0; i < 64; i++)
        if (b.v[i] == CM_MANY) b.v[i] = CM_UNBOUND;
    const char *why = "pronoun";
    if (cm_resolve(&r->state, &b)) why = cm_needs(r->e->needs, &r->state, &b, CM_ANY);
    if (end > r->parsed) r->parsed = end, r->why = why, r->why_e = r->e;
    if (why || end <= r->truly) return false;
    r->truly = end;
    r->after = r->state;
    cm_makes(r->e->makes, &r->after, &b);
    cm_mention(&r->after, r->e, &b);
    return false;
}

/* Read the sentence at pos into r; true when some pattern ran out of text. */
static bool read_sentence(reading *r, size_t pos) {
    bool ran_out = false;
    r->parsed = r->truly = 0;
    for (int i = 0; i < cm_n_events; i++) {
        r->e = &cm_events[i];
        if ((r->e->edge == CM_FIRST) != (pos == 0)) continue;
        for (const char *const *p = r->e->told; *p; p++)
            ran_out |= cm_match(*p, r->text, r->n, pos, visit, r);
    }
    return ran_out;
}

static bool ends_story(const char *text, size_t n, size_t pos) {
    reading r = {.text = text, .n = n};
    cm_facts_clear(&r.state);
    for (int i = 0; i < cm_n_events; i++) {
        r.e = &cm_events[i];
        if (r.e->edge != CM_LAST) continue;
        for (const char *const *p = r.e->told; *p; p++) cm_match(*p, text, n, pos, visit, &r);
    }
    return r.parsed == n;
}

void cm_story_check(const char *text, size_t n, bool complete, cm_verdict *v) {
    *v = (cm_verdict){.parses = n > 0, .consistent = n > 0};
    reading r = {.text = text, .n = n};
    cm_facts_clear(&r.state);
    size_t pos = 0, last = 0;
    while (pos < n) {
        bool ran_out = read_sentence(&r, pos);
        size_t end = r.truly && v->consistent ? r.truly : r.parsed;
        if (!end) {
            v->cut = ran_out;
            v->parses = ran_out && !complete && v->sentences > 0;
            v->consistent &= v->parses;
            v->at = pos;
            snprintf(v->why, sizeof v->why, ran_out ? "the text stops inside a sentence"
                                                    : "no sentence of the grammar");
            return;
        }
        if (v->consistent && !r.truly) {
            v->consistent = false;
            v->at = pos;
            snprintf(v->why, sizeof v->why, "%s: does not hold: %.*s", r.why_e->name,
                     (int)strcspn(r.why, ","), r.why);
        }
        r.state = r.after;
        v->sentences++;
        last = pos;
        pos = end + (end < n);
    }
    if (complete && n && !ends_story(text, n, last)) {
        v->parses = v->consistent = false;
        v->at = last;
        snprintf(v->why, sizeof v->why, "the last sentence is not an ending");
    }
}
