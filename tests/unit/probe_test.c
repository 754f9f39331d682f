/* probe_test.c -- probes: what generated items look like, and the measures on plain data. */
#include "harness/harness.h"
#include "run/run.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- a tokenizer: words of the built-in haystack, digits, control pieces ------------ */

static const char *corpus = "tests/golden/gguf/ppl.txt";

static cm_spm *spm_of(int vocab) {
    static const char *const control[] = { "<|user|>", "<|end|>" };
    cm_buf proto = { 0 };
    cm_err err;
    cm_spm_train_conf c = { .input = corpus, .vocab = vocab, .control = control,
                            .n_control = 2, .threads = 1 };
    CM_ASSERT(cm_spm_train(&c, &proto, &err), "%s", err.msg);
    cm_spm *s = cm_spm_open_bytes(proto.s, proto.n, &err);
    CM_ASSERT(s, "%s", err.msg);
    cm_buf_free(&proto);
    return s;
}

static bool same_rows(const cm_probe_row *a, const cm_probe_row *b) {
    return a->n == b->n && a->n_at == b->n_at &&
           !memcmp(a->token, b->token, (size_t)a->n * sizeof *a->token) &&
           !memcmp(a->at, b->at, (size_t)a->n_at * sizeof *a->at);
}

/* ---- rows ---------------------------------------------------------------------------- */

TEST(ids_are_ordinary_pieces_only) {
    cm_spm *s = spm_of(400);
    int n;
    int32_t *id = cm_probe_ids(s, 400, &n);
    CHECKF(n > 100 && n < 400 - 256, "%d ids", n);
    for (int i = 0; i < n; i++) {
        cm_piece_type type;
        cm_spm_piece(s, id[i], NULL, &type);
        CHECK(type == CM_PIECE_NORMAL && (i == 0 || id[i] > id[i - 1]));
    }
    free(id);
    id = cm_probe_ids(NULL, 7, &n);
    CHECK(n == 7 && id[6] == 6);
    free(id);
    cm_spm_close(s);
}

/* Every query is a key that was given, followed by its value; keys and values are distinct
 * and from their halves; nothing else in the row is a key. */
static void check_mqar(const cm_mqar *c, const int32_t *id, int n_id, uint64_t seed,
                       uint64_t index) {
    cm_probe_row r;
    cm_err err;
    if (!cm_probe_mqar(c, id, n_id, 1, seed, index, &r, &err)) {
        CHECKF(false, "%s", err.msg);
        return;
    }
    CHECK(r.n == 1 + c->length && r.n_at == c->pairs && r.token[0] == 1);
    const int32_t *pair = r.token + 1;
    int keys = 0;
    for (int i = 0; i < c->pairs; i++) {
        int32_t k = pair[2 * i], v = pair[2 * i + 1];
        CHECK(k < id[n_id / 2] && v >= id[n_id / 2]);
        for (int j = 0; j < i; j++) CHECK(pair[2 * j] != k && pair[2 * j + 1] != v);
        CHECKF(r.token[r.at[i]] == v && r.token[r.at[i] - 1] == k, "pair %d", i);
        CHECK(r.at[i] > 2 * c->pairs && r.slice[i] == r.at[i] - (2 + 2 * i));
        for (int t = 1; t < r.n; t++) keys += r.token[t] == k;
    }
    CHECKF(keys == 2 * c->pairs, "%d places hold keys, wanted %d", keys, 2 * c->pairs);
    cm_probe_row again, other;
    cm_probe_mqar(c, id, n_id, 1, seed, index, &again, &err);
    cm_probe_mqar(c, id, n_id, 1, seed + 1, index, &other, &err);
    CHECK(same_rows(&r, &again) && !same_rows(&r, &other));
    cm_probe_row_free(&other);
    cm_probe_mqar(c, id, n_id, 1, seed, index + 1, &other, &err);
    CHECK(!same_rows(&r, &other));
    cm_probe_row_free(&r);
    cm_probe_row_free(&again);
    cm_probe_row_free(&other);
}

TEST(mqar_rows) {
    int n;
    int32_t *id = cm_probe_ids(NULL, 200, &n);
    for (int i = 2; i < n; i++) id[i - 2] = id[i]; /* 0 and 1 are taken: 1 is BOS */
    n -= 2;
    for (uint64_t i = 0; i < 20; i++) {
        check_mqar(&(cm_mqar){ 1, 4, 0.01 }, id, n, 5, i);
        check_mqar(&(cm_mqar){ 8, 64, 0.01 }, id, n, 5, i);
        check_mqar(&(cm_mqar){ 16, 64, 0.01 }, id, n, 5, i); /* every place a query */
        check_mqar(&(cm_mqar){ 90, 512, 1.0 }, id, n, 5, i);
    }
    free(id);
}

/* The first drawn gap is g with probability alpha g^(alpha-1), normalised. */
TEST(mqar_gaps_follow_the_power_law) {
    int n, count[15] = { 0 }, N = 20000;
    int32_t *id = cm_probe_ids(NULL, 100, &n);
    cm_mqar c = { 1, 32, 0.01 }; /* 15 places for the query */
    for (int i = 0; i < N; i++) {
        cm_probe_row r;
        cm_err err;
        CM_ASSERT(cm_probe_mqar(&c, id, n, -1, 3, (uint64_t)i, &r, &err), "%s", err.msg);
        count[(r.slice[0] - 2) / 2]++;
        cm_probe_row_free(&r);
    }
    double norm = 0, chi2 = 0;
    for (int g = 1; g <= 15; g++) norm += pow(g, c.alpha - 1);
    for (int g = 1; g <= 15; g++) {
        double want = N * pow(g, c.alpha - 1) / norm;
        chi2 += (count[g - 1] - want) * (count[g - 1] - want) / want;
    }
    CHECKF(chi2 < 36.1, "chi2 of 14 degrees: %.1f (0.1%% point 36.1)", chi2);
    free(id);
}

TEST(mqar_refuses) {
    int n;
    int32_t *id = cm_probe_ids(NULL, 40, &n);
    cm_probe_row r;
    cm_err err;
    CHECK(!cm_probe_mqar(&(cm_mqar){ 8, 31, 0.01 }, id, n, 1, 0, 0, &r, &err) &&
          err.code == CM_EXIT_USAGE);
    CHECK(!cm_probe_mqar(&(cm_mqar){ 8, 30, 0.01 }, id, n, 1, 0, 0, &r, &err));
    CHECK(!cm_probe_mqar(&(cm_mqar){ 20, 80, 0.01 }, id, n, 1, 0, 0, &r, &err) &&
          strstr(err.msg, "40 ordinary pieces"));
    free(id);
}

TEST(copy_rows) {
    int n;
    int32_t *id = cm_probe_ids(NULL, 50, &n);
    cm_probe_row r, s;
    cm_err err;
    CHECK(cm_probe_copy(10, 2, id, n, 7, 1, 0, &r, &err));
    CHECK(r.n == 31 && r.n_at == 27 && r.token[0] == 7);
    for (int i = 0; i < 20; i++) CHECK(r.token[1 + i] == r.token[11 + i]);
    for (int i = 0; i < r.n_at; i++)
        CHECK(r.slice[i] == i / 9 && r.at[i] == 2 + i / 9 * 10 + i % 9);
    CHECK(cm_probe_copy(10, 2, id, n, 7, 2, 0, &s, &err) && !same_rows(&r, &s));
    CHECK(!cm_probe_copy(1, 1, id, n, 7, 1, 0, &s, &err));
    cm_probe_row_free(&r);
    cm_probe_row_free(&s);
    free(id);
}

/* ---- texts --------------------------------------------------------------------------- */

static int times(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++) n++;
    return n;
}

static void check_needle(const cm_spm *spm, cm_needle c, uint64_t index) {
    cm_probe_text t, u;
    cm_err err;
    if (!cm_probe_needle(&c, NULL, spm, 3, index, &t, &err)) {
        CHECKF(false, "%s", err.msg);
        return;
    }
    const char *s = t.context.s, *right = t.choice[t.gold].s;
    CHECKF(times(s, right) == 1, "'%s' stands %d times", right, times(s, right));
    CHECK((int)strlen(right) == c.digits && t.n_choices == c.choices);
    for (int i = 0; i < t.n_choices; i++)
        for (int j = 0; j < i; j++) CHECK(strcmp(t.choice[i].s, t.choice[j].s));
    CHECKF(times(s, "The pass key ") == c.keys + 1, "%s", s);
    if (c.keys > 1) CHECK(times(s, t.choice[(t.gold + 1) % t.n_choices].s) == 1);
    CHECKF(t.tokens <= c.length && t.tokens > c.length - 40, "%d tokens of %d", t.tokens,
           c.length);
    int64_t n = 0, cap = 0;
    int32_t *id = NULL;
    CHECK(cm_spm_encode(spm, s, t.context.n, &id, &n, &cap, &err));
    CHECKF(llabs(n - t.tokens) <= t.tokens / 4, "%lld tokens, counted %d", (long long)n,
           t.tokens);
    /* Depth: the share of the haystack in front of the needle. */
    const char *at = strstr(s, right);
    double depth = (double)(at - s) / (double)t.context.n;
    if (c.keys == 1 && c.length >= 500)
        CHECKF(fabs(depth - c.depth) < 0.1, "depth %.2f, wanted %.2f", depth, c.depth);
    CHECK(cm_probe_needle(&c, NULL, spm, 3, index, &u, &err) && !strcmp(u.context.s, s));
    cm_probe_text_free(&u);
    CHECK(cm_probe_needle(&c, NULL, spm, 4, index, &u, &err) && strcmp(u.context.s, s));
    cm_probe_text_free(&u);
    cm_probe_text_free(&t);
    free(id);
}

TEST(needles) {
    cm_spm *spm = spm_of(420);
    for (uint64_t i = 0; i < 5; i++)
        for (int k = 0; k <= 4; k++) {
            check_needle(spm, (cm_needle){ 600, 1, 5, 4, k / 4.0 }, i);
            check_needle(spm, (cm_needle){ 900, 4, 5, 4, k / 4.0 }, i);
            check_needle(spm, (cm_needle){ 160, 1, 3, 2, k / 4.0 }, i);
        }
    cm_probe_text t;
    cm_err err;
    CHECK(!cm_probe_needle(&(cm_needle){ 10, 1, 5, 4, 0 }, NULL, spm, 0, 0, &t, &err) &&
          strstr(err.msg, "more than the length 10"));
    cm_probe_text_free(&t);
    CHECK(!cm_probe_needle(&(cm_needle){ 100, 1, 5, 4, 1.5 }, NULL, spm, 0, 0, &t, &err));
    CHECK(!cm_probe_needle(&(cm_needle){ 100, 1, 5, 1, 0.5 }, NULL, spm, 0, 0, &t, &err));
    cm_spm_close(spm);
}

TEST(haystack_of_a_text) {
    cm_hay h = { 0 };
    const char *text = "One two. Three?  Four \n\n five\n Mr. Six 3.5 x";
    cm_hay_split(&h, text, strlen(text));
    static const char *const want[] = { "One two.", "Three?", "Four", "five", "Mr.",
                                        "Six 3.5 x" };
    CHECKF(h.n == 6, "%d sentences", h.n);
    for (int i = 0; i < h.n && i < 6; i++)
        CHECKF(!strcmp(h.sentence[i], want[i]), "'%s'", h.sentence[i]);
    cm_spm *spm = spm_of(420);
    cm_probe_text t;
    cm_err err;
    CHECK(cm_probe_needle(&(cm_needle){ 300, 1, 4, 3, 0.5 }, &h, spm, 1, 1, &t, &err));
    CHECK(strstr(t.context.s, "Mr. Six 3.5 x") && !strstr(t.context.s, "grass"));
    cm_probe_text_free(&t);
    cm_spm_close(spm);
    cm_hay_free(&h);
}

TEST(phone_books) {
    cm_spm *spm = spm_of(420);
    cm_err err;
    static const int size[] = { 1, 3, 40 };
    for (int k = 0; k < 3; k++) {
        cm_probe_text t;
        CHECKF(cm_probe_phonebook(size[k], 6, 4, spm, 9, (uint64_t)k, &t, &err), "%s", err.msg);
        CHECK(times(t.context.s, "\n") == size[k] + 1);
        /* The last line's name stands in the book, with the right number. */
        char *entry = cm_strf("%s %s\n", strrchr(t.context.s, '\n') + 1, t.choice[t.gold].s);
        CHECKF(times(t.context.s, entry) == 1, "no line '%s'", entry);
        int listed = 0;
        for (int i = 0; i < t.n_choices; i++) {
            for (int j = 0; j < i; j++) CHECK(strcmp(t.choice[i].s, t.choice[j].s));
            listed += times(t.context.s, t.choice[i].s);
        }
        CHECKF(listed == (size[k] < 4 ? size[k] : 4), "%d choices are listed", listed);
        free(entry);
        cm_probe_text_free(&t);
    }
    cm_probe_text t;
    CHECK(!cm_probe_phonebook(600, 3, 4, spm, 9, 1, &t, &err));
    cm_spm_close(spm);
}

/* ---- degeneration ---------------------------------------------------------------------- */

TEST(degeneration_of_known_rows) {
    /* eval_test_vectors "rep": a b c a b c a b c d */
    int32_t id[] = { 1, 2, 3, 1, 2, 3, 1, 2, 3, 4 };
    cm_degen d = cm_degen_measure(id, 10, "abcabcabcd", 10);
    CHECK(fabs(d.seq_rep_4 - 3.0 / 7) < 1e-15 && fabs(d.distinct_2 - 4.0 / 9) < 1e-15);
    CHECK(!d.loop && d.period == 0 && d.bytes == 10);
    d = cm_degen_measure(id, 9, "abcabcabc", 9);
    CHECK(d.loop && d.period == 3);
    d = cm_degen_measure(id, 8, "abcabcab", 8); /* the third turn is not complete */
    CHECK(!d.loop);
    int32_t five[] = { 9, 8, 7, 5, 5, 5 };
    d = cm_degen_measure(five, 6, "", 0);
    CHECK(d.loop && d.period == 1 && d.packed > 0);
    d = cm_degen_measure(five, 1, "x", 1);
    CHECK(isnan(d.seq_rep_4) && isnan(d.distinct_2) && !d.loop);
    d = cm_degen_measure(NULL, 0, "", 0);
    CHECK(!d.loop && isnan(d.distinct_2));
    int32_t far[3 * 65];
    for (int i = 0; i < 3 * 65; i++) far[i] = i % 65;
    CHECK(!cm_degen_measure(far, 3 * 65, "", 0).loop);
    for (int i = 0; i < 3 * 64; i++) far[i] = i % 64;
    CHECK(cm_degen_measure(far, 3 * 64, "", 0).period == 64);
    char same[1000], mixed[1000];
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    for (int i = 0; i < 1000; i++) {
        same[i] = "ab"[i & 1];
        mixed[i] = (char)cm_rng_below(r, (uint64_t)i, 256);
    }
    cm_degen a = cm_degen_measure(NULL, 0, same, 1000), b = cm_degen_measure(NULL, 0, mixed, 1000);
    CHECKF(a.bytes / a.packed > 20 && b.bytes / b.packed <= 1, "%g %g", a.packed, b.packed);
}

/* ---- contamination ---------------------------------------------------------------------- */

enum { WORDS = 400 };

/* Straight from the definition: does the n-gram of item units at i stand in the corpus? */
static bool stands(const char *item, int from, int n, const char *const *doc, int docs,
                   int doc_words) {
    for (int d = 0; d < docs; d++)
        for (int j = 0; j + n <= doc_words; j++)
            if (!memcmp(item + from, doc[d] + j, (size_t)n)) return true;
    return false;
}

static cm_overlap naive(const char *item, int units, int n, int least,
                        const char *const *doc, int docs, int doc_words) {
    cm_overlap o = { .units = units };
    bool in[WORDS] = { false };
    if (units < n) n = units >= least ? units : 0;
    o.grams = n ? units - n + 1 : 0;
    int64_t run = 0, end = 0, covered = 0;
    for (int i = 0; i < o.grams; i++) {
        if (!stands(item, i, n, doc, docs, doc_words)) continue;
        o.hits++;
        run = i < end ? run + i + n - end : n;
        end = i + n;
        if (run > o.longest) o.longest = run;
        for (int k = i; k < i + n; k++) in[k] = true;
    }
    for (int i = 0; i < units; i++) covered += in[i];
    o.coverage = units ? (double)covered / units : 0;
    return o;
}

static void spell(const char *unit, int n, cm_buf *out) {
    out->n = 0;
    for (int i = 0; i < n; i++) /* the same word in several guises */
        cm_buf_addf(out, i % 3 ? "w%c, " : "\xe2\x80\x9cW%c\xe2\x80\x9d\n", unit[i]);
}

/* Words from an alphabet so small that overlaps of every length occur by chance. */
TEST(overlap_is_what_a_naive_search_finds) {
    enum { DOCS = 6, DOC = 60, ITEMS = 200 };
    char doc[DOCS][DOC], item[ITEMS][40];
    const char *docs[DOCS];
    int len[ITEMS];
    cm_rng r = cm_rng_make(4, CM_RNG_TEST, 0);
    uint64_t at = 0;
    cm_buf text = { 0 };
    for (int d = 0; d < DOCS; d++, docs[d - 1] = doc[d - 1])
        for (int i = 0; i < DOC; i++) doc[d][i] = (char)('a' + cm_rng_below(r, at++, 3));
    cm_contam *words = cm_contam_open(5, 3), *ids = cm_contam_open(5, 3);
    for (int k = 0; k < ITEMS; k++) {
        len[k] = (int)cm_rng_below(r, at++, 40);
        int32_t id[40];
        for (int i = 0; i < len[k]; i++)
            id[i] = item[k][i] = (char)('a' + cm_rng_below(r, at++, 3));
        spell(item[k], len[k], &text);
        CHECK(cm_contam_add_words(words, text.s ? text.s : "", text.n) == k);
        CHECK(cm_contam_add_ids(ids, id, len[k]) == k);
    }
    for (int d = 0; d < DOCS; d++) {
        int32_t id[DOC];
        for (int i = 0; i < DOC; i++) id[i] = doc[d][i];
        spell(doc[d], DOC, &text);
        size_t half = (size_t)(strchr(text.s + text.n / 2, ',') - text.s) + 1;
        cm_contam_document(words);
        cm_contam_scan_words(words, text.s, half); /* in two pieces */
        cm_contam_scan_words(words, text.s + half, text.n - half);
        cm_contam_document(ids);
        cm_contam_scan_ids(ids, id, DOC);
    }
    CHECK(cm_contam_scanned(words) == DOCS * DOC);
    int partly = 0, none = 0;
    for (int k = 0; k < ITEMS; k++) {
        cm_overlap want = naive(item[k], len[k], 5, 3, docs, DOCS, DOC);
        cm_overlap got = cm_contam_item(words, k), tok = cm_contam_item(ids, k);
        CHECKF(got.units == want.units && got.grams == want.grams && got.hits == want.hits &&
                   got.longest == want.longest && got.coverage == want.coverage,
               "item %d of %d: hits %lld of %lld, longest %lld of %lld, %g of %g", k, len[k],
               (long long)got.hits, (long long)want.hits, (long long)got.longest,
               (long long)want.longest, got.coverage, want.coverage);
        CHECK(!memcmp(&got, &tok, sizeof got));
        partly += got.coverage > 0 && got.coverage < 1;
        none += got.coverage == 0;
    }
    CHECKF(partly > 20 && none > 5, "%d items partly, %d not at all", partly, none);
    cm_contam_close(words);
    cm_contam_close(ids);
    cm_buf_free(&text);
}

TEST(words_as_compared) {
    cm_buf b = { 0 };
    const char *text = " \xe2\x80\x9c" "Don\xe2\x80\x99t\xe2\x80\x9d, she SAID\xe2\x80\x94to "
                       "\xe0\xa4\xb9\xe0\xa5\x88\xe0\xa5\xa4 --- x-ray\xc2\xa0" "3.5\n";
    cm_contam_normal(text, strlen(text), &b);
    CHECKF(!strcmp(b.s, "dont she said to \xe0\xa4\xb9\xe0\xa5\x88 xray 35"), "'%s'", b.s);
    cm_buf_free(&b);
}

/* ---- fertility ---------------------------------------------------------------------------- */

TEST(fertility_counts) {
    cm_spm *s = spm_of(420);
    const char *text = "the the zq\n\xe0\xa4\xb9\xe0\xa5\x88 the 42!  \n\n";
    cm_fertility whole = { 0 }, script[CM_N_SCRIPTS] = { { 0 } };
    cm_err err;
    CHECK(cm_fertility_add(&whole, script, s, text, strlen(text), &err));
    int latin = 0, deva = 5, none = CM_N_SCRIPTS - 1;
    CHECKF(whole.lines == 3 && whole.words == 6 && whole.changed == 0, "%lld lines, %lld words",
           (long long)whole.lines, (long long)whole.words);
    CHECK(whole.bytes == (int64_t)strlen(text) - 3);
    CHECK(script[latin].words == 4 && script[deva].words == 1 && script[none].words == 1);
    CHECKF(script[deva].fallback == 6 && script[deva].continued == 1 && whole.fallback >= 6,
           "%lld byte pieces", (long long)script[deva].fallback);
    CHECK(!strcmp(cm_script_name(latin), "latin") && !strcmp(cm_script_name(deva), "devanagari"));
    /* All but the blanks at a line's end belongs to some word. */
    int64_t tokens = 0, bytes = 0, chars = 0, words = 0, continued = 0;
    for (int k = 0; k < CM_N_SCRIPTS; k++) {
        tokens += script[k].tokens;
        bytes += script[k].bytes;
        chars += script[k].chars;
        words += script[k].words;
        continued += script[k].continued;
    }
    CHECK(words == whole.words && continued == whole.continued);
    CHECK(bytes == whole.bytes - 2 && chars == whole.chars - 2);
    CHECKF(tokens >= whole.tokens - 2 && tokens < whole.tokens, "%lld tokens of %lld",
           (long long)tokens, (long long)whole.tokens);
    int64_t n = 0, cap = 0;
    int32_t *id = NULL;
    CHECK(cm_spm_encode(s, "the the zq", 10, &id, &n, &cap, &err));
    /* Blanks of their own do not make a word continued. */
    cm_fertility two = { 0 }, parts[CM_N_SCRIPTS] = { { 0 } };
    CHECK(cm_fertility_add(&two, parts, s, "a    b", 6, &err));
    CHECKF(two.words == 2 && two.tokens > 2 && two.continued == 0, "%lld continued",
           (long long)two.continued);
    CHECK(script[latin].tokens >= n && cm_script_of('7') == -1 && cm_script_of(0x928) == deva);
    free(id);
    cm_spm_close(s);
}

/* ---- the card's arithmetic ---------------------------------------------------------------- */

TEST(card_of_known_numbers) {
    cm_kl_pos p[] = {
        { .kl = 0.1, .nll = 1.0, .ref = 0.8, .dp = -0.1, .same = 1 },
        { .kl = 0.3, .nll = 2.0, .ref = 2.1, .dp = 0.3, .same = 0 },
        { .kl = 0.2, .nll = 0.5, .ref = 0.4, .dp = 0.1, .same = 1 },
        { .kl = 0.2, .nll = 1.5, .ref = 1.2, .dp = -0.1, .same = 1 },
    };
    int64_t row[] = { 0, 0, 1, 1 };
    cm_kl_card c;
    cm_kl_card_of(p, row, 4, &c);
    CHECK(c.n == 4 && c.rows == 2);
    CHECK(fabs(c.kl.value - 0.2) < 1e-15 && fabs(c.kl.se - sqrt(0.02 / 12)) < 1e-15);
    CHECK(fabs(c.kl.se_clustered) < 1e-15); /* both rows have the same sum */
    CHECK(fabs(c.ln_ratio.value - 0.125) < 1e-15);
    CHECK(fabs(c.ratio.value - exp(1.25) / exp(1.125)) < 1e-12);
    CHECK(fabs(c.ratio.se - exp(0.125) * c.ln_ratio.se) < 1e-15);
    /* Sums of ln ratio by row: 0.1 and 0.4; about the mean -0.15, 0.15. */
    CHECK(fabs(c.ln_ratio.se_clustered - sqrt(2 * 0.0225 * 2) / 4) < 1e-15);
    CHECK(c.same.value == 0.75 && fabs(c.dp_rms.value - sqrt(0.03)) < 1e-15);
    CHECK(c.kl_q[0] == 0.1 && fabs(c.kl_q[5] - 0.2) < 1e-15 && c.kl_q[10] == 0.3);
    double va = 0, vb = 0, cov = 0; /* se of the difference, from variances and covariance */
    for (int i = 0; i < 4; i++) {
        va += (p[i].nll - 1.25) * (p[i].nll - 1.25) / 12;
        vb += (p[i].ref - 1.125) * (p[i].ref - 1.125) / 12;
        cov += (p[i].nll - 1.25) * (p[i].ref - 1.125) / 12;
    }
    double a = exp(1.25), b = exp(1.125);
    CHECK(fabs(c.diff.value - (a - b)) < 1e-12);
    CHECK(fabs(c.diff.se - sqrt(a * a * va + b * b * vb - 2 * a * b * cov)) < 1e-12);
}
