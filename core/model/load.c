/* load.c -- a model from a folder or a GGUF file.
 *
 * Order matters with hostile files: read the description, check it against the limits of
 * the configuration and the bytes there are, only then reserve memory and read tensors,
 * each against the shape that the model wants.  Tensors without a place are refused. */
#include "model/adapter.h"
#include "model/lazy.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_TEXT = 16 << 20, MAX_SHARDS = 1024 };

/* ---- building --------------------------------------------------------------------- */

/* Every stored parameter takes at least a quarter of a byte (two-bit types). */
static bool plausible(const cm_model_conf *c, const char *path, uint64_t bytes,
                      cm_err *err) {
    int64_t n = cm_model_count(c, false);
    if ((uint64_t)n / 4 <= bytes) return true;
    return cm_fail(err, CM_EXIT_DATA, "%s: describes %lld parameters but holds %llu "
                                      "bytes",
                   path, (long long)n, (unsigned long long)bytes);
}

static char *keep(cm_arena *a, const char *s) {
    size_t n = strlen(s) + 1;
    return memcpy(cm_arena_alloc(a, n), s, n);
}

/* The model that tensors go into. */
static cm_model *target(cm_loaded *l) { return l->into ? l->into : &l->model; }

/* How weights are held. */
static const cm_lora_conf *held(unsigned flags) {
    static const cm_lora_conf narrow = { .base = CM_BASE_BF16 };
    return flags & CM_LOAD_BF16 ? &narrow : NULL;
}

static void construct(cm_model *m, const cm_model_conf *c, unsigned flags,
                      const cm_dtype *types, cm_arena *arena) {
    if (types) cm_model_build_held(m, c, types, arena);
    else cm_model_build_lora(m, c, held(flags), arena, flags & CM_LOAD_TRAINED);
}

/* What the parameters take; 0 where nobody wants them here. */
static bool measure(const cm_loaded *l, const cm_file_conf *f, unsigned flags,
                    const cm_dtype *types, size_t *bytes, cm_err *err) {
    cm_arena count;
    cm_model m;
    *bytes = 0;
    if (l->into || flags & CM_LOAD_SHAPE) return true;
    if (!cm_arena_open_counting(&count, "model size", err)) return false;
    construct(&m, &f->c, flags, types, &count);
    *bytes = count.peak;
    cm_model_end(&m);
    cm_arena_close(&count);
    return true;
}

/* Whether the parameters fit; lazily loaded they are asked for when they are read. */
static bool affordable(const cm_loaded *l, const char *path, unsigned flags, const cm_dtype *types,
                       size_t bytes, cm_err *err) {
    if (flags & CM_LOAD_LAZY) return true;
    char *what = cm_strf("%s: the model%s", path, types ? "" : " as floats");
    bool ok = cm_memory_fits((double)bytes, what,
                             types ? "a file of a smaller type takes less (quantize --type q4_k_m)"
                             : !strcmp(l->source, "gguf")
                                 ? "computed with as it is, the file takes its own size "
                                   "(generate.weights, eval.weights: blocks)"
                                 : "a GGUF file takes its own size (quantize --type q4_k_m)", err);
    free(what);
    return ok;
}

/* An arena of exactly the right size, with the model built on it.  types: how each parameter
 * is held, or NULL: as flags say. */
static bool build(cm_loaded *l, const cm_file_conf *f, unsigned flags, const cm_dtype *types,
                  const char *path, cm_err *err) {
    size_t bytes;
    if (!measure(l, f, flags, types, &bytes, err) || !affordable(l, path, flags, types, bytes, err))
        return false;
    bytes += cm_align_up(strlen(f->pattern) + 1) + cm_align_up(strlen(f->ffn) + 1);
    if (!cm_arena_open(&l->arena, "model", bytes, err)) return false;
    cm_model_conf c = f->c;
    c.pattern = keep(&l->arena, f->pattern);
    c.ffn = keep(&l->arena, f->ffn);
    if (l->into || flags & CM_LOAD_SHAPE) l->model.conf = c;
    else construct(&l->model, &c, flags, types, &l->arena);
    return true;
}

/* ---- hashing ----------------------------------------------------------------------- */

/* The SHA-256 of a file, taken beside the reading of its tensors: on a large model either
 * lasts seconds. */
typedef struct hasher {
    const char *path; /* NULL: nothing to do */
    pthread_t thread;
    bool apart, ok;   /* in a thread of its own; the file could be read */
    char hex[65];
    cm_err err;
} hasher;

static void *hash_run(void *arg) {
    hasher *h = arg;
    h->ok = cm_sha_file_once(h->path, h->hex, &h->err);
    return NULL;
}

static void hash_begin(hasher *h, const char *path) {
    *h = (hasher){.path = path, .ok = true};
    h->apart = path && !pthread_create(&h->thread, NULL, hash_run, h);
}

/* so_far: how reading went; its sentence comes first. */
static bool hash_end(hasher *h, char id[65], bool so_far, cm_err *err) {
    if (h->apart)
        pthread_join(h->thread, NULL);
    else if (h->path && so_far)
        hash_run(h);
    if (!so_far) return false;
    if (!h->ok) *err = h->err;
    memcpy(id, h->hex, sizeof h->hex);
    return h->ok;
}

/* ---- GGUF ------------------------------------------------------------------------- */

static bool read_gguf_tensors(cm_loaded *l, const cm_gguf *g, bool lazy, cm_err *err) {
    cm_source s = {.path = g->path, .look = lazy};
    cm_items items;
    cm_source_add(&s, g->tensor, g->n_tensor);
    cm_source_sort(&s);
    cm_gguf_items(target(l), &items);
    bool ok = true;
    for (int i = 0; ok && i < items.n; i++)
        ok = cm_gguf_read_item(&s, target(l), &items.v[i], err);
    ok = ok && cm_source_all_used(&s, err);
    if (ok && lazy) {
        cm_lazy_open(l, &s, &items);
        return true;
    }
    cm_items_free(&items);
    cm_source_free(&s);
    return ok;
}

/* The type of most weights in a file. */
static cm_dtype most_are(const cm_gguf *g) {
    int64_t n[CM_N_DTYPES] = {0}, best = 0;
    cm_dtype most = CM_F32_T;
    for (int i = 0; i < g->n_tensor; i++) {
        cm_dtype dt = g->tensor[i].t.dtype;
        n[dt] += cm_tensor_count(&g->tensor[i].t);
        if (n[dt] > best) best = n[dt], most = dt;
    }
    return most;
}

static bool read_gguf(cm_loaded *l, const cm_gguf *g, unsigned flags, cm_err *err) {
    cm_tokenizing t;
    cm_file_conf f;
    cm_dtype *types = NULL;
    if (!cm_gguf_conf(&f, g, err) || !plausible(&f.c, g->path, g->map.size, err) ||
        (flags & CM_LOAD_BLOCKS && !cm_gguf_types(g, &f.c, &types, err)))
        return false;
    l->stored = most_are(g);
    if (!build(l, &f, flags, types, g->path, err)) return free(types), false;
    free(types);
    cm_tokenizing_begin(&t, g, f.c.vocab_size, &l->spm);
    bool ok = flags & CM_LOAD_SHAPE || read_gguf_tensors(l, g, flags & CM_LOAD_LAZY, err);
    const cm_gguf_kv *chat = cm_gguf_find(g, "tokenizer.chat_template");
    if (chat && chat->type == CM_GGUF_STR)
        l->chat_template = cm_strf("%.*s", (int)(chat->v.s.n & INT32_MAX), chat->v.s.s);
    return cm_tokenizing_end(&t, ok, err);
}

static bool load_gguf(cm_loaded *l, const char *path, unsigned flags, cm_err *err) {
    cm_gguf g;
    hasher h;
    memcpy(l->source, "gguf", sizeof "gguf");
    if (!cm_gguf_open(&g, path, err)) return false;
    hash_begin(&h, flags & CM_LOAD_UNNAMED ? NULL : path);
    bool ok = read_gguf(l, &g, flags, err);
    if (l->lazy) {
        l->lazy->g = g;
        l->lazy->gguf = true;
    } else {
        cm_gguf_close(&g);
    }
    return hash_end(&h, l->id, ok, err);
}

/* ---- folders ---------------------------------------------------------------------- */

static bool open_shard(cm_shards *s, const char *dir, const char *name, cm_err *err) {
    for (int i = 0; i < s->n; i++) {
        const char *slash = strrchr(s->st[i].path, '/');
        if (!strcmp(slash ? slash + 1 : s->st[i].path, name)) return true;
    }
    if (s->n == MAX_SHARDS || strchr(name, '/'))
        return cm_fail(err, CM_EXIT_DATA, "%s: weights in '%.100s': %s", dir, name,
                       s->n == MAX_SHARDS ? "too many files"
                                          : "not a file of the folder");
    s->st = realloc(s->st, ((size_t)s->n + 1) * sizeof *s->st);
    CM_ASSERT(s->st, "out of memory: %d files", s->n);
    char *path = cm_strf("%s/%s", dir, name);
    bool ok = cm_st_open(&s->st[s->n], path, err);
    s->n += ok;
    free(path);
    return ok;
}

/* model.safetensors.index.json: {"weight_map": {tensor: file}}. */
static bool open_index(cm_shards *s, const char *dir, cm_err *err) {
    char *text;
    size_t n;
    if (!cm_read_file(s->weights, MAX_TEXT, &text, &n, err)) return false;
    cJSON *root = cJSON_Parse(text);
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map"), *v;
    bool ok = cJSON_IsObject(map) ||
              cm_fail(err, CM_EXIT_DATA, "%s: no weight_map", s->weights);
    cJSON_ArrayForEach(v, map) {
        if (!ok) break;
        ok = cJSON_IsString(v) ? open_shard(s, dir, v->valuestring, err)
                               : cm_fail(err, CM_EXIT_DATA, "%s: weight_map holds "
                                         "something that is not a file name", s->weights);
    }
    cJSON_Delete(root);
    free(text);
    return ok;
}

static bool open_shards(cm_shards *s, const char *dir, cm_err *err) {
    *s = (cm_shards){.weights = cm_strf("%s/model.safetensors", dir)};
    if (cm_exists(s->weights)) return open_shard(s, dir, "model.safetensors", err);
    char *index = cm_strf("%s.index.json", s->weights);
    if (!cm_exists(index)) {
        free(index);
        return cm_fail(err, CM_EXIT_DATA, "%s: no model.safetensors and no index of one",
                       dir);
    }
    free(s->weights);
    s->weights = index;
    return open_index(s, dir, err);
}

/* Tensors of some files that say nothing: frequencies that the configuration implies. */
static bool is_filler(const char *name, bool tied) {
    return strstr(name, "rotary_emb.inv_freq") ||
           (tied && !strcmp(name, "lm_head.weight"));
}

static bool read_shards(cm_loaded *l, const cm_file_conf *f, const cm_shards *sh,
                        const char *dir, unsigned flags, cm_err *err) {
    bool lazy = flags & CM_LOAD_LAZY;
    cm_source s = {.path = dir, .look = lazy};
    cm_items items = {0};
    for (int i = 0; i < sh->n; i++) cm_source_add(&s, sh->st[i].entry, sh->st[i].n);
    cm_source_sort(&s);
    bool ok = plausible(&f->c, dir, s.bytes, err) && build(l, f, flags, NULL, dir, err);
    bool read = ok && !(flags & CM_LOAD_SHAPE);
    if (read) cm_hf_items(target(l), &items);
    for (int i = 0; ok && i < items.n; i++) ok = cm_hf_read_item(&s, &items.v[i], err);
    for (int i = 0; ok && i < s.n; i++)
        if (is_filler(s.e[i]->name, f->c.tied) || cm_tensor_count(&s.e[i]->t) == 0)
            s.used[i] = true;
    ok = ok && (!read || cm_source_all_used(&s, err));
    if (ok && lazy) {
        cm_lazy_open(l, &s, &items);
        return true;
    }
    cm_items_free(&items);
    cm_source_free(&s);
    return ok;
}

/* The template of chat_template.jinja, or of tokenizer_config.json. */
static char *read_template(const char *dir) {
    char *path = cm_strf("%s/chat_template.jinja", dir), *text = NULL, *out = NULL;
    size_t n;
    if (cm_exists(path) && cm_read_file(path, MAX_TEXT, &text, &n, NULL)) {
        free(path);
        return text;
    }
    free(path);
    path = cm_strf("%s/tokenizer_config.json", dir);
    if (cm_exists(path) && cm_read_file(path, MAX_TEXT, &text, &n, NULL)) {
        cJSON *root = cJSON_Parse(text);
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(root, "chat_template");
        if (cJSON_IsString(v)) out = cm_strf("%s", v->valuestring);
        cJSON_Delete(root);
        free(text);
    }
    free(path);
    return out;
}

static bool read_tokenizer(cm_loaded *l, const char *dir, cm_err *err) {
    char *path = cm_strf("%s/tokenizer.model", dir);
    bool ok = true;
    if (cm_exists(path)) {
        l->spm = cm_spm_open(path, err);
        ok = l->spm != NULL;
        if (ok && cm_spm_vocab(l->spm) > l->model.conf.vocab_size)
            ok = cm_fail(err, CM_EXIT_DATA, "%s: %d pieces, but the model has %lld "
                                            "tokens",
                         path, cm_spm_vocab(l->spm), (long long)l->model.conf.vocab_size);
    } else {
        cm_log(CM_LOG_WARN, "%s: no tokenizer.model: text cannot be read or written",
               dir);
    }
    free(path);
    l->chat_template = read_template(dir);
    return ok;
}

/* Compare a file with its line in the checkpoint's SHA256SUMS, when there is one.  hex: the
 * file's own sum where it is known already, else NULL. */
static bool check_sum(const char *dir, const char *sums, const char *name, const char *hex,
                      cm_err *err) {
    char *line = cm_strf("  %s\n", name), *path = cm_strf("%s/%s", dir, name), own[65];
    const char *at = strstr(sums, line);
    bool ok = true;
    if (at && at - sums >= 64 && cm_exists(path)) {
        ok = hex || cm_sha_file(path, own, err);
        if (ok && strncmp(at - 64, hex ? hex : own, 64))
            ok = cm_fail(err, CM_EXIT_DATA, "%s: damaged: its SHA-256 is %.12s..., SHA256SUMS "
                         "says %.12s...", path, hex ? hex : own, at - 64);
    }
    free(line);
    free(path);
    return ok;
}

/* What a checkpoint's SHA256SUMS must say; *sums is NULL where there is none. */
static bool read_sums(const char *dir, char **sums, cm_err *err) {
    char *path = cm_strf("%s/SHA256SUMS", dir);
    size_t n;
    *sums = NULL;
    bool ok = !cm_exists(path) || cm_read_file(path, MAX_TEXT, sums, &n, err);
    free(path);
    return ok;
}

static bool check_sums(const cm_loaded *l, const char *dir, const char *sums, cm_err *err) {
    return check_sum(dir, sums, "config.json", NULL, err) &&
           check_sum(dir, sums, "tokenizer.model", NULL, err) &&
           check_sum(dir, sums, "model.safetensors", l->id, err);
}

static bool read_folder(cm_loaded *l, const char *dir, const cm_file_conf *f,
                        const cm_shards *sh, unsigned flags, cm_err *err) {
    hasher h;
    char *sums;
    if (!read_sums(dir, &sums, err)) return false;
    hash_begin(&h, sums || !(flags & CM_LOAD_UNNAMED) ? sh->weights : NULL);
    bool ok = read_shards(l, f, sh, dir, flags, err) &&
              read_tokenizer(l, dir, err);
    ok = hash_end(&h, l->id, ok, err) && (!sums || check_sums(l, dir, sums, err));
    free(sums);
    return ok;
}

static bool load_folder(cm_loaded *l, const char *dir, unsigned flags, cm_err *err) {
    char *config = cm_strf("%s/config.json", dir), *state = cm_strf("%s/state.json", dir);
    snprintf(l->source, sizeof l->source, "%s",
             cm_exists(state) ? "checkpoint" : "huggingface");
    cm_file_conf f;
    cm_shards sh = {0};
    bool ok = cm_hf_conf(&f, config, err) && open_shards(&sh, dir, err) &&
              read_folder(l, dir, &f, &sh, flags, err);
    if (l->lazy) l->lazy->sh = sh;
    else cm_shards_close(&sh);
    free(config);
    free(state);
    return ok;
}

/* ---- adapters --------------------------------------------------------------------- */

enum { MAX_CHAIN = 8 }; /* adapters on adapters */

static bool has_file(const char *dir, const char *name) {
    char *path = cm_strf("%s/%s", dir, name);
    bool there = cm_exists(path);
    free(path);
    return there;
}

static bool is_adapter(const char *dir) {
    return has_file(dir, CM_ADAPTER_CONFIG) && !has_file(dir, "model.safetensors") &&
           !has_file(dir, "model.safetensors.index.json");
}

/* What the merged weights are called: both files make them. */
static void name_merged(cm_loaded *l, const char *file) {
    char *both = cm_strf("%s\n%s\n", l->id, file);
    cm_sha_bytes(both, strlen(both), l->id);
    free(both);
}

/* file[65] gets the sum of the adapter's tensors. */
static bool adapter_sums(const char *dir, char *file, cm_err *err) {
    char *sums, *path = cm_strf("%s/" CM_ADAPTER_WEIGHTS, dir);
    bool ok = cm_sha_file_once(path, file, err) && read_sums(dir, &sums, err);
    free(path);
    if (!ok) return false;
    ok = !sums || (check_sum(dir, sums, CM_ADAPTER_WEIGHTS, file, err) &&
                        check_sum(dir, sums, CM_ADAPTER_CONFIG, NULL, err));
    free(sums);
    return ok;
}

/* The tokenizer beside the adapter, where there is one, replaces the base's. */
static bool adapter_tokenizer(cm_loaded *l, const char *dir, cm_err *err) {
    if (!has_file(dir, "tokenizer.model")) return true;
    if (l->spm) cm_spm_close(l->spm);
    l->spm = NULL;
    free(l->chat_template);
    l->chat_template = NULL;
    return read_tokenizer(l, dir, err);
}

static bool attach(cm_loaded *l, cm_adapter *a, cm_err *err) {
    return cm_arena_open(&l->extra, "adapter", cm_adapter_bytes(a, &l->model), err) &&
           cm_adapter_attach(a, &l->model, &l->extra, err);
}

static bool read_adapter(cm_loaded *l, cm_adapter *a, unsigned flags, cm_err *err) {
    char file[65], *base = NULL;
    if (!adapter_sums(a->dir, file, err) || !(base = cm_adapter_base(a, err))) return false;
    unsigned whole = flags & ~(unsigned)(CM_LOAD_UNNAMED | CM_LOAD_APART | CM_LOAD_LAZY |
                               CM_LOAD_BLOCKS);
    bool ok = cm_load_any(l, base, whole, err) &&
              cm_adapter_suits(a, base, l->id, err);
    free(base);
    free(l->base);
    l->base = ok ? cm_strf("%s", l->path) : NULL;
    if (ok && !(flags & CM_LOAD_SHAPE))
        ok = flags & CM_LOAD_APART ? attach(l, a, err)
                                   : cm_adapter_merge(a, target(l), err);
    if (ok) name_merged(l, file);
    return ok && adapter_tokenizer(l, a->dir, err);
}

static bool load_adapter(cm_loaded *l, const char *dir, unsigned flags, cm_err *err) {
    cm_adapter a;
    if (++l->chain > MAX_CHAIN)
        return cm_fail(err, CM_EXIT_DATA, "%s: more than %d adapters on one another", dir,
                       MAX_CHAIN);
    if (!cm_adapter_open(&a, dir, err)) return false;
    bool ok = read_adapter(l, &a, flags, err);
    cm_adapter_close(&a);
    snprintf(l->source, sizeof l->source, "%s",
             has_file(dir, "state.json") ? "checkpoint" : "adapter");
    return ok;
}

bool cm_adapter_read(cm_model *m, const char *dir, const char *base, const char *base_id,
                     cm_err *err) {
    cm_adapter a;
    if (!cm_adapter_open(&a, dir, err)) return false;
    bool ok = cm_adapter_suits(&a, base, base_id, err) && cm_adapter_fill(&a, m, err);
    cm_adapter_close(&a);
    return ok;
}

/* ---- any path --------------------------------------------------------------------- */

/* The folder with a config.json, or an adapter's. */
char *cm_model_folder(const char *path) {
    static const char *const inside[] = {"", "/latest", "/ckpt/latest"};
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        char *dir = cm_strf("%s%s", path, inside[i]);
        if (has_file(dir, "config.json") || has_file(dir, CM_ADAPTER_CONFIG)) return dir;
        free(dir);
    }
    return NULL;
}

bool cm_load_any(cm_loaded *l, const char *path, unsigned flags, cm_err *err) {
    struct stat st;
    if (!cm_need_input(path, err)) return false;
    bool ok;
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
        char *dir = cm_model_folder(path);
        ok = dir ? (is_adapter(dir) ? load_adapter : load_folder)(l, dir, flags, err)
                 : cm_fail(err, CM_EXIT_DATA,
                           "%s: no config.json there, nor in its latest "
                           "checkpoint: not a model", path);
        free(l->path);
        l->path = dir ? realpath(dir, NULL) : NULL;
        free(dir);
    } else {
        ok = load_gguf(l, path, flags, err);
        l->path = realpath(path, NULL);
    }
    if (!ok) cm_loaded_close(l);
    return ok;
}

bool cm_load(cm_loaded *l, const char *path, unsigned flags, cm_err *err) {
    *l = (cm_loaded){0};
    return cm_load_any(l, path, flags, err);
}

bool cm_load_into(cm_model *m, const char *path, char id[65], cm_err *err) {
    cm_loaded l = {.into = m};
    if (!cm_load_any(&l, path, id ? 0 : CM_LOAD_UNNAMED, err)) return false;
    if (id) memcpy(id, l.id, sizeof l.id);
    cm_loaded_close(&l);
    return true;
}

bool cm_is_gguf(const char *path) {
    char head[4] = "";
    FILE *f = fopen(path, "re");
    bool yes = f && fread(head, 1, 4, f) == 4 && !memcmp(head, "GGUF", 4);
    if (f) fclose(f);
    return yes;
}

static cm_spm *gguf_tokenizer(const char *path, cm_err *err) {
    cm_loaded l;
    if (!cm_load(&l, path, CM_LOAD_SHAPE | CM_LOAD_UNNAMED, err)) return NULL;
    cm_spm *spm = l.spm;
    l.spm = NULL;
    cm_loaded_close(&l);
    if (!spm) cm_fail(err, CM_EXIT_DATA, "%s: has no SentencePiece tokenizer", path);
    return spm;
}

cm_spm *cm_load_tokenizer(const char *path, cm_err *err) {
    char *file = cm_spm_place(path);
    cm_spm *spm = NULL;
    if (cm_need_input(file, err))
        spm = (cm_is_gguf(file) ? gguf_tokenizer : cm_spm_open)(file, err);
    free(file);
    return spm;
}

void cm_loaded_close(cm_loaded *l) {
    cm_lazy_close(l->lazy);
    cm_model_end(&l->model);
    if (l->arena.base) cm_arena_close(&l->arena);
    if (l->extra.base) cm_arena_close(&l->extra);
    if (l->spm) cm_spm_close(l->spm);
    free(l->chat_template);
    free(l->path);
    free(l->base);
    *l = (cm_loaded){0};
}
