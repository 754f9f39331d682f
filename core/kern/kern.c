/* kern.c -- the kernel table, the choice of its level, and what goes with it. */
#include "kern/gemm.h"
#include "kern/qmat.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Until cm_kern_init every entry is a function that says what was forgotten: reference
 * kernels would work, slowly, and nobody would notice. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define KERN(ret, name, args)                                                           \
    static ret early_##name args {                                                      \
        cm_panic(__FILE__, __LINE__, "kernel %s is used before cm_kern_init", #name);   \
    }
#include "kern/kern.def"
#pragma GCC diagnostic pop

cm_kern cm_k = {
#define KERN(ret, name, args) .name = early_##name,
#include "kern/kern.def"
};

static cm_level_id level = CM_LEVEL_REF;
static cm_numerics numerics_used = CM_NUMERICS_STRICT;
static int threads_used = 1;
static char description[160] = "ref, strict, 1 thread";

const char *cm_level_name(cm_level_id id) {
    static const char *const names[] = {
#define X(id, name) name,
        CM_LEVELS(X)
#undef X
    };
    return names[id];
}

cm_level_id cm_kern_level(void) { return level; }
int cm_kern_threads(void) { return threads_used; }
const char *cm_kern_describe(void) { return description; }

cm_level_id cm_kern_best_level(void) {
#if defined(__x86_64__) && !defined(CM_F64)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")
                   ? CM_LEVEL_AVX512BF16
                   : CM_LEVEL_AVX512;
    if (avx2) return CM_LEVEL_AVX2;
#endif
    return CM_LEVEL_REF;
}

/* The best level, or the one the environment asks for. */
static bool choose_level(cm_level_id *out, cm_err *err) {
    cm_level_id best = cm_kern_best_level();
    const char *s = getenv("CHIMERA_KERNELS");
    *out = best;
    if (!s || !*s) return true;
    cm_buf known = { 0 };
    for (int i = 0; i < CM_N_LEVELS; i++) {
        if (!strcmp(s, cm_level_name((cm_level_id)i))) {
            cm_buf_free(&known);
            *out = (cm_level_id)i;
            if (i <= (int)best) return true;
            return cm_fail(err, CM_EXIT_USAGE,
                           "CHIMERA_KERNELS: '%s' needs instructions that this CPU or "
                           "build lacks; the best here is '%s'", s, cm_level_name(best));
        }
        cm_buf_addf(&known, "%s%s", i ? ", " : "", cm_level_name((cm_level_id)i));
    }
    cm_fail(err, CM_EXIT_USAGE, "CHIMERA_KERNELS: unknown level '%s', wanted one of: %s",
            s, known.s);
    cm_buf_free(&known);
    return false;
}

static void describe(void) {
    const char *many = threads_used == 1 ? "" : "s";
    snprintf(description, sizeof description, "%s, %s, %d thread%s, OpenBLAS %s",
             cm_level_name(level),
             numerics_used == CM_NUMERICS_STRICT ? "strict" : "fast", threads_used, many,
             cm_gemm_blas_core());
}

bool cm_kern_init(cm_numerics numerics, int threads, cm_err *err) {
    cm_level_id want;
    if (!choose_level(&want, err)) return false;
    if (threads < 0 || threads > CM_MAX_THREADS)
        return cm_fail(err, CM_EXIT_USAGE, "threads: %d, wanted 0 (all) to %d", threads,
                       CM_MAX_THREADS);
    if (!threads) threads = cm_cpus();
    if (threads > CM_MAX_THREADS) threads = CM_MAX_THREADS;
    cm_kern table = {
#define KERN(ret, name, args) .name = cm_ref_##name,
#include "kern/kern.def"
    };
    if (want >= CM_LEVEL_AVX2) cm_overlay_avx2(&table);
    if (want >= CM_LEVEL_AVX512) cm_overlay_avx512(&table);
    if (want >= CM_LEVEL_AVX512BF16) cm_overlay_avx512bf16(&table);
    if (!cm_gemm_setup(numerics, want, threads, err)) return false;
    cm_qmat_setup(want);
    omp_set_num_threads(threads);
    cm_k = table;
    level = want;
    numerics_used = numerics;
    threads_used = threads;
    describe();
    return true;
}
