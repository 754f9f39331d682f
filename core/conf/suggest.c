/* suggest.c -- "did you mean": names used elsewhere, spelling, the right section. */
#include "conf/conf_priv.h"

#include <string.h>

/* What other training programs call our keys, where spelling alone would not lead
 * there; cm_nearest finds the rest ("learning_rate", "weight_decy"). */
static const struct {
    const char *theirs, *ours;
} synonyms[] = {
    {"max_lr", "optim.lr"},
    {"wd", "optim.weight_decay"},
    {"grad_clip", "optim.clip"},
    {"max_grad_norm", "optim.clip"},
    {"gradient_clipping", "optim.clip"},
    {"optimizer", "optim.kind"},
    {"adam_beta1", "optim.beta1"},
    {"adam_beta2", "optim.beta2"},
    {"scheduler", "sched.kind"},
    {"lr_scheduler", "sched.kind"},
    {"warmup_steps", "sched.warmup"},
    {"max_steps", "sched.tokens"},
    {"max_tokens", "sched.tokens"},
    {"total_tokens", "sched.tokens"},
    {"epochs", "sched.tokens"},
    {"min_lr", "sched.min_ratio"},
    {"hidden_size", "model.d_model"},
    {"n_embd", "model.d_model"},
    {"num_layers", "model.n_layers"},
    {"num_hidden_layers", "model.n_layers"},
    {"num_attention_heads", "model.n_heads"},
    {"num_key_value_heads", "model.n_kv_heads"},
    {"intermediate_size", "model.d_ff"},
    {"num_experts", "model.n_experts"},
    {"num_local_experts", "model.n_experts"},
    {"num_experts_per_tok", "model.top_k"},
    {"d_state", "model.ssm_state"},
    {"d_conv", "model.ssm_conv"},
    {"headdim", "model.ssm_head_dim"},
    {"chunk_size", "model.ssm_chunk"},
    {"rms_norm_eps", "model.norm_eps"},
    {"tie_word_embeddings", "model.tied"},
    {"max_position_embeddings", "model.context"},
    {"batch_size", "data.batch_tokens"},
    {"micro_batch_size", "data.micro_rows"},
    {"block_size", "data.seq_len"},
    {"max_seq_len", "data.seq_len"},
    {"sequence_length", "data.seq_len"},
    {"gradient_checkpointing", "train.recompute"},
    {"eval_every", "val.every"},
    {"eval_interval", "val.every"},
    {"save_every", "ckpt.every"},
    {"save_interval", "ckpt.every"},
    {"save_steps", "ckpt.every"},
    {"log_interval", "log.every"},
    {"logging_steps", "log.every"},
};

static const char *by_synonym(const char *name) {
    for (size_t i = 0; i < sizeof synonyms / sizeof *synonyms; i++)
        if (!strcmp(synonyms[i].theirs, name))
            return synonyms[i].ours;
    return NULL;
}

/* The key of that name in whatever section has it, one in use before all others. */
static const cm_key *elsewhere(const cm_conf *c, const char *name) {
    int n;
    const cm_key *k = cm_conf_keys(&n), *any = NULL;
    for (int i = 0; i < n; i++) {
        if (strcmp(k[i].name, name)) continue;
        if (cm_conf_uses(c, k[i].section)) return &k[i];
        if (!any) any = &k[i];
    }
    return any;
}

static const cm_key *by_spelling(const cm_key *k, int n, const char *name) {
    const char *names[CM_MAX_KEYS] = {0};
    for (int i = 0; i < n; i++)
        names[i] = k[i].name;
    const char *best = cm_nearest(name, names, n);
    for (int i = 0; best && i < n; i++)
        if (!strcmp(k[i].name, best))
            return &k[i];
    return NULL;
}

/* A top-level name that may have been meant as a section. */
static const char *section_by_spelling(const char *name) {
    const char *names[CM_MAX_SECTIONS] = {0};
    int n;
    const cm_section *s = cm_conf_sections(&n);
    for (int i = 1; i < n; i++)
        names[i - 1] = s[i].name;
    return cm_nearest(name, names, n - 1);
}

void cm_conf_unknown(cm_conf *c, cm_place at, const cm_section *s, const char *name) {
    int n;
    const cm_key *all = cm_conf_keys(&n), *k = NULL;
    const char *dot = strchr(name, '.'), *hint = by_synonym(dot ? dot + 1 : name);
    char buf[96];
    if (!hint && s)
        k = by_spelling(all + s->first, s->n, name);
    if (!hint && !k)
        k = elsewhere(c, dot ? dot + 1 : name);
    if (!hint && !k && !s)
        hint = section_by_spelling(name);
    if (!hint && !k)
        k = by_spelling(all, n, dot ? dot + 1 : name);
    if (!hint && k)
        hint = cm_key_name(k, buf);
    cm_conf_complain(c, at, "unknown key '%s%s%.200s'%s%s%s", s ? s->name : "",
                     s ? "." : "", name, hint ? "; did you mean '" : "",
                     hint ? hint : "", hint ? "'?" : "");
}
