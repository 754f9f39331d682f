/* base.h -- what everything stands on: errors, arenas, random numbers, strings, files.
 *
 * Ownership in two lines: everything taken from an arena dies when the arena is reset
 * or closed; only functions named _open need a matching _close.
 * Two kinds of trouble: wrong input or a wrong world (file, config, disk) is returned
 * as `false` with a full sentence in a cm_err; a broken contract stops at CM_ASSERT. */
#ifndef CM_BASE_H
#define CM_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- exit codes and errors ------------------------------------------------------- */

/* Every exit code, once.  Readers: the enum, cm_exit_text, --help, docs/exit-codes.md. */
#define CM_EXITS(X)                                                                     \
    X(CM_EXIT_OK, 0, "success")                                                         \
    X(CM_EXIT_FAIL, 1, "run-time failure (input/output, internal)")                     \
    X(CM_EXIT_USAGE, 2, "usage or configuration error, or a named input that cannot be " \
                        "opened; nothing was written")                                  \
    X(CM_EXIT_CHECK, 3, "a check failed (regression, parity, gate)")                    \
    X(CM_EXIT_DATA, 4, "data integrity, or inputs that do not belong together")         \
    X(CM_EXIT_UNSURE, 5, "inconclusive")                                                \
    X(CM_EXIT_DIVERGED, 6, "training diverged (NaN, infinity, or spike policy stop)")   \
    X(CM_EXIT_RESOURCE, 7, "out of memory or disk; state saved where there was any")
/* The meaning of 128 + n. */
#define CM_EXIT_SIGNALLED "died of signal n; after saving, if that is INT, TERM or HUP"

typedef enum {
#define X(id, n, text) id = n,
    CM_EXITS(X)
#undef X
} cm_exit;

/* Text of an exit code, or NULL for a number that is not one (128+n are signals). */
const char *cm_exit_text(int code);

typedef struct cm_err {
    cm_exit code;
    char msg[1536];
} cm_err;

#if defined(__GNUC__)
#define CM_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define CM_NORETURN __attribute__((noreturn))
#else
#define CM_PRINTF(f, a)
#define CM_NORETURN
#endif

/* Store a sentence (no final newline) and a code.  Always returns false, so that a
 * function can end with `return cm_fail(err, CM_EXIT_DATA, "%s: ...", path)`. */
bool cm_fail(cm_err *err, cm_exit code, const char *fmt, ...) CM_PRINTF(3, 4);
/* As cm_fail, and adds what errno says: "PREFIX: No space left on device".  ENOSPC,
 * EDQUOT and ENOMEM get CM_EXIT_RESOURCE whatever `code` is. */
bool cm_fail_errno(cm_err *err, cm_exit code, const char *fmt, ...) CM_PRINTF(3, 4);

/* Bugs: print location and sentence on stderr, then abort. */
void cm_panic(const char *file, int line, const char *fmt, ...) CM_PRINTF(3, 4)
    CM_NORETURN;
#define CM_ASSERT(cond, ...)                                                            \
    ((cond) ? (void)0 : cm_panic(__FILE__, __LINE__, __VA_ARGS__))

/* ---- arenas ---------------------------------------------------------------------- */

#define CM_ALIGN 64 /* bytes; every allocation starts on a cache line */

/* A bump allocator over one reserved range of addresses.  Pages are committed by the
 * kernel on first touch.  A counting arena (`cm_arena_open_counting`) reserves
 * addresses that must never be touched: it measures, to the byte, what the same
 * calls would use. */
typedef struct cm_arena {
    const char *name;
    unsigned char *base;
    size_t cap, used; /* bytes */
    size_t peak;      /* most used; whoever counts may set it back */
    size_t touched;   /* private: most ever used, beyond which memory is fresh */
    bool counting;
} cm_arena;

bool cm_arena_open(cm_arena *a, const char *name, size_t cap, cm_err *err);
/* The same for one that will be filled: cm_memory_fits is asked first, `what` being the name. */
bool cm_arena_open_filled(cm_arena *a, const char *name, size_t cap, const char *instead,
                          cm_err *err);
bool cm_arena_open_counting(cm_arena *a, const char *name, cm_err *err);
void cm_arena_close(cm_arena *a);
/* CM_ALIGN-aligned bytes, not cleared.  Overflow is a bug (the plan sized the arena):
 * it panics with the arena's name. */
void *cm_arena_alloc(cm_arena *a, size_t bytes);
/* As above, filled with zeros (skipped in a counting arena). */
void *cm_arena_zalloc(cm_arena *a, size_t bytes);
static inline size_t cm_arena_mark(const cm_arena *a) { return a->used; }
/* Forget everything allocated since the mark.  Debug builds fill it with 0xFF (NaN). */
void cm_arena_reset(cm_arena *a, size_t mark);
/* Bytes that an allocation of n takes. */
static inline size_t cm_align_up(size_t n) {
    return (n + (CM_ALIGN - 1)) & ~(size_t)(CM_ALIGN - 1);
}

/* ---- what the machine grants ------------------------------------------------------- */

typedef struct cm_limits {
    double cpus;   /* processors: affinity and the control group's quota (2.5: two and a half) */
    double memory; /* bytes to be had without swapping; infinite where nothing tells */
} cm_limits;

cm_limits cm_limits_get(void);
/* Whole processors of these, at least 1: threads that wait for each other at barriers would
 * all wait for the one that has half a processor. */
int cm_cpus(void);
/* Called first in main: threads that wait spin briefly and then sleep, so that programs that
 * share a machine do not starve each other, and OpenBLAS starts none.  Starts the program once
 * more with both in its environment; GOMP_SPINCOUNT or OMP_WAIT_POLICY that are there stand. */
void cm_spin_briefly(char **argv);
/* Whether `need` bytes can be had, swap included where no control group limits; else a sentence,
 * CM_EXIT_RESOURCE: "WHAT takes NEED of memory and HAVE can be had: INSTEAD".  The system would
 * end the program without a word. */
bool cm_memory_fits(double need, const char *what, const char *instead, cm_err *err);
/* Lowers *l to what the control groups under a root folder allow ("" is the machine's). */
void cm_limits_under(const char *root, cm_limits *l);

/* ---- counter-based random numbers ------------------------------------------------ */

/* A stream is a pure function of (seed, purpose, step): element i can be asked for in
 * any order, by any thread, again after a resume. */
#define CM_PURPOSES(X)                                                                  \
    X(INIT, 1) X(SHUFFLE, 2) X(SAMPLE, 3) X(VOCAB, 4) X(CORPUS, 5) X(TEST, 6)            \
    X(BOOTSTRAP, 7) X(FEWSHOT, 8) X(NOISE, 9) X(PROBE, 10) X(NEFTUNE, 11)        \
    X(DROPOUT, 12) X(ROUND, 13)
enum {
#define X(name, n) CM_RNG_##name = n,
    CM_PURPOSES(X)
#undef X
};

typedef struct cm_rng {
    uint64_t key[2];
} cm_rng;

cm_rng cm_rng_make(uint64_t seed, uint32_t purpose, uint64_t step);
uint64_t cm_rng_u64(cm_rng r, uint64_t i);
/* Uniform in [0,1) with 53 bits. */
double cm_rng_uniform(cm_rng r, uint64_t i);
/* Standard normal by inverse distribution function (plain arithmetic, no libm, so the
 * same on every CPU); |x| < 8.3. */
double cm_rng_normal(cm_rng r, uint64_t i);
/* Uniform integer in [0,n), n >= 1. */
uint64_t cm_rng_below(cm_rng r, uint64_t i, uint64_t n);

/* ---- strings ---------------------------------------------------------------------- */

/* Growing byte buffer on the heap, always NUL-terminated after the first append.
 * Zero-initialise; cm_buf_free when done. */
typedef struct cm_buf {
    char *s;
    size_t n, cap;
} cm_buf;
void cm_buf_add(cm_buf *b, const void *bytes, size_t n);
void cm_buf_addf(cm_buf *b, const char *fmt, ...) CM_PRINTF(2, 3);
void cm_buf_free(cm_buf *b);

/* Levenshtein distance, for "did you mean". */
int cm_edit_distance(const char *a, const char *b);
/* The candidate nearest to `word` if near enough to suggest, else NULL. */
const char *cm_nearest(const char *word, const char *const *cands, int n);

/* Whole-string number parsing; false on empty, trailing text, overflow or not finite. */
bool cm_parse_i64(const char *s, int64_t *out);
bool cm_parse_f64(const char *s, double *out);
/* Counts with underscores and decimal suffixes k M G T (64k = 64000, 1_000), bytes with
 * KiB MiB GiB TiB (2GiB) or kB MB GB TB. */
bool cm_parse_count(const char *s, int64_t *out);
bool cm_parse_bytes(const char *s, int64_t *out);
/* The shortest decimal text that parses back to v; "nan", "inf", "-inf".  Returns buf. */
const char *cm_f64_text(double v, char buf[32]);
/* Human-readable "1.23 GiB" / "12.3M" into buf; returns buf. */
const char *cm_human_bytes(double n, char *buf, size_t cap);
const char *cm_human_count(double n, char *buf, size_t cap);
/* True when s[0..n) is valid UTF-8; *bad gets the offset of the first bad byte. */
bool cm_utf8_valid(const char *s, size_t n, size_t *bad);

/* ---- files ------------------------------------------------------------------------ */

/* Read-only memory map of a whole file.  Empty files map to size 0, data NULL. */
typedef struct cm_map {
    const unsigned char *data;
    size_t size;
} cm_map;
bool cm_map_open(cm_map *m, const char *path, cm_err *err);
void cm_map_close(cm_map *m);
/* These bytes of a map are not needed again soon: their pages leave this process's memory
 * and come back from the file when touched. */
void cm_map_forget(const void *p, size_t n);

/* An input that the user named: CM_EXIT_USAGE unless it is there and may be read.  To be
 * asked before the readers below, whose failures to open count as run-time failures. */
bool cm_need_input(const char *path, cm_err *err);
/* The same where a folder is none: CM_EXIT_USAGE for one. */
bool cm_need_input_file(const char *path, cm_err *err);

/* Whole file into a fresh buffer (NUL-terminated, free()); refuses above max bytes. */
bool cm_read_file(const char *path, size_t max, char **out, size_t *n, cm_err *err);

/* An output file that appears complete or not at all: written under a temporary name
 * in the same directory, then fsync, rename, fsync of the directory.  _abort (or a
 * crash) leaves the old file, if any, untouched. */
typedef struct cm_out {
    int fd;
    char *path, *tmp;
    uint64_t pos; /* bytes written so far */
    unsigned char *buf;
    size_t nbuf;
} cm_out;
bool cm_out_open(cm_out *o, const char *path, cm_err *err);
bool cm_out_write(cm_out *o, const void *p, size_t n, cm_err *err);
bool cm_out_printf(cm_out *o, cm_err *err, const char *fmt, ...) CM_PRINTF(3, 4);
bool cm_out_commit(cm_out *o, cm_err *err); /* closes in every case */
void cm_out_abort(cm_out *o);
/* Outputs that belong together: from _hold on, cm_out_commit of this thread finishes the temporary
 * and leaves it; _release renames all of them, one after the other with nothing in between, or
 * (keep is false) removes them all and returns true.  Where a rename fails the rest is removed.
 * Holds do not nest, and no path may be written twice in one. */
void cm_outs_hold(void);
bool cm_outs_release(bool keep, cm_err *err);
/* For signal handlers: remove the temporary files that are open, saying so, a line each.  One
 * that a killed program left goes when the same path is written again. */
void cm_temps_drop(void (*say)(const char *s));
/* The three in one for small files. */
bool cm_write_file(const char *path, const void *p, size_t n, cm_err *err);

bool cm_fsync_dir(const char *dir, cm_err *err);
/* Make dir and its parents; fine if it exists. */
bool cm_mkdirs(const char *dir, cm_err *err);
/* Remove a tree of plain files and folders (symlinks are removed, not followed). */
bool cm_remove_tree(const char *path, cm_err *err);
bool cm_exists(const char *path);
/* Whether two paths are one file or folder, or would be, where nothing is there yet. */
bool cm_same_file(const char *a, const char *b);
/* An output that the user named: false where its folder is not there or not ours to write.
 * made: folders that are missing will be made. */
bool cm_need_folder_of(const char *path, bool made, cm_err *err);
/* printf into a fresh string (free()). */
char *cm_strf(const char *fmt, ...) CM_PRINTF(1, 2);
/* Zeroed memory for n things of `size` bytes, one at least (free()).  There is none: a bug,
 * since what depends on a file's word is checked before. */
void *cm_room(int64_t n, size_t size);

/* ---- hashing ---------------------------------------------------------------------- */

/* SHA-256 through libcrypto: the one hash of the project (identity and integrity). */
typedef struct cm_sha cm_sha;
cm_sha *cm_sha_open(void);
void cm_sha_add(cm_sha *h, const void *p, size_t n);
/* Lower-case hex digest, 64 characters and NUL; frees h. */
void cm_sha_close(cm_sha *h, char hex[65]);
/* In one go; allocates nothing. */
void cm_sha_bytes(const void *p, size_t n, char hex[65]);
bool cm_sha_file(const char *path, char hex[65], cm_err *err);
/* The same for large files that a program asks for more than once: what has the device, inode,
 * size and times of a file hashed before is not read again, if those times were two seconds old
 * then (a clock's tick hides later changes).  From any thread. */
bool cm_sha_file_once(const char *path, char hex[65], cm_err *err);

/* ---- log and time ------------------------------------------------------------------ */

/* One line on stderr (and into the run's train.log when set): "tool: level: text". */
typedef enum { CM_LOG_DEBUG, CM_LOG_INFO, CM_LOG_WARN, CM_LOG_ERROR } cm_level;
void cm_log(cm_level lv, const char *fmt, ...) CM_PRINTF(2, 3);
void cm_log_setup(const char *tool, cm_level least);
void cm_log_tee(FILE *f); /* NULL stops; the file stays the caller's */
int cm_log_warnings(void); /* warnings since start */
/* Called before a line goes to stderr: lets a progress bar get out of the way. */
void cm_log_before(void (*fn)(void));
/* Seconds since an arbitrary start, monotonic. */
double cm_now(void);

#endif
