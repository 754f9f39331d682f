/* base_test.c -- arenas, random numbers, parsing, atomic files, hashing. */
#include "tests/t.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- errors ---------------------------------------------------------------------- */

TEST(errors_keep_sentence_and_code) {
    cm_err e = {0};
    CHECK(!cm_fail(&e, CM_EXIT_DATA, "%s: wrong", "x.bin"));
    CHECK(e.code == CM_EXIT_DATA && !strcmp(e.msg, "x.bin: wrong"));
    CHECK(!cm_fail(&e, CM_EXIT_FAIL, "while reading: %s", e.msg));
    CHECK(!strcmp(e.msg, "while reading: x.bin: wrong"));
    errno = ENOSPC;
    cm_fail_errno(&e, CM_EXIT_FAIL, "out");
    CHECK(e.code == CM_EXIT_RESOURCE);
    CHECK(!strcmp(e.msg, "out: No space left on device"));
    errno = EACCES;
    cm_fail_errno(&e, CM_EXIT_USAGE, "out");
    CHECK(e.code == CM_EXIT_USAGE);
    CHECK(!strcmp(cm_exit_text(0), "success") && !cm_exit_text(8) && !cm_exit_text(130));
}

/* ---- arenas ---------------------------------------------------------------------- */

static size_t take_some(cm_arena *a) {
    cm_arena_alloc(a, 1);
    size_t m = cm_arena_mark(a);
    cm_arena_zalloc(a, 1000);
    cm_arena_alloc(a, 0);
    cm_arena_alloc(a, 4096);
    cm_arena_reset(a, m);
    cm_arena_alloc(a, 65);
    return a->used;
}

TEST(arena_counting_equals_real) {
    cm_arena real, count;
    cm_err e = {0};
    CHECKF(cm_arena_open(&real, "real", 1 << 20, &e), "%s", e.msg);
    CHECKF(cm_arena_open_counting(&count, "count", &e), "%s", e.msg);
    CHECK(take_some(&real) == take_some(&count));
    CHECK(real.used == 64 + 128 && real.peak == 64 + 1024 + 4096);
    CHECK(real.peak == count.peak);
    cm_arena_close(&real);
    cm_arena_close(&count);
}

TEST(arena_memory) {
    cm_arena a;
    cm_err e = {0};
    CHECK(cm_arena_open(&a, "a", 1 << 16, &e));
    unsigned char *p = cm_arena_zalloc(&a, 100);
    CHECK((uintptr_t)p % CM_ALIGN == 0);
    for (int i = 0; i < 100; i++)
        CHECK(p[i] == 0);
    cm_arena_reset(&a, 0);
    unsigned char *q = cm_arena_alloc(&a, 100);
    CHECK(q == p);
#ifdef CM_DEBUG
    for (int i = 0; i < 100; i++)
        CHECK(q[i] == 0xFF);
#endif
    memset(q, 1, 100);
    cm_arena_reset(&a, 0);
    p = cm_arena_zalloc(&a, 5000); /* used memory, and some that never was */
    for (int i = 0; i < 5000; i++)
        CHECK(p[i] == 0);
    memset(p, 1, 5000);
    cm_arena_reset(&a, 0);
    a.peak = 0; /* counts anew; what was used stays used */
    p = cm_arena_zalloc(&a, 5000);
    for (int i = 0; i < 5000; i++)
        CHECK(p[i] == 0);
    cm_arena_close(&a);
}

/* ---- threads that wait --------------------------------------------------------------- */

/* The exit status of this program, started again for the next test alone with `how` in its
 * environment. */
static int started_with(const char *how) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        unsetenv("GOMP_SPINCOUNT");
        unsetenv("OMP_WAIT_POLICY");
        unsetenv("OPENBLAS_NUM_THREADS");
        setenv("CHIMERA_TEST_STARTED", how, 1);
        if (*how) setenv("OMP_WAIT_POLICY", how, 1);
        if (!freopen("/dev/null", "w", stdout)) _exit(98);
        execl("/proc/self/exe", "base_test", "a_start_of_this_program", (char *)NULL);
        _exit(99);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(a_start_of_this_program_sees_how_long_to_spin) {
    const char *how = getenv("CHIMERA_TEST_STARTED"), *rounds = getenv("GOMP_SPINCOUNT");
    if (how) {
        const char *blas = getenv("OPENBLAS_NUM_THREADS");
        CHECKF(blas && !strcmp(blas, "1"), "OPENBLAS_NUM_THREADS=%s", blas ? blas : "-");
        CHECKF(*how ? !rounds : rounds && atoi(rounds) > 0, "GOMP_SPINCOUNT=%s with policy '%s'",
               rounds ? rounds : "-", how);
        return;
    }
    CHECK(started_with("") == 0);
    CHECK(started_with("active") == 0); /* the user's own word stands */
}

/* Run fn in a child with its stderr closed; returns the signal or -1. */
static int dies(void (*fn)(void)) {
    pid_t pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGSEGV, SIG_DFL);
        freopen("/dev/null", "w", stderr);
        fn();
        _exit(0);
    }
    int st = 0;
    waitpid(pid, &st, 0);
    return WIFSIGNALED(st) ? WTERMSIG(st) : -1;
}

static void touch_counting(void) {
    cm_arena a;
    cm_arena_open_counting(&a, "count", &(cm_err){0});
    *(volatile char *)cm_arena_alloc(&a, 64) = 1;
}

static void overflow(void) {
    cm_arena a;
    cm_arena_open(&a, "small", 128, &(cm_err){0});
    cm_arena_alloc(&a, 65);
    cm_arena_alloc(&a, 1);
}

TEST(arena_misuse_dies) {
    CHECK(dies(touch_counting) == SIGSEGV);
    CHECK(dies(overflow) == SIGABRT);
}

/* ---- random numbers -------------------------------------------------------------- */

/* Known answers published with the authors' Random123 library (kat_vectors). */
TEST(rng_known_answers) {
    cm_rng zero = {{0, 0}}, ones = {{~0ull, ~0ull}};
    cm_rng pi = {{0x299f31d0a4093822, 0x0370734413198a2e}};
    CHECK(cm_rng_u64(zero, 0) == 0xe169c58d6627e8d5);
    CHECK(cm_rng_u64(ones, ~0ull) == 0x41c83b0e408f276d);
    CHECK(cm_rng_u64(pi, 0x85a308d3243f6a88) == 0x94fdccebd16cfe09);
}

TEST(rng_streams_differ) {
    cm_rng a = cm_rng_make(42, CM_RNG_INIT, 0);
    CHECK(cm_rng_u64(a, 7) == cm_rng_u64(cm_rng_make(42, CM_RNG_INIT, 0), 7));
    CHECK(cm_rng_u64(a, 7) != cm_rng_u64(a, 8));
    CHECK(cm_rng_u64(a, 7) != cm_rng_u64(cm_rng_make(43, CM_RNG_INIT, 0), 7));
    CHECK(cm_rng_u64(a, 7) != cm_rng_u64(cm_rng_make(42, CM_RNG_SHUFFLE, 0), 7));
    CHECK(cm_rng_u64(a, 7) != cm_rng_u64(cm_rng_make(42, CM_RNG_INIT, 1), 7));
}

TEST(rng_uniform_statistics) {
    enum { N = 1 << 18, BINS = 64 };
    cm_rng r = cm_rng_make(1, CM_RNG_TEST, 0);
    double sum = 0, lag = 0, prev = 0.5, chi = 0;
    static int bin[BINS];
    for (int i = 0; i < N; i++) {
        double u = cm_rng_uniform(r, (uint64_t)i);
        CHECK(u >= 0 && u < 1);
        sum += u;
        lag += (u - 0.5) * (prev - 0.5);
        prev = u;
        bin[(int)(u * BINS)]++;
    }
    for (int b = 0; b < BINS; b++)
        chi += (bin[b] - N / BINS) * (double)(bin[b] - N / BINS) / (N / BINS);
    CHECKF(fabs(sum / N - 0.5) < 5 * 0.2887 / sqrt(N), "mean %.6f", sum / N);
    CHECKF(fabs(lag / N) < 5.0 / 12 / sqrt(N), "lag-1 correlation %.6f", lag / N);
    /* chi-square with 63 degrees of freedom: 5 sigma is 63 + 5 sqrt(126) */
    CHECKF(chi > 63 - 45 && chi < 63 + 57, "chi-square %.1f", chi);
}

TEST(rng_normal_statistics) {
    enum { N = 1 << 18 };
    cm_rng r = cm_rng_make(2, CM_RNG_TEST, 3);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
    for (int i = 0; i < N; i++) {
        double x = cm_rng_normal(r, (uint64_t)i);
        m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x;
    }
    CHECKF(fabs(m1 / N) < 5 / sqrt(N), "mean %.5f", m1 / N);
    CHECKF(fabs(m2 / N - 1) < 5 * sqrt(2.0 / N), "variance %.5f", m2 / N);
    CHECKF(fabs(m3 / N) < 5 * sqrt(15.0 / N), "third moment %.5f", m3 / N);
    CHECKF(fabs(m4 / N - 3) < 5 * sqrt(96.0 / N), "fourth moment %.5f", m4 / N);
}

/* The distribution function of the value gives back the uniform number it came from,
 * to the last places: checks all three ranges of AS 241 and the logarithm. */
TEST(rng_normal_inverts_the_distribution) {
    for (int s = 0; s < 60; s++) {
        cm_rng r = cm_rng_make((uint64_t)s, CM_RNG_TEST, 9);
        for (uint64_t i = 0; i < 2000; i++) {
            uint64_t k = cm_rng_u64(r, i) >> 11, half = (uint64_t)1 << 52;
            double tail = (double)(2 * (k < half ? k : 2 * half - 1 - k) + 1) * 0x1p-54;
            double x = cm_rng_normal(r, i), back = 0.5 * erfc(fabs(x) / sqrt(2.0));
            CHECKF(fabs(back / tail - 1) < 1e-13, "tail %.17g x %.17g", tail, x);
            CHECK((x < 0) == (k < half));
        }
    }
}

TEST(rng_below) {
    cm_rng r = cm_rng_make(5, CM_RNG_TEST, 0);
    int seen[7] = {0};
    for (uint64_t i = 0; i < 70000; i++) {
        uint64_t k = cm_rng_below(r, i, 7);
        CHECK(k < 7);
        seen[k % 7]++;
    }
    for (int k = 0; k < 7; k++)
        CHECKF(abs(seen[k] - 10000) < 500, "%d: %d", k, seen[k]);
    CHECK(cm_rng_below(r, 0, 1) == 0);
}

/* ---- strings --------------------------------------------------------------------- */

TEST(parse_numbers) {
    int64_t i;
    double d;
    CHECK(cm_parse_i64("-42", &i) && i == -42);
    CHECK(cm_parse_i64("9223372036854775807", &i) && i == INT64_MAX);
    CHECK(!cm_parse_i64("9223372036854775808", &i) && !cm_parse_i64("", &i));
    CHECK(!cm_parse_i64(" 1", &i) && !cm_parse_i64("1 ", &i) && !cm_parse_i64("-", &i));
    CHECK(!cm_parse_i64("0x10", &i) && !cm_parse_i64("1.0", &i));
    CHECK(cm_parse_f64("1e-3", &d) && d == 1e-3);
    CHECK(cm_parse_f64("-.5", &d) && d == -0.5);
    CHECK(!cm_parse_f64("nan", &d) && !cm_parse_f64("1e999", &d));
    CHECK(!cm_parse_f64("1f", &d) && !cm_parse_f64("", &d) && !cm_parse_f64("e", &d));
}

TEST(parse_counts_and_bytes) {
    int64_t i;
    CHECK(cm_parse_count("64k", &i) && i == 64000);
    CHECK(cm_parse_count("1_000_000", &i) && i == 1000000);
    CHECK(cm_parse_count("1.5M", &i) && i == 1500000);
    CHECK(cm_parse_count("2G", &i) && i == 2000000000);
    CHECK(cm_parse_count("9223372036854775807", &i) && i == INT64_MAX);
    CHECK(!cm_parse_count("1.5", &i) && !cm_parse_count("_1", &i));
    CHECK(!cm_parse_count("1__0", &i) && !cm_parse_count("1_", &i));
    CHECK(!cm_parse_count("10MiB", &i) && !cm_parse_count("k", &i));
    CHECK(!cm_parse_count("9300000000G", &i) && !cm_parse_count("-1", &i));
    CHECK(cm_parse_bytes("2GiB", &i) && i == 2147483648);
    CHECK(cm_parse_bytes("1kB", &i) && i == 1000);
    CHECK(cm_parse_bytes("0.5MiB", &i) && i == 524288);
    CHECK(!cm_parse_bytes("2G", &i) && !cm_parse_bytes("", &i));
}

TEST(human_numbers) {
    char b[32];
    CHECK(!strcmp(cm_human_bytes(1320702444, b, sizeof b), "1.23 GiB"));
    CHECK(!strcmp(cm_human_bytes(12, b, sizeof b), "12 B"));
    CHECK(!strcmp(cm_human_bytes(1048575.9, b, sizeof b), "1.00 MiB"));
    CHECK(!strcmp(cm_human_count(12.3e6, b, sizeof b), "12.3M"));
    CHECK(!strcmp(cm_human_count(999999, b, sizeof b), "1.00M"));
    CHECK(!strcmp(cm_human_count(999, b, sizeof b), "999"));
}

TEST(nearest_words) {
    static const char *const keys[] = {"lr", "beta1", "beta2", "weight_decay", "warmup",
                                       "muon_momentum"};
    CHECK(cm_edit_distance("kitten", "sitting") == 3);
    CHECK(cm_edit_distance("", "abc") == 3 && cm_edit_distance("abc", "abc") == 0);
    const char *s = cm_nearest("weigth_decay", keys, 6);
    CHECK(s && !strcmp(s, "weight_decay"));
    s = cm_nearest("learning_rate", keys, 6);
    CHECK(s && !strcmp(s, "lr"));
    s = cm_nearest("warmup_steps", keys, 6);
    CHECK(s && !strcmp(s, "warmup"));
    s = cm_nearest("momentum", keys, 6);
    CHECK(s && !strcmp(s, "muon_momentum"));
    CHECK(!cm_nearest("zebra", keys, 6) && !cm_nearest("x", keys, 6));
}

TEST(utf8) {
    size_t bad = 99;
    CHECK(cm_utf8_valid("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z", 11, &bad));
    CHECK(cm_utf8_valid("", 0, &bad));
    static const struct {
        const char *s;
        size_t n, bad;
    } wrong[] = {
        {"abcdefgh\xFFz", 10, 8}, {"\xC0\x80", 2, 0},         {"a\xE0\x9F\x80", 4, 1},
        {"\xED\xA0\x80", 3, 0},   {"\xF4\x90\x80\x80", 4, 0}, {"ab\xE2\x82", 4, 2},
        {"\x80", 1, 0},           {"\xF5\x80\x80\x80", 4, 0}, {"\xF0\x8F\xBF\xBF", 4, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bad = 99;
        CHECKF(!cm_utf8_valid(wrong[i].s, wrong[i].n, &bad) && bad == wrong[i].bad,
               "case %zu: bad at %zu", i, bad);
    }
}

TEST(buffers_grow) {
    cm_buf b = {0};
    for (int i = 0; i < 1000; i++)
        cm_buf_addf(&b, "%d,", i);
    CHECK(b.n == 10 * 2 + 90 * 3 + 900 * 4 && b.s[b.n] == 0);
    CHECK(!strncmp(b.s + b.n - 4, "999,", 4));
    cm_buf_free(&b);
}

/* ---- files ----------------------------------------------------------------------- */

static char *tmp(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

static bool holds(const char *path, const char *want) {
    char *s;
    size_t n;
    if (!cm_read_file(path, 1 << 20, &s, &n, NULL))
        return false;
    bool same = n == strlen(want) && !memcmp(s, want, n);
    free(s);
    return same;
}

TEST(out_appears_only_on_commit) {
    cm_err e = {0};
    char *p = tmp("out.txt");
    cm_out o;
    CHECKF(cm_write_file(p, "old", 3, &e), "%s", e.msg);
    CHECK(cm_out_open(&o, p, &e) && cm_out_printf(&o, &e, "new %d", 1));
    char *part = cm_strf("%s", o.tmp);
    CHECK(o.pos == 5 && holds(p, "old") && cm_exists(part));
    cm_out_abort(&o);
    CHECK(holds(p, "old") && !cm_exists(part));
    CHECK(cm_out_open(&o, p, &e) && cm_out_printf(&o, &e, "new") &&
          cm_out_commit(&o, &e));
    CHECK(holds(p, "new") && !cm_exists(part));
    free(part);
    free(p);
}

TEST(outs_that_are_held_appear_together) {
    cm_err e = {0};
    char *a = tmp("held-a"), *b = tmp("held-b");
    CHECK(cm_write_file(a, "old", 3, &e) && cm_write_file(b, "old", 3, &e));
    for (int keep = 0; keep < 2; keep++) {
        cm_outs_hold();
        CHECK(cm_write_file(a, "new a", 5, &e) && cm_write_file(b, "new b", 5, &e));
        CHECK(holds(a, "old") && holds(b, "old"));
        CHECK(cm_outs_release(keep, &e));
        CHECK(holds(a, keep ? "new a" : "old") && holds(b, keep ? "new b" : "old"));
    }
    CHECK(cm_write_file(a, "at once", 7, &e) && holds(a, "at once"));
    char *part = cm_strf("%s.%ld.tmp", a, (long)getpid());
    cm_outs_hold();
    CHECK(cm_write_file(a, "lost", 4, &e) && cm_write_file(b, "lost", 4, &e) && cm_exists(part));
    CHECK(!unlink(part) && !cm_outs_release(true, &e) && strstr(e.msg, "rename"));
    CHECK(holds(a, "at once") && holds(b, "new b"));
    free(part);
    free(a);
    free(b);
}

TEST(out_large_and_read_back) {
    enum { N = 1000003 };
    char *p = tmp("large.bin"), *data = malloc(N), *back;
    for (int i = 0; i < N; i++)
        data[i] = (char)cm_rng_u64(cm_rng_make(1, CM_RNG_TEST, 1), (uint64_t)i);
    cm_out o;
    cm_err e = {0};
    CHECK(cm_out_open(&o, p, &e));
    int sizes[] = {1, 262144, 4095, 7, 262143, 0, 300000}; /* around the buffer's size */
    int at = 0;
    for (int k = 0; at < N; k++) {
        int n = sizes[k % 7] < N - at ? sizes[k % 7] : N - at;
        CHECK(cm_out_write(&o, data + at, (size_t)n, &e));
        at += n;
    }
    CHECK(o.pos == N && cm_out_commit(&o, &e));
    size_t n;
    CHECK(cm_read_file(p, N, &back, &n, &e) && n == N && !memcmp(data, back, N));
    free(back);
    cm_map m;
    CHECK(cm_map_open(&m, p, &e) && m.size == N && !memcmp(m.data, data, N));
    cm_map_close(&m);
    CHECK(!cm_read_file(p, N - 1, &back, &n, &e) && strstr(e.msg, "larger than"));
    char hex[65], hex2[65];
    cm_sha_bytes(data, N, hex);
    CHECK(cm_sha_file(p, hex2, &e) && !strcmp(hex, hex2));
    free(data);
    free(p);
}

/* Bytes this process has asked the kernel for by read(). */
static long long bytes_read(void) {
    FILE *f = fopen("/proc/self/io", "r");
    long long n = -1;
    if (f && fscanf(f, "rchar: %lld", &n) != 1) n = -1;
    if (f) fclose(f);
    return n;
}

TEST(a_settled_file_is_hashed_once_and_a_changed_one_again) {
    enum { N = 1 << 20 };
    char *p = cm_strf("%s/once", t_tmpdir()), *data = calloc(N, 1), want[65], hex[65];
    cm_err e;
    CHECK(data && cm_write_file(p, data, N, &e));
    cm_sha_bytes(data, N, want);
    long long start = bytes_read();
    CHECK(start >= 0);
    for (int i = 0; i < 2; i++) CHECK(cm_sha_file_once(p, hex, &e) && !strcmp(hex, want));
    CHECK(bytes_read() - start >= 2 * N); /* too young: it might yet change within a tick */
    sleep(4);
    start = bytes_read();
    for (int i = 0; i < 3; i++) CHECK(cm_sha_file_once(p, hex, &e) && !strcmp(hex, want));
    CHECKF(bytes_read() - start < 2 * N, "%lld bytes read", bytes_read() - start);
    data[7] = 1;
    CHECK(cm_write_file(p, data, N, &e));
    cm_sha_bytes(data, N, want);
    CHECK(cm_sha_file_once(p, hex, &e) && !strcmp(hex, want));
    unlink(p);
    CHECK(!cm_sha_file_once(p, hex, &e));
    free(data);
    free(p);
}

TEST(out_to_bad_places) {
    cm_err e = {0};
    cm_out o;
    char *file = tmp("plain"), *under = tmp("plain/x"), *none = tmp("none/x");
    CHECK(cm_write_file(file, "", 0, &e));
    CHECK(!cm_out_open(&o, under, &e) && strstr(e.msg, "Not a directory"));
    CHECK(!cm_out_open(&o, none, &e) && strstr(e.msg, "No such file"));
    CHECK(!cm_out_open(&o, t_tmpdir(), &e) && strstr(e.msg, "is a folder"));
    /* /proc refuses new files even for root. */
    CHECK(!cm_out_open(&o, "/proc/chimera", &e) && e.code == CM_EXIT_FAIL);
    CHECK(!cm_mkdirs(under, &e) && !cm_mkdirs("/proc/chimera/x", &e));
    free(file), free(under), free(none);
}

TEST(out_device_is_not_replaced) {
    cm_err e = {0};
    struct stat st;
    CHECK(cm_write_file("/dev/null", "x", 1, &e));
    CHECK(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode));
    CHECK(!cm_write_file("/dev/full", "x", 1, &e) && e.code == CM_EXIT_RESOURCE);
}

TEST(out_keeps_symlinks) {
    cm_err e = {0};
    char *real = tmp("real.txt"), *ln = tmp("link.txt");
    CHECK(cm_write_file(real, "a", 1, &e) && symlink("real.txt", ln) == 0);
    CHECK(cm_write_file(ln, "b", 1, &e) && holds(real, "b"));
    struct stat st;
    CHECK(lstat(ln, &st) == 0 && S_ISLNK(st.st_mode));
    free(real), free(ln);
}

/* A file that may not grow past a limit fails like a full disk: resources, old file
 * kept, no temporary left. */
TEST(out_when_the_disk_is_full) {
    cm_err e = {0};
    char *p = tmp("full.bin"), big[4096] = {0};
    CHECK(cm_write_file(p, "old", 3, &e));
    struct rlimit was, small;
    getrlimit(RLIMIT_FSIZE, &was);
    small = (struct rlimit){1024, was.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    cm_out o;
    CHECK(cm_out_open(&o, p, &e));
    char *part = cm_strf("%s", o.tmp);
    CHECK(cm_out_write(&o, big, sizeof big, &e) && !cm_out_commit(&o, &e));
    setrlimit(RLIMIT_FSIZE, &was);
    CHECKF(e.code == CM_EXIT_RESOURCE, "%s", e.msg);
    CHECK(!cm_out_write(&o, "x", 1, &e) && !cm_out_commit(&o, &e));
    CHECK(holds(p, "old") && !cm_exists(part));
    free(part), free(p);
}

/* What a killed writer left goes when the path is written again; what another process may
 * still be writing, or is somebody's file of such a name, does not. */
TEST(out_removes_what_the_dead_left) {
    cm_err e = {0};
    pid_t dead = fork();
    if (dead == 0) _exit(0);
    waitpid(dead, NULL, 0);
    char *p = tmp("killed.bin"), *left = cm_strf("%s.%ld.tmp", p, (long)dead);
    char *alive = cm_strf("%s.%ld.tmp", p, (long)getppid()), *other = cm_strf("%s.x.tmp", p);
    char *text = cm_strf("%s.%ld.tmp.txt", p, (long)dead);
    CHECK(cm_write_file(left, "part", 4, &e) && cm_write_file(alive, "part", 4, &e));
    CHECK(cm_write_file(other, "mine", 4, &e) && cm_write_file(text, "mine", 4, &e));
    CHECK(cm_write_file(p, "whole", 5, &e) && holds(p, "whole"));
    CHECK(!cm_exists(left) && cm_exists(alive) && cm_exists(other) && cm_exists(text));
    /* Its number is free here, but on another machine of the same disk it writes on. */
    CHECK(cm_write_file(left, "part", 4, &e));
    int fd = open(left, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB));
    CHECK(cm_write_file(p, "whole", 5, &e) && cm_exists(left));
    close(fd);
    CHECK(cm_write_file(p, "whole", 5, &e) && !cm_exists(left));
    free(p), free(left), free(alive), free(other), free(text);
}

TEST(out_is_locked_while_it_is_open) {
    cm_err e = {0};
    cm_out o;
    char *p = tmp("locked.bin");
    CHECK(cm_out_open(&o, p, &e));
    int fd = open(o.tmp, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK);
    CHECK(cm_out_write(&o, "x", 1, &e) && cm_out_commit(&o, &e));
    CHECK(!flock(fd, LOCK_EX | LOCK_NB));
    close(fd);
    free(p);
}

TEST(one_file_by_two_names) {
    cm_err e = {0};
    char *a = tmp("same.txt"), *b = cm_strf("%s/./same.txt", t_tmpdir()), *ln = tmp("same.link");
    char *other = tmp("same.other"), *none = tmp("none/same.txt");
    CHECK(cm_same_file(a, b) && !cm_same_file(a, other) && !cm_same_file(a, none));
    CHECK(cm_write_file(a, "x", 1, &e) && !symlink(a, ln) && cm_write_file(other, "x", 1, &e));
    CHECK(cm_same_file(a, b) && cm_same_file(a, ln) && !cm_same_file(a, other));
    free(a), free(b), free(ln), free(other), free(none);
}

TEST(folders) {
    cm_err e = {0};
    char *deep = tmp("a/b/c"), *top = tmp("a"), *f = tmp("a/b/c/f"), *out = tmp("keep");
    char *ln = tmp("a/b/link");
    CHECK(cm_mkdirs(deep, &e) && cm_mkdirs(deep, &e) && cm_write_file(f, "1", 1, &e));
    CHECK(cm_mkdirs(out, &e) && symlink("../../keep", ln) == 0);
    CHECK(cm_fsync_dir(deep, &e) && !cm_fsync_dir(f, &e));
    CHECKF(cm_remove_tree(top, &e), "%s", e.msg);
    CHECK(!cm_exists(top) && cm_exists(out) && cm_remove_tree(top, &e));
    free(deep), free(top), free(f), free(out), free(ln);
}

TEST(empty_and_missing_maps) {
    cm_err e = {0};
    cm_map m;
    char *p = tmp("empty"), *none = tmp("missing");
    CHECK(cm_write_file(p, "", 0, &e) && cm_map_open(&m, p, &e) && !m.data && !m.size);
    cm_map_close(&m);
    CHECK(!cm_map_open(&m, none, &e) && strstr(e.msg, "missing: cannot open: No such"));
    CHECK(!cm_map_open(&m, t_tmpdir(), &e));
    free(p), free(none);
}

/* ---- hashing --------------------------------------------------------------------- */

TEST(sha256_known_answers) {
    char hex[65]; /* FIPS 180-2, appendix B */
    cm_sha_bytes("abc", 3, hex);
    CHECK(!strcmp(hex, "ba7816bf8f01cfea414140de5dae2223"
                       "b00361a396177a9cb410ff61f20015ad"));
    cm_sha_bytes("", 0, hex);
    CHECK(!strcmp(hex, "e3b0c44298fc1c149afbf4c8996fb924"
                       "27ae41e4649b934ca495991b7852b855"));
    cm_sha *h = cm_sha_open();
    cm_sha_add(h, "a", 1);
    cm_sha_add(h, "bc", 2);
    cm_sha_close(h, hex);
    CHECK(!strncmp(hex, "ba7816bf", 8));
}
