/* tables.c -- the tables of docs/BENCHMARKS.md from kept measurements.
 *
 * usage: tables FILE.md > FILE.new
 * Copies the text; between `<!-- bench:TABLE FILE.json [PREFIX] -->` and `<!-- end -->` it
 * writes the table anew from that file (made by `make bench`, kept in docs/bench/):
 *   host         what it was measured on
 *   gemm         products: ours, OpenBLAS, peers
 *   ops          time and share of floor of each op
 *   train        whole steps
 *   lengths      a token's time by the length of rows, against the flop formula
 *   attention    by length: share of the best product, memory; beside peers
 *   list         every number whose key begins with PREFIX */
#include "run/run.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static cJSON *data; /* of the region's file */

CM_PRINTF(1, 2) static double number(const char *fmt, ...) {
    char key[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(key, sizeof key, fmt, ap);
    va_end(ap);
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(data, key));
}

/* "12.3", or "12.3 (11.9 to 12.8)" where rounds give an interval; "" when not measured. */
static const char *cell(const char *key, double scale, int digits) {
    static char text[4][96];
    static int next;
    char *out = text[next++ & 3];
    double x = number("%s", key), lo = number("%s_min", key), hi = number("%s_max", key);
    if (!isfinite(x)) return "";
    int n = snprintf(out, sizeof text[0], "%.*f", digits, x * scale);
    if (isfinite(lo) && isfinite(hi))
        snprintf(out + n, sizeof text[0] - (size_t)n, " (%.*f to %.*f)", digits, lo * scale,
                 digits, hi * scale);
    return out;
}

/* key is PREFIX NAME SUFFIX: NAME. */
static bool between(const char *key, const char *prefix, const char *suffix, char *name) {
    size_t n = strlen(key), a = strlen(prefix), b = strlen(suffix);
    if (n <= a + b || n - a - b >= 128 || strncmp(key, prefix, a) || strcmp(key + n - b, suffix))
        return false;
    snprintf(name, 128, "%.*s", (int)(n - a - b), key + a);
    return true;
}

static void host(const char *prefix) {
    (void)prefix;
    printf("\n| | |\n|---|---|\n");
    const cJSON *x;
    cJSON_ArrayForEach(x, data) {
        if (strncmp(x->string, "host/", 5)) continue;
        if (cJSON_IsString(x)) printf("| %s | %s |\n", x->string + 5, x->valuestring);
        else printf("| %s | %.6g |\n", x->string + 5, x->valuedouble);
    }
}

/* GFLOP/s. */
static void gemm(const char *prefix) {
    (void)prefix;
    printf("\n| product | Chimera | of stored BF16 | OpenBLAS | others |\n|---|---|---|---|---|\n");
    static const char *const who[] = { "ours", "ours-stored", "openblas" };
    const cJSON *x, *y;
    cJSON_ArrayForEach(x, data) {
        char name[128], part[160], key[256], other[128];
        if (!between(x->string, "gemm/", "/ours/gflops", name)) continue;
        printf("| %s |", name);
        for (size_t i = 0; i < sizeof who / sizeof *who; i++) {
            snprintf(key, sizeof key, "gemm/%s/%s/gflops", name, who[i]);
            printf(" %s |", cell(key, 1, 1));
        }
        snprintf(part, sizeof part, "/gemm/%s/gflops", name);
        cJSON_ArrayForEach(y, data)
            if (between(y->string, "peer/", part, other))
                printf(" %s: %s", other, cell(y->string, 1, 1));
        printf(" |\n");
    }
}

static void ops(const char *prefix) {
    (void)prefix;
    printf("\n| op | forward, ms | of its floor, %% | backward, ms | of its floor, %% |\n"
           "|---|---|---|---|---|\n");
    const cJSON *x;
    cJSON_ArrayForEach(x, data) {
        char name[128], key[256];
        if (!between(x->string, "op/", "/fwd/ms", name)) continue;
        printf("| %s |", name);
        for (int back = 0; back < 2; back++) {
            const char *way = back ? "bwd" : "fwd";
            snprintf(key, sizeof key, "op/%s/%s/ms", name, way);
            printf(" %s |", cell(key, 1, 2));
            snprintf(key, sizeof key, "op/%s/%s/share_of_floor", name, way);
            printf(" %s |", cell(key, 100, 0));
        }
        printf("\n");
    }
}

static void train(const char *prefix) {
    (void)prefix;
    printf("\n| step | tokens/s | MFU, %% | activations, GB | in all, GB |\n"
           "|---|---|---|---|---|\n");
    const cJSON *x;
    cJSON_ArrayForEach(x, data) {
        char name[128], key[256];
        if (!between(x->string, "train/", "/tok_per_s", name)) continue;
        printf("| %s | %s |", name, cell(x->string, 1, 0));
        snprintf(key, sizeof key, "train/%s/mfu", name);
        printf(" %s |", cell(key, 100, 1));
        double step = number("train/%s/step_bytes", name);
        double total = number("train/%s/total_bytes", name);
        printf(" %.2f | %.2f |\n", step * 1e-9, total * 1e-9);
    }
}

static void lengths(const char *prefix) {
    (void)prefix;
    printf("\n| step | tokens/s | time a token | by the formula | quotient |\n"
           "|---|---|---|---|---|\n");
    const cJSON *x;
    cJSON_ArrayForEach(x, data) {
        char name[128], key[256];
        if (!between(x->string, "length/", "/tok_per_s", name)) continue;
        printf("| %s | %s |", name, cell(x->string, 1, 0));
        snprintf(key, sizeof key, "length/%s/time_ratio", name);
        printf(" %s |", cell(key, 1, 3));
        printf(" %.3f |", number("length/%s/predicted_ratio", name));
        snprintf(key, sizeof key, "length/%s/quotient", name);
        printf(" %s |\n", cell(key, 1, 3));
    }
}

static void attention(const char *prefix) {
    (void)prefix;
    printf("\n| length | forward, %% of the best product | backward, %% | both, %% "
           "| bytes a row |\n|---|---|---|---|---|\n");
    static const char *const ways[] = { "forward_share", "backward_share", "share" };
    const cJSON *x;
    cJSON_ArrayForEach(x, data) {
        char name[128], key[256];
        if (!between(x->string, "attention/", "/arena_bytes_per_row", name)) continue;
        printf("| %s |", name);
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            snprintf(key, sizeof key, "attention/%s/%s", name, ways[i]);
            printf(" %s |", cell(key, 100, 0));
        }
        printf(" %.0f |\n", x->valuedouble);
    }
    printf("\n| beside | forward | backward | both | ours, ms | theirs, ms |\n"
           "|---|---|---|---|---|---|\n");
    static const char *const sides[] = { "forward_ratio", "backward_ratio", "both_ratio",
                                         "ours_ms", "theirs_ms" };
    cJSON_ArrayForEach(x, data) {
        char name[128], key[256];
        if (!between(x->string, "peer/", "/both_ratio", name)) continue;
        printf("| %s |", name);
        for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
            snprintf(key, sizeof key, "peer/%s/%s", name, sides[i]);
            printf(" %s |", cell(key, 1, i < 3 ? 2 : 1));
        }
        printf("\n");
    }
}

static void list(const char *prefix) {
    printf("\n| measured | median | least | largest |\n|---|---|---|---|\n");
    const cJSON *x;
    cJSON_ArrayForEach(x, data) {
        char name[128];
        if (strncmp(x->string, prefix, strlen(prefix)) || !cJSON_IsNumber(x) ||
            between(x->string, "", "_min", name) || between(x->string, "", "_max", name))
            continue;
        printf("| %s | %.4g |", x->string, x->valuedouble);
        double lo = number("%s_min", x->string), hi = number("%s_max", x->string);
        if (isfinite(lo)) printf(" %.4g | %.4g |\n", lo, hi);
        else printf(" | |\n");
    }
}

static const struct {
    const char *name;
    void (*write)(const char *prefix);
} tables[] = {
    { "host", host },     { "gemm", gemm },           { "ops", ops }, { "train", train },
    { "lengths", lengths }, { "attention", attention }, { "list", list },
};

/* A region's first line; false: a sentence was said. */
static bool region(const char *line) {
    char table[32], file[256], prefix[64] = "";
    cm_err err;
    char *text;
    size_t n;
    if (sscanf(line, "<!-- bench:%31s %255s %63s", table, file, prefix) < 2) {
        fprintf(stderr, "tables: cannot read: %s", line);
        return false;
    }
    if (!strcmp(prefix, "-->")) *prefix = 0;
    if (!cm_read_file(file, (size_t)64 << 20, &text, &n, &err)) {
        fprintf(stderr, "tables: %s\n", err.msg);
        return false;
    }
    data = cJSON_Parse(text);
    free(text);
    for (size_t i = 0; data && i < sizeof tables / sizeof *tables; i++)
        if (!strcmp(table, tables[i].name)) {
            tables[i].write(prefix);
            cJSON_Delete(data);
            return true;
        }
    fprintf(stderr, "tables: no table '%s', or %s is not JSON\n", table, file);
    return false;
}

int main(int argc, char **argv) {
    FILE *f = argc == 2 ? fopen(argv[1], "re") : NULL;
    char *line = NULL;
    size_t cap = 0;
    bool inside = false, ok = f != NULL;
    while (ok && getline(&line, &cap, f) > 0) {
        if (inside && strncmp(line, "<!-- end -->", 12)) continue;
        if (inside) printf("\n");
        inside = false;
        fputs(line, stdout);
        if (!strncmp(line, "<!-- bench:", 11)) ok = inside = region(line);
    }
    if (!f) fprintf(stderr, "usage: tables FILE.md > FILE.new\n");
    if (ok && inside) fprintf(stderr, "tables: a region without <!-- end -->\n");
    if (f) fclose(f);
    free(line);
    return ok && !inside ? 0 : 1;
}
