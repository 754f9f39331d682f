/* quantize.c -- a checkpoint into GGUF or Hugging Face's form, and both back.
 *
 * What is written is read again by the same door every tool uses, and compared with the
 * source: every tensor within its type's error, and the logits of a fixed probe. */
#include "app/app.h"
#include "harness/harness.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <strings.h>

enum { PROBE = 64 };

typedef struct job {
    cm_app_ctx *app;
    cm_quantize_conf *c;
    bool gguf;
    cm_export x;
    cm_loaded source, back;
    cm_imatrix *imatrix; /* NULL: none */
    cm_export_plan plan;
    cm_sums sums;        /* of what was written */
    double diff, rms;    /* probe: largest |difference| of a logit; RMS of the source's */
    double kl, kl_most;  /* mean and largest over positions, nats */
    bool unprobed;       /* not even a part of the model fits in memory as floats */
    int same;            /* positions with the same most likely token */
} job;

/* ---- what to do ------------------------------------------------------------------- */

/* An option that stands for a key with a list of words, in any case of letters. */
static bool word_option(job *j, const char *option, const char *key, int *out,
                        cm_err *err) {
    const char *s = cm_app_text(j->app, option);
    if (!s) return true;
    const char *const *w = cm_conf_find(key)->choices;
    cm_buf all = {0};
    for (int i = 0; w[i]; i++) {
        if (!strcasecmp(w[i], s)) {
            *out = i;
            cm_buf_free(&all);
            return true;
        }
        cm_buf_addf(&all, "%s%s", i ? ", " : "", w[i]);
    }
    cm_fail(err, CM_EXIT_USAGE, "--%s=%s: wanted one of %s", option, s, all.s);
    cm_buf_free(&all);
    return false;
}

static bool read_options(job *j, cm_err *err) {
    cm_quantize_conf *c = j->c;
    const char *s;
    if ((s = cm_app_text(j->app, "model"))) c->model = s;
    if ((s = cm_app_text(j->app, "out"))) c->out = s;
    if ((s = cm_app_text(j->app, "imatrix"))) c->imatrix = s;
    if ((s = cm_app_text(j->app, "calibration"))) c->calibration = s;
    if ((s = cm_app_text(j->app, "card"))) c->card_text = s;
    if (!word_option(j, "type", "quantize.type", &c->type, err) ||
        !word_option(j, "format", "quantize.format", &c->format, err))
        return false;
    j->x.adapter = cm_app_switch(j->app, "adapter");
    if (!*c->model)
        return cm_fail(err, CM_EXIT_USAGE, "no model to convert: --model PATH");
    if (*c->imatrix && *c->calibration)
        return cm_fail(err, CM_EXIT_USAGE, "quantize.imatrix and quantize.calibration: one "
                       "importance matrix, please");
    if (j->x.adapter && (*c->imatrix || *c->calibration || *c->card_text))
        return cm_fail(err, CM_EXIT_USAGE, "--adapter has no importance matrix and no card");
    if (c->rounding == CM_ROUNDING_FEEDBACK && !*c->calibration)
        return cm_fail(err, CM_EXIT_USAGE, "quantize.rounding=feedback wants a text to see how "
                       "columns move together: quantize.calibration (no file keeps that)");
    if (*c->imatrix_out && !*c->calibration)
        return cm_fail(err, CM_EXIT_USAGE, "quantize.imatrix_out wants a text to collect on: "
                       "quantize.calibration");
    if (!*c->out && !j->app->dry_run && !*c->imatrix_out)
        return cm_fail(err, CM_EXIT_USAGE, "nowhere to write: --out PATH");
    size_t n = strlen(c->out);
    bool dot = n > 5 && !strcmp(c->out + n - 5, ".gguf");
    j->gguf = c->format == CM_TARGET_GGUF || (c->format == CM_TARGET_AUTO && dot) ||
              (c->format == CM_TARGET_AUTO && !n);
    if (j->x.adapter && !j->gguf)
        return cm_fail(err, CM_EXIT_USAGE, "--adapter writes a GGUF file: --out NAME.gguf "
                       "(for PEFT the checkpoint's folder itself is one)");
    if (c->format == CM_TARGET_CHECKPOINT && c->type != CM_TYPE_F32)
        return cm_fail(err, CM_EXIT_USAGE, "quantize.type: checkpoints are f32");
    return true;
}

/* Writing over what is being read would lose it if anything went wrong. */
static bool check_apart(const job *j, cm_err *err) {
    const cm_quantize_conf *c = j->c;
    bool card = *c->card_text && *c->out;
    char *json = card ? cm_card_path(c->out, "json") : NULL;
    char *md = card ? cm_card_path(c->out, "md") : NULL;
    bool ok = cm_app_apart(
        (cm_app_file[]){{"model", c->model}, {"importance matrix", c->imatrix},
                        {"calibration text", c->calibration}, {"card's text", c->card_text}, {0}},
        (cm_app_file[]){{"--out", c->out}, {"quantize.imatrix_out", c->imatrix_out},
                        {"the card", json}, {"the card", md}, {0}}, err);
    free(json);
    free(md);
    return ok;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static bool load_source(job *j, cm_err *err) {
    cm_loaded *l = &j->source;
    unsigned apart = j->x.adapter ? CM_LOAD_APART : 0;
    if (!cm_load(l, j->c->model, CM_LOAD_UNNAMED | CM_LOAD_LAZY | apart, err)) return false;
    j->x = (cm_export){.model = &l->model, .spm = l->spm,
                       .chat_template = l->chat_template, .mix = j->c->type,
                       .tensors = &j->c->tensors,
                       .name = *j->c->name ? j->c->name : base_name(j->c->out),
                       .source = l, .back = &j->back, .sums = &j->sums, .adapter = j->x.adapter};
    if (apart && !l->model.adapter.n)
        return cm_fail(err, CM_EXIT_USAGE, "%s: no adapter there; --adapter wants a run trained "
                       "with lora.rank, or a folder that PEFT wrote", j->c->model);
    if (!l->spm) cm_log(CM_LOG_WARN, "%s has no tokenizer; neither will the output",
                        j->c->model);
    return !j->gguf || cm_model_exportable(&l->model.conf, err);
}

/* ---- memory ------------------------------------------------------------------------- */

/* What needs whole models at once, asked before any work. */
static bool check_memory(const job *j, cm_err *err) {
    const cm_quantize_conf *c = j->c;
    const cm_model *m = &j->source.model;
    double floats = (double)cm_model_count(&m->conf, false) * sizeof(cm_real);
    double judged = c->weights == CM_WEIGHTS_BLOCKS && j->gguf ? (double)j->plan.tensor_bytes
                                                               : floats;
    bool cross = c->rounding == CM_ROUNDING_FEEDBACK;
    if (*c->calibration &&
        !cm_memory_fits(floats + (cross ? cm_imatrix_cross_bytes(m) : 0),
                        cross ? "rounding by feedback (the model as floats, and how columns move "
                                "together)" : "quantize.calibration (the model as floats)",
                        cross ? "quantize.rounding=search takes less"
                              : "collect on a larger machine (quantize.imatrix_out=FILE) and give "
                                "--imatrix FILE here", err))
        return false;
    return !*c->card_text || !*c->out ||
           cm_memory_fits(floats + judged, "the quality card (the model as floats, and what is "
                          "written)", "leave --card out, or score the card on a larger machine",
                          err);
}

/* ---- importances -------------------------------------------------------------------- */

static cm_imatrix *collect(job *j, cm_err *err) {
    const cm_quantize_conf *c = j->c;
    const cm_loaded *l = &j->source;
    int32_t *id;
    int64_t n;
    cm_imatrix *m = NULL;
    if (cm_text_tokens(l->spm, c->calibration, CM_TEXT_FIELD, &id, &n, err) &&
        cm_loaded_fetch(&j->source, NULL, err)) {
        if (c->chunks && n > c->chunks * c->context) n = c->chunks * c->context;
        m = cm_imatrix_collect(&l->model, id, n, (int)c->context, cm_spm_bos(l->spm),
                               c->rounding == CM_ROUNDING_FEEDBACK, base_name(c->calibration),
                               err);
    }
    cm_loaded_forget(&j->source, NULL);
    free(id);
    if (m && *c->imatrix_out && !cm_imatrix_write(m, c->imatrix_out, err)) {
        cm_imatrix_close(m);
        return NULL;
    }
    return m;
}

static bool take_importances(job *j, cm_imatrix *m) {
    cm_imatrix_close(j->imatrix);
    j->x.imatrix = j->imatrix = m;
    j->x.feedback = m && j->c->rounding == CM_ROUNDING_FEEDBACK;
    return m;
}

/* A file's importances; of those to be collected the promise, which is all that a plan needs. */
static bool foresee(job *j, cm_err *err) {
    const cm_quantize_conf *c = j->c;
    if (*c->calibration) return take_importances(j, cm_imatrix_planned(base_name(c->calibration)));
    return !*c->imatrix || (take_importances(j, cm_imatrix_open(c->imatrix, err)) &&
                            cm_imatrix_fit(j->imatrix, &j->source.model, err));
}

static bool importances(job *j, cm_err *err) {
    return !*j->c->calibration || (take_importances(j, collect(j, err)) &&
                                   cm_imatrix_fit(j->imatrix, &j->source.model, err));
}

/* ---- the plan ---------------------------------------------------------------------- */

static void warn_lines(char *lines) {
    for (char *line; lines && (line = strsep(&lines, "\n")) && *line;)
        cm_log(CM_LOG_WARN, "%s", line);
}

/* Whether all blocks become Q8_0 again, whose largest value is 127 steps: rounded a second time,
 * the same bytes. */
static bool same_blocks(const job *j) {
    bool same = j->source.stored == CM_Q8_0_T;
    for (int i = 0; same && i < j->plan.n; i++) {
        cm_dtype t = j->plan.row[i].t.dtype;
        same = t == CM_Q8_0_T || cm_dtypes[t].block == 1;
    }
    return same;
}

/* What changes nothing although it was asked for, and what is not as it was asked for. */
static void warn_plan(const job *j) {
    const cm_quantize_conf *c = j->c;
    cm_buf fallbacks = {0};
    warn_lines(j->plan.idle);
    if (!j->app->dry_run) cm_export_plan_fallbacks(&j->plan, &fallbacks); /* else in its table */
    warn_lines(fallbacks.s);
    cm_buf_free(&fallbacks);
    if (j->imatrix && !cm_export_plan_weighs(&j->plan))
        cm_log(CM_LOG_WARN, "%s changes nothing in a file of %s, whose values are rounded to the "
               "nearest: types with a search use it (q4_k_m, ...)",
               c->rounding == CM_ROUNDING_FEEDBACK ? "quantize.rounding=feedback"
               : *c->imatrix                       ? "quantize.imatrix"
                                                   : "quantize.calibration",
               cm_mix_name(j->x.mix));
    if (cm_dtypes[j->source.stored].block > 1 && cm_export_plan_has_blocks(&j->plan) &&
        !same_blocks(j))
        cm_log(CM_LOG_WARN, "%s: its weights were rounded to %s before, and are rounded a second "
               "time; from the unquantized model less is lost", c->model,
               cm_dtypes[j->source.stored].name);
}

static bool make_plan(job *j, cm_err *err) {
    if (!*j->c->out && !j->app->dry_run) return check_memory(j, err); /* importances alone */
    if (!foresee(j, err) || !cm_export_plan_make(&j->x, j->gguf, &j->plan, err)) return false;
    warn_plan(j);
    return check_memory(j, err);
}

/* ---- parity ----------------------------------------------------------------------- */

/* log of the sum of exp, and the largest element's place. */
static double log_sum(const cm_real *x, int64_t n, int64_t *top) {
    *top = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[*top]) *top = i;
    double most = (double)x[*top], sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - most);
    return most + log(sum);
}

static void compare_row(job *j, const cm_real *a, const cm_real *b, int64_t V) {
    int64_t top_a, top_b;
    double za = log_sum(a, V, &top_a), zb = log_sum(b, V, &top_b), kl = 0;
    for (int64_t v = 0; v < V; v++) {
        double la = (double)a[v] - za, lb = (double)b[v] - zb, d = (double)a[v] - b[v];
        kl += exp(la) * (la - lb);
        j->rms += (double)a[v] * a[v];
        if (!(fabs(d) <= j->diff)) j->diff = fabs(d); /* NaN sticks */
    }
    j->same += top_a == top_b;
    j->kl += kl / PROBE;
    if (!(kl <= j->kl_most)) j->kl_most = kl;
}

static bool empty_folder(const char *path) {
    DIR *d = opendir(path);
    int n = 0;
    while (d && n <= 2 && readdir(d)) n++; /* . and .. */
    if (d) closedir(d);
    return d && n <= 2;
}

/* A run's checkpoint has sums of its files, and moments that belong to its weights alone. */
static bool of_run(const char *folder) {
    char *sums = cm_strf("%s/SHA256SUMS", folder);
    char *moments = cm_strf("%s/optimizer.safetensors", folder);
    bool yes = cm_exists(sums) || cm_exists(moments);
    free(sums);
    free(moments);
    return yes;
}

/* Replace only what a quantize wrote: a GGUF file by a GGUF file, a model folder by a model
 * folder.  Anything else there is somebody's work. */
static bool may_replace(const job *j, cm_err *err) {
    const char *out = j->c->out;
    struct stat st;
    if (stat(out, &st) || (S_ISREG(st.st_mode) && !st.st_size)) return true;
    if (S_ISDIR(st.st_mode) && of_run(out))
        return cm_fail(err, CM_EXIT_USAGE, "%s: is a checkpoint of a run, which could not be "
                       "resumed with other weights; choose another --out", out);
    bool ours;
    if (S_ISDIR(st.st_mode)) {
        char *config = cm_strf("%s/config.json", out);
        ours = !j->gguf && (cm_exists(config) || empty_folder(out));
        free(config);
    } else {
        char magic[4] = "";
        FILE *f = fopen(out, "rb");
        ours = f && j->gguf && fread(magic, 1, 4, f) == 4 && !memcmp(magic, "GGUF", 4);
        ours |= !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
        if (f) fclose(f);
    }
    return ours || cm_fail(err, CM_EXIT_USAGE, "%s: exists and is not a %s; remove it or "
                           "choose another --out", out, j->gguf ? "GGUF file" : "model folder");
}

/* Whether the largest parts of both models as floats leave room for the rest. */
static bool parts_fit(const job *j) {
    double need = (double)cm_model_largest_part(&j->source.model.conf) * sizeof(cm_real);
    return 2 * need < 0.8 * cm_limits_get().memory;
}

/* Logits of the fixed tokens, the weights brought a part at a time. */
static bool probe(cm_loaded *l, cm_bringer *bringer, cm_real *out, cm_err *err) {
    cm_model *m = &l->model;
    int32_t token[PROBE];
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    for (int i = 0; i < PROBE; i++)
        token[i] = (int32_t)cm_rng_below(r, (uint64_t)i, (uint64_t)m->conf.vocab_size);
    cm_session s;
    m->bringer = bringer;
    bool ok = cm_session_open(&s, m, PROBE, err) &&
              cm_session_feed(&s, token, PROBE, out, NULL, err);
    m->bringer = NULL;
    cm_session_close(&s);
    cm_loaded_forget(l, NULL);
    return ok;
}

/* A part of what was written, compared while it is there. */
static bool bring_compared(void *ctx, int part, cm_err *err) {
    job *j = ctx;
    return cm_loaded_bring(&j->back, part, err) &&
           cm_export_compare_part(&j->x, &j->back.model, j->gguf, part, err);
}

/* Tensors and logits; the weights are read once. */
static bool compare_logits(job *j, cm_err *err) {
    int64_t V = j->source.model.conf.vocab_size;
    cm_real *a = malloc((size_t)(2 * PROBE * V) * sizeof *a), *b = a + PROBE * V;
    CM_ASSERT(a, "out of memory: logits of the probe");
    cm_bringer source = {.bring = cm_loaded_bring, .ctx = &j->source};
    cm_bringer back = {.bring = bring_compared, .ctx = j};
    bool ok = probe(&j->back, &back, b, err) && probe(&j->source, &source, a, err);
    for (int64_t i = 0; ok && i < PROBE; i++) compare_row(j, a + i * V, b + i * V, V);
    j->rms = sqrt(j->rms / (double)(PROBE * V));
    free(a);
    return ok;
}

static bool check_written(job *j, cm_err *err) {
    cm_err why;
    if (!cm_load(&j->back, j->c->out, CM_LOAD_UNNAMED | CM_LOAD_LAZY, &why))
        return cm_fail(err, CM_EXIT_CHECK, "parity: what was written does not load: %s "
                       "(left in place)", why.msg);
    cm_loaded_forget(&j->source, NULL);
    j->unprobed = !parts_fit(j);
    if (!(j->unprobed ? cm_export_compare(&j->x, &j->back.model, j->gguf, &why)
                      : compare_logits(j, &why)))
        return cm_fail(err, why.code == CM_EXIT_RESOURCE ? why.code : CM_EXIT_CHECK,
                       "%s: parity: %s (left in place)", j->c->out, why.msg);
    if ((j->source.spm != NULL) != (j->back.spm != NULL) ||
        (j->source.spm && !j->gguf &&
         strcmp(cm_spm_hash(j->source.spm), cm_spm_hash(j->back.spm))))
        return cm_fail(err, CM_EXIT_CHECK, "%s: parity: the tokenizer came back different (left "
                       "in place)", j->c->out);
    if (j->unprobed)
        cm_log(CM_LOG_WARN, "%s: tensors were compared, logits were not: a layer does not fit in "
               "memory", j->c->out);
    return true;
}

/* ---- report ----------------------------------------------------------------------- */

static cm_buf begin_json(const job *j) {
    cm_buf b = {0};
    cm_json_open(&b, NULL, '{');
    cm_json_str(&b, "out", j->c->out);
    cm_json_str(&b, "type", cm_mix_name(j->x.mix));
    return b;
}

/* Largest difference of a logit, in units of their RMS. */
static double relative(const job *j) { return j->rms > 0 ? j->diff / j->rms : j->diff; }

static void report_json(const job *j, const cm_file_card *k) {
    double none = j->unprobed ? NAN : 0;
    cm_buf b = begin_json(j);
    cm_json_u64(&b, "tensor_bytes", j->plan.tensor_bytes);
    cm_json_f64(&b, "max_logit_diff_rel", none + relative(j));
    cm_json_f64(&b, "kl_mean", none + j->kl);
    cm_json_f64(&b, "kl_max", none + j->kl_most);
    cm_json_f64(&b, "same_top1", none + (double)j->same / PROBE);
    if (k->card.n) cm_file_card_json(k, "card", &b);
    cm_json_print(&b);
}

static void report(const job *j) {
    char size[32];
    const char *type = cm_mix_name(j->x.mix);
    printf("%s: %s, %s of tensors\n", j->c->out, type,
           cm_human_bytes((double)j->plan.tensor_bytes, size, sizeof size));
    if (j->unprobed) {
        printf("parity: tensors within %s's error; logits not compared\n", type);
        return;
    }
    printf("parity: tensors within %s's error; over %d probe tokens: largest logit "
           "difference %.1e of the RMS, KL mean %.1e max %.1e nats, same top token %.1f%%\n",
           type, PROBE, relative(j), j->kl, j->kl_most, 100.0 * j->same / PROBE);
}

static void report_adapter(const job *j) {
    char size[32];
    const cm_lora_conf *c = &j->x.model->lora;
    if (j->app->quiet && !j->app->json) return;
    if (!j->app->json) {
        printf("%s: adapter of rank %lld, %s, %s of tensors, read back the same\n", j->c->out,
               (long long)c->rank, cm_mix_name(j->x.mix),
               cm_human_bytes((double)j->plan.tensor_bytes, size, sizeof size));
        return;
    }
    cm_buf b = begin_json(j);
    cm_json_i64(&b, "rank", c->rank);
    cm_json_u64(&b, "tensor_bytes", j->plan.tensor_bytes);
    cm_json_print(&b);
}

static void print_plan(const job *j) {
    char size[32];
    cm_buf b = {0};
    if (j->app->json) {
        b = begin_json(j);
        cm_json_str(&b, "format", j->gguf ? "gguf" : "folder");
        cm_export_plan_json(&j->plan, &b);
        cm_json_print(&b);
        return;
    }
    cm_export_plan_text(&j->plan, &b);
    cm_human_bytes((double)j->plan.tensor_bytes, size, sizeof size);
    printf("%stotal: %s of tensors; %s: %llu bytes\n", b.s, size,
           j->gguf ? "the file" : "model.safetensors", (unsigned long long)j->plan.file_bytes);
    cm_buf_free(&b);
}

/* Largest difference of a logit that f32 may bring: none.  But GGUF has RoPE's numbers as
 * floats; where they were not, angles differ by 6e-8 of themselves, which layers add up. */
static double f32_bound(const job *j) {
    const cm_model_conf *a = &j->source.model.conf, *b = &j->back.model.conf;
    bool same = a->rope_theta == b->rope_theta && a->rope_factor == b->rope_factor;
    return same || a->rope == CM_ROPE_NONE ? 0 : 1e-4;
}

/* Largest mean divergence over random tokens, which are harder than text.  A coarse net: sound
 * files of the demo's model stay below a third of it, but one matrix with its rows misplaced
 * brings 0.1 to 1.8 nats, so it is the comparison of tensors before it that proves a file. */
static double kl_bound(const job *j) {
    const cm_dtype_info *t = &cm_dtypes[cm_mix_type(j->x.mix)];
    double bits = 8.0 * t->bytes / t->block;
    if (j->c->max_kl > 0) return j->c->max_kl;
    return bits >= 8 ? 0.1 : bits >= 5 ? 0.3 : bits >= 4 ? 1 : 3;
}

static bool verdict(const job *j, cm_err *err) {
    double rel = relative(j);
    if (j->unprobed) return true;
    if (j->x.mix == CM_TYPE_F32 && !j->x.tensors->n && !(rel <= f32_bound(j)))
        return cm_fail(err, CM_EXIT_CHECK, "%s: parity: the logits differ from the source's by "
                       "up to %.2e of their RMS (f32: at most %g); left in place", j->c->out,
                       rel, f32_bound(j));
    return fabs(j->kl) <= kl_bound(j) ||
           cm_fail(err, CM_EXIT_CHECK, "%s: parity: the logits differ from the source's: largest "
                   "%.2e of the RMS, KL %.2e nats (at most %.0e passes); left in place",
                   j->c->out, rel, j->kl, kl_bound(j));
}

/* What the card judges: the file as users run it. */
static bool load_judged(job *j, cm_err *err) {
    if (j->c->weights == CM_WEIGHTS_FLOAT || !j->gguf) return cm_loaded_fetch(&j->back, NULL, err);
    cm_loaded_close(&j->back);
    return cm_load(&j->back, j->c->out, CM_LOAD_UNNAMED | CM_LOAD_BLOCKS, err);
}

/* The card beside the file, where there is a text for it. */
static bool card(job *j, cm_file_card *k, cm_err *err) {
    const cm_quantize_conf *c = j->c;
    struct stat st;
    if (!*c->card_text) return true;
    *k = (cm_file_card){.type = cm_mix_name(j->x.mix), .text = c->card_text,
                        .importances = j->imatrix ? cm_imatrix_dataset(j->imatrix) : "",
                        .file_bytes = stat(c->out, &st) ? 0 : (uint64_t)st.st_size,
                        .tensor_bytes = j->plan.tensor_bytes,
                        .blocks = c->weights == CM_WEIGHTS_BLOCKS && j->gguf,
                        .weights = cm_model_count(&j->source.model.conf, false),
                        .context = (int)c->context, .max_chunks = c->chunks};
    return cm_loaded_fetch(&j->source, NULL, err) && load_judged(j, err) &&
           cm_file_card_score(k, &j->source, &j->back, err) &&
           cm_file_card_write(k, c->out, err);
}

static void print_card(const job *j, const cm_file_card *k) {
    printf("card: KL %.6f nats, perplexity ratio %.5f, same top token %.2f%%, %.3f bits per "
           "weight\n", k->card.kl.value, k->card.ratio.value, 100 * k->card.same.value,
           8 * (double)j->plan.tensor_bytes / (double)k->weights);
}

/* What was written is judged and told; JSON is one object, so its turn comes last. */
static bool judge(job *j, cm_err *err) {
    cm_file_card k = {0};
    bool text = !j->app->json && !j->app->quiet;
    if (text) report(j);
    bool ok = verdict(j, err) && card(j, &k, err);
    if (ok && text && k.card.n) print_card(j, &k);
    if (j->app->json) report_json(j, &k);
    return ok;
}

/* A text that is to fill a row of tokens at least. */
static bool enough_text(const job *j, const char *path, cm_err *err) {
    int32_t *id = NULL;
    int64_t n = 0;
    if (!*path) return true;
    bool ok = cm_need_input(path, err) &&
              cm_text_tokens(j->source.spm, path, CM_TEXT_FIELD, &id, &n, err);
    if (ok && n < j->c->context)
        ok = cm_fail(err, CM_EXIT_USAGE, "%s: %lld tokens are less than one chunk of %lld "
                     "(quantize.context)", path, (long long)n, (long long)j->c->context);
    free(id);
    return ok;
}

/* What can be known before any work: --dry-run asks the same. */
static bool check_world(const job *j, cm_err *err) {
    const cm_quantize_conf *c = j->c;
    if (*c->out && !j->gguf && !cm_export_fits_folder(&j->x, err)) return false;
    if (*c->out && (!may_replace(j, err) || !cm_need_folder_of(c->out, !j->gguf, err)))
        return false;
    if (*c->imatrix_out && !cm_need_folder_of(c->imatrix_out, false, err)) return false;
    return enough_text(j, c->calibration, err) && enough_text(j, c->card_text, err);
}

static bool run_job(job *j, cm_err *err) {
    if (!read_options(j, err) || !check_apart(j, err) || !load_source(j, err) ||
        !check_world(j, err) || !make_plan(j, err))
        return false;
    if (j->app->dry_run) return print_plan(j), true;
    if (!importances(j, err)) return false;
    if (!*j->c->out) return true;
    if (j->x.adapter)
        return cm_export_gguf_adapter(&j->x, j->c->out, err) && (report_adapter(j), true);
    if (!(j->gguf ? cm_export_gguf(&j->x, j->c->out, err)
                  : cm_export_hf(&j->x, j->c->out, err)) ||
        !check_written(j, err))
        return false;
    return judge(j, err);
}

static bool run(cm_app_ctx *ctx, cm_err *err) {
    job j = {.app = ctx, .c = &ctx->conf.quantize};
    bool ok = run_job(&j, err);
    cm_loaded_close(&j.source);
    cm_loaded_close(&j.back);
    cm_imatrix_close(j.imatrix);
    cm_export_plan_free(&j.plan);
    cm_sums_free(&j.sums);
    return ok;
}

int main(int argc, char **argv) {
    static const cm_app_opt options[] = {
        {"model", "PATH", "checkpoint or run folder, Hugging Face folder, GGUF file"},
        {"out", "PATH", "GGUF file or folder to write"},
        {"type", "TYPE", "f32, f16, bf16, q8_0, q4_k_m, ... (quantize.type; default: f32)"},
        {"adapter", NULL, "write the adapter alone, as a GGUF file for llama.cpp's --lora"},
        {"imatrix", "FILE", "importance matrix to round by (quantize.imatrix)"},
        {"calibration", "TEXT", "collect one on this text (quantize.calibration)"},
        {"card", "TEXT", "write a quality card, scored on this text (quantize.card_text)"},
        {"format", "FORMAT", "gguf, hf or checkpoint (default: gguf for *.gguf, else hf)"},
        {0},
    };
    return cm_app_main(argc, argv, &(cm_app){
        .name = "quantize",
        .summary = "convert a model between checkpoint, GGUF and Hugging Face form",
        .examples = "  quantize --model runs/demo --type q8_0 --out demo.gguf\n"
                    "  quantize --model runs/demo --type bf16 --format hf --out demo-hf\n"
                    "  quantize --model runs/lora --adapter --out lora.gguf   # else merged\n"
                    "  quantize --model demo.gguf --format checkpoint --out imported\n",
        .sections = "top quantize",
        .options = options,
        .run = run,
    });
}
