/* conf_test.c -- run files and overrides: exact messages, ranges, round trip. */
#include "conf/conf.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The mistakes found in `yaml` (as file "f") and in the words after it. */
static char *mistakes(const char *yaml, const char *word) {
    cm_conf c;
    cm_conf_open(&c, NULL);
    cm_conf_text(&c, "f", yaml, strlen(yaml));
    if (word)
        cm_conf_set(&c, word);
    char *s = cm_strf("%s", cm_conf_errors(&c));
    CHECK(cm_conf_check(&c, NULL) == (s[0] == 0));
    cm_conf_close(&c);
    return s;
}

static void expect_at(int line, const char *yaml, const char *word, const char *want) {
    char *got = mistakes(yaml, word);
    if (strcmp(got, want))
        t_fail(__FILE__, line, "for <%s> %s\n    got  %s\n    want %s", yaml,
               word ? word : "", got, want);
    free(got);
}
#define EXPECT(yaml, want) expect_at(__LINE__, yaml, NULL, want)
#define EXPECT_WORD(word, want) expect_at(__LINE__, "", word, want)

TEST(defaults_stand) {
    cm_conf c;
    cm_conf_open(&c, NULL);
    CHECK(c.top.seed == 42 && c.model.d_model == 256 && c.optim.lr == 1e-3);
    CHECK(c.sched.tokens == 10000000 && c.model.tied && c.tokenize.inputs.n == 0);
    CHECK(!strcmp(c.model.pattern, "MMMA") && c.model.rope == CM_ROPE_PLAIN);
    CHECK(c.tokenize.sample_bytes == 100000000 && !cm_conf_given(&c, "optim.lr"));
    CHECK(!strcmp(cm_conf_word_of(&c, "train.spike"), "log"));
    cm_conf_close(&c);
}

TEST(values_of_every_type) {
    const char *y = "# a run\nseed: 7\nname: 'it''s'\nnumerics: fast\n"
                    "optim: {lr: 3e-4, kind: muon}\n"
                    "model:\n  tied: false\n  pattern: \"MA\"\n  context: 64k\n"
                    "tokenize:\n  inputs:\n  - a.txt\n  - \"b c.txt\"\n"
                    "  max_doc: 2MiB\nval:\n";
    cm_conf c;
    cm_conf_open(&c, NULL);
    cm_conf_text(&c, "f", y, strlen(y));
    CHECKF(cm_conf_check(&c, NULL), "%s", cm_conf_errors(&c));
    CHECK(c.top.seed == 7 && !strcmp(c.top.name, "it's"));
    CHECK(c.top.numerics == CM_CONF_FAST && c.optim.lr == 3e-4);
    CHECK(c.optim.kind == CM_OPTIM_MUON && !c.model.tied && c.model.context == 64000);
    CHECK(c.tokenize.inputs.n == 2 && !strcmp(c.tokenize.inputs.v[1], "b c.txt"));
    CHECK(c.tokenize.max_doc == 2097152 && cm_conf_given(&c, "optim.lr"));
    cm_conf_set(&c, "tokenize.inputs=x,y,z");
    CHECK(c.tokenize.inputs.n == 3 && !strcmp(c.tokenize.inputs.v[2], "z"));
    cm_conf_close(&c);
}

TEST(lists_from_words) {
    cm_conf c;
    cm_conf_open(&c, NULL);
    cm_conf_set(&c, "tokenize.inputs=[a, 'b, c']");
    CHECKF(cm_conf_check(&c, NULL), "%s", cm_conf_errors(&c));
    CHECK(c.tokenize.inputs.n == 2 && !strcmp(c.tokenize.inputs.v[1], "b, c"));
    cm_conf_close(&c);
    EXPECT_WORD("tokenize.inputs=[a, [b]]",
                "command line: error: tokenize.inputs: a list holds single texts\n");
}

TEST(unknown_names) {
    EXPECT("optim:\n  learning_rate: 1\n",
           "f:2:3: error: unknown key 'optim.learning_rate'; did you mean 'optim.lr'?\n");
    EXPECT("optim:\n  weigth_decay: 1\n", "f:2:3: error: unknown key 'optim.weigth_decay'"
                                          "; did you mean 'optim.weight_decay'?\n");
    EXPECT("model:\n  lr: 1\n",
           "f:2:3: error: unknown key 'model.lr'; did you mean 'optim.lr'?\n");
    EXPECT("lr: 1\n", "f:1:1: error: unknown key 'lr'; did you mean 'optim.lr'?\n");
    EXPECT("model: {hidden_size: 1}\n", "f:1:9: error: unknown key 'model.hidden_size'; "
                                        "did you mean 'model.d_model'?\n");
    EXPECT("sede: 1\n", "f:1:1: error: unknown key 'sede'; did you mean 'seed'?\n");
    EXPECT("zebra_crossing: 1\n", "f:1:1: error: unknown key 'zebra_crossing'\n");
    EXPECT("optimizer:\n  lr: 1\n",
           "f:1:1: error: unknown section 'optimizer'; did you mean 'optim'?\n");
    EXPECT("top:\n  seed: 1\n", "f:1:1: error: unknown section 'top'\n");
    EXPECT("model: 3\n",
           "f:1:1: error: 'model' is a section: its keys go below it, indented\n");
    EXPECT("optim.lr: 3\n", "f:1:1: error: 'optim.lr' goes into its section: 'optim:', "
                            "then 'lr:' below\n");
}

TEST(duplicates) {
    EXPECT("seed: 1\nseed: 2\n",
           "f:2:1: error: duplicate key 'seed' (first on line 1)\n");
    EXPECT("optim: {lr: 1,\n lr: 2}\n",
           "f:2:2: error: duplicate key 'optim.lr' (first on line 1)\n");
    EXPECT("val:\n  every: 1\nlog:\n  every: 1\nval:\n  samples: 1\n",
           "f:5:1: error: duplicate section 'val' (first on line 1)\n");
    cm_conf c;
    cm_conf_open(&c, NULL);
    cm_conf_set(&c, "seed=1");
    cm_conf_set(&c, "seed=2");
    CHECK(!strcmp(cm_conf_errors(&c), "command line: error: duplicate key 'seed'\n"));
    cm_conf_close(&c);
}

TEST(wrong_types) {
    EXPECT("model:\n  d_model: abc\n",
           "f:2:12: error: model.d_model = abc is not an integer\n");
    EXPECT("model:\n  d_model: 1.5\n",
           "f:2:12: error: model.d_model = 1.5 is not an integer\n");
    EXPECT("model:\n  d_model: \"64\"\n",
           "f:2:12: error: model.d_model = \"64\" is quoted text, not an integer\n");
    EXPECT("model: {tied: yes}\n",
           "f:1:15: error: model.tied = yes is not true or false\n");
    EXPECT("optim: {lr: nan}\n", "f:1:13: error: optim.lr = nan is not a number\n");
    EXPECT("sched: {tokens: 3 apples}\n", "f:1:17: error: sched.tokens = 3 apples is not "
                                          "a count (like 5000, 64k, 10M)\n");
    EXPECT("tokenize: {max_doc: 3k}\n", "f:1:21: error: tokenize.max_doc = 3k is not a "
                                         "size (like 4096, 64MiB, 2GB)\n");
    EXPECT("model: {rope: yran}\n", "f:1:15: error: model.rope = yran is none of none, "
                                    "plain, linear, yarn; did you mean 'yarn'?\n");
    EXPECT("seed:\n", "f:1:6: error: seed has no value\n");
    EXPECT("name:\n", "f:1:6: error: name has no value; write \"\" for an empty text\n");
    EXPECT("seed: [1]\n", "f:1:7: error: seed wants a single value, not a list\n");
    EXPECT("seed: {a: 1}\n", "f:1:7: error: seed wants a single value, not a mapping\n");
    EXPECT("tokenize: {inputs: {a: 1}}\n",
           "f:1:20: error: tokenize.inputs wants a list, not a mapping\n");
}

TEST(ranges) {
    EXPECT("optim:\n  lr: -1\n", "f:2:7: error: optim.lr = -1 is outside 0..10\n");
    EXPECT("model: {n_layers: 0}\n",
           "f:1:19: error: model.n_layers = 0 is outside 1..1024\n");
    EXPECT("model: {pattern: \"\"}\n",
           "f:1:18: error: model.pattern has 0 characters, not 1..1024\n");
    EXPECT("sched: {tokens: 1e3}\n", "f:1:17: error: sched.tokens = 1e3 is not a count "
                                     "(like 5000, 64k, 10M)\n");
    EXPECT("model: {context: 200M}\n",
           "f:1:18: error: model.context = 200M is outside 1..100000000\n");
    EXPECT("model: {n_layers: 1}\noptim: {lr: 10, beta1: 0}\n", "");
    EXPECT_WORD("optim.lr=11", "command line: error: optim.lr = 11 is outside 0..10\n");
    EXPECT_WORD("optim.lr=", "command line: error: optim.lr =  is not a number\n");
    EXPECT_WORD("optim.lrr=1",
                "command line: error: unknown key 'optim.lrr'; did you mean "
                "'optim.lr'?\n");
    EXPECT_WORD("optm.lr=1",
                "command line: error: unknown key 'optm.lr'; did you mean 'optim.lr'?\n");
}

TEST(yaml_beyond_us) {
    EXPECT("optim:\n\tlr: 1\n", "f:2:1: error: a tab in the indentation; use spaces\n");
    EXPECT("seed: 1\n---\nseed: 2\n",
           "f:2:1: error: a second document: one file is one configuration\n");
    EXPECT("seed: &a 1\nthreads: *a\n",
           "f:1:7: error: anchors, aliases and tags are not supported\n"
           "f:2:10: error: anchors, aliases and tags are not supported\n");
    EXPECT("seed: !!int 1\n",
           "f:1:7: error: anchors, aliases and tags are not supported\n");
    EXPECT("- 1\n", "f:1:1: error: a run file is made of 'key: value' lines\n");
    EXPECT("[a]: 1\nseed: x\n", "f:1:1: error: a key must be a plain word\n"
                                "f:2:7: error: seed = x is not an integer\n");
    EXPECT("\"seed\\0x\": 1\n", "f:1:1: error: a key must be a plain word\n");
    EXPECT("name: \"a\\0b\"\n", "f:1:7: error: name holds a byte that is no text\n");
    EXPECT_WORD("tokenize.inputs=a\xE9",
                "command line: error: tokenize.inputs holds a byte that is no text\n");
    EXPECT("name: caf\xE9\n", "f:1:10: error: not valid UTF-8\n");
    EXPECT("n\xC3\xA9: 1\nname: a\x01\n", "f:2:8: error: a control character\n");
    EXPECT("", "");
    EXPECT("# nothing\n", "");
    char *s = mistakes("optim: {lr: 1\nseed: 2\n", NULL);
    CHECKF(strstr(s, ": error: not valid YAML: "), "%s", s);
    free(s);
}

TEST(all_errors_in_one_pass) {
    EXPECT("sede: 1\noptim:\n  lr: -1\n  beta1: x\nval: 3\nmodle:\n  n_heads: 1\n",
           "f:1:1: error: unknown key 'sede'; did you mean 'seed'?\n"
           "f:3:7: error: optim.lr = -1 is outside 0..10\n"
           "f:4:10: error: optim.beta1 = x is not a number\n"
           "f:5:1: error: 'val' is a section: its keys go below it, indented\n"
           "f:6:1: error: unknown section 'modle'; did you mean 'model'?\n");
    cm_buf y = {0};
    for (int i = 0; i < 30; i++)
        cm_buf_addf(&y, "zzzz%d: 1\n", i);
    char *s = mistakes(y.s, NULL);
    int lines = 0;
    for (char *p = s; *p; p++)
        lines += *p == '\n';
    CHECK(lines == CM_CONF_MAX_ERRORS + 1);
    CHECK(strstr(s, "more than 20 errors; the rest is not shown\n"));
    free(s);
    cm_buf_free(&y);
}

TEST(sections_of_other_tools) {
    cm_conf c;
    const char *y = "tokenize: {level: 5}\noptim: {lr: 1}\n";
    cm_conf_open(&c, "optim sched");
    cm_conf_text(&c, "f", y, strlen(y));
    CHECK(cm_conf_check(&c, NULL));
    CHECK(cm_conf_uses(&c, "optim") && !cm_conf_uses(&c, "tokenize"));
    cm_conf_set(&c, "tokenize.level=3");
    CHECK(!strcmp(cm_conf_errors(&c), "command line: error: tokenize.level: this tool "
                                      "does not use section 'tokenize'\n"));
    cm_conf_close(&c);
}

TEST(files_and_places) {
    char *p = cm_strf("%s/run.yaml", t_tmpdir());
    const char *y = "model:\n  n_heads: 3\n";
    cm_conf c;
    cm_err e = {0};
    CHECK(cm_write_file(p, y, strlen(y), &e));
    cm_conf_open(&c, "model");
    cm_conf_file(&c, p);
    cm_conf_set(&c, "model.n_kv_heads=2");
    CHECK(cm_conf_check(&c, &e));
    CHECK(!cm_conf_bad(&c, &e, "model.n_heads", "3 does not divide d_model = 256"));
    char *want = cm_strf("%s:2:12: error: model.n_heads: 3 does not divide d_model = 256",
                         p);
    CHECKF(!strcmp(e.msg, want) && e.code == CM_EXIT_USAGE, "%s", e.msg);
    cm_conf_bad(&c, &e, "model.n_kv_heads", "x");
    CHECK(!strcmp(e.msg, "command line: error: model.n_kv_heads: x"));
    cm_conf_bad(&c, &e, "model.d_ff", "is required");
    CHECK(!strcmp(e.msg, "model.d_ff: is required"));
    cm_buf b = {0};
    cm_conf_dump(&c, true, &b);
    char *line = cm_strf("# %s:2\n", p);
    CHECK(strstr(b.s, line) && strstr(b.s, "# command line\n") &&
          strstr(b.s, "# default\n"));
    CHECK(!strstr(b.s, "optim:"));
    cm_buf_free(&b);
    cm_conf_close(&c);
    cm_conf_open(&c, NULL);
    cm_conf_file(&c, "no-such.yaml");
    CHECK(!strcmp(cm_conf_errors(&c),
                  "no-such.yaml: error: cannot open: No such file or directory\n"));
    cm_conf_close(&c);
    free(p), free(want), free(line);
}

/* Whatever is dumped parses back to the same values: hard strings, random doubles. */
TEST(dump_round_trip) {
    static const char *const hard[] = {
        "name=", "name=null", "name=~", "name=- a", "name=a: b # c", "name=\"q\" \\ 'x'",
        "name=tab\tnew\nline", "name=\xE0\xA4\xA8 \xF0\x9F\x98\x80 \xC2\x85 \xE2\x80\xA8",
        "name=\x7F\x01", "name=true", "name=[a]", "name=\xEF\xBB\xBFz", "name= lead "};
    int n_hard = sizeof hard / sizeof *hard;
    cm_rng r = cm_rng_make(3, CM_RNG_TEST, 0);
    for (int i = 0; i < n_hard + 200; i++) {
        cm_conf a, b;
        cm_buf text = {0}, diff = {0};
        cm_conf_open(&a, NULL);
        cm_conf_set(&a, i < n_hard ? hard[i] : "tokenize.inputs=[\"a,b\", c d, '']");
        a.optim.lr = cm_rng_uniform(r, (uint64_t)i) * pow(10, -(double)(i % 12));
        a.top.seed = (int64_t)cm_rng_below(r, (uint64_t)i, 1000000000000000000);
        a.tokenize.max_doc = 123456789 + i;
        cm_conf_dump(&a, i % 2, &text);
        cm_conf_open(&b, NULL);
        cm_conf_text(&b, "dump", text.s, text.n);
        CHECKF(cm_conf_check(&a, NULL) && cm_conf_check(&b, NULL), "%s%s",
               cm_conf_errors(&a), cm_conf_errors(&b));
        CHECKF(cm_conf_diff(&a, &b, &diff) == 0, "case %d: %s", i, diff.s);
        CHECK(!strcmp(a.top.name, b.top.name) && a.optim.lr == b.optim.lr);
        cm_buf_free(&text), cm_buf_free(&diff);
        cm_conf_close(&a), cm_conf_close(&b);
    }
}

TEST(differences_are_named) {
    cm_conf a, b;
    cm_buf d = {0};
    cm_conf_open(&a, NULL), cm_conf_open(&b, NULL);
    cm_conf_set(&b, "optim.lr=0.002"), cm_conf_set(&b, "model.pattern=A");
    CHECK(cm_conf_diff(&a, &b, &d) == 2);
    CHECK(!strcmp(d.s, "model.pattern: MMMA -> A\noptim.lr: 0.001 -> 0.002\n"));
    cm_buf_free(&d);
    cm_conf_close(&a), cm_conf_close(&b);
}

TEST(help_and_docs_name_every_key) {
    cm_conf c;
    cm_buf h = {0}, m = {0};
    int n;
    const cm_key *k = cm_conf_keys(&n);
    cm_conf_open(&c, NULL);
    CHECK(cm_conf_help(&c, NULL, &h));
    cm_conf_markdown(&m);
    for (int i = 0; i < n; i++) {
        char name[96], *cell = cm_strf("| `%s` |", cm_key_name(&k[i], name));
        size_t end = strlen(k[i].help);
        CHECKF(strstr(m.s, cell), "docs lack %s", cell);
        CHECKF(strstr(h.s, k[i].help), "help lacks %s", name);
        CHECKF(end > 10 && k[i].help[end - 1] == '.', "%s: help is no sentence", name);
        free(cell);
    }
    h.n = 0;
    CHECK(cm_conf_help(&c, "optim", &h) && !strstr(h.s, "model --"));
    CHECK(!cm_conf_help(&c, "optm", &h));
    cm_buf_free(&h), cm_buf_free(&m);
    cm_conf_close(&c);
}

TEST(shortest_numbers) {
    char b[32];
    CHECK(!strcmp(cm_f64_text(0.1, b), "0.1"));
    CHECK(!strcmp(cm_f64_text(0.1 + 0.2, b), "0.30000000000000004"));
    CHECK(!strcmp(cm_f64_text(1e-5, b), "1e-05") && !strcmp(cm_f64_text(10, b), "10"));
    CHECK(!strcmp(cm_f64_text(NAN, b), "nan"));
    CHECK(!strcmp(cm_f64_text(-INFINITY, b), "-inf"));
}
