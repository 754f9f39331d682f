/* encode.c -- documents to shards, in parallel and in order.
 *
 * Three batches rotate: while the team encodes one, a single thread writes the previous
 * and reads the next.  Long documents are cut into spans at places that do not change
 * their tokens, so one book keeps every thread busy.  The output is a function of the
 * documents' order alone. */
#include "text/corpus_int.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
    BATCH_BYTES = 4 << 20, /* text read ahead; a longer document makes a longer batch */
    BATCH_DOCS = 1 << 14,
    SPAN_BYTES = 1 << 15
};

typedef cm_span span;

typedef struct batch {
    cm_buf text;
    span *s;
    int n, cap;
    int docs;
} batch;

typedef struct encoder {
    cm_corpus_job *j;
    batch b[3];
    cm_shard_out *out[2];
    uint64_t skipped[2]; /* documents of the finished shard now being passed over */
    int passing[2];      /* that shard's index */
    cm_sha *sha[2];      /* over their hashes */
    int64_t tokens, docs, bytes;
    bool end;
} encoder;

/* ---- passing over finished shards ---- */

/* True when the document lies in a shard that an earlier run finished. */
static bool pass_over(encoder *e, cm_split sp, const cm_doc_origin *from, bool *skip,
                      cm_err *err) {
    *skip = e->passing[sp] < e->j->n_done[sp];
    if (!*skip) return true;
    const cm_shard_info *info = &e->j->info[sp][e->passing[sp]];
    if (!e->sha[sp]) e->sha[sp] = cm_sha_open();
    cm_sha_add(e->sha[sp], from->hash, sizeof from->hash);
    if (++e->skipped[sp] < (uint64_t)info->n_docs) return true;
    char hex[65];
    cm_sha_close(e->sha[sp], hex);
    e->sha[sp] = NULL;
    e->skipped[sp] = 0;
    e->passing[sp]++;
    if (!strcmp(hex, info->docs_id)) return true;
    return cm_fail(err, CM_EXIT_DATA, "%s/%s: made of other documents than the inputs now "
                   "hold; they changed since the interrupted run. --if-done=redo "
                   "starts anew", e->j->conf->t->out, info->file);
}

/* ---- the three steps of a batch ---- */

static span *new_span(batch *b) {
    if (b->n == b->cap) {
        int cap = b->cap ? 2 * b->cap : 256;
        b->s = realloc(b->s, (size_t)cap * sizeof *b->s);
        CM_ASSERT(b->s, "out of memory");
        memset(b->s + b->cap, 0, (size_t)(cap - b->cap) * sizeof *b->s);
        b->cap = cap;
    }
    return &b->s[b->n++];
}

/* A text as spans; those of a conversation know their turn and mask. */
static void add_text(encoder *e, batch *b, const cm_doc *d, const char *text, size_t left,
                     int turn, cm_mask mask) {
    size_t at = b->text.n;
    cm_buf_add(&b->text, text, left);
    while (left) {
        size_t n = cm_spm_cut(e->j->spm, b->text.s + at, left, SPAN_BYTES);
        span *s = new_span(b);
        s->at = at;
        s->n = n;
        s->n_id = 0;
        s->last = n == left;
        s->split = d->split;
        s->from = d->from;
        s->control = -1;
        s->turn = turn;
        s->mask = mask;
        at += n;
        left -= n;
    }
}

static void add_talk(encoder *e, batch *b, const cm_doc *d) {
    const cm_talk *t = d->talk;
    bool pair = e->j->shard.kind == CM_SHARD_DPO;
    int from = b->n;
    for (int i = 0; i < t->n; i++) {
        cm_chat_part part[CM_CHAT_PARTS];
        int n = cm_chat_parts(&e->j->chat, &t->turn[i], !pair || i >= t->n - 2, part);
        for (int k = 0; k < n; k++) {
            if (part[k].control < 0) {
                add_text(e, b, d, part[k].s, part[k].n, i, part[k].mask);
                continue;
            }
            span *s = new_span(b);
            s->n = 0;
            s->split = d->split;
            s->from = d->from;
            s->control = part[k].control;
            s->turn = i;
            s->mask = part[k].mask;
        }
    }
    for (int i = from; i < b->n; i++) {
        b->s[i].last = i == b->n - 1;
        b->s[i].role = t->turn[b->s[i].turn].role;
    }
}

static void add_doc(encoder *e, batch *b, const cm_doc *d) {
    if (d->talk) add_talk(e, b, d);
    else add_text(e, b, d, d->s, d->n, 0, CM_MASK_NONE);
    b->docs++;
}

static bool read_batch(encoder *e, batch *b, cm_err *err) {
    b->n = b->docs = 0;
    b->text.n = 0;
    while (!e->end && b->text.n < BATCH_BYTES && b->docs < BATCH_DOCS) {
        cm_doc d;
        bool skip = false;
        if (!cm_docs_next(&e->j->docs, &d, &e->end, err)) return false;
        if (e->end) break;
        /* Which conversations fit shows only when they are encoded; see write_talks. */
        if (!d.talk && !pass_over(e, d.split, &d.from, &skip, err)) return false;
        if (!skip) add_doc(e, b, &d);
    }
    return true;
}

static bool encode_span(const encoder *e, const batch *b, span *s, cm_err *err) {
    return s->control >= 0 ||
           cm_spm_encode(e->j->spm, b->text.s + s->at, s->n, &s->id, &s->n_id, &s->cap,
                         err);
}

static bool close_shard(encoder *e, cm_split sp, cm_err *err) {
    cm_corpus_job *j = e->j;
    cm_shard_out *out = e->out[sp];
    e->out[sp] = NULL;
    int n = j->n_info[sp];
    j->info[sp] = realloc(j->info[sp], (size_t)(n + 1) * sizeof *j->info[sp]);
    CM_ASSERT(j->info[sp], "out of memory");
    if (!cm_shard_out_commit(out, j->conf->t->out, &j->info[sp][n], err)) return false;
    j->n_info[sp]++;
    return true;
}

static bool full(encoder *e, cm_split sp, cm_err *err) {
    return cm_shard_out_tokens(e->out[sp]) < e->j->conf->t->shard_tokens ||
           close_shard(e, sp, err);
}

/* Conversations and pairs, each either whole in a shard or refused. */
static bool write_talks(encoder *e, batch *b, cm_err *err) {
    int docs = e->j->shard.kind == CM_SHARD_DPO ? 2 : 1;
    for (int i = 0, n; i < b->n; i += n) {
        const span *s = &b->s[i];
        cm_split sp = s->split;
        cm_exchange x;
        bool skip = false;
        for (n = 1; !s[n - 1].last;) n++;
        if (!cm_exchange_fit(&x, e->j, s, n, err)) return false;
        if (!x.fits) continue;
        for (int k = 0; k < docs; k++)
            if (!pass_over(e, sp, &s->from, &skip, err)) return false;
        if (skip) continue;
        if (!e->out[sp]) e->out[sp] = cm_shard_out_open(&e->j->shard, sp, e->j->n_info[sp]);
        int64_t before = cm_shard_out_tokens(e->out[sp]);
        for (int k = 0; k < docs; k++) cm_exchange_write(&x, e->out[sp], k);
        e->tokens += cm_shard_out_tokens(e->out[sp]) - before;
        e->docs++;
        e->bytes += (int64_t)s->from.bytes;
        if (!full(e, sp, err)) return false;
    }
    b->n = 0;
    return true;
}

static bool write_batch(encoder *e, batch *b, cm_err *err) {
    if (cm_shard_masked(e->j->shard.kind)) return write_talks(e, b, err);
    const cm_shard_conf *c = &e->j->shard;
    bool begin = true;
    for (int i = 0; i < b->n; i++) {
        span *s = &b->s[i];
        cm_split sp = s->split;
        if (!e->out[sp]) e->out[sp] = cm_shard_out_open(c, sp, e->j->n_info[sp]);
        int32_t bos = c->bos, eos = c->eos;
        if (begin && c->flags & CM_SHARD_BOS) cm_shard_out_add(e->out[sp], &bos, 1, NULL);
        bool tail = s->last && c->flags & CM_SHARD_EOS;
        cm_shard_out_add(e->out[sp], s->id, s->n_id, s->last && !tail ? &s->from : NULL);
        if (tail) cm_shard_out_add(e->out[sp], &eos, 1, &s->from);
        e->tokens += s->n_id;
        begin = s->last;
        if (!s->last) continue;
        e->docs++;
        e->bytes += (int64_t)s->from.bytes;
        if (!full(e, sp, err)) return false;
    }
    b->n = 0;
    return true;
}

/* Write `wr`, read `rd`, encode `en`, all at once. */
static bool turn(encoder *e, batch *wr, batch *en, batch *rd, cm_err *err) {
    bool ok = true;
#pragma omp parallel num_threads(e->j->conf->threads)
    {
        cm_err mine = { 0 };
        bool good = true;
#pragma omp single nowait
        good = write_batch(e, wr, &mine) && read_batch(e, rd, &mine);
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < en->n; i++)
            good = good && encode_span(e, en, &en->s[i], &mine);
        if (!good)
#pragma omp critical(cm_corpus_turn)
        {
            ok = false;
            *err = mine;
        }
    }
    return ok;
}

static bool report(const encoder *e, uint64_t total) {
    const cm_corpus_conf *c = e->j->conf;
    cm_corpus_progress p = { "encode", cm_docs_pos(&e->j->docs), total, e->tokens, e->docs,
                             e->bytes };
    return !c->progress || c->progress(c->ctx, &p);
}

static void encoder_close(encoder *e) {
    char hex[65];
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < e->b[i].cap; k++) free(e->b[i].s[k].id);
        free(e->b[i].s);
        cm_buf_free(&e->b[i].text);
    }
    for (int sp = 0; sp < 2; sp++) {
        cm_shard_out_abort(e->out[sp]);
        if (e->sha[sp]) cm_sha_close(e->sha[sp], hex);
    }
}

bool cm_corpus_encode(cm_corpus_job *j, uint64_t total, cm_err *err) {
    encoder e = { .j = j };
    bool ok = true, busy = true;
    for (int k = 0; ok && busy; k++) {
        batch *rd = &e.b[k % 3], *en = &e.b[(k + 2) % 3], *wr = &e.b[(k + 1) % 3];
        ok = turn(&e, wr, en, rd, err);
        busy = !e.end || rd->n || en->n;
        if (ok && !report(&e, total))
            ok = cm_fail(err, CM_EXIT_FAIL, "interrupted; the same command continues");
    }
    for (int sp = 0; ok && sp < 2; sp++)
        if (e.out[sp]) ok = close_shard(&e, (cm_split)sp, err);
    for (int sp = 0; ok && sp < 2; sp++)
        if (e.passing[sp] < j->n_done[sp])
            ok = cm_fail(err, CM_EXIT_DATA, "%s: %s shards of an interrupted run hold more "
                         "documents than the inputs; they changed since. --if-done=redo "
                         "starts anew", j->conf->t->out, cm_split_name((cm_split)sp));
    encoder_close(&e);
    return ok;
}
