/* state.c -- what a sequence carries from one call to the next while decoding. */
#include "model/model.h"

#include <string.h>

typedef struct {
    size_t kv, conv, ssm; /* bytes of one layer */
} sizes;

static sizes layer_sizes(const cm_model_conf *c, int64_t i, int B, int cap, cm_dtype kv) {
    size_t b = (size_t)B * sizeof(cm_real);
    if (cm_layer_is_attention(c, i))
        return (sizes){ .kv = (size_t)B * (size_t)cap *
                              cm_kv_bytes(kv, c->n_kv_heads * c->head_dim) };
    int64_t DI = c->ssm_expand * c->d_model, C = DI + 2 * c->ssm_groups * c->ssm_state;
    return (sizes){ .conv = b * (size_t)((c->ssm_conv - 1) * C),
                    .ssm = b * (size_t)(DI * c->ssm_state) };
}

static const cm_dtype kv_types[] = {
    [CM_KV_AUTO] = CM_F32_T, [CM_KV_F32] = CM_F32_T, [CM_KV_F16] = CM_F16_T,
    [CM_KV_Q8_0] = CM_Q8_0_T,
};
static const char *const kv_names[] = {
#define X(id, word) [id] = #word,
    CM_KV_CHOICES(X)
#undef X
};

/* Blocks round what meets them to 8 bits: beside that the 11 of a half are nothing. */
cm_dtype cm_kv_choice(int64_t choice, const cm_model *m) {
    return choice == CM_KV_AUTO && cm_model_has_blocks(m) ? CM_F16_T : kv_types[choice];
}

const char *cm_kv_name(cm_dtype kv) {
    int i = CM_KV_Q8_0;
    while (i > CM_KV_F32 && kv_types[i] != kv) i--;
    return kv_names[i];
}

bool cm_state_fits(const cm_model_conf *c, cm_dtype kv, cm_err *err) {
    int64_t width = c->n_kv_heads * c->head_dim;
    bool any = false;
    for (int64_t i = 0; i < c->n_layers; i++) any = any || cm_layer_is_attention(c, i);
    if (!any || width % cm_dtypes[kv].block == 0) return true;
    return cm_fail(err, CM_EXIT_USAGE, "generate.kv: %s stores blocks of %d numbers, but a "
                   "token's keys in this model are %lld (%lld heads of %lld); choose f16",
                   cm_kv_name(kv), cm_dtypes[kv].block, (long long)width, (long long)c->n_kv_heads,
                   (long long)c->head_dim);
}

size_t cm_state_bytes(const cm_model_conf *c, int B, int cap, cm_dtype kv) {
    size_t n = cm_align_up((size_t)c->n_layers * sizeof(cm_layer_state)) +
               cm_align_up((size_t)B * sizeof(int32_t));
    for (int64_t i = 0; i < c->n_layers; i++) {
        sizes s = layer_sizes(c, i, B, cap, kv);
        n += 2 * cm_align_up(s.kv) + cm_align_up(s.conv) + cm_align_up(s.ssm);
    }
    return n;
}

size_t cm_state_row_bytes(const cm_state *s, const cm_model_conf *c) {
    return cm_kv_bytes(s->kv, c->n_kv_heads * c->head_dim);
}

size_t cm_state_token_bytes(const cm_model_conf *c, cm_dtype kv) {
    size_t n = 0;
    for (int64_t i = 0; i < c->n_layers; i++) n += 2 * layer_sizes(c, i, 1, 1, kv).kv;
    return n;
}

void cm_state_init(cm_state *s, const cm_model *m, int B, int cap, cm_dtype kv,
                   cm_arena *arena) {
    int64_t L = m->conf.n_layers;
    *s = (cm_state){ .B = B, .cap = cap, .kv = kv };
    s->layer = cm_arena_zalloc(arena, (size_t)L * sizeof *s->layer);
    s->held = cm_arena_zalloc(arena, (size_t)B * sizeof *s->held);
    for (int64_t i = 0; i < L; i++) {
        sizes z = layer_sizes(&m->conf, i, B, cap, kv);
        cm_layer_state *l = &s->layer[i];
        if (z.kv) {
            void *k = cm_arena_alloc(arena, z.kv), *v = cm_arena_alloc(arena, z.kv);
            l->kv = (cm_kv){ .k = k, .v = v, .cap = cap, .held = s->held, .type = kv };
        } else {
            l->conv = cm_arena_zalloc(arena, z.conv);
            l->ssm = cm_arena_zalloc(arena, z.ssm);
        }
    }
}

void cm_state_clear(cm_state *s, const cm_model *m) {
    memset(s->held, 0, (size_t)s->B * sizeof *s->held);
    for (int64_t i = 0; i < m->conf.n_layers; i++) {
        sizes z = layer_sizes(&m->conf, i, s->B, s->cap, s->kv);
        if (z.conv) memset(s->layer[i].conv, 0, z.conv);
        if (z.ssm) memset(s->layer[i].ssm, 0, z.ssm);
    }
}
