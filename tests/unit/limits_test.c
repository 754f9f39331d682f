/* limits_test.c -- processors and memory of control groups, in made-up trees of files. */
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char root[4096];

/* Writes a file below the root, its folders first. */
static void put(const char *path, const char *text) {
    char full[8192];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0755);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    CM_ASSERT(f, "cannot write %s", full);
    fputs(text, f);
    fclose(f);
}

static cm_limits under(const char *name, const char *groups) {
    snprintf(root, sizeof root, "%s/%s", t_tmpdir(), name);
    mkdir(root, 0755);
    put("/proc/self/cgroup", groups);
    return (cm_limits){ .cpus = 64, .memory = 256e9 };
}

TEST(version_2_takes_the_least_of_all_ancestors) {
    cm_limits l = under("v2", "0::/user/job\n");
    put("/sys/fs/cgroup/user/job/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/user/cpu.max", "250000 100000\n");
    put("/sys/fs/cgroup/user/job/memory.max", "4000000000\n");
    put("/sys/fs/cgroup/user/job/memory.current", "3000000000\n");
    put("/sys/fs/cgroup/user/job/memory.stat", "anon 5\ninactive_file 2000000000\n");
    put("/sys/fs/cgroup/user/memory.max", "max\n");
    put("/sys/fs/cgroup/user/memory.current", "9000000000\n");
    cm_limits_under(root, &l);
    CHECKF(l.cpus == 2.5 && l.memory == 3e9, "%g processors, %g bytes", l.cpus, l.memory);
}

/* Whichever group has it: the least counts, and quota is per period. */
TEST(a_looser_ancestor_changes_nothing) {
    cm_limits l = under("looser", "0::/user/job\n");
    put("/sys/fs/cgroup/user/job/cpu.max", "30000 20000\n");
    put("/sys/fs/cgroup/user/cpu.max", "400000 100000\n");
    put("/sys/fs/cgroup/user/job/memory.max", "5000\n");
    put("/sys/fs/cgroup/user/job/memory.current", "1000\n");
    put("/sys/fs/cgroup/user/memory.max", "50000\n");
    put("/sys/fs/cgroup/user/memory.current", "2000\n");
    cm_limits_under(root, &l);
    CHECKF(l.cpus == 1.5 && l.memory == 4000, "%g processors, %g bytes", l.cpus, l.memory);
}

/* The group's name is the machine's, the folder the container's own. */
TEST(a_container_sees_its_group_at_the_root) {
    cm_limits l = under("own", "0::/docker/0123\n");
    put("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    put("/sys/fs/cgroup/memory.max", "1000\n");
    put("/sys/fs/cgroup/memory.current", "2000\n");
    put("/sys/fs/cgroup/memory.stat", "anon 5\ninactive_file 2500\n"); /* read a moment later */
    cm_limits_under(root, &l);
    CHECKF(l.cpus == 1.5 && l.memory == 0, "%g processors, %g bytes", l.cpus, l.memory);
}

TEST(version_1_has_a_tree_for_each_resource) {
    cm_limits l = under("v1", "4:memory:/job\n2:cpuacct,cpu:/\n1:name=systemd:/x\n0::/x\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "8000000000\n");
    put("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "3000000000\n");
    put("/sys/fs/cgroup/memory/job/memory.stat",
        "inactive_file 5\ntotal_inactive_file 2000000000\n");
    cm_limits_under(root, &l);
    CHECKF(l.cpus == 3 && l.memory == 7e9, "%g processors, %g bytes", l.cpus, l.memory);
}

TEST(no_limit_changes_nothing) {
    cm_limits l = under("free", "2:cpu:/\n4:memory:/\n0::/\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu.max", "nonsense\n");
    cm_limits_under(root, &l);
    CHECK(l.cpus == 64 && l.memory == 256e9);
    l = (cm_limits){ .cpus = 64, .memory = 256e9 };
    cm_limits_under("/nonexistent", &l);
    CHECK(l.cpus == 64 && l.memory == 256e9);
}

TEST(this_machine_grants_something) {
    cm_limits l = cm_limits_get();
    CHECK(l.cpus > 0 && cm_cpus() >= 1 && cm_cpus() <= 1 << 16);
    CHECK(l.memory > 1e6);
}

TEST(what_does_not_fit_is_refused_in_a_sentence) {
    cm_err err = { 0 };
    CHECK(cm_memory_fits(0, "nothing", "", &err));
    CHECK(!cm_memory_fits(4e18, "the model", "take a smaller one", &err));
    CHECKF(err.code == CM_EXIT_RESOURCE && strstr(err.msg, "the model takes ") == err.msg &&
           strstr(err.msg, " of memory and ") && strstr(err.msg, " can be had: take a smaller one"),
           "%d: %s", err.code, err.msg);
    cm_arena a;
    CHECK(!cm_arena_open_filled(&a, "the weights", (size_t)1 << 50, "buy memory", &err));
    CHECKF(err.code == CM_EXIT_RESOURCE && strstr(err.msg, "the weights takes 1.00 PiB") == err.msg,
           "%s", err.msg);
    cm_arena_close(&a);
}
