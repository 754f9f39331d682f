/* machine.c -- what a number was measured on. */
#include "run/run.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The value of the first "key : value" line of /proc/cpuinfo; free(). */
static char *cpuinfo(const char *key) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    char *line = NULL, *found = NULL;
    size_t cap = 0, n = strlen(key);
    while (f && !found && getline(&line, &cap, f) > 0) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, n) || (line[n] != '\t' && line[n] != ' '))
            continue;
        colon += colon[1] == ' ' ? 2 : 1;
        colon[strcspn(colon, "\n")] = 0;
        found = cm_strf("%s", colon);
    }
    free(line);
    if (f)
        fclose(f);
    return found ? found : cm_strf("%s", "");
}

static void cpu_flags(cm_buf *b) {
    static const char *const matter[] = {"avx2", "fma", "f16c", "avx512f", "avx512bw",
                                         "avx512_bf16", "avx512_vnni", "amx_bf16"};
    char *all = cpuinfo("flags"), *rest = all;
    cm_json_open(b, "cpu_flags", '[');
    for (char *w; (w = strsep(&rest, " "));)
        for (size_t i = 0; i < sizeof matter / sizeof *matter; i++)
            if (!strcmp(w, matter[i]))
                cm_json_str(b, NULL, w);
    cm_json_close(b, '[');
    free(all);
}

void cm_machine_json(cm_buf *b) {
    struct utsname u;
    char *model = cpuinfo("model name");
    cm_json_open(b, "machine", '{');
    cm_json_str(b, "cpu", model);
    cpu_flags(b);
    cm_json_i64(b, "cores", sysconf(_SC_NPROCESSORS_ONLN));
    cm_json_i64(b, "memory_bytes",
                (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE));
    if (uname(&u) == 0) {
        char *sys = cm_strf("%s %s %s", u.sysname, u.release, u.machine);
        cm_json_str(b, "system", sys);
        free(sys);
    }
    cm_json_str(b, "compiler", __VERSION__);
    cm_json_close(b, '{');
    free(model);
}
