/* ops_test.c -- every op against PyTorch: outputs and all gradients.
 *
 * tests/golden/ops/<op>.safetensors come from gen_ops.py (float64, independent formulas),
 * which describes their layout.  The double build must agree to 1e-10 of the largest
 * element, the product to float accuracy.  An op of op_list.h without a file fails. */
#include "io/io.h"
#include "op/op.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef CM_F64
static const double TOLERANCE = 1e-10, STRICT = 1e-10;
#else
static const double TOLERANCE = 1e-5, STRICT = 1e-6; /* STRICT: of preferences */
#endif

enum { MAX_INPUTS = 8 };

/* One case of one file on a tape of its own. */
typedef struct gold {
    const char *op;
    cm_st file;
    int index;
    const char *scalars;
    cm_arena arena, meta;
    cm_tape t;
    struct { const char *name; cm_var *var; } in[MAX_INPUTS];
    int n_in;
    cm_var *term[2]; /* <output, upstream gradient> */
    int n_term;
    int compared;
    double tolerance;
} gold;

static const cm_tensor *find(const gold *g, const char *prefix, const char *name) {
    char key[64];
    snprintf(key, sizeof key, "%d.%s%s", g->index, prefix, name);
    return cm_st_find(&g->file, key);
}

static const cm_tensor *need(const gold *g, const char *prefix, const char *name) {
    const cm_tensor *t = find(g, prefix, name);
    CM_ASSERT(t, "golden %s case %d lacks %s%s", g->op, g->index, prefix, name);
    return t;
}

static double num(const gold *g, const char *key) {
    char word[32];
    snprintf(word, sizeof word, "%s=", key);
    for (const char *s = g->scalars; s; s = strchr(s, ' ')) {
        s += *s == ' ';
        if (!strncmp(s, word, strlen(word))) return strtod(s + strlen(word), NULL);
    }
    cm_panic(__FILE__, __LINE__, "golden %s case %d lacks %s", g->op, g->index, key);
}

static int count(const gold *g, const char *key) { return (int)num(g, key); }

static cm_var *input(gold *g, const char *name) {
    const cm_tensor *t = need(g, "", name);
    cm_var *x = cm_var_new(&g->t, t->dim, t->nd, true);
    int64_t n = cm_tensor_count(t);
    for (int64_t i = 0; i < n; i++)
        cm_rdata(&x->v)[i] = (cm_real)((const double *)t->data)[i];
    x->is_param = true;
    x->g = cm_arena_zalloc(&g->arena, (size_t)n * sizeof(cm_real));
    g->in[g->n_in].name = name;
    g->in[g->n_in++].var = x;
    return x;
}

static const int32_t *ids(const gold *g, const char *name) {
    return need(g, "", name)->data;
}

static cm_seq seq_of(const gold *g) {
    return (cm_seq){ .B = count(g, "B"), .T = count(g, "T"), .doc = ids(g, "doc") };
}

/* Largest difference relative to the largest expected element. */
static void compare(gold *g, const char *what, const char *name, const cm_real *got,
                    const cm_tensor *want) {
    double worst = 0, scale = 1e-300;
    const double *w = want->data;
    for (int64_t i = 0; i < cm_tensor_count(want); i++) {
        double d = fabs((double)got[i] - w[i]);
        if (!(d <= worst)) worst = isfinite(d) ? d : (double)INFINITY;
        scale = fmax(scale, fabs(w[i]));
    }
    /* A vanishing expectation (K = 1: the gate's gradient) is compared absolutely. */
    double err = worst / fmax(scale, 1e-3);
    CHECKF(err <= g->tolerance, "%s case %d: %s%s is off by %.3g of its largest element",
           g->op, g->index, what, name, err);
    g->compared++;
}

/* y = <x, weights>, the weights a tensor of the file. */
static bool dot_infer(cm_node *n, const char **why) {
    (void)why;
    n->out[0]->v.nd = 1;
    n->out[0]->v.dim[0] = 1;
    return true;
}
static void dot_fwd(cm_node *n, void *scratch) {
    (void)scratch;
    *cm_rdata(&n->out[0]->v) = 0;
}
static void dot_bwd(cm_node *n, void *scratch) {
    (void)scratch;
    const double *w = *(const double *const *)n->attr;
    for (int64_t i = 0; i < cm_tensor_count(&n->in[0]->v); i++)
        n->in[0]->g[i] += (cm_real)w[i];
}
static const cm_op dot_op = { .name = "dot", .shapes = "x -> y[1]", .n_in = 1, .n_out = 1,
                              .attr_bytes = sizeof(double *), .infer = dot_infer,
                              .fwd = dot_fwd, .bwd = dot_bwd };

static void output(gold *g, const char *name, cm_var *y) {
    compare(g, "", name, cm_rdata(&y->v), need(g, "", name));
    const double *w = need(g, "g", name)->data;
    cm_tape_apply(&g->t, &dot_op, &y, 1, &w, &g->term[g->n_term++]);
}

/* ---- the ops ---- */

static void do_embed(gold *g) {
    int64_t R = cm_tensor_count(need(g, "", "token"));
    output(g, "y", cm_embed(&g->t, input(g, "w"), ids(g, "token"), R,
                            (cm_real)num(g, "scale")));
}
static void do_noise(gold *g) {
    cm_seq seq = { .B = (int)count(g, "B"), .T = (int)count(g, "T"), .doc = ids(g, "doc") };
    cm_noise n = { num(g, "alpha"), (uint64_t)num(g, "seed"), (int64_t)num(g, "row") };
    output(g, "y", cm_add_noise(&g->t, input(g, "x"), &n, &seq));
}
static void do_linear(gold *g) {
    cm_var *x = input(g, "x");
    output(g, "y", cm_linear(&g->t, x, input(g, "w")));
}
static void do_dropout(gold *g) {
    cm_drop d = { num(g, "share"), (uint64_t)count(g, "seed"), count(g, "row"), count(g, "T") };
    output(g, "y", cm_dropout(&g->t, input(g, "x"), &d, (uint64_t)count(g, "module")));
}
static void do_rmsnorm(gold *g) {
    cm_var *x = input(g, "x");
    output(g, "y", cm_rmsnorm(&g->t, x, input(g, "w"), (cm_real)num(g, "eps"), CM_ANYBODY));
}
static void do_residual(gold *g) {
    cm_var *x = input(g, "x");
    output(g, "y", cm_residual(&g->t, x, input(g, "b"), (cm_real)num(g, "scale")));
}
static void do_swiglu(gold *g) { output(g, "y", cm_swiglu(&g->t, input(g, "ab"), CM_ANYBODY)); }
static void do_sum(gold *g) {
    static const char *const name[] = { "x0", "x1", "x2", "x3" };
    cm_var *x[4];
    for (int i = 0; i < 4; i++) x[i] = input(g, name[i]);
    output(g, "y", cm_sum(&g->t, x, 4));
}

/* The case's frequencies by our own code, compared with the file's. */
static const double *rope_of(gold *g, double *mscale) {
    static const int kinds[] = { CM_ROPE_NONE, CM_ROPE_PLAIN, CM_ROPE_LINEAR,
                                          CM_ROPE_YARN };
    cm_rope_conf c = { .kind = kinds[count(g, "rope")], .P = count(g, "P"),
                       .base = num(g, "base"), .factor = num(g, "factor"),
                       .orig_ctx = num(g, "orig"), .beta_fast = 32, .beta_slow = 1 };
    *mscale = 1;
    if (c.kind == CM_ROPE_NONE) return NULL;
    double *inv = cm_arena_alloc(&g->meta, sizeof *inv * (size_t)(c.P / 2));
    const double *want = need(g, "", "inv")->data;
    cm_rope_freqs(&c, inv, mscale);
    for (int i = 0; i < c.P / 2; i++)
        CHECKF(fabs(inv[i] - want[i]) <= 1e-14 * want[i],
               "case %d: frequency %d is %.17g, wanted %.17g", g->index, i, inv[i],
               want[i]);
    CHECK(fabs(*mscale - num(g, "mscale")) < 1e-14);
    return inv;
}

static void do_attention(gold *g) {
    cm_seq seq = seq_of(g);
    seq.pos = ids(g, "pos");
    double mscale;
    const double *inv = rope_of(g, &mscale);
    cm_var *q = input(g, "q"), *k = input(g, "k"), *v = input(g, "v");
    output(g, "y", cm_attention(&g->t, q, k, v, &seq, count(g, "H"), count(g, "G"),
                                (cm_real)num(g, "scale"), inv, mscale));
}

/* Cases without packed documents, in two portions through a cache: the rows of y. */
static void do_attention_cached(gold *g) {
    int B = count(g, "B"), T = count(g, "T"), H = count(g, "H"), G = count(g, "G");
    int P = count(g, "P"), cut = T / 3;
    const int32_t *pos = ids(g, "pos");
    for (int r = 0; r < B * T; r++)
        if (pos[r] != r % T) return;
    double mscale;
    const double *inv = rope_of(g, &mscale);
    cm_var *x[3] = { input(g, "q"), input(g, "k"), input(g, "v") };
    cm_real *y = cm_arena_alloc(&g->arena, sizeof *y * (size_t)(B * T * H * P));
    size_t bytes = sizeof(cm_real) * (size_t)(B * T * G * P);
    int32_t held[8] = { 0 };
    cm_kv kv = { cm_arena_alloc(&g->arena, bytes), cm_arena_alloc(&g->arena, bytes), T,
                 held, g->index % 2, false, CM_F32_T };
    for (int from = 0, n = cut; from < T; from += n, n = T - from) {
        if (n <= 0) n = T;
        cm_var *part[3];
        for (int i = 0; i < 3; i++) {
            int64_t w = x[i]->v.dim[1];
            part[i] = cm_var_new(&g->t, (int64_t[]){ (int64_t)B * n, w }, 2, false);
            for (int b = 0; b < B; b++)
                memcpy(cm_rdata(&part[i]->v) + b * n * w,
                       cm_rdata(&x[i]->v) + (b * T + from) * w,
                       sizeof(cm_real) * (size_t)(n * w));
        }
        cm_var *out = cm_attention_cached(&g->t, part[0], part[1], part[2], &kv, B, H, G,
                                          (cm_real)num(g, "scale"), inv, mscale);
        for (int b = 0; b < B; b++) {
            memcpy(y + (b * T + from) * H * P, cm_rdata(&out->v) + b * n * H * P,
                   sizeof *y * (size_t)(n * H * P));
            held[b] += n;
        }
    }
    compare(g, "", "y", y, need(g, "", "y"));
    g->n_in = 0;
}

/* Each document as two paths of a tree: its first third, then all of it, which shares the
 * rows of the first. */
static void do_attention_paths(gold *g) {
    int R = count(g, "B") * count(g, "T"), H = count(g, "H"), G = count(g, "G");
    const int32_t *pos = ids(g, "pos");
    for (int r = 0; r < R; r++)
        if (pos[r] != 0 && (r == 0 || pos[r] != pos[r - 1] + 1)) return;
    double mscale;
    const double *inv = rope_of(g, &mscale);
    cm_var *q = input(g, "q"), *k = input(g, "k"), *v = input(g, "v"), *y, *rot;
    cm_path *path = cm_arena_alloc(&g->arena, sizeof *path * (size_t)(2 * R));
    int32_t *row = cm_arena_alloc(&g->arena, sizeof *row * (size_t)(2 * R));
    cm_paths p = { .rows = R, .path = path, .row = row, .pos = pos };
    for (int from = 0, to; from < R; from = to) {
        for (to = from + 1; to < R && pos[to];) to++;
        int n[2] = { (to - from + 2) / 3, to - from };
        for (int half = 0; half < 2; half++) {
            path[p.n++] = (cm_path){ .at = p.packed, .len = n[half],
                                     .shared = half ? n[0] : 0 };
            for (int i = 0; i < n[half]; i++) row[p.packed++] = from + i;
        }
        if (to - from > p.longest) p.longest = to - from;
    }
    cm_attention_paths(&g->t, q, k, v, &p, 0, H, G, (cm_real)num(g, "scale"), inv, mscale,
                       &y, &rot);
    compare(g, "", "y", cm_rdata(&y->v), need(g, "", "y"));
    g->n_in = 0;
}

static void do_conv_silu(gold *g) {
    cm_seq seq = seq_of(g);
    cm_var *x = input(g, "x"), *w = input(g, "w"), *b = input(g, "b");
    output(g, "y", cm_conv_silu(&g->t, x, w, b, &seq, count(g, "col"), NULL, NULL));
}

static void do_ssd(gold *g) {
    cm_seq seq = seq_of(g);
    cm_ssd_conf c = { .H = count(g, "H"), .P = count(g, "P"), .N = count(g, "N"),
                      .G = count(g, "G"), .Q = count(g, "Q"), .dcol = count(g, "dcol") };
    cm_var *xbc = input(g, "xbc"), *dtx = input(g, "dtx"), *a = input(g, "A_log");
    cm_var *d = input(g, "D"), *bias = input(g, "dt_bias"), *y, *s1;
    cm_var *s0 = find(g, "", "s0") ? input(g, "s0") : NULL;
    cm_ssd(&g->t, xbc, dtx, a, d, bias, s0, &seq, &c, &y, s0 ? &s1 : NULL);
    output(g, "y", y);
    if (s0) output(g, "s1", s1);
}

static void do_gated_norm(gold *g) {
    cm_var *y = input(g, "y"), *zx = input(g, "zx"), *w = input(g, "w");
    output(g, "out", cm_gated_norm(&g->t, y, zx, w, count(g, "zcol"), count(g, "G"),
                                   (cm_real)num(g, "eps"), CM_ANYBODY));
}

static void do_moe(gold *g) {
    cm_var *x = input(g, "x"), *r = input(g, "router"), *wi = input(g, "w_in");
    cm_var *wo = input(g, "w_out"), *y, *aux;
    int64_t load[64] = { 0 };
    cm_moe(&g->t, x, r, wi, wo, NULL, count(g, "K"), (cm_real)num(g, "lb"),
           (cm_real)num(g, "z"), load, NULL, &y, &aux);
    output(g, "y", y);
    output(g, "aux", aux);
    for (int64_t e = 0; e < r->v.dim[0]; e++)
        CHECKF(load[e] == ids(g, "load")[e], "case %d: expert %d has %d rows", g->index,
               (int)e, (int)load[e]);
}

static void do_xent(gold *g) {
    cm_var *x = input(g, "x"), *w = input(g, "w");
    cm_real *nll = cm_arena_alloc(&g->arena, sizeof *nll * (size_t)x->v.dim[0]);
    cm_var *y = cm_xent(&g->t, x, w, ids(g, "target"), (cm_real)num(g, "logit_scale"),
                        (cm_real)num(g, "norm"), (cm_real)num(g, "z"), nll, NULL);
    compare(g, "", "nll", nll, need(g, "", "nll"));
    compare(g, "", "y", cm_rdata(&y->v), need(g, "", "y"));
    g->term[g->n_term++] = y; /* a loss: its upstream gradient is 1 */
}

static void do_logp(gold *g) {
    cm_var *x = input(g, "x"), *w = input(g, "w");
    g->tolerance = STRICT;
    output(g, "y", cm_target_logp(&g->t, x, w, ids(g, "target"),
                                  (cm_real)num(g, "logit_scale")));
}

/* The file's losses, log-probabilities and rewards of all pairs against ours. */
static void compare_pairs(gold *g, const cm_pair *pair, int n) {
    cm_real *x = cm_arena_alloc(&g->arena, sizeof *x * (size_t)(5 * n));
    for (int i = 0; i < n; i++) {
        x[i] = (cm_real)pair[i].loss;
        for (int k = 0; k < 2; k++) {
            x[n + 2 * i + k] = (cm_real)pair[i].logp[k];
            x[3 * n + 2 * i + k] = (cm_real)pair[i].reward[k];
        }
    }
    compare(g, "", "losses", x, need(g, "", "losses"));
    compare(g, "", "logps", x + n, need(g, "", "logps"));
    compare(g, "", "rewards", x + 3 * n, need(g, "", "rewards"));
}

static void do_prefer(gold *g) {
    const cm_tensor *spans = need(g, "", "pairs");
    const int32_t *at = spans->data, *keep = ids(g, "keep");
    const double *ref = need(g, "", "ref")->data;
    int n = (int)spans->dim[0];
    cm_prefer_conf c = {
        .loss = count(g, "ipo") ? CM_PREFER_IPO : CM_PREFER_SIGMOID, .beta = num(g, "beta"),
        .label_smoothing = num(g, "eps"), .margin = num(g, "margin"), .nll = num(g, "nll"),
        .dpop = num(g, "dpop"), .length_norm = count(g, "length_norm"),
        .reference_free = count(g, "free") };
    g->tolerance = STRICT;
    cm_var *logp = input(g, "logp");
    for (int64_t r = 0; r < logp->v.dim[0]; r++)
        if (!keep[r]) cm_rdata(&logp->v)[r] = 0;
    cm_pair *pair = cm_arena_zalloc(&g->arena, sizeof *pair * (size_t)n);
    for (int i = 0; i < 2 * n; i++) {
        cm_pair *p = &pair[i / 2];
        p->from[i % 2] = at[2 * i];
        p->to[i % 2] = at[2 * i + 1];
        for (int r = at[2 * i]; r < at[2 * i + 1]; r++) p->n[i % 2] += keep[r];
        p->ref[i % 2] = ref[i];
    }
    cm_var *y = cm_prefer(&g->t, logp, pair, n, &c, (cm_real)num(g, "norm"));
    compare_pairs(g, pair, n);
    compare(g, "", "y", cm_rdata(&y->v), need(g, "", "y"));
    cm_tape_backward(&g->t, y, 1);
    for (int64_t r = 0; r < logp->v.dim[0]; r++)
        if (!keep[r]) logp->g[r] = 0; /* where logp would pass nothing on */
}

/* One runner an op. */
static const struct runner {
    const char *op;
    void (*run)(gold *g);
} runners[] = {
#define OP(name) { #name, do_##name },
#include "op/op_list.h"
#undef OP
};

static bool open_case(gold *g, const struct runner *r, int index) {
    cm_err err;
    char path[128], key[16];
    *g = (gold){ .op = r->op, .index = index, .tolerance = TOLERANCE };
    const char *file = strncmp(r->op, "attention_", 10) ? r->op : "attention";
    snprintf(path, sizeof path, "tests/golden/ops/%s.safetensors", file);
    bool ok = cm_st_open(&g->file, path, &err);
    CM_ASSERT(ok, "%s", err.msg);
    snprintf(key, sizeof key, "%d", index);
    g->scalars = cm_st_get_meta(&g->file, key);
    if (!g->scalars) {
        cm_st_close(&g->file);
        return false;
    }
    ok = cm_arena_open(&g->arena, "golden", (size_t)64 << 20, &err) &&
         cm_arena_open(&g->meta, "golden meta", (size_t)16 << 20, &err);
    CM_ASSERT(ok, "%s", err.msg);
    cm_tape_begin(&g->t, &g->arena, &g->meta, true, false);
    return true;
}

static int run_op(const struct runner *r) {
    gold g;
    int compared = 0;
    for (int i = 0; open_case(&g, r, i); i++) {
        r->run(&g);
        if (g.n_term) cm_tape_backward(&g.t, cm_sum(&g.t, g.term, g.n_term), 1);
        for (int k = 0; k < g.n_in; k++)
            compare(&g, "d", g.in[k].name, g.in[k].var->g, need(&g, "d", g.in[k].name));
        compared += g.compared;
        cm_arena_close(&g.arena);
        cm_arena_close(&g.meta);
        cm_st_close(&g.file);
    }
    return compared;
}

TEST(ops_equal_pytorch) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, 2, &err), "%s", err.msg);
    for (size_t i = 0; i < sizeof runners / sizeof *runners; i++) {
        int n = run_op(&runners[i]);
        CHECKF(n > 0, "%s: nothing compared", runners[i].op);
        printf("  %-16s %2d tensors compared\n", runners[i].op, n);
    }
}
