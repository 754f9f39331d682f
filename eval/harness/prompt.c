/* prompt.c -- templates, few-shot prompts, and texts as requests of tokens. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "harness/task_int.h"

/* ---- templates ----------------------------------------------------------------------- */

/* The next piece of a template: literal text up to a brace, or a field's name.  False at
 * the end; *bad: a brace without its partner. */
typedef struct piece {
    const char *s;
    size_t n;
    bool field, bad;
} piece;

static bool next_piece(const char **p, piece *out) {
    const char *s = *p;
    *out = (piece){ .s = s };
    if (!*s) return false;
    if ((*s == '{' && s[1] == '{') || (*s == '}' && s[1] == '}')) {
        out->n = 1;
        *p = s + 2;
    } else if (*s == '{') {
        const char *end = strchr(s, '}');
        out->field = true;
        out->bad = !end || end == s + 1;
        out->s = s + 1;
        out->n = end ? (size_t)(end - s) - 1 : 0;
        *p = end ? end + 1 : s + strlen(s);
    } else if (*s == '}') {
        out->bad = true;
        *p = s + 1;
    } else {
        out->n = strcspn(s, "{}");
        *p = s + out->n;
    }
    return true;
}

bool cm_template_check(const char *template, cm_err *err) {
    piece x;
    while (next_piece(&template, &x))
        if (x.bad)
            return cm_fail(err, CM_EXIT_USAGE,
                           "a brace without its partner; write {{ or }} for a brace");
    return true;
}

bool cm_clean(const cm_eval_task *t, cm_buf *text, cm_err *err) {
    bool ok = true;
    for (int i = 0; ok && i < t->in->n_replace; i++)
        ok = cm_regex_replace(t->in->replace[i], t->c->replace.v[2 * i + 1], text, err);
    return ok;
}

bool cm_render(const cm_eval_task *t, const char *template, const cm_row *r, bool clean,
               cm_buf *out, cm_err *err) {
    cm_buf text = { 0 };
    piece x;
    bool ok = true;
    cm_buf_add(&text, "", 0);
    while (ok && next_piece(&template, &x)) {
        char name[256];
        if (!x.field) {
            cm_buf_add(&text, x.s, x.n);
            continue;
        }
        snprintf(name, sizeof name, "%.*s", (int)x.n, x.s);
        const cJSON *v = cm_row_get(r, name);
        if (!v || !cm_value_text(v, &text))
            ok = cm_fail(err, CM_EXIT_DATA, v ? "field '%s' is no text and no number"
                                              : "no field '%s'", name);
    }
    ok = ok && (!clean || cm_clean(t, &text, err));
    if (ok) cm_buf_add(out, text.s, text.n);
    cm_buf_free(&text);
    return ok;
}

const char *cm_render_keep(cm_eval_task *t, const char *template, const cm_row *r, bool clean,
                           cm_err *err) {
    cm_buf b = { 0 };
    cm_buf_add(&b, "", 0);
    const char *kept = NULL;
    if (cm_render(t, template, r, clean, &b, err)) kept = cm_pool_text(&t->pool, b.s, b.n);
    cm_buf_free(&b);
    return kept;
}

/* ---- few-shot ------------------------------------------------------------------------ */

/* Examples of the item being made, as rows of in->shot.  A function of seed and item alone,
 * so the order in which items are made does not matter.  Never a row equal to the item. */
static bool pick_shots(const cm_eval_task *t, int64_t *pick, cm_err *err) {
    const struct cm_task_int *in = t->in;
    const cm_task_conf *c = t->c;
    const cm_row *own = &in->row[in->at];
    cm_rng rng = cm_rng_make((uint64_t)c->shot_seed, CM_RNG_FEWSHOT, (uint64_t)in->at);
    bool drawn = c->shot_pick == CM_SHOT_SEEDED;
    int64_t n = 0, tries = drawn ? 64 * (t->shots + 16) : in->n_shots;
    for (int64_t i = 0; n < t->shots && i < tries; i++) {
        int64_t k = i;
        if (drawn) k = (int64_t)cm_rng_below(rng, (uint64_t)i, (uint64_t)in->n_shots);
        bool taken = cJSON_Compare(in->shot[k].o, own->o, true);
        for (int64_t j = 0; j < n && !taken; j++) taken = pick[j] == k;
        if (!taken) pick[n++] = k;
    }
    return n == t->shots ||
           cm_fail(err, CM_EXIT_DATA, "%lld examples are wanted, but the %lld rows they come "
                   "from do not have so many besides the item itself", (long long)t->shots,
                   (long long)in->n_shots);
}

/* A solved example as text, or as two turns. */
static bool put_shot(cm_eval_task *t, const cm_row *r, cm_solve_fn solve, cm_buf *b,
                     cm_turn *turn, cm_err *err) {
    cm_buf answer = { 0 }, *to = t->chat ? &answer : b;
    cm_err why;
    bool ok = solve(t, r, b, to, &why);
    if (ok && t->chat) {
        const char *s = answer.s ? answer.s : "";
        while (isspace((unsigned char)*s)) s++;
        turn[0] = (cm_turn){ CM_ROLE_USER, cm_pool_text(&t->pool, b->s, b->n), NULL, b->n, 0 };
        ok = cm_turn_answer(&turn[1], cm_pool_text(&t->pool, s, strlen(s)), strlen(s)) ||
             cm_fail(&why, CM_EXIT_DATA, "its solution has <think> without </think>");
    }
    cm_buf_free(&answer);
    return ok || cm_fail(err, why.code, "its example %s:%lld: %s", r->path, (long long)r->line,
                         why.msg);
}

/* Turns as a person reads them, up to where the assistant goes on. */
static const char *read_turns(cm_eval_task *t, const cm_turn *turn, int n) {
    cm_buf b = { 0 };
    for (int i = 0; i < n; i++) {
        const cm_turn *u = &turn[i];
        cm_buf_addf(&b, "<|%s|>", cm_role_names[u->role]);
        if (u->think) cm_buf_addf(&b, "<think>%.*s</think>", (int)u->n_think, u->think);
        cm_buf_addf(&b, "%.*s<|end|>", (int)u->n, u->text);
    }
    cm_buf_addf(&b, "<|assistant|>");
    const char *kept = cm_pool_text(&t->pool, b.s, b.n);
    cm_buf_free(&b);
    return kept;
}

cm_asked cm_asked_plain(cm_eval_task *t, const char *prompt) {
    if (!t->chat) return (cm_asked){ .text = prompt };
    cm_turn *u = cm_pool_get(&t->pool, sizeof *u);
    *u = (cm_turn){ .role = CM_ROLE_USER, .text = prompt, .n = strlen(prompt) };
    return (cm_asked){ read_turns(t, u, 1), u, 1 };
}

static bool make_text(cm_eval_task *t, const char *own, const int64_t *pick, cm_solve_fn solve,
                      cm_asked *out, cm_err *err) {
    cm_buf b = { 0 };
    cm_buf_addf(&b, "%s", t->c->primer);
    bool ok = true;
    for (int64_t i = 0; ok && i < t->shots; i++) {
        ok = put_shot(t, &t->in->shot[pick[i]], solve, &b, NULL, err);
        cm_buf_addf(&b, "%s", t->c->shot_delimiter);
    }
    cm_buf_addf(&b, "%s", own);
    *out = (cm_asked){ .text = cm_pool_text(&t->pool, b.s, b.n) };
    cm_buf_free(&b);
    return ok;
}

/* The primer begins the first user's text. */
static bool make_turns(cm_eval_task *t, const char *own, const int64_t *pick, cm_solve_fn solve,
                       cm_asked *out, cm_err *err) {
    const char *system = t->c->system;
    cm_turn *turn = cm_pool_get(&t->pool, (size_t)(2 * t->shots + 2) * sizeof *turn);
    cm_buf b = { 0 };
    int n = 0;
    bool ok = true;
    if (*system) turn[n++] = (cm_turn){ CM_ROLE_SYSTEM, system, NULL, strlen(system), 0 };
    cm_buf_addf(&b, "%s", t->c->primer);
    for (int64_t i = 0; ok && i < t->shots; i++, n += 2) {
        ok = put_shot(t, &t->in->shot[pick[i]], solve, &b, &turn[n], err);
        b.n = 0;
    }
    cm_buf_addf(&b, "%s", own);
    turn[n++] = (cm_turn){ CM_ROLE_USER, cm_pool_text(&t->pool, b.s, b.n), NULL, b.n, 0 };
    cm_buf_free(&b);
    if (ok) *out = (cm_asked){ read_turns(t, turn, n), turn, n };
    return ok;
}

bool cm_prompt_make(cm_eval_task *t, const char *own, cm_solve_fn solve, cm_asked *out,
                    cm_err *err) {
    int64_t pick[1000];
    if (t->shots && !pick_shots(t, pick, err)) return false;
    return (t->chat ? make_turns : make_text)(t, own, pick, solve, out, err);
}

/* ---- tokens -------------------------------------------------------------------------- */

int cm_task_prefix(const cm_eval_task *t) {
    int bos = cm_spm_bos(t->model->spm);
    return bos >= 0 ? bos : cm_spm_eos(t->model->spm);
}

void cm_question_asks(cm_eval_task *t, cm_question *q, int n) {
    q->n_asks = n;
    q->ask = cm_pool_get(&t->pool, (size_t)n * sizeof *q->ask);
}

void cm_ask_tokens(cm_eval_task *t, cm_ask *a, const int32_t *token, int n, int first) {
    /* `context` tokens go in; the last scored one only comes out. */
    int most = t->context + (first < n);
    int cut = n > most ? n - most : 0;
    int32_t *copy = cm_pool_get(&t->pool, (size_t)(n - cut) * sizeof *copy);
    memcpy(copy, token + cut, (size_t)(n - cut) * sizeof *copy);
    *a = (cm_ask){ .token = copy, .n = n - cut, .cut = cut };
    a->first = first - cut < 1 ? 1 : first - cut;
    if (a->first > a->n) a->first = a->n;
}

static bool put_id(struct cm_task_int *in, int32_t id) {
    if (in->n_id == in->cap_id) {
        in->cap_id = in->cap_id ? 2 * in->cap_id : 1024;
        in->id = realloc(in->id, (size_t)in->cap_id * sizeof *in->id);
        CM_ASSERT(in->id, "out of memory: tokens");
    }
    in->id[in->n_id++] = id;
    return true;
}

static bool put_text(cm_eval_task *t, const char *s, size_t n, cm_err *err) {
    struct cm_task_int *in = t->in;
    return !n || cm_spm_encode(t->model->spm, s, n, &in->id, &in->n_id, &in->cap_id, err);
}

const cm_chat *cm_task_chat(cm_eval_task *t, cm_err *err) {
    struct cm_task_int *in = t->in;
    cm_err why;
    if (!in->chat_open && !cm_chat_open(&in->chat, t->model->spm, &why)) {
        cm_fail(err, CM_EXIT_USAGE, "task %s asks in chat, but %s", t->name, why.msg);
        return NULL;
    }
    in->chat_open = true;
    return &in->chat;
}

/* The turns up to where the assistant goes on; with task.think none past an empty block. */
static bool put_chat(cm_eval_task *t, const cm_asked *p, cm_err *err) {
    struct cm_task_int *in = t->in;
    const cm_chat *c = cm_task_chat(t, err);
    cm_chat_ids x = { 0 };
    bool ok = c && cm_chat_render(c, t->model->spm, p->turn, p->n_turns, true, &x, err);
    for (int64_t i = 0; ok && i < x.n; i++) put_id(in, x.id[i]);
    if (ok && t->c->think == CM_THINK_NONE) ok = put_id(in, c->think) && put_id(in, c->unthink);
    cm_chat_ids_free(&x);
    return ok;
}

static void begin(cm_eval_task *t, bool need) {
    t->in->n_id = 0;
    int bos = cm_spm_bos(t->model->spm), prefix = need ? cm_task_prefix(t) : bos;
    if (prefix >= 0) put_id(t->in, prefix);
}

static bool put_context_and(cm_eval_task *t, const char *prompt, const char *what,
                            int64_t *first, cm_err *err) {
    struct cm_task_int *in = t->in;
    size_t n = strlen(prompt);
    while (n && isspace((unsigned char)prompt[n - 1])) n--; /* they belong to what follows */
    begin(t, !n);
    int64_t start = in->n_id;
    char *whole = cm_strf("%s%s", prompt, what);
    bool ok = put_text(t, prompt, n, err);
    *first = in->n_id;
    in->n_id = start;
    ok = ok && put_text(t, whole, strlen(whole), err);
    free(whole);
    return ok;
}

bool cm_ask_score(cm_eval_task *t, cm_ask *a, const cm_asked *prompt, const char *what,
                  cm_err *err) {
    struct cm_task_int *in = t->in;
    int64_t first = 0;
    bool ok;
    in->n_id = 0;
    if (prompt->turn) {
        while (isspace((unsigned char)*what)) what++;
        ok = put_chat(t, prompt, err);
        first = in->n_id;
        ok = ok && put_text(t, what, strlen(what), err);
    } else {
        ok = put_context_and(t, prompt->text, what, &first, err);
    }
    if (!ok) return false;
    /* The border may have merged into one token: that one is scored. */
    if (first >= in->n_id) first = in->n_id - 1;
    if (first < 1)
        return cm_fail(err, CM_EXIT_DATA, "a continuation with nothing before it, and a "
                       "tokenizer without BOS and EOS");
    cm_ask_tokens(t, a, in->id, (int)in->n_id, (int)first);
    return true;
}

static bool put_prompt(cm_eval_task *t, const cm_asked *p, cm_err *err) {
    t->in->n_id = 0;
    if (p->turn) return put_chat(t, p, err);
    begin(t, !*p->text);
    return put_text(t, p->text, strlen(p->text), err);
}

bool cm_ask_generate(cm_eval_task *t, cm_ask *a, const cm_asked *prompt, int max_new,
                     cm_err *err) {
    struct cm_task_int *in = t->in;
    if (!put_prompt(t, prompt, err)) return false;
    int room = t->context - max_new;
    if (room < 1)
        return cm_fail(err, CM_EXIT_USAGE, "task %s generates up to %d tokens, which leaves no "
                       "room for a prompt in a context of %d", t->name, max_new, t->context);
    int n = (int)in->n_id, cut = n > room ? n - room : 0;
    cm_ask_tokens(t, a, in->id + cut, n - cut, n - cut);
    a->cut = cut;
    a->max_new = max_new;
    return true;
}

/* ---- answers ------------------------------------------------------------------------- */

double cm_ask_loglik(const cm_ask *a) {
    double sum = 0;
    for (int i = 0; i < a->n - a->first; i++) sum += a->logp[i];
    return sum;
}

bool cm_ask_greedy(const cm_ask *a) {
    for (int i = 0; i < a->n - a->first; i++)
        if (!a->greedy[i]) return false;
    return true;
}
