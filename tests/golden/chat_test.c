/* chat_test.c -- the chat template against transformers: same text from the same Jinja, same
 * ids (tests/golden/chat/gen.py). */
#include "model/model.h"
#include "tests/t.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define DIR "tests/golden/chat/"

static char *text_of(const char *path) {
    char *s = NULL;
    size_t n;
    cm_err err;
    CHECKF(cm_read_file(path, 1 << 20, &s, &n, &err), "%s", err.msg);
    return s;
}

/* What transformers read is what we write, so its ids are those of our template. */
TEST(the_files_that_transformers_read_are_ours) {
    cm_err err;
    cm_spm *spm = cm_spm_open(DIR "tokenizer.model", &err);
    CHECK(spm && cm_hf_write_tokenizer(spm, NULL, t_tmpdir(), &err));
    char *path = cm_strf("%s/tokenizer_config.json", t_tmpdir());
    char *ours = text_of(path), *theirs = text_of(DIR "tokenizer_config.json");
    CHECK(ours && theirs && !strcmp(ours, theirs));
    free(ours);
    free(theirs);
    free(path);
    cm_spm_close(spm);
}

static bool same_ids(const cm_chat_ids *x, const cJSON *list) {
    const cJSON *v = list ? list->child : NULL;
    for (int64_t i = 0; i < x->n; i++, v = v->next)
        if (!v || v->valueint != x->id[i]) return false;
    return !v;
}

/* The messages of one case. */
static int turns_of(const cJSON *messages, cm_turn *t) {
    int n = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, messages) {
        const char *role = cJSON_GetObjectItem(m, "role")->valuestring;
        const char *text = cJSON_GetObjectItem(m, "content")->valuestring;
        const cJSON *think = cJSON_GetObjectItem(m, "reasoning_content");
        int r = 0;
        while (strcmp(role, cm_role_names[r])) r++;
        t[n] = (cm_turn){ (cm_role)r, text, NULL, strlen(text), 0 };
        const char *end = r == 2 && !strncmp(text, "<think>", 7) ? strstr(text, "</think>") : NULL;
        if (end) {
            t[n].think = text + 7;
            t[n].n_think = (size_t)(end - text - 7);
            t[n].text = end + 8;
            t[n].n = strlen(end + 8);
        } else if (think) {
            t[n].think = think->valuestring;
            t[n].n_think = strlen(think->valuestring);
        }
        n++;
    }
    return n;
}

TEST(transformers_gives_our_ids) {
    cm_err err;
    cm_chat c;
    cm_spm *spm = cm_spm_open(DIR "tokenizer.model", &err);
    CHECK(spm && cm_chat_open(&c, spm, &err));
    char *cases = text_of(DIR "cases.jsonl"), *expected = text_of(DIR "expected.jsonl");
    const char *p = cases, *q = expected;
    int n = 0, spelled = 0;
    while (p && *p && *q) {
        cJSON *a = cJSON_ParseWithOpts(p, &p, false), *b = cJSON_ParseWithOpts(q, &q, false);
        const char *name = cJSON_GetObjectItem(a, "name")->valuestring;
        cm_turn turn[8];
        int k = turns_of(cJSON_GetObjectItem(a, "messages"), turn);
        cm_chat_ids whole = { 0 }, prompt = { 0 };
        CHECK(!strcmp(name, cJSON_GetObjectItem(b, "name")->valuestring));
        CHECK(cm_chat_render(&c, spm, turn, k, false, &whole, &err) &&
              cm_chat_render(&c, spm, turn, k - 1, true, &prompt, &err));
        bool differs = !strncmp(name, "spelled_", 8); /* docs/CHAT.md says why */
        CHECKF(same_ids(&whole, cJSON_GetObjectItem(b, "ids")) == !differs, "%s", name);
        CHECKF(differs || same_ids(&prompt, cJSON_GetObjectItem(b, "prompt")), "%s", name);
        cm_chat_ids_free(&whole);
        cm_chat_ids_free(&prompt);
        cJSON_Delete(a);
        cJSON_Delete(b);
        n++;
        spelled += differs;
        while (*p == '\n') p++;
        while (*q == '\n') q++;
    }
    CHECKF(n == 15 && spelled == 3, "%d cases, %d spelled", n, spelled);
    free(cases);
    free(expected);
    cm_spm_close(spm);
}
