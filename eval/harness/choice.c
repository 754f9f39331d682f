/* choice.c -- kinds choice, pairs and cloze: log-likelihoods of given continuations. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/task_int.h"

/* ---- what a row says ----------------------------------------------------------------- */

enum { MAX_CHOICES = 1000 };

static bool put_choice(cm_eval_task *t, cm_question *q, const char *s, size_t n, cm_err *err) {
    cm_buf b = { 0 };
    cm_buf_add(&b, s, n);
    bool ok = cm_clean(t, &b, err);
    if (ok && !b.n)
        ok = cm_fail(err, CM_EXIT_DATA, "choice %d is empty", q->n_choices + 1);
    if (ok) q->choice[q->n_choices++] = cm_pool_text(&t->pool, b.s, b.n);
    cm_buf_free(&b);
    return ok;
}

/* A list of texts, or an object {text: 1 or 0}, whose ones are right. */
static bool choices_of_field(cm_eval_task *t, const cm_row *r, const char *field,
                             cm_question *q, bool *right, cm_err *err) {
    const cJSON *v = cm_row_get(r, field), *e;
    if (!v) return cm_fail(err, CM_EXIT_DATA, "no field '%s' with choices", field);
    if (!cJSON_IsArray(v) && !cJSON_IsObject(v))
        return cm_fail(err, CM_EXIT_DATA, "field '%s' is no list of choices", field);
    cm_buf b = { 0 };
    bool ok = true;
    cJSON_ArrayForEach(e, v) {
        b.n = 0;
        if (cJSON_IsObject(v))
            cm_buf_addf(&b, "%s", e->string);
        else if (!cm_value_text(e, &b))
            ok = cm_fail(err, CM_EXIT_DATA, "choice %d is no text", q->n_choices + 1);
        if (cJSON_IsObject(v))
            right[q->n_choices] = cJSON_IsTrue(e) || (cJSON_IsNumber(e) && e->valuedouble == 1);
        ok = ok && put_choice(t, q, b.s ? b.s : "", b.n, err);
        if (!ok) break;
    }
    cm_buf_free(&b);
    return ok;
}

static bool choices_of_templates(cm_eval_task *t, const cm_row *r, cm_question *q,
                                 cm_err *err) {
    const cm_list *l = &t->c->choices;
    bool ok = true;
    for (int i = 0; ok && i < l->n; i++) {
        cm_buf b = { 0 };
        ok = cm_render(t, l->v[i], r, false, &b, err) &&
             put_choice(t, q, b.s ? b.s : "", b.n, err);
        cm_buf_free(&b);
    }
    return ok;
}

/* The number of the right choice in field gold, or -1 with a sentence. */
static int64_t gold_of(const cm_eval_task *t, const cm_row *r, const cm_question *q,
                       cm_err *err) {
    const char *field = t->c->gold;
    const cJSON *v = cm_row_get(r, field);
    cm_buf b = { 0 };
    int64_t k = -1, i = 0;
    if (!v || !cm_value_text(v, &b)) {
        cm_fail(err, CM_EXIT_DATA, v ? "field '%s', the right choice, is no text and no number"
                                     : "no field '%s' that says which choice is right", field);
        return -1;
    }
    const char *s = b.s ? b.s : "";
    if (t->c->gold_is == CM_GOLD_TEXT) {
        for (i = 0; i < q->n_choices && k < 0; i++)
            if (!strcmp(q->choice[i], s)) k = i;
    } else if (t->c->gold_is == CM_GOLD_LETTER) {
        k = b.n == 1 && isalpha((unsigned char)*s) ? toupper((unsigned char)*s) - 'A' : -1;
    } else if (cm_parse_i64(s, &i)) {
        k = i - (t->c->gold_is == CM_GOLD_ONE);
    }
    if (k < 0 || k >= q->n_choices) {
        cm_fail(err, CM_EXIT_DATA, "the right choice is '%s' (field '%s'), which is none of "
                "the %d there are", s, field, q->n_choices);
        k = -1;
    }
    cm_buf_free(&b);
    return k;
}

static bool mark_right(cm_eval_task *t, const cm_row *r, cm_question *q, bool *right,
                       cm_err *err) {
    q->right = right;
    int n = 0;
    for (int i = 0; i < q->n_choices; i++) n += right[i];
    if (!n) {
        int64_t k = t->c->gold_index;
        if (*t->c->gold) {
            k = gold_of(t, r, q, err);
            if (k < 0) return false;
        } else if (k < 0 && t->kind->row && !strcmp(t->kind->name, "pairs")) {
            k = 0;
        }
        if (k < 0)
            return cm_fail(err, CM_EXIT_DATA, "nothing says which choice is right (task.gold, "
                           "task.gold_index)");
        if (k >= q->n_choices)
            return cm_fail(err, CM_EXIT_DATA, "choice %lld is the right one, but there are %d",
                           (long long)k, q->n_choices);
        right[k] = true;
        n = 1;
    }
    return n < q->n_choices || cm_fail(err, CM_EXIT_DATA, "all %d choices are right", n);
}

bool cm_choices_read(cm_eval_task *t, const cm_row *r, cm_question *q, cm_err *err) {
    const cm_task_conf *c = t->c;
    const char *field = *c->contexts ? c->contexts : c->choices.n == 1 ? c->choices.v[0] : NULL;
    if (!field && !c->choices.n)
        return cm_conf_bad(&t->file, err, "task.choices", "kind %s wants choices",
                           t->kind->name);
    int room = field && cm_row_get(r, field) ? cJSON_GetArraySize(cm_row_get(r, field))
                                             : c->choices.n;
    if (room > MAX_CHOICES)
        return cm_fail(err, CM_EXIT_DATA, "%d choices; at most %d", room, MAX_CHOICES);
    bool *right = cm_pool_get(&t->pool, (size_t)(room + 1) * sizeof *right);
    q->choice = cm_pool_get(&t->pool, (size_t)(room + 1) * sizeof *q->choice);
    if (!(field && !strchr(field, '{') ? choices_of_field(t, r, field, q, right, err)
                                       : choices_of_templates(t, r, q, err)))
        return false;
    if (q->n_choices < 2)
        return cm_fail(err, CM_EXIT_DATA, "%d choices; a choice wants two at least",
                       q->n_choices);
    return mark_right(t, r, q, right, err);
}

/* ---- choice and pairs ---------------------------------------------------------------- */

static int first_right(const cm_question *q) {
    int k = 0;
    while (k < q->n_choices && !q->right[k]) k++;
    return k;
}

static char *trimmed(cm_pool *p, const char *s) {
    size_t n = strlen(s);
    while (n && isspace((unsigned char)*s)) s++, n--;
    while (n && isspace((unsigned char)s[n - 1])) n--;
    return cm_pool_text(p, s, n);
}

/* Prompts that differ by choice before a target common to all (WinoGrande, WSC). */
static bool vary_context(cm_eval_task *t, const cm_row *r, cm_question *q, cm_err *err) {
    q->context = cm_pool_get(&t->pool, (size_t)q->n_choices * sizeof *q->context);
    if (*t->c->contexts) {
        for (int i = 0; i < q->n_choices; i++) q->context[i] = q->choice[i];
        const char *s = cm_render_keep(t, t->c->target, r, true, err);
        if (!s) return false;
        q->answer = trimmed(&t->pool, s);
    } else {
        const char *s = cm_render_keep(t, t->c->prompt, r, true, err);
        if (!s) return false;
        const char *hole = strstr(s, t->c->blank);
        if (!hole)
            return cm_fail(err, CM_EXIT_DATA, "no blank '%s' in the prompt", t->c->blank);
        cm_buf b = { 0 };
        for (int i = 0; i < q->n_choices; i++) {
            b.n = 0;
            cm_buf_add(&b, s, (size_t)(hole - s));
            cm_buf_addf(&b, "%s", q->choice[i]);
            q->context[i] = cm_pool_text(&t->pool, b.s, b.n);
        }
        cm_buf_free(&b);
        q->answer = trimmed(&t->pool, hole + strlen(t->c->blank));
    }
    return *q->answer || cm_fail(err, CM_EXIT_DATA, "nothing to score after the contexts");
}

/* Choices and the prompt of the row itself. */
static bool read_choice(cm_eval_task *t, const cm_row *r, cm_question *q, cm_err *err) {
    if (!cm_choices_read(t, r, q, err)) return false;
    if (*t->c->contexts || *t->c->blank) return vary_context(t, r, q, err);
    q->prompt = cm_render_keep(t, t->c->prompt, r, true, err);
    return q->prompt != NULL;
}

static bool solve_choice(cm_eval_task *t, const cm_row *r, cm_buf *prompt, cm_buf *solution,
                         cm_err *err) {
    cm_question q = { 0 };
    if (!read_choice(t, r, &q, err)) return false;
    int k = first_right(&q);
    cm_buf_addf(prompt, "%s", q.context ? q.context[k] : q.prompt);
    cm_buf_addf(solution, "%s", t->c->delimiter);
    if (*t->c->shot_target) return cm_render(t, t->c->shot_target, r, true, solution, err);
    cm_buf_addf(solution, "%s", q.context ? q.answer : q.choice[k]);
    return true;
}

static bool row_choice(cm_eval_task *t, const cm_row *r, cm_question *q, cm_err *err) {
    if (!read_choice(t, r, q, err)) return false;
    bool pmi = cm_task_reports(t, "acc_pmi"), ok = true;
    int n = q->n_choices, n_prompts = q->context ? n : 1;
    cm_asked *p = cm_pool_get(&t->pool, (size_t)n_prompts * sizeof *p);
    for (int i = 0; ok && i < n_prompts; i++) {
        const char **own = q->context ? &q->context[i] : &q->prompt;
        ok = cm_prompt_make(t, *own, solve_choice, &p[i], err);
        if (ok) *own = p[i].text;
    }
    cm_asked none = cm_asked_plain(t, "");
    if (ok) cm_question_asks(t, q, pmi ? 2 * n : n);
    for (int i = 0; ok && i < q->n_asks; i++) {
        char *what = cm_strf("%s%s", t->c->delimiter, q->context ? q->answer : q->choice[i % n]);
        ok = cm_ask_score(t, &q->ask[i], i >= n ? &none : q->context ? &p[i] : p, what, err);
        free(what);
    }
    return ok;
}

static int64_t characters(const char *s) {
    int64_t n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

/* Share of the right choices among those tied for the largest value. */
static double tied_share(const double *x, const bool *right, int n, int *ties) {
    double max = x[0];
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    int tied = 0, good = 0;
    for (int i = 0; i < n; i++)
        if (x[i] == max) tied++, good += right[i];
    *ties = tied;
    return (double)good / tied;
}

static int first_max(const double *x, int n) {
    int k = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[k]) k = i;
    return k;
}

/* softmax(L), its Brier score, largest value and the share of the right ones. */
static void put_calibration(const cm_eval_task *t, const cm_question *q, const double *L,
                            cm_item *out) {
    int n = q->n_choices, best = first_max(L, n), n_right = 0;
    double sum = 0, brier = 0, good = 0;
    for (int i = 0; i < n; i++) sum += exp(L[i] - L[best]), n_right += q->right[i];
    for (int i = 0; i < n; i++) {
        double p = exp(L[i] - L[best]) / sum, e = p - (q->right[i] ? 1.0 / n_right : 0);
        brier += e * e;
        if (q->right[i]) good += p;
    }
    cm_item_put(t, out, "brier", brier, 1);
    cm_item_put(t, out, "conf", 1 / sum, 1);
    cm_item_put(t, out, "true_mass", good, 1);
}

static void put_normalised(const cm_eval_task *t, const cm_question *q, const double *L,
                           cm_item *out) {
    int n = q->n_choices, ties;
    double *x = calloc((size_t)n, sizeof *x);
    CM_ASSERT(x, "out of memory: %d choices", n);
    static const char *const name[] = { "acc_tok", "acc_char", "acc_byte", "acc_pmi" };
    for (int k = 0; k < 4; k++) {
        if (!cm_task_reports(t, name[k])) continue;
        for (int i = 0; i < n; i++) {
            const cm_ask *a = &q->ask[i];
            const char *s = q->choice[i];
            x[i] = k == 3   ? L[i] - cm_ask_loglik(&q->ask[n + i])
                   : k == 0 ? L[i] / (a->n - a->first)
                            : L[i] / (double)(k == 1 ? characters(s) : (int64_t)strlen(s));
        }
        cm_item_put(t, out, name[k], tied_share(x, q->right, n, &ties), 1);
    }
    free(x);
}

static void detail_choice(const cm_question *q, const double *L, int pred, int ties,
                          cm_buf *d) {
    cm_json_str(d, "prompt", q->prompt);
    cm_json_open(d, q->context ? "contexts" : "choices", '[');
    for (int i = 0; i < q->n_choices; i++)
        cm_json_str(d, NULL, q->context ? q->context[i] : q->choice[i]);
    cm_json_close(d, '[');
    if (q->context) cm_json_str(d, "target", q->answer);
    cm_json_open(d, "right", '[');
    for (int i = 0; i < q->n_choices; i++)
        if (q->right[i]) cm_json_i64(d, NULL, i);
    cm_json_close(d, '[');
    cm_json_i64(d, "pred", pred);
    if (ties > 1) cm_json_i64(d, "ties", ties);
    cm_json_open(d, "loglik", '[');
    for (int i = 0; i < q->n_choices; i++) cm_json_f64(d, NULL, L[i]);
    cm_json_close(d, '[');
    cm_json_open(d, "tokens", '[');
    for (int i = 0; i < q->n_choices; i++)
        cm_json_i64(d, NULL, q->ask[i].n - q->ask[i].first);
    cm_json_close(d, '[');
}

static void score_choice(const cm_eval_task *t, const cm_question *q, cm_item *out,
                         cm_buf *detail) {
    int n = q->n_choices, ties;
    double *L = calloc((size_t)n, sizeof *L), good = -INFINITY, bad = -INFINITY;
    CM_ASSERT(L, "out of memory: %d choices", n);
    for (int i = 0; i < n; i++) {
        L[i] = cm_ask_loglik(&q->ask[i]);
        double *side = q->right[i] ? &good : &bad;
        *side = L[i] > *side ? L[i] : *side;
    }
    cm_item_put(t, out, "acc", tied_share(L, q->right, n, &ties), 1);
    cm_item_put(t, out, "acc_first", q->right[first_max(L, n)], 1);
    cm_item_put(t, out, "margin", good - bad, 1);
    put_normalised(t, q, L, out);
    put_calibration(t, q, L, out);
    detail_choice(q, L, first_max(L, n), ties, detail);
    free(L);
}

const cm_kind cm_kind_choice = {
    .name = "choice",
    .help = "multiple choice: the right continuation should be the most likely one",
    .metrics = "acc acc_first acc_tok acc_char acc_byte margin brier conf ece",
    .extra = "acc_pmi true_mass",
    .primary = "acc",
    .keys = CM_KEYS_ALL CM_KEYS_PROMPT
            "choices gold gold_is gold_index contexts blank target",
    .row = row_choice,
    .score = score_choice,
};

const cm_kind cm_kind_pairs = {
    .name = "pairs",
    .help = "minimal pairs: the first text should be more likely than the second",
    .metrics = "acc acc_first margin",
    .extra = "acc_tok acc_char acc_byte acc_pmi brier conf ece true_mass",
    .primary = "acc",
    .keys = CM_KEYS_ALL CM_KEYS_PROMPT
            "choices gold gold_is gold_index contexts blank target",
    .row = row_choice,
    .score = score_choice,
};

/* ---- cloze --------------------------------------------------------------------------- */

/* The text up to its last blank, and delimiter and word behind it. */
static bool split_last_word(cm_eval_task *t, const char *s, const char **prompt,
                            const char **what, cm_err *err) {
    const char *blank = strrchr(s, ' ');
    if (!blank || !blank[1])
        return cm_fail(err, CM_EXIT_DATA, "no last word to tell from the rest");
    *prompt = cm_pool_text(&t->pool, s, (size_t)(blank - s));
    *what = cm_pool_text(&t->pool, blank, strlen(blank));
    return true;
}

static bool read_cloze(cm_eval_task *t, const cm_row *r, const char **prompt,
                       const char **what, cm_err *err) {
    const cm_task_conf *c = t->c;
    if (*c->last_word) {
        const char *s = cm_render_keep(t, c->last_word, r, true, err);
        return s && split_last_word(t, s, prompt, what, err);
    }
    if (!*c->target)
        return cm_conf_bad(&t->file, err, "task.target", "kind cloze wants target or last_word");
    cm_buf b = { 0 };
    cm_buf_addf(&b, "%s", c->delimiter);
    size_t before = b.n;
    bool ok = cm_render(t, c->target, r, true, &b, err) &&
              (b.n > before || cm_fail(err, CM_EXIT_DATA, "an empty target"));
    if (ok) {
        *what = cm_pool_text(&t->pool, b.s, b.n);
        *prompt = cm_render_keep(t, c->prompt, r, true, err);
        ok = *prompt != NULL;
    }
    cm_buf_free(&b);
    return ok;
}

static bool solve_cloze(cm_eval_task *t, const cm_row *r, cm_buf *out, cm_buf *solution,
                        cm_err *err) {
    const char *prompt, *what;
    if (!read_cloze(t, r, &prompt, &what, err)) return false;
    cm_buf_addf(out, "%s", prompt);
    cm_buf_addf(solution, "%s", what);
    return true;
}

static bool row_cloze(cm_eval_task *t, const cm_row *r, cm_question *q, cm_err *err) {
    const char *prompt;
    cm_asked p;
    if (!read_cloze(t, r, &prompt, &q->answer, err) ||
        !cm_prompt_make(t, prompt, solve_cloze, &p, err))
        return false;
    q->prompt = p.text;
    cm_question_asks(t, q, 1);
    return cm_ask_score(t, q->ask, &p, q->answer, err);
}

static void score_cloze(const cm_eval_task *t, const cm_question *q, cm_item *out,
                        cm_buf *detail) {
    const cm_ask *a = q->ask;
    double L = cm_ask_loglik(a);
    cm_item_put(t, out, "greedy", cm_ask_greedy(a), 1);
    cm_item_put(t, out, "ppl_item", -L, 1);
    cm_item_put(t, out, "ppl_token", -L, a->n - a->first);
    cm_item_put(t, out, "bits_per_byte", -L / log(2.0), (double)strlen(q->answer));
    cm_json_str(detail, "prompt", q->prompt);
    cm_json_str(detail, "target", q->answer);
    cm_json_open(detail, "loglik", '[');
    cm_json_f64(detail, NULL, L);
    cm_json_close(detail, '[');
    cm_json_i64(detail, "tokens", a->n - a->first);
}

const cm_kind cm_kind_cloze = {
    .name = "cloze",
    .help = "a given continuation, such as a last word: likeliest token by token, perplexity",
    .metrics = "greedy ppl_item",
    .extra = "ppl_token bits_per_byte",
    .primary = "greedy",
    .keys = CM_KEYS_ALL CM_KEYS_PROMPT "target last_word",
    .row = row_cloze,
    .score = score_cloze,
};
