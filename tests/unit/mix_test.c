/* mix_test.c -- which type each tensor gets: llama-quantize's rules, fallbacks, exceptions. */
#include "model/model.h"
#include "tests/t.h"

#include <stdlib.h>
#include <string.h>

typedef struct made {
    cm_conf conf;
    cm_arena arena;
    cm_model m;
} made;

static void make(made *x, const char *settings) {
    char *copy = cm_strf("%s", settings);
    cm_err err = {0};
    cm_conf_open(&x->conf, "model");
    for (char *save, *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        char *word = cm_strf("model.%s", w);
        cm_conf_set(&x->conf, word);
        free(word);
    }
    bool ok = cm_conf_check(&x->conf, &err) && cm_model_resolve(&x->conf.model, &err) &&
              cm_arena_open_counting(&x->arena, "test model", &err);
    CM_ASSERT(ok, "%s: %s", settings, err.msg);
    cm_model_build(&x->m, &x->conf.model, &x->arena, false);
    free(copy);
}

static void unmake(made *x) {
    cm_model_end(&x->m);
    cm_arena_close(&x->arena);
    cm_conf_close(&x->conf);
}

static const cm_export_row *row_of(const cm_export_plan *p, const char *tensor) {
    for (int i = 0; i < p->n; i++)
        if (!strcmp(p->row[i].name, tensor)) return &p->row[i];
    return NULL;
}

/* want: "tensor=TYPE tensor=TYPE ..." */
static void check_types(const made *x, int mix, const cm_list *tensors, const char *want) {
    cm_export e = {.model = &x->m, .mix = mix, .tensors = tensors};
    cm_export_plan p;
    cm_err err;
    bool ok = cm_export_plan_make(&e, true, &p, &err);
    CHECKF(ok, "%s", err.msg);
    char *copy = cm_strf("%s", want);
    for (char *save, *w = strtok_r(copy, " ", &save); ok && w; w = strtok_r(NULL, " ", &save)) {
        char *eq = strchr(w, '=');
        *eq = 0;
        const cm_export_row *r = row_of(&p, w);
        CHECKF(r && !strcmp(cm_dtypes[r->t.dtype].name, eq + 1), "%s: %s is not %s",
               cm_mix_name(mix), w, eq + 1);
    }
    free(copy);
    cm_export_plan_free(&p);
}

/* The types in llama-quantize v0.5.0's files of a model of these shapes (16 layers). */
TEST(mixes_are_llama_quantizes) {
    made x;
    make(&x, "d_model=256 n_layers=16 pattern=MA ffn=D n_heads=4 n_kv_heads=2 d_ff=512 "
             "vocab_size=320 ssm_head_dim=64 ssm_state=16 tied=false");
    check_types(&x, CM_TYPE_Q4_K_M, NULL,
                "output.weight=Q6_K token_embd.weight=Q4_K blk.0.ssm_in.weight=Q4_K "
                "blk.0.ssm_conv1d.weight=F32 blk.0.ssm_a=F32 blk.0.attn_norm.weight=F32 "
                "blk.0.ffn_down.weight=Q6_K blk.2.ffn_down.weight=Q4_K blk.4.ffn_down.weight=Q6_K "
                "blk.15.ffn_down.weight=Q6_K blk.1.attn_v.weight=Q6_K blk.3.attn_v.weight=Q4_K "
                "blk.7.attn_v.weight=Q6_K blk.15.attn_v.weight=Q6_K blk.1.attn_k.weight=Q4_K");
    check_types(&x, CM_TYPE_Q4_K_S, NULL,
                "output.weight=Q6_K blk.0.ffn_down.weight=Q5_K blk.2.ffn_down.weight=Q4_K "
                "blk.7.attn_v.weight=Q5_K blk.9.attn_v.weight=Q4_K");
    check_types(&x, CM_TYPE_Q3_K_M, NULL,
                "output.weight=Q6_K token_embd.weight=Q3_K blk.0.ffn_down.weight=Q5_K "
                "blk.1.ffn_down.weight=Q4_K blk.3.attn_v.weight=Q5_K blk.5.attn_v.weight=Q4_K "
                "blk.1.attn_output.weight=Q4_K blk.1.attn_q.weight=Q3_K");
    check_types(&x, CM_TYPE_Q5_K_M, NULL, "blk.0.ffn_down.weight=Q6_K blk.2.ffn_down.weight=Q5_K");
    check_types(&x, CM_TYPE_Q6_K, NULL, "blk.0.ffn_down.weight=Q6_K output.weight=Q6_K");
    check_types(&x, CM_TYPE_Q4_0, NULL, "blk.0.ffn_down.weight=Q4_0 output.weight=Q6_K");
    check_types(&x, CM_TYPE_Q8_0, NULL, "output.weight=Q8_0 blk.0.ssm_out.weight=Q8_0");
    unmake(&x);
}

TEST(eight_experts_are_taken_for_mixtral) {
    made x;
    make(&x, "d_model=256 n_layers=4 pattern=MA ffn=E n_experts=8 d_expert=256 n_heads=4 "
             "n_kv_heads=2 vocab_size=320 ssm_head_dim=64");
    check_types(&x, CM_TYPE_Q4_K_M, NULL,
                "token_embd.weight=Q6_K blk.1.attn_k.weight=Q8_0 blk.1.attn_v.weight=Q8_0 "
                "blk.1.attn_output.weight=Q5_K blk.0.ffn_gate_inp.weight=F32");
    unmake(&x);
}

TEST(narrow_rows_fall_back) {
    made x;
    make(&x, "d_model=96 n_layers=2 pattern=MA ffn=D n_heads=3 n_kv_heads=1 head_dim=32 d_ff=40 "
             "vocab_size=320 ssm_head_dim=32 tied=true");
    static const struct { int mix; const char *want; } c[] = {
        {CM_TYPE_Q4_K_S,
         "blk.0.ssm_in.weight=Q5_0 blk.0.ffn_down.weight=F16 token_embd.weight=Q8_0"},
        {CM_TYPE_Q5_K_M, "blk.0.ssm_in.weight=Q5_1"}, {CM_TYPE_Q6_K, "blk.0.ssm_in.weight=Q8_0"},
        {CM_TYPE_Q2_K, "blk.0.ssm_in.weight=Q4_0"}, {CM_TYPE_Q3_K_M, "blk.0.ssm_in.weight=Q4_0"},
        {CM_TYPE_IQ4_XS, "blk.0.ssm_in.weight=IQ4_NL blk.1.ffn_down.weight=F16"}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) check_types(&x, c[i].mix, NULL, c[i].want);
    unmake(&x);
}

TEST(exceptions_by_name) {
    made x;
    make(&x, "d_model=256 n_layers=4 pattern=MA ffn=D n_heads=4 n_kv_heads=2 d_ff=512 "
             "vocab_size=320 ssm_head_dim=64");
    const char *words[] = {"blk.0.*=q8_0", "*.ssm_in.weight=BF16", "token_embd.weight=iq4_xs"};
    cm_list list = {3, words};
    check_types(&x, CM_TYPE_Q4_K_M, &list,
                "blk.0.ssm_in.weight=Q8_0 blk.2.ssm_in.weight=BF16 token_embd.weight=IQ4_XS "
                "blk.0.attn_norm.weight=F32 blk.1.attn_q.weight=Q4_K");
    static const char *const wrong[][2] = {{"blk.9.ssm_in.weight=q8_0", "no tensor"},
                                           {"output_norm.weight=q8_0", "as F32"},
                                           {"blk.0.*=q8", "(did you mean Q8_0?); there are F32, "},
                                           {"blk.0.*=nothing", "'nothing' is no type of a tensor; "
                                            "there are F32, F16, BF16, Q8_0, Q4_0, "},
                                           {"q8_0", "PATTERN=TYPE"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        list = (cm_list){1, (const char **)(uintptr_t)&wrong[i][0]};
        cm_export e = {.model = &x.m, .mix = CM_TYPE_Q4_K_M, .tensors = &list};
        cm_export_plan p;
        cm_err err = {0};
        bool ok = cm_export_plan_make(&e, true, &p, &err);
        CHECKF(!ok && err.code == CM_EXIT_USAGE && strstr(err.msg, wrong[i][1]), "%s: %s",
               wrong[i][0], err.msg);
        cm_export_plan_free(&p);
    }
    unmake(&x);
}

/* A pattern that earlier ones leave nothing, or that meets only what stays F32. */
TEST(patterns_that_change_nothing_are_told) {
    made x;
    make(&x, "d_model=256 n_layers=4 pattern=MA ffn=D n_heads=4 n_kv_heads=2 d_ff=512 "
             "vocab_size=320 ssm_head_dim=64");
    const char *words[] = {"*.ssm_in.weight=q8_0", "blk.0.*=bf16", "blk.2.ssm_in.*=q4_0",
                           "*norm*=f16"};
    cm_list list = {4, words};
    cm_export e = {.model = &x.m, .mix = CM_TYPE_F16, .tensors = &list};
    cm_export_plan p;
    cm_err err = {0};
    CHECKF(cm_export_plan_make(&e, true, &p, &err), "%s", err.msg);
    CHECKF(!strcmp(p.idle, "quantize.tensors: 'blk.2.ssm_in.*=q4_0' changes nothing: earlier "
                   "patterns have all its tensors, and the first that matches counts\n"
                   "quantize.tensors: '*norm*=f16' changes nothing: what it matches stays F32 "
                   "whatever is asked\n"), "%s", p.idle);
    cm_export_plan_free(&p);
    unmake(&x);
}

/* On which types importances act, and which fall back, in a sentence for each pair. */
TEST(what_a_plan_tells) {
    made x;
    make(&x, "d_model=96 n_layers=2 pattern=MA ffn=D n_heads=3 n_kv_heads=1 head_dim=32 d_ff=40 "
             "vocab_size=320 ssm_head_dim=32 tied=true");
    static const struct { int mix; const char *word; bool weighs, blocks; } c[] = {
        {CM_TYPE_F16, NULL, false, false}, {CM_TYPE_Q8_0, NULL, false, true},
        {CM_TYPE_F32, "token_embd.weight=q4_0", false, true},
        {CM_TYPE_F32, "blk.0.ssm_in.weight=q4_0", true, true},
        {CM_TYPE_Q4_K_S, NULL, true, true}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        const char *word = c[i].word;
        cm_list list = {word != NULL, &word};
        cm_export e = {.model = &x.m, .mix = c[i].mix, .tensors = &list};
        cm_export_plan p;
        cm_err err = {0};
        CHECKF(cm_export_plan_make(&e, true, &p, &err), "%s", err.msg);
        CHECKF(cm_export_plan_weighs(&p) == c[i].weighs && cm_export_plan_has_blocks(&p) ==
               c[i].blocks, "case %zu", i);
        cm_buf b = {0};
        cm_export_plan_fallbacks(&p, &b);
        if (i == 4) CHECKF(b.s && strstr(b.s, "Q5_0, not Q4_K: rows, as those of 96") &&
                          strstr(b.s, "F16, not "), "%s", b.s);
        else CHECKF((b.s != NULL) == (c[i].mix == CM_TYPE_Q8_0), "%s", b.s ? b.s : "");
        cm_buf_free(&b);
        cm_export_plan_free(&p);
    }
    unmake(&x);
}

static void add_i32(cm_buf *b, int64_t v) {
    int32_t x = (int32_t)v;
    cm_buf_add(b, &x, 4);
}

/* An entry of the older form: mean squares of 1, the first `zeros` columns' 0. */
static void add_entry(cm_buf *b, const char *name, int calls, int64_t cols, int64_t zeros) {
    add_i32(b, (int64_t)strlen(name));
    cm_buf_add(b, name, strlen(name));
    add_i32(b, calls);
    add_i32(b, cols);
    for (int64_t k = 0; k < cols; k++) {
        float v = k < zeros ? 0 : (float)(calls ? calls : 1);
        cm_buf_add(b, &v, 4);
    }
}

/* Zeros alone, a count of 0, an expert of zeros; and what says something, if only of one column. */
TEST(importances_that_say_nothing_are_told) {
    made x;
    make(&x, "d_model=64 n_layers=2 pattern=A ffn=E n_experts=4 top_k=2 d_expert=32 n_heads=2 "
             "n_kv_heads=2 vocab_size=320");
    cm_export e = {.model = &x.m, .mix = CM_TYPE_Q4_0};
    cm_export_plan p;
    cm_err err = {0};
    CHECKF(cm_export_plan_make(&e, true, &p, &err), "%s", err.msg);
    cm_buf b = {0}, told = {0};
    int n = 0;
    add_i32(&b, 0); /* entries; known at the end */
    for (int i = 0; i < p.n; i++) {
        const char *name = p.row[i].name;
        if (strncmp(name, "blk.", 4) || p.row[i].t.dtype == CM_F32_T) continue;
        int64_t cols = p.row[i].cols, all = p.row[i].t.nd == 3 ? 4 * cols : cols;
        int64_t zeros = !strcmp(name, "blk.0.attn_q.weight")          ? all
                        : !strcmp(name, "blk.0.attn_k.weight")        ? all - 1
                        : !strcmp(name, "blk.0.ffn_gate_exps.weight") ? cols
                                                                      : 0;
        add_entry(&b, name, strcmp(name, "blk.1.attn_v.weight") != 0, all, zeros);
        n++;
    }
    memcpy(b.s, &(int32_t){n}, 4);
    char *path = cm_strf("%s/silent.dat", t_tmpdir());
    cm_imatrix *m = NULL;
    CHECKF(cm_write_file(path, b.s, b.n, &err) && (m = cm_imatrix_open(path, &err)) &&
           cm_imatrix_fit(m, &x.m, &err), "%s", err.msg);
    if (m) {
        int64_t of;
        CHECK(cm_imatrix_silent(m, "blk.0.attn_q.weight", &of) == 1 && of == 1);
        CHECK(cm_imatrix_silent(m, "blk.0.attn_k.weight", &of) == 0 && of == 1);
        CHECK(cm_imatrix_silent(m, "blk.0.ffn_gate_exps.weight", &of) == 1 && of == 4);
        CHECK(cm_imatrix_silent(m, "none", &of) == 0 && of == 0);
        cm_export_plan_silent(&p, m, &told);
        char *want = cm_strf("importances: 2 of %d tensors have none, 1 none for some experts "
                             "(zeros, or too few tokens; first ", n);
        CHECKF(told.s && !strncmp(told.s, want, strlen(want)), "'%s', wanted '%s'", told.s, want);
        free(want);
    }
    free(path);
    cm_imatrix_close(m);
    cm_buf_free(&b);
    cm_buf_free(&told);
    cm_export_plan_free(&p);
    unmake(&x);
}
