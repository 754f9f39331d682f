/* probe_kl.c -- kind kl: the quantization card as a task, one item a row of text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/probe_int.h"

/* Shared by the questions of one task. */
typedef struct {
    cm_loaded ref;
    cm_scorer sr, s;
    cm_kl_pos *pos; /* [length] */
    bool loaded;
} pair;
typedef struct {
    pair *p;
    const int32_t *token;
    int n;
} kl_own;

static void close_kl(cm_eval_task *t) {
    pair *p = t->own;
    if (!p) return;
    cm_scorer_close(&p->sr);
    cm_scorer_close(&p->s);
    if (p->loaded) cm_loaded_close(&p->ref);
    free(p->pos);
    t->own = NULL;
}

/* Two models can be compared token by token only where tokens are the same. */
static bool check_pair(const cm_eval_task *t, const cm_loaded *ref, cm_err *err) {
    const cm_loaded *m = t->model;
    int64_t a = ref->model.conf.vocab_size, b = m->model.conf.vocab_size;
    if (a != b)
        return cm_fail(err, CM_EXIT_DATA, "%s: a vocabulary of %lld, but the model's is %lld",
                       t->eval->reference, (long long)a, (long long)b);
    bool same = ref->spm && !strcmp(cm_spm_hash(ref->spm), cm_spm_hash(m->spm));
    for (int i = 0; !same && ref->spm && i < cm_spm_vocab(m->spm); i++) {
        const char *x = cm_spm_piece(ref->spm, i, NULL, NULL);
        if (strcmp(x, cm_spm_piece(m->spm, i, NULL, NULL)))
            return cm_fail(err, CM_EXIT_DATA, "%s: another tokenizer than the model's (piece %d "
                           "is '%s', not '%s')", t->eval->reference, i, x,
                           cm_spm_piece(m->spm, i, NULL, NULL));
    }
    return ref->spm || cm_fail(err, CM_EXIT_DATA, "%s: the reference model has no tokenizer",
                               t->eval->reference);
}

static bool open_pair(cm_eval_task *t, int length, cm_err *err) {
    const char *path = t->eval->reference;
    if (!*path)
        return cm_fail(err, CM_EXIT_USAGE,
                       "task %s compares with a reference model: --reference PATH", t->name);
    pair *p = t->own = cm_pool_get(&t->pool, sizeof *p);
    p->pos = calloc((size_t)length, sizeof *p->pos);
    CM_ASSERT(p->pos, "out of memory: a row of %d tokens", length);
    unsigned how = t->eval->weights == CM_WEIGHTS_BLOCKS ? CM_LOAD_BLOCKS : 0;
    p->loaded = cm_load(&p->ref, path, how, err);
    return p->loaded && check_pair(t, &p->ref, err) &&
           cm_scorer_open(&p->sr, &p->ref.model, length, err) &&
           cm_scorer_open(&p->s, &t->model->model, length, err);
}

static void add_row(cm_eval_task *t, const cm_text_row *r, int64_t i) {
    pair *p = t->own;
    char *id = cm_strf("%lld", (long long)i);
    cm_question *q = cm_task_add(t, id, r->group);
    free(id);
    kl_own *own = q->own = cm_pool_get(&t->pool, sizeof *own);
    *own = (kl_own){ p, r->token, r->n };
    q->prompt = cm_probe_ids_text(t, r->token, r->n, NULL, 0);
    q->answer = cm_pool_text(&t->pool, p->ref.id, strlen(p->ref.id)); /* part of the hash */
}

static bool build_kl(cm_eval_task *t, cm_err *err) {
    double length[MAX_GRID];
    const cm_task_conf *c = t->c;
    if (!cm_probe_numbers(t, "task.lengths", &c->lengths, 2, 1e6, length, err)) return false;
    if (c->skip > (int64_t)length[0] - 2)
        return cm_conf_bad(&t->file, err, "task.skip", "leaves nothing of rows of %d tokens",
                           (int)length[0]);
    cm_text_row *row = NULL;
    int64_t n = 0;
    bool ok = open_pair(t, (int)length[0], err) &&
              cm_text_rows(t, (int)length[0], false, &row, &n, err);
    for (int64_t i = 0; ok && i < n; i++)
        if (row[i].n > c->skip + 1) add_row(t, &row[i], i);
    free(row);
    return ok;
}

static void numbers_json(cm_buf *b, const char *key, const cm_kl_pos *pos, int n, size_t at) {
    cm_json_open(b, key, '[');
    for (int i = 0; i < n; i++)
        cm_json_f64(b, NULL, *(const double *)(const void *)((const char *)&pos[i] + at));
    cm_json_close(b, '[');
}

static void score_kl(const cm_eval_task *t, const cm_question *q, cm_item *out,
                     cm_buf *detail) {
    const kl_own *own = q->own;
    pair *p = own->p;
    int first = (int)t->c->skip, n = own->n - 1 - first;
    cm_kl_score(&p->sr, &p->s, own->token, own->n, first, p->pos);
    const cm_kl_pos *pos = p->pos + first;
    cm_kl_pos sum = { 0 };
    for (int i = 0; i < n; i++) {
        sum.kl += pos[i].kl;
        sum.nll += pos[i].nll;
        sum.ref += pos[i].ref;
        sum.dp += pos[i].dp;
        sum.same += pos[i].same;
    }
    cm_item_put(t, out, "kl", sum.kl, n);
    cm_item_put(t, out, "same_top1", sum.same, n);
    cm_item_put(t, out, "ppl_ratio", sum.nll - sum.ref, n);
    cm_item_put(t, out, "ppl_token", sum.nll, n);
    cm_item_put(t, out, "delta_p", sum.dp, n);
    /* Every position: the card's quantiles are made of them. */
    cm_json_open(detail, "card", '{');
    numbers_json(detail, "kl", pos, n, offsetof(cm_kl_pos, kl));
    numbers_json(detail, "nll", pos, n, offsetof(cm_kl_pos, nll));
    numbers_json(detail, "ref", pos, n, offsetof(cm_kl_pos, ref));
    numbers_json(detail, "same", pos, n, offsetof(cm_kl_pos, same));
    cm_json_close(detail, '{');
}

const cm_kind cm_kind_kl = {
    .name = "kl",
    .help = "the quantization card: divergence from a reference model on one text",
    .metrics = "kl same_top1 ppl_ratio ppl_token delta_p",
    .primary = "kl",
    .keys = CM_KEYS_ALL CM_KEYS_DATA "text lengths join skip",
    .build = build_kl,
    .score = score_kl,
    .close = close_kl,
};

/* ---- the command line's card ----------------------------------------------------- */

bool cm_card_task(cm_eval_task *t, const char *const *path, int n, const cm_loaded *model,
                  const cm_eval_conf *eval, cm_err *err) {
    bool llama = eval->mode == CM_EVAL_LLAMA;
    int64_t length = eval->context ? eval->context : llama ? 512 : model->model.conf.context;
    cm_buf yaml = { 0 }, list = { 0 };
    cm_json_open(&list, NULL, '[');
    for (int i = 0; i < n; i++) cm_json_str(&list, NULL, path[i]);
    cm_json_close(&list, '[');
    cm_buf_addf(&yaml, "task:\n  name: card\n  kind: kl\n  data: %s\n  lengths: [%lld]\n"
                "  text: \"{%s}\"\n", list.s, (long long)length, eval->field);
    if (llama)
        cm_buf_addf(&yaml, "  split: file\n  join: true\n  skip: %lld\n",
                    (long long)length / 2);
    bool ok = cm_task_open_text(t, "--text", yaml.s, eval, err);
    cm_buf_free(&yaml);
    cm_buf_free(&list);
    return ok;
}

static const cJSON *member(const cJSON *o, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(o, key);
}
static double number(const cJSON *o, const char *key) {
    const cJSON *v = member(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

static void value_line(const cJSON *card, const char *key, const char *label, double times,
                       const char *unit, cm_buf *out) {
    const cJSON *v = member(card, key);
    cm_buf_addf(out, "%-34s %13.6g +/- %-11.3g (iid %.3g) %s\n", label,
                times * number(v, "value"), times * number(v, "stderr"),
                times * number(v, "stderr_iid"), unit);
}

static void quantile_line(const cJSON *q, const char *label, double times, cm_buf *out) {
    static const char *const at[] = { "0.01", "0.1", "0.5", "0.9", "0.99", "0.999", "1" };
    cm_buf_addf(out, "%-34s", label);
    for (int i = 0; i < 7; i++)
        cm_buf_addf(out, " %s: %.3g", at[i], times * number(q, at[i]));
    cm_buf_addf(out, "\n");
}

bool cm_card_table(const char *dir, cm_buf *out, cm_err *err) {
    cm_result r;
    if (!cm_result_read(&r, dir, false, err)) return false;
    const cJSON *t = cJSON_GetArrayItem(member(r.root, "tasks"), 0), *card = member(t, "card");
    cm_buf_addf(out, "%.0f positions in %.0f rows\n", number(card, "positions"),
                number(card, "rows"));
    value_line(card, "ppl_reference", "perplexity of the reference", 1, "", out);
    value_line(card, "ppl", "perplexity", 1, "", out);
    value_line(card, "ppl_ratio", "ratio", 1, "", out);
    value_line(card, "ln_ppl_ratio", "its logarithm", 1, "nats", out);
    value_line(card, "kl", "divergence from the reference", 1, "nats", out);
    quantile_line(member(card, "kl_quantiles"), "  quantiles", 1, out);
    value_line(card, "same_top1", "same most likely token", 100, "%", out);
    value_line(card, "delta_p", "change of p(true token), mean", 100, "%", out);
    value_line(card, "delta_p_rms", "  root mean square", 100, "%", out);
    quantile_line(member(card, "delta_p_quantiles"), "  quantiles (%)", 100, out);
    cm_result_free(&r);
    return true;
}
