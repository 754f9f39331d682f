/* param.c -- the parameter registry and initialisation. */
#include "nn/nn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARAMS = 1 << 15 };

void cm_params_begin(cm_params *ps, cm_arena *arena, bool trained) {
    *ps = (cm_params){ .arena = arena, .trained = trained };
}

/* The registry's own memory is small and separate from the planned arena. */
static void grow(cm_params *ps) {
    if (ps->n < ps->cap) return;
    int cap = ps->cap ? ps->cap * 2 : 256;
    CM_ASSERT(cap <= MAX_PARAMS, "more than %d parameters", MAX_PARAMS);
    cm_param **p = realloc(ps->p, (size_t)cap * sizeof *p);
    CM_ASSERT(p, "out of memory for the parameter registry");
    ps->p = p;
    ps->cap = cap;
}

static size_t param_bytes(const cm_tensor *t) {
    if (!cm_qmat_holds(t->dtype)) return cm_tensor_bytes(t);
    return cm_qmat_bytes(t->dtype, t->nd == 3 ? t->dim[0] : 1, t->dim[t->nd - 2],
                         t->dim[t->nd - 1]);
}

cm_param *cm_param_add(cm_params *ps, cm_group group, cm_init init, double scale, int nd,
                       const int64_t *dim, const char *fmt, ...) {
    grow(ps);
    cm_param *p = calloc(1, sizeof *p);
    CM_ASSERT(p, "out of memory for the parameter registry");
    ps->p[ps->n++] = p;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->name, sizeof p->name, fmt, ap);
    va_end(ap);
    p->group = group;
    p->init = init;
    p->scale = scale;
    p->var.v = (cm_tensor){ .dtype = CM_REAL_DTYPE, .nd = nd };
    memcpy(p->var.v.dim, dim, (size_t)nd * sizeof *dim);
    bool matrix = group == CM_GROUP_MATRIX || group == CM_GROUP_EMBED;
    if (ps->narrow && matrix) p->var.v.dtype = CM_BF16_T;
    if (ps->held) p->var.v.dtype = ps->held[ps->n - 1];
    size_t bytes = param_bytes(&p->var.v);
    p->var.v.data = cm_arena_alloc(ps->arena, bytes);
    p->var.is_param = true;
    if (ps->trained) {
        p->var.wants_grad = true;
        p->var.g = cm_arena_zalloc(ps->arena, bytes);
    }
    return p;
}

void cm_params_end(cm_params *ps) {
    for (int i = 0; i < ps->n; i++) free(ps->p[i]);
    free(ps->p);
    *ps = (cm_params){ 0 };
}

cm_param *cm_params_find(const cm_params *ps, const char *name) {
    for (int i = 0; i < ps->n; i++)
        if (!strcmp(ps->p[i]->name, name)) return ps->p[i];
    return NULL;
}

int64_t cm_params_count(const cm_params *ps) {
    int64_t n = 0;
    for (int i = 0; i < ps->n; i++) n += cm_tensor_count(&ps->p[i]->var.v);
    return n;
}

/* By all threads: memory takes more than one can write, and where there are several memory
 * nodes, the first to write a page decides on which it lies. */
void cm_params_zero_grad(cm_params *ps) {
    enum { PART = 1 << 18 };
#pragma omp parallel
    for (int i = 0; i < ps->n; i++) {
        cm_var *v = &ps->p[i]->var;
        int64_t bytes = v->g ? (int64_t)cm_tensor_bytes(&v->v) : 0;
#pragma omp for schedule(static) nowait
        for (int64_t k = 0; k < bytes; k += PART)
            memset((char *)v->g + k, 0, (size_t)(bytes - k < PART ? bytes - k : PART));
    }
}

/* dt0 log-uniform in [1e-3, 1e-1]; the bias is its inverse softplus, dt0 + log(1-e^-dt0)
 * (state-spaces/mamba).  Ports that set it to one train measurably worse. */
static double dt_bias(double u) {
    double dt = exp(log(1e-3) + u * (log(1e-1) - log(1e-3)));
    if (dt < 1e-4) dt = 1e-4;
    return dt + log(-expm1(-dt));
}

static double cut_normal(cm_rng r, uint64_t i) {
    double x = cm_rng_normal(r, i);
    return x > 3 ? 3 : x < -3 ? -3 : x;
}

static double init_value(const cm_param *p, cm_rng r, uint64_t i) {
    switch (p->init) {
    case CM_INIT_ZERO: return 0;
    case CM_INIT_ONE: return 1;
    case CM_INIT_NORMAL: return p->scale * cut_normal(r, i);
    case CM_INIT_UNIFORM: return p->scale * (2 * cm_rng_uniform(r, i) - 1);
    case CM_INIT_A_LOG: return log(1 + 15 * cm_rng_uniform(r, i));
    case CM_INIT_DT_BIAS: return dt_bias(cm_rng_uniform(r, i));
    }
    CM_ASSERT(false, "parameter %s: unknown initialisation %d", p->name, (int)p->init);
}

void cm_params_init(cm_params *ps, uint64_t seed) {
    for (int k = 0; k < ps->n; k++) {
        const cm_param *p = ps->p[k];
        cm_rng r = cm_rng_make(seed, CM_RNG_INIT, (uint64_t)(ps->first + k));
        int64_t n = cm_tensor_count(&p->var.v);
        cm_real *w = cm_rdata(&p->var.v);
        uint16_t *h = p->var.v.dtype == CM_BF16_T ? p->var.v.data : NULL;
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            double x = init_value(p, r, (uint64_t)i);
            if (h) h[i] = cm_f32_to_bf16((float)x);
            else w[i] = (cm_real)x;
        }
    }
}
