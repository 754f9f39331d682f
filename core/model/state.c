/* state.c -- what a sequence carries from one call to the next while decoding. */
#include "model/model.h"

#include <string.h>

typedef struct {
    size_t kv, conv, ssm; /* bytes of one layer */
} sizes;

static sizes layer_sizes(const cm_model_conf *c, int64_t i, int B, int cap) {
    size_t b = (size_t)B * sizeof(cm_real);
    if (cm_layer_is_attention(c, i))
        return (sizes){ .kv = b * (size_t)cap * (size_t)(c->n_kv_heads * c->head_dim) };
    int64_t DI = c->ssm_expand * c->d_model, C = DI + 2 * c->ssm_groups * c->ssm_state;
    return (sizes){ .conv = b * (size_t)((c->ssm_conv - 1) * C),
                    .ssm = b * (size_t)(DI * c->ssm_state) };
}

size_t cm_state_bytes(const cm_model_conf *c, int B, int cap) {
    size_t n = cm_align_up((size_t)c->n_layers * sizeof(cm_layer_state)) +
               cm_align_up((size_t)B * sizeof(int32_t));
    for (int64_t i = 0; i < c->n_layers; i++) {
        sizes s = layer_sizes(c, i, B, cap);
        n += 2 * cm_align_up(s.kv) + cm_align_up(s.conv) + cm_align_up(s.ssm);
    }
    return n;
}

size_t cm_state_row_bytes(const cm_state *s, const cm_model_conf *c) {
    (void)s;
    return (size_t)(c->n_kv_heads * c->head_dim) * sizeof(cm_real);
}

void cm_state_init(cm_state *s, const cm_model *m, int B, int cap, cm_arena *arena) {
    int64_t L = m->conf.n_layers;
    *s = (cm_state){ .B = B, .cap = cap };
    s->layer = cm_arena_zalloc(arena, (size_t)L * sizeof *s->layer);
    s->held = cm_arena_zalloc(arena, (size_t)B * sizeof *s->held);
    for (int64_t i = 0; i < L; i++) {
        sizes z = layer_sizes(&m->conf, i, B, cap);
        cm_layer_state *l = &s->layer[i];
        if (z.kv) {
            cm_real *k = cm_arena_alloc(arena, z.kv), *v = cm_arena_alloc(arena, z.kv);
            l->kv = (cm_kv){ .k = k, .v = v, .cap = cap, .held = s->held };
        } else {
            l->conv = cm_arena_zalloc(arena, z.conv);
            l->ssm = cm_arena_zalloc(arena, z.ssm);
        }
    }
}

void cm_state_clear(cm_state *s, const cm_model *m) {
    memset(s->held, 0, (size_t)s->B * sizeof *s->held);
    for (int64_t i = 0; i < m->conf.n_layers; i++) {
        sizes z = layer_sizes(&m->conf, i, s->B, s->cap);
        if (z.conv) memset(s->layer[i].conv, 0, z.conv);
        if (z.ssm) memset(s->layer[i].ssm, 0, z.ssm);
    }
}
