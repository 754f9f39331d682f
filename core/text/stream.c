/* stream.c -- bytes of generated tokens to text on its way out.
 *
 * Two things must not reach the reader: half a UTF-8 character, and the beginning of a
 * stop string that may be completed by the next token.  Both wait in `held`. */
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

void cm_stream_open(cm_stream *s, const char *const *stop, int n_stop) {
    *s = (cm_stream){ .stop = stop, .n_stop = n_stop };
}

void cm_stream_close(cm_stream *s) {
    cm_buf_free(&s->held);
    cm_buf_free(&s->ready);
}

/* Length of the longest tail of b that begins some stop string. */
static size_t stop_tail(const cm_stream *s) {
    size_t best = 0;
    for (int i = 0; i < s->n_stop; i++) {
        size_t n = strlen(s->stop[i]), most = n - 1 < s->held.n ? n - 1 : s->held.n;
        for (size_t k = most; k > best; k--)
            if (!memcmp(s->held.s + s->held.n - k, s->stop[i], k)) best = k;
    }
    return best;
}

/* Length of an incomplete UTF-8 sequence at the end of b. */
static size_t broken_tail(const cm_buf *b) {
    for (size_t k = 1; k <= 3 && k <= b->n; k++) {
        unsigned char c = (unsigned char)b->s[b->n - k];
        if ((c & 0xC0) == 0x80) continue;
        size_t want = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
        return want > k ? k : 0;
    }
    return 0;
}

static void release(cm_stream *s, size_t n) {
    if (!n) return;
    cm_buf_add(&s->ready, s->held.s, n);
    s->held.n -= n;
    memmove(s->held.s, s->held.s + n, s->held.n);
}

bool cm_stream_push(cm_stream *s, const char *bytes, size_t n) {
    s->ready.n = 0;
    cm_buf_add(&s->ready, "", 0);
    cm_buf_add(&s->held, bytes, n);
    char *first = NULL;
    for (int i = 0; i < s->n_stop; i++) {
        char *hit = memmem(s->held.s, s->held.n, s->stop[i], strlen(s->stop[i]));
        if (hit && (!first || hit < first)) first = hit;
    }
    if (first) {
        release(s, (size_t)(first - s->held.s));
        s->held.n = 0;
        return true;
    }
    size_t stop = stop_tail(s), broken = broken_tail(&s->held);
    release(s, s->held.n - (stop > broken ? stop : broken));
    return false;
}

void cm_stream_finish(cm_stream *s) {
    s->ready.n = 0;
    release(s, s->held.n);
}
