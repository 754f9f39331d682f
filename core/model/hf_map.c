/* hf_map.c -- a model's tensors in Hugging Face's names.
 *
 * Parameters carry those names already; only the convolution has another shape there.
 * Reading also knows the names that transformers 5 uses in memory, and the separate gate
 * and up projections of plain Granite. */
#include "model/files.h"

#include <string.h>

void cm_hf_items(const cm_model *m, cm_items *out) {
    *out = (cm_items){0};
    for (int i = 0; i < m->params.n; i++) {
        cm_param *p = m->params.p[i];
        const cm_tensor *v = &p->var.v;
        bool conv = strstr(p->name, ".conv1d.weight") != NULL;
        int64_t dim[3] = {v->dim[0], 1, v->nd > 1 ? v->dim[1] : 1};
        cm_item *it = cm_items_add(out, p, conv ? 3 : 0, conv ? dim : NULL, "%s",
                                   p->name);
        it->keep_f32 = p->group == CM_GROUP_VECTOR || p->group == CM_GROUP_ROUTER;
    }
}

/* name with its ending `from` replaced by `to`, in buf; NULL if it ends otherwise. */
static const char *renamed(const char *name, const char *from, const char *to,
                           char buf[160]) {
    size_t n = strlen(name), k = strlen(from);
    if (n < k || strcmp(name + n - k, from)) return NULL;
    snprintf(buf, 160, "%.*s%s", (int)(n - k), name, to);
    return buf;
}

/* The gate or up half of a packed projection, from a tensor of its own. */
static bool read_half(cm_source *s, const cm_item *it, int half, const char *name,
                      bool *found, cm_err *err) {
    cm_item part = *it;
    cm_item_slice(&part, half * (it->rows / 2), it->rows / 2);
    return cm_source_read(s, &part, name, 0, 0, found, err);
}

/* Plain Granite: mlp.{gate,up,down}_proj. */
static bool read_split_mlp(cm_source *s, const cm_item *it, bool *found, cm_err *err) {
    char buf[160];
    const char *n = renamed(it->name, "shared_mlp.output_linear.weight",
                            "mlp.down_proj.weight", buf);
    if (n) return cm_source_read(s, it, n, 0, 0, found, err);
    n = renamed(it->name, "shared_mlp.input_linear.weight", "mlp.gate_proj.weight", buf);
    if (!n) return true;
    if (!read_half(s, it, 0, n, found, err)) return false;
    if (!*found) return true;
    n = renamed(it->name, "shared_mlp.input_linear.weight", "mlp.up_proj.weight", buf);
    return read_half(s, it, 1, n, found, err);
}

bool cm_hf_read_item(cm_source *s, const cm_item *it, cm_err *err) {
    static const char *const other[][2] = {
        {"router.layer.weight", "router.weight"},
        {"block_sparse_moe.input_linear.weight", "block_sparse_moe.experts.gate_up_proj"},
        {"block_sparse_moe.output_linear.weight", "block_sparse_moe.experts.down_proj"},
    };
    bool found;
    char buf[160];
    if (!cm_source_read(s, it, it->name, 0, 0, &found, err)) return false;
    for (size_t i = 0; !found && i < sizeof other / sizeof *other; i++) {
        const char *name = renamed(it->name, other[i][0], other[i][1], buf);
        if (name && !cm_source_read(s, it, name, 0, 0, &found, err)) return false;
    }
    if (!found && !read_split_mlp(s, it, &found, err)) return false;
    if (!found && renamed(it->name, "conv1d.bias", "", buf)) {
        memset(it->p->var.v.data, 0, cm_tensor_bytes(&it->p->var.v));
        found = true;
    }
    return found || cm_fail(err, CM_EXIT_DATA, "%s: tensor '%s' is missing", s->path,
                            it->name);
}
