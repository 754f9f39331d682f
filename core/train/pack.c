/* pack.c -- rows of whole conversations, isolated from each other.
 *
 * Units (a conversation, or a preference's two) are placed once, the longest first, each
 * into the fullest row that still has room (best-fit decreasing, as TRL's packing); equal
 * lengths come in a seeded order.  Then, as in data.c, row r of the endless stream is
 * permute(epoch, r mod rows).  A document of n tokens takes n - 1 places: nothing follows
 * its last token. */
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

/* ---- checks ------------------------------------------------------------------------ */

/* What is wrong with the documents, and where first. */
typedef struct {
    int64_t untrained, first_untrained, open_end, first_open; /* documents */
    int64_t overlong, first_long, places;                     /* units; places of the first */
} faults;

static const char *unit_name(const cm_pack *p) {
    return p->docs == 2 ? "pair" : "conversation";
}

char *cm_pack_place(const cm_pack *p, int64_t unit) {
    uint32_t source;
    uint64_t line;
    char *file = NULL, *where = NULL;
    if (cm_dataset_origin(p->data, p->split, unit * p->docs, &source, &line, NULL)) {
        file = cm_dataset_source(p->data, source);
        where = cm_strf(" (%s:%llu)", file ? file : "line", (unsigned long long)line);
    }
    char *s = cm_strf("%s %lld of the %s split%s", unit_name(p), (long long)unit,
                      cm_split_name(p->split), where ? where : "");
    free(file);
    free(where);
    return s;
}

/* The same of a document: which of a pair's answers it is. */
static char *doc_place(const cm_pack *p, int64_t doc) {
    char *unit = cm_pack_place(p, doc / p->docs);
    char *s = cm_strf("%s%s", unit, p->docs == 1 ? "" : doc % 2 ? ", its rejected answer,"
                                                                : ", its chosen answer,");
    free(unit);
    return s;
}

static bool is_target(const cm_pack *p, uint8_t mask) {
    return p->train_on == CM_TRAIN_ALL ? mask != CM_MASK_NONE
           : p->train_on == CM_TRAIN_ANSWER ? mask == CM_MASK_ANSWER
                                            : mask == CM_MASK_REASONING;
}

/* Tokens of a document that are targets. */
static bool count_targets(const cm_pack *p, int64_t doc, int64_t *n, bool *other,
                          cm_err *err) {
    int64_t answer, reasoning;
    if (!cm_dataset_trained(p->data, p->split, doc, &answer, &reasoning, err)) return false;
    *n = (p->train_on != CM_TRAIN_REASONING ? answer : 0) +
         (p->train_on != CM_TRAIN_ANSWER ? reasoning : 0);
    *other = !*n && answer + reasoning > 0;
    return true;
}

/* A model learns to stop only where the last token of a turn is a target. */
static bool check_doc(cm_pack *p, int64_t doc, int64_t start, int64_t n, faults *f,
                      cm_err *err) {
    int64_t trained;
    bool other; /* sft.train_on leaves out all that could be learned: that was asked for */
    if (!count_targets(p, doc, &trained, &other, err)) return false;
    p->unasked += other;
    if (!trained && !other && !f->untrained++) f->first_untrained = doc;
    if (p->train_on == CM_TRAIN_REASONING || other) return true;
    int32_t last;
    uint8_t mask;
    if (!cm_dataset_read(p->data, p->split, start + n - 1, 1, &last, NULL, err) ||
        !cm_dataset_masks(p->data, p->split, start + n - 1, 1, &mask, err))
        return false;
    if ((last != p->end || mask != CM_MASK_ANSWER) && !f->open_end++) f->first_open = doc;
    return true;
}

static bool report_long(const cm_pack *p, const faults *f, cm_err *err) {
    if (!f->overlong) return true;
    char *at = cm_pack_place(p, f->first_long);
    cm_fail(err, CM_EXIT_USAGE,
            "%s: %s takes %lld tokens, a row has %d (data.seq_len), and so %lld in all are longer "
            "than a row: make rows longer, leave such ones out with post.overlong=drop, or "
            "tokenize with tokenize.max_tokens", p->data->dir, at, (long long)f->places, p->T,
            (long long)f->overlong);
    free(at);
    return false;
}

static bool report(const cm_pack *p, const faults *f, cm_err *err) {
    if (!f->untrained && !f->open_end) return report_long(p, f, err);
    char *at = doc_place(p, f->untrained ? f->first_untrained : f->first_open);
    if (f->untrained)
        cm_fail(err, CM_EXIT_DATA,
                "%s: %s has no token to learn; so have %lld in all: look at them with "
                "`tokenize head`", p->data->dir, at, (long long)f->untrained);
    else
        cm_fail(err, CM_EXIT_DATA,
                "%s: %s does not end in a trained <|end|>, and so %lld in all: a model "
                "trained on them would not learn to stop", p->data->dir, at,
                (long long)f->open_end);
    free(at);
    return false;
}

/* ---- packing ----------------------------------------------------------------------- */

/* A unit to be placed. */
typedef struct {
    int64_t unit;
    uint64_t tie;
    int32_t n; /* places it takes */
} piece;

static int longer_first(const void *a, const void *b) {
    const piece *x = a, *y = b;
    if (x->n != y->n) return x->n < y->n ? 1 : -1;
    if (x->tie != y->tie) return x->tie < y->tie ? -1 : 1;
    return x->unit < y->unit ? -1 : 1;
}

/* Places that unit u takes.  -1: failure; its documents are checked on the way. */
static int64_t measure(cm_pack *p, int64_t u, faults *f, cm_err *err) {
    int64_t places = 0;
    for (int64_t d = u * p->docs; d < (u + 1) * p->docs; d++) {
        int64_t start, n, bytes;
        if (!cm_dataset_doc(p->data, p->split, d, &start, &n, &bytes, err) ||
            !check_doc(p, d, start, n, f, err))
            return -1;
        places += n - 1;
    }
    return places;
}

static void too_long(cm_pack *p, int64_t u, int64_t n, faults *f) {
    if (p->drop_long) {
        p->dropped++;
        return;
    }
    if (f->overlong++) return;
    f->first_long = u;
    f->places = n;
}

/* The units of the split in `v` (room for all), up to `limit` tokens; 0: all. */
static bool collect(cm_pack *p, int64_t limit, piece *v, cm_err *err) {
    int64_t n_units = p->data->n_docs[p->split] / p->docs, tokens = 0;
    cm_rng tie = cm_rng_make(p->seed, CM_RNG_SHUFFLE, UINT64_MAX);
    faults f = { 0 };
    for (int64_t u = 0; u < n_units && (!limit || tokens < limit); u++) {
        int64_t unasked = p->unasked, n = measure(p, u, &f, err);
        if (n < 0) return false;
        if (p->unasked > unasked) continue;
        tokens += n;
        if (n <= p->T)
            v[p->units++] = (piece){ u, cm_rng_u64(tie, (uint64_t)u), (int32_t)n };
        else
            too_long(p, u, n, &f);
    }
    p->tokens = tokens;
    return report(p, &f, err);
}

/* Rows by the room they have left: a stack for each, and a bit for each stack in use. */
typedef struct {
    int64_t *top, *below; /* [T+1] row or -1; [units] the row under it */
    uint64_t *used;       /* [T/64+1] */
    int T;
} shelf;

static void put(shelf *s, int64_t row, int left) {
    s->below[row] = s->top[left];
    s->top[left] = row;
    s->used[left / 64] |= (uint64_t)1 << (left % 64);
}

/* The row with the least room of at least n, taken off its stack; -1: none. */
static int64_t take(shelf *s, int n, int *left) {
    uint64_t mask = ~(uint64_t)0 << (n % 64);
    for (int w = n / 64; w <= s->T / 64; w++, mask = ~(uint64_t)0) {
        uint64_t bits = s->used[w] & mask;
        if (!bits) continue;
        *left = w * 64 + __builtin_ctzll(bits);
        int64_t row = s->top[*left];
        s->top[*left] = s->below[row];
        if (s->top[*left] < 0) s->used[w] &= ~((uint64_t)1 << (*left % 64));
        return row;
    }
    return -1;
}

/* Place the sorted pieces; row[i] is the row of v[i]. */
static void place_all(cm_pack *p, const piece *v, int64_t *row) {
    shelf s = { cm_room(p->T + 1, sizeof *s.top), cm_room(p->units, sizeof *s.below),
                cm_room(p->T / 64 + 1, sizeof *s.used), p->T };
    for (int i = 0; i <= p->T; i++) s.top[i] = -1;
    for (int64_t i = 0; i < p->units; i++) {
        int left = p->T;
        row[i] = take(&s, v[i].n, &left);
        if (row[i] < 0) row[i] = p->rows++;
        put(&s, row[i], left - v[i].n);
    }
    free(s.top);
    free(s.below);
    free(s.used);
}

/* first[] and order[] from each piece's row: a counting sort. */
static void list_rows(cm_pack *p, const piece *v, const int64_t *row) {
    p->first = cm_room(p->rows + 1, sizeof *p->first);
    p->order = cm_room(p->units, sizeof *p->order);
    for (int64_t i = 0; i < p->units; i++) p->first[row[i] + 1]++;
    for (int64_t r = 0; r < p->rows; r++) p->first[r + 1] += p->first[r];
    int64_t *at = cm_room(p->rows, sizeof *at);
    for (int64_t i = 0; i < p->units; i++)
        p->order[p->first[row[i]] + at[row[i]]++] = v[i].unit;
    free(at);
}

static bool pack(cm_pack *p, int64_t limit, cm_err *err) {
    int64_t all = p->data->n_docs[p->split] / p->docs;
    piece *v = cm_room(all, sizeof *v);
    bool ok = collect(p, limit, v, err);
    if (ok) {
        int64_t *row = cm_room(p->units, sizeof *row);
        qsort(v, (size_t)p->units, sizeof *v, longer_first);
        place_all(p, v, row);
        list_rows(p, v, row);
        free(row);
    }
    free(v);
    if (ok && p->unasked)
        cm_log(CM_LOG_WARN, "%s: %lld of %lld conversations of the %s split have nothing that "
               "sft.train_on asks for and are left out", p->data->dir, (long long)p->unasked,
               (long long)(p->units + p->dropped + p->unasked), cm_split_name(p->split));
    if (ok && p->dropped)
        cm_log(CM_LOG_WARN, "%s: %lld of %lld %ss of the %s split are longer than a row of "
               "%d tokens and are left out", p->data->dir, (long long)p->dropped,
               (long long)(p->units + p->dropped), unit_name(p), cm_split_name(p->split),
               p->T);
    return ok;
}

/* ---- rows -------------------------------------------------------------------------- */

static int64_t packed_row(const cm_pack *p, int64_t row) {
    uint64_t epoch = (uint64_t)(row / p->rows), at = (uint64_t)(row % p->rows);
    if (!p->shuffle) return (int64_t)at;
    return (int64_t)cm_permute(cm_rng_make(p->seed, CM_RNG_SHUFFLE, epoch), at,
                               (uint64_t)p->rows);
}

int64_t cm_pack_units(const cm_pack *p, int64_t row, const int64_t **unit) {
    int64_t r = packed_row(p, row);
    *unit = p->order + p->first[r];
    return p->first[r + 1] - p->first[r];
}

/* One document at place `at` of the row; *at moves behind it. */
static bool add_doc(const cm_pack *p, int64_t doc, int32_t number, const cm_rows *out,
                    int64_t *at, cm_err *err) {
    int64_t start, n, bytes;
    if (!cm_dataset_doc(p->data, p->split, doc, &start, &n, &bytes, err) ||
        !cm_dataset_read(p->data, p->split, start, n, p->token, NULL, err) ||
        !cm_dataset_masks(p->data, p->split, start, n, p->mask, err))
        return false;
    for (int64_t i = 0; i + 1 < n; i++, ++*at) {
        out->token[*at] = p->token[i];
        out->target[*at] = is_target(p, p->mask[i + 1]) ? p->token[i + 1] : -1;
        out->doc[*at] = number;
        out->pos[*at] = (int32_t)i;
    }
    return true;
}

static bool fill_row(const cm_pack *p, int64_t row, const cm_rows *out, int64_t at,
                     cm_err *err) {
    const int64_t *unit, end = at + p->T;
    int64_t n = cm_pack_units(p, row, &unit);
    int32_t number = 0;
    for (int64_t k = 0; k < n; k++)
        for (int d = 0; d < p->docs; d++)
            if (!add_doc(p, unit[k] * p->docs + d, number++, out, &at, err)) return false;
    for (int32_t i = 0; at < end; i++, at++) {
        out->token[at] = 0;
        out->target[at] = -1;
        out->doc[at] = number;
        out->pos[at] = i;
    }
    return true;
}

static bool read_rows(void *self, int64_t row, int n, const cm_rows *out, cm_err *err) {
    const cm_pack *p = self;
    for (int i = 0; i < n; i++)
        if (!fill_row(p, row + i, out, (int64_t)i * p->T, err)) return false;
    return true;
}

/* ---- opening ----------------------------------------------------------------------- */

static bool right_kind(const cm_dataset *d, cm_shard_kind kind, cm_err *err) {
    static const char *const what[] = { "plain text", "conversations", "preferences",
                                        "an evaluation" };
    if (d->kind == kind) return true;
    return cm_fail(err, CM_EXIT_DATA, "%s: these shards hold %s, wanted %s", d->dir,
                   what[d->kind], what[kind]);
}

static bool any_rows(const cm_pack *p, cm_err *err) {
    if (p->rows || p->split == CM_SPLIT_VAL) return true;
    return cm_fail(err, CM_EXIT_DATA, "%s: no %s to train on: the training split has %lld, "
                   "%lld of them longer than a row, %lld without what sft.train_on asks for",
                   p->data->dir, unit_name(p),
                   (long long)(p->units + p->dropped + p->unasked), (long long)p->dropped,
                   (long long)p->unasked);
}

bool cm_pack_open(cm_pack *p, const cm_dataset *d, cm_split split, cm_shard_kind kind,
                  const cm_conf *c, const cm_spm *spm, cm_source *s, cm_err *err) {
    bool train = split == CM_SPLIT_TRAIN;
    cm_chat chat;
    *p = (cm_pack){ .data = d, .split = split, .seed = (uint64_t)c->top.seed,
                    .shuffle = train && c->data.shuffle, .T = (int)c->data.seq_len,
                    .docs = kind == CM_SHARD_DPO ? 2 : 1,
                    .drop_long = c->post.overlong == CM_TOO_LONG_DROP,
                    .train_on = kind == CM_SHARD_SFT ? c->sft.train_on : CM_TRAIN_ALL };
    if (!right_kind(d, kind, err) || !cm_chat_open(&chat, spm, err)) return false;
    p->end = chat.end;
    p->token = cm_room(p->T + 1, sizeof *p->token);
    p->mask = cm_room(p->T + 1, sizeof *p->mask);
    if (!pack(p, train ? 0 : c->val.tokens, err) || !any_rows(p, err)) {
        cm_pack_close(p);
        return false;
    }
    *s = (cm_source){ .self = p, .T = p->T, .rows = p->rows, .packed = true,
                      .read = read_rows };
    memcpy(s->id, d->id, sizeof s->id);
    return true;
}

/* The last run of masked tokens is the answer; what stands before it asks. */
int32_t *cm_pack_prompt(const cm_pack *p, int64_t doc, int64_t more, int64_t *n,
                        cm_err *err) {
    int64_t start, bytes;
    if (!cm_dataset_doc(p->data, p->split, doc, &start, n, &bytes, err)) return NULL;
    int32_t *id = cm_room(*n + more, sizeof *id);
    uint8_t *mask = cm_room(*n, sizeof *mask);
    bool ok = cm_dataset_read(p->data, p->split, start, *n, id, NULL, err) &&
              cm_dataset_masks(p->data, p->split, start, *n, mask, err);
    while (ok && *n > 0 && mask[*n - 1] == CM_MASK_NONE) --*n;
    while (ok && *n > 0 && mask[*n - 1] != CM_MASK_NONE) --*n;
    free(mask);
    if (ok) return id;
    free(id);
    return NULL;
}

void cm_pack_close(cm_pack *p) {
    free(p->first);
    free(p->order);
    free(p->token);
    free(p->mask);
    *p = (cm_pack){ 0 };
}
