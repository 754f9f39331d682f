/* kern_sweep.h -- the kernel sweep: every kernel, at every level, against doubles.
 *
 * kern_cases.inc holds one case a kernel, written once in cm_real and compiled twice: in
 * float (kern_test.c, run at each level) and in double over the reference kernels
 * (kern_sweep64.c).  Both runs draw the same inputs; the outputs are compared.
 *
 * To add a kernel: write SWEEP(name) in kern_cases.inc and see that its ref_*.c is among
 * those of kern_sweep64.c.  A kernel of kern.def without them fails the test. */
#ifndef CM_KERN_SWEEP_H
#define CM_KERN_SWEEP_H

#include "kern/ref.h"
#include "tests/t.h"

enum { SWEEP_BUFS = 32, SWEEP_OUTS = 16 };

/* One run of one case. */
typedef struct sweep {
    int n;       /* the ragged size of this run, 0 or more */
    int shift;   /* elements by which buffers are misaligned */
    cm_rng rng;
    uint64_t drawn;
    int n_buf, n_out;
    unsigned char *buf[SWEEP_BUFS]; /* heap; canaries behind the data */
    size_t size[SWEEP_BUFS], base[SWEEP_BUFS];
    struct {
        double *v; /* heap */
        int64_t n;
        double rel, abs;
    } out[SWEEP_OUTS];
} sweep;

/* Run the named case: here on a table of the including build, there on the double
 * reference. */
bool sweep_run64(sweep *s, const char *name);

/* Size bytes behind `shift` elements, canaries after them, freed with the sweep. */
void *sweep_mem(sweep *s, size_t elem, int64_t n);
/* Uniform in [lo,hi], the same (float) value in both builds. */
double sweep_draw(sweep *s, double lo, double hi);
double *sweep_out(sweep *s, int64_t n, double rel, double abs);

/* What cases are written with. */

/* n inputs in [lo,hi]. */
static inline cm_real *in(sweep *s, int64_t n, double lo, double hi) {
    cm_real *x = sweep_mem(s, sizeof *x, n);
    for (int64_t i = 0; i < n; i++) x[i] = (cm_real)sweep_draw(s, lo, hi);
    return x;
}
/* n integers in [lo,hi). */
static inline int32_t *in_int(sweep *s, int64_t n, int lo, int hi) {
    int32_t *x = sweep_mem(s, sizeof *x, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = lo + (int32_t)cm_rng_below(s->rng, s->drawn++, (uint64_t)(hi - lo));
    return x;
}
/* n elements set to NaN: pure outputs. */
static inline cm_real *blank(sweep *s, int64_t n) {
    cm_real *x = sweep_mem(s, sizeof *x, n);
    for (int64_t i = 0; i < n; i++) x[i] = (cm_real)NAN;
    return x;
}
/* One number in [lo,hi]. */
static inline cm_real num(sweep *s, double lo, double hi) {
    return (cm_real)sweep_draw(s, lo, hi);
}
/* Register n results, right when |x - double| <= abs + rel |double|.  State why a bound is
 * what it is where it is not a few roundings. */
static inline void out(sweep *s, const cm_real *x, int64_t n, double rel, double abs) {
    double *v = sweep_out(s, n, rel, abs);
    for (int64_t i = 0; i < n; i++) v[i] = (double)x[i];
}
static inline void out1(sweep *s, double x, double rel, double abs) {
    *sweep_out(s, 1, rel, abs) = x;
}

#endif
