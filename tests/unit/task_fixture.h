/* task_fixture.h -- a hand-made tokenizer, task files in a scratch folder, scores by name. */
#ifndef CM_TASK_FIXTURE_H
#define CM_TASK_FIXTURE_H

#include "harness/task_int.h"
#include "tests/t.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- a tokenizer and tasks to try ---------------------------------------------------- */

/* Bytes, a blank, letters, and a few merges, so that a border can fall inside a token. */
static cm_loaded model;

static void open_model(bool markers, int64_t context) {
    static const char *const merges[] = { "\xE2\x96\x81", "t", "h", "e", "a", "b", "th", "the",
                                          "\xE2\x96\x81the", "ab" };
    static char name[256][8];
    const char *piece[300];
    size_t len[300];
    float score[300];
    int type[300], n = 0;
    const char *const control[] = { "<unk>", "<s>", "</s>", CM_CHAT_MARKERS };
    for (int i = 0; i < (markers ? 9 : 3); i++) {
        type[n] = i ? CM_PIECE_CONTROL : CM_PIECE_UNKNOWN;
        piece[n++] = control[i];
    }
    for (int i = 0; i < 256; i++) {
        snprintf(name[i], sizeof name[i], "<0x%02X>", (unsigned)i);
        type[n] = CM_PIECE_BYTE;
        piece[n++] = name[i];
    }
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        type[n] = CM_PIECE_NORMAL;
        piece[n++] = merges[i];
    }
    for (int i = 0; i < n; i++) len[i] = strlen(piece[i]), score[i] = (float)-i;
    cm_buf proto = { 0 };
    cm_err err;
    CM_ASSERT(cm_spm_build(piece, len, score, type, n, 1, 2, 0, -1, false, &proto, &err), "%s",
              err.msg);
    model = (cm_loaded){ .spm = cm_spm_open_bytes(proto.s, proto.n, &err) };
    CM_ASSERT(model.spm, "%s", err.msg);
    model.model.conf.context = context;
    cm_buf_free(&proto);
}

static cm_eval_conf settings = { .data = ".", .shots = -1 };

/* Folder F's file with this text; its path lives until the next call. */
static const char *put(const char *name, const char *text) {
    static char path[2][4096];
    static int k;
    k = !k;
    snprintf(path[k], sizeof path[k], "%s/%s", t_tmpdir(), name);
    cm_err err;
    CM_ASSERT(cm_write_file(path[k], text, strlen(text), &err), "%s", err.msg);
    return path[k];
}

static bool make(cm_eval_task *t, const char *yaml, cm_err *err) {
    if (!cm_task_open(t, put("t.yaml", yaml), &settings, err)) return false;
    bool ok = cm_task_build(t, &model, err);
    if (!ok) cm_task_close(t);
    return ok;
}

static void must(cm_eval_task *t, const char *yaml) {
    cm_err err;
    CM_ASSERT(make(t, yaml, &err), "%s", err.msg);
}

static double score_of(const cm_item *it, const char *metric) {
    for (int i = 0; i < it->n_scores; i++)
        if (!strcmp(it->score[i].metric->name, metric))
            return it->score[i].val.num / it->score[i].val.den;
    return NAN;
}

static cm_item score(const cm_eval_task *t, int64_t k) {
    cm_buf d = { 0 };
    cm_item it = { .task = t->name };
    cm_json_open(&d, NULL, '{');
    t->kind->score(t, &t->q[k], &it, &d);
    cm_json_close(&d, '{');
    cJSON *o = cJSON_Parse(d.s);
    CHECKF(cJSON_IsObject(o), "detail is no JSON: %s", d.s);
    cJSON_Delete(o);
    cm_buf_free(&d);
    return it;
}

/* Decoded context and continuation with a bar between, BOS and markers by name. */
static char *shown(const cm_ask *a) {
    cm_buf b = { 0 };
    for (int i = 0; i < a->n; i++) {
        float s;
        cm_piece_type type;
        const char *piece = cm_spm_piece(model.spm, a->token[i], &s, &type);
        if (i == a->first) cm_buf_addf(&b, "|");
        if (type == CM_PIECE_CONTROL) cm_buf_addf(&b, "%s", piece);
        else cm_spm_token_bytes(model.spm, a->token[i], &b);
    }
    return b.s;
}

#endif
