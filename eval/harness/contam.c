/* contam.c -- which items of a task stand in a corpus: n-grams by rolling 64-bit hashes. */
#include "harness/harness.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_GRAM = 64, RING = MAX_GRAM + 1 };
static const uint64_t BASE = 0x9E3779B97F4A7C15u; /* odd, so that shifting loses nothing */

typedef struct {
    uint64_t hash;
    bool hit;
} slot; /* hash 0: free */

typedef struct {
    int64_t units, first, grams; /* grams[first..first + grams) in gram */
    int n;                       /* units in each */
} entry;

struct cm_contam {
    int n, least;
    uint64_t power[MAX_GRAM + 1];
    bool sizes[MAX_GRAM + 1]; /* gram sizes that items have */
    entry *item;
    int n_items, cap_items;
    uint64_t *gram;
    int64_t n_grams, cap_grams;
    slot *table;
    int64_t cap_table; /* a power of two; 0 until the first scan */
    int64_t scanned;
    /* the document passing by: its last prefixes, place i at i mod RING, and units so far */
    uint64_t prefix[MAX_GRAM + 1];
    int64_t at;
    int size[MAX_GRAM], n_sizes;
    cm_buf word;
};

static uint64_t mix(uint64_t x) { /* splitmix64's finaliser */
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static void *grow(void *p, int64_t n, size_t size) {
    p = realloc(p, (size_t)n * size);
    CM_ASSERT(p, "out of memory for %lld n-grams", (long long)n);
    return p;
}

cm_contam *cm_contam_open(int n, int least) {
    CM_ASSERT(n >= 1 && n <= MAX_GRAM && least >= 1 && least <= n, "grams of %d, %d", n, least);
    cm_contam *c = calloc(1, sizeof *c);
    CM_ASSERT(c, "out of memory");
    c->n = n;
    c->least = least;
    c->power[0] = 1;
    for (int i = 1; i <= MAX_GRAM; i++) c->power[i] = c->power[i - 1] * BASE;
    return c;
}

void cm_contam_close(cm_contam *c) {
    if (!c) return;
    free(c->item);
    free(c->gram);
    free(c->table);
    cm_buf_free(&c->word);
    free(c);
}

/* ---- units: words and ids ----------------------------------------------------------- */

/* Length of the white space at p (0: none): ASCII's, no-break, U+2000..200B, dashes
 * U+2012..2015, ideographic. */
static size_t space_at(const unsigned char *p, size_t n) {
    if (isspace(*p)) return 1;
    if (n >= 2 && p[0] == 0xC2 && p[1] == 0xA0) return 2;
    if (n < 3) return 0;
    if (p[0] == 0xE2 && p[1] == 0x80 && (p[2] <= 0x8B || (p[2] >= 0x92 && p[2] <= 0x95)))
        return 3;
    return p[0] == 0xE3 && p[1] == 0x80 && p[2] == 0x80 ? 3 : 0;
}

/* Length of the punctuation at p: ASCII's, quotation marks U+2018..201F, the ellipsis, the
 * Devanagari stops. */
static size_t punct_at(const unsigned char *p, size_t n) {
    if (ispunct(*p)) return 1;
    if (n < 3) return 0;
    if (p[0] == 0xE2 && p[1] == 0x80 && ((p[2] >= 0x98 && p[2] <= 0x9F) || p[2] == 0xA6))
        return 3;
    return p[0] == 0xE0 && p[1] == 0xA5 && (p[2] == 0xA4 || p[2] == 0xA5) ? 3 : 0;
}

/* The next word as compared, from *at on; false at the end. */
static bool next_word(const char *text, size_t n, size_t *at, cm_buf *word) {
    word->n = 0;
    while (*at < n) {
        const unsigned char *p = (const unsigned char *)text + *at;
        size_t k = space_at(p, n - *at);
        if (k && word->n) return true;
        if (!k && !(k = punct_at(p, n - *at))) {
            char c = (char)tolower(*p);
            cm_buf_add(word, *p < 0x80 ? &c : (const char *)p, 1);
            k = 1;
        }
        *at += k;
    }
    return word->n > 0;
}

static uint64_t word_hash(const cm_buf *w) {
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a, then mixed */
    for (size_t i = 0; i < w->n; i++) h = (h ^ (unsigned char)w->s[i]) * 0x100000001B3u;
    return mix(h);
}

void cm_contam_normal(const char *text, size_t n, cm_buf *out) {
    cm_buf word = { 0 };
    size_t at = 0;
    for (bool first = true; next_word(text, n, &at, &word); first = false)
        cm_buf_addf(out, "%s%s", first ? "" : " ", word.s);
    cm_buf_free(&word);
}

/* ---- items ---------------------------------------------------------------------------- */

/* Prefix p[i+1] = p[i] B + unit i makes the hash of units [i-n, i) p[i] - p[i-n] B^n; the
 * size is mixed in, and 0 is kept for "free". */
static uint64_t window(const cm_contam *c, uint64_t to, uint64_t from, int n) {
    uint64_t h = mix(to - from * c->power[n] + (uint64_t)n * 0xD6E8FEB86659FD93u);
    return h ? h : 1;
}

static int add_item(cm_contam *c, const uint64_t *unit, int64_t units) {
    CM_ASSERT(!c->cap_table, "items are added before the first scan");
    if (c->n_items == c->cap_items)
        c->item = grow(c->item, c->cap_items = 2 * c->cap_items + 64, sizeof *c->item);
    entry *e = &c->item[c->n_items];
    *e = (entry){ .units = units, .first = c->n_grams, .n = c->n };
    if (units < c->n) e->n = units >= c->least ? (int)units : 0;
    if (!e->n) return c->n_items++;
    e->grams = units - e->n + 1;
    c->sizes[e->n] = true;
    if (c->n_grams + e->grams > c->cap_grams) {
        c->cap_grams = 2 * (c->n_grams + e->grams);
        c->gram = grow(c->gram, c->cap_grams, sizeof *c->gram);
    }
    uint64_t *p = grow(NULL, units + 1, sizeof *p);
    p[0] = 0;
    for (int64_t i = 0; i < units; i++) p[i + 1] = p[i] * BASE + unit[i];
    for (int64_t i = 0; i < e->grams; i++)
        c->gram[c->n_grams++] = window(c, p[i + e->n], p[i], e->n);
    free(p);
    return c->n_items++;
}

typedef struct {
    uint64_t *v;
    int64_t n, cap;
} units;

static void push(units *u, uint64_t x) {
    if (u->n == u->cap) u->v = grow(u->v, u->cap = 2 * u->cap + 64, sizeof *u->v);
    u->v[u->n++] = x;
}

static uint64_t id_hash(int32_t id) { return mix((uint64_t)(uint32_t)id + 1); }

int cm_contam_add_words(cm_contam *c, const char *text, size_t bytes) {
    units u = { 0 };
    cm_buf word = { 0 };
    for (size_t at = 0; next_word(text, bytes, &at, &word);) push(&u, word_hash(&word));
    int i = add_item(c, u.v, u.n);
    cm_buf_free(&word);
    free(u.v);
    return i;
}

int cm_contam_add_ids(cm_contam *c, const int32_t *id, int64_t n) {
    units u = { 0 };
    for (int64_t i = 0; i < n; i++) push(&u, id_hash(id[i]));
    int i = add_item(c, u.v, u.n);
    free(u.v);
    return i;
}

/* ---- the table ------------------------------------------------------------------------ */

static slot *find(const cm_contam *c, uint64_t h) {
    uint64_t mask = (uint64_t)c->cap_table - 1, i = h & mask;
    while (c->table[i].hash && c->table[i].hash != h) i = (i + 1) & mask;
    return &c->table[i];
}

static void index_items(cm_contam *c) {
    c->cap_table = 1024;
    while (c->cap_table < 3 * c->n_grams) c->cap_table *= 2;
    c->table = calloc((size_t)c->cap_table, sizeof *c->table);
    CM_ASSERT(c->table, "out of memory for %lld n-grams", (long long)c->n_grams);
    for (int64_t i = 0; i < c->n_grams; i++) find(c, c->gram[i])->hash = c->gram[i];
}

/* ---- the corpus passes by ------------------------------------------------------------- */

void cm_contam_document(cm_contam *c) {
    if (!c->cap_table) index_items(c);
    c->at = 0;
    c->n_sizes = 0;
    for (int n = 1; n <= MAX_GRAM; n++)
        if (c->sizes[n]) c->size[c->n_sizes++] = n;
}

static void step(cm_contam *c, uint64_t unit) {
    uint64_t to = c->prefix[c->at % RING] * BASE + unit;
    c->at++;
    c->prefix[c->at % RING] = to;
    for (int k = 0; k < c->n_sizes && c->size[k] <= c->at; k++) {
        uint64_t from = c->prefix[(c->at - c->size[k]) % RING];
        slot *s = find(c, window(c, to, from, c->size[k]));
        if (s->hash) s->hit = true;
    }
    c->scanned++;
}

void cm_contam_scan_words(cm_contam *c, const char *text, size_t bytes) {
    CM_ASSERT(c->cap_table, "text before its document");
    for (size_t at = 0; next_word(text, bytes, &at, &c->word);) step(c, word_hash(&c->word));
}

void cm_contam_scan_ids(cm_contam *c, const int32_t *id, int64_t n) {
    CM_ASSERT(c->cap_table, "tokens before their document");
    for (int64_t i = 0; i < n; i++) step(c, id_hash(id[i]));
}

int64_t cm_contam_scanned(const cm_contam *c) { return c->scanned; }

cm_overlap cm_contam_item(const cm_contam *c, int item) {
    CM_ASSERT(item >= 0 && item < c->n_items, "item %d of %d", item, c->n_items);
    const entry *e = &c->item[item];
    cm_overlap o = { .units = e->units, .grams = e->grams };
    int64_t covered = 0, end = 0, run = 0; /* the last run of covered units ends at `end` */
    for (int64_t i = 0; i < e->grams; i++) {
        if (!c->cap_table || !find(c, c->gram[e->first + i])->hit) continue;
        int64_t from = end > i ? end : i; /* a gram that only touches starts a new run */
        if (end <= i) run = 0;
        o.hits++;
        covered += i + e->n - from;
        run += i + e->n - from;
        end = i + e->n;
        if (run > o.longest) o.longest = run;
    }
    o.coverage = e->units ? (double)covered / (double)e->units : 0;
    return o;
}
