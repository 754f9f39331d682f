/* task_test.c -- tasks: files, rows, prompts, tokens, filters; lm-evaluation-harness's
 * formulas on given log-likelihoods (tests/eval/parity.py made the numbers). */
#include "tests/unit/task_fixture.h"

/* ---- given answers ------------------------------------------------------------------ */

static void answer(cm_eval_task *t, cm_ask *a, double loglik) {
    size_t n = (size_t)(a->n - a->first);
    a->logp = cm_pool_get(&t->pool, n * sizeof *a->logp);
    a->greedy = cm_pool_get(&t->pool, n * sizeof *a->greedy);
    a->logp[0] = loglik; /* the others 0: the sum is loglik itself */
}

/* ---- parity -------------------------------------------------------------------------- */

static void same_as_golden(const char *name, const cJSON *golden) {
    cm_eval_task t;
    cm_err err;
    char path[256];
    snprintf(path, sizeof path, "tests/eval/%s.yaml", name);
    CM_ASSERT(cm_task_open(&t, path, &settings, &err), "%s", err.msg);
    CM_ASSERT(cm_task_build(&t, &model, &err), "%s", err.msg);
    const cJSON *L = cJSON_GetObjectItem(golden, "loglik"), *m;
    CHECKF(cJSON_GetArraySize(L) == t.n, "%s: %lld items", name, (long long)t.n);
    cm_item *item = calloc((size_t)t.n, sizeof *item);
    cm_score_val *v = calloc((size_t)t.n, sizeof *v);
    for (int i = 0; i < t.n; i++) {
        cm_question *q = &t.q[i];
        const cJSON *each = cJSON_GetArrayItem(L, i);
        for (int a = 0; a < q->n_asks; a++) {
            const cJSON *x = cJSON_GetArrayItem(each, a);
            answer(&t, &q->ask[a], x ? x->valuedouble : 0);
        }
        item[i] = score(&t, i);
    }
    cJSON_ArrayForEach(m, cJSON_GetObjectItem(golden, "metrics")) {
        char metric[64];
        snprintf(metric, sizeof metric, "%s", m->string);
        char *tail = strstr(metric, "_stderr");
        if (tail) *tail = 0;
        const cm_metric *def = cm_metric_find(metric);
        for (int i = 0; i < t.n; i++) {
            v[i] = (cm_score_val){ 0, 0 };
            for (int k = 0; k < item[i].n_scores; k++)
                if (item[i].score[k].metric == def) v[i] = item[i].score[k].val;
        }
        double got = tail ? cm_metric_stderr(def, v, NULL, t.n)
                          : cm_metric_value(def, v, NULL, NULL, t.n);
        /* lm-evaluation-harness divides by ln 2 at the end, we do so item by item; its
         * standard error takes the mean first. */
        bool rounded = tail || !strcmp(metric, "bits_per_byte") ||
                       !strcmp(metric, "brier") || !strcmp(metric, "true_mass");
        double room = rounded ? 4e-16 * fabs(m->valuedouble) : 0;
        CHECKF(fabs(got - m->valuedouble) <= room, "%s %s: %.17g, NumPy %.17g", name, m->string,
               got, m->valuedouble);
    }
    free(item);
    free(v);
    cm_task_close(&t);
}

TEST(lm_evaluation_harness_numbers) {
    open_model(true, 100000);
    char *text;
    size_t n;
    cm_err err;
    CM_ASSERT(cm_read_file("tests/eval/parity.json", 1 << 20, &text, &n, &err), "%s", err.msg);
    cJSON *golden = cJSON_Parse(text);
    int tasks = 0;
    const cJSON *g;
    cJSON_ArrayForEach(g, golden) {
        same_as_golden(g->string, g);
        tasks++;
    }
    CHECK(tasks == 5);
    cJSON_Delete(golden);
    free(text);
    cm_spm_close(model.spm);
}

#define CHOICE "task:\n  kind: choice\n  data: [c.jsonl]\n  prompt: \"{q}\"\n" \
               "  choices: [c]\n  gold: g\n"

TEST(ties_and_tokens) {
    open_model(true, 1000);
    put("c.jsonl", "{\"q\":\"x\",\"c\":[\"ab\",\"q\",\"the\",\"zz\"],\"g\":2}\n");
    cm_eval_task t;
    must(&t, CHOICE "  metrics: [acc, acc_first, acc_tok, acc_pmi, conf, margin]\n");
    CHECK(t.q->n_asks == 8); /* four more without the prompt */
    /* " ab" is two tokens, " q" two, " the" one. */
    int want[] = { 2, 2, 1, 3 };
    for (int i = 0; i < 4; i++)
        CHECKF(t.q->ask[i].n - t.q->ask[i].first == want[i], "choice %d: %d tokens", i,
               t.q->ask[i].n - t.q->ask[i].first);
    double L[] = { -3, -3, -3, -5, -1, -1, -2, -9 };
    for (int i = 0; i < 8; i++) answer(&t, &t.q->ask[i], L[i]);
    cm_item it = score(&t, 0);
    CHECK(score_of(&it, "acc") == 1.0 / 3);
    CHECK(score_of(&it, "acc_first") == 0);
    CHECK(score_of(&it, "acc_tok") == 0);  /* -1.5 -1.5 -3 -1.67 */
    CHECK(score_of(&it, "acc_pmi") == 0);  /* -2 -2 -1 4 */
    CHECK(score_of(&it, "margin") == 0);
    CHECKF(fabs(score_of(&it, "conf") - 1 / (3 + exp(-2))) < 1e-15, "conf");
    cm_task_close(&t);
    cm_spm_close(model.spm);
}

/* ---- tokens -------------------------------------------------------------------------- */

static void asks_as(const char *prompt, const char *what, const char *want) {
    cm_eval_task t;
    put("c.jsonl", "{\"q\":\"x\",\"c\":[\"a\",\"b\"],\"g\":0}\n");
    must(&t, CHOICE);
    cm_ask a;
    cm_err err;
    cm_asked p = cm_asked_plain(&t, prompt);
    CM_ASSERT(cm_ask_score(&t, &a, &p, what, &err), "%s", err.msg);
    char *got = shown(&a);
    CHECKF(!strcmp(got, want), "'%s' + '%s': %s, wanted %s", prompt, what, got, want);
    free(got);
    cm_task_close(&t);
}

TEST(context_and_continuation_as_one_text) {
    open_model(true, 1000);
    asks_as("say", " the", "<s>say| the");
    asks_as("say ", "the", "<s>say| the"); /* the blank moves to the continuation */
    asks_as("say\n", "the", "<s>say|\nthe");
    asks_as("", " the", "<s>| the");
    asks_as("xt", "he", "<s>x|the"); /* the border merged: "the" is scored */
    asks_as("a", "b", "<s>|ab");
    settings.chat = true;
    asks_as("say ", " the", "<s><|user|>say <|end|><|assistant|>|the");
    settings.chat = false;
    cm_spm_close(model.spm);
    open_model(true, 4);
    asks_as("qrsuvw", "xyz", "vw|xyz"); /* four go in, the fifth only comes out */
    asks_as("qr", "suvwxyz", "v|wxyz");
    cm_spm_close(model.spm);
}

TEST(documents_in_windows) {
    open_model(true, 16);
    put("d.txt", "qqqqqqqqqqwwwwwwwwwweeeeeeeeeerrrrrrrrrruuuuu\n<|endoftext|>\nq\n");
    for (int64_t stride = 0; stride <= 16; stride += 5) {
        settings.stride = stride;
        cm_eval_task t;
        must(&t, "task:\n  kind: text\n  data: [d.txt]\n");
        CHECK(t.n == 2 && t.q[1].n_asks == 1);
        int scored = 0;
        for (int w = 0; w < t.q->n_asks; w++) {
            const cm_ask *a = &t.q->ask[w];
            CHECK(a->n <= 17 && a->cut == 0);
            CHECK(w == 0 || stride == 0 || a->first >= 17 - stride);
            scored += a->n - a->first;
        }
        CHECKF(scored == 45, "stride %lld: %d tokens scored", (long long)stride, scored);
        const cm_ask *last = &t.q->ask[t.q->n_asks - 1];
        CHECK(last->n == 17); /* as much context as there is room for */
        cm_task_close(&t);
    }
    settings.stride = 0;
    cm_spm_close(model.spm);
}

/* ---- few-shot ------------------------------------------------------------------------ */

TEST(examples_never_hold_the_item) {
    open_model(true, 100000);
    cm_buf rows = { 0 };
    for (int i = 0; i < 40; i++)
        cm_buf_addf(&rows, "{\"q\":\"<%d>\",\"c\":[\"yes%d\",\"no\"],\"g\":0}\n", i % 39, i % 39);
    put("c.jsonl", rows.s); /* the last row equals the first */
    cm_buf_free(&rows);
    cm_eval_task t, u;
    must(&t, CHOICE "  shots: 4\n");
    char own[32], prompt[20000] = "";
    int different = 0;
    for (int i = 0; i < t.n; i++) {
        const char *p = t.q[i].prompt;
        snprintf(own, sizeof own, "<%d>", i % 39);
        CHECKF(strstr(p, own) == p + strlen(p) - strlen(own), "item %d: %s", i, p);
        int shots = 0;
        for (const char *s = p; (s = strstr(s, "> yes")); s++) shots++;
        CHECK(shots == 4);
        different += i && strncmp(p, prompt, 40) != 0;
        snprintf(prompt, sizeof prompt, "%s", p);
    }
    CHECK(different > 30); /* drawn anew for each item */
    settings.limit = 7;   /* what is asked of an item does not depend on the others */
    must(&u, CHOICE "  shots: 4\n");
    CHECK(u.n == 7);
    for (int i = 0; i < 7; i++) /* spread evenly over the 40 */
        CHECKF(!strcmp(t.q[i * 40 / 7].id, u.q[i].id) &&
               !strcmp(t.q[i * 40 / 7].hash, u.q[i].hash), "%s", u.q[i].id);
    cm_task_close(&u);
    settings.limit = 0;
    must(&u, CHOICE "  shots: 4\n  shot_seed: 5\n");
    CHECK(strcmp(t.q[0].hash, u.q[0].hash));
    cm_task_close(&u);
    must(&u, CHOICE "  shots: 2\n  shot_pick: first\n  primer: \"P:\"\n  shot_delimiter: \"/\"\n");
    CHECKF(!strcmp(u.q[0].prompt, "P:<1> yes1/<2> yes2/<0>"), "%s", u.q[0].prompt);
    CHECKF(!strcmp(u.q[5].prompt, "P:<0> yes0/<1> yes1/<5>"), "%s", u.q[5].prompt);
    cm_task_close(&u);
    settings.shots = 0; /* eval.shots has the last word */
    must(&u, CHOICE "  shots: 4\n");
    CHECK(!strcmp(u.q[3].prompt, "<3>"));
    settings.shots = -1;
    cm_task_close(&u);
    cm_task_close(&t);
    cm_spm_close(model.spm);
}

/* ---- rows ---------------------------------------------------------------------------- */

TEST(forms_of_data) {
    open_model(true, 1000);
    cm_eval_task t;
    cm_err err;
    CM_ASSERT(cm_task_open(&t, "tests/eval/letters.yaml", &settings, &err), "%s", err.msg);
    CM_ASSERT(cm_task_build(&t, &model, &err), "%s", err.msg);
    CHECK(t.n == 3);
    CHECKF(!strcmp(t.q[0].prompt, "Which is \"hot\", they ask?"), "%s", t.q[0].prompt);
    CHECK(!strcmp(t.q[0].choice[2], "snow, or rain") && t.q[0].right[1]);
    CHECK(strchr(t.q[1].prompt, '\n') && t.q[1].right[0] && t.q[2].right[2]);
    cm_task_close(&t);
    CM_ASSERT(cm_task_open(&t, "tests/eval/blank.yaml", &settings, &err), "%s", err.msg);
    CM_ASSERT(cm_task_build(&t, &model, &err), "%s", err.msg);
    CHECK(!strcmp(t.q[2].context[1], "Mia gave Ivy the book because Ivy"));
    CHECK(!strcmp(t.q[2].answer, "wanted to read it.") && t.q[2].right[1]);
    cm_task_close(&t);
    put("c.jsonl", "{\"q\":\"x\",\"c\":[\"a\",\"b\"],\"g\":1,\"k\":\"no\"}\n\n"
                   "{\"q\":\"y\",\"c\":[\"a\",\"b\"],\"g\":0,\"k\":\"yes\",\"n\":{\"m\":2.5}}\n");
    must(&t, CHOICE "  where: \"k=yes\"\n  id: \"{n.m}-{{{k}\"\n");
    CHECKF(t.n == 1 && !strcmp(t.q[0].id, "2.5-{yes"), "%s", t.q[0].id);
    cm_task_close(&t);
    put("d.txt", "one\ntwo\n\nthree\n");
    must(&t, "task:\n  kind: text\n  data: [d.txt]\n  split: line\n");
    CHECK(t.n == 3 && !strcmp(t.q[2].prompt, "three"));
    cm_task_close(&t);
    must(&t, "task:\n  kind: text\n  data: [d.txt]\n  split: blank\n"
             "  replace: [\"(t)\", \"$1T\"]\n");
    CHECK(t.n == 2 && !strcmp(t.q[0].prompt, "one\ntTwo"));
    cm_task_close(&t);
    cm_spm_close(model.spm);
}

/* ---- generated answers --------------------------------------------------------------- */

static void judged_bytes(cm_eval_task *t, int k, const char *out, size_t n, const char *metric,
                         double want) {
    t->q[k].ask->text = out;
    t->q[k].ask->bytes = n;
    cm_item it = score(t, k);
    double got = score_of(&it, metric);
    CHECKF(got == want, "%s: '%s' for '%s': %g", metric, out, t->q[k].answer, got);
}

static void judged(cm_eval_task *t, int k, const char *out, const char *metric, double want) {
    judged_bytes(t, k, out, strlen(out), metric, want);
}

TEST(filters_and_checkers) {
    open_model(true, 100000);
    cm_eval_task t;
    cm_err err;
    CM_ASSERT(cm_task_open(&t, "tests/eval/sums.yaml", &settings, &err), "%s", err.msg);
    CM_ASSERT(cm_task_build(&t, &model, &err), "%s", err.msg);
    judged(&t, 1, "It is 1241. #### 1241", "exact_match", 1); /* the comma is ignored */
    judged(&t, 1, "It is 1241.", "exact_match", 0);
    judged(&t, 1, "It is 1241.", "answered", 0);
    judged(&t, 1, "7 and then $1,241.", "flexible_match", 1);
    judged(&t, 1, "1241 and then 7", "flexible_match", 0); /* its last match counts */
    judged(&t, 0, "#### 4 #### 5", "exact_match", 0);       /* the first match counts */
    judged(&t, 3, "#### -2.", "exact_match", 1);
    judged_bytes(&t, 1, "\0 #### 1241", 11, "exact_match", 1); /* a zero byte is no end */
    cm_item zero = { .task = t.name };
    cm_buf record = { 0 };
    t.kind->score(&t, &t.q[1], &zero, &record);
    CHECKF(strstr(record.s, "\"out\":\"\xEF\xBF\xBD #### 1241\""), "%s", record.s);
    cm_buf_free(&record);
    cm_task_close(&t);
    put("g.jsonl", "{\"q\":\"x\",\"a\":\"Under the bed\"}\n{\"q\":\"y\",\"a\":\"1,200.0\"}\n");
#define GEN "task:\n  kind: generate\n  data: [g.jsonl]\n  prompt: \"{q}\"\n  answer: \"{a}\"\n"
    must(&t, GEN "  checker: world\n");
    judged(&t, 0, " It was under the bed.", "exact_match", 1);
    judged(&t, 0, "Under a bed! Or not.", "exact_match", 1);
    judged(&t, 0, "It was under the red bed.", "exact_match", 0);
    judged(&t, 0, "It was on the shelf. Under the bed.", "exact_match", 0);
    judged(&t, 0, "underneath the bed", "exact_match", 0);
    judged(&t, 0, "", "answered", 0);
    judged_bytes(&t, 0, "It was\0under the\0bed.", 21, "exact_match", 1);
    cm_task_close(&t);
    cm_err why;
    CHECK(!make(&t, GEN "  checker: numeric\n", &why));
    CHECKF(why.code == CM_EXIT_DATA && strstr(why.msg, "g.jsonl:1: the reference 'Under the bed' "
           "is no number"), "%s", why.msg);
    put("g.jsonl", "{\"q\":\"x\",\"a\":\"the...\"}\n");
    CHECK(!make(&t, GEN "  checker: world\n", &why));
    CHECKF(why.code == CM_EXIT_DATA && strstr(why.msg, "has no word"), "%s", why.msg);
    put("g.jsonl", "{\"q\":\"x\",\"a\":\"3\"}\n{\"q\":\"y\",\"a\":\"1,200.0\"}\n");
    must(&t, GEN "  checker: numeric\n");
    judged(&t, 1, " $1200 ", "exact_match", 1);
    judged(&t, 1, "1200.5", "exact_match", 0);
    judged(&t, 1, "many", "exact_match", 0);
    judged_bytes(&t, 1, "1200\0", 5, "exact_match", 0);
    cm_task_close(&t);
    put("g.jsonl", "{\"q\":\"x\",\"a\":\"Under the bed\"}\n");
    must(&t, GEN "  ignore_case: true\n  ignore_punctuation: true\n");
    judged(&t, 0, "UNDER THE BED!", "exact_match", 1);
    judged(&t, 0, "under bed", "exact_match", 0);
    judged_bytes(&t, 0, "under the bed\0 7", 16, "exact_match", 0);
    cm_task_close(&t);
    cm_spm_close(model.spm);
}

/* ---- identity ------------------------------------------------------------------------ */

TEST(hashes_are_of_what_is_asked) {
    put("c.jsonl", "{\"q\":\"x\",\"c\":[\"a\",\"b\"],\"g\":0}\n");
    cm_eval_task t, u;
    open_model(true, 1000);
    must(&t, CHOICE);
    /* Keys that a task does not use are no part of it: this hash outlives new keys. */
    CHECKF(!strcmp(t.definition, "cff93d3926dab3c6"), "%s", t.definition);
    must(&u, CHOICE "  version: 1 # the same, said\n  about: \"other words\"\n");
    CHECK(!strcmp(t.definition, u.definition) && !strcmp(t.q->hash, u.q->hash));
    cm_task_close(&u);
    must(&u, CHOICE "  version: 2\n");
    CHECK(strcmp(t.definition, u.definition) && !strcmp(t.q->hash, u.q->hash));
    cm_task_close(&u);
    must(&u, CHOICE "  primer: \"y\"\n");
    CHECK(strcmp(t.q->hash, u.q->hash));
    cm_task_close(&u);
    put("c.jsonl", "{\"q\":\"x\",\"c\":[\"a\",\"b\"],\"g\":1}\n");
    must(&u, CHOICE);
    CHECK(strcmp(t.q->hash, u.q->hash));
    cm_task_close(&u);
    cm_spm_close(model.spm);
    open_model(false, 1000); /* another tokenizer */
    put("c.jsonl", "{\"q\":\"x\",\"c\":[\"a\",\"b\"],\"g\":0}\n");
    must(&u, CHOICE);
    CHECK(!strcmp(t.q->hash, u.q->hash));
    cm_task_close(&u);
    cm_task_close(&t);
    cm_spm_close(model.spm);
}

/* ---- refusals ------------------------------------------------------------------------ */

TEST(mistakes_have_a_place) {
    static const struct { const char *rows, *yaml, *want; int code; } bad[] = {
        { "", "task:\n  kind: choise\n", "t.yaml:2:9: error: task.kind: 'choise' is none of", 2 },
        { "", "task:\n  kinds: choice\n", "t.yaml:2:3: error: unknown key 'task.kinds'", 2 },
        { "", "task:\n  shots: many\n", "t.yaml:2:10: error: task.shots = many is not", 2 },
        { "", "task:\n  kind: [choice\n", "t.yaml:3:1: error: not valid YAML", 2 },
        { "", "task:\n  prompt: \"{a\"\n", "t.yaml:2:11: error: task.prompt: a brace", 2 },
        { "", "task:\n  kind: generate\n  filter: \"(\"\n",
          "t.yaml:3:11: error: task.filter: '(': not a regular", 2 },
        { "", "task:\n  replace: [\"a\"]\n", "task.replace: 1 texts", 2 },
        { "", "task:\n  kind: cloze\n  metrics: [acc]\n", "'acc' is no metric of kind cloze", 2 },
        { "", "task:\n  primary: greedy\n", "primary metric 'greedy' is not among", 2 },
        { "", "task:\n  kind: generate\n  stop: [\"\"]\n", "task.stop: an empty text", 2 },
        { "", "task:\n  where: \"k\"\n", "task.where: want field=value", 2 },
        { "", CHOICE, "no items in c.jsonl", 4 },
        { "{\"q\":\"x\",\"c\":[\"a\",\"b\"],\"g\":2}\n", CHOICE,
          "c.jsonl:1: the right choice is '2'", 4 },
        { "{\"q\":\"x\",\"c\":[\"a\",\"b\"]}\n", CHOICE, "c.jsonl:1: no field 'g'", 4 },
        { "\n{\"q\":\"x\",\"c\":[],\"g\":0}\n", CHOICE, "c.jsonl:2: 0 choices", 4 },
        { "{\"q\":\"x\",\"c\":[\"a\",\"\"],\"g\":0}\n", CHOICE, "c.jsonl:1: choice 2 is empty", 4 },
        { "{\"q\":\"x\",\"g\":0}\n", CHOICE, "c.jsonl:1: no field 'c' with choices", 4 },
        { "{\"c\":[\"a\",\"b\"],\"g\":0}\n", CHOICE, "c.jsonl:1: no field 'q'", 4 },
        { "{\"q\":[1],\"c\":[\"a\",\"b\"],\"g\":0}\n", CHOICE, "field 'q' is no text", 4 },
        { "{\"q\":\n", CHOICE, "c.jsonl:1:6: not valid JSON", 4 },
        { "[1]\n", CHOICE, "c.jsonl:1: not a JSON object", 4 },
        { "\xFF\n", CHOICE, "c.jsonl:1: no text in UTF-8", 4 },
        { "{\"id\":\"i\",\"q\":\"x\",\"c\":[\"a\",\"b\"],\"g\":0}\n"
          "{\"id\":\"i\",\"q\":\"y\",\"c\":[\"a\",\"b\"],\"g\":0}\n", CHOICE,
          "c.jsonl:2: id 'i' was used before", 4 },
        { "{\"q\":\"x\",\"c\":[\"a\",\"b\"],\"g\":0}\n", CHOICE "  shots: 1\n",
          "1 examples are wanted", 4 },
        { "{\"a\":\"\"}\n", "task:\n  kind: generate\n  data: [c.jsonl]\n  answer: \"{a}\"\n",
          "c.jsonl:1: an empty answer", 4 },
        { "{\"a\":\"\"}\n", "task:\n  kind: cloze\n  data: [c.jsonl]\n  last_word: \"{a}\"\n",
          "c.jsonl:1: no last word", 4 },
        { "a,b\n1\n", "task:\n  kind: text\n  data: [c.jsonl]\n  format: csv\n",
          "c.jsonl:2: found 1 fields, wanted 2", 4 },
        { "a\n\"1\n", "task:\n  kind: text\n  data: [c.jsonl]\n  format: csv\n",
          "c.jsonl:2: a quoted field", 4 },
        { "", "task:\n  kind: choice\n  stop: [a]\n",
          "t.yaml:3:9: error: task.stop: means nothing to kind choice", 2 },
        { "", "task:\n  kind: mqar\n  prompt: a\n",
          "t.yaml:3:11: error: task.prompt: means nothing to kind mqar", 2 },
        { "", "seed: 1\ntask:\n  kind: mqar\n",
          "t.yaml:1:7: error: seed: a task file has section task alone", 2 },
        { "", "task:\n  kind: cloze\n", "t.yaml: error: task.data: kind cloze wants files", 2 },
        /* What readers of JSON and tables pass without a word and change. */
#define TEXT "task:\n  kind: text\n  data: [c.jsonl]\n"
        { "{\"text\":\"a\"}\n{\"text\":\"\\\\\\u0000b\"}\n", TEXT, "c.jsonl:2: \\u0000 at", 4 },
        { "[{\"text\":\"a\"},\n{\"text\":\"a\\u0000b\"}]", TEXT "  format: json\n",
          "c.jsonl:2: \\u0000 at", 4 },
        { "{\"text\":\"a\",\"n\":1,\"text\":\"b\"}\n", TEXT, "c.jsonl:1: key 'text' twice", 4 },
        { "[{\"text\":\"a\",\"o\":[{\"x\":1,\"x\":2}]}]", TEXT "  format: json\n",
          "c.jsonl:1: key 'x' twice", 4 },
        { "text,n,text\na,1,b\n", TEXT "  format: csv\n", "two columns 'text' (1 and 3)", 4 },
        { "[{\"text\":\"x\"},\n{oops}]", "task:\n  kind: text\n  data: [c.jsonl]\n  format: json\n",
          "c.jsonl:2: not valid JSON", 4 },
    };
    open_model(true, 1000);
    cm_eval_task fine; /* a backslash and letters */
    put("c.jsonl", "{\"text\":\"\\\\u0000\"}\n");
    must(&fine, TEXT);
    CHECKF(!strcmp(fine.q[0].prompt, "\\u0000"), "%s", fine.q[0].prompt);
    cm_task_close(&fine);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cm_eval_task t;
        cm_err err = { 0 };
        put("c.jsonl", bad[i].rows);
        bool ok = make(&t, bad[i].yaml, &err);
        CHECKF(!ok && (int)err.code == bad[i].code && strstr(err.msg, bad[i].want),
               "case %zu: %d '%s', wanted %d '%s'", i, err.code, err.msg, bad[i].code,
               bad[i].want);
        if (ok) cm_task_close(&t);
    }
    cm_eval_task t;
    cm_err err;
    CHECK(!cm_task_open(&t, "blinp", &settings, &err) && err.code == CM_EXIT_USAGE);
    CHECKF(strstr(err.msg, "did you mean 'blimp'"), "%s", err.msg);
    CHECK(!make(&t, "task:\n  data: [none.jsonl]\n  choices: [c]\n", &err) &&
          err.code == CM_EXIT_USAGE);
    CHECKF(strstr(err.msg, "none.jsonl: task t wants this file"), "%s", err.msg);
    cm_spm_close(model.spm);
}

/* Runaway patterns end with an error instead of never. */
TEST(patterns_give_up) {
    open_model(true, 100000);
    cm_buf row = { 0 };
    cm_buf_addf(&row, "{\"text\":\"");
    for (int i = 0; i < 40; i++) cm_buf_addf(&row, "aaaaaaaa");
    cm_buf_addf(&row, "!\"}\n");
    put("c.jsonl", row.s);
    cm_buf_free(&row);
    cm_eval_task t;
    cm_err err = { 0 };
    CHECK(!make(&t, "task:\n  kind: text\n  data: [c.jsonl]\n"
                    "  replace: ['^(\\w+\\w+)*(a)?$', \"\"]\n", &err));
    CHECKF(err.code == CM_EXIT_DATA && strstr(err.msg, "could not be applied"), "%s", err.msg);
    cm_spm_close(model.spm);
}

/* Bytes changed, cut and doubled at random: read, or refused with a sentence; never worse. */
TEST(damaged_data) {
    static const struct { const char *file, *yaml; } form[] = {
        { "tests/eval/letters.csv", "task:\n  data: [x]\n  format: csv\n  prompt: \"{question}\"\n"
          "  choices: [\"{a}\", \"{b}\", \"{c}\"]\n  gold: right\n  gold_is: letter\n" },
        { "tests/eval/several.json", "task:\n  data: [x]\n  format: json\n  choices: [targets]\n" },
        { "tests/eval/blank.jsonl", "task:\n  data: [x]\n  prompt: \"{sentence}\"\n  blank: \"_\"\n"
          "  choices: [choices]\n  gold: gold\n  gold_is: one\n" },
        { "tests/eval/stories.txt", "task:\n  kind: text\n  data: [x]\n  format: txt\n" },
    };
    static const char odd[] = "{}[],:\"\n\t\\\r_0\x80\xFF";
    open_model(true, 1000);
    int read = 0, refused = 0;
    for (int f = 0; f < 4; f++) {
        char *text;
        size_t n;
        cm_err err;
        CM_ASSERT(cm_read_file(form[f].file, 1 << 20, &text, &n, &err), "%s", err.msg);
        for (uint64_t k = 0; k < 300; k++) {
            cm_rng r = cm_rng_make(k, CM_RNG_TEST, (uint64_t)f);
            cm_buf b = { 0 };
            size_t len = k % 3 ? n : cm_rng_below(r, 99, n);
            cm_buf_add(&b, text, len);
            for (uint64_t i = 0; i < k % 4 && b.n; i++)
                b.s[cm_rng_below(r, 2 * i, b.n)] = odd[cm_rng_below(r, 2 * i + 1, sizeof odd)];
            char path[4096];
            snprintf(path, sizeof path, "%s/x", t_tmpdir());
            CM_ASSERT(cm_write_file(path, b.s ? b.s : "", b.n, &err), "%s", err.msg);
            cm_buf_free(&b);
            cm_eval_task t;
            err = (cm_err){ 0 };
            if (make(&t, form[f].yaml, &err)) {
                read++;
                cm_task_close(&t);
            } else {
                refused++;
                CHECKF(err.code == CM_EXIT_DATA && strchr(err.msg, ' '), "%d %s", err.code,
                       err.msg);
            }
        }
        free(text);
    }
    CHECKF(read > 100 && refused > 100, "%d read, %d refused", read, refused);
    cm_spm_close(model.spm);
}
