/* spm_train.c -- vocabulary training in a child process.
 *
 * The library logs to stderr and aborts on what it calls internal errors; in a child both
 * become a sentence.  The result is rebuilt from its pieces, so that the bytes, and with
 * them the tokenizer's identity, depend on the pieces alone. */
#include "text/spm_proto.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static bool write_all(int fd, const char *p, size_t n) {
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

/* In the child: output goes to `log`, the proto or the library's message to `result`. */
CM_NORETURN static void child(const cm_spm_train_conf *c, FILE *in, int result, int log) {
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    cm_buf proto = { 0 };
    cm_err err;
    bool ok = cm_spm_train_here(c, in, &proto, &err);
    bool sent = ok ? write_all(result, proto.s, proto.n)
                   : write_all(result, err.msg, strlen(err.msg));
    _exit(!sent ? CM_EXIT_RESOURCE : ok ? 0 : (int)err.code); /* allowed: child */
}

static void slurp(int fd, cm_buf *b) {
    char part[65536];
    lseek(fd, 0, SEEK_SET);
    for (ssize_t n; (n = read(fd, part, sizeof part)) > 0;) cm_buf_add(b, part, (size_t)n);
    cm_buf_add(b, "", 0);
}

/* The number that follows `key` in the library's message, or -1. */
static long number_after(const char *msg, const char *key) {
    const char *p = strstr(msg, key);
    return p ? strtol(p + strlen(key), NULL, 10) : -1;
}

static bool explain(const cm_spm_train_conf *c, const char *msg, cm_exit code,
                    cm_err *err) {
    long most = number_after(msg, "Please set it to a value <= ");
    if (most > 0)
        return cm_fail(err, CM_EXIT_USAGE, "vocabulary of %d is larger than the corpus "
                       "supports: at most %ld pieces can be made from it", c->vocab, most);
    long least = number_after(msg, " vs ");
    if (strstr(msg, "smaller than required_chars") && least > 0)
        return cm_fail(err, CM_EXIT_USAGE, "vocabulary of %d is too small: the bytes, "
                       "markers and characters of this corpus need at least %ld pieces",
                       c->vocab, least);
    return cm_fail(err, code, "vocabulary training: %s", msg);
}

/* The last line of the library's log, for a death without a message. */
static const char *last_line(cm_buf *log) {
    while (log->n && log->s[log->n - 1] == '\n') log->s[--log->n] = 0;
    char *nl = log->n ? strrchr(log->s, '\n') : NULL;
    return nl ? nl + 1 : log->n ? log->s : "no message";
}

static bool run_child(const cm_spm_train_conf *c, FILE *in, cm_buf *result, cm_err *err) {
    int out = memfd_create("vocabulary", MFD_CLOEXEC);
    int log = memfd_create("vocabulary-log", MFD_CLOEXEC);
    fflush(NULL);
    pid_t pid = out < 0 || log < 0 ? -1 : fork();
    if (pid == 0) child(c, in, out, log);
    bool ok = pid > 0;
    int status = 0;
    if (!ok) cm_fail_errno(err, CM_EXIT_FAIL, "cannot start vocabulary training");
    while (ok && waitpid(pid, &status, 0) < 0) ok = errno == EINTR;
    cm_buf text = { 0 };
    if (out >= 0) slurp(out, result);
    if (log >= 0) slurp(log, &text);
    if (ok && WIFSIGNALED(status))
        ok = cm_fail(err, CM_EXIT_USAGE, "vocabulary training died (signal %d): %s",
                     WTERMSIG(status), last_line(&text));
    else if (ok && WEXITSTATUS(status))
        ok = explain(c, result->s, (cm_exit)WEXITSTATUS(status), err);
    cm_buf_free(&text);
    if (out >= 0) close(out);
    if (log >= 0) close(log);
    return ok;
}

/* No control name may be the join of two ordinary pieces: llama.cpp looks merges up among
 * all tokens, so plain text that spells the name would become the control token. */
static bool check_controls(const cm_spm_model *m, const cm_spm *s, cm_err *err) {
    for (int i = 0; i < m->n; i++) {
        const cm_spm_entry *e = &m->piece[i];
        if (e->type != CM_PIECE_CONTROL && e->type != CM_PIECE_BYTE) continue;
        for (size_t k = 1; k < e->n; k++) {
            char head[256];
            snprintf(head, sizeof head, "%.*s", (int)k, e->text);
            if (cm_spm_id(s, head) < 0 || cm_spm_id(s, e->text + k) < 0) continue;
            return cm_fail(err, CM_EXIT_USAGE, "control token '%s': the vocabulary has "
                           "pieces '%s' and '%s', so text could spell it; choose another "
                           "name", e->text, head, e->text + k);
        }
    }
    return true;
}

static bool rebuild(const cm_buf *raw, cm_buf *proto, cm_err *err) {
    cm_spm_model m;
    if (!cm_spm_proto_read(&m, raw->s, raw->n, "trained vocabulary", err)) return false;
    size_t n = (size_t)m.n;
    const char **piece = malloc(n * sizeof *piece);
    size_t *len = malloc(n * sizeof *len);
    float *score = malloc(n * sizeof *score);
    int *type = malloc(n * sizeof *type);
    CM_ASSERT(piece && len && score && type, "out of memory");
    for (size_t i = 0; i < n; i++) {
        piece[i] = m.piece[i].text;
        len[i] = m.piece[i].n;
        score[i] = m.piece[i].score;
        type[i] = m.piece[i].type;
    }
    bool ok = cm_spm_build(piece, len, score, type, m.n, 1, 2, 0, -1, false, proto, err);
    cm_spm *s = ok ? cm_spm_open_bytes(proto->s, proto->n, err) : NULL;
    ok = s && check_controls(&m, s, err);
    cm_spm_close(s);
    free(piece);
    free(len);
    free(score);
    free(type);
    cm_spm_proto_free(&m);
    return ok;
}

bool cm_spm_train(const cm_spm_train_conf *c, cm_buf *proto, cm_err *err) {
    FILE *in = fopen(c->input, "r");
    if (!in) return cm_fail_errno(err, CM_EXIT_USAGE, "%s", c->input);
    int first = getc(in);
    rewind(in);
    cm_buf raw = { 0 };
    bool ok = first != EOF ? run_child(c, in, &raw, err)
                           : cm_fail(err, CM_EXIT_USAGE, "%s: empty: no text to make a "
                                     "vocabulary from", c->input);
    fclose(in);
    ok = ok && rebuild(&raw, proto, err);
    cm_buf_free(&raw);
    return ok;
}
