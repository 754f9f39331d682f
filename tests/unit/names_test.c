/* names_test.c -- models go into GGUF and Hugging Face files and come back the same;
 * what a format cannot say, and files that are wrong, give sentences. */
#include "io/io.h"
#include "model/files.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char *tmp(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

/* A model of section model's defaults and some settings, every value random. */
typedef struct made {
    cm_conf conf;
    cm_arena arena;
    cm_model m;
} made;

static void make(made *x, const char *settings) {
    char *copy = cm_strf("%s d_model=32 n_layers=3 vocab_size=50 n_heads=4 n_kv_heads=2 "
                         "d_ff=24 n_experts=3 d_expert=12 ssm_head_dim=16 ssm_state=8",
                         settings);
    cm_err err = {0};
    cm_conf_open(&x->conf, "model");
    for (char *save, *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        char *word = cm_strf("model.%s", w), key[96];
        snprintf(key, sizeof key, "%.*s", (int)strcspn(word, "="), word);
        if (!cm_conf_given(&x->conf, key)) cm_conf_set(&x->conf, word);
        free(word);
    }
    bool ok = cm_conf_check(&x->conf, &err) && cm_model_resolve(&x->conf.model, &err) &&
              cm_arena_open(&x->arena, "test model", (1 << 22) * sizeof(cm_real), &err);
    CM_ASSERT(ok, "%s: %s", settings, err.msg);
    cm_model_build(&x->m, &x->conf.model, &x->arena, false);
    for (int i = 0; i < x->m.params.n; i++) {
        cm_param *p = x->m.params.p[i];
        cm_rng r = cm_rng_make(5, CM_RNG_TEST, (uint64_t)i);
        for (int64_t k = 0; k < cm_tensor_count(&p->var.v); k++)
            cm_rdata(&p->var.v)[k] = (cm_real)(float)cm_rng_normal(r, (uint64_t)k);
    }
    free(copy);
}

static void unmake(made *x) {
    cm_model_end(&x->m);
    cm_arena_close(&x->arena);
    cm_conf_close(&x->conf);
}

/* Same names, shapes and values; A_log, which GGUF holds as -exp, to rounding. */
static void check_params(const cm_model *a, const cm_model *b, const char *what) {
    CHECKF(a->params.n == b->params.n, "%s: %d parameters for %d", what, b->params.n,
           a->params.n);
    for (int i = 0; i < a->params.n; i++) {
        const cm_param *p = a->params.p[i], *q = cm_params_find(&b->params, p->name);
        bool same = q && cm_tensor_same_shape(&p->var.v, &q->var.v);
        CHECKF(same, "%s: %s", what, p->name);
        double worst = 0;
        for (int64_t k = 0; same && k < cm_tensor_count(&p->var.v); k++)
            worst = fmax(worst, fabs((double)cm_rdata(&p->var.v)[k] -
                                     (double)cm_rdata(&q->var.v)[k]));
        double bound = strstr(p->name, "A_log") ? 2e-7 : 0;
        CHECKF(worst <= bound, "%s: %s: off by %g", what, p->name, worst);
    }
}

static void check_conf(const cm_model_conf *a, const cm_model_conf *b, const char *what) {
    for (int64_t i = 0; i < a->n_layers && a->n_layers == b->n_layers; i++)
        CHECKF(cm_layer_is_attention(a, i) == cm_layer_is_attention(b, i) &&
               cm_layer_has_experts(a, i) == cm_layer_has_experts(b, i), "%s: layer %lld",
               what, (long long)i);
    bool moe = cm_model_has_experts(a), ssm = cm_model_has_mamba(a);
    bool yarn = a->rope == CM_ROPE_YARN;
#define SAME(key)                                                                       \
    CHECKF((float)a->key == (float)b->key, "%s: " #key ": %g for %g", what,             \
           (double)b->key, (double)a->key)
    SAME(d_model); SAME(n_layers); SAME(vocab_size); SAME(n_heads); SAME(n_kv_heads);
    SAME(context); SAME(norm_eps); SAME(tied);
    SAME(embedding_scale); SAME(residual_scale); SAME(logit_scale); SAME(rope_factor);
    if (cm_model_has_dense(a)) SAME(d_ff);
    if (moe) { SAME(n_experts); SAME(top_k); SAME(d_expert); SAME(d_shared); }
    if (ssm) { SAME(ssm_expand); SAME(ssm_head_dim); SAME(ssm_state); SAME(ssm_groups);
               SAME(ssm_conv); }
    if (!cm_model_has_attention(a)) return;
    SAME(head_dim); SAME(rope);
    if (a->rope != CM_ROPE_NONE) SAME(rope_theta);
    if (yarn) SAME(rope_orig_ctx);
#undef SAME
    double P = (double)a->head_dim, s = a->attention_scale > 0 ? a->attention_scale
                                                                : 1 / sqrt(P);
    CHECKF((float)s == (float)b->attention_scale, "%s: attention_scale", what);
}

static void check_round_trip(const char *settings, bool gguf) {
    made x;
    cm_loaded l;
    cm_err err = {0};
    make(&x, settings);
    char *path = tmp(gguf ? "model.gguf" : "model-hf");
    cm_export e = {.model = &x.m, .mix = CM_TYPE_F32, .name = "test"};
    bool ok = gguf ? cm_export_gguf(&e, path, &err) : cm_export_hf(&e, path, &err);
    ok = ok && cm_load(&l, path, false, &err);
    CHECKF(ok, "%s: %s", settings, err.msg);
    if (ok) {
        check_params(&x.m, &l.model, settings);
        check_conf(&x.m.conf, &l.model.conf, settings);
        CHECK(strlen(l.id) == 64 && l.arena.used == l.arena.cap);
        cm_loaded_close(&l);
    }
    free(path);
    unmake(&x);
}

/* The description alone, then the weights into a model built from it. */
static void check_in_place(const char *settings, bool gguf) {
    made x;
    cm_loaded l;
    cm_model m;
    cm_arena arena;
    cm_err err = {0};
    char id[65];
    make(&x, settings);
    char *path = tmp(gguf ? "place.gguf" : "place-hf");
    cm_export e = {.model = &x.m, .mix = CM_TYPE_F32, .name = "test"};
    CM_ASSERT(gguf ? cm_export_gguf(&e, path, &err) : cm_export_hf(&e, path, &err), "%s",
              err.msg);
    CM_ASSERT(cm_load(&l, path, CM_LOAD_SHAPE, &err) &&
              cm_arena_open(&arena, "in place", (1 << 22) * sizeof(cm_real), &err), "%s", err.msg);
    check_conf(&x.m.conf, &l.model.conf, settings);
    CHECK(l.model.params.n == 0 && l.path && l.path[0] == '/');
    cm_model_build(&m, &l.model.conf, &arena, false);
    bool ok = cm_load_into(&m, path, id, &err);
    CHECKF(ok, "%s: %s", settings, err.msg);
    if (ok) {
        check_params(&x.m, &m, settings);
        CHECK(!strcmp(id, l.id) && strlen(id) == 64);
    }
    cm_model_end(&m);
    cm_arena_close(&arena);
    cm_loaded_close(&l);
    free(path);
    unmake(&x);
}

static const char *const shapes[] = {
    "pattern=MA ffn=D",
    "pattern=MMA ffn=E rope=none tied=false",
    "pattern=AM ffn=E d_shared=20 ssm_groups=2 embedding_scale=12 residual_scale=0.3",
    "pattern=A ffn=D head_dim=10 attention_scale=0.07 logit_scale=6 norm_eps=1e-6",
    "pattern=A ffn=E d_shared=8 rope=linear rope_factor=4 ssm_conv=2",
    "pattern=MA ffn=D rope=yarn rope_factor=8 rope_orig_ctx=100 rope_theta=77",
};

TEST(gguf_round_trips) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_round_trip(shapes[i], true);
}

TEST(weights_in_place) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int gguf = 0; gguf < 2; gguf++) check_in_place(shapes[i], gguf);
}

TEST(hugging_face_round_trips) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_round_trip(shapes[i], false);
    check_round_trip("pattern=M ffn=D", false);
    check_round_trip("pattern=MA ffn=DE d_shared=20 ssm_expand=3", false);
}

/* The conventions, spelled out once against numbers computed here. */
TEST(gguf_conventions) {
    made x;
    make(&x, "pattern=MA ffn=E ssm_groups=2");
    char *path = tmp("conventions.gguf");
    cm_export e = {.model = &x.m, .mix = CM_TYPE_F16, .name = "test"};
    cm_err err = {0};
    cm_gguf g;
    bool ok = cm_export_gguf(&e, path, &err) && cm_gguf_open(&g, path, &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok) return;
    const cm_real *a = cm_rdata(&cm_params_find(&x.m.params,
                                                "model.layers.0.mamba.A_log")->var.v);
    const cm_tensor *t = cm_gguf_tensor(&g, "blk.0.ssm_a");
    CHECK(t && t->nd == 2 && t->dim[1] == 1 && t->dtype == CM_F32_T);
    for (int h = 0; t && h < 4; h++)
        CHECK(((float *)t->data)[h] == (float)-exp((double)a[h]));
    t = cm_gguf_tensor(&g, "blk.0.ssm_norm.weight");
    CHECK(t && t->nd == 2 && t->dim[0] == 2 && t->dim[1] == 32 && t->dtype == CM_F32_T);
    /* Row 2j+s of a head is row s*P/2+j in memory; P = 8. */
    const cm_real *k = cm_rdata(&cm_params_find(
        &x.m.params, "model.layers.1.self_attn.k_proj.weight")->var.v);
    t = cm_gguf_tensor(&g, "blk.1.attn_k.weight");
    CHECK(t && t->dtype == CM_F16_T && t->dim[0] == 16 && t->dim[1] == 32);
    for (int r = 0; t && r < 16; r++) {
        int from = r / 8 * 8 + r % 2 * 4 + r % 8 / 2;
        CHECK(((uint16_t *)t->data)[r * 32 + 3] ==
              cm_f32_to_f16((float)k[from * 32 + 3]));
    }
    /* Expert 1's gate and up rows are the halves of its packed rows; F = 12. */
    const cm_real *in = cm_rdata(&x.m.layer[0].moe.in->var.v);
    const cm_tensor *gate = cm_gguf_tensor(&g, "blk.0.ffn_gate_exps.weight");
    const cm_tensor *up = cm_gguf_tensor(&g, "blk.0.ffn_up_exps.weight");
    CHECK(gate && up && gate->nd == 3 && gate->dim[0] == 3 && gate->dim[1] == 12);
    for (int c = 0; gate && up && c < 32; c++) {
        CHECK(((uint16_t *)gate->data)[(12 + 5) * 32 + c] ==
              cm_f32_to_f16((float)in[(24 + 5) * 32 + c]));
        CHECK(((uint16_t *)up->data)[(12 + 5) * 32 + c] ==
              cm_f32_to_f16((float)in[(24 + 12 + 5) * 32 + c]));
    }
    t = cm_gguf_tensor(&g, "blk.0.ffn_gate_inp.weight");
    CHECK(t && t->dtype == CM_F32_T);
    CHECK(!cm_gguf_tensor(&g, "output.weight"));
    cm_gguf_close(&g);
    free(path);
    unmake(&x);
}

TEST(q8_0_falls_back_to_f16) {
    made x;
    make(&x, "pattern=MA ffn=D d_ff=40");
    cm_export e = {.model = &x.m, .mix = CM_TYPE_Q8_0};
    cm_export_plan p;
    cm_buf text = {0};
    cm_err err;
    CHECK(cm_export_plan_make(&e, true, &p, &err) && p.tensor_bytes > 0);
    cm_export_plan_text(&p, &text);
    const char *up = strstr(text.s, "blk.0.ffn_up.weight");
    const char *down = strstr(text.s, "blk.0.ffn_down.weight");
    CHECK(up && strstr(up, "Q8_0") && strstr(up, "Q8_0") < strchr(up, '\n'));
    CHECK(down && strstr(down, "F16") && strstr(down, "F16") < strchr(down, '\n'));
    cm_buf_free(&text);
    cm_export_plan_free(&p);
    unmake(&x);
}

static void check_refused(const char *settings, const char *key) {
    made x;
    cm_err err = {0};
    make(&x, settings);
    CHECKF(!cm_model_exportable(&x.conf.model, &err) && strstr(err.msg, key) == err.msg &&
           err.code == CM_EXIT_USAGE, "%s: %s", settings, err.msg);
    unmake(&x);
}

TEST(what_gguf_cannot_say) {
    check_refused("pattern=M", "model.pattern:");
    check_refused("pattern=MA ffn=DE", "model.ffn:");
    check_refused("pattern=MA ssm_expand=1", "model.ssm_expand:");
    check_refused("pattern=A ffn=E rope=none", "model.rope:");
    check_refused("pattern=MA n_layers=513 d_model=8 n_heads=1 n_kv_heads=1 ssm_state=1 "
                  "d_ff=1", "model.n_layers:");
}

/* ---- wrong files ------------------------------------------------------------------- */

/* Load bytes with `from` replaced by `to` (same length) as a GGUF; expect `want`. */
static void refuse_gguf(const char *from, const char *to, size_t n, const char *want) {
    static const char golden[] = "tests/golden/gguf/dense.f32.gguf";
    char *bytes, *path = tmp("wrong.gguf");
    size_t size;
    cm_err err = {0};
    cm_loaded l;
    bool ok = cm_read_file(golden, 1 << 21, &bytes, &size, &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok) return;
    char *at = memmem(bytes, size, from, n);
    CHECKF(at != NULL, "nothing to replace for '%s'", want);
    if (at) memcpy(at, to, n);
    CHECK(cm_write_file(path, bytes, size, &err));
    ok = cm_load(&l, path, false, &err);
    if (ok) cm_loaded_close(&l);
    CHECKF(!ok && err.code == CM_EXIT_DATA && strstr(err.msg, want), "wanted '%s': %s",
           want, ok ? "accepted" : err.msg);
    free(bytes);
    free(path);
}

TEST(wrong_gguf_models) {
    refuse_gguf("granitehybrid", "granitehybrix", 13, "general.architecture");
    refuse_gguf("blk.0.ssm_a", "blk.9.ssm_a", 11, "'blk.0.ssm_a' is missing");
    refuse_gguf(".block_count\4\0\0\0\3", ".block_count\4\0\0\0\2", 17,
                "for every layer");
    refuse_gguf(".block_count\4\0\0\0\3", ".block_countx\0\0\0\3", 17, "");
    refuse_gguf("embedding_length\4\0\0\0\x40", "embedding_length\4\0\0\0\x20", 21,
                "wanted");
    refuse_gguf("context_length\4\0\0\0\0\x08\0\0",
                "context_length\4\0\0\0\0\0\0\x80", 22, "model.context would be");
    refuse_gguf("inner_size\4\0\0\0\x80", "inner_size\4\0\0\0\x81", 15, "multiple");
    refuse_gguf("time_step_rank\4\0\0\0\4", "time_step_rank\4\0\0\0\3", 19, "divides");
    refuse_gguf("group_count\4\0\0\0\1", "group_count\4\0\0\0\3", 16, "ssm_groups");
    refuse_gguf("head_count\4\0\0\0\4", "head_count\4\0\0\0\3", 15, "n_kv_heads");
}

static void refuse_config(const char *from, const char *to, const char *want) {
    char *text, *path = tmp("config.json");
    size_t n;
    cm_err err = {0};
    cm_arena a;
    cm_model_conf c;
    CHECK(cm_arena_open(&a, "strings", 1 << 20, &err));
    bool ok = cm_read_file("tests/golden/hf/moe/config.json", 1 << 20, &text, &n, &err);
    CHECKF(ok, "%s", err.msg);
    char *at = ok ? strstr(text, from) : NULL;
    CHECKF(at != NULL, "nothing to replace: %s", from);
    char *wrong = at ? cm_strf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from))
                     : cm_strf(" ");
    CHECK(cm_write_file(path, wrong, strlen(wrong), &err));
    ok = cm_hf_read_config(&c, &a, path, &err);
    CHECKF(*want ? !ok && err.code == CM_EXIT_DATA && strstr(err.msg, want) : ok,
           "%s: wanted '%s': %s", to, want, ok ? "accepted" : err.msg);
    cm_arena_close(&a);
    free(wrong);
    free(text);
    free(path);
}

TEST(wrong_hugging_face_configs) {
    refuse_config("\"hidden_size\": 32", "\"hidden_size\": 32", "");
    refuse_config("\"granitemoehybrid\"", "\"gpt2\"", "model_type 'gpt2'");
    refuse_config("\"hidden_size\": 32", "\"hidden_size\": 32.5", "whole number");
    refuse_config("\"hidden_size\": 32", "\"hidden_size\": \"32\"", "a number");
    refuse_config("\"hidden_size\": 32", "\"hidden_size\": 1e300", "whole number");
    refuse_config("\"hidden_size\": 32", "\"hidden_size\": 4",
                  "model.d_model would be 4");
    refuse_config("\"attention\",", "\"sliding\",", "layer_types");
    refuse_config("\"attention\",", "", "one word a layer");
    refuse_config("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1025", "1 to 1024");
    refuse_config("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9", "top_k");
    refuse_config("\"mamba_proj_bias\": false", "\"mamba_proj_bias\": true",
                  "mamba_proj_bias");
    refuse_config("\"mamba_n_heads\": 4", "\"mamba_n_heads\": 5", "mamba_n_heads");
    refuse_config("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "hidden_act");
    refuse_config("\"rope_scaling\": null",
                  "\"rope_scaling\": {\"rope_type\": \"llama3\"}", "rope_type");
    refuse_config("\"rope_scaling\": null",
                  "\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 4, "
                  "\"beta_fast\": 16}", "beta_fast");
    refuse_config("\"use_cache\": true", "\"time_step_limit\": [0.0, Infinity]", "");
    refuse_config("\"use_cache\": true", "\"time_step_limit\": [0.0, "
                  "{\"__float__\": \"Infinity\"}]", "");
    refuse_config("\"use_cache\": true", "\"time_step_limit\": [0.001, 0.1]",
                  "time_step_limit");
    refuse_config("{", "[", "JSON object");
}

TEST(special_values_are_refused) {
    made x;
    make(&x, "pattern=MA ffn=D");
    char *path = tmp("nan.gguf");
    cm_err err = {0};
    cm_export e = {.model = &x.m, .mix = CM_TYPE_F16};
    cm_real *w = cm_rdata(&cm_params_find(&x.m.params, "model.norm.weight")->var.v);
    w[3] = NAN;
    CHECK(!cm_export_gguf(&e, path, &err) && err.code == CM_EXIT_DATA &&
          strstr(err.msg, "output_norm.weight") && !cm_exists(path));
    w[3] = 1e6; /* fits F32, which norms are kept in */
    CHECK(cm_export_gguf(&e, path, &err));
    w = cm_rdata(&cm_params_find(&x.m.params, "model.embed_tokens.weight")->var.v);
    w[7] = 1e6;
    CHECK(!cm_export_gguf(&e, path, &err) && strstr(err.msg, "F16 cannot"));
    free(path);
    unmake(&x);
}

/* What was written is known row by row: read back, any other bit of any tensor is seen, and
 * the encoder's second answer, where nothing was kept, is the same. */
TEST(sums_of_what_was_written_see_every_bit) {
    made x;
    make(&x, "pattern=MA ffn=E d_model=256 d_expert=256 n_heads=4 n_kv_heads=2 rope=plain");
    cm_err err = {0};
    char *path = tmp("sums.gguf");
    cm_sums sums = {0};
    cm_export e = {.model = &x.m, .mix = CM_TYPE_Q4_K_M, .name = "x", .sums = &sums};
    cm_loaded back;
    bool ok = cm_export_gguf(&e, path, &err) && cm_load(&back, path, 0, &err);
    CHECKF(ok, "%s", err.msg);
    if (!ok) return;
    int kept = 0;
    for (int i = 0; i < sums.n; i++) kept += sums.row[i] != NULL;
    CHECKF(kept >= 6, "%d tensors of searched types", kept);
    CHECKF(cm_export_compare(&e, &back.model, true, &err), "%s", err.msg);
    for (int i = 0; i < back.model.params.n; i++) {
        cm_param *p = back.model.params.p[i];
        cm_real *w = cm_rdata(&p->var.v) + cm_tensor_count(&p->var.v) / 2, was = *w;
        if (p->group != CM_GROUP_MATRIX) continue;
        *w = (cm_real)nextafterf((float)was, 9);
        CHECKF(!cm_export_compare(&e, &back.model, true, &err), "%s: one bit passes", p->name);
        *w = was;
    }
    e.sums = NULL;
    CHECKF(cm_export_compare(&e, &back.model, true, &err), "%s", err.msg);
    cm_sums_free(&sums);
    cm_loaded_close(&back);
    free(path);
    unmake(&x);
}

/* Files differ from the source by more than the type allows: the comparison must see. */
TEST(parity_check_sees_one_wrong_weight) {
    made x, y;
    make(&x, "pattern=MA ffn=E");
    make(&y, "pattern=MA ffn=E");
    cm_err err = {0};
    for (int t = 0; t < 2; t++) {
        cm_export e = {.model = &x.m, .mix = t ? CM_TYPE_Q8_0 : CM_TYPE_F32};
        CHECK(cm_export_compare(&e, &y.m, true, &err));
        for (int i = 0; i < y.m.params.n; i++) {
            cm_param *p = y.m.params.p[i];
            cm_real *w = cm_rdata(&p->var.v) + cm_tensor_count(&p->var.v) - 1, was = *w;
            *w += (cm_real)0.1;
            CHECKF(!cm_export_compare(&e, &y.m, true, &err) && err.code == CM_EXIT_CHECK,
                   "%s: a wrong weight passes", p->name);
            *w = was;
        }
    }
    unmake(&x);
    unmake(&y);
}

/* ---- tokenizer -------------------------------------------------------------------- */

TEST(tokenizer_and_template_round_trip) {
    static const char chat[] =
        "{% for m in messages %}{{ m['content'] }}\n\"q\"{% endfor %}";
    cm_loaded l, g, h;
    cm_err err = {0};
    char *gguf = tmp("tok.gguf"), *hf = tmp("tok-hf");
    bool ok = cm_load(&l, "tests/golden/gguf/dense.f32.gguf", false, &err);
    CHECKF(ok && l.spm, "%s", err.msg);
    if (!ok) return;
    cm_export e = {.model = &l.model, .spm = l.spm, .chat_template = chat,
                   .mix = CM_TYPE_F32, .name = "x"};
    ok = cm_export_gguf(&e, gguf, &err) && cm_export_hf(&e, hf, &err) &&
         cm_load(&g, gguf, false, &err) && cm_load(&h, hf, false, &err);
    CHECKF(ok, "%s", err.msg);
    if (ok) {
        CHECK(g.spm && h.spm && !strcmp(cm_spm_hash(g.spm), cm_spm_hash(l.spm)) &&
              !strcmp(cm_spm_hash(h.spm), cm_spm_hash(l.spm)));
        CHECK(g.chat_template && !strcmp(g.chat_template, chat));
        CHECK(h.chat_template && !strcmp(h.chat_template, chat));
        CHECK(cm_spm_vocab(g.spm) == 320 && cm_spm_bos(g.spm) == 1 &&
              cm_spm_eos(g.spm) == 2 && cm_spm_unk(g.spm) == 0 &&
              cm_spm_pad(g.spm) == -1 &&
              cm_spm_add_dummy_prefix(g.spm));
        cm_loaded_close(&g);
        cm_loaded_close(&h);
    }
    cm_loaded_close(&l);
    free(gguf);
    free(hf);
}

/* A run's folder and a checkpoint's are found; a folder without a model is refused. */
TEST(folders) {
    made x;
    make(&x, "pattern=MA ffn=D");
    cm_export e = {.model = &x.m, .mix = CM_TYPE_F32};
    cm_err err = {0};
    cm_loaded l;
    char *run = tmp("run"), *ckpt = tmp("run/ckpt/latest");
    char *state = tmp("run/ckpt/latest/state.json");
    CHECK(cm_mkdirs(run, &err) && !cm_load(&l, run, false, &err));
    CHECK(err.code == CM_EXIT_DATA && strstr(err.msg, "not a model"));
    CHECK(cm_export_hf(&e, ckpt, &err) && cm_write_file(state, "{}", 2, &err));
    bool ok = cm_load(&l, run, true, &err);
    CHECKF(ok, "%s", err.msg);
    if (ok) {
        CHECK(!strcmp(l.source, "checkpoint") && l.model.embed->var.g);
        cm_loaded_close(&l);
    }
    CHECK(!cm_load(&l, "/nowhere/at/all", false, &err) && err.code == CM_EXIT_USAGE);
    free(run);
    free(ckpt);
    free(state);
    unmake(&x);
}

/* ---- weights one at a time ---------------------------------------------------------- */

/* The model as a file, loaded when wanted and at once. */
static bool load_lazy_and_whole(made *x, const char *path, cm_loaded *lazy, cm_loaded *all) {
    cm_err err = {0};
    cm_export e = {.model = &x->m, .mix = CM_TYPE_F32, .name = "x"};
    bool ok = cm_export_gguf(&e, path, &err) && cm_load(lazy, path, CM_LOAD_LAZY, &err) &&
              cm_load(all, path, 0, &err);
    CHECKF(ok, "%s", err.msg);
    return ok;
}

/* A lazily loaded model has the same weights, parameter by parameter; what it exports is the
 * same file; a wrong shape is seen before anything is read. */
TEST(lazy_weights_are_the_same) {
    made x;
    make(&x, "pattern=MA ffn=E tied=false rope=plain");
    cm_err err = {0};
    char *path = tmp("lazy.gguf"), *whole = tmp("whole.gguf"), *again = tmp("again.gguf");
    cm_loaded l, all;
    if (!load_lazy_and_whole(&x, path, &l, &all)) return;
    for (int i = 0; i < l.model.params.n; i++) {
        const cm_param *p = l.model.params.p[i], *q = all.model.params.p[i];
        CHECK(cm_loaded_fetch(&l, p, &err) && cm_loaded_fetch(&all, q, &err));
        CHECKF(!memcmp(p->var.v.data, q->var.v.data, cm_tensor_bytes(&p->var.v)), "%s", p->name);
        cm_loaded_forget(&l, p);
        cm_loaded_forget(&all, q);
    }
    check_params(&all.model, &x.m, "forgetting where nothing is lazy");
    cm_export a = {.model = &all.model, .mix = CM_TYPE_Q8_0, .name = "x"}, b = a;
    b.model = &l.model;
    b.source = &l;
    CHECK(cm_export_gguf(&a, whole, &err) && cm_export_gguf(&b, again, &err));
    char h[2][65] = {"", "x"};
    CHECK(cm_sha_file(whole, h[0], &err) && cm_sha_file(again, h[1], &err));
    CHECK(!strcmp(h[0], h[1]));
    CHECK(cm_export_compare(&b, &all.model, true, &err));
    cm_rdata(&all.model.params.p[3]->var.v)[0] += (cm_real)1;
    CHECK(!cm_export_compare(&b, &all.model, true, &err) && err.code == CM_EXIT_CHECK);
    cm_loaded_close(&l);
    cm_loaded_close(&all);
    free(path);
    free(whole);
    free(again);
    unmake(&x);
}

/* The last parts of a model, and then nothing more. */
static bool bring_some(void *ctx, int part, cm_err *err) {
    if (part < 1) return cm_loaded_bring(ctx, part, err);
    return cm_fail(err, CM_EXIT_DATA, "no part %d", part);
}

static bool logits_of(cm_model *m, cm_real *out, cm_err *err) {
    static const int32_t text[] = {3, 1, 4, 1, 5, 9, 2, 6};
    cm_session s;
    bool ok = cm_session_open(&s, m, 8, err) && cm_session_feed(&s, text, 8, out, NULL, err);
    cm_session_close(&s);
    return ok;
}

/* Weights that come a part at a time give the same logits, hold no other part, and are compared
 * part by part; a part that does not come ends it with the sentence. */
static void check_parts(const char *options) {
    made x;
    make(&x, options);
    cm_err err = {0};
    char *path = tmp("parts.gguf");
    cm_export e = {.model = &x.m, .mix = CM_TYPE_F32, .name = "x"};
    cm_loaded l, all;
    if (!load_lazy_and_whole(&x, path, &l, &all)) return;
    int L = (int)x.m.conf.n_layers;
    size_t n = 8 * (size_t)x.m.conf.vocab_size * sizeof(cm_real);
    cm_real *a = malloc(n), *b = malloc(n);
    cm_bringer whole = {.bring = cm_loaded_bring, .ctx = &l};
    cm_bringer some = {.bring = bring_some, .ctx = &l};
    l.model.bringer = &whole;
    bool ok = logits_of(&all.model, a, &err) && logits_of(&l.model, b, &err);
    CHECKF(ok && !memcmp(a, b, n), "%s", err.msg);
    for (int i = 0; i < l.model.params.n; i++) {
        const cm_param *p = l.model.params.p[i];
        CHECKF((p->var.v.data != NULL) == cm_model_in_part(&l.model, p, L), "%s", p->name);
    }
    l.model.bringer = &some;
    CHECK(!logits_of(&l.model, b, &err) && !strcmp(err.msg, "no part 1"));
    cm_param *p = l.model.params.p[3];
    for (int spoilt = 0; spoilt < 2; spoilt++)
        for (int i = -1; i <= L; i++) {
            CHECK(cm_loaded_bring(&l, i, &err));
            if (spoilt && i == 0) cm_rdata(&p->var.v)[0] += (cm_real)1;
            CHECK(cm_export_compare_part(&e, &l.model, true, i, &err) == !(spoilt && i == 0));
        }
    cm_loaded_close(&l);
    cm_loaded_close(&all);
    free(a);
    free(b);
    free(path);
    unmake(&x);
}

TEST(weights_a_part_at_a_time) {
    cm_err err;
    CHECK(cm_kern_init(CM_NUMERICS_STRICT, 1, &err));
    check_parts("pattern=MA ffn=E tied=false rope=plain");
    check_parts("pattern=MA ffn=D tied=true rope=plain");
}

/* And values that change places, though they differ in their sign alone. */
TEST(sums_see_the_order) {
    for (int j = 1; j < 40; j++) {
        cm_real a[40] = {0}, b[40] = {0};
        for (int i = 0; i < 40; i++) a[i] = b[i] = (cm_real)(i % 7 - 3) / 8;
        a[0] = b[j] = (cm_real)1.5;
        a[j] = b[0] = (cm_real)-1.5;
        CHECKF(cm_row_sum(a, 40) != cm_row_sum(b, 40), "0 and %d", j);
    }
}
