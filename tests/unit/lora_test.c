/* lora_test.c -- adapters: what they start as, count, leave alone, and come back as. */
#include "tests/train_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 40 };

static char *tmp(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

/* ---- a base on the disk, adapters on it ------------------------------------------------ */

static bool extra_config(void *ctx, const char *folder, cm_err *err) {
    const cm_job *j = ctx;
    char *path = cm_strf("%s/config.json", folder);
    bool ok = cm_hf_write_config(j->model, NULL, path, err);
    free(path);
    return ok;
}

/* The corpus and a base trained on it for ten steps, made once. */
static const char *corpus(void) {
    static char *dir;
    cm_err err;
    if (dir) return dir;
    CM_ASSERT(cm_kern_init(CM_NUMERICS_STRICT, 2, &err), "%s", err.msg);
    fx_corpus(dir = tmp("corpus"), 120, CM_SHARD_BOS | CM_SHARD_EOS);
    return dir;
}

static char *make_base(const char *name, const char *word) {
    fx_job f;
    cm_err err;
    bool complete;
    char *dir = tmp(name);
    const char *words[] = { word, NULL };
    fx_open(&f, corpus(), dir, words);
    f.job.stop_at = 10;
    f.job.extra = extra_config;
    f.job.ctx = &f.job;
    CM_ASSERT(cm_train(&f.job, &complete, &err), "%s", err.msg);
    fx_close(&f);
    return dir;
}

static const char *base(void) {
    static char *dir;
    return dir ? dir : (dir = make_base("base", NULL));
}

static bool init_base(void *ctx, cm_model *m, cm_err *err) {
    return cm_load_into(m, ctx, NULL, err);
}

/* A job of adapters on a base; the base's path and id stay in *l. */
static void lora_open(fx_job *f, cm_loaded *l, const char *on, const char *ckpt,
                      const char *const *words) {
    cm_err err;
    fx_open(f, corpus(), ckpt, words);
    CM_ASSERT(cm_load(l, on, CM_LOAD_SHAPE, &err), "%s", err.msg);
    f->job.lora = &f->conf.lora;
    f->job.base = l->path;
    f->job.base_id = l->id;
    f->job.init = init_base;
    f->job.ctx = l->path;
}

/* Train adapters up to a step; the checkpoint's sums. */
static char *train(const char *ckpt, int64_t stop_at, const char *const *words) {
    fx_job f;
    cm_loaded l;
    cm_err err;
    bool complete;
    lora_open(&f, &l, base(), ckpt, words);
    f.job.stop_at = stop_at;
    bool ok = cm_train(&f.job, &complete, &err);
    CHECKF(ok, "cm_train: %s", err.msg);
    fx_close(&f);
    cm_loaded_close(&l);
    return fx_sums(ckpt, stop_at);
}

static void logits_of(const cm_model *m, cm_real *out) {
    int32_t token[TOKENS];
    cm_err err;
    cm_session s;
    for (int i = 0; i < TOKENS; i++) token[i] = (7 * i + 3) % FX_VOCAB;
    CM_ASSERT(cm_session_open(&s, m, TOKENS, &err) &&
              cm_session_feed(&s, token, TOKENS, out, NULL, &err), "%s", err.msg);
    cm_session_close(&s);
}

/* Largest difference of logits, of the largest logit. */
static double apart(const cm_model *a, const cm_model *b) {
    static cm_real x[TOKENS * FX_VOCAB], y[TOKENS * FX_VOCAB];
    double most = 0, worst = 0;
    logits_of(a, x);
    logits_of(b, y);
    for (int i = 0; i < TOKENS * FX_VOCAB; i++) {
        most = fmax(most, fabs((double)x[i]));
        worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
    }
    return worst / most;
}

static void load(cm_loaded *l, const char *path, unsigned flags) {
    cm_err err;
    CM_ASSERT(cm_load(l, path, flags, &err), "%s", err.msg);
}

/* ---- tests ------------------------------------------------------------------------------ */

TEST(new_adapters_change_no_bit) {
    fx_job f;
    cm_loaded l, plain;
    cm_model m;
    cm_arena arena;
    cm_err err;
    const char *words[] = { "lora.rank=3", NULL };
    lora_open(&f, &l, base(), NULL, words);
    load(&plain, base(), 0);
    CM_ASSERT(cm_arena_open(&arena, "lora", 1 << 26, &err), "%s", err.msg);
    cm_model_build_lora(&m, &l.model.conf, &f.conf.lora, &arena, true);
    CM_ASSERT(cm_load_into(&m, base(), NULL, &err), "%s", err.msg);
    cm_params_init(&m.adapter, 5);
    CHECK(m.adapter.n > 0 && apart(&plain.model, &m) == 0);
    for (int i = 0; i < m.params.n; i++)
        CHECK(!m.params.p[i]->var.g && !m.params.p[i]->var.wants_grad);
    /* A is PyTorch's kaiming_uniform(a = sqrt 5): within 1/sqrt(fan_in), filling it. */
    double bound = 1 / sqrt((double)m.conf.d_model), most = 0;
    const cm_tensor *a = &cm_params_find(&m.adapter, "model.layers.1.self_attn.q_proj.lora_A"
                                                     ".weight")->var.v;
    for (int64_t i = 0; i < cm_tensor_count(a); i++)
        most = fmax(most, fabs((double)cm_rdata(a)[i]));
    CHECKF(most <= bound && most > 0.9 * bound, "A reaches %g of %g", most, bound);
    cm_rdata(&m.adapter.p[1]->var.v)[0] = 1; /* B of the first */
    CHECK(apart(&plain.model, &m) > 0);
    cm_model_end(&m);
    cm_arena_close(&arena);
    cm_loaded_close(&plain);
    cm_loaded_close(&l);
    fx_close(&f);
}

/* The fixture's hybrid: layer 0 Mamba-2 with a dense FFN, layer 1 attention with experts. */
TEST(counts_and_bytes_by_formula) {
    enum { D = 32, DI = 64, N = 8, H = 4, F = 48, P = 16, E = 4, FE = 16, R = 5 };
    int64_t in_proj = 2 * DI + 2 * N + H;
    int64_t mamba = R * (D + in_proj) + R * (DI + D), mlp = R * (D + 2 * F) + R * (F + D);
    int64_t attention = R * (D + 2 * P) + 2 * R * (D + P) + R * (2 * P + D);
    int64_t experts = E * R * (D + 2 * FE + FE + D);
    const struct { const char *targets; int64_t n; int tensors; } cases[] = {
        { "[all]", mamba + mlp + attention + experts, 20 },
        { "[mamba]", mamba, 4 }, { "[attention]", attention, 8 }, { "[mlp]", mlp, 4 },
        { "[experts]", experts, 4 }, { "[q_proj, mamba.out_proj]",
        R * (D + 2 * P) + R * (DI + D), 4 }, { "[layers.1.self_attn.k_proj]", R * (D + P), 2 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *word = cm_strf("lora.targets=%s", cases[i].targets);
        const char *words[] = { "lora.rank=5", word, NULL };
        fx_job f;
        cm_loaded l;
        cm_plan p;
        cm_err err;
        lora_open(&f, &l, base(), NULL, words);
        CM_ASSERT(cm_plan_make(&f.job, &p, &err), "%s", err.msg);
        size_t bytes = (size_t)cases[i].n * sizeof(cm_real);
        size_t slack = (size_t)cases[i].tensors * (CM_ALIGN - 1);
        CHECKF(p.trained == cases[i].n, "%s: %lld trained, %lld by formula", word,
               (long long)p.trained, (long long)cases[i].n);
        CHECK(p.params == cm_model_count(&f.model, false) + cases[i].n);
        CHECK(p.grads >= bytes && p.grads <= bytes + slack);
        CHECK(p.moments == 2 * p.grads && p.ckpt == 3 * (uint64_t)bytes);
        CHECK(p.weights >= bytes + (size_t)cm_model_count(&f.model, false) * sizeof(cm_real));
        free(word);
        cm_loaded_close(&l);
        fx_close(&f);
    }
}

TEST(training_leaves_the_base_alone) {
    char *ckpt = tmp("trained"), *latest = tmp("trained/latest"), *sums;
    const char *words[] = { "lora.rank=4", "optim.lr=1e-2", NULL };
    cm_loaded before, apart_l, merged;
    sums = train(ckpt, 20, words);
    CHECK(sums && !strstr(sums, " model.safetensors"));
    free(sums);
    load(&before, base(), 0);
    load(&apart_l, ckpt, CM_LOAD_APART);
    load(&merged, latest, 0);
    CHECK(apart_l.model.adapter.n == 20 && merged.model.adapter.n == 0);
    for (int i = 0; i < before.model.params.n; i++) {
        const cm_tensor *a = &before.model.params.p[i]->var.v;
        const cm_tensor *b = &apart_l.model.params.p[i]->var.v;
        CHECKF(!memcmp(a->data, b->data, cm_tensor_bytes(a)), "%s changed",
               before.model.params.p[i]->name);
    }
    double far = apart(&before.model, &merged.model);
    double d = apart(&apart_l.model, &merged.model);
    CHECKF(far > 1e-2, "training moved logits by only %g", far);
    CHECKF(d <= 1e-5, "merged and adapter model differ by %g", d);
    CHECK(strcmp(merged.id, before.id) && strlen(merged.id) == 64);
    CHECK(!strcmp(merged.source, "checkpoint"));
    cm_loaded_close(&before);
    cm_loaded_close(&apart_l);
    cm_loaded_close(&merged);
    free(latest);
    free(ckpt);
}

/* Also in memory, through the trainer's own model: weights after twenty steps. */
static cm_real *kept;
static bool keep_base(void *ctx, const cm_model *m, int64_t step, cm_buf *row, bool *stop,
                      cm_err *err) {
    (void)ctx, (void)step, (void)row, (void)stop, (void)err;
    size_t n = 0;
    for (int i = 0; i < m->params.n; i++) n += cm_tensor_bytes(&m->params.p[i]->var.v);
    unsigned char *all = malloc(n), *at = all;
    CM_ASSERT(all, "out of memory");
    for (int i = 0; i < m->params.n; i++) {
        size_t b = cm_tensor_bytes(&m->params.p[i]->var.v);
        memcpy(at, m->params.p[i]->var.v.data, b);
        at += b;
    }
    if (kept) CHECK(!memcmp(kept, all, n));
    else kept = (cm_real *)(void *)all;
    if ((void *)kept != all) free(all);
    return true;
}

TEST(frozen_weights_keep_their_bits_in_memory) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        char *ckpt = tmp(bf16 ? "frozen16" : "frozen");
        const char *words[] = { "lora.rank=4", "optim.lr=1e-2",
                                bf16 ? "lora.base=bf16" : "lora.base=f32", NULL };
        fx_job f;
        cm_loaded l;
        cm_err err;
        bool complete;
        kept = NULL;
        lora_open(&f, &l, base(), ckpt, words);
        f.job.watch = keep_base;
        CHECKF(cm_train(&f.job, &complete, &err) && complete, "%s", err.msg);
        fx_close(&f);
        cm_loaded_close(&l);
        free(kept);
        free(ckpt);
    }
}

/* The adapters' file does not tell how the run went: interrupted or not, with activations
 * kept or computed again, dropout included. */
TEST(same_adapters_however_it_ran) {
    char *first = NULL;
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "drop%d", i);
        char *ckpt = tmp(name);
        const char *words[] = { "lora.rank=2", "lora.dropout=0.2",
                                "lora.targets=[attention, mamba, mlp]",
                                i == 1 ? "train.recompute=block" : "train.recompute=none",
                                NULL };
        if (i == 2) free(train(ckpt, 10, words));
        char *sums = train(ckpt, 20, words);
        char *line = sums ? strstr(sums, "  adapter_model.safetensors") : NULL;
        CHECK(line);
        if (line && !first) first = cm_strf("%.64s", line - 64);
        CHECKF(line && !strncmp(line - 64, first, 64), "run %d has other adapters", i);
        free(sums);
        free(ckpt);
    }
    free(first);
}

/* y[R,I] of rows of T tokens, the first of which has number `row`. */
static void drop_rows(int64_t row, int B, int T, const cm_real *x, cm_real *y) {
    enum { I = 9 };
    cm_arena a, meta;
    cm_err err;
    cm_tape t;
    CM_ASSERT(cm_arena_open(&a, "drop", 1 << 20, &err) &&
              cm_arena_open(&meta, "drop meta", 1 << 20, &err), "%s", err.msg);
    cm_tape_begin(&t, &a, &meta, false, false);
    cm_var *in = cm_var_const(&t, CM_REAL_DTYPE, (int64_t[]){ B * T, I }, 2,
                              (void *)(uintptr_t)x);
    cm_drop d = { .share = 0.3, .seed = 4, .row = row, .T = T };
    memcpy(y, cm_rdata(&cm_dropout(&t, in, &d, 2)->v), (size_t)(B * T * I) * sizeof *y);
    cm_arena_close(&a);
    cm_arena_close(&meta);
}

TEST(dropout_does_not_see_micro_batches) {
    enum { T = 5, I = 9, N = 4 * T * I };
    cm_real x[N], all[N], part[N];
    for (int i = 0; i < N; i++) x[i] = 1;
    corpus();
    drop_rows(7, 4, T, x, all);
    drop_rows(7, 1, T, x, part);
    drop_rows(8, 3, T, x + T * I, part + T * I);
    CHECK(!memcmp(all, part, sizeof all));
    int dropped = 0;
    for (int i = 0; i < N; i++) {
        dropped += all[i] == 0;
        CHECK(all[i] == 0 || fabs((double)all[i] - 1 / 0.7) < 1e-6);
    }
    CHECKF(dropped > N / 5 && dropped < N * 2 / 5, "%d of %d dropped", dropped, N);
}

TEST(dropout_acts_and_only_in_training) {
    char *a = tmp("with"), *b = tmp("without");
    const char *with[] = { "lora.rank=2", "lora.dropout=0.5", "lora.targets=[mlp]", NULL };
    const char *without[] = { "lora.rank=2", "lora.targets=[mlp]", NULL };
    cm_loaded x, y;
    free(train(a, 10, with));
    free(train(b, 10, without));
    load(&x, a, 0);
    load(&y, b, 0);
    CHECK(apart(&x.model, &y.model) > 0);
    cm_loaded_close(&x);
    cm_loaded_close(&y);
    free(a);
    free(b);
}

/* A base held as BF16 is the base rounded once: the same bits of logits. */
TEST(bf16_base_is_the_rounded_base) {
    cm_loaded wide, narrow;
    load(&wide, base(), 0);
    load(&narrow, base(), CM_LOAD_BF16);
    CHECK(apart(&wide.model, &narrow.model) > 0);
    size_t bytes[2] = { 0 };
    for (int i = 0; i < wide.model.params.n; i++) {
        cm_param *p = wide.model.params.p[i];
        bool matrix = p->group == CM_GROUP_MATRIX || p->group == CM_GROUP_EMBED;
        CHECK((narrow.model.params.p[i]->var.v.dtype == CM_BF16_T) == matrix);
        bytes[0] += cm_tensor_bytes(&p->var.v);
        bytes[1] += cm_tensor_bytes(&narrow.model.params.p[i]->var.v);
        for (int64_t k = 0; matrix && k < cm_tensor_count(&p->var.v); k++) {
            float x = (float)cm_rdata(&p->var.v)[k];
            cm_rdata(&p->var.v)[k] = (cm_real)cm_bf16_to_f32(cm_f32_to_bf16(x));
        }
    }
    CHECK(bytes[1] < bytes[0] * 0.56);
    CHECK(apart(&wide.model, &narrow.model) == 0);
    cm_loaded_close(&wide);
    cm_loaded_close(&narrow);
}

TEST(bf16_adapters_load_as_they_were_trained) {
    char *ckpt = tmp("narrow");
    const char *words[] = { "lora.rank=4", "lora.base=bf16", "optim.lr=1e-2", NULL };
    cm_loaded apart_l, merged;
    free(train(ckpt, 10, words));
    load(&apart_l, ckpt, CM_LOAD_APART);
    load(&merged, ckpt, 0);
    double d = apart(&apart_l.model, &merged.model);
    CHECKF(d <= 1e-5, "merged and adapter model differ by %g", d);
    cm_loaded_close(&apart_l);
    cm_loaded_close(&merged);
    free(ckpt);
}

/* Gradients through a base of BF16 too are those of the rounded base: on a base that BF16
 * holds exactly, both ways of holding it train the same adapters. */
static void trains_the_same_bits(const char *compute) {
    char *exact = tmp("exact");
    const char *words[] = { "lora.rank=3", "lora.base=f32", compute, NULL };
    cm_loaded l, got[2];
    cm_err err;
    bool complete;
    load(&l, base(), 0);
    cm_export x = { .model = &l.model, .mix = CM_TYPE_BF16 };
    CM_ASSERT(cm_export_hf(&x, exact, &err), "%s", err.msg);
    cm_loaded_close(&l);
    for (int i = 0; i < 2; i++) {
        fx_job f;
        char *ckpt = cm_strf("%s/%s-%d", t_tmpdir(), compute, i);
        if (i) words[1] = "lora.base=bf16";
        lora_open(&f, &l, exact, ckpt, words);
        f.job.stop_at = 10;
        CHECKF(cm_train(&f.job, &complete, &err), "%s", err.msg);
        cm_loaded_close(&l);
        fx_close(&f);
        load(&got[i], ckpt, CM_LOAD_APART);
        free(ckpt);
    }
    for (int i = 0; i < got[0].model.adapter.n; i++) {
        const cm_tensor *a = &got[0].model.adapter.p[i]->var.v;
        const cm_tensor *b = &got[1].model.adapter.p[i]->var.v;
        CHECKF(!memcmp(a->data, b->data, cm_tensor_bytes(a)), "%s",
               got[0].model.adapter.p[i]->name);
    }
    cm_loaded_close(&got[0]);
    cm_loaded_close(&got[1]);
    free(exact);
}

TEST(bf16_trains_the_same_bits) { trains_the_same_bits("train.compute=fp32"); }

/* Where products are of BF16, the stored base is their operand as it is. */
TEST(bf16_trains_the_same_bits_in_bf16) { trains_the_same_bits("train.compute=bf16"); }

/* Adapters on adapters: the base of the second is the merge of the first. */
TEST(an_adapter_is_a_base_too) {
    char *one = tmp("one"), *two = tmp("two");
    const char *words[] = { "lora.rank=2", "optim.lr=1e-2", NULL };
    fx_job f;
    cm_loaded l, below, above, merged;
    cm_err err;
    bool complete;
    free(train(one, 10, words));
    lora_open(&f, &l, one, two, words);
    f.job.stop_at = 10;
    CHECKF(cm_train(&f.job, &complete, &err), "%s", err.msg);
    load(&below, one, 0);
    load(&above, two, CM_LOAD_APART);
    load(&merged, two, 0);
    CHECK(apart(&below.model, &merged.model) > 1e-4);
    CHECK(apart(&above.model, &merged.model) <= 1e-5);
    cm_lora_detach(&above.model.params);
    CHECK(apart(&below.model, &above.model) == 0);
    cm_loaded_close(&below);
    cm_loaded_close(&above);
    cm_loaded_close(&merged);
    cm_loaded_close(&l);
    fx_close(&f);
    free(one);
    free(two);
}

/* ---- refusals ---------------------------------------------------------------------------- */

static void refused(const char *on, const char *ckpt, const char *word, const char *word2,
                    cm_exit code, const char *says) {
    const char *words[] = { "lora.rank=2", word, word2, NULL };
    fx_job f;
    cm_loaded l;
    cm_err err = { 0 };
    bool complete;
    lora_open(&f, &l, on, ckpt, words);
    f.job.stop_at = 12;
    f.job.resume = CM_RESUME_AUTO;
    CHECK(!cm_train(&f.job, &complete, &err));
    CHECKF(err.code == code && strstr(err.msg, says), "%d: %s", (int)err.code, err.msg);
    fx_close(&f);
    cm_loaded_close(&l);
}

TEST(targets_that_match_nothing) {
    char *ckpt = tmp("none");
    refused(base(), ckpt, "lora.targets=[attention, qproj]", NULL, CM_EXIT_USAGE,
            "lora.targets: 'qproj' matches no linear layer of this model; it has "
            "mamba.in_proj, mamba.out_proj, shared_mlp.input_linear, "
            "shared_mlp.output_linear, self_attn.q_proj");
    refused(base(), ckpt, "lora.targets=[router.layer]", NULL, CM_EXIT_USAGE, "router.layer");
    refused(base(), ckpt, "lora.targets=[all]", "lora.dropout=0.1", CM_EXIT_USAGE,
            "lora.dropout: 0.1, but lora.targets takes in experts");
    CHECK(!cm_exists(ckpt));
    free(ckpt);
}

TEST(an_adapter_for_another_base) {
    char *other = make_base("other-base", "seed=6"), *ckpt = tmp("mine");
    char *config = tmp("mine/latest/adapter_config.json"), *text;
    const char *words[] = { "lora.rank=2", NULL };
    size_t n;
    cm_err err = { 0 };
    cm_loaded l;
    free(train(ckpt, 10, words));
    /* Resumed on another base. */
    refused(other, ckpt, NULL, NULL, CM_EXIT_DATA, "an adapter for another base");
    /* Loaded with its path bent to another. */
    CM_ASSERT(cm_read_file(config, 1 << 20, &text, &n, &err), "%s", err.msg);
    char *at = strstr(text, "/base/");
    CM_ASSERT(at, "%s", text);
    cm_buf b = { 0 };
    cm_buf_addf(&b, "%.*s/other-base/%s", (int)(at - text), text, at + strlen("/base/"));
    char *sums = tmp("mine/latest/SHA256SUMS");
    CM_ASSERT(cm_write_file(config, b.s, b.n, &err) && !remove(sums), "%s", err.msg);
    CHECK(!cm_load(&l, ckpt, 0, &err) && err.code == CM_EXIT_DATA);
    CHECKF(strstr(err.msg, "an adapter for another base"), "%s", err.msg);
    cm_buf_free(&b);
    free(sums);
    free(text);
    free(config);
    free(other);
    free(ckpt);
}

/* Base and adapter move together: the way from one to the other still holds. */
TEST(folders_moved_together) {
    char *from = tmp("tree"), *to = tmp("moved"), *ckpt = tmp("tree/ad"), *inside;
    const char *words[] = { "lora.rank=2", NULL };
    fx_job f;
    cm_loaded l;
    cm_err err;
    bool complete;
    char *b = make_base("tree/b", NULL);
    lora_open(&f, &l, b, ckpt, words);
    f.job.stop_at = 1;
    CM_ASSERT(cm_train(&f.job, &complete, &err), "%s", err.msg);
    cm_loaded_close(&l);
    fx_close(&f);
    CM_ASSERT(!rename(from, to), "rename");
    inside = tmp("moved/ad");
    bool ok = cm_load(&l, inside, 0, &err);
    CHECKF(ok, "%s", err.msg);
    if (ok) cm_loaded_close(&l);
    char *gone = tmp("moved/b");
    CM_ASSERT(cm_remove_tree(gone, &err), "%s", err.msg);
    CHECK(!cm_load(&l, inside, 0, &err) && err.code == CM_EXIT_DATA);
    CHECKF(strstr(err.msg, "the base model of this adapter is not there"), "%s", err.msg);
    free(gone);
    free(inside);
    free(b);
    free(ckpt);
    free(from);
    free(to);
}
