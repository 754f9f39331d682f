/* conf.h -- one definition per configuration key: keys.def and the files it names.
 *
 * From each line come a typed field (c.optim.lr), parsing and range checks with places
 * (file:line:col), "did you mean", --help=config, docs/config.md and the dump that goes
 * into runs and checkpoints.  A cm_conf starts with defaults; files and then
 * `section.key=value` words overlay it; every mistake is collected, and
 * cm_conf_check reports whether there were any.  Strings belong to the cm_conf.
 * Relative paths in values are meant from the current directory. */
#ifndef CM_CONF_H
#define CM_CONF_H

#include "base/base.h"

/* ---- choices of ENUM keys: constant, word ----------------------------------------- */

/* In the order of kern.h's cm_numerics. */
#define CM_NUMERICS_CHOICES(X)                                                          \
    X(CM_CONF_STRICT, strict) X(CM_CONF_FAST, fast)
/* In the order of kern.h's cm_compute. */
#define CM_COMPUTE_CHOICES(X) X(CM_CONF_FP32, fp32) X(CM_CONF_BF16, bf16)
#define CM_ROPE_CHOICES(X)                                                              \
    X(CM_ROPE_NONE, none) X(CM_ROPE_PLAIN, plain) X(CM_ROPE_LINEAR, linear)             \
    X(CM_ROPE_YARN, yarn)
#define CM_EXPORT_CHOICES(X) X(CM_EXPORT_GGUF, gguf) X(CM_EXPORT_ANY, any)
#define CM_OPTIM_CHOICES(X) X(CM_OPTIM_ADAMW, adamw) X(CM_OPTIM_MUON, muon)
#define CM_STATE_CHOICES(X)                                                             \
    X(CM_STATE_FP32, fp32) X(CM_STATE_BF16, bf16) X(CM_STATE_INT8, int8)
#define CM_SCHED_CHOICES(X)                                                             \
    X(CM_SCHED_WSD, wsd) X(CM_SCHED_COSINE, cosine) X(CM_SCHED_LINEAR, linear)          \
    X(CM_SCHED_CONSTANT, constant)
#define CM_RECOMPUTE_CHOICES(X)                                                         \
    X(CM_RECOMPUTE_NONE, none) X(CM_RECOMPUTE_BLOCK, block) X(CM_RECOMPUTE_AUTO, auto)
#define CM_SPIKE_CHOICES(X)                                                             \
    X(CM_SPIKE_LOG, log) X(CM_SPIKE_SKIP, skip) X(CM_SPIKE_REWIND, rewind)              \
    X(CM_SPIKE_STOP, stop)
#define CM_PREFER_CHOICES(X) X(CM_PREFER_SIGMOID, sigmoid) X(CM_PREFER_IPO, ipo)
#define CM_SPLIT_CHOICES(X)                                                             \
    X(CM_SPLIT_MARKER, marker) X(CM_SPLIT_FILE, file) X(CM_SPLIT_LINE, line)            \
    X(CM_SPLIT_BLANK, blank)
#define CM_FORMAT_CHOICES(X)                                                            \
    X(CM_FORMAT_AUTO, auto) X(CM_FORMAT_TXT, txt) X(CM_FORMAT_JSONL, jsonl)
#define CM_KIND_CHOICES(X)                                                              \
    X(CM_KIND_AUTO, auto) X(CM_KIND_LM, lm) X(CM_KIND_CHAT, chat)                       \
    X(CM_KIND_PREFERENCE, preference)
#define CM_ON_REJECT_CHOICES(X) X(CM_ON_REJECT_SKIP, skip) X(CM_ON_REJECT_FAIL, fail)
#define CM_OVERLONG_CHOICES(X)                                                          \
    X(CM_OVERLONG_DROP, drop) X(CM_OVERLONG_TRUNCATE, truncate)
#define CM_TOO_LONG_CHOICES(X) X(CM_TOO_LONG_FAIL, fail) X(CM_TOO_LONG_DROP, drop)
#define CM_TRAIN_ON_CHOICES(X)                                                          \
    X(CM_TRAIN_ALL, all) X(CM_TRAIN_ANSWER, answer) X(CM_TRAIN_REASONING, reasoning)

#define CM_EVAL_CHOICES(X) X(CM_EVAL_DOCUMENTS, documents) X(CM_EVAL_LLAMA, llama)
#define CM_ROWS_CHOICES(X)                                                              \
    X(CM_ROWS_AUTO, auto) X(CM_ROWS_JSONL, jsonl) X(CM_ROWS_JSON, json)                 \
    X(CM_ROWS_CSV, csv) X(CM_ROWS_TSV, tsv) X(CM_ROWS_TXT, txt)
#define CM_GOLD_CHOICES(X)                                                              \
    X(CM_GOLD_INDEX, index) X(CM_GOLD_ONE, one) X(CM_GOLD_LETTER, letter)               \
    X(CM_GOLD_TEXT, text)
#define CM_SHOT_CHOICES(X) X(CM_SHOT_FIRST, first) X(CM_SHOT_SEEDED, seeded)
#define CM_MATCH_CHOICES(X) X(CM_MATCH_FIRST, first) X(CM_MATCH_LAST, last)
#define CM_THINK_CHOICES(X)                                                             \
    X(CM_THINK_DROP, drop) X(CM_THINK_KEEP, keep) X(CM_THINK_NONE, none)
#define CM_CHECKER_CHOICES(X)                                                           \
    X(CM_CHECKER_EXACT, exact) X(CM_CHECKER_NUMERIC, numeric) X(CM_CHECKER_WORLD, world) \
    X(CM_CHECKER_WORDS, words)

#define CM_ROUNDING_CHOICES(X) X(CM_ROUNDING_SEARCH, search) X(CM_ROUNDING_FEEDBACK, feedback)
#define CM_WEIGHTS_CHOICES(X) X(CM_WEIGHTS_BLOCKS, blocks) X(CM_WEIGHTS_FLOAT, float)
#define CM_KV_CHOICES(X)                                                                 \
    X(CM_KV_AUTO, auto) X(CM_KV_F32, f32) X(CM_KV_F16, f16) X(CM_KV_Q8_0, q8_0)
#define CM_BASE_CHOICES(X) X(CM_BASE_F32, f32) X(CM_BASE_BF16, bf16)
#define CM_TYPE_CHOICES(X)                                                              \
    X(CM_TYPE_F32, f32) X(CM_TYPE_F16, f16) X(CM_TYPE_BF16, bf16) X(CM_TYPE_Q8_0, q8_0) \
    X(CM_TYPE_Q4_0, q4_0) X(CM_TYPE_Q4_1, q4_1) X(CM_TYPE_Q5_0, q5_0)                   \
    X(CM_TYPE_Q5_1, q5_1) X(CM_TYPE_Q2_K, q2_k) X(CM_TYPE_Q3_K_M, q3_k_m)               \
    X(CM_TYPE_Q4_K_S, q4_k_s) X(CM_TYPE_Q4_K_M, q4_k_m) X(CM_TYPE_Q5_K_M, q5_k_m)       \
    X(CM_TYPE_Q6_K, q6_k) X(CM_TYPE_IQ4_NL, iq4_nl) X(CM_TYPE_IQ4_XS, iq4_xs)
#define CM_TARGET_CHOICES(X)                                                            \
    X(CM_TARGET_AUTO, auto) X(CM_TARGET_GGUF, gguf) X(CM_TARGET_HF, hf)                 \
    X(CM_TARGET_CHECKPOINT, checkpoint)

#define X(id, word) id,
enum { CM_BASE_CHOICES(X) };
enum { CM_ROUNDING_CHOICES(X) };
enum { CM_WEIGHTS_CHOICES(X) };
enum { CM_KV_CHOICES(X) };
enum { CM_TYPE_CHOICES(X) };
enum { CM_TARGET_CHOICES(X) };
enum { CM_EVAL_CHOICES(X) };
enum { CM_ROWS_CHOICES(X) };
enum { CM_GOLD_CHOICES(X) };
enum { CM_SHOT_CHOICES(X) };
enum { CM_MATCH_CHOICES(X) };
enum { CM_THINK_CHOICES(X) };
enum { CM_CHECKER_CHOICES(X) };
enum { CM_NUMERICS_CHOICES(X) };
enum { CM_COMPUTE_CHOICES(X) };
enum { CM_ROPE_CHOICES(X) };
enum { CM_EXPORT_CHOICES(X) };
enum { CM_OPTIM_CHOICES(X) };
enum { CM_STATE_CHOICES(X) };
enum { CM_SCHED_CHOICES(X) };
enum { CM_RECOMPUTE_CHOICES(X) };
enum { CM_SPIKE_CHOICES(X) };
enum { CM_PREFER_CHOICES(X) };
enum { CM_SPLIT_CHOICES(X) };
enum { CM_FORMAT_CHOICES(X) };
enum { CM_KIND_CHOICES(X) };
enum { CM_ON_REJECT_CHOICES(X) };
enum { CM_OVERLONG_CHOICES(X) };
enum { CM_TOO_LONG_CHOICES(X) };
enum { CM_TRAIN_ON_CHOICES(X) };
#undef X

/* ---- the structs ------------------------------------------------------------------ */

typedef struct cm_list {
    int n;
    const char **v;
} cm_list;

/* Field type of each key type. */
typedef int64_t cm_key_i64, cm_key_count, cm_key_bytes;
typedef double cm_key_f64;
typedef bool cm_key_bool;
typedef const char *cm_key_str;
typedef cm_list cm_key_list;

/* One struct a section: cm_model_conf, cm_optim_conf, ... */
#define SECTION(name, help) typedef struct cm_##name##_conf {
#define KEY(type, name, def, lo, hi, unit, help) cm_key_##type name;
#define ENUM(name, choices, def, help) int name;
#define END(name)                                                                       \
    }                                                                                   \
    cm_##name##_conf;
#include "conf/keys.def"

typedef struct cm_conf {
#define SECTION(name, help)
#define KEY(type, name, def, lo, hi, unit, help)
#define ENUM(name, choices, def, help)
#define END(name) cm_##name##_conf name;
#include "conf/keys.def"
    struct cm_conf_state *st; /* places, strings, mistakes */
} cm_conf;

/* ---- the table -------------------------------------------------------------------- */

typedef enum {
    CM_T_i64,
    CM_T_f64,
    CM_T_bool,
    CM_T_count,
    CM_T_bytes,
    CM_T_str,
    CM_T_list,
    CM_T_enum
} cm_type;

typedef struct cm_key {
    const char *section, *name;
    cm_type type;
    size_t at; /* offset of the field in cm_conf */
    const char *def, *unit, *help;
    double lo, hi;
    const char *words;          /* of an enum: "a\0b\0" */
    const char *const *choices; /* the same, NULL-terminated */
} cm_key;

typedef struct cm_section {
    const char *name, *help;
    int first, n; /* its keys in the table */
} cm_section;

const cm_key *cm_conf_keys(int *n);
const cm_section *cm_conf_sections(int *n);
/* "optim.lr"; "seed" for keys of the top level.  Static or caller's buffer of 96. */
const char *cm_key_name(const cm_key *k, char buf[96]);
const cm_key *cm_conf_find(const char *name);
/* The word of an enum key's value: cm_conf_word_of(&c, "optim.kind"). */
const char *cm_conf_word_of(const cm_conf *c, const char *name);

/* ---- loading ---------------------------------------------------------------------- */

/* Defaults.  `sections`: those the tool uses, by name with spaces between; NULL: all.
 * Other known sections of a shared run file are checked and otherwise ignored, and
 * may not be set from the command line. */
void cm_conf_open(cm_conf *c, const char *sections);
void cm_conf_close(cm_conf *c);

enum { CM_CONF_MAX_ERRORS = 20 };
/* Overlay a YAML file, text, or one `key=value` word.  Mistakes are collected. */
void cm_conf_file(cm_conf *c, const char *path);
void cm_conf_text(cm_conf *c, const char *name, const char *text, size_t n);
void cm_conf_set(cm_conf *c, const char *word);
/* False where there were mistakes; then err has the first, CM_EXIT_USAGE, and
 * cm_conf_errors all of them, one line each: "file:12:3: error: ...". */
bool cm_conf_check(const cm_conf *c, cm_err *err);
const char *cm_conf_errors(const cm_conf *c);

/* For checks between keys, by those who know what they mean: fails with CM_EXIT_USAGE
 * and the place where `key` was set: "run.yaml:7:12: error: model.n_heads: ...". */
bool cm_conf_bad(const cm_conf *c, cm_err *err, const char *key, const char *fmt, ...)
    CM_PRINTF(4, 5);
/* For sentences of layers that know the keys but not the places: where err begins with
 * "section.key:" and that key was set somewhere, put the place in front.  Returns false. */
bool cm_conf_locate(const cm_conf *c, cm_err *err);
/* Whether a file or the command line set the key. */
bool cm_conf_given(const cm_conf *c, const char *key);
bool cm_conf_uses(const cm_conf *c, const char *section);

/* ---- writing ---------------------------------------------------------------------- */

/* YAML of every key of the sections in use; parses back to the same values.  With
 * `places` each line says where its value came from. */
void cm_conf_dump(const cm_conf *c, bool places, cm_buf *out);
/* Keys whose values differ, of the sections that both use, one line each:
 * "optim.lr: 0.001 -> 0.002".  Their number. */
int cm_conf_diff(const cm_conf *a, const cm_conf *b, cm_buf *out);
/* The listing behind --help=config; section NULL: those in use.  False: no such one. */
bool cm_conf_help(const cm_conf *c, const char *section, cm_buf *out);
/* docs/config.md. */
void cm_conf_markdown(cm_buf *out);

#endif
