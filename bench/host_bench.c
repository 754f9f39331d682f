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

static void blas(void) {
    char why[CM_BLAS_TEXT];
    bool below = cm_blas_below_cpu(why);
    text("host/blas/core", openblas_get_corename());
    bench_put(below, "host/blas/below_cpu");
    if (below) fprintf(stderr, "warning: %s\n", why);
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
