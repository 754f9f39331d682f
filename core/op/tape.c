/* tape.c -- run ops, record them, walk the record backwards.
 *
 * Gradient buffers of activations live from their first contribution to the backward of
 * the node that made the activation, then go on a free list by exact size; coarse ops
 * repeat the same sizes in every block, so few buffers serve the whole backward. */
#include "op/narrow.h"

#include <string.h>

#define OP(name) extern const cm_op cm_op_##name;
#include "op/op_list.h"
#undef OP

const cm_op *const cm_ops[] = {
#define OP(name) &cm_op_##name,
#include "op/op_list.h"
#undef OP
};
const int cm_n_ops = (int)(sizeof cm_ops / sizeof *cm_ops);

const cm_watch *cm_watching;

enum { MAX_NODES = 16384 };

typedef struct cm_free {
    size_t bytes;
    void *p;
    struct cm_free *next;
} cm_free;

void cm_tape_begin(cm_tape *t, cm_arena *arena, cm_arena *meta, bool recording, bool dry) {
    *t = (cm_tape){ .arena = arena, .meta = meta, .recording = recording, .dry = dry };
    if (recording) {
        t->cap_node = MAX_NODES;
        t->node = cm_arena_alloc(meta, MAX_NODES * sizeof *t->node);
    }
}

static cm_var *var_alloc(cm_tape *t) {
    return cm_arena_zalloc(t->meta, sizeof(cm_var));
}

cm_var *cm_var_const(cm_tape *t, cm_dtype dt, const int64_t *dim, int nd, void *data) {
    cm_var *x = var_alloc(t);
    x->v = (cm_tensor){ .dtype = dt, .nd = nd, .data = data };
    memcpy(x->v.dim, dim, (size_t)nd * sizeof *dim);
    return x;
}

cm_var *cm_var_new(cm_tape *t, const int64_t *dim, int nd, bool wants_grad) {
    cm_var *x = cm_var_const(t, CM_REAL_DTYPE, dim, nd, NULL);
    x->v.data = cm_arena_alloc(t->arena, cm_tensor_bytes(&x->v));
    x->wants_grad = wants_grad;
    return x;
}

/* ---- forward -------------------------------------------------------------------------- */

CM_NORETURN static void shape_panic(const cm_node *n, const char *why) {
    char text[512] = "", one[64];
    for (int i = 0; i < n->n_in; i++) {
        size_t used = strlen(text);
        const char *s = n->in[i] ? cm_tensor_shape_str(&n->in[i]->v, one, sizeof one)
                                 : "none";
        snprintf(text + used, sizeof text - used, " %s", s);
    }
    cm_panic(__FILE__, __LINE__, "op %s (%s): %s; inputs are%s", n->op->name,
             n->op->shapes, why ? why : "shapes do not fit", text);
}

/* Run one direction of a node with its scratch, timed when someone profiles. */
static void run(cm_tape *t, cm_node *n, bool backward) {
    size_t mark = cm_arena_mark(t->arena);
    size_t bytes = n->op->scratch ? n->op->scratch(n, backward) : 0;
    void *scratch = bytes ? cm_arena_alloc(t->arena, bytes) : NULL;
    double start = t->prof ? cm_now() : 0;
    if (!t->dry) (backward ? n->op->bwd : n->op->fwd)(n, scratch);
    if (t->prof) cm_prof_add(t->prof, n, backward, t->replay, cm_now() - start);
    cm_arena_reset(t->arena, mark);
}

static cm_node *node_new(cm_tape *t, const cm_op *op, cm_var *const *in, int n_in) {
    CM_ASSERT(n_in <= CM_MAX_IN, "op %s: %d inputs", op->name, n_in);
    cm_node *n = cm_arena_zalloc(t->meta, sizeof *n);
    n->op = op;
    n->tape = t;
    n->n_in = n_in;
    memcpy(n->in, in, (size_t)n_in * sizeof *in);
    return n;
}

/* What in[i]->g will be written by; see cm_var.part. */
static void note_reader(const cm_node *n, int i) {
    cm_var *x = n->in[i];
    cm_cols c = { 0, INT64_MAX };
    bool gives = n->op->gives_g >> i & 1;
    if (gives && n->op->cols) c = n->op->cols(n, i);
    for (int k = 0; k < x->n_part; k++)
        gives &= c.to <= x->part[k].from || c.from >= x->part[k].to;
    if (x->n_part < 0 || x->n_part == CM_MAX_PARTS || !gives) x->n_part = -1;
    else x->part[x->n_part++] = c;
}

/* May the gradient of x, which nothing has been added to, be BF16? */
static bool is_narrow(const cm_tape *t, const cm_var *x) {
    return t->compute == CM_COMPUTE_BF16 && !t->wide && x->products && x->n_part > 0;
}

static cm_dtype value_type(const cm_tape *t, const cm_node *n, int j) {
    bool narrow = t->compute == CM_COMPUTE_BF16 && !t->wide && n->narrow && j == 0;
    return narrow ? CM_BF16_T : CM_REAL_DTYPE;
}

/* Memory for out[0], that of an input where the op and whoever made that input permit. */
static void *value_room(cm_tape *t, const cm_node *n, int j) {
    size_t bytes = cm_tensor_bytes(&n->out[j]->v);
    for (int i = 0; n->grad && j == 0 && i < n->n_in; i++) {
        cm_var *x = n->in[i];
        if (!(n->op->over >> i & 1) || !x->products || !x->wants_grad || x->n_part) continue;
        CM_ASSERT(cm_tensor_bytes(&x->v) == bytes, "op %s: sizes differ", n->op->name);
        x->gone = true;
        return x->v.data;
    }
    return cm_arena_alloc(t->arena, bytes);
}

static void check_inputs(const cm_node *n) {
    for (int i = 0; i < n->n_in; i++) {
        const cm_var *x = n->in[i];
        CM_ASSERT(!x || !x->gone, "op %s: input %d was written over", n->op->name, i);
        CM_ASSERT(!x || x->v.dtype != CM_BF16_T || n->op->takes >> i & 1,
                  "op %s: input %d is stored as BF16", n->op->name, i);
    }
}

static void record(cm_tape *t, cm_node *n) {
    CM_ASSERT(t->n_node < t->cap_node, "more than %d nodes in a step", t->cap_node);
    t->node[t->n_node++] = n;
}

void cm_tape_apply(cm_tape *t, const cm_op *op, cm_var *const *in, int n_in,
                   const void *attr, cm_var **out) {
    cm_node *n = node_new(t, op, in, n_in);
    if (op->attr_bytes) {
        void *copy = cm_arena_alloc(t->meta, op->attr_bytes);
        memcpy(copy, attr, op->attr_bytes);
        n->attr = copy;
    }
    bool wants = false;
    for (int i = 0; i < n_in; i++) wants |= in[i] && in[i]->wants_grad;
    n->grad = t->recording && wants && op->bwd;
    check_inputs(n);
    n->n_out = op->n_out;
    for (int j = 0; j < op->n_out; j++) n->out[j] = var_alloc(t);
    const char *why = NULL;
    if (!op->infer(n, &why)) shape_panic(n, why);
    for (int j = 0; j < n->n_out; j++) {
        cm_var *y = n->out[j];
        y->v.dtype = value_type(t, n, j);
        y->v.data = value_room(t, n, j);
        y->wants_grad = n->grad;
        y->products = op->takes_g >> j & 1;
        out[j] = y;
    }
    if (n->grad) {
        size_t saved = op->saved ? op->saved(n) : 0;
        n->saved = saved ? cm_arena_alloc(t->arena, saved) : NULL;
        for (int i = 0; i < n_in; i++)
            if (in[i]) note_reader(n, i);
        record(t, n);
    }
    run(t, n, false);
}

/* ---- backward ------------------------------------------------------------------------- */

static size_t grad_bytes(const cm_var *x) {
    cm_tensor g = cm_grad_of(x);
    return cm_tensor_bytes(&g);
}

static cm_real *grad_take(cm_tape *t, size_t bytes) {
    for (cm_free **f = &t->freed; *f; f = &(*f)->next) {
        if ((*f)->bytes != bytes || !(*f)->p) continue;
        cm_real *p = (*f)->p;
        (*f)->p = NULL;
        return p;
    }
    return cm_arena_alloc(t->arena, bytes);
}

/* Hand a dead gradient back.  Empty list entries are reused, so meta does not grow. */
static void grad_give(cm_tape *t, cm_var *x) {
    if (!x->g_live || x->is_param) return;
    size_t bytes = grad_bytes(x);
    cm_free *f = t->freed;
    while (f && f->p) f = f->next;
    if (!f) {
        f = cm_arena_alloc(t->meta, sizeof *f);
        f->next = t->freed;
        t->freed = f;
    }
    f->bytes = bytes;
    f->p = x->g;
    x->g = NULL;
    x->g_live = false;
}

static void prepare_input_grads(cm_tape *t, cm_node *n) {
    for (int i = 0; i < n->n_in; i++) {
        cm_var *x = n->in[i];
        n->fresh[i] = false;
        if (!x || !x->wants_grad || x->is_param || x->g_live) continue;
        x->g_narrow = is_narrow(t, x);
        size_t bytes = grad_bytes(x);
        x->g = grad_take(t, bytes);
        x->g_live = true;
        n->fresh[i] = n->op->sets >> i & 1;
        if (!n->fresh[i] && !t->dry) memset(x->g, 0, bytes);
    }
}

static void backward_of(cm_tape *t, cm_node *n);

static void walk_back(cm_tape *t) {
    for (int k = t->n_node - 1; k >= 0; k--) {
        cm_node *n = t->node[k];
        bool arrived = false;
        for (int j = 0; j < n->n_out; j++) arrived |= n->out[j]->g_live;
        if (!arrived) continue;
        prepare_input_grads(t, n);
        backward_of(t, n);
        for (int j = 0; j < n->n_out; j++) grad_give(t, n->out[j]);
    }
    t->n_node = 0;
}

void cm_tape_backward(cm_tape *t, cm_var *loss, cm_real seed) {
    CM_ASSERT(t->recording, "backward of a tape that did not record");
    CM_ASSERT(cm_tensor_count(&loss->v) == 1, "the loss must be one number");
    if (!loss->wants_grad) return;
    loss->g = grad_take(t, sizeof(cm_real));
    loss->g_live = true;
    if (!t->dry) *loss->g = seed;
    walk_back(t);
}

/* ---- recomputation -------------------------------------------------------------------- */

typedef struct {
    cm_block_fn fn;
    void *ctx;
} recompute_attr;

/* Replay the block on a nested tape above the arena's mark.  Its inputs are proxies that
 * accumulate straight into the outer gradients; its outputs start with the outer ones. */
static void recompute_bwd(const cm_node *n) {
    const recompute_attr *a = n->attr;
    cm_tape *outer = n->tape;
    size_t mark = cm_arena_mark(outer->arena), meta = cm_arena_mark(outer->meta);
    cm_tape t;
    cm_tape_begin(&t, outer->arena, outer->meta, true, outer->dry);
    t.replay = true;
    t.compute = outer->compute;
    t.wide = outer->wide;
    t.prof = outer->prof;
    cm_var *in[CM_MAX_IN] = { 0 }, *out[CM_MAX_OUT] = { 0 };
    for (int i = 0; i < n->n_in; i++) {
        in[i] = var_alloc(&t);
        *in[i] = *n->in[i];
        in[i]->is_param = true;
    }
    a->fn(a->ctx, &t, in, out);
    for (int j = 0; j < n->n_out; j++) {
        out[j]->g = n->out[j]->g;
        out[j]->g_live = n->out[j]->g_live;
    }
    walk_back(&t);
    cm_arena_reset(outer->meta, meta);
    cm_arena_reset(outer->arena, mark);
}

/* Not in op_list.h: it has no shapes of its own and is checked through blocks. */
static const cm_op op_recompute = { .name = "recompute", .shapes = "block -> block" };

static void backward_of(cm_tape *t, cm_node *n) {
    if (n->op == &op_recompute)
        recompute_bwd(n);
    else
        run(t, n, true);
}

void cm_recompute(cm_tape *t, cm_block_fn fn, void *ctx, cm_var *const *in, int n_in,
                  const cm_tensor *like, cm_var **out, int n_out) {
    CM_ASSERT(n_out <= CM_MAX_OUT, "recompute: %d outputs", n_out);
    cm_node *n = node_new(t, &op_recompute, in, n_in);
    recompute_attr *a = cm_arena_alloc(t->meta, sizeof *a);
    *a = (recompute_attr){ fn, ctx };
    n->attr = a;
    n->grad = t->recording;
    n->n_out = n_out;
    for (int j = 0; j < n_out; j++)
        out[j] = n->out[j] = cm_var_new(t, like[j].dim, like[j].nd, t->recording);
    size_t mark = cm_arena_mark(t->arena), meta = cm_arena_mark(t->meta);
    cm_tape inner;
    cm_tape_begin(&inner, t->arena, t->meta, false, t->dry);
    inner.compute = t->compute;
    inner.wide = t->wide;
    inner.prof = t->prof;
    cm_var *got[CM_MAX_OUT] = { 0 };
    fn(ctx, &inner, in, got);
    for (int j = 0; j < n_out; j++) {
        CM_ASSERT(cm_tensor_same_shape(&got[j]->v, &n->out[j]->v) &&
                      got[j]->v.dtype == n->out[j]->v.dtype,
                  "recompute: output %d has another shape or type than declared", j);
        if (!t->dry)
            memcpy(n->out[j]->v.data, got[j]->v.data, cm_tensor_bytes(&got[j]->v));
    }
    cm_arena_reset(t->meta, meta);
    cm_arena_reset(t->arena, mark);
    if (!n->grad) return;
    for (int i = 0; i < n_in; i++) note_reader(n, i);
    record(t, n);
}
