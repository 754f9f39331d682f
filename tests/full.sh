#!/bin/sh
# full.sh -- what `make test` has no time for; `make test-full` runs it after `make test`.
#
# usage: tests/full.sh [PART ...]    parts: asan kernels clang faults fuzz big calib regress (default: all)
#   asan     every unit, golden, command-line and fault test with ASan, UBSan and leak check
#   kernels  the unit and golden tests at every lower kernel level this CPU has
#   clang    the unit and golden tests as clang compiles them (needs clang and libomp-dev)
#   faults   the fault loops with KILLS=100
#   fuzz     every fuzz target for FUZZ_SECONDS (300)
#   big      chimera-700m takes two real steps of 8,192 tokens at T = 2048 within 16 GB, two of 512 with
#            LoRA within 4.5 GB, or 3 GB on a base of bf16
#   calib    error rates of regress's verdict over 2,000 simulated comparisons
#   regress  verdicts on a model trained here: less training, quantized, broken; speed of eval
# The closing line adds up all parts.
set -u
p=0 f=0 s=0 bad=
log=$(mktemp /tmp/chimera-full-XXXXXX)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/chimera-big-XXXXXX")
trap 'rm -rf "$log" "$tmp"' EXIT
trap 'exit 1' INT TERM

part() { # NAME COMMAND...: its last line counts
    name=$1; shift
    printf '\n#### %s\n' "$name"
    "$@" 2>&1 | tee "$log"
    line=$(tail -n 1 "$log" | grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$')
    [ -n "$line" ] || { echo "FAIL $name ended without a result"; line="0 passed, 1 failed, 0 skipped"; }
    # shellcheck disable=SC2046
    set -- $(echo "$line" | tr -dc '0-9 ')
    p=$((p + $1)) f=$((f + $2)) s=$((s + $3))
    [ "$2" = 0 ] || bad="$bad '$name'"
}
programs() { # of a build: unit and golden tests, faults' helpers left out
    for t in tests/unit/*_test.c tests/golden/*_test.c; do
        echo "$1/test/$(echo "$t" | sed 's,^tests/,,; s,\.c$,,')"
    done
}
scripts() { ls tests/cli/*.sh tests/fault/*.sh 2>/dev/null | grep -v '/lib.sh$'; }

asan() {
    make -s -j2 MODE=asan all tests-build >"$tmp/build" 2>&1 || {
        tail -n 20 "$tmp/build"; echo "0 passed, 1 failed, 0 skipped"; return; }
    # Shims come in by LD_PRELOAD, before the sanitizer's own library.
    # shellcheck disable=SC2046
    BIN=build/asan/bin ASAN_OPTIONS=detect_leaks=1:verify_asan_link_order=0 \
        OMP_WAIT_POLICY=passive TEST_TIMEOUT=3600 sh tests/run.sh $(scripts) $(programs build/asan)
}
clang_build() {
    echo 'int main(void) { return 0; }' >"$tmp/omp.c"
    if ! clang -fopenmp "$tmp/omp.c" -o "$tmp/omp" 2>"$tmp/build"; then
        echo "skip clang: it cannot link -fopenmp here (apt-get install clang libomp-dev)"
        echo "0 passed, 0 failed, 1 skipped"
        return
    fi
    make -s -j2 MODE=clang all tests-build >"$tmp/build" 2>&1 || {
        tail -n 20 "$tmp/build"; echo "0 passed, 1 failed, 0 skipped"; return; }
    # shellcheck disable=SC2046
    OMP_WAIT_POLICY=passive TEST_TIMEOUT=3600 sh tests/run.sh $(programs build/clang)
}
kernels() {
    # shellcheck disable=SC2046
    CHIMERA_KERNELS=$1 TEST_TIMEOUT=3600 sh tests/run.sh $(programs build/release)
}
has_level() { CHIMERA_KERNELS=$1 build/bin/pretrain --dry-run model.vocab_size=400 >/dev/null 2>&1; }
faults() {
    # shellcheck disable=SC2046
    KILLS=${KILLS:-100} TEST_TIMEOUT=7200 sh tests/run.sh $(ls tests/fault/*.sh | grep -v '/lib.sh$')
}

# ---- chimera-700m: needs 20 GB of free memory, and disk for one checkpoint of 9 GB
big() {
    mem=$(awk '/MemAvailable/ { print int($2 / 1e6) }' /proc/meminfo)
    disk=$(df -Pk "$tmp" | awk 'NR == 2 { print int($4 / 1e6) }')
    if [ "$mem" -lt 20 ] || [ "$disk" -lt 12 ]; then
        echo "skip chimera-700m: $mem GB of memory and $disk GB of disk free; it wants 20 and 12"
        echo "0 passed, 0 failed, 1 skipped"
        return
    fi
    # Words enough for 32,000 pieces.
    awk 'BEGIN { x = 7; for (i = 0; i < 12000; i++) { s = ""
        for (w = 0; w < 8; w++) { n = 3 + int(x / 7) % 6
            for (k = 0; k < n; k++) { x = (x * 16807) % 2147483647
                s = s sprintf("%c", 97 + int(x / 65536) % 26) }
            s = s " " }
        print s } }' >"$tmp/words.txt"
    build/bin/tokenize --quiet tokenize.inputs="$tmp/words.txt" tokenize.split=line \
        tokenize.vocab_size=32000 tokenize.val_frac=0 tokenize.out="$tmp/data" >/dev/null &&
    build/bin/pretrain --config configs/chimera-700m.yaml --runs "$tmp/runs" data.shards="$tmp/data" \
        data.seq_len=2048 data.batch_tokens=8192 data.micro_rows=1 model.context=2048 \
        train.recompute=auto train.max_gb=15.8 \
        sched.tokens=16384 sched.warmup=0 log.every=1 ckpt.every=0 val.samples=0 || {
        echo "FAIL chimera-700m: exit code $?"; echo "0 passed, 1 failed, 0 skipped"; return; }
    sum=$tmp/runs/chimera-700m/summary.json
    rss=$(sed 's/.*"train\/rss_bytes":\([0-9]*\).*/\1/' "$sum")
    planned=$(sed 's/.*"memory\/planned_bytes":\([0-9]*\).*/\1/' "$sum")
    echo "chimera-700m: two steps of 8192 tokens, resident $((rss / 1000000)) MB, planned $((planned / 1000000)) MB"
    ok=0
    grep -q '"step":2,' "$sum" && [ "$rss" -lt 16000000000 ] && ok=$((ok + 1)) ||
        echo "FAIL chimera-700m: not two steps within 16 GB"
    off=$((rss - planned))
    [ ${off#-} -lt 268435456 ] && ok=$((ok + 1)) ||
        echo "FAIL chimera-700m: more than 256 MiB away from the plan"
    big_lora
    echo "$((ok + lora)) passed, $((4 - ok - lora)) failed, 0 skipped"
}
# Adapters of rank 16 on all linear layers of that model, T = 512; most memory ever resident.
big_lora() {
    lora=0
    build/bin/world --kind instructions --seed 3 --split train --count 200 >"$tmp/chat.jsonl"
    build/bin/tokenize --quiet tokenize.inputs="$tmp/chat.jsonl" tokenize.tokenizer="$tmp/data/tokenizer.model" \
        tokenize.val_frac=0 tokenize.out="$tmp/chat" >/dev/null 2>&1
    for what in f32:4500 bf16:3000; do
        base=${what%:*} most=${what#*:} sum=$tmp/runs/lora-${what%:*}/summary.json
        build/bin/sft --quiet --runs "$tmp/runs" name="lora-$base" post.model="$tmp/runs/chimera-700m" \
            data.shards="$tmp/chat" lora.rank=16 lora.base="$base" train.recompute=block data.seq_len=512 \
            data.batch_tokens=512 sched.tokens=1024 val.samples=0 panel.prompts=0
        rss=$(sed 's/.*"train\/rss_bytes":\([0-9]*\).*/\1/' "$sum")
        planned=$(sed 's/.*"memory\/planned_bytes":\([0-9]*\).*/\1/' "$sum")
        echo "chimera-700m, LoRA on a base of $base: resident $((rss / 1000000)) MB, planned $((planned / 1000000)) MB"
        if grep -q '"step":2,' "$sum" && [ "$((rss / 1000000))" -lt "$most" ]; then lora=$((lora + 1))
        else echo "FAIL chimera-700m, LoRA on $base: not two steps within $most MB"; fi
    done
}

[ $# -gt 0 ] || set -- asan kernels clang faults fuzz big calib regress
for what in "$@"; do
    case $what in
    asan) part "sanitizers" asan ;;
    kernels)
        make -s -j2 all tests-build >"$tmp/build" 2>&1 || tail -n 20 "$tmp/build"
        for level in ref avx2 avx512; do
            if has_level $level; then part "kernels: $level" kernels $level
            else echo "skip kernels: $level: not on this CPU"; s=$((s + 1)); fi
        done ;;
    clang) part "clang" clang_build ;;
    faults) part "fault loops" faults ;;
    fuzz) part "fuzzing" sh tests/fuzz/run.sh "${FUZZ_SECONDS:-300}" ;;
    big) part "chimera-700m" big ;;
    calib) part "calibration" env CALIB_SIMS="${CALIB_SIMS:-2000}" build/release/test/unit/calib_test ;;
    regress) part "real regressions" sh tests/regress/real.sh ;;
    *) echo "full.sh: no part '$what'" >&2; exit 2 ;;
    esac
done
[ -z "$bad" ] || echo "failures in:$bad"
echo "$p passed, $f failed, $s skipped"
[ $f = 0 ] && [ $p -gt 0 ]
