/* trie.c -- requests sorted into a prefix tree, and its cut into windows and paths. */
#include "harness/trie.h"

#include <stdlib.h>

static int common(const cm__text *a, const cm__text *b, int from) {
    int n = a->reads < b->reads ? a->reads : b->reads;
    while (from < n && a->token[from] == b->token[from]) from++;
    return from;
}

static int by_tokens(const void *x, const void *y) {
    const cm__text *a = x, *b = y;
    int k = common(a, b, 0);
    if (k < a->reads && k < b->reads) return a->token[k] < b->token[k] ? -1 : 1;
    if (a->reads != b->reads) return a->reads < b->reads ? -1 : 1;
    return a->request < b->request ? -1 : 1;
}

bool cm__trie_build(cm__trie *t, const cm_request *r, int64_t n, bool alone, cm_err *err) {
    size_t room = n ? (size_t)n : 1;
    *t = (cm__trie){ .text = malloc(room * sizeof *t->text),
                     .shared = malloc(room * sizeof *t->shared) };
    if (!t->text || !t->shared) {
        cm__trie_free(t);
        return cm_fail(err, CM_EXIT_RESOURCE, "out of memory for %lld requests",
                       (long long)n);
    }
    for (int64_t i = 0; i < n; i++) {
        CM_ASSERT(r[i].first >= 1, "request %lld: a text's first token cannot be scored",
                  (long long)i);
        if (r[i].first < r[i].n)
            t->text[t->n++] = (cm__text){ r[i].token, r[i].n - 1, i };
    }
    if (!alone) qsort(t->text, (size_t)t->n, sizeof *t->text, by_tokens);
    for (int64_t i = 0; i < t->n; i++)
        t->shared[i] = i && !alone ? common(&t->text[i - 1], &t->text[i], 0) : 0;
    return true;
}

void cm__trie_free(cm__trie *t) {
    free(t->text);
    free(t->shared);
    *t = (cm__trie){ 0 };
}

int cm__trie_span(const cm__trie *t, const cm__point *p, int Q, int cap) {
    const cm__text *last = &t->text[p->hi - 1];
    int begin = p->past ? p->past->tokens : 0;
    int same = common(&t->text[p->lo], last, begin) - begin;
    int span = same / Q * Q;
    if (begin + same == last->reads && same % Q) span += Q; /* all of them end here */
    if (span < Q) span = Q;
    return span < cap ? span : cap;
}

static int at_most(int a, int b) { return a < b ? a : b; }

cm__step cm__trie_step(const cm__trie *t, const cm__point *p, int64_t i, int end) {
    int begin = p->past ? p->past->tokens : 0;
    cm__step s = { .next = i + 1 };
    s.len = at_most(t->text[i].reads, end) - begin;
    s.shared = i == p->lo ? 0 : at_most(t->shared[i], end) - begin;
    if (begin + s.len < end) return s;
    while (s.next < p->hi && t->shared[s.next] >= end) s.next++;
    s.hi = s.next;
    for (s.lo = i; s.lo < s.hi && t->text[s.lo].reads <= end;) s.lo++;
    return s;
}
