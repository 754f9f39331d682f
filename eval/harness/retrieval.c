/* retrieval.c -- what a retrieval pipeline found and answered, question by question. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/run_int.h"
#include "stats/stats.h"

enum { DRAWS = 2000 };

typedef struct {
    char *id, *group, *question, *answer, *reference;
    int n, n_relevant;    /* retrieved; relevant in all */
    double *grade;        /* [n] in rank order */
    char **passage;       /* [n] words as compared, blanks around each; "" without text */
    char *wanted;         /* ids of the relevant ones, for the hash */
} question;

typedef struct {
    const char *path;
    const cm_eval_conf *conf;
    question *q;
    int64_t n, cap;
} run;

static void question_free(question *q) {
    for (int i = 0; i < q->n; i++) free(q->passage[i]);
    free(q->passage);
    free(q->grade);
    free(q->id), free(q->group), free(q->question), free(q->answer), free(q->reference);
    free(q->wanted);
}

/* ---- reading --------------------------------------------------------------------- */

/* " word word " as compared, " " without words: strstr of " word " finds whole words. */
static char *words_of(const char *text) {
    cm_buf b = { 0 };
    cm_buf_add(&b, " ", 1);
    if (text) cm_contam_normal(text, strlen(text), &b);
    if (b.n > 1) cm_buf_add(&b, " ", 1);
    return b.s;
}

/* A text member, copied; *out stays NULL where there is none. */
static bool text_member(const cJSON *o, const char *key, char **out, cm_err *err) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    if (!v || cJSON_IsNull(v)) return true;
    if (cJSON_IsNumber(v)) *out = cm_strf("%.17g", v->valuedouble);
    else if (cJSON_IsString(v)) *out = cm_strf("%s", v->valuestring);
    return *out || cm_fail(err, CM_EXIT_DATA, "'%s' is no text", key);
}

static bool read_passage(question *q, const cJSON *p, int i, cm_err *err) {
    const cJSON *grade = cJSON_GetObjectItemCaseSensitive(p, "relevant");
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(p, "text");
    if (!cJSON_IsObject(p) || (text && !cJSON_IsString(text)))
        return cm_fail(err, CM_EXIT_DATA, "passage %d of 'retrieved' is no object with a text",
                       i + 1);
    q->passage[i] = words_of(text ? text->valuestring : NULL);
    if (cJSON_IsNumber(grade)) q->grade[i] = grade->valuedouble;
    else if (cJSON_IsTrue(grade)) q->grade[i] = 1;
    if (q->grade[i] < 0 || !isfinite(q->grade[i]))
        return cm_fail(err, CM_EXIT_DATA, "passage %d: a relevance of %g", i + 1, q->grade[i]);
    return true;
}

static const char *id_of(const cJSON *v) {
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* With a list of relevant ids, passages without a grade are judged by it. */
static bool read_relevant(question *q, const cJSON *o, const cJSON *list, cm_err *err) {
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(o, "relevant"), *e;
    const cJSON *count = cJSON_GetObjectItemCaseSensitive(o, "n_relevant");
    int found = 0, i = 0;
    cm_buf all = { 0 };
    cJSON_ArrayForEach(e, ids) {
        if (!id_of(e)) {
            cm_buf_free(&all);
            return cm_fail(err, CM_EXIT_DATA, "'relevant' is no list of ids");
        }
        cm_buf_addf(&all, "%s\n", id_of(e));
        i = 0;
        const cJSON *p;
        cJSON_ArrayForEach(p, list) {
            const char *id = id_of(cJSON_GetObjectItemCaseSensitive(p, "id"));
            if (id && !strcmp(id, id_of(e)) && q->grade[i] == 0) q->grade[i] = 1;
            i++;
        }
    }
    for (i = 0; i < q->n; i++) found += q->grade[i] > 0;
    q->n_relevant = ids ? cJSON_GetArraySize(ids)
                        : cJSON_IsNumber(count) ? (int)count->valuedouble : found;
    q->wanted = all.s ? all.s : cm_strf("%s", "");
    return q->n_relevant >= found ||
           cm_fail(err, CM_EXIT_DATA, "%d relevant passages retrieved, but only %d there are",
                   found, q->n_relevant);
}

static bool read_question(question *q, const cJSON *o, cm_err *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "retrieved"), *p;
    if (!cJSON_IsObject(o)) return cm_fail(err, CM_EXIT_DATA, "not a JSON object");
    if (!text_member(o, "id", &q->id, err) || !text_member(o, "group", &q->group, err) ||
        !text_member(o, "question", &q->question, err) ||
        !text_member(o, "answer", &q->answer, err) ||
        !text_member(o, "reference", &q->reference, err))
        return false;
    if (!q->id) return cm_fail(err, CM_EXIT_DATA, "no 'id'");
    if (!cJSON_IsArray(list))
        return cm_fail(err, CM_EXIT_DATA, "no list 'retrieved' of passages");
    int n = cJSON_GetArraySize(list);
    q->grade = cm_room(n, sizeof *q->grade);
    q->passage = cm_room(n, sizeof *q->passage);
    bool ok = true;
    cJSON_ArrayForEach(p, list) {
        if (ok) ok = read_passage(q, p, q->n, err);
        if (ok || q->passage[q->n]) q->n++;
        if (!ok) return false;
    }
    return read_relevant(q, o, list, err);
}

static bool add_line(run *r, const cm_line *line, cm_err *err) {
    if (line->too_long)
        return cm_fail(err, CM_EXIT_DATA, "the line is longer than 256 MiB");
    cJSON *o = cJSON_ParseWithLength(line->s, line->n);
    if (!o) return cm_fail(err, CM_EXIT_DATA, "not JSON");
    if (!cm_json_strict(o, line->s, line->n, err)) {
        cJSON_Delete(o);
        return false;
    }
    if (r->n == r->cap) {
        r->cap = 2 * r->cap + 64;
        r->q = realloc(r->q, (size_t)r->cap * sizeof *r->q);
        CM_ASSERT(r->q, "out of memory: questions");
    }
    question *q = &r->q[r->n++];
    *q = (question){ 0 };
    bool ok = read_question(q, o, err);
    cJSON_Delete(o);
    return ok;
}

static bool read_all(run *r, cm_err *err) {
    cm_src *src = cm_src_open(r->path, err);
    if (!src) return false;
    bool ok = true;
    for (bool end = false; ok;) {
        cm_line line;
        cm_err why;
        ok = cm_src_line(src, (size_t)1 << 28, &line, &end, err);
        if (!ok || end) break;
        if (!line.n || add_line(r, &line, &why)) continue;
        ok = cm_fail(err, why.code, "%s:%llu: %s", r->path, (unsigned long long)line.number,
                     why.msg);
    }
    cm_src_close(src);
    return ok && (r->n || cm_fail(err, CM_EXIT_DATA, "%s: holds no questions", r->path));
}

/* ---- words in passages ----------------------------------------------------------- */

/* Share of the words of `words` (as words_of) that some of passages [from,to) hold. */
static double covered(const question *q, const char *words, int from, int to) {
    int all = 0, in = 0;
    for (const char *p = words; p[0] && p[1];) {
        size_t n = 1 + strcspn(p + 1, " ");
        char *word = cm_strf("%.*s ", (int)n, p);
        bool found = false;
        for (int i = from; !found && i < to; i++) found = strstr(q->passage[i], word);
        free(word);
        all++;
        in += found;
        p += n;
    }
    return all ? (double)in / all : NAN;
}

/* Sentences of the reference that one passage supports. */
static double context_recall(const question *q, double support) {
    cm_hay h = { 0 };
    int all = 0, in = 0;
    cm_hay_split(&h, q->reference, strlen(q->reference));
    for (int s = 0; s < h.n; s++) {
        char *words = words_of(h.sentence[s]);
        bool found = false, any = strlen(words) > 2;
        for (int i = 0; any && !found && i < q->n; i++)
            found = covered(q, words, i, i + 1) >= support;
        all += any;
        in += found;
        free(words);
    }
    cm_hay_free(&h);
    return all ? (double)in / all : NAN;
}

/* Whether the answer says what the reference says: all of its words. */
static bool says(const char *answer, const char *reference) {
    question one = { .n = 1 };
    char *a = words_of(answer), *r = words_of(reference);
    one.passage = &a;
    bool same = covered(&one, r, 0, 1) == 1;
    free(a);
    free(r);
    return same;
}

/* ---- one question ---------------------------------------------------------------- */

static double ndcg(const question *q, int64_t k) {
    int found = 0, all = q->n;
    for (int i = 0; i < q->n; i++) found += q->grade[i] > 0;
    all += q->n_relevant - found;
    double *best = cm_room(all, sizeof *best); /* those that were missed count as grade 1 */
    for (int i = 0; i < all; i++) best[i] = i < q->n ? -q->grade[i] : -1;
    cm_sort(best, all);
    for (int i = 0; i < all; i++) best[i] = -best[i];
    double ideal = cm_dcg(best, all, k, false);
    free(best);
    return ideal > 0 ? cm_dcg(q->grade, q->n, k, false) / ideal : NAN;
}

static void put(cm_item *it, const char *metric, double v) {
    if (!isfinite(v)) return;
    it->score[it->n_scores++] = (cm_item_score){ cm_metric_find(metric), { v, 1 } };
}

static const char *outcome(const question *q, double grounded) {
    double first = cm_reciprocal_rank(q->grade, q->n);
    if (!q->answer || !q->reference) return first > 0 ? "retrieved" : "not_retrieved";
    if (!says(q->answer, q->reference)) return first > 0 ? "not_used" : "not_retrieved";
    return first > 0 && grounded >= 0.5 ? "right" : "ungrounded";
}

static void hash(const question *q, char out[17]) {
    const char *part[] = { q->id, q->question ? q->question : "",
                           q->reference ? q->reference : "", q->wanted };
    cm_item_hash(part, 4, out);
}

static bool add_item(const run *r, cm_results_out *o, int64_t i, cm_err *err) {
    const question *q = &r->q[i];
    int64_t k = r->conf->retrieval_k, found = 0;
    for (int j = 0; j < q->n; j++) found += q->grade[j] > 0;
    cm_item it = { .task = "retrieval", .id = q->id, .group = q->group };
    hash(q, it.hash);
    put(&it, "recall_at_k", cm_recall_at(q->grade, q->n, q->n_relevant, k));
    put(&it, "precision_at_k", cm_precision_at(q->grade, q->n, k));
    if (q->n_relevant) put(&it, "mrr", cm_reciprocal_rank(q->grade, q->n));
    put(&it, "ndcg_at_k", ndcg(q, k));
    put(&it, "map", cm_average_precision(q->grade, q->n, q->n_relevant));
    if (q->n_relevant)
        put(&it, "context_precision",
            found ? cm_average_precision(q->grade, q->n, found) : 0);
    if (q->reference) put(&it, "context_recall", context_recall(q, r->conf->retrieval_support));
    char *words = words_of(q->answer);
    double grounded = covered(q, words, 0, q->n);
    put(&it, "groundedness", grounded);
    free(words);
    cm_buf d = { 0 };
    cm_json_open(&d, NULL, '{');
    if (q->question) cm_json_str(&d, "prompt", q->question);
    if (q->reference) cm_json_str(&d, "reference", q->reference);
    if (q->answer) cm_json_str(&d, "out", q->answer);
    cm_json_i64(&d, "retrieved", q->n);
    cm_json_i64(&d, "relevant", q->n_relevant);
    cm_json_str(&d, "outcome", outcome(q, grounded));
    cm_json_close(&d, '{');
    it.detail = d.s;
    bool ok = cm_results_add(o, 0, i, &it, err);
    cm_buf_free(&d);
    return ok;
}

/* ---- intervals ------------------------------------------------------------------- */

/* Sums of a column by cluster; the statistic is a ratio of weighted sums. */
typedef struct {
    double *num, *den;
} sums;

static double mean_of(const int32_t *w, int64_t n, void *ctx) {
    const sums *s = ctx;
    double num = 0, den = 0;
    for (int64_t i = 0; i < n; i++) {
        num += w[i] * s->num[i];
        den += w[i] * s->den[i];
    }
    return den > 0 ? num / den : NAN;
}

static cm_interval interval(const cm_task_result *t, const cm_column *c) {
    int64_t G = 0;
    sums s = { cm_room(t->n_clusters, sizeof(double)), cm_room(t->n_clusters, sizeof(double)) };
    double *pull = cm_room(t->n_clusters, sizeof *pull);
    int64_t *at = cm_room(t->n_clusters, sizeof *at);
    for (int64_t i = 0; i < t->n; i++) {
        if (c->v[i].den == 0) continue;
        int32_t g = t->cluster[i];
        if (!at[g]) at[g] = ++G;
        s.num[at[g] - 1] += c->v[i].num;
        s.den[at[g] - 1] += c->v[i].den;
    }
    for (int64_t g = 0; g < G; g++) pull[g] = s.num[g] - c->value * s.den[g];
    cm_interval out = { NAN, NAN };
    if (G > 1) out = cm_bootstrap(mean_of, &s, G, DRAWS, 0, 0.95, cm_boot_accel(pull, G)).bca;
    free(s.num);
    free(s.den);
    free(pull);
    free(at);
    return out;
}

typedef struct {
    cm_buf *table;
    int64_t k;
} more_ctx;

static void count_outcomes(const cm_task_result *t, cm_buf *members, cm_buf *table) {
    static const char *const name[] = { "right", "retrieved", "not_used", "ungrounded",
                                        "not_retrieved" };
    int64_t count[5] = { 0 };
    for (int64_t i = 0; i < t->n; i++) {
        cJSON *d = t->detail[i] ? cJSON_Parse(t->detail[i]) : NULL;
        const char *s = id_of(cJSON_GetObjectItemCaseSensitive(d, "outcome"));
        for (int k = 0; s && k < 5; k++) count[k] += !strcmp(s, name[k]);
        cJSON_Delete(d);
    }
    cm_json_open(members, "outcomes", '{');
    for (int k = 0; k < 5; k++) {
        if (!count[k]) continue;
        cm_json_i64(members, name[k], count[k]);
        cm_buf_addf(table, "%-18s %8lld of %lld\n", name[k], (long long)count[k],
                    (long long)t->n);
    }
    cm_json_close(members, '{');
}

static void more(void *ctx, const cm_task_result *t, cm_buf *members) {
    more_ctx *m = ctx;
    cm_buf_addf(m->table, "%lld questions, k = %lld\n%-18s %8s   %-18s %8s\n", (long long)t->n,
                (long long)m->k, "metric", "value", "95 % (BCa)", "n");
    cm_json_open(members, "intervals", '{');
    for (int i = 0; i < t->n_columns; i++) {
        const cm_column *c = &t->column[i];
        cm_interval v = interval(t, c);
        int64_t n = 0;
        for (int64_t k = 0; k < t->n; k++) n += c->v[k].den > 0;
        bool known = isfinite(v.lo) && isfinite(v.hi);
        char range[48] = "-"; /* of one question or one group */
        if (known) snprintf(range, sizeof range, "[%.4f, %.4f]", v.lo, v.hi);
        cm_buf_addf(m->table, "%-18s %8.4f   %-16s   %8lld\n", c->metric->name, c->value, range,
                    (long long)n);
        if (!known) continue;
        cm_json_open(members, c->metric->name, '{');
        cm_json_f64(members, "lo", v.lo);
        cm_json_f64(members, "hi", v.hi);
        cm_json_close(members, '{');
    }
    cm_json_close(members, '{');
    count_outcomes(t, members, m->table);
}

/* ---- the result ------------------------------------------------------------------ */

static bool declare(const run *r, cm_results_out *o, cm_err *err) {
    cm_item_key *key = cm_room(r->n, sizeof *key);
    for (int64_t i = 0; i < r->n; i++) {
        key[i].id = r->q[i].id;
        hash(&r->q[i], key[i].hash);
    }
    cm_task_info info = { .name = "retrieval", .primary = "ndcg_at_k", .version = 1 };
    char rule[96], hex[65];
    snprintf(rule, sizeof rule, "retrieval k=%lld support=%.17g",
             (long long)r->conf->retrieval_k, r->conf->retrieval_support);
    cm_sha_bytes(rule, strlen(rule), hex);
    memcpy(info.definition, hex, 16);
    info.definition[16] = 0;
    bool ok = cm_results_task(o, &info, key, r->n, err);
    free(key);
    return ok;
}

/* The file is the pipeline's output, so it stands for the model and is no common data. */
static void facts(const run *r, const char *sha, cm_buf *model, cm_buf *conf,
                  cm_buf *settings) {
    cm_json_open(model, NULL, '{');
    cm_json_str(model, "path", r->path);
    cm_json_str(model, "source", "retrieval");
    cm_json_str(model, "sha256", sha);
    cm_json_close(model, '{');
    for (int i = 0; i < 2; i++) {
        cm_buf *b = i ? settings : conf;
        cm_json_open(b, NULL, '{');
        if (i) cm_json_str(b, "model", sha);
        cm_json_i64(b, "eval.retrieval_k", r->conf->retrieval_k);
        cm_json_f64(b, "eval.retrieval_support", r->conf->retrieval_support);
        cm_json_close(b, '{');
    }
}

static bool write_result(const run *r, const char *dir, bool redo, cm_buf *table,
                         cm_err *err) {
    cm_buf model = { 0 }, conf = { 0 }, settings = { 0 };
    char sha[65];
    more_ctx m = { table, r->conf->retrieval_k };
    bool ok = cm_sha_file(r->path, sha, err);
    if (ok) facts(r, sha, &model, &conf, &settings);
    cm_results_out *o = ok ? cm_results_open(dir, settings.s, redo, err) : NULL;
    int64_t done;
    ok = o && declare(r, o, err) && cm_results_begin(o, &done, err);
    if (ok) cm_results_more(o, more, &m);
    for (int64_t i = 0; ok && i < r->n; i++)
        if (!cm_results_has(o, 0, i)) ok = add_item(r, o, i, err);
    cm_buf build = { 0 };
    cm_json_open(&build, NULL, '{');
    cm_json_str(&build, "version", CM_VERSION);
    cm_json_close(&build, '{');
    cm_results_about about = { model.s, build.s, conf.s };
    ok = ok && cm_results_finish(o, &about, NULL, err);
    cm_results_close(o);
    cm_buf_free(&build);
    cm_buf_free(&model);
    cm_buf_free(&conf);
    cm_buf_free(&settings);
    return ok;
}

/* Print a finished result of the same file and settings. */
static bool show_result(const run *r, const char *dir, cm_buf *table, cm_err *err) {
    cm_result old;
    char sha[65];
    if (!cm_sha_file(r->path, sha, err) || !cm_result_read(&old, dir, true, err)) return false;
    cm_buf part[3] = { { 0 } }, members = { 0 };
    facts(r, sha, &part[0], &part[1], &part[2]);
    cJSON *now = cJSON_Parse(part[1].s), *settings = cJSON_Parse(part[2].s);
    const cJSON *was = cJSON_GetObjectItemCaseSensitive(old.root, "model");
    const cm_task_result *t = cm_result_task(&old, "retrieval");
    bool same = t && cJSON_Compare(cJSON_GetObjectItemCaseSensitive(was, "sha256"),
                                   cJSON_GetObjectItemCaseSensitive(settings, "model"), true) &&
                cJSON_Compare(now, cJSON_GetObjectItemCaseSensitive(old.root, "config"), true);
    if (same) more(&(more_ctx){ table, r->conf->retrieval_k }, t, &members);
    for (int i = 0; i < 3; i++) cm_buf_free(&part[i]);
    cm_buf_free(&members);
    cJSON_Delete(now);
    cJSON_Delete(settings);
    cm_result_free(&old);
    return same || cm_fail(err, CM_EXIT_USAGE, "%s: holds a finished evaluation of another file "
                           "or with other settings; name another folder with --out, or say "
                           "--if-done=redo", dir);
}

bool cm_retrieval_eval(const char *path, const char *dir, const cm_eval_conf *conf,
                       cm_if_done done, cm_buf *table, cm_err *err) {
    run r = { .path = path, .conf = conf };
    bool finished = false, ok = (!dir || cm_run_folder(dir, &finished, err)) && read_all(&r, err);
    if (ok && !dir)
        cm_buf_addf(table, "%-24s %-9s %8lld items\n", "retrieval", "retrieval", (long long)r.n);
    else if (ok && finished && done == CM_DONE_SKIP)
        ok = show_result(&r, dir, table, err);
    else if (ok)
        ok = write_result(&r, dir, done == CM_DONE_REDO, table, err);
    for (int64_t i = 0; i < r.n; i++) question_free(&r.q[i]);
    free(r.q);
    return ok;
}
