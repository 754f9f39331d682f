/* train_fixture.c -- see train_fixture.h. */
#include "tests/train_fixture.h"

#include <stdlib.h>
#include <string.h>

static void add_doc(cm_shard_out *o, int i, unsigned flags) {
    cm_rng r = cm_rng_make(11, CM_RNG_TEST, (uint64_t)i);
    int32_t id[256];
    int n = 20 + (int)cm_rng_below(r, 0, 100), k = 0;
    if (flags & CM_SHARD_BOS) id[k++] = FX_BOS;
    int x = (int)cm_rng_below(r, 1, FX_VOCAB - 3);
    for (int t = 0; t < n; t++) {
        id[k++] = 3 + x;
        x = (3 * x + 1 + (int)cm_rng_below(r, (uint64_t)t + 2, 2)) % (FX_VOCAB - 3);
    }
    if (flags & CM_SHARD_EOS) id[k++] = FX_EOS;
    cm_doc_origin at = { 0, (uint64_t)i + 1, (uint64_t)n * 3,
                         { (uint8_t)i, (uint8_t)(i >> 8) } };
    cm_shard_out_add(o, id, k, &at);
}

void fx_corpus(const char *dir, int docs, unsigned flags) {
    cm_err err;
    cm_shard_conf c = { .kind = CM_SHARD_LM, .vocab = FX_VOCAB, .bos = FX_BOS,
                        .eos = FX_EOS, .pad = -1, .flags = flags, .frame_tokens = 64,
                        .level = 3 };
    char *tok = cm_strf("%s/tokenizer.model", dir);
    CM_ASSERT(cm_mkdirs(dir, &err) && cm_write_file(tok, "not a real one", 14, &err), "%s",
              err.msg);
    cm_sha_bytes("not a real one", 14, c.tokenizer);
    cm_sha_bytes("", 0, c.pipeline);
    cm_shard_info info[2];
    for (int sp = 0; sp < 2; sp++) {
        cm_shard_out *o = cm_shard_out_open(&c, (cm_split)sp, 0);
        int n = sp == CM_SPLIT_VAL ? (docs + 9) / 10 : docs;
        for (int i = 0; i < n; i++) add_doc(o, sp * 100000 + i, flags);
        CM_ASSERT(cm_shard_out_commit(o, dir, &info[sp], &err), "%s", err.msg);
    }
    const cm_shard_info *const list[2] = { &info[0], &info[1] };
    CM_ASSERT(cm_manifest_write(dir, &c, "tokenizer.model", list, (int[]){ 1, 1 }, NULL,
                                &err), "%s", err.msg);
    free(tok);
}

void fx_conf(cm_conf *c, const char *const *words) {
    static const char text[] =
        "seed: 5\n"
        "model: {d_model: 32, n_layers: 2, pattern: MA, ffn: DE, n_heads: 2, "
        "n_kv_heads: 1, d_ff: 48, n_experts: 4, top_k: 2, d_expert: 16, ssm_state: 8, "
        "ssm_head_dim: 16, ssm_chunk: 16, rope: plain}\n"
        "data: {seq_len: 32, batch_tokens: 256, micro_rows: 4}\n"
        "optim: {lr: 3e-3}\n"
        "sched: {tokens: 5120, warmup: 512}\n"
        "val: {every: 5, tokens: 500}\n"
        "ckpt: {every: 10}\n";
    cm_err err;
    cm_conf_open(c, NULL);
    cm_conf_text(c, "fixture", text, sizeof text - 1);
    for (; words && *words; words++) cm_conf_set(c, *words);
    CM_ASSERT(cm_conf_check(c, &err), "%s", err.msg);
}

void fx_open(fx_job *f, const char *dir, const char *ckpt_dir, const char *const *words) {
    cm_err err;
    *f = (fx_job){ 0 };
    fx_conf(&f->conf, words);
    f->model = f->conf.model;
    f->model.vocab_size = FX_VOCAB;
    CM_ASSERT(cm_model_resolve(&f->model, &err), "%s", err.msg);
    CM_ASSERT(cm_dataset_open(&f->data, dir, &err), "%s", err.msg);
    CM_ASSERT(cm_lm_open(&f->train, &f->data, &f->conf, &f->train_rows, &err), "%s",
              err.msg);
    CM_ASSERT(cm_lm_open_val(&f->val, &f->data, &f->conf, &f->val_rows, &err), "%s",
              err.msg);
    f->job = (cm_job){ .tool = "test", .conf = &f->conf, .model = &f->model,
                       .train = &f->train_rows, .val = &f->val_rows,
                       .objective = cm_lm_objective(&f->conf),
                       .tokenizer = f->data.tokenizer, .ckpt_dir = ckpt_dir };
}

void fx_close(fx_job *f) {
    cm_lm_close(&f->train);
    cm_lm_close(&f->val);
    cm_dataset_close(&f->data);
    cm_conf_close(&f->conf);
}

char *fx_sums(const char *ckpt_dir, int64_t step) {
    char *path = cm_strf("%s/step-%08lld/SHA256SUMS", ckpt_dir, (long long)step), *text;
    size_t n;
    cm_err err;
    if (!cm_read_file(path, 1 << 20, &text, &n, &err)) text = NULL;
    free(path);
    return text;
}

char *fx_run(const char *dir, const char *ckpt_dir, int64_t stop_at,
             const char *const *words) {
    fx_job f;
    cm_err err;
    bool complete;
    fx_open(&f, dir, ckpt_dir, words);
    f.job.stop_at = stop_at;
    cm_plan plan;
    CHECKF(cm_plan_make(&f.job, &plan, &err), "cm_plan_make: %s", err.msg);
    bool ok = cm_train(&f.job, &complete, &err);
    CHECKF(ok, "cm_train: %s", err.msg);
    CHECK(complete == (stop_at == 0 || stop_at >= plan.steps));
    fx_close(&f);
    return fx_sums(ckpt_dir, stop_at ? stop_at : plan.steps);
}
