/* quantize.c -- a checkpoint into GGUF or Hugging Face's form, and both back.
 *
 * What is written is read again by the same door every tool uses, and compared with the
 * source: every tensor within its type's error, and the logits of a fixed probe. */
#include "app/app.h"
#include "harness/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <strings.h>

typedef struct job {
    cm_app_ctx *app;
    cm_quantize_conf *c;
    bool gguf;
    cm_export x;
    cm_loaded source, back;
    cm_imatrix *imatrix; /* NULL: none */
    cm_export_plan plan;
    cm_sums sums;        /* of what was written */
    cm_parity parity;
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

/* ---- the plan ---------------------------------------------------------------------- */

static void warn_lines(char *lines) {
    for (char *line; lines && (line = strsep(&lines, "\n")) && *line;)
        cm_log(CM_LOG_WARN, "%s", line);
}

/* Of a file before any work, of a text once it is read. */
static void warn_silent(const job *j) {
    cm_buf b = {0};
    if (j->imatrix) cm_export_plan_silent(&j->plan, j->imatrix, &b);
    warn_lines(b.s);
    cm_buf_free(&b);
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
    if (*j->c->imatrix) warn_silent(j);
    return check_memory(j, err);
}

static bool importances(job *j, cm_err *err) {
    if (!*j->c->calibration) return true;
    if (!take_importances(j, collect(j, err)) ||
        !cm_imatrix_fit(j->imatrix, &j->source.model, err))
        return false;
    warn_silent(j);
    return true;
}

/* ---- parity ----------------------------------------------------------------------- */

static bool check_written(job *j, cm_err *err) {
    cm_err why;
    if (!cm_load(&j->back, j->c->out, CM_LOAD_UNNAMED | CM_LOAD_LAZY, &why))
        return cm_fail(err, CM_EXIT_CHECK, "parity: what was written does not load: %s "
                       "(left in place)", why.msg);
    if (!cm_export_parity(&j->x, j->gguf, &j->parity, &why))
        return cm_fail(err, why.code == CM_EXIT_RESOURCE ? why.code : CM_EXIT_CHECK,
                       "%s: parity: %s (left in place)", j->c->out, why.msg);
    if ((j->source.spm != NULL) != (j->back.spm != NULL) ||
        (j->source.spm && !j->gguf &&
         strcmp(cm_spm_hash(j->source.spm), cm_spm_hash(j->back.spm))))
        return cm_fail(err, CM_EXIT_CHECK, "%s: parity: the tokenizer came back different (left "
                       "in place)", j->c->out);
    if (j->parity.unprobed)
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

static void report_json(const job *j, const cm_file_card *k) {
    const cm_parity *p = &j->parity;
    double none = p->unprobed ? NAN : 0;
    cm_buf b = begin_json(j);
    cm_json_u64(&b, "tensor_bytes", j->plan.tensor_bytes);
    cm_json_f64(&b, "max_logit_diff_rel", none + cm_parity_relative(p));
    cm_json_f64(&b, "kl_mean", none + p->kl);
    cm_json_f64(&b, "kl_max", none + p->kl_most);
    cm_json_f64(&b, "same_top1", none + (double)p->same / CM_PARITY_TOKENS);
    if (k->card.n) cm_file_card_json(k, "card", &b);
    cm_json_print(&b);
}

static void report(const job *j) {
    char size[32];
    const cm_parity *p = &j->parity;
    const char *type = cm_mix_name(j->x.mix);
    printf("%s: %s, %s of tensors\n", j->c->out, type,
           cm_human_bytes((double)j->plan.tensor_bytes, size, sizeof size));
    if (p->unprobed) {
        printf("parity: tensors within %s's error; logits not compared\n", type);
        return;
    }
    printf("parity: tensors within %s's error; over %d probe tokens: largest logit "
           "difference %.1e of the RMS, KL mean %.1e max %.1e nats, same top token %.1f%%\n",
           type, CM_PARITY_TOKENS, cm_parity_relative(p), p->kl, p->kl_most,
           100.0 * p->same / CM_PARITY_TOKENS);
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

/* Of a run that collects and writes nothing else. */
static void report_importances(const job *j) {
    const cm_quantize_conf *c = j->c;
    const cm_imatrix *m = j->imatrix;
    long long chunks = (long long)cm_imatrix_chunks(m);
    if (j->app->json) {
        cm_buf b = {0};
        cm_json_open(&b, NULL, '{');
        cm_json_str(&b, "imatrix", c->imatrix_out);
        cm_json_i64(&b, "tensors", cm_imatrix_entries(m));
        cm_json_i64(&b, "chunks", chunks);
        cm_json_i64(&b, "tokens", chunks * c->context);
        cm_json_print(&b);
    } else if (!j->app->quiet) {
        printf("%s: importances of %d tensors, from %lld %s of %lld tokens\n",
               c->imatrix_out, cm_imatrix_entries(m), chunks,
               chunks == 1 ? "chunk" : "chunks", (long long)c->context);
    }
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
    const cm_parity *p = &j->parity;
    double rel = cm_parity_relative(p);
    if (p->unprobed) return true;
    if (j->x.mix == CM_TYPE_F32 && !j->x.tensors->n && !(rel <= f32_bound(j)))
        return cm_fail(err, CM_EXIT_CHECK, "%s: parity: the logits differ from the source's by "
                       "up to %.2e of their RMS (f32: at most %g); left in place", j->c->out,
                       rel, f32_bound(j));
    return fabs(p->kl) <= kl_bound(j) ||
           cm_fail(err, CM_EXIT_CHECK, "%s: parity: the logits differ from the source's: largest "
                   "%.2e of the RMS, KL %.2e nats (at most %.0e passes); left in place",
                   j->c->out, rel, p->kl, kl_bound(j));
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
    if (!*c->card_text) return true;
    *k = (cm_file_card){.type = cm_mix_name(j->x.mix), .text = c->card_text,
                        .importances = j->imatrix ? cm_imatrix_dataset(j->imatrix) : "",
                        .file_bytes = j->plan.file_bytes,
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

/* A file that a rename will put in its place: not over a folder, a pipe or a device. */
static bool check_imatrix_out(const char *path, cm_err *err) {
    struct stat st;
    if (!*path) return true;
    if (!stat(path, &st) && !S_ISREG(st.st_mode))
        return cm_fail(err, CM_EXIT_USAGE, "quantize.imatrix_out: %s is %s, not a file", path,
                       S_ISDIR(st.st_mode) ? "a folder" : "a pipe or a device");
    return cm_need_folder_of(path, false, err);
}

static bool check_out(const job *j, cm_err *err) {
    const char *out = j->c->out;
    return !*out || ((j->gguf || cm_export_fits_folder(&j->x, err)) &&
                     cm_export_may_replace(out, j->gguf, err) &&
                     cm_need_folder_of(out, !j->gguf, err));
}

/* An adapter's model is read from two places, the second known by the first alone. */
static bool check_base(const job *j, cm_err *err) {
    return !j->source.base ||
           cm_app_apart((cm_app_file[]){{"the adapter's base", j->source.base}, {0}},
                        (cm_app_file[]){{"--out", j->c->out},
                                        {"quantize.imatrix_out", j->c->imatrix_out}, {0}}, err);
}

/* What can be known before any work: --dry-run asks the same. */
static bool check_world(const job *j, cm_err *err) {
    const cm_quantize_conf *c = j->c;
    if (!check_base(j, err)) return false;
    if (!check_out(j, err) || !check_imatrix_out(c->imatrix_out, err)) return false;
    return enough_text(j, c->calibration, err) && enough_text(j, c->card_text, err);
}

static bool write_out(job *j, cm_err *err) {
    const char *out = j->c->out;
    return j->x.adapter ? cm_export_gguf_adapter(&j->x, out, err)
           : j->gguf    ? cm_export_gguf(&j->x, out, err)
                        : cm_export_hf(&j->x, out, err);
}

static bool run_job(job *j, cm_err *err) {
    if (!read_options(j, err) || !check_apart(j, err) || !load_source(j, err) ||
        !check_world(j, err) || !make_plan(j, err))
        return false;
    if (j->app->dry_run) return print_plan(j), true;
    if (!importances(j, err)) return false;
    if (!*j->c->out) return report_importances(j), true;
    if (!write_out(j, err) || !cm_file_card_remove(j->c->out, err)) return false;
    if (j->x.adapter) return report_adapter(j), true;
    return check_written(j, err) && judge(j, err);
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
