/* gen_task.c -- kind generate: continuations, filtered and checked. */
#include <stdlib.h>
#include <string.h>

#include "harness/task_int.h"

static bool read_generate(cm_eval_task *t, const cm_row *r, const char **prompt,
                          const char **answer, cm_err *err) {
    if (!*t->c->answer)
        return cm_conf_bad(&t->file, err, "task.answer", "kind generate wants an answer");
    *prompt = cm_render_keep(t, t->c->prompt, r, true, err);
    if (!*prompt) return false;
    *answer = cm_render_keep(t, t->c->answer, r, false, err);
    return *answer && (**answer || cm_fail(err, CM_EXIT_DATA, "an empty answer"));
}

static bool solve_generate(cm_eval_task *t, const cm_row *r, cm_buf *out, cm_buf *solution,
                           cm_err *err) {
    const char *prompt, *answer;
    if (!read_generate(t, r, &prompt, &answer, err)) return false;
    cm_buf_addf(out, "%s", prompt);
    cm_buf_addf(solution, "%s", t->c->delimiter);
    if (*t->c->shot_target) return cm_render(t, t->c->shot_target, r, true, solution, err);
    cm_buf_addf(solution, "%s", answer);
    return true;
}

static bool row_generate(cm_eval_task *t, const cm_row *r, cm_question *q, cm_err *err) {
    const char *prompt;
    if (!read_generate(t, r, &prompt, &q->answer, err)) return false;
    cm_asked p;
    if (!cm_check_reference(t, q->answer, err) ||
        !cm_prompt_make(t, prompt, solve_generate, &p, err))
        return false;
    q->prompt = p.text;
    cm_question_asks(t, q, 1);
    return cm_ask_generate(t, q->ask, &p, (int)t->c->max_new_tokens, err);
}

/* The filtered answer in *pred, whether there was one, whether it is right. */
static bool judge(const cm_eval_task *t, const cm_question *q, const cm_regex *filter,
                  bool last, cm_buf *pred, bool *found, bool *same, cm_err *err) {
    bool whole = !t->chat || t->c->think == CM_THINK_KEEP;
    *same = false;
    const cm_ask *a = q->ask;
    const char *from = whole ? a->text : a->reply;
    size_t n = a->bytes - (size_t)(from - a->text);
    return cm_filter_answer(filter, last, from, n, pred, found, err) &&
           (!*found || cm_check_answer(t, pred, q->answer, same, err));
}

static void score_generate(const cm_eval_task *t, const cm_question *q, cm_item *out,
                           cm_buf *detail) {
    const cm_task_conf *c = t->c;
    const cm_ask *a = q->ask;
    cm_buf pred = { 0 };
    bool found = false, same = false, last = c->filter_match == CM_MATCH_LAST;
    cm_err err;
    cm_json_str(detail, "prompt", q->prompt);
    cm_json_str(detail, "answer", q->answer);
    cm_json_said(detail, "out", a->text, a->bytes);
    if (!judge(t, q, t->in->filter, last, &pred, &found, &same, &err))
        cm_json_str(detail, "filter_error", err.msg);
    if (found) cm_json_said(detail, "pred", pred.s, pred.n);
    cm_item_put(t, out, "exact_match", same, 1);
    cm_item_put(t, out, "answered", found, 1);
    if (t->chat) {
        cm_item_put(t, out, "parsed", found && !a->open, 1);
        cm_item_put(t, out, "thought", a->thought, 1);
    }
    if (t->in->flexible) {
        if (!judge(t, q, t->in->flexible, true, &pred, &found, &same, &err))
            cm_json_str(detail, "flexible_error", err.msg);
        if (found) cm_json_said(detail, "flexible_pred", pred.s, pred.n);
        cm_item_put(t, out, "flexible_match", same, 1);
    }
    cm_item_put(t, out, "gen_tokens", a->n_out, 1);
    cm_item_put(t, out, "ended", a->ended, 1);
    cm_json_i64(detail, "tokens", a->n_out);
    cm_buf_free(&pred);
}

const cm_kind cm_kind_generate = {
    .name = "generate",
    .help = "continuations up to a stop string; the filtered answer is checked",
    .metrics = "exact_match answered ended gen_tokens",
    .extra = "flexible_match parsed thought",
    .in_chat = "parsed thought",
    .primary = "exact_match",
    .keys = CM_KEYS_ALL CM_KEYS_PROMPT
            "answer stop max_new_tokens filter filter_match flexible_filter ignore ignore_case "
            "ignore_punctuation checker temperature seed think",
    .row = row_generate,
    .score = score_generate,
};
