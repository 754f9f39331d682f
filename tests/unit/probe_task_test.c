/* probe_task_test.c -- probes as tasks: what is asked, scored and derived, by hand. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/harness.h"
#include "tests/t.h"

#define DIR "tests/golden/gguf/"

static cm_loaded *model(void) {
    static cm_loaded l;
    static bool open;
    cm_err err;
    CM_ASSERT(open || (cm_kern_init(CM_NUMERICS_STRICT, 2, &err) &&
                       cm_load(&l, DIR "moe.f32.gguf", false, &err)), "%s", err.msg);
    open = true;
    return &l;
}

static const cm_eval_conf plain = { .data = DIR, .shots = -1, .reference = "",
                                    .field = "text" };

static bool open_task(cm_eval_task *t, const char *yaml, const cm_eval_conf *conf) {
    cm_err err;
    bool ok = cm_task_open_text(t, "test", yaml, conf, &err) &&
              (cm_task_build(t, model(), &err) || (cm_task_close(t), false));
    CHECKF(ok, "%s", err.msg);
    return ok;
}

static void refused(const char *yaml, const cm_eval_conf *conf, const char *why) {
    cm_eval_task t;
    cm_err err = { 0 };
    bool ok = cm_task_open_text(&t, "test", yaml, conf, &err);
    if (ok) {
        ok = cm_task_build(&t, model(), &err);
        cm_task_close(&t);
    }
    CHECKF(!ok && strstr(err.msg, why), "'%s', wanted '%s'", err.msg, why);
}

/* Answer an ask straight from the logits. */
static void answer(cm_eval_task *t, cm_ask *a) {
    cm_scorer s;
    cm_err err;
    int64_t V = model()->model.conf.vocab_size;
    CM_ASSERT(cm_scorer_open(&s, &model()->model, a->n, &err), "%s", err.msg);
    a->logp = cm_pool_get(&t->pool, (size_t)(a->n - a->first) * sizeof *a->logp);
    a->greedy = cm_pool_get(&t->pool, (size_t)(a->n - a->first) * sizeof *a->greedy);
    double *nll = calloc((size_t)a->n, sizeof *nll);
    cm_score(&s, a->token, a->n, a->first - 1, nll);
    cm_scorer_read(&s, a->token, a->n);
    for (int i = a->first; i < a->n; i++) {
        a->logp[i - a->first] = -nll[i - 1];
        a->greedy[i - a->first] = cm_argmax(cm_scorer_logits(&s, i - 1, 1), (int)V) ==
                                  a->token[i];
    }
    free(nll);
    cm_scorer_close(&s);
}

/* Score question k; the detail as JSON. */
static cJSON *score(cm_eval_task *t, int64_t k, cm_item *it) {
    cm_question *q = &t->q[k];
    for (int i = 0; i < q->n_asks; i++)
        if (!q->ask[i].max_new) answer(t, &q->ask[i]);
    cm_buf d = { 0 };
    *it = (cm_item){ .task = t->name, .id = q->id };
    cm_json_open(&d, NULL, '{');
    t->kind->score(t, q, it, &d);
    cm_json_close(&d, '{');
    cJSON *o = cJSON_Parse(d.s);
    CHECKF(o != NULL, "detail is no JSON: %.80s", d.s);
    cm_buf_free(&d);
    return o;
}

static cm_score_val got(const cm_item *it, const char *metric) {
    for (int i = 0; i < it->n_scores; i++)
        if (!strcmp(it->score[i].metric->name, metric)) return it->score[i].val;
    return (cm_score_val){ NAN, NAN };
}

static const cJSON *member(const cJSON *o, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(o, key);
}
static double at(const cJSON *o, int i) {
    const cJSON *v = cJSON_GetArrayItem(o, i);
    return v ? v->valuedouble : NAN;
}

/* ---- rows ------------------------------------------------------------------------ */

TEST(mqar_is_scored_at_its_queries) {
    cm_eval_task t;
    cm_eval_conf conf = plain;
    conf.context = 16; /* generated rows are not cut to it */
    if (!open_task(&t, "task:\n  kind: mqar\n  lengths: [12, 32]\n  pairs: [2, 6]\n"
                       "  items: 3\n  seed: 5\n", &conf)) return;
    CHECKF(t.n == 9, "%d items", (int)t.n); /* 6 pairs do not fit 12 tokens */
    CHECK(!strcmp(t.q[0].id, "pairs=2,length=12/0") && t.q[8].ask->n == 33);
    for (int64_t k = 0; k < t.n; k++) {
        cm_item it;
        cJSON *d = score(&t, k, &it);
        const cm_ask *a = t.q[k].ask;
        int pairs = k < 6 ? 2 : 6, right = 0;
        double nll = 0, parts = 0, asked = 0;
        CHECK(a->cut == 0 && a->token[0] == cm_spm_bos(model()->spm));
        for (int p = 0; p < pairs; p++) { /* find the query of each key */
            int i = 1 + 2 * pairs;
            while (a->token[i] != a->token[1 + 2 * p]) i++;
            CHECK(a->token[i + 1] == a->token[2 + 2 * p]);
            nll -= a->logp[i + 1 - a->first];
            right += a->greedy[i + 1 - a->first];
        }
        CHECK(fabs(got(&it, "ppl_token").num - nll) < 1e-12 &&
              got(&it, "ppl_token").den == pairs);
        CHECK(got(&it, "acc").num == (double)right / pairs && got(&it, "acc").den == 1);
        const cJSON *s;
        cJSON_ArrayForEach(s, member(d, "slices")) {
            parts += at(member(s, "ppl_token"), 0);
            asked += at(member(s, "acc"), 1);
        }
        CHECKF(fabs(parts - nll) < 1e-9 && asked == pairs, "slices hold %g queries", asked);
        cJSON_Delete(d);
    }
    cm_eval_task u;
    conf = plain;
    if (open_task(&u, "task:\n  kind: mqar\n  lengths: [12]\n  pairs: [2]\n  items: 3\n"
                      "  seed: 6\n", &conf)) {
        CHECK(strcmp(u.q[0].hash, t.q[0].hash) && !strcmp(u.q[0].id, t.q[0].id));
        cm_task_close(&u);
    }
    cm_task_close(&t);
    refused("task:\n  kind: mqar\n  pairs: [x]\n", &plain, "task.pairs: 'x' is no number");
    refused("task:\n  kind: mqar\n  pairs: [200]\n  lengths: [1024]\n", &plain,
            "ordinary pieces");
    refused("task:\n  kind: mqar\n  pairs: [8]\n  lengths: [16]\n", &plain, "no items");
}

TEST(copy_gain_is_first_less_second) {
    cm_eval_task t;
    if (!open_task(&t, "task:\n  kind: copy\n  blocks: [8]\n  copies: 2\n  items: 2\n",
                   &plain)) return;
    cm_item it;
    cJSON *d = score(&t, 1, &it);
    const cm_ask *a = t.q[1].ask;
    double nll[3] = { 0 };
    CHECK(a->n == 1 + 3 * 8 && a->first == 2);
    for (int k = 0; k < 3; k++)
        for (int i = 1; i < 8; i++) {
            CHECK(a->token[1 + k * 8 + i] == a->token[1 + i]);
            nll[k] -= a->logp[1 + k * 8 + i - a->first];
        }
    CHECK(fabs(got(&it, "copy_gain").num - (nll[0] / 7 - (nll[1] + nll[2]) / 14)) < 1e-12);
    CHECK(fabs(got(&it, "ppl_token").num - nll[1] - nll[2]) < 1e-12);
    CHECK(fabs(at(member(member(member(d, "slices"), "copy=0"), "ppl_token"), 0) - nll[0]) <
          1e-12);
    CHECK(!strcmp(member(d, "slice")->valuestring, "block=8"));
    cJSON_Delete(d);
    cm_task_close(&t);
}

/* ---- texts ----------------------------------------------------------------------- */

TEST(needles_are_choices_in_a_grid) {
    cm_eval_task t;
    if (!open_task(&t, "task:\n  kind: needle\n  lengths: [200]\n  depths: [0, 0.5, 1]\n"
                       "  items: 2\n  options: 3\n", &plain)) return;
    CHECKF(t.n == 6, "%d items", (int)t.n);
    cm_item it;
    cJSON *d = score(&t, 2, &it);
    CHECK(!strcmp(t.q[2].id, "depth=0.5,length=200/0") &&
          !strcmp(t.q[2].group, "length=200/0") && !strcmp(t.q[0].group, t.q[2].group));
    CHECK(!strcmp(member(d, "slice")->valuestring, "depth=0.5,length=200"));
    double L[3], best = -INFINITY, right = 0;
    for (int i = 0; i < 3; i++) {
        L[i] = cm_ask_loglik(&t.q[2].ask[i]);
        if (t.q[2].right[i]) right = L[i];
        else best = L[i] > best ? L[i] : best;
    }
    CHECK(fabs(got(&it, "margin").num - (right - best)) < 1e-12);
    CHECK(got(&it, "acc").num == (right > best) && !isnan(got(&it, "greedy").num));
    cJSON_Delete(d);
    cm_task_close(&t);
    if (!open_task(&t, "task:\n  kind: needle\n  lengths: [600]\n  items: 1\n"
                       "  data: [ppl.txt]\n  split: file\n  depths: [0.5]\n", &plain)) return;
    CHECK(!strstr(t.q[0].prompt, "The grass is green.") && t.data_json.n > 2);
    cm_task_close(&t);
    if (!open_task(&t, "task:\n  kind: phonebook\n  entries: [3, 5]\n  items: 2\n", &plain))
        return;
    CHECK(t.n == 4 && t.q[0].n_choices == 4 && !strcmp(t.q[3].id, "entries=5/1"));
    cm_task_close(&t);
}

/* ---- running text ---------------------------------------------------------------- */

static const char *lines(void) {
    static char path[256];
    char *p = cm_strf("%s/lines.txt", t_tmpdir());
    snprintf(path, sizeof path, "%s", p);
    free(p);
    cm_err err;
    const char *text = "short\nOf all the words that were ever said to the king of the north\n"
                       "And then he went away again and said to her that it was not the end\n";
    CM_ASSERT(cm_write_file(path, text, strlen(text), &err), "%s", err.msg);
    return path;
}

TEST(curve_by_position) {
    cm_eval_task t;
    cm_eval_conf conf = plain;
    conf.context = 8;
    char *yaml = cm_strf("task:\n  kind: curve\n  data: [%s]\n  split: line\n"
                         "  lengths: [20]\n", lines());
    if (!open_task(&t, yaml, &conf)) return;
    CHECKF(t.n == 2 && !strcmp(t.q[0].id, "1"), "%d rows", (int)t.n); /* the short one is out */
    cm_item it;
    cJSON *d = score(&t, 0, &it);
    const cm_ask *a = t.q[0].ask;
    CHECK(a->n == 20 && a->first == 1 && a->cut == 0);
    cm_buf text = { 0 };
    double nll = 0, parts = 0;
    for (int i = 1; i < 20; i++) {
        nll -= a->logp[i - 1];
        cm_spm_token_bytes(model()->spm, a->token[i], &text);
    }
    CHECK(fabs(got(&it, "bits_per_byte").num - nll / log(2)) < 1e-9 &&
          got(&it, "bits_per_byte").den == (double)text.n);
    const cJSON *s, *slices = member(d, "slices");
    cJSON_ArrayForEach(s, slices) parts += at(member(s, "ppl_token"), 0);
    CHECK(fabs(parts - nll) < 1e-9 && cJSON_GetArraySize(slices) == 5);
    CHECK(at(member(member(slices, "position=16-31"), "ppl_token"), 1) == 4);
    CHECK(fabs(at(member(member(slices, "position=2-3"), "ppl_token"), 0) + a->logp[1] +
               a->logp[2]) < 1e-12);
    cm_buf_free(&text);
    cJSON_Delete(d);
    cm_task_close(&t);
    free(yaml);
    yaml = cm_strf("task:\n  kind: curve\n  data: [%s]\n  split: line\n  lengths: [30]\n"
                   "  join: true\n", lines());
    if (open_task(&t, yaml, &plain)) {
        CHECK(t.n >= 2 && t.q[1].ask->n == 30 &&
              t.q[1].ask->token[0] == cm_spm_bos(model()->spm));
        cm_task_close(&t);
    }
    free(yaml);
    yaml = cm_strf("task:\n  kind: curve\n  data: [%s]\n  split: line\n  lengths: [900]\n",
                   lines());
    refused(yaml, &plain, "no text of 900 tokens");
    free(yaml);
    refused("task:\n  kind: curve\n", &plain, "wants files of text");
}

TEST(degeneration_beside_the_document_itself) {
    cm_eval_task t;
    char *yaml = cm_strf("task:\n  kind: degen\n  data: [%s]\n  split: line\n"
                         "  prompt_tokens: 4\n  max_new_tokens: 12\n", lines());
    if (!open_task(&t, yaml, &plain)) return;
    CHECKF(t.n == 2, "%d items", (int)t.n);
    cm_question *q = &t.q[0];
    CHECK(q->ask->n == 5 && q->ask->first == 5 && q->ask->max_new == 12);
    /* As if the model had written the document's own tokens... */
    int64_t n = 0, cap = 0;
    int32_t *id = NULL;
    cm_err err;
    const char *doc = "Of all the words that were ever said to the king of the north";
    CHECK(cm_spm_encode(model()->spm, doc, strlen(doc), &id, &n, &cap, &err));
    q->ask->out = id + 4;
    q->ask->n_out = 8;
    char *text = cm_spm_decode(model()->spm, id + 4, 8);
    q->ask->text = text;
    q->ask->bytes = strlen(text);
    cm_item it;
    cJSON *d = score(&t, 0, &it);
    const cJSON *human = member(d, "human");
    CHECK(got(&it, "distinct_2").num == member(human, "distinct_2")->valuedouble);
    CHECK(got(&it, "compression").num == at(member(human, "compression"), 0));
    CHECK(got(&it, "gen_tokens").num == 8 && member(human, "gen_tokens")->valuedouble == 8);
    cJSON_Delete(d);
    /* ... or nothing at all. */
    q->ask->n_out = 0;
    q->ask->text = "";
    q->ask->bytes = 0;
    d = score(&t, 0, &it);
    CHECK(isnan(got(&it, "seq_rep_4").num) && isnan(got(&it, "compression").num) &&
          got(&it, "loop").num == 0);
    cJSON_Delete(d);
    free(text);
    free(id);
    cm_task_close(&t);
    free(yaml);
    cm_eval_conf conf = plain;
    conf.context = 10;
    yaml = cm_strf("task:\n  kind: degen\n  data: [%s]\n  split: line\n", lines());
    refused(yaml, &conf, "exceed the context of 10");
    free(yaml);
}

TEST(card_of_a_model_with_itself_and_refusals) {
    cm_eval_task t;
    cm_eval_conf conf = plain;
    conf.reference = DIR "moe.f32.gguf";
    const char *yaml = "task:\n  kind: kl\n  data: [ppl.txt]\n  split: file\n  lengths: [64]\n"
                       "  skip: 32\n  join: true\n";
    if (!open_task(&t, yaml, &conf)) return;
    cm_item it;
    cJSON *d = score(&t, 3, &it);
    CHECK(t.q[3].n_asks == 0 && got(&it, "kl").num == 0 && got(&it, "kl").den == 31);
    CHECK(got(&it, "same_top1").num == 31 && got(&it, "ppl_ratio").num == 0);
    CHECK(cJSON_GetArraySize(member(member(d, "card"), "nll")) == 31);
    cJSON_Delete(d);
    cm_task_close(&t);
    refused(yaml, &plain, "--reference PATH");
    refused("task:\n  kind: kl\n  data: [ppl.txt]\n  lengths: [64]\n  skip: 63\n", &conf,
            "leaves nothing of rows of 64");
    conf.reference = DIR "none.gguf";
    refused(yaml, &conf, "none.gguf");
}

/* Another model on the same tokens: far enough apart that KL(p||q) is not KL(q||p). */
TEST(divergence_by_hand) {
    enum { T = 12 };
    cm_loaded other;
    cm_scorer sp, sq;
    cm_err err;
    const cm_model *p = &model()->model;
    int64_t V = p->conf.vocab_size;
    CM_ASSERT(cm_load(&other, DIR "dense.f32.gguf", false, &err) &&
                  cm_scorer_open(&sp, p, T, &err) &&
                  cm_scorer_open(&sq, &other.model, T, &err), "%s", err.msg);
    int32_t id[T];
    cm_kl_pos pos[T];
    for (int i = 0; i < T; i++) id[i] = 5 + 19 * i;
    cm_kl_score(&sp, &sq, id, T, 2, pos);
    cm_scorer_read(&sp, id, T);
    cm_scorer_read(&sq, id, T);
    double forth = 0, back = 0;
    for (int r = 2; r < T - 1; r++) {
        const cm_real *a = cm_scorer_logits(&sp, r, 1), *b = cm_scorer_logits(&sq, r, 1);
        double za = 0, zb = 0, kl = 0, kl_back = 0;
        for (int64_t v = 0; v < V; v++) za += exp((double)a[v]), zb += exp((double)b[v]);
        for (int64_t v = 0; v < V; v++) {
            double x = exp((double)a[v]) / za, y = exp((double)b[v]) / zb;
            kl += x * log(x / y);
            kl_back += y * log(y / x);
        }
        int32_t k = id[r + 1];
        double pa = exp((double)a[k]) / za, pb = exp((double)b[k]) / zb;
        CHECKF(fabs(pos[r].kl - kl) < 1e-12 * (1 + kl), "position %d: %.15g, by hand %.15g", r,
               pos[r].kl, kl);
        CHECK(fabs(pos[r].ref + log(pa)) < 1e-12 && fabs(pos[r].nll + log(pb)) < 1e-12);
        CHECK(fabs(pos[r].dp - (pb - pa)) < 1e-14);
        CHECK(pos[r].same == (cm_argmax(a, (int)V) == cm_argmax(b, (int)V)));
        forth += kl;
        back += kl_back;
    }
    CHECKF(fabs(forth - back) > 1e-6 * forth, "%g both ways", forth);
    cm_scorer_close(&sp);
    cm_scorer_close(&sq);
    cm_loaded_close(&other);
}

/* ---- what is derived from records ------------------------------------------------ */

static cJSON *derive(const char *detail[], int n, int n_columns, cm_column *column,
                     const char *primary) {
    int32_t cluster[8];
    char name[] = "t";
    for (int i = 0; i < n; i++) cluster[i] = i;
    cm_task_result t = { .name = name, .primary = (char *)(uintptr_t)primary, .n = n,
                         .n_clusters = n, .detail = (char **)(uintptr_t)detail,
                         .cluster = cluster, .n_columns = n_columns, .column = column };
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    cm_results_derived(NULL, &t, &b);
    cm_json_close(&b, '{');
    cJSON *o = cJSON_Parse(b.s);
    CHECKF(o != NULL, "%s", b.s);
    cm_buf_free(&b);
    return o;
}

static double value(const cJSON *o, const char *a, const char *b) {
    const cJSON *v = member(member(o, a), b);
    return v ? v->valuedouble : NAN;
}

TEST(slices_and_human_reference) {
    const char *detail[] = {
        "{\"slice\":\"k=16\",\"slices\":{\"gap=8-15\":{\"acc\":[1,2]},\"gap=2-3\":"
        "{\"acc\":[0,1],\"ppl_token\":[2,2]}},\"human\":{\"loop\":1,\"compression\":[10,4]}}",
        "{\"slice\":\"k=4\",\"slices\":{\"gap=8-15\":{\"acc\":[1,1]}},"
        "\"human\":{\"loop\":0,\"compression\":[20,8]}}",
        NULL,
    };
    cm_score_val v[] = { { 1, 1 }, { 0.5, 1 }, { 0, 1 } };
    cm_column c = { .metric = cm_metric_find("acc"), .v = v };
    cJSON *o = derive(detail, 3, 1, &c, "acc");
    const cJSON *s = member(o, "slices");
    static const char *const order[] = { "k=16", "k=4", "gap=2-3", "gap=8-15" };
    for (int i = 0; i < 4; i++) {
        const cJSON *e = cJSON_GetArrayItem(s, i);
        CHECKF(e && !strcmp(e->string, order[i]), "slice %d", i);
    }
    CHECK(value(s, "k=16", "acc") == 1 && value(s, "k=4", "acc") == 0.5);
    CHECK(value(s, "gap=8-15", "acc") == 2.0 / 3 && value(s, "gap=8-15", "n") == 2 &&
          value(s, "gap=8-15", "of") == 3);
    CHECK(fabs(value(s, "gap=2-3", "ppl_token") - exp(1)) < 1e-12);
    CHECK(value(o, "human", "loop") == 0.5 && value(o, "human", "compression") == 2.5);
    cJSON_Delete(o);
}

TEST(reliability_bins) {
    const char *detail[] = { NULL, NULL, NULL, NULL };
    cm_score_val conf[] = { { 0.2, 1 }, { 0.21, 1 }, { 1, 1 }, { 0, 0 } };
    cm_score_val acc[] = { { 0, 1 }, { 1, 1 }, { 1, 1 }, { 1, 1 } };
    cm_column c[] = { { .metric = cm_metric_find("acc"), .v = acc },
                      { .metric = cm_metric_find("conf"), .v = conf },
                      { .metric = cm_metric_find("ece"), .v = acc } };
    cJSON *o = derive(detail, 4, 3, c, "acc");
    const cJSON *bins = member(o, "bins");
    CHECK(cJSON_GetArraySize(bins) == 15);
    const cJSON *b = cJSON_GetArrayItem(bins, 2); /* (2/15, 3/15] holds 0.2 */
    CHECK(member(b, "n")->valuedouble == 1 && member(b, "conf")->valuedouble == 0.2 &&
          member(b, "acc")->valuedouble == 0);
    CHECK(member(cJSON_GetArrayItem(bins, 3), "n")->valuedouble == 1 &&
          member(cJSON_GetArrayItem(bins, 14), "n")->valuedouble == 1 &&
          !member(cJSON_GetArrayItem(bins, 0), "conf"));
    CHECKF(fabs(value(o, "calibration", "ece") - (0.2 + 0.79 + 0) / 3) < 1e-12, "ece %g",
           value(o, "calibration", "ece"));
    CHECK(value(o, "calibration", "ece_lo") <= value(o, "calibration", "ece_hi"));
    cJSON_Delete(o);
}

TEST(clean_against_contaminated) {
    const char *detail[] = {
        "{\"contamination\":{\"coverage\":0.5,\"contaminated\":true}}",
        "{\"contamination\":{\"coverage\":0,\"contaminated\":false}}",
        "{\"contamination\":{\"coverage\":0,\"contaminated\":false}}",
        "{\"contamination\":{\"coverage\":1,\"contaminated\":true}}",
        "{\"contamination\":{\"words\":3,\"grams\":0}}", /* too short: on neither side */
    };
    cm_score_val v[] = { { 1, 1 }, { 0, 1 }, { 1, 1 }, { 1, 1 }, { 0, 1 } };
    cm_column c = { .metric = cm_metric_find("acc"), .v = v };
    cJSON *o = derive(detail, 5, 1, &c, "acc");
    const cJSON *x = member(o, "contamination");
    CHECK(value(x, "clean", "n") == 2 && value(x, "clean", "acc") == 0.5);
    CHECK(value(x, "contaminated", "n") == 2 && value(x, "contaminated", "acc") == 1);
    double se = 0.5; /* sample deviation of {0,1} over sqrt 2; the other side has none */
    CHECK(member(x, "difference")->valuedouble == 0.5);
    CHECKF(fabs(member(x, "difference_hi")->valuedouble - (0.5 + 1.959963984540054 * se)) < 1e-9,
           "hi %.12g", member(x, "difference_hi")->valuedouble);
    CHECK(member(x, "mean_coverage")->valuedouble == 0.375 &&
          member(x, "largest_coverage")->valuedouble == 1);
    cJSON_Delete(o);
}

/* The records of a card give the card of the positions themselves. */
TEST(card_from_records) {
    const char *detail[] = {
        "{\"card\":{\"kl\":[0.1,0.3],\"nll\":[1,2],\"ref\":[0.8,2.1],\"same\":[1,0]}}",
        "{\"card\":{\"kl\":[0.2,0],\"nll\":[0.5,1.5],\"ref\":[0.4,1.2],\"same\":[1,1]}}",
    };
    cm_kl_pos p[] = { { 0.1, 1, 0.8, exp(-1) - exp(-0.8), 1 },
                      { 0.3, 2, 2.1, exp(-2) - exp(-2.1), 0 },
                      { 0.2, 0.5, 0.4, exp(-0.5) - exp(-0.4), 1 },
                      { 0, 1.5, 1.2, exp(-1.5) - exp(-1.2), 1 } };
    int64_t row[] = { 0, 0, 1, 1 };
    cm_kl_card want;
    cm_kl_card_of(p, row, 4, &want);
    cJSON *o = derive(detail, 2, 0, NULL, "kl");
    const cJSON *c = member(o, "card"), *b;
    CHECK(value(c, "kl", "value") == want.kl.value && value(c, "kl", "stderr_iid") == want.kl.se);
    CHECK(value(c, "ln_ppl_ratio", "stderr") == want.ln_ratio.se_clustered);
    CHECK(value(c, "delta_p_rms", "value") == want.dp_rms.value);
    CHECK(value(c, "kl_quantiles", "0.9") == want.kl_q[6] && value(c, "rows", "x") != 0);
    double n = 0;
    cJSON_ArrayForEach(b, member(c, "kl_histogram")) {
        n += member(b, "n")->valuedouble;
        for (int i = 0; i < 4 && member(b, "n")->valuedouble > 0; i++)
            if (p[i].kl >= member(b, "lo")->valuedouble && p[i].kl < member(b, "hi")->valuedouble)
                n += 100;
    }
    CHECKF(n == 404, "%g", n); /* 4 positions, each in its bin */
    cJSON_Delete(o);
}

/* ---- retrieval ------------------------------------------------------------------- */

static const char *rag(const char *text) {
    static char path[256];
    char *p = cm_strf("%s/rag.jsonl", t_tmpdir());
    snprintf(path, sizeof path, "%s", p);
    free(p);
    cm_err err;
    CM_ASSERT(cm_write_file(path, text, strlen(text), &err), "%s", err.msg);
    return path;
}

static double cell(const cm_result *r, const char *metric, int i) {
    const cm_column *c = cm_task_column(&r->task[0], metric);
    return c && c->v[i].den > 0 ? c->v[i].num : NAN;
}

TEST(retrieval_by_hand) {
    cm_eval_conf conf = plain;
    conf.retrieval_k = 2;
    conf.retrieval_support = 0.6;
    char *dir = cm_strf("%s/rag", t_tmpdir());
    cm_err err;
    cm_buf table = { 0 };
    const char *path = rag(
        "{\"id\":\"a\",\"retrieved\":[{\"id\":\"x\",\"text\":\"The cat sat. It slept!\"},"
        "{\"id\":\"y\",\"relevant\":2,\"text\":\"Dogs ran home\"},{\"id\":\"z\","
        "\"text\":\"nothing\"},{\"id\":\"w\",\"text\":\"a bird\"}],"
        "\"relevant\":[\"y\",\"w\",\"v\"],\"answer\":\"The dogs ran away\","
        "\"reference\":\"Dogs ran. Birds flew away.\",\"group\":\"g\"}\n\n"
        "{\"id\":\"b\",\"retrieved\":[{\"relevant\":true,\"text\":\"Paris, of course\"}],"
        "\"answer\":\"It is paris.\",\"reference\":\"Paris\",\"n_relevant\":1,\"group\":\"g\"}\n"
        "{\"id\":\"c\",\"retrieved\":[{\"text\":\"no\"}]}\n"
        "{\"id\":\"d\",\"retrieved\":[{\"relevant\":1}],\"n_relevant\":3}\n");
    bool ok = cm_retrieval_eval(path, dir, &conf, CM_DONE_FAIL, &table, &err);
    CHECKF(ok, "%s", err.msg);
    cm_result r;
    if (!ok || !cm_result_read(&r, dir, true, &err)) {
        CHECKF(false, "%s", err.msg);
        return;
    }
    /* a: grades 0 2 0 1, three relevant in all, k = 2 */
    CHECK(fabs(cell(&r, "recall_at_k", 0) - 1.0 / 3) < 1e-15 &&
          cell(&r, "precision_at_k", 0) == 0.5 && cell(&r, "mrr", 0) == 0.5);
    CHECK(fabs(cell(&r, "map", 0) - (0.5 + 0.5) / 3) < 1e-15 &&
          cell(&r, "context_precision", 0) == 0.5);
    CHECK(fabs(cell(&r, "ndcg_at_k", 0) - (2 / log2(3)) / (2 + 1 / log2(3))) < 1e-12);
    CHECK(cell(&r, "context_recall", 0) == 0.5 && cell(&r, "groundedness", 0) == 0.75);
    CHECK(cell(&r, "mrr", 1) == 1 && cell(&r, "context_recall", 1) == 1);
    CHECK(fabs(cell(&r, "groundedness", 1) - 1.0 / 3) < 1e-15);
    /* c: nothing relevant, no answer: nothing to say but precision */
    CHECK(isnan(cell(&r, "recall_at_k", 2)) && isnan(cell(&r, "groundedness", 2)) &&
          cell(&r, "precision_at_k", 2) == 0 && isnan(cell(&r, "mrr", 2)));
    /* d: one of three relevant ones; the others would have been at rank 2 */
    CHECK(fabs(cell(&r, "ndcg_at_k", 3) - 1 / (1 + 1 / log2(3))) < 1e-12);
    CHECK(r.task[0].n_clusters == 3 && strstr(r.task[0].detail[0], "\"not_used\"") &&
          strstr(r.task[0].detail[1], "\"ungrounded\""));
    CHECK(strstr(table.s, "ndcg_at_k") && strstr(table.s, "not_used"));
    cm_result_free(&r);
    cm_buf_free(&table);
    free(dir);
}

static void rag_refused(const char *text, const char *why) {
    cm_eval_conf conf = plain;
    cm_buf table = { 0 };
    conf.retrieval_k = 10;
    char *dir = cm_strf("%s/rag-refused", t_tmpdir());
    cm_err err = { 0 };
    bool ok = cm_retrieval_eval(rag(text), dir, &conf, CM_DONE_REDO, &table, &err);
    CHECKF(!ok && err.code == CM_EXIT_DATA && strstr(err.msg, why), "%d '%s', wanted '%s'",
           err.code, err.msg, why);
    cm_buf_free(&table);
    free(dir);
}

TEST(retrieval_refuses) {
    rag_refused("", "holds no questions");
    rag_refused("{\"id\":\"a\",\"retrieved\":[]}\n{oops\n", "rag.jsonl:2: not JSON");
    rag_refused("{\"retrieved\":[]}\n", "rag.jsonl:1: no 'id'");
    rag_refused("{\"id\":\"a\"}\n", "no list 'retrieved'");
    rag_refused("{\"id\":\"a\",\"retrieved\":[3]}\n", "passage 1");
    rag_refused("{\"id\":\"a\",\"retrieved\":[{\"relevant\":-1}]}\n", "relevance of -1");
    rag_refused("{\"id\":\"a\",\"retrieved\":[{\"relevant\":1}],\"n_relevant\":0}\n",
                "only 0 there are");
    rag_refused("{\"id\":\"a\",\"retrieved\":[{\"relevant\":1}]}\n"
                "{\"id\":\"a\",\"retrieved\":[]}\n", "twice");
}
