/* host_bench.c -- what the other numbers were measured on: CPU, kernel level, BLAS, memory
 * bandwidth, load.
 * Usage: host_bench [json=1] [busy=1] [threads=N] */
#include "bench/bench.h"
#include "op/op.h"
#include "run/run.h"

#include <cblas.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void text(const char *key, const char *value) {
    bench_say("%-24s %s\n", key, value);
    bench_put_text(value, key);
}

static void number(const char *key, double value) {
    bench_say("%-24s %.4g\n", key, value);
    bench_put(value, "%s", key);
}

/* The members of cm_machine_json that say what the machine is. */
static void machine(void) {
    cm_buf b = { 0 };
    cm_json_open(&b, NULL, '{');
    cm_machine_json(&b);
    cm_json_close(&b, '{');
    cJSON *all = cJSON_Parse(b.s), *m = cJSON_GetObjectItem(all, "machine"), *f;
    char flags[256] = "";
    size_t n = 0;
    cJSON_ArrayForEach(f, cJSON_GetObjectItem(m, "cpu_flags"))
        n += (size_t)snprintf(flags + n, sizeof flags - n, "%s%s", n ? " " : "",
                              f->valuestring);
    text("host/cpu/name", cJSON_GetStringValue(cJSON_GetObjectItem(m, "cpu")));
    text("host/cpu/flags", flags);
    text("host/system/name", cJSON_GetStringValue(cJSON_GetObjectItem(m, "system")));
    text("host/compiler/name", cJSON_GetStringValue(cJSON_GetObjectItem(m, "compiler")));
    number("host/cpu/cores", cJSON_GetNumberValue(cJSON_GetObjectItem(m, "cores")));
    number("host/memory/bytes", cJSON_GetNumberValue(cJSON_GetObjectItem(m, "memory_bytes")));
    cJSON_Delete(all);
    cm_buf_free(&b);
}

static bool one_of(const char *name, const char *const *list) {
    for (; *list; list++)
        if (!strcmp(name, *list)) return true;
    return false;
}

/* OpenBLAS chooses by what it knows of CPUs, or by an exported OPENBLAS_CORETYPE. */
static void blas(void) {
    static const char *const wide[] = { "SkylakeX", "Cooperlake", "SapphireRapids", NULL };
    static const char *const narrow[] = { "Prescott", "Core2", "Penryn", "Dunnington", "Nehalem",
        "Sandybridge", "Atom", "Opteron", "Opteron_SSE3", "Barcelona", "Bobcat", "Bulldozer",
        "Piledriver", "Steamroller", NULL };
    const char *core = openblas_get_corename();
    cm_level_id can = cm_kern_best_level();
    text("host/blas/core", core);
    bool below = can >= CM_LEVEL_AVX512 ? !one_of(core, wide)
                                        : can >= CM_LEVEL_AVX2 && one_of(core, narrow);
    bench_put(below, "host/blas/below_cpu");
    if (below)
        fprintf(stderr, "warning: OpenBLAS runs its %s kernels, the CPU can do more (%s)%s\n",
                core, cm_level_name(can),
                getenv("OPENBLAS_CORETYPE") ? ": unset OPENBLAS_CORETYPE" : "");
}

int main(int argc, char **argv) {
    cm_spin_briefly(argv);
    for (int i = 1; i < argc; i++)
        if (!bench_option(argv[i])) bench_unknown(argv[i], "nothing else");
    bench_start(CM_NUMERICS_STRICT);
    char date[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(date, sizeof date, "%Y-%m-%d %H:%M", gmtime_r(&now, &tm));
    text("host/date/utc", date);
    machine();
    text("host/kernels/name", cm_kern_describe());
    number("host/threads/count", cm_kern_threads());
    blas();
    text("host/clock/name", bench.busy ? "processor time of one thread" : "wall clock");
    double load[1] = { 0 };
    number("host/load/count", getloadavg(load, 1) == 1 ? load[0] : 0);
    number("host/memory/gb_per_s", cm_read_probe(1) * 1e-9);
    if (cm_kern_level() < cm_kern_best_level())
        fprintf(stderr, "warning: kernels run at level %s, the CPU has %s\n",
                cm_level_name(cm_kern_level()), cm_level_name(cm_kern_best_level()));
    return 0;
}
