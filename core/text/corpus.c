/* corpus.c -- the order of tokenization: inputs, recipe, vocabulary, shards, manifest.
 *
 * The folder's life: recipe.json says what is being made, then tokenizer.model, then the
 * shards appear whole, one by one, and manifest.json comes last.  Each of them is either
 * absent or complete, so a killed run is continued by looking at what is there. */
#include "text/corpus_int.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct inputs {
    char **name, **path; /* as the user wrote them; where they are read */
    int n, n_val;
    uint64_t bytes;
} inputs;

typedef struct work {
    const cm_corpus_conf *c;
    const cm_tokenize_conf *t;
    inputs in;
    cm_shard_kind kind;
    int dir; /* locked while the work goes on */
    bool fresh; /* the folder held nothing of ours */
    size_t had; /* length of the part of t->out that was there already */
    cm_spm *spm;
    char *model, *stdin_copy, *sample;
} work;

/* ---- inputs ---- */

static bool find_inputs(const cm_tokenize_conf *t, inputs *in, cm_err *err) {
    char **train = NULL, **val = NULL;
    int n = 0, n_val = 0;
    if (!t->inputs.n)
        return cm_fail(err, CM_EXIT_USAGE, "tokenize.inputs: nothing to read; give at "
                       "least one file");
    if (!cm_paths_expand(t->val_inputs.v, t->val_inputs.n, &val, &n_val, err) ||
        !cm_paths_expand(t->inputs.v, t->inputs.n, &train, &n, err)) {
        cm_paths_free(val, n_val);
        return false;
    }
    in->n_val = n_val;
    in->n = n + n_val;
    in->name = calloc((size_t)in->n + 1, sizeof *in->name);
    in->path = calloc((size_t)in->n + 1, sizeof *in->path);
    CM_ASSERT(in->name && in->path, "out of memory");
    int dashes = 0;
    bool readable = true;
    for (int i = 0; i < in->n; i++) {
        in->name[i] = i < n_val ? val[i] : train[i - n_val];
        in->path[i] = cm_strf("%s", in->name[i]);
        struct stat st;
        dashes += !strcmp(in->name[i], "-");
        if (!strcmp(in->name[i], "-")) continue;
        readable = readable && cm_need_input_file(in->path[i], err);
        if (!stat(in->path[i], &st)) in->bytes += (uint64_t)st.st_size;
    }
    free(train); /* the strings live on in name */
    free(val);
    return readable && (dashes < 2 || cm_fail(err, CM_EXIT_USAGE,
                                              "stdin (-) is among the inputs twice"));
}

static void free_inputs(inputs *in) {
    cm_paths_free(in->name, in->n);
    cm_paths_free(in->path, in->n);
}

/* Stdin is read twice (vocabulary, shards), so it becomes a file first. */
static bool copy_stdin(work *w, cm_err *err) {
    for (int i = 0; i < w->in.n; i++) {
        if (strcmp(w->in.name[i], "-")) continue;
        cm_src *s = cm_src_open("-", err);
        cm_out out;
        if (!s || !cm_out_open(&out, w->stdin_copy, err)) {
            cm_src_close(s);
            return false;
        }
        static char part[1 << 16];
        size_t n = 1;
        bool ok = true;
        while (ok && n)
            ok = cm_src_read(s, part, sizeof part, &n, err) &&
                 cm_out_write(&out, part, n, err);
        cm_src_close(s);
        w->in.bytes += out.pos;
        if (!ok) cm_out_abort(&out);
        if (!ok || !cm_out_commit(&out, err)) return false;
        free(w->in.path[i]);
        w->in.path[i] = cm_strf("%s", w->stdin_copy);
    }
    return true;
}

/* ---- kind ---- */

static bool piped(const inputs *in) {
    for (int i = 0; i < in->n; i++)
        if (!strcmp(in->name[i], "-")) return true;
    return false;
}

/* What the data is: as told, or as its first JSON value says. */
static bool find_kind(work *w, cm_err *err) {
    static const cm_shard_kind kind[] = { CM_SHARD_LM, CM_SHARD_LM, CM_SHARD_SFT,
                                          CM_SHARD_DPO };
    const cm_tokenize_conf *t = w->t;
    w->kind = kind[t->kind];
    if (t->kind == CM_KIND_AUTO && t->format != CM_FORMAT_TXT) {
        cm_docs d;
        cm_docs_open(&d, t, w->in.path, w->in.name, w->in.n, w->in.n_val, NULL);
        bool ok = cm_docs_probe(&d, &w->kind, err);
        cm_docs_close(&d);
        if (!ok) return false;
    }
    if (!cm_shard_masked(w->kind)) return true;
    if (t->format == CM_FORMAT_TXT)
        return cm_fail(err, CM_EXIT_USAGE, "tokenize.format=txt: conversations and "
                       "preferences are read from JSON");
    return t->tokenizer[0] ||
           cm_fail(err, CM_EXIT_USAGE, "tokenize.tokenizer: %s data wants the base model's "
                   "tokenizer: its tokenizer.model, or the model (run, checkpoint, GGUF file)",
                   w->kind == CM_SHARD_SFT ? "chat" : "preference");
}

/* ---- recipe ---- */

static void put_string(cm_buf *b, const char *s) {
    cm_buf_addf(b, "\"");
    for (; *s; s++) {
        unsigned char ch = (unsigned char)*s;
        if (ch == '"' || ch == '\\') cm_buf_addf(b, "\\%c", ch);
        else if (ch < 0x20) cm_buf_addf(b, "\\u%04x", ch);
        else cm_buf_add(b, s, 1);
    }
    cm_buf_addf(b, "\"");
}

/* Everything that decides which tokens come out of a given document and which documents
 * are kept; its hash is the pipeline's. */
static void put_talk_recipe(const work *w, cm_buf *b) {
    const cm_tokenize_conf *t = w->t;
    cm_buf_addf(b, "\"recipe\": {\"kind\": \"%s\", \"template\": \"%s\",\n    "
                "\"max_tokens\": %" PRId64 ", \"overlong\": \"%s\", \"dedup\": %s, "
                "\"val_frac\": %.17g,\n    \"min_bytes\": %" PRId64 ", \"max_doc\": %"
                PRId64 ", \"shard_tokens\": %" PRId64 ", \"level\": %" PRId64 "}",
                w->kind == CM_SHARD_SFT ? "chat" : "preference", CM_CHAT_TEMPLATE,
                t->max_tokens, t->overlong == CM_OVERLONG_DROP ? "drop" : "truncate",
                t->dedup ? "true" : "false", t->val_frac, t->min_bytes, t->max_doc,
                t->shard_tokens, t->level);
}

static void put_recipe(const work *w, cm_buf *b) {
    const cm_tokenize_conf *t = w->t;
    if (cm_shard_masked(w->kind)) {
        put_talk_recipe(w, b);
        return;
    }
    static const char *const split[] = { "marker", "file", "line", "blank" };
    static const char *const format[] = { "auto", "txt", "jsonl" };
    cm_buf_addf(b, "\"recipe\": {\"format\": \"%s\", \"field\": ", format[t->format]);
    put_string(b, t->field);
    cm_buf_addf(b, ", \"split\": \"%s\", \"marker\": ", split[t->split]);
    put_string(b, t->marker);
    cm_buf_addf(b, ",\n    \"dedup\": %s, \"val_frac\": %.17g, \"min_bytes\": %" PRId64
                ", \"max_doc\": %" PRId64 ", \"add_bos\": %s, \"add_eos\": %s,\n    "
                "\"shard_tokens\": %" PRId64 ", \"level\": %" PRId64 "}",
                t->dedup ? "true" : "false", t->val_frac, t->min_bytes, t->max_doc,
                t->add_bos ? "true" : "false", t->add_eos ? "true" : "false",
                t->shard_tokens, t->level);
}

/* recipe.json: what the folder is being filled with. */
static void put_job(const work *w, cm_buf *b) {
    const cm_tokenize_conf *t = w->t;
    cm_buf_addf(b, "{\n  ");
    put_recipe(w, b);
    cm_buf_addf(b, ",\n  \"tokenizer\": ");
    put_string(b, t->tokenizer);
    if (!t->tokenizer[0])
        cm_buf_addf(b, ", \"vocab_size\": %" PRId64 ", \"sample_bytes\": %" PRId64
                    ", \"seed\": %" PRIu64, t->vocab_size, t->sample_bytes, w->c->seed);
    cm_buf_addf(b, ",\n  \"inputs\": [");
    for (int i = 0; i < w->in.n; i++) {
        struct stat st = { 0 };
        if (stat(w->in.path[i], &st)) st.st_size = -1;
        cm_buf_addf(b, "%s\n    {\"split\": \"%s\", \"size\": %lld, \"path\": ",
                    i ? "," : "", i < w->in.n_val ? "val" : "any", (long long)st.st_size);
        put_string(b, w->in.name[i]);
        cm_buf_addf(b, "}");
    }
    cm_buf_addf(b, "\n  ]\n}\n");
}

/* Where another recipe got as far as a tokenizer, the folder is not ours to continue. */
static bool claim_folder(const work *w, cm_err *err) {
    cm_buf b = { 0 };
    put_job(w, &b);
    char *path = cm_strf("%s/recipe.json", w->t->out), *old = NULL;
    size_t n;
    bool ok;
    if (!cm_exists(w->model))
        ok = cm_write_file(path, b.s, b.n, err);
    else if ((ok = cm_read_file(path, (size_t)1 << 30, &old, &n, err)) &&
             (n != b.n || memcmp(old, b.s, n)))
        ok = cm_fail(err, CM_EXIT_USAGE, "%s: the folder was begun with another "
                     "configuration or other inputs; choose another tokenize.out, "
                     "or --if-done=redo", path);
    free(old);
    free(path);
    cm_buf_free(&b);
    return ok;
}

/* Names of the members of two objects that differ or that one of them lacks. */
static void compare_members(const cJSON *a, const cJSON *b, const char *prefix,
                            cm_buf *keys) {
    for (int side = 0; side < 2; side++) {
        const cJSON *of = side ? b : a, *other = side ? a : b, *m;
        cJSON_ArrayForEach(m, of) {
            const cJSON *o = cJSON_GetObjectItemCaseSensitive(other, m->string);
            if (!strcmp(m->string, "recipe") || (o && (side || cJSON_Compare(m, o, true))))
                continue;
            bool key = strcmp(m->string, "inputs") && strcmp(m->string, "seed");
            cm_buf_addf(keys, "%s%s%s", keys->n ? ", " : "", key ? prefix : "", m->string);
        }
    }
}

/* The kind that a finished recipe is for: plain text's does not say. */
static cm_shard_kind recipe_kind(const cJSON *root) {
    const cJSON *recipe = cJSON_GetObjectItemCaseSensitive(root, "recipe");
    const cJSON *kind = cJSON_GetObjectItemCaseSensitive(recipe, "kind");
    if (!cJSON_IsString(kind)) return CM_SHARD_LM;
    return strcmp(kind->valuestring, "chat") ? CM_SHARD_DPO : CM_SHARD_SFT;
}

bool cm_corpus_changes(const cm_corpus_conf *c, cm_buf *keys, cm_err *err) {
    work w = { .c = c, .t = c->t, .dir = -1 };
    char *path = cm_strf("%s/recipe.json", c->t->out), *text = NULL;
    size_t n;
    bool ok = cm_read_file(path, (size_t)1 << 30, &text, &n, err) &&
              find_inputs(c->t, &w.in, err);
    bool from_stdin = ok && piped(&w.in);
    if (ok && !(from_stdin && c->t->kind == CM_KIND_AUTO)) ok = find_kind(&w, err);
    if (ok) {
        cm_buf b = { 0 };
        cJSON *old = cJSON_Parse(text);
        if (from_stdin && c->t->kind == CM_KIND_AUTO) w.kind = recipe_kind(old);
        put_job(&w, &b);
        cJSON *now = cJSON_Parse(b.s);
        for (int i = 0; from_stdin && i < 2; i++)
            cJSON_DeleteItemFromObjectCaseSensitive(i ? old : now, "inputs");
        compare_members(old, now, "tokenize.", keys);
        compare_members(cJSON_GetObjectItemCaseSensitive(old, "recipe"),
                        cJSON_GetObjectItemCaseSensitive(now, "recipe"), "tokenize.", keys);
        cJSON_Delete(old);
        cJSON_Delete(now);
        cm_buf_free(&b);
    }
    free_inputs(&w.in);
    free(text);
    free(path);
    return ok;
}

static bool lock_folder(work *w, cm_err *err) {
    if (!w->t->out[0])
        return cm_fail(err, CM_EXIT_USAGE, "tokenize.out: no folder given");
    w->had = cm_folder_existing(w->t->out);
    if (!cm_mkdirs(w->t->out, err)) return false;
    w->dir = cm_folder_lock(w->t->out, err);
    w->fresh = w->dir >= 0 && !cm_folder_any(w->t->out);
    if (w->dir < 0 || !cm_folder_sweep(w->t->out, true, err)) return false;
    char *done = cm_strf("%s/manifest.json", w->t->out);
    bool ok = !cm_exists(done);
    free(done);
    return ok || cm_fail(err, CM_EXIT_USAGE, "%s: holds a finished data set; choose another "
                         "tokenize.out, or --if-done=redo or skip", w->t->out);
}

/* ---- tokenizer ---- */

/* Loads, and has what the kind of data needs. */
static cm_spm *open_tokenizer(const work *w, cm_err *err) {
    char *path = cm_spm_place(w->t->tokenizer);
    cm_spm *spm = cm_need_input(path, err) ? (w->c->open ? w->c->open : cm_spm_open)(path, err)
                                           : NULL;
    cm_chat chat;
    cm_err why;
    if (spm && cm_shard_masked(w->kind) && !cm_chat_open(&chat, spm, &why)) {
        cm_fail(err, CM_EXIT_USAGE, "%s: %s", path, why.msg);
        cm_spm_close(spm);
        spm = NULL;
    }
    free(path);
    return spm;
}

static bool copy_tokenizer(const work *w, cm_err *err) {
    cm_spm *spm = open_tokenizer(w, err);
    size_t n;
    if (!spm) return false;
    const void *proto = cm_spm_proto(spm, &n);
    bool ok = cm_write_file(w->model, proto, n, err);
    cm_spm_close(spm);
    return ok;
}

static bool no_text(const work *w, const cm_docs *d, cm_err *err) {
    uint64_t rejected = 0;
    for (int i = 0; i < d->n_path; i++) rejected += d->tally[i].rejected;
    return cm_fail(err, CM_EXIT_USAGE, "the corpus is empty: %d file(s), no document "
                   "(first file: %s; %" PRIu64 " rejected)", w->in.n, w->in.name[0],
                   rejected);
}

/* Which side a document falls on depends on its text alone, so a small corpus can lose all
 * of it to validation. */
static bool all_held_out(const work *w, uint64_t docs, cm_err *err) {
    return cm_fail(err, CM_EXIT_USAGE, "all %" PRIu64 " document(s) are held out for "
                   "validation (tokenize.val_frac = %g, %d validation input(s)): no text is "
                   "left to train a vocabulary on; set tokenize.val_frac=0, give more "
                   "documents, or cut the text into more (tokenize.split)", docs,
                   w->t->val_frac, w->in.n_val);
}

static bool train_tokenizer(const work *w, cm_err *err) {
    static const char *const control[] = { CM_CHAT_MARKERS };
    cm_corpus_progress p = { .stage = "vocabulary" };
    if (w->c->progress) w->c->progress(w->c->ctx, &p);
    cm_docs d;
    cm_docs_open(&d, w->t, w->in.path, w->in.name, w->in.n, w->in.n_val, NULL);
    bool ok = cm_sample_lines(&d, w->c->seed, (uint64_t)w->t->sample_bytes, w->sample, err);
    uint64_t docs[2] = { 0 };
    for (int i = 0; i < d.n_path; i++)
        for (int sp = 0; sp < 2; sp++) docs[sp] += d.tally[i].docs[sp];
    if (ok && !docs[0] && !docs[1]) ok = no_text(w, &d, err);
    else if (ok && !docs[0]) ok = all_held_out(w, docs[1], err);
    cm_docs_close(&d);
    cm_spm_train_conf c = { w->sample, (int)w->t->vocab_size, control,
                            sizeof control / sizeof *control, w->c->threads };
    cm_buf proto = { 0 };
    ok = ok && cm_spm_train(&c, &proto, err) &&
         cm_write_file(w->model, proto.s, proto.n, err);
    cm_buf_free(&proto);
    unlink(w->sample);
    return ok;
}

static bool get_tokenizer(work *w, cm_err *err) {
    if (!cm_exists(w->model) &&
        !(w->t->tokenizer[0] ? copy_tokenizer(w, err) : train_tokenizer(w, err)))
        return false;
    w->spm = cm_spm_open(w->model, err);
    if (!w->spm) return false;
    if (cm_shard_masked(w->kind)) return true;
    if ((w->t->add_bos && cm_spm_bos(w->spm) < 0) ||
        (w->t->add_eos && cm_spm_eos(w->spm) < 0))
        return cm_fail(err, CM_EXIT_USAGE, "%s: has no begin-of-text or end-of-text token; "
                       "set tokenize.add_bos or tokenize.add_eos to false", w->model);
    return true;
}

/* ---- shards and manifest ---- */

static cm_shard_conf shard_conf(const work *w) {
    bool talk = cm_shard_masked(w->kind);
    cm_shard_conf c = {
        .kind = w->kind,
        .vocab = cm_spm_vocab(w->spm),
        .bos = cm_spm_bos(w->spm), .eos = cm_spm_eos(w->spm), .pad = cm_spm_pad(w->spm),
        .flags = talk ? (cm_spm_bos(w->spm) >= 0 ? CM_SHARD_BOS : 0u)
                      : (w->t->add_bos ? CM_SHARD_BOS : 0u) |
                        (w->t->add_eos ? CM_SHARD_EOS : 0u),
        .frame_tokens = 65536,
        .level = (int)w->t->level,
    };
    cm_buf b = { 0 };
    put_recipe(w, &b);
    cm_sha_bytes(b.s, b.n, c.pipeline);
    cm_buf_free(&b);
    memcpy(c.tokenizer, cm_spm_hash(w->spm), sizeof c.tokenizer);
    return c;
}

/* The shards that an interrupted run finished; a damaged one and all behind it go. */
static bool find_finished(cm_corpus_job *j, cm_split sp, cm_err *err) {
    const char *dir = j->conf->t->out;
    for (int i = 0;; i++) {
        char *path = cm_strf("%s/%s-%05d.tok.zst", dir, cm_split_name(sp), i);
        bool there = cm_exists(path), good = false;
        cm_shard_info info;
        if (there && i == j->n_done[sp]) {
            good = cm_shard_check(&j->shard, sp, i, dir, &info, err);
            if (!good) cm_log(CM_LOG_WARN, "%s; making it again", err->msg);
        }
        if (there && !good && unlink(path))
            good = cm_fail_errno(err, CM_EXIT_FAIL, "%s: cannot remove", path);
        free(path);
        if (!there) return true;
        if (!good) continue;
        j->info[sp] = realloc(j->info[sp], (size_t)(i + 1) * sizeof *j->info[sp]);
        CM_ASSERT(j->info[sp], "out of memory");
        j->info[sp][i] = info;
        j->n_info[sp] = ++j->n_done[sp];
    }
}

/* What became of the lines of all inputs. */
static cm_tally sum(const work *w, const cm_docs *d) {
    cm_tally all = { 0 };
    for (int i = 0; i < w->in.n; i++) {
        const cm_tally *t = &d->tally[i];
        all.docs[1] += t->docs[1];
        all.rejected += t->rejected;
        all.spaced += t->spaced;
        all.truncated += t->truncated;
        for (int r = 0; r < CM_N_REJECTS; r++) all.reason[r] += t->reason[r];
    }
    return all;
}

/* "bad-json": 3, "empty-answer": 1 */
static void put_reasons(const cm_tally *all, const char *quote, cm_buf *b) {
    const char *comma = "";
    for (int r = 0; r < CM_N_REJECTS; r++) {
        if (!all->reason[r]) continue;
        cm_buf_addf(b, "%s%s%s%s: %" PRIu64, comma, quote, cm_reject_name((cm_reject)r),
                    quote, all->reason[r]);
        comma = ", ";
    }
}

static void put_sources(const work *w, const cm_docs *d, cm_buf *b) {
    put_recipe(w, b);
    if (cm_shard_masked(w->kind)) {
        cm_tally all = sum(w, d);
        cm_buf_addf(b, ",\n  \"truncated\": %" PRIu64 ", \"rejected\": {", all.truncated);
        put_reasons(&all, "\"", b);
        cm_buf_addf(b, "}");
    }
    cm_buf_addf(b, ",\n  \"sources\": [");
    for (int i = 0; i < w->in.n; i++) {
        const cm_tally *t = &d->tally[i];
        cm_buf_addf(b, "%s\n    {\"path\": ", i ? "," : "");
        put_string(b, w->in.name[i]);
        cm_buf_addf(b, ", \"docs\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"val_docs\": %"
                    PRIu64 ",\n     \"empty\": %" PRIu64 ", \"too_small\": %" PRIu64
                    ", \"duplicate\": %" PRIu64 ", \"rejected\": %" PRIu64 "}",
                    t->docs[0] + t->docs[1], t->bytes[0] + t->bytes[1], t->docs[1],
                    t->empty, t->small, t->duplicate, t->rejected);
    }
    cm_buf_addf(b, "]");
}

static void warn(const work *w, const cm_docs *d) {
    cm_tally all = sum(w, d);
    cm_buf why = { 0 };
    put_reasons(&all, "", &why);
    if (all.rejected)
        cm_log(CM_LOG_WARN, "%" PRIu64 " document(s) rejected; see %s/rejected.jsonl (%s)",
               all.rejected, w->t->out, why.s);
    cm_buf_free(&why);
    if (all.truncated)
        cm_log(CM_LOG_WARN, "%" PRIu64 " conversation(s) above tokenize.max_tokens lost "
               "exchanges; see %s/rejected.jsonl", all.truncated, w->t->out);
    if (all.spaced)
        cm_log(CM_LOG_WARN, "%" PRIu64 " document(s) hold U+2581, which SentencePiece uses "
               "for the space: it will decode as one", all.spaced);
    if (!all.docs[1] && (w->t->val_frac > 0 || w->in.n_val))
        cm_log(CM_LOG_WARN, "no document fell into the validation split; raise "
               "tokenize.val_frac or give tokenize.val_inputs");
}

static bool write_manifest(const work *w, const cm_corpus_job *j, cm_err *err) {
    cm_buf extra = { 0 };
    put_sources(w, &j->docs, &extra);
    const cm_shard_info *info[2] = { j->info[0], j->info[1] };
    bool ok = cm_manifest_write(w->t->out, &j->shard, "tokenizer.model", info, j->n_info,
                                extra.s, err);
    cm_buf_free(&extra);
    return ok;
}

static bool make_shards(work *w, cm_err *err) {
    char *path = cm_strf("%s/rejected.jsonl", w->t->out);
    cm_out rejects;
    bool ok = cm_out_open(&rejects, path, err);
    free(path);
    if (!ok) return false;
    cm_corpus_job j = { .conf = w->c, .spm = w->spm, .shard = shard_conf(w) };
    cm_docs_open(&j.docs, w->t, w->in.path, w->in.name, w->in.n, w->in.n_val, &rejects);
    j.docs.kind = w->kind;
    ok = !cm_shard_masked(w->kind) || cm_chat_open(&j.chat, w->spm, err);
    ok = ok && find_finished(&j, CM_SPLIT_TRAIN, err) && find_finished(&j, CM_SPLIT_VAL, err) &&
         cm_corpus_encode(&j, w->in.bytes, err);
    if (ok && j.n_info[0] + j.n_info[1] == 0) ok = no_text(w, &j.docs, err);
    if (ok) ok = cm_out_commit(&rejects, err) && write_manifest(w, &j, err);
    else cm_out_abort(&rejects);
    if (ok) warn(w, &j.docs);
    cm_docs_close(&j.docs);
    free(j.info[0]);
    free(j.info[1]);
    return ok;
}

bool cm_corpus_build(const cm_corpus_conf *c, cm_err *err) {
    work w = { .c = c, .t = c->t, .dir = -1 };
    w.model = cm_strf("%s/tokenizer.model", c->t->out);
    w.stdin_copy = cm_strf("%s/stdin.tmp", c->t->out);
    w.sample = cm_strf("%s/sample.tmp", c->t->out);
    bool ok = find_inputs(c->t, &w.in, err) && lock_folder(&w, err) &&
              copy_stdin(&w, err) && find_kind(&w, err) && claim_folder(&w, err) &&
              get_tokenizer(&w, err) && make_shards(&w, err);
    if (w.dir >= 0) {
        unlink(w.stdin_copy);
        unlink(w.sample);
        /* Data that are damaged before there is a vocabulary leave nothing to go on from. */
        if (!ok && w.fresh &&
            (err->code == CM_EXIT_USAGE || (err->code == CM_EXIT_DATA && !w.spm)))
            cm_folder_take_back(w.t->out, w.had);
        close(w.dir);
    }
    cm_spm_close(w.spm);
    free_inputs(&w.in);
    free(w.model);
    free(w.stdin_copy);
    free(w.sample);
    return ok;
}

bool cm_corpus_check(const cm_corpus_conf *c, int *n_files, uint64_t *n_bytes,
                     cm_err *err) {
    work w = { .c = c, .t = c->t, .dir = -1 };
    inputs *in = &w.in;
    bool ok = find_inputs(c->t, in, err);
    *n_files = in->n;
    *n_bytes = in->bytes;
    for (int i = 0; ok && i < in->n; i++) {
        if (!strcmp(in->name[i], "-")) continue;
        cm_src *s = cm_src_open(in->path[i], err);
        ok = s != NULL;
        cm_src_close(s);
    }
    if (ok && !(c->t->kind == CM_KIND_AUTO && piped(in))) ok = find_kind(&w, err);
    if (ok && c->t->tokenizer[0]) {
        cm_spm *s = open_tokenizer(&w, err);
        ok = s != NULL;
        cm_spm_close(s);
    }
    free_inputs(in);
    return ok;
}
