/* spm_proto.c -- a small, checked protobuf reader and writer for SentencePiece models.
 *
 * SentencePiece's public headers give neither piece types nor a way to make a model from
 * pieces; the wire format of the few fields needed is short enough to handle here. */
#include "text/spm_proto.h"

#include <stdlib.h>
#include <string.h>

/* Field numbers. */
enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3, MODEL_SELF_TEST = 4 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum {
    TR_MODEL_TYPE = 3, TR_VOCAB = 4, TR_SUFFIX = 24, TR_BYTES = 35, TR_UNK = 40,
    TR_BOS = 41, TR_EOS = 42, TR_PAD = 43, TR_UNK_PIECE = 45, TR_BOS_PIECE = 46,
    TR_EOS_PIECE = 47, TR_PAD_PIECE = 48
};
enum { NO_NAME = 1, NO_CHARSMAP = 2, NO_PREFIX = 3, NO_REMOVE = 4, NO_ESCAPE = 5 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* ---- reading ---- */

typedef struct wire {
    const uint8_t *p, *end;
    bool bad;
} wire;

/* One field: its number, and its value by wire type. */
typedef struct field {
    uint64_t number, value; /* value: varint, or 32 or 64 bits */
    wire body;              /* of WIRE_BYTES */
    int type;
} field;

static uint64_t varint(wire *w) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64 && w->p < w->end; shift += 7) {
        uint8_t b = *w->p++;
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128) return v;
    }
    w->bad = true;
    return 0;
}

static uint64_t fixed(wire *w, int bytes) {
    if (w->end - w->p < bytes) {
        w->bad = true;
        return 0;
    }
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)*w->p++ << (8 * i);
    return v;
}

/* False at the end of the message, or when it is malformed (then w->bad). */
static bool next(wire *w, field *f) {
    if (w->bad || w->p == w->end) return false;
    uint64_t key = varint(w);
    f->number = key >> 3;
    f->type = (int)(key & 7);
    f->value = 0;
    if (f->type == WIRE_VARINT) {
        f->value = varint(w);
    } else if (f->type == WIRE_64) {
        f->value = fixed(w, 8);
    } else if (f->type == WIRE_32) {
        f->value = fixed(w, 4);
    } else if (f->type == WIRE_BYTES) {
        uint64_t n = varint(w);
        if (w->bad || n > (uint64_t)(w->end - w->p)) {
            w->bad = true;
            return false;
        }
        f->body = (wire){ w->p, w->p + n, false };
        w->p += n;
    } else {
        w->bad = true;
    }
    return !w->bad;
}

static bool is(const field *f, uint64_t number, int type) {
    return f->number == number && f->type == type;
}

static bool read_piece(cm_spm_model *m, wire w) {
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 1024;
        m->piece = realloc(m->piece, (size_t)m->cap * sizeof *m->piece);
        CM_ASSERT(m->piece, "out of memory");
    }
    cm_spm_entry *e = &m->piece[m->n++];
    *e = (cm_spm_entry){ .type = CM_PIECE_NORMAL };
    field f;
    while (next(&w, &f)) {
        if (is(&f, PIECE_TEXT, WIRE_BYTES)) {
            free(e->text);
            e->n = (size_t)(f.body.end - f.body.p);
            e->text = malloc(e->n + 1);
            CM_ASSERT(e->text, "out of memory");
            memcpy(e->text, f.body.p, e->n);
            e->text[e->n] = 0;
        } else if (is(&f, PIECE_SCORE, WIRE_32)) {
            uint32_t u = (uint32_t)f.value;
            memcpy(&e->score, &u, 4);
        } else if (is(&f, PIECE_TYPE, WIRE_VARINT)) {
            if (f.value < CM_PIECE_NORMAL || f.value > CM_PIECE_BYTE) return false;
            e->type = (cm_piece_type)f.value;
        }
    }
    return !w.bad;
}

static bool read_trainer(cm_spm_model *m, wire w) {
    field f;
    while (next(&w, &f)) {
        if (is(&f, TR_MODEL_TYPE, WIRE_VARINT)) m->model_type = (int)(f.value & 255);
        if (is(&f, TR_BYTES, WIRE_VARINT)) m->byte_fallback = f.value != 0;
        if (is(&f, TR_SUFFIX, WIRE_VARINT)) m->suffix_whitespace = f.value != 0;
    }
    return !w.bad;
}

static bool read_normalizer(cm_spm_model *m, wire w) {
    field f;
    while (next(&w, &f)) {
        if (is(&f, NO_CHARSMAP, WIRE_BYTES)) m->identity = f.body.p == f.body.end;
        if (is(&f, NO_PREFIX, WIRE_VARINT)) m->add_dummy_prefix = f.value != 0;
        if (is(&f, NO_REMOVE, WIRE_VARINT)) m->remove_extra_whitespaces = f.value != 0;
        if (is(&f, NO_ESCAPE, WIRE_VARINT)) m->escape_whitespaces = f.value != 0;
    }
    return !w.bad;
}

static bool read_model(cm_spm_model *m, wire w) {
    field f;
    while (next(&w, &f)) {
        bool ok = true;
        if (is(&f, MODEL_PIECE, WIRE_BYTES)) ok = read_piece(m, f.body);
        if (is(&f, MODEL_TRAINER, WIRE_BYTES)) ok = read_trainer(m, f.body);
        if (is(&f, MODEL_NORMALIZER, WIRE_BYTES)) ok = read_normalizer(m, f.body);
        if (is(&f, MODEL_SELF_TEST, WIRE_BYTES))
            m->n_self_test += (size_t)(f.body.end - f.body.p);
        if (!ok) return false;
    }
    return !w.bad;
}

/* ---- checking ---- */

int cm_spm_byte(const cm_spm_entry *e) {
    unsigned v;
    int end = 0;
    if (e->n != 6 || sscanf(e->text, "<0x%2X>%n", &v, &end) != 1 || end != 6) return -1;
    return (int)v;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static const char *twice(const cm_spm_model *m) {
    char **t = malloc((size_t)m->n * sizeof *t);
    CM_ASSERT(t, "out of memory");
    for (int i = 0; i < m->n; i++) t[i] = m->piece[i].text;
    qsort(t, (size_t)m->n, sizeof *t, by_text);
    const char *found = NULL;
    for (int i = 1; i < m->n && !found; i++)
        if (!strcmp(t[i - 1], t[i])) found = t[i];
    free(t);
    return found;
}

static bool check(const cm_spm_model *m, const char *name, cm_err *err) {
    bool byte[256] = { false };
    int unknown = 0, bytes = 0;
    for (int i = 0; i < m->n; i++) {
        const cm_spm_entry *e = &m->piece[i];
        if (!e->n || memchr(e->text, 0, e->n))
            return cm_fail(err, CM_EXIT_DATA, "%s: piece %d is empty or holds a zero byte",
                           name, i);
        unknown += e->type == CM_PIECE_UNKNOWN;
        if (e->type != CM_PIECE_BYTE) continue;
        int b = cm_spm_byte(e);
        if (b < 0 || byte[b])
            return cm_fail(err, CM_EXIT_DATA, "%s: piece %d, '%s', is not a byte piece "
                           "<0x00> to <0xFF>, or a second one", name, i, e->text);
        byte[b] = true;
        bytes++;
    }
    if (unknown != 1)
        return cm_fail(err, CM_EXIT_DATA, "%s: %d unknown pieces, want 1", name, unknown);
    if (m->byte_fallback && bytes != 256)
        return cm_fail(err, CM_EXIT_DATA, "%s: byte fallback with %d of 256 byte pieces",
                       name, bytes);
    const char *dup = twice(m);
    if (dup)
        return cm_fail(err, CM_EXIT_DATA, "%s: piece '%s' occurs twice", name, dup);
    return true;
}

bool cm_spm_proto_read(cm_spm_model *m, const void *proto, size_t n, const char *name,
                       cm_err *err) {
    *m = (cm_spm_model){ .model_type = 1, .add_dummy_prefix = true,
                         .remove_extra_whitespaces = true, .escape_whitespaces = true,
                         .identity = true };
    const uint8_t *p = proto;
    bool ok = read_model(m, (wire){ p, p + n, false }) && m->n > 0;
    for (int i = 0; ok && i < m->n; i++) ok = m->piece[i].text != NULL;
    if (!ok)
        cm_fail(err, CM_EXIT_DATA, "%s: not a SentencePiece model", name);
    else
        ok = check(m, name, err);
    if (!ok) cm_spm_proto_free(m);
    return ok;
}

void cm_spm_proto_free(cm_spm_model *m) {
    for (int i = 0; i < m->n; i++) free(m->piece[i].text);
    free(m->piece);
    memset(m, 0, sizeof *m);
}

/* ---- writing ---- */

static void put_varint(cm_buf *b, uint64_t v) {
    uint8_t s[10];
    size_t n = 0;
    for (; v > 127; v >>= 7) s[n++] = (uint8_t)(v | 128);
    s[n++] = (uint8_t)v;
    cm_buf_add(b, s, n);
}

static void put_int(cm_buf *b, int number, int64_t v) {
    put_varint(b, (uint64_t)number << 3 | WIRE_VARINT);
    put_varint(b, (uint64_t)v);
}

static void put_bytes(cm_buf *b, int number, const void *p, size_t n) {
    put_varint(b, (uint64_t)number << 3 | WIRE_BYTES);
    put_varint(b, n);
    cm_buf_add(b, p, n);
}

static void put_message(cm_buf *b, int number, cm_buf *body) {
    put_bytes(b, number, body->s, body->n);
    cm_buf_free(body);
    *body = (cm_buf){ 0 };
}

static void put_piece(cm_buf *proto, const char *text, size_t n, float score, int type) {
    cm_buf b = { 0 };
    uint8_t bits[4];
    uint32_t u;
    memcpy(&u, &score, 4);
    for (int i = 0; i < 4; i++) bits[i] = (uint8_t)(u >> (8 * i));
    put_bytes(&b, PIECE_TEXT, text, n);
    put_varint(&b, PIECE_SCORE << 3 | WIRE_32);
    cm_buf_add(&b, bits, 4);
    put_int(&b, PIECE_TYPE, type);
    put_message(proto, MODEL_PIECE, &b);
}

bool cm_spm_build(const char *const *piece, const size_t *len, const float *score,
                  const int *type, int n, int bos, int eos, int unk, int pad,
                  bool add_dummy_prefix, cm_buf *proto, cm_err *err) {
    const struct { int id, field_id, field_piece; const char *name; } special[] = {
        { unk, TR_UNK, TR_UNK_PIECE, "unk" }, { bos, TR_BOS, TR_BOS_PIECE, "bos" },
        { eos, TR_EOS, TR_EOS_PIECE, "eos" }, { pad, TR_PAD, TR_PAD_PIECE, "pad" },
    };
    int bytes = 0;
    for (int i = 0; i < n; i++) {
        put_piece(proto, piece[i], len[i], score[i], type[i]);
        bytes += type[i] == CM_PIECE_BYTE;
    }
    cm_buf b = { 0 };
    put_int(&b, TR_MODEL_TYPE, 2);
    put_int(&b, TR_VOCAB, n);
    put_int(&b, TR_BYTES, bytes > 0);
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        int id = special[i].id;
        if (id >= n) {
            cm_buf_free(&b);
            return cm_fail(err, CM_EXIT_DATA, "tokenizer: %s id %d in a vocabulary of %d",
                           special[i].name, id, n);
        }
        put_int(&b, special[i].field_id, id);
        if (id >= 0) put_bytes(&b, special[i].field_piece, piece[id], len[id]);
    }
    put_message(proto, MODEL_TRAINER, &b);
    put_bytes(&b, NO_NAME, "identity", 8);
    put_bytes(&b, NO_CHARSMAP, "", 0);
    put_int(&b, NO_PREFIX, add_dummy_prefix);
    put_int(&b, NO_REMOVE, 0);
    put_int(&b, NO_ESCAPE, 1);
    put_message(proto, MODEL_NORMALIZER, &b);
    cm_spm_model m;
    if (!cm_spm_proto_read(&m, proto->s, proto->n, "tokenizer", err)) return false;
    cm_spm_proto_free(&m);
    return true;
}
