/* yaml_fuzz.c -- any bytes as a run file: refused with places, or read, dumped and read back
 * to the same values.  The last line is tried as a `section.key=value` word too. */
#include "conf/conf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was accepted survives a trip through its own text. */
static void there_and_back(const cm_conf *c) {
    cm_conf again;
    cm_buf text = { 0 }, diff = { 0 };
    cm_conf_dump(c, false, &text);
    cm_conf_open(&again, NULL);
    cm_conf_text(&again, "dump", text.s, text.n);
    CM_ASSERT(cm_conf_check(&again, NULL), "the dump does not parse: %s",
              cm_conf_errors(&again));
    CM_ASSERT(!cm_conf_diff(c, &again, &diff), "the dump says otherwise: %s", diff.s);
    cm_buf_free(&text);
    cm_buf_free(&diff);
    cm_conf_close(&again);
}

static void judge(cm_conf *c) {
    cm_err err = { 0 };
    if (cm_conf_check(c, &err)) there_and_back(c);
    else CM_ASSERT(err.code == CM_EXIT_USAGE && *err.msg, "no sentence");
    cm_conf_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cm_conf c;
    cm_conf_open(&c, NULL);
    cm_conf_text(&c, "fuzz", (const char *)data, size);
    judge(&c);

    char *word = malloc(size + 1);
    if (!word) return 0;
    memcpy(word, data, size);
    word[size] = 0;
    char *line = strrchr(word, '\n');
    cm_conf_open(&c, NULL);
    cm_conf_set(&c, line ? line + 1 : word);
    judge(&c);
    free(word);
    return 0;
}
