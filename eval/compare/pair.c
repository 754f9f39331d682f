/* pair.c -- do two results belong together?  Items paired by task, id and hash. */
#include "compare/compare_int.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { EXAMPLES = 3 };

static const char *text_at(const cm_result *r, const char *object, const char *key) {
    const cJSON *o = cJSON_GetObjectItemCaseSensitive(r->root, object);
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* Refuses two results, with what differs. */
static bool CM_PRINTF(4, 5)
    apart(const cm_result *a, const cm_result *b, cm_err *err, const char *fmt, ...) {
    char what[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return cm_fail(err, CM_EXIT_DATA, "%s and %s cannot be compared: %s", a->path, b->path, what);
}

/* ---- settings --------------------------------------------------------------------- */

/* Settings of an evaluation that say where things are or how fast, not what is computed. */
static bool neutral(const char *key) {
    static const char *const keys[] = {"data", "field", "batch", "threads", "reuse", "tokens",
                                       "order_seed", "out", "redo", "name", "tasks", "max_gb",
                                       "seed"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i])) return true;
    return false;
}

static char *value_text(const cJSON *v) {
    return v ? cJSON_PrintUnformatted(v) : NULL;
}

static bool same_setting(const cm_result *a, const cm_result *b, const cJSON *v,
                         const cJSON *other, cm_err *err) {
    if (strncmp(v->string, "eval.", 5) || neutral(v->string + 5)) return true;
    const cJSON *w = cJSON_GetObjectItemCaseSensitive(other, v->string);
    if (!w || cJSON_Compare(v, w, true)) return true; /* an older build lacked the key */
    char *x = value_text(v), *y = value_text(w);
    apart(a, b, err, "%s was %s and is %s", v->string, x, y);
    free(x);
    free(y);
    return false;
}

static bool same_settings(const cm_result *a, const cm_result *b, cm_err *err) {
    const cJSON *ca = cJSON_GetObjectItemCaseSensitive(a->root, "config"), *v;
    const cJSON *cb = cJSON_GetObjectItemCaseSensitive(b->root, "config");
    cJSON_ArrayForEach(v, ca)
        if (!same_setting(a, b, v, cb, err)) return false;
    return true;
}

bool cm_pair_sides(const cm_side *a, const cm_side *b, cm_err *err) {
    for (int s = 0; s < a->n + b->n; s++) {
        const cm_result *r = s < a->n ? a->seed[s] : b->seed[s - a->n];
        if (!same_settings(a->seed[0], r, err)) return false;
    }
    return true;
}

static bool same_text(const cm_side *a, const cm_side *b, const char *key, bool by_seed) {
    if (by_seed && a->n != b->n) return false;
    for (int j = 0; j < b->n; j++) {
        const char *x = text_at(a->seed[by_seed ? j : 0], "model", key);
        const char *y = text_at(b->seed[j], "model", key);
        if (!x || !y || strcmp(x, y)) return false;
    }
    return true;
}

bool cm_same_models(const cm_side *a, const cm_side *b) {
    return same_text(a, b, "sha256", true) && same_text(a, b, "tokenizer_sha256", true);
}

bool cm_same_tokenizer(const cm_side *a, const cm_side *b) {
    return same_text(a, a, "tokenizer_sha256", false) && same_text(a, b, "tokenizer_sha256", false);
}

/* ---- items ------------------------------------------------------------------------ */

typedef struct {
    const char *id;
    int64_t i;
} key;

static int by_id(const void *a, const void *b) {
    return strcmp(((const key *)a)->id, ((const key *)b)->id);
}

static key *sorted_ids(const cm_task_result *t) {
    key *k = cm_scratch(t->n, sizeof *k);
    for (int64_t i = 0; i < t->n; i++) k[i] = (key){t->id[i], i};
    qsort(k, (size_t)t->n, sizeof *k, by_id);
    return k;
}

/* at[i] = index in u of item i of t, -1 where it is missing. */
static void locate(const cm_task_result *t, const cm_task_result *u, int64_t *at) {
    bool same = t->n == u->n;
    for (int64_t i = 0; same && i < t->n; i++) {
        at[i] = i;
        same = t->id[i] == u->id[i] || !strcmp(t->id[i], u->id[i]);
    }
    if (same) return;
    key *k = sorted_ids(u);
    for (int64_t i = 0; i < t->n; i++) {
        key want = {t->id[i], 0}, *hit = bsearch(&want, k, (size_t)u->n, sizeof *k, by_id);
        at[i] = hit ? hit->i : -1;
    }
    free(k);
}

typedef struct {
    int64_t n;
    cm_buf ids;
} list;

static void note(list *l, const char *id) {
    if (l->n++ < EXAMPLES) cm_buf_addf(&l->ids, "%s'%.80s'", l->n > 1 ? ", " : "", id);
    else if (l->n == EXAMPLES + 1) cm_buf_addf(&l->ids, ", ...");
}

static void say(cm_buf *out, const list *l, const char *what) {
    if (l->n)
        cm_buf_addf(out, "%s%lld %s (%s)", out->n ? "; " : "", (long long)l->n, what, l->ids.s);
}

static bool compare_items(const cm_task_result *t, const cm_result *ra, const cm_task_result *u,
                          const cm_result *rb, const int64_t *at, cm_err *err) {
    list missing = {0}, changed = {0}, moved = {0}, extra = {0};
    int64_t found = 0;
    for (int64_t i = 0; i < t->n; i++) {
        if (at[i] < 0) {
            note(&missing, t->id[i]);
            continue;
        }
        found++;
        const char *g = t->group[i], *h = u->group[at[i]];
        if (memcmp(t->hash[i], u->hash[at[i]], 16)) note(&changed, t->id[i]);
        else if (g != h && (!g || !h || strcmp(g, h))) note(&moved, t->id[i]);
    }
    if (found < u->n) {
        int64_t *back = cm_scratch(u->n, sizeof *back);
        locate(u, t, back);
        for (int64_t i = 0; i < u->n; i++)
            if (back[i] < 0) note(&extra, u->id[i]);
        free(back);
    }
    cm_buf all = {0};
    say(&all, &missing, "items are missing");
    say(&all, &extra, "are new");
    say(&all, &changed, "ask something else under the same id");
    say(&all, &moved, "belong to another group");
    bool ok = all.n == 0;
    if (!ok)
        apart(ra, rb, err, "task '%s': of %lld items %s", t->name, (long long)t->n, all.s);
    cm_buf_free(&all);
    cm_buf_free(&missing.ids);
    cm_buf_free(&changed.ids);
    cm_buf_free(&moved.ids);
    cm_buf_free(&extra.ids);
    return ok;
}

static bool pair_result(const cm_result *ra, const cm_task_result *t, const cm_result *rb,
                        const cm_task_result **out, int64_t *at, cm_err *err) {
    const cm_task_result *u = cm_result_task(rb, t->name);
    if (!u)
        return apart(ra, rb, err, "the second has no task '%s'", t->name);
    if (u->version != t->version)
        return apart(ra, rb, err, "task '%s' was version %lld and is version %lld", t->name,
                     (long long)t->version, (long long)u->version);
    if (strcmp(u->definition, t->definition))
        return apart(ra, rb, err, "task '%s' has another definition (%s, was %s)", t->name,
                     u->definition, t->definition);
    if (strcmp(u->primary, t->primary))
        return apart(ra, rb, err, "task '%s' was judged by %s and is by %s", t->name, t->primary,
                     u->primary);
    *out = u;
    locate(t, u, at);
    return compare_items(t, ra, u, rb, at, err);
}

bool cm_pair_task(cm_task_pair *p, const cm_side *a, const cm_side *b, int task, cm_err *err) {
    const cm_task_result *t = &a->seed[0]->task[task];
    *p = (cm_task_pair){.first = t, .na = a->n, .nb = b->n};
    p->a = cm_scratch(a->n, sizeof *p->a);
    p->b = cm_scratch(b->n, sizeof *p->b);
    p->ia = cm_scratch(a->n, sizeof *p->ia);
    p->ib = cm_scratch(b->n, sizeof *p->ib);
    bool ok = true;
    for (int s = 0; ok && s < a->n; s++) {
        p->ia[s] = cm_scratch(t->n, sizeof **p->ia);
        ok = pair_result(a->seed[0], t, a->seed[s], &p->a[s], p->ia[s], err);
    }
    for (int s = 0; ok && s < b->n; s++) {
        p->ib[s] = cm_scratch(t->n, sizeof **p->ib);
        ok = pair_result(a->seed[0], t, b->seed[s], &p->b[s], p->ib[s], err);
    }
    if (!ok) cm_pair_free(p);
    return ok;
}

void cm_pair_free(cm_task_pair *p) {
    for (int s = 0; s < p->na; s++) free(p->ia[s]);
    for (int s = 0; s < p->nb; s++) free(p->ib[s]);
    free(p->ia), free(p->ib);
    free(p->a), free(p->b);
    *p = (cm_task_pair){0};
}
