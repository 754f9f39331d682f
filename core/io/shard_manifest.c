/* shard_manifest.c -- manifest.json: written last, read first.
 *
 * The manifest holds the id of every shard, which is the hash of its header, which holds
 * the hashes of all the rest: what the manifest's own hash names is the whole data set. */
#include "io/shard_int.h"

#include <limits.h>
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/shard_manifest.h"

enum { FORMAT_VERSION = 1 };
#define FORMAT "chimera-token-shards"
static const char *const kinds[] = { "lm", "sft", "dpo", "eval" };

const char *cm_shard_kind_name(cm_shard_kind k) { return kinds[k]; }

/* ---- writing ---- */

static void put_trained(cm_buf *b, bool masked, int64_t answer, int64_t reasoning) {
    if (masked)
        cm_buf_addf(b, ", \"answer_tokens\": %" PRId64 ", \"reasoning_tokens\": %" PRId64,
                    answer, reasoning);
}

static void put_shards(cm_buf *b, const cm_shard_info *s, int n, bool masked) {
    for (int i = 0; i < n; i++) {
        cm_buf_addf(b, "%s\n      {\"file\": \"%s\", \"tokens\": %" PRId64
                    ", \"docs\": %" PRId64 ", \"bytes\": %" PRId64 ", \"size\": %" PRId64,
                    i ? "," : "", s[i].file, s[i].n_tokens, s[i].n_docs, s[i].n_bytes,
                    s[i].size);
        put_trained(b, masked, s[i].n_answer, s[i].n_reasoning);
        cm_buf_addf(b, ",\n       \"id\": \"%s\",\n       \"sha256\": \"%s\"}", s[i].id,
                    s[i].sha256);
    }
}

static void put_split(cm_buf *b, cm_split split, const cm_shard_info *s, int n, bool masked) {
    int64_t tokens = 0, docs = 0, bytes = 0, answer = 0, reasoning = 0;
    for (int i = 0; i < n; i++) {
        tokens += s[i].n_tokens;
        docs += s[i].n_docs;
        bytes += s[i].n_bytes;
        answer += s[i].n_answer;
        reasoning += s[i].n_reasoning;
    }
    cm_buf_addf(b, "%s\n    \"%s\": {\"tokens\": %" PRId64 ", \"docs\": %" PRId64
                ", \"bytes\": %" PRId64, split ? "," : "", cm_split_name(split), tokens,
                docs, bytes);
    put_trained(b, masked, answer, reasoning);
    cm_buf_addf(b, ", \"shards\": [");
    put_shards(b, s, n, masked);
    cm_buf_addf(b, "]}");
}

bool cm_manifest_write(const char *dir, const cm_shard_conf *c,
                       const char *tokenizer_file, const cm_shard_info *const shard[2],
                       const int n_shard[2], const char *extra_json, cm_err *err) {
    cm_buf b = { 0 };
    cm_buf_addf(&b, "{\n  \"format\": \"" FORMAT "\",\n  \"version\": %d,\n",
                FORMAT_VERSION);
    cm_buf_addf(&b, "  \"kind\": \"%s\",\n  \"vocab\": %d, \"bos\": %d, \"eos\": %d, "
                "\"pad\": %d,\n  \"doc_bos\": %s, \"doc_eos\": %s,\n", kinds[c->kind],
                c->vocab, c->bos, c->eos, c->pad,
                c->flags & CM_SHARD_BOS ? "true" : "false",
                c->flags & CM_SHARD_EOS ? "true" : "false");
    cm_buf_addf(&b, "  \"tokenizer\": {\"file\": \"%s\",\n    \"sha256\": \"%s\"},\n",
                tokenizer_file, c->tokenizer);
    cm_buf_addf(&b, "  \"pipeline_sha256\": \"%s\",\n", c->pipeline);
    if (extra_json) cm_buf_addf(&b, "  %s,\n", extra_json);
    cm_buf_addf(&b, "  \"splits\": {");
    for (int sp = 0; sp < 2; sp++)
        put_split(&b, (cm_split)sp, shard[sp], n_shard[sp], cm_shard_masked(c->kind));
    cm_buf_addf(&b, "\n  }\n}\n");
    char *path = cm_strf("%s/manifest.json", dir);
    bool ok = cm_write_file(path, b.s, b.n, err);
    free(path);
    cm_buf_free(&b);
    return ok;
}

/* ---- reading ---- */

typedef struct reader {
    const char *path;
    cm_err *err;
} reader;

static bool get_int(const reader *r, const cJSON *o, const char *key, int64_t lo,
                    int64_t hi, int64_t *out) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    const double exact = 9007199254740992.0; /* 2^53: a double holds every integer below */
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= -exact && v->valuedouble <= exact) ||
        v->valuedouble != (double)(int64_t)v->valuedouble)
        return cm_fail(r->err, CM_EXIT_DATA, "%s: '%s' is missing or not a whole number",
                       r->path, key);
    *out = (int64_t)v->valuedouble;
    if (*out < lo || *out > hi)
        return cm_fail(r->err, CM_EXIT_DATA, "%s: '%s' is %" PRId64 ", want %" PRId64
                       " to %" PRId64, r->path, key, *out, lo, hi);
    return true;
}

static bool get_str(const reader *r, const cJSON *o, const char *key, char *out,
                    size_t cap) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    if (!cJSON_IsString(v) || strlen(v->valuestring) >= cap)
        return cm_fail(r->err, CM_EXIT_DATA, "%s: '%s' is missing or not a short string",
                       r->path, key);
    snprintf(out, cap, "%s", v->valuestring);
    return true;
}

/* A plain file name: the manifest must not lead out of its folder. */
static bool get_name(const reader *r, const cJSON *o, char *out, size_t cap) {
    if (!get_str(r, o, "file", out, cap)) return false;
    if (!out[0] || strchr(out, '/') || !strcmp(out, "."))
        return cm_fail(r->err, CM_EXIT_DATA, "%s: '%s' is not a plain file name", r->path,
                       out);
    return true;
}

static bool get_flag(const reader *r, const cJSON *o, const char *key, bool *out) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    *out = cJSON_IsTrue(v);
    return cJSON_IsBool(v) ||
           cm_fail(r->err, CM_EXIT_DATA, "%s: '%s' is missing or not true or false",
                   r->path, key);
}

static bool get_counts(const reader *r, const cJSON *o, int64_t *tokens, int64_t *docs,
                       int64_t *bytes) {
    return get_int(r, o, "tokens", 0, INT64_MAX, tokens) &&
           get_int(r, o, "docs", 0, INT64_MAX, docs) &&
           get_int(r, o, "bytes", 0, INT64_MAX, bytes);
}

/* Counts of trained tokens, which only masked kinds have. */
static bool get_trained(const reader *r, const cJSON *o, cm_shard_kind kind, int64_t *answer,
                        int64_t *reasoning) {
    return !cm_shard_masked(kind) ||
           (get_int(r, o, "answer_tokens", 0, INT64_MAX, answer) &&
            get_int(r, o, "reasoning_tokens", 0, INT64_MAX, reasoning));
}

static bool read_split(const reader *r, const cJSON *o, cm_split sp, cm_manifest *m) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "shards"), *it;
    if (!get_counts(r, o, &m->n_tokens[sp], &m->n_docs[sp], &m->n_bytes[sp]) ||
        !get_trained(r, o, m->c.kind, &m->n_answer[sp], &m->n_reasoning[sp]))
        return false;
    if (!cJSON_IsArray(list))
        return cm_fail(r->err, CM_EXIT_DATA, "%s: split '%s' has no list of shards",
                       r->path, cm_split_name(sp));
    int n = cJSON_GetArraySize(list);
    m->shard[sp] = calloc((size_t)n + 1, sizeof *m->shard[sp]);
    if (!m->shard[sp]) return cm_fail_errno(r->err, CM_EXIT_RESOURCE, "%s", r->path);
    int64_t tokens = 0, docs = 0, bytes = 0, answer = 0, reasoning = 0;
    cJSON_ArrayForEach(it, list) {
        cm_shard_info *s = &m->shard[sp][m->n_shard[sp]++];
        if (!get_name(r, it, s->file, sizeof s->file) ||
            !get_counts(r, it, &s->n_tokens, &s->n_docs, &s->n_bytes) ||
            !get_trained(r, it, m->c.kind, &s->n_answer, &s->n_reasoning) ||
            !get_int(r, it, "size", 0, INT64_MAX, &s->size) ||
            !get_str(r, it, "id", s->id, sizeof s->id) ||
            !get_str(r, it, "sha256", s->sha256, sizeof s->sha256))
            return false;
        tokens += s->n_tokens;
        docs += s->n_docs;
        bytes += s->n_bytes;
        answer += s->n_answer;
        reasoning += s->n_reasoning;
    }
    if (tokens != m->n_tokens[sp] || docs != m->n_docs[sp] || bytes != m->n_bytes[sp] ||
        answer != m->n_answer[sp] || reasoning != m->n_reasoning[sp])
        return cm_fail(r->err, CM_EXIT_DATA, "%s: the totals of split '%s' are not the "
                       "sums over its shards", r->path, cm_split_name(sp));
    return true;
}

static bool read_top(const reader *r, const cJSON *o, cm_manifest *m) {
    char text[64];
    int64_t version, v[4];
    if (!get_str(r, o, "format", text, sizeof text) || strcmp(text, FORMAT))
        return cm_fail(r->err, CM_EXIT_DATA, "%s: not a manifest of token shards", r->path);
    if (!get_int(r, o, "version", INT64_MIN, INT64_MAX, &version)) return false;
    if (version != FORMAT_VERSION)
        return cm_fail(r->err, CM_EXIT_DATA, "%s: version %" PRId64 "; this program reads "
                       "version %d", r->path, version, FORMAT_VERSION);
    if (!get_str(r, o, "kind", text, sizeof text)) return false;
    int kind = 0;
    while (kind < 4 && strcmp(text, kinds[kind])) kind++;
    if (kind == 4)
        return cm_fail(r->err, CM_EXIT_DATA, "%s: unknown kind '%s'", r->path, text);
    bool bos, eos;
    if (!get_int(r, o, "vocab", 1, INT32_MAX, &v[0]) ||
        !get_int(r, o, "bos", -1, v[0] - 1, &v[1]) ||
        !get_int(r, o, "eos", -1, v[0] - 1, &v[2]) ||
        !get_int(r, o, "pad", -1, v[0] - 1, &v[3]) ||
        !get_flag(r, o, "doc_bos", &bos) || !get_flag(r, o, "doc_eos", &eos) ||
        !get_str(r, o, "pipeline_sha256", m->c.pipeline, sizeof m->c.pipeline))
        return false;
    m->c.kind = (cm_shard_kind)kind;
    m->c.vocab = (int)v[0];
    m->c.bos = (int)v[1];
    m->c.eos = (int)v[2];
    m->c.pad = (int)v[3];
    m->c.flags = (bos ? CM_SHARD_BOS : 0u) | (eos ? CM_SHARD_EOS : 0u);
    return true;
}

static bool read_all(const reader *r, const cJSON *o, cm_manifest *m) {
    if (!cJSON_IsObject(o)) return cm_fail(r->err, CM_EXIT_DATA, "%s: not JSON", r->path);
    const cJSON *tok = cJSON_GetObjectItemCaseSensitive(o, "tokenizer");
    const cJSON *splits = cJSON_GetObjectItemCaseSensitive(o, "splits");
    if (!read_top(r, o, m) || !get_name(r, tok, m->tokenizer, sizeof m->tokenizer) ||
        !get_str(r, tok, "sha256", m->c.tokenizer, sizeof m->c.tokenizer))
        return false;
    for (int sp = 0; sp < 2; sp++) {
        const char *name = cm_split_name((cm_split)sp);
        if (!read_split(r, cJSON_GetObjectItemCaseSensitive(splits, name), (cm_split)sp, m))
            return false;
    }
    return true;
}

bool cm_manifest_read(cm_manifest *m, const char *path, cm_err *err) {
    memset(m, 0, sizeof *m);
    char *text = NULL;
    size_t n = 0;
    if (!cm_read_file(path, (size_t)1 << 30, &text, &n, err)) return false;
    cm_sha_bytes(text, n, m->id);
    cJSON *o = cJSON_ParseWithLength(text, n);
    bool ok = read_all(&(reader){ path, err }, o, m);
    cJSON_Delete(o);
    free(text);
    if (!ok) cm_manifest_free(m);
    return ok;
}

void cm_manifest_free(cm_manifest *m) {
    for (int sp = 0; sp < 2; sp++) free(m->shard[sp]);
    memset(m, 0, sizeof *m);
}

char *cm_dataset_source(const cm_dataset *d, uint32_t source) {
    char *path = cm_strf("%s/manifest.json", d->dir), *text, *name = NULL;
    size_t n;
    if (cm_read_file(path, (size_t)1 << 28, &text, &n, NULL)) {
        cJSON *root = cJSON_Parse(text);
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "sources");
        const cJSON *s = cJSON_GetArrayItem(list, source > INT_MAX ? -1 : (int)source);
        const cJSON *at = cJSON_GetObjectItemCaseSensitive(s, "path");
        if (cJSON_IsString(at)) name = cm_strf("%s", at->valuestring);
        cJSON_Delete(root);
        free(text);
    }
    free(path);
    return name;
}
