/* told.c -- alarms that are out: told once, then quiet until the trouble is really over.
 *
 * What is out is kept in the run's alarms.jsonl, a row a validation, so that going on does not
 * tell everything again. */
#include "train/train.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

bool cm_told(int *out, bool bad, int calm) {
    bool tell = bad && !*out;
    if (bad) *out = calm;
    else if (*out) --*out;
    return tell;
}

/* A row of `of` before `step`: its numbers. */
static void take(const char *line, const char *of, int64_t step, int *out, int n) {
    cJSON *o = cJSON_Parse(line);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "out"), *v;
    const char *whose = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "of"));
    const cJSON *at = cJSON_GetObjectItemCaseSensitive(o, "step");
    if (whose && !strcmp(whose, of) && cJSON_IsNumber(at) &&
        at->valuedouble < (double)step && cJSON_GetArraySize(list) == n) {
        int i = 0;
        cJSON_ArrayForEach(v, list) out[i++] = v->valueint;
    }
    cJSON_Delete(o);
}

void cm_told_load(const cm_run *run, const char *of, int64_t step, int *out, int n) {
    char *path = cm_run_path(run, "alarms.jsonl"), *text = NULL, *rest;
    size_t size;
    cm_err err;
    if (cm_exists(path) && cm_read_file(path, 16 << 20, &text, &size, &err)) {
        rest = text;
        for (char *line; (line = strsep(&rest, "\n"));) take(line, of, step, out, n);
    }
    free(text);
    free(path);
}

void cm_told_save(const cm_run *run, const char *of, int64_t step, const int *out, int n) {
    char *path = cm_run_path(run, "alarms.jsonl");
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    cm_json_i64(&b, "step", step);
    cm_json_str(&b, "of", of);
    cm_json_open(&b, "out", '[');
    for (int i = 0; i < n; i++) cm_json_i64(&b, NULL, out[i]);
    cm_json_close(&b, '[');
    cm_json_close(&b, '{');
    cm_buf_add(&b, "\n", 1);
    FILE *f = fopen(path, "ab");
    bool ok = f && fwrite(b.s, 1, b.n, f) == b.n;
    if (f && fclose(f)) ok = false;
    if (!ok) cm_log(CM_LOG_WARN, "%s: cannot be written; alarms will be told again", path);
    cm_buf_free(&b);
    free(path);
}
