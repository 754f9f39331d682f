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
#include <unistd.h>

static bool folder_holds(cm_dtype type, const char *name, cm_err *err) {
    return cm_dtypes[type].safetensors ||
           cm_fail(err, CM_EXIT_USAGE, "safetensors cannot hold %s, only F32, F16 and BF16; a GGUF "
                   "file can (--out NAME.gguf, or --format gguf)", name);
}

bool cm_export_items(const cm_export *x, bool gguf, cm_items *items, cm_buf *idle, cm_err *err) {
    *items = (cm_items){0};
    if (x->adapter) cm_gguf_lora_items(x->model, items);
    else if (gguf) cm_gguf_items(x->model, items);
    else cm_hf_items(x->model, items);
    bool ok = cm_mix_apply(items, x, idle, err);
    for (int i = 0; ok && !gguf && i < items->n; i++)
        ok = folder_holds(items->v[i].t.dtype, cm_dtypes[items->v[i].t.dtype].name, err);
    if (ok) return true;
    cm_items_free(items);
    return false;
}

static bool items_of(const cm_export *x, bool gguf, cm_items *items, cm_err *err) {
    return cm_export_items(x, gguf, items, NULL, err);
}

/* Whether a type's encoder searches: its errors have no bound in closed form. */
static bool searched(cm_dtype dt) { return cm_dtypes[dt].block > 1 && dt != CM_Q8_0_T; }

/* Items for the writer; the parameter whose weights are there, where they are fetched. */
typedef struct feed {
    const cm_export *x;
    cm_items *items;
    const cm_param *have;
} feed;

/* Have the weights of p (NULL: of none), and no others. */
static bool have(cm_loaded *from, const cm_param **now, const cm_param *p, cm_err *err) {
    if (!from || *now == p) return true;
    if (*now) cm_loaded_forget(from, *now);
    *now = p;
    return !p || cm_loaded_fetch(from, p, err);
}

void cm_sums_free(cm_sums *s) {
    for (int i = 0; i < s->n; i++) free(s->row[i]);
    free(s->row);
    *s = (cm_sums){0};
}

/* Of one tensor, where somebody will ask: of an adapter nobody does, its bytes are compared. */
static void keep_sums(const feed *f, int i, const void *raw) {
    const cm_item *it = &f->items->v[i];
    cm_sums *s = f->x->sums;
    if (!s || i >= s->n || !searched(it->t.dtype)) return;
    free(s->row[i]);
    s->row[i] = cm_room(it->outer * it->rows, sizeof *s->row[i]);
    cm_item_sums(it, raw, s->row[i]);
}

static bool fill(void *ctx, int i, void *dst, cm_err *err) {
    feed *f = ctx;
    const cm_item *it = &f->items->v[i];
    bool ok = have(f->x->source, &f->have, it->p, err) && cm_item_write(it, dst, err);
    if (ok) keep_sums(f, i, dst);
    return ok;
}

/* The template to write: the model's own, else ours where the tokenizer has its pieces. */
static const char *chat_of(const cm_spm *spm, const char *own) {
    return own ? own : spm ? cm_chat_jinja(spm) : NULL;
}

static void put_types(cm_gguf_out *g, const cm_export *x, const cm_items *items) {
    bool blocks = false;
    for (int i = 0; i < items->n; i++)
        blocks = blocks || cm_dtypes[items->v[i].t.dtype].block > 1;
    cm_gguf_put_u32(g, "general.file_type", cm_mix_file_type(x->mix));
    if (blocks) cm_gguf_put_u32(g, "general.quantization_version", 2);
}

/* ---- GGUF ------------------------------------------------------------------------- */

static bool put_model(cm_gguf_out *g, const cm_export *x, const cm_items *items, cm_err *err) {
    const cm_model_conf *c = &x->model->conf;
    cm_gguf_put_conf(g, c);
    if (x->name) cm_gguf_put_str(g, "general.name", x->name);
    put_types(g, x, items);
    if (x->imatrix) {
        cm_gguf_put_str(g, "quantize.imatrix.dataset", cm_imatrix_dataset(x->imatrix));
        cm_gguf_put_u32(g, "quantize.imatrix.entries_count",
                        (uint32_t)cm_imatrix_entries(x->imatrix));
        cm_gguf_put_u32(g, "quantize.imatrix.chunks_count",
                        (uint32_t)cm_imatrix_chunks(x->imatrix));
    }
    if (!cm_gguf_put_tokenizer(g, x->spm, c->vocab_size, err)) return false;
    const char *chat = chat_of(x->spm, x->chat_template);
    if (chat) cm_gguf_put_str(g, "tokenizer.chat_template", chat);
    return true;
}

static void put_adapter(cm_gguf_out *g, const cm_export *x, const cm_items *items) {
    const cm_lora_conf *c = &x->model->lora;
    cm_gguf_put_str(g, "general.architecture", cm_gguf_arch(&x->model->conf));
    cm_gguf_put_str(g, "general.type", "adapter");
    if (x->name) cm_gguf_put_str(g, "general.name", x->name);
    put_types(g, x, items);
    cm_gguf_put_str(g, "adapter.type", "lora");
    /* llama.cpp's scale is alpha / rank, whatever ours was. */
    cm_gguf_put_f32(g, "adapter.lora.alpha", (float)(cm_lora_scale(c) * (double)c->rank));
}

/* Keys and tensors of the file, to be written or to be measured; NULL: failed. */
static cm_gguf_out *describe(const cm_export *x, const cm_items *items, cm_err *err) {
    if (!cm_model_exportable(&x->model->conf, err)) return NULL;
    cm_gguf_out *g = cm_gguf_out_open();
    bool ok = true;
    if (x->adapter) put_adapter(g, x, items);
    else ok = put_model(g, x, items, err);
    for (int i = 0; ok && i < items->n; i++)
        cm_gguf_put_tensor(g, items->v[i].name, &items->v[i].t);
    if (ok) return g;
    cm_gguf_out_close(g);
    return NULL;
}

bool cm_export_gguf(const cm_export *x, const char *path, cm_err *err) {
    cm_items items;
    if (!items_of(x, true, &items, err)) return false;
    feed feed_of = {x, &items, NULL};
    if (x->sums) {
        cm_sums_free(x->sums);
        *x->sums = (cm_sums){cm_room(items.n, sizeof *x->sums->row), items.n};
    }
    cm_gguf_out *g = describe(x, &items, err);
    bool ok = g && cm_gguf_out_write(g, path, fill, &feed_of, err);
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
    cm_items items;
    if (!items_of(x, true, &items, err)) return false;
    feed feed_of = {x, &items, NULL};
    cm_gguf_out *g = describe(x, &items, err);
    bool ok = g && cm_gguf_out_write(g, path, fill, &feed_of, err) &&
              adapter_same(&items, path, err);
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

static const cm_st_meta hf_meta = {"format", "pt"};

/* All tensors of model.safetensors, *n of them; the first items->n have their names there. */
static cm_st_entry *entries(const cm_export *x, const cm_items *items, int *n) {
    size_t most = (size_t)items->n + 2 * (size_t)x->model->conf.n_layers;
    cm_st_entry *e = cm_room((int64_t)most, sizeof *e);
    for (int i = 0; i < items->n; i++) e[i] = (cm_st_entry){items->v[i].name, items->v[i].t};
    *n = items->n + add_empty(x->model, e + items->n);
    return e;
}

static void free_entries(cm_st_entry *e, const cm_items *items, int n) {
    for (int i = items->n; i < n; i++) free((void *)(uintptr_t)e[i].name);
    free(e);
}

static bool write_weights(const cm_export *x, const char *path, cm_err *err) {
    cm_items items;
    int n;
    if (!items_of(x, false, &items, err)) return false;
    feed feed_of = {x, &items, NULL};
    cm_st_entry *e = entries(x, &items, &n);
    bool ok = cm_st_write(path, e, n, &hf_meta, 1, fill, &feed_of, err);
    free_entries(e, &items, n);
    cm_items_free(&items);
    return ok;
}

bool cm_export_size(const cm_export *x, bool gguf, const cm_items *items, uint64_t *bytes,
                    cm_err *err) {
    if (!gguf) {
        int n;
        cm_st_entry *e = entries(x, items, &n);
        *bytes = cm_st_bytes(e, n, &hf_meta, 1);
        free_entries(e, items, n);
        return true;
    }
    cm_gguf_out *g = describe(x, items, err);
    if (g) *bytes = cm_gguf_out_bytes(g);
    cm_gguf_out_close(g);
    return g != NULL;
}

bool cm_export_fits_folder(const cm_export *x, cm_err *err) {
    return folder_holds(cm_mix_type(x->mix), cm_mix_name(x->mix), err);
}

static bool write_folder(const cm_export *x, const char *dir, cm_err *err) {
    char *config = cm_strf("%s/config.json", dir);
    char *weights = cm_strf("%s/model.safetensors", dir);
    bool ok = cm_hf_write_config(&x->model->conf, x->spm, config, err) &&
              (!x->spm || cm_hf_write_tokenizer(x->spm, x->chat_template, dir, err)) &&
              write_weights(x, weights, err);
    free(config);
    free(weights);
    return ok;
}

bool cm_export_hf(const cm_export *x, const char *dir, cm_err *err) {
    cm_err ignored;
    bool there = cm_exists(dir);
    if (!cm_export_fits_folder(x, err) || !cm_mkdirs(dir, err)) return false;
    cm_outs_hold(); /* a model's configuration beside another's weights would run, and lie */
    bool ok = write_folder(x, dir, err);
    ok = cm_outs_release(ok, ok ? err : &ignored) && ok;
    if (!ok && !there) rmdir(dir); /* stays where something is in it */
    return ok && cm_export_sweep(dir, x->spm != NULL, err);
}

/* ---- what was written ------------------------------------------------------------- */

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

/* The same for a type with a search: the row once more through the encoder; all bits count. */
static double changed(const cm_item *it, int64_t outer, const cm_real *a, const cm_real *b,
                      int64_t n) {
    float *row = malloc(2 * (size_t)n * sizeof *row), *again = row + n;
    unsigned char *raw = malloc((size_t)n * 2);
    CM_ASSERT(row && raw, "out of memory: a row of %lld", (long long)n);
    double worst = 0;
    for (int64_t i = 0; i < n; i++) row[i] = (float)a[i];
    cm_quantize_for(it->t.dtype, row, it->imp ? it->imp + outer * n : NULL, raw, n);
    cm_to_f32(it->t.dtype, raw, again, n);
    for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)b[i] - again[i]));
    free(row);
    free(raw);
    return worst;
}

/* What a tensor of the file was when it was written; NULL: not kept. */
static const uint64_t *sums_of(const cm_export *x, int i) {
    return x->sums && i < x->sums->n ? x->sums->row[i] : NULL;
}

/* sum: hashes of the rows written; NULL: there are none. */
static bool compare_item(const cm_item *it, const cm_item *back, const uint64_t *sum,
                         cm_err *err) {
    const cm_real *a = cm_rdata(&it->p->var.v), *b = cm_rdata(&back->p->var.v);
    if (!cm_tensor_same_shape(&it->p->var.v, &back->p->var.v))
        return cm_fail(err, CM_EXIT_CHECK, "%s came back with another shape", it->name);
    int64_t n = it->outer * it->rows, bad = n;
#pragma omp parallel for schedule(static) reduction(min : bad)
    for (int64_t k = 0; k < n; k++) {
        int64_t o = k / it->rows, at = (o * it->pitch + it->row0 + k % it->rows) * it->cols;
        double over = sum                     ? cm_row_sum(b + at, it->cols) != sum[k]
                      : searched(it->t.dtype) ? changed(it, o, a + at, b + at, it->cols)
                                              : excess(it, a + at, b + at, it->cols);
        if (!(over <= 0) && k < bad) bad = k;
    }
    return bad == n || cm_fail(err, CM_EXIT_CHECK, "%s, row %lld: what was written differs by "
                               "more than %s allows", it->name, (long long)bad,
                               cm_dtypes[it->t.dtype].name);
}

/* All tensors, or those of *part.  from: who fetches back's weights; NULL: they are there. */
static bool compare_some(const cm_export *x, const cm_model *back, bool gguf, cm_loaded *from,
                         const int *part, cm_err *err) {
    cm_items a, b;
    if (!items_of(x, gguf, &a, err)) return false;
    if (gguf) cm_gguf_items(back, &b);
    else cm_hf_items(back, &b);
    bool ok = a.n == b.n || cm_fail(err, CM_EXIT_CHECK, "%d tensors were written, %d are "
                                    "read back", a.n, b.n);
    const cm_param *now_a = NULL, *now_b = NULL;
    for (int i = 0; ok && i < a.n; i++) {
        const uint64_t *sum = sums_of(x, i); /* then the source's weights are not needed */
        if (part && !cm_model_in_part(back, b.v[i].p, *part)) continue;
        ok = (sum || have(x->source, &now_a, a.v[i].p, err)) &&
             have(from, &now_b, b.v[i].p, err) && compare_item(&a.v[i], &b.v[i], sum, err);
    }
    have(x->source, &now_a, NULL, err);
    have(from, &now_b, NULL, err);
    cm_items_free(&a);
    cm_items_free(&b);
    return ok;
}

bool cm_export_compare(const cm_export *x, const cm_model *back, bool gguf, cm_err *err) {
    return compare_some(x, back, gguf, x->back, NULL, err);
}

bool cm_export_compare_part(const cm_export *x, const cm_model *back, bool gguf, int part,
                            cm_err *err) {
    return compare_some(x, back, gguf, NULL, &part, err);
}
