/* judge.h -- the questions of `world` with what was answered: who is right, and is it fair?
 *
 * questions.c  questions, instructions and sampled answers as tables in memory
 * nearest.c    the baselines: a skill's commonest answer; the nearest training question's
 * pairs.c      sampled answers to pairs of a better and a worse one
 * leaks.c      is anything that a test asks for in a training text? */
#ifndef CM_JUDGE_H
#define CM_JUDGE_H

#include "base/base.h"

/* ---- questions ------------------------------------------------------------------------ */

/* Texts live as long as the table. */
typedef struct cm_question_row {
    const char *id, *skill, *prompt, *answer;
    const char *doc, *sum; /* "" where the row has none */
    const char *reply;     /* what should be said: a preference's chosen answer, or "" */
} cm_question_row;
typedef struct cm_questions {
    cm_question_row *row;
    int n, cap;
} cm_questions;
/* A file of `world --kind questions` or `preferences`.  CM_EXIT_DATA with file and line for
 * a row without id, skill, prompt or answer, and for a file of none. */
bool cm_questions_read(cm_questions *q, const char *path, cm_err *err);
void cm_questions_free(cm_questions *q);
int cm_questions_find(const cm_questions *q, const char *id); /* -1: absent */

/* The turns of `world --kind instructions`: all that the user said so far, and the answer
 * without its reasoning.  Of the rows only prompt and answer are set, the others are "". */
bool cm_instructions_read(cm_questions *q, const char *path, cm_err *err);

/* ---- sampled answers ------------------------------------------------------------------- */

/* What an evaluation folder (kind generate) says of each of the questions. */
typedef struct cm_sampled {
    char *path;
    char **out;           /* [n] the text, reasoning included, in questions' order */
    double *right;        /* [n] 0 or 1; what its primary metric says */
    double *length;       /* [n] tokens generated */
    bool *ended;          /* [n] by itself */
    int n;
} cm_sampled;
/* metric: NULL means the task's primary one.  Questions without an answer in the folder and
 * answers to other questions are CM_EXIT_DATA. */
bool cm_sampled_read(cm_sampled *s, const char *path, const char *metric,
                     const cm_questions *q, cm_err *err);
void cm_sampled_free(cm_sampled *s);

/* ---- baselines ------------------------------------------------------------------------- */

/* right[q->n]: whether the commonest answer among the questions of the same skill (of the
 * test itself, the strictest choice) is the answer. */
void cm_majority_score(const cm_questions *q, double *right);
/* right[q->n]: whether the answer to the most similar training prompt is right by the
 * world's checker.  Similar: cosine of words and pairs of neighbouring words, each weighted
 * by its log inverse document frequency; those in more than three of ten prompts tell
 * nothing and are left out.  Ties: the first prompt. */
bool cm_nearest_score(const cm_questions *train, const cm_questions *q, double *right,
                      cm_err *err);

/* ---- pairs ---------------------------------------------------------------------------- */

typedef struct cm_pairs_count {
    int pairs, own, all_right; /* own: whose better answer was sampled, too */
} cm_pairs_count;
/* One line {"id","prompt","chosen","rejected"} for each question that at least one of the
 * samples got wrong.  Chosen: the first right answer among the samples, else the question's
 * own reply; rejected: the first wrong one. */
bool cm_pairs_write(const cm_questions *q, const cm_sampled *s, int n_samples, const char *path,
                    cm_pairs_count *c, cm_err *err);

/* ---- leaks ------------------------------------------------------------------------------ */

/* Everything in training texts that a test could ask for, and what of it a test does ask. */
typedef struct cm_leaks cm_leaks;
cm_leaks *cm_leaks_open(const cm_questions *test);
void cm_leaks_close(cm_leaks *l);
/* A training file: stories (`world --kind stories --seed SEED`; each is told again to learn
 * what it is about, and must be the same text) or conversations and preferences. */
bool cm_leaks_add(cm_leaks *l, const char *path, uint64_t seed, cm_err *err);
typedef struct cm_leaks_count {
    int64_t texts, sums;           /* training texts read; different operand pairs in them */
    int test_prompts, prompts;     /* of the test; of these also in training */
    int test_facts, facts;         /* who, what and where of stories and questions */
    int test_sums, test_sums_found; /* operand pairs asked for */
    char example[200];             /* of the first leak, or "" */
} cm_leaks_count;
cm_leaks_count cm_leaks_found(cm_leaks *l);

#endif
