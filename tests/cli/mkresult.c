/* mkresult.c -- writes a small simulated evaluation, for tests of regress.
 *
 * usage: mkresult DIR [key=value ...]
 * Items have difficulties that depend on seed `items` alone; a model of a given `skill`
 * answers them with noise of seed `seed`.  Two models of equal skill agree on most items:
 * a share `noise` of the answers is drawn anew.  Everything goes through the writer that
 * evaluations use. */
#include "results/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double skill, noise; /* shares */
    int64_t n, version, seed, items, groups, drop; /* drop: leave out this many last items */
    const char *model, *tokenizer, *word;
} options;

static bool number(const char *arg, const char *key, double *out) {
    size_t n = strlen(key);
    return !strncmp(arg, key, n) && arg[n] == '=' && cm_parse_f64(arg + n + 1, out);
}

static bool set(options *o, const char *arg) {
    static const char *const count[] = { "n", "version", "seed", "items", "groups", "drop" };
    int64_t *const to[] = { &o->n, &o->version, &o->seed, &o->items, &o->groups, &o->drop };
    double v;
    for (int i = 0; i < 6; i++)
        if (number(arg, count[i], &v)) {
            *to[i] = (int64_t)v;
            return true;
        }
    if (number(arg, "skill", &o->skill) || number(arg, "noise", &o->noise)) return true;
    if (!strncmp(arg, "model=", 6)) o->model = arg + 6;
    else if (!strncmp(arg, "tokenizer=", 10)) o->tokenizer = arg + 10;
    else if (!strncmp(arg, "word=", 5)) o->word = arg + 5;
    else return false;
    return true;
}

/* Uniform numbers of an item: the same for every model, or the model's own. */
static double common(const options *o, int task, int64_t i, int k) {
    return cm_rng_uniform(cm_rng_make((uint64_t)o->items, CM_RNG_TEST, (uint64_t)task),
                          (uint64_t)(8 * i + k));
}

static double own(const options *o, int task, int64_t i, int k) {
    return cm_rng_uniform(cm_rng_make((uint64_t)o->seed, CM_RNG_SAMPLE, (uint64_t)task),
                          (uint64_t)(8 * i + k));
}

static void key_of(const options *o, int task, int64_t i, cm_item_key *key) {
    char asked[160];
    snprintf(asked, sizeof asked, "%s %lld of %lld", o->word, (long long)i, (long long)o->items);
    key->id = cm_strf("%c/%lld", 'a' + task, (long long)i);
    cm_item_hash((const char *[]){ asked, "yes", "no" }, 3, key->hash);
}

static void add(cm_item *it, const char *metric, double num, double den) {
    it->score[it->n_scores++] = (cm_item_score){ cm_metric_find(metric), { num, den } };
}

/* A choice between two: right when skill beats difficulty, most of which models share. */
static void choice(const options *o, int64_t i, cm_item *it, cm_buf *detail) {
    bool fresh = own(o, 0, i, 0) < o->noise;
    double hard = fresh ? own(o, 0, i, 1) : common(o, 0, i, 1);
    double margin = 4 * (o->skill - hard);
    double conf = 1 / (1 + exp(-fabs(margin)));
    bool right = hard < o->skill;
    add(it, "acc", right, 1);
    add(it, "margin", margin, 1);
    add(it, "conf", conf, 1);
    add(it, "brier", 2 * (right ? (1 - conf) * (1 - conf) : conf * conf), 1);
    cm_json_open(detail, NULL, '{');
    cm_json_str(detail, "prompt", "Is <this> \"right\" & proper?");
    cm_json_raw(detail, "choices", "[\" yes\",\" no\"]");
    cm_json_raw(detail, "right", "[0]");
    cm_json_i64(detail, "pred", right ? 0 : 1);
    cm_json_open(detail, "loglik", '[');
    cm_json_f64(detail, NULL, -1.5);
    cm_json_f64(detail, NULL, -1.5 - margin);
    cm_json_close(detail, '[');
    cm_json_close(detail, '{');
}

/* A document of some hundred bytes; better models need fewer bits. */
static void text(const options *o, int64_t i, cm_item *it, cm_buf *detail) {
    double bytes = 100 + floor(900 * common(o, 1, i, 0));
    double rate = 2 - o->skill + 0.4 * common(o, 1, i, 1) + 0.02 * own(o, 1, i, 2);
    double tokens = floor(bytes / 4);
    add(it, "bits_per_byte", rate * bytes, bytes);
    add(it, "ppl_token", rate * bytes * log(2), tokens);
    add(it, "kl", tokens * 0.002 * exp(2 * own(o, 1, i, 3) + 3 * (1 - o->skill)), tokens);
    cm_json_open(detail, NULL, '{');
    cm_json_str(detail, "begins", "Once upon a time");
    cm_json_close(detail, '{');
}

static bool fill(const options *o, cm_results_out *out, int task, const cm_item_key *key,
                 int64_t n, cm_err *err) {
    static const char *const name[] = { "choice", "text" };
    for (int64_t i = 0; i < n; i++) {
        char group[32];
        cm_buf detail = { 0 };
        snprintf(group, sizeof group, "group-%lld", (long long)(o->groups ? i % o->groups : 0));
        cm_item it = { .task = name[task], .id = key[i].id };
        memcpy(it.hash, key[i].hash, 17);
        if (o->groups && !task) it.group = group;
        if (task) text(o, i, &it, &detail);
        else choice(o, i, &it, &detail);
        it.detail = detail.s;
        bool ok = cm_results_add(out, task, i, &it, err);
        cm_buf_free(&detail);
        if (!ok) return false;
    }
    return true;
}

static bool write_result(const char *dir, const options *o, cm_err *err) {
    char *settings = cm_strf("{\"model\":\"%s\"}", o->model), sha[65];
    cm_sha_bytes(o->model, strlen(o->model), sha);
    char *model = cm_strf("{\"path\":\"%s\",\"sha256\":\"%s\",\"tokenizer_sha256\":\"%s\"}",
                          o->model, sha, o->tokenizer);
    cm_results_out *out = cm_results_open(dir, settings, true, err);
    int64_t n[2] = { o->n - o->drop, o->n / 4 }, done;
    cm_item_key *key[2] = { 0 };
    bool ok = out != NULL;
    for (int t = 0; t < 2; t++) {
        cm_task_info info = { .name = t ? "text" : "choice", .version = o->version,
                              .primary = t ? "bits_per_byte" : "acc",
                              .definition = "0123456789abcdef", .data_json = "[]" };
        key[t] = calloc((size_t)n[t] + 1, sizeof **key);
        for (int64_t i = 0; key[t] && i < n[t]; i++) key_of(o, t, i, &key[t][i]);
        ok = ok && key[t] && cm_results_task(out, &info, key[t], n[t], err);
    }
    ok = ok && cm_results_begin(out, &done, err);
    for (int t = 0; ok && t < 2; t++) ok = fill(o, out, t, key[t], n[t], err);
    cm_results_about about = { .model = model, .build = "{\"version\":\"test\"}",
                               .config = "{\"eval.batch\":8}" };
    ok = ok && cm_results_finish(out, &about, "\"command\":\"eval --model x\"", err);
    cm_results_close(out);
    for (int t = 0; t < 2; t++) {
        for (int64_t i = 0; key[t] && i < n[t]; i++) free((char *)(uintptr_t)key[t][i].id);
        free(key[t]);
    }
    free(settings), free(model);
    return ok;
}

int main(int argc, char **argv) {
    options o = { .skill = 0.7, .noise = 0.05, .n = 400, .version = 1, .seed = 1, .items = 1,
                  .groups = 0, .model = "m", .tokenizer = "t", .word = "question" };
    cm_err err = { 0 };
    for (int i = 2; i < argc; i++)
        if (!set(&o, argv[i])) {
            fprintf(stderr, "mkresult: %s\n", argv[i]);
            return 2;
        }
    if (argc < 2 || write_result(argv[1], &o, &err)) return argc < 2 ? 2 : 0;
    fprintf(stderr, "mkresult: %s\n", err.msg);
    return 1;
}
