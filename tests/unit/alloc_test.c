/* alloc_test.c -- after the second step nothing of ours touches the heap, and memory used
 * equals memory planned.
 *
 * This binary defines malloc and its relatives itself, over glibc's, and counts calls
 * whose caller is not in the OpenBLAS or OpenMP libraries. */
#include "tests/train_fixture.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* The address sanitizer owns malloc; clang's OpenMP runtime allocates in every parallel loop,
 * some of it through libc, where it cannot be told from ours. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define COUNTS 1
static volatile bool counting;
static volatile int allocations;
static char first_caller[256];

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static void note(void *caller) {
    if (!counting) return;
    Dl_info where = { 0 };
    counting = false; /* dladdr must not count itself */
    bool known = dladdr(caller, &where) && where.dli_fname;
    counting = true;
    if (known && (strstr(where.dli_fname, "openblas") || strstr(where.dli_fname, "gomp")))
        return;
    if (!allocations++)
        snprintf(first_caller, sizeof first_caller, "%s (%s)",
                 where.dli_sname ? where.dli_sname : "?", known ? where.dli_fname : "?");
}

void *malloc(size_t n) {
    note(__builtin_return_address(0));
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    note(__builtin_return_address(0));
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    note(__builtin_return_address(0));
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t align, size_t n) {
    note(__builtin_return_address(0));
    return __libc_memalign(align, n);
}
int posix_memalign(void **p, size_t align, size_t n) {
    note(__builtin_return_address(0));
    return (*p = __libc_memalign(align, n)) ? 0 : 12;
}
#else
#define COUNTS 0
static bool counting;
static int allocations;
static char first_caller[1];
#endif

typedef struct {
    cm_objective lm;
    int calls, leak_at;
} watcher;

/* Two micro-batches a step: counting starts with the third step and ends with the last
 * micro-batch of the 19th, so that the final save is outside. */
static cm_var *watch(void *self, const cm_model *m, cm_tape *t, const cm_batch *b,
                     int64_t row, cm_real norm, const cm_stats *st) {
    watcher *w = self;
    if (!t->dry && ++w->calls == 2 * 2 + 1) counting = true;
    if (w->calls == w->leak_at) free(malloc(1 + (size_t)w->calls));
    if (w->calls == 2 * 19 + 1) counting = false;
    return w->lm.loss(w->lm.self, m, t, b, row, norm, st);
}

static bool train_watched(const char *name, const char *word, int leak_at, cm_run *run,
                          cm_plan *plan) {
    char *dir = cm_strf("%s/%s", t_tmpdir(), name), *data = cm_strf("%s/data", t_tmpdir());
    const char *words[] = { "val.every=0", "ckpt.every=0", "log.every=1", word, NULL };
    fx_job f;
    cm_err err;
    bool complete;
    if (!cm_exists(data)) fx_corpus(data, 60, CM_SHARD_BOS | CM_SHARD_EOS);
    fx_open(&f, data, NULL, words);
    watcher w = { .lm = f.job.objective, .leak_at = leak_at };
    f.job.objective = (cm_objective){ .self = &w, .token_nll = true, .loss = watch };
    CHECKF(cm_run_open(run, dir, "test", CM_RESUME_AUTO, CM_DONE_FAIL, &err) &&
           cm_run_start(run, "", NULL, &err), "%s", err.msg);
    f.job.run = run;
    allocations = 0;
    bool ok = cm_plan_make(&f.job, plan, &err) && cm_train(&f.job, &complete, &err);
    counting = false;
    CHECKF(ok && complete, "%s", err.msg);
    cm_run_close(run, CM_RUN_DONE, 0);
    fx_close(&f);
    free(data);
    free(dir);
    return ok;
}

static void kernels(void) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, 2, &err), "%s", err.msg);
}

TEST(no_heap_allocation_after_the_second_step) {
    if (!COUNTS) {
        t_skip("the address sanitizer or clang's OpenMP runtime allocates too");
        return;
    }
    kernels();
    static const char *const words[] = { "optim.kind=adamw", "optim.kind=muon",
                                         "train.recompute=block" };
    for (int i = 0; i < 3; i++) {
        cm_run run;
        cm_plan plan;
        char name[8] = { 'a', (char)('0' + i), 0 };
        train_watched(name, words[i], 0, &run, &plan);
        CHECKF(allocations == 0, "%s: %d allocations, the first by %s", words[i],
               allocations, first_caller);
    }
}

TEST(the_count_sees_one_allocation) {
    if (!COUNTS) {
        t_skip("the address sanitizer or clang's OpenMP runtime allocates too");
        return;
    }
    kernels();
    cm_run run;
    cm_plan plan;
    train_watched("leak", "optim.kind=adamw", 17, &run, &plan);
    CHECKF(allocations == 1, "%d allocations counted", allocations);
}

/* The number behind "key": in summary.json. */
static double number_in(const char *text, const char *key) {
    char *quoted = cm_strf("\"%s\":", key), *at = strstr(text, quoted);
    double v = at ? strtod(at + strlen(quoted), NULL) : -1;
    free(quoted);
    return v;
}

TEST(memory_used_is_memory_planned_to_the_byte) {
    kernels();
    static const char *const words[] = { "optim.kind=adamw", "optim.kind=muon",
                                         "train.recompute=block", "data.micro_rows=1",
                                         "val.tokens=90", "train.compute=bf16" };
    for (int i = 0; i < 6; i++) {
        cm_run run;
        cm_plan p;
        char name[8] = { 'm', (char)('0' + i), 0 };
        train_watched(name, words[i], 0, &run, &p);
        char *path = cm_strf("%s/%s/summary.json", t_tmpdir(), name), *text = NULL;
        size_t n;
        cm_err err;
        CHECKF(cm_read_file(path, 1 << 20, &text, &n, &err), "%s", err.msg);
        if (text) {
            CHECK(number_in(text, "memory/perm_bytes") == (double)p.perm);
            CHECKF(number_in(text, "memory/step_bytes") == (double)p.step,
                   "%s: planned %zu, used %.0f", words[i], p.step,
                   number_in(text, "memory/step_bytes"));
            CHECK(number_in(text, "memory/meta_bytes") == (double)p.meta);
        }
        free(text);
        free(path);
    }
}
