/* omp.h -- OpenMP of one thread, for fuzzing: Debian's clang brings no runtime, and
 * findings are easier to repeat without threads. */
#ifndef CM_FUZZ_OMP_H
#define CM_FUZZ_OMP_H
static inline int omp_get_thread_num(void) { return 0; }
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_num_threads(void) { return 1; }
static inline int omp_get_num_procs(void) { return 1; }
static inline void omp_set_num_threads(int n) { (void)n; }
static inline int omp_get_active_level(void) { return 0; }
static inline int omp_in_parallel(void) { return 0; }
static inline void omp_set_dynamic(int on) { (void)on; }
#endif
