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
killed() { # N UNDER: at the n-th file call below UNDER; $code
    LD_PRELOAD=$shim CM_SHIM_UNDER=$2 CM_SHIM_KILL=$1 "$BIN/dpo" --config "$tmp/dpo.yaml" --runs "$tmp/runs" \
        --quiet name=victim >"$tmp/.out" 2>"$tmp/.err"
    code=$?
}
check "a run without interruption" dpo name=ref --quiet
ref=$(final ref)
kept=$(cat "$cache"/* | sha256sum)

bad= inside=0 n=1
while [ $n -le 40 ] && [ -z "$bad" ]; do
    rm -rf "$cache" "$tmp/runs/victim"
    killed $n /.ref-cache
    [ $code = 0 ] && break
    [ $code = 137 ] || bad="exit code $code at call $n"
    inside=$((inside + 1))
    dpo name=victim >"$tmp/.out" 2>"$tmp/.err" || bad="no resume after call $n"
    grep -q "anew" "$tmp/.err" && bad="half a file after call $n"
    [ "$(final victim)" = "$ref" ] || bad="other weights after call $n"
    [ "$(cat "$cache"/* | sha256sum)" = "$kept" ] || bad="other numbers, or something left over, after call $n"
    n=$((n + 1))
done
report "killed at each of $inside file calls of the cache" "$([ -z "$bad" ] && [ $inside -ge 4 ] && echo 1 || echo 0)" "$bad"

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
