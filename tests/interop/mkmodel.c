/* mkmodel.c -- random models and texts for comparing Chimera with other programs.
 *
 *   mkmodel tokenizer DIR             mixed-script text, a vocabulary trained on it
 *                                     (DIR/tokenizer.model), 2400 lines never seen in
 *                                     training (DIR/lines.txt) and their ids (ids.txt)
 *   mkmodel model DIR NAME key=value...   a random model of that shape (section model):
 *                                     DIR/NAME/ in Hugging Face's form,
 *                                     DIR/NAME.TYPE.gguf, DIR/NAME.tokens (300 ids),
 *                                     .logits (float32, every position), .greedy (24
 *                                     ids that follow the first hundred)
 *   mkmodel lora DIR NAME NEW key=value...   a random adapter (section lora) on that model:
 *                                     DIR/NEW/ as PEFT has it, and of base and adapter
 *                                     together DIR/NEW.tokens, .logits, .greedy
 * Norms, biases and the like are moved away from ones and zeros: a permuted or forgotten
 * vector must show. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { T = 300, GREEDY = 24, LINES = 2400, VOCAB = 900 };

/* ---- text ------------------------------------------------------------------------- */

static const char *const words[] = {
    "the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "under", "river",
    "Straße", "naïve", "façade", "Zürich", "señor", "Łódź", "café", "über",
    "don't",
    "नमस्ते", "दुनिया", "हिन्दी", "भाषा",
    "में", "लिखा", "गया", "क्षत्रिय",
    "ज्ञान",
    "श्री", "१२३",
    "你好", "世界", "中文", "今日は", "カタカナ", "ひらがな",
    "한국어", "漢字",
    "Привет", "мир", "Ελλάδα", "שלום", "مرحبا", "ไทย",
    "🙂", "👨‍👩‍👧", "🇮🇳", "❤️", "🏳️‍🌈", "e\xcc\x81",
    "ｆｕｌｌ", "①②",
    "x=3.14;", "for(i=0;i<10;i++)", "{\"k\":[1,2]}", "http://a.b/c?d=e&f", "#tag",
    "@user",
    "<s>", "</s>", "<unk>", "<0x41>", "<|im_start|>", "\xe2\x96\x81", "_", "--", "...",
};
static const char *const gaps[] = {
    " ", " ", " ", " ", " ", " ", " ", "", "  ", "   ", "        ", "\t", " \t ",
    "\xc2\xa0", "\xe3\x80\x80", "\xe2\x80\x8b", "\xe2\x80\x89", ", ", ". ", "-",
};
enum { N_WORDS = sizeof words / sizeof *words, N_GAPS = sizeof gaps / sizeof *gaps };

static void add_utf8(cm_buf *b, uint32_t c) {
    int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
    unsigned char s[4] = {(unsigned char)(lead[more] | c >> 6 * more)};
    for (int i = 1; i <= more; i++)
        s[i] = (unsigned char)(0x80 | (c >> 6 * (more - i) & 63));
    cm_buf_add(b, s, (size_t)more + 1);
}

/* Any character of the scripts in use, seen in training or not. */
static uint32_t random_char(cm_rng r, uint64_t *k) {
    static const uint32_t range[][2] = {
        {0x20, 0x7e}, {0xa1, 0x17f}, {0x900, 0x97f}, {0x3041, 0x30ff}, {0x4e00, 0x9fff},
        {0xac00, 0xd7a3}, {0x1f300, 0x1f6ff}, {0x2000, 0x206f}, {0x600, 0x6ff},
        {0x20000, 0x20100}};
    const uint32_t *g = range[cm_rng_below(r, (*k)++, 10)];
    return g[0] + (uint32_t)cm_rng_below(r, (*k)++, g[1] - g[0] + 1);
}

static void add_line(cm_buf *b, cm_rng r, uint64_t *k, bool wild) {
    int n = (int)cm_rng_below(r, (*k)++, 14);
    if (wild && cm_rng_below(r, (*k)++, 4) == 0) cm_buf_addf(b, "   ");
    for (int i = 0; i < n; i++) {
        uint64_t what = cm_rng_below(r, (*k)++, wild ? 8 : 7);
        if (what == 6)
            cm_buf_addf(b, "%llu", (unsigned long long)cm_rng_below(r, (*k)++, 1000000));
        else if (what == 7)
            for (int j = 0; j < 4; j++) add_utf8(b, random_char(r, k));
        else
            cm_buf_addf(b, "%s", words[cm_rng_below(r, (*k)++, N_WORDS)]);
        cm_buf_addf(b, "%s", gaps[cm_rng_below(r, (*k)++, N_GAPS)]);
    }
    cm_buf_addf(b, "\n");
}

static void make_text(cm_buf *b, uint64_t seed, int lines, bool wild) {
    cm_rng r = cm_rng_make(seed, CM_RNG_TEST, 0);
    uint64_t k = 0;
    for (int i = 0; i < lines; i++) add_line(b, r, &k, wild);
}

/* ---- tokenizer -------------------------------------------------------------------- */

static bool write_lines(const cm_spm *spm, const cm_buf *text, const char *dir,
                        cm_err *err) {
    cm_buf ids = {0};
    int32_t *id = NULL;
    int64_t n, cap = 0;
    bool ok = true;
    for (char *p = text->s, *end; ok && *p; p = end + 1) {
        end = strchr(p, '\n');
        n = 0;
        ok = cm_spm_encode(spm, p, (size_t)(end - p), &id, &n, &cap, err);
        for (int64_t i = 0; ok && i < n; i++)
            cm_buf_addf(&ids, "%s%d", i ? " " : "", id[i]);
        cm_buf_addf(&ids, "\n");
    }
    char *a = cm_strf("%s/lines.txt", dir), *b = cm_strf("%s/ids.txt", dir);
    ok = ok && cm_write_file(a, text->s, text->n, err) &&
         cm_write_file(b, ids.s, ids.n, err);
    free(a);
    free(b);
    free(id);
    cm_buf_free(&ids);
    return ok;
}

static bool make_tokenizer(const char *dir, cm_err *err) {
    static const char *const control[] = {"<|im_start|>", "<|im_end|>"};
    cm_buf text = {0}, lines = {0}, proto = {0};
    make_text(&text, 1, 4000, false);
    make_text(&lines, 2, LINES, true);
    char *input = cm_strf("%s/train.txt", dir), *out = cm_strf("%s/tokenizer.model", dir);
    cm_spm_train_conf c = {.input = input, .vocab = VOCAB, .control = control,
                           .n_control = 2, .threads = 1};
    bool ok = cm_mkdirs(dir, err) && cm_write_file(input, text.s, text.n, err) &&
              cm_spm_train(&c, &proto, err) && cm_write_file(out, proto.s, proto.n, err);
    cm_spm *spm = ok ? cm_spm_open_bytes(proto.s, proto.n, err) : NULL;
    ok = spm && write_lines(spm, &lines, dir, err);
    if (spm) cm_spm_close(spm);
    cm_buf_free(&text);
    cm_buf_free(&lines);
    cm_buf_free(&proto);
    free(input);
    free(out);
    return ok;
}

/* ---- model ------------------------------------------------------------------------ */

static void stir_vectors(cm_params *ps) {
    for (int i = 0; i < ps->n; i++) {
        cm_param *p = ps->p[i];
        if (p->group != CM_GROUP_VECTOR) continue;
        cm_rng r = cm_rng_make(7, CM_RNG_NOISE, (uint64_t)i);
        int64_t n = cm_tensor_count(&p->var.v);
        for (int64_t k = 0; k < n; k++)
            cm_rdata(&p->var.v)[k] += (cm_real)(0.2 * cm_rng_normal(r, (uint64_t)k));
    }
}

/* The first T ids of a mixed text, BOS in front. */
static bool make_tokens(const cm_spm *spm, int32_t *out, cm_err *err) {
    cm_buf text = {0};
    int32_t *id = NULL;
    int64_t n = 0, cap = 0;
    make_text(&text, 3, 100, false);
    bool ok = cm_spm_encode(spm, text.s, text.n, &id, &n, &cap, err);
    CM_ASSERT(!ok || n >= T, "text of only %lld tokens", (long long)n);
    out[0] = cm_spm_bos(spm);
    if (ok) memcpy(out + 1, id, (T - 1) * sizeof *out);
    free(id);
    cm_buf_free(&text);
    return ok;
}

static bool write_ids(const char *path, const int32_t *id, int n, cm_err *err) {
    cm_buf b = {0};
    for (int i = 0; i < n; i++) cm_buf_addf(&b, "%s%d", i ? "," : "", id[i]);
    cm_buf_addf(&b, "\n");
    bool ok = cm_write_file(path, b.s, b.n, err);
    cm_buf_free(&b);
    return ok;
}

/* Logits of all positions, then a greedy continuation of the first hundred ids. */
static bool run_model(const cm_loaded *l, const char *stem, cm_err *err) {
    int32_t token[T], greedy[GREEDY];
    int64_t V = l->model.conf.vocab_size;
    cm_real *all = malloc((size_t)(T * V) * sizeof *all), *last = all;
    float *out = malloc((size_t)(T * V) * sizeof *out);
    CM_ASSERT(all && out, "out of memory: logits");
    cm_session s;
    bool ok = make_tokens(l->spm, token, err) &&
              cm_session_open(&s, &l->model, 2 * T, err);
    ok = ok && cm_session_feed(&s, token, T, all, NULL, err);
    for (int64_t i = 0; ok && i < T * V; i++) out[i] = (float)all[i];
    if (ok) cm_session_reset(&s);
    ok = ok && cm_session_feed(&s, token, 100, NULL, last, err);
    for (int i = 0; ok && i < GREEDY; i++) {
        greedy[i] = cm_argmax(last, (int)V);
        ok = cm_session_feed(&s, &greedy[i], 1, NULL, last, err);
    }
    char *a = cm_strf("%s.logits", stem), *b = cm_strf("%s.tokens", stem);
    char *c = cm_strf("%s.greedy", stem);
    ok = ok && cm_write_file(a, out, (size_t)(T * V) * sizeof *out, err) &&
         write_ids(b, token, T, err) && write_ids(c, greedy, GREEDY, err);
    cm_session_close(&s);
    free(a);
    free(b);
    free(c);
    free(all);
    free(out);
    return ok;
}

static bool export_types(const cm_model *m, const cm_spm *spm, const char *stem,
                         cm_err *err) {
    cm_export x = {.model = m, .spm = spm, .name = "interop"};
    if (!cm_model_exportable(&m->conf, err)) return true; /* Hugging Face only */
    bool ok = true;
    for (x.mix = CM_TYPE_F32; ok && x.mix <= CM_TYPE_Q8_0; x.mix++) {
        char *path = cm_strf("%s.%s.gguf", stem, cm_mix_name(x.mix));
        ok = cm_export_gguf(&x, path, err);
        free(path);
    }
    return ok;
}

static bool make_model(const char *dir, const char *name, char **keys, int n,
                       cm_err *err) {
    cm_conf conf;
    cm_conf_open(&conf, "model");
    for (int i = 0; i < n; i++) {
        char *word = cm_strf("model.%s", keys[i]);
        cm_conf_set(&conf, word);
        free(word);
    }
    char *spm_path = cm_strf("%s/tokenizer.model", dir);
    char *stem = cm_strf("%s/%s", dir, name);
    cm_spm *spm = cm_spm_open(spm_path, err);
    cm_model_conf c = conf.model;
    cm_arena arena;
    if (spm) c.vocab_size = cm_spm_vocab(spm);
    bool ok = spm && cm_conf_check(&conf, err) && cm_model_resolve(&c, err) &&
              cm_arena_open(&arena, "model", (size_t)1 << 30, err);
    if (ok) {
        cm_model m;
        cm_loaded l;
        cm_model_build(&m, &c, &arena, false);
        cm_params_init(&m.params, 11);
        stir_vectors(&m.params);
        cm_export x = {.model = &m, .spm = spm, .mix = CM_TYPE_F32};
        ok = cm_export_hf(&x, stem, err) && export_types(&m, spm, stem, err) &&
             cm_load(&l, stem, false, err);
        if (ok) {
            ok = run_model(&l, stem, err);
            cm_loaded_close(&l);
        }
        cm_model_end(&m);
        cm_arena_close(&arena);
    }
    if (spm) cm_spm_close(spm);
    cm_conf_close(&conf);
    free(spm_path);
    free(stem);
    return ok;
}

/* NAME (made by `model`) in every type and mix: NAME.TYPE.gguf, and the logits of that very
 * file with its blocks as they are, NAME.TYPE.logits. */
static bool make_types(const char *dir, const char *name, cm_err *err) {
    char *from = cm_strf("%s/%s", dir, name);
    cm_loaded l, q;
    bool ok = cm_load(&l, from, 0, err);
    cm_export x = {.model = &l.model, .spm = l.spm, .name = "interop"};
    for (x.mix = CM_TYPE_Q8_0; ok && x.mix <= CM_TYPE_IQ4_XS; x.mix++) {
        char *stem = cm_strf("%s.%s", from, cm_mix_name(x.mix)), *path = cm_strf("%s.gguf", stem);
        ok = cm_export_gguf(&x, path, err) && cm_load(&q, path, CM_LOAD_BLOCKS, err);
        if (ok) {
            ok = run_model(&q, stem, err);
            cm_loaded_close(&q);
        }
        free(stem);
        free(path);
    }
    cm_loaded_close(&l);
    free(from);
    return ok;
}

/* Every B filled, so that all rows and experts show. */
static void stir_adapters(cm_params *ps) {
    cm_params_init(ps, 3);
    for (int i = 1; i < ps->n; i += 2) {
        cm_tensor *b = &ps->p[i]->var.v;
        cm_rng r = cm_rng_make(9, CM_RNG_NOISE, (uint64_t)i);
        for (int64_t k = 0; k < cm_tensor_count(b); k++)
            cm_rdata(b)[k] = (cm_real)(0.05 * cm_rng_normal(r, (uint64_t)k));
    }
}

static bool make_adapter(const char *dir, const char *name, const char *new, char **keys, int n,
                         cm_err *err) {
    cm_conf conf;
    cm_conf_open(&conf, "lora");
    for (int i = 0; i < n; i++) {
        char *word = cm_strf("lora.%s", keys[i]);
        cm_conf_set(&conf, word);
        free(word);
    }
    char *from = cm_strf("%s/%s", dir, name), *to = cm_strf("%s/%s", dir, new);
    cm_loaded l = {0}, merged;
    cm_arena arena;
    bool ok = cm_conf_check(&conf, err) && cm_load(&l, from, 0, err) &&
              cm_model_lora_fits(&l.model.conf, &conf.lora, err) &&
              cm_arena_open(&arena, "adapters", (size_t)1 << 28, err);
    if (ok) {
        cm_model *m = &l.model;
        m->lora = conf.lora;
        cm_params_begin(&m->adapter, &arena, false);
        cm_lora_attach(&m->params, &m->adapter, &m->lora);
        stir_adapters(&m->adapter);
        ok = cm_mkdirs(to, err) && cm_adapter_write(m, to, l.path, l.id, err) &&
             cm_load(&merged, to, 0, err);
        if (ok) {
            ok = run_model(&merged, to, err);
            cm_loaded_close(&merged);
        }
        cm_arena_close(&arena);
    }
    cm_loaded_close(&l);
    cm_conf_close(&conf);
    free(from);
    free(to);
    return ok;
}

int main(int argc, char **argv) {
    cm_err err = {0};
    bool ok;
    if (argc == 3 && !strcmp(argv[1], "tokenizer")) {
        ok = make_tokenizer(argv[2], &err); /* before any thread: training forks */
    } else if (argc >= 4 && !strcmp(argv[1], "model")) {
        ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) &&
             make_model(argv[2], argv[3], argv + 4, argc - 4, &err);
    } else if (argc >= 5 && !strcmp(argv[1], "lora")) {
        ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) &&
             make_adapter(argv[2], argv[3], argv[4], argv + 5, argc - 5, &err);
    } else if (argc == 4 && !strcmp(argv[1], "types")) {
        ok = cm_kern_init(CM_NUMERICS_STRICT, 2, &err) && make_types(argv[2], argv[3], &err);
    } else {
        ok = cm_fail(&err, CM_EXIT_USAGE, "mkmodel tokenizer DIR | mkmodel model DIR NAME "
                     "key=value... | mkmodel types DIR NAME | mkmodel lora DIR NAME NEW "
                     "key=value...");
    }
    if (!ok) fprintf(stderr, "mkmodel: %s\n", err.msg);
    return ok ? 0 : (int)err.code;
}
