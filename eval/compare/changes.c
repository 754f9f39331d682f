/* changes.c -- what else differs between two results: model, build, machine, settings, data. */
#include "compare/compare_int.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    cm_pairing *p;
    cm_compare_mem *mem;
    int cap;
} changes;

static char *shown(changes *c, const cJSON *v) {
    if (!v) return cm_keepf(c->mem, "-");
    if (cJSON_IsString(v)) return cm_keepf(c->mem, "%s", v->valuestring);
    char *s = cJSON_PrintUnformatted(v), *kept = cm_keepf(c->mem, "%s", s ? s : "?");
    free(s);
    return kept;
}

static void add(changes *c, const char *section, const char *key, const cJSON *a, const cJSON *b) {
    if (c->p->n_changes == c->cap) {
        cm_change *more = cm_keep(c->mem, (size_t)(2 * c->cap + 16) * sizeof *more);
        if (c->cap) memcpy(more, c->p->change, (size_t)c->cap * sizeof *more);
        c->p->change = more;
        c->cap = 2 * c->cap + 16;
    }
    c->p->change[c->p->n_changes++] =
        (cm_change){section, cm_keepf(c->mem, "%s", key), shown(c, a), shown(c, b)};
}

/* Leaves of two objects, in the order of the first, then those only the second has. */
static void walk(changes *c, const char *section, const char *prefix, const cJSON *a,
                 const cJSON *b) {
    for (int side = 0; side < 2; side++) {
        const cJSON *from = side ? b : a, *other = side ? a : b, *v;
        cJSON_ArrayForEach(v, from) {
            const cJSON *w = cJSON_GetObjectItemCaseSensitive(other, v->string);
            if (side && w) continue;
            char *key = cm_strf("%s%s%s", prefix, *prefix ? "." : "", v->string);
            if (cJSON_IsObject(v) && (!w || cJSON_IsObject(w)))
                walk(c, section, key, side ? NULL : v, side ? v : w);
            else if (!w || !cJSON_Compare(v, w, true))
                add(c, section, key, side ? NULL : v, side ? v : w);
            free(key);
        }
    }
}

static const cJSON *member(const cm_result *r, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(r->root, key);
}

static const cJSON *task_data(const cm_result *r, const char *task) {
    const cJSON *t;
    cJSON_ArrayForEach(t, member(r, "tasks")) {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(t, "name");
        if (cJSON_IsString(name) && !strcmp(name->valuestring, task))
            return cJSON_GetObjectItemCaseSensitive(t, "data");
    }
    return NULL;
}

void cm_changes_make(cm_pairing *p, const cm_side *a, const cm_side *b, cm_compare_mem *mem) {
    static const char *const sections[] = {"model", "build", "machine", "config"};
    changes c = {p, mem, 0};
    const cm_result *x = a->seed[0], *y = b->seed[0];
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        walk(&c, sections[i], "", member(x, sections[i]), member(y, sections[i]));
    for (int i = 0; i < x->n_tasks; i++) {
        const cJSON *da = task_data(x, x->task[i].name), *db = task_data(y, x->task[i].name);
        if ((da || db) && !cJSON_Compare(da, db, true)) add(&c, "data", x->task[i].name, da, db);
    }
}
