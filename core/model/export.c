/* export.c -- a model as a GGUF file or a Hugging Face folder, and the check of what was
 * written.
 *
 * Tensors are encoded one at a time as the writer asks for them, so an export needs
 * memory for one tensor besides the model. */
#include "model/files.h"
#include "quant/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* llama.cpp's general.file_type. */
static uint32_t file_type(cm_dtype dt) {
    switch (dt) {
    case CM_F16_T: return 1;
    case CM_Q8_0_T: return 7;
    case CM_BF16_T: return 32;
    default: return 0;
    }
}

static void items_of(const cm_export *x, bool gguf, cm_items *items) {
    if (x->adapter) cm_gguf_lora_items(x->model, items);
    else if (gguf) cm_gguf_items(x->model, items);
    else cm_hf_items(x->model, items);
    cm_items_set_dtype(items, x->type);
}

static bool fill(void *ctx, int i, void *dst, cm_err *err) {
    return cm_item_write(&((const cm_items *)ctx)->v[i], dst, err);
}

/* The template to write: the model's own, else ours where the tokenizer has its pieces. */
static const char *chat_of(const cm_spm *spm, const char *own) {
    return own ? own : spm ? cm_chat_jinja(spm) : NULL;
}

/* ---- GGUF ------------------------------------------------------------------------- */

bool cm_export_gguf(const cm_export *x, const char *path, cm_err *err) {
    const cm_model_conf *c = &x->model->conf;
    if (!cm_model_exportable(c, err)) return false;
    cm_gguf_out *g = cm_gguf_out_open();
    cm_items items;
    items_of(x, true, &items);
    cm_gguf_put_conf(g, c);
    if (x->name) cm_gguf_put_str(g, "general.name", x->name);
    cm_gguf_put_u32(g, "general.file_type", file_type(x->type));
    if (cm_dtypes[x->type].block > 1)
        cm_gguf_put_u32(g, "general.quantization_version", 2);
    bool ok = cm_gguf_put_tokenizer(g, x->spm, c->vocab_size, err);
    const char *chat = chat_of(x->spm, x->chat_template);
    if (chat) cm_gguf_put_str(g, "tokenizer.chat_template", chat);
    for (int i = 0; i < items.n; i++)
        cm_gguf_put_tensor(g, items.v[i].name, &items.v[i].t);
    ok = ok && cm_gguf_out_write(g, path, fill, &items, err);
    cm_items_free(&items);
    cm_gguf_out_close(g);
    return ok;
}

/* ---- adapters in GGUF ------------------------------------------------------------- */

/* What the tensors of the file are is what they were to be, byte for byte. */
static bool adapter_same(const cm_items *items, const char *path, cm_err *err) {
    cm_gguf g;
    if (!cm_gguf_open(&g, path, err)) return false;
    bool ok = g.n_tensor == items->n;
    for (int i = 0; ok && i < items->n; i++) {
        const cm_item *it = &items->v[i];
        const cm_tensor *t = cm_gguf_tensor(&g, it->name);
        size_t n = cm_tensor_bytes(&it->t);
        void *want = malloc(n + 1);
        CM_ASSERT(want, "out of memory: %s", it->name);
        ok = t && t->dtype == it->t.dtype && cm_tensor_same_shape(t, &it->t) &&
             cm_item_write(it, want, err) && !memcmp(want, t->data, n);
        free(want);
    }
    cm_gguf_close(&g);
    return ok || cm_fail(err, CM_EXIT_CHECK, "%s: what was written reads back different", path);
}

bool cm_export_gguf_adapter(const cm_export *x, const char *path, cm_err *err) {
    const cm_lora_conf *c = &x->model->lora;
    if (!cm_model_exportable(&x->model->conf, err)) return false;
    cm_gguf_out *g = cm_gguf_out_open();
    cm_items items;
    items_of(x, true, &items);
    cm_gguf_put_str(g, "general.architecture", cm_gguf_arch(&x->model->conf));
    cm_gguf_put_str(g, "general.type", "adapter");
    if (x->name) cm_gguf_put_str(g, "general.name", x->name);
    cm_gguf_put_u32(g, "general.file_type", file_type(x->type));
    if (cm_dtypes[x->type].block > 1)
        cm_gguf_put_u32(g, "general.quantization_version", 2);
    cm_gguf_put_str(g, "adapter.type", "lora");
    /* llama.cpp's scale is alpha / rank, whatever ours was. */
    cm_gguf_put_f32(g, "adapter.lora.alpha", (float)(cm_lora_scale(c) * (double)c->rank));
    for (int i = 0; i < items.n; i++)
        cm_gguf_put_tensor(g, items.v[i].name, &items.v[i].t);
    bool ok = cm_gguf_out_write(g, path, fill, &items, err) && adapter_same(&items, path, err);
    cm_items_free(&items);
    cm_gguf_out_close(g);
    return ok;
}

/* ---- Hugging Face ----------------------------------------------------------------- */

static void add_json(cm_buf *b, const char *s) {
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') cm_buf_addf(b, "\\%c", c);
        else if (c < 0x20) cm_buf_addf(b, "\\u%04x", c);
        else cm_buf_add(b, s, 1);
    }
}

static void add_token(cm_buf *b, const cm_spm *spm, const char *key, int id) {
    if (id < 0) return;
    cm_buf_addf(b, "  \"%s\": \"", key);
    add_json(b, cm_spm_piece(spm, id, NULL, NULL));
    cm_buf_addf(b, "\",\n");
}

/* transformers finds a control piece in a rendered template only if it is listed here. */
static void add_controls(cm_buf *b, const cm_spm *spm) {
    const char *comma = "";
    cm_buf_addf(b, "  \"added_tokens_decoder\": {");
    for (int i = 0; i < cm_spm_vocab(spm); i++) {
        cm_piece_type type;
        const char *piece = cm_spm_piece(spm, i, NULL, &type);
        if (type != CM_PIECE_CONTROL && type != CM_PIECE_UNKNOWN) continue;
        cm_buf_addf(b, "%s\n    \"%d\": {\"content\": \"", comma, i);
        add_json(b, piece);
        cm_buf_addf(b, "\", \"lstrip\": false, \"normalized\": false, \"rstrip\": false, "
                    "\"single_word\": false, \"special\": true}");
        comma = ",";
    }
    cm_buf_addf(b, "\n  },\n");
}

static bool write_tokenizer_config(const cm_spm *spm, const char *chat_template,
                                   const char *path, cm_err *err) {
    cm_buf b = {0};
    cm_buf_addf(&b, "{\n  \"tokenizer_class\": \"LlamaTokenizer\",\n"
                "  \"legacy\": false,\n"
                "  \"add_bos_token\": %s,\n  \"add_eos_token\": false,\n"
                "  \"add_prefix_space\": %s,\n",
                cm_spm_bos(spm) >= 0 ? "true" : "false",
                cm_spm_add_dummy_prefix(spm) ? "true" : "false");
    add_token(&b, spm, "bos_token", cm_spm_bos(spm));
    add_token(&b, spm, "eos_token", cm_spm_eos(spm));
    add_token(&b, spm, "unk_token", cm_spm_unk(spm));
    add_token(&b, spm, "pad_token", cm_spm_pad(spm));
    add_controls(&b, spm);
    chat_template = chat_of(spm, chat_template);
    if (chat_template) {
        cm_buf_addf(&b, "  \"chat_template\": \"");
        add_json(&b, chat_template);
        cm_buf_addf(&b, "\",\n");
    }
    cm_buf_addf(&b, "  \"clean_up_tokenization_spaces\": false\n}\n");
    bool ok = cm_write_file(path, b.s, b.n, err);
    cm_buf_free(&b);
    return ok;
}

bool cm_hf_write_tokenizer(const cm_spm *spm, const char *chat_template, const char *dir,
                           cm_err *err) {
    size_t n;
    const void *proto = cm_spm_proto(spm, &n);
    char *model = cm_strf("%s/tokenizer.model", dir);
    char *config = cm_strf("%s/tokenizer_config.json", dir);
    bool ok = cm_write_file(model, proto, n, err) &&
              write_tokenizer_config(spm, chat_template, config, err);
    free(model);
    free(config);
    return ok;
}

/* transformers makes a shared expert of width 0 where there is none, and wants its empty
 * tensors.  Their names are appended to e; the number of them. */
static int add_empty(const cm_model *m, cm_st_entry *e) {
    int n = 0;
    int64_t D = m->conf.d_model;
    for (int i = 0; i < m->conf.n_layers; i++) {
        if (m->layer[i].mlp.in) continue;
        e[n++] = (cm_st_entry){cm_strf("model.layers.%d.shared_mlp.input_linear.weight",
                                       i),
                               {CM_F32_T, 2, {0, D}, NULL}};
        e[n++] = (cm_st_entry){
            cm_strf("model.layers.%d.shared_mlp.output_linear.weight", i),
            {CM_F32_T, 2, {D, 0}, NULL}};
    }
    return n;
}

static bool write_weights(const cm_export *x, const char *path, cm_err *err) {
    cm_items items;
    items_of(x, false, &items);
    size_t most = (size_t)items.n + 2 * (size_t)x->model->conf.n_layers;
    cm_st_entry *e = calloc(most, sizeof *e);
    CM_ASSERT(e, "out of memory: %zu tensors", most);
    for (int i = 0; i < items.n; i++) e[i] = (cm_st_entry){items.v[i].name, items.v[i].t};
    int empty = add_empty(x->model, e + items.n);
    cm_st_meta meta = {"format", "pt"};
    bool ok = cm_st_write(path, e, items.n + empty, &meta, 1, fill, &items, err);
    for (int i = 0; i < empty; i++) free((void *)(uintptr_t)e[items.n + i].name);
    free(e);
    cm_items_free(&items);
    return ok;
}

bool cm_export_hf(const cm_export *x, const char *dir, cm_err *err) {
    if (!cm_dtypes[x->type].safetensors)
        return cm_fail(err, CM_EXIT_USAGE, "safetensors cannot hold %s; F32, F16 or BF16 "
                       "was wanted", cm_dtypes[x->type].name);
    char *config = cm_strf("%s/config.json", dir);
    char *weights = cm_strf("%s/model.safetensors", dir);
    bool ok = cm_mkdirs(dir, err) &&
              cm_hf_write_config(&x->model->conf, x->spm, config, err) &&
              (!x->spm || cm_hf_write_tokenizer(x->spm, x->chat_template, dir, err)) &&
              write_weights(x, weights, err);
    free(config);
    free(weights);
    return ok;
}

/* ---- what was written ------------------------------------------------------------- */

uint64_t cm_export_table(const cm_export *x, bool gguf, cm_buf *out) {
    cm_items items;
    uint64_t total = 0;
    items_of(x, gguf, &items);
    for (int i = 0; i < items.n; i++) {
        const cm_item *it = &items.v[i];
        char shape[128];
        uint64_t n = cm_tensor_bytes(&it->t);
        cm_buf_addf(out, "%-56s %-5s %12llu  %s\n", it->name, cm_dtypes[it->t.dtype].name,
                    (unsigned long long)n,
                    cm_tensor_shape_str(&it->t, shape, sizeof shape));
        total += n;
    }
    cm_items_free(&items);
    return total;
}

/* What the file holds, and the model computes with, of a decay's logarithm. */
static float decay(cm_real A_log) { return (float)-exp((double)A_log); }

/* Largest excess of |a-b| over what rows of this type may differ by; 0 when all is well.
 * ssm_a's logarithm may come back another, for below 1 several floats have one exp: what
 * must be the same is A.  (Where the floats near A are the coarser ones, the nearest float to
 * log A rounds to A again; where those near A_log are, it is A_log itself.) */
static double excess(const cm_item *it, const cm_real *a, const cm_real *b, int64_t n) {
    double amax = 0, worst = 0;
    for (int64_t i = 0; i < n; i++) amax = fmax(amax, fabs((double)a[i]));
    bool log_of = it->how == CM_ITEM_DECAY;
    double bound = log_of ? 0 : cm_quant_error(it->t.dtype, amax);
    for (int64_t i = 0; i < n; i++) {
        double d = log_of ? (double)decay(a[i]) - decay(b[i]) : (double)a[i] - b[i];
        worst = fmax(worst, fabs(d) - bound);
    }
    return worst;
}

static bool compare_item(const cm_item *it, const cm_item *back, cm_err *err) {
    const cm_real *a = cm_rdata(&it->p->var.v), *b = cm_rdata(&back->p->var.v);
    if (!cm_tensor_same_shape(&it->p->var.v, &back->p->var.v))
        return cm_fail(err, CM_EXIT_CHECK, "%s came back with another shape", it->name);
    for (int64_t o = 0; o < it->outer; o++)
        for (int64_t r = 0; r < it->rows; r++) {
            int64_t at = (o * it->pitch + it->row0 + r) * it->cols;
            double over = excess(it, a + at, b + at, it->cols);
            if (over > 0)
                return cm_fail(err, CM_EXIT_CHECK,
                               "%s, row %lld: what was written differs "
                               "by %g more than %s allows", it->name,
                               (long long)(o * it->rows + r), over,
                               cm_dtypes[it->t.dtype].name);
        }
    return true;
}

bool cm_export_compare(const cm_export *x, const cm_model *back, bool gguf, cm_err *err) {
    cm_items a, b;
    items_of(x, gguf, &a);
    if (gguf) cm_gguf_items(back, &b);
    else cm_hf_items(back, &b);
    bool ok = a.n == b.n || cm_fail(err, CM_EXIT_CHECK, "%d tensors were written, %d are "
                                    "read back", a.n, b.n);
    for (int i = 0; ok && i < a.n; i++) ok = compare_item(&a.v[i], &b.v[i], err);
    cm_items_free(&a);
    cm_items_free(&b);
    return ok;
}
