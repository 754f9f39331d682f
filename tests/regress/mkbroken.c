/* mkbroken.c -- spoils one tensor of a model, for tests that must notice.
 *
 *   mkbroken IN.gguf OUT.gguf TENSOR negate|invert
 * Copies a GGUF file and changes one F32 tensor in it: negate takes x to -x; invert takes
 * -exp(A_log) of ssm_a to -exp(-A_log), so that the sign of A_log is flipped while the file
 * stays a valid model. */
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

static bool change(const cm_gguf *g, char *copy, const char *name, const char *how,
                   cm_err *err) {
    const cm_tensor *t = cm_gguf_tensor(g, name);
    if (!t) return cm_fail(err, CM_EXIT_USAGE, "no tensor '%s'", name);
    if (t->dtype != CM_F32_T) return cm_fail(err, CM_EXIT_USAGE, "'%s' is not F32", name);
    bool invert = !strcmp(how, "invert");
    if (!invert && strcmp(how, "negate"))
        return cm_fail(err, CM_EXIT_USAGE, "negate or invert, not '%s'", how);
    char *at = copy + ((const char *)t->data - (const char *)g->map.data);
    for (int64_t i = 0; i < cm_tensor_count(t); i++) {
        float x;
        memcpy(&x, at + 4 * i, 4);
        x = invert ? 1 / x : -x;
        memcpy(at + 4 * i, &x, 4);
    }
    return true;
}

int main(int argc, char **argv) {
    cm_err err = { 0 };
    cm_gguf g = { 0 };
    if (argc != 5) {
        fprintf(stderr, "usage: mkbroken IN OUT TENSOR negate|invert\n");
        return 2;
    }
    bool ok = cm_gguf_open(&g, argv[1], &err);
    char *copy = ok ? malloc(g.map.size) : NULL;
    if (ok) {
        CM_ASSERT(copy, "out of memory: %zu bytes", g.map.size);
        memcpy(copy, g.map.data, g.map.size);
        ok = change(&g, copy, argv[3], argv[4], &err) &&
             cm_write_file(argv[2], copy, g.map.size, &err);
        cm_gguf_close(&g);
    }
    free(copy);
    if (!ok) fprintf(stderr, "mkbroken: %s\n", err.msg);
    return ok ? 0 : (int)err.code;
}
