/* ckpt_test.c -- checkpoints: exact, complete or absent, kept by rule, refused when they
 * belong to something else. */
#include "tests/train_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *in_tmp(const char *name) { return cm_strf("%s/%s", t_tmpdir(), name); }

static const char *corpus(void) {
    static char *dir;
    if (!dir) fx_corpus(dir = in_tmp("corpus"), 60, CM_SHARD_BOS | CM_SHARD_EOS);
    return dir;
}

static void kernels(void) {
    cm_err err;
    CHECKF(cm_kern_init(CM_NUMERICS_STRICT, 1, &err), "%s", err.msg);
}

static bool is_there(const char *dir, const char *name) {
    char *p = cm_strf("%s/%s", dir, name);
    bool yes = cm_exists(p);
    free(p);
    return yes;
}

static void check_link(const char *dir, const char *name, const char *to) {
    char *p = cm_strf("%s/%s", dir, name), got[64] = "";
    ssize_t n = readlink(p, got, sizeof got - 1);
    CHECKF(n > 0 && !strcmp(got, to), "%s -> '%s', want %s", name, got, to);
    free(p);
}

TEST(state_survives_json_to_the_last_bit) {
    cm_train_conf tc = { .spike_sigma = 6, .spike_window = 8 };
    double mem[2][16];
    cm_train_state a = { .step = 123456789012345, .updates = 2, .tokens = 1LL << 52,
                         .row = 4, .spikes = 5, .skipped = 6, .bad = 7, .bad_run = 1,
                         .val_step = 120, .best_step = -1, .best = 0.1 + 0.2,
                         .val_loss = INFINITY };
    cm_train_state b = { 0 };
    cm_guard_init(&a.guard, &tc, mem[0]);
    cm_guard_init(&b.guard, &tc, mem[1]);
    for (int i = 0; i < 11; i++) cm_guard_judge(&a.guard, 1.0 / (i + 3), 1e-300 * i);
    cm_buf text = { 0 };
    char data[65], tok[65];
    cm_err err;
    cm_train_state_write(&a, "dd", "tt", &text);
    CHECKF(cm_train_state_read(&b, "x", text.s, data, tok, &err), "%s", err.msg);
    CHECK(!strcmp(data, "dd") && !strcmp(tok, "tt"));
    CHECK(!memcmp(mem[0], mem[1], sizeof mem[0]));
    CHECK(b.guard.loss.at == a.guard.loss.at && b.guard.gnorm.n == 8);
    b.guard = a.guard;
    CHECK(!memcmp(&a, &b, sizeof a));
    /* Every field is needed: text with any one of them renamed is refused. */
    for (char *p = text.s; (p = strstr(p, "\": ")); p++) {
        char keep = p[-1];
        p[-1] = '#';
        CHECK(!cm_train_state_read(&b, "x", text.s, data, tok, &err) ||
              strstr(text.s, "kernel#") || strstr(text.s, "ran#"));
        p[-1] = keep;
    }
    cm_buf_free(&text);
}

/* What reading a state says that kernels of `level` left. */
static char *said_of_level(const char *level) {
    cm_train_conf tc = { .spike_window = 1 };
    double mem[2];
    cm_train_state s = { 0 };
    cm_guard_init(&s.guard, &tc, mem);
    cm_buf state = { 0 };
    cm_train_state_write(&s, "dd", "tt", &state);
    char *own = cm_strf("\"kernels\": \"%s\"", cm_level_name(cm_kern_level()));
    char *at = strstr(state.s, own), *path = in_tmp("said"), *said = NULL;
    CM_ASSERT(at, "no kernels in %s", state.s);
    char *other = cm_strf("%.*s\"kernels\": \"%s\"%s", (int)(at - state.s), state.s, level,
                          at + strlen(own));
    char data[65], tok[65];
    cm_err err;
    size_t n;
    FILE *f = fopen(path, "w");
    cm_log_tee(f);
    CHECKF(cm_train_state_read(&s, "x", other, data, tok, &err), "%s", err.msg);
    cm_log_tee(NULL);
    fclose(f);
    CHECKF(cm_read_file(path, 4096, &said, &n, &err), "%s", err.msg);
    cm_buf_free(&state);
    free(own), free(other), free(path);
    return said;
}

TEST(another_kernel_level_is_named) {
    const char *was = getenv("CHIMERA_KERNELS");
    char *level = was ? cm_strf("%s", was) : NULL;
    setenv("CHIMERA_KERNELS", "ref", 1);
    kernels();
    if (level) setenv("CHIMERA_KERNELS", level, 1);
    else unsetenv("CHIMERA_KERNELS");
    const char *best = cm_level_name(cm_kern_best_level());
    char *same = said_of_level("ref"), *none = said_of_level("sve"), *some = said_of_level(best);
    char *set = cm_strf("(those come with CHIMERA_KERNELS=%s)", best);
    CHECKF(!*same, "%s", same);
    CHECKF(strstr(none, "with sve kernels, this run uses ref") &&
           strstr(none, "(this CPU or build does not have them)"), "%s", none);
    CHECKF(!strcmp(best, "ref") || strstr(some, set), "%s", some);
    free(same), free(none), free(some), free(set), free(level);
    kernels();
}

TEST(keep_rules) {
    kernels();
    char *dir = in_tmp("keep");
    free(fx_run(corpus(), dir, 0, (const char *[]){
        "ckpt.every=2", "ckpt.keep_last=2", "ckpt.keep_every=6", "ckpt.best=false", NULL }));
    static const int want[] = { 6, 12, 18, 20 };
    for (int s = 1, k = 0; s <= 20; s++) {
        char name[32];
        snprintf(name, sizeof name, "step-%08d", s);
        bool stays = s == want[k];
        CHECKF(is_there(dir, name) == stays, "step %d %s", s, stays ? "lost" : "kept");
        k += stays && k < 3;
    }
    check_link(dir, "latest", "step-00000020");
    CHECK(!is_there(dir, "best"));
    free(dir);
}

TEST(best_stays_though_it_is_old) {
    kernels();
    char *dir = in_tmp("best");
    /* A rate that climbs to harm: the lowest validation loss comes early. */
    free(fx_run(corpus(), dir, 0, (const char *[]){
        "ckpt.every=1", "ckpt.keep_last=1", "val.every=2", "optim.lr=10",
        "sched.kind=constant", "sched.warmup=5120", NULL }));
    char *best = cm_strf("%s/best", dir), to[64] = "";
    CHECK(readlink(best, to, sizeof to - 1) > 0);
    CHECKF(!strcmp(to, "step-00000002"), "the best is %s: a poor test", to);
    CHECKF(is_there(dir, to), "%s is gone", to);
    check_link(dir, "latest", "step-00000020");
    free(best);
    free(dir);
}

TEST(sums_are_what_sha256sum_checks_and_weights_what_transformers_reads) {
    kernels();
    char *dir = in_tmp("sums");
    free(fx_run(corpus(), dir, 2, NULL));
    char *cmd = cm_strf("cd %s/latest && sha256sum -c --quiet SHA256SUMS", dir);
    CHECK(system(cmd) == 0);
    char *path = cm_strf("%s/latest/model.safetensors", dir);
    cm_st st;
    cm_err err;
    CHECKF(cm_st_open(&st, path, &err), "%s", err.msg);
    const cm_tensor *conv = cm_st_find(&st, "model.layers.0.mamba.conv1d.weight");
    CHECK(conv && conv->nd == 3 && conv->dim[1] == 1 && conv->dim[2] == 4);
    const char *format = cm_st_get_meta(&st, "format");
    CHECK(format && !strcmp(format, "pt"));
    cm_st_close(&st);
    free(path);
    free(cmd);
    free(dir);
}

/* ---- damage ------------------------------------------------------------------------ */

static void damage(const char *dir, const char *file, int how) {
    char *path = cm_strf("%s/%s", dir, file);
    struct stat st;
    CHECK(stat(path, &st) == 0);
    if (how == 0) {
        FILE *f = fopen(path, "r+b");
        CHECK(f && !fseek(f, st.st_size / 2, SEEK_SET));
        int c = fgetc(f);
        fseek(f, st.st_size / 2, SEEK_SET);
        fputc(c ^ 1, f);
        fclose(f);
    } else if (how == 1) {
        CHECK(truncate(path, st.st_size / 2) == 0);
    } else {
        CHECK(unlink(path) == 0);
    }
    free(path);
}

TEST(a_damaged_newest_checkpoint_is_passed_over) {
    kernels();
    static const char *const files[] = { "model.safetensors", "optimizer.safetensors",
                                         "state.json", "SHA256SUMS" };
    char *straight = NULL;
    for (int i = 0; i < 4; i++)
        for (int how = 0; how < 3; how++) {
            char name[32];
            snprintf(name, sizeof name, "dmg%d%d", i, how);
            char *dir = in_tmp(name), *file = cm_strf("step-00000004/%s", files[i]);
            free(fx_run(corpus(), dir, 4, (const char *[]){ "ckpt.every=2", NULL }));
            if (!straight) straight = fx_sums(dir, 4);
            damage(dir, file, how);
            int warned = cm_log_warnings();
            char *again = fx_run(corpus(), dir, 4, (const char *[]){ "ckpt.every=2", NULL });
            CHECK(cm_log_warnings() > warned);
            CHECKF(again && !strcmp(again, straight), "%s, damage %d", files[i], how);
            free(again);
            free(file);
            free(dir);
        }
    free(straight);
}

TEST(when_all_are_damaged_nothing_starts_over) {
    kernels();
    char *dir = in_tmp("alldmg");
    free(fx_run(corpus(), dir, 4, (const char *[]){ "ckpt.every=2", NULL }));
    damage(dir, "step-00000004/model.safetensors", 0);
    damage(dir, "step-00000002/model.safetensors", 1);
    fx_job f;
    cm_err err;
    bool complete;
    fx_open(&f, corpus(), dir, NULL);
    CHECK(!cm_train(&f.job, &complete, &err));
    CHECKF(err.code == CM_EXIT_DATA && strstr(err.msg, "model.safetensors"), "%s", err.msg);
    fx_close(&f);
    free(dir);
}

TEST(leftovers_of_a_killed_save_are_removed) {
    kernels();
    char *dir = in_tmp("left"), *a = cm_strf("%s/.tmp-step-00000003", dir);
    char *b = cm_strf("%s/.old-step-00000001", dir), *junk = cm_strf("%s/x", a);
    cm_err err;
    free(fx_run(corpus(), dir, 2, NULL));
    CHECK(cm_mkdirs(a, &err) && cm_mkdirs(b, &err) && cm_write_file(junk, "x", 1, &err));
    free(fx_run(corpus(), dir, 4, NULL));
    CHECK(!cm_exists(a) && !cm_exists(b));
    free(a);
    free(b);
    free(junk);
    free(dir);
}

/* ---- belonging --------------------------------------------------------------------- */

static cm_exit resume_with(const char *dir, const char *word, const char *other_tokenizer,
                           const char *other_data, cm_resume resume, char *msg) {
    fx_job f;
    cm_err err = { 0 };
    bool complete;
    fx_open(&f, corpus(), dir, (const char *[]){ word, NULL });
    if (other_tokenizer) f.job.tokenizer = other_tokenizer;
    if (other_data) strcpy(f.train_rows.id, other_data);
    f.job.stop_at = 4;
    f.job.resume = resume;
    bool ok = cm_train(&f.job, &complete, &err);
    fx_close(&f);
    strcpy(msg, err.msg);
    return ok ? CM_EXIT_OK : err.code;
}

TEST(a_checkpoint_of_another_run_is_refused) {
    kernels();
    char *dir = in_tmp("mine"), msg[2000];
    free(fx_run(corpus(), dir, 2, NULL));
    char *before = fx_sums(dir, 2);
    CHECK(resume_with(dir, "optim.lr=1e-3", NULL, NULL, CM_RESUME_AUTO, msg) ==
          CM_EXIT_USAGE);
    CHECKF(strstr(msg, "optim.lr: 0.003 -> 0.001"), "%s", msg);
    CHECK(resume_with(dir, NULL, "another", NULL, CM_RESUME_AUTO, msg) == CM_EXIT_DATA);
    CHECKF(strstr(msg, "tokenizer"), "%s", msg);
    CHECK(resume_with(dir, NULL, NULL, "another", CM_RESUME_AUTO, msg) == CM_EXIT_DATA);
    char *after = fx_sums(dir, 2);
    CHECK(before && after && !strcmp(before, after));
    free(before);
    free(after);
    free(dir);
    dir = in_tmp("free");
    free(fx_run(corpus(), dir, 2, NULL));
    CHECK(resume_with(dir, "log.every=3", NULL, NULL, CM_RESUME_AUTO, msg) == CM_EXIT_OK);
    free(dir);
    dir = in_tmp("must");
    free(fx_run(corpus(), dir, 2, NULL));
    CHECK(resume_with(dir, "optim.lr=1e-3", NULL, NULL, CM_RESUME_MUST, msg) == CM_EXIT_OK);
    free(dir);
    dir = in_tmp("nothing");
    CHECK(resume_with(dir, NULL, NULL, NULL, CM_RESUME_MUST, msg) == CM_EXIT_USAGE);
    free(dir);
}

TEST(another_shape_is_refused_before_anything_changes) {
    kernels();
    char *dir = in_tmp("shape"), msg[2000];
    free(fx_run(corpus(), dir, 2, NULL));
    CHECK(resume_with(dir, "model.d_expert=32", NULL, NULL, CM_RESUME_MUST, msg) ==
          CM_EXIT_DATA);
    CHECKF(strstr(msg, "block_sparse_moe"), "%s", msg);
    free(dir);
}
