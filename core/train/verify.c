/* verify.c -- proof on the spot that resuming changes no bit. */
#include "train/train.h"
#include "train/ckpt_int.h"

#include <stdlib.h>
#include <string.h>

/* Train in a scratch folder up to a step. */
static bool leg(const cm_job *job, const char *dir, cm_resume resume, int64_t stop_at,
                bool *stopped, cm_err *err) {
    cm_job j = *job;
    bool complete;
    j.run = NULL;
    j.sample = NULL;
    j.ckpt_dir = dir;
    j.resume = resume;
    j.stop_at = stop_at;
    bool ok = cm_train(&j, &complete, err);
    *stopped = ok && cm_signal_stop();
    return ok;
}

static char *sums_of(const char *dir, int64_t step, cm_err *err) {
    char *name = cm__ckpt_name(step), *path = cm_strf("%s/%s/SHA256SUMS", dir, name), *text;
    size_t n;
    if (!cm_read_file(path, 1 << 20, &text, &n, err)) text = NULL;
    free(path);
    free(name);
    return text;
}

static bool compare(const char *a, const char *b, int64_t K, cm_err *err) {
    char *x = sums_of(a, 2 * K, err), *y = x ? sums_of(b, 2 * K, err) : NULL;
    bool ok = x && y;
    if (ok && strcmp(x, y)) {
        char *file = x;
        size_t i = 0;
        for (; x[i] == y[i]; i++)
            if (x[i] == '\n') file = x + i + 1;
        ok = cm_fail(err, CM_EXIT_CHECK,
                     "resuming at step %lld changed the bits of step %lld: %.*s differs",
                     (long long)K, (long long)(2 * K), (int)strcspn(file + 66, "\n"),
                     strlen(file) > 66 ? file + 66 : "?");
    }
    free(x);
    free(y);
    return ok;
}

bool cm_train_verify_resume(const cm_job *job, int64_t K, const char *scratch,
                            cm_err *err) {
    cm_plan plan;
    if (!cm_plan_make(job, &plan, err)) return false;
    if (K < 1 || 2 * K > plan.steps)
        return cm_fail(err, CM_EXIT_USAGE,
                       "--verify-resume=%lld trains %lld steps, this run has %lld",
                       (long long)K, (long long)(2 * K), (long long)plan.steps);
    char *a = cm_strf("%s/straight", scratch), *b = cm_strf("%s/resumed", scratch);
    bool stopped = false;
    bool ok = cm_remove_tree(scratch, err) &&
              leg(job, a, CM_RESUME_NEVER, 2 * K, &stopped, err) &&
              (stopped || leg(job, b, CM_RESUME_NEVER, K, &stopped, err)) &&
              (stopped || leg(job, b, CM_RESUME_MUST, 2 * K, &stopped, err)) &&
              (stopped || compare(a, b, K, err));
    cm_err ignored;
    cm_remove_tree(scratch, &ignored);
    free(a);
    free(b);
    return ok;
}
