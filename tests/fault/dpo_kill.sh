#!/bin/sh
# dpo_kill.sh -- kill -9 while the reference's numbers are written, or inside a save: the run
# goes on, never from half a file, and ends in the same bits.  KILLS=10 inside saves.
. tests/fault/lib.sh
: "${KILLS:=10}"
tiny_data
tiny_config
check "a model to start from" pretrain name=base --quiet
awk 'BEGIN { srand(5); for (i = 0; i < 60; i++) { a = int(rand() * 50); b = int(rand() * 50)
    printf "{\"prompt\":\"%d + %d?\",\"chosen\":\"%d\",\"rejected\":\"Is it %d?\"}\n", a, b, a + b, a + b + 1 } }' >"$tmp/pairs.jsonl"
"$BIN/tokenize" --quiet tokenize.inputs="$tmp/pairs.jsonl" tokenize.out="$tmp/pairs" tokenize.val_frac=0.1 \
    tokenize.tokenizer="$tmp/shards/tokenizer.model" >/dev/null 2>&1
cat >"$tmp/dpo.yaml" <<YAML
seed: 3
threads: 1
post: {model: $tmp/runs/base}
data: {shards: $tmp/pairs, seq_len: 64, batch_tokens: 128}
optim: {lr: 3e-3}
sched: {tokens: 1536, warmup: 256}
val: {every: 4, samples: 0}
log: {every: 1}
ckpt: {every: 1, keep_last: 2}
panel: {prompts: 0}
YAML
cache=$tmp/runs/.ref-cache
dpo() { "$BIN/dpo" --config "$tmp/dpo.yaml" --runs "$tmp/runs" "$@"; }
killed() { # N UNDER WORDS...: at the n-th file call below UNDER; $code
    at=$1 under=$2; shift 2
    LD_PRELOAD=$shim CM_SHIM_UNDER=$under CM_SHIM_KILL=$at "$BIN/dpo" --config "$tmp/dpo.yaml" --runs "$tmp/runs" \
        --quiet name=victim "$@" >"$tmp/.out" 2>"$tmp/.err"
    code=$?
}
numbers() { cat "$cache"/* | sha256sum; }

# every_call NAME WORDS...: killed at each file call of the reference's cache, and run again.
every_call() {
    what=$1; shift
    rm -rf "$cache" "$tmp/runs/ref"
    check "$what: a run without interruption" dpo name=ref --quiet "$@"
    ref=$(final ref) kept=$(numbers)
    bad= inside=0 n=1
    while [ $n -le 40 ] && [ -z "$bad" ]; do
        rm -rf "$cache" "$tmp/runs/victim"
        killed $n /.ref-cache "$@"
        [ $code = 0 ] && break
        [ $code = 137 ] || bad="exit code $code at call $n"
        inside=$((inside + 1))
        dpo name=victim "$@" >"$tmp/.out" 2>"$tmp/.err" || bad="no resume after call $n"
        grep -q "anew" "$tmp/.err" && bad="half a file after call $n"
        [ "$(final victim)" = "$ref" ] || bad="other weights after call $n"
        [ "$(numbers)" = "$kept" ] || bad="other numbers, or something left over, after call $n"
        n=$((n + 1))
    done
    report "$what: killed at each of $inside file calls of the cache" "$([ -z "$bad" ] && [ $inside -ge 4 ] && echo 1 || echo 0)" "$bad"
}
lora="lora.rank=4 lora.base=bf16"
every_call "LoRA on a bf16 base" $lora
check "whose reference is held in bf16" grep -qa "held bf16" "$cache"/*
# In the middle of the pass, wherever that is: nothing is kept of it, or a part that is right.
bad= inside=0
for ms in 5 10 20 40 80; do
    rm -rf "$cache" "$tmp/runs/victim"
    "$BIN/dpo" --config "$tmp/dpo.yaml" --runs "$tmp/runs" --quiet name=victim $lora >"$tmp/.out" 2>"$tmp/.err" &
    pid=$!
    sleep "$(awk "BEGIN { print $ms / 1000 }")"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    [ -e "$tmp/runs/victim/ckpt/latest" ] || inside=$((inside + 1))
    dpo name=victim $lora >"$tmp/.out" 2>"$tmp/.err" || bad="no rerun after $ms ms"
    grep -q "anew" "$tmp/.err" && bad="half a file after $ms ms"
    [ "$(final victim)" = "$ref" ] || bad="other weights after $ms ms"
    [ "$(numbers)" = "$kept" ] || bad="other numbers after $ms ms"
done
report "LoRA on a bf16 base: killed $inside times before the first checkpoint" "$([ -z "$bad" ] && [ $inside -ge 1 ] && echo 1 || echo 0)" "$bad"
every_call "all weights"

rm -rf "$tmp/runs/victim"
bad= inside=0 n=3
while [ $inside -lt "$KILLS" ] && [ -z "$bad" ]; do
    killed $n /ckpt
    n=$(((n * 7 + 11) % 83 + 1))
    grep -q "damaged\|cannot be trusted" "$tmp/.err" && bad="a damaged checkpoint"
    case $code in
    137) inside=$((inside + 1)) ;;
    0)  [ "$(final victim)" = "$ref" ] || bad="other weights"
        rm -rf "$tmp/runs/victim" ;;
    *) bad="exit code $code" ;;
    esac
done
report "$inside kills inside saves: always resumes" "$([ -z "$bad" ] && echo 1 || echo 0)" "$bad"
[ -e "$tmp/runs/victim/status.json" ] && ! grep -q '"state":"done"' "$tmp/runs/victim/status.json" && dpo name=victim --quiet
[ -e "$tmp/runs/victim" ] || dpo name=victim --quiet
report "with the weights of an uninterrupted run" "$([ -n "$ref" ] && [ "$(final victim)" = "$ref" ] && echo 1 || echo 0)" "$(final victim)"
report "nothing left over" "$([ "$(leftovers victim)" = 0 ] && echo 1 || echo 0)" ""
finish
