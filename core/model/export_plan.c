/* export_plan.c -- what an export will write: tensors, types, why, and the file's size. */
#include "model/files.h"
#include "quant/quant.h"
#include "run/run.h"

#include <stdlib.h>
#include <string.h>

bool cm_export_plan_make(const cm_export *x, bool gguf, cm_export_plan *p, cm_err *err) {
    cm_items items;
    cm_buf idle = {0};
    *p = (cm_export_plan){0};
    cm_buf_add(&idle, "", 0);
    bool ok = cm_export_items(x, gguf, &items, &idle, err);
    if (ok && !cm_export_size(x, gguf, &items, &p->file_bytes, err)) {
        cm_items_free(&items);
        ok = false;
    }
    p->idle = idle.s;
    if (!ok) return cm_export_plan_free(p), false;
    p->n = items.n;
    p->row = cm_room(items.n, sizeof *p->row);
    for (int i = 0; i < items.n; i++) {
        const cm_item *it = &items.v[i];
        cm_export_row *r = &p->row[i];
        *r = (cm_export_row){.t = it->t, .want = it->want, .cols = it->cols};
        memcpy(r->name, it->name, sizeof r->name);
        p->tensor_bytes += cm_tensor_bytes(&it->t);
    }
    cm_items_free(&items);
    return true;
}

void cm_export_plan_free(cm_export_plan *p) {
    free(p->row);
    free(p->idle);
    *p = (cm_export_plan){0};
}

/* Why a row has not the type that was wanted; NULL: it has. */
static char *why(const cm_export_row *r) {
    if (r->want == r->t.dtype) return NULL;
    return cm_strf("rows of %lld are not whole blocks of %d", (long long)r->cols,
                   cm_dtypes[r->want].block);
}

void cm_export_plan_text(const cm_export_plan *p, cm_buf *out) {
    for (int i = 0; i < p->n; i++) {
        const cm_export_row *r = &p->row[i];
        char shape[128], *reason = why(r);
        cm_buf_addf(out, "%-56s %-6s %12llu  %s", r->name, cm_dtypes[r->t.dtype].name,
                    (unsigned long long)cm_tensor_bytes(&r->t),
                    cm_tensor_shape_str(&r->t, shape, sizeof shape));
        if (reason) cm_buf_addf(out, "  (%s: %s)", cm_dtypes[r->want].name, reason);
        cm_buf_addf(out, "\n");
        free(reason);
    }
}

void cm_export_plan_json(const cm_export_plan *p, cm_buf *out) {
    cm_json_i64(out, "tensors", p->n);
    cm_json_u64(out, "tensor_bytes", p->tensor_bytes);
    cm_json_u64(out, "file_bytes", p->file_bytes);
    cm_json_open(out, "table", '[');
    for (int i = 0; i < p->n; i++) {
        const cm_export_row *r = &p->row[i];
        char *reason = why(r);
        cm_json_open(out, NULL, '{');
        cm_json_str(out, "name", r->name);
        cm_json_open(out, "shape", '[');
        for (int k = 0; k < r->t.nd; k++) cm_json_i64(out, NULL, r->t.dim[k]);
        cm_json_close(out, '[');
        cm_json_str(out, "type", cm_dtypes[r->t.dtype].name);
        cm_json_u64(out, "bytes", cm_tensor_bytes(&r->t));
        if (reason) {
            cm_json_str(out, "wanted", cm_dtypes[r->want].name);
            cm_json_str(out, "why", reason);
        }
        cm_json_close(out, '{');
        free(reason);
    }
    cm_json_close(out, '[');
}

/* The first of its kind: no row before it fell back from and to the same types. */
static bool first_of(const cm_export_plan *p, int i) {
    for (int k = 0; k < i; k++)
        if (p->row[k].want == p->row[i].want && p->row[k].t.dtype == p->row[i].t.dtype)
            return false;
    return true;
}

void cm_export_plan_fallbacks(const cm_export_plan *p, cm_buf *out) {
    for (int i = 0; i < p->n; i++) {
        const cm_export_row *r = &p->row[i];
        if (r->want == r->t.dtype || !first_of(p, i)) continue;
        int n = 0;
        for (int k = i; k < p->n; k++)
            n += p->row[k].want == r->want && p->row[k].t.dtype == r->t.dtype;
        cm_buf_addf(out, "%d %s %s, not %s: rows, as those of %lld in %s, are not whole blocks of "
                    "%d (--dry-run lists all)\n", n, n == 1 ? "tensor is" : "tensors are",
                    cm_dtypes[r->t.dtype].name, cm_dtypes[r->want].name, (long long)r->cols,
                    r->name, cm_dtypes[r->want].block);
    }
}

static bool weighs(const cm_export_row *r) {
    return cm_feedback_takes(r->t.dtype) && !strncmp(r->name, "blk.", 4);
}

bool cm_export_plan_weighs(const cm_export_plan *p) {
    for (int i = 0; i < p->n; i++)
        if (weighs(&p->row[i])) return true;
    return false;
}

void cm_export_plan_silent(const cm_export_plan *p, const cm_imatrix *m, cm_buf *out) {
    int n = 0, none = 0, some = 0;
    const char *first = NULL;
    for (int i = 0; i < p->n; i++) {
        int64_t of, silent;
        if (!weighs(&p->row[i])) continue;
        n++;
        if (!(silent = cm_imatrix_silent(m, p->row[i].name, &of))) continue;
        none += silent == of;
        some += silent < of;
        if (!first) first = p->row[i].name;
    }
    if (!first) return;
    cm_buf_addf(out, "importances: %d of %d tensors have none, %d none for some experts (zeros, or "
                "too few tokens; first %s): rounded as without\n", none, n, some, first);
}

bool cm_export_plan_has_blocks(const cm_export_plan *p) {
    for (int i = 0; i < p->n; i++)
        if (cm_dtypes[p->row[i].t.dtype].block > 1) return true;
    return false;
}
